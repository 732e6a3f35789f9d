//! From created to reclaimed: timestamps, deletion, emptiness, and what is old enough to be forgotten.
//!
//! Nothing is ever simply removed: a tombstone or a deleted key stays until every replica must have heard of it. What "old
//! enough" means is an argument here; there is no clock in this file.

use rusqlite::{Connection, ToSql, params};

use super::db::{number, text};
use super::fault::Fault;
use super::rows::Change;
use super::schema::Schema;
use super::shard_ranges::RangeSummary;
use super::{Broker, BrokerError, container_path, metadata, store_metadata};
use crate::merge;
use crate::replica::{MetadataItem, PolicyIndex};
use crate::timestamp::{Stamp, Timestamp};

/// What the account was last told of a container, or what it should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountReport {
    /// `put_timestamp`.
    pub put_timestamp: Stamp,
    /// `delete_timestamp`.
    pub delete_timestamp: Stamp,
    /// Objects, in the container's current policy.
    pub object_count: i64,
    /// Bytes, in the container's current policy.
    pub bytes_used: i64,
}

/// What [`Broker::reclaim`] took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Object rows.
    pub tombstones: usize,
    /// Sync points of databases that were not heard of for long.
    pub sync_points: usize,
    /// Keys of metadata.
    pub metadata: usize,
    /// Deleted shard ranges.
    pub shard_ranges: usize,
}

