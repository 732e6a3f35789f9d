//! A partition's primaries, then its handoffs in Swift's order.
//!
//! The ring decides where every replica belongs, and every node decides it alone, from its own copy of the file: what is
//! looked up here must agree with Swift's proxies and replicators to the last handoff, or databases wander. A [`Ring`]
//! never changes; when the operator installs a new file, [`RingWatch`] hands out a new one, and whoever holds the old one
//! ends its work by it.
//!
//! Ring files are read and written in [`format`]. How rings come about is told in [`builder`], which keeps devices and
//! weights between rebalances (its file: [`builder_file`]), asks [`placement`] where each replica should be, and lets
//! [`spread`] say how good that is; [`moves`] compares two assignments, and [`device_string`] is how operators write devices.

pub mod builder;
pub mod builder_file;
pub mod device_string;
pub mod format;
pub mod moves;
pub mod placement;
pub mod spread;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::hash::Hash as Key;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use md5::{Digest, Md5};

pub use self::format::{Device, DeviceId, FormatVersion, RingData, RingFault};
use crate::hash_path::{PartShift, Partition};

/// A ring that is sound and does not change. Share it in an [`Arc`].
#[derive(Debug)]
pub struct Ring {
    data: RingData,
    tiers: Tiers,
}

impl Ring {
    /// Reads a ring file of either version.
    ///
    /// # Errors
    ///
    /// Every file that is not a whole and usable ring ([`RingFault`] says why, and what to do about it).
    pub fn load(path: &Path) -> Result<Ring, RingError> {
        let read = || RingData::read(&mut File::open(path).map_err(RingFault::Unreadable)?);
        read().map(Ring::from).map_err(|fault| RingError { path: Some(path.to_owned()), fault })
    }

    /// The layout of a ring file.
    ///
    /// # Errors
    ///
    /// What is no ring file; more of it than its beginning is not looked at.
    pub fn version_of(path: &Path) -> Result<FormatVersion, RingError> {
        let look = || FormatVersion::of(&mut File::open(path).map_err(RingFault::Unreadable)?);
        look().map_err(|fault| RingError { path: Some(path.to_owned()), fault })
    }

    /// A ring made by hand: devices by id, then for each replica the device of each partition. Every row but the last is
    /// full; the last may be shorter.
    ///
    /// # Errors
    ///
    /// Rows of other lengths, ids that name no device, devices that are not in the place of their id.
    pub fn from_rows(
        part_shift: PartShift,
        devices: Vec<Option<Device>>,
        rows: Vec<Vec<DeviceId>>,
    ) -> Result<Ring, RingError> {
        let data = RingData::from_rows(part_shift, devices, &rows);
        data.map(Ring::from).map_err(|fault| RingError { path: None, fault })
    }

    /// Writes the ring where every reader finds either the old file or the whole new one, readable by everybody as Swift
    /// leaves it.
    ///
    /// # Errors
    ///
    /// [`RingFault::Unwritable`], or [`RingFault::WideIds`] if the ids do not fit the layout. The old file is then as it was,
    /// unless only the last step failed, the sync of its directory.
    pub fn save(&self, path: &Path, version: FormatVersion) -> Result<(), RingError> {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
        let saved = self
            .data
            .to_bytes(version, name)
            .and_then(|bytes| replace(path, &bytes, None).map_err(RingFault::Unwritable));
        saved.map_err(|fault| RingError { path: Some(path.to_owned()), fault })
    }

    /// All that the file holds.
    pub fn data(&self) -> &RingData {
        &self.data
    }

    /// How hashes become partitions.
    pub fn part_shift(&self) -> PartShift {
        self.data.part_shift
    }

    /// `2^part_power`.
    pub fn partition_count(&self) -> u32 {
        self.data.assignments.partitions()
    }

    /// Not always whole: 2.5 means that every other partition has a third replica.
    pub fn replica_count(&self) -> f64 {
        self.data.assignments.replica_count()
    }

