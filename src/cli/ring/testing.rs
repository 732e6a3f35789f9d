//! Rings for the tests of this directory, made in memory.

use crate::ring::builder::{Builder, NewDevice};
use crate::ring::{Device, DeviceId};

/// Devices of weight 100, in so many zones of region 1, each on a server of its own; neighbouring ids in different zones.
pub fn devices(zones: u32, each: u32) -> Vec<Device> {
    (0..zones * each)
        .map(|id| {
            let (zone, number) = (id % zones + 1, id / zones + 1);
            let ip = format!("10.0.{zone}.{number}");
            Device {
                id: DeviceId(id),
                region: 1,
                zone: zone.into(),
                ip: ip.clone(),
                port: 6201,
                replication_ip: ip,
                replication_port: 6201,
                name: "sdb1".to_owned(),
                weight: 100.0,
                meta: String::new(),
                extra: serde_json::Map::new(),
            }
        })
        .collect()
}

/// A builder of these devices after its first rebalance.
pub fn rebalanced(part_power: u8, replicas: f64, devices: &[Device]) -> Builder {
    let mut builder = Builder::new(part_power, replicas, 1).expect("a sound builder");
    for device in devices.iter().cloned() {
        let Device { region, zone, ip, port, replication_ip, replication_port, name, weight, meta, .. } =
            device;
        let new = NewDevice { region, zone, ip, port, replication_ip, replication_port, name, weight, meta };
        builder.add(new).expect("a sound device");
    }
    builder.rebalance(b"7", NOW_SECS).expect("enough devices");
    builder
}

/// The builder's rows as they might have been before: in the first so many partitions, the first replica was on a device
/// that has none of the partition now.
pub fn swapped(builder: &Builder, partitions: usize) -> Vec<Vec<DeviceId>> {
    let mut rows = builder.rows().expect("it is rebalanced").to_vec();
    for partition in 0..partitions {
        let held: Vec<DeviceId> = rows.iter().filter_map(|row| row.get(partition).copied()).collect();
        let other = builder.devices().map(|device| device.id).find(|id| !held.contains(id));
        rows[0][partition] = other.expect("more devices than replicas");
    }
    rows
}

/// When rings of tests are made.
pub const NOW_SECS: u64 = 1_700_000_000;
