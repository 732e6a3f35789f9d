//! What pages a window has, and which of them the receiver lacks: the sender's digests, the receiver's answer.

use std::fmt;

use super::{Window, blake3_start};

/// Stands for one page: BLAKE3, cut short. Two different pages are taken for equal once in 2^40 times, the window's
/// digest then fails, and the window is sent again in full; a longer digest would cost more than that ever does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageDigest(pub [u8; PageDigest::BYTES]);

impl PageDigest {
    /// Bytes of one.
    pub const BYTES: usize = 5;

    /// Of a page's bytes.
    pub fn of(page: &[u8]) -> PageDigest {
        PageDigest(blake3_start(page))
    }

    /// One that was sent, of exactly [`PageDigest::BYTES`] bytes.
    pub fn read(bytes: &[u8]) -> PageDigest {
        PageDigest(std::array::from_fn(|nth| bytes[nth]))
    }
}

/// The digests of the pages of a window, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageDigests(Vec<PageDigest>);

/// Why bytes do not say digests or a set of pages of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPages {
    /// More or fewer bytes than such a window can take.
    Length(usize),
    /// Names a page past the window's last.
    PastEnd,
}

impl fmt::Display for BadPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPages::Length(bytes) => write!(f, "not about the pages of this window: {bytes} bytes"),
            BadPages::PastEnd => f.write_str("names a page past the end of the window"),
        }
    }
}

impl std::error::Error for BadPages {}

impl PageDigests {
    /// Of the whole pages in what the basis has of the window.
    pub fn of(window: Window, basis: &[u8]) -> PageDigests {
        let pages = (0..window.page_count()).map_while(|number| window.page(basis, number));
        PageDigests(pages.map(PageDigest::of).collect())
    }

    /// How many pages they are of.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of the pages.
    pub fn iter(&self) -> impl Iterator<Item = PageDigest> {
        self.0.iter().copied()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they are sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|digest| digest.0).collect()
    }

    /// Reads what a sender sent for a window: none, or up to as many as it has pages.
    ///
    /// # Errors
    /// [`BadPages::Length`] if there are more, or one is cut.
    pub fn parse(window: Window, bytes: &[u8]) -> Result<PageDigests, BadPages> {
        if bytes.len() % PageDigest::BYTES != 0 || bytes.len() / PageDigest::BYTES > window.page_count() {
            return Err(BadPages::Length(bytes.len()));
        }
        Ok(PageDigests(bytes.chunks_exact(PageDigest::BYTES).map(PageDigest::read).collect()))
    }
}

/// Some of a window's pages: a bit for each, the lowest bit of a byte first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSet(Vec<u8>);

impl PageSet {
    /// Every page of the window, to send it in full.
    pub fn all(window: Window) -> PageSet {
        PageSet::of(window, |_| true)
    }

    /// The pages for which it holds.
    pub fn of(window: Window, has: impl Fn(usize) -> bool) -> PageSet {
        let mut bits = vec![0; window.page_count().div_ceil(8)];
        (0..window.page_count())
            .filter(|&number| has(number))
            .for_each(|number| bits[number / 8] |= 1 << (number % 8));
        PageSet(bits)
    }

    /// Puts a page in; one past the window's last is left out.
    pub fn insert(&mut self, number: usize) {
        if let Some(byte) = self.0.get_mut(number / 8) {
            *byte |= 1 << (number % 8);
        }
    }

    /// As it is sent: at most 1 KiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    /// Reads what a receiver sent for a window.
    ///
    /// # Errors
    /// [`BadPages`] if it is not of this window's length, or names a page that the window does not have.
    pub fn parse(window: Window, bytes: &[u8]) -> Result<PageSet, BadPages> {
        if bytes.len() != window.page_count().div_ceil(8) {
            return Err(BadPages::Length(bytes.len()));
        }
        let spare_bits = bytes.len() * 8 - window.page_count();
        match bytes.last() {
            Some(last) if (last.leading_zeros() as usize) < spare_bits => Err(BadPages::PastEnd),
            _ => Ok(PageSet(bytes.to_vec())),
        }
    }

    /// Whether it has a page.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / 8).is_some_and(|byte| byte & (1 << (number % 8)) != 0)
    }

    /// The numbers of its pages, ascending.
    pub(super) fn numbers(&self, window: Window) -> impl Iterator<Item = usize> {
        (0..window.page_count()).filter(|&number| self.contains(number))
    }

    /// How many pages it has.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of its pages, one after the other, as far as the slice has them.
    pub(super) fn gather(&self, window: Window, bytes: &[u8]) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(self.len() * window.page_bytes);
        for number in (0..window.page_count()).filter(|&number| self.contains(number)) {
            gathered.extend_from_slice(window.page(bytes, number).unwrap_or_default());
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use super::super::Geometry;
    use super::*;

    const PAGE: usize = 65536;

    fn window(pages: u64) -> Window {
        let geometry = Geometry::new(pages * PAGE as u64, PAGE as u32, 1 << 20).expect("sound");
        geometry.window(0).expect("one window")
    }

    #[test]
    fn the_set_has_what_was_put_in() {
        let file: Vec<u8> = (0..5).flat_map(|page| vec![page; PAGE]).collect();
        let mut set = PageSet::of(window(5), |number| number == 1);
        [3, 4, 4].into_iter().for_each(|number| set.insert(number));
        set.insert(8);
        assert_eq!(set.numbers(window(5)).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!((set.len(), set.is_empty()), (3, false));
        assert_eq!(set.gather(window(5), &file), [&file[PAGE..2 * PAGE], &file[3 * PAGE..]].concat());
    }

    #[test]
    fn digests_are_of_whole_pages_and_never_more_than_the_window_has() {
        let basis = vec![1; 6 * PAGE];
        assert_eq!(PageDigests::of(window(5), &basis).to_bytes().len(), 5 * PageDigest::BYTES);
        assert_eq!(PageDigests::of(window(5), &basis[..2 * PAGE - 1]).to_bytes().len(), PageDigest::BYTES);
        assert_eq!(PageDigests::of(window(5), &[]).to_bytes(), Vec::<u8>::new());
    }

    #[test]
    fn messages_are_bounded_by_the_window() {
        let digests = |bytes: usize| PageDigests::parse(window(5), &vec![0; bytes]).is_ok();
        assert!(digests(0) && digests(PageDigest::BYTES) && digests(5 * PageDigest::BYTES));
        assert!(!digests(1) && !digests(6 * PageDigest::BYTES) && !digests(5 * PageDigest::BYTES + 1));
        for (bytes, outcome) in [
            (&[][..], Err(BadPages::Length(0))),
            (&[0], Ok(0)),
            (&[0b0001_1111], Ok(5)),
            (&[0b0010_0000], Err(BadPages::PastEnd)),
            (&[0, 0], Err(BadPages::Length(2))),
        ] {
            assert_eq!(PageSet::parse(window(5), bytes).map(|set| set.len()), outcome, "{bytes:?}");
        }
        assert_eq!(PageSet::parse(window(8), &[0xFF]).map(|set| set.len()), Ok(8));
    }
}
