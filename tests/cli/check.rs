//! `agent check` on a small cluster: what is in order is told so, and each thing that is not is found and named.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::Uid;
use serde_json::Value;
use swiftlet::ring::{DeviceId, FormatVersion, Ring};

use super::cluster::{Cluster, NodeIndex};
use super::{Said, agent_given};

/// Four nodes with a device each, three replicas of everything.
fn cluster() -> Cluster {
    let cluster = Cluster::new(4);
    cluster.configure_all(&[("agent_passes", "no"), ("node_timeout", "1"), ("conn_timeout", "1")]);
    for node in 0..4 {
        fs::create_dir_all(cluster.cache(node)).expect("made");
    }
    cluster
}

fn check(cluster: &Cluster, node: NodeIndex) -> Said {
    agent_given(&["check", "--config", &cluster.conf(node).display().to_string()])
}

/// The findings as subject, verdict and both texts in one.
fn findings(cluster: &Cluster, node: NodeIndex) -> Vec<(String, String, String)> {
    let said = agent_given(&["check", "--json", "--config", &cluster.conf(node).display().to_string()]);
    let all: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(said.stdout.lines().count(), 1);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = all["findings"].as_array().expect("a list");
    let findings: Vec<_> = list
        .iter()
        .map(|f| {
            (
                text(&f["subject"]),
                text(&f["verdict"]),
                format!("{} => {}", text(&f["what"]), text(&f["remedy"])),
            )
        })
        .collect();
    let worst = ["error", "warning", "ok"].into_iter().position(|word| findings.iter().any(|f| f.1 == word));
    let worst = worst.expect("there are some");
    assert_eq!(all["verdict"], ["error", "warning", "ok"][worst]);
    assert_eq!(said.code, Some([2, 1, 0][worst]), "{}\n{}", said.stdout, said.stderr);
    assert_eq!(said.stderr, "");
    findings
}

/// There is one finding of this verdict with these words in it.
fn has(findings: &[(String, String, String)], subject: &str, verdict: &str, part: &str) {
    let found = findings.iter().filter(|f| f.0 == subject && f.1 == verdict && f.2.contains(part)).count();
    assert_eq!(found, 1, "{subject} {verdict} {part:?} in\n{findings:#?}");
}

/// All but the machine, which is whatever it is.
fn bad(findings: &[(String, String, String)]) -> Vec<&(String, String, String)> {
    let not_chosen = |f: &&(String, String, String)| !f.2.contains("mount_check = false");
    findings.iter().filter(|f| f.0 != "machine" && f.1 != "ok").filter(not_chosen).collect()
}

#[test]
fn a_cluster_in_order_is_told_so() {
    let cluster = cluster();
    cluster.start_all();
    let findings = findings(&cluster, 0);
    assert!(bad(&findings).is_empty(), "{findings:#?}");
    has(&findings, "conf", "ok", "node0.conf is read");
    has(&findings, "conf", "ok", "a hash suffix of 6 bytes");
    has(&findings, "rings", "ok", "3 replicas of 2^5 partitions on 4 devices, ");
    has(&findings, "rings", "ok", "1 device of it here: d0");
    has(&findings, "drives", "ok", "d0: ");
    has(&findings, "peers", "ok", &format!("port {} of this node: its agent serves", cluster.port(0)));
    for node in 1..4 {
        let peer = format!(
            "127.0.0.1:{} (1 device) speaks version 5, as ours does; its clock is at most",
            cluster.port(node)
        );
        has(&findings, "peers", "ok", &peer);
    }
    has(&findings, "machine", "ok", "as the agent sees it");

    let said = check(&cluster, 0);
    assert_eq!(said.stderr, "");
    for heading in
        ["conf files\n  ok      ", "\n\nring\n  ok", "\n\ndrives\n", "\n\nagents\n", "\n\nthis node\n"]
    {
        assert!(said.stdout.contains(heading), "{heading:?} in\n{}", said.stdout);
    }
    assert!(said.stdout.lines().last().is_some_and(|line| line.ends_with(" errors")), "{}", said.stdout);
    let wide = |line: &&str| line.chars().count() > 80 && line.trim().contains(' ') && !line.contains('/');
    assert_eq!(said.stdout.lines().find(wide), None);
    assert!(!said.stdout.contains('\x1b'), "no colours where no terminal is");
}

/// Everything below a directory: how it looks from outside.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("readable").flatten() {
            let metadata = entry.metadata().expect("there");
            // Files without a name come and go in a directory, and its times with them.
            let time = metadata.is_file().then(|| metadata.modified().expect("a time"));
            if metadata.is_dir() {
                left.push(entry.path());
            }
            all.insert(entry.path(), (if metadata.is_file() { metadata.len() } else { 0 }, time));
        }
    }
    all
}

