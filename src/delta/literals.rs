//! Bytes as they are, compressed where that helps. The windows of a full copy travel so, and what a patch holds.

use std::fmt;

use super::Packing;

/// On container databases higher levels take longer and save nothing: most of a row that is not repeated is random.
const LEVEL: i32 = 1;
/// What a frame of zstd begins with. Looked at first, so that no older format and no skippable frame reaches zstd.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// The tables that zstd takes for one frame at [`LEVEL`], at either end, and more.
pub(super) const ZSTD_MEMORY_BYTES: usize = 1024 * 1024;

const STORED: u8 = 0;
const COMPRESSED: u8 = 1;

/// Why bytes of a peer are no literals, or not as many as there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame {
    /// There is no first byte, or it is of no kind.
    Kind,
    /// Not one of zstd's frames, or it is damaged, or holds more than it may.
    Damaged,
    /// It holds another number of bytes.
    Length {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFrame::Kind => f.write_str("no kind of frame"),
            BadFrame::Damaged => f.write_str("a damaged or oversized frame"),
            BadFrame::Length { expected, found } => write!(f, "expected {expected} bytes, found {found}"),
        }
    }
}

impl std::error::Error for BadFrame {}

/// A window or other piece as it is sent: a byte of kind, then the bytes, compressed if that makes them fewer. Never
/// more than one byte longer than the piece.
pub fn compress_literals(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    Packer::new().compress(bytes, &mut frame);
    frame
}

/// Puts pieces into frames one after the other: zstd's tables are made once, and frames are written where they are
/// wanted.
#[derive(Default)]
pub struct Packer {
    /// Made when the first piece is compressed; most transfers over a fast link need none.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// One that holds nothing yet.
    pub fn new() -> Packer {
        Packer::default()
    }

    /// Appends a piece as [`compress_literals`] has it.
    pub fn compress(&mut self, bytes: &[u8], frame: &mut Vec<u8>) {
        let start = frame.len();
        let made = self.zstd.take().map_or_else(|| zstd::bulk::Compressor::new(LEVEL), Ok);
        if let Ok(mut zstd) = made {
            frame.push(COMPRESSED);
            // One byte less than the piece: what does not fit is not worth it.
            frame.resize(start + 1 + bytes.len().saturating_sub(1), 0);
            let packed = zstd.compress_to_buffer(bytes, &mut frame[start + 1..]);
            self.zstd = Some(zstd);
            if let Ok(packed_bytes) = packed {
                return frame.truncate(start + 1 + packed_bytes);
            }
            frame.truncate(start);
        }
        frame.push(STORED);
        frame.extend_from_slice(bytes);
    }

    /// Appends a piece, compressed or as it is.
    pub fn pack(&mut self, packing: Packing, bytes: &[u8], frame: &mut Vec<u8>) {
        match packing {
            Packing::Packed => self.compress(bytes, frame),
            Packing::Plain => {
                frame.push(STORED);
                frame.extend_from_slice(bytes);
            }
        }
    }

    /// Appends a piece as it is, which `fill` puts in its place; what `fill` made of it is given back.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn store<T, E>(
        bytes: usize,
        frame: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<T, E>,
    ) -> Result<T, E> {
        frame.push(STORED);
        let start = frame.len();
        frame.resize(start + bytes, 0);
        fill(&mut frame[start..])
    }
}

/// Takes pieces out of frames one after the other; zstd's tables are made once.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

/// A piece that came in a frame; if it came as it is, still in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    buffer: Vec<u8>,
    start: usize,
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// What it was in, for another.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl Unpacker {
    /// One that holds nothing yet.
    pub fn new() -> Unpacker {
        Unpacker::default()
    }

    /// The piece, which must have just so many bytes.
    ///
    /// # Errors
    /// [`BadFrame`] if it is damaged or has another length. No more than the expected bytes are ever allocated.
    pub fn unpack(&mut self, frame: Vec<u8>, expected_bytes: usize) -> Result<Piece, BadFrame> {
        let piece = match frame.split_first().ok_or(BadFrame::Kind)? {
            (&STORED, _) => Piece { buffer: frame, start: 1 },
            (&COMPRESSED, body) if body.starts_with(&MAGIC) => {
                let made = self.zstd.take().map_or_else(zstd::bulk::Decompressor::new, Ok);
                let zstd = self.zstd.insert(made.map_err(|_| BadFrame::Damaged)?);
                let unpacked = zstd.decompress(body, expected_bytes);
                Piece { buffer: unpacked.map_err(|_| BadFrame::Damaged)?, start: 0 }
            }
            (&COMPRESSED, _) => return Err(BadFrame::Damaged),
            _ => return Err(BadFrame::Kind),
        };
        match piece.bytes().len() {
            found if found == expected_bytes => Ok(piece),
            found => Err(BadFrame::Length { expected: expected_bytes, found }),
        }
    }
}

