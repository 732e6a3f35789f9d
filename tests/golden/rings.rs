//! Vectors of `rings`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use swiftlet::hash_path::{HashSalt, Partition};
use swiftlet::ring::format::IdWidth;
use swiftlet::ring::{Device, FormatVersion, Ring, RingFault};

use super::vectors;

/// Written by hand rather than by Swift's builder, to look like the rings of old Swifts.
const HAND_MADE: [&str; 2] = ["pp3-old-no-replication-ip.v1", "pp3-big-endian.v1"];

/// Written by Swift, but with sections and checksums that its builder does not write.
const EXTRA_SECTIONS: &str = "pp4-extra-section-";

#[test]
fn good_rings_are_read_as_swift_reads_them() {
    for (name, ring, expected) in good() {
        let number = |field: &str| expected[field].as_u64().unwrap_or_else(|| panic!("{name}: {field}"));
        vectors::knows(
            &expected,
            &[
                "format_version",
                "part_power",
                "part_shift",
                "partition_count",
                "replica_count",
                "replica_rows",
                "version",
                "next_part_power",
                "dev_id_bytes",
                "file_bytes",
                "uncompressed_bytes",
                "device_count",
                "weighted_device_count",
                "assigned_device_count",
                "devs",
                "part_nodes",
                "more_nodes",
                "lookups",
            ],
        );
        let file = std::fs::read(path(&name)).expect("the ring file");
        assert_eq!(file.len() as u64, number("file_bytes"), "{name}");
        let inflated = vectors::bytes(&format!("rings/{name}.ring.gz"));
        assert_eq!(inflated.len() as u64, number("uncompressed_bytes"), "{name}");
        assert_eq!(inflated[4..6], (number("format_version") as u16).to_be_bytes(), "{name}");

        assert_eq!(u64::from(ring.part_shift().bits()), number("part_shift"), "{name}");
        assert_eq!(32 - u64::from(ring.part_shift().bits()), number("part_power"), "{name}");
        assert_eq!(u64::from(ring.partition_count()), number("partition_count"), "{name}");
        assert_eq!(json!(ring.replica_count()), expected["replica_count"], "{name}");
        assert_eq!(json!(row_lengths(&ring)), expected["replica_rows"], "{name}");
        assert_eq!(json!(ring.version()), expected["version"], "{name}");
        assert_eq!(json!(ring.next_part_power()), expected["next_part_power"], "{name}");
        assert_eq!(ring.data().id_width.bytes() as u64, number("dev_id_bytes"), "{name}");
        assert_eq!(ring.devices().count() as u64, number("device_count"), "{name}");
        let weighted = ring.devices().filter(|device| device.weight > 0.0).count();
        assert_eq!(weighted as u64, number("weighted_device_count"), "{name}");
        assert_eq!(ring.assigned_device_count() as u64, number("assigned_device_count"), "{name}");
        check_devices(&name, &ring, &expected["devs"]);
    }
}

#[test]
fn primaries_and_handoffs_are_swifts() {
    for (name, ring, expected) in good() {
        let nodes = expected["part_nodes"].as_object().expect("part_nodes");
        assert!(!nodes.is_empty());
        for (partition, expected) in nodes {
            let primaries = ids(ring.primaries(parse(partition)));
            assert_eq!(json!(primaries), *expected, "{name}: primaries of {partition}");
        }
        let more = expected["more_nodes"].as_object().expect("more_nodes");
        assert!(!more.is_empty());
        for (partition, expected) in more {
            let handoffs = ids(ring.handoffs(parse(partition)));
            assert_eq!(json!(handoffs), *expected, "{name}: handoffs of {partition}");
        }
        for lookup in expected["lookups"].as_array().expect("lookups") {
            vectors::knows(lookup, &["account", "container", "partition", "nodes"]);
            let salt = HashSalt { prefix: b"pre1".into(), suffix: b"suf1".into() };
            let text = |field: &str| lookup[field].as_str().expect("text");
            let hash = salt.hash(text("account"), Some(text("container")), None);
            let partition = ring.part_shift().partition(&hash);
            assert_eq!(json!(partition.0), lookup["partition"], "{name}: {lookup}");
            assert_eq!(json!(ids(ring.primaries(partition))), lookup["nodes"], "{name}: {lookup}");
        }
    }
}

