//! Which parts of a page changed where they stand. SQLite adds a cell to a page without moving the others, so that most of
//! a page that changed is still in its place, and need not be looked for.

use std::fmt;

use super::{PageSet, Window};

/// Bytes of a block: on pages into which cells were put, smaller ones cost more digests than they save, larger ones more
/// bytes.
const BLOCK_BYTES: usize = 128;
/// Bytes of a block's digest. Two different blocks are taken for equal once in 65,536 times; the window's digest then
/// fails, and the window is sent again in full.
const DIGEST_BYTES: usize = 2;

/// Digests of the blocks of a set's pages, as the basis has them; of the first pages of the set, if it does not have all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDigests(Vec<u8>);

/// More or fewer bytes than the pages asked about can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBlocks(usize);

impl fmt::Display for BadBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not about the blocks of these pages: {} bytes", self.0)
    }
}

impl std::error::Error for BadBlocks {}

impl BlockDigests {
    /// Of the pages of the set, as far as the basis has them.
    pub fn of(window: Window, basis: &[u8], pages: &PageSet) -> BlockDigests {
        let there = pages.numbers(window).map_while(|number| window.page(basis, number));
        BlockDigests(there.flat_map(|page| page.chunks_exact(BLOCK_BYTES)).flat_map(digest).collect())
    }

    /// Of nothing: all pages are to be sent in full.
    pub fn none() -> BlockDigests {
        BlockDigests(Vec::new())
    }

    /// As they are sent.
    pub fn to_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what the receiver sent about the pages of a set.
    ///
    /// # Errors
    /// [`BadBlocks`] if they are not those of so many pages, or fewer.
    pub fn parse(window: Window, pages: &PageSet, bytes: Vec<u8>) -> Result<BlockDigests, BadBlocks> {
        let of_page = per_page(window) * DIGEST_BYTES;
        match bytes.len() % of_page == 0 && bytes.len() / of_page <= pages.len() {
            true => Ok(BlockDigests(bytes)),
            false => Err(BadBlocks(bytes.len())),
        }
    }

    /// The blocks of a page that changed, if its digests are here; `nth` counts the pages of the set.
    pub(super) fn changed(&self, window: Window, nth: usize, page: &[u8]) -> Option<Changed> {
        let of_page = per_page(window) * DIGEST_BYTES;
        let known = self.0.get(nth * of_page..)?.get(..of_page)?;
        let mut changed = Changed(vec![0; Changed::list_bytes(window)]);
        for (number, block) in page.chunks_exact(BLOCK_BYTES).enumerate() {
            if known[number * DIGEST_BYTES..][..DIGEST_BYTES] != digest(block) {
                changed.0[number / 8] |= 1 << (number % 8);
            }
        }
        Some(changed)
    }
}

/// A bit for each block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed(Vec<u8>);

impl Changed {
    /// Bytes of one, for a page of this window.
    pub(super) fn list_bytes(window: Window) -> usize {
        per_page(window).div_ceil(8)
    }

    /// Reads one; `None` if it names a block past the page's last.
    pub(super) fn parse(window: Window, bits: &[u8]) -> Option<Changed> {
        let past_end =
            (per_page(window)..bits.len() * 8).any(|number| bits[number / 8] >> (number % 8) & 1 == 1);
        (!past_end && bits.len() == Changed::list_bytes(window)).then(|| Changed(bits.to_vec()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes of the page they are.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum::<usize>() * BLOCK_BYTES
    }

    /// Where they lie in the page, in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let has = |number: &usize| self.0[number / 8] >> (number % 8) & 1 == 1;
        (0..self.0.len() * 8).filter(has).map(|number| number * BLOCK_BYTES..(number + 1) * BLOCK_BYTES)
    }
}

fn per_page(window: Window) -> usize {
    window.page_bytes / BLOCK_BYTES
}

/// Any mixing of all bits will do, and a quick one does best: nobody gains by a collision.
fn digest(block: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut mixed = 0_u64;
    for word in block.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        mixed = (mixed.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    let [.., high, top] = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93).to_le_bytes();
    [high, top]
}

#[cfg(test)]
mod tests {
    use super::super::{Geometry, USUAL_WINDOW_BYTES};
    use super::*;

    fn window(page_bytes: u32, pages: u64) -> Window {
        let geometry = Geometry::new(pages * u64::from(page_bytes), page_bytes, USUAL_WINDOW_BYTES);
        geometry.ok().and_then(|geometry| geometry.window(0)).expect("sound")
    }

    #[test]
    fn what_changed_in_its_place_is_found_to_the_block() {
        for page_bytes in [512, 4096, 65536] {
            let window = window(page_bytes, 3);
            let old: Vec<u8> = (0..window.bytes()).map(|at| (at / 3) as u8).collect();
            let mut new = old.clone();
            new[page_bytes as usize + 130] ^= 1;
            new[window.bytes() - 1] ^= 1;
            let all = PageSet::all(window);
            let digests = BlockDigests::of(window, &old, &all);
            assert_eq!(BlockDigests::parse(window, &all, digests.to_bytes().to_vec()).as_ref(), Ok(&digests));
            let page = page_bytes as usize;
            for (nth, expected) in [(0, None), (1, Some(128..256)), (2, Some(page - 128..page))] {
                let changed = digests.changed(window, nth, window.page(&new, nth).unwrap()).unwrap();
                assert_eq!(changed.bytes(), expected.iter().len() * 128);
                assert!(changed.ranges().eq(expected));
                assert_eq!(Changed::parse(window, changed.as_bytes()).as_ref(), Some(&changed));
            }
        }
    }

    #[test]
    fn a_basis_that_ends_early_tells_of_what_it_has() {
        let window = window(4096, 5);
        let old = vec![1; 3 * 4096 - 1];
        let all = PageSet::all(window);
        let digests = BlockDigests::of(window, &old, &all);
        assert!(digests.changed(window, 1, &old[..4096]).is_some());
        assert!(digests.changed(window, 2, &old[..4096]).is_none());
        assert!(BlockDigests::none().changed(window, 0, &old[..4096]).is_none());
    }

    #[test]
    fn no_more_is_taken_than_the_pages_have() {
        let window = window(512, 5);
        let parse = |pages: &PageSet, bytes| BlockDigests::parse(window, pages, vec![0; bytes]).is_ok();
        let (all, none) = (PageSet::all(window), PageSet::parse(window, &[0]).expect("an empty set"));
        assert!(parse(&all, 0) && parse(&all, 8) && parse(&all, 40));
        assert!(!parse(&all, 7) && !parse(&all, 9) && !parse(&all, 48));
        assert!(parse(&none, 0) && !parse(&none, 8));
        // Four blocks to a page: the upper half of the byte means nothing.
        assert!(Changed::parse(window, &[0x0f]).is_some());
        assert!([&[0x10][..], &[], &[0, 0]].iter().all(|bits| Changed::parse(window, bits).is_none()));
    }
}
