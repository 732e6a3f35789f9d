//! The figures side by side, for people and as JSON; and where ours are worse.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::judge::Figures;
use crate::shapes::Cluster;

/// What a process took.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Timed {
    /// From start to end.
    pub seconds: f64,
    /// The most memory it had, in KiB.
    pub resident_kib: u64,
}

/// A whole command: load, rebalance, save builder, ring and their backups.
pub struct Process {
    /// What it took.
    pub timed: Timed,
    /// The file that it changed.
    pub builder: PathBuf,
}

/// One side's rebalance.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Run {
    /// The rebalance alone, in seconds.
    pub seconds: f64,
    /// The whole command, where that was run.
    pub command: Option<Timed>,
    /// How good the outcome is.
    pub figures: Figures,
}

/// Which assignment was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Start {
    /// None: this is the first build.
    Nothing,
    /// Swift's first build, for both: the same problem.
    Swifts,
    /// Each side's own first build.
    Own,
}

/// One change of one cluster.
pub struct Line {
    /// Of [`crate::shapes::CLUSTERS`].
    pub cluster: &'static str,
    /// Of [`crate::shapes::CHANGES`], or the first build.
    pub change: &'static str,
    /// What was changed.
    pub start: Start,
    /// The medians of our runs.
    pub ours: Run,
    /// The medians of Swift's, if Swift is there.
    pub swift: Option<Run>,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Figure {
    /// Seconds of the rebalance or of the command.
    Time,
    /// Percent.
    Balance,
    /// Percent.
    Dispersion,
    /// Replicas, beyond the least.
    Moved,
}

impl Run {
    /// Of each figure the median.
    pub fn median(runs: &[Run]) -> Run {
        let median = |figure: &dyn Fn(&Run) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let command = runs[0].command.map(|_| Timed {
            seconds: median(&|run| run.command.map_or(0.0, |command| command.seconds)),
            resident_kib: median(&|run| run.command.map_or(0, |command| command.resident_kib) as f64) as u64,
        });
        Run {
            seconds: median(&|run| run.seconds),
            command,
            figures: Figures {
                balance: median(&|run| run.figures.balance),
                dispersion: median(&|run| run.figures.dispersion),
                moved: median(&|run| run.figures.moved as f64) as u64,
                least: median(&|run| run.figures.least as f64) as u64,
            },
        }
    }
}

impl Line {
    /// Where ours is worse at all.
    pub fn worse(&self) -> Vec<Figure> {
        let Some(swift) = &self.swift else { return Vec::new() };
        let ours = &self.ours;
        let slower_command =
            ours.command.zip(swift.command).is_some_and(|(ours, swift)| ours.seconds > swift.seconds);
        let (own, theirs) = (&ours.figures, &swift.figures);
        let worse = [
            (Figure::Time, ours.seconds > swift.seconds || slower_command),
            (Figure::Balance, own.balance > theirs.balance + EQUAL),
            (Figure::Dispersion, own.dispersion > theirs.dispersion + EQUAL),
            (Figure::Moved, beyond_least(own) > beyond_least(theirs)),
        ];
        worse.into_iter().filter(|(_, worse)| *worse).map(|(figure, _)| figure).collect()
    }