/// Saved in its own version, a ring of Swift's builder has the very bytes that Swift deflated; in the other version it
/// means the same.
#[test]
fn good_rings_are_written_as_swift_writes_them() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, ring, expected) in good() {
        for (version, number) in [(FormatVersion::V1, 1), (FormatVersion::V2, 2)] {
            let saved = directory.path().join(format!("{name}.ring.gz"));
            ring.save(&saved, version).unwrap_or_else(|e| panic!("{e}"));
            let again = Ring::load(&saved).unwrap_or_else(|e| panic!("{e}"));
            let (data, read) = (ring.data(), again.data());
            assert_eq!(read.assignments, data.assignments, "{name} as {version:?}");
            assert_eq!(read.devices, data.devices, "{name} as {version:?}");
            assert_eq!(
                (read.part_shift, read.version, read.next_part_power, &read.extra),
                (data.part_shift, data.version, data.next_part_power, &data.extra),
                "{name} as {version:?}"
            );
            if version == FormatVersion::V2 {
                assert_eq!(read.id_width, data.id_width, "{name}");
            }
            let by_builder = !HAND_MADE.contains(&name.as_str()) && !name.starts_with(EXTRA_SECTIONS);
            if by_builder && expected["format_version"] == number {
                let swift = vectors::bytes(&format!("rings/{name}.ring.gz"));
                let ours = inflate(&std::fs::read(&saved).expect("the saved ring"));
                let comparable = match version {
                    FormatVersion::V1 => swift.len(),
                    // What follows tells places in the compressed file, which another compressor lays out differently.
                    FormatVersion::V2 => index_start(&swift),
                };
                assert!(ours[..comparable] == swift[..comparable], "{name}: not the bytes that Swift writes");
                assert!(version == FormatVersion::V2 || ours.len() == swift.len(), "{name}");
            }
        }
    }
}

#[test]
fn bad_rings_are_refused_for_what_is_wrong_with_them() {
    let index = vectors::json("rings/index.json");
    let mut listed = BTreeSet::new();
    for bad in index["bad"].as_array().expect("bad") {
        vectors::knows(bad, &["ring", "swift_error"]);
        let file = bad["ring"].as_str().expect("a name");
        listed.insert(file.to_owned());
        let error = Ring::load(&vectors::root().join(file)).expect_err(file);
        let right = match file.trim_start_matches("rings/bad/bad-").trim_end_matches(".ring.gz") {
            "empty" => matches!(error.fault, RingFault::Cut),
            "magic" => matches!(error.fault, RingFault::Magic([b'R', b'2', b'N', b'G'])),
            "not-gzip" => matches!(error.fault, RingFault::NotGzip),
            "odd-length" => matches!(error.fault, RingFault::OddLength),
            "v2-checksum" => matches!(error.fault, RingFault::Checksum("swift/ring/assignments")),
            // All that is needed to read it is there, at its uncompressed offsets. But the servers beside us cannot, and a
            // node must not move databases by a ring that those who look for them do not have. The remedy is as easy as
            // for a cut file, and ours alone says that the ring was compressed anew rather than asks.
            "v2-recompressed" => matches!(error.fault, RingFault::Recompressed),
            "version-3" => matches!(error.fault, RingFault::Version(3)),
            unknown => panic!("{unknown}: no rule for this bad ring"),
        };
        assert!(right, "{error:?}, where Swift says {}", bad["swift_error"]);
        assert!(error.to_string().contains(file), "an error that does not name its file: {error}");
    }
    assert_eq!(listed, files("rings/bad"), "a bad ring is not in the index");
}

