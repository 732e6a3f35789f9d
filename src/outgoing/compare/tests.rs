//! Both halves of a comparison joined over a socket, each before a ledger that is no more than a list; and one half before
//! a liar.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::drive::Drive;
use crate::hash_path::Partition;
use crate::incoming::{Comparing, message_of};
use crate::ledger::{Entry, LEAVES_LIMIT, Ledger, Terms};
use crate::protocol::message::Message;
use crate::protocol::receiver::{self, Receiver};
use crate::replica::RowId;
use crate::stop::Stop;

/// A ledger in memory, and what it was told to remember.
#[derive(Debug, Default)]
struct Fake {
    content: Mutex<Content>,
    /// This database changes just before the next memory of spans that agree.
    changes: Mutex<Option<Key>>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    databases: Vec<(Key, StateDigest)>,
    /// The sum of all before each, and of all.
    sums: Vec<SetDigest>,
    /// What was remembered of each.
    agrees: Vec<Option<bool>>,
}

impl Content {
    fn of(databases: impl IntoIterator<Item = (Key, StateDigest)>) -> Content {
        let mut databases: Vec<(Key, StateDigest)> = databases.into_iter().collect();
        databases.sort_unstable_by_key(|(key, _)| *key);
        let mut sums = vec![SetDigest::EMPTY];
        for (key, state) in &databases {
            let mut sum = sums[sums.len() - 1];
            sum.add(*key, *state);
            sums.push(sum);
        }
        Content { agrees: vec![None; databases.len()], databases, sums }
    }

    fn within(&self, span: Span) -> std::ops::Range<usize> {
        let from = self.databases.partition_point(|(key, _)| *key < span.first());
        from..self.databases.partition_point(|(key, _)| *key <= span.last())
    }

    fn sum(&self, span: Span) -> SetDigest {
        let range = self.within(span);
        let mut sum = self.sums[range.end];
        sum -= self.sums[range.start];
        sum
    }

    fn nth(&self, key: Key) -> Option<usize> {
        self.databases.binary_search_by_key(&key, |(key, _)| *key).ok()
    }
}

impl Fake {
    fn of(databases: impl IntoIterator<Item = (Key, StateDigest)>) -> Fake {
        Fake::with(Content::of(databases))
    }

    fn with(content: Content) -> Fake {
        Fake { content: Mutex::new(content), changes: Mutex::new(None) }
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().expect("no panic")
    }

    fn agreed(&self) -> BTreeSet<Key> {
        self.remembered(true)
    }

    fn disagreed(&self) -> BTreeSet<Key> {
        self.remembered(false)
    }

    fn remembered(&self, what: bool) -> BTreeSet<Key> {
        let content = self.content();
        let databases = content.databases.iter().zip(&content.agrees);
        databases.filter(|(_, agrees)| **agrees == Some(what)).map(|((key, _), _)| *key).collect()
    }
}

impl Sums for Fake {
    fn sum(&self, _: &PartitionSet, span: Span) -> Result<SetDigest, LedgerError> {
        Ok(self.content().sum(span))
    }

    fn branches(&self, _: &PartitionSet, span: Span) -> Result<Vec<(Span, SetDigest)>, LedgerError> {
        let content = self.content();
        Ok(span.branches().into_iter().map(|branch| (branch, content.sum(branch))).collect())
    }

    fn leaves(&self, _: &PartitionSet, span: Span) -> Result<Option<Vec<(Key, StateDigest)>>, LedgerError> {
        let content = self.content();
        let range = content.within(span);
        Ok((range.len() <= LEAVES_LIMIT).then(|| content.databases[range].to_vec()))
    }

