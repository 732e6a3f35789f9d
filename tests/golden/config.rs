//! Vectors of `config`: conf files to the replicator's values, words for true, which devices are ours, rsync's modules.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use swiftlet::config::ini::{IniError, LineFault, Options, ValueFault};
use swiftlet::config::{
    Cluster, Config, ConfigError, RsyncDevice, is_local_device, load_options, rsync_module,
};
use tempfile::TempDir;

use super::vectors::{self, knows, list, text};

/// The ring that the vectors were made with has this many replicas.
const REPLICAS: f64 = 3.0;

#[test]
fn every_kind_of_vector_is_known() {
    knows(&vectors::json("config.json"), &["files", "truthy", "is_local_device", "rsync_module"]);
}

#[test]
fn conf_files_mean_what_they_mean_to_swift() {
    for vector in list(&vectors::json("config.json")["files"]) {
        knows(vector, &["case", "files", "options", "replicator", "error"]);
        let (_directory, path) = written(&vector["files"]);
        let options = load_options(&path);
        if let Some(expected) = vector.get("options") {
            let expected: Options = serde_json::from_value(expected.clone()).expect("options");
            assert_eq!(options.as_ref(), Ok(&expected), "{vector}");
        }
        let config = options.and_then(|options| Config::new(&options, cluster()));
        match vector.get("error") {
            Some(expected) => {
                assert_eq!(config.as_ref().err().map(error_name), expected.as_str(), "{vector}");
                assert!(vector.get("replicator").is_none());
            }
            None => assert_eq!(replicator(&config.expect("a config")), vector["replicator"], "{vector}"),
        }
    }
}

#[test]
fn the_words_for_true_are_swifts() {
    for pair in list(&vectors::json("config.json")["truthy"]) {
        // No conf file can hold leading white space, so not by way of a file.
        let options = Options::from([("handoffs_only".to_owned(), text(&pair[0]).to_owned())]);
        let config = Config::new(&options, cluster()).expect("a config");
        assert_eq!(Some(config.handoffs_only), pair[1].as_bool(), "{pair}");
    }
}

#[test]
fn our_devices_are_those_that_swift_takes_for_its_own() {
    for vector in list(&vectors::json("config.json")["is_local_device"]) {
        knows(vector, &["my_ips", "my_port", "dev_ip", "dev_port", "local"]);
        let my_ips: Vec<String> = serde_json::from_value(vector["my_ips"].clone()).expect("addresses");
        let my_port = (!vector["my_port"].is_null()).then(|| port(&vector["my_port"]));
        let local = is_local_device(&my_ips, my_port, text(&vector["dev_ip"]), port(&vector["dev_port"]));
        assert_eq!(Some(local), vector["local"].as_bool(), "{vector}");
    }
}

#[test]
fn rsync_modules_are_named_as_by_swift() {
    for vector in list(&vectors::json("config.json")["rsync_module"]) {
        knows(vector, &["template", "device", "module"]);
        let device = &vector["device"];
        knows(
            device,
            &[
                "id",
                "region",
                "zone",
                "ip",
                "port",
                "device",
                "weight",
                "meta",
                "replication_ip",
                "replication_port",
            ],
        );
        let number = |name: &str| device[name].as_u64().and_then(|n| n.try_into().ok()).expect(name);
        let device = RsyncDevice {
            ip: text(&device["ip"]),
            port: port(&device["port"]),
            replication_ip: text(&device["replication_ip"]),
            replication_port: port(&device["replication_port"]),
            region: number("region"),
            zone: number("zone"),
            device: text(&device["device"]),
            meta: text(&device["meta"]),
        };
        let module = rsync_module(text(&vector["template"]), &device);
        assert_eq!(module.as_deref(), vector["module"].as_str(), "{vector}");
    }
}

/// The files of a vector in a directory, and the path that Swift was given: of a file alone, else of the directory.
fn written(files: &Value) -> (TempDir, std::path::PathBuf) {
    let files: BTreeMap<String, String> = serde_json::from_value(files.clone()).expect("texts of files");
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in &files {
        std::fs::write(directory.path().join(name), content).expect("a file");
    }
    let path = match files.keys().next() {
        Some(alone) if files.len() == 1 => directory.path().join(alone),
        _ => directory.path().to_owned(),
    };
    (directory, path)
}

fn cluster() -> Cluster {
    Cluster::parse(Path::new("swift.conf"), b"[swift-hash]\nswift_hash_path_suffix = s\n").expect("a salt")
}

/// A config under the names of Swift's `Replicator`.
fn replicator(config: &Config) -> Value {
    json!({
        "root": config.devices,
        "mount_check": config.mount_check,
        "bind_ip": config.bind_ip,
        "port": config.bind_port,
        "per_diff": config.per_diff,
        "max_diffs": config.max_diffs,
        "interval": config.interval.as_secs_f64(),
        "databases_per_second": config.databases_per_second,
        "node_timeout": config.node_timeout.as_secs_f64(),
        "conn_timeout": config.conn_timeout.as_secs_f64(),
        "rsync_compress": config.rsync_compress,
        "rsync_module": config.rsync_module,
        "reclaim_age": config.reclaim_age.as_secs_f64(),
        "recon_cache_path": config.recon_cache_path,
        "handoffs_only": config.handoffs_only,
        "handoff_delete": config.handoff_delete_within(REPLICAS).unwrap_or(0),
        "concurrency": config.concurrency,
    })
}

/// What Python calls our errors.
fn error_name(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::BadValue { .. } | ConfigError::NoSection { .. } => "ValueError",
        ConfigError::Ini(IniError::Line { fault, .. }) => match fault {
            LineFault::BeforeAnySection => "MissingSectionHeaderError",
            LineFault::NotAnOption => "ParsingError",
            LineFault::OptionTwice(_) => "DuplicateOptionError",
            LineFault::SectionTwice(_) => "DuplicateSectionError",
        },
        ConfigError::Ini(IniError::Value { fault, .. }) => match fault {
            ValueFault::UnknownName(_) => "InterpolationMissingOptionError",
            ValueFault::LonePercent => "InterpolationSyntaxError",
            ValueFault::TooDeep => "InterpolationDepthError",
            ValueFault::TooLong => "no such error",
        },
        _ => panic!("no vector ends in this: {error}"),
    }
}

fn port(value: &Value) -> u16 {
    value.as_u64().and_then(|port| port.try_into().ok()).expect("a port")
}
