//! A file that comes as a delta, put together from our own.
//!
//! Ours is read as it lies there, without a lock, and copied as it is compared: what is right is known by the sender's
//! digests and by nothing else, so that a page that was torn, or written to meanwhile, only differs. The copy is both the
//! basis of what is yet to come and the place where it is put; pages that moved are taken from the original.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::trouble::{Trouble, refuse_io};
use crate::delta::{
    self, BadPatch, BlockDigests, Geometry, Hope, PageDigest, PageDigests, PageIndex, PageSet, Signature,
    Window, WindowDigest, WindowNode, WindowTree,
};
use crate::drive::{LiveFile, WriteOut, holes};
use crate::peer::{Peer, Stream};
use crate::protocol::message::Message;
use crate::protocol::{Violation, WANTED_BYTES_IN_FLIGHT, WINDOWS_IN_FLIGHT};

/// A delta under way.
pub struct Rebuilding {
    ours: LiveFile,
    /// Bytes of whole pages that our file had when we began.
    basis_bytes: u64,
    /// The copy began as a clone, so that only what differs need be written.
    is_clone: bool,
    /// Windows compared so far.
    compared: u32,
    /// How far the copy has come on its way to the disk.
    way: WriteOut,
    /// Our pages that are not in their place in the sender's file.
    index: PageIndex,
    /// Windows that differ.
    waiting: VecDeque<(u32, WindowDigest)>,
    in_flight: Vec<Open>,
    wanted_bytes: usize,
    hope: Hope,
    is_done: bool,
}

/// A window that is worked on.
struct Open {
    number: u32,
    announced: WindowDigest,
    stage: Stage,
}

enum Stage {
    /// The sender was asked for its pages.
    Asked,
    /// These pages are nowhere here, and are to be wanted.
    Lacking(Lack),
    /// They are wanted.
    Wanted { lack: Lack, message_bytes: usize, signed: bool },
}

/// Pages of a window.
enum Lack {
    /// These; the first of them have something in their place that may be like them.
    Some { pages: PageSet, with_basis: usize },
    /// All of them, in full, because digests matched by chance, or the sender's file was written to.
    All,
}

/// Where a file is put together.
pub struct Canvas<'a> {
    /// Its place.
    pub file: &'a File,
    /// Its shape.
    pub geometry: Geometry,
    /// What is known of its windows.
    pub tree: &'a mut WindowTree,
}

impl Rebuilding {
    /// Begins with a copy that is a clone of our file, of so many bytes, or empty.
    pub fn start(
        ours: LiveFile,
        clone_bytes: Option<u64>,
        page_bytes: u32,
        index: PageIndex,
        way: WriteOut,
    ) -> io::Result<Rebuilding> {
        let file_bytes = clone_bytes.map_or_else(|| Ok(ours.metadata()?.len()), Ok::<_, io::Error>)?;
        Ok(Rebuilding {
            basis_bytes: file_bytes - file_bytes % u64::from(page_bytes),
            ours,
            is_clone: clone_bytes.is_some(),
            compared: 0,
            way,
            index,
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            wanted_bytes: 0,
            hope: Hope::default(),
            is_done: false,
        })
    }

