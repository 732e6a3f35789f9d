//! The directory that holds one container: its database files, its pending file, its lock.
//!
//! Nothing here opens a database: closing it again would drop the locks that SQLite holds on it in this process (see
//! [`super::live`]). Names and places are Swift's own, because its servers work in the same directories.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{DriveError, make_dir, random_name, unlink_older};
use crate::hash_path::{Hash, Partition, storage_directory};

/// The directory of one hash on one drive, whether or not it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashDir {
    device: Arc<Path>,
    dir: PathBuf,
    hash: Hash,
}

impl HashDir {
    /// Where the hash belongs below a device's directory.
    pub fn new(device: Arc<Path>, partition: Partition, hash: Hash) -> HashDir {
        HashDir { dir: device.join(storage_directory(partition, &hash)), device, hash }
    }

    /// A directory found below a device, wherever it is; `None` if its name is no hash.
    pub fn at(device: Arc<Path>, dir: PathBuf) -> Option<HashDir> {
        let hash = dir.file_name()?.to_str()?.parse().ok()?;
        Some(HashDir { device, dir, hash })
    }

    /// The directory around a database file, if it lies as Swift lays it:
    /// `<device>/containers/<partition>/<suffix>/<hash>/<file>`.
    pub fn of_database(database: &Path) -> Option<HashDir> {
        let dir = database.parent()?;
        HashDir::at(dir.ancestors().nth(4)?.into(), dir.to_owned())
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The hash it is for.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The directory of the device it is on.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The name of its partition's directory, decimal in practice; empty if it lies less deep than that.
    pub fn partition_name(&self) -> &str {
        let name = self.dir.ancestors().nth(2).and_then(Path::file_name);
        name.and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The database files in it in Swift's order, the one in charge last (`swift/common/utils: get_db_files`). None if
    /// the directory is missing.
    pub fn db_files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            names.extend(name.to_str().filter(|name| self.owns(name)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names.into_iter().map(|name| self.dir.join(name)).collect())
    }

    /// What the database is called unless it is being sharded, or was.
    pub fn usual_path(&self) -> PathBuf {
        self.dir.join(format!("{}.db", self.hash))
    }

    /// The file that is the database, if there is one.
    pub fn in_charge(&self) -> io::Result<Option<PathBuf>> {
        Ok(self.db_files()?.pop())
    }

    /// Is this the name of a database file of this hash?
    pub fn owns(&self, file_name: &str) -> bool {
        let name = DbFileName::parse(file_name);
        name.extension == ".db" && name.hash == self.hash.to_string()
    }

    /// Rows that the container server left beside the database; one file whatever the epoch of the one in charge.
    pub fn pending_path(&self) -> PathBuf {
        self.dir.join(format!("{}.db.pending", self.hash))
    }

    /// Rows wait in the pending file. Certain only under the directory's lock, which its writers take.
    pub fn has_pending(&self) -> bool {
        fs::metadata(self.pending_path()).is_ok_and(|file| file.len() > 0)
    }

    /// Makes the directory and those above it, mode 0755, if they are missing.
    pub fn create(&self) -> io::Result<()> {
        make_dir(&self.dir)
    }

    /// Takes the lock that Swift's daemons take (see [`DirLock`]), making the directory first if it is missing.
    pub fn lock(&self, timeout: Duration) -> Result<DirLock, DriveError> {
        DirLock::take(&self.dir, timeout)
    }

    /// Like [`HashDir::lock`], but `None` if there is no directory to lock.
    pub fn lock_if_there(&self, timeout: Duration) -> Result<Option<DirLock>, DriveError> {
        DirLock::take_if_there(&self.dir, timeout)
    }

    /// Makes lasting what was created, renamed or removed in it, and its own way down from the device's `containers`.
    pub fn sync(&self) -> io::Result<()> {
        self.dir.ancestors().take(4).try_for_each(|dir| File::open(dir)?.sync_all())
    }

    /// Unlinks databases under construction that nobody finished: `*.tmp` last written before `older_than`
    /// (`swift/common/db_replicator.py: _reclaim_tmp_dbs`). Returns how many.
    pub fn reclaim_tmp(&self, older_than: SystemTime) -> io::Result<u64> {
        unlink_older(&self.dir, older_than, |name| name.ends_with(".tmp"))
    }

    /// Moves the whole directory to `quarantined/containers` of its device, under another name if the hash is taken
    /// there (`swift/common/db_replicator.py: quarantine_db`). `None` if it is gone already.
    pub fn quarantine(&self) -> io::Result<Option<PathBuf>> {
        let shelf = self.device.join("quarantined/containers");
        make_dir(&shelf)?;
        let names = [self.hash.to_string(), random_name(&format!("{}-", self.hash), 16)];
        let mut result = Ok(None);
        for name in names {
            let place = shelf.join(name);
            result = match fs::rename(&self.dir, &place) {
                Ok(()) => return Ok(Some(place)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => Err(e),
            };
            let taken = |e: &io::Error| {
                [Some(Errno::ENOTEMPTY as i32), Some(Errno::EEXIST as i32)].contains(&e.raw_os_error())
            };
            if !result.as_ref().is_err_and(taken) {
                break;
            }
        }
        result
    }

    /// Removes the directory with all that is in it, its link under `sync_containers`, and then suffix and partition
    /// if they are empty (`swift/common/db_replicator.py: delete_db`).
    ///
    /// Unlike Swift's `rmtree` it goes in one rename, so that nobody ever finds half of it; what cannot be deleted
    /// afterwards lies in `tmp` until it is reclaimed there. Removing what is gone is no error.
    pub fn remove(&self, lock: &DirLock) -> io::Result<()> {
        assert_eq!(lock.dir(), self.dir, "the lock of another directory");
        self.remove_sync_link()?;
        let tmp = self.device.join("tmp");
        make_dir(&tmp)?;
        let aside = tmp.join(random_name(&format!("{}.", self.hash), 8) + REMOVED);
        match fs::rename(&self.dir, &aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => _ = fs::remove_dir_all(&aside),
        }
        self.remove_empty_parents();
        Ok(())
    }

    /// Removes suffix and partition directory, stopping at the first that is still in use.
    fn remove_empty_parents(&self) {
        for parent in self.dir.ancestors().skip(1).take(2) {
            match fs::remove_dir(parent) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => break,
                _ => (),
            }
        }
    }

    /// Where the link to a database file is while its container syncs to another cluster
    /// (`swift/container/sync_store.py`); `None` if the directory is not under `containers`.
    pub fn sync_link(&self, file_name: &str) -> Option<PathBuf> {
        let below = self.dir.strip_prefix(self.device.join("containers")).ok()?;
        Some(self.device.join("sync_containers").join(below).join(file_name))
    }

    /// Unlinks the links of all its database files, and the directories that this leaves empty.
    fn remove_sync_link(&self) -> io::Result<()> {
        for file in self.db_files()? {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(link) = self.sync_link(name) else { continue };
            match fs::remove_file(&link) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                outcome => outcome?,
            }
            for dir in link.ancestors().skip(1).take(4) {
                if fs::remove_dir(dir).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The `flock` on `.lock` of a directory: held by Swift's daemons while they append to the pending file or take it in,
/// put a new database in place, or remove the directory. Released when dropped.
///
/// It comes before any lock of SQLite's, never after: a container server that holds it may be waiting for SQLite.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    _file: Flock<File>,
}

impl DirLock {
    /// Takes the lock of a directory, asking every 10 ms until `timeout` is over
    /// (`swift/common/utils: lock_parent_directory`). Makes the directory if it is missing.
    pub fn take(dir: &Path, timeout: Duration) -> Result<DirLock, DriveError> {
        let give_up = Instant::now() + timeout;
        for _ in 0..CREATIONS {
            if let Some(lock) =
                DirLock::take_if_there(dir, give_up.saturating_duration_since(Instant::now()))?
            {
                return Ok(lock);
            }
            make_dir(dir).map_err(|e| DriveError::io(dir, e))?;
        }
        Err(DriveError::Busy { path: dir.join(LOCK_NAME) })
    }

    /// Like [`DirLock::take`], but `None` if there is no such directory, or no longer.
    pub fn take_if_there(dir: &Path, timeout: Duration) -> Result<Option<DirLock>, DriveError> {
        let path = dir.join(LOCK_NAME);
        let give_up = Instant::now() + timeout;
        loop {
            let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o755).open(&path);
            let file = match opened {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(|e| DriveError::io(&path, e))?,
            };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) if names(&path, &file) => {
                    return Ok(Some(DirLock { dir: dir.to_owned(), _file: file }));
                }
                // Whoever had the lock removed the directory with it: what we hold now is no longer the lock.
                Ok(_) => (),
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => std::thread::sleep(LOCK_POLL),
                Err((_, errno)) => return Err(DriveError::io(&path, errno.into())),
            }
            if Instant::now() >= give_up {
                return Err(DriveError::Busy { path });
            }
        }
    }

    /// The directory it locks.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Does the path still name the file that is open?
fn names(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

/// The parts of a database file's name: `<hash>[_<epoch>]<extension>` (`swift/common/utils: parse_db_filename`).
///
/// Any text has them; nothing is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DbFileName<'a> {
    /// What stands before the first `_`.
    pub hash: &'a str,
    /// What stands between it and the next `_`, in practice a stamp.
    pub epoch: Option<&'a str>,
    /// From the last dot on, or empty; a dot at the very start begins no extension.
    pub extension: &'a str,
}

impl<'a> DbFileName<'a> {
    /// Splits a file's name.
    pub fn parse(file_name: &'a str) -> DbFileName<'a> {
        let leading_dots = file_name.len() - file_name.trim_start_matches('.').len();
        let dot = file_name.rfind('.').filter(|dot| *dot >= leading_dots).unwrap_or(file_name.len());
        let (name, extension) = file_name.split_at(dot);
        let mut parts = name.split('_');
        DbFileName { hash: parts.next().unwrap_or_default(), epoch: parts.next(), extension }
    }

    /// The name with another epoch, or with none (`swift/common/utils: make_db_file_path`).
    pub fn with_epoch(&self, epoch: Option<&str>) -> String {
        match epoch {
            Some(epoch) => format!("{}_{epoch}{}", self.hash, self.extension),
            None => format!("{}{}", self.hash, self.extension),
        }
    }
}

/// The empty file that is locked.
const LOCK_NAME: &str = ".lock";
/// How often a lock that is held is asked for again; Swift's interval.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// How often a directory is made anew for its lock when others keep removing it.
const CREATIONS: u32 = 10;
/// Ends the names of directories in `tmp` that are being deleted.
pub(super) const REMOVED: &str = ".removed";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::testing::bench;
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn places() {
        let bench = bench();
        let dir = bench.hash_dir();
        let database = bench.database();
        assert_eq!(HashDir::of_database(&database), Some(dir.clone()));
        assert_eq!(dir.partition_name(), "5");
        assert_eq!(dir.device(), bench.drive.root());
        assert!(
            dir.pending_path()
                .to_str()
                .unwrap()
                .ends_with("d432/21f0ff3587d6ff7c47a3516c8a4cd432.db.pending")
        );
        assert_eq!(bench.drive.hash_dir_at(database), None);
    }

    #[test]
    fn the_lock_is_held_by_one_at_a_time() {
        let bench = bench();
        let dir = bench.hash_dir();
        assert!(dir.lock_if_there(SOON).unwrap().is_none());
        let lock = dir.lock(Duration::ZERO).unwrap();
        assert!(matches!(dir.lock(SOON), Err(DriveError::Busy { .. })));
        assert!(matches!(dir.lock_if_there(SOON), Err(DriveError::Busy { .. })));
        drop(lock);
        assert!(dir.lock_if_there(Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn whoever_waits_for_a_lock_that_is_removed_gets_the_one_that_counts() {
        let bench = bench();
        let dir = bench.hash_dir();
        let first = dir.lock(LONG).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| dir.lock(LONG).unwrap());
            std::thread::sleep(SOON);
            dir.remove(&first).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert!(matches!(dir.lock(SOON), Err(DriveError::Busy { .. })));
            drop(second);
        });
    }

    /// What a waiter may find itself holding; too brief a moment to be met by chance.
    #[test]
    fn a_lock_file_that_was_removed_is_not_the_lock() {
        let bench = bench();
        let dir = bench.hash_dir();
        let path = dir.dir().join(LOCK_NAME);
        dir.create().unwrap();
        let old = File::create(&path).unwrap();
        assert!(names(&path, &old));
        fs::remove_file(&path).unwrap();
        assert!(!names(&path, &old));
        let _new = File::create(&path).unwrap();
        assert!(!names(&path, &old));
    }

    #[test]
    fn quarantine_keeps_what_is_there_already() {
        let bench = bench();
        let dir = bench.hash_dir();
        let shelf = bench.drive.root().join("quarantined/containers");
        let mut places = Vec::new();
        for _ in 0..3 {
            bench.database();
            places.push(dir.quarantine().unwrap().expect("it was there"));
            assert!(!dir.dir().exists());
        }
        assert_eq!(places[0], shelf.join(dir.hash().to_string()));
        for place in &places {
            assert!(place.join(format!("{}.db", dir.hash())).exists());
        }
        for place in &places[1..] {
            let name = place.file_name().unwrap().to_str().unwrap();
            let random = name.strip_prefix(&format!("{}-", dir.hash())).unwrap();
            assert_eq!(random.len(), 32);
        }
        assert_eq!(dir.quarantine().unwrap(), None);
    }

    #[test]
    fn remove_takes_everything_along() {
        let bench = bench();
        let dir = bench.hash_dir();
        let database = bench.database();
        fs::write(dir.pending_path(), "rows").unwrap();
        let link = dir.sync_link(database.file_name().unwrap().to_str().unwrap()).unwrap();
        make_dir(link.parent().unwrap()).unwrap();
        symlink(&database, &link).unwrap();

        let lock = dir.lock(LONG).unwrap();
        dir.remove(&lock).unwrap();
        let left =
            |dir: &Path| fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        assert_eq!(left(&bench.drive.containers()), Vec::<PathBuf>::new());
        assert_eq!(left(&bench.drive.tmp()), Vec::<PathBuf>::new());
        assert!(!link.exists() && fs::symlink_metadata(&link).is_err());
        assert!(!bench.drive.root().join("sync_containers").exists());
        dir.remove(&lock).unwrap();
    }

    #[test]
    fn remove_leaves_suffixes_that_are_in_use() {
        let bench = bench();
        let dir = bench.hash_dir();
        bench.database();
        let neighbour = dir.dir().with_file_name("other");
        fs::create_dir(&neighbour).unwrap();
        dir.remove(&dir.lock(LONG).unwrap()).unwrap();
        assert!(neighbour.exists());
    }
}
