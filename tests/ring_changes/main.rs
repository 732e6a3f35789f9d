//! The ring changes and the data follows: real agents, rings made by the builder, writers at work all the while. Nothing
//! is lost, nothing goes too early, nothing is left behind, and nothing is passed to and fro.

#[path = "../cluster/mod.rs"]
mod cluster;

mod bystanders;
mod following;
mod lagging;

use swiftlet::ring::DeviceId;
use swiftlet::ring::builder::{Builder, NewDevice};

use crate::cluster::{Cluster, Container, PART_POWER, rows};

/// So many nodes with a drive each, and a builder in which the first four are, each in a zone of its own. Every node has
/// its ring; so every fifth node knows that it is not in it yet.
fn cluster(nodes: usize) -> (Cluster, Builder) {
    let cluster = Cluster::new(nodes);
    cluster.set_apart();
    let mut builder = Builder::new(PART_POWER, 3.0, 1).expect("it is sound");
    (0..4).for_each(|node| _ = add(&cluster, &mut builder, node, node as i64 + 1));
    rebalance(&mut builder);
    cluster.expect_ring(builder.ring().expect("it is rebalanced"));
    (0..nodes).for_each(|node| cluster.give_ring(node));
    (cluster, builder)
}

/// Adds the device of a node.
fn add(cluster: &Cluster, builder: &mut Builder, node: usize, zone: i64) -> DeviceId {
    let device = NewDevice {
        region: 1,
        zone,
        ip: "127.0.0.1".into(),
        port: cluster.port(node),
        replication_ip: "127.0.0.1".into(),
        replication_port: cluster.port(node),
        name: format!("d{node}"),
        weight: 100.0,
        meta: String::new(),
    };
    builder.add(device).expect("it is new")
}

/// Rebalances as if there had been time enough since the last time. How many replicas moved.
fn rebalance(builder: &mut Builder) -> u64 {
    builder.pretend_min_part_hours_passed();
    let done = builder.rebalance(b"a seed", 1_750_000_000).expect("there are devices enough");
    builder.validate().expect("it is sound");
    done.reassigned
}

/// Containers with equal copies on all their primaries.
fn containers(cluster: &Cluster, count: usize) -> Vec<Container> {
    let containers = cluster.containers("c", count);
    for container in &containers {
        for device in cluster.primaries(container) {
            let mut broker = cluster.create(device, container);
            broker.merge_rows(rows("before", 0..ROWS), None).expect("merged");
        }
    }
    containers
}

/// Rows of each container at the start.
const ROWS: u64 = 20;
