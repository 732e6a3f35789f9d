//! How long writers wait while a large database is shipped.
//!
//! The sender's replica and the receiver's each have a writer in a process of its own, with a row every few milliseconds
//! (see [`writer`]), before, during and after one pass of the sender. A wait counts from the moment a row was due to the
//! moment it was acknowledged. Beside our agents stand Swift's own replicator, and the lock that `sqlite3_rsync` holds
//! for the whole transfer ([`locking`]); and, as the mark below which nobody can get, the same writers before it began.
//!
//! * `missing`: the receiver has nothing yet, and so no writer either;
//! * `behind`: it has 40 % of the rows, and the sync points say so;
//! * `strangers`: it has 70 % of the rows, and nobody knows.
//!
//! Afterwards, when all is quiet, passes both ways go on until both replicas agree; then every row that either writer was
//! told is written must be on both sides. With us anything else ends the benchmark; of others it is told beside the figure.

mod container;
mod locking;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use swiftlet::broker::fresh_id;
use swiftlet::drive::HashDir;
use swiftlet::replica::ReplicaId;

use crate::contender::Ground;
use crate::disk::Disk;
use crate::figures::{Figure, Figures};
use crate::measure::Server;
use crate::network::Link;
use crate::options::Options;
use crate::ours::Agents;
use crate::swift_nodes::Cluster;
use crate::waits::Waits;
use crate::workshop;
use container::Content;
use writer::{Put, Way, Writer};

pub use container::lacking;
pub use writer::{now, ran_as_writer};

const SECTION: &str = "stalls";
const CASES: [Case; 3] = [
    Case { name: "missing", percent: 0, acquainted: false },
    Case { name: "behind", percent: 40, acquainted: true },
    Case { name: "strangers", percent: 70, acquainted: false },
];
const SIDES: [&str; 3] = ["ours", "Swift", "lock held throughout"];

/// What the receiver has when the sender's pass begins.
struct Case {
    name: &'static str,
    percent: u64,
    acquainted: bool,
}

/// Waits of both writers with every contender on every file system.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    let bytes = options.stalls_mb.unwrap_or(if options.quick { 20 } else { 2500 }) << 20;
    let wanted = |name: &str, all: &[&str]| {
        let named = |word: &&str| options.stalls.iter().any(|wanted| wanted == word);
        !all.iter().any(named) || named(&name)
    };
    let given = Disk::given(root).name;
    let mut kinds = vec!["given"];
    kinds.extend(["xfs", "ext4"].into_iter().filter(|kind| *kind != given));
    if options.stalls.iter().any(|word| word == &given) && !kinds.contains(&given.as_str()) {
        kinds.push(if given == "ext4" { "ext4" } else { "xfs" });
    }
    for kind in kinds.iter().copied().filter(|kind| wanted(kind, &["given", "xfs", "ext4"])) {
        let disk = match kind {
            "given" => Ok(Disk::given(root)),
            _ => Disk::mounted(kind, root, bytes * ROOM + (1 << 30)),
        };
        let disk = match disk {
            Ok(disk) => disk,
            Err(why) => {
                figures.could_not(&format!("{SECTION} on {kind}"), &why);
                continue;
            }
        };
        if !has_room(&disk.dir, bytes * ROOM) {
            figures.could_not(&format!("{SECTION} on {}", disk.name), "there is not room enough on the disk");
            continue;
        }
        let stage = Stage::new(&disk, bytes / container::ROW_BYTES, options, figures);
        for case in CASES.iter().filter(|case| wanted(case.name, &CASES.map(|case| case.name))) {
            for side in SIDES.into_iter().filter(|side| wanted(side, &SIDES)) {
                if side != "Swift" || options.swift_venv().is_some() {
                    stage.play(case, side, figures);
                }
            }
        }
        let _ = fs::remove_dir_all(&disk.dir);
    }
    if options.swift_venv().is_none() {
        figures.could_not("Swift beside writers", "no --swift-venv names an environment with it");
    }
}

/// One file system, with the sender's database on it and two nodes.
struct Stage {
    name: String,
    dir: PathBuf,
    rows: u64,
    sender: ReplicaId,
    period: Duration,
    /// How long writers write before the pass.
    alone: Duration,
    agents: Agents,
    venv: Option<PathBuf>,
}

impl Stage {
    fn new(disk: &Disk, rows: u64, options: &Options, figures: &mut Figures) -> Stage {
        let dir = disk.dir.clone();
        let ground = Ground { link: Rc::new(Link::loopback()), caches: options.caches() };
        let agents = Agents::new(&dir.join("nodes"), &ground);
        let (sender, venv) = (fresh_id("a"), options.swift_venv());
        let name = disk.name.clone();
        let alone = if options.quick { ALONE_QUICKLY } else { ALONE };
        let mut stage = Stage { name, dir, rows, sender, period: WANTED_PERIOD, alone, agents, venv };
        stage.period = stage.bearable_period();
        if stage.period > WANTED_PERIOD {
            let what = format!("writers every {WANTED_PERIOD:?} on {}", stage.name);
            figures.could_not(
                &what,
                &format!("the disk is too slow for that; a row every {:?} instead", stage.period),
            );
        }
        container::make(&stage.dir.join("new.db"), rows, &stage.sender);
        stage
    }

