//! The sample of our options: all of them, once each, with the defaults they have.

use std::fs;

use swiftlet::config::{AGENT_OPTIONS, Config, SECTION};

use crate::packaging;

/// One option of the sample.
pub struct Entry {
    /// `agent_…`.
    pub name: String,
    /// What stands behind `=`; may be nothing.
    pub default: String,
    /// The comment above it, as one line.
    pub meaning: String,
}

/// The sample's text.
pub fn text() -> String {
    fs::read_to_string(packaging().join("agent-options.conf.sample")).expect("there is one")
}

/// The options of the sample in its order.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut comment = Vec::new();
    let mut entries = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('#').map(str::trim) {
            Some(option) if option.starts_with("agent_") => {
                let (name, default) = option.split_once('=').expect("name = value");
                let meaning = std::mem::take(&mut comment).join(" ");
                entries.push(Entry { name: name.trim().into(), default: default.trim().into(), meaning });
            }
            Some(words) => comment.push(words.to_owned()),
            None => comment.clear(),
        }
    }
    entries
}

#[test]
fn it_has_every_option_once_and_says_what_it_means() {
    let entries = entries(&text());
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    let mut known = AGENT_OPTIONS;
    known.sort_unstable();
    assert_eq!(names, known);
    for entry in &entries {
        assert!(entry.meaning.ends_with('.'), "{}: {:?}", entry.name, entry.meaning);
    }
}

#[test]
fn as_it_is_it_changes_nothing() {
    assert_eq!(Config::from_text(&text(), SWIFT_CONF), defaults());
}

#[test]
fn every_default_it_shows_is_the_default() {
    for entry in entries(&text()) {
        let conf = format!("[{SECTION}]\n{} = {}\n", entry.name, entry.default);
        assert_eq!(Config::from_text(&conf, SWIFT_CONF), defaults(), "{} = {}", entry.name, entry.default);
    }
    let other = format!("[{SECTION}]\nagent_port_offset = 1001\n");
    assert_ne!(Config::from_text(&other, SWIFT_CONF), defaults(), "options are told apart");
}

fn defaults() -> Result<Config, swiftlet::config::ConfigError> {
    Config::from_text(&format!("[{SECTION}]\n"), SWIFT_CONF)
}

const SWIFT_CONF: &[u8] = b"[swift-hash]\nswift_hash_path_suffix = s\n";