    /// The devices in order of their ids, those without partitions included.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.data.devices.iter().flatten().map(Box::as_ref)
    }

    /// The device of an id; `None` for a removed one and past the end.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.data.devices.get(id.0 as usize)?.as_deref()
    }

    /// Does a device hold any partition?
    pub fn assigned(&self, device: DeviceId) -> bool {
        let partitions = 0..self.part_shift().partitions();
        partitions
            .map(|number| Partition(number as u32))
            .any(|partition| self.replicas(partition).any(|replica| replica.id == device))
    }

    /// Devices that hold at least one partition.
    pub fn assigned_device_count(&self) -> usize {
        self.tiers.totals[DEVICE]
    }

    /// The power that partitions are about to be split to, if they are.
    pub fn next_part_power(&self) -> Option<i64> {
        self.data.next_part_power
    }

    /// The builder's count of changes, in rings that say so.
    pub fn version(&self) -> Option<i64> {
        self.data.version
    }

    /// The devices that should hold a partition, in the order of its replicas; one that holds two of them comes once
    /// (`swift/common/ring/ring.py: Ring.get_part_nodes`). None for a partition that the ring does not have.
    pub fn primaries(&self, partition: Partition) -> Vec<&Device> {
        let mut primaries: Vec<&Device> = Vec::new();
        for device in self.replicas(partition) {
            if primaries.iter().all(|primary| primary.id != device.id) {
                primaries.push(device);
            }
        }
        primaries
    }

    /// The ids of [`Ring::primaries`], but a device that holds two replicas comes twice.
    pub fn primary_ids(&self, partition: Partition) -> Vec<DeviceId> {
        self.replicas(partition).map(|device| device.id).collect()
    }

    /// Where else to look for a partition, or to put it, nearest first: every other device that holds any partition, as far
    /// as the walk comes by it (`swift/common/ring/ring.py: Ring.get_more_nodes`). Found as it is asked for.
    pub fn handoffs(&self, partition: Partition) -> impl Iterator<Item = &Device> {
        Handoffs::new(self, partition)
    }

    /// The device of each replica, duplicates included. The rows name only devices that exist.
    fn replicas(&self, partition: Partition) -> impl Iterator<Item = &Device> {
        (0..self.data.assignments.rows())
            .filter_map(move |row| self.device(self.data.assignments.device(row, partition)?))
    }
}

impl From<RingData> for Ring {
    fn from(data: RingData) -> Ring {
        Ring { tiers: Tiers::new(&data), data }
    }
}

/// Which region, zone, server and device a device is or is in, numbered through from 0, and how many of each the ring's
/// rows reach. Counting only what holds partitions lets a search for handoffs end when there is nothing left to find
/// (`swift/common/ring/ring.py: Ring._update_bookkeeping`).
#[derive(Debug)]
struct Tiers {
    numbers: Vec<[usize; TIERS]>,
    totals: [usize; TIERS],
}

impl Tiers {
    fn new(data: &RingData) -> Tiers {
        let mut assigned = vec![false; data.devices.len()];
        data.assignments.iter().for_each(|id| assigned[id.0 as usize] = true);

        let (mut regions, mut zones, mut servers) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut numbers = vec![[0; TIERS]; assigned.len()];
        let mut devices = 0;
        for (device, numbers) in data.devices.iter().zip(&mut numbers) {
            let Some(device) = device.as_deref().filter(|device| assigned[device.id.0 as usize]) else {
                continue;
            };
            let Device { region, zone, ip, .. } = device;
            *numbers = [
                number(&mut regions, *region),
                number(&mut zones, (*region, *zone)),
                number(&mut servers, (*region, *zone, ip.as_str())),
                devices,
            ];
            devices += 1;
        }
        Tiers { numbers, totals: [regions.len(), zones.len(), servers.len(), devices] }
    }
}

/// The number of a key: the next one if it is new.
fn number<K: Eq + Key>(numbers: &mut HashMap<K, usize>, key: K) -> usize {
    let next = numbers.len();
    *numbers.entry(key).or_insert(next)
}

