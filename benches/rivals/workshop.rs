//! The pairs: one container as two nodes hold it. All come from one database, so that they can be compared.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use swiftlet::broker::{Broker, fresh_id};
use swiftlet::drive::{HashDir, holes};
use swiftlet::hash_path::{Hash, HashSalt, PartShift};
use swiftlet::replica::{Metadata, MetadataItem, PolicyIndex, ReplicaId, Row};
use swiftlet::timestamp::{Stamp, Timestamp};

/// In the order in which they run.
pub const NAMES: [&str; 8] =
    ["same", "vacuum", "meta", "append1k", "churn10k", "behind60", "reorder1k", "missing"];

/// The account and container that every pair is of.
pub const ACCOUNT: &str = "AUTH_bench";
/// See [`ACCOUNT`].
pub const CONTAINER: &str = "big";
/// Keeps two partitions apart.
pub const PART_POWER: u8 = 1;
/// The hash prefix and suffix of both nodes.
pub const SALT: &str = "bench";

/// Of a database file, for each row.
const ROW_BYTES: u64 = 150;
/// The base, what it was at 40 %, a pair, its copies, what is staged beside them and what becomes of those.
const COPIES: u64 = 9;
const BORN_SECS: u64 = 1_700_000_000;
/// An etag where it does not matter.
pub const ETAG: &str = "d41d8cd98f00b204e9800998ecf8427e";
const SEED: u64 = 7;
/// How long nobody wrote to a copy: longer than anybody takes for the grain of a clock.
const AT_REST: Duration = Duration::from_secs(60);
const BATCH_ROWS: usize = 10_000;

/// The hash of the container.
pub fn hash() -> Hash {
    HashSalt { prefix: SALT.into(), suffix: SALT.into() }.hash(ACCOUNT, Some(CONTAINER), None)
}

/// Where a device keeps it.
pub fn hash_dir(device: &Path) -> HashDir {
    let shift = PartShift::new(32 - PART_POWER).expect("a partition power");
    HashDir::new(Arc::from(device), shift.partition(&hash()), hash())
}

/// Two versions of one database, in files of their own that are copied for each run.
pub struct Pair {
    /// Which of [`NAMES`].
    pub name: &'static str,
    /// The sender's.
    pub new: PathBuf,
    /// The receiver's, if it has one.
    pub old: Option<PathBuf>,
}

impl Pair {
    /// Gives back the disk space.
    pub fn discard(self) {
        fs::remove_dir_all(self.new.parent().expect("a directory")).expect("the pair to go");
    }
}

/// The most disk that the pairs of so many rows take at once, with the copies and what comes of them for one contender.
pub fn needed_bytes(rows: u64) -> u64 {
    rows.max(10_000) * ROW_BYTES * COPIES
}

/// Copies a database to where a run wants it, down to the disk, so that no run pays for another's writes; and as if nobody
/// had written to it for a while, which is how most databases are found.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
    let file = copy_around_holes(from, to).expect("a copy");
    file.set_modified(SystemTime::now() - AT_REST).and_then(|()| file.sync_all()).expect("the copy on disk");
}

/// A copy that takes no more of the disk than the original.
fn copy_around_holes(from: &Path, to: &Path) -> io::Result<File> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let (mut piece, mut offset) = (vec![0; 1 << 20], 0);
    loop {
        match holes::read(&from, offset, &mut piece)? {
            0 => break,
            read => {
                holes::write_around_zeros(&to, offset, &piece[..read])?;
                offset += read as u64;
            }
        }
    }
    to.set_len(offset)?;
    Ok(to)
}

/// The database that the pairs come from, and what it was at 40 % of its rows.
pub struct Workshop {
    root: PathBuf,
    rows: u64,
    base: PathBuf,
    half: PathBuf,
    sender: ReplicaId,
}

impl Workshop {
    /// Makes the base database.
    pub fn build(root: &Path, rows: u64) -> Workshop {
        let (base, half, sender) = (root.join("base.db"), root.join("half.db"), fresh_id("a"));
        fs::create_dir_all(root).expect("a directory");
        create(root, &base, &sender);
        insert(&base, &mut numbers(0..rows * 2 / 5));
        fs::copy(&base, &half).expect("a copy");
        insert(&base, &mut numbers(rows * 2 / 5..rows));
        Workshop { root: root.to_owned(), rows, base, half, sender }
    }

