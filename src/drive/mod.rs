//! One mounted drive: find, stage, install, quarantine, remove.
//!
//! A drive is a directory of Swift's layout: `containers/` with the databases, `tmp/` for what is not one yet,
//! `quarantined/` for what should not be one any more. All raw access to those files is here: [`hash_dir`] for the
//! directory of one container, [`sight`] for what it looks like from outside, [`live`] for databases that others have
//! open, [`snapshot`] to read one of those in peace, [`source`] to know when that is not needed, [`stage`] to put a new
//! one in place, [`holes`] for what in a file was never written. Others work there too: [`pressure`] is what they bear.

mod chase;
pub mod hash_dir;
pub mod holes;
pub mod listing;
pub mod live;
pub mod pressure;
pub mod sight;
pub mod snapshot;
pub mod source;
pub mod stage;
mod sys;
mod writeout;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;

use crate::hash_path::{Hash, Partition};

pub use hash_dir::{DbFileName, DirLock, HashDir};
pub use listing::{Listing, ListingFingerprint};
pub use live::{FileStamp, LiveFile, OpenGuard, opening};
pub use pressure::{LONG_REST, Pressure, SHORT_REST, Side, TURN_PAUSE, Turn};
pub use sight::Sight;
pub use snapshot::{Patience, Snapshot, clone_live, snapshot};
pub use source::{Resting, Source};
pub use stage::{InstallError, Replaced, Settled, Staged, Why, replaced_files};
pub use sys::{
    cannot_clone, clock_is_kept, clone_blocks, keep_heap_small, set_io_priority, set_nice, trim_heap,
};
pub use writeout::WriteOut;

/// The name of a device: that of a directory below `devices`, and safe to use as one.
///
/// It is what URL quoting leaves alone (`swift/common/constraints.py: check_drive`): ASCII letters, digits and `_.-~`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);

