//! One page of a tree, its cells and their records.

use super::Doubt;
use super::plan::{Column, Kind};

/// A page of a tree whose header is sound.
pub(super) struct Page<'a> {
    bytes: &'a [u8],
    kind: Kind,
    is_leaf: bool,
    /// Where its header begins: behind the file's on the first page.
    header: usize,
    pub(super) cells: usize,
    /// Where what it holds begins.
    content: usize,
}

/// What a cell says.
pub(super) struct Cell<'a> {
    pub(super) child: u32,
    pub(super) row_id: i64,
    /// All of it, here and on other pages.
    pub(super) payload_bytes: usize,
    /// What of it is here.
    pub(super) payload: &'a [u8],
    pub(super) overflow: u32,
    pub(super) overflow_pages: usize,
}

impl<'a> Page<'a> {
    pub(super) fn of(bytes: &'a [u8], page: u32, kind: Kind, is_leaf: bool) -> Result<Page<'a>, Doubt> {
        let header = if page == 1 { 100 } else { 0 };
        let expected = match (kind, is_leaf) {
            (Kind::Table, true) => 13,
            (Kind::Table, false) => 5,
            (Kind::Index, true) => 10,
            (Kind::Index, false) => 2,
        };
        let content = match short(bytes, header + 5) {
            0 => 65536,
            content => content,
        };
        let page = Page { bytes, kind, is_leaf, header, cells: short(bytes, header + 3), content };
        let sound = bytes[header] == expected && page.pointers_end() <= content && content <= bytes.len();
        if sound { Ok(page) } else { Err(Doubt) }
    }

    fn pointers(&self) -> usize {
        self.header + if self.is_leaf { 8 } else { 12 }
    }

    fn pointers_end(&self) -> usize {
        self.pointers() + 2 * self.cells
    }

    pub(super) fn right_child(&self) -> Result<u32, Doubt> {
        number(self.bytes, self.header + 8).ok_or(Doubt)
    }

    /// Hands over each cell in the order of its keys, and sees to it that together with what is free they take up the
    /// page, each byte once.
    pub(super) fn check_cells(
        &self,
        taken: &mut Taken,
        mut check: impl FnMut(Cell<'a>) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        taken.clear(self.bytes.len());
        let mut sum = usize::from(self.bytes[self.header + 7]);
        let mut block = short(self.bytes, self.header + 1);
        while block != 0 {
            if block < self.content || block + 4 > self.bytes.len() {
                return Err(Doubt);
            }
            let (next, size) = (short(self.bytes, block), short(self.bytes, block + 2));
            if size < 4 || block + size > self.bytes.len() || (next != 0 && next <= block + size + 3) {
                return Err(Doubt);
            }
            taken.take(block, size)?;
            (sum, block) = (sum + size, next);
        }
        for nth in 0..self.cells {
            let at = short(self.bytes, self.pointers() + 2 * nth);
            if at < self.content || at + 4 > self.bytes.len() {
                return Err(Doubt);
            }
            let (cell, size) = self.cell(at).ok_or(Doubt)?;
            taken.take(at, size)?;
            sum += size;
            check(cell)?;
        }
        // Nothing overlaps, so what is left over is fragments; there must be as many as the page says.
        match self.content + sum == self.bytes.len() {
            true => Ok(()),
            false => Err(Doubt),
        }
    }

    /// One cell and how long it is here (`btree.c: btreeParseCellPtr` and its likes).
    fn cell(&self, at: usize) -> Option<(Cell<'a>, usize)> {
        let usable = self.bytes.len();
        let mut rest = &self.bytes[at..];
        let mut child = 0;
        if !self.is_leaf {
            child = number(rest, 0)?;
            rest = &rest[4..];
        }
        let mut cell =
            Cell { child, row_id: 0, payload_bytes: 0, payload: &[], overflow: 0, overflow_pages: 0 };
        if self.kind == Kind::Table && !self.is_leaf {
            cell.row_id = varint(&mut rest)?;
            return Some((cell, usable - at - rest.len()));
        }
        cell.payload_bytes =
            usize::try_from(varint(&mut rest)?).ok().filter(|bytes| *bytes <= RECORD_LIMIT)?;
        if self.kind == Kind::Table {
            cell.row_id = varint(&mut rest)?;
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let most = match self.kind {
            Kind::Table => usable - 35,
            Kind::Index => (usable - 12) * 64 / 255 - 23,
        };
        let mut here = cell.payload_bytes;
        if here > most {
            let surplus = least + (here - least) % (usable - 4);
            here = if surplus <= most { surplus } else { least };
            cell.overflow = number(rest, here)?;
            cell.overflow_pages = (cell.payload_bytes - here).div_ceil(usable - 4);
        }
        cell.payload = rest.get(..here)?;
        let pointer = if cell.overflow_pages > 0 { 4 } else { 0 };
        let size = usable - at - rest.len() + here + pointer;
        Some((cell, size.max(4)))
    }
}

/// Which bytes of a page are taken.
pub(super) struct Taken(Vec<u64>);

impl Taken {
    pub(super) fn new() -> Taken {
        Taken(Vec::new())
    }

    fn clear(&mut self, bytes: usize) {
        self.0.clear();
        self.0.resize(bytes / 64, 0);
    }

    fn take(&mut self, start: usize, size: usize) -> Result<(), Doubt> {
        let end = start + size;
        let mut at = start;
        while at < end {
            let word = self.0.get_mut(at / 64).ok_or(Doubt)?;
            let count = (64 - at % 64).min(end - at);
            let bits = (u64::MAX >> (64 - count)) << (at % 64);
            if *word & bits != 0 {
                return Err(Doubt);
            }
            *word |= bits;
            at += count;
        }
        Ok(())
    }
}

/// A record must have a value of the right kind for each column, and nothing else.
pub(super) fn check_record(payload: &[u8], payload_bytes: usize, columns: &[Column]) -> Option<()> {
    let mut rest = payload;
    let header_bytes = usize::try_from(varint(&mut rest)?).ok()?;
    let types_bytes = header_bytes.checked_sub(payload.len() - rest.len())?;
    let mut types = rest.get(..types_bytes)?;
    let mut bytes = header_bytes;
    for column in columns {
        let kind = varint(&mut types)?;
        let fits = match column {
            Column::RowId => kind == 0,
            Column::Text => kind == 0 || kind >= 12,
            Column::Number => (0..=9).contains(&kind) || (kind >= 12 && kind % 2 == 0),
        };
        if !fits {
            return None;
        }
        bytes = bytes.checked_add(match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        })?;
    }
    (types.is_empty() && bytes == payload_bytes).then_some(())
}

/// SQLite's number of one to nine bytes.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let bytes = *rest;
    let first = *bytes.first()?;
    if first < 0x80 {
        *rest = &bytes[1..];
        return Some(first.into());
    }
    let mut number = 0_u64;
    for nth in 0..8 {
        let byte = *bytes.get(nth)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            *rest = &bytes[nth + 1..];
            return Some(number as i64);
        }
    }
    let last = *bytes.get(8)?;
    *rest = &bytes[9..];
    Some((number << 8 | u64::from(last)) as i64)
}

/// Four bytes, if they are there.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// Two bytes that are known to be there.
fn short(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The longest record that Swift could write, and more.
const RECORD_LIMIT: usize = 1 << 30;
