//! Object rows packed for the wire: by column, so that like stands beside like, then compressed.
//!
//! A row is some 230 bytes as JSON. Names share their beginnings with the name before, times are close to each other,
//! content types are few, and an etag in hex is sixteen bytes: packed so, a row takes about 65 bytes and compressed
//! about 40, most of it the etag and the size, which are noise.

use std::collections::HashMap;
use std::fmt;

use super::fields::{Reader, Writer};
use crate::hash_path::hex16;
use crate::replica::{PolicyIndex, Row, RowHash, TEXT_LIMIT};
use crate::timestamp::RowTimes;

/// The most rows in one message.
pub const ROWS_LIMIT: usize = 10_000;
/// The most a message's rows may take before compression. A reader of rows stops a batch when it has this much.
pub const ROWS_BYTES_LIMIT: usize = 1 << 20;

/// A batch that is not what [`pack`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRows(&'static str);

impl fmt::Display for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad {} in a batch of rows", self.0)
    }
}

impl std::error::Error for BadRows {}

/// What a row takes before compression, at most. The sum over a batch must not pass [`ROWS_BYTES_LIMIT`].
pub fn packed_bytes(row: &Row) -> usize {
    FIXED_BYTES + row.name.len() + row.created_at.len() + row.content_type.len() + row.etag.len()
}

/// Packs at most [`ROWS_LIMIT`] rows.
pub fn pack(rows: &[Row]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(rows.len() * 80));
    out.number(rows.len() as u64);
    let mut last = -1i64;
    for row in rows {
        let id = row.row_id.map_or(-1, |id| id.0);
        out.signed(id.wrapping_sub(last));
        last = id;
    }
    let mut before = "";
    for row in rows {
        let shared = row.name.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        out.number(shared as u64);
        out.number((row.name.len() - shared) as u64);
        before = &row.name;
    }
    let mut before = "";
    for row in rows {
        let shared = row.name.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        out.raw(&row.name.as_bytes()[shared..]);
        before = &row.name;
    }
    let mut last = 0i64;
    for row in rows {
        match plain_time(&row.created_at) {
            Some(raw) => {
                out.byte(0);
                out.signed(raw - last);
                last = raw;
            }
            None => {
                out.byte(1);
                out.text(&row.created_at);
            }
        }
    }
    rows.iter().for_each(|row| out.signed(row.size));
    let mut known = HashMap::new();
    for row in rows {
        let next = known.len();
        match known.get(row.content_type.as_str()) {
            Some(index) => out.number(*index as u64 + 1),
            None => {
                out.number(0);
                out.text(&row.content_type);
                known.insert(row.content_type.as_str(), next);
            }
        }
    }
    for row in rows {
        match hex16(&row.etag) {
            Some(bytes) => {
                out.byte(0);
                out.raw(&bytes);
            }
            None => {
                out.byte(1);
                out.text(&row.etag);
            }
        }
    }
    rows.iter().for_each(|row| out.signed(row.deleted));
    rows.iter().for_each(|row| out.signed(row.storage_policy_index.0));
    crate::delta::compress_literals(&out.0)
}

/// The reverse of [`pack`].
///
/// # Errors
/// [`BadRows`] for anything that `pack` would not have made: too many, too large, not ascending, times that cannot be
/// read. A row is taken whole or not at all.
pub fn unpack(packed: &[u8]) -> Result<Vec<Row>, BadRows> {
    let bytes =
        crate::delta::decompress_up_to(packed, ROWS_BYTES_LIMIT).map_err(|_| BadRows("compression"))?;
    let mut from = Reader(&bytes);
    let count = from.number("count").map_err(|_| BadRows("count"))? as usize;
    if count > ROWS_LIMIT || count > from.0.len() {
        return Err(BadRows("count"));
    }
    let field = |what| move |_| BadRows(what);
    let mut rows = Vec::with_capacity(count);
    let mut last = -1i64;
    for at in 0..count {
        let id = last.wrapping_add(from.signed("row").map_err(field("row number"))?);
        if id < 0 || (at > 0 && id <= last) {
            return Err(BadRows("row number"));
        }
        last = id;
        rows.push(Row {
            row_id: Some(crate::replica::RowId(id)),
            name: String::new(),
            created_at: String::new(),
            size: 0,
            content_type: String::new(),
            etag: String::new(),
            deleted: 0,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        });
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let shared = from.number("name").map_err(field("name length"))? as usize;
        let own = from.number("name").map_err(field("name length"))? as usize;
        if shared > TEXT_LIMIT || own > TEXT_LIMIT - shared {
            return Err(BadRows("name length"));
        }
        lengths.push((shared, own));
    }
    // Names and content types are told once and repeated by reference, so what they come to is bounded on its own.
    let mut room = ROWS_BYTES_LIMIT;
    let mut spend = |bytes: usize| room.checked_sub(bytes).map(|left| room = left).ok_or(BadRows("size"));
    let mut name: Vec<u8> = Vec::new();
    for (row, (shared, own)) in rows.iter_mut().zip(lengths) {
        spend(FIXED_BYTES + shared + own)?;
        let (own, rest) = from.0.split_at_checked(own).ok_or(BadRows("name"))?;
        if shared > name.len() {
            return Err(BadRows("name"));
        }
        from.0 = rest;
        name.truncate(shared);
        name.extend_from_slice(own);
        row.name = std::str::from_utf8(&name).map_err(|_| BadRows("name"))?.to_owned();
    }
    let mut last = 0i64;
    for row in &mut rows {
        row.created_at = match from.byte("time").map_err(field("time"))? {
            0 => {
                last = last.wrapping_add(from.signed("time").map_err(field("time"))?);
                let raw = u64::try_from(last).map_err(|_| BadRows("time"))?;
                crate::timestamp::Timestamp::new(raw, 0).ok_or(BadRows("time"))?.normal()
            }
            1 => {
                let text = from.text("time").map_err(field("time"))?;
                RowTimes::decode(&text).map_err(|_| BadRows("time"))?;
                text
            }
            _ => return Err(BadRows("time")),
        };
    }
    for row in &mut rows {
        row.size = from.signed("size").map_err(field("size"))?;
    }
    let mut known: Vec<String> = Vec::new();
    for row in &mut rows {
        row.content_type = match from.number("content type").map_err(field("content type"))? {
            0 => {
                let text = from.text("content type").map_err(field("content type"))?;
                known.push(text.clone());
                text
            }
            index => known.get(index as usize - 1).ok_or(BadRows("content type"))?.clone(),
        };
        spend(row.content_type.len())?;
    }
    for row in &mut rows {
        row.etag = match from.byte("etag").map_err(field("etag"))? {
            0 => RowHash(from.array("etag").map_err(field("etag"))?).to_string(),
            1 => from.text("etag").map_err(field("etag"))?,
            _ => return Err(BadRows("etag")),
        };
    }
    for row in &mut rows {
        row.deleted = from.signed("deleted").map_err(field("deleted flag"))?;
        if !(0..=1).contains(&row.deleted) {
            return Err(BadRows("deleted flag"));
        }
    }
    for row in &mut rows {
        row.storage_policy_index = PolicyIndex(from.signed("policy").map_err(field("policy"))?);
    }
    if from.0.is_empty() { Ok(rows) } else { Err(BadRows("length")) }
}

