//! What the kernel keeps of files in memory, dropped where that is asked for and allowed.

use std::fs;
use std::io;

/// Whether databases are read from memory, where writing them left them, or from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    /// As writing left them.
    Warm,
    /// Emptied before each run.
    Cold,
}

impl Caches {
    /// Cold if that is wanted and allowed; else says why not.
    pub fn prepare(wanted_cold: bool) -> (Caches, Option<String>) {
        if !wanted_cold {
            return (Caches::Warm, None);
        }
        match drop_all() {
            Ok(()) => (Caches::Cold, None),
            Err(error) => (Caches::Warm, Some(format!("{DROP}: {error}"))),
        }
    }

    /// Right before the clock starts.
    pub fn settle(self) {
        if self == Caches::Cold {
            drop_all().expect("caches that could be dropped before");
        }
    }
}

fn drop_all() -> io::Result<()> {
    // Only what is on the disk already can be dropped.
    nix::unistd::sync();
    fs::write(DROP, "3")
}

const DROP: &str = "/proc/sys/vm/drop_caches";
