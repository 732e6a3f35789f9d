//! A ring under construction: devices and weights, kept between rebalances.
//!
//! The builder is what an operator owns; the ring file is what nodes are sent. A builder takes changes of devices at once,
//! but nothing moves until [`Builder::rebalance`] asks [`placement`](super::placement) where each replica should be. Besides
//! the devices it remembers when each partition was moved last, so that none is moved again before its data had
//! `min_part_hours` to arrive.
//!
//! Every rule here is one of Swift's builder (`swift/common/ring/builder.py`), for both programs work on the same files in
//! turn. Time comes in as an argument.

use std::collections::BTreeSet;
use std::fmt;

use super::format::{ASSIGNMENT_LIMIT, Device, DeviceId, IdWidth, RingData, RingFault};
use super::placement::plan::Plan;
use super::placement::{self, Start};
use super::spread::{self, Spread};
use crate::hash_path::{PartShift, Partition};

/// What the file of a builder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Builder {
    pub(super) part_power: u8,
    /// The power that partitions are about to be split to, if they are: only object rings ever are.
    pub(super) next_part_power: Option<u8>,
    pub(super) replicas: f64,
    pub(super) min_part_hours: u32,
    pub(super) overload: f64,
    /// 32 hex digits, given when the builder is first saved.
    pub(super) id: Option<String>,
    /// Counts changes of devices and rebalances.
    pub(super) version: i64,
    /// Whether devices were changed since the last rebalance.
    pub(super) devices_changed: bool,
    /// By id. Those marked for removal are still there.
    pub(super) devices: Vec<Option<Device>>,
    /// Marked for removal by the next rebalance.
    pub(super) removed: BTreeSet<DeviceId>,
    /// `rows[replica][partition]`; `None` before the first rebalance. Only the last may be short.
    pub(super) rows: Option<Vec<Vec<DeviceId>>>,
    /// How wide ids are written.
    pub(super) id_width: IdWidth,
    /// By partition: hours between its last move and `epoch_secs`, 255 for those and all more.
    pub(super) moved_hours: Vec<u8>,
    /// When `moved_hours` was true, in seconds since 1970.
    pub(super) epoch_secs: u64,
    /// Where Swift's builder looks first for partitions to move. Of no use to us, but it is theirs.
    pub(super) gather_start: u64,
    /// How well the last rebalance spread the replicas; `None` in files of old builders.
    pub(super) spread: Option<Spread>,
}

/// A device to be added: it gets its id from the builder.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDevice {
    /// The widest tier.
    pub region: i64,
    /// A zone of that region.
    pub zone: i64,
    /// Where its servers listen for clients.
    pub ip: String,
    /// The servers' port.
    pub port: u16,
    /// Where its servers listen for replication.
    pub replication_ip: String,
    /// The port for replication.
    pub replication_port: u16,
    /// The directory it is mounted on.
    pub name: String,
    /// Its share of the partitions relative to other devices, 0 or more.
    pub weight: f64,
    /// The operator's notes.
    pub meta: String,
}

/// What may be changed of a device without moving anything: `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChange {
    /// Another address for clients.
    pub ip: Option<String>,
    /// Another port for clients.
    pub port: Option<u16>,
    /// Another address for replication.
    pub replication_ip: Option<String>,
    /// Another port for replication.
    pub replication_port: Option<u16>,
    /// Another name.
    pub name: Option<String>,
    /// Other notes.
    pub meta: Option<String>,
}

/// What a rebalance did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rebalanced {
    /// Replicas that were given a device, or another one. The first time these are all.
    pub reassigned: u64,
    /// Devices that are gone now.
    pub removed: usize,
}

impl Builder {
    /// A builder without devices (`RingBuilder.__init__`).
    ///
    /// # Errors
    ///
    /// A part power above [`PART_POWER_LIMIT`], fewer replicas than 1, or so many of both that no ring file could hold them.
    pub fn new(part_power: u8, replicas: f64, min_part_hours: u32) -> Result<Builder, BuilderFault> {
        if part_power > PART_POWER_LIMIT {
            return Err(BuilderFault::PartPower(part_power.into()));
        }
        let partitions = 1usize << part_power;
        let mut builder = Builder {
            part_power,
            next_part_power: None,
            replicas: 1.0,
            min_part_hours,
            overload: 0.0,
            id: None,
            version: 0,
            devices_changed: false,
            devices: Vec::new(),
            removed: BTreeSet::new(),
            rows: None,
            id_width: IdWidth::Two,
            moved_hours: vec![0; partitions],
            epoch_secs: 0,
            gather_start: 0,
            spread: Some(Spread::default()),
        };
        builder.set_replicas(replicas)?;
        builder.devices_changed = false;
        Ok(builder)
    }

