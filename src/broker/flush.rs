//! The pending file beside a database: taken in, and appended to.
//!
//! A container server acknowledges an object's row once it stands in `<hash>.db.pending`; the database follows when
//! somebody looks. So a look that matters flushes first, and a pending file is emptied only after its rows are committed to
//! the file that is in charge at that moment. Every daemon appends under the directory's lock, and Swift keeps it while rows
//! are merged, so that whoever has a row to acknowledge waits for the disk, and for SQLite's lock, because somebody else
//! looks. We keep it to read the file and, once its rows are merged, to empty it if no more came in. Rows that stay are
//! merged again by whoever looks next, which changes nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use log::warn;

use super::pending;
use super::{Broker, BrokerError};
use crate::drive::{DirLock, HashDir};
use crate::replica::Row;

impl Broker {
    /// Takes in the rows that container servers left in the pending file
    /// (`swift/common/db.py: _commit_puts_stale_ok`). A private file has none.
    ///
    /// # Errors
    /// `Busy` if the directory's lock was not to be had, `Missing` if the container is gone; otherwise as
    /// [`Broker::merge_rows`]. After any error the pending file is as it was.
    pub fn flush_pending(&mut self) -> Result<(), BrokerError> {
        let Some(home) = self.home.clone() else { return Ok(()) };
        let path = home.pending_path();
        // Without the lock: who appends after this look is after our moment anyhow.
        if pending_bytes(&path)? == 0 {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            if self.take_in_beside_others(&home)? {
                return Ok(());
            }
        }
        let _lock = self.lock(&home)?;
        self.take_in(&home, Vec::new())
    }

    /// Takes in what the pending file holds now, while others append to it. False if that was not to be done: the file is
    /// long, or another database took the place of ours meanwhile.
    fn take_in_beside_others(&mut self, home: &HashDir) -> Result<bool, BrokerError> {
        let path = home.pending_path();
        let failed = |error| BrokerError::io(&path, &error);
        let lock = self.lock(home)?;
        self.follow(home)?;
        let records = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            file => read_at_most(&mut file.map_err(failed)?, BATCH_BYTES).map_err(failed)?,
        };
        drop(lock);
        let Some(records) = records else { return Ok(false) };
        match self.merge_in_steps(decoded(&records, &path)) {
            // What went into a file that was replaced is taken from there by whoever replaced it, and is still here.
            Err(_) if !self.db.is_current() => return Ok(false),
            merged => merged?,
        }
        let _lock = self.lock(home)?;
        if !self.is_in_charge(home)? {
            return Ok(false);
        }
        empty(&path, &records).map_err(failed).map(|()| true)
    }

    /// The directory's lock; a container that was removed is not made anew.
    fn lock(&self, home: &HashDir) -> Result<DirLock, BrokerError> {
        home.lock_if_there(self.patience.directory)?.ok_or(BrokerError::Missing)
    }

    /// Merges rows a few at a time, so that others can write in between.
    fn merge_in_steps(&mut self, mut rows: Vec<Row>) -> Result<(), BrokerError> {
        while rows.len() > ROWS_AT_ONCE {
            let later = rows.split_off(ROWS_AT_ONCE);
            self.merge_rows(rows, None)?;
            self.give_way()?;
            rows = later;
        }
        self.merge_rows(rows, None).map(drop)
    }

    /// Opens the file that is in charge, if another one was when ours was opened: it has been replaced, or has begun to be
    /// sharded. The caller holds the directory's lock.
    fn follow(&mut self, home: &HashDir) -> Result<(), BrokerError> {
        if self.is_in_charge(home)? { Ok(()) } else { self.reopen() }
    }

    fn is_in_charge(&self, home: &HashDir) -> Result<bool, BrokerError> {
        let in_charge = home.db_files().map_err(|e| BrokerError::io(home.dir(), &e))?.pop();
        Ok(self.db.is_current() && in_charge.as_deref() == Some(self.path()))
    }

    /// Appends a row to the pending file, or, where that has grown long, merges all at once, as a container server does
    /// for each object put or deleted (`swift/common/db.py: put_record`).
    ///
    /// # Errors
    /// `Missing` if the database is gone, `BadData` for a private file; otherwise as [`Broker::flush_pending`].
    pub fn put_record(&mut self, row: Row) -> Result<(), BrokerError> {
        let Some(home) = self.home.clone() else {
            let cause = "a private file has no pending file".to_owned();
            return Err(BrokerError::BadData { path: self.path().to_owned(), cause });
        };
        let _lock = self.lock(&home)?;
        if !self.db.is_current() {
            self.reopen()?;
        }
        let path = home.pending_path();
        if pending_bytes(&path)? > PENDING_LIMIT_BYTES {
            return self.take_in(&home, vec![row]);
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|e| BrokerError::io(&path, &e))?;
        file.write_all(&pending::encode_entry(&row)).map_err(|e| BrokerError::io(&path, &e))
    }

    /// Merges `rows` and those of the pending file, then empties it. The caller holds the lock.
    fn take_in(&mut self, home: &HashDir, mut rows: Vec<Row>) -> Result<(), BrokerError> {
        self.follow(home)?;
        let path = home.pending_path();
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| BrokerError::io(&path, &e))?;
        let mut unread = Vec::new();
        loop {
            let more = read_more(&mut file, &mut unread).map_err(|e| BrokerError::io(&path, &e))?;
            // All but the last record, which may go on in what is still to be read.
            let whole =
                if more { unread.iter().rposition(|&byte| byte == b':').unwrap_or(0) } else { unread.len() };
            rows.append(&mut decoded(&unread[..whole], &path));
            unread.drain(..whole);
            if unread.len() > BATCH_BYTES {
                warn!("{}: {} bytes without a record are left out", path.display(), unread.len());
                unread.clear();
            }
            self.merge_rows(std::mem::take(&mut rows), None)?;
            if !more {
                return file.set_len(0).map_err(|e| BrokerError::io(&path, &e));
            }
        }
    }
}

