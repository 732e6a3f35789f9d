//! Ring files, read and written.
//!
//! A ring file is gzip over either of two layouts, and Swift's daemons and ours must see the same ring in the same file:
//!
//! * **v1**: `R1NG`, version, one JSON header, then the rows of device ids until the stream ends. Read as a stream; the
//!   gzip checksum at its end vouches for it.
//! * **v2**: named sections and an index of them, so that a reader can seek to what it wants in the compressed file. Read
//!   by seeking, as Swift does, each section held to its own checksum. Inflating from the start and using the uncompressed
//!   offsets would also read a file that was compressed anew, but Swift's daemons refuse such a file: a node whose
//!   replicator follows another ring than its servers moves databases away from those who look for them. So do we.
//!
//! A ring comes from the operator, not from a peer, but it arrives by copying and may be cut short, damaged or not a ring
//! at all. Nothing in it is believed before it is checked: no length allocates, no id is kept that names no device.
//!
//! What is written has, inflated, the bytes Swift would write; only the compressor differs. Equal rings give equal files.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::{Compress, Compression, Crc, FlushCompress};
use md5::digest::DynDigest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::hash_path::{PartShift, Partition};

/// A device's number: its place in the ring's list of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u32);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A device as the ring describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its place in the list.
    pub id: DeviceId,
    /// The widest tier.
    pub region: i64,
    /// A zone of that region.
    pub zone: i64,
    /// Where its servers listen for clients: an address or a host name. Also the tier below the zone.
    pub ip: String,
    /// The servers' port.
    pub port: u16,
    /// Where its servers listen for replication; `ip` if the file has none, or an empty one.
    #[serde(default)]
    pub replication_ip: String,
    /// The port for replication; `port` if the file has none, or 0.
    #[serde(default)]
    pub replication_port: u16,
    /// The directory it is mounted on, below the directory of all devices.
    #[serde(rename = "device")]
    pub name: String,
    /// Its share of the partitions relative to other devices; 0 = being drained.
    #[serde(default)]
    pub weight: f64,
    /// The operator's notes.
    #[serde(default)]
    pub meta: String,
    /// Keys that mean nothing to us, kept so that writing the ring back loses nothing.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// All that a ring file holds, checked: every id in the rows names a device of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct RingData {
    /// How hashes become partitions.
    pub part_shift: PartShift,
    /// Devices by id; `None` where one was removed. Boxed, for a list of nothing but holes must cost little.
    pub devices: Vec<Option<Box<Device>>>,
    /// Which device holds which replica of which partition.
    pub assignments: Assignments,
    /// Counts the builder's changes, in rings that say so.
    pub version: Option<i64>,
    /// The power that partitions are about to be split to, if they are.
    pub next_part_power: Option<i64>,
    /// How wide ids are in a v2 file. v1 has always two bytes.
    pub id_width: IdWidth,
    /// Header keys that mean nothing to us.
    pub extra: Map<String, Value>,
}

/// The layout of a ring file. Swift writes v1 unless asked for v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatVersion {
    /// One header and the rows.
    V1,
    /// Sections and an index.
    V2,
}

impl FormatVersion {
    /// The layout of a file, by its first bytes.
    ///
    /// # Errors
    ///
    /// What is no ring, and rings of a version that we do not know.
    pub fn of<R: Read + Seek>(file: &mut R) -> Result<FormatVersion, RingFault> {
        let mark: [u8; 2] = take_bytes(file)?;
        if mark != GZIP_MARK {
            return Err(RingFault::NotGzip);
        }
        file.rewind().map_err(RingFault::Unreadable)?;
        let [magic @ .., high, low]: [u8; HEAD_BYTES] = take_bytes(&mut GzDecoder::new(file))?;
        match u16::from_be_bytes([high, low]) {
            _ if magic != *MAGIC => Err(RingFault::Magic(magic)),
            1 => Ok(FormatVersion::V1),
            2 => Ok(FormatVersion::V2),
            version => Err(RingFault::Version(version)),
        }
    }
}

/// Bytes per device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdWidth {
    /// Ids up to 65534.
    Two,
    /// Ids up to 2^32 - 2.
    Four,
}

impl IdWidth {
    /// 2 or 4.
    pub fn bytes(self) -> usize {
        match self {
            IdWidth::Two => 2,
            IdWidth::Four => 4,
        }
    }

    /// What stands for "no device yet" (`swift/common/ring/utils.py: none_dev_id`). No finished ring has it.
    fn unassigned(self) -> u32 {
        match self {
            IdWidth::Two => u32::from(u16::MAX),
            IdWidth::Four => u32::MAX,
        }
    }
}

/// The order of bytes in the ids of a v1 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ByteOrder {
    /// Also where the file does not say: it meant the order of the machine that wrote it.
    #[default]
    Little,
    Big,
}

/// The rows of a ring, one after the other: row `r` holds the `r`th replica of each partition. Only the last may be
/// short, where the replica count is not whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignments {
    partitions: u32,
    ids: Ids,
}

/// Two bytes an id unless the ring has more devices than that.
#[derive(Debug, Clone, PartialEq)]
enum Ids {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Assignments {
    fn new(part_shift: PartShift, devices: usize) -> Result<Assignments, RingFault> {
        let partitions = part_shift.partitions();
        if partitions > ASSIGNMENT_LIMIT {
            return Err(RingFault::TooLarge { what: "rows", limit: ASSIGNMENT_LIMIT });
        }
        let narrow = devices <= usize::from(u16::MAX) + 1;
        let ids = if narrow { Ids::Narrow(Vec::new()) } else { Ids::Wide(Vec::new()) };
        Ok(Assignments { partitions: partitions as u32, ids })
    }

    /// How many partitions there are: at least 1.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// How many rows there are, the short one included.
    pub fn rows(&self) -> usize {
        self.len().div_ceil(self.partitions as usize)
    }

