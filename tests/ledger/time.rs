//! Time alone changes things: what comes of age is reclaimed though nobody touched the file.

use std::time::{Duration, SystemTime};

use swiftlet::timestamp::Timestamp;

use super::cluster::{Cluster, Container, row, wait};
use super::{GRAIN, quiet_with};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    ("a_tombstone_goes_when_its_age_comes", a_tombstone_goes_when_its_age_comes),
    ("a_deleted_database_goes_when_its_age_comes", a_deleted_database_goes_when_its_age_comes),
];

const AGE: &str = "15";

/// Lets every node look into what changed, late enough to trust it.
fn known(cluster: &Cluster) {
    std::thread::sleep(GRAIN);
    cluster.once_all();
}

fn aging() -> (Cluster, Vec<Container>) {
    quiet_with(2, &[("reclaim_age", AGE)])
}

fn a_tombstone_goes_when_its_age_comes() {
    let (cluster, containers) = aging();
    let now = Timestamp::at(SystemTime::now());
    for device in 0..3 {
        let mut gone = row("before-000001", 0);
        gone.created_at = now.normal();
        gone.deleted = 1;
        cluster.open(device, &containers[0]).merge_rows(vec![gone], None).expect("merged");
    }
    known(&cluster);
    let tombstones = |device: usize| cluster.open(device, &containers[0]).tombstones().expect("counted");
    assert_eq!(tombstones(0), 1, "it is not of age yet");
    let reclaimed = wait(Duration::from_secs(40), || {
        cluster.once_all();
        (0..3).all(|device| tombstones(device) == 0)
    });
    assert!(reclaimed, "{}", cluster.logs());
    cluster.once_all();
    assert_eq!(cluster.disagreement(&containers[0]), None);
}

fn a_deleted_database_goes_when_its_age_comes() {
    let (cluster, containers) = aging();
    let now = Timestamp::at(SystemTime::now());
    for device in 0..3 {
        let mut broker = cluster.open(device, &containers[1]);
        let gone: Vec<_> = (0..5)
            .map(|number| {
                let mut row = row(&format!("before-{number:06}"), 0);
                row.created_at = now.normal();
                row.deleted = 1;
                row
            })
            .collect();
        broker.merge_rows(gone, None).expect("merged");
        broker.delete_db(now).expect("deleted");
        let info = broker.info().expect("read");
        let told = swiftlet::broker::AccountReport {
            put_timestamp: info.put_timestamp,
            delete_timestamp: info.delete_timestamp,
            object_count: info.count,
            bytes_used: info.bytes_used,
        };
        broker.set_reported(&told).expect("written");
    }
    known(&cluster);
    assert!(cluster.home(0, &containers[1]).dir().exists());
    // Of age on all nodes before any of them looks: who is first would be brought a new one by who is late.
    std::thread::sleep(Duration::from_secs(17));
    let removed = wait(Duration::from_secs(40), || {
        cluster.once_all();
        (0..3).all(|device| !cluster.home(device, &containers[1]).dir().exists())
    });
    assert!(removed, "{}", cluster.logs());
}