    /// The base database, for what is to change in every pair.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Makes one pair.
    pub fn pair(&self, name: &'static str) -> Pair {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let (new, old) = (dir.join("new.db"), dir.join("old.db"));
        copy(&self.base, &new);
        match name {
            "reorder1k" => {
                create(&dir, &old, &fresh_id("b"));
                insert(&old, &mut self.neighbours_swapped());
            }
            "behind60" => self.receive(&self.half, &old),
            _ => self.receive(&self.base, &old),
        }
        match name {
            "same" | "behind60" => {}
            "vacuum" => Connection::open(&new).and_then(|db| db.execute_batch("VACUUM")).expect("vacuumed"),
            "meta" => {
                let item = MetadataItem {
                    key: "X-Container-Meta-Color".to_owned(),
                    value: "blue".to_owned(),
                    stamp: Stamp::stored(stamp(self.rows, 0)),
                };
                let mut broker = Broker::open_file(&new).expect("a database");
                broker.merge_metadata(&Metadata(vec![item])).expect("metadata merged");
            }
            "append1k" | "reorder1k" => insert(&new, &mut numbers(self.rows..self.rows + 1000)),
            "churn10k" => insert(&new, &mut self.overwritten(10_000)),
            "missing" => fs::remove_file(&old).expect("the old one to go"),
            _ => panic!("no pair is called {name}"),
        }
        let old = old.exists().then_some(old);
        Pair { name, new, old }
    }

    /// The receiver's file: an id of its own, and all of the sender's rows so far known to be there.
    fn receive(&self, from: &Path, to: &Path) {
        copy(from, to);
        let mut broker = Broker::open_file(to).expect("a database");
        broker.new_id(&self.sender, fresh_id("b")).expect("a new id");
    }

    /// All rows, but one pair of neighbours in twenty arrived the other way round.
    fn neighbours_swapped(&self) -> impl Iterator<Item = Row> {
        let mut random = Random(SEED ^ 1);
        (0..self.rows)
            .step_by(2)
            .flat_map(move |first| {
                let swapped = random.below(20) == 0;
                [first, first + 1].map(move |number| if swapped { number ^ 1 } else { number })
            })
            .filter({
                let rows = self.rows;
                move |number| *number < rows
            })
            .map(row)
    }

    /// So many of the rows, spread over all of them, with a later time and another size.
    fn overwritten(&self, count: u64) -> impl Iterator<Item = Row> {
        let (count, rows) = (count.min(self.rows), self.rows);
        let mut random = Random(SEED ^ 2);
        (0..count).map(move |number| {
            let span = (number * rows / count, (number + 1) * rows / count);
            let mut row = row(span.0 + random.below((span.1 - span.0).max(1)));
            row.created_at = stamp(10_000_000 + number, number);
            row.size = random.below(1 << 24) as i64;
            row
        })
    }
}

/// Makes an empty database with this id at `path`; other files that takes are made beside `workshop` and removed.
pub fn create(workshop: &Path, path: &Path, id: &ReplicaId) {
    let device = workshop.join("making");
    let home = hash_dir(&device);
    let born = Timestamp::from_seconds(BORN_SECS as f64).expect("a time");
    let broker =
        Broker::create(&home, ACCOUNT, CONTAINER, born, PolicyIndex(0), id, born).expect("a database");
    let made = broker.path().to_owned();
    drop(broker);
    fs::rename(made, path).expect("the database in its place");
    fs::remove_dir_all(device).expect("the rest to go");
}

fn insert(path: &Path, rows: &mut dyn Iterator<Item = Row>) {
    let mut broker = Broker::open_file(path).expect("a database");
    loop {
        let batch: Vec<Row> = rows.take(BATCH_ROWS).collect();
        if batch.is_empty() {
            return;
        }
        broker.merge_rows(batch, None).expect("rows merged");
    }
}

fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = Row> {
    range.map(row)
}

/// The object of that number; always the same. As Swift's JSON a row is 227 bytes, of which 23 are random.
pub fn row(number: u64) -> Row {
    let mut random = Random(SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    random.next();
    photo(
        format!("photos/{:08x}/{number:06}.jpg", random.next() >> 32),
        stamp(number, number),
        random.below(1 << 24) as i64,
        format!("{:016x}{:016x}", random.next(), random.next()),
    )
}

/// An object's row as a container server stores it.
pub fn photo(name: String, created_at: String, size: i64, etag: String) -> Row {
    Row {
        row_id: None,
        name,
        created_at,
        size,
        content_type: "image/jpeg".to_owned(),
        etag,
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}

fn stamp(seconds: u64, fraction: u64) -> String {
    format!("{:010}.{:05}", BORN_SECS + seconds, fraction % 100_000)
}

/// SplitMix64: small, seeded, good enough for data that must not compress.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