    fn agree(
        &self,
        _: DeviceId,
        _: &PartitionSet,
        which: &[(Span, SetDigest)],
    ) -> Result<Vec<bool>, LedgerError> {
        let mut content = self.content();
        if let Some(changed) = self.changes.lock().expect("no panic").take_if(|_| !which.is_empty()) {
            let changed = content.databases.iter().map(|(key, state)| match *key == changed {
                true => (*key, state_of(99)),
                false => (*key, *state),
            });
            *content = Content::of(changed.collect::<Vec<_>>());
        }
        let mut still = Vec::new();
        for (span, expected) in which {
            still.push(content.sum(*span) == *expected);
            if still.ends_with(&[true]) {
                let range = content.within(*span);
                content.agrees[range].fill(Some(true));
            }
        }
        Ok(still)
    }

    fn agree_singly(&self, _: DeviceId, which: &[(Key, StateDigest)]) -> Result<(), LedgerError> {
        let mut content = self.content();
        for (key, state) in which {
            if let Some(nth) = content.nth(*key).filter(|nth| content.databases[*nth].1 == *state) {
                content.agrees[nth] = Some(true);
            }
        }
        Ok(())
    }

    fn disagree(&self, _: DeviceId, which: &[Key]) -> Result<(), LedgerError> {
        let mut content = self.content();
        for key in which {
            let nth = content.nth(*key).expect("one of ours");
            content.agrees[nth] = Some(false);
        }
        Ok(())
    }

    fn disagree_span(&self, _: DeviceId, _: &PartitionSet, span: Span) -> Result<(), LedgerError> {
        let mut content = self.content();
        let range = content.within(span);
        content.agrees[range].fill(Some(false));
        Ok(())
    }
}

/// Two ends that have greeted each other.
fn ends() -> (Peer<UnixStream>, Peer<UnixStream>) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    let patience = Duration::from_secs(60);
    let theirs = thread::spawn(move || Peer::greet(other, patience, &Stop::default()).expect("a greeting"));
    let ours = Peer::greet(one, patience, &Stop::default()).expect("a greeting");
    (ours, theirs.join().expect("no panic"))
}

/// Every partition but each third; to a [`Fake`], all are the same.
fn shared() -> PartitionSet {
    (0..4096).filter(|number| number % 3 != 0).map(Partition).collect()
}

fn call(
    peer: &mut Peer<UnixStream>,
    ledger: &impl Sums,
    shared: &PartitionSet,
) -> Result<Compared, CompareError> {
    let pair = Pair {
        ours: DeviceId(1),
        theirs: DeviceId(2),
        device: DeviceName::new("sdb1").expect("a name"),
        part_shift: PartShift::new(20).expect("within 32"),
        shared,
    };
    compare(peer, ledger, &pair)
}

/// Answers with a ledger until the caller leaves; says what it was asked.
fn answer<L: Sums>(
    mut peer: Peer<UnixStream>,
    ledger: &Arc<L>,
    shared: &PartitionSet,
) -> Result<usize, PeerError> {
    let (mut receiver, mut comparing, mut asked) = (Receiver::start(), None::<Comparing<L>>, 0);
    loop {
        let message = match peer.hear() {
            Err(PeerError::Gone) => return Ok(asked),
            heard => heard?,
        };
        let (next, action) = receiver.hear(message)?;
        let sums = match action {
            receiver::Action::Compare(compare) => {
                let begun = comparing.insert(Comparing::new(ledger.clone(), shared.clone(), compare.asker));
                begun.start(compare.sum)
            }
            receiver::Action::Open { spans, alike } => {
                comparing.as_mut().expect("begun").open(&spans, &alike)
            }
            receiver::Action::Wait => {
                receiver = next;
                continue;
            }
            _ => panic!("nobody asked for that"),
        };
        let sums = sums.expect("no trouble");
        receiver = next.told(&sums);
        peer.say(&message_of(sums))?;
        asked += 1;
    }
}

/// What a comparison came to and cost.
struct Run {
    compared: Compared,
    bytes: u64,
    questions: usize,
}

fn run<L: Sums>(ours: &L, theirs: &Arc<L>) -> Run {
    let shared = &shared();
    let (mut near, far) = ends();
    thread::scope(|scope| {
        let answering = scope.spawn(move || answer(far, theirs, shared));
        let compared = call(&mut near, ours, shared).expect("no trouble");
        let (sent, received) = near.bytes();
        drop(near);
        let questions = answering.join().expect("no panic").expect("no trouble");
        Run { compared, bytes: sent + received, questions }
    })
}

