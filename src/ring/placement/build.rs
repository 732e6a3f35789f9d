//! The first placement of all: nobody holds anything, and every wish can be met.
//!
//! Lay the replicas of a node out as a line, all its partitions in any order, then all of them again for their next
//! replica, and so on; and cut the line into one piece for each child, as long as the child's share. No piece is longer
//! than one round of the partitions, once the replicas that a child has of *every* partition are set aside, so no child
//! meets a partition twice in its piece: each has every partition as often as its share says, rounded down or up, and all
//! shares are exact. Done from the cluster down to the devices, this leaves nothing to balance or to spread.
//!
//! What the line alone would leave is neighbourhood: in a zone of a thousand servers the pieces over the same stretch of
//! partitions would share all of them, and few devices would have to restore what one lost. So in the end random pairs of
//! replicas change places where that keeps to all bounds.

use super::board::Board;
use super::chance::Chance;
use super::tiers::{LEVELS, ROOT};

/// Fills a board of which every slot is vacant.
pub fn build(board: &mut Board<'_>, chance: &mut Chance) {
    let partitions = 0..board.partitions;
    let slots = |partition: usize| board.slots_of(partition).filter(|&slot| board.was_vacant(slot)).count();
    let all = partitions.map(|partition| (partition as u32, slots(partition) as u8)).collect();
    let mut places = vec![0; board.partitions];
    deal(board, chance, ROOT as u32, 0, all, &mut places);
    mix(board, chance);
    shuffle_rows(board, chance);
}

/// Deals a node's partitions, each with its number of replicas there, to the node's children.
fn deal(
    board: &mut Board<'_>,
    chance: &mut Chance,
    node: u32,
    level: usize,
    mut own: Vec<(u32, u8)>,
    places: &mut [usize],
) {
    if level == LEVELS {
        let device = board.id(node);
        for (partition, _) in own {
            let place = &mut places[partition as usize];
            let slot = board.slots_of(partition as usize).start + *place;
            *place += 1;
            board.put(slot, device);
        }
        return;
    }
    let mut children = board.children[node as usize].clone();
    chance.shuffle(&mut children);
    chance.shuffle(&mut own);
    let everywhere: u32 = children.iter().map(|&child| board.least(child)).sum();
    // How many replicas of a partition remain once every child has its least; those with one more come first.
    let rest = |&(_, replicas): &(u32, u8)| u32::from(replicas) - everywhere;
    own.sort_by_key(|entry| std::cmp::Reverse(rest(entry)));
    let rounds = own.first().map_or(0, rest);
    let mut line = (0..rounds).flat_map(|round| own.iter().filter(move |entry| rest(entry) > round));
    for child in children {
        let least = board.least(child);
        let whole = least * board.partitions as u32;
        let piece = line.by_ref().take((board.quota.of(child as usize) - whole) as usize);
        let dealt: Vec<(u32, u8)> = if least == 0 {
            piece.map(|&(partition, _)| (partition, 1)).collect()
        } else {
            // It has all partitions, and those of its piece once more.
            let mut replicas = vec![least as u8; board.partitions];
            piece.for_each(|&(partition, _)| replicas[partition as usize] += 1);
            (0..).zip(replicas).collect()
        };
        deal(board, chance, child, level + 1, dealt, places);
    }
}

/// Exchanges replicas of random partitions, once for each slot on average.
fn mix(board: &mut Board<'_>, chance: &mut Chance) {
    let slots = board.slots.len();
    for slot in 0..slots {
        let other = chance.below(slots);
        let (Some(here), Some(there)) = (board.device(slot), board.device(other)) else { continue };
        let elsewhere = board.partition(slot) != board.partition(other);
        if elsewhere && here != there && board.fits(slot, there) && board.fits(other, here) {
            board.slots.swap(slot, other);
        }
    }
}

/// Makes it a matter of chance which of a partition's devices comes first.
fn shuffle_rows(board: &mut Board<'_>, chance: &mut Chance) {
    for partition in 0..board.partitions {
        let slots = board.slots_of(partition);
        let filled = slots.clone().filter(|&slot| board.device(slot).is_some()).count();
        chance.shuffle(&mut board.slots[slots.start..slots.start + filled]);
    }
}
