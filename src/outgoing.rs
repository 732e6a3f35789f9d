//! Call a peer; drive a [`Sender`] with a database of ours.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use crate::broker::{Broker, BrokerError, fresh_id};
use crate::budget::Share;
use crate::delta::{self, FileDigest, Geometry, PageDigest, PageDigests, PageSet, Signature, WindowDigest};
use crate::drive::{Drive, DriveError, HashDir, Patience, Snapshot, snapshot};
use crate::incoming::{SAMPLE_PAGES, say_ranges};
use crate::merge::{self, PolicyClaim};
use crate::node::Node;
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::message::{Basis, Intent, Meet, Message, Place, Refusal, Role, Shape};
use crate::protocol::rows::{ROWS_BYTES_LIMIT, ROWS_LIMIT, packed_bytes};
use crate::protocol::sender::{Action, Known, Limits, Outcome, Sender};
use crate::protocol::{DIGESTS_PER_MESSAGE, Violation};
use crate::replica::{DbState, Direction, Metadata, PolicyIndex, ReplicaInfo, RowHash, RowId, SyncPoint};
use crate::strategy::Choice;
use crate::timestamp::{Stamp, Timestamp};

/// Why an exchange failed. The database is as good as before; the peer keeps what it took.
#[derive(Debug)]
pub enum ExchangeError {
    /// The peer or the way to it.
    Peer(PeerError),
    /// Our database.
    Broker(BrokerError),
    /// Our drive.
    Drive(DriveError),
    /// No memory of the budget came free in time.
    NoMemory,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Peer(error) => error.fmt(f),
            ExchangeError::Broker(error) => write!(f, "our own database: {error}"),
            ExchangeError::Drive(error) => write!(f, "our own drive: {error}"),
            ExchangeError::NoMemory => {
                f.write_str("no memory came free in time; raise agent_memory_budget or lower concurrency")
            }
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<PeerError> for ExchangeError {
    fn from(error: PeerError) -> ExchangeError {
        ExchangeError::Peer(error)
    }
}

impl From<Violation> for ExchangeError {
    fn from(violation: Violation) -> ExchangeError {
        ExchangeError::Peer(violation.into())
    }
}

impl From<BrokerError> for ExchangeError {
    fn from(error: BrokerError) -> ExchangeError {
        ExchangeError::Broker(error)
    }
}

impl From<DriveError> for ExchangeError {
    fn from(error: DriveError) -> ExchangeError {
        ExchangeError::Drive(error)
    }
}

/// One of our databases, open and summed up.
pub struct Subject<'a> {
    /// The node it is on.
    pub node: &'a Node,
    /// The drive it is on.
    pub drive: &'a Drive,
    /// Its directory.
    pub dir: &'a HashDir,
    /// The database.
    pub broker: &'a mut Broker,
    /// What it says of itself. Taken once, before the first peer.
    pub info: &'a ReplicaInfo,
    /// The peer was delivered all of it before, in this very pass ([`Sender::proven`]).
    pub proven: bool,
}

/// What an exchange came to.
#[derive(Debug)]
pub struct Exchanged {
    /// How it ended.
    pub outcome: Outcome,
    /// Rows sent.
    pub rows_sent: u64,
}

/// What a peer would be sent.
#[derive(Debug)]
pub enum Forecast {
    /// It has a replica.
    Choice {
        /// This would be done about the rows, for this reason, at this cost.
        choice: Choice,
        /// Timestamps, metadata or policy would be settled too.
        settles: bool,
    },
    /// It has none; the file would go there whole.
    Missing,
    /// It would not have it.
    Refused(Refusal),
}

/// What a peer has at a place.
#[derive(Debug)]
pub enum Seen {
    /// A replica.
    Here {
        /// What it says of itself.
        info: Box<ReplicaInfo>,
        /// How far it has got with the replica of whoever asked.
        point: RowId,
    },
    /// None.
    Missing,
    /// It would not say, or cannot.
    Refused(Refusal),
}

