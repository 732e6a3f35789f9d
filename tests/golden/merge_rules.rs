//! The parts of `metadata`, `sharded` and `pending` that need no database: the rules alone, run through the vectors. What
//! the databases come to is checked by the modules of those names.

use serde_json::Value;
use swiftlet::broker::pending;
use swiftlet::merge;
use swiftlet::replica::{Metadata, MetadataItem, PolicyIndex, Row, ShardRange};
use swiftlet::timestamp::{Stamp, Timestamp};

use super::vectors;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}

fn text_or_none(value: &Value) -> Option<String> {
    if value.is_null() { None } else { Some(text(value)) }
}

fn list<'a>(vectors: &'a Value, key: &str) -> &'a [Value] {
    let cases = vectors[key].as_array().unwrap_or_else(|| panic!("no list {key}"));
    assert!(!cases.is_empty(), "{key}");
    cases
}

fn metadata(value: &Value) -> Metadata {
    let item = |(key, value): (&String, &Value)| {
        assert_eq!(value.as_array().expect("a pair").len(), 2);
        MetadataItem { key: key.clone(), value: text(&value[0]), stamp: Stamp::stored(text(&value[1])) }
    };
    Metadata(value.as_object().expect("an object").iter().map(item).collect())
}

fn shard_range(value: &Value) -> ShardRange {
    let fields = [
        "name",
        "timestamp",
        "lower",
        "upper",
        "object_count",
        "bytes_used",
        "meta_timestamp",
        "deleted",
        "state",
        "state_timestamp",
        "epoch",
        "reported",
        "tombstones",
    ];
    vectors::knows(value, &fields);
    let stamp = |key: &str| Stamp::stored(text(&value[key]));
    ShardRange {
        name: text(&value["name"]),
        timestamp: stamp("timestamp"),
        lower: text(&value["lower"]),
        upper: text(&value["upper"]),
        object_count: number(&value["object_count"]),
        bytes_used: number(&value["bytes_used"]),
        meta_timestamp: stamp("meta_timestamp"),
        deleted: number(&value["deleted"]),
        state: number(&value["state"]),
        state_timestamp: stamp("state_timestamp"),
        epoch: text_or_none(&value["epoch"]).map(Stamp::stored),
        reported: number(&value["reported"]),
        tombstones: number(&value["tombstones"]),
    }
}

#[test]
fn metadata_is_merged_and_printed_as_swift_does() {
    let vectors = vectors::json("metadata.json");
    for case in list(&vectors, "update") {
        vectors::knows(case, &["before", "updates", "after"]);
        let before = text(&case["before"]);
        let mine = merge::parse_metadata(&before).expect("metadata");
        // The test's reader of JSON sorts the updates by key, Swift took them as they stood; where that shows in the
        // order of the keys that are new, the order is the vector's.
        let mut theirs = metadata(&case["updates"]);
        let expected = merge::parse_metadata(&text(&case["after"])).expect("metadata");
        let place = |item: &MetadataItem| expected.0.iter().position(|other| other.key == item.key);
        theirs.0.sort_by_key(place);
        let after =
            merge::merge_metadata(&mine, &theirs).map_or(before, |merged| merge::print_metadata(&merged));
        assert_eq!(after, case["after"], "{case}");
    }
}

#[test]
fn deleted_metadata_is_reclaimed_as_swift_does() {
    let vectors = vectors::json("metadata.json");
    for case in list(&vectors, "reclaim") {
        vectors::knows(case, &["before", "age_timestamp", "after"]);
        let before = text(&case["before"]);
        let held = merge::parse_metadata(&before).expect("metadata");
        let age: Timestamp = case["age_timestamp"].to_string().parse().expect("a time");
        let after = merge::reclaim_metadata(&held, age).map_or(before, |kept| merge::print_metadata(&kept));
        assert_eq!(after, case["after"], "{case}");
    }
}

#[test]
fn a_shard_range_meets_another_as_in_swift() {
    let vectors = vectors::json("sharded/sharded.json");
    for case in list(&vectors, "merge_shards") {
        vectors::knows(case, &["new", "existing", "take_new", "merged"]);
        let existing = if case["existing"].is_null() { None } else { Some(shard_range(&case["existing"])) };
        let merged = merge::merge_shard_range(&shard_range(&case["new"]), existing.as_ref());
        let taken = case["take_new"].as_bool().expect("a bool");
        assert_eq!(merged, taken.then(|| shard_range(&case["merged"])), "{case}");
    }
}

#[test]
fn an_own_range_that_lost_its_epoch_is_dropped_as_in_swift() {
    let vectors = vectors::json("sharded/sharded.json");
    for case in list(&vectors, "own_range_without_epoch") {
        vectors::knows(case, &["own", "received", "kept_names"]);
        let own = shard_range(&case["own"]);
        let received: Vec<_> = list(case, "received").iter().map(shard_range).collect();
        let kept = received.iter().filter(|range| !merge::drops_own_range_without_epoch(Some(&own), range));
        let kept: Vec<_> = kept.map(|range| range.name.as_str()).collect();
        assert_eq!(serde_json::json!(kept), case["kept_names"], "{case}");
    }
}

#[test]
fn pending_records_are_written_and_read_as_swift_does() {
    let entries = vectors::json("pending/entries.json");
    let entries = entries.as_array().expect("a list");
    assert!(!entries.is_empty());
    for case in entries {
        vectors::knows(case, &["record", "entry"]);
        let record = list(case, "record");
        assert_eq!(record.len(), 9, "{case}");
        let row = Row {
            row_id: None,
            name: text(&record[0]),
            created_at: text(&record[1]),
            size: number(&record[2]),
            content_type: text(&record[3]),
            etag: text(&record[4]),
            deleted: number(&record[5]),
            storage_policy_index: PolicyIndex(number(&record[6])),
            ctype_timestamp: text_or_none(&record[7]),
            meta_timestamp: text_or_none(&record[8]),
        };
        let entry = text(&case["entry"]);
        assert_eq!(String::from_utf8(pending::encode_entry(&row)), Ok(entry.clone()), "{case}");
        let pieces: Vec<_> = pending::split(entry.as_bytes()).map(pending::decode_entry).collect();
        assert_eq!(pieces, [Ok(row)], "{case}");
    }
}
