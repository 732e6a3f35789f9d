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
        moves::evict(&mut board, &order);
        chains::settle(&mut board, &mut chance);
        chains::level(&mut board, &mut chance);
    }
    let wishes = (0..board.held.len() as u32)
        .map(|device| i64::from(board.share(device)) - i64::from(board.held[device as usize]));
    Placed { wishes: wishes.collect(), rows: board.rows() }
}

#[cfg(test)]
pub(in crate::ring) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ring::format::Device;
    use crate::ring::spread::Spread;

    pub fn device(id: u32, region: i64, zone: i64, ip: &str, weight: f64) -> Device {
        Device {
            id: DeviceId(id),
            region,
            zone,
            ip: ip.to_owned(),
            port: 6201,
            replication_ip: ip.to_owned(),
            replication_port: 6201,
            name: format!("sd{id}"),
            weight,
            meta: String::new(),
            extra: serde_json::Map::new(),
        }
    }

    /// Devices of one weight, three to a server and two servers to a zone.
    fn grid(count: u32) -> Vec<Device> {
        (0..count).map(|id| device(id, 1, i64::from(id / 6), &format!("10.0.0.{}", id / 3), 100.0)).collect()
    }

    fn rows(devices: &[Device], lengths: &[usize], before: &[Vec<DeviceId>]) -> Vec<Vec<DeviceId>> {
        let replicas = lengths.iter().sum::<usize>() as f64 / lengths[0] as f64;
        let plan = Plan::new(devices, replicas, 0.0);
        let start =
            Start { plan: &plan, row_lengths: lengths, rows: before, may_move: &|_| true, seed: b"seed" };
        place(&start).rows
    }

    fn moved(before: &[Vec<DeviceId>], after: &[Vec<DeviceId>]) -> usize {
        let all = before.iter().flatten().zip(after.iter().flatten());
        all.filter(|(before, after)| before != after).count()
    }

    fn parts(rows: &[Vec<DeviceId>], id: u32) -> usize {
        rows.iter().flatten().filter(|held| held.0 == id).count()
    }

    #[test]
    fn the_first_placement_is_exact_and_spread_on_every_level() {
        for (count, lengths) in
            [(12, vec![64; 3]), (30, vec![128; 3]), (7, vec![32, 32, 8]), (5, vec![16; 5])]
        {
            let devices = grid(count);
            let rows = rows(&devices, &lengths, &[]);
            let total: usize = lengths.iter().sum();
            for id in 0..count {
                let even = total / count as usize;
                // With a zone short of devices the others hold more; nobody more than each partition once.
                assert!(parts(&rows, id) <= lengths[0].min(even * 2 + 1), "{count}: {id}");
            }
            let plan = Plan::new(&devices, total as f64 / lengths[0] as f64, 0.0);
            for node in 1..plan.tree().node_count() {
                let held = |partition: usize| {
                    let ids = rows.iter().filter_map(|row| row.get(partition));
                    ids.filter(|id| plan.tree().path(**id).is_some_and(|path| path.contains(&node))).count()
                        as u32
                };
                let most = (0..lengths[0]).map(held).max().expect("partitions");
                let least = (0..lengths[0]).map(held).min().expect("partitions");
                assert!(most <= plan.most(node), "{count}: {} has {most}", plan.tree().tier(node));
                assert!(most - least <= 1, "{count}: {} has {least} to {most}", plan.tree().tier(node));
            }
        }
    }

    #[test]
    fn many_devices_share_partitions_with_each() {
        // One zone of servers with one device each, where the order of the tree alone would give each four neighbours.
        let devices: Vec<Device> = (0..60).map(|id| device(id, 1, 1, &format!("10.0.0.{id}"), 1.0)).collect();
        let rows = rows(&devices, &[512; 3], &[]);
        for id in 0..60 {
            let mut peers = BTreeSet::new();
            for partition in 0..512 {
                let ids = || rows.iter().map(|row| row[partition].0);
                if ids().any(|other| other == id) {
                    peers.extend(ids());
                }
            }
            assert!(peers.len() > 20, "device {id} shares with {}", peers.len() - 1);
        }
    }

    #[test]
    fn a_new_device_gets_its_share_and_nobody_else_anything() {
        let mut devices = grid(24);
        let before = rows(&devices, &[256; 3], &[]);
        devices.push(device(24, 1, 0, "10.0.0.99", 100.0));
        let after = rows(&devices, &[256; 3], &before);
        assert_eq!(parts(&after, 24), moved(&before, &after));
        assert!((30..=31).contains(&parts(&after, 24)), "{}", parts(&after, 24));
        assert_eq!(moved(&after, &rows(&devices, &[256; 3], &after)), 0, "and then there is nothing to do");
    }

    #[test]
    fn what_is_drained_is_emptied_and_nothing_else_moves() {
        let mut devices = grid(24);
        let before = rows(&devices, &[256; 3], &[]);
        devices[5].weight = 0.0;
        let after = rows(&devices, &[256; 3], &before);
        assert_eq!((parts(&before, 5), parts(&after, 5)), (32, 0));
        assert_eq!(moved(&before, &after), 32);
    }

    #[test]
    fn a_removed_device_is_replaced_though_nothing_may_move() {
        let mut devices = grid(24);
        let before = rows(&devices, &[256; 3], &[]);
        devices.remove(5);
        let plan = Plan::new(&devices, 3.0, 0.0);
        let start =
            Start { plan: &plan, row_lengths: &[256; 3], rows: &before, may_move: &|_| false, seed: b"seed" };
        let after = place(&start).rows;
        assert_eq!((parts(&after, 5), moved(&before, &after)), (0, 32));
        assert_eq!(Spread::measure(&plan, &after).dispersion, 0.0);
    }

    #[test]
    fn what_may_not_move_stays() {
        let mut devices = grid(24);
        let before = rows(&devices, &[256; 3], &[]);
        devices.push(device(24, 1, 0, "10.0.0.99", 100.0));
        let plan = Plan::new(&devices, 3.0, 0.0);
        let may_move = |partition: usize| partition % 8 == 0;
        let start =
            Start { plan: &plan, row_lengths: &[256; 3], rows: &before, may_move: &may_move, seed: b"seed" };
        let placed = place(&start);
        for partition in (0..256).filter(|partition| !may_move(*partition)) {
            assert!(
                before.iter().zip(&placed.rows).all(|(before, after)| before[partition] == after[partition])
            );
        }
        // In three of four its zone has them already, and only that zone's own can make room.
        assert!(parts(&placed.rows, 24) > 10, "{} of 32 partitions", parts(&placed.rows, 24));
        assert_eq!(placed.wishes.iter().sum::<i64>(), 0);
    }

    #[test]
    fn where_one_move_will_not_do_two_will() {
        // The first device has one too many and the second lacks one, but they share all their partitions: only by way of
        // a third can it come there.
        let device = |(id, weight): (u32, f64)| device(id, 1, i64::from(id), "a", weight);
        let devices: Vec<Device> = (0..).zip([3.0, 5.0, 2.0, 2.0]).map(device).collect();
        let row = |ids: [u32; 6]| ids.map(DeviceId).to_vec();
        let before = [row([0, 0, 0, 0, 2, 2]), row([1, 1, 1, 1, 3, 3])];
        let after = rows(&devices, &[6; 2], &before);
        assert_eq!([0, 1, 2, 3].map(|id| parts(&after, id)), [3, 5, 2, 2]);
        assert_eq!(moved(&before, &after), 2);
    }

    #[test]
    fn what_cannot_be_had_is_missed_evenly() {
        // More is to be moved than there are partitions, each of which may give one replica only.
        let mut devices = grid(24);
        let before = rows(&devices, &[1024; 3], &[]);
        for device in &mut devices {
            device.weight = if device.id.0 % 3 == 0 { 400.0 } else { 100.0 };
        }
        let after = rows(&devices, &[1024; 3], &before);
        let light = devices.iter().filter(|device| device.weight == 100.0);
        let held: Vec<usize> = light.map(|device| parts(&after, device.id.0)).collect();
        let (least, most) = (held.iter().min().expect("devices"), held.iter().max().expect("devices"));
        // Sixty-four each is their share.
        assert!(*most > 64 && most - least <= 1, "{held:?}");
    }

    #[test]
    fn at_most_one_replica_of_a_partition_moves() {
        let mut devices = grid(12);
        let before = rows(&devices, &[64; 3], &[]);
        for device in &mut devices[..6] {
            device.weight = 0.0;
        }
        let mut rows_now = before.clone();
        for round in 0..3 {
            let after = rows(&devices, &[64; 3], &rows_now);
            for partition in 0..64 {
                let moved = rows_now.iter().zip(&after).filter(|(a, b)| a[partition] != b[partition]).count();
                assert!(moved <= 1, "round {round}, partition {partition}");
            }
            rows_now = after;
        }
        assert_eq!((0..6).map(|id| parts(&rows_now, id)).sum::<usize>(), 0);
    }

    #[test]
    fn the_seed_decides() {
        let devices = grid(12);
        let plan = Plan::new(&devices, 3.0, 0.0);
        let rows = |seed: &[u8]| {
            let start = Start { plan: &plan, row_lengths: &[64; 3], rows: &[], may_move: &|_| true, seed };
            place(&start).rows
        };
        assert_eq!(rows(b"1"), rows(b"1"));
        assert_ne!(rows(b"1"), rows(b"2"));
    }
}
