//! The moves that are plain to see: vacant slots filled, partitions spread, spare replicas given to who lacks some.
//!
//! Each goes where most is lacking in proportion, and comes from where most is to spare in proportion, so that whatever ends
//! the moving early leaves everybody equally far from what they should have.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::board::{Board, Leave, NO_SLOT, Slot, VACANT};
use super::chance::Chance;

/// Finds a device for every slot without one.
pub fn fill(board: &mut Board<'_>, order: &[u32]) {
    for &partition in order {
        for slot in board.slots_of(partition as usize) {
            if board.slots[slot] == VACANT {
                let device = board.roomiest(slot).or_else(|| least_burdened(board, slot, |_| true));
                // There are at least as many devices as replicas.
                board.put(slot, device.expect("a device that does not have this partition"));
            }
        }
    }
}

/// The device to take a slot if none that fits lacks any: one that fits, else one that has no other replica of the
/// partition; among these the one that has the least above its share. Chains may find a better one later.
fn least_burdened(board: &Board<'_>, slot: Slot, among: impl Fn(u32) -> bool) -> Option<u32> {
    let partition = board.partition(slot);
    let has_it = |device| board.slots_of(partition).any(|slot| board.slots[slot] == device);
    let loose = board.loose_from(slot);
    let burden = |device: u32| f64::from(board.held[device as usize] + 1) / f64::from(board.share(device));
    let devices = || board.staying().filter(|&device| among(device) && !has_it(device));
    let fitting = devices().filter(|&device| board.fits_loosely(slot, device, loose));
    let least = |a: &u32, b: &u32| burden(*a).total_cmp(&burden(*b));
    fitting.min_by(least).or_else(|| devices().min_by(least))
}

/// Moves a replica of each partition that is not spread as it should be, if it may be moved and something is gained.
pub fn spread(board: &mut Board<'_>, order: &[u32]) {
    for &partition in order {
        let partition = partition as usize;
        if board.leave[partition] == Leave::Free && board.faults(partition) > 0 {
            let slots = board.slots_of(partition);
            let mut candidates: Vec<Slot> =
                slots.filter(|&slot| board.device(slot).is_some() && !board.was_vacant(slot)).collect();
            candidates.sort_by(|&a, &b| {
                urgency(board, b).partial_cmp(&urgency(board, a)).unwrap_or(Ordering::Equal)
            });
            if let Some(slot) = candidates.into_iter().find(|&slot| spread_slot(board, slot)) {
                board.leave[partition] = Leave::Taken(slot);
            }
        }
    }
}

/// In how many of its nodes a slot meets too many others of its partition, and how much its device has beyond its share.
fn urgency(board: &Board<'_>, slot: Slot) -> (usize, f64) {
    let Some(device) = board.device(slot) else { return (0, 0.0) };
    let path = board.paths[device as usize].iter().enumerate();
    let crowded = path
        .filter(|&(level, &node)| board.count(board.partition(slot), level, node, slot) >= board.most(node))
        .count();
    (crowded, f64::from(board.held[device as usize]) / f64::from(board.share(device).max(1)))
}

/// Moves a slot to where its partition is spread better, if there is such a place.
fn spread_slot(board: &mut Board<'_>, slot: Slot) -> bool {
    let partition = board.partition(slot);
    let before = board.faults(partition);
    let from = std::mem::replace(&mut board.slots[slot], VACANT);
    // Nothing holds the replica back where it is: it is lifted out.
    let roomiest = board.roomiest(slot).filter(|&to| to != from);
    let missing = board.missing(partition).and_then(|(level, node)| {
        least_burdened(board, slot, |device| device != from && board.paths[device as usize][level] == node)
    });
    let least = || least_burdened(board, slot, |device| device != from);
    let tries = [roomiest, missing, roomiest.is_none().then(least).flatten()];
    board.slots[slot] = from;
    for to in tries.into_iter().flatten() {
        board.put(slot, to);
        if board.faults(partition) < before {
            return true;
        }
        board.put(slot, from);
    }
    false
}

/// Moves spare replicas to devices that lack some, where one move does it.
pub fn balance(board: &mut Board<'_>, chance: &mut Chance) {
    let mut lists = slots_by_device(board, chance);
    let mut heap: BinaryHeap<Giver> =
        (0..board.held.len() as u32).filter_map(|device| Giver::new(board, device)).collect();
    while let Some(Giver { device, .. }) = heap.pop() {
        while let Some(slot) = lists[device as usize].pop() {
            let partition = board.partition(slot);
            if board.leave[partition] != Leave::Free || board.slots[slot] != device || board.was_vacant(slot)
            {
                continue;
            }
            if let Some(to) = board.roomiest(slot) {
                board.put(slot, to);
                board.leave[partition] = Leave::Taken(slot);
                heap.extend(Giver::new(board, device));
                break;
            }
        }
    }
}

/// Takes what is still on devices that are to be empty to whoever bears it best, though nobody who fits lacks any: a drained
/// device is to end empty, and chains can set right what this makes uneven.
pub fn evict(board: &mut Board<'_>, order: &[u32]) {
    for &partition in order {
        let partition = partition as usize;
        if board.leave[partition] != Leave::Free {
            continue;
        }
        let drained = |slot: &Slot| board.device(*slot).is_some_and(|device| board.share(device) == 0);
        let Some(slot) = board.slots_of(partition).find(drained) else { continue };
        if let Some(to) = board.roomiest(slot).or_else(|| least_burdened(board, slot, |_| true)) {
            board.put(slot, to);
            board.leave[partition] = Leave::Taken(slot);
        }
    }
}

/// The slots of each device, by id, in any order.
pub fn slots_by_device(board: &Board<'_>, chance: &mut Chance) -> Vec<Vec<Slot>> {
    let mut lists: Vec<Vec<Slot>> =
        board.held.iter().map(|&held| Vec::with_capacity(held as usize)).collect();
    for (slot, &device) in board.slots.iter().enumerate() {
        if device != NO_SLOT && device != VACANT {
            lists[device as usize].push(slot);
        }
    }
    lists.iter_mut().for_each(|list| chance.shuffle(list));
    lists
}

/// A device with slots to spare: the more in proportion, the sooner it gives.
struct Giver {
    device: u32,
    burden: f64,
}

impl Giver {
    fn new(board: &Board<'_>, device: u32) -> Option<Giver> {
        let held = f64::from(board.held[device as usize]);
        let share = f64::from(board.share(device));
        (held > share).then(|| Giver { device, burden: if share > 0.0 { held / share } else { f64::MAX } })
    }
}

impl Ord for Giver {
    fn cmp(&self, other: &Giver) -> Ordering {
        self.burden.total_cmp(&other.burden).then(other.device.cmp(&self.device))
    }
}

impl PartialOrd for Giver {
    fn partial_cmp(&self, other: &Giver) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Giver {
    fn eq(&self, other: &Giver) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Giver {}
