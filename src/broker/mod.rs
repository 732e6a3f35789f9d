//! One open container database: info, sync points, metadata, lock.
//!
//! A container is a directory with one database file in it, or two while it is being sharded; the last by name is in
//! charge (`swift/container/backend.py: ContainerBroker`). A [`Broker`] is the only way into either. It shares them with
//! container servers, updaters, auditors and sharders, so each of its methods is one short transaction, or one append
//! under the directory's lock; it holds nothing between two calls but an open file.
//!
//! Whatever differs between a database and what its peers know of it is told by [`Broker::info`]; [`crate::merge`] says
//! what becomes of a difference; the files below bring it about.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::drive::live::journal_path;
use crate::drive::{DbFileName, HashDir};
use crate::merge;
use crate::replica::{
    DbState, Direction, Metadata, PolicyIndex, ReplicaId, ReplicaInfo, RowHash, RowId, SyncPoint,
};
use crate::timestamp::{Stamp, Timestamp};

mod brief;
mod db;
mod due;
mod fault;
mod flush;
mod known;
mod lifecycle;
mod pages;
pub mod pending;
mod rows;
mod schema;
mod shard_ranges;

pub use brief::Brief;
pub use fault::BrokerError;
pub use lifecycle::{AccountReport, Reclaimed};

use db::{Db, Use, number, text};
use fault::Fault;
use known::Repeats;
use schema::Schema;
use shard_ranges::RangeSummary;

/// How long to wait for what others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For SQLite's locks on a file.
    pub database: Duration,
    /// For the directory's `.lock`.
    pub directory: Duration,
}

/// Swift's replicator's own patience.
impl Default for Patience {
    fn default() -> Patience {
        Patience { database: Duration::from_secs(25), directory: Duration::from_secs(30) }
    }
}

/// One container here: the file in charge of it, and the one that retires while it is being sharded.
#[derive(Debug)]
pub struct Broker {
    /// None for a private file.
    home: Option<HashDir>,
    db: Db,
    retiring: Option<Db>,
    patience: Patience,
    repeats: Repeats,
}

