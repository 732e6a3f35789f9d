//! One exchange, from the answering side: a database of ours meets a peer's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};

use super::MEMORY_PATIENCE;
use super::arriving::{Arriving, Verdict};
use super::trouble::{Trouble, quarantine, refuse_broker, refuse_drive, refuse_io};
use crate::arrival::{Arrival, ArrivalError};
use crate::broker::{Broker, BrokerError};
use crate::budget::Share;
use crate::config::Reserve;
use crate::delta::{self, Geometry, PageDigest, PageIndex};
use crate::drive::{DeviceName, Drive, HashDir, LONG_REST, LiveFile, Side, TURN_PAUSE};
use crate::ledger::{Entry, Key, Ledger, StateDigest};
use crate::look::sum_up;
use crate::merge::{self, PolicyClaim};
use crate::node::Node;
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::message::{Basis, Intent, Meet, Message, Refusal, Role, Settled, Shape};
use crate::protocol::receiver::Action;
use crate::protocol::{RANGES_PER_MESSAGE, Violation};
use crate::replica::{Direction, Metadata, ReplicaInfo, Row, RowId, ShardRange, SyncPoint};
use crate::ring::{Device, Ring};
use crate::stop::SLICE;
use crate::timestamp::Timestamp;

/// One exchange in progress.
pub struct Visit<'a> {
    node: &'a Node,
    drive: Drive,
    dir: HashDir,
    meet: Meet,
    /// If it puts the database here: then the ledger keeps account of it.
    ring: Option<Arc<Ring>>,
    /// There is a database here.
    is_here: bool,
    /// Open while it is worked on, with the memory for that.
    broker: Option<Broker>,
    share: Option<Share>,
    /// More of it, to merge many rows at once.
    spare: Option<Share>,
    /// Rows are coming.
    in_rows: bool,
    /// Many shard ranges are, for which there is all the memory that there is.
    in_ranges: bool,
    file: Option<Arriving>,
}

/// How far an exchange has come.
pub enum Progress {
    /// More can follow.
    Under,
    /// That was all.
    Over,
}

impl<'a> Visit<'a> {
    /// Looks up what a sender introduces, settles what needs no rows, and has the answer ready.
    pub fn begin(node: &'a Node, meet: Meet) -> Result<(Visit<'a>, Message), Refusal> {
        let ring = node.ring();
        let (drive, dir, primary) = judge(node, &ring, &meet)?;
        let ring = primary.then_some(ring);
        let metadata_bytes: usize =
            meet.info.metadata.0.iter().map(|item| item.key.len() + item.value.len()).sum();
        let share = Some(take_share(node, OPEN_BYTES + metadata_bytes as u64 * BYTES_PER_METADATA_BYTE)?);
        let (broker, spare, file) = (None, None, None);
        let mut visit = Visit {
            node,
            drive,
            dir,
            meet,
            ring,
            is_here: false,
            broker,
            share,
            spare,
            in_rows: false,
            in_ranges: false,
            file,
        };
        let said = visit.introduce()?;
        // Settled by now. Much can be kept by those who introduce themselves and then say nothing.
        visit.meet.info.metadata = Metadata::default();
        Ok((visit, said))
    }

