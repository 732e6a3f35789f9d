//! Do the replicas agree? Pure: from what was found on each device to what differs and what it comes to.
//!
//! Replicas are held against the one that most primaries agree with, for that is where the others are heading; of two
//! that have as many behind them, against the one with more rows.

use std::cmp::Reverse;
use std::fmt;

use super::places::Role;
use crate::replica::{DbState, PolicyIndex, ReplicaInfo, Row};
use crate::report::text::{thousands, utc};
use crate::timestamp::Stamp;

/// What was found on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A database.
    Held(Box<Held>),
    /// None, or none that we know of.
    Without {
        /// In a word.
        state: State,
        /// In a sentence; empty if the word says it all.
        why: String,
    },
}

/// A database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it says of itself.
    pub info: ReplicaInfo,
    /// Rows in its pending file, which are in no number of `info`. An agent that is asked takes them in first.
    pub waiting: u64,
    /// The row of an object, if one was asked for.
    pub row: Option<ObjectRow>,
}

/// What a replica says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectRow {
    /// This; a tombstone perhaps.
    Stored(Box<Row>),
    /// This, which waits in the pending file.
    Waiting(Box<Row>),
    /// Nothing.
    Missing,
    /// Nothing, because it may be in a shard.
    InShards,
    /// Only its own node can tell.
    Unseen,
}

/// What became of looking at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is a database.
    Have,
    /// There is one, and the container is deleted.
    Deleted,
    /// There is none.
    Missing,
    /// The drive is not mounted.
    Unmounted,
    /// There is one, and it is broken.
    Damaged,
    /// Others had it locked.
    Busy,
    /// The system does not let us look.
    Unreadable,
    /// By its own ring the node there has no such device, or the container another partition.
    Unknown,
    /// Nobody, or somebody else, listens where its agent should.
    NoAgent,
    /// There is no way to its node.
    Unreachable,
    /// Its agent did not answer in time.
    Silent,
    /// All else.
    Failed,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Have => "have",
            State::Deleted => "deleted",
            State::Missing => "missing",
            State::Unmounted => "unmounted",
            State::Damaged => "damaged",
            State::Busy => "busy",
            State::Unreadable => "unreadable",
            State::Unknown => "unknown",
            State::NoAgent => "no agent",
            State::Unreachable => "unreachable",
            State::Silent => "silent",
            State::Failed => "failed",
        }
    }
}

impl Finding {
    /// That there is none, and why.
    pub fn without(state: State, why: impl Into<String>) -> Finding {
        Finding::Without { state, why: why.into() }
    }

    /// The database.
    pub fn held(&self) -> Option<&Held> {
        match self {
            Finding::Held(held) => Some(held),
            Finding::Without { .. } => None,
        }
    }

    /// In a word.
    pub fn state(&self) -> State {
        match self {
            Finding::Held(held) if held.info.is_deleted() => State::Deleted,
            Finding::Held(_) => State::Have,
            Finding::Without { state, .. } => *state,
        }
    }
}

