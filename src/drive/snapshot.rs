//! A live database as it was at one moment, to be read in peace while its writers go on.
//!
//! Where the file system clones blocks, SQLite's shared lock is held for the clone alone. Elsewhere the file is copied
//! without any lock; then the lock is taken, and only if the file was written to in the meantime is it read again, and
//! what differs copied again. How long that takes is learnt by doing it once without the lock: if it is too long for
//! writers to wait, they never do. Readers are never disturbed.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use log::debug;

use super::chase::Chase;
use super::live::{FileStamp, Header, LiveFile};
use super::stage::Staged;
use super::{Drive, DriveError, WriteOut, holes, sys};

/// How long others may keep us waiting, and we them.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest we wait for a writer to finish its transaction.
    pub lock: Duration,
    /// The longest we keep writers from committing. Swift's give up after 25 s.
    pub hold: Duration,
}

/// How a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The file system cloned it.
    Clone,
    /// It was copied, and nobody wrote meanwhile.
    Copy,
    /// It was copied while somebody wrote, or may have: read again under the lock.
    Mended {
        /// How many of its windows had changed.
        windows: u64,
    },
}

/// A consistent image of a database: a file in `tmp` that is ours alone, and gone when dropped.
#[derive(Debug)]
pub struct Snapshot {
    staged: Staged,
    bytes: u64,
    header: Header,
    stamp: FileStamp,
    way: Way,
    held: Duration,
}

impl Snapshot {
    /// Bytes of the image.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Never: what has no header is no database.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u32 {
        self.header.page_bytes
    }

    /// The database's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the live file looked like at the moment of which this is the image.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Reads at `offset`; fewer bytes than asked for, or none, at the end.
    pub fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.staged.file().read_at(buffer, offset)
    }

    /// Fills the buffer from `offset`.
    pub fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        holes::read_exact(self.staged.file(), offset, buffer)
    }

    /// Where the image is. SQLite may open it there, and even write to it.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// How it was taken.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The image as a file that may be changed and installed.
    pub fn into_staged(self) -> Staged {
        self.staged
    }

    /// How long writers were kept from committing.
    pub fn held(&self) -> Duration {
        self.held
    }
}

/// Takes an image of a live database into the `tmp` of its drive.
///
/// [`DriveError::HotJournal`] asks to let SQLite roll the database back first. [`DriveError::TooLong`] if it is written
/// to all the time, and too large to be read again while writers wait.
pub fn snapshot(database: &Path, drive: &Drive, patience: &Patience) -> Result<Snapshot, DriveError> {
    for _ in 1..REPLACEMENTS {
        match attempt(database, drive, patience) {
            Err(DriveError::Moved { .. }) => (),
            outcome => return outcome,
        }
    }
    attempt(database, drive, patience)
}

fn attempt(database: &Path, drive: &Drive, patience: &Patience) -> Result<Snapshot, DriveError> {
    if let Some(snapshot) = clone_live(database, drive, patience)? {
        return Ok(snapshot);
    }
    let live = LiveFile::open_read(database).map_err(|e| DriveError::io(database, e))?;
    copy_live(live, stage(database, drive)?, drive.write_out(), patience)
}

/// Takes an image if the file system can clone; `None` if it cannot.
///
/// # Errors
/// As [`snapshot`].
pub fn clone_live(
    database: &Path,
    drive: &Drive,
    patience: &Patience,
) -> Result<Option<Snapshot>, DriveError> {
    if !drive.clones.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let mut live = LiveFile::open_read(database).map_err(|e| DriveError::io(database, e))?;
    let staged = stage(database, drive)?;
    let since = lock(&mut live, patience)?;
    match sys::clone_blocks(live.file(), staged.file()) {
        Ok(()) => finish(live, staged, Way::Clone, since).map(Some),
        Err(e) if sys::cannot_clone(&e) => {
            drive.clones.store(false, Ordering::Relaxed);
            Ok(None)
        }
        Err(e) => Err(DriveError::io(database, e)),
    }
}

fn stage(database: &Path, drive: &Drive) -> Result<Staged, DriveError> {
    let name = database.file_stem().unwrap_or_default().to_string_lossy();
    drive.stage(&format!("{name}.snapshot"))
}

