//! Messages to bytes and back, whatever pieces the stream arrives in.
//!
//! A connection opens with eight bytes from each side ([`Greeting`]). Then every message is a frame: its length (four
//! bytes, big-endian, counting what follows), one byte that names it, and its fields. Numbers are LEB128, signed ones
//! in zigzag; text and lists carry their length first.
//!
//! Everything here may come from a liar. A length is checked against its limit before a byte is allocated for it, a
//! list can have no more members than the bytes left could spell, and whatever parses is already one of our types.

pub use super::fields::WireError;
use super::fields::{Reader, Writer};
use super::message::{Agreed, Basis, Intent, Meet, Message, Place, Refusal, Role, Settled, Shape};
use super::{DIGESTS_PER_MESSAGE, FRAME_LIMIT, POINTS_LIMIT, RANGES_PER_MESSAGE, SPANS_LIMIT, VERSION, rows};
use crate::hash_path::{Hash, Partition};
use crate::replica::{
    DbState, Metadata, MetadataItem, PolicyIndex, ReplicaId, ReplicaInfo, RowHash, RowId, ShardRange,
    SyncPoint, TEXT_LIMIT,
};
use crate::ring::DeviceId;
use crate::timestamp::{Stamp, Timestamp};

/// The most a container's metadata may take, as keys, values and stamps. Swift lets clients set 4 KiB in 90 keys; system
/// metadata and deleted keys come on top.
pub const METADATA_LIMIT: usize = 1 << 20;
/// The most items that metadata may have: short ones take many times in memory what they take on the wire.
pub const METADATA_ITEMS_LIMIT: usize = 4096;

/// The first eight bytes of each side: `SWLT`, the version, and how the connection is secured. Security 0 is plain;
/// other numbers are for a handshake that follows directly, before the first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The sender's protocol version.
    pub version: u16,
    /// How the connection is authenticated and encrypted; only 0 (not at all) so far.
    pub security: u8,
}

impl Greeting {
    /// Bytes of a greeting.
    pub const BYTES: usize = 8;
    const MAGIC: &[u8; 4] = b"SWLT";

    /// What we say.
    pub fn ours() -> Greeting {
        Greeting { version: VERSION, security: 0 }
    }

    /// As bytes; the last one is kept for later and is 0.
    pub fn encode(self) -> [u8; Greeting::BYTES] {
        let [high, low] = self.version.to_be_bytes();
        let [a, b, c, d] = *Greeting::MAGIC;
        [a, b, c, d, high, low, self.security, 0]
    }

    /// Reads a peer's.
    ///
    /// # Errors
    /// Another protocol, another version, or security that we do not have.
    pub fn decode(bytes: [u8; Greeting::BYTES]) -> Result<Greeting, WireError> {
        if bytes[..4] != *Greeting::MAGIC {
            return Err(WireError::OtherProtocol([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        let greeting = Greeting { version: u16::from_be_bytes([bytes[4], bytes[5]]), security: bytes[6] };
        match greeting {
            Greeting { version, .. } if version != VERSION => Err(WireError::OtherVersion(version)),
            Greeting { security, .. } if security != 0 => Err(WireError::OtherSecurity(security)),
            _ => Ok(greeting),
        }
    }
}

/// Collects the pieces of a stream and gives back messages.
#[derive(Debug, Default)]
pub struct Inbox {
    /// What has come, and room for more behind it.
    pending: Vec<u8>,
    read: usize,
    filled: usize,
    /// Buffers of windows that were heard and are done with.
    spare: Vec<Vec<u8>>,
}

impl Inbox {
    /// Takes the next piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        self.make_room(piece.len())[..piece.len()].copy_from_slice(piece);
        self.fed(piece.len());
    }

    /// Where the next piece of the stream may be put, so that it need not be copied: room for the rest of a message
    /// that has begun, and a little more. Never more than a little, or as much again as has come of it: what is only
    /// announced takes no memory.
    pub fn room(&mut self) -> &mut [u8] {
        let have = self.filled - self.read;
        let announced = match self.pending[self.read..self.filled].first_chunk::<4>() {
            Some(head) => (4 + u32::from_be_bytes(*head) as usize).saturating_sub(have),
            None => 0,
        };
        let ready = self.pending.len() - have;
        self.make_room(ROOM_BYTES + announced.min(have.max(LARGE_ROOM_BYTES).max(ready)))
    }

    /// So many bytes of that room were filled.
    pub fn fed(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn make_room(&mut self, bytes: usize) -> &mut [u8] {
        if self.read > 0 {
            self.pending.copy_within(self.read..self.filled, 0);
            (self.read, self.filled) = (0, self.filled - self.read);
        }
        if self.pending.len() < self.filled + bytes {
            self.pending.resize(self.filled + bytes, 0);
        }
        &mut self.pending[self.filled..][..bytes]
    }

    /// Nothing waits here, not even part of a message.
    pub fn is_empty(&self) -> bool {
        self.read == self.filled
    }

    /// How many bytes the next message has, if it has begun to arrive.
    ///
    /// # Errors
    /// As [`Inbox::next_message`].
    pub fn announced(&self) -> Result<Option<usize>, WireError> {
        let Some(head) = self.pending[self.read..self.filled].first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head);
        if length == 0 || length as usize > FRAME_LIMIT {
            return Err(WireError::FrameLength(length));
        }
        Ok(Some(length as usize))
    }

    /// The next whole message, if it has arrived.
    ///
    /// # Errors
    /// [`WireError`] as soon as the bytes at hand show that no message can come of them.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        let Some(frame) = self.pending[self.read..self.filled].get(4..4 + length) else { return Ok(None) };
        let message = match frame {
            [tag::LITERAL, window @ ..] => {
                let mut buffer = self.spare.pop().unwrap_or_default();
                buffer.clear();
                buffer.extend_from_slice(window);
                Message::Literal(buffer)
            }
            frame => decode(frame)?,
        };
        self.read += 4 + frame.len();
        // Large messages come one after the other; once a small one comes, their room is given back.
        if length <= ROOM_BYTES {
            self.give_back();
        }
        Ok(Some(message))
    }

    /// Takes the next message if it is whole and says [`Message::Working`], and leaves every other where it is.
    pub fn take_working(&mut self) -> bool {
        let says = self.pending[self.read..self.filled].starts_with(&WORKING);
        if says {
            self.read += WORKING.len();
        }
        says
    }

    /// Less than the shortest message is here.
    pub fn is_short(&self) -> bool {
        self.filled - self.read < WORKING.len()
    }

    /// Takes back the buffer of a [`Message::Literal`] for one that is to come. A file comes in many of them, and memory that
    /// is fetched from the kernel for each takes longer than what is copied into it.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARES {
            self.spare.push(buffer);
        }
    }

