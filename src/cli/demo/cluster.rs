//! The demo's nodes: their directories, the builder of their ring and the conf files; the daemons on them, and passes run
//! as an operator would run them.
//!
//! A node has one drive, and that is the device of the node's number in the ring. The kernel chooses the ports. They are
//! free when it does, and may be somebody else's a moment later; so if a daemon cannot have its port, others are chosen and
//! the ring is sent out anew. Drives know no ports and stay as they are.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use serde_json::Value;

use super::Trouble;
use super::deed::Deed;
use crate::drive::HashDir;
use crate::hash_path::{Hash, HashSalt, PartShift, Partition};
use crate::ring::builder::{Builder, DeviceChange, NewDevice};
use crate::ring::{DeviceId, FormatVersion, Ring};
use crate::stop::Stop;

/// Nodes at the start, each with one drive in a zone of its own.
pub const FIRST_NODES: usize = 4;
/// Replicas of a container.
pub const REPLICAS: usize = 3;
/// As many partitions as 2 to the power of this.
pub const PART_POWER: u8 = 5;

/// The number of a node, from 0; also the id of its drive in the ring.
pub type NodeIndex = usize;

/// Which device has which replica of which partition.
pub type Rows = Vec<Vec<DeviceId>>;

/// Some nodes below one directory.
pub struct Cluster {
    root: PathBuf,
    agent: PathBuf,
    salt: HashSalt,
    builder: Builder,
    nodes: Vec<Node>,
    stop: Stop,
}

/// One node.
struct Node {
    port: u16,
    daemon: Option<Child>,
}

impl Cluster {
    /// Makes the directories, `swift.conf` and a first ring. Nothing runs yet.
    pub fn build(root: &Path, prefix: &str, suffix: &str, stop: &Stop) -> Result<Cluster, Trouble> {
        let failed = |error: io::Error| Trouble::failed(BUILDING, error);
        if root.to_str().is_none_or(|path| path.contains('\n')) {
            let cause = format!("{} cannot be named in a conf file", root.display());
            return Err(Trouble::failed(BUILDING, cause));
        }
        let mut cluster = Cluster {
            root: root.to_owned(),
            agent: std::env::current_exe().map_err(failed)?,
            salt: HashSalt { prefix: prefix.into(), suffix: suffix.into() },
            builder: Builder::new(PART_POWER, REPLICAS as f64, 1).map_err(Trouble::at(BUILDING))?,
            nodes: Vec::new(),
            stop: stop.clone(),
        };
        fs::create_dir_all(cluster.etc()).map_err(failed)?;
        let text = format!(
            "[swift-hash]\nswift_hash_path_prefix = {prefix}\nswift_hash_path_suffix = {suffix}\n\n\
             [storage-policy:0]\nname = standard\ndefault = yes\n"
        );
        fs::write(cluster.etc().join("swift.conf"), text).map_err(failed)?;
        for node in 0..FIRST_NODES {
            cluster.add_node(node as i64 + 1)?;
        }
        cluster.rebalance()?;
        Ok(cluster)
    }

    /// A new node with a drive that the builder knows, and the ring not before it is rebalanced.
    pub fn add_node(&mut self, zone: i64) -> Result<NodeIndex, Trouble> {
        let node = self.nodes.len();
        let step = format!("adding node {}", node);
        let failed = |error: io::Error| Trouble::failed(&step, error);
        let port = free_ports(1).map_err(failed)?[0];
        let device = NewDevice {
            region: 1,
            zone,
            ip: LOOPBACK.to_owned(),
            port,
            replication_ip: LOOPBACK.to_owned(),
            replication_port: port,
            name: device_name(node),
            weight: 100.0,
            meta: String::new(),
        };
        let id = self.builder.add(device).map_err(Trouble::at(&step))?;
        debug_assert_eq!(id.0 as usize, node);
        self.nodes.push(Node { port, daemon: None });
        fs::create_dir_all(self.drive(node)).map_err(failed)?;
        fs::create_dir_all(self.home(node).join("recon")).map_err(failed)?;
        fs::write(self.conf(node), self.conf_text(node)).map_err(failed)?;
        Ok(node)
    }

