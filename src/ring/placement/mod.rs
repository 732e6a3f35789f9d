//! Which device holds which replica of which partition.
//!
//! Pure: a [`Plan`], the rows as they are, what may be moved and a seed go in; new rows come out. The plan is first put into
//! whole numbers ([`quota`]): how many replicas each device is to have, and how often each tier may have a partition. The
//! first time everything is [built](build) just so. Later, what has no device is given one, what is not spread as it should
//! be is moved, and devices that have too many give to those that have too few ([`moves`]), where need be through others
//! ([`chains`]). At most one replica of a partition is moved that has a device to be on, and none that may not be.

mod board;
mod build;
mod chains;
mod chance;
mod moves;
pub mod plan;
mod quota;
pub mod tiers;

use self::board::{Board, VACANT};
use self::chance::Chance;
use self::plan::Plan;
use crate::ring::format::DeviceId;

/// What a placement starts from.
pub struct Start<'a> {
    /// What each tier should hold.
    pub plan: &'a Plan,
    /// How long each row is to be: all as long as the first but the last, which may be shorter.
    pub row_lengths: &'a [usize],
    /// The rows as they are. Replicas on devices that are not in the plan need another one.
    pub rows: &'a [Vec<DeviceId>],
    /// Whether a partition may be moved.
    pub may_move: &'a dyn Fn(usize) -> bool,
    /// Equal seeds give equal rows.
    pub seed: &'a [u8],
}

/// What came of it.
pub struct Placed {
    /// The new rows: a replica stays in its row, whatever device it goes to.
    pub rows: Vec<Vec<DeviceId>>,
    /// By id: how many replicas a device should yet be given, or be rid of if negative.
    pub wishes: Vec<i64>,
}

/// Places every replica. The plan has at least as many devices with weight as there are rows.
pub fn place(start: &Start<'_>) -> Placed {
    let mut board = Board::new(start);
    let mut chance = Chance::new(start.seed);
    if board.slots.iter().all(|&slot| slot >= VACANT) {
        build::build(&mut board, &mut chance);
    } else {
        let mut order: Vec<u32> = (0..board.partitions as u32).collect();
        chance.shuffle(&mut order);
        moves::fill(&mut board, &order);
        moves::spread(&mut board, &order);
        moves::balance(&mut board, &mut chance);
        chains::settle(&mut board, &mut chance);
    }
    let wishes = (0..board.held.len() as u32)
        .map(|device| i64::from(board.share(device)) - i64::from(board.held[device as usize]));
    Placed { wishes: wishes.collect(), rows: board.rows() }
}
