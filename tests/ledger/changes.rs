//! Every way in which a database can change behind the ledger's back.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::thread;

use swiftlet::broker::pending;
use swiftlet::hash_path::Partition;

use super::cluster::{copy_database, database, row, rows, tombstone};
use super::{GRAIN, heals, quiet};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    ("a_row_in_the_database", a_row_in_the_database),
    (
        "a_row_in_the_pending_file_also_if_the_file_was_there",
        a_row_in_the_pending_file_also_if_the_file_was_there,
    ),
    ("a_write_within_the_clocks_grain_of_the_look", a_write_within_the_clocks_grain_of_the_look),
    ("a_file_renamed_over_it", a_file_renamed_over_it),
    ("a_file_restored_with_its_old_times", a_file_restored_with_its_old_times),
    ("a_hot_journal", a_hot_journal),
    ("a_journal_beside_a_file_that_is_as_it_was", a_journal_beside_a_file_that_is_as_it_was),
    ("a_quarantine", a_quarantine),
    ("damage_that_somebody_else_wrote", damage_that_somebody_else_wrote),
    ("a_removed_directory", a_removed_directory),
    ("a_new_database", a_new_database),
    ("one_that_lies_where_it_does_not_belong", one_that_lies_where_it_does_not_belong),
    ("a_drive_swapped_for_an_empty_one", a_drive_swapped_for_an_empty_one),
    ("a_drive_swapped_for_an_older_one_ledger_and_all", a_drive_swapped_for_an_older_one_ledger_and_all),
    ("an_empty_pending_file_changes_nothing", an_empty_pending_file_changes_nothing),
];

fn a_row_in_the_database() {
    let (cluster, containers) = quiet(3);
    cluster.open(1, &containers[0]).merge_rows(rows("new", 0..2), None).expect("merged");
    heals(&cluster, &containers);
    assert_eq!(cluster.replica(0, &containers[0]).expect("there").rows.len(), 7);
}

fn a_row_in_the_pending_file_also_if_the_file_was_there() {
    let (cluster, containers) = quiet(3);
    cluster.open(2, &containers[1]).put_record(row("first", 100)).expect("appended");
    heals(&cluster, &containers);
    let pending = cluster.home(2, &containers[1]).pending_path();
    assert_eq!(fs::metadata(&pending).expect("it stays, emptied").len(), 0);
    // Without a lock or a broker: nothing but the file itself changes.
    let mut file = OpenOptions::new().append(true).open(&pending).expect("opened");
    file.write_all(&pending::encode_entry(&row("second", 101))).expect("appended");
    heals(&cluster, &containers);
    for device in 0..3 {
        assert_eq!(cluster.replica(device, &containers[1]).expect("there").rows.len(), 7);
    }
}

fn a_write_within_the_clocks_grain_of_the_look() {
    let (cluster, containers) = quiet(2);
    // Each row may come in the very tick in which a pass has just looked.
    for round in 0..12 {
        cluster.open(0, &containers[0]).merge_rows(rows("tick", round..round + 1), None).expect("merged");
        cluster.once(0, "").ended(0);
        cluster.open(0, &containers[0]).merge_rows(rows("tock", round..round + 1), None).expect("merged");
        cluster.once(0, "").ended(0);
        assert_eq!(cluster.disagreement(&containers[0]), None, "round {round}\n{}", cluster.logs());
    }
}

fn a_file_renamed_over_it() {
    let (cluster, containers) = quiet(2);
    let home = cluster.home(1, &containers[0]);
    let (path, beside) = (database(&home), home.dir().join("beside"));
    fs::copy(&path, &beside).expect("copied");
    let mut other = swiftlet::broker::Broker::open_file(&beside).expect("opened");
    other.merge_rows(rows("renamed", 0..3), None).expect("merged");
    drop(other);
    fs::rename(&beside, &path).expect("renamed");
    heals(&cluster, &containers);
    assert_eq!(cluster.replica(2, &containers[0]).expect("there").rows.len(), 8);
}

fn a_file_restored_with_its_old_times() {
    let (cluster, containers) = quiet(2);
    let path = database(&cluster.home(0, &containers[0]));
    let saved = fs::read(&path).expect("read");
    let times = fs::metadata(&path).expect("there").modified().expect("a time");
    cluster.open(0, &containers[0]).merge_rows(rows("later", 0..3), None).expect("merged");
    heals(&cluster, &containers);
    // In place, so that even the inode is the same; and with the times it had.
    let mut file = OpenOptions::new().write(true).truncate(true).open(&path).expect("opened");
    file.write_all(&saved).expect("written");
    file.set_times(FileTimes::new().set_modified(times).set_accessed(times)).expect("set");
    drop(file);
    heals(&cluster, &containers);
    assert_eq!(cluster.replica(0, &containers[0]).expect("there").rows.len(), 8);
}

