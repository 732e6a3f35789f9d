//! The agents that ours talks to: whether they are there, speak as we do, and what time they have. And our own port.
//!
//! Clocks are compared by asking: an agent's clock is read after we asked and before we heard, so it is apart by no less
//! than it lies outside of that, and by no more than it lies from the farther end.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::rings::Ours;
use super::{Finding, Subject, count};
use crate::config::Config;
use crate::hash_path::Partition;
use crate::peer::{Peer, PeerError};
use crate::protocol::VERSION;
use crate::protocol::message::Message;
use crate::protocol::wire::WireError;
use crate::report::text::span;
use crate::stop::Stop;

const PEERS: Subject = Subject::Peers;

/// Where an agent should be, and how many devices of the ring are its own.
type Agents = BTreeMap<(String, u16), usize>;

/// How an agent answered.
#[derive(Debug)]
enum Answer {
    /// It serves, and its clock is so far apart.
    Serves(Apart),
    /// It has as many callers as it may.
    Busy,
    /// It is of no use.
    Failed(PeerError),
}

/// How far two clocks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Apart {
    /// At least by so many microseconds; above 0 if the other clock is ahead.
    least: i64,
    /// At most by so many.
    most: u64,
}

impl Apart {
    /// Another clock said `told` after ours said `asked` and before it said `heard`, in microseconds since 1970.
    fn new(asked: u64, told: u64, heard: u64) -> Apart {
        let signed = |ahead: u64| i64::try_from(ahead).unwrap_or(i64::MAX);
        let least = match told {
            told if told > heard => signed(told - heard),
            told if told < asked => -signed(asked - told),
            _ => 0,
        };
        Apart { least, most: told.abs_diff(asked).max(told.abs_diff(heard)) }
    }
}

/// Asks every agent that shares partitions with us, and looks at our own port.
pub fn check(config: &Config, ours: Option<&Ours>) -> Vec<Finding> {
    let mut findings = vec![judge_port(config.listen_port(), own_port(config))];
    let Some(ours) = ours else { return findings };
    let (agents, portless) = agents(config, ours);
    if let Some(port) = portless {
        let what = format!("the ring has replication port {port}, which with agent_port_offset is no port");
        findings.push(PEERS.error(what, "set agent_port_offset lower, on all nodes alike"));
    }
    if agents.is_empty() {
        findings.push(PEERS.ok("no other node shares partitions with this one"));
        return findings;
    }
    let answers = ask_all(config, &agents);
    findings.extend(judge(&agents, answers));
    findings
}

/// Agents of the devices that hold partitions of ours too; and a port that is none, if the ring has one.
fn agents(config: &Config, ours: &Ours) -> (Agents, Option<u16>) {
    let ring = &ours.ring;
    let mut shared = vec![false; 1 + ring.devices().map(|device| device.id.0 as usize).max().unwrap_or(0)];
    for partition in 0..ring.partition_count() {
        let primaries = ring.primary_ids(Partition(partition));
        if primaries.iter().any(|id| ours.devices.iter().any(|device| device.id == *id)) {
            primaries.iter().for_each(|id| shared[id.0 as usize] = true);
        }
    }
    let (mut agents, mut portless) = (Agents::new(), None);
    for device in ring.devices().filter(|device| shared[device.id.0 as usize]) {
        if ours.devices.iter().any(|own| own.id == device.id) {
            continue;
        }
        match config.peer_port(device.replication_port) {
            Some(port) => *agents.entry((device.replication_ip.clone(), port)).or_default() += 1,
            None => portless = Some(device.replication_port),
        }
    }
    (agents, portless)
}

