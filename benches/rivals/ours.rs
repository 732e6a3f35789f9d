//! Two of our agents: a daemon that serves on one node, `agent --once` on the other.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use swiftlet::hash_path::PartShift;
use swiftlet::replica::RowHash;
use swiftlet::ring::{Device, DeviceId, FormatVersion, Ring};

use crate::contender::Contender;
use crate::measure::{Measured, Memory, Server, run, watch};
use crate::workshop::{self, Pair};

const AGENT: &str = env!("CARGO_BIN_EXE_agent");
/// The agent listens this far above the container server's port.
const OFFSET: u16 = 1;
const START_LIMIT: Duration = Duration::from_secs(10);

/// Two nodes with one device each, `a` the sender's and `b` the receiver's.
pub struct Agents {
    root: PathBuf,
    port: u16,
}

impl Agents {
    /// Writes their ring and configuration.
    pub fn new(root: &Path) -> Agents {
        fs::create_dir_all(root).expect("a directory");
        let [sender, receiver] = ["a", "b"].map(address);
        let offset = OFFSET;
        let free =
            TcpListener::bind((receiver, 0)).and_then(|listener| listener.local_addr()).expect("a free port");
        let port = free.port() - offset;
        let agents = Agents { root: root.to_owned(), port };
        let device = |id, ip: Ipv4Addr, name: &str| Device {
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
        };
        let shift = PartShift::new(32 - workshop::PART_POWER).expect("a partition power");
        let replica = |id| vec![DeviceId(id); 1 << workshop::PART_POWER];
        let devices = vec![Some(device(0, sender, "a")), Some(device(1, receiver, "b"))];
        let ring = Ring::from_rows(shift, devices, vec![replica(0), replica(1)]).expect("a ring");
        ring.save(&root.join("container.ring.gz"), FormatVersion::V1).expect("a ring file");
        let salt = workshop::SALT;
        fs::write(
            root.join("swift.conf"),
            format!("[swift-hash]\nswift_hash_path_prefix = {salt}\nswift_hash_path_suffix = {salt}\n"),
        )
        .expect("swift.conf");
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().expect("a user").name;
        let root = root.display();
        for (node, ip) in [("a", sender), ("b", receiver)] {
            let conf = format!(
                "[DEFAULT]\nbind_ip = {ip}\nbind_port = {port}\nuser = {user}\nswift_dir = {root}\n\
                 devices = {root}/devices\nmount_check = false\nrecon_cache_path = {root}/recon-{node}\n\
                 [container-replicator]\nagent_port_offset = {offset}\nagent_passes = no\nlog_level = DEBUG\n"
            );
            fs::create_dir_all(agents.root.join(format!("recon-{node}"))).expect("a directory");
            fs::write(agents.conf(node), conf).expect("a configuration");
        }
        agents
    }

    /// Where they work.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A node's configuration.
    pub fn conf(&self, node: &str) -> PathBuf {
        self.root.join(format!("{node}.conf"))
    }

    /// A node's device.
    pub fn device(&self, node: &str) -> PathBuf {
        self.root.join("devices").join(node)
    }

    /// Where a node has the database.
    pub fn database(&self, node: &str) -> PathBuf {
        workshop::hash_dir(&self.device(node)).dir().join(format!("{}.db", workshop::hash()))
    }

    fn log(&self) -> File {
        File::options().create(true).append(true).open(self.root.join("log")).expect("a log")
    }

