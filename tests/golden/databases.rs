//! Databases of the vectors: unpacked where a broker finds them, dumped as the vectors dump them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};
use swiftlet::broker::{Broker, Patience};
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{Hash, Partition};
use swiftlet::replica::{Direction, PolicyIndex, ReplicaId, Row, RowId, ShardRange, SyncPoint};
use swiftlet::timestamp::{Stamp, Timestamp};

use super::vectors;

/// A hash directory of its own, gone with this value.
pub struct Place {
    pub home: HashDir,
    _device: tempfile::TempDir,
}

impl Place {
    /// An empty place for the container of this hash.
    pub fn empty(hash: &str) -> Place {
        let device = tempfile::tempdir().expect("a temporary directory");
        let hash: Hash = hash.parse().expect("a hash");
        let home = HashDir::new(device.path().into(), Partition(0), hash);
        home.create().expect("a hash directory");
        Place { home, _device: device }
    }

    /// A database of the vectors, under a hash of no meaning.
    pub fn of(db: &str) -> Place {
        let place = Place::empty(ANY_HASH);
        place.put(db, &format!("{ANY_HASH}.db"));
        place
    }

    /// A file of the vectors, under this name.
    pub fn put(&self, vector: &str, name: &str) -> PathBuf {
        let path = self.home.dir().join(name);
        std::fs::write(&path, vectors::bytes(vector)).expect("a file in the hash directory");
        path
    }

    /// Its pending file.
    pub fn put_pending(&self, vector: &str) {
        std::fs::write(self.home.pending_path(), vectors::bytes(vector)).expect("a pending file");
    }

    pub fn broker(&self) -> Broker {
        let patience = Patience { database: Duration::from_secs(2), directory: Duration::from_secs(2) };
        Broker::open_patiently(&self.home, patience).expect("a database that opens")
    }
}

pub const ANY_HASH: &str = "0123456789abcdef0123456789abcdef";

/// A look at a database without a broker.
pub fn raw(path: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(path, flags).expect("a database to look at")
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(_) => panic!("a blob in a container database"),
    }
}

/// A query's rows.
pub fn query(conn: &rusqlite::Connection, sql: &str) -> (Vec<String>, Vec<Value>) {
    let mut statement = conn.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut found = statement.query([]).expect("rows");
    let mut rows = Vec::new();
    while let Some(row) = found.next().expect("a row") {
        rows.push((0..columns.len()).map(|at| value(row.get_ref(at).expect("a cell"))).collect());
    }
    (columns, rows)
}

/// Is there a table or a view of this name?
fn has_table(conn: &rusqlite::Connection, name: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?)";
    conn.query_row(sql, [name], |row| row.get(0)).expect("the schema")
}

fn dump_table(conn: &rusqlite::Connection, key: &str) -> Value {
    let (table, columns, order) = match key {
        "objects" => ("object", "*", "ROWID"),
        "shard_range" => ("shard_range", "*", "ROWID"),
        "policy_stat" => ("policy_stat", "*", "storage_policy_index"),
        "incoming_sync" | "outgoing_sync" => (key, "remote_id, sync_point", "remote_id"),
        "container_info" | "container_stat" => (key, "*", "account"),
        "sqlite_sequence" => (key, "name, seq", "name"),
        other => panic!("a dump has a table this test does not know: {other}"),
    };
    if !has_table(conn, table) {
        return Value::Null;
    }
    let (columns, rows) = query(conn, &format!("SELECT {columns} FROM {table} ORDER BY {order}"));
    json!({ "columns": columns, "rows": rows })
}

/// Checks a database against a dump. `fresh` are columns of the info row that the operation sets anew.
pub fn check_dump(path: &Path, expected: &Value, fresh: &[&str], case: &str) {
    let conn = raw(path);
    let mut expected = expected.as_object().expect("a dump").clone();
    if !expected.contains_key("shard_range") && has_table(&conn, "shard_range") {
        expected.insert("shard_range".to_owned(), json!({ "columns": null, "rows": [] }));
    }
    for (key, wanted) in &expected {
        let (mut found, mut wanted) = (dump_table(&conn, key), wanted.clone());
        if wanted["columns"].is_null() && !wanted.is_null() {
            wanted["columns"] = found["columns"].clone();
        }
        if key.starts_with("container_") && !wanted.is_null() {
            blank(&mut found, fresh);
            blank(&mut wanted, fresh);
        }
        assert_eq!(found, wanted, "{case}: table {key}");
    }
}

fn blank(table: &mut Value, fresh: &[&str]) {
    let Some(columns) = table["columns"].as_array().cloned() else { return };
    for (at, column) in columns.iter().enumerate() {
        if fresh.contains(&column.as_str().expect("a name")) {
            for row in table["rows"].as_array_mut().expect("rows") {
                assert!(!row[at].as_str().expect("text").is_empty(), "a fresh {column} is empty");
                row[at] = "fresh".into();
            }
        }
    }
}

