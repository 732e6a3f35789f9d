//! Moves that take more than one step.
//!
//! A device may have replicas to spare, another may lack some, and still no partition of the one may go to the other: their
//! zones have it already, or it was moved for somebody else's sake. Then a third device can take one and give another, or
//! the earlier move can be made over to the device that needs it more. These are augmenting paths, as in the search for a
//! maximum flow: devices by how many steps they are from one that lacks something, then depth first along falling
//! distance, and again until no path is left.

use super::board::{Board, Leave, Slot, VACANT};
use super::chance::Chance;
use super::moves::slots_by_device;

/// Moves spare replicas along chains for as long as there are any, the cheapest first.
pub fn settle(board: &mut Board<'_>, chance: &mut Chance) {
    for (fresh, borrows) in [
        (Fresh::Never, false),
        (Fresh::Never, true),
        (Fresh::First, false),
        (Fresh::First, true),
        (Fresh::Always, false),
    ] {
        pursue(board, chance, fresh, borrows);
    }
}

fn pursue(board: &mut Board<'_>, chance: &mut Chance, fresh: Fresh, borrows: bool) {
    for _ in 0..ROUNDS_LIMIT {
        if !board.staying().any(|device| board.lacks(device) > 0) {
            return;
        }
        let mut search = Search::new(board, chance, fresh, borrows);
        search.measure();
        if !search.advance() {
            return;
        }
    }
}

/// Shares out evenly what could not be had: of the devices that still have too many, and of those that still lack some, the
/// worst is to be no worse off than it must. This moves nothing more, only other replicas.
pub fn level(board: &mut Board<'_>, chance: &mut Chance) {
    if !board.staying().any(|device| board.lacks(device) > 0) {
        return;
    }
    let mut before = vec![0u32; board.held.len()];
    board.origins.iter().filter(|&&device| device < VACANT).for_each(|&device| before[device as usize] += 1);
    let shares: Vec<u32> = (0..board.held.len() as u32).map(|device| board.share(device)).collect();
    let givers: Vec<u32> =
        board.staying().filter(|&device| before[device as usize] > board.share(device)).collect();
    let takers: Vec<u32> =
        board.staying().filter(|&device| before[device as usize] < board.share(device)).collect();
    for side in [givers, takers] {
        let off =
            |board: &Board<'_>, device: u32| board.held[device as usize].abs_diff(shares[device as usize]);
        // The greatest part of its share that any of them is off.
        let part = |&device: &u32| f64::from(off(board, device)) / f64::from(shares[device as usize]);
        let (mut too_little, mut enough) = (0.0, side.iter().map(part).fold(0.0, f64::max));
        for _ in 0..BISECTIONS {
            let part = (too_little + enough) / 2.0;
            // How far each may be off, but by no more than it was before anything moved. Nobody else takes part.
            let bound = |device: u32| {
                let share = shares[device as usize];
                before[device as usize].abs_diff(share).min((f64::from(share) * part) as u32)
            };
            let mut goals = board.held.clone();
            for &device in &side {
                let share = shares[device as usize];
                let is_giver = before[device as usize] > share;
                goals[device as usize] = if is_giver { share + bound(device) } else { share - bound(device) };
            }
            board.aim_at(goals);
            pursue(board, chance, Fresh::Never, false);
            let suffices = side.iter().all(|&device| off(board, device) <= bound(device));
            *(if suffices { &mut enough } else { &mut too_little }) = part;
        }
    }
    board.aim_at(shares);
}

/// Which steps of a chain may move a replica that was to stay: each is a move more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// None: replicas that are on their way already go elsewhere.
    Never,
    /// The first, which takes from who has too many.
    First,
    /// All.
    Always,
}

/// One way to make a replica of a device another's concern.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The slot goes to the device. It could go to any other, or the partition was not moved before.
    Give { slot: Slot, to: u32 },
    /// The slot goes where the partition's other, moved slot went; that one comes back to where it was.
    Exchange { slot: Slot, moved: Slot },
}

