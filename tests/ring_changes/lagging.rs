//! A ring reaches the nodes one by one: until all have it, no copy goes on the word of a node that goes by another, and
//! none is passed to and fro.

use crate::cluster::{Cluster, Container, rows};
use crate::{add, cluster, containers, rebalance};

/// What a round of passes did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Round {
    files: u64,
    rows: u64,
    removed: u64,
}

/// One pass of every node in turn.
fn round(cluster: &Cluster, nodes: usize) -> Round {
    let mut round = Round::default();
    for node in 0..nodes {
        let passed = cluster.once(node, "");
        // Nodes that go by different rings are failures to each other; a node in no ring has no pass.
        assert!([Some(0), Some(1), Some(2)].contains(&passed.code), "{}", passed.stderr);
        if passed.code == Some(2) {
            assert!(passed.stderr.contains("Can't find itself"), "{}", passed.stderr);
            continue;
        }
        round.files += passed.count("full") + passed.count("delta");
        round.rows += passed.count("rows_sent");
        round.removed += passed.count("remove");
    }
    round
}

fn copies(cluster: &Cluster, container: &Container, devices: usize) -> usize {
    (0..devices).filter(|&device| cluster.replica(device, container).is_some()).count()
}

#[test]
fn a_ring_that_reaches_the_nodes_one_by_one_moves_each_copy_once() {
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] {
        let (cluster, mut builder) = cluster(5);
        cluster.configure_all(&[("agent_passes", "no")]);
        let containers = containers(&cluster, 24);
        cluster.start_all();
        add(&cluster, &mut builder, 4, 1);
        rebalance(&mut builder);
        cluster.expect_ring(builder.ring().expect("it is rebalanced"));
        let moving = containers.iter().filter(|container| cluster.primaries(container).contains(&4)).count();
        let (mut files, mut removed) = (0, 0);
        for (sent, node) in order.into_iter().enumerate() {
            cluster.give_ring(node);
            let (first, second) = (round(&cluster, 5), round(&cluster, 5));
            println!("{order:?}: {} nodes have the ring: {first:?}", sent + 1);
            let third = round(&cluster, 5);
            assert_eq!(third, Round::default(), "{order:?}: it never ends: {first:?}, {second:?}");
            files += first.files + second.files;
            removed += first.removed + second.removed;
            for container in &containers {
                assert!(copies(&cluster, container, 5) >= 3, "{order:?}, {sent}: {}", container.name);
            }
        }
        containers.iter().for_each(|container| assert_eq!(cluster.disagreement(container), None));
        assert!(moving > 0);
        assert_eq!((files, removed), (moving as u64, moving as u64), "{order:?}");
    }
}

/// The worst case: two rings without a device in common. Each side could remove its copies on the other's word.
#[test]
fn two_rings_that_have_no_device_in_common_keep_every_copy() {
    let cluster = Cluster::new(6);
    cluster.configure_all(&[("agent_passes", "no")]);
    cluster.set_ring(|_| vec![0, 1, 2]);
    cluster.set_apart();
    let containers = cluster.containers("c", 3);
    for container in &containers {
        for device in 0..6 {
            cluster
                .create(device, container)
                .merge_rows(rows(&format!("on{device}"), 0..5), None)
                .expect("merged");
        }
    }
    cluster.set_ring(|_| vec![3, 4, 5]);
    (0..3).for_each(|node| cluster.give_ring(node));
    cluster.start_all();
    // By its own ring no node should hold what it has.
    for _ in 0..3 {
        assert_eq!(round(&cluster, 6).removed, 0);
    }
    containers.iter().for_each(|container| assert_eq!(copies(&cluster, container, 6), 6));
    (3..6).for_each(|node| cluster.give_ring(node));
    (0..3).for_each(|_| _ = round(&cluster, 6));
    for container in &containers {
        assert_eq!(cluster.disagreement(container), None);
        assert_eq!(cluster.replica(3, container).expect("it is there").rows.len(), 30);
    }
}
