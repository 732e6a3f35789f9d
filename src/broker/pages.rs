//! The pages of a database file, for what can be told from them without SQLite: rows of small tables, the end of an index.
//!
//! The format is the one that SQLite promises to keep: <https://sqlite.org/fileformat2.html>. Whatever is out of the
//! ordinary, or makes no sense, is `None`: it is for SQLite to judge. Nothing in a file may make trouble here, so every
//! place in it is checked, and so many pages are read and no more.

use std::borrow::Cow;
use std::cell::Cell;

use crate::drive::LiveFile;
use crate::drive::live::Header;

/// The pages of a file that is locked.
pub(super) struct Pages<'a> {
    live: &'a LiveFile,
    /// The beginning of the file: for most, all of it.
    head: Vec<u8>,
    pub(super) page_bytes: usize,
    pub(super) file_bytes: u64,
    /// How many more may be read.
    left: Cell<u32>,
}

impl Pages<'_> {
    /// Those of a file with nothing unusual in its header.
    pub(super) fn of(live: &LiveFile) -> Option<Pages<'_>> {
        let metadata = live.metadata().ok()?;
        let file_bytes = metadata.len();
        let mut head = vec![0; HEAD_BYTES.min(file_bytes as usize)];
        (metadata.is_file() && live.pread(0, &mut head).ok()? == head.len()).then_some(())?;
        let header = Header::parse(head.first_chunk()?, file_bytes)?;
        let page_bytes = header.page_bytes as usize;
        let sound =
            // Rollback journal, no reserved bytes, the fractions that are always so, UTF-8.
            head.get(18..24)? == [1, 1, 0, 64, 32, 32]
            && be32(&head, 56)? == 1
            // The file was last written by who keeps count of its pages, and has them all.
            && be32(&head, 24)? == be32(&head, 92)?
            && u64::from(be32(&head, 28)?) * page_bytes as u64 == file_bytes;
        sound.then_some(Pages { live, head, page_bytes, file_bytes, left: Cell::new(PAGES_LIMIT) })
    }

    /// Hands over the rows of a table in the order of their numbers.
    pub(super) fn each_row(
        &self,
        root: u32,
        take: &mut dyn FnMut(i64, &Columns) -> Option<()>,
    ) -> Option<()> {
        let page = self.page(root)?;
        let at = start_of_tree(root);
        let cells = be16(&page, at + 3)?;
        match *page.get(at)? {
            LEAF_OF_TABLE => {
                for cell in 0..cells {
                    let at = be16(&page, at + 8 + 2 * cell)?;
                    let (payload_bytes, at) = varint(&page, at)?;
                    let (number, at) = varint(&page, at)?;
                    let payload = self.payload(&page, at, payload_bytes)?;
                    take(number, &Columns::of(&payload)?)?;
                }
                Some(())
            }
            BRANCH_OF_TABLE => {
                for cell in 0..cells {
                    let at = be16(&page, at + 12 + 2 * cell)?;
                    self.each_row(be32(&page, at)?, take)?;
                }
                self.each_row(be32(&page, at + 8)?, take)
            }
            _ => None,
        }
    }

    /// Has a table any?
    pub(super) fn has_rows(&self, root: u32) -> Option<bool> {
        let page = self.page(root)?;
        let at = start_of_tree(root);
        match *page.get(at)? {
            LEAF_OF_TABLE => Some(be16(&page, at + 3)? > 0),
            BRANCH_OF_TABLE => Some(true),
            _ => None,
        }
    }

    /// The whole number that the last entry of an index begins with. `Some(None)`: there is no entry.
    pub(super) fn last_number(&self, root: u32) -> Option<Option<i64>> {
        let mut number = root;
        loop {
            let page = self.page(number)?;
            let at = start_of_tree(number);
            let cells = be16(&page, at + 3)?;
            match *page.get(at)? {
                BRANCH_OF_INDEX => number = be32(&page, at + 8)?,
                LEAF_OF_INDEX if cells == 0 => return (number == root).then_some(None),
                LEAF_OF_INDEX => {
                    let at = be16(&page, at + 8 + 2 * (cells - 1))?;
                    let (_, at) = varint(&page, at)?;
                    // The head of an entry and its first column lie on the page, however long the others are.
                    let (head_bytes, types) = varint(&page, at)?;
                    let (kind, _) = varint(&page, types)?;
                    let value = at.checked_add(usize::try_from(head_bytes).ok()?)?;
                    let value = page.get(value..value.checked_add(width(kind)?)?)?;
                    return match Value::of(kind, value) {
                        Value::Number(number) => Some(Some(number)),
                        _ => None,
                    };
                }
                _ => return None,
            }
        }
    }

    /// A row's bytes, of which the first are on its page and the others on pages of their own.
    fn payload(&self, page: &[u8], at: usize, bytes: i64) -> Option<Vec<u8>> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= PAYLOAD_LIMIT_BYTES)?;
        let most = self.page_bytes - 35;
        let here = if bytes <= most {
            bytes
        } else {
            let least = (self.page_bytes - 12) * 32 / 255 - 23;
            let fitting = least + (bytes - least) % (self.page_bytes - 4);
            if fitting <= most { fitting } else { least }
        };
        let mut payload = page.get(at..at + here)?.to_vec();
        let mut next = if here < bytes { be32(page, at + here)? } else { 0 };
        while payload.len() < bytes {
            let page = self.page(next)?;
            let more = (bytes - payload.len()).min(self.page_bytes - 4);
            payload.extend_from_slice(page.get(4..4 + more)?);
            next = be32(&page, 0)?;
        }
        Some(payload)
    }

    /// A page, as long as any more may be read.
    fn page(&self, number: u32) -> Option<Cow<'_, [u8]>> {
        self.left.set(self.left.get().checked_sub(1)?);
        let start = u64::from(number.checked_sub(1)?) * self.page_bytes as u64;
        if start >= self.file_bytes {
            return None;
        }
        if let Some(page) =
            usize::try_from(start).ok().and_then(|start| self.head.get(start..start + self.page_bytes))
        {
            return Some(page.into());
        }
        let mut page = vec![0; self.page_bytes];
        (self.live.pread(start, &mut page).ok()? == page.len()).then_some(page.into())
    }
}

