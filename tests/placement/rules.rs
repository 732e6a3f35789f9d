//! What must be true of a rebalance, seen from outside: the builder before, the builder after, and the time.

use std::io::Cursor;

use swiftlet::hash_path::Partition;
use swiftlet::ring::builder::{Builder, Rebalanced};
use swiftlet::ring::format::{FormatVersion, RingData};
use swiftlet::ring::placement::plan::Plan;
use swiftlet::ring::placement::tiers::ROOT;
use swiftlet::ring::spread::Spread;
use swiftlet::ring::{DeviceId, Ring};

use crate::judge::State;

/// When each partition was moved last, kept apart from the builder. Only whole hours pass.
#[derive(Debug, Clone)]
pub struct Clock {
    hour: u64,
    /// `None` for those that may be moved whatever the limit.
    moved: Vec<Option<u64>>,
}

impl Clock {
    pub fn new(partitions: u32) -> Clock {
        // Some time after 1970, as builders count from there.
        Clock { hour: 1_000_000, moved: vec![None; partitions as usize] }
    }

    pub fn secs(&self) -> u64 {
        self.hour * 3600
    }

    pub fn pass(&mut self, hours: u64) {
        self.hour += hours;
    }

    pub fn pretend(&mut self) {
        self.moved.fill(None);
    }

    fn may_move(&self, partition: usize, min_part_hours: u32) -> bool {
        self.moved[partition].is_none_or(|moved| self.hour - moved >= min_part_hours.into())
    }
}

/// Holds a rebalance against every rule, and lets the clock know what was moved.
pub fn hold(before: &Builder, after: &Builder, done: &Rebalanced, clock: &mut Clock) {
    after.validate().expect("a sound assignment");
    lengths(after);
    let moved = moves(before, after, clock);
    assert_eq!(done.reassigned, moved, "what is told is what was moved");
    let marked = before.devices().filter(|device| before.is_marked(device.id)).count();
    assert_eq!(done.removed, marked);
    for device in before.devices() {
        let gone = before.is_marked(device.id);
        assert_eq!(after.device(device.id).is_none(), gone, "device {}", device.id);
    }
    assert!(!after.devices_changed());
    let plan = after.plan().expect("devices enough");
    let rows = after.rows().expect("rows");
    assert_eq!(after.spread(), Some(&Spread::measure(&plan, rows)));
    never_less_than_the_least(before, after);
    serves(after);
}

/// As many whole rows as whole replicas, and the fraction's share of one more.
fn lengths(builder: &Builder) {
    let partitions = f64::from(builder.partitions());
    let slots: usize = builder.rows().expect("rows").iter().map(Vec::len).sum();
    let wanted = builder.replicas().floor() * partitions + (builder.replicas().fract() * partitions).floor();
    assert_eq!(slots as f64, wanted, "{} replicas", builder.replicas());
}

/// Each replica keeps its row unless it must leave, or may; and none that may leave stays on a device that is to be empty. How
/// many slots have another device than before, or had none.
fn moves(before: &Builder, after: &Builder, clock: &mut Clock) -> u64 {
    let mut all = 0;
    for at in 0..after.partitions() as usize {
        let partition = Partition(at as u32);
        let old: Vec<Option<DeviceId>> = slots(before, at);
        let new: Vec<Option<DeviceId>> = slots(after, at);
        let (mut added, mut lost, mut free) = (0, 0, 0);
        for (row, new) in new.iter().enumerate() {
            let old = old.get(row).copied().flatten();
            match (old, new) {
                (_, None) => {}
                (Some(old), Some(new)) if old == *new => {}
                (Some(old), Some(_)) if after.device(old).is_some() => free += 1,
                (Some(_), Some(_)) => lost += 1,
                (None, Some(_)) => added += 1,
            }
        }
        let may_move = clock.may_move(at, before.min_part_hours());
        assert!(free == 0 || may_move, "{partition:?} was moved too soon: {old:?} to {new:?}");
        assert!(free <= 1, "{partition:?}: {free} replicas were moved at once: {old:?} to {new:?}");
        // Swift too moves nothing else of a partition that lost a device; a new replica takes nobody's data away.
        assert!(free == 0 || lost == 0, "{partition:?}: moved besides what was lost: {old:?} to {new:?}");
        for id in after.replicas_of(partition) {
            let weight = after.device(id).expect("a device").weight;
            let held_back = !may_move || free + lost > 0;
            assert!(weight > 0.0 || held_back, "{partition:?} was left on {id}, which is to be empty");
            let had = before.replicas_of(partition).any(|old| old == id);
            assert!(weight > 0.0 || had, "{partition:?} was given to {id}, which is to be empty");
        }
        if added + lost + free > 0 {
            clock.moved[at] = Some(clock.hour);
        }
        all += added + lost + free;
    }
    all
}

