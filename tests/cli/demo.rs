//! The demo as a newcomer starts it, and as one stops it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use swiftlet::ring::builder::Builder;

use super::agent;

/// Ended when the test is.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_proves_what_it_says_and_leaves_only_what_was_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = dir.path().join("new/100%(of us) mine");
    fs::create_dir_all(&kept).expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(["demo", "--keep"])
        .arg(&kept)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{errors}");
    assert_eq!(errors, "");
    for part in [
        "All replicas agree.",
        "no row was lost",
        "block delta",
        "full copy",
        "quarantined",
        "removed x3",
        "nothing was removed",
        "d4 has them",
        "-> d4",
        "went only when all that should hold it did",
        "where the ring wants them, and no other copy is left",
        "d0 is empty",
        "no replica changed its place",
    ] {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
    let kept = kept.display().to_string();
    for line in told.lines().filter(|line| !line.contains(&kept)) {
        assert!(line.chars().count() <= 100, "wider than 100 columns: {line}");
    }
    assert!(!told.contains('\x1b'), "colours without a terminal");
    assert_eq!(ports(&told).len(), 5);
    assert_silent(&ports(&told));
    assert!(Path::new(&kept).join("node4/agent.conf").is_file());
    let builder = Builder::load(&Path::new(&kept).join("etc/container.builder")).expect("a builder");
    builder.validate().expect("it is sound");
    assert_eq!(
        builder.devices().map(|device| device.name.as_str()).collect::<Vec<_>>(),
        ["d1", "d2", "d3", "d4"]
    );
    agent_with("demo --keep", &kept).exits(2).complains("is not empty");
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    stopped_when(|ports| ports.len() == 4);
}

#[test]
fn a_demo_that_is_stopped_while_the_data_follows_leaves_nothing_behind() {
    stopped_when(|ports| ports.len() == 5);
}

/// Stops a demo as soon as it serves on so many ports.
fn stopped_when(soon_enough: impl Fn(&[u16]) -> bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut demo = Started(
        Command::new(env!("CARGO_BIN_EXE_agent"))
            .arg("demo")
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs"),
    );
    let mut told = BufReader::new(demo.0.stdout.take().expect("piped")).lines();
    let mut served = Vec::new();
    while !soon_enough(&served) {
        let line = told.next().expect("it comes to the daemons").expect("text");
        served.extend(ports(&line));
    }
    for port in &served {
        assert!(TcpStream::connect(("127.0.0.1", *port)).is_ok(), "port {port} is served");
    }
    kill(Pid::from_raw(demo.0.id() as i32), Signal::SIGTERM).expect("it runs");
    // What it still has to say must not hold it up.
    let rest = thread::spawn(move || told.count());
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match demo.0.try_wait().expect("it is ours") {
            Some(status) => break status,
            None => assert!(Instant::now() < end, "it does not end"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    rest.join().expect("text");
    let mut errors = String::new();
    demo.0.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    assert_eq!(
        (status.code(), errors.as_str()),
        (Some(1), "agent: the demo was stopped; nothing of it is left running\n")
    );
    assert_silent(&served);
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    agent_with("demo --keep", &file.display().to_string()).exits(2).complains("/file");
}

fn agent_with(line: &str, path: &str) -> super::Said {
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    arguments.push(path);
    super::agent_given(&arguments)
}

/// The numbers in the lines that name ports on which daemons serve.
fn ports(told: &str) -> Vec<u16> {
    let of = |line: &'_ str| {
        let list = line.split_once(", ports ").or_else(|| line.split_once("serves now, on port "));
        list.map(|(_, list)| list.to_owned())
    };
    let lists: Vec<String> = told.lines().filter_map(of).collect();
    lists
        .join(", ")
        .split(", ")
        .filter(|port| !port.is_empty())
        .map(|port| port.parse().expect("a port"))
        .collect()
}

fn assert_silent(ports: &[u16]) {
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", *port)).is_err(), "something still listens on {port}");
    }
}

#[test]
fn the_demo_takes_no_other_options() {
    agent("demo --once").exits(2).complains("'--once'");
}
