//! Two of our agents: a daemon that serves on one node, `agent --once` on the other.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use swiftlet::hash_path::PartShift;
use swiftlet::ring::{Device, DeviceId, FormatVersion, Ring};

use crate::contender::{Contender, Ground};
use crate::measure::{Measured, Memory, Server, watch};
use crate::network::{await_listener, await_listeners};
use crate::proof::Contents;
use crate::workshop::{self, Pair};

/// The agent that is measured.
pub const AGENT: &str = env!("CARGO_BIN_EXE_agent");
/// Lines of the log that are worth a look.
const LAST_WORDS: usize = 30;

/// Two nodes with one device each, `a` the sender's and `b` the receiver's.
pub struct Agents {
    root: PathBuf,
    ground: Ground,
    /// Where the sender calls the receiver, and where that listens; the same unless something lies between them.
    called: u16,
    own: u16,
}

impl Agents {
    /// Writes their ring and configuration.
    pub fn new(root: &Path, ground: &Ground) -> Agents {
        fs::create_dir_all(root).expect("a directory");
        let link = &ground.link;
        // An agent listens above its container server's port, which nobody uses here. A sender that thinks the distance
        // greater calls what lies between them.
        let (ring_port, offset) = (link.free_port() - 1, 1);
        let called_offset = offset + u16::from(link.is_long());
        let agents = Agents {
            root: root.to_owned(),
            ground: ground.clone(),
            called: ring_port + called_offset,
            own: ring_port + offset,
        };
        write_ring(root, link.addresses, ring_port);
        let (root, user) = (root.display(), user());
        for ((node, ip), offset) in ["a", "b"].into_iter().zip(link.addresses).zip([called_offset, offset]) {
            let conf = format!(
                "[DEFAULT]\nbind_ip = {ip}\nbind_port = {ring_port}\nuser = {user}\nswift_dir = {root}\n\
                 devices = {root}/devices\nmount_check = false\nrecon_cache_path = {root}/recon-{node}\n\
                 [container-replicator]\nagent_port_offset = {offset}\nagent_passes = no\n\
                 agent_state_path = {root}/recon-{node}\nfallocate_reserve = 0\n"
            );
            fs::create_dir_all(agents.root.join(format!("recon-{node}"))).expect("a directory");
            fs::write(agents.conf(node), conf).expect("a configuration");
        }
        agents
    }

    /// Where everything of both nodes lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A node's configuration.
    pub fn conf(&self, node: &str) -> PathBuf {
        self.root.join(format!("{node}.conf"))
    }

    /// A node's one device.
    pub fn device(&self, node: &str) -> PathBuf {
        self.root.join("devices").join(node)
    }

    /// Where a node keeps the database.
    pub fn database(&self, node: &str) -> PathBuf {
        workshop::hash_dir(&self.device(node)).dir().join(format!("{}.db", workshop::hash()))
    }

    /// Where both nodes' agents log to.
    pub fn log(&self) -> File {
        File::options().create(true).append(true).open(self.root.join("log")).expect("a log")
    }

    /// The last that both nodes logged, for whoever has to find out what went wrong.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Where a node's container server would listen.
    pub fn container_server(&self, node: &str) -> SocketAddr {
        let [sender, receiver] = self.ground.link.addresses;
        SocketAddr::from((if node == "a" { sender } else { receiver }, self.called - 1))
    }

    /// A node's daemon, which serves its peers and runs no passes.
    pub fn serve(&self, node: &str) -> Server {
        let mut command = self.ground.link.receiver.command(AGENT);
        command.arg("--config").arg(self.conf(node));
        command.stdin(Stdio::null()).stdout(self.log()).stderr(self.log());
        let mut server = Server(command.spawn().expect("an agent"));
        await_listener(&mut server.0, self.own);
        server
    }

    /// Waits until a node's daemon listens.
    pub fn await_agent(&self, server: &mut Server, node: &str) {
        await_listeners(&mut server.0, self.own, if node == "a" { 1 } else { 2 });
    }

    /// One pass of a node, yet to be started.
    fn once(&self, node: &str) -> Command {
        let mut command = self.ground.link.sender.command(AGENT);
        command.arg("--config").arg(self.conf(node)).args(["--once", "--json"]).stderr(self.log());
        command
    }

