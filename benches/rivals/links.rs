//! The same pairs over links that are slower, or longer, than loopback.
//!
//! A slow one is a wire of 100 Mbit/s between two network namespaces, limited at both ends by the kernel's token bucket. A
//! long one is a relay that hands every byte on 50 ms late, in each direction.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::contender::{self, Ground};
use crate::figures::Figures;
use crate::network::Link;
use crate::options::Options;
use crate::room;
use crate::rsync::Way;
use crate::workshop::{self, Workshop};

/// Bytes, seconds and memory of all who talk over a network.
pub fn run(options: &Options, root: &Path, figures: &mut Figures) {
    if !room::fits(root, "links", workshop::needed_bytes(options.rows()), figures) {
        return;
    }
    let workshop = Workshop::build(&root.join("pairs"), options.rows());
    let slow = format!("{MEGABITS} Mbit/s");
    let long = format!("{} ms each way", LATENCY.as_millis());
    for (name, link) in [(slow, Link::limited(MEGABITS)), (long, Ok(Link::delayed(LATENCY)))] {
        let link = match link {
            Ok(link) => Rc::new(link),
            Err(why) => {
                figures.could_not(&name, &why);
                continue;
            }
        };
        let ground = Ground { link, caches: options.caches() };
        let contenders = contender::over_network(options, &root.join(&name), &ground, &WAYS, figures);
        for pair in options.pairs() {
            let (pair, case) = (workshop.pair(pair), format!("{name}: {pair}"));
            contender::compete(&contenders, &pair, options.runs(), figures, "links", &case);
            pair.discard();
        }
    }
}

const WAYS: [Way; 2] = [Way::Delta, Way::WholeFile];
const MEGABITS: u32 = 100;
const LATENCY: Duration = Duration::from_millis(50);
