//! Vectors of `chexor`: the running hash after each row is mixed in.

use swiftlet::replica::RowHash;

use super::vectors::{json, knows, list, text};

#[test]
fn rows_mix_into_the_hash_as_in_swift() {
    for vector in list(&json("chexor.json")) {
        knows(vector, &["start", "steps"]);
        let mut hash = RowHash::parse(text(&vector["start"])).expect("a hash");
        for step in list(&vector["steps"]) {
            knows(step, &["name", "timestamp", "hash"]);
            hash.mix(text(&step["name"]), text(&step["timestamp"]));
            assert_eq!(hash.to_string(), text(&step["hash"]), "{step}");
        }
    }
}
