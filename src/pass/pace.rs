//! How fast databases may be opened.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `databases_per_second`, evenly: who falls behind may catch up, but never by more than [`CATCH_UP`].
struct Pace {
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(per_second: f64) -> Pace {
        let interval = (per_second > 0.0).then(|| Duration::from_secs_f64((1.0 / per_second).min(3600.0)));
        Pace { interval, next: Instant::now() }
    }

    /// How long to wait before the next one.
    fn wait(&mut self) -> Duration {
        let Some(interval) = self.interval else { return Duration::ZERO };
        let now = Instant::now();
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let due = self.next.max(earliest);
        self.next = due + interval;
        due.saturating_duration_since(now)
    }
}

/// A pace that several drives keep together.
pub(super) struct CommonPace(Mutex<Pace>);

impl CommonPace {
    /// So many databases a second, all drives together; 0 for as many as there are.
    pub(super) fn new(per_second: f64) -> CommonPace {
        CommonPace(Mutex::new(Pace::new(per_second)))
    }

    /// How long to wait before the next one.
    pub(super) fn wait(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wait()
    }
}

/// As much as Swift's rate limit allows (`swift/common/utils: RateLimitedIterator`).
const CATCH_UP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_never_waits() {
        let mut pace = Pace::new(0.0);
        assert_eq!(pace.wait(), Duration::ZERO);
        assert_eq!(pace.wait(), Duration::ZERO);
    }

    #[test]
    fn databases_are_spaced_evenly() {
        let mut pace = Pace::new(10.0);
        assert_eq!(pace.wait(), Duration::ZERO);
        let second = pace.wait();
        assert!(second > Duration::from_millis(90) && second <= Duration::from_millis(100), "{second:?}");
    }

    #[test]
    fn who_falls_behind_catches_up_five_seconds_and_no_more() {
        let mut pace = Pace::new(10.0);
        pace.next = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or_else(Instant::now);
        let at_once = (0..1000).take_while(|_| pace.wait().is_zero()).count();
        assert!((50..=52).contains(&at_once), "{at_once}");
    }
}
