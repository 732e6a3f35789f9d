//! A file of ours on its way: in full, or what a delta needs of it.
//!
//! In full it goes through two threads, so that one window is read, hashed and perhaps compressed while the one before it
//! is handed to the kernel. Between them stand [`FRAMES`] buffers, which is all the memory that takes.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{ExchangeError, PATIENCE};
use crate::broker::Broker;
use crate::budget::Share;
use crate::config::Compress;
use crate::delta::{
    self, BlockDigests, Geometry, Pace, Packer, Packing, PageDigest, PageDigests, PageSet, Signature,
    WindowNode, WindowTree,
};
use crate::drive::{Drive, DriveError, SHORT_REST, Snapshot, Source, holes, snapshot};
use crate::incoming::SAMPLE_PAGES;
use crate::peer::{Peer, Stream};
use crate::protocol::Violation;
use crate::protocol::message::{Basis, Message, Shape};
use crate::protocol::wire::{begin_literal, seal};
use crate::replica::RowId;

/// A file of ours on its way.
pub struct Shipping<'a> {
    database: PathBuf,
    drive: &'a Drive,
    source: Source,
    geometry: Geometry,
    /// The greatest row number ever given in it.
    pub max_row: RowId,
    compress: Compress,
    /// What the peer was told of the windows.
    tree: WindowTree,
    /// How often the peer asked for a window's pages, and for what it lacks of them.
    asked: u32,
    patched: u32,
    packer: Packer,
    share: Share,
}

/// A window ready to be sent.
struct Ready {
    frame: Vec<u8>,
    file_bytes: usize,
    /// How long the compressor took, if it was used.
    compressing: Option<Duration>,
}

