//! Where a page of the basis went. Whoever makes a file smaller moves whole pages of it, and SQLite does not change what
//! is in them; so before anybody looks for moved bytes, moved pages are looked up.

use super::PageDigest;

/// The pages of a basis that are not in their place any more, by their digests: eight bytes for each.
#[derive(Debug, Clone)]
pub struct PageIndex {
    entries: Vec<u64>,
    limit: usize,
    sorted: bool,
}

impl PageIndex {
    /// What it is worth giving it: 1 GiB of pages of 4 KiB that changed or moved.
    pub const BYTES: u64 = 2 << 20;

    /// An empty one that takes no more memory than this.
    pub fn within(bytes: u64) -> PageIndex {
        let limit = bytes.min(PageIndex::BYTES) as usize / size_of::<u64>();
        PageIndex { entries: vec![], limit, sorted: false }
    }

    /// Takes in a page of the basis. Those that there is no room for are left out: they are sent rather than found.
    pub fn add(&mut self, digest: PageDigest, page: u64) {
        if self.entries.len() < self.limit && page < 1 << PAGE_BITS {
            self.entries.push(key(digest) << PAGE_BITS | page);
            self.sorted = false;
        }
    }

    /// Makes it ready to be asked.
    pub fn sort(&mut self) {
        if !self.sorted {
            self.entries.sort_unstable();
            self.sorted = true;
        }
    }

    /// The pages that have this digest: the first few of them, of pages like which there are many.
    pub fn find(&self, digest: PageDigest) -> impl Iterator<Item = u64> {
        debug_assert!(self.sorted || self.entries.is_empty());
        let first = self.entries.partition_point(|entry| entry >> PAGE_BITS < key(digest));
        let found = self.entries[first..].iter().take_while(move |entry| *entry >> PAGE_BITS == key(digest));
        found.take(CANDIDATES).map(|entry| entry & ((1 << PAGE_BITS) - 1))
    }
}

fn key(digest: PageDigest) -> u64 {
    digest.0.iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// Bits of a page's number: what five bytes of digest leave of eight. In pages of 4 KiB, 64 GiB.
const PAGE_BITS: u32 = u64::BITS - 8 * PageDigest::BYTES as u32;
/// Equal pages that are tried.
const CANDIDATES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_wherever_it_went() {
        let mut index = PageIndex::within(u64::MAX);
        assert_eq!(index.find(PageDigest::of(b"x")).count(), 0);
        let pages: Vec<Vec<u8>> = (0..1000_u32).map(|n| n.to_le_bytes().repeat(128)).collect();
        for (number, page) in pages.iter().enumerate() {
            index.add(PageDigest::of(page), number as u64);
        }
        (0..9).for_each(|number| index.add(PageDigest::of(b"many"), 5000 - number));
        index.add(PageDigest::of(b"too far"), 1 << PAGE_BITS);
        index.sort();
        for (number, page) in pages.iter().enumerate() {
            assert_eq!(index.find(PageDigest::of(page)).collect::<Vec<_>>(), [number as u64]);
        }
        assert_eq!(index.find(PageDigest::of(b"many")).collect::<Vec<_>>(), [4992, 4993, 4994, 4995]);
        assert_eq!(index.find(PageDigest::of(b"too far")).count(), 0);
        assert_eq!(index.find(PageDigest::of(b"never")).count(), 0);
    }

    #[test]
    fn it_grows_to_its_limit_and_no_further() {
        for (bytes, pages) in
            [(0, 0), (7, 0), (8, 1), (8000, 1000), (u64::MAX, PageIndex::BYTES as usize / 8)]
        {
            let mut index = PageIndex::within(bytes);
            for page in 0..pages as u64 + 10 {
                index.add(PageDigest(page.to_le_bytes()[..5].try_into().unwrap()), page);
            }
            assert_eq!(index.entries.len(), pages);
        }
    }
}