    /// Starts a node's daemon, which serves its peers and runs no passes.
    pub fn serve(&self, node: &str) -> Server {
        let mut command = Command::new(AGENT);
        command
            .arg("--config")
            .arg(self.conf(node))
            .arg("-v")
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log());
        let server = Server(command.spawn().expect("an agent"));
        let started = Instant::now();
        while TcpStream::connect(self.address(node)).is_err() {
            let log = self.root.join("log");
            assert!(started.elapsed() < START_LIMIT, "no agent listens: {:?}", fs::read_to_string(log));
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Where a node's agent listens.
    fn address(&self, node: &str) -> SocketAddr {
        SocketAddr::from((address(node), self.port + OFFSET))
    }

    /// Where a node's container server would listen.
    pub fn container_server(&self, node: &str) -> SocketAddr {
        SocketAddr::from((address(node), self.port))
    }

    /// One pass of a node: what it said that it did.
    pub fn pass(&self, node: &str) -> String {
        let mut command = Command::new(AGENT);
        command.arg("--config").arg(self.conf(node)).args(["--once", "--json"]).stderr(self.log());
        let finished = watch(&mut command, None);
        let report: Value = serde_json::from_str(&finished.output).expect("the report as JSON");
        let ways = ["no_change", "hashmatch", "diff", "rsync", "remote_merge", "delta", "full", "failure"];
        let happened = |key: &&str| report[*key].as_u64().is_some_and(|count| count > 0);
        ways.into_iter().filter(happened).collect::<Vec<_>>().join(" ")
    }
}

fn address(node: &str) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, if node == "a" { 1 } else { 2 })
}

impl Contender for Agents {
    fn name(&self) -> &str {
        "ours"
    }

    fn run(&self, pair: &Pair) -> Measured {
        for node in ["a", "b"] {
            // Nothing of an earlier run may help this one.
            let _ = fs::remove_dir_all(self.device(node));
            fs::create_dir_all(self.device(node)).expect("a device");
        }
        workshop::copy(&pair.new, &self.database("a"));
        if let Some(old) = &pair.old {
            workshop::copy(old, &self.database("b"));
        }
        let expected = contents(&pair.new);
        let server = self.serve("b");
        let mut command = Command::new(AGENT);
        command.arg("--config").arg(self.conf("a")).args(["--once", "--json"]).stderr(self.log());
        let finished = run(&mut command, Some(&server.0));
        let report: Value = serde_json::from_str(&finished.output).expect("the report as JSON");
        let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
        assert_eq!(count("failure"), 0, "{report}");
        assert_eq!(contents(&self.database("a")), expected, "{}: the sender's rows", pair.name);
        assert_eq!(contents(&self.database("b")), expected, "{}: the receiver's rows", pair.name);
        let way = ["no_change", "hashmatch", "diff", "rsync", "remote_merge", "delta", "full"];
        let way: Vec<&str> = way.into_iter().filter(|key| count(key) > 0).collect();
        Measured {
            seconds: finished.seconds,
            wire_bytes: count("bytes_sent") + count("bytes_received"),
            sender: finished.memory.or(Memory { anonymous_kib: count("peak_anon_kib"), resident_kib: 0 }),
            receiver: finished.server,
            way: way.join(" "),
        }
    }
}

/// All that two replicas must agree on, in a form that the order of rows does not change. In every pair the sender holds
/// all of the receiver's rows, so that the union is what the sender began with.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    rows: u64,
    digest: u128,
    row_hash: String,
    metadata: String,
    whole: String,
}

fn contents(path: &Path) -> Contents {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
    let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).expect(sql);
    let (mut rows, mut digest, mut hash) = (0, 0_u128, RowHash([0; 16]));
    let mut statement = db
        .prepare(
            "SELECT name, created_at, size || '/' || content_type || '/' || etag || '/' || deleted || '/' || \
             storage_policy_index FROM object",
        )
        .expect("a database of ours");
    let mut found = statement.query([]).expect("rows");
    while let Some(row) = found.next().expect("a row") {
        let [name, created_at, rest] = [0, 1, 2].map(|column| row.get::<_, String>(column).expect("text"));
        hash.mix(&name, &created_at);
        let one = Md5::digest(format!("{name}\0{created_at}\0{rest}"));
        digest = digest.wrapping_add(u128::from_be_bytes(one.into()));
        rows += 1;
    }
    let row_hash = text("SELECT hash FROM container_info");
    assert_eq!(row_hash, hash.to_string(), "{}: the stored hash is not that of its rows", path.display());
    Contents {
        rows,
        digest,
        row_hash,
        metadata: text("SELECT metadata FROM container_info"),
        whole: text("PRAGMA quick_check"),
    }
}
