//! What can be wrong with a database, told apart by what is done about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_READONLY_DBMOVED;

use crate::drive::DriveError;

/// What kept a broker from its work, split by what the caller does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerError {
    /// There is no database: the replica is missing here.
    Missing,
    /// It is no container database, or a broken one: quarantine it.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said, or what is not there.
        cause: String,
    },
    /// The disk failed, is full or refuses us. The database itself may be sound: try again, quarantine nothing.
    Io {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        cause: String,
    },
    /// Somebody else held a lock for longer than we wait: try again later.
    Busy {
        /// The file whose lock it is.
        path: PathBuf,
    },
    /// A database that was to be created is there already.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It holds, or was to be given, something that we cannot work with: leave it alone and report it.
    BadData {
        /// The file.
        path: PathBuf,
        /// What it is.
        cause: String,
    },
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerError::Missing => f.write_str("there is no database"),
            BrokerError::Damaged { path, cause } => write!(f, "{}: damaged: {cause}", path.display()),
            BrokerError::Io { path, cause } => write!(f, "{}: {cause}", path.display()),
            BrokerError::Busy { path } => write!(f, "{}: locked by others for too long", path.display()),
            BrokerError::Exists { path } => write!(f, "{}: there is a database already", path.display()),
            BrokerError::BadData { path, cause } => write!(f, "{}: cannot be used: {cause}", path.display()),
        }
    }
}

impl std::error::Error for BrokerError {}

impl BrokerError {
    /// Is it the database itself that is at fault, so that it has to be quarantined?
    pub fn is_damage(&self) -> bool {
        matches!(self, BrokerError::Damaged { .. })
    }

    /// The error of a system call on `path`.
    pub fn io(path: &Path, error: &std::io::Error) -> BrokerError {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::NotFound => BrokerError::Missing,
            ErrorKind::AlreadyExists => BrokerError::Exists { path },
            _ => BrokerError::Io { path, cause: error.to_string() },
        }
    }
}

impl From<DriveError> for BrokerError {
    fn from(error: DriveError) -> BrokerError {
        let cause = error.to_string();
        match error {
            DriveError::Busy { path }
            | DriveError::HotJournal { path }
            | DriveError::Moved { path }
            | DriveError::TooLong { path, .. } => BrokerError::Busy { path },
            DriveError::NotADatabase { path } => BrokerError::Damaged { path, cause },
            DriveError::NotMounted { path }
            | DriveError::NotADirectory { path }
            | DriveError::Full { path }
            | DriveError::Io { path, .. } => BrokerError::Io { path, cause },
        }
    }
}

/// A fault inside a transaction, before the file's path is added to it.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
    BadData(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl Fault {
    /// Tells what a caller treats alike (`swift/common/db.py: possibly_quarantine`, less its disk errors: a flaky read
    /// must not move a good database away).
    pub(super) fn at(self, path: &Path) -> BrokerError {
        let path = path.to_owned();
        let error = match self {
            Fault::Damaged(cause) => return BrokerError::Damaged { path, cause },
            Fault::BadData(cause) => return BrokerError::BadData { path, cause },
            Fault::Sqlite(error) => error,
        };
        let cause = error.to_string();
        if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_READONLY_DBMOVED) {
            return if path.exists() { BrokerError::Busy { path } } else { BrokerError::Missing };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BrokerError::Busy { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                BrokerError::Damaged { path, cause }
            }
            Some(ErrorCode::Unknown) if cause.contains("no such table") => {
                BrokerError::Damaged { path, cause }
            }
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::Unknown) | None => {
                BrokerError::BadData { path, cause }
            }
            Some(_) => BrokerError::Io { path, cause },
        }
    }
}
