//! A whole file that arrived: take a missing database's place, or merge into the one that is there.
//!
//! Swift renames the arrived file over the old one without a lock. Rows that came in meanwhile are lost, and a journal
//! of the old file that is left beside the new one is rolled back into it. Here a database that exists is replaced
//! only if nobody else has it open and nothing came in since its rows were merged into the new file; all that is
//! checked under SQLite's own exclusive lock. In every other case the arrived rows are merged into the old file, in
//! small transactions, and writers never notice more than that.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::broker::{Broker, BrokerError, fresh_id};
use crate::drive::{DriveError, HashDir, LiveFile, Staged};
use crate::replica::{Direction, ReplicaId, RowId, SyncPoint};
use crate::timestamp::Timestamp;

/// What an arrival needs to know.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The database's directory.
    pub dir: &'a HashDir,
    /// The device's name, for the new id.
    pub device: &'a str,
    /// The sender's database.
    pub sender: &'a ReplicaId,
    /// The greatest row number ever given in the sender's file.
    pub max_row: RowId,
}

/// Why an arrived file could not be put to use. It is gone; the database is as it was.
#[derive(Debug)]
pub enum ArrivalError {
    /// The arrived file, or our own database.
    Broker(BrokerError),
    /// The drive.
    Drive(DriveError),
    /// The caller's tick asked to give up.
    GivenUp,
}

impl fmt::Display for ArrivalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArrivalError::Broker(error) => error.fmt(f),
            ArrivalError::Drive(error) => error.fmt(f),
            ArrivalError::GivenUp => f.write_str("given up"),
        }
    }
}

impl std::error::Error for ArrivalError {}

impl From<BrokerError> for ArrivalError {
    fn from(error: BrokerError) -> ArrivalError {
        ArrivalError::Broker(error)
    }
}

impl From<DriveError> for ArrivalError {
    fn from(error: DriveError) -> ArrivalError {
        ArrivalError::Drive(error)
    }
}

/// Called between steps; `false` gives up.
pub type Tick<'a> = &'a mut dyn FnMut() -> bool;

