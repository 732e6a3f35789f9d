//! The same as one JSON object, under Swift's names where it has some.

use serde_json::{Map, Value, json};

use super::places::{Placement, Role, Spot};
use super::verdict::{Finding, Held, ObjectRow};
use super::{Item, Report};
use crate::replica::Row;

/// The object, on a line of its own.
pub fn object(
    item: &Item,
    placement: &Placement,
    report: Option<&Report>,
    object: Option<&Placement>,
) -> String {
    let mut all = Map::new();
    all.insert("account".into(), json!(item.account));
    all.insert("container".into(), json!(item.container));
    all.insert("object".into(), json!(item.object));
    all.insert("location".into(), location(placement, report));
    if item.object.is_some() {
        all.insert("object_location".into(), object.map_or(Value::Null, |object| location(object, None)));
    }
    if let Some(report) = report {
        all.insert("agree".into(), json!(report.verdict.is_sound));
        all.insert("verdict".into(), json!(report.verdict.sentence));
    }
    format!("{}\n", Value::Object(all))
}

fn location(placement: &Placement, report: Option<&Report>) -> Value {
    let mut location = Map::new();
    location.insert("kind".into(), json!(placement.kind.directory()));
    location.insert("hash".into(), json!(placement.hash.to_string()));
    location.insert("ring".into(), json!(placement.ring_path.display().to_string()));
    let Some(placed) = &placement.placed else {
        location.insert("partition".into(), Value::Null);
        return Value::Object(location);
    };
    location.insert("partition".into(), json!(placed.partition.0));
    let mut places: Vec<Value> =
        placed.spots.iter().enumerate().map(|(index, spot)| place(index, spot, report)).collect();
    let handoffs = places.split_off(placed.primaries);
    location.insert("primaries".into(), json!(places));
    location.insert("handoffs".into(), json!(handoffs));
    Value::Object(location)
}

fn place(index: usize, spot: &Spot, report: Option<&Report>) -> Value {
    let device = &spot.device;
    let mut place = Map::new();
    let mut set = |name: &str, value: Value| drop(place.insert(name.into(), value));
    set("id", json!(device.id.0));
    set("device", json!(device.name));
    set("region", json!(device.region));
    set("zone", json!(device.zone));
    set("ip", json!(device.ip));
    set("port", json!(device.port));
    set("replication_ip", json!(device.replication_ip));
    set("replication_port", json!(device.replication_port));
    set("agent_port", json!(spot.agent_port));
    set("is_local", json!(spot.ours));
    set("path", json!(spot.path.display().to_string()));
    let Some(report) = report else { return Value::Object(place) };
    let finding = &report.findings[index];
    set("state", json!(finding.state().as_str()));
    match finding {
        Finding::Without { why, .. } => set("reason", json!(why)),
        Finding::Held(held) => {
            describe(held, &mut set);
            let differences = report.verdict.differences[index].iter().flatten();
            let differences: Vec<String> = differences.map(|difference| difference.to_string()).collect();
            set("agrees", json!(differences.is_empty()));
            set("differences", json!(differences));
            set("to_move", json!(matches!(spot.role, Role::Handoff(_))));
        }
    }
    Value::Object(place)
}

fn describe(held: &Held, set: &mut impl FnMut(&str, Value)) {
    let info = &held.info;
    set("database_id", json!(info.id.as_str()));
    set("object_count", json!(info.count));
    set("bytes_used", json!(info.bytes_used));
    set("hash", json!(info.hash.to_string()));
    set("max_row", json!(info.max_row.0));
    set("created_at", json!(info.created_at.as_str()));
    set("put_timestamp", json!(info.put_timestamp.as_str()));
    set("delete_timestamp", json!(info.delete_timestamp.as_str()));
    set("storage_policy_index", json!(info.storage_policy_index.0));
    set("db_state", json!(info.db_state.as_str()));
    set("pending_rows", json!(held.waiting));
    match &held.row {
        None | Some(ObjectRow::Unseen | ObjectRow::InShards) => {}
        Some(ObjectRow::Missing) => set("row", Value::Null),
        Some(ObjectRow::Stored(row)) => set("row", columns(row, false)),
        Some(ObjectRow::Waiting(row)) => set("row", columns(row, true)),
    }
}

fn columns(row: &Row, waits: bool) -> Value {
    json!({
        "created_at": row.created_at,
        "size": row.size,
        "content_type": row.content_type,
        "etag": row.etag,
        "deleted": row.deleted,
        "storage_policy_index": row.storage_policy_index.0,
        "pending": waits,
    })
}
