//! `agent_memory_budget`, shared by all work in flight.
//!
//! What a piece of work may allocate at most is known before it begins ([`crate::delta`], [`crate::protocol::rows`]
//! state theirs). It takes that much from the budget and gives it back when it ends; who finds too little left waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::stop::{SLICE, Stop};

/// A number of bytes that many threads share.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    left: Mutex<u64>,
    returned: Condvar,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    bytes: u64,
    from: Arc<Shared>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(total_bytes: u64) -> Budget {
        let shared = Shared { total: total_bytes, left: Mutex::new(total_bytes), returned: Condvar::new() };
        Budget(Arc::new(shared))
    }

    /// Takes `bytes` (or the whole budget, where that is less) and waits for them until `deadline`. `None` if they did
    /// not come free in time, or everything is to stop.
    pub fn take(&self, bytes: u64, deadline: Instant, stop: &Stop) -> Option<Share> {
        let bytes = bytes.min(self.0.total);
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left < bytes {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() || stop.wished() {
                return None;
            }
            left =
                self.0.returned.wait_timeout(left, time.min(SLICE)).unwrap_or_else(PoisonError::into_inner).0;
        }
        *left -= bytes;
        Some(Share { bytes, from: self.0.clone() })
    }

    /// Takes `bytes` if they are to spare: for what is only the better for them.
    pub fn take_spare(&self, bytes: u64) -> Option<Share> {
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(bytes)?;
        Some(Share { bytes, from: self.0.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.from.left.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.from.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_taken_is_missing_until_it_is_given_back() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let soon = || Instant::now() + Duration::from_millis(30);
        let share = budget.take(8, soon(), &stop).expect("there is enough");
        assert!(budget.take(3, soon(), &stop).is_none());
        drop(share);
        assert!(budget.take(3, soon(), &stop).is_some());
    }

    #[test]
    fn spare_bytes_are_not_waited_for() {
        let budget = Budget::new(10);
        let share = budget.take_spare(8).expect("there is enough");
        assert!(budget.take_spare(3).is_none());
        assert!(budget.take_spare(2).is_some());
        drop(share);
        assert!(budget.take_spare(10).is_some());
        assert!(budget.take_spare(11).is_none(), "not even all there is");
    }

    #[test]
    fn work_larger_than_the_budget_gets_all_of_it() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let share = budget.take(1000, Instant::now(), &stop).expect("the whole budget");
        assert_eq!(share.bytes, 10);
    }
}
