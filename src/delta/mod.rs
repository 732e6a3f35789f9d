//! Two versions of one file: windows and aligned pages, what moved, the patch and its digest.
//!
//! The receiver has an older file, the *basis*; the sender has the *new* one. SQLite changes a file by pages: a page
//! stays where it is, and inside it cells are added, dropped and pushed together. So the two compare what lies at the
//! same place first, coarse to fine; pages that are not there are looked up in all of the basis; and only within pages
//! that are nowhere do they look for bytes that moved.
//!
//! 1. The sender says the [`Geometry`] of the new file. Both cut their file in [`Window`]s at the same offsets.
//! 2. The sender says a [`WindowDigest`] for each window; the receiver has the same of the basis, as far as it goes.
//!    An equal window costs those 16 bytes and is taken from the basis.
//! 3. Of a window that differs the sender says [`PageDigests`]. The receiver takes each page that it has, in its place or
//!    elsewhere ([`PageIndex`]).
//! 4. Of the [`PageSet`] of the others it says [`BlockDigests`], and where there is hope in that ([`Hope`]) a rolling
//!    [`Signature`], as the basis has them in their places.
//! 5. The sender says a patch ([`make_patch`]): the blocks that changed; and of pages where most of them did, what the
//!    signature does not find.
//! 6. The receiver makes the window of it ([`apply_patch`]), which must have the digest of step 2. If it has not, it asks
//!    for [`PageSet::all`] with nothing known, which fails only where a file or a peer is unsound, or the file was written
//!    to. Both put every window into a [`WindowTree`], and the file is used only if the two agree.
//!
//! Nothing here reads a file or talks to anyone: windows come in as slices, messages go out as bytes. What a peer sent
//! goes through a `parse` that bounds it by the window it is about, so that the worst lie costs one window sent again
//! and [`Geometry::memory_bytes`]. Digests of pages and hashes of blocks are short, because the window's digest stands
//! behind them, and the file's behind that.
//!
//! The page at 1 GiB, where SQLite keeps its lock bytes, has no content, but it is treated like any other: two files
//! that SQLite wrote have the same zeros there.

mod blocks;
mod digest;
mod literals;
mod moved;
mod pace;
mod pages;
mod patch;
mod rolling;

use std::fmt;
use std::ops::Range;

pub use blocks::{BadBlocks, BlockDigests};
pub use digest::{WindowDigest, WindowNode, WindowTree};
pub use literals::{BadFrame, Packer, Piece, Unpacker, compress_literals, decompress_up_to};
pub use moved::PageIndex;
pub use pace::{Pace, Packing};
pub use pages::{BadPages, PageDigest, PageDigests, PageSet};
pub use patch::{Applied, BadPatch, apply_patch, make_patch, patch_limit_bytes};
pub use rolling::{BadSignature, Hope, Signature};

