//! When time alone will change a database: something in it grows old enough to be forgotten.
//!
//! A database that nobody writes to is not opened, so somebody has to know when [`Broker::reclaim`] would next find
//! something in it, or [`Broker::is_reclaimable`] say yes.

use rusqlite::Connection;

use super::db::text;
use super::fault::Fault;
use super::{Broker, BrokerError, container_path, metadata};
use crate::replica::Metadata;
use crate::timestamp::Timestamp;

impl Broker {
    /// The earliest time, in seconds since 1970, at which there may be something to reclaim, given a reclaim age in
    /// seconds; `None` if nothing in it ages.
    ///
    /// # Errors
    /// Any [`BrokerError`] but `Exists`.
    pub fn due(&mut self, reclaim_age_secs: f64) -> Result<Option<f64>, BrokerError> {
        self.db.read(|conn, schema| {
            let mut due = Due::default();
            due.at(earliest(conn, "SELECT MIN(created_at) FROM object WHERE deleted = 1")?, reclaim_age_secs);
            let deleted =
                "SELECT delete_timestamp FROM container_stat WHERE delete_timestamp > put_timestamp";
            due.at(earliest(conn, deleted)?, reclaim_age_secs);
            due.metadata(&metadata(conn, schema)?, reclaim_age_secs);
            if schema.updated_at {
                for table in ["outgoing_sync", "incoming_sync"] {
                    let oldest = format!("SELECT MIN(updated_at) FROM {table}");
                    due.at(earliest(conn, &oldest)?, 2.0 * reclaim_age_secs);
                }
            }
            if schema.ranges {
                let own = container_path(conn, schema)?;
                let sql = "SELECT MIN(timestamp) FROM shard_range WHERE deleted = 1 AND name != ?";
                let oldest: Option<String> = conn.prepare_cached(sql)?.query_row([own], |row| row.get(0))?;
                due.at(oldest.as_deref().and_then(start_of), 2.0 * reclaim_age_secs);
            }
            Ok(due.earliest)
        })
    }
}

/// The earliest of several times.
#[derive(Default)]
pub(super) struct Due {
    pub(super) earliest: Option<f64>,
}

impl Due {
    /// Deleted keys become due when they are of this age.
    pub(super) fn metadata(&mut self, metadata: &Metadata, age_secs: f64) {
        for item in metadata.0.iter().filter(|item| item.value.is_empty()) {
            self.at(start_of(item.stamp.as_str()), age_secs);
        }
    }

    /// Something of this time becomes due when it is of this age.
    pub(super) fn at(&mut self, secs: Option<f64>, age_secs: f64) {
        if let Some(due) = secs.map(|secs| secs + age_secs) {
            self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        }
    }
}

/// The time that a query for one text finds, if any.
fn earliest(conn: &Connection, sql: &str) -> Result<Option<f64>, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let found = rows.next()?.map(|row| text(row, 0)).transpose()?;
    Ok(found.as_deref().and_then(start_of))
}

/// The first time in a text, in seconds: a row may carry three. A text that is no time never comes due; the full look at
/// every database, now and then, sees to those.
pub(super) fn start_of(text: &str) -> Option<f64> {
    let first = text.split(['+', '-', '_']).next().unwrap_or_default();
    match first.parse::<Timestamp>() {
        Ok(time) if !text.is_empty() => Some(time.seconds()),
        _ => first.parse().ok().filter(|secs: &f64| secs.is_finite()),
    }
}
