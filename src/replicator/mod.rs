//! One database to each of its peers, then its aftermath: a handoff that was handed over is removed, tombstones and
//! deleted databases past their age are reclaimed, a damaged database goes into quarantine.
//!
//! The order of things is Swift's (`swift/common/db_replicator.py: _replicate_object`), with two exceptions. A database
//! is never sent to the very place that holds it, also where the ring names no other. And a copy is only removed when
//! nothing has changed in it since the moment that its peers proved to hold all of it.

mod turn;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, error, info, warn};

use crate::broker::{Broker, BrokerError};
use crate::drive::{DeviceName, Drive, FileStamp, HashDir, LiveFile};
use crate::hash_path::Partition;
use crate::incoming::quarantine;
use crate::ledger::{Entry, Ledger, PartitionSet};
use crate::look::{Looked, glance, look, seconds, sum_up};
use crate::node::Node;
use crate::obstacle::{Cause, Kind, Obstacle, Whose};
use crate::outgoing::{self, Compared, ExchangeError, Exchanged, Forecast, Pair, Subject};
use crate::peer::{Peer, PeerError};
use crate::protocol::message::{Agreed, Intent, Place, Refusal, Role};
use crate::protocol::sender::Outcome;
use crate::replica::{ReplicaInfo, RowId};
use crate::ring::{Device, DeviceId, Ring};
use crate::strategy::Agreement;
use crate::tally::Tally;

/// Peers that do not answer, shared by the workers of a pass, so that a dead one is waited for once and not once for
/// every database.
#[derive(Debug, Default)]
pub struct Absent(Mutex<HashMap<(String, u16), Silence>>);

/// Until when a peer is left alone, and why.
#[derive(Debug)]
struct Silence {
    until: Instant,
    why: String,
}

impl Absent {
    fn is(&self, address: &(String, u16)) -> bool {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.get(address) {
            Some(silence) if Instant::now() < silence.until => true,
            Some(_) => {
                silent.remove(address);
                false
            }
            None => false,
        }
    }

    fn note(&self, address: (String, u16), why: String) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(address, Silence { until: Instant::now() + ABSENCE, why });
    }

    /// Why a peer is left alone.
    fn why(&self, address: &(String, u16)) -> Cause {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = silent.get(address).map_or("it did not answer a moment ago", |silence| &silence.why);
        Cause::new(Kind::Unreachable, why)
    }
}

/// What a worker needs for one database after the other.
pub struct Replicator<'a> {
    node: &'a Node,
    ring: &'a Ring,
    absent: &'a Absent,
    /// Is told what does not get to its peers, and why.
    hindered: &'a (dyn Fn(Obstacle) + Sync),
    /// Takes the lines of a dry run; with it, nothing is changed anywhere.
    dry_run: Option<&'a (dyn Fn(String) + Sync)>,
    peers: HashMap<(String, u16), Peer<TcpStream>>,
    /// Devices whose node goes by another ring, each told of once and not once for every database.
    other_rings: HashSet<String>,
}

/// One database that the scan found.
pub struct Found<'a> {
    /// The drive it is on.
    pub drive: &'a Drive,
    /// The ring's device of that drive.
    pub device: &'a Device,
    /// Its directory.
    pub dir: &'a HashDir,
    /// The partition whose directory it is in; `None` if that is no number of a partition.
    pub partition: Option<Partition>,
}

/// How one target fared.
enum Fate {
    /// The exchange ended; the peer may or may not hold everything now. It may be that all we knew of it was wrong.
    Done { outcome: Outcome, restarted: bool },
    /// It did not, for this reason; `None` if we are stopping.
    Failed(Option<Cause>),
    /// It did not, because our own database turned out to be damaged. It is in quarantine now.
    Damaged,
}

