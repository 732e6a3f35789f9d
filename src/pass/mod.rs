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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{info, warn};
use serde::{Deserialize, Serialize};

use crate::arrival;
use crate::drive::{DeviceName, Drive};
use crate::ledger::Ledger;
use crate::node::{Node, NodeError};
use crate::obstacle::{Cause, Kind, Obstacle};
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
    /// A device enters the next part of its round.
    fn enters(&self, _device: &Device, _leg: Leg) {}
    /// Something did not get to a peer, or could not be done.
    fn hindered(&self, _obstacle: Obstacle) {}
    /// Work on a device came to this, and took so long if it was work on a database.
    fn counted(&self, _device: &Device, _counted: &Tally, _took: Option<Duration>) {}
    /// A device has been gone round.
    fn gone_round(&self, _round: &RoundOver<'_>) {}
}

/// A part of a device's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// Walking the drive, looking into what changed.
    Walk,
    /// Asking peers whether they have the same.
    Compare,
    /// Taking what differs to its peers.
    Settle,
    /// Taking what does not belong here to where it does.
    Move,
    /// Taking every database to its peers, one by one: there is no ledger to go by.
    Singly,
    /// Over.
    Over,
}

impl Leg {
    /// The word for it, the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Leg::Walk => "walk",
            Leg::Compare => "compare",
            Leg::Settle => "settle",
            Leg::Move => "move",
            Leg::Singly => "singly",
            Leg::Over => "over",
        }
    }
}

/// A device at the end of its round.
pub struct RoundOver<'a> {
    /// Which.
    pub device: &'a Device,
    /// The ring that the pass goes by.
    pub ring: &'a Arc<Ring>,
    /// Its ledger, if the round went by one to the end.
    pub ledger: Option<&'a Ledger>,
    /// All of the drive was walked, and all that came of it was done or failed.
    pub whole: bool,
    /// Databases that the walk met and that belong elsewhere, where that was counted.
    pub strays: Option<u64>,
    /// When the pass began, in seconds since 1970.
    pub began: f64,
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
    /// When it began, in seconds since 1970.
    began: f64,
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
            Ok(drive) => drives.push((device, Arc::new(drive))),
            Err(reason) => {
                warn!("Skipping: {reason}");
                let cause = Cause::new(Kind::DriveUnusable, reason);
                observer.hindered(Obstacle { device: device.id, peer: None, database: None, cause });
                tally.fail_node(&device.replication_ip, &device.name, 1);
            }
        }
    }
    let pass = Pass {
        node,
        ring: &ring,
        scope,
        dry_run,
        observer,
        tally: Mutex::new(tally),
        began: start,
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

/// Checks a device and tidies it, or says why it cannot be used.
fn ready(node: &Node, ring: &Ring, device: &Device, dry_run: bool) -> Result<Drive, String> {
    let name = DeviceName::new(device.name.as_str())
        .ok_or_else(|| format!("{:?} is no name of a device", device.name))?;
    let drive = node.drive(&name).map_err(|error| error.to_string())?;
    if dry_run {
        return Ok(drive);
    }
    let oldest = SystemTime::now().checked_sub(node.config.reclaim_age).unwrap_or(UNIX_EPOCH);
    if let Err(error) = drive.reclaim_tmp(oldest) {
        warn!(device = drive.name().as_str(); "{}: cannot reclaim tmp: {error}", drive.root().display());
    }
    arrival::sweep(&drive, ring.part_shift());
    Ok(drive)
}
