//! How memory grows with the size of a database, and with the number of workers.
//!
//! Large databases are mostly holes, so that they take little disk of ours; of rivals that write what they receive they
//! take all of it. Small ones are many, and go to the receiver by 1, 4 or 16 workers at a time: our own workers, or as
//! many clients of rsync. Memory is the most that a side had at once, all its processes together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use rusqlite::Connection;
use serde_json::Value;
use swiftlet::broker::fresh_id;
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{HashSalt, PartShift};

use crate::contender::{self, Ground};
use crate::figures::{Figure, Figures};
use crate::measure::{Memory, Server, watch};
use crate::network::{Link, await_listener};
use crate::options::Options;
use crate::proof::{Contents, assert_same_bytes};
use crate::rsync::{self, Way};
use crate::workshop::{self, Workshop};
use crate::{machine, ours, room};

#[path = "../../tests/evidence/sparse.rs"]
mod sparse;

const AGENT: &str = env!("CARGO_BIN_EXE_agent");

/// Memory of both sides, and seconds, by megabytes of a file and by workers.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    let ground = Ground { link: Rc::new(Link::loopback()), caches: options.caches() };
    by_size(options, root, &ground, figures);
    by_workers(options, root, &ground, figures);
}

fn by_size(options: &Options, root: &Path, ground: &Ground, figures: &mut Figures) {
    let (rows, megabytes): (u64, &[u64]) =
        if options.quick { (20_000, &[20, 100]) } else { (200_000, &[100, 1_000, 10_000]) };
    let contenders = contender::over_network(options, root, ground, &WAYS, figures);
    let workshop = Workshop::build(&root.join("pairs"), rows);
    for &megabytes in megabytes {
        let bytes = megabytes * 1_000_000;
        if !room::fits(root, &format!("memory, a file of {megabytes} MB"), bytes * 2, figures) {
            continue;
        }
        sparse::lengthen(workshop.base(), bytes);
        let runs = if bytes > REPEATED_BYTES { 1 } else { options.runs() };
        for name in ["missing", "churn10k"] {
            let pair = workshop.pair(name);
            let mut found = Figures::default();
            let case = format!("by megabytes: {name}");
            contender::compete(&contenders, &pair, runs, &mut found, "memory", &case);
            let of_interest = |figure: &Figure| {
                ["anonymous", "resident", "seconds"].iter().any(|measure| figure.measure.ends_with(measure))
            };
            for figure in found.measured.into_iter().filter(of_interest) {
                figures.add(Figure { x: Some(megabytes as f64), ..figure });
            }
            found.not_measured.iter().for_each(|(what, why)| figures.could_not(what, why));
            pair.discard();
        }
    }
}

fn by_workers(options: &Options, root: &Path, ground: &Ground, figures: &mut Figures) {
    let (containers, rows) = if options.quick { (16, 10_000) } else { (64, 100_000) };
    let fleet_bytes = containers * workshop::needed_bytes(rows);
    if !room::fits(root, "memory by workers", fleet_bytes, figures) {
        return;
    }
    let workshop = Workshop::build(&root.join("fleet"), rows);
    let fleet = Fleet::build(&root.join("nodes"), workshop.base(), containers, ground);
    let case = format!("by workers: {containers} databases of {} MB", rows * 150 / 1_000_000);
    for workers in WORKERS {
        let mut add = |side: &str, runs: Vec<Taken>| {
            let numbers: [(_, _, Number); 3] = [
                ("sender anonymous", "KiB", |taken| taken.sender.anonymous_kib as f64),
                ("receiver anonymous", "KiB", |taken| taken.receiver.anonymous_kib as f64),
                ("seconds", "s", |taken| taken.seconds),
            ];
            for (measure, unit, number) in numbers {
                figures.add(Figure {
                    section: "memory",
                    case: case.clone(),
                    side: side.to_owned(),
                    measure,
                    unit,
                    x: Some(workers as f64),
                    runs: runs.iter().map(number).collect(),
                    note: String::new(),
                });
            }
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.runs() {
            ours.push(fleet.by_agents(workers));
            if machine::has("rsync") {
                theirs.push(fleet.by_rsync(workers));
            }
        }
        add("ours", ours);
        if !theirs.is_empty() {
            add("rsync --whole-file", theirs);
        }
    }
}

/// What a figure takes of it.
type Number = fn(&Taken) -> f64;

/// What bringing all databases to the receiver took.
struct Taken {
    seconds: f64,
    sender: Memory,
    receiver: Memory,
}

/// Databases of many containers on node `a`, which node `b` lacks.
struct Fleet<'a> {
    root: PathBuf,
    ground: &'a Ground,
    port: u16,
    /// Where each is on a device, below it.
    databases: Vec<PathBuf>,
    expected: Contents,
}

