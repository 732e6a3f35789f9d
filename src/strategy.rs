//! What two replicas say of themselves in, the cheapest way to agree out.
//!
//! Content decides whether there is anything to do; sync points only say where to start. That is where we part from
//! Swift, which believes its points: it answers "no change" for ever when they are too high, be it because a whole
//! file was merged (`_rsync_db` then `merge_syncs`) or because a disk was restored from a backup. Every other rule of
//! its ladder (`swift/common/db_replicator.py: _choose_replication_mode`) that matters to correctness is kept.
//!
//! Costs are estimates in bytes on the wire and rows to merge, turned into seconds to be compared. They need only be
//! right enough to choose well; whatever is chosen ends in the same rows.

use crate::replica::{ReplicaInfo, RowId};

/// How to make the peer's replica agree with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// There is nothing to send.
    Nothing(Agreement),
    /// Send the rows after this one.
    Rows {
        /// Where to start.
        after: RowId,
        /// The sync points about us are wrong: what is sent ends in a point that *replaces* the peer's.
        restart: bool,
    },
    /// Ship the file, as a delta or whole, and merge it there; or, if it turns out to have little in common with the
    /// peer's, the rows after all.
    File {
        /// Where those rows would start.
        instead_of: RowId,
    },
    /// The container is being sharded: rows must not be sent.
    Deferred,
}

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The rows are equal and the sync points say so too.
    NoChange,
    /// The rows are equal, and the sync points did not know.
    HashMatch,
    /// The peer has all our rows, and others that it has yet to send us.
    PeerAhead,
    /// Names and stamps are equal, but not what stands beside them: the sums differ. Stamps decide who wins, so here
    /// nobody does; each keeps its own, in Swift as with us. All that can be done is to say so.
    Tied,
}

/// Why a strategy was chosen, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Row hashes are equal.
    EqualRows,
    /// Row hashes are equal, which cover names and stamps only, but counts or bytes are not.
    EqualStamps,
    /// All rows up to our last one are there; the difference is the peer's to send.
    PeerHasMore,
    /// The peer lacks the rows after the sync point.
    Behind,
    /// The peer lacks so much that the file is cheaper than the rows.
    FarBehind,
    /// Points say that all was sent both ways, yet the rows differ.
    PointsDisagree,
    /// A point lies beyond our last row: this database was restored from an older copy.
    Restored,
    /// Our copy is to be removed, and the peer must have all of it first.
    Leaving,
    /// Sharding has begun.
    Sharding,
}

impl Reason {
    /// A clause that completes "chosen because".
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::EqualRows => "the rows are equal",
            Reason::EqualStamps => {
                "names and stamps are equal though counts or bytes are not, and nothing says who is right"
            }
            Reason::PeerHasMore => "the peer has all our rows and more to send",
            Reason::Behind => "the peer lacks rows after the sync point",
            Reason::FarBehind => "the peer lacks so many rows that the file is cheaper",
            Reason::PointsDisagree => "sync points say done but the rows differ",
            Reason::Restored => "a sync point lies beyond our last row, as after a restore",
            Reason::Leaving => "this copy is to be removed and the peer must have all of it",
            Reason::Sharding => "the container is being sharded",
        }
    }
}

/// What a strategy is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Rows that the peer must look at, at most.
    pub merge_rows: u64,
    /// Those of them that it has to insert.
    pub new_rows: u64,
}

/// A strategy, the reason for it and its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What to do.
    pub strategy: Strategy,
    /// Why.
    pub reason: Reason,
    /// At what estimated cost.
    pub cost: Cost,
}

/// All that the choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Our replica.
    pub mine: &'a ReplicaInfo,
    /// Theirs, before it merged anything of ours.
    pub theirs: &'a ReplicaInfo,
    /// Their incoming point for us: the row of ours up to which they say they hold all.
    pub their_point: RowId,
    /// Our outgoing point for them: the row of ours up to which we know that they hold all.
    pub my_point: RowId,
    /// Our incoming point for them: the row of *theirs* up to which we hold all.
    pub my_incoming: RowId,
    /// We mean to remove our copy, so nothing short of equal content, or all of ours sent, will do.
    pub leaving: bool,
}