fn state_of(number: u32) -> StateDigest {
    let mut state = [7; 16];
    state[..4].copy_from_slice(&number.to_be_bytes());
    StateDigest(state)
}

/// The key of the nth database, anywhere.
fn key_of(number: u32) -> Key {
    let hash = blake3::hash(&number.to_be_bytes());
    Key(u128::from_be_bytes(hash.as_bytes()[..16].try_into().expect("sixteen")))
}

fn many(count: u32) -> impl Iterator<Item = (Key, StateDigest)> {
    (0..count).map(|number| (key_of(number), state_of(0)))
}

/// Where a database is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Equal,
    Differing,
    Ours,
    Theirs,
}

/// Runs a comparison of databases that are there or there, and checks what both sides make of it.
fn check(databases: &BTreeMap<Key, Where>) -> Run {
    let of = |wanted: &[Where], state| {
        let there = databases.iter().filter(move |(_, at)| wanted.contains(at));
        there
            .map(|(key, at)| (*key, state_of(if *at == Where::Equal { 0 } else { state })))
            .collect::<Vec<_>>()
    };
    let keys = |wanted: &[Where]| of(wanted, 0).into_iter().map(|(key, _)| key).collect::<BTreeSet<Key>>();
    let ours = Fake::of(of(&[Where::Equal, Where::Differing, Where::Ours], 1));
    let theirs = Arc::new(Fake::of(of(&[Where::Equal, Where::Differing, Where::Theirs], 2)));
    let run = run(&ours, &theirs);
    let (equal, other) = (keys(&[Where::Equal]), keys(&[Where::Differing, Where::Ours]));
    let told = Compared::Told { alike: equal.len() as u64, differing: other.len() as u64 };
    assert_eq!(run.compared, told);
    assert_eq!(ours.agreed(), equal);
    assert_eq!(ours.disagreed(), other);
    assert_eq!(theirs.agreed(), equal);
    assert_eq!(theirs.disagreed(), BTreeSet::new());
    run
}

#[test]
fn a_verdict_on_every_kind_of_branch() {
    let sum = |number: u32| {
        let mut sum = SetDigest::EMPTY;
        sum.add(key_of(number), state_of(0));
        sum
    };
    let (none, one, other) = (SetDigest::EMPTY, sum(1), sum(2));
    for (ours, theirs, verdict) in [
        (none, none, Verdict::Alike),
        (one, one, Verdict::Alike),
        (none, one, Verdict::NotOurs),
        (one, none, Verdict::NotTheirs),
        (one, other, Verdict::Open),
    ] {
        assert_eq!(Verdict::on(ours, theirs.short()), verdict, "{ours:?} {theirs:?}");
    }
}

#[test]
fn few_and_many_here_and_there() {
    for ours in [0, 1, LEAVES_LIMIT as u32, LEAVES_LIMIT as u32 + 1, 3000] {
        for theirs in [0, 1, LEAVES_LIMIT as u32, LEAVES_LIMIT as u32 + 1, 3000] {
            for (both, differing) in [(0, 0), (10, 0), (0, 1), (40, 7)] {
                let at = |number: u32| match number {
                    number if number < both => Where::Equal,
                    number if number < both + differing => Where::Differing,
                    number if number < both + differing + ours => Where::Ours,
                    _ => Where::Theirs,
                };
                let all = (0..both + differing + ours + theirs).map(|number| (key_of(number), at(number)));
                check(&all.collect());
            }
        }
    }
}

