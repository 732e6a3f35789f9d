//! Three nodes on loopback addresses with a device each: a daemon on every one that only serves, and passes as from cron.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use swiftlet::hash_path::PartShift;
use swiftlet::ring::{Device, DeviceId, FormatVersion, Ring};

use super::fleet::{Fleet, NODES, SALT, device_name};
use crate::measure::{Memory, Server};

const AGENT: &str = env!("CARGO_BIN_EXE_agent");
const START_LIMIT: Duration = Duration::from_secs(10);
/// Rare enough to take nothing from two processors that all share.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// The nodes, with their daemons.
pub struct Nodes {
    root: PathBuf,
    port: u16,
    servers: Vec<Server>,
}

/// What one pass of one node took and said.
pub struct Passed {
    /// From the start of the process to its end.
    pub seconds: f64,
    /// What it counted.
    pub report: Value,
    /// Of the pass.
    pub caller: Memory,
    /// The most that any of the daemons that answered had.
    pub answering: Memory,
}

impl Passed {
    /// One of the counters of the report.
    pub fn count(&self, key: &str) -> u64 {
        self.report[key].as_u64().unwrap_or_else(|| panic!("{key} in {}", self.report))
    }
}

impl Nodes {
    /// Writes ring and configuration for a fleet below `root`, and starts the daemons.
    pub fn start(root: &Path, fleet: &Fleet) -> Nodes {
        fs::create_dir_all(root).expect("a directory");
        let mut nodes = Nodes { root: root.to_owned(), port: free_port(), servers: Vec::new() };
        write_ring(root, fleet.part_power, |_| nodes.port);
        nodes.configure(fleet);
        nodes.servers = (0..NODES).map(|node| nodes.serve(node)).collect();
        nodes
    }

    fn configure(&self, fleet: &Fleet) {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().expect("a user").name;
        let (root, devices, port) = (self.root.display(), fleet.root.display(), self.port);
        for node in 0..NODES {
            let ip = address(node);
            // The default of 50 databases a second is meant to go easy on a node; here is to be seen what there is.
            let conf = format!(
                "[DEFAULT]\nbind_ip = {ip}\nbind_port = {port}\nuser = {user}\nswift_dir = {root}\n\
                 devices = {devices}\nmount_check = false\nrecon_cache_path = {root}/recon{node}\n\
                 [container-replicator]\ndatabases_per_second = 0\nagent_port_offset = {OFFSET}\nagent_passes = no\n\
                 agent_state_path = {root}/recon{node}\n"
            );
            fs::create_dir_all(self.root.join(format!("recon{node}"))).expect("a directory");
            fs::write(self.conf(node), conf).expect("a configuration");
        }
    }

    fn conf(&self, node: usize) -> PathBuf {
        self.root.join(format!("node{node}.conf"))
    }

    fn log(&self) -> File {
        File::options().create(true).append(true).open(self.root.join("log")).expect("a log")
    }

    fn serve(&self, node: usize) -> Server {
        let mut command = Command::new(AGENT);
        command
            .arg("--config")
            .arg(self.conf(node))
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log());
        let server = Server(command.spawn().expect("an agent"));
        let started = Instant::now();
        while TcpStream::connect((address(node), self.port + OFFSET)).is_err() {
            let log = fs::read_to_string(self.root.join("log"));
            assert!(started.elapsed() < START_LIMIT, "no agent listens: {log:?}");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// One pass of a node, which must succeed with every one of so many databases.
    pub fn pass(&self, node: usize, databases: u32) -> Passed {
        let mut command = Command::new(AGENT);
        command.arg("--config").arg(self.conf(node)).args(["--once", "--json"]).stdin(Stdio::null());
        let output = self.root.join("report.json");
        command.stdout(File::create(&output).expect("a report")).stderr(self.log());
        let started = Instant::now();
        let mut child = command.spawn().expect("an agent");
        let (mut caller, mut answering) = (Memory::default(), Memory::default());
        // Whoever is waited for by another thread is waited for to the very end, and no longer.
        let seconds = thread::scope(|scope| {
            let id = child.id();
            let waiting = scope.spawn(|| {
                let status = child.wait().expect("a child to wait for");
                (status, started.elapsed().as_secs_f64())
            });
            while !waiting.is_finished() {
                if is_agent(id) {
                    caller = caller.or(Memory::of(id));
                }
                for server in &self.servers {
                    answering = answering.or(Memory::of(server.0.id()));
                }
                thread::park_timeout(SAMPLE_EVERY);
            }
            let (status, seconds) = waiting.join().expect("waited for");
            let log = || fs::read_to_string(self.root.join("log"));
            assert!(status.success(), "{command:?} ended with {status}: {:?}", log());
            seconds
        });
        let report: Value = serde_json::from_str(&fs::read_to_string(&output).expect("a report"))
            .expect("the report as JSON");
        let mut passed = Passed { seconds, report, caller, answering };
        let own = Memory { anonymous_kib: passed.count("peak_anon_kib"), resident_kib: 0 };
        passed.caller = passed.caller.or(own);
        assert_eq!(
            (passed.count("failure"), passed.count("attempted")),
            (0, databases.into()),
            "{}",
            passed.report
        );
        passed
    }
}

/// The ring that has every partition on all three nodes.
pub fn write_ring(root: &Path, part_power: u8, port: impl Fn(usize) -> u16) {
    let device = |node: usize| {
        Some(Device {
            id: DeviceId(node as u32),
            region: 1,
            zone: 1,
            ip: address(node).to_string(),
            port: port(node),
            replication_ip: address(node).to_string(),
            replication_port: port(node),
            name: device_name(node),
            weight: 100.0,
            meta: String::new(),
            extra: serde_json::Map::new(),
        })
    };
    let shift = PartShift::new(32 - part_power).expect("a partition power");
    let row = |replica: u32| {
        (0..1 << part_power).map(|part: u32| DeviceId((part + replica) % NODES as u32)).collect()
    };
    let rows = (0..NODES as u32).map(row).collect();
    let ring = Ring::from_rows(shift, (0..NODES).map(device).collect(), rows).expect("a ring");
    ring.save(&root.join("container.ring.gz"), FormatVersion::V1).expect("a ring file");
    let conf = format!("[swift-hash]\nswift_hash_path_prefix = {SALT}\nswift_hash_path_suffix = {SALT}\n");
    fs::write(root.join("swift.conf"), conf).expect("swift.conf");
}

/// Where a node is reached.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, node as u8 + 1)
}

/// A port such that it and the one above it are free on all nodes.
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let one = TcpListener::bind((address(0), 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let port = one.port();
        let free = |node| {
            (port..=port.saturating_add(OFFSET)).all(|port| TcpListener::bind((address(node), port)).is_ok())
        };
        if port < u16::MAX && (0..NODES).all(free) {
            return port;
        }
    }
    panic!("no port is free on three addresses");
}

/// Between fork and exec a child still has our own memory.
fn is_agent(process: u32) -> bool {
    let program = fs::read_link(format!("/proc/{process}/exe"));
    program.is_ok_and(|program| program.file_name() == Path::new(AGENT).file_name())
}

/// The agent listens so far above the container server's port, where nobody is here.
const OFFSET: u16 = 1;
