//! The text as it is now, or was a moment ago.
//!
//! To look at a node takes its ledgers and its drives, and one of these may hang. So it is done by a thread of its own, one
//! at a time however many ask, and not again before some time has passed, the more the longer it took. Who asks waits only
//! so long and then gets what there was before; the time at which it was found out stands in it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use super::exposition;
use crate::node::Node;
use crate::status::{Depth, Gatherer};

/// The newest text, and how it is made anew.
#[derive(Debug)]
pub struct Pages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gatherer: Gatherer,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Made>,
    is_being_made: bool,
}

#[derive(Debug, Clone)]
struct Made {
    text: Arc<str>,
    begun: Instant,
    took: Duration,
}

impl Pages {
    /// Of this node.
    pub fn new(node: Arc<Node>) -> Pages {
        let gatherer = Gatherer::new(node, Depth::Brief);
        Pages { shared: Arc::new(Shared { gatherer, state: Mutex::default(), changed: Condvar::new() }) }
    }

    /// As of late; `None` if there is nothing yet, after [`PATIENCE`].
    pub fn of_late(&self) -> Option<Arc<str>> {
        let took = self.shared.state().last.as_ref().map_or(Duration::ZERO, |made| made.took);
        let now = Instant::now();
        let age = (took * WORTH).max(FRESH);
        self.page(now.checked_sub(age).unwrap_or(now), PATIENCE)
    }

    /// As of now, if a look ends before [`LONG_PATIENCE`].
    pub fn of_now(&self) -> Option<Arc<str>> {
        self.page(Instant::now(), LONG_PATIENCE)
    }

    /// One that was begun at or after `earliest`, if it comes within `patience`; else the newest.
    fn page(&self, earliest: Instant, patience: Duration) -> Option<Arc<str>> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        loop {
            if let Some(made) = state.last.as_ref().filter(|made| made.begun >= earliest) {
                return Some(made.text.clone());
            }
            if !state.is_being_made {
                state.is_being_made = self.shared.clone().begin();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !state.is_being_made {
                return state.last.as_ref().map(|made| made.text.clone());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one made; false if nobody can.
    fn begin(self: Arc<Shared>) -> bool {
        let make = move || {
            let over = Over(&self);
            let begun = Instant::now();
            let text = exposition::text(&self.gatherer.gather());
            let took = begun.elapsed();
            self.state().last = Some(Made { text: text.into(), begun, took });
            drop(over);
        };
        match thread::Builder::new().name("figures".into()).spawn(make) {
            Ok(_) => true,
            Err(error) => {
                debug!("no thread to find out figures with: {error}");
                false
            }
        }
    }
}

/// Whoever waits is told, however it ended.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state().is_being_made = false;
        self.0.changed.notify_all();
    }
}

/// Who asks again within that time is told the same.
const FRESH: Duration = Duration::from_secs(5);
/// Of all the time, looking takes no more than one part in so many.
const WORTH: u32 = 20;
/// Less than a scraper has (`scrape_timeout`, 10 s).
const PATIENCE: Duration = Duration::from_secs(6);
/// More than a look takes where a drive hangs.
const LONG_PATIENCE: Duration = Duration::from_secs(15);