/// The rows of whole records; those that cannot be read are told of and left out.
fn decoded(records: &[u8], path: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in pending::split(records) {
        match pending::decode_entry(entry) {
            Ok(row) => rows.push(row),
            Err(bad) => warn!("{}: a record cannot be read and is left out: {bad}", path.display()),
        }
    }
    rows
}

/// A file from where it is read to its end; `None` if that is further than `limit`.
fn read_at_most(file: &mut File, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// Empties a pending file that holds nothing but these records, whose rows are in the database. Another one stays: more came
/// in, or somebody else took them in. The caller holds the directory's lock.
fn empty(path: &Path, taken_in: &[u8]) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    match read_at_most(&mut file, taken_in.len())? {
        Some(all) if all == taken_in => file.set_len(0),
        _ => Ok(()),
    }
}

/// Appends up to [`BATCH_BYTES`] to `unread`; false at the end of the file.
fn read_more(file: &mut File, unread: &mut Vec<u8>) -> io::Result<bool> {
    let read = file.take(BATCH_BYTES as u64).read_to_end(unread)?;
    Ok(read == BATCH_BYTES)
}

/// How long the pending file is; 0 if there is none.
fn pending_bytes(path: &Path) -> Result<u64, BrokerError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(BrokerError::io(path, &error)),
    }
}

/// A longer pending file is taken in by who would append to it (`swift/common/db.py: PENDING_CAP`).
const PENDING_LIMIT_BYTES: u64 = 131_072;

/// How much of a pending file is taken in at once. Only a file that could not be taken in for long is longer.
const BATCH_BYTES: usize = 1024 * 1024;

/// Rows merged in one transaction, for which other writers wait.
const ROWS_AT_ONCE: usize = 1000;

