//! The demo's containers, each out of step in its own way, and a note of all that was ever written to them.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::cluster::{Cluster, NodeIndex, REPLICAS, part_shift, scribble};
use crate::broker::{AccountReport, Broker, BrokerError, fresh_id};
use crate::drive::HashDir;
use crate::hash_path::{Hash, HashSalt, Partition};
use crate::replica::{Direction, Metadata, MetadataItem, PolicyIndex, Row, RowId, SyncPoint};
use crate::timestamp::{Stamp, Timestamp};

/// The account of all containers.
pub const ACCOUNT: &str = "AUTH_demo";

/// One way in which replicas can differ.
pub struct Case {
    /// The container's name.
    pub name: &'static str,
    /// How its replicas differ.
    pub differs: &'static str,
    /// What is left of it in the end.
    pub end: End,
    make: fn(&mut Maker) -> Result<(), MakeError>,
}

/// What must come of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Three equal replicas on the primaries, and no other.
    Agreed,
    /// No replica anywhere.
    Gone,
}

/// All of them, the plain before the strange.
pub const CASES: [Case; 15] = [
    Case { name: "equal", differs: "nothing differs", end: End::Agreed, make: equal },
    Case { name: "missing", differs: "the third is missing", end: End::Agreed, make: missing },
    Case { name: "behind", differs: "the first has 40 new objects", end: End::Agreed, make: behind },
    Case {
        name: "far-behind",
        differs: "the third lacks 74,000 objects",
        end: End::Agreed,
        make: far_behind,
    },
    Case {
        name: "forgotten",
        differs: "the third was away, points are gone",
        end: End::Agreed,
        make: forgotten,
    },
    Case { name: "ahead", differs: "each has puts and deletes of its own", end: End::Agreed, make: ahead },
    Case { name: "metadata", differs: "set on one, removed on another", end: End::Agreed, make: metadata },
    Case {
        name: "timestamps",
        differs: "the second knows of a newer PUT",
        end: End::Agreed,
        make: timestamps,
    },
    Case { name: "unheard", differs: "only the first heard of a DELETE", end: End::Agreed, make: unheard },
    Case { name: "reordered", differs: "same objects, other order", end: End::Agreed, make: reordered },
    Case { name: "restored", differs: "the first came back from a backup", end: End::Agreed, make: restored },
    Case { name: "damaged", differs: "the second's first page is garbage", end: End::Agreed, make: damaged },
    Case { name: "handoff", differs: "a handoff has the third's objects", end: End::Agreed, make: handoff },
    Case { name: "pending", differs: "12 objects wait beside the second", end: End::Agreed, make: pending },
    Case { name: "deleted", differs: "deleted 40 days ago", end: End::Gone, make: deleted },
];

/// A container that was made.
pub struct Container {
    /// In which way it is out of step.
    pub case: &'static Case,
    /// Its hash.
    pub hash: Hash,
    /// Its partition, which it has for itself.
    pub partition: Partition,
    /// Where it was made: its primaries' directories in the ring's order of that time, then its handoff's.
    pub homes: Vec<HashDir>,
    /// The newest row of every name ever written.
    pub written: BTreeMap<String, Row>,
    /// What its metadata must be in the end.
    pub metadata: BTreeMap<String, String>,
    /// What its timestamps must be in the end.
    pub put_timestamp: Stamp,
    /// Likewise.
    pub delete_timestamp: Stamp,
    /// Objects that each of the directories held at the start.
    pub objects: Vec<Holding>,
    /// Bytes of its largest replica at the start.
    pub file_bytes: u64,
}

/// What a directory holds of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// No database.
    Nothing,
    /// One that cannot be read.
    Garbage,
    /// So many objects.
    Objects(i64),
}

/// Why a container could not be made.
#[derive(Debug)]
pub struct MakeError(String);

impl std::fmt::Display for MakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BrokerError> for MakeError {
    fn from(error: BrokerError) -> MakeError {
        MakeError(error.to_string())
    }
}

