//! The same pairs of databases through our agents and their rivals, in turn and in one run.
//!
//! A pair is one container on two nodes, the sender's copy newer than the receiver's. Every contender starts from the
//! same two files. No figure counts before the outcome is proved: for rsync and rdiff, that the receiver's file is the
//! sender's to the byte; for our agents, who merge two live replicas, that both sides then hold the union of their rows,
//! and that the stored row hash is the hash of those rows.

use std::path::Path;

use crate::contender::{self, Contender};
use crate::figures::Figures;
use crate::options::Options;
use crate::workshop::{self, Workshop};
use crate::{machine, ours, rdiff, rsync};

const SECTION: &str = "pairs";

/// Seconds, bytes and memory of every contender on every pair.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    let contenders = contenders(options, root, figures);
    let workshop = Workshop::build(&root.join("pairs"), options.rows());
    for name in workshop::NAMES {
        if !options.pairs.is_empty() && !options.pairs.iter().any(|wanted| wanted == name) {
            continue;
        }
        let pair = workshop.pair(name);
        let mut runs = vec![Vec::new(); contenders.len()];
        for _ in 0..options.runs() {
            for (contender, measured) in contenders.iter().zip(&mut runs) {
                if contender.refuses(&pair).is_none() {
                    measured.push(contender.run(&pair));
                }
            }
        }
        for (contender, measured) in contenders.iter().zip(runs) {
            if !measured.is_empty() {
                contender::tell(figures, SECTION, name, contender.name(), &measured);
            }
        }
        pair.discard();
    }
}

/// Ours first; then those rivals that this machine has.
fn contenders(options: &Options, root: &Path, figures: &mut Figures) -> Vec<Box<dyn Contender>> {
    let mut found: Vec<Box<dyn Contender>> = vec![Box::new(ours::Agents::new(&root.join("ours")))];
    if machine::has("rsync") {
        for way in [rsync::Way::Delta, rsync::Way::WholeFile, rsync::Way::WholeFileSynced] {
            found.push(Box::new(rsync::Rsync::new(&root.join(format!("rsync-{way:?}")), way)));
        }
    } else {
        figures.could_not("rsync", "it is not installed");
    }
    if machine::has("rdiff") {
        found.push(Box::new(rdiff::Rdiff::new(&root.join("rdiff"))));
    } else {
        figures.could_not("rdiff", "it is not installed");
    }
    if options.swift_venv().is_none() {
        figures.could_not("Swift", "no virtual environment is named: --swift-venv or SWIFTLET_SWIFT_VENV");
    }
    found
}