/// Asks them all at once. Those that have no answer here were not heard of in time.
fn ask_all(config: &Config, agents: &Agents) -> BTreeMap<(String, u16), Answer> {
    let patience = config.node_timeout.min(PATIENCE);
    let (conn_timeout, stop) = (config.conn_timeout.min(PATIENCE), Stop::default());
    let (tell, told) = mpsc::channel();
    let (order, orders) = crossbeam_channel::bounded(agents.len());
    for address in agents.keys() {
        order.send(address.clone()).expect("there is room for all");
    }
    drop(order);
    for _ in 0..agents.len().min(AT_ONCE) {
        let (stop, orders, tell) = (stop.clone(), orders.clone(), tell.clone());
        let work = move || {
            while let Ok(address) = orders.try_recv() {
                let answer = ask(&address.0, address.1, conn_timeout, patience, &stop);
                // Nobody listens any more once the time is up.
                if tell.send((address, answer)).is_err() {
                    break;
                }
            }
        };
        // With fewer threads it takes longer; without any, nobody answers.
        let _ = thread::Builder::new().name("ask".into()).stack_size(STACK_BYTES).spawn(work);
    }
    drop(tell);
    let deadline = Instant::now() + TIME_LIMIT;
    let mut answers = BTreeMap::new();
    while let Ok((address, answer)) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        answers.insert(address, answer);
    }
    stop.wish();
    answers
}

/// Asks one agent what time it is.
fn ask(host: &str, port: u16, conn_timeout: Duration, patience: Duration, stop: &Stop) -> Answer {
    let asked = || -> Result<Answer, PeerError> {
        let mut peer = Peer::call(host, port, conn_timeout, patience, stop)?;
        let asked = microseconds();
        peer.say(&Message::AskTime)?;
        loop {
            match peer.hear()? {
                Message::Working => {}
                Message::Time(told) => return Ok(Answer::Serves(Apart::new(asked, told, microseconds()))),
                Message::Refused(_) => return Ok(Answer::Busy),
                other => {
                    let violation =
                        crate::protocol::Violation::OutOfTurn { expected: "the time", heard: other.name() };
                    return Err(violation.into());
                }
            }
        }
    };
    asked().unwrap_or_else(Answer::Failed)
}

/// Our clock, since 1970.
fn microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros().try_into().unwrap_or(u64::MAX)
}

/// What came of asking. Many agents with nothing to say of them are told in one line.
fn judge(agents: &Agents, mut answers: BTreeMap<(String, u16), Answer>) -> Vec<Finding> {
    let (mut fine, mut farthest, mut wrong) = (Vec::new(), 0, Vec::new());
    for ((host, port), devices) in agents {
        let name = format!("{host}:{port}");
        let answer = answers.remove(&(host.clone(), *port));
        let most = match &answer {
            Some(Answer::Serves(apart)) => apart.most,
            _ => 0,
        };
        let finding = judge_answer(&name, *devices, answer);
        if finding.verdict == super::Verdict::Ok {
            farthest = most.max(farthest);
            fine.push(finding);
        } else {
            wrong.push(finding);
        }
    }
    if fine.len() > SHOWN_LIMIT {
        let what = format!(
            "{} agents speak version {VERSION}, as ours does; their clocks are at most {} from ours",
            fine.len(),
            small(farthest)
        );
        fine = vec![PEERS.ok(what)];
    }
    fine.append(&mut wrong);
    fine
}

fn judge_answer(name: &str, devices: usize, answer: Option<Answer>) -> Finding {
    let of = count(devices, "device");
    match answer {
        Some(Answer::Serves(apart)) => {
            let off = Duration::from_micros(apart.least.unsigned_abs());
            let clock = match apart.least {
                0 => format!("at most {} from ours", small(apart.most)),
                1.. => format!("{} ahead of ours", exact(off)),
                _ => format!("{} behind ours", exact(off)),
            };
            if off < CLOCKS_APART {
                return PEERS.ok(format!("{name} ({of}) speaks version {VERSION}, as ours does; its clock is {clock}"));
            }
            let what = format!("{name} ({of}): its clock is {clock}");
            let remedy = "keep both in step by chrony or systemd-timesyncd: of two changes the later one wins, and \
                          deletions are forgotten by the clock";
            match off >= CLOCKS_FAR_APART {
                true => PEERS.error(what, remedy),
                false => PEERS.warning(what, remedy),
            }
        }
        Some(Answer::Busy) => PEERS.warning(
            format!("{name} ({of}) has as many callers as an agent may have"),
            "it tells in its log who they are; lower concurrency where they come from",
        ),
        Some(Answer::Failed(PeerError::Unreachable(error))) => PEERS.warning(
            format!("{name} ({of}) cannot be reached: {error}"),
            "start its agent, or let its port through; until then, nothing is replicated with it",
        ),
        Some(Answer::Failed(error @ PeerError::Unintelligible(WireError::OtherVersion(_)))) => PEERS.error(
            format!("{name} ({of}) {error}"),
            "until then, nothing is replicated with it",
        ),
        Some(Answer::Failed(error @ PeerError::Unintelligible(_))) => PEERS.error(
            format!("{name} ({of}) {error}"),
            "agents listen at the ring's replication port + agent_port_offset, which is to be alike on all nodes",
        ),
        Some(Answer::Failed(error @ (PeerError::TooSlow(_) | PeerError::Stopped))) => {
            let said = match error {
                PeerError::Stopped => format!("has not answered within {} s", TIME_LIMIT.as_secs()),
                error => error.to_string(),
            };
            PEERS.warning(format!("{name} ({of}) {said}"), "look at that node: its agent hangs, or is starved")
        }
        Some(Answer::Failed(error)) => {
            PEERS.warning(format!("{name} ({of}) {error}"), "look at the log of its agent")
        }
        None => PEERS.warning(
            format!("{name} ({of}) was not heard of within {} s", TIME_LIMIT.as_secs()),
            "check that the network lets it through, and that its name has an address",
        ),
    }
}

