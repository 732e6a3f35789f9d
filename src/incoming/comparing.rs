//! One comparison, from the answering side: our device meets a peer's, of which it knows nothing but sums.

use std::sync::Arc;

use log::warn;

use super::trouble::refuse_drive;
use super::visit::device_of;
use crate::drive::Drive;
use crate::ledger::{
    Key, Ledger, LedgerError, PartitionSet, SetDigest, ShortDigest, Span, StateDigest, Sums,
};
use crate::node::Node;
use crate::protocol::message::{Compare, Message, Opened, Refusal};
use crate::ring::{DeviceId, Ring};
use crate::survey;

/// One comparison in progress.
pub struct Comparing<L: Sums> {
    ledger: Arc<L>,
    shared: PartitionSet,
    asker: DeviceId,
    /// For each span told last, what was told: if the asker has the same, we remember that it agreed.
    told: Vec<Telling>,
}

/// What was told of one span, in full.
enum Telling {
    Branches(Vec<(Span, SetDigest)>),
    Leaves(Vec<(Key, StateDigest)>),
}

impl Comparing<Ledger> {
    /// Looks up what an asker wants to compare, brings the ledger up to date, and says what there is to tell first:
    /// nothing if all is alike.
    pub fn begin(node: &Node, compare: &Compare) -> Result<(Comparing<Ledger>, Vec<Opened>), Refusal> {
        let ring = node.ring();
        let ours = device_of(node, &ring, &compare.device)?.id;
        if ring.part_shift() != compare.part_shift {
            return Err(Refusal::WrongPartition);
        }
        let drive = node.drive(&compare.device).map_err(refuse_drive)?;
        let neighbours = node.neighbours(&ring, ours);
        let ledger = ledger_for_answering(node, &ring, drive, neighbours.own())?;
        // By another ring than the asker's this may be less, or nothing: then more of its databases are met singly.
        let shared = neighbours.shared_with(compare.asker).cloned().unwrap_or_default();
        let mut comparing = Comparing::new(ledger, shared, compare.asker);
        let sums = comparing.start(compare.sum)?;
        Ok((comparing, sums))
    }
}

impl<L: Sums> Comparing<L> {
    /// Of our databases in the partitions shared with an asker.
    pub fn new(ledger: Arc<L>, shared: PartitionSet, asker: DeviceId) -> Comparing<L> {
        Comparing { ledger, shared, asker, told: vec![] }
    }

    /// Given the sum of all that the asker has, says what there is to tell first: nothing if all is alike.
    ///
    /// # Errors
    /// [`Refusal::NoLedger`] if ours cannot be used after all.
    pub fn start(&mut self, theirs: ShortDigest) -> Result<Vec<Opened>, Refusal> {
        self.told_if_alike(theirs).map_err(without_ledger)
    }

    /// Remembers what is alike of what was told last, and tells more.
    ///
    /// # Errors
    /// [`Refusal::NoLedger`] if ours cannot be used after all.
    pub fn open(&mut self, spans: &[Span], alike: &[u16]) -> Result<Vec<Opened>, Refusal> {
        self.remember(alike).and_then(|()| self.tell(spans)).map_err(without_ledger)
    }

    fn told_if_alike(&mut self, theirs: ShortDigest) -> Result<Vec<Opened>, LedgerError> {
        let ours = self.ledger.sum(&self.shared, Span::ALL)?;
        if ours.short() != theirs {
            return self.tell(&[Span::ALL]);
        }
        self.ledger.agree(self.asker, &self.shared, &[(Span::ALL, ours)])?;
        Ok(vec![])
    }

    fn remember(&mut self, alike: &[u16]) -> Result<(), LedgerError> {
        let (mut spans, mut databases) = (Vec::new(), Vec::new());
        for (telling, alike) in self.told.drain(..).zip(alike) {
            let is_alike = |nth: usize| alike & (1 << nth) != 0;
            match telling {
                Telling::Branches(sums) => {
                    let sums = sums.into_iter().enumerate();
                    let equal = sums.filter(|(nth, (_, sum))| is_alike(*nth) && *sum != SetDigest::EMPTY);
                    spans.extend(equal.map(|(_, told)| told));
                }
                Telling::Leaves(leaves) => {
                    let equal = leaves.into_iter().enumerate().filter(|(nth, _)| is_alike(*nth));
                    databases.extend(equal.map(|(_, told)| told));
                }
            }
        }
        self.ledger.agree(self.asker, &self.shared, &spans)?;
        self.ledger.agree_singly(self.asker, &databases)
    }

    fn tell(&mut self, spans: &[Span]) -> Result<Vec<Opened>, LedgerError> {
        self.told = spans
            .iter()
            .map(|span| match self.ledger.leaves(&self.shared, *span)? {
                Some(leaves) => Ok(Telling::Leaves(leaves)),
                None => self.ledger.branches(&self.shared, *span).map(Telling::Branches),
            })
            .collect::<Result<_, LedgerError>>()?;
        Ok(self.told.iter().map(Telling::short).collect())
    }
}

impl<L: Sums> Drop for Comparing<L> {
    fn drop(&mut self) {
        self.ledger.rest();
    }
}

impl Telling {
    /// As it is told.
    fn short(&self) -> Opened {
        match self {
            Telling::Branches(sums) => Opened::Branches(std::array::from_fn(|nth| sums[nth].1.short())),
            Telling::Leaves(leaves) => {
                Opened::Leaves(leaves.iter().map(|(key, state)| (*key, state.short())).collect())
            }
        }
    }
}

/// How sums are said: if there are none to tell, all is alike.
pub fn message_of(sums: Vec<Opened>) -> Message {
    if sums.is_empty() { Message::Alike } else { Message::Sums(sums) }
}

/// The ledger of a drive of ours, brought up to date.
fn ledger_for_answering(
    node: &Node,
    ring: &Ring,
    drive: Drive,
    mine: &PartitionSet,
) -> Result<Arc<Ledger>, Refusal> {
    let ledger = node.ledger(&drive, ring).ok_or(Refusal::NoLedger)?;
    match survey::refresh(&node.config, &Arc::new(drive), &ledger, mine, &node.stop) {
        Ok(true) => Ok(ledger),
        Ok(false) => Err(Refusal::Busy),
        Err(error) => Err(without_ledger(error)),
    }
}

fn without_ledger(error: LedgerError) -> Refusal {
    warn!("{error}");
    Refusal::NoLedger
}
