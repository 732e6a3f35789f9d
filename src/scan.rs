//! The databases of a drive in the order in which they lie, less what a filter leaves out.
//!
//! A walk goes down `containers/<partition>/<suffix>/<hash>` and keeps one listing of each level, so that it takes little
//! memory on any drive. It begins at a partition of the caller's choice and goes round, so that what a pass that is cut
//! short did not reach is reached by another, and takes every level in order, which is the order of the ledger. On its
//! way it removes directories that are empty (`swift/common/db_replicator.py: roundrobin_datadirs`). What cannot be read
//! is told and passed by; what vanishes meanwhile was somebody's right. Swift ends the pass for all drives in both cases.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drive::{DeviceName, Drive, HashDir, Sight};
use crate::hash_path::Partition;

/// A database, as the walk found it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The partition it lies in, rightly or not; `None` if that is a number that no ring has.
    pub partition: Option<Partition>,
    /// Its directory.
    pub hash_dir: HashDir,
    /// What that looks like.
    pub sight: Sight,
    /// Partition and suffix go by the names that Swift gives them, and the suffix is the hash's.
    pub in_order: bool,
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

/// The databases of one drive. Partitions come in order from the one it began with, then those before it, last those
/// with strange names; suffixes and hashes in order.
pub struct Walk {
    drive: Arc<Drive>,
    filter: Filter,
    from: Partition,
    begun: bool,
    /// What is still to be visited, level by level, the next at the end. There may be many partitions: their numbers will
    /// do, but for names that are not written as their number.
    partitions: Vec<u32>,
    strange: Vec<PathBuf>,
    suffixes: Level,
    hashes: Level,
    partition: Option<Partition>,
}

/// What is still to be visited of one directory.
#[derive(Debug, Default)]
struct Level {
    dir: PathBuf,
    in_order: bool,
    names: Vec<OsString>,
}

impl Walk {
    /// Begins a walk at a partition; nothing is read before it is asked for.
    pub fn new(drive: Arc<Drive>, filter: Filter, from: Partition) -> Walk {
        Walk {
            drive,
            filter,
            from,
            begun: false,
            partitions: vec![],
            strange: vec![],
            suffixes: Level::default(),
            hashes: Level::default(),
            partition: None,
        }
    }

