//! `agent check`: what is in order, what is not, and how to mend it.
//!
//! A line for each finding, under the heading of what it belongs to; what is to be done about it follows on a line of its
//! own. Long ones are wrapped, so that nothing stands in the first columns but the verdicts.

use std::io::stdout;

use serde_json::json;

use super::run::become_user;
use super::{CheckOptions, Exit, complain, print};
use crate::check::{self, Finding, Subject, Verdict, drives};
use crate::report::terminal;
use crate::report::text::printable;

/// Checks everything and tells it.
pub fn check(options: &CheckOptions) -> Exit {
    if let Some(probe) = &options.probe {
        return match drives::probe(probe) {
            Some(facts) => {
                print(&facts);
                Exit::Clean
            }
            None => complain("--probe: that is no drive to look at"),
        };
    }
    let findings = check::all(&options.config, &become_user);
    print(&match options.json {
        true => render_json(&findings),
        false => {
            let width = terminal::width(stdout()).map_or(COLUMNS, |columns| columns.clamp(NARROWEST, WIDEST));
            render(&findings, width, terminal::wants_colour(&stdout()))
        }
    });
    match check::worst(&findings) {
        Verdict::Ok => Exit::Clean,
        Verdict::Warning => Exit::Failures,
        Verdict::Error => Exit::Usage,
    }
}

/// The findings as text, for somebody at a terminal of so many columns.
fn render(findings: &[Finding], width: usize, colour: bool) -> String {
    let mut text = String::new();
    let mut last = None;
    for finding in findings {
        if last != Some(finding.subject) {
            text += if last.is_some() { "\n" } else { "" };
            text += &format!("{}\n", heading(finding.subject));
            last = Some(finding.subject);
        }
        let (word, paint) = match finding.verdict {
            Verdict::Ok => ("ok", "\x1b[32m"),
            Verdict::Warning => ("warning", "\x1b[33m"),
            Verdict::Error => ("error", "\x1b[31m"),
        };
        add(&mut text, word, if colour { paint } else { "" }, &finding.what, width);
        if let Some(remedy) = &finding.remedy {
            add(&mut text, "remedy", if colour { "\x1b[2m" } else { "" }, remedy, width);
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let many = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    text += &format!(
        "\n{} ok, {}, {}\n",
        count(Verdict::Ok),
        many(count(Verdict::Warning), "warning"),
        many(count(Verdict::Error), "error")
    );
    text
}

fn heading(subject: Subject) -> &'static str {
    match subject {
        Subject::Conf => "conf files",
        Subject::Rings => "ring",
        Subject::Drives => "drives",
        Subject::Peers => "agents",
        Subject::Machine => "this node",
    }
}

/// Adds a word and what it says, wrapped between words.
fn add(text: &mut String, word: &str, paint: &str, said: &str, width: usize) {
    let plain = if paint.is_empty() { "" } else { "\x1b[0m" };
    *text += &format!("  {paint}{word:<8}{plain}");
    let mut column = MARGIN;
    let said = printable(said);
    for (index, piece) in said.split(' ').enumerate() {
        let length = piece.chars().count();
        if index > 0 && column + 1 + length > width {
            *text += &format!("\n{:MARGIN$}", "");
            column = MARGIN;
        } else if index > 0 {
            *text += " ";
            column += 1;
        }
        *text += piece;
        column += length;
    }
    *text += "\n";
}

/// The findings as one JSON object on one line, for a program.
fn render_json(findings: &[Finding]) -> String {
    let object = json!({ "verdict": check::worst(findings), "findings": findings });
    format!("{object}\n")
}

/// Where the text begins.
const MARGIN: usize = 10;
/// What is assumed of what is no terminal.
const COLUMNS: usize = 80;
/// Narrower, words would be cut; wider, lines are hard to read.
const NARROWEST: usize = 40;
const WIDEST: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(subject: Subject, verdict: Verdict, what: &str, remedy: Option<&str>) -> Finding {
        Finding { subject, verdict, what: what.to_owned(), remedy: remedy.map(str::to_owned) }
    }

    fn some() -> Vec<Finding> {
        vec![
            finding(Subject::Conf, Verdict::Ok, "it is read", None),
            finding(Subject::Conf, Verdict::Warning, "x is \x1b[2Jodd", Some("write y")),
            finding(Subject::Drives, Verdict::Error, "sdb1 is not there, whoever may look", Some("mount it")),
        ]
    }

    #[test]
    fn findings_stand_under_their_headings() {
        assert_eq!(
            render(&some(), 40, false),
            "conf files\n  ok      it is read\n  warning x is #033[2Jodd\n  remedy  write y\n\ndrives\n  \
             error   sdb1 is not there, whoever may\n          look\n  remedy  mount it\n\n1 ok, 1 warning, 1 error\n"
        );
        assert_eq!(render(&[], 80, false), "\n0 ok, 0 warnings, 0 errors\n");
    }

    #[test]
    fn colours_take_no_room() {
        let coloured = render(&some(), 40, true);
        assert!(coloured.contains("\x1b[31merror   \x1b[0msdb1"), "{coloured}");
        let mut plain = coloured;
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, render(&some(), 40, false));
    }

    #[test]
    fn a_word_that_is_too_long_is_not_cut() {
        let long = "x".repeat(100);
        let text = render(&[finding(Subject::Rings, Verdict::Ok, &format!("a {long} b"), None)], 40, false);
        assert!(text.contains(&format!("a\n          {long}\n          b\n")), "{text}");
    }

    #[test]
    fn programs_get_an_object() {
        let text = render_json(&some());
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["verdict"], "error");
        assert_eq!(value["findings"][1]["subject"], "conf");
        assert_eq!(value["findings"][1]["verdict"], "warning");
        assert_eq!(value["findings"][2]["remedy"], "mount it");
        assert_eq!(value["findings"][0]["remedy"], serde_json::Value::Null);
    }
}
