//! Command lines: ours are understood, those of others name units, packages, tests and programs that there are.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use swiftlet::cli;

use crate::pages::{Kind, blocks, pages, top};

/// Why a command line of a document is none; `None` if it is one.
fn complaint(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "sudo").collect();
    match *words.first()? {
        // Only named, as something that there is.
        "agent" if words.len() == 2 && cli::definition().find_subcommand(words[1]).is_some() => None,
        "agent" => {
            // `[A C]` and `...` stand for what may be left out or added.
            let words = words.iter().map(|word| word.trim_matches(['[', ']'])).filter(|word| *word != "...");
            cli::parse(words.map(Into::into)).err().map(|error| error.to_string())
        }
        "cargo" => of_cargo(&words),
        "systemctl" => {
            let unknown =
                |word: &&&str| !word.starts_with("--") && !UNITS_OF_OTHERS.contains(word) && !is_unit(word);
            match words.get(1) {
                Some(&"enable" | &"disable" | &"restart" | &"reload" | &"edit" | &"stop" | &"start")
                    if words.len() > 2 =>
                {
                    words[2..].iter().find(unknown).map(|word| format!("there is no unit {word}"))
                }
                Some(&"daemon-reload") => None,
                other => Some(format!("systemctl {other:?}")),
            }
        }
        "dpkg" | "apt-get" => {
            (!words[1..].iter().any(|word| word.contains("swiftlet"))).then(|| "no package of ours".into())
        }
        "rm" => words[1..].iter().find(|word| !REMOVED.contains(word)).map(|word| format!("removes {word}")),
        other if PROGRAMS_OF_OTHERS.contains(&other) => None,
        other => Some(format!("{other} is not a program that these documents name")),
    }
}

/// Cargo's own words, and the names of our tests and benches.
fn of_cargo(words: &[&str]) -> Option<String> {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("it is there");
    for pair in words.windows(2).filter(|pair| ["--test", "--bench"].contains(&pair[0])) {
        let section = format!("[[{}]]\nname = \"{}\"\n", pair[0].trim_start_matches('-'), pair[1]);
        if !manifest.contains(&section) {
            return Some(format!("Cargo.toml has no {} {}", pair[0], pair[1]));
        }
    }
    let known = ["run", "test", "bench", "deb", "install"];
    if !words.get(1).is_some_and(|word| known.contains(word)) {
        return Some("cargo does not do that".into());
    }
    let behind = words.iter().position(|word| *word == "--").filter(|_| words[1] == "run");
    behind.and_then(|at| complaint(&format!("agent {}", words[at + 1..].join(" "))))
}

fn is_unit(word: &str) -> bool {
    let units = top().join("packaging/units");
    units.join(word).exists() || units.join(format!("{word}.service")).exists()
}

/// A command without what is said about it behind two spaces or more.
fn bare(line: &str) -> &str {
    line.split_once("  ").map_or(line, |(command, _)| command)
}

#[test]
fn every_command_line_of_a_block_is_one() {
    for block in blocks() {
        let lines: Vec<&str> = match block.kind {
            Kind::Shell => block.lines.iter().map(String::as_str).collect(),
            Kind::Table => block.lines.iter().map(|line| bare(line)).collect(),
            Kind::Output => vec![block.lines[0].trim_start_matches("$ ")],
            Kind::Conf | Kind::Others => continue,
        };
        for line in lines {
            assert_eq!(complaint(line), None, "{}: {line}", block.at);
        }
    }
}

/// In running text: between backquotes, where they begin with a program of ours.
#[test]
fn every_command_line_in_running_text_is_one() {
    let mut seen = 0;
    for page in pages() {
        for (number, line) in page.text.lines().enumerate() {
            let commands = line.split('`').skip(1).step_by(2).map(|code| code.trim_start_matches("sudo "));
            for code in commands
                .filter(|code| ["agent ", "systemctl ", "cargo "].iter().any(|name| code.starts_with(name)))
            {
                assert_eq!(complaint(code), None, "{}:{}: `{code}`", page.path.display(), number + 1);
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} were found");
}

/// README.Debian's, which stand indented, and the examples of every manual page, which end its help.
#[test]
fn every_command_line_that_the_package_brings_along_is_one() {
    let debian = fs::read_to_string(top().join("packaging/debian/README.Debian")).expect("it is there");
    let indented = debian.lines().filter_map(|line| line.strip_prefix("    "));
    let mut found: Vec<String> = indented
        .filter(|line| ["agent ", "systemctl ", "rm "].iter().any(|name| line.starts_with(name)))
        .map(|line| bare(line).to_owned())
        .collect();
    assert!(found.len() > 6, "{found:?}");
    let mut definition = cli::definition();
    definition.build();
    for command in std::iter::once(&definition).chain(definition.get_subcommands()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples = help.lines().skip_while(|line| !line.starts_with("Examples:"));
        let examples = examples.filter_map(|line| line.strip_prefix("  agent "));
        found.extend(examples.map(|line| bare(&format!("agent {line}")).to_owned()));
    }
    for line in &found {
        assert_eq!(complaint(line), None, "{line}");
    }
}

/// The commands of docs/rings.md, one after the other in a directory of their own, each of which does what it should.
#[test]
fn rings_are_made_as_it_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut ran = BTreeSet::new();
    for block in blocks().into_iter().filter(|block| block.kind == Kind::Table) {
        for line in block.lines.iter().filter(|line| line.starts_with("agent ring container.builder")) {
            let line = bare(line).replace("FILE", "ring.svg").replace("OLD.builder", "container.builder");
            let output = Command::new(env!("CARGO_BIN_EXE_agent"))
                .args(line.split_whitespace().skip(1))
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code().is_some_and(|code| code < 2), "{}: {line}: {said}", block.at);
            ran.insert(line);
        }
    }
    assert!(ran.len() > 4, "{ran:?}");
    for made in ["container.ring.gz", "ring.svg", "backups"] {
        assert!(dir.path().join(made).exists(), "no {made}");
    }
}

#[test]
fn what_is_no_command_line_is_found_out() {
    for line in [
        "agent --onec",
        "agent chek",
        "sudo agent --devices sdb1",
        "sudo systemctl enable --now agnet",
        "systemctl agent",
        "cargo bench --bench rivalry",
        "cargo run --release -- demos",
        "sudo rm -r /srv/node",
        "sudo apt-get purge swift",
        "curl x",
    ] {
        assert!(complaint(line).is_some(), "{line}");
    }
    assert_eq!(bare("agent info DB              one database"), "agent info DB");
}

const UNITS_OF_OTHERS: [&str; 2] = ["swift-container-replicator", "rsync"];
const PROGRAMS_OF_OTHERS: [&str; 1] = ["swift-recon"];
/// All that a reader is told to remove, ever.
const REMOVED: [&str; 2] = ["-r", "/srv/node/*/agent"];