impl Broker {
    /// Opens the container of a hash directory.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn open(home: &HashDir) -> Result<Broker, BrokerError> {
        Broker::open_patiently(home, Patience::default())
    }

    /// Like [`Broker::open`], with a patience of the caller's.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn open_patiently(home: &HashDir, patience: Patience) -> Result<Broker, BrokerError> {
        let mut files = home.db_files().map_err(|e| BrokerError::io(home.dir(), &e))?;
        let in_charge = files.pop().ok_or(BrokerError::Missing)?;
        let db = Db::open(&in_charge, patience.database, Use::Shared)?;
        let retiring = files.pop().map(|path| Db::open(&path, patience.database, Use::Shared)).transpose()?;
        Ok(Broker { home: Some(home.clone()), db, retiring, patience, repeats: Repeats::default() })
    }

    /// Opens a file of our own, which nobody else knows of: no pending file, no lock, no second file.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn open_file(path: &Path) -> Result<Broker, BrokerError> {
        let patience = Patience::default();
        Ok(Broker {
            home: None,
            db: Db::open(path, patience.database, Use::Private)?,
            retiring: None,
            patience,
            repeats: Repeats::default(),
        })
    }

    /// Opens a container only to look at it: nothing is written, locked for long or created, also where all is read-only.
    /// The pending file stays as it is; ask [`Broker::stored_info`], not what flushes.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn look(home: &HashDir, patience: Patience) -> Result<Broker, BrokerError> {
        let mut files = home.db_files().map_err(|e| BrokerError::io(home.dir(), &e))?;
        let in_charge = files.pop().ok_or(BrokerError::Missing)?;
        let db = Db::open(&in_charge, patience.database, Use::Look)?;
        let retiring = files.pop().map(|path| Db::open(&path, patience.database, Use::Look)).transpose()?;
        Ok(Broker { home: Some(home.clone()), db, retiring, patience, repeats: Repeats::default() })
    }

    /// Like [`Broker::look`], at one file, wherever it lies.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn look_at_file(path: &Path, patience: Patience) -> Result<Broker, BrokerError> {
        let db = Db::open(path, patience.database, Use::Look)?;
        Ok(Broker { home: None, db, retiring: None, patience, repeats: Repeats::default() })
    }

    /// Bounds what SQLite keeps in memory of all databases that this process has open. Caches that would grow beyond it
    /// drop other pages first; what a statement cannot do without is not refused.
    pub fn bound_caches(bytes: u64) {
        // The limit is one of the whole process, whatever connection it is set through.
        let set = Connection::open_in_memory()
            .and_then(|conn| conn.query_row(&format!("PRAGMA soft_heap_limit = {bytes}"), [], |_| Ok(())));
        // Without it each cache is still bounded by itself.
        set.unwrap_or_else(|error| log::warn!("SQLite's caches have no common bound: {error}"));
    }

    /// Creates a container that is not there yet, whole or not at all (`swift/common/db.py: initialize`).
    ///
    /// # Errors
    /// `Exists` if it is there; `Busy` if the directory's lock was not to be had; `Io`.
    pub fn create(
        home: &HashDir,
        account: &str,
        container: &str,
        put_timestamp: Timestamp,
        policy: PolicyIndex,
        id: &ReplicaId,
        now: Timestamp,
    ) -> Result<Broker, BrokerError> {
        let dir = home.dir();
        let failed = |error: &std::io::Error| BrokerError::io(dir, error);
        home.create().map_err(|e| failed(&e))?;
        let staged = tempfile::Builder::new()
            .prefix("tmp")
            .rand_bytes(8)
            .suffix(".tmp")
            .tempfile_in(dir)
            .map_err(|e| failed(&e))?
            .into_temp_path();
        let fill = || -> Result<(), Fault> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut conn = db::connect(&staged, flags, Duration::ZERO)?;
            // Nobody sees the file yet, and it is synced once, below.
            conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")?;
            let transaction = conn.transaction()?;
            schema::create(&transaction)?;
            transaction.execute("INSERT INTO policy_stat (storage_policy_index) VALUES (?)", [policy.0])?;
            transaction.execute(
                "INSERT INTO container_info (account, container, created_at, id, put_timestamp, status_changed_at,
                    storage_policy_index) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)",
                params![
                    account,
                    container,
                    now.to_string(),
                    id.as_str(),
                    put_timestamp.to_string(),
                    policy.0
                ],
            )?;
            transaction.commit()?;
            Ok(())
        };
        fill().map_err(|fault| fault.at(&staged))?;
        File::open(&staged).and_then(|file| file.sync_all()).map_err(|e| failed(&e))?;
        let path = dir.join(format!("{}.db", home.hash()));
        {
            let _lock = home.lock(Patience::default().directory)?;
            if !home.db_files().map_err(|e| failed(&e))?.is_empty() {
                return Err(BrokerError::Exists { path });
            }
            // What a database that is gone left behind would be rolled back into this one.
            match fs::remove_file(journal_path(&path)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
                _ => staged.persist_noclobber(&path).map_err(|e| BrokerError::io(&path, &e.error))?,
            }
            home.sync().map_err(|e| failed(&e))?;
        }
        Broker::open(home)
    }

    /// Steps back between two of many transactions if others write too. They poll for SQLite's lock with growing pauses
    /// (Swift up to 50 ms) and would hardly ever meet it free if we took it again at once.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn give_way(&mut self) -> Result<(), BrokerError> {
        if self.db.written_by_others()? {
            thread::sleep(STEP_BACK);
        }
        Ok(())
    }

    /// Lets SQLite keep so many bytes of pages more than usual. A transaction that changes more pages than are kept writes
    /// them, and syncs the journal, several times over.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn widen_cache(&mut self, bytes: u64) -> Result<(), BrokerError> {
        self.db.widen_cache(bytes)
    }

    /// The file in charge.
    pub fn path(&self) -> &Path {
        self.db.path()
    }

    /// The file that retires while the container is being sharded.
    pub fn retiring_path(&self) -> Option<&Path> {
        self.retiring.as_ref().map(Db::path)
    }

    /// Opens anew what the directory holds now.
    fn reopen(&mut self) -> Result<(), BrokerError> {
        if let Some(home) = &self.home {
            *self = Broker::open_patiently(home, self.patience)?;
        }
        Ok(())
    }

    /// Checks that a file of our own holds what it should before it takes a database's place: this container, and pages,
    /// tables and indices that fit together. Reads the whole file.
    ///
    /// # Errors
    /// `Damaged` if it does not hold together, `BadData` if it is another container's; otherwise as [`Broker::info`].
    pub fn verify(&mut self, account: &str, container: &str) -> Result<(), BrokerError> {
        self.db.read(|conn, schema| {
            let stat = Stat::read(conn, schema)?;
            if (stat.account.as_str(), stat.container.as_str()) != (account, container) {
                let found = format!("{}/{}", stat.account, stat.container);
                return Err(Fault::BadData(format!(
                    "it is the database of {found}, not of {account}/{container}"
                )));
            }
            let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
        })
    }

    /// All that this replica says of itself, of one moment, pending rows taken in first
    /// (`swift/container/backend.py: get_replication_info`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn info(&mut self) -> Result<ReplicaInfo, BrokerError> {
        self.flush_pending()?;
        self.stored_info()
    }

    /// The same without the pending rows.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn stored_info(&mut self) -> Result<ReplicaInfo, BrokerError> {
        let retiring = self.retiring_counts()?;
        let place = self.place();
        let file_bytes = fs::metadata(self.path()).map_err(|e| BrokerError::io(self.path(), &e))?.len();
        self.db.read(|conn, schema| {
            let stat = Stat::read(conn, schema)?;
            let ranges = RangeSummary::read(conn, schema)?;
            let (count, bytes_used) = place.counts(conn, schema, &ranges, retiring)?;
            let db_state = place.state(&ranges);
            let sharding_initiated = ranges.sharding_initiated();
            Ok(ReplicaInfo {
                id: ReplicaId::new(stat.id)
                    .ok_or_else(|| Fault::BadData("its id could be none".to_owned()))?,
                account: stat.account,
                container: stat.container,
                created_at: stat.created_at,
                put_timestamp: stat.put_timestamp,
                delete_timestamp: stat.delete_timestamp,
                status_changed_at: stat.status_changed_at,
                storage_policy_index: stat.storage_policy_index,
                count,
                bytes_used,
                hash: RowHash::parse(&stat.hash).ok_or_else(|| {
                    Fault::BadData(format!("its hash is not 32 hex digits: {:?}", stat.hash))
                })?,
                max_row: rows::sequence(conn, "object")?,
                shard_max_row: rows::sequence(conn, "shard_range")?,
                metadata: parsed(&stat.metadata)?,
                db_state,
                sharding_initiated,
                sharding_required: db_state == DbState::Sharding
                    || (db_state == DbState::Unsharded && sharding_initiated),
                ranges_digest: ranges.digest.to_le_bytes(),
                file_bytes,
                page_bytes: conn.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))?,
            })
        })
    }

    /// Is the container no shard of another? (`swift/container/backend.py: is_root_container`)
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn is_root(&mut self) -> Result<bool, BrokerError> {
        self.db.read(|conn, schema| lifecycle::is_root(conn, schema, &RangeSummary::read(conn, schema)?))
    }

    /// Objects and bytes of each policy that ever had rows (`swift/container/backend.py: get_policy_stats`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn policy_totals(&mut self) -> Result<Vec<(PolicyIndex, i64, i64)>, BrokerError> {
        self.db.read(|conn, schema| {
            let sql = match schema.policies {
                true => "SELECT storage_policy_index, object_count, bytes_used FROM policy_stat ORDER BY 1",
                false => "SELECT 0, object_count, bytes_used FROM container_stat",
            };
            let mut statement = conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut totals = Vec::new();
            while let Some(row) = rows.next()? {
                totals.push((PolicyIndex(number(row, 0)?), number(row, 1)?, number(row, 2)?));
            }
            Ok(totals)
        })
    }

    /// How far a peer's database and ours have got with each other, -1 if nothing is known
    /// (`swift/common/db.py: get_sync`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn sync_point(&mut self, peer: &ReplicaId, direction: Direction) -> Result<RowId, BrokerError> {
        self.db.read(|conn, _| {
            let sql = format!("SELECT sync_point FROM {} WHERE remote_id = ?", table(direction));
            let mut statement = conn.prepare_cached(&sql)?;
            let mut found = statement.query([peer.as_str()])?;
            Ok(found.next()?.map(read_point).transpose()?.unwrap_or(RowId::NONE))
        })
    }

    /// All sync points of one direction (`swift/common/db.py: get_syncs`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn sync_points(&mut self, direction: Direction) -> Result<Vec<SyncPoint>, BrokerError> {
        self.db.read(|conn, _| {
            let sql = format!("SELECT sync_point, remote_id FROM {} ORDER BY remote_id", table(direction));
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let mut points = Vec::new();
            while let Some(row) = rows.next()? {
                // An id that could be none is of no peer that we can meet.
                if let Some(remote_id) = ReplicaId::new(text(row, 1)?) {
                    points.push(SyncPoint { remote_id, point: read_point(row)? });
                }
            }
            Ok(points)
        })
    }

    /// Raises sync points; none falls (`swift/common/db.py: merge_syncs`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn merge_sync_points(
        &mut self,
        points: &[SyncPoint],
        direction: Direction,
    ) -> Result<(), BrokerError> {
        if points.is_empty() {
            return Ok(());
        }
        self.db.write(|conn, _| {
            points
                .iter()
                .try_for_each(|point| raise_sync_point(conn, table(direction), &point.remote_id, point.point))
        })
    }

    /// Sets a sync point, up or down: for one that promises rows that are not there.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn set_sync_point(
        &mut self,
        peer: &ReplicaId,
        point: RowId,
        direction: Direction,
    ) -> Result<(), BrokerError> {
        self.db.write(|conn, _| replace_sync_point(conn, table(direction), peer, point))
    }

    /// The container's metadata, deleted keys included.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn metadata(&mut self) -> Result<Metadata, BrokerError> {
        self.db.read(metadata)
    }

    /// Takes over what is newer. Writes nothing if nothing is (`swift/common/db.py: update_metadata`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn merge_metadata(&mut self, theirs: &Metadata) -> Result<(), BrokerError> {
        let news = self
            .db
            .read(|conn, schema| Ok(merge::merge_metadata(&metadata(conn, schema)?, theirs).is_some()))?;
        if !news {
            return Ok(());
        }
        self.db.write(|conn, schema| match merge::merge_metadata(&metadata(conn, schema)?, theirs) {
            Some(merged) => store_metadata(conn, schema, &merged),
            None => Ok(()),
        })
    }

    /// Up to which row the reconciler's queue has been filled (`swift/container/backend.py: get_reconciler_sync`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn reconciler_point(&mut self) -> Result<RowId, BrokerError> {
        self.db.read(|conn, schema| match schema.policies {
            true => the_row(conn, "SELECT reconciler_sync_point FROM container_stat", read_point),
            false => Ok(RowId::NONE),
        })
    }

    /// Sets it (`swift/container/backend.py: update_reconciler_sync`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn set_reconciler_point(&mut self, point: RowId) -> Result<(), BrokerError> {
        self.db.write(|conn, schema| {
            schema.add_policies(conn)?;
            conn.execute("UPDATE container_stat SET reconciler_sync_point = ?", [point.0])?;
            Ok(())
        })
    }

    /// Sets how far container sync has got (`swift/container/backend.py: set_x_container_sync_points`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn set_container_sync_points(&mut self, first: RowId, second: RowId) -> Result<(), BrokerError> {
        self.db.write(|conn, schema| {
            schema.add_container_sync(conn)?;
            let sql = "UPDATE container_stat SET x_container_sync_point1 = ?, x_container_sync_point2 = ?";
            conn.execute(sql, [first.0, second.0])?;
            Ok(())
        })
    }

    /// Makes a file that arrived from `sender` a replica of its own: a new id, all of the sender's rows known to be here,
    /// and the account to be told again (`swift/common/db.py: newid`).
    ///
    /// To be called before any other row is merged into the file: the point is the greatest number present, and must not
    /// promise rows of ours as the sender's.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn new_id(&mut self, sender: &ReplicaId, new: ReplicaId) -> Result<(), BrokerError> {
        self.db.write(|conn, _| {
            let last =
                conn.query_row("SELECT MAX(ROWID) FROM object", [], |row| row.get::<_, Option<i64>>(0))?;
            replace_sync_point(conn, "incoming_sync", sender, last.map_or(RowId::NONE, RowId))?;
            conn.execute(
                "UPDATE container_stat SET id = ?, reported_put_timestamp = 0, reported_delete_timestamp = 0,
                    reported_object_count = 0, reported_bytes_used = 0",
                [new.as_str()],
            )?;
            Ok(())
        })
    }

    /// Takes over what the replica that this file will replace knew besides its rows: its incoming sync points, its shard
    /// ranges and its metadata (`swift/common/db_replicator.py: rsync_then_merge`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn adopt_incoming(&mut self, replaced: &mut Broker) -> Result<(), BrokerError> {
        self.merge_sync_points(&replaced.sync_points(Direction::Incoming)?, Direction::Incoming)?;
        self.merge_shard_ranges(replaced.shard_ranges()?)?;
        self.merge_metadata(&replaced.metadata()?)
    }

    fn place(&self) -> Place {
        let name = self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let epoch = self.home.as_ref().and_then(|_| DbFileName::parse(name).epoch);
        Place { sharding: self.retiring.is_some(), epoch: epoch.map(str::to_owned) }
    }

    /// Objects and bytes of the retiring file, which count while there is one.
    fn retiring_counts(&mut self) -> Result<Option<(i64, i64)>, BrokerError> {
        self.retiring.as_mut().map(|retiring| retiring.read(stored_counts)).transpose()
    }
}

