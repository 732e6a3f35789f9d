//! Complaints that are made over and over: told once, then counted.
//!
//! A peer that is down is the same line in every pass. It is told when it is first said; what is said again within
//! [`WINDOW`] is counted, and the count is told when the window is over: with the line, if it is said again, else by
//! itself. So nothing is lost but time, and a log can be read. Time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What was said of late.
#[derive(Debug)]
pub struct Repeats<K> {
    told: HashMap<(K, String), Told>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    since: Instant,
    /// How often it was said again.
    more: u64,
}

/// A line to be told, and how often it was said besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<K> {
    /// Of what kind.
    pub kind: K,
    /// What was said.
    pub text: String,
    /// How often it was said again since it was told last.
    pub more: u64,
    /// It is only told for its count: nobody says it now.
    pub is_past: bool,
}

impl<K> Default for Repeats<K> {
    /// Nothing yet.
    fn default() -> Repeats<K> {
        Repeats { told: HashMap::new() }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Repeats<K> {
    /// A line is said. What is to be told now, which may be others too, in the order in which they were told first.
    pub fn say(&mut self, kind: K, text: &str, now: Instant) -> Vec<Line<K>> {
        let key = (kind, text.to_owned());
        let mut more = 0;
        match self.told.get_mut(&key) {
            Some(told) if now.duration_since(told.since) < WINDOW => {
                told.more += 1;
                return self.past(now);
            }
            Some(told) => more = told.more,
            None => {}
        }
        self.told.remove(&key);
        let mut lines = self.past(now);
        if self.told.len() >= LINES_LIMIT {
            lines.extend(self.forget_oldest());
        }
        self.told.insert(key, Told { since: now, more: 0 });
        lines.push(Line { kind, text: text.to_owned(), more, is_past: false });
        lines
    }

    /// Lines whose window is over, and that were said again in it.
    pub fn past(&mut self, now: Instant) -> Vec<Line<K>> {
        self.take(|told| now.duration_since(told.since) >= WINDOW)
    }

    /// All that were said again since they were told: nothing comes any more.
    pub fn end(&mut self) -> Vec<Line<K>> {
        self.take(|_| true)
    }

    fn forget_oldest(&mut self) -> Vec<Line<K>> {
        let oldest = self.told.values().map(|told| told.since).min();
        self.take(|told| Some(told.since) == oldest)
    }

    fn take(&mut self, is_over: impl Fn(&Told) -> bool) -> Vec<Line<K>> {
        let over = self.told.iter().filter(|(_, told)| is_over(told));
        let mut taken: Vec<_> = over.map(|(key, told)| (key.clone(), *told)).collect();
        for (key, _) in &taken {
            self.told.remove(key);
        }
        taken.sort_by_key(|(_, told)| told.since);
        let line =
            |((kind, text), told): ((K, String), Told)| Line { kind, text, more: told.more, is_past: true };
        taken.into_iter().filter(|(_, told)| told.more > 0).map(line).collect()
    }
}

/// A line that is said again within this time is counted.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Lines that are remembered; of more, the oldest are forgotten.
const LINES_LIMIT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: Vec<Line<u8>>) -> Vec<(String, u64, bool)> {
        lines.into_iter().map(|line| (line.text, line.more, line.is_past)).collect()
    }

    #[test]
    fn a_line_is_told_once_and_then_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let line = |text: &str, more, is_past| (text.to_owned(), more, is_past);
        assert_eq!(told(repeats.say(3, "down", start)), [line("down", 0, false)]);
        for second in 1..=41 {
            assert_eq!(told(repeats.say(3, "down", start + Duration::from_secs(second))), []);
        }
        let soon = start + WINDOW - Duration::from_millis(1);
        assert_eq!(told(repeats.say(3, "other", soon)), [line("other", 0, false)]);
        assert_eq!(told(repeats.say(4, "down", soon)), [line("down", 0, false)], "it is more serious now");
        let over = start + WINDOW;
        assert_eq!(told(repeats.say(3, "down", over)), [line("down", 41, false)]);
        assert_eq!(told(repeats.say(3, "down", over + WINDOW)), [line("down", 0, false)]);
    }

    #[test]
    fn what_is_not_said_again_is_told_by_its_count() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for text in ["once", "twice", "twice"] {
            repeats.say(3, text, start);
        }
        assert_eq!(told(repeats.past(start + WINDOW - Duration::from_millis(1))), []);
        let past = ("twice".to_owned(), 1, true);
        assert_eq!(told(repeats.past(start + WINDOW)), std::slice::from_ref(&past));
        assert_eq!(told(repeats.past(start + WINDOW)), []);
        repeats.say(3, "twice", start);
        repeats.say(3, "twice", start);
        assert_eq!(told(repeats.end()), [past]);
        assert_eq!(told(repeats.end()), []);
    }

    #[test]
    fn many_different_lines_take_no_more_than_their_room() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |number: usize| start + Duration::from_millis(number as u64);
        for number in 0..LINES_LIMIT {
            assert_eq!(repeats.say(3, &number.to_string(), at(number)).len(), 1);
        }
        repeats.say(3, "0", at(LINES_LIMIT));
        assert_eq!(
            told(repeats.say(3, "one too many", at(LINES_LIMIT))),
            [("0".to_owned(), 1, true), ("one too many".to_owned(), 0, false)]
        );
        assert_eq!(repeats.told.len(), LINES_LIMIT);
    }
}
