//! A builder's file: a Python pickle that Swift's `swift-ring-builder` and we read and write in turn.
//!
//! It holds one dict (`swift/common/ring/builder.py: RingBuilder.to_dict`): the numbers a ring is built by, the devices,
//! which of them are marked for removal, and the rows with when each partition was moved last. Builders older than the
//! dict are an object with attributes of the same names; both lack what came later, and get its default here as they do
//! in Swift (`copy_from`, `load`). The device dicts marked for removal are *the same* as in the list of devices, not
//! equal ones: Swift changes them in one place and means both.
//!
//! An operator's file is believed no more than a peer: what does not hold together is refused with its name and what it
//! should be, before anything is built on it. Only what the rows name may be nonsense; `validate` finds that, and a
//! rebalance mends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::builder::{Builder, PART_POWER_LIMIT};
use super::format::{ASSIGNMENT_LIMIT, Device, DeviceId, IdWidth, JSON_LIMIT_BYTES};
use super::placement::tiers::{LEVELS, Tier};
use super::spread::Spread;
use crate::pickle::{Language, Limits, Pickle, PickleError, Value, Writer};

impl Builder {
    /// Reads a builder's file (`RingBuilder.load`).
    ///
    /// # Errors
    /// No file, one that may not be read, or one that is no whole and sound builder.
    pub fn load(path: &Path) -> Result<Builder, BuilderFileError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let builder = read().map_err(FileFault::reading).and_then(|bytes| Builder::from_bytes(&bytes));
        builder.map_err(|fault| BuilderFileError { path: path.to_owned(), fault })
    }

    /// Writes the builder where every reader finds either the old file or the whole new one, and gives it an id if it has
    /// none yet (`RingBuilder.save`). The new file is whose the old one was, to be read by the same; a first one by everybody.
    ///
    /// # Errors
    /// [`FileFault::Unwritable`]. The old file is then as it was, unless only the last step failed, the sync of its
    /// directory.
    pub fn save(&mut self, path: &Path) -> Result<(), BuilderFileError> {
        let is_new = self.id.is_none();
        self.id.get_or_insert_with(new_id);
        // What a link names is the builder, not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        super::replace(&target, &self.to_bytes(), fs::metadata(&target).ok().as_ref()).map_err(|error| {
            if is_new {
                self.id = None;
            }
            BuilderFileError { path: path.to_owned(), fault: FileFault::Unwritable(error) }
        })
    }

    /// The builder that a file's bytes hold.
    ///
    /// # Errors
    /// Anything but a whole and sound builder.
    pub fn from_bytes(bytes: &[u8]) -> Result<Builder, FileFault> {
        match bytes {
            _ if bytes.len() as u64 > FILE_LIMIT_BYTES => return Err(FileFault::TooLarge),
            [0x1f, 0x8b, ..] => return Err(FileFault::Ring),
            [b'{', ..] => return Err(FileFault::Composite),
            _ => {}
        }
        let pickle = Pickle::read(bytes, LIMITS).map_err(FileFault::Pickle)?;
        let root = pickle.root();
        let fields = match root.object() {
            Some((0, attributes)) => attributes,
            _ => root,
        };
        if fields.entry("devs").is_none() {
            return Err(FileFault::NotABuilder);
        }
        builder(fields)
    }

    /// The bytes of the builder's file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut pickle = Writer::default();
        pickle.dict(|fields| self.write(fields));
        pickle.finish()
    }

    fn write(&self, fields: &mut Writer) {
        fields.word("part_power");
        fields.integer(self.part_power.into());
        fields.word("next_part_power");
        match self.next_part_power {
            Some(power) => fields.integer(power.into()),
            None => fields.none(),
        }
        fields.word("replicas");
        fields.float(self.replicas);
        fields.word("min_part_hours");
        fields.integer(self.min_part_hours.into());
        fields.word("parts");
        fields.integer(self.partitions().into());

        let parts = self.parts();
        let mut places = BTreeMap::new();
        fields.word("devs");
        fields.list(self.devices.iter().zip(parts), |list, (device, parts)| match device {
            Some(device) => {
                let place = list.dict(|fields| write_device(fields, device, parts));
                places.insert(device.id, place);
            }
            None => list.none(),
        });
        fields.word("devs_changed");
        fields.boolean(self.devices_changed);
        let is_narrow = self.id_width == IdWidth::Two && self.devices.len() <= usize::from(u16::MAX);
        let (code, unassigned) = if is_narrow { ('H', u16::MAX.into()) } else { ('I', u32::MAX) };
        fields.word("dev_id_bytes");
        fields.integer(if is_narrow { 2 } else { 4 });
        fields.word("version");
        fields.integer(self.version);
        fields.word("overload");
        fields.float(self.overload);

        fields.word("_replica2part2dev");
        match &self.rows {
            Some(rows) => {
                let write_row = |list: &mut Writer, row: &Vec<DeviceId>| {
                    list.array(code, row.iter().map(|id| id.0.min(unassigned)));
                };
                _ = fields.list(rows, write_row);
            }
            None => fields.none(),
        }
        fields.word("_last_part_moves_epoch");
        fields.integer(i64::try_from(self.epoch_secs).unwrap_or(i64::MAX));
        fields.word("_last_part_moves");
        fields.array('B', self.moved_hours.iter().map(|&hours| hours.into()));
        fields.word("_last_part_gather_start");
        fields.integer(i64::try_from(self.gather_start).unwrap_or(i64::MAX));

        fields.word("_dispersion_graph");
        fields.dict(|graph| {
            for (tier, counts) in self.spread.iter().flat_map(|spread| &spread.graph) {
                write_tier(graph, tier);
                graph.list(counts, |list, &count| list.integer(i64::try_from(count).unwrap_or(i64::MAX)));
            }
        });
        fields.word("dispersion");
        match &self.spread {
            Some(spread) => fields.float(spread.dispersion),
            None => fields.none(),
        }
        fields.word("_remove_devs");
        let removed = self.removed.iter().filter_map(|id| places.get(id));
        fields.list(removed, |list, &place| list.recall(place));
        fields.word("id");
        match &self.id {
            Some(id) => _ = fields.text(id),
            None => fields.none(),
        }
    }
}

