//! A memory cgroup that kills what outgrows it, of either version of the kernel's controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A cgroup without swap. Gone when dropped, by when its processes must have ended.
pub struct Cage {
    dir: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cage {
    /// A cgroup of its own, below the root of the memory controller.
    pub fn new(name: &str, limit_bytes: u64) -> Cage {
        let (root, version) = controller().expect("memory.sh has looked for a memory controller");
        let cage = Cage { dir: root.join(format!("swiftlet-{name}-{}", std::process::id())), version };
        if version == Version::V2 {
            // It may be on already, and then the file may be read-only.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        fs::create_dir(&cage.dir).expect("a new cgroup");
        match version {
            Version::V1 => {
                cage.set("memory.limit_in_bytes", limit_bytes);
                cage.set("memory.swappiness", 0);
                cage.set("memory.oom_control", 0);
                // Only there where the kernel counts swap.
                if cage.dir.join("memory.memsw.limit_in_bytes").exists() {
                    cage.set("memory.memsw.limit_in_bytes", limit_bytes);
                }
            }
            Version::V2 => {
                cage.set("memory.max", limit_bytes);
                if cage.dir.join("memory.swap.max").exists() {
                    cage.set("memory.swap.max", 0);
                }
            }
        }
        cage
    }

    /// Where a process writes its id to be in here.
    pub fn door(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// The most that was charged to it at once, page cache and the kernel's own included; `None` where the kernel does
    /// not tell.
    pub fn peak_bytes(&self) -> Option<u64> {
        let file = match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    /// How many processes were killed for want of memory.
    pub fn kills(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.dir.join(file)).expect("a cgroup tells");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.expect("the kernel counts them").trim().parse().expect("a number")
    }

    fn set(&self, file: &str, value: u64) {
        fs::write(self.dir.join(file), value.to_string())
            .unwrap_or_else(|error| panic!("{file} of a cgroup: {error}"));
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // A process that was killed just now may still be on its way out.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The root of the memory controller, as the mounts tell.
fn controller() -> Option<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let of_kind = |kind: &'static str| {
        mounts.lines().filter_map(move |line| {
            let mut words = line.split(' ').skip(1);
            let (place, found, options) = (words.next()?, words.next()?, words.next()?);
            (found == kind)
                .then(|| (PathBuf::from(place), options.split(',').any(|option| option == "memory")))
        })
    };
    let v1 = of_kind("cgroup").find_map(|(root, memory)| memory.then_some((root, Version::V1)));
    let has_memory = |root: &Path| {
        fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|list| list.split_whitespace().any(|name| name == "memory"))
    };
    v1.or_else(|| of_kind("cgroup2").find_map(|(root, _)| has_memory(&root).then_some((root, Version::V2))))
}