/// The most windows of one file. Both ends remember a digest of each: 2 MiB of them.
pub const WINDOWS_LIMIT: u32 = 1 << 16;
/// The largest file that can be cut into so many windows: far beyond any container.
pub const FILE_BYTES_LIMIT: u64 = LARGEST_WINDOW_BYTES as u64 * WINDOWS_LIMIT as u64;
/// SQLite's smallest and largest page.
pub const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=65536;
/// The smallest window, for when memory is short. Smaller ones would cost digests and exchanges.
pub const SMALLEST_WINDOW_BYTES: u32 = 64 * 1024;
/// The window to use otherwise: it stays in a processor's cache from one step to the next.
pub const USUAL_WINDOW_BYTES: u32 = 256 * 1024;
/// The largest window, for files that would have too many otherwise. It costs memory at both ends.
pub const LARGEST_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

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
    /// Not a power of two from [`SMALLEST_WINDOW_BYTES`] to [`LARGEST_WINDOW_BYTES`].
    WindowBytes(u32),
    /// More than [`WINDOWS_LIMIT`] windows, or not a whole number of pages.
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
        let window_sizes = SMALLEST_WINDOW_BYTES..=LARGEST_WINDOW_BYTES;
        if !window_sizes.contains(&window_bytes) || !window_bytes.is_power_of_two() {
            return Err(BadGeometry::WindowBytes(window_bytes));
        }
        let most_bytes = u64::from(window_bytes) * u64::from(WINDOWS_LIMIT);
        if file_bytes > most_bytes || file_bytes % u64::from(page_bytes) != 0 {
            return Err(BadGeometry::FileBytes(file_bytes));
        }
        Ok(Geometry { file_bytes, page_bytes, window_bytes })
    }

    /// The geometry that a file is offered in by somebody who has so much memory for it: the usual windows, or smaller
    /// ones where those take more, but always so large that there are not too many.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn within(memory_bytes: u64, file_bytes: u64, page_bytes: u32) -> Result<Geometry, BadGeometry> {
        let mut window_bytes = SMALLEST_WINDOW_BYTES;
        loop {
            let geometry = Geometry::new(file_bytes, page_bytes, window_bytes);
            let larger = Geometry { file_bytes, page_bytes, window_bytes: window_bytes * 2 };
            let is_small = window_bytes < USUAL_WINDOW_BYTES && larger.memory_bytes() <= memory_bytes;
            let are_too_many = file_bytes > u64::from(window_bytes) * u64::from(WINDOWS_LIMIT);
            if window_bytes == LARGEST_WINDOW_BYTES || !(is_small || are_too_many) {
                return geometry;
            }
            window_bytes *= 2;
        }
    }

    /// What shipping or taking in such a file takes at most, at either end and whatever the peer sends, in bytes; for a
    /// driver that has a budget. A receiver that has more can use [`PageIndex::BYTES`].
    ///
    /// In full, a window is read, in line, being compressed, being sent; or being received, unpacked, in line, being
    /// written: six at most. In a delta the sender's peak is in [`make_patch`]: the window, its pages that were pushed
    /// about, the script, all that is sent, and that compressed, make five windows, and a signature with its index 1.6.
    /// The receiver's is in [`apply_patch`]: the window, patch, body, the basis' pages and the new ones make five.
    pub fn memory_bytes(self) -> u64 {
        u64::from(self.window_bytes) * 7
            + literals::ZSTD_MEMORY_BYTES as u64
            + u64::from(self.window_count()) * WINDOW_KEPT_BYTES
    }

    /// The same cut of a file that has another length by now.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn resized(self, file_bytes: u64) -> Result<Geometry, BadGeometry> {
        Geometry::new(file_bytes, self.page_bytes, self.window_bytes)
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

    /// How many windows there are: 0 for an empty file, at most [`WINDOWS_LIMIT`].
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

    /// How many pages it has in the new file: 1 to 8192, or fewer in the last window.
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

/// The first bytes of a BLAKE3 hash.
fn blake3_start<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut start = [0; N];
    start.copy_from_slice(&blake3::hash(bytes).as_bytes()[..N]);
    start
}

