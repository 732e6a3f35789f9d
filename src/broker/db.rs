//! One SQLite file, opened the way Swift opens it.
//!
//! Swift's daemons share these files with us, so the settings follow `swift/common/db.py: get_db_connection`: rollback
//! journal, `synchronous = NORMAL`, and the function `chexor`, without which the triggers fail. What we add protects us
//! from the file: opening never creates or converts one, its schema may call nothing but innocuous functions, and no
//! value in it may be longer than [`VALUE_LIMIT_BYTES`].
//!
//! Every look at a file is one transaction, because a summary put together from several moments would compare as a
//! difference that is not there. Every change begins `IMMEDIATE`: two writers that both read first and then want to
//! write would wait for each other until one gives up.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};

use super::fault::{BrokerError, Fault};
use super::schema::Schema;
use crate::drive::{OpenGuard, opening};
use crate::replica::RowHash;

/// Who knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A container's database in its place.
    Shared,
    /// A file of our own.
    Private,
    /// Somebody's, only to be looked at.
    Look,
}

/// One open file.
pub(super) struct Db {
    // Dropped in this order: the guard must outlive the connection.
    conn: Connection,
    _guard: OpenGuard,
    path: PathBuf,
    inode: (u64, u64),
    usage: Use,
    schema: Schema,
    schema_version: i64,
    /// What SQLite counts others' commits by, as last seen.
    data_version: i64,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens a file that is there. Waits up to `busy` for other connections' locks, now and in every transaction.
    pub(super) fn open(path: &Path, busy: Duration, usage: Use) -> Result<Db, BrokerError> {
        let inode = inode(path)?;
        let guard = opening(path);
        let access = match usage {
            Use::Look => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Use::Shared | Use::Private => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // It may have been removed since: then that is what is to be told.
        let conn = connect(path, flags, busy).map_err(|fault| match path.exists() {
            true => fault.at(path),
            false => BrokerError::Missing,
        })?;
        let (path, schema) = (path.to_owned(), Schema::default());
        let mut db =
            Db { conn, _guard: guard, path, inode, usage, schema, schema_version: -1, data_version: 0 };
        db.read(|_, _| Ok(()))?;
        if usage == Use::Private {
            // Thrown away if anything goes wrong, and synced as a whole before it is put to use.
            db.conn
                .execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")
                .map_err(|e| db.fault(e.into()))?;
        }
        let mode: String =
            db.conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(|e| db.fault(e.into()))?;
        if mode == "wal" {
            return Err(db.fault(Fault::BadData("it is in WAL mode, which Swift never uses".to_owned())));
        }
        Ok(db)
    }

    /// Did anybody else write since this was asked last? Not known, hence no, the first time.
    pub(super) fn written_by_others(&mut self) -> Result<bool, BrokerError> {
        let version = self.conn.query_row("PRAGMA data_version", [], |row| row.get(0));
        let version: i64 = version.map_err(|e| self.fault(e.into()))?;
        let before = std::mem::replace(&mut self.data_version, version);
        Ok(before != 0 && before != version)
    }

    /// Keeps so many bytes of pages beyond the usual.
    pub(super) fn widen_cache(&mut self, bytes: u64) -> Result<(), BrokerError> {
        let kib = u64::from(CACHE_KIB) + bytes / 1024;
        self.conn.execute_batch(&format!("PRAGMA cache_size = -{kib}")).map_err(|e| self.fault(e.into()))
    }

    /// One look, in one transaction that sees one moment.
    pub(super) fn read<T>(
        &mut self,
        look: impl FnOnce(&Connection, &Schema) -> Result<T, Fault>,
    ) -> Result<T, BrokerError> {
        self.transaction(TransactionBehavior::Deferred, |conn, schema| look(conn, schema))
    }

    /// One change: all of it, or none.
    ///
    /// Others may rename another file over this one while we have it open, and what we write then goes with the old. SQLite
    /// looks before it writes; we look again after. Who replaces a file takes his last look under SQLite's lock, so if the
    /// name still stands the change was seen; if not, it does not count.
    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&Connection, &mut Schema) -> Result<T, Fault>,
    ) -> Result<T, BrokerError> {
        let done = self.transaction(TransactionBehavior::Immediate, change)?;
        if self.usage == Use::Shared && inode(&self.path)? != self.inode {
            return Err(BrokerError::Busy { path: self.path.clone() });
        }
        Ok(done)
    }

    fn transaction<T>(
        &mut self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Connection, &mut Schema) -> Result<T, Fault>,
    ) -> Result<T, BrokerError> {
        let attempt = || {
            let transaction = self.conn.transaction_with_behavior(behavior)?;
            // Swift's servers migrate old databases under our eyes.
            let version =
                transaction.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
            if version != self.schema_version {
                self.schema = Schema::read(&transaction)?;
                self.schema_version = version;
            }
            let done = work(&transaction, &mut self.schema)?;
            transaction.commit()?;
            Ok(done)
        };
        attempt().map_err(|fault: Fault| {
            self.schema_version = -1;
            fault.at(&self.path)
        })
    }

    /// Is the open file still the one that its path names? Others replace files by renaming over them.
    pub(super) fn is_current(&self) -> bool {
        inode(&self.path) == Ok(self.inode)
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A fault, with this file's path.
    pub(super) fn fault(&self, fault: Fault) -> BrokerError {
        fault.at(&self.path)
    }
}

