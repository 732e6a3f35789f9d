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
