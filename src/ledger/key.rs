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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash_path::storage_directory;

    /// How a walk compares two databases: the partition as a number, then the names of the directories.
    fn order_of_the_walk(hash: Hash, shift: PartShift) -> (Partition, String, Hash) {
        (shift.partition(&hash), hash.suffix(), hash)
    }

    fn shifts() -> impl Strategy<Value = PartShift> {
        (0..=32_u8).prop_map(|bits| PartShift::new(bits).unwrap())
    }

    proptest! {
        #[test]
        fn keys_and_hashes_are_one_to_one(bytes in any::<[u8; 16]>(), number in any::<u128>(), shift in shifts()) {
            prop_assert_eq!(Key::new(Hash(bytes), shift).hash(shift), Hash(bytes));
            prop_assert_eq!(Key::new(Key(number).hash(shift), shift), Key(number));
        }

        #[test]
        fn the_order_of_keys_is_that_of_the_walk(
            one in any::<u128>(), flips in prop::collection::vec(0..128_u32, 0..4), shift in shifts(),
        ) {
            // Few bits apart, or many.
            let other = flips.iter().fold(one, |hash, bit| hash ^ 1 << bit);
            for (one, other) in [(one, other), (one, !other), (one, other.rotate_left(64))] {
                let [one, other] = [one, other].map(|hash| Hash(hash.to_be_bytes()));
                prop_assert_eq!(
                    Key::new(one, shift).cmp(&Key::new(other, shift)),
                    order_of_the_walk(one, shift).cmp(&order_of_the_walk(other, shift)),
                    "{:?} {:?}", storage_directory(shift.partition(&one), &one), storage_directory(shift.partition(&other), &other)
                );
            }
        }

        #[test]
        fn the_keys_of_a_partition_are_one_range(bytes in any::<[u8; 16]>(), shift in shifts()) {
            let hash = Hash(bytes);
            let key = Key::new(hash, shift);
            let partition = key.partition(shift);
            prop_assert_eq!(partition, shift.partition(&hash));
            let (first, last) = (Key::first_of(partition, shift), Key::last_of(partition, shift));
            prop_assert!(first <= key && key <= last);
            prop_assert_eq!((first.partition(shift), last.partition(shift)), (partition, partition));
            let before = first.0.checked_sub(1).map(|number| Key(number).partition(shift));
            let after = last.0.checked_add(1).map(|number| Key(number).partition(shift));
            prop_assert_eq!(before, partition.0.checked_sub(1).map(Partition));
            let next = (u64::from(partition.0) + 1 < shift.partitions()).then(|| Partition(partition.0 + 1));
            prop_assert_eq!(after, next);
        }

        #[test]
        fn branches_part_a_span(number in any::<u128>(), digits in 0..=32_u8) {
            let kept = u128::MAX.checked_shl(128 - 4 * u32::from(digits)).unwrap_or(0);
            let span = Span::new(number & kept, digits).unwrap();
            prop_assert!(span.first().0 <= number && number <= span.last().0);
            prop_assert_eq!((span.prefix(), span.digits()), (number & kept, digits));
            // What it was made of is needed: a digit more would be outside.
            prop_assert_eq!(Span::new(number, digits), (number & !kept == 0).then_some(span));
            let branches = span.branches();
            if digits == Span::DIGITS_LIMIT {
                prop_assert_eq!(branches, vec![]);
                prop_assert_eq!(span.first(), span.last());
                return Ok(());
            }
            prop_assert_eq!(branches.len(), 16);
            prop_assert_eq!(branches[0].first(), span.first());
            prop_assert_eq!(branches[15].last(), span.last());
            for pair in branches.windows(2) {
                prop_assert_eq!(pair[0].last().0 + 1, pair[1].first().0);
            }
            let branch = branches[span.branch_of(Key(number))];
            prop_assert!(branch.first().0 <= number && number <= branch.last().0);
            prop_assert_eq!(Span::new(branch.prefix(), branch.digits()), Some(branch));
        }

        #[test]
        fn a_span_is_of_partitions_or_within_one(number in any::<u128>(), digits in 0..=32_u8, shift in shifts()) {
            let kept = u128::MAX.checked_shl(128 - 4 * u32::from(digits)).unwrap_or(0);
            let span = Span::new(number & kept, digits).unwrap();
            let (first, last) = (span.first().partition(shift), span.last().partition(shift));
            let whole = Key::first_of(first, shift) == span.first() && Key::last_of(last, shift) == span.last();
            prop_assert_eq!(span.is_of_partitions(shift), whole);
            prop_assert!(whole || first == last);
        }
    }

    #[test]
    fn spans_have_no_more_digits_than_keys() {
        assert_eq!(Span::new(0, 0), Some(Span::ALL));
        assert_eq!(Span::new(1, 0), None);
        assert_eq!(Span::new(u128::MAX, 32).map(Span::first), Some(Key(u128::MAX)));
        assert_eq!(Span::new(u128::MAX, 31), None);
        assert_eq!(Span::new(0, 33), None);
        assert_eq!(Span::new(0, 255), None);
        assert_eq!((Span::ALL.first(), Span::ALL.last()), (Key(0), Key(u128::MAX)));
    }

    #[test]
    fn suffix_comes_after_partition() {
        let hash: Hash = "21f0ff3587d6ff7c47a3516c8a4cd432".parse().unwrap();
        for (bits, key) in [
            (32, 0x432_21f0ff3587d6ff7c47a3516c8a4cd),
            (16, 0x21f0_432f_f358_7d6f_f7c4_7a35_16c8_a4cd),
            (0, 0x21f0_ff35_4328_7d6f_f7c4_7a35_16c8_a4cd),
        ] {
            assert_eq!(Key::new(hash, PartShift::new(bits).unwrap()), Key(key));
        }
    }
}
