//! Vectors of `sharded`: databases in every state of sharding. The rules themselves are in `merge_rules`.

use serde_json::json as value;
use swiftlet::replica::Direction;

use super::databases::{
    Place, check_points, list, query, range, ranges, raw, replication_info_json, seconds, text,
};
use super::vectors::{json, knows};

const STATE_FIELDS: [&str; 20] = [
    "case",
    "account",
    "container",
    "files",
    "db_files",
    "db_file",
    "db_epoch",
    "db_state",
    "sharding_initiated",
    "sharding_required",
    "is_root_container",
    "has_other_shard_ranges",
    "is_deleted",
    "empty",
    "own_shard_range",
    "all_shard_range_data",
    "replication_info",
    "incoming_sync",
    "outgoing_sync",
    "is_reclaimable",
];

#[test]
fn every_state_is_told_as_in_swift() {
    let vectors = json("sharded/sharded.json");
    knows(&vectors, &["states", "merge_shards", "merge_shard_ranges", "own_range_without_epoch"]);
    for vector in list(&vectors["states"]) {
        knows(vector, &STATE_FIELDS);
        let case = text(&vector["case"]);
        assert!(vector["account"].is_null() && vector["container"].is_null(), "{case}");
        let file_name =
            |file: &str| file.rsplit('/').next().expect("a name").trim_end_matches(".gz").to_owned();
        let hash = file_name(text(&vector["files"][0]))[..32].to_owned();
        let place = Place::empty(&hash);
        for file in list(&vector["files"]) {
            place.put(text(file), &file_name(text(file)));
        }
        let mut broker = place.broker();
        assert_eq!(
            broker.path().file_name().and_then(|name| name.to_str()),
            vector["db_file"].as_str(),
            "{case}"
        );
        let files = place.home.db_files().expect("files");
        let files: Vec<_> = files.iter().map(|path| path.file_name().expect("a name").to_str()).collect();
        assert_eq!(value!(files), vector["db_files"], "{case}");
        assert_eq!(broker.retiring_path().is_some(), files.len() > 1, "{case}");
        let epoch = swiftlet::drive::DbFileName::parse(text(&vector["db_file"])).epoch;
        assert_eq!(value!(epoch), vector["db_epoch"], "{case}");

        let info = broker.info().expect("info");
        assert_eq!(info.db_state.as_str(), text(&vector["db_state"]), "{case}");
        assert_eq!(value!(info.sharding_initiated), vector["sharding_initiated"], "{case}");
        assert_eq!(value!(info.sharding_required), vector["sharding_required"], "{case}");
        assert_eq!(value!(broker.is_root().expect("an answer")), vector["is_root_container"], "{case}");
        assert_eq!(value!(broker.is_deleted().expect("an answer")), vector["is_deleted"], "{case}");
        assert_eq!(value!(broker.is_empty().expect("an answer")), vector["empty"], "{case}");
        let own = broker.own_shard_range().expect("an answer");
        assert_eq!(
            own,
            (!vector["own_shard_range"].is_null()).then(|| range(&vector["own_shard_range"])),
            "{case}"
        );
        let all = broker.shard_ranges().expect("ranges");
        assert_eq!(all, ranges(&vector["all_shard_range_data"]), "{case}");
        let others = all.iter().any(|range| range.deleted == 0 && Some(range) != own.as_ref());
        assert_eq!(value!(others), vector["has_other_shard_ranges"], "{case}");
        assert_eq!(info.ranges_digest == [0; 16], all.is_empty(), "{case}");
        assert_eq!(replication_info_json(&mut broker), vector["replication_info"], "{case}");
        check_points(&mut broker, Direction::Incoming, &vector["incoming_sync"], case);
        check_points(&mut broker, Direction::Outgoing, &vector["outgoing_sync"], case);
        for when in list(&vector["is_reclaimable"]) {
            knows(when, &["now", "reclaim_age", "is_reclaimable"]);
            let answer = broker.is_reclaimable(seconds(&when["now"]), seconds(&when["reclaim_age"]));
            assert_eq!(value!(answer.expect("an answer")), when["is_reclaimable"], "{case}");
        }
    }
}

#[test]
fn ranges_merge_as_in_swift() {
    for vector in list(&json("sharded/sharded.json")["merge_shard_ranges"]) {
        knows(vector, &["db", "shard_ranges", "after", "get_all_shard_range_data"]);
        let place = Place::of(text(&vector["db"]));
        let mut broker = place.broker();
        let before = broker.info().expect("info");
        broker.merge_shard_ranges(ranges(&vector["shard_ranges"])).expect("a merge");
        let (columns, rows) = query(&raw(broker.path()), "SELECT * FROM shard_range ORDER BY ROWID");
        assert_eq!(value!({ "columns": columns, "rows": rows }), vector["after"]);
        let merged = broker.shard_ranges().expect("ranges");
        assert_eq!(merged, ranges(&vector["get_all_shard_range_data"]));
        let after = broker.info().expect("info");
        assert_ne!(before.ranges_digest, after.ranges_digest);
        broker.merge_shard_ranges(ranges(&vector["get_all_shard_range_data"])).expect("a merge");
        assert_eq!(broker.info().expect("info"), after, "a replay changes nothing");
    }
}

/// The digest is of the ranges, not of the order in which they came.
#[test]
fn equal_ranges_have_equal_digests() {
    for vector in list(&json("sharded/sharded.json")["states"]) {
        let mut all = ranges(&vector["all_shard_range_data"]);
        let mut digests = Vec::new();
        for _ in 0..2 {
            let place = Place::of("sharded/never-sharded/1ef15f629bc9b21e762d659a5141ec16.db.gz");
            let mut broker = place.broker();
            broker.merge_shard_ranges(all.clone()).expect("a merge");
            digests.push(broker.info().expect("info").ranges_digest);
            all.reverse();
        }
        assert_eq!(digests[0], digests[1]);
        if let Some(first) = all.first_mut() {
            first.bytes_used += 1;
            let place = Place::of("sharded/never-sharded/1ef15f629bc9b21e762d659a5141ec16.db.gz");
            let mut broker = place.broker();
            broker.merge_shard_ranges(all.clone()).expect("a merge");
            assert_ne!(broker.info().expect("info").ranges_digest, digests[0]);
        }
    }
}
