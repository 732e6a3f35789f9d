//! Vectors of `contact_order`: scripted peers, who was called in which order, what was counted, and what became of our
//! copy; and which partitions a pass visits.
//!
//! Equal to Swift in all but this:
//!
//! * A database is never sent to the device that holds it. Swift asks itself where the ring names one replica, and where
//!   a dead primary's handoff is this very device; it counts the answer as a success, and with `handoff_delete = 1`
//!   removes a copy that nobody else has. Here a handoff that stands in for a dead primary keeps its copy.
//! * A misplaced copy whose only primary is this device goes to this device, as in Swift: to another directory.
//! * What a scripted peer of ours says is that it holds everything, so each success is counted as a `no_change` too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use swiftlet::broker::{AccountReport, Broker, fresh_id};
use swiftlet::hash_path::Partition;
use swiftlet::pass::{self, Observer, Scope};
use swiftlet::protocol::message::Refusal;
use swiftlet::replica::PolicyIndex;
use swiftlet::ring::Ring;
use swiftlet::tally::Tally;

use super::nodes::{Answer, Nodes, Script};
use super::vectors::{self, knows, list, text};

#[test]
fn peers_are_called_in_swifts_order() {
    let vectors = vectors::json("contact_order/contact_order.json");
    knows(&vectors, &["cases", "partition_filter"]);
    let mut stages: BTreeMap<String, (Nodes, Arc<Script>)> = BTreeMap::new();
    let (mut not_to_itself, mut kept) = (0, 0);
    for case in list(&vectors["cases"]) {
        let key = format!("{} {}", case["ring"], case["conf"]);
        let (nodes, script) = stages.entry(key).or_insert_with(|| stage(text(&case["ring"]), &case["conf"]));
        match check(nodes, script, case) {
            Difference::None => {}
            Difference::NotToItself => not_to_itself += 1,
            Difference::Kept => kept += 1,
        }
    }
    assert_eq!(list(&vectors["cases"]).len(), 98);
    assert_eq!((not_to_itself, kept), (5, 1));
}

/// Where we part from Swift.
enum Difference {
    None,
    /// It sends a database to the place that holds it.
    NotToItself,
    /// And then removes the only copy.
    Kept,
}

fn stage(ring: &str, conf: &Value) -> (Nodes, Arc<Script>) {
    let ring = Ring::load(&vectors::root().join(ring)).expect("a ring of the vectors");
    let conf: Vec<String> =
        conf.as_object().expect("an object").iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let mut nodes = Nodes::of(&ring, &conf.join("\n"));
    let script = Arc::new(Script::default());
    for device in ring.devices() {
        nodes.act(device.id.0, &script);
    }
    (nodes, script)
}

fn check(nodes: &Nodes, script: &Script, case: &Value) -> Difference {
    let fields = [
        "ring",
        "conf",
        "account",
        "container",
        "stored_in_partition",
        "true_partition",
        "local_dev",
        "primaries",
        "handoffs",
        "deleted_long_ago",
        "peer_answers",
        "contacted",
        "other_region",
        "ok",
        "responses",
        "counters",
        "db_still_here",
        "suffix_dir_still_here",
    ];
    knows(case, &fields);
    let (account, container) = (text(&case["account"]), text(&case["container"]));
    let (stored, right) = (number(&case["stored_in_partition"]), number(&case["true_partition"]));
    let local = number(&case["local_dev"]);
    let hash = nodes.hash(account, container);
    assert_eq!(nodes.ring.part_shift().partition(&hash), Partition(right));
    let ids = |devices: Vec<u32>| devices.into_iter().map(Value::from).collect::<Vec<Value>>();
    let primaries = nodes.ring.primaries(Partition(right)).iter().map(|device| device.id.0).collect();
    assert_eq!(Value::from(ids(primaries)), case["primaries"]);
    let handoffs = nodes.ring.handoffs(Partition(right)).map(|device| device.id.0).collect();
    assert_eq!(Value::from(ids(handoffs)), case["handoffs"]);

    let home = nodes.drive(local).hash_dir(Partition(stored), hash);
    let id = fresh_id("d");
    // Long ago is longer than the nodes' reclaim age.
    let long_ago = case["deleted_long_ago"] == true;
    let put = if long_ago { "0100000000.00000" } else { "1750000000.00000" }.parse().expect("a time");
    let mut broker =
        Broker::create(&home, account, container, put, PolicyIndex(0), &id, put).expect("a database");
    if long_ago {
        broker.delete_db("0200000000.00000".parse().expect("a time")).expect("a deletion");
        // Where Swift kept it, its account had not been told; the vectors do not say so in so many words.
        if case["counters"]["remove"] == 1 {
            report(&mut broker);
        }
    }
    drop(broker);
    let answers = case["peer_answers"].as_object().expect("an object");
    *script.answers.lock().unwrap() =
        answers.iter().map(|(id, answer)| (id.parse().expect("an id"), self::answer(answer))).collect();
    script.asked.lock().unwrap().clear();

    let tally = nodes.replicate(local, &home, Partition(stored));

    // Where Swift calls itself, that call and what it counted are left out.
    let swifts: Vec<u32> = list(&case["contacted"]).iter().map(number).collect();
    let to_itself = stored == right && swifts.contains(&local);
    let expected: Vec<u32> = swifts.into_iter().filter(|id| !(to_itself && *id == local)).collect();
    assert_eq!(*script.asked.lock().unwrap(), expected, "{case}");
    let counters = &case["counters"];
    let success = counters["success"].as_u64().expect("a count") - u64::from(to_itself);
    let mut swifts = Tally {
        attempted: 1,
        success,
        no_change: success,
        remove: counters["remove"].as_u64().expect("a count"),
        bytes_sent: tally.bytes_sent,
        bytes_received: tally.bytes_received,
        ..Tally::default()
    };
    for (_, devices) in counters["failure_nodes"].as_object().expect("an object") {
        for (device, times) in devices.as_object().expect("an object") {
            swifts.fail_node("127.0.0.1", device, times.as_u64().expect("a count"));
        }
    }
    assert_eq!(Value::from(swifts.failure), counters["failure"], "{case}");
    for never in ["hashmatch", "rsync", "diff", "remote_merge", "diff_capped", "deferred", "empty", "ts_repl"]
    {
        assert_eq!(counters[never], 0, "{case}");
    }
    // A copy that only its own device is said to hold stays.
    let kept = to_itself && case["db_still_here"] == false;
    if kept {
        assert_eq!((swifts.success, swifts.remove), (0, 1), "{case}");
        swifts.remove = 0;
    }
    // Of ours alone.
    (swifts.opened, swifts.failures_told) = (tally.opened, tally.failures_told);
    assert_eq!(tally, swifts, "{case}");
    assert_eq!(home.in_charge().unwrap().is_some(), kept || case["db_still_here"] == true, "{case}");
    let suffix = home.dir().parent().expect("a suffix directory");
    assert_eq!(suffix.exists(), kept || case["suffix_dir_still_here"] == true, "{case}");
    clear(&home);
    match (to_itself, kept) {
        (false, _) => Difference::None,
        (true, false) => Difference::NotToItself,
        (true, true) => Difference::Kept,
    }
}

