//! Who writes the file of what is kept: the daemon when it begins and ends, and every pass while it runs and when it is
//! over.
//!
//! A pass reads the file when it begins and has it to itself from then on, as it holds the lock of passes. A daemon that
//! begins or ends beside a pass from cron may undo a few seconds of what that wrote; the next line sets it right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};

use super::kept::{self, Bad, DaemonNote, DeviceNote, Doing, Kept, KeptError, PassNote};
use super::process::Process;
use super::round::{self, Behind, Found};
use crate::config::{Config, STATE_PATH};
use crate::hash_path::{Hash, Partition};
use crate::ledger::{Key, LedgerError, Span};
use crate::node::Node;
use crate::obstacle::{Cause, Obstacle};
use crate::pass::{Leg, Observer, RoundOver, Scope};
use crate::report::memory;
use crate::ring::{Device, DeviceId};
use crate::tally::Tally;

/// The file, and whether it can be written.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    /// That it cannot was told.
    told: AtomicBool,
    process: Process,
}

impl Keeper {
    /// The keeper of a node. The state directory is made if it was named and is missing.
    pub fn new(config: &Config) -> Keeper {
        let path = Kept::path(config);
        let dir = &config.agent.state_path;
        if dir != Path::new(STATE_PATH) {
            // If that fails, so does writing, which tells.
            let _ = DirBuilder::new().mode(0o755).create(dir);
        }
        kept::sweep(dir);
        Keeper { path, told: AtomicBool::new(false), process: Process::this() }
    }

    /// A daemon of this process serves from now on.
    pub fn daemon_begins(&self, passes: bool) {
        let mut kept = self.load();
        // After a reload it is the same.
        let since = kept.daemon.filter(|known| known.process == self.process).map(|known| known.since);
        let (process, since) = (self.process.clone(), since.unwrap_or_else(now));
        kept.daemon = Some(DaemonNote { process, since, passes, peak_anon_kib: memory::sample() });
        self.save(&mut kept);
    }

    /// It does not any more.
    pub fn daemon_ends(&self) {
        let mut kept = self.load();
        if kept.daemon.as_ref().is_some_and(|known| known.process == self.process) {
            kept.daemon = None;
            self.save(&mut kept);
        }
    }

    /// Watches a pass that is about to begin, and hands on to `inner` what it is told. The lock of passes must be held.
    pub fn watch<'a>(
        &'a self,
        node: &'a Node,
        scope: &Scope,
        once: bool,
        inner: &'a dyn Observer,
    ) -> Watch<'a> {
        let mut kept = self.load();
        let whole = scope.devices.is_none() && scope.partitions.is_none() && !node.config.handoffs_only;
        kept.doing = Some(Doing {
            process: self.process.clone(),
            began: now(),
            once,
            whole,
            devices: 0,
            devices_done: 0,
            attempted: 0,
            failures: 0,
            legs: BTreeMap::new(),
            database: String::new(),
        });
        self.save(&mut kept);
        let state = State { began: now(), before: std::mem::take(&mut kept.worst), kept, ..State::default() };
        Watch { keeper: self, node, inner, state: Mutex::new(state), written: Mutex::new(Instant::now()) }
    }

    /// What is kept, or a new beginning.
    fn load(&self) -> Kept {
        Kept::load(&self.path).unwrap_or_else(|error| {
            match error {
                KeptError::Missing => {}
                error => warn!("{}: {error}; it is begun anew", self.path.display()),
            }
            Kept::begin(now())
        })
    }

    fn save(&self, kept: &mut Kept) {
        kept.written = now();
        let Err(error) = kept.save(&self.path) else { return self.told.store(false, Ordering::Relaxed) };
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        if error.kind() == io::ErrorKind::NotFound && dir == Path::new(STATE_PATH) {
            // Nobody asked for it.
            return info!("there is no {STATE_PATH}: `agent status` will know little of past passes");
        }
        warn!(
            "{}: {error}; `agent status` will know little of past passes until we may write there, or agent_state_path \
             names another directory",
            self.path.display()
        );
    }
}

