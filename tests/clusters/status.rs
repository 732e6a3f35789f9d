//! What `agent status` says of a node while its peers come and go, drives vanish and what it keeps is damaged.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{ACCOUNT, Cluster, Container, Passed, database, listens, rows, wait};

/// What `agent status` says of a node, exit code included.
fn status(cluster: &Cluster, node: usize, arguments: &[&str]) -> Passed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command.arg("status").arg("--config").arg(cluster.conf(node)).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Passed::of(command)
}

/// The same as JSON, with this exit code.
#[track_caller]
fn said(cluster: &Cluster, node: usize, code: i32) -> Value {
    let passed = status(cluster, node, &["--json"]).ended(code);
    serde_json::from_str(&passed.stdout).unwrap_or_else(|error| panic!("{error}: {}", passed.stdout))
}

/// The page, which has to fit.
fn page(cluster: &Cluster, node: usize) -> String {
    let page = status(cluster, node, &[]).stdout;
    println!("{page}");
    for line in page.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    page
}

fn kinds(report: &Value) -> Vec<&str> {
    report["alarms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|alarm| alarm["kind"].as_str().expect("a word"))
        .collect()
}

/// The file of what a node keeps.
fn kept(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.state(node).join(format!("status-127.0.0.1-{}.json", cluster.port(node)))
}

/// What is kept is changed as if time had passed, or by a foreign hand.
fn edit(cluster: &Cluster, node: usize, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(kept(cluster, node)).expect("kept")).expect("JSON");
    change(&mut value);
    fs::write(kept(cluster, node), value.to_string()).expect("written");
}

/// Two nodes that only serve and hold the same.
fn pair() -> (Cluster, Container) {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no")]);
    let container = cluster.container("c");
    cluster.create(0, &container).merge_rows(rows("before", 0..5), None).expect("merged");
    cluster.start_all();
    cluster.once_all();
    thread::sleep(Duration::from_millis(2300));
    cluster.once_all();
    (cluster, container)
}

