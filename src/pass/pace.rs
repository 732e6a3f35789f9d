//! How fast databases may be opened.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `databases_per_second`, evenly: time that went by without a database is not made up for, but for so little
/// ([`CATCH_UP`]) that it is no burst. Swift's rate limit makes up for five seconds
/// (`swift/common/utils: RateLimitedIterator`), which hits a drive that was slow a moment ago the hardest.
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

/// Threads wake up a little late; that the rate may bear.
const CATCH_UP: Duration = Duration::from_millis(20);

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
    fn time_that_went_by_is_not_made_up_for() {
        for (per_second, at_once) in [(10.0, 1), (1000.0, 21)] {
            let mut pace = Pace::new(per_second);
            pace.next = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or_else(Instant::now);
            let seen = (0..1000).take_while(|_| pace.wait().is_zero()).count();
            assert!((at_once..=at_once + 2).contains(&seen), "{per_second}: {seen}");
        }
    }
}
