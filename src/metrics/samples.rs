//! What one metric says: its lines, each a number and whose it is.

use std::fmt::Write;

/// Where a row of the table says what it reads.
#[derive(Debug)]
pub struct Samples {
    name: &'static str,
    labels: &'static [&'static str],
    lines: String,
}

impl Samples {
    /// Of a metric of that name, nothing yet.
    pub fn of(name: &'static str, labels: &'static [&'static str]) -> Samples {
        Samples { name, labels, lines: String::new() }
    }

    /// All that was said.
    pub fn into_lines(self) -> String {
        self.lines
    }

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
        let Samples { name, labels, .. } = *self;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_written_as_prometheus_reads_them() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e21, 0.1, -0.0];
        let texts = ["NaN", "+Inf", "-Inf", "1000000000000000000000", "0.1", "-0"];
        assert_eq!(values.map(number), texts.map(str::to_owned));
    }
}
