//! A process watched from outside: how long it ran, how much memory it and its children ever had.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Memory is sampled this often; the resident figure is the kernel's own high-water mark and needs no luck.
const SAMPLE_EVERY: Duration = Duration::from_millis(2);

/// The most memory that a process and its children had, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// What they allocated, at the greatest moment that was seen.
    pub anonymous_kib: u64,
    /// With the pages of files that they had mapped.
    pub resident_kib: u64,
}

impl Memory {
    /// The greater of each.
    pub fn or(self, other: Memory) -> Memory {
        Memory {
            anonymous_kib: self.anonymous_kib.max(other.anonymous_kib),
            resident_kib: self.resident_kib.max(other.resident_kib),
        }
    }

    /// Of a process and all below it, now. Several processes at work at once add up.
    pub fn of(process: u32) -> Memory {
        let mut memory = Memory::default();
        if let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) {
            let kib = |key| {
                let line: Option<&str> = status.lines().find(|line| line.starts_with(key));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
            };
            memory = Memory { anonymous_kib: kib("RssAnon:"), resident_kib: kib("VmHWM:") };
        }
        let children =
            fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let below = Memory::of(child);
            memory.anonymous_kib += below.anonymous_kib;
            memory.resident_kib += below.resident_kib;
        }
        memory
    }
}

/// What one run of one contender took.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Measured {
    /// From the start of the sending process to its end.
    pub seconds: f64,
    /// Over the link, both directions.
    pub wire_bytes: u64,
    /// Of the sending side.
    pub sender: Memory,
    /// Of the receiving side.
    pub receiver: Memory,
    /// Which way it chose, where it had a choice.
    pub way: String,
}

/// A process that ended.
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// From start to end.
    pub seconds: f64,
    /// Of it and its children.
    pub memory: Memory,
    /// Of `server`, if there is one, meanwhile.
    pub server: Memory,
    /// What it printed.
    pub output: String,
}

/// Runs a command to its end, watching it and the server that it talks to. Whatever fails ends the benchmark.
pub fn run(command: &mut Command, server: Option<&Child>) -> Finished {
    let finished = watch(command, server);
    assert!(finished.status.success(), "{command:?} ended with {}: {}", finished.status, finished.output);
    finished
}

/// Runs a command to its end, good or bad.
pub fn watch(command: &mut Command, server: Option<&Child>) -> Finished {
    let own = std::env::current_exe().expect("a name of our own");
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a program to start");
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).map(|_| output)
    });
    let (mut memory, mut below) = (Memory::default(), Memory::default());
    let (status, seconds) = loop {
        if let Some(status) = child.try_wait().expect("a child to wait for") {
            break (status, started.elapsed().as_secs_f64());
        }
        // Between fork and exec the child still has our own memory.
        if fs::read_link(format!("/proc/{}/exe", child.id())).is_ok_and(|program| program != own) {
            memory = memory.or(Memory::of(child.id()));
        }
        below = below.or(server.map_or(Memory::default(), |server| Memory::of(server.id())));
        thread::sleep(SAMPLE_EVERY);
    };
    let output = reader.join().expect("a reader").expect("text");
    Finished { status, seconds, memory, server: below, output }
}

/// A server for the time of one run, ended with it.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
