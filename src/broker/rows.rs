//! Object rows: read after a point, and merged.
//!
//! What a merge comes to is decided by [`crate::merge`]; here it is done. Swift lets triggers keep the container's counts
//! and hash row by row, which costs several times what storing the rows does. We turn the triggers off for the length of a
//! merge, add up what they would have done, and write it once, in the same transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params, params_from_iter};

use super::db::{number, text};
use super::fault::Fault;
use super::schema::Schema;
use super::{Broker, BrokerError};
use crate::merge;
use crate::replica::{Direction, PolicyIndex, ReplicaId, Row, RowHash, RowId};

impl Broker {
    /// Up to `limit` rows with numbers above `after`, lowest first, as they are stored
    /// (`swift/common/db.py: get_items_since`). Pending records are not among them; see [`Broker::flush_pending`].
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn rows_after(&mut self, after: RowId, limit: usize) -> Result<Vec<Row>, BrokerError> {
        self.rows_within(after, limit, usize::MAX)
    }

    /// The same, but no more than it takes to come to `limit_bytes` of text: rows can be of any size, and memory is
    /// limited. At least one, if there is one.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn rows_within(
        &mut self,
        after: RowId,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Vec<Row>, BrokerError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db.read(|conn, schema| {
            let sql =
                format!("SELECT {} FROM object WHERE ROWID > ? ORDER BY ROWID LIMIT ?", row_columns(schema));
            let mut statement = conn.prepare_cached(&sql)?;
            let mut found = statement.query(params![after.0, limit])?;
            let mut rows = Vec::new();
            let mut bytes = 0;
            while let Some(row) = found.next()? {
                let row = read_row(row)?;
                bytes += row.text_bytes();
                rows.push(row);
                if bytes >= limit_bytes {
                    break;
                }
            }
            Ok(rows)
        })
    }

    /// The rows of one name, which are one of each policy that it was written under, as they are stored. A hundred at
    /// most, whatever a broken database holds.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn rows_named(&mut self, name: &str) -> Result<Vec<Row>, BrokerError> {
        self.db.read(|conn, schema| {
            let (columns, by_name) = (row_columns(schema), schema.by_name());
            let sql = format!("SELECT {columns} FROM object WHERE {by_name} = ? ORDER BY ROWID LIMIT ?");
            let mut statement = conn.prepare_cached(&sql)?;
            let mut found = statement.query(params![name, ROWS_OF_A_NAME])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                rows.push(read_row(row)?);
            }
            Ok(rows)
        })
    }

    /// The highest number ever given to a row of this file, -1 if none was (`swift/common/db.py: get_max_row`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn max_row(&mut self) -> Result<RowId, BrokerError> {
        self.db.read(|conn, _| sequence(conn, "object"))
    }

    /// Merges rows, all or none, and returns how many were new in some respect
    /// (`swift/container/backend.py: merge_items`). With a `source`, the peer they come from, it is remembered that all
    /// of its rows up to the last of these are here; of many rows without news, only now and then.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`; `BadData` if a row's times cannot be read or the last row of a `source` has no
    /// number.
    pub fn merge_rows(
        &mut self,
        mut rows: Vec<Row>,
        source: Option<&ReplicaId>,
    ) -> Result<usize, BrokerError> {
        let Some(last) = rows.last().map(|row| row.row_id) else { return Ok(0) };
        let source = match source {
            Some(source) => Some((
                source,
                last.ok_or_else(|| {
                    self.db.fault(Fault::BadData("the last row from a peer has no number".to_owned()))
                })?,
            )),
            None => None,
        };
        self.leave_out_known(&mut rows)?;
        if rows.is_empty() {
            let Some((source, point)) = source else { return Ok(0) };
            let remembered = self.sync_point(source, Direction::Incoming)?;
            if point.0.saturating_sub(remembered.0) < ROWS_WITHOUT_NEWS {
                return Ok(0);
            }
        }
        self.db.write(|conn, schema| {
            schema.add_policies(conn)?;
            if let Some((source, point)) = source {
                super::raise_sync_point(conn, "incoming_sync", source, point)?;
            }
            merge_rows(conn, schema, rows)
        })
    }
}

