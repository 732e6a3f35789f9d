//! Vectors of `decision`: which way Swift's replicator takes a database to a peer, and which way we take.
//!
//! Every vector falls into one class, named for what Swift answers and what the two rows of numbers say:
//!
//! | Swift | when | ours |
//! |---|---|---|
//! | `no_change` | hashes equal | nothing, `NoChange` |
//! | `hashmatch` | hashes equal | nothing, `HashMatch` |
//! | `no_change` | hashes differ, we never had a row | nothing: it is the peer's to send |
//! | `no_change` | hashes differ, a point is beyond our last row | *all rows, and points that replace*: we were restored |
//! | `no_change` | hashes differ, points end at our last row | *all rows*, unless the peer is known to have rows that we lack |
//! | rows | | the rows after the same one |
//! | `rsync_then_merge` | | whatever costs less: the rows after the point, or the file |
//! | division by zero | we never had a row | nothing: it is the peer's to send |
//!
//! The three rows in the middle are where Swift answers "no change" for ever.

use std::collections::BTreeMap;

use serde_json::Value;
use swiftlet::replica::{DbState, Metadata, PolicyIndex, ReplicaId, ReplicaInfo, RowHash, RowId};
use swiftlet::strategy::{Agreement, Reason, Situation, Strategy, choose};
use swiftlet::timestamp::Stamp;

use super::vectors;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    NoChange,
    HashMatch,
    DoneThoughDifferentAndEmpty,
    DoneThoughDifferentAndRestored,
    DoneThoughDifferent,
    Rows,
    WholeFile,
    DivisionByZero,
}

const CLASSES: usize = 8;

/// The price decides, and the price of the first of these vectors, a hundred times as large, is that of a file.
#[test]
fn what_swift_sends_whole_goes_whole_once_it_is_large() {
    let vectors = vectors::json("decision.json");
    let far_behind =
        |vector: &&Value| class(vector) == Class::WholeFile && row(&vector["info"]["max_row"]).0 > 1000;
    let vector = vectors::list(&vectors).iter().find(far_behind).expect("a vector");
    let hundredfold = |said: &Value| {
        let replica = replica(said);
        let max_row = RowId(replica.max_row.0 * 100);
        ReplicaInfo { max_row, file_bytes: replica.file_bytes * 100, ..replica }
    };
    let (mine, theirs) = (&hundredfold(&vector["info"]), &hundredfold(&vector["rinfo"]));
    let (their_point, my_point, my_incoming) = (RowId::NONE, RowId::NONE, RowId::NONE);
    let choice = choose(&Situation { mine, theirs, their_point, my_point, my_incoming, leaving: false });
    assert_eq!(
        (choice.strategy, choice.reason),
        (Strategy::File { instead_of: RowId::NONE }, Reason::FarBehind),
        "{vector}"
    );
}

#[test]
fn every_decision_is_swifts_or_better() {
    let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
    let vectors = vectors::json("decision.json");
    for vector in vectors::list(&vectors) {
        check(vector);
        *classes.entry(class(vector)).or_default() += 1;
    }
    assert_eq!(classes.values().sum::<usize>(), 400);
    assert_eq!(classes.len(), CLASSES, "a class without vectors: {classes:?}");
}