/// Copies first, and locks to see whether that was enough.
fn copy_live(
    mut live: LiveFile,
    staged: Staged,
    write_out: WriteOut,
    patience: &Patience,
) -> Result<Snapshot, DriveError> {
    let path = live.path().to_owned();
    let failed = |e| DriveError::io(&path, e);
    let start = SystemTime::now();
    let before = live.stamp().map_err(failed)?;
    if live.has_no_holes().map_err(failed)? {
        staged.preallocate(before.size)?;
    }
    let mut chase = Chase::start(&live, &staged, before.size, write_out).map_err(failed)?;
    let rested = |live: &LiveFile| Ok(live.stamp()? == before && written_long_before(&before, start));
    if !rested(&live).map_err(failed)? {
        // How long a look takes under the lock is best learnt without it.
        let begun = Instant::now();
        chase.look(&live, &staged, None).map_err(failed)?;
        let first = begun.elapsed();
        if first > patience.hold {
            chase.look(&live, &staged, None).map_err(failed)?;
            // What is read a second time comes from the cache, unless that is too small.
            if begun.elapsed() - first > patience.hold {
                return Err(DriveError::TooLong { path, limit: patience.hold });
            }
        }
    }
    let since = lock(&mut live, patience)?;
    let way = if rested(&live).map_err(failed)? {
        Way::Copy
    } else {
        match chase.look(&live, &staged, Some(since + patience.hold)).map_err(failed)? {
            Some(windows) => Way::Mended { windows },
            None => return Err(DriveError::TooLong { path, limit: patience.hold }),
        }
    };
    finish(live, staged, way, since)
}

/// Keeps writers out; fails if what is in the file then is not the database.
fn lock(live: &mut LiveFile, patience: &Patience) -> Result<Instant, DriveError> {
    live.lock_shared(patience.lock)?;
    let since = Instant::now();
    if !live.is_current() {
        return Err(DriveError::Moved { path: live.path().to_owned() });
    }
    live.refuse_hot_journal()?;
    Ok(since)
}

fn finish(mut live: LiveFile, staged: Staged, way: Way, since: Instant) -> Result<Snapshot, DriveError> {
    let failed = |e| DriveError::io(live.path(), e);
    let stamp = live.stamp().map_err(failed)?;
    let header = live.header().map_err(failed)?.filter(|header| !header.write_ahead_log);
    let header = header.ok_or_else(|| DriveError::NotADatabase { path: live.path().to_owned() })?;
    live.unlock();
    let held = since.elapsed();
    debug!(
        "{}: an image of {} bytes, {way:?}; no writer could commit for {:.1} ms",
        live.path().display(),
        stamp.size,
        held.as_secs_f64() * 1e3
    );
    Ok(Snapshot { staged, bytes: stamp.size, header, stamp, way, held })
}

/// Was the file last written to so long before `start` that any later write shows in its time?
pub(super) fn written_long_before(stamp: &FileStamp, start: SystemTime) -> bool {
    let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stamp.modified_ns < start.as_nanos() as i128 - GRAIN.as_nanos() as i128
}

