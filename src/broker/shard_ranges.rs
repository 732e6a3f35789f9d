//! Shard ranges: read, merged, and what they say about the state of the container.
//!
//! A container that grew too large is cut into ranges of its names, each a container of its own. Of that a replicator need
//! only know which ranges there are, whose they are, and how far the cutting has got (`swift/container/backend.py`).

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::db::{number, text};
use super::fault::Fault;
use super::schema::Schema;
use super::{Broker, BrokerError, container_path};
use crate::merge;
use crate::replica::ShardRange;
use crate::timestamp::Stamp;

impl Broker {
    /// How many shard ranges there are.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn shard_range_count(&mut self) -> Result<u64, BrokerError> {
        self.db.read(|conn, schema| {
            if !schema.ranges {
                return Ok(0);
            }
            let mut count = conn.prepare_cached("SELECT count(*) FROM shard_range")?;
            Ok(count.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
        })
    }

    /// Every shard range, deleted ones and the container's own included, in Swift's order
    /// (`swift/container/backend.py: get_all_shard_range_data`).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn shard_ranges(&mut self) -> Result<Vec<ShardRange>, BrokerError> {
        let mut ranges = self.db.read(|conn, schema| {
            let mut ranges = Vec::new();
            each_range(conn, schema, |range| ranges.push(range))?;
            Ok(ranges)
        })?;
        ranges.sort_by(|a, b| {
            let key = |range: &ShardRange| (range.upper.is_empty(), range.state);
            (key(a).0, &a.upper, key(a).1, &a.lower, &a.name).cmp(&(
                key(b).0,
                &b.upper,
                key(b).1,
                &b.lower,
                &b.name,
            ))
        });
        Ok(ranges)
    }

    /// The range that the container itself stands for, if it was ever given one
    /// (`swift/container/backend.py: get_own_shard_range`, without its default).
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn own_shard_range(&mut self) -> Result<Option<ShardRange>, BrokerError> {
        self.db.read(|conn, schema| Ok(RangeSummary::read(conn, schema)?.own))
    }

    /// Merges ranges, all or none. From a peer, an own range without the epoch that ours has is left out
    /// (`swift/container/replicator.py: check_merge_own_shard_range`, then
    /// `swift/container/backend.py: merge_shard_ranges`). Returns how many were new in some respect.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn merge_shard_ranges(&mut self, ranges: Vec<ShardRange>) -> Result<usize, BrokerError> {
        if ranges.is_empty() {
            return Ok(0);
        }
        self.db.write(|conn, schema| {
            schema.add_ranges(conn)?;
            let wanted: HashMap<&str, ()> = ranges.iter().map(|range| (range.name.as_str(), ())).collect();
            let (mut held, mut own) = (HashMap::new(), None);
            let path = container_path(conn, schema)?;
            each_range(conn, schema, |range| {
                if range.name == path && own.is_none() {
                    own = Some(range.clone());
                }
                if wanted.contains_key(range.name.as_str()) {
                    held.insert(range.name.clone(), range);
                }
            })?;
            let mut ranges = ranges;
            ranges.retain(|range| !merge::drops_own_range_without_epoch(own.as_ref(), range));
            let merged = merge::merge_shard_ranges(ranges, |name| held.get(name));
            for name in &merged.delete {
                conn.prepare_cached("DELETE FROM shard_range WHERE name = ?")?.execute([name])?;
            }
            for range in &merged.insert {
                insert_range(conn, range)?;
            }
            Ok(merged.insert.len())
        })
    }
}

/// What the ranges say, taken up in one walk over them.
#[derive(Debug, Default)]
pub(super) struct RangeSummary {
    /// The container's own range.
    pub(super) own: Option<ShardRange>,
    /// There are ranges, not deleted, other than its own.
    pub(super) others: bool,
    /// Objects and bytes in those that hold any (`swift/container/backend.py: get_shard_usage`).
    pub(super) usage: (i64, i64),
    /// Over all ranges, in whatever order they come; zero if there are none.
    pub(super) digest: u128,
}