/// A pass that is watched.
pub struct Watch<'a> {
    keeper: &'a Keeper,
    node: &'a Node,
    inner: &'a dyn Observer,
    state: Mutex<State>,
    /// When the file was last written.
    written: Mutex<Instant>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    began: f64,
    /// The worst before this pass.
    before: Vec<Bad>,
    worst: Vec<Bad>,
    /// What was told of each device, and of each device and peer.
    troubles: BTreeMap<DeviceId, Cause>,
    hindered: BTreeMap<DeviceId, BTreeMap<u32, (u64, Cause)>>,
    /// Databases that no pass can bring together, at most [`EXCUSED_LIMIT`].
    excused: BTreeSet<(DeviceId, Hash)>,
    /// Devices that were gone round as a whole.
    whole: BTreeSet<u32>,
}

impl Watch<'_> {
    /// The pass is over, with what it counted, or why there was none.
    pub fn end(self, outcome: Result<&Tally, String>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let stopped = self.node.stop.wished();
        let doing = state.kept.doing.take();
        let (once, whole) = doing.map_or((false, false), |doing| (doing.once, doing.whole));
        let note = match outcome {
            Ok(tally) => PassNote::of(tally),
            Err(error) => PassNote { began: state.began, error: Some(error), ..PassNote::default() },
        };
        let whole = whole && !stopped && note.error.is_none();
        let note = PassNote { once, whole, stopped, peak_anon_kib: memory::sample(), ..note };
        if !stopped {
            self.note_unusable(state);
        }
        // What was not gone round is as it was.
        for bad in std::mem::take(&mut state.before) {
            if !state.whole.contains(&bad.device)
                && !state.worst.iter().any(|new| (new.device, &new.hash) == (bad.device, &bad.hash))
            {
                state.worst.push(bad);
            }
        }
        state.worst.truncate(kept::WORST);
        state.kept.worst = std::mem::take(&mut state.worst);
        self.forget_strangers(&mut state.kept);
        if once {
            state.kept.last_once = Some(note.clone());
        }
        if whole {
            state.kept.last_whole_pass = Some(note.clone());
        }
        state.kept.last_pass = Some(note);
        self.write(&mut state.kept);
    }

    /// Devices that were told of and not gone round.
    fn note_unusable(&self, state: &mut State) {
        let ring = self.node.ring();
        for (id, cause) in std::mem::take(&mut state.troubles) {
            let Some(device) = ring.device(id).filter(|_| !state.whole.contains(&id.0)) else { continue };
            let old = state.kept.devices.get(&id.0);
            let note = round::unusable(old, &device.name, cause, state.began);
            state.kept.devices.insert(id.0, note);
        }
    }

    /// Forgets devices that the ring does not have here any more.
    fn forget_strangers(&self, kept: &mut Kept) {
        let ring = self.node.ring();
        let Ok(ours) = self.node.our_devices(&ring) else { return };
        let ours: BTreeSet<u32> = ours.iter().map(|device| device.id.0).collect();
        kept.devices.retain(|id, _| ours.contains(id));
        kept.worst.retain(|bad| ours.contains(&bad.device));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kept: &mut Kept) {
        if let Some(daemon) = kept.daemon.as_mut().filter(|daemon| daemon.process == self.keeper.process) {
            daemon.peak_anon_kib = memory::sample();
        }
        self.keeper.save(kept);
    }

    /// What the ledger has of a device after its round.
    fn look(
        &self,
        old: Option<&DeviceNote>,
        excused: &BTreeSet<Hash>,
        over: &RoundOver<'_>,
    ) -> Result<Option<LedgerView>, LedgerError> {
        let Some(ledger) = over.ledger else { return Ok(None) };
        let (ring, device) = (over.ring, over.device.id);
        let neighbours = self.node.neighbours(ring, device);
        let databases = ledger.sum(neighbours.own(), Span::ALL)?.count();
        let oldest = |peer: DeviceId| Some(old?.peers.get(&peer.0)?.oldest.as_ref()?.hash.as_str());
        let peers = |partition: Partition| -> Vec<DeviceId> {
            ring.primary_ids(partition).into_iter().filter(|id| *id != device).collect()
        };
        let mut behind: BTreeMap<u32, Behind> = BTreeMap::new();
        let (mut hopeless, mut after) = (0, None::<Key>);
        loop {
            let page = ledger.unsettled(after, &peers)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (key, entry) in &page {
                let hash = key.hash(ring.part_shift());
                if excused.contains(&hash) {
                    hopeless += 1;
                    continue;
                }
                let name = hash.to_string();
                for peer in peers(key.partition(ring.part_shift())) {
                    if entry.agrees_with(peer) {
                        continue;
                    }
                    let left = behind.entry(peer.0).or_default();
                    if left.databases == 0 {
                        left.first.clone_from(&name);
                    }
                    left.databases += 1;
                    left.still |= oldest(peer) == Some(name.as_str());
                }
            }
            if self.node.stop.wished() {
                return Ok(None);
            }
        }
        Ok(Some(LedgerView { databases, behind, excused: hopeless }))
    }
}

