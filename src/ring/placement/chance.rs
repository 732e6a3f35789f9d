//! Chance from a seed: the same numbers for the same seed, on every machine and in every release.
//!
//! They come from BLAKE3's output stream, whose bytes are defined for all time; a library's generator may change with its
//! version, and with it every ring that is rebuilt from a note of its seed.

use blake3::{Hasher, OutputReader};

/// A stream of numbers.
pub struct Chance {
    stream: OutputReader,
    buffer: [u8; BUFFER_BYTES],
    used: usize,
}

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: &[u8]) -> Chance {
        let stream = Hasher::new().update(seed).finalize_xof();
        Chance { stream, buffer: [0; BUFFER_BYTES], used: BUFFER_BYTES }
    }

    /// A number below `end`, which is not 0. Each is as likely as any other, to one part in 2^32 / `end`.
    pub fn below(&mut self, end: usize) -> usize {
        if self.used == BUFFER_BYTES {
            self.stream.fill(&mut self.buffer);
            self.used = 0;
        }
        let bytes = self.buffer[self.used..][..4].try_into().expect("four bytes");
        self.used += 4;
        ((u64::from(u32::from_le_bytes(bytes)) * end as u64) >> 32) as usize
    }

    /// Puts a list in any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (2..=list.len()).rev() {
            let place = self.below(end);
            list.swap(place, end - 1);
        }
    }
}

const BUFFER_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut chance = Chance::new(b"7");
        let drawn: Vec<usize> = (0..6).map(|_| chance.below(100)).collect();
        assert_eq!(drawn, [22, 93, 16, 92, 76, 10]);
    }

    #[test]
    fn all_orders_come_up() {
        let mut chance = Chance::new(b"orders");
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut list = [1, 2, 3];
            chance.shuffle(&mut list);
            *seen.entry(list).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
    }
}
