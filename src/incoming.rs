//! Accept a peer; drive a [`Receiver`] on a drive of ours.
//!
//! Each connection is served by a thread of its own; there are at most [`CONNECTIONS_LIMIT`]. What a peer asks for is
//! looked at with distrust: the device must be one that our ring puts on this node, the partition must be the one that
//! follows from the container's name, the hash must be that name's hash.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, error, info, warn};
use nix::poll::{PollFd, PollFlags, poll};

use crate::arrival::{Arrival, ArrivalError};
use crate::broker::{Broker, BrokerError};
use crate::budget::Share;
use crate::config::Reserve;
use crate::delta::{
    self, BadPatch, FileDigest, Geometry, PageDigest, PageDigests, PageSet, Signature, WindowDigest,
};
use crate::drive::{Drive, DriveError, HashDir, LiveFile, Patience, Staged, snapshot};
use crate::merge::{self, PolicyClaim};
use crate::node::Node;
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::message::{Basis, Intent, Meet, Message, Refusal, Settled, Shape};
use crate::protocol::receiver::{Action, Receiver};
use crate::protocol::{RANGES_PER_MESSAGE, Violation, WINDOWS_IN_FLIGHT};
use crate::replica::{Direction, ReplicaInfo, Row, RowId, ShardRange, SyncPoint};
use crate::stop::Stop;
use crate::timestamp::Timestamp;

/// Connections served at once. Each costs a thread's stack and a few small buffers until it ships a file.
pub const CONNECTIONS_LIMIT: usize = 512;
/// How long a connection may be idle between two databases.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// Accepts peers until told to stop, or not to accept any more.
///
/// # Errors
/// If the listener itself fails.
pub fn listen(listener: &TcpListener, node: &Arc<Node>, until: &Stop) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let serving = Arc::new(AtomicUsize::new(0));
    while !node.stop.wished() && !until.wished() {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Whether it ends for a caller, the time or a signal, the next look tells.
                let _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], ACCEPT_WAIT);
                continue;
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are open will end.
                warn!("cannot accept a connection: {error}");
                node.stop.sleep(Duration::from_secs(1));
                continue;
            }
        };
        let (node, serving) = (node.clone(), serving.clone());
        let over = serving.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_LIMIT;
        let served = serving.clone();
        let spawned = thread::Builder::new().name("answer".into()).stack_size(STACK_BYTES).spawn(move || {
            if let Err(error) = answer(stream, &node, over) {
                match error {
                    PeerError::Gone | PeerError::Stopped => debug!("peer {address} left"),
                    error => warn!("peer {address} {error}"),
                }
            }
            serving.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = spawned {
            served.fetch_sub(1, Ordering::SeqCst);
            warn!("no thread for peer {address}: {error}");
        }
    }
    Ok(())
}

fn answer(stream: TcpStream, node: &Node, over: bool) -> Result<(), PeerError> {
    stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).map_err(PeerError::Broken)?;
    let mut peer = Peer::greet(stream, node.config.node_timeout, &node.stop)?;
    if over {
        peer.hear()?;
        return peer.say(&Message::Refused(Refusal::TooMany));
    }
    serve(&mut peer, node)
}

