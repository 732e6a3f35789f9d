//! The order in which a drive is walked, as a number; and the slices of that order that two agents compare.
//!
//! Databases lie below their partition, then below the last three hex digits of their hash. A [`Key`] is the hash with
//! its bits in that order: the partition's first, then the suffix', then the rest. So the keys of a partition are one
//! range, and a walk that takes directories in order meets ascending keys, whatever the part power.

use crate::hash_path::{Hash, PartShift, Partition};

/// Where a database stands in the walk of a drive. As many keys as hashes; which is which depends on the part power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

impl Key {
    /// The key of a hash.
    pub fn new(hash: Hash, shift: PartShift) -> Key {
        let hash = u128::from_be_bytes(hash.0);
        let below = below_partition(shift);
        let rest = below - SUFFIX_BITS;
        let suffix = hash & mask(SUFFIX_BITS);
        let middle = (hash >> SUFFIX_BITS) & mask(rest);
        Key(hash & !mask(below) | suffix << rest | middle)
    }

    /// The hash of a key.
    pub fn hash(self, shift: PartShift) -> Hash {
        let below = below_partition(shift);
        let rest = below - SUFFIX_BITS;
        let suffix = (self.0 >> rest) & mask(SUFFIX_BITS);
        let middle = self.0 & mask(rest);
        Hash((self.0 & !mask(below) | middle << SUFFIX_BITS | suffix).to_be_bytes())
    }

    /// The partition it belongs to.
    pub fn partition(self, shift: PartShift) -> Partition {
        Partition(self.0.checked_shr(below_partition(shift)).unwrap_or(0) as u32)
    }

    /// The first key of a partition.
    pub fn first_of(partition: Partition, shift: PartShift) -> Key {
        Key(u128::from(partition.0).checked_shl(below_partition(shift)).unwrap_or(0))
    }

    /// The last key of a partition.
    pub fn last_of(partition: Partition, shift: PartShift) -> Key {
        Key(Key::first_of(partition, shift).0 | mask(below_partition(shift)))
    }
}

/// All keys that begin with the same hex digits: a node of the tree that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    prefix: u128,
    digits: u8,
}

impl Span {
    /// Every key.
    pub const ALL: Span = Span { prefix: 0, digits: 0 };

    /// The keys that begin with the first `digits` hex digits of `prefix`; `None` if there are none such, because other
    /// digits of it are set or there are more than [`Span::DIGITS_LIMIT`].
    pub fn new(prefix: u128, digits: u8) -> Option<Span> {
        let free = mask(128_u32.checked_sub(4 * u32::from(digits))?);
        (prefix & free == 0).then_some(Span { prefix, digits })
    }

    /// A key has so many.
    pub const DIGITS_LIMIT: u8 = 32;

    /// The digits, and zeros after them.
    pub fn prefix(self) -> u128 {
        self.prefix
    }

    /// How many digits its keys have in common.
    pub fn digits(self) -> u8 {
        self.digits
    }

    /// Its sixteen parts, in order. None of a single key.
    pub fn branches(self) -> Vec<Span> {
        if self.digits == Span::DIGITS_LIMIT {
            return vec![];
        }
        let step = 128 - 4 * (u32::from(self.digits) + 1);
        (0..16).map(|nth| Span { prefix: self.prefix | nth << step, digits: self.digits + 1 }).collect()
    }

    /// Which of its branches a key of it is in.
    pub fn branch_of(self, key: Key) -> usize {
        let step = 128 - 4 * (u32::from(self.digits) + 1);
        (key.0 >> step) as usize & 15
    }

    /// Its first key.
    pub fn first(self) -> Key {
        Key(self.prefix)
    }

    /// Its last key.
    pub fn last(self) -> Key {
        Key(self.prefix | mask(128 - 4 * u32::from(self.digits)))
    }

    /// It is made of whole partitions; else it lies within one.
    pub fn is_of_partitions(self, shift: PartShift) -> bool {
        4 * u32::from(self.digits) <= 128 - below_partition(shift)
    }
}

/// How many bits of a key stand below its partition.
fn below_partition(shift: PartShift) -> u32 {
    96 + u32::from(shift.bits())
}

/// So many ones at the low end.
fn mask(bits: u32) -> u128 {
    1_u128.checked_shl(bits).map_or(u128::MAX, |one| one - 1)
}

/// Three hex digits.
const SUFFIX_BITS: u32 = 12;
