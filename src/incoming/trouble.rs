//! Why an exchange goes no further, and what the peer is told of it.

use std::io;

use log::error;

use crate::broker::BrokerError;
use crate::drive::{DriveError, HashDir};
use crate::peer::PeerError;
use crate::protocol::Violation;
use crate::protocol::message::Refusal;

/// Why an action failed.
#[derive(Debug)]
pub enum Trouble {
    /// The connection is of no use any more.
    Peer(PeerError),
    /// Say so, and go on with the next database.
    Refuse(Refusal),
}

impl From<PeerError> for Trouble {
    fn from(error: PeerError) -> Trouble {
        Trouble::Peer(error)
    }
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Trouble {
        Trouble::Peer(violation.into())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refuse(refusal)
    }
}

/// Moves a damaged database away, so that the next whole file can take its place. Damage to another file, say one that
/// has just arrived, is no reason to: that is only logged.
pub fn quarantine(dir: &HashDir, reason: &BrokerError) {
    if !matches!(reason, BrokerError::Damaged { path, .. } if path.starts_with(dir.dir())) {
        return error!(database:% = dir.dir().display(); "{}: {reason}", dir.dir().display());
    }
    match dir.quarantine() {
        Ok(Some(to)) => {
            error!(database:% = dir.dir().display(); "Quarantined {} to {} due to {reason}", dir.dir().display(), to.display())
        }
        Ok(None) => {}
        Err(error) => {
            error!(database:% = dir.dir().display(); "cannot quarantine {}: {error}; move it away by hand", dir.dir().display())
        }
    }
}

/// What a peer is told of trouble with our database. Damage leads to quarantine.
pub fn refuse_broker(dir: &HashDir, error: BrokerError) -> Refusal {
    match error {
        BrokerError::Busy { .. } => Refusal::Busy,
        error if error.is_damage() => {
            quarantine(dir, &error);
            Refusal::Damaged
        }
        error => Refusal::Failed(error.to_string()),
    }
}

/// What a peer is told of trouble with our drive.
pub fn refuse_drive(error: DriveError) -> Refusal {
    match error {
        DriveError::NotMounted { .. } | DriveError::NotADirectory { .. } => Refusal::NotMounted,
        DriveError::Full { .. } => Refusal::Full,
        DriveError::Busy { .. } | DriveError::HotJournal { .. } => Refusal::Busy,
        error => Refusal::Failed(error.to_string()),
    }
}

/// What a peer is told of trouble with a file.
pub fn refuse_io(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Full,
        _ => Refusal::Failed(error.to_string()),
    }
}

/// What a window holds that does not hold a window.
pub const WINDOW_SIZE: Violation = Violation::Lie("a window of another size");
