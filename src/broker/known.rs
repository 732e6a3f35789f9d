//! Rows that are here already, found by the company they keep.
//!
//! Where sync points are of no help, nearly all of the rows that one replica brings are known to the other. To look each
//! up by name costs a walk down the index and one to the row, on pages far apart. But replicas get their rows in nearly
//! the same order, so rows that came in together on one side lie together on the other: we look up a few, and if they
//! turn out to be neighbours, read that neighbourhood in one go and meet all the others there.
//!
//! A row that is met, with the same name, policy and times, has nothing newer to offer ([`merge_row`] keeps what is
//! there in a tie), so it need not be merged; every other row goes the usual way. There, what is compared is the last
//! row of that name and policy in the order of the index, and the one that is met might be another if there were several.
//! There never should be; names of which there are ([`Repeats`]) are left alone here.
//!
//! [`merge_row`]: crate::merge::merge_row

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params};

use super::db::{Db, number, text};
use super::fault::Fault;
use super::rows::{read_row, row_columns};
use super::schema::Schema;
use super::{Broker, BrokerError};
use crate::replica::{PolicyIndex, Row, RowId};
use crate::timestamp::RowTimes;

impl Broker {
    /// Drops from `rows` those that are here already, as far as that is cheap to know.
    pub(super) fn leave_out_known(&mut self, rows: &mut Vec<Row>) -> Result<(), BrokerError> {
        if rows.len() < WORTH_A_LOOK || !self.can_tell_known(rows.len() as u64)? {
            return Ok(());
        }
        let Some(keys) = rows.iter().map(Key::of).collect::<Option<Vec<Key>>>() else { return Ok(()) };
        let mut known = self.known(&keys)?.into_iter();
        rows.retain(|_| known.next() != Some(true));
        Ok(())
    }

    /// Of at most `limit` rows with numbers above `after` those that `other` may lack, lowest first; and the number up to
    /// which rows were looked at. As with [`Broker::rows_within`] no more than it takes to come to `limit_bytes` of text.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn rows_lacking_in(
        &mut self,
        other: &mut Broker,
        after: RowId,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<(Vec<Row>, RowId), BrokerError> {
        let coming = self.max_row()?.0.saturating_sub(after.0.max(0));
        if !other.can_tell_known(coming.max(0) as u64)? {
            let rows = self.rows_within(after, limit, limit_bytes)?;
            let last = rows.last().and_then(|row| row.row_id);
            return Ok((rows, last.unwrap_or(after)));
        }
        let glance = self.db.read(|conn, schema| Glance::take(conn, schema, after, limit, limit_bytes))?;
        let lacking: Vec<RowId> = match glance.keys() {
            Some(keys) => {
                let known = other.known(&keys)?;
                glance
                    .numbers
                    .iter()
                    .zip(known)
                    .filter(|(_, known)| !known)
                    .map(|(number, _)| *number)
                    .collect()
            }
            None => glance.numbers.clone(),
        };
        let mut seen = glance.numbers.last().copied().unwrap_or(after);
        let rows = self.db.read(|conn, schema| {
            let sql = format!("SELECT {} FROM object WHERE ROWID = ?", row_columns(schema));
            let mut statement = conn.prepare_cached(&sql)?;
            let (mut rows, mut bytes) = (Vec::with_capacity(lacking.len()), 0);
            for number in &lacking {
                // One that is gone by now was replaced by one with a greater number.
                let Some(row) = statement.query([number.0])?.next()?.map(read_row).transpose()? else {
                    continue;
                };
                bytes += row.text_bytes();
                rows.push(row);
                if bytes >= limit_bytes {
                    seen = *number;
                    break;
                }
            }
            Ok(rows)
        })?;
        Ok((rows, seen))
    }

    /// Can it be told which rows are known, and is it worth while, now that so many more are to be merged? What has to be
    /// found out first costs about as much as looking up one row in [`ROWS_PER_LOOK_UP`].
    fn can_tell_known(&mut self, coming: u64) -> Result<bool, BrokerError> {
        self.repeats.merged = self.repeats.merged.saturating_add(coming);
        if self.repeats.names.is_none() {
            let worth_while = self.repeats.merged.saturating_mul(ROWS_PER_LOOK_UP);
            if worth_while < self.max_row()?.0.max(0) as u64 {
                return Ok(false);
            }
            self.repeats.names = Some(repeated_names(&mut self.db)?);
        }
        Ok(matches!(self.repeats.names, Some(Found::Few(_))))
    }

    /// Which of these rows are here, of those that [`Broker::can_tell_known`] lets us tell. Some that are here may not be
    /// found.
    fn known(&mut self, keys: &[Key]) -> Result<Vec<bool>, BrokerError> {
        let Some(Found::Few(repeated)) = &self.repeats.names else { return Ok(vec![false; keys.len()]) };
        self.db.read(|conn, schema| {
            let mut known = vec![false; keys.len()];
            if schema.policies && schema.name_index {
                meet(conn, keys, &mut known)?;
            }
            if !repeated.is_empty() {
                let repeated = keys.iter().map(|key| repeated.contains(key.name.as_bytes()));
                known.iter_mut().zip(repeated).for_each(|(known, repeated)| *known &= !repeated);
            }
            Ok(known)
        })
    }
}