fn merge_rows(conn: &Connection, schema: &Schema, rows: Vec<Row>) -> Result<usize, Fault> {
    let held = rows_of_names(conn, schema, &rows)?;
    let of = |name: &str, policy| held.get(&policy)?.get(name);
    let merged = merge::merge_rows(rows, |name, policy| of(name, policy)?.last())
        .map_err(|bad| Fault::BadData(bad.to_string()))?;
    let mut change = Change::begin(conn, schema)?;
    for (name, policy) in &merged.delete {
        change.delete(of(name, *policy).map_or(&[], Vec::as_slice))?;
    }
    change.insert(&merged.insert)?;
    change.end()?;
    Ok(merged.insert.len())
}

/// The rows that have the names of `rows`, in the order of the index. Where a name has several of one policy, which should
/// not be, the last counts, as in Swift.
fn rows_of_names(
    conn: &Connection,
    schema: &Schema,
    rows: &[Row],
) -> Result<HashMap<PolicyIndex, HashMap<String, Vec<Row>>>, Fault> {
    let mut held: HashMap<PolicyIndex, HashMap<String, Vec<Row>>> = HashMap::new();
    let names: Vec<&str> = {
        let mut seen = HashSet::new();
        rows.iter().map(|row| row.name.as_str()).filter(|name| seen.insert(*name)).collect()
    };
    for names in names.chunks(NAMES_AT_ONCE) {
        let places = vec!["?"; names.len()].join(",");
        let sql =
            format!("SELECT {} FROM object WHERE {} IN ({places})", row_columns(schema), schema.by_name());
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query(params_from_iter(names))?;
        while let Some(row) = found.next()? {
            let row = read_row(row)?;
            let of_policy = held.entry(row.storage_policy_index).or_default();
            of_policy.entry(row.name.clone()).or_default().push(row);
        }
    }
    Ok(held)
}

/// The columns that [`read_row`] expects.
pub(super) fn row_columns(schema: &Schema) -> &'static str {
    if schema.policies {
        "ROWID, name, created_at, size, content_type, etag, deleted, storage_policy_index"
    } else {
        "ROWID, name, created_at, size, content_type, etag, deleted, 0"
    }
}

pub(super) fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, Fault> {
    Ok(Row {
        row_id: Some(RowId(number(row, 0)?)),
        name: text(row, 1)?,
        created_at: text(row, 2)?,
        size: number(row, 3)?,
        content_type: text(row, 4)?,
        etag: text(row, 5)?,
        deleted: number(row, 6)?,
        storage_policy_index: PolicyIndex(number(row, 7)?),
        ctype_timestamp: None,
        meta_timestamp: None,
    })
}

/// The highest number that AUTOINCREMENT gave to a row of `table`, -1 if none.
pub(super) fn sequence(conn: &Connection, table: &str) -> Result<RowId, Fault> {
    let mut statement = conn.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ? LIMIT 1")?;
    let mut found = statement.query([table])?;
    Ok(match found.next()? {
        Some(row) => RowId(number(row, 0)?),
        None => RowId::NONE,
    })
}

/// Rows going and coming within a transaction, with the container's counts and hash kept right.
pub(super) struct Change<'a> {
    conn: &'a Connection,
    /// `None` where the triggers do it.
    sums: Option<(Untriggered<'a>, Sums, Sums)>,
}

