//! The devices of a ring as nodes of this process: each has a directory, a loopback address and the agent's own
//! listener, or a scripted peer in its place. Ids, tiers and order of the ring stay what they were, so handoffs do too.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use swiftlet::broker::Broker;
use swiftlet::config::Config;
use swiftlet::drive::{DeviceName, Drive, HashDir};
use swiftlet::hash_path::{Hash, Partition};
use swiftlet::incoming;
use swiftlet::node::Node;
use swiftlet::pass::{self, Nobody, Scope};
use swiftlet::peer::Peer;
use swiftlet::protocol::message::{Meet, Message, Refusal};
use swiftlet::replicator::{Absent, Found, Replicator};
use swiftlet::ring::{Device, DeviceId, FormatVersion, Ring};
use swiftlet::stop::Stop;
use swiftlet::tally::Tally;

/// `swift.conf` of the vectors.
pub const SWIFT_CONF: &str = "[swift-hash]\nswift_hash_path_prefix = pre1\nswift_hash_path_suffix = suf1\n";

/// A cluster that ends with this value.
pub struct Nodes {
    home: tempfile::TempDir,
    pub ring: Ring,
    nodes: BTreeMap<u32, Arc<Node>>,
    listeners: BTreeMap<u32, TcpListener>,
    threads: Vec<JoinHandle<()>>,
    stop: Stop,
}

/// What a scripted peer does when it is shown a database.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It holds all of it.
    Holds,
    /// It refuses.
    Refuses(Refusal),
    /// It hangs up.
    HangsUp,
    /// It says nothing at all.
    Hangs,
    /// It is at work for this long, says so all the while, and then holds all of it.
    Works(Duration),
}

/// What scripted peers are to answer, and which of them were asked, in order.
#[derive(Default)]
pub struct Script {
    pub answers: Mutex<BTreeMap<u32, Answer>>,
    pub asked: Mutex<Vec<u32>>,
    /// What happens while a peer thinks about its answer, given what it was shown.
    pub meanwhile: Mutex<Option<Meanwhile>>,
}

/// Something that happens while a peer thinks.
pub type Meanwhile = Box<dyn FnMut(&Meet) + Send>;

impl Nodes {
    /// Nodes for the devices of a ring. Nobody listens yet. `conf` is added to the section of each.
    pub fn of(ring: &Ring, conf: &str) -> Nodes {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut data = ring.data().clone();
        let mut listeners = BTreeMap::new();
        for device in data.devices.iter_mut().flatten() {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            device.replication_ip = "127.0.0.1".to_owned();
            device.replication_port = listener.local_addr().expect("an address").port();
            listeners.insert(device.id.0, listener);
        }
        let ring = Ring::from(data);
        ring.save(&home.path().join("container.ring.gz"), FormatVersion::V1).expect("a ring file");
        let stop = Stop::default();
        let mut nodes = BTreeMap::new();
        for device in ring.devices() {
            let own = home.path().join(format!("node{}", device.id.0));
            std::fs::create_dir_all(own.join(&device.name)).expect("a device's directory");
            let text = format!(
                "[DEFAULT]\ndevices = {own}\nmount_check = false\nbind_ip = 127.0.0.1\nbind_port = {}\n\
                 swift_dir = {}\nfallocate_reserve = 0\n[container-replicator]\nagent_port_offset = 0\n\
                 recon_cache_path = {own}/recon\nreclaim_age = 1000000000\ndatabases_per_second = 0\n\
                 conn_timeout = 5\n{conf}\n",
                device.replication_port,
                home.path().display(),
                own = own.display(),
            );
            let config = Config::from_text(&text, SWIFT_CONF.as_bytes()).expect("a sound conf file");
            let node = Node::new(config, stop.clone()).expect("a node");
            nodes.insert(device.id.0, Arc::new(node));
        }
        Nodes { home, ring, nodes, listeners, threads: vec![], stop }
    }

