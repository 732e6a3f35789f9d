//! The schema of a container database, and what older ones lack.
//!
//! Container databases live for many years, and Swift migrates one only when it must write what the old schema cannot
//! hold (`swift/container/backend.py: _migrate_*`). We look at what is there, read old ones as they are, and migrate at
//! the same moments as Swift, inside the transaction that needs it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::fault::Fault;

/// What a database's schema has of all that was added to Swift's over the years.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Schema {
    /// Rows have a policy; totals are kept per policy; `container_stat` is a view over `container_info`.
    pub(super) policies: bool,
    /// `container_stat.metadata`.
    pub(super) metadata: bool,
    /// `x_container_sync_point1` and `2`.
    pub(super) container_sync: bool,
    /// `updated_at` in both sync tables.
    pub(super) updated_at: bool,
    /// The table `shard_range`.
    pub(super) ranges: bool,
    /// `shard_range.reported`.
    pub(super) range_reported: bool,
    /// `shard_range.tombstones`.
    pub(super) range_tombstones: bool,
    /// The index over `(deleted, name)`.
    pub(super) name_index: bool,
    /// The triggers on `object` are those of today's schema and no others, so what they do can be done in bulk.
    pub(super) usual_triggers: bool,
    /// The tables that a summary is made of have today's columns in today's order, and the index over names is as today,
    /// so that their rows can be read without SQLite.
    pub(super) plain: bool,
}

