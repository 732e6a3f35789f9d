//! Vectors of `sync_points`.

use swiftlet::broker::Broker;
use swiftlet::replica::{Direction, PolicyIndex, ReplicaId, Row, RowId};
use swiftlet::timestamp::Timestamp;

use super::databases::{ANY_HASH, Place, check_points, list, number, points};
use super::vectors::{json, knows};

#[test]
fn sync_points_only_rise() {
    for vector in list(&json("sync_points.json")) {
        knows(vector, &["incoming", "merged", "get_sync", "get_syncs", "items", "max_row"]);
        let direction = match vector["incoming"].as_bool().expect("a bool") {
            true => Direction::Incoming,
            false => Direction::Outgoing,
        };
        let place = Place::empty(ANY_HASH);
        let id = swiftlet::broker::fresh_id("sda1");
        let now = Timestamp::new(175_000_000_000_000, 0).expect("a time");
        let mut broker =
            Broker::create(&place.home, "a", "c", now, PolicyIndex(0), &id, now).expect("a new one");
        let row = |at: i64| Row {
            row_id: None,
            name: format!("o{at}"),
            created_at: now.to_string(),
            size: 1,
            content_type: "text/plain".to_owned(),
            etag: "e".to_owned(),
            deleted: 0,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        };
        broker.merge_rows((0..number(&vector["items"])).map(row).collect(), None).expect("rows");
        for merged in list(&vector["merged"]) {
            broker.merge_sync_points(&points(merged), direction).expect("points");
        }
        for (peer, point) in vector["get_sync"].as_object().expect("points") {
            let peer = ReplicaId::new(peer.as_str()).expect("an id");
            assert_eq!(broker.sync_point(&peer, direction).expect("a point"), RowId(number(point)));
        }
        check_points(&mut broker, direction, &vector["get_syncs"], "get_syncs");
        assert_eq!(broker.max_row().expect("a number"), RowId(number(&vector["max_row"])));
        assert_eq!(broker.info().expect("info").max_row, RowId(number(&vector["max_row"])));
    }
}
