//! What the ledger has, read beside a walk in the walk's order, a page at a time.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::now_secs;
use crate::drive::ListingFingerprint;
use crate::hash_path::{Hash, PartShift, Partition};
use crate::ledger::{Entry, Key, Ledger, LedgerError, Listing, PAGE_ENTRIES};
use crate::look::next_turn;
use crate::scan::Memory;

/// The entries of a ledger and its listings.
pub(super) struct Remembered<'a> {
    ledger: &'a Ledger,
    shift: PartShift,
    /// The key at which the walk begins: keys are counted from here, and wrap.
    base: u128,
    page: VecDeque<(Key, Entry)>,
    /// Where the next page begins, counted from the base; `None` after the last.
    next: Option<u128>,
    listings: Vec<(Partition, Listing)>,
    /// The partitions of which these are all that there are.
    listings_of: Option<RangeInclusive<Partition>>,
    /// Listings that are not in the ledger yet.
    new: Vec<(Partition, Listing)>,
    failure: Option<LedgerError>,
}

impl<'a> Remembered<'a> {
    /// For a walk from a partition on.
    pub fn new(ledger: &'a Ledger, from: Partition) -> Remembered<'a> {
        let shift = ledger.terms().part_shift;
        Remembered {
            ledger,
            shift,
            base: Key::first_of(from, shift).0,
            page: VecDeque::new(),
            next: Some(0),
            listings: vec![],
            listings_of: None,
            new: vec![],
            failure: None,
        }
    }

    fn place(&self, key: Key) -> u128 {
        key.0.wrapping_sub(self.base)
    }

    /// Reads a page more; false after the last.
    fn read_on(&mut self) -> Result<bool, LedgerError> {
        let Some(next) = self.next else { return Ok(false) };
        let first = self.base.wrapping_add(next);
        // From the base to the last key, then from the first key to the base.
        let last = if first >= self.base { u128::MAX } else { self.base - 1 };
        let page = self.ledger.entries(Key(first), Key(last))?;
        let end = page.last().filter(|_| page.len() == PAGE_ENTRIES).map_or(last, |(key, _)| key.0);
        self.next = self.place(Key(end)).checked_add(1);
        self.page.extend(page);
        Ok(true)
    }

    fn front(&mut self) -> Result<Option<&(Key, Entry)>, LedgerError> {
        while self.page.is_empty() && self.read_on()? {}
        Ok(self.page.front())
    }

    /// The next entry.
    pub fn pop(&mut self) -> Result<Option<(Key, Entry)>, LedgerError> {
        self.front()?;
        Ok(self.page.pop_front())
    }

    /// Does the next entry come before this key?
    pub fn is_before(&mut self, key: Key) -> Result<bool, LedgerError> {
        let place = self.place(key);
        let front = self.front()?.map(|(front, _)| *front);
        Ok(front.is_some_and(|front| self.place(front) < place))
    }

    /// The entry of this key, if it is the next.
    pub fn take(&mut self, key: Key) -> Result<Option<Entry>, LedgerError> {
        match self.front()? {
            Some((front, _)) if *front == key => Ok(self.page.pop_front().map(|(_, entry)| entry)),
            _ => Ok(None),
        }
    }

    /// The databases of a partition, unless they are too many to have in hand at once.
    fn databases(&mut self, partition: Partition) -> Result<Option<Vec<Hash>>, LedgerError> {
        let (first, last) = (Key::first_of(partition, self.shift), Key::last_of(partition, self.shift));
        let (first, last) = (self.place(first), self.place(last));
        while self.page.back().is_none_or(|(key, _)| self.place(*key) < last) {
            if self.page.len() > RECALLED_LIMIT {
                return Ok(None);
            }
            if !self.read_on()? {
                break;
            }
        }
        let keys = self.page.iter().map(|(key, _)| *key);
        let keys = keys.skip_while(|key| self.place(*key) < first).take_while(|key| self.place(*key) <= last);
        Ok(Some(keys.map(|key| key.hash(self.shift)).collect()))
    }

    /// How a partition looked when it was last listed.
    fn listing(&mut self, partition: Partition) -> Result<Option<Listing>, LedgerError> {
        if !self.listings_of.as_ref().is_some_and(|known| known.contains(&partition)) {
            self.listings = self.ledger.listings(partition)?;
            let last = self.listings.last().filter(|_| self.listings.len() == PAGE_ENTRIES);
            self.listings_of = Some(partition..=last.map_or(Partition(u32::MAX), |(last, _)| *last));
        }
        let at = self.listings.binary_search_by_key(&partition, |(partition, _)| *partition);
        Ok(at.ok().map(|at| self.listings[at].1))
    }

    fn try_recall(
        &mut self,
        partition: Partition,
    ) -> Result<Option<(Vec<Hash>, ListingFingerprint)>, LedgerError> {
        if u64::from(partition.0) >= self.shift.partitions() {
            return Ok(None);
        }
        let Some(listing) = self.listing(partition)?.filter(|listing| now_secs() < listing.due_secs) else {
            return Ok(None);
        };
        Ok(self.databases(partition)?.map(|databases| (databases, listing.fingerprint)))
    }

    /// Each partition has its turn to be listed once in an interval, at a time of its own.
    fn due_secs(&self, partition: Partition) -> u64 {
        let interval = self.ledger.terms().full_check_interval;
        let phase =
            u128::from(partition.0) * u128::from(interval.as_secs()) / u128::from(self.shift.partitions());
        next_turn(phase as u64, interval, now_secs())
    }

    fn write(&mut self) {
        if let Err(error) = self.ledger.note_listings(&self.new) {
            self.failure.get_or_insert(error);
        }
        self.new.clear();
    }

    /// Writes what is left of new listings.
    ///
    /// # Errors
    /// The first since the walk began.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        self.write();
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Memory for Remembered<'_> {
    fn recall(&mut self, partition: Partition) -> Option<(Vec<Hash>, ListingFingerprint)> {
        // A ledger that cannot be read is told of by whoever asks it for the entries.
        self.try_recall(partition).ok().flatten()
    }

    fn listed(&mut self, partition: Partition, fingerprint: ListingFingerprint) {
        if u64::from(partition.0) >= self.shift.partitions() {
            return;
        }
        self.new.push((partition, Listing { fingerprint, due_secs: self.due_secs(partition) }));
        if self.new.len() >= TOGETHER {
            self.write();
        }
    }
}

/// As many databases as there are suffixes. In a partition with more, a directory that is listed holds several.
const RECALLED_LIMIT: usize = 4096;
/// Listings are written so many at a time.
const TOGETHER: usize = 512;
