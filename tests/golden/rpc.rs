//! Vectors of `rpc`: what one REPLICATE call answers and leaves, done by a broker.

use serde_json::{Value, json as value};
use swiftlet::broker::Broker;
use swiftlet::merge::{PolicyClaim, parse_metadata, policy_to_adopt};
use swiftlet::replica::{Direction, PolicyIndex, RowHash, RowId, SyncPoint};
use swiftlet::timestamp::Timestamp;

use super::databases::{
    Place, check_dump, id, list, number, points, ranges, replication_info_json, rows, stamp, text,
};
use super::vectors::{json, knows};

/// Whole files arriving: no broker's business alone, see `whole_files`.
const WHOLE_FILES: [&str; 6] = [
    "12-rsync-then-merge",
    "13-rsync-then-merge-nothing-arrived",
    "14-complete-rsync-but-one-is-here",
    "15-sync-missing",
    "16-complete-rsync",
    "19-rsync-then-merge-refused-while-sharding",
];

#[test]
fn calls_do_what_they_do_in_swift() {
    let fields = [
        "case",
        "account",
        "container",
        "hash",
        "args",
        "files",
        "tmp",
        "response",
        "tmp_after",
        "after",
        "note",
    ];
    let vectors = json("rpc/rpc.json");
    let mut left_out = Vec::new();
    for vector in list(&vectors) {
        knows(vector, &fields);
        let case = text(&vector["case"]);
        if WHOLE_FILES.contains(&case) {
            left_out.push(case);
            continue;
        }
        assert!(list(&vector["tmp"]).is_empty() && list(&vector["tmp_after"]).is_empty(), "{case}");
        let hash = text(&vector["hash"]);
        let place = Place::empty(hash);
        for file in list(&vector["files"]) {
            let name = text(file).rsplit('/').next().expect("a name");
            place.put(text(file), name.trim_end_matches(".gz"));
        }
        let mut broker = place.broker();
        let args = list(&vector["args"]);
        let now = "1999999999.99999".parse().expect("a time");
        let mut changed = None;
        let (status, body) = match (text(&args[0]), &args[1..]) {
            ("sync", args) => {
                let (body, policy_changed) = sync(&mut broker, args, now);
                changed = policy_changed.then_some("status_changed_at");
                (200, body)
            }
            ("merge_items", [items, source]) => {
                let source = (!source.is_null()).then(|| id(source));
                broker.merge_rows(rows(items), source.as_ref()).expect("a merge");
                (202, Value::Null)
            }
            ("merge_syncs", [sent]) => {
                broker.merge_sync_points(&points(sent), Direction::Incoming).expect("a merge");
                (202, Value::Null)
            }
            ("merge_shard_ranges", [sent, _]) => {
                broker.merge_shard_ranges(ranges(sent)).expect("a merge");
                (202, Value::Null)
            }
            ("get_shard_ranges", []) => {
                assert_eq!(
                    broker.shard_ranges().expect("ranges"),
                    ranges(&vector["response"]["body"]),
                    "{case}"
                );
                (200, vector["response"]["body"].clone())
            }
            (op, args) => panic!("an operation this test does not know: {op} {args:?}"),
        };
        let mut response = value!({ "status": status, "body": body });
        let mut expected = vector["response"].clone();
        if let (Some(column), true) = (changed, body.is_object()) {
            for answer in [&mut response, &mut expected] {
                answer["body"][column] = "fresh".into();
            }
        }
        assert_eq!(response, expected, "{case}");
        for (file, dump) in vector["after"].as_object().expect("files") {
            check_dump(&place.home.dir().join(file), dump, changed.as_slice(), case);
        }
    }
    assert_eq!(left_out, WHOLE_FILES);
}

/// The receiving half of a `sync` call, and whether it took the sender's policy.
fn sync(broker: &mut Broker, args: &[Value], now: Timestamp) -> (Value, bool) {
    let [max_row, hash, sender, created_at, put, delete, metadata, more @ ..] = args else {
        panic!("too few arguments: {args:?}")
    };
    let mut answer = replication_info_json(broker);
    let mut info = broker.info().expect("info");
    let mut policy_changed = false;
    if let [status_changed_at, count, policy] = more {
        let theirs = PolicyClaim {
            storage_policy_index: PolicyIndex(number(policy)),
            put_timestamp: stamp(put),
            delete_timestamp: stamp(delete),
            status_changed_at: stamp(status_changed_at),
            count: number(count),
        };
        if let Some(policy) = policy_to_adopt(&PolicyClaim::from(&info), &theirs) {
            policy_changed = true;
            broker.set_policy(policy, now).expect("a policy");
            answer = replication_info_json(broker);
            info = broker.info().expect("info");
        }
    }
    if let Ok(metadata) = parse_metadata(text(metadata)) {
        broker.merge_metadata(&metadata).expect("a merge");
    }
    broker.merge_timestamps(&stamp(created_at), &stamp(put), &stamp(delete), now).expect("a merge");
    let mut point = broker.sync_point(&id(sender), Direction::Incoming).expect("a point");
    let max_row = RowId(number(max_row));
    if RowHash::parse(text(hash)) == Some(info.hash) && point < max_row {
        point = max_row;
        let raised = SyncPoint { remote_id: id(sender), point };
        broker.merge_sync_points(&[raised], Direction::Incoming).expect("a merge");
    }
    answer["point"] = point.0.into();
    (answer, policy_changed)
}