/// Answers a peer until it leaves.
///
/// # Errors
/// [`PeerError`] when the connection ends otherwise than between two exchanges.
pub fn serve<S: Stream>(peer: &mut Peer<S>, node: &Node) -> Result<(), PeerError> {
    let mut receiver = Receiver::start();
    let mut visit: Option<Visit> = None;
    loop {
        let message = match visit {
            Some(_) => peer.hear(),
            None => peer.hear_within(IDLE_LIMIT),
        };
        let message = match message {
            Err(PeerError::Gone) if visit.as_ref().is_none_or(Visit::is_quiet) => return Ok(()),
            // Nothing was asked for a long time. Whoever wants more calls again.
            Err(PeerError::TooSlow(_)) if visit.is_none() && !peer.is_mid_message() => return Ok(()),
            // An open exchange in which nothing is under way may as well be a pause between databases.
            Err(PeerError::TooSlow(_))
                if !peer.is_mid_message() && visit.as_ref().is_some_and(Visit::is_quiet) =>
            {
                visit = None;
                continue;
            }
            other => other?,
        };
        let (next, action) = receiver.hear(message)?;
        receiver = next;
        if let Action::Meet(meet) = action {
            drop(visit.take());
            // Who waits for a lock on the database keeps the peer waiting, and must say so.
            let (met, said) = match peer.while_working(|| Visit::begin(node, *meet))? {
                Ok((begun, said)) => {
                    receiver = receiver.met(begun.broker.is_some());
                    (Some(begun), said)
                }
                Err(refusal) => {
                    receiver = receiver.refused();
                    (None, Message::Refused(refusal))
                }
            };
            visit = met;
            peer.say(&said)?;
            if matches!(said, Message::Equal { .. }) {
                (visit, receiver) = (None, Receiver::start());
            }
            continue;
        }
        let Some(begun) = visit.as_mut() else {
            // Left over from before a refusal, or too late: we had taken the silence for the end.
            if action != Action::Wait {
                receiver = receiver.refused();
                peer.say(&Message::Refused(Refusal::Busy))?;
            }
            continue;
        };
        match begun.act(peer, action) {
            Ok(Progress::Under) => {}
            // Nothing can follow but another database: let go of this one.
            Ok(Progress::Over) => (visit, receiver) = (None, Receiver::start()),
            Err(Trouble::Peer(error)) => return Err(error),
            Err(Trouble::Refuse(refusal)) => {
                visit = None;
                receiver = receiver.refused();
                peer.say(&Message::Refused(refusal))?;
            }
        }
    }
}

/// One exchange in progress.
struct Visit<'a> {
    node: &'a Node,
    drive: Drive,
    dir: HashDir,
    meet: Meet,
    broker: Option<Broker>,
    file: Option<Incoming>,
    /// Memory for rows; held while they come.
    share: Option<Share>,
}

/// A file on its way.
struct Incoming {
    geometry: Geometry,
    staged: Staged,
    file_name: String,
    /// Windows received so far, in order (full), or compared so far (delta).
    windows: u32,
    digest: FileDigest,
    /// The basis of a delta, which is also what is staged.
    basis: Option<Differences>,
    _share: Share,
}

/// A delta's windows that differ.
struct Differences {
    basis_bytes: u64,
    waiting: VecDeque<(u32, WindowDigest)>,
    in_flight: Vec<(u32, WindowDigest)>,
}

/// How far an exchange has come.
enum Progress {
    /// More can follow.
    Under,
    /// That was all.
    Over,
}

/// Why an action failed.
enum Trouble {
    Peer(PeerError),
    Refuse(Refusal),
}

impl From<PeerError> for Trouble {
    fn from(error: PeerError) -> Trouble {
        Trouble::Peer(error)
    }
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Trouble {
        Trouble::Peer(violation.into())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refuse(refusal)
    }
}

