//! Which of two versions of one fact wins: rows, metadata, shard ranges, storage policies.
//!
//! Every replica takes writes of its own, so whatever is shipped, by whichever strategy, ends here: two versions of the
//! same fact meet, and every replica must choose alike, whoever asked and in whatever order the versions came. The rules
//! are Swift's own, to the letter, because its daemons merge into the same databases with theirs; they are pure, so that
//! they can be held beside Swift's, and so that the vectors can be run through them without a database.
//!
//! In all of them a tie keeps what is there. A replay therefore changes nothing, and equal stamps with unequal contents
//! stay unequal for ever.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::replica::{Metadata, MetadataItem, PolicyIndex, ReplicaInfo, Row, ShardRange};
use crate::timestamp::{BadTimestamp, RowTimes, Stamp, Timestamp};

// Rows.

/// What merging a list of rows comes to: first these keys go, then these rows come, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergedRows {
    /// Name and policy of the rows there were; each occurs once.
    pub delete: Vec<(String, PolicyIndex)>,
    /// Without numbers, because each gets a new one and so travels on to other peers.
    pub insert: Vec<Row>,
}

/// The three times of a row as it was sent: those of `created_at`, overridden by the two that may come beside it.
///
/// # Errors
/// [`BadTimestamp`] if any of the three texts is none.
pub fn row_times(row: &Row) -> Result<RowTimes, BadTimestamp> {
    let mut times = RowTimes::decode(&row.created_at)?;
    let given = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(str::parse).transpose();
    if let Some(content_type) = given(&row.ctype_timestamp)? {
        times.content_type = content_type;
        times.meta = content_type;
    }
    if let Some(meta) = given(&row.meta_timestamp)? {
        times.meta = meta;
    }
    Ok(times)
}

/// The row to store if `new` meets `existing`, or `None` if nothing in it is newer
/// (`swift/container/backend.py: update_new_item_from_existing`).
///
/// The row returned has no number, and all its times are in `created_at`.
///
/// # Errors
/// [`BadTimestamp`] if either row has one.
pub fn merge_row(new: &Row, existing: Option<&Row>) -> Result<Option<Row>, BadTimestamp> {
    let mut candidate = Candidate::new(new.clone())?;
    let taken = existing.map_or(Ok(true), |existing| candidate.outdoes(existing))?;
    Ok(taken.then_some(candidate.row))
}

/// What becomes of a whole list of rows, given those the database has (`swift/container/backend.py: merge_items`).
///
/// A row that is newer than the database's is compared once more with an earlier row of the list that took the same
/// place; whichever way that ends it replaces it, carrying along what was newer in it.
///
/// # Errors
/// [`BadTimestamp`] if any row, of the list or of the database, has one. Nothing of the list is merged then.
pub fn merge_rows<'a>(
    rows: Vec<Row>,
    existing: impl Fn(&str, PolicyIndex) -> Option<&'a Row>,
) -> Result<MergedRows, BadTimestamp> {
    let mut merged = MergedRows::default();
    let mut places: HashMap<(String, PolicyIndex), usize> = HashMap::new();
    for row in rows {
        let held = existing(&row.name, row.storage_policy_index);
        let mut candidate = Candidate::new(row)?;
        if !held.map_or(Ok(true), |held| candidate.outdoes(held))? {
            continue;
        }
        match places.entry((candidate.row.name.clone(), candidate.row.storage_policy_index)) {
            Entry::Occupied(place) => {
                let earlier = &mut merged.insert[*place.get()];
                candidate.outdoes(earlier)?;
                *earlier = candidate.row;
            }
            Entry::Vacant(place) => {
                if held.is_some() {
                    merged.delete.push(place.key().clone());
                }
                place.insert(merged.insert.len());
                merged.insert.push(candidate.row);
            }
        }
    }
    Ok(merged)
}

/// A row on its way in, with the times it came with: however often it is compared, it is with these.
struct Candidate {
    row: Row,
    times: RowTimes,
}

impl Candidate {
    fn new(row: Row) -> Result<Candidate, BadTimestamp> {
        let times = row_times(&row)?;
        let created_at = times.encode();
        let row = Row { row_id: None, created_at, ctype_timestamp: None, meta_timestamp: None, ..row };
        Ok(Candidate { row, times })
    }

