//! The lock held for the whole transfer, as `sqlite3_rsync` holds it: a reader's lock on the origin, an exclusive
//! transaction on the replica, from the first page to the last.
//!
//! Flattered in everything else: both files are on this machine, pages are compared in memory and written in place
//! without a journal. What is measured is the wait that such a lock means, at the disk's own speed. The replica becomes a
//! copy: what only it had is gone, by design.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Makes the replica's file the origin's; it may be missing.
///
/// # Errors
/// If a lock is not to be had, for the writers.
pub fn transfer(origin: &Path, replica: &Path) -> Result<(), String> {
    let said = |error: rusqlite::Error| error.to_string();
    // Closed only after the locks have gone: closing any descriptor of a file drops this process's locks on it.
    let source = File::open(origin).expect("the origin");
    let reader = connect(origin).map_err(said)?;
    reader.execute_batch("BEGIN; SELECT hash FROM container_info").map_err(said)?;
    let bytes = source.metadata().expect("its length").len();
    if !replica.exists() {
        fs::create_dir_all(replica.parent().expect("a directory")).expect("a directory");
        let staged = replica.with_extension("new");
        let target = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&staged);
        let target = target.expect("a new file");
        copy(&source, &target, bytes);
        fs::rename(&staged, replica).expect("the replica in its place");
        return Ok(());
    }
    let target = OpenOptions::new().read(true).write(true).open(replica).expect("the replica");
    let writer = connect(replica).map_err(said)?;
    writer.execute_batch("BEGIN EXCLUSIVE").map_err(said)?;
    copy(&source, &target, bytes);
    writer.execute_batch("COMMIT").map_err(said)?;
    drop((reader, writer));
    drop((source, target));
    Ok(())
}

/// Writes those windows that differ, and has them on the disk.
fn copy(source: &File, target: &File, bytes: u64) {
    let (mut new, mut old) = (vec![0; WINDOW_BYTES], vec![0; WINDOW_BYTES]);
    let mut offset = 0;
    while offset < bytes {
        let length = WINDOW_BYTES.min((bytes - offset) as usize);
        source.read_exact_at(&mut new[..length], offset).expect("bytes of the origin");
        let same = target.read_exact_at(&mut old[..length], offset).is_ok() && old[..length] == new[..length];
        if !same {
            target.write_all_at(&new[..length], offset).expect("room for the replica");
        }
        offset += length as u64;
    }
    target.set_len(bytes).and_then(|()| target.sync_all()).expect("the replica on disk");
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.busy_timeout(PATIENCE)?;
    Ok(db)
}

const WINDOW_BYTES: usize = 1 << 20;
/// Writers hold it for milliseconds at a time.
const PATIENCE: Duration = Duration::from_secs(60);
