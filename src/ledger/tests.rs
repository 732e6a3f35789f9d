//! The ledger as a whole: against a model, and against what may befall its file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use proptest::sample::Index;
use rusqlite::Connection;

use super::*;
use crate::drive::{DeviceName, Drive};
use crate::hash_path::Partition;
use crate::replica::RowId;
use crate::ring::DeviceId;

/// A drive in a temporary directory.
struct Bench {
    devices: tempfile::TempDir,
    drive: Drive,
}

fn bench() -> Bench {
    let devices = tempfile::tempdir().unwrap();
    fs::create_dir(devices.path().join("d0")).unwrap();
    let drive = Drive::open(devices.path(), &DeviceName::new("d0").unwrap(), false).unwrap();
    Bench { devices, drive }
}

impl Bench {
    fn path(&self) -> PathBuf {
        self.devices.path().join("d0/agent/ledger.db")
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.drive, terms()).unwrap()
    }

    /// A ledger with some hundred entries in some thirty partitions, all of them agreed with one peer; closed.
    fn filled(&self) -> Vec<(Key, Entry)> {
        let ledger = self.open();
        let entries: Vec<_> = (0..400).map(|nth| (key(nth), entry(nth))).collect();
        ledger.update(&all_new(&entries)).unwrap();
        ledger.agree_singly(PEER, &states(&entries)).unwrap();
        ledger.note_survey(SURVEY).unwrap();
        ledger
            .note_listings(&(0..32).map(|number| (Partition(number), listing(number))).collect::<Vec<_>>())
            .unwrap();
        all(&ledger)
    }
}

fn terms() -> Terms {
    Terms {
        part_shift: PartShift::new(27).unwrap(),
        reclaim_age: Duration::from_secs(604_800),
        full_check_interval: Duration::from_millis(1_500),
    }
}

fn listing(number: u32) -> Listing {
    Listing { fingerprint: [number as u8; 16], due_secs: u64::from(number) << 30 }
}

const PEER: DeviceId = DeviceId(7);
const OTHER: DeviceId = DeviceId(9);
const SURVEY: Surveyed = Surveyed { began: SystemTime::UNIX_EPOCH, took: Duration::new(12, 345_678_901) };

/// Spread over everything, the same each time.
fn key(nth: u64) -> Key {
    let hash = blake3::hash(&nth.to_le_bytes());
    Key(u128::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at])))
}

fn entry(state: u64) -> Entry {
    Entry {
        seen: (state % 3 != 0).then_some([state as u8; 16]),
        state: StateDigest([state as u8; 16]),
        replica: [1; 8],
        max_row: RowId(state as i64),
        met_row: RowId::NONE,
        due_secs: u64::MAX - state,
        introduce: false,
        agreements: vec![],
    }
}

fn all_new(entries: &[(Key, Entry)]) -> Vec<(Key, Option<Entry>)> {
    entries.iter().map(|(key, entry)| (*key, Some(entry.clone()))).collect()
}

fn states(entries: &[(Key, Entry)]) -> Vec<(Key, StateDigest)> {
    entries.iter().map(|(key, entry)| (*key, entry.state)).collect()
}

/// Page by page.
fn all(ledger: &Ledger) -> Vec<(Key, Entry)> {
    let (mut entries, mut next) = (vec![], Some(Key(0)));
    while let Some(first) = next {
        let page = ledger.entries(first, Span::ALL.last()).unwrap();
        next = page.last().filter(|_| page.len() == PAGE_ENTRIES).map(|(key, _)| Key(key.0 + 1));
        entries.extend(page);
    }
    entries
}

fn unsettled(ledger: &Ledger, peers: &[DeviceId]) -> Vec<(Key, Entry)> {
    let (mut entries, mut after) = (vec![], None);
    loop {
        let page = ledger.unsettled(after, &|_| peers.to_vec()).unwrap();
        after = page.last().map(|(key, _)| *key);
        let is_last = page.len() < PAGE_ENTRIES;
        entries.extend(page);
        if is_last {
            return entries;
        }
    }
}

fn every_partition(terms: Terms) -> PartitionSet {
    (0..terms.part_shift.partitions()).map(|number| Partition(number as u32)).collect()
}

fn sum_of<'a>(entries: impl IntoIterator<Item = (&'a Key, &'a Entry)>) -> SetDigest {
    let mut sum = SetDigest::EMPTY;
    for (key, entry) in entries {
        sum.add(*key, entry.state);
    }
    sum
}

#[test]
fn what_is_noted_is_there_when_it_is_opened_again() {
    let bench = bench();
    let entries = bench.filled();
    let ledger = bench.open();
    assert_eq!(entries.len(), 400);
    assert_eq!(all(&ledger), entries);
    assert_eq!(ledger.entry(entries[9].0).unwrap().as_ref(), Some(&entries[9].1));
    assert_eq!(ledger.entry(Key(3)).unwrap(), None);
    assert_eq!(ledger.surveyed().unwrap(), Some(SURVEY));
    assert_eq!(ledger.terms(), terms());
    assert!(ledger.is_of(&bench.drive));
    ledger.rest();
    assert_eq!(all(&ledger), entries);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(bench.path().parent().unwrap()), 0o755);
}

#[test]
fn a_survey_is_kept_to_the_nanosecond() {
    let bench = bench();
    let ledger = bench.open();
    assert_eq!(ledger.surveyed().unwrap(), None);
    let survey = Surveyed { began: SystemTime::now(), took: Duration::new(1, 1) };
    ledger.note_survey(SURVEY).unwrap();
    ledger.note_survey(survey).unwrap();
    assert_eq!(ledger.surveyed().unwrap(), Some(survey));
}

