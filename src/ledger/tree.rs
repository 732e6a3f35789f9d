//! The sums that two agents compare, span by span: from the partitions' sums above, from the entries below.

use std::ops::ControlFlow;

use super::file::Fault;
use super::rows::{Rows, enough};
use super::store::Ledger;
use super::{Key, LEAVES_LIMIT, LedgerError, PartitionSet, SetDigest, Span, StateDigest};

impl Ledger {
    /// The sum over a span, as far as it lies in these partitions.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn sum(&self, shared: &PartitionSet, span: Span) -> Result<SetDigest, LedgerError> {
        self.file.look(|rows| {
            let mut sum = SetDigest::EMPTY;
            let whole = span.is_of_partitions(rows.shift);
            each_sum(rows, shared, span, whole, |_, one| sum += one)?;
            Ok(sum)
        })
    }

    /// The sums over the branches of a span, in order, empty ones included; none of a single key.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn branches(&self, shared: &PartitionSet, span: Span) -> Result<Vec<(Span, SetDigest)>, LedgerError> {
        let branches = span.branches();
        let Some(branch) = branches.first() else { return Ok(vec![]) };
        self.file.look(|rows| {
            let mut sums: Vec<_> = branches.iter().map(|branch| (*branch, SetDigest::EMPTY)).collect();
            let whole = branch.is_of_partitions(rows.shift);
            each_sum(rows, shared, span, whole, |first, one| sums[span.branch_of(first)].1 += one)?;
            Ok(sums)
        })
    }

    /// Every database of a span and its state, in order, if there are no more than [`LEAVES_LIMIT`].
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn leaves(
        &self,
        shared: &PartitionSet,
        span: Span,
    ) -> Result<Option<Vec<(Key, StateDigest)>>, LedgerError> {
        self.file.look(|rows| {
            // The partitions tell where there is anything to read: at most as many as there may be leaves.
            let (first, last) = rows.partitions_of(span);
            let mut partitions = Vec::new();
            rows.each_part(first, last, |partition, _| {
                if shared.contains(partition) {
                    partitions.push(partition);
                }
                enough(partitions.len() > LEAVES_LIMIT)
            })?;
            if partitions.len() > LEAVES_LIMIT {
                return Ok(None);
            }
            let mut leaves = Vec::new();
            for partition in partitions {
                let first = span.first().max(Key::first_of(partition, rows.shift));
                let last = span.last().min(Key::last_of(partition, rows.shift));
                rows.each_entry(first, last, |key, entry| {
                    leaves.push((key, entry.state));
                    enough(leaves.len() > LEAVES_LIMIT)
                })?;
                if leaves.len() > LEAVES_LIMIT {
                    return Ok(None);
                }
            }
            Ok(Some(leaves))
        })
    }
}

/// What the sum over a span is made of, each with its first key: partitions, or single entries if a whole partition may
/// be too much.
fn each_sum(
    rows: &Rows<'_>,
    shared: &PartitionSet,
    span: Span,
    whole: bool,
    mut visit: impl FnMut(Key, SetDigest),
) -> Result<(), Fault> {
    let (first, last) = rows.partitions_of(span);
    if whole {
        return rows.each_part(first, last, |partition, part| {
            if shared.contains(partition) {
                visit(Key::first_of(partition, rows.shift), part.sum);
            }
            ControlFlow::Continue(())
        });
    }
    // A span with less than a partition in a branch has few partitions.
    for partition in shared.within(first, last) {
        let first = span.first().max(Key::first_of(partition, rows.shift));
        let last = span.last().min(Key::last_of(partition, rows.shift));
        rows.each_entry(first, last, |key, entry| {
            visit(key, SetDigest::of(key, entry.state));
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}
