//! A whole file that arrived: take a missing database's place, or merge into the one that is there.
//!
//! Swift renames the arrived file over the old one without a lock. Rows that came in meanwhile are lost, and a journal
//! of the old file that is left beside the new one is rolled back into it. Here a database that exists is replaced in a
//! moment in which nobody else has it open, after its rows were merged into the new file; what came in since then is taken
//! from the old file afterwards, before that goes. Where there is no such moment the arrived rows are merged into the old
//! file, in small transactions. Either way writers hardly notice.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};

use crate::broker::{Broker, BrokerError, fresh_id};
use crate::drive::{
    Drive, DriveError, HashDir, InstallError, LiveFile, Replaced, Settled, Staged, Why, replaced_files,
};
use crate::hash_path::PartShift;
use crate::replica::{Direction, ReplicaId, RowId};
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
    /// The place in which it was to be.
    Install(InstallError),
    /// The caller's tick asked to give up.
    GivenUp,
}

impl fmt::Display for ArrivalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArrivalError::Broker(error) => error.fmt(f),
            ArrivalError::Drive(error) => error.fmt(f),
            ArrivalError::Install(error) => error.fmt(f),
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

impl From<InstallError> for ArrivalError {
    fn from(error: InstallError) -> ArrivalError {
        match error {
            InstallError::Drive(error) => ArrivalError::Drive(error),
            other => ArrivalError::Install(other),
        }
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
            self.make_ours(&mut arrived)?;
        }
        let staged = staged.sync()?;
        let lock = self.dir.lock(LOCK_TIMEOUT)?;
        match staged.install_new(self.dir, file_name, &lock) {
            Ok(()) => Ok(()),
            Err(InstallError::Taken { unused, .. }) => {
                drop(lock);
                self.merge(unused, tick)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Merges a file with the database that is there.
    ///
    /// # Errors
    /// [`ArrivalError`]; what was merged until then stays merged.
    pub fn merge(&self, staged: Staged, tick: Tick) -> Result<(), ArrivalError> {
        match self.replace(staged, tick)? {
            None => Ok(()),
            Some(staged) => {
                debug!("{}: a whole file is merged in place", self.dir.dir().display());
                self.merge_in_place(&staged, tick)
            }
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
        let path = ours.path().to_owned();
        drop(ours);
        // Where somebody has it open all the time, merging our rows into the arrived file would be for nothing.
        if !self.ever_alone(&path)? {
            return Ok(Some(staged));
        }
        let mut last = RowId::NONE;
        for _ in 0..CATCH_UPS {
            let mut ours = Broker::open(self.dir)?;
            let mut arrived = Broker::open_file(staged.path())?;
            let before = last;
            last = take_in(&mut ours, &mut arrived, last, ROWS_AT_ONCE_PRIVATELY, tick)?;
            let info = ours.stored_info()?;
            arrived.set_policy(info.storage_policy_index, info.status_changed_at.time())?;
            arrived.adopt_incoming(&mut ours)?;
            self.make_ours(&mut arrived)?;
            drop((ours, arrived));
            staged = staged.sync()?;
            if last.0 - before.0 < FEW_ROWS {
                break;
            }
        }
        let mut staged = staged.stand_by(self.dir)?;
        let give_up = Instant::now() + SWAP_PATIENCE;
        while self.ever_alone(&path)? && Instant::now() < give_up {
            let lock = self.dir.lock(LOCK_TIMEOUT)?;
            let live = LiveFile::open_read_write(&path).map_err(io_in(&path))?;
            match staged.replace(live, self.dir, &lock) {
                Ok(replaced) => {
                    drop(lock);
                    debug!("{}: a whole file took its place", path.display());
                    self.settle(replaced, last, tick)?;
                    return Ok(None);
                }
                Err(InstallError::Busy { unused, why }) => {
                    debug!("{}: not replaced: {why}", path.display());
                    staged = unused;
                    if why != Why::OpenElsewhere {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(staged))
    }

    /// Waits a little for a moment in which nobody else has our file open. Whoever has it open all the time would be left
    /// with a file that has no name.
    fn ever_alone(&self, path: &Path) -> Result<bool, ArrivalError> {
        let live = LiveFile::open_read_write(path).map_err(io_in(path))?;
        let give_up = Instant::now() + ALONE_PATIENCE;
        while live.open_elsewhere() {
            if Instant::now() >= give_up {
                return Ok(false);
            }
            thread::sleep(ALONE_POLL);
        }
        Ok(true)
    }

    /// A file with a history of its own is a database of its own: it gets a new id, knows how far it has come with the
    /// sender's rows, and has the account told of it again.
    fn make_ours(&self, arrived: &mut Broker) -> Result<(), BrokerError> {
        arrived.new_id(self.sender, fresh_id(self.device))?;
        arrived.set_sync_point(self.sender, self.max_row, Direction::Incoming)
    }

    /// Takes in what came into the replaced file since its rows up to `last` were merged, and lets go of it.
    fn settle(&self, replaced: Replaced, last: RowId, tick: Tick) -> Result<(), ArrivalError> {
        // Before the old file can go.
        self.dir.sync().map_err(io_in(self.dir.dir()))?;
        let (link, quiet) = match replaced.settle(SETTLE_TIMEOUT) {
            Settled::Quiet { link } => (link, true),
            Settled::StillOpen { link } => (link, false),
        };
        let mut late = Broker::open_file(&link)?;
        let mut ours = Broker::open(self.dir)?;
        take_in(&mut late, &mut ours, last, ROWS_AT_ONCE, tick)?;
        drop((late, ours));
        match quiet {
            // If it stays, it is swept once more than needed.
            true => _ = fs::remove_file(&link),
            false => {
                warn!("{}: somebody still has the replaced file open; it is swept later", link.display())
            }
        }
        Ok(())
    }

    /// Merges the arrived rows into our file, a batch at a time.
    fn merge_in_place(&self, staged: &Staged, tick: Tick) -> Result<(), ArrivalError> {
        let mut arrived = Broker::open_file(staged.path())?;
        let mut ours = Broker::open(self.dir)?;
        copy_rows(&mut arrived, &mut ours, RowId::NONE, ROWS_AT_ONCE, tick)?;
        ours.merge_sync_points(&arrived.sync_points(Direction::Incoming)?, Direction::Incoming)?;
        ours.set_sync_point(self.sender, self.max_row, Direction::Incoming)?;
        ours.set_sync_point(self.sender, RowId::NONE, Direction::Outgoing)?;
        self.dir.sync().map_err(io_in(self.dir.dir()))?;
        Ok(())
    }
}

/// Takes in what came into replaced files after they were replaced, and removes them once nobody has them open. Called
/// at the start of a pass; what a swap under way has there is too young to be looked at.
pub fn sweep(drive: &Drive, part_shift: PartShift) {
    let leftovers = match replaced_files(drive) {
        Ok(leftovers) => leftovers,
        Err(error) => return warn!("{}: cannot look for replaced files: {error}", drive.root().display()),
    };
    for leftover in leftovers {
        let swept = || -> Result<bool, ArrivalError> {
            let file = fs::metadata(&leftover.path).map_err(io_in(&leftover.path))?;
            let young =
                file.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|age| age < SWAP_TIME);
            if young {
                return Ok(false);
            }
            let dir = drive.hash_dir(part_shift.partition(&leftover.hash), leftover.hash);
            let mut late = Broker::open_file(&leftover.path)?;
            let mut ours = Broker::open(&dir)?;
            take_in(&mut late, &mut ours, RowId::NONE, ROWS_AT_ONCE, &mut || true)?;
            drop((late, ours));
            let live = LiveFile::open_read_write(&leftover.path).map_err(io_in(&leftover.path))?;
            if live.open_elsewhere() {
                return Ok(false);
            }
            fs::remove_file(&leftover.path).map_err(io_in(&leftover.path))?;
            Ok(true)
        };
        match swept() {
            Ok(true) => info!("{}: swept a replaced file", leftover.path.display()),
            Ok(false) => {}
            Err(error) => warn!("{}: cannot sweep a replaced file: {error}", leftover.path.display()),
        }
    }
}

/// Merges one file of a container into another of the same: all rows after a point, and what stands beside them but sync
/// points, which may be forgotten. Returns the last row.
fn take_in(
    from: &mut Broker,
    to: &mut Broker,
    after: RowId,
    at_once: usize,
    tick: Tick,
) -> Result<RowId, ArrivalError> {
    from.flush_pending()?;
    let last = copy_rows(from, to, after, at_once, tick)?;
    let (info, theirs) = (from.stored_info()?, to.stored_info()?);
    let now = Timestamp::at(SystemTime::now());
    to.merge_timestamps(&info.created_at, &info.put_timestamp, &info.delete_timestamp, now)?;
    if info.status_changed_at.time() > theirs.status_changed_at.time() {
        to.set_policy(info.storage_policy_index, info.status_changed_at.time())?;
    }
    to.merge_shard_ranges(from.shard_ranges()?)?;
    to.merge_metadata(&info.metadata)?;
    Ok(last)
}

/// Merges all rows after a point from one database into another; returns the last one seen. What comes in meanwhile is
/// left for another time, or a steady writer would keep us here for ever.
fn copy_rows(
    from: &mut Broker,
    to: &mut Broker,
    after: RowId,
    at_once: usize,
    tick: Tick,
) -> Result<RowId, ArrivalError> {
    let (mut last, end) = (after, from.max_row()?);
    loop {
        if last >= end {
            return Ok(last);
        }
        let rows = from.rows_within(last, at_once, BYTES_AT_ONCE)?;
        let Some(id) = rows.last().and_then(|row| row.row_id) else { return Ok(last) };
        to.give_way()?;
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

/// What the rows of one transaction may come to.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Rows in one transaction on a file that nobody else waits for: a few MiB of them.
const ROWS_AT_ONCE_PRIVATELY: usize = 5000;
/// Rows in one transaction: few enough that a writer who waits for it hardly notices.
const ROWS_AT_ONCE: usize = 1000;
/// How often rows that came in meanwhile are merged into a file that is to take a busy database's place, unless they are
/// [`FEW_ROWS`] before: those are taken in afterwards, and until then no listing has them.
const CATCH_UPS: usize = 4;
const FEW_ROWS: i64 = 1000;
/// How long we look for a moment in which nobody else has a database open, and how often.
const ALONE_PATIENCE: Duration = Duration::from_secs(2);
const ALONE_POLL: Duration = Duration::from_millis(1);
/// How long we try to let two files change names in such a moment.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last users of a replaced file are waited for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than any swap takes.
const SWAP_TIME: Duration = Duration::from_secs(60);
/// How long the locks of an install are waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
