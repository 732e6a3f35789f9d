//! The placement in the making: who holds what now, what each node still needs, and what a move would do.
//!
//! Slots are kept partition by partition, for every question is about the replicas of one partition. What is asked most,
//! whether a device [fits](Board::fits), is answered by counting among these few.

use super::Start;
use super::plan::Plan;
use super::quota::Quota;
use super::tiers::{LEVELS, Node, ROOT};
use crate::ring::format::DeviceId;

/// A replica of a partition: `partition * width + replica`.
pub type Slot = usize;

/// Whether a partition may be moved in this rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Any one of its replicas, once.
    Free,
    /// This one was.
    Taken(Slot),
    /// It was moved too recently, or one of its replicas lost its device and must be moved anyway.
    Held,
}

/// All slots and all counts.
pub struct Board<'a> {
    pub(super) plan: &'a Plan,
    pub(super) quota: Quota,
    pub(super) partitions: usize,
    pub(super) width: usize,
    lengths: Vec<usize>,
    /// The device of each slot, [`VACANT`], or [`NO_SLOT`].
    pub(super) slots: Vec<u32>,
    /// The same before the first move.
    pub(super) origins: Vec<u32>,
    pub(super) leave: Vec<Leave>,
    /// By device id: its region, zone, server and own node. Of no use for an id without device.
    pub(super) paths: Vec<[u32; LEVELS]>,
    /// By node: the children with weight.
    pub(super) children: Vec<Vec<u32>>,
    /// By node: the bounds for a single partition.
    least: Vec<u32>,
    most: Vec<u32>,
    /// The nodes that every partition must have replicas in, with their level.
    must: Vec<(usize, u32)>,
    /// By device id: slots it is to have.
    shares: Vec<u32>,
    /// By device id: slots it has.
    pub(super) held: Vec<u32>,
    /// By node: slots its devices lack, those that have too many not set off.
    pub(super) need: Vec<u32>,
}

impl<'a> Board<'a> {
    /// Takes over the rows as they are. Slots without a device of the plan are vacant, and so is the second of two slots of
    /// a partition on one device.
    pub fn new(start: &Start<'a>) -> Board<'a> {
        let tree = start.plan.tree();
        let partitions = start.row_lengths.first().copied().unwrap_or(0);
        let width = start.row_lengths.len();
        let mut slots = vec![NO_SLOT; partitions * width];
        let mut held = vec![0; tree.ids()];
        let mut leave = vec![Leave::Free; partitions];
        for (partition, leave) in leave.iter_mut().enumerate() {
            let slots = &mut slots[partition * width..][..width];
            if !(start.may_move)(partition) {
                *leave = Leave::Held;
            }
            for replica in (0..width).filter(|&replica| partition < start.row_lengths[replica]) {
                let before = start.rows.get(replica).and_then(|row| row.get(partition));
                let device =
                    before.filter(|id| tree.path(**id).is_some() && !slots[..replica].contains(&id.0));
                slots[replica] = device.map_or(VACANT, |id| id.0);
                match (before, device) {
                    (_, Some(id)) => held[id.0 as usize] += 1,
                    (Some(_), None) => *leave = Leave::Held,
                    // A replica that is new takes nobody's data away.
                    (None, None) => {}
                }
            }
        }
        let replicas: usize = start.row_lengths.iter().sum();
        let quota = Quota::new(start.plan, partitions as u32, replicas as u32, &held);
        let nodes = 0..tree.node_count();
        let level = |node: Node| tree.tier(node).depth().wrapping_sub(1);
        let mut board = Board {
            plan: start.plan,
            partitions,
            width,
            lengths: start.row_lengths.to_vec(),
            origins: slots.clone(),
            slots,
            leave,
            paths: (0..tree.ids())
                .map(|id| {
                    tree.path(DeviceId(id as u32)).map_or([0; LEVELS], |path| path.map(|node| node as u32))
                })
                .collect(),
            children: nodes
                .clone()
                .map(|node| tree.children(node).map(|child| child as u32).collect())
                .collect(),
            least: nodes.clone().map(|node| quota.least(node)).collect(),
            most: nodes.clone().map(|node| quota.most(node)).collect(),
            must: nodes
                .filter(|&node| node != ROOT && quota.least(node) > 0)
                .map(|node| (level(node), node as u32))
                .collect(),
            shares: (0..tree.ids()).map(|id| quota.of_device(tree, DeviceId(id as u32))).collect(),
            held,
            need: Vec::new(),
            quota,
        };
        board.need = tree.sum(|id| board.lacks(id.0));
        board
    }

    /// How many slots a device is to have.
    pub fn share(&self, device: u32) -> u32 {
        self.shares[device as usize]
    }

    /// How many slots a device should be given.
    pub fn lacks(&self, device: u32) -> u32 {
        self.share(device).saturating_sub(self.held[device as usize])
    }

    /// How many slots should be taken from a device.
    pub fn spare(&self, device: u32) -> u32 {
        self.held[device as usize].saturating_sub(self.share(device))
    }

    /// The devices that are to hold anything.
    pub fn staying(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.held.len() as u32).filter(|&device| self.share(device) > 0)
    }

