//! Our builder, and our command line.

use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use swiftlet::ring::builder::Builder;

use crate::judge::State;
use crate::shapes::{Cluster, Step};
use crate::swift;
use crate::table::Process;

/// A builder of this cluster, with its devices and no assignment yet.
pub fn create(cluster: &Cluster) -> Builder {
    Builder::new(cluster.part_power, cluster.replicas, 1).expect("a sound cluster")
}

/// Does the steps to a builder.
pub fn change(builder: &Builder, steps: &[Step]) -> Builder {
    let mut builder = builder.clone();
    steps.iter().for_each(|step| step.apply(&mut builder).expect("a step that can be done"));
    builder.pretend_min_part_hours_passed();
    builder
}

/// Rebalances; how long that took, in seconds, and what came of it.
pub fn rebalance(builder: &Builder, seed: &str) -> (f64, Builder) {
    let mut builder = builder.clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let began = Instant::now();
    builder.rebalance(seed.as_bytes(), now).expect("a cluster that can be balanced");
    let seconds = began.elapsed().as_secs_f64();
    builder.validate().expect("a sound assignment");
    (seconds, builder)
}

/// A builder's file, read.
pub fn load(path: &Path) -> Builder {
    Builder::load(path).expect("a builder's file")
}

/// The whole command on a copy of a builder's file. It must come to what `expected` came to.
pub fn command(builder: &Path, seed: &str, dir: &Path, expected: &Builder) -> Process {
    let mut program = Command::new(env!("CARGO_BIN_EXE_agent"));
    program.arg("ring");
    let process = swift::run(program, builder, seed, dir);
    let (command, expected) = (State::of_builder(&load(&process.builder)), State::of_builder(expected));
    assert!(command == expected, "the command and the library disagree");
    process
}
