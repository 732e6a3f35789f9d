//! A file on its way to us: in full, window after window, or as a delta against our own, whose image is both the basis
//! and the place where the windows that differ are rebuilt.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::trouble::{Trouble, refuse_drive, refuse_io};
use super::writing::Writing;
use crate::budget::Share;
use crate::delta::{
    self, BadPatch, Geometry, PageDigests, PageSet, Signature, Unpacker, WindowDigest, WindowNode, WindowTree,
};
use crate::drive::{Drive, HashDir, Patience, Staged, snapshot};
use crate::peer::{Peer, Stream};
use crate::protocol::message::{Message, Refusal};
use crate::protocol::{Violation, WINDOWS_IN_FLIGHT};

/// A file on its way.
pub struct Arriving {
    geometry: Geometry,
    /// Where it is put together.
    pub staged: Staged,
    /// What it will be called.
    pub file_name: String,
    /// Windows received so far, in order (full), or compared so far (delta).
    windows: u32,
    /// What is known of the staged file's windows, less those that are being written.
    tree: WindowTree,
    /// Those.
    writing: Option<Writing>,
    /// The first window that may still come once more.
    amendable: u32,
    /// The basis of a delta, which is also what is staged.
    basis: Option<Differences>,
    _share: Share,
}

/// A delta's windows that differ.
struct Differences {
    basis_bytes: u64,
    waiting: VecDeque<(u32, WindowDigest)>,
    in_flight: Vec<(u32, WindowDigest)>,
}

/// What a file turned out to be, once all of it is there.
pub enum Verdict {
    /// The sender's file.
    Sound,
    /// Something else, made by a delta: the file has to come in full.
    DeltaWrong,
    /// Something else, though it came in full.
    Damaged,
}

impl Arriving {
    /// Nothing of it is there yet.
    pub fn new(geometry: Geometry, staged: Staged, file_name: String, share: Share) -> Arriving {
        Arriving {
            geometry,
            staged,
            file_name,
            windows: 0,
            tree: WindowTree::default(),
            writing: None,
            amendable: 0,
            basis: None,
            _share: share,
        }
    }

    /// Its shape so far, and what that becomes where it has another length by now.
    pub fn resized(&self, file_bytes: u64) -> Result<(Geometry, Geometry), Violation> {
        let resized = self.geometry.resized(file_bytes);
        Ok((self.geometry, resized.map_err(|_| Violation::Lie("a file of impossible shape"))?))
    }

    /// The next window of a file that comes in full.
    pub fn append(&mut self, packed: Vec<u8>) -> Result<(), Trouble> {
        let window = self.geometry.window(self.windows).ok_or(Violation::TooMany("windows"))?;
        let writing = match &mut self.writing {
            Some(writing) => writing,
            none => none.insert(Writing::start(self.staged.file()).map_err(refuse_io)?),
        };
        writing.append(window, packed)?;
        self.windows += 1;
        Ok(())
    }

    /// A window that comes once more, when all of them have come; the file may have another length now.
    pub fn amend(&mut self, number: u32, geometry: Geometry, packed: Vec<u8>) -> Result<(), Trouble> {
        self.check_complete()?;
        self.stop_writing()?;
        if geometry != self.geometry {
            self.staged.file().set_len(geometry.file_bytes()).map_err(refuse_io)?;
            self.tree.truncate(geometry.window_count());
            self.geometry = geometry;
        }
        let window = self.geometry.window(number).filter(|_| number >= self.amendable);
        let window = window.ok_or(Violation::Lie("a window that cannot come once more"))?;
        let piece = Unpacker::new().unpack(packed, window.bytes()).map_err(|_| WINDOW_SIZE)?;
        let bytes = piece.bytes();
        if !self.tree.set(number, WindowNode::of(window, bytes)) {
            return Err(Violation::Lie("a window that cannot come once more").into());
        }
        self.staged.file().write_all_at(bytes, window.offset()).map_err(refuse_io)?;
        (self.windows, self.amendable) = (self.tree.len(), number + 1);
        Ok(())
    }

    /// Nothing is missing but what may come once more.
    fn check_complete(&self) -> Result<(), Violation> {
        let rebuilt =
            self.basis.as_ref().is_none_or(|basis| basis.waiting.is_empty() && basis.in_flight.is_empty());
        match rebuilt && (self.windows == self.geometry.window_count() || self.amendable > 0) {
            true => Ok(()),
            false => Err(Violation::Lie("the end of an unfinished file")),
        }
    }

    /// Waits for what is being written.
    fn stop_writing(&mut self) -> Result<(), Trouble> {
        if let Some(writing) = self.writing.take() {
            self.tree = writing.finish()?;
        }
        Ok(())
    }