impl Arrival<'_> {
    /// Puts a file where there was none. If a database has appeared there meanwhile, merges into it.
    ///
    /// # Errors
    /// [`ArrivalError`]; nothing was installed then.
    pub fn take_place(&self, staged: Staged, file_name: &str, tick: Tick) -> Result<(), ArrivalError> {
        {
            let mut arrived = Broker::open_file(staged.path())?;
            arrived.new_id(self.sender, fresh_id(self.device))?;
            arrived.set_sync_point(self.sender, self.max_row, Direction::Incoming)?;
        }
        match staged.install_new(self.dir, file_name) {
            Ok(()) => Ok(()),
            Err((staged, DriveError::Exists { .. })) => self.merge(staged, tick),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Merges a file with the database that is there.
    ///
    /// # Errors
    /// [`ArrivalError`]; what was merged until then stays merged.
    pub fn merge(&self, staged: Staged, tick: Tick) -> Result<(), ArrivalError> {
        match self.replace(staged, tick)? {
            None => Ok(()),
            Some(staged) => self.merge_in_place(&staged, tick),
        }
    }

    /// Gives the arrived file our own rows and lets it take our file's place; gives it back if that cannot be done
    /// safely.
    fn replace(&self, mut staged: Staged, tick: Tick) -> Result<Option<Staged>, ArrivalError> {
        let mut ours = Broker::open(self.dir)?;
        let info = ours.info()?;
        if info.sharding_required || self.dir.db_files().map_err(io_in(self.dir.dir()))?.len() != 1 {
            return Ok(Some(staged));
        }
        let Some(path) = self.dir.in_charge().map_err(io_in(self.dir.dir()))? else { return Ok(Some(staged)) };
        {
            // Somebody has it open: he would be left with a file that has no name.
            let live = LiveFile::open_read_write(&path).map_err(io_in(&path))?;
            drop(ours);
            if live.open_elsewhere() {
                return Ok(Some(staged));
            }
        }
        let mut last = RowId::NONE;
        for _ in 0..CATCH_UPS {
            let mut ours = Broker::open(self.dir)?;
            let mut arrived = Broker::open_file(staged.path())?;
            ours.flush_pending()?;
            let before = LiveFile::open_read(&path).and_then(|live| live.stamp()).map_err(io_in(&path))?;
            last = copy_rows(&mut ours, &mut arrived, last, tick)?;
            let info = ours.info()?;
            let now = Timestamp::at(SystemTime::now());
            arrived.merge_metadata(&info.metadata)?;
            arrived.merge_timestamps(&info.created_at, &info.put_timestamp, &info.delete_timestamp, now)?;
            arrived.set_policy(info.storage_policy_index, info.status_changed_at.time())?;
            arrived.merge_shard_ranges(ours.shard_ranges()?)?;
            arrived.merge_sync_points(&ours.sync_points(Direction::Incoming)?, Direction::Incoming)?;
            arrived.new_id(self.sender, fresh_id(self.device))?;
            arrived.set_sync_point(self.sender, self.max_row, Direction::Incoming)?;
            drop((ours, arrived));
            // From here on nothing of ours has the database open, so that only others can stand in the way.
            let lock = self.dir.lock(LOCK_TIMEOUT)?;
            let mut live = LiveFile::open_read_write(&path).map_err(io_in(&path))?;
            live.lock_exclusive(LOCK_TIMEOUT)?;
            if live.stamp().map_err(io_in(&path))? != before || self.has_pending() {
                continue;
            }
            match staged.replace(&lock, &mut live) {
                Ok(_) => return Ok(None),
                Err((unused, DriveError::Busy { .. })) => {
                    staged = unused;
                    break;
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
        Ok(Some(staged))
    }

    /// Rows wait in the pending file. Asked under the directory's lock, which its writers take.
    fn has_pending(&self) -> bool {
        std::fs::metadata(self.dir.pending_path()).is_ok_and(|file| file.len() > 0)
    }

    /// Merges the arrived rows into our file, a batch at a time.
    fn merge_in_place(&self, staged: &Staged, tick: Tick) -> Result<(), ArrivalError> {
        let mut arrived = Broker::open_file(staged.path())?;
        let mut ours = Broker::open(self.dir)?;
        copy_rows(&mut arrived, &mut ours, RowId::NONE, tick)?;
        ours.merge_sync_points(&arrived.sync_points(Direction::Incoming)?, Direction::Incoming)?;
        let point = SyncPoint { remote_id: self.sender.clone(), point: self.max_row };
        ours.set_sync_point(&point.remote_id, point.point, Direction::Incoming)?;
        self.dir.sync().map_err(io_in(self.dir.dir()))?;
        Ok(())
    }
}

/// Merges all rows after a point from one database into another; returns the last one seen.
fn copy_rows(from: &mut Broker, to: &mut Broker, after: RowId, tick: Tick) -> Result<RowId, ArrivalError> {
    let mut last = after;
    loop {
        let rows = from.rows_after(last, ROWS_AT_ONCE)?;
        let Some(id) = rows.last().and_then(|row| row.row_id) else { return Ok(last) };
        to.merge_rows(rows, None)?;
        last = id;
        if !tick() {
            return Err(ArrivalError::GivenUp);
        }
    }
}

fn io_in(path: &Path) -> impl FnOnce(std::io::Error) -> ArrivalError {
    move |error| ArrivalError::Drive(DriveError::io(path, error))
}

/// Rows in one transaction: few enough that a writer who waits for it hardly notices.
const ROWS_AT_ONCE: usize = 1000;
/// How often rows that came in are merged before a busy database is left in its place.
const CATCH_UPS: usize = 4;
/// How long the locks of an install are waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