#[test]
fn a_peer_that_is_down_is_told_with_what_it_lacks_and_since_when() {
    let (cluster, container) = pair();
    let report = said(&cluster, 0, 0);
    assert_eq!((&report["in_sync"], &report["databases_behind"]), (&true.into(), &0.into()), "{report}");
    assert_eq!((&report["agent"]["running"], &report["agent"]["passes"]), (&true.into(), &false.into()));
    assert_eq!(report["agent"]["pid"], cluster.process(0));
    assert_eq!((&report["last_pass"]["once"], &report["last_pass"]["failure"]), (&true.into(), &0.into()));
    let since = report["since"].as_f64().expect("a time");
    assert!(page(&cluster, 0).starts_with("in sync since "));

    cluster.end(1, Signal::SIGTERM);
    cluster.open(0, &container).merge_rows(rows("after", 0..3), None).expect("merged");
    cluster.once(0, "").ended(1);
    cluster.once(0, "").ended(1);
    let report = said(&cluster, 0, 0);
    assert_eq!((&report["in_sync"], &report["databases_behind"]), (&false.into(), &1.into()), "{report}");
    assert!(report["since"].as_f64().expect("a time") > since);
    let peer = &report["devices"][0]["peers"][0];
    assert_eq!(
        (&peer["behind"], &peer["hindered"]["cause"]["kind"]),
        (&1.into(), &"unreachable".into()),
        "{peer}"
    );
    let (synced, hindered) = (peer["synced"].as_f64().expect("a time"), peer["hindered"]["since"].as_f64());
    assert!(synced < hindered.expect("a time"), "{peer}");
    assert_eq!(report["worst"][0]["container"], format!("{ACCOUNT}/c"), "{report}");
    assert_eq!(report["worst"][0]["with"][0]["kind"], "unreachable");
    let text = page(&cluster, 0);
    assert!(text.starts_with("not in sync since "), "{text}");
    for part in ["1 database behind on 1 peer", "peer does not answer", "AUTH_test/c", "cannot be reached"] {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part}: {text}");
    }
    let one = status(&cluster, 0, &["--json", ACCOUNT, "c"]).ended(1);
    let one: Value = serde_json::from_str(&one.stdout).expect("JSON");
    let there = &one["places"][0]["peers"][0];
    assert_eq!((&there["state"], &there["kind"]), (&"differs".into(), &"unreachable".into()), "{one}");
    assert_eq!(one["places"][0]["object_count"], 8);

    // What does not go away by itself needs a person, and what comes near reclaim_age does before that.
    edit(&cluster, 0, |kept| {
        let peer = &mut kept["devices"]["0"]["peers"]["1"];
        for time in [&["hindered", "since"][..], &["least_at"]] {
            let at = time.iter().fold(&mut *peer, |value, name| &mut value[*name]);
            *at = (at.as_f64().expect("a time") - 7200.0).into();
        }
        peer["rounds_since"] = 3.into();
    });
    let report = said(&cluster, 0, 1);
    assert_eq!(kinds(&report), ["stuck"]);
    assert_eq!(report["alarms"][0]["about"], format!("127.0.0.1:{}", cluster.port(1)));
    edit(&cluster, 0, |kept| {
        let synced = &mut kept["devices"]["0"]["peers"]["1"]["synced"];
        *synced = (synced.as_f64().expect("a time") - 4.0 * 86400.0).into();
    });
    assert_eq!(kinds(&said(&cluster, 0, 1)), ["reclaim_age"]);
    page(&cluster, 0);

    cluster.start(1);
    cluster.once(0, "").ended(0);
    let report = said(&cluster, 0, 0);
    assert_eq!((&report["in_sync"], &report["databases_behind"]), (&true.into(), &0.into()), "{report}");
    assert!(report["since"].as_f64().expect("a time") > hindered.expect("a time"));
    assert_eq!(
        (&report["worst"], &report["devices"][0]["peers"][0]["hindered"]),
        (&Value::Array(vec![]), &Value::Null)
    );
    let one = status(&cluster, 0, &[ACCOUNT, "c"]).ended(0);
    let stands = one.stdout.contains("agrees") || one.stdout.contains("was brought everything");
    assert!(stands && one.stdout.contains("nobody was asked"), "{}", one.stdout);
    let other = status(&cluster, 1, &[&format!("{ACCOUNT}/nowhere")]).ended(0);
    assert!(other.stdout.contains("primary, and not here yet"), "{}", other.stdout);
}

#[test]
fn a_daemon_is_told_by_its_process_and_not_by_an_old_file() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("interval", "1")]);
    let containers = cluster.containers("c", 3);
    for container in &containers {
        drop(cluster.create(0, container));
    }
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(30));
    let in_sync = || said(&cluster, 0, 0)["in_sync"] == true;
    assert!(wait(Duration::from_secs(30), in_sync), "{}", page(&cluster, 0));
    let report = said(&cluster, 0, 0);
    assert_eq!(
        (&report["agent"]["pid"], &report["agent"]["passes"]),
        (&cluster.process(0).into(), &true.into())
    );
    assert!(report["agent"]["anon_kib"].as_u64() > Some(0), "{report}");
    assert_eq!((&report["last_pass"]["once"], &report["last_once"]), (&false.into(), &Value::Null));

    cluster.end(0, Signal::SIGKILL);
    assert!(!listens(cluster.port(0)));
    let report = said(&cluster, 0, 1);
    assert_eq!(
        (kinds(&report), &report["agent"]["pid"], &report["doing"]),
        (vec!["no_agent"], &Value::Null, &Value::Null)
    );
    let old: Value = serde_json::from_slice(&fs::read(kept(&cluster, 0)).expect("kept")).expect("JSON");
    assert!(old["daemon"].is_object(), "it was killed, so its note is still there");
    cluster.end(1, Signal::SIGTERM);
    let new: Value = serde_json::from_slice(&fs::read(kept(&cluster, 1)).expect("kept")).expect("JSON");
    assert_eq!(new["daemon"], Value::Null);
}

