//! What an operator sees whose conf file, ring or peers are not as they should be.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use swiftlet::ring::Ring;
use swiftlet::ring::format::FormatVersion;

use crate::cluster::{Cluster, Passed, rows};

/// What `--once` and the daemon both say before they give up.
#[track_caller]
fn refuse(cluster: &Cluster, parts: &[&str]) {
    for arguments in ["--once", "-v"] {
        let passed = Passed::of(cluster.agent(0, arguments)).ended(2);
        assert_eq!(passed.stdout, "", "agent {arguments}");
        assert!(passed.stderr.contains("agent: "), "{}", passed.stderr);
        for part in parts {
            assert!(passed.stderr.contains(part), "agent {arguments}: no {part:?} in\n{}", passed.stderr);
        }
    }
}

#[test]
fn a_bad_conf_file_is_named_with_what_is_wrong() {
    let cluster = Cluster::new(1);
    for (option, value, expected) in [
        ("concurrency", "many", "concurrency = \"many\": expected a whole number"),
        ("interval", "-3", "interval = \"-3\": expected a number not below 0"),
        ("node_timeout", "0", "node_timeout = \"0\": expected seconds above 0"),
        ("agent_passes", "perhaps", "agent_passes = \"perhaps\": expected yes or no"),
        ("agent_memory", "1", "agent_memory: no such option"),
        ("agent_port_offset", "65000", "above the last port"),
    ] {
        let cluster = Cluster::new(1);
        cluster.configure(0, &[(option, value)]);
        refuse(&cluster, &[expected]);
    }
    fs::write(cluster.conf(0), "[DEFAULT]\nswift_dir = /\n").expect("written");
    refuse(&cluster, &["node0.conf", "no section [container-replicator]"]);
    fs::write(cluster.conf(0), "[container-replicator\n").expect("written");
    refuse(&cluster, &["node0.conf:1"]);
    fs::write(cluster.conf(0), b"[container-replicator]\nuser = \xff\n").expect("written");
    refuse(&cluster, &["node0.conf:2: not UTF-8"]);
    fs::remove_file(cluster.conf(0)).expect("removed");
    refuse(&cluster, &["node0.conf", "--config PATH"]);
    fs::create_dir(cluster.conf(0)).expect("made");
    refuse(&cluster, &["no *.conf in this directory"]);
}

#[test]
fn a_cluster_without_its_secret_is_not_served() {
    let cluster = Cluster::new(1);
    let secret = cluster.swift_dir().join("swift.conf");
    fs::write(&secret, "[swift-hash]\n").expect("written");
    refuse(&cluster, &["swift.conf", "swift_hash_path_suffix"]);
}

#[test]
fn a_bad_ring_is_named_with_what_is_wrong() {
    let cluster = Cluster::new(1);
    let path = cluster.swift_dir().join("container.ring.gz");
    let good = fs::read(&path).expect("there is one");
    fs::write(&path, &good[..good.len() / 2]).expect("written");
    refuse(&cluster, &["container.ring.gz", "cut short", "copy the ring again"]);
    fs::write(&path, "").expect("written");
    refuse(&cluster, &["container.ring.gz", "cut short"]);
    fs::write(&path, b"\x80\x02}q\x00(U\x07devices").expect("written");
    refuse(&cluster, &["container.ring.gz", "not gzip"]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    fs::write(&path, flipped).expect("written");
    refuse(&cluster, &["container.ring.gz"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"RING....").expect("packed");
    fs::write(&path, packed.finish().expect("packed")).expect("written");
    refuse(&cluster, &["begins with \"RING\", not \"R1NG\""]);
    fs::remove_file(&path).expect("removed");
    refuse(&cluster, &["container.ring.gz", "cannot read it"]);
}

#[test]
fn a_node_that_the_ring_does_not_know_says_so() {
    let (one, other) = (Cluster::new(1), Cluster::new(1));
    let ring = Ring::load(&other.swift_dir().join("container.ring.gz")).expect("it is sound");
    ring.save(&one.swift_dir().join("container.ring.gz"), FormatVersion::V1).expect("saved");
    let said = one.once(0, "").ended(2);
    said.said("Can't find itself 127.0.0.1").said("check bind_ip, bind_port");
    // A daemon stays: the ring may be on its way.
    one.start(0);
    let told = || one.log(0).contains("Can't find itself");
    assert!(crate::cluster::wait(crate::cluster::SOON, told), "{}", one.log(0));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let cluster = Cluster::new(1);
    let taken = TcpListener::bind(("127.0.0.1", cluster.port(0))).expect("the port is free");
    let port = format!("cannot listen on 127.0.0.1:{}", cluster.port(0));
    Passed::of(cluster.agent(0, "-v")).ended(2).said(&port).said("is another agent running");
    drop(taken);
    cluster.start(0);
    Passed::of(cluster.agent(0, "-v")).ended(2).said(&port);
}

/// Node 0 has two containers; node 1 is whatever listens on its port; node 2 is an agent.
fn with_a_strange_peer() -> Cluster {
    let cluster = Cluster::new(3);
    cluster.configure_all(&[("agent_passes", "no"), ("node_timeout", "1"), ("concurrency", "1")]);
    for container in cluster.containers("c", 2) {
        cluster.create(0, &container).merge_rows(rows("a", 0..10), None).expect("merged");
    }
    cluster.start(2);
    cluster
}

/// The pass counts the strange peer, and the agent beside it got everything.
#[track_caller]
fn the_other_peer_has_all(cluster: &Cluster, said: &str) {
    let passed = cluster.once(0, "").ended(1);
    assert_eq!((passed.count("success"), passed.count("failure")), (2, 2), "{}", passed.stdout);
    assert!(passed.stdout.contains("{\"127.0.0.1\":{\"d1\":2}}"), "{}", passed.stdout);
    let passed = passed.said(said);
    assert!(passed.stderr.contains(&format!("127.0.0.1:{}/d1", cluster.port(1))), "{}", passed.stderr);
    for container in cluster.containers("c", 2) {
        assert_eq!(cluster.replica(2, &container).expect("it arrived").rows.len(), 10);
    }
}

#[test]
fn a_closed_port_is_counted_and_passed_by() {
    the_other_peer_has_all(&with_a_strange_peer(), "cannot be reached");
}

#[test]
fn a_peer_that_speaks_http_is_named() {
    let cluster = with_a_strange_peer();
    let listener = TcpListener::bind(("127.0.0.1", cluster.port(1))).expect("the port is free");
    std::thread::spawn(move || {
        for mut call in listener.incoming().flatten() {
            let _ = call.read(&mut [0; 64]);
            let _ = call.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    the_other_peer_has_all(&cluster, "HTTP");
}

#[test]
fn a_peer_that_hangs_up_or_says_nothing_is_counted_and_passed_by() {
    let cluster = with_a_strange_peer();
    let listener = TcpListener::bind(("127.0.0.1", cluster.port(1))).expect("the port is free");
    std::thread::spawn(move || listener.incoming().flatten().for_each(drop));
    the_other_peer_has_all(&cluster, "closed the connection");

    let cluster = with_a_strange_peer();
    let silent = TcpListener::bind(("127.0.0.1", cluster.port(1))).expect("the port is free");
    the_other_peer_has_all(&cluster, "was silent");
    drop(silent);
}