    /// Takes from `existing` whatever is not older there. True if anything of the candidate was newer.
    fn outdoes(&mut self, existing: &Row) -> Result<bool, BadTimestamp> {
        let theirs = RowTimes::decode(&existing.created_at)?;
        let (their_type, their_bytes) = split_swift_bytes(&existing.content_type);
        let (mut content_type, mut swift_bytes) = split_swift_bytes(&self.row.content_type);
        let mut times = self.times;
        if theirs.data >= times.data {
            times.data = theirs.data;
            self.row.size = existing.size;
            self.row.etag.clone_from(&existing.etag);
            self.row.deleted = existing.deleted;
            // The size of the data, though it stands in the column of the type.
            swift_bytes = their_bytes;
        }
        if theirs.content_type >= times.content_type {
            times.content_type = theirs.content_type;
            content_type = their_type;
        }
        times.meta = times.meta.max(theirs.meta);
        self.row.created_at = times.encode();
        if let Some(bytes) = swift_bytes.filter(|bytes| !bytes.is_empty()) {
            content_type.push_str(";swift_bytes=");
            content_type.push_str(&bytes);
        }
        self.row.content_type = content_type;
        Ok(self.times.data > theirs.data
            || self.times.content_type > theirs.content_type
            || self.times.meta > theirs.meta)
    }
}

// Content types.

/// A content type without its `swift_bytes` parameter, and that parameter
/// (`swift/common/utils/__init__.py: extract_swift_bytes, parse_content_type`).
///
/// The other parameters are written anew, so that blanks and whatever is no parameter vanish. Replicas compare what
/// comes of this, hence each side effect is kept: `x=a/b` ends up as `x=a`, and a bare `z` as `z=`.
pub fn split_swift_bytes(content_type: &str) -> (String, Option<String>) {
    let Some(first) = content_type.find(';') else { return (content_type.to_owned(), None) };
    let (kind, mut rest) = content_type.split_at(first);
    let (mut kept, mut swift_bytes) = (kind.to_owned(), None);
    while let Some(at) = rest.find(';') {
        rest = &rest[at + 1..];
        let Some((key, after_key)) = token(rest) else { continue };
        let (value, after_value) = value(after_key).unwrap_or(("", after_key));
        rest = after_value;
        match (key.trim_matches(is_space), value.trim_matches(is_space)) {
            ("swift_bytes", value) => swift_bytes = Some(value.to_owned()),
            (key, value) => kept.extend([";", key, "=", value]),
        }
    }
    (kept, swift_bytes)
}

/// What Python's `\s` matches and its `strip` removes.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn is_token(c: char) -> bool {
    c > ' ' && !"()<>@,;:\"/[]?={}\x7f".contains(c)
}

/// The token at the start of `text`, blanks skipped, and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let mut start = text.find(|c| !is_space(c)).unwrap_or(text.len());
    if !text[start..].starts_with(is_token) {
        // Blanks beyond ASCII may also stand in a token, and where nothing else can be one, Swift's pattern makes do
        // with the last of them.
        start = text[..start].rfind(is_token)?;
    }
    let length = text[start..].find(|c| !is_token(c)).unwrap_or(text.len() - start);
    Some(text[start..].split_at(length))
}

/// The `= token` or `= "quoted"` at the start of `text`, and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(is_space).strip_prefix('=')?;
    let quoted = text.trim_start_matches(is_space);
    if !quoted.starts_with('"') {
        return token(text);
    }
    let mut escaped = false;
    for (at, c) in quoted.char_indices().skip(1) {
        match (escaped, c) {
            (true, '\n') => return None,
            (true, _) => escaped = false,
            (false, '\\') => escaped = true,
            (false, '"') => return Some(quoted.split_at(at + 1)),
            (false, _) => {}
        }
    }
    None
}

// Metadata.

/// `mine` with every item of `theirs` that I have not, or have from an earlier time, stamps compared as text; `None` if
/// there is no such item, hence nothing to write (`swift/common/db.py: update_metadata`).
pub fn merge_metadata(mine: &Metadata, theirs: &Metadata) -> Option<Metadata> {
    let mut merged = Items::new(mine.clone());
    let mut changed = false;
    for item in &theirs.0 {
        if merged.item(&item.key).is_none_or(|mine| item.stamp > mine.stamp) {
            merged.set(item.clone());
            changed = true;
        }
    }
    changed.then_some(merged.metadata)
}

