//! How long clients of a container server wait while a replicator works on the same drives.
//!
//! Two nodes on one disk have a real container server of Swift's each. Clients ([`clients`]) put rows, make containers and
//! list them; a pass of the first node brings what changed there ([`backlog`]) to the second. Every contender has the same to
//! do, with the options that it has by default; before them all, nobody does anything but the clients. Contenders run as
//! any other process does, and once more in the idle classes of processor and disk, in which our unit puts us.
//!
//! Also on a disk as slow as one that turns, for there a replicator does the most harm; and there once more without any
//! regard for it (`agent_drive_latency_ms = 0`), for what that regard is worth.
//!
//! Afterwards, when all is quiet, passes both ways go on until every row that was acknowledged is on both nodes.

mod backlog;
mod clients;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::contender::Ground;
use crate::disk::Disk;
use crate::figures::{Figure, Figures};
use crate::measure::Server;
use crate::network::Link;
use crate::options::Options;
use crate::ours::{AGENT, Agents};
use crate::stalls::{lacking, now};
use crate::swift::Swift;
use crate::swift_nodes::{Cluster, by};
use crate::waits::Waits;
use crate::workshop;
use backlog::Backlog;
use clients::{Answer, Clients, Kind};

const SECTION: &str = "gentle";

/// Who replicates, if anybody does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Ours { options: &'static str },
    Swift,
}

/// A contender, and what starts it.
struct Side {
    name: &'static str,
    who: Who,
    starter: &'static [&'static str],
}

impl Side {
    /// Its name as one word, for the command line.
    fn word(&self) -> String {
        self.name.replace(", ", "-").replace(' ', "-")
    }
}

const OURS: Who = Who::Ours { options: "" };
const SIDES: [Side; 6] = [
    Side { name: "nobody", who: Who::Nobody, starter: &[] },
    Side { name: "ours", who: OURS, starter: &[] },
    Side { name: "ours, idle classes", who: OURS, starter: IDLE },
    Side {
        name: "ours, no regard",
        who: Who::Ours { options: "agent_drive_latency_ms = 0\n" },
        starter: &[],
    },
    Side { name: "Swift", who: Who::Swift, starter: &[] },
    Side { name: "Swift, idle classes", who: Who::Swift, starter: IDLE },
];
const IDLE: &[&str] = &["chrt", "--idle", "0", "ionice", "-c", "3"];

/// Every contender on every disk.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    let swift = match Swift::find(options.swift_venv().as_deref()) {
        Ok(swift) => swift,
        Err(why) => return figures.could_not(SECTION, &why),
    };
    let disks = ["given", "slow"];
    let names = SIDES.map(|side| side.word());
    let names = names.each_ref().map(String::as_str);
    let wanted = |name: &str, all: &[&str]| {
        let named = |word: &&str| options.gentle.iter().any(|wanted| wanted == word);
        !all.iter().any(named) || named(&name)
    };
    for kind in disks.into_iter().filter(|kind| wanted(kind, &disks)) {
        let usual = if options.quick {
            20
        } else if kind == "slow" {
            120
        } else {
            600
        };
        let bytes = options.gentle_mb.unwrap_or(usual) << 20;
        let disk = match kind {
            "given" => Ok(Disk::given(root)),
            _ => Disk::slow("ext4", root, bytes * ROOM + (1 << 30)),
        };
        let disk = match disk {
            Ok(disk) => disk,
            Err(why) => {
                figures.could_not(&format!("{SECTION} on a slow disk"), &why);
                continue;
            }
        };
        let stage = Stage::new(&disk, bytes, options, swift.environment());
        for side in SIDES.iter().filter(|side| wanted(&side.word(), &names)) {
            stage.play(side, figures);
        }
        let _ = fs::remove_dir_all(&disk.dir);
    }
}

