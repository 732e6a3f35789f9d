//! The clusters, and what an operator does to them.
//!
//! All is computed from constants, so that both sides and every run get the same devices and the same changes.

use serde_json::{Value, json};
use swiftlet::ring::DeviceId;
use swiftlet::ring::builder::{Builder, BuilderFault, NewDevice};

/// A cluster before its first rebalance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cluster {
    /// As it stands in the table.
    pub name: &'static str,
    /// How many devices.
    pub devices: usize,
    /// `log2` of the partitions.
    pub part_power: u8,
    /// Replicas of a partition.
    pub replicas: f64,
    regions: i64,
    zones: usize,
    devices_of_a_server: usize,
}

/// What an operator does.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Another device.
    Add(NewDevice),
    /// Another weight.
    Weight(DeviceId, f64),
    /// To be gone with the next rebalance.
    Remove(DeviceId),
    /// Another number of replicas.
    Replicas(f64),
}

impl Cluster {
    /// The devices in order of their ids: zones filled one after the other, servers within them, weights in turn.
    pub fn build(&self) -> Vec<Step> {
        (0..self.devices).map(|id| self.device(self.zone_of(id), id / self.devices_of_a_server, id)).collect()
    }

    /// The steps of one of [`CHANGES`].
    pub fn change(&self, name: &str) -> Vec<Step> {
        let drained = |id| Step::Weight(id, 0.0);
        match name {
            // The heaviest kind, on the first server.
            "one device added" => {
                vec![self.device(0, 0, self.devices + HEAVIEST - self.devices % WEIGHTS.len())]
            }
            "one zone added" => {
                let (first, size) = (self.devices, self.devices / self.zones);
                (first..first + size)
                    .map(|id| self.device(self.zones, id / self.devices_of_a_server, id))
                    .collect()
            }
            "one device drained" => vec![drained(DeviceId(HEAVIEST as u32))],
            "one server drained" => self.server().map(drained).collect(),
            "one server removed" => self.server().map(Step::Remove).collect(),
            "all weights changed" => {
                let mut random = Random(1);
                let weight = |random: &mut Random| 100.0 + (random.next() % 301) as f64;
                (0..self.devices as u32).map(|id| Step::Weight(DeviceId(id), weight(&mut random))).collect()
            }
            "one more replica" => vec![Step::Replicas((self.replicas + 1.0).floor())],
            _ => unreachable!("{name} is none of CHANGES"),
        }
    }

    /// The devices of the second server.
    fn server(&self) -> impl Iterator<Item = DeviceId> {
        let size = self.devices_of_a_server as u32;
        (size..2 * size).map(DeviceId)
    }

    fn zone_of(&self, id: usize) -> usize {
        id / (self.devices / self.zones)
    }

    fn device(&self, zone: usize, server: usize, id: usize) -> Step {
        let ip = format!("10.{zone}.{}.{}", server / 250, server % 250 + 1);
        Step::Add(NewDevice {
            region: zone as i64 % self.regions + 1,
            zone: zone as i64 + 1,
            replication_ip: ip.clone(),
            ip,
            port: 6201,
            replication_port: 6201,
            name: format!("sd{id}"),
            weight: WEIGHTS[id % WEIGHTS.len()],
            meta: String::new(),
        })
    }
}

impl Step {
    /// Does it to our builder.
    pub fn apply(&self, builder: &mut Builder) -> Result<(), BuilderFault> {
        match self {
            Step::Add(device) => builder.add(device.clone()).map(drop),
            Step::Weight(id, weight) => builder.set_weight(*id, *weight),
            Step::Remove(id) => builder.remove(*id),
            Step::Replicas(replicas) => builder.set_replicas(*replicas),
        }
    }

    /// As `swift_builder.py` reads it.
    pub fn to_json(&self) -> Value {
        match self {
            Step::Add(device) => json!({"add": {
                "region": device.region, "zone": device.zone, "ip": device.ip, "port": device.port,
                "replication_ip": device.replication_ip, "replication_port": device.replication_port,
                "device": device.name, "weight": device.weight, "meta": device.meta,
            }}),
            Step::Weight(id, weight) => json!({"weight": [id.0, weight]}),
            Step::Remove(id) => json!({"remove": id.0}),
            Step::Replicas(replicas) => json!({"replicas": replicas}),
        }
    }
}

/// Numbers that are the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// From small to large.
pub const CLUSTERS: [Cluster; 5] = [
    Cluster {
        name: "4",
        devices: 4,
        part_power: 10,
        replicas: 3.0,
        regions: 1,
        zones: 4,
        devices_of_a_server: 1,
    },
    HUNDRED,
    Cluster { name: "100-regions", regions: 2, ..HUNDRED },
    Cluster { name: "100-fraction", replicas: 3.25, ..HUNDRED },
    Cluster { name: "1000", devices: 1000, part_power: 18, ..HUNDRED },
];

const HUNDRED: Cluster = Cluster {
    name: "100",
    devices: 100,
    part_power: 14,
    replicas: 3.0,
    regions: 1,
    zones: 5,
    devices_of_a_server: 10,
};

/// What happens to each cluster after its first rebalance, always to that one.
pub const CHANGES: [&str; 7] = [
    "one device added",
    "one zone added",
    "one device drained",
    "one server drained",
    "one server removed",
    "all weights changed",
    "one more replica",
];

const WEIGHTS: [f64; 3] = [100.0, 200.0, 400.0];
/// The place of the greatest weight: also the id of the first device that has it.
const HEAVIEST: usize = 2;
