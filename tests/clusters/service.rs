//! What a service manager hears of a daemon. It is played by a socket.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, listens};

struct Manager {
    /// Where the socket has its name.
    _dir: tempfile::TempDir,
    socket: UnixDatagram,
    daemon: Child,
    heard: Vec<String>,
}

impl Manager {
    fn start(mut agent: Command, watchdog: Duration) -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        agent.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let daemon = agent.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the agent runs");
        let mut manager = Manager { _dir: dir, socket, daemon, heard: vec![] };
        manager.hears("READY=1");
        manager
    }

    fn listen(&mut self) {
        let mut message = [0; 4096];
        if let Ok(bytes) = self.socket.recv(&mut message) {
            self.heard.extend(String::from_utf8_lossy(&message[..bytes]).lines().map(str::to_owned));
        }
    }

    fn hears(&mut self, start: &str) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while !self.heard.iter().any(|line| line.starts_with(start)) {
            assert!(Instant::now() < give_up, "{start} is not among {:?}", self.heard);
            self.listen();
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn it_hears_that_the_daemon_serves_lives_works_and_ends() {
    let cluster = Cluster::new(1);
    let container = cluster.container("c");
    drop(cluster.create(0, &container));
    cluster.configure(0, &[("interval", "1")]);
    let mut manager = Manager::start(cluster.agent(0, ""), Duration::from_millis(400));
    assert!(listens(cluster.port(0)), "ready before it serves");
    manager.hears("STATUS=last pass: 1 database in ");
    manager.hears("STATUS=in a pass");
    manager.heard.clear();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        manager.listen();
    }
    let beats = manager.heard.iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!((2..=12).contains(&beats), "{beats} beats in two seconds: {:?}", manager.heard);
    kill(Pid::from_raw(manager.daemon.id() as i32), Signal::SIGTERM).expect("it runs");
    manager.hears("STOPPING=1");
    assert_eq!(manager.daemon.wait().expect("it ends").code(), Some(0));
}
