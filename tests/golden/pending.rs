//! Vectors of `pending`: what container servers leave beside a database, taken in.

use serde_json::Value;
use swiftlet::broker::pending::{decode_entry, encode_entry, split};
use swiftlet::replica::{PolicyIndex, Row};

use super::databases::{Place, check_dump, list, number, text};
use super::vectors::{json, knows};

/// A record as `put_object` and `entries.json` list it.
fn record(value: &Value) -> Row {
    let parts = list(value);
    let time = |at: usize| parts.get(at).and_then(Value::as_str).map(str::to_owned);
    Row {
        row_id: None,
        name: text(&parts[0]).to_owned(),
        created_at: text(&parts[1]).to_owned(),
        size: number(&parts[2]),
        content_type: text(&parts[3]).to_owned(),
        etag: text(&parts[4]).to_owned(),
        deleted: number(&parts[5]),
        storage_policy_index: PolicyIndex(number(&parts[6])),
        ctype_timestamp: time(7),
        meta_timestamp: time(8),
    }
}

#[test]
fn pending_rows_are_taken_in_as_in_swift() {
    let fields = [
        "case",
        "db",
        "pending",
        "pending_bytes",
        "put_object",
        "pending_bytes_after_put",
        "pending_bytes_after_flush",
        "hash",
        "object_count",
        "bytes_used",
        "after",
    ];
    for vector in list(&json("pending/pending.json")) {
        knows(vector, &fields);
        let case = text(&vector["case"]);
        let place = Place::of(text(&vector["db"]));
        place.put_pending(text(&vector["pending"]));
        let pending_bytes = || std::fs::metadata(place.home.pending_path()).expect("the pending file").len();
        assert_eq!(Value::from(pending_bytes()), vector["pending_bytes"], "{case}");
        let mut broker = place.broker();
        if let Some(put) = vector.get("put_object") {
            broker.put_record(record(put)).expect("a record");
            assert_eq!(Value::from(pending_bytes()), vector["pending_bytes_after_put"], "{case}");
        }
        let info = broker.info().unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(Value::from(pending_bytes()), vector["pending_bytes_after_flush"], "{case}");
        assert_eq!(info.hash.to_string(), text(&vector["hash"]), "{case}");
        assert_eq!(info.count, number(&vector["object_count"]), "{case}");
        assert_eq!(info.bytes_used, number(&vector["bytes_used"]), "{case}");
        check_dump(broker.path(), &vector["after"], &[], case);
    }
}

#[test]
fn records_are_written_as_swift_writes_them() {
    for vector in list(&json("pending/entries.json")) {
        knows(vector, &["record", "entry"]);
        let (row, entry) = (record(&vector["record"]), text(&vector["entry"]));
        assert_eq!(String::from_utf8(encode_entry(&row)).expect("text"), entry);
        let pieces: Vec<_> = split(entry.as_bytes()).collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(decode_entry(pieces[0]).expect("a record"), row);
        let place = Place::of("pending/08-empty-file.db.gz");
        place.broker().put_record(row).expect("a record");
        assert_eq!(std::fs::read(place.home.pending_path()).expect("the pending file"), entry.as_bytes());
    }
}
