//! Many small databases: what a pass costs when nothing, or little, has changed.
//!
//! Three nodes hold the same databases, one device each. The first pass knows nothing of any of them; those after it find
//! all as it was; then rows come to one in a hundred. Beside each unchanged pass runs a bare walk over the same device,
//! which only stats every database; and Swift's own replicator passes over a few of them: over a fleet of its own that is
//! in memory, and over some partitions of each fleet as our first pass finds it. Before a figure counts, replicas of a
//! random sample, and of all that were changed, are proved equal.

mod fleet;
mod nodes;
mod swift;
mod walk;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::statvfs;
use swiftlet::broker::Broker;
use swiftlet::hash_path::Partition;
use swiftlet::replica::{Row, RowId};
use swiftlet::timestamp::Timestamp;

use crate::figures::{Figure, Figures};
use crate::options::Options;
use crate::swift::Swift;
use fleet::{Fleet, NODES, PAGE_SIZES};
use nodes::{Nodes, Passed};

const SECTION: &str = "scale";

/// Rates, bytes and memory of passes over each number of databases.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    let mut counts = options.databases();
    let page_bytes = loop {
        let Some(&most) = counts.iter().max() else { return };
        match page_size(root, most) {
            Ok(page_bytes) => break page_bytes,
            Err(why) => figures.could_not(&format!("scale: {most} databases"), &why),
        }
        counts.retain(|count| *count < most);
    };
    beside_swift(options, root, figures, &page_bytes);
    for count in counts {
        let place = root.join(count.to_string());
        Scene { options, fleet: Fleet::plan(&place.join("devices"), count, page_bytes.0) }.play(
            &place,
            &page_bytes.1,
            figures,
        );
        remove(&place);
    }
}

/// Swift's replicator and our agents, over a few databases that are alike, one after the other.
fn beside_swift(options: &Options, root: &Path, figures: &mut Figures, (page_bytes, pages): &(u32, String)) {
    let swift = match Swift::find(options.swift_venv().as_deref()) {
        Ok(swift) => swift,
        Err(why) => return figures.could_not("scale: Swift", &why),
    };
    let count = if options.quick { SWIFT_DATABASES / 10 } else { SWIFT_DATABASES };
    let place = root.join("swift");
    let fleet = Fleet::plan(&place.join("devices"), count, *page_bytes);
    fleet.make();
    fleet.prove_sound(sample(count, SOUND_SAMPLE));
    let rates = swift::passes(&swift, &place.join("nodes"), &fleet, None, 1 + options.runs());
    let note = format!("databases_per_second = 0; {pages}");
    for (case, rates) in [("first pass", &rates[..1]), ("unchanged", &rates[1..])] {
        figures.add(Figure {
            section: SECTION,
            case: case.to_owned(),
            side: "Swift".to_owned(),
            measure: "rate",
            unit: "databases/s",
            x: Some(f64::from(count)),
            runs: rates.to_vec(),
            note: note.clone(),
        });
    }
    remove(&place);
    Scene { options, fleet: Fleet::plan(&place.join("devices"), count, *page_bytes) }
        .play(&place, pages, figures);
    remove(&place);
}

/// The largest page size of databases with which a fleet of so many leaves the disk enough room, and why it is that.
fn page_size(root: &Path, count: u32) -> Result<(u32, String), String> {
    let space = statvfs(root).expect("a file system");
    let free = space.blocks_available() * space.fragment_size();
    let left_alone = LEFT_FREE_BYTES.min(free / 3);
    let mut too_large = String::new();
    for page_bytes in PAGE_SIZES {
        let trial = tempfile::tempdir_in(root).expect("a directory");
        let fleet = Fleet::plan(trial.path(), count, page_bytes);
        let shared = if fleet.is_cloned() { ", sharing blocks" } else { "" };
        if fleet.bytes() + left_alone <= free {
            return Ok((page_bytes, format!("pages of {page_bytes} bytes{shared}{too_large}")));
        }
        too_large = format!(
            "; {count} with pages of {page_bytes} would take {} GB, and {} GB are free",
            fleet.bytes() / 1_000_000_000,
            free / 1_000_000_000
        );
    }
    Err(format!("no room for {NODES} replicas{too_large}"))
}

/// One number of databases.
struct Scene<'a> {
    options: &'a Options,
    fleet: Fleet,
}