/// How often we try to take it in while others append, before we keep them waiting.
const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use rusqlite::Connection;

    use super::super::testing::{created, home, impatient, names, other, row};
    use super::*;

    fn pending(home: &HashDir) -> Vec<u8> {
        std::fs::read(home.pending_path()).unwrap_or_default()
    }

    #[test]
    fn a_record_waits_in_the_pending_file_until_somebody_looks() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.put_record(row("o", 3)).unwrap();
        assert_eq!(names(&mut broker), [""; 0]);
        assert_eq!(pending(&home), pending::encode_entry(&row("o", 3)));
        assert_eq!(broker.info().unwrap().count, 1);
        assert_eq!(pending(&home), b"");
        assert_eq!(names(&mut broker), ["o"]);
    }

    #[test]
    fn records_stay_where_they_are_if_they_cannot_be_merged() {
        let (_device, home) = home();
        created(&home).put_record(row("o", 3)).unwrap();
        let before = pending(&home);
        let mut broker = Broker::open_patiently(&home, impatient()).unwrap();
        let writer = other(broker.path());
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(matches!(broker.info(), Err(BrokerError::Busy { .. })));
        assert_eq!(pending(&home), before);
        writer.execute_batch("COMMIT").unwrap();
        let lock = home.lock(impatient().directory).unwrap();
        assert!(matches!(broker.info(), Err(BrokerError::Busy { .. })));
        assert_eq!(pending(&home), before);
        drop(lock);
        broker.info().unwrap();
        assert_eq!(names(&mut broker), ["o"]);
    }

    #[test]
    fn records_go_to_the_file_that_is_in_charge_when_they_are_taken_in() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let fresh = home.dir().join(format!("{}_0000000009.00000.db", home.hash()));
        std::fs::copy(broker.path(), &fresh).unwrap();
        broker.put_record(row("o", 3)).unwrap();
        broker.flush_pending().unwrap();
        assert_eq!(broker.path(), fresh);
        assert_eq!(names(&mut broker), ["o"]);
        assert_eq!(names(&mut Broker::open_file(broker.retiring_path().unwrap()).unwrap()), [""; 0]);
        // The file in charge is replaced by a newer one under the same name.
        let aside = home.dir().join("aside");
        std::fs::copy(broker.retiring_path().unwrap(), &aside).unwrap();
        std::fs::rename(&aside, &fresh).unwrap();
        std::fs::write(home.pending_path(), pending::encode_entry(&row("p", 3))).unwrap();
        broker.flush_pending().unwrap();
        assert_eq!(names(&mut Broker::open_file(&fresh).unwrap()), ["p"]);
    }

    /// Takes in what is pending while somebody else is in the middle of a transaction, in which `meanwhile` happens.
    fn flush_beside(home: &HashDir, meanwhile: impl FnOnce(&Connection)) -> Result<(), BrokerError> {
        let mut broker = Broker::open(home).unwrap();
        let writer = other(broker.path());
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        thread::scope(|scope| {
            let flush = scope.spawn(move || broker.flush_pending());
            // It has read the file, or is about to; in the latter case the test proves less, and still passes.
            thread::sleep(Duration::from_millis(200));
            meanwhile(&writer);
            writer.execute_batch("COMMIT").unwrap();
            flush.join().unwrap()
        })
    }

    fn append(home: &HashDir, name: &str) {
        let _lock = home.lock(impatient().directory).expect("who takes in keeps nobody waiting");
        let mut file = OpenOptions::new().append(true).create(true).open(home.pending_path()).unwrap();
        file.write_all(&entries(&[name])).unwrap();
    }

    fn entries(names: &[&str]) -> Vec<u8> {
        names.iter().flat_map(|name| pending::encode_entry(&row(name, 3))).collect()
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_appends_does_not_wait_for_who_takes_in() {
        let (_device, home) = home();
        let mut broker = created(&home);
        append(&home, "before");
        flush_beside(&home, |_| append(&home, "later")).unwrap();
        assert_eq!(names(&mut broker), ["before"]);
        assert_eq!(pending(&home), entries(&["before", "later"]));
        broker.flush_pending().unwrap();
        assert_eq!((names(&mut broker), pending(&home)), (list(&["before", "later"]), vec![]));
    }

    #[test]
    fn records_that_came_after_somebody_else_took_in_the_rest_stay() {
        let (_device, home) = home();
        let mut broker = created(&home);
        append(&home, "before");
        flush_beside(&home, |_| {
            std::fs::write(home.pending_path(), b"").unwrap();
            append(&home, "later1");
        })
        .unwrap();
        assert_eq!((names(&mut broker), pending(&home)), (list(&["before"]), entries(&["later1"])));
        flush_beside(&home, |_| std::fs::remove_file(home.pending_path()).unwrap()).unwrap();
        assert_eq!(names(&mut broker), ["before", "later1"]);
    }

    #[test]
    fn rows_taken_in_by_a_file_that_is_replaced_meanwhile_are_taken_in_again() {
        let (_device, home) = home();
        let path = created(&home).path().to_owned();
        let aside = home.dir().join("aside");
        std::fs::copy(&path, &aside).unwrap();
        append(&home, "before");
        flush_beside(&home, |_| std::fs::rename(&aside, &path).unwrap()).unwrap();
        assert_eq!((names(&mut Broker::open(&home).unwrap()), pending(&home)), (list(&["before"]), vec![]));
        // A container that begins to be sharded has another file in charge.
        let fresh = home.dir().join(format!("{}_0000000009.00000.db", home.hash()));
        append(&home, "o");
        flush_beside(&home, |_| assert!(std::fs::copy(&path, &fresh).is_ok())).unwrap();
        assert_eq!(
            (names(&mut Broker::open_file(&fresh).unwrap()), pending(&home)),
            (list(&["before", "o"]), vec![])
        );
    }

    #[test]
    fn a_container_that_goes_meanwhile_is_not_made_anew() {
        let (_device, home) = home();
        created(&home);
        append(&home, "before");
        let outcome = flush_beside(&home, |_| std::fs::remove_dir_all(home.dir()).unwrap());
        assert_eq!(outcome, Err(BrokerError::Missing));
        assert!(!home.dir().exists());
    }

    #[test]
    fn a_container_that_is_gone_takes_no_record() {
        let (_device, home) = home();
        let mut broker = created(&home);
        std::fs::remove_dir_all(home.dir()).unwrap();
        assert_eq!(broker.put_record(row("o", 3)), Err(BrokerError::Missing));
        assert!(!home.dir().exists());
    }

    #[test]
    fn a_pending_file_of_any_length_is_taken_in() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let mut file = Vec::new();
        let mut count = 0;
        while file.len() < BATCH_BYTES * 5 / 2 {
            let long_type = "x".repeat(1000 + count % 50);
            file.extend(pending::encode_entry(&Row {
                content_type: long_type,
                ..row(&format!("o{count:06}"), 3)
            }));
            count += 1;
        }
        std::fs::write(home.pending_path(), &file).unwrap();
        let info = broker.info().unwrap();
        assert_eq!(info.count, count as i64);
        assert_eq!(pending(&home), b"");
        let mut garbage = vec![b'A'; BATCH_BYTES * 3];
        garbage.extend(pending::encode_entry(&row("after", 3)));
        std::fs::write(home.pending_path(), &garbage).unwrap();
        assert_eq!(broker.info().unwrap().count, count as i64 + 1);
    }
}
