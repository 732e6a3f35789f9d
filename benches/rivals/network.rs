//! The links between two nodes of a benchmark: loopback, a slow wire, a long one.
//!
//! As root, both nodes live in network namespaces of their own. Nobody else's bytes pass there, so that the interface's
//! counter is what a contender put on the wire, by one and the same rule for all, headers of TCP and IP included. A
//! namespace lives for as long as the process that holds it, which ends with us however we end.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use crate::delay::Delay;
use crate::measure::Server;

/// Where processes run, as the network sees it.
pub struct Place {
    /// Keeps a namespace of our own alive; `None` is the machine's own network.
    holder: Option<Server>,
    /// Whose counter tells what was carried.
    interface: &'static str,
}

impl Place {
    fn on_this_machine() -> Place {
        Place { holder: None, interface: "lo" }
    }

    /// A new namespace, its loopback interface up.
    fn apart(interface: &'static str) -> Result<Place, String> {
        let mut command = Command::new("unshare");
        // It reads from a pipe of ours, and so ends when we do.
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = Server(command.spawn().map_err(|error| format!("unshare: {error}"))?);
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let (own, started) = (namespace("self"), Instant::now());
        while namespace(&holder.0.id().to_string()).is_none_or(|its| Some(its) == own) {
            if started.elapsed() > START_LIMIT {
                return Err("no network namespace can be made here".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let place = Place { holder: Some(holder), interface };
        place.set_up("ip", &["link", "set", "lo", "up"])?;
        Ok(place)
    }

    /// A program that is to run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(holder) = &self.holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", holder.0.id())).arg("--").arg(program);
        command
    }

    /// Bytes that have come in by the interface so far, frame by frame; `None` where others use it too.
    fn received(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", self.holder.as_ref()?.0.id())).ok()?;
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(self.interface)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn set_up(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let output = self.command(program).args(arguments).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let failed = || format!("{program} {}: {}", arguments.join(" "), said());
        output.status.success().then_some(()).ok_or_else(failed)
    }
}

/// Two nodes and what lies between them.
pub struct Link {
    /// The node that a run brings the newer database from.
    pub sender: Rc<Place>,
    /// The node that it brings it to.
    pub receiver: Rc<Place>,
    /// The sender's and the receiver's.
    pub addresses: [Ipv4Addr; 2],
    latency: Duration,
}

impl Link {
    /// As fast as this machine is: in a namespace of its own where it may, else among everybody's traffic.
    pub fn loopback() -> Link {
        let apart = if is_root() { Place::apart("lo") } else { Err(String::new()) };
        let place = Rc::new(apart.unwrap_or_else(|_| Place::on_this_machine()));
        Link { sender: Rc::clone(&place), receiver: place, addresses: LOOPBACK, latency: Duration::ZERO }
    }

    /// Two namespaces, joined by a wire of so many megabits a second in each direction.
    pub fn limited(megabits: u32) -> Result<Link, String> {
        if !is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let addresses = [1, 2].map(|last| Ipv4Addr::new(10, 77, 0, last));
        let (sender, receiver) = (Place::apart(WIRE)?, Place::apart(WIRE)?);
        let id = |place: &Place| place.holder.as_ref().expect("a place apart").0.id().to_string();
        let (one, other) = (id(&sender), id(&receiver));
        let ends =
            ["link", "add", WIRE, "netns", &one, "type", "veth", "peer", "name", WIRE, "netns", &other];
        Place::on_this_machine().set_up("ip", &ends)?;
        let (rate, burst) = (format!("{megabits}mbit"), BURST);
        for (place, address) in [&sender, &receiver].into_iter().zip(addresses) {
            // No chatter of IPv6 among the bytes that are counted.
            place.set_up("ip", &["link", "set", WIRE, "addrgenmode", "none"])?;
            place.set_up("ip", &["address", "add", &format!("{address}/24"), "dev", WIRE])?;
            place.set_up("ip", &["link", "set", WIRE, "up"])?;
            let bucket = ["tbf", "rate", &rate, "burst", burst, "latency", QUEUE];
            place.set_up("tc", &[&["qdisc", "add", "dev", WIRE, "root"], bucket.as_slice()].concat())?;
        }
        Ok(Link { sender: Rc::new(sender), receiver: Rc::new(receiver), addresses, latency: Duration::ZERO })
    }

    /// Loopback, but every byte takes so long in each direction.
    pub fn delayed(latency: Duration) -> Link {
        let place = Rc::new(Place::on_this_machine());
        Link { sender: Rc::clone(&place), receiver: place, addresses: LOOPBACK, latency }
    }

    /// A port that nothing listens at on the receiver, as far as can be known.
    pub fn free_port(&self) -> u16 {
        let free = TcpListener::bind((LOOPBACK[1], 0)).and_then(|listener| listener.local_addr());
        free.expect("a free port").port()
    }

    /// Whether what listens at the receiver is called at another port than its own.
    pub fn is_long(&self) -> bool {
        !self.latency.is_zero()
    }

    /// What makes a link long, between a port that is called and the receiver's own.
    pub fn stretch(&self, called: u16, port: u16) -> Option<Delay> {
        let [called, port] = [called, port].map(|port| (self.addresses[1], port).into());
        self.is_long().then(|| Delay::start(called, port, self.latency).expect("a port to delay"))
    }

    /// Whether what it carries can be counted, headers and all: it is ours alone.
    pub fn is_counted(&self) -> bool {
        self.carried().is_some()
    }

    /// Starts to count what is carried.
    pub fn count(&self) -> Carried<'_> {
        Carried { link: self, before: self.carried() }
    }

    fn carried(&self) -> Option<u64> {
        match Rc::ptr_eq(&self.sender, &self.receiver) {
            true => self.sender.received(),
            false => Some(self.sender.received()? + self.receiver.received()?),
        }
    }
}

/// A count that has begun.
pub struct Carried<'a> {
    link: &'a Link,
    before: Option<u64>,
}

impl Carried<'_> {
    /// Bytes in both directions since then, headers included; `None` where others use the same interface.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.link.carried()? - self.before?)
    }
}

/// Waits until a server listens at a port, without calling it.
pub fn await_listener(server: &mut Child, port: u16) {
    await_listeners(server, port, 1);
}

/// Waits until so many listen at a port, each at an address of its own; the last to start is this server.
pub fn await_listeners(server: &mut Child, port: u16, count: usize) {
    let started = Instant::now();
    let is_listening = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && words.nth(1) == Some("0A")
    };
    loop {
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", server.id()));
        let listening = |table| {
            fs::read_to_string(table).unwrap_or_default().lines().filter(|line| is_listening(line)).count()
        };
        if tables.iter().map(listening).sum::<usize>() >= count {
            return;
        }
        let ended = server.try_wait().expect("a child to ask after");
        assert!(ended.is_none() && started.elapsed() < START_LIMIT, "nothing listens at {port}: {ended:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_root() -> bool {
    nix::unistd::getuid().is_root()
}

const START_LIMIT: Duration = Duration::from_secs(20);
/// The interface at both ends of a limited link.
const WIRE: &str = "wire";
/// What a limited link lets through at once, and how long a packet may wait there.
const BURST: &str = "64kb";
const QUEUE: &str = "50ms";
const LOOPBACK: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
