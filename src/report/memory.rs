//! The most anonymous memory this process had.
//!
//! The kernel keeps a peak for all resident memory (`VmHWM`), which is mostly other people's page cache when databases
//! are read; for anonymous memory, the part that we answer for, it tells only the present. So a thread looks every now
//! and then while a pass runs. What lives for less than [`SAMPLE_INTERVAL`] may be missed.
//!
//! The same thread gives memory back that was freed and yet kept: the allocator holds on to whatever lies below the last
//! piece in use, and after a few thousand small rows that can be all of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::drive::trim_heap;

/// The largest sample, in KiB.
static PEAK_KIB: AtomicU64 = AtomicU64::new(0);

/// Looks once, and returns the most seen so far in KiB; 0 where the kernel does not tell.
pub fn sample() -> u64 {
    let now = anonymous_kib();
    PEAK_KIB.fetch_max(now, Ordering::Relaxed).max(now)
}

/// What this process has now.
fn anonymous_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| anon_kib(&status)).unwrap_or(0)
}

/// What another process has now; `None` if it is gone, or is not ours to ask.
pub fn of(pid: u32) -> Option<u64> {
    anon_kib(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// When memory was last given back, and what was in use then.
struct Trimmed {
    kib: u64,
    since: Instant,
}

impl Trimmed {
    /// Much has come since, or there was time for a little; and now and then in any case, since what was freed by those who
    /// left does not show until it is given back.
    fn is_due(&self, now_kib: u64, now: Instant) -> bool {
        let (grown, waited) = (now_kib.saturating_sub(self.kib), now.duration_since(self.since));
        (grown >= GROWN_MUCH_KIB && waited >= TRIM_INTERVAL)
            || (grown >= GROWN_KIB && waited >= TRIM_INTERVAL_IDLE)
            || waited >= TRIM_INTERVAL_ANYWAY
    }
}

/// Samples for as long as it lives.
#[derive(Debug)]
pub struct AnonPeak {
    /// The thread, and what it waits on: dropping the sender ends it.
    sampler: Option<(Sender<()>, JoinHandle<()>)>,
}

impl AnonPeak {
    /// Starts the thread. Where there can be none, only [`AnonPeak::kib`] itself looks.
    pub fn watch() -> AnonPeak {
        let (stop, stopped) = channel();
        let sampling = move || {
            let mut trimmed = Trimmed { kib: 0, since: Instant::now() };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE_INTERVAL) {
                sample();
                if trimmed.is_due(anonymous_kib(), Instant::now()) {
                    trim_heap();
                    trimmed = Trimmed { kib: anonymous_kib(), since: Instant::now() };
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("memory".to_owned()).stack_size(STACK_BYTES).spawn(sampling);
        AnonPeak { sampler: thread.ok().map(|thread| (stop, thread)) }
    }

    /// The most this process had so far, in KiB.
    pub fn kib(&self) -> u64 {
        sample()
    }
}

impl Drop for AnonPeak {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.sampler.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// `RssAnon` of a `/proc/<pid>/status`.
fn anon_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Fifty looks a second cost less than a thousandth of a core.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// Growth that may be nothing but what was freed. Looking into that takes about a millisecond.
const GROWN_MUCH_KIB: u64 = 3 << 10;
/// Growth that can wait a little.
const GROWN_KIB: u64 = 256;
/// How often it is looked into at most, with much and with little.
const TRIM_INTERVAL: Duration = Duration::from_millis(100);
const TRIM_INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// And how often when nothing speaks for it.
const TRIM_INTERVAL_ANYWAY: Duration = Duration::from_secs(5);
/// A thread that reads one small file needs no more.
const STACK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anonymous_part_is_read() {
        let status = "VmRSS:\t    5000 kB\nRssAnon:\t    1234 kB\nRssFile:\t    3766 kB\n";
        assert_eq!(anon_kib(status), Some(1234));
        for strange in ["", "RssAnon:\n", "RssAnon: many kB\n", "RssAnon: 5 MB\n"] {
            assert_eq!(anon_kib(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn memory_is_given_back_soon_after_much_came_and_later_after_little() {
        let since = Instant::now();
        let trimmed = Trimmed { kib: 1000, since };
        for (grown_kib, waited, due) in [
            (0, TRIM_INTERVAL_IDLE, false),
            (GROWN_KIB - 1, TRIM_INTERVAL_IDLE, false),
            (GROWN_KIB, TRIM_INTERVAL_IDLE, true),
            (GROWN_KIB, TRIM_INTERVAL, false),
            (GROWN_MUCH_KIB - 1, TRIM_INTERVAL, false),
            (GROWN_MUCH_KIB, TRIM_INTERVAL, true),
            (GROWN_MUCH_KIB, TRIM_INTERVAL / 2, false),
            (0, TRIM_INTERVAL_ANYWAY, true),
        ] {
            assert_eq!(
                trimmed.is_due(1000 + grown_kib, since + waited),
                due,
                "{grown_kib} KiB in {waited:?}"
            );
        }
        assert!(!trimmed.is_due(10, since + TRIM_INTERVAL_IDLE), "less than before");
    }

    #[test]
    fn what_was_freed_before_the_end_counts() {
        const BLOCK: usize = 64 << 20;
        let before = sample();
        let watch = AnonPeak::watch();
        let block = std::hint::black_box(vec![1u8; BLOCK]);
        std::thread::sleep(SAMPLE_INTERVAL * 10);
        drop(block);
        let peak = watch.kib();
        assert!(before > 0);
        assert!(peak >= (BLOCK / 1024) as u64, "{peak} KiB");
    }
}
