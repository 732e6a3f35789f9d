//! Swift's own way on the same two nodes: its container servers, an rsync daemon, and a pass of its replicator.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::ours::Agents;

/// Two real Swift nodes, up until dropped.
pub struct Cluster {
    python: PathBuf,
    root: PathBuf,
    servers: Vec<Child>,
}

impl Cluster {
    /// Starts everything on the nodes of `agents`, whose ring and drives it shares; with that `databases_per_second`, where
    /// 0 is as many as there are.
    pub fn start(venv: &Path, agents: &Agents, databases_per_second: f64) -> Cluster {
        let root = agents.root().to_owned();
        let mut cluster =
            Cluster { python: venv.join("bin/python"), root: root.clone(), servers: Vec::new() };
        let rsync_port = free_port();
        let owner = if nix::unistd::getuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let mut rsyncd = format!(
            "{owner}use chroot = false\nport = {rsync_port}\nlog file = {}/rsyncd.log\n",
            root.display()
        );
        for node in ["a", "b"] {
            rsyncd += &format!("[container_{node}]\npath = {}/devices\nread only = false\n", root.display());
            let conf = fs::read_to_string(agents.conf(node)).expect("the node's configuration");
            let served = "[pipeline:main]\npipeline = container-server\n[app:container-server]\nuse = egg:swift#container\n";
            let replicator = format!(
                "rsync_module = rsync://127.0.0.1:{rsync_port}/container_{{device}}\n\
                 databases_per_second = {databases_per_second}\n"
            );
            let conf = conf.replace("[DEFAULT]\n", "[DEFAULT]\nworkers = 0\ndisable_fallocate = true\n");
            fs::write(cluster.conf(node), format!("{conf}{replicator}{served}")).expect("a configuration");
        }
        let conf = root.join("rsyncd.conf");
        fs::write(&conf, rsyncd).expect("a configuration");
        let mut rsync = Command::new("rsync");
        rsync
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--config={}", conf.display()));
        cluster.serve(rsync, &format!("127.0.0.1:{rsync_port}"));
        for node in ["a", "b"] {
            let server = cluster.program("swift-container-server", node);
            cluster.serve(server, &agents.container_server(node).to_string());
        }
        cluster
    }

    /// One pass of a node's replicator: what it counted, or that it failed.
    pub fn pass(&self, node: &str) -> String {
        self.pass_by(&[], node)
    }

    /// The same, started by another program.
    pub fn pass_by(&self, starter: &[&str], node: &str) -> String {
        let recon = self.root.join(format!("recon-{node}/container.recon"));
        let _ = fs::remove_file(&recon);
        let mut replicator = by(starter, self.program("swift-container-replicator", node));
        let log = self.log();
        let status =
            replicator.arg("--once").arg("--verbose").stdout(log.try_clone().expect("a log")).stderr(log);
        let status = status.status().expect("Swift's replicator");
        assert!(status.success(), "Swift's replicator ended with {status}: see {}", self.root.display());
        let told: Value =
            serde_json::from_str(&fs::read_to_string(&recon).expect("what it counted")).expect("JSON");
        let stats = &told["replication_stats"];
        let of_interest =
            ["no_change", "hashmatch", "rsync", "remote_merge", "diff", "diff_capped", "failure"];
        let happened = |key: &&str| stats[*key].as_u64().is_some_and(|count| count > 0);
        of_interest.into_iter().filter(happened).collect::<Vec<_>>().join(" ")
    }

    fn conf(&self, node: &str) -> PathBuf {
        self.root.join(format!("swift-{node}.conf"))
    }

    /// One of Swift's programs, made to read the `swift.conf` beside the ring.
    fn program(&self, name: &str, node: &str) -> Command {
        let mut command = Command::new(&self.python);
        let at = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swift/swift_at.py");
        command.arg(at).arg(&self.root).arg(self.python.with_file_name(name)).arg(self.conf(node));
        command.stdin(Stdio::null());
        command
    }

    fn log(&self) -> fs::File {
        fs::File::options().create(true).append(true).open(self.root.join("swift.log")).expect("a log")
    }

    fn serve(&mut self, mut command: Command, address: &str) {
        use std::os::unix::process::CommandExt;
        let log = self.log();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).process_group(0);
        self.servers.push(command.spawn().expect("a server of Swift's"));
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(self.root.join("swift.log")).unwrap_or_default();
            assert!(begun.elapsed() < START_LIMIT, "nothing of Swift's listens on {address}: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // rsync has a child for each connection.
            let _ = killpg(Pid::from_raw(server.id() as i32), Signal::SIGKILL);
            let _ = server.wait();
        }
    }
}

/// A command that another program starts.
pub fn by(starter: &[&str], command: Command) -> Command {
    let Some((program, arguments)) = starter.split_first() else { return command };
    let mut started = Command::new(program);
    started.args(arguments).arg(command.get_program()).args(command.get_args());
    started
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

const START_LIMIT: Duration = Duration::from_secs(30);
