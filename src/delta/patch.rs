//! One window's difference, made and applied.
//!
//! Of a page that the receiver lacks, only those blocks are sent that are not in their place; or, where cells were pushed
//! about in it, what a rolling signature does not find.

use std::fmt;

use super::blocks::{BlockDigests, Changed};
use super::literals::{Packer, decompress_up_to};
use super::rolling::{Signature, follow};
use super::{Packing, PageSet, Window, WindowDigest, WindowNode};

/// Why a patch does not make the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPatch {
    /// Damaged, or it makes more or fewer bytes than its pages have.
    Damaged,
    /// It makes a window, but not the one that was announced: a short digest matched by chance, the file changed
    /// meanwhile, or the peer lies. Ask for all pages, in full.
    WrongDigest,
}

impl fmt::Display for BadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPatch::Damaged => "a damaged patch, or one of other pages",
            BadPatch::WrongDigest => "the patched window is not the one announced",
        })
    }
}

impl std::error::Error for BadPatch {}

/// What of the pages of a set the receiver lacks, packed: the blocks that its digests do not have; of pages that have few
/// of those, what its signature does not find; and all of a page of which nothing is known.
pub fn make_patch(
    window: Window,
    new: &[u8],
    pages: &PageSet,
    blocks: &BlockDigests,
    signature: Option<&Signature>,
    packer: &mut Packer,
    packing: Packing,
) -> Vec<u8> {
    let page = |number| window.page(new, number).unwrap_or_default();
    let numbers: Vec<usize> = pages.numbers(window).collect();
    let changed: Vec<Option<Changed>> =
        (0..numbers.len()).map(|nth| blocks.changed(window, nth, page(numbers[nth]))).collect();
    let is_pushed = |nth: usize| changed[nth].as_ref().is_some_and(|it| it.bytes() * 2 > window.page_bytes);
    let script = signature.and_then(|signature| {
        let pushed = (0..numbers.len()).filter(|nth| is_pushed(*nth));
        signature.script(&pushed.flat_map(|nth| page(numbers[nth])).copied().collect::<Vec<u8>>())
    });
    let mut body = Vec::new();
    if let Some(script) = &script {
        body.extend_from_slice(&(script.len() as u32).to_be_bytes());
        let mut bits = vec![0; numbers.len().div_ceil(8)];
        (0..numbers.len()).filter(|nth| is_pushed(*nth)).for_each(|nth| bits[nth / 8] |= 1 << (nth % 8));
        body.extend_from_slice(&bits);
    } else {
        body.extend_from_slice(&[0; 4]);
    }
    let by_blocks = |nth: &usize| script.is_none() || !is_pushed(*nth);
    for nth in (0..numbers.len()).filter(by_blocks) {
        body.extend_from_slice(changed[nth].as_ref().map_or(&[][..], Changed::as_bytes));
    }
    for nth in (0..numbers.len()).filter(by_blocks) {
        let page = page(numbers[nth]);
        match &changed[nth] {
            Some(changed) => changed.ranges().for_each(|range| body.extend_from_slice(&page[range])),
            None => body.extend_from_slice(page),
        }
    }
    body.extend_from_slice(&script.unwrap_or_default());
    let mut patch = Vec::new();
    packer.pack(packing, &body, &mut patch);
    patch
}

/// The most bytes of a patch for so many pages of a window.
pub fn patch_limit_bytes(window: Window, pages: usize) -> usize {
    body_limit_bytes(window, pages) + 1
}

fn body_limit_bytes(window: Window, pages: usize) -> usize {
    SCRIPT_LENGTH_BYTES + pages.div_ceil(8) + pages * (Changed::list_bytes(window) + window.page_bytes)
}

/// A window made of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The window, which has the digest that was announced.
    pub bytes: Vec<u8>,
    /// Its node.
    pub node: WindowNode,
    /// The signature found something, and saved more than it cost.
    pub signature_paid: bool,
}