#[test]
fn listings_come_by_the_page_and_go_with_the_last_entry_of_their_partition() {
    let bench = bench();
    let ledger =
        Ledger::open(&bench.drive, Terms { part_shift: PartShift::new(16).unwrap(), ..terms() }).unwrap();
    let all: Vec<_> =
        (0..PAGE_ENTRIES as u32 + 3).map(|number| (Partition(2 * number), listing(number))).collect();
    ledger.note_listings(&all).unwrap();
    assert_eq!(ledger.listings(Partition(0)).unwrap(), all[..PAGE_ENTRIES]);
    assert_eq!(ledger.listings(Partition(5)).unwrap(), all[3..]);
    assert_eq!(ledger.listings(Partition(u32::MAX)).unwrap(), []);
    let inside = Key::first_of(Partition(4), ledger.terms().part_shift);
    ledger.update(&[(inside, Some(entry(1)))]).unwrap();
    ledger.note_listings(&[(Partition(4), listing(99))]).unwrap();
    assert_eq!(ledger.listings(Partition(4)).unwrap()[0], (Partition(4), listing(99)));
    ledger.update(&[(inside, None)]).unwrap();
    assert_eq!(ledger.listings(Partition(4)).unwrap()[0], all[3]);
}

#[test]
fn what_agrees_and_is_agreed_again_costs_no_write() {
    let bench = bench();
    let entries = bench.filled();
    let ledger = bench.open();
    let shared = every_partition(terms());
    let sum = ledger.sum(&shared, Span::ALL).unwrap();
    assert_eq!(sum, sum_of(entries.iter().map(|(key, entry)| (key, entry))));
    let below = Span::new(entries[0].0.0 >> 116 << 116, 3).unwrap();
    let below_sum = ledger.sum(&shared, below).unwrap();
    assert!(!below.is_of_partitions(terms().part_shift) && below_sum.count() == 1);

    let watcher = Connection::open(bench.path()).unwrap();
    let version = || watcher.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    assert!(ledger.agree(PEER, &shared, Span::ALL, sum).unwrap());
    assert!(ledger.agree(PEER, &shared, below, below_sum).unwrap());
    assert_eq!(version(), before);
    assert!(ledger.agree(OTHER, &shared, below, below_sum).unwrap());
    assert_ne!(version(), before);
    assert!(ledger.agree(OTHER, &shared, Span::ALL, sum).unwrap());
    let before = version();
    assert!(ledger.agree(OTHER, &shared, Span::ALL, sum).unwrap());
    assert_eq!(version(), before);
    assert!(!ledger.agree(DeviceId(1), &shared, Span::ALL, below_sum).unwrap());
    assert_eq!(version(), before);
    assert_eq!(unsettled(&ledger, &[PEER, OTHER]), []);
}

/// An entry that is to be introduced agrees with nobody, whatever is remembered of it.
#[test]
fn agreeing_ends_though_an_entry_does_not_count_it() {
    let bench = bench();
    let ledger = bench.open();
    let shared = every_partition(terms());
    let shy = Entry { introduce: true, ..entry(1) };
    ledger.update(&[(key(1), Some(shy)), (key(2), Some(entry(2)))]).unwrap();
    let sum = ledger.sum(&shared, Span::ALL).unwrap();
    for _ in 0..2 {
        assert!(ledger.agree(PEER, &shared, Span::ALL, sum).unwrap());
        let left = unsettled(&ledger, &[PEER]);
        assert_eq!(left.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(1)]);
    }
    let (_, known) = unsettled(&ledger, &[PEER]).remove(0);
    ledger.update(&[(key(1), Some(Entry { introduce: false, ..known }))]).unwrap();
    assert_eq!(unsettled(&ledger, &[PEER]), []);
}

#[test]
fn an_entry_that_changes_and_changes_back_agrees_only_if_nothing_was_heard_against_it() {
    let bench = bench();
    let ledger = bench.open();
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap();
    ledger.agree_singly(PEER, &[(key(1), entry(2).state)]).unwrap();
    assert_eq!(unsettled(&ledger, &[PEER]).len(), 1);
    ledger.agree_singly(PEER, &[(key(1), entry(1).state)]).unwrap();
    assert_eq!(unsettled(&ledger, &[PEER]), []);
    for (heard, left) in [(false, 0), (true, 1)] {
        let old = ledger.entry(key(1)).unwrap().unwrap();
        let changed = Entry { state: entry(2).state, ..old.clone() };
        ledger.update(&[(key(1), Some(changed))]).unwrap();
        assert_eq!(unsettled(&ledger, &[PEER]).len(), 1);
        if heard {
            ledger.disagree(PEER, &[key(1), key(2)]).unwrap();
        }
        let now = ledger.entry(key(1)).unwrap().unwrap();
        ledger.update(&[(key(1), Some(Entry { state: old.state, ..now }))]).unwrap();
        assert_eq!(unsettled(&ledger, &[PEER]).len(), left);
    }
}

#[test]
fn a_page_that_is_not_full_is_the_last() {
    let bench = bench();
    let ledger = bench.open();
    let entries: Vec<_> = (0..2 * PAGE_ENTRIES as u64 + 1).map(|nth| (key(nth), entry(nth))).collect();
    ledger.update(&all_new(&entries)).unwrap();
    let pages = |after: Option<Key>| ledger.unsettled(after, &|_| vec![PEER]).unwrap();
    let first = pages(None);
    assert_eq!(first.len(), PAGE_ENTRIES);
    assert_eq!(ledger.entries(Key(0), Span::ALL.last()).unwrap(), first);
    assert_eq!(all(&ledger).len(), entries.len());
    assert_eq!(unsettled(&ledger, &[PEER]), all(&ledger));
    assert_eq!(pages(Some(Key(u128::MAX))), []);
    assert_eq!(pages(first.last().map(|(key, _)| *key))[0], all(&ledger)[PAGE_ENTRIES]);
    assert_eq!(ledger.unsettled(None, &|_| vec![]).unwrap(), []);
}

