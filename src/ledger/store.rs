//! The ledger of one drive: entries read and written, sums kept beside them.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::file::LedgerFile;
use super::rows::Changes;
use super::{Entry, Key, LedgerError, PAGE_ENTRIES, Surveyed, Terms};
use crate::drive::Drive;
use crate::hash_path::Partition;

/// The ledger of one drive. Threads take turns; so do processes that have the same one open.
#[derive(Debug)]
pub struct Ledger {
    pub(super) file: LedgerFile,
    walking: Mutex<()>,
}

impl Ledger {
    /// Opens the ledger of a drive (`agent/ledger.db` below its root). One that is missing, damaged, of another version or
    /// kept under other terms is begun anew.
    ///
    /// # Errors
    /// If none can be made: the drive is full, read-only, or not ours to write to.
    pub fn open(drive: &Drive, terms: Terms) -> Result<Ledger, LedgerError> {
        Ok(Ledger { file: LedgerFile::open(drive, terms)?, walking: Mutex::default() })
    }

    /// Opens the ledger of a drive for reading only, as another process may have it open: nothing is made, mended, begun anew
    /// or rolled back. Methods that would write fail.
    ///
    /// # Errors
    /// If it is missing, damaged, not ours, or was not used since the machine started; the cause says which.
    pub fn open_to_look(drive: &Drive, terms: Terms) -> Result<Ledger, LedgerError> {
        Ok(Ledger { file: LedgerFile::open_to_look(drive, terms)?, walking: Mutex::default() })
    }

    /// Removes the ledger of a drive, as far as there is one. It is only a cache.
    pub fn discard(drive: &Drive) {
        super::file::discard(drive);
    }

    /// What it is kept under.
    pub fn terms(&self) -> Terms {
        self.file.terms()
    }

    /// Is it the ledger of this drive, as it is mounted now?
    pub fn is_of(&self, drive: &Drive) -> bool {
        self.file.is_of(drive)
    }

    /// Closes the file until it is used again: one that is open keeps its drive from being unmounted.
    pub fn rest(&self) {
        self.file.rest();
    }

    /// Held by who walks the drive, so that two do not at a time.
    pub fn walking(&self) -> &Mutex<()> {
        &self.walking
    }

    /// The entry of a database.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entry(&self, key: Key) -> Result<Option<Entry>, LedgerError> {
        self.file.look(|rows| rows.entry(key))
    }

    /// The first [`PAGE_ENTRIES`] entries from one key to another, both included, in order. Damaged ones are left
    /// out, and forgotten. After a page with fewer there are no more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn entries(&self, first: Key, last: Key) -> Result<Vec<(Key, Entry)>, LedgerError> {
        self.file.look(|rows| rows.page(first, last, PAGE_ENTRIES))
    }

    /// Replaces entries, or forgets them (`None`); sums follow. All of it or nothing.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn update(&self, changes: &[(Key, Option<Entry>)]) -> Result<(), LedgerError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.file.change(|rows| {
            let mut parts = Changes::new(rows);
            for (key, new) in changes {
                parts.put(*key, rows.entry(*key)?.as_ref(), new.as_ref())?;
            }
            parts.finish()
        })
    }

    /// Puts the sum of a partition right, from its entries. `Ok(false)` if it was right.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn mend_sum(&self, partition: Partition) -> Result<bool, LedgerError> {
        self.file.change(|rows| rows.mend(partition))
    }

    /// The last walk over the whole drive.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn surveyed(&self) -> Result<Option<Surveyed>, LedgerError> {
        let survey = self.file.look(|rows| rows.survey())?;
        Ok(survey.and_then(|bytes| {
            let (began, took) = bytes.split_first_chunk::<8>()?;
            let (began, took) = (u64::from_le_bytes(*began), u64::from_le_bytes(took.try_into().ok()?));
            let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(began))?;
            Some(Surveyed { began, took: Duration::from_nanos(took) })
        }))
    }

    /// Remembers a walk.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_survey(&self, survey: Surveyed) -> Result<(), LedgerError> {
        let began = survey.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = [began, survey.took].map(|time| time.as_nanos().try_into().unwrap_or(u64::MAX));
        self.file.change(|rows| rows.put_survey(nanoseconds.map(u64::to_le_bytes).concat()))
    }
}