    /// The device of a node.
    pub fn id(&self, node: u32) -> u32 {
        self.plan.tree().tier(node as usize).device.expect("a node of the last level").0
    }

    /// The slots of a partition.
    pub fn slots_of(&self, partition: usize) -> std::ops::Range<Slot> {
        partition * self.width..(partition + 1) * self.width
    }

    /// The partition of a slot.
    pub fn partition(&self, slot: Slot) -> usize {
        slot / self.width
    }

    /// The device of a slot, if it has one.
    pub fn device(&self, slot: Slot) -> Option<u32> {
        Some(self.slots[slot]).filter(|&device| device < VACANT)
    }

    /// Whether a slot's device was given to it in this rebalance for want of another.
    pub fn was_vacant(&self, slot: Slot) -> bool {
        self.origins[slot] == VACANT
    }

    /// How many of a partition's replicas are in a node of a level, one slot left out.
    pub fn count(&self, partition: usize, level: usize, node: u32, but: Slot) -> u32 {
        let slots = self.slots_of(partition);
        let start = slots.start;
        let devices = self.slots[slots].iter().enumerate();
        devices
            .filter(|&(replica, &device)| {
                start + replica != but && device < VACANT && self.paths[device as usize][level] == node
            })
            .count() as u32
    }

    /// The most replicas of a partition in a node.
    pub fn most(&self, node: u32) -> u32 {
        self.most[node as usize]
    }

    /// The fewest replicas of a partition in a node.
    pub fn least(&self, node: u32) -> u32 {
        self.least[node as usize]
    }

    /// The first level at which a slot's device could be left for another node without having its partition too few times in
    /// what it leaves. Above it the replica must stay in the nodes it is in; [`LEVELS`] means that it cannot leave.
    pub fn loose_from(&self, slot: Slot) -> usize {
        let Some(device) = self.device(slot) else { return 0 };
        let partition = self.partition(slot);
        let path = &self.paths[device as usize];
        let stuck = |level: &usize| {
            let least = self.least[path[*level] as usize];
            least > 0 && self.count(partition, *level, path[*level], slot) < least
        };
        (0..LEVELS).rev().find(stuck).map_or(0, |level| level + 1)
    }

    /// Whether a device could take a slot, with all nodes of the partition within their bounds that were so before.
    pub fn fits(&self, slot: Slot, device: u32) -> bool {
        self.fits_loosely(slot, device, self.loose_from(slot))
    }

    /// The same, for who has asked [`Board::loose_from`] before.
    pub fn fits_loosely(&self, slot: Slot, device: u32, loose_from: usize) -> bool {
        let partition = self.partition(slot);
        let path = &self.paths[device as usize];
        let from = self.device(slot).map(|from| &self.paths[from as usize]);
        for level in (0..LEVELS).rev() {
            let node = path[level];
            if from.is_some_and(|from| from[level] == node) {
                // From here up nothing changes; and the device itself is no other device.
                return level + 1 >= loose_from && level + 1 < LEVELS;
            }
            if self.count(partition, level, node, slot) >= self.most[node as usize] {
                return false;
            }
        }
        loose_from == 0
    }

    /// How far a partition's replicas are from the bounds: replicas too many in a node, and too few. That some are where
    /// nothing should be is another matter.
    pub fn faults(&self, partition: usize) -> u32 {
        let mut faults = 0;
        for slot in self.slots_of(partition) {
            let Some(device) = self.device(slot) else { continue };
            let path = self.paths[device as usize];
            for (level, &node) in path.iter().enumerate() {
                // Each replica above the bound counts once: for its own slot and those before it.
                let before = (self.slots_of(partition).start..=slot)
                    .filter_map(|slot| self.device(slot))
                    .filter(|&other| self.paths[other as usize][level] == node)
                    .count() as u32;
                let most = self.most[node as usize];
                faults += u32::from(most > 0 && before > most);
            }
        }
        let missing = |&(level, node): &(usize, u32)| {
            self.least[node as usize].saturating_sub(self.count(partition, level, node, NOT_A_SLOT))
        };
        faults + self.must.iter().map(missing).sum::<u32>()
    }

