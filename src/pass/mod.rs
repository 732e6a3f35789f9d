//! Every database on this node once: workers, a rate, a tally.
//!
//! The order is Swift's (`swift/common/db_replicator.py: run_once`): our devices in the ring's order; each is checked,
//! its `tmp` reclaimed; then the databases of all of them in turn, handed to a pool of workers. What goes wrong with a
//! device or a database is counted there and goes no further.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;
use log::{error, info, warn};
use nix::fcntl::{Flock, FlockArg};

use crate::arrival;
use crate::config::Config;
use crate::drive::{DeviceName, Drive};
use crate::hash_path::Partition;
use crate::node::{Node, NodeError};
use crate::replicator::{Absent, Found, Replicator};
use crate::ring::{Device, DeviceId, Ring};
use crate::scan::{self, Filter};
use crate::tally::Tally;

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

/// Runs one pass over a node. With `dry_run` nothing is changed anywhere, and the observer is told what would be.
///
/// # Errors
/// [`NodeError::NotInRing`]; all else is counted in the tally.
pub fn run(node: &Node, scope: &Scope, dry_run: bool, observer: &dyn Observer) -> Result<Tally, NodeError> {
    let begun = Instant::now();
    let ring = node.ring();
    info!("Beginning replication run");
    let config = &node.config;
    if config.handoffs_only || config.handoff_delete_within(ring.replica_count()).is_some() {
        warn!("Starting replication pass with handoffs_only and/or handoffs_delete enabled.");
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let tally = Mutex::new(Tally { start, ..Tally::default() });
    let devices = node.our_devices(&ring)?;
    let mut drives = BTreeMap::new();
    for device in devices {
        if scope.devices.as_ref().is_some_and(|wanted| !wanted.contains(&device.name)) {
            continue;
        }
        match ready(node, &ring, device, dry_run) {
            Some(drive) => drop(drives.insert(device.id, (device, Arc::new(drive)))),
            None => lock(&tally).fail_node(&device.replication_ip, &device.name, 1),
        }
    }
    walk(node, &ring, &drives, scope, dry_run, observer, &tally);
    if config.handoffs_only || config.handoff_delete_within(ring.replica_count()).is_some() {
        warn!("Finished replication pass with handoffs_only and/or handoffs_delete enabled.");
    }
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
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
        warn!("{}: cannot reclaim tmp: {error}", drive.root().display());
    }
    arrival::sweep(&drive, ring.part_shift());
    Some(drive)
}

type Drives<'r> = BTreeMap<DeviceId, (&'r Device, Arc<Drive>)>;

fn walk(
    node: &Node,
    ring: &Arc<Ring>,
    drives: &Drives,
    scope: &Scope,
    dry_run: bool,
    observer: &dyn Observer,
    tally: &Mutex<Tally>,
) {
    let by_name: BTreeMap<&str, &Device> =
        drives.values().map(|(device, _)| (device.name.as_str(), *device)).collect();
    let filter = Filter {
        devices: None,
        partitions: scope.partitions.as_ref().map(|list| list.iter().copied().map(Partition).collect()),
        leave_out: node.config.handoffs_only.then(|| primaries_of(ring, &by_name)),
    };
    let mut found = scan::scan(drives.values().map(|(_, drive)| drive.clone()), &filter, seed());
    let walked = AtomicUsize::new(0);
    let (queue, jobs) = bounded::<scan::Found>(node.config.concurrency);
    let absent = Absent::default();
    let say = |line| observer.foretell(line);
    let dry_run: Option<&(dyn Fn(String) + Sync)> = if dry_run { Some(&say) } else { None };
    thread::scope(|scope| {
        for number in 0..node.config.concurrency {
            let (jobs, absent, by_name, walked) = (jobs.clone(), &absent, &by_name, &walked);
            let work = move || {
                let mut replicator = Replicator::new(node, ring, absent, dry_run);
                for job in jobs {
                    if node.stop.wished() {
                        continue;
                    }
                    let device = by_name[job.drive.name().as_str()];
                    let mut counted = Tally::default();
                    let found =
                        Found { drive: &job.drive, device, dir: &job.hash_dir, partition: job.partition };
                    replicator.replicate(&found, &mut counted);
                    let mut sums = lock(tally);
                    sums.add(&counted);
                    let walked = walked.load(Ordering::Relaxed);
                    observer.progress(&sums, walked, drives.len(), &job.database.to_string_lossy());
                }
            };
            let thread = thread::Builder::new().name(format!("worker {number}")).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn_scoped(scope, work) {
                error!("cannot start worker {number}: {error}");
            }
        }
        drop(jobs);
        let mut pace = Pace::new(node.config.databases_per_second);
        while let Some(item) = found.next() {
            walked.store(drives.len() - found.drives_left(), Ordering::Relaxed);
            if node.stop.wished() {
                break;
            }
            match item {
                Ok(found) => {
                    if node.stop.sleep(pace.wait()) || queue.send(found).is_err() {
                        break;
                    }
                }
                Err(problem) => {
                    error!("{problem}");
                    let device = by_name[problem.device.as_str()];
                    lock(tally).fail_node(&device.replication_ip, &device.name, 1);
                }
            }
        }
        drop(queue);
    });
}