impl DeviceName {
    /// `None` for empty text, text over 255 bytes, `.` and `..`, and text with any other character.
    pub fn new(text: impl Into<String>) -> Option<DeviceName> {
        let text = text.into();
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-~".contains(&b));
        let sound = plain && (1..=255).contains(&text.len()) && text != "." && text != "..";
        sound.then_some(DeviceName(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device of ours that was there when we looked.
#[derive(Debug)]
pub struct Drive {
    root: Arc<Path>,
    name: DeviceName,
    /// The file system that was mounted when we looked.
    file_system: u64,
    /// No clone has failed yet for want of support.
    clones: AtomicBool,
    pressure: Option<Arc<Pressure>>,
}

impl Drive {
    /// Looks whether a device is there: a mount point if `mount_check`, else a directory
    /// (`swift/common/constraints.py: check_drive`).
    pub fn open(devices: &Path, name: &DeviceName, mount_check: bool) -> Result<Drive, DriveError> {
        let root = devices.join(name.as_str());
        if mount_check && !is_mount_point(&root).map_err(|e| DriveError::io(&root, e))? {
            return Err(DriveError::NotMounted { path: root });
        }
        match fs::metadata(&root) {
            Ok(metadata) if metadata.is_dir() => Ok(Drive {
                root: root.into(),
                name: name.clone(),
                file_system: metadata.dev(),
                clones: AtomicBool::new(true),
                pressure: None,
            }),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DriveError::io(&root, e)),
            _ => Err(DriveError::NotADirectory { path: root }),
        }
    }

    /// The same, with regard to how hard it is pressed.
    pub fn under(self, pressure: Arc<Pressure>) -> Drive {
        Drive { pressure: Some(pressure), ..self }
    }

    /// How hard it is pressed, if anybody cares.
    pub fn pressure(&self) -> Option<&Arc<Pressure>> {
        self.pressure.as_ref()
    }

    /// How long to rest after work that kept it busy for so long ([`Pressure::rest_after`]).
    pub fn rest_after(&self, worked: Duration, longest: Duration) -> Duration {
        self.pressure.as_ref().map_or(Duration::ZERO, |pressure| pressure.rest_after(worked, longest))
    }

    /// For a large file that is written there from front to back.
    pub fn write_out(&self) -> WriteOut {
        WriteOut::under(self.pressure.clone())
    }

    /// Fails if the drive was unmounted since it was opened: what we then wrote would fill the disk beneath it.
    pub fn still_mounted(&self) -> Result<(), DriveError> {
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.dev() == self.file_system => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DriveError::io(&self.root, e)),
            _ => Err(DriveError::NotMounted { path: self.root.to_path_buf() }),
        }
    }

    /// The device's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The device's name.
    pub fn name(&self) -> &DeviceName {
        &self.name
    }

    /// Where Swift keeps container databases on it.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Where files lie that are no databases yet, or no longer.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where a hash belongs on this drive, whether or not it is there.
    pub fn hash_dir(&self, partition: Partition, hash: Hash) -> HashDir {
        HashDir::new(self.root.clone(), partition, hash)
    }

    /// A hash directory found elsewhere on this drive, say below a partition that no ring knows; `None` if its name is
    /// no hash.
    pub fn hash_dir_at(&self, dir: PathBuf) -> Option<HashDir> {
        HashDir::at(self.root.clone(), dir)
    }

    /// Unlinks files in `tmp` last written before `older_than`, as Swift's replicator does, and what is left of
    /// directories that were being removed. Other directories stay, and so do replaced databases that may hold rows
    /// that no other has ([`replaced_files`]). Returns how many files went.
    pub fn reclaim_tmp(&self, older_than: SystemTime) -> io::Result<u64> {
        let tmp = self.tmp();
        if let Ok(entries) = fs::read_dir(&tmp) {
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().ends_with(hash_dir::REMOVED) {
                    // Fails for what is no directory; that is old some day.
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
        unlink_older(&tmp, older_than, |name| !name.ends_with(stage::REPLACED))
    }

    /// Would there still be more than `reserve_bytes`, and more than `reserve_percent` of the drive, free after writing
    /// `wanted` bytes? (`swift/common/utils: FallocateWrapper`, `fallocate_reserve`)
    pub fn has_room(&self, reserve_bytes: u64, reserve_percent: f64, wanted: u64) -> io::Result<bool> {
        let space = statvfs(&*self.root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
        let (free, size) = (bytes(space.blocks_available()), bytes(space.blocks()));
        Ok(free
            .checked_sub(wanted)
            .is_some_and(|left| is_above_reserve(left, size, reserve_bytes, reserve_percent)))
    }

    /// A new, empty file in `tmp`. Its name begins with `name`, say a replica's id, and is never used twice.
    pub fn stage(&self, name: &str) -> Result<Staged, DriveError> {
        self.still_mounted()?;
        make_dir(&self.tmp()).map_err(|e| DriveError::io(&self.tmp(), e))?;
        Staged::create(&self.tmp(), name)
    }
}

/// Is it more than the reserve, if so many bytes are left on a drive of so many?
pub fn is_above_reserve(left: u64, size: u64, reserve_bytes: u64, reserve_percent: f64) -> bool {
    let percent = left as f64 * 100.0 / size.max(1) as f64;
    (reserve_bytes == 0 || left > reserve_bytes) && (reserve_percent == 0.0 || percent > reserve_percent)
}

/// A directory on another file system than its parent, or its own parent, or marked by an operator with a file
/// `.ismount`; a symlink only if so marked (`swift/common/utils: ismount_raw`).
fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        metadata => metadata?,
    };
    if fs::metadata(dir.join(".ismount")).is_ok_and(|mark| mark.is_file()) {
        return Ok(true);
    }
    if !metadata.is_dir() {
        return Ok(false);
    }
    let parent = fs::symlink_metadata(dir.join(".."))?;
    Ok(metadata.dev() != parent.dev() || metadata.ino() == parent.ino())
}

/// Makes a directory and those above it as Swift's daemons do, readable by all.
fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

/// What goes wrong with a drive, split by what can be done about it.
#[derive(Debug)]
pub enum DriveError {
    /// Not a mount point, though `mount_check` asks for one.
    NotMounted {
        /// The device's directory.
        path: PathBuf,
    },
    /// There is no such directory.
    NotADirectory {
        /// The device's directory.
        path: PathBuf,
    },
    /// The drive has no room for this.
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// Others held a lock for longer than we were to wait: try later.
    Busy {
        /// What is locked.
        path: PathBuf,
    },
    /// A writer died in mid-commit: let SQLite open the database, which rolls it back, then try again.
    HotJournal {
        /// The database.
        path: PathBuf,
    },
    /// Its path names another file by now: look again.
    Moved {
        /// The database.
        path: PathBuf,
    },
    /// The file is not one of SQLite's, or its commits go to a log that we do not read.
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// Copying would have kept others from writing for longer than we may.
    TooLong {
        /// The database.
        path: PathBuf,
        /// How long we may.
        limit: Duration,
    },
    /// Anything else that the system said.
    Io {
        /// What it was about.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl DriveError {
    /// An error of the system, with its place; knows a full drive when it sees one.
    pub fn io(path: &Path, error: io::Error) -> DriveError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DriveError::Full { path },
            _ => DriveError::Io { path, error },
        }
    }
}

impl fmt::Display for DriveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriveError::NotMounted { path } => {
                write!(f, "{} is not mounted; mount it, or set mount_check = false", path.display())
            }
            DriveError::NotADirectory { path } => write!(f, "{} is not a directory", path.display()),
            DriveError::Full { path } => write!(f, "no room on the drive for {}", path.display()),
            DriveError::Busy { path } => write!(f, "{} is locked by others", path.display()),
            DriveError::HotJournal { path } => write!(f, "{} waits to be rolled back", path.display()),
            DriveError::Moved { path } => write!(f, "{} was replaced by another file", path.display()),
            DriveError::NotADatabase { path } => {
                write!(f, "{} is not a database we can read", path.display())
            }
            DriveError::TooLong { path, limit } => {
                write!(
                    f,
                    "{} cannot be copied without locking writers out for over {limit:?}",
                    path.display()
                )
            }
            DriveError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DriveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DriveError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// `start` and as many random bytes in hex: a name that no other process, and no earlier run of this one, has used.
fn random_name(start: &str, bytes: usize) -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random[..bytes]).expect("the kernel has random numbers");
    random[..bytes].iter().fold(start.to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

/// Unlinks the files of a directory that were last written before `older_than` and whose name `is_ours`; what cannot be
/// unlinked stays (`swift/common/utils: unlink_older_than`). Returns how many went.
fn unlink_older(dir: &Path, older_than: SystemTime, is_ours: impl Fn(&str) -> bool) -> io::Result<u64> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut unlinked = 0;
    for entry in entries {
        let entry = entry?;
        if !is_ours(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified < older_than);
        unlinked += u64::from(old && fs::remove_file(entry.path()).is_ok());
    }
    Ok(unlinked)
}

