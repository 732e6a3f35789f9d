//! Vectors of `passes`: small clusters run to the end, agents in the place of Swift's replicators.
//!
//! The same databases, the same passes of the same nodes in the same order, the same rows written between them. In the
//! end each replica holds the same rows, timestamps, metadata, hash and shard ranges, and each pass counted the same, but
//! for this:
//!
//! * `far-behind`, `far-behind-then-writes`: so few rows cost less than a file, so they are sent (`diff` for
//!   `remote_merge`). With that, and with a point that counts only rows of the sender, every row arrives; Swift leaves
//!   one node thirty rows short and reports no change for ever.
//! * `many-rows-capped`: a capped transfer made progress that stays. It is counted as `diff_capped`, not as a failure.
//! * `handoff-while-a-primary-is-down`: the handoff after the dead primary is the one that holds the copy. Swift sends
//!   it to itself and counts a success and a `no_change`.
//! * `misplaced-rows`: the reconciler's queue is not ours yet, so no queue container appears and none is replicated.
//!
//! Numbers of rows depend on the way they came and are not compared.

use serde_json::{Value, json};
use swiftlet::broker::Broker;
use swiftlet::merge::print_metadata;
use swiftlet::replica::ShardRange;
use swiftlet::ring::Ring;
use swiftlet::tally::Tally;

use super::databases::{list, number, rows, text};
use super::nodes::Nodes;
use super::vectors::{self, knows};

const CASES: [&str; 12] = [
    "three-differing",
    "two-missing",
    "same-rows-other-order",
    "handoff-hands-over",
    "handoff-while-a-primary-is-down",
    "many-rows-capped",
    "far-behind",
    "far-behind-then-writes",
    "metadata-and-timestamps",
    "sharding-one-node-enabled",
    "shard-ranges-found-only",
    "misplaced-rows",
];

#[test]
fn every_case_is_known() {
    let index = vectors::json("passes/index.json");
    knows(&index, &["cases", "note"]);
    let cases: Vec<&str> = list(&index["cases"]).iter().map(|case| text(&case["case"])).collect();
    assert_eq!(cases, CASES);
    for case in list(&index["cases"]) {
        knows(case, &["case", "file"]);
    }
}

macro_rules! cases {
    ($($test:ident: $case:expr;)*) => { $(
        #[test]
        fn $test() {
            run($case);
        }
    )* };
}

cases! {
    three_differing: CASES[0];
    two_missing: CASES[1];
    same_rows_other_order: CASES[2];
    handoff_hands_over: CASES[3];
    handoff_while_a_primary_is_down: CASES[4];
    many_rows_capped: CASES[5];
    far_behind: CASES[6];
    far_behind_then_writes: CASES[7];
    metadata_and_timestamps: CASES[8];
    sharding_one_node_enabled: CASES[9];
    shard_ranges_found_only: CASES[10];
    misplaced_rows: CASES[11];
}

fn run(name: &str) {
    let case = vectors::json(&format!("passes/{name}/case.json"));
    let fields =
        ["case", "conf", "ring", "account", "container", "partition", "primaries", "nodes", "passes"];
    knows(&case, &[&fields[..], &["final", "queues"]].concat());
    assert_eq!(text(&case["case"]), name);
    let ring = Ring::load(&vectors::root().join(text(&case["ring"]))).expect("a ring of the vectors");
    let conf = case["conf"].as_object().expect("an object");
    let conf: Vec<String> = conf.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let mut nodes = Nodes::of(&ring, &conf.join("\n"));
    let (account, container) = (text(&case["account"]), text(&case["container"]));
    for node in list(&case["nodes"]) {
        knows(node, &["dev", "db"]);
        if let Some(db) = node["db"].as_str() {
            nodes.put(device(&node["dev"]), account, container, &vectors::bytes(db));
        }
    }
    let finals = case["final"].as_object().expect("an object");
    // A device that has no final state is one that was down.
    for device in ring.devices().map(|device| device.id.0) {
        if !finals.contains_key(&device.to_string()) {
            std::fs::rename(nodes.root(device), nodes.root(device).with_extension("down")).expect("a rename");
        }
    }
    nodes.serve_all();
    for (at, pass) in list(&case["passes"]).iter().enumerate() {
        knows(pass, &["dev", "items_written_before", "sent", "counters"]);
        if let Value::Object(written) = &pass["items_written_before"] {
            let mut broker = nodes.broker(device(&written["dev"]), account, container);
            broker.merge_rows(rows(&written["items"]), None).expect("a merge");
        }
        let tally = nodes.pass(device(&pass["dev"]));
        check_counters(name, at, pass, &tally);
    }
    for (dev, state) in finals {
        let home = nodes.home_of(dev.parse().expect("a device"), account, container);
        let there = home.in_charge().expect("a hash directory").is_some();
        assert_eq!(there, !state.is_null(), "{name}: device {dev}");
        if there {
            let broker = nodes.broker(dev.parse().expect("a device"), account, container);
            check_final(name, dev, state, finals, broker);
        }
    }
    // A queue that Swift made for its reconciler.
    assert_eq!(list(&case["queues"]).is_empty(), name != "misplaced-rows");
}

fn device(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("a device's id")
}

