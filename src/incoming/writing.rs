//! The windows of a file that comes in full, hashed and written by a thread of their own while the next ones come in.
//!
//! What is written is pushed on to the disk at once, so that little is left to wait for when all of it must last.

use std::fs::File;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::arriving::WINDOW_SIZE;
use super::trouble::{Trouble, refuse_io};
use crate::delta::{Piece, Unpacker, Window, WindowNode, WindowTree};
use crate::drive::{holes, start_writing_out};
use crate::protocol::message::Refusal;

/// A thread that writes.
pub struct Writing {
    /// Taken out to end it.
    windows: Option<Sender<(Window, Piece)>>,
    worker: Option<JoinHandle<io::Result<WindowTree>>>,
    unpacker: Unpacker,
}

impl Writing {
    /// Begins with the first window.
    ///
    /// # Errors
    /// If there is no thread or descriptor to be had.
    pub fn start(file: &File) -> io::Result<Writing> {
        let file = file.try_clone()?;
        let (windows, pieces) = bounded(PIECES_WAITING);
        let worker = thread::Builder::new()
            .name("write".into())
            .stack_size(STACK_BYTES)
            .spawn(move || write(&file, &pieces))?;
        Ok(Writing { windows: Some(windows), worker: Some(worker), unpacker: Unpacker::new() })
    }

    /// The next window, as it came. Waits for the disk if that is too far behind.
    ///
    /// # Errors
    /// If it is no window, or those before it could not be written.
    pub fn append(&mut self, window: Window, packed: Vec<u8>) -> Result<(), Trouble> {
        let piece = self.unpacker.unpack(packed, window.bytes()).map_err(|_| WINDOW_SIZE)?;
        let windows = self.windows.as_ref().expect("taken out only in the end");
        match windows.send((window, piece)) {
            Ok(()) => Ok(()),
            Err(_) => {
                Err(self.end().err().unwrap_or_else(|| Refusal::Failed("nothing was written".into()).into()))
            }
        }
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

fn write(file: &File, pieces: &Receiver<(Window, Piece)>) -> io::Result<WindowTree> {
    let (mut tree, mut pushed, mut written) = (WindowTree::default(), 0, 0);
    for (window, piece) in pieces {
        let bytes = piece.bytes();
        holes::write_around_zeros(file, window.offset(), bytes)?;
        tree.set(tree.len(), WindowNode::of(window, bytes));
        written = window.offset() + bytes.len() as u64;
        if written - pushed >= PUSHED_BYTES {
            start_writing_out(file, pushed, written - pushed);
            pushed = written;
        }
    }
    file.set_len(written)?;
    start_writing_out(file, pushed, written - pushed);
    Ok(tree)
}

/// Windows that wait to be written.
const PIECES_WAITING: usize = 2;
/// What is pushed on to the disk at once.
const PUSHED_BYTES: u64 = 8 << 20;
/// It keeps its buffers on the heap.
const STACK_BYTES: usize = 256 << 10;
