//! The databases of a drive in the order in which they lie, less what a filter leaves out.
//!
//! A walk goes down `containers/<partition>/<suffix>/<hash>` and keeps one listing of each level, so that it takes little
//! memory on any drive. It begins at a partition of the caller's choice and goes round, so that what a pass that is cut
//! short did not reach is reached by another, and takes every level in order, which is the order of the ledger. On its
//! way it removes directories that are empty (`swift/common/db_replicator.py: roundrobin_datadirs`). What cannot be read
//! is told and passed by; what vanishes meanwhile was somebody's right. Swift ends the pass for all drives in both cases.
//!
//! Listing a directory costs several times what a look at it costs, and on a drive whose directories are not in memory a
//! seek. Who has walked here before may lend the walk its [`Memory`]: a partition that looks as it did is then not listed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drive::{DeviceName, Drive, HashDir, Listing, ListingFingerprint, Sight};
use crate::hash_path::{Hash, Partition};

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

/// What is remembered of partitions by somebody who walked the drive before.
pub trait Memory {
    /// The databases of a partition, in the order of the walk, and its fingerprint when it held just these; `None` if it is
    /// to be listed.
    fn recall(&mut self, partition: Partition) -> Option<(Vec<Hash>, ListingFingerprint)>;

    /// A partition was listed, and all in it is in order. While its fingerprint stays the same, so does what it holds.
    fn listed(&mut self, partition: Partition, fingerprint: ListingFingerprint);
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
    /// Of a partition that need not be listed: its databases that are still to come, the next at the end.
    recalled: Vec<Hash>,
    /// Of one that is listed for somebody who remembers: what was come by, as long as all is in order.
    listing: Option<Listing>,
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
            recalled: vec![],
            listing: None,
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
                let suffix = hash_dir.dir().parent().and_then(Path::file_name);
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

    /// The next database, as [`Iterator::next`], with the help of somebody who remembers.
    pub fn next_with(&mut self, memory: &mut dyn Memory) -> Option<Result<Found, Problem>> {
        self.go_on(Some(memory))
    }