    /// Opens our replica, takes over what is newer of theirs, and says what it was before
    /// (`swift/common/db_replicator.py: ReplicatorRpc.sync`).
    fn introduce(&mut self) -> Result<Message, Refusal> {
        let theirs = &self.meet.info;
        let looking = self.meet.intent == Intent::Look;
        let opened = Broker::open(&self.dir).and_then(|mut broker| {
            let info = broker.info()?;
            Ok((broker, info))
        });
        let (mut broker, mut info) = match opened {
            Ok(opened) => opened,
            Err(BrokerError::Missing) => return Ok(Message::Missing),
            // The next pass moves it away; whoever only looks changes nothing.
            Err(error) if error.is_damage() && looking => return Err(Refusal::Damaged),
            Err(error) if error.is_damage() => {
                quarantine(&self.dir, &error);
                return Ok(Message::Missing);
            }
            Err(error) => return Err(refuse_broker(&self.dir, error)),
        };
        if info.account != theirs.account || info.container != theirs.container {
            return Err(Refusal::Failed(format!(
                "its database there is of {}/{}",
                info.account, info.container
            )));
        }
        let mut point = match broker.sync_point(&theirs.id, Direction::Incoming) {
            Ok(point) => point,
            Err(error) if error.is_damage() && looking => return Err(Refusal::Damaged),
            Err(error) => return Err(refuse_broker(&self.dir, error)),
        };
        if !looking {
            let mut settle = || -> Result<(), BrokerError> {
                let now = Timestamp::at(SystemTime::now());
                if let Some(policy) =
                    merge::policy_to_adopt(&PolicyClaim::from(&info), &PolicyClaim::from(theirs))
                {
                    broker.set_policy(policy, now)?;
                    info = broker.info()?;
                }
                // What is no news to what we held a moment ago is none now; nearly always there is none.
                if merge::merge_metadata(&info.metadata, &theirs.metadata).is_some() {
                    broker.merge_metadata(&theirs.metadata)?;
                }
                if (&info.created_at, &info.put_timestamp, &info.delete_timestamp)
                    != (&theirs.created_at, &theirs.put_timestamp, &theirs.delete_timestamp)
                {
                    broker.merge_timestamps(
                        &theirs.created_at,
                        &theirs.put_timestamp,
                        &theirs.delete_timestamp,
                        now,
                    )?;
                }
                if info.hash == theirs.hash && point < theirs.max_row {
                    point = theirs.max_row;
                    let raised = SyncPoint { remote_id: theirs.id.clone(), point };
                    broker.merge_sync_points(&[raised], Direction::Incoming)?;
                }
                Ok(())
            };
            settle().map_err(|error| refuse_broker(&self.dir, error))?;
        }
        if looking {
            self.doubt(&info);
        }
        if self.meet.intent == Intent::Leave {
            self.dir.sync().map_err(|error| Refusal::Failed(error.to_string()))?;
        }
        (self.broker, self.is_here) = (Some(broker), true);
        let agreed = self.confirmed(&info);
        Ok(match info.agrees_with(theirs) {
            true => Message::Equal { id: info.id, max_row: info.max_row, point, agreed },
            false => Message::Here { info: Box::new(info), point, agreed },
        })
    }

    /// Our last row at the moment at which the sender says that the two replicas were equal, if we know of that: we are in
    /// that state still, or our ledger remembers the same of this very database.
    fn confirmed(&self, info: &ReplicaInfo) -> Option<RowId> {
        let (agreed, asker) = self.meet.agreed.zip(self.meet.asker)?;
        if StateDigest::of(info).short() == agreed.state {
            return Some(info.max_row);
        }
        let (ledger, key) = self.ledger()?;
        let entry = ledger.entry(key).ok()??;
        let agreement = entry.agreement(asker).filter(|agreement| agreement.state == agreed.state)?;
        (entry.replica == Entry::replica_of(&info.id)).then_some(agreement.row)
    }

    /// Whoever only asks may do so because it is his database's turn. If our ledger has ours otherwise than it is, the next
    /// walk is to look again, whether or not the file seems to have changed.
    fn doubt(&self, info: &ReplicaInfo) {
        let Some((ledger, key)) = self.ledger() else { return };
        let doubted = ledger.entry(key).and_then(|entry| match entry {
            Some(entry) if entry.seen.is_some() && entry.state != StateDigest::of(info) => {
                ledger.update(&[(key, Some(Entry { seen: None, ..entry }))])
            }
            _ => Ok(()),
        });
        if let Err(error) = doubted {
            debug!("{}: {error}", self.dir.dir().display());
        }
    }

