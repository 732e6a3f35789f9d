//! The container ring: whether it can be read, and what of it is on this node.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Finding, Subject, count, some_of};
use crate::config::{self, Config};
use crate::drive::DeviceName;
use crate::report::text::span;
use crate::ring::{Device, Ring};

const RINGS: Subject = Subject::Rings;

/// The ring, and which of its devices are on this node.
#[derive(Debug, Clone)]
pub struct Ours {
    /// The container ring.
    pub ring: Arc<Ring>,
    /// Our devices, in its order; there is one at least.
    pub devices: Vec<Device>,
}

/// Reads the ring and looks for our devices. Host names in it are looked up, which may take a while.
pub fn check(config: &Config) -> (Vec<Finding>, Option<Ours>) {
    let path = config.swift_dir.join("container.ring.gz");
    let ring = match Ring::load(&path) {
        Ok(ring) => Arc::new(ring),
        Err(error) => return (vec![RINGS.plain_error(error)], None),
    };
    let written = fs::metadata(&path).and_then(|file| file.modified()).ok();
    let mut findings = judge_ring(&path, &ring, written, SystemTime::now());
    if config.handoff_delete.is_some() && config.handoff_delete_within(ring.replica_count()).is_none() {
        let what = format!(
            "handoff_delete is not below the ring's {} replicas, so it means all",
            ring.replica_count()
        );
        findings.push(RINGS.warning(what, "set it to auto, or lower"));
    }
    let mine = match config::my_addresses(&config.bind_ip) {
        Ok(mine) => mine,
        Err(error) => {
            let what = format!("this machine's addresses cannot be listed: {error}");
            findings.push(RINGS.error(what, "set bind_ip in the conf file"));
            return (findings, None);
        }
    };
    let here = |port: Option<u16>| {
        let is_here = |device: &&Device| {
            config::is_local_device(&mine, port, &device.replication_ip, device.replication_port)
        };
        ring.devices().filter(is_here).cloned().collect::<Vec<Device>>()
    };
    let devices = here(Some(config.bind_port));
    if devices.is_empty() {
        findings.push(judge_absence(&mine, config.bind_port, &here(None), &ring));
        return (findings, None);
    }
    findings.extend(judge_ours(&ring, &devices));
    (findings, Some(Ours { ring, devices }))
}

/// A ring that was read, and how old its file is.
fn judge_ring(path: &Path, ring: &Ring, written: Option<SystemTime>, now: SystemTime) -> Vec<Finding> {
    let version = ring.version().map_or_else(String::new, |version| format!("version {version}, "));
    let replicas = ring.replica_count();
    let power = 32 - u32::from(ring.part_shift().bits());
    let facts = format!(
        "{}: {version}{} of 2^{power} partitions on {}",
        path.display(),
        match replicas {
            1.0 => "1 replica".to_owned(),
            replicas => format!("{replicas} replicas"),
        },
        count(ring.assigned_device_count(), "device")
    );
    let mut findings = Vec::new();
    match written.map(|written| (now.duration_since(written), written.duration_since(now))) {
        None => findings.push(RINGS.ok(facts)),
        Some((_, Ok(ahead))) if ahead > FUTURE_LIMIT => {
            findings.push(RINGS.ok(facts));
            let what = format!("{} was written {} in the future", path.display(), span(ahead.as_secs_f64()));
            findings.push(
                RINGS.warning(what, "look at this node's clock, and at that of the node it was made on"),
            );
        }
        Some((age, _)) => {
            findings.push(RINGS.ok(format!("{facts}, {} old", span(age.unwrap_or_default().as_secs_f64()))))
        }
    }
    if replicas < 2.0 {
        let what = "with fewer than two replicas there are partitions with nothing to replicate";
        findings.push(RINGS.warning(what, "agent ring container.builder set_replicas 3, then rebalance"));
    }
    findings
}

/// No device of the ring is at our addresses and our port; `elsewhere` are those at our addresses and other ports.
fn judge_absence(mine: &[String], port: u16, elsewhere: &[Device], ring: &Ring) -> Finding {
    let addresses = some_of(mine.iter().map(String::as_str));
    let what = format!("no device of the ring is on this node: none replicates at {addresses} port {port}");
    if let Some(device) = elsewhere.first() {
        let others = BTreeSet::from_iter(elsewhere.iter().map(|device| device.replication_port));
        let ports = others.iter().map(u16::to_string).collect::<Vec<_>>();
        let remedy = format!(
            "the ring has {} of this node at port {}: set bind_port to the replication port",
            device.name,
            ports.join(", ")
        );
        return RINGS.error(what, remedy);
    }
    let known: BTreeSet<String> = ring
        .devices()
        .map(|device| format!("{}:{}", device.replication_ip, device.replication_port))
        .collect();
    let remedy = format!(
        "check bind_ip and bind_port, and that the ring is this cluster's; it has {}",
        some_of(known.iter().map(String::as_str))
    );
    RINGS.error(what, remedy)
}