#[test]
fn every_ring_file_is_in_the_index() {
    let mut listed = BTreeSet::from(["rings/index.json".to_owned(), "rings/bad".to_owned()]);
    for (name, ..) in good() {
        listed.extend([format!("rings/{name}.ring.gz"), format!("rings/{name}.json")]);
    }
    assert_eq!(listed, files("rings"));
}

/// Every good ring, by its name without `.ring.gz`, and what Swift says of it.
fn good() -> impl Iterator<Item = (String, Ring, Value)> {
    let index = vectors::json("rings/index.json");
    vectors::knows(&index, &["good", "bad"]);
    let good = index["good"].as_array().expect("good").clone();
    assert!(!good.is_empty());
    good.into_iter().map(|good| {
        vectors::knows(&good, &["ring", "expect"]);
        let file = good["ring"].as_str().expect("a ring");
        let ring = Ring::load(&vectors::root().join(file)).unwrap_or_else(|error| panic!("{error}"));
        let name =
            file.strip_prefix("rings/").and_then(|name| name.strip_suffix(".ring.gz")).expect("a ring");
        (name.to_owned(), ring, vectors::json(good["expect"].as_str().expect("an expectation")))
    })
}

fn check_devices(name: &str, ring: &Ring, expected: &Value) {
    let expected = expected.as_array().expect("devs");
    assert_eq!(ring.data().devices.len(), expected.len(), "{name}");
    for (device, expected) in ring.data().devices.iter().zip(expected) {
        let Some(device) = device else {
            assert!(expected.is_null(), "{name}: a hole for {expected}");
            continue;
        };
        let Device {
            id,
            region,
            zone,
            ip,
            port,
            replication_ip,
            replication_port,
            name: directory,
            weight,
            meta,
            extra,
        } = &**device;
        let mut described = json!({
            "id": id, "region": region, "zone": zone, "ip": ip, "port": port, "replication_ip": replication_ip,
            "replication_port": replication_port, "device": directory, "weight": weight, "meta": meta,
        });
        if expected.get("meta").is_none() {
            assert_eq!(meta, "");
            described.as_object_mut().expect("an object").remove("meta");
        }
        assert!(extra.is_empty(), "{name}: no vector has keys of its own, yet {extra:?}");
        assert_eq!(described, *expected, "{name}");
        assert_eq!(ring.device(*id), Some(&**device), "{name}");
    }
}

fn row_lengths(ring: &Ring) -> Vec<usize> {
    let assignments = &ring.data().assignments;
    let length =
        |row| (0..ring.partition_count()).filter_map(|p| assignments.device(row, Partition(p))).count();
    (0..assignments.rows()).map(length).collect()
}

fn ids<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Vec<u32> {
    devices.into_iter().map(|device| device.id.0).collect()
}

fn parse(partition: &str) -> Partition {
    Partition(partition.parse().expect("a partition"))
}

fn path(name: &str) -> std::path::PathBuf {
    vectors::root().join("rings").join(format!("{name}.ring.gz"))
}

/// The entries of a directory of the vectors, by their names below the root.
fn files(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(vectors::root().join(Path::new(directory))).expect("the vectors");
    entries
        .map(|entry| format!("{directory}/{}", entry.expect("an entry").file_name().to_str().expect("plain")))
        .collect()
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut inflated).expect("sound gzip");
    inflated
}

/// Where a v2 file's index begins when inflated.
fn index_start(inflated: &[u8]) -> usize {
    let offset = &inflated[inflated.len() - 16..inflated.len() - 8];
    u64::from_be_bytes(offset.try_into().expect("8 bytes")) as usize
}

#[test]
fn wide_ids_stay_wide() {
    let wide: Vec<_> =
        good().filter(|(_, ring, _)| ring.data().id_width == IdWidth::Four).map(|it| it.0).collect();
    assert_eq!(wide, ["pp6-four-byte-ids.v2"]);
}
