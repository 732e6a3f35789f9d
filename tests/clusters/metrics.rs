//! What graphs and alarms are made of, as a scraper, a statsd server and node_exporter get it from agents at work.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, Container, SOON, free_port, rows, wait};

/// Series, by name and labels.
type Series = BTreeMap<String, f64>;

fn series(text: &str) -> Series {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(pair).collect()
}

/// What is answered at a port; `None` if nobody does.
fn scrape(port: u16) -> Option<Series> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    Some(series(body))
}

/// Containers with rows of their own on each device.
fn differing(cluster: &Cluster, count: usize) -> Vec<Container> {
    let containers = cluster.containers("c", count);
    for container in &containers {
        for device in cluster.primaries(container) {
            let mut broker = cluster.create(device, container);
            broker.merge_rows(rows(&format!("on{device}"), 0..10), None).expect("merged");
        }
    }
    containers
}

/// A statsd server, and what it was told so far.
struct Statsd {
    socket: UdpSocket,
    counts: BTreeMap<String, f64>,
    timings: usize,
}

impl Statsd {
    fn new() -> Statsd {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
        socket.set_nonblocking(true).expect("set");
        Statsd { socket, counts: BTreeMap::new(), timings: 0 }
    }

    fn port(&self) -> String {
        self.socket.local_addr().expect("an address").port().to_string()
    }

    /// Takes what has come, each datagram being one metric.
    fn hear(&mut self) {
        let mut packet = [0; 1000];
        while let Ok(length) = self.socket.recv(&mut packet) {
            let line = std::str::from_utf8(&packet[..length]).expect("text");
            let (name, rest) = line.split_once(':').expect("a name");
            match rest.split('|').collect::<Vec<_>>()[..] {
                [count, "c"] => {
                    *self.counts.entry(name.to_owned()).or_default() +=
                        count.parse::<f64>().expect("a number");
                }
                [time, "ms"] => {
                    assert_eq!(name, "pre.container-replicator.timing");
                    assert!(time.parse::<f64>().is_ok_and(|time| time > 0.0), "{line}");
                    self.timings += 1;
                }
                _ => panic!("{line}"),
            }
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(&format!("pre.container-replicator.{name}")).copied().unwrap_or(0.0) as u64
    }
}

#[test]
fn a_pass_from_cron_sends_what_it_counted_to_statsd() {
    let cluster = Cluster::new(3);
    cluster.configure_all(&[("agent_passes", "no")]);
    let mut statsd = Statsd::new();
    let port = statsd.port();
    let options = [
        ("log_statsd_host", "localhost"),
        ("log_statsd_port", port.as_str()),
        ("log_statsd_metric_prefix", "pre"),
        ("handoff_delete", "1"),
    ];
    cluster.configure(0, &options);
    differing(&cluster, 5);
    // One that belongs elsewhere, and one that cannot be read.
    cluster.set_ring(|partition| {
        match partition.0 % 2 {
            0 => vec![0, 1, 2],
            _ => vec![1, 2],
        }
        .into_iter()
        .cycle()
        .take(2)
        .collect()
    });
    let stray = cluster.containers("s", 20).into_iter().find(|c| !cluster.primaries(c).contains(&0));
    drop(cluster.create(0, &stray.expect("one of them")));
    let home = cluster.containers("h", 20).into_iter().find(|c| cluster.primaries(c).contains(&0));
    let home = home.expect("one of them");
    drop(cluster.create(0, &home));
    fs::write(cluster.home(0, &home).usual_path(), "no database").expect("written");
    cluster.start(1);
    let passed = cluster.once(0, "").ended(1);
    statsd.hear();
    for (name, counter) in [
        ("attempts", "attempted"),
        ("successes", "success"),
        ("no_changes", "no_change"),
        ("hashmatches", "hashmatch"),
        ("diffs", "diff"),
        ("diff_caps", "diff_capped"),
        ("rsyncs", "rsync"),
        ("remote_merges", "remote_merge"),
        ("removes.d0", "remove"),
    ] {
        assert_eq!(statsd.count(name), passed.count(counter), "{name}: {}", passed.stdout);
    }
    assert!(passed.count("diff") > 0 && passed.count("remove") > 0, "{}", passed.stdout);
    // Two devices should have the one that cannot be read: two failures of the pass, one event.
    assert_eq!(statsd.count("failures"), passed.count("failure") - 1, "{}", passed.stdout);
    assert!(statsd.timings as u64 >= passed.count("attempted"), "{}", statsd.timings);
    let ours = statsd.counts.keys().filter(|name| !name.starts_with("pre.container-replicator."));
    assert_eq!(ours.count(), 0, "{:?}", statsd.counts);
}

#[test]
fn a_daemon_answers_prometheus_and_goes_on_to_after_a_reload() {
    let cluster = Cluster::new(2);
    let (first, second) = (free_port(), free_port());
    let mut statsd = Statsd::new();
    let port = statsd.port();
    cluster.configure(
        0,
        &[
            ("agent_metrics_port", &first.to_string()),
            ("log_statsd_host", "127.0.0.1"),
            ("log_statsd_port", &port),
            ("log_statsd_metric_prefix", "pre"),
        ],
    );
    let containers = differing(&cluster, 3);
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(30));
    let peer = format!("swiftlet_peer_behind_databases{{peer=\"127.0.0.1:{}\"}}", cluster.port(1));
    let mut last = Series::new();
    let is_told = wait(Duration::from_secs(40), || {
        last = scrape(first).unwrap_or_default();
        last.get("swiftlet_device_databases{device=\"d0\"}") == Some(&3.0)
            && last.get(&peer) == Some(&0.0)
            && last.get("swiftlet_in_sync") == Some(&1.0)
            && last.get("swiftlet_passes_total{outcome=\"clean\"}").is_some_and(|passes| *passes > 0.0)
    });
    assert!(is_told, "{last:#?}\n{}", cluster.logs());
    for (name, value) in [
        ("swiftlet_agent_running", 1.0),
        ("swiftlet_state_known", 1.0),
        ("swiftlet_alarms{kind=\"stuck\"}", 0.0),
        ("swiftlet_device_usable{device=\"d0\"}", 1.0),
        ("swiftlet_interval_seconds", 1.0),
        ("swiftlet_peers", 1.0),
    ] {
        assert_eq!(last.get(name), Some(&value), "{name}: {last:#?}");
    }
    assert!(last["swiftlet_rows_sent_total"] > 0.0 && last["swiftlet_sent_bytes_total"] > 0.0, "{last:#?}");
    assert!(last["swiftlet_memory_anonymous_bytes"] > 1e5, "{last:#?}");
    assert!(last["swiftlet_device_reclaim_age_used_ratio{device=\"d0\"}"] < 0.01, "{last:#?}");
    let told = wait(SOON, || {
        statsd.hear();
        statsd.count("attempts") >= 3 && statsd.count("diffs") >= 1
    });
    assert!(told, "{:?}", statsd.counts);

