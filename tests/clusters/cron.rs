//! Passes from cron against daemons that only serve: `agent --once`, its options and its exit codes.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Container, Passed, SOON, end, rows, wait};

/// Containers of which each node has rows of its own, and daemons that serve but make no passes.
fn differing(nodes: usize, containers: usize) -> (Cluster, Vec<Container>) {
    let cluster = Cluster::new(nodes);
    cluster.configure_all(&[("agent_passes", "no")]);
    let containers = cluster.containers("c", containers);
    for container in &containers {
        for device in cluster.primaries(container) {
            let mut broker = cluster.create(device, container);
            broker.merge_rows(rows(&format!("on{device}"), 0..10), None).expect("merged");
        }
    }
    (cluster, containers)
}

#[test]
fn a_round_of_passes_makes_all_agree_and_the_next_finds_nothing() {
    let (cluster, containers) = differing(3, 5);
    cluster.configure(0, &[("concurrency", "1")]);
    cluster.start_all();
    assert_eq!(cluster.once(0, "").ended(0).count("diff"), 10);
    cluster.once(1, "").ended(0);
    cluster.once(2, "").ended(0);
    cluster.once_all();
    containers.iter().for_each(|container| assert_eq!(cluster.disagreement(container), None));
    cluster.once_all();
    for node in 0..3 {
        let passed = cluster.once(node, "").ended(0);
        assert_eq!((passed.count("attempted"), passed.count("success")), (5, 10));
        assert_eq!((passed.count("no_change"), passed.count("failure")), (10, 0), "{}", passed.stdout);
        assert_eq!(passed.count("rows_sent"), 0);
    }
}

#[test]
fn a_dead_peer_fails_for_itself_alone() {
    let (cluster, containers) = differing(3, 3);
    cluster.start(1);
    let passed = cluster.once(0, "").ended(1);
    assert_eq!((passed.count("success"), passed.count("failure")), (3, 3));
    passed.said("is its agent running?");
    for container in containers {
        assert_eq!(cluster.replica(1, &container).expect("it is there").rows.len(), 20);
        assert_eq!(cluster.replica(2, &container).expect("it is there").rows.len(), 10);
    }
}

/// A peer that takes calls and never answers.
fn silent(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free")
}

#[test]
fn a_second_pass_is_refused_while_one_runs() {
    let (cluster, _) = differing(2, 1);
    let peer = silent(cluster.port(1));
    let mut first = cluster.agent(0, "--once --json").spawn().expect("the agent runs");
    let (mut call, _) = peer.accept().expect("it calls");
    call.read_exact(&mut [0; 4]).expect("it greets");
    cluster.once(0, "").ended(75).said("another pass of this node is running");
    // One that only looks disturbs nobody.
    let look = cluster.agent(0, "--dry-run -q").spawn().expect("the agent runs");
    let (status, took) = end(&mut first, Signal::SIGTERM);
    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop((call, peer));
    assert_eq!(look.wait_with_output().expect("it ends").status.code(), Some(1));
    assert_eq!(cluster.once(0, "").code, Some(1), "the lock went with its owner");
}

#[test]
fn a_pass_can_be_for_some_devices_or_partitions() {
    let cluster = Cluster::placed(&[(0, 1), (0, 1), (1, 1)]);
    cluster.configure_all(&[("agent_passes", "no")]);
    // Every partition on both devices of node 0 would hide which one was walked.
    cluster.set_ring(|partition| vec![partition.0 % 2, 2]);
    let containers = cluster.containers("c", 20);
    let on = |device: usize| containers.iter().filter(move |c| (c.partition.0 % 2) as usize == device);
    for device in [0, 1] {
        assert!(on(device).count() > 0);
        on(device).for_each(|container| drop(cluster.create(device, container)));
    }
    cluster.start(1);
    let there = |container: &Container| cluster.replica(2, container).is_some();
    let passed = cluster.once(0, "--devices d1").ended(0);
    assert_eq!(passed.count("attempted"), on(1).count() as u64);
    assert!(on(1).all(there) && !on(0).any(there));
    let one = on(0).next().expect("some container");
    let passed = cluster.once(0, &format!("--partitions {}", one.partition)).ended(0);
    let same = |container: &&Container| container.partition == one.partition;
    assert_eq!(passed.count("attempted"), on(0).filter(same).count() as u64);
    on(0).for_each(|container| assert_eq!(there(container), same(&container), "{container:?}"));
    cluster.once(0, "--devices d2").ended(2).said("d2 not on this node, which has d0, d1");
    cluster.once(0, "--devices nowhere").ended(2).said("nowhere");
    assert_eq!(cluster.once(0, "--partitions 99999").ended(0).count("attempted"), 0);
}

