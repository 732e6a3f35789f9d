//! A process's anonymous memory, watched from outside.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Looks every 2 ms for as long as it lives.
pub struct Watch {
    peak_kib: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to look at a process.
    pub fn start(process: u32) -> Watch {
        let watch = Watch { peak_kib: Arc::default(), over: Arc::default() };
        let (peak_kib, over) = (watch.peak_kib.clone(), watch.over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak_kib.fetch_max(anonymous_kib(process), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        watch
    }

    /// The most it had so far.
    pub fn peak_kib(&self) -> u64 {
        self.peak_kib.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// What a process has allocated now; 0 if it is gone.
pub fn anonymous_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}
