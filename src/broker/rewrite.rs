//! A container written anew, for those who want its file but may not lock it for long enough to copy it.
//!
//! Rows are read a batch at a time, and between two batches others write. A row that is replaced meanwhile comes once more,
//! under a higher number, and takes the place of the one already written: the new file is merged, not copied. It ends
//! with what was there when the last batch was read, and its row numbers promise no more than that, for rows that are gone
//! leave no gap in it.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::db;
use super::fault::Fault;
use super::schema;
use super::{Broker, BrokerError};
use crate::replica::RowId;

impl Broker {
    /// Writes all that the container holds into an empty file, a short look at a time. `tick` is asked between two looks
    /// whether to go on.
    ///
    /// # Errors
    /// `BadData` if the database is older than storage policies, `Busy` if `tick` says no; otherwise any [`BrokerError`]
    /// but `Exists`.
    pub fn rewrite(&mut self, path: &Path, tick: &mut dyn FnMut() -> bool) -> Result<(), BrokerError> {
        self.flush_pending()?;
        let (tables, policies) = self.db.read(|conn, schema| {
            if !schema.policies {
                return Err(Fault::BadData("it is too old to be written anew".to_owned()));
            }
            let kept = ["container_info", "incoming_sync", "outgoing_sync", "shard_range"];
            let kept = kept.into_iter().filter(|name| schema.ranges || *name != "shard_range");
            let tables: Result<Vec<Table>, Fault> = kept.map(|name| Table::read(conn, name)).collect();
            Ok((tables?, Table::read(conn, "policy_stat")?))
        })?;
        let begin = || -> Result<(), Fault> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut conn = db::connect(path, flags, Duration::ZERO)?;
            conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF")?;
            let transaction = conn.transaction()?;
            schema::create(&transaction)?;
            tables.iter().try_for_each(|table| table.write(&transaction))?;
            policies.write(&transaction)?;
            // Both grow with the rows.
            transaction.execute_batch(
                "UPDATE policy_stat SET object_count = 0, bytes_used = 0;
                 UPDATE container_info SET hash = '00000000000000000000000000000000'",
            )?;
            transaction.commit()?;
            Ok(())
        };
        begin().map_err(|fault| fault.at(path))?;
        let mut new = Broker::open_file(path)?;
        let (mut last, end) = (RowId::NONE, self.max_row()?);
        while last < end {
            let rows = self.rows_within(last, ROWS_AT_ONCE, BYTES_AT_ONCE)?;
            let Some(id) = rows.last().and_then(|row| row.row_id) else { break };
            new.merge_rows(rows, None)?;
            last = id;
            if !tick() {
                return Err(BrokerError::Busy { path: self.path().to_owned() });
            }
        }
        Ok(())
    }
}

/// A small table, as it is.
struct Table {
    name: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    fn read(conn: &Connection, name: &'static str) -> Result<Table, Fault> {
        let mut statement = conn.prepare(&format!("SELECT * FROM {name}"))?;
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let read = |row: &rusqlite::Row<'_>| (0..columns.len()).map(|index| row.get(index)).collect();
        let rows = statement.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
        Ok(Table { name, columns, rows })
    }

    /// What of its columns today's schema does not have stays behind.
    fn write(&self, conn: &Connection) -> Result<(), Fault> {
        let known = schema::columns(conn, self.name)?;
        let kept: Vec<usize> =
            (0..self.columns.len()).filter(|&nth| known.contains(&self.columns[nth])).collect();
        let names: Vec<&str> = kept.iter().map(|&nth| self.columns[nth].as_str()).collect();
        let places = vec!["?"; kept.len()].join(", ");
        let mut insert =
            conn.prepare(&format!("INSERT INTO {} ({}) VALUES ({places})", self.name, names.join(", ")))?;
        for row in &self.rows {
            insert.execute(params_from_iter(kept.iter().map(|&nth| &row[nth])))?;
        }
        Ok(())
    }
}

