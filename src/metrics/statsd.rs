//! Swift's metrics to a statsd server, under Swift's names (`swift/common/statsd_client.py`, and `logger.increment` in
//! `swift/common/db_replicator.py`).
//!
//! Swift sends a datagram for each event, from the midst of its work, and looks the server's name up each time. Here events
//! are only added up as they come; a thread of its own sends the sums once a second, so that neither a name service nor a
//! million databases that did not change hold up a pass. What a server counts is the same: statsd adds up what it is sent.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;

use super::STACK_BYTES;
use crate::config::StatsdOptions;
use crate::tally::Tally;

/// A counter of Swift's.
pub struct Sent {
    /// Its name, behind the prefixes.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
    count: fn(&Tally) -> u64,
}

const fn sent(name: &'static str, meaning: &'static str, count: fn(&Tally) -> u64) -> Sent {
    Sent { name, meaning, count }
}

/// The counters.
pub const COUNTERS: [Sent; 9] = [
    sent("attempts", "databases looked at", |tally| tally.attempted),
    sent("successes", "databases times peers that ended well", |tally| tally.success),
    sent("failures", "those that did not, and databases that cannot be read", |tally| tally.failures_told),
    sent("no_changes", "nothing to do", |tally| tally.no_change),
    sent("hashmatches", "the same rows, where sync points did not say so", |tally| tally.hashmatch),
    sent("diffs", "rows sent", |tally| tally.diff),
    sent("diff_caps", "of these, those with more rows than one pass may send", |tally| tally.diff_capped),
    sent("rsyncs", "whole files to peers that had none", |tally| tally.rsync),
    sent("remote_merges", "files, or what of them differs, merged into a replica that exists", |tally| {
        tally.remote_merge
    }),
];
/// The counter of databases removed: the device's name stands behind it.
pub const REMOVES: (&str, &str) = ("removes.DEVICE", "databases removed: handed over, or reclaimed");
/// The timing.
pub const TIMING: (&str, &str) = ("timing", "how long work on a database took, in milliseconds");

/// A server that is told. What is left when this goes is still sent.
#[derive(Debug)]
pub struct Statsd {
    pending: Arc<Mutex<Pending>>,
    /// Dropping it ends the thread, which tells that it has by the other.
    end: Option<Sender<()>>,
    ended: Receiver<()>,
}

/// What was not sent yet.
#[derive(Debug, Default)]
struct Pending {
    counters: BTreeMap<String, u64>,
    timings: Vec<Duration>,
}

impl Statsd {
    /// Begins, if the conf names a server. `log_name` is the second prefix, as in Swift.
    pub fn start(options: &StatsdOptions, log_name: &str) -> Option<Statsd> {
        let host = options.host.clone().filter(|_| options.emit_legacy)?;
        let style = Style {
            prefix: prefix(&options.metric_prefix, log_name),
            rate: options.default_sample_rate * options.sample_rate_factor,
        };
        let pending = Arc::<Mutex<Pending>>::default();
        let (end, until) = bounded::<()>(0);
        let (tell, ended) = bounded(0);
        let (theirs, port) = (pending.clone(), options.port);
        let send = move || {
            let mut server = Server { host, port, told: false };
            loop {
                let over = until.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected);
                let taken = std::mem::take(&mut *lock(&theirs));
                server.send(&style.lines(&taken, &mut random));
                if over {
                    drop(tell);
                    break;
                }
            }
        };
        match thread::Builder::new().name("statsd".into()).stack_size(STACK_BYTES).spawn(send) {
            Ok(_) => Some(Statsd { pending, end: Some(end), ended }),
            Err(error) => {
                warn!("no thread to send metrics to statsd with: {error}");
                None
            }
        }
    }

    /// Work on a device came to this, and took so long if it was work on a database.
    pub fn count(&self, device: &str, counted: &Tally, took: Option<Duration>) {
        lock(&self.pending).count(device, counted, took);
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        self.end = None;
        // A name service that hangs is not waited for.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

impl Pending {
    fn count(&mut self, device: &str, counted: &Tally, took: Option<Duration>) {
        for counter in &COUNTERS {
            self.add(counter.name, (counter.count)(counted));
        }
        if counted.remove > 0 {
            self.add(&REMOVES.0.replace("DEVICE", device), counted.remove);
        }
        if self.timings.len() < TIMINGS_LIMIT {
            self.timings.extend(took);
        }
    }

    fn add(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        match self.counters.get_mut(name) {
            Some(sum) => *sum += count,
            None => _ = self.counters.insert(name.to_owned(), count),
        }
    }
}

/// How lines are written.
struct Style {
    prefix: String,
    rate: f64,
}

impl Style {
    /// A line for each datagram. `random` is from 0 to below 1.
    fn lines(&self, pending: &Pending, random: &mut dyn FnMut() -> f64) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, count) in &pending.counters {
            // Of so many events this share, on the average exactly.
            let share =
                if self.rate < 1.0 { (*count as f64 * self.rate + random()).floor() } else { *count as f64 };
            if share >= 1.0 {
                lines.push(self.line(name, &share.to_string(), "c"));
            }
        }
        for took in &pending.timings {
            if self.rate >= 1.0 || random() < self.rate {
                let milliseconds = (took.as_secs_f64() * 1e7).round() / 1e4;
                lines.push(self.line(TIMING.0, &format!("{milliseconds:?}"), "ms"));
            }
        }
        lines
    }

    fn line(&self, name: &str, value: &str, kind: &str) -> String {
        let rate = if self.rate < 1.0 { format!("|@{}", self.rate) } else { String::new() };
        format!("{}{name}:{value}|{kind}{rate}", self.prefix)
    }
}

