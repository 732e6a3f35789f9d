//! Vectors of `legacy`: databases of older schemas, read as they are and migrated when they must be.

use serde_json::{Value, json as value};
use swiftlet::broker::fresh_id;
use swiftlet::merge::parse_metadata;
use swiftlet::replica::{Direction, PolicyIndex, RowId};

use super::databases::{
    Place, check_dump, check_points, id, list, number, query, ranges, raw, replication_info_json, rows,
    seconds, stamp, text, time,
};
use super::vectors::{json, knows};

#[test]
fn older_schemas_are_read_and_migrated_as_in_swift() {
    for vector in list(&json("legacy/legacy.json")) {
        knows(vector, &["variant", "db", "op", "args", "result", "schema_after", "after", "note"]);
        let (op, args) = (text(&vector["op"]), list(&vector["args"]));
        let case = format!("{} {op}", text(&vector["variant"]));
        let place = Place::of(text(&vector["db"]));
        let mut broker = place.broker();
        let mut fresh: &[&str] = &[];
        let result = &vector["result"];
        let mut done = || -> Result<(), swiftlet::broker::BrokerError> {
            match (op, &args[..]) {
                ("get_replication_info", []) => {
                    assert_eq!(&replication_info_json(&mut broker), result, "{case}")
                }
                ("get_items_since", [after, limit]) => {
                    let limit = usize::try_from(number(limit)).expect("a limit");
                    assert_eq!(broker.rows_after(RowId(number(after)), limit)?, rows(result), "{case}");
                }
                ("get_syncs", []) => check_points(&mut broker, Direction::Incoming, result, &case),
                ("get_policy_stats", []) => {
                    let totals: Vec<_> = broker.policy_totals()?;
                    let totals = totals.into_iter().map(|(policy, objects, bytes)| {
                        value!([policy.0, { "object_count": objects, "bytes_used": bytes }])
                    });
                    assert_eq!(&totals.collect::<Value>(), result, "{case}");
                }
                ("get_reconciler_sync", []) => {
                    assert_eq!(&value!(broker.reconciler_point()?.0), result, "{case}")
                }
                ("get_all_shard_range_data", []) => {
                    assert_eq!(broker.shard_ranges()?, ranges(result), "{case}")
                }
                ("is_deleted", []) => assert_eq!(&value!(broker.is_deleted()?), result, "{case}"),
                ("merge_items", [items, source]) => {
                    broker.merge_rows(rows(items), Some(&id(source)))?;
                }
                ("update_metadata", [updates]) => {
                    broker.merge_metadata(&parse_metadata(&updates.to_string()).expect("metadata"))?;
                }
                ("merge_shard_ranges", [items]) => {
                    broker.merge_shard_ranges(ranges(items))?;
                }
                ("set_storage_policy_index", [policy, at]) => {
                    broker.set_policy(PolicyIndex(number(policy)), time(at))?;
                }
                ("update_reconciler_sync", [point]) => broker.set_reconciler_point(RowId(number(point)))?,
                ("set_x_container_sync_points", [first, second]) => {
                    broker.set_container_sync_points(RowId(number(first)), RowId(number(second)))?;
                }
                ("reclaim", [age, sync_age]) => {
                    broker.reclaim(seconds(age), seconds(sync_age))?;
                }
                ("merge_timestamps", [created, put, delete]) => {
                    fresh = &["status_changed_at"];
                    broker.merge_timestamps(&stamp(created), &stamp(put), &stamp(delete), time(put))?;
                }
                ("newid", [sender]) => {
                    fresh = &["id"];
                    broker.new_id(&id(sender), fresh_id("sdb1"))?;
                }
                _ => panic!("an operation this test does not know: {op} {args:?}"),
            }
            Ok(())
        };
        done().unwrap_or_else(|e| panic!("{case}: {e}"));
        if vector.get("after").is_some() {
            assert!(result.is_null(), "{case}");
            check_dump(broker.path(), &vector["after"], fresh, &case);
            check_schema(&raw(broker.path()), &vector["schema_after"], &case);
        }
        // Whatever was migrated, all of it can be read.
        broker.info().unwrap_or_else(|e| panic!("{case}: {e}"));
    }
}

fn check_schema(conn: &rusqlite::Connection, expected: &Value, case: &str) {
    knows(expected, &["tables", "triggers", "indexes"]);
    let names = |kind: &str| -> Value {
        let sql = format!(
            "SELECT name FROM sqlite_schema WHERE type = '{kind}' AND name NOT LIKE 'sqlite_autoindex%' ORDER BY name"
        );
        query(conn, &sql).1.into_iter().map(|row| row[0].clone()).collect()
    };
    assert_eq!(names("trigger"), expected["triggers"], "{case}");
    assert_eq!(names("index"), expected["indexes"], "{case}");
    let mut tables = serde_json::Map::new();
    for row in query(conn, "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view')").1 {
        let sql = format!("SELECT name, type, dflt_value FROM pragma_table_info('{}')", text(&row[0]));
        tables.insert(text(&row[0]).to_owned(), value!({ "kind": row[1], "columns": query(conn, &sql).1 }));
    }
    assert_eq!(Value::Object(tables), expected["tables"], "{case}");
}