impl Subject<'_> {
    /// Makes a peer's replica agree with ours.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is then of no use any more.
    pub fn exchange<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        place: Place,
        intent: Intent,
        role: Role,
    ) -> Result<Exchanged, ExchangeError> {
        let limits = Limits { max_batches: self.node.config.max_diffs as u64 };
        let meet = Meet { place, info: self.info.clone(), intent, role };
        let (mut sender, mut actions) = Sender::start(meet, self.known()?, limits);
        if self.proven {
            sender = sender.proven();
        }
        let mut shipping = None;
        let mut rows_share = None;
        let mut rows_sent = 0;
        loop {
            (sender, actions) = 'step: {
                for action in actions {
                    match action {
                        Action::Say(message) => peer.say(&message)?,
                        Action::Adopt(theirs) => self.adopt(&theirs)?,
                        Action::TellRanges => say_ranges(peer, self.broker.shard_ranges()?)?,
                        Action::MergeRanges(ranges) => {
                            self.broker.merge_shard_ranges(ranges)?;
                            break 'step sender.ranges_merged(self.broker.info()?.sharding_initiated);
                        }
                        Action::SendRows { after, in_bulk } => {
                            let share = match &rows_share {
                                Some(share) => share,
                                None => rows_share.insert(self.share_for_rows(peer)?),
                            };
                            let (last, count) = self.send_rows(peer, after, in_bulk, share.bytes())?;
                            rows_sent += count;
                            break 'step sender.sent_rows(last, count > 0);
                        }
                        Action::Offer => {
                            let open = self.open_file(peer)?;
                            let epoch = self.epoch();
                            peer.say(&Message::Offer { shape: open.shape, epoch })?;
                            shipping = Some(open);
                        }
                        Action::Weigh(basis) => {
                            let share_equal = file(&mut shipping).weigh(&basis)?;
                            break 'step sender.weighed(share_equal);
                        }
                        Action::SendFile => {
                            if let Some(heard) = file(&mut shipping).send(peer)? {
                                break 'step sender.hear(heard)?;
                            }
                        }
                        Action::SendWindows => file(&mut shipping).send_windows(peer)?,
                        Action::Compare { window, digests } => {
                            file(&mut shipping).compare(peer, window, &digests)?;
                        }
                        Action::MakePatch { window, signature } => {
                            file(&mut shipping).patch(peer, window, signature)?;
                        }
                        Action::TellFileDone => file(&mut shipping).say_done(peer)?,
                        Action::Remember { id, point, restart } => {
                            let point =
                                point.or(shipping.as_ref().map(|file| file.max_row)).unwrap_or(RowId::NONE);
                            if restart {
                                self.broker.set_sync_point(&id, point, Direction::Outgoing)?;
                            } else {
                                let point = SyncPoint { remote_id: id, point };
                                self.broker.merge_sync_points(&[point], Direction::Outgoing)?;
                            }
                        }
                        Action::Distrust(id) => {
                            self.broker.set_sync_point(&id, RowId::NONE, Direction::Incoming)?;
                        }
                        Action::Finish(outcome) => return Ok(Exchanged { outcome, rows_sent }),
                    }
                }
                sender.hear(peer.hear()?)?
            };
        }
    }

    /// Asks a peer for its replica, changing nothing, and says what would be done.
    ///
    /// # Errors
    /// As [`Subject::exchange`].
    pub fn forecast<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        place: Place,
        role: Role,
    ) -> Result<Forecast, ExchangeError> {
        let limits = Limits { max_batches: self.node.config.max_diffs as u64 };
        let meet = Meet { place: place.clone(), info: self.info.clone(), intent: Intent::Look, role };
        let (sender, _) = Sender::start(meet, self.known()?, limits);
        Ok(match look(peer, place, self.info, role)? {
            Seen::Missing => Forecast::Missing,
            Seen::Refused(refusal) => Forecast::Refused(refusal),
            Seen::Here { info, point } => Forecast::Choice {
                choice: sender.choice(&info, point),
                settles: !self.info.settled_with(&info),
            },
        })
    }

    fn known(&mut self) -> Result<Known, BrokerError> {
        Ok(Known {
            outgoing: self.broker.sync_points(Direction::Outgoing)?,
            incoming: self.broker.sync_points(Direction::Incoming)?,
        })
    }

    /// Takes over what is newer of a peer's policy, timestamps and metadata
    /// (`swift/container/replicator.py: _handle_sync_response`).
    fn adopt(&mut self, theirs: &ReplicaInfo) -> Result<(), BrokerError> {
        let now = Timestamp::at(SystemTime::now());
        if let Some(policy) =
            merge::policy_to_adopt(&PolicyClaim::from(self.info), &PolicyClaim::from(theirs))
        {
            self.broker.set_policy(policy, now)?;
        }
        let (mine, their) = (self.info, theirs);
        if (&mine.created_at, &mine.put_timestamp, &mine.delete_timestamp)
            != (&their.created_at, &their.put_timestamp, &their.delete_timestamp)
        {
            let broker = &mut self.broker;
            broker.merge_timestamps(&their.created_at, &their.put_timestamp, &their.delete_timestamp, now)?;
        }
        self.broker.merge_metadata(&theirs.metadata)?;
        Ok(())
    }

    fn share_for_rows<S: Stream>(&self, peer: &mut Peer<S>) -> Result<Share, ExchangeError> {
        let node = self.node;
        let most = ROWS_BYTES_LIMIT as u64 * BYTES_PER_ROWS_BYTE;
        let take = || node.calling.take_between(most / 4, most, MEMORY_PATIENCE, &node.stop);
        peer.while_working(take)?.ok_or(ExchangeError::NoMemory)
    }

    /// Sends the next batch; returns its last row and how many there were.
    fn send_rows<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        after: RowId,
        in_bulk: bool,
        memory_bytes: u64,
    ) -> Result<(RowId, u64), ExchangeError> {
        let limit = if in_bulk { ROWS_IN_BULK } else { self.node.config.per_diff.min(ROWS_LIMIT) };
        let limit_bytes = ROWS_BYTES_LIMIT.min((memory_bytes / BYTES_PER_ROWS_BYTE) as usize);
        let mut rows = self.broker.rows_within(after, limit, limit_bytes)?;
        let mut bytes = 0;
        let fitting = rows.iter().take_while(|row| {
            bytes += packed_bytes(row);
            bytes <= limit_bytes
        });
        let fitting = fitting.count();
        rows.truncate(fitting.max(1));
        let Some(last) = rows.last().and_then(|row| row.row_id) else { return Ok((after, 0)) };
        let count = rows.len() as u64;
        peer.say(&Message::Rows { rows })?;
        Ok((last, count))
    }

    /// Freezes our file for shipping.
    fn open_file<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<Shipping, ExchangeError> {
        let (node, drive, dir) = (self.node, self.drive, self.dir);
        let [least, most] = [*delta::WINDOW_BYTES.start(), delta::DEFAULT_WINDOW_BYTES]
            .map(|window| delta::window_memory_bytes(window) as u64);
        let share = peer
            .while_working(|| node.calling.take_between(least, most, MEMORY_PATIENCE, &node.stop))?
            .ok_or(ExchangeError::NoMemory)?;
        let path =
            dir.in_charge().map_err(|error| DriveError::io(dir.dir(), error))?.ok_or(BrokerError::Missing)?;
        let broker = &mut self.broker;
        let snapshot = peer.while_working(|| -> Result<Snapshot, ExchangeError> {
            for _ in 0..HOT_JOURNAL_TRIES {
                match snapshot(&path, drive, &PATIENCE) {
                    // Reading through SQLite rolls the journal back.
                    Err(DriveError::HotJournal { .. }) => drop(broker.max_row()?),
                    other => return Ok(other?),
                }
            }
            Ok(snapshot(&path, drive, &PATIENCE)?)
        })??;
        let max_row = Broker::open_file(snapshot.path())?.max_row()?;
        let shape = Shape {
            file_bytes: snapshot.len(),
            page_bytes: snapshot.page_bytes(),
            window_bytes: delta::window_bytes_within(share.bytes(), snapshot.len()),
        };
        let geometry = Geometry::new(shape.file_bytes, shape.page_bytes, shape.window_bytes)
            .map_err(|_| DriveError::NotADatabase { path })?;
        Ok(Shipping {
            snapshot,
            shape,
            geometry,
            max_row,
            digest: None,
            compared: 0,
            wanted: HashMap::new(),
            _share: share,
        })
    }

    /// The sharding epoch in the name of our file.
    fn epoch(&self) -> Option<Timestamp> {
        let path = self.dir.in_charge().ok()??;
        let name = path.file_stem()?.to_str()?;
        name.split('_').nth(1)?.parse().ok()
    }
}

