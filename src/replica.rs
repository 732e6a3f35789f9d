//! What replicas tell each other: who they are, their rows, how far each has got, and what their databases sum up to.
//!
//! Plain values, made by parsing at an edge (SQLite below, the wire above) and passed through everything between.

use std::fmt;

use crate::hash_path::hex16;
use crate::timestamp::{Stamp, Timestamp};

/// The longest text that a replica may give for an id, a name, an etag or a content type, in bytes. Swift's longest
/// object name is 1024 bytes, and a path in the reconciler's queue holds three names and a policy.
pub const TEXT_LIMIT: usize = 8 * 1024;

/// The `id` of one database file: opaque text, in practice a UUID and perhaps a device name.
///
/// It names a file in `tmp`, so it can hold no `/` and no NUL, and is neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(String);

impl ReplicaId {
    /// `None` for empty text, text over 255 bytes, and what could not be a file's name.
    pub fn new(text: impl Into<String>) -> Option<ReplicaId> {
        let text = text.into();
        let sound = !text.is_empty() && text.len() <= 255 && !text.contains(['/', '\0']);
        (sound && text != "." && text != "..").then_some(ReplicaId(text))
    }

    /// The id as stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A row's number in the database it is in; -1 stands before the first. Numbers of two databases do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub i64);

impl RowId {
    /// Before the first row; also "nothing known" for a sync point.
    pub const NONE: RowId = RowId(-1);
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The running hash over a container's rows: the XOR of the MD5 of each `name-created_at`
/// (`swift/common/db.py: chexor`). Printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RowHash(pub [u8; 16]);

impl RowHash {
    /// Reads the column; `None` if it is not 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<RowHash> {
        hex16(text).map(RowHash)
    }

    /// Mixes a row in, or out again.
    pub fn mix(&mut self, name: &str, created_at: &str) {
        use md5::{Digest, Md5};
        let mut md5 = Md5::new();
        md5.update(name.as_bytes());
        md5.update(b"-");
        md5.update(created_at.as_bytes());
        let row: [u8; 16] = md5.finalize().into();
        self.0.iter_mut().zip(row).for_each(|(byte, mixed)| *byte ^= mixed);
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every etag goes through here.
        let mut text = [0; 32];
        for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
            digits.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).expect("hex digits are ASCII"))
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHash({self})")
    }
}

/// A storage policy's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyIndex(pub i64);

impl fmt::Display for PolicyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An object row, as one replica holds it or another sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number in the database it comes from; `None` for a row that is in none yet (a pending record).
    pub row_id: Option<RowId>,
    /// The object's name; any Unicode, NUL included.
    pub name: String,
    /// Up to three times in one text ([`crate::timestamp::RowTimes`]).
    pub created_at: String,
    /// Bytes.
    pub size: i64,
    /// Perhaps with `;swift_bytes=N` at the end.
    pub content_type: String,
    /// In practice an MD5 in hex, or `noetag` of a tombstone.
    pub etag: String,
    /// 1 for a tombstone. Kept as the number, because the triggers count with it.
    pub deleted: i64,
    /// The policy that the row was written under.
    pub storage_policy_index: PolicyIndex,
    /// Overrides the content-type time of `created_at`; only in pending records and what Swift's peers send.
    pub ctype_timestamp: Option<String>,
    /// Overrides the metadata time of `created_at`; likewise.
    pub meta_timestamp: Option<String>,
}

impl Row {
    /// What its texts take.
    pub fn text_bytes(&self) -> usize {
        self.name.len() + self.created_at.len() + self.content_type.len() + self.etag.len()
    }
}

/// How far one database has got with the rows of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncPoint {
    /// The other database.
    pub remote_id: ReplicaId,
    /// Incoming: all of *its* rows up to this number are here. Outgoing: it holds all of *ours* up to this number.
    pub point: RowId,
}

/// Which of the two sync tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `incoming_sync`: what we hold of others.
    Incoming,
    /// `outgoing_sync`: what others hold of us.
    Outgoing,
}

/// Container metadata: `(key, value, stamp)` in the order in which they were first set. An empty value is a deleted
/// key, kept for its stamp. Keys are case-sensitive and occur once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(pub Vec<MetadataItem>);

/// One metadata item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataItem {
    /// For instance `X-Container-Meta-Color`.
    pub key: String,
    /// Empty if the key is deleted.
    pub value: String,
    /// When it was set. Compared as text.
    pub stamp: Stamp,
}

impl Metadata {
    /// The item of a key, deleted or not.
    pub fn item(&self, key: &str) -> Option<&MetadataItem> {
        self.0.iter().find(|item| item.key == key)
    }