fn write_device(fields: &mut Writer, device: &Device, parts: u64) {
    let Device { id, region, zone, ip, port, replication_ip, replication_port, name, weight, meta, extra } =
        device;
    let number = |fields: &mut Writer, key: &'static str, number: i64| {
        fields.word(key);
        fields.integer(number);
    };
    let text = |fields: &mut Writer, key: &'static str, text: &str| {
        fields.word(key);
        fields.word(text.to_owned());
    };
    number(fields, "id", id.0.into());
    number(fields, "region", *region);
    number(fields, "zone", *zone);
    text(fields, "ip", ip);
    number(fields, "port", (*port).into());
    text(fields, "device", name);
    fields.word("weight");
    fields.float(*weight);
    text(fields, "meta", meta);
    text(fields, "replication_ip", replication_ip);
    number(fields, "replication_port", (*replication_port).into());
    number(fields, "parts", i64::try_from(parts).unwrap_or(i64::MAX));
    for (key, value) in extra {
        fields.word(key.clone());
        write_json(fields, value);
    }
}

/// A tier as Swift's tuple: region, zone, ip and id, as far as it goes.
fn write_tier(graph: &mut Writer, tier: &Tier) {
    graph.tuple(tier.depth(), |tuple| {
        tier.region.iter().chain(&tier.zone).for_each(|&number| tuple.integer(number));
        tier.ip.iter().for_each(|ip| tuple.word(ip.clone()));
        tier.device.iter().for_each(|id| tuple.integer(id.0.into()));
    });
}

/// A value of a key that means nothing to us. Its depth is that of the file it came from.
fn write_json(out: &mut Writer, value: &Json) {
    match value {
        Json::Null => out.none(),
        Json::Bool(boolean) => out.boolean(*boolean),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => out.integer(integer),
            None => out.float(number.as_f64().unwrap_or(0.0)),
        },
        Json::String(text) => out.word(text.clone()),
        Json::Array(items) => _ = out.list(items, write_json),
        Json::Object(entries) => {
            out.dict(|out| {
                for (key, value) in entries {
                    out.word(key.clone());
                    write_json(out, value);
                }
            });
        }
    }
}

/// The builder of a pickled dict.
fn builder(fields: Value<'_>) -> Result<Builder, FileFault> {
    let part_power = needed(fields, "part_power")?;
    let part_power = part_power.integer().and_then(|power| u8::try_from(power).ok());
    let part_power = part_power.filter(|power| *power <= PART_POWER_LIMIT);
    let part_power = part_power.ok_or_else(|| wrong(fields, "part_power", "one of 0 to 26"))?;
    let partitions = 1usize << part_power;
    if needed(fields, "parts")?.integer() != Some(partitions as i64) {
        return Err(wrong(fields, "parts", "2 to the power of part_power"));
    }
    let next_part_power = match optional(fields, "next_part_power").map(Value::integer) {
        None => None,
        Some(Some(power)) if [part_power, part_power + 1].map(i64::from).contains(&power) => {
            Some(power as u8)
        }
        Some(_) => return Err(wrong(fields, "next_part_power", "part_power or one more")),
    };
    let replicas = needed(fields, "replicas")?.float().filter(|replicas| replicas.is_finite());
    let replicas = replicas.filter(|&replicas| {
        replicas >= 1.0 && (partitions as f64 * replicas.ceil()) as u64 <= ASSIGNMENT_LIMIT
    });
    let hours = needed(fields, "min_part_hours")?.integer().and_then(|hours| u32::try_from(hours).ok());
    let overload = match optional(fields, "overload") {
        None => Some(0.0),
        Some(overload) => overload.float().filter(|overload| *overload >= 0.0 && overload.is_finite()),
    };
    let id = match optional(fields, "id").or_else(|| optional(fields, "_id")) {
        None => None,
        Some(id) => match id.text() {
            Some(id) if id.len() <= ID_LIMIT_BYTES => Some(id.to_owned()),
            _ => return Err(wrong(fields, "id", "32 hex digits")),
        },
    };

    let mut room = Room(JSON_LIMIT_BYTES as usize);
    let devices = devices(fields, &mut room)?;
    let (rows, id_width) = rows(fields, partitions, &devices)?;
    Ok(Builder {
        part_power,
        next_part_power,
        replicas: replicas
            .ok_or_else(|| wrong(fields, "replicas", "a number from 1 that a ring file can hold"))?,
        min_part_hours: hours.ok_or_else(|| wrong(fields, "min_part_hours", "a whole number from 0"))?,
        overload: overload.ok_or_else(|| wrong(fields, "overload", "a number from 0"))?,
        id,
        version: match needed(fields, "version")?.integer() {
            Some(version) => version,
            None => return Err(wrong(fields, "version", "a whole number")),
        },
        devices_changed: match needed(fields, "devs_changed")?.integer() {
            Some(changed) => changed != 0,
            None => return Err(wrong(fields, "devs_changed", "True or False")),
        },
        removed: removed(fields, &devices)?,
        devices,
        rows,
        id_width,
        moved_hours: moved_hours(fields, partitions)?,
        epoch_secs: count(fields, "_last_part_moves_epoch")?,
        gather_start: count(fields, "_last_part_gather_start")?,
        spread: spread(fields, &mut room)?,
    })
}

fn devices(fields: Value<'_>, room: &mut Room) -> Result<Vec<Option<Device>>, FileFault> {
    let list = needed(fields, "devs")?;
    let Some(items) = list.items() else { return Err(wrong(fields, "devs", "a list of devices")) };
    let device = |(place, item): (usize, Value)| {
        room.take(size_of::<Option<Device>>())?;
        if item.is_none() {
            return Ok(None);
        }
        let device = device(item, place, room);
        device.map(Some).map_err(|fault| fault.within(&format!("devs[{place}]")))
    };
    items.enumerate().map(device).collect()
}

