//! How hard a drive is pressed, and how much of the time we may therefore keep it busy.
//!
//! A container server on the same drive waits for its disk whenever it commits rows, and nobody likes to wait. So as long as
//! we keep a drive busy we commit something ourselves now and then, a byte in a file without a name, and take the time:
//! that is what everybody waits there. Where it is longer than `agent_drive_latency_ms`, whoever works on the drive rests
//! after each piece of work, for longer and longer until commits are fast again, and for shorter and shorter from then on.
//! Whoever writes a large file has less of it on the way first: others wait behind that, and a little is as good as much
//! to keep a disk at work. And where it is much longer, only one at a time works there ([`Pressure::turn`]), or many who rest
//! would be as bad as one who does not.
//!
//! Whose fault it is that commits are slow is not asked: if ours, we make room; if that of others, they have more of
//! what there is. But never all of it ([`LEAST_SHARE`]): a node that stops replicating loses more than a little time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use log::{debug, info};
use nix::libc;

use super::DeviceName;

/// What is known of how hard a drive is pressed, shared by all who work on it.
#[derive(Debug)]
pub struct Pressure {
    device: String,
    tmp: PathBuf,
    /// The longest that commits should take; `None` if that is all the same.
    limit: Option<Duration>,
    gauge: Mutex<Gauge>,
    calling: Mutex<()>,
    answering: Mutex<()>,
}

/// Who works on a drive: each side takes its own turns, or two nodes could wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who calls peers, and may have to wait for one.
    Calling,
    /// Who answers them, and waits for nobody.
    Answering,
}

/// The right to work on a pressed drive, until dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _held: MutexGuard<'a, ()>,
}

/// The part of it that is mere reckoning.
#[derive(Debug, Clone, PartialEq)]
struct Gauge {
    /// The part of the time in which the drive may be kept busy.
    share: f64,
    /// Work on it since the last commit was timed.
    worked: Duration,
    /// Rest that is due.
    owed: Duration,
    /// When a commit is timed next; `None` while one is.
    due: Option<Instant>,
    /// When one was timed last.
    timed: Option<Instant>,
    /// When an operator was last told of it.
    told: Option<Instant>,
}

impl Pressure {
    /// Of the device of this name with its `tmp` there.
    pub fn new(device: &DeviceName, tmp: PathBuf, limit: Option<Duration>) -> Pressure {
        let gauge = Mutex::new(Gauge::new(Instant::now()));
        let (calling, answering) = (Mutex::default(), Mutex::default());
        Pressure { device: device.to_string(), tmp, limit, gauge, calling, answering }
    }

    /// Waits until nobody else of that side works on the drive, if it is so pressed that it matters; `wait` sleeps a little,
    /// or says why there is no point in waiting. To be held while working, and while resting afterwards. `None` if it does not
    /// matter, or if somebody takes so long that it is better not to wait any more.
    ///
    /// # Errors
    /// What `wait` says.
    pub fn turn<E>(
        &self,
        side: Side,
        mut wait: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Turn<'_>>, E> {
        let turns = match side {
            Side::Calling => &self.calling,
            Side::Answering => &self.answering,
        };
        let begun = Instant::now();
        while self.gauge().share < ALONE_BELOW && begun.elapsed() < TURN_LIMIT {
            match turns.try_lock() {
                Ok(held) => return Ok(Some(Turn { _held: held })),
                Err(TryLockError::Poisoned(held)) => return Ok(Some(Turn { _held: held.into_inner() })),
                Err(TryLockError::WouldBlock) => wait()?,
            }
        }
        Ok(None)
    }

    /// How long to rest after work that kept the drive busy for so long, but no more than `longest` at a time. Nothing may
    /// be locked meanwhile. Now and then this takes as long as a commit.
    pub fn rest_after(&self, worked: Duration, longest: Duration) -> Duration {
        self.note(worked, 1.0);
        self.gauge().take_rest(longest)
    }

    /// The same after a piece of a large file was written; and how much of what is usual may be on the way to the disk
    /// from now on, 1 for all of it and no less than `least`.
    pub fn rest_after_writing(&self, worked: Duration, least: f64) -> (Duration, f64) {
        self.note(worked, least);
        let mut gauge = self.gauge();
        (gauge.take_rest(SHORT_REST), gauge.share.max(least))
    }

