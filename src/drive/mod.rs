//! One mounted drive: find, stage, install, quarantine, remove.
//!
//! A drive is a directory of Swift's layout: `containers/` with the databases, `tmp/` for what is not one yet,
//! `quarantined/` for what should not be one any more. All raw access to those files is here: [`hash_dir`] for the
//! directory of one container, [`live`] for databases that others have open.
//! peace, [`stage`] to put a new one in place.

pub mod hash_dir;
pub mod live;
#[allow(dead_code)]
mod sys;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use hash_dir::{DbFileName, DirLock, HashDir};
pub use live::{FileStamp, LiveFile, OpenGuard, opening};

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
    /// The file is not one of SQLite's, or its commits go to a log that we do not read.
    NotADatabase {
        /// The file.
        path: PathBuf,
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
            DriveError::NotADatabase { path } => {
                write!(f, "{} is not a database we can read", path.display())
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
