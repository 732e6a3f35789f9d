//! A file on its way to us: in full, window after window, or as a delta against our own. Either is put together in `tmp`.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::rebuilding::{Canvas, Rebuilding};
use super::trouble::{Trouble, WINDOW_SIZE, refuse_io};
use super::writing::Writing;
use crate::budget::Share;
use crate::delta::{Geometry, PageIndex, Unpacker, WindowNode, WindowTree};
use crate::drive::{Drive, HashDir, LiveFile, Patience, Snapshot, Staged, clone_live};
use crate::peer::{Peer, Stream};
use crate::protocol::Violation;
use crate::protocol::message::Refusal;

/// A file on its way.
pub struct Arriving {
    geometry: Geometry,
    /// Where it is put together.
    pub staged: Staged,
    /// What it will be called.
    pub file_name: String,
    /// Windows of a file that comes in full, received so far.
    windows: u32,
    /// What is known of the staged file's windows, less those that are being written.
    tree: WindowTree,
    /// Those.
    writing: Option<Writing>,
    /// The first window that may still come once more.
    amendable: u32,
    /// What may be spent on finding pages that moved.
    index_bytes: u64,
    /// How it is put together, if it comes as a delta.
    rebuilding: Option<Rebuilding>,
    share: Share,
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
    pub fn new(
        geometry: Geometry,
        staged: Staged,
        file_name: String,
        index_bytes: u64,
        share: Share,
    ) -> Arriving {
        Arriving {
            geometry,
            staged,
            file_name,
            windows: 0,
            tree: WindowTree::default(),
            writing: None,
            amendable: 0,
            index_bytes,
            rebuilding: None,
            share,
        }
    }

    /// Gives it up, for the memory.
    pub fn into_share(self) -> Share {
        self.share
    }

    /// Its shape so far, and what that becomes where it has another length by now.
    pub fn resized(&self, file_bytes: u64) -> Result<(Geometry, Geometry), Violation> {
        let resized = self.geometry.resized(file_bytes);
        Ok((self.geometry, resized.map_err(|_| Violation::Lie("a file of impossible shape"))?))
    }

    /// The next window of a file that comes in full.
    pub fn append<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        drive: &Drive,
        packed: Vec<u8>,
    ) -> Result<(), Trouble> {
        let window = self.geometry.window(self.windows).ok_or(Violation::TooMany("windows"))?;
        let writing = match &mut self.writing {
            Some(writing) => writing,
            none => none.insert(Writing::start(self.staged.file(), drive.write_out()).map_err(refuse_io)?),
        };
        writing.append(window, packed, || peer.still_here())?;
        while let Some(buffer) = writing.spent() {
            peer.reuse(buffer);
        }
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
        self.amendable = number + 1;
        Ok(())
    }

    /// Nothing is missing but what may come once more.
    fn check_complete(&self) -> Result<(), Violation> {
        let complete = match &self.rebuilding {
            Some(rebuilding) => rebuilding.is_done(),
            None => self.windows == self.geometry.window_count(),
        };
        match complete || self.amendable > 0 {
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

    /// Takes the digests of the sender's next windows and compares them with our own file, which the first call opens.
    pub fn compare_windows<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        drive: &Drive,
        dir: &HashDir,
        digests: &[[u8; 16]],
    ) -> Result<(), Trouble> {
        if self.rebuilding.is_none() {
            let path = dir.in_charge().map_err(refuse_io)?.ok_or(Refusal::Busy)?;
            // Whatever keeps us from it, a copy does as well.
            let clone = peer.while_working(|| clone_live(&path, drive, &PATIENCE))?.ok().flatten();
            let clone_bytes = clone.as_ref().map(Snapshot::len);
            if let Some(clone) = clone {
                self.staged = clone.into_staged();
            }
            let ours = LiveFile::open_read(&path).map_err(refuse_io)?;
            let index = PageIndex::within(self.index_bytes);
            let started =
                Rebuilding::start(ours, clone_bytes, self.geometry.page_bytes(), index, drive.write_out());
            self.rebuilding = Some(started.map_err(refuse_io)?);
        }
        let (rebuilding, mut canvas) = self.rebuilding()?;
        rebuilding.compare(peer, &mut canvas, digests)
    }

    /// Takes what pages a window of the sender's has.
    pub fn find_pages<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        window: u32,
        digests: &[u8],
    ) -> Result<(), Trouble> {
        let (rebuilding, mut canvas) = self.rebuilding()?;
        rebuilding.find(peer, &mut canvas, window, digests)
    }

    /// Rebuilds a window.
    pub fn apply<S: Stream>(&mut self, peer: &mut Peer<S>, window: u32, patch: &[u8]) -> Result<(), Trouble> {
        let (rebuilding, mut canvas) = self.rebuilding()?;
        rebuilding.apply(peer, &mut canvas, window, patch)
    }

    fn rebuilding(&mut self) -> Result<(&mut Rebuilding, Canvas<'_>), Violation> {
        let rebuilding = self.rebuilding.as_mut().ok_or(Violation::Lie("a delta without windows"))?;
        let canvas = Canvas { file: self.staged.file(), geometry: self.geometry, tree: &mut self.tree };
        Ok((rebuilding, canvas))
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
        let by_delta = self.rebuilding.take().is_some();
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

/// How long we wait for writers, and they for us, at most.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(10), hold: Duration::from_secs(10) };
