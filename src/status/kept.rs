//! The file of what is remembered between passes: one JSON object, replaced as a whole, never synced.
//!
//! Losing it loses nothing but memories, so a damaged file, or one of another version, is told and begun anew. Anybody may
//! read it, but `agent status` is the way to: what is in it changes with its version. Times are seconds since 1970, and
//! devices go by their number in the ring.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::config::Config;
use crate::obstacle::Cause;
use crate::pass::Leg;
use crate::tally::Tally;

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// [`VERSION`].
    pub version: u32,
    /// When the file was begun.
    pub begun: f64,
    /// When it was last written.
    pub written: f64,
    /// The daemon that serves here, or did when it was killed.
    pub daemon: Option<DaemonNote>,
    /// The pass under way, or that was when its process was killed.
    pub doing: Option<Doing>,
    /// The last pass that ended, of any kind.
    pub last_pass: Option<PassNote>,
    /// The last over the whole node, by a daemon or from cron.
    pub last_whole_pass: Option<PassNote>,
    /// The last that `--once` made.
    pub last_once: Option<PassNote>,
    /// This node's devices.
    pub devices: BTreeMap<u32, DeviceNote>,
    /// The databases that are worst off, the worst first; at most [`WORST`].
    pub worst: Vec<Bad>,
    /// What all passes since the file was begun came to.
    #[serde(default)]
    pub totals: Totals,
}

/// Sums over passes. They only grow, whoever makes passes, for as long as the file is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Passes that came to their end without a failure.
    pub clean: u64,
    /// Passes that came to their end with failures.
    pub failed: u64,
    /// Passes that were told to stop, or could not be made.
    pub broken: u64,
    /// What they counted; a pass under way is in it up to when the file was last written. `elapsed` is the sum of their
    /// times, and nothing is said of single nodes.
    pub counted: Tally,
}

impl Totals {
    /// With what a pass has counted so far.
    pub fn with(&self, tally: &Tally) -> Totals {
        let mut counted = self.counted.clone();
        counted.add(&Tally { failure_nodes: BTreeMap::new(), ..tally.clone() });
        counted.elapsed += tally.elapsed;
        Totals { counted, ..self.clone() }
    }
}

/// A daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonNote {
    /// Its process.
    pub process: Process,
    /// Since when it serves.
    pub since: f64,
    /// It makes passes; else it only serves.
    pub passes: bool,
    /// The most anonymous memory that it had.
    pub peak_anon_kib: u64,
}

/// A pass under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    /// Whose it is.
    pub process: Process,
    /// When it began.
    pub began: f64,
    /// It was started with `--once`.
    pub once: bool,
    /// It is over the whole node.
    pub whole: bool,
    /// Devices that it walks, and how many it is done with.
    pub devices: u64,
    /// See there.
    pub devices_done: u64,
    /// Databases looked at so far.
    pub attempted: u64,
    /// Failures so far.
    pub failures: u64,
    /// Where each device is in its round, by name.
    pub legs: BTreeMap<String, Leg>,
    /// The database done last.
    pub database: String,
}

/// A pass that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PassNote {
    /// When it began.
    pub began: f64,
    /// How long it took, in seconds.
    pub took: f64,
    /// It was started with `--once`.
    pub once: bool,
    /// It was over the whole node and came to its end.
    pub whole: bool,
    /// It was told to stop before its end.
    pub stopped: bool,
    /// Why it could not be made.
    pub error: Option<String>,
    /// The counters of the same names ([`Tally`]).
    pub attempted: u64,
    /// See there.
    pub opened: u64,
    /// See there.
    pub success: u64,
    /// See there.
    pub failure: u64,
    /// See there.
    pub remove: u64,
    /// See there.
    pub rows_sent: u64,
    /// See there.
    pub bytes_sent: u64,
    /// See there.
    pub bytes_received: u64,
    /// The most anonymous memory that its process had.
    pub peak_anon_kib: u64,
}

impl PassNote {
    /// What a pass counted.
    pub fn of(tally: &Tally) -> PassNote {
        PassNote {
            began: tally.start,
            took: tally.elapsed,
            attempted: tally.attempted,
            opened: tally.opened,
            success: tally.success,
            failure: tally.failure,
            remove: tally.remove,
            rows_sent: tally.rows_sent,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            peak_anon_kib: tally.peak_anon_kib,
            ..PassNote::default()
        }
    }
}