struct Search<'b, 'a> {
    board: &'b mut Board<'a>,
    /// By device id: its slots; some may have left it since, and some that came are missing.
    lists: Vec<Vec<Slot>>,
    /// By device id: steps to one that lacks slots, [`FAR`] if there is no way.
    distance: Vec<u32>,
    /// The devices of each distance.
    layers: Vec<Vec<u32>>,
    /// By device id: slots of its list that lead nowhere.
    spent: Vec<usize>,
    /// Devices that lack slots.
    lacking: Vec<u32>,
    fresh: Fresh,
    /// Whether a chain may end at a device that lacks none, if it is as well rounded up as another that does.
    borrows: bool,
}

impl<'b, 'a> Search<'b, 'a> {
    fn new(board: &'b mut Board<'a>, chance: &mut Chance, fresh: Fresh, borrows: bool) -> Search<'b, 'a> {
        let lists = slots_by_device(board, chance);
        let devices = lists.len();
        let lacking = (0..devices as u32).filter(|&device| board.lacks(device) > 0).collect();
        Search {
            board,
            lists,
            distance: vec![FAR; devices],
            layers: Vec::new(),
            spent: vec![0; devices],
            lacking,
            fresh,
            borrows,
        }
    }

    /// Finds the distance of every device from which a path leads.
    fn measure(&mut self) {
        let devices = 0..self.lists.len() as u32;
        let mut layer: Vec<u32> = devices.clone().filter(|&device| self.takes(device)).collect();
        while !layer.is_empty() {
            let distance = self.layers.len() as u32;
            layer.iter().for_each(|&device| self.distance[device as usize] = distance);
            self.layers.push(layer);
            let reaches = |device: &u32| {
                let first = self.board.spare(*device) > 0;
                let mut slots = self.lists[*device as usize].iter();
                self.distance[*device as usize] == FAR
                    && slots.any(|&slot| self.step(*device, slot, distance, first).is_some())
            };
            layer = devices.clone().filter(reaches).collect();
        }
    }

    /// Whether a chain can end at a device.
    fn takes(&self, device: u32) -> bool {
        let board = &*self.board;
        let may_borrow = self.borrows && board.share(device) > 0 && board.spare(device) == 0;
        board.lacks(device) > 0 || (may_borrow && board.lender_for(device, &self.lacking).is_some())
    }

    /// Sends on what the devices have to spare; whether anything was.
    fn advance(&mut self) -> bool {
        let mut advanced = false;
        for device in 0..self.lists.len() as u32 {
            while self.borrows && self.board.spare(device) > 0 {
                let Some(lender) = self.board.lender_for(device, &self.lacking) else { break };
                self.board.lend(lender, device);
                advanced = true;
            }
            let distance = self.distance[device as usize];
            while distance != FAR && self.board.spare(device) > 0 && self.send(device, true) {
                advanced = true;
            }
        }
        advanced
    }

    /// Takes one slot from a device, to the end of a chain; whether there was one.
    fn send(&mut self, device: u32, first: bool) -> bool {
        let distance = self.distance[device as usize];
        if distance == 0 {
            return false;
        }
        while let Some(&slot) = self.lists[device as usize].get(self.spent[device as usize]) {
            let Some(step) = self.step(device, slot, distance - 1, first) else {
                self.spent[device as usize] += 1;
                continue;
            };
            let next = self.target(step);
            if distance == 1 && self.board.lacks(next) == 0 {
                let lender = self.board.lender_for(next, &self.lacking);
                self.board.lend(lender.expect("whoever takes one lacks one, or may borrow"), next);
            }
            let undo = self.take(step);
            if distance == 1 || self.send(next, false) {
                return true;
            }
            // Another device may pass one on; this one is spent.
            self.restore(undo);
        }
        false
    }