fn device(fields: Value<'_>, place: usize, room: &mut Room) -> Result<Device, FileFault> {
    if fields.entries().is_none() {
        return Err(FileFault::wrong("", "a device", fields));
    }
    let number = |key: &'static str| {
        let number = needed(fields, key)?.integer();
        number.ok_or_else(|| wrong(fields, key, "a whole number"))
    };
    let port = |key: &'static str| {
        let port = u16::try_from(number(key)?);
        port.map_err(|_| wrong(fields, key, "a port"))
    };
    let mut text = |key: &'static str| {
        let text = needed(fields, key)?.text().ok_or_else(|| wrong(fields, key, "text"))?;
        room.take(text.len())?;
        Ok(text.to_owned())
    };
    let has = |key| optional(fields, key).is_some();

    if number("id")? != place as i64 {
        return Err(wrong(fields, "id", "the device's place in the list"));
    }
    let (ip, own_port) = (text("ip")?, port("port")?);
    let replication_ip = if has("replication_ip") { text("replication_ip")? } else { ip.clone() };
    let weight = needed(fields, "weight")?.float().filter(|weight| *weight >= 0.0 && weight.is_finite());
    let mut device = Device {
        id: DeviceId(u32::try_from(place).map_err(|_| FileFault::TooLarge)?),
        region: if has("region") { number("region")? } else { 1 },
        zone: number("zone")?,
        ip,
        port: own_port,
        replication_ip,
        replication_port: if has("replication_port") { port("replication_port")? } else { own_port },
        name: text("device")?,
        weight: weight.ok_or_else(|| wrong(fields, "weight", "a number from 0"))?,
        meta: if has("meta") { text("meta")? } else { String::new() },
        extra: Map::new(),
    };
    for (key, value) in fields.entries().into_iter().flatten() {
        let key = key.text().ok_or_else(|| FileFault::wrong("a key", "text", key))?;
        if !KNOWN_OF_DEVICES.contains(&key) {
            room.take(key.len())?;
            let json = json(value, EXTRA_DEPTH_LIMIT, room);
            device.extra.insert(key.to_owned(), json.map_err(|fault| fault.within(key))?);
        }
    }
    Ok(device)
}

/// A value of a key that means nothing to us, if it is of a kind that can also stand in a ring file.
fn json(value: Value<'_>, depth: usize, room: &mut Room) -> Result<Json, FileFault> {
    let refused = || FileFault::wrong("", "what a ring file could hold", value);
    room.take(size_of::<Json>())?;
    if value.is_none() {
        return Ok(Json::Null);
    } else if let Some(boolean) = value.boolean() {
        return Ok(boolean.into());
    } else if let Some(integer) = value.integer() {
        return Ok(integer.into());
    } else if let Some(float) = value.float() {
        return serde_json::Number::from_f64(float).map(Json::Number).ok_or_else(refused);
    } else if let Some(text) = value.text() {
        room.take(text.len())?;
        return Ok(text.into());
    }
    let deeper = depth.checked_sub(1).ok_or_else(refused)?;
    if let Some(items) = value.items() {
        return items.map(|item| json(item, deeper, room)).collect();
    }
    let mut object = Map::new();
    for (key, value) in value.entries().ok_or_else(refused)? {
        let key = key.text().ok_or_else(refused)?;
        room.take(key.len())?;
        object.insert(key.to_owned(), json(value, deeper, room)?);
    }
    Ok(object.into())
}

/// The rows, and how wide their ids are written. An id that stands for no device is the widest of these, whatever comes.
fn rows(
    fields: Value<'_>,
    partitions: usize,
    devices: &[Option<Device>],
) -> Result<(Option<Rows>, IdWidth), FileFault> {
    const KEY: &str = "_replica2part2dev";
    let arrays = match needed(fields, KEY)? {
        rows if rows.is_none() => None,
        rows => Some(rows.items().ok_or_else(|| wrong(fields, KEY, "a list of arrays"))?),
    };
    let Some(arrays) = arrays.filter(|arrays| arrays.len() > 0) else {
        let is_wide = optional(fields, "dev_id_bytes").and_then(Value::integer) == Some(4)
            || devices.len() > usize::from(u16::MAX);
        return Ok((None, if is_wide { IdWidth::Four } else { IdWidth::Two }));
    };
    let mut id_width = IdWidth::Two;
    let mut total = 0;
    let rows = arrays.enumerate().map(|(replica, array)| {
        let refused = |wants| FileFault::wrong(&format!("{KEY}[{replica}]"), wants, array);
        let (code, ids) = array.array().ok_or_else(|| refused("an array"))?;
        let unassigned = match code {
            b'H' => u16::MAX.into(),
            b'I' | b'L' => u32::MAX,
            _ => return Err(refused("of numbers of 2 or 4 bytes")),
        };
        if code != b'H' {
            id_width = IdWidth::Four;
        }
        total += ids.len() as u64;
        if ids.len() > partitions || total > ASSIGNMENT_LIMIT {
            return Err(refused("of parts at most"));
        }
        let device = |&id: &u32| if id == unassigned { UNASSIGNED } else { DeviceId(id) };
        Ok(ids.iter().map(device).collect())
    });
    let rows: Result<Rows, FileFault> = rows.collect();
    Ok((Some(rows?), id_width))
}

fn removed(fields: Value<'_>, devices: &[Option<Device>]) -> Result<BTreeSet<DeviceId>, FileFault> {
    const KEY: &str = "_remove_devs";
    let list = needed(fields, KEY)?.items().ok_or_else(|| wrong(fields, KEY, "a list of devices"))?;
    let ids = list.enumerate().map(|(place, item)| {
        let id = item.entry("id").and_then(Value::integer).and_then(|id| usize::try_from(id).ok());
        let device = id.and_then(|id| devices.get(id)).and_then(Option::as_ref);
        let refused = || FileFault::wrong(&format!("{KEY}[{place}]"), "one of devs", item);
        Ok(device.ok_or_else(refused)?.id)
    });
    ids.collect()
}