/// Chooses (see the head of this file for the reasons behind the order).
pub fn choose(situation: &Situation) -> Choice {
    let Situation { mine, theirs, .. } = *situation;
    let nothing =
        |agreement, reason| Choice { strategy: Strategy::Nothing(agreement), reason, cost: Cost::default() };
    if mine.sharding_initiated {
        return Choice { strategy: Strategy::Deferred, reason: Reason::Sharding, cost: Cost::default() };
    }
    let point = situation.their_point.max(situation.my_point);
    let points_reach_the_end = point >= mine.max_row;
    let same_sums = (mine.count, mine.bytes_used) == (theirs.count, theirs.bytes_used);
    // The hash is an XOR: rows can cancel each other out. Good enough to compare by, not to remove a copy by.
    if mine.hash == theirs.hash && (same_sums || !situation.leaving) {
        if !same_sums && mine.storage_policy_index == theirs.storage_policy_index {
            return nothing(Agreement::Tied, Reason::EqualStamps);
        }
        let agreement = if points_reach_the_end { Agreement::NoChange } else { Agreement::HashMatch };
        return nothing(agreement, Reason::EqualRows);
    }
    if mine.max_row.0 <= 0 {
        return nothing(Agreement::PeerAhead, Reason::PeerHasMore);
    }
    if situation.leaving {
        return rows_or_file(situation, RowId::NONE, false, Reason::Leaving);
    }
    if point > mine.max_row {
        return rows_or_file(situation, RowId::NONE, true, Reason::Restored);
    }
    if points_reach_the_end {
        if situation.my_incoming < theirs.max_row {
            return nothing(Agreement::PeerAhead, Reason::PeerHasMore);
        }
        return rows_or_file(situation, RowId::NONE, true, Reason::PointsDisagree);
    }
    rows_or_file(situation, point, false, Reason::Behind)
}

/// The rows after `after`, unless the file is cheaper, or may be: where two large replicas have no point in common, a
/// sample of their pages tells what is, before anything is sent ([`transfer`]).
fn rows_or_file(situation: &Situation, after: RowId, restart: bool, reason: Reason) -> Choice {
    let Situation { mine, theirs, .. } = *situation;
    let rows = rows_cost(mine, theirs, after);
    let file = file_cost(mine, theirs);
    let worth_a_sample = after == RowId::NONE && mine.max_row.min(theirs.max_row) >= RowId(SAMPLE_ROWS);
    let by_file = worth_a_sample || file.seconds(mine.file_bytes) < rows.seconds(0);
    // A peer that is being sharded must not be given a file (`swift/container/replicator.py: rsync_then_merge`).
    if by_file && !theirs.sharding_initiated {
        let reason = if reason == Reason::Behind { Reason::FarBehind } else { reason };
        Choice { strategy: Strategy::File { instead_of: after }, reason, cost: file }
    } else {
        Choice { strategy: Strategy::Rows { after, restart }, reason, cost: rows }
    }
}

/// What sending the rows after a point costs. Numbers of rows that are gone count too: they are few, and only a scan
/// would tell.
fn rows_cost(mine: &ReplicaInfo, theirs: &ReplicaInfo, after: RowId) -> Cost {
    let owned = mine.max_row.0.max(1) as u64;
    let rows = mine.max_row.0.saturating_sub(after.0.max(0)).max(0) as u64;
    let row_bytes = ROW_WIRE_BYTES.max(mine.file_bytes / owned / FILE_BYTES_PER_WIRE_BYTE);
    // Where the point is known all of them are new; else as many as the peer has fewer.
    let new = match after {
        RowId::NONE => rows.saturating_sub(theirs.max_row.0.max(0) as u64),
        _ => rows,
    };
    Cost { wire_bytes: rows.saturating_mul(row_bytes), merge_rows: rows, new_rows: new }
}

