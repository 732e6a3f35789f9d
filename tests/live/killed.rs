//! An agent that dies without warning, or is told to stop, while a file takes the place of a database that others write to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Container, database, rows};
use crate::crowd::{FAR, all_is_there, cluster};
use crate::writer::{Habit, Worker, at_most_busy, finish, open};

/// How far a file has come, as its drive shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// On its way, or not begun.
    Before,
    /// Something of it is in `tmp`.
    Arriving,
    /// It has the name that the old one is to have.
    StandingBy,
    /// The two have changed names, and what came in late is in the old one alone.
    Swapped,
    /// The old one is gone.
    Done,
}

impl Moment {
    fn of(path: &Path, old: u64, tmp: &Path) -> Moment {
        let left = names(tmp);
        let replaced = left.iter().any(|name| name.ends_with(".replaced"));
        match (inode(path) == old, replaced) {
            (true, false) if left.is_empty() => Moment::Before,
            (true, false) => Moment::Arriving,
            (true, true) => Moment::StandingBy,
            (false, true) => Moment::Swapped,
            (false, false) => Moment::Done,
        }
    }
}

#[test]
fn whatever_moment_an_agent_is_killed_in_no_row_is_lost() {
    let (cluster, container) = cluster();
    let stop = cluster.swift_dir().join("stop");
    let workers: Vec<Worker> = [Habit::Anew, Habit::Pending]
        .map(|habit| Worker::start(habit, &cluster.home(1, &container), &format!("{habit:?}"), &stop))
        .into();
    let wanted = [Moment::Arriving, Moment::StandingBy, Moment::Swapped, Moment::Done];
    let mut killed: BTreeMap<Moment, u32> = BTreeMap::new();
    let begun = Instant::now();
    for round in 0.. {
        let Some(next) = wanted.into_iter().find(|moment| !killed.contains_key(moment)) else { break };
        assert!(begun.elapsed() < LIMIT, "{killed:?}: never {next:?}\n{}", cluster.logs());
        *killed.entry(kill_at(next, &cluster, &container, round)).or_default() += 1;
    }
    println!("killed {killed:?}");
    let written = finish(workers, &stop);
    all_is_there(&cluster, &container, &written);
    assert_eq!(names(&cluster.device(1).join("tmp")), Vec::<String>::new());
}

/// An upgrade stops daemons at any moment: what had begun to take its place is there when they have ended, and nothing is left
/// for a later pass.
#[test]
fn a_daemon_that_is_told_to_stop_finishes_what_takes_its_place() {
    let begun = Instant::now();
    loop {
        // Anew each time: once a file has arrived, rows do for what comes after it.
        let (cluster, container) = cluster();
        let stop = cluster.swift_dir().join("stop");
        let workers: Vec<Worker> = [Habit::Anew, Habit::Pending]
            .map(|habit| Worker::start(habit, &cluster.home(1, &container), &format!("{habit:?}"), &stop))
            .into();
        let tmp = cluster.device(1).join("tmp");
        let (old, caught) = end_at(Moment::StandingBy, Signal::SIGTERM, &cluster, &container, 0);
        let reached = Moment::of(&database(&cluster.home(1, &container)), old, &tmp);
        println!("{caught:?}, then {reached:?}");
        assert_eq!(names(&tmp), Vec::<String>::new(), "{caught:?}, {reached:?}");
        cluster.start(1);
        let written = finish(workers, &stop);
        all_is_there(&cluster, &container, &written);
        if matches!(caught, Moment::StandingBy | Moment::Swapped) {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "never caught in the middle\n{}", cluster.logs());
    }
}

/// Has a whole file come to the second node, kills that as soon as so much is done, and starts it again. Returns how far it had
/// really come.
fn kill_at(wanted: Moment, cluster: &Cluster, container: &Container, round: u32) -> Moment {
    let path = database(&cluster.home(1, container));
    let tmp = cluster.device(1).join("tmp");
    let (old, _) = end_at(wanted, Signal::SIGKILL, cluster, container, round);
    let reached = Moment::of(&path, old, &tmp);
    let verdict: String =
        open(&path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a database");
    assert_eq!(verdict, "ok", "{reached:?}");
    // What is younger might be of a swap under way, or a transfer.
    for name in names(&tmp) {
        let file = File::options().write(true).open(tmp.join(name));
        file.and_then(|file| file.set_modified(SystemTime::now() - LONG_AGO)).expect("it ages");
    }
    at_most_busy(&cluster.once(1, ""));
    assert_eq!(names(&tmp), Vec::<String>::new(), "{reached:?}");
    cluster.start(1);
    reached
}

/// Has a whole file come to the second node, and ends that as soon as so much is done. Returns the inode of the file that it was
/// to replace, and how far it had come just before.
fn end_at(
    wanted: Moment,
    signal: Signal,
    cluster: &Cluster,
    container: &Container,
    round: u32,
) -> (u64, Moment) {
    let path = database(&cluster.home(1, container));
    let tmp = cluster.device(1).join("tmp");
    let far = rows(&format!("far-{round}"), 0..FAR);
    cluster.open(0, container).merge_rows(far, None).expect("merged");
    let old = inode(&path);
    let mut sender = cluster.agent(0, "--once");
    let mut sender = sender.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let caught = loop {
        let moment = Moment::of(&path, old, &tmp);
        if moment >= wanted || sender.try_wait().expect("a child").is_some() {
            break moment;
        }
        std::thread::yield_now();
    };
    cluster.end(1, signal);
    sender.wait().expect("it ends");
    (old, caught)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is always there").ino()
}

/// Longer than anything is kept in `tmp`.
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long until every moment was met.
const LIMIT: Duration = Duration::from_secs(120);
