//! What was measured, in the one form that tables, JSON and the report are made of.

use serde::{Deserialize, Deserializer, Serialize};

/// One of a few names that this benchmark knows.
pub type Name = &'static str;

/// One quantity of one contender in one case, run after run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The part of the benchmark that it belongs to: `pairs`, `links`, `scale`, `memory`, `stalls`,
    /// `gentle`.
    #[serde(deserialize_with = "kept")]
    pub section: Name,
    /// What was done: a pair's name, `second pass`; or `GROUP: CASE`, as in `100 Mbit/s: same`. The report draws each group
    /// by itself.
    pub case: String,
    /// Who did it: `ours`, `rsync -z`, `Swift`; or a variant of one, after a comma, as in `ours, before`.
    pub side: String,
    /// What was measured: `seconds`, `wire`, `anonymous`. Three that end in `p50`, `p99` and `longest`, after whose wait it
    /// was, are drawn as one; what ends in `resident` stands in tables only.
    #[serde(deserialize_with = "kept")]
    pub measure: Name,
    /// Of the numbers: `s`, `ms`, `bytes`, `KiB`, `ratio`, `databases/s`. Of rates and ratios more is better.
    #[serde(deserialize_with = "kept")]
    pub unit: Name,
    /// Where the case stands on an axis along which cost may grow: a number of databases, of connections. What differs in
    /// nothing else is drawn as a curve.
    pub x: Option<f64>,
    /// One number a run, in the order of the runs.
    pub runs: Vec<f64>,
    /// What a reader has to know beside the number: which way the agent chose, whether both ends were proved equal.
    pub note: String,
}

impl Figure {
    /// What was measured once, and is no point of a curve.
    pub fn once(
        section: Name,
        case: &str,
        side: &str,
        (measure, unit): (Name, Name),
        number: f64,
        note: &str,
    ) -> Figure {
        let (case, side, note) = (case.to_owned(), side.to_owned(), note.to_owned());
        Figure { section, case, side, measure, unit, x: None, runs: vec![number], note }
    }

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
#[derive(Debug, Default, Serialize, Deserialize)]
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

/// A name out of a file, kept for as long as the program runs: figures are read once.
fn kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    String::deserialize(deserializer).map(|text| &*text.leak())
}