#[test]
fn leaves_are_told_up_to_their_limit() {
    let bench = bench();
    let ledger = bench.open();
    let entries: Vec<_> = (0..LEAVES_LIMIT as u64).map(|nth| (key(nth), entry(nth))).collect();
    ledger.update(&all_new(&entries)).unwrap();
    let shared = every_partition(terms());
    let leaves = ledger.leaves(&shared, Span::ALL).unwrap().unwrap();
    assert_eq!(leaves, states(&all(&ledger)));
    ledger.update(&[(key(99), Some(entry(99)))]).unwrap();
    assert_eq!(ledger.leaves(&shared, Span::ALL).unwrap(), None);
    assert_eq!(ledger.leaves(&PartitionSet::default(), Span::ALL).unwrap(), Some(vec![]));
    assert_eq!(ledger.branches(&shared, Span::new(key(99).0, 32).unwrap()).unwrap(), []);
}

/// What a test does to a ledger and to its model.
#[derive(Debug, Clone)]
enum Act {
    Update(Vec<(Index, Option<(u8, bool)>)>),
    Replace(Index),
    Agree(u8, Place, bool),
    AgreeSingly(u8, Vec<(Index, bool)>),
    Disagree(u8, Vec<Index>),
    DisagreeSpan(u8, Place),
    Mend(Index),
    Reopen,
}

/// A span around one of the keys.
type Place = (Index, u8);

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<Index>;
    let place = (index(), prop_oneof![0..4_u8, 0..=32_u8]);
    let device = 0..3_u8;
    let act = prop_oneof![
        4 => prop::collection::vec((index(), prop::option::weighted(0.8, (0..4_u8, any::<bool>()))), 1..12)
            .prop_map(Act::Update),
        1 => index().prop_map(Act::Replace),
        6 => (device.clone(), place.clone(), prop::bool::weighted(0.9)).prop_map(|(with, place, right)| Act::Agree(with, place, right)),
        2 => (device.clone(), prop::collection::vec((index(), any::<bool>()), 1..6)).prop_map(|(with, which)| Act::AgreeSingly(with, which)),
        1 => (device.clone(), prop::collection::vec(index(), 1..4)).prop_map(|(with, which)| Act::Disagree(with, which)),
        1 => (device, place).prop_map(|(with, place)| Act::DisagreeSpan(with, place)),
        1 => index().prop_map(Act::Mend),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..40)
}

/// Keys that have all lengths of beginnings in common.
fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = (0..12).map(key).collect();
    for digits in [1, 2, 3, 7, 8, 9, 20, 31] {
        keys.push(Key(key(0).0 ^ 1 << (4 * (31 - digits))));
        keys.push(Key(key(1).0 ^ 1 << (127 - 4 * digits)));
    }
    keys.extend([Key(0), Key(1), Key(u128::MAX), Key(u128::MAX - 1)]);
    keys
}

struct Model {
    keys: Vec<Key>,
    entries: BTreeMap<Key, Entry>,
    shared: PartitionSet,
    shift: PartShift,
}

impl Model {
    fn span(&self, place: &Place) -> Span {
        let key = place.0.get(&self.keys).0;
        let digits = u32::from(place.1);
        Span::new(key & u128::MAX.checked_shl(128 - 4 * digits).unwrap_or(0), place.1).unwrap()
    }

    fn within(&self, span: Span) -> Vec<Key> {
        let keys = self.entries.range(span.first()..=span.last()).map(|(key, _)| *key);
        keys.filter(|key| self.shared.contains(key.partition(self.shift))).collect()
    }

    fn sum(&self, span: Span) -> SetDigest {
        sum_of(self.within(span).iter().map(|key| (key, &self.entries[key])))
    }

    /// Told singly, it is remembered up to which row; of a whole span, only that it agreed.
    fn agree(&mut self, with: DeviceId, key: Key, singly: bool) {
        let entry = self.entries.get_mut(&key).unwrap();
        let known = entry.agreement(with).is_some_and(|known| {
            known.holds && known.state == entry.state.short() && (!singly || known.row == entry.max_row)
        });
        if !known {
            entry.agree(with);
        }
    }

