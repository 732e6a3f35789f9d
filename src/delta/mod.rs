//! Two versions of one file: windows and aligned pages, what moved, the patch and its digest.
//!
//! The receiver has an older file, the *basis*; the sender has the *new* one. SQLite changes a file by pages: a page
//! stays where it is, and inside it cells are added, dropped and pushed together. So the two compare what lies at the
//! same place first, coarse to fine, and only within pages that differ do they look for bytes that moved.
//!
//! 1. The sender says the [`Geometry`] of the new file. Both cut their file in [`Window`]s at the same offsets.
//! 2. The sender says a [`WindowDigest`] for each window; the receiver has the same of the basis, as far as it goes.
//!    An equal window costs those 16 bytes and is taken from the basis.
//! 3. For a window that differs the receiver says [`PageDigests`] of the basis; the sender answers with the
//!    [`PageSet`] of the pages that differ.
//! 4. The receiver says a [`Signature`] of just those pages, as the basis has them.
//! 5. The sender says a patch ([`make_patch`]): what of the window that signature finds, and the rest in full.
//! 6. The receiver makes the window of it ([`apply_patch`]), which must have the digest of step 2. If it has not, the
//!    sender is asked for [`PageSet::all`] without a signature, which fails only where a file or a peer is unsound.
//!    Both feed every window to a [`FileDigest`], and the file is used only if the two agree.
//!
//! Nothing here reads a file or talks to anyone: windows come in as slices, messages go out as bytes. What a peer sent
//! goes through a `parse` that bounds it by the window it is about, so that the worst lie costs one window sent again
//! and [`window_memory_bytes`]. Digests of pages and hashes of blocks are short, because the window's digest stands
//! behind them, and the file's behind that.
//!
//! The page at 1 GiB, where SQLite keeps its lock bytes, has no content, but it is treated like any other: two files
//! that SQLite wrote have the same zeros there.

mod literals;
mod pages;
mod patch;
mod rolling;

use std::fmt;
use std::ops::Range;

pub use literals::{BadFrame, compress_literals, decompress, decompress_up_to};
pub use pages::{BadPages, PageDigest, PageDigests, PageSet};
pub use patch::{BadPatch, PATCH_OVERHEAD_BYTES, apply_patch, make_patch};
pub use rolling::{BadSignature, Signature};

/// The largest file that a delta is made of: far beyond any container, and still few enough windows to count in 32 bits.
pub const FILE_BYTES_LIMIT: u64 = 1 << 40;
/// SQLite's smallest and largest page.
pub const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=65536;
/// The smallest and largest window. Smaller ones cost digests and exchanges, larger ones memory at both ends.
pub const WINDOW_BYTES: std::ops::RangeInclusive<u32> = 256 * 1024..=4 * 1024 * 1024;
/// The window to use where nothing speaks for another.
pub const DEFAULT_WINDOW_BYTES: u32 = 1024 * 1024;

/// How many windows a file has at most, unless the largest windows are too small for it.
pub const WINDOWS_LIMIT: u64 = 1 << 17;

/// How the new file is cut: windows of one size, the last of them perhaps shorter, each of whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    file_bytes: u64,
    page_bytes: u32,
    window_bytes: u32,
}

/// Why a file cannot be cut so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadGeometry {
    /// Not a size that SQLite's pages have.
    PageBytes(u32),
    /// Outside [`WINDOW_BYTES`], or not a whole number of pages.
    WindowBytes(u32),
    /// Over [`FILE_BYTES_LIMIT`], or not a whole number of pages. Such a file goes as a full copy.
    FileBytes(u64),
}

impl fmt::Display for BadGeometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadGeometry::PageBytes(bytes) => write!(f, "no page size: {bytes} bytes"),
            BadGeometry::WindowBytes(bytes) => write!(f, "no window size: {bytes} bytes"),
            BadGeometry::FileBytes(bytes) => write!(f, "too large, or not of whole pages: {bytes} bytes"),
        }
    }
}

impl std::error::Error for BadGeometry {}

