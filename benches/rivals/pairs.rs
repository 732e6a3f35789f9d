//! The same pairs of databases through our agents and their rivals, in turn and in one run.
//!
//! A pair is one container on two nodes, the sender's copy newer than the receiver's. Every contender starts from the
//! same two files. No figure counts before the outcome is proved: for rsync and rdiff, that the receiver's file is the
//! sender's to the byte; for our agents and for Swift, who merge two live replicas, that both sides then hold the union of
//! their rows, and that the stored row hash is the hash of those rows.

use std::path::Path;
use std::rc::Rc;

use crate::contender::{self, Ground};
use crate::figures::Figures;
use crate::network::Link;
use crate::options::Options;
use crate::room;
use crate::workshop::{self, Workshop};

/// Bytes, seconds and memory of every contender on every pair, over loopback.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    if !room::fits(root, "pairs", workshop::needed_bytes(options.rows()), figures) {
        return;
    }
    let ground = Ground { link: Rc::new(Link::loopback()), caches: options.caches() };
    if !ground.link.is_counted() {
        figures.could_not("bytes with headers", "a network namespace of our own needs root, ip and nsenter");
    }
    let contenders = contender::all(options, root, &ground, figures);
    let workshop = Workshop::build(&root.join("pairs"), options.rows());
    for name in options.pairs() {
        let pair = workshop.pair(name);
        contender::compete(&contenders, &pair, options.runs(), figures, "pairs", name);
        pair.discard();
    }
}
