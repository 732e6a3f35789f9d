//! Vectors of `hash_path`: a path's hash under a salt, its partition at each power, its directory.

use serde_json::Value;
use swiftlet::hash_path::{HashSalt, PartShift, storage_directory};

use super::vectors::{json, knows, list, text};

#[test]
fn paths_hash_to_the_places_where_swift_puts_them() {
    for vector in list(&json("hash_path.json")) {
        knows(
            vector,
            &[
                "prefix_hex",
                "suffix_hex",
                "account",
                "container",
                "object",
                "hash",
                "partition",
                "storage_directory_pp16",
            ],
        );
        let salt = HashSalt { prefix: unhex(&vector["prefix_hex"]), suffix: unhex(&vector["suffix_hex"]) };
        let hash = salt.hash(text(&vector["account"]), name(&vector["container"]), name(&vector["object"]));
        assert_eq!(hash.to_string(), text(&vector["hash"]), "{vector}");
        assert_eq!(Ok(hash), text(&vector["hash"]).parse());

        let partitions = vector["partition"].as_object().expect("powers");
        for (power, partition) in partitions {
            let shift = shift(power.parse().expect("a power"));
            assert_eq!(u64::from(shift.partition(&hash).0), *partition, "power {power}: {vector}");
        }
        assert!(!partitions.is_empty());

        let directory = storage_directory(shift(16).partition(&hash), &hash);
        assert_eq!(directory.to_str(), vector["storage_directory_pp16"].as_str(), "{vector}");
    }
}

fn shift(power: u8) -> PartShift {
    PartShift::new(32 - power).expect("a power of at most 32")
}

fn name(value: &Value) -> Option<&str> {
    (!value.is_null()).then(|| text(value))
}

fn unhex(value: &Value) -> Vec<u8> {
    let pairs = text(value).as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}