impl<'a> Change<'a> {
    pub(super) fn begin(conn: &'a Connection, schema: &'a Schema) -> Result<Change<'a>, Fault> {
        let sums = match schema.policies && schema.usual_triggers {
            true => Some((Untriggered::new(conn)?, Sums::default(), Sums::default())),
            false => None,
        };
        Ok(Change { conn, sums })
    }

    /// Deletes rows that are there.
    fn delete(&mut self, rows: &[Row]) -> Result<(), Fault> {
        let mut statement = self.conn.prepare_cached("DELETE FROM object WHERE ROWID = ?")?;
        for row in rows {
            statement.execute([row.row_id.expect("it was read").0])?;
            if let Some((_, removed, _)) = &mut self.sums {
                removed.add_row(row);
            }
        }
        Ok(())
    }

    /// Deletes the rows that a condition picks, and returns how many they were.
    pub(super) fn delete_where(
        &mut self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<usize, Fault> {
        let Some((_, removed, _)) = &mut self.sums else {
            return Ok(self
                .conn
                .prepare_cached(&format!("DELETE FROM object WHERE {condition}"))?
                .execute(values)?);
        };
        let sql = format!(
            "DELETE FROM object WHERE {condition} RETURNING name, created_at, size, deleted, storage_policy_index"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut gone = statement.query(values)?;
        let mut count = 0;
        while let Some(row) = gone.next()? {
            let policy = PolicyIndex(number(row, 4)?);
            removed.add(&text(row, 0)?, &text(row, 1)?, number(row, 2)?, number(row, 3)?, policy);
            count += 1;
        }
        Ok(count)
    }

    /// Inserts rows, in this order.
    fn insert(&mut self, rows: &[Row]) -> Result<(), Fault> {
        let mut statement = self.conn.prepare_cached(INSERT_ROW)?;
        for row in rows {
            statement.execute(params![
                row.name,
                row.created_at,
                row.size,
                row.content_type,
                row.etag,
                row.deleted,
                row.storage_policy_index.0
            ])?;
            if let Some((_, _, added)) = &mut self.sums {
                added.add_row(row);
            }
        }
        Ok(())
    }

    /// Writes the sums. What goes is subtracted first, because a policy that has no total yet gets one from its first
    /// row, not from a row that goes.
    pub(super) fn end(self) -> Result<(), Fault> {
        let Some((_untriggered, removed, added)) = &self.sums else { return Ok(()) };
        for (policy, (objects, bytes)) in &removed.by_policy {
            self.conn.prepare_cached(ADD_TO_POLICY)?.execute(params![
                negated(*objects),
                negated(*bytes),
                policy.0
            ])?;
        }
        for (policy, (objects, bytes)) in &added.by_policy {
            let (objects, bytes) = (clamped(*objects), clamped(*bytes));
            let known =
                self.conn.prepare_cached(ADD_TO_POLICY)?.execute(params![objects, bytes, policy.0])?;
            if known == 0 {
                self.conn.prepare_cached(NEW_POLICY)?.execute(params![objects, bytes, policy.0])?;
            }
        }
        if removed.hash != added.hash {
            let mut statement = self.conn.prepare_cached("SELECT hash FROM container_info")?;
            let stored = statement.query_row([], |row| row.get::<_, String>(0))?;
            let mut hash = RowHash::parse(&stored)
                .ok_or_else(|| Fault::BadData(format!("its hash is not 32 hex digits: {stored:?}")))?;
            for mixed in [removed.hash, added.hash] {
                hash.0.iter_mut().zip(mixed.0).for_each(|(byte, mixed)| *byte ^= mixed);
            }
            self.conn.prepare_cached("UPDATE container_info SET hash = ?")?.execute([hash.to_string()])?;
        }
        Ok(())
    }
}

/// What the triggers would have added up over some rows.
#[derive(Default)]
struct Sums {
    hash: RowHash,
    /// Objects and bytes.
    by_policy: BTreeMap<PolicyIndex, (i128, i128)>,
}

impl Sums {
    fn add_row(&mut self, row: &Row) {
        self.add(&row.name, &row.created_at, row.size, row.deleted, row.storage_policy_index);
    }

    fn add(&mut self, name: &str, created_at: &str, size: i64, deleted: i64, policy: PolicyIndex) {
        self.hash.mix(name, created_at);
        let (objects, bytes) = self.by_policy.entry(policy).or_default();
        *objects += 1 - i128::from(deleted);
        *bytes += i128::from(size);
    }
}

fn clamped(sum: i128) -> i64 {
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn negated(sum: i128) -> i64 {
    clamped(-sum)
}

/// The connection's triggers, off until this is dropped.
struct Untriggered<'a>(&'a Connection);

impl<'a> Untriggered<'a> {
    fn new(conn: &'a Connection) -> Result<Untriggered<'a>, Fault> {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        Ok(Untriggered(conn))
    }
}

impl Drop for Untriggered<'_> {
    fn drop(&mut self) {
        self.0
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
            .expect("a setting that was changed can be changed back");
    }
}

/// Names looked up by one query; Swift's number, within the limit of every SQLite.
const NAMES_AT_ONCE: usize = 999;
/// Rows from a peer that bring no news, until it is remembered how far we got with it: a commit takes as long as looking
/// at some thousands of them again.
const ROWS_WITHOUT_NEWS: i64 = 50_000;
/// More than there are policies anywhere.
const ROWS_OF_A_NAME: i64 = 100;

const INSERT_ROW: &str = "INSERT INTO object
    (name, created_at, size, content_type, etag, deleted, storage_policy_index) VALUES (?, ?, ?, ?, ?, ?, ?)";

const ADD_TO_POLICY: &str =
    "UPDATE policy_stat SET object_count = object_count + ?1, bytes_used = bytes_used + ?2
    WHERE storage_policy_index = ?3";

const NEW_POLICY: &str =
    "INSERT INTO policy_stat (object_count, bytes_used, storage_policy_index) VALUES (?1, ?2, ?3)";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{START_SECS, created, home, names, other, row, tombstone};
    use super::*;

    fn totals(broker: &mut Broker) -> (RowHash, Vec<(PolicyIndex, i64, i64)>, Vec<Row>) {
        let hash = broker.info().unwrap().hash;
        (hash, broker.policy_totals().unwrap(), broker.rows_after(RowId::NONE, 1000).unwrap())
    }

    fn versions() -> impl Strategy<Value = Vec<Row>> {
        let version = ("[a-c]\\PC?", 1u64..9, 0i64..3, any::<bool>(), 0i64..100).prop_map(
            |(name, seconds, policy, deleted, size)| {
                let row =
                    if deleted { tombstone(&name, seconds) } else { Row { size, ..row(&name, seconds) } };
                Row { storage_policy_index: PolicyIndex(policy), ..row }
            },
        );
        proptest::collection::vec(version, 0..12)
    }

    #[test]
    fn rows_of_a_name_are_those_of_each_policy_and_no_others() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let elsewhere = Row { storage_policy_index: PolicyIndex(1), ..tombstone("a", 3) };
        broker.merge_rows(vec![row("a", 1), row("aa", 1), row("b", 2), elsewhere], None).unwrap();
        let found = broker.rows_named("a").unwrap();
        let found: Vec<_> = found.iter().map(|row| (row.deleted, row.storage_policy_index.0)).collect();
        assert_eq!(found, [(0, 0), (1, 1)]);
        assert!(broker.rows_named("A").unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bulk_sums_are_those_of_the_triggers(lists in proptest::collection::vec(versions(), 1..4), age in 1u64..9) {
            let ((_device_a, home_a), (_device_b, home_b)) = (home(), home());
            let (mut bulk, mut triggered) = (created(&home_a), created(&home_b));
            let unusual = "CREATE TRIGGER unusual AFTER INSERT ON object BEGIN SELECT 1; END";
            other(triggered.path()).execute_batch(unusual).unwrap();
            for list in lists {
                bulk.merge_rows(list.clone(), None).unwrap();
                triggered.merge_rows(list, None).unwrap();
                prop_assert_eq!(totals(&mut bulk), totals(&mut triggered));
            }
            for broker in [&mut bulk, &mut triggered] {
                broker.reclaim(START_SECS + age as f64, 0.0).unwrap();
            }
            let (hash, sums, rows) = totals(&mut bulk);
            prop_assert_eq!((hash, sums.clone(), rows.clone()), totals(&mut triggered));
            let mut mixed = RowHash::default();
            rows.iter().for_each(|row| mixed.mix(&row.name, &row.created_at));
            prop_assert_eq!(hash, mixed);
            let live = rows.iter().filter(|row| row.deleted == 0).count() as i64;
            prop_assert_eq!(sums.iter().map(|(_, objects, _)| objects).sum::<i64>(), live);
        }
    }

    #[test]
    fn a_merge_that_fails_leaves_nothing_and_turns_the_triggers_on_again() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(vec![row("o", 3)], None).unwrap();
        let before = broker.info().unwrap();
        let peer = super::super::fresh_id("sdb1");
        let bad = Row { created_at: "yesterday".to_owned(), row_id: Some(RowId(7)), ..row("p", 3) };
        let failed = broker.merge_rows(vec![row("q", 3), bad], Some(&peer));
        assert!(matches!(failed, Err(BrokerError::BadData { .. })), "{failed:?}");
        assert_eq!(broker.info().unwrap(), before);
        assert_eq!(broker.sync_point(&peer, Direction::Incoming).unwrap(), RowId::NONE);
        broker.set_sync_point(&peer, RowId(1), Direction::Incoming).unwrap();
        let touched = "SELECT updated_at > 0 FROM incoming_sync";
        assert!(other(broker.path()).query_row(touched, [], |row| row.get::<_, bool>(0)).unwrap());
    }

    #[test]
    fn rows_are_read_in_order_and_in_bounds() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_rows(["b", "a\0z", "c"].map(|name| row(name, 3)).to_vec(), None).unwrap();
        broker.merge_rows(vec![row("b", 4)], None).unwrap();
        assert_eq!(names(&mut broker), ["a\0z", "c", "b"]);
        let rows = broker.rows_after(RowId(2), 1).unwrap();
        assert_eq!(rows, [Row { row_id: Some(RowId(3)), ..row("c", 3) }]);
        assert_eq!(broker.rows_after(RowId(4), usize::MAX).unwrap(), []);
        assert_eq!(broker.rows_after(RowId::NONE, 0).unwrap(), []);
        assert_eq!(broker.max_row().unwrap(), RowId(4));
    }

    #[test]
    fn of_two_rows_with_one_name_the_last_of_the_index_is_compared_and_both_go() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let mut twice = |live: u64, dead: u64, new: u64| {
            let sql = "INSERT INTO object (name, created_at, size, deleted) VALUES ('o', ?, 0, ?)";
            let conn = other(broker.path());
            for trigger in ["object_insert_policy_stat", "object_delete_policy_stat"] {
                conn.execute_batch(&format!("DROP TRIGGER IF EXISTS {trigger}")).unwrap();
            }
            conn.execute_batch("DELETE FROM object").unwrap();
            for (seconds, deleted) in [(dead, 1), (live, 0)] {
                conn.execute(sql, params![row("o", seconds).created_at, deleted]).unwrap();
            }
            drop(conn);
            broker.merge_rows(vec![row("o", new)], None).unwrap();
            names(&mut broker).len()
        };
        assert_eq!(twice(5, 3, 4), 1, "the tombstone was compared, though the other came later");
        assert_eq!(twice(3, 5, 4), 2);
    }

    #[test]
    fn rows_from_a_peer_need_a_number_to_be_remembered_by() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let peer = super::super::fresh_id("sdb1");
        assert!(matches!(
            broker.merge_rows(vec![row("o", 3)], Some(&peer)),
            Err(BrokerError::BadData { .. })
        ));
        assert_eq!(broker.merge_rows(vec![], Some(&peer)), Ok(0));
        assert_eq!(broker.sync_points(Direction::Incoming), Ok(vec![]));
    }

    #[test]
    fn sums_that_overflow_are_cut_off() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let huge = ["a", "b", "c"].map(|name| Row { size: i64::MAX, ..row(name, 3) });
        broker.merge_rows(huge.to_vec(), None).unwrap();
        broker.merge_rows(vec![Row { size: i64::MAX, ..row("d", 3) }], None).unwrap();
        assert_eq!(broker.info().unwrap().bytes_used, i64::MAX);
    }
}
