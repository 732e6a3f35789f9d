//! Whether the pages of a database hold together: what `PRAGMA quick_check` finds, several times as fast.
//!
//! Every whole file that arrives is checked before it takes a place, and SQLite reads it page by page, twice, on one
//! processor. Here it is read once, in large pieces, on two. What is asked of a page, and of all of them together, is what
//! SQLite asks (`btree.c: checkTreePage`, and the loop over rows that `quick_check` compiles to): each page is used once,
//! each cell lies where it should, trees are level and their keys in order, records of the one large table decode to the
//! types of its columns, and an index has as many entries as its table has rows.
//!
//! This must never call sound what SQLite calls damaged. It need not be able to tell for every database that it is sound:
//! whatever is out of the ordinary, or wrong, is left to SQLite, which is also the one who says what is wrong. Small tables
//! are left to it in any case.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rusqlite::Connection;

use super::fault::Fault;
use crate::drive::LiveFile;

/// Is all of it sound? `false` means that only SQLite can tell. The connection must be in a transaction, so that nobody
/// writes meanwhile.
pub(super) fn is_certain(conn: &Connection, file: &LiveFile) -> Result<bool, Fault> {
    let Some(plan) = Plan::of(conn)? else { return Ok(false) };
    let sound = Pages::of(file).ok_or(Doubt).and_then(|pages| pages.hold_together(&plan));
    if sound.is_err() {
        return Ok(false);
    }
    for table in &plan.small_tables {
        let pragma = format!("PRAGMA quick_check(\"{}\")", table.replace('"', "\"\""));
        let verdict: String = conn.query_row(&pragma, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// It is left to SQLite: damaged, or of a form that is not looked into here, or the drive failed, which SQLite will find
/// and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt;

impl From<io::Error> for Doubt {
    fn from(_: io::Error) -> Doubt {
        Doubt
    }
}

/// The trees of a database.
struct Plan {
    trees: Vec<Tree>,
    small_tables: Vec<String>,
}

/// One table or index.
struct Tree {
    root: u32,
    kind: Kind,
    /// Of the large table: what its records hold.
    columns: Option<Vec<Column>>,
    /// Of an index of the large table.
    must_match: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Index,
}

/// What a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Stands for the row's number, and is stored as nothing.
    RowId,
    Text,
    Number,
}

impl Plan {
    /// `None` if there is anything in the schema that container databases do not have.
    fn of(conn: &Connection) -> Result<Option<Plan>, Fault> {
        let Some(columns) = columns(conn)? else { return Ok(None) };
        let schema = Tree { root: 1, kind: Kind::Table, columns: None, must_match: false };
        let mut plan = Plan { trees: vec![schema], small_tables: vec!["sqlite_schema".to_owned()] };
        let mut statement = conn.prepare(
            "SELECT type, name, tbl_name, rootpage, coalesce(upper(sql), '') FROM sqlite_schema
                 WHERE type NOT IN ('view', 'trigger')",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let [kind, name, of, sql] = [0, 1, 2, 4].map(|column| row.get::<_, String>(column));
            let (kind, name, of, sql) = (kind?, name?, of?, sql?);
            let Ok(root @ 2..) = u32::try_from(row.get::<_, i64>(3)?) else { return Ok(None) };
            let is_large = of == LARGE_TABLE;
            match kind.as_str() {
                "table" if UNUSUAL.iter().any(|word| sql.contains(word)) => return Ok(None),
                "table" => {
                    let columns = is_large.then(|| columns.clone());
                    plan.trees.push(Tree { root, kind: Kind::Table, columns, must_match: false });
                    if !is_large {
                        plan.small_tables.push(name);
                    }
                }
                // A partial index.
                "index" if sql.contains("WHERE") => return Ok(None),
                "index" => {
                    plan.trees.push(Tree { root, kind: Kind::Index, columns: None, must_match: is_large });
                }
                _ => return Ok(None),
            }
        }
        Ok((plan.trees.len() <= TREES_LIMIT).then_some(plan))
    }
}

/// The columns of the large table, if all are of the usual kind.
fn columns(conn: &Connection) -> Result<Option<Vec<Column>>, Fault> {
    let mut statement = conn
        .prepare(&format!("SELECT type, \"notnull\", pk, hidden FROM pragma_table_xinfo('{LARGE_TABLE}')"))?;
    let mut rows = statement.query([])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let declared: String = row.get(0)?;
        let [not_null, key, hidden] = [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?];
        columns.push(match (declared.as_str(), key) {
            _ if not_null != 0 || hidden != 0 => return Ok(None),
            ("INTEGER", 1) => Column::RowId,
            ("INTEGER", 0) => Column::Number,
            ("TEXT", 0) => Column::Text,
            _ => return Ok(None),
        });
    }
    Ok((!columns.is_empty()).then_some(columns))
}

/// The pages of a file, and which of them were seen in use.
struct Pages<'a> {
    file: &'a LiveFile,
    page_bytes: usize,
    count: u32,
    header: [u8; 100],
    used: Vec<AtomicU64>,
}

