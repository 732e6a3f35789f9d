//! The text that Prometheus reads, version 0.0.4 of its format: for each metric of the table what it says, what it is, and its
//! lines.

use std::fmt::Write;

use super::table::{Metric, TABLE};
use crate::status::Report;

/// What a scraper has to be told of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that there is to tell.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for metric in TABLE {
        let mut samples = Samples { metric, lines: String::new() };
        (metric.read)(report, &mut samples);
        if samples.lines.is_empty() {
            continue;
        }
        let Metric { name, kind, meaning, .. } = metric;
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {}\n", helpful(meaning), kind.as_str());
        text += &samples.lines;
    }
    text
}

/// Where a row of the table says what it reads.
#[derive(Debug)]
pub struct Samples<'a> {
    metric: &'a Metric,
    lines: String,
}

impl Samples<'_> {
    /// A number that has no labels.
    pub fn say(&mut self, value: f64) {
        self.say_of(&[], value);
    }

    /// The same, where it is known.
    pub fn say_if_known(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.say(value);
        }
    }

    /// 1 or 0.
    pub fn say_truth(&mut self, truth: bool) {
        self.say(f64::from(u8::from(truth)));
    }

    /// The same, where it is known.
    pub fn say_truth_if_known(&mut self, truth: Option<bool>) {
        if let Some(truth) = truth {
            self.say_truth(truth);
        }
    }

    /// A number of something, `values` being those of the metric's labels.
    pub fn say_of(&mut self, values: &[&str], value: f64) {
        let Metric { name, labels, .. } = self.metric;
        assert_eq!(labels.len(), values.len(), "{name}: one value for each label");
        let pairs: Vec<String> = labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        let _ = writeln!(self.lines, "{name}{labels} {}", number(value));
    }
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// The value of a label, between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What stands behind `# HELP`.
fn helpful(meaning: &str) -> String {
    meaning.replace('\\', "\\\\").replace('\n', "\\n")
}