/// One disk, with what there is to ship on it.
struct Stage<'a> {
    name: String,
    agents: Agents,
    /// Both nodes' drives as they are before each run.
    made: [std::path::PathBuf; 2],
    backlog: Backlog,
    venv: &'a Path,
    alone: Duration,
}

impl<'a> Stage<'a> {
    fn new(disk: &Disk, bytes: u64, options: &Options, venv: &'a Path) -> Stage<'a> {
        let ground = Ground { link: Rc::new(Link::loopback()), caches: options.caches() };
        let agents = Agents::new(&disk.dir.join("nodes"), &ground);
        let made = ["a", "b"].map(|node| disk.dir.join("made").join(node));
        let backlog = Backlog::plan(bytes);
        backlog.make([&made[0], &made[1]]);
        let name = format!("{}, {} databases, {} MB", disk.name, backlog.behind.len(), bytes >> 20);
        let alone = if options.quick { ALONE_QUICKLY } else { ALONE };
        Stage { name, agents, made, backlog, venv, alone }
    }

    fn devices(&self) -> [std::path::PathBuf; 2] {
        ["a", "b"].map(|node| self.agents.device(node))
    }

    /// One run of one contender.
    fn play(&self, side: &Side, figures: &mut Figures) {
        let devices = self.devices();
        for (made, device) in self.made.iter().zip(&devices) {
            let _ = fs::remove_dir_all(device);
            fs::create_dir_all(device.join("tmp")).expect("a device");
            copy_tree(made, device);
        }
        nix::unistd::sync();
        let cluster = Cluster::start(self.venv, &self.agents, PER_SECOND);
        let contender = Contender { stage: self, side, cluster: &cluster, _agents: self.serve(side) };
        let servers: [(SocketAddr, &str); 2] =
            ["a", "b"].map(|node| (self.agents.container_server(node), node));
        let clients = Clients::start(servers, &self.backlog.busy);
        thread::sleep(WARMING);
        let begun = now();
        contender.pass("a");
        let ended = now();
        let left = self.backlog.left([&devices[0], &devices[1]]);
        thread::sleep(AFTER);
        let answers = clients.stop();
        let seconds = (ended - begun).as_secs_f64();
        println!("{}: {}: {seconds:.1} s", self.name, side.name);
        let mut note = match (side.who, left) {
            (Who::Nobody, _) => String::new(),
            (_, 0) => "all shipped".to_owned(),
            (_, left) => format!("{left} of {} databases still differ", self.backlog.behind.len()),
        };
        if side.who != Who::Nobody {
            match self.judge(&contender, &answers) {
                Ok(()) => note += "; no row lost",
                Err(wrong) if side.name.starts_with("ours") => {
                    panic!("{}: {wrong}; logged:\n{}", self.name, self.agents.last_words())
                }
                Err(wrong) => note = format!("{note}; {wrong}"),
            }
        }
        let mut add = |measure, unit, number: f64, note: &str| {
            figures.add(Figure::once(SECTION, &self.name, side.name, (measure, unit), number, note));
        };
        if side.who != Who::Nobody {
            add("seconds", "s", seconds, &note);
        }
        for (kind, [p50, p99, longest]) in MEASURES {
            let asked = || {
                let during = |answer: &&Answer| (begun..=ended).contains(&answer.due);
                answers.iter().filter(during).filter(|answer| answer.kind == kind)
            };
            let refused = asked().filter(|answer| answer.refused.is_some()).count();
            let why = asked().find_map(|answer| answer.refused.clone()).unwrap_or_default();
            let note = if refused == 0 { String::new() } else { format!("{refused} were refused: {why}") };
            if asked().next().is_none() {
                continue;
            }
            let waits = Waits::of(asked().map(|answer| answer.wait));
            add(p50, "ms", waits.share(50), "");
            add(p99, "ms", waits.share(99), "");
            add(longest, "ms", waits.share(100), &note);
        }
    }

    /// Daemons of ours, if it is we who replicate.
    fn serve(&self, side: &Side) -> Vec<Server> {
        let Who::Ours { options } = side.who else { return Vec::new() };
        ["a", "b"]
            .map(|node| {
                let conf = fs::read_to_string(self.agents.conf(node)).expect("the node's configuration");
                fs::write(self.conf(node), conf + options).expect("a configuration");
                let mut command = Command::new(AGENT);
                command.arg("--config").arg(self.conf(node));
                let mut command = by(side.starter, command);
                command.stdin(Stdio::null()).stdout(self.agents.log()).stderr(self.agents.log());
                let mut server = Server(command.spawn().expect("an agent"));
                self.agents.await_agent(&mut server, node);
                server
            })
            .into()
    }

    fn conf(&self, node: &str) -> std::path::PathBuf {
        self.agents.root().join(format!("gentle-{node}.conf"))
    }

    /// Brings both nodes together, and looks for every row that a server acknowledged.
    fn judge(&self, contender: &Contender, answers: &[Answer]) -> Result<(), String> {
        let mut wrong = String::new();
        for _ in 0..QUIET_ROUNDS {
            ["a", "b"].into_iter().for_each(|node| contender.pass(node));
            wrong.clear();
            for (number, container) in self.backlog.busy.iter().enumerate() {
                for device in self.devices() {
                    let home = container.home(&device);
                    let path = home.in_charge().ok().flatten().ok_or("a replica is not there")?;
                    let acknowledged = answers.iter().filter(|answer| {
                        answer.kind == Kind::Row && answer.container == number && answer.refused.is_none()
                    });
                    let count = lacking(&path, acknowledged.map(|answer| answer.object.clone()));
                    if count > 0 {
                        wrong = format!("LOST: {count} acknowledged rows are not in {}", path.display());
                    }
                }
            }
            let devices = self.devices();
            if wrong.is_empty() && self.backlog.left([&devices[0], &devices[1]]) == 0 {
                return Ok(());
            }
        }
        if wrong.is_empty() {
            Err(format!("NOT EQUAL after {QUIET_ROUNDS} quiet passes each way"))
        } else {
            Err(wrong)
        }
    }
}

/// A contender at work.
struct Contender<'a> {
    stage: &'a Stage<'a>,
    side: &'a Side,
    cluster: &'a Cluster,
    _agents: Vec<Server>,
}