    /// Gives back the room that large messages took, if nothing is in it.
    pub fn give_back(&mut self) {
        self.spare = Vec::new();
        if self.is_empty() && self.pending.len() > ROOM_BYTES {
            (self.pending, self.read, self.filled) = (Vec::new(), 0, 0);
        }
    }
}

/// A [`Message::Working`] as a frame.
const WORKING: [u8; 5] = [0, 0, 0, 1, tag::WORKING];
/// Room for a message of which nothing is known yet, so that a connection that waits costs little.
const ROOM_BYTES: usize = 4 << 10;
/// As many windows as a receiver has in its hands at once.
const SPARES: usize = 4;
/// Room for the next part of one that is known to be long.
const LARGE_ROOM_BYTES: usize = 64 << 10;

/// Begins the frame of a [`Message::Literal`] in a buffer that is used again: what is appended is its window, as
/// [`crate::delta::Packer`] has it. [`seal`] ends it.
pub fn begin_literal(frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&[0, 0, 0, 0, tag::LITERAL]);
}

/// Puts its length before a frame.
pub fn seal(frame: &mut [u8]) {
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// A message as a frame, ready to be written.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut out = Writer(vec![0; 4]);
    match message {
        Message::Compare(compare) => {
            out.byte(tag::COMPARE);
            out.compare(compare);
        }
        Message::Open { spans, alike } => {
            out.byte(tag::OPEN);
            out.list(spans, Writer::span);
            out.list(alike, |out, mask| out.raw(&mask.to_be_bytes()));
        }
        Message::Alike => out.byte(tag::ALIKE),
        Message::Sums(sums) => {
            out.byte(tag::SUMS);
            out.list(sums, Writer::opened);
        }
        Message::Meet(meet) => {
            out.byte(tag::MEET);
            out.text(meet.place.device.as_str());
            out.number(u64::from(meet.place.partition.0));
            out.raw(&meet.place.hash.0);
            out.info(&meet.info);
            out.byte(match meet.intent {
                Intent::Agree => 0,
                Intent::Leave => 1,
                Intent::Look => 2,
            });
            out.byte(match meet.role {
                Role::Primary => 0,
                Role::Handoff => 1,
            });
            out.optional(meet.asker, |out, asker| out.number(asker.0.into()));
            out.optional(meet.agreed, |out, agreed| {
                out.digest(&agreed.state);
                out.signed(agreed.row.0);
            });
        }
        Message::Ranges { ranges, more } => {
            out.byte(tag::RANGES);
            out.list(ranges, Writer::range);
            out.byte((*more).into());
        }
        Message::Rows { rows } => {
            out.byte(tag::ROWS);
            out.raw(&rows::pack(rows));
        }
        Message::RowsDone { through, restart, points } => {
            out.byte(tag::ROWS_DONE);
            out.signed(through.0);
            out.byte((*restart).into());
            out.list(points, Writer::sync_point);
        }
        Message::Offer { shape, epoch } => {
            out.byte(tag::OFFER);
            out.text(&epoch.map(Timestamp::normal).unwrap_or_default());
            out.number(shape.file_bytes);
            out.number(shape.page_bytes.into());
            out.number(shape.window_bytes.into());
        }
        Message::Literal(bytes) => {
            out.byte(tag::LITERAL);
            out.raw(bytes);
        }
        Message::Again { window, file_bytes, bytes } => {
            out.byte(tag::AGAIN);
            out.number((*window).into());
            out.number(*file_bytes);
            out.raw(bytes);
        }
        Message::Windows(digests) => {
            out.byte(tag::WINDOWS);
            out.list(digests, |out, digest| out.raw(digest));
        }
        Message::Pages { window, digests } => {
            out.byte(tag::PAGES);
            out.number((*window).into());
            out.raw(digests);
        }
        Message::Patch { window, patch } => {
            out.byte(tag::PATCH);
            out.number((*window).into());
            out.raw(patch);
        }
        Message::FileDone { digest, max_row } => {
            out.byte(tag::FILE_DONE);
            out.raw(digest);
            out.signed(max_row.0);
        }
        Message::Here { info, point, agreed } => {
            out.byte(tag::HERE);
            out.info(info);
            out.signed(point.0);
            out.optional(*agreed, |out, row| out.signed(row.0));
        }
        Message::Equal { id, max_row, point, agreed } => {
            out.byte(tag::EQUAL);
            out.text(id.as_str());
            out.signed(max_row.0);
            out.signed(point.0);
            out.optional(*agreed, |out, row| out.signed(row.0));
        }
        Message::Missing => out.byte(tag::MISSING),
        Message::Refused(refusal) => {
            out.byte(tag::REFUSED);
            out.refusal(refusal);
        }
        Message::Took { through } => {
            out.byte(tag::TOOK);
            out.signed(through.0);
        }
        Message::Accept(basis) => {
            out.byte(tag::ACCEPT);
            if let Some(basis) = basis {
                out.number(basis.file_bytes);
                out.number(basis.page_bytes.into());
                out.raw(&basis.sample);
            }
        }
        Message::Differs { window } => {
            out.byte(tag::DIFFERS);
            out.number((*window).into());
        }
        Message::Want { window, pages, blocks, signature } => {
            out.byte(tag::WANT);
            out.number((*window).into());
            out.bytes(pages);
            out.bytes(blocks);
            out.raw(signature);
        }
        Message::Rebuilt => out.byte(tag::REBUILT),
        Message::Mismatch => out.byte(tag::MISMATCH),
        Message::Working => out.byte(tag::WORKING),
        Message::Settled(settled) => {
            out.byte(tag::SETTLED);
            out.text(settled.id.as_str());
            out.raw(&settled.hash.0);
            out.signed(settled.max_row.0);
        }
        Message::AskTime => out.byte(tag::ASK_TIME),
        Message::Time(microseconds) => {
            out.byte(tag::TIME);
            out.number(*microseconds);
        }
    }
    let mut frame = out.0;
    seal(&mut frame);
    frame
}