    /// What keeps account of the database, if anything does, and under which key.
    fn ledger(&self) -> Option<(Arc<Ledger>, Key)> {
        let ring = self.ring.as_ref()?;
        let ledger = self.node.ledger(&self.drive, ring)?;
        Some((ledger, Key::new(self.meet.place.hash, ring.part_shift())))
    }

    /// Has the ledger know what the exchange made of our database, so that the next comparison need not be told. Where it
    /// `restarted`, what was agreed with the sender before was not so.
    fn note(&mut self, restarted: bool) {
        let Some((ledger, key)) = self.ledger() else { return };
        let Some(broker) = &mut self.broker else { return };
        let noted = || -> Result<(), Box<dyn std::error::Error>> {
            let mut known = ledger.entry(key)?;
            if let (Some(known), Some(asker)) = (&mut known, self.meet.asker.filter(|_| restarted)) {
                known.forget(asker);
            }
            let (_, entry) = sum_up(&self.node.config, &self.dir, broker, known)?;
            Ok(ledger.update(&[(key, Some(entry))])?)
        };
        // The next walk sees to it.
        if let Err(error) = { noted }() {
            debug!("{}: {error}", self.dir.dir().display());
        }
    }

    /// Nothing is under way that a peer could leave unfinished.
    pub fn is_quiet(&self) -> bool {
        self.file.is_none() && !self.in_rows
    }

    /// There is a database here.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// Lets go of the database and of the memory for it, as long as the peer has nothing to say: others wait for it.
    pub fn rest(&mut self) {
        (self.broker, self.spare) = (None, None);
        if !self.in_ranges {
            self.share = None;
        }
    }

    /// Sees to it that there is memory for a message of so many bytes and what becomes of it. A file has its own.
    pub fn provide_for<S: Stream>(&mut self, peer: &mut Peer<S>, bytes: usize) -> Result<(), PeerError> {
        let needed = OPEN_BYTES + (bytes as u64 * BYTES_PER_MESSAGE_BYTE).min(MESSAGE_BYTES_LIMIT);
        if self.file.is_some()
            || self.in_ranges
            || self.share.as_ref().is_some_and(|share| share.bytes() >= needed)
        {
            return Ok(());
        }
        // Given back first: who holds memory and waits for more may wait for another who does the same.
        self.share = None;
        let node = self.node;
        self.share = node.answering.take_at_once(needed, &node.stop);
        if self.share.is_none() {
            self.rest();
            let take = || node.answering.take(needed, MEMORY_PATIENCE, &node.stop);
            self.share = Some(peer.while_working(take)?.ok_or(PeerError::Stopped)?);
        }
        Ok(())
    }

    /// Sees to it that there is memory for many shard ranges, which are only merged when all are there: one peer at a
    /// time has all of it.
    pub fn provide_for_ranges<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<(), PeerError> {
        if !self.in_ranges {
            self.rest();
            let node = self.node;
            let take = || node.answering.take(u64::MAX, MEMORY_PATIENCE, &node.stop);
            self.share = Some(peer.while_working(take)?.ok_or(PeerError::Stopped)?);
            self.in_ranges = true;
        }
        Ok(())
    }

    /// Opens the database again if it was let go.
    fn wake<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<&mut Broker, Trouble> {
        if self.broker.is_none() {
            let (node, dir, share) = (self.node, &self.dir, self.share.take());
            let (share, broker) = peer.while_working(|| {
                let share = share.map_or_else(|| take_share(node, OPEN_BYTES), Ok)?;
                let broker = Broker::open(dir).map_err(|error| refuse_broker(dir, error))?;
                Ok::<_, Refusal>((share, broker))
            })??;
            (self.share, self.broker) = (Some(share), Some(broker));
        }
        Ok(self.broker.as_mut().expect("opened above"))
    }