/// By row.
fn slots(builder: &Builder, partition: usize) -> Vec<Option<DeviceId>> {
    builder.rows().unwrap_or_default().iter().map(|row| row.get(partition).copied()).collect()
}

/// Where every device ends with its target, at least the least was moved: so the bound is one.
fn never_less_than_the_least(before: &Builder, after: &Builder) {
    let rows = |builder: &Builder| builder.rows().map_or(0, |rows| rows.iter().map(Vec::len).sum::<usize>());
    let plan = after.plan().expect("devices enough");
    let fewer = rows(after) < rows(before);
    if fewer || after.overload() > 0.0 || worst_off(after, &plan) > 0 {
        return;
    }
    let figures = State::of_builder(after).figures(Some(&State::of_builder(before)));
    assert!(figures.moved >= figures.least, "{figures:?}");
}

/// The ring that nodes would get is one, and finds what the builder says.
fn serves(builder: &Builder) {
    let data = builder.ring().expect("a ring");
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let bytes = data.to_bytes(version, "container.ring.gz").expect("bytes");
        let read = RingData::read(&mut Cursor::new(bytes)).expect("a ring");
        assert_eq!(read.assignments, data.assignments);
    }
    let ring = Ring::from(data);
    let parts = builder.parts();
    for partition in (0..builder.partitions()).map(Partition) {
        let primaries: Vec<DeviceId> = ring.primaries(partition).iter().map(|device| device.id).collect();
        assert_eq!(primaries, builder.replicas_of(partition).collect::<Vec<_>>());
        if partition.0 % HANDOFFS_OF_EVERY != 0 {
            continue;
        }
        let mut seen = primaries;
        for handoff in ring.handoffs(partition) {
            assert!(!seen.contains(&handoff.id), "{partition:?}: {} comes twice", handoff.id);
            assert!(parts[handoff.id.0 as usize] > 0);
            seen.push(handoff.id);
        }
    }
}

/// What a builder that has nothing left to move has come to.
pub fn hold_at_rest(builder: &Builder) {
    let plan = builder.plan().expect("devices enough");
    let crowded = crowded(builder, &plan);
    assert_eq!(crowded, 0, "replicas are nearer to each other than the plan has it");
    let off = worst_off(builder, &plan);
    assert!(off <= OFF_AT_REST, "a device is {off} partitions off its target, rounding aside");
    let parts = builder.parts();
    let holds = |id: DeviceId| parts.get(id.0 as usize).is_some_and(|&parts| parts > 0);
    let weightless = builder.devices().find(|device| device.weight <= 0.0 && holds(device.id));
    assert!(weightless.is_none(), "still holds something: {weightless:?}");
}

/// How many partitions the worst device is off its target.
pub fn worst_off(builder: &Builder, plan: &Plan) -> u64 {
    let parts = builder.parts();
    let of = |id: DeviceId| {
        let own = plan.tree().path(id).expect("a device of the plan")[3];
        off(parts[id.0 as usize], plan.target(own) * f64::from(builder.partitions()))
    };
    builder.devices().map(|device| of(device.id)).max().unwrap_or(0)
}

/// What is held beyond a target rounded up, or lacking of it rounded down.
pub fn off(held: u64, target: f64) -> u64 {
    let beyond = held.saturating_sub((target - ROUNDING).ceil().max(0.0) as u64);
    let lacking = ((target + ROUNDING).floor() as u64).saturating_sub(held);
    beyond.max(lacking)
}

/// Replicas beyond the most that the plan allows a partition in a tier.
pub fn crowded(builder: &Builder, plan: &Plan) -> u64 {
    let tree = plan.tree();
    let beyond = |partition| {
        let mut held = vec![0u32; tree.node_count()];
        for id in builder.replicas_of(partition) {
            tree.path(id).expect("a device of the plan").iter().for_each(|&node| held[node] += 1);
        }
        (ROOT + 1..tree.node_count())
            .map(|node| u64::from(held[node].saturating_sub(plan.most(node))))
            .sum::<u64>()
    };
    (0..builder.partitions()).map(Partition).map(beyond).sum()
}

/// Of 33,000 rings at rest one had a device that was off by a partition, all others none.
const OFF_AT_REST: u64 = 1;
/// Looking for handoffs takes long.
const HANDOFFS_OF_EVERY: u32 = 16;
/// Of a partition.
const ROUNDING: f64 = 1e-6;