impl Schema {
    /// Looks at a database. Most are defined word for word as one that was looked at before, and to find that takes a
    /// small part of the time.
    pub(super) fn read(conn: &Connection) -> Result<Schema, Fault> {
        let mut entries = Vec::new();
        let mut definitions = Definitions::default();
        let mut statement = conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            entries.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
            let (kind, name, of) = entries.last().expect("just pushed");
            // An index that comes with a table has none.
            let sql = row.get::<_, Option<String>>(3)?.unwrap_or_default();
            definitions.add([kind, name, of, &sql]);
        }
        if let Some(schema) = Schema::known(definitions.clone()) {
            return Ok(schema);
        }
        let schema = Schema::examine(conn, &entries)?;
        let mut known = known();
        let known = known.get_or_insert_default();
        if known.len() >= KNOWN_LIMIT {
            known.clear();
        }
        known.insert(definitions.0.finalize(), schema.clone());
        Ok(schema)
    }

    /// What was found out before about a database with these definitions.
    pub(super) fn known(definitions: Definitions) -> Option<Schema> {
        known().as_ref()?.get(&definitions.0.finalize()).cloned()
    }

    /// What tables, columns and triggers there are. `entries` are the kind, the name and the table of each.
    fn examine(conn: &Connection, entries: &[(String, String, String)]) -> Result<Schema, Fault> {
        let table = |wanted: &str| {
            entries.iter().any(|(kind, name, _)| (kind == "table" || kind == "view") && name == wanted)
        };
        let object = columns(conn, "object")?;
        let policies = object.iter().any(|column| column == "storage_policy_index");
        let stat_table = if policies { "container_info" } else { "container_stat" };
        let needed = ["object", "container_stat", "incoming_sync", "outgoing_sync", stat_table];
        for wanted in needed.into_iter().chain(policies.then_some("policy_stat")) {
            if !table(wanted) {
                return Err(Fault::Damaged(format!("no such table: {wanted}")));
            }
        }
        let stat = columns(conn, stat_table)?;
        let ranges = columns(conn, "shard_range")?;
        let has = |columns: &[String], wanted: &str| columns.iter().any(|column| column == wanted);
        let mut triggers: Vec<&str> = entries
            .iter()
            .filter(|(kind, _, of)| kind == "trigger" && of == "object")
            .map(|(_, name, _)| name.as_str())
            .collect();
        triggers.sort_unstable();
        Ok(Schema {
            policies,
            metadata: has(&stat, "metadata"),
            container_sync: has(&stat, "x_container_sync_point1") && has(&stat, "x_container_sync_point2"),
            updated_at: has(&columns(conn, "incoming_sync")?, "updated_at")
                && has(&columns(conn, "outgoing_sync")?, "updated_at"),
            ranges: !ranges.is_empty(),
            range_reported: has(&ranges, "reported"),
            range_tombstones: has(&ranges, "tombstones"),
            name_index: entries
                .iter()
                .any(|(kind, name, _)| kind == "index" && name == "ix_object_deleted_name"),
            usual_triggers: triggers == OBJECT_TRIGGERS,
            plain: is_plain(conn)?,
        })
    }

    /// Where the facts about the container are stored; `container_stat` shows them too, in any schema.
    pub(super) fn facts(&self) -> &'static str {
        if self.policies { "container_info" } else { "container_stat" }
    }

    /// The condition that lets a query by name use the index.
    pub(super) fn by_name(&self) -> &'static str {
        if self.name_index { "deleted IN (0, 1) AND name" } else { "name" }
    }

    /// Makes room for storage policies. Everything older is migrated on the way; what the account was told of a deletion
    /// is not carried over, so that it is told again
    /// (`swift/container/backend.py: _migrate_add_storage_policy`).
    pub(super) fn add_policies(&mut self, conn: &Connection) -> Result<(), Fault> {
        if self.policies {
            return Ok(());
        }
        self.add_container_sync(conn)?;
        self.add_metadata(conn)?;
        conn.execute_batch(&format!(
            "{POLICY_STAT}
             INSERT INTO policy_stat SELECT 0, object_count, bytes_used FROM container_stat;
             ALTER TABLE object ADD COLUMN storage_policy_index INTEGER DEFAULT 0;
             DROP TRIGGER object_insert;
             DROP TRIGGER object_delete;
             {OBJECT_STAT_TRIGGERS}
             {CONTAINER_INFO}
             INSERT INTO container_info ({CARRIED_OVER}) SELECT {CARRIED_OVER} FROM container_stat;
             DROP TABLE container_stat;
             {CONTAINER_STAT}"
        ))?;
        *self = Schema::read(conn)?;
        Ok(())
    }

    /// Makes room for metadata (`swift/common/db.py: update_metadata`).
    pub(super) fn add_metadata(&mut self, conn: &Connection) -> Result<(), Fault> {
        if !self.metadata {
            conn.execute_batch("ALTER TABLE container_stat ADD COLUMN metadata TEXT DEFAULT ''")?;
            self.metadata = true;
        }
        Ok(())
    }

    /// Makes room for container sync's points (`swift/container/backend.py: _migrate_add_container_sync_points`).
    pub(super) fn add_container_sync(&mut self, conn: &Connection) -> Result<(), Fault> {
        if !self.container_sync {
            conn.execute_batch(
                "ALTER TABLE container_stat ADD COLUMN x_container_sync_point1 INTEGER DEFAULT -1;
                 ALTER TABLE container_stat ADD COLUMN x_container_sync_point2 INTEGER DEFAULT -1;",
            )?;
            self.container_sync = true;
        }
        Ok(())
    }

    /// Makes room for shard ranges, whole (`swift/container/backend.py: merge_shard_ranges`).
    pub(super) fn add_ranges(&mut self, conn: &Connection) -> Result<(), Fault> {
        if !self.ranges {
            conn.execute_batch(SHARD_RANGE)?;
        } else {
            if !self.range_reported {
                conn.execute_batch("ALTER TABLE shard_range ADD COLUMN reported INTEGER DEFAULT 0")?;
            }
            if !self.range_tombstones {
                conn.execute_batch("ALTER TABLE shard_range ADD COLUMN tombstones INTEGER DEFAULT -1")?;
            }
        }
        (self.ranges, self.range_reported, self.range_tombstones) = (true, true, true);
        Ok(())
    }
}

/// All that a schema is made of, in its order: kind, name, table and text of each entry.
#[derive(Clone, Default)]
pub(super) struct Definitions(blake3::Hasher);

