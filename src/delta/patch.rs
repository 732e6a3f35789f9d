//! One window's difference, made and applied.

use std::fmt;

use super::literals::{compress_literals, decompress, decompress_up_to, tagged};
use super::rolling::{Signature, follow};
use super::{PageSet, Window, WindowDigest, WindowNode};

/// What a patch may have beyond the bytes of its pages: its own kind, and that of its literals.
pub const PATCH_OVERHEAD_BYTES: usize = 2;

const PAGES: u8 = 0;
const SCRIPT: u8 = 1;

/// Why a patch does not make the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPatch {
    /// The first byte is missing or of no kind.
    Kind,
    /// Damaged, or it makes more or fewer bytes than its pages have.
    Damaged,
    /// Pages that are not in the patch are not in the basis either.
    NoBasis,
    /// It makes a window, but not the one that was announced: a short digest matched by chance, the file changed
    /// meanwhile, or the peer lies. Ask for all pages, without a signature.
    WrongDigest,
}

impl fmt::Display for BadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPatch::Kind => "no kind of patch",
            BadPatch::Damaged => "a damaged patch, or one of other pages",
            BadPatch::NoBasis => "a patch that leaves out pages the basis lacks",
            BadPatch::WrongDigest => "the patched window is not the one announced",
        })
    }
}

impl std::error::Error for BadPatch {}

/// The pages of the set as the new window has them: by reference what the signature finds, the rest as it is, and all
/// of that compressed. Without a signature, or where it finds next to nothing, just the pages.
///
/// Never longer than the pages and [`PATCH_OVERHEAD_BYTES`].
pub fn make_patch(window: Window, new: &[u8], pages: &PageSet, signature: Option<&Signature>) -> Vec<u8> {
    let inside = pages.gather(window, new);
    match signature.and_then(|signature| signature.script(&inside)) {
        Some(script) => tagged(SCRIPT, &compress_literals(&script)),
        None => tagged(PAGES, &compress_literals(&inside)),
    }
}

/// The new window and its node, of a patch and what the basis has there. Whatever the patch is, what comes back has the
/// digest that was announced.
///
/// # Errors
/// [`BadPatch`]. Nothing larger than the window is ever allocated on the way.
pub fn apply_patch(
    window: Window,
    basis: &[u8],
    pages: &PageSet,
    patch: &[u8],
    announced: WindowDigest,
) -> Result<(Vec<u8>, WindowNode), BadPatch> {
    let (kind, frame) = patch.split_first().ok_or(BadPatch::Kind)?;
    let inside_bytes = pages.len() * window.page_bytes;
    let inside = match *kind {
        PAGES => decompress(frame, inside_bytes).map_err(|_| BadPatch::Damaged)?,
        SCRIPT => {
            let script = decompress_up_to(frame, inside_bytes).map_err(|_| BadPatch::Damaged)?;
            follow(&script, &pages.gather(window, basis), inside_bytes).ok_or(BadPatch::Damaged)?
        }
        _ => return Err(BadPatch::Kind),
    };
    let whole = pages.scatter(window, basis, &inside).ok_or(BadPatch::NoBasis)?;
    let node = WindowNode::of(window, &whole);
    match node.digest() == announced {
        true => Ok((whole, node)),
        false => Err(BadPatch::WrongDigest),
    }
}
