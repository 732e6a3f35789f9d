//! What a daemon keeps when it has nothing to do: anonymous memory of at most 8 MiB, also after it had much to do.

use std::fs;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::cluster::{ACCOUNT, Cluster, Container, database, row, wait};
use crate::crowd::Crowd;
use crate::watch::anonymous_kib;

const LIMIT_KIB: u64 = 8 << 10;
const DATABASES: usize = 10_000;
const CONNECTIONS: usize = 64;

#[test]
#[ignore = "makes 20,000 databases: tests/evidence/memory.sh"]
fn an_idle_daemon_has_8_mebibytes_whatever_it_did_before() {
    let cluster = Cluster::new(3);
    // The databases are on nodes 0 and 1; a crowd comes from node 2 to node 0.
    cluster.set_ring(|partition| if partition.0 < 16 { vec![0, 1] } else { vec![0, 0] });
    cluster.configure(0, &[("interval", "30")]);
    cluster.configure(1, &[("agent_passes", "no")]);
    make(&cluster, &cluster.containers("many", DATABASES * 2));
    cluster.start(1);
    cluster.start(0);
    let process = cluster.process(0);
    let started = settled(process);
    let passed = wait(Duration::from_secs(120), || last(&cluster).is_some());
    assert!(passed, "no pass\n{}", cluster.logs());
    let tally = last(&cluster).unwrap_or_default();
    assert!(tally["attempted"].as_u64() >= Some(DATABASES as u64 / 2), "{tally}");
    let after_pass = settled(process);
    let crowd = Crowd::start(&cluster, &[0], 2, CONNECTIONS, "crowd");
    thread::sleep(Duration::from_secs(3));
    let among = anonymous_kib(process);
    crowd.end(&cluster, 2);
    let after_crowd = settled(process);
    println!(
        "anonymous: {started} KiB after the start, {after_pass} after a pass over {} databases, {among} among 128 \
         connections, {after_crowd} after they are gone",
        tally["attempted"],
    );
    for (when, kib) in [("start", started), ("pass", after_pass), ("crowd", after_crowd)] {
        assert!((1..=LIMIT_KIB).contains(&kib), "{kib} KiB after the {when}");
    }
}

/// What it has once it has come to rest.
fn settled(process: u32) -> u64 {
    thread::sleep(Duration::from_secs(7));
    anonymous_kib(process)
}

fn last(cluster: &Cluster) -> Option<Value> {
    cluster.log(0).lines().filter_map(|line| serde_json::from_str(line).ok()).rfind(Value::is_object)
}

/// The same database for each container that belongs on both nodes, and a row more in every tenth on the first.
fn make(cluster: &Cluster, containers: &[Container]) {
    let mut template: Option<Vec<u8>> = None;
    let shared = containers.iter().filter(|container| cluster.primaries(container) == [0, 1]);
    for (number, container) in shared.enumerate() {
        for device in [0, 1] {
            let home = cluster.home(device, container);
            let Some(bytes) = &template else {
                cluster.create(device, container).merge_rows(vec![row("a", 1)], None).unwrap();
                template = fs::read(database(&home)).ok();
                continue;
            };
            home.create().unwrap();
            fs::write(database(&home), bytes).unwrap();
            let connection = Connection::open(database(&home)).unwrap();
            connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").unwrap();
            let id = format!("{number}-{device}");
            connection
                .execute(
                    "UPDATE container_info SET account = ?, container = ?, id = ?",
                    [ACCOUNT, container.name.as_str(), id.as_str()],
                )
                .unwrap();
        }
        if number % 10 == 3 {
            cluster.open(0, container).merge_rows(vec![row("b", 2)], None).unwrap();
        }
    }
}
