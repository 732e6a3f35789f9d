//! The pending file beside a database: taken in, and appended to.
//!
//! A container server acknowledges an object's row once it stands in `<hash>.db.pending`; the database follows when
//! somebody looks. So a look that matters flushes first, and a pending file is emptied only after its rows are committed
//! to the file that is in charge at that moment. All of it happens under the directory's lock, which every daemon takes
//! to append.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use log::warn;

use super::pending;
use super::{Broker, BrokerError};
use crate::drive::HashDir;
use crate::replica::Row;

impl Broker {
    /// Takes in the rows that container servers left in the pending file
    /// (`swift/common/db.py: _commit_puts_stale_ok`). A private file has none.
    ///
    /// # Errors
    /// `Busy` if the directory's lock was not to be had; otherwise as [`Broker::merge_rows`]. After any error the pending
    /// file is as it was.
    pub fn flush_pending(&mut self) -> Result<(), BrokerError> {
        let Some(home) = self.home.clone() else { return Ok(()) };
        let path = home.pending_path();
        // Without the lock: who appends after this look is after our moment anyhow.
        if pending_bytes(&path)? == 0 {
            return Ok(());
        }
        let _lock = home.lock(self.patience.directory)?;
        self.take_in(&home, Vec::new())
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
        let _lock = home.lock_if_there(self.patience.directory)?.ok_or(BrokerError::Missing)?;
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
        // The file that was in charge when we opened it may have been replaced, or have begun to be sharded.
        let in_charge = home.db_files().map_err(|e| BrokerError::io(home.dir(), &e))?.pop();
        if !self.db.is_current() || in_charge.as_deref() != Some(self.path()) {
            self.reopen()?;
        }
        let path = home.pending_path();
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| BrokerError::io(&path, &e))?;
        let mut unread = Vec::new();
        loop {
            let more = read_more(&mut file, &mut unread).map_err(|e| BrokerError::io(&path, &e))?;
            // All but the last record, which may go on in what is still to be read.
            let whole =
                if more { unread.iter().rposition(|&byte| byte == b':').unwrap_or(0) } else { unread.len() };
            for entry in pending::split(&unread[..whole]) {
                match pending::decode_entry(entry) {
                    Ok(row) => rows.push(row),
                    Err(bad) => warn!("{}: a record cannot be read and is left out: {bad}", path.display()),
                }
            }
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

/// Appends up to [`BATCH_BYTES`] to `unread`; false at the end of the file.
fn read_more(file: &mut File, unread: &mut Vec<u8>) -> std::io::Result<bool> {
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

#[cfg(test)]
mod tests {
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
