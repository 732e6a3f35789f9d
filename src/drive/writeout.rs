//! A large file on its way to the disk, a little at a time.
//!
//! Left to the kernel, what is written stays in memory until there is much of it, and then all of it goes at once; whoever
//! else commits a row on that disk in the meantime waits behind it, for on most file systems one `fsync` waits for what
//! others have written. So each piece is sent on its way at once, and before there are too many of them the oldest is
//! waited for: the disk is never idle, and nobody waits behind more than [`BACKLOG_BYTES`], or half of that where the disk
//! is slow.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::{Pressure, sys};

/// How far a file has come on its way to the disk. No promise that anything lasts: that is `fsync`'s to give, which then
/// finds little to do.
#[derive(Debug)]
pub struct WriteOut {
    /// Where it is written from front to back, it is on its way up to here.
    sent: u64,
    /// Pieces on their way, those first that were sent first, and the bytes of all of them.
    under_way: VecDeque<Range<u64>>,
    under_way_bytes: u64,
    /// What may be on its way.
    backlog_bytes: u64,
    pressure: Option<Arc<Pressure>>,
}

impl Default for WriteOut {
    fn default() -> WriteOut {
        let (under_way, backlog_bytes) = (VecDeque::new(), BACKLOG_BYTES);
        WriteOut { sent: 0, under_way, under_way_bytes: 0, backlog_bytes, pressure: None }
    }
}

impl WriteOut {
    /// With less on its way, and rests between the pieces, on a drive that is pressed.
    pub(super) fn under(pressure: Option<Arc<Pressure>>) -> WriteOut {
        WriteOut { pressure, ..WriteOut::default() }
    }

    /// The file is written up to `end`, from front to back: sends on what is new, and waits for what was sent long before.
    ///
    /// # Errors
    /// If something could not be written. The file is of no use then: `fsync` need not tell of it again.
    pub fn advance(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end < self.sent + self.backlog_bytes / PIECES {
            return Ok(());
        }
        let piece = self.sent..end;
        self.sent = end;
        self.send(file, piece)
    }

    /// A piece of the file was written, wherever it lies: sends it on, and waits for what was sent long before.
    ///
    /// # Errors
    /// As [`WriteOut::advance`].
    pub fn send(&mut self, file: &File, piece: Range<u64>) -> io::Result<()> {
        let begun = Instant::now();
        sys::start_writing_out(file, piece.start, piece.end - piece.start)?;
        self.under_way_bytes += piece.end - piece.start;
        self.under_way.push_back(piece);
        // The last is not waited for, however large it is.
        while self.under_way_bytes > self.backlog_bytes && self.under_way.len() > 1 {
            let Some(oldest) = self.under_way.pop_front() else { break };
            sys::await_written_out(file, oldest.start, oldest.end - oldest.start)?;
            self.under_way_bytes -= oldest.end - oldest.start;
        }
        if let Some(pressure) = &self.pressure {
            let (rest, part) = pressure.rest_after_writing(begun.elapsed(), LEAST_PART);
            self.backlog_bytes = (BACKLOG_BYTES as f64 * part) as u64;
            thread::sleep(rest);
        }
        Ok(())
    }
}

/// What may be on its way. Whoever commits a row meanwhile waits behind it: some thousandths of a second of a fast disk, some
/// hundredths of one that turns.
const BACKLOG_BYTES: u64 = 2 << 20;
/// In how many pieces it is sent.
const PIECES: u64 = 4;
/// Less than a mebibyte on its way, and a disk would be idle between the pieces.
const LEAST_PART: f64 = 1.0 / 2.0;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const PIECE_BYTES: u64 = BACKLOG_BYTES / PIECES;

    #[test]
    fn no_more_than_the_backlog_is_ever_on_its_way() {
        let file = tempfile::tempfile().expect("a file");
        let mut way = WriteOut::default();
        for end in (1..=200).map(|n| n * 300_000) {
            file.write_all_at(&[7; 300_000], end - 300_000).expect("written");
            way.advance(&file, end).expect("sent on");
            assert!(way.sent <= end && end - way.sent < PIECE_BYTES, "{way:?} of {end}");
            assert!(way.under_way_bytes <= BACKLOG_BYTES, "{way:?} of {end}");
            assert_eq!(
                way.under_way.iter().map(|piece| piece.end - piece.start).sum::<u64>(),
                way.under_way_bytes
            );
        }
        let (sent, mut most) = (way.sent, 0);
        for start in (0..100).map(|n| n * 7_654_321 % 60_000_000) {
            way.send(&file, start..start + 300_000).expect("sent on");
            most = most.max(way.under_way_bytes);
        }
        assert!(most <= BACKLOG_BYTES && most > BACKLOG_BYTES - 300_000, "{most}");
        assert_eq!(way.sent, sent, "what is sent from elsewhere is beside what comes from front to back");
        way.send(&file, 0..2 * BACKLOG_BYTES).expect("sent on");
        assert_eq!(way.under_way.len(), 1, "a large one waits for all others, and not for itself");
        // From the front again, as when a file is begun anew.
        WriteOut::default().advance(&file, 60_000_000).expect("sent on");
    }

    #[test]
    fn what_cannot_be_sent_on_is_said() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        assert!(WriteOut::default().advance(&pipe, PIECE_BYTES - 1).is_ok());
        assert!(WriteOut::default().advance(&pipe, PIECE_BYTES).is_err());
    }
}