fn moved_hours(fields: Value<'_>, partitions: usize) -> Result<Vec<u8>, FileFault> {
    const KEY: &str = "_last_part_moves";
    let Some(hours) = optional(fields, KEY) else { return Ok(vec![0; partitions]) };
    match hours.numbers() {
        Some(hours) if hours.len() == partitions => {
            Ok(hours.iter().map(|&hours| u8::try_from(hours).unwrap_or(u8::MAX)).collect())
        }
        _ => Err(wrong(fields, KEY, "hours for each of parts")),
    }
}

fn spread(fields: Value<'_>, room: &mut Room) -> Result<Option<Spread>, FileFault> {
    const KEY: &str = "_dispersion_graph";
    let Some(dispersion) = optional(fields, "dispersion") else { return Ok(None) };
    let dispersion = dispersion.float().filter(|dispersion| *dispersion >= 0.0 && dispersion.is_finite());
    let dispersion = dispersion.ok_or_else(|| wrong(fields, "dispersion", "a number from 0"))?;
    let mut graph = BTreeMap::new();
    if let Some(counts) = optional(fields, KEY) {
        for (key, counts) in counts.entries().ok_or_else(|| wrong(fields, KEY, "a dict of tiers"))? {
            let tier = tier(key, room)?.ok_or_else(|| FileFault::wrong(KEY, "one of tiers", key))?;
            let counts = counts.numbers().ok_or_else(|| FileFault::wrong(KEY, "a list of counts", counts))?;
            room.take(size_of::<(Tier, Vec<u64>)>() + size_of_val(counts) * 2)?;
            graph.insert(tier, counts.iter().map(|&count| count.into()).collect());
        }
    }
    Ok(Some(Spread { dispersion, graph }))
}

/// The tier of Swift's tuple.
fn tier(key: Value<'_>, room: &mut Room) -> Result<Option<Tier>, FileFault> {
    let Some(items) = key.items().filter(|items| (1..=LEVELS).contains(&items.len())) else {
        return Ok(None);
    };
    let mut tier = Tier::default();
    for (level, item) in items.enumerate() {
        let number = item.integer();
        let is_set = match level {
            0 => {
                tier.region = number;
                number.is_some()
            }
            1 => {
                tier.zone = number;
                number.is_some()
            }
            2 => {
                let ip = item.text();
                room.take(ip.map_or(0, str::len))?;
                tier.ip = ip.map(str::to_owned);
                ip.is_some()
            }
            _ => {
                tier.device = number.and_then(|id| u32::try_from(id).ok()).map(DeviceId);
                tier.device.is_some()
            }
        };
        if !is_set {
            return Ok(None);
        }
    }
    Ok(Some(tier))
}

/// A number that old builders may lack.
fn count(fields: Value<'_>, key: &'static str) -> Result<u64, FileFault> {
    let Some(count) = optional(fields, key) else { return Ok(0) };
    let count = count.integer().and_then(|count| u64::try_from(count).ok());
    count.ok_or_else(|| wrong(fields, key, "a whole number from 0"))
}

fn needed<'p>(fields: Value<'p>, key: &'static str) -> Result<Value<'p>, FileFault> {
    fields.entry(key).ok_or_else(|| FileFault::Lacks(key.to_owned()))
}

fn optional<'p>(fields: Value<'p>, key: &str) -> Option<Value<'p>> {
    fields.entry(key).filter(|value| !value.is_none())
}

fn wrong(fields: Value<'_>, key: &str, wants: &'static str) -> FileFault {
    match fields.entry(key) {
        Some(found) => FileFault::wrong(key, wants, found),
        None => FileFault::Lacks(key.to_owned()),
    }
}

/// `rows[replica][partition]`.
type Rows = Vec<Vec<DeviceId>>;

/// How many bytes may still be copied out of the pickle: shared in it, they could become very many.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), FileFault> {
        self.0 = self.0.checked_sub(bytes).ok_or(FileFault::TooLarge)?;
        Ok(())
    }
}

/// A version 4 UUID, as Swift names builders (`uuid.uuid4().hex`).
fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A builder's file that cannot be used, or cannot be written.
#[derive(Debug)]
pub struct BuilderFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: FileFault,
}

impl fmt::Display for BuilderFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "builder {}: {}", self.path.display(), self.fault)
    }
}

impl std::error::Error for BuilderFileError {}

/// What is wrong with a builder's file.
#[derive(Debug)]
pub enum FileFault {
    /// There is none.
    Missing,
    /// It is not for this user to read.
    Denied,
    /// It cannot be opened or read.
    Unreadable(io::Error),
    /// It cannot be written.
    Unwritable(io::Error),
    /// More than any builder holds.
    TooLarge,
    /// It is a ring.
    Ring,
    /// It is JSON, as the builder of a composite ring.
    Composite,
    /// It is no pickle, or none that a builder needs.
    Pickle(PickleError),
    /// It is a pickle of something else.
    NotABuilder,
    /// A key is not there.
    Lacks(String),
    /// Something in it is not what it should be.
    Wrong {
        /// What.
        key: String,
        /// What it should be.
        wants: &'static str,
        /// What it is.
        found: String,
    },
}

impl FileFault {
    fn reading(error: io::Error) -> FileFault {
        match error.kind() {
            io::ErrorKind::NotFound => FileFault::Missing,
            io::ErrorKind::PermissionDenied => FileFault::Denied,
            _ => FileFault::Unreadable(error),
        }
    }

    fn wrong(key: &str, wants: &'static str, found: Value<'_>) -> FileFault {
        FileFault::Wrong { key: key.to_owned(), wants, found: found.to_string() }
    }

