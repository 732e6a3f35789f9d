//! What was settled with each peer: remembered, taken back, and what is left to settle.

use std::ops::ControlFlow;

use super::file::Fault;
use super::part::Part;
use super::rows::{Changes, Rows, after, enough};
use super::store::Ledger;
use super::{Entry, Key, LedgerError, PAGE_ENTRIES, PartitionSet, SetDigest, Span, StateDigest};
use crate::hash_path::Partition;
use crate::ring::DeviceId;

impl Ledger {
    /// Remembers that all databases of a span, of the partitions shared with a device, agreed with it, if their sum is still
    /// `expected`: entries may have changed since it was compared. Says whether it was. If all of it was known, nothing
    /// is written, and of a span of whole partitions no entry is read.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn agree(
        &self,
        with: DeviceId,
        shared: &PartitionSet,
        span: Span,
        expected: SetDigest,
    ) -> Result<bool, LedgerError> {
        if !span.is_of_partitions(self.terms().part_shift) {
            return self.agree_within(with, shared, span, expected);
        }
        // In several transactions, so that others come in between: when the whole has the sum that was compared, so has
        // each of its parts, and a part that changes afterwards is passed by.
        let mut next = Some(span.first().partition(self.terms().part_shift));
        loop {
            let (sum, lacking) = self.file.look(|rows| lacking(rows, with, shared, span, next))?;
            let Some((last, _)) = lacking.last().filter(|_| sum == expected) else {
                return Ok(sum == expected);
            };
            next = last.0.checked_add(1).map(Partition);
            self.file.change(|rows| {
                lacking.iter().try_for_each(|(partition, sum)| agree_partition(rows, with, *partition, *sum))
            })?;
        }
    }

    fn agree_within(
        &self,
        with: DeviceId,
        shared: &PartitionSet,
        span: Span,
        expected: SetDigest,
    ) -> Result<bool, LedgerError> {
        let partition = span.first().partition(self.terms().part_shift);
        if !shared.contains(partition) {
            return Ok(expected == SetDigest::EMPTY);
        }
        let (sum, known) = self.file.look(|rows| {
            let (mut sum, mut known) = (SetDigest::EMPTY, true);
            rows.each_entry(span.first(), span.last(), |key, entry| {
                sum.add(key, entry.state);
                known &= was_agreed(&entry, with);
                ControlFlow::Continue(())
            })?;
            Ok((sum, known))
        })?;
        if sum != expected || known {
            return Ok(sum == expected);
        }
        self.file.change(|rows| {
            let mut sum = SetDigest::EMPTY;
            rows.each_entry(span.first(), span.last(), |key, entry| {
                sum.add(key, entry.state);
                ControlFlow::Continue(())
            })?;
            if sum != expected {
                return Ok(false);
            }
            let mut changes = Changes::new(rows);
            each_paged(rows, span.first(), span.last(), |key, entry| {
                if was_agreed(&entry, with) {
                    return Ok(());
                }
                let mut agreed = entry.clone();
                agreed.agree(with);
                changes.put(key, Some(&entry), Some(&agreed))
            })?;
            changes.finish()?;
            Ok(true)
        })
    }

    /// Remembers that these databases agreed with a device, those that are still in the state given.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn agree_singly(&self, with: DeviceId, which: &[(Key, StateDigest)]) -> Result<(), LedgerError> {
        if which.is_empty() {
            return Ok(());
        }
        self.file.change(|rows| {
            let mut changes = Changes::new(rows);
            for (key, state) in which {
                let Some(entry) = rows.entry(*key)? else { continue };
                let is_known = was_agreed(&entry, with)
                    && entry.agreement(with).is_some_and(|agreement| agreement.row == entry.max_row);
                if entry.state == *state && !is_known {
                    let mut agreed = entry.clone();
                    agreed.agree(with);
                    changes.put(*key, Some(&entry), Some(&agreed))?;
                }
            }
            changes.finish()
        })
    }

    /// Remembers that these databases differ from what a device has.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn disagree(&self, with: DeviceId, which: &[Key]) -> Result<(), LedgerError> {
        if which.is_empty() {
            return Ok(());
        }
        self.file.change(|rows| {
            let mut changes = Changes::new(rows);
            for key in which {
                if let Some(entry) = rows.entry(*key)? {
                    differ(&mut changes, with, *key, &entry)?;
                }
            }
            changes.finish()
        })
    }

    /// Remembers that the device has none of the databases of a span, of the partitions shared with it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn disagree_span(
        &self,
        with: DeviceId,
        shared: &PartitionSet,
        span: Span,
    ) -> Result<(), LedgerError> {
        let mut first = Some(span.first());
        while let Some(from) = first {
            first = self.file.change(|rows| {
                let page = rows.page(from, span.last(), PAGE_ENTRIES)?;
                let mut changes = Changes::new(rows);
                for (key, entry) in &page {
                    if shared.contains(key.partition(rows.shift)) {
                        differ(&mut changes, with, *key, entry)?;
                    }
                }
                changes.finish()?;
                Ok(next_page(&page, span.last()))
            })?;
        }
        Ok(())
    }

    /// The first entries after a key ([`PAGE_ENTRIES`] at most) that, as far as we know, some peer does not agree
    /// with: one of the devices that `peers` names for the partition. Partitions that agree as a whole are passed over
    /// unread. After a page with fewer there are no more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn unsettled(
        &self,
        after: Option<Key>,
        peers: &dyn Fn(Partition) -> Vec<DeviceId>,
    ) -> Result<Vec<(Key, Entry)>, LedgerError> {
        let shift = self.terms().part_shift;
        let mut found = Vec::new();
        let mut next = after.map_or(Some(Key(0)), self::after);
        while let Some(first) = next {
            let parts = self.file.look(|rows| {
                let mut parts = Vec::new();
                rows.each_part(first.partition(shift), Partition(u32::MAX), |partition, part| {
                    parts.push((partition, part));
                    enough(parts.len() == PARTS_AT_ONCE)
                })?;
                Ok(parts)
            })?;
            for (partition, part) in &parts {
                let peers = peers(*partition);
                if peers.iter().all(|peer| part.agrees_with(*peer)) {
                    continue;
                }
                let last = Key::last_of(*partition, shift);
                let mut from = Some(first.max(Key::first_of(*partition, shift)));
                while let Some(first) = from {
                    let page = self.entries(first, last)?;
                    from = next_page(&page, last);
                    found.extend(
                        page.into_iter()
                            .filter(|(_, entry)| !peers.iter().all(|peer| entry.agrees_with(*peer))),
                    );
                    if found.len() >= PAGE_ENTRIES {
                        found.truncate(PAGE_ENTRIES);
                        return Ok(found);
                    }
                }
            }
            let done = parts.last().filter(|_| parts.len() == PARTS_AT_ONCE);
            next = done.and_then(|(partition, _)| self::after(Key::last_of(*partition, shift)));
        }
        Ok(found)
    }
}

