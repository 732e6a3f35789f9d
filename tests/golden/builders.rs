//! Vectors of `builders`: the files, what Swift makes of them, and what we write in their place.
//!
//! The strings beside them in the same file are another module's.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use swiftlet::ring::builder::Builder;
use swiftlet::ring::format::{Device, DeviceId};
use swiftlet::ring::placement::plan::Plan;
use swiftlet::ring::placement::tiers::{Node, ROOT, Tier};

use super::vectors::{self, list};

#[test]
fn builders_are_read_as_swift_reads_them() {
    for (name, builder, vector) in builders() {
        let contents = &vector["contents"];
        vectors::knows(
            contents,
            &[
                "part_power",
                "next_part_power",
                "replicas",
                "min_part_hours",
                "parts",
                "devs",
                "devs_changed",
                "dev_id_bytes",
                "version",
                "overload",
                "_replica2part2dev",
                "_last_part_moves_epoch",
                "_last_part_moves",
                "_last_part_gather_start",
                "_dispersion_graph",
                "dispersion",
                "_remove_devs",
                "id",
            ],
        );
        assert_eq!(described(&builder), normal(contents), "{name}");
    }
}

#[test]
fn a_builder_that_was_saved_is_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, mut builder, _) in builders() {
        let path = directory.path().join("container.builder");
        let loaded = builder.clone();
        builder.save(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(builder, loaded, "{name}: saving changed it");
        assert_eq!(Builder::load(&path).unwrap_or_else(|error| panic!("{error}")), loaded, "{name}");
    }
}

#[test]
fn balance_and_plan_are_swifts() {
    for (name, builder, vector) in builders() {
        let near = |what: &str, ours: f64, swifts: &Value| {
            let swifts = swifts.as_f64().unwrap_or_else(|| panic!("{name}: {what}: {swifts}"));
            assert!((ours - swifts).abs() < 1e-9, "{name}: {what} is {ours}, with Swift {swifts}");
        };
        let plan = builder.plan().unwrap_or_else(|error| panic!("{name}: {error}"));
        near("balance", builder.balance().expect("weight"), &vector["balance"]);
        near("required overload", plan.required_overload(), &vector["required_overload"]);

        let most = plan.most_when_spread();
        let figures: [(&str, &dyn Fn(Node) -> f64); 3] = [
            ("weighted_replicas", &|node| plan.weighted(node)),
            ("wanted_replicas", &|node| plan.wanted(node)),
            // Swift has the replicas as they are for the whole cluster, where nobody asks for the most.
            ("max_replicas", &|node| if node == ROOT { plan.replicas() } else { most[node].into() }),
        ];
        for (what, ours) in figures {
            let mut told = BTreeSet::new();
            for entry in list(&vector[what]) {
                let [key, swifts] = list(entry) else { panic!("{name}: {what}: {entry}") };
                let node = node(&plan, key).unwrap_or_else(|| panic!("{name}: {what}: no tier {key}"));
                assert!(told.insert(node), "{name}: {what}: {key} comes twice");
                near(&format!("{what} of {key}"), ours(node), swifts);
            }
            for node in (0..plan.tree().node_count()).filter(|node| !told.contains(node)) {
                assert_eq!(
                    ours(node),
                    0.0,
                    "{name}: {what} of {}, of which Swift has none",
                    plan.tree().tier(node)
                );
            }
            assert!(told.len() > 1, "{name}: {what}");
        }
    }
}

#[test]
fn every_builder_file_has_a_vector() {
    let listed: BTreeSet<String> = builders().map(|(name, ..)| name).collect();
    let entries = std::fs::read_dir(vectors::root().join("builders")).expect("the vectors");
    let names =
        entries.map(|entry| format!("builders/{}", entry.expect("one").file_name().to_str().expect("plain")));
    assert_eq!(names.filter(|name| name != "builders/builders.json").collect::<BTreeSet<_>>(), listed);
}