/// What one replica has that another has not, or otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Other rows.
    Rows {
        /// How much lower the number of its last row is. Replicas number their rows each for itself, so this is about how
        /// many it has not heard of, not exactly.
        behind: i64,
        /// How many objects more it has.
        objects: i64,
    },
    /// The same rows, and yet other sums.
    Sums {
        /// How many objects more it counts.
        objects: i64,
        /// How many bytes more.
        bytes: i64,
    },
    /// One of its times is another.
    Time {
        /// Which.
        name: &'static str,
        /// Its own.
        has: Stamp,
        /// The other's.
        other: Stamp,
    },
    /// Items of metadata are not the same.
    Metadata(Vec<String>),
    /// It belongs to another policy.
    Policy {
        /// Its own.
        has: PolicyIndex,
        /// The other's.
        other: PolicyIndex,
    },
    /// Shard ranges are not the same.
    ShardRanges,
    /// It is elsewhere in the course of sharding.
    Sharding {
        /// Its own state.
        has: DbState,
        /// The other's.
        other: DbState,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Rows { behind, objects } => {
                match behind.signum() {
                    1 => write!(f, "about {} behind", counted(*behind, "row"))?,
                    -1 => write!(f, "about {} ahead", counted(*behind, "row"))?,
                    _ => f.write_str("other rows")?,
                }
                match objects.signum() {
                    0 => f.write_str(", as many objects"),
                    sign => write!(f, ", {} {}", counted(*objects, "object"), more(sign)),
                }
            }
            Difference::Sums { objects, bytes } => {
                let (o, b) = (counted(*objects, "object"), counted(*bytes, "byte"));
                write!(
                    f,
                    "the same rows, but counts {o} {} and {b} {}",
                    more(objects.signum()),
                    more(bytes.signum())
                )
            }
            Difference::Time { name, has, other } => {
                write!(f, "{name} {}, not {}", time(has), time(other))
            }
            Difference::Metadata(keys) => {
                let shown = keys.iter().take(KEYS_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
                let rest = match keys.len().saturating_sub(KEYS_SHOWN) {
                    0 => String::new(),
                    rest => format!(" and {rest} more"),
                };
                write!(f, "other metadata: {shown}{rest}")
            }
            Difference::Policy { has, other } => write!(f, "policy {has}, not {other}"),
            Difference::ShardRanges => f.write_str("other shard ranges"),
            Difference::Sharding { has, other } if has == other => f.write_str("another step of sharding"),
            Difference::Sharding { has, other } => write!(f, "{}, not {}", has.as_str(), other.as_str()),
        }
    }
}

/// What distinguishes a replica from another; nothing if they agree in all that replicas must agree on.
pub fn differences(this: &ReplicaInfo, other: &ReplicaInfo) -> Vec<Difference> {
    let mut found = Vec::new();
    let objects = this.count.saturating_sub(other.count);
    let bytes = this.bytes_used.saturating_sub(other.bytes_used);
    if this.hash != other.hash {
        found.push(Difference::Rows { behind: other.max_row.0.saturating_sub(this.max_row.0), objects });
    } else if (objects, bytes) != (0, 0) {
        found.push(Difference::Sums { objects, bytes });
    }
    let times = [
        ("created", &this.created_at, &other.created_at),
        ("put", &this.put_timestamp, &other.put_timestamp),
        ("deleted", &this.delete_timestamp, &other.delete_timestamp),
    ];
    for (name, has, other) in times.into_iter().filter(|(_, has, other)| has != other) {
        found.push(Difference::Time { name, has: has.clone(), other: other.clone() });
    }
    let (ours, theirs) = (&this.metadata, &other.metadata);
    let changed = ours.0.iter().filter(|item| theirs.item(&item.key) != Some(item));
    let lacking = theirs.0.iter().filter(|item| ours.item(&item.key).is_none());
    let keys: Vec<String> = changed.chain(lacking).map(|item| item.key.clone()).collect();
    if !keys.is_empty() {
        found.push(Difference::Metadata(keys));
    }
    if this.storage_policy_index != other.storage_policy_index {
        found.push(Difference::Policy { has: this.storage_policy_index, other: other.storage_policy_index });
    }
    if this.ranges_digest != other.ranges_digest {
        found.push(Difference::ShardRanges);
    }
    let sharding = |info: &ReplicaInfo| (info.db_state, info.sharding_initiated, info.sharding_required);
    if sharding(this) != sharding(other) {
        found.push(Difference::Sharding { has: this.db_state, other: other.db_state });
    }
    found
}

/// How the replicas stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The replica that the others are held against.
    pub reference: Option<usize>,
    /// For each finding what distinguishes it from that; `None` where there is no replica.
    pub differences: Vec<Option<Vec<Difference>>>,
    /// All primaries have a replica, and they agree.
    pub is_sound: bool,
    /// In a line.
    pub sentence: String,
}