impl Scene<'_> {
    fn play(&self, place: &Path, pages: &str, figures: &mut Figures) {
        let count = self.fleet.count;
        let started = Instant::now();
        self.fleet.make();
        println!(
            "{count} databases on {NODES} nodes made in {:.0} s, {pages}",
            started.elapsed().as_secs_f64()
        );
        self.fleet.prove_sound(sample(count, SOUND_SAMPLE));
        self.swift_over_some(place, pages, figures);
        let nodes = Nodes::start(&place.join("nodes"), &self.fleet);
        let firsts: Vec<Passed> = (0..NODES).map(|node| nodes.pass(node, count)).collect();
        // What was written a moment ago may be written again within the same tick of the clock: nobody can take it for
        // unchanged yet.
        thread::sleep(CLOCK_GRAIN);
        let settling: Vec<Passed> = (0..NODES).map(|node| nodes.pass(node, count)).collect();
        let (mut walks, mut seconds) = (Vec::new(), Vec::new());
        for _ in 0..RUNS.max(self.options.runs()) {
            let (walked, took) = walk::bare(&self.fleet.device(0));
            assert_eq!(walked, count);
            walks.push(took);
            seconds.push(nodes.pass(0, count));
        }
        let changed = self.change(0);
        let third = nodes.pass(0, count);
        self.prove_equal(&changed);
        let settled = nodes.pass(0, count);

        let rate = |seconds: f64| f64::from(count) / seconds;
        let rates = |passes: &[Passed]| passes.iter().map(|passed| rate(passed.seconds)).collect();
        let mut add = |case: &str, side: &str, measure, unit, runs, note: &str| {
            let x = Some(f64::from(count));
            let (case, side, note) = (case.to_owned(), side.to_owned(), note.to_owned());
            figures.add(Figure { section: SECTION, case, side, measure, unit, x, runs, note });
        };
        let unlimited = format!("databases_per_second = 0; {pages}");
        add("first pass", "ours", "rate", "databases/s", rates(&firsts[..1]), &unlimited);
        add("first pass of the other nodes", "ours", "rate", "databases/s", rates(&firsts[1..]), &unlimited);
        add("pass right after the first", "ours", "rate", "databases/s", rates(&settling), "");
        add("unchanged", "ours", "rate", "databases/s", rates(&seconds), &unlimited);
        add(
            "unchanged",
            "bare walk",
            "rate",
            "databases/s",
            walks.iter().map(|took| rate(*took)).collect(),
            "",
        );
        let ratio = walks.iter().zip(&seconds).map(|(walk, pass)| walk / pass.seconds).collect();
        add("unchanged", "ours", "of a bare walk", "ratio", ratio, "each beside its own walk");
        let per_peer = |passed: &Passed| {
            let bytes = passed.count("bytes_sent") + passed.count("bytes_received");
            bytes as f64 / (NODES - 1) as f64 * 100_000.0 / f64::from(count)
        };
        let wire = seconds.iter().map(per_peer).collect();
        add("unchanged", "ours", "wire", "bytes", wire, "per peer and 100,000 databases, both directions");
        let changes = changed.len() as f64;
        let note = format!("{changes} databases had a row more; all replicas equal after it");
        add("1 % changed", "ours", "seconds", "s", vec![third.seconds], &note);
        let walked = settled.seconds;
        add("1 % changed", "ours, unchanged after it", "seconds", "s", vec![walked], "");
        let each = (third.seconds - walked) * 1e3 / changes;
        add(
            "1 % changed",
            "ours",
            "each changed database",
            "ms",
            vec![each],
            "what is beyond the unchanged pass",
        );
        let all = firsts.iter().chain(&settling).chain(&seconds).chain([&third, &settled]);
        let anonymous = |passes: &[&Passed]| {
            passes.iter().map(|passed| passed.caller.anonymous_kib as f64).collect::<Vec<_>>()
        };
        // A first pass, and one that ships, have work in flight; what there is of databases shows in one that has none.
        let (first, unchanged): (Vec<&Passed>, Vec<&Passed>) =
            (firsts.iter().collect(), seconds.iter().collect());
        add(
            "memory",
            "calling",
            "anonymous",
            "KiB",
            anonymous(&unchanged),
            "passes that find nothing changed",
        );
        add("memory", "calling, first pass", "anonymous", "KiB", anonymous(&first), "of each node");
        add("memory", "calling, 1 % changed", "anonymous", "KiB", anonymous(&[&third]), "");
        let most =
            |memory: fn(&Passed) -> u64| vec![all.clone().map(memory).max().unwrap_or_default() as f64];
        add(
            "memory",
            "answering",
            "anonymous",
            "KiB",
            most(|passed| passed.answering.anonymous_kib),
            "of three daemons",
        );
    }

    /// The first pass of Swift's replicator over the databases of some partitions, as they are right after they were made.
    fn swift_over_some(&self, place: &Path, pages: &str, figures: &mut Figures) {
        let Ok(swift) = Swift::find(self.options.swift_venv().as_deref()) else { return };
        let partitions = 1u32 << self.fleet.part_power;
        let every = partitions / SWIFT_PARTITIONS;
        if every < 2 {
            // It passes over all of so many.
            return;
        }
        let some: Vec<Partition> = (0..partitions).step_by(every as usize).map(Partition).collect();
        let is_one_of_them = |number: &u32| self.fleet.partition(*number).0 % every == 0;
        let databases = (0..self.fleet.count).filter(is_one_of_them).count() as u32;
        let only = Some((&some[..], databases));
        let rates = swift::passes(&swift, &place.join("swift"), &self.fleet, only, 1);
        figures.add(Figure {
            section: SECTION,
            case: "first pass".to_owned(),
            side: "Swift, over some".to_owned(),
            measure: "rate",
            unit: "databases/s",
            x: Some(f64::from(self.fleet.count)),
            runs: rates,
            note: format!("{databases} of them; databases_per_second = 0; {pages}"),
        });
    }

    /// A new row in one of a hundred databases of a node: for half of them as a container server leaves it beside the
    /// database, for half in it.
    fn change(&self, node: usize) -> Vec<u32> {
        let numbers: Vec<u32> = (0..self.fleet.count).filter(|number| number % 100 == 3).collect();
        for number in &numbers {
            let mut broker = Broker::open(&self.fleet.home(node, *number)).expect("a database");
            let row = fleet::row(CHANGE, Timestamp::at(SystemTime::now()));
            if number % 200 == 3 {
                broker.put_record(row)
            } else {
                broker.merge_rows(vec![row], None).map(drop)
            }
            .expect("a row more");
        }
        numbers
    }

    /// The replicas of what was changed, and of a sample, hold the same; what was changed, the change.
    fn prove_equal(&self, changed: &[u32]) {
        for number in sample(self.fleet.count, EQUAL_SAMPLE).chain(changed.iter().copied()) {
            let replicas: Vec<_> = (0..NODES).map(|node| contents(&self.fleet, node, number)).collect();
            for (info, rows) in &replicas {
                assert!(
                    info.agrees_with(&replicas[0].0),
                    "{}: {info:?} and {:?}",
                    info.container,
                    replicas[0].0
                );
                assert_eq!(*rows, replicas[0].1, "{}", info.container);
                assert_eq!(info.count, rows.len() as i64);
            }
            let has_change = replicas[0].1.iter().any(|row| row.name == CHANGE);
            assert_eq!(has_change, changed.contains(&number), "database {number}");
        }
    }
}

