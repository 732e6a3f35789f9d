//! What moved within pages that differ: rsync's rolling checksums, over a few pages at a time.
//!
//! fast_rsync trusts whoever made a signature (a block size of 0 makes it panic, or loop for ever), so a peer's is
//! taken apart and measured here before that crate sees it. Its MD4 is no proof of anything; the window's digest is.

use std::fmt;
use std::ops::RangeInclusive;

use super::{PageSet, Window};

/// Bytes of a block in the signatures we make. A page into which a cell was pushed keeps most such blocks; with half
/// as many bytes the signature grows by more than the literals shrink, with twice as many it is the other way round.
const BLOCK_BYTES: u32 = 256;
/// Bytes of MD4 kept for a block, beside the four of checksum. A longer one costs every window more than sending one
/// again after a false match does.
const HASH_BYTES: u32 = 4;
/// Blocks taken from a peer. Small ones take memory: at 128 bytes the signature and what fast_rsync makes of it stay
/// under 1.6 times the pages, equal checksums and all. Large ones take time: where checksums are made to match and
/// hashes not, a block is hashed at every byte.
const BLOCK_BYTES_TAKEN: RangeInclusive<u32> = 128..=512;
/// MD4 has no more than 16.
const HASH_BYTES_TAKEN: RangeInclusive<u32> = 1..=16;
/// `rs_magic` of librsync for MD4.
const MAGIC: u32 = 0x7273_0136;
const HEADER_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// A rolling signature of the pages of a set, one after the other, as far as the basis has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(fast_rsync::Signature);

/// Why bytes of a peer are no signature for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSignature {
    /// Too short, or not the mark of an MD4 signature.
    Header,
    /// A size that blocks cannot have.
    BlockBytes(u32),
    /// A length that hashes cannot have.
    HashBytes(u32),
    /// A block is cut, or there are more than the pages asked about can have.
    Length(usize),
}

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSignature::Header => f.write_str("not a rolling signature"),
            BadSignature::BlockBytes(bytes) => write!(f, "no size for a block: {bytes} bytes"),
            BadSignature::HashBytes(bytes) => write!(f, "no length for a hash: {bytes} bytes"),
            BadSignature::Length(bytes) => write!(f, "not a signature of these pages: {bytes} bytes"),
        }
    }
}

impl std::error::Error for BadSignature {}

impl Signature {
    /// Of the pages of the set, as the basis has them.
    pub fn of(window: Window, basis: &[u8], pages: &PageSet) -> Signature {
        let options = fast_rsync::SignatureOptions { block_size: BLOCK_BYTES, crypto_hash_size: HASH_BYTES };
        Signature(fast_rsync::Signature::calculate(&pages.gather(window, basis), options))
    }

    /// How long one is of so many bytes.
    pub(super) fn bytes_for(signed_bytes: usize) -> usize {
        HEADER_BYTES + signed_bytes.div_ceil(BLOCK_BYTES as usize) * (CHECKSUM_BYTES + HASH_BYTES as usize)
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> &[u8] {
        self.0.serialized()
    }

    /// Reads what the receiver sent about the pages of a set.
    ///
    /// # Errors
    /// [`BadSignature`] if it could not have been made of that many pages with a block size and hash length in bounds.
    pub fn parse(window: Window, pages: &PageSet, bytes: Vec<u8>) -> Result<Signature, BadSignature> {
        let (header, blocks) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(BadSignature::Header)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let [magic, block_bytes, hash_bytes] = [0, 4, 8].map(word);
        if magic != MAGIC {
            return Err(BadSignature::Header);
        }
        if !BLOCK_BYTES_TAKEN.contains(&block_bytes) {
            return Err(BadSignature::BlockBytes(block_bytes));
        }
        if !HASH_BYTES_TAKEN.contains(&hash_bytes) {
            return Err(BadSignature::HashBytes(hash_bytes));
        }
        let blocks_limit = (pages.len() * window.page_bytes).div_ceil(block_bytes as usize);
        let block_entry_bytes = CHECKSUM_BYTES + hash_bytes as usize;
        if blocks.len() % block_entry_bytes != 0 || blocks.len() / block_entry_bytes > blocks_limit {
            return Err(BadSignature::Length(bytes.len()));
        }
        fast_rsync::Signature::deserialize(bytes).map(Signature).map_err(|_| BadSignature::Header)
    }

    /// How to make `new` of what was signed, in librsync's delta format; `None` if that takes as many bytes as `new` has.
    pub(super) fn script(&self, new: &[u8]) -> Option<Vec<u8>> {
        let mut script = vec![0; new.len().checked_sub(1)?];
        let mut room = &mut script[..];
        fast_rsync::diff(&self.0.index(), new, &mut room).ok()?;
        let spare_bytes = room.len();
        script.truncate(script.len() - spare_bytes);
        Some(script)
    }
}

/// Whether it is worth to look for bytes that moved. Where it was in vain it is left alone for a while, twice as long each
/// time: a signature costs bytes, and following it time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hope {
    pause: u32,
    left: u32,
}