/// The sum over a span of whole partitions; and the first of them from one on that do not agree as a whole with a
/// device, with their sums.
fn lacking(
    rows: &Rows<'_>,
    with: DeviceId,
    shared: &PartitionSet,
    span: Span,
    from: Option<Partition>,
) -> Result<(SetDigest, Vec<(Partition, SetDigest)>), Fault> {
    let (first, last) = rows.partitions_of(span);
    let (mut sum, mut lacking, mut entries) = (SetDigest::EMPTY, Vec::new(), 0);
    rows.each_part(first, last, |partition, part| {
        if shared.contains(partition) {
            sum += part.sum;
            let is_next = from.is_some_and(|from| from <= partition) && !part.agrees_with(with);
            if is_next && lacking.len() < SETTLED_AT_ONCE && entries < ENTRIES_AT_ONCE {
                lacking.push((partition, part.sum));
                entries = part.sum.count().saturating_add(entries);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok((sum, lacking))
}

/// All of a partition agreed with a device when its sum was this; nothing follows if it has another by now. As every
/// entry is read, the sums are made anew from them: a wrong one is found, and a wrong agreement goes.
fn agree_partition(
    rows: &Rows<'_>,
    with: DeviceId,
    partition: Partition,
    sum: SetDigest,
) -> Result<(), Fault> {
    let old = rows.part(partition)?;
    if old.sum != sum {
        return Ok(());
    }
    let mut part = Part::default();
    let (first, last) = (Key::first_of(partition, rows.shift), Key::last_of(partition, rows.shift));
    each_paged(rows, first, last, |key, mut entry| {
        if !was_agreed(&entry, with) {
            entry.agree(with);
            rows.put_entry(key, Some(&entry))?;
        }
        part.put(key, None, Some(&entry));
        Ok(())
    })?;
    if part.sum != sum {
        return Err(Fault::Unsound(partition));
    }
    if old == part { Ok(()) } else { rows.put_part(partition, &part) }
}

/// There is nothing to remember. Not the same as [`Entry::agrees_with`]: a database that is to be introduced to its peers
/// agrees with none until it is.
fn was_agreed(entry: &Entry, with: DeviceId) -> bool {
    entry.agreement(with).is_some_and(|agreement| agreement.holds && agreement.state == entry.state.short())
}

fn differ(changes: &mut Changes<'_>, with: DeviceId, key: Key, entry: &Entry) -> Result<(), Fault> {
    let mut differs = entry.clone();
    differs.disagree(with);
    changes.put(key, Some(entry), Some(&differs))
}

/// Entries that the visitor may change: each page is read before any of it is visited.
fn each_paged(
    rows: &Rows<'_>,
    first: Key,
    last: Key,
    mut visit: impl FnMut(Key, Entry) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut next = Some(first);
    while let Some(first) = next {
        let page = rows.page(first, last, PAGE_ENTRIES)?;
        next = next_page(&page, last);
        page.into_iter().try_for_each(|(key, entry)| visit(key, entry))?;
    }
    Ok(())
}

/// Where the page after this one begins, if this one is full.
fn next_page(page: &[(Key, Entry)], last: Key) -> Option<Key> {
    let (key, _) = page.last().filter(|_| page.len() == PAGE_ENTRIES)?;
    after(*key).filter(|next| *next <= last)
}

/// Partitions read in one transaction.
const PARTS_AT_ONCE: usize = 1024;
/// Partitions settled in one transaction.
const SETTLED_AT_ONCE: usize = 8192;
/// One that settles partitions takes no more when it has so many entries.
const ENTRIES_AT_ONCE: u64 = 65_536;
