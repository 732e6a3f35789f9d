//! What stands for the state of one database, and of a set of them.

use std::ops::{AddAssign, SubAssign};

use super::key::Key;
use crate::replica::{DbState, MetadataItem, ReplicaInfo};

/// Stands for all that replicas must agree on: two are equal just when [`ReplicaInfo::agrees_with`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateDigest(pub [u8; 16]);

impl StateDigest {
    /// Of what a replica says of itself.
    pub fn of(info: &ReplicaInfo) -> StateDigest {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text(info.created_at.as_str());
        text(info.put_timestamp.as_str());
        text(info.delete_timestamp.as_str());
        // In an order of our own: replicas hold the items in the order in which they heard of them.
        let mut items: Vec<&MetadataItem> = info.metadata.0.iter().collect();
        items.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for item in items {
            text(&item.key);
            text(&item.value);
            text(item.stamp.as_str());
        }
        hasher.update(&info.hash.0);
        hasher.update(&info.ranges_digest);
        for number in [info.count, info.bytes_used, info.storage_policy_index.0] {
            hasher.update(&number.to_le_bytes());
        }
        let state = match info.db_state {
            DbState::Unsharded => 0,
            DbState::Sharding => 1,
            DbState::Sharded => 2,
            DbState::Collapsed => 3,
        };
        hasher.update(&[state, info.sharding_initiated.into(), info.sharding_required.into()]);
        StateDigest(start_of(&hasher))
    }

    /// What of it is sent, and kept of the past.
    pub fn short(self) -> ShortDigest {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        ShortDigest(short)
    }
}

/// The eight bytes of a digest that travel. Two that differ are taken for equal once in 2^64 comparisons, and only until
/// the next full look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShortDigest(pub [u8; 8]);

impl ShortDigest {
    /// That of no database at all.
    pub const EMPTY: ShortDigest = ShortDigest([0; 8]);
}

/// Stands for a set of databases, each in its state, in whatever order they came: sums of hashes, taken modulo 2^64 in two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SetDigest {
    sums: [u64; 2],
    count: u64,
}

impl SetDigest {
    /// Of no database.
    pub const EMPTY: SetDigest = SetDigest { sums: [0; 2], count: 0 };

    /// How many databases there are.
    pub fn count(self) -> u64 {
        self.count
    }

    /// One more.
    pub fn add(&mut self, key: Key, state: StateDigest) {
        *self += SetDigest::of(key, state);
    }

    /// One fewer: of those that were added.
    pub fn remove(&mut self, key: Key, state: StateDigest) {
        *self -= SetDigest::of(key, state);
    }

    /// What of it is sent.
    pub fn short(self) -> ShortDigest {
        if self == SetDigest::EMPTY {
            return ShortDigest::EMPTY;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.to_bytes());
        ShortDigest(start_of(&hasher))
    }

    /// As stored.
    pub fn to_bytes(self) -> [u8; SetDigest::BYTES] {
        let mut bytes = [0; SetDigest::BYTES];
        for (at, number) in [self.sums[0], self.sums[1], self.count].into_iter().enumerate() {
            bytes[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// As it was stored.
    pub fn from_bytes(bytes: [u8; SetDigest::BYTES]) -> SetDigest {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|nth| bytes[8 * at + nth]));
        SetDigest { sums: [number(0), number(1)], count: number(2) }
    }

    /// What it takes when stored.
    pub const BYTES: usize = 24;

    /// Of one database.
    pub fn of(key: Key, state: StateDigest) -> SetDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.0.to_le_bytes());
        hasher.update(&state.0);
        let hash: [u8; 16] = start_of(&hasher);
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|nth| hash[8 * at + nth]));
        SetDigest { sums: [half(0), half(1)], count: 1 }
    }
}

impl AddAssign for SetDigest {
    fn add_assign(&mut self, other: SetDigest) {
        self.sums = [0, 1].map(|at| self.sums[at].wrapping_add(other.sums[at]));
        self.count = self.count.wrapping_add(other.count);
    }
}

impl SubAssign for SetDigest {
    fn sub_assign(&mut self, other: SetDigest) {
        self.sums = [0, 1].map(|at| self.sums[at].wrapping_sub(other.sums[at]));
        self.count = self.count.wrapping_sub(other.count);
    }
}

