//! Vectors of `lifecycle`: deleted, empty, reclaimable, and what an operation does to the info row.

use serde_json::Value;
use swiftlet::broker::AccountReport;
use swiftlet::replica::PolicyIndex;

use super::databases::{Place, check_dump, info_json, list, number, query, raw, seconds, stamp, text, time};
use super::vectors::{json, knows};

#[test]
fn a_container_is_as_deleted_and_as_empty_as_in_swift() {
    let vectors = json("lifecycle/lifecycle.json");
    knows(&vectors, &["cases", "ops"]);
    let fields =
        ["db", "kind", "before", "is_deleted", "empty", "get_info", "reclaimable", "merge_timestamps"];
    for vector in list(&vectors["cases"]) {
        knows(vector, &fields);
        let case = format!("{} {}", text(&vector["db"]), text(&vector["kind"]));
        let place = Place::of(text(&vector["db"]));
        let mut broker = place.broker();
        let info = info_json(&mut broker);
        for (key, value) in vector["before"].as_object().expect("columns") {
            assert_eq!(&info[key], value, "{case}: {key}");
        }
        assert_eq!(Value::Object(info), vector["get_info"], "{case}");
        assert_eq!(Value::from(broker.is_deleted().expect("an answer")), vector["is_deleted"], "{case}");
        assert_eq!(Value::from(broker.info().expect("info").is_deleted()), vector["is_deleted"], "{case}");
        assert_eq!(Value::from(broker.is_empty().expect("an answer")), vector["empty"], "{case}");
        for when in list(&vector["reclaimable"]) {
            knows(when, &["now", "reclaim_age", "is_reclaimable"]);
            let answer = broker.is_reclaimable(seconds(&when["now"]), seconds(&when["reclaim_age"]));
            assert_eq!(Value::from(answer.expect("an answer")), when["is_reclaimable"], "{case}");
        }
        check_merge_timestamps(&place, &vector["merge_timestamps"], &case);
    }
}

fn check_merge_timestamps(place: &Place, vector: &Value, case: &str) {
    let fields =
        ["created_at", "put_timestamp", "delete_timestamp", "after", "status_changed_at", "is_deleted"];
    knows(vector, &fields);
    let mut broker = place.broker();
    let before = broker.info().expect("info").status_changed_at;
    let now = "1999999999.99999".parse().expect("a time");
    broker
        .merge_timestamps(
            &stamp(&vector["created_at"]),
            &stamp(&vector["put_timestamp"]),
            &stamp(&vector["delete_timestamp"]),
            now,
        )
        .expect("a merge");
    let info = info_json(&mut broker);
    for (key, value) in vector["after"].as_object().expect("columns") {
        assert_eq!(&info[key], value, "{case}: {key}");
    }
    let changed_at = match text(&vector["status_changed_at"]) {
        "now" => now.to_string(),
        "unchanged" => before.to_string(),
        other => panic!("{other}: when is that?"),
    };
    assert_eq!(text(&info["status_changed_at"]), changed_at, "{case}");
    assert_eq!(Value::from(broker.is_deleted().expect("an answer")), vector["is_deleted"], "{case}");
}

#[test]
fn operations_leave_what_swift_leaves() {
    for vector in list(&json("lifecycle/lifecycle.json")["ops"]) {
        knows(vector, &["db", "op", "args", "after"]);
        let (op, args) = (text(&vector["op"]), list(&vector["args"]));
        let place = Place::of(text(&vector["db"]));
        let mut broker = place.broker();
        match (op, &args[..]) {
            ("delete_db", [at]) => broker.delete_db(time(at)),
            ("update_put_timestamp", [at]) => broker.raise_put_timestamp(time(at)),
            ("update_status_changed_at", [at]) => broker.raise_status_changed_at(time(at)),
            ("set_storage_policy_index", [policy, at]) => {
                broker.set_policy(PolicyIndex(number(policy)), time(at))
            }
            ("reported", [put, delete, objects, bytes]) => {
                let told = AccountReport {
                    put_timestamp: stamp(put),
                    delete_timestamp: stamp(delete),
                    object_count: number(objects),
                    bytes_used: number(bytes),
                };
                broker.set_reported(&told)
            }
            _ => panic!("an operation this test does not know: {op} {args:?}"),
        }
        .unwrap_or_else(|e| panic!("{op}: {e}"));
        check_dump(broker.path(), &vector["after"], &[], op);
    }
}

/// The account is told until it knows all four facts.
#[test]
fn a_report_is_current_when_nothing_has_changed_since() {
    let place = Place::of("lifecycle/01.db.gz");
    let mut broker = place.broker();
    assert!(!broker.reported_is_current().expect("an answer"));
    let info = broker.info().expect("info");
    let told = AccountReport {
        put_timestamp: info.put_timestamp,
        delete_timestamp: info.delete_timestamp,
        object_count: info.count,
        bytes_used: info.bytes_used,
    };
    broker.set_reported(&told).expect("a report");
    assert!(broker.reported_is_current().expect("an answer"));
    assert_eq!(broker.reported().expect("a report"), told);
    assert_eq!(query(&raw(broker.path()), "SELECT reported_object_count FROM container_stat").1[0][0], 3);
}
