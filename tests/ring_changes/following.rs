//! The data follows, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use swiftlet::ring::DeviceId;

use crate::bystanders::Bystanders;
use crate::cluster::{Cluster, Container, MOUNTED, wait};
use crate::{ROWS, add, cluster, containers, rebalance};

#[test]
fn the_data_follows_a_new_device_and_leaves_a_drained_one() {
    let (cluster, mut builder) = cluster(5);
    let containers = containers(&cluster, 36);
    cluster.start_all();
    let bystanders = Bystanders::start("added", &cluster, &containers, 5);
    sleep(Duration::from_secs(1));

    // While the new ring is on its way a node is down and a drive of another is not mounted.
    add(&cluster, &mut builder, 4, 1);
    assert!(rebalance(&mut builder) > 0);
    cluster.expect_ring(builder.ring().expect("it is rebalanced"));
    cluster.end(2, Signal::SIGTERM);
    cluster.mount(1, false);
    cluster.give_ring(0);
    cluster.give_ring(4);
    sleep(Duration::from_secs(3));
    cluster.give_ring(1);
    cluster.give_ring(3);
    sleep(Duration::from_secs(2));
    cluster.start(2);
    sleep(Duration::from_secs(2));
    cluster.mount(1, true);
    cluster.give_ring(2);
    sleep(Duration::from_secs(1));
    let mut acknowledged = bystanders.finish();
    settled(&cluster, &containers, &acknowledged);
    assert!(!files(&cluster.device(4).join("containers")).is_empty(), "the new device holds nothing");

    // A drive is drained and its containers are gone from it, down to the directories.
    let bystanders = Bystanders::start("drained", &cluster, &containers, 5);
    builder.set_weight(DeviceId(1), 0.0).expect("it is there");
    assert!(rebalance(&mut builder) > 0);
    assert_eq!(builder.parts()[1], 0, "one rebalance empties a drive of which no partition has two replicas");
    cluster.expect_ring(builder.ring().expect("it is rebalanced"));
    for node in [3, 0, 1, 4, 2] {
        cluster.give_ring(node);
        sleep(Duration::from_millis(700));
    }
    acknowledged.iter_mut().zip(bystanders.finish()).for_each(|(all, more)| all.extend(more));
    settled(&cluster, &containers, &acknowledged);
    assert!(
        wait(Duration::from_secs(5), || files(&cluster.device(1)) == [PathBuf::from(MOUNTED)]),
        "{:?}",
        files(&cluster.device(1))
    );

    // Then it can be taken away, and nothing moves for it.
    let before = builder.rows().map(<[_]>::to_vec);
    builder.remove(DeviceId(1)).expect("it is there");
    assert_eq!(rebalance(&mut builder), 0);
    assert_eq!(builder.rows().map(<[_]>::to_vec), before);
    assert!(builder.device(DeviceId(1)).is_none());
    cluster.expect_ring(builder.ring().expect("it is rebalanced"));
    let logged = (0..5).map(|node| cluster.log(node).len()).collect::<Vec<_>>();
    (0..5).for_each(|node| cluster.give_ring(node));
    sleep(Duration::from_secs(4));
    for (node, logged) in logged.into_iter().enumerate().filter(|(node, _)| *node != 1) {
        let since = &cluster.log(node)[logged..];
        assert!(since.contains("Replication run OVER"), "node {node} made no pass\n{since}");
        for moved in ["took in a whole file", "Successfully deleted", "ERROR"] {
            assert!(!since.contains(moved), "node {node}\n{since}");
        }
    }
    containers.iter().for_each(|container| assert_eq!(cluster.disagreement(container), None));
}

#[test]
fn changes_that_come_faster_than_the_data_lose_nothing() {
    let (cluster, mut builder) = cluster(6);
    let containers = containers(&cluster, 36);
    let first = builder.rows().map(<[_]>::to_vec);
    cluster.start_all();
    let bystanders = Bystanders::start("often", &cluster, &containers, 6);
    add(&cluster, &mut builder, 4, 1);
    add(&cluster, &mut builder, 5, 2);
    rebalance(&mut builder);
    for drained in [0, 1, 2] {
        builder.set_weight(DeviceId(drained), 0.0).expect("it is there");
        rebalance(&mut builder);
        // Passes begin with it, and do not end.
        cluster.expect_ring(builder.ring().expect("it is rebalanced"));
        (0..6).for_each(|node| cluster.give_ring(node));
        sleep(Duration::from_millis(1100));
    }
    assert_ne!(builder.rows().map(<[_]>::to_vec), first);
    settled(&cluster, &containers, &bystanders.finish());
    for drained in 0..3 {
        let left = || files(&cluster.device(drained));
        assert!(wait(Duration::from_secs(5), || left() == [PathBuf::from(MOUNTED)]), "{:?}", left());
    }
}

/// Waits until all is in place, and sees that every row is.
#[track_caller]
fn settled(cluster: &Cluster, containers: &[Container], acknowledged: &[BTreeSet<String>]) {
    let begun = Instant::now();
    cluster.wait_for_agreement(containers, Duration::from_secs(40));
    println!("settled {:?} after the last ring and row", begun.elapsed());
    for (container, acknowledged) in containers.iter().zip(acknowledged) {
        for device in cluster.primaries(container) {
            let replica = cluster.replica(device, container).expect("it is there");
            let lost: Vec<_> = acknowledged
                .iter()
                .filter(|name| !replica.rows.contains_key(&((*name).clone(), 0)))
                .collect();
            assert!(lost.is_empty(), "{} lost {lost:?} on {device}\n{}", container.name, cluster.logs());
            assert_eq!(replica.rows.len(), ROWS as usize + acknowledged.len());
        }
    }
    assert!(!cluster.logs().contains("uarantin"), "{}", cluster.logs());
}

/// All that is below a directory and is no directory with something in it, by its path.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        // It may be gone, and what was in it.
        let Ok(entries) = fs::read_dir(&next) else { continue };
        let mut entries = entries.flatten().peekable();
        let ours = ["containers", "tmp"].iter().any(|name| next == dir.join(name));
        if entries.peek().is_none() && next != dir && !ours {
            found.push(next.strip_prefix(dir).unwrap_or(&next).to_owned());
        }
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => found.push(entry.path().strip_prefix(dir).unwrap_or(&next).to_owned()),
            }
        }
    }
    found
}
