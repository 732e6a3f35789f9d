//! A copy of a file that others write to: again and again what has changed since, without any lock, until the last look
//! takes so little time that it may be taken under one.
//!
//! Nothing tells which part of a file was written to, so each look reads all of it; but what is read is in the kernel's
//! cache by then, and a hash of each window tells whether it has to be copied again. Several threads look, because writers
//! wait for the last look.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::holes;
use super::live::LiveFile;
use super::stage::Staged;
use super::writeout::WriteOut;

/// A copy in the making.
pub struct Chase {
    window_bytes: usize,
    hasher: Hasher,
    /// Of each window as it was copied.
    hashes: Vec<u64>,
}

impl Chase {
    /// Copies the first `limit` bytes, on their `way` to the disk; what is torn is found later.
    ///
    /// # Errors
    /// If the file cannot be read, or the copy not written.
    pub fn start(live: &LiveFile, staged: &Staged, limit: u64, mut way: WriteOut) -> io::Result<Chase> {
        let window_bytes = window_bytes(limit);
        let mut chase = Chase { window_bytes, hasher: Hasher::new(), hashes: Vec::new() };
        let mut window = vec![0; window_bytes];
        let mut offset = 0;
        while offset < limit {
            let bytes = read_window(live, offset, limit, &mut window)?;
            if bytes.is_empty() {
                break;
            }
            chase.hashes.push(chase.hasher.hash(bytes));
            holes::write_around_zeros(staged.file(), offset, bytes)?;
            offset += bytes.len() as u64;
            way.advance(staged.file(), offset)?;
        }
        staged.file().set_len(offset)?;
        Ok(chase)
    }

    /// Reads all of the file once more and copies what is not as it was: how many windows that were. `None` if it was not
    /// done by `give_up`. Nobody writing meanwhile, the two are equal afterwards.
    ///
    /// # Errors
    /// As [`Chase::start`].
    pub fn look(
        &mut self,
        live: &LiveFile,
        staged: &Staged,
        give_up: Option<Instant>,
    ) -> io::Result<Option<u64>> {
        self.look_at(live.metadata()?.len(), live, staged, give_up)
    }