    /// Notes work for which there is no rest as long as the share is not below `restless`.
    fn note(&self, worked: Duration, restless: f64) {
        let Some(limit) = self.limit else { return };
        if self.gauge().has_worked(worked, restless, Instant::now()) {
            let took = self.time_a_commit();
            let mut gauge = self.gauge();
            match took {
                Ok(took) => {
                    gauge.timed(took, limit, Instant::now());
                    if gauge.is_to_be_told(Instant::now()) {
                        let share = gauge.share * 100.0;
                        drop(gauge);
                        info!(
                            device = self.device.as_str();
                            "drive {} is pressed: a commit takes {} ms; keeping it busy no more than {share:.0} % of the \
                             time until that is better (agent_drive_latency_ms)",
                            self.device,
                            took.as_millis()
                        );
                    }
                }
                Err(error) => {
                    gauge.unknown(Instant::now());
                    drop(gauge);
                    debug!("{}: no commit there could be timed: {error}", self.tmp.display());
                }
            }
        }
    }

    /// What a commit takes right now: metadata and data, as a row takes it that SQLite is given.
    fn time_a_commit(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        let mut file =
            OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&self.tmp)?;
        file.write_all(&[0])?;
        file.sync_all()?;
        Ok(begun.elapsed())
    }

    fn gauge(&self) -> MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gauge {
    fn new(now: Instant) -> Gauge {
        let (worked, owed) = (Duration::ZERO, Duration::ZERO);
        Gauge { share: 1.0, worked, owed, due: Some(now), timed: None, told: None }
    }

    /// Somebody worked; says whether he is to time a commit.
    fn has_worked(&mut self, worked: Duration, restless: f64, now: Instant) -> bool {
        if self.timed.is_some_and(|timed| now.saturating_duration_since(timed) > MEMORY) {
            (self.share, self.timed) = (1.0, None);
        }
        self.worked += worked;
        self.owed = (self.owed + worked.mul_f64((restless / self.share - 1.0).max(0.0))).min(LONG_REST);
        let is_due = self.worked >= WORK_BETWEEN && self.due.is_some_and(|due| now >= due);
        if is_due {
            (self.due, self.worked) = (None, Duration::ZERO);
        }
        is_due
    }

    /// A commit took so long.
    fn timed(&mut self, took: Duration, limit: Duration, now: Instant) {
        let change = limit.as_secs_f64() / took.as_secs_f64().max(1e-6);
        self.share = (self.share * change.clamp(FASTEST_FALL, FASTEST_RISE)).clamp(LEAST_SHARE, 1.0);
        self.timed = Some(now);
        // Ours are to be the smallest part of all commits, also where each takes long.
        self.due = Some(now + (took * TIMES_BETWEEN).clamp(PAUSE, LONGEST_PAUSE));
    }

    /// It could not be found out: as if nothing were the matter.
    fn unknown(&mut self, now: Instant) {
        (self.share, self.timed, self.due) = (1.0, None, Some(now + LONGEST_PAUSE));
    }

    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let was_told = self.told.is_some_and(|told| now.saturating_duration_since(told) < TELLING_PAUSE);
        let tells = self.share < WORTH_TELLING && !was_told;
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// What is owed, or so much of it, once it is long enough to sleep for.
    fn take_rest(&mut self, longest: Duration) -> Duration {
        let rest = if self.owed < SHORTEST_REST { Duration::ZERO } else { self.owed.min(longest) };
        self.owed -= rest;
        rest
    }
}

/// The smallest part of the time in which a drive is worked on.
const LEAST_SHARE: f64 = 0.02;
/// How the share changes at most from one commit to the next: faster downwards than upwards.
const FASTEST_FALL: f64 = 0.5;
const FASTEST_RISE: f64 = 1.25;
/// Little work is not worth a commit.
const WORK_BETWEEN: Duration = Duration::from_millis(50);
/// Between two commits that are timed, and how many times as long as one takes at least.
const PAUSE: Duration = Duration::from_millis(200);
const TIMES_BETWEEN: u32 = 10;
/// Between them at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What was found out longer ago than this means nothing any more. Longer than anybody rests, and than goes by between two
/// commits that are timed: else a drive would be taken for free just because it was left alone for so long.
const MEMORY: Duration = Duration::from_secs(60);
const _: () =
    assert!(MEMORY.as_secs() > 2 * LONG_REST.as_secs() && MEMORY.as_secs() > 2 * LONGEST_PAUSE.as_secs());
