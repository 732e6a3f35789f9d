//! What passes of the demo did, by their own word.

use serde_json::Value;

use crate::report::text::thousands;

/// What one pass did, or several together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deed {
    /// Passes.
    pub passes: u64,
    /// Exchanges that failed.
    pub failures: u64,
    /// Files sent whole.
    pub full: u64,
    /// Files of which only blocks were sent.
    pub delta: u64,
    /// Rows sent.
    pub rows: u64,
    /// Exchanges that found equal rows where sync points did not say so.
    pub hash_matches: u64,
    /// Databases removed.
    pub removed: u64,
    /// Bytes on the wire, both ways.
    pub wire_bytes: u64,
    /// The most anonymous memory that any of them had, in KiB.
    pub memory_kib: u64,
    /// A replica was found damaged and moved away.
    pub quarantined: bool,
}

impl Deed {
    /// Reads what `agent --once --json` prints.
    pub fn from_json(json: &Value) -> Deed {
        let number = |name: &str| json[name].as_u64().unwrap_or(0);
        Deed {
            passes: 1,
            failures: number("failure"),
            full: number("full"),
            delta: number("delta"),
            rows: number("rows_sent"),
            hash_matches: number("hashmatch"),
            removed: number("remove"),
            wire_bytes: number("bytes_sent") + number("bytes_received"),
            memory_kib: number("peak_anon_kib"),
            quarantined: false,
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: &Deed) {
        self.passes += other.passes;
        self.failures += other.failures;
        self.full += other.full;
        self.delta += other.delta;
        self.rows += other.rows;
        self.hash_matches += other.hash_matches;
        self.removed += other.removed;
        self.wire_bytes += other.wire_bytes;
        self.memory_kib = self.memory_kib.max(other.memory_kib);
        self.quarantined |= other.quarantined;
    }

    /// It found nothing to do.
    pub fn is_quiet(&self) -> bool {
        self.failures + self.full + self.delta + self.rows + self.hash_matches + self.removed == 0
    }

    pub fn in_words(&self, plan: &[String]) -> String {
        let times = |count: u64, one: &str| match count {
            1 => one.to_owned(),
            count => format!("{one} x{count}"),
        };
        let settled = self.is_quiet() && plan.iter().any(|said| said.starts_with(SETTLING));
        let words = [
            (self.quarantined, "quarantined".to_owned()),
            (self.full > 0, times(self.full, "full copy")),
            (self.delta > 0, times(self.delta, "block delta")),
            (self.rows > 0, format!("{} rows", thousands(self.rows))),
            (self.hash_matches > 0, "equal by hash".to_owned()),
            (self.removed > 0, times(self.removed, "removed")),
            (settled, SETTLING.to_owned()),
        ];
        let words: Vec<String> = words.into_iter().filter(|(said, _)| *said).map(|(_, word)| word).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

/// How a dry run calls an exchange that sends neither rows nor file.
pub const SETTLING: &str = "timestamps and metadata";
