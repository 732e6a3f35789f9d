//! A small ring as a table: partitions across, replicas down, each cell the id of a device on its colour.
//!
//! Without colours it is still a table to read: a replica that moved is written `4<1`, it is on 4 and was on 1.

use super::columns::{DIM, paint};
use super::palette::Palette;
use crate::ring::moves::{Change, changes};
use crate::ring::{Device, DeviceId};

/// The lines of a table of all replicas, at most `width` columns wide where that is possible, without newlines.
///
/// `devices` give the colours; ids in the rows that name none of them are grey. With `before`, what was there before stands
/// behind each replica that is elsewhere now: `4<1` for one that moved, `4<` for a new one, `<1` for one that is no more.
/// A replica that only changed its row did not move.
///
/// Partitions that do not fit side by side go into blocks of a multiple of 8, an empty line between.
pub fn assignment_table<'a>(
    devices: impl IntoIterator<Item = &'a Device>,
    rows: &[Vec<DeviceId>],
    before: Option<&[Vec<DeviceId>]>,
    colour: bool,
    width: usize,
) -> Vec<String> {
    let palette = Palette::new(devices);
    let longest = |rows: &[Vec<DeviceId>]| rows.iter().map(Vec::len).max().unwrap_or(0);
    let partitions = longest(rows).max(before.map_or(0, longest));
    let replicas = rows.len().max(before.map_or(0, <[_]>::len));
    let all = rows.iter().chain(before.unwrap_or_default()).flatten();
    let id_width = all.map(|id| digits(id.0 as usize)).max().unwrap_or(1);
    let cell_width = match before {
        Some(_) => 2 * id_width + 1,
        None => id_width,
    };
    let cell_width = 1 + cell_width.max(digits(partitions.saturating_sub(1))).max(2);
    let label = "part".len().max("rep".len() + digits(replicas.saturating_sub(1)));
    let fitting = |label: usize| across(partitions, width.saturating_sub(label) / cell_width);
    // A blank between the labels and the cells, unless it costs partitions.
    let label_width = if fitting(label + 1) == fitting(label) { label + 1 } else { label };
    let across = fitting(label_width);

    let table = Table { rows, before, palette, colour, cell_width };
    let mut lines = Vec::new();
    for first in (0..partitions).step_by(across) {
        if first > 0 {
            lines.push(String::new());
        }
        let block = first..(first + across).min(partitions);
        let numbers: String = block.clone().map(|partition| table.centred(&partition.to_string())).collect();
        lines.push(paint(DIM, format!("{:<label_width$}{numbers}", "part").trim_end(), colour));
        let changes: Vec<Vec<Change>> = block.clone().map(|partition| table.changes(partition)).collect();
        for replica in 0..replicas {
            let label = paint(DIM, &format!("{:<label_width$}", format!("rep{replica}")), colour);
            let cells: String = block
                .clone()
                .zip(&changes)
                .map(|(partition, changes)| table.cell(replica, partition, changes))
                .collect();
            lines.push(format!("{label}{cells}").trim_end().to_owned());
        }
    }
    lines
}

/// What the cells are made from.
struct Table<'a> {
    rows: &'a [Vec<DeviceId>],
    before: Option<&'a [Vec<DeviceId>]>,
    palette: Palette,
    colour: bool,
    cell_width: usize,
}

impl Table<'_> {
    fn changes(&self, partition: usize) -> Vec<Change> {
        self.before.map_or_else(Vec::new, |before| changes(before, self.rows, partition))
    }

    fn cell(&self, replica: usize, partition: usize, changes: &[Change]) -> String {
        let id = self.rows.get(replica).and_then(|row| row.get(partition)).copied();
        let change = changes.iter().find(|change| change.replica == replica);
        match (id, change.map(|change| change.from)) {
            (Some(id), None) => {
                paint(&self.palette.colour(id).escape(), &self.centred(&id.to_string()), self.colour)
            }
            (id, Some(from)) => {
                let is = id.map_or(String::new(), |id| id.to_string());
                let was = format!("<{}", from.map_or(String::new(), |from| from.to_string()));
                let (ahead, behind) = self.margins(is.len() + was.len());
                let own = id.map_or(String::new(), |id| self.palette.colour(id).escape());
                let code = if own.is_empty() { String::new() } else { format!("{MOVED};{own}") };
                format!(
                    "{}{}{}{}",
                    paint(&own, &" ".repeat(ahead), self.colour),
                    paint(&code, &is, self.colour),
                    paint(DIM, &was, self.colour),
                    " ".repeat(behind)
                )
            }
            (None, None) => " ".repeat(self.cell_width),
        }
    }

    /// What is left of a cell, before and behind its text. There is always something before it.
    fn margins(&self, length: usize) -> (usize, usize) {
        let left = self.cell_width.saturating_sub(length);
        (left.div_ceil(2), left / 2)
    }

    fn centred(&self, text: &str) -> String {
        let (ahead, behind) = self.margins(text.len());
        format!("{}{text}{}", " ".repeat(ahead), " ".repeat(behind))
    }
}

