//! Swift's own replicator: `swift-container-replicator --once` on the sender's node, a container server and the rsync
//! daemon that it needs on the receiver's.
//!
//! Swift may need several passes until both replicas agree, for it sends at most 100,000 rows in one; they count together.
//! Their seconds are what Swift says of its passes, without the time that Python takes to start. Processor seconds have that in
//! them.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::contender::{Contender, Ground};
use crate::measure::{Measured, Server, watch_beside};
use crate::network::{Place, await_listener};
use crate::ours;
use crate::proof::Contents;
use crate::rsync;
use crate::workshop::{self, Pair};

/// A virtual environment that Swift is installed in.
pub struct Swift {
    environment: PathBuf,
}

impl Swift {
    /// The environment that was named, or the one that the tests made; else why there is none.
    pub fn find(named: Option<&Path>) -> Result<Swift, String> {
        let tests_own = concat!(env!("CARGO_MANIFEST_DIR"), "/target/swift-venv");
        let environment = named.map_or_else(|| PathBuf::from(tests_own), Path::to_owned);
        match named {
            _ if environment.join("bin/swift-container-replicator").exists() => Ok(Swift { environment }),
            Some(named) => Err(format!("{} has no swift-container-replicator", named.display())),
            None => Err("no virtual environment is named: --swift-venv or SWIFTLET_SWIFT_VENV".to_owned()),
        }
    }

    /// Where it is installed.
    pub fn environment(&self) -> &Path {
        &self.environment
    }

    /// Which Swift, on which Python.
    pub fn version(&self) -> String {
        let program =
            "import sys, swift; print('Swift', swift.__version__, 'on Python', sys.version.split()[0])";
        let output = Command::new(self.environment.join("bin/python")).args(["-c", program]).output();
        output.map_or_else(
            |error| format!("Swift: {error}"),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }

    /// One of Swift's programs, unchanged, but with `swift.conf` taken from `swift_dir` and not from /etc.
    pub fn here(&self, swift_dir: &Path, program: &str) -> Command {
        self.with(Command::new(self.python()), swift_dir, program)
    }

    fn command(&self, place: &Place, swift_dir: &Path, program: &str) -> Command {
        self.with(place.command(self.python()), swift_dir, program)
    }

    fn python(&self) -> PathBuf {
        self.environment.join("bin/python")
    }

    fn with(&self, mut command: Command, swift_dir: &Path, program: &str) -> Command {
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swift/swift_at.py"));
        command.arg(swift_dir).arg(self.environment.join("bin").join(program));
        command
    }
}

/// Two nodes with one device each, as our agents have them.
pub struct Replicator {
    swift: Swift,
    root: PathBuf,
    ground: Ground,
    /// What the nodes call the receiver's container server and rsync daemon at, and where these listen.
    server: Ports,
    rsync: Ports,
    /// Without a log to write to, Swift sends its lines over the network that is measured.
    log: tempfile::TempDir,
}

struct Ports {
    called: u16,
    own: u16,
}

impl Replicator {
    /// Works below `root`.
    pub fn new(swift: Swift, root: &Path, ground: &Ground) -> Replicator {
        fs::create_dir_all(root).expect("a directory");
        let ports = || {
            let called = ground.link.free_port();
            Ports { called, own: if ground.link.is_long() { ground.link.free_port() } else { called } }
        };
        let (server, rsync) = (ports(), ports());
        ours::write_ring(root, ground.link.addresses, server.called);
        let log = tempfile::tempdir().expect("a directory");
        let lines = UnixDatagram::bind(log.path().join("log")).expect("a socket for the log");
        thread::spawn(move || {
            let mut line = [0; 8192];
            while lines.recv(&mut line).is_ok() {}
        });
        let replicator =
            Replicator { swift, root: root.to_owned(), ground: ground.clone(), server, rsync, log };
        let [sender, receiver] = ground.link.addresses;
        replicator.configure("a", sender, replicator.server.called);
        replicator.configure("b", receiver, replicator.server.own);
        replicator
    }

    fn configure(&self, node: &str, address: Ipv4Addr, port: u16) {
        let (root, log, user) = (self.root.display(), self.log.path().display(), ours::user());
        let text = format!(
            "[DEFAULT]\nbind_ip = {address}\nbind_port = {port}\nuser = {user}\nswift_dir = {root}\n\
             devices = {root}/devices\nmount_check = false\nrecon_cache_path = {root}/recon-{node}\nworkers = 0\n\
             log_address = {log}/log\nfallocate_reserve = 0\n\
             [pipeline:main]\npipeline = container-server\n[app:container-server]\nuse = egg:swift#container\n\
             [container-replicator]\nrsync_module = rsync://{{replication_ip}}:{}/m\ndatabases_per_second = 0\n",
            self.rsync.called
        );
        fs::create_dir_all(self.root.join(format!("recon-{node}"))).expect("a directory");
        fs::write(self.root.join(format!("{node}.conf")), text).expect("a configuration");
    }

