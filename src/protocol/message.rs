//! Everything that can be said.

use crate::drive::DeviceName;
use crate::hash_path::{Hash, PartShift, Partition};
use crate::ledger::{Key, ShortDigest, Span};
use crate::replica::{ReplicaId, ReplicaInfo, Row, RowHash, RowId, ShardRange, SyncPoint};
use crate::ring::DeviceId;
use crate::timestamp::Timestamp;

/// Where a database belongs on the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The peer's device.
    pub device: DeviceName,
    /// The partition by the sender's ring.
    pub partition: Partition,
    /// The container's hash.
    pub hash: Hash,
}

/// One message. The sender's come first, then the receiver's, each in the order in which they are said.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    // The sender says:
    /// This is the sum of all that our two devices share; what is yours? Answered by [`Message::Alike`] or
    /// [`Message::Sums`] of everything.
    Compare(Compare),
    /// Where our sums are equal, and where I want to see more. Answered by [`Message::Sums`] of these spans; by
    /// [`Message::Alike`] if they are none, which ends the comparison.
    Open {
        /// Branches of what was told, those told last first; at most [`super::SPANS_LIMIT`].
        spans: Vec<Span>,
        /// For each span of the last [`Message::Sums`], which of its branches or leaves are equal on my side: the lowest
        /// bit is the first.
        alike: Vec<u16>,
    },
    /// This is my replica; what is yours? Begins an exchange, and ends the one before it.
    Meet(Box<Meet>),
    /// All my shard ranges, in one or more parts. Answered in kind.
    Ranges {
        /// Some of them.
        ranges: Vec<ShardRange>,
        /// Others follow.
        more: bool,
    },
    /// Rows of mine, ascending. Answered by [`Message::Took`].
    Rows {
        /// At most [`super::ROWS_LIMIT`] of them.
        rows: Vec<Row>,
    },
    /// That was the last row. Answered by [`Message::Settled`].
    RowsDone {
        /// The last row sent. All before it are there now.
        through: RowId,
        /// The point replaces what the receiver knew, even if it is lower.
        restart: bool,
        /// My incoming points: what I had of others, you now have too. Empty if rows are left for another pass.
        points: Vec<SyncPoint>,
    },
    /// I have a file of this shape for you. Answered by [`Message::Accept`].
    Offer {
        /// Its shape.
        shape: Shape,
        /// The sharding epoch in its name.
        epoch: Option<Timestamp>,
    },
    /// One window of the file, compressed; windows come in order.
    Literal(Vec<u8>),
    /// One window once more: it was written to while the file was sent. Comes when all windows were sent or rebuilt,
    /// ascending.
    Again {
        /// Number of the window. One past the last if the file grew.
        window: u32,
        /// Bytes of the file now.
        file_bytes: u64,
        /// The window, as in [`Message::Literal`].
        bytes: Vec<u8>,
    },
    /// The digests of my windows, in order, in one or more parts.
    Windows(Vec<[u8; 16]>),
    /// The digests of all pages of a window that differs.
    Pages {
        /// Number of the window.
        window: u32,
        /// Five bytes a page.
        digests: Vec<u8>,
    },
    /// What was wanted of a window.
    Patch {
        /// Number of the window.
        window: u32,
        /// What the delta module made.
        patch: Vec<u8>,
    },
    /// That was the file. Answered by [`Message::Settled`], or [`Message::Mismatch`] after a delta.
    FileDone {
        /// BLAKE3 of the whole file.
        digest: [u8; 32],
        /// The greatest row number ever given in it.
        max_row: RowId,
    },
    /// What time is it with you? Answered by [`Message::Time`]. Ends an exchange as [`Message::Meet`] does.
    AskTime,

    // The receiver says:
    /// All is alike, as far as you have asked.
    Alike,
    /// What I have in each of the spans that you opened, in order.
    Sums(Vec<Opened>),
    /// My replica, as it was before it took over anything of yours.
    Here {
        /// What it says of itself.
        info: Box<ReplicaInfo>,
        /// My incoming point for you.
        point: RowId,
        /// Yes, we agreed as you say, and this was my last row then.
        agreed: Option<RowId>,
    },
    /// My replica, equal to yours in all that replicas must agree on.
    Equal {
        /// Its id.
        id: ReplicaId,
        /// Its last row.
        max_row: RowId,
        /// My incoming point for you.
        point: RowId,
        /// Yes, we agreed as you say, and this was my last row then.
        agreed: Option<RowId>,
    },
    /// I have none.
    Missing,
    /// No, and why. Ends the exchange, whatever state it is in.
    Refused(Refusal),
    /// I hold your rows up to this one.
    Took {
        /// The last row merged.
        through: RowId,
    },
    /// I can take it; this is what I have to start from.
    Accept(Option<Basis>),
    /// My window differs from yours: what pages has it? Answered by [`Message::Pages`].
    Differs {
        /// Number of the window.
        window: u32,
    },
    /// I lack these pages of the window, wherever I looked; this is what I have in their places. Answered by
    /// [`Message::Patch`].
    Want {
        /// Number of the window.
        window: u32,
        /// One bit a page.
        pages: Vec<u8>,
        /// Digests of the blocks of the first of them, as far as my file goes.
        blocks: Vec<u8>,
        /// A rolling signature of those pages, or nothing.
        signature: Vec<u8>,
    },
    /// Every window that differed has been rebuilt.
    Rebuilt,
    /// The result of the delta is not your file; send all of it.
    Mismatch,
    /// Still at work: nothing to report but that I live.
    Working,
    /// Merged and durable.
    Settled(Settled),
    /// My clock, in microseconds since 1970, as I say this. Whoever asked judges it; nothing is done by it.
    Time(u64),
}