    /// Where ours is worse by more than is tolerated. Time is not judged: it is the machine's as much as ours.
    pub fn intolerable(&self) -> Vec<Figure> {
        let Some(swift) = &self.swift else { return Vec::new() };
        let (own, theirs) = (&self.ours.figures, &swift.figures);
        // Moving more is no fault where it made something better.
        let is_better = own.balance < theirs.balance - EQUAL || own.dispersion < theirs.dispersion - EQUAL;
        let worse = [
            (Figure::Balance, own.balance > theirs.balance + BALANCE_TOLERANCE),
            (Figure::Dispersion, own.dispersion > theirs.dispersion + DISPERSION_TOLERANCE),
            (Figure::Moved, beyond_least(own) > beyond_least(theirs).max(0) + MOVED_TOLERANCE && !is_better),
        ];
        worse.into_iter().filter(|(_, worse)| *worse).map(|(figure, _)| figure).collect()
    }
}

/// What was moved though it had not to be; below 0 where what had to be was not. What each side had to move differs by a
/// few where each changed its own first build.
fn beyond_least(figures: &Figures) -> i64 {
    figures.moved as i64 - figures.least as i64
}

/// Prints what the lines of a cluster are about.
pub fn print_head(cluster: &Cluster) {
    println!(
        "\n{}: {} devices, 2^{} partitions, {} replicas",
        cluster.name, cluster.devices, cluster.part_power, cluster.replicas
    );
    print!("{:<30}", "");
    for (title, width) in TITLES.into_iter().zip(COLUMNS) {
        print!("{title:>width$}");
    }
    print!("\n{:<30}", "change (start)");
    for width in COLUMNS {
        print!("{:>width$} {:>7}", "ours", "Swift", width = width - 8);
    }
    println!("  worse in");
}

/// Prints one line.
pub fn print(line: &Line) {
    let (ours, swift) = (Some(&line.ours), line.swift.as_ref());
    let column = |at: usize, decimals: usize, of: &dyn Fn(&Run) -> Option<f64>| {
        let text = |run: Option<&Run>| {
            run.and_then(of).map_or("-".to_owned(), |figure| format!("{figure:.decimals$}"))
        };
        print!("{:>width$} {:>7}", text(ours), text(swift), width = COLUMNS[at] - 8);
    };
    let start = match line.start {
        Start::Nothing => "",
        Start::Swifts => " (Swift's)",
        Start::Own => " (own)",
    };
    print!("{:<30}", format!("{}{start}", line.change));
    column(0, 3, &|run| Some(run.seconds));
    column(1, 2, &|run| Some(run.command?.seconds));
    column(2, 1, &|run| Some(run.command?.resident_kib as f64 / 1024.0));
    column(3, 3, &|run| Some(run.figures.balance));
    column(4, 3, &|run| Some(run.figures.dispersion));
    column(5, 0, &|run| Some(run.figures.moved as f64));
    column(6, 0, &|run| Some(run.figures.least as f64));
    let worse: Vec<String> = line.worse().iter().map(|figure| format!("{figure:?}").to_lowercase()).collect();
    println!("  {}", worse.join(", "));
}

/// How many lines there are, and how many are worse in what.
pub fn print_summary(lines: &[Line]) {
    let compared = lines.iter().filter(|line| line.swift.is_some()).count();
    if compared == 0 {
        println!("\n{} cases, none of them compared", lines.len());
        return;
    }
    let worse = lines.iter().filter(|line| !line.worse().is_empty()).count();
    let each = [Figure::Time, Figure::Balance, Figure::Dispersion, Figure::Moved].map(|figure| {
        let count = lines.iter().filter(|line| line.worse().contains(&figure)).count();
        format!("{} {count}", format!("{figure:?}").to_lowercase())
    });
    println!("\n{compared} cases; ours is worse than Swift's in {worse} of them: {}", each.join(", "));
}

/// Writes everything, with the machine and the command line it came from.
pub fn write_json(path: &Path, machine: &str, arguments: &str, lines: &[Line]) {
    let cases: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "cluster": line.cluster, "change": line.change, "start": line.start,
                "ours": line.ours, "swift": line.swift, "worse": line.worse(),
            })
        })
        .collect();
    let everything = json!({
        "machine": machine,
        "command": format!("cargo bench --bench rings {arguments}"),
        "cases": cases,
    });
    fs::write(path, format!("{everything:#}\n")).expect("a place for the JSON");
}

/// Over each pair of columns, ours and Swift's.
const TITLES: [&str; 7] =
    ["rebalance s", "command s", "peak MiB", "balance %", "dispersion %", "moved", "had to move"];
/// Their widths.
const COLUMNS: [usize; 7] = [17, 17, 16, 17, 16, 17, 17];
/// Less is rounding.
const EQUAL: f64 = 1e-9;
/// In percentage points.
const BALANCE_TOLERANCE: f64 = 0.5;
/// In percentage points.
const DISPERSION_TOLERANCE: f64 = 0.1;
/// In replicas.
const MOVED_TOLERANCE: i64 = 8;
