//! Who does not know of the change: writers who write wherever they find a copy, and a watch that counts the copies.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use swiftlet::broker::{Broker, BrokerError};
use swiftlet::drive::HashDir;

use crate::ROWS;
use crate::cluster::{Cluster, Container, MOUNTED, row};

/// They go on until they are told to stop.
pub struct Bystanders {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<BTreeSet<String>>>>,
    watch: JoinHandle<u64>,
}

/// How a writer goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Into the database, at once.
    AtOnce,
    /// Into the database, some time after opening it.
    Slowly,
    /// Into the pending file.
    Pending,
}

impl Bystanders {
    /// Three writers and a watch, on all these containers on any device. Names of rows begin with `when`.
    pub fn start(
        when: &'static str,
        cluster: &Cluster,
        containers: &[Container],
        devices: usize,
    ) -> Bystanders {
        let homes = |container| (0..devices).map(|device| cluster.home(device, container)).collect();
        let homes: Arc<Vec<Vec<HashDir>>> = Arc::new(containers.iter().map(homes).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |habit| {
            let (homes, stop) = (homes.clone(), stop.clone());
            thread::spawn(move || write(when, habit, &homes, &stop))
        };
        let writers = [Habit::AtOnce, Habit::Slowly, Habit::Pending].map(writer).into();
        let watched = stop.clone();
        let watch = thread::spawn(move || watch(&homes, &watched));
        Bystanders { stop, writers, watch }
    }

    /// Lets them end. The names of the rows of each container that were acknowledged.
    pub fn finish(self) -> Vec<BTreeSet<String>> {
        self.stop.store(true, Ordering::SeqCst);
        let mut acknowledged: Vec<BTreeSet<String>> = Vec::new();
        for writer in self.writers {
            let written = writer.join().expect("a writer failed");
            acknowledged.resize(written.len(), BTreeSet::new());
            acknowledged.iter_mut().zip(written).for_each(|(all, some)| all.extend(some));
        }
        let looks = self.watch.join().expect("there were fewer copies than before");
        let rows: usize = acknowledged.iter().map(BTreeSet::len).sum();
        println!("{rows} rows acknowledged, copies counted {looks} times");
        assert!(rows > 100 && looks > 2, "{rows} rows, {looks} looks");
        acknowledged
    }
}

/// Writes one row after the other, each to the next container, on the next device that has it.
fn write(when: &str, habit: Habit, homes: &[Vec<HashDir>], stop: &AtomicBool) -> Vec<BTreeSet<String>> {
    let mut acknowledged = vec![BTreeSet::new(); homes.len()];
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (container, round) = (turn % homes.len(), turn / homes.len());
        let name = format!("{when}-{habit:?}-{turn:06}");
        let mut places = homes[container].clone();
        let count = places.len();
        places.rotate_left(round % count);
        if places.iter().any(|home| put(habit, home, &name, turn as u64)) {
            acknowledged[container].insert(name);
        }
        thread::sleep(PAUSE);
    }
    acknowledged
}

/// Was the row written?
fn put(habit: Habit, home: &HashDir, name: &str, at: u64) -> bool {
    if !is_mounted(home.device()) {
        return false;
    }
    let row = row(name, 1000 + at);
    let put = Broker::open(home).and_then(|mut broker| match habit {
        Habit::Pending => broker.put_record(row),
        Habit::AtOnce => broker.merge_rows(vec![row], None).map(drop),
        Habit::Slowly => {
            thread::sleep(SLOWNESS);
            broker.merge_rows(vec![row], None).map(drop)
        }
    });
    match put {
        Ok(()) => true,
        Err(BrokerError::Missing | BrokerError::Busy { .. }) => false,
        Err(error) => panic!("{habit:?} on {}: {error}", home.dir().display()),
    }
}

fn is_mounted(device: &Path) -> bool {
    device.join(MOUNTED).exists()
}

/// Counts the copies of each container that have all rows of the start, again and again; how often. Fails when there are
/// fewer than three.
fn watch(homes: &[Vec<HashDir>], stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    while !stop.load(Ordering::SeqCst) {
        for homes in homes {
            let mut seen = look(homes);
            while seen.iter().filter(|whole| **whole).count() < 3 {
                // One may have come where we had looked already: what counts is what two looks agree on.
                let again = look(homes);
                assert_ne!(seen, again, "copies of {}, by device", homes[0].hash());
                seen = again;
            }
        }
        looks += 1;
        thread::sleep(PAUSE * 20);
    }
    looks
}

/// On which devices there is a copy with all rows of the start.
fn look(homes: &[HashDir]) -> Vec<bool> {
    homes
        .iter()
        .map(|home| {
            let Some(path) = home.in_charge().ok().flatten() else { return false };
            loop {
                match rows_of_the_start(&path) {
                    Ok(rows) => return rows == ROWS as i64,
                    Err(_) if !path.exists() => return false,
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        })
        .collect()
}

/// As quickly as it can be told, and without a look at what is pending.
fn rows_of_the_start(path: &Path) -> rusqlite::Result<i64> {
    let _guard = swiftlet::drive::opening(path);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let sql = "SELECT count(*) FROM object WHERE name BETWEEN 'before-' AND 'before.' AND deleted = 0";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(5);
/// Between opening a database and writing to it.
const SLOWNESS: Duration = Duration::from_millis(30);
