//! The demo's nodes: their directories, the ring and the conf files; the daemons on them, and passes run as an operator
//! would run them.
//!
//! The kernel chooses the ports. They are free when it does, and may be somebody else's a moment later; so if a daemon
//! cannot have its port, all are chosen anew, and the ring with them. Drives know no ports and stay as they are.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use serde_json::Value;

use super::Trouble;
use super::deed::Deed;
use crate::drive::HashDir;
use crate::hash_path::{HashSalt, PartShift, Partition};
use crate::ring::{Device, DeviceId, FormatVersion, Ring};
use crate::stop::Stop;

/// Nodes, each with one drive in a zone of its own.
pub const NODES: usize = 4;
/// Replicas of a container; the node that has none is its handoff.
pub const REPLICAS: usize = 3;
/// As many partitions as 2 to the power of this.
pub const PART_POWER: u8 = 5;

/// Four nodes below one directory.
pub struct Cluster {
    root: PathBuf,
    agent: PathBuf,
    salt: HashSalt,
    ports: [u16; NODES],
    daemons: Vec<Child>,
    stop: Stop,
}

impl Cluster {
    /// Makes the directories and `swift.conf`. Ring, conf files and ports come with the daemons.
    pub fn build(root: &Path, prefix: &str, suffix: &str, stop: &Stop) -> Result<Cluster, Trouble> {
        let failed = |error: io::Error| Trouble::failed(BUILDING, error);
        if root.to_str().is_none_or(|path| path.contains('\n')) {
            let cause = format!("{} cannot be named in a conf file", root.display());
            return Err(Trouble::failed(BUILDING, cause));
        }
        let cluster = Cluster {
            root: root.to_owned(),
            agent: std::env::current_exe().map_err(failed)?,
            salt: HashSalt { prefix: prefix.into(), suffix: suffix.into() },
            ports: [0; NODES],
            daemons: Vec::new(),
            stop: stop.clone(),
        };
        fs::create_dir_all(cluster.etc()).map_err(failed)?;
        for node in 0..NODES {
            fs::create_dir_all(cluster.drive(node)).map_err(failed)?;
            fs::create_dir_all(cluster.home(node).join("recon")).map_err(failed)?;
        }
        let text = format!(
            "[swift-hash]\nswift_hash_path_prefix = {prefix}\nswift_hash_path_suffix = {suffix}\n\n\
             [storage-policy:0]\nname = standard\ndefault = yes\n"
        );
        fs::write(cluster.etc().join("swift.conf"), text).map_err(failed)?;
        Ok(cluster)
    }

    /// The directory of it all.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The ports that the daemons listen on.
    pub fn ports(&self) -> [u16; NODES] {
        self.ports
    }

    /// Where a container lies on the nodes: its primaries in the ring's order, then its handoff.
    pub fn homes(&self, account: &str, container: &str) -> (Partition, [HashDir; NODES]) {
        let hash = self.salt.hash(account, Some(container), None);
        let partition = part_shift().partition(&hash);
        let homes = std::array::from_fn(|replica| {
            HashDir::new(Arc::from(self.drive(holder(partition, replica))), partition, hash)
        });
        (partition, homes)
    }

    /// The directory of a node's drive.
    pub fn drive(&self, node: usize) -> PathBuf {
        self.home(node).join("drives").join(device_name(node))
    }

    /// A node's conf file.
    pub fn conf(&self, node: usize) -> PathBuf {
        self.home(node).join("agent.conf")
    }

    fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    fn home(&self, node: usize) -> PathBuf {
        self.root.join(format!("node{}", node + 1))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.home(node).join("agent.log")
    }

    /// Starts a daemon on every node and waits until all of them answer.
    pub fn start_daemons(&mut self) -> Result<(), Trouble> {
        let failed = |error: io::Error| Trouble::failed(STARTING, error);
        for _ in 0..TRIES {
            self.ports = free_ports().map_err(failed)?;
            self.write_ring()?;
            for node in 0..NODES {
                fs::write(self.conf(node), self.conf_text(node)).map_err(failed)?;
            }
            for node in 0..NODES {
                let daemon = self.command(node, &["-v"])?.spawn().map_err(failed)?;
                self.daemons.push(daemon);
            }
            if self.all_answer()? {
                return Ok(());
            }
            self.stop_daemons();
        }
        let log = fs::read_to_string(self.log(0)).unwrap_or_default();
        let cause = format!("they do not listen; the first one's last words: {}", last_line(&log));
        Err(Trouble::failed(STARTING, cause))
    }

