//! A database to be shipped as it was at one moment.
//!
//! An image costs as much disk traffic as the shipping itself where blocks cannot be cloned. But most databases rest most
//! of the time. One that nobody wrote to of late is read where it lies, without any lock; a look at the end tells whether
//! that was a consistent whole, and if not, an image is taken after all, from which follows what has changed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::live::{FileStamp, Header, LiveFile};
use super::snapshot::{Patience, Snapshot, clone_live, snapshot, written_long_before};
use super::{Drive, DriveError};

/// Where the bytes of a database come from.
#[derive(Debug)]
pub enum Source {
    /// An image, ours alone.
    Image(Snapshot),
    /// The database itself, as long as nobody writes to it.
    Resting(Resting),
}

/// A database that nobody wrote to when we began to read.
#[derive(Debug)]
pub struct Resting {
    live: LiveFile,
    header: Header,
    stamp: FileStamp,
}

impl Source {
    /// Looks at a database and decides.
    ///
    /// # Errors
    /// As [`snapshot`].
    pub fn of(database: &Path, drive: &Drive, patience: &Patience) -> Result<Source, DriveError> {
        match clone_live(database, drive, patience) {
            Ok(Some(image)) => return Ok(Source::Image(image)),
            // Replaced in that very moment; the copy tries again.
            Ok(None) | Err(DriveError::Moved { .. }) => {}
            Err(error) => return Err(error),
        }
        match Resting::of(database).map_err(|e| DriveError::io(database, e))? {
            Some(resting) => Ok(Source::Resting(resting)),
            None => snapshot(database, drive, patience).map(Source::Image),
        }
    }

    /// Bytes of it.
    pub fn len(&self) -> u64 {
        match self {
            Source::Image(image) => image.len(),
            Source::Resting(resting) => resting.stamp.size,
        }
    }

    /// Never: what has no header is no database.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u32 {
        match self {
            Source::Image(image) => image.page_bytes(),
            Source::Resting(resting) => resting.header.page_bytes,
        }
    }

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// If it cannot be read, or has become shorter.
    pub fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Source::Image(image) => image.read_exact(offset, buffer),
            Source::Resting(resting) => resting.read_exact(offset, buffer),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> PathBuf {
        match self {
            Source::Image(image) => image.path().to_owned(),
            Source::Resting(resting) => resting.live.path().to_owned(),
        }
    }
}

impl Resting {
    /// `None` if it was written to a moment ago, or somebody is about to.
    fn of(database: &Path) -> io::Result<Option<Resting>> {
        let live = LiveFile::open_read(database)?;
        let start = SystemTime::now();
        let stamp = live.stamp()?;
        let header = live.header()?.filter(|header| !header.write_ahead_log);
        let rests = written_long_before(&stamp, start) && !live.has_journal()?;
        Ok(header.filter(|_| rests).map(|header| Resting { live, header, stamp }))
    }

    /// Is all that was read so far, and was committed before, one consistent whole? Asked under SQLite's shared lock,
    /// which is held for no longer than that.
    ///
    /// # Errors
    /// If writers do not let us look in time, or it cannot be read.
    pub fn rested(&mut self, patience: &Patience) -> Result<bool, DriveError> {
        self.live.lock_shared(patience.lock)?;
        let rested = || -> io::Result<bool> {
            // A journal that was left behind means that a commit was cut off.
            Ok(self.live.is_current() && self.live.stamp()? == self.stamp && !self.live.is_hot()?)
        };
        let rested = rested().map_err(|e| DriveError::io(self.live.path(), e));
        self.live.unlock();
        rested
    }

    fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let filled = self.live.read(offset, buffer)?;
        // If it was truncated, what stands there now is for the end to tell.
        buffer[filled..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::super::testing::{Bench, Holder, SPILL, bench, sqlite};
    use super::*;

    const PATIENCE: Patience = Patience { lock: Duration::from_secs(20), hold: Duration::from_secs(20) };

    /// A database that was last written to long ago, on a drive that does not clone.
    fn resting(bench: &Bench) -> PathBuf {
        bench.drive.clones.store(false, Ordering::Relaxed);
        let path = bench.database();
        age(&path);
        path
    }

    fn age(path: &Path) {
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    fn taken(bench: &Bench, path: &Path) -> Source {
        Source::of(path, &bench.drive, &PATIENCE).unwrap()
    }

    fn rested(source: Source) -> bool {
        let Source::Resting(mut resting) = source else { panic!("it rested when we began") };
        resting.rested(&PATIENCE).unwrap()
    }

    #[test]
    fn a_database_at_rest_is_read_where_it_lies() {
        let bench = bench();
        let path = resting(&bench);
        let source = taken(&bench, &path);
        let mut bytes = vec![0; source.len() as usize];
        source.read_exact(0, &mut bytes).unwrap();
        assert!(bytes == std::fs::read(&path).unwrap());
        assert_eq!((source.page_bytes(), source.path()), (4096, path));
        assert!(rested(source));
    }

    #[test]
    fn one_that_was_just_written_to_is_not() {
        let bench = bench();
        bench.drive.clones.store(false, Ordering::Relaxed);
        assert!(matches!(taken(&bench, &bench.database()), Source::Image(_)));
    }

    #[test]
    fn whatever_is_written_meanwhile_is_noticed() {
        let changes: [fn(&Path); 5] = [
            |path| sqlite(path).execute_batch("INSERT INTO object VALUES (1, '')").unwrap(),
            |path| sqlite(path).execute_batch("VACUUM").unwrap(),
            // Gone and back, with its old time.
            |path| {
                sqlite(path).execute_batch("INSERT INTO object VALUES (1, '')").unwrap();
                age(path);
            },
            |path| {
                let other = path.with_extension("other");
                std::fs::copy(path, &other).unwrap();
                std::fs::rename(other, path).unwrap();
                age(path);
            },
            // A writer that died within its commit.
            |path| drop(Holder::start(path, SPILL)),
        ];
        for (nth, change) in changes.iter().enumerate() {
            let bench = bench();
            let path = resting(&bench);
            let source = taken(&bench, &path);
            change(&path);
            assert!(!rested(source), "change {nth}");
        }
    }

    #[test]
    fn a_file_cut_short_reads_as_nothing_and_is_noticed() {
        let bench = bench();
        let path = resting(&bench);
        let source = taken(&bench, &path);
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let mut bytes = vec![1; source.len() as usize];
        source.read_exact(0, &mut bytes).unwrap();
        assert!(bytes[4096..].iter().all(|byte| *byte == 0) && bytes[0] != 0);
        assert!(!rested(source));
    }
}
