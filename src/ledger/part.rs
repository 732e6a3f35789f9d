//! What is kept of one partition: the sum of its entries, and for each peer the sum of those that agree with it.
//!
//! One invariant carries all skipping: *the sum kept for a peer is that of just those entries of the partition for which
//! [`Entry::agrees_with`] says so.* Hence a partition whose two sums are equal agrees as a whole, and none of its entries
//! need be read. Nothing has to be taken back when an entry changes, or changes and changes back, or when a peer turns out
//! to differ: whatever happens to an entry, both sums follow it in the same transaction ([`Part::put`]).

use super::digest::SetDigest;
use super::entry::{Entry, check};
use super::key::Key;
use crate::hash_path::Partition;
use crate::ring::DeviceId;

/// The sums of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Part {
    /// Of all its entries.
    pub sum: SetDigest,
    /// Of those that agree with a peer, by device, in order; none that is empty. As many as peers are named by entries:
    /// those of the partition's rings, past and present.
    agreed: Vec<(DeviceId, SetDigest)>,
}

impl Part {
    /// An entry is replaced: comes, changes or goes.
    pub fn put(&mut self, key: Key, old: Option<&Entry>, new: Option<&Entry>) {
        for (entry, comes) in [(old, false), (new, true)] {
            let Some(entry) = entry else { continue };
            let one = SetDigest::of(key, entry.state);
            shift(&mut self.sum, one, comes);
            for with in entry.agreements.iter().map(|agreement| agreement.with) {
                if entry.agrees_with(with) {
                    self.shift_agreed(with, one, comes);
                }
            }
        }
    }

    fn shift_agreed(&mut self, with: DeviceId, one: SetDigest, comes: bool) {
        let at = match self.agreed.binary_search_by_key(&with, |(device, _)| *device) {
            Ok(at) => at,
            Err(at) => {
                self.agreed.insert(at, (with, SetDigest::EMPTY));
                at
            }
        };
        shift(&mut self.agreed[at].1, one, comes);
        if self.agreed[at].1 == SetDigest::EMPTY {
            self.agreed.remove(at);
        }
    }

    /// All its entries agree with a device.
    pub fn agrees_with(&self, with: DeviceId) -> bool {
        let agreed = self.agreed.iter().find(|(device, _)| *device == with);
        agreed.map_or(SetDigest::EMPTY, |(_, sum)| *sum) == self.sum
    }

    /// As stored. The bytes know their partition and whether they are whole.
    pub fn encode(&self, partition: Partition) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SetDigest::BYTES + self.agreed.len() * AGREED_BYTES + 8);
        bytes.extend(self.sum.to_bytes());
        for (device, sum) in &self.agreed {
            bytes.extend(device.0.to_le_bytes());
            bytes.extend(sum.to_bytes());
        }
        bytes.extend(check(Key(partition.0.into()), &bytes));
        bytes
    }

    /// As it was stored; `None` if it is damaged, or another's.
    pub fn decode(partition: Partition, bytes: &[u8]) -> Option<Part> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if *sum != check(Key(partition.0.into()), body) {
            return None;
        }
        let (sum, rest) = body.split_first_chunk::<{ SetDigest::BYTES }>()?;
        let agreed = rest.chunks(AGREED_BYTES).map(|bytes| {
            let (device, sum) = bytes.split_first_chunk::<4>()?;
            Some((DeviceId(u32::from_le_bytes(*device)), SetDigest::from_bytes(sum.try_into().ok()?)))
        });
        Some(Part { sum: SetDigest::from_bytes(*sum), agreed: agreed.collect::<Option<_>>()? })
    }
}

fn shift(sum: &mut SetDigest, one: SetDigest, comes: bool) {
    if comes { *sum += one } else { *sum -= one }
}

const AGREED_BYTES: usize = 4 + SetDigest::BYTES;

#[cfg(test)]
mod tests {
    use super::super::{Agreement, StateDigest};
    use super::*;
    use crate::replica::RowId;

    fn entry(state: u8, agreed_with: &[u32]) -> Entry {
        let state = StateDigest([state; 16]);
        let agreement = |with: &u32| Agreement {
            with: DeviceId(*with),
            state: state.short(),
            row: RowId(1),
            holds: true,
        };
        Entry {
            seen: None,
            state,
            replica: [0; 8],
            max_row: RowId(1),
            met_row: RowId(1),
            due_secs: 0,
            introduce: false,
            agreements: agreed_with.iter().map(agreement).collect(),
        }
    }

    fn agrees(part: &Part) -> Vec<u32> {
        (0..5).filter(|device| part.agrees_with(DeviceId(*device))).collect()
    }

    #[test]
    fn it_agrees_with_whom_all_its_entries_agree() {
        let mut part = Part::default();
        assert_eq!(agrees(&part), [0, 1, 2, 3, 4]);
        let (one, two) = (entry(1, &[3, 1, 2]), entry(2, &[2, 3]));
        part.put(Key(1), None, Some(&one));
        assert_eq!(agrees(&part), [1, 2, 3]);
        part.put(Key(2), None, Some(&two));
        assert_eq!(agrees(&part), [2, 3]);
        let mut changed = two.clone();
        changed.disagree(DeviceId(2));
        part.put(Key(2), Some(&two), Some(&changed));
        assert_eq!(agrees(&part), [3]);
        let moved = Entry { state: StateDigest([3; 16]), ..changed.clone() };
        part.put(Key(2), Some(&changed), Some(&moved));
        assert_eq!(agrees(&part), [0; 0]);
        let shy = Entry { introduce: true, ..two.clone() };
        part.put(Key(2), Some(&moved), Some(&shy));
        assert_eq!(agrees(&part), [0; 0]);
        part.put(Key(2), Some(&shy), None);
        assert_eq!(agrees(&part), [1, 2, 3]);
        part.put(Key(1), Some(&one), None);
        assert_eq!(part, Part::default());
    }

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let mut part = Part::default();
        for (nth, agreed_with) in [&[][..], &[4], &[4, 2, 0]].into_iter().enumerate() {
            part.put(Key(nth as u128), None, Some(&entry(nth as u8, agreed_with)));
            let bytes = part.encode(Partition(5));
            assert_eq!(Part::decode(Partition(5), &bytes), Some(part.clone()));
            assert_eq!(Part::decode(Partition(4), &bytes), None);
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                assert_eq!(Part::decode(Partition(5), &flipped), None);
                assert_eq!(Part::decode(Partition(5), &bytes[..at]), None);
            }
        }
        // Sealed, but of no whole number of fields.
        for length in 0..80 {
            let mut bytes = vec![1; length];
            bytes.extend(check(Key(5), &bytes));
            let whole = length >= SetDigest::BYTES && (length - SetDigest::BYTES) % AGREED_BYTES == 0;
            assert_eq!(Part::decode(Partition(5), &bytes).is_some(), whole);
        }
    }
}