fn contents(fleet: &Fleet, node: usize, number: u32) -> (swiftlet::replica::ReplicaInfo, Vec<Row>) {
    let home = fleet.home(node, number);
    assert!(!home.has_pending(), "rows wait beside database {number} of node {node}");
    let mut broker = Broker::open(&home).expect("a database");
    let mut rows = broker.rows_after(RowId::NONE, usize::MAX >> 1).expect("rows");
    for row in &mut rows {
        row.row_id = None;
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    (broker.info().expect("its info"), rows)
}

/// Some of so many, the same in every run, and at least the first.
fn sample(count: u32, wanted: u32) -> impl Iterator<Item = u32> {
    (0..wanted.min(count)).map(move |nth| (u64::from(nth) * 2_654_435_761 % u64::from(count)) as u32)
}

/// A million files take a while to remove: a thread for each device.
fn remove(place: &Path) {
    let devices = fs::read_dir(place.join("devices")).expect("a directory");
    thread::scope(|scope| {
        for device in devices.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()) {
            scope.spawn(move || fs::remove_dir_all(device).expect("removed"));
        }
    });
    fs::remove_dir_all(place).expect("removed");
}

/// Room on the disk that is not for us; where less than thrice that is free, a third.
const LEFT_FREE_BYTES: u64 = 20 << 30;
/// Unchanged passes, each beside a bare walk.
const RUNS: usize = 5;
/// Longer than the tick of any file system's clock, and than what anybody takes for it.
const CLOCK_GRAIN: Duration = Duration::from_secs(3);
/// Databases for Swift: a minute or so.
const SWIFT_DATABASES: u32 = 1000;
/// Partitions of a larger fleet that it passes over.
const SWIFT_PARTITIONS: u32 = 256;
/// Databases compared with what SQLite makes of them.
const SOUND_SAMPLE: u32 = 60;
/// Databases whose replicas are compared besides those that were changed.
const EQUAL_SAMPLE: u32 = 1000;
const CHANGE: &str = "changed/later.jpg";