    /// A builder that would write a ring (`swift/cli/ringbuilder.py: Commands.write_builder`). A ring does not say when its
    /// partitions were moved: they count as moved just before 1970. Nor does it know of overload and removals.
    ///
    /// # Errors
    /// A part power above [`PART_POWER_LIMIT`].
    pub fn from_ring(ring: &RingData, min_part_hours: u32) -> Result<Builder, BuilderFault> {
        let power = 32 - ring.part_shift.bits();
        let mut builder = Builder::new(power, ring.assignments.replica_count(), min_part_hours)?;
        builder.version = ring.version.unwrap_or(0);
        builder.devices = ring.devices.iter().map(|device| device.as_deref().cloned()).collect();
        for device in builder.devices.iter_mut().flatten() {
            device.extra.insert(PARTS_WANTED.into(), 0.into());
        }
        let row = |row| {
            (0..builder.partitions()).map_while(|p| ring.assignments.device(row, Partition(p))).collect()
        };
        builder.rows = Some((0..ring.assignments.rows()).map(row).collect());
        builder.id_width = ring.id_width;
        builder.spread = None;
        Ok(builder)
    }

    /// `log2` of the number of partitions.
    pub fn part_power(&self) -> u8 {
        self.part_power
    }

    /// The power that partitions are about to be split to, if they are.
    pub fn next_part_power(&self) -> Option<u8> {
        self.next_part_power
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        1 << self.part_power
    }

    /// Replicas of a partition on average.
    pub fn replicas(&self) -> f64 {
        self.replicas
    }

    /// For how long a partition that was moved stays where it is.
    pub fn min_part_hours(&self) -> u32 {
        self.min_part_hours
    }

    /// How much more than its weight a device may be given for the sake of spreading: 0.1 is a tenth more.
    pub fn overload(&self) -> f64 {
        self.overload
    }

    /// 32 hex digits, once it was saved.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Counts changes of devices and rebalances.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Whether devices or the number of replicas were changed since the last rebalance.
    pub fn devices_changed(&self) -> bool {
        self.devices_changed
    }