/// A leaf of a tree, with the keys between which its own must lie: above the first, up to the second.
#[derive(Clone, Copy)]
struct Leaf {
    page: u32,
    tree: u16,
    above: i64,
    up_to: i64,
}

impl<'a> Pages<'a> {
    /// `None` if the header is not of the ordinary kind.
    fn of(file: &'a LiveFile) -> Option<Pages<'a>> {
        let parsed = file.header().ok()??;
        let mut header = [0; 100];
        read_exact(file, 0, &mut header).ok()?;
        let file_bytes = file.metadata().ok()?.len();
        let page_bytes = parsed.page_bytes as usize;
        let count = u32::try_from(parsed.size_pages).ok()?;
        let plain = header[20] == 0
            && number(&header, 52)? == 0
            && number(&header, 64)? == 0
            && number(&header, 24)? == number(&header, 92)?
            && number(&header, 28)? == count
            && u64::from(count) * page_bytes as u64 == file_bytes;
        let used = || (0..=count / 64).map(|_| AtomicU64::new(0)).collect();
        plain.then(|| Pages { file, page_bytes, count, header, used: used() })
    }

    fn hold_together(&self, plan: &Plan) -> Result<(), Doubt> {
        // SQLite's lock bytes are a page that nobody uses.
        let lock_page = (LOCK_BYTE / self.page_bytes as u64 + 1) as u32;
        if lock_page <= self.count {
            self.use_page(lock_page)?;
        }
        self.use_free_pages()?;
        let rows: Vec<AtomicU64> = plan.trees.iter().map(|_| AtomicU64::new(0)).collect();
        let mut leaves = Vec::new();
        for (number, tree) in plan.trees.iter().enumerate() {
            self.walk(plan, &rows, number as u16, tree, &mut leaves)?;
        }
        self.check_leaves(plan, &rows, &mut leaves)?;
        let table = plan.trees.iter().position(|tree| tree.columns.is_some()).ok_or(Doubt)?;
        let rows_of = |number: usize| rows[number].load(Ordering::Relaxed);
        let indexes = plan.trees.iter().enumerate().filter(|(_, tree)| tree.must_match);
        if { indexes }.any(|(number, _)| rows_of(number) != rows_of(table)) {
            return Err(Doubt);
        }
        let is_used =
            |page: u32| self.used[page as usize / 64].load(Ordering::Relaxed) >> (page % 64) & 1 == 1;
        match (1..=self.count).all(is_used) {
            true => Ok(()),
            false => Err(Doubt),
        }
    }

    /// Counts a page as used; nobody else may use it.
    fn use_page(&self, page: u32) -> Result<(), Doubt> {
        if page == 0 || page > self.count {
            return Err(Doubt);
        }
        let bit = 1 << (page % 64);
        match self.used[page as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit {
            0 => Ok(()),
            _ => Err(Doubt),
        }
    }

    fn read(&self, page: u32, bytes: &mut [u8]) -> Result<(), Doubt> {
        Ok(read_exact(self.file, u64::from(page - 1) * self.page_bytes as u64, bytes)?)
    }

    /// The pages that wait to be used again (`btree.c: checkList`).
    fn use_free_pages(&self) -> Result<(), Doubt> {
        let field = |at| number(&self.header, at).ok_or(Doubt);
        let (mut trunk, mut left) = (field(32)?, field(36)?);
        let mut bytes = vec![0; self.page_bytes];
        while trunk != 0 {
            self.use_page(trunk)?;
            self.read(trunk, &mut bytes)?;
            let entries = number(&bytes, 4).ok_or(Doubt)?;
            if entries as usize > self.page_bytes / 4 - 2 {
                return Err(Doubt);
            }
            left = left.checked_sub(1 + entries).ok_or(Doubt)?;
            for entry in 0..entries as usize {
                self.use_page(number(&bytes, 8 + entry * 4).ok_or(Doubt)?)?;
            }
            trunk = number(&bytes, 0).ok_or(Doubt)?;
        }
        if left == 0 { Ok(()) } else { Err(Doubt) }
    }

    /// The pages that go on with a long record: just so many.
    fn use_overflow(&self, first: u32, pages: usize) -> Result<(), Doubt> {
        let (mut page, mut next) = (first, [0; 4]);
        for _ in 0..pages {
            self.use_page(page)?;
            self.read(page, &mut next)?;
            page = u32::from_be_bytes(next);
        }
        if page == 0 { Ok(()) } else { Err(Doubt) }
    }

    /// Checks the inner pages of a tree, and collects its leaves, checking those whenever there are many.
    fn walk(
        &self,
        plan: &Plan,
        rows: &[AtomicU64],
        number: u16,
        tree: &Tree,
        leaves: &mut Vec<Leaf>,
    ) -> Result<(), Doubt> {
        let mut bytes = vec![0; self.page_bytes];
        let levels = self.levels(tree, &mut bytes)?;
        let root = Leaf { page: tree.root, tree: number, above: i64::MIN, up_to: i64::MAX };
        let (mut left, mut taken) = (vec![(root, levels)], Taken::new());
        while let Some((place, levels)) = left.pop() {
            self.use_page(place.page)?;
            if levels == 0 {
                leaves.push(place);
                if leaves.len() == LEAVES_AT_ONCE {
                    self.check_leaves(plan, rows, leaves)?;
                }
                continue;
            }
            self.read(place.page, &mut bytes)?;
            let page = Page::of(&bytes, place.page, tree.kind, false)?;
            let mut above = place.above;
            let children = left.len();
            page.check_cells(&mut taken, |cell| {
                let up_to = match tree.kind {
                    Kind::Table => cell.row_id,
                    Kind::Index => i64::MAX,
                };
                if tree.kind == Kind::Table && (up_to <= above || up_to > place.up_to) {
                    return Err(Doubt);
                }
                if cell.overflow_pages > 0 {
                    self.use_overflow(cell.overflow, cell.overflow_pages)?;
                }
                left.push((Leaf { page: cell.child, tree: number, above, up_to }, levels - 1));
                if tree.kind == Kind::Table {
                    above = up_to;
                }
                Ok(())
            })?;
            if tree.kind == Kind::Index {
                rows[usize::from(number)].fetch_add(page.cells as u64, Ordering::Relaxed);
            }
            let last = Leaf { page: page.right_child()?, tree: number, above, up_to: place.up_to };
            left.push((last, levels - 1));
            // In the order of their keys, which is more or less that of the file.
            left[children..].reverse();
        }
        Ok(())
    }

    /// How many levels of inner pages stand above a tree's leaves.
    fn levels(&self, tree: &Tree, bytes: &mut [u8]) -> Result<u32, Doubt> {
        let mut page = tree.root;
        for levels in 0..LEVELS_LIMIT {
            if page == 0 || page > self.count {
                return Err(Doubt);
            }
            self.read(page, bytes)?;
            if Page::of(bytes, page, tree.kind, true).is_ok() {
                return Ok(levels);
            }
            page = Page::of(bytes, page, tree.kind, false)?.right_child()?;
        }
        Err(Doubt)
    }

    /// Checks these leaves in the order in which they lie in the file, and lets go of them.
    fn check_leaves(&self, plan: &Plan, rows: &[AtomicU64], leaves: &mut Vec<Leaf>) -> Result<(), Doubt> {
        leaves.sort_unstable_by_key(|leaf| leaf.page);
        let (first, second) = leaves.split_at(leaves.len() / 2);
        let failed = AtomicBool::new(false);
        let check = |leaves: &[Leaf]| {
            let checked = self.check_some(plan, rows, leaves, &failed);
            failed.fetch_or(checked.is_err(), Ordering::Relaxed);
            checked
        };
        let checked = match second.len() < LEAVES_WORTH_A_THREAD {
            true => check(first).and_then(|()| check(second)),
            false => thread::scope(|scope| {
                let other = scope.spawn(|| check(second));
                let checked = check(first);
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                checked.and(other)
            }),
        };
        leaves.clear();
        checked
    }

    fn check_some(
        &self,
        plan: &Plan,
        rows: &[AtomicU64],
        mut leaves: &[Leaf],
        failed: &AtomicBool,
    ) -> Result<(), Doubt> {
        let pages_at_once = (PIECE_BYTES / self.page_bytes) as u32;
        let (mut piece, mut taken) = (vec![0; PIECE_BYTES], Taken::new());
        while let [first, ..] = leaves {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (mut together, mut last) = (0, first.page);
            for leaf in leaves {
                if leaf.page - first.page >= pages_at_once || leaf.page - last > GAP_PAGES {
                    break;
                }
                (together, last) = (together + 1, leaf.page);
            }
            let span = (last - first.page + 1) as usize * self.page_bytes;
            self.read(first.page, &mut piece[..span])?;
            for leaf in &leaves[..together] {
                let at = (leaf.page - first.page) as usize * self.page_bytes;
                let cells = self.check_leaf(plan, leaf, &piece[at..][..self.page_bytes], &mut taken)?;
                rows[usize::from(leaf.tree)].fetch_add(cells, Ordering::Relaxed);
            }
            leaves = &leaves[together..];
        }
        Ok(())
    }

    fn check_leaf(&self, plan: &Plan, leaf: &Leaf, bytes: &[u8], taken: &mut Taken) -> Result<u64, Doubt> {
        let tree = &plan.trees[usize::from(leaf.tree)];
        let page = Page::of(bytes, leaf.page, tree.kind, true)?;
        let mut above = leaf.above;
        page.check_cells(taken, |cell| {
            if tree.kind == Kind::Table {
                if (cell.row_id <= above && above != i64::MIN) || cell.row_id > leaf.up_to {
                    return Err(Doubt);
                }
                above = cell.row_id;
            }
            if cell.overflow_pages > 0 {
                self.use_overflow(cell.overflow, cell.overflow_pages)?;
            }
            match &tree.columns {
                Some(columns) => check_record(cell.payload, cell.payload_bytes, columns).ok_or(Doubt),
                None => Ok(()),
            }
        })?;
        Ok(page.cells as u64)
    }
}

/// A page of a tree whose header is sound.
struct Page<'a> {
    bytes: &'a [u8],
    kind: Kind,
    is_leaf: bool,
    /// Where its header begins: behind the file's on the first page.
    header: usize,
    cells: usize,
    /// Where what it holds begins.
    content: usize,
}

/// What a cell says.
struct Cell<'a> {
    child: u32,
    row_id: i64,
    /// All of it, here and on other pages.
    payload_bytes: usize,
    /// What of it is here.
    payload: &'a [u8],
    overflow: u32,
    overflow_pages: usize,
}

