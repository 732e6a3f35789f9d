//! Lines of a name and what it stands for, under headings: how `info` and `locate` tell of one thing.

use std::fmt::Write;

use crate::report::text::printable;

/// Text as it grows. Whatever is put in is printed with its control characters spelt out.
pub struct Page {
    /// What there is so far.
    pub text: String,
    /// Characters from the margin to the values.
    name_width: usize,
    /// Two spaces from the first heading on.
    indent: &'static str,
}

impl Page {
    /// An empty page whose values begin after so many characters.
    pub fn new(name_width: usize) -> Page {
        Page { text: String::new(), name_width, indent: "" }
    }

    /// Begins a part.
    pub fn heading(&mut self, title: &str) {
        self.indent = "  ";
        writeln!(self.text, "\n{title}").expect(INFALLIBLE);
    }

    /// A name and its value.
    pub fn fact(&mut self, name: &str, value: &str) {
        let (indent, width) = (self.indent, self.name_width - self.indent.len());
        writeln!(self.text, "{indent}{name:<width$} {}", printable(value)).expect(INFALLIBLE);
    }

    /// Lines of text.
    pub fn lines(&mut self, text: &str) {
        for line in text.lines() {
            writeln!(self.text, "  {}", printable(line)).expect(INFALLIBLE);
        }
    }
}

const INFALLIBLE: &str = "a string takes whatever is written to it";
