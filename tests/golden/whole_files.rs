//! Vectors of `rpc` in which a whole file arrives, said in our words to an agent:
//!
//! | Swift | ours | the difference |
//! |---|---|---|
//! | `sync` of a missing one: 404 | `Missing` | |
//! | `complete_rsync`: 204 | `Offer` … `Settled` | the new id ends in the device's name |
//! | `complete_rsync`, but one is here: 404 | merged | the sender's rows are not sent for nothing |
//! | `rsync_then_merge`: 204 | merged | the sender's point counts no row that the sender does not have |
//! | `rsync_then_merge`, nothing arrived: 404 | a breach of the protocol | the connection ends too |
//! | `rsync_then_merge` while sharding: 404 | `Refused(Sharding)` | before a byte of the file is sent |
//!
//! Nothing that was staged is left in `tmp`; what Swift leaves there of a refused file stays a week.

use std::collections::BTreeSet;

use serde_json::Value;
use swiftlet::broker::Broker;
use swiftlet::delta::{self, Geometry};
use swiftlet::drive::DeviceName;
use swiftlet::peer::{Peer, PeerError, Stream};
use swiftlet::protocol::message::{Intent, Meet, Message, Place, Refusal, Role, Shape};
use swiftlet::replica::{Direction, ReplicaInfo, RowId};
use swiftlet::ring::Ring;

use super::databases::{list, query, raw, text};
use super::nodes::Nodes;
use super::vectors::{self, bytes, json};

const DEVICE: u32 = 1;

fn case(name: &str) -> Value {
    let vectors = json("rpc/rpc.json");
    list(&vectors).iter().find(|vector| vector["case"] == name).expect("a case of this name").clone()
}

/// An agent that holds the case's database, if it has one.
fn agent(case: &Value) -> Nodes {
    let ring =
        Ring::load(&vectors::root().join("contact_order/three.ring.gz")).expect("a ring of the vectors");
    let mut nodes = Nodes::of(&ring, "");
    let (account, container) = (text(&case["account"]), text(&case["container"]));
    assert_eq!(nodes.hash(account, container).to_string(), text(&case["hash"]));
    for file in list(&case["files"]) {
        nodes.put(DEVICE, account, container, &bytes(text(file)));
    }
    nodes.serve(DEVICE);
    nodes
}

/// The sender's file: what it says of itself, and its bytes.
struct Sent {
    info: ReplicaInfo,
    bytes: Vec<u8>,
}

fn sent(case: &Value) -> Sent {
    let [file] = list(&case["tmp"]).as_slice() else { panic!("one file in tmp") };
    vectors::knows(file, &["name", "db"]);
    assert_eq!(file["name"], case["args"][1]);
    let bytes = bytes(text(&file["db"]));
    let place = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(place.path(), &bytes).expect("a database");
    let info = Broker::open_file(place.path()).and_then(|mut broker| broker.info()).expect("a database");
    assert_eq!(info.id.as_str(), text(&case["args"][1]));
    Sent { info, bytes }
}

fn rows(database: &std::path::Path) -> BTreeSet<String> {
    let sql = "SELECT name, created_at, size, content_type, etag, deleted, storage_policy_index FROM object";
    query(&raw(database), sql).1.iter().map(Value::to_string).collect()
}

fn meet<S: Stream>(nodes: &Nodes, peer: &mut Peer<S>, info: &ReplicaInfo) -> Message {
    let hash = nodes.hash(&info.account, &info.container);
    let device = DeviceName::new("d1").expect("a name");
    let place = Place { device, partition: nodes.ring.part_shift().partition(&hash), hash };
    // Swift's answering side asks no ring, and the vectors put databases anywhere.
    let meet = Meet {
        place,
        info: info.clone(),
        intent: Intent::Agree,
        role: Role::Handoff,
        asker: None,
        agreed: None,
    };
    peer.say(&Message::Meet(Box::new(meet))).expect("an agent that listens");
    peer.hear().expect("an answer")
}

fn offer<S: Stream>(peer: &mut Peer<S>, sent: &Sent) -> Message {
    let (file_bytes, page_bytes) = (sent.bytes.len() as u64, sent.info.page_bytes);
    let shape = Shape { file_bytes, page_bytes, window_bytes: delta::USUAL_WINDOW_BYTES };
    peer.say(&Message::Offer { shape, epoch: None }).expect("an agent that listens");
    peer.hear().expect("an answer")
}

