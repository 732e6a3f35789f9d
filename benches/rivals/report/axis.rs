//! Where a number stands on a plot.

use super::words;

/// A scale from its least number to its greatest, in the unit of the figures.
pub struct Axis {
    unit: &'static str,
    /// Of one step in the figures' unit: memory is told in KiB, but read in MiB.
    step: f64,
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    /// For all of these numbers. Logarithmic where they differ so much that a linear one would hide the small ones.
    pub fn over(numbers: impl Iterator<Item = f64> + Clone, unit: &'static str) -> Axis {
        let step = if unit == "KiB" { 1024.0 } else { 1.0 };
        let greatest = numbers.clone().fold(0.0, f64::max) / step;
        let least = numbers.filter(|number| *number > 0.0).fold(f64::INFINITY, f64::min) / step;
        if greatest <= 0.0 {
            return Axis { unit, step, low: 0.0, high: 1.0, is_log: false };
        }
        if greatest / least > LOG_FROM {
            // A little room, so that no mark lies on the edge.
            return Axis { unit, step, low: least / 1.3, high: greatest * 1.3, is_log: true };
        }
        let tick = nice(greatest / 4.0);
        Axis { unit, step, low: 0.0, high: (greatest / tick).ceil() * tick, is_log: false }
    }

    /// Whether each step of it is ten times the one before.
    pub fn is_log(&self) -> bool {
        self.is_log
    }

    /// In percent of the way from its least number to its greatest.
    pub fn place(&self, number: f64) -> f64 {
        let number = number / self.step;
        let share = match self.is_log {
            true => (number.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => (number - self.low) / (self.high - self.low),
        };
        (share * 100.0).clamp(0.0, 100.0)
    }

    /// Where lines are drawn, in percent, with what is written there: at most so many words.
    pub fn ticks(&self, most: usize) -> Vec<(f64, Option<String>)> {
        if self.is_log {
            let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            // Where there are few tens, twos and fives stand between them.
            let between: &[f64] = if last - first < 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let numbers: Vec<f64> = (first - 1..=last)
                .flat_map(|power| between.iter().map(move |step| step * 10_f64.powi(power)))
                .filter(|number| (self.low..=self.high).contains(number))
                .collect();
            let every = numbers.len().div_ceil(most).max(1);
            return numbers
                .into_iter()
                .enumerate()
                .map(|(nth, number)| {
                    let number = number * self.step;
                    (self.place(number), (nth % every == 0).then(|| self.label(number)))
                })
                .collect();
        }
        let tick = nice(self.high / 4.0);
        let count = (self.high / tick).round() as usize;
        let every = count.div_ceil(most.max(2) - 1).max(1);
        (0..=count)
            .map(|number| {
                let value = number as f64 * tick * self.step;
                (self.place(value), (number % every == 0).then(|| self.label(value)))
            })
            .collect()
    }

    fn label(&self, number: f64) -> String {
        match self.unit {
            "KiB" => format!("{} MiB", trimmed(words::digits(number / 1024.0))),
            unit => {
                let text = words::quantity(number, if unit.ends_with("/s") { "ratio" } else { unit });
                let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
                format!("{} {unit}", trimmed(number.to_owned())).trim_end().to_owned()
            }
        }
    }
}

/// Without zeros that say nothing at a tick.
fn trimmed(number: String) -> String {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number,
    }
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not less.
fn nice(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    power * steps.into_iter().find(|step| step * power >= number * 0.999_999).unwrap_or(10.0)
}

/// The greatest number is so many times the least before the axis is logarithmic.
const LOG_FROM: f64 = 12.0;