/// How a device of ours fared in its last whole round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceNote {
    /// Its name.
    pub name: String,
    /// When the pass began that last walked all of it, and when it was done with it.
    pub walked: Option<f64>,
    /// See there.
    pub done: Option<f64>,
    /// All that changed before this is with every peer but those in `peers`.
    pub synced: Option<f64>,
    /// Since when every round brought everything to every peer.
    pub in_sync_since: Option<f64>,
    /// What is wrong with the device itself, or with databases on it.
    pub trouble: Option<Hindrance>,
    /// Databases in its ledger.
    pub databases: Option<u64>,
    /// Databases on it that belong elsewhere, when it was last walked.
    pub strays: Option<u64>,
    /// Peers that did not get everything.
    pub peers: BTreeMap<u32, PeerNote>,
}

/// A peer that did not get everything in the last round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerNote {
    /// What was in the way.
    pub hindered: Hindrance,
    /// Nothing could be taken to it; else single databases failed.
    pub cut_off: bool,
    /// Databases that it lacked something of at the end of the round.
    pub databases: u64,
    /// All that changed before this is with it; `None` if no round ever got that far.
    pub synced: Option<f64>,
    /// The fewest databases since it is here, when that was, and how many rounds have ended since.
    pub least: u64,
    /// See there.
    pub least_at: f64,
    /// See there.
    pub rounds_since: u32,
}

/// Something in the way, since the first of an unbroken row of rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hindrance {
    /// When that round began.
    pub since: f64,
    /// What it was in the last of them.
    pub cause: Cause,
}

/// A database that is badly off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bad {
    /// The device of ours that it is on.
    pub device: u32,
    /// Its hash.
    pub hash: String,
    /// The partition that it lies in, if that is a number.
    pub partition: Option<u32>,
    /// Account and container, where known.
    pub name: Option<(String, String)>,
    /// When the pass began in which it first failed; it failed in each since.
    pub since: f64,
    /// When it was last tried.
    pub last: f64,
    /// Passes in which it failed.
    pub attempts: u64,
    /// With whom, and why.
    pub with: Vec<BadWith>,
}

/// What went wrong between a database and one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BadWith {
    /// The peer's device; `None` if no peer has to do with it.
    pub peer: Option<u32>,
    /// Why.
    pub cause: Cause,
}

/// Why there is nothing to remember.
#[derive(Debug)]
pub enum KeptError {
    /// There is no file.
    Missing,
    /// The system does not let us read it.
    Unreadable(io::Error),
    /// It is not what an agent wrote.
    Damaged(String),
    /// An agent of another version wrote it.
    OtherVersion(u64),
}

impl fmt::Display for KeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptError::Missing => f.write_str("there is no such file yet"),
            KeptError::Unreadable(error) => error.fmt(f),
            KeptError::Damaged(cause) => write!(f, "it is damaged ({cause})"),
            KeptError::OtherVersion(version) => write!(f, "it is of version {version}, we know {VERSION}"),
        }
    }
}

impl std::error::Error for KeptError {}

impl Kept {
    /// Nothing yet.
    pub fn begin(now: f64) -> Kept {
        Kept { version: VERSION, begun: now, written: now, ..Kept::default() }
    }

    /// The file of this node, which is known by its address and port: nodes of one machine do not share it.
    pub fn path(config: &Config) -> PathBuf {
        let address = config.bind_ip.replace(['/', ':'], "_");
        config.agent.state_path.join(format!("{STEM}{address}-{}.json", config.bind_port))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn load(path: &Path) -> Result<Kept, KeptError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeptError::Missing),
            Err(error) => return Err(KeptError::Unreadable(error)),
            Ok(length) if length as u64 > FILE_LIMIT => {
                return Err(KeptError::Damaged(format!("longer than {FILE_LIMIT} bytes")));
            }
            Ok(_) => {}
        }
        #[derive(Deserialize)]
        struct Marked {
            version: u64,
        }
        let damaged = |error: serde_json::Error| KeptError::Damaged(error.to_string());
        let Marked { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version != u64::from(VERSION) {
            return Err(KeptError::OtherVersion(version));
        }
        let mut kept: Kept = serde_json::from_slice(&bytes).map_err(damaged)?;
        kept.worst.truncate(WORST);
        Ok(kept)
    }

    /// Puts it in place of the file, whole or not at all. A crash of the machine may undo it.
    ///
    /// # Errors
    /// As the system says; the file is then as it was.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let text = serde_json::to_vec(self)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(dir)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.persist(path)?;
        Ok(())
    }
}

