//! What an ordinary database says of itself, read from its pages.
//!
//! For SQLite, opening a database means to parse every table and trigger in it, and then each statement that is to be
//! asked: ten times the work of finding the ten rows that a summary is made of. A first look at a drive of a million
//! containers is hardly anything else. So an ordinary database is read here: of today's schema, in words that SQLite was
//! asked about before, alone in its directory, with nothing pending, nothing deleted, no shards.
//!
//! Whatever is not just as expected is left to SQLite: `None` is never wrong. What is said is what [`Broker::info`] and
//! [`Broker::due`] would say. The file is read under SQLite's own shared lock, with no hot journal beside it, so that all
//! of it is of one moment. The format is the one that SQLite promises to keep: <https://sqlite.org/fileformat2.html>.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::Broker;
use super::due::{Due, start_of};
use super::schema::{Definitions, Schema};
use crate::drive::{HashDir, LiveFile};
use crate::merge;
use crate::replica::{DbState, PolicyIndex, ReplicaId, ReplicaInfo, RowHash, RowId};
use crate::timestamp::Stamp;

/// What an ordinary database says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Brief {
    /// As [`Broker::info`].
    pub info: ReplicaInfo,
    /// As [`Broker::due`].
    pub due: Option<f64>,
}

impl Broker {
    /// Sums up a database without opening it, if it is an ordinary one and nobody is writing to it.
    pub fn brief(home: &HashDir, reclaim_age_secs: f64) -> Option<Brief> {
        let usual = format!("{}.db", home.hash());
        let (pending, lock) = (format!("{usual}.pending"), ".lock");
        for entry in fs::read_dir(home.dir()).ok()? {
            let name = entry.ok()?.file_name();
            if name == *pending {
                // Its rows have to be taken in first; files that were never finished, removed.
                (!home.has_pending()).then_some(())?;
            } else if name != *usual && name != lock {
                return None;
            }
        }
        let mut live = LiveFile::open_read(&home.dir().join(usual)).ok()?;
        live.lock_shared(Duration::ZERO).ok()?;
        live.refuse_hot_journal().ok()?;
        let pages = Pages::of(&live)?;
        pages.brief(reclaim_age_secs)
    }
}

/// The pages of a file that is locked.
struct Pages<'a> {
    live: &'a LiveFile,
    /// The beginning of the file: for most, all of it.
    head: Vec<u8>,
    page_bytes: usize,
    file_bytes: u64,
}

