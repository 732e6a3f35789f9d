//! One line on the terminal that says how far a pass has got.
//!
//! A pass does not know this type; whoever starts the pass hands it a way to tick. Ticks may come from any worker and as
//! often as they like: most return at once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{terminal, text};
use crate::tally::Tally;

/// Draws the line on standard error while it lives, and wipes it when it goes.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    /// When the line was last drawn; `None` for a progress that shows nothing.
    drawn: Option<Mutex<Instant>>,
}

/// Where in the pass a tick comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place<'a> {
    /// Devices that have been walked to their end.
    pub devices_done: usize,
    /// Devices that the pass walks.
    pub devices: usize,
    /// The database just done, as people know it: `account/container`, or its path.
    pub database: &'a str,
}

impl Progress {
    /// Shows something only if `wanted` and if standard error is a terminal.
    pub fn new(wanted: bool) -> Progress {
        let began = Instant::now();
        Progress {
            began,
            drawn: (wanted && terminal::is_capable(&std::io::stderr())).then(|| Mutex::new(began)),
        }
    }

    /// Redraws the line, at most ten times a second. `tally` is that of the whole pass so far.
    pub fn tick(&self, tally: &Tally, place: Place<'_>) {
        // Another worker that is drawing right now draws for us too.
        let Some(Ok(mut drawn)) = self.drawn.as_ref().map(Mutex::try_lock) else { return };
        let now = Instant::now();
        if now.duration_since(*drawn) >= REDRAW_INTERVAL {
            *drawn = now;
            terminal::draw(&line(tally, place, now.duration_since(self.began)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            terminal::wipe();
        }
    }
}

/// The line itself. The database comes last, so that it is what a narrow terminal cuts.
fn line(tally: &Tally, place: Place<'_>, elapsed: Duration) -> String {
    let rate = tally.attempted as f64 / elapsed.as_secs_f64().max(0.001);
    let failures = match tally.failure {
        0 => String::new(),
        failures => format!("  {} failed", text::thousands(failures)),
    };
    format!(
        "devices {}/{}  databases {}  {rate:.0}/s  sent {}  received {}{failures}  {}",
        place.devices_done,
        place.devices,
        text::thousands(tally.attempted),
        text::size(tally.bytes_sent),
        text::size(tally.bytes_received),
        text::printable(place.database),
    )
}

/// Faster is only flicker.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_how_fast_and_where() {
        let tally = Tally { attempted: 1204, bytes_sent: 1_258_291, ..Tally::default() };
        let place = Place { devices_done: 3, devices: 12, database: "AUTH_test/pho\ntos" };
        assert_eq!(
            line(&tally, place, Duration::from_secs(10)),
            "devices 3/12  databases 1,204  120/s  sent 1.2 MiB  received 0 B  AUTH_test/pho#012tos"
        );
        let failing = Tally { failure: 2, ..tally };
        assert!(line(&failing, place, Duration::from_secs(10)).contains("  2 failed  "));
    }

    #[test]
    fn a_first_tick_without_time_has_a_finite_rate() {
        let tally = Tally { attempted: 1, ..Tally::default() };
        assert!(line(&tally, Place::default(), Duration::ZERO).contains("1000/s"));
    }
}
