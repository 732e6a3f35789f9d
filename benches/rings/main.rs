//! The same rings through our builder and Swift's, side by side.
//!
//! `cargo bench --bench rings -- [--runs N] [--clusters LIST] [--shapes LIST] [--swift VENV] [--small] [--json FILE]`
//!
//! Each cluster is built, and that first assignment is then changed in several ways, one at a time, with one rebalance after
//! each. Both sides do so in turn and in one run. A change is played twice: with Swift's first assignment as the start of
//! both, so that they solve the very same problem, and with each side's own, as it is for those who stay with one program.
//!
//! Told of each rebalance: seconds of it alone; seconds and peak memory of the whole command, which loads the builder and
//! saves it, the ring and backups of both (`agent ring B rebalance` beside `swift-ring-builder B rebalance`, on copies of one
//! file); balance and dispersion afterwards; replicas that moved, and the least that had to. The outcome is judged by
//! [`judge`] alone, the same for both.
//!
//! Swift runs from the virtual environment that `--swift` or `SWIFTLET_SWIFT_VENV` names, or from the one that tests/swift makes.
//! Without Swift there are only our own figures. `--small` leaves the large clusters out, insists on Swift, and fails where
//! ours is worse in anything but time, beyond the tolerances at the end of table.rs.

mod judge;
#[path = "../rivals/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../rivals/measure.rs"]
#[allow(dead_code)]
mod measure;
mod ours;
mod shapes;
mod swift;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use judge::State;
use shapes::Cluster;
use swift::Swift;
use swiftlet::ring::builder::Builder;
use table::{Line, Run, Start};

/// What may be asked for on the command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each side does each rebalance, with another seed each time; the medians count.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Only these clusters, comma-separated.
    #[arg(long, value_delimiter = ',')]
    clusters: Vec<String>,
    /// Only changes that have one of these in their name, comma-separated.
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<String>,
    /// The virtual environment that has Swift.
    #[arg(long)]
    swift: Option<PathBuf>,
    /// A quick check against Swift.
    #[arg(long)]
    small: bool,
    /// Where the figures go as JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rings.json"))]
    json: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let temporary = tempfile::tempdir().expect("a directory to work in");
    let named = options.swift.clone().or_else(|| std::env::var_os("SWIFTLET_SWIFT_VENV").map(PathBuf::from));
    let swift = Swift::find(named.as_deref());
    if swift.is_none() {
        println!(
            "######## SKIPPED: there is no Swift to compare with; make it with tests/swift/venv.sh ########"
        );
        if options.small {
            return ExitCode::from(CANNOT_RUN);
        }
    }
    let version = swift.as_ref().map_or("no Swift".to_owned(), Swift::version);
    let facts = machine::Machine::here(temporary.path(), vec![version]).facts;
    let machine = facts.iter().map(|(name, fact)| format!("{name}: {fact}")).collect::<Vec<_>>().join("; ");
    println!("{machine}\ncargo bench --bench rings {}", arguments());

    let mut bench = Bench { root: temporary.path(), swift, options: &options, lines: Vec::new() };
    for cluster in shapes::CLUSTERS {
        if bench.wants(&cluster) {
            bench.play(&cluster);
        }
    }
    let lines = bench.lines;
    table::print_summary(&lines);
    table::write_json(&options.json, &machine, &arguments(), &lines);
    println!("also in {}", options.json.display());

    let intolerable: Vec<&Line> = lines.iter().filter(|line| !line.intolerable().is_empty()).collect();
    if !options.small || intolerable.is_empty() {
        return ExitCode::SUCCESS;
    }
    for line in intolerable {
        println!(
            "{}, {} ({:?}): too much worse in {:?}",
            line.cluster,
            line.change,
            line.start,
            line.intolerable()
        );
    }
    ExitCode::FAILURE
}

/// All that is played, and what came of it so far.
struct Bench<'a> {
    root: &'a Path,
    swift: Option<Swift>,
    options: &'a Options,
    lines: Vec<Line>,
}

/// What one change is made to: the assignments that the first build of one seed came to.
struct First {
    seed: String,
    ours: Builder,
    ours_run: Run,
    /// Swift's builder, as a file.
    swifts: Option<PathBuf>,
    swifts_run: Option<Run>,
}

