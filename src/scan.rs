//! The databases of all our drives in turn, less what a filter leaves out.
//!
//! A walk goes down `containers/<partition>/<suffix>/<hash>` of one drive and keeps one listing of each level, so that it
//! takes the same memory on any drive. On its way it removes directories that are empty
//! (`swift/common/db_replicator.py: roundrobin_datadirs`). What cannot be read is told and passed by; what vanishes
//! meanwhile was somebody's right. Swift ends the pass for all drives in both cases.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drive::{DeviceName, Drive, HashDir};
use crate::hash_path::Partition;

/// A database, as the walk found it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The drive it is on.
    pub drive: Arc<Drive>,
    /// The partition it lies in, rightly or not; `None` if that is a number that no ring has.
    pub partition: Option<Partition>,
    /// Its directory.
    pub hash_dir: HashDir,
    /// `<hash>.db` if there is one, else the last database file. Which file is in charge, the hash directory says.
    pub database: PathBuf,
}

impl Found {
    /// The directory of its partition.
    pub fn partition_dir(&self) -> &Path {
        let above = self.hash_dir.dir().ancestors().nth(2);
        above.expect("the walk went down from the partition")
    }
}

/// A directory that could not be read, or removed though it is empty.
#[derive(Debug)]
pub struct Problem {
    /// The drive it is on.
    pub device: DeviceName,
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Which databases a walk is to find. The default is all.
#[derive(Clone, Default)]
pub struct Filter {
    /// Only on these devices.
    pub devices: Option<BTreeSet<DeviceName>>,
    /// Only in these partitions.
    pub partitions: Option<BTreeSet<Partition>>,
    /// Not in partitions for which this says yes of the drive: with `handoffs_only`, those it is a primary of.
    pub leave_out: Option<LeaveOut>,
}

/// See [`Filter::leave_out`].
pub type LeaveOut = Arc<dyn Fn(&Drive, Partition) -> bool + Send + Sync>;

impl Filter {
    fn wants(&self, drive: &Drive, partition: Option<Partition>) -> bool {
        let asked_for = match &self.partitions {
            Some(partitions) => partition.is_some_and(|partition| partitions.contains(&partition)),
            None => true,
        };
        let left_out = |leave_out: &LeaveOut| partition.is_some_and(|partition| leave_out(drive, partition));
        asked_for && !self.leave_out.as_ref().is_some_and(left_out)
    }
}

/// The databases of several drives, one of each in turn. `seed` settles in which order partitions come.
pub fn scan(drives: impl IntoIterator<Item = Arc<Drive>>, filter: &Filter, seed: u64) -> Scan {
    let wanted =
        |drive: &Arc<Drive>| filter.devices.as_ref().is_none_or(|devices| devices.contains(drive.name()));
    let walk = |(number, drive)| Walk::new(drive, filter.clone(), seed.wrapping_add(number));
    Scan { walks: (0..).zip(drives.into_iter().filter(wanted)).map(walk).collect() }
}

/// See [`scan`].
pub struct Scan {
    walks: VecDeque<Walk>,
}

impl Scan {
    /// Drives that have not been walked to their end.
    pub fn drives_left(&self) -> usize {
        self.walks.len()
    }
}

impl Iterator for Scan {
    type Item = Result<Found, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut walk = self.walks.pop_front()?;
            if let Some(item) = walk.next() {
                self.walks.push_back(walk);
                return Some(item);
            }
        }
    }
}

/// The databases of one drive, partitions in random order.
pub struct Walk {
    drive: Arc<Drive>,
    filter: Filter,
    seed: u64,
    begun: bool,
    /// What is still to be visited, level by level: the last listing is the deepest.
    partitions: Vec<PathBuf>,
    suffixes: Vec<PathBuf>,
    hashes: Vec<PathBuf>,
    partition: Option<Partition>,
}

impl Walk {
    /// Begins a walk; nothing is read before it is asked for. Which devices the filter wants is not looked at.
    pub fn new(drive: Arc<Drive>, filter: Filter, seed: u64) -> Walk {
        let (partitions, suffixes, hashes) = (Vec::new(), Vec::new(), Vec::new());
        Walk { drive, filter, seed, begun: false, partitions, suffixes, hashes, partition: None }
    }

    /// Lists `containers`, once.
    fn begin(&mut self) -> Result<(), Problem> {
        self.begun = true;
        let Some(mut partitions) = self.list(&self.drive.containers())? else { return Ok(()) };
        partitions.retain(|path| match partition_number(path) {
            Some(partition) => self.filter.wants(&self.drive, partition),
            None => false,
        });
        shuffle(&mut partitions, self.seed);
        self.partitions = partitions;
        Ok(())
    }