fn ship<S: Stream>(peer: &mut Peer<S>, sent: &Sent) -> Message {
    let geometry =
        Geometry::new(sent.bytes.len() as u64, sent.info.page_bytes, delta::USUAL_WINDOW_BYTES).unwrap();
    for window in geometry.windows() {
        let bytes = &sent.bytes[window.offset() as usize..][..window.bytes()];
        peer.say(&Message::Literal(delta::compress_literals(bytes))).expect("an agent that listens");
    }
    let digest = *blake3::hash(&sent.bytes).as_bytes();
    peer.say(&Message::FileDone { digest, max_row: sent.info.max_row }).expect("an agent that listens");
    loop {
        match peer.hear().expect("an answer") {
            Message::Working => {}
            message => return message,
        }
    }
}

/// Checks our file against the dump of Swift's, by content.
fn check_after(nodes: &Nodes, case: &Value, sent: &Sent, name: &str) -> Broker {
    let (account, container) = (text(&case["account"]), text(&case["container"]));
    let home = nodes.home_of(DEVICE, account, container);
    let path = home.in_charge().unwrap().expect("a database");
    let dump = &case["after"][path.file_name().unwrap().to_str().unwrap()];
    let swifts = list(&dump["objects"]["rows"]).iter();
    let swifts = swifts.map(|row| Value::from(list(row)[1..].to_vec()).to_string()).collect();
    assert_eq!(rows(&path), swifts, "{name}");
    let conn = raw(&path);
    let policies = query(&conn, "SELECT * FROM policy_stat ORDER BY storage_policy_index").1;
    assert_eq!(Value::from(policies), dump["policy_stat"]["rows"], "{name}");
    let (columns, info) = query(&conn, "SELECT * FROM container_info");
    for (at, column) in columns.iter().enumerate() {
        let swifts = list(&dump["container_info"]["columns"]).iter().position(|name| name == column.as_str());
        let swifts = &dump["container_info"]["rows"][0][swifts.expect("a column of Swift's")];
        match column.as_str() {
            "id" => {}
            // With us, to introduce oneself is to settle the timestamps; the earliest wins.
            "created_at" => {
                assert_eq!(text(&info[0][at]), text(swifts).min(sent.info.created_at.as_str()), "{name}");
            }
            _ => assert_eq!(info[0][at], *swifts, "{name}: {column}"),
        }
    }
    nothing_staged(nodes);
    Broker::open(&home).expect("a database")
}

fn nothing_staged(nodes: &Nodes) {
    let tmp = nodes.drive(DEVICE).tmp();
    let left = std::fs::read_dir(tmp).map_or(0, Iterator::count);
    assert_eq!(left, 0, "files left in tmp");
}

fn point_of_sender(broker: &mut Broker, sent: &Sent) -> RowId {
    broker.sync_point(&sent.info.id, Direction::Incoming).expect("a point")
}

#[test]
fn a_missing_database_is_missing() {
    let case = case("15-sync-missing");
    let (nodes, sent) = (agent(&case), sent(&self::case("16-complete-rsync")));
    assert_eq!(case["response"]["status"], 404);
    assert_eq!(meet(&nodes, &mut nodes.call(DEVICE), &sent.info), Message::Missing);
}

#[test]
fn a_whole_file_takes_a_missing_ones_place() {
    let case = case("16-complete-rsync");
    let (nodes, sent) = (agent(&case), sent(&case));
    let mut peer = nodes.call(DEVICE);
    assert_eq!(meet(&nodes, &mut peer, &sent.info), Message::Missing);
    assert_eq!(offer(&mut peer, &sent), Message::Accept(None));
    let Message::Settled(settled) = ship(&mut peer, &sent) else { panic!("not settled") };
    let mut broker = check_after(&nodes, &case, &sent, "16");
    let info = broker.info().expect("info");
    assert_eq!((&settled.id, settled.hash, settled.max_row), (&info.id, info.hash, info.max_row));
    assert!(info.id != sent.info.id && info.id.as_str().ends_with("-d1"), "{}", info.id);
    assert_eq!(point_of_sender(&mut broker, &sent), sent.info.max_row);
}