#[test]
fn what_is_kept_may_be_damaged_foreign_or_nowhere() {
    let (cluster, _) = pair();
    for text in ["", "{\"version\":1,\"begun\"", "\u{0}\u{0}", "{\"version\":99}"] {
        fs::write(kept(&cluster, 0), text).expect("written");
        let report = said(&cluster, 0, 0);
        assert_eq!((kinds(&report), &report["in_sync"]), (vec![], &Value::Null), "{report}");
        assert!(report["notes"][0].as_str().expect("a note").contains("status-127.0.0.1"), "{report}");
        let passed = cluster.once(0, "").ended(0).said("it is begun anew");
        assert_eq!(passed.count("failure"), 0);
        assert_eq!(said(&cluster, 0, 0)["in_sync"], true);
    }
    edit(&cluster, 0, |kept| kept["version"] = 99.into());
    let report = said(&cluster, 0, 0);
    assert!(report["notes"][0].as_str().expect("a note").contains("it is of version 99"), "{report}");
    assert_eq!(report["last_pass"], Value::Null, "what another version means is not guessed");
    cluster.once(0, "").ended(0).said("it is of version 99, we know 1; it is begun anew");
    // A directory that cannot be.
    let file = cluster.conf(0).display().to_string();
    cluster.configure(0, &[("agent_state_path", &format!("{file}/state"))]);
    let passed = cluster.once(0, "").ended(0).said("agent_state_path names another directory");
    assert_eq!(passed.stderr.matches("agent_state_path").count(), 1, "{}", passed.stderr);
    let report = said(&cluster, 0, 0);
    assert_eq!((&report["kept_since"], &report["last_pass"]), (&Value::Null, &Value::Null));
    assert!(report["devices"][0]["behind"] == 0 && report["agent"]["running"] == true, "{report}");
}

#[test]
fn a_drive_that_is_not_mounted_and_one_with_a_damaged_database_are_told() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no")]);
    cluster.set_apart();
    let container = cluster.container("c");
    cluster.create(0, &container).merge_rows(rows("before", 0..5), None).expect("merged");
    cluster.start_all();
    cluster.once_all();
    assert_eq!(said(&cluster, 0, 0)["in_sync"], true);

    cluster.mount(0, false);
    let report = said(&cluster, 0, 1);
    assert_eq!((kinds(&report), &report["in_sync"]), (vec!["drive"], &false.into()), "{report}");
    cluster.once(0, "").ended(1);
    let report = said(&cluster, 0, 1);
    assert_eq!(report["devices"][0]["trouble"]["cause"]["kind"], "drive_unusable", "{report}");
    assert!(page(&cluster, 0).contains("is not mounted"));
    cluster.mount(0, true);
    cluster.once(0, "").ended(0);
    assert_eq!(said(&cluster, 0, 0)["in_sync"], true);

    // The peer's.
    cluster.mount(1, false);
    cluster.open(0, &container).merge_rows(rows("late", 0..2), None).expect("merged");
    cluster.once(0, "").ended(1);
    let report = said(&cluster, 0, 0);
    assert_eq!(report["devices"][0]["peers"][0]["hindered"]["cause"]["kind"], "peer_not_mounted", "{report}");
    assert_eq!(report["worst"][0]["with"][0]["kind"], "peer_not_mounted");
    assert_eq!(
        (&report["worst"][0]["attempts"], &report["worst"][0]["container"]),
        (&1.into(), &"AUTH_test/c".into())
    );
    page(&cluster, 0);
    cluster.mount(1, true);
    cluster.once(0, "").ended(0);
    assert_eq!(said(&cluster, 0, 0)["in_sync"], true);

    thread::sleep(Duration::from_millis(50));
    fs::write(database(&cluster.home(0, &container)), "no database ".repeat(1000)).expect("damaged");
    cluster.once(0, "").ended(1);
    let report = said(&cluster, 0, 1);
    assert_eq!((kinds(&report), &report["in_sync"]), (vec!["quarantined"], &false.into()), "{report}");
    assert_eq!(
        (&report["devices"][0]["quarantined"], &report["worst"][0]["with"][0]["kind"]),
        (&1.into(), &"damaged".into())
    );
    cluster.once(1, "").ended(0);
    cluster.once(0, "").ended(0);
    let report = said(&cluster, 0, 1);
    assert_eq!(
        (kinds(&report), &report["in_sync"], &report["worst"]),
        (vec!["quarantined"], &true.into(), &Value::Array(vec![]))
    );
}