#[test]
fn cost_follows_the_difference() {
    const COUNT: u32 = 300_000;
    let all = Content::of(many(COUNT));
    let with = |changed: &dyn Fn(u32) -> bool| {
        let ours = Fake::of((0..COUNT).map(|number| (key_of(number), state_of(u32::from(changed(number))))));
        let theirs = Arc::new(Fake::with(all.clone()));
        let run = run(&ours, &theirs);
        let changed: BTreeSet<Key> = (0..COUNT).filter(|number| changed(*number)).map(key_of).collect();
        let alike = u64::from(COUNT) - changed.len() as u64;
        assert_eq!(run.compared, Compared::Told { alike, differing: changed.len() as u64 });
        assert!(ours.disagreed() == changed && theirs.disagreed().is_empty());
        let agreed = ours.agreed();
        assert!(agreed.len() as u64 == alike && theirs.agreed() == agreed);
        (run.bytes, run.questions)
    };
    let none = with(&|_| false);
    let one = with(&|number| number == 5);
    let percent = with(&|number| number % 100 == 0);
    println!("of {COUNT}, bytes and questions where none differs: {none:?}, one: {one:?}, 1 %: {percent:?}");
    assert!(none.0 < 100 && none.1 == 1, "{none:?}");
    assert!(one.0 < 1000 && one.1 < 10, "{one:?}");
    assert!(percent.0 < 250 * u64::from(COUNT) / 100, "{percent:?}");
}

#[test]
fn ledgers_on_drives_learn_the_same() {
    const COUNT: u32 = 12_000;
    let part_shift = PartShift::new(20).expect("within 32");
    let day = Duration::from_secs(86_400);
    let terms = Terms { part_shift, reclaim_age: 7 * day, full_check_interval: day };
    let devices = tempfile::tempdir().expect("a directory");
    let ledger = |name: &str, databases: &dyn Fn(u32) -> Option<u32>| {
        std::fs::create_dir(devices.path().join(name)).expect("room");
        let name = DeviceName::new(name).expect("a name");
        let drive = Drive::open(devices.path(), &name, false).expect("there");
        let ledger = Ledger::open(&drive, terms).expect("opened");
        let of = |number: u32| Some((key_of(number), Some(entry(databases(number)?))));
        ledger.update(&(0..COUNT).filter_map(of).collect::<Vec<_>>()).expect("written");
        ledger
    };
    // One of a hundred is ours alone, one theirs alone, one different.
    let ours = ledger("d1", &|number| (number % 100 != 1).then_some(u32::from(number % 100 == 3)));
    let theirs = Arc::new(ledger("d2", &|number| (number % 100 != 2).then_some(0)));
    let shared = shared();
    let unsettled = |ledger: &Ledger, with: u32| {
        let (mut all, mut after) = (BTreeSet::new(), None);
        loop {
            let peers = |partition| if shared.contains(partition) { vec![DeviceId(with)] } else { vec![] };
            let page = ledger.unsettled(after, &peers).expect("read");
            let Some((last, _)) = page.last() else { return all };
            after = Some(*last);
            all.extend(page.into_iter().map(|(key, _)| key));
        }
    };
    let keys = |wanted: &dyn Fn(u32) -> bool| {
        let keys = (0..COUNT).filter(|number| wanted(*number)).map(key_of);
        keys.filter(|key| shared.contains(key.partition(part_shift))).collect::<BTreeSet<Key>>()
    };
    let (equal, other) =
        (keys(&|number| !(1..4).contains(&(number % 100))), keys(&|n| (2..4).contains(&(n % 100))));
    for _ in 0..2 {
        let run = run(&ours, &theirs);
        let told = Compared::Told { alike: equal.len() as u64, differing: other.len() as u64 };
        assert_eq!(run.compared, told);
        assert_eq!(unsettled(&ours, 2), other);
        assert_eq!(unsettled(&theirs, 1), keys(&|number| [1, 3].contains(&(number % 100))));
    }
    // They come to be equal, and of all of them no more is said than one sum.
    let there = |number: u32| (key_of(number), Some(entry(0)));
    for ledger in [&ours, &*theirs] {
        ledger
            .update(&(0..COUNT).filter(|n| (1..4).contains(&(n % 100))).map(there).collect::<Vec<_>>())
            .expect("written");
    }
    let run = run(&ours, &theirs);
    assert_eq!(run.compared, Compared::Told { alike: keys(&|_| true).len() as u64, differing: 0 });
    assert_eq!(run.questions, 1);
    assert!(unsettled(&ours, 2).is_empty() && unsettled(&theirs, 1).is_empty());
}

