//! Hundreds of thousands of container databases, each on three devices, in minutes.
//!
//! SQLite takes milliseconds to make a database, and a million of them would take hours. So each kind is made once, as a
//! container server makes it, and every database is that file with its container's name and its own id written over the
//! template's. Both have one length, so that no byte moves; what comes out is compared with what SQLite makes
//! ([`Fleet::prove_sound`]).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use md5::{Digest, Md5};
use rusqlite::Connection;
use swiftlet::broker::Broker;
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{Hash, HashSalt, PartShift, Partition};
use swiftlet::replica::{PolicyIndex, ReplicaId, Row};
use swiftlet::timestamp::Timestamp;

use crate::workshop;

/// Nodes, devices and replicas.
pub const NODES: usize = 3;
/// Prefix and suffix of the paths that are hashed.
pub const SALT: &str = "scale";
pub const ACCOUNT: &str = "AUTH_scale";
/// In every so many databases that many rows; in all others, none. The first that fits counts.
const KINDS: [(u32, u32); 3] = [(100, 200), (20, 20), (1, 0)];
/// What a partition holds, about.
const DATABASES_PER_PARTITION: u32 = 5;
/// Page sizes that container databases are found with: SQLite's default today, that of 2016 and before, the least.
pub const PAGE_SIZES: [u32; 3] = [4096, 1024, 512];

/// The databases below one directory: `<root>/d0`, `d1` and `d2` are the devices.
pub struct Fleet {
    pub root: PathBuf,
    pub count: u32,
    pub part_power: u8,
    page_bytes: u32,
    templates: Vec<Template>,
    made_at: Timestamp,
}

/// A database of one kind, and where in it that stands which is each one's own.
struct Template {
    bytes: Vec<u8>,
    container_at: Vec<usize>,
    id_at: Vec<usize>,
    /// The same on the disk, where its file system can share blocks between files.
    to_clone: Option<File>,
}

impl Fleet {
    /// Plans a fleet and makes its templates below `root`, which is to be the directory of its devices.
    pub fn plan(root: &Path, count: u32, page_bytes: u32) -> Fleet {
        let partitions = (count / DATABASES_PER_PARTITION).next_power_of_two().max(1 << 8);
        let mut fleet = Fleet {
            root: root.to_owned(),
            count,
            part_power: partitions.trailing_zeros() as u8,
            page_bytes,
            templates: Vec::new(),
            made_at: Timestamp::at(std::time::SystemTime::now()),
        };
        fs::create_dir_all(root).expect("a directory");
        for kind in 0..KINDS.len() {
            fleet.templates.push(fleet.template(kind));
        }
        fleet
    }

    fn template(&self, kind: usize) -> Template {
        let bytes = self.by_sqlite(PLACE_OF_CONTAINER, PLACE_OF_ID, kind);
        // More than once where SQLite moved a row and left its old bytes in the page: they mean nothing, and agree.
        let all = |wanted: &str| {
            let text = bytes.windows(wanted.len()).enumerate().filter(|(_, text)| *text == wanted.as_bytes());
            let places: Vec<usize> = text.map(|(at, _)| at).collect();
            assert!(!places.is_empty(), "the template has {wanted}");
            places
        };
        let (container_at, id_at) = (all(PLACE_OF_CONTAINER), all(PLACE_OF_ID));
        let path = self.root.join(format!("template{kind}"));
        fs::write(&path, &bytes).expect("a template");
        let original = File::open(&path).expect("a template");
        let to_clone = File::create(self.root.join("clone"))
            .is_ok_and(|clone| rustix::fs::ioctl_ficlone(&clone, &original).is_ok())
            .then_some(original);
        Template { bytes, container_at, id_at, to_clone }
    }

    /// What SQLite makes of one database: through the broker, then with pages of the size wanted.
    fn by_sqlite(&self, container: &str, id: &str, kind: usize) -> Vec<u8> {
        let dir = tempfile::tempdir_in(&self.root).expect("a directory");
        let home = HashDir::new(
            dir.path().into(),
            PartShift::new(32).expect("one").partition(&hash(container)),
            hash(container),
        );
        let id = ReplicaId::new(id).expect("an id");
        let (at, policy) = (self.made_at, PolicyIndex(0));
        let mut broker = Broker::create(&home, ACCOUNT, container, at, policy, &id, at).expect("a database");
        let rows: Vec<Row> =
            (0..KINDS[kind].1).map(|number| row(&format!("photos/{number:06}.jpg"), at)).collect();
        if !rows.is_empty() {
            broker.merge_rows(rows, None).expect("merged");
        }
        let path = broker.path().to_owned();
        drop(broker);
        let compact = format!("PRAGMA page_size = {}; VACUUM", self.page_bytes);
        Connection::open(&path).and_then(|database| database.execute_batch(&compact)).expect("other pages");
        fs::read(&path).expect("the database")
    }