impl<'a> Visit<'a> {
    /// Looks up what a sender introduces, settles what needs no rows, and has the answer ready.
    fn begin(node: &'a Node, meet: Meet) -> Result<(Visit<'a>, Message), Refusal> {
        let ring = node.ring();
        let place = &meet.place;
        let theirs = &meet.info;
        let ours = ring.devices().any(|device| device.name == place.device.as_str() && node.is_ours(device));
        if !ours {
            return Err(Refusal::UnknownDevice);
        }
        if node.config.salt.hash(&theirs.account, Some(&theirs.container), None) != place.hash {
            return Err(Refusal::Failed(
                "the hash is not that of the container's name; do both nodes have the same hash prefix and suffix \
                 in swift.conf?"
                    .to_owned(),
            ));
        }
        if ring.part_shift().partition(&place.hash) != place.partition {
            return Err(Refusal::WrongPartition);
        }
        let drive = node.drive(&place.device).map_err(refuse_drive)?;
        let dir = drive.hash_dir(place.partition, place.hash);
        let mut visit = Visit { node, drive, dir, meet, broker: None, file: None, share: None };
        let said = visit.introduce()?;
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
            Err(error) if error.is_damage() && !looking => {
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
        let point = broker.sync_point(&theirs.id, Direction::Incoming);
        let mut point = point.map_err(|error| refuse_broker(&self.dir, error))?;
        if !looking {
            let mut settle = || -> Result<(), BrokerError> {
                let now = Timestamp::at(SystemTime::now());
                if let Some(policy) =
                    merge::policy_to_adopt(&PolicyClaim::from(&info), &PolicyClaim::from(theirs))
                {
                    broker.set_policy(policy, now)?;
                    info = broker.info()?;
                }
                broker.merge_metadata(&theirs.metadata)?;
                broker.merge_timestamps(
                    &theirs.created_at,
                    &theirs.put_timestamp,
                    &theirs.delete_timestamp,
                    now,
                )?;
                if info.hash == theirs.hash && point < theirs.max_row {
                    point = theirs.max_row;
                    let raised = SyncPoint { remote_id: theirs.id.clone(), point };
                    broker.merge_sync_points(&[raised], Direction::Incoming)?;
                }
                Ok(())
            };
            settle().map_err(|error| refuse_broker(&self.dir, error))?;
        }
        if self.meet.intent == Intent::Leave {
            self.dir.sync().map_err(|error| Refusal::Failed(error.to_string()))?;
        }
        self.broker = Some(broker);
        Ok(match info.agrees_with(theirs) {
            true => Message::Equal { id: info.id, max_row: info.max_row, point },
            false => Message::Here { info: Box::new(info), point },
        })
    }

    /// Nothing is under way that a peer could leave unfinished.
    fn is_quiet(&self) -> bool {
        self.file.is_none() && self.share.is_none()
    }

    fn act<S: Stream>(&mut self, peer: &mut Peer<S>, action: Action) -> Result<Progress, Trouble> {
        match action {
            Action::Meet(_) | Action::Wait => {}
            Action::ExchangeRanges(ranges) => self.exchange_ranges(peer, ranges)?,
            Action::MergeRows(rows) => self.merge_rows(peer, rows)?,
            Action::FinishRows { through, restart, points } => {
                self.finish_rows(peer, through, restart, &points)?;
                return Ok(Progress::Over);
            }
            Action::Prepare { shape, epoch } => self.prepare(peer, shape, epoch)?,
            Action::Append(window) => self.append(&window)?,
            Action::CompareWindows(digests) => self.compare_windows(peer, &digests)?,
            Action::Sign { window, pages } => self.sign(peer, window, &pages)?,
            Action::Apply { window, pages, patch } => self.apply(peer, window, &pages, &patch)?,
            Action::Install { digest, max_row } => return self.install(peer, digest, max_row),
        }
        Ok(Progress::Under)
    }

    fn exchange_ranges<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        ranges: Vec<ShardRange>,
    ) -> Result<(), Trouble> {
        let merged = self.with_broker(peer, |broker| {
            broker.merge_shard_ranges(ranges)?;
            broker.shard_ranges()
        })?;
        say_ranges(peer, merged)?;
        Ok(())
    }

