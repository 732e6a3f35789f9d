//! What it costs to look at every database of a drive, by several ways of walking: the bounds that a pass over unchanged
//! databases is measured against.
//!
//! `cargo bench --bench walk -- [--databases N] [--runs N] [--root DIR]`
//!
//! The tree is Swift's, with files of a few bytes for databases, for only their inodes are looked at. Everything is in the
//! kernel's caches, as on a node whose passes follow each other.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use md5::{Digest, Md5};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, statat};
use swiftlet::drive::{DeviceName, Drive};
use swiftlet::hash_path;
use swiftlet::scan::{Filter, Walk};

#[derive(Debug, Parser)]
struct Options {
    /// How many databases.
    #[arg(long, default_value_t = 100_000)]
    databases: u32,
    /// Times each way is gone; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Partitions are the first so many bits of a hash.
    #[arg(long, default_value_t = 14)]
    part_power: u32,
    /// Where the tree is made; a temporary directory by default.
    #[arg(long)]
    root: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

type Way = (&'static str, fn(&Tree) -> Seen);

struct Tree {
    devices: PathBuf,
    containers: PathBuf,
    /// What whoever has been here before would remember.
    remembered: Vec<Partition>,
}

/// A partition, the suffixes in it, and the hashes in each.
type Partition = (String, Vec<(String, Vec<String>)>);

/// Proof that each way saw the same: how many, and the sum of their inode numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    databases: u64,
    inodes: u64,
}

impl Seen {
    fn saw(&mut self, inode: u64) {
        self.databases += 1;
        self.inodes = self.inodes.wrapping_add(inode);
    }

    fn and(self, other: Seen) -> Seen {
        Seen { databases: self.databases + other.databases, inodes: self.inodes.wrapping_add(other.inodes) }
    }
}

fn main() {
    let options = Options::parse();
    let dir = match &options.root {
        Some(root) => tempfile::tempdir_in(root),
        None => tempfile::tempdir(),
    }
    .expect("a directory");
    let tree = make(dir.path(), &options);
    let ways: [Way; 12] = [
        ("paths: list down to the hash, stat .db", by_paths),
        ("the agent's scan, and stat .db", by_scan),
        ("handles: list down to the hash, stat .db", |tree| by_handles(tree, &list_hash)),
        ("handles: list down to the suffix, stat .db", |tree| by_handles(tree, &stat_database)),
        ("  and stat .db.pending, .db-journal", |tree| by_handles(tree, &stat_three)),
        ("  and stat the hash's directory instead", |tree| by_handles(tree, &stat_both)),
        ("remembered: stat all four levels, by paths", remembered_by_paths),
        ("  relative to the partition", |tree| in_threads(tree, 1)),
        ("  relative to `containers`", |tree| remembered(tree, 4)),
        ("  the hash's directory and .db only", |tree| remembered(tree, 2)),
        ("  .db only", |tree| remembered(tree, 1)),
        ("  all four, relative to the partition, 2 threads", |tree| in_threads(tree, 2)),
    ];
    let mut seconds = vec![Vec::new(); ways.len()];
    let expected = by_paths(&tree);
    assert_eq!(expected.databases, u64::from(options.databases));
    for _ in 0..options.runs {
        for ((name, way), seconds) in ways.iter().zip(&mut seconds) {
            let (begun, used) = (Instant::now(), processor());
            let seen = way(&tree);
            let used = processor() - used;
            seconds.push((used, begun.elapsed().as_secs_f64()));
            assert_eq!(seen, expected, "{name}");
        }
    }
    println!("{:50} {:>9} {:>12} {:>12}", "", "CPU s", "CPU us each", "least wall s");
    for ((name, _), seconds) in ways.iter().zip(&mut seconds) {
        seconds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let median = seconds[seconds.len() / 2].0;
        let wall = seconds.iter().map(|run| run.1).fold(f64::INFINITY, f64::min);
        let each = median * 1e6 / f64::from(options.databases);
        println!("{name:50} {median:9.3} {each:12.2} {wall:12.3}");
    }
}

/// Seconds of processor time that this process took.
fn processor() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("known");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn make(root: &Path, options: &Options) -> Tree {
    let containers = root.join(DEVICE).join("containers");
    let mut known: std::collections::BTreeMap<u32, std::collections::BTreeMap<String, Vec<String>>> =
        Default::default();
    for number in 0..options.databases {
        let hash = Md5::digest(number.to_le_bytes());
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let partition = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> (32 - options.part_power);
        known.entry(partition).or_default().entry(name[29..].to_owned()).or_default().push(name);
    }
    for (partition, suffixes) in &known {
        for (suffix, hashes) in suffixes {
            for hash in hashes {
                let dir = containers.join(partition.to_string()).join(suffix).join(hash);
                fs::create_dir_all(&dir).expect("made");
                fs::write(dir.join(format!("{hash}.db")), hash).expect("written");
            }
        }
    }
    let remembered = known
        .into_iter()
        .map(|(partition, suffixes)| (partition.to_string(), suffixes.into_iter().collect()))
        .collect();
    Tree { devices: root.to_owned(), containers, remembered }
}

fn list(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
}

fn by_paths(tree: &Tree) -> Seen {
    let mut seen = Seen::default();
    let hashes =
        list(&tree.containers).flat_map(|partition| list(&partition)).flat_map(|suffix| list(&suffix));
    for file in hashes.flat_map(|hash| list(&hash)) {
        if file.extension().is_some_and(|extension| extension == "db") {
            seen.saw(fs::metadata(&file).expect("there").ino());
        }
    }
    seen
}

fn by_scan(tree: &Tree) -> Seen {
    let name = DeviceName::new(DEVICE).expect("a name");
    let drive = Arc::new(Drive::open(&tree.devices, &name, false).expect("a drive"));
    let mut seen = Seen::default();
    for found in Walk::new(drive, Filter::default(), hash_path::Partition(0)) {
        seen.saw(fs::metadata(found.expect("found").hash_dir.usual_path()).expect("there").ino());
    }
    seen
}

fn open(at: impl AsFd, name: &str) -> OwnedFd {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .expect("a directory")
}

fn stat(at: impl AsFd, name: &str) -> u64 {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).expect("there").st_ino
}

