//! The ledger's file: entries read and written, sums kept beside them.

use std::sync::Mutex;
use std::time::SystemTime;

use super::partitions::PartitionSet;
use super::{Entry, Key, LedgerError, SetDigest, Span, StateDigest, Surveyed, Terms};
use crate::drive::Drive;
use crate::hash_path::Partition;
use crate::ring::DeviceId;

/// The ledger of one drive.
#[derive(Debug)]
pub struct Ledger {
    terms: Terms,
    walking: Mutex<()>,
}

impl Ledger {
    /// Opens the ledger of a drive (`agent/ledger.db` below its root). One that is missing, damaged, of another version or
    /// kept under other terms is begun anew.
    ///
    /// # Errors
    /// If none can be made: the drive is full, read-only, or not ours to write to.
    pub fn open(_drive: &Drive, _terms: Terms) -> Result<Ledger, LedgerError> {
        todo!()
    }

    /// What it is kept under.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Is it the ledger of this drive, as it is mounted now?
    pub fn is_of(&self, _drive: &Drive) -> bool {
        todo!()
    }

    /// Held by who walks the drive, so that two do not at a time.
    pub fn walking(&self) -> &Mutex<()> {
        &self.walking
    }

    /// The entry of a database.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entry(&self, _key: Key) -> Result<Option<Entry>, LedgerError> {
        todo!()
    }

    /// The first [`super::PAGE_ENTRIES`] entries from one key to another, both included, in order. Damaged ones are left
    /// out, and forgotten.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entries(&self, _first: Key, _last: Key) -> Result<Vec<(Key, Entry)>, LedgerError> {
        todo!()
    }

    /// Replaces entries, or forgets them (`None`); sums follow. All of it or nothing.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn update(&self, _changes: &[(Key, Option<Entry>)]) -> Result<(), LedgerError> {
        todo!()
    }

    /// Puts the sum of a partition right, from its entries. `Ok(false)` if it was right.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn mend_sum(&self, _partition: Partition) -> Result<bool, LedgerError> {
        todo!()
    }

    /// Remembers that all databases of a span, of the partitions shared with a device, agreed with it, if their sum is still
    /// `expected`: entries may have changed since it was compared. Says whether it was.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn agree(
        &self,
        _with: DeviceId,
        _shared: &PartitionSet,
        _span: Span,
        _expected: SetDigest,
    ) -> Result<bool, LedgerError> {
        todo!()
    }

    /// Remembers that these databases agreed with a device, those that are still in the state given.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn agree_singly(&self, _with: DeviceId, _which: &[(Key, StateDigest)]) -> Result<(), LedgerError> {
        todo!()
    }

    /// Remembers that these databases differ from what a device has.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn disagree(&self, _with: DeviceId, _which: &[Key]) -> Result<(), LedgerError> {
        todo!()
    }

    /// Remembers that the device has none of the databases of a span, of the partitions shared with it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn disagree_span(
        &self,
        _with: DeviceId,
        _shared: &PartitionSet,
        _span: Span,
    ) -> Result<(), LedgerError> {
        todo!()
    }

    /// The first entries after a key ([`super::PAGE_ENTRIES`] at most) that, as far as we know, some peer does not agree
    /// with: one of the devices that `peers` names for the partition. Partitions that agree as a whole are passed over
    /// unread.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn unsettled(
        &self,
        _after: Option<Key>,
        _peers: &dyn Fn(Partition) -> Vec<DeviceId>,
    ) -> Result<Vec<(Key, Entry)>, LedgerError> {
        todo!()
    }

    /// The last walk over the whole drive.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn surveyed(&self) -> Result<Option<Surveyed>, LedgerError> {
        todo!()
    }

    /// Remembers a walk.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_survey(&self, _survey: Surveyed) -> Result<(), LedgerError> {
        let _ = SystemTime::now();
        todo!()
    }
}