    /// Does what the receiver's half of the conversation asks for.
    pub fn act<S: Stream>(&mut self, peer: &mut Peer<S>, action: Action) -> Result<Progress, Trouble> {
        match action {
            Action::Meet(_) | Action::Compare(_) | Action::Open { .. } | Action::TellTime | Action::Wait => {}
            Action::ExchangeRanges(ranges) => self.exchange_ranges(peer, ranges)?,
            Action::MergeRows(rows) => self.gently(peer, |visit, peer| visit.merge_rows(peer, rows))?,
            Action::FinishRows { through, restart, points } => {
                self.gently(peer, |visit, peer| visit.finish_rows(peer, through, restart, &points))?;
                return Ok(Progress::Over);
            }
            Action::Prepare { shape, epoch } => self.prepare(peer, shape, epoch)?,
            Action::Append(window) => {
                let file = self.file.as_mut().ok_or(NO_FILE)?;
                file.append(peer, &self.drive, window)?;
                // Windows of zeros travel faster than they are hashed: the sender may be waiting for the end already.
                peer.still_here()?;
            }
            Action::Amend { window, file_bytes, bytes } => {
                let (before, after) = self.file()?.resized(file_bytes)?;
                self.check_room(after.file_bytes().saturating_sub(before.file_bytes()))?;
                let file = self.file()?;
                peer.while_working(|| file.amend(window, after, bytes))??;
            }
            Action::CompareWindows(digests) => {
                let file = self.file.as_mut().ok_or(NO_FILE)?;
                file.compare_windows(peer, &self.drive, &self.dir, &digests)?;
            }
            Action::FindPages { window, digests } => self.file()?.find_pages(peer, window, &digests)?,
            Action::Apply { window, patch } => self.file()?.apply(peer, window, &patch)?,
            Action::Install { digest, max_row } => {
                return self.gently(peer, |visit, peer| visit.install(peer, digest, max_row));
            }
        }
        Ok(Progress::Under)
    }

    /// Works on the drive with regard to how hard it is pressed: not beside others, and with a rest afterwards. The peer has
    /// its answer by then, and whoever waits for the database finds it free.
    fn gently<S: Stream, T>(
        &mut self,
        peer: &mut Peer<S>,
        work: impl FnOnce(&mut Self, &mut Peer<S>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let Some(pressure) = self.drive.pressure().cloned() else { return work(self, peer) };
        let stop = self.node.stop.clone();
        let pause = |peer: &mut Peer<S>, time: Duration| -> Result<(), PeerError> {
            let heard = peer.still_here();
            if stop.sleep(time) { Err(PeerError::Stopped) } else { heard }
        };
        let _turn = pressure.turn(Side::Answering, || pause(peer, TURN_PAUSE))?;
        let begun = Instant::now();
        let done = work(self, peer)?;
        let rested = Instant::now() + pressure.rest_after(begun.elapsed(), LONG_REST);
        loop {
            let left = rested.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.rest();
            // It has its answer and may be gone, or another question by now.
            if matches!(pause(peer, left.min(SLICE)), Err(PeerError::Stopped)) {
                break;
            }
        }
        Ok(done)
    }

    fn file(&mut self) -> Result<&mut Arriving, Violation> {
        self.file.as_mut().ok_or(NO_FILE)
    }

    fn exchange_ranges<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        ranges: Vec<ShardRange>,
    ) -> Result<(), Trouble> {
        let held = self.with_broker(peer, Broker::shard_range_count)?;
        if held > RANGES_PER_MESSAGE as u64 {
            self.provide_for_ranges(peer)?;
        }
        let merged = self.with_broker(peer, |broker| {
            broker.merge_shard_ranges(ranges)?;
            broker.shard_ranges()
        })?;
        say_ranges(peer, merged)?;
        self.in_ranges = false;
        if let Some(share) = &mut self.share {
            share.shrink(OPEN_BYTES);
        }
        Ok(())
    }