impl Geometry {
    /// The geometry of a file of whole pages; also the check of one that a peer gave.
    ///
    /// # Errors
    /// [`BadGeometry`] names the first size that is out of bounds.
    pub fn new(file_bytes: u64, page_bytes: u32, window_bytes: u32) -> Result<Geometry, BadGeometry> {
        if !PAGE_BYTES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return Err(BadGeometry::PageBytes(page_bytes));
        }
        if !WINDOW_BYTES.contains(&window_bytes) || window_bytes % page_bytes != 0 {
            return Err(BadGeometry::WindowBytes(window_bytes));
        }
        if file_bytes > FILE_BYTES_LIMIT || file_bytes % u64::from(page_bytes) != 0 {
            return Err(BadGeometry::FileBytes(file_bytes));
        }
        Ok(Geometry { file_bytes, page_bytes, window_bytes })
    }

    /// Bytes of the new file.
    pub fn file_bytes(self) -> u64 {
        self.file_bytes
    }

    /// Bytes of a page, of both files.
    pub fn page_bytes(self) -> u32 {
        self.page_bytes
    }

    /// Bytes of every window but the last.
    pub fn window_bytes(self) -> u32 {
        self.window_bytes
    }

    /// How many windows there are: 0 for an empty file, at most 2^22. Their digests may come to 64 MiB, so say them
    /// in batches.
    pub fn window_count(self) -> u32 {
        self.file_bytes.div_ceil(u64::from(self.window_bytes)) as u32
    }

    /// The window of a number; `None` past the last.
    pub fn window(self, number: u32) -> Option<Window> {
        let offset = u64::from(number) * u64::from(self.window_bytes);
        let bytes = self.file_bytes.saturating_sub(offset).min(u64::from(self.window_bytes)) as usize;
        (bytes > 0).then_some(Window { offset, bytes, page_bytes: self.page_bytes as usize })
    }

    /// All windows in order.
    pub fn windows(self) -> impl Iterator<Item = Window> {
        (0..self.window_count()).filter_map(move |number| self.window(number))
    }
}

/// One window: where it lies, and how many bytes and pages it has in the new file. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    offset: u64,
    bytes: usize,
    page_bytes: usize,
}

impl Window {
    /// Where it begins, in both files.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// How long it is in the new file.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// How many pages it has in the new file: 4 to 8192, or fewer in the last window.
    pub fn page_count(self) -> usize {
        self.bytes / self.page_bytes
    }

    /// What to read of a basis of so many bytes for this window: as many whole pages of it as are there, perhaps none.
    pub fn basis_range(self, basis_file_bytes: u64) -> Range<u64> {
        let start = self.offset.min(basis_file_bytes);
        let there = (basis_file_bytes - start).min(self.bytes as u64);
        start..start + there - there % self.page_bytes as u64
    }

    /// The bytes of a page, if the slice has all of them.
    fn page(self, bytes: &[u8], number: usize) -> Option<&[u8]> {
        bytes.get(number * self.page_bytes..)?.get(..self.page_bytes)
    }
}

/// What one window in hand takes at most, at either end and whatever the peer sends, in bytes; for a driver that has
/// a budget.
///
/// The sender's peak is in [`make_patch`]: the window, its pages that differ, the script, and that compressed, make
/// four windows, and a signature with its index 1.6. The receiver's is in [`apply_patch`]: basis, patch, script, the
/// basis' pages and the new ones make five.
pub const fn window_memory_bytes(window_bytes: u32) -> usize {
    window_bytes as usize * 6 + literals::ZSTD_MEMORY_BYTES
}

/// The largest window, up to [`DEFAULT_WINDOW_BYTES`], that goes with so much memory at either end; the smallest that
/// there is, where even that takes more. A larger file than [`WINDOWS_LIMIT`] of them has larger ones, so that what is
/// kept of each stays little.
pub const fn window_bytes_within(memory_bytes: u64, file_bytes: u64) -> u32 {
    let room = memory_bytes.saturating_sub(literals::ZSTD_MEMORY_BYTES as u64) / 6;
    let (mut window, largest) = (*WINDOW_BYTES.start(), *WINDOW_BYTES.end());
    while window < largest
        && (window < DEFAULT_WINDOW_BYTES && window as u64 * 2 <= room
            || file_bytes / window as u64 > WINDOWS_LIMIT)
    {
        window *= 2;
    }
    window
}