impl Contender<'_> {
    /// One pass of a node.
    fn pass(&self, node: &str) {
        match self.side.who {
            Who::Nobody => thread::sleep(self.stage.alone),
            Who::Swift => drop(self.cluster.pass_by(self.side.starter, node)),
            Who::Ours { .. } => {
                let mut command = Command::new(AGENT);
                command.arg("--config").arg(self.stage.conf(node)).arg("--once");
                let mut command = by(self.side.starter, command);
                let log = self.stage.agents.log();
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
                // What a pass could not do the judge finds.
                command.status().expect("an agent");
            }
        }
    }
}

/// Copies all files below a directory, but no locks.
fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a kind").is_dir() {
            fs::create_dir_all(&to).expect("a directory");
            copy_tree(&from, &to);
        } else {
            workshop::copy(&from, &to);
        }
    }
}

const MEASURES: [(Kind, [&str; 3]); 3] = [
    (Kind::Row, ["row put p50", "row put p99", "row put longest"]),
    (Kind::Create, ["container put p50", "container put p99", "container put longest"]),
    (Kind::List, ["listing p50", "listing p99", "listing longest"]),
];
/// What both have by default.
const PER_SECOND: f64 = 50.0;
/// Before a pass, for servers to get going; and after it.
const WARMING: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(1);
/// How long clients are watched where nobody replicates.
const ALONE: Duration = Duration::from_secs(20);
const ALONE_QUICKLY: Duration = Duration::from_secs(3);
/// Room on the disk, in backlogs: both nodes', made and at work, and what arrives.
const ROOM: u64 = 6;
const QUIET_ROUNDS: usize = 4;
