//! How good an assignment is, by the same code for both sides.
//!
//! Only rows and devices count here, whoever made them; neither side is asked how well it did, though Swift's own figures
//! are held against ours to show that both mean the same.

use std::collections::BTreeMap;

use swiftlet::hash_path::Partition;
use swiftlet::ring::builder::Builder;
use swiftlet::ring::placement::plan::Plan;
use swiftlet::ring::spread::{self, Spread};
use swiftlet::ring::{Device, DeviceId, Ring};

/// Devices, and what they hold.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    devices: BTreeMap<DeviceId, Device>,
    /// `rows[replica][partition]`.
    rows: Vec<Vec<DeviceId>>,
    /// Asked for, not counted.
    replicas: f64,
}

/// What is told of one rebalance.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Figures {
    /// How far the worst device is from its share by weight, in percent.
    pub balance: f64,
    /// Percentage of replicas that are nearer to each other than they would have to be.
    pub dispersion: f64,
    /// Replicas that are on a device which had none of their partition.
    pub moved: u64,
    /// The least that had to move.
    pub least: u64,
}

impl State {
    /// Of our builder.
    pub fn of_builder(builder: &Builder) -> State {
        State {
            devices: builder.devices().map(|device| (device.id, device.clone())).collect(),
            rows: builder.rows().unwrap_or_default().to_vec(),
            replicas: builder.replicas(),
        }
    }

    /// Of a ring file.
    pub fn of_ring(ring: &Ring, replicas: f64) -> State {
        let ids = &ring.data().assignments;
        let row = |row| (0..ids.partitions()).map_while(move |at| ids.device(row, Partition(at))).collect();
        State {
            devices: ring.devices().map(|device| (device.id, device.clone())).collect(),
            rows: (0..ids.rows()).map(row).collect(),
            replicas,
        }
    }

    /// Judges what became of `before`, which is `None` for a first rebalance.
    pub fn figures(&self, before: Option<&State>) -> Figures {
        let plan = self.plan();
        Figures {
            balance: self.balance(),
            dispersion: Spread::measure(&plan, &self.rows).dispersion,
            moved: self.moved(before),
            least: self.least(&plan, before),
        }
    }

    /// Dispersion as Swift counts it (`_build_dispersion_graph`): where the last row is short, partitions beyond its end are
    /// not looked at.
    pub fn swifts_dispersion(&self) -> f64 {
        let seen = self.rows.iter().map(Vec::len).min().unwrap_or(0);
        let rows: Vec<Vec<DeviceId>> = self.rows.iter().map(|row| row[..seen].to_vec()).collect();
        Spread::measure(&self.plan(), &rows).dispersion * seen as f64 / self.partitions() as f64
    }

    fn plan(&self) -> Plan {
        Plan::new(self.devices.values(), self.replicas, 0.0)
    }

    fn balance(&self) -> f64 {
        let weight: f64 = self.devices.values().map(|device| device.weight).sum();
        let parts_per_weight = self.partitions() as f64 * self.replicas / weight;
        let held = self.held();
        let balance = |device: &Device| {
            spread::balance(device, held.get(&device.id).copied().unwrap_or(0), parts_per_weight).abs()
        };
        self.devices.values().map(balance).fold(0.0, f64::max)
    }

    /// A replica that only changed its row went nowhere: no data follows it.
    fn moved(&self, before: Option<&State>) -> u64 {
        let moved = |partition: usize| {
            let had: Vec<DeviceId> =
                before.map_or(Vec::new(), |before| before.replicas_of(partition).collect());
            self.replicas_of(partition).filter(|id| !had.contains(id)).count() as u64
        };
        (0..self.partitions()).map(moved).sum()
    }

    /// A bound that no way of balancing can beat if it is to leave every device with its target of the plan, rounded up or
    /// down as it likes.
    ///
    /// Counted twice, from those who give and from those who take. A replica must be given away if its device is gone, or
    /// has no weight, or if the device holds more than its target rounded up; and each slot that was not there before is
    /// given too, by nobody. A device must take what it lacks of its target rounded down. All that is given is taken, so
    /// the greater of both is a bound. It need not be within reach: spreading can ask for more, and so can
    /// `min_part_hours`, or the one move a partition has, ask for less.
    fn least(&self, plan: &Plan, before: Option<&State>) -> u64 {
        let partitions = self.partitions() as f64;
        let kept = before.map_or(BTreeMap::new(), |before| before.held_within(&self.rows));
        let slots: u64 = self.rows.iter().map(|row| row.len() as u64).sum();
        let stayed: u64 = self.devices.keys().map(|id| kept.get(id).copied().unwrap_or(0)).sum();
        let (mut given, mut taken) = (slots - stayed, 0);
        for id in self.devices.keys() {
            let own = plan.tree().path(*id).expect("a device of the plan")[3];
            let target = plan.target(own) * partitions;
            let held = kept.get(id).copied().unwrap_or(0);
            given += held.saturating_sub((target - ROUNDING).ceil().max(0.0) as u64);
            taken += ((target + ROUNDING).floor() as u64).saturating_sub(held);
        }
        given.max(taken)
    }

    fn partitions(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    fn replicas_of(&self, partition: usize) -> impl Iterator<Item = DeviceId> {
        self.rows.iter().filter_map(move |row| row.get(partition).copied())
    }

    /// How many replicas each device has.
    fn held(&self) -> BTreeMap<DeviceId, u64> {
        self.held_within(&self.rows)
    }

    /// The same, without the slots that other rows do not have any more.
    fn held_within(&self, rows: &[Vec<DeviceId>]) -> BTreeMap<DeviceId, u64> {
        let mut held = BTreeMap::new();
        for (own, other) in self.rows.iter().zip(rows) {
            own.iter().take(other.len()).for_each(|id| *held.entry(*id).or_default() += 1);
        }
        held
    }
}

/// Of a partition; targets are sums of fractions.
const ROUNDING: f64 = 1e-6;