/// Device and inode of a regular file; a link or a directory in a database's place is refused.
fn inode(path: &Path) -> Result<(u64, u64), BrokerError> {
    let meta = fs::symlink_metadata(path).map_err(|e| BrokerError::io(path, &e))?;
    if !meta.is_file() {
        return Err(Fault::BadData("it is no regular file".to_owned()).at(path));
    }
    Ok((meta.dev(), meta.ino()))
}

/// A connection with every setting made that does not touch the file.
pub(super) fn connect(path: &Path, flags: OpenFlags, busy: Duration) -> Result<Connection, Fault> {
    // SQLite reads a relative `file:...` as a URI with options.
    let anchored = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let conn = Connection::open_with_flags(anchored, flags)?;
    // SQLite's own waiting (1 ms, growing to 100 ms) has the shape of Swift's, and gives way to it a little.
    conn.busy_timeout(busy)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES)?;
    conn.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cache_size = -{CACHE_KIB};"
    ))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("chexor", 3, flags, chexor)?;
    Ok(conn)
}

/// `swift/common/db.py: chexor`, for the triggers.
fn chexor(context: &Context<'_>) -> rusqlite::Result<String> {
    let argument = |index: usize| -> rusqlite::Result<&str> {
        let text = context.get_raw(index).as_str();
        text.map_err(|_| rusqlite::Error::UserFunctionError("chexor takes text only".into()))
    };
    let Some(mut hash) = RowHash::parse(argument(0)?) else {
        return Err(rusqlite::Error::UserFunctionError("the stored hash is not 32 hex digits".into()));
    };
    hash.mix(argument(1)?, argument(2)?);
    Ok(hash.to_string())
}

/// A column as text. SQLite columns hold what was put in them, whatever they are declared as.
pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(String::new()),
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Text(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| unreadable(row, column)),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(unreadable(row, column)),
    }
}

/// A column as a number; nothing counts as 0, and sums that overflowed into a float are cut back.
pub(super) fn number(row: &Row<'_>, column: usize) -> Result<i64, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(0),
        ValueRef::Integer(number) => Ok(number),
        ValueRef::Real(number) => Ok(number as i64),
        ValueRef::Text(b"") => Ok(0),
        ValueRef::Text(_) | ValueRef::Blob(_) => Err(unreadable(row, column)),
    }
}

fn unreadable(row: &Row<'_>, column: usize) -> Fault {
    let name = row.as_ref().column_name(column).unwrap_or("?");
    Fault::BadData(format!("column {name} holds something of another type"))
}

/// The most bytes of one value or row; the longest that Swift writes is a container's metadata, some tens of KiB.
const VALUE_LIMIT_BYTES: i32 = 4 * 1024 * 1024;

/// SQLite's page cache per open file.
const CACHE_KIB: u32 = 2000;