/// Every builder by its file's name, read by us, with what Swift says of it.
fn builders() -> impl Iterator<Item = (String, Builder, Value)> {
    let vectors = vectors::json("builders/builders.json");
    vectors::knows(&vectors, &["builders", "add_values", "search_values"]);
    let builders = list(&vectors["builders"]).to_vec();
    assert!(!builders.is_empty());
    builders.into_iter().map(|vector| {
        vectors::knows(
            &vector,
            &[
                "builder",
                "contents",
                "balance",
                "required_overload",
                "weighted_replicas",
                "wanted_replicas",
                "max_replicas",
            ],
        );
        let name = vectors::text(&vector["builder"]).to_owned();
        let builder = Builder::load(&vectors::root().join(&name)).unwrap_or_else(|error| panic!("{error}"));
        (name, builder, vector)
    })
}

/// A builder of ours under Swift's keys.
fn described(builder: &Builder) -> Value {
    let parts = builder.parts();
    let device = |device: &Device| {
        let mut described = serde_json::to_value(device).expect("a device is JSON");
        described["parts"] = json!(parts[device.id.0 as usize]);
        described
    };
    let ids = builder.devices().map(|device| device.id.0 as usize + 1).max().unwrap_or(0);
    let devices = (0..ids as u32).map(|id| builder.device(DeviceId(id)).map(device));
    let removed = builder.devices().filter(|device| builder.is_marked(device.id));
    let spread = builder.spread().expect("these builders were spread");
    let graph: Vec<Value> = spread.graph.iter().map(|(tier, counts)| json!([key(tier), counts])).collect();
    json!({
        "part_power": builder.part_power(),
        "next_part_power": builder.next_part_power(),
        "replicas": builder.replicas(),
        "min_part_hours": builder.min_part_hours(),
        "parts": builder.partitions(),
        "devs": devices.collect::<Vec<_>>(),
        "devs_changed": builder.devices_changed(),
        "dev_id_bytes": builder.id_width().bytes(),
        "version": builder.version(),
        "overload": builder.overload(),
        "_replica2part2dev": builder.rows(),
        "_last_part_moves_epoch": builder.moved_epoch_secs(),
        "_last_part_moves": builder.moved_hours(),
        "_last_part_gather_start": builder.gather_start(),
        "_dispersion_graph": graph,
        "dispersion": spread.dispersion,
        "_remove_devs": removed.map(device).collect::<Vec<_>>(),
        "id": builder.id(),
    })
}

/// What Swift has, with numbers that may be fractions as such, and what has no order of its own in ours.
fn normal(contents: &Value) -> Value {
    let mut normal = contents.clone();
    let fraction = |value: &mut Value| *value = json!(value.as_f64().expect("a number"));
    for key in ["replicas", "overload", "dispersion"] {
        fraction(&mut normal[key]);
    }
    for devices in ["devs", "_remove_devs"] {
        let devices = normal[devices].as_array_mut().expect("devices");
        devices
            .iter_mut()
            .filter(|device| !device.is_null())
            .for_each(|device| fraction(&mut device["weight"]));
    }
    let removed = normal["_remove_devs"].as_array_mut().expect("devices");
    removed.sort_by_key(|device| device["id"].as_u64());
    let graph = normal["_dispersion_graph"].as_array_mut().expect("tiers");
    graph.sort_by_key(|entry| tier(&entry[0]));
    normal
}

/// A tier's key in the vectors: region, zone, ip and id, as far as it goes.
fn key(tier: &Tier) -> Value {
    let Tier { region, zone, ip, device } = tier;
    let all = [json!(region), json!(zone), json!(ip), json!(device)];
    all.into_iter().take(tier.depth()).collect()
}

fn tier(key: &Value) -> Tier {
    let key = list(key);
    Tier {
        region: key.first().map(|region| region.as_i64().expect("a region")),
        zone: key.get(1).map(|zone| zone.as_i64().expect("a zone")),
        ip: key.get(2).map(|ip| vectors::text(ip).to_owned()),
        device: key.get(3).map(|id| DeviceId(id.as_u64().expect("an id") as u32)),
    }
}

fn node(plan: &Plan, key: &Value) -> Option<Node> {
    let tier = tier(key);
    plan.tree().find(&tier)
}
