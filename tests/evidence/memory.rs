//! Memory is a setting. A database of 10 GB moves, in full and as a delta, between two daemons that are killed if they
//! ever take more than 64 MiB, page cache and all, while a crowd of peers calls both; and neither ever has more than
//! 32 MiB of its own.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use swiftlet::drive::HashDir;
use swiftlet::replica::{Direction, Row, RowId};

use crate::cage::Cage;
use crate::cluster::{Cluster, Container, database, row, wait};
use crate::crowd::Crowd;
use crate::mount::Mount;
use crate::sparse;
use crate::watch::Watch;

const FILE_BYTES: u64 = 10_000_000_000;
/// What each drive says that it has.
const DRIVE_BYTES: u64 = 40_000_000_000;
const CAGE_BYTES: u64 = 64 << 20;
const LIMIT_KIB: u64 = 32 << 10;
/// Connections to each side that stand idle, and as many that are at work.
const CONNECTIONS: usize = 64;

#[test]
#[ignore = "needs root, a memory cgroup and some gigabytes: tests/evidence/memory.sh"]
fn a_database_of_10_gigabytes_moves_within_32_mebibytes() {
    prove_that_cages_kill();
    // Nodes 0 and 1 share the large container; what the crowd sends from the drive of node 2 belongs on one of them.
    let cluster = Cluster::new(3);
    let container = cluster.container("large");
    cluster.set_ring(|partition| match partition == container.partition {
        true => vec![0, 1],
        false => vec![partition.0 % 2; 2],
    });
    cluster.configure(1, &[("agent_passes", "no")]);
    cluster.configure(2, &[("agent_memory_budget", "1 GiB")]);
    let _mounts = [0, 1].map(|device: usize| {
        let image = cluster.swift_dir().join(format!("d{device}.image"));
        Mount::ext4(&cluster.device(device), &image, DRIVE_BYTES)
    });
    let rows = fill(&cluster, &container);
    let cages = [Cage::new("calling", CAGE_BYTES), Cage::new("answering", CAGE_BYTES)];
    for (node, cage) in cages.iter().enumerate() {
        cluster.confine(node, &cage.door());
    }

    let full = moved(&cluster, &cages, "in full");
    assert_eq!((count(&full, "full"), count(&full, "delta")), (1, 0), "{full}");

    // The sync points are forgotten, and what the ledgers know, so that only the files can tell what is missing.
    for device in [0, 1] {
        fs::remove_dir_all(cluster.device(device).join("agent")).expect("the ledger is gone");
    }
    let (mut ours, mut theirs) = (cluster.open(0, &container), cluster.open(1, &container));
    let ids = [ours.info().unwrap().id, theirs.info().unwrap().id];
    ours.set_sync_point(&ids[1], RowId::NONE, Direction::Outgoing).unwrap();
    theirs.set_sync_point(&ids[0], RowId::NONE, Direction::Incoming).unwrap();
    let changed: Vec<Row> = (0..rows).step_by(30).map(|number| object(number, 2)).collect();
    ours.merge_rows(changed, None).unwrap();
    theirs.merge_rows(vec![row("only here", 1)], None).unwrap();
    drop((ours, theirs));

    let delta = moved(&cluster, &cages, "as a delta");
    assert_eq!((count(&delta, "full"), count(&delta, "delta")), (0, 1), "{delta}");
    assert!(count(&delta, "bytes_sent") < FILE_BYTES / 100, "{delta}");
    let mut wanted = cluster.open(0, &container).info().unwrap();
    wanted.hash.mix("only here", &row("only here", 1).created_at);
    assert_eq!(cluster.open(1, &container).info().unwrap().hash, wanted.hash, "rows are missing");
}

