//! Every database on this node once: workers, a rate, a tally.
//!
//! The order is Swift's (`swift/common/db_replicator.py: run_once`): our devices in the ring's order; each is checked,
//! its `tmp` reclaimed; then all of them are walked at the same time, and what has to be opened is handed to one pool of
//! workers ([`round`]). What goes wrong with a device or a database is counted there and goes no further.

mod crew;
mod lock;
mod pace;
mod round;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use log::{info, warn};

use crate::arrival;
use crate::drive::{DeviceName, Drive};
use crate::node::{Node, NodeError};
use crate::ring::{Device, Ring};
use crate::tally::Tally;

pub use lock::{PassLock, PassLockError};
use pace::CommonPace;

/// Which part of the node a pass is for, and how.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only these devices.
    pub devices: Option<BTreeSet<String>>,
    /// Only these partitions.
    pub partitions: Option<BTreeSet<u32>>,
}

/// Who wants to know how a pass is getting on.
pub trait Observer: Sync {
    /// A database is done; these are the sums so far. Devices are done when they have been walked to their end.
    fn progress(&self, _tally: &Tally, _devices_done: usize, _devices: usize, _database: &str) {}
    /// A line of a dry run. Without an answer here there is no dry run.
    fn foretell(&self, _line: String) {}
}

/// Nobody does.
pub struct Nobody;

impl Observer for Nobody {}

/// What all drives of a pass have in common.
struct Pass<'a> {
    node: &'a Node,
    ring: &'a Arc<Ring>,
    scope: &'a Scope,
    dry_run: bool,
    observer: &'a dyn Observer,
    tally: Mutex<Tally>,
    pace: CommonPace,
    /// Devices that are walked, and those of them that have been walked to their end.
    devices: usize,
    walked: AtomicUsize,
}

impl Pass<'_> {
    /// Tells the observer of a database.
    fn tell(&self, tally: &Tally, database: &str) {
        self.observer.progress(tally, self.walked.load(Ordering::Relaxed), self.devices, database);
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one pass over a node. With `dry_run` nothing is changed anywhere, and the observer is told what would be.
///
/// # Errors
/// [`NodeError::NotInRing`]; all else is counted in the tally.
pub fn run(node: &Node, scope: &Scope, dry_run: bool, observer: &dyn Observer) -> Result<Tally, NodeError> {
    let begun = Instant::now();
    let ring = node.ring();
    info!("Beginning replication run");
    let config = &node.config;
    let for_handoffs = config.handoffs_only || config.handoff_delete_within(ring.replica_count()).is_some();
    if for_handoffs {
        warn!("Starting replication pass with handoffs_only and/or handoffs_delete enabled.");
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut tally = Tally { start, ..Tally::default() };
    let mut drives = Vec::new();
    for device in node.our_devices(&ring)? {
        if scope.devices.as_ref().is_some_and(|wanted| !wanted.contains(&device.name)) {
            continue;
        }
        match ready(node, &ring, device, dry_run) {
            Some(drive) => drives.push((device, Arc::new(drive))),
            None => tally.fail_node(&device.replication_ip, &device.name, 1),
        }
    }
    let pass = Pass {
        node,
        ring: &ring,
        scope,
        dry_run,
        observer,
        tally: Mutex::new(tally),
        pace: CommonPace::new(config.databases_per_second),
        devices: drives.len(),
        walked: AtomicUsize::new(0),
    };
    crew::walk_all(&pass, &drives);
    if for_handoffs {
        warn!("Finished replication pass with handoffs_only and/or handoffs_delete enabled.");
    }
    let mut tally = pass.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.elapsed = begun.elapsed().as_secs_f64();
    Ok(tally)
}

/// Checks a device and tidies it; `None` if it cannot be used, with the reason logged.
fn ready(node: &Node, ring: &Ring, device: &Device, dry_run: bool) -> Option<Drive> {
    let Some(name) = DeviceName::new(device.name.as_str()) else {
        warn!("Skipping: {:?} is no name of a device", device.name);
        return None;
    };
    let drive = match node.drive(&name) {
        Ok(drive) => drive,
        Err(error) => {
            warn!("Skipping: {error}");
            return None;
        }
    };
    if dry_run {
        return Some(drive);
    }
    let oldest = SystemTime::now().checked_sub(node.config.reclaim_age).unwrap_or(UNIX_EPOCH);
    if let Err(error) = drive.reclaim_tmp(oldest) {
        warn!(device = drive.name().as_str(); "{}: cannot reclaim tmp: {error}", drive.root().display());
    }
    arrival::sweep(&drive, ring.part_shift());
    Some(drive)
}
