//! Sync points without requests: where a difference starts, though nobody ever asked.

use swiftlet::broker::Broker;
use swiftlet::ledger::Entry;
use swiftlet::replica::Row;

use super::cluster::{Cluster, Container, database, rows};
use super::{A_DAY, GRAIN, alter, quiet, settle};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    ("the_next_difference_starts_at_the_last_agreement", the_next_difference_starts_at_the_last_agreement),
    (
        "swifts_own_tables_follow_when_a_batch_has_come_together",
        swifts_own_tables_follow_when_a_batch_has_come_together,
    ),
    (
        "whose_turn_it_is_and_who_agrees_is_met_without_a_write",
        whose_turn_it_is_and_who_agrees_is_met_without_a_write,
    ),
    (
        "a_peer_that_came_back_empty_is_not_taken_for_the_one_that_agreed",
        a_peer_that_came_back_empty_is_not_taken_for_the_one_that_agreed,
    ),
];

/// Rows that a container server writes to all three replicas.
fn write_to_all(cluster: &Cluster, container: &Container, rows: Vec<Row>) {
    for device in 0..3 {
        let mut broker: Broker = cluster.open(device, container);
        broker.merge_rows(rows.clone(), None).expect("merged");
    }
}

fn the_next_difference_starts_at_the_last_agreement() {
    let (cluster, containers) = quiet(3);
    write_to_all(&cluster, &containers[0], rows("everywhere", 0..300));
    settle(&cluster);
    cluster.open(0, &containers[0]).merge_rows(rows("here", 0..4), None).expect("merged");
    let passed = cluster.once(0, "").ended(0);
    assert_eq!(passed.count("rows_sent"), 2 * 4, "{}\n{}", passed.stdout, passed.stderr);
    assert_eq!(cluster.disagreement(&containers[0]), None);
    // And back: the peers' rows since then are as few.
    settle(&cluster);
    write_to_all(&cluster, &containers[0], rows("once more", 0..200));
    std::thread::sleep(GRAIN);
    settle(&cluster);
    cluster.open(1, &containers[0]).merge_rows(rows("there", 0..3), None).expect("merged");
    let passed = cluster.once(1, "").ended(0);
    assert_eq!(passed.count("rows_sent"), 2 * 3, "{}\n{}", passed.stdout, passed.stderr);
}

fn swifts_own_tables_follow_when_a_batch_has_come_together() {
    use swiftlet::replica::Direction;
    let (cluster, containers) = super::quiet_with(2, &[("per_diff", "100")]);
    // Up to which row of device 0's the others' own tables say that they have them.
    let told = || {
        let id = cluster.open(0, &containers[0]).info().expect("read").id;
        let told =
            [1, 2].map(|device| cluster.open(device, &containers[0]).sync_point(&id, Direction::Incoming));
        told.into_iter().map(|point| point.expect("read").0).min().unwrap_or(-1)
    };
    let before = told();
    write_to_all(&cluster, &containers[0], rows("few", 0..50));
    settle(&cluster);
    assert_eq!(told(), before, "50 rows are no reason to ask");
    write_to_all(&cluster, &containers[0], rows("many", 0..100));
    settle(&cluster);
    assert!(told() >= before + 150, "{before} and then {}", told());
}

fn whose_turn_it_is_and_who_agrees_is_met_without_a_write() {
    let (cluster, containers) = quiet(1);
    write_to_all(&cluster, &containers[0], rows("few", 0..50));
    settle(&cluster);
    let files = || [0, 1, 2].map(|device| database(&cluster.home(device, &containers[0])));
    let before = files().map(|file| std::fs::read(file).expect("read"));
    alter(&cluster, 0, &containers[0], A_DAY, |entry| Entry { due_secs: 1, ..entry });
    let passed = cluster.once(0, "").ended(0);
    assert!(passed.count("opened") > 0, "it was its turn: {}", passed.stdout);
    assert_eq!((passed.count("success"), passed.count("no_change")), (2, 2), "{}", passed.stdout);
    let after = files().map(|file| std::fs::read(file).expect("read"));
    assert!(before == after, "a database was written to");
}

fn a_peer_that_came_back_empty_is_not_taken_for_the_one_that_agreed() {
    let (cluster, containers) = quiet(2);
    write_to_all(&cluster, &containers[0], rows("everywhere", 0..300));
    settle(&cluster);
    std::fs::remove_dir_all(cluster.home(1, &containers[0]).dir()).expect("removed");
    cluster.create(1, &containers[0]).merge_rows(rows("stranger", 0..2), None).expect("merged");
    super::heals(&cluster, &containers);
    assert_eq!(cluster.replica(1, &containers[0]).expect("there").rows.len(), 307);
}
