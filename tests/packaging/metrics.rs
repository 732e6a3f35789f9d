//! `docs/metrics.md` has what the code tells, and nothing else.
//!
//! Its tables stand between two marks and are made from the code: `SWIFTLET_REWRITE=1` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use swiftlet::metrics::statsd::{COUNTERS, REMOVES, TIMING};
use swiftlet::metrics::table::TABLE;
use swiftlet::report::journal;

use crate::REMEDY;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")
}

fn text() -> String {
    fs::read_to_string(path()).expect("there is one")
}

/// A table with a row for each of these.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| cell.to_string()).collect();
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    rows.fold(line(&head) + &rule, |text, cells| text + &line(&cells))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The tables, each with the mark that it stands behind.
fn tables() -> [(&'static str, String); 3] {
    let metrics = TABLE.iter().map(|metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| code(label)).collect();
        let kind = metric.kind.as_str().to_owned();
        vec![
            code(metric.name),
            kind,
            metric.unit.as_str().to_owned(),
            labels.join(", "),
            metric.meaning.to_owned(),
        ]
    });
    let counters = COUNTERS.iter().map(|counter| (counter.name, "counter", counter.meaning));
    let others = [(REMOVES.0, "counter", REMOVES.1), (TIMING.0, "timer", TIMING.1)];
    let statsd = counters
        .chain(others)
        .map(|(name, kind, meaning)| vec![code(name), kind.to_owned(), meaning.to_owned()]);
    let fields = journal::FIELDS.iter().map(|(_, name, meaning)| vec![code(name), meaning.to_string()]);
    [
        ("metrics", table(&["metric", "kind", "unit", "labels", "meaning"], metrics)),
        ("statsd", table(&["name", "kind", "meaning"], statsd)),
        ("journal", table(&["field", "what it holds"], fields)),
    ]
}

/// What stands between a mark and the next end.
fn block<'a>(text: &'a str, mark: &str) -> &'a str {
    let after = text.split_once(&format!("<!-- {mark} -->\n")).expect("a mark").1;
    after.split_once("<!-- end -->").expect("an end").0
}

#[test]
fn every_metric_and_field_has_its_row_and_there_are_no_others() {
    if std::env::var_os("SWIFTLET_REWRITE").is_some() {
        let mut text = text();
        for (mark, table) in tables() {
            let old = format!("<!-- {mark} -->\n{}<!-- end -->", block(&text, mark));
            text = text.replacen(&old, &format!("<!-- {mark} -->\n{table}<!-- end -->"), 1);
        }
        fs::write(path(), text).expect("written");
    }
    let text = text();
    for (mark, table) in tables() {
        let (kept, made): (BTreeSet<&str>, BTreeSet<&str>) =
            (block(&text, mark).lines().collect(), table.lines().collect());
        let lacking: Vec<_> = made.difference(&kept).collect();
        let surplus: Vec<_> = kept.difference(&made).collect();
        assert!(lacking.is_empty(), "docs/metrics.md lacks {lacking:#?}; {REMEDY}");
        assert!(surplus.is_empty(), "docs/metrics.md has what there is not: {surplus:#?}; {REMEDY}");
        assert_eq!(block(&text, mark), table, "docs/metrics.md has another order; {REMEDY}");
    }
}

/// Rules and graphs, too: wherever a metric is named, there is one.
#[test]
fn documents_name_metrics_that_there_are() {
    let rows: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
    for file in ["docs/metrics.md", "README.md"] {
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("there is one");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_name = |word: &&str| {
            word.strip_prefix("swiftlet_")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        };
        let named: BTreeSet<&str> = words.filter(is_name).collect();
        assert!(!named.is_empty(), "{file} names none");
        let unknown: Vec<_> = named.difference(&rows).collect();
        assert!(unknown.is_empty(), "{file}: there is no {unknown:?}");
    }
}
