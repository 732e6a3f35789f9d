//! What a pass did: log lines, the recon file operators already read, the table, the JSON.
//!
//! Everything here is told by one [`Tally`], so that a number is the same wherever it is read. The lines and the recon
//! file are Swift's to the letter, because dashboards and scripts grep them; the table and the JSON are ours.
//!
//! What is written to standard error goes through [`terminal`], so that log lines and the line of [`progress`] do not
//! run into each other.

pub mod journal;
pub mod logger;
pub mod memory;
pub mod progress;
pub mod recon;
pub mod repeats;
pub mod service;
pub mod table;
pub mod terminal;
pub mod text;

use crate::tally::Tally;

/// Logs what a pass did, as Swift does at its end (`swift/common/db_replicator.py: _report_stats`).
pub fn log_pass(tally: &Tally) {
    for line in lines(tally) {
        log::info!("{line}");
    }
}

/// The lines of [`log_pass`].
pub fn lines(tally: &Tally) -> [String; 4] {
    let rate = tally.attempted as f64 / (tally.elapsed + 1e-7);
    [
        format!(
            "Attempted to replicate {} dbs in {:.5} seconds ({rate:.5}/s)",
            tally.attempted, tally.elapsed
        ),
        format!("Removed {} dbs", tally.remove),
        format!("{} successes, {} failures", tally.success, tally.failure),
        format!(
            "diff:{} diff_capped:{} empty:{} hashmatch:{} no_change:{} remote_merge:{} rsync:{} ts_repl:{}",
            tally.diff,
            tally.diff_capped,
            tally.empty,
            tally.hashmatch,
            tally.no_change,
            tally.remote_merge,
            tally.rsync,
            tally.ts_repl,
        ),
    ]
}

/// The pass as one JSON object on one line, Swift's counters first.
pub fn json(tally: &Tally) -> String {
    serde_json::to_string(tally).expect("a tally has text keys only")
}

/// The counters that Swift keeps too, under its names (`swift/common/db_replicator.py: _zero_stats`).
pub fn swift_counters(tally: &Tally) -> [(&'static str, u64); 13] {
    [
        ("attempted", tally.attempted),
        ("success", tally.success),
        ("failure", tally.failure),
        ("no_change", tally.no_change),
        ("hashmatch", tally.hashmatch),
        ("diff", tally.diff),
        ("diff_capped", tally.diff_capped),
        ("rsync", tally.rsync),
        ("remote_merge", tally.remote_merge),
        ("remove", tally.remove),
        ("empty", tally.empty),
        ("ts_repl", tally.ts_repl),
        ("deferred", tally.deferred),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter has a number of its own, so that a swapped pair shows.
    pub(super) fn numbered() -> Tally {
        let mut tally = Tally {
            attempted: 1204,
            success: 3608,
            failure: 1,
            no_change: 3580,
            hashmatch: 5,
            diff: 6,
            diff_capped: 7,
            rsync: 8,
            remote_merge: 9,
            remove: 10,
            empty: 11,
            ts_repl: 12,
            deferred: 13,
            delta: 14,
            full: 15,
            rows_sent: 3402,
            bytes_sent: 1_258_291,
            bytes_received: 17,
            start: 1750000000.25,
            elapsed: 12.4,
            peak_anon_kib: 18_637,
            ..Tally::default()
        };
        tally.fail_node("10.0.0.2", "sdb", 3);
        tally
    }

    #[test]
    fn the_lines_are_those_that_scripts_grep() {
        assert_eq!(
            lines(&numbered()),
            [
                "Attempted to replicate 1204 dbs in 12.40000 seconds (97.09677/s)",
                "Removed 10 dbs",
                "3608 successes, 4 failures",
                "diff:6 diff_capped:7 empty:11 hashmatch:5 no_change:3580 remote_merge:9 rsync:8 ts_repl:12",
            ]
        );
    }

    #[test]
    fn a_pass_that_took_no_time_has_a_rate() {
        let tally = Tally { attempted: 1, ..Tally::default() };
        assert_eq!(lines(&tally)[0], "Attempted to replicate 1 dbs in 0.00000 seconds (10000000.00000/s)");
    }

    #[test]
    fn the_json_is_one_line_with_swifts_counters_first() {
        let text = json(&numbered());
        assert!(!text.contains('\n'));
        assert!(
            text.starts_with(r#"{"attempted":1204,"success":3608,"failure":4,"no_change":3580,"#),
            "{text}"
        );
        let object: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        for (name, number) in swift_counters(&numbered()) {
            assert_eq!(object[name], number, "{name}");
        }
        assert_eq!(object["failure_nodes"]["10.0.0.2"]["sdb"], 3);
        for ours in [
            "opened",
            "elapsed",
            "bytes_sent",
            "bytes_received",
            "rows_sent",
            "delta",
            "full",
            "peak_anon_kib",
        ] {
            assert!(object[ours].is_number(), "{ours}");
        }
    }
}