    /// The same fault, of a key in something else.
    fn within(self, outer: &str) -> FileFault {
        let inner = |key: String| match key.is_empty() {
            true => outer.to_owned(),
            false => format!("{outer}.{key}"),
        };
        match self {
            FileFault::Lacks(key) => FileFault::Lacks(inner(key)),
            FileFault::Wrong { key, wants, found } => FileFault::Wrong { key: inner(key), wants, found },
            other => other,
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileFault::Missing => f.write_str("there is no such file; create makes one"),
            FileFault::Denied => f.write_str("this user may not read it"),
            FileFault::Unreadable(error) => write!(f, "cannot be read: {error}"),
            FileFault::Unwritable(error) => write!(f, "cannot be written: {error}"),
            FileFault::TooLarge => write!(f, "holds more than a builder can; {REMEDY}"),
            FileFault::Ring => f.write_str("a ring, not a builder; name the builder it was made by"),
            FileFault::Composite => f.write_str(
                "JSON, as of a composite ring; change the builders it is composed of, and compose it again",
            ),
            FileFault::Pickle(error) => write!(f, "{error}; {REMEDY}"),
            FileFault::NotABuilder => write!(f, "a pickle, but not of a builder; {REMEDY}"),
            FileFault::Lacks(key) => write!(f, "has no {key}; {REMEDY}"),
            FileFault::Wrong { key, wants, found } => write!(f, "{key} is {found}, not {wants}; {REMEDY}"),
        }
    }
}

impl std::error::Error for FileFault {}

/// What an operator does about a damaged builder.
const REMEDY: &str = "put the last good copy from backups/ in its place";

/// Stands in a row for a replica without device, however wide the ids are.
const UNASSIGNED: DeviceId = DeviceId(u32::MAX);

/// Keys of devices that are fields of [`Device`], and the one that follows from the rows.
const KNOWN_OF_DEVICES: [&str; 11] = [
    "id",
    "region",
    "zone",
    "ip",
    "port",
    "replication_ip",
    "replication_port",
    "device",
    "weight",
    "meta",
    "parts",
];

/// How deep lists and dicts under a key that means nothing to us may lie in each other.
const EXTRA_DEPTH_LIMIT: usize = 8;

/// Swift's ids have 32.
const ID_LIMIT_BYTES: usize = 255;

/// The most bytes a builder has: five for each id of the most that a ring may have, and as much again for the rest.
const FILE_LIMIT_BYTES: u64 = 10 * ASSIGNMENT_LIMIT;

/// A device takes some 35 values with all its tiers: room for a hundred thousand. Objects of old builders may have the ring
/// they made with them.
const LIMITS: Limits = Limits {
    values: 1 << 22,
    language: Language::Plain(&[
        ("swift.common.ring.builder", "RingBuilder"),
        ("swift.common.ring.ring", "RingData"),
    ]),
};

#[cfg(test)]
mod tests {
    use super::super::builder::NewDevice;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Three devices, rebalanced; then one was added and one is to go.
    fn small() -> Builder {
        let mut builder = Builder::new(3, 2.5, 1).expect("a builder");
        let device = |at: u8| NewDevice {
            region: 1,
            zone: at.into(),
            ip: format!("10.0.0.{at}"),
            port: 6201,
            replication_ip: "fe80::1".to_owned(),
            replication_port: 6301,
            name: format!("sd{at}"),
            weight: 100.5,
            meta: "dünn".to_owned(),
        };
        for at in 0..4 {
            builder.add(device(at)).expect("a device");
        }
        builder.rebalance(b"seed", 1_750_000_000).expect("enough devices");
        builder.add(device(4)).expect("a device");
        builder.remove(DeviceId(1)).expect("the device");
        builder.set_overload(0.1).expect("an overload");
        builder.devices[0].as_mut().expect("the first").extra.insert(
            "note".to_owned(),
            serde_json::json!({"a": [1, -2.5, null, true, "x"], "b": {"c": []}, "big": i64::MAX}),
        );
        builder
    }

    /// A file as Swift has it, of one device, with something else under some keys, or nothing.
    type Change<'a> = (&'a str, Option<&'a dyn Fn(&mut Writer)>);

