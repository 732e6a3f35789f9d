//! What a pass has to bring from the first node to the second, beside containers that clients write to.
//!
//! A third of the databases is missing at the second node, a third has only the first half of the rows, and a third has all
//! of them but some in an older version. Half of the bytes is in small databases, half in large ones.

use std::path::Path;
use std::sync::Arc;

use swiftlet::broker::{Broker, fresh_id};
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{Hash, HashSalt, PartShift, Partition};
use swiftlet::replica::{PolicyIndex, Row};
use swiftlet::timestamp::Timestamp;

use crate::workshop;

pub const ACCOUNT: &str = "AUTH_gentle";

/// A container of the benchmark.
#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub partition: Partition,
    hash: Hash,
    rows: u64,
    /// Of which the second node has these at first.
    theirs: Theirs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theirs {
    Missing,
    Half,
    Older,
    Same,
}

impl Container {
    /// An empty one, of which nobody has anything yet.
    pub fn new(name: String) -> Container {
        Container::with(name, 0, Theirs::Missing)
    }

    fn with(name: String, rows: u64, theirs: Theirs) -> Container {
        let salt = HashSalt { prefix: workshop::SALT.into(), suffix: workshop::SALT.into() };
        let hash = salt.hash(ACCOUNT, Some(&name), None);
        let shift = PartShift::new(32 - workshop::PART_POWER).expect("a partition power");
        Container { name, partition: shift.partition(&hash), hash, rows, theirs }
    }

    /// Where it lies on a device.
    pub fn home(&self, device: &Path) -> HashDir {
        HashDir::new(Arc::from(device), self.partition, self.hash)
    }

    /// What a replica of it has, `None` if there is none.
    fn held(&self, device: &Path) -> Option<(String, i64)> {
        let info = Broker::open(&self.home(device)).and_then(|mut broker| broker.info()).ok()?;
        Some((info.hash.to_string(), info.count))
    }

    /// Makes both replicas.
    fn make(&self, devices: [&Path; 2]) {
        let older = |mut row: Row| {
            row.created_at = Timestamp::from_seconds(1_600_000_000.0).expect("a time").to_string();
            row
        };
        let all = || (0..self.rows).map(workshop::row);
        self.fill(devices[0], all());
        match self.theirs {
            Theirs::Missing => {}
            Theirs::Half => self.fill(devices[1], all().take(self.rows as usize / 2)),
            Theirs::Older => self.fill(
                devices[1],
                all().zip(0..).map(|(row, number)| if number % OLDER_EVERY == 0 { older(row) } else { row }),
            ),
            Theirs::Same => self.fill(devices[1], all()),
        }
    }

    fn fill(&self, device: &Path, mut rows: impl Iterator<Item = Row>) {
        let name = device.file_name().and_then(|name| name.to_str()).expect("a device's name");
        let born = Timestamp::from_seconds(1_500_000_000.0).expect("a time");
        let (home, id) = (self.home(device), fresh_id(name));
        let mut broker =
            Broker::create(&home, ACCOUNT, &self.name, born, PolicyIndex(0), &id, born).expect("a database");
        loop {
            let batch: Vec<Row> = rows.by_ref().take(BATCH_ROWS).collect();
            if batch.is_empty() {
                return;
            }
            broker.merge_rows(batch, None).expect("rows merged");
        }
    }
}

/// Everything on both nodes' drives.
pub struct Backlog {
    /// To be shipped.
    pub behind: Vec<Container>,
    /// The same on both; clients write to these.
    pub busy: Vec<Container>,
}

impl Backlog {
    /// So many bytes to ship.
    pub fn plan(bytes: u64) -> Backlog {
        let behind = |count: u64, rows: u64, kind: &'static str| {
            let theirs = [Theirs::Missing, Theirs::Half, Theirs::Older].into_iter().cycle();
            (0..count)
                .zip(theirs)
                .map(move |(number, theirs)| Container::with(format!("{kind}{number}"), rows, theirs))
        };
        let count = |rows: u64| bytes / 2 / (rows * ROW_BYTES);
        let behind = behind(count(SMALL_ROWS).max(3), SMALL_ROWS, "small")
            .chain(behind(count(LARGE_ROWS), LARGE_ROWS, "large"))
            .collect();
        let busy = (0..BUSY)
            .map(|number| Container::with(format!("busy{number}"), BUSY_ROWS, Theirs::Same))
            .collect();
        Backlog { behind, busy }
    }

    /// Makes all of it.
    pub fn make(&self, devices: [&Path; 2]) {
        self.behind.iter().chain(&self.busy).for_each(|container| container.make(devices));
    }

    /// Those databases to be shipped of which the two nodes do not have the same.
    pub fn left(&self, devices: [&Path; 2]) -> usize {
        let differs = |container: &&Container| {
            let [ours, theirs] = devices.map(|device| container.held(device));
            ours.is_none() || ours != theirs
        };
        self.behind.iter().filter(differs).count()
    }
}

/// Bytes of a file for each row.
const ROW_BYTES: u64 = 150;
const SMALL_ROWS: u64 = 5_000;
const LARGE_ROWS: u64 = 200_000;
const BUSY: usize = 16;
const BUSY_ROWS: u64 = 1_000;
const OLDER_EVERY: u64 = 50;
const BATCH_ROWS: usize = 10_000;