/// File systems' clocks tick this often at worst.
const GRAIN: Duration = Duration::from_secs(2);
/// How often the database may be replaced under us before we give up.
const REPLACEMENTS: u32 = 5;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::testing::{Bench, Holder, SELECT, SPILL, bench, elsewhere, rows, sqlite};
    use super::*;

    const PATIENCE: Patience = Patience { lock: Duration::from_secs(20), hold: Duration::from_secs(20) };

    /// A database of several windows, the first rows numbered.
    fn large(bench: &Bench) -> std::path::PathBuf {
        let path = bench.database();
        sqlite(&path)
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
                 INSERT INTO object SELECT i, randomblob(1000) FROM n",
            )
            .unwrap();
        path
    }

    fn age(path: &Path) {
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    fn bytes(snapshot: &Snapshot) -> Vec<u8> {
        let mut bytes = vec![0; snapshot.len() as usize + 1];
        let read = snapshot.pread(0, &mut bytes).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn a_database_at_rest_is_copied_as_it_is() {
        let bench = bench();
        let path = large(&bench);
        age(&path);
        let snapshot = snapshot(&path, &bench.drive, &PATIENCE).unwrap();
        assert!(matches!(snapshot.way(), Way::Copy | Way::Clone), "{:?}", snapshot.way());
        assert!(bytes(&snapshot) == std::fs::read(&path).unwrap());
        assert_eq!(snapshot.page_bytes(), 4096);
        assert_eq!(snapshot.stamp(), LiveFile::open_read(&path).unwrap().stamp().unwrap());
        let image = snapshot.path().to_owned();
        drop(snapshot);
        assert!(!image.exists());
    }

    #[test]
    fn a_database_just_written_is_read_twice() {
        let bench = bench();
        bench.drive.clones.store(false, Ordering::Relaxed);
        let path = large(&bench);
        let snapshot = snapshot(&path, &bench.drive, &PATIENCE).unwrap();
        assert_eq!(snapshot.way(), Way::Mended { windows: 0 });
        assert!(bytes(&snapshot) == std::fs::read(&path).unwrap());
    }

    #[test]
    fn under_a_fast_writer_it_is_sound_and_has_every_row_committed_before() {
        for clones in [true, false] {
            let bench = bench();
            let path = large(&bench);
            bench.drive.clones.store(clones, Ordering::Relaxed);
            let writer = Holder::repeat(
                &path,
                "INSERT INTO object VALUES (-1, randomblob(3000));
                 UPDATE object SET filler = randomblob(1000) WHERE rowid = abs(random()) % 4000",
            );
            let reader = sqlite(&path);
            reader.busy_timeout(PATIENCE.lock).unwrap();
            let mut ways = Vec::new();
            for _ in 0..8 {
                let before = rows(&reader);
                let snapshot = snapshot(&path, &bench.drive, &PATIENCE).unwrap();
                let after = rows(&reader);
                let image = sqlite(snapshot.path());
                let check: String = image.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                assert_eq!(check, "ok");
                assert!((before..=after).contains(&rows(&image)));
                ways.push(snapshot.way());
            }
            drop(writer);
            let mended = |way: &Way| matches!(way, Way::Mended { windows: 1.. });
            assert!(ways.iter().any(|way| mended(way) || *way == Way::Clone), "nobody wrote: {ways:?}");
        }
    }

    #[test]
    fn a_database_that_waits_to_be_rolled_back_is_not_copied() {
        let bench = bench();
        let path = bench.database();
        drop(Holder::start(&path, SPILL));
        let outcome = snapshot(&path, &bench.drive, &PATIENCE);
        assert!(matches!(outcome, Err(DriveError::HotJournal { .. })), "{outcome:?}");
        assert!(elsewhere(&path, SELECT));
        let snapshot = snapshot(&path, &bench.drive, &PATIENCE).unwrap();
        assert_eq!(rows(&sqlite(snapshot.path())), 1);
    }

    #[test]
    fn a_living_writer_s_journal_is_no_hindrance() {
        let bench = bench();
        let path = bench.database();
        let _writer = Holder::start(&path, "BEGIN; INSERT INTO object VALUES (1, '')");
        assert!(super::super::live::journal_path(&path).exists());
        let snapshot = snapshot(&path, &bench.drive, &PATIENCE).unwrap();
        assert_eq!(rows(&sqlite(snapshot.path())), 1);
    }

    #[test]
    fn writers_are_not_locked_out_for_longer_than_agreed() {
        let bench = bench();
        bench.drive.clones.store(false, Ordering::Relaxed);
        let path = large(&bench);
        let outcome = snapshot(&path, &bench.drive, &Patience { hold: Duration::ZERO, ..PATIENCE });
        assert!(matches!(outcome, Err(DriveError::TooLong { .. })), "{outcome:?}");
        assert_eq!(std::fs::read_dir(bench.drive.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_database_is_not_one_in_the_image() {
        let bench = bench();
        let path = bench.database();
        for content in [&b""[..], b"SQLite format 3", &[7; 5000]] {
            std::fs::write(&path, content).unwrap();
            let outcome = snapshot(&path, &bench.drive, &PATIENCE);
            assert!(matches!(outcome, Err(DriveError::NotADatabase { .. })), "{outcome:?}");
        }
    }
}