/// Time that does not matter much.
fn small(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => "1 ms".to_owned(),
        1_000..1_000_000 => format!("{} ms", microseconds.div_ceil(1000)),
        _ => exact(Duration::from_micros(microseconds)),
    }
}

/// Time that does.
fn exact(time: Duration) -> String {
    if time < Duration::from_secs(120) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        span(time.as_secs_f64())
    }
}

/// Our own port.
#[derive(Debug)]
enum Port {
    /// Nobody listens there.
    Free,
    /// An agent that speaks as we do.
    Ours,
    /// Somebody else.
    Taken(PeerError),
    /// It cannot be listened on.
    Unusable(io::Error),
}

/// Tries to listen where the agent will, and if somebody does already, whether that is an agent.
fn own_port(config: &Config) -> Port {
    let (host, port) = (config.bind_ip.as_str(), config.listen_port());
    let ip = host.parse::<IpAddr>().ok();
    let tried = match ip {
        Some(ip) => TcpListener::bind(SocketAddr::new(ip, port)),
        None => TcpListener::bind((host, port)),
    };
    let error = match tried {
        Ok(_) => return Port::Free,
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Port::Unusable(error);
    }
    let host = match ip {
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    };
    match ask(&host, port, PATIENCE, PATIENCE, &Stop::default()) {
        Answer::Serves(_) | Answer::Busy => Port::Ours,
        Answer::Failed(error) => Port::Taken(error),
    }
}

fn judge_port(port: u16, found: Port) -> Finding {
    match found {
        Port::Free => PEERS.ok(format!("port {port} of this node is free: no agent runs here yet")),
        Port::Ours => PEERS.ok(format!("port {port} of this node: its agent serves, and speaks version {VERSION}")),
        Port::Taken(PeerError::Unintelligible(WireError::OtherVersion(theirs))) => PEERS.error(
            format!("port {port} of this node: the agent that runs speaks version {theirs}, this one version {VERSION}"),
            "restart it: systemctl restart agent",
        ),
        Port::Taken(error @ PeerError::TooSlow(_)) => PEERS.error(
            format!("port {port} of this node: whoever listens there {error}"),
            "if it is the agent, it hangs: systemctl restart agent",
        ),
        Port::Taken(error) => PEERS.error(
            format!("port {port} of this node: whoever listens there {error}"),
            format!("find out who by `ss -ltnp sport = :{port}`; or set agent_port_offset, on all nodes alike"),
        ),
        Port::Unusable(error) => PEERS.error(
            format!("port {port} of this node cannot be listened on: {error}"),
            "bind_ip is to be an address of this node, and bind_port + agent_port_offset a port above 1023",
        ),
    }
}