/// The search for handoffs: four walks over all partitions, each after one tier. The first takes the devices whose region
/// has nothing of ours yet, the next those in a new zone, then those on a new server, at last every device.
struct Handoffs<'a> {
    ring: &'a Ring,
    /// Per tier and number: whether a primary or an earlier handoff is there.
    seen: [Vec<bool>; TIERS],
    /// How many are, per tier.
    found: [usize; TIERS],
    tier: usize,
    /// How many partitions, and rows of the last of them, this walk has tried.
    step: u64,
    row: usize,
    order: VisitingOrder,
}

impl<'a> Handoffs<'a> {
    fn new(ring: &'a Ring, partition: Partition) -> Handoffs<'a> {
        let mut handoffs = Handoffs {
            ring,
            seen: ring.tiers.totals.map(|total| vec![false; total]),
            found: [0; TIERS],
            tier: 0,
            step: 0,
            row: 0,
            order: VisitingOrder::new(ring.part_shift(), partition),
        };
        ring.replicas(partition).for_each(|primary| handoffs.mark(primary));
        handoffs
    }

    /// Notes that something of ours is on this device.
    fn mark(&mut self, device: &Device) {
        let numbers = self.ring.tiers.numbers[device.id.0 as usize];
        for ((seen, found), number) in self.seen.iter_mut().zip(&mut self.found).zip(numbers) {
            *found += usize::from(!seen[number]);
            seen[number] = true;
        }
    }

    /// The next device that this walk comes by, wanted or not; `None` at its end.
    fn advance(&mut self) -> Option<&'a Device> {
        let assignments = &self.ring.data.assignments;
        loop {
            let partition = self.order.nth(self.step)?;
            let id = assignments.device(self.row, partition);
            self.row += 1;
            match id {
                Some(id) => return self.ring.device(id),
                // Only the last row can be short, so the partition has no further replica.
                None => (self.step, self.row) = (self.step + 1, 0),
            }
        }
    }
}

impl<'a> Iterator for Handoffs<'a> {
    type Item = &'a Device;

    fn next(&mut self) -> Option<&'a Device> {
        while self.tier < TIERS {
            while self.found[self.tier] < self.ring.tiers.totals[self.tier] {
                let Some(device) = self.advance() else { break };
                let number = self.ring.tiers.numbers[device.id.0 as usize][self.tier];
                if !self.seen[self.tier][number] {
                    self.mark(device);
                    return Some(device);
                }
            }
            (self.tier, self.step, self.row) = (self.tier + 1, 0, 0);
        }
        None
    }
}

/// The partitions in which handoffs are looked for: from one that depends on the partition, in strides, to the end; then
/// from near the beginning up to where it started. In strides so that a search ends soon in a ring of many partitions.
struct VisitingOrder {
    start: u64,
    stride: u64,
    partitions: u64,
}

impl VisitingOrder {
    fn new(part_shift: PartShift, partition: Partition) -> VisitingOrder {
        let [a, b, c, d, ..]: [u8; 16] = Md5::digest(partition.to_string().as_bytes()).into();
        let partitions = part_shift.partitions();
        VisitingOrder {
            start: part_shift.shift(u32::from_be_bytes([a, b, c, d])).into(),
            stride: (partitions / 65536).max(1),
            partitions,
        }
    }

    fn nth(&self, step: u64) -> Option<Partition> {
        let ahead = self.partitions - self.start;
        let first_leg = ahead.div_ceil(self.stride);
        let visited = if step < first_leg {
            self.start + step * self.stride
        } else {
            // A whole stride where the first leg came out even: with a stride of 1, partition 0 is passed by.
            let second_start = self.stride - ahead % self.stride;
            let visited = second_start + (step - first_leg) * self.stride;
            if visited >= self.start {
                return None;
            }
            visited
        };
        Some(Partition(visited as u32))
    }
}

/// A ring file that may be replaced while we run.
///
/// The file is looked at whenever somebody asks for the ring, and read again if its modification time, its size or its inode
/// is another. Right after a change a further one might not show; then it is read again in any case, though not more often
/// than the interval says. A bad new file does not stop us: the ring that was good stays in use.
#[derive(Debug)]
pub struct RingWatch {
    path: PathBuf,
    interval: Duration,
    ring: Arc<Ring>,
    seen: Look,
    next_doubt: Instant,
}

