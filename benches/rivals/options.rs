//! What may be asked for on the command line.

use std::path::PathBuf;

use clap::Parser;

use crate::caches::Caches;
use crate::workshop;

/// See the head of main.rs for what there is to measure.
#[derive(Debug, Parser)]
#[command(about = "Our agents beside their rivals, measured on this machine")]
pub struct Options {
    /// Only these parts of the benchmark, comma-separated: pairs, links, scale, memory, stalls, gentle.
    #[arg(long, value_delimiter = ',')]
    pub sections: Vec<String>,
    /// Small sizes and one run each: seconds instead of minutes, to see that all works. Its figures mean little.
    #[arg(long)]
    pub quick: bool,
    /// Rows of the database that all pairs come from [default: 1,000,000, or 20,000 with --quick].
    #[arg(long)]
    rows: Option<u64>,
    /// How often each contender runs each case; the median counts [default: 3, or 1 with --quick].
    #[arg(long)]
    runs: Option<usize>,
    /// Only these pairs, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pairs: Vec<String>,
    /// Databases on each node of the section scale, comma-separated numbers, one case each [default: 10000,100000,300000, or
    /// 1000,2000 with --quick].
    #[arg(long, value_delimiter = ',')]
    databases: Vec<u32>,
    /// Where databases and nodes are made, on the disk to be measured; a temporary directory by default.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Before each run, drop what the kernel has cached of files, so that all is read from the disk. Needs root.
    #[arg(long)]
    pub cold: bool,
    /// A virtual environment with OpenStack Swift, whose own replicator then takes part [default: SWIFTLET_SWIFT_VENV].
    #[arg(long)]
    swift_venv: Option<PathBuf>,
    /// Megabytes of the database that ships while writers write [default: 2500, or 20 with --quick].
    #[arg(long)]
    pub stalls_mb: Option<u64>,
    /// Only these of the section stalls, comma-separated: file systems (given, xfs, ext4), cases and contenders.
    #[arg(long, value_delimiter = ',')]
    pub stalls: Vec<String>,
    /// Megabytes of the databases that ship while clients of a container server wait [default: 600, and 120 on a slow disk; or
    /// 20 with --quick].
    #[arg(long)]
    pub gentle_mb: Option<u64>,
    /// Only these of the section gentle, comma-separated: disks (given, slow) and contenders (as `ours-idle-classes`).
    #[arg(long, value_delimiter = ',')]
    pub gentle: Vec<String>,
    /// Where the figures go as JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rivals.json"))]
    pub json: PathBuf,
    /// Where they go as a page to look at.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rivals.html"))]
    pub html: PathBuf,
    /// Measure nothing: make the page again from the JSON of an earlier run.
    #[arg(long)]
    pub render: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Rows of the database that all pairs come from.
    pub fn rows(&self) -> u64 {
        self.rows.unwrap_or(if self.quick { 20_000 } else { 1_000_000 })
    }

    /// How often each contender runs each case, at least once.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// Those pairs that are wanted.
    pub fn pairs(&self) -> impl Iterator<Item = &'static str> {
        workshop::NAMES
            .into_iter()
            .filter(|name| self.pairs.is_empty() || self.pairs.iter().any(|wanted| wanted == name))
    }

    /// What the kernel has of files in memory when a run starts.
    pub fn caches(&self) -> Caches {
        Caches::prepare(self.cold).0
    }

    /// Why caches cannot be dropped, though that was asked for.
    pub fn caches_refused(&self) -> Option<String> {
        Caches::prepare(self.cold).1
    }

    /// How many databases each case of the section scale has.
    pub fn databases(&self) -> Vec<u32> {
        match (self.databases.is_empty(), self.quick) {
            (false, _) => self.databases.clone(),
            (true, true) => vec![1_000, 2_000],
            (true, false) => vec![10_000, 100_000, 300_000],
        }
    }

    /// The virtual environment with Swift, if one was named.
    pub fn swift_venv(&self) -> Option<PathBuf> {
        self.swift_venv.clone().or_else(|| std::env::var_os("SWIFTLET_SWIFT_VENV").map(PathBuf::from))
    }
}