/// What decides whether a row is news.
#[derive(Debug, Clone, Copy)]
struct Key<'a> {
    name: &'a str,
    created_at: &'a str,
    policy: PolicyIndex,
}

impl<'a> Key<'a> {
    /// `None` for a row whose times are not all in `created_at`, or cannot be read.
    fn of(row: &'a Row) -> Option<Key<'a>> {
        if row.ctype_timestamp.is_some() || row.meta_timestamp.is_some() {
            return None;
        }
        Key::new(&row.name, &row.created_at, row.storage_policy_index)
    }

    fn new(name: &'a str, created_at: &'a str, policy: PolicyIndex) -> Option<Key<'a>> {
        RowTimes::decode(created_at).is_ok().then_some(Key { name, created_at, policy })
    }
}

/// Rows of one database as far as they are needed to tell whether another has them.
#[derive(Default)]
struct Glance {
    numbers: Vec<RowId>,
    /// All names and times, one after the other.
    texts: String,
    /// Where in `texts` each name and then its time end, and the policy.
    ends: Vec<(usize, usize, PolicyIndex)>,
}

impl Glance {
    fn take(
        conn: &Connection,
        schema: &Schema,
        after: RowId,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Glance, Fault> {
        let policy = if schema.policies { "storage_policy_index" } else { "0" };
        let sql = format!(
            "SELECT ROWID, name, created_at, {policy} FROM object WHERE ROWID > ? ORDER BY ROWID LIMIT ?"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query(params![after.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut glance = Glance::default();
        while let Some(row) = found.next()? {
            glance.numbers.push(RowId(number(row, 0)?));
            glance.texts.push_str(&text(row, 1)?);
            let name_end = glance.texts.len();
            glance.texts.push_str(&text(row, 2)?);
            glance.ends.push((name_end, glance.texts.len(), PolicyIndex(number(row, 3)?)));
            if glance.texts.len() >= limit_bytes {
                break;
            }
        }
        Ok(glance)
    }

    fn keys(&self) -> Option<Vec<Key<'_>>> {
        let mut start = 0;
        let key = |&(name_end, end, policy): &(usize, usize, PolicyIndex)| {
            let name = &self.texts[std::mem::replace(&mut start, end)..name_end];
            Key::new(name, &self.texts[name_end..end], policy)
        };
        self.ends.iter().map(key).collect()
    }
}

/// Marks the keys whose rows are met where a few of them are found. If those lie far apart, each half of the keys may still
/// have a neighbourhood of its own.
fn meet(conn: &Connection, keys: &[Key], known: &mut [bool]) -> Result<(), Fault> {
    if keys.len() < WORTH_A_LOOK {
        return Ok(());
    }
    match look_up_a_few(conn, keys)? {
        Probed::Nothing => Ok(()),
        Probed::Neighbours(numbers) => read_along(conn, numbers, keys, known),
        Probed::Scattered => {
            let middle = keys.len() / 2;
            let (first, second) = known.split_at_mut(middle);
            meet(conn, &keys[..middle], first)?;
            meet(conn, &keys[middle..], second)
        }
    }
}

/// What looking up a few rows showed.
enum Probed {
    /// None of them is here.
    Nothing,
    /// Most are, close to each other: the rows with these numbers should hold the rest.
    Neighbours(RangeInclusive<i64>),
    /// Some are, not close to each other.
    Scattered,
}

fn look_up_a_few(conn: &Connection, keys: &[Key]) -> Result<Probed, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT ROWID FROM object WHERE deleted IN (0, 1) AND name = ? AND created_at = ? AND storage_policy_index = ?
            LIMIT 1",
    )?;
    let mut numbers = Vec::with_capacity(PROBES);
    for probe in 0..PROBES {
        let key = &keys[probe * (keys.len() - 1) / (PROBES - 1)];
        if let Some(row) = statement.query(params![key.name, key.created_at, key.policy.0])?.next()? {
            numbers.push(number(row, 0)?);
        }
    }
    if numbers.is_empty() {
        return Ok(Probed::Nothing);
    }
    numbers.sort_unstable();
    let reach = keys.len() as i64;
    let close = |first: &usize| {
        let last = numbers.get(first + PROBES_CLOSE - 1)?;
        (last.saturating_sub(numbers[*first]) <= reach * NUMBERS_PER_ROW).then_some(())
    };
    let Some(first) = (0..numbers.len()).find(|first| close(first).is_some()) else {
        return Ok(Probed::Scattered);
    };
    let end = numbers[first].saturating_add(reach * NUMBERS_PER_ROW);
    let last = numbers.iter().rfind(|number| **number <= end).expect("at least the first is");
    let margin = reach / MARGIN_PART;
    Ok(Probed::Neighbours(numbers[first].saturating_sub(margin)..=last.saturating_add(margin)))
}

/// Reads the rows with these numbers and marks the keys that are among them.
fn read_along(
    conn: &Connection,
    numbers: RangeInclusive<i64>,
    keys: &[Key],
    known: &mut [bool],
) -> Result<(), Fault> {
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        // Of several with one name the others go the usual way.
        places.entry(key.name.as_bytes()).or_insert(at);
    }
    // The plus keeps SQLite from reading all of the index instead.
    let mut statement = conn.prepare_cached(
        "SELECT name, created_at, storage_policy_index FROM object
            WHERE ROWID BETWEEN ? AND ? AND +deleted IN (0, 1) LIMIT ?",
    )?;
    let limit = keys.len() as i64 * ROWS_READ_PER_KEY;
    let mut rows = statement.query(params![numbers.start(), numbers.end(), limit])?;
    let mut unmet = places.len();
    while unmet > 0 {
        let Some(row) = rows.next()? else { break };
        let (ValueRef::Text(name), ValueRef::Text(created_at), ValueRef::Integer(policy)) =
            (row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?)
        else {
            continue;
        };
        let Some(&at) = places.get(name) else { continue };
        let key = &keys[at];
        if !known[at] && key.created_at.as_bytes() == created_at && key.policy.0 == policy {
            known[at] = true;
            unmet -= 1;
        }
    }
    Ok(())
}