    /// Whole rows and the part of a row (`swift/common/ring/ring.py: calc_replica_count`).
    pub fn replica_count(&self) -> f64 {
        let last = self.len() - (self.rows() - 1) * self.partitions as usize;
        (self.rows() - 1) as f64 + last as f64 / f64::from(self.partitions)
    }

    /// The device of one replica; `None` past the end of the row, or of the rows.
    pub fn device(&self, row: usize, partition: Partition) -> Option<DeviceId> {
        if partition.0 >= self.partitions {
            return None;
        }
        let place = row.checked_mul(self.partitions as usize)?.checked_add(partition.0 as usize)?;
        match &self.ids {
            Ids::Narrow(ids) => ids.get(place).map(|&id| DeviceId(id.into())),
            Ids::Wide(ids) => ids.get(place).map(|&id| DeviceId(id)),
        }
    }

    /// Every id, row after row.
    pub fn iter(&self) -> impl Iterator<Item = DeviceId> + '_ {
        let (narrow, wide): (&[u16], &[u32]) = match &self.ids {
            Ids::Narrow(ids) => (ids, &[]),
            Ids::Wide(ids) => (&[], ids),
        };
        narrow.iter().map(|&id| DeviceId(id.into())).chain(wide.iter().map(|&id| DeviceId(id)))
    }

    fn len(&self) -> usize {
        match &self.ids {
            Ids::Narrow(ids) => ids.len(),
            Ids::Wide(ids) => ids.len(),
        }
    }

    /// Adds an id at the end; it must name a device.
    fn push(&mut self, id: DeviceId, devices: &[Option<Box<Device>>]) -> Result<(), RingFault> {
        if !matches!(devices.get(id.0 as usize), Some(Some(_))) {
            let (replica, partition) = self.end();
            return Err(RingFault::NoDevice { id, replica, partition });
        }
        match &mut self.ids {
            Ids::Narrow(ids) => ids.push(id.0 as u16),
            Ids::Wide(ids) => ids.push(id.0),
        }
        Ok(())
    }

    /// The row and the partition of the id to come.
    fn end(&self) -> (usize, Partition) {
        let partitions = self.partitions as usize;
        (self.len() / partitions, Partition((self.len() % partitions) as u32))
    }

    /// Takes in ids until the stream ends, but not more than `most`. The first row must be full: it says how many
    /// partitions there are.
    fn fill(
        &mut self,
        stream: &mut impl Read,
        (width, order): (IdWidth, ByteOrder),
        devices: &[Option<Box<Device>>],
        (least, most): (u64, u64),
    ) -> Result<(), RingFault> {
        if most > ASSIGNMENT_LIMIT {
            return Err(RingFault::TooLarge { what: "rows", limit: ASSIGNMENT_LIMIT });
        }
        let least = least.max(self.partitions.into());
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut kept = 0;
        loop {
            let filled = match stream.read(&mut buffer[kept..]) {
                Ok(0) => break,
                Ok(read) => kept + read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(inflating(error)),
            };
            let whole = filled - filled % width.bytes();
            let found = self.len() as u64 + (whole / width.bytes()) as u64;
            if found > most {
                return Err(RingFault::RowLengths { least, most, found });
            }
            for bytes in buffer[..whole].chunks_exact(width.bytes()) {
                let id = bytes.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
                let id = match (order, width) {
                    (ByteOrder::Big, _) => id,
                    (ByteOrder::Little, IdWidth::Two) => u32::from((id as u16).swap_bytes()),
                    (ByteOrder::Little, IdWidth::Four) => id.swap_bytes(),
                };
                if id == width.unassigned() {
                    let (replica, partition) = self.end();
                    return Err(RingFault::Unassigned { replica, partition });
                }
                self.push(DeviceId(id), devices)?;
            }
            buffer.copy_within(whole..filled, 0);
            kept = filled - whole;
        }
        match self.len() as u64 {
            _ if kept > 0 => Err(RingFault::OddLength),
            found if found < least => Err(RingFault::RowLengths { least, most, found }),
            _ => Ok(()),
        }
    }
}

impl RingData {
    /// A ring from its parts. Every row but the last has one id for each partition; the last has at least one and at
    /// most as many.
    ///
    /// # Errors
    ///
    /// Rows of other lengths, ids that name no device, devices that are not in the place of their id.
    pub fn from_rows(
        part_shift: PartShift,
        devices: Vec<Option<Device>>,
        rows: &[Vec<DeviceId>],
    ) -> Result<RingData, RingFault> {
        let devices = checked(devices.into_iter().map(|device| device.map(Box::new)).collect())?;
        let mut assignments = Assignments::new(part_shift, devices.len())?;
        if rows.is_empty() {
            let full = assignments.partitions.into();
            return Err(RingFault::RowLengths { least: full, most: ASSIGNMENT_LIMIT, found: 0 });
        }
        for (index, row) in rows.iter().enumerate() {
            let full = u64::from(assignments.partitions);
            let least = if index > 0 && index + 1 == rows.len() { 1 } else { full };
            if !(least..=full).contains(&(row.len() as u64)) {
                return Err(RingFault::RowLengths { least, most: full, found: row.len() as u64 });
            }
            if (assignments.len() + row.len()) as u64 > ASSIGNMENT_LIMIT {
                return Err(RingFault::TooLarge { what: "rows", limit: ASSIGNMENT_LIMIT });
            }
            row.iter().try_for_each(|&id| assignments.push(id, &devices))?;
        }
        let id_width = if devices.len() > usize::from(u16::MAX) { IdWidth::Four } else { IdWidth::Two };
        Ok(RingData {
            part_shift,
            devices,
            assignments,
            version: None,
            next_part_power: None,
            id_width,
            extra: Map::new(),
        })
    }

