//! What two agents that compare a device ask of their ledgers, and of anything that stands in for one.

use super::{Key, Ledger, LedgerError, PartitionSet, SetDigest, Span, StateDigest};
use crate::ring::DeviceId;

/// Sums over databases, and a memory of what was found equal. See the methods of [`Ledger`] that have the same names.
pub trait Sums: Send + Sync {
    /// The sum over a span, as far as it lies in these partitions.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn sum(&self, shared: &PartitionSet, span: Span) -> Result<SetDigest, LedgerError>;

    /// The sums over the branches of a span, in order.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn branches(&self, shared: &PartitionSet, span: Span) -> Result<Vec<(Span, SetDigest)>, LedgerError>;

    /// Every database of a span and its state, in order, if there are no more than [`super::LEAVES_LIMIT`].
    ///
    /// # Errors
    /// [`LedgerError`].
    fn leaves(
        &self,
        shared: &PartitionSet,
        span: Span,
    ) -> Result<Option<Vec<(Key, StateDigest)>>, LedgerError>;

    /// Remembers that spans agreed with a device, those that still have the sum given; says of each whether it has.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn agree(
        &self,
        with: DeviceId,
        shared: &PartitionSet,
        which: &[(Span, SetDigest)],
    ) -> Result<Vec<bool>, LedgerError>;

    /// Remembers that databases agreed with a device, those that are still in the state given.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn agree_singly(&self, with: DeviceId, which: &[(Key, StateDigest)]) -> Result<(), LedgerError>;

    /// Remembers that databases differ from what a device has.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn disagree(&self, with: DeviceId, which: &[Key]) -> Result<(), LedgerError>;

    /// Remembers that a device has none of the databases of a span.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn disagree_span(&self, with: DeviceId, shared: &PartitionSet, span: Span) -> Result<(), LedgerError>;

    /// Holds nothing open until it is asked again.
    fn rest(&self) {}
}

impl Sums for Ledger {
    fn sum(&self, shared: &PartitionSet, span: Span) -> Result<SetDigest, LedgerError> {
        self.sum(shared, span)
    }

    fn branches(&self, shared: &PartitionSet, span: Span) -> Result<Vec<(Span, SetDigest)>, LedgerError> {
        self.branches(shared, span)
    }

    fn leaves(
        &self,
        shared: &PartitionSet,
        span: Span,
    ) -> Result<Option<Vec<(Key, StateDigest)>>, LedgerError> {
        self.leaves(shared, span)
    }

    fn agree(
        &self,
        with: DeviceId,
        shared: &PartitionSet,
        which: &[(Span, SetDigest)],
    ) -> Result<Vec<bool>, LedgerError> {
        which.iter().map(|(span, expected)| self.agree(with, shared, *span, *expected)).collect()
    }

    fn agree_singly(&self, with: DeviceId, which: &[(Key, StateDigest)]) -> Result<(), LedgerError> {
        self.agree_singly(with, which)
    }

    fn disagree(&self, with: DeviceId, which: &[Key]) -> Result<(), LedgerError> {
        self.disagree(with, which)
    }

    fn disagree_span(&self, with: DeviceId, shared: &PartitionSet, span: Span) -> Result<(), LedgerError> {
        self.disagree_span(with, shared, span)
    }

    fn rest(&self) {
        self.rest();
    }
}