impl Hope {
    /// Shall the next window be signed?
    pub fn wants(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return true,
        }
        false
    }

    /// A signature was worth it, or not.
    pub fn learned(&mut self, it_paid: bool) {
        self.pause = if it_paid { 0 } else { (self.pause * 2).clamp(1, LONGEST_PAUSE) };
        self.left = self.pause;
    }
}

/// Windows that are left alone at most before the next try.
const LONGEST_PAUSE: u32 = 64;

/// Follows a script over what was signed; `None` if it is damaged, or makes another number of bytes.
pub(super) fn follow(script: &[u8], signed: &[u8], made_bytes: usize) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(made_bytes);
    fast_rsync::apply_limited(signed, script, &mut made, made_bytes).ok()?;
    (made.len() == made_bytes).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::super::Geometry;
    use super::*;

    const PAGE: usize = 4096;

    fn window() -> Window {
        Geometry::new(4 * PAGE as u64, PAGE as u32, 1 << 20).ok().and_then(|g| g.window(0)).expect("sound")
    }

    fn signature(block_bytes: u32, hash_bytes: u32, blocks_bytes: usize) -> Vec<u8> {
        let header = [MAGIC, block_bytes, hash_bytes].map(u32::to_be_bytes).concat();
        [header, vec![0; blocks_bytes]].concat()
    }

    #[test]
    fn our_own_signature_is_taken_and_finds_what_moved() {
        let old: Vec<u8> =
            (0..4 * PAGE as u32).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[0]).collect();
        let mut new = old.clone();
        new[100..3 * PAGE].rotate_right(1000);
        let all = PageSet::all(window());
        let signed = Signature::of(window(), &old, &all);
        let taken = Signature::parse(window(), &all, signed.to_bytes().to_vec());
        assert_eq!(taken.as_ref(), Ok(&signed));
        let script = signed.script(&new).expect("shorter than the pages");
        assert!(script.len() < 3000, "{} bytes", script.len());
        assert_eq!(follow(&script, &old, new.len()), Some(new.clone()));
        assert_eq!(follow(&script, &old, new.len() - 1), None);
        assert_eq!(follow(&script, &old, new.len() + 1), None);
    }

    #[test]
    fn hope_fades_and_comes_back() {
        let mut hope = Hope::default();
        let mut tries = Vec::new();
        for window in 0..300 {
            if hope.wants() {
                tries.push(window);
                hope.learned(false);
            }
        }
        assert_eq!(tries, [0, 2, 5, 10, 19, 36, 69, 134, 199, 264]);
        while !hope.wants() {}
        hope.learned(true);
        assert!(hope.wants() && hope.wants());
    }

    #[test]
    fn a_script_is_shorter_than_the_pages_or_there_is_none() {
        let all = PageSet::all(window());
        let nothing = Signature::of(window(), &[], &all);
        let random: Vec<u8> =
            (0..4 * PAGE as u32).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[0]).collect();
        assert_eq!(nothing.script(&random), None);
        assert_eq!(nothing.script(&[]), None);
    }

    #[test]
    fn sizes_that_fast_rsync_would_choke_on_are_refused() {
        let parse = |bytes: Vec<u8>| Signature::parse(window(), &PageSet::all(window()), bytes).map(|_| ());
        for (block_bytes, taken) in
            [(0, false), (1, false), (127, false), (128, true), (512, true), (513, false), (u32::MAX, false)]
        {
            let expected = if taken { Ok(()) } else { Err(BadSignature::BlockBytes(block_bytes)) };
            assert_eq!(parse(signature(block_bytes, 4, 80)), expected);
        }
        for (hash_bytes, taken) in [(0, false), (1, true), (16, true), (17, false), (u32::MAX, false)] {
            let expected = if taken { Ok(()) } else { Err(BadSignature::HashBytes(hash_bytes)) };
            assert_eq!(parse(signature(256, hash_bytes, 0)), expected);
        }
    }

    #[test]
    fn no_more_blocks_are_taken_than_the_pages_have() {
        let parse = |pages: &PageSet, bytes: usize| {
            Signature::parse(window(), pages, signature(256, 4, bytes)).is_ok()
        };
        let (all, none) = (PageSet::all(window()), PageSet::parse(window(), &[0]).expect("an empty set"));
        assert!(parse(&all, 0) && parse(&all, 8) && parse(&all, 64 * 8));
        assert!(!parse(&all, 7) && !parse(&all, 64 * 8 + 1) && !parse(&all, 65 * 8));
        assert!(parse(&none, 0) && !parse(&none, 8));
    }

    #[test]
    fn what_is_no_md4_signature_is_refused() {
        let parse = |bytes: &[u8]| Signature::parse(window(), &PageSet::all(window()), bytes.to_vec());
        let sound = signature(256, 4, 0);
        for end in 0..HEADER_BYTES {
            assert_eq!(parse(&sound[..end]), Err(BadSignature::Header));
        }
        let blake2 = [&0x7273_0137_u32.to_be_bytes(), &sound[4..]].concat();
        assert_eq!(parse(&blake2), Err(BadSignature::Header));
    }
}