impl Verdict {
    /// Of findings on primaries, in their order, and then on handoffs.
    pub fn of(findings: &[Finding], primaries: usize) -> Verdict {
        let infos: Vec<Option<&ReplicaInfo>> =
            findings.iter().map(|finding| finding.held().map(|held| &held.info)).collect();
        let (at_home, away) = infos.split_at(primaries.min(infos.len()));
        let reference = preferred(at_home).or_else(|| preferred(away).map(|index| primaries + index));
        let against = reference.and_then(|index| infos[index]);
        let differences: Vec<Option<Vec<Difference>>> =
            infos.iter().map(|info| Some(differences((*info)?, against?))).collect();
        let agrees = |found: &Option<Vec<Difference>>| found.as_ref().is_some_and(Vec::is_empty);
        let agreeing = differences[..at_home.len()].iter().filter(|found| agrees(found)).count();
        let mut verdict = Verdict {
            reference,
            differences,
            is_sound: primaries > 0 && agreeing == primaries,
            sentence: String::new(),
        };
        verdict.sentence = verdict.in_words(findings, primaries, agreeing);
        verdict
    }

    /// How a replica stands to the others, in a word; `None` where there is none.
    pub fn word(&self, index: usize, findings: &[Finding], role: Role) -> Option<&'static str> {
        let held = findings[index].held()?;
        let found = self.differences[index].as_ref()?;
        Some(match (found.first(), role) {
            (_, Role::Handoff(_)) => "to move",
            (None, _) => "agree",
            (Some(Difference::Rows { .. } | Difference::Sums { .. }), _) if held.waiting > 0 => "waiting",
            (Some(Difference::Rows { behind: 1.., .. }), _) => "behind",
            (Some(Difference::Rows { behind: ..=-1, .. }), _) => "ahead",
            (Some(_), _) => "differs",
        })
    }

    fn in_words(&self, findings: &[Finding], primaries: usize, agreeing: usize) -> String {
        let (at_home, away) = findings.split_at(primaries.min(findings.len()));
        let deleted = self.reference.is_some_and(|index| findings[index].state() == State::Deleted);
        let having = at_home.iter().filter(|finding| finding.held().is_some()).count();
        let they = match (agreeing, primaries) {
            (0, 0) => return "the ring has no device for it".to_owned(),
            (0, 1) => "the only primary has none".to_owned(),
            (1, 1) => "the only primary has it".to_owned(),
            (0, _) => format!("none of {primaries} primaries has it"),
            (1, _) if having == 1 => format!("1 of {primaries} primaries has it"),
            (1, _) if having == primaries => format!("no two of {primaries} primaries agree"),
            (1, _) => format!("{having} of {primaries} primaries have it and disagree"),
            (2, 2) => "both primaries agree".to_owned(),
            _ if self.is_sound => format!("all {primaries} primaries agree"),
            _ => format!("{agreeing} of {primaries} primaries agree"),
        };
        let mut text = they;
        if deleted {
            text += ": it is deleted";
        }
        let others: Vec<String> = (0..at_home.len())
            .filter(|&index| self.differences[index].as_ref().is_none_or(|found| !found.is_empty()))
            .map(|index| {
                let word = self.word(index, findings, Role::Primary(index + 1));
                format!("primary {}: {}", index + 1, word.unwrap_or(at_home[index].state().as_str()))
            })
            .collect();
        if !others.is_empty() {
            text += &format!("; {}", others.join(", "));
        }
        let copies: Vec<String> = (0..away.len())
            .filter(|&index| away[index].held().is_some())
            .map(|index| Role::Handoff(index + 1).to_string())
            .collect();
        match copies.as_slice() {
            [] => {}
            [one] => text += &format!("; the copy on handoff {one} is still to be moved"),
            several => {
                text += &format!("; the copies on handoffs {} are still to be moved", several.join(", "))
            }
        }
        text
    }
}

/// The replica that most of them agree with.
fn preferred(infos: &[Option<&ReplicaInfo>]) -> Option<usize> {
    let agreeing =
        |info: &ReplicaInfo| infos.iter().flatten().filter(|other| other.agrees_with(info)).count();
    let held = infos.iter().enumerate().filter_map(|(index, info)| Some((index, (*info)?)));
    held.max_by_key(|(index, info)| {
        let written = info.put_timestamp.time().max(info.delete_timestamp.time());
        (agreeing(info), info.max_row, written, Reverse(*index))
    })
    .map(|(index, _)| index)
}

fn counted(number: i64, what: &str) -> String {
    let plural = if number.unsigned_abs() == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number.unsigned_abs()))
}

fn more(sign: i64) -> &'static str {
    if sign < 0 { "fewer" } else { "more" }
}

