//! Vectors of `merge_items`: lists of rows merged into a database, one after the other.

use serde_json::Value;

use super::databases::{Place, check_dump, id, list, number, rows, text};
use super::vectors::{bytes, json, knows};

#[test]
fn rows_merge_as_in_swift() {
    let index = json("merge_items/index.json");
    for entry in list(&index) {
        knows(entry, &["case", "file", "db"]);
        let case = text(&entry["case"]);
        let vector: Value = serde_json::from_slice(&bytes(text(&entry["file"]))).expect("a vector");
        knows(&vector, &["account", "container", "db", "steps", "after"]);
        assert_eq!(entry["db"], vector["db"]);
        let place = Place::of(text(&vector["db"]));
        let mut broker = place.broker();
        for step in list(&vector["steps"]) {
            knows(step, &["items", "source", "hash", "max_row"]);
            let source = (!step["source"].is_null()).then(|| id(&step["source"]));
            broker
                .merge_rows(rows(&step["items"]), source.as_ref())
                .unwrap_or_else(|e| panic!("{case}: {e}"));
            let info = broker.info().expect("info");
            assert_eq!(info.hash.to_string(), text(&step["hash"]), "{case}");
            assert_eq!(info.max_row.0, number(&step["max_row"]), "{case}");
            assert_eq!(
                (&*info.account, &*info.container),
                (text(&vector["account"]), text(&vector["container"]))
            );
        }
        check_dump(broker.path(), &vector["after"], &[], case);
    }
}

/// Every file of the folder is in the index.
#[test]
fn every_file_is_in_the_index() {
    let index = json("merge_items/index.json");
    let mut known = vec!["index.json".to_owned()];
    for entry in list(&index) {
        known.extend(["file", "db"].map(|key| text(&entry[key]).replace("merge_items/", "")));
    }
    for entry in std::fs::read_dir(super::vectors::root().join("merge_items")).expect("the vectors") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        assert!(known.contains(&name), "{name} is in no index");
    }
}
