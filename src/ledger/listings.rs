//! What partitions looked like when they held just the databases that the ledger has of them.
//!
//! Nothing here needs to be in step with the entries: a [`Listing`] vouches for one set of names and no other.

use super::entry::check;
use super::file::Fault;
use super::rows::enough;
use super::store::Ledger;
use super::{Key, LedgerError, PAGE_ENTRIES};
use crate::drive::ListingFingerprint;
use crate::hash_path::Partition;

/// A partition as it was when it was last listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// What its directories looked like, and what lay there.
    pub fingerprint: ListingFingerprint,
    /// When it is to be listed again in any case, in seconds since 1970.
    pub due_secs: u64,
}

impl Ledger {
    /// The listings of the first [`PAGE_ENTRIES`] partitions from one on that have any, in order. After a page with fewer
    /// there are no more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn listings(&self, first: Partition) -> Result<Vec<(Partition, Listing)>, LedgerError> {
        self.file.look(|rows| {
            let mut page = Vec::new();
            rows.each_listing(first, |partition, listing| {
                page.push((partition, listing));
                enough(page.len() >= PAGE_ENTRIES)
            })?;
            Ok(page)
        })
    }

    /// Remembers listings. All of them or none.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_listings(&self, listings: &[(Partition, Listing)]) -> Result<(), LedgerError> {
        if listings.is_empty() {
            return Ok(());
        }
        self.file.change(|rows| {
            listings.iter().try_for_each(|(partition, listing)| rows.put_listing(*partition, Some(listing)))
        })
    }
}

impl Listing {
    /// As stored. The bytes know their partition and whether they are whole.
    pub(super) fn encode(&self, partition: Partition) -> Vec<u8> {
        let mut bytes = [&self.fingerprint[..], &self.due_secs.to_le_bytes()].concat();
        bytes.extend(check(name(partition), &bytes));
        bytes
    }

    /// As it was stored.
    pub(super) fn decode(partition: Partition, bytes: &[u8]) -> Result<Listing, Fault> {
        let whole = bytes.split_last_chunk::<8>().filter(|(body, sum)| **sum == check(name(partition), body));
        let fields = whole.and_then(|(body, _)| body.split_first_chunk()).and_then(|(fingerprint, due)| {
            Some(Listing { fingerprint: *fingerprint, due_secs: u64::from_le_bytes(due.try_into().ok()?) })
        });
        fields.ok_or_else(|| Fault::Damaged(format!("the listing of partition {partition} is unreadable")))
    }
}

/// Where a listing's checksum takes it to stand: where no sums of a partition do.
fn name(partition: Partition) -> Key {
    Key(1 << 32 | u128::from(partition.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let listing = Listing { fingerprint: std::array::from_fn(|at| at as u8), due_secs: 1 << 40 };
        let bytes = listing.encode(Partition(7));
        assert_eq!(Listing::decode(Partition(7), &bytes).unwrap(), listing);
        assert!(Listing::decode(Partition(6), &bytes).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(Listing::decode(Partition(7), &flipped).is_err());
            assert!(Listing::decode(Partition(7), &bytes[..at]).is_err());
        }
        // Sealed, but of other lengths.
        for length in (0..40).filter(|length| *length != 24) {
            let mut bytes = vec![1; length];
            bytes.extend(check(name(Partition(7)), &bytes));
            assert!(Listing::decode(Partition(7), &bytes).is_err(), "{length}");
        }
    }
}