#[test]
fn a_whole_file_is_merged_and_the_point_counts_only_the_senders_rows() {
    let case = case("12-rsync-then-merge");
    let (nodes, sent) = (agent(&case), sent(&case));
    let mut peer = nodes.call(DEVICE);
    assert!(matches!(meet(&nodes, &mut peer, &sent.info), Message::Here { .. }));
    assert!(matches!(offer(&mut peer, &sent), Message::Accept(Some(_))));
    let Message::Settled(_) = ship(&mut peer, &sent) else { panic!("not settled") };
    let mut broker = check_after(&nodes, &case, &sent, "12");
    let swifts = &case["after"][format!("{}.db", text(&case["hash"]))]["incoming_sync"]["rows"];
    for swifts in list(swifts) {
        let id = super::databases::id(&swifts[0]);
        let ours = broker.sync_point(&id, Direction::Incoming).expect("a point");
        let swifts = RowId(super::databases::number(&swifts[1]));
        if id == sent.info.id {
            assert!(ours == sent.info.max_row && ours < swifts, "{ours} of {swifts}");
        } else {
            assert_eq!(ours, swifts);
        }
    }
}

#[test]
fn a_file_that_never_arrived_installs_nothing() {
    let case = case("13-rsync-then-merge-nothing-arrived");
    let nodes = agent(&case);
    // The same container's file of the next case is what is offered.
    let sent = sent(&self::case("14-complete-rsync-but-one-is-here"));
    assert_eq!(case["response"]["status"], 404);
    let mut peer = nodes.call(DEVICE);
    assert!(matches!(meet(&nodes, &mut peer, &sent.info), Message::Here { .. }));
    assert!(matches!(offer(&mut peer, &sent), Message::Accept(Some(_))));
    let done = Message::FileDone { digest: *blake3::hash(b"").as_bytes(), max_row: sent.info.max_row };
    peer.say(&done).expect("an agent that listens");
    assert!(matches!(peer.hear(), Err(PeerError::Gone | PeerError::Broken(_))));
    drop(peer);
    check_after(&nodes, &case, &sent, "13");
}

#[test]
fn a_whole_file_for_one_that_appeared_meanwhile_is_merged() {
    let case = case("14-complete-rsync-but-one-is-here");
    let mut empty = case.clone();
    empty["files"] = Value::Array(vec![]);
    let (nodes, sent) = (agent(&empty), sent(&case));
    let mut peer = nodes.call(DEVICE);
    assert_eq!(meet(&nodes, &mut peer, &sent.info), Message::Missing);
    assert_eq!(offer(&mut peer, &sent), Message::Accept(None));
    // Now somebody else brings one.
    let (account, container) = (text(&case["account"]), text(&case["container"]));
    let home = nodes.put(DEVICE, account, container, &bytes(text(&case["files"][0])));
    let Message::Settled(_) = ship(&mut peer, &sent) else { panic!("not settled") };
    // The same as where one was here all along: ours go into theirs, as in Swift.
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(scratch.path().join(name), bytes).expect("a database");
        Broker::open_file(&scratch.path().join(name)).expect("a database")
    };
    let mut theirs = file("theirs", &sent.bytes);
    let mut ours = file("ours", &bytes(text(&case["files"][0])));
    theirs.merge_rows(ours.rows_after(RowId::NONE, 1000).unwrap(), None).unwrap();
    assert_eq!(rows(&home.in_charge().unwrap().unwrap()), rows(theirs.path()));
    assert_eq!(point_of_sender(&mut nodes.broker(DEVICE, account, container), &sent), sent.info.max_row);
    nothing_staged(&nodes);
}

#[test]
fn a_whole_file_is_refused_while_sharding() {
    let case = case("19-rsync-then-merge-refused-while-sharding");
    let (nodes, sent) = (agent(&case), sent(&case));
    assert_eq!(case["response"]["status"], 404);
    let mut peer = nodes.call(DEVICE);
    assert!(matches!(meet(&nodes, &mut peer, &sent.info), Message::Here { .. }));
    assert_eq!(offer(&mut peer, &sent), Message::Refused(Refusal::Sharding));
    check_after(&nodes, &case, &sent, "19");
    // The connection is as good as before.
    assert!(matches!(meet(&nodes, &mut peer, &sent.info), Message::Here { .. }));
}