impl RangeSummary {
    pub(super) fn read(conn: &Connection, schema: &Schema) -> Result<RangeSummary, Fault> {
        let path = container_path(conn, schema)?;
        let mut summary = RangeSummary::default();
        each_range(conn, schema, |range| {
            summary.digest = summary.digest.wrapping_add(range_digest(&range));
            if range.name == path {
                summary.own.get_or_insert(range);
            } else if range.deleted == 0 {
                summary.others = true;
                if [ACTIVE, SHARDING, SHRINKING].contains(&range.state) {
                    summary.usage.0 = summary.usage.0.saturating_add(range.object_count);
                    summary.usage.1 = summary.usage.1.saturating_add(range.bytes_used);
                }
            }
        })?;
        Ok(summary)
    }

    /// Was sharding or shrinking begun? (`swift/container/backend.py: sharding_initiated`)
    pub(super) fn sharding_initiated(&self) -> bool {
        let state = self.own.as_ref().map_or(ACTIVE, |own| own.state);
        [SHRINKING, SHARDING, SHARDED, SHRUNK].contains(&state) && self.others
    }
}

/// One range, every column of it. Summed up, so that the order in which they are stored does not matter.
fn range_digest(range: &ShardRange) -> u128 {
    let mut hasher = blake3::Hasher::new();
    let epoch = range.epoch.as_ref().map_or("", Stamp::as_str);
    let (created, state_set) = (range.timestamp.as_str(), range.state_timestamp.as_str());
    for part in
        [&range.name, created, &range.lower, &range.upper, range.meta_timestamp.as_str(), state_set, epoch]
    {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let numbers =
        [range.object_count, range.bytes_used, range.deleted, range.state, range.reported, range.tombstones];
    for part in numbers {
        hasher.update(&part.to_le_bytes());
    }
    let mut head = [0; 16];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(head)
}

/// Hands over every range, in the order of the table.
fn each_range(conn: &Connection, schema: &Schema, mut take: impl FnMut(ShardRange)) -> Result<(), Fault> {
    if !schema.ranges {
        return Ok(());
    }
    let reported = if schema.range_reported { "reported" } else { "0" };
    let tombstones = if schema.range_tombstones { "tombstones" } else { "-1" };
    let sql = format!(
        "SELECT name, timestamp, lower, upper, object_count, bytes_used, meta_timestamp, deleted, state,
            state_timestamp, epoch, {reported}, {tombstones} FROM shard_range ORDER BY ROWID"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let epoch = match row.get_ref(10)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(Stamp::stored(text(row, 10)?)),
        };
        take(ShardRange {
            name: text(row, 0)?,
            timestamp: Stamp::stored(text(row, 1)?),
            lower: text(row, 2)?,
            upper: text(row, 3)?,
            object_count: number(row, 4)?,
            bytes_used: number(row, 5)?,
            meta_timestamp: Stamp::stored(text(row, 6)?),
            deleted: number(row, 7)?,
            state: number(row, 8)?,
            state_timestamp: Stamp::stored(text(row, 9)?),
            epoch,
            reported: number(row, 11)?,
            tombstones: number(row, 12)?,
        });
    }
    Ok(())
}

fn insert_range(conn: &Connection, range: &ShardRange) -> Result<(), Fault> {
    conn.prepare_cached(
        "INSERT INTO shard_range (name, timestamp, lower, upper, object_count, bytes_used, meta_timestamp, deleted,
            state, state_timestamp, epoch, reported, tombstones) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        range.name,
        range.timestamp.as_str(),
        range.lower,
        range.upper,
        range.object_count,
        range.bytes_used,
        range.meta_timestamp.as_str(),
        range.deleted,
        range.state,
        range.state_timestamp.as_str(),
        range.epoch.as_ref().map(Stamp::as_str),
        range.reported,
        range.tombstones
    ])?;
    Ok(())
}

