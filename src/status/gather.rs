//! What can be seen when somebody asks: what is kept, and beside it the drives, their ledgers and quarantines, and the
//! processes, as they are now. Nothing is changed and nobody is called.
//!
//! Each drive is looked at by a thread of its own, so that one that hangs is told as such and holds up no other.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::alarm;
use super::facts::{AgentNow, BadNow, BadWithNow, DeviceNow, PeerNow, Report, earliest};
use super::kept::{Bad, Kept};
use super::process;
use crate::broker::{Broker, Patience};
use crate::config::Config;
use crate::drive::{DeviceName, Drive, HashDir};
use crate::hash_path::Partition;
use crate::ledger::{Key, Ledger};
use crate::look::seconds;
use crate::node::{Node, NodeError};
use crate::obstacle::Kind;
use crate::report::memory;
use crate::ring::device_string::bracketed;
use crate::ring::{Device, DeviceId, Ring};
use crate::stop::Stop;

/// Looks at everything.
///
/// # Errors
/// If the ring cannot be read.
pub fn gather(config: Config) -> Result<Report, NodeError> {
    Ok(Gatherer::new(Arc::new(Node::new(config, Stop::default())?), Depth::Whole).gather())
}

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// As somebody wants it who asks now.
    Whole,
    /// As somebody wants it who asks all the time: databases that wait are counted, but of a few only it is looked up when
    /// they changed, and none is opened for its name.
    Brief,
}

impl Depth {
    /// Databases whose last change is looked at, of one device. With more behind, the oldest change is that of the first so
    /// many.
    fn looks(self) -> u64 {
        match self {
            Depth::Whole => 10_000,
            Depth::Brief => 200,
        }
    }
}

/// Looks at a node, as often as it is asked to. A drive that did not come back is not looked at again before it does.
#[derive(Debug)]
pub struct Gatherer {
    node: Arc<Node>,
    depth: Depth,
    /// Devices with a thread that looks at them.
    looking: Arc<Mutex<BTreeSet<DeviceId>>>,
}

impl Gatherer {
    /// Of this node.
    pub fn new(node: Arc<Node>, depth: Depth) -> Gatherer {
        Gatherer { node, depth, looking: Arc::default() }
    }

    /// Looks at everything.
    pub fn gather(&self) -> Report {
        let node = &self.node;
        let now = seconds(SystemTime::now());
        let (config, ring) = (&node.config, node.ring());
        let path = Kept::path(config);
        let mut notes = Vec::new();
        let kept = match Kept::load(&path) {
            Ok(kept) => Some(kept),
            Err(error) => {
                notes.push(format!("what passes leave behind is not known: {}: {error}", path.display()));
                None
            }
        };
        let is_kept = kept.is_some();
        let kept = Arc::new(kept.unwrap_or_else(|| Kept::begin(now)));
        let ours: Vec<Device> = match node.our_devices(&ring) {
            Ok(devices) => devices.into_iter().cloned().collect(),
            // There is an alarm for that.
            Err(_) => Vec::new(),
        };
        let mut devices = Vec::new();
        let mut waiting = Vec::new();
        for (device, seen) in ours.iter().zip(look_at_all(self, &ring, &kept, &ours)) {
            let seen = seen.unwrap_or_else(|| Seen {
                problem: Some(format!("it did not answer within {} s", TIME_LIMIT.as_secs())),
                ..Seen::default()
            });
            notes.extend(seen.note.clone());
            devices.push(device_now(&kept, node, &ring, device, &seen));
            waiting.extend(seen.worst);
        }
        let mut report = Report {
            now,
            node: format!("{}:{}", bracketed(&config.bind_ip), config.bind_port),
            answer: String::new(),
            in_sync: None,
            since: None,
            needs_person: false,
            alarms: Vec::new(),
            notes,
            agent: agent_now(&kept, config),
            doing: kept.doing.clone().filter(|doing| doing.process.is_alive()),
            last_pass: kept.last_pass.clone(),
            last_whole_pass: kept.last_whole_pass.clone(),
            last_once: kept.last_once.clone(),
            databases_behind: devices.iter().filter_map(|device| device.behind).sum(),
            oldest_change: earliest(devices.iter().map(|device| device.oldest_change)),
            totals: kept.totals.clone(),
            reclaim_age: config.reclaim_age.as_secs_f64(),
            interval: config.interval.as_secs_f64(),
            worst: worst(&kept, &ring, &devices, waiting),
            devices,
            kept_since: is_kept.then_some(kept.begun),
            kept_in: path,
        };
        (report.in_sync, report.since) = alarm::in_sync(&report);
        report.alarms = alarm::alarms(&report);
        report.needs_person = !report.alarms.is_empty();
        report.answer = alarm::answer(&report);
        report
    }
}

