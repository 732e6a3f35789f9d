//! Our agents beside their rivals, measured on the machine and the disk that they are to run on.
//!
//! `cargo bench --bench rivals -- --root DIR [--sections LIST] [--quick] [--runs N] [--rows N] [--json FILE] [--html FILE]`
//!
//! A section measures one kind of thing, and has a file of its own that says what: `pairs`. All contenders of a case run
//! in turn and in one run, for absolute figures drift with the machine and the hour; only what was measured together may
//! be compared. No figure counts before both ends are proved equal. What this machine cannot run is said aloud and
//! stands in the report.
//!
//! Of memory, *anonymous* is what a process allocated; *resident* counts pages of files as well, which the kernel may
//! take back.

mod contender;
mod figures;
mod machine;
mod measure;
mod options;
mod ours;
mod pairs;
mod rdiff;
mod rsync;
mod stalls;
mod table;
mod workshop;

use std::path::Path;

use clap::Parser;
use figures::Figures;
use options::Options;

/// A part of the benchmark: works below the directory given, and leaves nothing there.
type Section = fn(&Options, &Path, &mut Figures);

/// Every section, in the order in which they run.
const SECTIONS: &[(&str, Section)] = &[("pairs", pairs::run), ("stalls", stalls::run)];

fn main() {
    if stalls::ran_as_writer() {
        return;
    }
    let options = Options::parse();
    for wanted in &options.sections {
        assert!(SECTIONS.iter().any(|(name, _)| name == wanted), "no section is called {wanted}");
    }
    let temporary = match &options.root {
        Some(root) => tempfile::tempdir_in(root),
        None => tempfile::tempdir(),
    }
    .expect("a directory to work in");
    let machine = machine::description(temporary.path(), &RIVALS);
    let command = format!("cargo bench --bench rivals {}", arguments());
    println!("{machine}\n{command}");

    let mut figures = Figures::default();
    for (name, section) in SECTIONS {
        if options.sections.is_empty() || options.sections.iter().any(|wanted| wanted == name) {
            let (before, room) = (figures.measured.len(), temporary.path().join(name));
            std::fs::create_dir(&room).expect("a directory");
            section(&options, &room, &mut figures);
            std::fs::remove_dir_all(&room).expect("a directory to remove");
            table::print(&figures.measured[before..]);
            // After each section: what was measured is kept if a later one fails.
            table::write_json(&options.json, &machine, &command, &figures);
        }
    }
    println!("also in {}", options.json.display());
}

fn arguments() -> String {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.is_empty() { String::new() } else { format!("-- {}", given.join(" ")) }
}

/// Programs of others that take part where they are installed.
const RIVALS: [&str; 2] = ["rsync", "rdiff"];
