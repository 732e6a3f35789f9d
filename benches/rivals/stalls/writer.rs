//! What a container server does to a replica, over and over, in a process of its own: this program again, told by its
//! environment what to do.
//!
//! Rows are due at fixed moments, and a wait is counted from the moment a row was due, not from when its turn came: else
//! one long stall would look like one slow row among many fast ones, though all that came in meanwhile had to wait.
//!
//! A row goes one of two ways, as in Swift: merged in a transaction on a connection of its own, or appended to the
//! pending file under the directory's lock. Both happen here at once, each in its own thread.

use std::env;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use swiftlet::broker::{Broker, pending};
use swiftlet::drive::HashDir;
use swiftlet::replica::{Row, RowHash};
use swiftlet::timestamp::Timestamp;

use crate::workshop;

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In a transaction.
    Commit,
    /// To the pending file.
    Append,
}

/// One row, and when it was what. Times are of the machine's monotonic clock.
#[derive(Debug, Clone)]
pub struct Put {
    /// How it was written.
    pub way: Way,
    /// Which of its way's rows it was.
    pub number: u64,
    /// When it was to be written.
    pub due: Duration,
    /// When its turn came.
    pub begun: Duration,
    /// When it was acknowledged or refused.
    pub done: Duration,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

impl Put {
    /// From the moment when it was due.
    pub fn wait(&self) -> Duration {
        self.done - self.due
    }
}

/// A process that writes to one replica until told to stop.
pub struct Writer {
    child: Child,
    /// Closed to stop it; it also closes if this program ends in whatever way.
    stop: Option<ChildStdin>,
    /// Begins the names of its rows.
    pub name: String,
}

impl Writer {
    /// Starts one on the database at `path`, with a row of each way every `period`.
    pub fn start(path: &Path, name: &str, period: Duration) -> Writer {
        let mut command = Command::new(env::current_exe().expect("a name of our own"));
        command.env(DATABASE, path).env(NAME, name).env(PERIOD, period.as_micros().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a writer");
        let stop = child.stdin.take();
        Writer { child, stop, name: name.to_owned() }
    }

    /// Lets it finish what is due, and returns all that it did.
    pub fn stop(mut self) -> Vec<Put> {
        self.stop = None;
        let mut said = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(self.child.wait().expect("a child").success(), "{}: a writer failed", self.name);
        said.lines().map(|line| parse(line).expect("a line of a writer")).collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended already, or all is lost anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of a writer's row; its place in the container's order is anywhere.
pub fn row_name(writer: &str, way: Way, number: u64) -> String {
    let scattered = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    format!("photos/{scattered:08x}/{writer}-{way:?}-{number:07}.jpg")
}

/// The machine's monotonic clock, which all processes read alike.
pub fn now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"))
}

/// Is this process a writer? Then it has been one when this returns.
pub fn ran_as_writer() -> bool {
    let Ok(path) = env::var(DATABASE).map(PathBuf::from) else { return false };
    let name = env::var(NAME).expect("a name");
    let period =
        Duration::from_micros(env::var(PERIOD).ok().and_then(|text| text.parse().ok()).expect("a period"));
    let home = HashDir::of_database(&path).expect("Swift's layout");
    let stop = AtomicU64::new(u64::MAX);
    let puts = thread::scope(|scope| {
        let name = &name;
        let commits = scope.spawn(|| keep_time(Way::Commit, period, &stop, |row| commit(&path, row), name));
        let appends = scope.spawn(|| keep_time(Way::Append, period, &stop, |row| append(&home, row), name));
        // Returns when the other end is closed.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(now().as_nanos() as u64, Ordering::Release);
        [commits.join().expect("no panic"), appends.join().expect("no panic")].concat()
    });
    let lines: String = puts.iter().map(line).collect();
    std::io::stdout().write_all(lines.as_bytes()).expect("a listener");
    true
}

fn keep_time(
    way: Way,
    period: Duration,
    stop: &AtomicU64,
    mut write: impl FnMut(Row) -> Result<(), String>,
    name: &str,
) -> Vec<Put> {
    let start = now();
    let mut puts = Vec::new();
    for number in 0.. {
        let due = start + period * number as u32;
        thread::sleep(due.saturating_sub(now()));
        if due.as_nanos() as u64 > stop.load(Ordering::Acquire) {
            break;
        }
        let begun = now();
        let refused = write(row(row_name(name, way, number))).err();
        puts.push(Put { way, number, due, begun, done: now(), refused });
    }
    puts
}

/// One row in one transaction, on a connection of its own, which is what a container server's request has
/// (`swift/container/backend.py: merge_items`).
fn commit(path: &Path, row: Row) -> Result<(), String> {
    let put = || -> rusqlite::Result<()> {
        let mut connection = connect(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let held: i64 = transaction.query_row(
            "SELECT count(*) FROM object WHERE deleted IN (0, 1) AND name = ?",
            [&row.name],
            |row| row.get(0),
        )?;
        assert_eq!(held, 0, "{} is there already", row.name);
        transaction.execute(
            "INSERT INTO object (name, created_at, size, content_type, etag, deleted, storage_policy_index)
                VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![row.name, row.created_at, row.size, row.content_type, row.etag, row.deleted, 0],
        )?;
        transaction.commit()
    };
    put().map_err(|error| error.to_string())
}

/// Appends a row to the pending file, or takes that in where it has grown long (`swift/common/db.py: put_record`).
fn append(home: &HashDir, row: Row) -> Result<(), String> {
    {
        let _lock = home.lock(PATIENCE).map_err(|error| error.to_string())?;
        let path = home.pending_path();
        let mut file =
            OpenOptions::new().append(true).create(true).open(&path).map_err(|error| error.to_string())?;
        if file.metadata().map_err(|error| error.to_string())?.len() <= PENDING_CAP_BYTES {
            return file.write_all(&pending::encode_entry(&row)).map_err(|error| error.to_string());
        }
    }
    let mut broker = Broker::open(home).map_err(|error| error.to_string())?;
    broker.put_record(row).map_err(|error| error.to_string())
}

/// A connection as Swift's servers make it (`swift/common/db.py: get_db_connection`).
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_as_swift_does))?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = DELETE;",
    )?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("chexor", 3, flags, |context| {
        let mut hash = RowHash::parse(&context.get::<String>(0)?).expect("a hash");
        hash.mix(&context.get::<String>(1)?, &context.get::<String>(2)?);
        Ok(hash.to_string())
    })?;
    Ok(connection)
}

