//! What is found, as it is found: text that fits 80 columns as far as names and addresses let it, colours only where a
//! terminal wants them.

use std::fmt::Write;
use std::path::Path;

use super::places::{Placed, Placement, Role, Spot};
use super::verdict::{Finding, ObjectRow, State, Verdict};
use super::{Item, Report};
use crate::cli::info::{count, moment};
use crate::cli::page::Page;
use crate::cli::print;
use crate::replica::{DbState, ReplicaInfo, Row};
use crate::report::terminal;
use crate::report::text::{printable, size, utc};
use crate::ring::device_string::bracketed;
use crate::timestamp::RowTimes;

/// Tells it on standard output, unless JSON is wanted there.
pub struct Show {
    quiet: bool,
    colour: bool,
}

impl Show {
    /// In colour if standard output is a terminal that understands it and nobody objects.
    pub fn new(quiet: bool) -> Show {
        let colour = terminal::wants_colour(&std::io::stdout());
        Show { quiet, colour }
    }

    /// What is looked for.
    pub fn item(&self, item: &Item) {
        let mut page = Page::new(NAME_WIDTH);
        page.fact("account", &item.account);
        for (name, value) in [("container", &item.container), ("object", &item.object)] {
            value.iter().for_each(|value| page.fact(name, value));
        }
        self.tell(page);
    }

    /// Where it belongs.
    pub fn placement(&self, placement: &Placement, devices: &Path) {
        let mut page = Page::new(NAME_WIDTH);
        page.heading(&format!("where the {} belongs", placement.kind));
        page.fact("hash", &placement.hash.to_string());
        let ring = placement.ring_path.display();
        let Some(placed) = &placement.placed else {
            page.fact("ring", &format!("{ring}: there is none"));
            return self.tell(page);
        };
        page.fact("partition", &placed.partition.to_string());
        page.fact("ring", &ring.to_string());
        page.fact("", &placed.ring);
        page.fact("path", &placement.path_anywhere(placed.partition, devices).display().to_string());
        page.text.push('\n');
        page.text += &self.table(
            &["", "device", "region", "zone", "server", "replication", "agent", ""],
            &[0, 2, 3],
            &placed.spots.iter().map(Spot::cells).collect::<Vec<_>>(),
        );
        self.tell(page);
    }

    /// What is there.
    pub fn report(&self, report: &Report, placed: &Placed) {
        let mut page = Page::new(NAME_WIDTH);
        page.heading("what is there");
        let Report { findings, verdict } = report;
        if let Some(held) = verdict.reference.and_then(|index| findings[index].held()) {
            for (name, stamp) in [("put", &held.info.put_timestamp), ("deleted", &held.info.delete_timestamp)]
            {
                if stamp.time().raw() > 0 {
                    page.fact(name, &moment(stamp));
                }
            }
            page.fact("policy", &held.info.storage_policy_index.to_string());
            page.text.push('\n');
        }
        // A handoff is supposed to have nothing.
        let empty = |index: usize| index >= placed.primaries && findings[index].state() == State::Missing;
        let shown: Vec<usize> = (0..findings.len()).filter(|&index| !empty(index)).collect();
        let rows: Vec<Vec<String>> =
            shown.iter().map(|&index| cells(&placed.spots[index], index, report)).collect();
        page.text += &self.table(
            &["", "device", "state", "objects", "bytes", "max row", "hash", "put/deleted", "sync"],
            &[0, 3, 4, 5],
            &rows,
        );
        let handoffs = findings.len() - placed.primaries;
        let without = findings.len() - shown.len();
        if handoffs > 0 && without > 0 {
            let which =
                if without == handoffs { "none of the handoffs" } else { "none of the other handoffs" };
            page.lines(&format!("{which} has a copy"));
        }
        let width = shown.iter().map(|&index| placed.spots[index].role.to_string().len()).max();
        let width = width.unwrap_or(0).max(ROLE_WIDTH);
        let mut notes = Page::new(NAME_WIDTH);
        for &index in &shown {
            let role = placed.spots[index].role.to_string();
            for note in notes_on(index, placed.spots[index].role, report) {
                notes.lines(&format!("{role:>width$}  {note}"));
            }
        }
        if !notes.text.is_empty() {
            page.text.push('\n');
            page.text += &notes.text;
        }
        self.tell(page);
    }