/// Asks a peer for its replica, changing nothing there but that waiting rows are taken in. Whoever asks introduces
/// himself with his own, or as an [`onlooker`].
///
/// # Errors
/// [`PeerError`]; the connection is then of no use any more.
pub fn look<S: Stream>(
    peer: &mut Peer<S>,
    place: Place,
    mine: &ReplicaInfo,
    role: Role,
) -> Result<Seen, PeerError> {
    let meet = Meet { place, info: mine.clone(), intent: Intent::Look, role };
    peer.say(&Message::Meet(Box::new(meet)))?;
    loop {
        return Ok(match peer.hear()? {
            Message::Working => continue,
            Message::Missing => Seen::Missing,
            Message::Refused(refusal) => Seen::Refused(refusal),
            Message::Here { info, point } => Seen::Here { info, point },
            Message::Equal { id, max_row, point } => {
                let info = Box::new(ReplicaInfo { id, max_row, ..mine.clone() });
                Seen::Here { info, point }
            }
            message => {
                return Err(Violation::OutOfTurn { expected: "its replica", heard: message.name() }.into());
            }
        });
    }
}

/// Somebody who has no replica of a container and wants to know who has: equal to none, for none was created at 0.
pub fn onlooker(account: &str, container: &str) -> ReplicaInfo {
    ReplicaInfo {
        id: fresh_id("onlooker"),
        account: account.to_owned(),
        container: container.to_owned(),
        created_at: Stamp::unset(),
        put_timestamp: Stamp::unset(),
        delete_timestamp: Stamp::unset(),
        status_changed_at: Stamp::unset(),
        storage_policy_index: PolicyIndex(0),
        count: 0,
        bytes_used: 0,
        hash: RowHash::default(),
        max_row: RowId::NONE,
        shard_max_row: RowId::NONE,
        metadata: Metadata::default(),
        db_state: DbState::Unsharded,
        sharding_initiated: false,
        sharding_required: false,
        ranges_digest: [0; 16],
        file_bytes: 0,
        page_bytes: 4096,
    }
}

