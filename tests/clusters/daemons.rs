//! Daemons that make passes by themselves.

use std::time::Duration;

use nix::sys::signal::Signal;
use swiftlet::replica::PolicyIndex;

use crate::cluster::{Cluster, Container, copy_database, database, metadata, row, rows, time, tombstone};

/// Ways in which replicas come to differ. Each is arranged before any agent runs.
#[derive(Debug, Clone, Copy)]
enum Difference {
    Missing,
    RowsOnEach,
    DeletedObject,
    ObjectPutAgain,
    Metadata,
    DeletedContainer,
    Policy,
    PendingRows,
    FarBehind,
    NothingInCommon,
    OnAHandoff,
    OnlyOnAHandoff,
    InAWrongPartition,
}

const ALL: [Difference; 13] = [
    Difference::Missing,
    Difference::RowsOnEach,
    Difference::DeletedObject,
    Difference::ObjectPutAgain,
    Difference::Metadata,
    Difference::DeletedContainer,
    Difference::Policy,
    Difference::PendingRows,
    Difference::FarBehind,
    Difference::NothingInCommon,
    Difference::OnAHandoff,
    Difference::OnlyOnAHandoff,
    Difference::InAWrongPartition,
];

/// More rows than are sent one by one.
const FAR: u64 = 60_000;

impl Difference {
    fn arrange(self, cluster: &Cluster, container: &Container) {
        let on = cluster.primaries(container);
        let handoff = (0..4).find(|device| !on.contains(device)).expect("four devices, three primaries");
        let create = |devices: &[usize]| -> Vec<_> {
            devices.iter().map(|&device| cluster.create(device, container)).collect()
        };
        match self {
            Difference::Missing => {
                create(&on[..1])[0].merge_rows(rows("a", 0..50), None).expect("merged");
            }
            Difference::RowsOnEach => {
                for (number, mut broker) in create(&on).into_iter().enumerate() {
                    broker.merge_rows(rows(&format!("on{number}"), 0..20), None).expect("merged");
                }
            }
            Difference::DeletedObject | Difference::ObjectPutAgain => {
                let (first, second) = match self {
                    Difference::DeletedObject => (row("x", 5), tombstone("x", 6)),
                    _ => (tombstone("x", 5), row("x", 6)),
                };
                let mut brokers = create(&on);
                brokers[0].merge_rows(vec![first], None).expect("merged");
                brokers[1].merge_rows(vec![second], None).expect("merged");
            }
            Difference::Metadata => {
                let mut brokers = create(&on);
                brokers[0].merge_metadata(&metadata("X-Container-Meta-A", "old", 5)).expect("merged");
                brokers[1].merge_metadata(&metadata("X-Container-Meta-A", "new", 6)).expect("merged");
                brokers[2].merge_metadata(&metadata("X-Container-Meta-B", "other", 5)).expect("merged");
            }
            Difference::DeletedContainer => create(&on)[1].delete_db(time(50)).expect("deleted"),
            Difference::Policy => create(&on)[2].set_policy(PolicyIndex(1), time(50)).expect("set"),
            Difference::PendingRows => {
                let mut brokers = create(&on);
                for row in rows("pending", 0..5) {
                    brokers[0].put_record(row).expect("put");
                }
            }
            Difference::FarBehind => {
                let mut brokers = create(&on);
                brokers[0].merge_rows(rows("far", 0..FAR), None).expect("merged");
                brokers[1].merge_rows(rows("late", 0..10), None).expect("merged");
            }
            Difference::NothingInCommon => {
                for (number, mut broker) in create(&on).into_iter().enumerate() {
                    broker.merge_rows(rows(&format!("own{number}"), 0..3000), None).expect("merged");
                    broker.merge_rows(vec![row("shared", 10 + number as u64)], None).expect("merged");
                }
            }
            Difference::OnAHandoff => {
                for (number, mut broker) in create(&[on[0], on[1], handoff]).into_iter().enumerate() {
                    broker.merge_rows(rows(&format!("at{number}"), 0..10), None).expect("merged");
                }
            }
            Difference::OnlyOnAHandoff => {
                create(&[handoff])[0].merge_rows(rows("a", 0..10), None).expect("merged");
            }
            Difference::InAWrongPartition => {
                create(&on[..1])[0].merge_rows(rows("a", 0..10), None).expect("merged");
                let mut wrong = container.clone();
                wrong.partition.0 ^= 1;
                let (right, wrong) = (cluster.home(on[0], container), cluster.home(on[0], &wrong));
                copy_database(&right, &wrong);
                std::fs::remove_dir_all(right.dir()).expect("removed");
            }
        }
    }

