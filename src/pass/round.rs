//! One drive in one pass.
//!
//! With a ledger it is four legs. The walk finds what changed since the last, and workers look into that. Then each
//! peer that shares partitions is asked whether it has the same, which is one exchange where it does. What is known to
//! differ after that is taken to its peers, one database at a time. Last, strays, which the ledger has nothing of, are
//! taken to where they belong; there may be many, after a ring change, and nobody has to wait for that. Where there is no
//! ledger, and where only a part of the drive is asked for, every database is taken to its peers as the walk finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{error, warn};

use super::crew::{Dispatch, UnderWay};
use super::{Leg, Pass, RoundOver};
use crate::drive::{Drive, LONG_REST, Side, TURN_PAUSE};
use crate::hash_path::Partition;
use crate::ledger::{Entry, Key, Ledger, LedgerError, Neighbours, Recorder, Span};
use crate::obstacle::{Cause, Kind, Obstacle};
use crate::replicator::{Comparison, Found, Replicator};
use crate::ring::{Device, DeviceId, Ring};
use crate::scan::{self, Filter, Walk};
use crate::survey::{Sighting, Survey, SurveyError, is_stray};
use crate::tally::Tally;

/// A drive and what a pass knows of it.
pub(super) struct Round<'a> {
    pass: &'a Pass<'a>,
    device: &'a Device,
    drive: &'a Arc<Drive>,
    ledger: Option<&'a Ledger>,
    recorder: Option<Recorder<'a>>,
    neighbours: Arc<Neighbours>,
    /// Peers that could not be asked, and how many databases were taken to each of the others singly.
    peers: Mutex<Peers>,
    /// Databases met that belong elsewhere.
    strays: AtomicU64,
    under_way: UnderWay,
}

#[derive(Debug, Default)]
struct Peers {
    lost: BTreeSet<DeviceId>,
    singly: BTreeMap<DeviceId, u64>,
}

/// What a worker does for a round.
pub(super) enum Task {
    /// Take a database to all its peers.
    Replicate(scan::Found),
    /// Look into a database that seems to have changed.
    Look {
        /// Where it is.
        found: scan::Found,
        /// What the ledger has of it.
        known: Option<Entry>,
        /// Only time asks for it.
        due: bool,
    },
    /// Ask a peer whether it has the same.
    Compare(DeviceId),
    /// Take a database to the peers that do not have the same.
    Settle(Key, Entry),
}

impl Task {
    /// As opposed to mere talk.
    pub(super) fn opens_a_database(&self) -> bool {
        !matches!(self, Task::Compare(_))
    }
}

impl<'a> Round<'a> {
    /// The ledger of a drive, if the pass goes by it.
    pub(super) fn ledger(pass: &Pass, device: &Device, drive: &Drive) -> Option<Arc<Ledger>> {
        let whole = pass.scope.partitions.is_none() && !pass.node.config.handoffs_only;
        if !whole || pass.dry_run {
            return None;
        }
        if !pass.ring.assigned(device.id) {
            // Nothing belongs there any more, and nothing of ours is to stay behind.
            Ledger::discard(drive);
            return None;
        }
        pass.node.ledger(drive, pass.ring)
    }