/// Both daemons run until the first has brought the container to the second; what it counted.
fn moved(cluster: &Cluster, cages: &[Cage; 2], how: &str) -> Value {
    let begun = Instant::now();
    let before = told(cluster).len();
    cluster.start(1);
    cluster.start(0);
    let watches = [0, 1].map(|node| Watch::start(cluster.process(node)));
    let crowd = Crowd::start(cluster, &[0, 1], 2, CONNECTIONS, how);
    let mut tally = Value::Null;
    let is_over = wait(MOVE_LIMIT, || {
        let shipped = |tally: &Value| count(tally, "full") + count(tally, "delta") > 0;
        let found = told(cluster).into_iter().skip(before).find(shipped);
        found.is_some_and(|found| {
            tally = found;
            true
        })
    });
    let exchanges = crowd.exchanges();
    let took = begun.elapsed();
    let peaks = [0, 1].map(|node: usize| watches[node].peak_kib());
    let kills = [0, 1].map(|node: usize| cages[node].kills());
    assert_eq!(
        kills,
        [1, 1].map(|_: u64| 0),
        "killed for want of memory, having had {peaks:?} KiB\n{}",
        cluster.logs()
    );
    assert!(is_over, "not done after {took:?}; anonymous at most {peaks:?} KiB\n{}", cluster.logs());
    crowd.end(cluster, 2);
    println!(
        "10 GB {how}, {:.1} s: at most {} KiB anonymous on the calling side, {} KiB on the answering side; charged with \
         page cache {:?} and {:?} MiB; {} bytes sent; meanwhile {exchanges} other exchanges, 64 connections idle and 64 \
         at work on either side",
        took.as_secs_f64(),
        peaks[0],
        peaks[1],
        cages[0].peak_bytes().map(|bytes| bytes >> 20),
        cages[1].peak_bytes().map(|bytes| bytes >> 20),
        count(&tally, "bytes_sent"),
    );
    assert!(exchanges > CONNECTIONS as u64, "the crowd did not get to work");
    assert!(peaks.iter().all(|peak| (1..=LIMIT_KIB).contains(peak)), "{how}: {peaks:?} KiB anonymous");
    for node in [0, 1] {
        let (status, _) = cluster.end(node, Signal::SIGTERM);
        assert!(status.success(), "node {node} ended with {status}\n{}", cluster.logs());
    }
    tally
}

/// What node 0's daemon counted in its passes so far.
fn told(cluster: &Cluster) -> Vec<Value> {
    cluster
        .log(0)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect()
}

fn count(tally: &Value, counter: &str) -> u64 {
    tally[counter].as_u64().unwrap_or(0)
}

/// Makes the large database: rows in five places, free pages between them.
fn fill(cluster: &Cluster, container: &Container) -> usize {
    drop(cluster.create(0, container));
    let path = database(&cluster.home(0, container));
    let mut rows = 0;
    for part in 1..=PARTS {
        let mut broker = cluster.open(0, container);
        for _ in 0..10 {
            broker
                .merge_rows((rows..rows + ROWS_AT_ONCE).map(|number| object(number, 1)).collect(), None)
                .unwrap();
            rows += ROWS_AT_ONCE;
        }
        drop(broker);
        sparse::lengthen(&path, FILE_BYTES / PARTS * part);
    }
    prove_sound(&cluster.home(0, container));
    rows
}

fn object(number: usize, at: u64) -> Row {
    row(&format!("photographs/2019/{number:09}.jpeg"), at)
}

/// SQLite finds nothing wrong with a database that was lengthened behind its back.
fn prove_sound(home: &HashDir) {
    let connection = rusqlite::Connection::open(database(home)).unwrap();
    let verdict: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

/// Were the limit not enforced, what follows would prove nothing.
fn prove_that_cages_kill() {
    let cage = Cage::new("proof", CAGE_BYTES);
    let glutton = "echo $$ > \"$0\"; exec head -c 80M /dev/zero | tail -c 80M";
    let status = Command::new("sh").args(["-c", glutton]).arg(cage.door()).stdout(Stdio::null()).status();
    assert!(cage.kills() > 0, "80 MiB fit into a cage of 64: {status:?}");
}

const PARTS: u64 = 5;
const ROWS_AT_ONCE: usize = 2000;
/// Half of what the whole step may take.
const MOVE_LIMIT: Duration = Duration::from_secs(180);