#[test]
fn handoffs_only_moves_what_is_not_ours_and_nothing_else() {
    let cluster = Cluster::new(4);
    cluster.configure_all(&[("agent_passes", "no"), ("handoffs_only", "yes")]);
    cluster.set_ring(|partition| match partition.0 % 2 {
        0 => vec![0, 1, 2],
        _ => vec![1, 2, 3],
    });
    let containers = cluster.containers("c", 10);
    for container in &containers {
        cluster.create(0, container);
    }
    cluster.start_all();
    let passed = cluster.once(0, "").ended(0).said("handoffs_only");
    let ours = |container: &Container| cluster.primaries(container).contains(&0);
    for container in &containers {
        assert_eq!(cluster.replica(0, container).is_some(), ours(container), "{container:?}");
        assert_eq!(cluster.replica(1, container).is_some(), !ours(container), "{container:?}");
    }
    let moved = containers.iter().filter(|container| !ours(container)).count() as u64;
    assert!(0 < moved && moved < 10);
    assert_eq!((passed.count("remove"), passed.count("attempted")), (moved, moved));
}

#[test]
fn a_handoff_stays_until_enough_have_it() {
    let cluster = Cluster::new(4);
    cluster.configure_all(&[("agent_passes", "no")]);
    cluster.set_ring(|_| vec![1, 2, 3]);
    let container = cluster.container("c");
    cluster.create(0, &container).merge_rows(rows("a", 0..10), None).expect("merged");
    cluster.start(1);
    cluster.start(2);
    let passed = cluster.once(0, "").ended(1);
    assert_eq!((passed.count("rsync"), passed.count("remove"), passed.count("failure")), (2, 0, 1));
    assert!(cluster.replica(0, &container).is_some(), "one of three does not have it");
    cluster.configure(0, &[("handoff_delete", "3")]);
    assert_eq!(cluster.once(0, "").ended(1).count("remove"), 0);
    cluster.configure(0, &[("handoff_delete", "2")]);
    assert_eq!(cluster.once(0, "").ended(1).count("remove"), 1);
    assert!(cluster.replica(0, &container).is_none());
    for device in [1, 2] {
        assert_eq!(cluster.replica(device, &container).expect("it is there").rows.len(), 10);
    }
}

#[test]
fn databases_are_looked_at_no_faster_than_asked_for() {
    let (cluster, _) = differing(2, 11);
    cluster.configure(0, &[("databases_per_second", "10")]);
    cluster.start(1);
    let begun = Instant::now();
    cluster.once(0, "").ended(0);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(990), "{took:?}");
    cluster.configure(0, &[("databases_per_second", "0")]);
    assert!(wait(SOON, || {
        let begun = Instant::now();
        cluster.once(0, "").ended(0);
        begun.elapsed() < Duration::from_millis(900)
    }));
}

#[test]
fn a_dry_run_changes_nothing() {
    let (cluster, containers) = differing(2, 2);
    cluster.start(1);
    let said = Passed::of(cluster.agent(0, "--dry-run")).ended(0);
    for container in containers {
        assert!(said.stdout.contains(&format!("AUTH_test/{}", container.name)), "{}", said.stdout);
        for device in [0, 1] {
            assert_eq!(cluster.replica(device, &container).expect("it is there").rows.len(), 10);
        }
    }
}

#[test]
fn a_peer_is_sent_no_more_than_the_bandwidth_allows() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no"), ("agent_compress", "no")]);
    cluster.configure(0, &[("agent_bandwidth", "1 MiB")]);
    // By several workers at once, who have to share it.
    let containers = cluster.containers("c", 4);
    for container in &containers {
        let mut broker = cluster.create(0, container);
        broker.merge_rows(rows("r", 0..5000), None).expect("merged");
    }
    cluster.start(1);
    let begun = Instant::now();
    let passed = cluster.once(0, "").ended(0);
    let (elapsed, sent) = (begun.elapsed().as_secs_f64(), passed.count("bytes_sent"));
    containers.iter().for_each(|container| assert_eq!(cluster.disagreement(container), None));
    assert!(sent > 3 << 19, "too little to tell: {sent} bytes");
    // Less the last slice of each, for which nobody has to wait.
    let least = (sent - 4 * (64 << 10)) as f64 / f64::from(1 << 20);
    assert!(elapsed >= least, "{sent} bytes in {elapsed} s");
}