    /// The least period that two writers can keep on this disk with time to spare, when nobody else is at work: a queue
    /// that grows for ever says nothing of the wait for us.
    fn bearable_period(&self) -> Duration {
        let small = self.dir.join("small.db");
        container::make(&small, TRIAL_ROWS, &self.sender);
        let writers = ["a", "b"].map(|node| {
            container::copy(&small, &self.agents.database(node));
            Writer::start(&self.agents.database(node), node, WANTED_PERIOD)
        });
        thread::sleep(TRIAL);
        let puts = writers.map(Writer::stop).concat();
        let mut took: Vec<Duration> =
            puts.iter().filter(|put| put.way == Way::Commit).map(|put| put.done - put.begun).collect();
        took.sort();
        let usual = took[took.len() / 2];
        (0..6)
            .map(|power| WANTED_PERIOD * (1 << power))
            .find(|period| *period >= usual * 2)
            .unwrap_or(usual * 4)
    }

    /// Puts the receiver's database where it wants it; false if it is to be missing.
    fn put_old(&self, case: &Case, path: &Path) -> bool {
        let rows = self.rows * case.percent / 100;
        if rows > 0 {
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            let made = self.dir.join("old.db");
            container::make(&made, rows, &self.sender);
            container::receive(&made, &self.sender, rows, case.acquainted);
            fs::rename(&made, path).and_then(|()| File::open(path)?.sync_all()).expect("it on the disk");
        }
        rows > 0
    }

    fn home(&self, node: &str) -> HashDir {
        workshop::hash_dir(&self.agents.device(node))
    }

    /// One run of one contender.
    fn play(&self, case: &Case, side: &'static str, figures: &mut Figures) {
        for node in ["a", "b"] {
            let _ = fs::remove_dir_all(self.agents.device(node));
            fs::create_dir_all(self.agents.device(node)).expect("a device");
        }
        let paths = ["a", "b"].map(|node| self.agents.database(node));
        container::copy(&self.dir.join("new.db"), &paths[0]);
        let nodes: &[&str] = if self.put_old(case, &paths[1]) { &["a", "b"] } else { &["a"] };
        let contender = Contender::start(side, self);
        let writers: Vec<Writer> =
            nodes.iter().map(|node| Writer::start(&self.agents.database(node), node, self.period)).collect();
        thread::sleep(self.alone);
        let begun = now();
        let mut way = contender.pass("a");
        let ended = now();
        thread::sleep(AFTER);
        let waited: Vec<(String, Vec<Put>)> =
            writers.into_iter().map(|writer| (writer.name.clone(), writer.stop())).collect();

        let verdict = self.judge(&contender, &waited, [&paths[0], &paths[1]]);
        match verdict {
            Ok(()) => way += "; both ends equal, no row lost",
            Err(wrong) if side == "ours" => {
                panic!("{} {}: {wrong}; logged:\n{}", self.name, case.name, self.agents.last_words())
            }
            Err(wrong) => way = format!("{way}; {wrong}"),
        }
        drop(contender);

        let name = format!(
            "{} {}, {} MB, a row every {} ms",
            self.name,
            case.name,
            self.megabytes(),
            self.period.as_millis()
        );
        let mut add = |side: &str, measure, unit, number: f64, note: &str| {
            figures.add(Figure::once(SECTION, &name, side, (measure, unit), number, note));
        };
        add(side, "seconds", "s", (ended - begun).as_secs_f64(), &way);
        for (node, puts) in &waited {
            let names = if node == "a" { SENDERS } else { RECEIVERS };
            for (way, [p50, p99, longest]) in [Way::Commit, Way::Append].into_iter().zip(names) {
                let during = |put: &&Put| put.way == way && put.due <= ended && put.done >= begun;
                let before = |put: &&Put| put.way == way && put.done < begun;
                let refused = puts.iter().filter(during).filter(|put| put.refused.is_some()).count();
                let worst = puts.iter().filter(during).max_by_key(|put| put.wait());
                let since = worst.map_or(Duration::ZERO, |put| put.due.saturating_sub(begun));
                let note = format!(
                    "due {:.1} s after the pass began{}",
                    since.as_secs_f64(),
                    if refused == 0 { String::new() } else { format!("; {refused} rows were refused") }
                );
                let waits = Waits::of(puts.iter().filter(during).map(Put::wait));
                add(side, p50, "ms", waits.share(50), "");
                add(side, p99, "ms", waits.share(99), "");
                add(side, longest, "ms", waits.share(100), &note);
                let alone = Waits::of(puts.iter().filter(before).map(Put::wait));
                let label = format!("{side}, before");
                add(&label, p50, "ms", alone.share(50), "");
                add(&label, p99, "ms", alone.share(99), "");
                add(&label, longest, "ms", alone.share(100), "");
            }
        }
    }