    /// A step that a slot of a device allows, to a device of a distance. `first`: whether it would begin a chain.
    fn step(&self, device: u32, slot: Slot, distance: u32, first: bool) -> Option<Step> {
        let board = &*self.board;
        if board.slots[slot] != device {
            return None;
        }
        let near = |to: u32| {
            let is_open = if distance == 0 { self.takes(to) } else { !self.is_spent(to) };
            self.distance[to as usize] == distance && is_open
        };
        let partition = board.partition(slot);
        let is_open = match board.leave[partition] {
            _ if board.was_vacant(slot) => true,
            Leave::Free => match self.fresh {
                Fresh::Never => false,
                Fresh::First => first,
                Fresh::Always => true,
            },
            Leave::Taken(moved) => moved == slot,
            Leave::Held => false,
        };
        if is_open {
            let loose = board.loose_from(slot);
            let layer = &self.layers[distance as usize];
            // Begin anywhere, or the first of the layer gets everything.
            let begin = slot % layer.len();
            let turned = layer[begin..].iter().chain(&layer[..begin]);
            let to = turned.copied().find(|&to| near(to) && board.fits_loosely(slot, to, loose));
            return to.map(|to| Step::Give { slot, to });
        }
        match board.leave[partition] {
            Leave::Taken(moved) if near(board.origins[moved]) && self.may_exchange(slot, moved) => {
                Some(Step::Exchange { slot, moved })
            }
            _ => None,
        }
    }

    /// Whether no slot of a device leads anywhere any more.
    fn is_spent(&self, device: u32) -> bool {
        self.spent[device as usize] >= self.lists[device as usize].len()
    }

    /// Whether the partition stays as well spread if one slot takes the place of another that goes home.
    fn may_exchange(&self, slot: Slot, moved: Slot) -> bool {
        let board = &*self.board;
        let (from, to, home) = (board.slots[slot], board.slots[moved], board.origins[moved]);
        // What changes is that the partition leaves `from` for `home`, if only because of which slot it is.
        from != home && to != home && board.fits(slot, home)
    }

    /// The device that a step gives something to.
    fn target(&self, step: Step) -> u32 {
        match step {
            Step::Give { to, .. } => to,
            Step::Exchange { moved, .. } => self.board.origins[moved],
        }
    }

    /// Takes a step; what it needs to be taken back.
    fn take(&mut self, step: Step) -> Undo {
        let board = &mut *self.board;
        match step {
            Step::Give { slot, to } => {
                let partition = board.partition(slot);
                let undo = Undo { slots: [(slot, board.slots[slot]); 2], leave: board.leave[partition] };
                board.put(slot, to);
                if !board.was_vacant(slot) {
                    let is_home = board.origins[slot] == to;
                    board.leave[partition] = if is_home { Leave::Free } else { Leave::Taken(slot) };
                }
                self.lists[to as usize].push(slot);
                undo
            }
            Step::Exchange { slot, moved } => {
                let partition = board.partition(slot);
                let (from, to, home) = (board.slots[slot], board.slots[moved], board.origins[moved]);
                let undo = Undo { slots: [(slot, from), (moved, to)], leave: board.leave[partition] };
                board.put(moved, home);
                board.put(slot, to);
                board.leave[partition] = Leave::Taken(slot);
                self.lists[home as usize].push(moved);
                self.lists[to as usize].push(slot);
                undo
            }
        }
    }

    fn restore(&mut self, undo: Undo) {
        let partition = self.board.partition(undo.slots[0].0);
        for (slot, device) in undo.slots {
            self.board.put(slot, device);
        }
        self.board.leave[partition] = undo.leave;
    }
}

/// How a partition was before a step.
struct Undo {
    slots: [(Slot, u32); 2],
    leave: Leave,
}

/// No path leads from here.
const FAR: u32 = u32::MAX;

/// Halvings after which what the worst is off is known well enough.
const BISECTIONS: usize = 8;

/// Each round but the last makes something better, the first two nearly all of it.
const ROUNDS_LIMIT: usize = 50;