    /// The widest node, with its level, that has fewer replicas of a partition than it must.
    pub fn missing(&self, partition: usize) -> Option<(usize, u32)> {
        let is_short = |(level, node): &(usize, u32)| {
            self.count(partition, *level, *node, NOT_A_SLOT) < self.least[*node as usize]
        };
        self.must.iter().copied().filter(is_short).min()
    }

    /// Gives a slot to a device, or to none ([`VACANT`]), and keeps the counts. What a partition may still do is up to the
    /// caller.
    pub fn put(&mut self, slot: Slot, device: u32) {
        let before = std::mem::replace(&mut self.slots[slot], device);
        if before < VACANT {
            self.held[before as usize] -= 1;
            if self.held[before as usize] < self.share(before) {
                self.add_need(before, 1);
            }
        }
        if device < VACANT {
            if self.held[device as usize] < self.share(device) {
                self.add_need(device, -1);
            }
            self.held[device as usize] += 1;
        }
    }

    fn add_need(&mut self, device: u32, by: i32) {
        let path = self.paths[device as usize];
        for node in path.iter().map(|&node| node as usize).chain([ROOT]) {
            self.need[node] = self.need[node].wrapping_add_signed(by);
        }
    }

    /// The device that a slot should rather be on, of those that lack slots: down from the cluster always to the child that
    /// must have one, or else lacks most of its share. `None` if all that fit have enough.
    pub fn roomiest(&self, slot: Slot) -> Option<u32> {
        self.descend(slot, ROOT as u32, 0, self.loose_from(slot))
    }

    fn descend(&self, slot: Slot, node: u32, level: usize, loose_from: usize) -> Option<u32> {
        if level == LEVELS {
            return Some(self.id(node));
        }
        let partition = self.partition(slot);
        let from = self.device(slot).map(|from| self.paths[from as usize][level]);
        let mut tried: Vec<u32> = Vec::new();
        loop {
            let mut best: Option<(bool, f64, u32)> = None;
            for &child in &self.children[node as usize] {
                let (need, least) = (self.need[child as usize], self.least[child as usize]);
                let stays = from == Some(child);
                if need == 0 || (level < loose_from && !stays) || (stays && level + 1 == LEVELS) {
                    continue;
                }
                let lack = f64::from(need) / f64::from(self.quota.of(child as usize));
                // Counting is what takes time, and most children are out of the question without it.
                if least == 0 && best.is_some_and(|(must, most, _)| must || lack <= most) {
                    continue;
                }
                let count = self.count(partition, level, child, slot);
                if (!stays && count >= self.most[child as usize]) || tried.contains(&child) {
                    continue;
                }
                let must = count < least;
                if best.is_none_or(|(best_must, most, _)| (must, lack) > (best_must, most)) {
                    best = Some((must, lack, child));
                }
            }
            let (.., child) = best?;
            let found = self.descend(slot, child, level + 1, loose_from);
            if found.is_some() {
                return found;
            }
            tried.push(child);
        }
    }

    /// Sets other shares.
    pub fn aim_at(&mut self, shares: Vec<u32>) {
        self.shares = shares;
        self.need = self.plan.tree().sum(|id| self.lacks(id.0));
    }

    /// A device that lacks a slot only because its target was rounded up, and could leave that to another.
    pub fn lender_for(&self, borrower: u32, candidates: &[u32]) -> Option<u32> {
        let path = |device: u32| self.paths[device as usize].map(|node| node as usize);
        let lends =
            |lender: &u32| self.lacks(*lender) > 0 && self.quota.can_lend(&path(*lender), &path(borrower));
        candidates.iter().copied().find(lends)
    }

    /// Rounds up the target of one device in place of another's.
    pub fn lend(&mut self, lender: u32, borrower: u32) {
        let path = |device: u32| self.paths[device as usize].map(|node| node as usize);
        self.quota.lend(&path(lender), &path(borrower));
        self.add_need(lender, -1);
        self.shares[lender as usize] -= 1;
        self.shares[borrower as usize] += 1;
        if self.lacks(borrower) > 0 {
            self.add_need(borrower, 1);
        }
    }

    /// The rows as they have become. No slot is vacant any more.
    pub fn rows(&self) -> Vec<Vec<DeviceId>> {
        let row = |(replica, &length): (usize, &usize)| {
            (0..length).map(|partition| DeviceId(self.slots[partition * self.width + replica])).collect()
        };
        self.lengths.iter().enumerate().map(row).collect()
    }
}

/// No device yet.
pub const VACANT: u32 = u32::MAX - 1;

/// Past the end of the last row.
pub const NO_SLOT: u32 = u32::MAX;

/// Leaves no slot out of a count.
const NOT_A_SLOT: Slot = usize::MAX;