    fn act(&mut self, ledger: &Ledger, act: &Act) {
        let keys = self.keys.clone();
        match act {
            Act::Update(changes) => {
                let changes: Vec<_> = changes
                    .iter()
                    .map(|(index, change)| {
                        let key = *index.get(&keys);
                        let old = self.entries.get(&key);
                        let kept = old.map(|old| old.agreements.clone()).unwrap_or_default();
                        let new = change.map(|(state, introduce)| Entry {
                            introduce,
                            agreements: kept,
                            ..entry(state.into())
                        });
                        (key, new)
                    })
                    .collect();
                ledger.update(&changes).unwrap();
                for (key, new) in changes {
                    match new {
                        Some(new) => _ = self.entries.insert(key, new),
                        None => _ = self.entries.remove(&key),
                    }
                }
            }
            Act::Replace(index) => {
                ledger.update(&[(*index.get(&keys), Some(entry(200)))]).unwrap();
                self.entries.insert(*index.get(&keys), entry(200));
            }
            Act::Agree(with, place, right) => {
                let (span, with) = (self.span(place), DeviceId((*with).into()));
                let mut expected = self.sum(span);
                if !right {
                    expected.add(Key(5), entry(5).state);
                }
                assert_eq!(ledger.agree(with, &self.shared, span, expected).unwrap(), *right);
                if *right {
                    self.within(span).into_iter().for_each(|key| self.agree(with, key, false));
                }
            }
            Act::AgreeSingly(with, which) => {
                let with = DeviceId((*with).into());
                let which: Vec<_> = which.iter().map(|(index, right)| (*index.get(&keys), *right)).collect();
                let state = |key: &Key, right: bool| match self.entries.get(key) {
                    Some(entry) if right => entry.state,
                    _ => StateDigest([255; 16]),
                };
                let told: Vec<_> = which.iter().map(|(key, right)| (*key, state(key, *right))).collect();
                ledger.agree_singly(with, &told).unwrap();
                for (key, right) in which {
                    if right && self.entries.contains_key(&key) {
                        self.agree(with, key, true);
                    }
                }
            }
            Act::Disagree(with, which) => {
                let which: Vec<Key> = which.iter().map(|index| *index.get(&keys)).collect();
                ledger.disagree(DeviceId((*with).into()), &which).unwrap();
                for key in which {
                    self.entries.entry(key).and_modify(|entry| entry.disagree(DeviceId((*with).into())));
                }
            }
            Act::DisagreeSpan(with, place) => {
                let span = self.span(place);
                ledger.disagree_span(DeviceId((*with).into()), &self.shared, span).unwrap();
                for key in self.within(span) {
                    self.entries.entry(key).and_modify(|entry| entry.disagree(DeviceId((*with).into())));
                }
            }
            Act::Mend(index) => assert!(!ledger.mend_sum(index.get(&keys).partition(self.shift)).unwrap()),
            Act::Reopen => ledger.rest(),
        }
    }