/// Names that have several rows of one policy, which should not be. Merging makes none, so those found once are all.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Rows that were to be merged before anything was found out.
    merged: u64,
    names: Option<Found>,
}

#[derive(Debug)]
enum Found {
    Few(HashSet<Vec<u8>>),
    /// More than is worth remembering, or the file is too old to be asked.
    Many,
}

/// Reads the index of names from end to end, in short transactions, for others wait for each.
fn repeated_names(db: &mut Db) -> Result<Found, BrokerError> {
    let (mut repeated, mut asked, mut from) = (HashSet::new(), 0, Some(Vec::new()));
    while let Some(start) = from {
        let found = db.read(|conn, schema| match schema.policies && schema.name_index {
            true => Ok(Some(names_from(conn, &start)?)),
            false => Ok(None),
        })?;
        let Some(Names { several, next }) = found else { return Ok(Found::Many) };
        asked += several.len();
        if asked > NAMES_ASKED {
            return Ok(Found::Many);
        }
        db.read(|conn, _| {
            let mut statement = conn.prepare_cached(
                "SELECT COUNT(*) > COUNT(DISTINCT storage_policy_index) FROM object
                    WHERE deleted IN (0, 1) AND name = ?",
            )?;
            for name in several {
                if statement.query_row([Text(&name)], |row| row.get(0))? {
                    repeated.insert(name);
                }
            }
            Ok(())
        })?;
        from = next;
    }
    Ok(Found::Few(repeated))
}

/// What a part of the index holds.
struct Names {
    /// Names that occur more than once.
    several: Vec<Vec<u8>>,
    /// Where the next part begins.
    next: Option<Vec<u8>>,
}

fn names_from(conn: &Connection, start: &[u8]) -> Result<Names, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT name FROM object WHERE deleted = 0 AND name >= ?1
            UNION ALL SELECT name FROM object WHERE deleted = 1 AND name >= ?1 ORDER BY name",
    )?;
    let mut names = statement.query([Text(start)])?;
    let (mut several, mut last, mut seen) = (Vec::<Vec<u8>>::new(), Vec::new(), 0);
    // Numbers cannot stand in that column, and blobs stand behind all text.
    while let Some(ValueRef::Text(name)) = names.next()?.map(|row| row.get_ref(0)).transpose()? {
        if seen > 0 && name == last {
            if several.last().is_none_or(|before| before != name) {
                several.push(name.to_vec());
            }
        } else if seen >= NAMES_AT_ONCE {
            return Ok(Names { several, next: Some(name.to_vec()) });
        } else {
            last.clear();
            last.extend_from_slice(name);
        }
        seen += 1;
    }
    Ok(Names { several, next: None })
}

/// Text as it is stored, which need not be UTF-8.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Fewer rows than this are looked up one by one.
const WORTH_A_LOOK: usize = 500;
/// Rows looked up to find a neighbourhood.
const PROBES: usize = 8;
/// How many of them have to be close to each other; the others were overwritten since, or never came.
const PROBES_CLOSE: usize = 6;
/// A neighbourhood of so many numbers per row is still one: where objects are overwritten, most numbers are gone.
const NUMBERS_PER_ROW: i64 = 16;
/// Rows read at most, for each that is looked for.
const ROWS_READ_PER_KEY: i64 = 3;
/// The neighbourhood reaches by this part of the rows looked for beyond those that were looked up.
const MARGIN_PART: i64 = 4;
/// Names read from the index in one transaction: some milliseconds.
const NAMES_AT_ONCE: usize = 20_000;
/// Names that may occur several times, as those do that were written under several policies, before we give up.
const NAMES_ASKED: usize = 10_000;
/// Reading so many names from the index takes as long as looking up one row.
const ROWS_PER_LOOK_UP: u64 = 50;