/// What the files' names tell of a container's state.
#[derive(Debug)]
struct Place {
    sharding: bool,
    epoch: Option<String>,
}

impl Place {
    /// `swift/container/backend.py: get_db_state`
    fn state(&self, ranges: &RangeSummary) -> DbState {
        let same_time = |a: &str, b: &str| match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => a == b,
        };
        let own_epoch = ranges.own.as_ref().and_then(|own| own.epoch.as_ref());
        match (&self.epoch, own_epoch) {
            _ if self.sharding => DbState::Sharding,
            (Some(file), Some(own)) if same_time(file, own.as_str()) => match ranges.others {
                true => DbState::Sharded,
                false => DbState::Collapsed,
            },
            _ => DbState::Unsharded,
        }
    }

    /// The objects and bytes that a client is told of (`swift/container/backend.py: _get_alternate_object_stats`).
    /// `retiring` are those of the retiring file.
    fn counts(
        &self,
        conn: &Connection,
        schema: &Schema,
        ranges: &RangeSummary,
        retiring: Option<(i64, i64)>,
    ) -> Result<(i64, i64), Fault> {
        match retiring {
            Some(counts) => Ok(counts),
            None if self.state(ranges) == DbState::Sharded && lifecycle::is_root(conn, schema, ranges)? => {
                Ok(ranges.usage)
            }
            None => stored_counts(conn, schema),
        }
    }
}

