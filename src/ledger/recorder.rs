//! Entries on their way into a ledger: many in one transaction.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Entry, Key, Ledger, LedgerError};

/// Gathers what several threads found out, and writes it when enough has come together.
#[derive(Debug)]
pub struct Recorder<'a> {
    ledger: &'a Ledger,
    waiting: Mutex<Vec<(Key, Option<Entry>)>>,
    failure: Mutex<Option<LedgerError>>,
}

impl<'a> Recorder<'a> {
    /// For one ledger.
    pub fn new(ledger: &'a Ledger) -> Recorder<'a> {
        Recorder { ledger, waiting: Mutex::default(), failure: Mutex::default() }
    }

    /// Remembers an entry, or forgets it. What goes wrong is told by [`Recorder::flush`].
    pub fn note(&self, key: Key, entry: Option<Entry>) {
        let mut waiting = lock(&self.waiting);
        waiting.push((key, entry));
        if waiting.len() >= TOGETHER {
            self.write(&mut waiting);
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first error since the last flush: something of what was noted is not in the ledger.
    pub fn flush(&self) -> Result<(), LedgerError> {
        self.write(&mut lock(&self.waiting));
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn write(&self, waiting: &mut Vec<(Key, Option<Entry>)>) {
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = self.ledger.update(waiting) {
            lock(&self.failure).get_or_insert(error);
        }
        waiting.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction of so many is written once; of each, a page or two.
const TOGETHER: usize = 512;