fn decode(frame: &[u8]) -> Result<Message, WireError> {
    let mut from = Reader(frame);
    let message = match from.byte("kind")? {
        tag::COMPARE => Message::Compare(from.compare()?),
        tag::OPEN => Message::Open {
            spans: from.list("spans", SPANS_LIMIT, Reader::span)?,
            alike: from.list("marks", SPANS_LIMIT, |from| from.array("marks").map(u16::from_be_bytes))?,
        },
        tag::ALIKE => Message::Alike,
        tag::SUMS => Message::Sums(from.list("sums", SPANS_LIMIT, Reader::opened)?),
        tag::MEET => {
            let device = from.device_name()?;
            let partition = Partition(from.u32("partition")?);
            let hash = Hash(from.array("hash")?);
            let info = from.info()?;
            let intent = match from.byte("intent")? {
                0 => Intent::Agree,
                1 => Intent::Leave,
                2 => Intent::Look,
                _ => return Err(WireError::Field("intent")),
            };
            let role = match from.byte("role")? {
                0 => Role::Primary,
                1 => Role::Handoff,
                _ => return Err(WireError::Field("role")),
            };
            let asker = from.optional("asker", |from| from.u32("asker").map(DeviceId))?;
            let agreed = from.optional("agreement", |from| {
                Ok(Agreed { state: from.digest()?, row: from.row_id("agreed row")? })
            })?;
            let place = Place { device, partition, hash };
            Message::Meet(Box::new(Meet { place, info, intent, role, asker, agreed }))
        }
        tag::RANGES => Message::Ranges {
            ranges: from.list("shard ranges", RANGES_PER_MESSAGE, Reader::range)?,
            more: from.flag("more")?,
        },
        tag::ROWS => {
            Message::Rows { rows: rows::unpack(from.rest()).map_err(|_| WireError::Field("batch of rows"))? }
        }
        tag::ROWS_DONE => Message::RowsDone {
            through: from.row_id("last row")?,
            restart: from.flag("restart")?,
            points: from.list("sync points", POINTS_LIMIT, Reader::sync_point)?,
        },
        tag::OFFER => Message::Offer {
            epoch: from.epoch()?.map(|epoch| epoch.time()),
            shape: Shape {
                file_bytes: from.number("file size")?,
                page_bytes: from.u32("page size")?,
                window_bytes: from.u32("window size")?,
            },
        },
        tag::LITERAL => Message::Literal(from.rest().to_vec()),
        tag::AGAIN => Message::Again {
            window: from.u32("window")?,
            file_bytes: from.number("file size")?,
            bytes: from.rest().to_vec(),
        },
        tag::WINDOWS => {
            let digest = |from: &mut Reader<'_>| from.array("window digest");
            Message::Windows(from.list("window digests", DIGESTS_PER_MESSAGE, digest)?)
        }
        tag::PAGES => Message::Pages { window: from.u32("window")?, digests: from.rest().to_vec() },
        tag::PATCH => Message::Patch { window: from.u32("window")?, patch: from.rest().to_vec() },
        tag::FILE_DONE => {
            Message::FileDone { digest: from.array("file digest")?, max_row: from.row_id("last row")? }
        }
        tag::HERE => Message::Here {
            info: Box::new(from.info()?),
            point: from.row_id("sync point")?,
            agreed: from.optional("agreed row", |from| from.row_id("agreed row"))?,
        },
        tag::EQUAL => Message::Equal {
            id: from.replica_id()?,
            max_row: from.row_id("last row")?,
            point: from.row_id("sync point")?,
            agreed: from.optional("agreed row", |from| from.row_id("agreed row"))?,
        },
        tag::MISSING => Message::Missing,
        tag::REFUSED => Message::Refused(from.refusal()?),
        tag::TOOK => Message::Took { through: from.row_id("last row")? },
        tag::ACCEPT if from.0.is_empty() => Message::Accept(None),
        tag::ACCEPT => Message::Accept(Some(Basis {
            file_bytes: from.number("file size")?,
            page_bytes: from.u32("page size")?,
            sample: from.rest().to_vec(),
        })),
        tag::DIFFERS => Message::Differs { window: from.u32("window")? },
        tag::WANT => Message::Want {
            window: from.u32("window")?,
            pages: from.bytes("page set")?.to_vec(),
            blocks: from.bytes("digests of blocks")?.to_vec(),
            signature: from.rest().to_vec(),
        },
        tag::REBUILT => Message::Rebuilt,
        tag::MISMATCH => Message::Mismatch,
        tag::WORKING => Message::Working,
        tag::SETTLED => Message::Settled(Settled {
            id: from.replica_id()?,
            hash: RowHash(from.array("row hash")?),
            max_row: from.row_id("last row")?,
        }),
        tag::ASK_TIME => Message::AskTime,
        tag::TIME => Message::Time(from.number("time")?),
        unknown => return Err(WireError::UnknownMessage(unknown)),
    };
    match from.0.len() {
        0 => Ok(message),
        left => Err(WireError::TrailingBytes(left)),
    }
}