/// A database's own facts about itself, as stored.
struct Stat {
    account: String,
    container: String,
    created_at: Stamp,
    put_timestamp: Stamp,
    delete_timestamp: Stamp,
    status_changed_at: Stamp,
    hash: String,
    id: String,
    storage_policy_index: PolicyIndex,
    metadata: String,
}

impl Stat {
    fn read(conn: &Connection, schema: &Schema) -> Result<Stat, Fault> {
        let policy = if schema.policies { "storage_policy_index" } else { "0" };
        let metadata = if schema.metadata { "metadata" } else { "''" };
        let sql = format!(
            "SELECT account, container, created_at, put_timestamp, delete_timestamp, status_changed_at, hash, id, {policy},
                {metadata} FROM {}",
            schema.facts()
        );
        the_row(conn, &sql, |row| {
            Ok(Stat {
                account: text(row, 0)?,
                container: text(row, 1)?,
                created_at: Stamp::stored(text(row, 2)?),
                put_timestamp: Stamp::stored(text(row, 3)?),
                delete_timestamp: Stamp::stored(text(row, 4)?),
                status_changed_at: Stamp::stored(text(row, 5)?),
                hash: text(row, 6)?,
                id: text(row, 7)?,
                storage_policy_index: PolicyIndex(number(row, 8)?),
                metadata: text(row, 9)?,
            })
        })
    }
}