    fn merge_rows<S: Stream>(&mut self, peer: &mut Peer<S>, rows: Vec<Row>) -> Result<(), Trouble> {
        let Some(through) = rows.last().and_then(|row| row.row_id) else {
            return Err(Violation::Lie("a batch without rows").into());
        };
        if let Some(file) = self.file.take() {
            self.share = Some(file.into_share());
        }
        if !std::mem::replace(&mut self.in_rows, true) {
            self.check_room(0)?;
        }
        let sender = self.meet.info.id.clone();
        let dir = self.dir.clone();
        let spare = match self.spare.is_none() && rows.len() >= MANY_ROWS {
            true => self.node.caches.take_spare(SPARE_BYTES),
            false => None,
        };
        let broker = self.wake(peer)?;
        if spare.is_some() {
            broker.widen_cache(SPARE_BYTES).map_err(|error| refuse_broker(&dir, error))?;
        }
        peer.while_working(|| broker.give_way().and_then(|()| broker.merge_rows(rows, Some(&sender))))?
            .map_err(|error| refuse_broker(&dir, error))?;
        self.spare = self.spare.take().or(spare);
        peer.say(&Message::Took { through })?;
        Ok(())
    }

    fn finish_rows<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        through: RowId,
        restart: bool,
        points: &[SyncPoint],
    ) -> Result<(), Trouble> {
        let sender = self.meet.info.id.clone();
        let info = self.with_broker(peer, |broker| {
            broker.widen_cache(0)?;
            if restart {
                broker.set_sync_point(&sender, through, Direction::Incoming)?;
                // The sender saw that points are wrong; what it is thought to hold of us may be wrong as well.
                broker.set_sync_point(&sender, RowId::NONE, Direction::Outgoing)?;
            } else if through > RowId::NONE {
                let point = SyncPoint { remote_id: sender, point: through };
                broker.merge_sync_points(&[point], Direction::Incoming)?;
            }
            let info = broker.info()?;
            // What the sender had of *us* is no news to us.
            let others: Vec<SyncPoint> =
                points.iter().filter(|point| point.remote_id != info.id).cloned().collect();
            broker.merge_sync_points(&others, Direction::Incoming)?;
            Ok(info)
        })?;
        self.dir.sync().map_err(|error| Refusal::Failed(error.to_string()))?;
        (self.spare, self.in_rows) = (None, false);
        self.note(restart);
        peer.say(&settled(info))?;
        Ok(())
    }

    fn prepare<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        shape: Shape,
        epoch: Option<Timestamp>,
    ) -> Result<(), Trouble> {
        let geometry = Geometry::new(shape.file_bytes, shape.page_bytes, shape.window_bytes)
            .map_err(|_| Violation::Lie("a file of impossible shape"))?;
        let here = match self.is_here {
            true => Some(self.with_broker(peer, Broker::info)?),
            false => None,
        };
        if here.as_ref().is_some_and(|info| info.sharding_initiated) {
            return Err(Refusal::Sharding.into());
        }
        self.rest();
        let (node, least) = (self.node, OPEN_BYTES + geometry.memory_bytes());
        let most = least + PageIndex::BYTES;
        let take = || node.answering.take_between(least, most, MEMORY_PATIENCE, &node.stop);
        let share = peer.while_working(take)?.ok_or(Refusal::Busy)?;
        // The file itself, and as much again for rows of ours and the journal of their merge.
        self.check_room(shape.file_bytes + shape.file_bytes / 4)?;
        let staged = self.drive.stage("arriving").map_err(refuse_drive)?;
        let hash = self.meet.place.hash;
        let file_name = match epoch {
            None => format!("{hash}.db"),
            Some(epoch) => format!("{hash}_{}.db", epoch.normal()),
        };
        let basis = match here {
            Some(_) => self.sample(geometry)?,
            None => None,
        };
        let index_bytes = share.bytes().saturating_sub(least);
        self.file = Some(Arriving::new(geometry, staged, file_name, index_bytes, share));
        peer.say(&Message::Accept(basis))?;
        Ok(())
    }

    /// Digests of a few pages of our own file. Read without a lock: a torn page only makes the estimate worse.
    fn sample(&self, geometry: Geometry) -> Result<Option<Basis>, Trouble> {
        let Some(path) = self.dir.in_charge().map_err(refuse_io)? else { return Ok(None) };
        let live = LiveFile::open_read(&path).map_err(refuse_io)?;
        let Some(header) = live.header().map_err(refuse_io)? else { return Ok(None) };
        if header.page_bytes != geometry.page_bytes() {
            return Ok(None);
        }
        let file_bytes = live.metadata().map_err(refuse_io)?.len();
        let pages = file_bytes.min(geometry.file_bytes()) / u64::from(header.page_bytes);
        let mut page = vec![0; header.page_bytes as usize];
        let mut sample = Vec::new();
        for number in delta::sample(pages, SAMPLE_PAGES) {
            let read = live.pread(number * u64::from(header.page_bytes), &mut page).map_err(refuse_io)?;
            sample.extend_from_slice(&PageDigest::of(&page[..read]).0);
        }
        Ok(Some(Basis { file_bytes, page_bytes: header.page_bytes, sample }))
    }

    fn install<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        digest: [u8; 32],
        max_row: RowId,
    ) -> Result<Progress, Trouble> {
        let mut file = self.file.take().ok_or(NO_FILE)?;
        match file.verdict(peer, digest)? {
            Verdict::Sound => {}
            Verdict::Damaged => return Err(Refusal::Failed("the file arrived damaged".to_owned()).into()),
            Verdict::DeltaWrong => {
                warn!(database:% = self.dir.dir().display(); "{}: a delta came out wrong; asking for the whole file", self.dir.dir().display());
                file.start_over(self.drive.stage("arriving").map_err(refuse_drive)?);
                self.file = Some(file);
                peer.say(&Message::Mismatch)?;
                return Ok(Progress::Under);
            }
        }
        let had_one = std::mem::replace(&mut self.is_here, true);
        let arrival = Arrival {
            dir: &self.dir,
            device: self.meet.place.device.as_str(),
            sender: &self.meet.info,
            max_row,
        };
        let stop = &self.node.stop;
        let (staged, name) = (file.staged, file.file_name);
        let installed = peer.while_working(|| {
            let mut tick = || !stop.wished();
            if had_one {
                arrival.merge(staged, &mut tick)
            } else {
                arrival.take_place(staged, &name, &mut tick)
            }
        })?;
        installed.map_err(|error| match error {
            ArrivalError::Broker(error) => refuse_broker(&self.dir, error),
            ArrivalError::Drive(error) => refuse_drive(error),
            error @ (ArrivalError::Unsound(_) | ArrivalError::Install(_)) => {
                Refusal::Failed(error.to_string())
            }
            ArrivalError::GivenUp => Refusal::Failed("this agent is stopping".to_owned()),
        })?;
        let mut broker = Broker::open(&self.dir).map_err(|error| refuse_broker(&self.dir, error))?;
        let info = broker.info().map_err(|error| refuse_broker(&self.dir, error))?;
        self.broker = Some(broker);
        self.note(true);
        info!("took in a whole file of {}/{}, {} rows", info.account, info.container, info.count);
        peer.say(&settled(info))?;
        Ok(Progress::Over)
    }

    fn with_broker<S: Stream, T: Send>(
        &mut self,
        peer: &mut Peer<S>,
        work: impl FnOnce(&mut Broker) -> Result<T, BrokerError> + Send,
    ) -> Result<T, Trouble> {
        let dir = self.dir.clone();
        let broker = self.wake(peer)?;
        peer.while_working(|| work(broker))?.map_err(|error| refuse_broker(&dir, error).into())
    }

    fn check_room(&self, wanted_bytes: u64) -> Result<(), Refusal> {
        let (bytes, percent) = match self.node.config.fallocate_reserve {
            Reserve::Bytes(bytes) => (bytes, 0.0),
            Reserve::Percent(percent) => (0, percent),
        };
        match self.drive.has_room(bytes, percent, wanted_bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Full),
            Err(error) => Err(refuse_io(error)),
        }
    }
}

