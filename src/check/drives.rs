//! Our drives: mounted, ours to write to, with room, and whether files can be cloned on them.
//!
//! A process of its own looks at each, for one that waits for a dying disk inside the kernel cannot be ended by anybody, and
//! a process with such a thread in it does not go away. It is this program again ([`probe`]), which tells [`Facts`]; who
//! has not told them in time is left to itself.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, eaccess};
use serde::{Deserialize, Serialize};

use super::rings::Ours;
use super::{Finding, Subject};
use crate::config::{Config, Reserve};
use crate::drive::{self, DeviceName, Drive, DriveError, LiveFile};
use crate::report::text::size;

const DRIVES: Subject = Subject::Drives;

/// Which drive to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Where drives are mounted.
    devices: PathBuf,
    /// The device's name.
    name: String,
    /// Whether it must be a mount point.
    mount_check: bool,
}

/// What a drive is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Facts {
    /// Why it cannot be used at all. Nothing else is known then.
    closed: Option<Closed>,
    /// The file system's name.
    file_system: Option<String>,
    read_only: bool,
    bytes: u64,
    bytes_free: u64,
    /// 0 where the file system has as many as it likes.
    inodes: u64,
    inodes_free: u64,
    /// Directories of the drive that are on another file system than it is.
    elsewhere: Vec<PathBuf>,
    /// What the agent's user may not write to, or enter.
    denied: Vec<PathBuf>,
    /// Whether a file could be written, and cloned.
    written: Result<bool, String>,
    /// What is wrong with the ledger.
    ledger: Result<(), String>,
}

/// Why a drive cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Closed {
    NotMounted,
    NotADirectory,
    Failed(String),
}

/// Looks at all our drives at once.
pub fn check(config: &Config, ours: Option<&Ours>) -> Vec<Finding> {
    let Some(ours) = ours else {
        return vec![
            DRIVES.warning("none was looked at: the ring has to say which are ours", "mend that first"),
        ];
    };
    let begun = Instant::now();
    let probe = |name: &str| Probe {
        devices: config.devices.clone(),
        name: name.to_owned(),
        mount_check: config.mount_check,
    };
    let asked: Vec<_> =
        ours.devices.iter().map(|device| (&device.name, begin(&probe(&device.name)))).collect();
    let mut findings = Vec::new();
    for (name, answer) in asked {
        let path = config.devices.join(name);
        findings.extend(match answer {
            Ok(asking) => match asking.answer(begun + TIME_LIMIT) {
                Ok(facts) => judge(name, &path, &facts, config),
                Err(Unheard::Broken) => vec![DRIVES.error(
                    format!("{name}: who was to look at it came to a bad end"),
                    format!(
                        "look at the kernel's log for the drive below {}; it may be dying",
                        path.display()
                    ),
                )],
                Err(Unheard::Silent) => vec![DRIVES.error(
                    format!("{name} has not answered within {} s", TIME_LIMIT.as_secs()),
                    format!(
                        "look at the kernel's log for the drive below {}; it may be dying",
                        path.display()
                    ),
                )],
            },
            Err(error) => vec![DRIVES.error(
                format!("{name} could not be looked at: {error}"),
                "look at the limits of processes and memory",
            )],
        });
    }
    findings
}

/// A process that looks at a drive.
struct Asking {
    child: Child,
    told: mpsc::Receiver<String>,
}