/// The account knows.
fn report(broker: &mut Broker) {
    let info = broker.info().expect("info");
    let (put_timestamp, delete_timestamp) = (info.put_timestamp, info.delete_timestamp);
    let told = AccountReport { put_timestamp, delete_timestamp, object_count: 0, bytes_used: 0 };
    broker.set_reported(&told).expect("a report");
}

fn clear(home: &swiftlet::drive::HashDir) {
    match std::fs::remove_dir_all(home.dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

fn answer(value: &Value) -> Answer {
    match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Answer::Holds,
        (Some(false), _) => Answer::Refuses(Refusal::Failed("as the script says".to_owned())),
        (_, Some("507")) => Answer::Refuses(Refusal::NotMounted),
        (_, Some("raise")) => Answer::HangsUp,
        _ => panic!("an answer this test does not know: {value}"),
    }
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn partitions_are_visited_as_asked_for() {
    let vectors = vectors::json("contact_order/contact_order.json");
    let cases = list(&vectors["partition_filter"]);
    assert_eq!(cases.len(), 18);
    for case in cases {
        knows(case, &["ring", "handoffs_only", "dev", "partitions_asked_for", "visited"]);
        let ring = Ring::load(&vectors::root().join(text(&case["ring"]))).expect("a ring of the vectors");
        let local = number(&case["dev"]);
        let mut nodes = Nodes::of(&ring, &format!("handoffs_only = {}", case["handoffs_only"]));
        let script = Arc::new(Script::default());
        for device in ring.devices().map(|device| device.id.0) {
            nodes.act(device, &script);
            script.answers.lock().unwrap().insert(device, Answer::Holds);
        }
        for partition in 0..ring.partition_count() {
            put_in(&nodes, local, Partition(partition));
        }
        let wanted = list(&case["partitions_asked_for"]).iter().map(number).collect();
        let scope = Scope { devices: None, partitions: Some(wanted) };
        let visited = Visited(Mutex::default());
        pass::run(nodes.node(local), &scope, false, &visited).expect("a pass");
        let mut visited = visited.0.into_inner().unwrap();
        visited.sort();
        assert_eq!(visited, list(&case["visited"]).iter().map(number).collect::<Vec<u32>>(), "{case}");
    }
}

/// A database of any container in this partition.
fn put_in(nodes: &Nodes, device: u32, partition: Partition) {
    let inside =
        |name: &String| nodes.ring.part_shift().partition(&nodes.hash("AUTH_gold", name)) == partition;
    let container = (0..).map(|number| format!("c{number}")).find(inside).expect("a name");
    let home = nodes.home_of(device, "AUTH_gold", &container);
    let now = "1750000000.00000".parse().expect("a time");
    let id = fresh_id("d");
    Broker::create(&home, "AUTH_gold", &container, now, PolicyIndex(0), &id, now).expect("a database");
}

/// The partitions of the databases that a pass took up.
struct Visited(Mutex<Vec<u32>>);

impl Observer for Visited {
    fn progress(&self, _tally: &Tally, _done: usize, _devices: usize, database: &str) {
        let partition = database.split('/').rev().nth(3).expect("a partition in the path");
        self.0.lock().unwrap().push(partition.parse().expect("a number"));
    }
}