impl RingWatch {
    /// Reads the file for the first time.
    ///
    /// # Errors
    ///
    /// What [`Ring::load`] says; there is no ring to fall back on yet.
    pub fn open(path: &Path, interval: Duration, now: Instant) -> Result<RingWatch, RingError> {
        let seen = Look::at(path);
        let ring = Arc::new(Ring::load(path)?);
        Ok(RingWatch { path: path.to_owned(), interval, ring, seen, next_doubt: now + interval })
    }

    /// The ring as of now.
    ///
    /// # Errors
    ///
    /// A new file that is no ring, or no file any more. This is told once for each such file; ask again, or take
    /// [`RingWatch::last_good`], for the ring that stays in use.
    pub fn current(&mut self, now: Instant) -> Result<Arc<Ring>, RingError> {
        let look = Look::at(&self.path);
        let same_file = look.file == self.seen.file;
        if same_file && (self.seen.settled || now < self.next_doubt) {
            return Ok(self.last_good());
        }
        self.next_doubt = now + self.interval;
        self.seen = look;
        match Ring::load(&self.path) {
            Ok(ring) => self.ring = Arc::new(ring),
            Err(error) if !same_file => return Err(error),
            Err(_) => {}
        }
        Ok(self.last_good())
    }

    /// The ring that was read last, without a look at the file.
    pub fn last_good(&self) -> Arc<Ring> {
        Arc::clone(&self.ring)
    }
}

/// What a look at the file showed.
#[derive(Debug)]
struct Look {
    /// Modification time (seconds, nanoseconds), size, inode; `None` if there is no file to be seen.
    file: Option<(i64, i64, u64, u64)>,
    /// Whether a later change would show. A write within the clock's grain of the one before it leaves no trace.
    settled: bool,
}

impl Look {
    fn at(path: &Path) -> Look {
        match fs::metadata(path) {
            Ok(file) => Look {
                file: Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino())),
                settled: file.modified().is_ok_and(|modified| {
                    let age = SystemTime::now().duration_since(modified);
                    age.map_or(true, |age| age > MTIME_GRAIN)
                }),
            },
            Err(_) => Look { file: None, settled: true },
        }
    }
}

/// Puts a file in the place of another: written beside it, synced, renamed, and the directory synced. It is readable by
/// everybody, or belongs to whom another did and has its mode, as far as we may give files away.
pub(crate) fn replace(path: &Path, bytes: &[u8], like: Option<&fs::Metadata>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Hidden: should we be killed, what is left is nobody's ring.
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    if let Some(like) = like {
        let _ = fchown(file.as_file(), Some(like.uid()), Some(like.gid()));
    }
    let mode = like.map_or(0o644, |like| like.mode() & 0o777);
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// A ring that cannot be used, or cannot be written.
#[derive(Debug)]
pub struct RingError {
    /// The file; `None` for a ring that was made by hand.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    pub fault: RingFault,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "ring {}: {}", path.display(), self.fault),
            None => write!(f, "ring: {}", self.fault),
        }
    }
}

impl std::error::Error for RingError {}

/// Region, zone, server, device.
const TIERS: usize = 4;

/// The last tier.
const DEVICE: usize = TIERS - 1;

