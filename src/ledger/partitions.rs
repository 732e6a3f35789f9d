//! Which partitions a device shares with which other: what two agents compare.

use std::collections::BTreeMap;

use crate::hash_path::Partition;
use crate::ring::{DeviceId, Ring};

/// Some partitions, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionSet(Vec<u32>);

impl PartitionSet {
    /// Is it one of them?
    pub fn contains(&self, partition: Partition) -> bool {
        self.0.binary_search(&partition.0).is_ok()
    }

    /// Those from one to another, both included.
    pub fn within(&self, first: Partition, last: Partition) -> impl Iterator<Item = Partition> {
        let from = self.0.partition_point(|number| *number < first.0);
        self.0[from..].iter().take_while(move |number| **number <= last.0).map(|number| Partition(*number))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Partition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = Partition>>(partitions: I) -> PartitionSet {
        let mut numbers: Vec<u32> = partitions.into_iter().map(|partition| partition.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        PartitionSet(numbers)
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
        let mut own = Vec::new();
        let mut shared: BTreeMap<DeviceId, Vec<u32>> = BTreeMap::new();
        for partition in 0..ring.part_shift().partitions() {
            let partition = Partition(partition as u32);
            let primaries = ring.primary_ids(partition);
            if !primaries.contains(&device) {
                continue;
            }
            own.push(partition.0);
            for other in primaries.into_iter().filter(|other| *other != device) {
                // A device may hold two replicas of a partition, where devices are few.
                let partitions = shared.entry(other).or_default();
                if partitions.last() != Some(&partition.0) {
                    partitions.push(partition.0);
                }
            }
        }
        let shared = shared.into_iter().map(|(other, partitions)| (other, PartitionSet(partitions)));
        Neighbours { own: PartitionSet(own), shared: shared.collect() }
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
