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

use super::kept::{self, Bad, DaemonNote, Doing, Kept, KeptError, PassNote, Totals};
use super::process::Process;
use super::round::{self, Found, Hindered};
use crate::config::{Config, STATE_PATH};
use crate::hash_path::Partition;
use crate::ledger::{LedgerError, Span};
use crate::look::seconds;
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
        let (before, totals) = (std::mem::take(&mut kept.worst), kept.totals.clone());
        let state = State { began: now(), before, totals, kept, ..State::default() };
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
    /// What earlier passes came to.
    totals: Totals,
    /// What was told of each device, and of each device and peer.
    troubles: BTreeMap<DeviceId, Cause>,
    hindered: BTreeMap<DeviceId, BTreeMap<u32, Hindered>>,
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
        let mut totals = state.totals.with(outcome.as_ref().map_or(&Tally::default(), |tally| *tally));
        match &outcome {
            Ok(_) | Err(_) if stopped => totals.broken += 1,
            Ok(tally) if tally.failure == 0 => totals.clean += 1,
            Ok(_) => totals.failed += 1,
            Err(_) => totals.broken += 1,
        }
        state.kept.totals = totals;
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

    /// How many databases a device has, and how many of them do not agree with each of these peers, by its ledger.
    fn count(&self, over: &RoundOver<'_>, lost: &BTreeSet<DeviceId>) -> Result<Option<Counted>, LedgerError> {
        let Some(ledger) = over.ledger else { return Ok(None) };
        let (ring, device) = (over.ring, over.device.id);
        let databases = ledger.sum(self.node.neighbours(ring, device).own(), Span::ALL)?.count();
        let peers = |partition: Partition| -> Vec<DeviceId> {
            ring.primary_ids(partition).into_iter().filter(|id| lost.contains(id)).collect()
        };
        let (mut behind, mut after) = (BTreeMap::new(), None);
        while !lost.is_empty() && !self.node.stop.wished() {
            let page = ledger.unsettled(after, &peers)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (key, entry) in &page {
                let apart = peers(key.partition(ring.part_shift())).into_iter();
                apart
                    .filter(|peer| !entry.agrees_with(*peer))
                    .for_each(|peer| *behind.entry(peer.0).or_default() += 1);
            }
        }
        Ok(Some(Counted { databases, behind }))
    }
}

/// What a ledger tells after a round.
struct Counted {
    databases: u64,
    behind: BTreeMap<u32, u64>,
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
        state.kept.totals = state.totals.with(tally);
        let worst = std::mem::take(&mut state.kept.worst);
        state.kept.worst = if state.worst.is_empty() { state.before.clone() } else { state.worst.clone() };
        self.write(&mut state.kept);
        state.kept.worst = worst;
    }

    fn foretell(&self, line: String) {
        self.inner.foretell(line);
    }

    fn counted(&self, device: &Device, counted: &Tally, took: Option<Duration>) {
        self.inner.counted(device, counted, took);
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
        match obstacle.peer {
            _ if cause.kind.is_excused() => {}
            Some(peer) => {
                let told = state.hindered.entry(device).or_default().entry(peer.0);
                let new = || Hindered { cause: cause.clone(), cut_off: false, databases: 0 };
                let told = told.or_insert_with(new);
                told.cause.clone_from(cause);
                match obstacle.database {
                    Some(_) => told.databases += 1,
                    None => told.cut_off = true,
                }
            }
            None => _ = state.troubles.insert(device, cause.clone()),
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
        let (trouble, mut hindered) = {
            let mut state = self.state();
            (state.troubles.remove(&id), state.hindered.remove(&id).unwrap_or_default())
        };
        let lost = hindered.iter().filter(|(_, hindered)| hindered.cut_off).map(|(peer, _)| DeviceId(*peer));
        // Not under the lock: it may read many entries, and workers of other devices have things to tell.
        let counted = self.count(over, &lost.collect()).unwrap_or_else(|error| {
            warn!("{error}");
            None
        });
        for (peer, hindered) in hindered.iter_mut().filter(|(_, hindered)| hindered.cut_off) {
            let behind = counted.as_ref().map(|counted| counted.behind.get(peer).copied().unwrap_or(0));
            hindered.databases = behind.unwrap_or(hindered.databases);
        }
        let databases = counted.map(|counted| counted.databases);
        let (name, began, strays) = (over.device.name.clone(), over.began, over.strays);
        let found = Found { name, began, databases, strays, trouble, hindered };
        let mut guard = self.state();
        let state = &mut *guard;
        let note = round::after(state.kept.devices.get(&id.0), found, now());
        state.kept.devices.insert(id.0, note);
        state.whole.insert(id.0);
    }
}

fn now() -> f64 {
    seconds(SystemTime::now())
}

/// How often a pass writes how far it is.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
