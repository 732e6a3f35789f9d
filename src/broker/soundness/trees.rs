//! All pages of a file: its trees, from their roots to their leaves, and what lies free.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::Doubt;
use super::page::{Page, Taken, check_record, number};
use super::plan::{Kind, Plan, Tree};
use crate::drive::LiveFile;

/// The pages of a file, and which of them were seen in use.
pub(super) struct Pages<'a> {
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
    pub(super) fn of(file: &'a LiveFile) -> Option<Pages<'a>> {
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

    /// Is each page used once, by what it fits, and are all trees sound?
    pub(super) fn hold_together(&self, plan: &Plan) -> Result<(), Doubt> {
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

/// More levels than any tree of SQLite's.
const LEVELS_LIMIT: u32 = 20;
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
