//! `agent status` before any pass, without a ring, and with what it cannot understand.

use super::cluster::Cluster;
use super::{Said, agent, agent_given};

fn status(cluster: &Cluster, words: &[&str]) -> Said {
    let conf = cluster.conf(0).display().to_string();
    agent_given(&[&["status", "--config", &conf], words].concat())
}

#[test]
fn help_says_how_it_exits_and_fits() {
    let help = agent("status --help")
        .exits(0)
        .prints("Exit status")
        .prints("[ACCOUNT] [CONTAINER]")
        .prints("--json");
    assert!(help.stdout.lines().all(|line| line.chars().count() <= 80), "{}", help.stdout);
    agent("--help").exits(0).prints("  status  ");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    agent("status --config /nowhere.conf").exits(2).complains("no conf file here");
    agent("status AUTH_a").exits(2).complains("name a container too");
    agent("status AUTH_a/").exits(2).complains("name a container too");
    agent("status a/b c").exits(2).complains("slash");
    agent("status a b/c").exits(2).complains("slash");
    agent("status --jsonn").exits(2).complains("'--jsonn'");
    let cluster = Cluster::new(1);
    std::fs::write(cluster.swift_dir().join("container.ring.gz"), "no ring").expect("written");
    status(&cluster, &[]).exits(2).complains("container.ring.gz");
}

#[test]
fn before_any_pass_little_is_known_and_nothing_is_made() {
    let cluster = Cluster::new(2);
    let container = cluster.container("c\n\u{1b}[2J");
    drop(cluster.create(0, &container));
    let said = status(&cluster, &[]).exits(1);
    let said = said.prints("not known yet: no pass has gone round all of d0\n").prints("no agent is running");
    let said = said.prints("its ledger cannot be read: there is none yet");
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 80), "{}", said.stdout);
    let json = status(&cluster, &["--json"]).exits(1);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("one object");
    assert_eq!((&json["in_sync"], &json["needs_person"]), (&serde_json::Value::Null, &true.into()));
    let said = status(&cluster, &["AUTH_test", &container.name])
        .exits(0)
        .prints("c#012#033[2J")
        .prints("d0 (primary)");
    said.prints("not known; nothing is in the way");
    assert!(!cluster.device(0).join("agent").exists(), "a ledger was made");
    assert!(!cluster.state(0).exists() && !cluster.cache(0).exists(), "something is kept, or locked");
}
