//! What a pass did, for somebody who watched it: the counters that moved, in words, and who failed.

use std::fmt::Write;

use super::text::{printable, size, thousands};
use crate::tally::Tally;

/// The table, with a newline after each line. Counters that stayed at zero are left out, but for successes and failures.
pub fn table(tally: &Tally) -> String {
    let mut out = String::new();
    let rate = tally.attempted as f64 / tally.elapsed.max(0.001);
    let databases = if tally.attempted == 1 { "database" } else { "databases" };
    writeln!(out, "{} {databases} in {:.2} s ({rate:.1}/s)\n", thousands(tally.attempted), tally.elapsed)
        .expect(INFALLIBLE);

    let counters = [
        ("success", tally.success, "exchanges with a peer that ended well"),
        ("failure", tally.failure, "that did not, or devices that could not be read"),
        ("no_change", tally.no_change, "had nothing to do"),
        ("hashmatch", tally.hashmatch, "had equal rows, by their hash"),
        ("diff", tally.diff, "were sent rows"),
        ("diff_capped", tally.diff_capped, "were sent some rows; the rest follows in the next pass"),
        ("rsync", tally.rsync, "had no database and got a full copy"),
        ("remote_merge", tally.remote_merge, "had far too few rows and got a file to merge"),
        ("delta", tally.delta, "files that reused blocks of the peer's"),
        ("full", tally.full, "files sent whole"),
        ("deferred", tally.deferred, "left alone because they are being sharded"),
        ("remove", tally.remove, "databases removed: deleted long ago, or handed over"),
    ];
    for (name, number, meaning) in counters {
        if number > 0 || matches!(name, "success" | "failure") {
            row(&mut out, name, &thousands(number), meaning);
        }
    }

    out.push('\n');
    row(&mut out, "rows_sent", &thousands(tally.rows_sent), "");
    row(&mut out, "bytes_sent", &size(tally.bytes_sent), "");
    row(&mut out, "bytes_received", &size(tally.bytes_received), "");
    if tally.peak_anon_kib > 0 {
        row(&mut out, "peak_anon", &size(tally.peak_anon_kib * 1024), "");
    }
    failures(&mut out, tally);
    out
}

fn row(out: &mut String, name: &str, amount: &str, meaning: &str) {
    let line = format!("  {name:<14} {amount:>12}  {meaning}");
    writeln!(out, "{}", line.trim_end()).expect(INFALLIBLE);
}

/// The devices that failed most come first; the list ends where it would push the numbers off the screen.
fn failures(out: &mut String, tally: &Tally) {
    let mut nodes: Vec<(u64, &str, &str)> = tally
        .failure_nodes
        .iter()
        .flat_map(|(ip, devices)| {
            devices.iter().map(move |(device, times)| (*times, ip.as_str(), device.as_str()))
        })
        .collect();
    if nodes.is_empty() {
        return;
    }
    nodes.sort_by_key(|(times, ip, device)| (std::cmp::Reverse(*times), *ip, *device));
    let shown = &nodes[..nodes.len().min(FAILURES_SHOWN)];
    let width = shown.iter().map(|(_, ip, device)| ip.len() + device.len() + 1).max().unwrap_or(0);
    out.push_str("\nfailed with\n");
    for (times, ip, device) in shown {
        let place = format!("{}/{}", printable(ip), printable(device));
        writeln!(out, "  {place:<width$}  {:>8}", thousands(*times)).expect(INFALLIBLE);
    }
    if nodes.len() > shown.len() {
        writeln!(out, "  and {} devices more", nodes.len() - shown.len()).expect(INFALLIBLE);
    }
}

const INFALLIBLE: &str = "a string takes whatever is written to it";

/// The whole table still fits a terminal of 40 lines.
const FAILURES_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::numbered;

    #[test]
    fn every_number_has_its_line() {
        let table = table(&numbered());
        println!("{table}");
        assert!(table.starts_with("1,204 databases in 12.40 s (97.1/s)\n\n"), "{table}");
        for line in [
            "  success               3,608  exchanges with a peer that ended well\n",
            "  remove                   10  databases removed: deleted long ago, or handed over\n",
            "  bytes_sent          1.2 MiB\n",
            "  peak_anon          18.2 MiB\n",
            "\nfailed with\n  10.0.0.2/sdb         3\n",
        ] {
            assert!(table.contains(line), "{line:?} is missing:\n{table}");
        }
    }

    #[test]
    fn counters_at_zero_are_left_out_but_for_the_two_that_matter() {
        let table = table(&Tally { attempted: 1, elapsed: 0.5, ..Tally::default() });
        assert!(table.starts_with("1 database in 0.50 s (2.0/s)"), "{table}");
        assert!(table.contains("  success ") && table.contains("  failure "), "{table}");
        assert!(!table.contains("hashmatch") && !table.contains("failed with"), "{table}");
    }

    #[test]
    fn a_long_list_of_failures_is_cut_after_the_worst() {
        let mut tally = Tally::default();
        for number in 0..25 {
            tally.fail_node(&format!("10.0.0.{number}"), "sdb", 1 + u64::from(number == 17));
        }
        let table = table(&tally);
        assert!(table.contains("failed with\n  10.0.0.17/sdb         2\n"), "{table}");
        assert!(table.ends_with("  and 15 devices more\n"), "{table}");
    }
}
