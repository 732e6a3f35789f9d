//! Learn which of our databases a peer's device does not have as we have them; both ledgers remember what is equal.

use std::fmt;

use crate::drive::DeviceName;
use crate::hash_path::PartShift;
use crate::ledger::{Key, LedgerError, PartitionSet, SetDigest, ShortDigest, Span, StateDigest, Sums};
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::Violation;
use crate::protocol::comparison::{Action, Comparison, Weighed};
use crate::protocol::message::{self, Opened, Refusal};
use crate::ring::DeviceId;

/// Two devices and what they share.
#[derive(Debug, Clone)]
pub struct Pair<'a> {
    /// Ours.
    pub ours: DeviceId,
    /// The peer's.
    pub theirs: DeviceId,
    /// The name of the peer's.
    pub device: DeviceName,
    /// By our ring.
    pub part_shift: PartShift,
    /// The partitions that both hold, by our ring.
    pub shared: &'a PartitionSet,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// Our ledger knows now.
    Told {
        /// Databases of ours that the peer has as we have them.
        alike: u64,
        /// The others: not there, or there in another state.
        differing: u64,
    },
    /// The peer would not. What was found equal by then is remembered.
    Refused(Refusal),
}

/// Why a comparison failed. What was found equal by then is remembered.
#[derive(Debug)]
pub enum CompareError {
    /// The peer or the way to it; the connection is of no use any more.
    Peer(PeerError),
    /// Our ledger; the connection is of no use any more.
    Ledger(LedgerError),
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompareError::Peer(error) => error.fmt(f),
            CompareError::Ledger(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompareError {}

impl From<PeerError> for CompareError {
    fn from(error: PeerError) -> CompareError {
        CompareError::Peer(error)
    }
}

impl From<Violation> for CompareError {
    fn from(violation: Violation) -> CompareError {
        CompareError::Peer(violation.into())
    }
}

impl From<LedgerError> for CompareError {
    fn from(error: LedgerError) -> CompareError {
        CompareError::Ledger(error)
    }
}

/// Compares what our ledger says of a device with what a peer's says of another.
///
/// # Errors
/// [`CompareError`].
pub fn compare<S: Stream>(
    peer: &mut Peer<S>,
    ledger: &impl Sums,
    pair: &Pair<'_>,
) -> Result<Compared, CompareError> {
    let mut scales = Scales { ledger, pair, alike: 0, differing: 0 };
    let all = peer.while_working(|| ledger.sum(pair.shared, Span::ALL))??;
    let (mut comparison, mut action) = Comparison::start(message::Compare {
        device: pair.device.clone(),
        asker: pair.ours,
        part_shift: pair.part_shift,
        sum: all.short(),
    });
    loop {
        match action {
            Action::Say(message) => peer.say(&message)?,
            Action::Weigh(told) => {
                let weighed = peer.while_working(|| scales.weigh_all(&told))??;
                let (next, message) = comparison.weighed(&weighed);
                comparison = next;
                peer.say(&message)?;
            }
            Action::Agree => {
                peer.while_working(|| ledger.agree(pair.theirs, pair.shared, &[(Span::ALL, all)]))??;
                return Ok(Compared::Told { alike: all.count(), differing: 0 });
            }
            Action::Wait => {}
            Action::Finish => {
                return Ok(Compared::Told { alike: scales.alike, differing: scales.differing });
            }
            Action::Refused(refusal) => return Ok(Compared::Refused(refusal)),
        }
        (comparison, action) = comparison.hear(peer.hear()?)?;
    }
}

/// What is to be done about a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Both have the same.
    Alike,
    /// We have nothing there that the peer could lack.
    NotOurs,
    /// The peer has nothing there.
    NotTheirs,
    /// Look closer.
    Open,
}

impl Verdict {
    fn on(ours: SetDigest, theirs: ShortDigest) -> Verdict {
        if ours.short() == theirs {
            Verdict::Alike
        } else if ours == SetDigest::EMPTY {
            Verdict::NotOurs
        } else if theirs == ShortDigest::EMPTY {
            Verdict::NotTheirs
        } else {
            Verdict::Open
        }
    }
}

/// Weighs what a peer tells against our own, remembers, and counts.
struct Scales<'a, L> {
    ledger: &'a L,
    pair: &'a Pair<'a>,
    alike: u64,
    differing: u64,
}

