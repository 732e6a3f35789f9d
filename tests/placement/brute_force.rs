//! Every assignment that a tiny cluster can have, beside the one we come to.
//!
//! Good is what the plan calls good: first, that no tier holds more replicas of a partition than it should; then, that no
//! device is far from its target. With an overload of what spreading requires, or more, the first is dispersion. For each
//! cluster we ask how much better the best of all assignments is than ours, and how many fewer moves from the same start
//! would have done for one as good as ours.

use std::cell::Cell;

use proptest::prelude::*;
use swiftlet::hash_path::Partition;
use swiftlet::ring::DeviceId;
use swiftlet::ring::builder::Builder;
use swiftlet::ring::placement::plan::Plan;

use crate::cluster::{Spot, spot, weight};
use crate::rules::{crowded, off, worst_off};
use crate::runner;

/// A cluster before, and what it becomes.
#[derive(Debug, Clone)]
struct Tiny {
    part_power: u8,
    replicas: f64,
    overload: f64,
    spots: Vec<Spot>,
    /// The weights with which it is built first; then come those of the spots.
    weights_before: Vec<f64>,
    /// Whether a device was in another zone at first.
    zones_before: Vec<Option<i64>>,
    seed: u8,
}

/// How far an assignment is from good, and how many replicas are elsewhere than they were.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Worth {
    crowded: u64,
    /// Partitions that the worst device holds beyond its target rounded up, or lacks of it rounded down.
    off: u64,
    moved: u64,
}

impl Worth {
    fn as_good_as(&self, other: &Worth) -> bool {
        (self.crowded, self.off) <= (other.crowded, other.off)
    }
}

