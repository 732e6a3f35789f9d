//! The ledger's file: opened, checked, and begun anew when it is of no use.
//!
//! Every use of it is one transaction ([`LedgerFile::look`], [`LedgerFile::change`]), tried again after what was wrong
//! has been put right: a partition with a damaged entry is mended; a file that was replaced by another process is opened
//! again; one that is damaged, or none of ours, is removed, and an empty one takes its place. Each of these is done once
//! or a few times a call, so that a disk that damages whatever is written to it ends in a [`LedgerError`].
//!
//! Where SQLite would wait for the disk it does not (`synchronous = OFF`): a process that is killed leaves a journal, and
//! the next one rolls back. After a power failure the file may be old, and says of a database what was true once; or
//! torn, and is found out by checksums. Only what the sums say needs more: they must be those of the entries beside them,
//! so they are all made anew when the file is opened for the first time since the machine started. The journal is cut, not deleted, so that nobody who still has a file open that we removed
//! deletes the journal of the next one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{info, warn};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use super::rows::{Rows, TABLES};
use super::{LedgerError, Terms};
use crate::drive::Drive;
use crate::hash_path::Partition;

/// The file, and our connection to it.
#[derive(Debug)]
pub(super) struct LedgerFile {
    root: PathBuf,
    /// What was mounted at the root when the ledger was opened.
    file_system: u64,
    path: PathBuf,
    terms: Terms,
    /// Nothing is written, made or removed.
    only_looks: bool,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    conn: Connection,
    /// The file that it is open on.
    inode: Inode,
    /// It was found to be ours.
    admitted: bool,
}

type Inode = (u64, u64);

/// Why a transaction came to nothing, split by what is done about it.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the file holds was not written by us, or not like that: it is begun anew.
    Damaged(String),
    /// It is whole, but kept by other rules than ours: it is begun anew.
    Outdated(String),
    /// This partition has a damaged entry, or a sum that is not that of its entries: it is mended.
    Unsound(Partition),
    /// Another process put another file in its place: that one is opened.
    Moved(String),
    /// Nothing is to be done about it here.
    Failed(String),
}

impl LedgerFile {
    /// Opens the file, or begins it.
    pub fn open(drive: &Drive, terms: Terms) -> Result<LedgerFile, LedgerError> {
        LedgerFile::open_for(drive, terms, false)
    }

    /// Opens the file as it is, if it is whole, ours, and kept under these terms.
    pub fn open_to_look(drive: &Drive, terms: Terms) -> Result<LedgerFile, LedgerError> {
        LedgerFile::open_for(drive, terms, true)
    }

    fn open_for(drive: &Drive, terms: Terms, only_looks: bool) -> Result<LedgerFile, LedgerError> {
        let path = drive.root().join("agent/ledger.db");
        let error = |cause: String| LedgerError { path: path.clone(), cause };
        let file_system = fs::metadata(drive.root()).map_err(|e| error(e.to_string()))?.dev();
        drive.still_mounted().map_err(|e| error(e.to_string()))?;
        let root = drive.root().to_owned();
        let file = LedgerFile { root, file_system, path, terms, only_looks, open: Mutex::new(None) };
        file.look(|_| Ok(()))?;
        Ok(file)
    }

    /// What it is kept under.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Is it on this drive, and the drive mounted as it was when the ledger was opened?
    pub fn is_of(&self, drive: &Drive) -> bool {
        drive.root() == self.root && drive.still_mounted().is_ok() && self.is_mounted()
    }

    fn is_mounted(&self) -> bool {
        fs::metadata(&self.root).is_ok_and(|root| root.dev() == self.file_system)
    }