/// How many partitions to put side by side where `fit` have room: blocks are of about equal size.
fn across(partitions: usize, fit: usize) -> usize {
    match fit {
        _ if partitions <= fit => partitions.max(1),
        ..8 => fit.max(1),
        _ => {
            let blocks = partitions.div_ceil(fit / 8 * 8);
            partitions.div_ceil(blocks).next_multiple_of(8)
        }
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Bold and underlined.
const MOVED: &str = "1;4";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::devices;

    fn rows(rows: &[&[u32]]) -> Vec<Vec<DeviceId>> {
        rows.iter().map(|row| row.iter().copied().map(DeviceId).collect()).collect()
    }

    #[test]
    fn a_table_is_read_without_colours() {
        let rows = rows(&[&[0, 1, 2, 3], &[1, 2, 3, 0], &[2, 3]]);
        let expected = ["part  0  1  2  3", "rep0  0  1  2  3", "rep1  1  2  3  0", "rep2  2  3"];
        assert_eq!(assignment_table(&devices(4, 1), &rows, None, false, 100), expected);
    }

    #[test]
    fn what_moved_came_or_went_is_marked() {
        let before = rows(&[&[0, 1, 2, 3], &[1, 2, 3, 0], &[2, 3]]);
        let after = rows(&[&[4, 1, 2, 0], &[1, 3, 3, 3], &[2, 2, 0, 4]]);
        let expected =
            ["part   0   1   2   3", "rep0  4<0  1   2   0", "rep1   1   3   3   3", "rep2   2   2  0<  4<"];
        let lines = assignment_table(&devices(5, 1), &after, Some(&before), false, 100);
        assert_eq!(lines, expected, "{}", lines.join("\n"));
        let back = assignment_table(&devices(5, 1), &before, Some(&after), false, 100);
        assert_eq!(back[3].trim_end(), "rep2   2   3  <0  <4", "{}", back.join("\n"));
    }

    #[test]
    fn each_device_has_its_colour_and_what_moved_is_bold_and_underlined() {
        let devices = devices(2, 1);
        let palette = Palette::new(&devices);
        let escape = |id| palette.colour(DeviceId(id)).escape();
        let lines = assignment_table(&devices, &rows(&[&[0, 1]]), None, true, 100);
        assert_eq!(lines[0], "\x1b[2mpart  0  1\x1b[0m");
        let cells = format!("\x1b[{}m 0 \x1b[0m\x1b[{}m 1 \x1b[0m", escape(0), escape(1));
        assert_eq!(lines[1], format!("\x1b[2mrep0 \x1b[0m{cells}"));
        let moved = assignment_table(&devices, &rows(&[&[0, 1]]), Some(&rows(&[&[0, 7]])), true, 100);
        let cell = format!("\x1b[1;4;{}m1\x1b[0m\x1b[2m<7\x1b[0m", escape(1));
        assert!(moved[1].ends_with(&cell), "{:?}", moved[1]);
    }

    #[test]
    fn partitions_that_do_not_fit_go_into_blocks() {
        let many: Vec<DeviceId> = (0..256).map(|partition| DeviceId(partition % 70)).collect();
        for (width, across) in [(100, 24), (2000, 256), (40, 8), (20, 4), (0, 1)] {
            let lines = assignment_table(&devices(70, 1), std::slice::from_ref(&many), None, false, width);
            let widest = lines.iter().map(String::len).max().unwrap_or(0);
            assert!(widest <= width.max(9), "{widest} in {width}");
            let heading: Vec<&str> = lines[0].split_whitespace().collect();
            assert_eq!(heading.len(), across + 1, "{}", lines[0]);
            let cells = lines.iter().filter(|line| line.starts_with("rep"));
            assert_eq!(cells.map(|line| line.split_whitespace().count() - 1).sum::<usize>(), 256);
        }
        let story = vec![(0..32).map(|partition| DeviceId(partition % 5)).collect(); 3];
        let lines = assignment_table(&devices(5, 1), &story, None, false, 100);
        assert_eq!((lines.len(), lines[0].len()), (4, 100), "the demo's ring fits as a whole");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(assignment_table(&[], &[], None, false, 80).is_empty());
    }
}