    /// Reads a ring file of either version (`swift/common/ring/ring.py: RingData.load`).
    ///
    /// # Errors
    ///
    /// Anything that is not a whole ring. At most [`JSON_LIMIT_BYTES`] of JSON and [`ASSIGNMENT_LIMIT`] ids are taken in.
    pub fn read<R: Read + Seek>(file: &mut R) -> Result<RingData, RingFault> {
        let version = FormatVersion::of(file)?;
        file.rewind().map_err(RingFault::Unreadable)?;
        match version {
            FormatVersion::V1 => {
                let mut stream = GzDecoder::new(file);
                let _: [u8; HEAD_BYTES] = take_bytes(&mut stream)?;
                read_v1(stream)
            }
            FormatVersion::V2 => read_v2(file),
        }
    }

    /// The bytes of a ring file. `name` is the file's own name, which gzip records without its `.gz`.
    ///
    /// # Errors
    ///
    /// [`RingFault::WideIds`] if the ids do not fit the layout.
    pub fn to_bytes(&self, version: FormatVersion, name: &str) -> Result<Vec<u8>, RingFault> {
        match version {
            FormatVersion::V1 => self.to_bytes_v1(name, ByteOrder::Little),
            FormatVersion::V2 => self.to_bytes_v2(name),
        }
    }
}

// ---- v1 ----

#[derive(Deserialize)]
struct HeaderV1 {
    devs: Vec<Option<Box<Device>>>,
    replica_count: u64,
    #[serde(default)]
    byteorder: ByteOrder,
    #[serde(flatten)]
    common: Header,
}

/// What the headers of both versions say.
#[derive(Deserialize)]
struct Header {
    part_shift: i64,
    version: Option<i64>,
    next_part_power: Option<i64>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Header {
    fn part_shift(&self) -> Result<PartShift, RingFault> {
        let shift = u8::try_from(self.part_shift).ok().and_then(PartShift::new);
        shift.ok_or(RingFault::PartShift(self.part_shift))
    }
}

/// The rest of a v1 file (`swift/common/ring/ring.py: RingData.deserialize_v1`).
fn read_v1(mut stream: impl Read) -> Result<RingData, RingFault> {
    let length = u32::from_be_bytes(take_bytes(&mut stream)?);
    let header: HeaderV1 =
        parse("header", &take_text(&mut stream, "header", length.into(), JSON_LIMIT_BYTES)?)?;
    let part_shift = header.common.part_shift()?;
    let devices = checked(header.devs)?;
    let mut assignments = Assignments::new(part_shift, devices.len())?;
    // The last row may be empty: a small fraction of few partitions is none.
    let least = header.replica_count.saturating_sub(1).saturating_mul(part_shift.partitions());
    let most = header.replica_count.saturating_mul(part_shift.partitions());
    assignments.fill(&mut stream, (IdWidth::Two, header.byteorder), &devices, (least, most))?;
    Ok(RingData {
        part_shift,
        devices,
        assignments,
        version: header.common.version,
        next_part_power: header.common.next_part_power,
        id_width: IdWidth::Two,
        extra: header.common.extra,
    })
}

impl RingData {
    /// A v1 file (`swift/common/ring/ring.py: RingData.serialize_v1`).
    fn to_bytes_v1(&self, name: &str, order: ByteOrder) -> Result<Vec<u8>, RingFault> {
        if self.devices.len() > usize::from(u16::MAX) {
            return Err(RingFault::WideIds);
        }
        let order_name = match order {
            ByteOrder::Little => "little",
            ByteOrder::Big => "big",
        };
        let mut header = self.header();
        header.insert("byteorder".into(), order_name.into());
        header.insert("devs".into(), json!(self.devices));
        header.insert("replica_count".into(), self.assignments.rows().into());
        if let Some(version) = self.version {
            header.insert("version".into(), version.into());
        }
        let header = python_json(&header.into());
        let mut body = Vec::with_capacity(4 + header.len() + 2 * self.assignments.len());
        body.extend((header.len() as u32).to_be_bytes());
        body.extend(header);
        body.extend(self.assignments.iter().flat_map(|id| match order {
            ByteOrder::Little => (id.0 as u16).to_le_bytes(),
            ByteOrder::Big => (id.0 as u16).to_be_bytes(),
        }));
        let mut gzip = GzipWriter::new(name);
        gzip.store(&[MAGIC.as_slice(), &1u16.to_be_bytes()].concat());
        gzip.deflate(&body);
        Ok(gzip.finish())
    }

