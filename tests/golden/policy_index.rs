//! Vectors of `policy_index`.

use serde_json::Value;
use swiftlet::merge::{BetterPolicy, PolicyClaim, better_policy, policy_to_adopt, queue_entry};
use swiftlet::replica::PolicyIndex;
use swiftlet::timestamp::Stamp;

use super::{update_item, vectors};

fn claim(value: &Value) -> PolicyClaim {
    vectors::knows(
        value,
        &["put_timestamp", "delete_timestamp", "status_changed_at", "count", "storage_policy_index"],
    );
    let stamp = |key: &str| Stamp::stored(value[key].as_str().expect("text"));
    PolicyClaim {
        storage_policy_index: PolicyIndex(value["storage_policy_index"].as_i64().expect("a number")),
        put_timestamp: stamp("put_timestamp"),
        delete_timestamp: stamp("delete_timestamp"),
        status_changed_at: stamp("status_changed_at"),
        count: value["count"].as_i64().expect("a number"),
    }
}

#[test]
fn the_better_policy_is_the_one_swift_takes() {
    let vectors = vectors::json("policy_index.json");
    vectors::knows(&vectors, &["compare", "queue", "queue_account", "root_account", "root_container"]);
    let cases = vectors["compare"].as_array().expect("a list");
    assert!(!cases.is_empty());
    for case in cases {
        vectors::knows(case, &["info", "remote_info", "cmp", "use_remote"]);
        let (mine, theirs) = (claim(&case["info"]), claim(&case["remote_info"]));
        let cmp = match better_policy(&mine, &theirs) {
            BetterPolicy::Mine => -1,
            BetterPolicy::Neither => 0,
            BetterPolicy::Theirs => 1,
        };
        assert_eq!(cmp, case["cmp"], "{case}");
        let adopted = policy_to_adopt(&mine, &theirs);
        let expected = case["use_remote"].as_bool().expect("a bool").then_some(theirs.storage_policy_index);
        assert_eq!(adopted, expected, "{case}");
    }
}

#[test]
fn misplaced_rows_are_queued_where_the_reconciler_looks() {
    let vectors = vectors::json("policy_index.json");
    assert_eq!(vectors["queue_account"], ".misplaced_objects");
    let root = |key: &str| vectors[key].as_str().expect("text");
    let cases = vectors["queue"].as_array().expect("a list");
    assert!(!cases.is_empty());
    for case in cases {
        vectors::knows(case, &["row", "queue_container", "entry"]);
        let row = update_item::row(&case["row"]);
        let queued = queue_entry(root("root_account"), root("root_container"), &row).expect("timestamps");
        assert_eq!(queued.container, case["queue_container"], "{case}");
        // An entry names no policy, and is merged under policy 0.
        let mut entry = case["entry"].clone();
        entry["storage_policy_index"] = 0.into();
        assert_eq!(queued.row, update_item::row(&entry), "{case}");
    }
}