/// The first bytes of a hash.
pub(super) fn start_of<const N: usize>(hasher: &blake3::Hasher) -> [u8; N] {
    let hash = hasher.finalize();
    std::array::from_fn(|at| hash.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::{Metadata, PolicyIndex, ReplicaId, RowHash, RowId};
    use crate::timestamp::Stamp;

    fn item(key: &str, value: &str, stamp: &str) -> MetadataItem {
        MetadataItem { key: key.into(), value: value.into(), stamp: Stamp::stored(stamp) }
    }

    fn info() -> ReplicaInfo {
        ReplicaInfo {
            id: ReplicaId::new("one").unwrap(),
            account: "a".into(),
            container: "c".into(),
            created_at: Stamp::stored("1"),
            put_timestamp: Stamp::stored("2"),
            delete_timestamp: Stamp::stored("0"),
            status_changed_at: Stamp::stored("2"),
            storage_policy_index: PolicyIndex(0),
            count: 3,
            bytes_used: 4,
            hash: RowHash([5; 16]),
            max_row: RowId(6),
            shard_max_row: RowId::NONE,
            metadata: Metadata(vec![item("x", "1", "1"), item("y", "", "2")]),
            db_state: DbState::Unsharded,
            sharding_initiated: false,
            sharding_required: false,
            ranges_digest: [0; 16],
            file_bytes: 4096,
            page_bytes: 4096,
        }
    }

    /// What may happen to a replica's info, one thing at a time.
    fn changes() -> Vec<fn(&mut ReplicaInfo)> {
        vec![
            |_| (),
            |info| info.id = ReplicaId::new("two").unwrap(),
            |info| info.account = "b".into(),
            |info| info.container = "d".into(),
            |info| info.created_at = Stamp::stored("1.0"),
            |info| info.created_at = Stamp::stored("12"),
            |info| info.put_timestamp = Stamp::stored("3"),
            |info| info.delete_timestamp = Stamp::stored("3"),
            |info| info.status_changed_at = Stamp::stored("3"),
            |info| info.storage_policy_index = PolicyIndex(1),
            |info| info.count = -3,
            |info| info.bytes_used = 5,
            |info| (info.count, info.bytes_used) = (4, 3),
            |info| info.hash.0[15] ^= 1,
            |info| info.max_row = RowId(7),
            |info| info.shard_max_row = RowId(7),
            |info| info.metadata.0.reverse(),
            |info| info.metadata.0.clear(),
            |info| _ = info.metadata.0.pop(),
            |info| info.metadata.0.push(item("z", "", "0")),
            |info| info.metadata.0[0].key = "X".into(),
            |info| info.metadata.0[0].value = "2".into(),
            |info| info.metadata.0[0].stamp = Stamp::stored("2"),
            |info| info.metadata.0[0] = item("x1", "", "1"),
            |info| info.metadata = Metadata(vec![item("y", "1", "1"), item("x", "", "2")]),
            |info| info.db_state = DbState::Sharding,
            |info| info.db_state = DbState::Sharded,
            |info| info.db_state = DbState::Collapsed,
            |info| info.sharding_initiated = true,
            |info| info.sharding_required = true,
            |info| info.ranges_digest[0] = 1,
            |info| info.file_bytes = 8192,
            |info| info.page_bytes = 1024,
        ]
    }

    #[test]
    fn digests_are_equal_just_when_replicas_agree() {
        let infos: Vec<ReplicaInfo> = changes()
            .iter()
            .map(|change| {
                let mut info = info();
                change(&mut info);
                info
            })
            .collect();
        let mut agreeing = 0;
        for one in &infos {
            for other in &infos {
                let agree = one.agrees_with(other);
                assert_eq!(StateDigest::of(one) == StateDigest::of(other), agree, "{one:?}\n{other:?}");
                assert_eq!(StateDigest::of(one).short() == StateDigest::of(other).short(), agree);
                agreeing += usize::from(agree);
            }
        }
        // The first and the nine that touch nothing that counts agree with each other.
        assert_eq!(agreeing, 10 * 10 + (infos.len() - 10));
    }

    fn members() -> impl Strategy<Value = Vec<(u128, u8)>> {
        prop::collection::vec((0..20_u128, 0..4_u8), 0..20)
    }

    fn sum(members: &[(u128, u8)]) -> SetDigest {
        let mut sum = SetDigest::EMPTY;
        members.iter().for_each(|(key, state)| sum.add(Key(*key), StateDigest([*state; 16])));
        sum
    }

    proptest! {
        #[test]
        fn sums_know_no_order_and_can_be_taken_apart(
            (members, shuffled) in members().prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
            others in members(),
        ) {
            let whole = sum(&members);
            prop_assert_eq!(whole, sum(&shuffled));
            prop_assert_eq!(whole.count(), members.len() as u64);
            let mut both = whole;
            both += sum(&others);
            let mut all = members.clone();
            all.extend(&others);
            prop_assert_eq!(both, sum(&all));
            both -= whole;
            prop_assert_eq!(both, sum(&others));
            for (key, state) in &others {
                both.remove(Key(*key), StateDigest([*state; 16]));
            }
            prop_assert_eq!(both, SetDigest::EMPTY);
            let sorted = |members: &[(u128, u8)]| {
                let mut sorted = members.to_vec();
                sorted.sort_unstable();
                sorted
            };
            let equal = sorted(&members) == sorted(&others);
            prop_assert_eq!(whole == sum(&others), equal);
            prop_assert_eq!(whole.short() == sum(&others).short(), equal);
            prop_assert_eq!(whole.short() == ShortDigest::EMPTY, members.is_empty());
            prop_assert_eq!(SetDigest::from_bytes(whole.to_bytes()), whole);
        }
    }
}