/// Rows in one look: few enough that a writer who waits for it hardly notices.
const ROWS_AT_ONCE: usize = 2000;
/// What they may come to.
const BYTES_AT_ONCE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::testing::{created, home, other, row, tombstone};
    use super::*;
    use crate::replica::{Direction, Metadata, MetadataItem, PolicyIndex, Row};
    use crate::timestamp::Stamp;

    /// Everything that a peer is told, and the rows but for their numbers.
    fn told(broker: &mut Broker) -> (crate::replica::ReplicaInfo, Vec<Row>, Vec<(PolicyIndex, i64, i64)>) {
        let mut info = broker.info().unwrap();
        (info.file_bytes, info.max_row) = (0, RowId::NONE);
        let mut rows = broker.rows_after(RowId::NONE, 10_000).unwrap();
        rows.iter_mut().for_each(|row| row.row_id = None);
        (info, rows, broker.policy_totals().unwrap())
    }

    fn filled(home: &crate::drive::HashDir) -> Broker {
        let mut broker = created(home);
        let many = (0..5000).map(|number| row(&format!("o{number:04}"), 3)).collect();
        broker.merge_rows(many, None).unwrap();
        let elsewhere = Row { storage_policy_index: PolicyIndex(2), ..row("o0001", 3) };
        broker.merge_rows(vec![tombstone("o0007", 5), row("o0008", 6), elsewhere], None).unwrap();
        let item =
            MetadataItem {
                key: "X-Key".into(), value: "ü".into(), stamp: Stamp::stored("0000000001.00000")
            };
        broker.merge_metadata(&Metadata(vec![item])).unwrap();
        let peer = super::super::fresh_id("sdb1");
        broker.set_sync_point(&peer, RowId(77), Direction::Incoming).unwrap();
        broker.set_sync_point(&peer, RowId(78), Direction::Outgoing).unwrap();
        broker
    }

    #[test]
    fn a_container_written_anew_is_the_same_container() {
        let (device, home) = home();
        let mut broker = filled(&home);
        broker.put_record(row("pending", 9)).unwrap();
        let path = device.path().join("new");
        std::fs::write(&path, "").unwrap();
        broker.rewrite(&path, &mut || true).unwrap();
        let mut new = Broker::open_file(&path).unwrap();
        assert_eq!(told(&mut new), told(&mut broker));
        assert!(new.max_row().unwrap() <= broker.max_row().unwrap());
        for direction in [Direction::Incoming, Direction::Outgoing] {
            assert_eq!(new.sync_points(direction).unwrap(), broker.sync_points(direction).unwrap());
        }
        let info = new.info().unwrap();
        new.verify(&info.account, &info.container).unwrap();
    }

    #[test]
    fn what_others_write_meanwhile_is_there_or_yet_to_come() {
        let (device, home) = home();
        let mut broker = filled(&home);
        let path = device.path().join("new");
        std::fs::write(&path, "").unwrap();
        let mut looks = 0;
        broker
            .rewrite(&path, &mut || {
                looks += 1;
                // One that was written anew already, one that was not.
                let rows =
                    vec![row("o0100", 10 + looks), row("o4900", 10 + looks), row(&format!("new{looks}"), 9)];
                Broker::open(&home).unwrap().merge_rows(rows, None).unwrap();
                true
            })
            .unwrap();
        assert!(looks > 2);
        let mut new = Broker::open_file(&path).unwrap();
        let last = new.max_row().unwrap();
        let later = broker.rows_after(last, 100).unwrap();
        new.merge_rows(later, None).unwrap();
        let (mut ours, mut theirs) = (told(&mut broker), told(&mut new));
        for rows in [&mut ours.1, &mut theirs.1] {
            rows.sort_by(|a, b| (&a.name, a.storage_policy_index).cmp(&(&b.name, b.storage_policy_index)));
        }
        assert_eq!(theirs, ours);
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let (device, home) = home();
        let path = device.path().join("new");
        std::fs::write(&path, "").unwrap();
        let outcome = filled(&home).rewrite(&path, &mut || false);
        assert!(matches!(outcome, Err(BrokerError::Busy { .. })), "{outcome:?}");
    }

    #[test]
    fn a_column_of_tomorrow_stays_behind() {
        let (device, home) = home();
        let mut broker = filled(&home);
        other(broker.path()).execute_batch("ALTER TABLE container_info ADD COLUMN tomorrow TEXT").unwrap();
        let path = device.path().join("new");
        std::fs::write(&path, "").unwrap();
        broker.rewrite(&path, &mut || true).unwrap();
        assert_eq!(told(&mut Broker::open_file(&path).unwrap()), told(&mut broker));
    }
}