#[test]
fn a_check_changes_nothing() {
    let cluster = cluster();
    fs::create_dir_all(cluster.device(0).join("tmp")).expect("made");
    let home = cluster.swift_dir();
    let home = home.parent().expect("the cluster's own");
    let before = picture(home);
    check(&cluster, 0);
    check(&cluster, 1);
    assert_eq!(picture(home), before);
}

#[test]
fn agents_that_are_of_no_use_are_told_apart() {
    let cluster = cluster();
    cluster.set_ring(|partition| (0..4).map(|replica| (partition.0 + replica) % 4).collect());
    let listen = |node| TcpListener::bind(("127.0.0.1", cluster.port(node))).expect("its port is free");
    let (other, silent) = (listen(2), listen(3));
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a caller");
        stream.write_all(b"SWLT\0\x63\0\0").expect("it listens");
        let _ = stream.read_to_end(&mut Vec::new());
        other
    });
    let begun = Instant::now();
    let found = findings(&cluster, 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let named = |node: NodeIndex| format!("127.0.0.1:{} (1 device) ", cluster.port(node));
    has(&found, "peers", "ok", &format!("port {} of this node is free", cluster.port(0)));
    has(&found, "peers", "warning", &format!("{}cannot be reached", named(1)));
    has(&found, "peers", "error", &format!("{}speaks version 99 of the protocol", named(2)));
    has(&found, "peers", "warning", &format!("{}was silent or stuck for 1.0 s", named(3)));
    assert_eq!(bad(&found).len(), 3, "{found:#?}");
    drop((silent, speaker.join().expect("no panic")));

    // Something else has our own port, and does not answer.
    let _taken = listen(0);
    let found = findings(&cluster, 0);
    has(
        &found,
        "peers",
        "error",
        &format!("port {} of this node: whoever listens there was silent", cluster.port(0)),
    );
}