    /// The object's row in each replica.
    pub fn rows(&self, report: &Report, placed: &Placed) {
        let mut page = Page::new(NAME_WIDTH);
        page.heading("its row in the container");
        let seen = |index: usize| report.findings[index].held()?.row.as_ref();
        let rows: Vec<Vec<String>> = (0..report.findings.len())
            .filter_map(|index| Some((index, seen(index)?)))
            .map(|(index, row)| {
                let mut cells =
                    vec![placed.spots[index].role.to_string(), placed.spots[index].device.name.clone()];
                cells.extend(match row {
                    ObjectRow::Stored(row) => row_cells(row, ""),
                    ObjectRow::Waiting(row) => row_cells(row, "waits in the pending file"),
                    ObjectRow::Missing => vec!["not there".to_owned()],
                    ObjectRow::InShards => vec!["not here, perhaps in a shard".to_owned()],
                    ObjectRow::Unseen => vec![unseen_row(index, report, placed)],
                });
                cells
            })
            .collect();
        match rows.is_empty() {
            true => page.lines("no replica was found"),
            false => page.text += &self.table(&["", "device", "", "", "", ""], &[0], &rows),
        }
        self.tell(page);
    }

    /// What it comes to.
    pub fn verdict(&self, verdict: &Verdict) {
        let mut page = Page::new(NAME_WIDTH);
        let code = if verdict.is_sound { GREEN } else { RED };
        writeln!(page.text, "\n{}", self.paint(code, &verdict.sentence)).expect(INFALLIBLE);
        self.tell(page);
    }

    fn tell(&self, page: Page) {
        if !self.quiet {
            print(&page.text);
        }
    }

    /// Columns as wide as they must be; those of `numbers` to the right. Rows may end early; their last cell may be as long
    /// as it likes.
    fn table(&self, headings: &[&str], numbers: &[usize], rows: &[Vec<String>]) -> String {
        let shown =
            |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
        let wide = |text: &str| text.chars().count();
        let width = |column: usize| {
            let cells = rows.iter().filter(|row| column + 1 < row.len()).map(|row| wide(&row[column]));
            let least = if column == 0 { ROLE_WIDTH } else { wide(headings[column]) };
            cells.max().unwrap_or(0).max(least)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let mut text = String::new();
        let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        for (line, row) in std::iter::once(&headings).chain(&rows).enumerate() {
            let mut out = String::new();
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column].saturating_sub(wide(cell)));
                let cell = match hue(cell) {
                    Some(code) if line > 0 => self.paint(code, cell),
                    _ => cell.clone(),
                };
                out += "  ";
                out += &if numbers.contains(&column) { space + &cell } else { cell + &space };
            }
            let line = match line {
                0 => self.paint(DIM, out.trim_end()),
                _ => out.trim_end().to_owned(),
            };
            if !line.is_empty() {
                writeln!(text, "{line}").expect(INFALLIBLE);
            }
        }
        text
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Spot {
    fn cells(&self) -> Vec<String> {
        let device = &self.device;
        let address = |ip: &str, port: u16| format!("{}:{port}", bracketed(ip));
        vec![
            self.role.to_string(),
            device.name.clone(),
            device.region.to_string(),
            device.zone.to_string(),
            address(&device.ip, device.port),
            address(&device.replication_ip, device.replication_port),
            self.agent_port.map_or("-".to_owned(), |port| port.to_string()),
            if self.ours { "this node".to_owned() } else { String::new() },
        ]
    }
}

