//! A whole file that arrived: take a missing database's place, or merge into the one that is there.
//!
//! Swift renames the arrived file over the old one without a lock. Rows that came in meanwhile are lost, and a journal
//! of the old file that is left beside the new one is rolled back into it. Here a database that exists is replaced in a
//! moment in which nobody else has it open, after its rows were merged into the new file; what came in since then is taken
//! from the old file afterwards, before that goes. Where there is no such moment the arrived rows are merged into the old
//! file, in small transactions. Either way writers hardly notice.
//!
//! Whoever sent the file may have a disk that spoils what it holds, so before it is written to it is read from end to end.
//! Meanwhile, on other threads, its blocks go to the disk, and we find out which of our own rows it has already: often all.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};

use crate::broker::{Broker, BrokerError, fresh_id};
use crate::drive::{
    Drive, DriveError, HashDir, InstallError, LiveFile, Replaced, Settled, Staged, Why, replaced_files,
};
use crate::hash_path::PartShift;
use crate::replica::{Direction, ReplicaId, ReplicaInfo, RowId};
use crate::stop::Finishing;
use crate::timestamp::Timestamp;

/// What an arrival needs to know.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The database's directory.
    pub dir: &'a HashDir,
    /// The device's name, for the new id.
    pub device: &'a str,
    /// What the sender's database says of itself.
    pub sender: &'a ReplicaInfo,
    /// The greatest row number ever given in the sender's file.
    pub max_row: RowId,
}

/// Why an arrived file could not be put to use. It is gone; the database is as it was.
#[derive(Debug)]
pub enum ArrivalError {
    /// The arrived file is no sound database of this container.
    Unsound(BrokerError),
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
            ArrivalError::Unsound(error) => write!(f, "the file is no sound database: {error}"),
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

/// Rows of ours that the arrived file has: those of the file with this inode and id, up to this number.
#[derive(Debug, Clone)]
struct Shared {
    file: Option<(u64, ReplicaId)>,
    last: RowId,
}

impl Shared {
    /// Of no file is anything known.
    const NOTHING: Shared = Shared { file: None, last: RowId::NONE };

    /// Of the file that lies there, which may be another one: nothing is known of that.
    fn of(self, path: &Path, broker: &mut Broker) -> Result<Shared, ArrivalError> {
        let file = Some((inode(path)?, broker.info()?.id));
        Ok(if file == self.file { self } else { Shared { file, ..Shared::NOTHING } })
    }