impl From<io::Error> for MakeError {
    fn from(error: io::Error) -> MakeError {
        MakeError(error.to_string())
    }
}

impl Container {
    /// Makes the replicas.
    pub fn make(case: &'static Case, cluster: &Cluster, now: Timestamp) -> Result<Container, MakeError> {
        let (hash, partition) = cluster.locate(ACCOUNT, case.name);
        let mut nodes = cluster.primaries(partition);
        nodes.extend(cluster.nodes().find(|node| !nodes.contains(node)));
        let homes: Vec<HashDir> =
            nodes.into_iter().map(|node| cluster.home_of(node, partition, hash)).collect();
        let created = before(now, 60 * DAY);
        let container = Container {
            case,
            hash,
            partition,
            written: BTreeMap::new(),
            metadata: BTreeMap::new(),
            put_timestamp: created.into(),
            delete_timestamp: Stamp::unset(),
            objects: vec![Holding::Nothing; homes.len()],
            file_bytes: 0,
            homes,
        };
        let mut maker = Maker { container, now, created, ticks: 0 };
        (case.make)(&mut maker)?;
        let mut container = maker.container;
        for (holding, home) in container.objects.iter_mut().zip(&container.homes) {
            let Some(path) = home.in_charge()? else { continue };
            container.file_bytes = container.file_bytes.max(fs::metadata(&path)?.len());
            // What waits beside a database is not to be taken in by a look of ours.
            *holding = match Broker::open_file(&path).and_then(|mut broker| broker.info()) {
                Ok(info) => Holding::Objects(info.count),
                Err(_) => Holding::Garbage,
            };
        }
        Ok(container)
    }

    /// Where it lies on a node, or would.
    pub fn home(&self, cluster: &Cluster, node: NodeIndex) -> HashDir {
        cluster.home_of(node, self.partition, self.hash)
    }

    /// Whether a node has anything of it now.
    pub fn lies_on(&self, cluster: &Cluster, node: NodeIndex) -> bool {
        self.home(cluster, node).dir().exists()
    }

    /// Whether a replica of it was moved away as damaged.
    pub fn quarantined(&self) -> bool {
        self.homes
            .iter()
            .any(|home| home.device().join("quarantined/containers").join(home.hash().to_string()).exists())
    }
}

/// A salt that gives every container a partition of its own, so that a pass over one partition is one container's.
pub fn salt_that_spreads() -> (String, String) {
    loop {
        let (prefix, suffix) = (random_hex(), random_hex());
        let salt = HashSalt { prefix: prefix.clone().into(), suffix: suffix.clone().into() };
        let mut partitions: Vec<Partition> = CASES
            .iter()
            .map(|case| part_shift().partition(&salt.hash(ACCOUNT, Some(case.name), None)))
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        if partitions.len() == CASES.len() {
            return (prefix, suffix);
        }
    }
}

fn random_hex() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes one container. Replicas are named by their place: the primaries 0, 1 and 2, the handoff 3.
struct Maker {
    container: Container,
    now: Timestamp,
    created: Timestamp,
    /// Grows with everything written, so that each thing is younger than the one before.
    ticks: i64,
}

impl Maker {
    /// An empty replica, with no history in common with any other.
    fn create(&mut self, at: usize) -> Result<(), MakeError> {
        let home = &self.container.homes[at];
        let (created, id) = (self.created, fresh_id(&device(home)));
        Broker::create(home, ACCOUNT, self.container.case.name, created, PolicyIndex(0), &id, created)?;
        Ok(())
    }

    fn broker(&self, at: usize) -> Result<Broker, MakeError> {
        Ok(Broker::open(&self.container.homes[at])?)
    }

    /// Copies a replica as a pass does that finds none: the copy has an id of its own.
    fn copy(&mut self, from: usize, to: usize) -> Result<(), MakeError> {
        let mut source = self.broker(from)?;
        let home = &self.container.homes[to];
        home.create()?;
        fs::copy(source.path(), home.dir().join(format!("{}.db", home.hash())))?;
        self.broker(to)?.new_id(&source.info()?.id, fresh_id(&device(home)))?;
        Ok(())
    }