/// What shipping the file costs, knowing nothing of what the two files share. The peer's own rows are merged into it.
fn file_cost(mine: &ReplicaInfo, theirs: &ReplicaInfo) -> Cost {
    let smaller = mine.file_bytes.min(theirs.file_bytes);
    let fresh = mine.file_bytes - smaller;
    Cost { wire_bytes: fresh / 2 + smaller / 4, merge_rows: theirs.max_row.0.max(0) as u64, new_rows: 0 }
}

impl Cost {
    /// Seconds over a link of [`LINK_BYTES_PER_SEC`] to a peer that merges rows at the rates below and handles a file of
    /// so many bytes, 0 for none.
    fn seconds(&self, file_bytes: u64) -> f64 {
        let file = match file_bytes {
            0 => 0.0,
            bytes => FILE_FIXED_SECS + bytes as f64 / FILE_BYTES_PER_SEC,
        };
        let known = self.merge_rows.saturating_sub(self.new_rows);
        file + self.wire_bytes as f64 / LINK_BYTES_PER_SEC
            + known as f64 / KNOWN_ROWS_PER_SEC
            + self.new_rows as f64 / NEW_ROWS_PER_SEC
    }
}

/// How a file, or what is sent instead of it, travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Blocks of the peer's file are reused.
    Delta,
    /// All of it is sent.
    Full,
    /// Not the file, after all: its rows are cheaper.
    Rows,
}

/// How to go on when the peer's file is known a little: `share_equal` is the part (0 to 1) of sampled pages that were
/// equal in both, `None` if there is nothing to compare; `after` is where rows would start.
pub fn transfer(
    mine: &ReplicaInfo,
    theirs: &ReplicaInfo,
    after: RowId,
    share_equal: Option<f64>,
) -> Transfer {
    let rows = rows_cost(mine, theirs, after);
    let mut file = file_cost(mine, theirs);
    match share_equal.filter(|share| *share >= WORTH_REUSING) {
        Some(share) => {
            let common = mine.file_bytes.min(theirs.file_bytes);
            let differing = mine.file_bytes - (common as f64 * share) as u64;
            // Little of a page that differs is new.
            file.wire_bytes = differing / 8;
            let far_fewer_bytes = file.wire_bytes < rows.wire_bytes / 4;
            match far_fewer_bytes || file.seconds(mine.file_bytes) < rows.seconds(0) {
                true => Transfer::Delta,
                false => Transfer::Rows,
            }
        }
        None => {
            file.wire_bytes = mine.file_bytes / 2;
            match file.seconds(mine.file_bytes) < rows.seconds(0) {
                true => Transfer::Full,
                false => Transfer::Rows,
            }
        }
    }
}

