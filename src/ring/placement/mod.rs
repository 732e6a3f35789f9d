//! Which device holds which replica of which partition.
//!
//! Pure: a plan, the rows as they are, what may move and a seed go in; new rows come out.

pub mod plan;
pub mod tiers;

use self::plan::Plan;
use crate::ring::format::DeviceId;

/// What a placement starts from.
pub struct Start<'a> {
    /// What each tier should hold.
    pub plan: &'a Plan,
    /// How long each row is to be.
    pub row_lengths: &'a [usize],
    /// The rows as they are. Ids that are not in the plan's tree need another device.
    pub rows: &'a [Vec<DeviceId>],
    /// Whether a partition may be moved.
    pub may_move: &'a dyn Fn(usize) -> bool,
    /// Equal seeds give equal rows.
    pub seed: &'a [u8],
}

/// What came of it.
pub struct Placed {
    /// The new rows.
    pub rows: Vec<Vec<DeviceId>>,
    /// By id: how many replicas a device would have liked to be given yet, or taken if negative.
    pub wishes: Vec<i64>,
}

/// Places every replica.
pub fn place(start: &Start<'_>) -> Placed {
    // Interim: a rotation over all devices with weight.
    let tree = start.plan.tree();
    let ids: Vec<DeviceId> = (0..tree.ids() as u32)
        .map(DeviceId)
        .filter(|id| tree.path(*id).is_some_and(|path| start.plan.weighted(path[3]) > 0.0))
        .collect();
    let stays = |replica: usize, partition: usize| {
        start.rows.get(replica)?.get(partition).copied().filter(|id| ids.contains(id))
    };
    let rows = start.row_lengths.iter().enumerate().map(|(replica, &length)| {
        (0..length)
            .map(|partition| stays(replica, partition).unwrap_or(ids[(partition + replica) % ids.len()]))
            .collect()
    });
    Placed { rows: rows.collect(), wishes: vec![0; tree.ids()] }
}
