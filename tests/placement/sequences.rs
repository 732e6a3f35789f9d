//! Random commands on a builder, and every rebalance held against the rules.

use proptest::prelude::*;
use swiftlet::ring::DeviceId;
use swiftlet::ring::builder::{Builder, BuilderFault, DeviceChange};

use crate::cluster::{Spot, spot, weight};
use crate::rules::{self, Clock};
use crate::runner;

/// What an operator does. Devices are named by a number that wraps around at the number there is.
#[derive(Debug, Clone, PartialEq)]
enum Command {
    Add(Spot),
    Weight(usize, f64),
    Remove(usize),
    Region(usize, i64),
    Zone(usize, i64),
    Info(usize),
    Replicas(f64),
    Overload(f64),
    MinPartHours(u32),
    Hours(u64),
    Pretend,
    Rebalance(u8),
}

#[test]
fn every_rebalance_keeps_the_rules() {
    let created = (0..=8u8, replicas(), 0..4u32, prop::collection::vec(spot(), 1..8));
    let played = prop::collection::vec(command(), 1..30);
    let outcome = runner("sequences", CASES).run(&(created, played), |(created, played)| {
        let (part_power, replicas, hours, spots) = created;
        let mut play = Play::new(part_power, replicas, hours);
        spots.iter().for_each(|spot| play.does(&Command::Add(spot.clone())));
        play.does(&Command::Rebalance(0));
        played.iter().for_each(|command| play.does(command));
        play.does(&Command::Rebalance(1));
        play.settles();
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// A builder and what it should remember of the past.
struct Play {
    builder: Builder,
    clock: Clock,
    /// How many devices there ever were: their names.
    added: usize,
}

impl Play {
    fn new(part_power: u8, replicas: f64, hours: u32) -> Play {
        let builder = Builder::new(part_power, replicas, hours).expect("a sound cluster");
        Play { clock: Clock::new(builder.partitions()), builder, added: 0 }
    }

    fn does(&mut self, command: &Command) {
        let builder = &mut self.builder;
        let ids: Vec<DeviceId> = builder.devices().map(|device| device.id).collect();
        let id = |which: &usize| ids.get(which % ids.len().max(1)).copied().unwrap_or(DeviceId(0));
        let done = match command {
            Command::Add(_) if ids.len() >= DEVICES_LIMIT => Ok(()),
            Command::Add(spot) => {
                self.added += 1;
                builder.add(spot.device(self.added)).map(drop)
            }
            Command::Weight(which, weight) => builder.set_weight(id(which), *weight),
            Command::Remove(which) => builder.remove(id(which)),
            Command::Region(which, region) => builder.set_region(id(which), *region),
            Command::Zone(which, zone) => builder.set_zone(id(which), *zone),
            Command::Info(which) => {
                let change = DeviceChange { meta: Some("seen".to_owned()), ..DeviceChange::default() };
                builder.set_info(id(which), &change)
            }
            Command::Replicas(replicas) => builder.set_replicas(*replicas),
            Command::Overload(overload) => builder.set_overload(*overload),
            Command::MinPartHours(hours) => {
                builder.set_min_part_hours(*hours);
                Ok(())
            }
            Command::Hours(hours) => {
                self.clock.pass(*hours);
                Ok(())
            }
            Command::Pretend => {
                builder.pretend_min_part_hours_passed();
                self.clock.pretend();
                Ok(())
            }
            Command::Rebalance(seed) => {
                self.rebalance(&[*seed]);
                Ok(())
            }
        };
        let refused = matches!(done, Err(BuilderFault::Marked { .. } | BuilderFault::NoDevice(_)));
        assert!(done.is_ok() || refused, "{command:?}: {done:?}");
    }

    fn rebalance(&mut self, seed: &[u8]) {
        let before = self.builder.clone();
        let mut twin = before.clone();
        let done = self.builder.rebalance(seed, self.clock.secs());
        assert_eq!(done.is_ok(), twin.rebalance(seed, self.clock.secs()).is_ok());
        assert!(self.builder == twin, "the same builder and the same seed, but not the same ring");
        match done {
            Ok(done) => {
                rules::hold(&before, &self.builder, &done, &mut self.clock);
                // At once again: what was moved just now stays, and so does all else that had no time yet.
                let (mut again, mut clock) = (self.builder.clone(), self.clock.clone());
                let done = again.rebalance(b"again", clock.secs()).expect("it went before");
                rules::hold(&self.builder, &again, &done, &mut clock);
            }
            Err(fault) => {
                assert!(matches!(fault, BuilderFault::TooFewDevices { .. }), "{fault:?}");
                assert!(self.builder == before, "refused, but changed");
            }
        }
    }

    /// With time to move everything, a few rebalances come to rest, and then every device has what it should.
    fn settles(&mut self) {
        if self.builder.plan().is_err() {
            return;
        }
        let limit = self.builder.replicas().ceil() as usize + SETTLED_AFTER;
        let mut still = 0;
        for round in 0..=limit {
            self.builder.pretend_min_part_hours_passed();
            self.clock.pretend();
            let before = self.builder.clone();
            let done = self.builder.rebalance(&[round as u8], self.clock.secs()).expect("devices enough");
            rules::hold(&before, &self.builder, &done, &mut self.clock);
            still = if done.reassigned == 0 { still + 1 } else { 0 };
            if still == SEEDS_AT_REST {
                rules::hold_at_rest(&self.builder);
                return;
            }
        }
        panic!("still moving after {limit} rebalances");
    }
}

fn command() -> impl Strategy<Value = Command> {
    let which = || 0..DEVICES_LIMIT;
    prop_oneof![
        6 => spot().prop_map(Command::Add),
        4 => (which(), weight()).prop_map(|(which, weight)| Command::Weight(which, weight)),
        3 => which().prop_map(Command::Remove),
        1 => (which(), 1..3i64).prop_map(|(which, region)| Command::Region(which, region)),
        1 => (which(), 1..4i64).prop_map(|(which, zone)| Command::Zone(which, zone)),
        1 => which().prop_map(Command::Info),
        2 => replicas().prop_map(Command::Replicas),
        1 => prop_oneof![Just(0.0), Just(0.1), 0.0..1.0f64, Just(10.0)].prop_map(Command::Overload),
        1 => (0..4u32).prop_map(Command::MinPartHours),
        2 => (0..4u64).prop_map(Command::Hours),
        2 => Just(Command::Pretend),
        8 => (0..4u8).prop_map(Command::Rebalance),
    ]
}

fn replicas() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => prop_oneof![Just(1.0), Just(2.0), Just(3.0), Just(4.0)],
        1 => prop_oneof![Just(1.5), Just(2.25), Just(3.25)],
        1 => 1.0..5.0f64,
    ]
}

/// Sequences of a run.
const CASES: u32 = 1000;
/// The most devices at once.
const DEVICES_LIMIT: usize = 14;
/// What one seed does not move another may, though hardly ever: at rest is what so many leave alone.
const SEEDS_AT_REST: usize = 4;
/// So many rebalances more than a partition has replicas, each of which may have to move, are enough to come to rest. Nearly
/// always it is none: of 33,000 sequences 13 took more, the slowest 19.
const SETTLED_AFTER: usize = 40;
