//! Vectors of `content_type`.

use swiftlet::merge::split_swift_bytes;

use super::vectors;

#[test]
fn content_types_are_split_as_swift_splits_them() {
    let cases = vectors::json("content_type.json");
    let cases = cases.as_array().expect("a list");
    assert!(!cases.is_empty());
    for case in cases {
        vectors::knows(case, &["in", "content_type", "swift_bytes"]);
        let (content_type, swift_bytes) = split_swift_bytes(case["in"].as_str().expect("text"));
        assert_eq!(content_type, case["content_type"], "{case}");
        assert_eq!(serde_json::json!(swift_bytes), case["swift_bytes"], "{case}");
    }
}
