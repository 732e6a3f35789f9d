//! Vectors of `db_files`: which files of a hash directory are its database, and what the walk makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use swiftlet::drive::{DbFileName, DeviceName, Drive, HashDir};
use swiftlet::hash_path::{Hash, Partition};
use swiftlet::scan::{Filter, Found, Walk};

use super::vectors;

#[test]
fn every_group_is_known() {
    vectors::knows(&vectors::json("db_files.json"), &["directories", "names", "partition_names"]);
}

#[test]
fn directories() {
    let vectors = vectors::json("db_files.json");
    for case in vectors["directories"].as_array().expect("a list") {
        let fields = [
            "hash",
            "files",
            "db_files",
            "chosen",
            "exists",
            "epoch",
            "walk_yields",
            "hash_dir_kept_by_walk",
        ];
        vectors::knows(case, &fields);
        let devices = tempfile::tempdir().unwrap();
        let drive = drive(devices.path());
        let hash: Hash = text(&case["hash"]).parse().expect("a hash");
        let dir = drive.hash_dir(Partition(5), hash);
        dir.create().unwrap();
        for file in texts(&case["files"]) {
            fs::write(dir.dir().join(file), "").unwrap();
        }

        assert_eq!(names(&dir.db_files().unwrap()), texts(&case["db_files"]), "{case}");
        let chosen = dir.in_charge().unwrap();
        assert_eq!(chosen.is_some(), case["exists"], "{case}");
        let chosen = chosen.unwrap_or_else(|| dir.dir().join(format!("{hash}.db")));
        let chosen = name(&chosen);
        assert_eq!(chosen, text(&case["chosen"]), "{case}");
        assert_eq!(DbFileName::parse(chosen).epoch, case["epoch"].as_str(), "{case}");

        let found: Vec<Found> = walk(drive);
        // Which of the files is in charge was asked above; the walk tells of the directory.
        assert_eq!(found.len(), case["walk_yields"].as_str().iter().len(), "{case}");
        for found in found {
            assert_eq!((found.hash_dir, found.partition), (dir.clone(), Some(Partition(5))), "{case}");
        }
        assert_eq!(dir.dir().exists(), case["hash_dir_kept_by_walk"], "{case}");
    }
}

#[test]
fn file_names() {
    let vectors = vectors::json("db_files.json");
    for case in vectors["names"].as_array().expect("a list") {
        vectors::knows(case, &["name", "hash", "epoch", "ext", "with_no_epoch", "with_epoch"]);
        let parsed = DbFileName::parse(text(&case["name"]));
        assert_eq!(parsed.hash, text(&case["hash"]), "{case}");
        assert_eq!(parsed.epoch, case["epoch"].as_str(), "{case}");
        assert_eq!(parsed.extension, text(&case["ext"]), "{case}");
        let in_dir = |epoch| format!("dir/{}", parsed.with_epoch(epoch));
        assert_eq!(in_dir(None), text(&case["with_no_epoch"]), "{case}");
        assert_eq!(in_dir(Some("1234567890.10000")), text(&case["with_epoch"]), "{case}");
    }
}

#[test]
fn partition_names() {
    let hash: Hash = "21f0ff3587d6ff7c47a3516c8a4cd432".parse().unwrap();
    let vectors = vectors::json("db_files.json");
    for case in vectors["partition_names"].as_array().expect("a list") {
        vectors::knows(case, &["name", "is_partition"]);
        let partition = text(&case["name"]);
        let devices = tempfile::tempdir().unwrap();
        let drive = drive(devices.path());
        // A directory cannot be without a name: then the suffix lies where partitions are, and is none.
        let path = drive.containers().join(partition).join("432").join(hash.to_string());
        let dir = HashDir::at(drive.root().into(), path).unwrap();
        dir.create().unwrap();
        let wanted = case["is_partition"].as_bool().expect("a bool");
        let file = if partition.is_empty() { "other" } else { &format!("{hash}.db") };
        fs::write(dir.dir().join(file), "").unwrap();
        assert_eq!(walk(drive).len(), usize::from(wanted), "{case}");
    }
}

fn drive(devices: &Path) -> Arc<Drive> {
    fs::create_dir(devices.join("d0")).unwrap();
    Arc::new(Drive::open(devices, &DeviceName::new("d0").unwrap(), false).unwrap())
}

fn walk(drive: Arc<Drive>) -> Vec<Found> {
    Walk::new(drive, Filter::default(), Partition(1)).map(|found| found.expect("all can be read")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(text).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn names(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| name(path)).collect()
}