impl<'a> Shipping<'a> {
    /// Freezes a file, or finds that it rests.
    pub fn open<S: Stream>(
        peer: &mut Peer<S>,
        database: PathBuf,
        drive: &'a Drive,
        broker: &mut Broker,
        compress: Compress,
        share: Share,
    ) -> Result<Shipping<'a>, ExchangeError> {
        let source = with_journal_rolled_back(peer, broker, || Source::of(&database, drive, &PATIENCE))?;
        let max_row = match &source {
            Source::Image(image) => Broker::open_file(image.path())?.max_row()?,
            // Good as long as nobody writes, as all that is read here.
            Source::Resting(_) => broker.max_row()?,
        };
        let geometry = Geometry::within(share.bytes(), source.len(), source.page_bytes())
            .map_err(|_| DriveError::NotADatabase { path: database.clone() })?;
        Ok(Shipping {
            database,
            drive,
            source,
            geometry,
            max_row,
            compress,
            tree: WindowTree::default(),
            asked: 0,
            patched: 0,
            packer: Packer::new(),
            share,
        })
    }

    /// Gives it up, for the memory.
    pub fn into_share(self) -> Share {
        self.share
    }

    /// What is offered.
    pub fn shape(&self) -> Shape {
        Shape {
            file_bytes: self.geometry.file_bytes(),
            page_bytes: self.geometry.page_bytes(),
            window_bytes: self.geometry.window_bytes(),
        }
    }

    /// Compares a sample of the peer's pages with ours; the part that is equal, if they can be compared.
    pub fn weigh(&self, basis: &Basis) -> Result<Option<f64>, ExchangeError> {
        if basis.page_bytes != self.geometry.page_bytes() {
            return Ok(None);
        }
        let page_bytes = u64::from(self.geometry.page_bytes());
        let pages = basis.file_bytes.min(self.geometry.file_bytes()) / page_bytes;
        let mut page = vec![0; self.geometry.page_bytes() as usize];
        let mut ours = Vec::new();
        for number in delta::sample(pages, SAMPLE_PAGES) {
            self.source.read_exact(number * page_bytes, &mut page).map_err(|error| self.io(error))?;
            ours.push(PageDigest::of(&page));
        }
        let theirs: Vec<PageDigest> =
            basis.sample.chunks_exact(PageDigest::BYTES).map(PageDigest::read).collect();
        if theirs.len() != ours.len() {
            return Err(Violation::Lie("a sample of another size").into());
        }
        Ok(Some(delta::share_equal(&ours, &theirs)))
    }

    /// Sends every window; stops early if the peer refuses.
    pub fn send<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<Option<Message>, ExchangeError> {
        let mut pace = peer.pace;
        let packed = AtomicBool::new(self.way(&pace, Packing::Packed, 0) == Packing::Packed);
        let (ready, to_send) = bounded(FRAMES);
        let (spent, empty) = bounded(FRAMES);
        for _ in 0..FRAMES {
            // There is room for all of them.
            let _ = spent.send(Vec::new());
        }
        let (source, drive, geometry) = (&self.source, self.drive, self.geometry);
        let (tree, refused) = thread::scope(|scope| {
            let reader = scope.spawn(|| read_ahead(source, drive, geometry, &packed, ready, empty));
            // Whatever goes wrong here lets go of the channels, and with that ends the reader.
            let refused = self.send_ready(peer, to_send, spent, &packed, &mut pace);
            let tree = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (tree, refused)
        });
        peer.pace = pace;
        if let Some(refused) = refused? {
            return Ok(Some(refused));
        }
        self.tree = tree.map_err(|error| self.io(error))?;
        Ok(None)
    }

    fn send_ready<S: Stream>(
        &self,
        peer: &mut Peer<S>,
        to_send: Receiver<Ready>,
        spent: Sender<Vec<u8>>,
        packed: &AtomicBool,
        pace: &mut Pace,
    ) -> Result<Option<Message>, ExchangeError> {
        let (mut way, mut sent_bytes) = (Packing::Packed, 0);
        loop {
            let begun = Instant::now();
            let Ready { frame, file_bytes, compressing } = loop {
                match to_send.recv_timeout(READING_PAUSE) {
                    Ok(ready) => break ready,
                    // A slow drive.
                    Err(RecvTimeoutError::Timeout) => peer.still_here()?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(None),
                }
            };
            let idle = begun.elapsed();
            peer.say_frame(&frame)?;
            pace.sent(frame.len(), begun.elapsed() - idle, idle);
            if let Some(took) = compressing {
                pace.compressed(file_bytes, frame.len(), took);
            }
            sent_bytes += file_bytes as u64;
            way = self.way(pace, way, sent_bytes);
            packed.store(way == Packing::Packed, Ordering::Relaxed);
            // The reader may be done and gone.
            let _ = spent.send(frame);
            match peer.heard_already()? {
                None | Some(Message::Working) => {}
                refused @ Some(Message::Refused(_)) => return Ok(refused),
                // Whatever else it says, it cannot be about a file that it does not have yet.
                Some(early) => {
                    return Err(Violation::OutOfTurn { expected: "nothing", heard: early.name() }.into());
                }
            }
        }
    }

    /// How the next window goes.
    fn way(&self, pace: &Pace, now: Packing, sent_bytes: u64) -> Packing {
        match self.compress {
            Compress::Auto => pace.packing(now, sent_bytes),
            Compress::Yes => Packing::Packed,
            Compress::No => Packing::Plain,
        }
    }

    /// Says that this was the file; first what of it was written to since it was sent.
    pub fn finish<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        broker: &mut Broker,
    ) -> Result<(), ExchangeError> {
        if let Source::Resting(resting) = &mut self.source {
            if !peer.while_working(|| resting.rested(&PATIENCE))?? {
                self.amend(peer, broker)?;
            }
        }
        peer.say(&Message::FileDone { digest: self.tree.finish(), max_row: self.max_row })?;
        Ok(())
    }

    /// Somebody wrote to the database that rested: takes an image of it, and sends again what is not as it was.
    fn amend<S: Stream>(&mut self, peer: &mut Peer<S>, broker: &mut Broker) -> Result<(), ExchangeError> {
        let length_before = self.geometry.file_bytes();
        self.freeze(peer, broker)?;
        let count = self.geometry.window_count();
        self.tree.truncate(count);
        let resized = self.geometry.file_bytes() != length_before;
        for number in 0..count {
            let window = self.window(number)?;
            let bytes = self.read(window)?;
            let node = WindowNode::of(window, &bytes);
            // One at least has to tell the peer of the new length.
            if !self.tree.has(number, &node) || (resized && number + 1 == count) {
                let mut packed = Vec::new();
                let packing = self.way(&peer.pace, Packing::Packed, u64::MAX);
                self.packer.pack(packing, &bytes, &mut packed);
                let file_bytes = self.geometry.file_bytes();
                peer.say(&Message::Again { window: number, file_bytes, bytes: packed })?;
                self.tree.set(number, node);
            }
            peer.still_here()?;
        }
        Ok(())
    }

    /// From here on the file is an image that nobody writes to.
    fn freeze<S: Stream>(&mut self, peer: &mut Peer<S>, broker: &mut Broker) -> Result<(), ExchangeError> {
        let (database, drive) = (&self.database, self.drive);
        let image: Snapshot =
            with_journal_rolled_back(peer, broker, || snapshot(database, drive, &PATIENCE))?;
        let geometry = self.geometry.resized(image.len());
        let fits = geometry.ok().filter(|_| image.page_bytes() == self.geometry.page_bytes());
        self.geometry = fits.ok_or_else(|| DriveError::Moved { path: database.clone() })?;
        self.max_row = Broker::open_file(image.path())?.max_row()?;
        self.source = Source::Image(image);
        Ok(())
    }

    /// Says the digests of all windows. A few at a time, so that the peer compares some while we read others.
    pub fn send_windows<S: Stream>(&mut self, peer: &mut Peer<S>) -> Result<(), ExchangeError> {
        let mut digests = Vec::new();
        for number in 0..self.geometry.window_count() {
            let window = self.window(number)?;
            let node = WindowNode::of(window, &self.read(window)?);
            self.tree.set(number, node);
            digests.push(node.digest().0);
            if digests.len() == DIGESTS_AT_ONCE {
                peer.say(&Message::Windows(std::mem::take(&mut digests)))?;
            }
            peer.still_here()?;
        }
        // Of a file without windows the peer is told even so. After the last window it must not be: it may have said by
        // then that all is rebuilt, and would say so twice.
        if !digests.is_empty() || self.geometry.window_count() == 0 {
            peer.say(&Message::Windows(digests))?;
        }
        Ok(())
    }

    /// Says the digests of a window's pages.
    pub fn tell_pages<S: Stream>(&mut self, peer: &mut Peer<S>, number: u32) -> Result<(), ExchangeError> {
        let window = self.window(number)?;
        // Each window comes up once.
        self.asked += 1;
        if self.asked > self.geometry.window_count() {
            return Err(Violation::TooMany("windows that differ").into());
        }
        let digests = PageDigests::of(window, &self.read(window)?).to_bytes();
        peer.say(&Message::Pages { window: number, digests })?;
        Ok(())
    }

    /// Says what the peer lacks of a window.
    pub fn patch<S: Stream>(
        &mut self,
        peer: &mut Peer<S>,
        number: u32,
        pages: &[u8],
        blocks: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<(), ExchangeError> {
        let window = self.window(number)?;
        // Once, and once more if a digest matched by chance.
        self.patched += 1;
        if self.patched > self.geometry.window_count() * 2 {
            return Err(Violation::TooMany("patches wanted").into());
        }
        let pages =
            PageSet::parse(window, pages).map_err(|_| Violation::Lie("a page set of another size"))?;
        let blocks = BlockDigests::parse(window, &pages, blocks)
            .map_err(|_| Violation::Lie("digests of blocks that do not fit"))?;
        let signature = match signature.is_empty() {
            true => None,
            false => Some(
                Signature::parse(window, &pages, signature)
                    .map_err(|_| Violation::Lie("a signature that does not fit"))?,
            ),
        };
        let bytes = self.read(window)?;
        let packing = self.way(&peer.pace, Packing::Packed, u64::MAX);
        let packer = &mut self.packer;
        let patch = delta::make_patch(window, &bytes, &pages, &blocks, signature.as_ref(), packer, packing);
        peer.say(&Message::Patch { window: number, patch })?;
        Ok(())
    }

    fn window(&self, number: u32) -> Result<delta::Window, Violation> {
        self.geometry.window(number).ok_or(Violation::Lie("a window that the file does not have"))
    }

    fn read(&self, window: delta::Window) -> Result<Vec<u8>, ExchangeError> {
        let mut bytes = vec![0; window.bytes()];
        let read = read_gently(&self.source, self.drive, window.offset(), &mut bytes);
        read.map_err(|error| self.io(error))?;
        Ok(bytes)
    }

    fn io(&self, error: io::Error) -> ExchangeError {
        ExchangeError::Drive(DriveError::io(&self.source.path(), error))
    }
}

