//! Is it worth to compress what is sent? Where the link is faster than the compressor, it only costs time.
//!
//! Nobody has to say how fast a link is: whoever sends sees how long it takes what he gives it, and how long the
//! compressor takes. What one transfer learns serves the next over the same connection.

use std::time::Duration;

/// How a window travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// Compressed, if that makes it smaller.
    Packed,
}

/// What a link and a compressor were seen to take, in seconds for each byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The link, for a byte that goes over it.
    link: f64,
    /// The compressor, for a byte that goes into it. Nothing is known of it before the first window.
    compressor: Option<f64>,
    /// What comes out of the compressor for a byte that goes in.
    ratio: f64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { link: 0.0, compressor: None, ratio: 1.0 }
    }
}

impl Pace {
    /// How the next window travels, where `sent_bytes` of the file went before it and the last one went so.
    ///
    /// The first bytes of every file are compressed: they end in buffers and say nothing of the link, and a file that has
    /// no more than those is done sooner for it even over a fast one, or no later to speak of. Beyond, a change must
    /// promise [`GAIN`], so that the two do not take turns for nothing.
    pub fn packing(&self, now: Packing, sent_bytes: u64) -> Packing {
        let Some(compressor) = self.compressor else { return Packing::Packed };
        if sent_bytes < UNMEASURED_BYTES {
            return Packing::Packed;
        }
        // The two work at the same time, so the slower of them counts.
        let (plain, packed) = (self.link, compressor.max(self.link * self.ratio));
        match now {
            Packing::Plain if packed * GAIN < plain => Packing::Packed,
            Packing::Packed if plain * GAIN < packed => Packing::Plain,
            _ => now,
        }
    }

    /// A window was compressed: `file_bytes` to `wire_bytes`.
    pub fn compressed(&mut self, file_bytes: usize, wire_bytes: usize, took: Duration) {
        let file_bytes = file_bytes.max(1) as f64;
        let (seen, ratio) = (took.as_secs_f64() / file_bytes, wire_bytes as f64 / file_bytes);
        match &mut self.compressor {
            Some(compressor) => {
                *compressor += (seen - *compressor) / MEMORY_WINDOWS;
                self.ratio += (ratio - self.ratio) / MEMORY_WINDOWS;
            }
            unknown => (*unknown, self.ratio) = (Some(seen), ratio),
        }
    }

    /// The link took so many bytes in this time, for which it had to wait for `idle` before.
    ///
    /// A link that waits for the compressor shows only that it is no slower than that. Then what is thought of it
    /// improves slowly, until it is tried again.
    pub fn sent(&mut self, wire_bytes: usize, took: Duration, idle: Duration) {
        let seen = took.as_secs_f64() / wire_bytes.max(1) as f64;
        if took > idle || seen > self.link {
            self.link += (seen - self.link) / MEMORY_WINDOWS;
        } else {
            self.link -= self.link / FORGOTTEN_WINDOWS;
        }
    }
}

/// What goes before it is asked whether to compress.
const UNMEASURED_BYTES: u64 = 512 << 10;
/// How many times faster the other way must be.
const GAIN: f64 = 1.25;
/// Over how many windows is averaged.
const MEMORY_WINDOWS: f64 = 16.0;
/// After how many windows, about, a link is believed to have become faster.
const FORGOTTEN_WINDOWS: f64 = 128.0;

#[cfg(test)]
mod tests {
    use super::Packing::{Packed, Plain};
    use super::*;

    const WINDOW: usize = 256 << 10;
    const MIB: f64 = (1 << 20) as f64;

    fn pace(link_mib_per_sec: f64, compressor_mib_per_sec: f64, ratio: f64) -> Pace {
        let per_byte = |mib_per_sec: f64| 1.0 / (mib_per_sec * MIB);
        Pace { link: per_byte(link_mib_per_sec), compressor: Some(per_byte(compressor_mib_per_sec)), ratio }
    }

