//! Clusters of real agents on temporary drives: every node a process of its own, on loopback, with a ring made by hand.
//!
//! A test says which nodes and rings there are, puts rows where it wants them, lets passes run and asks whether all
//! replicas agree. Nothing here outlives its [`Cluster`]: agents are killed and drives removed when it is dropped, and
//! every wait ends.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, Uid, User};
use serde_json::Value;
use swiftlet::broker::{Broker, BrokerError, fresh_id};
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{Hash, HashSalt, PartShift, Partition};
use swiftlet::replica::{Metadata, MetadataItem, PolicyIndex, ReplicaInfo, Row, RowId};
use swiftlet::ring::format::{Device, DeviceId, FormatVersion};
use swiftlet::ring::{Ring, RingData};
use swiftlet::timestamp::Timestamp;

/// A node's place in its cluster, from 0.
pub type NodeIndex = usize;

/// Some nodes, their drives and the ring they share.
pub struct Cluster {
    nodes: Vec<Node>,
    places: Vec<Place>,
    /// What is where it should be is judged by this one.
    ring: RefCell<Option<Ring>>,
    dir: tempfile::TempDir,
}

/// One node: its port, its conf file, and its daemon if one runs.
struct Node {
    port: u16,
    /// It has rings of its own, and not those of all.
    apart: Cell<bool>,
    options: RefCell<BTreeMap<String, String>>,
    daemon: RefCell<Option<Child>>,
    /// The `cgroup.procs` of the cgroup that its agents run in, where they do.
    door: RefCell<Option<PathBuf>>,
}

/// Where a device of the ring is.
struct Place {
    node: NodeIndex,
    region: i64,
    name: String,
}

/// A container of the cluster.
#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub hash: Hash,
    pub partition: Partition,
}

/// How a `--once` ended.
#[derive(Debug)]
pub struct Passed {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What a replica holds, without what may differ between replicas.
#[derive(Debug)]
pub struct Replica {
    pub info: ReplicaInfo,
    pub rows: Rows,
}

/// Everything about each row but its number, by name and policy.
pub type Rows = BTreeMap<(String, i64), (String, i64, String, String, i64)>;

impl Cluster {
    /// So many nodes in one region with a device each: `d0`, `d1` and so on.
    pub fn new(nodes: usize) -> Cluster {
        Cluster::placed(&(0..nodes).map(|node| (node, 1)).collect::<Vec<_>>())
    }

    /// A device for each pair of node and region. Each partition has three replicas, or as many as there are devices,
    /// on devices that follow each other.
    pub fn placed(places: &[(NodeIndex, i64)]) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let count = 1 + places.iter().map(|(node, _)| *node).max().expect("some device");
        let nodes = (0..count).map(|_| Node {
            port: free_port(),
            apart: Cell::new(false),
            options: RefCell::default(),
            daemon: RefCell::default(),
            door: RefCell::default(),
        });
        let places = places.iter().enumerate().map(|(id, &(node, region))| Place {
            node,
            region,
            name: format!("d{id}"),
        });
        let cluster =
            Cluster { nodes: nodes.collect(), places: places.collect(), ring: RefCell::default(), dir };
        fs::create_dir(cluster.swift_dir()).expect("a new directory");
        fs::write(cluster.swift_dir().join("swift.conf"), "[swift-hash]\nswift_hash_path_suffix = pepper\n")
            .expect("written");
        for device in 0..cluster.places.len() {
            fs::create_dir_all(cluster.device(device)).expect("a new directory");
        }
        let devices = cluster.places.len() as u32;
        cluster.set_ring(|partition| {
            (0..devices.min(3)).map(|replica| (partition.0 + replica) % devices).collect()
        });
        for node in 0..count {
            cluster.configure(
                node,
                &[
                    ("agent_port_offset", "0"),
                    ("agent_state_path", &cluster.state(node).display().to_string()),
                    ("interval", "1"),
                    ("databases_per_second", "0"),
                ],
            );
        }
        cluster
    }

