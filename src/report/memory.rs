//! The most anonymous memory this process had.
//!
//! The kernel keeps a peak for all resident memory (`VmHWM`), which is mostly other people's page cache when databases
//! are read; for anonymous memory, the part that we answer for, it tells only the present. So a thread looks every now
//! and then while a pass runs. What lives for less than [`SAMPLE_INTERVAL`] may be missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The largest sample, in KiB.
static PEAK_KIB: AtomicU64 = AtomicU64::new(0);

/// Looks once, and returns the most seen so far in KiB; 0 where the kernel does not tell.
pub fn sample() -> u64 {
    let now =
        std::fs::read_to_string("/proc/self/status").ok().and_then(|status| anon_kib(&status)).unwrap_or(0);
    PEAK_KIB.fetch_max(now, Ordering::Relaxed).max(now)
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
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE_INTERVAL) {
                sample();
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
