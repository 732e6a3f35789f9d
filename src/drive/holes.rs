//! Holes: parts of a file that were never written. They read as zeros and take no room on the drive.
//!
//! A database gets them when it is restored from a sparse archive, or prepared by tools that lengthen files. Whoever
//! copies one byte by byte writes gigabytes of zeros, and may fill a drive with them. So holes are found without being
//! read, and zeros are not written where nothing was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Where the next byte at or after `offset` is that may be something other than 0; the greatest number if there is none
/// to the end of the file. File systems that know no holes say that all is data.
pub fn data_from(file: &File, offset: u64) -> io::Result<u64> {
    // The position of the handle changes; nothing here reads or writes by it.
    match lseek(file, offset as i64, Whence::SeekData) {
        Ok(data) => Ok(data as u64),
        Err(Errno::ENXIO) => Ok(u64::MAX),
        Err(Errno::EINVAL) => Ok(offset),
        Err(errno) => Err(errno.into()),
    }
}

/// Where the data that begins at `data` ends; the greatest number if only with the file.
fn hole_from(file: &File, data: u64) -> io::Result<u64> {
    match lseek(file, data as i64, Whence::SeekHole) {
        Ok(hole) => Ok(hole as u64),
        // Cut off in this moment, or no file system that knows.
        Err(Errno::ENXIO | Errno::EINVAL) => Ok(u64::MAX),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads from `offset`, but not what is a hole; fewer bytes than the buffer has, or none, at the end of the file.
pub fn read(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let there = file.metadata()?.len().saturating_sub(offset).min(buffer.len() as u64);
    let buffer = &mut buffer[..there as usize];
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + filled as u64;
        let data = data_from(file, at)?;
        let left = buffer.len() - filled;
        let zeros = (data - at).min(left as u64) as usize;
        buffer[filled..filled + zeros].fill(0);
        filled += zeros;
        if filled == buffer.len() {
            break;
        }
        let bytes = (hole_from(file, data)? - data).clamp(1, (left - zeros) as u64) as usize;
        match file.read_at(&mut buffer[filled..filled + bytes], data) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills the buffer from `offset`, without reading what is a hole.
pub fn read_exact(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    match read(file, offset, buffer)? == buffer.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes to a part of a file in which nothing but zeros can be, leaving out the zeros. The file is not lengthened by
/// zeros at its end.
pub fn write_around_zeros(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let (mut run, mut at) = (0, 0);
    for piece in bytes.chunks(PIECE_BYTES) {
        let end = at + piece.len();
        if is_zero(piece) {
            file.write_all_at(&bytes[run..at], offset + run as u64)?;
            run = end;
        }
        at = end;
    }
    file.write_all_at(&bytes[run..], offset + run as u64)
}

/// Is there nothing but zeros?
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()])
}

/// Compared with in one go, which is as fast as memory is.
static ZEROS: [u8; 4096] = [0; 4096];
/// What may be left out singly: smaller pieces would only make a file of many parts.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LONG: u64 = 4 << 20;

    #[test]
    fn a_hole_is_found_and_not_written() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; LONG as usize];
        (bytes[1 << 20], bytes[(3 << 20) - 1]) = (7, 9);
        file.set_len(LONG).unwrap();
        write_around_zeros(&file, 0, &bytes).unwrap();
        let mut read = vec![1; LONG as usize];
        read_exact(&file, 0, &mut read).unwrap();
        assert!(read == bytes);
        assert!(file.metadata().unwrap().blocks() * 512 < LONG, "it takes all of its length");
        assert_eq!(data_from(&file, 0).unwrap(), 1 << 20);
        assert_eq!(data_from(&file, 3 << 20).unwrap(), u64::MAX);
    }

    #[test]
    fn what_begins_or_ends_in_a_hole_is_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LONG).unwrap();
        file.write_all_at(&[5; 4096], 1 << 20).unwrap();
        for (offset, length) in [(0, 2 << 20), ((1 << 20) - 1, 2), ((1 << 20) + 4095, 8192), (1 << 20, 4096)]
        {
            let (mut read, mut wanted) = (vec![1; length], vec![1; length]);
            read_exact(&file, offset, &mut read).unwrap();
            file.read_exact_at(&mut wanted, offset).unwrap();
            assert_eq!(read, wanted, "{length} bytes from {offset}");
        }
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for (offset, length) in [(0, 4097), (4096, 1), (8192, 4096)] {
            let error = read_exact(&file, offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn zeros_between_and_around_bytes_keep_their_place() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 1] {
            for set in
                [vec![], vec![0], vec![length / 2], vec![length.saturating_sub(1)], vec![0, length / 2]]
            {
                let mut bytes = vec![0; length];
                set.iter().filter(|at| **at < length).for_each(|at| bytes[*at] = 1);
                let file = tempfile::tempfile().unwrap();
                file.set_len(100 + length as u64).unwrap();
                write_around_zeros(&file, 100, &bytes).unwrap();
                let mut read = vec![3; length];
                file.read_exact_at(&mut read, 100).unwrap();
                assert!(read == bytes, "{length} bytes, of which {set:?} are set");
                assert_eq!(is_zero(&bytes), bytes.iter().all(|byte| *byte == 0));
            }
        }
    }
}