fn agent_now(kept: &Kept, config: &Config) -> AgentNow {
    let port = config.listen_port();
    let daemon = kept.daemon.as_ref().filter(|daemon| daemon.process.is_alive());
    let anon_kib = daemon.and_then(|daemon| memory::of(daemon.process.pid));
    AgentNow {
        running: daemon.is_some() || process::listens(port),
        pid: daemon.map(|daemon| daemon.process.pid),
        since: daemon.map(|daemon| daemon.since),
        passes: daemon.map(|daemon| daemon.passes),
        port,
        anon_kib,
        // Kept when a pass ends; one that only serves has had at least what it has now.
        peak_anon_kib: daemon.map(|daemon| daemon.peak_anon_kib.max(anon_kib.unwrap_or(0))),
        budget_kib: config.agent.memory_budget_bytes >> 10,
    }
}

/// What can be seen of one drive.
#[derive(Debug, Default)]
struct Seen {
    problem: Option<String>,
    note: Option<String>,
    ledger: Option<View>,
    quarantined: u64,
    quarantined_newest: Option<f64>,
    worst: Vec<Waiting>,
}

/// What a ledger says, and what is kept of the last round.
///
/// What was taken to a peer is only known to be equal when the two compare again, in the next pass. Until then the ledger has
/// it as differing; but where nothing was in the way in the last round, all that has not changed since is there.
#[derive(Debug, Default)]
struct View {
    behind: u64,
    peers: BTreeMap<DeviceId, (u64, Option<f64>)>,
    oldest_change: Option<f64>,
}

/// A database that its ledger has as behind.
#[derive(Debug)]
struct Waiting {
    device: u32,
    dir: HashDir,
    partition: Partition,
    changed: f64,
    peers: Vec<DeviceId>,
    name: Option<(String, String)>,
}

/// Each device looked at; `None` for those that do not come back in time.
fn look_at_all(
    gatherer: &Gatherer,
    ring: &Arc<Ring>,
    kept: &Arc<Kept>,
    ours: &[Device],
) -> Vec<Option<Seen>> {
    let (tell, told) = mpsc::channel();
    for (index, device) in ours.iter().enumerate() {
        let (node, ring, kept) = (gatherer.node.clone(), ring.clone(), kept.clone());
        let (device, tell, depth) = (device.clone(), tell.clone(), gatherer.depth);
        let Some(under_way) = Looking::begin(&gatherer.looking, device.id) else { continue };
        let look = move || {
            let seen = look_at(&node, &ring, &kept, &device, depth);
            drop(under_way);
            drop(tell.send((index, seen)));
        };
        // Without a thread it does not come back.
        let _ = thread::Builder::new().name("look".into()).spawn(look);
    }
    drop(tell);
    let deadline = Instant::now() + TIME_LIMIT;
    let mut seen: Vec<Option<Seen>> = ours.iter().map(|_| None).collect();
    while let Ok((index, one)) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        seen[index] = Some(one);
    }
    seen
}

/// A device that is being looked at.
struct Looking(Arc<Mutex<BTreeSet<DeviceId>>>, DeviceId);

