//! What is remembered of one database.

use super::digest::{ShortDigest, StateDigest, start_of};
use super::key::Key;
use crate::replica::{ReplicaId, RowId};
use crate::ring::DeviceId;

/// One database, as it was when somebody last looked into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What its directory looked like then ([`crate::drive::Sight::fingerprint`]); `None` if a change since then might
    /// not show.
    pub seen: Option<[u8; 16]>,
    /// What it held.
    pub state: StateDigest,
    /// Which database it was: a digest of its id.
    pub replica: [u8; 8],
    /// Its last row.
    pub max_row: RowId,
    /// Its last row when its peers were last met singly, and Swift's own tables told of it.
    pub met_row: RowId,
    /// When time alone asks for another look, in seconds since 1970.
    pub due_secs: u64,
    /// Its peers are to be met singly, whatever the sums say.
    pub introduce: bool,
    /// What was last agreed with each peer; at most [`AGREEMENTS_LIMIT`], one a device.
    pub agreements: Vec<Agreement>,
}

/// A moment at which a replica of a peer was equal to ours. Both sides keep it under the same digest, so that when they
/// differ later, either can say where the difference starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The peer's device.
    pub with: DeviceId,
    /// The state that both were in.
    pub state: ShortDigest,
    /// Our last row then.
    pub row: RowId,
    /// Nothing is known against it. If not, the peer has changed since.
    pub holds: bool,
}

impl Entry {
    /// The digest of an id, as kept here.
    pub fn replica_of(id: &ReplicaId) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(id.as_str().as_bytes());
        start_of(&hasher)
    }

    /// What was agreed with a device.
    pub fn agreement(&self, with: DeviceId) -> Option<&Agreement> {
        self.agreements.iter().find(|agreement| agreement.with == with)
    }

    /// As far as we know, the device's replica is equal to ours, and need not be asked.
    pub fn agrees_with(&self, with: DeviceId) -> bool {
        !self.introduce && self.stands_with(with)
    }

    /// What was agreed with the device last is what we hold, and nothing is known against it.
    pub fn stands_with(&self, with: DeviceId) -> bool {
        let stands = |agreement: &Agreement| agreement.holds && agreement.state == self.state.short();
        self.agreement(with).is_some_and(stands)
    }

    /// The device's replica turned out to be equal.
    pub fn agree(&mut self, with: DeviceId) {
        self.agreements.retain(|agreement| agreement.with != with);
        if self.agreements.len() == AGREEMENTS_LIMIT {
            self.agreements.remove(0);
        }
        self.agreements.push(Agreement { with, state: self.state.short(), row: self.max_row, holds: true });
    }

    /// The device's replica turned out to differ.
    pub fn disagree(&mut self, with: DeviceId) {
        let known = self.agreements.iter_mut().find(|agreement| agreement.with == with);
        if let Some(agreement) = known {
            agreement.holds = false;
        }
    }

    /// Nothing that was agreed with the device counts any more.
    pub fn forget(&mut self, with: DeviceId) {
        self.agreements.retain(|agreement| agreement.with != with);
    }

    /// As stored under a key. The bytes know their key and whether they are whole.
    pub fn encode(&self, key: Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.push(u8::from(self.seen.is_some()) | u8::from(self.introduce) << 1);
        bytes.extend(self.seen.unwrap_or_default());
        bytes.extend(self.state.0);
        bytes.extend(self.replica);
        for number in [self.max_row.0, self.met_row.0, self.due_secs as i64] {
            bytes.extend(number.to_le_bytes());
        }
        for agreement in &self.agreements {
            bytes.extend(agreement.with.0.to_le_bytes());
            bytes.extend(agreement.state.0);
            bytes.extend(agreement.row.0.to_le_bytes());
            bytes.push(agreement.holds.into());
        }
        bytes.extend(check(key, &bytes));
        bytes
    }

    /// As it was stored; `None` if it is damaged, or another's.
    pub fn decode(key: Key, bytes: &[u8]) -> Option<Entry> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if *sum != check(key, body) {
            return None;
        }
        let (head, rest) = body.split_first_chunk::<HEAD_BYTES>()?;
        let mut fields = Fields(head);
        let ([flags], seen) = (fields.take::<1>()?, fields.take()?);
        let (state, replica) = (StateDigest(fields.take()?), fields.take()?);
        let [max_row, met_row, due] = [fields.number()?, fields.number()?, fields.number()?];
        let agreements = rest.chunks(AGREEMENT_BYTES).map(|bytes| {
            let mut fields = Fields(bytes);
            Some(Agreement {
                with: DeviceId(u32::from_le_bytes(fields.take()?)),
                state: ShortDigest(fields.take()?),
                row: RowId(fields.number()?),
                holds: fields.take::<1>()? == [1],
            })
        });
        Some(Entry {
            seen: (flags & 1 != 0).then_some(seen),
            state,
            replica,
            max_row: RowId(max_row),
            met_row: RowId(met_row),
            due_secs: due as u64,
            introduce: flags & 2 != 0,
            agreements: agreements.collect::<Option<_>>()?,
        })
    }
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

