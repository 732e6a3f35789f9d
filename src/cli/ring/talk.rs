//! What a command says and asks.
//!
//! Answers go to standard output, line by line as a script reads them, and only once what they tell is true: they are kept
//! until the command has written its files, or wants to know something. Warnings go to standard error at once.

use std::io::{IsTerminal, stdin};

use crate::cli;
use crate::report::terminal;
use crate::report::text::printable;

/// One command's side of the conversation.
#[derive(Debug, Default)]
pub struct Talk {
    said: String,
}

impl Talk {
    /// Says a line, or several. What devices are called or annotated with cannot drive the terminal.
    pub fn say(&mut self, text: impl AsRef<str>) {
        for line in text.as_ref().split('\n') {
            self.said.push_str(&printable(line));
            self.said.push('\n');
        }
    }

    /// Warns of something.
    pub fn warn(&mut self, text: impl AsRef<str>) {
        let lines: Vec<_> = text.as_ref().lines().map(printable).collect();
        terminal::say(&lines.join("\n"));
    }

    /// Asks a question that only `y` answers with yes. No answer, as from a pipe that ended, means no.
    pub fn agrees(&mut self, question: &str) -> bool {
        self.said.push_str(&format!("{} (y/N) ", printable(question)));
        self.flush();
        let mut answer = String::new();
        match stdin().read_line(&mut answer) {
            Ok(1..) => answer.trim_end_matches(['\n', '\r']) == "y",
            _ => {
                if self.has_operator() {
                    self.said.push('\n');
                }
                false
            }
        }
    }

    /// Whether somebody sits there who could answer.
    pub fn has_operator(&self) -> bool {
        stdin().is_terminal()
    }

    /// Prints what was said up to now.
    pub fn flush(&mut self) {
        cli::print(&std::mem::take(&mut self.said));
    }
}
