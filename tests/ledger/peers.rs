//! What a peer's ledger says is not what the peer has: it lost its disk, or its ledger lies.

use std::fs;

use super::cluster::{database, rows};
use super::{heals, ledger, quiet, quiet_with, settle};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    (
        "a_peer_that_lost_its_databases_but_not_its_ledger_gets_them_back",
        a_peer_that_lost_its_databases_but_not_its_ledger_gets_them_back,
    ),
    ("a_lie_in_a_ledger_lasts_until_the_full_look", a_lie_in_a_ledger_lasts_until_the_full_look),
    ("a_peer_that_was_away_hears_of_all_that_changed", a_peer_that_was_away_hears_of_all_that_changed),
    (
        "a_database_that_others_deleted_is_not_brought_back_by_an_agreement",
        a_database_that_others_deleted_is_not_brought_back_by_an_agreement,
    ),
];

fn a_peer_that_lost_its_databases_but_not_its_ledger_gets_them_back() {
    let (cluster, containers) = quiet(4);
    fs::remove_dir_all(cluster.device(2).join("containers")).expect("removed");
    cluster.once(0, "").ended(0);
    for container in &containers {
        assert_eq!(cluster.disagreement(container), None, "{}", cluster.logs());
    }
    heals(&cluster, &containers);
}

fn a_lie_in_a_ledger_lasts_until_the_full_look() {
    let (cluster, containers) = quiet_with(3, &[("agent_full_check_interval", "30")]);
    // The liar: device 1 holds a row that its ledger knows nothing of, for its ledger claims to have looked since.
    let home = cluster.home(1, &containers[0]);
    cluster.open(1, &containers[0]).merge_rows(rows("unheard", 0..1), None).expect("merged");
    let seen = home.sight().expect("seen").expect("there").fingerprint;
    swear(&ledger(&cluster, 1), &home, seen);
    assert!(
        super::cluster::wait(std::time::Duration::from_secs(60), || {
            cluster.once_all();
            cluster.disagreement(&containers[0]).is_none()
        }),
        "{}",
        cluster.logs()
    );
    assert_eq!(cluster.replica(0, &containers[0]).expect("there").rows.len(), 6);
}

/// Writes into a ledger that a database was seen as it looks now, and found as it was before.
fn swear(ledger: &std::path::Path, home: &swiftlet::drive::HashDir, seen: [u8; 16]) {
    use std::time::Duration;
    use swiftlet::drive::{DeviceName, Drive};

    use swiftlet::hash_path::PartShift;
    use swiftlet::ledger::{Entry, Key, Ledger, Terms};
    let device = ledger.ancestors().nth(2).expect("a device");
    let name = DeviceName::new(device.file_name().expect("a name").to_string_lossy()).expect("a name");
    let drive = Drive::open(device.parent().expect("devices"), &name, false).expect("there");
    let terms = Terms {
        part_shift: PartShift::new(32 - super::cluster::PART_POWER).expect("a shift"),
        reclaim_age: Duration::from_secs(604_800),
        full_check_interval: Duration::from_secs(30),
    };
    let ledger = Ledger::open(&drive, terms).expect("opened");
    let key = Key::new(home.hash(), terms.part_shift);
    let entry = ledger.entry(key).expect("read").expect("there");
    ledger.update(&[(key, Some(Entry { seen: Some(seen), ..entry }))]).expect("written");
}

fn a_peer_that_was_away_hears_of_all_that_changed() {
    let (cluster, containers) = quiet(5);
    cluster.end(1, nix::sys::signal::Signal::SIGKILL);
    for (number, container) in containers.iter().enumerate() {
        let from = number as u64;
        cluster.open(0, container).merge_rows(rows("meanwhile", from..from + 1), None).expect("merged");
    }
    cluster.once(0, "").ended(1);
    cluster.start(1);
    heals(&cluster, &containers);
}

fn a_database_that_others_deleted_is_not_brought_back_by_an_agreement() {
    let (cluster, containers) = quiet(2);
    let path = database(&cluster.home(0, &containers[0]));
    fs::remove_file(&path).expect("removed");
    heals(&cluster, &containers);
    assert!(path.exists(), "two replicas are more than one loss");
    settle(&cluster);
}
