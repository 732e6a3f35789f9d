//! Vectors of `reclaim`: what is old enough goes, and nothing else.

use serde_json::Value;
use swiftlet::replica::Direction;

use super::databases::{Place, check_dump, list, query, raw, seconds, text};
use super::vectors::{json, knows};

#[test]
fn what_is_old_goes_as_in_swift() {
    let fields = [
        "db",
        "pending",
        "age_timestamp",
        "sync_timestamp",
        "rows_reclaimed",
        "tombstones_left",
        "sync_rows_with_updated_at",
        "after",
    ];
    for vector in list(&json("reclaim/reclaim.json")) {
        knows(vector, &fields);
        let case = text(&vector["db"]);
        let place = Place::of(case);
        if let Some(pending) = vector["pending"].as_str() {
            place.put_pending(pending);
        }
        let mut broker = place.broker();
        let points = |broker: &mut swiftlet::broker::Broker| {
            [Direction::Incoming, Direction::Outgoing]
                .map(|direction| broker.sync_points(direction).expect("points").len())
                .iter()
                .sum::<usize>()
        };
        let points_before = points(&mut broker);
        let reclaimed = broker
            .reclaim(seconds(&vector["age_timestamp"]), seconds(&vector["sync_timestamp"]))
            .expect("room");
        assert_eq!(Value::from(reclaimed.tombstones), vector["rows_reclaimed"], "{case}");
        assert_eq!(Value::from(broker.tombstones().expect("a count")), vector["tombstones_left"], "{case}");
        assert_eq!(reclaimed.sync_points, points_before - points(&mut broker), "{case}");
        knows(&vector["sync_rows_with_updated_at"], &["incoming_sync", "outgoing_sync"]);
        for (table, expected) in vector["sync_rows_with_updated_at"].as_object().expect("tables") {
            let sql = format!("SELECT remote_id, sync_point, updated_at FROM {table} ORDER BY remote_id");
            assert_eq!(&Value::from(query(&raw(broker.path()), &sql).1), expected, "{case}: {table}");
        }
        check_dump(broker.path(), &vector["after"], &[], case);
        let again = broker.reclaim(seconds(&vector["age_timestamp"]), seconds(&vector["sync_timestamp"]));
        assert_eq!(again.expect("room"), Default::default(), "{case}: nothing is left to reclaim");
    }
}