/// The new window, of a patch for the pages of a set and of what is there so far: other pages as they shall be, and those
/// of the set as the basis has them, of which the first so many were signed. Whatever the patch is, what comes back has the
/// digest that was announced.
///
/// # Errors
/// [`BadPatch`]. Nothing larger than the window is ever allocated on the way.
pub fn apply_patch(
    window: Window,
    so_far: Vec<u8>,
    pages: &PageSet,
    signed_pages: usize,
    patch: &[u8],
    announced: WindowDigest,
) -> Result<Applied, BadPatch> {
    let numbers: Vec<usize> = pages.numbers(window).collect();
    let body = decompress_up_to(patch, body_limit_bytes(window, numbers.len()));
    let mut bytes = so_far;
    let signature_paid = body
        .ok()
        .and_then(|body| follow_body(window, &mut bytes, &numbers, signed_pages, &body))
        .ok_or(BadPatch::Damaged)?;
    let node = WindowNode::of(window, &bytes);
    match node.digest() == announced {
        true => Ok(Applied { bytes, node, signature_paid }),
        false => Err(BadPatch::WrongDigest),
    }
}

/// Puts what a patch holds in its place; `None` if it is damaged.
fn follow_body(
    window: Window,
    bytes: &mut [u8],
    numbers: &[usize],
    signed_pages: usize,
    mut body: &[u8],
) -> Option<bool> {
    if bytes.len() != window.bytes() {
        return None;
    }
    let mut take = |count: usize| -> Option<&[u8]> {
        let (taken, rest) = body.split_at_checked(count)?;
        body = rest;
        Some(taken)
    };
    let script_bytes = u32::from_be_bytes(take(SCRIPT_LENGTH_BYTES)?.try_into().ok()?) as usize;
    let bits = if script_bytes > 0 { take(numbers.len().div_ceil(8))? } else { &[] };
    let is_pushed = |nth: usize| bits.get(nth / 8).is_some_and(|byte| byte >> (nth % 8) & 1 == 1);
    let signed: Vec<u8> = match script_bytes {
        0 => Vec::new(),
        _ => numbers[..signed_pages.min(numbers.len())]
            .iter()
            .flat_map(|number| &bytes[number * window.page_bytes..][..window.page_bytes])
            .copied()
            .collect(),
    };
    let by_blocks: Vec<usize> = (0..numbers.len()).filter(|nth| !is_pushed(*nth)).collect();
    let mut changed = Vec::new();
    for nth in &by_blocks {
        changed.push(match *nth < signed_pages {
            true => Some(Changed::parse(window, take(Changed::list_bytes(window))?)?),
            false => None,
        });
    }
    for (nth, changed) in by_blocks.iter().zip(changed) {
        let start = numbers[*nth] * window.page_bytes;
        let page = &mut bytes[start..start + window.page_bytes];
        match changed {
            Some(changed) => {
                for range in changed.ranges() {
                    let literal = take(range.len())?;
                    page[range].copy_from_slice(literal);
                }
            }
            None => page.copy_from_slice(take(window.page_bytes)?),
        }
    }
    let pushed: Vec<usize> = (0..numbers.len()).filter(|nth| is_pushed(*nth)).collect();
    let script = take(script_bytes)?;
    if !body.is_empty() {
        return None;
    }
    if script_bytes == 0 {
        return Some(false);
    }
    let made = follow(script, &signed, pushed.len() * window.page_bytes)?;
    for (nth, page) in pushed.iter().zip(made.chunks_exact(window.page_bytes)) {
        bytes[numbers[*nth] * window.page_bytes..][..window.page_bytes].copy_from_slice(page);
    }
    Some(script_bytes + Signature::bytes_for(signed.len()) < made.len())
}

/// The length of a script, 0 for none, which stands before the rest.
const SCRIPT_LENGTH_BYTES: usize = 4;