    /// The drive it walks.
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }

    /// Where it began.
    pub fn from(&self) -> Partition {
        self.from
    }

    /// Lists `containers`, once.
    fn begin(&mut self) -> Result<(), Problem> {
        self.begun = true;
        let containers = self.drive.containers();
        self.list(&containers, |walk, name| {
            let Some(partition) = partition_number(&name) else { return };
            if !walk.filter.wants(&walk.drive, partition) {
                return;
            }
            match partition.filter(|partition| partition.to_string().as_str() == name) {
                Some(partition) => walk.partitions.push(partition.0),
                None => walk.strange.push(walk.drive.containers().join(name)),
            }
        })?;
        self.partitions.sort_unstable_by_key(|number| std::cmp::Reverse(number.wrapping_sub(self.from.0)));
        self.strange.sort_unstable();
        Ok(())
    }

    /// The database in a hash directory; an empty directory is removed.
    fn look(&self, dir: PathBuf, in_order: bool) -> Result<Option<Found>, Problem> {
        let Some(hash_dir) = self.drive.hash_dir_at(dir.clone()) else {
            return self.remove_if_empty(&dir).map(|()| None);
        };
        match hash_dir.sight() {
            Ok(Some(sight)) => {
                let suffix = self.hashes.dir.file_name();
                let in_order = in_order && suffix.is_some_and(|suffix| *suffix == *hash_dir.hash().suffix());
                Ok(Some(Found { partition: self.partition, hash_dir, sight, in_order }))
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

    /// Takes the names in a directory, one after the other; says how many there are, none if it is gone or no directory.
    fn list(
        &mut self,
        dir: &Path,
        mut take: impl FnMut(&mut Walk, OsString),
    ) -> Result<Option<usize>, Problem> {
        let mut count = 0;
        let mut read = || -> io::Result<()> {
            for entry in fs::read_dir(dir)? {
                take(self, entry?.file_name());
                count += 1;
            }
            Ok(())
        };
        match read() {
            Ok(()) => Ok(Some(count)),
            Err(e) if is_no_directory(&e) => Ok(None),
            Err(error) => Err(self.problem(dir, error)),
        }
    }

    /// What is in a partition or suffix directory; an empty one is removed.
    fn descend(&mut self, dir: PathBuf, in_order: bool) -> Result<Level, Problem> {
        let mut names = Vec::new();
        if self.list(&dir, |_, name| names.push(name))? == Some(0) {
            self.remove_if_empty(&dir)?;
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Level { dir, in_order, names })
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
        } else if let Some(hash) = self.hashes.names.pop() {
            return self.look(self.hashes.dir.join(hash), self.hashes.in_order).map(Some);
        } else if let Some(suffix) = self.suffixes.names.pop() {
            self.hashes = self.descend(self.suffixes.dir.join(suffix), self.suffixes.in_order)?;
        } else if let Some(partition) = self.partitions.pop() {
            self.partition = Some(Partition(partition));
            self.suffixes = self.descend(self.drive.containers().join(partition.to_string()), true)?;
        } else if let Some(partition) = self.strange.pop() {
            self.partition = partition.file_name().and_then(|name| partition_number(name).flatten());
            self.suffixes = self.descend(partition, false)?;
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

/// Is a directory of this name a partition's, and if so, which? Whatever Python's `int` takes and is not negative: white
/// space around, a sign, leading zeros, single underscores between digits. `Some(None)` is one beyond all rings.
fn partition_number(name: &OsStr) -> Option<Option<Partition>> {
    let name = name.to_str()?.trim();
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
        /// Partitions of everything found on a device.
        fn found(&self, drive: usize, filter: &Filter, from: u32) -> Vec<u32> {
            self.walk(drive, filter, from).map(|found| found.unwrap().partition.unwrap().0).collect()
        }

        fn walk(&self, drive: usize, filter: &Filter, from: u32) -> Walk {
            Walk::new(self.drives[drive].clone(), filter.clone(), Partition(from))
        }
    }

    #[test]
    fn rows_without_a_database_are_told_and_left() {
        let bench = bench(&[2]);
        let orphan = bench.drives[0].hash_dir(Partition(9), format!("{:032x}", 9).parse().unwrap());
        orphan.create().unwrap();
        fs::write(orphan.pending_path(), ":row").unwrap();
        let scanned: Vec<_> = bench.walk(0, &Filter::default(), 1).collect();
        let problems: Vec<&Problem> = scanned.iter().filter_map(|found| found.as_ref().err()).collect();
        assert_eq!((scanned.len(), problems.len()), (3, 1));
        assert_eq!(problems[0].path, orphan.pending_path());
        assert!(orphan.has_pending());
    }

    #[test]
    fn partitions_come_in_order_from_where_the_walk_began() {
        let bench = bench(&[6]);
        assert_eq!(bench.found(0, &Filter::default(), 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(bench.found(0, &Filter::default(), 4), [4, 5, 0, 1, 2, 3]);
        assert_eq!(bench.found(0, &Filter::default(), 9), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn suffixes_and_hashes_come_in_order_and_what_lies_elsewhere_is_told_apart() {
        let bench = bench(&[0]);
        let drive = &bench.drives[0];
        let hashes = ["0000000000000000000000000000f00a", "00000000000000000000000000000fff"];
        for hash in [hashes[1], hashes[0], "000000000000000000000000000f000a"] {
            let dir = drive.hash_dir(Partition(1), hash.parse().unwrap());
            dir.create().unwrap();
            fs::write(dir.dir().join(format!("{hash}.db")), "").unwrap();
        }
        let strays = [
            drive.containers().join("01/00a/0000000000000000000000000000f00a"),
            drive.containers().join("1/00b/0000000000000000000000000000f00a"),
        ];
        for stray in &strays {
            fs::create_dir_all(stray).unwrap();
            fs::write(stray.join("0000000000000000000000000000f00a.db"), "").unwrap();
        }
        let found = bench.walk(0, &Filter::default(), 1).map(|found| found.unwrap());
        let found: Vec<(PathBuf, bool)> =
            found.map(|found| (found.hash_dir.dir().to_owned(), found.in_order)).collect();
        let at = |hash: &str| drive.hash_dir(Partition(1), hash.parse().unwrap()).dir().to_owned();
        let [first, second] = [at(hashes[0]), at("000000000000000000000000000f000a")];
        let expected = [
            (first, true),
            (second, true),
            (strays[1].clone(), false),
            (at(hashes[1]), true),
            (strays[0].clone(), false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn filters_leave_out() {
        let bench = bench(&[4, 4]);
        let filter =
            Filter { partitions: Some(BTreeSet::from([Partition(2), Partition(9)])), ..Filter::default() };
        assert_eq!(bench.found(0, &filter, 0), [2]);

        let primary = |drive: &Drive, partition: Partition| drive.name().as_str() == "d0" || partition.0 < 3;
        let filter = Filter { leave_out: Some(Arc::new(primary)), ..Filter::default() };
        assert_eq!(bench.found(0, &filter, 0), [] as [u32; 0]);
        assert_eq!(bench.found(1, &filter, 0), [3]);
    }

    #[test]
    fn what_cannot_be_read_is_told_once_and_passed_by() {
        let bench = bench(&[2]);
        for path in ["7", "0/loop"] {
            let path = bench.drives[0].containers().join(path);
            std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
        }
        let (found, problems): (Vec<_>, Vec<_>) =
            bench.walk(0, &Filter::default(), 1).partition(Result::is_ok);
        assert_eq!(found.len(), 2);
        let paths: BTreeSet<PathBuf> =
            problems.into_iter().map(|problem| problem.unwrap_err().path).collect();
        assert_eq!(paths, ["7", "0/loop"].map(|path| bench.drives[0].containers().join(path)).into());
    }

    #[test]
    fn what_vanishes_is_no_problem() {
        let bench = bench(&[3]);
        let mut walk = bench.walk(0, &Filter::default(), 1);
        assert!(walk.next().unwrap().is_ok());
        fs::remove_dir_all(bench.devices.path().join("d0")).unwrap();
        assert_eq!(walk.count(), 0);
    }

    #[test]
    fn strange_partition_names_are_read_as_python_reads_them() {
        let number = |name: &str| partition_number(OsStr::new(name));
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
