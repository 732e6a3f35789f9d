//! What changed between two assignments: which replicas are elsewhere now, and where they came from.
//!
//! Data follows devices, not rows. Where the replicas of a partition only changed rows nothing has to be copied, so each
//! partition is compared as a whole: a device that is among its replicas before and after keeps its data, and only the
//! others move.

use std::collections::BTreeMap;

use super::format::DeviceId;

/// One replica that is elsewhere now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The row it is in now; of one that is no more, a row that has no device for the partition now.
    pub replica: usize,
    /// Where it was. `None` for a new replica.
    pub from: Option<DeviceId>,
    /// Where it is. `None` for one that is no more.
    pub to: Option<DeviceId>,
}

/// The changes of one partition. What left a row is said to have gone to what came into that row, where there is such a
/// pair; the others are paired in order.
pub fn changes(before: &[Vec<DeviceId>], after: &[Vec<DeviceId>], partition: usize) -> Vec<Change> {
    let held = |rows: &[Vec<DeviceId>]| -> Vec<(usize, DeviceId)> {
        let held = rows.iter().enumerate();
        held.filter_map(|(replica, row)| Some((replica, *row.get(partition)?))).collect()
    };
    let mut left = held(before);
    let mut came = held(after);
    came.retain(|(_, id)| {
        let stayed = left.iter().position(|(_, old)| old == id);
        stayed.map(|at| left.remove(at)).is_none()
    });
    let mut changes: Vec<Change> =
        came.iter().map(|&(replica, to)| Change { replica, from: None, to: Some(to) }).collect();
    for change in &mut changes {
        let same_row = left.iter().position(|(replica, _)| *replica == change.replica);
        change.from = same_row.map(|at| left.remove(at).1);
    }
    let mut left = left.into_iter();
    for change in changes.iter_mut().filter(|change| change.from.is_none()) {
        change.from = left.next().map(|(_, from)| from);
    }
    let free = (0..before.len()).filter(|&row| after.get(row).is_none_or(|row| row.len() <= partition));
    changes.extend(free.zip(left).map(|(replica, (_, from))| Change { replica, from: Some(from), to: None }));
    changes
}

/// All changes, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Replicas there are now, of all partitions.
    pub replicas: u64,
    /// Replicas that went from one device to another.
    pub moved: u64,
    /// Replicas that there were not before.
    pub placed: u64,
    /// Replicas that there are no more.
    pub dropped: u64,
    /// Partitions of which anything changed.
    pub partitions: u64,
    /// How many replicas went from one device to another.
    pub routes: BTreeMap<(DeviceId, DeviceId), u64>,
    /// What each device has now and had not, new replicas included.
    pub got: BTreeMap<DeviceId, u64>,
    /// What each device had and has no more, dropped replicas included.
    pub gave: BTreeMap<DeviceId, u64>,
}

impl Moves {
    /// Compares two assignments of the same partitions. Either may have more replicas; `before` is empty before the first
    /// rebalance.
    pub fn between(before: &[Vec<DeviceId>], after: &[Vec<DeviceId>]) -> Moves {
        let longest = |rows: &[Vec<DeviceId>]| rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut moves =
            Moves { replicas: after.iter().map(|row| row.len() as u64).sum(), ..Moves::default() };
        for partition in 0..longest(before).max(longest(after)) {
            if is_same(before, after, partition) {
                continue;
            }
            let changes = changes(before, after, partition);
            moves.partitions += u64::from(!changes.is_empty());
            changes.into_iter().for_each(|change| moves.count(change));
        }
        moves
    }

    /// Whether nothing moved, came or went.
    pub fn is_empty(&self) -> bool {
        self.partitions == 0
    }

    fn count(&mut self, change: Change) {
        match (change.from, change.to) {
            (Some(from), Some(to)) => {
                self.moved += 1;
                *self.routes.entry((from, to)).or_default() += 1;
            }
            (None, _) => self.placed += 1,
            (_, None) => self.dropped += 1,
        }
        if let Some(from) = change.from {
            *self.gave.entry(from).or_default() += 1;
        }
        if let Some(to) = change.to {
            *self.got.entry(to).or_default() += 1;
        }
    }
}