    /// The value of a key that is set and not deleted.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.item(key).map(|item| item.value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A shard range: a part of a container's namespace and the container that holds it. Columns as Swift's, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    /// `account/container` of the shard; a container's own range has its own path.
    pub name: String,
    /// When it was made. Compared as text, like all stamps of a range.
    pub timestamp: Stamp,
    /// Exclusive; empty = from the start.
    pub lower: String,
    /// Inclusive; empty = to the end.
    pub upper: String,
    /// Objects in it.
    pub object_count: i64,
    /// Bytes in it.
    pub bytes_used: i64,
    /// When counts were last set.
    pub meta_timestamp: Stamp,
    /// 1 if deleted.
    pub deleted: i64,
    /// Found 10, created 20, cleaved 30, active 40, shrinking 50, sharding 60, sharded 70, shrunk 80.
    pub state: i64,
    /// When the state was last set.
    pub state_timestamp: Stamp,
    /// The epoch of the file it was sharded into.
    pub epoch: Option<Stamp>,
    /// 1 if its counts were reported to the root.
    pub reported: i64,
    /// Tombstones in it, -1 if not known.
    pub tombstones: i64,
}

/// Where a container is in the course of sharding (`swift/container/backend.py: get_db_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbState {
    /// One file, never sharded.
    Unsharded,
    /// Two files: rows are being moved out.
    Sharding,
    /// The rows are in other containers.
    Sharded,
    /// It was sharded and holds everything again.
    Collapsed,
}

impl DbState {
    /// Swift's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DbState::Unsharded => "unsharded",
            DbState::Sharding => "sharding",
            DbState::Sharded => "sharded",
            DbState::Collapsed => "collapsed",
        }
    }
}

/// What one replica says of itself: enough to settle timestamps, metadata and policy, and to choose a strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The database's own id.
    pub id: ReplicaId,
    /// The account it stores.
    pub account: String,
    /// The container it stores.
    pub container: String,
    /// Text; the earliest wins.
    pub created_at: Stamp,
    /// Text; the latest wins.
    pub put_timestamp: Stamp,
    /// Text; the latest wins.
    pub delete_timestamp: Stamp,
    /// When it was last created, deleted or given another policy.
    pub status_changed_at: Stamp,
    /// The container's policy.
    pub storage_policy_index: PolicyIndex,
    /// Objects, in the container's current policy (`object_count` of Swift's info).
    pub count: i64,
    /// Bytes, in the container's current policy.
    pub bytes_used: i64,
    /// Over every row, tombstones and all policies included.
    pub hash: RowHash,
    /// The highest number ever given to a row, even one that is gone; -1 if none was.
    pub max_row: RowId,
    /// The same for shard ranges.
    pub shard_max_row: RowId,
    /// All metadata, deleted keys included.
    pub metadata: Metadata,
    /// Where sharding has got to.
    pub db_state: DbState,
    /// Sharding was begun: rows must not be sent, whole files not taken in (`sharding_initiated`).
    pub sharding_initiated: bool,
    /// Sharding was begun and is not over: a handoff must not be removed (`sharding_required`).
    pub sharding_required: bool,
    /// A digest over all shard ranges, own and deleted ones included; zeros if there are none.
    pub ranges_digest: [u8; 16],
    /// Bytes of the file in charge.
    pub file_bytes: u64,
    /// Bytes of a page: a power of two, 512 to 65536.
    pub page_bytes: u32,
}

impl ReplicaInfo {
    /// Deleted, as far as its policy's count and its timestamps tell (`swift/container/backend.py: _is_deleted_info`).
    pub fn is_deleted(&self) -> bool {
        self.count == 0 && self.delete_timestamp.time() > self.put_timestamp.time()
    }

    /// Equal in all that replicas must agree on: rows, timestamps, metadata, policy and shard ranges. Not ids, not row
    /// numbers, not `status_changed_at`, which each replica sets by its own clock.
    pub fn agrees_with(&self, other: &ReplicaInfo) -> bool {
        self.hash == other.hash
            && (self.count, self.bytes_used) == (other.count, other.bytes_used)
            && self.settled_with(other)
            && self.ranges_digest == other.ranges_digest
            && self.db_state == other.db_state
            && self.sharding_initiated == other.sharding_initiated
            && self.sharding_required == other.sharding_required
    }

    /// Equal in what is settled before any row is sent: timestamps, metadata and policy.
    pub fn settled_with(&self, other: &ReplicaInfo) -> bool {
        self.storage_policy_index == other.storage_policy_index
            && self.created_at == other.created_at
            && self.put_timestamp == other.put_timestamp
            && self.delete_timestamp == other.delete_timestamp
            && self.metadata.0.len() == other.metadata.0.len()
            && self.metadata.0.iter().all(|item| other.metadata.item(&item.key) == Some(item))
    }

    /// When it was deleted, if it is.
    pub fn deleted_at(&self) -> Option<Timestamp> {
        self.is_deleted().then(|| self.delete_timestamp.time())
    }
}
