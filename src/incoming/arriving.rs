//! A file on its way to us: in full, window after window, or as a delta against our own, whose image is both the basis
//! and the place where the windows that differ are rebuilt.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::trouble::{Trouble, refuse_drive, refuse_io};
use crate::budget::Share;
use crate::delta::{self, BadPatch, FileDigest, Geometry, PageDigests, PageSet, Signature, WindowDigest};
use crate::drive::{Drive, HashDir, Patience, Staged, holes, snapshot};
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
    digest: FileDigest,
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
        let digest = FileDigest::new();
        Arriving { geometry, staged, file_name, windows: 0, digest, basis: None, _share: share }
    }

    /// The next window of a file that comes in full.
    pub fn append(&mut self, packed: &[u8]) -> Result<(), Trouble> {
        let window = self.geometry.window(self.windows).ok_or(Violation::TooMany("windows"))?;
        let bytes = delta::decompress(packed, window.bytes())
            .map_err(|_| Violation::Lie("a window of another size"))?;
        holes::write_around_zeros(self.staged.file(), window.offset(), &bytes).map_err(refuse_io)?;
        self.digest.feed(&bytes);
        self.windows += 1;
        if self.windows == self.geometry.window_count() {
            self.staged.file().set_len(self.geometry.file_bytes()).map_err(refuse_io)?;
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
            if bytes.len() != window.bytes() || WindowDigest::of(&bytes).0 != *digest {
                basis.waiting.push_back((number, WindowDigest(*digest)));
            }
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
        let rebuilt = match delta::apply_patch(window, &bytes, &pages, patch, announced) {
            Ok(rebuilt) => rebuilt,
            // Two pages, or blocks, had one digest. Without digests to compare, the window comes whole.
            Err(BadPatch::WrongDigest) if pages.len() < window.page_count() => {
                peer.say(&Message::Pages { window: number, digests: vec![] })?;
                return Ok(());
            }
            Err(_) => return Err(Violation::Lie("a patch that does not fit").into()),
        };
        self.staged.file().write_all_at(&rebuilt, window.offset()).map_err(refuse_io)?;
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
    /// If windows are missing, or it cannot be read.
    pub fn verdict<S: Stream>(&mut self, peer: &mut Peer<S>, digest: [u8; 32]) -> Result<Verdict, Trouble> {
        if self.windows != self.geometry.window_count() {
            return Err(Violation::Lie("the end of an unfinished file").into());
        }
        let (by_delta, staged) = (self.basis.take().is_some(), &self.staged);
        let found = match by_delta {
            true => peer.while_working(|| digest_of(staged.file()))?.map_err(refuse_io)?,
            false => self.digest.finish(),
        };
        Ok(match (found == digest, by_delta) {
            (true, _) => Verdict::Sound,
            (false, true) => Verdict::DeltaWrong,
            (false, false) => Verdict::Damaged,
        })
    }

    /// Begins anew, in full, with another file to write to.
    pub fn start_over(&mut self, staged: Staged) {
        (self.windows, self.digest, self.staged) = (0, FileDigest::new(), staged);
    }
}

fn read_range(file: &File, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    holes::read_exact(file, range.start, &mut bytes)?;
    Ok(bytes)
}

/// The digest of a whole file, read in small pieces.
fn digest_of(file: &File) -> io::Result<[u8; 32]> {
    let (mut digest, mut piece, mut offset) = (FileDigest::new(), vec![0; 256 << 10], 0);
    let file_bytes = file.metadata()?.len();
    while offset < file_bytes {
        let length = (file_bytes - offset).min(piece.len() as u64);
        let piece = &mut piece[..length as usize];
        holes::read_exact(file, offset, piece)?;
        digest.feed(piece);
        offset += length;
    }
    Ok(digest.finish())
}

/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