    /// One pass of a node: what it says that it did.
    pub fn pass(&self, node: &str) -> String {
        let finished = watch(&mut self.once(node), None);
        ways(&serde_json::from_str(&finished.output).expect("the report as JSON"))
    }
}

/// In Swift's words, as far as there are any, what a pass did.
fn ways(report: &Value) -> String {
    let happened = |key: &&str| report[*key].as_u64().is_some_and(|count| count > 0);
    WAYS.into_iter().filter(happened).collect::<Vec<_>>().join(" ")
}

/// A ring of two devices, `a` and `b`, each with a replica of everything, and the `swift.conf` beside it.
pub fn write_ring(root: &Path, addresses: [Ipv4Addr; 2], port: u16) {
    let device = |(id, (ip, name)): (u32, (Ipv4Addr, &str))| {
        Some(Device {
            id: DeviceId(id),
            region: 1,
            zone: 1,
            ip: ip.to_string(),
            port,
            replication_ip: ip.to_string(),
            replication_port: port,
            name: name.to_owned(),
            weight: 100.0,
            meta: String::new(),
            extra: serde_json::Map::new(),
        })
    };
    let shift = PartShift::new(32 - workshop::PART_POWER).expect("a partition power");
    let replica = |id| vec![DeviceId(id); 1 << workshop::PART_POWER];
    let devices = (0..).zip(addresses.into_iter().zip(["a", "b"])).map(device).collect();
    let ring = Ring::from_rows(shift, devices, vec![replica(0), replica(1)]).expect("a ring");
    ring.save(&root.join("container.ring.gz"), FormatVersion::V1).expect("a ring file");
    let salt = workshop::SALT;
    let text = format!("[swift-hash]\nswift_hash_path_prefix = {salt}\nswift_hash_path_suffix = {salt}\n");
    fs::write(root.join("swift.conf"), text).expect("swift.conf");
}

/// Who we are: agents and Swift's daemons change to the user that their configuration names.
pub fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().expect("a user").name
}

impl Contender for Agents {
    fn name(&self) -> &str {
        "ours"
    }

    fn run(&self, pair: &Pair) -> Result<Measured, String> {
        for node in ["a", "b"] {
            // Nothing of an earlier run may help this one.
            let _ = fs::remove_dir_all(self.device(node));
            fs::create_dir_all(self.device(node)).expect("a device");
        }
        workshop::copy(&pair.new, &self.database("a"));
        if let Some(old) = &pair.old {
            workshop::copy(old, &self.database("b"));
        }
        let expected = Contents::of(&pair.new);
        let server = self.serve("b");
        let link = &self.ground.link;
        let delay = link.stretch(self.called, self.own);
        let mut command = self.once("a");
        self.ground.caches.settle();
        let carried = link.count();
        let finished = watch(&mut command, Some(&server.0));
        let wire_bytes = carried.bytes();
        let report: Value = serde_json::from_str(&finished.output).expect("the report as JSON");
        let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
        let log = || fs::read_to_string(self.root.join("log")).unwrap_or_default();
        assert_eq!(count("failure"), 0, "{}: {report}; {}", pair.name, log());
        for node in ["a", "b"] {
            assert_eq!(Contents::of(&self.database(node)), expected, "{}: the rows of {node}", pair.name);
        }
        drop(server);
        fs::remove_dir_all(self.root.join("devices")).expect("devices to remove");
        let told_bytes = count("bytes_sent") + count("bytes_received");
        Ok(Measured {
            seconds: finished.seconds,
            pass_seconds: report["elapsed"].as_f64(),
            processor_seconds: finished.processor_seconds,
            wire_bytes,
            payload_bytes: Some(delay.map_or(told_bytes, |delay| delay.carried())),
            sender: finished.memory.or(Memory { anonymous_kib: count("peak_anon_kib"), resident_kib: 0 }),
            receiver: finished.server,
            way: ways(&report),
        })
    }
}

const WAYS: [&str; 8] =
    ["no_change", "hashmatch", "diff", "rsync", "remote_merge", "delta", "full", "failure"];
