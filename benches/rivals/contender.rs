//! What takes part: one way to bring the receiver's database up to the sender's.

use crate::figures::{Figure, Figures};
use crate::measure::Measured;
use crate::workshop::Pair;

/// Ours, or a rival.
pub trait Contender {
    /// As it stands in the tables.
    fn name(&self) -> &str;

    /// Why it cannot run a pair at all, if it cannot.
    fn refuses(&self, _pair: &Pair) -> Option<&'static str> {
        None
    }

    /// Runs it once on fresh copies of the pair, and proves the outcome.
    fn run(&self, pair: &Pair) -> Measured;
}

/// Takes down what the runs of one contender took, one figure for each quantity.
pub fn tell(figures: &mut Figures, section: &'static str, case: &str, side: &str, runs: &[Measured]) {
    let mut add = |measure, unit, number: fn(&Measured) -> f64| {
        figures.add(Figure {
            section,
            case: case.to_owned(),
            side: side.to_owned(),
            measure,
            unit,
            x: None,
            runs: runs.iter().map(number).collect(),
            note: runs.last().map(|run| run.way.clone()).unwrap_or_default(),
        });
    };
    add("seconds", "s", |run| run.seconds);
    add("wire", "bytes", |run| run.wire_bytes as f64);
    add("sender anonymous", "KiB", |run| run.sender.anonymous_kib as f64);
    add("receiver anonymous", "KiB", |run| run.receiver.anonymous_kib as f64);
    add("sender resident", "KiB", |run| run.sender.resident_kib as f64);
    add("receiver resident", "KiB", |run| run.receiver.resident_kib as f64);
}
