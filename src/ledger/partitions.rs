//! Which partitions a device shares with which other: what two agents compare.

use std::collections::BTreeMap;

use crate::hash_path::Partition;
use crate::ring::{DeviceId, Ring};

/// Some partitions, in order: a few as their numbers, many as a bit for each that there is. Where three devices share a ring
/// of a quarter of a million partitions, that is 32 KiB and not a mebibyte for each of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionSet {
    members: Members,
    len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Members {
    Numbers(Vec<u32>),
    Bits(Vec<u64>),
}

impl Default for Members {
    fn default() -> Members {
        Members::Numbers(Vec::new())
    }
}

impl PartitionSet {
    /// Empty, with room for so many of the partitions below a number.
    fn with_room(count: usize, below: u64) -> PartitionSet {
        let members = match count as u64 * 32 > below.next_multiple_of(64) {
            true => Members::Bits(vec![0; below.div_ceil(64) as usize]),
            false => Members::Numbers(Vec::with_capacity(count)),
        };
        PartitionSet { members, len: 0 }
    }

    /// Adds one that is not less than any before; one that is there already is only there once.
    fn push(&mut self, number: u32) {
        let is_new = match &mut self.members {
            Members::Numbers(numbers) => {
                let is_new = numbers.last() != Some(&number);
                if is_new {
                    numbers.push(number);
                }
                is_new
            }
            Members::Bits(words) => {
                let word = &mut words[number as usize / 64];
                let before = *word;
                *word |= 1 << (number % 64);
                *word != before
            }
        };
        self.len += usize::from(is_new);
    }

    /// Is it one of them?
    pub fn contains(&self, partition: Partition) -> bool {
        let number = partition.0;
        match &self.members {
            Members::Numbers(numbers) => numbers.binary_search(&number).is_ok(),
            Members::Bits(words) => {
                words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
            }
        }
    }