fn a_hot_journal() {
    let (cluster, containers) = quiet(2);
    let path = database(&cluster.home(0, &containers[0]));
    let journal = path.with_file_name(format!("{}-journal", path.file_name().unwrap().to_string_lossy()));
    // A writer is killed when its rows are in the file and the journal is still there: what it wrote was never committed.
    let db = rusqlite::Connection::open(&path).expect("opened");
    db.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE").expect("begun");
    for number in 0..400 {
        let sql = "UPDATE container_info SET metadata = ?";
        db.execute(sql, [format!("{{\"X-Container-Meta-N\": [\"{}\", \"1\"]}}", "x".repeat(number * 20))])
            .expect("written");
    }
    db.cache_flush().expect("flushed");
    let (half, undo) = (fs::read(&path).expect("read"), fs::read(&journal).expect("a journal"));
    db.execute_batch("ROLLBACK").expect("rolled back");
    drop(db);
    heals(&cluster, &containers);
    fs::write(&path, half).expect("written");
    fs::write(&journal, undo).expect("written");
    heals(&cluster, &containers);
    assert!(!journal.exists(), "the journal was rolled back");
    assert!(cluster.open(0, &containers[0]).metadata().expect("read").0.is_empty());
}

fn a_journal_beside_a_file_that_is_as_it_was() {
    let (cluster, containers) = quiet(2);
    let path = database(&cluster.home(1, &containers[0]));
    let journal = path.with_file_name(format!("{}-journal", path.file_name().unwrap().to_string_lossy()));
    fs::write(&journal, vec![0; 512]).expect("written");
    let passed = cluster.once(1, "").ended(0);
    assert!(passed.count("opened") >= 1, "the ledger trusted a database with a journal beside it");
    heals(&cluster, &containers);
}

fn a_quarantine() {
    let (cluster, containers) = quiet(3);
    cluster.home(2, &containers[0]).quarantine().expect("moved").expect("there was one");
    heals(&cluster, &containers);
    assert!(cluster.replica(2, &containers[0]).is_some());
}

fn damage_that_somebody_else_wrote() {
    let (cluster, containers) = quiet(3);
    let path = database(&cluster.home(1, &containers[0]));
    fs::write(&path, b"no database at all").expect("written");
    // The first pass finds it out, counts a failure and moves it away; the next brings a new one.
    cluster.once(1, "");
    heals(&cluster, &containers);
    assert!(cluster.replica(1, &containers[0]).is_some());
}

fn a_removed_directory() {
    let (cluster, containers) = quiet(3);
    fs::remove_dir_all(cluster.home(0, &containers[2]).dir()).expect("removed");
    heals(&cluster, &containers);
    assert!(cluster.replica(0, &containers[2]).is_some());
}

fn a_new_database() {
    let (cluster, mut containers) = quiet(2);
    let new = cluster.container("new");
    cluster.create(1, &new).merge_rows(rows("fresh", 0..4), None).expect("merged");
    containers.push(new);
    heals(&cluster, &containers);
}

fn one_that_lies_where_it_does_not_belong() {
    let (cluster, containers) = quiet(2);
    let home = cluster.home(0, &containers[0]);
    let partition: u32 = home.partition_name().parse().expect("a number");
    let stray = swiftlet::drive::HashDir::new(home.device().into(), Partition(partition ^ 1), home.hash());
    cluster.open(0, &containers[0]).merge_rows(rows("strayed", 0..1), None).expect("merged");
    copy_database(&home, &stray);
    fs::remove_dir_all(home.dir()).expect("removed");
    thread::sleep(GRAIN);
    heals(&cluster, &containers);
    assert!(!stray.dir().exists());
    assert_eq!(cluster.replica(2, &containers[0]).expect("there").rows.len(), 6);
}

fn a_drive_swapped_for_an_empty_one() {
    let (cluster, containers) = quiet(4);
    let device = cluster.device(1);
    fs::remove_dir_all(&device).expect("removed");
    fs::create_dir(&device).expect("made");
    heals(&cluster, &containers);
    for container in &containers {
        assert!(cluster.replica(1, container).is_some());
    }
}

fn a_drive_swapped_for_an_older_one_ledger_and_all() {
    let (cluster, containers) = quiet(4);
    let (device, old) = (cluster.device(1), cluster.device(1).with_extension("old"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&device).arg(&old).status().expect("cp");
    assert!(copied.success());
    cluster.open(0, &containers[0]).merge_rows(rows("since", 0..3), None).expect("merged");
    cluster.open(2, &containers[3]).merge_rows(vec![tombstone("before-000001", 500)], None).expect("merged");
    heals(&cluster, &containers);
    fs::remove_dir_all(&device).expect("removed");
    fs::rename(&old, &device).expect("renamed");
    heals(&cluster, &containers);
    assert_eq!(cluster.replica(1, &containers[0]).expect("there").rows.len(), 8);
}

fn an_empty_pending_file_changes_nothing() {
    let (cluster, containers) = quiet(1);
    File::create(cluster.home(0, &containers[0]).pending_path()).expect("made");
    heals(&cluster, &containers);
}