    /// Takes the digests of the sender's next windows and compares them with our own file, of which the first call takes an
    /// image.
    pub fn compare_windows<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        drive: &Drive,
        dir: &HashDir,
        digests: &[[u8; 16]],
    ) -> Result<(), Trouble> {
        if self.basis.is_none() {
            let path = dir.in_charge().map_err(refuse_io)?.ok_or(Refusal::Busy)?;
            let image = peer.while_working(|| snapshot(&path, drive, &PATIENCE))?.map_err(refuse_drive)?;
            let basis_bytes = image.len();
            self.staged = image.into_staged();
            self.basis = Some(Differences { basis_bytes, waiting: Default::default(), in_flight: vec![] });
        }
        let basis = self.basis.as_mut().expect("set above");
        for digest in digests {
            let number = self.windows;
            let window = self.geometry.window(number).ok_or(Violation::TooMany("windows"))?;
            let range = window.basis_range(basis.basis_bytes);
            let bytes = read_range(self.staged.file(), range).map_err(refuse_io)?;
            let node = match bytes.len() == window.bytes() {
                true => WindowNode::of(window, &bytes),
                false => WindowNode::unknown(),
            };
            if node.digest().0 != *digest {
                basis.waiting.push_back((number, WindowDigest(*digest)));
            }
            self.tree.set(number, node);
            self.windows += 1;
            peer.still_here()?;
        }
        self.pump(peer)
    }

    /// Keeps a few windows on their way; says `Rebuilt` when the last one is done.
    fn pump<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<(), Trouble> {
        let basis = self.basis.as_mut().ok_or(Violation::Lie("a delta without windows"))?;
        while basis.in_flight.len() < WINDOWS_IN_FLIGHT {
            let Some((number, digest)) = basis.waiting.pop_front() else { break };
            let window = self.geometry.window(number).expect("compared before");
            let range = window.basis_range(basis.basis_bytes);
            let bytes = read_range(self.staged.file(), range).map_err(refuse_io)?;
            basis.in_flight.push((number, digest));
            let digests = PageDigests::of(window, &bytes).to_bytes();
            peer.say(&Message::Pages { window: number, digests })?;
        }
        let compared = self.windows == self.geometry.window_count();
        if compared && basis.waiting.is_empty() && basis.in_flight.is_empty() {
            self.staged.file().set_len(self.geometry.file_bytes()).map_err(refuse_io)?;
            peer.say(&Message::Rebuilt)?;
        }
        Ok(())
    }

    /// Says the signature of pages that were wanted.
    pub fn sign<S: Stream>(&mut self, peer: &mut Peer<S>, number: u32, pages: &[u8]) -> Result<(), Trouble> {
        let (window, bytes, _) = self.basis_window(number)?;
        let pages =
            PageSet::parse(window, pages).map_err(|_| Violation::Lie("a page set of another size"))?;
        let signature = Signature::of(window, &bytes, &pages).to_bytes().to_vec();
        peer.say(&Message::Signature { window: number, signature })?;
        Ok(())
    }

    /// Rebuilds a window.
    pub fn apply<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        number: u32,
        pages: &[u8],
        patch: &[u8],
    ) -> Result<(), Trouble> {
        let (window, bytes, announced) = self.basis_window(number)?;
        let pages =
            PageSet::parse(window, pages).map_err(|_| Violation::Lie("a page set of another size"))?;
        let (rebuilt, node) = match delta::apply_patch(window, &bytes, &pages, patch, announced) {
            Ok(rebuilt) => rebuilt,
            // Two pages, or blocks, had one digest. Without digests to compare, the window comes whole.
            Err(BadPatch::WrongDigest) if pages.len() < window.page_count() => {
                peer.say(&Message::Pages { window: number, digests: vec![] })?;
                return Ok(());
            }
            Err(_) => return Err(Violation::Lie("a patch that does not fit").into()),
        };
        self.staged.file().write_all_at(&rebuilt, window.offset()).map_err(refuse_io)?;
        self.tree.set(number, node);
        let basis = self.basis.as_mut().expect("basis_window found it");
        basis.in_flight.retain(|(in_flight, _)| *in_flight != number);
        self.pump(peer)
    }

    /// The basis of a window that is being worked on.
    fn basis_window(&self, number: u32) -> Result<(delta::Window, Vec<u8>, WindowDigest), Trouble> {
        let basis = self.basis.as_ref().ok_or(Violation::Lie("a delta without windows"))?;
        let digest = basis.in_flight.iter().find(|(in_flight, _)| *in_flight == number);
        let (_, digest) = *digest.ok_or(Violation::Lie("a window that is not being worked on"))?;
        let window = self.geometry.window(number).expect("only such are in flight");
        let bytes =
            read_range(self.staged.file(), window.basis_range(basis.basis_bytes)).map_err(refuse_io)?;
        Ok((window, bytes, digest))
    }

    /// All windows are there; is it the file whose digest the sender says?
    ///
    /// # Errors
    /// If windows are missing, or could not be written.
    pub fn verdict<S: Stream>(&mut self, peer: &mut Peer<S>, digest: [u8; 32]) -> Result<Verdict, Trouble> {
        self.check_complete()?;
        peer.while_working(|| self.stop_writing())??;
        if self.tree.len() != self.geometry.window_count() {
            return Err(Violation::Lie("the end of an unfinished file").into());
        }
        let by_delta = self.basis.take().is_some();
        Ok(match (self.tree.finish() == digest, by_delta) {
            (true, _) => Verdict::Sound,
            (false, true) => Verdict::DeltaWrong,
            (false, false) => Verdict::Damaged,
        })
    }

    /// Begins anew, in full, with another file to write to.
    pub fn start_over(&mut self, staged: Staged) {
        (self.windows, self.amendable, self.staged) = (0, 0, staged);
        (self.tree, self.writing) = (WindowTree::default(), None);
    }
}

fn read_range(file: &File, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// What a window holds that does not hold a window.
pub const WINDOW_SIZE: Violation = Violation::Lie("a window of another size");
/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