/// Waits for memory; the peer must be told meanwhile.
fn take_share(node: &Node, bytes: u64) -> Result<Share, Refusal> {
    node.answering.take(bytes, MEMORY_PATIENCE, &node.stop).ok_or(Refusal::Busy)
}

/// The device of this name, if the ring puts it on this node.
pub fn device_of<'a>(node: &Node, ring: &'a Ring, name: &DeviceName) -> Result<&'a Device, Refusal> {
    let named = |device: &&Device| device.name == name.as_str() && node.is_ours(device);
    ring.devices().find(named).ok_or(Refusal::UnknownDevice)
}

/// Where a database that a sender introduces lies, if it may, and whether the ring has it there.
fn judge(node: &Node, ring: &Ring, meet: &Meet) -> Result<(Drive, HashDir, bool), Refusal> {
    let (place, theirs) = (&meet.place, &meet.info);
    let device = device_of(node, ring, &place.device)?;
    if node.config.salt.hash(&theirs.account, Some(&theirs.container), None) != place.hash {
        return Err(Refusal::Failed(
            "the hash is not that of the container's name; do both nodes have the same hash prefix and suffix in \
             swift.conf?"
                .to_owned(),
        ));
    }
    if ring.part_shift().partition(&place.hash) != place.partition {
        return Err(Refusal::WrongPartition);
    }
    let drive = node.drive(&place.device).map_err(refuse_drive)?;
    let dir = drive.hash_dir(place.partition, place.hash);
    let primary = ring.primaries(place.partition).iter().any(|primary| primary.id == device.id);
    if meet.role == Role::Primary && !primary {
        // A copy that is here still takes in what others have; whoever brings a new one, or wants to be rid of his own
        // because of this one, goes by another ring.
        let here = dir.in_charge().map_err(refuse_io)?.is_some();
        if !here || meet.intent == Intent::Leave {
            return Err(Refusal::NotPrimary);
        }
    }
    Ok((drive, dir, primary))
}