    #[test]
    fn the_choice_is_a_table() {
        for (link, compressor, ratio, from_plain, from_packed) in [
            // A hundred megabits, a gigabit, ten of them.
            (12.0, 450.0, 0.35, Packed, Packed),
            (118.0, 450.0, 0.35, Packed, Packed),
            (1180.0, 450.0, 0.35, Plain, Plain),
            // About as fast as the compressor: whatever it was, it stays.
            (450.0, 450.0, 0.35, Plain, Packed),
            (400.0, 450.0, 0.35, Plain, Packed),
            (350.0, 450.0, 0.35, Packed, Packed),
            (550.0, 450.0, 0.35, Plain, Packed),
            (570.0, 450.0, 0.35, Plain, Plain),
            // A processor that is busy with other things.
            (118.0, 60.0, 0.35, Plain, Plain),
            (12.0, 60.0, 0.35, Packed, Packed),
            // What does not compress.
            (12.0, 450.0, 1.0, Plain, Packed),
            (12.0, 450.0, 0.81, Plain, Packed),
            (12.0, 450.0, 0.79, Packed, Packed),
        ] {
            let pace = pace(link, compressor, ratio);
            let case = format!("link {link}, compressor {compressor}, ratio {ratio}");
            assert_eq!(pace.packing(Plain, 1 << 30), from_plain, "{case}");
            assert_eq!(pace.packing(Packed, 1 << 30), from_packed, "{case}");
        }
    }

    #[test]
    fn the_first_bytes_of_a_file_are_always_compressed() {
        let fast = pace(5000.0, 100.0, 0.5);
        assert_eq!(fast.packing(Plain, 0), Packed);
        assert_eq!(fast.packing(Plain, UNMEASURED_BYTES - 1), Packed);
        assert_eq!(fast.packing(Plain, UNMEASURED_BYTES), Plain);
        assert_eq!(fast.packing(Packed, UNMEASURED_BYTES), Plain);
        assert_eq!(Pace::default().packing(Plain, 1 << 30), Packed, "nothing is known");
    }

    /// Sends `file_bytes` over a link of so many MiB/s behind a buffer, with a compressor of 450 MiB/s; returns what
    /// went over it, and how often the choice changed.
    fn simulate(link_mib_per_sec: f64, file_bytes: usize) -> (usize, usize) {
        const BUFFER: f64 = 6.0 * MIB;
        let (mut pace, mut now, mut wire, mut changes) = (Pace::default(), Plain, 0, 0);
        let mut buffered = 0.0_f64;
        for number in 0..file_bytes / WINDOW {
            let next = pace.packing(now, (number * WINDOW) as u64);
            changes += usize::from(next != now);
            now = next;
            let (bytes, made) = match now {
                Plain => (WINDOW, WINDOW as f64 / (4000.0 * MIB)),
                Packed => (WINDOW * 35 / 100, WINDOW as f64 / (450.0 * MIB)),
            };
            if now == Packed {
                pace.compressed(WINDOW, bytes, Duration::from_secs_f64(made));
            }
            // The pipeline is one window ahead: it works while the link takes what there is.
            buffered = (buffered - made * link_mib_per_sec * MIB).max(0.0);
            let over = (buffered + bytes as f64 - BUFFER).max(0.0);
            let took = bytes as f64 / (4000.0 * MIB) + over / (link_mib_per_sec * MIB);
            buffered += bytes as f64 - over;
            let idle = (made - took).max(0.0);
            pace.sent(bytes, Duration::from_secs_f64(took), Duration::from_secs_f64(idle));
            wire += bytes;
        }
        (wire, changes)
    }

    #[test]
    fn a_slow_link_is_found_out_as_soon_as_its_buffers_are_full() {
        for link in [1.0, 12.0, 118.0] {
            let (wire, changes) = simulate(link, 145 << 20);
            assert!(wire < 57 << 20, "{link} MiB/s: {wire} bytes");
            assert!(changes <= 3, "{link} MiB/s: changed {changes} times");
        }
    }

    #[test]
    fn a_fast_link_is_left_alone() {
        let (wire, changes) = simulate(2500.0, 145 << 20);
        assert!(wire > 143 << 20, "{wire} bytes");
        assert_eq!(changes, 2);
    }

    #[test]
    fn a_link_that_stalled_once_is_tried_again() {
        let mut pace = pace(2500.0, 450.0, 0.35);
        pace.sent(WINDOW, Duration::from_millis(50), Duration::ZERO);
        let mut now = pace.packing(Plain, 1 << 30);
        assert_eq!(now, Packed);
        let mut windows = 0;
        while now == Packed {
            pace.sent(WINDOW / 3, Duration::from_micros(30), Duration::from_micros(500));
            now = pace.packing(now, 1 << 30);
            windows += 1;
        }
        assert!((16..400).contains(&windows), "{windows} windows");
    }
}
