//! The wish to stop, seen by everything that waits or loops.
//!
//! A signal sets it; nobody clears it. Whoever waits, waits in slices no longer than [`SLICE`]. What is better finished than
//! broken off says so by a [`Finishing`], and the process does not end before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest anything sleeps without looking.
pub const SLICE: Duration = Duration::from_millis(200);

/// Shared by all threads; cloning it gives another handle on the same wish.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Wishes it.
    pub fn wish(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Has it been wished?
    pub fn wished(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The flag itself, for a signal handler to set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Sleeps, but wakes early if the wish comes. Returns whether it has.
    pub fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.wished() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(SLICE));
        }
        self.wished()
    }
}

/// Work that is better finished than broken off, as long as this is held. An end in the middle of it loses nothing, but leaves
/// the rest to the next start.
#[derive(Debug)]
pub struct Finishing(());

impl Finishing {
    /// Begins it.
    pub fn begin() -> Finishing {
        FINISHING.fetch_add(1, Ordering::SeqCst);
        Finishing(())
    }

    /// Waits until nobody has anything to finish, but no longer than `limit`. Returns whether that is so.
    pub fn wait(limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while FINISHING.load(Ordering::SeqCst) > 0 {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(FINISHING_POLL);
        }
        true
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        FINISHING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many [`Finishing`] there are in this process.
static FINISHING: AtomicUsize = AtomicUsize::new(0);
const FINISHING_POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// One test for all of it: the count is the process's, and no other unit test may be waited for.
    #[test]
    fn who_finishes_something_is_waited_for_but_not_for_ever() {
        let slow = Finishing::begin();
        assert!(!Finishing::wait(Duration::from_millis(50)));
        let finished = Arc::new(AtomicBool::new(false));
        let flag = finished.clone();
        let worker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            flag.store(true, Ordering::SeqCst);
            drop(slow);
        });
        assert!(Finishing::wait(Duration::from_secs(60)));
        assert!(finished.load(Ordering::SeqCst));
        worker.join().expect("it ends");
    }
}
