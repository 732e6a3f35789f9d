//! The machine that the figures come from.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What a reader has to know of a machine to make something of its figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that can be used.
    pub cores: usize,
    /// How many processes wanted to run when the benchmark began, on average over a minute.
    pub load: f64,
    /// The rest and these, each with its name, in the order in which they are read.
    pub facts: Vec<(String, String)>,
}

impl Machine {
    /// This one, with the disk that a directory lies on and the rivals that are installed.
    pub fn here(root: &Path, rivals: Vec<String>) -> Machine {
        let load_text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load_text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let cores = cores();
        let facts = [
            ("Processor", format!("{cores} cores of {}", processor())),
            ("Memory", format!("{} GiB", memory_gib())),
            ("Kernel", kernel()),
            ("File system", Mount::of(root).map_or("unknown".to_owned(), |mount| mount.described())),
            ("Disk", Mount::of(root).map_or("unknown".to_owned(), |mount| mount.disk())),
            ("Rivals", if rivals.is_empty() { "none".to_owned() } else { rivals.join("; ") }),
            ("Load when it began", format!("{load} on {cores} cores")),
            ("Began", now()),
        ];
        Machine { cores, load, facts: facts.map(|(name, fact)| (name.to_owned(), fact)).to_vec() }
    }

    /// One more.
    pub fn add(&mut self, name: &str, fact: String) {
        self.facts.push((name.to_owned(), fact));
    }
}

/// The kind of file system that a directory lies on.
pub fn file_system(root: &Path) -> String {
    Mount::of(root).map_or("unknown file system".to_owned(), |mount| mount.kind)
}

/// Whether a program can be run.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What a program calls itself.
pub fn version(program: &str) -> String {
    let said =
        Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines()
        .next()
        .map_or(format!("no {program}"), |line| line.split("  protocol").next().unwrap_or(line).to_owned())
}

/// Today and the hour, in UTC.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil((seconds / 86_400) as i64);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

/// The date of a number of days after 1970-01-01, counted in years that begin in March so that leap days come last.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * march + 2) / 5 + 1)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn processor() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned())
}

fn memory_gib() -> u64 {
    let told = field("/proc/meminfo", "MemTotal");
    told.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or_default() >> 20
}

fn kernel() -> String {
    format!("Linux {}", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim())
}

fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What a directory lies on.
struct Mount {
    kind: String,
    options: String,
    source: String,
    /// Major and minor number, as /sys names it.
    device: String,
}

impl Mount {
    fn of(root: &Path) -> Option<Mount> {
        let (root, text) = (root.canonicalize().ok()?, fs::read_to_string("/proc/self/mountinfo").ok()?);
        let read = |line: &str| {
            let (mount, system) = line.split_once(" - ")?;
            let (mount, system): (Vec<&str>, Vec<&str>) =
                (mount.split(' ').collect(), system.split(' ').collect());
            let (device, mounted, options) = (mount.get(2)?, mount.get(4)?, mount.get(5)?);
            let found = Mount {
                kind: system.first()?.to_string(),
                options: options.to_string(),
                source: system.get(1)?.to_string(),
                device: device.to_string(),
            };
            root.starts_with(mounted).then_some((mounted.len(), found))
        };
        // Of two that are mounted at one place, the later covers the earlier.
        text.lines().filter_map(read).max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
    }

    fn described(&self) -> String {
        format!("{} on {} ({})", self.kind, self.source, self.options)
    }

    /// The block device below, as the kernel knows it.
    fn disk(&self) -> String {
        let at = Path::new("/sys/dev/block").join(&self.device);
        let Ok(at) = at.canonicalize() else { return "no block device".to_owned() };
        // A partition has its disk's directory above its own.
        let whole = if at.join("partition").exists() { at.parent().unwrap_or(&at) } else { &at };
        let read = |name: &str| fs::read_to_string(whole.join(name)).ok().map(|text| text.trim().to_owned());
        let mut words = vec![whole.file_name().unwrap_or_default().to_string_lossy().into_owned()];
        words.extend(read("device/model"));
        if let Some(sectors) = read("size").and_then(|text| text.parse::<u64>().ok()) {
            words.push(format!("{} GB", sectors * 512 / 1_000_000_000));
        }
        match read("queue/rotational").as_deref() {
            Some("1") => words.push("rotating, or so it says".to_owned()),
            Some(_) => words.push("not rotating".to_owned()),
            None => {}
        }
        words.join(", ")
    }
}