/// What is kept of each window: its node, and that it differs.
const WINDOW_KEPT_BYTES: u64 = 64;
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

    /// Bytes that each kind of message took.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Wire {
        window_digests: usize,
        page_digests: usize,
        page_sets: usize,
        blocks: usize,
        signatures: usize,
        patches: usize,
        /// Windows that were sent again, because digests of blocks matched by chance.
        again: usize,
    }

    impl Wire {
        fn total(&self) -> usize {
            self.window_digests
                + self.page_digests
                + self.page_sets
                + self.blocks
                + self.signatures
                + self.patches
        }
    }

    fn part(file: &[u8], range: Range<u64>) -> &[u8] {
        &file[range.start as usize..range.end as usize]
    }

    /// The pages of a file that differ from what stands in their place in another.
    fn index_of(geometry: Geometry, old: &[u8]) -> PageIndex {
        let mut index = PageIndex::within(PageIndex::BYTES);
        for (page, number) in old.chunks_exact(geometry.page_bytes() as usize).zip(0..) {
            index.add(PageDigest::of(page), number);
        }
        index.sort();
        index
    }

    /// A window as the receiver has it before a patch: which pages it lacks, and how many of those have something in
    /// their place.
    fn found(
        window: Window,
        old: &[u8],
        index: &PageIndex,
        digests: &PageDigests,
    ) -> (Vec<u8>, PageSet, usize) {
        let basis = part(old, window.basis_range(old.len() as u64));
        let mut so_far = basis.to_vec();
        so_far.resize(window.bytes(), 0);
        let (mut lacking, mut with_basis) = (PageSet::of(window, |_| false), 0);
        for (nth, digest) in digests.iter().enumerate() {
            let here = window.page(basis, nth);
            if here.is_some_and(|page| PageDigest::of(page) == digest) {
                continue;
            }
            match index.find(digest).next() {
                Some(page) => so_far[nth * window.page_bytes..][..window.page_bytes]
                    .copy_from_slice(&old[page as usize * window.page_bytes..][..window.page_bytes]),
                None => {
                    lacking.insert(nth);
                    with_basis += usize::from(here.is_some());
                }
            }
        }
        (so_far, lacking, with_basis)
    }

    /// The whole conversation, every message through its bytes; what the receiver ends with, and what it took.
    fn converse(geometry: Geometry, old: &[u8], new: &[u8]) -> (Vec<u8>, Wire) {
        let (mut made, mut wire, mut packer, mut hope) =
            (Vec::new(), Wire::default(), Packer::new(), Hope::default());
        let (mut announced, mut rebuilt) = (WindowTree::default(), WindowTree::default());
        let index = index_of(geometry, old);
        for (number, window) in (0..).zip(geometry.windows()) {
            let basis = part(old, window.basis_range(old.len() as u64));
            let new = &new[window.offset() as usize..][..window.bytes()];
            let node = WindowNode::of(window, new);
            let digest = node.digest();
            wire.window_digests += digest.0.len();
            announced.set(number, node);
            if basis.len() == new.len() && WindowDigest::of(window, basis) == digest {
                rebuilt.set(number, node);
                made.extend_from_slice(basis);
                continue;
            }
            let said = PageDigests::of(window, new).to_bytes();
            wire.page_digests += said.len();
            let digests = PageDigests::parse(window, &said).expect("digests");
            let (so_far, lacking, with_basis) = found(window, old, &index, &digests);
            let said = lacking.to_bytes();
            wire.page_sets += said.len();
            let pages = PageSet::parse(window, &said).expect("a set");
            let said = BlockDigests::of(window, basis, &lacking).to_bytes().to_vec();
            wire.blocks += said.len();
            let blocks = BlockDigests::parse(window, &pages, said).expect("digests of blocks");
            let hoped = with_basis > 0 && hope.wants();
            let signature = hoped.then(|| {
                let said = Signature::of(window, basis, &lacking).to_bytes().to_vec();
                wire.signatures += said.len();
                Signature::parse(window, &pages, said).expect("a signature")
            });
            let signature = signature.as_ref();
            let said = make_patch(window, new, &pages, &blocks, signature, &mut packer, Packing::Packed);
            assert!(said.len() <= patch_limit_bytes(window, pages.len()));
            wire.patches += said.len();
            let applied = match apply_patch(window, so_far.clone(), &lacking, with_basis, &said, digest) {
                Err(BadPatch::WrongDigest) => {
                    wire.again += 1;
                    let (all, blocks) = (PageSet::all(window), BlockDigests::none());
                    let said = make_patch(window, new, &all, &blocks, None, &mut packer, Packing::Packed);
                    wire.patches += said.len();
                    apply_patch(window, so_far, &all, 0, &said, digest)
                }
                applied => applied,
            };
            let applied = applied.expect("the window");
            if hoped {
                hope.learned(applied.signature_paid);
            }
            rebuilt.set(number, applied.node);
            made.extend(applied.bytes);
        }
        assert_eq!(rebuilt.finish(), announced.finish());
        (made, wire)
    }

    #[test]
    fn geometry_takes_sizes_up_to_their_limits() {
        let (smallest, largest) = (SMALLEST_WINDOW_BYTES, LARGEST_WINDOW_BYTES);
        const WINDOW: u32 = 1 << 20;
        let bad_page = |bytes| Err(BadGeometry::PageBytes(bytes));
        let bad_window = |bytes| Err(BadGeometry::WindowBytes(bytes));
        let bad_file = |bytes| Err(BadGeometry::FileBytes(bytes));
        for (file, page, window, expected) in [
            (0, 4096, WINDOW, Ok(0)),
            (4096, 4096, WINDOW, Ok(1)),
            (1 << 20, 4096, WINDOW, Ok(1)),
            ((1 << 20) + 4096, 4096, WINDOW, Ok(2)),
            (1 << 32, 512, smallest, Ok(WINDOWS_LIMIT)),
            ((1 << 32) + 512, 512, smallest, bad_file((1 << 32) + 512)),
            (FILE_BYTES_LIMIT, 65536, largest, Ok(WINDOWS_LIMIT)),
            (FILE_BYTES_LIMIT + 4096, 4096, largest, bad_file(FILE_BYTES_LIMIT + 4096)),
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
            (0, 4096, smallest + 4096, bad_window(smallest + 4096)),
            (0, 4096, smallest * 3, bad_window(smallest * 3)),
            (0, 4096, largest + 4096, bad_window(largest + 4096)),
            (0, 4096, u32::MAX, bad_window(u32::MAX)),
        ] {
            let count = Geometry::new(file, page, window).map(Geometry::window_count);
            assert_eq!(count, expected, "{file} bytes, pages of {page}, windows of {window}");
        }
    }

    #[test]
    fn windows_are_as_large_as_is_of_use_and_memory_allows_and_never_too_many() {
        let (small, usual, large) = (SMALLEST_WINDOW_BYTES, USUAL_WINDOW_BYTES, LARGEST_WINDOW_BYTES);
        let within = |memory, bytes| Geometry::within(memory, bytes, 4096).map(Geometry::window_bytes);
        let takes = |bytes, window| Geometry::new(bytes, 4096, window).expect("sound").memory_bytes();
        let at_most = |window: u32| u64::from(window) * u64::from(WINDOWS_LIMIT);
        const SOME: u64 = 1 << 30;
        for (memory, bytes, window) in [
            (0, 0, small),
            (u64::MAX, 0, usual),
            (0, SOME, small),
            (takes(SOME, small * 2) - 1, SOME, small),
            (takes(SOME, small * 2), SOME, small * 2),
            (takes(SOME, usual) - 1, SOME, usual / 2),
            (takes(SOME, usual), SOME, usual),
            (u64::MAX, SOME, usual),
            (0, at_most(small), small),
            (0, at_most(small) + 4096, small * 2),
            (u64::MAX, at_most(usual), usual),
            (u64::MAX, at_most(usual) + 4096, usual * 2),
            (0, FILE_BYTES_LIMIT, large),
        ] {
            assert_eq!(within(memory, bytes), Ok(window), "{bytes} bytes in {memory}");
        }
        let too_large = FILE_BYTES_LIMIT + 4096;
        assert_eq!(within(0, too_large), Err(BadGeometry::FileBytes(too_large)));
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
        assert_eq!((wire.blocks, wire.signatures), (0, 0));
        assert_eq!(wire.patches, file.len() + 2 * 5);
    }

    #[test]
    fn pages_that_moved_are_not_sent() {
        let old = Random(1).bytes(1 << 20);
        let page = |number: usize| &old[number * 4096..][..4096];
        // The other way round, with a few pages that are new.
        let mut new: Vec<u8> = (0..256).rev().flat_map(page).copied().collect();
        new[5 * 4096..7 * 4096].copy_from_slice(&Random(2).bytes(2 * 4096));
        let geometry = Geometry::new(1 << 20, 4096, 256 * 1024).expect("sound");
        let (made, wire) = converse(geometry, &old, &new);
        assert!(made == new);
        assert!(wire.patches < 2 * 4096 + 100, "{wire:?}");
        assert_eq!(wire.page_digests, 256 * PageDigest::BYTES);
    }

    #[test]
    fn bytes_that_were_pushed_about_in_a_page_are_found() {
        let old = Random(1).bytes(256 * 1024);
        let mut new = old.clone();
        for page in [3, 4, 50] {
            new[page * 4096..][..4096].rotate_right(100);
        }
        let geometry = Geometry::new(256 * 1024, 4096, 256 * 1024).expect("sound");
        let (made, wire) = converse(geometry, &old, &new);
        assert!(made == new);
        assert!(wire.patches < 3 * 1000, "{wire:?}");
    }

    #[test]
    fn a_chance_match_of_digests_is_noticed_and_mended() {
        let (old, new) = (Random(1).bytes(256 * 1024), Random(2).bytes(256 * 1024));
        let window =
            Geometry::new(256 * 1024, 4096, 256 * 1024).ok().and_then(|g| g.window(0)).expect("sound");
        let announced = WindowDigest::of(window, &new);
        let mut packer = Packer::new();
        let mut patch = |pages: &PageSet, blocks: &BlockDigests| {
            make_patch(window, &new, pages, blocks, None, &mut packer, Packing::Packed)
        };
        // A page that is taken for one of ours.
        let all_but_one = PageSet::of(window, |number| number != 7);
        let said = patch(&all_but_one, &BlockDigests::none());
        let made = apply_patch(window, old.clone(), &all_but_one, 0, &said, announced);
        assert_eq!(made, Err(BadPatch::WrongDigest));
        // A block that is.
        let all = PageSet::all(window);
        let mut digests = BlockDigests::of(window, &old, &all).to_bytes().to_vec();
        digests[..2].copy_from_slice(&BlockDigests::of(window, &new, &all).to_bytes()[..2]);
        let blocks = BlockDigests::parse(window, &all, digests).expect("as many");
        let made = apply_patch(window, old.clone(), &all, 64, &patch(&all, &blocks), announced);
        assert_eq!(made, Err(BadPatch::WrongDigest));
        let made = apply_patch(window, old, &all, 0, &patch(&all, &BlockDigests::none()), announced);
        assert!(made.is_ok_and(|made| made.bytes == new));
    }

    #[test]
    fn a_file_that_shrank_meanwhile_is_noticed() {
        let (old, new) = (Random(1).bytes(256 * 1024), Random(2).bytes(256 * 1024));
        let window =
            Geometry::new(256 * 1024, 4096, 256 * 1024).ok().and_then(|g| g.window(0)).expect("sound");
        let (cut, all) = (&new[..100_000], PageSet::all(window));
        let (blocks, packing) = (BlockDigests::none(), Packing::Plain);
        let patch = make_patch(window, cut, &all, &blocks, None, &mut Packer::new(), packing);
        let announced = WindowDigest::of(window, &new);
        assert_eq!(apply_patch(window, old, &all, 0, &patch, announced), Err(BadPatch::Damaged));
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
    fn what_happens_to_real_databases_takes_little_of_a_full_copy() {
        let room = tempfile::tempdir().expect("a temporary directory");
        let path = room.path().join("container.db");
        let mut random = Random(7);
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
                 content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0);
             CREATE INDEX ix_object_deleted_name ON object (deleted, name);
             CREATE TABLE junk (bytes); INSERT INTO junk VALUES (zeroblob(500000));",
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
        let inserted = std::fs::read(&path).expect("a file");
        db.execute_batch("DROP TABLE junk").expect("room");
        let with_room = std::fs::read(&path).expect("a file");
        db.execute_batch("VACUUM").expect("vacuumed");
        let vacuumed = std::fs::read(&path).expect("a file");
        // Pages of the table move; those of the index are made anew.
        for (old, new, part) in [(&old, &inserted, 5), (&with_room, &vacuumed, 2)] {
            let geometry = Geometry::new(new.len() as u64, 4096, USUAL_WINDOW_BYTES).expect("sound");
            let (made, wire) = converse(geometry, old, new);
            assert!(made == *new);
            let windows = new.chunks(USUAL_WINDOW_BYTES as usize);
            let full_bytes: usize = windows.map(|piece| compress_literals(piece).len()).sum();
            assert!(wire.total() * part < full_bytes, "{wire:?} of {full_bytes}");
            assert!(wire.again <= 3, "{wire:?}");
        }
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
            step in 0..5,
            lie in lie(),
        ) {
            let tell = |now, message| if now == step { lie.tell(message) } else { message };
            let mut random = Random(seed);
            let old = random.bytes(60 * 4096);
            let mut new = old.clone();
            edits.iter().for_each(|edit| edit.apply(&mut new, 4096, &mut random));
            let geometry = Geometry::new(new.len() as u64, 4096, 256 * 1024).expect("sound");
            let index = index_of(geometry, &old);
            for window in geometry.windows() {
                let basis = part(&old, window.basis_range(old.len() as u64));
                let new = &new[window.offset() as usize..][..window.bytes()];
                let said = tell(0, PageDigests::of(window, new).to_bytes());
                let Ok(digests) = PageDigests::parse(window, &said) else { continue };
                let (so_far, lacking, with_basis) = found(window, &old, &index, &digests);
                let Ok(pages) = PageSet::parse(window, &tell(1, lacking.to_bytes())) else { continue };
                let said = tell(2, BlockDigests::of(window, basis, &lacking).to_bytes().to_vec());
                let Ok(blocks) = BlockDigests::parse(window, &pages, said) else { continue };
                let said = tell(3, Signature::of(window, basis, &lacking).to_bytes().to_vec());
                let Ok(signature) = Signature::parse(window, &pages, said) else { continue };
                let (mut packer, packing) = (Packer::new(), Packing::Packed);
                let patch = make_patch(window, new, &pages, &blocks, Some(&signature), &mut packer, packing);
                let patch = tell(4, patch);
                let announced = WindowDigest::of(window, new);
                if let Ok(made) = apply_patch(window, so_far, &lacking, with_basis, &patch, announced) {
                    prop_assert!(made.bytes == new);
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
