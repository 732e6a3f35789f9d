//! The windows of a file that comes in full, hashed and written by a thread of their own while the next ones come in.
//!
//! What is written is sent on to the disk as it comes, so that little is left to wait for when all of it must last.

use std::fs::File;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::trouble::{Trouble, WINDOW_SIZE, refuse_io};
use crate::delta::{Piece, Unpacker, Window, WindowNode, WindowTree};
use crate::drive::{WriteOut, holes};
use crate::peer::PeerError;
use crate::protocol::message::Refusal;

/// A thread that writes.
pub struct Writing {
    /// Taken out to end it.
    windows: Option<Sender<(Window, Piece)>>,
    /// Buffers of windows that are written.
    spent: Receiver<Vec<u8>>,
    worker: Option<JoinHandle<io::Result<WindowTree>>>,
    unpacker: Unpacker,
}

impl Writing {
    /// Begins with the first window, on its `way` to the disk.
    ///
    /// # Errors
    /// If there is no thread or descriptor to be had.
    pub fn start(file: &File, way: WriteOut) -> io::Result<Writing> {
        let file = file.try_clone()?;
        let (windows, pieces) = bounded(PIECES_WAITING);
        let (done, spent) = bounded(PIECES_WAITING);
        let worker = thread::Builder::new()
            .name("write".into())
            .stack_size(STACK_BYTES)
            .spawn(move || write(&file, way, &pieces, &done))?;
        Ok(Writing { windows: Some(windows), spent, worker: Some(worker), unpacker: Unpacker::new() })
    }