fn begin(probe: &Probe) -> io::Result<Asking> {
    let mut child = Command::new("/proc/self/exe")
        .args(["check", "--probe", &serde_json::to_string(probe)?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take();
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("listen".into()).spawn(move || {
        let mut text = String::new();
        if let Some(output) = output {
            let _ = output.take(FACTS_LIMIT).read_to_string(&mut text);
        }
        let _ = tell.send(text);
    })?;
    Ok(Asking { child, told })
}

impl Asking {
    /// What it told by then.
    fn answer(mut self, deadline: Instant) -> Result<Facts, Unheard> {
        let text = self.told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        // Not waited for: where it hangs, it does so for longer than we.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
        let text = text.map_err(|_| Unheard::Silent)?;
        serde_json::from_str(&text).map_err(|_| Unheard::Broken)
    }
}

/// Why nothing is known of a drive.
enum Unheard {
    /// Nothing was told in time.
    Silent,
    /// What was told is nothing.
    Broken,
}

/// Looks at one drive and tells what it is like, in JSON.
pub fn probe(probe: &str) -> Option<String> {
    let probe: Probe = serde_json::from_str(probe).ok()?;
    serde_json::to_string(&look(&probe)).ok()
}

fn look(probe: &Probe) -> Facts {
    let mut facts = Facts {
        closed: None,
        file_system: None,
        read_only: false,
        bytes: 0,
        bytes_free: 0,
        inodes: 0,
        inodes_free: 0,
        elsewhere: Vec::new(),
        denied: Vec::new(),
        written: Ok(false),
        ledger: Ok(()),
    };
    let opened = match DeviceName::new(probe.name.as_str()) {
        Some(name) => Drive::open(&probe.devices, &name, probe.mount_check),
        None => Err(DriveError::NotADirectory { path: probe.devices.join(&probe.name) }),
    };
    let drive = match opened {
        Ok(drive) => drive,
        Err(error) => {
            facts.closed = Some(match error {
                DriveError::NotMounted { .. } => Closed::NotMounted,
                DriveError::NotADirectory { .. } => Closed::NotADirectory,
                error => Closed::Failed(error.to_string()),
            });
            return facts;
        }
    };
    match statvfs(drive.root()) {
        Ok(space) => {
            let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
            (facts.bytes, facts.bytes_free) = (bytes(space.blocks()), bytes(space.blocks_available()));
            (facts.inodes, facts.inodes_free) = (space.files(), space.files_available());
            facts.read_only = space.flags().contains(FsFlags::ST_RDONLY);
        }
        Err(errno) => facts.closed = Some(Closed::Failed(errno.to_string())),
    }
    facts.file_system = fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .zip(drive.root().canonicalize().ok())
        .and_then(|(mounts, root)| file_system_of(&mounts, &root));
    let directories = [drive.containers(), drive.tmp()];
    let home = fs::metadata(drive.root()).map(|root| root.dev()).ok();
    for directory in &directories {
        if fs::metadata(directory).is_ok_and(|there| Some(there.dev()) != home) {
            facts.elsewhere.push(directory.clone());
        }
    }
    let ledger = drive.root().join("agent");
    let deeper = first_partition(&drive.containers());
    for directory in
        [drive.root().to_owned()].iter().chain(&directories).chain([&ledger]).chain(deeper.as_ref())
    {
        match eaccess(directory, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
            // What is not there yet is made below the drive's root.
            Ok(()) | Err(Errno::ENOENT | Errno::EROFS) => {}
            Err(_) => facts.denied.push(directory.clone()),
        }
    }
    let tmp = drive.tmp();
    facts.written =
        write_and_clone(if tmp.is_dir() { &tmp } else { drive.root() }).map_err(|error| error.to_string());
    facts.ledger = look_at_ledger(&ledger.join("ledger.db"));
    facts
}

/// A partition's directory, which tells whether who filled the drive was the agent's user.
fn first_partition(containers: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(containers).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| path.is_dir())
}

/// Writes a file that has no name, and clones it; tells whether that can be done.
fn write_and_clone(directory: &Path) -> io::Result<bool> {
    let mut original = tempfile::tempfile_in(directory)?;
    original.write_all(&[7; PROBE_BYTES])?;
    original.sync_all()?;
    let copy: File = tempfile::tempfile_in(directory)?;
    match drive::clone_blocks(&original, &copy) {
        Ok(()) => Ok(true),
        Err(error) if drive::cannot_clone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a ledger, if there is one, is a whole database.
fn look_at_ledger(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let file = match LiveFile::open_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let bytes = file.metadata().map_err(failed)?.len();
    match file.header().map_err(failed)? {
        _ if bytes == 0 => Ok(()),
        None => Err("it is no database".to_owned()),
        Some(header) if bytes < header.size_pages.saturating_mul(header.page_bytes.into()) => {
            Err("it is cut short".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// The type of the file system that a path is on, by what `/proc/self/mountinfo` says: that of the deepest mount point.
fn file_system_of(mounts: &str, path: &Path) -> Option<String> {
    let mut deepest: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let point = unescaped(left.split(' ').nth(4)?);
        let depth = Path::new(&point).components().count();
        // Of two mounts on one point the later one is on top.
        if path.starts_with(&point) && deepest.is_none_or(|(deepest, _)| depth >= deepest) {
            deepest = Some((depth, right.split(' ').next()?));
        }
    }
    deepest.map(|(_, name)| name.to_owned())
}

/// Blanks and the like are written in octal there.
fn unescaped(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(point.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// What is to be said of a drive: one line if all is well with it, else one for each thing.
fn judge(name: &str, path: &Path, facts: &Facts, config: &Config) -> Vec<Finding> {
    let (path, user) = (path.display(), &config.user);
    match &facts.closed {
        Some(Closed::NotMounted) => {
            let remedy = format!("mount it at {path}, or set its weight to 0 in the ring until it is back");
            return vec![DRIVES.error(format!("{name} is not mounted"), remedy)];
        }
        Some(Closed::NotADirectory) => {
            let what = format!("{name}: there is no directory {path}");
            return vec![
                DRIVES.error(what, "check `devices`, and that the drive has the name that the ring gives it"),
            ];
        }
        Some(Closed::Failed(error)) => {
            return vec![
                DRIVES.error(format!("{name}: {error}"), "look at the kernel's log; the drive may be dying"),
            ];
        }
        None => {}
    }
    let mut findings = Vec::new();
    if facts.read_only {
        let remedy =
            "look at the kernel's log: after errors, file systems make themselves so; then repair it";
        findings.push(DRIVES.error(format!("{name} is mounted read-only"), remedy));
    } else if !facts.denied.is_empty() {
        for denied in &facts.denied {
            let what = format!("{}: {user} may not read, write and enter it", denied.display());
            findings.push(DRIVES.error(what, format!("chown -R {user}: {}", denied.display())));
        }
    } else if let Err(error) = &facts.written {
        let remedy = "look at the kernel's log, and at quotas";
        findings.push(DRIVES.error(format!("{name}: a file could not be written: {error}"), remedy));
    }
    for elsewhere in &facts.elsewhere {
        let what = format!("{} is on another file system than {path}", elsewhere.display());
        let remedy =
            "unmount it: databases move from tmp into their places, and that only works on one file system";
        findings.push(DRIVES.error(what, remedy));
    }
    findings.extend(judge_room(name, facts, config.fallocate_reserve));
    if let Err(error) = &facts.ledger {
        let what = format!("{name}: its ledger cannot be used: {error}");
        let remedy = format!(
            "nothing is lost, it is begun anew and the next pass looks into everything; if this stays so, remove \
             {path}/agent"
        );
        findings.push(DRIVES.warning(what, remedy));
    }
    if findings.is_empty() {
        let file_system = facts.file_system.as_deref().unwrap_or("an unknown file system");
        let clones = match facts.written {
            Ok(true) => "with reflinks",
            _ => "without reflinks",
        };
        let (free, all) = (size(facts.bytes_free), size(facts.bytes));
        findings.push(DRIVES.ok(format!("{name}: {file_system} {clones}, {free} of {all} free")));
    }
    findings
}

/// Whether there is room, and for how much longer.
fn judge_room(name: &str, facts: &Facts, reserve: Reserve) -> Option<Finding> {
    let (reserve_bytes, reserve_percent, kept) = match reserve {
        Reserve::Bytes(bytes) => (bytes, 0.0, size(bytes)),
        Reserve::Percent(percent) => (0, percent, format!("{percent} %")),
    };
    let fits = |left: u64| drive::is_above_reserve(left, facts.bytes, reserve_bytes, reserve_percent);
    let room = format!("{} of {} free", size(facts.bytes_free), size(facts.bytes));
    let remedy = "add devices or raise the weight of others, lower that of this one, and rebalance";
    if facts.bytes_free == 0 || !fits(facts.bytes_free) {
        let what =
            format!("{name} is full: {room}, and fallocate_reserve keeps {kept}; it takes no database in");
        return Some(DRIVES.error(what, remedy));
    }
    if facts.inodes > 0 && facts.inodes_free == 0 {
        return Some(DRIVES.error(format!("{name} has no inode left; it takes no database in"), remedy));
    }
    if !facts.bytes_free.checked_sub(facts.bytes / 20).is_some_and(fits) {
        let what = format!("{name} is nearly full: {room}, and fallocate_reserve keeps {kept}");
        return Some(DRIVES.warning(what, remedy));
    }
    if facts.inodes > 0 && facts.inodes_free < facts.inodes / 20 {
        let what = format!("{name} has {} of {} inodes left", facts.inodes_free, facts.inodes);
        return Some(DRIVES.warning(what, remedy));
    }
    None
}

/// What all of them may take together.
const TIME_LIMIT: Duration = Duration::from_secs(4);
/// Facts have a few hundred bytes, and paths.
const FACTS_LIMIT: u64 = 64 << 10;
/// A block, so that there is something to clone.
const PROBE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn fine() -> Facts {
        Facts {
            closed: None,
            file_system: Some("xfs".into()),
            read_only: false,
            bytes: 100 << 30,
            bytes_free: 50 << 30,
            inodes: 1000,
            inodes_free: 900,
            elsewhere: vec![],
            denied: vec![],
            written: Ok(true),
            ledger: Ok(()),
        }
    }

    fn said(change: impl Fn(&mut Facts)) -> Vec<(Verdict, String)> {
        let mut facts = fine();
        change(&mut facts);
        let swift = b"[swift-hash]\nswift_hash_path_suffix = s\n";
        let config = Config::from_text("[container-replicator]\nuser = me\n", swift).expect("a conf");
        let findings = judge("sdb1", Path::new("/srv/node/sdb1"), &facts, &config);
        assert!(findings.iter().all(|f| f.remedy.is_some() == (f.verdict != Verdict::Ok)));
        findings.into_iter().map(|f| (f.verdict, f.what)).collect()
    }

    #[test]
    fn a_drive_in_order_is_one_line() {
        let ok = |what: &str| vec![(Verdict::Ok, what.to_owned())];
        assert_eq!(said(|_| {}), ok("sdb1: xfs with reflinks, 50.0 GiB of 100 GiB free"));
        let plain = said(|facts| {
            facts.file_system = None;
            facts.written = Ok(false);
        });
        assert_eq!(plain, ok("sdb1: an unknown file system without reflinks, 50.0 GiB of 100 GiB free"));
        assert_eq!(said(|facts| (facts.inodes, facts.inodes_free) = (0, 0))[0].0, Verdict::Ok);
    }

    #[test]
    fn what_keeps_the_agent_from_working_is_an_error() {
        type Change<'a> = (&'a str, &'a dyn Fn(&mut Facts));
        let table: [Change; 8] = [
            ("sdb1 is not mounted", &|facts| facts.closed = Some(Closed::NotMounted)),
            ("there is no directory", &|facts| facts.closed = Some(Closed::NotADirectory)),
            ("Input/output", &|facts| facts.closed = Some(Closed::Failed("Input/output error".into()))),
            ("mounted read-only", &|facts| facts.read_only = true),
            ("/x: me may not", &|facts| facts.denied.push("/x".into())),
            ("could not be written: quota", &|facts| facts.written = Err("quota".into())),
            ("/t is on another file system than /srv/node/sdb1", &|facts| facts.elsewhere.push("/t".into())),
            ("no inode left", &|facts| facts.inodes_free = 0),
        ];
        for (part, change) in table {
            let said = said(change);
            assert_eq!((said.len(), said[0].0), (1, Verdict::Error), "{said:?}");
            assert!(said[0].1.contains(part), "{said:?}");
        }
        let spoilt = said(|facts| facts.ledger = Err("it is cut short".into()));
        assert_eq!(
            spoilt,
            [(Verdict::Warning, "sdb1: its ledger cannot be used: it is cut short".to_owned())]
        );
    }

    #[test]
    fn room_is_judged_up_to_the_boundary() {
        let verdict = |reserve: Reserve, free: u64, inodes_free: u64| {
            let facts = Facts { bytes: 1000, bytes_free: free, inodes: 1000, inodes_free, ..fine() };
            judge_room("sdb1", &facts, reserve).map(|finding| finding.verdict)
        };
        use Verdict::{Error, Warning};
        for (reserve, free, expected) in [
            (Reserve::Percent(1.0), 1000, None),
            (Reserve::Percent(1.0), 61, None),
            (Reserve::Percent(1.0), 60, Some(Warning)),
            (Reserve::Percent(1.0), 11, Some(Warning)),
            (Reserve::Percent(1.0), 10, Some(Error)),
            (Reserve::Bytes(200), 251, None),
            (Reserve::Bytes(200), 250, Some(Warning)),
            (Reserve::Bytes(200), 200, Some(Error)),
            (Reserve::Bytes(0), 50, None),
            (Reserve::Bytes(0), 49, Some(Warning)),
            (Reserve::Bytes(0), 0, Some(Error)),
        ] {
            assert_eq!(verdict(reserve, free, 900), expected, "{reserve:?} {free}");
        }
        for (inodes_free, expected) in [(50, None), (49, Some(Warning)), (1, Some(Warning)), (0, Some(Error))]
        {
            assert_eq!(verdict(Reserve::Percent(1.0), 1000, inodes_free), expected, "{inodes_free} inodes");
        }
    }

    #[test]
    fn the_deepest_mount_tells_the_file_system() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      23 22 8:2 / /srv/node/sdb1 rw,noatime shared:1 - xfs /dev/sdb1 rw\n\
                      24 22 8:3 / /srv/no\\040de rw - btrfs /dev/sdc rw\n\
                      25 23 8:4 / /srv/node/sdb1 rw - zfs pool rw\n";
        for (path, name) in [
            ("/srv/node/sdb1/containers", "zfs"),
            ("/srv/node/sdb12", "ext4"),
            ("/srv/no de/x", "btrfs"),
            ("/", "ext4"),
        ] {
            assert_eq!(file_system_of(mounts, Path::new(path)).as_deref(), Some(name), "{path}");
        }
        assert_eq!(file_system_of("", Path::new("/")), None);
        assert_eq!(file_system_of("nonsense\n", Path::new("/")), None);
    }

    #[test]
    fn a_look_leaves_nothing_behind() {
        let devices = tempfile::tempdir().expect("a directory");
        let probe = |name: &str, mount_check| {
            let told = probe(
                &serde_json::to_string(&Probe {
                    devices: devices.path().to_owned(),
                    name: name.to_owned(),
                    mount_check,
                })
                .expect("JSON"),
            );
            serde_json::from_str::<Facts>(&told.expect("facts")).expect("facts")
        };
        let root = devices.path().join("d0");
        fs::create_dir_all(root.join("containers")).expect("made");
        fs::create_dir(root.join("tmp")).expect("made");
        let facts = probe("d0", false);
        assert_eq!((&facts.closed, &facts.denied, &facts.elsewhere), (&None, &vec![], &vec![]));
        assert!(facts.written.is_ok() && facts.ledger.is_ok() && facts.bytes > 0, "{facts:?}");
        let names: Vec<_> = fs::read_dir(&root).expect("readable").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read_dir(root.join("tmp")).expect("readable").count(), 0);

        assert_eq!(probe("d0", true).closed, Some(Closed::NotMounted));
        assert_eq!(probe("d1", false).closed, Some(Closed::NotADirectory));
        assert_eq!(probe("..", false).closed, Some(Closed::NotADirectory));
        fs::create_dir(root.join("agent")).expect("made");
        for (text, is_well) in [(&b""[..], true), (b"no database", false), (&[b'x'; 200], false)] {
            fs::write(root.join("agent/ledger.db"), text).expect("written");
            assert_eq!(probe("d0", false).ledger.is_ok(), is_well, "{text:?}");
        }
    }
}
