//! What one agent knows of the node it runs on: its configuration, the ring, which devices are its own, and the
//! memory that all its work shares.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{error, warn};

use crate::bandwidth::Bandwidth;
use crate::budget::Budget;
use crate::config::{self, Config};
use crate::drive::{DeviceName, Drive, DriveError, Pressure};
use crate::ledger::{Ledger, Neighbours, Terms};
use crate::ring::{Device, DeviceId, Ring, RingError, RingWatch};
use crate::stop::Stop;

/// This node, shared by all threads.
#[derive(Debug)]
pub struct Node {
    /// The conf files.
    pub config: Config,
    /// Memory of work that calls peers. Apart from what answers them, or two nodes could wait for each other.
    pub calling: Budget,
    /// Memory of work that answers peers.
    pub answering: Budget,
    /// What SQLite may keep of all databases together, in bytes, and what of that is to spare for large merges.
    pub caches_bytes: u64,
    /// See there.
    pub caches: Budget,
    /// What each peer may be sent.
    pub bandwidth: Bandwidth,
    /// The wish to stop.
    pub stop: Stop,
    my_addresses: Vec<String>,
    ring: Mutex<RingWatch>,
    ledgers: Mutex<HashMap<DeviceName, Option<Arc<Ledger>>>>,
    pressures: Mutex<HashMap<DeviceName, Arc<Pressure>>>,
    neighbours: Mutex<HashMap<DeviceId, ByRing>>,
}

/// Whom a device shares partitions with, by this ring.
type ByRing = (Arc<Ring>, Arc<Neighbours>);

/// Why an agent cannot run here.
#[derive(Debug)]
pub enum NodeError {
    /// The ring cannot be read.
    Ring(RingError),
    /// The system does not tell its own addresses.
    Addresses(nix::Error),
    /// No device of the ring is on this node.
    NotInRing {
        /// The addresses we looked for.
        addresses: Vec<String>,
        /// The port we looked for.
        port: u16,
    },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Ring(error) => error.fmt(f),
            NodeError::Addresses(error) => {
                write!(f, "cannot list this machine's addresses: {error}; set bind_ip in the conf file")
            }
            NodeError::NotInRing { addresses, port } => write!(
                f,
                "Can't find itself {} with port {port} in ring file, not replicating; check bind_ip, bind_port and \
                 that the ring is this cluster's",
                addresses.join(", ")
            ),
        }
    }
}

impl std::error::Error for NodeError {}

impl Node {
    /// Reads the ring and finds out who we are.
    ///
    /// # Errors
    /// Without a sound ring or addresses. That no device of the ring is here is only known per ring:
    /// [`Node::our_devices`].
    pub fn new(config: Config, stop: Stop) -> Result<Node, NodeError> {
        let ring = RingWatch::open(&config.swift_dir.join("container.ring.gz"), RING_DOUBT, Instant::now())
            .map_err(NodeError::Ring)?;
        let my_addresses = config::my_addresses(&config.bind_ip).map_err(NodeError::Addresses)?;
        let memory = Memory::of(config.agent.memory_budget_bytes);
        Ok(Node {
            calling: Budget::new(memory.each_way),
            answering: Budget::new(memory.each_way),
            caches_bytes: memory.caches,
            caches: Budget::new(memory.caches),
            bandwidth: Bandwidth::new(config.agent.bandwidth_bytes_per_sec),
            stop,
            my_addresses,
            ring: Mutex::new(ring),
            ledgers: Mutex::default(),
            pressures: Mutex::default(),
            neighbours: Mutex::default(),
            config,
        })
    }

    /// The ring as it is now. A new file that cannot be read is logged and the old ring kept.
    pub fn ring(&self) -> Arc<Ring> {
        let mut watch = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        watch.current(Instant::now()).unwrap_or_else(|error| {
            error!("{error}; the ring read before stays in use");
            watch.last_good()
        })
    }

    /// Is this device of the ring on this node (`swift/common/ring/utils.py: is_local_device`)?
    pub fn is_ours(&self, device: &Device) -> bool {
        config::is_local_device(
            &self.my_addresses,
            Some(self.config.bind_port),
            &device.replication_ip,
            device.replication_port,
        )
    }

