//! One database to each of its peers, then its aftermath: a handoff that was handed over is removed, tombstones and
//! deleted databases past their age are reclaimed, a damaged database goes into quarantine.
//!
//! The order of things is Swift's (`swift/common/db_replicator.py: _replicate_object`), with two exceptions. A database
//! is never sent to the very place that holds it, also where the ring names no other. And a copy is only removed when
//! nothing has changed in it since the moment that its peers proved to hold all of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, error, info, warn};

use crate::broker::{Broker, BrokerError};
use crate::drive::{DeviceName, Drive, FileStamp, HashDir, LiveFile};
use crate::hash_path::Partition;
use crate::incoming::quarantine;
use crate::node::Node;
use crate::outgoing::{ExchangeError, Exchanged, Forecast, Subject};
use crate::peer::{Peer, PeerError};
use crate::protocol::message::{Intent, Place, Refusal, Role};
use crate::protocol::sender::Outcome;
use crate::replica::{ReplicaInfo, RowId};
use crate::ring::{Device, DeviceId, Ring};
use crate::strategy::Agreement;
use crate::tally::Tally;

/// Peers that do not answer, shared by the workers of a pass, so that a dead one is waited for once and not once for
/// every database.
#[derive(Debug, Default)]
pub struct Absent(Mutex<HashMap<(String, u16), Instant>>);

impl Absent {
    fn is(&self, address: &(String, u16)) -> bool {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match until.get(address) {
            Some(time) if Instant::now() < *time => true,
            Some(_) => {
                until.remove(address);
                false
            }
            None => false,
        }
    }

    fn note(&self, address: (String, u16)) {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.insert(address, Instant::now() + ABSENCE);
    }
}

/// What a worker needs for one database after the other.
pub struct Replicator<'a> {
    node: &'a Node,
    ring: &'a Ring,
    absent: &'a Absent,
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
    /// The exchange ended; the peer may or may not hold everything now.
    Done(Outcome),
    /// It did not.
    Failed,
    /// It did not, because our own database turned out to be damaged. It is in quarantine now.
    Damaged,
}