    /// Bytes that the whole fleet takes on a file system with blocks of 4 KiB, whose directories take one each.
    pub fn bytes(&self) -> u64 {
        let each = |template: &Template| match template.to_clone {
            // A block that holds both places, or two.
            Some(_) => 2 * BLOCK,
            None => (template.bytes.len() as u64).next_multiple_of(BLOCK),
        };
        let inodes = 3 * 512;
        let directories = 2 * BLOCK + BLOCK / u64::from(DATABASES_PER_PARTITION);
        let files: u64 = (0..100).map(|number| each(&self.templates[kind(number)])).sum();
        u64::from(self.count) * NODES as u64 * (files / 100 + directories + inodes)
    }

    /// Whether databases share what they have in common on the disk.
    pub fn is_cloned(&self) -> bool {
        self.templates.iter().all(|template| template.to_clone.is_some())
    }

    /// Makes all of it, with all processors.
    pub fn make(&self) {
        let next = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    let mut bytes = Vec::new();
                    loop {
                        let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                        if first >= self.count {
                            return;
                        }
                        (first..self.count.min(first + CHUNK))
                            .for_each(|number| self.make_one(number, &mut bytes));
                    }
                });
            }
        });
        // Else what is measured next shares the disk with what is still to be written.
        let root = File::open(&self.root).expect("a directory");
        nix::unistd::syncfs(&root).expect("synced");
    }

    fn make_one(&self, number: u32, bytes: &mut Vec<u8>) {
        let container = container(number);
        let template = &self.templates[kind(number)];
        for node in 0..NODES {
            let home = self.home(node, number);
            make_dir(home.dir());
            let path = home.dir().join(format!("{}.db", home.hash()));
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path).expect("a new file");
            let id = id(number, node);
            let places = template.container_at.iter().map(|at| (*at, container.as_bytes()));
            let patches: Vec<(usize, &[u8])> =
                places.chain(template.id_at.iter().map(|at| (*at, id.as_bytes()))).collect();
            if let Some(original) = &template.to_clone {
                rustix::fs::ioctl_ficlone(&file, original).expect("a clone");
                for (at, text) in patches {
                    file.write_all_at(text, at as u64).expect("written");
                }
            } else {
                bytes.clone_from(&template.bytes);
                for (at, text) in patches {
                    bytes[at..at + text.len()].copy_from_slice(text);
                }
                file.write_all(bytes).expect("written");
            }
        }
    }

    /// Compares some databases with what SQLite makes, byte for byte, and lets it check that they hold together.
    pub fn prove_sound(&self, numbers: impl Iterator<Item = u32>) {
        for number in numbers {
            for node in 0..NODES {
                let home = self.home(node, number);
                let path = home.in_charge().expect("readable").expect("a database");
                let expected = self.by_sqlite(&container(number), &id(number, node), kind(number));
                assert!(
                    fs::read(&path).expect("readable") == expected,
                    "{} is not as SQLite makes it",
                    path.display()
                );
                let database = Connection::open(&path).expect("a database");
                let verdict: String =
                    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
                assert_eq!(verdict, "ok", "{}", path.display());
                drop(database);
                let info = Broker::open(&home).and_then(|mut broker| broker.info()).expect("a database");
                assert_eq!((info.account.as_str(), info.container), (ACCOUNT, container(number)));
                assert_eq!(info.count, i64::from(KINDS[kind(number)].1));
                assert_eq!((info.id.as_str(), info.page_bytes), (id(number, node).as_str(), self.page_bytes));
            }
        }
    }

    /// Where a database lies.
    pub fn home(&self, node: usize, number: u32) -> HashDir {
        HashDir::new(self.device(node).into(), self.partition(number), hash(&container(number)))
    }

    /// In which partition.
    pub fn partition(&self, number: u32) -> Partition {
        let shift = PartShift::new(32 - self.part_power).expect("a partition power");
        shift.partition(&hash(&container(number)))
    }

    /// The directory of a node's device.
    pub fn device(&self, node: usize) -> PathBuf {
        self.root.join(device_name(node))
    }
}

/// The name of a node's device.
pub fn device_name(node: usize) -> String {
    format!("d{node}")
}

/// A database's container.
pub fn container(number: u32) -> String {
    format!("c{number:08}")
}

/// An object's row as a container server stores it.
pub fn row(name: &str, at: Timestamp) -> Row {
    workshop::photo(name.to_owned(), at.to_string(), 48_213, workshop::ETAG.to_owned())
}

/// A UUID and the device's name, as Swift makes them, but the same in every run.
fn id(number: u32, node: usize) -> String {
    let digest = Md5::digest(format!("{number} {node}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-4{}-8{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..],
        device_name(node)
    )
}

fn kind(number: u32) -> usize {
    KINDS.iter().position(|(every, _)| number % every == every / 2).expect("the last is for all")
}

fn hash(container: &str) -> Hash {
    let salt = HashSalt { prefix: SALT.into(), suffix: SALT.into() };
    salt.hash(ACCOUNT, Some(container), None)
}

/// Most suffixes have one database, most partitions are there.
fn make_dir(dir: &Path) {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_dir(dir.parent().expect("below the root"));
            make_dir(dir);
        }
        Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("{}: {error}", dir.display()),
        _ => {}
    }
}

const PLACE_OF_CONTAINER: &str = "c????????";
const PLACE_OF_ID: &str = "????????-????-????-????-????????????-d?";
const BLOCK: u64 = 4096;
/// Databases that a thread takes on at once.
const CHUNK: u32 = 256;
