//! The figures for people who read a terminal, and as JSON.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::figures::{Figure, Figures};

/// Prints figures, those of one case together.
pub fn print(figures: &[Figure]) {
    let mut case = None;
    for figure in figures {
        if case != Some((figure.section, &figure.case)) {
            println!("\n{}: {}", figure.section, figure.case);
            case = Some((figure.section, &figure.case));
        }
        let (least, greatest) = figure.spread();
        println!(
            "  {:<20} {:<20} {:>16} {:<12} ({} to {})  {}",
            figure.side,
            figure.measure,
            number(figure.median()),
            figure.unit,
            number(least),
            number(greatest),
            figure.note
        );
    }
}

/// Writes everything, with the machine and the command line it came from.
pub fn write_json(path: &Path, machine: &str, command: &str, figures: &Figures) {
    let everything = json!({ "machine": machine, "command": command, "figures": figures });
    fs::write(path, format!("{everything:#}\n")).expect("a place for the JSON");
}

fn number(number: f64) -> String {
    if number.fract() != 0.0 && number.abs() < 1000.0 {
        return format!("{number:.3}");
    }
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}