/// One line of what is there.
fn cells(spot: &Spot, index: usize, report: &Report) -> Vec<String> {
    let finding = &report.findings[index];
    let mut cells =
        vec![spot.role.to_string(), spot.device.name.clone(), finding.state().as_str().to_owned()];
    if let Finding::Held(held) = finding {
        let info = &held.info;
        let word = report.verdict.word(index, &report.findings, spot.role);
        cells.extend([
            count(info.count),
            u64::try_from(info.bytes_used).map_or_else(|_| info.bytes_used.to_string(), size),
            count(info.max_row.0),
            info.hash.to_string()[..HASH_HEAD].to_owned(),
            day(info),
            word.unwrap_or_default().to_owned(),
        ]);
    }
    cells
}

/// When a container was last created or deleted.
fn day(info: &ReplicaInfo) -> String {
    let last = info.put_timestamp.time().max(info.delete_timestamp.time());
    utc(last.seconds() as u64).split(' ').next().unwrap_or_default().to_owned()
}

/// What the words of a line leave open.
fn notes_on(index: usize, role: Role, report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    match &report.findings[index] {
        Finding::Without { why, .. } => notes.extend((!why.is_empty()).then(|| why.clone())),
        Finding::Held(held) => {
            if let Role::Handoff(_) = role {
                notes.push("a pass of its node takes it to the primaries and removes it here".to_owned());
            }
            let found = report.verdict.differences[index].iter().flatten();
            notes.extend(found.map(|difference| difference.to_string()));
            match held.waiting {
                0 => {}
                1 => notes.push("1 row waits in its pending file, not in any number here".to_owned()),
                rows => notes.push(format!(
                    "{} rows wait in its pending file, not in any number here",
                    count(rows as i64)
                )),
            }
            match held.info.db_state {
                DbState::Unsharded => {}
                state => notes.push(format!("it is {}", state.as_str())),
            }
        }
    }
    notes
}

fn row_cells(row: &Row, note: &str) -> Vec<String> {
    let times = RowTimes::decode(&row.created_at);
    let when = times.map_or_else(|_| row.created_at.clone(), |times| utc(times.data.seconds() as u64));
    let bytes = u64::try_from(row.size).map_or_else(|_| row.size.to_string(), size);
    let mut cells = match row.deleted {
        0 => vec![when, bytes, row.etag.clone(), row.content_type.clone()],
        _ => vec![when, "deleted".to_owned()],
    };
    if !note.is_empty() {
        cells.push(note.to_owned());
    }
    cells
}

/// What can be said of a row on another node: equal replicas have equal rows.
fn unseen_row(index: usize, report: &Report, placed: &Placed) -> String {
    let info = report.findings[index].held().map(|held| &held.info);
    let as_there = |other: usize| {
        let held = report.findings[other].held()?;
        let seen = !matches!(held.row, Some(ObjectRow::Unseen | ObjectRow::Waiting(_)) | None);
        (seen && held.info.hash == info?.hash).then(|| placed.spots[other].role)
    };
    match (0..report.findings.len()).find_map(as_there) {
        Some(role) => format!("as on {role}: it has the same rows"),
        None => "only seen on its own node".to_owned(),
    }
}

/// The colour of a word.
fn hue(word: &str) -> Option<&'static str> {
    Some(match word {
        "agree" | "this node" => GREEN,
        "behind" | "ahead" | "differs" | "missing" | "damaged" | "failed" | "unreadable" | "unmounted" => RED,
        "waiting" | "to move" | "busy" | "silent" | "unknown" | "no agent" | "unreachable" => YELLOW,
        _ => return None,
    })
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const DIM: &str = "2";
/// As wide as the longest name, indented.
const NAME_WIDTH: usize = 11;
/// As wide as `h1`, so that tables stand below each other.
const ROLE_WIDTH: usize = 2;
/// Digits of a hash that tell two apart.
const HASH_HEAD: usize = 8;
const INFALLIBLE: &str = "a string takes whatever is written to it";