    /// The header keys of both versions.
    fn header(&self) -> Map<String, Value> {
        let mut header = self.extra.clone();
        header.insert("part_shift".into(), self.part_shift.bits().into());
        if let Some(power) = self.next_part_power {
            header.insert("next_part_power".into(), power.into());
        }
        header
    }
}

// ---- v2 ----

#[derive(Deserialize)]
struct HeaderV2 {
    dev_id_bytes: u64,
    #[serde(flatten)]
    common: Header,
}

/// Where a section is: its start in the compressed file and in the inflated stream, where its length stands, and its end in
/// both; then how its checksum is made, and the checksum. JSON has it as a list.
type IndexEntry = (u64, u64, u64, u64, String, String);

/// A v2 file (`swift/common/ring/ring.py: RingData.deserialize_v2`).
fn read_v2<R: Read + Seek>(file: &mut R) -> Result<RingData, RingFault> {
    let index = read_index(file)?;
    let header: HeaderV2 = parse("metadata", &read_section(file, &index, METADATA, INDEX_LIMIT_BYTES)?)?;
    let devices = parse("devices", &read_section(file, &index, DEVICES, JSON_LIMIT_BYTES)?)?;
    let devices = checked(devices)?;
    let part_shift = header.common.part_shift()?;
    let id_width = match header.dev_id_bytes {
        2 => IdWidth::Two,
        4 => IdWidth::Four,
        bytes => return Err(RingFault::IdWidth(bytes)),
    };
    let mut assignments = Assignments::new(part_shift, devices.len())?;
    let mut section = Section::open(file, &index, ASSIGNMENTS)?;
    let most = section.stream.limit() / id_width.bytes() as u64;
    assignments.fill(&mut section, (id_width, ByteOrder::Big), &devices, (1, most))?;
    section.finish()?;
    let mut extra = header.common.extra;
    // It follows from the rows.
    extra.remove("replica_count");
    Ok(RingData {
        part_shift,
        devices,
        assignments,
        version: header.common.version,
        next_part_power: header.common.next_part_power,
        id_width,
        extra,
    })
}

/// Finds the index by the offset in the file's last bytes (`swift/common/ring/io.py: RingReader.load_index`).
fn read_index<R: Read + Seek>(file: &mut R) -> Result<Map<String, Value>, RingFault> {
    let mut find = || {
        file.seek(SeekFrom::End(-TAIL_BYTES)).map_err(inflating)?;
        let tail: [u8; TAIL_BYTES as usize] = take_bytes(file)?;
        let Some((offset, _)) = tail.strip_prefix(&OFFSET_HEAD).and_then(<[u8]>::split_first_chunk) else {
            return Err(RingFault::Cut);
        };
        let offset = u64::from_be_bytes(*offset);
        file.seek(SeekFrom::Start(offset)).map_err(inflating)?;
        let mut stream = DeflateDecoder::new(&mut *file);
        let length = u64::from_be_bytes(take_bytes(&mut stream)?);
        parse("index", &take_text(&mut stream, "index", length, INDEX_LIMIT_BYTES)?)
    };
    find().map_err(|fault| why_no_index(file, fault))
}

/// What happened to a file whose index is not to be found: anything may stand where its offset should, so only a look at
/// the whole file can tell.
fn why_no_index<R: Read + Seek>(file: &mut R, fault: RingFault) -> RingFault {
    let most = JSON_LIMIT_BYTES + 4 * ASSIGNMENT_LIMIT;
    let looked = file.rewind().and_then(|()| io::copy(&mut GzDecoder::new(file).take(most), &mut io::sink()));
    match (looked, fault) {
        (Err(error), _) => inflating(error),
        (Ok(_), RingFault::Cut | RingFault::Corrupt) => RingFault::Recompressed,
        (Ok(_), fault) => fault,
    }
}

fn read_section<R: Read + Seek>(
    file: &mut R,
    index: &Map<String, Value>,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, RingFault> {
    let mut section = Section::open(file, index, name)?;
    let length = section.stream.limit();
    let text = take_text(&mut section, name, length, limit)?;
    section.finish()?;
    Ok(text)
}

/// A section being read: its payload, counted and mixed into its checksum
/// (`swift/common/ring/io.py: RingReader.open_section, SectionReader`).
struct Section<'a, R> {
    name: &'static str,
    stream: io::Take<DeflateDecoder<&'a mut R>>,
    digest: Box<dyn DynDigest>,
    checksum: String,
}

impl<'a, R: Read + Seek> Section<'a, R> {
    fn open(
        file: &'a mut R,
        index: &Map<String, Value>,
        name: &'static str,
    ) -> Result<Section<'a, R>, RingFault> {
        let entry = index.get(name).ok_or(RingFault::NoSection(name))?;
        let (compressed_start, start, _, end, method, checksum) =
            IndexEntry::deserialize(entry).map_err(|error| RingFault::Json { what: "index", error })?;
        let mut digest: Box<dyn DynDigest> = match method.as_str() {
            "md5" => Box::new(md5::Md5::default()),
            "sha1" => Box::new(sha1::Sha1::default()),
            "sha256" => Box::new(sha2::Sha256::default()),
            "sha512" => Box::new(sha2::Sha512::default()),
            _ => return Err(RingFault::ChecksumMethod(method)),
        };
        file.seek(SeekFrom::Start(compressed_start)).map_err(inflating)?;
        let mut stream = DeflateDecoder::new(file);
        let prefix: [u8; 8] = take_bytes(&mut stream)?;
        let length = u64::from_be_bytes(prefix);
        if length.checked_add(8) != end.checked_sub(start) {
            return Err(RingFault::SectionLength(name));
        }
        digest.update(&prefix);
        Ok(Section { name, stream: stream.take(length), digest, checksum })
    }

    /// Fails unless all of it was read and is what the index says.
    fn finish(self) -> Result<(), RingFault> {
        if self.stream.limit() > 0 {
            return Err(RingFault::Cut);
        }
        if hex(&self.digest.finalize()) != self.checksum {
            return Err(RingFault::Checksum(self.name));
        }
        Ok(())
    }
}

impl<R: Read> Read for Section<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

impl RingData {
    /// A v2 file (`swift/common/ring/ring.py: RingData.serialize_v2`, `io.py: RingWriter`).
    fn to_bytes_v2(&self, name: &str) -> Result<Vec<u8>, RingFault> {
        let width = self.id_width.bytes();
        if width == 2 && self.devices.len() > usize::from(u16::MAX) {
            return Err(RingFault::WideIds);
        }
        let mut header = self.header();
        header.insert("dev_id_bytes".into(), width.into());
        header.insert("replica_count".into(), self.assignments.replica_count().into());
        header.insert("version".into(), self.version.into());
        let mut ids = Vec::with_capacity(self.assignments.len() * width);
        for id in self.assignments.iter() {
            ids.extend(&id.0.to_be_bytes()[4 - width..]);
        }

        let mut gzip = GzipWriter::new(name);
        gzip.store(&[MAGIC.as_slice(), &2u16.to_be_bytes()].concat());
        let mut index = BTreeMap::new();
        for (name, payload) in [
            (METADATA, python_json(&header.into())),
            (DEVICES, python_json(&json!(self.devices))),
            (ASSIGNMENTS, ids),
        ] {
            index.insert(name, gzip.section(payload));
        }
        let (compressed, uncompressed) = (gzip.bytes.len() as u64, gzip.inflated);
        gzip.section(python_json(&json!(index)));
        gzip.store(&uncompressed.to_be_bytes());
        gzip.store(&compressed.to_be_bytes());
        Ok(gzip.finish())
    }
}

