//! What a package holds beside the binary is in step with the binary.
//!
//! Manual pages and completions are made from the definition of the command line, and kept so that a package can be built
//! without making them, and that a change to them can be read. After a change of the command line:
//!
//!     SWIFTLET_REWRITE=1 cargo test --release --test packaging
//!
//! writes them anew. Without it the tests compare.

mod completions;
mod copyright;
mod metrics;
mod pages;
mod sample;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a directory below `packaging`, by name, are these and no others; or become these, if the reader asked for it.
fn holds(directory: &str, made: &BTreeMap<String, String>) {
    let directory = packaging().join(directory);
    if std::env::var_os("SWIFTLET_REWRITE").is_some() {
        fs::create_dir_all(&directory).expect("a directory");
        for name in names(&directory).iter().filter(|name| !made.contains_key(*name)) {
            fs::remove_file(directory.join(name)).expect("it was there");
        }
        for (name, text) in made {
            fs::write(directory.join(name), text).expect("written");
        }
    }
    let at = directory.display();
    assert_eq!(names(&directory), made.keys().cloned().collect::<Vec<_>>(), "{at}: {REMEDY}");
    for (name, text) in made {
        let kept = fs::read_to_string(directory.join(name)).expect("text");
        let differing = kept.lines().zip(text.lines()).position(|(kept, made)| kept != made);
        let line = 1 + differing.unwrap_or_else(|| kept.lines().count().min(text.lines().count()));
        assert!(kept == *text, "{at}/{name}:{line} is not what the command line says; {REMEDY}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("text")).collect();
    names.sort();
    names
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

const REMEDY: &str = "SWIFTLET_REWRITE=1 cargo test --release --test packaging writes it anew";
