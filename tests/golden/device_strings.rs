//! The strings in `builders/builders.json`: devices to be added, and devices to be looked for.

use serde_json::{Map, Value, json};
use swiftlet::ring::device_string::{AddString, Search};

use super::vectors;

#[test]
fn devices_to_be_added_are_read_as_swift_reads_them() {
    check("add_values", |text| {
        let AddString { region, zone, ip, port, replication, name, meta } =
            AddString::parse(text).map_err(|fault| fault.to_string())?;
        let (replication_ip, replication_port) = replication.unzip();
        Ok(json!({
            "region": region, "zone": zone, "ip": ip, "port": port, "device": name, "meta": meta,
            "replication_ip": replication_ip, "replication_port": replication_port,
        }))
    });
}

#[test]
fn searches_are_read_as_swift_reads_them() {
    check("search_values", |text| {
        let Search { id, region, zone, ip, port, replication_ip, replication_port, name, weight, meta } =
            Search::parse(text).map_err(|fault| fault.to_string())?;
        assert_eq!(weight, None, "no string names a weight");
        let Value::Object(parts) = json!({
            "id": id, "region": region, "zone": zone, "ip": ip, "port": port, "device": name, "meta": meta,
            "replication_ip": replication_ip, "replication_port": replication_port,
        }) else {
            unreachable!()
        };
        Ok(parts.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into())
    });
}

fn check(list: &str, parse: impl Fn(&str) -> Result<Value, String>) {
    let vectors = vectors::json("builders/builders.json");
    let cases = vectors::list(&vectors[list]);
    assert!(cases.len() > 10, "{list}: where are the vectors?");
    for case in cases {
        vectors::knows(case, &["value", "parsed", "error"]);
        let text = vectors::text(&case["value"]);
        match (parse(text), case.get("parsed"), case.get("error")) {
            (Ok(parsed), Some(expected), None) => assert_eq!(parsed, *expected, "{text:?}"),
            (Err(_), None, Some(_)) => {}
            (found, ..) => panic!("{text:?}: {found:?}, and Swift {case}"),
        }
    }
}