    fn merge_rows<S: Stream>(&mut self, peer: &mut Peer<S>, rows: Vec<Row>) -> Result<(), Trouble> {
        let Some(through) = rows.last().and_then(|row| row.row_id) else {
            return Err(Violation::Lie("a batch without rows").into());
        };
        self.file = None;
        if self.share.is_none() {
            self.share = Some(self.take_share(ROWS_SHARE_BYTES)?);
            self.check_room(0)?;
        }
        let sender = self.meet.info.id.clone();
        let dir = self.dir.clone();
        let broker = self.broker.as_mut();
        let broker = broker.expect("rows are only heard where there is a database");
        peer.while_working(|| broker.give_way().and_then(|()| broker.merge_rows(rows, Some(&sender))))?
            .map_err(|error| refuse_broker(&dir, error))?;
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
        self.share = None;
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
        let here = match &mut self.broker {
            Some(broker) => Some(broker.info().map_err(|error| refuse_broker(&self.dir, error))?),
            None => None,
        };
        if here.as_ref().is_some_and(|info| info.sharding_initiated) {
            return Err(Refusal::Sharding.into());
        }
        let share = self.take_share(FILE_SHARE_BYTES)?;
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
        self.file = Some(Incoming {
            geometry,
            staged,
            file_name,
            windows: 0,
            digest: FileDigest::new(),
            basis: None,
            _share: share,
        });
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

    fn append(&mut self, packed: &[u8]) -> Result<(), Trouble> {
        let file = self.file.as_mut().ok_or(Violation::Lie("a window of no file"))?;
        let window = file.geometry.window(file.windows).ok_or(Violation::TooMany("windows"))?;
        let bytes = delta::decompress(packed, window.bytes())
            .map_err(|_| Violation::Lie("a window of another size"))?;
        file.staged.file().write_all_at(&bytes, window.offset()).map_err(refuse_io)?;
        file.digest.feed(&bytes);
        file.windows += 1;
        Ok(())
    }

    fn compare_windows<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        digests: &[[u8; 16]],
    ) -> Result<(), Trouble> {
        let file = self.file.as_mut().ok_or(Violation::Lie("windows of no file"))?;
        if file.basis.is_none() {
            let path = self.dir.in_charge().map_err(refuse_io)?.ok_or(Refusal::Busy)?;
            let drive = &self.drive;
            let image = peer.while_working(|| snapshot(&path, drive, &PATIENCE))?.map_err(refuse_drive)?;
            let basis_bytes = image.len();
            file.staged = image.into_staged();
            file.basis = Some(Differences { basis_bytes, waiting: Default::default(), in_flight: vec![] });
        }
        let basis = file.basis.as_mut().expect("set above");
        for digest in digests {
            let number = file.windows;
            let window = file.geometry.window(number).ok_or(Violation::TooMany("windows"))?;
            let range = window.basis_range(basis.basis_bytes);
            let bytes = read_range(file.staged.file(), range).map_err(refuse_io)?;
            if bytes.len() != window.bytes() || WindowDigest::of(&bytes).0 != *digest {
                basis.waiting.push_back((number, WindowDigest(*digest)));
            }
            file.windows += 1;
            peer.still_here()?;
        }
        self.pump(peer)
    }

    /// Keeps a few windows on their way; says `Rebuilt` when the last one is done.
    fn pump<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<(), Trouble> {
        let file = self.file.as_mut().ok_or(Violation::Lie("windows of no file"))?;
        let basis = file.basis.as_mut().ok_or(Violation::Lie("a delta without windows"))?;
        while basis.in_flight.len() < WINDOWS_IN_FLIGHT {
            let Some((number, digest)) = basis.waiting.pop_front() else { break };
            let window = file.geometry.window(number).expect("compared before");
            let range = window.basis_range(basis.basis_bytes);
            let bytes = read_range(file.staged.file(), range).map_err(refuse_io)?;
            basis.in_flight.push((number, digest));
            let digests = PageDigests::of(window, &bytes).to_bytes();
            peer.say(&Message::Pages { window: number, digests })?;
        }
        let compared = file.windows == file.geometry.window_count();
        if compared && basis.waiting.is_empty() && basis.in_flight.is_empty() {
            file.staged.file().set_len(file.geometry.file_bytes()).map_err(refuse_io)?;
            peer.say(&Message::Rebuilt)?;
        }
        Ok(())
    }

    fn sign<S: Stream>(&mut self, peer: &mut Peer<S>, number: u32, pages: &[u8]) -> Result<(), Trouble> {
        let (window, bytes, _) = self.basis_window(number)?;
        let pages =
            PageSet::parse(window, pages).map_err(|_| Violation::Lie("a page set of another size"))?;
        let signature = Signature::of(window, &bytes, &pages).to_bytes().to_vec();
        peer.say(&Message::Signature { window: number, signature })?;
        Ok(())
    }