    /// Gives a node's drive nothing more to hold from the next rebalance on.
    pub fn drain(&mut self, node: NodeIndex) -> Result<(), Trouble> {
        self.builder.set_weight(DeviceId(node as u32), 0.0).map_err(Trouble::at("draining a drive"))
    }

    /// Takes a node's drive out of the ring at the next rebalance.
    pub fn remove(&mut self, node: NodeIndex) -> Result<(), Trouble> {
        self.builder.remove(DeviceId(node as u32)).map_err(Trouble::at("removing a drive"))
    }

    /// Rebalances, as if the data of the time before had had its hours to arrive, and sends the ring to all nodes. Where
    /// everything was before.
    pub fn rebalance(&mut self) -> Result<Rows, Trouble> {
        let before = self.rows().to_vec();
        self.builder.pretend_min_part_hours_passed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.builder.rebalance(SEED, now).map_err(Trouble::at(REBALANCING))?;
        self.builder.validate().map_err(Trouble::at(REBALANCING))?;
        self.send_ring()?;
        Ok(before)
    }

    /// The directory of it all.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the ring is made with.
    pub fn builder(&self) -> &Builder {
        &self.builder
    }

    /// Which device has which replica now.
    pub fn rows(&self) -> &[Vec<DeviceId>] {
        self.builder.rows().unwrap_or_default()
    }

    /// The port that a node's daemon listens on.
    pub fn port(&self, node: NodeIndex) -> u16 {
        self.nodes[node].port
    }

    /// All nodes, whether or not their drives are in the ring.
    pub fn nodes(&self) -> std::ops::Range<NodeIndex> {
        0..self.nodes.len()
    }

    /// Nodes whose drives are in the ring.
    pub fn members(&self) -> impl Iterator<Item = NodeIndex> {
        self.nodes().filter(|&node| self.builder.device(DeviceId(node as u32)).is_some())
    }

    /// Was a node's daemon started?
    pub fn is_up(&self, node: NodeIndex) -> bool {
        self.nodes[node].daemon.is_some()
    }

    /// The nodes that should hold a partition, in the ring's order.
    pub fn primaries(&self, partition: Partition) -> Vec<NodeIndex> {
        self.builder.replicas_of(partition).map(|id| id.0 as usize).collect()
    }

    /// The hash and partition of a container.
    pub fn locate(&self, account: &str, container: &str) -> (Hash, Partition) {
        let hash = self.salt.hash(account, Some(container), None);
        (hash, part_shift().partition(&hash))
    }

    /// Where a container lies on a node, or would.
    pub fn home_of(&self, node: NodeIndex, partition: Partition, hash: Hash) -> HashDir {
        HashDir::new(Arc::from(self.drive(node)), partition, hash)
    }

    /// The directory of a node's drive.
    pub fn drive(&self, node: NodeIndex) -> PathBuf {
        self.home(node).join("drives").join(device_name(node))
    }

    /// A node's conf file.
    pub fn conf(&self, node: NodeIndex) -> PathBuf {
        self.home(node).join("agent.conf")
    }

    fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    fn home(&self, node: NodeIndex) -> PathBuf {
        self.root.join(format!("node{}", node))
    }

    fn log(&self, node: NodeIndex) -> PathBuf {
        self.home(node).join("agent.log")
    }

    /// Starts the daemons of some nodes and waits until all of them answer.
    pub fn start_daemons(&mut self, nodes: &[NodeIndex]) -> Result<(), Trouble> {
        let failed = |error: io::Error| Trouble::failed(STARTING, error);
        for _ in 0..TRIES {
            for &node in nodes {
                let daemon = self.command(node, &["-v"])?.spawn().map_err(failed)?;
                self.nodes[node].daemon = Some(daemon);
            }
            if self.all_answer(nodes)? {
                return Ok(());
            }
            self.stop_daemons(nodes);
            for (&node, port) in nodes.iter().zip(free_ports(nodes.len()).map_err(failed)?) {
                self.move_to(node, port)?;
            }
            self.send_ring()?;
        }
        let log = fs::read_to_string(self.log(nodes[0])).unwrap_or_default();
        let cause = format!("they do not listen; the first one's last words: {}", last_line(&log));
        Err(Trouble::failed(STARTING, cause))
    }