    /// Closes the connection until there is work again.
    pub fn rest(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads. All of it sees one moment.
    pub fn look<T>(&self, work: impl Fn(&Rows<'_>) -> Result<T, Fault>) -> Result<T, LedgerError> {
        self.transact(TransactionBehavior::Deferred, work)
    }

    /// Writes. All of it is done, or nothing.
    pub fn change<T>(&self, work: impl Fn(&Rows<'_>) -> Result<T, Fault>) -> Result<T, LedgerError> {
        self.transact(TransactionBehavior::Immediate, work)
    }

    fn transact<T>(
        &self,
        behavior: TransactionBehavior,
        work: impl Fn(&Rows<'_>) -> Result<T, Fault>,
    ) -> Result<T, LedgerError> {
        let mut open = self.lock();
        let (mut begun, mut opened, mut mended) = (0, 0, 0);
        let mut unsound = None;
        loop {
            let outcome = match unsound.take() {
                None => self.attempt(&mut open, behavior, |rows| work(rows).map(Some)),
                Some(partition) => self.attempt(&mut open, TransactionBehavior::Immediate, |rows| {
                    rows.mend(partition)?;
                    Ok(None)
                }),
            };
            let fault = match outcome {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => continue,
                Err(Fault::Unsound(partition)) if mended == MENDS_LIMIT => {
                    Fault::Damaged(format!("partition {partition} is damaged as others are"))
                }
                Err(fault) => fault,
            };
            let remedy = match fault {
                Fault::Damaged(cause) | Fault::Outdated(cause) if self.only_looks => Err(cause),
                Fault::Unsound(partition) if self.only_looks => {
                    Err(format!("partition {partition} is damaged"))
                }
                Fault::Unsound(partition) => {
                    warn!("{}: forgetting what is damaged of partition {partition}", self.path.display());
                    mended += 1;
                    unsound = Some(partition);
                    continue;
                }
                Fault::Moved(_) if opened < OPENINGS_LIMIT => {
                    opened += 1;
                    *open = None;
                    continue;
                }
                Fault::Damaged(cause) if begun == 0 => {
                    warn!("{}: {cause}; the ledger is begun anew", self.path.display());
                    self.remove(&mut open)
                }
                Fault::Outdated(cause) if begun == 0 => {
                    info!("{}: {cause}; the ledger is begun anew", self.path.display());
                    self.remove(&mut open)
                }
                Fault::Damaged(cause)
                | Fault::Outdated(cause)
                | Fault::Moved(cause)
                | Fault::Failed(cause) => Err(cause),
            };
            if let Err(cause) = remedy {
                *open = None;
                return Err(LedgerError { path: self.path.clone(), cause });
            }
            begun += 1;
        }
    }

    fn attempt<T>(
        &self,
        slot: &mut Option<Open>,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Rows<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if slot.as_ref().is_some_and(|open| inode(&self.path) != Some(open.inode)) {
            *slot = None;
        }
        let open = match slot {
            Some(open) => open,
            None => slot.insert(self.connect()?),
        };
        if !open.admitted {
            self.admit(&mut open.conn)?;
            open.admitted = true;
        }
        let transaction = open.conn.transaction_with_behavior(behavior)?;
        let done = work(&self.rows(&transaction))?;
        transaction.commit()?;
        Ok(done)
    }

    /// A connection with every setting made that does not touch the file.
    fn connect(&self) -> Result<Open, Fault> {
        let failed = |e: io::Error| Fault::Failed(e.to_string());
        if !self.is_mounted() {
            return Err(Fault::Failed("the drive is not mounted any more".to_owned()));
        }
        if self.only_looks {
            return self.connect_to_look();
        }
        match DirBuilder::new().mode(0o755).create(self.root.join("agent")) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => (),
        }
        for path in self.names() {
            if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file()) {
                clear(&path).map_err(failed)?;
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let conn =
            Connection::open_with_flags(&self.path, flags).map_err(|e| Fault::Failed(e.to_string()))?;
        let Some(inode) = inode(&self.path) else { return Err(Fault::Moved("it is gone".to_owned())) };
        if conn.is_readonly("main")? {
            return Err(Fault::Failed("it may not be written to".to_owned()));
        }
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Ok(Open { conn, inode, admitted: false })
    }

    /// A connection that cannot write. A journal that a process left when it was killed is for somebody else to roll back.
    fn connect_to_look(&self) -> Result<Open, Fault> {
        let failed = |e: rusqlite::Error| Fault::Failed(e.to_string());
        let gone = || Fault::Failed("there is none yet".to_owned());
        let inode = inode(&self.path).ok_or_else(gone)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_EXRESCODE);
        let conn = conn.map_err(failed)?;
        conn.busy_timeout(LOOK_TIMEOUT)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES)?;
        Ok(Open { conn, inode, admitted: false })
    }

    /// Makes sure that the file is ours, and changes nothing.
    fn admit_to_look(&self, conn: &mut Connection) -> Result<(), Fault> {
        conn.execute_batch(&format!("PRAGMA cache_size = -{CACHE_KIB}; PRAGMA mmap_size = 0;"))?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        if !self.is_ours(&transaction)? {
            return Err(Fault::Failed("there is nothing in it yet".to_owned()));
        }
        if self.rows(&transaction).boot()? != boot() {
            return Err(Fault::Failed("no pass has used it since the machine started".to_owned()));
        }
        Ok(())
    }

    /// Makes sure that the file is ours, and fills one that is new.
    fn admit(&self, conn: &mut Connection) -> Result<(), Fault> {
        if self.only_looks {
            return self.admit_to_look(conn);
        }
        conn.execute_batch(&format!(
            "PRAGMA page_size = 4096; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA synchronous = OFF; \
             PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON;"
        ))?;
        let mode: String = conn.query_row("PRAGMA journal_mode = TRUNCATE", [], |row| row.get(0))?;
        if mode != "truncate" {
            return Err(Fault::Damaged(format!("its journal is kept in mode {mode}")));
        }
        let boot = boot();
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        if self.is_ours(&transaction)? && self.rows(&transaction).boot()? == boot {
            return Ok(());
        }
        drop(transaction);
        // Another process may be about to do the same.
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !self.is_ours(&transaction)? {
            for table in TABLES {
                transaction.execute_batch(table)?;
            }
            transaction
                .execute("INSERT INTO terms (terms, boot) VALUES (?, ?)", [self.terms_text(), boot])?;
            transaction.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            ))?;
        } else if self.rows(&transaction).boot()? != boot {
            // If the power failed, some pages are older than others: what the sums say is not to be relied on.
            self.rows(&transaction).mend_all()?;
            self.rows(&transaction).put_boot(&boot)?;
        }
        Ok(transaction.commit()?)
    }