/// How a sender begins to compare a device with its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The peer's device.
    pub device: DeviceName,
    /// The sender's device, by the ring.
    pub asker: DeviceId,
    /// By the sender's ring. Where databases stand in the tree of sums depends on it.
    pub part_shift: PartShift,
    /// The sum of the sender's databases, those in partitions that the two devices share.
    pub sum: ShortDigest,
}

/// What is in a span: few databases are told singly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The sum of each of its branches.
    Branches([ShortDigest; super::BRANCHES]),
    /// Its databases and their states, in ascending order; at most [`crate::ledger::LEAVES_LIMIT`].
    Leaves(Vec<(Key, ShortDigest)>),
}

/// What a sender remembers of an earlier exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The state that the two replicas were in.
    pub state: ShortDigest,
    /// The sender's last row then.
    pub row: RowId,
}

/// How a sender introduces its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meet {
    /// Where it belongs on the peer.
    pub place: Place,
    /// What it says of itself.
    pub info: ReplicaInfo,
    /// What the sender is about.
    pub intent: Intent,
    /// What the receiver's device is to the database by the sender's ring.
    pub role: Role,
    /// The sender's device, by the ring; `None` if what is agreed is of no use to it.
    pub asker: Option<DeviceId>,
    /// Your replica and mine once agreed, in this state. Do you remember?
    pub agreed: Option<Agreed>,
}

/// What a device is to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of those that should hold it. A receiver whose ring says otherwise takes no new copy, and proves nothing to
    /// who wants to leave: while a new ring is on its way to the nodes, each of two could remove its copy on the
    /// other's word, and pass it to and fro.
    Primary,
    /// It stands in for one whose drive is not mounted.
    Handoff,
}

/// What a sender is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To make the two replicas agree.
    Agree,
    /// The same, and then to remove its copy: what the receiver says it holds must be durable.
    Leave,
    /// To know what would be done: the receiver changes nothing.
    Look,
}

/// The shape of an offered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Bytes of a window, a whole number of pages.
    pub window_bytes: u32,
}

/// What a receiver's own file offers to a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Digests (eight bytes each) of pages spread evenly over the pages that both files have.
    pub sample: Vec<u8>,
}

/// What a receiver ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The replica's id, which is a new one where a whole file took a place.
    pub id: ReplicaId,
    /// Its row hash now.
    pub hash: RowHash,
    /// Its last row now.
    pub max_row: RowId,
}

/// Why a receiver will not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The drive is not mounted (Swift's 507): its data belongs on a handoff meanwhile.
    NotMounted,
    /// The drive is full, or would be.
    Full,
    /// By the receiver's ring this device is not on its node.
    UnknownDevice,
    /// The partition does not follow from the account and container.
    WrongPartition,
    /// By the receiver's ring other devices should hold it.
    NotPrimary,
    /// The database is locked by others for too long.
    Busy,
    /// The database is damaged. It is in quarantine now, unless the sender only looked. The next pass heals it.
    Damaged,
    /// The container is being sharded: no whole files.
    Sharding,
    /// It holds as many connections as it may.
    TooMany,
    /// It keeps no ledger of that drive, or none that it can use.
    NoLedger,
    /// Something else went wrong over there; the text is for the log.
    Failed(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NotMounted => f.write_str("its drive is not mounted"),
            Refusal::Full => f.write_str("its drive is full"),
            Refusal::UnknownDevice => f.write_str("by its ring the device is not on that node"),
            Refusal::WrongPartition => f.write_str("by its ring the database is in another partition"),
            Refusal::NotPrimary => f.write_str(
                "by its ring the partition belongs on other devices; is the new ring on all nodes yet?",
            ),
            Refusal::Busy => f.write_str("its database stayed locked"),
            Refusal::Damaged => f.write_str("its database is damaged; the next pass heals it"),
            Refusal::Sharding => f.write_str("its container is being sharded"),
            Refusal::TooMany => f.write_str("it serves as many connections as it may"),
            Refusal::NoLedger => f.write_str("it keeps no ledger of that drive"),
            Refusal::Failed(why) => write!(f, "it failed: {why}"),
        }
    }
}