impl Fleet<'_> {
    /// Makes the databases of one, and the configuration of both nodes.
    fn build<'a>(root: &Path, template: &Path, count: u64, ground: &'a Ground) -> Fleet<'a> {
        let salt = HashSalt { prefix: workshop::SALT.into(), suffix: workshop::SALT.into() };
        let shift = PartShift::new(32 - workshop::PART_POWER).expect("a partition power");
        let device = root.join("devices/a");
        let mut databases = Vec::new();
        for number in 0..count {
            let container = format!("fleet-{number}");
            let hash = salt.hash(workshop::ACCOUNT, Some(&container), None);
            let home = HashDir::new(device.as_path().into(), shift.partition(&hash), hash);
            let database = home.dir().join(format!("{hash}.db"));
            workshop::copy(template, &database);
            let rename = "UPDATE container_info SET container = ?, id = ?";
            let id = fresh_id("a");
            let renamed = Connection::open(&database)
                .and_then(|connection| connection.execute(rename, [container.as_str(), id.as_str()]));
            assert_eq!(renamed.expect("another container's database"), 1);
            databases.push(database.strip_prefix(&device).expect("below its device").to_owned());
        }
        let port = ground.link.free_port();
        ours::write_ring(root, ground.link.addresses, port - 1);
        let expected = Contents::of(template);
        Fleet { root: root.to_owned(), ground, port, databases, expected }
    }

    fn device(&self, node: &str) -> PathBuf {
        self.root.join("devices").join(node)
    }

    /// A pass of our agent with so many workers.
    fn by_agents(&self, workers: usize) -> Taken {
        let (link, root, user) = (&self.ground.link, self.root.display(), ours::user());
        for (node, address) in ["a", "b"].into_iter().zip(link.addresses) {
            let conf = format!(
                "[DEFAULT]\nbind_ip = {address}\nbind_port = {}\nuser = {user}\nswift_dir = {root}\n\
                 devices = {root}/devices\nmount_check = false\nrecon_cache_path = {root}/recon-{node}\n\
                 [container-replicator]\nagent_port_offset = 1\nagent_passes = no\nfallocate_reserve = 0\n\
                 agent_state_path = {root}/recon-{node}\n\
                 databases_per_second = 0\nnode_timeout = 60\nconcurrency = {workers}\n",
                self.port - 1
            );
            fs::create_dir_all(self.root.join(format!("recon-{node}"))).expect("a directory");
            fs::write(self.root.join(format!("{node}.conf")), conf).expect("a configuration");
        }
        self.empty_receiver();
        let log = || File::options().create(true).append(true).open(self.root.join("log")).expect("a log");
        let mut command = link.receiver.command(AGENT);
        command.arg("--config").arg(self.root.join("b.conf"));
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        let mut server = Server(command.spawn().expect("an agent"));
        await_listener(&mut server.0, self.port);
        let mut command = link.sender.command(AGENT);
        command.arg("--config").arg(self.root.join("a.conf")).args(["--once", "--json"]).stderr(log());
        let finished = watch(&mut command, Some(&server.0));
        let report: Value = serde_json::from_str(&finished.output).expect("the report as JSON");
        assert_eq!(report["full"].as_u64(), Some(self.databases.len() as u64), "{report}");
        drop(server);
        for database in &self.databases {
            assert_eq!(
                Contents::of(&self.device("b").join(database)),
                self.expected,
                "{}",
                database.display()
            );
        }
        Taken { seconds: finished.seconds, sender: finished.memory, receiver: finished.server }
    }

    /// So many clients of rsync at a time, each with one database after the other.
    fn by_rsync(&self, workers: usize) -> Taken {
        let link = &self.ground.link;
        self.empty_receiver();
        let (port, address) = (link.free_port(), link.addresses[1]);
        let server = rsync::serve(&link.receiver, address, port, &self.root, &self.device("b"));
        let list: Vec<String> =
            self.databases.iter().map(|database| format!("{}\n", database.display())).collect();
        fs::write(self.root.join("list"), list.concat()).expect("a list");
        let mut command = link.sender.command("sh");
        command.current_dir(self.device("a")).arg("-c").arg(format!(
            "xargs -a ../../list -P {workers} -I @ rsync --whole-file --relative @ rsync://{address}:{port}/m/"
        ));
        let finished = watch(&mut command, Some(&server.0));
        assert!(finished.status.success(), "{command:?} ended with {}", finished.status);
        drop(server);
        for database in &self.databases {
            assert_same_bytes(&self.device("a").join(database), &self.device("b").join(database));
        }
        Taken { seconds: finished.seconds, sender: finished.memory, receiver: finished.server }
    }

    fn empty_receiver(&self) {
        let device = self.device("b");
        // There is none before the first run.
        let _ = fs::remove_dir_all(&device);
        fs::create_dir_all(&device).expect("a device");
        self.ground.caches.settle();
    }
}

/// As Swift ships what is missing, and as it, or an operator, brings up to date what is not.
const WAYS: [Way; 2] = [Way::Delta, Way::WholeFile];
const WORKERS: [usize; 3] = [1, 4, 16];
/// Larger files are moved once: memory hardly differs from run to run, and minutes add up.
const REPEATED_BYTES: u64 = 1_000_000_000;