/// Says all ranges, in as many messages as it takes.
///
/// # Errors
/// As [`Peer::say`].
pub fn say_ranges<S: Stream>(peer: &mut Peer<S>, ranges: Vec<ShardRange>) -> Result<(), PeerError> {
    let mut left = ranges.as_slice();
    loop {
        let (now, later) = left.split_at(left.len().min(RANGES_PER_MESSAGE));
        peer.say(&Message::Ranges { ranges: now.to_vec(), more: !later.is_empty() })?;
        if later.is_empty() {
            return Ok(());
        }
        left = later;
    }
}

fn settled(info: ReplicaInfo) -> Message {
    Message::Settled(Settled { id: info.id, hash: info.hash, max_row: info.max_row })
}

/// A message about a file that was not offered.
const NO_FILE: Violation = Violation::Lie("a window of no file");
/// An open database: SQLite's connection, what it read of the schema, and prepared statements.
const OPEN_BYTES: u64 = 256 << 10;
/// What metadata takes for each of its bytes, to be merged and written.
const BYTES_PER_METADATA_BYTE: u64 = 4;
/// What a message takes for each of its bytes: rows shrink to a tenth when they are packed, and are merged with as many.
const BYTES_PER_MESSAGE_BYTE: u64 = 20;
/// What it takes at most: rows are limited before they are packed.
const MESSAGE_BYTES_LIMIT: u64 = 6 << 20;
/// Rows that change so many pages of a large database that more of them should stay in memory, and how much more: all
/// that a thousand rows change, which are two pages each.
const MANY_ROWS: usize = 500;
/// See [`MANY_ROWS`].
const SPARE_BYTES: u64 = 9 << 20;
/// Pages compared to learn whether a basis is worth reusing.
pub const SAMPLE_PAGES: u32 = 256;
