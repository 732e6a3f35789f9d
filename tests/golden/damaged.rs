//! Vectors of `damaged`: what becomes of databases that cannot be read, and of what others left lying about.
//!
//! `databases`, `tidy` (what a pass clears away) and `sync_links`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use swiftlet::broker::{Broker, fresh_id};
use swiftlet::drive::{DeviceName, Drive, HashDir};
use swiftlet::hash_path::Partition;
use swiftlet::merge::parse_metadata;
use swiftlet::replica::PolicyIndex;
use swiftlet::ring::Ring;
use swiftlet::scan::{Filter, Walk};

use super::nodes::{Answer, Nodes, Script};
use super::vectors;

#[test]
fn every_group_is_known() {
    vectors::knows(&vectors::json("damaged/damaged.json"), &["databases", "tidy", "sync_links"]);
}

#[test]
fn tidy() {
    let case = &vectors::json("damaged/damaged.json")["tidy"];
    let fields = ["reclaim_age", "account", "container", "partition", "files_with_age", "directories_before"];
    vectors::knows(case, &[&fields[..], &["files_left", "directories_left", "counters"]].concat());
    let devices = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().expect("seconds"));
    for dir in texts(&case["directories_before"]) {
        fs::create_dir_all(devices.path().join(dir)).unwrap();
    }
    for (file, age) in case["files_with_age"].as_object().expect("an object") {
        let path = devices.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().set_modified(now - seconds(age)).unwrap();
    }
    // The container's own database, which the vectors name only among what is left.
    let database =
        texts(&case["files_left"]).into_iter().find(|file| file.ends_with(".db")).expect("a database");
    assert!(database.contains(&format!("/containers/{}/", case["partition"])));
    fs::write(devices.path().join(&database), "").unwrap();

    let drive = Arc::new(Drive::open(devices.path(), &DeviceName::new("d0").unwrap(), false).unwrap());
    let older_than = now - seconds(&case["reclaim_age"]);
    assert_eq!(drive.reclaim_tmp(older_than).unwrap(), 1);
    let mut attempted = 0;
    for found in Walk::new(drive, Filter::default(), Partition(1)) {
        attempted += 1;
        found.unwrap().hash_dir.reclaim_tmp(older_than).unwrap();
    }

    assert_eq!(case["counters"]["attempted"], attempted);
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
    list(devices.path(), devices.path(), &mut files, &mut directories);
    assert_eq!(files, BTreeSet::from_iter(texts(&case["files_left"])));
    assert_eq!(directories, BTreeSet::from_iter(texts(&case["directories_left"])));
}

/// Everything below a directory, by its path from `root`.
fn list(root: &Path, dir: &Path, files: &mut BTreeSet<String>, directories: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            directories.insert(name);
            list(root, &path, files, directories);
        } else {
            files.insert(name);
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    value.as_array().expect("a list").iter().map(text).collect()
}

/// `databases`: what a pass makes of a database that cannot be read. As in Swift: quarantine, and a failure for each
/// primary.
#[test]
fn databases() {
    let vectors = vectors::json("damaged/damaged.json");
    let cases = vectors::list(&vectors["databases"]);
    assert_eq!(cases.len(), 10);
    for case in cases {
        vectors::knows(case, &["case", "db", "ok", "responses", "counters", "files_left"]);
        let name = vectors::text(&case["case"]);
        let (nodes, _script) = three_who_hold_everything();
        let home = nodes.home_of(LOCAL, "AUTH_gold", CONTAINER);
        let stored = nodes.ring.part_shift().partition(&home.hash());
        home.create().unwrap();
        let database = home.dir().join(format!("{}.db", home.hash()));
        fs::write(&database, own(&nodes, name, vectors::bytes(vectors::text(&case["db"])))).unwrap();

        let tally = nodes.replicate(LOCAL, &home, stored);

        let counters = &case["counters"];
        assert_eq!(counters["attempted"], tally.attempted, "{name}");
        assert_eq!(counters["success"], tally.success, "{name}");
        assert_eq!(counters["failure"], tally.failure, "{name}");
        assert_eq!(counters["remove"], tally.remove, "{name}");
        let swifts = counters["failure_nodes"].as_object().expect("an object").values();
        let swifts: BTreeSet<String> =
            swifts.flat_map(|devices| devices.as_object().expect("an object").keys().cloned()).collect();
        let ours = tally.failure_nodes.values().flat_map(|devices| devices.keys().cloned()).collect();
        assert_eq!(swifts, ours, "{name}");
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
        let root = nodes.root(LOCAL);
        list(root.parent().unwrap(), &root, &mut files, &mut directories);
        let hash = home.hash().to_string();
        let places: Vec<String> = files.iter().map(|file| file.replace(&hash, "<hash>")).collect();
        let quarantined = |file: &str| file.starts_with("d0/quarantined/containers/<hash>");
        match texts(&case["files_left"]).as_slice() {
            [left] if quarantined(left) => {
                assert!(places.len() == 1 && quarantined(&places[0]), "{name}: {places:?}");
                assert!(places[0].ends_with("/<hash>.db"), "{name}: {places:?}");
                assert!(!home.dir().exists(), "{name}");
            }
            _ => assert!(home.in_charge().unwrap().is_some() && places.len() == 1, "{name}: {places:?}"),
        }
    }
}