fn check_counters(name: &str, at: usize, pass: &Value, tally: &Tally) {
    let mut expected = pass["counters"].clone();
    let moved = |expected: &mut Value, from: &str, to: &str| {
        let moved = number(&expected[from]);
        expected[from] = 0.into();
        expected[to] = (number(&expected[to]) + moved).into();
    };
    match (name, at) {
        ("far-behind" | "far-behind-then-writes", _) => {
            assert_eq!(number(&expected["remote_merge"]), i64::from(at == 0));
            moved(&mut expected, "remote_merge", "diff");
        }
        ("many-rows-capped", _) => {
            assert_eq!(expected["failure"], expected["diff_capped"]);
            moved(&mut expected, "failure", "success");
            expected["failure_nodes"] = json!({});
        }
        ("handoff-while-a-primary-is-down", _) => {
            for counted_of_itself in ["success", "no_change"] {
                expected[counted_of_itself] = (number(&expected[counted_of_itself]) - 1).into();
            }
        }
        ("misplaced-rows", _) => {
            // Two or more queue containers' exchanges are in Swift's numbers as well.
            assert_eq!((tally.attempted, tally.success, tally.failure), (1, 2, 0));
            return;
        }
        _ => {}
    }
    let failures: u64 = tally.failure_nodes.values().flat_map(|devices| devices.values()).sum();
    let devices = |nodes: &Value| {
        let devices = nodes.as_object().expect("an object").values();
        devices.flat_map(|devices| devices.as_object().expect("an object").clone()).collect::<Vec<_>>()
    };
    let ours = serde_json::to_value(tally).expect("a tally");
    assert_eq!(failures, tally.failure);
    assert_eq!(devices(&ours["failure_nodes"]), devices(&expected["failure_nodes"]), "{name}: pass {at}");
    for (counter, count) in expected.as_object().expect("an object") {
        if counter != "failure_nodes" {
            assert_eq!(ours[counter], *count, "{name}: pass {at}: {counter} of {ours}");
        }
    }
}

fn check_final(
    name: &str,
    dev: &str,
    state: &Value,
    finals: &serde_json::Map<String, Value>,
    mut broker: Broker,
) {
    knows(state, &["objects_by_name", "policy_stat", "shard_ranges", "info", "hash", "max_row"]);
    let wanted = match name {
        // Swift's two replicas end with different rows. The one that has all of them says what is right.
        "far-behind-then-writes" => {
            let most = |state: &&Value| list(&state["objects_by_name"]["rows"]).len();
            finals.values().filter(|state| !state.is_null()).max_by_key(most).expect("a replica")
        }
        _ => state,
    };
    let conn = super::databases::raw(broker.path());
    let table = |sql: &str| {
        let (columns, rows) = super::databases::query(&conn, sql);
        json!({ "columns": columns, "rows": rows })
    };
    let objects = table(
        "SELECT name, created_at, size, content_type, etag, deleted, storage_policy_index FROM object
         ORDER BY name, storage_policy_index",
    );
    assert_eq!(objects["columns"], wanted["objects_by_name"]["columns"], "{name}: device {dev}");
    let (found, wanted_rows) = (list(&objects["rows"]), list(&wanted["objects_by_name"]["rows"]));
    let lacking = wanted_rows.iter().filter(|row| !found.contains(row)).collect::<Vec<_>>();
    let extra = found.iter().filter(|row| !wanted_rows.contains(row)).collect::<Vec<_>>();
    assert!(
        found.len() == wanted_rows.len() && lacking.is_empty() && extra.is_empty(),
        "{name}: device {dev} lacks {lacking:?} and has {extra:?}"
    );
    let policies = table("SELECT * FROM policy_stat ORDER BY storage_policy_index");
    assert_eq!(policies, wanted["policy_stat"], "{name}: device {dev}");
    let info = broker.info().expect("info");
    assert_eq!(info.hash.to_string(), text(&wanted["hash"]), "{name}: device {dev}");
    let metadata = if info.metadata.0.is_empty() { String::new() } else { print_metadata(&info.metadata) };
    let said = json!({
        "created_at": info.created_at.as_str(),
        "put_timestamp": info.put_timestamp.as_str(),
        "delete_timestamp": info.delete_timestamp.as_str(),
        "metadata": metadata,
        "storage_policy_index": info.storage_policy_index.0,
    });
    let (mut said, mut swifts) = (said, wanted["info"].clone());
    for info in [&mut said, &mut swifts] {
        let text = info["metadata"].as_str().expect("text");
        // JSON text: spaces and the order of keys are nobody's business.
        let parsed = if text.is_empty() { Value::Null } else { serde_json::from_str(text).expect("JSON") };
        info["metadata"] = parsed;
    }
    assert_eq!(said, swifts, "{name}: device {dev}");
    let ranges: Vec<Value> = broker.shard_ranges().expect("shard ranges").iter().map(range).collect();
    let by_name = |ranges: &[Value]| {
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|range| range.to_string());
        ranges
    };
    assert_eq!(by_name(&ranges), by_name(list(&wanted["shard_ranges"])), "{name}: device {dev}");
}

/// A range as the vectors write it: its columns in order.
fn range(range: &ShardRange) -> Value {
    json!([
        range.name,
        range.timestamp.as_str(),
        range.lower,
        range.upper,
        range.object_count,
        range.bytes_used,
        range.meta_timestamp.as_str(),
        range.deleted,
        range.state,
        range.state_timestamp.as_str(),
        range.epoch.as_ref().map(|epoch| epoch.as_str()),
        range.reported,
        range.tombstones,
    ])
}
