//! A look into one database: what a pass does with it before any peer is asked, and what the ledger remembers of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::warn;

use crate::broker::{Brief, Broker, BrokerError};
use crate::config::Config;
use crate::drive::{HashDir, Sight};
use crate::ledger::{Entry, StateDigest};
use crate::replica::{ReplicaInfo, RowId};

/// A database, open, and what it says of itself.
pub struct Looked {
    /// The database.
    pub broker: Broker,
    /// What it says.
    pub info: ReplicaInfo,
    /// What to remember; what was agreed before is in it.
    pub entry: Entry,
}

impl Looked {
    /// Was it deleted so long ago that nobody needs it any more?
    ///
    /// # Errors
    /// As [`Broker::is_reclaimable`].
    pub fn is_reclaimable(&mut self, config: &Config) -> Result<bool, BrokerError> {
        self.broker.is_reclaimable(seconds(SystemTime::now()), config.reclaim_age.as_secs_f64())
    }
}

/// Opens a database, forgets what is old in it, and sums it up. `known` is what the ledger has of it.
///
/// # Errors
/// As [`Broker::open`], [`Broker::reclaim`] and [`Broker::info`].
pub fn look(config: &Config, dir: &HashDir, known: Option<Entry>) -> Result<Looked, BrokerError> {
    let mut broker = Broker::open(dir)?;
    let (now, age) = (seconds(SystemTime::now()), config.reclaim_age.as_secs_f64());
    broker.reclaim(now - age, now - 2.0 * age)?;
    reclaim_tmp(config, dir);
    let (info, entry) = sum_up(config, dir, &mut broker, known)?;
    Ok(Looked { broker, info, entry })
}

/// What [`look`] comes to, without opening the database, if it is an ordinary one in which nothing is to be forgotten.
/// There are few others.
pub fn glance(config: &Config, dir: &HashDir, known: Option<Entry>) -> Option<(ReplicaInfo, Entry)> {
    let before = dir.sight().ok()?;
    let Brief { info, due } = Broker::brief(dir, config.reclaim_age.as_secs_f64())?;
    let now = SystemTime::now();
    let after = dir.sight().ok()?;
    if due.is_some_and(|due| due <= seconds(now)) {
        return None;
    }
    let seen = undisturbed(before, after, now);
    let entry = entry(config, dir, &info, due, seen, known, now);
    Some((info, entry))
}

/// Sums up a database that is open, as it is now.
///
/// # Errors
/// As [`Broker::info`].
pub fn sum_up(
    config: &Config,
    dir: &HashDir,
    broker: &mut Broker,
    known: Option<Entry>,
) -> Result<(ReplicaInfo, Entry), BrokerError> {
    let failed = |error| BrokerError::io(dir.dir(), &error);
    let before = dir.sight().map_err(failed)?;
    let info = broker.info()?;
    let due = broker.due(config.reclaim_age.as_secs_f64())?;
    let one_file = dir.db_files().map_err(failed)?.len() == 1;
    let now = SystemTime::now();
    let after = dir.sight().map_err(failed)?;
    let seen = undisturbed(before, after, now).filter(|_| one_file);
    let entry = entry(config, dir, &info, due, seen, known, now);
    Ok((info, entry))
}

/// Equal before and after, so that what was read is what is there; settled, so that the next change will show.
fn undisturbed(before: Option<Sight>, after: Option<Sight>, now: SystemTime) -> Option<Sight> {
    before.filter(|sight| after.as_ref() == Some(sight) && sight.is_settled(now))
}

fn entry(
    config: &Config,
    dir: &HashDir,
    info: &ReplicaInfo,
    due: Option<f64>,
    seen: Option<Sight>,
    known: Option<Entry>,
    now: SystemTime,
) -> Entry {
    let replica = Entry::replica_of(&info.id);
    let (introduce, met_row, agreements) = match known {
        // Another database in its place: nothing that was agreed is about this one.
        // A database whose numbers went back is another too: it came from a backup.
        Some(known) if known.replica == replica && known.max_row <= info.max_row => {
            (known.introduce, known.met_row, known.agreements)
        }
        _ => (false, info.max_row, vec![]),
    };
    Entry {
        seen: seen.map(|sight| sight.fingerprint),
        state: StateDigest::of(info),
        replica,
        max_row: info.max_row,
        met_row,
        due_secs: next_look(config, dir, due, now),
        introduce: introduce || info.sharding_initiated || wants_introduction(config, met_row, info.max_row),
        agreements,
    }
}

/// So many rows are new since peers last heard of them singly that the points in Swift's own tables have fallen a batch
/// behind. We do not need them; who goes back to Swift's replicator does.
pub fn wants_introduction(config: &Config, met_row: RowId, max_row: RowId) -> bool {
    max_row.0.saturating_sub(met_row.0) >= i64::try_from(config.per_diff).unwrap_or(i64::MAX)
}

/// When time alone asks for another look: something in it comes of age, or it is its turn to be looked at in any case.
fn next_look(config: &Config, dir: &HashDir, due: Option<f64>, now: SystemTime) -> u64 {
    let now_secs = seconds(now);
    let due = match due {
        // What is due and could not be reclaimed is not asked for all the time.
        Some(due) if due < now_secs => now_secs + DUE_AGAIN.as_secs_f64(),
        Some(due) => due.ceil() + 1.0,
        None => f64::INFINITY,
    };
    let phase = u64::from_be_bytes(std::array::from_fn(|at| dir.hash().0[8 + at]));
    (due as u64).min(next_turn(phase, config.agent.full_check_interval, now_secs as u64))
}

/// Whatever is looked at in full has its turn once in an interval, at a time of its own (`phase`), so that turns are
/// spread evenly however it came to be looked at first. In seconds since 1970, after `now_secs`.
pub fn next_turn(phase: u64, interval: Duration, now_secs: u64) -> u64 {
    let interval = interval.as_secs().max(1);
    let since = (now_secs + interval - phase % interval) % interval;
    now_secs + interval - since
}

/// Unlinks databases that were never finished.
fn reclaim_tmp(config: &Config, dir: &HashDir) {
    let oldest = SystemTime::now().checked_sub(config.reclaim_age).unwrap_or(UNIX_EPOCH);
    if let Err(error) = dir.reclaim_tmp(oldest) {
        warn!("{}: cannot reclaim old files: {error}", dir.dir().display());
    }
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How soon what is due but stays is looked at again.
const DUE_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::testing::{INSERT, bench, sqlite};

    #[test]
    fn what_changed_while_it_was_read_or_just_before_is_not_remembered() {
        let bench = bench();
        let database = bench.database();
        let sight = || bench.hash_dir().sight().unwrap();
        let (before, now) = (sight(), SystemTime::now());
        let later = now + Duration::from_secs(60);
        assert_eq!(undisturbed(before, sight(), later), before);
        assert_eq!(undisturbed(before, sight(), now), None);
        assert_eq!(undisturbed(before, None, later), None);
        std::thread::sleep(Duration::from_millis(50));
        sqlite(&database).execute_batch(INSERT).unwrap();
        assert_eq!(undisturbed(before, sight(), later), None);
    }
}