/// Unlinks what a process that was killed left half written.
pub fn sweep(dir: &Path) {
    sweep_of(dir, UNFINISHED);
}

/// Unlinks files whose names begin like this and that nobody writes to any more.
pub fn sweep_of(dir: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > UNFINISHED_FOR) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Goes up with every change of what the file holds that another version would take for something else.
pub const VERSION: u32 = 1;
/// Databases that are remembered one by one.
pub const WORST: usize = 10;
/// What its name begins with.
const STEM: &str = "status-";
/// What the name of a file begins with that is being written.
const UNFINISHED: &str = ".status-";
/// Nobody writes one for so long.
const UNFINISHED_FOR: Duration = Duration::from_secs(60);
/// With some hundred bytes for each pair of devices that are apart, more than any ring has.
const FILE_LIMIT: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obstacle::Kind;

    /// Something in every place.
    fn full() -> Kept {
        let cause = Cause::new(Kind::PeerFull, "its drive is full");
        let hindrance = Hindrance { since: 5.5, cause: cause.clone() };
        let peer = PeerNote {
            hindered: hindrance.clone(),
            cut_off: true,
            databases: 3,
            synced: Some(4.25),
            least: 2,
            least_at: 7.0,
            rounds_since: 4,
        };
        let device = DeviceNote {
            name: "sdb1".into(),
            walked: Some(1.5),
            done: Some(1.75),
            synced: Some(1.25),
            in_sync_since: None,
            trouble: Some(hindrance),
            databases: Some(17),
            strays: Some(1),
            peers: BTreeMap::from([(12, peer)]),
        };
        let pass = PassNote { error: Some("x".into()), ..PassNote::of(&Tally::default()) };
        let process = Process::this();
        Kept {
            daemon: Some(DaemonNote { process: process.clone(), since: 1.0, passes: true, peak_anon_kib: 9 }),
            doing: Some(Doing {
                process,
                began: 8.0,
                once: true,
                whole: true,
                devices: 2,
                devices_done: 1,
                attempted: 3,
                failures: 4,
                legs: BTreeMap::from([("sdb1".into(), Leg::Settle)]),
                database: "x".into(),
            }),
            last_pass: Some(pass.clone()),
            last_whole_pass: Some(pass),
            last_once: None,
            devices: BTreeMap::from([(3, device)]),
            worst: vec![Bad {
                device: 3,
                hash: "ab".into(),
                partition: Some(9),
                name: Some(("a".into(), "c\n".into())),
                since: 1.0,
                last: 2.0,
                attempts: 3,
                with: vec![BadWith { peer: Some(12), cause }],
            }],
            ..Kept::begin(1.0)
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("status-x-1.json");
        assert!(matches!(Kept::load(&path), Err(KeptError::Missing)));
        full().save(&path).expect("saved");
        assert_eq!(Kept::load(&path).expect("readable"), full());
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o444,
            0o444,
            "all may read it"
        );
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left over");
    }

    #[test]
    fn damage_and_other_versions_are_told_apart_and_never_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("status-x-1.json");
        full().save(&path).expect("saved");
        let whole = fs::read(&path).expect("readable");
        for length in 0..whole.len() - 2 {
            fs::write(&path, &whole[..length]).expect("written");
            assert!(matches!(Kept::load(&path), Err(KeptError::Damaged(_))), "cut to {length}");
        }
        for other in
            ["{}", "[]", "null", "{\"version\": -1}", "{\"version\": 1}", "{\"version\":1e999}", "\0\0"]
        {
            fs::write(&path, other).expect("written");
            assert!(matches!(Kept::load(&path), Err(KeptError::Damaged(_))), "{other}");
        }
        fs::write(&path, "{\"version\": 2, \"strange\": true}").expect("written");
        assert!(matches!(Kept::load(&path), Err(KeptError::OtherVersion(2))));
    }

    #[test]
    fn what_was_left_half_written_goes_when_it_is_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = SystemTime::now() - 2 * UNFINISHED_FOR;
        for (name, is_old) in [(".status-a", true), (".status-b", false), ("status-c.json", true)] {
            let file = File::create(dir.path().join(name)).expect("made");
            if is_old {
                file.set_modified(old).expect("set");
            }
        }
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .expect("readable")
            .map(|entry| entry.expect("one").file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".status-b", "status-c.json"]);
    }
}
