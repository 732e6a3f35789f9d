//! The package's copyright file: whose work the binary holds, and under which licences.
//!
//! A Rust binary carries the crates it was made from, and those the C sources they bring along. Which they are is in
//! Cargo.lock, and what their makers ask for is in their sources, which cargo has fetched before this is built. Procedural
//! macros and what only runs while building is not in the binary, and not here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{REMEDY, packaging};

/// A crate that is in the binary.
#[derive(Debug, Clone)]
struct Crate {
    name: String,
    version: String,
    /// As its maker wrote it: `MIT OR Apache-2.0`.
    licence: String,
    authors: Vec<String>,
    dir: PathBuf,
}

#[test]
fn it_names_every_crate_of_the_binary_with_its_licence() {
    let crates = crates();
    assert!(crates.len() > 40, "{} crates", crates.len());
    let made = text(&crates);
    let path = packaging().join("debian/copyright");
    if std::env::var_os("SWIFTLET_REWRITE").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("text");
    let differing = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{}:{}: not what Cargo.lock says; {REMEDY}",
        path.display(),
        differing.unwrap_or(0) + 1
    );

    for part in ["Files: crates/libsqlite3-sys/sqlite3/*", "Files: crates/zstd-sys/zstd/*"] {
        assert_eq!(made.matches(&format!("\n{part}\n")).count(), 1, "{part}");
    }
    let named: BTreeSet<&str> = made.lines().filter_map(|line| line.strip_prefix("License: ")).collect();
    for licence in named.iter().flat_map(|line| line.split(" or ")) {
        let texts =
            made.split("\n\n").filter(|stanza| stanza.lines().next() == Some(&format!("License: {licence}")));
        assert_eq!(texts.count(), 1, "the text of {licence}");
    }
}

/// What cargo links into the binary, by name.
fn crates() -> Vec<Crate> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", PLATFORM])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let list = list.as_array().expect("a list").iter();
        list.map(|value| (word(&value["id"]), value.clone())).collect()
    };
    let (packages, nodes) = (by_id(&all["packages"]), by_id(&all["resolve"]["nodes"]));
    let (mut found, mut left) = (BTreeMap::new(), vec![word(&all["resolve"]["root"])]);
    while let Some(id) = left.pop() {
        let dependencies = nodes[&id]["deps"].as_array().expect("a list").iter();
        let of_the_binary = |kind: &Value| kind["kind"].is_null();
        let linked = dependencies
            .filter(|dependency| {
                dependency["dep_kinds"].as_array().expect("a list").iter().any(of_the_binary)
            })
            .map(|dependency| word(&dependency["pkg"]))
            .filter(|id| !is_macro(&packages[id]));
        for id in linked {
            if found.insert(id.clone(), crate_of(&packages[&id])).is_none() {
                left.push(id);
            }
        }
    }
    let mut crates: Vec<Crate> = found.into_values().collect();
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    crates
}

fn crate_of(package: &Value) -> Crate {
    Crate {
        name: word(&package["name"]),
        version: word(&package["version"]),
        licence: word(&package["license"]),
        authors: package["authors"].as_array().expect("a list").iter().map(word).collect(),
        dir: Path::new(&word(&package["manifest_path"])).parent().expect("a directory").to_owned(),
    }
}

fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().expect("a list");
    targets.iter().any(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "proc-macro"))
    })
}

fn word(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// The whole file.
fn text(crates: &[Crate]) -> String {
    let mut text = HEAD.to_owned();
    let mut stanza = |files: &str, holders: &[String], licence: &str, comment: &str| {
        write!(text, "\nFiles: {files}\nCopyright: {}\nLicense: {licence}\n", holders.join("\n           "))
            .expect(INFALLIBLE);
        if !comment.is_empty() {
            writeln!(text, "Comment: {comment}").expect(INFALLIBLE);
        }
    };
    let rust = ["The Rust Project Contributors".to_owned()];
    stanza("crates/std/*", &rust, "Expat or Apache-2.0", "Rust's standard library");
    for one in crates {
        stanza(
            &format!("crates/{}/*", one.name),
            &holders(one),
            &debian(&one.licence),
            &format!("version {}", one.version),
        );
        match one.name.as_str() {
            "libsqlite3-sys" => {
                let nobody = ["none; its authors disclaim it".to_owned()];
                stanza(
                    "crates/libsqlite3-sys/sqlite3/*",
                    &nobody,
                    "public-domain",
                    &format!("SQLite {}", sqlite(one)),
                );
            }
            "zstd-sys" => {
                let meta = ["Meta Platforms, Inc. and affiliates".to_owned()];
                let version = one.version.split_once("+zstd.").expect("with that of zstd").1;
                stanza(
                    "crates/zstd-sys/zstd/*",
                    &meta,
                    "BSD-3-Clause",
                    &format!("Zstandard {version}, which may be used under GPL-2 instead"),
                );
            }
            _ => {}
        }
    }
    text + &licences(crates)
}

/// Who has the copyright, as the crate's own licence files say, or else its authors.
fn holders(one: &Crate) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for file in licence_files(&one.dir) {
        for line in file.lines().map(str::trim) {
            let Some(holder) = line.strip_prefix("Copyright ").or_else(|| line.strip_prefix("(C) ")) else {
                continue;
            };
            let holder = holder
                .trim_start_matches("(c) ")
                .trim_start_matches("(C) ")
                .trim_end_matches(" All rights reserved.");
            // The form of words at the end of Apache's licence.
            if !holder.starts_with('[')
                && !holder.starts_with('{')
                && !found.iter().any(|known| known == holder.trim())
            {
                found.push(holder.trim().to_owned());
            }
        }
    }
    match (found.is_empty(), one.authors.is_empty()) {
        (false, _) => found,
        (true, false) => one.authors.clone(),
        (true, true) => vec![format!("the developers of {}", one.name)],
    }
}