    /// Devices in order of their ids, those marked for removal included.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().flatten()
    }

    /// The device of an id.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(id.0 as usize)?.as_ref()
    }

    /// Whether the next rebalance will remove a device.
    pub fn is_marked(&self, id: DeviceId) -> bool {
        self.removed.contains(&id)
    }

    /// `rows[replica][partition]`; `None` before the first rebalance.
    pub fn rows(&self) -> Option<&[Vec<DeviceId>]> {
        self.rows.as_deref()
    }

    /// How wide ids are written.
    pub fn id_width(&self) -> IdWidth {
        self.id_width
    }

    /// Writes ids of another width from now on, where they fit.
    ///
    /// # Errors
    /// [`RingFault::WideIds`].
    pub fn set_id_width(&mut self, width: IdWidth) -> Result<(), BuilderFault> {
        if width == IdWidth::Two && self.devices.len() > usize::from(u16::MAX) {
            return Err(BuilderFault::Ring(RingFault::WideIds));
        }
        self.id_width = width;
        Ok(())
    }

    /// By partition: hours between its last move and [`Builder::moved_epoch_secs`], 255 for those and all more.
    pub fn moved_hours(&self) -> &[u8] {
        &self.moved_hours
    }

    /// When the hours since the partitions' last moves were counted last, in seconds since 1970.
    pub fn moved_epoch_secs(&self) -> u64 {
        self.epoch_secs
    }

    /// Where Swift's builder looks first for partitions to move.
    pub fn gather_start(&self) -> u64 {
        self.gather_start
    }

    /// The devices of one partition's replicas, in the order of the rows.
    pub fn replicas_of(&self, partition: Partition) -> impl Iterator<Item = DeviceId> {
        let rows = self.rows.as_deref().unwrap_or_default();
        rows.iter().filter_map(move |row| row.get(partition.0 as usize).copied())
    }

    /// How many replicas each device has, by id.
    pub fn parts(&self) -> Vec<u64> {
        let mut parts = vec![0; self.devices.len()];
        for id in self.rows.iter().flatten().flatten() {
            if let Some(parts) = parts.get_mut(id.0 as usize) {
                *parts += 1;
            }
        }
        parts
    }

    /// Adds a device, with the lowest id that is free (`add_dev`).
    ///
    /// # Errors
    ///
    /// Another device with the same ip, port and name; a weight that is no share.
    pub fn add(&mut self, new: NewDevice) -> Result<DeviceId, BuilderFault> {
        let id = self.devices.iter().position(Option::is_none).unwrap_or(self.devices.len());
        let device = Device {
            id: DeviceId(u32::try_from(id).map_err(|_| BuilderFault::TooManyDevices)?),
            region: new.region,
            zone: new.zone,
            ip: new.ip,
            port: new.port,
            replication_ip: new.replication_ip,
            replication_port: new.replication_port,
            name: new.name,
            weight: new.weight,
            meta: new.meta,
            extra: serde_json::Map::new(),
        };
        checked_weight(device.weight)?;
        self.alone(&device)?;
        let id = device.id;
        if id.0 as usize >= usize::from(u16::MAX) {
            self.id_width = IdWidth::Four;
        }
        match self.devices.get_mut(id.0 as usize) {
            Some(hole) => *hole = Some(device),
            None => self.devices.push(Some(device)),
        }
        self.changed();
        Ok(id)
    }

    /// Gives a device another weight (`set_dev_weight`).
    ///
    /// # Errors
    /// No such device, one that is marked for removal, a weight that is no share.
    pub fn set_weight(&mut self, id: DeviceId, weight: f64) -> Result<(), BuilderFault> {
        checked_weight(weight)?;
        self.staying(id, "weight")?.weight = weight;
        self.changed();
        Ok(())
    }

    /// Puts a device into another region (`set_dev_region`).
    ///
    /// # Errors
    /// No such device, or one that is marked for removal.
    pub fn set_region(&mut self, id: DeviceId, region: i64) -> Result<(), BuilderFault> {
        self.staying(id, "region")?.region = region;
        self.changed();
        Ok(())
    }

    /// Puts a device into another zone (`set_dev_zone`).
    ///
    /// # Errors
    /// No such device, or one that is marked for removal.
    pub fn set_zone(&mut self, id: DeviceId, zone: i64) -> Result<(), BuilderFault> {
        self.staying(id, "zone")?.zone = zone;
        self.changed();
        Ok(())
    }

    /// Changes what is no reason to move anything. As with Swift this counts as no change of devices: `write_ring` sends it
    /// out.
    ///
    /// # Errors
    /// No such device, or another one has that ip, port and name.
    pub fn set_info(&mut self, id: DeviceId, change: &DeviceChange) -> Result<(), BuilderFault> {
        let mut device = self.device(id).ok_or(BuilderFault::NoDevice(id))?.clone();
        let DeviceChange { ip, port, replication_ip, replication_port, name, meta } = change.clone();
        device.ip = ip.unwrap_or(device.ip);
        device.port = port.unwrap_or(device.port);
        device.replication_ip = replication_ip.unwrap_or(device.replication_ip);
        device.replication_port = replication_port.unwrap_or(device.replication_port);
        device.name = name.unwrap_or(device.name);
        device.meta = meta.unwrap_or(device.meta);
        self.alone(&device)?;
        self.devices[id.0 as usize] = Some(device);
        Ok(())
    }

    /// Marks a device for removal by the next rebalance (`remove_dev`). Marking it again changes nothing.
    ///
    /// # Errors
    /// No such device.
    pub fn remove(&mut self, id: DeviceId) -> Result<(), BuilderFault> {
        let device = self.devices.get_mut(id.0 as usize).and_then(Option::as_mut);
        device.ok_or(BuilderFault::NoDevice(id))?.weight = 0.0;
        if self.removed.insert(id) {
            self.changed();
        }
        Ok(())
    }

    /// How many replicas the next rebalance shall make (`set_replicas`).
    ///
    /// # Errors
    /// Fewer than 1, no number, or more than a ring file could hold.
    pub fn set_replicas(&mut self, replicas: f64) -> Result<(), BuilderFault> {
        if !(replicas >= 1.0 && replicas.is_finite()) {
            return Err(BuilderFault::Replicas(replicas));
        }
        let slots = |replicas: f64| (f64::from(self.partitions()) * replicas) as u64;
        if slots(replicas.ceil()) > ASSIGNMENT_LIMIT {
            return Err(BuilderFault::TooManyReplicas { part_power: self.part_power, replicas });
        }
        self.devices_changed |= slots(self.replicas) != slots(replicas);
        self.replicas = replicas;
        Ok(())
    }

    /// How much more than its weight a device may be given.
    ///
    /// # Errors
    /// Less than 0, or no number.
    pub fn set_overload(&mut self, overload: f64) -> Result<(), BuilderFault> {
        if !(overload >= 0.0 && overload.is_finite()) {
            return Err(BuilderFault::Overload(overload));
        }
        self.overload = overload;
        Ok(())
    }

    /// For how long a partition that was moved stays where it is.
    pub fn set_min_part_hours(&mut self, hours: u32) {
        self.min_part_hours = hours;
    }

    /// Lets every partition be moved again at once.
    pub fn pretend_min_part_hours_passed(&mut self) {
        self.epoch_secs = 0;
        self.moved_hours.fill(u8::MAX);
    }

    /// How long until what was moved last may be moved again, in seconds.
    pub fn seconds_left(&self, now_secs: u64) -> u64 {
        let elapsed = now_secs.saturating_sub(self.epoch_secs);
        (u64::from(self.min_part_hours) * 3600).saturating_sub(elapsed)
    }

    /// How many partitions were moved so lately that they may not be moved again yet.
    pub fn held_partitions(&self, now_secs: u64) -> u64 {
        let hours = now_secs.saturating_sub(self.epoch_secs) / 3600;
        let least = u64::from(self.min_part_hours.min(255));
        self.moved_hours.iter().filter(|moved| u64::from(**moved) + hours < least).count() as u64
    }

    /// Moves what should be elsewhere and may be moved now (`rebalance`). Equal builders with equal seeds become equal rings.
    ///
    /// # Errors
    ///
    /// Fewer devices with weight than replicas. The builder is then as it was.
    pub fn rebalance(&mut self, seed: &[u8], now_secs: u64) -> Result<Rebalanced, BuilderFault> {
        let plan = self.plan()?;
        self.pass_hours(now_secs);
        let before = self.rows.take().unwrap_or_default();
        let placed = placement::place(&Start {
            plan: &plan,
            row_lengths: &self.row_lengths(),
            rows: &before,
            may_move: &|partition| u32::from(self.moved_hours[partition]) >= self.min_part_hours.min(255),
            seed,
        });

        let mut reassigned = 0;
        for (replica, row) in placed.rows.iter().enumerate() {
            let old = before.get(replica).map_or(&[][..], Vec::as_slice);
            for (partition, id) in
                row.iter().enumerate().filter(|&(partition, id)| old.get(partition) != Some(id))
            {
                reassigned += 1;
                self.moved_hours[partition] = 0;
                debug_assert!(plan.tree().path(*id).is_some());
            }
        }
        if reassigned > 0 {
            self.epoch_secs = now_secs;
        }
        let removed = std::mem::take(&mut self.removed);
        removed.iter().for_each(|id| self.devices[id.0 as usize] = None);
        self.devices.truncate(self.devices.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
        // Narrow ids only with much room to spare, so that a few devices more or less do not change them to and fro.
        if self.devices.len() < usize::from(u16::MAX) / 2 {
            self.id_width = IdWidth::Two;
        }
        for (device, wish) in self.devices.iter_mut().zip(placed.wishes) {
            if let Some(device) = device {
                device.extra.insert(PARTS_WANTED.into(), wish.into());
            }
        }
        self.spread = Some(Spread::measure(&plan, &placed.rows));
        self.rows = Some(placed.rows);
        self.devices_changed = false;
        self.version += 1;
        Ok(Rebalanced { reassigned, removed: removed.len() })
    }

    /// What each tier should hold, devices marked for removal left out.
    ///
    /// # Errors
    /// Fewer devices with weight than replicas.
    pub fn plan(&self) -> Result<Plan, BuilderFault> {
        let staying = || self.devices().filter(|device| !self.is_marked(device.id));
        let devices = staying().filter(|device| device.weight > 0.0).count();
        if (devices as f64) < self.replicas {
            return Err(BuilderFault::TooFewDevices { replicas: self.replicas, devices });
        }
        Ok(Plan::new(staying(), self.replicas, self.overload))
    }

    /// How far each device is from its share by weight, in percent, by id (`_build_balance_per_dev`).
    ///
    /// # Errors
    /// No device has weight.
    pub fn balances(&self) -> Result<Vec<f64>, BuilderFault> {
        let weight: f64 = self.devices().map(|device| device.weight).sum();
        if weight <= 0.0 {
            return Err(BuilderFault::NoWeight);
        }
        let per_weight = f64::from(self.partitions()) * self.replicas / weight;
        let balances = self.devices.iter().zip(self.parts()).map(|(device, parts)| {
            device.as_ref().map_or(0.0, |device| spread::balance(device, parts, per_weight))
        });
        Ok(balances.collect())
    }

    /// How far the worst device is from its share (`get_balance`).
    ///
    /// # Errors
    /// No device has weight.
    pub fn balance(&self) -> Result<f64, BuilderFault> {
        Ok(self.balances()?.into_iter().map(f64::abs).fold(0.0, f64::max))
    }

    /// How well the replicas were spread when that was last looked at.
    pub fn spread(&self) -> Option<&Spread> {
        self.spread.as_ref()
    }

    /// Looks again. As with Swift this counts as a change.
    ///
    /// # Errors
    /// Not rebalanced yet, or fewer devices with weight than replicas.
    pub fn measure_spread(&mut self) -> Result<&Spread, BuilderFault> {
        let rows = self.rows.as_deref().ok_or(BuilderFault::NotRebalanced)?;
        let spread = Spread::measure(&self.plan()?, rows);
        self.version += 1;
        Ok(self.spread.insert(spread))
    }

    /// The ring as nodes are sent it (`get_ring`).
    ///
    /// # Errors
    /// Not rebalanced yet, or rows that no ring file may hold.
    pub fn ring(&self) -> Result<RingData, BuilderFault> {
        let rows = self.rows.as_deref().ok_or(BuilderFault::NotRebalanced)?;
        let shift = PartShift::new(32 - self.part_power).expect("a power of at most 32");
        let mut devices = self.devices.clone();
        for device in devices.iter_mut().flatten() {
            device.extra.remove(PARTS_WANTED);
        }
        let mut ring = RingData::from_rows(shift, devices, rows).map_err(BuilderFault::Ring)?;
        ring.version = Some(self.version);
        ring.next_part_power = self.next_part_power.map(i64::from);
        ring.id_width = self.id_width;
        Ok(ring)
    }

    /// Whether every replica has a device, no partition two on one, and no row a hole (`validate`).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), BuilderFault> {
        let rows = self.rows.as_deref().ok_or(BuilderFault::NotRebalanced)?;
        let partitions = self.partitions() as usize;
        for (replica, row) in rows.iter().enumerate() {
            let last = replica + 1 == rows.len();
            if row.len() > partitions || (row.len() < partitions && (!last || replica == 0)) {
                return Err(BuilderFault::RowLength { replica, found: row.len(), partitions });
            }
            if let Some(partition) = row.iter().position(|&id| self.device(id).is_none()) {
                return Err(BuilderFault::Unassigned { replica, partition: Partition(partition as u32) });
            }
        }
        for partition in (0..self.partitions()).map(Partition) {
            let mut seen: Vec<DeviceId> = Vec::with_capacity(rows.len());
            for id in self.replicas_of(partition) {
                if seen.contains(&id) {
                    return Err(BuilderFault::Twice { id, partition });
                }
                seen.push(id);
            }
        }
        Ok(())
    }

    /// Lets time pass for every partition (`_update_last_part_moves`). Only whole hours count.
    fn pass_hours(&mut self, now_secs: u64) {
        let hours = now_secs.saturating_sub(self.epoch_secs) / 3600;
        if hours > 0 {
            let hours = hours.min(255) as u8;
            self.moved_hours.iter_mut().for_each(|moved| *moved = moved.saturating_add(hours));
            self.epoch_secs = now_secs;
        }
    }

    /// How long each row is to be: as many whole ones as there are whole replicas, and one for the fraction.
    fn row_lengths(&self) -> Vec<usize> {
        let partitions = self.partitions() as usize;
        let mut lengths = vec![partitions; self.replicas as usize];
        // Of few partitions a small fraction is none: no ring file has an empty row.
        let short = (partitions as f64 * self.replicas.fract()) as usize;
        if short > 0 {
            lengths.push(short);
        }
        lengths
    }

    /// A device that is not about to go.
    fn staying(&mut self, id: DeviceId, what: &'static str) -> Result<&mut Device, BuilderFault> {
        if self.is_marked(id) {
            return Err(BuilderFault::Marked { id, what });
        }
        let device = self.devices.get_mut(id.0 as usize).and_then(Option::as_mut);
        device.ok_or(BuilderFault::NoDevice(id))
    }

    /// Whether no other device is known by this one's ip, port and name.
    fn alone(&self, device: &Device) -> Result<(), BuilderFault> {
        let other = self.devices().find(|other| {
            other.id != device.id
                && (&other.ip, other.port, &other.name) == (&device.ip, device.port, &device.name)
        });
        match other {
            Some(other) => Err(BuilderFault::Taken(Box::new(other.clone()))),
            None => Ok(()),
        }
    }

    fn changed(&mut self) {
        self.devices_changed = true;
        self.version += 1;
    }
}

