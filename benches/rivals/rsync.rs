//! rsync to a daemon, as Swift runs it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use crate::contender::{Contender, Ground};
use crate::measure::{Measured, Server, run};
use crate::network::{Place, await_listener};
use crate::proof::assert_same_bytes;
use crate::workshop::{self, Pair};

/// How rsync is told to go about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Rolling checksums against the receiver's file, literals compressed.
    Delta,
    /// The whole file, uncompressed: how Swift ships a database.
    WholeFile,
    /// The same, and on the disk before rsync says that it is done, as our agents do it.
    WholeFileSynced,
    /// The same, and then checked by SQLite, as our agents do before a file takes its place.
    WholeFileChecked,
}

/// All of them.
pub const WAYS: [Way; 4] = [Way::Delta, Way::WholeFile, Way::WholeFileSynced, Way::WholeFileChecked];

/// A daemon of its own for each run.
pub struct Rsync {
    root: PathBuf,
    way: Way,
    ground: Ground,
}

impl Rsync {
    /// Works below `root`.
    pub fn new(root: &Path, way: Way, ground: &Ground) -> Rsync {
        fs::create_dir_all(root).expect("a directory");
        Rsync { root: root.to_owned(), way, ground: ground.clone() }
    }
}

/// A daemon with one module, `m`, that is all of `shared`; its own files are below `root`.
pub fn serve(place: &Place, address: Ipv4Addr, port: u16, root: &Path, shared: &Path) -> Server {
    let (conf, root, shared) = (root.join("rsyncd.conf"), root.display(), shared.display());
    let owner = if nix::unistd::getuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    let text = format!(
        "{owner}use chroot = false\nlog file = {root}/rsyncd.log\nlock file = {root}/rsyncd.lock\n\
         [m]\npath = {shared}\nread only = false\n"
    );
    fs::write(&conf, text).expect("a configuration");
    let mut command = place.command("rsync");
    command.args(["--daemon", "--no-detach"]).arg(format!("--address={address}"));
    command.arg(format!("--port={port}")).arg(format!("--config={}", conf.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut server = Server(command.spawn().expect("rsync"));
    await_listener(&mut server.0, port);
    server
}

/// Has SQLite read a database from end to end; how many seconds that takes.
fn check(database: &Path) -> f64 {
    let started = Instant::now();
    let verdict: String = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|database| database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))
        .expect("a database");
    assert_eq!(verdict, "ok");
    started.elapsed().as_secs_f64()
}

impl Contender for Rsync {
    fn name(&self) -> &str {
        match self.way {
            Way::Delta => "rsync -z",
            Way::WholeFile => "rsync --whole-file",
            Way::WholeFileSynced => "rsync -W --fsync",
            Way::WholeFileChecked => "rsync -W --fsync, checked",
        }
    }

    fn run(&self, pair: &Pair) -> Result<Measured, String> {
        let (source, target) = (self.root.join("new.db"), self.root.join("received.db"));
        workshop::copy(&pair.new, &source);
        if let Some(old) = &pair.old {
            workshop::copy(old, &target);
        }
        let (link, address) = (&self.ground.link, self.ground.link.addresses[1]);
        let called = link.free_port();
        let port = if link.is_long() { link.free_port() } else { called };
        let server = serve(&link.receiver, address, port, &self.root, &self.root);
        let delay = link.stretch(called, port);
        let mut command = link.sender.command("rsync");
        command.args(["--ignore-times", "--stats"]);
        command.args(match self.way {
            Way::Delta => ["--no-whole-file", "-z"].as_slice(),
            Way::WholeFile => &["--whole-file"],
            Way::WholeFileSynced | Way::WholeFileChecked => &["--whole-file", "--fsync"],
        });
        command.arg(&source).arg(format!("rsync://{address}:{called}/m/received.db"));
        self.ground.caches.settle();
        let carried = link.count();
        let finished = run(&mut command, Some(&server.0));
        let wire_bytes = carried.bytes();
        let checking = if self.way == Way::WholeFileChecked { check(&target) } else { 0.0 };
        drop(server);
        assert_same_bytes(&source, &target);
        for file in [source, target] {
            fs::remove_file(file).expect("a file to remove");
        }
        let said = |key: &str| -> u64 {
            let line =
                finished.output.lines().find(|line| line.starts_with(key)).expect("rsync's statistics");
            line.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
        };
        let said_bytes = said("Total bytes sent") + said("Total bytes received");
        Ok(Measured {
            seconds: finished.seconds + checking,
            pass_seconds: None,
            // It does not wait for anything: the file is in memory.
            processor_seconds: finished.processor_seconds + checking,
            wire_bytes,
            payload_bytes: Some(delay.map_or(said_bytes, |delay| delay.carried())),
            sender: finished.memory,
            receiver: finished.server,
            way: String::new(),
        })
    }
}
