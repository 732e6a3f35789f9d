//! The machine that the figures come from.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Processor, memory, kernel, file system and the versions of some programs, in a few lines.
pub fn description(root: &Path, programs: &[&str]) -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: u64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let versions: String = programs.iter().map(|program| format!("; {}", version(program))).collect();
    format!(
        "{cores} cores ({processor}), {} GiB, Linux {}, {}{versions}",
        memory_kib >> 20,
        kernel.trim(),
        file_system(root),
    )
}

/// Whether a program can be run.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn version(program: &str) -> String {
    let said =
        Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines()
        .next()
        .map_or(format!("no {program}"), |line| line.split("  protocol").next().unwrap_or(line).to_owned())
}

fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The kind of file system that a directory lies on.
pub fn file_system(root: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let root = root.canonicalize().unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mounted, _)| root.starts_with(mounted))
        .max_by_key(|(mounted, _)| mounted.len())
        .map_or("unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}