/// The 10 µs steps of a time written in normal form and nothing else, as nearly all are.
fn plain_time(created_at: &str) -> Option<i64> {
    let time: crate::timestamp::Timestamp = created_at.parse().ok()?;
    (created_at.len() == 16 && time.normal() == created_at).then_some(time.raw() as i64)
}

/// Room for a row's numbers and the lengths of its texts.
const FIXED_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::RowId;
    use proptest::prelude::*;

    fn row(id: i64, name: &str, created_at: &str, etag: &str) -> Row {
        Row {
            row_id: Some(RowId(id)),
            name: name.into(),
            created_at: created_at.into(),
            size: id * 7,
            content_type: if id % 2 == 0 { "image/jpeg".into() } else { "text/plain;swift_bytes=5".into() },
            etag: etag.into(),
            deleted: id % 2,
            storage_policy_index: PolicyIndex(id % 3),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    #[test]
    fn what_is_packed_comes_back() {
        let rows = vec![
            row(1, "a/\0b", "1750000000.00001", "0123456789abcdef0123456789abcdef"),
            row(2, "a/ü", "1750000000.00001_0000000000000001", "noetag"),
            row(9, "a/ünder", "0000000000.00000+1f-3", ""),
            row(10, "", "1749999999.99999", "0123456789ABCDEF0123456789ABCDEF"),
        ];
        assert_eq!(unpack(&pack(&rows)), Ok(rows));
        assert_eq!(unpack(&pack(&[])), Ok(vec![]));
    }

    #[test]
    fn rows_that_do_not_ascend_are_refused() {
        let rows = [row(2, "a", "1750000000.00001", ""), row(2, "b", "1750000000.00001", "")];
        assert_eq!(unpack(&pack(&rows)), Err(BadRows("row number")));
    }

    #[test]
    fn a_time_that_cannot_be_read_is_refused() {
        assert_eq!(unpack(&pack(&[row(1, "a", "yesterday", "")])), Err(BadRows("time")));
    }

    #[test]
    fn one_row_past_the_limit_is_refused() {
        let rows =
            |count: i64| (1..=count).map(|id| row(id, "n", "1750000000.00001", "")).collect::<Vec<_>>();
        assert_eq!(unpack(&pack(&rows(ROWS_LIMIT as i64))).map(|rows| rows.len()), Ok(ROWS_LIMIT));
        assert_eq!(unpack(&pack(&rows(ROWS_LIMIT as i64 + 1))), Err(BadRows("count")));
    }

    #[test]
    fn names_up_to_the_limit_pass_and_one_byte_more_does_not() {
        let named = |bytes| vec![row(1, &"x".repeat(bytes), "1750000000.00001", "")];
        assert_eq!(unpack(&pack(&named(TEXT_LIMIT))), Ok(named(TEXT_LIMIT)));
        assert_eq!(unpack(&pack(&named(TEXT_LIMIT + 1))), Err(BadRows("name length")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&bytes);
            let _ = unpack(&crate::delta::compress_literals(&bytes));
        }

        #[test]
        fn any_rows_come_back(seeds in proptest::collection::vec((".{0,20}", 0u64..999_999_999_999_999, any::<i64>()), 0..40)) {
            let rows: Vec<Row> = seeds.iter().enumerate().map(|(at, (name, raw, size))| Row {
                size: *size,
                created_at: crate::timestamp::Timestamp::new(*raw, raw % 3).unwrap().to_string(),
                ..row(at as i64 * 3, name, "", name)
            }).collect();
            prop_assert_eq!(unpack(&pack(&rows)), Ok(rows));
        }
    }
}