/// With `handoffs_only`, partitions are left out on the devices that are their primaries.
fn primaries_of(ring: &Arc<Ring>, by_name: &BTreeMap<&str, &Device>) -> scan::LeaveOut {
    let ids: BTreeMap<String, DeviceId> =
        by_name.iter().map(|(name, device)| ((*name).to_owned(), device.id)).collect();
    let ring = ring.clone();
    Arc::new(move |drive, partition| {
        let id = ids.get(drive.name().as_str());
        u64::from(partition.0) < ring.part_shift().partitions()
            && ring.primaries(partition).iter().any(|primary| Some(&primary.id) == id)
    })
}

/// `databases_per_second`, evenly: who falls behind may catch up, but never by more than [`CATCH_UP`].
struct Pace {
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(per_second: f64) -> Pace {
        let interval = (per_second > 0.0).then(|| Duration::from_secs_f64((1.0 / per_second).min(3600.0)));
        Pace { interval, next: Instant::now() }
    }

    /// How long to wait before the next one.
    fn wait(&mut self) -> Duration {
        let Some(interval) = self.interval else { return Duration::ZERO };
        let now = Instant::now();
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let due = self.next.max(earliest);
        self.next = due + interval;
        due.saturating_duration_since(now)
    }
}

/// Held by a node's pass, so that two of them never overlap.
#[derive(Debug)]
pub struct PassLock {
    _lock: Flock<File>,
}

/// Why a pass cannot begin.
#[derive(Debug)]
pub enum PassLockError {
    /// Another pass of this node is running.
    Held(PathBuf),
    /// The lock file cannot be made.
    Io(PathBuf, io::Error),
}

impl fmt::Display for PassLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassLockError::Held(path) => {
                write!(f, "another pass of this node is running (it holds {})", path.display())
            }
            PassLockError::Io(path, error) => write!(
                f,
                "cannot make the lock file {}: {error}; set recon_cache_path to a directory that we may write",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PassLockError {}

impl PassLock {
    /// Takes the lock of this node, which is known by its address and port, or says who has it.
    ///
    /// # Errors
    /// [`PassLockError`]; it does not wait.
    pub fn take(config: &Config) -> Result<PassLock, PassLockError> {
        let name = format!("agent-{}-{}.lock", config.bind_ip.replace(['/', ':'], "_"), config.bind_port);
        let path = config.recon_cache_path.join(name);
        let failed = |error| PassLockError::Io(path.clone(), error);
        fs::create_dir_all(&config.recon_cache_path).map_err(failed)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(PassLock { _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(PassLockError::Held(path)),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the order of partitions depends on.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into(),
    }
}

/// As much as Swift's rate limit allows (`swift/common/utils: RateLimitedIterator`).
const CATCH_UP: Duration = Duration::from_secs(5);
/// A worker keeps its buffers on the heap.
const STACK_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_never_waits() {
        let mut pace = Pace::new(0.0);
        assert_eq!(pace.wait(), Duration::ZERO);
        assert_eq!(pace.wait(), Duration::ZERO);
    }

    #[test]
    fn databases_are_spaced_evenly() {
        let mut pace = Pace::new(10.0);
        assert_eq!(pace.wait(), Duration::ZERO);
        let second = pace.wait();
        assert!(second > Duration::from_millis(90) && second <= Duration::from_millis(100), "{second:?}");
    }

    #[test]
    fn who_falls_behind_catches_up_five_seconds_and_no_more() {
        let mut pace = Pace::new(10.0);
        pace.next = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or_else(Instant::now);
        let at_once = (0..1000).take_while(|_| pace.wait().is_zero()).count();
        assert!((50..=52).contains(&at_once), "{at_once}");
    }
}
