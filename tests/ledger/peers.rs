//! What a peer's ledger says is not what the peer has: it lost its disk, or its ledger lies.

use std::fs;
use std::time::Duration;

use swiftlet::ledger::Entry;

use super::cluster::{database, rows};
use super::{A_DAY, alter, heals, quiet, quiet_with, settle};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    (
        "a_peer_that_lost_its_databases_but_not_its_ledger_gets_them_back",
        a_peer_that_lost_its_databases_but_not_its_ledger_gets_them_back,
    ),
    ("a_lie_in_a_ledger_lasts_until_the_full_look", a_lie_in_a_ledger_lasts_until_the_full_look),
    (
        "whoever_has_his_turn_brings_what_a_ledger_says_the_peer_has",
        whoever_has_his_turn_brings_what_a_ledger_says_the_peer_has,
    ),
    (
        "whoever_has_his_turn_finds_out_a_peer_whose_ledger_lies",
        whoever_has_his_turn_finds_out_a_peer_whose_ledger_lies,
    ),
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
    // As if it had looked, and found what was there before.
    alter(&cluster, 1, &containers[0], Duration::from_secs(30), |entry| Entry { seen: Some(seen), ..entry });
    assert!(
        super::cluster::wait(Duration::from_secs(60), || {
            cluster.once_all();
            cluster.disagreement(&containers[0]).is_none()
        }),
        "{}",
        cluster.logs()
    );
    assert_eq!(cluster.replica(0, &containers[0]).expect("there").rows.len(), 6);
}

fn whoever_has_his_turn_finds_out_a_peer_whose_ledger_lies() {
    let (cluster, containers) = quiet(1);
    let home = cluster.home(1, &containers[0]);
    cluster.open(1, &containers[0]).merge_rows(rows("unheard", 0..1), None).expect("merged");
    let seen = home.sight().expect("seen").expect("there").fingerprint;
    alter(&cluster, 1, &containers[0], A_DAY, |entry| Entry { seen: Some(seen), ..entry });
    cluster.once_all();
    assert!(cluster.disagreement(&containers[0]).is_some(), "nobody can know yet");
    alter(&cluster, 0, &containers[0], A_DAY, |entry| Entry { due_secs: 1, ..entry });
    // It has nothing that the peer lacks; the peer does, once it has looked again because somebody asked.
    cluster.once(0, "").ended(0);
    heals(&cluster, &containers);
}

fn whoever_has_his_turn_brings_what_a_ledger_says_the_peer_has() {
    let (cluster, containers) = quiet(1);
    let (home, file) = (cluster.home(1, &containers[0]), database(&cluster.home(1, &containers[0])));
    let older = fs::read(&file).expect("read");
    for device in 0..3 {
        cluster.open(device, &containers[0]).merge_rows(rows("later", 0..1), None).expect("merged");
    }
    settle(&cluster);
    fs::write(&file, older).expect("restored");
    let seen = home.sight().expect("seen").expect("there").fingerprint;
    alter(&cluster, 1, &containers[0], A_DAY, |entry| Entry { seen: Some(seen), ..entry });
    alter(&cluster, 0, &containers[0], A_DAY, |entry| Entry { due_secs: 1, ..entry });
    assert!(cluster.disagreement(&containers[0]).is_some());
    cluster.once(0, "").ended(0);
    assert_eq!(cluster.disagreement(&containers[0]), None, "{}", cluster.logs());
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