    pub(super) fn new(
        pass: &'a Pass<'a>,
        device: &'a Device,
        drive: &'a Arc<Drive>,
        ledger: Option<&'a Ledger>,
    ) -> Round<'a> {
        let neighbours = match ledger {
            Some(_) => pass.node.neighbours(pass.ring, device.id),
            None => Arc::default(),
        };
        let recorder = ledger.map(Recorder::new);
        let (peers, strays, under_way) = (Mutex::default(), AtomicU64::new(0), UnderWay::default());
        Round { pass, device, drive, ledger, recorder, neighbours, peers, strays, under_way }
    }

    pub(super) fn device(&self) -> &Device {
        self.device
    }

    /// Does a job with regard to how hard the drive is pressed: not beside others, and with a rest afterwards. Says which
    /// database it was about, if it was about one.
    pub(super) fn perform(&self, replicator: &mut Replicator<'a>, task: Task) -> Option<PathBuf> {
        if !task.opens_a_database() {
            return self.perform_at_once(replicator, task);
        }
        let stop = &self.pass.node.stop;
        let wait = || if stop.sleep(TURN_PAUSE) { Err(()) } else { Ok(()) };
        let _turn = match self.drive.pressure().map(|pressure| pressure.turn(Side::Calling, wait)) {
            Some(Err(())) => return None,
            Some(Ok(turn)) => turn,
            None => None,
        };
        let begun = Instant::now();
        let database = self.perform_at_once(replicator, task);
        stop.sleep(self.drive.rest_after(begun.elapsed(), LONG_REST));
        database
    }

    /// Goes round.
    pub(super) fn go(&'a self, dispatch: &Dispatch<'a>) {
        let Some((ledger, recorder)) = self.ledger.zip(self.recorder.as_ref()) else {
            self.singly(dispatch);
            return self.over(None);
        };
        let by_ledger = self.by_ledger(ledger, recorder, dispatch);
        if let Err(error) = &by_ledger {
            // Something may have changed that is written nowhere: only opening everything makes sure.
            warn!("{error}");
            self.under_way.wait();
            self.singly(dispatch);
        }
        self.over(by_ledger.is_ok().then_some(ledger));
        ledger.rest();
    }

    /// Tells that it is over.
    fn over(&self, ledger: Option<&Ledger>) {
        let Pass { node, ring, scope, dry_run, observer, began, .. } = *self.pass;
        let all = scope.partitions.is_none() && !node.config.handoffs_only && !dry_run;
        let (device, strays) = (self.device, ledger.map(|_| self.strays.load(Ordering::Relaxed)));
        let whole = all && !node.stop.wished();
        observer.gone_round(&RoundOver { device, ring, ledger, whole, strays, began });
        observer.enters(device, Leg::Over);
    }

    fn enter(&self, leg: Leg) {
        self.pass.observer.enters(self.device, leg);
    }

    /// Every database to its peers, one by one.
    fn singly(&'a self, dispatch: &Dispatch<'a>) {
        self.enter(Leg::Singly);
        self.take_to_peers(dispatch, |_| true);
    }

    /// Those databases to their peers, one by one.
    fn take_to_peers(&'a self, dispatch: &Dispatch<'a>, wanted: impl Fn(&scan::Found) -> bool) {
        for item in self.walk() {
            let going = match item {
                Ok(found) if !wanted(&found) => !self.pass.node.stop.wished(),
                Ok(found) => dispatch.send(self, &self.under_way, Task::Replicate(found)),
                Err(problem) => self.told(&problem),
            };
            if !going {
                break;
            }
        }
        self.under_way.wait();
    }

    fn by_ledger(
        &'a self,
        ledger: &'a Ledger,
        recorder: &'a Recorder<'a>,
        dispatch: &Dispatch<'a>,
    ) -> Result<(), LedgerError> {
        let stopped = || self.pass.node.stop.wished();
        let Some(strays) = self.survey(ledger, recorder, dispatch)? else { return Ok(()) };
        self.enter(Leg::Compare);
        for (peer, _) in self.neighbours.iter() {
            if !dispatch.send(self, &self.under_way, Task::Compare(peer)) {
                break;
            }
        }
        self.under_way.wait();
        let mut totals = BTreeMap::new();
        for (peer, shared) in self.neighbours.iter() {
            totals.insert(peer, ledger.sum(shared, Span::ALL)?.count());
        }
        self.enter(Leg::Settle);
        self.settle(ledger, dispatch)?;
        recorder.flush()?;
        if !stopped() {
            self.count_the_rest(&totals);
        }
        self.strays.store(strays, Ordering::Relaxed);
        if strays > 0 {
            self.enter(Leg::Move);
            let (shift, mine) = (self.pass.ring.part_shift(), self.neighbours.own());
            self.take_to_peers(dispatch, |found| is_stray(found, shift, mine));
        }
        Ok(())
    }

    /// The first leg: how many strays it came by; `None` if it was broken off. Peers that want to know what is on the drive
    /// wait for it.
    fn survey(
        &'a self,
        ledger: &'a Ledger,
        recorder: &'a Recorder<'a>,
        dispatch: &Dispatch<'a>,
    ) -> Result<Option<u64>, LedgerError> {
        self.enter(Leg::Walk);
        let _walking = lock(ledger.walking());
        let mine = self.neighbours.own();
        let mut survey = Survey::new(self.walk(), ledger, mine, recorder);
        let (mut as_before, mut strays) = (0, 0);
        for sighting in survey.by_ref() {
            let going = match sighting {
                Ok(Sighting::AsBefore(found)) => {
                    as_before += 1;
                    if as_before == TOLD_TOGETHER {
                        self.count_as_before(std::mem::take(&mut as_before), Some(&found));
                    }
                    !self.pass.node.stop.wished()
                }
                Ok(Sighting::Changed { found, known, due }) => {
                    dispatch.send(self, &self.under_way, Task::Look { found, known, due })
                }
                Ok(Sighting::Stray) => {
                    strays += 1;
                    !self.pass.node.stop.wished()
                }
                Err(SurveyError::Problem(problem)) => self.told(&problem),
                Err(SurveyError::Ledger(error)) => return Err(error),
            };
            if !going {
                self.under_way.wait();
                return Ok(None);
            }
        }
        self.count_as_before(as_before, None);
        self.under_way.wait();
        if self.pass.node.stop.wished() {
            return Ok(None);
        }
        survey.finish().map(|()| Some(strays))
    }

    /// The third leg.
    fn settle(&'a self, ledger: &'a Ledger, dispatch: &Dispatch<'a>) -> Result<(), LedgerError> {
        let lost = lock(&self.peers).lost.clone();
        let peers = |partition: Partition| -> Vec<DeviceId> {
            let primaries = self.pass.ring.primary_ids(partition).into_iter();
            primaries.filter(|id| *id != self.device.id && !lost.contains(id)).collect()
        };
        let mut after = None;
        loop {
            let unsettled = ledger.unsettled(after, &peers)?;
            let Some((last, _)) = unsettled.last() else { break };
            after = Some(*last);
            for (key, entry) in unsettled {
                if !dispatch.send(self, &self.under_way, Task::Settle(key, entry)) {
                    self.under_way.wait();
                    return Ok(());
                }
            }
        }
        self.under_way.wait();
        Ok(())
    }

    fn perform_at_once(&self, replicator: &mut Replicator<'a>, task: Task) -> Option<PathBuf> {
        let (mut tally, begun) = (Tally::default(), Instant::now());
        let about = match task {
            Task::Replicate(found) => {
                replicator.replicate(&self.found(&found), &mut tally);
                Some(found.hash_dir.usual_path())
            }
            Task::Look { found, known, due } => {
                if let Some(recorder) = &self.recorder {
                    let key = Key::new(found.hash_dir.hash(), self.pass.ring.part_shift());
                    if let Some(entry) = replicator.look(&self.found(&found), known, due, &mut tally) {
                        recorder.note(key, entry);
                    }
                }
                Some(found.hash_dir.usual_path())
            }
            Task::Compare(peer) => {
                self.compare(replicator, peer, &mut tally);
                None
            }
            Task::Settle(key, entry) => {
                let shift = self.pass.ring.part_shift();
                let (partition, hash) = (key.partition(shift), key.hash(shift));
                let dir = self.drive.hash_dir(partition, hash);
                let found =
                    Found { drive: self.drive, device: self.device, dir: &dir, partition: Some(partition) };
                let settled = replicator.settle(&found, entry, &mut tally);
                let mut peers = lock(&self.peers);
                settled.targets.iter().for_each(|target| *peers.singly.entry(*target).or_default() += 1);
                drop(peers);
                if let (Some(recorder), Some(entry)) = (&self.recorder, settled.entry) {
                    recorder.note(key, entry);
                }
                Some(dir.usual_path())
            }
        };
        let took = about.as_ref().map(|_| begun.elapsed());
        self.pass.observer.counted(self.device, &tally, took);
        self.pass.tally().add(&tally);
        about
    }

    /// The second leg, with one peer.
    fn compare(&self, replicator: &mut Replicator<'a>, peer: DeviceId, tally: &mut Tally) {
        let Some((ledger, target)) = self.ledger.zip(self.pass.ring.device(peer)) else { return };
        let Some(shared) = self.neighbours.shared_with(peer) else { return };
        match replicator.compare(ledger, shared, self.device.id, target, tally) {
            Comparison::Made => {}
            // Whether it has the same cannot be known at once, so it is asked for each.
            Comparison::Refused => {
                if let Err(error) = ledger.disagree_span(peer, shared, Span::ALL) {
                    error!("{error}");
                    lock(&self.peers).lost.insert(peer);
                }
            }
            Comparison::Failed => drop(lock(&self.peers).lost.insert(peer)),
        }
    }

    /// Databases that were not taken to a peer singly agree with it, or could not be taken there.
    fn count_the_rest(&self, totals: &BTreeMap<DeviceId, u64>) {
        let peers = lock(&self.peers);
        let mut tally = Tally::default();
        for (peer, total) in totals {
            let Some(device) = self.pass.ring.device(*peer) else { continue };
            let rest = total.saturating_sub(peers.singly.get(peer).copied().unwrap_or(0));
            if peers.lost.contains(peer) {
                tally.fail_target(&device.replication_ip, &device.name, rest);
            } else {
                tally.success += rest;
                tally.no_change += rest;
            }
        }
        self.pass.observer.counted(self.device, &tally, None);
        self.pass.tally().add(&tally);
    }

    fn count_as_before(&self, databases: u64, last: Option<&scan::Found>) {
        let counted = Tally { attempted: databases, ..Tally::default() };
        self.pass.observer.counted(self.device, &counted, None);
        let mut tally = self.pass.tally();
        tally.attempted += databases;
        if let Some(found) = last {
            self.pass.tell(&tally, &found.hash_dir.usual_path().to_string_lossy());
        }
    }

    /// Counts a directory that cannot be read. The walk goes on.
    fn told(&self, problem: &scan::Problem) -> bool {
        error!(device = self.device.name.as_str(); "{problem}");
        let cause = Cause::new(Kind::DriveUnusable, problem);
        self.pass.observer.hindered(Obstacle { device: self.device.id, peer: None, database: None, cause });
        self.pass.tally().fail_node(&self.device.replication_ip, &self.device.name, 1);
        !self.pass.node.stop.wished()
    }

    fn found<'f>(&'f self, found: &'f scan::Found) -> Found<'f> {
        Found { drive: self.drive, device: self.device, dir: &found.hash_dir, partition: found.partition }
    }

    fn walk(&self) -> Walk {
        let filter = Filter {
            partitions: self
                .pass
                .scope
                .partitions
                .as_ref()
                .map(|list| list.iter().copied().map(Partition).collect()),
            leave_out: self
                .pass
                .node
                .config
                .handoffs_only
                .then(|| primaries_of(self.pass.ring, self.device.id)),
        };
        Walk::new(self.drive.clone(), filter, anywhere(self.pass.ring))
    }
}

/// With `handoffs_only`, partitions are left out on the device that is a primary of theirs.
fn primaries_of(ring: &Arc<Ring>, device: DeviceId) -> scan::LeaveOut {
    let ring = ring.clone();
    Arc::new(move |_, partition| {
        u64::from(partition.0) < ring.part_shift().partitions()
            && ring.primary_ids(partition).contains(&device)
    })
}

/// Where a walk begins: elsewhere each time.
fn anywhere(ring: &Ring) -> Partition {
    let mut bytes = [0; 4];
    // Without randomness every walk begins at the front, which only matters to walks that are cut short.
    let _ = getrandom::fill(&mut bytes);
    Partition((u64::from(u32::from_le_bytes(bytes)) % ring.part_shift().partitions()) as u32)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Databases that look as before are counted so many at a time.
const TOLD_TOGETHER: u64 = 256;