/// A stamp to the second, or in full where that would hide what differs.
fn time(stamp: &Stamp) -> String {
    match stamp.time().raw() {
        0 => "never".to_owned(),
        _ => format!("{} ({stamp})", utc(stamp.time().seconds() as u64)),
    }
}

/// Longer lists end here.
const KEYS_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::onlooker;
    use crate::replica::{MetadataItem, RowHash, RowId};

    fn info(hash: u8, max_row: i64) -> ReplicaInfo {
        ReplicaInfo {
            created_at: Stamp::stored("1750000000.00000"),
            put_timestamp: Stamp::stored("1750000000.00000"),
            hash: RowHash([hash; 16]),
            max_row: RowId(max_row),
            count: max_row,
            ..onlooker("a", "c")
        }
    }

    fn held(info: ReplicaInfo) -> Finding {
        Finding::Held(Box::new(Held { info, waiting: 0, row: None }))
    }

    fn deleted() -> Finding {
        held(ReplicaInfo { count: 0, delete_timestamp: Stamp::stored("1750000001.00000"), ..info(9, 5) })
    }

    fn without(state: State) -> Finding {
        Finding::without(state, "")
    }

    #[test]
    fn the_verdict_is_a_table() {
        use State::{Damaged, Missing, NoAgent};
        let (a, b, c) = (|| held(info(1, 10)), || held(info(2, 8)), || held(info(3, 12)));
        let no = || without(Missing);
        let table = [
            (vec![], 0, None, false, "the ring has no device for it"),
            (vec![no()], 1, None, false, "the only primary has none; primary 1: missing"),
            (vec![a()], 1, Some(0), true, "the only primary has it"),
            (vec![a(), a(), a()], 3, Some(0), true, "all 3 primaries agree"),
            (vec![deleted(), deleted()], 2, Some(0), true, "both primaries agree: it is deleted"),
            (vec![a(), b(), a()], 3, Some(0), false, "2 of 3 primaries agree; primary 2: behind"),
            // The majority counts, even if the other one has more.
            (vec![c(), a(), a()], 3, Some(1), false, "2 of 3 primaries agree; primary 1: ahead"),
            (vec![a(), a(), no()], 3, Some(0), false, "2 of 3 primaries agree; primary 3: missing"),
            (
                vec![a(), without(NoAgent), without(Damaged)],
                3,
                Some(0),
                false,
                "1 of 3 primaries has it; primary 2: no agent, primary 3: damaged",
            ),
            // Of two that stand alone, the one with more rows.
            (
                vec![b(), a(), no()],
                3,
                Some(1),
                false,
                "2 of 3 primaries have it and disagree; primary 1: behind, primary 3: missing",
            ),
            (
                vec![a(), b(), c()],
                3,
                Some(2),
                false,
                "no two of 3 primaries agree; primary 1: behind, primary 2: behind",
            ),
            (
                vec![no(), no()],
                2,
                None,
                false,
                "none of 2 primaries has it; primary 1: missing, primary 2: missing",
            ),
            (vec![a(), a(), no(), no()], 2, Some(0), true, "both primaries agree"),
            (
                vec![a(), a(), no(), b()],
                2,
                Some(0),
                true,
                "both primaries agree; the copy on handoff h2 is still to be moved",
            ),
            // However many copies wait on handoffs, the primaries are what others are held against.
            (
                vec![a(), a(), c(), c(), c()],
                2,
                Some(0),
                true,
                "both primaries agree; the copies on handoffs h1, h2, h3 are still to be moved",
            ),
            (
                vec![no(), no(), c()],
                2,
                Some(2),
                false,
                "none of 2 primaries has it; primary 1: missing, primary 2: missing; the copy on handoff h1 is still to be moved",
            ),
            (
                vec![a(), no(), no(), a()],
                2,
                Some(0),
                false,
                "1 of 2 primaries has it; primary 2: missing; the copy on handoff h2 is still to be moved",
            ),
            (
                vec![deleted(), a(), deleted()],
                3,
                Some(0),
                false,
                "2 of 3 primaries agree: it is deleted; primary 2: ahead",
            ),
        ];
        for (findings, primaries, reference, is_sound, sentence) in table {
            let verdict = Verdict::of(&findings, primaries);
            assert_eq!(verdict.sentence, sentence);
            assert_eq!((verdict.reference, verdict.is_sound), (reference, is_sound), "{sentence}");
        }
    }

    #[test]
    fn rows_that_wait_explain_a_difference_and_do_not_excuse_it() {
        let mut behind = Held { info: info(2, 8), waiting: 2, row: None };
        let findings = |held: &Held| [self::held(info(1, 10)), Finding::Held(Box::new(held.clone()))];
        let verdict = Verdict::of(&findings(&behind), 2);
        assert_eq!(verdict.word(1, &findings(&behind), Role::Primary(2)), Some("waiting"));
        assert!(!verdict.is_sound);
        behind.info = info(1, 10);
        let verdict = Verdict::of(&findings(&behind), 2);
        assert_eq!(verdict.word(1, &findings(&behind), Role::Primary(2)), Some("agree"));
        assert!(verdict.is_sound);
    }

    #[test]
    fn each_difference_is_named() {
        let item = |key: &str, value: &str| MetadataItem {
            key: key.to_owned(),
            value: value.to_owned(),
            stamp: Stamp::stored("1750000000.00000"),
        };
        let with = |change: &dyn Fn(&mut ReplicaInfo)| {
            let mut changed = info(1, 10);
            change(&mut changed);
            changed
        };
        let table: [(ReplicaInfo, &[&str]); 12] = [
            (with(&|_| {}), &[]),
            // Each replica has its own.
            (with(&|i| (i.max_row, i.status_changed_at) = (RowId(99), Stamp::stored("1"))), &[]),
            (with(&|i| *i = info(2, 8)), &["about 2 rows behind, 2 objects fewer"]),
            (with(&|i| *i = info(2, 11)), &["about 1 row ahead, 1 object more"]),
            (with(&|i| *i = info(2, 10)), &["other rows, as many objects"]),
            (
                with(&|i| i.bytes_used = -1_000),
                &["the same rows, but counts 0 objects more and 1,000 bytes fewer"],
            ),
            (
                with(&|i| i.put_timestamp = Stamp::stored("1750000000.00001")),
                &["put 2025-06-15 15:06:40 (1750000000.00001), not 2025-06-15 15:06:40 (1750000000.00000)"],
            ),
            (
                with(&|i| i.delete_timestamp = Stamp::stored("1750000001.00000")),
                &["deleted 2025-06-15 15:06:41 (1750000001.00000), not never"],
            ),
            (
                with(&|i| i.metadata.0 = (1..=5).map(|n| item(&format!("X-{n}"), "v")).collect()),
                &["other metadata: X-1, X-2, X-3 and 2 more"],
            ),
            (with(&|i| i.storage_policy_index = PolicyIndex(1)), &["policy 1, not 0"]),
            (
                with(&|i| (i.db_state, i.ranges_digest) = (DbState::Sharded, [1; 16])),
                &["other shard ranges", "sharded, not unsharded"],
            ),
            (with(&|i| i.sharding_initiated = true), &["another step of sharding"]),
        ];
        for (changed, expected) in table {
            let found = differences(&changed, &info(1, 10));
            let texts: Vec<String> = found.iter().map(Difference::to_string).collect();
            assert_eq!(texts, expected);
            assert_eq!(found.is_empty(), changed.agrees_with(&info(1, 10)), "{texts:?}");
            assert_eq!(differences(&info(1, 10), &changed).is_empty(), found.is_empty(), "{texts:?}");
        }
    }

    #[test]
    fn metadata_differs_in_values_and_in_what_is_not_there() {
        let item = |key: &str, value: &str| MetadataItem {
            key: key.to_owned(),
            value: value.to_owned(),
            stamp: Stamp::unset(),
        };
        let (mut one, mut other) = (info(1, 1), info(1, 1));
        one.metadata.0 = vec![item("same", "x"), item("changed", "x"), item("mine", "x")];
        other.metadata.0 = vec![item("theirs", "x"), item("changed", "y"), item("same", "x")];
        let keys = ["changed", "mine", "theirs"].map(str::to_owned).to_vec();
        assert_eq!(differences(&one, &other), [Difference::Metadata(keys)]);
    }
}
