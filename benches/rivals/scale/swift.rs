//! Swift's own replicator over a few databases of the same kind: three container servers, and passes of one node.
//!
//! All replicas are equal, so no rsync daemon is called. Swift takes minutes for what our agents do in seconds, hence few,
//! or a few of many: its rate does not depend on how many it passes over, but on how much of them is in memory.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use serde_json::Value;
use swiftlet::hash_path::Partition;

use super::fleet::{Fleet, NODES};
use super::nodes::{address, free_port, write_ring};
use crate::measure::{Server, run};
use crate::network::await_listeners;
use crate::ours;
use crate::swift::Swift;

/// Databases a second of so many passes of the first node, one after the other, from nothing known on: over all of a
/// fleet, or over those of some partitions, which are so many.
pub fn passes(
    swift: &Swift,
    root: &Path,
    fleet: &Fleet,
    only: Option<(&[Partition], u32)>,
    count: usize,
) -> Vec<f64> {
    fs::create_dir_all(root).expect("a directory");
    let port = free_port();
    write_ring(root, fleet.part_power, |_| port);
    // Without a log to write to, Swift sends its lines over the network.
    let log = tempfile::tempdir().expect("a directory");
    let lines = UnixDatagram::bind(log.path().join("log")).expect("a socket for the log");
    thread::spawn(move || {
        let mut line = [0; 8192];
        while lines.recv(&mut line).is_ok() {}
    });
    let conf = |node: usize| -> PathBuf { root.join(format!("swift{node}.conf")) };
    for node in 0..NODES {
        let (ip, devices, root, log) =
            (address(node), fleet.root.display(), root.display(), log.path().display());
        let text = format!(
            "[DEFAULT]\nbind_ip = {ip}\nbind_port = {port}\nuser = {user}\nswift_dir = {root}\ndevices = {devices}\n\
             mount_check = false\nrecon_cache_path = {root}/recon{node}\nworkers = 0\nlog_address = {log}/log\n\
             [pipeline:main]\npipeline = container-server\n[app:container-server]\nuse = egg:swift#container\n\
             [container-replicator]\ndatabases_per_second = 0\n",
            user = ours::user(),
        );
        fs::create_dir_all(format!("{root}/recon{node}")).expect("a directory");
        fs::write(conf(node), text).expect("a configuration");
    }
    let _servers: Vec<Server> = (0..NODES)
        .map(|node| {
            let mut command = swift.here(root, "swift-container-server");
            command.arg(conf(node)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = Server(command.spawn().expect("a container server"));
            await_listeners(&mut server.0, port, node + 1);
            server
        })
        .collect();
    let databases = only.map_or(fleet.count, |(_, databases)| databases);
    let pass = |_| {
        let mut command = swift.here(root, "swift-container-replicator");
        command.arg(conf(0)).arg("--once");
        if let Some((partitions, _)) = only {
            let numbers: Vec<String> = partitions.iter().map(Partition::to_string).collect();
            command.arg("--partitions").arg(numbers.join(","));
        }
        run(command.stderr(Stdio::null()), None);
        let told = fs::read(root.join("recon0/container.recon")).expect("what it says of its pass");
        let told: Value = serde_json::from_slice(&told).expect("what it says as JSON");
        let stats = &told["replication_stats"];
        assert_eq!(stats["attempted"].as_u64(), Some(databases.into()), "{told}");
        // On a busy machine a server now and then takes longer than Swift waits for it.
        assert!(stats["failure"].as_u64() <= Some(u64::from(databases / 50)), "{told}");
        f64::from(databases) / told["replication_time"].as_f64().expect("seconds")
    };
    (0..count).map(pass).collect()
}