impl<'a> Replicator<'a> {
    /// A worker's replicator.
    pub fn new(
        node: &'a Node,
        ring: &'a Ring,
        absent: &'a Absent,
        hindered: &'a (dyn Fn(Obstacle) + Sync),
        dry_run: Option<&'a (dyn Fn(String) + Sync)>,
    ) -> Replicator<'a> {
        let (peers, other_rings) = (HashMap::new(), HashSet::new());
        Replicator { node, ring, absent, hindered, dry_run, peers, other_rings }
    }

    /// Does all that a pass does for one database, with all its peers, and counts it. Nothing that goes wrong here goes
    /// further.
    pub fn replicate(&mut self, found: &Found, tally: &mut Tally) {
        tally.attempted += 1;
        debug!("Replicating db {}", found.dir.dir().display());
        let mut looked = match self.open(found, None, tally) {
            Ok(looked) => looked,
            // It was there when the scan came by; somebody removed it. That is no failure.
            Err(BrokerError::Missing) => return,
            Err(error) => return self.cannot_read(found, &error, tally),
        };
        if !self.belongs(found, &looked.info, tally) {
            return;
        }
        match looked.is_reclaimable(&self.node.config) {
            Ok(false) => self.with_peers(found, looked, tally),
            Ok(true) => drop(self.reclaim_deleted(found, looked, tally)),
            Err(error) => self.cannot_read(found, &error, tally),
        }
    }

    /// Looks into a database of which the ledger has an entry, or has none, before any peer is asked. Returns what the
    /// ledger is to remember: `Some(None)` is to forget it, `None` to leave things as they are. Where it was `due`, its
    /// peers are to be met whatever their sums say.
    pub fn look(
        &mut self,
        found: &Found,
        known: Option<Entry>,
        due: bool,
        tally: &mut Tally,
    ) -> Option<Option<Entry>> {
        tally.attempted += 1;
        debug!("Looking into db {}", found.dir.dir().display());
        if let Some((info, entry)) = glance(&self.node.config, found.dir, known.clone()) {
            tally.opened += 1;
            let introduce = entry.introduce || due;
            return Some(self.belongs(found, &info, tally).then_some(Entry { introduce, ..entry }));
        }
        let mut looked = match self.open(found, known.clone(), tally) {
            Ok(looked) => looked,
            Err(BrokerError::Missing) => return Some(None),
            Err(error) => {
                self.cannot_read(found, &error, tally);
                return Some(known.filter(|_| !error.is_damage()).map(|entry| Entry { seen: None, ..entry }));
            }
        };
        if !self.belongs(found, &looked.info, tally) {
            return Some(None);
        }
        let introduce = looked.entry.introduce || due;
        let entry = Entry { introduce, ..looked.entry.clone() };
        match looked.is_reclaimable(&self.node.config) {
            Ok(false) => Some(Some(entry)),
            Ok(true) => Some((!self.reclaim_deleted(found, looked, tally)).then_some(entry)),
            Err(error) => {
                self.cannot_read(found, &error, tally);
                Some((!error.is_damage()).then_some(Entry { seen: None, ..entry }))
            }
        }
    }

    /// Takes a database to those of its peers that, by its entry, do not have the same.
    pub fn settle(&mut self, found: &Found, entry: Entry, tally: &mut Tally) -> Settled {
        debug!("Replicating db {}", found.dir.dir().display());
        let partition = self.ring.part_shift().partition(&found.dir.hash());
        let mut peers = targets(self.ring, partition, found.device);
        peers.retain(|peer| !entry.agrees_with(peer.id));
        let targets: Vec<DeviceId> = peers.iter().map(|peer| peer.id).collect();
        if let Some(entry) = self.all_have_the_same(found, partition, &peers, &entry, tally) {
            return Settled { targets, entry: Some(Some(entry)) };
        }
        let mut looked = match self.open(found, Some(entry.clone()), tally) {
            Ok(looked) => looked,
            Err(BrokerError::Missing) => return Settled { targets, entry: Some(None) },
            Err(error) => {
                self.cannot_read(found, &error, tally);
                return Settled { targets, entry: Some(Some(Entry { seen: None, ..entry })) };
            }
        };
        match looked.is_reclaimable(&self.node.config) {
            Ok(false) => {}
            // It is nobody's business any more; the next look removes it.
            Ok(true) => return Settled { targets: vec![], entry: None },
            Err(error) => {
                self.cannot_read(found, &error, tally);
                return Settled { targets, entry: Some(None) };
            }
        }
        let Looked { mut broker, info, entry } = looked;
        let only: BTreeSet<DeviceId> = targets.iter().copied().collect();
        let errand =
            Errand { partition, intent: Intent::Agree, known: &entry, only: Some(&only), proven: None };
        let sent = self.send_to_all(found, &mut broker, &info, &errand, tally);
        let mut entry = entry;
        sent.restarted.iter().for_each(|target| entry.forget(*target));
        let met = entry.introduce && sent.delivered.len() == targets.len();
        let entry = match sum_up(&self.node.config, found.dir, &mut broker, Some(entry.clone())) {
            Ok((_, entry)) if met => Entry { introduce: false, met_row: entry.max_row, ..entry },
            Ok((_, entry)) => entry,
            Err(_) => Entry { seen: None, ..entry },
        };
        Settled { targets, entry: Some(Some(entry)) }
    }

    /// Asks a peer whether its databases of the partitions shared with it are the same as ours. What agrees and what does
    /// not is in the ledger afterwards.
    pub fn compare(
        &mut self,
        ledger: &Ledger,
        shared: &PartitionSet,
        ours: DeviceId,
        target: &Device,
        tally: &mut Tally,
    ) -> Comparison {
        let hindered = |cause| {
            let (device, peer) = (ours, Some(target.id));
            (self.hindered)(Obstacle { device, peer, database: None, cause });
        };
        let Some((whom, device, address)) = self.way_to(target) else {
            hindered(no_way());
            return Comparison::Failed;
        };
        let part_shift = self.ring.part_shift();
        let pair = Pair { ours, theirs: target.id, device, part_shift, shared };
        let asked = self.talk(&address, tally, |peer| Ok(outgoing::compare(peer, ledger, &pair)?));
        match asked {
            None => {
                hindered(self.absent.why(&address));
                Comparison::Failed
            }
            Some(Err(error)) => {
                self.lost(&whom, address, error).into_iter().for_each(hindered);
                Comparison::Failed
            }
            Some(Ok(Compared::Refused(refusal @ (Refusal::NoLedger | Refusal::NotMounted)))) => {
                debug!("{whom} cannot be compared with: {refusal}");
                Comparison::Refused
            }
            // What it agreed with so far it still does, as far as anybody knows; what it did not is taken there.
            Some(Ok(Compared::Refused(refusal @ (Refusal::Busy | Refusal::TooMany)))) => {
                debug!("{whom} cannot be compared with now: {refusal}");
                Comparison::Made
            }
            Some(Ok(Compared::Refused(refusal))) => {
                error!("ERROR syncing with {whom}: it refused, {refusal}");
                hindered(refused(&refusal));
                Comparison::Failed
            }
            Some(Ok(Compared::Told { alike, differing })) => {
                debug!("{whom} has {alike} databases as they are here, {differing} otherwise");
                Comparison::Made
            }
        }
    }

    /// Opens a database and looks what is in it; not in a dry run, it forgets what is old.
    fn open(&self, found: &Found, known: Option<Entry>, tally: &mut Tally) -> Result<Looked, BrokerError> {
        tally.opened += 1;
        let config = &self.node.config;
        if self.dry_run.is_none() {
            return look(config, found.dir, known);
        }
        let mut broker = Broker::open(found.dir)?;
        let (info, entry) = sum_up(config, found.dir, &mut broker, known)?;
        Ok(Looked { broker, info, entry })
    }

    /// Is its directory that of its name? Else that is told and counted.
    fn belongs(&self, found: &Found, info: &ReplicaInfo, tally: &mut Tally) -> bool {
        let belongs =
            self.node.config.salt.hash(&info.account, Some(&info.container), None) == found.dir.hash();
        if !belongs {
            error!(
                database:% = found.dir.dir().display();
                "{}: the database of {}/{} does not belong into a directory of this hash; are the hash prefix and \
                 suffix in swift.conf this cluster's?",
                found.dir.dir().display(),
                info.account,
                info.container
            );
            self.hinder(found, None, Some(info), Cause::new(Kind::WrongHash, "it belongs elsewhere"));
            self.fail_primaries(found.partition, tally);
        }
        belongs
    }

    /// Counts a failure for each device that should have a replica, and moves a damaged database away.
    fn cannot_read(&self, found: &Found, reason: &BrokerError, tally: &mut Tally) {
        error!(database:% = found.dir.dir().display(); "ERROR reading db {}: {reason}", found.dir.dir().display());
        if reason.is_damage() && self.dry_run.is_none() {
            quarantine(found.dir, reason);
        }
        let kind = if reason.is_damage() { Kind::Damaged } else { Kind::Unreadable };
        self.hinder(found, None, None, Cause::new(kind, reason));
        self.fail_primaries(found.partition, tally);
    }

    /// Tells what does not get to a peer, or to any.
    fn hinder(&self, found: &Found, peer: Option<DeviceId>, info: Option<&ReplicaInfo>, cause: Cause) {
        let name = info.map(|info| (info.account.clone(), info.container.clone()));
        let database = Some(Whose { partition: found.partition, hash: found.dir.hash(), name });
        (self.hindered)(Obstacle { device: found.device.id, peer, database, cause });
    }

    fn fail_primaries(&self, partition: Option<Partition>, tally: &mut Tally) {
        tally.failures_told += 1;
        let known = |partition: &Partition| u64::from(partition.0) < self.ring.part_shift().partitions();
        let Some(partition) = partition.filter(known) else {
            tally.failure += 1;
            return;
        };
        for device in self.ring.primaries(partition) {
            tally.fail_node(&device.replication_ip, &device.name, 1);
        }
    }

    fn with_peers(&mut self, found: &Found, looked: Looked, tally: &mut Tally) {
        let Looked { mut broker, mut info, entry } = looked;
        let partition = self.ring.part_shift().partition(&found.dir.hash());
        let misplaced = found.partition != Some(partition);
        if misplaced {
            error!(
                database:% = found.dir.dir().display();
                "Found db that should be on partition {partition}; will replicate out and remove, path: {}/{}, db: {}",
                info.account,
                info.container,
                found.dir.dir().display()
            );
        }
        let primaries = self.ring.primaries(partition);
        let at_home = primaries.iter().position(|device| device.id == found.device.id).filter(|_| !misplaced);
        let intent = if at_home.is_some() { Intent::Agree } else { Intent::Leave };
        let mut proven = None;
        for round in 0.. {
            let errand = Errand { partition, intent, known: &entry, only: None, proven: proven.as_ref() };
            let sent = self.send_to_all(found, &mut broker, &info, &errand, tally);
            if at_home.is_some() || self.dry_run.is_some() || !self.may_remove(&sent, &info) {
                break;
            }
            if !misplaced && self.is_ours_by_now(found, partition) {
                debug!(
                    "Not deleting db {}/{} (by a newer ring it belongs here)",
                    info.account, info.container
                );
                break;
            }
            match self.remove_unless_changed(found, broker, &info, tally) {
                Ok(None) => break,
                // Something came in, or was taken over from a peer: the peers have to prove once more what they hold.
                Ok(Some((reopened, changed))) if round < PROOFS => {
                    (broker, info) = (reopened, changed);
                    proven = Some(sent.delivered);
                }
                Ok(Some(_)) => {
                    debug!("Not deleting db {} (it keeps changing)", found.dir.dir().display());
                    break;
                }
                Err(error) => {
                    error!(database:% = found.dir.dir().display(); "cannot remove {}: {error}", found.dir.dir().display());
                    for target in sent.targets {
                        tally.fail_node(&target.replication_ip, &target.name, 1);
                    }
                    break;
                }
            }
        }
    }

    /// Removes a database that was deleted long ago, if its account knows it to be gone, and says whether it did. It is not
    /// for replication either way.
    fn reclaim_deleted(&self, found: &Found, looked: Looked, tally: &mut Tally) -> bool {
        let Looked { mut broker, info, .. } = looked;
        if let Some(say) = self.dry_run {
            say(format!("{}/{}: deleted long ago, would be removed", info.account, info.container));
            return false;
        }
        let removed = || -> Result<bool, Box<dyn std::error::Error>> {
            let seen = stamp(found.dir)?;
            let (now, age) = (seconds(SystemTime::now()), self.node.config.reclaim_age.as_secs_f64());
            if !broker.reported_is_current()? || !broker.is_reclaimable(now, age)? {
                return Ok(false);
            }
            drop(broker);
            remove_as_seen(found.dir, &seen)
        };
        match removed() {
            Ok(true) => {
                debug!("Successfully deleted db {}", found.dir.dir().display());
                tally.remove += 1;
                return true;
            }
            Ok(false) => {}
            Err(error) => {
                error!(database:% = found.dir.dir().display(); "cannot remove {}: {error}", found.dir.dir().display())
            }
        }
        false
    }

    /// Takes the database to each target in turn. Not the first time, the targets were counted before, and some have
    /// `proven` to hold what it was then.
    fn send_to_all<'r>(
        &mut self,
        found: &Found,
        broker: &mut Broker,
        info: &ReplicaInfo,
        errand: &Errand,
        tally: &mut Tally,
    ) -> Sent<'r>
    where
        'a: 'r,
    {
        let ring = self.ring;
        let (partition, proven) = (errand.partition, errand.proven);
        let mut targets = targets(ring, partition, found.device);
        targets.retain(|target| errand.only.is_none_or(|only| only.contains(&target.id)));
        if targets.is_empty() && found.partition != Some(partition) {
            // The one place where it belongs is this device, in another directory.
            targets.extend(ring.device(found.device.id));
        }
        let primaries = targets.len();
        let mut handoffs = ring.handoffs(partition);
        let mut sent = Sent {
            targets: vec![],
            delivered: BTreeSet::new(),
            calls: 0,
            restarted: vec![],
            stands_in: false,
        };
        let mut again = Tally::default();
        let mut at = 0;
        while at < targets.len() {
            let target = targets[at];
            let role = if at < primaries { Role::Primary } else { Role::Handoff };
            at += 1;
            let counted = if proven.is_some() { &mut again } else { &mut *tally };
            let fate = self.send_to(found, broker, info, errand, role, target, counted);
            sent.calls += 1;
            if let Some(cause) = fate.hindrance() {
                self.hinder(found, Some(target.id), Some(info), cause);
            }
            let failed = match &fate {
                Fate::Failed(_) => true,
                Fate::Damaged => {
                    for target in &targets[at..] {
                        sent.calls += 1;
                        tally.fail_target(&target.replication_ip, &target.name, 1);
                    }
                    at = targets.len();
                    true
                }
                Fate::Done { outcome, restarted } => {
                    if *restarted {
                        sent.restarted.push(target.id);
                    }
                    if outcome.delivered() {
                        sent.delivered.insert(target.id);
                    }
                    matches!(outcome, Outcome::Refused(_))
                }
            };
            if matches!(fate, Fate::Done { outcome: Outcome::Refused(Refusal::NotMounted), .. }) {
                match handoffs.next() {
                    // We are the one that stands in for the dead device.
                    Some(handoff) if handoff.id == found.device.id => sent.stands_in = true,
                    Some(handoff) => targets.push(handoff),
                    None => error!(
                        "ERROR There are not enough handoff nodes to reach replica count for partition {partition}"
                    ),
                }
            }
            match (failed, proven) {
                (true, None) => tally.fail_target(&target.replication_ip, &target.name, 1),
                (false, None) => tally.success += 1,
                (_, Some(_)) => {}
            }
        }
        tally.bytes_sent += again.bytes_sent;
        tally.bytes_received += again.bytes_received;
        tally.rows_sent += again.rows_sent;
        sent.targets = targets;
        sent
    }

    #[allow(clippy::too_many_arguments)]
    fn send_to(
        &mut self,
        found: &Found,
        broker: &mut Broker,
        info: &ReplicaInfo,
        errand: &Errand,
        role: Role,
        target: &Device,
        tally: &mut Tally,
    ) -> Fate {
        let Some((whom, device, address)) = self.way_to(target) else { return Fate::Failed(Some(no_way())) };
        let place = Place { device, partition: errand.partition, hash: found.dir.hash() };
        let (node, drive, dir) = (self.node, found.drive, found.dir);
        let proven = errand.proven.is_some_and(|proven| proven.contains(&target.id));
        let agreed = errand.known.agreement(target.id);
        let agreed = agreed.map(|agreement| Agreed { state: agreement.state, row: agreement.row });
        let ours = found.device.id;
        let mut subject = Subject { node, drive, dir, broker, info, proven, ours, agreed };
        let dry_run = self.dry_run.is_some();
        let ended = self.talk(&address, tally, |peer| match dry_run {
            false => subject.exchange(peer, place.clone(), errand.intent, role).map(Ended::Exchanged),
            true => subject.forecast(peer, place.clone(), role).map(Ended::Forecast),
        });
        match ended {
            None => Fate::Failed(Some(self.absent.why(&address))),
            Some(Ok(ended)) => self.count(&whom, info, ended, tally),
            Some(Err(ExchangeError::Broker(reason))) if reason.is_damage() && self.dry_run.is_none() => {
                error!(database:% = found.dir.dir().display(); "ERROR reading db {}: {reason}", found.dir.dir().display());
                quarantine(found.dir, &reason);
                Fate::Damaged
            }
            Some(Err(error)) => Fate::Failed(self.lost(&whom, address, error)),
        }
    }

    /// What a device is called in the log, its name, and the address of its agent; `None`, and told, if it can have none.
    fn way_to(&self, target: &Device) -> Option<(String, DeviceName, (String, u16))> {
        let whom = format!("{}:{}/{}", target.replication_ip, target.replication_port, target.name);
        let Some(device) = DeviceName::new(target.name.as_str()) else {
            error!(peer:% = whom; "ERROR syncing with {whom}: the ring gives its device an impossible name");
            return None;
        };
        let Some(port) = self.node.config.peer_port(target.replication_port) else {
            error!(peer:% = whom; "ERROR syncing with {whom}: its port and agent_port_offset make no port");
            return None;
        };
        Some((whom, device, (target.replication_ip.clone(), port)))
    }

    /// Talks to the agent at an address, over a connection kept from before if there is one; `None` if it did not answer a
    /// moment ago. A connection that was kept may have been closed meanwhile, and then it is called anew.
    fn talk<T>(
        &mut self,
        address: &(String, u16),
        tally: &mut Tally,
        mut talk: impl FnMut(&mut Peer<TcpStream>) -> Result<T, ExchangeError>,
    ) -> Option<Result<T, ExchangeError>> {
        if self.absent.is(address) {
            debug!("{}:{} did not answer a moment ago, not asked again", address.0, address.1);
            return None;
        }
        loop {
            let (mut peer, kept) = match self.peers.remove(address) {
                Some(peer) => (peer, true),
                None => match self.call(address) {
                    Ok(peer) => (peer, false),
                    Err(error) => return Some(Err(error.into())),
                },
            };
            let (sent_before, received_before) = if kept { peer.bytes() } else { (0, 0) };
            let ended = talk(&mut peer);
            let (sent, received) = peer.bytes();
            tally.bytes_sent += sent - sent_before;
            tally.bytes_received += received - received_before;
            match ended {
                Ok(ended) => {
                    if self.peers.len() < PEERS_KEPT {
                        self.peers.insert(address.clone(), peer);
                    }
                    return Some(Ok(ended));
                }
                Err(ExchangeError::Peer(PeerError::Gone)) if kept => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn call(&self, address: &(String, u16)) -> Result<Peer<TcpStream>, PeerError> {
        let config = &self.node.config;
        let (conn, node) = (config.conn_timeout, config.node_timeout);
        let mut peer = Peer::call(&address.0, address.1, conn, node, &self.node.stop)?;
        peer.keep_to(&self.node.bandwidth);
        Ok(peer)
    }

    /// Says why an exchange failed; nothing if we are stopping.
    fn lost(&self, whom: &str, address: (String, u16), error: ExchangeError) -> Option<Cause> {
        let cause = match &error {
            ExchangeError::Peer(PeerError::Stopped) => None,
            ExchangeError::Peer(error @ (PeerError::Unreachable(_) | PeerError::TooSlow(_))) => {
                Some(Cause::new(Kind::Unreachable, format_args!("it {error}")))
            }
            ExchangeError::Peer(error) => Some(Cause::new(Kind::Failed, format_args!("it {error}"))),
            error => Some(Cause::new(Kind::Failed, error)),
        };
        match &error {
            ExchangeError::Peer(PeerError::Stopped) => {}
            ExchangeError::Peer(PeerError::Unreachable(_) | PeerError::TooSlow(_)) => {
                if !self.absent.is(&address) {
                    warn!(
                        peer:% = whom;
                        "ERROR syncing with {whom}: it {error}; not asked again for {} s",
                        ABSENCE.as_secs()
                    );
                }
                self.absent.note(address, format!("it {error}"));
            }
            ExchangeError::Peer(_) => error!(peer:% = whom; "ERROR syncing with {whom}: it {error}"),
            _ => error!(peer:% = whom; "ERROR syncing with {whom}: {error}"),
        }
        cause
    }

    fn count(&mut self, whom: &str, info: &ReplicaInfo, ended: Ended, tally: &mut Tally) -> Fate {
        let container = || format!("{}/{}", info.account, info.container);
        let Exchanged { outcome, rows_sent, restarted } = match ended {
            Ended::Exchanged(exchanged) => exchanged,
            Ended::Forecast(forecast) => {
                if let Some(say) = self.dry_run {
                    say(format!("{} -> {whom}: {}", container(), foretell(&forecast, info)));
                }
                let outcome = match forecast {
                    Forecast::Refused(refusal) => Outcome::Refused(refusal),
                    _ => Outcome::Nothing(Agreement::NoChange),
                };
                return Fate::Done { outcome, restarted: false };
            }
        };
        tally.rows_sent += rows_sent;
        match &outcome {
            Outcome::Nothing(Agreement::HashMatch) => tally.hashmatch += 1,
            Outcome::Nothing(Agreement::Tied) => {
                warn!(
                    peer:% = whom;
                    "{}: the replica of {whom} has rows of the same names and times that differ in size, type or etag; \
                     nothing says which is right, each keeps its own",
                    container()
                );
                tally.no_change += 1;
            }
            Outcome::Nothing(_) => {
                debug!("in sync with {whom}, nothing to do");
                tally.no_change += 1;
            }
            Outcome::Rows { capped } => {
                tally.diff += 1;
                if *capped {
                    tally.diff_capped += 1;
                    debug!("{}: more rows for {whom} are left for the next pass", container());
                }
            }
            Outcome::Created => {
                tally.rsync += 1;
                tally.full += 1;
            }
            Outcome::Patched => {
                tally.remote_merge += 1;
                tally.delta += 1;
            }
            Outcome::Merged => {
                tally.remote_merge += 1;
                tally.full += 1;
            }
            Outcome::Deferred => {
                warn!(
                    peer:% = whom;
                    "able to shard -- refusing to replicate objects to peer {whom}; container {}",
                    container()
                );
                tally.deferred += 1;
            }
            Outcome::Refused(Refusal::NotMounted) => {
                error!(peer:% = whom; "ERROR Remote drive not mounted {whom}")
            }
            Outcome::Refused(refusal @ Refusal::NotPrimary) => {
                if self.other_rings.insert(whom.to_owned()) {
                    warn!(peer:% = whom; "{}: {whom} did not take it: {refusal}", container());
                } else {
                    debug!("{}: {whom} did not take it: {refusal}", container());
                }
            }
            Outcome::Refused(refusal) => {
                error!(peer:% = whom; "ERROR syncing {} with {whom}: it refused, {refusal}", container());
            }
        }
        Fate::Done { outcome, restarted }
    }

    /// Enough targets hold all of it (`swift/common/db_replicator.py: cleanup_post_replicate`).
    fn may_remove(&self, sent: &Sent, info: &ReplicaInfo) -> bool {
        let enough = match self.node.config.handoff_delete_within(self.ring.replica_count()) {
            Some(enough) => sent.delivered.len() >= enough,
            None => sent.delivered.len() == sent.calls,
        };
        if info.sharding_required || sent.stands_in || sent.delivered.is_empty() || !enough {
            let reason = if info.sharding_required { "it is being sharded" } else { "not everybody has it" };
            debug!("Not deleting db {}/{} ({reason})", info.account, info.container);
            return false;
        }
        true
    }

    /// Did a ring that came during this pass make the device a primary?
    fn is_ours_by_now(&self, found: &Found, partition: Partition) -> bool {
        let newest = self.node.ring();
        newest.part_shift() == self.ring.part_shift()
            && newest.primaries(partition).iter().any(|device| device.id == found.device.id)
    }

    /// Removes a database that its peers hold, unless anything came in since `info`: then it is given back, with what
    /// it says of itself now.
    fn remove_unless_changed(
        &self,
        found: &Found,
        mut broker: Broker,
        info: &ReplicaInfo,
        tally: &mut Tally,
    ) -> Result<Option<(Broker, ReplicaInfo)>, Box<dyn std::error::Error>> {
        // Before the look at the rows: what comes in after that look has to show as a change.
        let seen = stamp(found.dir)?;
        let now = broker.info()?;
        if now.max_row != info.max_row || !now.agrees_with(info) {
            return Ok(Some((broker, now)));
        }
        drop(broker);
        if !remove_as_seen(found.dir, &seen)? {
            let mut broker = Broker::open(found.dir)?;
            let changed = broker.info()?;
            return Ok(Some((broker, changed)));
        }
        tally.remove += 1;
        info!("Successfully deleted db {}/{}: handed over", info.account, info.container);
        Ok(None)
    }
}

/// What a database is taken to its peers for.
struct Errand<'e> {
    /// Where it belongs, by our ring.
    partition: Partition,
    intent: Intent,
    /// What was agreed with them before.
    known: &'e Entry,
    /// Not to all of them.
    only: Option<&'e BTreeSet<DeviceId>>,
    /// Those that proved in this very pass to hold all of it.
    proven: Option<&'e BTreeSet<DeviceId>>,
}

/// How a database that was known to differ fared.
pub struct Settled {
    /// The devices it was taken to, or should have been.
    pub targets: Vec<DeviceId>,
    /// What the ledger is to remember: `Some(None)` is to forget it, `None` to leave things as they are.
    pub entry: Option<Option<Entry>>,
}

/// How the comparison with a peer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// What could be learnt is in the ledger.
    Made,
    /// The peer is there, but there is nothing to compare with.
    Refused,
    /// Nothing can be learnt from it in this pass.
    Failed,
}