/// `metadata` without the keys that were deleted before `age`; `None` if there are none
/// (`swift/common/db.py: _reclaim_metadata`). A stamp that cannot be read is of no known age: its key stays.
pub fn reclaim_metadata(metadata: &Metadata, age: Timestamp) -> Option<Metadata> {
    let is_old = |stamp: &Stamp| stamp.as_str().parse().is_ok_and(|time: Timestamp| time < age);
    let kept = |item: &&MetadataItem| !(item.value.is_empty() && is_old(&item.stamp));
    let kept: Vec<_> = metadata.0.iter().filter(kept).cloned().collect();
    (kept.len() < metadata.0.len()).then_some(Metadata(kept))
}

/// Text that is no container metadata, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMetadata(pub String);

impl fmt::Display for BadMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not container metadata: {}", self.0)
    }
}

impl std::error::Error for BadMetadata {}

/// Reads the `metadata` column: nothing at all, or an object of `[value, stamp]`. Of a key that occurs twice the last
/// item counts, at the place of the first, as in a Python dict.
///
/// # Errors
/// [`BadMetadata`] for anything else.
pub fn parse_metadata(text: &str) -> Result<Metadata, BadMetadata> {
    if text.is_empty() {
        return Ok(Metadata::default());
    }
    let items: Items = serde_json::from_str(text).map_err(|e| BadMetadata(e.to_string()))?;
    Ok(items.metadata)
}

/// The text of the `metadata` column, spelled as Python's `json.dumps` does, so that replicas that agree hold the same.
pub fn print_metadata(metadata: &Metadata) -> String {
    let mut text = String::from("{");
    for (at, item) in metadata.0.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        push_json(&mut text, &item.key);
        text.push_str(": [");
        push_json(&mut text, &item.value);
        text.push_str(", ");
        push_json(&mut text, item.stamp.as_str());
        text.push(']');
    }
    text.push('}');
    text
}

fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a string takes all that is written to it");
                }
            }
        }
    }
    out.push('"');
}

/// Metadata with its keys looked up by hash: how many there are is a peer's choice.
#[derive(Default)]
struct Items {
    metadata: Metadata,
    places: HashMap<String, usize>,
}

impl Items {
    fn new(metadata: Metadata) -> Items {
        let places = metadata.0.iter().enumerate().map(|(at, item)| (item.key.clone(), at)).collect();
        Items { metadata, places }
    }

    fn item(&self, key: &str) -> Option<&MetadataItem> {
        self.places.get(key).map(|at| &self.metadata.0[*at])
    }

    fn set(&mut self, item: MetadataItem) {
        match self.places.entry(item.key.clone()) {
            Entry::Occupied(place) => self.metadata.0[*place.get()] = item,
            Entry::Vacant(place) => {
                place.insert(self.metadata.0.len());
                self.metadata.0.push(item);
            }
        }
    }
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items, D::Error> {
        struct ItemsVisitor;
        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = Items;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of [value, stamp]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Items, A::Error> {
                let mut items = Items::default();
                while let Some((key, (value, stamp))) = map.next_entry::<String, (String, String)>()? {
                    items.set(MetadataItem { key, value, stamp: Stamp::stored(stamp) });
                }
                Ok(items)
            }
        }
        deserializer.deserialize_map(ItemsVisitor)
    }
}

// Shard ranges.

/// What merging a list of shard ranges comes to: first these names go, then these ranges come, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergedShardRanges {
    /// Names of ranges there were; each occurs once.
    pub delete: Vec<String>,
    /// The ranges to store.
    pub insert: Vec<ShardRange>,
}

/// The range to store if `new` meets `existing`, or `None` if nothing in it is newer
/// (`swift/container/backend.py: merge_shards`).
pub fn merge_shard_range(new: &ShardRange, existing: Option<&ShardRange>) -> Option<ShardRange> {
    let mut range = new.clone();
    existing.is_none_or(|existing| outdoes(&mut range, existing)).then_some(range)
}