impl Broker {
    /// Takes the earliest creation and the latest put and delete, compared as text. If that deletes or restores the
    /// container, its status changed `now` (`swift/common/db.py: merge_timestamps`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn merge_timestamps(
        &mut self,
        created_at: &Stamp,
        put_timestamp: &Stamp,
        delete_timestamp: &Stamp,
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let retiring = self.retiring_counts()?;
        let place = self.place();
        self.db.write(|conn, schema| {
            let ranges = RangeSummary::read(conn, schema)?;
            let count = place.counts(conn, schema, &ranges, retiring)?.0;
            let was_deleted = is_deleted(conn, schema, count)?;
            conn.execute(
                "UPDATE container_stat SET created_at = MIN(?, created_at), put_timestamp = MAX(?, put_timestamp),
                    delete_timestamp = MAX(?, delete_timestamp)",
                [created_at.as_str(), put_timestamp.as_str(), delete_timestamp.as_str()],
            )?;
            if is_deleted(conn, schema, count)? != was_deleted {
                raise_stamp(conn, "status_changed_at", now)?;
            }
            Ok(())
        })
    }

    /// Raises `put_timestamp` (`swift/common/db.py: update_put_timestamp`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn raise_put_timestamp(&mut self, time: Timestamp) -> Result<(), BrokerError> {
        self.db.write(|conn, _| raise_stamp(conn, "put_timestamp", time))
    }

    /// Raises `status_changed_at` (`swift/common/db.py: update_status_changed_at`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn raise_status_changed_at(&mut self, time: Timestamp) -> Result<(), BrokerError> {
        self.db.write(|conn, _| raise_stamp(conn, "status_changed_at", time))
    }

    /// Gives the container another policy; its status changed at `time`
    /// (`swift/container/backend.py: set_storage_policy_index`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn set_policy(&mut self, policy: PolicyIndex, time: Timestamp) -> Result<(), BrokerError> {
        self.db.write(|conn, schema| {
            schema.add_policies(conn)?;
            conn.execute("INSERT OR IGNORE INTO policy_stat (storage_policy_index) VALUES (?)", [policy.0])?;
            conn.execute(
                "UPDATE container_stat SET storage_policy_index = ?1, status_changed_at = MAX(?2, status_changed_at)
                    WHERE storage_policy_index <> ?1",
                params![policy.0, time.to_string()],
            )?;
            Ok(())
        })
    }

    /// Deletes the container, as a container server does when a client asks: its metadata goes, but for what tells of
    /// sharding, and no row does (`swift/common/db.py: delete_db`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn delete_db(&mut self, time: Timestamp) -> Result<(), BrokerError> {
        let stamp = Stamp::from(time);
        self.db.write(|conn, schema| {
            let mine = metadata(conn, schema)?;
            let mut cleared = mine.clone();
            cleared.0.retain(|item| !KEPT_WHEN_DELETED.contains(&item.key.to_lowercase().as_str()));
            for item in &mut cleared.0 {
                *item = MetadataItem {
                    key: std::mem::take(&mut item.key),
                    value: String::new(),
                    stamp: stamp.clone(),
                };
            }
            if let Some(merged) = merge::merge_metadata(&mine, &cleared) {
                store_metadata(conn, schema, &merged)?;
            }
            conn.execute(
                "UPDATE container_stat SET delete_timestamp = ?1, status = 'DELETED', status_changed_at = ?1
                    WHERE delete_timestamp < ?1",
                [stamp.as_str()],
            )?;
            Ok(())
        })
    }

    /// Is the container deleted, by its timestamps and the objects of its current policy? Flushes first
    /// (`swift/container/backend.py: is_deleted`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn is_deleted(&mut self) -> Result<bool, BrokerError> {
        self.flush_pending()?;
        let retiring = self.retiring_counts()?;
        let place = self.place();
        self.db.read(|conn, schema| {
            let ranges = RangeSummary::read(conn, schema)?;
            let count = place.counts(conn, schema, &ranges, retiring)?.0;
            is_deleted(conn, schema, count)
        })
    }

    /// Has it no object, in any policy, in either of its files, nor in its shards? Flushes first
    /// (`swift/container/backend.py: empty`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn is_empty(&mut self) -> Result<bool, BrokerError> {
        self.flush_pending()?;
        if let Some(retiring) = &mut self.retiring {
            if !retiring.read(has_no_objects)? {
                return Ok(false);
            }
        }
        self.db.read(|conn, schema| {
            if !has_no_objects(conn, schema)? {
                return Ok(false);
            }
            let ranges = RangeSummary::read(conn, schema)?;
            let counts_shards = ranges.sharding_initiated() && is_root(conn, schema, &ranges)?;
            Ok(!counts_shards || ranges.usage.0 <= 0)
        })
    }

    /// Was it deleted longer than `age_secs` ago, with nothing in it that somebody may still need?
    /// (`swift/container/backend.py: is_reclaimable`)
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn is_reclaimable(&mut self, now_secs: f64, age_secs: f64) -> Result<bool, BrokerError> {
        let limit = time_of(now_secs - age_secs);
        let sharding = self.retiring.is_some();
        let may_go = self.db.read(|conn, schema| {
            let (put, delete) = put_and_delete(conn, schema)?;
            let ranges = RangeSummary::read(conn, schema)?;
            let needed = (sharding || ranges.others) && is_root(conn, schema, &ranges)?;
            Ok(limit > delete.time() && delete.time() > put.time() && !needed)
        })?;
        Ok(may_go && self.is_empty()?)
    }

    /// Forgets what is old: tombstones and deleted metadata from before `age_secs`, sync points not touched and deleted
    /// shard ranges from before `sync_age_secs`, both in seconds since 1970. Flushes first. Writes, and hence locks, only
    /// where there is something to forget (`swift/common/db.py: reclaim`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn reclaim(&mut self, age_secs: f64, sync_age_secs: f64) -> Result<Reclaimed, BrokerError> {
        self.flush_pending()?;
        let mut reclaimed =
            Reclaimed { tombstones: self.reclaim_tombstones(age_secs)?, ..Reclaimed::default() };
        let sync_age = sqlite_text(sync_age_secs);
        let age = time_of(age_secs);
        let anything = self.db.read(|conn, schema| {
            let path = container_path(conn, schema)?;
            let old = |table: &str, condition: &str, values: &[&str]| {
                let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})");
                conn.prepare_cached(&sql)?
                    .query_row(rusqlite::params_from_iter(values), |row| row.get::<_, bool>(0))
            };
            Ok(merge::reclaim_metadata(&metadata(conn, schema)?, age).is_some()
                || (schema.updated_at && old("outgoing_sync", OLD_POINT, &[&sync_age])?)
                || (schema.updated_at && old("incoming_sync", OLD_POINT, &[&sync_age])?)
                || (schema.ranges && old("shard_range", OLD_RANGE, &[&sync_age, &path])?))
        })?;
        if !anything {
            return Ok(reclaimed);
        }
        self.db.write(|conn, schema| {
            if schema.updated_at {
                for table in ["outgoing_sync", "incoming_sync"] {
                    reclaimed.sync_points +=
                        conn.execute(&format!("DELETE FROM {table} WHERE {OLD_POINT}"), [&sync_age])?;
                }
            }
            let mine = metadata(conn, schema)?;
            if let Some(kept) = merge::reclaim_metadata(&mine, age) {
                store_metadata(conn, schema, &kept)?;
                reclaimed.metadata = mine.0.len() - kept.0.len();
            }
            if schema.ranges {
                let path = container_path(conn, schema)?;
                reclaimed.shard_ranges =
                    conn.execute(&format!("DELETE FROM shard_range WHERE {OLD_RANGE}"), [&sync_age, &path])?;
            }
            Ok(reclaimed)
        })
    }

    /// Removes old tombstones in batches, each in a transaction of its own, so that nobody waits for long
    /// (`swift/common/db.py: TombstoneReclaimer`).
    fn reclaim_tombstones(&mut self, age_secs: f64) -> Result<usize, BrokerError> {
        let age = python_text(age_secs);
        let (mut from, mut gone) = (String::new(), 0);
        loop {
            let (to, anything) = self.db.read(|conn, schema| {
                let to = if schema.name_index { batch_end(conn, &from)? } else { None };
                let (condition, values) = tombstones(&from, to.as_ref().map(|to| to as &dyn ToSql), &age);
                let sql = format!("SELECT EXISTS (SELECT 1 FROM object WHERE {condition})");
                let anything =
                    conn.prepare_cached(&sql)?.query_row(&values[..], |row| row.get::<_, bool>(0))?;
                Ok((to, anything))
            })?;
            if anything {
                gone += self.db.write(|conn, schema| {
                    let (condition, values) = tombstones(&from, to.as_ref().map(|to| to as &dyn ToSql), &age);
                    let mut change = Change::begin(conn, schema)?;
                    let gone = change.delete_where(condition, &values)?;
                    change.end()?;
                    Ok(gone)
                })?;
            }
            match to {
                Some(to) => from = to,
                None => return Ok(gone),
            }
        }
    }

    /// How many tombstones there are (`swift/common/db.py: get_tombstone_count`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn tombstones(&mut self) -> Result<i64, BrokerError> {
        self.db.read(|conn, _| {
            Ok(conn.query_row("SELECT COUNT(*) FROM object WHERE deleted = 1", [], |row| row.get(0))?)
        })
    }

    /// What the account was last told of this container.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn reported(&mut self) -> Result<AccountReport, BrokerError> {
        self.db.read(|conn, _| {
            let sql = "SELECT reported_put_timestamp, reported_delete_timestamp, reported_object_count,
                reported_bytes_used FROM container_stat";
            super::the_row(conn, sql, |row| {
                Ok(AccountReport {
                    put_timestamp: Stamp::stored(text(row, 0)?),
                    delete_timestamp: Stamp::stored(text(row, 1)?),
                    object_count: number(row, 2)?,
                    bytes_used: number(row, 3)?,
                })
            })
        })
    }

    /// Remembers what the account was told (`swift/container/backend.py: reported`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn set_reported(&mut self, told: &AccountReport) -> Result<(), BrokerError> {
        self.db.write(|conn, _| {
            conn.execute(
                "UPDATE container_stat SET reported_put_timestamp = ?, reported_delete_timestamp = ?,
                    reported_object_count = ?, reported_bytes_used = ?",
                params![
                    told.put_timestamp.as_str(),
                    told.delete_timestamp.as_str(),
                    told.object_count,
                    told.bytes_used
                ],
            )?;
            Ok(())
        })
    }

    /// Does the account know all there is to know? (`swift/container/replicator.py: report_up_to_date`)
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn reported_is_current(&mut self) -> Result<bool, BrokerError> {
        let info = self.info()?;
        let current = AccountReport {
            put_timestamp: info.put_timestamp,
            delete_timestamp: info.delete_timestamp,
            object_count: info.count,
            bytes_used: info.bytes_used,
        };
        Ok(self.reported()? == current)
    }
}

