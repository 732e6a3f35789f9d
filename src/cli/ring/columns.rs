//! Columns of text as wide as what is in them, and a code of colour where it is wanted.

/// One cell.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    /// Escape code without its frame, as in `1;31`; empty for none.
    code: String,
    left: bool,
}

impl Cell {
    /// Flush right, as numbers are.
    pub fn right(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// Flush left, as names are.
    pub fn left(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), left: true, ..Cell::default() }
    }

    /// The same with an escape code.
    pub fn code(self, code: impl Into<String>) -> Cell {
        Cell { code: code.into(), ..self }
    }
}

/// Lays rows out, two blanks between columns. The first row is the heading.
pub fn columns(rows: &[Vec<Cell>], colour: bool) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let line = |(number, row): (usize, &Vec<Cell>)| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            let text = match cell.left {
                true => format!("{:<width$}", cell.text),
                false => format!("{:>width$}", cell.text),
            };
            paint(if number == 0 { DIM } else { &cell.code }, &text, colour)
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().enumerate().map(line).collect()
}

/// Text between an escape code and its end, where colour is wanted.
pub fn paint(code: &str, text: &str, colour: bool) -> String {
    if colour && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text in lines of at most so many characters, if its words let it, broken at blanks.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Less than other text.
pub const DIM: &str = "2";
/// More than other text.
pub const BOLD: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_and_escapes_have_no_width() {
        let rows = [
            vec![Cell::left("name"), Cell::right("parts")],
            vec![Cell::left("ä").code(BOLD), Cell::right("1,234,567")],
            vec![Cell::left("longer")],
        ];
        assert_eq!(columns(&rows, false), ["name        parts", "ä       1,234,567", "longer"]);
        assert_eq!(columns(&rows, true)[1], "\x1b[1mä     \x1b[0m  1,234,567");
        assert!(columns(&[], true).is_empty());
    }

    #[test]
    fn text_is_broken_at_blanks() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 6), ["one", "two", "three"]);
        assert_eq!(wrapped("one", 0), ["one"]);
    }
}