impl Pages<'_> {
    fn of(live: &LiveFile) -> Option<Pages<'_>> {
        let metadata = live.metadata().ok()?;
        let file_bytes = metadata.len();
        let mut head = vec![0; HEAD_BYTES.min(file_bytes as usize)];
        (metadata.is_file() && live.pread(0, &mut head).ok()? == head.len()).then_some(())?;
        let page_bytes = match be16(&head, 16)? {
            1 => 65536,
            bytes => bytes,
        };
        let sound = head.starts_with(b"SQLite format 3\0")
            && page_bytes.is_power_of_two()
            && page_bytes >= 512
            // Rollback journal, no reserved bytes, the fractions that are always so, UTF-8.
            && head.get(18..24)? == [1, 1, 0, 64, 32, 32]
            && be32(&head, 56)? == 1
            // The file was last written by who keeps count of its pages, and has them all.
            && be32(&head, 24)? == be32(&head, 92)?
            && u64::from(be32(&head, 28)?) * page_bytes as u64 == file_bytes;
        sound.then_some(Pages { live, head, page_bytes, file_bytes })
    }

    fn brief(&self, reclaim_age_secs: f64) -> Option<Brief> {
        let mut left = PAGES_LIMIT;
        let left = &mut left;
        let (schema, roots) = self.schema(left)?;
        if !schema.plain {
            return None;
        }
        let root = |name: &str| roots.get(name).copied();
        if self.has_rows(root("shard_range")?)?
            || self.has_tombstones(root("ix_object_deleted_name")?, left)?
        {
            return None;
        }
        let mut facts = None;
        self.each_row(root("container_info")?, left, &mut |_, columns| {
            facts.get_or_insert(Facts::read(columns)?);
            Some(())
        })?;
        let facts = facts?;
        let (put, delete) = (&facts.put_timestamp, &facts.delete_timestamp);
        if delete.as_str() > put.as_str() || delete.time() > put.time() {
            return None;
        }
        let (mut count, mut bytes_used) = (0, 0);
        self.each_row(root("policy_stat")?, left, &mut |policy, columns| {
            // The policy is the row's number, and so not stored again.
            matches!(columns.values.first()?, Value::Null).then_some(())?;
            if policy == facts.storage_policy_index.0 {
                (count, bytes_used) = (columns.number(1)?, columns.number(2)?);
            }
            Some(())
        })?;
        let (mut max_row, mut shard_max_row) = (None, None);
        self.each_row(root("sqlite_sequence")?, left, &mut |_, columns| {
            let (table, number) = (columns.text(0)?, columns.number(1)?);
            match table {
                "object" => _ = max_row.get_or_insert(RowId(number)),
                "shard_range" => _ = shard_max_row.get_or_insert(RowId(number)),
                _ => {}
            }
            Some(())
        })?;
        let mut due = Due::default();
        due.metadata(&facts.metadata, reclaim_age_secs);
        for table in ["incoming_sync", "outgoing_sync"] {
            let mut oldest: Option<String> = None;
            self.each_row(root(table)?, left, &mut |_, columns| {
                let updated = columns.text(2)?;
                if oldest.as_deref().is_none_or(|oldest| updated < oldest) {
                    oldest = Some(updated.to_owned());
                }
                Some(())
            })?;
            due.at(oldest.as_deref().and_then(start_of), 2.0 * reclaim_age_secs);
        }
        let info = ReplicaInfo {
            id: facts.id,
            account: facts.account,
            container: facts.container,
            created_at: facts.created_at,
            put_timestamp: facts.put_timestamp,
            delete_timestamp: facts.delete_timestamp,
            status_changed_at: facts.status_changed_at,
            storage_policy_index: facts.storage_policy_index,
            count,
            bytes_used,
            hash: facts.hash,
            max_row: max_row.unwrap_or(RowId::NONE),
            shard_max_row: shard_max_row.unwrap_or(RowId::NONE),
            metadata: facts.metadata,
            db_state: DbState::Unsharded,
            sharding_initiated: false,
            sharding_required: false,
            ranges_digest: [0; 16],
            file_bytes: self.file_bytes,
            page_bytes: self.page_bytes as u32,
        };
        Some(Brief { info, due: due.earliest })
    }

    /// The schema, if SQLite was asked about it before, and where tables and indices begin.
    fn schema(&self, left: &mut u32) -> Option<(Schema, HashMap<String, u32>)> {
        let mut definitions = Definitions::default();
        let mut roots = HashMap::new();
        self.each_row(1, left, &mut |_, columns| {
            let (kind, name, table) = (columns.text(0)?, columns.text(1)?, columns.text(2)?);
            definitions.add([kind, name, table, columns.text_or_null(4)?]);
            if kind == "table" || kind == "index" {
                roots.insert(name.to_owned(), u32::try_from(columns.number(3)?).ok()?);
            }
            Some(())
        })?;
        Some((Schema::known(definitions)?, roots))
    }

    /// Hands over the rows of a table in the order of their numbers.
    fn each_row(
        &self,
        root: u32,
        left: &mut u32,
        take: &mut dyn FnMut(i64, &Columns) -> Option<()>,
    ) -> Option<()> {
        let page = self.page(root, left)?;
        let at = start_of_tree(root);
        let cells = be16(&page, at + 3)?;
        match *page.get(at)? {
            LEAF_OF_TABLE => {
                for cell in 0..cells {
                    let at = be16(&page, at + 8 + 2 * cell)?;
                    let (payload_bytes, at) = varint(&page, at)?;
                    let (number, at) = varint(&page, at)?;
                    let payload = self.payload(&page, at, payload_bytes, left)?;
                    take(number, &Columns::of(&payload)?)?;
                }
                Some(())
            }
            BRANCH_OF_TABLE => {
                for cell in 0..cells {
                    let at = be16(&page, at + 12 + 2 * cell)?;
                    self.each_row(be32(&page, at)?, left, take)?;
                }
                self.each_row(be32(&page, at + 8)?, left, take)
            }
            _ => None,
        }
    }

    fn has_rows(&self, root: u32) -> Option<bool> {
        let page = self.page(root, &mut 1)?;
        let at = start_of_tree(root);
        match *page.get(at)? {
            LEAF_OF_TABLE => Some(be16(&page, at + 3)? > 0),
            BRANCH_OF_TABLE => Some(true),
            _ => None,
        }
    }

    /// Of the index over `(deleted, name)` the last entry tells; anything but 0 there is for SQLite to judge.
    fn has_tombstones(&self, root: u32, left: &mut u32) -> Option<bool> {
        let mut number = root;
        loop {
            let page = self.page(number, left)?;
            let at = start_of_tree(number);
            let cells = be16(&page, at + 3)?;
            match *page.get(at)? {
                BRANCH_OF_INDEX => number = be32(&page, at + 8)?,
                LEAF_OF_INDEX if cells == 0 => return (number == root).then_some(false),
                LEAF_OF_INDEX => {
                    let at = be16(&page, at + 8 + 2 * (cells - 1))?;
                    let (_, at) = varint(&page, at)?;
                    // The head of an entry and its first column lie on the page, however long the name is.
                    let (head_bytes, types) = varint(&page, at)?;
                    let value = at + usize::try_from(head_bytes).ok()?;
                    let zero = match varint(&page, types)?.0 {
                        TYPE_ZERO => true,
                        1 => *page.get(value)? == 0,
                        _ => false,
                    };
                    return Some(!zero);
                }
                _ => return None,
            }
        }
    }

    /// A row's bytes, of which the first are on its page and the others on pages of their own.
    fn payload(&self, page: &[u8], at: usize, bytes: i64, left: &mut u32) -> Option<Vec<u8>> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= PAYLOAD_LIMIT_BYTES)?;
        let most = self.page_bytes - 35;
        let here = if bytes <= most {
            bytes
        } else {
            let least = (self.page_bytes - 12) * 32 / 255 - 23;
            let fitting = least + (bytes - least) % (self.page_bytes - 4);
            if fitting <= most { fitting } else { least }
        };
        let mut payload = page.get(at..at + here)?.to_vec();
        let mut next = if here < bytes { be32(page, at + here)? } else { 0 };
        while payload.len() < bytes {
            let page = self.page(next, left)?;
            let more = (bytes - payload.len()).min(self.page_bytes - 4);
            payload.extend_from_slice(page.get(4..4 + more)?);
            next = be32(&page, 0)?;
        }
        Some(payload)
    }

    /// A page, as long as there are any `left` that may be read.
    fn page(&self, number: u32, left: &mut u32) -> Option<std::borrow::Cow<'_, [u8]>> {
        *left = left.checked_sub(1)?;
        let start = u64::from(number.checked_sub(1)?) * self.page_bytes as u64;
        if start >= self.file_bytes {
            return None;
        }
        if let Some(page) =
            usize::try_from(start).ok().and_then(|start| self.head.get(start..start + self.page_bytes))
        {
            return Some(page.into());
        }
        let mut page = vec![0; self.page_bytes];
        (self.live.pread(start, &mut page).ok()? == page.len()).then_some(page.into())
    }
}

