//! Whether the pages of a database hold together: what `PRAGMA quick_check` finds, several times as fast.
//!
//! Every whole file that arrives is checked before it takes a place, and SQLite reads it page by page, twice, on one
//! processor. Here it is read once, in large pieces, on two. What is asked of a page, and of all of them together, is what
//! SQLite asks (`btree.c: checkTreePage`, and the loop over rows that `quick_check` compiles to): each page is used once,
//! each cell lies where it should, trees are level and their keys in order, records of the one large table decode to the
//! types of its columns, and an index has as many entries as its table has rows.
//!
//! This must never call sound what SQLite calls damaged. It need not be able to tell for every database that it is sound:
//! whatever is out of the ordinary, or wrong, is left to SQLite, which is also the one who says what is wrong. Small tables
//! are left to it in any case.
//!
//! [`plan`] reads the schema, [`page`] looks into one page, [`trees`] walks them all.

mod page;
mod plan;
#[cfg(test)]
mod tests;
mod trees;

use std::io;

use rusqlite::Connection;

use self::plan::Plan;
use self::trees::Pages;
use super::fault::Fault;
use crate::drive::LiveFile;

/// Is all of it sound? `false` means that only SQLite can tell. The connection must be in a transaction, so that nobody
/// writes meanwhile.
pub(super) fn is_certain(conn: &Connection, file: &LiveFile) -> Result<bool, Fault> {
    let Some(plan) = Plan::of(conn)? else { return Ok(false) };
    let sound = Pages::of(file).ok_or(Doubt).and_then(|pages| pages.hold_together(&plan));
    if sound.is_err() {
        return Ok(false);
    }
    for table in &plan.small_tables {
        let pragma = format!("PRAGMA quick_check(\"{}\")", table.replace('"', "\"\""));
        let verdict: String = conn.query_row(&pragma, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// It is left to SQLite: damaged, or of a form that is not looked into here, or the drive failed, which SQLite will find
/// and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt;

impl From<io::Error> for Doubt {
    fn from(_: io::Error) -> Doubt {
        Doubt
    }
}
