//! Call a peer; drive a [`Sender`] with a database of ours, or ([`compare`]) ask which of them it would be worth while
//! with. A file that goes there is `shipping`.

mod compare;
mod shipping;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::broker::{Broker, BrokerError, fresh_id};
use crate::budget::Share;
use crate::delta::Geometry;
use crate::drive::{Drive, DriveError, HashDir, Patience};
use crate::incoming::say_ranges;
use crate::ledger::LedgerError;
use crate::merge::{self, PolicyClaim};
use crate::node::Node;
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::message::{Agreed, Intent, Meet, Message, Place, Refusal, Role};
use crate::protocol::rows::{ROWS_BYTES_LIMIT, ROWS_LIMIT, packed_bytes};
use crate::protocol::sender::{Action, Known, Limits, Outcome, Sender};
use crate::protocol::{RANGES_PER_MESSAGE, Violation};
use crate::replica::{DbState, Direction, Metadata, PolicyIndex, ReplicaInfo, RowHash, RowId, SyncPoint};
use crate::ring::DeviceId;
use crate::strategy::Choice;
use crate::timestamp::{Stamp, Timestamp};
use shipping::Shipping;

pub use compare::{CompareError, Compared, Pair, compare};

/// Why an exchange failed. The database is as good as before; the peer keeps what it took.
#[derive(Debug)]
pub enum ExchangeError {
    /// The peer or the way to it.
    Peer(PeerError),
    /// Our database.
    Broker(BrokerError),
    /// Our drive.
    Drive(DriveError),
    /// The ledger of our drive.
    Ledger(LedgerError),
    /// No memory of the budget came free in time.
    NoMemory,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Peer(error) => error.fmt(f),
            ExchangeError::Broker(error) => write!(f, "our own database: {error}"),
            ExchangeError::Drive(error) => write!(f, "our own drive: {error}"),
            ExchangeError::Ledger(error) => error.fmt(f),
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

impl From<CompareError> for ExchangeError {
    fn from(error: CompareError) -> ExchangeError {
        match error {
            CompareError::Peer(error) => ExchangeError::Peer(error),
            CompareError::Ledger(error) => ExchangeError::Ledger(error),
        }
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
    /// Our device.
    pub ours: DeviceId,
    /// When the two replicas were last equal, by our ledger.
    pub agreed: Option<Agreed>,
}

/// What an exchange came to.
#[derive(Debug)]
pub struct Exchanged {
    /// How it ended.
    pub outcome: Outcome,
    /// Rows sent.
    pub rows_sent: u64,
    /// What was known of how far the peer had come turned out to be wrong.
    pub restarted: bool,
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

impl<'a> Subject<'a> {
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
        let (asker, agreed) = (Some(self.ours), self.agreed);
        let meet = Meet { place, info: self.info.clone(), intent, role, asker, agreed };
        let (mut sender, mut actions) = Sender::start(meet, self.known()?, limits);
        if self.proven {
            sender = sender.proven();
        }
        // Never both at once: see `budget`.
        let (mut shipping, mut rows_share, mut ranges_share) = (None, None, None);
        let (mut rows_sent, mut restarted) = (0, false);
        loop {
            (sender, actions) = 'step: {
                for action in actions {
                    match action {
                        Action::Say(message) => peer.say(&message)?,
                        Action::Adopt(theirs) => self.adopt(&theirs)?,
                        Action::TellRanges => {
                            ranges_share = Some(self.share_for_ranges(peer)?);
                            say_ranges(peer, self.broker.shard_ranges()?)?;
                        }
                        Action::MergeRanges(ranges) => {
                            self.broker.merge_shard_ranges(ranges)?;
                            drop(ranges_share.take());
                            break 'step sender.ranges_merged(self.broker.info()?.sharding_initiated);
                        }
                        Action::SendRows { after, in_bulk } => {
                            // Once a file was offered, the peer holds memory until it comes: none may be waited for.
                            rows_share = rows_share.or(shipping.take().map(Shipping::into_share));
                            let share = match &rows_share {
                                Some(share) => share,
                                None => rows_share.insert(self.share_for_rows(peer)?),
                            };
                            let (last, count) = self.send_rows(peer, after, in_bulk, share.bytes())?;
                            rows_sent += count;
                            break 'step sender.sent_rows(last, count > 0);
                        }
                        Action::Offer => {
                            drop(rows_share.take());
                            let open = self.open_file(peer)?;
                            let epoch = self.epoch();
                            peer.say(&Message::Offer { shape: open.shape(), epoch })?;
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
                            file(&mut shipping).finish(peer, self.broker)?;
                        }
                        Action::SendWindows => file(&mut shipping).send_windows(peer)?,
                        Action::TellPages { window } => file(&mut shipping).tell_pages(peer, window)?,
                        Action::MakePatch { window, pages, blocks, signature } => {
                            file(&mut shipping).patch(peer, window, &pages, blocks, signature)?;
                        }
                        Action::TellFileDone => file(&mut shipping).finish(peer, self.broker)?,
                        Action::Remember { id, point, restart } => {
                            let point =
                                point.or(shipping.as_ref().map(|file| file.max_row)).unwrap_or(RowId::NONE);
                            if restart {
                                restarted = true;
                                self.broker.set_sync_point(&id, point, Direction::Outgoing)?;
                            } else {
                                let point = SyncPoint { remote_id: id, point };
                                self.broker.merge_sync_points(&[point], Direction::Outgoing)?;
                            }
                        }
                        Action::Distrust(id) => {
                            self.broker.set_sync_point(&id, RowId::NONE, Direction::Incoming)?;
                        }
                        Action::Finish(outcome) => return Ok(Exchanged { outcome, rows_sent, restarted }),
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
        let meet = Meet {
            place: place.clone(),
            info: self.info.clone(),
            intent: Intent::Look,
            role,
            asker: Some(self.ours),
            agreed: self.agreed,
        };
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

    /// For ours and the peer's, of which there are about as many.
    fn share_for_ranges<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<Share, ExchangeError> {
        let count = self.broker.shard_range_count()?.max(RANGES_PER_MESSAGE as u64);
        let node = self.node;
        let take = || node.calling.take(count * BYTES_PER_RANGE, MEMORY_PATIENCE, &node.stop);
        peer.while_working(take)?.ok_or(ExchangeError::NoMemory)
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
    fn open_file<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<Shipping<'a>, ExchangeError> {
        let (node, drive, dir) = (self.node, self.drive, self.dir);
        let (file_bytes, page_bytes) = (self.info.file_bytes, self.info.page_bytes);
        // What cannot be cut into windows is found out when it is opened.
        let [least, most] = [0, u64::MAX]
            .map(|memory| Geometry::within(memory, file_bytes, page_bytes).map_or(0, Geometry::memory_bytes));
        let take = || node.calling.take_between(least, most, MEMORY_PATIENCE, &node.stop);
        let share = peer.while_working(take)?.ok_or(ExchangeError::NoMemory)?;
        let path =
            dir.in_charge().map_err(|error| DriveError::io(dir.dir(), error))?.ok_or(BrokerError::Missing)?;
        Shipping::open(peer, path, drive, self.broker, node.config.agent.compress, share)
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
    let meet = Meet { place, info: mine.clone(), intent: Intent::Look, role, asker: None, agreed: None };
    peer.say(&Message::Meet(Box::new(meet)))?;
    loop {
        return Ok(match peer.hear()? {
            Message::Working => continue,
            Message::Missing => Seen::Missing,
            Message::Refused(refusal) => Seen::Refused(refusal),
            Message::Here { info, point, .. } => Seen::Here { info, point },
            Message::Equal { id, max_row, point, .. } => {
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

fn file<'a, 'b>(shipping: &'b mut Option<Shipping<'a>>) -> &'b mut Shipping<'a> {
    shipping.as_mut().expect("a file is shipped only after it was offered")
}

/// Rows in a batch where all rows go.
const ROWS_IN_BULK: usize = 5000;
/// What a shard range takes in memory, ours and the peer's.
const BYTES_PER_RANGE: u64 = 2 << 10;
/// What a batch takes in memory for each byte of its rows: as rows, packed, compressed and as a message.
const BYTES_PER_ROWS_BYTE: u64 = 6;
/// How long work waits for memory, with the peer told that it does. Others may be shipping large files.
const MEMORY_PATIENCE: Duration = Duration::from_secs(3600);
/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
