//! Vectors of `damaged`: what becomes of databases that cannot be read, and of what others left lying about.
//!
//! Here: `tidy`, what a pass clears away.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use swiftlet::drive::{DeviceName, Drive};
use swiftlet::scan::{Filter, scan};

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
    for found in scan([drive], &Filter::default(), 1) {
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
