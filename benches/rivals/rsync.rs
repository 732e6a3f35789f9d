//! rsync to a daemon on the loopback interface, as Swift runs it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::Contender;
use crate::measure::{Measured, Server, run};
use crate::rdiff::assert_equal;
use crate::workshop::{self, Pair};

const START_LIMIT: Duration = Duration::from_secs(10);

/// How rsync is told to go about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Rolling checksums against the receiver's file, literals compressed.
    Delta,
    /// The whole file, uncompressed: how Swift ships a database.
    WholeFile,
    /// The same, and on the disk before rsync says that it is done, as our agents do it.
    WholeFileSynced,
}

/// A daemon of its own for each run.
pub struct Rsync {
    root: PathBuf,
    way: Way,
}

impl Rsync {
    /// Works below `root`.
    pub fn new(root: &Path, way: Way) -> Rsync {
        fs::create_dir_all(root).expect("a directory");
        Rsync { root: root.to_owned(), way }
    }

    fn serve(&self) -> (Server, u16) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let (conf, root) = (self.root.join("conf"), self.root.display());
        let owner = if nix::unistd::getuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "{owner}use chroot = false\nlog file = {root}/log\n[m]\npath = {root}\nread only = false\n"
        );
        fs::write(&conf, text).expect("a configuration");
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={port}"));
        command.arg(format!("--config={}", conf.display())).stdin(Stdio::null()).stdout(Stdio::null());
        let server = Server(command.spawn().expect("rsync"));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < START_LIMIT, "no rsync daemon listens");
            thread::sleep(Duration::from_millis(5));
        }
        (server, port)
    }
}

impl Contender for Rsync {
    fn name(&self) -> &str {
        match self.way {
            Way::Delta => "rsync -z",
            Way::WholeFile => "rsync --whole-file",
            Way::WholeFileSynced => "rsync -W --fsync",
        }
    }

    fn run(&self, pair: &Pair) -> Measured {
        let (source, target) = (self.root.join("new.db"), self.root.join("received.db"));
        let _ = fs::remove_file(&target);
        workshop::copy(&pair.new, &source);
        if let Some(old) = &pair.old {
            workshop::copy(old, &target);
        }
        let (server, port) = self.serve();
        let mut command = Command::new("rsync");
        command.args(["--ignore-times", "--stats"]);
        command.args(match self.way {
            Way::Delta => ["--no-whole-file", "-z"].as_slice(),
            Way::WholeFile => &["--whole-file"],
            Way::WholeFileSynced => &["--whole-file", "--fsync"],
        });
        command.arg(&source).arg(format!("rsync://127.0.0.1:{port}/m/received.db"));
        let finished = run(&mut command, Some(&server.0));
        drop(server);
        File::open(&target).expect("what arrived");
        assert_equal(&source, &target);
        let said = |key: &str| -> u64 {
            let line =
                finished.output.lines().find(|line| line.starts_with(key)).expect("rsync's statistics");
            line.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
        };
        Measured {
            seconds: finished.seconds,
            wire_bytes: said("Total bytes sent") + said("Total bytes received"),
            sender: finished.memory,
            receiver: finished.server,
            way: String::new(),
        }
    }
}