/// Names in a directory, with nothing allocated.
fn names(dir: &OwnedFd, each: &mut dyn FnMut(&str)) {
    let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_str().expect("text");
        if !name.starts_with('.') {
            each(name);
        }
    }
}

/// Every hash, looked at from the handle of its suffix.
fn by_handles(tree: &Tree, look: &dyn Fn(&OwnedFd, &str, &mut Seen)) -> Seen {
    let mut seen = Seen::default();
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    names(&containers, &mut |partition| {
        let partition = open(&containers, partition);
        names(&partition, &mut |suffix| {
            let suffix = open(&partition, suffix);
            names(&suffix, &mut |hash| look(&suffix, hash, &mut seen));
        });
    });
    seen
}

fn list_hash(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    let dir = open(suffix, hash);
    names(&dir, &mut |file| {
        if file.ends_with(".db") {
            seen.saw(stat(&dir, file));
        }
    });
}

fn stat_database(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    seen.saw(stat(suffix, &format!("{hash}/{hash}.db")));
}

fn stat_three(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    stat_database(suffix, hash, seen);
    for absent in [".db.pending", ".db-journal"] {
        let name = format!("{hash}/{hash}{absent}");
        assert!(statat(suffix, name, AtFlags::SYMLINK_NOFOLLOW).is_err());
    }
}

fn stat_both(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    stat(suffix, hash);
    stat_database(suffix, hash, seen);
}

fn remembered_by_paths(tree: &Tree) -> Seen {
    let there = |path: &Path| fs::symlink_metadata(path).expect("there").ino();
    let mut seen = Seen::default();
    for (partition, suffixes) in &tree.remembered {
        let partition = tree.containers.join(partition);
        there(&partition);
        for (suffix, hashes) in suffixes {
            let suffix = partition.join(suffix);
            there(&suffix);
            for hash in hashes {
                let hash_dir = suffix.join(hash);
                there(&hash_dir);
                seen.saw(there(&hash_dir.join(format!("{hash}.db"))));
            }
        }
    }
    seen
}

/// The last so many levels, relative to `containers`.
fn remembered(tree: &Tree, levels: usize) -> Seen {
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    let mut seen = Seen::default();
    for partition in &tree.remembered {
        below(&containers, &format!("{}/", partition.0), partition, levels, &mut seen);
    }
    seen
}

fn below(at: &OwnedFd, path: &str, (_, suffixes): &Partition, levels: usize, seen: &mut Seen) {
    let mut path = path.to_owned();
    let above = path.len();
    if levels > 3 {
        stat(at, if path.is_empty() { "." } else { &path });
    }
    for (suffix, hashes) in suffixes {
        path.truncate(above);
        path.push_str(suffix);
        if levels > 2 {
            stat(at, &path);
        }
        let above = path.len();
        for hash in hashes {
            path.truncate(above);
            path.extend(["/", hash]);
            if levels > 1 {
                stat(at, &path);
            }
            path.extend(["/", hash, ".db"]);
            seen.saw(stat(at, &path));
        }
    }
}

fn in_threads(tree: &Tree, threads: usize) -> Seen {
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    let walk = |partitions: &[Partition]| {
        let mut seen = Seen::default();
        for partition in partitions {
            below(&open(&containers, &partition.0), "", partition, 4, &mut seen);
        }
        seen
    };
    let walk = &walk;
    std::thread::scope(|scope| {
        let shares = tree.remembered.chunks(tree.remembered.len().div_ceil(threads));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || walk(share))).collect();
        running.into_iter().map(|thread| thread.join().expect("done")).fold(Seen::default(), Seen::and)
    })
}

const DEVICE: &str = "d1";