fn entry(state: u32) -> Entry {
    Entry {
        seen: Some([1; 16]),
        state: state_of(state),
        replica: [2; 8],
        max_row: RowId(5),
        met_row: RowId(5),
        due_secs: u64::MAX >> 1,
        introduce: false,
        agreements: vec![],
    }
}

#[test]
fn what_changes_meanwhile_is_not_said_to_agree() {
    let odd = key_of(5);
    let databases = |other: u32| {
        many(400).map(move |(key, state)| (key, if key == key_of(300) { state_of(other) } else { state }))
    };
    for ours_changes in [true, false] {
        for other in [0, 1] {
            let (ours, theirs) = (Fake::of(databases(other)), Arc::new(Fake::of(databases(0))));
            let changes = if ours_changes { &ours } else { &*theirs };
            *changes.changes.lock().expect("no panic") = Some(odd);
            run(&ours, &theirs);
            assert!(!changes.agreed().contains(&odd), "{other}");
            for key in changes.agreed() {
                assert_ne!((other, key), (1, key_of(300)));
            }
        }
    }
    // Where it is seen in time, only the one that changed is lost to the memory of either.
    let (ours, theirs) = (Fake::of(databases(1)), Arc::new(Fake::of(databases(0))));
    *ours.changes.lock().expect("no panic") = Some(odd);
    assert_eq!(run(&ours, &theirs).compared, Compared::Told { alike: 398, differing: 2 });
    assert_eq!(ours.agreed(), theirs.agreed());
    assert_eq!(ours.disagreed(), [odd, key_of(300)].into());
}

#[test]
fn a_refusal_ends_it_and_the_connection_is_as_good_as_before() {
    let ours = Fake::of(many(500));
    for answers in [0, 1, 2] {
        let (mut near, mut far) = ends();
        let told = Mutex::new(Comparing::new(Arc::new(Fake::of(many(900))), shared(), DeviceId(1)));
        thread::scope(|scope| {
            let refusing = scope.spawn(move || {
                let mut told = told.into_inner().expect("no panic");
                for nth in 0..=answers {
                    let heard = far.hear().expect("a question");
                    far.say(&Message::Working).expect("it listens");
                    let sums = match heard {
                        Message::Compare(compare) => told.start(compare.sum),
                        Message::Open { spans, alike } => told.open(&spans, &alike),
                        other => panic!("{other:?}"),
                    };
                    let said = match nth == answers {
                        true => Message::Refused(Refusal::NoLedger),
                        false => message_of(sums.expect("no trouble")),
                    };
                    far.say(&said).expect("it listens");
                }
                far
            });
            assert_eq!(
                call(&mut near, &ours, &shared()).expect("no trouble"),
                Compared::Refused(Refusal::NoLedger)
            );
            let far = refusing.join().expect("no panic");
            let theirs = Arc::new(Fake::of(many(500)));
            let answering = scope.spawn(move || answer(far, &theirs, &shared()));
            let again = call(&mut near, &ours, &shared()).expect("no trouble");
            assert_eq!(again, Compared::Told { alike: 500, differing: 0 });
            drop(near);
            answering.join().expect("no panic").expect("no trouble");
        });
    }
}

/// What a liar tells of a span.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Branches,
    Nothing,
    TrueLeaves,
    LeavesOf(u128),
    Unsorted,
    TooFew,
    TooMany,
}

fn lies() -> impl Strategy<Value = Lie> {
    prop_oneof![
        20 => Just(Lie::Branches),
        4 => Just(Lie::Nothing),
        4 => Just(Lie::TrueLeaves),
        1 => any::<u128>().prop_map(Lie::LeavesOf),
        1 => Just(Lie::Unsorted),
        1 => Just(Lie::TooFew),
        1 => Just(Lie::TooMany),
    ]
}