    /// Our devices, in the ring's order.
    ///
    /// # Errors
    /// [`NodeError::NotInRing`] if there is none.
    pub fn our_devices<'a>(&self, ring: &'a Ring) -> Result<Vec<&'a Device>, NodeError> {
        let ours: Vec<&Device> = ring.devices().filter(|device| self.is_ours(device)).collect();
        if ours.is_empty() {
            let (addresses, port) = (self.my_addresses.clone(), self.config.bind_port);
            return Err(NodeError::NotInRing { addresses, port });
        }
        Ok(ours)
    }

    /// The addresses that our devices go by.
    pub fn my_addresses(&self) -> &[String] {
        &self.my_addresses
    }

    /// Opens one of our drives.
    ///
    /// # Errors
    /// As [`Drive::open`].
    pub fn drive(&self, name: &DeviceName) -> Result<Drive, DriveError> {
        let drive = Drive::open(&self.config.devices, name, self.config.mount_check)?;
        let mut pressures = self.pressures.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || Arc::new(Pressure::new(name, drive.tmp(), self.config.agent.drive_latency));
        let pressure = pressures.entry(name.clone()).or_insert_with(unknown).clone();
        Ok(drive.under(pressure))
    }

    /// Whom a device of ours shares partitions with, by a ring. Found out once a ring, for every peer asks.
    pub fn neighbours(&self, ring: &Arc<Ring>, device: DeviceId) -> Arc<Neighbours> {
        let mut known = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, neighbours)) = known.get(&device) {
            if Arc::ptr_eq(of, ring) {
                return neighbours.clone();
            }
        }
        let neighbours = Arc::new(Neighbours::of(ring, device));
        known.insert(device, (ring.clone(), neighbours.clone()));
        neighbours
    }

    /// What ledgers are kept under, by a ring.
    pub fn terms(&self, ring: &Ring) -> Terms {
        Terms {
            part_shift: ring.part_shift(),
            reclaim_age: self.config.reclaim_age,
            full_check_interval: self.config.agent.full_check_interval,
        }
    }

    /// The ledger of a drive, under the terms of a ring; `None` if it can have none, which is told when that begins.
    pub fn ledger(&self, drive: &Drive, ring: &Ring) -> Option<Arc<Ledger>> {
        let terms = self.terms(ring);
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ledgers.get(drive.name());
        if let Some(Some(ledger)) = known {
            if ledger.terms() == terms && ledger.is_of(drive) {
                return Some(ledger.clone());
            }
        }
        match Ledger::open(drive, terms) {
            Ok(ledger) => {
                let ledger = Arc::new(ledger);
                ledgers.insert(drive.name().clone(), Some(ledger.clone()));
                Some(ledger)
            }
            Err(error) => {
                if !matches!(known, Some(None)) {
                    warn!(device = drive.name().as_str(); "{error}");
                }
                ledgers.insert(drive.name().clone(), None);
                None
            }
        }
    }
}

/// How `agent_memory_budget` is divided.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    /// What SQLite may keep of all databases together, in bytes.
    caches: u64,
    /// What calling and answering may take, each.
    each_way: u64,
}

impl Memory {
    /// Whatever an agent has while it does nothing is not to be lent; of the rest SQLite gets five parts of twelve. Too
    /// small a budget is exceeded, but no further than it takes to ship one database at a time each way.
    fn of(budget_bytes: u64) -> Memory {
        let work = budget_bytes.saturating_sub(IDLE_BYTES).max(4 * TRANSFER_BYTES);
        let each_way = work / 24 * 7;
        Memory { caches: work - 2 * each_way, each_way }
    }
}

/// An agent at rest: its code's data, rings, a few threads and connections.
const IDLE_BYTES: u64 = 8 << 20;
/// With so much a transfer can do.
const TRANSFER_BYTES: u64 = 3 << 20;
/// How often a ring file that was changed just now is read again, lest a second change be missed. Swift looks at the file
/// every 15 s at most (`swift/common/ring/ring.py: reload_time`); but a look costs no more than a stat, and by an old ring we
/// would take in or remove what we must not.
const RING_DOUBT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_and_what_is_there_come_to_the_budget() {
        for mebibytes in [20, 32, 64, 1024] {
            let budget = mebibytes << 20;
            let Memory { caches, each_way } = Memory::of(budget);
            assert_eq!(caches + 2 * each_way + IDLE_BYTES, budget);
        }
    }

    #[test]
    fn the_smallest_budget_is_enough_for_one_transfer_each_way() {
        for budget in [0, 1 << 20, IDLE_BYTES, IDLE_BYTES + 1] {
            assert!(Memory::of(budget).each_way >= TRANSFER_BYTES, "{budget}");
        }
    }
}