/// The numbers of the messages. Never reused for another meaning: 8, 71 and 72 were of an older delta.
mod tag {
    pub const MEET: u8 = 1;
    pub const RANGES: u8 = 2;
    pub const ROWS: u8 = 3;
    pub const ROWS_DONE: u8 = 4;
    pub const OFFER: u8 = 5;
    pub const LITERAL: u8 = 6;
    pub const WINDOWS: u8 = 7;
    pub const PATCH: u8 = 9;
    pub const FILE_DONE: u8 = 10;
    pub const AGAIN: u8 = 13;
    pub const PAGES: u8 = 14;
    pub const COMPARE: u8 = 11;
    pub const OPEN: u8 = 12;
    pub const ASK_TIME: u8 = 15;
    pub const HERE: u8 = 65;
    pub const EQUAL: u8 = 66;
    pub const MISSING: u8 = 67;
    pub const REFUSED: u8 = 68;
    pub const TOOK: u8 = 69;
    pub const ACCEPT: u8 = 70;
    pub const REBUILT: u8 = 73;
    pub const MISMATCH: u8 = 74;
    pub const WORKING: u8 = 75;
    pub const SETTLED: u8 = 76;
    pub const ALIKE: u8 = 77;
    pub const SUMS: u8 = 78;
    pub const DIFFERS: u8 = 79;
    pub const WANT: u8 = 80;
    pub const TIME: u8 = 81;
}

/// Appends what replicas say of themselves.
impl Writer {
    fn stamp(&mut self, stamp: &Stamp) {
        self.text(stamp.as_str());
    }

    fn sync_point(&mut self, point: &SyncPoint) {
        self.text(point.remote_id.as_str());
        self.signed(point.point.0);
    }

    fn range(&mut self, range: &ShardRange) {
        self.text(&range.name);
        self.stamp(&range.timestamp);
        self.text(&range.lower);
        self.text(&range.upper);
        self.signed(range.object_count);
        self.signed(range.bytes_used);
        self.stamp(&range.meta_timestamp);
        self.signed(range.deleted);
        self.signed(range.state);
        self.stamp(&range.state_timestamp);
        self.text(range.epoch.as_ref().map_or("", Stamp::as_str));
        self.signed(range.reported);
        self.signed(range.tombstones);
    }