    /// The same for a file of that length, which may have changed by now.
    fn look_at(
        &mut self,
        file_bytes: u64,
        live: &LiveFile,
        staged: &Staged,
        give_up: Option<Instant>,
    ) -> io::Result<Option<u64>> {
        self.hashes.resize(file_bytes.div_ceil(self.window_bytes as u64) as usize, NEVER_COPIED);
        let (mended, too_late) = (AtomicU64::new(0), AtomicBool::new(false));
        let share = self.hashes.len().div_ceil(THREADS).max(1);
        thread::scope(|scope| -> io::Result<()> {
            let lookers: Vec<_> = (self.hashes.chunks_mut(share).enumerate())
                .map(|(nth, hashes)| {
                    let (hasher, bytes) = (&self.hasher, self.window_bytes);
                    let (mended, too_late) = (&mended, &too_late);
                    scope.spawn(move || -> io::Result<()> {
                        let mut window = vec![0; bytes];
                        let mut offset = (nth * share * bytes) as u64;
                        for known in hashes {
                            if too_late.load(Ordering::Relaxed) {
                                break;
                            }
                            let read = read_window(live, offset, file_bytes, &mut window)?;
                            let hash = hasher.hash(read);
                            if hash != *known {
                                staged.file().write_all_at(read, offset)?;
                                *known = hash;
                                mended.fetch_add(1, Ordering::Relaxed);
                            }
                            offset += bytes as u64;
                            if give_up.is_some_and(|time| Instant::now() >= time) {
                                too_late.store(true, Ordering::Relaxed);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            lookers
                .into_iter()
                .try_for_each(|looker| looker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        staged.file().set_len(file_bytes)?;
        Ok(if too_late.into_inner() { None } else { Some(mended.into_inner()) })
    }
}

/// The more windows, the less is copied again, and the more hashes there are to keep: a quarter of a MiB of them, unless
/// the file is huge.
fn window_bytes(file_bytes: u64) -> usize {
    (file_bytes / MOST_WINDOWS).next_power_of_two().clamp(SMALLEST_WINDOW_BYTES, LARGEST_WINDOW_BYTES)
        as usize
}

/// Reads a whole window, or less at the end of the file. What grows beyond `limit` meanwhile is not part of the copy, and
/// must not be hashed as if it were.
fn read_window<'a>(live: &LiveFile, offset: u64, limit: u64, window: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let wanted = window.len().min(limit.saturating_sub(offset) as usize);
    let filled = live.read(offset, &mut window[..wanted])?;
    Ok(&window[..filled])
}

/// Tells windows of one file apart, as fast as they can be read: writers wait for it. Its start is random, so that nobody
/// can prepare two windows that it takes for one.
struct Hasher {
    secret: [u64; 4],
}

impl Hasher {
    fn new() -> Hasher {
        let mut random = [0; 32];
        getrandom::fill(&mut random).expect("the kernel has random numbers");
        Hasher { secret: std::array::from_fn(|nth| word(&random, nth * 8)) }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut lanes = self.secret;
        let mut blocks = bytes.chunks_exact(64);
        let mut mix = |block: &[u8]| {
            for (nth, lane) in lanes.iter_mut().enumerate() {
                let (one, other) = (word(block, nth * 16), word(block, nth * 16 + 8));
                // Multiplied alone, a word that happened to meet its own lane would blot out the rest.
                *lane =
                    folded(*lane ^ one, self.secret[nth] ^ other).wrapping_add(one) ^ other.rotate_left(32);
            }
        };
        blocks.by_ref().for_each(&mut mix);
        let mut last = [0; 64];
        last[..blocks.remainder().len()].copy_from_slice(blocks.remainder());
        mix(&last);
        let whole = |sum: u64, lane: &u64| folded(sum ^ lane, self.secret[1]);
        lanes.iter().fold(bytes.len() as u64 ^ self.secret[0], whole) | 1
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Both halves of a product, mixed.
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other | 1);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes of so many windows are kept for most files.
const MOST_WINDOWS: u64 = 32_768;
const SMALLEST_WINDOW_BYTES: u64 = 64 << 10;
/// How much is read, hashed and perhaps copied again at a time, at most.
pub const LARGEST_WINDOW_BYTES: u64 = 1 << 20;
/// How many look at once.
const THREADS: usize = 2;
/// Of a window that was never copied; no hash is even.
const NEVER_COPIED: u64 = 0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::bench;
    use super::*;

    /// Torn at every window in turn, and longer or shorter than when it was copied.
    #[test]
    fn what_changed_since_it_was_copied_is_mended() {
        let bench = bench();
        let sound: Vec<u8> =
            (0..1_000_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let path = bench.drive.root().join("file");
        let windows = sound.len().div_ceil(SMALLEST_WINDOW_BYTES as usize);
        for lengthen in [-500_000, -4096, 0, 4096, 300_000] {
            for torn in 0..windows {
                let mut earlier = sound.clone();
                earlier[torn * SMALLEST_WINDOW_BYTES as usize + 77] ^= 1;
                earlier.resize(sound.len().saturating_add_signed(lengthen), 9);
                std::fs::write(&path, &earlier).unwrap();
                let staged = bench.drive.stage("x").unwrap();
                let live = LiveFile::open_read(&path).unwrap();
                let mut chase = Chase::start(&live, &staged, u64::MAX, WriteOut::default()).unwrap();
                std::fs::write(&path, &sound).unwrap();
                let mended = chase.look(&live, &staged, None).unwrap();
                assert!(std::fs::read(staged.path()).unwrap() == sound, "{lengthen} {torn}");
                assert!(lengthen != 0 || mended == Some(1));
                assert_eq!(chase.look(&live, &staged, None).unwrap(), Some(0));
                assert_eq!(chase.look(&live, &staged, Some(Instant::now())).unwrap(), None);
            }
        }
    }

    #[test]
    fn what_grows_during_a_look_is_for_the_next_one() {
        let bench = bench();
        let (path, grown) = (bench.drive.root().join("file"), vec![7; 100_000]);
        std::fs::write(&path, &grown).unwrap();
        let (live, staged) = (LiveFile::open_read(&path).unwrap(), bench.drive.stage("x").unwrap());
        let mut chase = Chase::start(&live, &staged, 90_000, WriteOut::default()).unwrap();
        chase.look_at(90_000, &live, &staged, None).unwrap();
        assert_eq!(chase.look(&live, &staged, None).unwrap(), Some(1));
        assert!(std::fs::read(staged.path()).unwrap() == grown);
    }

    #[test]
    fn the_larger_the_file_the_larger_its_windows() {
        for (bytes, window) in [(0, 64 << 10), (1 << 30, 64 << 10), (3 << 30, 128 << 10), (1 << 50, 1 << 20)]
        {
            assert_eq!(window_bytes(bytes), window, "{bytes}");
        }
        let huge = window_bytes(u64::MAX);
        assert_eq!(huge, 1 << 20);
    }

    #[test]
    fn every_bit_and_the_length_count() {
        let hasher = Hasher::new();
        let bytes: Vec<u8> = (0..200).map(|n| n * 7).collect();
        for length in [0, 1, 63, 64, 65, 128, 200] {
            let hash = hasher.hash(&bytes[..length]);
            assert_eq!(hash, hasher.hash(&bytes[..length]));
            assert_ne!(hash, NEVER_COPIED);
            let with_zero = [&bytes[..length], &[0]].concat();
            assert_ne!(hash, hasher.hash(&with_zero));
            for bit in 0..length * 8 {
                let mut other = bytes[..length].to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(hash, hasher.hash(&other), "bit {bit} of {length}");
            }
        }
        assert_ne!(hasher.hash(&bytes), Hasher::new().hash(&bytes), "what nobody can know in advance");
    }

    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let bench = bench();
        let path = bench.drive.root().join("file");
        std::fs::write(&path, vec![7; 1 << 29]).unwrap();
        let (live, staged) = (LiveFile::open_read(&path).unwrap(), bench.drive.stage("x").unwrap());
        let mut chase = Chase::start(&live, &staged, u64::MAX, WriteOut::default()).unwrap();
        let begun = Instant::now();
        assert_eq!(chase.look(&live, &staged, None).unwrap(), Some(0));
        println!(
            "{:.0} MB/s",
            (1 << 29) as f64 / 1e6 / begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
        );
    }
}
