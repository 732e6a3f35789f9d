//! What was last seen of each database on a drive, and the digests that sum it up.
//!
//! The ledger makes cost follow change: a database that looks as it did when it was last opened need not be opened
//! again, and two agents whose sums are equal need not speak of any. It is a cache. It lies on the drive that it
//! describes, goes where the drive goes, and may vanish, be cut or be older than the drive at any time: whatever it says
//! of a database counts only while the database looks as it says ([`crate::drive::Sight`]), so that losing it costs a
//! look and never an answer.
//!
//! It is a SQLite file of our own, because two processes may use it at once (a daemon that answers and a pass from cron)
//! and be killed at any moment. Each entry carries a checksum over itself and its key; a file that SQLite or a checksum
//! finds damaged is begun anew. It is not synced: after a power failure it may be old or broken, and both are allowed.
//!
//! Four things are in it. An [`Entry`] for each database that is where it belongs, by [`Key`], in the order of the
//! walk. For each partition the sum of its entries ([`SetDigest`]), so that the sum over any set of partitions is a few
//! additions; and with it, for each peer, the sum of those entries that agree with the peer: the same sum if all do, so
//! that what agrees is skipped. What its directories looked like when they held just these ([`Listing`]), so that they need
//! not be read. And when the drive was last walked as a whole.

mod digest;
mod entry;
mod file;
mod key;
mod listings;
mod part;
mod partitions;
mod recorder;
mod rows;
mod settle;
mod store;
mod sums;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use digest::{SetDigest, ShortDigest, StateDigest};
pub use entry::{AGREEMENTS_LIMIT, Agreement, Entry};
pub use key::{Key, Span};
pub use listings::Listing;
pub use partitions::{Neighbours, PartitionSet};
pub use recorder::Recorder;
pub use store::Ledger;
pub use sums::Sums;

use crate::hash_path::PartShift;

/// What a ledger was kept under. One kept under other terms is begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What keys depend on.
    pub part_shift: PartShift,
    /// What depends on it when an entry is due.
    pub reclaim_age: Duration,
    /// Likewise.
    pub full_check_interval: Duration,
}

/// A walk over the whole drive that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surveyed {
    /// When it began; what changed before that is in the ledger.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
}

/// Why a ledger is of no use now. Databases are then looked at one by one.
#[derive(Debug)]
pub struct LedgerError {
    /// Its file.
    pub path: PathBuf,
    /// What SQLite or the system said.
    pub cause: String,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: the ledger cannot be used ({}); every database is opened instead",
            self.path.display(),
            self.cause
        )
    }
}

impl std::error::Error for LedgerError {}

/// Entries handed out at once.
pub const PAGE_ENTRIES: usize = 1024;
/// A span of so many databases or fewer is told database by database.
pub const LEAVES_LIMIT: usize = 16;