/// What one round of exchanges came to.
struct Sent<'r> {
    targets: Vec<&'r Device>,
    /// Targets that hold, durably, all that we have.
    delivered: BTreeSet<DeviceId>,
    calls: usize,
    /// Targets of which all we knew was wrong.
    restarted: Vec<DeviceId>,
    /// This device holds a replica in a dead one's place.
    stands_in: bool,
}

enum Ended {
    Exchanged(Exchanged),
    Forecast(Forecast),
}

impl Fate {
    /// Why the peer does not hold all of it, if it does not.
    fn hindrance(&self) -> Option<Cause> {
        match self {
            Fate::Failed(cause) => cause.clone(),
            Fate::Damaged => Some(Cause::new(Kind::Damaged, "our copy was damaged")),
            Fate::Done { outcome: Outcome::Refused(refusal), .. } => Some(refused(refusal)),
            Fate::Done { outcome: Outcome::Deferred, .. } => {
                Some(Cause::new(Kind::Deferred, "its rows are left to the sharder"))
            }
            Fate::Done { outcome: Outcome::Rows { capped: true }, .. } => {
                Some(Cause::new(Kind::Capped, "the next pass sends more rows"))
            }
            Fate::Done { outcome: Outcome::Nothing(Agreement::PeerAhead), .. } => {
                Some(Cause::new(Kind::PeerAhead, "its next pass brings them"))
            }
            Fate::Done { outcome: Outcome::Nothing(Agreement::Tied), .. } => Some(Cause::new(
                Kind::Tied,
                "rows of the same names and times differ; nothing says which are right",
            )),
            Fate::Done { .. } => None,
        }
    }
}