impl Looking {
    /// `None` while another thread looks at it.
    fn begin(all: &Arc<Mutex<BTreeSet<DeviceId>>>, device: DeviceId) -> Option<Looking> {
        let is_new = all.lock().unwrap_or_else(PoisonError::into_inner).insert(device);
        is_new.then(|| Looking(all.clone(), device))
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

fn look_at(node: &Node, ring: &Arc<Ring>, kept: &Kept, device: &Device, depth: Depth) -> Seen {
    let mut seen = Seen::default();
    let Some(name) = DeviceName::new(device.name.as_str()) else {
        seen.problem = Some(format!("{:?} is no name of a device", device.name));
        return seen;
    };
    let drive = match node.drive(&name) {
        Ok(drive) => drive,
        Err(error) => {
            seen.problem = Some(error.to_string());
            return seen;
        }
    };
    (seen.quarantined, seen.quarantined_newest) = quarantine(&drive);
    if !ring.assigned(device.id) {
        return seen;
    }
    let looked = Ledger::open_to_look(&drive, node.terms(ring));
    match looked.and_then(|ledger| view(&ledger, ring, kept, device, &drive, depth)) {
        Ok((view, worst)) => (seen.ledger, seen.worst) = (Some(view), worst),
        Err(error) => {
            seen.note = Some(format!("{}: its ledger cannot be read: {}", device.name, error.cause))
        }
    }
    seen
}

/// Directories on the shelf of a drive, and when the last one was put there.
fn quarantine(drive: &Drive) -> (u64, Option<f64>) {
    let Ok(entries) = fs::read_dir(drive.root().join("quarantined/containers")) else { return (0, None) };
    let (mut count, mut newest) = (0, None::<f64>);
    for entry in entries.flatten() {
        count += 1;
        // A rename changes the times of neither its directory nor its files, but that of the inode.
        use std::os::unix::fs::MetadataExt;
        if let Some(time) = entry.metadata().ok().map(|metadata| metadata.ctime() as f64) {
            newest = Some(newest.map_or(time, |newest| newest.max(time)));
        }
    }
    (count, newest)
}

fn view(
    ledger: &Ledger,
    ring: &Ring,
    kept: &Kept,
    device: &Device,
    drive: &Drive,
    depth: Depth,
) -> Result<(View, Vec<Waiting>), crate::ledger::LedgerError> {
    let shift = ring.part_shift();
    let peers = |partition: Partition| -> Vec<DeviceId> {
        ring.primary_ids(partition).into_iter().filter(|id| *id != device.id).collect()
    };
    let note = kept.devices.get(&device.id.0);
    let failed = |hash: &str, peer: DeviceId| {
        let bad = kept.worst.iter().find(|bad| bad.device == device.id.0 && bad.hash == hash);
        let with = bad.into_iter().flat_map(|bad| &bad.with);
        with.filter(|with| !with.cause.kind.is_excused()).any(|with| with.peer == Some(peer.0))
    };
    let lacks = |peer: DeviceId, hash: &str, changed: Option<f64>| {
        let Some(done) = note.and_then(|note| note.done) else { return true };
        let cut_off = note.and_then(|note| note.peers.get(&peer.0)).is_some_and(|peer| peer.cut_off);
        cut_off || changed.is_some_and(|changed| changed > done) || failed(hash, peer)
    };
    let mut view = View::default();
    // The ones that changed longest ago, the newest of them on top.
    let mut oldest: BinaryHeap<(Old, Key)> = BinaryHeap::new();
    let (mut after, mut looked_at) = (None, 0);
    loop {
        let page = ledger.unsettled(after, &peers)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (key, entry) in &page {
            let partition = key.partition(shift);
            let hash = key.hash(shift);
            let changed = (looked_at < depth.looks()).then(|| last_change(&drive.hash_dir(partition, hash)));
            looked_at += 1;
            let (changed, name) = (changed.flatten(), hash.to_string());
            let mut apart = peers(partition);
            apart.retain(|peer| !entry.agrees_with(*peer) && lacks(*peer, &name, changed));
            if apart.is_empty() {
                continue;
            }
            view.behind += 1;
            view.oldest_change = earliest([view.oldest_change, changed]);
            for peer in apart {
                let (count, since) = view.peers.entry(peer).or_default();
                *count += 1;
                *since = earliest([*since, changed]);
            }
            if let Some(changed) = changed {
                oldest.push((Old(changed), *key));
                if oldest.len() > WORST {
                    oldest.pop();
                }
            }
        }
    }
    let known = |hash: &str| kept.worst.iter().find(|bad| bad.device == device.id.0 && bad.hash == hash);
    let mut worst = Vec::new();
    for (Old(changed), key) in oldest {
        let (partition, hash) = (key.partition(shift), key.hash(shift));
        let Some(entry) = ledger.entry(key)? else { continue };
        let dir = drive.hash_dir(partition, hash);
        let mut peers = peers(partition);
        peers.retain(|peer| !entry.agrees_with(*peer) && lacks(*peer, &hash.to_string(), Some(changed)));
        let name = match known(&hash.to_string()) {
            None if depth == Depth::Whole => name_of(&dir),
            _ => None,
        };
        worst.push(Waiting { device: device.id.0, dir, partition, changed, peers, name });
    }
    Ok((view, worst))
}

/// A time that orders.
#[derive(Debug, PartialEq)]
struct Old(f64);

impl Eq for Old {}

impl PartialOrd for Old {
    fn partial_cmp(&self, other: &Old) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Old {
    fn cmp(&self, other: &Old) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// When a database, or what waits beside it, was last written to.
pub fn last_change(dir: &HashDir) -> Option<f64> {
    let modified = |path: PathBuf| fs::metadata(path).ok()?.modified().ok().map(seconds);
    let database = modified(dir.usual_path()).or_else(|| modified(dir.in_charge().ok()??));
    database.map(|time| modified(dir.pending_path()).map_or(time, |pending| pending.max(time)))
}

fn name_of(dir: &HashDir) -> Option<(String, String)> {
    let patience = Patience { database: PATIENCE, directory: PATIENCE };
    let info = Broker::look(dir, patience).ok()?.stored_info().ok()?;
    Some((info.account, info.container))
}

fn device_now(kept: &Kept, node: &Node, ring: &Arc<Ring>, device: &Device, seen: &Seen) -> DeviceNow {
    let note = kept.devices.get(&device.id.0).cloned().unwrap_or_default();
    let view = seen.ledger.as_ref();
    let neighbours = node.neighbours(ring, device.id);
    let mut ids: BTreeSet<u32> = neighbours.iter().map(|(id, _)| id.0).collect();
    ids.extend(note.peers.keys().copied().filter(|id| ring.device(DeviceId(*id)).is_some()));
    let peer_now = |id: u32| {
        let known = note.peers.get(&id);
        let now = view.map(|view| view.peers.get(&DeviceId(id)).copied().unwrap_or_default());
        // Of those that failed one by one, only the worst are known by name.
        let at_least = known.filter(|known| !known.cut_off).map_or(0, |known| known.databases);
        PeerNow {
            id,
            peer: place(ring, id),
            behind: now.map(|(count, _)| count.max(at_least)),
            oldest_change: now.and_then(|(_, oldest)| oldest),
            synced: known.map_or(note.synced, |known| known.synced),
            hindered: known.map(|known| known.hindered.clone()),
            least: known.map(|known| known.least),
            least_at: known.map(|known| known.least_at),
            rounds_since: known.map(|known| known.rounds_since),
        }
    };
    let peers: Vec<PeerNow> = ids.into_iter().map(peer_now).collect();
    let most = peers.iter().filter_map(|peer| peer.behind).max().unwrap_or(0);
    DeviceNow {
        id: device.id.0,
        name: device.name.clone(),
        problem: seen.problem.clone(),
        databases: note.databases,
        strays: note.strays,
        walked: note.walked,
        synced: note.synced,
        in_sync_since: note.in_sync_since,
        trouble: note.trouble.clone(),
        behind: view.map(|view| view.behind.max(most)),
        oldest_change: view.and_then(|view| view.oldest_change),
        quarantined: seen.quarantined,
        quarantined_newest: seen.quarantined_newest,
        peers,
    }
}

/// Where a device is, by the ring.
pub fn place(ring: &Ring, id: u32) -> String {
    match ring.device(DeviceId(id)) {
        Some(device) => {
            format!("{}:{}/{}", bracketed(&device.replication_ip), device.replication_port, device.name)
        }
        None => format!("device {id}, not in the ring any more"),
    }
}

/// Those that failed come first, then those that wait, the longest first.
fn worst(kept: &Kept, ring: &Ring, devices: &[DeviceNow], mut waiting: Vec<Waiting>) -> Vec<BadNow> {
    let device = |id: u32| devices.iter().find(|device| device.id == id);
    let name = |id: u32| device(id).map_or_else(|| format!("device {id}"), |device| device.name.clone());
    let container = |name: &(String, String)| format!("{}/{}", name.0, name.1);
    let failed = |bad: &Bad| BadNow {
        device: name(bad.device),
        container: bad.name.as_ref().map(container),
        hash: bad.hash.clone(),
        partition: bad.partition,
        since: bad.since,
        last: Some(bad.last),
        attempts: bad.attempts,
        with: bad
            .with
            .iter()
            .map(|with| BadWithNow {
                peer: with.peer.map(|peer| place(ring, peer)),
                kind: with.cause.kind,
                reason: with.cause.text.clone(),
            })
            .collect(),
    };
    // Who is a little ahead of us catches us up all by himself.
    let ahead = |bad: &&Bad| {
        bad.attempts < AHEAD_OFTEN && bad.with.iter().all(|with| with.cause.kind == Kind::PeerAhead)
    };
    let mut worst: Vec<BadNow> = kept.worst.iter().filter(|bad| !ahead(bad)).map(failed).collect();
    waiting.sort_by(|one, other| one.changed.total_cmp(&other.changed));
    for one in waiting {
        let hash = one.dir.hash().to_string();
        if worst.len() >= WORST || kept.worst.iter().any(|bad| bad.device == one.device && bad.hash == hash) {
            continue;
        }
        let why = |peer: &DeviceId| {
            let known =
                device(one.device).and_then(|device| device.peers.iter().find(|known| known.id == peer.0));
            let cause =
                known.and_then(|known| known.hindered.as_ref()).map(|hindered| hindered.cause.clone());
            BadWithNow {
                peer: Some(place(ring, peer.0)),
                kind: cause.as_ref().map_or(Kind::Waiting, |cause| cause.kind),
                reason: cause.map_or_else(|| Kind::Waiting.as_str().to_owned(), |cause| cause.text),
            }
        };
        worst.push(BadNow {
            device: name(one.device),
            container: one.name.as_ref().map(container),
            hash,
            partition: Some(one.partition.0),
            since: one.changed,
            last: None,
            attempts: 0,
            with: one.peers.iter().map(why).collect(),
        });
    }
    worst
}

/// When a drive that does not answer is given up.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for a writer to learn the name of a database.
const PATIENCE: Duration = Duration::from_secs(1);
/// A peer that had rows to bring in so many passes does not bring them.
const AHEAD_OFTEN: u64 = 3;
/// Databases told one by one.
const WORST: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_looked_at_by_one_thread_at_a_time() {
        let all = Arc::default();
        let first = Looking::begin(&all, DeviceId(1)).expect("nobody looks at it");
        assert!(Looking::begin(&all, DeviceId(1)).is_none());
        assert!(Looking::begin(&all, DeviceId(2)).is_some(), "it keeps nobody from others");
        drop(first);
        assert!(Looking::begin(&all, DeviceId(1)).is_some());
    }
}
