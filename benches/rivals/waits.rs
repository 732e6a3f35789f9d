//! How long many waited: the usual, and the worst.

use std::time::Duration;

/// Waits, from the shortest to the longest.
pub struct Waits(Vec<Duration>);

impl Waits {
    /// Of those who waited, in any order; there has to be one.
    pub fn of(waits: impl Iterator<Item = Duration>) -> Waits {
        let mut waits: Vec<Duration> = waits.collect();
        assert!(!waits.is_empty(), "nobody waited");
        waits.sort();
        Waits(waits)
    }

    /// In milliseconds, what so many percent did not exceed.
    pub fn share(&self, percent: usize) -> f64 {
        let last = self.0.len() - 1;
        self.0[last * percent / 100].as_secs_f64() * 1000.0
    }
}