/// Stands for the content of one window of the new file: BLAKE3, cut to 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowDigest(pub [u8; 16]);

impl WindowDigest {
    /// Of a window's bytes, or of what the basis has of them.
    pub fn of(bytes: &[u8]) -> WindowDigest {
        WindowDigest(blake3_start(bytes))
    }
}

/// The first bytes of a BLAKE3 hash.
fn blake3_start<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut start = [0; N];
    start.copy_from_slice(&blake3::hash(bytes).as_bytes()[..N]);
    start
}

/// The digest of a whole file, fed window by window in order: BLAKE3, 32 bytes.
#[derive(Debug, Clone, Default)]
pub struct FileDigest(blake3::Hasher);

impl FileDigest {
    /// Of nothing yet.
    pub fn new() -> FileDigest {
        FileDigest::default()
    }

    /// Takes in the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all that was fed.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// The most pages that [`sample`] picks.
pub const SAMPLE_LIMIT: u32 = 4096;

/// Which pages of `page_count` to look at to learn whether a basis is worth it: at most `wanted` and
/// [`SAMPLE_LIMIT`], each in the middle of an even share of the file, ascending, the same at both ends.
///
/// The middle, because the first page of a database always differs.
pub fn sample(page_count: u64, wanted: u32) -> impl Iterator<Item = u64> {
    let picked = u64::from(wanted.min(SAMPLE_LIMIT)).min(page_count);
    (0..picked).map(move |nth| {
        let middle = (2 * u128::from(nth) + 1) * u128::from(page_count) / (2 * u128::from(picked));
        middle as u64
    })
}

/// How much of two samples is equal, place by place: 0 to 1. What only one of them has is not equal; two empty ones are.
pub fn share_equal(ours: &[PageDigest], theirs: &[PageDigest]) -> f64 {
    let equal = ours.iter().zip(theirs).filter(|(our, their)| our == their).count();
    match ours.len().max(theirs.len()) {
        0 => 1.0,
        most => equal as f64 / most as f64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_are_as_large_as_memory_allows() {
        let (small, usual, large) = (*WINDOW_BYTES.start(), DEFAULT_WINDOW_BYTES, *WINDOW_BYTES.end());
        for (memory_bytes, window) in [
            (0, small),
            (window_memory_bytes(small), small),
            (window_memory_bytes(2 * small) - 1, small),
            (window_memory_bytes(2 * small), 2 * small),
            (window_memory_bytes(usual), usual),
            (usize::MAX, usual),
        ] {
            assert_eq!(window_bytes_within(memory_bytes as u64, 10_000_000_000), window, "{memory_bytes}");
        }
        let at_most = WINDOWS_LIMIT * u64::from(small);
        for (file_bytes, window) in
            [(at_most, small), (at_most + u64::from(small), 2 * small), (FILE_BYTES_LIMIT, large)]
        {
            assert_eq!(window_bytes_within(0, file_bytes), window, "{file_bytes}");
        }
    }

    /// Bytes that each kind of message took.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Wire {
        window_digests: usize,
        page_digests: usize,
        page_sets: usize,
        signatures: usize,
        patches: usize,
    }

    impl Wire {
        fn total(&self) -> usize {
            self.window_digests + self.page_digests + self.page_sets + self.signatures + self.patches
        }
    }

    fn part(file: &[u8], range: Range<u64>) -> &[u8] {
        &file[range.start as usize..range.end as usize]
    }

    /// The whole conversation, every message through its bytes; what the receiver ends with, and what it took.
    fn converse(geometry: Geometry, old: &[u8], new: &[u8]) -> (Vec<u8>, Wire) {
        let (mut made, mut wire) = (Vec::new(), Wire::default());
        let (mut announced, mut found) = (FileDigest::new(), FileDigest::new());
        for window in geometry.windows() {
            let basis = part(old, window.basis_range(old.len() as u64));
            let new = &new[window.offset() as usize..][..window.bytes()];
            let digest = WindowDigest::of(new);
            wire.window_digests += digest.0.len();
            announced.feed(new);
            if WindowDigest::of(basis) == digest {
                found.feed(basis);
                made.extend_from_slice(basis);
                continue;
            }
            let said = PageDigests::of(window, basis).to_bytes();
            wire.page_digests += said.len();
            let digests = PageDigests::parse(window, &said).expect("digests");
            let said = PageSet::differing(window, new, &digests).to_bytes();
            wire.page_sets += said.len();
            let pages = PageSet::parse(window, &said).expect("a set");
            let said = Signature::of(window, basis, &pages).to_bytes().to_vec();
            wire.signatures += said.len();
            let signature = Signature::parse(window, &pages, said).expect("a signature");
            let said = make_patch(window, new, &pages, Some(&signature));
            assert!(said.len() <= pages.len() * geometry.page_bytes() as usize + PATCH_OVERHEAD_BYTES);
            wire.patches += said.len();
            let window_made = apply_patch(window, basis, &pages, &said, digest).expect("the window");
            found.feed(&window_made);
            made.extend(window_made);
        }
        assert_eq!(found.finish(), announced.finish());
        (made, wire)
    }

    #[test]
    fn geometry_takes_sizes_up_to_their_limits() {
        const WINDOW: u32 = DEFAULT_WINDOW_BYTES;
        let (smallest, largest) = (*WINDOW_BYTES.start(), *WINDOW_BYTES.end());
        let bad_page = |bytes| Err(BadGeometry::PageBytes(bytes));
        let bad_window = |bytes| Err(BadGeometry::WindowBytes(bytes));
        let bad_file = |bytes| Err(BadGeometry::FileBytes(bytes));
        for (file, page, window, expected) in [
            (0, 4096, WINDOW, Ok(0)),
            (4096, 4096, WINDOW, Ok(1)),
            (1 << 20, 4096, WINDOW, Ok(1)),
            ((1 << 20) + 4096, 4096, WINDOW, Ok(2)),
            (FILE_BYTES_LIMIT, 512, smallest, Ok(1 << 22)),
            (FILE_BYTES_LIMIT, 65536, largest, Ok(1 << 18)),
            (FILE_BYTES_LIMIT + 4096, 4096, WINDOW, bad_file(FILE_BYTES_LIMIT + 4096)),
            (u64::MAX - 4095, 4096, WINDOW, bad_file(u64::MAX - 4095)),
            (1, 4096, WINDOW, bad_file(1)),
            (4097, 4096, WINDOW, bad_file(4097)),
            (0, 0, WINDOW, bad_page(0)),
            (0, 1, WINDOW, bad_page(1)),
            (0, 256, WINDOW, bad_page(256)),
            (0, 513, WINDOW, bad_page(513)),
            (0, 65537, WINDOW, bad_page(65537)),
            (0, 131_072, WINDOW, bad_page(131_072)),
            (0, 4096, 0, bad_window(0)),
            (0, 4096, 1, bad_window(1)),
            (0, 4096, smallest - 4096, bad_window(smallest - 4096)),
            (0, 4096, smallest + 512, bad_window(smallest + 512)),
            (0, 4096, largest + 4096, bad_window(largest + 4096)),
            (0, 4096, u32::MAX, bad_window(u32::MAX)),
        ] {
            let count = Geometry::new(file, page, window).map(Geometry::window_count);
            assert_eq!(count, expected, "{file} bytes, pages of {page}, windows of {window}");
        }
    }

    #[test]
    fn windows_tile_the_file() {
        let geometry = Geometry::new(5 * 256 * 1024 + 8192, 4096, 256 * 1024).expect("sound");
        let mut end = 0;
        for window in geometry.windows() {
            assert_eq!(window.offset(), end);
            end += window.bytes() as u64;
        }
        assert_eq!(end, geometry.file_bytes());
        assert_eq!(geometry.window(5).map(Window::page_count), Some(2));
        assert_eq!(geometry.window(6), None);
        assert_eq!(geometry.window(u32::MAX), None);
    }

    #[test]
    fn the_basis_range_stays_in_the_basis() {
        let geometry = Geometry::new(3 * 256 * 1024 + 8192, 4096, 256 * 1024).expect("sound");
        let range = |number, basis_bytes| geometry.window(number).expect("a window").basis_range(basis_bytes);
        assert_eq!(range(0, 0), 0..0);
        assert_eq!(range(1, 1000), 1000..1000);
        assert_eq!(range(0, u64::MAX), 0..262_144);
        assert_eq!(range(1, 262_144 + 4096 + 4095), 262_144..262_144 + 4096);
        assert_eq!(range(3, u64::MAX), 786_432..786_432 + 8192);
    }

    #[test]
    fn equal_files_cost_a_digest_a_window() {
        let file = Random(1).bytes(600 * 1024);
        let geometry = Geometry::new(file.len() as u64, 4096, 256 * 1024).expect("sound");
        let (made, wire) = converse(geometry, &file, &file);
        assert!(made == file);
        assert_eq!(wire, Wire { window_digests: 3 * 16, ..Wire::default() });
    }

    #[test]
    fn a_file_with_no_basis_goes_as_literals() {
        let file = Random(1).bytes(300 * 1024);
        let geometry = Geometry::new(file.len() as u64, 4096, 256 * 1024).expect("sound");
        let (made, wire) = converse(geometry, &[], &file);
        assert!(made == file);
        assert_eq!(wire.page_digests, 0);
        assert_eq!(wire.patches, file.len() + 2 * PATCH_OVERHEAD_BYTES);
    }

    #[test]
    fn a_chance_match_of_page_digests_is_noticed_and_mended() {
        let (old, new) = (Random(1).bytes(256 * 1024), Random(2).bytes(256 * 1024));
        let window =
            Geometry::new(256 * 1024, 4096, 256 * 1024).ok().and_then(|g| g.window(0)).expect("sound");
        let announced = WindowDigest::of(&new);
        let pages = PageSet::differing(window, &new, &PageDigests::of(window, &new));
        let patch = make_patch(window, &new, &pages, None);
        assert_eq!(apply_patch(window, &old, &pages, &patch, announced), Err(BadPatch::WrongDigest));
        assert_eq!(apply_patch(window, &old[4096..], &pages, &patch, announced), Err(BadPatch::NoBasis));
        let all = PageSet::all(window);
        let patch = make_patch(window, &new, &all, None);
        assert!(apply_patch(window, &old, &all, &patch, announced) == Ok(new));
    }

    #[test]
    fn a_file_that_shrank_meanwhile_is_noticed() {
        let (old, new) = (Random(1).bytes(256 * 1024), Random(2).bytes(256 * 1024));
        let window =
            Geometry::new(256 * 1024, 4096, 256 * 1024).ok().and_then(|g| g.window(0)).expect("sound");
        let cut = &new[..100_000];
        let pages = PageSet::differing(window, cut, &PageDigests::of(window, &old));
        assert_eq!(pages.len(), 64);
        let patch = make_patch(window, cut, &pages, None);
        let announced = WindowDigest::of(&new);
        assert_eq!(apply_patch(window, &old, &pages, &patch, announced), Err(BadPatch::Damaged));
    }

    #[test]
    fn a_sample_is_spread_evenly_and_bounded() {
        let picked = |pages, wanted| sample(pages, wanted).collect::<Vec<_>>();
        assert_eq!(picked(0, 10), Vec::<u64>::new());
        assert_eq!(picked(10, 0), Vec::<u64>::new());
        assert_eq!(picked(1, 10), [0]);
        assert_eq!(picked(3, 3), [0, 1, 2]);
        assert_eq!(picked(100, 4), [12, 37, 62, 87]);
        assert_eq!(picked(1 << 40, SAMPLE_LIMIT).len(), SAMPLE_LIMIT as usize);
        assert_eq!(picked(1 << 40, SAMPLE_LIMIT + 1).len(), SAMPLE_LIMIT as usize);
        let last = sample(u64::MAX, u32::MAX).last();
        assert!(last.is_some_and(|page| page > u64::MAX - (1 << 52)));
        assert!(picked(5000, 4000).is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn the_share_that_is_equal_counts_what_only_one_has() {
        let digests = |pages: &[u8]| pages.iter().map(|&page| PageDigest::of(&[page])).collect::<Vec<_>>();
        for (ours, theirs, share) in [
            (&[][..], &[][..], 1.0),
            (&[1], &[], 0.0),
            (&[1, 2], &[1, 2], 1.0),
            (&[1, 2, 3, 4], &[1, 9, 3], 0.5),
            (&[1], &[1, 2, 3, 4], 0.25),
        ] {
            assert_eq!(share_equal(&digests(ours), &digests(theirs)), share);
        }
    }

    #[test]
    fn a_file_digest_does_not_depend_on_the_cuts() {
        let bytes = Random(1).bytes(100_000);
        let mut digest = FileDigest::new();
        bytes.chunks(777).for_each(|piece| digest.feed(piece));
        assert_eq!(digest.finish(), *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn inserts_into_a_real_database_take_a_quarter_of_a_full_copy() {
        let room = tempfile::tempdir().expect("a temporary directory");
        let path = room.path().join("container.db");
        let mut random = Random(7);
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
                 content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0);
             CREATE INDEX ix_object_deleted_name ON object (deleted, name);",
        )
        .expect("tables");
        let mut insert = |rows: u64| {
            let batch = db.unchecked_transaction().expect("a transaction");
            let sql = "INSERT INTO object (name, created_at, size, content_type, etag) VALUES (?, ?, ?, 'text/plain', ?)";
            let mut row = batch.prepare(sql).expect("a statement");
            for number in 0..rows {
                let name = format!("photos/{:08x}/{number:06}.jpg", random.next() as u32);
                let etag = format!("{:016x}{:016x}", random.next(), random.next());
                row.execute((name, format!("{}.00000", 1_700_000_000 + number), number as i64, etag))
                    .expect("a row");
            }
            drop(row);
            batch.commit().expect("rows");
        };
        insert(50_000);
        let old = std::fs::read(&path).expect("a file");
        insert(1000);
        let new = std::fs::read(&path).expect("a file");

        let geometry = Geometry::new(new.len() as u64, 4096, DEFAULT_WINDOW_BYTES).expect("sound");
        let (made, wire) = converse(geometry, &old, &new);
        assert!(made == new);
        let full_bytes: usize =
            new.chunks(DEFAULT_WINDOW_BYTES as usize).map(|piece| compress_literals(piece).len()).sum();
        assert!(wire.total() * 4 < full_bytes, "{wire:?} of {full_bytes}");
    }

    /// What may happen to a file between two looks; places are taken modulo its length.
    #[derive(Debug, Clone)]
    enum Edit {
        InsertPage(usize),
        DropPage(usize),
        SwapPages(usize, usize),
        ChangeBytes { at: usize, count: usize },
        ShiftWithinPage { page: usize, by: usize },
        Grow(usize),
        Truncate(usize),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let place = any::<u16>().prop_map(usize::from);
        prop_oneof![
            place.clone().prop_map(Edit::InsertPage),
            place.clone().prop_map(Edit::DropPage),
            (place.clone(), place.clone()).prop_map(|(one, other)| Edit::SwapPages(one, other)),
            (any::<usize>(), 1..5000_usize).prop_map(|(at, count)| Edit::ChangeBytes { at, count }),
            (place, 1..512_usize).prop_map(|(page, by)| Edit::ShiftWithinPage { page, by }),
            (1..100_usize).prop_map(Edit::Grow),
            (1..100_usize).prop_map(Edit::Truncate),
        ]
    }

    impl Edit {
        fn apply(&self, file: &mut Vec<u8>, page_bytes: usize, random: &mut Random) {
            let pages = file.len() / page_bytes;
            let start = |page: usize| page % pages.max(1) * page_bytes;
            match *self {
                Edit::Grow(pages) => file.extend(random.bytes(pages * 4096 / page_bytes * page_bytes)),
                Edit::InsertPage(page) => {
                    drop(file.splice(start(page)..start(page), random.bytes(page_bytes)))
                }
                _ if pages == 0 => {}
                Edit::DropPage(page) => drop(file.drain(start(page)..start(page) + page_bytes)),
                Edit::SwapPages(one, other) => {
                    (0..page_bytes).for_each(|byte| file.swap(start(one) + byte, start(other) + byte));
                }
                Edit::ChangeBytes { at, count } => {
                    let at = at % file.len();
                    let end = file.len().min(at + count);
                    let fresh = random.bytes(end - at);
                    file[at..end].copy_from_slice(&fresh);
                }
                Edit::ShiftWithinPage { page, by } => {
                    file[start(page)..][..page_bytes].rotate_right(by);
                }
                Edit::Truncate(by) => {
                    file.truncate(pages.saturating_sub(by * 4096 / page_bytes) * page_bytes)
                }
            }
        }
    }

    /// What a peer or a link may do to a message.
    #[derive(Debug, Clone)]
    enum Lie {
        Flip(usize),
        Cut(usize),
        Lengthen(Vec<u8>),
        Replace(Vec<u8>),
        Number { at: usize, value: u32 },
    }

    fn lie() -> impl Strategy<Value = Lie> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        let value = prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()];
        prop_oneof![
            4 => any::<usize>().prop_map(Lie::Flip),
            2 => any::<usize>().prop_map(Lie::Cut),
            1 => bytes.clone().prop_map(Lie::Lengthen),
            1 => bytes.prop_map(Lie::Replace),
            2 => (0..16_usize, value).prop_map(|(at, value)| Lie::Number { at, value }),
        ]
    }

    impl Lie {
        fn tell(&self, mut message: Vec<u8>) -> Vec<u8> {
            let length = message.len().max(1);
            match self {
                Lie::Flip(bit) => {
                    message.iter_mut().skip(bit / 8 % length).take(1).for_each(|b| *b ^= 1 << (bit % 8))
                }
                Lie::Cut(at) => message.truncate(at % length),
                Lie::Lengthen(more) => message.extend(more),
                Lie::Replace(other) => message.clone_from(other),
                Lie::Number { at, value } => {
                    message.iter_mut().skip(*at).zip(value.to_be_bytes()).for_each(|(b, lie)| *b = lie);
                }
            }
            message
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_edit_arrives(
            seed in 1..u64::MAX,
            page_bytes in prop::sample::select(vec![512_u32, 4096, 65536]),
            length in 0..700_000_usize,
            edits in proptest::collection::vec(edit(), 0..12),
        ) {
            let mut random = Random(seed);
            let page = page_bytes as usize;
            let old = random.bytes(length / page * page);
            let mut new = old.clone();
            edits.iter().for_each(|edit| edit.apply(&mut new, page, &mut random));
            let geometry = Geometry::new(new.len() as u64, page_bytes, 256 * 1024).expect("sound");
            let (made, _) = converse(geometry, &old, &new);
            prop_assert!(made == new);
        }

        #[test]
        fn a_lie_is_refused_or_harmless(
            seed in 1..u64::MAX,
            edits in proptest::collection::vec(edit(), 1..6),
            step in 0..4,
            lie in lie(),
        ) {
            let tell = |now, message| if now == step { lie.tell(message) } else { message };
            let mut random = Random(seed);
            let old = random.bytes(60 * 4096);
            let mut new = old.clone();
            edits.iter().for_each(|edit| edit.apply(&mut new, 4096, &mut random));
            let geometry = Geometry::new(new.len() as u64, 4096, 256 * 1024).expect("sound");
            for window in geometry.windows() {
                let basis = part(&old, window.basis_range(old.len() as u64));
                let new = &new[window.offset() as usize..][..window.bytes()];
                let said = tell(0, PageDigests::of(window, basis).to_bytes());
                let Ok(digests) = PageDigests::parse(window, &said) else { continue };
                let honest = PageSet::differing(window, new, &digests);
                let Ok(pages) = PageSet::parse(window, &tell(1, honest.to_bytes())) else { continue };
                let said = tell(2, Signature::of(window, basis, &pages).to_bytes().to_vec());
                let Ok(signature) = Signature::parse(window, &honest, said) else { continue };
                let patch = tell(3, make_patch(window, new, &honest, Some(&signature)));
                if let Ok(made) = apply_patch(window, basis, &pages, &patch, WindowDigest::of(new)) {
                    prop_assert!(made == new);
                }
            }
        }
    }

    /// Marsaglia's xorshift: the same bytes for the same seed.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
        }
    }
}