    /// Gives a node another port.
    fn move_to(&mut self, node: NodeIndex, port: u16) -> Result<(), Trouble> {
        let change =
            DeviceChange { port: Some(port), replication_port: Some(port), ..DeviceChange::default() };
        self.builder.set_info(DeviceId(node as u32), &change).map_err(Trouble::at(STARTING))?;
        self.nodes[node].port = port;
        fs::write(self.conf(node), self.conf_text(node)).map_err(Trouble::at(STARTING))
    }

    /// Ends the daemons of some nodes, kindly at first.
    pub fn stop_daemons(&mut self, nodes: &[NodeIndex]) {
        let mut daemons: Vec<Child> =
            nodes.iter().filter_map(|&node| self.nodes[node].daemon.take()).collect();
        for daemon in &mut daemons {
            if let (Ok(None), Ok(id)) = (daemon.try_wait(), i32::try_from(daemon.id())) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
        }
        let patience = Instant::now() + KINDNESS;
        for mut daemon in daemons {
            while Instant::now() < patience && matches!(daemon.try_wait(), Ok(None)) {
                thread::sleep(POLL);
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// One pass of a node, over one partition or all of them.
    pub fn pass(&self, node: NodeIndex, partition: Option<Partition>) -> Result<Deed, Trouble> {
        let step = format!("running a pass of node {}", node);
        let number = partition.map(|partition| partition.to_string());
        let mut options = vec!["--once", "--json"];
        options.extend(number.iter().flat_map(|number| ["--partitions", number]));
        let (status, output) = self.run(node, &options, &step)?;
        let json: Option<Value> = serde_json::from_str(&output).ok();
        match (status.code(), json) {
            (Some(0 | 1), Some(json)) => Ok(Deed::from_json(&json)),
            _ => Err(Trouble::failed(step, self.last_words(node, status))),
        }
    }

    /// What a node would do.
    pub fn dry_run(&self, node: NodeIndex) -> Result<String, Trouble> {
        let step = format!("running a dry pass of node {}", node);
        let (status, output) = self.run(node, &["--dry-run"], &step)?;
        match status.code() {
            // Of a damaged database it can only say that.
            Some(0 | 1) => Ok(output),
            _ => Err(Trouble::failed(step, self.last_words(node, status))),
        }
    }

    fn run(&self, node: NodeIndex, options: &[&str], step: &str) -> Result<(ExitStatus, String), Trouble> {
        let failed = |error: io::Error| Trouble::failed(step, error);
        let heard = self.home(node).join("pass.out");
        let mut command = self.command(node, options)?;
        let child = command.stdout(File::create(&heard).map_err(failed)?).spawn().map_err(failed)?;
        let mut child = Reaped(child);
        let end = Instant::now() + PASS_LIMIT;
        loop {
            if let Some(status) = child.0.try_wait().map_err(failed)? {
                if self.stop.wished() {
                    return Err(Trouble::Stopped);
                }
                return Ok((status, fs::read_to_string(&heard).map_err(failed)?));
            }
            if self.stop.wished() {
                return Err(Trouble::Stopped);
            }
            if Instant::now() > end {
                return Err(Trouble::failed(step, format!("it takes more than {} s", PASS_LIMIT.as_secs())));
            }
            thread::sleep(POLL);
        }
    }

    /// This program with a node's conf file, its log going to the node's.
    fn command(&self, node: NodeIndex, options: &[&str]) -> Result<Command, Trouble> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node));
        let log = log.map_err(Trouble::at("opening a log file"))?;
        let mut arguments = vec![OsString::from("--config"), self.conf(node).into()];
        arguments.extend(options.iter().map(OsString::from));
        let mut command = Command::new(&self.agent);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    fn last_words(&self, node: NodeIndex, status: ExitStatus) -> String {
        let log = fs::read_to_string(self.log(node)).unwrap_or_default();
        format!("{status}; {}", last_line(&log))
    }

    /// Whether each of these daemons is up, or one of them gone.
    fn all_answer(&mut self, nodes: &[NodeIndex]) -> Result<bool, Trouble> {
        let end = Instant::now() + START_LIMIT;
        for &node in nodes {
            let Node { port, daemon } = &mut self.nodes[node];
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            while TcpStream::connect_timeout(&address, POLL * 20).is_err() {
                if self.stop.wished() {
                    return Err(Trouble::Stopped);
                }
                if !runs(daemon) || Instant::now() > end {
                    return Ok(false);
                }
                thread::sleep(POLL);
            }
        }
        // One that found its port taken is gone by now, and it was somebody else that answered.
        thread::sleep(POLL * 10);
        Ok(nodes.iter().all(|&node| runs(&mut self.nodes[node].daemon)))
    }

    /// Writes the builder and the ring. All nodes read it from one place.
    fn send_ring(&mut self) -> Result<(), Trouble> {
        let etc = self.etc();
        self.builder.save(&etc.join("container.builder")).map_err(Trouble::at("writing the builder"))?;
        let ring = self.builder.ring().map_err(Trouble::at(REBALANCING))?;
        Ring::from(ring)
            .save(&etc.join("container.ring.gz"), FormatVersion::V1)
            .map_err(Trouble::at("writing the ring"))
    }

    fn conf_text(&self, node: NodeIndex) -> String {
        // In these files a `%` is itself, unless the value looks as if it referred to another.
        let quoted = |path: &Path| match path.display().to_string() {
            text if text.contains("%(") => text.replace('%', "%%"),
            text => text,
        };
        let user =
            User::from_uid(Uid::effective()).ok().flatten().map_or("nobody".to_owned(), |user| user.name);
        let drives = self.home(node).join("drives");
        format!(
            "[DEFAULT]\nbind_ip = {LOOPBACK}\nbind_port = {}\nuser = {user}\nswift_dir = {}\ndevices = {}\n\
             mount_check = false\nfallocate_reserve = 0\n\n\
             [container-replicator]\nrecon_cache_path = {}\ndatabases_per_second = 0\nconn_timeout = 5\n\
             agent_port_offset = 0\nagent_passes = no\nagent_state_path = {}\n",
            self.port(node),
            quoted(&self.etc()),
            quoted(&drives),
            quoted(&self.home(node).join("recon")),
            quoted(&self.home(node).join("state")),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_daemons(&Vec::from_iter(self.nodes()));
    }
}

fn runs(daemon: &mut Option<Child>) -> bool {
    daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
}

/// A child that does not outlive its value.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How hashes become partitions.
pub fn part_shift() -> PartShift {
    PartShift::new(32 - PART_POWER).expect("a power that is less than 32")
}

/// The name of a node's drive.
pub fn device_name(node: NodeIndex) -> String {
    format!("d{node}")
}

/// Ports that nobody listens on, all different.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<TcpListener> = listeners.collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
}

/// Writes to a file of a container as no program should.
pub fn scribble(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

const BUILDING: &str = "building the cluster";
const STARTING: &str = "starting the daemons";
const REBALANCING: &str = "rebalancing the ring";
/// The same ring every time.
const SEED: &[u8] = b"demo";
const LOOPBACK: &str = "127.0.0.1";
/// How often ports may turn out to be taken.
const TRIES: usize = 5;
const POLL: Duration = Duration::from_millis(5);
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long daemons may take to end by themselves.
const KINDNESS: Duration = Duration::from_secs(5);
const PASS_LIMIT: Duration = Duration::from_secs(60);
