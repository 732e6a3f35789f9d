//! `agent status`: how this node is doing, or one database on it.
//!
//! It reads what there is and asks nobody over the network, so that it works with an agent running or not, and answers at
//! once when peers do not.

mod one;
mod show;

use serde_json::json;

use super::ring::columns::{BOLD, paint};
use super::{Exit, StatusOptions, complain, print};
use crate::config::Config;
use crate::report::terminal;
use crate::status::gather;

/// Prints how the node is doing, or one database on it.
pub fn status(options: &StatusOptions) -> Exit {
    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(error) => return complain(error),
    };
    let style = Style::of_terminal();
    if let Some((account, container)) = &options.container {
        return match one::look(config, account, container) {
            Ok(found) => {
                print(&if options.json { format!("{}\n", json!(found)) } else { one::page(&found, style) });
                if found.needs_person { Exit::Failures } else { Exit::Clean }
            }
            Err(error) => complain(error),
        };
    }
    match gather(config) {
        Ok(report) => {
            print(&if options.json { format!("{}\n", json!(report)) } else { show::page(&report, style) });
            if report.needs_person { Exit::Failures } else { Exit::Clean }
        }
        Err(error) => complain(error),
    }
}

/// How text is to look.
#[derive(Debug, Clone, Copy)]
struct Style {
    colour: bool,
    width: usize,
}

impl Style {
    /// As standard output can and wants it.
    fn of_terminal() -> Style {
        let output = std::io::stdout();
        let width = terminal::width(&output).unwrap_or(WIDTH).clamp(NARROWEST, WIDEST);
        Style { colour: terminal::wants_colour(&output), width }
    }

    fn paint(self, code: &str, text: &str) -> String {
        paint(code, text, self.colour)
    }

    fn heading(self, title: &str) -> String {
        format!("\n{}\n", self.paint(BOLD, title))
    }
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
/// What is not a terminal has as many columns.
const WIDTH: usize = 80;
const NARROWEST: usize = 40;
/// Longer lines are not read.
const WIDEST: usize = 120;