/// `sync_links`: whether a database has its link under `sync_containers` is container-sync's business, and setting it
/// right after each exchange is a duty of Swift's replicator that is not ours yet. A pass leaves links as they are; where
/// Swift would change one, ours differ, and that is counted here.
#[test]
fn sync_links_stay_as_they_are() {
    let vectors = vectors::json("damaged/damaged.json");
    let cases = vectors::list(&vectors["sync_links"]);
    assert_eq!(cases.len(), 36);
    let (nodes, _script) = three_who_hold_everything();
    let mut swift_changes = 0;
    for (at, case) in cases.iter().enumerate() {
        vectors::knows(case, &["metadata", "deleted", "link_before", "link_after"]);
        let container = format!("c{at}");
        let (home, link) = linked(&nodes, &container, case["link_before"] == true);
        let mut broker = nodes.broker(LOCAL, "AUTH_gold", &container);
        broker.merge_metadata(&parse_metadata(&case["metadata"].to_string()).unwrap()).unwrap();
        if case["deleted"] == true {
            broker.delete_db("1750000100.00000".parse().unwrap()).unwrap();
        }
        drop(broker);
        let stored = nodes.ring.part_shift().partition(&home.hash());
        nodes.replicate(LOCAL, &home, stored);
        assert_eq!(Value::from(link.is_symlink()), case["link_before"], "{case}");
        swift_changes += usize::from(case["link_before"] != case["link_after"]);
    }
    assert!(swift_changes > 0 && swift_changes < cases.len());
}

/// What is ours: when a database goes, its link goes, or container-sync would stumble over it for ever.
#[test]
fn the_sync_link_of_a_removed_database_is_removed() {
    let (nodes, _script) = three_who_hold_everything();
    // In another partition than its own it is a handoff: everybody holds it, so it goes.
    let (home, link) = linked(&nodes, "handed-over", true);
    let stored = nodes.ring.part_shift().partition(&home.hash());
    let wrong = Partition(stored.0 ^ 1);
    let misplaced = nodes.drive(LOCAL).hash_dir(wrong, home.hash());
    fs::create_dir_all(misplaced.dir().parent().unwrap()).unwrap();
    fs::rename(home.dir(), misplaced.dir()).unwrap();
    let database = format!("{}.db", home.hash());
    let moved_link = misplaced.sync_link(&database).unwrap();
    fs::create_dir_all(moved_link.parent().unwrap()).unwrap();
    fs::rename(&link, &moved_link).unwrap();
    assert!(moved_link.is_symlink());
    assert_eq!(nodes.replicate(LOCAL, &misplaced, wrong).remove, 1);
    assert!(!misplaced.dir().exists() && !moved_link.is_symlink());
}

const LOCAL: u32 = 0;
const CONTAINER: &str = "damaged";

/// A node whose two peers say that they hold whatever they are shown.
fn three_who_hold_everything() -> (Nodes, Arc<Script>) {
    let file = vectors::root().join("passes/misplaced-rows/container.ring.gz");
    let ring = Ring::load(&file).unwrap();
    assert_eq!((ring.devices().count(), ring.replica_count()), (3, 3.0));
    let (mut nodes, script) = (Nodes::of(&ring, ""), Arc::new(Script::default()));
    for device in 0..3 {
        script.answers.lock().unwrap().insert(device, Answer::Holds);
        nodes.act(device, &script);
    }
    (nodes, script)
}

/// The bytes of a vector's database. The sound one says where it belongs, which is not here.
fn own(nodes: &Nodes, name: &str, bytes: Vec<u8>) -> Vec<u8> {
    if name != "sound" {
        return bytes;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let info = Broker::open_file(file.path()).unwrap().info().unwrap();
    assert_ne!(nodes.hash(&info.account, &info.container), nodes.hash("AUTH_gold", CONTAINER));
    let connection = rusqlite::Connection::open(file.path()).unwrap();
    let sql = "UPDATE container_info SET account = 'AUTH_gold', container = ?";
    connection.execute(sql, [CONTAINER]).unwrap();
    drop(connection);
    fs::read(file.path()).unwrap()
}

/// A new database, and its link where container-sync looks for it.
fn linked(nodes: &Nodes, container: &str, is_linked: bool) -> (HashDir, PathBuf) {
    let home = nodes.home_of(LOCAL, "AUTH_gold", container);
    let time = "1750000000.00000".parse().unwrap();
    let id = fresh_id("d0");
    let broker = Broker::create(&home, "AUTH_gold", container, time, PolicyIndex(0), &id, time).unwrap();
    let link = home.sync_link(&format!("{}.db", home.hash())).unwrap();
    if is_linked {
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(broker.path(), &link).unwrap();
    }
    (home, link)
}