    /// The database in a hash directory; an empty directory is removed.
    fn look(&self, dir: PathBuf) -> Result<Option<Found>, Problem> {
        let Some(hash_dir) = self.drive.hash_dir_at(dir.clone()) else {
            return self.remove_if_empty(&dir).map(|()| None);
        };
        match database_of(&hash_dir) {
            Ok(Some(database)) => {
                let (drive, partition) = (self.drive.clone(), self.partition);
                Ok(Some(Found { drive, partition, hash_dir, database }))
            }
            // A container server that saw the database just before it was moved away makes the directory anew for its
            // row. Nobody can send on what belongs to no container; but nobody may overlook it either.
            Ok(None) if hash_dir.has_pending() => {
                Err(self.problem(&hash_dir.pending_path(), io::Error::other(ORPHANED)))
            }
            Ok(None) => self.remove_if_empty(&dir).map(|()| None),
            Err(e) if is_no_directory(&e) => Ok(None),
            Err(error) => Err(self.problem(&dir, error)),
        }
    }

    /// What is in a directory; `None` if it is gone or no directory.
    fn list(&self, dir: &Path) -> Result<Option<Vec<PathBuf>>, Problem> {
        let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        match entries {
            Ok(paths) => Ok(Some(paths)),
            Err(e) if is_no_directory(&e) => Ok(None),
            Err(error) => Err(self.problem(dir, error)),
        }
    }

    /// What is in a partition or suffix directory; an empty one is removed.
    fn descend(&self, dir: &Path) -> Result<Vec<PathBuf>, Problem> {
        match self.list(dir)? {
            Some(paths) if paths.is_empty() => self.remove_if_empty(dir).map(|()| paths),
            paths => Ok(paths.unwrap_or_default()),
        }
    }

    fn remove_if_empty(&self, dir: &Path) -> Result<(), Problem> {
        match fs::remove_dir(dir) {
            Err(e) if !is_no_directory(&e) && e.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(self.problem(dir, e))
            }
            _ => Ok(()),
        }
    }

    fn problem(&self, path: &Path, error: io::Error) -> Problem {
        Problem { device: self.drive.name().clone(), path: path.to_owned(), error }
    }

    /// One step down or along; `None` at the end, `Some(None)` if it led to no database.
    fn step(&mut self) -> Result<Option<Option<Found>>, Problem> {
        if !self.begun {
            self.begin()?;
        } else if let Some(hash) = self.hashes.pop() {
            return self.look(hash).map(Some);
        } else if let Some(suffix) = self.suffixes.pop() {
            self.hashes = self.descend(&suffix)?;
        } else if let Some(partition) = self.partitions.pop() {
            self.partition = partition_number(&partition).flatten();
            self.suffixes = self.descend(&partition)?;
        } else {
            return Ok(None);
        }
        Ok(Some(None))
    }
}

impl Iterator for Walk {
    type Item = Result<Found, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step().transpose()? {
                Ok(None) => (),
                Ok(Some(found)) => return Some(Ok(found)),
                Err(problem) => return Some(Err(problem)),
            }
        }
    }
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The usual file without a listing, which spares most directories from being read.
fn database_of(hash_dir: &HashDir) -> io::Result<Option<PathBuf>> {
    let usual = hash_dir.dir().join(format!("{}.db", hash_dir.hash()));
    match fs::metadata(&usual) {
        Ok(_) => Ok(Some(usual)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => hash_dir.in_charge(),
        Err(e) => Err(e),
    }
}

/// Is a directory of this name a partition's, and if so, which? Whatever Python's `int` takes and is not negative: white
/// space around, a sign, leading zeros, single underscores between digits. `Some(None)` is one beyond all rings.
fn partition_number(path: &Path) -> Option<Option<Partition>> {
    let name = path.file_name()?.to_str()?.trim();
    let negative = name.starts_with('-');
    let digits = name.strip_prefix(['+', '-']).unwrap_or(name);
    let groups_sound = |group: &str| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit());
    if !digits.split('_').all(groups_sound) {
        return None;
    }
    let digits = digits.replace('_', "");
    if negative && digits.bytes().any(|b| b != b'0') {
        return None;
    }
    Some(digits.parse().ok().map(Partition))
}

/// Fisher and Yates, with the numbers of splitmix64: the order need not be unguessable, only different from pass to pass.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(last, ((mixed ^ mixed >> 31) % (last as u64 + 1)) as usize);
    }
}

