//! The ledger, through whole passes: what did not change is not opened, and whatever changes is seen however it comes.
//!
//! Two daemons only serve; the third node runs its passes as from cron. Each test begins with a cluster that is quiet: its
//! last pass opened nothing, on any node, so that a change that is seen afterwards was not seen by chance.

#[path = "../cluster/mod.rs"]
mod cluster;

mod changes;
mod damage;
mod peers;
mod points;
mod time;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use cluster::{Cluster, Container, rows};
use swiftlet::drive::{DeviceName, Drive};
use swiftlet::hash_path::PartShift;
use swiftlet::ledger::{Entry, Key, Ledger, Terms};

/// A file that was changed within two seconds is not trusted, so only later can a pass be quiet.
const GRAIN: Duration = Duration::from_millis(2300);

/// `agent_full_check_interval`, as long as nobody sets it.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Three nodes that each hold all of some containers, and nothing left to do.
fn quiet(containers: usize) -> (Cluster, Vec<Container>) {
    quiet_with(containers, &[])
}

fn quiet_with(containers: usize, options: &[(&str, &str)]) -> (Cluster, Vec<Container>) {
    let cluster = Cluster::new(3);
    let mut all = vec![("agent_passes", "no"), ("databases_per_second", "0")];
    all.extend(options);
    cluster.configure_all(&all);
    let containers = cluster.containers("quiet", containers);
    for container in &containers {
        let mut broker = cluster.create(0, container);
        broker.merge_rows(rows("before", 0..5), None).expect("merged");
    }
    cluster.start_all();
    settle(&cluster);
    for container in &containers {
        assert_eq!(cluster.disagreement(container), None, "{}", cluster.logs());
    }
    (cluster, containers)
}

/// Passes until each node has one that opens nothing.
fn settle(cluster: &Cluster) {
    for _ in 0..8 {
        cluster.once_all();
        thread::sleep(GRAIN);
        let opened: u64 = (0..3).map(|node| cluster.once(node, "").ended(0).count("opened")).sum();
        if opened == 0 {
            return;
        }
    }
    panic!("passes go on opening databases that nobody changes\n{}", cluster.logs());
}

/// After a change, one pass of each node brings the replicas together, and after that there is quiet again.
#[track_caller]
fn heals(cluster: &Cluster, containers: &[Container]) {
    cluster.once_all();
    for container in containers {
        assert_eq!(cluster.disagreement(container), None, "{}", cluster.logs());
    }
    settle(cluster);
}

/// Where a device's ledger is.
fn ledger(cluster: &Cluster, device: usize) -> PathBuf {
    cluster.device(device).join("agent/ledger.db")
}

/// Changes what the ledger of a device remembers of a database. Whoever opens a ledger
/// on other terms than its agent makes it anew, so the interval must be the agent's.
fn alter(
    cluster: &Cluster,
    device: usize,
    container: &Container,
    full_check_interval: Duration,
    change: impl FnOnce(Entry) -> Entry,
) {
    let home = cluster.device(device);
    let name = DeviceName::new(home.file_name().expect("a name").to_string_lossy()).expect("a name");
    let drive = Drive::open(home.parent().expect("devices"), &name, false).expect("there");
    let terms = Terms {
        part_shift: PartShift::new(32 - cluster::PART_POWER).expect("a shift"),
        reclaim_age: Duration::from_secs(604_800),
        full_check_interval,
    };
    let ledger = Ledger::open(&drive, terms).expect("opened");
    let key = Key::new(cluster.home(device, container).hash(), terms.part_shift);
    let entry = ledger.entry(key).expect("read").expect("there");
    ledger.update(&[(key, Some(change(entry)))]).expect("written");
}

/// Runs scenarios side by side, and says which of them failed.
fn all_at_once(scenarios: &[(&str, fn())]) {
    let failed: Vec<&str> = thread::scope(|scope| {
        let running: Vec<_> = scenarios
            .iter()
            .map(|(name, scenario)| {
                let thread = thread::Builder::new().name((*name).to_owned());
                (*name, thread.spawn_scoped(scope, scenario).expect("a thread"))
            })
            .collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().err().map(|_| name)).collect()
    });
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// Whatever changes is seen, a damaged ledger costs a look, peers are not what their ledgers say, differences start at the
/// last agreement, and time changes things too.
#[test]
fn never_wrong_only_sometimes_forgetful() {
    all_at_once(&[changes::ALL, damage::ALL, peers::ALL, points::ALL, time::ALL].concat());
}

#[test]
fn what_nobody_changed_is_not_opened_and_not_spoken_of() {
    let (cluster, containers) = quiet(40);
    for node in 0..3 {
        let passed = cluster.once(node, "").ended(0);
        assert_eq!(passed.count("opened"), 0);
        assert_eq!(passed.count("attempted"), containers.len() as u64);
        assert_eq!(passed.count("success"), 2 * containers.len() as u64);
        assert_eq!(passed.count("no_change"), 2 * containers.len() as u64);
        let bytes = passed.count("bytes_sent") + passed.count("bytes_received");
        assert!(bytes < 2 * 150, "{bytes} bytes to two peers");
        let ledger = rusqlite::Connection::open(ledger(&cluster, node)).expect("opened");
        let unlisted = "SELECT count(*) FROM part WHERE number NOT IN (SELECT number FROM listing)";
        let unlisted: u32 = ledger.query_row(unlisted, [], |row| row.get(0)).expect("a number");
        assert_eq!(unlisted, 0, "partitions whose directories are read again");
    }
}

#[test]
fn what_one_change_costs_does_not_grow_with_what_did_not_change() {
    let (cluster, containers) = quiet(60);
    cluster.open(0, &containers[7]).merge_rows(rows("new", 0..1), None).expect("merged");
    let passed = cluster.once(0, "").ended(0);
    assert!(passed.count("opened") <= 2, "{}", passed.stdout);
    assert_eq!(passed.count("rows_sent"), 2, "{}", passed.stdout);
    let bytes = passed.count("bytes_sent") + passed.count("bytes_received");
    assert!(bytes < 8000, "{bytes} bytes");
    assert_eq!(cluster.disagreement(&containers[7]), None);
}
