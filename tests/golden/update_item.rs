//! Vectors of `update_item`.

use serde_json::Value;
use swiftlet::merge::{merge_row, split_swift_bytes};
use swiftlet::replica::{PolicyIndex, Row};
use swiftlet::timestamp::RowTimes;

use super::vectors;

/// An object row as the vectors write it; the two times beside it may be absent.
pub fn row(value: &Value) -> Row {
    let fields = ["name", "created_at", "size", "content_type", "etag", "deleted", "storage_policy_index"];
    vectors::knows(value, &[&fields[..], &["ctype_timestamp", "meta_timestamp"]].concat());
    let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned();
    let number = |key: &str| value[key].as_i64().unwrap_or_else(|| panic!("{key} of {value}"));
    let text_or_none = |key: &str| match &value[key] {
        Value::Null => None,
        _ => Some(text(key)),
    };
    Row {
        row_id: None,
        name: text("name"),
        created_at: text("created_at"),
        size: number("size"),
        content_type: text("content_type"),
        etag: text("etag"),
        deleted: number("deleted"),
        storage_policy_index: PolicyIndex(number("storage_policy_index")),
        ctype_timestamp: text_or_none("ctype_timestamp"),
        meta_timestamp: text_or_none("meta_timestamp"),
    }
}

#[test]
fn a_row_meets_another_as_in_swift() {
    let cases = vectors::json("update_item.json");
    let cases = cases.as_array().expect("a list");
    assert!(!cases.is_empty());
    for case in cases {
        vectors::knows(case, &["new", "existing", "take_new", "merged"]);
        let new = row(&case["new"]);
        let existing = if case["existing"].is_null() { None } else { Some(row(&case["existing"])) };
        let merged = merge_row(&new, existing.as_ref()).expect("timestamps");
        // Swift has folded the two times into `created_at`, and leaves them where they were.
        let expected = Row { ctype_timestamp: None, meta_timestamp: None, ..row(&case["merged"]) };
        if case["take_new"].as_bool().expect("a bool") {
            assert_eq!(merged, Some(expected), "{case}");
        } else {
            assert_eq!(merged, None, "{case}");
            // Nothing is stored; what Swift was left with is the row there was, times and content type spelled anew.
            let mut existing = existing.expect("a row that was kept");
            existing.created_at = RowTimes::decode(&existing.created_at).expect("timestamps").encode();
            let (content_type, swift_bytes) = split_swift_bytes(&existing.content_type);
            let swift_bytes = swift_bytes.filter(|bytes| !bytes.is_empty());
            let parameter = swift_bytes.map_or(String::new(), |bytes| format!(";swift_bytes={bytes}"));
            existing.content_type = content_type + &parameter;
            assert_eq!(existing, expected, "{case}");
        }
    }
}