fn put_and_delete(conn: &Connection, schema: &Schema) -> Result<(Stamp, Stamp), Fault> {
    super::the_row(conn, &format!("SELECT put_timestamp, delete_timestamp FROM {}", schema.facts()), |row| {
        Ok((Stamp::stored(text(row, 0)?), Stamp::stored(text(row, 1)?)))
    })
}

/// `swift/container/backend.py: _is_deleted_info`
fn is_deleted(conn: &Connection, schema: &Schema, count: i64) -> Result<bool, Fault> {
    let (put, delete) = put_and_delete(conn, schema)?;
    Ok(count == 0 && delete.time() > put.time())
}

/// `swift/container/backend.py: _empty`
fn has_no_objects(conn: &Connection, schema: &Schema) -> Result<bool, Fault> {
    let sql = match schema.policies {
        true => "SELECT max(object_count) FROM policy_stat",
        false => "SELECT object_count FROM container_stat",
    };
    Ok(super::the_row(conn, sql, |row| number(row, 0))? == 0)
}

/// Is the container no shard of another? (`swift/container/backend.py: is_root_container`)
pub(super) fn is_root(conn: &Connection, schema: &Schema, ranges: &RangeSummary) -> Result<bool, Fault> {
    let metadata = metadata(conn, schema)?;
    let root = match metadata.value("X-Container-Sysmeta-Shard-Quoted-Root") {
        Some(quoted) => Some(unquoted(quoted)),
        None => metadata.value("X-Container-Sysmeta-Shard-Root").map(str::to_owned),
    };
    match root {
        Some(root) => Ok(root == container_path(conn, schema)?),
        None => Ok(ranges.own.as_ref().is_none_or(|own| own.deleted == 0)),
    }
}