/// Whether a partition has the same devices in the same rows. Most have, and this allocates nothing.
fn is_same(before: &[Vec<DeviceId>], after: &[Vec<DeviceId>], partition: usize) -> bool {
    let id = |rows: &[Vec<DeviceId>], replica: usize| rows.get(replica)?.get(partition).copied();
    (0..before.len().max(after.len())).all(|replica| id(before, replica) == id(after, replica))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[u32]]) -> Vec<Vec<DeviceId>> {
        rows.iter().map(|row| row.iter().copied().map(DeviceId).collect()).collect()
    }

    fn change(replica: usize, from: Option<u32>, to: Option<u32>) -> Change {
        Change { replica, from: from.map(DeviceId), to: to.map(DeviceId) }
    }

    /// The changes of a single partition with these devices before and after.
    fn of_one(before: &[u32], after: &[u32]) -> Vec<Change> {
        let column = |ids: &[u32]| ids.iter().map(|&id| vec![DeviceId(id)]).collect::<Vec<_>>();
        changes(&column(before), &column(after), 0)
    }

    #[test]
    fn only_a_device_that_was_not_there_before_gets_data() {
        assert_eq!(of_one(&[0, 1, 2], &[0, 1, 2]), []);
        assert_eq!(of_one(&[0, 1, 2], &[2, 0, 1]), [], "other rows, same devices");
        assert_eq!(of_one(&[0, 1, 2], &[0, 3, 2]), [change(1, Some(1), Some(3))]);
        assert_eq!(of_one(&[0, 1, 2], &[1, 3, 0]), [change(1, Some(2), Some(3))], "2 left another row");
        assert_eq!(
            of_one(&[0, 1, 2], &[4, 2, 3]),
            [change(0, Some(0), Some(4)), change(2, Some(1), Some(3))],
            "a pair in one row comes first"
        );
    }

    #[test]
    fn replicas_come_and_go_and_double() {
        assert_eq!(of_one(&[], &[7, 8]), [change(0, None, Some(7)), change(1, None, Some(8))]);
        assert_eq!(of_one(&[0, 1], &[1]), [change(1, Some(0), None)]);
        assert_eq!(
            of_one(&[0, 1, 2], &[3]),
            [change(0, Some(0), Some(3)), change(1, Some(1), None), change(2, Some(2), None)]
        );
        assert_eq!(of_one(&[0, 1], &[1, 2, 0]), [change(1, None, Some(2))]);
        assert_eq!(of_one(&[5, 5], &[5, 6]), [change(1, Some(5), Some(6))], "one of two on a device moved");
        assert_eq!(of_one(&[], &[]), []);
    }

    #[test]
    fn moves_count_routes_and_partitions_and_short_rows() {
        let before = rows(&[&[0, 1, 2, 0], &[1, 2, 0, 1], &[2, 0]]);
        let after = rows(&[&[3, 1, 2, 0], &[1, 0, 0, 3], &[2, 3, 1]]);
        let moves = Moves::between(&before, &after);
        let ids = |pairs: &[(u32, u64)]| pairs.iter().map(|&(id, n)| (DeviceId(id), n)).collect();
        assert_eq!(
            moves,
            Moves {
                replicas: 11,
                moved: 3,
                placed: 1,
                dropped: 0,
                partitions: 4,
                routes: BTreeMap::from([
                    ((DeviceId(0), DeviceId(3)), 1),
                    ((DeviceId(1), DeviceId(3)), 1),
                    ((DeviceId(2), DeviceId(3)), 1),
                ]),
                got: ids(&[(1, 1), (3, 3)]),
                gave: ids(&[(0, 1), (1, 1), (2, 1)]),
            }
        );
        assert!(Moves::between(&after, &after).is_empty());
        let back = Moves::between(&after, &before);
        assert_eq!((back.moved, back.placed, back.dropped), (3, 0, 1));
    }

    #[test]
    fn a_first_assignment_moves_nothing() {
        let moves = Moves::between(&[], &rows(&[&[0, 1], &[1, 0]]));
        assert_eq!((moves.replicas, moves.moved, moves.placed, moves.partitions), (4, 0, 4, 2));
        assert!(moves.routes.is_empty() && moves.gave.is_empty());
        assert_eq!(Moves::between(&[], &[]), Moves::default());
    }
}