/// The piece back, where only a limit is known.
///
/// # Errors
/// [`BadFrame`] if it is damaged or longer. No more than the limit is ever allocated.
pub fn decompress_up_to(frame: &[u8], limit_bytes: usize) -> Result<Vec<u8>, BadFrame> {
    let (kind, body) = frame.split_first().ok_or(BadFrame::Kind)?;
    match *kind {
        STORED if body.len() <= limit_bytes => Ok(body.to_vec()),
        STORED => Err(BadFrame::Length { expected: limit_bytes, found: body.len() }),
        COMPRESSED if body.starts_with(&MAGIC) => {
            zstd::bulk::decompress(body, limit_bytes).map_err(|_| BadFrame::Damaged)
        }
        COMPRESSED => Err(BadFrame::Damaged),
        _ => Err(BadFrame::Kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(frame: &[u8], expected_bytes: usize) -> Result<Vec<u8>, BadFrame> {
        Unpacker::new().unpack(frame.to_vec(), expected_bytes).map(|piece| piece.bytes().to_vec())
    }

    #[test]
    fn what_went_in_comes_out() {
        let random: Vec<u8> =
            (0..5000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..1].to_vec()).collect();
        for piece in [&b""[..], b"x", &[7; 100_000], &random] {
            let frame = compress_literals(piece);
            assert!(frame.len() <= piece.len() + 1);
            assert_eq!(decompress(&frame, piece.len()).as_deref(), Ok(piece));
            assert_eq!(decompress_up_to(&frame, piece.len()).as_deref(), Ok(piece));
            assert_eq!(decompress_up_to(&frame, piece.len() + 9).as_deref(), Ok(piece));
        }
        assert!(compress_literals(&[7; 100_000]).len() < 100);
    }

    #[test]
    fn one_packer_and_one_unpacker_serve_for_all_pieces() {
        let random: Vec<u8> =
            (0..5000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..1].to_vec()).collect();
        let (mut packer, mut unpacker, mut frame) = (Packer::new(), Unpacker::new(), vec![]);
        for piece in [&b""[..], b"x", b"xx", &[7; 100_000], &random, &[8; 5], &random[..99]] {
            frame.clear();
            packer.compress(piece, &mut frame);
            assert_eq!(frame, compress_literals(piece));
            let unpacked = unpacker.unpack(frame.clone(), piece.len());
            assert_eq!(unpacked.as_ref().map(Piece::bytes), Ok(piece));
            for wrong in [piece.len() + 1, piece.len().saturating_sub(1)] {
                let refused = unpacker.unpack(frame.clone(), wrong).is_err();
                assert_eq!(refused, wrong != piece.len(), "{wrong} bytes of {}", piece.len());
            }
            frame.truncate(0);
            let filled = Packer::store(piece.len(), &mut frame, |room| {
                room.copy_from_slice(piece);
                Ok::<_, ()>(room.len())
            });
            assert_eq!(filled, Ok(piece.len()));
            let unpacked = unpacker.unpack(frame.clone(), piece.len());
            assert_eq!(unpacked.as_ref().map(Piece::bytes), Ok(piece));
        }
    }

    #[test]
    fn another_length_is_refused() {
        for piece in [&b"ab"[..], &[7; 1000]] {
            let frame = compress_literals(piece);
            for wrong in [0, 1, piece.len() - 1, piece.len() + 1] {
                assert!(decompress(&frame, wrong).is_err(), "{wrong} bytes of {}", piece.len());
                let too_few = wrong < piece.len();
                assert_eq!(decompress_up_to(&frame, wrong).is_err(), too_few, "{wrong} bytes");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = compress_literals(&vec![0; 64 << 20]);
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(&bomb, 4096), Err(BadFrame::Damaged));
        assert_eq!(decompress_up_to(&bomb, 4096), Err(BadFrame::Damaged));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let skippable = [COMPRESSED, 0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0];
        for (nonsense, why) in [
            (&[][..], BadFrame::Kind),
            (&[2], BadFrame::Kind),
            (&[COMPRESSED], BadFrame::Damaged),
            (&skippable, BadFrame::Damaged),
        ] {
            assert_eq!(decompress(nonsense, 0), Err(why));
            assert_eq!(decompress_up_to(nonsense, 0), Err(why));
        }
        let frame = compress_literals(&[7; 1000]);
        for end in 0..frame.len() {
            assert!(decompress(&frame[..end], 1000).is_err(), "cut after {end} bytes");
        }
    }
}