/// The only row of a query on the container's info. Without it the database is worth nothing.
fn the_row<T>(
    conn: &Connection,
    sql: &str,
    read: impl FnOnce(&rusqlite::Row<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    read(rows.next()?.ok_or_else(|| Fault::Damaged("its info row is missing".to_owned()))?)
}

fn stored_counts(conn: &Connection, schema: &Schema) -> Result<(i64, i64), Fault> {
    // What the view would say. SQLite takes longer to work out what the view means than to answer.
    let sql = match schema.policies {
        true => "SELECT coalesce(object_count, 0), coalesce(bytes_used, 0) FROM container_info LEFT JOIN policy_stat
            USING (storage_policy_index)",
        false => "SELECT object_count, bytes_used FROM container_stat",
    };
    the_row(conn, sql, |row| Ok((number(row, 0)?, number(row, 1)?)))
}

/// `account/container`, which is also the name of the container's own shard range.
fn container_path(conn: &Connection, schema: &Schema) -> Result<String, Fault> {
    the_row(conn, &format!("SELECT account, container FROM {}", schema.facts()), |row| {
        Ok(format!("{}/{}", text(row, 0)?, text(row, 1)?))
    })
}

fn metadata(conn: &Connection, schema: &Schema) -> Result<Metadata, Fault> {
    if !schema.metadata {
        return Ok(Metadata::default());
    }
    parsed(&the_row(conn, &format!("SELECT metadata FROM {}", schema.facts()), |row| text(row, 0))?)
}

fn parsed(metadata: &str) -> Result<Metadata, Fault> {
    merge::parse_metadata(metadata).map_err(|bad| Fault::BadData(bad.to_string()))
}

fn store_metadata(conn: &Connection, schema: &mut Schema, metadata: &Metadata) -> Result<(), Fault> {
    schema.add_metadata(conn)?;
    conn.execute("UPDATE container_stat SET metadata = ?", [merge::print_metadata(metadata)])?;
    Ok(())
}

fn table(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming_sync",
        Direction::Outgoing => "outgoing_sync",
    }
}