fn check(vector: &Value) {
    let fields = ["per_diff", "info", "rinfo", "local_sync", "result", "counters", "outgoing_sync", "error"];
    vectors::knows(vector, &fields);
    vectors::knows(&vector["info"], &["max_row", "hash", "id", "count", "db_state"]);
    vectors::knows(&vector["rinfo"], &["max_row", "hash", "id", "point"]);
    let mut mine = replica(&vector["info"]);
    mine.count = vector["info"]["count"].as_i64().expect("a count");
    assert_eq!(vector["info"]["db_state"], "unsharded");
    let mut theirs = replica(&vector["rinfo"]);
    // The vectors do not say; where the rows are equal, so are the counts.
    theirs.count = mine.count;
    let (their_point, my_point) = (row(&vector["rinfo"]["point"]), row(&vector["local_sync"]));
    let point = their_point.max(my_point);
    // What the ladder of Swift does not ask: how far we have come with *their* rows.
    let knowing = |my_incoming| {
        let situation =
            Situation { mine: &mine, theirs: &theirs, their_point, my_point, my_incoming, leaving: false };
        choose(&situation)
    };
    let always = || {
        let (all, none) = (knowing(theirs.max_row), knowing(RowId::NONE));
        assert_eq!(all, none, "{vector}");
        all.strategy
    };
    let all_rows = Strategy::Rows { after: RowId::NONE, restart: true };
    let peer_ahead = Strategy::Nothing(Agreement::PeerAhead);
    let equal = mine.hash == theirs.hash;
    match (class(vector), mine.max_row.0 <= 0) {
        (Class::NoChange, _) => {
            assert!(equal && point >= mine.max_row, "{vector}");
            assert_eq!(always(), Strategy::Nothing(Agreement::NoChange), "{vector}");
        }
        (Class::HashMatch, _) => {
            assert!(equal && point < mine.max_row, "{vector}");
            assert_eq!(always(), Strategy::Nothing(Agreement::HashMatch), "{vector}");
        }
        (Class::DoneThoughDifferentAndEmpty | Class::DivisionByZero, empty) => {
            assert!(empty && !equal, "{vector}");
            assert_eq!(always(), peer_ahead, "{vector}");
        }
        (Class::DoneThoughDifferentAndRestored, empty) => {
            assert!(!empty && !equal && point > mine.max_row, "{vector}");
            assert_eq!(always(), all_rows, "{vector}");
        }
        (Class::DoneThoughDifferent, empty) => {
            assert!(!empty && !equal && point == mine.max_row, "{vector}");
            assert_eq!(knowing(theirs.max_row).strategy, all_rows, "{vector}");
            let lacking = if theirs.max_row > RowId::NONE { peer_ahead } else { all_rows };
            assert_eq!(knowing(RowId::NONE).strategy, lacking, "{vector}");
        }
        (Class::Rows, empty) => {
            assert!(!empty && !equal && point < mine.max_row, "{vector}");
            let after = row(&vector["result"]["after_row"]);
            assert_eq!(always(), Strategy::Rows { after, restart: false }, "{vector}");
        }
        (Class::WholeFile, empty) => {
            assert!(!empty && !equal && point < mine.max_row, "{vector}");
            // So few rows are merged before a file is staged.
            assert_eq!(always(), Strategy::Rows { after: point, restart: false }, "{vector}");
        }
    }
}

fn class(vector: &Value) -> Class {
    let counters = vector["counters"].as_object().expect("an object");
    let counted: Vec<&str> = counters.keys().map(String::as_str).collect();
    let equal = vector["info"]["hash"] == vector["rinfo"]["hash"];
    let last = row(&vector["info"]["max_row"]);
    let point = row(&vector["rinfo"]["point"]).max(row(&vector["local_sync"]));
    match (vector["result"]["mode"].as_str(), counted.as_slice(), vector["error"].as_str()) {
        (None, ["no_change"], None) if equal => Class::NoChange,
        (None, ["no_change"], None) if last.0 <= 0 => Class::DoneThoughDifferentAndEmpty,
        (None, ["no_change"], None) if point > last => Class::DoneThoughDifferentAndRestored,
        (None, ["no_change"], None) => Class::DoneThoughDifferent,
        (None, ["hashmatch"], None) => Class::HashMatch,
        (Some("rows"), [], None) => Class::Rows,
        (Some("rsync_then_merge"), ["remote_merge"], None) => Class::WholeFile,
        (None, [], Some("ZeroDivisionError")) => Class::DivisionByZero,
        _ => panic!("a decision of no class: {vector}"),
    }
}

fn row(value: &Value) -> RowId {
    RowId(value.as_i64().expect("a row's number"))
}

/// A replica that says so, with the rest of no meaning.
fn replica(said: &Value) -> ReplicaInfo {
    let max_row = row(&said["max_row"]);
    ReplicaInfo {
        id: ReplicaId::new(vectors::text(&said["id"])).expect("an id"),
        account: "AUTH_gold".to_owned(),
        container: "c".to_owned(),
        created_at: Stamp::stored("1750000000.00000"),
        put_timestamp: Stamp::stored("1750000000.00000"),
        delete_timestamp: Stamp::stored("0"),
        status_changed_at: Stamp::stored("1750000000.00000"),
        storage_policy_index: PolicyIndex(0),
        count: 0,
        bytes_used: 0,
        hash: RowHash::parse(vectors::text(&said["hash"])).expect("a hash"),
        max_row,
        shard_max_row: RowId::NONE,
        metadata: Metadata::default(),
        db_state: DbState::Unsharded,
        sharding_initiated: false,
        sharding_required: false,
        ranges_digest: [0; 16],
        file_bytes: 32_768 + 160 * max_row.0.max(0) as u64,
        page_bytes: 4096,
    }
}
