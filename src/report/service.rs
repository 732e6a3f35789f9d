//! What the service manager is told of the daemon: that it is ready, alive, what it is doing, that it ends.
//!
//! Where none started us, nothing is told. A message that does not get through is no reason to stop: at worst we are
//! started anew, which loses nothing.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::text::count;
use crate::pass::Observer;
use crate::tally::Tally;

/// The port is open; what there is to serve is served from now on.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for whoever asks how the daemon is doing.
fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: what is being installed is finished first"),
    ]);
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager was not told: {error}");
    }
}

/// Tells the service manager that we are alive, as often as it wants to hear it.
#[derive(Debug)]
pub struct Heartbeat {
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Heartbeat {
    /// At the rate that the service manager asked for (`WatchdogSec=`), if it did.
    pub fn wanted() -> Heartbeat {
        // Half of its patience, as it recommends.
        Heartbeat { every: sd_notify::watchdog_enabled().map(|patience| patience / 2), last: None }
    }

    /// We got around to this.
    pub fn beat(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            self.last = Some(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Keeps the status line of a pass up to date.
#[derive(Debug)]
pub struct PassStatus {
    began: Instant,
    told: Mutex<Instant>,
}

impl PassStatus {
    /// A pass begins.
    pub fn begin() -> PassStatus {
        status("in a pass");
        let began = Instant::now();
        PassStatus { began, told: Mutex::new(began) }
    }
}

impl Observer for PassStatus {
    fn progress(&self, tally: &Tally, devices_done: usize, devices: usize, _database: &str) {
        // Another worker that tells right now tells for us too.
        let Ok(mut told) = self.told.try_lock() else { return };
        if told.elapsed() >= STATUS_INTERVAL {
            *told = Instant::now();
            status(&under_way(tally, devices_done, devices, self.began.elapsed()));
        }
    }
}

fn under_way(tally: &Tally, devices_done: usize, devices: usize, time: Duration) -> String {
    format!(
        "in a pass for {} s: {devices_done} of {}, {}, {}",
        time.as_secs(),
        count(devices as u64, "device"),
        count(tally.attempted, "database"),
        count(tally.failure, "failure")
    )
}

/// A pass is over, and the next one comes after so long.
pub fn between_passes(tally: &Tally, wait: Duration) {
    status(&outcome(tally, wait));
}

fn outcome(tally: &Tally, wait: Duration) -> String {
    let ending = match tally.failure {
        0 => "without a failure".to_owned(),
        failures => format!("with {}", count(failures, "failure")),
    };
    format!(
        "last pass: {} in {:.1} s, {ending}; the next in {} s",
        count(tally.attempted, "database"),
        tally.elapsed,
        wait.as_secs()
    )
}

/// How often the line changes at most.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_where_a_pass_is_and_how_it_ended() {
        let mut tally = Tally { attempted: 12, failure: 1, elapsed: 3.25, ..Tally::default() };
        assert_eq!(
            under_way(&tally, 1, 3, Duration::from_millis(61_900)),
            "in a pass for 61 s: 1 of 3 devices, 12 databases, 1 failure"
        );
        assert_eq!(
            under_way(&Tally::default(), 0, 1, Duration::ZERO),
            "in a pass for 0 s: 0 of 1 device, 0 databases, 0 failures"
        );
        let wait = Duration::from_millis(26_750);
        let line = outcome(&tally, wait);
        assert_eq!(line, "last pass: 12 databases in 3.2 s, with 1 failure; the next in 26 s");
        tally.failure = 0;
        assert!(outcome(&tally, wait).contains("without a failure"));
        tally.failure = 2;
        assert!(outcome(&tally, wait).contains("with 2 failures"));
    }

    #[test]
    fn a_heart_that_nobody_listens_to_does_not_beat() {
        let mut heart = Heartbeat { every: None, last: None };
        heart.beat();
        assert_eq!(heart.last, None);
        heart.every = Some(Duration::from_secs(60));
        heart.beat();
        let first = heart.last.expect("the first comes at once");
        heart.beat();
        assert_eq!(heart.last, Some(first));
    }
}