    fn megabytes(&self) -> u64 {
        (self.rows * container::ROW_BYTES) >> 20
    }

    /// Brings both sides together, with nobody writing any more, and looks for every row that was acknowledged.
    fn judge(
        &self,
        contender: &Contender,
        waited: &[(String, Vec<Put>)],
        paths: [&Path; 2],
    ) -> Result<(), String> {
        let mut contents: Option<[Content; 2]> = None;
        for _ in 0..QUIET_ROUNDS {
            for node in ["a", "b"] {
                contender.pass(node);
            }
            if paths.iter().any(|path| !path.exists()) {
                return Err("a replica is not there".to_owned());
            }
            if self.agree(paths) {
                contents = Some(container::both(paths)?);
                break;
            }
        }
        let mut wrong = Vec::new();
        match contents {
            Some([one, other]) if one == other => {}
            _ if matches!(contender, Contender::Locking(_)) => {}
            found => wrong.push(format!("NOT EQUAL after {QUIET_ROUNDS} quiet passes each way: {found:?}")),
        }
        for (node, puts) in waited {
            let acknowledged = || puts.iter().filter(|put| put.refused.is_none());
            for path in paths {
                let names = acknowledged().map(|put| writer::row_name(node, put.way, put.number));
                let lacking = container::lacking(path, names);
                if lacking > 0 {
                    let side = if path == paths[0] { "sender" } else { "receiver" };
                    wrong.push(format!(
                        "LOST: {lacking} of {} acknowledged rows of writer {node} are not on the {side}",
                        acknowledged().count()
                    ));
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Do both say so themselves, with nothing pending?
    fn agree(&self, paths: [&Path; 2]) -> bool {
        let hash = |path: &Path| {
            rusqlite::Connection::open(path)
                .and_then(|db| {
                    db.query_row("SELECT hash FROM container_info", [], |row| row.get::<_, String>(0))
                })
                .expect("a database")
        };
        ["a", "b"].iter().all(|node| !self.home(node).has_pending()) && hash(paths[0]) == hash(paths[1])
    }
}

/// Who ships, with the servers that he needs.
enum Contender<'a> {
    Ours { agents: &'a Agents, _servers: [Server; 2] },
    Swift(Cluster),
    Locking(&'a Agents),
}

impl Contender<'_> {
    fn start<'a>(side: &str, stage: &'a Stage) -> Contender<'a> {
        let agents = &stage.agents;
        match (side, &stage.venv) {
            ("ours", _) => Contender::Ours { agents, _servers: ["a", "b"].map(|node| agents.serve(node)) },
            ("Swift", Some(venv)) => Contender::Swift(Cluster::start(venv, agents, 0.0)),
            _ => Contender::Locking(agents),
        }
    }

    /// One pass of a node; in how many words it says what it did.
    fn pass(&self, node: &str) -> String {
        match self {
            Contender::Ours { agents, .. } => agents.pass(node),
            Contender::Swift(cluster) => cluster.pass(node),
            Contender::Locking(agents) if node == "a" => {
                let outcome = locking::transfer(&agents.database("a"), &agents.database("b"));
                outcome.err().unwrap_or_default()
            }
            Contender::Locking(_) => String::new(),
        }
    }
}

fn has_room(dir: &Path, bytes: u64) -> bool {
    nix::sys::statvfs::statvfs(dir)
        .is_ok_and(|space| space.blocks_available() * space.fragment_size() >= bytes)
}

const SENDERS: [[&str; 3]; 2] = [
    ["sender's commit p50", "sender's commit p99", "sender's commit longest"],
    ["sender's append p50", "sender's append p99", "sender's append longest"],
];
const RECEIVERS: [[&str; 3]; 2] = [
    ["receiver's commit p50", "receiver's commit p99", "receiver's commit longest"],
    ["receiver's append p50", "receiver's append p99", "receiver's append longest"],
];
/// How often a row comes, if the disk can bear it.
const WANTED_PERIOD: Duration = Duration::from_millis(5);
/// How long writers try what the disk can bear, and on how many rows.
const TRIAL: Duration = Duration::from_secs(3);
const TRIAL_ROWS: u64 = 20_000;
/// How long they write before the pass, and after it.
const ALONE: Duration = Duration::from_secs(10);
const ALONE_QUICKLY: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(1);
/// Room on the disk, in databases: one to copy from, two live ones, an image of the sender's and what arrives; and two that
/// XFS may set aside for files that grow, as if they were there.
const ROOM: u64 = 7;
/// Passes both ways, with nobody writing, before replicas that still differ are said to be different.
const QUIET_ROUNDS: usize = 4;