impl<L: Sums> Scales<'_, L> {
    fn weigh_all(&mut self, told: &[(Span, Opened)]) -> Result<Vec<Weighed>, LedgerError> {
        told.iter()
            .map(|(span, theirs)| match theirs {
                Opened::Branches(sums) => self.weigh_branches(*span, sums),
                Opened::Leaves(leaves) => {
                    let mut weighed = Weighed::default();
                    self.weigh_leaves(*span, leaves, 0, &mut weighed)?;
                    Ok(weighed)
                }
            })
            .collect()
    }

    fn weigh_branches(&mut self, span: Span, theirs: &[ShortDigest]) -> Result<Weighed, LedgerError> {
        let mut weighed = Weighed::default();
        let mut equal = Vec::new();
        let shared = self.pair.shared;
        for (nth, ((branch, ours), theirs)) in
            self.ledger.branches(shared, span)?.into_iter().zip(theirs).enumerate()
        {
            match Verdict::on(ours, *theirs) {
                Verdict::Alike if ours == SetDigest::EMPTY => weighed.alike |= 1 << nth,
                Verdict::Alike => equal.push((nth, (branch, ours))),
                Verdict::NotOurs => {}
                Verdict::NotTheirs => {
                    self.ledger.disagree_span(self.pair.theirs, shared, branch)?;
                    self.differing += ours.count();
                }
                Verdict::Open => weighed.open |= 1 << nth,
            }
        }
        let (places, sums): (Vec<usize>, Vec<(Span, SetDigest)>) = equal.into_iter().unzip();
        let still = self.ledger.agree(self.pair.theirs, shared, &sums)?;
        for ((nth, (_, ours)), still) in places.into_iter().zip(sums).zip(still) {
            // What changed since it was summed up is looked at once more, from closer.
            if still {
                weighed.alike |= 1 << nth;
                self.alike += ours.count();
            } else {
                weighed.open |= 1 << nth;
            }
        }
        Ok(weighed)
    }

    /// Of a span of which the peer tells each database, the first of these being its `before`th. Where we have more of
    /// them than can be told so, most are not there: that is seen branch by branch.
    fn weigh_leaves(
        &mut self,
        span: Span,
        theirs: &[(Key, ShortDigest)],
        before: usize,
        weighed: &mut Weighed,
    ) -> Result<(), LedgerError> {
        let Some(ours) = self.ledger.leaves(self.pair.shared, span)? else {
            for (branch, sum) in self.ledger.branches(self.pair.shared, span)? {
                let from = theirs.partition_point(|(key, _)| *key < branch.first());
                let to = theirs.partition_point(|(key, _)| *key <= branch.last());
                if sum == SetDigest::EMPTY {
                    continue;
                }
                if from < to {
                    self.weigh_leaves(branch, &theirs[from..to], before + from, weighed)?;
                } else {
                    self.ledger.disagree_span(self.pair.theirs, self.pair.shared, branch)?;
                    self.differing += sum.count();
                }
            }
            return Ok(());
        };
        let (mut equal, mut other) = (Vec::<(Key, StateDigest)>::new(), Vec::<Key>::new());
        for (key, state) in ours {
            match theirs.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(nth) if theirs[nth].1 == state.short() => {
                    weighed.alike |= 1 << (before + nth);
                    equal.push((key, state));
                }
                _ => other.push(key),
            }
        }
        self.ledger.agree_singly(self.pair.theirs, &equal)?;
        self.ledger.disagree(self.pair.theirs, &other)?;
        self.alike += equal.len() as u64;
        self.differing += other.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