fn no_way() -> Cause {
    Cause::new(Kind::Failed, "the ring gives it an impossible name or port")
}

/// What a refusal is to an operator.
fn refused(refusal: &Refusal) -> Cause {
    let kind = match refusal {
        Refusal::NotMounted => Kind::PeerNotMounted,
        Refusal::Full => Kind::PeerFull,
        Refusal::UnknownDevice | Refusal::WrongPartition | Refusal::NotPrimary => Kind::OtherRing,
        Refusal::Busy | Refusal::TooMany => Kind::PeerBusy,
        Refusal::Damaged => Kind::PeerDamaged,
        Refusal::Sharding => Kind::Deferred,
        Refusal::NoLedger | Refusal::Failed(_) => Kind::Failed,
    };
    Cause::new(kind, refusal)
}

/// Who gets it, in order: a primary begins with its successor and goes round, so that all send to different peers at a
/// time; anybody else begins at the front. Never the device itself.
pub fn targets<'r>(ring: &'r Ring, partition: Partition, device: &Device) -> Vec<&'r Device> {
    let mut targets = ring.primaries(partition);
    if let Some(own) = targets.iter().position(|target| target.id == device.id) {
        targets.rotate_left(own);
        targets.remove(0);
    }
    targets
}

fn foretell(forecast: &Forecast, info: &ReplicaInfo) -> String {
    match forecast {
        Forecast::Missing => {
            format!("full copy because it has none; about {} bytes", info.file_bytes / 2)
        }
        Forecast::Refused(Refusal::Damaged) => {
            let bytes = info.file_bytes / 2;
            format!("full copy because its database is damaged and goes into quarantine; about {bytes} bytes")
        }
        Forecast::Refused(refusal) => format!("nothing, {refusal}"),
        Forecast::Choice { choice, settles } => {
            let what = match choice.strategy {
                crate::strategy::Strategy::Nothing(_) if *settles => "timestamps and metadata".to_owned(),
                crate::strategy::Strategy::Nothing(_) => "nothing".to_owned(),
                crate::strategy::Strategy::Rows { after: RowId::NONE, .. } => "all rows".to_owned(),
                crate::strategy::Strategy::Rows { after, .. } => format!("rows after {after}"),
                crate::strategy::Strategy::File { .. } => "block delta, full copy or all rows".to_owned(),
                crate::strategy::Strategy::Deferred => "deferred".to_owned(),
            };
            let cost = match choice.cost {
                cost if cost == Default::default() => String::new(),
                cost => format!("; about {} bytes, {} rows to merge", cost.wire_bytes, cost.merge_rows),
            };
            format!("{what} because {}{cost}", choice.reason.as_str())
        }
    }
}

