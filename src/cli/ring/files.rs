//! The files of a builder: where they are, who may write them now, and their dated backups.
//!
//! A builder `x.builder` has its ring `x.ring.gz` beside it, and copies of both in `backups/<seconds since 1970>.<name>`,
//! one for each time that Swift's tool keeps one: when a builder is made, at a rebalance, and of a ring that is written
//! anew. Where Swift would write over a backup of the same second, a later one takes the next second that is free: the
//! names keep their form and their order, and a second does not matter to whoever looks for a day.
//!
//! Whoever writes is alone. The lock is the one that `swift-ring-builder-safe` takes, on `.lock` in the directory; it is
//! taken before the builder is read and held until all is written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Refusal;
use crate::drive::{DirLock, DriveError};
use crate::ring::builder::Builder;
use crate::ring::{FormatVersion, Ring, RingError};

/// What a builder's files are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The builder.
    pub builder: PathBuf,
    /// The ring.
    pub ring: PathBuf,
}

impl Names {
    /// Both names from either (`swift/common/ring/utils.py: parse_builder_ring_filename_args`).
    pub fn of(given: &Path) -> Names {
        let bytes = given.as_os_str().as_bytes();
        let with =
            |stem: &[u8], end: &str| PathBuf::from(OsString::from_vec([stem, end.as_bytes()].concat()));
        match bytes.strip_suffix(RING_END.as_bytes()) {
            Some(stem) => Names { builder: with(stem, BUILDER_END), ring: given.to_owned() },
            None => {
                let stem = bytes.strip_suffix(BUILDER_END.as_bytes()).unwrap_or(bytes);
                Names { builder: given.to_owned(), ring: with(stem, RING_END) }
            }
        }
    }

    /// The directory of the names as they were given.
    fn directory(&self) -> &Path {
        self.builder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Waits until nobody else writes here. Where the builder is a link, its own directory is locked too, for somebody may
    /// come by the other way; all take the two in the same order.
    ///
    /// # Errors
    /// The directory does not exist or cannot be written in, or somebody held the lock for too long.
    pub fn lock(&self) -> Result<Vec<DirLock>, Refusal> {
        let own = fs::canonicalize(self.directory());
        let own = own.map_err(|error| Refusal::Unusable { path: self.directory().to_owned(), error })?;
        let linked = fs::canonicalize(&self.builder).ok();
        let mut directories = vec![own];
        directories.extend(linked.as_deref().and_then(Path::parent).map(Path::to_owned));
        directories.sort();
        directories.dedup();
        directories.iter().map(|directory| lock(directory)).collect()
    }

    /// Makes a dated copy of a builder, of a ring, or of both under one date.
    ///
    /// # Errors
    /// The copies cannot be written; then there are none.
    pub fn back_up(
        &self,
        mut builder: Option<&mut Builder>,
        ring: Option<(&Ring, FormatVersion)>,
        now_secs: u64,
    ) -> Result<Backup, Refusal> {
        let directory = self.directory().join(BACKUPS);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Refusal::Unusable { path: directory, error });
            }
            _ => {}
        }
        let named = |seconds: u64, path: &Path| {
            let mut name = OsString::from(format!("{seconds}."));
            name.push(path.file_name().unwrap_or(OsStr::new("")));
            directory.join(name)
        };
        let is_free = |path: PathBuf| fs::symlink_metadata(path).is_err();
        let seconds = (now_secs..now_secs + DATES_TRIED).find(|&seconds| {
            (builder.is_none() || is_free(named(seconds, &self.builder)))
                && (ring.is_none() || is_free(named(seconds, &self.ring)))
        });
        let seconds = seconds.unwrap_or(now_secs);
        let mut backup = Backup(Vec::new());
        if let Some(builder) = &mut builder {
            builder.save(backup.adding(named(seconds, &self.builder)))?;
        }
        if let Some((ring, version)) = ring {
            ring.save(backup.adding(named(seconds, &self.ring)), version)?;
        }
        Ok(backup)
    }

    /// Writes the ring, where a link leads to if it is one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_ring(&self, ring: &Ring, version: FormatVersion) -> Result<(), RingError> {
        let target = fs::canonicalize(&self.ring).unwrap_or_else(|_| self.ring.clone());
        ring.save(&target, version)
    }
}

/// Copies just made, which vanish again unless what they are copies of takes effect: a drive that is full must not fill with
/// backups of what could not be saved.
#[must_use]
#[derive(Debug)]
pub struct Backup(Vec<PathBuf>);

impl Backup {
    /// Lets them stay.
    pub fn keep(mut self) {
        self.0.clear();
    }

    fn adding(&mut self, path: PathBuf) -> &Path {
        self.0.push(path);
        self.0.last().expect("one at least")
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The lock of one directory.
fn lock(directory: &Path) -> Result<DirLock, Refusal> {
    match DirLock::take_if_there(directory, LOCK_PATIENCE) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Refusal::Unusable { path: directory.to_owned(), error: ErrorKind::NotFound.into() }),
        Err(DriveError::Busy { path }) => Err(Refusal::Locked { holder: Holder::of(&path), path }),
        Err(error) => Err(Refusal::Lock(error)),
    }
}

/// The process that holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its command line, if that can be seen.
    pub command: String,
}

impl Holder {
    /// Looks through the locks that the kernel lists. `None` if the holder just let go or is not to be seen, as from
    /// within a container.
    fn of(path: &Path) -> Option<Holder> {
        let inode = fs::metadata(path).ok()?.ino();
        let pid = holder_among(&fs::read_to_string("/proc/locks").ok()?, inode)?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
        Some(Holder { pid, command })
    }
}

/// Who holds a `flock` on an inode, in lines such as `3: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
fn holder_among(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else { return None };
        let theirs: u64 = file.rsplit(':').next()?.parse().ok()?;
        pid.parse().ok().filter(|_| theirs == inode)
    })
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        if self.command.is_empty() { Ok(()) } else { write!(f, ", {}", self.command) }
    }
}

const BUILDER_END: &str = ".builder";
const RING_END: &str = ".ring.gz";

/// Beside the builder.
const BACKUPS: &str = "backups";

/// How far from its time a backup's date may be: further than anybody can have made backups ahead.
const DATES_TRIED: u64 = 3600;

/// For how long another command may keep us waiting; Swift's tool waits as long.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_leads_to_both() {
        let table = [
            ("c.builder", "c.builder", "c.ring.gz"),
            ("/etc/c.ring.gz", "/etc/c.builder", "/etc/c.ring.gz"),
            ("c", "c", "c.ring.gz"),
            ("c.builder.gz", "c.builder.gz", "c.builder.gz.ring.gz"),
        ];
        for (given, builder, ring) in table {
            let expected = Names { builder: builder.into(), ring: ring.into() };
            assert_eq!(Names::of(Path::new(given)), expected);
        }
    }

    #[test]
    fn the_holder_is_read_from_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:2f:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 42 fd:01:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 fd:01:13 0 EOF\n\
                     broken\n";
        assert_eq!(holder_among(locks, 12), Some(42));
        assert_eq!(holder_among(locks, 13), None, "who waits does not hold");
        assert_eq!(holder_among("", 12), None);
    }

    #[test]
    fn a_lock_that_is_held_is_known_by_its_holder() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = lock(directory.path()).expect("the lock");
        let holder = Holder::of(&directory.path().join(".lock"));
        assert!(holder.is_none_or(|holder| holder.pid == std::process::id()));
        drop(held);
        assert_eq!(Holder::of(&directory.path().join(".lock")), None);
    }
}