    fn compare(&self, ledger: &Ledger) {
        let entries: Vec<_> = self.entries.iter().map(|(key, entry)| (*key, entry.clone())).collect();
        assert_eq!(all(ledger), entries);
        for key in &self.keys {
            for digits in [0, 1, 2, 3, 4, 8, 9, 31, 32] {
                let span =
                    Span::new(key.0 & u128::MAX.checked_shl(128 - 4 * digits).unwrap_or(0), digits as u8)
                        .unwrap();
                assert_eq!(ledger.sum(&self.shared, span).unwrap(), self.sum(span));
                let branches: Vec<_> =
                    span.branches().into_iter().map(|branch| (branch, self.sum(branch))).collect();
                assert_eq!(ledger.branches(&self.shared, span).unwrap(), branches);
                let within = self.within(span);
                let leaves = || within.iter().map(|key| (*key, self.entries[key].state)).collect();
                let leaves: Option<Vec<_>> = (within.len() <= LEAVES_LIMIT).then(leaves);
                assert_eq!(ledger.leaves(&self.shared, span).unwrap(), leaves);
            }
            // The sums of all partitions are right, and so are those for each peer.
            assert!(!ledger.mend_sum(key.partition(self.shift)).unwrap());
        }
        for peers in [&[][..], &[0], &[1, 2], &[9]] {
            let peers: Vec<_> = peers.iter().map(|peer| DeviceId(*peer)).collect();
            let left = entries.iter().filter(|(_, entry)| !peers.iter().all(|peer| entry.agrees_with(*peer)));
            assert_eq!(unsettled(ledger, &peers), left.cloned().collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn all_sums_and_agreements_follow_the_entries(
        acts in acts(),
        part_power in prop::sample::select(vec![0_u8, 1, 4, 5, 8, 16, 31, 32]),
        left_out in any::<Index>(),
    ) {
        let bench = bench();
        let shift = PartShift::new(32 - part_power).unwrap();
        let ledger = Ledger::open(&bench.drive, Terms { part_shift: shift, ..terms() }).unwrap();
        let keys = keys();
        // All partitions but one.
        let unshared = (part_power > 0).then(|| left_out.get(&keys).partition(shift));
        let partitions = keys.iter().map(|key| key.partition(shift));
        let shared = partitions.filter(|partition| Some(*partition) != unshared).collect();
        let mut model = Model { keys, entries: BTreeMap::new(), shared, shift };
        for act in &acts {
            model.act(&ledger, act);
        }
        model.compare(&ledger);
    }
}

/// A walk through everything that a ledger can be asked, to see that no damage makes it panic, fail or go round for ever;
/// and that what it says of a database is what was noted.
fn use_it(ledger: &Ledger, known: &BTreeMap<Key, Entry>) {
    let shared = every_partition(terms());
    for (key, entry) in all(ledger) {
        assert_eq!(known.get(&key), Some(&entry));
    }
    let sum = ledger.sum(&shared, Span::ALL).unwrap();
    ledger.branches(&shared, Span::ALL).unwrap();
    ledger.leaves(&shared, Span::ALL).unwrap();
    let left = ledger.unsettled(None, &|_| vec![PEER, OTHER]).unwrap();
    assert!(left.iter().all(|(key, entry)| known.get(key) == Some(entry)));
    if let Some(survey) = ledger.surveyed().unwrap() {
        assert_eq!(survey, SURVEY);
    }
    for (partition, kept) in ledger.listings(Partition(0)).unwrap() {
        assert_eq!(kept, listing(partition.0));
    }
    ledger.agree(OTHER, &shared, Span::ALL, sum).unwrap();
    for partition in 0..32 {
        ledger.mend_sum(Partition(partition)).unwrap();
    }
    // From here on it is whole.
    let entries = all(ledger);
    assert_eq!(
        ledger.sum(&shared, Span::ALL).unwrap(),
        sum_of(entries.iter().map(|(key, entry)| (key, entry)))
    );
    assert!((0..32).all(|partition| !ledger.mend_sum(Partition(partition)).unwrap()));
    let states = states(&entries);
    ledger.disagree_span(PEER, &shared, Span::ALL).unwrap();
    ledger.agree_singly(PEER, &states).unwrap();
    assert_eq!(unsettled(ledger, &[PEER]), []);
    ledger.update(&all_new(&entries)).unwrap();
    ledger.note_survey(SURVEY).unwrap();
}

#[test]
fn damage_anywhere_costs_entries_and_never_an_answer() {
    let bench = bench();
    let known = bench.filled().into_iter().collect();
    let whole = fs::read(bench.path()).unwrap();
    let damage: [fn(&mut [u8]); 3] = [
        |bytes| bytes[0] ^= 1,
        |bytes| bytes[0] ^= 0x80,
        |bytes| bytes.iter_mut().take(512).for_each(|byte| *byte = 0),
    ];
    let mut lost = 0;
    for (nth, at) in (0..whole.len()).step_by(397).chain(0..120).enumerate() {
        let mut bytes = whole.clone();
        damage[nth % damage.len()](&mut bytes[at..]);
        fs::write(bench.path(), bytes).unwrap();
        let ledger = bench.open();
        use_it(&ledger, &known);
        lost += usize::from(all(&ledger).len() < known.len());
    }
    assert!(lost > 50, "only {lost}");
}

#[test]
fn damage_that_comes_while_it_is_open_is_found() {
    let bench = bench();
    let known = bench.filled().into_iter().collect();
    let whole = fs::read(bench.path()).unwrap();
    for at in (4096..whole.len()).step_by(1777) {
        fs::write(bench.path(), &whole).unwrap();
        let ledger = bench.open();
        all(&ledger);
        let file = OpenOptions::new().write(true).open(bench.path()).unwrap();
        file.write_all_at(&[0x55; 300], at as u64).unwrap();
        use_it(&ledger, &known);
    }
}

#[test]
fn a_file_that_is_cut_is_begun_anew_or_was_whole() {
    let bench = bench();
    let known = bench.filled().into_iter().collect();
    let whole = fs::read(bench.path()).unwrap();
    for length in (0..whole.len()).step_by(1501) {
        fs::write(bench.path(), &whole[..length]).unwrap();
        use_it(&bench.open(), &known);
    }
}

#[test]
fn one_damaged_entry_is_forgotten_and_the_sums_follow() {
    let bench = bench();
    let entries = bench.filled();
    let raw = Connection::open(bench.path()).unwrap();
    let harm = |key: Key| {
        let harmed = raw.execute(
            "UPDATE entry SET body = CAST(x'ff' || substr(body, 2) AS BLOB) WHERE key = ?",
            [key.0.to_be_bytes()],
        );
        assert_eq!(harmed.unwrap(), 1);
    };
    let ledger = bench.open();
    for (nth, (key, _)) in entries.iter().take(6).enumerate() {
        let partition = key.partition(terms().part_shift);
        harm(*key);
        match nth {
            0 => assert_eq!(ledger.entry(*key).unwrap(), None),
            1 => assert_eq!(all(&ledger).len(), entries.len() - 2),
            2 => ledger.update(&[(*key, None)]).unwrap(),
            3 => assert!(ledger.mend_sum(partition).unwrap()),
            4 => ledger.disagree_span(PEER, &every_partition(terms()), Span::ALL).unwrap(),
            _ => assert_eq!(unsettled(&ledger, &[PEER]).len(), entries.len() - 6),
        }
        assert!(!ledger.mend_sum(partition).unwrap());
        assert_eq!(all(&ledger), all(&bench.open()));
        assert_eq!(all(&ledger).len(), entries.len() - 1 - nth);
    }
}

/// As after a power failure: what is there is whole, but not of one moment.
#[test]
fn a_sum_that_is_not_that_of_its_entries_is_found_when_all_of_it_agrees() {
    let bench = bench();
    let entries = bench.filled();
    let ledger = bench.open();
    let (key, _) = &entries[0];
    let partition = key.partition(terms().part_shift);
    let shared: PartitionSet = [partition].into_iter().collect();
    let raw = Connection::open(bench.path()).unwrap();
    assert_eq!(raw.execute("DELETE FROM entry WHERE key = ?", [key.0.to_be_bytes()]).unwrap(), 1);
    let sum = ledger.sum(&shared, Span::ALL).unwrap();
    assert!(!ledger.agree(OTHER, &shared, Span::ALL, sum).unwrap());
    assert_eq!(unsettled(&ledger, &[OTHER]).len(), entries.len() - 1);
    let right = ledger.sum(&shared, Span::ALL).unwrap();
    assert_eq!(right.count() + 1, sum.count());
    assert!(ledger.agree(OTHER, &shared, Span::ALL, right).unwrap());
    assert!(!ledger.mend_sum(partition).unwrap());
}

/// Checksums do not tell: each of the entries is whole.
#[test]
fn entries_out_of_order_are_damage() {
    let bench = bench();
    let entries: Vec<_> = (0..2).map(|nth| (key(nth), entry(nth))).collect();
    bench.open().update(&all_new(&entries)).unwrap();
    let root: u32 = Connection::open(bench.path())
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'entry'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = fs::read(bench.path()).unwrap();
    // Both are in the root of the tree; where each begins is said after the page's head of eight bytes.
    let cells = (root as usize - 1) * 4096 + 8;
    bytes[cells..cells + 4].rotate_left(2);
    fs::write(bench.path(), bytes).unwrap();
    assert_eq!(all(&bench.open()), []);
}

#[test]
fn a_peer_that_has_nothing_is_told_by_what_is_shared_with_it() {
    let bench = bench();
    let ledger = bench.open();
    let entries: Vec<_> = (0..2).map(|nth| (key(nth), entry(nth))).collect();
    let partitions = entries.iter().map(|(key, _)| key.partition(terms().part_shift)).collect::<Vec<_>>();
    assert_ne!(partitions[0], partitions[1]);
    ledger.update(&all_new(&entries)).unwrap();
    ledger.agree_singly(PEER, &states(&entries)).unwrap();
    ledger.disagree_span(PEER, &partitions[..1].iter().copied().collect(), Span::ALL).unwrap();
    assert_eq!(unsettled(&ledger, &[PEER]).iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(0)]);
}

#[test]
fn the_first_to_open_it_after_a_start_puts_all_sums_right() {
    let bench = bench();
    let entries = bench.filled();
    let raw = Connection::open(bench.path()).unwrap();
    // An entry without its sum, sums without their entry, an entry that stopped to agree, and one that is damaged.
    let partition = |at: usize| entries[at].0.partition(terms().part_shift);
    let last = entries.len() - 1;
    assert!(
        partition(0) != partition(100)
            && partition(200) != partition(300)
            && partition(300) != partition(last)
    );
    raw.execute("DELETE FROM part WHERE number = ?", [partition(0).0]).unwrap();
    let (first, end) =
        (Key::first_of(partition(100), terms().part_shift), Key::last_of(partition(100), terms().part_shift));
    raw.execute("DELETE FROM entry WHERE key BETWEEN ? AND ?", [first, end].map(|key| key.0.to_be_bytes()))
        .unwrap();
    let (key, mut entry) = entries[200].clone();
    entry.disagree(PEER);
    raw.execute(
        "UPDATE entry SET body = ? WHERE key = ?",
        rusqlite::params![entry.encode(key), key.0.to_be_bytes()],
    )
    .unwrap();
    raw.execute("UPDATE entry SET body = x'00' WHERE key = ?", [entries[last].0.0.to_be_bytes()]).unwrap();
    let shared = every_partition(terms());
    // As long as the machine has not started anew nobody looks.
    assert_eq!(unsettled(&bench.open(), &[PEER]), []);
    raw.execute("UPDATE terms SET boot = 'another'", []).unwrap();
    let ledger = bench.open();
    assert_eq!(unsettled(&ledger, &[PEER]), [(key, entry)]);
    let kept = all(&ledger);
    assert!(kept.len() < entries.len() - 1);
    assert_eq!(ledger.sum(&shared, Span::ALL).unwrap(), sum_of(kept.iter().map(|(key, entry)| (key, entry))));
    assert!((0..32).all(|partition| !ledger.mend_sum(Partition(partition)).unwrap()));
    let boot: String = raw.query_row("SELECT boot FROM terms", [], |row| row.get(0)).unwrap();
    assert_ne!(boot, "another");
}

#[test]
fn many_damaged_partitions_are_past_mending() {
    let bench = bench();
    bench.filled();
    let raw = Connection::open(bench.path()).unwrap();
    raw.execute("UPDATE entry SET body = x'00'", []).unwrap();
    let ledger = bench.open();
    assert_eq!(all(&ledger), []);
    assert_eq!(ledger.sum(&every_partition(terms()), Span::ALL).unwrap(), SetDigest::EMPTY);
}

#[test]
fn other_versions_terms_and_strangers_are_begun_anew() {
    let bench = bench();
    let known = bench.filled();
    let whole = fs::read(bench.path()).unwrap();
    let strangers = [
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 7",
        "UPDATE terms SET terms = 'others'",
        "DELETE FROM terms",
        "UPDATE survey SET body = 'text'",
        "UPDATE survey SET body = x'0102'",
        "UPDATE part SET body = 'text'",
        "UPDATE part SET body = x''",
        "UPDATE listing SET body = 'text'",
        "UPDATE listing SET body = zeroblob(32)",
        "UPDATE terms SET boot = x'00'",
        "UPDATE entry SET key = 'text' || key",
        "UPDATE entry SET key = CAST(key || x'00' AS BLOB)",
        "UPDATE entry SET body = 7",
        "UPDATE entry SET body = zeroblob(300000)",
        "CREATE TABLE z (a)",
        "CREATE INDEX z ON part (body)",
        "CREATE TRIGGER z AFTER INSERT ON entry BEGIN DELETE FROM part; END",
        "DROP TABLE part",
        "DROP TABLE part; CREATE VIEW part AS SELECT 1 AS number, 2 AS body",
        "PRAGMA journal_mode = WAL; UPDATE part SET body = x''",
    ];
    for sql in strangers {
        fs::write(bench.path(), &whole).unwrap();
        let raw = Connection::open(bench.path()).unwrap();
        raw.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        drop(raw);
        let ledger = bench.open();
        use_it(&ledger, &known.iter().cloned().collect());
        assert_eq!(all(&ledger).len(), 0, "{sql}");
    }
    fs::write(bench.path(), &whole).unwrap();
    assert_eq!(all(&bench.open()), known);
    let longer = Terms { reclaim_age: terms().reclaim_age * 2, ..terms() };
    assert_eq!(all(&Ledger::open(&bench.drive, longer).unwrap()), []);
    assert_eq!(all(&bench.open()), []);
}

#[test]
fn whatever_stands_in_its_place_makes_room() {
    let none = BTreeMap::new();
    let places: [fn(&Path); 6] = [
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
        |path| symlink("nowhere", path).unwrap(),
        |path| fs::write(path, "text").unwrap(),
        |path| fs::write(path, [7; 20_000]).unwrap(),
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
    ];
    for place in places {
        for ending in ["", "-journal", "-wal"] {
            let bench = bench();
            fs::create_dir(bench.path().parent().unwrap()).unwrap();
            let mut path = bench.path().into_os_string();
            path.push(ending);
            place(Path::new(&path));
            use_it(&bench.open(), &none);
            assert!(fs::symlink_metadata(bench.path()).unwrap().is_file());
        }
    }
    let bench = bench();
    let kept = bench.path().join("kept");
    fs::create_dir_all(bench.path()).unwrap();
    File::create(kept).unwrap();
    bench.open();
    assert!(bench.path().with_file_name("ledger.db.aside").join("kept").exists());
}

#[test]
fn without_a_place_for_it_there_is_none() {
    let bench = bench();
    fs::write(bench.path().parent().unwrap(), "").unwrap();
    let error = Ledger::open(&bench.drive, terms()).unwrap_err();
    assert!(error.to_string().contains("agent/ledger.db: the ledger cannot be used ("), "{error}");
    assert!(!bench.path().exists());
}

#[test]
fn a_drive_that_is_gone_is_not_filled_beneath() {
    let bench = bench();
    let ledger = bench.open();
    fs::rename(bench.drive.root(), bench.devices.path().join("away")).unwrap();
    assert!(!ledger.is_of(&bench.drive));
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap_err();
    assert!(!bench.drive.root().exists());
    // What was beneath it, on another file system.
    let beneath = tempfile::tempdir_in("/dev/shm").unwrap();
    symlink(beneath.path(), bench.drive.root()).unwrap();
    assert!(!ledger.is_of(&bench.drive));
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap_err();
    assert!(!beneath.path().join("agent").exists());
    fs::remove_file(bench.drive.root()).unwrap();
    fs::rename(bench.devices.path().join("away"), bench.drive.root()).unwrap();
    assert!(ledger.is_of(&bench.drive));
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap();
}

#[test]
fn a_file_that_another_process_replaces_or_removes_is_opened_again() {
    let bench = bench();
    let entries = bench.filled();
    let ledger = bench.open();
    assert_eq!(all(&ledger), entries);
    let aside = bench.path().with_extension("old");
    fs::rename(bench.path(), &aside).unwrap();
    assert_eq!(all(&ledger), []);
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap();
    assert_eq!(all(&bench.open()).len(), 1);
    fs::rename(&aside, bench.path()).unwrap();
    assert_eq!(all(&ledger), entries);
    fs::remove_dir_all(bench.path().parent().unwrap()).unwrap();
    ledger.update(&[(key(1), Some(entry(1)))]).unwrap();
    assert_eq!(all(&bench.open()), [(key(1), entry(1))]);
}

#[test]
fn threads_and_connections_take_turns() {
    let bench = bench();
    let shared = every_partition(terms());
    let ledgers = [bench.open(), bench.open()];
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (ledger, shared) = (&ledgers[thread as usize % 2], &shared);
            scope.spawn(move || {
                for round in 0..25 {
                    let nth = thread * 100 + round;
                    ledger.update(&[(key(nth), Some(entry(nth)))]).unwrap();
                    let sum = ledger.sum(shared, Span::ALL).unwrap();
                    ledger.agree(PEER, shared, Span::ALL, sum).unwrap();
                }
            });
        }
    });
    let entries = all(&ledgers[0]);
    assert_eq!(entries.len(), 100);
    assert_eq!(all(&ledgers[1]), entries);
    assert!((0..32).all(|partition| !ledgers[0].mend_sum(Partition(partition)).unwrap()));
}

