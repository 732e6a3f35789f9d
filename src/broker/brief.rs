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
use super::pages::{Columns, Pages, Value};
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
        brief(&pages, reclaim_age_secs)
    }
}

fn brief(pages: &Pages, reclaim_age_secs: f64) -> Option<Brief> {
    let (schema, roots) = schema(pages)?;
    if !schema.plain {
        return None;
    }
    let root = |name: &str| roots.get(name).copied();
    if pages.has_rows(root("shard_range")?)?
        || pages.last_number(root("ix_object_deleted_name")?)?.is_some_and(|deleted| deleted != 0)
    {
        return None;
    }
    let mut facts = None;
    pages.each_row(root("container_info")?, &mut |_, columns| {
        facts.get_or_insert(Facts::read(columns)?);
        Some(())
    })?;
    let facts = facts?;
    let (put, delete) = (&facts.put_timestamp, &facts.delete_timestamp);
    if delete.as_str() > put.as_str() || delete.time() > put.time() {
        return None;
    }
    let (mut count, mut bytes_used) = (0, 0);
    pages.each_row(root("policy_stat")?, &mut |policy, columns| {
        // The policy is the row's number, and so not stored again.
        matches!(columns.values.first()?, Value::Null).then_some(())?;
        if policy == facts.storage_policy_index.0 {
            (count, bytes_used) = (columns.number(1)?, columns.number(2)?);
        }
        Some(())
    })?;
    let (mut max_row, mut shard_max_row) = (None, None);
    pages.each_row(root("sqlite_sequence")?, &mut |_, columns| {
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
        pages.each_row(root(table)?, &mut |_, columns| {
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
        file_bytes: pages.file_bytes,
        page_bytes: pages.page_bytes as u32,
    };
    Some(Brief { info, due: due.earliest })
}

/// The schema, if SQLite was asked about it before, and where tables and indices begin.
fn schema(pages: &Pages) -> Option<(Schema, HashMap<String, u32>)> {
    let mut definitions = Definitions::default();
    let mut roots = HashMap::new();
    pages.each_row(1, &mut |_, columns| {
        let (kind, name, table) = (columns.text(0)?, columns.text(1)?, columns.text(2)?);
        definitions.add([kind, name, table, columns.text_or_null(4)?]);
        if kind == "table" || kind == "index" {
            roots.insert(name.to_owned(), u32::try_from(columns.number(3)?).ok()?);
        }
        Some(())
    })?;
    Some((Schema::known(definitions)?, roots))
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
        let broken: [Harm; 12] = [
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
        for _ in 0..1500 {
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
        assert!(told > 250, "{told}");
    }
}