/// All that `get_info` says, from a broker and the columns that no broker needs.
pub fn info_json(broker: &mut Broker) -> Map<String, Value> {
    let info = broker.info().expect("info");
    let reported = broker.reported().expect("what was reported");
    let path = broker.path().to_owned();
    let conn = raw(&path);
    let cell = |column: &str, default: Value| {
        let exists = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('container_stat') WHERE name = ?)";
        match conn.query_row(exists, [column], |row| row.get(0)).expect("columns") {
            true => query(&conn, &format!("SELECT {column} FROM container_stat")).1[0][0].clone(),
            false => default,
        }
    };
    let made = json!({
        "account": info.account, "container": info.container,
        "created_at": info.created_at.as_str(), "put_timestamp": info.put_timestamp.as_str(),
        "delete_timestamp": info.delete_timestamp.as_str(), "status": cell("status", "".into()),
        "status_changed_at": info.status_changed_at.as_str(),
        "object_count": info.count, "bytes_used": info.bytes_used,
        "reported_put_timestamp": reported.put_timestamp.as_str(),
        "reported_delete_timestamp": reported.delete_timestamp.as_str(),
        "reported_object_count": reported.object_count, "reported_bytes_used": reported.bytes_used,
        "hash": info.hash.to_string(), "id": info.id.as_str(),
        "x_container_sync_point1": cell("x_container_sync_point1", (-1).into()),
        "x_container_sync_point2": cell("x_container_sync_point2", (-1).into()),
        "storage_policy_index": info.storage_policy_index.0, "db_state": info.db_state.as_str(),
    });
    assert_eq!(info.file_bytes, std::fs::metadata(&path).expect("the file").len());
    assert_eq!(Value::from(info.page_bytes), query(&conn, "PRAGMA page_size").1[0][0]);
    made.as_object().expect("an object").clone()
}

/// All that `get_replication_info` says.
pub fn replication_info_json(broker: &mut Broker) -> Value {
    let mut made = info_json(broker);
    let info = broker.info().expect("info");
    let count = made.remove("object_count").expect("a count");
    made.insert("count".to_owned(), count);
    made.insert("max_row".to_owned(), info.max_row.0.into());
    made.insert("shard_max_row".to_owned(), info.shard_max_row.0.into());
    let text = match info.metadata.0.is_empty() {
        true => String::new(),
        false => swiftlet::merge::print_metadata(&info.metadata),
    };
    made.insert("metadata".to_owned(), text.into());
    Value::Object(made)
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}

pub fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

pub fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

pub fn time(value: &Value) -> Timestamp {
    text(value).parse().expect("a timestamp")
}

pub fn stamp(value: &Value) -> Stamp {
    Stamp::stored(text(value))
}

pub fn id(value: &Value) -> ReplicaId {
    ReplicaId::new(text(value)).expect("an id")
}

/// A row as Swift sends it.
pub fn row(value: &Value) -> Row {
    vectors::knows(
        value,
        &[
            "ROWID",
            "name",
            "created_at",
            "size",
            "content_type",
            "etag",
            "deleted",
            "storage_policy_index",
            "ctype_timestamp",
            "meta_timestamp",
        ],
    );
    let optional = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Row {
        row_id: value.get("ROWID").map(|number| RowId(self::number(number))),
        name: text(&value["name"]).to_owned(),
        created_at: text(&value["created_at"]).to_owned(),
        size: number(&value["size"]),
        content_type: text(&value["content_type"]).to_owned(),
        etag: text(&value["etag"]).to_owned(),
        deleted: number(&value["deleted"]),
        storage_policy_index: PolicyIndex(value.get("storage_policy_index").map_or(0, number)),
        ctype_timestamp: optional("ctype_timestamp"),
        meta_timestamp: optional("meta_timestamp"),
    }
}

pub fn rows(value: &Value) -> Vec<Row> {
    list(value).iter().map(row).collect()
}

/// A shard range as Swift sends it.
pub fn range(value: &Value) -> ShardRange {
    vectors::knows(
        value,
        &[
            "name",
            "timestamp",
            "lower",
            "upper",
            "object_count",
            "bytes_used",
            "meta_timestamp",
            "deleted",
            "state",
            "state_timestamp",
            "epoch",
            "reported",
            "tombstones",
        ],
    );
    ShardRange {
        name: text(&value["name"]).to_owned(),
        timestamp: stamp(&value["timestamp"]),
        lower: text(&value["lower"]).to_owned(),
        upper: text(&value["upper"]).to_owned(),
        object_count: number(&value["object_count"]),
        bytes_used: number(&value["bytes_used"]),
        meta_timestamp: stamp(&value["meta_timestamp"]),
        deleted: number(&value["deleted"]),
        state: number(&value["state"]),
        state_timestamp: stamp(&value["state_timestamp"]),
        epoch: value["epoch"].as_str().map(Stamp::stored),
        reported: number(&value["reported"]),
        tombstones: number(&value["tombstones"]),
    }
}

pub fn ranges(value: &Value) -> Vec<ShardRange> {
    list(value).iter().map(range).collect()
}

pub fn points(value: &Value) -> Vec<SyncPoint> {
    let point = |value: &Value| {
        vectors::knows(value, &["remote_id", "sync_point"]);
        SyncPoint { remote_id: id(&value["remote_id"]), point: RowId(number(&value["sync_point"])) }
    };
    list(value).iter().map(point).collect()
}

/// Checks all sync points of one direction, in any order.
pub fn check_points(broker: &mut Broker, direction: Direction, expected: &Value, case: &str) {
    let mut expected = points(expected);
    expected.sort_by(|a, b| a.remote_id.cmp(&b.remote_id));
    assert_eq!(broker.sync_points(direction).expect("points"), expected, "{case}");
}
