//! The sums that two agents compare, span by span: from the partitions' sums above, from the entries below.

use super::store::Ledger;
use super::{Key, LedgerError, PartitionSet, SetDigest, Span, StateDigest};

impl Ledger {
    /// The sum over a span, as far as it lies in these partitions.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn sum(&self, _shared: &PartitionSet, _span: Span) -> Result<SetDigest, LedgerError> {
        todo!()
    }

    /// The sums over the branches of a span, in order; none of a single key.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn branches(
        &self,
        _shared: &PartitionSet,
        _span: Span,
    ) -> Result<Vec<(Span, SetDigest)>, LedgerError> {
        todo!()
    }

    /// Every database of a span and its state, in order, if there are no more than [`super::LEAVES_LIMIT`].
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn leaves(
        &self,
        _shared: &PartitionSet,
        _span: Span,
    ) -> Result<Option<Vec<(Key, StateDigest)>>, LedgerError> {
        todo!()
    }
}