    fn info(&mut self, info: &ReplicaInfo) {
        self.text(info.id.as_str());
        self.text(&info.account);
        self.text(&info.container);
        self.stamp(&info.created_at);
        self.stamp(&info.put_timestamp);
        self.stamp(&info.delete_timestamp);
        self.stamp(&info.status_changed_at);
        self.signed(info.storage_policy_index.0);
        self.signed(info.count);
        self.signed(info.bytes_used);
        self.raw(&info.hash.0);
        self.signed(info.max_row.0);
        self.signed(info.shard_max_row.0);
        self.list(&info.metadata.0, |out, item| {
            out.text(&item.key);
            out.text(&item.value);
            out.stamp(&item.stamp);
        });
        let state = match info.db_state {
            DbState::Unsharded => 0,
            DbState::Sharding => 1,
            DbState::Sharded => 2,
            DbState::Collapsed => 3,
        };
        self.byte(state | u8::from(info.sharding_initiated) << 2 | u8::from(info.sharding_required) << 3);
        self.raw(&info.ranges_digest);
        self.number(info.file_bytes);
        self.number(info.page_bytes.into());
    }

    fn refusal(&mut self, refusal: &Refusal) {
        self.byte(match refusal {
            Refusal::NotMounted => 1,
            Refusal::Full => 2,
            Refusal::UnknownDevice => 3,
            Refusal::WrongPartition => 4,
            Refusal::Busy => 5,
            Refusal::Damaged => 6,
            Refusal::Sharding => 7,
            Refusal::TooMany => 8,
            Refusal::Failed(_) => 9,
            Refusal::NotPrimary => 10,
            Refusal::NoLedger => 11,
        });
        if let Refusal::Failed(why) = refusal {
            let mut end = why.len().min(TEXT_LIMIT);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            self.text(&why[..end]);
        }
    }
}