/// Databases in a few places, so that the tree grows deep in some of them.
fn placed() -> impl Strategy<Value = Key> {
    (0..4_u8, 0..32_u8, any::<u8>(), any::<u128>()).prop_map(|(cluster, digits, low, any)| match cluster {
        0 => Key(any),
        1 => Key(u128::MAX - u128::from(low)),
        _ => Key((u128::from(low) << (4 * u32::from(digits))) | u128::from(cluster)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn both_sides_learn_just_what_is_equal(
        databases in proptest::collection::btree_map(
            placed(),
            prop_oneof![
                20 => Just(Where::Equal),
                1 => Just(Where::Differing),
                2 => Just(Where::Ours),
                2 => Just(Where::Theirs),
            ],
            0..600,
        ),
    ) {
        check(&databases);
    }

    #[test]
    fn a_liar_is_found_out_or_tires_and_nothing_agrees_that_it_did_not_claim(
        keys in proptest::collection::btree_set(placed(), 1..60),
        lies in proptest::collection::vec(lies(), 1..40),
        echo in any::<u64>(),
    ) {
        let ours = Fake::of(keys.iter().map(|key| (*key, state_of(0))));
        let (mut near, mut far) = ends();
        let questions = AtomicUsize::new(0);
        let claimed = Mutex::new(BTreeSet::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                let far = &mut far;
                let mut lies = lies.iter().cycle();
                let mut random = echo | 1;
                let mut spans = vec![Span::ALL];
                loop {
                    match far.hear() {
                        Ok(Message::Compare(_)) => {}
                        Ok(Message::Open { spans: next, .. }) => spans = next,
                        Ok(Message::Working) => continue,
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => return,
                    }
                    questions.fetch_add(1, Ordering::Relaxed);
                    let mut sums: Vec<Opened> = Vec::new();
                    for span in &spans {
                        let mut digest = || {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            ShortDigest(random.to_be_bytes())
                        };
                        match lies.next().expect("no end of lies") {
                            Lie::Branches => sums.push(Opened::Branches([(); 16].map(|()| digest()))),
                            Lie::Nothing => sums.push(Opened::Leaves(vec![])),
                            Lie::TrueLeaves => {
                                let leaves = keys.range(span.first()..=span.last()).take(LEAVES_LIMIT);
                                let leaves: Vec<_> = leaves.map(|key| (*key, state_of(0).short())).collect();
                                claimed.lock().expect("no panic").extend(leaves.iter().map(|(key, _)| *key));
                                sums.push(Opened::Leaves(leaves));
                            }
                            Lie::LeavesOf(key) => sums.push(Opened::Leaves(vec![(Key(*key), digest())])),
                            Lie::Unsorted => {
                                let leaves = [span.last(), span.first()].map(|key| (key, digest()));
                                sums.push(Opened::Leaves(leaves.to_vec()));
                            }
                            Lie::TooFew => drop(sums.pop()),
                            Lie::TooMany => sums.extend([Opened::Leaves(vec![]), Opened::Leaves(vec![])]),
                        }
                    }
                    sums.truncate(64);
                    let said = if spans.is_empty() { Message::Alike } else { Message::Sums(sums) };
                    if far.say(&said).is_err() {
                        return;
                    }
                }
            });
            let compared = call(&mut near, &ours, &shared());
            drop(near);
            match compared {
                Ok(_) | Err(CompareError::Peer(PeerError::Violation(_))) => {}
                other => panic!("{other:?}"),
            }
        });
        // Each question opens a span in which there is something of ours, and none twice.
        prop_assert!(questions.into_inner() <= 2 + keys.len() * usize::from(Span::DIGITS_LIMIT));
        let claimed = claimed.into_inner().expect("no panic");
        let agreed = ours.agreed();
        prop_assert!(agreed.is_subset(&claimed), "{:?}", agreed.difference(&claimed));
    }
}
