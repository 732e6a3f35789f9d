//! The same pairs of databases through our agents, rsync and rdiff, side by side.
//!
//! `cargo bench --bench rivals -- [--rows N] [--runs N] [--pairs LIST] [--root DIR] [--json FILE]`
//!
//! A pair is one container on two nodes, the sender's copy newer than the receiver's. Every contender starts from the
//! same two files, in turn and in one run, for absolute figures drift with the machine and the hour; only what was
//! measured together may be compared. No figure counts before the outcome is proved: for rsync and rdiff, that the
//! receiver's file is the sender's to the byte; for our agents, who merge two live replicas, that both sides then hold the
//! union of their rows, and that the stored row hash is the hash of those rows.
//!
//! Three figures for each: seconds from the start of the sending process to its end, bytes over the link in both
//! directions, and the most memory that either side had, sampled from `/proc`. Of memory, *anonymous* is what the
//! process allocated; *resident* counts pages of files as well, which the kernel may take back.

mod machine;
mod measure;
mod ours;
mod pairs;
mod rdiff;
mod rsync;
mod table;

use std::path::{Path, PathBuf};

use clap::Parser;
use measure::Measured;
use pairs::{Pair, Workshop};

/// What may be asked for on the command line.
#[derive(Debug, Parser)]
struct Options {
    /// Rows of the database that all pairs come from.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How often each contender runs each pair; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only these pairs, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pairs: Vec<String>,
    /// Where databases and nodes are made, on the file system to be measured; a temporary directory by default.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Where the figures go as JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rivals.json"))]
    json: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way to bring the receiver's database up to the sender's.
trait Contender {
    /// As it stands in the table.
    fn name(&self) -> &str;

    /// Why it cannot run a pair at all, if it cannot.
    fn refuses(&self, _pair: &Pair) -> Option<&'static str> {
        None
    }

    /// Runs it once on fresh copies of the pair, and proves the outcome.
    fn run(&self, pair: &Pair) -> Measured;
}

fn main() {
    let options = Options::parse();
    let temporary = match &options.root {
        Some(root) => tempfile::tempdir_in(root),
        None => tempfile::tempdir(),
    }
    .expect("a directory to work in");
    let root = temporary.path();
    println!("{}\ncargo bench --bench rivals {}", machine::description(root, &RIVALS), arguments());

    let contenders = contenders(root);
    let workshop = Workshop::build(&root.join("pairs"), options.rows);
    let mut results = Vec::new();
    for name in pairs::NAMES {
        if !options.pairs.is_empty() && !options.pairs.iter().any(|wanted| wanted == name) {
            continue;
        }
        let pair = workshop.pair(name);
        let mut runs = vec![Vec::new(); contenders.len()];
        for _ in 0..options.runs.max(1) {
            for (contender, measured) in contenders.iter().zip(&mut runs) {
                if contender.refuses(&pair).is_none() {
                    measured.push(contender.run(&pair));
                }
            }
        }
        for (contender, measured) in contenders.iter().zip(runs) {
            let outcome = contender.refuses(&pair).map_or(Ok(()), Err).map(|()| Measured::median(measured));
            results.push(table::Line { pair: name, contender: contender.name().to_owned(), outcome });
        }
        table::print(&results[results.len() - contenders.len()..]);
        pair.discard();
    }
    table::write_json(&options.json, options.rows, root, &arguments(), &results);
    println!("also in {}", options.json.display());
}

/// Ours first; then those rivals that this machine has.
fn contenders(root: &Path) -> Vec<Box<dyn Contender>> {
    let mut found: Vec<Box<dyn Contender>> = vec![Box::new(ours::Agents::new(&root.join("ours")))];
    if machine::has("rsync") {
        for way in [rsync::Way::Delta, rsync::Way::WholeFile, rsync::Way::WholeFileSynced] {
            found.push(Box::new(rsync::Rsync::new(&root.join(format!("rsync-{way:?}")), way)));
        }
    } else {
        println!("######## SKIPPED: rsync is not installed ########");
    }
    if machine::has("rdiff") {
        found.push(Box::new(rdiff::Rdiff::new(&root.join("rdiff"))));
    } else {
        println!("######## SKIPPED: rdiff is not installed ########");
    }
    found
}

fn arguments() -> String {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.is_empty() { String::new() } else { format!("-- {}", given.join(" ")) }
}

/// Programs of others that take part where they are installed.
const RIVALS: [&str; 2] = ["rsync", "rdiff"];