    /// How many rows all replicas end with, and how many objects.
    fn outcome(self) -> (usize, i64) {
        match self {
            Difference::Missing => (50, 50),
            Difference::RowsOnEach => (60, 60),
            Difference::DeletedObject => (1, 0),
            Difference::ObjectPutAgain => (1, 1),
            Difference::Metadata | Difference::DeletedContainer | Difference::Policy => (0, 0),
            Difference::PendingRows => (5, 5),
            Difference::FarBehind => (FAR as usize + 10, FAR as i64 + 10),
            Difference::NothingInCommon => (9001, 9001),
            Difference::OnAHandoff => (30, 30),
            Difference::OnlyOnAHandoff | Difference::InAWrongPartition => (10, 10),
        }
    }
}

#[test]
fn every_kind_of_difference_goes_away_by_itself() {
    let cluster = Cluster::new(4);
    let containers: Vec<Container> =
        ALL.iter().map(|difference| cluster.container(&format!("{difference:?}"))).collect();
    for (difference, container) in ALL.iter().zip(&containers) {
        difference.arrange(&cluster, container);
    }
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(40));
    for (difference, container) in ALL.iter().zip(&containers) {
        let replica = cluster.replica(cluster.primaries(container)[0], container).expect("it is there");
        assert_eq!((replica.rows.len(), replica.info.count), difference.outcome(), "{difference:?}");
        match difference {
            Difference::Metadata => {
                let found = &replica.info.metadata;
                assert_eq!(found.value("X-Container-Meta-A"), Some("new"));
                assert_eq!(found.value("X-Container-Meta-B"), Some("other"));
            }
            Difference::DeletedContainer => assert!(replica.info.is_deleted()),
            _ => {}
        }
    }
}

#[test]
fn a_node_that_was_down_catches_up() {
    let cluster = Cluster::new(3);
    let container = cluster.container("c");
    cluster.create(0, &container).merge_rows(rows("before", 0..10), None).expect("merged");
    cluster.start_all();
    let all = [container.clone()];
    cluster.wait_for_agreement(&all, Duration::from_secs(20));
    cluster.end(2, Signal::SIGTERM);
    cluster.open(0, &container).merge_rows(rows("while", 0..10), None).expect("merged");
    cluster.open(2, &container).merge_rows(rows("alone", 0..10), None).expect("merged");
    let both = |device| cluster.replica(device, &container).expect("it is there").rows.len() == 20;
    assert!(crate::cluster::wait(Duration::from_secs(20), || both(0) && both(1)), "{}", cluster.logs());
    assert!(cluster.disagreement(&container).is_some());
    cluster.start(2);
    cluster.wait_for_agreement(&all, Duration::from_secs(20));
    assert_eq!(cluster.replica(0, &container).expect("it is there").rows.len(), 30);
}

#[test]
fn a_new_ring_is_noticed_and_databases_move() {
    let cluster = Cluster::new(4);
    cluster.set_ring(|_| vec![0, 1, 2]);
    let containers = cluster.containers("c", 6);
    for container in &containers {
        cluster.create(0, container).merge_rows(rows("a", 0..10), None).expect("merged");
    }
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(20));
    cluster.set_ring(|_| vec![1, 2, 3]);
    cluster.wait_for_agreement(&containers, Duration::from_secs(30));
    for container in &containers {
        assert_eq!(cluster.replica(3, container).expect("it moved").rows.len(), 10);
        assert!(!cluster.home(0, container).dir().exists());
    }
}

#[test]
fn two_regions_agree_too() {
    let cluster = Cluster::placed(&[(0, 1), (1, 1), (2, 2), (3, 2)]);
    let containers = cluster.containers("c", 8);
    for (number, container) in containers.iter().enumerate() {
        // On every device in turn, primary or not.
        cluster.create(number % 4, container).merge_rows(rows("a", 0..10), None).expect("merged");
    }
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(20));
    for container in &containers {
        assert!(database(&cluster.home(cluster.primaries(container)[2], container)).exists());
    }
}