const ORPHANED: &str = "rows wait for a database that is not here any more; append this file to the .db.pending beside \
     the database on one of its primaries, and remove it";

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        devices: tempfile::TempDir,
        drives: Vec<Arc<Drive>>,
    }

    /// Devices `d0`, `d1`, ... with so many databases each, every one in a partition of its own.
    fn bench(databases: &[u32]) -> Bench {
        let devices = tempfile::tempdir().unwrap();
        let mut drives = Vec::new();
        for (number, databases) in databases.iter().enumerate() {
            let name = DeviceName::new(format!("d{number}")).unwrap();
            fs::create_dir(devices.path().join(name.as_str())).unwrap();
            let drive = Drive::open(devices.path(), &name, false).unwrap();
            for partition in 0..*databases {
                let dir = drive.hash_dir(Partition(partition), format!("{partition:032x}").parse().unwrap());
                dir.create().unwrap();
                fs::write(dir.dir().join(format!("{partition:032x}.db")), "").unwrap();
            }
            drives.push(Arc::new(drive));
        }
        Bench { devices, drives }
    }

    impl Bench {
        /// Device and partition of everything found.
        fn found(&self, filter: &Filter, seed: u64) -> Vec<(String, u32)> {
            let named = |found: Found| (found.drive.name().to_string(), found.partition.unwrap().0);
            scan(self.drives.clone(), filter, seed).map(|found| named(found.unwrap())).collect()
        }
    }

    #[test]
    fn drives_take_turns() {
        let bench = bench(&[3, 0, 5]);
        let found = bench.found(&Filter::default(), 7);
        let devices: Vec<&str> = found.iter().map(|(device, _)| device.as_str()).collect();
        assert_eq!(devices, ["d0", "d2", "d0", "d2", "d0", "d2", "d2", "d2"]);
        assert_eq!(BTreeSet::from_iter(&found).len(), 8);
    }

    #[test]
    fn rows_without_a_database_are_told_and_left() {
        let bench = bench(&[2]);
        let orphan = bench.drives[0].hash_dir(Partition(9), format!("{:032x}", 9).parse().unwrap());
        orphan.create().unwrap();
        fs::write(orphan.pending_path(), ":row").unwrap();
        let scanned: Vec<_> = scan(bench.drives.clone(), &Filter::default(), 1).collect();
        let problems: Vec<&Problem> = scanned.iter().filter_map(|found| found.as_ref().err()).collect();
        assert_eq!((scanned.len(), problems.len()), (3, 1));
        assert_eq!(problems[0].path, orphan.pending_path());
        assert!(orphan.has_pending());
    }

    #[test]
    fn partitions_come_in_an_order_that_the_seed_settles() {
        let bench = bench(&[40]);
        let order = |seed| bench.found(&Filter::default(), seed);
        let sorted = |seed| BTreeSet::from_iter(order(seed));
        assert_ne!(order(1), order(2));
        assert_eq!(sorted(1), sorted(2));
        assert_eq!(sorted(1).len(), 40);
    }

    #[test]
    fn filters_leave_out() {
        let bench = bench(&[4, 4]);
        let devices = Some(BTreeSet::from([DeviceName::new("d1").unwrap(), DeviceName::new("d9").unwrap()]));
        let filter = Filter { devices, ..Filter::default() };
        assert!(bench.found(&filter, 1).iter().all(|(device, _)| device == "d1"));
        assert_eq!(bench.found(&filter, 1).len(), 4);

        let filter =
            Filter { partitions: Some(BTreeSet::from([Partition(2), Partition(9)])), ..Filter::default() };
        assert_eq!(bench.found(&filter, 1), [("d0".to_owned(), 2), ("d1".to_owned(), 2)]);

        let primary = |drive: &Drive, partition: Partition| drive.name().as_str() == "d0" || partition.0 < 3;
        let filter = Filter { leave_out: Some(Arc::new(primary)), ..Filter::default() };
        assert_eq!(bench.found(&filter, 1), [("d1".to_owned(), 3)]);
    }

    #[test]
    fn what_cannot_be_read_is_told_once_and_passed_by() {
        let bench = bench(&[2, 2]);
        for path in ["7", "0/loop"] {
            let path = bench.drives[0].containers().join(path);
            std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
        }
        let (found, problems): (Vec<_>, Vec<_>) =
            scan(bench.drives.clone(), &Filter::default(), 1).partition(Result::is_ok);
        assert_eq!(found.len(), 4);
        let paths: BTreeSet<PathBuf> =
            problems.into_iter().map(|problem| problem.unwrap_err().path).collect();
        assert_eq!(paths, ["7", "0/loop"].map(|path| bench.drives[0].containers().join(path)).into());
    }

    #[test]
    fn what_vanishes_is_no_problem() {
        let bench = bench(&[3, 1]);
        let mut walk = scan(bench.drives.clone(), &Filter::default(), 1);
        assert!(walk.next().unwrap().is_ok());
        fs::remove_dir_all(bench.devices.path().join("d0")).unwrap();
        assert!(walk.all(|found| found.unwrap().drive.name().as_str() == "d1"));
    }

    #[test]
    fn strange_partition_names_are_read_as_python_reads_them() {
        let number = |name: &str| partition_number(&Path::new("/x").join(name));
        for (name, expected) in
            [("5", 5), ("007", 7), ("+5", 5), ("-0", 0), (" 5 ", 5), ("1_0", 10), ("4294967295", u32::MAX)]
        {
            assert_eq!(number(name), Some(Some(Partition(expected))), "{name}");
        }
        assert_eq!(number("4294967296"), Some(None));
        for name in ["-1", "1__0", "_1", "1_", "+", "-", "+-1", "--0", "0x1", "1.0", " "] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