    /// Ends the daemons, kindly at first.
    pub fn stop_daemons(&mut self) {
        for daemon in &mut self.daemons {
            if let (Ok(None), Ok(id)) = (daemon.try_wait(), i32::try_from(daemon.id())) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
        }
        let patience = Instant::now() + KINDNESS;
        for mut daemon in self.daemons.drain(..) {
            while Instant::now() < patience && matches!(daemon.try_wait(), Ok(None)) {
                thread::sleep(POLL);
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// One pass of a node, over one partition or all of them.
    pub fn pass(&self, node: usize, partition: Option<Partition>) -> Result<Deed, Trouble> {
        let step = format!("running a pass of node {}", node + 1);
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
    pub fn dry_run(&self, node: usize) -> Result<String, Trouble> {
        let step = format!("running a dry pass of node {}", node + 1);
        let (status, output) = self.run(node, &["--dry-run"], &step)?;
        match status.code() {
            // Of a damaged database it can only say that.
            Some(0 | 1) => Ok(output),
            _ => Err(Trouble::failed(step, self.last_words(node, status))),
        }
    }

    fn run(&self, node: usize, options: &[&str], step: &str) -> Result<(ExitStatus, String), Trouble> {
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
    fn command(&self, node: usize, options: &[&str]) -> Result<Command, Trouble> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node));
        let log = log.map_err(Trouble::at("opening a log file"))?;
        let mut arguments = vec![OsString::from("--config"), self.conf(node).into()];
        arguments.extend(options.iter().map(OsString::from));
        let mut command = Command::new(&self.agent);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    fn last_words(&self, node: usize, status: ExitStatus) -> String {
        let log = fs::read_to_string(self.log(node)).unwrap_or_default();
        format!("{status}; {}", last_line(&log))
    }

    /// Whether every daemon is up, or one of them gone.
    fn all_answer(&mut self) -> Result<bool, Trouble> {
        let end = Instant::now() + START_LIMIT;
        for (daemon, port) in self.daemons.iter_mut().zip(self.ports) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            while TcpStream::connect_timeout(&address, POLL * 20).is_err() {
                if self.stop.wished() {
                    return Err(Trouble::Stopped);
                }
                let gone = !matches!(daemon.try_wait(), Ok(None));
                if gone || Instant::now() > end {
                    return Ok(false);
                }
                thread::sleep(POLL);
            }
        }
        // One that found its port taken is gone by now, and it was somebody else that answered.
        thread::sleep(POLL * 10);
        Ok(self.daemons.iter_mut().all(|daemon| matches!(daemon.try_wait(), Ok(None))))
    }

    fn write_ring(&self) -> Result<(), Trouble> {
        let device = |node: usize| Device {
            id: DeviceId(node as u32),
            region: 1,
            zone: node as i64 + 1,
            ip: LOOPBACK.to_owned(),
            port: self.ports[node],
            replication_ip: LOOPBACK.to_owned(),
            replication_port: self.ports[node],
            name: device_name(node),
            weight: 100.0,
            meta: String::new(),
            extra: serde_json::Map::new(),
        };
        let row = |replica| {
            (0..1 << PART_POWER).map(|part| DeviceId(holder(Partition(part), replica) as u32)).collect()
        };
        let devices = (0..NODES).map(|node| Some(device(node))).collect();
        Ring::from_rows(part_shift(), devices, (0..REPLICAS).map(row).collect())
            .and_then(|ring| ring.save(&self.etc().join("container.ring.gz"), FormatVersion::V1))
            .map_err(Trouble::at("writing the ring"))
    }

    fn conf_text(&self, node: usize) -> String {
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
             agent_port_offset = 0\nagent_passes = no\n",
            self.ports[node],
            quoted(&self.etc()),
            quoted(&drives),
            quoted(&self.home(node).join("recon")),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_daemons();
    }
}

/// A child that does not outlive its value.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The node that holds a replica of a partition; the one after the last replica is the handoff.
fn holder(partition: Partition, replica: usize) -> usize {
    (partition.0 as usize + replica) % NODES
}

/// How hashes become partitions.
pub fn part_shift() -> PartShift {
    PartShift::new(32 - PART_POWER).expect("a power that is less than 32")
}

fn device_name(node: usize) -> String {
    format!("d{}", node + 1)
}

/// Ports that nobody listens on, all different.
fn free_ports() -> io::Result<[u16; NODES]> {
    let mut listeners = Vec::new();
    for _ in 0..NODES {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut ports = [0; NODES];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
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
const LOOPBACK: &str = "127.0.0.1";
/// How often ports may turn out to be taken.
const TRIES: usize = 5;
const POLL: Duration = Duration::from_millis(5);
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long daemons may take to end by themselves.
const KINDNESS: Duration = Duration::from_secs(5);
const PASS_LIMIT: Duration = Duration::from_secs(60);