/// Reads and hashes all windows, and compresses them as long as that is wanted. Ends early when nobody takes them.
fn read_ahead(
    source: &Source,
    drive: &Drive,
    geometry: Geometry,
    packed: &AtomicBool,
    ready: Sender<Ready>,
    empty: Receiver<Vec<u8>>,
) -> io::Result<WindowTree> {
    let (mut tree, mut packer, mut plain) = (WindowTree::default(), Packer::new(), Vec::new());
    for (number, window) in (0..).zip(geometry.windows()) {
        let Ok(mut frame) = empty.recv() else { break };
        begin_literal(&mut frame);
        let mut compressing = None;
        let node = if packed.load(Ordering::Relaxed) {
            plain.resize(window.bytes(), 0);
            read_gently(source, drive, window.offset(), &mut plain)?;
            let begun = Instant::now();
            packer.compress(&plain, &mut frame);
            compressing = Some(begun.elapsed());
            WindowNode::of(window, &plain)
        } else {
            let node = Packer::store(window.bytes(), &mut frame, |room| -> io::Result<WindowNode> {
                read_gently(source, drive, window.offset(), room)?;
                Ok(WindowNode::of(window, room))
            })?;
            // A hole, most likely. No link is faster than that.
            let stored = frame.len() - window.bytes();
            if holes::is_zero(&frame[stored..]) {
                plain.clear();
                plain.extend_from_slice(&frame[stored..]);
                begin_literal(&mut frame);
                packer.compress(&plain, &mut frame);
            }
            node
        };
        seal(&mut frame);
        tree.set(number, node);
        if ready.send(Ready { frame, file_bytes: window.bytes(), compressing }).is_err() {
            break;
        }
    }
    Ok(tree)
}