/// A row number in the first column; nothing there is nothing known.
fn read_point(row: &rusqlite::Row<'_>) -> Result<RowId, Fault> {
    Ok(row.get::<_, Option<i64>>(0)?.map_or(RowId::NONE, RowId))
}

fn raise_sync_point(conn: &Connection, table: &str, peer: &ReplicaId, point: RowId) -> Result<(), Fault> {
    let sql = format!("UPDATE {table} SET sync_point = max(?, sync_point) WHERE remote_id = ?");
    if conn.prepare_cached(&sql)?.execute(params![point.0, peer.as_str()])? == 0 {
        let sql = format!("INSERT INTO {table} (sync_point, remote_id) VALUES (?, ?)");
        conn.prepare_cached(&sql)?.execute(params![point.0, peer.as_str()])?;
    }
    Ok(())
}

fn replace_sync_point(conn: &Connection, table: &str, peer: &ReplicaId, point: RowId) -> Result<(), Fault> {
    let sql = format!("INSERT OR REPLACE INTO {table} (sync_point, remote_id) VALUES (?, ?)");
    conn.prepare_cached(&sql)?.execute(params![point.0, peer.as_str()])?;
    Ok(())
}

/// A new id for a database on `device`: a random UUID, then the device's name, as Swift makes them
/// (`swift/common/db.py: _new_db_id`).
pub fn fresh_id(device: &str) -> ReplicaId {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the kernel has randomness");
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    ReplicaId::new(format!("{uuid}-{device}")).or_else(|| ReplicaId::new(uuid)).expect("a UUID is a sound id")
}