impl Definitions {
    /// One entry more.
    pub(super) fn add(&mut self, entry: [&str; 4]) {
        for part in entry {
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
}

/// Schemas that were looked at, by their definitions.
static KNOWN: Mutex<Option<HashMap<blake3::Hash, Schema>>> = Mutex::new(None);

fn known() -> MutexGuard<'static, Option<HashMap<blake3::Hash, Schema>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See [`Schema::plain`].
fn is_plain(conn: &Connection) -> Result<bool, Fault> {
    for (table, expected) in PLAIN_TABLES {
        // With hidden and computed columns, which stand in no list of columns.
        let mut statement = conn.prepare_cached("SELECT name, hidden FROM pragma_table_xinfo(?)")?;
        let found: Vec<(String, i64)> = statement
            .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if !found
            .iter()
            .map(|(name, hidden)| (name.as_str(), *hidden))
            .eq(expected.split(' ').map(|name| (name, 0)))
        {
            return Ok(false);
        }
    }
    let key = "SELECT group_concat(name || ' ' || desc || ' ' || coll, ', ') FROM (SELECT * FROM
        pragma_index_xinfo('ix_object_deleted_name') WHERE key ORDER BY seqno)";
    let key: Option<String> = conn.query_row(key, [], |row| row.get(0))?;
    let whole = "SELECT count(*) FROM pragma_index_list('object') WHERE name = 'ix_object_deleted_name' AND NOT partial";
    let whole: i64 = conn.query_row(whole, [], |row| row.get(0))?;
    Ok(key.as_deref() == Some("deleted 0 BINARY, name 0 BINARY") && whole == 1)
}

/// Tables whose rows `brief.rs` reads, with their columns.
const PLAIN_TABLES: [(&str, &str); 5] = [
    ("sqlite_sequence", "name seq"),
    ("incoming_sync", "remote_id sync_point updated_at"),
    ("outgoing_sync", "remote_id sync_point updated_at"),
    ("policy_stat", "storage_policy_index object_count bytes_used"),
    (
        "container_info",
        "account container created_at put_timestamp delete_timestamp reported_put_timestamp reported_delete_timestamp \
         reported_object_count reported_bytes_used hash id status status_changed_at metadata x_container_sync_point1 \
         x_container_sync_point2 storage_policy_index reconciler_sync_point",
    ),
];

/// Far more than the years have brought about.
const KNOWN_LIMIT: usize = 64;

/// The names of a table's columns, none if there is no such table.
fn columns(conn: &Connection, table: &str) -> Result<Vec<String>, Fault> {
    let mut statement = conn.prepare_cached("SELECT name FROM pragma_table_info(?)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// Everything that a new database has, in today's schema (`swift/common/db.py: initialize`,
/// `swift/container/backend.py: _initialize`).
pub(super) fn create(conn: &Connection) -> Result<(), Fault> {
    conn.execute_batch(&format!(
        "{SYNC_TABLES}{OBJECT}{OBJECT_STAT_TRIGGERS}{POLICY_STAT}{CONTAINER_INFO}{CONTAINER_STAT}{SHARD_RANGE}"
    ))?;
    Ok(())
}

/// The triggers on `object` in today's schema, sorted.
const OBJECT_TRIGGERS: [&str; 3] =
    ["object_delete_policy_stat", "object_insert_policy_stat", "object_update"];

const SYNC_TABLES: &str = "
CREATE TABLE outgoing_sync (remote_id TEXT UNIQUE, sync_point INTEGER, updated_at TEXT DEFAULT 0);
CREATE TABLE incoming_sync (remote_id TEXT UNIQUE, sync_point INTEGER, updated_at TEXT DEFAULT 0);
CREATE TRIGGER outgoing_sync_insert AFTER INSERT ON outgoing_sync BEGIN
    UPDATE outgoing_sync SET updated_at = STRFTIME('%s', 'NOW') WHERE ROWID = new.ROWID;
END;
CREATE TRIGGER outgoing_sync_update AFTER UPDATE ON outgoing_sync BEGIN
    UPDATE outgoing_sync SET updated_at = STRFTIME('%s', 'NOW') WHERE ROWID = new.ROWID;
END;
CREATE TRIGGER incoming_sync_insert AFTER INSERT ON incoming_sync BEGIN
    UPDATE incoming_sync SET updated_at = STRFTIME('%s', 'NOW') WHERE ROWID = new.ROWID;
END;
CREATE TRIGGER incoming_sync_update AFTER UPDATE ON incoming_sync BEGIN
    UPDATE incoming_sync SET updated_at = STRFTIME('%s', 'NOW') WHERE ROWID = new.ROWID;
END;
";

const OBJECT: &str = "
CREATE TABLE object (
    ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER, content_type TEXT, etag TEXT,
    deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0
);
CREATE INDEX ix_object_deleted_name ON object (deleted, name);
CREATE TRIGGER object_update BEFORE UPDATE ON object BEGIN
    SELECT RAISE(FAIL, 'UPDATE not allowed; DELETE and INSERT');
END;
";

/// The sums kept over `object`. `rows.rs` does the same in bulk; the two must agree.
const OBJECT_STAT_TRIGGERS: &str = "
CREATE TRIGGER object_insert_policy_stat AFTER INSERT ON object BEGIN
    UPDATE policy_stat
        SET object_count = object_count + (1 - new.deleted), bytes_used = bytes_used + new.size
        WHERE storage_policy_index = new.storage_policy_index;
    INSERT INTO policy_stat (storage_policy_index, object_count, bytes_used)
        SELECT new.storage_policy_index, (1 - new.deleted), new.size
        WHERE NOT EXISTS (SELECT changes() AS change FROM policy_stat WHERE change <> 0);
    UPDATE container_info SET hash = chexor(hash, new.name, new.created_at);
END;
CREATE TRIGGER object_delete_policy_stat AFTER DELETE ON object BEGIN
    UPDATE policy_stat
        SET object_count = object_count - (1 - old.deleted), bytes_used = bytes_used - old.size
        WHERE storage_policy_index = old.storage_policy_index;
    UPDATE container_info SET hash = chexor(hash, old.name, old.created_at);
END;
";

const POLICY_STAT: &str = "
CREATE TABLE policy_stat (
    storage_policy_index INTEGER PRIMARY KEY, object_count INTEGER DEFAULT 0, bytes_used INTEGER DEFAULT 0
);
";

const CONTAINER_INFO: &str = "
CREATE TABLE container_info (
    account TEXT, container TEXT, created_at TEXT,
    put_timestamp TEXT DEFAULT '0', delete_timestamp TEXT DEFAULT '0',
    reported_put_timestamp TEXT DEFAULT '0', reported_delete_timestamp TEXT DEFAULT '0',
    reported_object_count INTEGER DEFAULT 0, reported_bytes_used INTEGER DEFAULT 0,
    hash TEXT DEFAULT '00000000000000000000000000000000',
    id TEXT, status TEXT DEFAULT '', status_changed_at TEXT DEFAULT '0', metadata TEXT DEFAULT '',
    x_container_sync_point1 INTEGER DEFAULT -1, x_container_sync_point2 INTEGER DEFAULT -1,
    storage_policy_index INTEGER DEFAULT 0, reconciler_sync_point INTEGER DEFAULT -1
);
";

/// The view that stands where the table was, writable through its trigger, so that Swift of any age can use it.
const CONTAINER_STAT: &str = "
CREATE VIEW container_stat AS SELECT
        ci.account, ci.container, ci.created_at, ci.put_timestamp, ci.delete_timestamp,
        ci.reported_put_timestamp, ci.reported_delete_timestamp, ci.reported_object_count, ci.reported_bytes_used,
        ci.hash, ci.id, ci.status, ci.status_changed_at, ci.metadata,
        ci.x_container_sync_point1, ci.x_container_sync_point2, ci.reconciler_sync_point, ci.storage_policy_index,
        coalesce(ps.object_count, 0) AS object_count, coalesce(ps.bytes_used, 0) AS bytes_used
    FROM container_info ci LEFT JOIN policy_stat ps ON ci.storage_policy_index = ps.storage_policy_index;
CREATE TRIGGER container_stat_update INSTEAD OF UPDATE ON container_stat BEGIN
    UPDATE container_info SET
        account = NEW.account, container = NEW.container, created_at = NEW.created_at,
        put_timestamp = NEW.put_timestamp, delete_timestamp = NEW.delete_timestamp,
        reported_put_timestamp = NEW.reported_put_timestamp,
        reported_delete_timestamp = NEW.reported_delete_timestamp,
        reported_object_count = NEW.reported_object_count, reported_bytes_used = NEW.reported_bytes_used,
        hash = NEW.hash, id = NEW.id, status = NEW.status, status_changed_at = NEW.status_changed_at,
        metadata = NEW.metadata,
        x_container_sync_point1 = NEW.x_container_sync_point1, x_container_sync_point2 = NEW.x_container_sync_point2,
        storage_policy_index = NEW.storage_policy_index, reconciler_sync_point = NEW.reconciler_sync_point;
END;
";

const SHARD_RANGE: &str = "
CREATE TABLE shard_range (
    ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, timestamp TEXT, lower TEXT, upper TEXT,
    object_count INTEGER DEFAULT 0, bytes_used INTEGER DEFAULT 0, meta_timestamp TEXT,
    deleted INTEGER DEFAULT 0, state INTEGER, state_timestamp TEXT, epoch TEXT,
    reported INTEGER DEFAULT 0, tombstones INTEGER DEFAULT -1
);
CREATE TRIGGER shard_range_update BEFORE UPDATE ON shard_range BEGIN
    SELECT RAISE(FAIL, 'UPDATE not allowed; DELETE and INSERT');
END;
";

/// The columns of an old `container_stat` that go into `container_info`.
const CARRIED_OVER: &str =
    "account, container, created_at, put_timestamp, delete_timestamp, reported_put_timestamp,
    reported_object_count, reported_bytes_used, hash, id, status, status_changed_at, metadata,
    x_container_sync_point1, x_container_sync_point2";