fn checked_weight(weight: f64) -> Result<(), BuilderFault> {
    if weight >= 0.0 && weight.is_finite() { Ok(()) } else { Err(BuilderFault::Weight(weight)) }
}

/// Why a builder does not do what it was asked for.
#[derive(Debug)]
pub enum BuilderFault {
    /// Not 0 to [`PART_POWER_LIMIT`].
    PartPower(i64),
    /// Fewer than 1, or no number.
    Replicas(f64),
    /// More rows of so many partitions than a ring file can hold.
    TooManyReplicas {
        /// `log2` of the partitions.
        part_power: u8,
        /// What was asked for.
        replicas: f64,
    },
    /// More devices than ids.
    TooManyDevices,
    /// Below 0, or no number.
    Weight(f64),
    /// Below 0, or no number.
    Overload(f64),
    /// No device has this id.
    NoDevice(DeviceId),
    /// This device has that ip, port and name.
    Taken(Box<Device>),
    /// The next rebalance removes this device.
    Marked {
        /// The device.
        id: DeviceId,
        /// What was to be changed of it.
        what: &'static str,
    },
    /// There are no devices, or all are being drained.
    NoWeight,
    /// The replicas of a partition need a device each.
    TooFewDevices {
        /// Replicas of a partition.
        replicas: f64,
        /// Devices with weight.
        devices: usize,
    },
    /// No replica has a device yet.
    NotRebalanced,
    /// A row that is too long, or short though it is not the last.
    RowLength {
        /// The row.
        replica: usize,
        /// Its length.
        found: usize,
        /// How long it may be.
        partitions: usize,
    },
    /// A replica on a device that does not exist.
    Unassigned {
        /// The row.
        replica: usize,
        /// The place in it.
        partition: Partition,
    },
    /// Two replicas of a partition on one device.
    Twice {
        /// The device.
        id: DeviceId,
        /// The partition.
        partition: Partition,
    },
    /// What it holds makes no ring.
    Ring(RingFault),
}

