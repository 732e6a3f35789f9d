//! What takes part: one way to bring the receiver's database up to the sender's.

use std::path::Path;
use std::rc::Rc;

use crate::caches::Caches;
use crate::figures::{Figure, Figures};
use crate::measure::Measured;
use crate::network::Link;
use crate::options::Options;
use crate::workshop::Pair;
use crate::{machine, ours, rdiff, rsync, swift};

/// Ours, or a rival.
pub trait Contender {
    /// As it stands in the tables.
    fn name(&self) -> &str;

    /// Why it cannot run a pair at all, if it cannot.
    fn refuses(&self, _pair: &Pair) -> Option<&'static str> {
        None
    }

    /// Runs it once on fresh copies of the pair, and proves the outcome. An error says why a rival came to none; ours has
    /// no such excuse.
    fn run(&self, pair: &Pair) -> Result<Measured, String>;
}

/// Where a contender runs.
#[derive(Clone)]
pub struct Ground {
    /// Between the two nodes.
    pub link: Rc<Link>,
    /// As the run finds them.
    pub caches: Caches,
}

/// Ours first; then those rivals that this machine has.
pub fn all(
    options: &Options,
    root: &Path,
    ground: &Ground,
    figures: &mut Figures,
) -> Vec<Box<dyn Contender>> {
    let mut found = over_network(options, root, ground, &rsync::WAYS, figures);
    if machine::has("rdiff") {
        found.push(Box::new(rdiff::Rdiff::new(&root.join("rdiff"), ground)));
    } else {
        figures.could_not("rdiff", "it is not installed");
    }
    found
}

/// Those that talk over a link, rsync in these ways.
pub fn over_network(
    options: &Options,
    root: &Path,
    ground: &Ground,
    ways: &[rsync::Way],
    figures: &mut Figures,
) -> Vec<Box<dyn Contender>> {
    let mut found: Vec<Box<dyn Contender>> = vec![Box::new(ours::Agents::new(&root.join("ours"), ground))];
    if machine::has("rsync") {
        for &way in ways {
            found.push(Box::new(rsync::Rsync::new(&root.join(format!("rsync-{way:?}")), way, ground)));
        }
    } else {
        figures.could_not("rsync", "it is not installed");
    }
    match swift::Swift::find(options.swift_venv().as_deref()) {
        Ok(swift) => found.push(Box::new(swift::Replicator::new(swift, &root.join("swift"), ground))),
        Err(why) => figures.could_not("Swift", &why),
    }
    found
}

/// Every contender on a pair, in turn, as often as was asked for.
pub fn compete(
    contenders: &[Box<dyn Contender>],
    pair: &Pair,
    runs: usize,
    figures: &mut Figures,
    section: &'static str,
    case: &str,
) {
    let mut measured = vec![Vec::new(); contenders.len()];
    let mut excuses: Vec<Option<String>> =
        contenders.iter().map(|contender| contender.refuses(pair).map(str::to_owned)).collect();
    for _ in 0..runs {
        for ((contender, measured), excuse) in contenders.iter().zip(&mut measured).zip(&mut excuses) {
            if excuse.is_none() {
                match contender.run(pair) {
                    Ok(run) => measured.push(run),
                    Err(why) => *excuse = Some(why),
                }
            }
        }
    }
    for ((contender, measured), excuse) in contenders.iter().zip(measured).zip(excuses) {
        match excuse {
            None => tell(figures, section, case, contender.name(), &measured),
            Some(why) => figures.could_not(&format!("{} on {case}", contender.name()), &why),
        }
    }
}

/// Takes down what the runs of one contender took, one figure for each quantity that every run has.
fn tell(figures: &mut Figures, section: &'static str, case: &str, side: &str, runs: &[Measured]) {
    let mut ways: Vec<&str> = runs.iter().map(|run| run.way.as_str()).collect();
    ways.dedup();
    let note = ways.join("; ");
    let mut add = |measure, unit, number: fn(&Measured) -> Option<f64>| {
        if let Some(runs) = runs.iter().map(number).collect() {
            let (case, side, note) = (case.to_owned(), side.to_owned(), note.clone());
            figures.add(Figure { section, case, side, measure, unit, x: None, runs, note });
        }
    };
    add("wire", "bytes", |run| run.wire_bytes.map(|bytes| bytes as f64));
    add("payload", "bytes", |run| run.payload_bytes.map(|bytes| bytes as f64));
    add("seconds", "s", |run| Some(run.seconds));
    add("pass", "s", |run| run.pass_seconds);
    add("processor", "s", |run| Some(run.processor_seconds));
    add("sender anonymous", "KiB", |run| Some(run.sender.anonymous_kib as f64));
    add("receiver anonymous", "KiB", |run| Some(run.receiver.anonymous_kib as f64));
    add("sender resident", "KiB", |run| Some(run.sender.resident_kib as f64));
    add("receiver resident", "KiB", |run| Some(run.receiver.resident_kib as f64));
}
