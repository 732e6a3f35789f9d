//! Peers in numbers: connections that stand idle, and others on which databases of many containers are sent without a
//! pause, some as files and some as rows, through the very code that an agent calls its peers with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use swiftlet::broker::Broker;
use swiftlet::config::Config;
use swiftlet::drive::{DeviceName, HashDir};
use swiftlet::node::Node;
use swiftlet::outgoing::Subject;
use swiftlet::peer::Peer;
use swiftlet::protocol::message::{Intent, Place, Role};
use swiftlet::protocol::sender::Outcome;
use swiftlet::ring::DeviceId;
use swiftlet::stop::Stop;

use crate::cluster::{Cluster, Container, NodeIndex, rows};

/// So many connections, half of them idle and half busy.
pub struct Crowd {
    _idle: Vec<Peer<std::net::TcpStream>>,
    busy: Vec<JoinHandle<Vec<Sent>>>,
    over: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
}

/// A container that was sent somewhere.
struct Sent {
    container: Container,
    to: NodeIndex,
}

impl Crowd {
    /// Calls each of the nodes `each` times to be idle and `each` times to be busy. What the busy ones send lies on the
    /// drive of `home`, a node that runs no agent.
    pub fn start(cluster: &Cluster, nodes: &[NodeIndex], home: NodeIndex, each: usize, name: &str) -> Crowd {
        let over = Arc::new(AtomicBool::new(false));
        let exchanges = Arc::new(AtomicU64::new(0));
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        let config = Config::load(&cluster.conf(home)).expect("a sound conf file");
        let node = Arc::new(Node::new(config, Stop::default()).expect("a node"));
        for &to in nodes {
            let mut containers =
                (0..).map(|number| cluster.container(&format!("{name}-{to}-{number}"))).filter(|container| {
                    // Those that belong on that node alone, which is not asked to send them anywhere.
                    cluster.primaries(container).iter().all(|device| *device == to)
                });
            for _ in 0..each {
                idle.push(call(cluster.port(to)));
                let own = containers.by_ref().take(CONTAINERS_EACH);
                let jobs = own.map(|container| Job {
                    place: Place {
                        device: DeviceName::new(format!("d{to}")).expect("a name"),
                        partition: container.partition,
                        hash: container.hash,
                    },
                    dir: cluster.home(home, &container),
                    broker: cluster.create(home, &container),
                    sent: Sent { container, to },
                });
                let mut jobs: Vec<Job> = jobs.collect();
                let (node, over, exchanges, port) =
                    (node.clone(), over.clone(), exchanges.clone(), cluster.port(to));
                let device = DeviceName::new(format!("d{home}")).expect("a name");
                busy.push(thread::spawn(move || {
                    let drive = node.drive(&device).expect("a drive");
                    let mut peer = call(port);
                    let mut round = 0;
                    // A round that was begun is gone through, so that what was written is sent.
                    while round == 0 || !over.load(Ordering::Relaxed) {
                        for job in &mut jobs {
                            let next = round * ROWS_AT_ONCE..(round + 1) * ROWS_AT_ONCE;
                            job.broker.merge_rows(rows("crowd", next), None).expect("merged");
                            job.send(&node, &drive, &mut peer);
                            exchanges.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(PAUSE);
                        }
                        round += 1;
                    }
                    jobs.into_iter().map(|job| job.sent).collect()
                }));
            }
        }
        Crowd { _idle: idle, busy, over, exchanges }
    }

    /// Exchanges that ended well so far; any other fails the test.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Lets all go, and proves that everything that was sent is there.
    pub fn end(self, cluster: &Cluster, home: NodeIndex) {
        self.over.store(true, Ordering::Relaxed);
        for worker in self.busy {
            for Sent { container, to } in worker.join().expect("every exchange ended well") {
                let ours = cluster.replica(home, &container).expect("it was sent from there");
                let theirs = cluster.replica(to, &container).expect("it was sent there");
                assert!(ours.info.agrees_with(&theirs.info), "{}: {:?}", container.name, theirs.info);
                assert_eq!(ours.rows, theirs.rows, "{}", container.name);
            }
        }
    }
}

/// One database, time and again.
struct Job {
    place: Place,
    dir: HashDir,
    broker: Broker,
    sent: Sent,
}

impl Job {
    fn send(&mut self, node: &Node, drive: &swiftlet::drive::Drive, peer: &mut Peer<std::net::TcpStream>) {
        let info = self.broker.info().expect("it tells");
        let (dir, broker) = (&self.dir, &mut self.broker);
        let ours = DeviceId(u32::from(u16::MAX));
        let mut subject =
            Subject { node, drive, dir, broker, info: &info, proven: false, ours, agreed: None };
        let exchanged = subject.exchange(peer, self.place.clone(), Intent::Agree, Role::Primary);
        let outcome =
            exchanged.unwrap_or_else(|error| panic!("{}: {error}", self.sent.container.name)).outcome;
        let well =
            matches!(outcome, Outcome::Created | Outcome::Rows { .. } | Outcome::Merged | Outcome::Patched);
        assert!(well, "{}: {outcome:?}", self.sent.container.name);
    }
}

fn call(port: u16) -> Peer<std::net::TcpStream> {
    Peer::call("127.0.0.1", port, TIMEOUT, TIMEOUT, &Stop::default()).expect("the agent answers")
}

/// Databases that one busy connection sends in turn.
const CONTAINERS_EACH: usize = 3;
/// Rows that each gets before it is sent again.
const ROWS_AT_ONCE: u64 = 400;
/// Between two exchanges, so that the machine has time for what is to be measured.
const PAUSE: Duration = Duration::from_millis(1000);
const TIMEOUT: Duration = Duration::from_secs(60);
