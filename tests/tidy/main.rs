//! The rules of the house that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_file_uses_only_what_stands_below_it_in_the_list() {
    let list = modules();
    let place = |name: &str| list.iter().position(|module| module == name);
    for file in sources() {
        let Some(room) = room(&file) else { continue };
        let own = place(&room).unwrap_or_else(|| panic!("{room}: not in the list of src/lib.rs"));
        for (number, line) in code(&file) {
            for used in used(&line) {
                let at = format!("{}:{number}", file.display());
                let Some(theirs) = place(&used) else {
                    panic!("{at}: {used} is not in the list of src/lib.rs")
                };
                assert!(own <= theirs, "{at}: {room} uses {used}, which stands above it in src/lib.rs");
            }
        }
    }
}

#[test]
fn the_list_has_every_file_once() {
    let list = modules();
    let rooms: BTreeSet<String> = sources().iter().filter_map(|file| room(file)).collect();
    assert_eq!(list.iter().cloned().collect::<BTreeSet<_>>(), rooms);
    assert_eq!(list.len(), rooms.len(), "a module is there twice");
}

#[test]
fn unsafe_stands_in_one_file() {
    let with: Vec<PathBuf> =
        sources().into_iter().filter(|file| code(file).any(|(_, line)| is_unsafe(&line))).collect();
    assert_eq!(with, [root().join("src/drive/sys.rs")]);
}

#[test]
fn no_file_grows_past_reading() {
    for file in sources().iter().filter(|file| !file.ends_with("tests.rs")) {
        let lines = code(file).count();
        assert!(lines <= LINES_LIMIT, "{}: {lines} lines without its tests", file.display());
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in sources() {
        let text = fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("//! "), "{}: its first line should say what it is for", file.display());
    }
}

#[test]
fn the_readme_names_options_that_there_are() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is one");
    let config = fs::read_to_string(root().join("src/config/mod.rs")).expect("there is one");
    let options: BTreeSet<&str> = words(&readme).filter(|word| word.starts_with("agent_")).collect();
    assert!(!options.is_empty());
    for option in &options {
        assert!(config.contains(&format!("\"{option}\"")), "README.md: src/config knows no {option}");
    }
    let list = config.split("AGENT_OPTIONS: ").nth(1).and_then(|after| after.split(';').nth(1));
    let known: Vec<&str> =
        words(list.expect("a list of names")).filter(|word| word.starts_with("agent_")).collect();
    assert!(!known.is_empty());
    for option in known {
        assert!(options.contains(option), "README.md says nothing of {option}");
    }
    let commands = sources().into_iter().filter(|file| file.starts_with(root().join("src/cli")));
    let commands = commands.chain([root().join("benches/rivals/options.rs")]);
    let cli: String = commands.map(|file| fs::read_to_string(file).expect("text")).collect();
    for flag in
        words(&readme).filter_map(|word| word.strip_prefix("--")).filter(|flag| !OF_OTHERS.contains(flag))
    {
        let is_known = cli.contains(&flag.replace('-', "_")) || cli.contains(&format!("--{flag}"));
        assert!(is_known, "README.md: the command line has no --{flag}");
    }
}

/// The rules can be broken: each example here breaks one.
#[test]
fn the_rules_bite() {
    assert_eq!(used("use crate::replica::{RowId, Row};"), ["replica"]);
    assert_eq!(used("    let x = crate::tally::Tally::default(); crate::merge::y()"), ["tally", "merge"]);
    assert_eq!(used("pub(crate) fn f() {} // crates::x"), Vec::<String>::new());
    assert!(
        is_unsafe("    unsafe { f() }") && is_unsafe("unsafe fn f()") && !is_unsafe("#![allow(unsafe_code)]")
    );
    assert_eq!(words("`agent_x = no`, --dry-run.").collect::<Vec<_>>(), ["agent_x", "no", "--dry-run"]);
}

/// The modules in the order of `src/lib.rs`.
fn modules() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("the library");
    let module = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    let list: Vec<String> = text.lines().filter_map(module).collect();
    assert!(list.len() > 10, "the list is not found any more");
    list
}

/// The module of the list that a file belongs to; `None` for the two roots.
fn room(file: &Path) -> Option<String> {
    let below = file.strip_prefix(root().join("src")).expect("a source");
    let first = below.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

/// What a line takes from the crate.
fn used(line: &str) -> Vec<String> {
    let after = line.split("crate::").skip(1);
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    after.map(name).filter(|name| !name.is_empty()).collect()
}

fn is_unsafe(line: &str) -> bool {
    words(line).any(|word| word == "unsafe")
}

/// Runs of letters, digits, `_` and `-`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).filter(|word| !word.is_empty())
}

/// A file's numbered lines, less comments, up to its tests.
fn code(file: &Path) -> impl Iterator<Item = (usize, String)> {
    let text = fs::read_to_string(file).expect("text");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_test = |at: &usize| {
        lines[*at] == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.starts_with("mod tests"))
    };
    let end = (0..lines.len()).find(is_test).unwrap_or(lines.len());
    let numbered = lines.into_iter().take(end).enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Every file below `src`.
fn sources() -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![root().join("src")]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    assert!(found.iter().all(|path| path.extension().is_some_and(|end| end == "rs")), "{found:?}");
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file that is longer has more than one thing in it.
const LINES_LIMIT: usize = 900;
/// Options of cargo, systemctl and rsync that the README names too.
const OF_OTHERS: [&str; 7] = ["release", "bench", "test", "locked", "now", "whole-file", ""];