// ---- gzip and JSON as Swift writes them ----

/// A gzip file in which every piece begins and ends at a full flush, so that a reader can begin at any of them
/// (`swift/common/ring/io.py: _RingGzWriter`).
struct GzipWriter {
    bytes: Vec<u8>,
    crc: Crc,
    inflated: u64,
}

impl GzipWriter {
    /// `name` is left out unless it is plain, for gzip means it to be Latin-1.
    fn new(name: &str) -> GzipWriter {
        let name = if name.is_ascii() && !name.contains('\0') { name } else { "" };
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let has_name = if name.is_empty() { 0 } else { 8 };
        let mut bytes = vec![0x1f, 0x8b, 8, has_name];
        bytes.extend(GZIP_TIME.to_le_bytes());
        bytes.extend([2, 255]);
        if has_name != 0 {
            bytes.extend(name.bytes().chain([0]));
        }
        GzipWriter { bytes, crc: Crc::new(), inflated: 0 }
    }

    /// A few bytes as they are: 10 more than there are, so that a reader can find them counting from the file's end.
    fn store(&mut self, data: &[u8]) {
        let length = u16::try_from(data.len()).expect("only magic and offsets are stored");
        self.count(data);
        self.bytes.push(0);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend((!length).to_le_bytes());
        self.bytes.extend(data);
        self.bytes.extend([0, 0, 0, 0xff, 0xff]);
    }

    fn deflate(&mut self, data: &[u8]) {
        self.count(data);
        let mut compress = Compress::new(Compression::best(), false);
        // Room left over after a flush is how zlib says that the flush is complete.
        loop {
            self.bytes.reserve(CHUNK_BYTES);
            let rest = &data[compress.total_in() as usize..];
            compress
                .compress_vec(rest, &mut self.bytes, FlushCompress::Full)
                .expect("nothing a compressor is given can be wrong");
            if compress.total_in() == data.len() as u64 && self.bytes.len() < self.bytes.capacity() {
                break;
            }
        }
    }

    /// The length and the payload; where they are, and their checksum.
    fn section(&mut self, mut payload: Vec<u8>) -> IndexEntry {
        let (compressed_start, start) = (self.bytes.len() as u64, self.inflated);
        payload.splice(..0, (payload.len() as u64).to_be_bytes());
        self.deflate(&payload);
        let checksum = hex(&<sha2::Sha256 as md5::Digest>::digest(&payload));
        (compressed_start, start, self.bytes.len() as u64, self.inflated, "sha256".into(), checksum)
    }

    fn count(&mut self, data: &[u8]) {
        self.crc.update(data);
        self.inflated += data.len() as u64;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([1, 0, 0, 0xff, 0xff]);
        self.bytes.extend(self.crc.sum().to_le_bytes());
        self.bytes.extend((self.inflated as u32).to_le_bytes());
        self.bytes
    }
}

/// JSON as Python's `json.dumps` writes it with sorted keys: in ASCII, a blank after each comma and colon.
fn python_json(value: &Value) -> Vec<u8> {
    struct Python;
    impl serde_json::ser::Formatter for Python {
        fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }

        fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
            self.begin_array_value(out, first)
        }

        fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
            out.write_all(b": ")
        }

        fn write_string_fragment<W: ?Sized + io::Write>(
            &mut self,
            out: &mut W,
            text: &str,
        ) -> io::Result<()> {
            for unit in text.encode_utf16() {
                match u8::try_from(unit) {
                    Ok(plain @ b' '..=b'~') => out.write_all(&[plain])?,
                    _ => write!(out, "\\u{unit:04x}")?,
                }
            }
            Ok(())
        }
    }
    let mut out = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, Python))
        .expect("a value whose keys are text can be written to memory");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- small steps of reading ----

fn take_bytes<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], RingFault> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(inflating)?;
    Ok(bytes)
}

/// `length` bytes, but memory only for those that come.
fn take_text(
    stream: &mut impl Read,
    what: &'static str,
    length: u64,
    limit: u64,
) -> Result<Vec<u8>, RingFault> {
    if length > limit {
        return Err(RingFault::TooLarge { what, limit });
    }
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text).map_err(inflating)?;
    if (text.len() as u64) < length {
        return Err(RingFault::Cut);
    }
    Ok(text)
}

fn parse<T: DeserializeOwned>(what: &'static str, text: &[u8]) -> Result<T, RingFault> {
    serde_json::from_slice(text).map_err(|error| RingFault::Json { what, error })
}

/// The devices, each in the place its id says and with the replication address it may have left out
/// (`swift/common/ring/ring.py: normalize_devices`).
fn checked(mut devices: Vec<Option<Box<Device>>>) -> Result<Vec<Option<Box<Device>>>, RingFault> {
    for (place, device) in devices.iter_mut().enumerate() {
        let Some(device) = device else { continue };
        if device.id.0 as usize != place || !device.weight.is_finite() {
            return Err(RingFault::BadDevice { place });
        }
        if device.replication_ip.is_empty() {
            device.replication_ip.clone_from(&device.ip);
        }
        if device.replication_port == 0 {
            device.replication_port = device.port;
        }
    }
    Ok(devices)
}

/// What a failed read or seek of the compressed file means.
fn inflating(error: io::Error) -> RingFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RingFault::Cut,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => RingFault::Corrupt,
        _ => RingFault::Unreadable(error),
    }
}