/// The devices that are ours.
fn judge_ours(ring: &Ring, devices: &[Device]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = devices.iter().map(|device| device.name.as_str());
    findings.push(RINGS.ok(format!(
        "{} of it here: {}",
        count(devices.len(), "device"),
        some_of(names.clone())
    )));
    for device in devices {
        if DeviceName::new(device.name.as_str()).is_none() {
            let what =
                format!("device {:?} has a name that no directory below `devices` may have", device.name);
            let remedy =
                format!("agent ring container.builder set_info d{} /NAME, then rebalance", device.id.0);
            findings.push(RINGS.error(what, remedy));
        }
    }
    let mut seen = BTreeSet::new();
    for name in names.filter(|name| !seen.insert(*name)) {
        let what = format!("{name} is in the ring twice, as two devices of this node");
        findings.push(RINGS.error(what, "remove one of them from the ring"));
    }
    let drained = devices.iter().filter(|device| device.weight == 0.0).map(|device| device.name.as_str());
    let drained: Vec<&str> = drained.collect();
    if !drained.is_empty() {
        findings
            .push(RINGS.ok(format!("of weight 0, so being emptied: {}", some_of(drained.iter().copied()))));
    }
    let idle = |device: &&Device| device.weight > 0.0 && !ring.assigned(device.id);
    let idle: Vec<&str> = devices.iter().filter(idle).map(|device| device.name.as_str()).collect();
    if !idle.is_empty() {
        let what = format!("no partition is on {} yet", some_of(idle.iter().copied()));
        findings.push(
            RINGS.warning(what, "agent ring container.builder rebalance, and send the ring to all nodes"),
        );
    }
    findings
}

/// Clocks of two nodes may be a little apart.
const FUTURE_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::hash_path::PartShift;
    use crate::ring::DeviceId;

    fn device(id: u32, ip: &str, port: u16, name: &str, weight: f64) -> Device {
        Device {
            id: DeviceId(id),
            region: 1,
            zone: 1,
            ip: ip.into(),
            port,
            replication_ip: ip.into(),
            replication_port: port,
            name: name.into(),
            weight,
            meta: String::new(),
            extra: Default::default(),
        }
    }

    /// Two partitions on the first devices of these, so many replicas.
    fn ring(devices: &[Device], replicas: u32) -> Ring {
        let rows = (0..replicas).map(|replica| vec![DeviceId(replica); 2]).collect();
        let devices = devices.iter().cloned().map(Some).collect();
        Ring::from_rows(PartShift::new(31).expect("within 32"), devices, rows).expect("a ring")
    }

    fn three() -> Vec<Device> {
        (0..3).map(|id| device(id, &format!("10.0.0.{id}"), 6201, &format!("sdb{id}"), 1.0)).collect()
    }

    #[test]
    fn a_ring_is_told_with_its_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let path = Path::new("r.ring.gz");
        let said = |replicas, written| judge_ring(path, &ring(&three(), replicas), written, now);
        let verdicts = |findings: &[Finding]| findings.iter().map(|f| f.verdict).collect::<Vec<_>>();
        let old = said(3, Some(now - Duration::from_secs(3 * 86_400)));
        assert_eq!(old[0].what, "r.ring.gz: 3 replicas of 2^1 partitions on 3 devices, 3 d old");
        assert_eq!(verdicts(&old), [Verdict::Ok]);
        assert_eq!(verdicts(&said(3, None)), [Verdict::Ok]);
        assert_eq!(verdicts(&said(3, Some(now + FUTURE_LIMIT))), [Verdict::Ok]);
        let future = said(3, Some(now + FUTURE_LIMIT + Duration::from_secs(1)));
        assert_eq!(verdicts(&future), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(verdicts(&said(2, None)), [Verdict::Ok]);
        assert_eq!(verdicts(&said(1, None)), [Verdict::Ok, Verdict::Warning]);
    }

    #[test]
    fn who_is_not_in_the_ring_is_told_what_is() {
        let mine = ["10.0.0.9".to_owned()];
        let nowhere = judge_absence(&mine, 6201, &[], &ring(&three(), 3));
        assert_eq!(nowhere.verdict, Verdict::Error);
        assert!(nowhere.what.ends_with("none replicates at 10.0.0.9 port 6201"), "{}", nowhere.what);
        let remedy = nowhere.remedy.expect("one");
        assert!(remedy.ends_with("it has 10.0.0.0:6201, 10.0.0.1:6201, 10.0.0.2:6201"), "{remedy}");
        let other = [device(0, "10.0.0.9", 6001, "sdb9", 1.0)];
        let remedy = judge_absence(&mine, 6201, &other, &ring(&three(), 3)).remedy.expect("one");
        assert!(remedy.starts_with("the ring has sdb9 of this node at port 6001"), "{remedy}");
    }

    #[test]
    fn our_devices_are_named_and_each_has_a_name_of_its_own() {
        let mut devices = three();
        let ring = ring(&devices, 2);
        let said = |devices: &[Device]| {
            let findings = judge_ours(&ring, devices);
            findings.into_iter().map(|f| (f.verdict, f.what)).collect::<Vec<_>>()
        };
        assert_eq!(said(&devices[..2]), [(Verdict::Ok, "2 devices of it here: sdb0, sdb1".to_owned())]);
        assert_eq!(said(&devices)[1], (Verdict::Warning, "no partition is on sdb2 yet".to_owned()));
        devices[2].weight = 0.0;
        assert_eq!(said(&devices)[1], (Verdict::Ok, "of weight 0, so being emptied: sdb2".to_owned()));
        devices[1].name = "sdb0".into();
        assert_eq!(said(&devices[..2])[1].0, Verdict::Error);
        devices[1].name = "../x".into();
        assert_eq!(said(&devices[..2])[1].0, Verdict::Error);
    }
}