/// Reads, and rests afterwards where the drive is pressed.
fn read_gently(source: &Source, drive: &Drive, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let begun = Instant::now();
    source.read_exact(offset, buffer)?;
    thread::sleep(drive.rest_after(begun.elapsed(), SHORT_REST));
    Ok(())
}

/// Looks at a database without letting SQLite do it. Where a crashed writer left a journal, SQLite has to look first.
fn with_journal_rolled_back<S: Stream, T: Send>(
    peer: &mut Peer<S>,
    broker: &mut Broker,
    mut look: impl FnMut() -> Result<T, DriveError> + Send,
) -> Result<T, ExchangeError> {
    peer.while_working(|| {
        for _ in 0..HOT_JOURNAL_TRIES {
            match look() {
                // Reading through SQLite rolls the journal back.
                Err(DriveError::HotJournal { .. }) => drop(broker.max_row()?),
                other => return Ok(other?),
            }
        }
        Ok(look()?)
    })?
}

/// Digests of windows said at once: of a few MiB.
const DIGESTS_AT_ONCE: usize = 16;
/// Windows between the thread that reads and the one that sends, and in their hands.
const FRAMES: usize = 4;
/// How long to wait for the thread that reads before the peer is told that we are still here.
const READING_PAUSE: Duration = Duration::from_millis(100);
/// How often a crashed writer's journal is rolled back before we give up.
const HOT_JOURNAL_TRIES: usize = 3;