/// The one row of `container_info`.
struct Facts {
    account: String,
    container: String,
    created_at: Stamp,
    put_timestamp: Stamp,
    delete_timestamp: Stamp,
    hash: RowHash,
    id: ReplicaId,
    status_changed_at: Stamp,
    metadata: crate::replica::Metadata,
    storage_policy_index: PolicyIndex,
}

impl Facts {
    fn read(columns: &Columns) -> Option<Facts> {
        let text = |at| columns.text(at).map(str::to_owned);
        let stamp = |at| text(at).map(Stamp::stored);
        Some(Facts {
            account: text(0)?,
            container: text(1)?,
            created_at: stamp(2)?,
            put_timestamp: stamp(3)?,
            delete_timestamp: stamp(4)?,
            hash: RowHash::parse(columns.text(9)?)?,
            id: ReplicaId::new(text(10)?)?,
            status_changed_at: stamp(12)?,
            metadata: merge::parse_metadata(columns.text(13)?).ok()?,
            storage_policy_index: PolicyIndex(columns.number(16)?),
        })
    }
}

/// One row, taken apart. Only text and whole numbers are understood; for all else there is SQLite.
struct Columns<'a> {
    values: Vec<Value<'a>>,
}

enum Value<'a> {
    Null,
    Number(i64),
    Text(&'a [u8]),
    Other,
}

