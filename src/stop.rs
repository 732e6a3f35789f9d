//! The wish to stop, seen by everything that waits or loops.
//!
//! A signal sets it; nobody clears it. Whoever waits, waits in slices no longer than [`SLICE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