/// What becomes of a whole list of ranges, given those the database has
/// (`swift/container/backend.py: sift_shard_ranges`).
///
/// Unlike a row, a range that meets an earlier one of the list does so with what the first comparison left of it, and
/// takes its place only if it is newer.
pub fn merge_shard_ranges<'a>(
    ranges: Vec<ShardRange>,
    existing: impl Fn(&str) -> Option<&'a ShardRange>,
) -> MergedShardRanges {
    let mut merged = MergedShardRanges::default();
    let mut places: HashMap<String, usize> = HashMap::new();
    for mut range in ranges {
        let held = existing(&range.name);
        if !held.is_none_or(|held| outdoes(&mut range, held)) {
            continue;
        }
        match places.entry(range.name.clone()) {
            Entry::Occupied(place) => {
                let earlier = &mut merged.insert[*place.get()];
                if outdoes(&mut range, earlier) {
                    *earlier = range;
                }
            }
            Entry::Vacant(place) => {
                if held.is_some() {
                    merged.delete.push(place.key().clone());
                }
                place.insert(merged.insert.len());
                merged.insert.push(range);
            }
        }
    }
    merged
}

/// Takes from `existing` whatever is not older there. True if anything of `range` was newer.
fn outdoes(range: &mut ShardRange, existing: &ShardRange) -> bool {
    if existing.timestamp != range.timestamp {
        // A range made anew has been reported to nobody.
        range.reported = 0;
        return existing.timestamp < range.timestamp;
    }
    range.lower.clone_from(&existing.lower);
    range.upper.clone_from(&existing.upper);
    range.deleted = existing.deleted;

    let mut newer = existing.meta_timestamp < range.meta_timestamp;
    if !newer {
        range.object_count = existing.object_count;
        range.bytes_used = existing.bytes_used;
        range.tombstones = existing.tombstones;
        range.meta_timestamp.clone_from(&existing.meta_timestamp);
    }

    let same_usage = existing.object_count == range.object_count
        && existing.bytes_used == range.bytes_used
        && existing.tombstones == range.tombstones
        && existing.state == range.state
        && existing.epoch == range.epoch;
    if existing.reported != 0 && same_usage {
        range.reported = 1;
    } else {
        newer |= range.reported != 0 && existing.reported == 0;
    }

    let same_time = existing.state_timestamp == range.state_timestamp;
    if existing.state_timestamp < range.state_timestamp || (same_time && range.state > existing.state) {
        newer = true;
    } else {
        range.state = existing.state;
        range.state_timestamp.clone_from(&existing.state_timestamp);
        range.epoch.clone_from(&existing.epoch);
    }
    newer
}

/// Whether an arriving range must be left out: it is this container's own, and has lost the epoch that ours still has
/// (`swift/container/replicator.py: check_merge_own_shard_range`, launchpad 1980451). `own` is the database's own range,
/// if it has one.
pub fn drops_own_range_without_epoch(own: Option<&ShardRange>, new: &ShardRange) -> bool {
    let has_no_epoch = new.epoch.as_ref().is_none_or(|epoch| epoch.as_str().is_empty());
    own.is_some_and(|own| own.epoch.is_some() && own.name == new.name && has_no_epoch)
}

// Storage policies.

/// What a replica's claim to know the container's policy rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyClaim {
    /// The policy it has.
    pub storage_policy_index: PolicyIndex,
    /// When it was last created.
    pub put_timestamp: Stamp,
    /// When it was last deleted.
    pub delete_timestamp: Stamp,
    /// When it was last created, deleted or given another policy.
    pub status_changed_at: Stamp,
    /// Objects in its current policy.
    pub count: i64,
}

impl From<&ReplicaInfo> for PolicyClaim {
    fn from(info: &ReplicaInfo) -> PolicyClaim {
        PolicyClaim {
            storage_policy_index: info.storage_policy_index,
            put_timestamp: info.put_timestamp.clone(),
            delete_timestamp: info.delete_timestamp.clone(),
            status_changed_at: info.status_changed_at.clone(),
            count: info.count,
        }
    }
}

impl PolicyClaim {
    fn is_deleted(&self) -> bool {
        self.delete_timestamp > self.put_timestamp && self.count == 0
    }

    fn was_recreated(&self) -> bool {
        self.put_timestamp > self.delete_timestamp && self.delete_timestamp.time() > Timestamp::ZERO
    }
}

/// Which of two claims is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetterPolicy {
    /// This replica's.
    Mine,
    /// The peer's.
    Theirs,
    /// A tie: each keeps its own.
    Neither,
}

impl BetterPolicy {
    fn smaller(mine_to_theirs: Ordering) -> BetterPolicy {
        match mine_to_theirs {
            Ordering::Less => BetterPolicy::Mine,
            Ordering::Greater => BetterPolicy::Theirs,
            Ordering::Equal => BetterPolicy::Neither,
        }
    }
}