/// Databases for the tests of this room.
/// How long [`Broker::give_way`] steps back.
const STEP_BACK: Duration = Duration::from_millis(40);

#[cfg(test)]
mod testing {
    use super::*;
    use crate::hash_path::Partition;
    use crate::replica::Row;

    pub(super) fn home() -> (tempfile::TempDir, HashDir) {
        let device = tempfile::tempdir().unwrap();
        let hash = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let home = HashDir::new(device.path().into(), Partition(0), hash);
        (device, home)
    }

    /// When these tests begin, in seconds since 1970.
    pub(super) const START_SECS: f64 = 1.75e9;

    pub(super) fn time(seconds: u64) -> Timestamp {
        Timestamp::new((START_SECS as u64 + seconds) * 100_000, 0).unwrap()
    }

    pub(super) fn created(home: &HashDir) -> Broker {
        let broker = Broker::create(home, "a", "c", time(1), PolicyIndex(0), &fresh_id("sda1"), time(2));
        Broker { patience: impatient(), ..broker.unwrap() }
    }

    /// Patience for tests that wait in vain.
    pub(super) fn impatient() -> Patience {
        Patience { database: Duration::from_millis(50), directory: Duration::from_millis(50) }
    }

    pub(super) fn row(name: &str, seconds: u64) -> Row {
        Row {
            row_id: None,
            name: name.to_owned(),
            created_at: time(seconds).to_string(),
            size: 3,
            content_type: "text/plain".to_owned(),
            etag: "e".to_owned(),
            deleted: 0,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    pub(super) fn tombstone(name: &str, seconds: u64) -> Row {
        let (content_type, etag) = ("application/deleted".to_owned(), "noetag".to_owned());
        Row { size: 0, content_type, etag, deleted: 1, ..row(name, seconds) }
    }

    /// A connection that somebody else has to the same file.
    pub(super) fn other(path: &Path) -> Connection {
        Connection::open(path).unwrap()
    }

    pub(super) fn names(broker: &mut Broker) -> Vec<String> {
        broker.rows_after(RowId::NONE, 1 << 20).unwrap().into_iter().map(|row| row.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::testing::*;
    use super::*;

    #[test]
    fn a_new_database_is_there_whole_and_alone() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let info = broker.info().unwrap();
        assert_eq!((info.account.as_str(), info.container.as_str()), ("a", "c"));
        assert_eq!((info.created_at, info.put_timestamp.clone()), (time(2).into(), time(1).into()));
        assert_eq!(info.status_changed_at, info.put_timestamp);
        assert_eq!((info.max_row, info.shard_max_row), (RowId::NONE, RowId::NONE));
        assert_eq!(info.file_bytes, 13 * 4096, "as long as Swift's");
        assert_eq!(broker.policy_totals().unwrap(), [(PolicyIndex(0), 0, 0)]);
        let names: Vec<_> =
            fs::read_dir(home.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::metadata(broker.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_database_that_is_there_is_not_created_again() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(vec![row("o", 3)], None).unwrap();
        let again = Broker::create(&home, "a", "c", time(1), PolicyIndex(0), &fresh_id("sda1"), time(2));
        assert!(matches!(again, Err(BrokerError::Exists { .. })), "{again:?}");
        assert_eq!(testing::names(&mut broker), ["o"]);
        assert_eq!(fs::read_dir(home.dir()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn the_journal_of_a_database_that_is_gone_does_not_touch_a_new_one() {
        let (_device, home) = home();
        home.create().unwrap();
        let journal = home.dir().join(format!("{}.db-journal", home.hash()));
        fs::write(&journal, "of another time").unwrap();
        created(&home).info().unwrap();
        assert!(!journal.exists());
    }

    #[test]
    fn a_fresh_id_is_a_random_uuid_and_the_device() {
        let id = fresh_id("sda1").as_str().to_owned();
        let (uuid, device) = id.split_at(36);
        assert_eq!(device, "-sda1");
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(uuid.chars().nth(14) == Some('4') && "89ab".contains(&uuid[19..20]), "{uuid}");
        assert_ne!(fresh_id("sda1"), fresh_id("sda1"));
        assert_eq!(fresh_id("no/device").as_str().len(), 36);
    }

    #[test]
    fn a_file_is_verified_to_be_this_container_and_to_hold_together() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows((0..500).map(|at| row(&format!("o{at:04}"), 3)).collect(), None).unwrap();
        let path = broker.path().to_owned();
        drop(broker);
        Broker::open_file(&path).unwrap().verify("a", "c").unwrap();
        let other = Broker::open_file(&path).unwrap().verify("a", "d");
        assert!(matches!(other, Err(BrokerError::BadData { .. })), "{other:?}");
        let mut bytes = fs::read(&path).unwrap();
        // The index's last page: rows can still be read, but the index no longer agrees with them.
        let end = bytes.len();
        bytes[end - 4096..end - 2048].fill(0xff);
        fs::write(&path, bytes).unwrap();
        let damaged = Broker::open_file(&path).and_then(|mut broker| broker.verify("a", "c"));
        assert!(damaged.as_ref().is_err_and(BrokerError::is_damage), "{damaged:?}");
    }

    #[test]
    fn a_private_file_has_no_pending_file() {
        let (_device, home) = home();
        let path = created(&home).path().to_owned();
        fs::write(home.pending_path(), ":garbage").unwrap();
        let mut broker = Broker::open_file(&path).unwrap();
        broker.info().unwrap();
        assert_eq!(fs::read(home.pending_path()).unwrap(), b":garbage");
        assert!(matches!(broker.put_record(row("o", 3)), Err(BrokerError::BadData { .. })));
    }

    #[test]
    fn a_point_that_promised_too_much_can_be_lowered() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let peer = fresh_id("sdb1");
        for direction in [Direction::Incoming, Direction::Outgoing] {
            let point = |point| SyncPoint { remote_id: peer.clone(), point: RowId(point) };
            broker.merge_sync_points(&[point(9), point(7)], direction).unwrap();
            assert_eq!(broker.sync_point(&peer, direction).unwrap(), RowId(9));
            broker.set_sync_point(&peer, RowId(5), direction).unwrap();
            assert_eq!(broker.sync_points(direction).unwrap(), [point(5)]);
        }
    }

    #[test]
    fn an_arrived_file_takes_over_what_the_replaced_one_knew() {
        let ((_device_a, home_a), (_device_b, home_b)) = (home(), home());
        let (mut arrived, mut ours) = (created(&home_a), created(&home_b));
        let (sender, third) = (fresh_id("sda1"), fresh_id("sdc1"));
        arrived.merge_rows(vec![row("o", 3), row("p", 3)], None).unwrap();
        let point = SyncPoint { remote_id: third, point: RowId(8) };
        ours.merge_sync_points(std::slice::from_ref(&point), Direction::Incoming).unwrap();
        let metadata = merge::parse_metadata(r#"{"X-Container-Meta-A": ["1", "0000000003.00000"]}"#).unwrap();
        ours.merge_metadata(&metadata).unwrap();
        let new = fresh_id("sdb1");
        arrived.new_id(&sender, new.clone()).unwrap();
        arrived.adopt_incoming(&mut ours).unwrap();
        assert_eq!(arrived.info().unwrap().id, new);
        assert_eq!(arrived.sync_point(&sender, Direction::Incoming).unwrap(), RowId(2));
        assert_eq!(arrived.sync_point(&point.remote_id, Direction::Incoming).unwrap(), point.point);
        assert_eq!(arrived.metadata().unwrap(), metadata);
    }
}