    fn go_on<'m>(&mut self, mut memory: Option<&mut (dyn Memory + 'm)>) -> Option<Result<Found, Problem>> {
        loop {
            match self.step(memory.as_deref_mut()).transpose()? {
                Ok(None) => (),
                Ok(Some(found)) => return Some(Ok(found)),
                Err(problem) => return Some(Err(problem)),
            }
        }
    }

    /// One step down or along; `None` at the end, `Some(None)` if it led to no database.
    fn step(&mut self, memory: Option<&mut (dyn Memory + '_)>) -> Result<Option<Option<Found>>, Problem> {
        if !self.begun {
            self.begin()?;
        } else if let Some((partition, hash)) = self.partition.zip(self.recalled.pop()) {
            return self.look(self.drive.hash_dir(partition, hash).dir().to_owned(), true).map(Some);
        } else if let Some(hash) = self.hashes.names.pop() {
            let dir = self.hashes.dir.join(hash);
            let listing = self.listing.take();
            let found = self.look(dir, self.hashes.in_order)?;
            self.listing = listing.and_then(|listing| self.met(listing, found.as_ref()));
            return Ok(Some(found));
        } else if let Some(suffix) = self.suffixes.names.pop() {
            let dir = self.suffixes.dir.join(suffix);
            let listing =
                self.listing.take().and_then(|mut listing| listing.enter(&dir).ok().map(|()| listing));
            self.hashes = self.descend(dir, self.suffixes.in_order)?;
            self.listing = listing;
        } else if let Some((partition, listing)) = self.partition.zip(self.listing.take()) {
            if let Some(memory) = memory.filter(|_| listing.is_settled()) {
                memory.listed(partition, listing.fingerprint());
            }
        } else if let Some(partition) = self.partitions.pop() {
            self.enter(Partition(partition), memory)?;
        } else if let Some(partition) = self.strange.pop() {
            self.partition = partition.file_name().and_then(|name| partition_number(name).flatten());
            self.suffixes = self.descend(partition, false)?;
        } else {
            return Ok(None);
        }
        Ok(Some(None))
    }

    /// Begins a partition: with what is remembered of it if it looks as it did, else by listing it.
    fn enter(&mut self, partition: Partition, memory: Option<&mut (dyn Memory + '_)>) -> Result<(), Problem> {
        self.partition = Some(partition);
        let dir = self.drive.containers().join(partition.to_string());
        if let Some(memory) = memory {
            if let Some((databases, then)) = memory.recall(partition)
                && self.drive.listing_of(partition, &databases).is_ok_and(|now| now == then)
            {
                self.recalled = databases;
                self.recalled.reverse();
                return Ok(());
            }
            // Before it is listed: what comes meanwhile shows the next time.
            self.listing = Listing::begin(&dir).ok();
        }
        let listing = self.listing.take();
        self.suffixes = self.descend(dir, true)?;
        self.listing = listing;
        Ok(())
    }

    /// Goes on with a listing, if what was come by is a database in its proper place.
    fn met(&self, mut listing: Listing, found: Option<&Found>) -> Option<Listing> {
        let hash_dir = &found?.hash_dir;
        let hash = hash_dir.hash();
        listing.meet(hash);
        (self.drive.hash_dir(self.partition?, hash) == *hash_dir).then_some(listing)
    }
}

impl Iterator for Walk {
    type Item = Result<Found, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.go_on(None)
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
    use std::collections::BTreeMap;
    use std::time::Duration;

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

    /// Somebody who remembers all that a walk came by.
    #[derive(Default)]
    struct Notebook {
        known: BTreeMap<Partition, (Vec<Hash>, ListingFingerprint)>,
        recalled: Vec<u32>,
        listed: Vec<(Partition, ListingFingerprint)>,
    }

    impl Memory for Notebook {
        fn recall(&mut self, partition: Partition) -> Option<(Vec<Hash>, ListingFingerprint)> {
            self.recalled.push(partition.0);
            self.known.get(&partition).cloned()
        }

        fn listed(&mut self, partition: Partition, fingerprint: ListingFingerprint) {
            self.listed.push((partition, fingerprint));
        }
    }

    impl Notebook {
        /// Goes along with a walk: what it found, and which partitions were listed and are remembered from now on.
        fn follow(&mut self, mut walk: Walk) -> (Vec<PathBuf>, Vec<u32>) {
            let mut paths = Vec::new();
            let mut found = BTreeMap::<Partition, Vec<Hash>>::new();
            while let Some(item) = walk.next_with(self) {
                let Ok(item) = item else { continue };
                found.entry(item.partition.unwrap()).or_default().push(item.hash_dir.hash());
                paths.push(item.hash_dir.dir().to_owned());
            }
            let listed = std::mem::take(&mut self.listed);
            for (partition, fingerprint) in &listed {
                self.known.insert(*partition, (found[partition].clone(), *fingerprint));
            }
            (paths, listed.iter().map(|(partition, _)| partition.0).collect())
        }
    }

    fn settle() {
        std::thread::sleep(Duration::from_millis(2100));
    }

    /// A database of which nothing but its place matters.
    fn put(drive: &Drive, partition: u32, hash: &str) -> HashDir {
        let dir = drive.hash_dir(Partition(partition), hash.parse().unwrap());
        dir.create().unwrap();
        fs::write(dir.usual_path(), "").unwrap();
        dir
    }

    #[test]
    fn a_partition_that_looks_as_it_did_is_not_listed() {
        let bench = bench(&[4]);
        let drive = &bench.drives[0];
        let walk = || bench.walk(0, &Filter::default(), 1);
        let plain = || walk().map(|found| found.unwrap().hash_dir.dir().to_owned()).collect::<Vec<_>>();
        let mut notebook = Notebook::default();
        assert_eq!(
            notebook.follow(walk()),
            (plain(), vec![]),
            "what is new may still change without a trace"
        );
        settle();
        assert_eq!(notebook.follow(walk()), (plain(), vec![1, 2, 3, 0]));
        assert_eq!(notebook.follow(walk()), (plain(), vec![]));
        // It believes what it is told, if it goes with the directories: nothing is read.
        let dir = drive.containers().join("2");
        let lie = drive.listing_of(Partition(2), &[]).unwrap();
        let truth = notebook.known.insert(Partition(2), (vec![], lie)).unwrap();
        assert_eq!(
            notebook.follow(walk()).0,
            plain().into_iter().filter(|path| !path.starts_with(&dir)).collect::<Vec<_>>()
        );
        // With another's fingerprint it does not.
        notebook.known.insert(Partition(2), (vec![], truth.1));
        assert_eq!(notebook.follow(walk()), (plain(), vec![2]));

        // Whatever comes or goes is met, and only where it did is anything listed.
        let sibling = format!("1{:031x}", 3);
        let cousin = format!("{:032x}", 0xabc);
        type Change<'a> = (&'a str, u32, Box<dyn Fn() + 'a>);
        let changes: [Change; 6] = [
            ("one in a suffix that is there", 3, Box::new(|| drop(put(drive, 3, &sibling)))),
            ("one in a new suffix", 1, Box::new(|| drop(put(drive, 1, &cousin)))),
            ("one is gone", 3, Box::new(|| fs::remove_dir_all(put(drive, 3, &sibling).dir()).unwrap())),
            (
                "its suffix with it",
                1,
                Box::new(|| {
                    fs::remove_dir_all(put(drive, 1, &cousin).dir().parent().unwrap()).unwrap();
                }),
            ),
            (
                "a copy of a suffix in its place",
                2,
                Box::new(|| {
                    let suffix = drive.containers().join("2/002");
                    fs::rename(&suffix, drive.root().join("aside")).unwrap();
                    put(drive, 2, &format!("{:032x}", 2));
                }),
            ),
            (
                "a copy of a partition in its place",
                0,
                Box::new(|| {
                    fs::rename(drive.containers().join("0"), drive.root().join("aside-0")).unwrap();
                    put(drive, 0, &format!("{:032x}", 0));
                }),
            ),
        ];
        for (what, partition, change) in changes {
            change();
            let (found, _) = notebook.follow(walk());
            assert_eq!(found, plain(), "{what}");
            settle();
            assert_eq!(notebook.follow(walk()), (plain(), vec![partition]), "{what}");
            assert_eq!(notebook.follow(walk()), (plain(), vec![]), "{what}");
            // Whoever forgot one of several in a suffix finds it again.
            let known = &mut notebook.known.get_mut(&Partition(partition)).unwrap().0;
            if known.len() > 1 {
                known.pop();
                assert_eq!(notebook.follow(walk()), (plain(), vec![partition]), "{what}");
            }
        }
    }

    #[test]
    fn what_is_not_in_order_is_listed_each_time() {
        let bench = bench(&[1]);
        let drive = &bench.drives[0];
        let containers = drive.containers();
        // Neighbours of these are in order, they are not.
        for partition in 2..=6 {
            put(drive, partition, &format!("{partition:032x}"));
        }
        fs::write(containers.join("2/002/a file"), "").unwrap();
        fs::write(containers.join("3/a file"), "").unwrap();
        let orphan = drive.hash_dir(Partition(4), format!("{:032x}", 0x1004).parse().unwrap());
        orphan.create().unwrap();
        fs::write(orphan.pending_path(), ":row").unwrap();
        let misplaced = containers.join("5/00f").join(format!("{:032x}", 0xfff));
        fs::create_dir_all(&misplaced).unwrap();
        fs::write(misplaced.join(format!("{:032x}.db", 0xfff)), "").unwrap();
        fs::rename(containers.join("6"), containers.join("06")).unwrap();
        settle();
        let mut notebook = Notebook::default();
        for _ in 0..2 {
            let (found, _) = notebook.follow(bench.walk(0, &Filter::default(), 0));
            assert_eq!(found.len(), 7);
        }
        assert!(notebook.recalled.iter().all(|partition| *partition != 6));
        // A file beside suffixes passes for a suffix without databases, which nobody who remembers databases knows of.
        let kept: Vec<u32> = notebook.known.keys().map(|partition| partition.0).collect();
        assert_eq!(kept, [0, 3]);
        let (hashes, fingerprint) = &notebook.known[&Partition(3)];
        assert_ne!(drive.listing_of(Partition(3), hashes).unwrap(), *fingerprint);
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