    fn is_of(&self, inode: u64) -> bool {
        self.file.as_ref().is_some_and(|file| file.0 == inode)
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
        self.check(&staged, || Ok(()))?;
        self.make_ours(&mut Broker::open_file(staged.path())?)?;
        let staged = staged.sync()?;
        let lock = self.dir.lock(LOCK_TIMEOUT)?;
        let finishing = Finishing::begin();
        let installed = staged.install_new(self.dir, file_name, &lock);
        drop(finishing);
        match installed {
            Ok(()) => Ok(()),
            Err(InstallError::Taken { unused, .. }) => {
                drop(lock);
                self.merge_checked(unused, Shared::NOTHING, tick)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Merges a file with the database that is there.
    ///
    /// # Errors
    /// [`ArrivalError`]; what was merged until then stays merged.
    pub fn merge(&self, staged: Staged, tick: Tick) -> Result<(), ArrivalError> {
        let shared = self.check(&staged, || match self.replaceable()? {
            Some(path) => self.shared(&path, &staged, tick),
            None => Ok(Shared::NOTHING),
        })?;
        self.merge_checked(staged, shared, tick)
    }

    fn merge_checked(&self, staged: Staged, shared: Shared, tick: Tick) -> Result<(), ArrivalError> {
        match self.replace(staged, shared, tick)? {
            None => Ok(()),
            Some(staged) => {
                debug!("{}: a whole file is merged in place", self.dir.dir().display());
                self.merge_in_place(&staged, tick)
            }
        }
    }

    /// Checks that an arrived file is a database of this container and holds together, and begins to put it on the disk;
    /// and does something else `meanwhile`, which must not write to it.
    fn check<T>(
        &self,
        staged: &Staged,
        meanwhile: impl FnOnce() -> Result<T, ArrivalError>,
    ) -> Result<T, ArrivalError> {
        let verify = || {
            let mut arrived = Broker::open_file(staged.path())?;
            arrived.verify(&self.sender.account, &self.sender.container)?;
            arrived.info()
        };
        thread::scope(|scope| {
            let verified = scope.spawn(verify);
            let synced = scope.spawn(|| staged.file().sync_all());
            let done = meanwhile();
            join(verified).map_err(ArrivalError::Unsound)?;
            join(synced).map_err(io_in(staged.path()))?;
            done
        })
    }

    /// Our database's file, if it may give way to another: not while it is being sharded, nor where somebody has it open
    /// all the time, who would be left with a file that has no name.
    fn replaceable(&self) -> Result<Option<PathBuf>, ArrivalError> {
        let info = Broker::open(self.dir)?.info()?;
        if info.sharding_required || self.dir.db_files().map_err(io_in(self.dir.dir()))?.len() != 1 {
            return Ok(None);
        }
        let Some(path) = self.dir.in_charge().map_err(io_in(self.dir.dir()))? else { return Ok(None) };
        Ok(self.ever_alone(&path)?.then_some(path))
    }

    /// Waits a little for a moment in which nobody else has our file open.
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

    /// How many of our rows the arrived file has as well, from the first to one that it may lack.
    fn shared(&self, path: &Path, staged: &Staged, tick: Tick) -> Result<Shared, ArrivalError> {
        let mut ours = self.open_flushed()?;
        let mut arrived = Broker::open_file(staged.path())?;
        let mut shared = Shared::NOTHING.of(path, &mut ours)?;
        loop {
            let (rows, seen) =
                ours.rows_lacking_in(&mut arrived, shared.last, ROWS_SEEN_AT_ONCE, BYTES_AT_ONCE)?;
            if seen == shared.last || !rows.is_empty() {
                return Ok(shared);
            }
            shared.last = seen;
            if !tick() {
                return Err(ArrivalError::GivenUp);
            }
        }
    }

    fn open_flushed(&self) -> Result<Broker, ArrivalError> {
        let mut ours = Broker::open(self.dir)?;
        ours.flush_pending()?;
        Ok(ours)
    }

    /// Gives the arrived file those of our own rows that it lacks and lets it take our file's place; gives it back if that
    /// cannot be done safely.
    fn replace(
        &self,
        mut staged: Staged,
        mut shared: Shared,
        tick: Tick,
    ) -> Result<Option<Staged>, ArrivalError> {
        let Some(path) = self.replaceable()? else { return Ok(Some(staged)) };
        for _ in 0..CATCH_UPS {
            let before = shared.last;
            shared = self.catch_up(&path, &staged, shared, tick)?;
            staged = staged.sync()?;
            if shared.last.0 - before.0 < FEW_ROWS {
                break;
            }
        }
        staged = staged.stand_by(self.dir)?;
        let give_up = Instant::now() + SWAP_PATIENCE;
        while self.ever_alone(&path)? && Instant::now() < give_up {
            let lock = self.dir.lock(LOCK_TIMEOUT)?;
            let live = LiveFile::open_read_write(&path).map_err(io_in(&path))?;
            if !shared.is_of(live.metadata().map_err(io_in(&path))?.ino()) {
                // Somebody else has replaced it, so that we know nothing of its rows.
                break;
            }
            // Until the replaced file's last rows are in ours: else they wait there for the next start.
            let _finishing = Finishing::begin();
            match staged.replace(live, self.dir, &lock) {
                Ok(replaced) => {
                    drop(lock);
                    debug!("{}: a whole file took its place", path.display());
                    self.settle(replaced, shared, tick)?;
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

    /// Merges into the arrived file what our own has beyond what they share; says what they share then.
    fn catch_up(
        &self,
        path: &Path,
        staged: &Staged,
        shared: Shared,
        tick: Tick,
    ) -> Result<Shared, ArrivalError> {
        let mut ours = self.open_flushed()?;
        let mut arrived = Broker::open_file(staged.path())?;
        let mut shared = shared.of(path, &mut ours)?;
        shared.last = take_in(&mut ours, &mut arrived, shared.last, ROWS_AT_ONCE_PRIVATELY, tick)?;
        let info = ours.stored_info()?;
        arrived.set_policy(info.storage_policy_index, info.status_changed_at.time())?;
        arrived.adopt_incoming(&mut ours)?;
        self.make_ours(&mut arrived)?;
        Ok(shared)
    }

    /// A file with a history of its own is a database of its own: it gets a new id, knows how far it has come with the
    /// sender's rows, and has the account told of it again.
    fn make_ours(&self, arrived: &mut Broker) -> Result<(), BrokerError> {
        arrived.new_id(&self.sender.id, fresh_id(self.device))?;
        arrived.set_sync_point(&self.sender.id, self.max_row, Direction::Incoming)
    }

    /// Takes in what the replaced file has beyond what is shared, and lets go of it. Rows that were acknowledged are nowhere
    /// else, so the tick is not asked whether to go on.
    fn settle(&self, replaced: Replaced, shared: Shared, tick: Tick) -> Result<(), ArrivalError> {
        // Before the old file can go.
        self.dir.sync().map_err(io_in(self.dir.dir()))?;
        let (link, quiet) = match replaced.settle(SETTLE_TIMEOUT) {
            Settled::Quiet { link } => (link, true),
            Settled::StillOpen { link } => (link, false),
        };
        let mut late = Broker::open_file(&link)?;
        let mut ours = Broker::open(self.dir)?;
        let after = shared.of(&link, &mut late)?.last;
        let mut go_on = || {
            tick();
            true
        };
        take_in(&mut late, &mut ours, after, ROWS_AT_ONCE, &mut go_on)?;
        drop((late, ours));
        if quiet {
            // If it stays, it is swept once more than needed.
            let _ = fs::remove_file(&link);
        } else {
            warn!("{}: somebody still has the replaced file open; it is swept later", link.display());
        }
        Ok(())
    }

    /// Merges the arrived rows into our file, a batch at a time.
    fn merge_in_place(&self, staged: &Staged, tick: Tick) -> Result<(), ArrivalError> {
        let mut arrived = Broker::open_file(staged.path())?;
        let mut ours = Broker::open(self.dir)?;
        copy_rows(&mut arrived, &mut ours, RowId::NONE, ROWS_AT_ONCE, tick)?;
        ours.merge_sync_points(&arrived.sync_points(Direction::Incoming)?, Direction::Incoming)?;
        ours.set_sync_point(&self.sender.id, self.max_row, Direction::Incoming)?;
        ours.set_sync_point(&self.sender.id, RowId::NONE, Direction::Outgoing)?;
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
            let stamp = || {
                let live = LiveFile::open_read_write(&leftover.path).map_err(io_in(&leftover.path))?;
                let stamp = live.stamp().map_err(io_in(&leftover.path))?;
                Ok::<_, ArrivalError>((live, stamp))
            };
            let before = stamp()?.1;
            let mut late = Broker::open_file(&leftover.path)?;
            let mut ours = Broker::open(&dir)?;
            take_in(&mut late, &mut ours, RowId::NONE, ROWS_AT_ONCE, &mut || true)?;
            drop((late, ours));
            // Nobody can come for it any more, so if nobody has it and nothing came in, nothing will.
            let (live, after) = stamp()?;
            if live.open_elsewhere() || after != before {
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

/// What a thread made; if it panicked, so do we.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
    while last < end {
        let (mut rows, seen) = from.rows_lacking_in(to, last, ROWS_SEEN_AT_ONCE, BYTES_AT_ONCE)?;
        if seen == last {
            break;
        }
        while !rows.is_empty() {
            let later = rows.split_off(rows.len().min(at_once));
            to.give_way()?;
            to.merge_rows(rows, None)?;
            rows = later;
            if !tick() {
                return Err(ArrivalError::GivenUp);
            }
        }
        last = seen;
        if !tick() {
            return Err(ArrivalError::GivenUp);
        }
    }
    Ok(last)
}

fn inode(path: &Path) -> Result<u64, ArrivalError> {
    Ok(fs::metadata(path).map_err(io_in(path))?.ino())
}

fn io_in(path: &Path) -> impl FnOnce(std::io::Error) -> ArrivalError {
    move |error| ArrivalError::Drive(DriveError::io(path, error))
}

/// What the rows of one transaction may come to.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Rows looked at in one go: a few MiB, if all of them have to be merged.
const ROWS_SEEN_AT_ONCE: usize = 5000;
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