/// For whoever keeps a peer waiting that he says nothing to meanwhile.
pub const SHORT_REST: Duration = Duration::from_secs(1);
/// For whoever keeps nobody waiting, or says so. A piece of work may take minutes, and that is no reason to rest for hours.
pub const LONG_REST: Duration = Duration::from_secs(20);
/// How long to wait before it is asked again whether it is one's turn.
pub const TURN_PAUSE: Duration = Duration::from_millis(20);
/// Who holds the turn may be at work on something huge, or wait for memory that others have who wait for the turn.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// Below this share there is one at a time.
const ALONE_BELOW: f64 = 0.5;
/// Sleeping for less costs more than it gives.
const SHORTEST_REST: Duration = Duration::from_millis(2);
/// Below this share whoever asks himself what takes so long should find it in the log, now and then.
const WORTH_TELLING: f64 = 0.3;
const TELLING_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// A drive on which a commit takes `alone` while we rest, and `ours` longer while we work all of the time. Returns what a
    /// commit takes, and the share, once that has settled.
    fn settled(alone: Duration, ours: Duration) -> (Duration, f64) {
        let mut now = Instant::now();
        let mut gauge = Gauge::new(now);
        let mut took = Duration::ZERO;
        for _ in 0..20_000 {
            let work = Duration::from_millis(10);
            now += work;
            if gauge.has_worked(work, 1.0, now) {
                took = alone + ours.mul_f64(gauge.share);
                now += took;
                gauge.timed(took, LIMIT, now);
            }
            now += gauge.take_rest(SHORT_REST);
        }
        (took, gauge.share)
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_drive_that_bears_us_is_worked_on_all_of_the_time() {
        assert_eq!(settled(millis(5), millis(90)).1, 1.0);
    }

    #[test]
    fn what_we_do_to_others_settles_at_the_limit() {
        for ours in [200, 400, 900] {
            let (took, share) = settled(millis(5), millis(ours));
            assert!(took > millis(80) && took < millis(125), "{ours}: {took:?}");
            assert!((share - 95.0 / ours as f64).abs() < 0.15, "{ours}: {share}");
        }
    }

    #[test]
    fn where_others_are_the_cause_we_go_on_a_little() {
        assert_eq!(settled(millis(500), millis(50)).1, LEAST_SHARE);
        // Also where a commit takes so long that there are few of them.
        assert_eq!(settled(millis(3000), millis(50)).1, LEAST_SHARE);
    }

    #[test]
    fn it_rests_as_the_share_says() {
        let mut now = Instant::now();
        let mut gauge = Gauge { share: 0.2, timed: Some(now), due: None, ..Gauge::new(now) };
        let (mut worked, mut rested) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            gauge.has_worked(Duration::from_micros(300), 1.0, now);
            let rest = gauge.take_rest(SHORT_REST);
            assert!(rest.is_zero() || rest >= SHORTEST_REST, "{rest:?}");
            (worked, rested) = (worked + Duration::from_micros(300), rested + rest);
            now += Duration::from_micros(300) + rest;
        }
        let share = worked.as_secs_f64() / (worked + rested).as_secs_f64();
        assert!((share - 0.2).abs() < 0.01, "{share}");
    }

    #[test]
    fn who_has_less_on_the_way_rests_only_when_that_is_not_enough() {
        let now = Instant::now();
        for (share, rest) in [(0.5, 0), (0.125, 0), (0.0625, 100), (0.02, 525)] {
            let mut gauge = Gauge { share, timed: Some(now), due: None, ..Gauge::new(now) };
            gauge.has_worked(millis(100), 0.125, now);
            assert_eq!(gauge.take_rest(SHORT_REST), millis(rest), "{share}");
        }
    }

    #[test]
    fn nobody_rests_for_longer_than_a_peer_waits_nor_for_ever() {
        let now = Instant::now();
        let mut gauge = Gauge { share: LEAST_SHARE, timed: Some(now), due: None, ..Gauge::new(now) };
        gauge.has_worked(Duration::from_secs(3600), 1.0, now);
        assert_eq!(gauge.take_rest(SHORT_REST), SHORT_REST);
        assert_eq!(gauge.take_rest(LONG_REST), LONG_REST - SHORT_REST);
        assert_eq!(gauge.take_rest(LONG_REST), Duration::ZERO);
    }

    #[test]
    fn commits_are_timed_by_one_at_a_time_and_not_for_little_work() {
        let now = Instant::now();
        let mut gauge = Gauge::new(now);
        assert!(!gauge.has_worked(WORK_BETWEEN / 2, 1.0, now));
        assert!(gauge.has_worked(WORK_BETWEEN / 2, 1.0, now));
        assert!(!gauge.has_worked(WORK_BETWEEN, 1.0, now), "one is being timed");
        gauge.timed(millis(50), LIMIT, now);
        assert!(!gauge.has_worked(WORK_BETWEEN, 1.0, now + millis(499)));
        assert!(gauge.has_worked(WORK_BETWEEN, 1.0, now + millis(500)));
    }

    #[test]
    fn what_was_seen_long_ago_is_forgotten() {
        let now = Instant::now();
        let mut gauge = Gauge { share: LEAST_SHARE, timed: Some(now), ..Gauge::new(now) };
        gauge.has_worked(millis(1), 1.0, now + MEMORY);
        assert_eq!(gauge.share, LEAST_SHARE);
        gauge.has_worked(millis(1), 1.0, now + MEMORY + millis(1));
        assert_eq!(gauge.share, 1.0);
    }

    #[test]
    fn it_is_told_once_in_a_while() {
        let now = Instant::now();
        let mut gauge = Gauge { share: WORTH_TELLING, ..Gauge::new(now) };
        assert!(!gauge.is_to_be_told(now));
        gauge.share = WORTH_TELLING / 2.0;
        assert!(gauge.is_to_be_told(now));
        assert!(!gauge.is_to_be_told(now + TELLING_PAUSE / 2));
        assert!(gauge.is_to_be_told(now + TELLING_PAUSE));
    }

    fn pressure(tmp: PathBuf, limit: Option<Duration>) -> Pressure {
        Pressure::new(&DeviceName::new("d0").expect("a name"), tmp, limit)
    }

    #[test]
    fn a_commit_leaves_nothing_behind_and_shows_in_the_rest() {
        let tmp = tempfile::tempdir().expect("a directory");
        // No disk commits within a nanosecond.
        let pressed = pressure(tmp.path().to_owned(), Some(Duration::from_nanos(1)));
        let rest = pressed.rest_after(WORK_BETWEEN, SHORT_REST);
        assert!(rest.is_zero(), "{rest:?}");
        assert_eq!(pressed.gauge().share, FASTEST_FALL);
        assert_eq!(pressed.rest_after(WORK_BETWEEN, SHORT_REST), WORK_BETWEEN);
        assert_eq!(pressed.rest_after_writing(WORK_BETWEEN, 0.125), (Duration::ZERO, FASTEST_FALL));
        assert_eq!(pressed.rest_after_writing(WORK_BETWEEN, 0.75), (WORK_BETWEEN / 2, 0.75));
        assert_eq!(tmp.path().read_dir().expect("readable").count(), 0);
    }

    #[test]
    fn on_a_drive_that_is_much_pressed_there_is_one_of_each_side_at_a_time() {
        let tmp = tempfile::tempdir().expect("a directory");
        let pressed = pressure(tmp.path().to_owned(), Some(LIMIT));
        let gives_up = || Err("somebody works there");
        assert!(pressed.turn(Side::Calling, gives_up).expect("no need to wait").is_none());
        pressed.gauge().share = ALONE_BELOW / 2.0;
        let held = pressed.turn(Side::Calling, gives_up).expect("it is free");
        assert!(held.is_some());
        assert!(pressed.turn(Side::Calling, gives_up).is_err());
        assert!(pressed.turn(Side::Answering, gives_up).expect("its own").is_some());
        // It gets better while somebody waits.
        let mut waited = 0;
        let turn = pressed.turn(Side::Calling, || {
            waited += 1;
            if waited == 3 {
                pressed.gauge().share = 1.0;
            }
            Ok::<(), ()>(())
        });
        assert!(turn.expect("it goes on").is_none() && waited == 3);
        drop(held);
        pressed.gauge().share = LEAST_SHARE;
        assert!(pressed.turn(Side::Calling, gives_up).expect("free again").is_some());
    }

    #[test]
    fn without_a_limit_or_a_place_to_look_there_is_no_rest() {
        let tmp = tempfile::tempdir().expect("a directory");
        for pressure in [
            pressure(tmp.path().to_owned(), None),
            pressure(tmp.path().join("missing"), Some(Duration::from_nanos(1))),
        ] {
            for _ in 0..3 {
                assert_eq!(pressure.rest_after(Duration::from_secs(1), SHORT_REST), Duration::ZERO);
            }
        }
    }
}