/// One row, taken apart. Only text and whole numbers are understood; for all else there is SQLite.
pub(super) struct Columns<'a> {
    pub(super) values: Vec<Value<'a>>,
}

pub(super) enum Value<'a> {
    Null,
    Number(i64),
    Text(&'a [u8]),
    Other,
}

impl Value<'_> {
    fn of(kind: i64, bytes: &[u8]) -> Value<'_> {
        match kind {
            0 => Value::Null,
            1..=6 => Value::Number(signed(bytes)),
            TYPE_ZERO => Value::Number(0),
            TYPE_ONE => Value::Number(1),
            13.. if kind % 2 == 1 => Value::Text(bytes),
            _ => Value::Other,
        }
    }
}

impl Columns<'_> {
    fn of(payload: &[u8]) -> Option<Columns<'_>> {
        let (head_bytes, mut at) = varint(payload, 0)?;
        let head_bytes = usize::try_from(head_bytes).ok()?;
        let mut value_at = head_bytes;
        let mut values = Vec::with_capacity(20);
        while at < head_bytes {
            let (kind, next) = varint(payload, at)?;
            at = next;
            let bytes = width(kind)?;
            let value = payload.get(value_at..value_at.checked_add(bytes)?)?;
            value_at += bytes;
            values.push(Value::of(kind, value));
        }
        (at == head_bytes && value_at == payload.len()).then_some(Columns { values })
    }

    pub(super) fn text(&self, at: usize) -> Option<&str> {
        match self.values.get(at)? {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn text_or_null(&self, at: usize) -> Option<&str> {
        match self.values.get(at)? {
            Value::Null => Some(""),
            _ => self.text(at),
        }
    }

    pub(super) fn number(&self, at: usize) -> Option<i64> {
        match self.values.get(at)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// How many bytes a value of this type takes.
fn width(kind: i64) -> Option<usize> {
    match kind {
        0 | TYPE_ZERO | TYPE_ONE => Some(0),
        1..=4 => Some(kind as usize),
        5 => Some(6),
        6 | 7 => Some(8),
        12.. => usize::try_from((kind - 12) / 2).ok(),
        _ => None,
    }
}

/// Where a page's tree begins: the first page has the file's header before it.
fn start_of_tree(page: u32) -> usize {
    if page == 1 { 100 } else { 0 }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number of up to nine bytes, seven bits in each but the ninth, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut number = 0_u64;
    for nth in 0..8 {
        let byte = *bytes.get(at + nth)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number as i64, at + nth + 1));
        }
    }
    Some(((number << 8 | u64::from(*bytes.get(at + 8)?)) as i64, at + 9))
}

/// A number of up to eight bytes, the greatest first, negative if its first bit is set.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte))
}

const LEAF_OF_TABLE: u8 = 13;
const BRANCH_OF_TABLE: u8 = 5;
const LEAF_OF_INDEX: u8 = 10;
const BRANCH_OF_INDEX: u8 = 2;
/// Types of values that take no bytes.
const TYPE_ZERO: i64 = 8;
const TYPE_ONE: i64 = 9;
/// What is read of a file at once: the whole of a small one.
const HEAD_BYTES: usize = 64 << 10;
/// An ordinary database has a dozen pages that matter, with small pages three dozen.
const PAGES_LIMIT: u32 = 200;
/// The longest row is the one with the metadata, some tens of KiB.
const PAYLOAD_LIMIT_BYTES: usize = 1 << 20;