/// What one step of a call may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What all of them may take together.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Agents asked at once.
const AT_ONCE: usize = 128;
/// More agents in order than this are told in one line.
const SHOWN_LIMIT: usize = 12;
/// Clocks that are kept in step at all are closer.
const CLOCKS_APART: Duration = Duration::from_secs(1);
/// So far apart, one is simply wrong.
const CLOCKS_FAR_APART: Duration = Duration::from_secs(60);
/// Little is done on these threads, but the name service is asked.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn clocks_are_apart_by_what_lies_outside_of_asking_and_hearing() {
        for (asked, told, heard, least, most) in [
            (100, 100, 110, 0, 10),
            (100, 105, 110, 0, 5),
            (100, 110, 110, 0, 10),
            (100, 111, 110, 1, 11),
            (100, 99, 110, -1, 11),
            (100, 0, 110, -100, 110),
            (0, u64::MAX, 0, i64::MAX, u64::MAX),
            // Our own clock was set back between the two.
            (100, 105, 90, 15, 15),
        ] {
            assert_eq!(Apart::new(asked, told, heard), Apart { least, most }, "{asked} {told} {heard}");
        }
    }

    fn serves(least_micros: i64) -> Answer {
        Answer::Serves(Apart { least: least_micros, most: least_micros.unsigned_abs() + 5 })
    }

    fn failed(error: PeerError) -> Option<Answer> {
        Some(Answer::Failed(error))
    }

    #[test]
    fn each_answer_has_its_verdict() {
        use Verdict::{Error, Ok, Warning};
        let reset = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for (answer, verdict, part) in [
            (Some(serves(0)), Ok, "its clock is at most 1 ms from ours"),
            (Some(serves(999_999)), Ok, "ahead"),
            (Some(serves(1_000_000)), Warning, "1.0 s ahead of ours"),
            (Some(serves(-1_000_000)), Warning, "1.0 s behind ours"),
            (Some(serves(59_999_999)), Warning, "ahead"),
            (Some(serves(60_000_000)), Error, "60.0 s ahead of ours"),
            (Some(serves(-7_200_000_000)), Error, "2 h behind ours"),
            (Some(serves(i64::MIN)), Error, " d behind ours"),
            (Some(Answer::Busy), Warning, "as many callers"),
            (failed(PeerError::Unreachable(reset())), Warning, "cannot be reached: connection refused"),
            (failed(PeerError::TooSlow(Duration::from_secs(2))), Warning, "was silent or stuck for 2.0 s"),
            (failed(PeerError::Stopped), Warning, "has not answered within 5 s"),
            (failed(PeerError::Gone), Warning, "closed the connection"),
            (failed(PeerError::Unintelligible(WireError::OtherVersion(99))), Error, "speaks version 99"),
            (failed(PeerError::Unintelligible(WireError::OtherProtocol(*b"HTTP"))), Error, "\"HTTP\""),
            (None, Warning, "was not heard of within 5 s"),
        ] {
            let said = format!("{answer:?}");
            let finding = judge_answer("10.0.0.2:7201", 3, answer);
            assert_eq!(finding.verdict, verdict, "{said}");
            assert!(finding.what.starts_with("10.0.0.2:7201 (3 devices)"), "{}", finding.what);
            assert!(finding.what.contains(part), "{part:?} is not in {}", finding.what);
            assert_eq!(finding.remedy.is_some(), verdict != Ok);
        }
    }

    #[test]
    fn many_agents_in_order_are_one_line() {
        for (agents, lines) in [(1, 1), (SHOWN_LIMIT, SHOWN_LIMIT), (SHOWN_LIMIT + 1, 1)] {
            let address = |number: usize| (format!("10.0.0.{number}"), 7201);
            let mut all: Agents = (0..agents).map(|number| (address(number), 1)).collect();
            let answers = (0..agents).map(|number| (address(number), serves(0))).collect();
            all.insert(("lost".into(), 7201), 2);
            let findings = judge(&all, answers);
            assert_eq!(findings.len(), lines + 1, "{agents}");
            assert_eq!(findings[lines].verdict, Verdict::Warning);
        }
    }

    #[test]
    fn our_port_is_free_or_ours_or_in_the_way() {
        let refused = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (port, verdict) in [
            (Port::Free, Verdict::Ok),
            (Port::Ours, Verdict::Ok),
            (Port::Taken(PeerError::Unintelligible(WireError::OtherVersion(4))), Verdict::Error),
            (Port::Taken(PeerError::TooSlow(PATIENCE)), Verdict::Error),
            (Port::Taken(PeerError::Gone), Verdict::Error),
            (Port::Unusable(refused()), Verdict::Error),
        ] {
            let said = format!("{port:?}");
            assert_eq!(judge_port(7201, port).verdict, verdict, "{said}");
        }
    }
}