/// What stands before every name (`StatsdClient._set_prefix`).
fn prefix(base: &str, tail: &str) -> String {
    [base, tail].into_iter().filter(|part| !part.is_empty()).map(|part| format!("{part}.")).collect()
}

/// Where it is sent to.
struct Server {
    host: String,
    port: u16,
    /// That it cannot be was told.
    told: bool,
}

impl Server {
    /// Sends each line, and waits for nobody. The name is looked up again each time, as Swift does it.
    fn send(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        match self.try_send(lines) {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                self.told = true;
                warn!("metrics cannot be sent to {}:{}: {error}", self.host, self.port);
            }
            Err(_) => {}
        }
    }

    fn try_send(&self, lines: &[String]) -> io::Result<()> {
        let address = resolve(&self.host, self.port)?;
        let socket = match address {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }?;
        socket.set_nonblocking(true)?;
        let mut failed = Ok(());
        for line in lines {
            match socket.send_to(line.as_bytes(), address) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }
}

/// The address of a server: of its addresses of IPv4, or else of IPv6, the first, as Swift has it.
///
/// # Errors
/// As the name service says; it may take its time for that.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::Error::other("that name has no address"))
}

fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness everything is sent.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often is sent what came together.
const INTERVAL: Duration = Duration::from_secs(1);
/// More timings than this in that time are not sent: they tell nothing new.
const TIMINGS_LIMIT: usize = 1000;
/// How long the last may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn style(rate: f64) -> Style {
        Style { prefix: prefix("", "container-replicator"), rate }
    }

    fn numbered() -> Pending {
        let tally = Tally {
            attempted: 1,
            success: 2,
            failure: 30,
            failures_told: 3,
            no_change: 4,
            hashmatch: 5,
            diff: 6,
            diff_capped: 7,
            rsync: 8,
            remote_merge: 9,
            remove: 10,
            ..Tally::default()
        };
        let mut pending = Pending::default();
        pending.count("sdb1", &tally, Some(Duration::from_micros(1_234_567)));
        pending
    }

    #[test]
    fn names_are_swifts_and_each_has_its_own_count() {
        let mut lines = style(1.0).lines(&numbered(), &mut || panic!("nothing is left to chance"));
        lines.sort();
        let expected = [
            "attempts:1|c",
            "diff_caps:7|c",
            "diffs:6|c",
            "failures:3|c",
            "hashmatches:5|c",
            "no_changes:4|c",
            "remote_merges:9|c",
            "removes.sdb1:10|c",
            "rsyncs:8|c",
            "successes:2|c",
            "timing:1234.567|ms",
        ];
        assert_eq!(lines, expected.map(|line| format!("container-replicator.{line}")));
    }

    #[test]
    fn what_comes_together_is_added_up_and_nothing_is_sent_of_nothing() {
        let mut pending = Pending::default();
        assert_eq!(style(1.0).lines(&pending, &mut random), Vec::<String>::new());
        for _ in 0..3 {
            pending.count("d", &Tally { attempted: 256, ..Tally::default() }, None);
        }
        assert_eq!(style(1.0).lines(&pending, &mut random), ["container-replicator.attempts:768|c"]);
        for _ in 0..2 * TIMINGS_LIMIT {
            pending.count("d", &Tally::default(), Some(Duration::from_millis(12)));
        }
        let lines = style(1.0).lines(&pending, &mut random);
        assert_eq!(lines.len(), 1 + TIMINGS_LIMIT);
        assert_eq!(lines[1], "container-replicator.timing:12.0|ms");
    }

    #[test]
    fn of_a_sample_the_server_makes_as_many_as_there_were() {
        let mut pending = Pending::default();
        pending.count("d", &Tally { attempted: 3, ..Tally::default() }, Some(Duration::from_millis(1)));
        let mut chances = [0.0, 0.2499].into_iter().cycle();
        let lines = style(0.25).lines(&pending, &mut || chances.next().expect("for ever"));
        assert_eq!(lines, ["container-replicator.timing:1.0|ms|@0.25"], "0.75 is not yet one");
        let lines = style(0.25).lines(&pending, &mut || 0.25);
        assert_eq!(lines, ["container-replicator.attempts:1|c|@0.25"]);
        assert_eq!(style(0.0).lines(&pending, &mut || 0.999_999), Vec::<String>::new());
        assert!(style(2.0).lines(&pending, &mut random)[0].ends_with(":3|c"), "no rate is above 1");
        let rounds = 40_000;
        let mut sum = 0.0;
        for _ in 0..rounds {
            for line in style(0.25).lines(&pending, &mut random) {
                let count = line.split(':').nth(1).and_then(|rest| rest.strip_suffix("|c|@0.25"));
                sum += count.map_or(0.0, |count| count.parse::<f64>().expect("a number") / 0.25);
            }
        }
        let mean = sum / f64::from(rounds);
        assert!((2.9..3.1).contains(&mean), "{mean}");
    }

    #[test]
    fn prefixes_are_joined_as_swift_does_it() {
        for (base, tail, expected) in
            [("a", "b", "a.b."), ("", "b", "b."), ("a", "", "a."), ("", "", ""), ("a.b", "c", "a.b.c.")]
        {
            assert_eq!(prefix(base, tail), expected);
        }
    }

    fn options(host: &str, port: u16) -> StatsdOptions {
        StatsdOptions {
            host: Some(host.to_owned()),
            port,
            default_sample_rate: 1.0,
            sample_rate_factor: 1.0,
            metric_prefix: "pre".to_owned(),
            emit_legacy: true,
        }
    }

    #[test]
    fn servers_of_both_kinds_of_addresses_are_told_and_the_last_words_too() {
        for host in ["127.0.0.1", "::1", "localhost"] {
            let Ok(server) = UdpSocket::bind((host, 0)) else {
                assert_eq!(host, "::1", "a machine may lack IPv6");
                continue;
            };
            // `localhost` may be both, and then IPv4 comes first.
            if host == "localhost" && server.local_addr().expect("an address").is_ipv6() {
                continue;
            }
            server.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
            let port = server.local_addr().expect("an address").port();
            let statsd = Statsd::start(&options(host, port), "n").expect("it starts");
            statsd.count("d", &Tally { attempted: 7, ..Tally::default() }, None);
            drop(statsd);
            let mut packet = [0; 100];
            let length = server.recv(&mut packet).expect("a packet");
            assert_eq!(String::from_utf8_lossy(&packet[..length]), "pre.n.attempts:7|c");
        }
    }

    #[test]
    fn without_a_server_nothing_is_begun_and_one_that_is_not_there_holds_nobody_up() {
        assert!(Statsd::start(&StatsdOptions { host: None, ..options("", 1) }, "n").is_none());
        assert!(
            Statsd::start(&StatsdOptions { emit_legacy: false, ..options("127.0.0.1", 1) }, "n").is_none()
        );
        let begun = std::time::Instant::now();
        let statsd = Statsd::start(&options("no-such-host.invalid", 1), "n").expect("it starts");
        for _ in 0..100_000 {
            statsd.count("d", &Tally { attempted: 1, ..Tally::default() }, Some(Duration::ZERO));
        }
        drop(statsd);
        assert!(begun.elapsed() < LAST_WORDS + Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