    fn apply<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        number: u32,
        pages: &[u8],
        patch: &[u8],
    ) -> Result<(), Trouble> {
        let (window, bytes, announced) = self.basis_window(number)?;
        let pages =
            PageSet::parse(window, pages).map_err(|_| Violation::Lie("a page set of another size"))?;
        let rebuilt = match delta::apply_patch(window, &bytes, &pages, patch, announced) {
            Ok(rebuilt) => rebuilt,
            // Two pages, or blocks, had one digest. Without digests to compare, the window comes whole.
            Err(BadPatch::WrongDigest) if pages.len() < window.page_count() => {
                peer.say(&Message::Pages { window: number, digests: vec![] })?;
                return Ok(());
            }
            Err(_) => return Err(Violation::Lie("a patch that does not fit").into()),
        };
        let file = self.file.as_mut().expect("basis_window found it");
        file.staged.file().write_all_at(&rebuilt, window.offset()).map_err(refuse_io)?;
        let basis = file.basis.as_mut().expect("basis_window found it");
        basis.in_flight.retain(|(in_flight, _)| *in_flight != number);
        self.pump(peer)
    }

    /// The basis of a window that is being worked on.
    fn basis_window(&self, number: u32) -> Result<(delta::Window, Vec<u8>, WindowDigest), Trouble> {
        let file = self.file.as_ref().ok_or(Violation::Lie("a window of no file"))?;
        let basis = file.basis.as_ref().ok_or(Violation::Lie("a delta without windows"))?;
        let digest = basis.in_flight.iter().find(|(in_flight, _)| *in_flight == number);
        let (_, digest) = *digest.ok_or(Violation::Lie("a window that is not being worked on"))?;
        let window = file.geometry.window(number).expect("only such are in flight");
        let bytes =
            read_range(file.staged.file(), window.basis_range(basis.basis_bytes)).map_err(refuse_io)?;
        Ok((window, bytes, digest))
    }

    fn install<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        digest: [u8; 32],
        max_row: RowId,
    ) -> Result<Progress, Trouble> {
        let mut file = self.file.take().ok_or(Violation::Lie("the end of no file"))?;
        if file.windows != file.geometry.window_count() {
            return Err(Violation::Lie("the end of an unfinished file").into());
        }
        if file.basis.take().is_some() {
            let rebuilt = peer.while_working(|| digest_of(file.staged.file()))?.map_err(refuse_io)?;
            if rebuilt != digest {
                warn!("{}: a delta came out wrong; asking for the whole file", self.dir.dir().display());
                file.windows = 0;
                file.digest = FileDigest::new();
                file.staged = self.drive.stage("arriving").map_err(refuse_drive)?;
                self.file = Some(file);
                peer.say(&Message::Mismatch)?;
                return Ok(Progress::Under);
            }
        } else if file.digest.finish() != digest {
            return Err(Refusal::Failed("the file arrived damaged".to_owned()).into());
        }
        self.check_arrived(peer, &file.staged)?;
        let had_one = self.broker.take().is_some();
        let arrival = Arrival {
            dir: &self.dir,
            device: self.meet.place.device.as_str(),
            sender: &self.meet.info.id,
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
            ArrivalError::Install(error) => Refusal::Failed(error.to_string()),
            ArrivalError::GivenUp => Refusal::Failed("this agent is stopping".to_owned()),
        })?;
        let mut broker = Broker::open(&self.dir).map_err(|error| refuse_broker(&self.dir, error))?;
        let info = broker.info().map_err(|error| refuse_broker(&self.dir, error))?;
        self.broker = Some(broker);
        info!("took in a whole file of {}/{}, {} rows", info.account, info.container, info.count);
        peer.say(&settled(info))?;
        Ok(Progress::Over)
    }

    /// An arrived file must be a container's database, of this container, and hold together: its digest only says that it
    /// is the sender's, whose disk may have spoilt it.
    fn check_arrived<S: Stream>(&self, peer: &mut Peer<S>, staged: &Staged) -> Result<(), Trouble> {
        let (path, info) = (staged.path(), &self.meet.info);
        let check = || {
            let mut arrived = Broker::open_file(path)?;
            arrived.verify(&info.account, &info.container)?;
            arrived.info()
        };
        peer.while_working(check)?
            .map_err(|error| Refusal::Failed(format!("the file is no sound database: {error}")))?;
        Ok(())
    }

    fn with_broker<S: Stream, T: Send>(
        &mut self,
        peer: &mut Peer<S>,
        work: impl FnOnce(&mut Broker) -> Result<T, BrokerError> + Send,
    ) -> Result<T, Trouble> {
        let broker = self.broker.as_mut().expect("only heard where there is a database");
        peer.while_working(|| work(broker))?.map_err(|error| refuse_broker(&self.dir, error).into())
    }

    fn take_share(&self, bytes: u64) -> Result<Share, Refusal> {
        let deadline = Instant::now() + self.node.config.node_timeout / 2;
        self.node.answering.take(bytes, deadline, &self.node.stop).ok_or(Refusal::Busy)
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

fn read_range(file: &File, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// The digest of a whole file, read in small pieces.
///
/// # Errors
/// Of reading.
pub fn digest_of(file: &File) -> io::Result<[u8; 32]> {
    let (mut digest, mut piece, mut offset) = (FileDigest::new(), vec![0; 256 << 10], 0);
    loop {
        match file.read_at(&mut piece, offset)? {
            0 => return Ok(digest.finish()),
            read => {
                digest.feed(&piece[..read]);
                offset += read as u64;
            }
        }
    }
}

/// Moves a damaged database away, so that the next whole file can take its place. Damage to another file, say one that
/// has just arrived, is no reason to: that is only logged.
pub fn quarantine(dir: &HashDir, reason: &BrokerError) {
    if !matches!(reason, BrokerError::Damaged { path, .. } if path.starts_with(dir.dir())) {
        return error!("{}: {reason}", dir.dir().display());
    }
    match dir.quarantine() {
        Ok(Some(to)) => error!("Quarantined {} to {} due to {reason}", dir.dir().display(), to.display()),
        Ok(None) => {}
        Err(error) => error!("cannot quarantine {}: {error}; move it away by hand", dir.dir().display()),
    }
}

fn refuse_broker(dir: &HashDir, error: BrokerError) -> Refusal {
    match error {
        BrokerError::Busy { .. } => Refusal::Busy,
        error if error.is_damage() => {
            quarantine(dir, &error);
            Refusal::Damaged
        }
        error => Refusal::Failed(error.to_string()),
    }
}

fn refuse_drive(error: DriveError) -> Refusal {
    match error {
        DriveError::NotMounted { .. } | DriveError::NotADirectory { .. } => Refusal::NotMounted,
        DriveError::Full { .. } => Refusal::Full,
        DriveError::Busy { .. } | DriveError::HotJournal { .. } => Refusal::Busy,
        error => Refusal::Failed(error.to_string()),
    }
}

fn refuse_io(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Full,
        _ => Refusal::Failed(error.to_string()),
    }
}

/// How long, in milliseconds, an accept loop waits for a caller before it looks whether it should end.
const ACCEPT_WAIT: u8 = 200;
/// A thread that answers keeps its buffers on the heap.
const STACK_BYTES: usize = 512 << 10;
/// What merging batches of rows takes: a batch packed, unpacked, and SQLite's cache.
const ROWS_SHARE_BYTES: u64 = 5 << 20;
/// What taking in a file takes: a few windows in several forms.
pub const FILE_SHARE_BYTES: u64 = 8 << 20;
/// Pages compared to learn whether a basis is worth reusing.
pub const SAMPLE_PAGES: u32 = 256;
/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