fn licence_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("its sources are there").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = names
        .filter(|path| path.is_file())
        .filter(|path| {
            path.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with("LICEN") && !name.ends_with("THIRD-PARTY") || name.starts_with("UNLICENSE")
            })
        })
        .collect();
    files.sort();
    files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The version of the SQLite that a crate brings along.
fn sqlite(one: &Crate) -> String {
    let header = fs::read_to_string(one.dir.join("sqlite3/sqlite3.h")).expect("its header");
    let line =
        header.lines().find_map(|line| line.strip_prefix("#define SQLITE_VERSION ")).expect("its version");
    line.trim().trim_matches('"').to_owned()
}

/// A licence in Debian's words.
fn debian(licence: &str) -> String {
    let one = |name: &str| match name.trim() {
        "MIT" => "Expat".to_owned(),
        name => name.replace(" WITH LLVM-exception", " with LLVM exception"),
    };
    licence.replace('/', " OR ").split(" OR ").map(one).collect::<Vec<_>>().join(" or ")
}

/// The text of each licence that is named, once.
fn licences(crates: &[Crate]) -> String {
    let mut names: BTreeSet<String> = crates
        .iter()
        .flat_map(|one| debian(&one.licence).split(" or ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    names.extend(["Apache-2.0", "Expat", "BSD-3-Clause", "public-domain"].map(str::to_owned));
    let text = |name: &String| {
        let body = match name.as_str() {
            "Apache-2.0" => APACHE.to_owned(),
            "CC0-1.0" => "To the extent possible under law, the authors have waived all rights to this work.\n\nOn Debian systems the whole of it is in /usr/share/common-licenses/CC0-1.0.".to_owned(),
            "public-domain" => "The author disclaims copyright to this source code.".to_owned(),
            "Apache-2.0 with LLVM exception" => {
                let whole = of_crate(crates, "blake3", "LICENSE_A2LLVM");
                let exception = whole.split("LLVM Exceptions to the Apache 2.0 License ----").nth(1).expect("the exception");
                format!("The Apache License, Version 2.0, which is in /usr/share/common-licenses/Apache-2.0, and:\n\n{}", exception.trim())
            }
            "Expat" => of_crate(crates, "log", "LICENSE-MIT"),
            "MIT-0" => of_crate(crates, "constant_time_eq", "LICENSE-MIT0"),
            "0BSD" => of_crate(crates, "adler2", "LICENSE-0BSD"),
            "BSD-2-Clause" => of_crate(crates, "arrayref", "LICENSE"),
            "BSD-3-Clause" => of_crate(crates, "zstd", "LICENSE"),
            "Unlicense" => of_crate(crates, "memchr", "UNLICENSE"),
            "Zlib" => of_crate(crates, "foldhash", "LICENSE"),
            other => panic!("{other}: add the text of this licence, if we may use it"),
        };
        let lines = body.lines().map(|line| {
            if line.trim().is_empty() { " .".to_owned() } else { format!(" {}", line.trim_end()) }
        });
        format!("\nLicense: {name}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    names.iter().map(text).collect()
}

/// A licence as a crate has it, without whose work it is.
fn of_crate(crates: &[Crate], name: &str, file: &str) -> String {
    let one = crates
        .iter()
        .find(|one| one.name == name)
        .unwrap_or_else(|| panic!("{name} is used no more: take {file} from another"));
    let text = fs::read_to_string(one.dir.join(file)).expect("its licence");
    let is_terms = |line: &&str| {
        let line = line.trim();
        !line.starts_with("Copyright (") && line != "All rights reserved." && line != "BSD 3-Clause License"
    };
    text.lines().filter(is_terms).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// What is built for; on others the same crates are linked, or fewer.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: swiftlet
Comment: The binary holds the crates that are named here as crates/NAME, whose
 sources are not part of this package but of the registry they come from.

Files: *
Copyright: 2026 the maintainers of swiftlet
License: Apache-2.0
";
const APACHE: &str = "\
Licensed under the Apache License, Version 2.0 (the \"License\"); you may not use this file except in compliance with the
License. You may obtain a copy of the License at

  https://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on an
\"AS IS\" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
language governing permissions and limitations under the License.

On Debian systems it is in /usr/share/common-licenses/Apache-2.0.";
const INFALLIBLE: &str = "writing to a string cannot fail";