    /// Those from one to another, both included.
    pub fn within(&self, first: Partition, last: Partition) -> impl Iterator<Item = Partition> {
        let (mut place, mut next) = match &self.members {
            Members::Numbers(numbers) => (numbers.partition_point(|number| *number < first.0), 0),
            Members::Bits(_) => (0, u64::from(first.0)),
        };
        let members = std::iter::from_fn(move || match &self.members {
            Members::Numbers(numbers) => {
                place += 1;
                numbers.get(place - 1).copied()
            }
            Members::Bits(words) => {
                let number = next_bit(words, next)?;
                next = u64::from(number) + 1;
                Some(number)
            }
        });
        members.take_while(move |number| *number <= last.0).map(Partition)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The first bit that is set, from this one on.
fn next_bit(words: &[u64], from: u64) -> Option<u32> {
    let start = (from / 64) as usize;
    let before = |nth: usize| if nth == start { (1_u64 << (from % 64)) - 1 } else { 0 };
    let nth = (start..words.len()).find(|nth| words[*nth] & !before(*nth) != 0)?;
    Some(nth as u32 * 64 + (words[nth] & !before(nth)).trailing_zeros())
}

impl FromIterator<Partition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = Partition>>(partitions: I) -> PartitionSet {
        let mut numbers: Vec<u32> = partitions.into_iter().map(|partition| partition.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let below = numbers.last().map_or(0, |last| u64::from(*last) + 1);
        let mut set = PartitionSet::with_room(numbers.len(), below);
        numbers.into_iter().for_each(|number| set.push(number));
        set
    }
}

/// The other primaries of a device's partitions, and the partitions it shares with each. By the ring alone, hence the same
/// at both ends if they have the same ring; if not, what differs costs a word too many and is settled singly.
#[derive(Debug, Clone, Default)]
pub struct Neighbours {
    own: PartitionSet,
    shared: BTreeMap<DeviceId, PartitionSet>,
}

impl Neighbours {
    /// Of a device.
    pub fn of(ring: &Ring, device: DeviceId) -> Neighbours {
        let partitions = ring.part_shift().partitions();
        // Twice over the ring, so that nothing has to grow.
        let mut counts: BTreeMap<DeviceId, usize> = BTreeMap::new();
        each_shared(ring, device, |_, holder| *counts.entry(holder).or_default() += 1);
        let room = |count: usize| PartitionSet::with_room(count, partitions);
        let mut sets: BTreeMap<DeviceId, PartitionSet> =
            counts.into_iter().map(|(holder, count)| (holder, room(count))).collect();
        each_shared(ring, device, |partition, holder| {
            if let Some(set) = sets.get_mut(&holder) {
                set.push(partition.0);
            }
        });
        Neighbours { own: sets.remove(&device).unwrap_or_default(), shared: sets }
    }

    /// Every partition of the device.
    pub fn own(&self) -> &PartitionSet {
        &self.own
    }

    /// What is shared with another device.
    pub fn shared_with(&self, other: DeviceId) -> Option<&PartitionSet> {
        self.shared.get(&other)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceId, &PartitionSet)> {
        self.shared.iter().map(|(other, shared)| (*other, shared))
    }
}

/// Every partition of a device, with each device that holds it, in order; a device that holds two replicas of it comes twice.
fn each_shared(ring: &Ring, device: DeviceId, mut visit: impl FnMut(Partition, DeviceId)) {
    for number in 0..ring.part_shift().partitions() {
        let partition = Partition(number as u32);
        let primaries = ring.primary_ids(partition);
        if primaries.contains(&device) {
            primaries.into_iter().for_each(|holder| visit(partition, holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_path::PartShift;
    use crate::ring::Device;

    fn set(numbers: &[u32]) -> PartitionSet {
        numbers.iter().map(|number| Partition(*number)).collect()
    }

    #[test]
    fn partitions_are_kept_in_order_and_once() {
        let some = set(&[9, 2, 4, 2, 7]);
        assert_eq!(some, set(&[2, 4, 7, 9]));
        assert_eq!((some.len(), some.is_empty(), set(&[]).is_empty()), (4, false, true));
        assert!(some.contains(Partition(4)) && !some.contains(Partition(5)));
        let within = |first, last| {
            some.within(Partition(first), Partition(last)).map(|partition| partition.0).collect::<Vec<_>>()
        };
        assert_eq!(within(0, u32::MAX), [2, 4, 7, 9]);
        assert_eq!(within(4, 7), [4, 7]);
        assert_eq!(within(3, 6), [4]);
        assert_eq!(within(5, 6), [0; 0]);
        assert_eq!(within(10, 20), [0; 0]);
    }

    #[test]
    fn many_are_kept_as_bits_and_say_the_same() {
        for (every, below) in [(1, 1000), (1, 64), (2, 1000), (31, 4096), (33, 4096), (100, 100_000)] {
            let numbers: Vec<u32> = (0..below).step_by(every).collect();
            let some = set(&numbers);
            let is_bits = matches!(some.members, Members::Bits(_));
            assert_eq!(is_bits, every < 32, "{every} {below}");
            assert_eq!((some.len(), some.is_empty()), (numbers.len(), false));
            for number in 0..below + 130 {
                assert_eq!(some.contains(Partition(number)), numbers.contains(&number), "{number}");
            }
            for (first, last) in
                [(0, u32::MAX), (1, 63), (63, 64), (64, 128), (5, 5), (below - 1, below), (below, 9_999_999)]
            {
                let within: Vec<u32> =
                    some.within(Partition(first), Partition(last)).map(|partition| partition.0).collect();
                let expected: Vec<u32> =
                    numbers.iter().copied().filter(|number| (first..=last).contains(number)).collect();
                assert_eq!(within, expected, "{every} {below}: {first} to {last}");
            }
        }
    }

    #[test]
    fn neighbours_share_what_both_hold() {
        let device = |id: u32| {
            serde_json::from_value::<Device>(serde_json::json!({
                "id": id, "region": 1, "zone": id, "ip": format!("10.0.0.{}", id + 1), "port": 6201, "device": "d",
            }))
        };
        // The third replica of half the partitions only; device 1 holds two replicas of partition 0, and 3 of none.
        let rows = [&[1, 0, 2, 0][..], &[1, 2, 1, 1], &[0, 1]];
        let rows = rows.iter().map(|row| row.iter().copied().map(DeviceId).collect()).collect();
        let devices = (0..4).map(|id| Some(device(id).unwrap())).collect();
        let ring = Ring::from_rows(PartShift::new(30).unwrap(), devices, rows).unwrap();
        let shared = |device: u32| {
            let neighbours = Neighbours::of(&ring, DeviceId(device));
            let listed: Vec<_> = neighbours.iter().map(|(other, shared)| (other.0, shared.clone())).collect();
            for (other, shared) in &listed {
                assert_eq!(neighbours.shared_with(DeviceId(*other)), Some(shared));
                let mirrored = Neighbours::of(&ring, DeviceId(*other));
                assert_eq!(mirrored.shared_with(DeviceId(device)), Some(shared));
            }
            assert_eq!(neighbours.shared_with(DeviceId(device)), None);
            (neighbours.own().clone(), listed)
        };
        assert_eq!(shared(0), (set(&[0, 1, 3]), vec![(1, set(&[0, 1, 3])), (2, set(&[1]))]));
        assert_eq!(shared(1), (set(&[0, 1, 2, 3]), vec![(0, set(&[0, 1, 3])), (2, set(&[1, 2]))]));
        assert_eq!(shared(2), (set(&[1, 2]), vec![(0, set(&[1])), (1, set(&[1, 2]))]));
        assert_eq!(shared(3), (set(&[]), vec![]));
    }
}
