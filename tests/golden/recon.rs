//! Vectors of `recon`: what the file held, what was merged in, and the file that Swift wrote.

use serde_json::Value;
use swiftlet::report::recon;

use super::vectors;

struct Case {
    before: String,
    update: serde_json::Map<String, Value>,
    after: String,
}

fn cases() -> Vec<Case> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = vectors::json("recon.json");
    let cases: Vec<Case> = list
        .as_array()
        .expect("a list of cases")
        .iter()
        .map(|case| {
            vectors::knows(case, &["before", "update", "after"]);
            Case {
                before: text(&case["before"]),
                update: case["update"].as_object().expect("a dict").clone(),
                after: text(&case["after"]),
            }
        })
        .collect();
    assert!(!cases.is_empty(), "recon.json holds no case");
    cases
}

#[test]
fn merging_gives_the_text_that_swift_wrote() {
    for case in cases() {
        let mut cache = recon::parse(case.before.as_bytes());
        recon::merge(&mut cache, &case.update);
        assert_eq!(recon::text(&cache), case.after, "before: {:?}", case.before);
    }
}

#[test]
fn the_file_ends_as_swift_left_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("container.recon");
    for case in cases() {
        std::fs::write(&path, &case.before).expect("writable");
        recon::update(&path, &case.update).expect("updated");
        assert_eq!(
            std::fs::read_to_string(&path).expect("readable"),
            case.after,
            "before: {:?}",
            case.before
        );

        if case.before.is_empty() {
            std::fs::remove_file(&path).expect("removed");
            recon::update(&path, &case.update).expect("made");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), case.after, "there was no file");
        }
    }
}
