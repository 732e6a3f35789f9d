//! What a container's directory looks like from outside: enough to know that nothing in it changed.
//!
//! Whoever changes a container changes one of three inodes: the directory, when a file comes, goes or is renamed in it
//! (a new database, a journal, the first pending row); the database file, when SQLite commits or rolls back; the pending
//! file, when a container server appends to it. Times of change (`ctime`) cannot be set back, so a file that is restored
//! with its old times shows as well. What cannot be told apart is two changes within one tick of the clock: hence
//! [`Sight::is_settled`].

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::HashDir;

/// Three inodes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Stands for all that `stat` says of them that matters: equal ones looked equal.
    pub fingerprint: [u8; 16],
    /// The latest of their times, in nanoseconds since 1970.
    newest_ns: i128,
    /// The file in charge is the only one, and goes by the usual name: what most containers are.
    usual: bool,
}

impl Sight {
    /// Nothing changed so recently before `now` that another change could have left the same times; and no second file
    /// is there whose changes would not show. What was read between two equal sights is then what is there for as long
    /// as the sight stays the same.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now_ns = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        self.usual && self.newest_ns + (GRAIN.as_nanos() as i128) < now_ns
    }
}

impl HashDir {
    /// What it looks like now; `None` if there is no database in it.
    ///
    /// # Errors
    /// As `stat`.
    pub fn sight(&self) -> io::Result<Option<Sight>> {
        let Some(dir) = stat(self.dir())? else { return Ok(None) };
        let usual = self.dir().join(format!("{}.db", self.hash()));
        let (file, usual, name) = match stat(&usual)? {
            Some(file) => (file, true, usual),
            None => match self.in_charge()? {
                None => return Ok(None),
                Some(path) => match stat(&path)? {
                    Some(file) => (file, false, path),
                    None => return Ok(None),
                },
            },
        };
        let pending = stat(&self.pending_path())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.file_name().unwrap_or_default().as_bytes());
        let mut newest_ns = i128::MIN;
        // A database's own directory has no other size or times than what comes and goes in it gives it.
        for inode in [Some(&dir), Some(&file), pending.as_ref()] {
            let Some(inode) = inode else {
                hasher.update(b"-");
                continue;
            };
            let modified = nanoseconds(inode.mtime(), inode.mtime_nsec());
            let changed = nanoseconds(inode.ctime(), inode.ctime_nsec());
            newest_ns = newest_ns.max(modified).max(changed);
            for number in [inode.dev(), inode.ino(), inode.size()] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&modified.to_le_bytes());
            hasher.update(&changed.to_le_bytes());
        }
        let hash = hasher.finalize();
        let fingerprint = std::array::from_fn(|at| hash.as_bytes()[at]);
        Ok(Some(Sight { fingerprint, newest_ns, usual }))
    }
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// Far above the tick of any file system's clock: ext4 and XFS stamp with a tick of some milliseconds, older ones with a
/// second or two.
const GRAIN: Duration = Duration::from_secs(2);
