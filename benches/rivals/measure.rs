//! A process watched from outside: how long it ran, how much memory it and its children ever had.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

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

    /// Both together.
    pub fn and(self, other: Memory) -> Memory {
        Memory {
            anonymous_kib: self.anonymous_kib + other.anonymous_kib,
            resident_kib: self.resident_kib + other.resident_kib,
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
        children(process).into_iter().map(Memory::of).fold(memory, Memory::and)
    }
}

/// Processor time that a process has used so far, with the children that it waited for and those that still run.
pub fn processor_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold anything; what follows it is numbers.
    let words: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = words.iter().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum();
    children(process).into_iter().map(processor_seconds).sum::<f64>() + ticks as f64 / TICKS_PER_SECOND
}

fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Of all children that were waited for.
fn processor_seconds_of_ended() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what children used");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}

/// What one run of one contender took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// From the start of the sending process to its end.
    pub seconds: f64,
    /// What it says itself that its pass took, without what comes before and after in the life of a process.
    pub pass_seconds: Option<f64>,
    /// Of the processors, by the sending side and the receiving side, user and system.
    pub processor_seconds: f64,
    /// Frames over the link in both directions, headers included, where the link is ours alone.
    pub wire_bytes: Option<u64>,
    /// What the contender itself says, or a relay saw, that it sent and received.
    pub payload_bytes: Option<u64>,
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
    /// Processor time of it and of the servers.
    pub processor_seconds: f64,
    /// Of it and its children.
    pub memory: Memory,
    /// Of the servers, if there are any, meanwhile.
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
    watch_beside(command, server.as_slice())
}

/// The same, with any number of servers that it talks to.
pub fn watch_beside(command: &mut Command, servers: &[&Child]) -> Finished {
    let own = std::env::current_exe().expect("a name of our own");
    let by_servers = || servers.iter().map(|server| processor_seconds(server.id())).sum::<f64>();
    let used_before = processor_seconds_of_ended() + by_servers();
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a program to start");
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| String::from_utf8_lossy(&output).into_owned())
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
        below = below
            .or(servers.iter().map(|server| Memory::of(server.id())).fold(Memory::default(), Memory::and));
        thread::sleep(SAMPLE_EVERY);
    };
    let output = reader.join().expect("a reader").expect("text");
    let processor_seconds = processor_seconds_of_ended() + by_servers() - used_before;
    Finished { status, seconds, processor_seconds, memory, server: below, output }
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

/// Of `/proc/PID/stat`; Linux counts in hundredths for every program, whatever it does inside.
const TICKS_PER_SECOND: f64 = 100.0;