impl<'a> Page<'a> {
    fn of(bytes: &'a [u8], page: u32, kind: Kind, is_leaf: bool) -> Result<Page<'a>, Doubt> {
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

    fn right_child(&self) -> Result<u32, Doubt> {
        number(self.bytes, self.header + 8).ok_or(Doubt)
    }

    /// Hands over each cell in the order of its keys, and sees to it that together with what is free they take up the
    /// page, each byte once.
    fn check_cells(
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
struct Taken(Vec<u64>);

impl Taken {
    fn new() -> Taken {
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
fn check_record(payload: &[u8], payload_bytes: usize, columns: &[Column]) -> Option<()> {
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

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// Two bytes that are known to be there.
fn short(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn read_exact(file: &LiveFile, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.pread(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (offset, bytes) = (offset + read as u64, &mut bytes[read..]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The table that is large, with its indices; all others are left to SQLite.
const LARGE_TABLE: &str = "object";
/// What a table of a container never says of itself, and would need more of us.
const UNUSUAL: [&str; 6] = ["CHECK", "STRICT", "GENERATED", "WITHOUT", "VIRTUAL", " AS "];
/// More tables and indices than any container has.
const TREES_LIMIT: usize = 64;
/// More levels than any tree of SQLite's.
const LEVELS_LIMIT: u32 = 20;
/// The longest record that Swift could write, and more.
const RECORD_LIMIT: usize = 1 << 30;
/// Where SQLite's lock bytes are.
const LOCK_BYTE: u64 = 0x4000_0000;
/// Leaves that are remembered until they are checked.
const LEAVES_AT_ONCE: usize = 1 << 15;
/// Leaves that are worth a second thread.
const LEAVES_WORTH_A_THREAD: usize = 256;
/// What is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pages of something else that are read rather than skipped.
const GAP_PAGES: u32 = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// What the databases of these tests have in them.
    #[derive(Debug, Clone, Copy)]
    struct Shape {
        page_bytes: u32,
        rows: u32,
        name_bytes: usize,
        /// Every so many rows one is deleted again.
        deleted: u32,
        vacuumed: bool,
    }

    fn make(path: &Path, shape: Shape) {
        let conn = Connection::open(path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
                 content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0);
             CREATE INDEX ix_object_deleted_name ON object (deleted, name);
             CREATE TABLE container_info (account TEXT, metadata TEXT DEFAULT '');
             CREATE TABLE incoming_sync (remote_id TEXT UNIQUE, sync_point INTEGER);
             INSERT INTO container_info VALUES ('a', hex(zeroblob(5000)));
             INSERT INTO incoming_sync VALUES ('x', 1), ('y', 2);
             BEGIN;",
            shape.page_bytes
        ))
        .unwrap();
        let sql = "INSERT INTO object (name, created_at, size, content_type, etag, deleted) VALUES (?, ?, ?, 't', ?, ?)";
        let mut insert = conn.prepare(sql).unwrap();
        for row in 0..shape.rows {
            let random = u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let long = if row % 50 == 7 { shape.name_bytes * 10 } else { shape.name_bytes };
            let name = format!("{random:016x}{}", "x".repeat(long));
            insert.execute((name, "1700000000.00000", row, format!("{random:032x}"), row % 2)).unwrap();
        }
        drop(insert);
        conn.execute_batch(&format!("DELETE FROM object WHERE ROWID % {} = 0; COMMIT;", shape.deleted))
            .unwrap();
        if shape.vacuumed {
            conn.execute_batch("VACUUM").unwrap();
        }
    }

    fn ours(path: &Path) -> bool {
        let Ok(conn) = Connection::open(path) else { return false };
        let file = LiveFile::open_read(path).unwrap();
        conn.execute_batch("BEGIN").unwrap();
        is_certain(&conn, &file).unwrap_or(false)
    }

    fn sqlites(path: &Path) -> bool {
        let conn = Connection::open(path).unwrap();
        let verdict = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        verdict.is_ok_and(|verdict| verdict == "ok")
    }

    const SHAPES: [Shape; 6] = [
        Shape { page_bytes: 4096, rows: 20_000, name_bytes: 20, deleted: 1000, vacuumed: false },
        Shape { page_bytes: 4096, rows: 3000, name_bytes: 20, deleted: 3, vacuumed: false },
        Shape { page_bytes: 4096, rows: 3000, name_bytes: 200, deleted: 3, vacuumed: true },
        Shape { page_bytes: 512, rows: 2000, name_bytes: 60, deleted: 7, vacuumed: false },
        Shape { page_bytes: 65536, rows: 5000, name_bytes: 100, deleted: 2, vacuumed: false },
        Shape { page_bytes: 1024, rows: 0, name_bytes: 0, deleted: 7, vacuumed: false },
    ];

    #[test]
    fn sound_databases_of_every_shape_are_recognised() {
        let room = tempfile::tempdir().unwrap();
        for (nth, shape) in SHAPES.into_iter().enumerate() {
            let path = room.path().join(format!("{nth}.db"));
            make(&path, shape);
            assert!(sqlites(&path), "{shape:?}");
            assert!(ours(&path), "{shape:?}");
        }
    }

    #[test]
    fn what_container_databases_do_not_have_is_left_to_sqlite() {
        let room = tempfile::tempdir().unwrap();
        for (nth, sql) in [
            "CREATE TABLE other (n INTEGER PRIMARY KEY, m) WITHOUT ROWID",
            "CREATE TABLE other (n INTEGER CHECK (n > 0))",
            "CREATE TABLE other (n INTEGER) STRICT",
            "CREATE INDEX partial ON object (name) WHERE deleted = 1",
            "ALTER TABLE object ADD COLUMN more REAL",
            "ALTER TABLE object ADD COLUMN more TEXT NOT NULL DEFAULT ''",
            // Rows that were there before lack the column.
            "ALTER TABLE object ADD COLUMN more TEXT DEFAULT ''",
            "PRAGMA auto_vacuum = FULL; VACUUM",
            "DROP TABLE object",
            // Kept by SQLite as they are.
            "UPDATE object SET size = 'large' WHERE ROWID = 1",
        ]
        .into_iter()
        .enumerate()
        {
            let path = room.path().join(format!("{nth}.db"));
            make(&path, SHAPES[3]);
            assert!(ours(&path));
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            assert!(sqlites(&path) && !ours(&path), "{sql}");
        }
    }

    /// What a failing disk or a bad copy does to a file.
    #[derive(Debug, Clone)]
    enum Damage {
        Byte {
            at: prop::sample::Index,
            to: u8,
        },
        Bit {
            at: prop::sample::Index,
            bit: u8,
        },
        Zeroed {
            page: prop::sample::Index,
        },
        Elsewhere {
            from: prop::sample::Index,
            to: prop::sample::Index,
        },
        Sector {
            from: prop::sample::Index,
            to: prop::sample::Index,
        },
        Cut {
            pages: prop::sample::Index,
        },
        Longer,
        /// Within the first bytes of a page, where most of what matters stands.
        Header {
            page: prop::sample::Index,
            at: usize,
            to: u8,
        },
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            4 => (place(), any::<u8>()).prop_map(|(at, to)| Damage::Byte { at, to }),
            4 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Bit { at, bit }),
            2 => place().prop_map(|page| Damage::Zeroed { page }),
            2 => (place(), place()).prop_map(|(from, to)| Damage::Elsewhere { from, to }),
            2 => (place(), place()).prop_map(|(from, to)| Damage::Sector { from, to }),
            1 => place().prop_map(|pages| Damage::Cut { pages }),
            1 => Just(Damage::Longer),
            6 => (place(), 0..120_usize, any::<u8>()).prop_map(|(page, at, to)| Damage::Header { page, at, to }),
        ]
    }

    impl Damage {
        fn apply(&self, file: &mut Vec<u8>, page_bytes: usize) {
            let pages = file.len() / page_bytes;
            let whole = |index: &prop::sample::Index| {
                let start = index.index(pages) * page_bytes;
                start..start + page_bytes
            };
            match self {
                Damage::Byte { at, to } => {
                    let at = at.index(file.len());
                    file[at] = *to;
                }
                Damage::Bit { at, bit } => {
                    let at = at.index(file.len());
                    file[at] ^= 1 << bit;
                }
                Damage::Zeroed { page } => file[whole(page)].fill(0),
                Damage::Elsewhere { from, to } => file.copy_within(whole(from), whole(to).start),
                Damage::Sector { from, to } => {
                    let from = from.index(file.len() / 512) * 512;
                    let to = to.index(file.len() / 512) * 512;
                    file.copy_within(from..from + 512, to);
                }
                Damage::Cut { pages: left } => file.truncate(left.index(pages) * page_bytes),
                Damage::Longer => file.resize(file.len() + page_bytes, 0),
                Damage::Header { page, at, to } => file[whole(page).start + at] = *to,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn nothing_that_sqlite_calls_damaged_is_called_sound(
            shape in 0..SHAPES.len(),
            damages in proptest::collection::vec(damage(), 1..3),
        ) {
            use std::sync::OnceLock;
            static MADE: [OnceLock<Vec<u8>>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];
            let room = tempfile::tempdir().unwrap();
            let path = room.path().join("c.db");
            let mut file = MADE[shape]
                .get_or_init(|| {
                    make(&path, SHAPES[shape]);
                    std::fs::read(&path).unwrap()
                })
                .clone();
            for damage in &damages {
                if file.len() >= 512 {
                    damage.apply(&mut file, SHAPES[shape].page_bytes as usize);
                }
            }
            std::fs::write(&path, &file).unwrap();
            prop_assert!(!ours(&path) || sqlites(&path), "{:?} {damages:?}", SHAPES[shape]);
        }
    }
}