impl Columns<'_> {
    fn of(payload: &[u8]) -> Option<Columns<'_>> {
        let (head_bytes, mut at) = varint(payload, 0)?;
        let head_bytes = usize::try_from(head_bytes).ok()?;
        let mut value_at = head_bytes;
        let mut values = Vec::with_capacity(20);
        while at < head_bytes {
            let (kind, next) = varint(payload, at)?;
            at = next;
            let bytes = match kind {
                0 | TYPE_ZERO | TYPE_ONE => 0,
                1..=4 => kind as usize,
                5 => 6,
                6 | 7 => 8,
                12.. => usize::try_from((kind - 12) / 2).ok()?,
                _ => return None,
            };
            let value = payload.get(value_at..value_at.checked_add(bytes)?)?;
            value_at += bytes;
            values.push(match kind {
                0 => Value::Null,
                1..=6 => Value::Number(signed(value)),
                TYPE_ZERO => Value::Number(0),
                TYPE_ONE => Value::Number(1),
                13.. if kind % 2 == 1 => Value::Text(value),
                _ => Value::Other,
            });
        }
        (at == head_bytes && value_at == payload.len()).then_some(Columns { values })
    }

    fn text(&self, at: usize) -> Option<&str> {
        match self.values.get(at)? {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    fn text_or_null(&self, at: usize) -> Option<&str> {
        match self.values.get(at)? {
            Value::Null => Some(""),
            _ => self.text(at),
        }
    }

    fn number(&self, at: usize) -> Option<i64> {
        match self.values.get(at)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Where a page's tree begins: the first page has the file's header before it.
fn start_of_tree(page: u32) -> usize {
    if page == 1 { 100 } else { 0 }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number of up to nine bytes, seven bits in each but the ninth, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut number = 0_u64;
    for nth in 0..8 {
        let byte = *bytes.get(at + nth)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number as i64, at + nth + 1));
        }
    }
    Some(((number << 8 | u64::from(*bytes.get(at + 8)?)) as i64, at + 9))
}

/// A number of up to eight bytes, the greatest first, negative if its first bit is set.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte))
}

