//! Vectors of `metadata`: updated and reclaimed in a database. The limits for clients are no replicator's business, but
//! what they let through, and what they do not, must pass.

use serde_json::Value;
use swiftlet::broker::Broker;
use swiftlet::merge::parse_metadata;
use swiftlet::replica::{Metadata, PolicyIndex};
use swiftlet::timestamp::Timestamp;

use super::databases::{ANY_HASH, Place, list, query, raw, seconds, text};
use super::vectors::{json, knows};

/// A new database with this text in its metadata column.
fn with_metadata(stored: &str) -> (Place, Broker) {
    let place = Place::empty(ANY_HASH);
    let id = swiftlet::broker::fresh_id("sda1");
    let (put, policy) = (Timestamp::ZERO, PolicyIndex(0));
    let broker = Broker::create(&place.home, "a", "c", put, policy, &id, put).expect("a new database");
    let conn = rusqlite::Connection::open(broker.path()).expect("the database");
    conn.execute("UPDATE container_info SET metadata = ?", [stored]).expect("an update");
    (place, broker)
}

fn stored(broker: &Broker) -> String {
    let rows = query(&raw(broker.path()), "SELECT metadata FROM container_stat").1;
    text(&rows[0][0]).to_owned()
}

fn metadata(value: &Value) -> Metadata {
    parse_metadata(&value.to_string()).expect("metadata")
}

#[test]
fn metadata_is_updated_as_in_swift() {
    let vectors = json("metadata.json");
    knows(&vectors, &["update", "validate", "reclaim"]);
    for vector in list(&vectors["update"]) {
        knows(vector, &["before", "updates", "after"]);
        let (_place, mut broker) = with_metadata(text(&vector["before"]));
        // The order of an object's keys is lost in reading the vector, but a new key must come where Swift put it.
        let after = parse_metadata(text(&vector["after"])).expect("metadata");
        let mut updates = metadata(&vector["updates"]);
        updates.0.sort_by_key(|item| after.0.iter().position(|kept| kept.key == item.key));
        broker.merge_metadata(&updates).expect("a merge");
        assert_eq!(stored(&broker), text(&vector["after"]));
        assert_eq!(broker.metadata().expect("metadata"), after);
        let bytes = std::fs::read(broker.path()).expect("the file");
        broker.merge_metadata(&updates).expect("a merge");
        assert!(std::fs::read(broker.path()).expect("the file") == bytes, "a replay wrote something");
    }
}

#[test]
fn replication_takes_what_a_client_may_not_send() {
    for vector in list(&json("metadata.json")["validate"]) {
        knows(vector, &["metadata", "error"]);
        assert!(vector["error"].is_null() || vector["error"].is_string());
        let sent = metadata(&vector["metadata"]);
        let (_place, mut broker) = with_metadata("");
        broker.merge_metadata(&sent).expect("a merge");
        assert_eq!(broker.metadata().expect("metadata"), sent);
    }
}

#[test]
fn deleted_keys_go_when_they_are_old() {
    for vector in list(&json("metadata.json")["reclaim"]) {
        knows(vector, &["before", "age_timestamp", "after"]);
        let (_place, mut broker) = with_metadata(text(&vector["before"]));
        let reclaimed = broker.reclaim(seconds(&vector["age_timestamp"]), 0.0).expect("room");
        assert_eq!(stored(&broker), text(&vector["after"]));
        let keys = |text: &str| parse_metadata(text).expect("metadata").0.len();
        assert_eq!(reclaimed.metadata, keys(text(&vector["before"])) - keys(text(&vector["after"])));
    }
}