    fn rows<'a>(&self, conn: &'a Connection) -> Rows<'a> {
        Rows::new(conn, self.terms.part_shift)
    }

    /// A ledger that we can go on with; `false` if there is nothing in the file yet.
    fn is_ours(&self, conn: &Connection) -> Result<bool, Fault> {
        let number =
            |pragma: &str| conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        let marks = (number("application_id")?, number("user_version")?);
        let mut tables = Vec::new();
        let mut select = conn.prepare("SELECT sql FROM sqlite_schema ORDER BY name LIMIT 100")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            tables.push(row.get::<_, Option<String>>(0)?.unwrap_or_default());
        }
        match marks {
            (0, 0) if tables.is_empty() => return Ok(false),
            (APPLICATION_ID, VERSION) if tables == TABLES => (),
            (APPLICATION_ID, version) if version != VERSION => {
                return Err(Fault::Outdated(format!("it is of version {version}")));
            }
            _ => return Err(Fault::Damaged("it is none of ours".to_owned())),
        }
        let terms: String = conn.query_row("SELECT terms FROM terms", [], |row| row.get(0))?;
        if terms != self.terms_text() {
            return Err(Fault::Outdated(format!("it was kept under other terms ({terms})")));
        }
        Ok(true)
    }

    fn terms_text(&self) -> String {
        let Terms { part_shift, reclaim_age, full_check_interval } = self.terms;
        format!(
            "part shift {}, reclaim age {reclaim_age:?}, full check interval {full_check_interval:?}",
            part_shift.bits()
        )
    }

    /// Removes the file that we have open, if it is still in its place.
    fn remove(&self, open: &mut Option<Open>) -> Result<(), String> {
        let known = open.take().map(|open| open.inode);
        if known.is_some() && known != inode(&self.path) {
            return Ok(());
        }
        // The file last: a journal that stands beside a new one would be taken for its own.
        self.names().iter().rev().try_for_each(|path| clear(path)).map_err(|e| e.to_string())
    }

    /// The file, and what SQLite may keep beside it.
    fn names(&self) -> [PathBuf; 4] {
        ["", "-journal", "-wal", "-shm"].map(|ending| with_ending(&self.path, ending))
    }
}

/// Removes what there is of a drive's ledger; what cannot be removed stays.
pub(super) fn discard(drive: &Drive) {
    let dir = drive.root().join("agent");
    for ending in ["-journal", "-wal", "-shm", ""] {
        let _ = fs::remove_file(with_ending(&dir.join("ledger.db"), ending));
    }
    let _ = fs::remove_dir(dir);
}

/// Another whenever the machine starts; the same for ever where there is no telling.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Device and inode of what a path names.
fn inode(path: &Path) -> Option<Inode> {
    fs::symlink_metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

/// Unlinks whatever is there. A directory, which may be full of somebody's files, is put aside.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::rename(path, with_ending(path, ".aside")),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    }
    .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        let cause = error.to_string();
        // All but SQLite's own errors say that a value is not what we put there.
        let rusqlite::Error::SqliteFailure(failure, _) = error else { return Fault::Damaged(cause) };
        match (failure.code, failure.extended_code) {
            (_, ffi::SQLITE_READONLY_DBMOVED) | (ErrorCode::CannotOpen, _) => Fault::Moved(cause),
            // The disk cannot read it back, or it is shorter than it says.
            (_, ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS) => {
                Fault::Damaged(cause)
            }
            // Our statements fit our tables; if not (`Unknown`), the tables are others.
            (
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::TypeMismatch
                | ErrorCode::ConstraintViolation
                | ErrorCode::TooBig
                | ErrorCode::SchemaChanged
                | ErrorCode::Unknown,
                _,
            ) => Fault::Damaged(cause),
            _ => Fault::Failed(cause),
        }
    }
}

/// `swll`.
const APPLICATION_ID: i64 = 0x7377_6c6c;
/// Goes up with every change of what is stored.
const VERSION: i64 = 2;
/// How long to wait for another process' transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The same, for who only looks.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// SQLite's page cache: the way down to a page, and the pages of one batch.
const CACHE_KIB: u32 = 256;
/// The longest body: a partition that was agreed with 9,000 devices.
const VALUE_LIMIT_BYTES: i32 = 256 * 1024;
/// A few more than there are.
const STATEMENTS_KEPT: usize = 16;
/// Partitions that are mended for the sake of one call; if more are damaged, all is suspect.
const MENDS_LIMIT: usize = 16;
/// How often a file that goes away is opened again within one call.
const OPENINGS_LIMIT: usize = 2;