#[test]
fn no_first_assignment_is_much_better_than_ours() {
    let worst = Cell::new(Gaps::default());
    let outcome = runner("first assignments", CASES).run(&tiny(), |tiny| {
        let mut builder = tiny.builder(|_, spot| spot.clone());
        let Ok(plan) = builder.plan() else { return Ok(()) };
        let moved = builder.rebalance(&[tiny.seed], HOUR).expect("devices enough").reassigned;
        let ours = Worth { crowded: crowded(&builder, &plan), off: worst_off(&builder, &plan), moved };
        let all = all(&builder, &plan, None);
        worst.set(worst.get().and(Gaps::of(&ours, &all)));
        prop_assert!(
            Gaps::of(&ours, &all).within(&FIRST_BOUND),
            "{:?}, ours {ours:?}",
            Gaps::of(&ours, &all)
        );
        Ok(())
    });
    println!("worst of all: {:?}", worst.get());
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn no_way_from_a_start_is_much_better_than_ours() {
    let worst = Cell::new(Gaps::default());
    let outcome = runner("later assignments", CASES).run(&tiny(), |tiny| {
        let Some(start) = tiny.start() else { return Ok(()) };
        let Ok(plan) = start.plan() else { return Ok(()) };
        let mut builder = start.clone();
        let mut moved = 0;
        // Not only until nothing moves: another seed may find what one did not.
        for round in 0..ROUNDS {
            builder.pretend_min_part_hours_passed();
            moved += builder.rebalance(&[tiny.seed, round], HOUR).expect("devices enough").reassigned;
        }
        let ours = Worth { crowded: crowded(&builder, &plan), off: worst_off(&builder, &plan), moved };
        let all = all(&start, &plan, Some(&start));
        worst.set(worst.get().and(Gaps::of(&ours, &all)));
        prop_assert!(
            Gaps::of(&ours, &all).within(&LATER_BOUND),
            "{:?}, ours {ours:?}",
            Gaps::of(&ours, &all)
        );
        Ok(())
    });
    println!("worst of all: {:?}", worst.get());
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// By how much we are beaten.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Gaps {
    /// Replicas crowded beyond the best.
    crowded: u64,
    /// Partitions off beyond the best that is no more crowded than ours.
    off: u64,
    /// Moves beyond the fewest that lead to something as good as ours.
    moved: u64,
}

impl Gaps {
    fn of(ours: &Worth, all: &[Worth]) -> Gaps {
        let least_crowded = all.iter().map(|worth| worth.crowded).min().expect("an assignment");
        let no_more_crowded = all.iter().filter(|worth| worth.crowded <= ours.crowded);
        let least_off = no_more_crowded.map(|worth| worth.off).min().expect("ours is one of them");
        let as_good = all.iter().filter(|worth| worth.as_good_as(ours));
        let fewest = as_good.map(|worth| worth.moved).min().expect("ours is one of them");
        Gaps {
            crowded: ours.crowded - least_crowded,
            off: ours.off - least_off,
            moved: ours.moved.checked_sub(fewest).expect("none is nearer than the nearest"),
        }
    }

    fn within(&self, bound: &Gaps) -> bool {
        self.crowded <= bound.crowded && self.off <= bound.off && self.moved <= bound.moved
    }

    /// Keeps the greatest of each.
    fn and(self, other: Gaps) -> Gaps {
        Gaps {
            crowded: self.crowded.max(other.crowded),
            off: self.off.max(other.off),
            moved: self.moved.max(other.moved),
        }
    }
}

impl Tiny {
    fn builder(&self, spot: impl Fn(usize, &Spot) -> Spot) -> Builder {
        let mut builder = Builder::new(self.part_power, self.replicas, 1).expect("a sound cluster");
        builder.set_overload(self.overload).expect("an overload");
        for (number, own) in self.spots.iter().enumerate() {
            builder.add(spot(number, own).device(number)).expect("a device");
        }
        builder
    }

    /// Built for other weights and zones, then given its own: an assignment as good as random.
    fn start(&self) -> Option<Builder> {
        let mut builder = self.builder(|number, spot| Spot {
            weight: self.weights_before[number],
            zone: self.zones_before[number].unwrap_or(spot.zone),
            ..spot.clone()
        });
        builder.rebalance(&[self.seed], HOUR).ok()?;
        for (number, spot) in self.spots.iter().enumerate() {
            let id = DeviceId(number as u32);
            builder.set_weight(id, spot.weight).expect("a weight");
            builder.set_zone(id, spot.zone).expect("a zone");
        }
        Some(builder)
    }
}

/// The worth of every assignment there is to devices with weight; moves are counted from a start.
fn all(builder: &Builder, plan: &Plan, start: Option<&Builder>) -> Vec<Worth> {
    let ids: Vec<DeviceId> =
        builder.devices().filter(|device| device.weight > 0.0).map(|device| device.id).collect();
    let partitions = builder.partitions();
    let held_by_all = |partition| ids.iter().filter(|id| held(start, partition, **id)).count();
    // What is on devices without weight can only leave.
    let mut worths = vec![(vec![0u32; ids.len()], 0u64, 0u64)];
    for partition in 0..partitions {
        let short = f64::from(partition) >= (f64::from(partitions) * builder.replicas().fract()).floor();
        let replicas = builder.replicas().floor() as u32 + u32::from(!short);
        let choices: Vec<(u32, u64, u64)> = (0..1u32 << ids.len())
            .filter(|chosen| chosen.count_ones() == replicas)
            .map(|chosen| {
                let chosen_ids = || (0..ids.len()).filter(move |at| chosen >> at & 1 == 1).map(|at| ids[at]);
                let stayed = chosen_ids().filter(|id| held(start, partition, *id)).count();
                debug_assert!(stayed <= held_by_all(partition));
                (chosen, crowding(plan, chosen_ids()), u64::from(replicas) - stayed as u64)
            })
            .collect();
        let with = |(counts, crowded, moved): &(Vec<u32>, u64, u64)| {
            let (counts, crowded, moved) = (counts.clone(), *crowded, *moved);
            choices
                .iter()
                .map(move |(chosen, crowding, moves)| {
                    let mut counts = counts.clone();
                    counts.iter_mut().enumerate().for_each(|(at, count)| *count += chosen >> at & 1);
                    (counts, crowded + crowding, moved + moves)
                })
                .collect::<Vec<_>>()
        };
        worths = worths.iter().flat_map(with).collect();
        // What differs in nothing that counts is one.
        worths.sort();
        worths.dedup();
    }
    let targets: Vec<f64> = ids
        .iter()
        .map(|id| {
            plan.target(plan.tree().path(*id).expect("a device of the plan")[3]) * f64::from(partitions)
        })
        .collect();
    let worst = |counts: &[u32]| {
        counts.iter().zip(&targets).map(|(&count, &target)| off(count.into(), target)).max().unwrap_or(0)
    };
    let worth =
        |(counts, crowded, moved): (Vec<u32>, u64, u64)| Worth { crowded, off: worst(&counts), moved };
    worths.into_iter().map(worth).collect()
}

fn held(start: Option<&Builder>, partition: u32, id: DeviceId) -> bool {
    start.is_some_and(|start| start.replicas_of(Partition(partition)).any(|held| held == id))
}

/// Replicas of one partition beyond the most that the plan allows in a tier.
fn crowding(plan: &Plan, ids: impl Iterator<Item = DeviceId>) -> u64 {
    let tree = plan.tree();
    let mut counts = vec![0u32; tree.node_count()];
    for id in ids {
        tree.path(id).expect("a device of the plan").iter().for_each(|&node| counts[node] += 1);
    }
    (1..tree.node_count()).map(|node| u64::from(counts[node].saturating_sub(plan.most(node)))).sum()
}

fn tiny() -> impl Strategy<Value = Tiny> {
    let replicas = prop_oneof![3 => Just(2.0), 3 => Just(3.0), 1 => Just(2.5), 1 => Just(1.0)];
    let overload = prop_oneof![3 => Just(0.0), 1 => Just(0.1), 2 => Just(10.0)];
    let devices = prop::collection::vec((spot(), weight(), prop::option::weighted(0.3, 1..4i64)), 3..=5);
    (0..=2u8, replicas, overload, devices, any::<u8>()).prop_map(
        |(part_power, replicas, overload, devices, seed)| {
            let (mut spots, mut weights_before, mut zones_before) = (Vec::new(), Vec::new(), Vec::new());
            for (spot, weight, zone) in devices {
                spots.push(spot);
                weights_before.push(weight);
                zones_before.push(zone);
            }
            Tiny { part_power, replicas, overload, spots, weights_before, zones_before, seed }
        },
    )
}

/// Clusters of a run.
const CASES: u32 = 2000;
/// Of the first assignment.
const FIRST_BOUND: Gaps = Gaps { crowded: 0, off: 0, moved: 0 };
/// Of what comes of another: in 400,000 clusters 4 moves too many were seen once, 3 now and then.
const LATER_BOUND: Gaps = Gaps { crowded: 0, off: 0, moved: 4 };
/// Rebalances after which nothing moves any more.
const ROUNDS: u8 = 12;
const HOUR: u64 = 3_600_000_000;
