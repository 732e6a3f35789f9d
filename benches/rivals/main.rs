//! Our agents beside their rivals, measured on the machine and the disk that they are to run on.
//!
//! `cargo bench --bench rivals -- --root DIR [--sections LIST] [--quick] [--runs N] [--rows N] [--json FILE] [--html FILE]`
//!
//! A section measures one kind of thing, and has a file of its own that says what and how. All contenders of a case run
//! in turn and in one run, for absolute figures drift with the machine and the hour; only what was measured together may
//! be compared. No figure counts before both ends are proved equal. What this machine cannot run is said aloud and
//! stands in the report.
//!
//! Of memory, *anonymous* is what a process allocated; *resident* counts pages of files as well, which the kernel may
//! take back.

mod caches;
mod contender;
mod delay;
mod disk;
mod figures;
mod gentle;
mod links;
mod machine;
mod measure;
mod memory;
mod network;
mod options;
mod ours;
mod pairs;
mod proof;
mod rdiff;
mod report;
mod room;
mod rsync;
mod scale;
mod stalls;
mod swift;
mod swift_nodes;
mod table;
mod waits;
mod workshop;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use figures::Figures;
use machine::Machine;
use options::Options;
use report::Outcome;
use swift::Swift;

/// A part of the benchmark: works below the directory given, and leaves nothing there.
type Section = fn(&Options, &Path, &mut Figures);

/// Every section, in the order in which they run.
const SECTIONS: &[(&str, Section)] = &[
    ("pairs", pairs::run),
    ("links", links::run),
    ("memory", memory::run),
    ("scale", scale::run),
    ("stalls", stalls::run),
    ("gentle", gentle::run),
];

fn main() -> ExitCode {
    if stalls::ran_as_writer() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if let Some(earlier) = &options.render {
        let text = fs::read_to_string(earlier).expect("the figures of an earlier run");
        write(&options, &serde_json::from_str(&text).expect("figures as JSON"));
        return ExitCode::SUCCESS;
    }
    for wanted in &options.sections {
        assert!(SECTIONS.iter().any(|(name, _)| name == wanted), "no section is called {wanted}");
    }
    let temporary = match &options.root {
        Some(root) => tempfile::tempdir_in(root),
        None => tempfile::tempdir(),
    }
    .expect("a directory to work in");
    let mut outcome = Outcome {
        machine: describe(temporary.path(), &options),
        command: format!("cargo bench --bench rivals {}", arguments()),
        quick: options.quick,
        figures: Figures::default(),
    };
    for (name, fact) in &outcome.machine.facts {
        println!("{name:<20}{fact}");
    }
    println!("{}", outcome.command);
    if let Some(why) = options.caches_refused() {
        outcome.figures.could_not("cold caches", &why);
    }

    let mut failed = false;
    for (name, section) in SECTIONS {
        if options.sections.is_empty() || options.sections.iter().any(|wanted| wanted == name) {
            let before = outcome.figures.measured.len();
            let room = tempfile::tempdir_in(temporary.path()).expect("a directory");
            let ran = catch_unwind(AssertUnwindSafe(|| section(&options, room.path(), &mut outcome.figures)));
            if let Err(panic) = ran {
                failed = true;
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let why = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why");
                outcome
                    .figures
                    .could_not(name, &format!("it FAILED, and ends the rest of its section: {why}"));
            }
            table::print(&outcome.figures.measured[before..]);
            // After each section: what was measured is kept whatever becomes of a later one.
            write(&options, &outcome);
        }
    }
    println!("\nfigures in {}, a page to look at in {}", options.json.display(), options.html.display());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn write(options: &Options, outcome: &Outcome) {
    if options.render.is_none() {
        let json = serde_json::to_string_pretty(outcome).expect("JSON");
        fs::write(&options.json, json + "\n").expect("a place for the JSON");
    }
    fs::write(&options.html, report::render(outcome)).expect("a place for the page");
}

fn describe(root: &Path, options: &Options) -> Machine {
    let mut rivals: Vec<String> =
        RIVALS.into_iter().filter(|name| machine::has(name)).map(machine::version).collect();
    rivals.extend(Swift::find(options.swift_venv().as_deref()).map(|swift| swift.version()));
    let mut machine = Machine::here(root, rivals);
    let cold = options.caches() == caches::Caches::Cold;
    let caches = if cold { "cold: dropped before each run" } else { "warm: as writing the files left them" };
    machine.add("File caches", caches.to_owned());
    machine
}

fn arguments() -> String {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.is_empty() { String::new() } else { format!("-- {}", given.join(" ")) }
}

/// Programs of others that take part where they are installed.
const RIVALS: [&str; 2] = ["rsync", "rdiff"];