#[test]
fn drives_that_are_of_no_use_are_told_apart() {
    let cluster = Cluster::placed(&[(0, 1), (0, 1), (0, 1), (0, 1), (0, 1), (1, 1)]);
    cluster.set_apart();
    cluster.configure_all(&[("node_timeout", "1"), ("agent_passes", "no")]);
    cluster.mount(1, false);
    fs::remove_dir_all(cluster.device(2)).expect("it was there");
    let ledger = |device: usize| cluster.device(device).join("agent/ledger.db");
    for device in [3, 4] {
        fs::create_dir(cluster.device(device).join("agent")).expect("made");
    }
    fs::write(ledger(3), "nonsense").expect("written");
    // Whoever opens it waits for a writer, as long as it takes.
    nix::unistd::mkfifo(&ledger(4), Mode::S_IRWXU).expect("made");
    let begun = Instant::now();
    let found = findings(&cluster, 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    has(&found, "drives", "ok", "d0: ");
    has(&found, "drives", "error", "d1 is not mounted => mount it at ");
    // With mount_check, what is not there is not mounted either.
    has(&found, "drives", "error", "d2 is not mounted");
    has(&found, "drives", "warning", "d3: its ledger cannot be used: it is no database");
    has(&found, "drives", "error", "d4 has not answered within 4 s");
    assert_eq!(found.iter().filter(|f| f.0 == "drives").count(), 5, "{found:#?}");
    has(&found, "rings", "ok", "5 devices of it here: d0, d1, d2, d3, d4");
    cluster.configure(0, &[("fallocate_reserve", "100%")]);
    let found = findings(&cluster, 0);
    has(&found, "drives", "error", "d0 is full: ");
}

#[test]
fn conf_files_are_read_with_a_red_pen() {
    let cluster = cluster();
    let conf = |options: &[(&str, &str)]| {
        cluster.configure(0, options);
        findings(&cluster, 0)
    };
    let found =
        conf(&[("concurency", "4"), ("rsync_module", "x"), ("handoff_delete", "3"), ("run_pause", "1")]);
    has(&found, "conf", "warning", "concurency is no option of a replicator => write concurrency");
    has(&found, "conf", "warning", "rsync_module = x is not honoured => there is no rsync");
    has(&found, "conf", "warning", "run_pause is deprecated");
    has(&found, "rings", "warning", "handoff_delete is not below the ring's 3 replicas");
    let found = conf(&[("agent_pases", "no")]);
    has(&found, "conf", "error", "there is no option agent_pases => write agent_passes");
    assert!(found.iter().all(|f| ["conf", "machine"].contains(&f.0.as_str())), "{found:#?}");

    let directory = tempfile::tempdir().expect("a directory");
    let text = fs::read_to_string(cluster.conf(1)).expect("readable");
    fs::write(directory.path().join("20-b.conf"), "[container-replicator]\nper_diff = 7\n").expect("written");
    fs::write(directory.path().join("10-a.conf"), text).expect("written");
    let said = agent_given(&["check", "--json", "--config", &directory.path().display().to_string()]);
    assert!(said.stdout.contains("2 files are read in this order: "), "{}", said.stdout);
    let place = |name: &str| said.stdout.find(name).expect("named");
    assert!(place("10-a.conf") < place("20-b.conf"));
    let said = agent_given(&["check", "--config", "/no/such.conf"]).exits(2);
    assert!(said.stdout.contains("error   /no/such.conf: no conf file here"), "{}", said.stdout);
    assert!(said.stdout.ends_with(" errors\n") || said.stdout.ends_with(" 1 error\n"), "{}", said.stdout);
}

#[test]
fn a_ring_without_us_says_what_it_has() {
    let cluster = cluster();
    let path = cluster.swift_dir().join("container.ring.gz");
    let old = Ring::load(&path).expect("a ring");
    let with = |change: &dyn Fn(&mut swiftlet::ring::Device)| {
        let mut devices: Vec<_> = old.devices().cloned().collect();
        devices.iter_mut().for_each(change);
        let rows = (0..3).map(|replica| vec![DeviceId(replica); 32]).collect();
        let devices = devices.into_iter().map(Some).collect();
        let ring = Ring::from_rows(old.part_shift(), devices, rows).expect("a ring");
        ring.save(&path, FormatVersion::V2).expect("saved");
        findings(&cluster, 0)
    };
    let found = with(&|device| device.replication_port = 6001);
    has(&found, "rings", "error", "of this node at port 6001: set bind_port to the replication port");
    let found = with(&|device| device.replication_ip = "192.0.2.7".into());
    has(&found, "rings", "error", "it has 192.0.2.7:");
    has(&found, "drives", "warning", "none was looked at");
    let found = with(&|device| device.weight = if device.id.0 == 0 { 0.0 } else { 1.0 });
    has(&found, "rings", "ok", "so being emptied: d0");
    fs::write(&path, "no ring").expect("written");
    has(&findings(&cluster, 0), "rings", "error", "container.ring.gz");
}

#[test]
fn root_looks_with_the_eyes_of_the_agents_user() {
    if !Uid::effective().is_root() {
        return;
    }
    let cluster = cluster();
    let conf = |user: &str| {
        let text = fs::read_to_string(cluster.conf(0)).expect("readable");
        fs::write(cluster.conf(0), text.replace("user = root", &format!("user = {user}"))).expect("written");
        findings(&cluster, 0)
    };
    fs::set_permissions(cluster.conf(0), fs::Permissions::from_mode(0o600)).expect("set");
    let found = conf("nobody");
    has(&found, "machine", "ok", "all this is seen as user nobody, as the agent sees it");
    has(&found, "conf", "error", "node0.conf: the agent's user cannot read it");
    let denied = cluster.device(0).display().to_string();
    has(
        &found,
        "drives",
        "error",
        &format!("{denied}: nobody may not read, write and enter it => chown -R nobody: {denied}"),
    );
    has(&found, "machine", "error", "no pass can begin: recon_cache_path ");
    let ring = cluster.swift_dir().join("container.ring.gz");
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o600)).expect("set");
    cluster.configure(0, &[]);
    has(&conf("nobody"), "rings", "error", "container.ring.gz");
    cluster.configure(0, &[]);
    has(&conf("nosuchuser"), "machine", "error", "there is no user \"nosuchuser\"");
}

#[test]
fn swifts_replicator_beside_us_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("swift-container-replicator");
    fs::write(&script, "read line\n").expect("written");
    let mut replicator =
        Command::new("/bin/sh").arg(&script).stdin(Stdio::piped()).spawn().expect("a shell runs");
    let cluster = cluster();
    let found = findings(&cluster, 0);
    drop(replicator.stdin.take());
    replicator.wait().expect("it ends");
    let told: Vec<_> =
        found.iter().filter(|f| f.2.starts_with("Swift's container-replicator runs here")).collect();
    assert_eq!(told.len(), 1, "{found:#?}");
    assert!(told[0].1 == "warning" && told[0].2.contains(&replicator.id().to_string()), "{told:?}");
}