/// What is wrong with a ring.
#[derive(Debug)]
pub enum RingFault {
    /// The file cannot be opened or read.
    Unreadable(io::Error),
    /// The file cannot be written.
    Unwritable(io::Error),
    /// It does not begin as gzip does.
    NotGzip,
    /// It does not inflate, or not to what its checksum says.
    Corrupt,
    /// It ends too early; an empty file also does.
    Cut,
    /// What is inside does not begin with `R1NG`; rings of the oldest Swifts do not either.
    Magic([u8; 4]),
    /// A version other than 1 and 2.
    Version(u16),
    /// A v2 ring that was unpacked and packed again, which loses the places to seek to.
    Recompressed,
    /// More of something than any ring has.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Bytes of JSON, or ids in all rows.
        limit: u64,
    },
    /// JSON that is none, or lacks what it must have.
    Json {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A shift outside 0 to 32.
    PartShift(i64),
    /// Device ids of other than 2 or 4 bytes.
    IdWidth(u64),
    /// A v2 section that is not there.
    NoSection(&'static str),
    /// A v2 section whose length is not what the index says.
    SectionLength(&'static str),
    /// A kind of checksum that v2 does not have.
    ChecksumMethod(String),
    /// A v2 section with a wrong checksum.
    Checksum(&'static str),
    /// Rows that end in the middle of an id.
    OddLength,
    /// Too few or too many ids.
    RowLengths {
        /// The fewest there may be.
        least: u64,
        /// The most there may be.
        most: u64,
        /// How many there are, or were when reading stopped.
        found: u64,
    },
    /// A device that is not where its id says, or whose weight is no number.
    BadDevice {
        /// Its place in the list.
        place: usize,
    },
    /// An id that names no device.
    NoDevice {
        /// The id.
        id: DeviceId,
        /// The row.
        replica: usize,
        /// The partition.
        partition: Partition,
    },
    /// A replica that was not placed yet.
    Unassigned {
        /// The row.
        replica: usize,
        /// The partition.
        partition: Partition,
    },
    /// Too many devices for the width of ids to be written.
    WideIds,
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RingFault::*;
        match self {
            Unreadable(error) => write!(f, "cannot read it: {error}"),
            Unwritable(error) => write!(f, "cannot write it: {error}"),
            NotGzip => write!(f, "not gzip, so not a ring file; name the .ring.gz, not the .builder"),
            Corrupt => write!(f, "damaged; copy the ring again"),
            Cut => write!(f, "cut short; copy the ring again"),
            Magic(magic) => {
                write!(
                    f,
                    "begins with \"{}\", not \"R1NG\"; it is another kind of file",
                    magic.escape_ascii()
                )
            }
            Version(version) => {
                write!(f, "format version {version} is neither 1 nor 2; write it with --format-version=1")
            }
            Recompressed => {
                write!(f, "a v2 ring that was compressed anew; copy the ring again as it was written")
            }
            TooLarge { what, limit } => {
                write!(f, "its {what} exceed the limit of {limit}; copy the ring again")
            }
            Json { what, error } => write!(f, "bad JSON in its {what}: {error}; write the ring again"),
            PartShift(shift) => write!(f, "a part shift of {shift}, outside 0 to 32; write the ring again"),
            IdWidth(bytes) => write!(f, "device ids of {bytes} bytes, not 2 or 4; write the ring again"),
            NoSection(name) => write!(f, "has no section {name}; write the ring again"),
            SectionLength(name) => write!(f, "the length of section {name} is wrong; copy the ring again"),
            ChecksumMethod(method) => {
                write!(
                    f,
                    "unknown checksum {method:?}, not md5, sha1, sha256 or sha512; write the ring again"
                )
            }
            Checksum(name) => write!(f, "the checksum of section {name} is wrong; copy the ring again"),
            OddLength => write!(f, "its rows end in the middle of a device id; copy the ring again"),
            RowLengths { least, most, found } => {
                write!(f, "{found} device ids where there must be {least} to {most}; write the ring again")
            }
            BadDevice { place } => {
                write!(f, "device {place} has another id or a weight that is no number; write the ring again")
            }
            NoDevice { id, replica, partition } => write!(
                f,
                "replica {replica} of partition {partition} is on device {id}, which does not exist; rebalance and write the ring again"
            ),
            Unassigned { replica, partition } => write!(
                f,
                "replica {replica} of partition {partition} is on no device; rebalance and write the ring again"
            ),
            WideIds => write!(f, "too many devices for ids of 2 bytes; write version 2 with ids of 4"),
        }
    }
}

impl std::error::Error for RingFault {}

/// The most JSON a ring may have for header or devices: some 200,000 devices.
pub const JSON_LIMIT_BYTES: u64 = 64 << 20;

/// The most ids in all rows together: four replicas at part power 24, where real clusters stop well below.
pub const ASSIGNMENT_LIMIT: u64 = 1 << 26;

/// The most JSON for the index or the metadata of a v2 file, which have some hundred bytes.
const INDEX_LIMIT_BYTES: u64 = 1 << 20;

/// What is inflated or deflated at once.
const CHUNK_BYTES: usize = 64 << 10;

const GZIP_MARK: [u8; 2] = [0x1f, 0x8b];
const MAGIC: &[u8; 4] = b"R1NG";
/// Magic and version.
const HEAD_BYTES: usize = 6;

/// The time in the gzip header of every ring that Swift writes, so that equal rings are equal files.
const GZIP_TIME: u32 = 1_300_507_380;

/// The end of a v2 file: the stored offset of the index (18), an empty block (5), gzip's checksum and length (8).
const TAIL_BYTES: i64 = 31;

/// What stands before the stored offset: the head of a block of 8 bytes as they are. Swift inflates it instead, and so
/// takes the offset even from a file that has lost its last 5 bytes.
const OFFSET_HEAD: [u8; 5] = [0, 8, 0, 0xf7, 0xff];

const METADATA: &str = "swift/ring/metadata";
const DEVICES: &str = "swift/ring/devices";
const ASSIGNMENTS: &str = "swift/ring/assignments";

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// Three devices and a hole, two and a quarter replicas of eight partitions, and everything that a writer could lose.
    fn small() -> RingData {
        let device = |id: u32| {
            Some(Device {
                id: DeviceId(id),
                region: 1,
                zone: id.into(),
                ip: format!("10.0.0.{id}"),
                port: 6201,
                replication_ip: "::1".into(),
                replication_port: 6301,
                name: format!("sd{id}"),
                weight: 0.1 * f64::from(id),
                meta: "é\u{7f}\u{1f600}\"\\\n".into(),
                extra: Map::from_iter([("parts".into(), json!([1, null]))]),
            })
        };
        let row = |ids: &[u32]| ids.iter().copied().map(DeviceId).collect();
        let rows: [Vec<DeviceId>; 3] =
            [row(&[0, 1, 3, 0, 1, 3, 0, 1]), row(&[1, 3, 0, 1, 3, 0, 1, 3]), row(&[3, 0])];
        let shift = PartShift::new(29).expect("a shift");
        let mut data =
            RingData::from_rows(shift, vec![device(0), device(1), None, device(3)], &rows).expect("a ring");
        data.version = Some(7);
        data.next_part_power = Some(4);
        data.extra = Map::from_iter([("unknown".into(), json!({"a": 1}))]);
        data
    }

    fn read(bytes: &[u8]) -> Result<RingData, RingFault> {
        RingData::read(&mut Cursor::new(bytes))
    }

    fn inflate(bytes: &[u8]) -> Vec<u8> {
        let mut inflated = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut inflated).expect("sound gzip");
        inflated
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// A v1 file with a given header and rows.
    fn v1(header: &Value, rows: &[u8]) -> Vec<u8> {
        let header = header.to_string();
        gzip(&[b"R1NG\0\x01", &(header.len() as u32).to_be_bytes()[..], header.as_bytes(), rows].concat())
    }

    /// A header for one device `0` and two partitions.
    fn tiny_header() -> Value {
        let device = json!({"id": 0, "region": 1, "zone": 1, "ip": "a", "port": 1, "device": "sda"});
        json!({"devs": [device], "part_shift": 31, "replica_count": 2})
    }

    #[test]
    fn what_is_written_is_read_back_in_every_layout() {
        let data = small();
        for order in [ByteOrder::Little, ByteOrder::Big] {
            assert_eq!(
                read(&data.to_bytes_v1("x.ring.gz", order).expect("to write")).expect("to read"),
                data
            );
        }
        for id_width in [IdWidth::Two, IdWidth::Four] {
            let data = RingData { id_width, ..small() };
            assert_eq!(
                read(&data.to_bytes(FormatVersion::V2, "x").expect("to write")).expect("to read"),
                data
            );
        }
        let bare = RingData { version: None, next_part_power: None, extra: Map::new(), ..small() };
        for version in [FormatVersion::V1, FormatVersion::V2] {
            assert_eq!(
                read(&bare.to_bytes(version, "ring\u{fc}").expect("to write")).expect("to read"),
                bare
            );
        }
    }

    #[test]
    fn more_devices_than_two_bytes_can_name_need_four() {
        let device = |id| {
            let mut device = *small().devices[0].clone().expect("a device");
            device.id = DeviceId(id);
            Some(device)
        };
        let with = |count: u32| {
            let mut devices = vec![None; count as usize];
            devices[count as usize - 1] = device(count - 1);
            let row = vec![DeviceId(count - 1); 2];
            RingData::from_rows(PartShift::new(31).expect("a shift"), devices, &[row]).expect("a ring")
        };
        let most = with(65535);
        assert_eq!(read(&most.to_bytes(FormatVersion::V1, "").expect("to write")).expect("to read"), most);
        for count in [65536, 65537] {
            let wide = with(count);
            assert!(matches!(wide.to_bytes(FormatVersion::V1, ""), Err(RingFault::WideIds)));
            assert_eq!(wide.id_width, IdWidth::Four);
            assert_eq!(
                read(&wide.to_bytes(FormatVersion::V2, "").expect("to write")).expect("to read"),
                wide
            );
            let narrow = RingData { id_width: IdWidth::Two, ..wide };
            assert!(matches!(narrow.to_bytes(FormatVersion::V2, ""), Err(RingFault::WideIds)));
        }
    }

    #[test]
    fn a_v2_file_ends_as_swift_needs_it_and_has_its_index_where_it_says() {
        let bytes = small().to_bytes(FormatVersion::V2, "x.ring.gz").expect("to write");
        let inflated = inflate(&bytes);
        let offset =
            |at: usize| u64::from_be_bytes(inflated[inflated.len() - at..][..8].try_into().expect("8 bytes"));
        let tail = &bytes[bytes.len() - 31..];
        assert_eq!(tail[..5], OFFSET_HEAD);
        assert_eq!(tail[5..13], offset(8).to_be_bytes());
        assert_eq!(tail[13..23], [0, 0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
        assert!(inflated[offset(16) as usize + 8..].starts_with(b"{\"swift/ring/assignments\": ["));
    }

    #[test]
    fn json_is_as_python_writes_it() {
        let value = json!({"b": [1, 2.0, null, "é\u{7f}\u{1f600}/\n"], "a": {}, "c": []});
        let text = String::from_utf8(python_json(&value)).expect("ASCII");
        assert_eq!(text, r#"{"a": {}, "b": [1, 2.0, null, "\u00e9\u007f\ud83d\ude00/\n"], "c": []}"#);
    }

    #[test]
    fn data_that_cannot_be_compressed_is_flushed_whole() {
        let mut noise = 1u32;
        for length in [0, 1, CHUNK_BYTES - 20, CHUNK_BYTES - 5, CHUNK_BYTES, 3 * CHUNK_BYTES + 1] {
            let data: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1664525).wrapping_add(1013904223);
                (noise >> 24) as u8
            })
            .take(length)
            .collect();
            let mut gzip = GzipWriter::new("");
            gzip.deflate(&data);
            assert!(gzip.bytes.ends_with(&[0, 0, 0xff, 0xff]), "{length}");
            assert!(inflate(&gzip.finish()) == data, "{length}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let bytes = small().to_bytes(version, "x.ring.gz").expect("to write");
            for length in 0..bytes.len() {
                let fault = read(&bytes[..length]).expect_err("a cut file");
                assert!(matches!(fault, RingFault::Cut), "{version:?} cut to {length}: {fault:?}");
            }
        }
    }

    #[test]
    fn a_stream_cut_before_it_was_compressed_is_refused_unless_it_is_a_shorter_last_row() {
        let bytes = inflate(&small().to_bytes(FormatVersion::V1, "").expect("to write"));
        for length in 0..bytes.len() {
            match read(&gzip(&bytes[..length])) {
                Ok(data) => {
                    assert!(data.assignments.replica_count() < 2.25 && bytes.len() - length <= 4, "{length}");
                }
                Err(RingFault::Cut | RingFault::OddLength | RingFault::RowLengths { .. }) => {}
                Err(fault) => panic!("cut to {length}: {fault:?}"),
            }
        }
    }

    #[test]
    fn flipped_bits_are_noticed_or_make_no_difference() {
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let bytes = small().to_bytes(version, "x.ring.gz").expect("to write");
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(data) = read(&flipped) {
                    assert_eq!(data, small(), "{version:?} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn bytes_changed_before_compression_never_panic() {
        // Every byte in turn becomes each of a few values, past all checksums of gzip.
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let bytes = inflate(&small().to_bytes(version, "").expect("to write"));
            for place in 0..bytes.len() {
                for value in [0, b'"', b'9', 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[place] = value;
                    let mut gzip = GzipWriter::new("");
                    gzip.deflate(&changed);
                    _ = read(&gzip.finish());
                }
            }
        }
    }

    #[test]
    fn rows_must_name_devices_and_fit_the_header() {
        let with = |rows: &[u8]| read(&v1(&tiny_header(), rows));
        assert!(with(&[0; 8]).is_ok());
        assert_eq!(with(&[0; 6]).expect("a short row").assignments.replica_count(), 1.5);
        assert_eq!(with(&[0; 4]).expect("an empty row").assignments.replica_count(), 1.0);
        assert!(matches!(with(&[0; 2]), Err(RingFault::RowLengths { least: 2, most: 4, found: 1 })));
        assert!(matches!(with(&[0; 10]), Err(RingFault::RowLengths { least: 2, most: 4, found: 5 })));
        assert!(matches!(with(&[0; 7]), Err(RingFault::OddLength)));
        let unassigned = with(&[0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert!(matches!(unassigned, Err(RingFault::Unassigned { replica: 1, partition: Partition(1) })));
        let unknown = with(&[0, 0, 1, 0]);
        assert!(matches!(
            unknown,
            Err(RingFault::NoDevice { id: DeviceId(1), replica: 0, partition: Partition(1) })
        ));
    }

    #[test]
    fn what_old_files_leave_out_is_filled_in() {
        let data = read(&v1(&tiny_header(), &[0; 8])).expect("a ring");
        let device = data.devices[0].as_deref().expect("a device");
        assert_eq!((device.replication_ip.as_str(), device.replication_port), ("a", 1));
        assert_eq!((device.weight, device.meta.as_str()), (0.0, ""));
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let with = |key: &str, value: Value| {
            let mut header = tiny_header();
            header[key] = value;
            read(&v1(&header, &[0; 8]))
        };
        for shift in [-1, 33, 1 << 40] {
            assert!(
                matches!(with("part_shift", shift.into()), Err(RingFault::PartShift(found)) if found == shift)
            );
        }
        assert!(matches!(with("part_shift", 0.into()), Err(RingFault::TooLarge { what: "rows", .. })));
        assert!(matches!(with("replica_count", 0.into()), Err(RingFault::RowLengths { .. })));
        assert!(matches!(with("replica_count", u64::MAX.into()), Err(RingFault::TooLarge { .. })));
        for (key, value) in [
            ("replica_count", json!(1.5)),
            ("byteorder", json!("middle")),
            ("devs", json!([{}])),
            ("devs", json!([{"id": -1, "region": 1, "zone": 1, "ip": "", "port": 70000, "device": ""}])),
        ] {
            assert!(matches!(with(key, value), Err(RingFault::Json { what: "header", .. })), "{key}");
        }
        assert!(matches!(with("devs", json!([null])), Err(RingFault::NoDevice { .. })));
    }

    #[test]
    fn lengths_in_the_file_reserve_nothing() {
        let huge = gzip(b"R1NG\0\x01\xff\xff\xff\xff");
        assert!(matches!(read(&huge), Err(RingFault::TooLarge { what: "header", limit: JSON_LIMIT_BYTES })));
        let limit = gzip(b"R1NG\0\x01\x04\0\0\0");
        assert!(matches!(read(&limit), Err(RingFault::Cut)));
        let past = gzip(b"R1NG\0\x01\x04\0\0\x01");
        assert!(matches!(read(&past), Err(RingFault::TooLarge { .. })));
    }

    #[test]
    fn a_bomb_after_the_rows_is_not_inflated() {
        let rows = vec![0; 16 << 20];
        let found = match read(&v1(&tiny_header(), &rows)) {
            Err(RingFault::RowLengths { found, .. }) => found,
            other => panic!("{other:?}"),
        };
        assert!(found <= CHUNK_BYTES as u64, "read on to {found} ids");
    }
}