/// Another process writes without pause and is killed: what it had done holds together.
#[test]
fn killed_at_any_moment_it_holds_together() {
    let bench = bench();
    for round in 0..6 {
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::the_other_process", "--ignored", "--nocapture"])
            .env("SWIFTLET_TEST_DEVICES", bench.devices.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let count = || bench.open().sum(&every_partition(terms()), Span::ALL).unwrap().count();
        let before = count();
        while count() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "the other process does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        other.kill().unwrap();
        other.wait().unwrap();
        let ledger = bench.open();
        assert!((0..32).all(|partition| !ledger.mend_sum(Partition(partition)).unwrap()));
        // Its transactions have a thousand each.
        let entries = all(&ledger);
        assert!(!entries.is_empty() && entries.len() % 1000 == 0, "{}", entries.len());
    }
}

#[test]
#[ignore = "the other process of the test above"]
fn the_other_process() {
    let Some(devices) = std::env::var_os("SWIFTLET_TEST_DEVICES") else { return };
    let drive = Drive::open(Path::new(&devices), &DeviceName::new("d0").unwrap(), false).unwrap();
    let ledger = Ledger::open(&drive, terms()).unwrap();
    let first = ledger.sum(&every_partition(terms()), Span::ALL).unwrap().count();
    for batch in 0.. {
        let entries = (0..1000).map(|nth| first + batch * 1000 + nth).map(|nth| (key(nth), Some(entry(nth))));
        ledger.update(&entries.collect::<Vec<_>>()).unwrap();
        // Whoever watches has his turn: SQLite's locks are not handed out in order.
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// On a drive that is named: a read-only one, or one too small.
#[test]
#[ignore = "needs a drive that refuses writes"]
fn a_drive_that_refuses_writes_is_an_error() {
    let Some(devices) = std::env::var_os("SWIFTLET_TEST_DEVICES") else { return };
    let drive = Drive::open(Path::new(&devices), &DeviceName::new("d0").unwrap(), false).unwrap();
    let attempt = || -> Result<(), LedgerError> {
        let ledger = Ledger::open(&drive, terms())?;
        for batch in 0..1000 {
            let entries = (0..1000).map(|nth| batch * 1000 + nth).map(|nth| (key(nth), Some(entry(nth))));
            if let Err(error) = ledger.update(&entries.collect::<Vec<_>>()) {
                println!("after {batch} batches; {} entries can still be read", all(&ledger).len());
                return Err(error);
            }
        }
        Ok(())
    };
    println!("{}", attempt().unwrap_err());
}

/// What it costs; run it in release, alone.
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    const ENTRIES: u64 = 300_000;
    let bench = bench();
    let fine = Terms { part_shift: PartShift::new(16).unwrap(), ..terms() };
    let ledger = Ledger::open(&bench.drive, fine).unwrap();
    let shared = every_partition(fine);
    let mut entries: Vec<_> = (0..ENTRIES).map(|nth| (key(nth), Some(entry(nth)))).collect();
    entries.sort_by_key(|(key, _)| *key);
    let begun = RefCell::new(Instant::now());
    let lap = |what: &str| println!("{what}: {:?}", begun.replace(Instant::now()).elapsed());
    entries.chunks(1000).for_each(|batch| ledger.update(batch).unwrap());
    lap("300,000 new entries, a thousand at a time");
    assert_eq!(all(&ledger).len(), entries.len());
    lap("all entries, page by page");
    let sum = ledger.sum(&shared, Span::ALL).unwrap();
    lap("the sum of all");
    assert!(ledger.agree(PEER, &shared, Span::ALL, sum).unwrap());
    lap("a first agreement");
    assert!(ledger.agree(PEER, &shared, Span::ALL, sum).unwrap());
    lap("a repeated agreement");
    assert_eq!(unsettled(&ledger, &[PEER]), []);
    lap("nothing unsettled");
    assert!(ledger.agree(OTHER, &shared, Span::ALL, sum).unwrap());
    lap("a first agreement with another");
    let changed: Vec<_> = entries.iter().step_by(100).map(|(key, _)| (*key, Some(entry(77)))).collect();
    begun.replace(Instant::now());
    changed.chunks(1000).for_each(|batch| ledger.update(batch).unwrap());
    lap("1 % changed");
    println!("{} unsettled", unsettled(&ledger, &[PEER, OTHER]).len());
    lap("what is unsettled");
    entries.chunks(1000).for_each(|batch| ledger.update(batch).unwrap());
    lap("300,000 entries replaced, a thousand at a time");
    entries.chunks(100).step_by(10).for_each(|batch| _ = ledger.entry(batch[0].0).unwrap());
    lap("300 entries, one at a time");
    (0..65_536).for_each(|partition| _ = ledger.mend_sum(Partition(partition)).unwrap());
    lap("all partitions mended");
    ledger.disagree_span(PEER, &shared, Span::ALL).unwrap();
    lap("a peer has nothing");
    ledger.rest();
    Connection::open(bench.path()).unwrap().execute("UPDATE terms SET boot = 'another'", []).unwrap();
    begun.replace(Instant::now());
    ledger.surveyed().unwrap();
    lap("opened after a start");
    ledger.rest();
    ledger.surveyed().unwrap();
    lap("opened again");
    println!("{} bytes", fs::metadata(bench.path()).unwrap().len());
}

#[test]
fn who_only_looks_changes_nothing_whatever_is_there() {
    let bench = bench();
    let look = |terms| Ledger::open_to_look(&bench.drive, terms);
    assert!(look(terms()).unwrap_err().cause.contains("none yet"));
    assert!(!bench.devices.path().join("d0/agent").exists(), "something was made");
    let entries = bench.filled();
    let writer = bench.open();
    let looking = look(terms()).unwrap();
    assert_eq!((all(&looking), unsettled(&looking, &[PEER])), (entries.clone(), vec![]));
    writer.disagree(PEER, &[entries[3].0]).unwrap();
    assert_eq!(unsettled(&looking, &[PEER]).len(), 1, "what another writes is seen");
    assert!(looking.update(&[(entries[3].0, None)]).is_err());
    drop(writer);

    let damage = |statement: &str| Connection::open(bench.path()).unwrap().execute_batch(statement).unwrap();
    let faults: [(&str, &str); 4] = [
        ("UPDATE terms SET boot = 'another'", "no pass has used it since the machine started"),
        ("PRAGMA user_version = 99", "version 99"),
        ("UPDATE part SET body = zeroblob(40)", "unreadable"),
        ("DROP TABLE entry", "none of ours"),
    ];
    let sound = fs::read(bench.path()).unwrap();
    for (statement, cause) in faults {
        fs::write(bench.path(), &sound).unwrap();
        damage(statement);
        let before = fs::read(bench.path()).unwrap();
        let looked = look(terms()).and_then(|ledger| ledger.unsettled(None, &|_| vec![PEER]));
        let error = looked.expect_err(statement);
        assert!(error.cause.contains(cause), "{statement}: {error}");
        assert!(fs::read(bench.path()).unwrap() == before, "{statement}: it was changed");
    }
    fs::write(bench.path(), &sound).unwrap();
    let others = Terms { reclaim_age: Duration::ZERO, ..terms() };
    assert!(look(others).unwrap_err().cause.contains("other terms"));
    assert!(fs::read(bench.path()).unwrap() == sound);
}
