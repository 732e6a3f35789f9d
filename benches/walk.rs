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
use swiftlet::scan::{Filter, scan};

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
    /// What a ledger would remember: partition, suffixes in it, hashes in each.
    known: Vec<(String, Vec<(String, Vec<String>)>)>,
}

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
    let tree = make(options.root.as_deref().unwrap(), &options);
    drop(dir);
    let ways: [Way; 16] = [
        ("std: paths, readdir to the hash, stat .db", std_bare),
        ("scan::Walk of today (no readdir of the hash)", scan_walk),
        ("scan::Walk, and a metadata() of .db again", scan_walk_and_stat),
        ("fds: readdir to the hash, stat .db", |tree| by_fds(tree, &fds_bare)),
        ("fds: readdir to the suffix, stat hash/.db", |tree| by_fds(tree, &fds_db)),
        ("fds: same, and stat .db.pending, .db-journal", |tree| by_fds(tree, &fds_three)),
        ("fds: same, but stat of hash dir for both", |tree| by_fds(tree, &fds_dir_db)),
        ("fds: hash dir and pending, no journal", |tree| by_fds(tree, &fds_dir_db_pending)),
        ("known: stat part, suffix, hash dir, .db; paths", known_paths),
        ("known: same relative to the partition's fd", known_fds),
        ("known: same relative to the device's fd", known_device),
        ("known: hash dir and .db only, device's fd", known_two),
        ("known: .db only, device's fd", known_one),
        ("known, partition's fd, 2 threads", |tree| in_threads(tree, 2, &known_fds_part)),
        ("fds: hash dir and .db, 2 threads", fds_two_threads),
        ("std bare, 2 threads", std_two_threads),
    ];
    let mut seconds = vec![Vec::new(); ways.len()];
    let expected = std_bare(&tree);
    INODES.get_or_init(|| expected.inodes);
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
    for ((name, _), seconds) in ways.iter().zip(&mut seconds) {
        seconds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let median = seconds[seconds.len() / 2].0;
        let wall = seconds.iter().map(|run| run.1).fold(f64::INFINITY, f64::min);
        println!(
            "{name:48} {median:7.3} s {:9.0}/s {:6.2} us each; least wall {wall:.3} s",
            f64::from(options.databases) / median,
            median * 1e6 / f64::from(options.databases),
        );
    }
}

/// Seconds of processor time that this process took.
fn processor() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("known");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn make(root: &Path, options: &Options) -> Tree {
    let containers = root.join("d1/containers");
    let mut known: std::collections::BTreeMap<u32, std::collections::BTreeMap<String, Vec<String>>> =
        Default::default();
    for number in 0..options.databases {
        let hash = Md5::digest(number.to_le_bytes());
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let partition = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> (32 - options.part_power);
        known.entry(partition).or_default().entry(name[29..].to_owned()).or_default().push(name);
    }
    let there = containers.exists();
    for (partition, suffixes) in &known {
        for (suffix, hashes) in suffixes {
            for hash in hashes {
                if there {
                    continue;
                }
                let dir = containers.join(partition.to_string()).join(suffix).join(hash);
                fs::create_dir_all(&dir).expect("made");
                fs::write(dir.join(format!("{hash}.db")), hash).expect("written");
            }
        }
    }
    let known = known
        .into_iter()
        .map(|(partition, suffixes)| (partition.to_string(), suffixes.into_iter().collect()))
        .collect();
    Tree { devices: root.to_owned(), containers, known }
}

fn list(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
}

fn std_part(partition: &Path, seen: &mut Seen) {
    for suffix in list(partition) {
        for hash in list(&suffix) {
            for file in list(&hash) {
                if file.extension().is_some_and(|extension| extension == "db") {
                    seen.saw(fs::metadata(&file).expect("there").ino());
                }
            }
        }
    }
}

fn std_bare(tree: &Tree) -> Seen {
    let mut seen = Seen::default();
    list(&tree.containers).for_each(|partition| std_part(&partition, &mut seen));
    seen
}

fn std_two_threads(tree: &Tree) -> Seen {
    let parts: Vec<PathBuf> = list(&tree.containers).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .chunks(parts.len().div_ceil(2))
            .map(|chunk| {
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    chunk.iter().for_each(|part| std_part(part, &mut seen));
                    seen
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("done")).fold(Seen::default(), Seen::and)
    })
}

fn drive(tree: &Tree) -> Arc<Drive> {
    Arc::new(Drive::open(&tree.devices, &DeviceName::new("d1").expect("a name"), false).expect("a drive"))
}

fn scan_walk(tree: &Tree) -> Seen {
    let mut seen = Seen::default();
    // No look at the inode beyond what the walk itself takes.
    let count = scan([drive(tree)], &Filter::default(), 1).filter(|found| found.is_ok()).count();
    seen.databases = count as u64;
    seen.inodes = std_inodes(tree);
    seen
}

fn scan_walk_and_stat(tree: &Tree) -> Seen {
    let mut seen = Seen::default();
    for found in scan([drive(tree)], &Filter::default(), 1) {
        seen.saw(fs::metadata(found.expect("found").database).expect("there").ino());
    }
    seen
}

/// The expected sum, so that a way that does not look can be compared.
fn std_inodes(_: &Tree) -> u64 {
    *INODES.get().expect("set first")
}