    // Somebody has the new port, which is told and no reason to end; when it is free, another reload takes it.
    let taken = TcpListener::bind(("127.0.0.1", second)).expect("the port is free");
    let reload = || {
        let reloads = cluster.log(0).matches("reloaded ").count();
        kill(Pid::from_raw(cluster.process(0) as i32), Signal::SIGHUP).expect("it runs");
        assert!(wait(SOON, || cluster.log(0).matches("reloaded ").count() > reloads), "{}", cluster.logs());
    };
    cluster.configure(0, &[("agent_metrics_port", &second.to_string())]);
    reload();
    assert!(cluster.log(0).contains("cannot answer Prometheus at 127.0.0.1:"), "{}", cluster.logs());
    assert!(scrape(first).is_none(), "the old port is closed");
    drop(taken);
    reload();
    let counted = last["swiftlet_databases_attempted_total"];
    let again = scrape(second).expect("it answers");
    assert!(again["swiftlet_databases_attempted_total"] >= counted, "counters only grow");
    cluster.configure(0, &[("agent_metrics_port", "")]);
    reload();
    assert!(scrape(second).is_none(), "nobody is to be answered");
}

#[test]
fn the_file_of_node_exporter_is_there_after_a_pass_from_cron() {
    let cluster = Cluster::new(2);
    let dir = cluster.cache(0).with_file_name("textfiles");
    fs::create_dir(&dir).expect("a new directory");
    let path = dir.join("swiftlet.prom");
    let text = path.display().to_string();
    cluster.configure_all(&[("agent_passes", "no")]);
    cluster.configure(0, &[("agent_textfile_path", &text)]);
    differing(&cluster, 3);
    cluster.start(1);
    cluster.once(0, "--dry-run");
    assert!(!path.exists(), "a dry run tells nobody");
    let passed = cluster.once(0, "").ended(0);
    let first = series(&fs::read_to_string(&path).expect("it is there"));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(&dir).expect("readable").count(), 1, "nothing is left over");
    assert_eq!(first["swiftlet_rows_sent_total"], passed.count("rows_sent") as f64);
    assert_eq!(first["swiftlet_exchanges_total{outcome=\"diff\"}"], passed.count("diff") as f64);
    assert_eq!(first["swiftlet_last_pass_databases"], 3.0);
    assert_eq!((first["swiftlet_pass_running"], first["swiftlet_agent_running"]), (0.0, 0.0));
    // What the next pass counts is added.
    let next = cluster.once(0, "").ended(0);
    let second = series(&fs::read_to_string(&path).expect("it is there"));
    let sum = passed.count("attempted") + next.count("attempted");
    assert_eq!(second["swiftlet_databases_attempted_total"], sum as f64);
    assert_eq!(second["swiftlet_passes_total{outcome=\"clean\"}"], 2.0);
    // A place where nothing can be written is told once, and the pass is none the worse.
    fs::remove_dir_all(&dir).expect("removed");
    let passed = cluster.once(0, "").ended(0).said("agent_textfile_path");
    assert_eq!(passed.stderr.matches("agent_textfile_path").count(), 1, "{}", passed.stderr);
}

#[test]
fn a_daemon_keeps_the_file_of_node_exporter_fresh() {
    let cluster = Cluster::new(2);
    let path = cluster.cache(0).with_file_name("swiftlet.prom");
    cluster.configure(0, &[("agent_textfile_path", &path.display().to_string())]);
    let containers = differing(&cluster, 2);
    cluster.start_all();
    cluster.wait_for_agreement(&containers, Duration::from_secs(30));
    let passes = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        series(&text).get("swiftlet_passes_total{outcome=\"clean\"}").copied().unwrap_or(0.0)
    };
    assert!(wait(Duration::from_secs(30), || passes() > 0.0), "{}", cluster.logs());
    let before = passes();
    let begun = Instant::now();
    assert!(wait(Duration::from_secs(30), || passes() > before), "{}", cluster.logs());
    println!("fresh after {:?}", begun.elapsed());
}
