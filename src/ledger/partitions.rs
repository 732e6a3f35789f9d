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