struct LedgerView {
    databases: u64,
    behind: BTreeMap<u32, Behind>,
    excused: u64,
}

impl Observer for Watch<'_> {
    fn progress(&self, tally: &Tally, devices_done: usize, devices: usize, database: &str) {
        self.inner.progress(tally, devices_done, devices, database);
        // Another worker that writes right now writes for us too.
        let Ok(mut written) = self.written.try_lock() else { return };
        if written.elapsed() < WRITE_INTERVAL {
            return;
        }
        *written = Instant::now();
        let mut state = self.state();
        if let Some(doing) = &mut state.kept.doing {
            (doing.devices, doing.devices_done) = (devices as u64, devices_done as u64);
            (doing.attempted, doing.failures) = (tally.attempted, tally.failure);
            database.clone_into(&mut doing.database);
        }
        let worst = std::mem::take(&mut state.kept.worst);
        state.kept.worst = if state.worst.is_empty() { state.before.clone() } else { state.worst.clone() };
        self.write(&mut state.kept);
        state.kept.worst = worst;
    }

    fn foretell(&self, line: String) {
        self.inner.foretell(line);
    }

    fn enters(&self, device: &Device, leg: Leg) {
        self.inner.enters(device, leg);
        if let Some(doing) = &mut self.state().kept.doing {
            doing.legs.insert(device.name.clone(), leg);
        }
    }

    fn hindered(&self, obstacle: Obstacle) {
        let mut guard = self.state();
        let state = &mut *guard;
        round::note_bad(&mut state.worst, &state.before, &obstacle, state.began, now());
        let (device, cause) = (obstacle.device, &obstacle.cause);
        match (obstacle.peer, &obstacle.database) {
            (_, Some(database)) if cause.kind.is_excused() => {
                if state.excused.len() < EXCUSED_LIMIT {
                    state.excused.insert((device, database.hash));
                }
            }
            (Some(peer), _) => {
                let told = state.hindered.entry(device).or_default();
                let told = told.entry(peer.0).or_insert_with(|| (0, cause.clone()));
                told.0 += u64::from(obstacle.database.is_some());
                told.1.clone_from(cause);
            }
            (None, _) => _ = state.troubles.insert(device, cause.clone()),
        }
        drop(guard);
        self.inner.hindered(obstacle);
    }

    fn gone_round(&self, over: &RoundOver<'_>) {
        self.inner.gone_round(over);
        if !over.whole {
            return;
        }
        let id = over.device.id;
        let (old, excused) = {
            let state = self.state();
            let excused = state.excused.range((id, Hash([0; 16]))..=(id, Hash([255; 16])));
            (state.kept.devices.get(&id.0).cloned(), excused.map(|(_, hash)| *hash).collect())
        };
        // Not under the lock: it may read many entries, and workers of other devices have things to tell.
        let view = self.look(old.as_ref(), &excused, over).unwrap_or_else(|error| {
            warn!("{error}");
            None
        });
        let mut guard = self.state();
        let state = &mut *guard;
        let (databases, behind, excused) = match view {
            Some(view) => (Some(view.databases), Some(view.behind), view.excused),
            None => (None, None, 0),
        };
        let found = Found {
            name: over.device.name.clone(),
            began: over.began,
            databases,
            strays: over.strays,
            trouble: state.troubles.remove(&id),
            hindered: state.hindered.remove(&id).unwrap_or_default(),
            behind,
            excused,
        };
        let note: DeviceNote = round::after(state.kept.devices.get(&id.0), found, now());
        state.kept.devices.insert(id.0, note);
        state.whole.insert(id.0);
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How often a pass writes how far it is.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Databases being sharded that are told from others; of more, some count as behind.
const EXCUSED_LIMIT: usize = 4096;