impl Bench<'_> {
    fn wants(&self, cluster: &Cluster) -> bool {
        let Options { clusters, small, .. } = self.options;
        let named = clusters.is_empty() || clusters.iter().any(|name| name == cluster.name);
        named && !(*small && cluster.devices > SMALL)
    }

    /// Builds a cluster and changes it.
    fn play(&mut self, cluster: &Cluster) {
        table::print_head(cluster);
        let firsts: Vec<First> =
            (1..=self.options.runs.max(1)).map(|seed| self.build(cluster, seed.to_string())).collect();
        let ours = firsts.iter().map(|first| Some(first.ours_run)).collect();
        let swifts = firsts.iter().map(|first| first.swifts_run).collect();
        self.tell(cluster, "first build", Start::Nothing, ours, swifts);

        let shapes = &self.options.shapes;
        let wanted = |change: &&str| shapes.is_empty() || shapes.iter().any(|word| change.contains(word));
        for change in shapes::CHANGES.into_iter().filter(wanted) {
            let (mut same, mut own, mut swifts) = (Vec::new(), Vec::new(), Vec::new());
            for first in &firsts {
                let dir = self.dir();
                let [ours_same, ours_own, swift] = self.change(cluster, change, first, &dir);
                same.push(ours_same);
                own.push(ours_own);
                swifts.push(swift);
                // Swift's first assignment is what all changes start from; all else may go.
                fs::remove_dir_all(&dir).expect("a directory to remove");
            }
            if self.swift.is_some() {
                self.tell(cluster, change, Start::Swifts, same, swifts.clone());
            }
            self.tell(cluster, change, Start::Own, own, swifts);
        }
    }

    /// The first rebalance, by both sides.
    fn build(&self, cluster: &Cluster, seed: String) -> First {
        let (dir, steps) = (self.dir(), cluster.build());
        let prepared = ours::change(&ours::create(cluster), &steps);
        let (seconds, ours) = ours::rebalance(&prepared, &seed);
        let file = dir.join("ours.builder");
        let mut saved = prepared.clone();
        saved.save(&file).expect("a builder to save");
        let left = self.swift.as_ref().map(|swift| swift.rebalance(cluster, None, &steps, &seed, &dir));
        let file = left.as_ref().map_or(&file, |left| &left.prepared);
        let command = ours::command(file, &seed, &dir, &ours);
        let figures = State::of_builder(&ours).figures(None);
        let ours_run = Run { seconds, command: Some(command.timed), figures };
        let swifts_run = left.as_ref().zip(self.swift.as_ref()).map(|(left, swift)| {
            let command = swift.command(&left.prepared, &seed, &dir);
            Run { seconds: left.seconds, command: Some(command.timed), figures: left.state.figures(None) }
        });
        First { seed, ours, ours_run, swifts: left.map(|left| left.builder), swifts_run }
    }

    /// One change and the rebalance after it: ours from Swift's first assignment, ours from our own, Swift's from Swift's.
    fn change(&self, cluster: &Cluster, change: &str, first: &First, dir: &Path) -> [Option<Run>; 3] {
        let steps = cluster.change(change);
        let seed = &first.seed;
        let before = State::of_builder(&first.ours);
        let (seconds, after) = ours::rebalance(&ours::change(&first.ours, &steps), seed);
        let figures = State::of_builder(&after).figures(Some(&before));
        let own = Run { seconds, command: None, figures };
        let Some((swift, start)) = self.swift.as_ref().zip(first.swifts.as_deref()) else {
            return [None, Some(own), None];
        };

        let before = State::of_builder(&ours::load(start));
        let left = swift.rebalance(cluster, Some(start), &steps, seed, dir);
        let (seconds, after) = ours::rebalance(&ours::load(&left.prepared), seed);
        let command = ours::command(&left.prepared, seed, dir, &after);
        let figures = State::of_builder(&after).figures(Some(&before));
        let same = Run { seconds, command: Some(command.timed), figures };

        let command = swift.command(&left.prepared, seed, dir);
        let figures = left.state.figures(Some(&before));
        let swifts = Run { seconds: left.seconds, command: Some(command.timed), figures };
        [Some(same), Some(own), Some(swifts)]
    }

    /// Takes down the medians of some runs.
    fn tell(
        &mut self,
        cluster: &Cluster,
        change: &'static str,
        start: Start,
        ours: Vec<Option<Run>>,
        swift: Vec<Option<Run>>,
    ) {
        let median = |runs: Vec<Option<Run>>| {
            let runs: Vec<Run> = runs.into_iter().flatten().collect();
            (!runs.is_empty()).then(|| Run::median(&runs))
        };
        let ours = median(ours).expect("runs of ours");
        let line = Line { cluster: cluster.name, change, start, ours, swift: median(swift) };
        table::print(&line);
        self.lines.push(line);
    }

    /// A new directory.
    fn dir(&self) -> PathBuf {
        tempfile::tempdir_in(self.root).expect("a directory").keep()
    }
}

fn arguments() -> String {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.is_empty() { String::new() } else { format!("-- {}", given.join(" ")) }
}

/// The most devices of a cluster that is still small.
const SMALL: usize = 100;
/// The exit code for what this machine lacks, as `.ci/run` knows it.
const CANNOT_RUN: u8 = 77;
