//! Links lead to files and headings that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::pages::{pages, top};

/// Text and target of each link of a page, but for those in fenced blocks.
fn links(text: &str) -> Vec<String> {
    let mut inside = false;
    let outside = |line: &&str| {
        inside ^= line.starts_with("```");
        !inside
    };
    let text: String = text.lines().filter(outside).map(|line| format!("{line}\n")).collect();
    let targets = text.split("](").skip(1).filter_map(|after| Some(after.split_once(')')?.0.to_owned()));
    targets.collect()
}

/// The anchors of a page: its headings in small letters, words joined by hyphens.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(slug).collect()
}

/// Why a link of a page leads nowhere.
fn complaint(page: &Path, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" => top().join(page),
        file => top().join(page).parent().expect("a directory").join(file),
    };
    let Ok(text) = fs::read_to_string(&path) else { return Some(format!("there is no {}", path.display())) };
    let anchor = anchor?;
    (!anchors(&text).contains(anchor)).then(|| format!("{} has no heading for #{anchor}", path.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        for target in links(&page.text) {
            assert_eq!(complaint(&page.path, &target), None, "{}: {target}", page.path.display());
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen} links");
    let page = Path::new("docs/rings.md");
    assert_eq!(complaint(page, "../README.md#install"), None);
    assert!(complaint(page, "../README.md#instal").is_some() && complaint(page, "README.md").is_some());
    assert!(anchors("## Is it `so`, or not?\n").contains("is-it-so-or-not"));
    assert_eq!(links("[a](b)\n```\n[c](d)\n```\n[e](f#g)"), ["b", "f#g"]);
}

/// What the README sends a reader to is in the package, at the same place beside it.
#[test]
fn the_package_has_the_pages_too() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("it is there");
    for asset in
        [r#"["README.md", "usr/share/doc/swiftlet/""#, r#"["docs/*", "usr/share/doc/swiftlet/docs/""#]
    {
        assert!(manifest.contains(asset), "{asset} is not packaged");
    }
}

/// Files of the project that are named in running text.
#[test]
fn every_file_that_is_named_is_there() {
    let mut seen = 0;
    for page in pages() {
        let codes =
            page.text.split('`').skip(1).step_by(2).filter(|code| !code.contains(char::is_whitespace));
        let starts = ["tests/", "packaging/", "src/", "docs/", "benches/", ".ci/"];
        for code in codes.filter(|code| starts.iter().any(|start| code.starts_with(start))) {
            assert!(top().join(code).exists(), "{}: there is no {code}", page.path.display());
            seen += 1;
        }
    }
    assert!(seen > 2, "{seen} files");
}