    /// Every window is as good as it gets.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Compares the sender's next windows with ours.
    pub fn compare<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        canvas: &mut Canvas,
        digests: &[[u8; 16]],
    ) -> Result<(), Trouble> {
        for digest in digests {
            let number = self.compared;
            let window = canvas.geometry.window(number).ok_or(Violation::TooMany("windows"))?;
            let range = window.basis_range(self.basis_bytes);
            let bytes = match self.is_clone {
                true => read(canvas.file, range.start, (range.end - range.start) as usize),
                // Waits for the disk if that is too far behind.
                false => peer.while_working(|| {
                    self.copy(canvas.file, range.start, (range.end - range.start) as usize)
                })?,
            };
            let bytes = bytes.map_err(refuse_io)?;
            let node = match bytes.len() == window.bytes() {
                true => WindowNode::of(window, &bytes),
                false => WindowNode::unknown(),
            };
            canvas.tree.set(number, node);
            if node.digest().0 != *digest {
                let first = range.start / u64::from(canvas.geometry.page_bytes());
                for (page, nth) in bytes.chunks_exact(canvas.geometry.page_bytes() as usize).zip(0..) {
                    self.index.add(PageDigest::of(page), first + nth);
                }
                self.waiting.push_back((number, WindowDigest(*digest)));
            }
            self.compared += 1;
            peer.still_here()?;
        }
        if self.compared == canvas.geometry.window_count() {
            canvas.file.set_len(canvas.geometry.file_bytes()).map_err(refuse_io)?;
            self.index.sort();
        }
        self.pump(peer, canvas)
    }

    /// Our own bytes, which are copied. What was cut off meanwhile is not there.
    fn copy(&mut self, to: &File, start: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut ours = vec![0; bytes];
        self.ours.read(start, &mut ours)?;
        holes::write_around_zeros(to, start, &ours)?;
        self.way.advance(to, start + bytes as u64)?;
        Ok(ours)
    }

    /// Takes what pages the sender's window has, and finds those that are here.
    pub fn find<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        canvas: &mut Canvas,
        number: u32,
        digests: &[u8],
    ) -> Result<(), Trouble> {
        let open = self.in_flight.iter().position(|open| open.number == number);
        let open =
            open.filter(|open| matches!(self.in_flight[*open].stage, Stage::Asked)).ok_or(NOT_IN_HAND)?;
        let window = canvas.geometry.window(number).ok_or(NOT_IN_HAND)?;
        let digests = PageDigests::parse(window, digests)
            .ok()
            .filter(|digests| digests.len() == window.page_count())
            .ok_or(Violation::Lie("page digests of another size"))?;
        let mut bytes = read(canvas.file, window.offset(), window.bytes()).map_err(refuse_io)?;
        let with_basis = self.pages_of_basis(canvas.geometry, window);
        let mut moved = false;
        let page_bytes = canvas.geometry.page_bytes() as usize;
        let mut lacking = PageSet::of(window, |_| false);
        for (nth, (page, digest)) in bytes.chunks_exact_mut(page_bytes).zip(digests.iter()).enumerate() {
            if nth < with_basis && PageDigest::of(page) == digest {
                continue;
            }
            match self.elsewhere(digest, page_bytes).map_err(refuse_io)? {
                Some(found) => {
                    page.copy_from_slice(&found);
                    moved = true;
                }
                None => lacking.insert(nth),
            }
        }
        if moved {
            self.put(peer, canvas.file, window, &bytes)?;
            canvas.tree.set(number, WindowNode::unknown());
        }
        if lacking.is_empty() {
            let node = WindowNode::of(window, &bytes);
            if node.digest() == self.in_flight[open].announced {
                canvas.tree.set(number, node);
                self.in_flight.swap_remove(open);
                return self.pump(peer, canvas);
            }
            self.in_flight[open].stage = Stage::Lacking(Lack::All);
        } else {
            let with_basis = (0..with_basis).filter(|nth| lacking.contains(*nth)).count();
            self.in_flight[open].stage = Stage::Lacking(Lack::Some { pages: lacking, with_basis });
        }
        self.pump(peer, canvas)
    }

    /// Puts a window where it belongs. Waits for the disk if that is too far behind.
    fn put<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        file: &File,
        window: Window,
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let (way, start) = (&mut self.way, window.offset());
        let written = peer.while_working(|| {
            file.write_all_at(bytes, start)?;
            way.send(file, start..start + bytes.len() as u64)
        })?;
        Ok(written.map_err(refuse_io)?)
    }

    /// A page of our file with this digest.
    fn elsewhere(&self, digest: PageDigest, page_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let mut page = Vec::new();
        for number in self.index.find(digest) {
            page.resize(page_bytes, 0);
            let read = self.ours.pread(number * page_bytes as u64, &mut page)?;
            // It may have been written to since it was taken in.
            if read == page_bytes && PageDigest::of(&page) == digest {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// How many of a window's pages our file has.
    fn pages_of_basis(&self, geometry: Geometry, window: Window) -> usize {
        let range = window.basis_range(self.basis_bytes);
        (range.end - range.start) as usize / geometry.page_bytes() as usize
    }

    /// Rebuilds a window.
    pub fn apply<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        canvas: &mut Canvas,
        number: u32,
        patch: &[u8],
    ) -> Result<(), Trouble> {
        let at = self.in_flight.iter().position(|open| open.number == number).ok_or(NOT_IN_HAND)?;
        let Open { announced, stage, .. } = &self.in_flight[at];
        let Stage::Wanted { lack, message_bytes, signed } = stage else { return Err(NOT_IN_HAND.into()) };
        let window = canvas.geometry.window(number).ok_or(NOT_IN_HAND)?;
        let so_far = read(canvas.file, window.offset(), window.bytes()).map_err(refuse_io)?;
        let all = PageSet::all(window);
        let (pages, with_basis, was_all) = match lack {
            Lack::Some { pages, with_basis } => (pages, *with_basis, false),
            Lack::All => (&all, 0, true),
        };
        let applied = delta::apply_patch(window, so_far, pages, with_basis, patch, *announced);
        self.wanted_bytes -= message_bytes;
        let signed = *signed;
        match applied {
            Ok(applied) => {
                self.put(peer, canvas.file, window, &applied.bytes)?;
                canvas.tree.set(number, applied.node);
                if signed {
                    self.hope.learned(applied.signature_paid);
                }
                self.in_flight.swap_remove(at);
            }
            Err(BadPatch::WrongDigest) if !was_all => {
                self.in_flight[at].stage = Stage::Lacking(Lack::All);
            }
            // Written to since it was announced: it comes once more in the end, or the whole file does.
            Err(BadPatch::WrongDigest) => drop(self.in_flight.swap_remove(at)),
            Err(BadPatch::Damaged) => return Err(Violation::Lie("a patch that does not fit").into()),
        }
        self.pump(peer, canvas)
    }

    /// Keeps a few windows on their way; says `Rebuilt` when the last one is done.
    fn pump<S: Stream>(&mut self, peer: &mut Peer<S>, canvas: &mut Canvas) -> Result<(), Trouble> {
        // Until all are compared it is not known what moved where.
        if self.compared < canvas.geometry.window_count() {
            return Ok(());
        }
        while self.in_flight.len() < WINDOWS_IN_FLIGHT {
            let Some((number, announced)) = self.waiting.pop_front() else { break };
            peer.say(&Message::Differs { window: number })?;
            self.in_flight.push(Open { number, announced, stage: Stage::Asked });
        }
        // Digests of blocks and a signature take three bytes for 64 of a window's, and the page set next to nothing.
        let most_bytes = canvas.geometry.window_bytes() as usize / 16;
        for at in 0..self.in_flight.len() {
            if self.wanted_bytes > 0 && self.wanted_bytes + most_bytes > WANTED_BYTES_IN_FLIGHT {
                break;
            }
            self.want(peer, canvas, at)?;
        }
        if self.waiting.is_empty() && self.in_flight.is_empty() && !self.is_done {
            self.is_done = true;
            peer.say(&Message::Rebuilt)?;
        }
        Ok(())
    }

    /// Says which pages of a window are wanted, if that is what it waits for.
    fn want<S: Stream>(&mut self, peer: &mut Peer<S>, canvas: &mut Canvas, at: usize) -> Result<(), Trouble> {
        let Open { number, stage, .. } = &mut self.in_flight[at];
        let Stage::Lacking(lack) = stage else { return Ok(()) };
        let window = canvas.geometry.window(*number).ok_or(NOT_IN_HAND)?;
        let (pages, blocks, signature) = match lack {
            Lack::All => (PageSet::all(window).to_bytes(), vec![], vec![]),
            Lack::Some { pages, with_basis } => {
                let range = window.basis_range(self.basis_bytes);
                let basis = read(canvas.file, range.start, (range.end - range.start) as usize);
                let basis = basis.map_err(refuse_io)?;
                let signature = match *with_basis > 0 && self.hope.wants() {
                    true => Signature::of(window, &basis, pages).to_bytes().to_vec(),
                    false => vec![],
                };
                let blocks = BlockDigests::of(window, &basis, pages).to_bytes().to_vec();
                (pages.to_bytes(), blocks, signature)
            }
        };
        let message_bytes = pages.len() + blocks.len() + signature.len();
        let signed = !signature.is_empty();
        let want = Message::Want { window: *number, pages, blocks, signature };
        let lack = std::mem::replace(lack, Lack::All);
        *stage = Stage::Wanted { lack, message_bytes, signed };
        self.wanted_bytes += message_bytes;
        peer.say(&want)?;
        Ok(())
    }
}

fn read(file: &File, start: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    file.read_exact_at(&mut read, start)?;
    Ok(read)
}

const NOT_IN_HAND: Violation = Violation::Lie("a window that is not being worked on");