fn file(shipping: &mut Option<Shipping>) -> &mut Shipping {
    shipping.as_mut().expect("a file is shipped only after it was offered")
}

/// A file of ours on its way.
struct Shipping {
    snapshot: Snapshot,
    shape: Shape,
    geometry: Geometry,
    max_row: RowId,
    digest: Option<[u8; 32]>,
    /// How often the peer named a window that differs.
    compared: u64,
    /// Pages that were asked for and wait for their signature.
    wanted: HashMap<u32, PageSet>,
    _share: Share,
}

impl Shipping {
    fn read(&self, window: delta::Window) -> Result<Vec<u8>, ExchangeError> {
        let mut bytes = vec![0; window.bytes()];
        self.snapshot.read_exact(window.offset(), &mut bytes).map_err(|error| self.io(error))?;
        Ok(bytes)
    }

    fn io(&self, error: io::Error) -> ExchangeError {
        ExchangeError::Drive(DriveError::io(self.snapshot.path(), error))
    }

    /// Compares a sample of the peer's pages with ours; the part that is equal, if they can be compared.
    fn weigh(&self, basis: &Basis) -> Result<Option<f64>, ExchangeError> {
        if basis.page_bytes != self.shape.page_bytes {
            return Ok(None);
        }
        let page_bytes = u64::from(self.shape.page_bytes);
        let pages = basis.file_bytes.min(self.shape.file_bytes) / page_bytes;
        let mut page = vec![0; self.shape.page_bytes as usize];
        let mut ours = Vec::new();
        for number in delta::sample(pages, SAMPLE_PAGES) {
            self.snapshot.read_exact(number * page_bytes, &mut page).map_err(|error| self.io(error))?;
            ours.push(PageDigest::of(&page));
        }
        let theirs: Vec<PageDigest> =
            basis.sample.chunks_exact(PageDigest::BYTES).map(PageDigest::read).collect();
        if theirs.len() != ours.len() {
            return Err(Violation::Lie("a sample of another size").into());
        }
        Ok(Some(delta::share_equal(&ours, &theirs)))
    }

