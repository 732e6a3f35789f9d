//! What was measured, in the one form that tables, JSON and the report are made of.

use serde::Serialize;

/// One quantity of one contender in one case, run after run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The part of the benchmark that it belongs to: `pairs`, `links`, `scale`, `memory`, `stalls`.
    pub section: &'static str,
    /// What was done: a pair's name, `second pass`, `ext4 delta`.
    pub case: String,
    /// Who did it: `ours`, `rsync -z`, `Swift`.
    pub side: String,
    /// What was measured: `seconds`, `wire`, `anonymous`, `longest wait`.
    pub measure: &'static str,
    /// Of the numbers: `s`, `bytes`, `KiB`, `databases/s`.
    pub unit: &'static str,
    /// Where the case stands on an axis along which cost may grow: a number of databases, megabytes, milliseconds.
    pub x: Option<f64>,
    /// One number a run, in the order of the runs.
    pub runs: Vec<f64>,
    /// What a reader has to know beside the number: which way the agent chose, whether both ends were proved equal.
    pub note: String,
}

impl Figure {
    /// The middle of the runs; of an even number, the lower of the two.
    pub fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) / 2]
    }

    /// The least and the greatest.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// All figures of a run, and what could not be measured here, with the reason.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// In the order in which they were measured.
    pub measured: Vec<Figure>,
    /// Section or case, and why it did not run.
    pub not_measured: Vec<(String, String)>,
}

impl Figures {
    /// Adds a figure; one without runs would be a lie.
    pub fn add(&mut self, figure: Figure) {
        assert!(!figure.runs.is_empty(), "{figure:?} was never measured");
        self.measured.push(figure);
    }

    /// Says aloud, and keeps for the report, what this machine cannot run.
    pub fn could_not(&mut self, what: &str, why: &str) {
        println!("######## SKIPPED: {what}: {why} ########");
        self.not_measured.push((what.to_owned(), why.to_owned()));
    }
}