    /// A key, what is written under it, and what is said of that.
    type Refused<'a> = (&'a str, &'a dyn Fn(&mut Writer), &'a str);

    fn file(changes: &[Change<'_>], of_device: &[Change<'_>]) -> Vec<u8> {
        let mut pickle = Writer::default();
        pickle.dict(|fields| write_file(fields, changes, of_device));
        pickle.finish()
    }

    fn write_file(fields: &mut Writer, changes: &[Change<'_>], of_device: &[Change<'_>]) {
        let device: [Change; 9] = [
            ("id", Some(&|it| it.integer(0))),
            ("zone", Some(&|it| it.integer(1))),
            ("ip", Some(&|it| it.word("10.0.0.1"))),
            ("port", Some(&|it| it.integer(6201))),
            ("device", Some(&|it| it.word("sda"))),
            ("weight", Some(&|it| it.integer(7))),
            ("parts", Some(&|it| it.integer(4))),
            ("parts_wanted", Some(&|it| it.integer(-1))),
            ("region", None),
        ];
        let device = |it: &mut Writer| _ = it.dict(|it| write_changed(it, &device, of_device));
        let builder: [Change; 16] = [
            ("part_power", Some(&|it| it.integer(2))),
            ("parts", Some(&|it| it.integer(4))),
            ("replicas", Some(&|it| it.integer(1))),
            ("min_part_hours", Some(&|it| it.integer(24))),
            ("devs", Some(&|it| _ = it.list([0], |it, _| device(it)))),
            ("devs_changed", Some(&|it| it.boolean(true))),
            ("version", Some(&|it| it.integer(5))),
            ("_replica2part2dev", Some(&|it| _ = it.list([0], |it, _| it.array('H', [0, 9, 65535, 0])))),
            ("_last_part_moves_epoch", Some(&|it| it.none())),
            ("_last_part_moves", Some(&|it| it.none())),
            ("_last_part_gather_start", Some(&|it| it.integer(3))),
            ("_remove_devs", Some(&|it| _ = it.list([0; 0], |_, _| ()))),
            ("next_part_power", None),
            ("overload", None),
            ("dispersion", None),
            ("id", None),
        ];
        write_changed(fields, &builder, changes);
    }

    fn write_changed(it: &mut Writer, usual: &[Change<'_>], changes: &[Change<'_>]) {
        for (key, write) in usual {
            let change = changes.iter().find(|(changed, _)| changed == key);
            if let Some(write) = change.map_or(*write, |(_, write)| *write) {
                it.word(key.to_string());
                write(it);
            }
        }
        for (key, write) in changes.iter().filter(|(key, _)| usual.iter().all(|(known, _)| known != key)) {
            it.word(key.to_string());
            write.expect("something to write")(it);
        }
    }

    #[test]
    fn a_saved_builder_is_the_same_and_has_an_id_for_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("container.builder");
        let mut builder = small();
        builder.save(&path).expect("to save it");
        let id = builder.id().expect("an id").to_owned();
        assert_eq!(id.len(), 32);
        assert_eq!(&id[12..13], "4");
        assert!(["8", "9", "a", "b"].contains(&&id[16..17]), "{id}");
        let mut loaded = Builder::load(&path).expect("to load it");
        assert_eq!(loaded, builder);
        assert!(loaded.is_marked(DeviceId(1)));
        loaded.save(&path).expect("to save it again");
        assert_eq!(loaded.id(), Some(&*id));
        assert_eq!(Builder::load(&path).expect("to load it"), builder);

        let mut fresh = Builder::new(0, 1.0, 0).expect("a builder");
        fresh.save(&path).expect("to save it");
        assert_ne!(fresh.id(), Some(&*id));
        assert_eq!(Builder::load(&path).expect("to load it"), fresh);
    }

    #[test]
    fn a_saved_file_is_whose_the_old_one_was_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("container.builder");
        let mode = |path: &Path| fs::metadata(path).expect("the file").permissions().mode() & 0o777;
        small().save(&path).expect("to save it");
        assert_eq!(mode(&path), 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("to change its mode");
        let link = directory.path().join("link.builder");
        symlink(&path, &link).expect("a link");
        small().save(&link).expect("to save it");
        assert_eq!(mode(&path), 0o640);
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        assert_eq!(fs::read_dir(&directory).expect("the directory").count(), 2);

        let mut builder = small();
        let nowhere = builder.save(&directory.path().join("none/x.builder"));
        assert!(matches!(nowhere.map_err(|error| error.fault), Err(FileFault::Unwritable(_))));
        assert_eq!(builder.id(), None, "an id that is in no file");
    }

    #[test]
    fn marked_devices_are_written_as_the_same_dict() {
        let bytes = small().to_bytes();
        let tail = bytes.windows(12).position(|window| window == b"_remove_devs").expect("the key") + 12;
        // Key remembered, list remembered, mark, device fetched, items done.
        let after: Vec<u8> = bytes[tail..].iter().copied().skip_while(|byte| *byte != b']').collect();
        assert!(matches!(after[..], [b']', b'q', _, b'(', b'h', _, b'e', ..]), "{}", after.escape_ascii());
    }

    #[test]
    fn what_old_builders_lack_has_its_default() {
        let builder = Builder::from_bytes(&file(&[], &[])).expect("a builder");
        assert_eq!((builder.part_power(), builder.replicas(), builder.min_part_hours()), (2, 1.0, 24));
        assert_eq!((builder.next_part_power(), builder.overload(), builder.id()), (None, 0.0, None));
        assert_eq!((builder.moved_hours(), builder.moved_epoch_secs()), (&[0; 4][..], 0));
        assert!(builder.spread().is_none());
        let device = builder.device(DeviceId(0)).expect("the device");
        assert_eq!((device.region, &*device.meta), (1, ""));
        assert_eq!((&*device.replication_ip, device.replication_port), ("10.0.0.1", 6201));
        assert_eq!(device.extra, *serde_json::json!({"parts_wanted": -1}).as_object().expect("an object"));
        assert_eq!(builder.rows(), Some(&[[0, 9, u32::MAX, 0].map(DeviceId).to_vec()][..]));
        assert!(builder.validate().is_err());
        assert_eq!(Builder::from_bytes(&builder.to_bytes()).expect("a builder"), builder);
    }

    #[test]
    fn an_object_of_old_builders_is_read_by_its_attributes() {
        let mut fields = Writer::default();
        fields.dict(|fields| write_file(fields, &[("_id", Some(&|it| _ = it.text("abc")))], &[]));
        let dict = fields.finish();
        let class = b"cswift.common.ring.builder\nRingBuilder\n";
        let object = [b"\x80\x02", &class[..], b")\x81", &dict[2..dict.len() - 1], b"b."].concat();
        let builder = Builder::from_bytes(&object).expect("a builder");
        assert_eq!(builder.id(), Some("abc"));
        let plain = Builder::from_bytes(&dict).expect("a builder");
        assert_eq!(builder, plain);
        let other =
            [b"\x80\x02cswift.common.ring.ring\nRingData\n)\x81", &dict[2..dict.len() - 1], b"b."].concat();
        assert!(matches!(Builder::from_bytes(&other), Err(FileFault::NotABuilder)));
    }

    #[test]
    fn ids_keep_their_width_and_what_stands_for_none() {
        let wide = |it: &mut Writer| _ = it.list([0], |it, _| it.array('I', [0, 65535, u32::MAX, 0]));
        let bytes = file(&[("_replica2part2dev", Some(&wide))], &[]);
        let mut builder = Builder::from_bytes(&bytes).expect("a builder");
        assert_eq!(builder.id_width(), IdWidth::Four);
        assert_eq!(builder.rows(), Some(&[[0, 65535, u32::MAX, 0].map(DeviceId).to_vec()][..]));
        assert_eq!(Builder::from_bytes(&builder.to_bytes()).expect("a builder"), builder);
        builder.set_id_width(IdWidth::Two).expect("few devices");
        let narrow = Builder::from_bytes(&builder.to_bytes()).expect("a builder");
        assert_eq!(narrow.id_width(), IdWidth::Two);
        assert_eq!(narrow.rows(), Some(&[[0, u32::MAX, u32::MAX, 0].map(DeviceId).to_vec()][..]));
    }

    #[test]
    fn what_does_not_hold_together_is_refused_by_name() {
        let said = |changes: &[Change<'_>], of_device: &[Change<'_>]| match Builder::from_bytes(&file(
            changes, of_device,
        )) {
            Ok(builder) => panic!("it is taken for {builder:?}"),
            Err(fault) => fault.to_string().trim_end_matches(REMEDY).trim_end_matches("; ").to_owned(),
        };
        let builders: [Refused<'_>; 26] = [
            ("part_power", &|it| it.integer(27), "part_power is 27, not one of 0 to 26"),
            ("part_power", &|it| it.integer(-1), "part_power is -1, not one of 0 to 26"),
            ("part_power", &|it| it.float(2.0), "part_power is 2, not one of 0 to 26"),
            ("parts", &|it| it.integer(5), "parts is 5, not 2 to the power of part_power"),
            ("next_part_power", &|it| it.integer(4), "next_part_power is 4, not part_power or one more"),
            (
                "next_part_power",
                &|it| it.integer(i64::MIN),
                "next_part_power is -9223372036854775808, not part_power or one more",
            ),
            (
                "replicas",
                &|it| it.float(0.5),
                "replicas is 0.5, not a number from 1 that a ring file can hold",
            ),
            (
                "replicas",
                &|it| it.float(f64::NAN),
                "replicas is NaN, not a number from 1 that a ring file can hold",
            ),
            (
                "replicas",
                &|it| it.float(1e300),
                &format!("replicas is {}, not a number from 1 that a ring file can hold", 1e300),
            ),
            ("min_part_hours", &|it| it.integer(-1), "min_part_hours is -1, not a whole number from 0"),
            ("overload", &|it| it.float(-0.1), "overload is -0.1, not a number from 0"),
            ("version", &|it| it.word("5"), "version is \"5\", not a whole number"),
            ("devs_changed", &|it| it.none(), "devs_changed is None, not True or False"),
            ("devs", &|it| it.integer(3), "devs is 3, not a list of devices"),
            ("devs", &|it| _ = it.list([0], |it, _| it.integer(3)), "devs[0] is 3, not a device"),
            ("_replica2part2dev", &|it| it.integer(3), "_replica2part2dev is 3, not a list of arrays"),
            (
                "_replica2part2dev",
                &|it| _ = it.list([0], |it, _| it.none()),
                "_replica2part2dev[0] is None, not an array",
            ),
            (
                "_replica2part2dev",
                &|it| _ = it.list([0], |it, _| it.array('B', [0; 4])),
                "_replica2part2dev[0] is an array of 4, not of numbers of 2 or 4 bytes",
            ),
            (
                "_replica2part2dev",
                &|it| _ = it.list([0], |it, _| it.array('H', [0; 5])),
                "_replica2part2dev[0] is an array of 5, not of parts at most",
            ),
            (
                "_last_part_moves",
                &|it| it.array('B', [0; 3]),
                "_last_part_moves is an array of 3, not hours for each of parts",
            ),
            (
                "_last_part_moves_epoch",
                &|it| it.integer(-1),
                "_last_part_moves_epoch is -1, not a whole number from 0",
            ),
            (
                "_last_part_gather_start",
                &|it| it.word("x"),
                "_last_part_gather_start is \"x\", not a whole number from 0",
            ),
            ("_remove_devs", &|it| it.none(), "_remove_devs is None, not a list of devices"),
            (
                "_remove_devs",
                &|it| {
                    _ = it.list([0], |it, _| {
                        it.dict(|it| {
                            it.word("id");
                            it.integer(1)
                        });
                    })
                },
                "_remove_devs[0] is a dict, not one of devs",
            ),
            ("dispersion", &|it| it.word("x"), "dispersion is \"x\", not a number from 0"),
            ("id", &|it| it.integer(3), "id is 3, not 32 hex digits"),
        ];
        for (key, write, expected) in builders {
            assert_eq!(said(&[(key, Some(write))], &[]), expected);
        }
        let devices: [Refused<'_>; 13] = [
            ("id", &|it| it.integer(1), "devs[0].id is 1, not the device's place in the list"),
            ("region", &|it| it.word("1"), "devs[0].region is \"1\", not a whole number"),
            ("zone", &|it| it.none(), "devs[0].zone is None, not a whole number"),
            ("ip", &|it| it.integer(7), "devs[0].ip is 7, not text"),
            ("port", &|it| it.integer(65536), "devs[0].port is 65536, not a port"),
            ("replication_ip", &|it| it.integer(7), "devs[0].replication_ip is 7, not text"),
            ("replication_port", &|it| it.word("x"), "devs[0].replication_port is \"x\", not a whole number"),
            ("device", &|it| it.none(), "devs[0].device is None, not text"),
            ("weight", &|it| it.float(-1.5), "devs[0].weight is -1.5, not a number from 0"),
            ("weight", &|it| it.float(f64::NAN), "devs[0].weight is NaN, not a number from 0"),
            ("meta", &|it| it.integer(7), "devs[0].meta is 7, not text"),
            ("own", &|it| it.float(f64::INFINITY), "devs[0].own is inf, not what a ring file could hold"),
            (
                "own",
                &|it| it.array('H', [1]),
                "devs[0].own is an array of 1, not what a ring file could hold",
            ),
        ];
        for (key, write, expected) in devices {
            assert_eq!(said(&[], &[(key, Some(write))]), expected);
        }
        for key in [
            "part_power",
            "parts",
            "replicas",
            "min_part_hours",
            "devs_changed",
            "version",
            "_replica2part2dev",
            "_remove_devs",
        ] {
            assert_eq!(said(&[(key, None)], &[]), format!("has no {key}"));
        }
        for key in ["id", "zone", "ip", "port", "device", "weight"] {
            assert_eq!(said(&[], &[(key, None)]), format!("has no devs[0].{key}"));
        }
        assert_eq!(PART_POWER_LIMIT, 26, "as the messages say");
    }

    #[test]
    fn a_graph_that_is_none_is_refused() {
        let with = |graph: &dyn Fn(&mut Writer)| {
            let dispersion: Change = ("dispersion", Some(&|it| it.integer(3)));
            Builder::from_bytes(&file(&[dispersion, ("_dispersion_graph", Some(graph))], &[]))
        };
        let tier = |length: usize, write: &dyn Fn(&mut Writer)| {
            with(&|it| {
                it.dict(|it| {
                    it.tuple(length, |it| write(it));
                    it.list(0..3, |it, count| it.integer(count));
                });
            })
        };
        let sound = tier(2, &|it| (0..2).for_each(|number| it.integer(number))).expect("a builder");
        let spread = sound.spread().expect("it has one");
        assert_eq!(spread.dispersion, 3.0);
        let expected = Tier { region: Some(0), zone: Some(1), ..Tier::default() };
        assert_eq!(spread.graph, BTreeMap::from([(expected, vec![0, 1, 2])]));
        assert!(tier(0, &|_| ()).is_err());
        assert!(tier(5, &|it| (0..5).for_each(|number| it.integer(number))).is_err());
        assert!(tier(3, &|it| (0..3).for_each(|number| it.integer(number))).is_err(), "an ip is text");
        assert!(tier(1, &|it| it.none()).is_err());
        assert!(with(&|it| it.integer(1)).is_err());
    }

    #[test]
    fn what_is_shared_in_a_file_cannot_fill_the_memory() {
        let with_meta = |devices: i64| {
            let big = "x".repeat(1 << 20);
            let devs = |it: &mut Writer| {
                it.list(0..devices, |it, id| {
                    it.dict(|it| {
                        let plain = [("id", id), ("zone", 1), ("port", 1), ("weight", 1)];
                        plain.into_iter().for_each(|(key, number)| {
                            it.word(key);
                            it.integer(number);
                        });
                        ["ip", "device", "meta"].into_iter().for_each(|key| {
                            it.word(key);
                            it.word(if key == "meta" { big.clone() } else { key.to_owned() });
                        });
                    });
                });
            };
            let bytes = file(&[("devs", Some(&devs))], &[]);
            assert!(bytes.len() < 2 << 20);
            Builder::from_bytes(&bytes).map(|builder| builder.devices().count())
        };
        assert_eq!(with_meta(63).expect("less than a ring could hold"), 63);
        assert!(matches!(with_meta(64), Err(FileFault::TooLarge)));

        let nested = |it: &mut Writer| {
            // 16 lists of 16 of the one inside, eight deep.
            let mut place = it.list(0..16, |it, number| it.integer(number));
            for _ in 0..7 {
                it.word("own again");
                place = it.list(0..16, |it, _| it.recall(place));
            }
        };
        let fault = Builder::from_bytes(&file(&[], &[("own", Some(&nested))])).expect_err("too much");
        assert!(matches!(fault, FileFault::TooLarge), "{fault}");
    }

    #[test]
    fn what_is_no_pickle_of_a_builder_is_told_from_damage() {
        let fault = |bytes: &[u8]| Builder::from_bytes(bytes).expect_err("no builder");
        assert!(matches!(fault(b"\x1f\x8b\x08"), FileFault::Ring));
        assert!(matches!(fault(b"{\"components\": []}"), FileFault::Composite));
        assert!(matches!(fault(b""), FileFault::Pickle(PickleError::CutShort)));
        assert!(matches!(fault(b"\x80\x02}."), FileFault::NotABuilder));
        assert!(matches!(fault(b"\x80\x02K\x01."), FileFault::NotABuilder));
        assert!(matches!(fault(b"cos\nsystem\n."), FileFault::Pickle(PickleError::Forbidden { .. })));
    }

    #[test]
    fn an_error_names_the_file_and_the_remedy() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.builder");
        let said = || Builder::load(&path).expect_err("no builder").to_string();
        let name = path.display();
        assert_eq!(said(), format!("builder {name}: there is no such file; create makes one"));
        fs::write(&path, b"\x80\x02}").expect("to write");
        assert_eq!(said(), format!("builder {name}: the pickle is cut short; {REMEDY}"));
        fs::write(&path, &small().to_bytes()[..200]).expect("to write");
        assert_eq!(said(), format!("builder {name}: the pickle is cut short; {REMEDY}"));
        assert!(matches!(FileFault::reading(io::ErrorKind::PermissionDenied.into()), FileFault::Denied));
        assert!(matches!(
            Builder::load(directory.path()).map_err(|error| error.fault),
            Err(FileFault::Unreadable(_))
        ));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = small().to_bytes();
        for length in 0..bytes.len() {
            let fault = Builder::from_bytes(&bytes[..length]).expect_err("a builder of a part");
            assert!(matches!(fault, FileFault::Pickle(PickleError::CutShort)), "{length}: {fault}");
        }
    }

    #[test]
    fn a_file_with_a_bad_byte_is_a_builder_or_an_error() {
        let bytes = small().to_bytes();
        for at in 0..bytes.len() {
            for bad in [0, 1, 0x7f, 0x80, 0xff, b'.', b'(', b'e', bytes[at] ^ 1, bytes[at] ^ 0x20] {
                let mut damaged = bytes.clone();
                damaged[at] = bad;
                if let Ok(builder) = Builder::from_bytes(&damaged) {
                    assert_eq!(
                        Builder::from_bytes(&builder.to_bytes()).expect("a builder"),
                        builder,
                        "{at}: {bad}"
                    );
                    let _ = builder.validate();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_a_builder_or_an_error(
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            moved in any::<(proptest::sample::Index, proptest::sample::Index, proptest::sample::Index)>(),
        ) {
            let mut bytes = small().to_bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Builder::from_bytes(&bytes);
            let (from, to) = (moved.0.index(bytes.len()), moved.1.index(bytes.len()));
            let piece: Vec<u8> = bytes.drain(from.min(to)..from.max(to)).collect();
            let place = moved.2.index(bytes.len() + 1);
            bytes.splice(place..place, piece);
            let _ = Builder::from_bytes(&bytes);
        }
    }
}