    fn serve(&self) -> [Server; 2] {
        let (receiver, address) = (&self.ground.link.receiver, self.ground.link.addresses[1]);
        let devices = self.root.join("devices");
        let daemon = rsync::serve(receiver, address, self.rsync.own, &self.root, &devices);
        let mut command = self.swift.command(receiver, &self.root, "swift-container-server");
        command.arg(self.root.join("b.conf")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Server(command.stderr(Stdio::null()).spawn().expect("a container server"));
        await_listener(&mut server.0, self.server.own);
        [server, daemon]
    }

    /// One pass of the sender: what it took, and Swift's own account of it.
    fn pass(&self, servers: &[Server]) -> (Measured, Value) {
        let recon = self.root.join("recon-a/container.recon");
        // There is none before the first.
        let _ = fs::remove_file(&recon);
        let mut command =
            self.swift.command(&self.ground.link.sender, &self.root, "swift-container-replicator");
        command.arg(self.root.join("a.conf")).arg("--once").stderr(Stdio::null());
        let servers: Vec<_> = servers.iter().map(|server| &server.0).collect();
        let finished = watch_beside(&mut command, &servers);
        assert!(finished.status.success(), "{command:?} ended with {}", finished.status);
        let told: Value = serde_json::from_slice(&fs::read(recon).expect("what it says of its pass"))
            .expect("what it says as JSON");
        let seconds = told["replication_time"].as_f64().expect("seconds");
        let measured = Measured {
            seconds,
            processor_seconds: finished.processor_seconds,
            sender: finished.memory,
            receiver: finished.server,
            ..Measured::default()
        };
        (measured, told["replication_stats"].clone())
    }
}

impl Contender for Replicator {
    fn name(&self) -> &str {
        "Swift"
    }

    fn run(&self, pair: &Pair) -> Result<Measured, String> {
        let [sender, receiver] = ["a", "b"].map(|node| {
            let device = self.root.join("devices").join(node);
            // Nothing of an earlier run may help this one.
            let _ = fs::remove_dir_all(&device);
            fs::create_dir_all(device.join("tmp")).expect("a device");
            fs::create_dir_all(device.join("containers")).expect("a device");
            workshop::hash_dir(&device).dir().join(format!("{}.db", workshop::hash()))
        });
        workshop::copy(&pair.new, &sender);
        if let Some(old) = &pair.old {
            workshop::copy(old, &receiver);
        }
        let expected = Contents::of(&pair.new);
        let servers = self.serve();
        let link = &self.ground.link;
        let delays = [&self.server, &self.rsync].map(|ports| link.stretch(ports.called, ports.own));
        self.ground.caches.settle();

        let (mut total, mut ways, mut passes) = (Measured::default(), Vec::new(), 0);
        let carried = link.count();
        while passes < PASSES_LIMIT {
            let (one, stats) = self.pass(&servers);
            passes += 1;
            total.seconds += one.seconds;
            total.pass_seconds = Some(total.seconds);
            total.processor_seconds += one.processor_seconds;
            total.sender = total.sender.or(one.sender);
            total.receiver = total.receiver.or(one.receiver);
            let count = |key: &str| stats[key].as_u64().unwrap_or(0);
            if count("failure") > 0 {
                return Err(format!("its pass {passes} failed: {stats}"));
            }
            let way = WAYS.into_iter().filter(|key| count(key) > 0).collect::<Vec<_>>().join(" ");
            if ways.last() != Some(&way) {
                ways.push(way);
            }
            total.wire_bytes = carried.bytes();
            total.payload_bytes = delays.iter().map(|delay| Some(delay.as_ref()?.carried())).sum();
            if receiver.exists() && Contents::of(&receiver) == expected {
                assert_eq!(Contents::of(&sender), expected, "{}: the sender's rows", pair.name);
                total.way =
                    format!("{passes} {}: {}", if passes == 1 { "pass" } else { "passes" }, ways.join(", "));
                return Ok(total);
            }
        }
        Err(format!("its replicas still differ after {passes} passes"))
    }
}

/// Swift's words for what a pass did.
const WAYS: [&str; 7] = ["no_change", "hashmatch", "diff", "diff_capped", "ts_repl", "rsync", "remote_merge"];
/// A million rows at 100,000 a pass, and as many again.
const PASSES_LIMIT: u32 = 20;