/// The checksum of what is stored under a key.
pub(super) fn check(key: Key, bytes: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0.to_le_bytes());
    hasher.update(bytes);
    start_of(&hasher)
}

/// More peers than a database ever has at a time; those of former rings make room.
pub const AGREEMENTS_LIMIT: usize = 8;
const HEAD_BYTES: usize = 1 + 16 + 16 + 8 + 3 * 8;
const AGREEMENT_BYTES: usize = 4 + 8 + 8 + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agreements() -> impl Strategy<Value = Vec<Agreement>> {
        let agreement = (any::<u32>(), any::<[u8; 8]>(), any::<i64>(), any::<bool>()).prop_map(
            |(with, state, row, holds)| Agreement {
                with: DeviceId(with),
                state: ShortDigest(state),
                row: RowId(row),
                holds,
            },
        );
        prop::collection::vec(agreement, 0..=AGREEMENTS_LIMIT)
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let head = (any::<Option<[u8; 16]>>(), any::<[u8; 16]>(), any::<[u8; 8]>(), any::<bool>());
        (head, any::<(i64, i64, u64)>(), agreements()).prop_map(
            |((seen, state, replica, introduce), (max_row, met_row, due_secs), agreements)| Entry {
                seen,
                state: StateDigest(state),
                replica,
                max_row: RowId(max_row),
                met_row: RowId(met_row),
                due_secs,
                introduce,
                agreements,
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_whole_or_not_at_all(
            entry in entries(), key in any::<u128>(), at in any::<prop::sample::Index>(), bit in 0..8, more in any::<u8>(),
        ) {
            let key = Key(key);
            let bytes = entry.encode(key);
            prop_assert_eq!(Entry::decode(key, &bytes), Some(entry));
            prop_assert_eq!(Entry::decode(Key(key.0 ^ 1 << at.index(128)), &bytes), None);
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1_u8 << bit;
            prop_assert_eq!(Entry::decode(key, &flipped), None);
            prop_assert_eq!(Entry::decode(key, &bytes[..at.index(bytes.len())]), None);
            prop_assert_eq!(Entry::decode(key, &bytes[at.index(bytes.len() - 1) + 1..]), None);
            let mut longer = bytes;
            longer.push(more);
            prop_assert_eq!(Entry::decode(key, &longer), None);
        }

        /// The checksum can be right though nothing else is: who writes it need not be us.
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), key in any::<u128>()) {
            let mut sealed = bytes.clone();
            sealed.extend(check(Key(key), &bytes));
            for bytes in [bytes, sealed] {
                if let Some(entry) = Entry::decode(Key(key), &bytes) {
                    prop_assert_eq!(Entry::decode(Key(key), &entry.encode(Key(key))), Some(entry));
                }
            }
        }
    }

    fn entry(state: u8, row: i64) -> Entry {
        Entry {
            seen: None,
            state: StateDigest([state; 16]),
            replica: [0; 8],
            max_row: RowId(row),
            met_row: RowId::NONE,
            due_secs: 0,
            introduce: false,
            agreements: vec![],
        }
    }

    #[test]
    fn it_agrees_while_neither_side_changes() {
        let (with, other) = (DeviceId(1), DeviceId(2));
        let mut entry = entry(1, 10);
        assert!(!entry.agrees_with(with));
        entry.disagree(with);
        assert_eq!(entry.agreements, []);
        entry.agree(with);
        assert!(entry.agrees_with(with) && !entry.agrees_with(other));
        entry.state = StateDigest([2; 16]);
        assert!(!entry.agrees_with(with));
        entry.state = StateDigest([1; 16]);
        assert!(entry.agrees_with(with));
        entry.disagree(other);
        assert!(entry.agrees_with(with));
        entry.disagree(with);
        assert!(!entry.agrees_with(with));
        // Where it was is still known.
        assert_eq!(entry.agreement(with).map(|known| (known.row, known.holds)), Some((RowId(10), false)));
        entry.max_row = RowId(12);
        entry.agree(with);
        assert_eq!(entry.agreements.len(), 1);
        assert_eq!(entry.agreement(with).map(|known| (known.row, known.holds)), Some((RowId(12), true)));
        entry.introduce = true;
        assert!(!entry.agrees_with(with));
    }

    #[test]
    fn the_peer_met_longest_ago_makes_room() {
        let mut entry = entry(1, 10);
        let devices = |range: std::ops::Range<u32>| range.map(DeviceId).collect::<Vec<_>>();
        let with = |entry: &Entry| entry.agreements.iter().map(|known| known.with).collect::<Vec<_>>();
        devices(0..8).into_iter().for_each(|device| entry.agree(device));
        assert_eq!(with(&entry), devices(0..8));
        entry.agree(DeviceId(0));
        entry.agree(DeviceId(8));
        assert_eq!(with(&entry), [devices(2..8), vec![DeviceId(0), DeviceId(8)]].concat());
        assert!(!entry.agrees_with(DeviceId(1)));
    }

    #[test]
    fn a_replica_is_told_by_its_id() {
        let of = |id: &str| Entry::replica_of(&ReplicaId::new(id).unwrap());
        assert_eq!(of("one"), of("one"));
        assert_ne!(of("one"), of("two"));
    }
}