const LEAF_OF_TABLE: u8 = 13;
const BRANCH_OF_TABLE: u8 = 5;
const LEAF_OF_INDEX: u8 = 10;
const BRANCH_OF_INDEX: u8 = 2;
/// Types of values that take no bytes.
const TYPE_ZERO: i64 = 8;
const TYPE_ONE: i64 = 9;
/// What is read of a file at once: the whole of a small one.
const HEAD_BYTES: usize = 64 << 10;
/// An ordinary database has a dozen pages that matter, with small pages three dozen.
const PAGES_LIMIT: u32 = 200;
/// The longest row is the one with the metadata, some tens of KiB.
const PAYLOAD_LIMIT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::testing::{START_SECS, created, home, other, row, time};
    use super::*;
    use crate::replica::{Direction, SyncPoint};

    const AGE: f64 = 604_800.0;

    /// What is read of the pages, if anything, is what SQLite says.
    fn agrees(home: &HashDir) -> bool {
        let mut broker = Broker::open(home).unwrap();
        let expected = Brief { info: broker.info().unwrap(), due: broker.due(AGE).unwrap() };
        drop(broker);
        let brief = Broker::brief(home, AGE);
        assert!(brief.is_none() || brief.as_ref() == Some(&expected), "{brief:?} is not {expected:?}");
        brief.is_some()
    }

    fn vacuumed(home: &HashDir, page_bytes: u32) {
        let path = home.in_charge().unwrap().unwrap();
        other(&path).execute_batch(&format!("PRAGMA page_size = {page_bytes}; VACUUM")).unwrap();
    }

    fn metadata(value: &str) -> crate::replica::Metadata {
        let text = format!(r#"{{"X-Container-Meta-A": ["{value}", "0000000003.00000"]}}"#);
        merge::parse_metadata(&text).unwrap()
    }

    #[test]
    fn ordinary_databases_need_no_sqlite() {
        for page_bytes in [512, 1024, 4096, 65536] {
            let (_device, home) = home();
            let mut broker = created(&home);
            vacuumed(&home, page_bytes);
            assert!(agrees(&home), "empty, {page_bytes}");
            broker.merge_rows((0..700).map(|n| row(&format!("o{n}"), n)).collect(), None).unwrap();
            assert!(agrees(&home), "rows, {page_bytes}");
            broker.merge_metadata(&metadata(&"long ".repeat(3000))).unwrap();
            assert!(agrees(&home), "a row on many pages, {page_bytes}");
            let point =
                |n: i64| SyncPoint { remote_id: crate::broker::fresh_id("sda"), point: RowId(n << 30) };
            broker.merge_sync_points(&(0..40).map(point).collect::<Vec<_>>(), Direction::Incoming).unwrap();
            broker.merge_sync_points(&[point(-1)], Direction::Outgoing).unwrap();
            assert!(agrees(&home), "sync points, {page_bytes}");
            broker.set_policy(PolicyIndex(300), time(5)).unwrap();
            assert!(agrees(&home), "a policy without rows, {page_bytes}");
            let keyless =
                merge::parse_metadata(r#"{"X-Container-Meta-A": ["", "0000000004.00000"]}"#).unwrap();
            broker.merge_metadata(&keyless).unwrap();
            assert!(agrees(&home), "a deleted key, {page_bytes}");
        }
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_sqlite() {
        type Harm = (&'static str, fn(&HashDir));
        let broken: [Harm; 13] = [
            ("a tombstone", |home| {
                let gone = crate::replica::Row { deleted: 1, ..row("zz", 9) };
                _ = Broker::open(home).unwrap().merge_rows(vec![gone], None).unwrap();
            }),
            ("deleted", |home| {
                Broker::open(home).unwrap().delete_db(time(9)).unwrap();
            }),
            ("a row waits", |home| Broker::open(home).unwrap().put_record(row("p", 9)).unwrap()),
            ("a second file", |home| {
                let path = home.in_charge().unwrap().unwrap();
                fs::copy(path, home.dir().join(format!("{}_1750000000.00000.db", home.hash()))).unwrap();
            }),
            ("an unfinished file", |home| fs::write(home.dir().join("tmp12345678.tmp"), "").unwrap()),
            ("a hot journal", |home| {
                let path = home.in_charge().unwrap().unwrap();
                fs::write(path.with_extension("db-journal"), "journal").unwrap();
            }),
            ("another's schema", |home| alter(home, "CREATE TABLE mine (x)")),
            ("a text where a number belongs", |home| {
                alter(home, "UPDATE container_info SET storage_policy_index = 'x'")
            }),
            ("no text", |home| alter(home, "UPDATE container_info SET account = x'00ff'")),
            ("no hash", |home| alter(home, "UPDATE container_info SET hash = 'short'")),
            ("no info", |home| alter(home, "DELETE FROM container_info")),
            ("write-ahead log", |home| alter(home, "PRAGMA journal_mode = WAL")),
            ("cut short", |home| {
                let path = home.in_charge().unwrap().unwrap();
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 1).unwrap();
            }),
        ];
        for (what, break_it) in broken {
            let (_device, home) = home();
            drop(created(&home));
            assert!(Broker::brief(&home, AGE).is_some(), "{what}");
            break_it(&home);
            assert_eq!(Broker::brief(&home, AGE), None, "{what}");
        }
    }

    #[test]
    fn tables_of_another_make_are_left_to_sqlite() {
        for sql in [
            "ALTER TABLE policy_stat ADD COLUMN more",
            "ALTER TABLE container_info ADD COLUMN more AS (1)",
            "DROP INDEX ix_object_deleted_name",
            "DROP INDEX ix_object_deleted_name; CREATE INDEX ix_object_deleted_name ON object (deleted DESC, name)",
            "DROP INDEX ix_object_deleted_name; CREATE INDEX ix_object_deleted_name ON object (name, deleted)",
            "DROP INDEX ix_object_deleted_name; CREATE INDEX ix_object_deleted_name ON object (deleted, name) WHERE size",
            "DROP TABLE shard_range",
        ] {
            let (_device, home) = home();
            let mut broker = created(&home);
            other(broker.path()).execute_batch(sql).unwrap();
            broker.info().unwrap();
            assert_eq!(Broker::brief(&home, AGE), None, "{sql}");
        }
        let (_device, home) = home();
        let mut broker = created(&home);
        other(broker.path()).execute_batch("CREATE TABLE mine (x)").unwrap();
        assert_eq!(Broker::brief(&home, AGE), None, "never seen");
        broker.info().unwrap();
        assert!(agrees(&home), "no business of ours");
    }

    fn alter(home: &HashDir, sql: &str) {
        let path = home.in_charge().unwrap().unwrap();
        let database = other(&path);
        // The mode is told in a row.
        let mut statement = database.prepare(sql).unwrap();
        _ = statement.raw_query().next().unwrap();
    }

    #[test]
    fn who_is_in_the_middle_of_writing_is_not_read() {
        let (_device, home) = home();
        let path = created(&home).path().to_owned();
        let writer = other(&path);
        writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert_eq!(Broker::brief(&home, AGE), None);
        writer.execute_batch("ROLLBACK; BEGIN IMMEDIATE; UPDATE container_info SET status = 'x'").unwrap();
        assert!(agrees_without_flush(&home), "who only prepares to write disturbs nobody");
        writer.execute_batch("COMMIT").unwrap();
        assert!(agrees(&home));
    }

    fn agrees_without_flush(home: &HashDir) -> bool {
        let info = Broker::open(home).unwrap().stored_info().unwrap();
        Broker::brief(home, AGE).is_none_or(|brief| brief.info == info)
    }

    /// Bytes changed at random are told as SQLite tells them, or not at all, and never make trouble.
    #[test]
    fn damaged_pages_are_no_trouble() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows((0..50).map(|n| row(&format!("o{n}"), n)).collect(), None).unwrap();
        drop(broker);
        vacuumed(&home, 1024);
        let path = home.in_charge().unwrap().unwrap();
        let sound = fs::read(&path).unwrap();
        let mut seed = START_SECS as u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut told = 0;
        for _ in 0..3000 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xff, bytes[at] ^ 1 << random(8)][random(3)];
            }
            fs::write(&path, &bytes).unwrap();
            let Some(brief) = Broker::brief(&home, AGE) else { continue };
            if let Ok(info) = Broker::open(&home).and_then(|mut broker| broker.stored_info()) {
                assert_eq!(brief.info, info);
                told += 1;
            }
        }
        assert!(told > 500, "{told}");
    }
}