/// Which replica knows the container's policy better: of containers made anew the newest, else the oldest
/// (`swift/container/reconciler.py: cmp_policy_info`). Both sides ask, each for itself, and come to the same answer.
pub fn better_policy(mine: &PolicyClaim, theirs: &PolicyClaim) -> BetterPolicy {
    let by_status = mine.status_changed_at.cmp(&theirs.status_changed_at);
    match (mine.is_deleted(), theirs.is_deleted()) {
        (false, true) => return BetterPolicy::Mine,
        (true, false) => return BetterPolicy::Theirs,
        (true, true) => return BetterPolicy::smaller(by_status.reverse()),
        (false, false) => {}
    }
    match (mine.was_recreated(), theirs.was_recreated()) {
        (true, false) => return BetterPolicy::Mine,
        (false, true) => return BetterPolicy::Theirs,
        (true, true) => {
            // Who was last created before a delete that the other knows of has not heard of the creation after it.
            let last_delete = (&mine.delete_timestamp).max(&theirs.delete_timestamp);
            if mine.put_timestamp < *last_delete {
                return BetterPolicy::Theirs;
            }
            if theirs.put_timestamp < *last_delete {
                return BetterPolicy::Mine;
            }
        }
        (false, false) => {}
    }
    BetterPolicy::smaller(by_status)
}

/// The policy to take over from a peer, if it has another and knows better
/// (`swift/container/reconciler.py: incorrect_policy_index`).
pub fn policy_to_adopt(mine: &PolicyClaim, theirs: &PolicyClaim) -> Option<PolicyIndex> {
    let differs = mine.storage_policy_index != theirs.storage_policy_index;
    let adopt = differs && better_policy(mine, theirs) == BetterPolicy::Theirs;
    adopt.then_some(theirs.storage_policy_index)
}

/// A row that was written under a policy its container does not have, as Swift's reconciler expects to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// The container, of account `.misplaced_objects`, that the row goes into: the hour of its metadata time.
    pub container: String,
    /// The row to merge there.
    pub row: Row,
}

