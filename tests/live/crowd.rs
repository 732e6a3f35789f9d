//! A crowd of writers on both replicas while passes run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use swiftlet::broker::Broker;
use swiftlet::replica::{Metadata, MetadataItem};
use swiftlet::timestamp::{Stamp, Timestamp};

use crate::cluster::{Cluster, Container, rows};
use crate::writer::{Habit, Worker, at_most_busy, finish};

/// Two nodes that serve, and a container on both.
pub fn cluster() -> (Cluster, Container) {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no")]);
    let container = cluster.container("live");
    (0..2).for_each(|device| drop(cluster.create(device, &container)));
    cluster.start_all();
    (cluster, container)
}

/// Two more passes of each, and every acknowledged row is everywhere, once.
pub fn all_is_there(cluster: &Cluster, container: &Container, written: &BTreeSet<String>) {
    for _ in 0..2 {
        cluster.once(0, "").ended(0);
        cluster.once(1, "").ended(0);
    }
    for device in 0..2 {
        let replica = cluster.replica(device, container).expect("it is there");
        let lost: Vec<_> =
            written.iter().filter(|name| !replica.rows.contains_key(&((*name).clone(), 0))).collect();
        assert!(lost.is_empty(), "{} of {} lost on {device}: {:?}", lost.len(), written.len(), lost.first());
        assert_eq!(replica.info.count, replica.rows.len() as i64, "sums on {device}");
    }
    assert_eq!(cluster.disagreement(container), None);
}

#[test]
fn rows_travel_both_ways_while_writers_write() {
    let (cluster, container) = cluster();
    let stop = cluster.swift_dir().join("stop");
    let mut workers = Vec::new();
    for device in 0..2 {
        for habit in [Habit::Anew, Habit::Holding, Habit::Pending, Habit::Reading] {
            let name = format!("{habit:?}-{device}");
            workers.push(Worker::start(habit, &cluster.home(device, &container), &name, &stop));
        }
    }
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < RUN {
        for node in 0..2 {
            let passed = cluster.once(node, "");
            at_most_busy(&passed);
            sent += passed.count("rows_sent");
        }
    }
    let written = finish(workers, &stop);
    assert!(sent > 0, "no pass ever sent a row");
    all_is_there(&cluster, &container, &written);
}

/// Makes one replica far ahead in each round, so that whole files travel while writers of these habits are at work on
/// both. `enough` is asked how many took a
/// place, and how many were merged in place.
fn install_files_beside(habits: &[Habit], enough: impl Fn(usize, usize) -> bool) {
    let (cluster, container) = cluster();
    let stop = cluster.swift_dir().join("stop");
    let mut workers = Vec::new();
    for device in 0..2 {
        for habit in habits {
            let name = format!("{habit:?}-{device}");
            workers.push(Worker::start(*habit, &cluster.home(device, &container), &name, &stop));
        }
    }
    let installs = || {
        let logs = cluster.log(0) + &cluster.log(1);
        let count = |what: &str| logs.matches(&format!("a whole file {what}")).count();
        (count("took its place"), count("is merged in place"))
    };
    let begun = Instant::now();
    let (mut round, mut renamed, mut merged) = (0, 0, 0);
    while begun.elapsed() < RUN || !enough(renamed, merged) && begun.elapsed() < LONGEST_RUN {
        let ahead = round % 2;
        let batch = rows(&format!("far-{round}"), 0..FAR);
        cluster.open(ahead, &container).merge_rows(batch, None).expect("merged");
        at_most_busy(&cluster.once(ahead, ""));
        (renamed, merged) = installs();
        round += 1;
    }
    let written = finish(workers, &stop);
    println!("{habits:?}: {round} rounds, {renamed} files took a place, {merged} were merged in place");
    assert!(enough(renamed, merged), "{renamed}, {merged}\n{}", cluster.logs());
    all_is_there(&cluster, &container, &written);
}

#[test]
fn whole_files_are_merged_in_place_beside_whoever_never_closes_the_database() {
    let habits = [Habit::Anew, Habit::Holding, Habit::Pending, Habit::Reading];
    install_files_beside(&habits, |_, merged| merged > 0);
}

#[test]
fn whole_files_take_the_place_of_a_database_between_two_of_its_writers() {
    install_files_beside(&[Habit::Anew, Habit::Pending], |renamed, _| renamed > 1);
}

#[test]
fn whole_files_take_the_place_of_a_database_that_is_seldom_open() {
    install_files_beside(&[Habit::Seldom], |renamed, _| renamed > 0);
}

/// Metadata is posted, under a key of its own each time, while files take the place of the database it is posted to.
#[test]
fn what_stands_beside_the_rows_is_as_safe_as_they_are() {
    let (cluster, container) = cluster();
    let home = cluster.home(1, &container);
    let stop = AtomicBool::new(false);
    let post = || {
        let mut posted = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let key = format!("X-Container-Meta-{}", posted.len());
            let stamp = Stamp::stored(Timestamp::at(SystemTime::now()).to_string());
            let item = MetadataItem { key: key.clone(), value: "posted".to_owned(), stamp };
            let mut broker = Broker::open(&home).expect("it is always there");
            broker.merge_metadata(&Metadata(vec![item])).expect("posted");
            drop(broker);
            posted.push(key);
            std::thread::sleep(Duration::from_millis(5));
        }
        posted
    };
    let (posted, installs) = std::thread::scope(|scope| {
        let poster = scope.spawn(post);
        let begun = Instant::now();
        let (mut round, mut installs) = (0, 0);
        while begun.elapsed() < RUN || installs < 2 && begun.elapsed() < LONGEST_RUN {
            let batch = rows(&format!("far-{round}"), 0..FAR);
            cluster.open(0, &container).merge_rows(batch, None).expect("merged");
            at_most_busy(&cluster.once(0, ""));
            installs = cluster.log(1).matches("a whole file took its place").count();
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
        (poster.join().expect("no panic"), installs)
    });
    assert!(installs > 0, "{}", cluster.logs());
    all_is_there(&cluster, &container, &BTreeSet::new());
    for device in 0..2 {
        let metadata = cluster.replica(device, &container).expect("it is there").info.metadata;
        let lost: Vec<_> = posted.iter().filter(|key| metadata.value(key) != Some("posted")).collect();
        assert!(lost.is_empty(), "{} of {} lost on {device}: {:?}", lost.len(), posted.len(), lost.first());
    }
}

/// How long writers and passes go on together.
const RUN: Duration = Duration::from_secs(3);
/// How long, where what the test is about has not happened yet.
const LONGEST_RUN: Duration = Duration::from_secs(20);
/// More rows than are sent one by one.
pub const FAR: u64 = 60_000;