/// URL quoting undone, as Python's `unquote` does: what is no escape stays, what is no UTF-8 is replaced.
fn unquoted(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|&byte| (byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn raise_stamp(conn: &Connection, column: &str, time: Timestamp) -> Result<(), Fault> {
    let sql = format!("UPDATE container_stat SET {column} = ?1 WHERE {column} < ?1");
    conn.execute(&sql, [time.to_string()])?;
    Ok(())
}

/// The name at which the batch of tombstones that begins at `from` ends; `None` for the last.
fn batch_end(conn: &Connection, from: &str) -> Result<Option<String>, Fault> {
    let sql = "SELECT name FROM object WHERE deleted = 1 AND name >= ? ORDER BY name LIMIT 1 OFFSET ?";
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = statement.query(params![from, RECLAIM_BATCH_ROWS])?;
    let end = found.next()?.map(|row| text(row, 0)).transpose()?;
    Ok(end.filter(|end| end.as_str() > from))
}

/// Old tombstones by name, up to where the next batch begins, if there is one.
fn tombstones<'a>(
    from: &'a dyn ToSql,
    to: Option<&'a dyn ToSql>,
    age: &'a dyn ToSql,
) -> (&'static str, Vec<&'a dyn ToSql>) {
    match to {
        Some(to) => ("deleted = 1 AND name >= ? AND created_at < ? AND name < ?", vec![from, age, to]),
        None => ("deleted = 1 AND name >= ? AND created_at < ?", vec![from, age]),
    }
}

/// Seconds since 1970 as a timestamp, to the nearest 10 µs; time zero for a time before.
fn time_of(seconds: f64) -> Timestamp {
    python_text(seconds).parse().unwrap_or(Timestamp::ZERO)
}

/// A float as Python prints it, which is what Swift puts into its SQL for tombstones.
fn python_text(seconds: f64) -> String {
    early(seconds).unwrap_or_else(|| format!("{seconds:?}"))
}

/// A time of fewer digits than timestamps have, with zeros before it. Swift leaves them out, and as text such a time is
/// later than any: a reclaim age of thirty years, meant to keep everything, forgets everything at once.
fn early(seconds: f64) -> Option<String> {
    (0.0..1e9).contains(&seconds).then(|| format!("{seconds:016.5}"))
}

/// A float as SQLite turns it into text to compare it with a text column: 15 digits, at least one after the point.
fn sqlite_text(seconds: f64) -> String {
    if let Some(text) = early(seconds) {
        return text;
    }
    let text = format!("{seconds:.5}");
    let trimmed = text.trim_end_matches('0');
    if trimmed.ends_with('.') { format!("{trimmed}0") } else { trimmed.to_owned() }
}

/// Keys that tell of sharding stay when a container is deleted (`delete_meta_whitelist`).
const KEPT_WHEN_DELETED: [&str; 3] = [
    "x-container-sysmeta-shard-quoted-root",
    "x-container-sysmeta-shard-root",
    "x-container-sysmeta-sharding",
];

const OLD_POINT: &str = "updated_at < ?1";
const OLD_RANGE: &str = "deleted = 1 AND timestamp < ?1 AND name != ?2";

/// Tombstones looked at in one transaction (`swift/common/db.py: RECLAIM_PAGE_SIZE`).
const RECLAIM_BATCH_ROWS: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::testing::{START_SECS, created, home, other, row, time, tombstone};
    use super::*;

    #[test]
    fn floats_are_compared_as_swift_and_sqlite_print_them() {
        assert_eq!(python_text(1_750_000_227.491_852_5), "1750000227.4918525");
        assert_eq!(python_text(1_750_000_000.0), "1750000000.0");
        assert_eq!(sqlite_text(1_750_000_036.615_147_6), "1750000036.61515");
        assert_eq!(sqlite_text(1_750_000_036.5), "1750000036.5");
        assert_eq!(sqlite_text(1_750_000_000.0), "1750000000.0");
        assert_eq!(python_text(999_999_999.5), "0999999999.50000");
        assert_eq!(sqlite_text(0.0), "0000000000.00000");
        assert_eq!(time_of(-1.0), Timestamp::ZERO);
        assert_eq!(time_of(1.5), Timestamp::new(150_000, 0).unwrap());
    }

    #[test]
    fn quoting_is_undone_as_python_does() {
        assert_eq!(unquoted("a%2Fb%20%C3%BC"), "a/b ü");
        assert_eq!(unquoted("100%"), "100%");
        assert_eq!(unquoted("%zz%4"), "%zz%4");
        assert_eq!(unquoted("%ff"), "\u{fffd}");
    }

    #[test]
    fn nothing_to_reclaim_takes_no_write_lock() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(vec![row("o", 3), tombstone("p", 901)], None).unwrap();
        let writer = other(broker.path());
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(broker.reclaim(START_SECS + 900.0, START_SECS).unwrap(), Reclaimed::default());
    }

    #[test]
    fn an_age_beyond_all_timestamps_reclaims_nothing() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(vec![tombstone("p", 1)], None).unwrap();
        for age in [-2e9, -1.0, 0.0, 5e8, 999_999_999.0] {
            assert_eq!(broker.reclaim(age, age).unwrap(), Reclaimed::default(), "{age}");
        }
    }

    #[test]
    fn tombstones_go_in_batches_even_if_all_have_one_name() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let many = |name: &str| {
            format!(
                "WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n WHERE at < 10_002)
                 INSERT INTO object (name, created_at, size, deleted) SELECT {name}, '1750000003.00000', 0, 1 FROM n"
            )
        };
        let writer = other(broker.path());
        writer.execute_batch("DROP TRIGGER object_insert_policy_stat").unwrap();
        writer.execute_batch("DROP TRIGGER object_delete_policy_stat").unwrap();
        writer.execute_batch(&many("'same'")).unwrap();
        writer.execute_batch(&many("printf('t%06d', at)")).unwrap();
        drop(writer);
        assert_eq!(broker.reclaim(START_SECS + 4.0, 0.0).unwrap().tombstones, 20_004);
        assert_eq!(broker.tombstones().unwrap(), 0);
    }

    #[test]
    fn a_deleted_container_is_kept_while_it_is_being_sharded() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.delete_db(time(5)).unwrap();
        let fresh = home.dir().join(format!("{}_{}.db", home.hash(), time(9).normal()));
        std::fs::copy(broker.path(), fresh).unwrap();
        let mut both = Broker::open(&home).unwrap();
        assert!(both.is_deleted().unwrap() && both.is_empty().unwrap());
        assert!(!both.is_reclaimable(START_SECS + 100.0, 10.0).unwrap());
        assert!(broker.is_reclaimable(START_SECS + 100.0, 10.0).unwrap());
    }

    #[test]
    fn a_deleted_container_is_not_empty_while_rows_wait_beside_it() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.delete_db(time(5)).unwrap();
        assert!(broker.is_reclaimable(START_SECS + 100.0, 10.0).unwrap());
        assert!(!broker.is_reclaimable(START_SECS + 15.0, 10.0).unwrap(), "the limit itself is not past");
        broker.put_record(row("o", 6)).unwrap();
        assert!(!broker.is_reclaimable(START_SECS + 100.0, 10.0).unwrap());
        assert!(!broker.is_deleted().unwrap());
    }
}