impl fmt::Display for BuilderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BuilderFault::*;
        match self {
            PartPower(power) => write!(f, "part power {power} is not one of 0 to {PART_POWER_LIMIT}"),
            Replicas(replicas) => write!(f, "replicas must be at least 1 (was {replicas:.6})"),
            TooManyReplicas { part_power, replicas } => {
                write!(
                    f,
                    "{replicas} replicas of 2^{part_power} partitions are more than a ring file can hold"
                )
            }
            TooManyDevices => f.write_str("there are as many devices as a ring file has ids for"),
            Weight(weight) => write!(f, "weight {weight} is not a number from 0"),
            Overload(overload) => write!(f, "overload {overload} is not a number from 0"),
            NoDevice(id) => write!(f, "there is no device {id}"),
            Taken(device) => {
                let Device { id, ip, port, name, .. } = &**device;
                write!(f, "Device {id} already uses {ip}:{port}/{name}.")
            }
            Marked { id, what } => {
                write!(f, "Can not set {what} of dev_id {id} because it is marked for removal")
            }
            NoWeight => f.write_str("There are no devices in this ring, or all devices have been deleted"),
            TooFewDevices { replicas, devices } => {
                write!(f, "Replica count of {replicas} requires more than {devices} devices with weight")
            }
            NotRebalanced => f.write_str("nothing is assigned to a device yet; rebalance first"),
            RowLength { replica, found, partitions } => write!(
                f,
                "replica {replica} has {found} partitions of {partitions}, and only the last replica may have fewer"
            ),
            Unassigned { replica, partition } => {
                write!(f, "Partition {partition}, replica {replica} was not allocated to a device.")
            }
            Twice { id, partition } => {
                write!(
                    f,
                    "The partition {partition} has been assigned to device {id} twice; rebalance to mend it"
                )
            }
            Ring(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for BuilderFault {}

/// `log2` of the most partitions a builder has: a ring file holds at most [`ASSIGNMENT_LIMIT`] replicas.
pub const PART_POWER_LIMIT: u8 = 26;

/// The key of a device under which Swift keeps how many replicas it would like to have more. It is not for the ring.
pub(super) const PARTS_WANTED: &str = "parts_wanted";

#[cfg(test)]
mod tests {
    use super::*;

    fn new_device(zone: i64, name: &str, weight: f64) -> NewDevice {
        NewDevice {
            region: 1,
            zone,
            ip: format!("10.0.0.{zone}"),
            port: 6201,
            replication_ip: format!("10.1.0.{zone}"),
            replication_port: 6301,
            name: name.to_owned(),
            weight,
            meta: String::new(),
        }
    }

    /// Four zones with one device each, rebalanced at hour 1000.
    fn four(hours: u32) -> Builder {
        let mut builder = Builder::new(5, 3.0, hours).expect("a builder");
        for zone in 1..=4 {
            builder.add(new_device(zone, "sda", 100.0)).expect("a device");
        }
        assert_eq!(rebalance(&mut builder, 1000 * HOUR), 96);
        builder
    }

    fn rebalance(builder: &mut Builder, now_secs: u64) -> u64 {
        let done = builder.rebalance(b"seed", now_secs).expect("enough devices");
        builder.validate().expect("a sound ring");
        done.reassigned
    }

    const HOUR: u64 = 3600;

    #[test]
    fn what_was_moved_stays_until_its_hours_are_over() {
        let mut builder = four(2);
        let now = 1000 * HOUR;
        builder.add(new_device(1, "sdb", 100.0)).expect("a device");
        assert_eq!(rebalance(&mut builder, now + 2 * HOUR - 1), 0, "only one whole hour has passed");
        let moved = rebalance(&mut builder, now + 4 * HOUR);
        assert_eq!(moved, 19);
        assert_eq!(
            (builder.seconds_left(now + 4 * HOUR), builder.seconds_left(now + 7 * HOUR)),
            (2 * HOUR, 0)
        );
        // The partitions that were not moved may be, those that were may not.
        builder.set_weight(DeviceId(4), 0.0).expect("a device");
        let rest = rebalance(&mut builder, now + 5 * HOUR);
        assert_eq!((rest, builder.parts()[4]), (0, 19), "all that it holds came an hour ago");
        builder.pretend_min_part_hours_passed();
        assert_eq!((rebalance(&mut builder, now + 5 * HOUR), builder.parts()[4]), (19, 0));
    }

    #[test]
    fn moves_in_the_same_hour_as_the_last_are_as_young_as_they_are() {
        let mut builder = four(1);
        builder.pretend_min_part_hours_passed();
        let now = 1000 * HOUR;
        assert_eq!(rebalance(&mut builder, now), 0);
        builder.add(new_device(1, "sdb", 100.0)).expect("a device");
        // The epoch is at `now`; what is moved most of an hour later must not look older than it is.
        assert_eq!(rebalance(&mut builder, now + HOUR - 1), 19);
        builder.set_weight(DeviceId(4), 0.0).expect("a device");
        assert_eq!(rebalance(&mut builder, now + HOUR + 1), 0);
        assert_eq!(rebalance(&mut builder, now + 2 * HOUR - 1), 19);
    }

    #[test]
    fn a_removed_device_goes_at_once_and_its_id_comes_again() {
        let mut builder = four(24);
        builder.add(new_device(2, "sdb", 100.0)).expect("a device");
        builder.remove(DeviceId(1)).expect("a device");
        assert!(matches!(
            builder.set_weight(DeviceId(1), 1.0),
            Err(BuilderFault::Marked { what: "weight", .. })
        ));
        let version = builder.version();
        builder.remove(DeviceId(1)).expect("marked already");
        assert_eq!(builder.version(), version);
        assert_eq!(rebalance(&mut builder, 1000 * HOUR), 24, "its replicas, though no hour has passed");
        assert!(builder.device(DeviceId(1)).is_none());
        assert_eq!(builder.add(new_device(9, "sdc", 1.0)).expect("a device"), DeviceId(1));
        builder.remove(DeviceId(4)).expect("a device");
        rebalance(&mut builder, 1000 * HOUR);
        assert_eq!(builder.devices.len(), 4, "no hole is left at the end");
    }

    #[test]
    fn too_few_devices_leave_everything_as_it_was() {
        let mut builder = four(1);
        for id in 0..2 {
            builder.remove(DeviceId(id)).expect("a device");
        }
        let before = builder.clone();
        let refused = builder.rebalance(b"seed", 2000 * HOUR);
        assert!(matches!(refused, Err(BuilderFault::TooFewDevices { devices: 2, .. })));
        assert_eq!(builder, before);
    }

    #[test]
    fn replicas_can_become_more_fewer_and_fractions() {
        let mut builder = four(1);
        for (replicas, slots) in [(3.5, 112), (4.0, 128), (2.25, 72), (3.0, 96)] {
            builder.set_replicas(replicas).expect("a number of replicas");
            assert!(builder.devices_changed());
            rebalance(&mut builder, 1000 * HOUR);
            let rows = builder.rows().expect("rows");
            assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), slots, "{replicas}");
            let ring = builder.ring().expect("a ring");
            assert_eq!(ring.assignments.replica_count(), replicas);
        }
        for replicas in [0.99, f64::NAN, f64::INFINITY, 3e6] {
            assert!(builder.set_replicas(replicas).is_err(), "{replicas}");
        }
    }

    #[test]
    fn a_ring_has_nothing_of_the_builders_own() {
        let builder = four(1);
        let ring = builder.ring().expect("a ring");
        assert!(ring.devices.iter().flatten().all(|device| device.extra.is_empty()));
        assert!(builder.devices().all(|device| device.extra.contains_key(PARTS_WANTED)));
        assert_eq!(ring.version, Some(builder.version()));
    }

    #[test]
    fn an_unsound_builder_is_seen() {
        let sound = four(1);
        let broken = |change: fn(&mut Vec<Vec<DeviceId>>)| {
            let mut builder = sound.clone();
            change(builder.rows.as_mut().expect("rows"));
            builder.validate().expect_err("unsound")
        };
        assert!(matches!(
            broken(|rows| rows[1][7] = DeviceId(9)),
            BuilderFault::Unassigned { replica: 1, .. }
        ));
        assert!(matches!(broken(|rows| rows[1][7] = rows[0][7]), BuilderFault::Twice { .. }));
        assert!(matches!(broken(|rows| rows[0].truncate(31)), BuilderFault::RowLength { replica: 0, .. }));
        assert!(matches!(
            Builder::new(5, 3.0, 1).expect("a builder").validate(),
            Err(BuilderFault::NotRebalanced)
        ));
    }

    #[test]
    fn an_address_is_taken_once() {
        let mut builder = four(1);
        assert!(
            matches!(builder.add(new_device(1, "sda", 1.0)), Err(BuilderFault::Taken(other)) if other.id.0 == 0)
        );
        let to_first = DeviceChange { ip: Some("10.0.0.1".into()), ..DeviceChange::default() };
        assert!(matches!(builder.set_info(DeviceId(1), &to_first), Err(BuilderFault::Taken(_))));
        builder.set_info(DeviceId(0), &to_first).expect("it is its own");
        for weight in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(builder.add(new_device(8, "sdx", weight)), Err(BuilderFault::Weight(_))));
        }
    }
}
