//! What the tests of this folder share: a container's database that real SQLite writes, in this process and in another.
//!
//! The other process is this test binary again, told to run one ignored test.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::{DeviceName, Drive, HashDir, LiveFile};
use crate::hash_path::Partition;

/// A drive in a temporary directory.
pub struct Bench {
    _devices: tempfile::TempDir,
    pub drive: Arc<Drive>,
}

pub fn bench() -> Bench {
    let devices = tempfile::tempdir().unwrap();
    std::fs::create_dir(devices.path().join("d0")).unwrap();
    let drive = Drive::open(devices.path(), &DeviceName::new("d0").unwrap(), false).unwrap();
    Bench { _devices: devices, drive: Arc::new(drive) }
}

impl Bench {
    pub fn hash_dir(&self) -> HashDir {
        self.drive.hash_dir(Partition(5), "21f0ff3587d6ff7c47a3516c8a4cd432".parse().unwrap())
    }

    pub fn database_path(&self) -> PathBuf {
        self.hash_dir().dir().join(format!("{}.db", self.hash_dir().hash()))
    }

    /// The path of a database with one row, closed again.
    pub fn database(&self) -> PathBuf {
        self.hash_dir().create().unwrap();
        fill(&self.database_path());
        self.database_path()
    }
}

/// Makes a table with one row.
pub fn fill(path: &Path) {
    sqlite(path)
        .execute_batch("CREATE TABLE object (n INTEGER, filler BLOB); INSERT INTO object VALUES (0, '')")
        .unwrap();
}

/// A connection that never waits.
pub fn sqlite(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

pub fn rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM object", [], |row| row.get(0)).unwrap()
}

/// Runs SQL in another process: false if SQLite was busy.
pub fn elsewhere(path: &Path, sql: &str) -> bool {
    let status = other(path, sql, "once").spawn().unwrap().wait().unwrap();
    assert!([Some(0), Some(BUSY)].contains(&status.code()), "{status}");
    status.success()
}

pub const INSERT: &str = "INSERT INTO object VALUES (1, '')";
pub const SELECT: &str = "SELECT count(*) FROM object";

/// A transaction so large that some of it is in the file before it is committed.
pub const SPILL: &str = "PRAGMA cache_size = 5; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
    WHERE i < 500) INSERT INTO object SELECT i, randomblob(1000) FROM n";

/// Waits until nobody else has a file open. A test beside this one may be starting its other process, which for a
/// moment has everything open that we have.
pub fn alone(live: &LiveFile) -> bool {
    for _ in 0..500 {
        if !live.open_elsewhere() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Another process that has run some SQL and keeps its connection until it is dropped; then it ends like one that was
/// killed.
pub struct Holder {
    child: Child,
    /// Kept open: a test that runs for a minute says so, and must not fail for it.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    pub fn start(path: &Path, sql: &str) -> Holder {
        Holder::spawn(path, sql, "hold")
    }

    /// Runs the SQL again and again.
    pub fn repeat(path: &Path, sql: &str) -> Holder {
        Holder::spawn(path, sql, "repeat")
    }

    fn spawn(path: &Path, sql: &str, mode: &str) -> Holder {
        let mut child = other(path, sql, mode).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains(READY));
        assert!(ready, "the other process failed");
        Holder { child, _lines: lines }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn other(path: &Path, sql: &str, mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "drive::testing::the_other_process", "--ignored", "--nocapture"]);
    command.env("SWIFTLET_TEST_DATABASE", path).env("SWIFTLET_TEST_SQL", sql).env("SWIFTLET_TEST_MODE", mode);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
#[ignore = "the other process of the tests around it"]
fn the_other_process() {
    let Some(path) = std::env::var_os("SWIFTLET_TEST_DATABASE") else { return };
    let sql = std::env::var("SWIFTLET_TEST_SQL").unwrap();
    let mode = std::env::var("SWIFTLET_TEST_MODE").unwrap();
    let connection = sqlite(Path::new(&path));
    if mode == "repeat" {
        connection.busy_timeout(Duration::from_secs(25)).unwrap();
    }
    if let Err(e) = connection.execute_batch(&sql) {
        assert_eq!(e.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{e}");
        std::process::exit(BUSY);
    }
    println!("{READY}");
    std::io::stdout().flush().unwrap();
    match mode.as_str() {
        "repeat" => loop {
            connection.execute_batch(&sql).unwrap();
            // Without a pause SQLite's own readers hardly ever come in between.
            std::thread::sleep(Duration::from_millis(5));
        },
        "hold" => loop {
            std::thread::park();
        },
        _ => (),
    }
}

const BUSY: i32 = 75;
const READY: &str = "the other process is ready";