impl<'a> Replicator<'a> {
    /// A worker's replicator.
    pub fn new(
        node: &'a Node,
        ring: &'a Ring,
        absent: &'a Absent,
        dry_run: Option<&'a (dyn Fn(String) + Sync)>,
    ) -> Replicator<'a> {
        Replicator { node, ring, absent, dry_run, peers: HashMap::new(), other_rings: HashSet::new() }
    }

    /// Does all that a pass does for one database, and counts it. Nothing that goes wrong here goes further.
    pub fn replicate(&mut self, found: &Found, tally: &mut Tally) {
        tally.attempted += 1;
        debug!("Replicating db {}", found.dir.dir().display());
        let opened = Broker::open(found.dir).and_then(|mut broker| {
            if self.dry_run.is_none() {
                let (now, age) = (seconds(SystemTime::now()), self.node.config.reclaim_age.as_secs_f64());
                broker.reclaim(now - age, now - 2.0 * age)?;
                self.reclaim_tmp(found.dir);
            }
            let info = broker.info()?;
            Ok((broker, info))
        });
        let (broker, info) = match opened {
            Ok(opened) => opened,
            // It was there when the scan came by; somebody removed it. That is no failure.
            Err(BrokerError::Missing) => return,
            Err(error) => return self.cannot_read(found, &error, tally),
        };
        if self.node.config.salt.hash(&info.account, Some(&info.container), None) != found.dir.hash() {
            error!(
                "{}: the database of {}/{} does not belong into a directory of this hash; are the hash prefix and \
                 suffix in swift.conf this cluster's?",
                found.dir.dir().display(),
                info.account,
                info.container
            );
            self.fail_primaries(found.partition, tally);
            return;
        }
        self.with_peers(found, broker, info, tally);
    }

    /// Unlinks databases that were never finished.
    fn reclaim_tmp(&self, dir: &HashDir) {
        let oldest = SystemTime::now().checked_sub(self.node.config.reclaim_age).unwrap_or(UNIX_EPOCH);
        if let Err(error) = dir.reclaim_tmp(oldest) {
            warn!("{}: cannot reclaim old files: {error}", dir.dir().display());
        }
    }

    /// Counts a failure for each device that should have a replica, and moves a damaged database away.
    fn cannot_read(&self, found: &Found, reason: &BrokerError, tally: &mut Tally) {
        error!("ERROR reading db {}: {reason}", found.dir.dir().display());
        if reason.is_damage() && self.dry_run.is_none() {
            quarantine(found.dir, reason);
        }
        self.fail_primaries(found.partition, tally);
    }

    fn fail_primaries(&self, partition: Option<Partition>, tally: &mut Tally) {
        let known = |partition: &Partition| u64::from(partition.0) < self.ring.part_shift().partitions();
        let Some(partition) = partition.filter(known) else {
            tally.failure += 1;
            return;
        };
        for device in self.ring.primaries(partition) {
            tally.fail_node(&device.replication_ip, &device.name, 1);
        }
    }

    fn with_peers(&mut self, found: &Found, mut broker: Broker, info: ReplicaInfo, tally: &mut Tally) {
        let partition = self.ring.part_shift().partition(&found.dir.hash());
        let misplaced = found.partition != Some(partition);
        if misplaced {
            error!(
                "Found db that should be on partition {partition}; will replicate out and remove, path: {}/{}, db: {}",
                info.account,
                info.container,
                found.dir.dir().display()
            );
        }
        match broker.is_reclaimable(seconds(SystemTime::now()), self.node.config.reclaim_age.as_secs_f64()) {
            Ok(false) => {}
            Ok(true) => return self.reclaim_deleted(found, broker, &info, tally),
            Err(error) => return self.cannot_read(found, &error, tally),
        }
        let primaries = self.ring.primaries(partition);
        let at_home = primaries.iter().position(|device| device.id == found.device.id).filter(|_| !misplaced);
        let intent = if at_home.is_some() { Intent::Agree } else { Intent::Leave };
        let mut info = info;
        let mut proven = None;
        for round in 0.. {
            let sent = self.send_to_all(found, &mut broker, &info, partition, intent, tally, proven.as_ref());
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
                    error!("cannot remove {}: {error}", found.dir.dir().display());
                    for target in sent.targets {
                        tally.fail_node(&target.replication_ip, &target.name, 1);
                    }
                    break;
                }
            }
        }
    }

    /// Removes a database that was deleted long ago, if its account knows it to be gone. It is not for replication either
    /// way.
    fn reclaim_deleted(&self, found: &Found, mut broker: Broker, info: &ReplicaInfo, tally: &mut Tally) {
        if let Some(say) = self.dry_run {
            return say(format!("{}/{}: deleted long ago, would be removed", info.account, info.container));
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
            }
            Ok(false) => {}
            Err(error) => error!("cannot remove {}: {error}", found.dir.dir().display()),
        }
    }

    /// Takes the database to each target in turn. Not the first time, the targets were counted before, and some have
    /// `proven` to hold what it was then.
    #[allow(clippy::too_many_arguments)]
    fn send_to_all<'r>(
        &mut self,
        found: &Found,
        broker: &mut Broker,
        info: &ReplicaInfo,
        partition: Partition,
        intent: Intent,
        tally: &mut Tally,
        proven: Option<&BTreeSet<DeviceId>>,
    ) -> Sent<'r>
    where
        'a: 'r,
    {
        let ring = self.ring;
        let mut targets = targets(ring, partition, found.device);
        if targets.is_empty() && found.partition != Some(partition) {
            // The one place where it belongs is this device, in another directory.
            targets.extend(ring.device(found.device.id));
        }
        let primaries = targets.len();
        let mut handoffs = ring.handoffs(partition);
        let mut sent = Sent { targets: vec![], delivered: BTreeSet::new(), calls: 0, stands_in: false };
        let mut again = Tally::default();
        let mut at = 0;
        while at < targets.len() {
            let target = targets[at];
            let role = if at < primaries { Role::Primary } else { Role::Handoff };
            at += 1;
            let counted = if proven.is_some() { &mut again } else { &mut *tally };
            let proven_here = proven.is_some_and(|proven| proven.contains(&target.id));
            let fate =
                self.send_to(found, broker, info, partition, intent, role, target, proven_here, counted);
            sent.calls += 1;
            let failed = match &fate {
                Fate::Failed => true,
                Fate::Damaged => {
                    for target in &targets[at..] {
                        sent.calls += 1;
                        tally.fail_node(&target.replication_ip, &target.name, 1);
                    }
                    at = targets.len();
                    true
                }
                Fate::Done(outcome) => {
                    if outcome.delivered() {
                        sent.delivered.insert(target.id);
                    }
                    matches!(outcome, Outcome::Refused(_))
                }
            };
            if matches!(fate, Fate::Done(Outcome::Refused(Refusal::NotMounted))) {
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
                (true, None) => tally.fail_node(&target.replication_ip, &target.name, 1),
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
        partition: Partition,
        intent: Intent,
        role: Role,
        target: &Device,
        proven: bool,
        tally: &mut Tally,
    ) -> Fate {
        let whom = format!("{}:{}/{}", target.replication_ip, target.replication_port, target.name);
        let Some(device) = DeviceName::new(target.name.as_str()) else {
            error!("ERROR syncing with {whom}: the ring gives its device an impossible name");
            return Fate::Failed;
        };
        let Some(port) = self.node.config.peer_port(target.replication_port) else {
            error!("ERROR syncing with {whom}: its port and agent_port_offset make no port");
            return Fate::Failed;
        };
        let address = (target.replication_ip.clone(), port);
        if self.absent.is(&address) {
            debug!("{whom} did not answer a moment ago, not asked again");
            return Fate::Failed;
        }
        let place = Place { device, partition, hash: found.dir.hash() };
        let mut subject =
            Subject { node: self.node, drive: found.drive, dir: found.dir, broker, info, proven };
        // A connection kept from the database before may have been closed meanwhile; a fresh one may not.
        loop {
            let (mut peer, kept) = match self.peers.remove(&address) {
                Some(peer) => (peer, true),
                None => match self.call(&address) {
                    Ok(peer) => (peer, false),
                    Err(error) => return self.lost(&whom, address, error.into()),
                },
            };
            let (sent_before, received_before) = if kept { peer.bytes() } else { (0, 0) };
            let ended = match self.dry_run {
                None => subject.exchange(&mut peer, place.clone(), intent, role).map(Ended::Exchanged),
                Some(_) => subject.forecast(&mut peer, place.clone(), role).map(Ended::Forecast),
            };
            let (sent, received) = peer.bytes();
            tally.bytes_sent += sent - sent_before;
            tally.bytes_received += received - received_before;
            match ended {
                Ok(ended) => {
                    if self.peers.len() < PEERS_KEPT {
                        self.peers.insert(address, peer);
                    }
                    return self.count(&whom, info, ended, tally);
                }
                Err(ExchangeError::Peer(PeerError::Gone)) if kept => {}
                Err(ExchangeError::Broker(reason)) if reason.is_damage() && self.dry_run.is_none() => {
                    error!("ERROR reading db {}: {reason}", found.dir.dir().display());
                    quarantine(found.dir, &reason);
                    return Fate::Damaged;
                }
                Err(error) => return self.lost(&whom, address, error),
            }
        }
    }

    fn call(&self, address: &(String, u16)) -> Result<Peer<TcpStream>, PeerError> {
        let config = &self.node.config;
        Peer::call(&address.0, address.1, config.conn_timeout, config.node_timeout, &self.node.stop)
    }

    fn lost(&self, whom: &str, address: (String, u16), error: ExchangeError) -> Fate {
        match &error {
            ExchangeError::Peer(PeerError::Stopped) => {}
            ExchangeError::Peer(PeerError::Unreachable(_) | PeerError::TooSlow(_)) => {
                if !self.absent.is(&address) {
                    warn!(
                        "ERROR syncing with {whom}: it {error}; not asked again for {} s",
                        ABSENCE.as_secs()
                    );
                }
                self.absent.note(address);
            }
            ExchangeError::Peer(_) => error!("ERROR syncing with {whom}: it {error}"),
            _ => error!("ERROR syncing with {whom}: {error}"),
        }
        Fate::Failed
    }

    fn count(&mut self, whom: &str, info: &ReplicaInfo, ended: Ended, tally: &mut Tally) -> Fate {
        let container = || format!("{}/{}", info.account, info.container);
        let Exchanged { outcome, rows_sent } = match ended {
            Ended::Exchanged(exchanged) => exchanged,
            Ended::Forecast(forecast) => {
                if let Some(say) = self.dry_run {
                    say(format!("{} -> {whom}: {}", container(), foretell(&forecast, info)));
                }
                return Fate::Done(match forecast {
                    Forecast::Refused(refusal) => Outcome::Refused(refusal),
                    _ => Outcome::Nothing(Agreement::NoChange),
                });
            }
        };
        tally.rows_sent += rows_sent;
        match &outcome {
            Outcome::Nothing(Agreement::HashMatch) => tally.hashmatch += 1,
            Outcome::Nothing(Agreement::Tied) => {
                warn!(
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
                    "able to shard -- refusing to replicate objects to peer {whom}; container {}",
                    container()
                );
                tally.deferred += 1;
            }
            Outcome::Refused(Refusal::NotMounted) => error!("ERROR Remote drive not mounted {whom}"),
            Outcome::Refused(refusal @ Refusal::NotPrimary) => {
                if self.other_rings.insert(whom.to_owned()) {
                    warn!("{}: {whom} did not take it: {refusal}", container());
                } else {
                    debug!("{}: {whom} did not take it: {refusal}", container());
                }
            }
            Outcome::Refused(refusal) => {
                error!("ERROR syncing {} with {whom}: it refused, {refusal}", container());
            }
        }
        Fate::Done(outcome)
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

/// What one round of exchanges came to.
struct Sent<'r> {
    targets: Vec<&'r Device>,
    /// Targets that hold, durably, all that we have.
    delivered: BTreeSet<DeviceId>,
    calls: usize,
    /// This device holds a replica in a dead one's place.
    stands_in: bool,
}

enum Ended {
    Exchanged(Exchanged),
    Forecast(Forecast),
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

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
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