    /// Sends every window; stops early if the peer refuses.
    fn send<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<Option<Message>, ExchangeError> {
        let mut digest = FileDigest::new();
        for window in self.geometry.windows() {
            let bytes = self.read(window)?;
            digest.feed(&bytes);
            peer.say(&Message::Literal(delta::compress_literals(&bytes)))?;
            match peer.heard_already()? {
                None | Some(Message::Working) => {}
                refused @ Some(Message::Refused(_)) => return Ok(refused),
                // Whatever else it says, it cannot be about a file that it does not have yet.
                Some(early) => {
                    return Err(Violation::OutOfTurn { expected: "nothing", heard: early.name() }.into());
                }
            }
        }
        self.digest = Some(digest.finish());
        self.say_done(peer)?;
        Ok(None)
    }

    fn say_done<S: Stream>(&self, peer: &mut Peer<S>) -> Result<(), ExchangeError> {
        let digest = self.digest.expect("the digest is known when all windows are sent or compared");
        peer.say(&Message::FileDone { digest, max_row: self.max_row })?;
        Ok(())
    }

    fn send_windows<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<(), ExchangeError> {
        let mut digest = FileDigest::new();
        let mut digests = Vec::new();
        for window in self.geometry.windows() {
            let bytes = self.read(window)?;
            digest.feed(&bytes);
            digests.push(WindowDigest::of(&bytes).0);
            if digests.len() == DIGESTS_PER_MESSAGE {
                peer.say(&Message::Windows(std::mem::take(&mut digests)))?;
            }
            peer.still_here()?;
        }
        self.digest = Some(digest.finish());
        // Of a file without windows the peer is told even so. After the last window it must not be: it may have said by
        // then that all is rebuilt, and would say so twice.
        if !digests.is_empty() || self.geometry.window_count() == 0 {
            peer.say(&Message::Windows(digests))?;
        }
        Ok(())
    }

    fn compare<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        number: u32,
        digests: &[u8],
    ) -> Result<(), ExchangeError> {
        let window = self.window(number)?;
        // Each window comes up once, and once more if a digest matched by chance.
        self.compared += 1;
        if self.compared > u64::from(self.geometry.window_count()) * 2 {
            return Err(Violation::TooMany("windows that differ").into());
        }
        let bytes = self.read(window)?;
        let theirs = PageDigests::parse(window, digests)
            .map_err(|_| Violation::Lie("page digests of another size"))?;
        let pages = PageSet::differing(window, &bytes, &theirs);
        if theirs.is_empty() || pages.is_empty() {
            let patch = delta::make_patch(window, &bytes, &pages, None);
            peer.say(&Message::Patch { window: number, pages: pages.to_bytes(), patch })?;
            return Ok(());
        }
        peer.say(&Message::Want { window: number, pages: pages.to_bytes() })?;
        if self.wanted.len() > crate::protocol::WINDOWS_IN_FLIGHT {
            return Err(Violation::TooMany("windows at once").into());
        }
        self.wanted.insert(number, pages);
        Ok(())
    }

    fn patch<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        number: u32,
        signature: Vec<u8>,
    ) -> Result<(), ExchangeError> {
        let window = self.window(number)?;
        let pages = self.wanted.remove(&number).ok_or(Violation::Lie("a signature that nobody wanted"))?;
        let signature = Signature::parse(window, &pages, signature)
            .map_err(|_| Violation::Lie("a signature that does not fit"))?;
        let bytes = self.read(window)?;
        let patch = delta::make_patch(window, &bytes, &pages, Some(&signature));
        peer.say(&Message::Patch { window: number, pages: pages.to_bytes(), patch })?;
        Ok(())
    }

    fn window(&self, number: u32) -> Result<delta::Window, Violation> {
        self.geometry.window(number).ok_or(Violation::Lie("a window that the file does not have"))
    }
}

/// Rows in a batch where all rows go.
const ROWS_IN_BULK: usize = 5000;
/// What a batch takes in memory for each byte of its rows: as rows, packed, compressed and as a message.
const BYTES_PER_ROWS_BYTE: u64 = 8;
/// How long work waits for memory, with the peer told that it does. Others may be shipping large files.
const MEMORY_PATIENCE: Duration = Duration::from_secs(3600);
/// How often a crashed writer's journal is rolled back before we give up.
const HOT_JOURNAL_TRIES: usize = 3;
/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
