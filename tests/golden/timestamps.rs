//! Vectors of `timestamps`: what is read, how it compares, and how up to three times share a column.

use std::cmp::Ordering;

use serde_json::Value;
use swiftlet::timestamp::{Timestamp, decode, encode};

use super::vectors::{json, knows, list, text};

#[test]
fn every_kind_of_vector_is_known() {
    knows(&json("timestamps.json"), &["parse", "construct", "compare", "encode", "decode"]);
}

#[test]
fn times_are_read_and_printed_as_by_swift() {
    for vector in list(&json("timestamps.json")["parse"]) {
        knows(
            vector,
            &["class", "kind", "in", "ok", "normal", "internal", "raw", "truthy", "short", "offset"],
        );
        let read = match (text(&vector["class"]), text(&vector["kind"])) {
            ("Timestamp", "str") => text(&vector["in"]).parse().ok(),
            ("NormalTimestamp", "str") => Timestamp::from_normal(text(&vector["in"])).ok(),
            ("Timestamp", "float" | "int") => {
                Timestamp::from_seconds(vector["in"].as_f64().expect("a number"))
            }
            _ => panic!("unknown: {vector}"),
        };
        assert_eq!(Some(read.is_some()), vector["ok"].as_bool(), "{vector}");
        let Some(time) = read else { continue };
        assert_eq!(time.normal(), text(&vector["normal"]), "{vector}");
        assert_eq!(time.to_string(), text(&vector["internal"]), "{vector}");
        assert_eq!(time.raw(), vector["raw"], "{vector}");
        assert_eq!(time != Timestamp::ZERO, vector["truthy"], "{vector}");
        if vector["class"] == "Timestamp" {
            assert_eq!(time.short(), text(&vector["short"]), "{vector}");
            assert_eq!(time.offset(), vector["offset"], "{vector}");
        }
    }
}

#[test]
fn offsets_and_distances_add_up_as_in_swift() {
    for vector in list(&json("timestamps.json")["construct"]) {
        knows(vector, &["in", "offset", "delta", "internal"]);
        let from = time(&vector["in"]);
        let moved = from.shifted(vector["delta"].as_i64().expect("steps")).expect("a time");
        let offset = from.offset() + vector["offset"].as_u64().expect("an offset");
        let time = Timestamp::new(moved.raw(), offset).expect("a time");
        assert_eq!(time.to_string(), text(&vector["internal"]), "{vector}");
    }
}

#[test]
fn times_compare_as_in_swift() {
    for vector in list(&json("timestamps.json")["compare"]) {
        knows(vector, &["a", "b", "cmp"]);
        let expected = match vector["cmp"].as_i64() {
            Some(-1) => Ordering::Less,
            Some(0) => Ordering::Equal,
            Some(1) => Ordering::Greater,
            _ => panic!("unknown: {vector}"),
        };
        assert_eq!(time(&vector["a"]).cmp(&time(&vector["b"])), expected, "{vector}");
    }
}

#[test]
fn three_times_are_encoded_as_by_swift() {
    for vector in list(&json("timestamps.json")["encode"]) {
        knows(vector, &["t1", "t2", "t3", "explicit", "encoded"]);
        let explicit = vector["explicit"].as_bool().expect("explicit");
        let encoded = encode(time(&vector["t1"]), perhaps(&vector["t2"]), perhaps(&vector["t3"]), explicit);
        assert_eq!(encoded, text(&vector["encoded"]), "{vector}");
    }
}

#[test]
fn three_times_are_decoded_as_by_swift() {
    for vector in list(&json("timestamps.json")["decode"]) {
        knows(vector, &["encoded", "explicit", "decoded"]);
        let explicit = vector["explicit"].as_bool().expect("explicit");
        let (t1, t2, t3) = decode(text(&vector["encoded"]), explicit).expect("an encoding");
        let decoded = [Some(t1), t2, t3].map(|time| time.map(|time| time.to_string()));
        let expected = list(&vector["decoded"]).iter().map(|time| time.as_str().map(str::to_owned));
        assert_eq!(decoded.to_vec(), expected.collect::<Vec<_>>(), "{vector}");
    }
}

fn time(value: &Value) -> Timestamp {
    text(value).parse().unwrap_or_else(|e| panic!("{e}"))
}

fn perhaps(value: &Value) -> Option<Timestamp> {
    (!value.is_null()).then(|| time(value))
}
