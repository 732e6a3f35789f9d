//! SIGTERM, SIGINT and SIGHUP, whatever a daemon is doing.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use swiftlet::drive::DeviceName;
use swiftlet::peer::Peer;
use swiftlet::protocol::message::{Intent, Meet, Message, Place, Role, Shape};
use swiftlet::stop::Stop;

use crate::cluster::{Cluster, SOON, free_port, listens, rows, wait};

/// What an operator waits for without a second thought.
const PATIENCE: Duration = Duration::from_secs(5);

#[track_caller]
fn ends(cluster: &Cluster, signal: Signal, code: i32) {
    let (status, took) = cluster.end(0, signal);
    assert!(took < PATIENCE, "{signal} {took:?}\n{}", cluster.log(0));
    assert_eq!(status.code(), Some(code), "{signal}\n{}", cluster.log(0));
    assert!(cluster.log(0).contains("Exited"), "{}", cluster.log(0));
}

#[test]
fn an_idle_daemon_ends_at_once() {
    let cluster = Cluster::new(1);
    cluster.configure(0, &[("interval", "3600")]);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        cluster.start(0);
        ends(&cluster, signal, 0);
    }
    cluster.configure(0, &[("agent_passes", "no")]);
    cluster.start(0);
    ends(&cluster, Signal::SIGTERM, 0);
}

#[test]
fn a_pass_that_waits_for_a_silent_peer_is_left() {
    let cluster = Cluster::new(2);
    cluster.configure(0, &[("node_timeout", "60")]);
    let containers = cluster.containers("c", 4);
    containers.iter().for_each(|container| drop(cluster.create(0, container)));
    let peer = TcpListener::bind(("127.0.0.1", cluster.port(1))).expect("the port is free");
    cluster.start(0);
    let (mut call, _) = peer.accept().expect("it calls");
    call.read_exact(&mut [0; 4]).expect("it greets");
    ends(&cluster, Signal::SIGINT, 0);
}

/// Calls node 0 and begins to bring it a database, as an agent would; the connection, in the middle of the transfer.
fn half_a_transfer(cluster: &Cluster) -> Peer<TcpStream> {
    let container = cluster.container("coming");
    let mut broker = cluster.create(1, &container);
    broker.merge_rows(rows("a", 0..100), None).expect("merged");
    let info = broker.info().expect("it is sound");
    let shape = Shape { file_bytes: info.file_bytes, page_bytes: info.page_bytes, window_bytes: 1 << 20 };
    let device = DeviceName::new("d0").expect("a name");
    let place = Place { device, partition: container.partition, hash: container.hash };
    let time = Duration::from_secs(10);
    let mut peer =
        Peer::call("127.0.0.1", cluster.port(0), time, time, &Stop::default()).expect("it answers");
    let meet = Message::Meet(Box::new(Meet {
        place,
        info,
        intent: Intent::Agree,
        role: Role::Primary,
        asker: None,
        agreed: None,
    }));
    peer.say(&meet).expect("it listens");
    assert_eq!(peer.hear().expect("it answers"), Message::Missing);
    peer.say(&Message::Offer { shape, epoch: None }).expect("it listens");
    assert_eq!(peer.hear().expect("it answers"), Message::Accept(None));
    peer
}

#[test]
fn a_transfer_being_served_is_left_and_leaves_nothing() {
    let cluster = Cluster::new(2);
    cluster.configure(0, &[("node_timeout", "60"), ("agent_passes", "no")]);
    cluster.start(0);
    let peer = half_a_transfer(&cluster);
    let tmp = cluster.device(0).join("tmp");
    assert!(!crate::cluster::is_empty(&tmp), "it stages what comes");
    ends(&cluster, Signal::SIGTERM, 0);
    drop(peer);
    assert!(cluster.replica(0, &cluster.container("coming")).is_none());
    // What is left there is reclaimed in time, as after a crash.
    cluster.configure(0, &[("reclaim_age", "0"), ("agent_passes", "yes")]);
    cluster.once(0, "").ended(0);
    assert!(crate::cluster::is_empty(&tmp));
}

#[test]
fn a_daemon_reads_its_conf_again_when_told() {
    let cluster = Cluster::new(1);
    cluster.configure(0, &[("agent_passes", "no")]);
    cluster.start(0);
    let old = cluster.port(0);
    let new = std::iter::repeat_with(free_port).find(|port| *port > old).expect("some port is above");
    cluster.configure(0, &[("agent_port_offset", &(new - old).to_string())]);
    cluster.signal(0, Signal::SIGHUP);
    assert!(wait(SOON, || listens(new) && !listens(old)), "{}", cluster.log(0));

    // What is wrong with it is said, and everything stays as it was.
    cluster.configure(0, &[("concurrency", "many")]);
    cluster.signal(0, Signal::SIGHUP);
    let refused = || cluster.log(0).contains("not reloaded: concurrency = \"many\": expected a whole number");
    assert!(wait(SOON, refused), "{}", cluster.log(0));
    assert!(listens(new));

    // So it is if another has the port.
    let taken = std::iter::repeat_with(free_port).find(|port| *port > old).expect("some port is above");
    let other = TcpListener::bind(("127.0.0.1", taken)).expect("it is free");
    cluster.configure(0, &[("concurrency", "1"), ("agent_port_offset", &(taken - old).to_string())]);
    cluster.signal(0, Signal::SIGHUP);
    let refused = || cluster.log(0).contains("not reloaded: cannot listen on");
    assert!(wait(SOON, refused), "{}", cluster.log(0));
    assert!(wait(SOON, || listens(new)), "{}", cluster.log(0));
    drop(other);

    cluster.signal(0, Signal::SIGHUP);
    assert!(wait(SOON, || listens(taken) && !listens(new)), "{}", cluster.log(0));
    ends(&cluster, Signal::SIGTERM, 0);
}
