//! The figures side by side, for people and as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::machine;
use crate::measure::{Measured, Memory};

/// One contender on one pair.
pub struct Line {
    /// Of [`crate::pairs::NAMES`].
    pub pair: &'static str,
    /// Its name.
    pub contender: String,
    /// What it took, or why it did not run.
    pub outcome: Result<Measured, &'static str>,
}

/// Prints the lines of one pair.
pub fn print(lines: &[Line]) {
    println!(
        "\n{:<10} {:<19} {:>9} {:>14} {:>18} {:>18}  way",
        lines.first().map_or("", |line| line.pair),
        "",
        "seconds",
        "bytes",
        "sender anon/rss",
        "receiver anon/rss"
    );
    for line in lines {
        match &line.outcome {
            Ok(measured) => println!(
                "{:<10} {:<19} {:>9.3} {:>14} {:>18} {:>18}  {}",
                "",
                line.contender,
                measured.seconds,
                thousands(measured.wire_bytes),
                mebibytes(measured.sender),
                mebibytes(measured.receiver),
                measured.way
            ),
            Err(why) => println!("{:<10} {:<19} {why}", "", line.contender),
        }
    }
}

/// Writes everything, with the machine and the command line it came from.
pub fn write_json(path: &Path, rows: u64, root: &Path, arguments: &str, lines: &[Line]) {
    let results: Vec<Value> = lines
        .iter()
        .map(|line| match &line.outcome {
            Ok(measured) => json!({"pair": line.pair, "contender": line.contender, "measured": measured}),
            Err(why) => json!({"pair": line.pair, "contender": line.contender, "did_not_run": why}),
        })
        .collect();
    let everything = json!({
        "machine": machine::description(root, &crate::RIVALS),
        "command": format!("cargo bench --bench rivals {arguments}"),
        "rows": rows,
        "results": results,
    });
    fs::write(path, format!("{everything:#}\n")).expect("a place for the JSON");
}

fn mebibytes(memory: Memory) -> String {
    format!("{:.1}/{:.1} MiB", memory.anonymous_kib as f64 / 1024.0, memory.resident_kib as f64 / 1024.0)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}