    /// Lets every device be served by an agent.
    pub fn serve_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.serve(id);
        }
    }

    /// Lets a device be served by an agent.
    pub fn serve(&mut self, id: u32) {
        let listener = self.listeners.remove(&id).expect("a device that nobody serves yet");
        let (node, until) = (self.nodes[&id].clone(), self.stop.clone());
        self.threads.push(thread::spawn(move || {
            incoming::listen(&listener, &node, &until, &mut || ()).expect("a listener that works");
        }));
    }

    /// Lets a device be served by a scripted peer.
    pub fn act(&mut self, id: u32, script: &Arc<Script>) {
        let listener = self.listeners.remove(&id).expect("a device that nobody serves yet");
        listener.set_nonblocking(true).expect("a listener");
        let (script, stop) = (script.clone(), self.stop.clone());
        self.threads.push(thread::spawn(move || {
            // Each caller at the same time as the others, as an agent would.
            thread::scope(|scope| {
                while !stop.wished() {
                    match listener.accept() {
                        Ok((stream, _)) => drop(scope.spawn(|| follow(stream, id, &script, &stop))),
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            });
        }));
    }

    /// Makes a device's address one where nobody listens.
    pub fn hang_up(&mut self, id: u32) {
        self.listeners.remove(&id).expect("a device that nobody serves yet");
    }

    pub fn node(&self, id: u32) -> &Arc<Node> {
        &self.nodes[&id]
    }

    pub fn device(&self, id: u32) -> &Device {
        self.ring.device(DeviceId(id)).expect("a device of the ring")
    }

    /// Tells all of them to stop, as a signal would.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Where the device is mounted.
    pub fn root(&self, id: u32) -> PathBuf {
        self.home.path().join(format!("node{id}")).join(&self.device(id).name)
    }

    pub fn drive(&self, id: u32) -> Drive {
        let name = DeviceName::new(self.device(id).name.as_str()).expect("a device's name");
        self.nodes[&id].drive(&name).expect("a drive")
    }

    pub fn hash(&self, account: &str, container: &str) -> Hash {
        let node = self.nodes.values().next().expect("a node");
        node.config.salt.hash(account, Some(container), None)
    }

    /// Where a container belongs on a device.
    pub fn home_of(&self, id: u32, account: &str, container: &str) -> HashDir {
        let hash = self.hash(account, container);
        self.drive(id).hash_dir(self.ring.part_shift().partition(&hash), hash)
    }

    /// Puts a database of these bytes where a container belongs on a device.
    pub fn put(&self, id: u32, account: &str, container: &str, database: &[u8]) -> HashDir {
        let home = self.home_of(id, account, container);
        home.create().expect("a hash directory");
        std::fs::write(home.dir().join(format!("{}.db", home.hash())), database).expect("a database");
        home
    }

    pub fn broker(&self, id: u32, account: &str, container: &str) -> Broker {
        Broker::open(&self.home_of(id, account, container)).expect("a database that opens")
    }

    /// One pass of a device's node.
    pub fn pass(&self, id: u32) -> Tally {
        pass::run(&self.nodes[&id], &Scope::default(), false, &Nobody).expect("a pass")
    }

    /// What a pass does for one database.
    pub fn replicate(&self, id: u32, dir: &HashDir, partition: Partition) -> Tally {
        let drive = self.drive(id);
        let absent = Absent::default();
        let mut tally = Tally::default();
        let found = Found { drive: &drive, device: self.device(id), dir, partition: Some(partition) };
        Replicator::new(&self.nodes[&id], &self.ring, &absent, &|_| {}, None).replicate(&found, &mut tally);
        tally
    }

    /// A connection to a device's agent.
    pub fn call(&self, id: u32) -> Peer<TcpStream> {
        let port = self.device(id).replication_port;
        let patience = Duration::from_secs(5);
        Peer::call("127.0.0.1", port, patience, patience, &self.stop).expect("an agent that answers")
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop.wish();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a node panicked");
        }
    }
}

/// One connection to a scripted peer.
fn follow(stream: TcpStream, id: u32, script: &Script, stop: &Stop) {
    stream.set_nonblocking(false).expect("a socket");
    let Ok(mut peer) = Peer::greet(stream, Duration::from_secs(30), stop) else { return };
    while let Ok(message) = peer.hear() {
        let meet = match message {
            Message::Meet(meet) => meet,
            Message::Compare(_) => {
                // It keeps no ledger, but whoever is silent is silent at once.
                let answer = script.answers.lock().expect("the script").get(&id).cloned();
                match answer {
                    Some(Answer::Hangs) => {
                        script.asked.lock().expect("the script").push(id);
                        let _ = stop.sleep(Duration::from_secs(60));
                        return;
                    }
                    _ if peer.say(&Message::Refused(Refusal::NoLedger)).is_ok() => continue,
                    _ => return,
                }
            }
            message => panic!("device {id} was told: {}", message.name()),
        };
        script.asked.lock().expect("the script").push(id);
        if let Some(meanwhile) = script.meanwhile.lock().expect("the script").as_mut() {
            meanwhile(&meet);
        }
        let answer = script.answers.lock().expect("the script").get(&id).cloned();
        let (own_id, max_row) = (meet.info.id.clone(), meet.info.max_row);
        let holds = Message::Equal { id: own_id, max_row, point: max_row, agreed: None };
        let said = match answer.unwrap_or_else(|| panic!("device {id} has no part in the script")) {
            Answer::Holds => peer.say(&holds),
            Answer::Works(time) => {
                let end = Instant::now() + time;
                while Instant::now() < end && peer.say(&Message::Working).is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
                peer.say(&holds)
            }
            Answer::Refuses(refusal) => peer.say(&Message::Refused(refusal)),
            Answer::HangsUp => return,
            Answer::Hangs => {
                let _ = stop.sleep(Duration::from_secs(60));
                return;
            }
        };
        if said.is_err() {
            return;
        }
    }
}