/// A packed and compressed row, as measured over rows like those of a photo archive.
const ROW_WIRE_BYTES: u64 = 33;
/// How many bytes of a file come to one byte of its rows, packed and compressed: 145 and 33 in such an archive.
const FILE_BYTES_PER_WIRE_BYTE: u64 = 4;
/// Rows of random names that a peer inserts in a second.
const NEW_ROWS_PER_SEC: f64 = 80_000.0;
/// Rows that a peer looks up in a second, only to find that it has them.
const KNOWN_ROWS_PER_SEC: f64 = 220_000.0;
/// A gigabit link, which is what storage nodes have at the least.
const LINK_BYTES_PER_SEC: f64 = 110e6;
/// Shipping a file stages, syncs and installs it; rows need none of that.
const FILE_FIXED_SECS: f64 = 0.5;
/// What the two ends together copy, digest, compress and sync of a file in a second.
const FILE_BYTES_PER_SEC: f64 = 150e6;
/// Replicas from so many rows on are worth a look at a few of their pages before all rows are sent.
const SAMPLE_ROWS: i64 = 50_000;
/// Below this share of equal pages, digests and signatures cost more than they save.
const WORTH_REUSING: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::Reason::*;
    use super::*;
    use crate::replica::{DbState, Metadata, PolicyIndex, ReplicaId, RowHash};
    use crate::timestamp::Stamp;

    const NONE: i64 = -1;
    const NO_CHANGE: Strategy = Strategy::Nothing(Agreement::NoChange);
    const HASH_MATCH: Strategy = Strategy::Nothing(Agreement::HashMatch);
    const PEER_AHEAD: Strategy = Strategy::Nothing(Agreement::PeerAhead);
    const ANEW: Strategy = Strategy::Rows { after: RowId::NONE, restart: true };
    const ALL: Strategy = Strategy::Rows { after: RowId::NONE, restart: false };

    fn rows(after: i64) -> Strategy {
        Strategy::Rows { after: RowId(after), restart: false }
    }

    fn replica(hash: u8, max_row: i64) -> ReplicaInfo {
        ReplicaInfo {
            id: ReplicaId::new(format!("{hash}")).unwrap(),
            account: "a".to_owned(),
            container: "c".to_owned(),
            created_at: Stamp::stored("0"),
            put_timestamp: Stamp::stored("0"),
            delete_timestamp: Stamp::stored("0"),
            status_changed_at: Stamp::stored("0"),
            storage_policy_index: PolicyIndex(0),
            count: 0,
            bytes_used: 0,
            hash: RowHash([hash; 16]),
            max_row: RowId(max_row),
            shard_max_row: RowId::NONE,
            metadata: Metadata::default(),
            db_state: DbState::Unsharded,
            sharding_initiated: false,
            sharding_required: false,
            ranges_digest: [0; 16],
            file_bytes: 100 << 20,
            page_bytes: 4096,
        }
    }

    /// What is said of rows: our last one and theirs, their point for us, our outgoing and our incoming point for them.
    struct Points(i64, i64, i64, i64, i64);

    fn chosen(equal: bool, points: Points, change: impl Fn(&mut ReplicaInfo, &mut ReplicaInfo)) -> Choice {
        let Points(mine, theirs, their_point, my_point, my_incoming) = points;
        let (mut mine, mut theirs) = (replica(1, mine), replica(if equal { 1 } else { 2 }, theirs));
        change(&mut mine, &mut theirs);
        choose(&Situation {
            mine: &mine,
            theirs: &theirs,
            their_point: RowId(their_point),
            my_point: RowId(my_point),
            my_incoming: RowId(my_incoming),
            leaving: false,
        })
    }

    #[test]
    fn every_row_of_the_table() {
        let table = [
            // The rows are equal: points only say whether that is news.
            (true, Points(10, 10, 10, NONE, NONE), NO_CHANGE, EqualRows),
            (true, Points(10, 10, NONE, 10, NONE), NO_CHANGE, EqualRows),
            (true, Points(10, 10, 9, 9, 10), HASH_MATCH, EqualRows),
            (true, Points(10, 7, 11, NONE, NONE), NO_CHANGE, EqualRows),
            (true, Points(NONE, NONE, NONE, NONE, NONE), NO_CHANGE, EqualRows),
            (true, Points(0, NONE, NONE, NONE, NONE), HASH_MATCH, EqualRows),
            // We never had a row, or none is left that was ever numbered.
            (false, Points(NONE, 5, NONE, NONE, NONE), PEER_AHEAD, PeerHasMore),
            (false, Points(0, 5, NONE, NONE, 5), PEER_AHEAD, PeerHasMore),
            (false, Points(1, 5, NONE, NONE, 5), rows(NONE), Behind),
            // The peer lacks rows: the greater of the two points says from where.
            (false, Points(10, 5, NONE, NONE, NONE), rows(NONE), Behind),
            (false, Points(10, 5, 0, NONE, NONE), rows(0), Behind),
            (false, Points(10, 5, 9, 3, NONE), rows(9), Behind),
            (false, Points(10, 5, 3, 9, 5), rows(9), Behind),
            // It has all of ours, and we lack some of its: those it sends us.
            (false, Points(10, 5, 10, NONE, 4), PEER_AHEAD, PeerHasMore),
            (false, Points(10, 5, NONE, 10, NONE), PEER_AHEAD, PeerHasMore),
            // Both are said to have everything, and do not.
            (false, Points(10, 5, 10, NONE, 5), ANEW, PointsDisagree),
            (false, Points(10, 5, NONE, 10, 6), ANEW, PointsDisagree),
            (false, Points(10, NONE, 10, NONE, NONE), ANEW, PointsDisagree),
            // A point beyond our last row is of another life of this database.
            (false, Points(10, 5, 11, NONE, NONE), ANEW, Restored),
            (false, Points(10, 5, NONE, 11, 5), ANEW, Restored),
        ];
        for (at, (equal, points, strategy, reason)) in table.into_iter().enumerate() {
            let choice = chosen(equal, points, |_, _| {});
            assert_eq!((choice.strategy, choice.reason), (strategy, reason), "row {at}");
        }
    }

    #[test]
    fn rows_of_a_container_that_is_being_sharded_stay_whatever_else_is_said() {
        for equal in [true, false] {
            let points = Points(10, 5, NONE, NONE, NONE);
            let choice = chosen(equal, points, |mine, _| mine.sharding_initiated = true);
            assert_eq!((choice.strategy, choice.reason), (Strategy::Deferred, Sharding));
        }
    }

    #[test]
    fn equal_stamps_with_other_sums_are_told_from_equal_rows() {
        let points = || Points(10, 10, 10, 10, 10);
        let tied = Strategy::Nothing(Agreement::Tied);
        for change in [|info: &mut ReplicaInfo| info.count = 1, |info: &mut ReplicaInfo| info.bytes_used = 1]
        {
            assert_eq!(chosen(true, points(), |mine, _| change(mine)).strategy, tied);
            assert_eq!(chosen(true, points(), |_, theirs| change(theirs)).strategy, tied);
        }
        // Counted in another policy the sums say nothing.
        let other_policy = |mine: &mut ReplicaInfo, _: &mut ReplicaInfo| {
            mine.count = 1;
            mine.storage_policy_index = PolicyIndex(1);
        };
        assert_eq!(chosen(true, points(), other_policy).strategy, NO_CHANGE);
    }

    #[test]
    fn who_leaves_believes_no_point() {
        let (mine, theirs) = (replica(1, 10), replica(2, 5));
        let leaving = |theirs: &ReplicaInfo, point: i64| {
            let (point, none) = (RowId(point), RowId::NONE);
            choose(&Situation {
                mine: &mine,
                theirs,
                their_point: point,
                my_point: point,
                my_incoming: none,
                leaving: true,
            })
        };
        for point in [NONE, 9, 10, 11] {
            assert_eq!((leaving(&theirs, point).strategy, leaving(&theirs, point).reason), (ALL, Leaving));
        }
        assert_eq!(leaving(&replica(1, 10), NONE).strategy, HASH_MATCH);
        // Not even equal hashes, if the sums differ.
        let tied = ReplicaInfo { count: 1, ..replica(1, 10) };
        assert_eq!((leaving(&tied, 10).strategy, leaving(&tied, 10).reason), (ALL, Leaving));
    }

    /// A file of 100 MiB with rows of 100 bytes, of which the peer has next to none or all: the file costs about two
    /// seconds, as long as some 140 thousand rows.
    #[test]
    fn the_file_goes_where_it_costs_less_than_the_rows() {
        let far = |missing: i64, their_bytes: u64| {
            let points = Points(1_000_000, 5, 1_000_000 - missing, NONE, NONE);
            chosen(false, points, |_, theirs| theirs.file_bytes = their_bytes)
        };
        for their_bytes in [0, 100 << 20] {
            let file = far(300_000, their_bytes);
            let instead = Strategy::File { instead_of: RowId(700_000) };
            assert_eq!((file.strategy, file.reason), (instead, FarBehind));
            assert_eq!(far(50_000, their_bytes).strategy, rows(950_000));
            // The boundary itself, wherever the prices put it: one row less, and rows are cheaper.
            let by_file =
                |missing: &i64| matches!(far(*missing, their_bytes).strategy, Strategy::File { .. });
            let first = (50_000..300_000).find(by_file).unwrap();
            let (file, rows) = (far(first, their_bytes).cost, far(first - 1, their_bytes).cost);
            assert!(rows.seconds(0) <= file.seconds(100 << 20));
            assert!((first..first + 1000).all(|missing| by_file(&missing)));
            assert_eq!((rows.merge_rows, file.merge_rows), (first as u64 - 1, 5));
        }
        // More of the peer's file to start from makes it cheaper.
        assert!(far(300_000, 100 << 20).cost.wire_bytes < far(300_000, 0).cost.wire_bytes);
    }

    #[test]
    fn large_replicas_without_a_common_point_are_looked_at_before_all_rows_go() {
        let strategy =
            |mine, theirs| chosen(false, Points(mine, theirs, NONE, NONE, NONE), |_, _| {}).strategy;
        let looked_at = Strategy::File { instead_of: RowId::NONE };
        assert_eq!(strategy(SAMPLE_ROWS, SAMPLE_ROWS), looked_at);
        assert_eq!(strategy(SAMPLE_ROWS - 1, SAMPLE_ROWS), ALL);
        assert_eq!(strategy(SAMPLE_ROWS, SAMPLE_ROWS - 1), ALL);
    }

    #[test]
    fn a_peer_that_is_being_sharded_gets_rows_however_many() {
        let points = Points(10_000_000, 5, NONE, NONE, NONE);
        let choice = chosen(false, points, |_, theirs| theirs.sharding_initiated = true);
        assert_eq!((choice.strategy, choice.reason), (ALL, Behind));
    }

    #[test]
    fn the_file_keeps_the_reason_for_which_everything_must_go() {
        let reason = |theirs, point, incoming| {
            let choice = chosen(false, Points(1_000_000, theirs, point, NONE, incoming), |_, _| {});
            assert!(matches!(choice.strategy, Strategy::File { .. }));
            choice.reason
        };
        assert_eq!(reason(5, 1_000_000, 5), PointsDisagree);
        assert_eq!(reason(5, 1_000_001, 5), Restored);
        assert_eq!(reason(5, NONE, 5), FarBehind);
    }

    #[test]
    fn rows_are_counted_from_the_first_even_for_points_out_of_this_world() {
        for point in [i64::MIN, -1000, NONE, 0] {
            let choice = chosen(false, Points(10, 5, point, i64::MIN, NONE), |_, _| {});
            assert_eq!((choice.strategy, choice.cost.merge_rows), (rows(point), 10));
        }
        let choice = chosen(false, Points(i64::MAX, 5, NONE, NONE, NONE), |_, _| {});
        assert_eq!(choice.strategy, Strategy::File { instead_of: RowId::NONE });
    }

    #[test]
    fn what_the_sample_shows_decides_how_everything_travels() {
        let sized = |max_row: i64, file_bytes: u64| ReplicaInfo { file_bytes, ..replica(1, max_row) };
        let (large, small) = (sized(1_000_000, 145_000_000), sized(100, 53_248));
        let table = [
            // Much is equal: blocks of the peer's file save what little of them changed.
            (&large, &large, Some(1.0), Transfer::Delta),
            (&large, &large, Some(0.6), Transfer::Delta),
            // Next to nothing is, and the peer has as many rows: it knows most of them.
            (&large, &large, Some(0.0499), Transfer::Rows),
            (&large, &large, Some(f64::NAN), Transfer::Rows),
            (&large, &large, None, Transfer::Rows),
            // The peer has next to no rows: inserting them all would take longer than taking the file.
            (&large, &small, None, Transfer::Full),
            (&large, &small, Some(0.0), Transfer::Full),
            // A small file is not worth the trouble of installing it.
            (&small, &large, None, Transfer::Rows),
        ];
        for (at, (mine, theirs, share, expected)) in table.into_iter().enumerate() {
            assert_eq!(transfer(mine, theirs, RowId::NONE, share), expected, "row {at}");
        }
    }

    #[test]
    fn every_reason_completes_a_sentence() {
        let reasons = [
            EqualRows,
            EqualStamps,
            PeerHasMore,
            Behind,
            FarBehind,
            PointsDisagree,
            Restored,
            Leaving,
            Sharding,
        ];
        let clauses: std::collections::BTreeSet<&str> =
            reasons.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(clauses.len(), reasons.len());
        assert!(clauses.iter().all(|clause| !clause.ends_with('.') && !clause.is_empty()));
    }
}