/// `swift/common/db.py: _db_timeout`: 1 ms, then twice as long each time, up to 50 ms, for 25 s in all.
fn wait_as_swift_does(tries: i32) -> bool {
    thread::sleep(Duration::from_millis(1 << tries.min(6)).min(Duration::from_millis(50)));
    // 63 ms for the first six, 50 ms for each of the others.
    tries < 6 + 25_000 / 50
}

fn row(name: String) -> Row {
    let now = Timestamp::at(SystemTime::now()).to_string();
    workshop::photo(name, now, 4096, workshop::ETAG.to_owned())
}

fn line(put: &Put) -> String {
    let Put { way, number, due, begun, done, refused } = put;
    let [due, begun, done] = [due, begun, done].map(|time| time.as_nanos());
    let refused = refused.as_deref().unwrap_or_default().replace('\n', " ");
    format!("{way:?} {number} {due} {begun} {done} {refused}\n")
}

fn parse(line: &str) -> Option<Put> {
    let mut words = line.splitn(6, ' ');
    let way = match words.next()? {
        "Commit" => Way::Commit,
        _ => Way::Append,
    };
    let number = words.next()?.parse().ok()?;
    let mut time = || Some(Duration::from_nanos(words.next()?.parse().ok()?));
    let (due, begun, done) = (time()?, time()?, time()?);
    let refused = words.next().filter(|why| !why.is_empty()).map(str::to_owned);
    Some(Put { way, number, due, begun, done, refused })
}

const DATABASE: &str = "SWIFTLET_STALLS_DATABASE";
const NAME: &str = "SWIFTLET_STALLS_NAME";
const PERIOD: &str = "SWIFTLET_STALLS_PERIOD_US";
/// How long Swift waits for the directory's lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// `swift/common/db.py: PENDING_CAP`.
const PENDING_CAP_BYTES: u64 = 131_072;