/// Takes what replicas say of themselves.
impl Reader<'_> {
    fn stamp(&mut self, what: &'static str) -> Result<Stamp, WireError> {
        Stamp::from_peer(&self.text(what)?).map_err(|_| WireError::Field(what))
    }

    pub(super) fn row_id(&mut self, what: &'static str) -> Result<RowId, WireError> {
        match self.signed(what)? {
            id if id >= RowId::NONE.0 => Ok(RowId(id)),
            _ => Err(WireError::Field(what)),
        }
    }

    fn replica_id(&mut self) -> Result<ReplicaId, WireError> {
        ReplicaId::new(self.text("replica id")?).ok_or(WireError::Field("replica id"))
    }

    fn sync_point(&mut self) -> Result<SyncPoint, WireError> {
        Ok(SyncPoint { remote_id: self.replica_id()?, point: self.row_id("sync point")? })
    }

    fn range(&mut self) -> Result<ShardRange, WireError> {
        Ok(ShardRange {
            name: self.text("shard range name")?,
            timestamp: self.stamp("shard range timestamp")?,
            lower: self.text("shard range bound")?,
            upper: self.text("shard range bound")?,
            object_count: self.signed("shard range count")?,
            bytes_used: self.signed("shard range bytes")?,
            meta_timestamp: self.stamp("shard range timestamp")?,
            deleted: self.signed("shard range flag")?,
            state: self.signed("shard range state")?,
            state_timestamp: self.stamp("shard range timestamp")?,
            epoch: self.epoch()?,
            reported: self.signed("shard range flag")?,
            tombstones: self.signed("shard range tombstones")?,
        })
    }

    fn epoch(&mut self) -> Result<Option<Stamp>, WireError> {
        match self.text("epoch")?.as_str() {
            "" => Ok(None),
            text => Stamp::from_peer(text).map(Some).map_err(|_| WireError::Field("epoch")),
        }
    }

    fn info(&mut self) -> Result<ReplicaInfo, WireError> {
        let id = self.replica_id()?;
        let account = self.text("account")?;
        let container = self.text("container")?;
        let created_at = self.stamp("created_at")?;
        let put_timestamp = self.stamp("put_timestamp")?;
        let delete_timestamp = self.stamp("delete_timestamp")?;
        let status_changed_at = self.stamp("status_changed_at")?;
        let storage_policy_index = PolicyIndex(self.signed("storage policy")?);
        let count = self.signed("count")?;
        let bytes_used = self.signed("bytes used")?;
        let hash = RowHash(self.array("row hash")?);
        let max_row = self.row_id("last row")?;
        let shard_max_row = self.row_id("last shard range")?;
        let mut room = METADATA_LIMIT;
        let metadata = Metadata(self.list("metadata", METADATA_ITEMS_LIMIT, |from| {
            let before = from.0.len();
            let key = from.text("metadata key")?;
            let value = from.long_text("metadata value", METADATA_LIMIT)?;
            let stamp = from.stamp("metadata stamp")?;
            let taken = before - from.0.len();
            room = room.checked_sub(taken).ok_or(WireError::Field("metadata"))?;
            Ok(MetadataItem { key, value, stamp })
        })?);
        let state = self.byte("sharding state")?;
        if state > 0b1111 {
            return Err(WireError::Field("sharding state"));
        }
        Ok(ReplicaInfo {
            id,
            account,
            container,
            created_at,
            put_timestamp,
            delete_timestamp,
            status_changed_at,
            storage_policy_index,
            count,
            bytes_used,
            hash,
            max_row,
            shard_max_row,
            metadata,
            db_state: match state & 3 {
                0 => DbState::Unsharded,
                1 => DbState::Sharding,
                2 => DbState::Sharded,
                _ => DbState::Collapsed,
            },
            sharding_initiated: state & 4 != 0,
            sharding_required: state & 8 != 0,
            ranges_digest: self.array("digest of shard ranges")?,
            file_bytes: self.number("file size")?,
            page_bytes: self.u32("page size")?,
        })
    }

    fn refusal(&mut self) -> Result<Refusal, WireError> {
        Ok(match self.byte("refusal")? {
            1 => Refusal::NotMounted,
            2 => Refusal::Full,
            3 => Refusal::UnknownDevice,
            4 => Refusal::WrongPartition,
            5 => Refusal::Busy,
            6 => Refusal::Damaged,
            7 => Refusal::Sharding,
            8 => Refusal::TooMany,
            9 => Refusal::Failed(self.text("reason")?),
            10 => Refusal::NotPrimary,
            11 => Refusal::NoLedger,
            _ => return Err(WireError::Field("refusal")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::Opened;
    use super::super::tests::samples;
    use super::*;
    use crate::ledger::{Key, LEAVES_LIMIT, ShortDigest, Span};

    fn frames() -> Vec<Vec<u8>> {
        samples().iter().map(encode).collect()
    }

    /// All that comes of a stream that arrives in these pieces.
    fn heard<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Message>, WireError> {
        let (mut inbox, mut messages) = (Inbox::default(), Vec::new());
        for piece in pieces {
            inbox.feed(piece);
            while let Some(message) = inbox.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// A frame around a body.
    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn meet_with(change: impl FnOnce(&mut Meet)) -> Vec<u8> {
        let meet = samples().into_iter().find_map(|sample| match sample {
            Message::Meet(meet) => Some(meet),
            _ => None,
        });
        let mut meet = meet.expect("a sample");
        change(&mut meet);
        encode(&Message::Meet(meet))
    }

    #[test]
    fn every_message_comes_back() {
        for message in samples() {
            assert_eq!(heard([encode(&message).as_slice()]), Ok(vec![message]));
        }
        for refusal in [
            Refusal::NotMounted,
            Refusal::Full,
            Refusal::UnknownDevice,
            Refusal::WrongPartition,
            Refusal::Busy,
            Refusal::Damaged,
            Refusal::Sharding,
            Refusal::TooMany,
            Refusal::NotPrimary,
            Refusal::NoLedger,
        ] {
            let message = Message::Refused(refusal);
            assert_eq!(heard([encode(&message).as_slice()]), Ok(vec![message]));
        }
    }

    #[test]
    fn a_stream_says_the_same_wherever_it_is_cut() {
        let stream = frames().concat();
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            assert_eq!(heard([first, second]), Ok(samples()), "cut at {cut}");
        }
        for size in [1, 2, 3, 5, 7, 64] {
            assert_eq!(heard(stream.chunks(size)), Ok(samples()), "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_is_not_there_before_its_last_byte() {
        for frame in frames() {
            assert_eq!(heard([&frame[..frame.len() - 1]]), Ok(vec![]));
        }
    }

    #[test]
    fn a_flipped_bit_makes_another_message_or_an_error() {
        for (frame, message) in frames().iter().zip(samples()) {
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // A zstd frame has bits without a meaning.
                let packed = frame[4] == tag::ROWS && bit / 8 > 4;
                if let (Ok(heard), false) = (heard([flipped.as_slice()]), packed) {
                    assert_ne!(heard, std::slice::from_ref(&message), "bit {bit} means nothing");
                }
            }
        }
    }

    #[test]
    fn a_frame_cut_short_or_gone_on_is_an_error() {
        for frame in frames() {
            let body = &frame[4..];
            let longer = framed(&[body, &[0]].concat());
            // Messages that end in bytes of any number take one more, or one less, for theirs.
            let open = matches!(body[0], tag::LITERAL | tag::AGAIN | tag::PAGES | tag::PATCH | tag::WANT)
                || (body[0] == tag::ACCEPT && body.len() > 1);
            assert_eq!(heard([longer.as_slice()]).is_ok(), open, "kind {}", body[0]);
            if !open {
                assert!(heard([framed(&body[..body.len() - 1]).as_slice()]).is_err(), "kind {}", body[0]);
            }
        }
    }

    #[test]
    fn a_frame_has_one_byte_at_least_and_no_more_than_the_limit() {
        let head = |bytes: u32| heard([&bytes.to_be_bytes()[..]]);
        assert_eq!(head(0), Err(WireError::FrameLength(0)));
        assert_eq!(head(1), Ok(vec![]));
        assert_eq!(head(FRAME_LIMIT as u32), Ok(vec![]));
        assert_eq!(head(FRAME_LIMIT as u32 + 1), Err(WireError::FrameLength(FRAME_LIMIT as u32 + 1)));
        assert_eq!(head(u32::MAX), Err(WireError::FrameLength(u32::MAX)));
        assert_eq!(&heard([b"HTTP/1.1".as_slice()]), &Err(WireError::FrameLength(0x4854_5450)));
        let literal = |bytes: usize| framed(&[&[tag::LITERAL][..], &vec![7; bytes]].concat());
        assert!(heard([literal(FRAME_LIMIT - 1).as_slice()]).is_ok());
        assert!(heard([literal(FRAME_LIMIT).as_slice()]).is_err());
        assert!(heard([literal(0).as_slice()]).is_ok());
    }

    #[test]
    fn buffers_of_windows_are_used_again_until_a_small_message_comes() {
        let frame = |byte| encode(&Message::Literal(vec![byte; 100_000]));
        let mut inbox = Inbox::default();
        let heard = |inbox: &mut Inbox, byte| {
            inbox.feed(&frame(byte));
            let Ok(Some(Message::Literal(window))) = inbox.next_message() else { panic!("a window") };
            assert!(window == vec![byte; 100_000]);
            window
        };
        let first = heard(&mut inbox, 1);
        let place = first.as_ptr();
        inbox.reuse(first);
        let second = heard(&mut inbox, 2);
        assert_eq!(second.as_ptr(), place);
        (0..9).for_each(|_| inbox.reuse(vec![0; 10]));
        assert_eq!(inbox.spare.len(), SPARES);
        inbox.feed(&encode(&Message::Missing));
        assert_eq!(inbox.next_message(), Ok(Some(Message::Missing)));
        assert!(inbox.spare.is_empty() && inbox.pending.is_empty());
    }

    #[test]
    fn a_header_takes_no_memory_for_what_it_announces() {
        let mut inbox = Inbox::default();
        inbox.feed(&(FRAME_LIMIT as u32).to_be_bytes());
        assert_eq!(inbox.next_message(), Ok(None));
        assert!(inbox.pending.capacity() < 1024);
        assert!(inbox.room().len() <= ROOM_BYTES + LARGE_ROOM_BYTES);
    }

    #[test]
    fn lists_have_limits() {
        let windows = |count: usize| encode(&Message::Windows(vec![[1; 16]; count]));
        let points = |count: usize| {
            let point = SyncPoint { remote_id: ReplicaId::new("i").unwrap(), point: RowId(1) };
            encode(&Message::RowsDone { through: RowId(1), restart: false, points: vec![point; count] })
        };
        let ranges = |count: usize| {
            let ranges = samples().into_iter().find_map(|sample| match sample {
                Message::Ranges { ranges, .. } => Some(ranges),
                _ => None,
            });
            let ranges = ranges.expect("a sample");
            encode(&Message::Ranges { ranges: vec![ranges[0].clone(); count], more: false })
        };
        let metadata = |count: usize| {
            let item =
                |nth| MetadataItem { key: format!("k{nth}"), value: String::new(), stamp: Stamp::unset() };
            meet_with(|meet| meet.info.metadata = Metadata((0..count).map(item).collect()))
        };
        let says = |frame: Vec<u8>| heard([frame.as_slice()]).map(|heard| heard.len());
        type Make<'a> = &'a dyn Fn(usize) -> Vec<u8>;
        let span = |nth: usize| Span::new((nth as u128) << 120, 2).expect("two digits");
        let spans =
            |count: usize| encode(&Message::Open { spans: (0..count).map(span).collect(), alike: vec![] });
        let marks = |count: usize| encode(&Message::Open { spans: vec![], alike: vec![1; count] });
        let sums =
            |count: usize| encode(&Message::Sums(vec![Opened::Branches([ShortDigest([3; 8]); 16]); count]));
        let leaves = |count: usize| {
            let leaf = |nth| (Key(nth as u128), ShortDigest([3; 8]));
            encode(&Message::Sums(vec![Opened::Leaves((0..count).map(leaf).collect())]))
        };
        let lists: [(Make, usize, &str); 8] = [
            (&spans, SPANS_LIMIT, "spans"),
            (&marks, SPANS_LIMIT, "marks"),
            (&sums, SPANS_LIMIT, "sums"),
            (&leaves, LEAVES_LIMIT, "leaves"),
            (&windows, DIGESTS_PER_MESSAGE, "window digests"),
            (&points, POINTS_LIMIT, "sync points"),
            (&ranges, RANGES_PER_MESSAGE, "shard ranges"),
            (&metadata, METADATA_ITEMS_LIMIT, "metadata"),
        ];
        for (list, limit, name) in lists {
            for count in [0, 1, limit] {
                assert_eq!(says(list(count)), Ok(1), "{count} {name}");
            }
            assert_eq!(says(list(limit + 1)), Err(WireError::Field(name)));
        }
        // A count of more than the frame has bytes.
        assert_eq!(says(framed(&[tag::WINDOWS, 100, 1, 1])), Err(WireError::Field("window digests")));
    }

    #[test]
    fn texts_and_metadata_have_limits() {
        let account = |bytes| meet_with(|meet| meet.info.account = "x".repeat(bytes));
        let value = |bytes| {
            let stamp = Stamp::unset();
            let item = MetadataItem { key: "k".into(), value: "x".repeat(bytes), stamp };
            meet_with(|meet| meet.info.metadata = Metadata(vec![item]))
        };
        let says = |frame: Vec<u8>| heard([frame.as_slice()]).map(|heard| heard.len());
        // The key and the stamp with their lengths, and the length of the value.
        let most = METADATA_LIMIT - 4 - 3;
        for bytes in [0, 1, TEXT_LIMIT] {
            assert_eq!(says(account(bytes)), Ok(1), "{bytes} bytes of text");
        }
        assert_eq!(says(account(TEXT_LIMIT + 1)), Err(WireError::Field("account")));
        for bytes in [0, 1, most] {
            assert_eq!(says(value(bytes)), Ok(1), "{bytes} bytes of metadata");
        }
        assert_eq!(says(value(most + 1)), Err(WireError::Field("metadata")));
        let many = (0..9).map(|nth| MetadataItem {
            key: format!("k{nth}"),
            value: "x".repeat(METADATA_LIMIT / 8),
            stamp: Stamp::unset(),
        });
        let together = meet_with(|meet| meet.info.metadata = Metadata(many.collect()));
        assert_eq!(says(together), Err(WireError::Field("metadata")));
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let long = Message::Refused(Refusal::Failed("ä".repeat(TEXT_LIMIT)));
        let expected = Message::Refused(Refusal::Failed("ä".repeat(TEXT_LIMIT / 2)));
        assert_eq!(heard([encode(&long).as_slice()]), Ok(vec![expected]));
    }

    #[test]
    fn names_that_could_be_paths_are_no_devices() {
        for name in ["..", ".", "", "a/b", "../d0", "d0\0", "d 0"] {
            let mut body = vec![tag::MEET, name.len() as u8];
            body.extend_from_slice(name.as_bytes());
            assert_eq!(heard([framed(&body).as_slice()]), Err(WireError::Field("device name")), "{name:?}");
        }
        for id in ["..", ".", "", "a/b", "a\0"] {
            let mut body = vec![tag::EQUAL, id.len() as u8];
            body.extend_from_slice(id.as_bytes());
            assert_eq!(heard([framed(&body).as_slice()]), Err(WireError::Field("replica id")), "{id:?}");
        }
    }

    #[test]
    fn unknown_kinds_are_named() {
        for kind in [0, 8, 16, 64, 71, 72, 82, 255] {
            assert_eq!(heard([framed(&[kind]).as_slice()]), Err(WireError::UnknownMessage(kind)));
        }
    }

    #[test]
    fn numbers_end_at_64_bits() {
        let number = |bytes: &[u8]| Reader(bytes).number("n");
        for value in [0, 1, 127, 128, 16383, 16384, u64::MAX] {
            let mut out = Writer(vec![]);
            out.number(value);
            assert_eq!(number(&out.0), Ok(value));
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = Writer(vec![]);
            out.signed(value);
            assert_eq!(Reader(&out.0).signed("n"), Ok(value));
        }
        let mut longest = [0xff; 10];
        longest[9] = 1;
        assert_eq!(number(&longest), Ok(u64::MAX));
        longest[9] = 2;
        assert!(number(&longest).is_err());
        assert!(number(&[0x80; 11]).is_err());
        assert!(number(&[0x80]).is_err());
        assert!(number(&[]).is_err());
    }

    #[test]
    fn a_greeting_says_which_protocol_version_and_security() {
        let ours = Greeting::ours().encode();
        assert_eq!(Greeting::decode(ours), Ok(Greeting::ours()));
        assert_eq!(Greeting::decode(*b"HTTP/1.1"), Err(WireError::OtherProtocol(*b"HTTP")));
        assert_eq!(Greeting::decode(*b"@RSYNCD:"), Err(WireError::OtherProtocol(*b"@RSY")));
        let newer = Greeting { version: VERSION + 1, security: 0 }.encode();
        assert_eq!(Greeting::decode(newer), Err(WireError::OtherVersion(VERSION + 1)));
        let secured = Greeting { version: VERSION, security: 1 }.encode();
        assert_eq!(Greeting::decode(secured), Err(WireError::OtherSecurity(1)));
        // Kept for later: whoever sets it today means nothing by it that we know.
        assert_eq!(
            Greeting::decode([ours[0], ours[1], ours[2], ours[3], ours[4], ours[5], 0, 9]),
            Ok(Greeting::ours())
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = heard([bytes.as_slice()]);
            let _ = heard([framed(&bytes).as_slice()]);
        }

        #[test]
        fn any_bytes_under_a_known_kind_are_a_message_or_an_error(
            kind in prop::sample::select(samples().iter().map(|message| encode(message)[4]).collect::<Vec<_>>()),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = framed(&[&[kind], bytes.as_slice()].concat());
            if let Ok(heard) = heard([frame.as_slice()]) {
                for message in heard {
                    // Whatever was taken can be said again, and means the same.
                    let again = encode(&message);
                    let mut inbox = Inbox::default();
                    inbox.feed(&again);
                    prop_assert_eq!(inbox.next_message(), Ok(Some(message)));
                }
            }
        }

        #[test]
        fn damage_anywhere_in_a_stream_never_panics(
            at in any::<prop::sample::Index>(),
            with in proptest::collection::vec(any::<u8>(), 0..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut stream = frames().concat();
            let start = at.index(stream.len());
            let end = (start + with.len() / 2).min(stream.len());
            stream.splice(start..end, with);
            let (first, second) = stream.split_at(cut.index(stream.len()));
            let _ = heard([first, second]);
        }
    }
}