/// What the file in charge looks like now.
fn stamp(dir: &HashDir) -> Result<FileStamp, Box<dyn std::error::Error>> {
    let path = dir.in_charge()?.ok_or(BrokerError::Missing)?;
    Ok(LiveFile::open_read(&path)?.stamp()?)
}

/// Removes a container's directory if its database still looks as it did when it was `seen`, and says whether it did.
/// Whoever adds a row has to hold one of the two locks that are held meanwhile: the directory's for the pending file,
/// SQLite's for the database. No connection of ours may be open on it.
fn remove_as_seen(dir: &HashDir, seen: &FileStamp) -> Result<bool, Box<dyn std::error::Error>> {
    let path = dir.in_charge()?.ok_or(BrokerError::Missing)?;
    let lock = dir.lock(LOCK_TIMEOUT)?;
    let mut live = LiveFile::open_read_write(&path)?;
    live.lock_exclusive(LOCK_TIMEOUT)?;
    if dir.has_pending() || live.stamp()? != *seen {
        return Ok(false);
    }
    dir.remove(&lock)?;
    Ok(true)
}

/// How long a peer that did not answer is left alone.
const ABSENCE: Duration = Duration::from_secs(30);
/// Connections that a worker keeps for the next database.
const PEERS_KEPT: usize = 32;
/// How often peers may be asked again to prove what they hold of a database that keeps changing.
const PROOFS: u32 = 2;
/// As long as Swift's replicator waits (`pending_timeout`).
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::fresh_id;
    use crate::hash_path::Hash;
    use crate::replica::PolicyIndex;
    use crate::timestamp::Timestamp;

    /// A database, seen, and what happened to it after; was it removed then?
    fn removed_after(happened: impl FnOnce(&mut Broker)) -> bool {
        let device = tempfile::tempdir().unwrap();
        let dir = HashDir::new(device.path().into(), Partition(1), Hash([7; 16]));
        let now = Timestamp::new(175_000_000_000_000, 0).unwrap();
        let id = fresh_id("sda");
        let mut broker = Broker::create(&dir, "a", "c", now, PolicyIndex(0), &id, now).unwrap();
        let seen = stamp(&dir).unwrap();
        happened(&mut broker);
        drop(broker);
        let removed = remove_as_seen(&dir, &seen).unwrap();
        assert_eq!(dir.dir().exists(), !removed);
        removed
    }

    fn row() -> crate::replica::Row {
        crate::replica::Row {
            row_id: None,
            name: "o".into(),
            created_at: "1750000001.00000".into(),
            size: 1,
            content_type: "text/plain".into(),
            etag: "e".into(),
            deleted: 0,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    #[test]
    fn a_copy_goes_only_as_it_was_seen() {
        assert!(removed_after(|_| {}));
        assert!(removed_after(|broker| drop(broker.info().unwrap())), "a look is no change");
        assert!(
            !removed_after(|broker| assert_eq!(broker.merge_rows(vec![row()], None), Ok(1))),
            "a row was lost"
        );
        assert!(!removed_after(|broker| broker.put_record(row()).unwrap()), "a pending row was lost");
    }
}
