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
