//! Random devices, close enough together to share tiers.

use proptest::prelude::*;
use swiftlet::ring::builder::NewDevice;

/// Where a device stands and what it weighs.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    pub region: i64,
    pub zone: i64,
    pub server: u8,
    pub weight: f64,
}

impl Spot {
    /// A device there; `number` makes its name its own.
    pub fn device(&self, number: usize) -> NewDevice {
        let ip = format!("10.{}.{}.{}", self.region, self.zone, self.server);
        NewDevice {
            region: self.region,
            zone: self.zone,
            replication_ip: ip.clone(),
            ip,
            port: 6201,
            replication_port: 6201,
            name: format!("sd{number}"),
            weight: self.weight,
            meta: String::new(),
        }
    }
}

/// Few regions, zones and servers, so that devices meet at every tier.
pub fn spot() -> impl Strategy<Value = Spot> {
    (prop_oneof![4 => Just(1i64), 1 => Just(2)], 1..4i64, 1..4u8, weight())
        .prop_map(|(region, zone, server, weight)| Spot { region, zone, server, weight })
}

/// Mostly what operators give; sometimes 0, and sometimes far apart.
pub fn weight() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => prop_oneof![Just(100.0), Just(200.0), Just(400.0)],
        2 => 1.0..1000.0f64,
        1 => Just(0.0),
        1 => prop_oneof![Just(0.001), Just(1e6)],
    ]
}
