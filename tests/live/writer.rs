//! The other process: this test program again, told by its environment what to do with a database.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, params};
use swiftlet::broker::Broker;
use swiftlet::drive::HashDir;
use swiftlet::replica::RowHash;

use crate::cluster::{Passed, database, row};

/// What the other process does until it is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A connection for each row, as container servers have one for each request.
    Anew,
    /// The same, ten times a second at the most, so that there are moments when nobody has the database open.
    Seldom,
    /// One connection for all rows, reopened only if its file has lost its name.
    Holding,
    /// Appends to the pending file.
    Pending,
    /// Opens the database and reads all of it, again and again.
    Reading,
}

/// Another process at work.
pub struct Worker {
    child: Child,
    log: PathBuf,
    pub habit: Habit,
}

/// What it did.
#[derive(Debug)]
pub struct Done {
    /// The names of rows that it was told are written.
    pub acknowledged: BTreeSet<String>,
    /// The longest that one row, or one reading, took.
    pub longest: Duration,
}

impl Worker {
    /// Starts one on the database of a directory. Its rows' names begin with `name`; it ends when `stop` is there.
    pub fn start(habit: Habit, home: &HashDir, name: &str, stop: &Path) -> Worker {
        let log = stop.with_file_name(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "writer::the_other_process", "--ignored", "--nocapture"]);
        command.env("LIVE_HABIT", format!("{habit:?}")).env("LIVE_DATABASE", database(home));
        command.env("LIVE_NAME", name).env("LIVE_LOG", &log).env("LIVE_STOP", stop);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Worker { child: command.spawn().expect("it runs"), log, habit }
    }

    /// Waits for its end, which must be a good one.
    pub fn done(mut self) -> Done {
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true"));
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{:?}: {}\n{}",
            self.habit,
            text(&output.stdout),
            text(&output.stderr)
        );
        let log = fs::read_to_string(&self.log).expect("its log");
        let mut lines = log.lines().rev();
        let longest = lines.next().and_then(|line| line.strip_prefix("longest ")?.parse().ok());
        Done {
            acknowledged: lines.map(str::to_owned).collect(),
            longest: Duration::from_secs_f64(longest.expect("its last line")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other process of the tests around it"]
fn the_other_process() {
    let Ok(path) = std::env::var("LIVE_DATABASE").map(PathBuf::from) else { return };
    let set = |name: &str| std::env::var(name).expect(name);
    let (habit, name, stop) = (set("LIVE_HABIT"), set("LIVE_NAME"), PathBuf::from(set("LIVE_STOP")));
    let mut log = BufWriter::new(fs::File::create(set("LIVE_LOG")).expect("a log"));
    let home = HashDir::of_database(&path).expect("Swift's layout");
    let mut longest = Duration::ZERO;
    let mut held = None;
    for number in 0.. {
        if stop.exists() {
            break;
        }
        let object = format!("{name}-{number:07}");
        let begun = Instant::now();
        match habit.as_str() {
            "Anew" | "Seldom" => insert(&mut open(&path), &object, number),
            "Holding" => {
                let current = fs::metadata(&path).map(|file| inode(&file)).expect("it is always there");
                if held.as_ref().is_none_or(|(inode, _)| *inode != current) {
                    held = Some((current, open(&path)));
                }
                insert(&mut held.as_mut().expect("set above").1, &object, number);
            }
            "Pending" => {
                let mut broker = Broker::open(&home).expect("it is always there");
                broker.put_record(row(&object, 1000 + number)).expect("put");
            }
            "Reading" => {
                let verdict: String = open(&path)
                    .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                    .expect("it is always there, and sound");
                assert_eq!(verdict, "ok");
            }
            other => panic!("no habit: {other}"),
        }
        longest = longest.max(begun.elapsed());
        // Else SQLite's waiting, which is not fair, makes them wait for each other.
        std::thread::sleep(match habit.as_str() {
            "Seldom" => LONG_PAUSE,
            "Reading" => LONG_PAUSE / 2,
            _ => PAUSE,
        });
        if habit != "Reading" {
            writeln!(log, "{object}").expect("logged");
        }
    }
    write!(log, "longest {}", longest.as_secs_f64()).expect("logged");
    log.flush().expect("logged");
}

fn inode(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(file)
}

/// A connection as Swift's servers make it (`swift/common/db.py: get_db_connection`).
pub fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).expect("it is always there");
    connection.busy_timeout(Duration::from_secs(25)).expect("set");
    let pragmas = "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = DELETE;";
    connection.execute_batch(pragmas).expect("set");
    let chexor = |context: &rusqlite::functions::Context| {
        let text = |index| context.get::<String>(index);
        let mut hash = RowHash::parse(&text(0)?).expect("a hash");
        hash.mix(&text(1)?, &text(2)?);
        Ok(hash.to_string())
    };
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("chexor", 3, flags, chexor).expect("made");
    connection
}

/// One row in one transaction (`swift/container/backend.py: merge_items`).
pub fn insert(connection: &mut Connection, object: &str, number: u64) {
    let row = row(object, 1000 + number);
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .expect("no wait is too long");
    transaction
        .execute(
            "INSERT INTO object (name, created_at, size, content_type, etag, deleted, storage_policy_index)
                VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![row.name, row.created_at, row.size, row.content_type, row.etag, row.deleted, 0],
        )
        .expect("inserted");
    transaction.commit().expect("committed");
}

/// Ends all workers, and checks that none of them waited for too long.
pub fn finish(workers: Vec<Worker>, stop: &Path) -> BTreeSet<String> {
    fs::write(stop, "").expect("written");
    let mut acknowledged = BTreeSet::new();
    for worker in workers {
        let habit = worker.habit;
        let done = worker.done();
        println!("{habit:?}: {} rows, longest wait {:?}", done.acknowledged.len(), done.longest);
        assert!(done.longest < LONGEST_WAIT, "{habit:?} waited {:?}", done.longest);
        assert!(habit == Habit::Reading || !done.acknowledged.is_empty(), "{habit:?} wrote nothing");
        acknowledged.extend(done.acknowledged);
    }
    acknowledged
}

/// A pass beside live writers may find a database busy; it may do no worse.
#[track_caller]
pub fn at_most_busy(passed: &Passed) {
    assert!([Some(0), Some(1)].contains(&passed.code), "{}", passed.stderr);
    for bad in ["uarantin", "damaged", "panicked"] {
        assert!(!passed.stderr.contains(bad), "{}", passed.stderr);
    }
}

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(3);
/// Between two of those who come seldom, or read.
const LONG_PAUSE: Duration = Duration::from_millis(100);
/// Half of what Swift's servers wait for a database (25 s) before they fail the request. A machine with nothing else to do
/// stays far below it.
const LONGEST_WAIT: Duration = Duration::from_secs(12);