#[cfg(test)]
mod tests {
    use super::testing::bench;
    use super::*;

    #[test]
    fn device_names_are_those_that_quoting_leaves_alone() {
        for good in ["sdb1", "d0", "a-b_c.d~e", "..a", "-", &"x".repeat(255)] {
            assert!(DeviceName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a+b", "a%b", "é", "a\0", "a\n", &"x".repeat(256)] {
            assert!(DeviceName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_drive_is_a_directory_and_mounted_if_that_is_asked_for() {
        let devices = tempfile::tempdir().unwrap();
        let devices = devices.path();
        let open =
            |name: &str, mount_check| Drive::open(devices, &DeviceName::new(name).unwrap(), mount_check);
        fs::create_dir(devices.join("dir")).unwrap();
        fs::write(devices.join("file"), "").unwrap();
        std::os::unix::fs::symlink("dir", devices.join("link")).unwrap();
        assert!(matches!(open("missing", false), Err(DriveError::NotADirectory { .. })));
        assert!(matches!(open("file", false), Err(DriveError::NotADirectory { .. })));
        assert!(open("dir", false).is_ok() && open("link", false).is_ok());
        for name in ["missing", "file", "dir", "link"] {
            assert!(matches!(open(name, true), Err(DriveError::NotMounted { .. })), "{name}");
        }
        fs::write(devices.join("dir/.ismount"), "").unwrap();
        assert!(open("dir", true).is_ok() && open("link", true).is_ok());
        assert!(Drive::open(Path::new("/"), &DeviceName::new("proc").unwrap(), true).is_ok());
    }

    #[test]
    fn room_is_what_is_left_above_the_reserve() {
        let bench = bench();
        let has_room = |bytes, percent, wanted| bench.drive.has_room(bytes, percent, wanted).unwrap();
        assert!(has_room(0, 0.0, 1));
        assert!(!has_room(0, 0.0, u64::MAX));
        assert!(!has_room(u64::MAX, 0.0, 1));
        assert!(!has_room(0, 100.0, 1));
    }
}
