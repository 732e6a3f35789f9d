//! The ledger's tables within one transaction: entries and partitions read, checked and written.
//!
//! Nothing that is read is believed: a row of a wrong shape, out of order or with a wrong checksum is a [`Fault`]. Order
//! matters most, because in a damaged file a scan could otherwise go round for ever.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::entry::{Entry, check};
use super::file::Fault;
use super::part::Part;
use super::{Key, Listing, Span};
use crate::hash_path::{PartShift, Partition};

/// The tables, in a transaction.
pub(super) struct Rows<'a> {
    conn: &'a Connection,
    /// What keys depend on.
    pub shift: PartShift,
}

impl<'a> Rows<'a> {
    pub fn new(conn: &'a Connection, shift: PartShift) -> Rows<'a> {
        Rows { conn, shift }
    }

    pub fn entry(&self, key: Key) -> Result<Option<Entry>, Fault> {
        let mut select = self.conn.prepare_cached("SELECT body FROM entry WHERE key = ?")?;
        let mut rows = select.query([key.0.to_be_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let entry = Entry::decode(key, blob(row, 0)?);
        entry.ok_or(Fault::Unsound(key.partition(self.shift))).map(Some)
    }

    /// The entries from one key to another, both included, in order, until the visitor has enough.
    pub fn each_entry(
        &self,
        first: Key,
        last: Key,
        mut visit: impl FnMut(Key, Entry) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        self.each_body(first, last, |key, body| {
            let entry = Entry::decode(key, body).ok_or(Fault::Unsound(key.partition(self.shift)))?;
            Ok(visit(key, entry))
        })
    }

    /// The first entries from one key to another, `limit` at most.
    pub fn page(&self, first: Key, last: Key, limit: usize) -> Result<Vec<(Key, Entry)>, Fault> {
        let mut page = Vec::new();
        self.each_entry(first, last, |key, entry| {
            page.push((key, entry));
            enough(page.len() >= limit)
        })?;
        Ok(page)
    }

    fn each_body(
        &self,
        first: Key,
        last: Key,
        mut visit: impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let mut select = self
            .conn
            .prepare_cached("SELECT key, body FROM entry WHERE key BETWEEN ?1 AND ?2 ORDER BY key")?;
        let mut rows = select.query([first.0.to_be_bytes(), last.0.to_be_bytes()])?;
        let mut next = Some(first);
        while let Some(row) = rows.next()? {
            let key: Option<[u8; 16]> = blob(row, 0)?.try_into().ok();
            let key = key.map(|bytes| Key(u128::from_be_bytes(bytes)));
            let Some(key) = key.filter(|key| next.is_some_and(|next| (next..=last).contains(key))) else {
                return Err(Fault::Damaged("entries are out of order".to_owned()));
            };
            if visit(key, blob(row, 1)?)?.is_break() {
                break;
            }
            next = after(key);
        }
        Ok(())
    }

    pub fn put_entry(&self, key: Key, entry: Option<&Entry>) -> Result<(), Fault> {
        let name = key.0.to_be_bytes();
        match entry {
            Some(entry) => {
                let mut replace = self.conn.prepare_cached("REPLACE INTO entry (key, body) VALUES (?, ?)")?;
                replace.execute(params![name, entry.encode(key)])?;
            }
            None => {
                let mut delete = self.conn.prepare_cached("DELETE FROM entry WHERE key = ?")?;
                if delete.execute([name])? == 0 {
                    return Err(Fault::Damaged("an entry that was read is not to be found".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The sums of a partition; of one without entries, that of nothing.
    pub fn part(&self, partition: Partition) -> Result<Part, Fault> {
        let mut select = self.conn.prepare_cached("SELECT body FROM part WHERE number = ?")?;
        let mut rows = select.query([partition.0])?;
        rows.next()?.map_or(Ok(Part::default()), |row| part(partition, blob(row, 0)?))
    }

    /// The partitions with entries from one to another, both included, in order, until the visitor has enough.
    pub fn each_part(
        &self,
        first: Partition,
        last: Partition,
        mut visit: impl FnMut(Partition, Part) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let select = "SELECT number, body FROM part WHERE number BETWEEN ?1 AND ?2 ORDER BY number";
        self.each_number(select, first, last, |partition, body| Ok(visit(partition, part(partition, body)?)))
    }

    /// The partitions with listings from one on, in order, until the visitor has enough.
    pub fn each_listing(
        &self,
        first: Partition,
        mut visit: impl FnMut(Partition, Listing) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let select = "SELECT number, body FROM listing WHERE number BETWEEN ?1 AND ?2 ORDER BY number";
        self.each_number(select, first, Partition(u32::MAX), |partition, body| {
            Ok(visit(partition, Listing::decode(partition, body)?))
        })
    }

    pub fn put_listing(&self, partition: Partition, listing: Option<&Listing>) -> Result<(), Fault> {
        match listing {
            Some(listing) => {
                let mut replace =
                    self.conn.prepare_cached("REPLACE INTO listing (number, body) VALUES (?, ?)")?;
                replace.execute(params![partition.0, listing.encode(partition)])?
            }
            None => {
                self.conn.prepare_cached("DELETE FROM listing WHERE number = ?")?.execute([partition.0])?
            }
        };
        Ok(())
    }

    /// What is kept by partition, from one to another, both included, in order, until the visitor has enough.
    fn each_number(
        &self,
        select: &str,
        first: Partition,
        last: Partition,
        mut visit: impl FnMut(Partition, &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let mut select = self.conn.prepare_cached(select)?;
        let mut rows = select.query([first.0, last.0])?;
        let mut next = i64::from(first.0);
        let end = u64::from(last.0).saturating_add(1).min(self.shift.partitions()) as i64;
        while let Some(row) = rows.next()? {
            let number = row.get_ref(0)?.as_i64()?;
            if !(next..end).contains(&number) {
                return Err(Fault::Damaged("partitions are out of order".to_owned()));
            }
            if visit(Partition(number as u32), blob(row, 1)?)?.is_break() {
                break;
            }
            next = number + 1;
        }
        Ok(())
    }

    /// The partitions that a span is made of, or the one that it lies within.
    pub fn partitions_of(&self, span: Span) -> (Partition, Partition) {
        (span.first().partition(self.shift), span.last().partition(self.shift))
    }

    pub fn put_part(&self, partition: Partition, part: &Part) -> Result<(), Fault> {
        if *part == Part::default() {
            self.conn.prepare_cached("DELETE FROM part WHERE number = ?")?.execute([partition.0])?;
            // One without entries is not remembered by its listing either, or numbers would only ever be added.
            self.put_listing(partition, None)?;
        } else {
            let mut replace = self.conn.prepare_cached("REPLACE INTO part (number, body) VALUES (?, ?)")?;
            replace.execute(params![partition.0, part.encode(partition)])?;
        }
        Ok(())
    }

    /// Puts the sums of a partition right, from its entries, and forgets those that are damaged. Says whether there was
    /// anything to do.
    pub fn mend(&self, partition: Partition) -> Result<bool, Fault> {
        let (first, last) = (Key::first_of(partition, self.shift), Key::last_of(partition, self.shift));
        let mut right = Part::default();
        let mut damaged = Vec::new();
        self.each_body(first, last, |key, body| {
            match Entry::decode(key, body) {
                Some(entry) => right.put(key, None, Some(&entry)),
                None => damaged.push(key),
            }
            Ok(enough(damaged.len() > DAMAGED_LIMIT))
        })?;
        if damaged.len() > DAMAGED_LIMIT {
            return Err(Fault::Damaged(format!("partition {partition} has too many damaged entries")));
        }
        for key in &damaged {
            self.put_entry(*key, None)?;
        }
        let wrong = self.part(partition)? != right;
        if wrong {
            self.put_part(partition, &right)?;
        }
        Ok(wrong || !damaged.is_empty())
    }

    /// Mends every partition.
    pub fn mend_all(&self) -> Result<(), Fault> {
        let mut from = Partition(0);
        loop {
            // The next that has entries, or sums.
            let mut next: Option<Partition> = None;
            self.each_body(Key::first_of(from, self.shift), Span::ALL.last(), |key, _| {
                next = Some(key.partition(self.shift));
                Ok(enough(true))
            })?;
            self.each_part(from, Partition(u32::MAX), |partition, _| {
                next = Some(next.map_or(partition, |next| next.min(partition)));
                enough(true)
            })?;
            let Some(partition) = next else { return Ok(()) };
            self.mend(partition)?;
            if u64::from(partition.0) + 1 == self.shift.partitions() {
                return Ok(());
            }
            from = Partition(partition.0 + 1);
        }
    }

    /// The start of the machine under which it was last known to be of one piece.
    pub fn boot(&self) -> Result<String, Fault> {
        Ok(self.conn.query_row("SELECT boot FROM terms", [], |row| row.get(0))?)
    }

    pub fn put_boot(&self, boot: &str) -> Result<(), Fault> {
        self.conn.execute("UPDATE terms SET boot = ?", [boot])?;
        Ok(())
    }

    /// A record of another kind: one of a table of at most one row.
    pub fn survey(&self) -> Result<Option<Vec<u8>>, Fault> {
        let select = self.conn.prepare_cached("SELECT body FROM survey WHERE number = 0");
        let body =
            select?.query_row([], |row| Ok(blob(row, 0).map(<[u8]>::to_vec))).optional()?.transpose()?;
        let Some(body) = body else { return Ok(None) };
        match body.split_last_chunk::<8>() {
            Some((survey, sum)) if *sum == check(SURVEY, survey) => Ok(Some(survey.to_vec())),
            _ => Err(Fault::Damaged("the last walk is unreadable".to_owned())),
        }
    }

    pub fn put_survey(&self, mut survey: Vec<u8>) -> Result<(), Fault> {
        survey.extend(check(SURVEY, &survey));
        self.conn.prepare_cached("REPLACE INTO survey (number, body) VALUES (0, ?)")?.execute([survey])?;
        Ok(())
    }
}

/// What one transaction changes. The partitions it touches are read once and written once.
pub(super) struct Changes<'a> {
    rows: &'a Rows<'a>,
    parts: BTreeMap<Partition, (Part, Part)>,
}

impl<'a> Changes<'a> {
    pub fn new(rows: &'a Rows<'a>) -> Changes<'a> {
        Changes { rows, parts: BTreeMap::new() }
    }

    /// Replaces an entry; both sums of its partition follow.
    pub fn put(&mut self, key: Key, old: Option<&Entry>, new: Option<&Entry>) -> Result<(), Fault> {
        if old == new {
            return Ok(());
        }
        let partition = key.partition(self.rows.shift);
        if !self.parts.contains_key(&partition) {
            let part = self.rows.part(partition)?;
            self.parts.insert(partition, (part.clone(), part));
        }
        if let Some((_, part)) = self.parts.get_mut(&partition) {
            part.put(key, old, new);
        }
        self.rows.put_entry(key, new)
    }

    pub fn finish(self) -> Result<(), Fault> {
        for (partition, (old, new)) in self.parts {
            if old != new {
                self.rows.put_part(partition, &new)?;
            }
        }
        Ok(())
    }
}

/// The key after another; none after the last.
pub(super) fn after(key: Key) -> Option<Key> {
    key.0.checked_add(1).map(Key)
}

/// Go on, or not.
pub(super) fn enough(yes: bool) -> ControlFlow<()> {
    if yes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], Fault> {
    Ok(row.get_ref(column)?.as_blob()?)
}

fn part(partition: Partition, bytes: &[u8]) -> Result<Part, Fault> {
    Part::decode(partition, bytes)
        .ok_or_else(|| Fault::Damaged(format!("the sums of partition {partition} are unreadable")))
}

impl From<FromSqlError> for Fault {
    fn from(error: FromSqlError) -> Fault {
        Fault::Damaged(error.to_string())
    }
}

/// The tables, in the order of their names. A file with any others, or with anything else in it, is not ours.
pub(super) const TABLES: [&str; 5] = [
    "CREATE TABLE entry (key BLOB NOT NULL PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE listing (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE part (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE survey (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE terms (terms TEXT NOT NULL, boot TEXT NOT NULL)",
];
/// Where a survey's checksum takes it to stand.
const SURVEY: Key = Key(0);
/// Damaged entries of one partition that are forgotten. One with more is in a file that is past mending.
const DAMAGED_LIMIT: usize = 1024;
