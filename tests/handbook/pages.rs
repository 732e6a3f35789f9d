//! The documents, and their fenced blocks.

use std::fs;
use std::path::{Path, PathBuf};

/// A document.
pub struct Page {
    /// Where it is, from the top of the project.
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// For complaints: the file and the line of the fence.
    pub at: String,
    /// The heading above it.
    pub heading: String,
    pub kind: Kind,
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `sh`.
    Shell,
    /// `ini`.
    Conf,
    /// Plain, beginning with `$ `.
    Output,
    /// Plain, each line a command.
    Table,
    /// `yaml`: for a program of others.
    Others,
}

/// README.md and everything in docs/, the first first.
pub fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = fs::read_dir(top().join("docs"))
        .expect("docs")
        .map(|entry| Path::new("docs").join(entry.expect("an entry").file_name()))
        .collect();
    paths.sort();
    paths.insert(0, "README.md".into());
    let read = |path: PathBuf| Page { text: fs::read_to_string(top().join(&path)).expect("text"), path };
    paths.into_iter().map(read).collect()
}

/// All blocks of all pages.
pub fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks_of(&page.path.display().to_string(), &page.text)).collect()
}

/// The blocks of a text; whatever keeps to no convention is a failure.
fn blocks_of(name: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut heading) = (Vec::new(), String::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim().to_owned();
        }
        let Some(word) = line.strip_prefix("```") else { continue };
        let at = format!("{name}:{}", number + 1);
        let inner: Vec<String> =
            lines.by_ref().map(|(_, line)| line.to_owned()).take_while(|line| line != "```").collect();
        let kind = match (word, inner.first().map(String::as_str)) {
            ("sh", Some(_)) => Kind::Shell,
            ("ini", Some(_)) => Kind::Conf,
            ("yaml", Some(_)) => Kind::Others,
            ("", Some(first)) if first.starts_with("$ agent") => Kind::Output,
            ("", Some(_)) if inner.iter().all(|line| line.starts_with("agent ")) => Kind::Table,
            _ => panic!("{at}: of no known kind: {word:?}, {:?}", inner.first()),
        };
        blocks.push(Block { at, heading: heading.clone(), kind, lines: inner });
    }
    blocks
}

pub fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_block_is_of_a_known_kind_and_each_kind_is_there() {
    let blocks = blocks();
    for kind in [Kind::Shell, Kind::Conf, Kind::Output, Kind::Table] {
        assert!(blocks.iter().any(|block| block.kind == kind), "{kind:?}: not one");
    }
    let one = blocks_of("x", "# A\n```sh\nb\n```\n## C d\n```\n$ agent\n```\n");
    assert_eq!(one.len(), 2);
    assert_eq!(
        (one[0].kind, one[0].lines.as_slice(), one[0].heading.as_str()),
        (Kind::Shell, &["b".into()][..], "A")
    );
    assert_eq!((one[1].kind, one[1].at.as_str(), one[1].heading.as_str()), (Kind::Output, "x:6", "C d"));
    assert!(std::panic::catch_unwind(|| blocks_of("x", "```python\nx\n```\n")).is_err());
}