/// Prepared statements kept per open file: a few more than there are.
const STATEMENTS_KEPT: usize = 48;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Instant;

    use super::super::testing::{created, home, impatient, names, other, row};
    use super::super::{Broker, Direction};
    use super::*;
    use crate::replica::{RowId, SyncPoint};

    #[test]
    fn opening_creates_nothing_and_takes_no_stand_in_for_a_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let open = |name: &str| Broker::open_file(&path(name)).map(|_| ());
        assert_eq!(open("missing.db"), Err(BrokerError::Missing));
        assert!(!path("missing.db").exists());
        fs::write(path("empty.db"), "").unwrap();
        assert!(open("empty.db").unwrap_err().is_damage());
        assert_eq!(fs::metadata(path("empty.db")).unwrap().len(), 0);
        fs::write(path("garbage.db"), "no database ".repeat(1000)).unwrap();
        assert!(open("garbage.db").unwrap_err().is_damage());
        fs::create_dir(path("directory.db")).unwrap();
        assert!(matches!(open("directory.db"), Err(BrokerError::BadData { .. })));
        symlink(path("empty.db"), path("link.db")).unwrap();
        assert!(matches!(open("link.db"), Err(BrokerError::BadData { .. })));
    }

    #[test]
    fn a_database_in_wal_mode_is_refused_and_stays_as_it_is() {
        let (_device, home) = home();
        let path = created(&home).path().to_owned();
        other(&path).pragma_update(None, "journal_mode", "wal").unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(Broker::open(&home), Err(BrokerError::BadData { .. })));
        assert!(fs::read(&path).unwrap() == before);
    }

    #[test]
    fn commits_of_others_are_noticed_and_ours_are_not() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let mut noticed = move || broker.db.written_by_others().unwrap();
        assert!(!noticed());
        let mut ours = Broker::open(&home).unwrap();
        assert!(!ours.db.written_by_others().unwrap());
        ours.delete_db(crate::timestamp::Timestamp::new(175_000_000_000_000, 0).unwrap()).unwrap();
        assert!(!ours.db.written_by_others().unwrap(), "our own commit");
        assert!(noticed(), "another's commit");
        assert!(!noticed(), "told once");
    }

    #[test]
    fn a_lock_of_somebody_else_is_waited_for_and_then_told() {
        let (_device, home) = home();
        created(&home);
        let mut broker = Broker::open_patiently(&home, impatient()).unwrap();
        let writer = other(broker.path());
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let start = Instant::now();
        assert!(matches!(broker.merge_rows(vec![row("o", 3)], None), Err(BrokerError::Busy { .. })));
        assert!(start.elapsed() >= impatient().database / 2);
        assert_eq!(names(&mut broker), [""; 0], "who only writes lets others read");
        writer.execute_batch("COMMIT; BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(broker.info(), Err(BrokerError::Busy { .. })));
        assert!(matches!(Broker::open_patiently(&home, impatient()), Err(BrokerError::Busy { .. })));
        writer.execute_batch("COMMIT").unwrap();
        broker.merge_rows(vec![row("o", 3)], None).unwrap();
    }

    #[test]
    fn a_broker_holds_no_lock_between_two_calls() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(vec![row("o", 3)], None).unwrap();
        broker.info().unwrap();
        broker.rows_after(RowId::NONE, 1).unwrap();
        other(broker.path()).execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
    }

    #[test]
    fn a_failing_disk_is_no_damage() {
        let failure = |code| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            Fault::Sqlite(error).at(Path::new("x.db"))
        };
        for code in [10, 10 | 1 << 8, 13, 14, 8] {
            assert!(matches!(failure(code), BrokerError::Io { .. }), "{code}: {:?}", failure(code));
        }
        for code in [11, 26] {
            assert!(failure(code).is_damage(), "{code}");
        }
        for code in [5, 6] {
            assert!(matches!(failure(code), BrokerError::Busy { .. }), "{code}");
        }
    }

    #[test]
    fn what_is_written_to_a_replaced_file_does_not_count() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let (path, aside) = (broker.path().to_owned(), home.dir().join("aside"));
        fs::copy(&path, &aside).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert!(matches!(broker.merge_rows(vec![row("o", 3)], None), Err(BrokerError::Busy { .. })));
        let point = SyncPoint { remote_id: super::super::fresh_id("x"), point: RowId(1) };
        assert!(broker.merge_sync_points(&[point], Direction::Incoming).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(broker.merge_rows(vec![row("o", 3)], None), Err(BrokerError::Missing));
    }

    #[test]
    fn a_change_does_not_count_if_the_file_was_replaced_before_it_was_done() {
        let (_device, home) = home();
        let path = created(&home).path().to_owned();
        let aside = home.dir().join("aside");
        fs::copy(&path, &aside).unwrap();
        let change = |usage| {
            Db::open(&path, Duration::ZERO, usage).unwrap().write(|conn, _| {
                conn.execute("UPDATE container_info SET status = 'changed'", [])?;
                fs::copy(&path, home.dir().join("next")).unwrap();
                fs::rename(home.dir().join("next"), &path).unwrap();
                Ok(())
            })
        };
        assert_eq!(change(Use::Private), Ok(()));
        fs::rename(&aside, &path).unwrap();
        assert_eq!(change(Use::Shared), Err(BrokerError::Busy { path: path.clone() }));
    }

    #[test]
    fn a_missing_info_row_and_missing_tables_are_damage() {
        for break_it in [
            "DELETE FROM container_info",
            "DROP TABLE policy_stat",
            "DROP TABLE object",
            "DROP VIEW container_stat",
            "DROP TABLE container_info",
            "DROP TABLE incoming_sync",
        ] {
            let (_device, home) = home();
            let path = created(&home).path().to_owned();
            other(&path).execute_batch(break_it).unwrap();
            let broken = Broker::open(&home).and_then(|mut broker| broker.info());
            assert!(broken.as_ref().is_err_and(BrokerError::is_damage), "{break_it}: {broken:?}");
        }
    }

    #[test]
    fn values_of_another_type_are_told_and_not_guessed() {
        for break_it in [
            "UPDATE container_info SET hash = 'short'",
            "UPDATE container_info SET id = ''",
            "UPDATE container_info SET id = 'a/b'",
            "UPDATE container_info SET metadata = '{broken'",
            "UPDATE container_info SET account = x'00ff'",
            "UPDATE container_info SET account = CAST(x'ff' AS TEXT)",
            "UPDATE container_info SET storage_policy_index = 'many'",
        ] {
            let (_device, home) = home();
            let mut broker = created(&home);
            other(broker.path()).execute_batch(break_it).unwrap();
            let told = broker.info();
            assert!(matches!(told, Err(BrokerError::BadData { .. })), "{break_it}: {told:?}");
        }
    }

    #[test]
    fn a_migration_by_somebody_else_is_noticed() {
        let (_device, home) = home();
        let mut broker = created(&home);
        other(broker.path()).execute_batch("DROP TABLE shard_range").unwrap();
        assert_eq!(broker.shard_ranges(), Ok(vec![]));
        assert_eq!(broker.info().unwrap().ranges_digest, [0; 16]);
    }
}
