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
) -> Result<(Option<Vec<Vec<DeviceId>>>, IdWidth), FileFault> {
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
    let rows: Result<Vec<Vec<DeviceId>>, FileFault> = rows.collect();
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