    /// Puts a new ring in place of the old, as an operator does. `primaries` names the devices of a partition.
    pub fn set_ring(&self, primaries: impl Fn(Partition) -> Vec<u32>) {
        let replicas = primaries(Partition(0)).len();
        let row = |replica: usize| {
            (0..PARTITIONS).map(|number| DeviceId(primaries(Partition(number))[replica])).collect()
        };
        let rows: Vec<Vec<DeviceId>> = (0..replicas).map(row).collect();
        let device = |(id, place): (usize, &Place)| {
            Some(Device {
                id: DeviceId(id as u32),
                region: place.region,
                zone: 1,
                ip: "127.0.0.1".into(),
                port: self.nodes[place.node].port,
                replication_ip: "127.0.0.1".into(),
                replication_port: self.nodes[place.node].port,
                name: place.name.clone(),
                weight: 100.0,
                meta: String::new(),
                extra: Default::default(),
            })
        };
        let devices = self.places.iter().enumerate().map(device).collect();
        let ring = Ring::from_rows(part_shift(), devices, rows).expect("a sound ring");
        ring.save(&self.swift_dir().join("container.ring.gz"), FormatVersion::V1).expect("saved");
        *self.ring.borrow_mut() = Some(ring);
    }

    /// From now on each node has rings of its own, and [`Cluster::give_ring`] says which; and a drive is mounted if it is
    /// so marked, as [`Cluster::mount`] does.
    pub fn set_apart(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let dir = self.etc(index);
            fs::create_dir(&dir).expect("a new directory");
            for file in ["swift.conf", "container.ring.gz"] {
                fs::copy(self.swift_dir().join(file), dir.join(file)).expect("copied");
            }
            node.apart.set(true);
            self.configure(index, &[]);
        }
        (0..self.places.len()).for_each(|device| self.mount(device, true));
    }

    /// What is where it should be is judged by this ring from now on. No node has it yet.
    pub fn expect_ring(&self, ring: RingData) {
        *self.ring.borrow_mut() = Some(Ring::from(ring));
    }

    /// A node is sent the ring by which all is judged.
    pub fn give_ring(&self, node: NodeIndex) {
        let ring = self.ring.borrow();
        let path = self.etc(node).join("container.ring.gz");
        ring.as_ref().expect("there is one").save(&path, FormatVersion::V1).expect("saved");
    }

    fn etc(&self, node: NodeIndex) -> PathBuf {
        self.dir.path().join(format!("etc{node}"))
    }

    /// Marks a drive as mounted, or not. It stays readable for the test.
    pub fn mount(&self, device: usize, mounted: bool) {
        let mark = self.device(device).join(MOUNTED);
        if mounted { fs::write(mark, "") } else { fs::remove_file(mark) }.expect("marked");
    }

    /// The devices that should hold a container.
    pub fn primaries(&self, container: &Container) -> Vec<usize> {
        let ring = self.ring.borrow();
        let ring = ring.as_ref().expect("set when it was built");
        ring.primaries(container.partition).iter().map(|device| device.id.0 as usize).collect()
    }

    /// Writes a node's conf file: the usual, the options given before, and these.
    pub fn configure(&self, node: NodeIndex, options: &[(&str, &str)]) {
        let known = &self.nodes[node].options;
        known.borrow_mut().extend(options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let dir = self.dir.path().display();
        let swift_dir = if self.nodes[node].apart.get() { self.etc(node) } else { self.swift_dir() };
        let mut text = format!(
            "[DEFAULT]\ndevices = {dir}/devices\nmount_check = {apart}\nuser = {user}\nswift_dir = {swift_dir}\n\
             bind_ip = 127.0.0.1\nbind_port = {port}\nrecon_cache_path = {dir}/cache{node}\n\
             fallocate_reserve = 0\n[container-replicator]\n",
            user = user(),
            apart = self.nodes[node].apart.get(),
            swift_dir = swift_dir.display(),
            port = self.nodes[node].port,
        );
        for (name, value) in known.borrow().iter() {
            text += &format!("{name} = {value}\n");
        }
        fs::write(self.conf(node), text).expect("written");
    }

    /// The same for all nodes.
    pub fn configure_all(&self, options: &[(&str, &str)]) {
        (0..self.nodes.len()).for_each(|node| self.configure(node, options));
    }

    pub fn conf(&self, node: NodeIndex) -> PathBuf {
        self.dir.path().join(format!("node{node}.conf"))
    }

    pub fn swift_dir(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    pub fn cache(&self, node: NodeIndex) -> PathBuf {
        self.dir.path().join(format!("cache{node}"))
    }

    pub fn state(&self, node: NodeIndex) -> PathBuf {
        self.dir.path().join(format!("state{node}"))
    }

    pub fn port(&self, node: NodeIndex) -> u16 {
        self.nodes[node].port
    }

    /// The directory of a device.
    pub fn device(&self, device: usize) -> PathBuf {
        self.dir.path().join("devices").join(&self.places[device].name)
    }

    /// What a node's daemon has logged.
    pub fn log(&self, node: NodeIndex) -> String {
        fs::read_to_string(self.dir.path().join(format!("log{node}"))).unwrap_or_default()
    }

    pub fn container(&self, name: &str) -> Container {
        let hash = salt().hash(ACCOUNT, Some(name), None);
        Container { name: name.into(), hash, partition: part_shift().partition(&hash) }
    }

    /// So many containers whose names begin alike.
    pub fn containers(&self, name: &str, count: usize) -> Vec<Container> {
        (0..count).map(|number| self.container(&format!("{name}-{number}"))).collect()
    }

    /// Where a container is, or would be, on a device.
    pub fn home(&self, device: usize, container: &Container) -> HashDir {
        HashDir::new(self.device(device).into(), container.partition, container.hash)
    }

    /// Creates a replica; its time of creation is its device's number.
    pub fn create(&self, device: usize, container: &Container) -> Broker {
        let at = time(device as u64);
        Broker::create(
            &self.home(device, container),
            ACCOUNT,
            &container.name,
            at,
            PolicyIndex(0),
            &fresh_id(&self.places[device].name),
            at,
        )
        .expect("created")
    }

    /// A replica, opened as any other process would.
    pub fn open(&self, device: usize, container: &Container) -> Broker {
        Broker::open(&self.home(device, container)).expect("a database")
    }

    /// What a device holds of a container; `None` if nothing. Waits for what is being replaced at this moment.
    pub fn replica(&self, device: usize, container: &Container) -> Option<Replica> {
        for _ in 0..100 {
            match read(&self.home(device, container)) {
                Ok(replica) => return Some(replica),
                Err(BrokerError::Missing) => return None,
                Err(BrokerError::Busy { .. }) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => panic!("device {device}: {error}"),
            }
        }
        panic!("device {device}: the database of {} stays busy", container.name);
    }

    /// Why a container's replicas do not agree, or are not where they should be; `None` if all is well.
    pub fn disagreement(&self, container: &Container) -> Option<String> {
        let primaries = self.primaries(container);
        let name = &container.name;
        let mut first: Option<Replica> = None;
        for device in 0..self.places.len() {
            let replica = self.replica(device, container);
            match (primaries.contains(&device), replica) {
                (true, None) => return Some(format!("{name}: missing on {device}")),
                (false, Some(_)) => return Some(format!("{name}: still on {device}")),
                (false, None) => {}
                (true, Some(replica)) => match &first {
                    None => first = Some(replica),
                    Some(first) if replica.rows != first.rows => {
                        let (ours, theirs) = (replica.rows.len(), first.rows.len());
                        return Some(format!("{name}: other rows on {device}: {ours}, {theirs}"));
                    }
                    Some(first) if !replica.info.agrees_with(&first.info) => {
                        return Some(format!(
                            "{name}: device {device} disagrees:\n{:?}\n{:?}",
                            replica.info, first.info
                        ));
                    }
                    Some(_) => {}
                },
            }
        }
        None
    }

    /// Waits until the replicas of all these containers agree.
    pub fn wait_for_agreement(&self, containers: &[Container], limit: Duration) {
        let mut last = None;
        let agree = wait(limit, || {
            last = containers.iter().find_map(|container| self.disagreement(container));
            last.is_none()
        });
        assert!(agree, "after {limit:?} {}\n{}", last.unwrap_or_default(), self.logs());
    }

    /// All daemons' logs, for a failed test.
    pub fn logs(&self) -> String {
        let tail = |node: NodeIndex| {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            format!("--- log of node {node}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        (0..self.nodes.len()).map(tail).collect()
    }

    /// The agent with a node's conf file, not started yet.
    pub fn agent(&self, node: NodeIndex, arguments: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_agent");
        let mut command = match &*self.nodes[node].door.borrow() {
            None => Command::new(program),
            Some(door) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(door).arg(program);
                shell
            }
        };
        command.arg("--config").arg(self.conf(node)).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// From now on the node's agents run in the cgroup of this `cgroup.procs`.
    pub fn confine(&self, node: NodeIndex, door: &Path) {
        *self.nodes[node].door.borrow_mut() = Some(door.to_owned());
    }

    /// The process of a node's daemon.
    pub fn process(&self, node: NodeIndex) -> u32 {
        self.nodes[node].daemon.borrow().as_ref().expect("it was started").id()
    }

    /// One pass of a node, as from cron. `arguments` beside `--once --json`.
    pub fn once(&self, node: NodeIndex, arguments: &str) -> Passed {
        Passed::of(self.agent(node, &format!("--once --json {arguments}")))
    }

    /// One pass of each node in turn, none of which may fail.
    pub fn once_all(&self) {
        for node in 0..self.nodes.len() {
            self.once(node, "").ended(0);
        }
    }

    /// Starts a node's daemon and waits until it serves.
    pub fn start(&self, node: NodeIndex) {
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("log{node}")));
        let log = log.expect("a log");
        let mut command = self.agent(node, "-v --json");
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        *self.nodes[node].daemon.borrow_mut() = Some(command.spawn().expect("the agent runs"));
        let port = self.nodes[node].port;
        assert!(wait(SOON, || listens(port)), "node {node} does not serve\n{}", self.log(node));
    }

    pub fn start_all(&self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    /// Sends a node's daemon a signal.
    pub fn signal(&self, node: NodeIndex, signal: Signal) {
        let daemon = self.nodes[node].daemon.borrow();
        send(daemon.as_ref().expect("it was started"), signal);
    }

    /// Ends a node's daemon; how it ended and after what time.
    pub fn end(&self, node: NodeIndex, signal: Signal) -> (ExitStatus, Duration) {
        let mut daemon = self.nodes[node].daemon.take().expect("it was started");
        end(&mut daemon, signal)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(mut daemon) = node.daemon.take() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
        }
    }
}

impl Passed {
    /// Runs an agent to its end, which must come within a minute.
    pub fn of(command: Command) -> Passed {
        Passed::within(Duration::from_secs(60), command)
    }

    /// Runs an agent to its end, which must come within this time.
    pub fn within(limit: Duration, mut command: Command) -> Passed {
        let child = command.spawn().expect("the agent runs");
        let watched = Pid::from_raw(child.id() as i32);
        let (over, done) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if done.recv_timeout(limit).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = signal::kill(watched, Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output().expect("it ends");
        drop(over);
        watch.join().expect("it only waits");
        Passed {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Passed {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// It said this on standard error.
    #[track_caller]
    pub fn said(self, part: &str) -> Passed {
        assert!(self.stderr.contains(part), "no {part:?} in\n{}", self.stderr);
        self
    }

    /// A counter of the pass.
    #[track_caller]
    pub fn count(&self, counter: &str) -> u64 {
        let tally: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no JSON ({error}): {}\n{}", self.stdout, self.stderr);
        });
        tally[counter].as_u64().unwrap_or_else(|| panic!("no counter {counter} in {tally}"))
    }
}

/// A row of an object, written at `time(at)`.
pub fn row(name: &str, at: u64) -> Row {
    Row {
        row_id: None,
        name: name.into(),
        created_at: time(at).to_string(),
        size: at as i64,
        content_type: "text/plain".into(),
        etag: format!("{:032x}", at),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}

/// The row of an object that was deleted at `time(at)`.
pub fn tombstone(name: &str, at: u64) -> Row {
    Row {
        deleted: 1,
        size: 0,
        etag: "noetag".into(),
        content_type: "application/deleted".into(),
        ..row(name, at)
    }
}

/// So many rows whose names begin alike, a second apart.
pub fn rows(name: &str, numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|number| row(&format!("{name}-{number:06}"), 100 + number)).collect()
}

pub fn metadata(key: &str, value: &str, at: u64) -> Metadata {
    Metadata(vec![MetadataItem { key: key.into(), value: value.into(), stamp: time(at).into() }])
}

/// Some seconds after a moment of yesterday, so that nothing is old enough to be reclaimed.
pub fn time(seconds: u64) -> Timestamp {
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        now.as_secs() - 86400
    });
    Timestamp::from_seconds((start + seconds) as f64).expect("a time of our days")
}

/// Asks every 100 ms until the answer is yes; false if that takes too long.
pub fn wait(limit: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + limit;
    loop {
        if ask() {
            return true;
        }
        if Instant::now() > give_up {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends a signal to a process of ours.
pub fn send(child: &Child, signal: Signal) {
    signal::kill(Pid::from_raw(child.id() as i32), signal).expect("it is there");
}

/// Ends a process; how it ended and after what time. One that stays for half a minute is killed.
pub fn end(child: &mut Child, signal: Signal) -> (ExitStatus, Duration) {
    let begun = Instant::now();
    send(child, signal);
    let mut status = None;
    if !wait(Duration::from_secs(30), || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    }) {
        let _ = child.kill();
        status = child.wait().ok();
    }
    (status.expect("it ended"), begun.elapsed())
}

/// All rows of a database and what it says of itself.
fn read(home: &HashDir) -> Result<Replica, BrokerError> {
    let mut broker = Broker::open(home)?;
    let info = broker.info()?;
    let (mut rows, mut last) = (Rows::new(), RowId::NONE);
    loop {
        let batch = broker.rows_after(last, 1000)?;
        let Some(id) = batch.last().and_then(|row| row.row_id) else { return Ok(Replica { info, rows }) };
        last = id;
        for row in batch {
            let value = (row.created_at, row.size, row.content_type, row.etag, row.deleted);
            rows.insert((row.name, row.storage_policy_index.0), value);
        }
    }
}

/// Does anybody listen on this port of ours?
pub fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A port that nobody uses, below those that the kernel gives to outgoing connections, and never the same twice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 1000 * 10;
    for _ in 0..10_000 {
        let port = 15_000 + (start + NEXT.fetch_add(1, Ordering::SeqCst)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

fn user() -> String {
    User::from_uid(Uid::effective()).ok().flatten().map_or("nobody".into(), |user| user.name)
}

pub fn salt() -> HashSalt {
    HashSalt { prefix: Vec::new(), suffix: b"pepper".to_vec() }
}

fn part_shift() -> PartShift {
    PartShift::new(32 - PART_POWER).expect("a sound shift")
}

/// Unlinks or copies go through here so that tests read as what they do.
pub fn copy_database(from: &HashDir, to: &HashDir) {
    to.create().expect("a directory");
    let name = |home: &HashDir| home.dir().join(format!("{}.db", home.hash()));
    fs::copy(name(from), name(to)).expect("copied");
}

/// The database file of a directory.
pub fn database(home: &HashDir) -> PathBuf {
    home.dir().join(format!("{}.db", home.hash()))
}

/// Is there anything below a directory?
pub fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// The account of every container.
pub const ACCOUNT: &str = "AUTH_test";
pub const PART_POWER: u8 = 5;
const PARTITIONS: u32 = 1 << PART_POWER;
/// The file by which Swift's tests call a directory a mounted drive.
pub const MOUNTED: &str = ".ismount";
/// Enough for a process to start on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