static INODES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

fn open(at: impl AsFd, name: &str) -> OwnedFd {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .expect("a directory")
}

/// Names in a directory, one after another in a buffer.
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

type Look = dyn Fn(&OwnedFd, &str, &mut Seen) + Sync;

fn by_fds(tree: &Tree, look: &Look) -> Seen {
    let mut seen = Seen::default();
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    names(&containers, &mut |partition| fds_part(&containers, partition, look, &mut seen));
    seen
}

fn fds_part(containers: &OwnedFd, partition: &str, look: &Look, seen: &mut Seen) {
    let partition = open(containers, partition);
    names(&partition, &mut |suffix| {
        let suffix = open(&partition, suffix);
        names(&suffix, &mut |hash| look(&suffix, hash, seen));
    });
}

fn fds_two_threads(tree: &Tree) -> Seen {
    in_threads(tree, 2, &|containers, (partition, _), seen| {
        fds_part(containers, partition, &fds_dir_db, seen)
    })
}

fn stat(at: impl AsFd, name: &str) -> u64 {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).expect("there").st_ino
}

fn absent(at: impl AsFd, name: &str) {
    assert!(statat(at, name, AtFlags::SYMLINK_NOFOLLOW).is_err());
}

fn fds_bare(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    let dir = open(suffix, hash);
    names(&dir, &mut |file| {
        if file.ends_with(".db") {
            seen.saw(stat(&dir, file));
        }
    });
}

fn fds_db(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    seen.saw(stat(suffix, &format!("{hash}/{hash}.db")));
}

fn fds_three(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    fds_db(suffix, hash, seen);
    absent(suffix, &format!("{hash}/{hash}.db.pending"));
    absent(suffix, &format!("{hash}/{hash}.db-journal"));
}

fn fds_dir_db(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    stat(suffix, hash);
    fds_db(suffix, hash, seen);
}

fn fds_dir_db_pending(suffix: &OwnedFd, hash: &str, seen: &mut Seen) {
    fds_dir_db(suffix, hash, seen);
    absent(suffix, &format!("{hash}/{hash}.db.pending"));
}

fn known_paths(tree: &Tree) -> Seen {
    let mut seen = Seen::default();
    for (partition, suffixes) in &tree.known {
        let partition = tree.containers.join(partition);
        fs::symlink_metadata(&partition).expect("there");
        for (suffix, hashes) in suffixes {
            let suffix = partition.join(suffix);
            fs::symlink_metadata(&suffix).expect("there");
            for hash in hashes {
                let hash_dir = suffix.join(hash);
                fs::symlink_metadata(&hash_dir).expect("there");
                seen.saw(fs::symlink_metadata(hash_dir.join(format!("{hash}.db"))).expect("there").ino());
            }
        }
    }
    seen
}

type Part = (String, Vec<(String, Vec<String>)>);

fn known_fds_part(containers: &OwnedFd, (partition, suffixes): &Part, seen: &mut Seen) {
    let partition = open(containers, partition);
    let mut path = String::with_capacity(80);
    for (suffix, hashes) in suffixes {
        stat(&partition, suffix);
        for hash in hashes {
            path.clear();
            path.extend([suffix, "/", hash.as_str()]);
            stat(&partition, &path);
            path.extend(["/", hash.as_str(), ".db"]);
            seen.saw(stat(&partition, &path));
        }
    }
}

fn known_fds(tree: &Tree) -> Seen {
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    let mut seen = Seen::default();
    tree.known.iter().for_each(|part| known_fds_part(&containers, part, &mut seen));
    seen
}

fn known_relative(tree: &Tree, above: bool, hash_dir: bool) -> Seen {
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    let mut seen = Seen::default();
    let mut path = String::with_capacity(80);
    for (partition, suffixes) in &tree.known {
        if above {
            stat(&containers, partition);
        }
        for (suffix, hashes) in suffixes {
            path.clear();
            path.extend([partition.as_str(), "/", suffix]);
            if above {
                stat(&containers, &path);
            }
            let length = path.len();
            for hash in hashes {
                path.truncate(length);
                path.extend(["/", hash.as_str()]);
                if hash_dir {
                    stat(&containers, &path);
                }
                path.extend(["/", hash.as_str(), ".db"]);
                seen.saw(stat(&containers, &path));
            }
        }
    }
    seen
}

fn known_device(tree: &Tree) -> Seen {
    known_relative(tree, true, true)
}

fn known_two(tree: &Tree) -> Seen {
    known_relative(tree, false, true)
}

fn known_one(tree: &Tree) -> Seen {
    known_relative(tree, false, false)
}

fn in_threads(tree: &Tree, threads: usize, work: &(dyn Fn(&OwnedFd, &Part, &mut Seen) + Sync)) -> Seen {
    let containers = open(CWD, tree.containers.to_str().expect("text"));
    let containers = &containers;
    std::thread::scope(|scope| {
        let running: Vec<_> = tree
            .known
            .chunks(tree.known.len().div_ceil(threads))
            .map(|parts| {
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    parts.iter().for_each(|part| work(containers, part, &mut seen));
                    seen
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("done")).fold(Seen::default(), Seen::and)
    })
}