    /// Gives replicas that are equal the sync points of a cluster at rest: each has all rows of all others.
    fn acquaint(&mut self, replicas: &[usize]) -> Result<(), MakeError> {
        for &at in replicas {
            let mut broker = self.broker(at)?;
            let own = broker.info()?.max_row;
            for &peer in replicas.iter().filter(|&&peer| peer != at) {
                let peer = self.broker(peer)?.info()?;
                let point = |point| [SyncPoint { remote_id: peer.id.clone(), point }];
                broker.merge_sync_points(&point(peer.max_row), Direction::Incoming)?;
                broker.merge_sync_points(&point(own), Direction::Outgoing)?;
            }
        }
        Ok(())
    }

    /// A replica with objects, and equal ones elsewhere.
    fn replicas(&mut self, objects: usize, copies: &[usize]) -> Result<(), MakeError> {
        self.create(0)?;
        self.put(0, 0, objects)?;
        copies.iter().try_for_each(|&at| self.copy(0, at))?;
        self.acquaint(&[&[0], copies].concat())
    }

    /// The row of an object put or deleted now.
    fn row(&mut self, number: usize, deleted: bool) -> Row {
        let name = format!("2026/{:02}/IMG_{number:06}.jpg", number % 12 + 1);
        let time = self.tick();
        let mixed = (number as u64 ^ time.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Row {
            row_id: None,
            name,
            created_at: time.to_string(),
            size: if deleted { 0 } else { 100_000 + (mixed % 4_000_000) as i64 },
            content_type: if deleted { "application/deleted" } else { "image/jpeg" }.to_owned(),
            etag: if deleted {
                "noetag".to_owned()
            } else {
                format!("{mixed:016x}{:016x}", mixed.rotate_left(29))
            },
            deleted: i64::from(deleted),
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    /// A time shortly before now, later than all that were given before.
    fn tick(&mut self) -> Timestamp {
        self.ticks += 37;
        before(self.now, 2 * DAY).shifted(self.ticks).expect("a time of our days")
    }

    fn note(&mut self, rows: &[Row]) {
        for row in rows {
            self.container.written.insert(row.name.clone(), row.clone());
        }
    }

    /// Puts objects, numbered from `first`.
    fn put(&mut self, at: usize, first: usize, objects: usize) -> Result<(), MakeError> {
        let rows: Vec<Row> = (first..first + objects).map(|number| self.row(number, false)).collect();
        self.merge(at, rows)
    }

    fn delete(&mut self, at: usize, first: usize, objects: usize) -> Result<(), MakeError> {
        let rows: Vec<Row> = (first..first + objects).map(|number| self.row(number, true)).collect();
        self.merge(at, rows)
    }

    fn merge(&mut self, at: usize, rows: Vec<Row>) -> Result<(), MakeError> {
        self.note(&rows);
        self.broker(at)?.merge_rows(rows, None)?;
        Ok(())
    }

    fn set(&mut self, at: usize, key: &str, value: &str) -> Result<(), MakeError> {
        let item = MetadataItem { key: key.to_owned(), value: value.to_owned(), stamp: self.tick().into() };
        self.broker(at)?.merge_metadata(&Metadata(vec![item]))?;
        self.container.metadata.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
}

fn equal(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_000, &[1, 2])
}

fn missing(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(2_000, &[1])
}

fn behind(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(2_000, &[1, 2])?;
    maker.put(0, 2_000, 40)
}

fn far_behind(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_000, &[2])?;
    maker.put(0, 1_000, 74_000)?;
    maker.copy(0, 1)?;
    maker.acquaint(&[0, 1])
}

/// As when a node comes back that was away for longer than sync points are kept.
fn forgotten(maker: &mut Maker) -> Result<(), MakeError> {
    maker.create(0)?;
    maker.put(0, 0, 70_000)?;
    maker.copy(0, 2)?;
    let first = maker.broker(0)?.info()?.id;
    maker.broker(2)?.set_sync_point(&first, RowId::NONE, Direction::Incoming)?;
    maker.put(0, 70_000, 1_500)?;
    maker.copy(0, 1)?;
    maker.acquaint(&[0, 1])
}

fn ahead(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_000, &[1, 2])?;
    maker.put(0, 1_000, 20)?;
    maker.put(1, 2_000, 30)?;
    maker.delete(2, 100, 10)?;
    // The same objects again, later, elsewhere.
    maker.put(1, 95, 10)?;
    maker.delete(0, 1_000, 1)?;
    maker.put(2, 1_001, 5)
}

fn metadata(maker: &mut Maker) -> Result<(), MakeError> {
    maker.create(0)?;
    maker.put(0, 0, 500)?;
    maker.set(0, "X-Container-Read", ".r:*")?;
    maker.copy(0, 1)?;
    maker.copy(0, 2)?;
    maker.acquaint(&[0, 1, 2])?;
    maker.set(1, "X-Container-Read", "")?;
    maker.set(2, "X-Container-Meta-Color", "blue")?;
    maker.set(0, "X-Container-Meta-Color", "green")
}

fn timestamps(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(500, &[1, 2])?;
    let put = before(maker.now, DAY);
    maker.broker(1)?.raise_put_timestamp(put)?;
    maker.container.put_timestamp = put.into();
    Ok(())
}

fn unheard(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(0, &[1, 2])?;
    let delete = before(maker.now, DAY);
    maker.broker(0)?.delete_db(delete)?;
    maker.container.delete_timestamp = delete.into();
    Ok(())
}

fn reordered(maker: &mut Maker) -> Result<(), MakeError> {
    let mut rows: Vec<Row> = (0..1_000).map(|number| maker.row(number, false)).collect();
    for at in 0..REPLICAS {
        maker.create(at)?;
        maker.merge(at, rows.clone())?;
        rows.rotate_left(317);
        rows.reverse();
    }
    Ok(())
}

/// The peers have had all rows of the first up to 1,000; after the restore it gives out those numbers a second time.
fn restored(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(800, &[1, 2])?;
    let path = maker.broker(0)?.path().to_owned();
    let backup = maker.container.homes[0].device().join("backup.db");
    fs::copy(&path, &backup)?;
    let rows: Vec<Row> = (800..1_000).map(|number| maker.row(number, false)).collect();
    (0..REPLICAS).try_for_each(|at| maker.merge(at, rows.clone()))?;
    maker.acquaint(&[0, 1, 2])?;
    fs::rename(&backup, &path)?;
    maker.put(0, 1_000, 10)
}

fn damaged(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_500, &[1, 2])?;
    let path = maker.broker(1)?.path().to_owned();
    Ok(scribble(&path, &[0xdb; 4096])?)
}

fn handoff(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_200, &[1, 3])?;
    maker.put(3, 1_200, 25)
}

fn pending(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(1_000, &[1, 2])?;
    let rows: Vec<Row> = (1_000..1_012).map(|number| maker.row(number, false)).collect();
    maker.note(&rows);
    let mut broker = maker.broker(1)?;
    Ok(rows.into_iter().try_for_each(|row| broker.put_record(row))?)
}

fn deleted(maker: &mut Maker) -> Result<(), MakeError> {
    maker.replicas(0, &[1, 2])?;
    let delete = before(maker.now, 40 * DAY);
    for at in 0..REPLICAS {
        let mut broker = maker.broker(at)?;
        broker.delete_db(delete)?;
        broker.set_reported(&AccountReport {
            put_timestamp: maker.created.into(),
            delete_timestamp: delete.into(),
            object_count: 0,
            bytes_used: 0,
        })?;
    }
    Ok(())
}

fn device(home: &HashDir) -> String {
    home.device().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn before(time: Timestamp, ticks: i64) -> Timestamp {
    time.shifted(-ticks).expect("a time of our days")
}

/// In units of a timestamp, 10 µs.
const DAY: i64 = 86_400 * 100_000;