/// How old a modification must be before the next one is sure to have another time.
const MTIME_GRAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: u32, region: i64, zone: i64, ip: &str) -> Option<Device> {
        Some(placement::tests::device(id, region, zone, ip, 100.0))
    }

    fn rows(rows: &[&[u32]]) -> Vec<Vec<DeviceId>> {
        rows.iter().map(|row| row.iter().copied().map(DeviceId).collect()).collect()
    }

    fn shift(part_power: u8) -> PartShift {
        PartShift::new(32 - part_power).expect("a part power of at most 32")
    }

    /// Six devices, of which 4 is a hole and 5 holds nothing; four partitions, two and a half replicas.
    fn small() -> Ring {
        let devices = vec![
            device(0, 1, 1, "a"),
            device(1, 1, 2, "b"),
            device(2, 2, 1, "c"),
            device(3, 2, 1, "c"),
            None,
            device(5, 3, 1, "d"),
        ];
        Ring::from_rows(shift(2), devices, rows(&[&[0, 1, 2, 3], &[1, 1, 3, 0], &[2, 0]]))
            .expect("a sound ring")
    }

    fn ids<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Vec<u32> {
        devices.into_iter().map(|device| device.id.0).collect()
    }

    #[test]
    fn primaries_come_in_row_order_without_duplicates_and_stop_where_the_row_is_short() {
        let ring = small();
        let primaries: Vec<_> = (0..4).map(|partition| ids(ring.primaries(Partition(partition)))).collect();
        assert_eq!(primaries, [vec![0, 1, 2], vec![1, 0], vec![2, 3], vec![3, 0]]);
        assert_eq!(ring.replica_count(), 2.5);
        assert_eq!(ring.assigned_device_count(), 4);
    }

    #[test]
    fn a_partition_that_does_not_exist_has_no_primaries() {
        let ring = small();
        assert!([4, 5, u32::MAX].iter().all(|&partition| ring.primaries(Partition(partition)).is_empty()));
    }

    #[test]
    fn handoffs_are_the_other_devices_that_hold_something_new_regions_first() {
        let ring = small();
        for partition in 0..4 {
            let handoffs = ids(ring.handoffs(Partition(partition)));
            let mut all = [ids(ring.primaries(Partition(partition))), handoffs].concat();
            all.sort();
            assert_eq!(all, [0, 1, 2, 3], "partition {partition}");
        }
        assert_eq!(ring.handoffs(Partition(1)).next().map(|device| device.region), Some(2));
    }

    #[test]
    fn with_a_stride_of_one_the_second_leg_begins_at_partition_one() {
        let order = VisitingOrder { start: 3, stride: 1, partitions: 5 };
        let visited: Vec<_> = (0..).map_while(|step| order.nth(step)).map(|partition| partition.0).collect();
        assert_eq!(visited, [3, 4, 1, 2]);
        let order = VisitingOrder { start: 0, stride: 1, partitions: 3 };
        assert_eq!((0..).map_while(|step| order.nth(step)).count(), 3);
        let order = VisitingOrder { start: 5, stride: 2, partitions: 8 };
        let visited: Vec<_> = (0..).map_while(|step| order.nth(step)).map(|partition| partition.0).collect();
        assert_eq!(visited, [5, 7, 1, 3]);
    }

    #[test]
    fn rows_that_are_no_ring_are_refused() {
        let build = |table: &[&[u32]]| {
            let devices = vec![device(0, 1, 1, "a"), None, device(2, 1, 1, "a")];
            Ring::from_rows(shift(1), devices, rows(table)).map(|_| ()).map_err(|error| error.fault)
        };
        assert!(build(&[&[0, 2], &[2]]).is_ok());
        let lengths: [&[&[u32]]; 6] =
            [&[], &[&[]], &[&[0]], &[&[0, 2, 0]], &[&[0, 2], &[]], &[&[0, 2], &[0], &[0, 2]]];
        for table in lengths {
            assert!(matches!(build(table), Err(RingFault::RowLengths { .. })), "{table:?}");
        }
        assert!(matches!(
            build(&[&[0, 2], &[0, 1]]),
            Err(RingFault::NoDevice { id: DeviceId(1), replica: 1, partition: Partition(1) })
        ));
        assert!(matches!(build(&[&[3, 2]]), Err(RingFault::NoDevice { id: DeviceId(3), .. })));
        let misplaced = Ring::from_rows(shift(0), vec![device(1, 1, 1, "a")], rows(&[&[0]]));
        assert!(matches!(misplaced.map_err(|e| e.fault), Err(RingFault::BadDevice { place: 0 })));
        let too_many = Ring::from_rows(shift(32), vec![device(0, 1, 1, "a")], rows(&[&[0]]));
        assert!(matches!(too_many.map_err(|e| e.fault), Err(RingFault::TooLarge { .. })));
    }

    #[test]
    fn a_saved_ring_is_readable_by_all_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("container.ring.gz");
        for version in [FormatVersion::V1, FormatVersion::V2] {
            small().save(&path, version).expect("to save it");
            assert_eq!(Ring::load(&path).expect("to load it").data, small().data);
        }
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&directory).expect("the directory").count(), 1);
        let nowhere = small().save(&directory.path().join("none/x.ring.gz"), FormatVersion::V1);
        assert!(matches!(nowhere.map_err(|e| e.fault), Err(RingFault::Unwritable(_))));
    }

    #[test]
    fn an_error_names_the_file_and_the_remedy() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.ring.gz");
        fs::write(&path, [0x1f, 0x8b]).expect("to write");
        let error = Ring::load(&path).expect_err("no ring").to_string();
        assert_eq!(error, format!("ring {}: cut short; copy the ring again", path.display()));
    }

    /// A ring file, its watch, and a clock to move.
    struct Watched {
        _directory: tempfile::TempDir,
        path: PathBuf,
        now: Instant,
        watch: RingWatch,
    }

    const INTERVAL: Duration = Duration::from_secs(15);

    impl Watched {
        fn new() -> Watched {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("container.ring.gz");
            small().save(&path, FormatVersion::V1).expect("to save it");
            age(&path, 1000);
            let now = Instant::now();
            let watch = RingWatch::open(&path, INTERVAL, now).expect("to open it");
            Watched { _directory: directory, path, now, watch }
        }

        fn look(&mut self) -> Result<Arc<Ring>, RingError> {
            self.now += INTERVAL;
            self.watch.current(self.now)
        }
    }

    fn age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).expect("the file");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("to set its time");
    }

    #[test]
    fn a_watched_ring_is_read_again_as_soon_as_its_file_changed_and_not_before() {
        let mut watched = Watched::new();
        let first = watched.watch.last_good();
        assert!(Arc::ptr_eq(&first, &watched.look().expect("a ring")));
        age(&watched.path, 2000);
        let second = watched.watch.current(watched.now).expect("a ring");
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &watched.look().expect("a ring")));
    }

    #[test]
    fn a_file_that_may_still_be_changing_is_read_again_though_it_looks_the_same() {
        let mut watched = Watched::new();
        age(&watched.path, 0);
        let fresh = watched.look().expect("a ring");
        let early = watched.watch.current(watched.now + INTERVAL - Duration::from_nanos(1)).expect("a ring");
        assert!(Arc::ptr_eq(&fresh, &early), "it is read over and over");
        assert!(!Arc::ptr_eq(&fresh, &watched.look().expect("a ring")));
    }

    #[test]
    fn a_bad_new_file_is_told_once_and_the_good_ring_stays() {
        let mut watched = Watched::new();
        let good = watched.watch.last_good();
        for seconds in [0, 1000] {
            fs::write(&watched.path, b"nothing").expect("to write");
            age(&watched.path, seconds);
            assert!(matches!(watched.look().map_err(|e| e.fault), Err(RingFault::NotGzip)));
            for _ in 0..3 {
                assert!(Arc::ptr_eq(&good, &watched.look().expect("the good ring")));
            }
        }
        fs::remove_file(&watched.path).expect("to remove");
        assert!(matches!(watched.look().map_err(|e| e.fault), Err(RingFault::Unreadable(_))));
        assert!(Arc::ptr_eq(&good, &watched.look().expect("the good ring")));
        small().save(&watched.path, FormatVersion::V2).expect("to save");
        assert!(!Arc::ptr_eq(&good, &watched.look().expect("the new ring")));
    }

    #[test]
    fn a_watch_needs_a_ring_to_begin_with() {
        assert!(RingWatch::open(Path::new("/nonexistent/x.ring.gz"), INTERVAL, Instant::now()).is_err());
    }
}