    /// The next window, as it came. Waits for the disk if that is too far behind, and calls `waiting` now and then.
    ///
    /// # Errors
    /// If it is no window, or those before it could not be written; whatever `waiting` says.
    pub fn append(
        &mut self,
        window: Window,
        packed: Vec<u8>,
        mut waiting: impl FnMut() -> Result<(), PeerError>,
    ) -> Result<(), Trouble> {
        let piece = self.unpacker.unpack(packed, window.bytes()).map_err(|_| WINDOW_SIZE)?;
        let mut next = (window, piece);
        while let Some(windows) = &self.windows {
            match windows.send_timeout(next, WRITING_PAUSE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(same)) => {
                    waiting()?;
                    next = same;
                }
                Err(SendTimeoutError::Disconnected(_)) => break,
            }
        }
        Err(self.end().err().unwrap_or_else(|| Refusal::Failed("nothing was written".to_owned()).into()))
    }

    /// The buffer of a window that is written by now, if there is one.
    pub fn spent(&self) -> Option<Vec<u8>> {
        self.spent.try_recv().ok()
    }

    /// Waits until all is written; nothing is synced yet.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn finish(mut self) -> Result<WindowTree, Trouble> {
        self.end()
    }

    fn end(&mut self) -> Result<WindowTree, Trouble> {
        self.windows = None;
        let Some(worker) = self.worker.take() else {
            return Err(Refusal::Failed("nothing was written".to_owned()).into());
        };
        let written = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(written.map_err(refuse_io)?)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.windows = None;
        // Its memory is counted as long as it has any.
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn write(
    file: &File,
    mut way: WriteOut,
    pieces: &Receiver<(Window, Piece)>,
    spent: &Sender<Vec<u8>>,
) -> io::Result<WindowTree> {
    let (mut tree, mut written) = (WindowTree::default(), 0);
    for (window, piece) in pieces {
        let bytes = piece.bytes();
        holes::write_around_zeros(file, window.offset(), bytes)?;
        tree.set(tree.len(), WindowNode::of(window, bytes));
        written = window.offset() + bytes.len() as u64;
        way.advance(file, written)?;
        // Where nobody asks for them, or too late, they go.
        let _ = spent.try_send(piece.into_buffer());
    }
    file.set_len(written)?;
    Ok(tree)
}

/// Windows that wait to be written.
const PIECES_WAITING: usize = 2;
/// How long to wait for the disk before the peer is told that we are still here.
const WRITING_PAUSE: Duration = Duration::from_millis(100);
/// It keeps its buffers on the heap.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::delta::{Geometry, SMALLEST_WINDOW_BYTES, compress_literals};

    const WINDOW: usize = SMALLEST_WINDOW_BYTES as usize;

    fn geometry(windows: usize) -> Geometry {
        Geometry::new((windows * WINDOW) as u64, 4096, SMALLEST_WINDOW_BYTES).expect("sound")
    }

    fn window(number: usize) -> Vec<u8> {
        vec![number as u8; WINDOW]
    }

    #[test]
    fn windows_end_up_in_their_places_and_in_the_tree() {
        let (geometry, file) = (geometry(9), tempfile::tempfile().expect("a file"));
        let mut writing = Writing::start(&file, WriteOut::default()).expect("a thread");
        for (number, place) in geometry.windows().enumerate() {
            writing.append(place, compress_literals(&window(number)), || Ok(())).expect("written");
        }
        let tree = writing.finish().expect("all written");
        let mut written = vec![0; 9 * WINDOW];
        file.read_exact_at(&mut written, 0).expect("as long");
        assert!(written == (0..9).flat_map(window).collect::<Vec<_>>());
        assert_eq!(tree.finish(), *blake3::hash(&written).as_bytes());
    }

    #[test]
    fn what_cannot_be_written_is_said_while_more_is_coming() {
        let (geometry, file) = (geometry(99), tempfile::NamedTempFile::new().expect("a file"));
        let deaf = File::open(file.path()).expect("readable");
        let mut writing = Writing::start(&deaf, WriteOut::default()).expect("a thread");
        let mut append = |place| writing.append(place, compress_literals(&window(1)), || Ok(()));
        let (taken, trouble) = (geometry.windows().enumerate())
            .find_map(|(number, place)| append(place).err().map(|trouble| (number, trouble)))
            .expect("an error before the end");
        assert!(taken <= PIECES_WAITING + 2, "after {taken} windows");
        assert!(format!("{trouble:?}").contains("Bad file descriptor"), "{trouble:?}");
        assert!(append(geometry.window(50).expect("a window")).is_err());
        assert!(writing.finish().is_err());
    }

    #[test]
    fn a_disk_that_is_behind_is_waited_for_as_long_as_the_peer_bears_it() {
        let (windows, stuck) = bounded(PIECES_WAITING);
        let (_done, spent) = bounded(PIECES_WAITING);
        let mut writing = Writing { windows: Some(windows), spent, worker: None, unpacker: Unpacker::new() };
        let geometry = geometry(PIECES_WAITING + 1);
        let mut asked = 0;
        for (number, place) in geometry.windows().enumerate() {
            let outcome = writing.append(place, compress_literals(&window(1)), || {
                asked += 1;
                if asked < 3 { Ok(()) } else { Err(PeerError::Stopped) }
            });
            let expected = if number < PIECES_WAITING { 0 } else { 3 };
            assert_eq!((outcome.is_ok(), asked), (expected == 0, expected));
        }
        assert_eq!(stuck.len(), PIECES_WAITING);
    }

    #[test]
    fn what_could_not_be_written_last_is_said_in_the_end() {
        let (geometry, file) = (geometry(1), tempfile::NamedTempFile::new().expect("a file"));
        let deaf = File::open(file.path()).expect("readable");
        let mut writing = Writing::start(&deaf, WriteOut::default()).expect("a thread");
        writing
            .append(geometry.window(0).expect("a window"), compress_literals(&window(1)), || Ok(()))
            .expect("taken");
        assert!(
            writing.finish().is_err_and(|trouble| format!("{trouble:?}").contains("Bad file descriptor"))
        );
    }

    #[test]
    fn whoever_gives_up_does_not_wait_for_more() {
        let (geometry, file) = (geometry(2), tempfile::tempfile().expect("a file"));
        let mut writing = Writing::start(&file, WriteOut::default()).expect("a thread");
        writing
            .append(geometry.window(0).expect("a window"), compress_literals(&window(0)), || Ok(()))
            .expect("taken");
        drop(writing);
        assert_eq!(file.metadata().expect("a file").len(), WINDOW as u64);
    }
}