/// Where and how a misplaced row is queued, given its container's root
/// (`swift/container/reconciler.py: get_row_to_q_entry_translator, get_reconciler_container_name`).
///
/// # Errors
/// [`BadTimestamp`] if the row has one.
pub fn queue_entry(root_account: &str, root_container: &str, row: &Row) -> Result<QueueEntry, BadTimestamp> {
    let meta_secs = RowTimes::decode(&row.created_at)?.meta.seconds() as u64;
    let queued = Row {
        row_id: None,
        name: format!("{}:/{root_account}/{root_container}/{}", row.storage_policy_index, row.name),
        created_at: row.created_at.clone(),
        size: 0,
        content_type: format!("application/x-{}", if row.deleted == 0 { "put" } else { "delete" }),
        etag: row.created_at.clone(),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    };
    Ok(QueueEntry { container: (meta_secs / 3600 * 3600).to_string(), row: queued })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::RowId;
    use proptest::prelude::*;

    fn row(name: &str, created_at: &str, content_type: &str) -> Row {
        Row {
            row_id: Some(RowId(7)),
            name: name.to_owned(),
            created_at: created_at.to_owned(),
            size: created_at.len() as i64,
            content_type: content_type.to_owned(),
            etag: format!("etag of {created_at}"),
            deleted: 0,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    fn merge_all(rows: &[Row]) -> Option<Row> {
        rows.iter().fold(None, |held, row| merge_row(row, held.as_ref()).unwrap().or(held))
    }

    fn shard_range(name: &str, timestamp: &str) -> ShardRange {
        ShardRange {
            name: name.to_owned(),
            timestamp: Stamp::stored(timestamp),
            lower: String::new(),
            upper: "m".to_owned(),
            object_count: 5,
            bytes_used: 50,
            meta_timestamp: Stamp::stored(timestamp),
            deleted: 0,
            state: 40,
            state_timestamp: Stamp::stored(timestamp),
            epoch: None,
            reported: 0,
            tombstones: 1,
        }
    }

    fn metadata(items: &[(&str, &str, &str)]) -> Metadata {
        let item = |(key, value, stamp): &(&str, &str, &str)| MetadataItem {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            stamp: Stamp::stored(*stamp),
        };
        Metadata(items.iter().map(item).collect())
    }

    #[test]
    fn a_tie_keeps_what_is_there() {
        let held = row("o", "0000000100.00000", "a/b");
        let tombstone = Row { deleted: 1, etag: "noetag".to_owned(), ..held.clone() };
        assert_eq!(merge_row(&tombstone, Some(&held)), Ok(None));
        assert_eq!(merge_row(&held, Some(&tombstone)), Ok(None));
    }

    #[test]
    fn times_beside_a_row_are_folded_into_it() {
        let time = |text: &str| Some(text.to_owned());
        let posted = Row {
            ctype_timestamp: time("0000000100.00001"),
            meta_timestamp: time("0000000100.00003"),
            ..row("o", "0000000100.00000", "a/b")
        };
        let stored = merge_row(&posted, None).unwrap().unwrap();
        assert_eq!(stored.created_at, "0000000100.00000+1+2");
        assert_eq!((stored.row_id, stored.ctype_timestamp, stored.meta_timestamp), (None, None, None));
        let only_type = Row { meta_timestamp: time(""), ..posted };
        assert_eq!(merge_row(&only_type, None).unwrap().unwrap().created_at, "0000000100.00000+1+0");
    }

    #[test]
    fn a_stamp_that_is_none_is_an_error_on_either_side() {
        let (good, bad) = (row("o", "0000000100.00000", "a/b"), row("o", "yesterday", "a/b"));
        let error = || Err(BadTimestamp("yesterday".to_owned()));
        assert_eq!(merge_row(&bad, None), error());
        assert_eq!(merge_row(&good, Some(&bad)), error());
        assert_eq!(merge_row(&Row { meta_timestamp: Some("yesterday".to_owned()), ..good }, None), error());
    }

    #[test]
    fn rows_of_one_list_meet_each_other_and_stand_where_the_first_stood() {
        let held = row("held", "0000000100.00000", "a/b");
        let list = vec![
            row("held", "0000000101.00000", "c/d"),
            row("new", "0000000102.00000", "a/b"),
            row("stale", "0000000001.00000", "a/b"),
            // Newer than the database's, older than its forerunner's: the forerunner's data in this one's place.
            row("held", "0000000100.50000", "e/f"),
            Row { storage_policy_index: PolicyIndex(1), ..row("held", "0000000099.00000", "g/h") },
        ];
        let stale = row("stale", "0000000002.00000", "a/b");
        let merged = merge_rows(list.clone(), |name, policy| {
            [&held, &stale].into_iter().find(|row| row.name == name && row.storage_policy_index == policy)
        });
        let numberless = |row: &Row| Row { row_id: None, ..row.clone() };
        let insert = [&list[0], &list[1], &list[4]].map(numberless).to_vec();
        assert_eq!(merged, Ok(MergedRows { delete: vec![("held".to_owned(), PolicyIndex(0))], insert }));
    }

    #[test]
    fn a_row_of_the_list_carries_along_what_was_newer_in_an_earlier_one() {
        let data = row("o", "0000000100.00000", "a/b;swift_bytes=5");
        let post = Row {
            ctype_timestamp: Some("0000000200.00000".to_owned()),
            ..row("o", "0000000050.00000", "c/d")
        };
        let merged = merge_rows(vec![data.clone(), post], |_, _| None).unwrap();
        assert_eq!(merged.insert.len(), 1);
        assert_eq!(merged.insert[0].content_type, "c/d;swift_bytes=5");
        assert_eq!(merged.insert[0].created_at, "0000000100.00000+989680+0");
        assert_eq!(merged.insert[0].etag, data.etag);
    }

    #[test]
    fn blanks_beyond_ascii_part_parameters_as_in_python() {
        let split = |text: &str| split_swift_bytes(text);
        let kept = |text: &str| (text.to_owned(), None);
        assert_eq!(split("a;\u{a0}x\u{a0}=\u{3000}y\u{a0};z"), kept("a;x=y;z="));
        assert_eq!(split("a;\u{a0}=5"), kept("a;=5"));
        assert_eq!(split("a;x=\u{a0}\"open"), kept("a;x="));
        assert_eq!(split("a;x=\"\\\n\""), kept("a;x="));
        assert_eq!(split("a;\x1cswift_bytes\x1f=\x1d9"), ("a".to_owned(), Some("9".to_owned())));
    }

    #[test]
    fn metadata_is_read_in_order_and_the_last_of_two_equal_keys_counts() {
        let text = r#"{"b": ["1", "3"], "a": ["2", "2"], "b": ["", "1"]}"#;
        assert_eq!(parse_metadata(text), Ok(metadata(&[("b", "", "1"), ("a", "2", "2")])));
        assert_eq!(parse_metadata(""), Ok(Metadata::default()));
        assert_eq!(parse_metadata(" {}\n"), Ok(Metadata::default()));
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        let bad = [
            "[]",
            "null",
            "{",
            "{} {}",
            r#"{"a": "b"}"#,
            r#"{"a": ["b"]}"#,
            r#"{"a": ["b", "1", "2"]}"#,
            r#"{"a": ["b", 1]}"#,
            r#"{"a": [["b"], "1"]}"#,
            r#"{"a": ["\ud800", "1"]}"#,
        ];
        for text in bad {
            assert!(parse_metadata(text).is_err(), "{text}");
        }
        assert!(parse_metadata(&"[".repeat(1 << 20)).is_err());
    }

    #[test]
    fn metadata_is_printed_as_python_prints_it() {
        let printed =
            print_metadata(&metadata(&[("é\u{7f}", "\"\\/\n\r\t\x08\x0c\x01", "1"), ("😀", "", "2")]));
        assert_eq!(printed, r#"{"\u00e9\u007f": ["\"\\/\n\r\t\b\f\u0001", "1"], "\ud83d\ude00": ["", "2"]}"#);
        assert_eq!(print_metadata(&Metadata::default()), "{}");
    }

    #[test]
    fn metadata_of_no_known_age_stays() {
        let held = metadata(&[
            ("a", "", "yesterday"),
            ("b", "", "0000000001.00000"),
            ("c", "v", "0000000001.00000"),
        ]);
        let reclaimed = metadata(&[("a", "", "yesterday"), ("c", "v", "0000000001.00000")]);
        let age = |text: &str| text.parse().unwrap();
        assert_eq!(reclaim_metadata(&held, age("2")), Some(reclaimed));
        assert_eq!(reclaim_metadata(&held, age("1")), None, "its own time is not before it");
    }

    #[test]
    fn a_shard_range_meets_itself_without_change() {
        let range = shard_range("a/c", "5");
        assert_eq!(merge_shard_range(&range, Some(&range)), None);
        assert_eq!(merge_shard_range(&range, None), Some(range));
    }

    #[test]
    fn a_shard_range_replaces_an_earlier_one_of_the_list_only_if_it_is_newer() {
        let held = shard_range("a/held", "5");
        let newest = shard_range("a/held", "7");
        let list = vec![
            newest.clone(),
            shard_range("a/new", "1"),
            shard_range("a/held", "6"),
            shard_range("a/new", "2"),
        ];
        let merged = merge_shard_ranges(list, |name| (name == "a/held").then_some(&held));
        let insert = vec![newest, shard_range("a/new", "2")];
        assert_eq!(merged, MergedShardRanges { delete: vec!["a/held".to_owned()], insert });
    }

    #[test]
    fn only_an_own_range_that_lost_its_epoch_is_dropped() {
        let epoch = |range: &ShardRange, epoch: &str| ShardRange {
            epoch: Some(Stamp::stored(epoch)),
            ..range.clone()
        };
        let (bare, other) = (shard_range("a/c", "5"), shard_range("a/other", "5"));
        let own = epoch(&bare, "3");
        assert!(drops_own_range_without_epoch(Some(&own), &bare));
        assert!(drops_own_range_without_epoch(Some(&own), &epoch(&bare, "")));
        assert!(!drops_own_range_without_epoch(Some(&own), &own));
        assert!(!drops_own_range_without_epoch(Some(&own), &other));
        assert!(!drops_own_range_without_epoch(Some(&bare), &bare));
        assert!(!drops_own_range_without_epoch(None, &bare));
    }

    prop_compose! {
        /// A version of one object, at times that no version with another `lane` has.
        fn version(lane: u64)(
            raws in proptest::collection::vec(0u64..40, 3),
            swift_bytes in proptest::option::of(0u32..9),
            deleted in 0i64..2,
        ) -> Row {
            let time = |at: usize| Timestamp::new(raws[at] * 3 + lane, 0).unwrap();
            let times = RowTimes { data: time(0), content_type: time(1), meta: time(2) };
            let bytes = swift_bytes.map_or(String::new(), |bytes| format!(";swift_bytes={bytes}"));
            let etag = format!("{lane} {raws:?}");
            let content_type = format!("a/{lane}{bytes}");
            Row { deleted, etag, ..row("o", &times.encode(), &content_type) }
        }
    }

    prop_compose! {
        fn claim()(times in proptest::collection::vec(0u8..4, 3), count in 0i64..2, policy in 0i64..2) -> PolicyClaim {
            let stamp = |at: usize| match times[at] {
                0 => Stamp::unset(),
                raw => Timestamp::new(raw.into(), 0).unwrap().into(),
            };
            PolicyClaim {
                storage_policy_index: PolicyIndex(policy),
                put_timestamp: stamp(0),
                delete_timestamp: stamp(1),
                status_changed_at: stamp(2),
                count,
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_in_which_versions_come_does_not_matter(a in version(0), b in version(1), c in version(2)) {
            let merged = merge_all(&[a.clone(), b.clone(), c.clone()]);
            prop_assert_eq!(&merged, &merge_all(&[c.clone(), a.clone(), b.clone()]));
            prop_assert_eq!(&merged, &merge_all(&[b.clone(), c.clone(), a.clone()]));
            prop_assert_eq!(&merged, &merge_all(&[c, b, a]));
        }

        #[test]
        fn a_replay_changes_nothing(a in version(0), b in version(1)) {
            let merged = merge_all(&[a.clone(), b.clone()]).unwrap();
            for again in [&a, &b, &merged] {
                prop_assert_eq!(merge_row(again, Some(&merged)).unwrap(), None);
            }
        }

        #[test]
        fn a_list_comes_to_what_its_rows_come_to_one_by_one(held in version(0), a in version(1), b in version(2)) {
            let merged = merge_rows(vec![a.clone(), b.clone()], |_, _| Some(&held)).unwrap();
            let one_by_one = merge_all(&[held.clone(), a, b]).unwrap();
            let is_same = merged.insert.first().unwrap_or(&held).created_at == one_by_one.created_at;
            prop_assert!(is_same, "{:?} {:?}", merged, one_by_one);
            prop_assert_eq!(merged.delete.len(), merged.insert.len());
        }

        #[test]
        fn any_text_can_be_split(text in "(a/b)?([;=\" \u{a0}\\\\x/\n😀]|swift_bytes){0,30}") {
            let kind = text.split(';').next().unwrap();
            prop_assert!(split_swift_bytes(&text).0.starts_with(kind));
        }

        #[test]
        fn metadata_agrees_whoever_merges(
            mine in proptest::collection::btree_map("[a-d]", (".{0,2}", 0u8..9), 0..5),
            theirs in proptest::collection::btree_map("[a-d]", (".{0,2}", 0u8..9), 0..5),
        ) {
            let items = |map: &std::collections::BTreeMap<String, (String, u8)>, lane: u8| {
                let item = |(key, (value, time)): (&String, &(String, u8))| MetadataItem {
                    key: key.clone(),
                    value: value.clone(),
                    stamp: Stamp::stored(format!("{:02}", time * 2 + lane)),
                };
                Metadata(map.iter().map(item).collect())
            };
            let (mine, theirs) = (items(&mine, 0), items(&theirs, 1));
            let sorted = |mut metadata: Metadata| {
                metadata.0.sort_by(|a, b| a.key.cmp(&b.key));
                metadata
            };
            let merged = merge_metadata(&mine, &theirs).unwrap_or(mine.clone());
            prop_assert_eq!(merge_metadata(&merged, &theirs), None);
            prop_assert_eq!(merge_metadata(&merged, &mine), None);
            prop_assert_eq!(parse_metadata(&print_metadata(&merged)), Ok(merged.clone()));
            prop_assert_eq!(sorted(merged), sorted(merge_metadata(&theirs, &mine).unwrap_or(theirs)));
        }

        #[test]
        fn both_sides_agree_on_the_policy(mine in claim(), theirs in claim()) {
            let mirrored = match better_policy(&theirs, &mine) {
                BetterPolicy::Mine => BetterPolicy::Theirs,
                BetterPolicy::Theirs => BetterPolicy::Mine,
                BetterPolicy::Neither => BetterPolicy::Neither,
            };
            prop_assert_eq!(better_policy(&mine, &theirs), mirrored);
        }
    }
}