const ACTIVE: i64 = 40;
const SHRINKING: i64 = 50;
const SHARDING: i64 = 60;
const SHARDED: i64 = 70;
const SHRUNK: i64 = 80;

#[cfg(test)]
mod tests {
    use super::super::testing::{created, home};
    use super::*;
    use crate::replica::DbState;

    fn range(name: &str, state: i64, seconds: u32) -> ShardRange {
        let stamp = || Stamp::stored(format!("{seconds:010}.00000"));
        ShardRange {
            name: name.to_owned(),
            timestamp: stamp(),
            lower: String::new(),
            upper: String::new(),
            object_count: 5,
            bytes_used: 50,
            meta_timestamp: stamp(),
            deleted: 0,
            state,
            state_timestamp: stamp(),
            epoch: None,
            reported: 0,
            tombstones: -1,
        }
    }

    #[test]
    fn an_own_range_that_lost_its_epoch_does_not_come_in() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let own = ShardRange { epoch: Some(Stamp::stored("0000000002.00000")), ..range("a/c", SHARDING, 2) };
        assert_eq!(broker.merge_shard_ranges(vec![own.clone()]), Ok(1));
        assert_eq!(
            broker.merge_shard_ranges(vec![range("a/c", ACTIVE, 3), range(".shards_a/1", ACTIVE, 3)]),
            Ok(1)
        );
        assert_eq!(broker.own_shard_range(), Ok(Some(own)));
        assert_eq!(broker.shard_ranges().unwrap().len(), 2);
        assert_eq!(broker.merge_shard_ranges(vec![]), Ok(0));
    }

    #[test]
    fn sharding_has_begun_once_there_are_ranges_to_shard_into() {
        let (_device, home) = home();
        let mut broker = created(&home);
        broker.merge_shard_ranges(vec![range("a/c", SHARDING, 2)]).unwrap();
        let info = broker.info().unwrap();
        assert!(!info.sharding_initiated && !info.sharding_required);
        broker.merge_shard_ranges(vec![range(".shards_a/1", CREATED, 2)]).unwrap();
        let info = broker.info().unwrap();
        assert!(info.sharding_initiated && info.sharding_required);
        assert_eq!(info.db_state, DbState::Unsharded);
        assert!(broker.is_empty().unwrap(), "a range that was only created holds nothing");
        broker.merge_shard_ranges(vec![range(".shards_a/2", ACTIVE, 2)]).unwrap();
        assert!(!broker.is_empty().unwrap());
    }

    #[test]
    fn a_file_is_sharded_if_its_epoch_is_that_of_the_own_range() {
        let (_device, home) = home();
        let mut broker = created(&home);
        let epoch = |epoch: &str| Some(Stamp::stored(epoch));
        broker
            .merge_shard_ranges(vec![ShardRange { epoch: epoch("9"), ..range("a/c", SHARDED, 2) }])
            .unwrap();
        assert_eq!(broker.info().unwrap().db_state, DbState::Unsharded, "its name has no epoch");
        let rename = |broker: Broker, epoch: &str| {
            let name = home.dir().join(format!("{}_{epoch}.db", home.hash()));
            std::fs::rename(broker.path(), name).unwrap();
            Broker::open(&home).unwrap()
        };
        let mut broker = rename(broker, "0000000008.00000");
        assert_eq!(broker.info().unwrap().db_state, DbState::Unsharded);
        let mut broker = rename(broker, "0000000009.00000");
        assert_eq!(broker.info().unwrap().db_state, DbState::Collapsed);
        broker.merge_shard_ranges(vec![range(".shards_a/1", ACTIVE, 2)]).unwrap();
        let info = broker.info().unwrap();
        assert_eq!(info.db_state, DbState::Sharded);
        assert_eq!((info.count, info.bytes_used), (5, 50), "what its shards hold");
    }

    const CREATED: i64 = 20;
}
