//! The two halves joined in memory, each before a replica that is no more than a map.
//!
//! Every message goes through its bytes. A conversation is cut after each of its messages in turn: whatever was done by
//! then, nothing is lost, no sync point promises too much, and one clean exchange makes the two agree. Which of two
//! waiting messages arrives first is chosen by a seed that a failure prints.

use std::collections::{BTreeMap, VecDeque};

use super::comparison::{self, Comparison, Weighed};
use super::message::{
    Agreed, Basis, Compare, Intent, Meet, Message, Opened, Place, Refusal, Role, Settled, Shape,
};
use super::receiver::{self, Receiver};
use super::sender::{self, Known, Limits, Outcome, Sender};
use super::wire::{Inbox, encode};
use super::{RANGES_LIMIT, RANGES_PER_MESSAGE, SPANS_LIMIT, Violation};
use crate::drive::DeviceName;
use crate::hash_path::{Hash, PartShift, Partition};
use crate::ledger::{Key, LEAVES_LIMIT, ShortDigest, Span};
use crate::merge;
use crate::replica::{
    DbState, Metadata, MetadataItem, PolicyIndex, ReplicaId, ReplicaInfo, Row, RowHash, RowId, ShardRange,
    SyncPoint,
};
use crate::ring::DeviceId;
use crate::strategy::{Agreement, Strategy};
use crate::timestamp::{Stamp, Timestamp};

/// A replica in memory.
#[derive(Debug, Clone, PartialEq)]
struct Replica {
    id: ReplicaId,
    /// By number. A name occurs once.
    rows: BTreeMap<i64, (String, u64)>,
    last: i64,
    incoming: BTreeMap<ReplicaId, RowId>,
    outgoing: BTreeMap<ReplicaId, RowId>,
    metadata: Metadata,
    ranges: BTreeMap<String, ShardRange>,
    sharding: bool,
    page_bytes: u32,
    /// Deltas against this one come out wrong.
    spoils_deltas: bool,
    whole_files_taken: u32,
}

impl Replica {
    fn new(id: &str) -> Replica {
        Replica {
            id: ReplicaId::new(id).unwrap(),
            rows: BTreeMap::new(),
            last: -1,
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            metadata: Metadata::default(),
            ranges: BTreeMap::new(),
            sharding: false,
            page_bytes: 4096,
            spoils_deltas: false,
            whole_files_taken: 0,
        }
    }

    /// Rows `first..end`, all put at one time.
    fn with(mut self, rows: std::ops::Range<u32>, time: u64) -> Replica {
        rows.for_each(|row| self.put(&format!("row {row:03}"), time));
        self
    }

    /// As if so many rows had come and gone: their numbers make rows dear and the file cheap.
    fn aged(mut self, numbers: i64) -> Replica {
        self.last += numbers;
        self
    }

    fn tagged(mut self, key: &str, value: &str, time: u64) -> Replica {
        let stamp = Stamp::from(Timestamp::new(time, 0).unwrap());
        self.metadata.0.push(MetadataItem { key: key.into(), value: value.into(), stamp });
        self
    }

    fn put(&mut self, name: &str, time: u64) {
        let old = self.rows.iter().find(|(_, row)| row.0 == name).map(|(number, row)| (*number, row.1));
        if let Some((number, before)) = old {
            if before >= time {
                return;
            }
            self.rows.remove(&number);
        }
        self.last = self.last.max(0) + 1;
        self.rows.insert(self.last, (name.to_owned(), time));
    }

    fn content(&self) -> BTreeMap<&str, u64> {
        self.rows.values().map(|(name, time)| (name.as_str(), *time)).collect()
    }

    /// Has every row, in this version or a later one.
    fn holds(&self, others: &BTreeMap<&str, u64>) -> bool {
        let content = self.content();
        others.iter().all(|(name, time)| content.get(name).is_some_and(|here| here >= time))
    }

    fn info(&self) -> ReplicaInfo {
        let mut hash = RowHash::default();
        self.rows.values().for_each(|(name, time)| hash.mix(name, &time.to_string()));
        let mut digest = [0; 16];
        for range in self.ranges.keys() {
            digest.iter_mut().zip(blake3::hash(range.as_bytes()).as_bytes()).for_each(|(d, b)| *d ^= b);
        }
        ReplicaInfo {
            hash,
            count: self.rows.len() as i64,
            max_row: RowId(self.last),
            shard_max_row: RowId(self.ranges.len() as i64 - 1),
            metadata: self.metadata.clone(),
            sharding_initiated: self.sharding,
            ranges_digest: digest,
            page_bytes: self.page_bytes,
            ..info(self.id.as_str())
        }
    }

    /// The file: rows in windows of four, then the number of the last row.
    fn file(&self) -> Vec<Vec<u8>> {
        let rows: Vec<_> = self.rows.iter().collect();
        rows.chunks(4).map(|window| serde_json::to_vec(window).unwrap()).collect()
    }

    fn of_file(id: &str, windows: &[Vec<u8>], last: i64) -> Replica {
        let rows = windows.iter().flat_map(|window| {
            let rows: Vec<(i64, (String, u64))> = serde_json::from_slice(window).unwrap();
            rows
        });
        Replica { rows: rows.collect(), last, ..Replica::new(id) }
    }

    fn raise(points: &mut BTreeMap<ReplicaId, RowId>, id: &ReplicaId, point: RowId) {
        let known = points.entry(id.clone()).or_insert(RowId::NONE);
        *known = (*known).max(point);
    }

    fn points(points: &BTreeMap<ReplicaId, RowId>) -> Vec<SyncPoint> {
        points.iter().map(|(id, point)| SyncPoint { remote_id: id.clone(), point: *point }).collect()
    }

    fn take_over(&mut self, theirs: &ReplicaInfo) {
        if let Some(merged) = merge::merge_metadata(&self.metadata, &theirs.metadata) {
            self.metadata = merged;
        }
    }

    fn merge_ranges(&mut self, ranges: Vec<ShardRange>) {
        self.ranges.extend(ranges.into_iter().map(|range| (range.name.clone(), range)));
    }
}

fn digest_of(windows: &[Vec<u8>]) -> [u8; 32] {
    *blake3::hash(&windows.concat()).as_bytes()
}

fn window_digest(window: &[u8]) -> [u8; 16] {
    blake3::hash(window).as_bytes()[..16].try_into().unwrap()
}

/// What is wrong with the world in one run.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    /// The link is gone after so many messages, both ways counted.
    cut_after: Option<usize>,
    /// The receiver refuses the work that comes after so much of it.
    refuse_after: Option<usize>,
    seed: u64,
}

/// How an exchange went.
#[derive(Debug)]
struct Run {
    outcome: Option<Outcome>,
    messages: usize,
    works: usize,
    heard: Vec<&'static str>,
}

/// The driver of the calling half.
struct Caller<'a> {
    replica: &'a mut Replica,
    file: Vec<Vec<u8>>,
    max_row: RowId,
    says: VecDeque<Message>,
    batch: usize,
}

impl Caller<'_> {
    /// Does what is to be done until there is nothing left but to listen.
    fn act(&mut self, mut sender: Sender, actions: Vec<sender::Action>) -> (Sender, Option<Outcome>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let more = match action {
                sender::Action::Say(message) => {
                    self.says.push_back(message);
                    continue;
                }
                sender::Action::Adopt(theirs) => {
                    self.replica.take_over(&theirs);
                    continue;
                }
                sender::Action::TellRanges => {
                    self.says.extend(ranges_of(self.replica));
                    continue;
                }
                sender::Action::MergeRanges(ranges) => {
                    self.replica.merge_ranges(ranges);
                    let sharding = self.replica.sharding;
                    sender.ranges_merged(sharding)
                }
                sender::Action::SendRows { after, .. } => {
                    let rows = self.replica.rows.range(after.0 + 1..).take(self.batch);
                    let rows: Vec<Row> = rows.map(|(id, (name, time))| row(*id, name, *time)).collect();
                    let last = rows.last().and_then(|row| row.row_id);
                    if last.is_some() {
                        self.says.push_back(Message::Rows { rows });
                    }
                    sender.sent_rows(last.unwrap_or(after), last.is_some())
                }
                sender::Action::Offer => {
                    self.file = self.replica.file();
                    self.max_row = RowId(self.replica.last);
                    let shape = Shape {
                        file_bytes: self.file.len() as u64,
                        page_bytes: self.replica.page_bytes,
                        window_bytes: 1,
                    };
                    self.says.push_back(Message::Offer { shape, epoch: None });
                    continue;
                }
                sender::Action::Weigh(basis) => {
                    let same = basis.page_bytes == self.replica.page_bytes && !basis.sample.is_empty();
                    sender.weighed(same.then_some(1.0))
                }
                sender::Action::SendFile => {
                    self.says.extend(self.file.iter().cloned().map(Message::Literal));
                    self.say_file_done();
                    continue;
                }
                sender::Action::SendWindows => {
                    self.says.push_back(Message::Windows(
                        self.file.iter().map(|window| window_digest(window)).collect(),
                    ));
                    continue;
                }
                sender::Action::TellPages { window } => {
                    self.says.push_back(Message::Pages { window, digests: vec![1] });
                    continue;
                }
                sender::Action::MakePatch { window, .. } => {
                    let patch = self.patch(window);
                    self.says.push_back(patch);
                    continue;
                }
                sender::Action::TellFileDone => {
                    self.say_file_done();
                    continue;
                }
                sender::Action::Remember { id, point, restart } => {
                    let point = point.unwrap_or(self.max_row);
                    if restart {
                        self.replica.outgoing.insert(id, point);
                    } else {
                        Replica::raise(&mut self.replica.outgoing, &id, point);
                    }
                    continue;
                }
                sender::Action::Distrust(id) => {
                    self.replica.incoming.insert(id, RowId::NONE);
                    continue;
                }
                sender::Action::Finish(outcome) => return (sender, Some(outcome)),
            };
            assert!(actions.is_empty(), "what depends on the driver's word comes last");
            (sender, actions) = (more.0, more.1.into());
        }
        (sender, None)
    }

    fn patch(&self, window: u32) -> Message {
        Message::Patch { window, patch: self.file[window as usize].clone() }
    }

    fn say_file_done(&mut self) {
        let digest = digest_of(&self.file);
        self.says.push_back(Message::FileDone { digest, max_row: self.max_row });
    }
}

/// The driver of the answering half.
struct Answerer<'a> {
    replica: &'a mut Option<Replica>,
    meet: Option<Box<Meet>>,
    staged: Vec<Vec<u8>>,
    /// Digests of the sender's windows, and which of them are yet to be made.
    announced: Option<Vec<[u8; 16]>>,
    unmade: Vec<u32>,
    says: VecDeque<Message>,
}

impl Answerer<'_> {
    fn act(&mut self, receiver: Receiver, action: receiver::Action) -> Result<Receiver, Violation> {
        let sender = self.meet.as_ref().map(|meet| meet.info.id.clone());
        match action {
            receiver::Action::Wait => return Ok(receiver),
            receiver::Action::Compare(_) | receiver::Action::Open { .. } | receiver::Action::TellTime => {
                unreachable!("nobody asks")
            }
            receiver::Action::Meet(meet) => {
                (self.staged, self.announced) = (vec![], None);
                let said = match &mut *self.replica {
                    None => Message::Missing,
                    Some(replica) => {
                        let mut point = replica.incoming.get(&meet.info.id).copied().unwrap_or(RowId::NONE);
                        let info = replica.info();
                        replica.take_over(&meet.info);
                        if info.hash == meet.info.hash && point < meet.info.max_row {
                            point = meet.info.max_row;
                            replica.incoming.insert(meet.info.id.clone(), point);
                        }
                        match info.agrees_with(&meet.info) {
                            true => {
                                Message::Equal { id: info.id, max_row: info.max_row, point, agreed: None }
                            }
                            false => Message::Here { info: Box::new(info), point, agreed: None },
                        }
                    }
                };
                self.meet = Some(meet);
                self.says.push_back(said);
                return Ok(receiver.met(self.replica.is_some()));
            }
            receiver::Action::ExchangeRanges(ranges) => {
                let replica = self.replica.as_mut().expect("met");
                replica.merge_ranges(ranges);
                self.says.extend(ranges_of(replica));
            }
            receiver::Action::MergeRows(rows) => {
                let through = rows.last().and_then(|row| row.row_id).ok_or(Violation::Lie("no rows"))?;
                self.merge(&rows);
                self.says.push_back(Message::Took { through });
            }
            receiver::Action::FinishRows { through, restart, points } => {
                let sender = sender.expect("met");
                let replica = self.replica.as_mut().expect("met");
                if restart {
                    replica.incoming.insert(sender.clone(), through);
                    replica.outgoing.insert(sender, RowId::NONE);
                } else {
                    Replica::raise(&mut replica.incoming, &sender, through);
                }
                points.iter().for_each(|p| Replica::raise(&mut replica.incoming, &p.remote_id, p.point));
                self.say_settled();
            }
            receiver::Action::Prepare { .. } => {
                let basis = self.replica.as_ref().map(|replica| Basis {
                    file_bytes: 1,
                    page_bytes: replica.page_bytes,
                    sample: replica.file().concat().into_iter().take(1).collect(),
                });
                self.says.push_back(Message::Accept(basis));
            }
            receiver::Action::Append(window) => self.staged.push(window),
            receiver::Action::Amend { window, bytes, .. } => {
                let slot = self.staged.get_mut(window as usize).ok_or(Violation::Lie("no such window"))?;
                *slot = bytes;
            }
            receiver::Action::CompareWindows(digests) => {
                let basis = self.replica.as_ref().expect("a delta needs one").file();
                self.staged =
                    (0..digests.len()).map(|at| basis.get(at).cloned().unwrap_or_default()).collect();
                let differs = |at: &usize| window_digest(&self.staged[*at]) != digests[*at];
                self.unmade = (0..digests.len()).filter(differs).map(|at| at as u32).collect();
                self.announced = Some(digests);
                for &window in &self.unmade {
                    self.says.push_back(Message::Differs { window });
                }
                self.say_rebuilt();
            }
            receiver::Action::FindPages { window, .. } => {
                let want = Message::Want { window, pages: vec![1], blocks: vec![], signature: vec![1] };
                self.says.push_back(want);
            }
            receiver::Action::Apply { window, patch, .. } => {
                let slot = self.staged.get_mut(window as usize).ok_or(Violation::Lie("no such window"))?;
                *slot = patch;
                self.unmade.retain(|unmade| *unmade != window);
                self.say_rebuilt();
            }
            receiver::Action::Install { digest, max_row } => {
                let delta = self.announced.take().is_some();
                let spoilt = delta && self.replica.as_ref().is_some_and(|replica| replica.spoils_deltas);
                if digest_of(&self.staged) != digest || spoilt {
                    assert!(delta, "the whole file came out wrong");
                    self.staged.clear();
                    self.says.push_back(Message::Mismatch);
                    return Ok(receiver);
                }
                self.install(&sender.expect("met"), max_row);
                self.say_settled();
            }
        }
        Ok(receiver)
    }

    fn merge(&mut self, rows: &[Row]) {
        let replica = self.replica.as_mut().expect("met");
        rows.iter()
            .for_each(|row| replica.put(&row.name, row.created_at.parse::<Timestamp>().unwrap().raw()));
    }

    /// The arrived file with a new id, and with what the old one had.
    fn install(&mut self, sender: &ReplicaId, max_row: RowId) {
        let old = self.replica.take();
        let taken = old.as_ref().map_or(0, |old| old.whole_files_taken) + 1;
        let mut new = Replica::of_file(&format!("file {taken} of {sender}"), &self.staged, max_row.0);
        new.whole_files_taken = taken;
        new.take_over(&self.meet.as_ref().expect("met").info);
        if let Some(old) = old {
            old.rows.values().for_each(|(name, time)| new.put(name, *time));
            new.take_over(&old.info());
            new.incoming = old.incoming;
            new.ranges = old.ranges;
            new.page_bytes = old.page_bytes;
        }
        new.incoming.insert(sender.clone(), max_row);
        *self.replica = Some(new);
    }

    fn say_settled(&mut self) {
        let info = self.replica.as_ref().expect("settled").info();
        self.says.push_back(Message::Settled(Settled {
            id: info.id,
            hash: info.hash,
            max_row: info.max_row,
        }));
    }

    fn say_rebuilt(&mut self) {
        if self.unmade.is_empty() {
            self.says.push_back(Message::Rebuilt);
        }
    }
}

fn ranges_of(replica: &Replica) -> Vec<Message> {
    let ranges: Vec<ShardRange> = replica.ranges.values().cloned().collect();
    let parts = ranges.chunks(RANGES_PER_MESSAGE).count().max(1);
    (0..parts)
        .map(|part| Message::Ranges {
            ranges: ranges.iter().skip(part * RANGES_PER_MESSAGE).take(RANGES_PER_MESSAGE).cloned().collect(),
            more: part + 1 < parts,
        })
        .collect()
}

/// Through its bytes, as on a link.
fn carried(message: Message) -> Message {
    let mut inbox = Inbox::default();
    inbox.feed(&encode(&message));
    inbox.next_message().expect("our own words").expect("all of them")
}

/// One exchange.
fn exchange(caller: &mut Replica, other: &mut Option<Replica>, plan: &Plan, trouble: Trouble) -> Run {
    let meet = Meet { place: place(), info: caller.info(), intent: plan.intent, ..meet_of("a", plan.intent) };
    let known =
        Known { outgoing: Replica::points(&caller.outgoing), incoming: Replica::points(&caller.incoming) };
    let (sender, actions) = Sender::start(meet, known, Limits { max_batches: plan.max_batches });
    let mut caller =
        Caller { replica: caller, file: vec![], max_row: RowId::NONE, says: VecDeque::new(), batch: 2 };
    let mut answerer = Answerer {
        replica: other,
        meet: None,
        staged: vec![],
        announced: None,
        unmade: vec![],
        says: VecDeque::new(),
    };
    let mut receiver = Receiver::start();
    let (mut sender, mut outcome) = caller.act(sender, actions);
    let mut run = Run { outcome: None, messages: 0, works: 0, heard: vec![] };
    let mut random = trouble.seed | 1;
    while outcome.is_none() {
        if trouble.cut_after == Some(run.messages) {
            return run;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let to_receiver = answerer.says.is_empty() || (!caller.says.is_empty() && random.is_multiple_of(2));
        run.messages += 1;
        assert!(run.messages < 10_000, "no end");
        if to_receiver {
            let message = carried(caller.says.pop_front().expect("both wait for each other"));
            run.heard.push(message.name());
            let (next, action) = receiver.hear(message).expect("a sender of ours");
            receiver = next;
            if action != receiver::Action::Wait {
                run.works += 1;
                if trouble.refuse_after.is_some_and(|after| run.works == after + 1) {
                    receiver = receiver.refused();
                    answerer.says.push_back(Message::Refused(Refusal::Busy));
                    continue;
                }
            }
            receiver = answerer.act(receiver, action).expect("a sender of ours");
        } else {
            let message = carried(answerer.says.pop_front().expect("not empty"));
            run.heard.push(message.name());
            let (next, actions) = sender.hear(message).expect("a receiver of ours");
            (sender, outcome) = caller.act(next, actions);
        }
    }
    run.outcome = outcome;
    // What was said before a refusal was heard is passed over, and the next exchange is none the worse for it.
    if matches!(run.outcome, Some(Outcome::Refused(_))) {
        for message in caller.says {
            let (next, action) = receiver.hear(message).expect("left over");
            assert_eq!(action, receiver::Action::Wait);
            receiver = next;
        }
        let again = Message::Meet(Box::new(meet_of("next", Intent::Agree)));
        assert!(matches!(receiver.hear(again), Ok((_, receiver::Action::Meet(_)))));
    }
    run
}

/// Two replicas and how they meet.
struct Plan {
    name: &'static str,
    caller: Replica,
    other: Option<Replica>,
    intent: Intent,
    max_batches: u64,
    /// How the first exchange ends, undisturbed.
    ends: Outcome,
    /// Messages of these kinds must be heard in it.
    hears: &'static [&'static str],
}

fn plans() -> Vec<Plan> {
    let plan = |name, caller: Replica, other: Option<Replica>, ends, hears| Plan {
        name,
        caller,
        other,
        intent: Intent::Agree,
        max_batches: 100,
        ends,
        hears,
    };
    let known = |mut replica: Replica, of: &Replica| {
        replica.incoming.insert(of.id.clone(), RowId(of.last));
        replica.outgoing.insert(of.id.clone(), RowId(replica.last));
        replica
    };
    let (a, b) = (|| Replica::new("a"), || Replica::new("b"));
    let old = || b().with(0..20, 5);
    let grown = || a().with(0..20, 5).aged(1_000_000).with(20..30, 6);
    let mut sharding = a().with(0..4, 5);
    sharding.sharding = true;
    let ranged = |mut replica: Replica, ranges: std::ops::Range<usize>| {
        replica.merge_ranges(ranges.map(|n| range(&format!("a/shard {n:04}"))).collect());
        replica
    };
    let mut other_pages = b().with(5..25, 5);
    other_pages.page_bytes = 1024;
    let mut other_pages_too = b().aged(1_000_000).with(4..15, 7);
    other_pages_too.page_bytes = 1024;
    let mut spoiling = old();
    spoiling.spoils_deltas = true;
    let mut restored = a().with(0..6, 5);
    restored.outgoing.insert(b().id, RowId(50));
    let mut ahead = b().with(0..6, 5).with(3..9, 7);
    ahead.incoming.insert(a().id, RowId(6));
    let distrusted = known(a().with(0..6, 5), &b().with(3..9, 5));
    let both_equal = a().with(0..5, 5);
    let nothing = Outcome::Nothing;
    let rows = Outcome::Rows { capped: false };
    vec![
        plan(
            "equal and known",
            known(both_equal.clone(), &b().with(0..5, 5)),
            Some(known(b().with(0..5, 5), &both_equal)),
            nothing(Agreement::NoChange),
            &["equal"],
        ),
        plan(
            "equal, points unknown",
            a().with(0..5, 5),
            Some(b().with(0..5, 5)),
            nothing(Agreement::NoChange),
            &["equal"],
        ),
        plan(
            "equal but for metadata",
            a().with(0..5, 5).tagged("x", "ours", 8),
            Some(b().with(0..5, 5).tagged("y", "theirs", 9)),
            nothing(Agreement::NoChange),
            &["here"],
        ),
        plan(
            "empty, the peer is not",
            a(),
            Some(b().with(0..5, 5)),
            nothing(Agreement::PeerAhead),
            &["here"],
        ),
        plan("the peer is ahead", a().with(0..6, 5), Some(ahead), nothing(Agreement::PeerAhead), &["here"]),
        plan(
            "a few rows",
            a().with(0..3, 5),
            Some(b()),
            rows.clone(),
            &["rows", "took", "rows done", "settled"],
        ),
        plan("many batches of rows", a().with(0..40, 5), Some(b().with(0..40, 4)), rows.clone(), &["rows"]),
        plan("both ahead", a().with(0..9, 5), Some(b().with(4..15, 7)), rows.clone(), &["rows"]),
        Plan {
            max_batches: 2,
            ..plan("rows, capped", a().with(0..9, 5), Some(b()), Outcome::Rows { capped: true }, &["rows"])
        },
        plan(
            "points that lie",
            distrusted.clone(),
            Some(known(b().with(3..9, 5), &distrusted)),
            rows.clone(),
            &["rows"],
        ),
        plan("restored from a backup", restored, Some(b().with(0..9, 5)), rows.clone(), &["rows"]),
        plan(
            "missing",
            a().with(0..10, 5),
            None,
            Outcome::Created,
            &["missing", "a literal window", "file done"],
        ),
        plan("missing, and empty", a(), None, Outcome::Created, &["missing", "file done"]),
        plan(
            "delta",
            grown(),
            Some(old()),
            Outcome::Patched,
            &["window digests", "page digests", "a patch", "rebuilt", "file done"],
        ),
        plan(
            "delta, both ahead",
            grown(),
            Some(old().with(40..50, 7)),
            Outcome::Patched,
            &["differs", "want"],
        ),
        plan(
            "a delta that comes out wrong",
            grown(),
            Some(spoiling),
            Outcome::Merged,
            &["mismatch", "a literal window"],
        ),
        plan(
            "no basis for a delta",
            grown(),
            Some(other_pages),
            Outcome::Merged,
            &["accept", "a literal window"],
        ),
        plan(
            "rows after a look at the file",
            a().aged(1_000_000).with(0..9, 5),
            Some(other_pages_too),
            rows.clone(),
            &["an offer", "accept", "rows"],
        ),
        plan("sharding", sharding, Some(b()), Outcome::Deferred, &["here"]),
        plan(
            "shard ranges",
            ranged(a().with(0..3, 5), 0..RANGES_PER_MESSAGE + 1),
            Some(ranged(b().with(0..3, 5), 0..0)),
            nothing(Agreement::NoChange),
            &["shard ranges"],
        ),
        plan(
            "shard ranges and rows",
            ranged(a().with(0..3, 5), 0..3),
            Some(ranged(b(), 2..RANGES_PER_MESSAGE)),
            rows.clone(),
            &["shard ranges", "rows"],
        ),
        Plan {
            intent: Intent::Leave,
            max_batches: 1,
            ..plan("leaving by rows", a().with(0..9, 5), Some(b().with(0..4, 5)), rows, &["rows"])
        },
        Plan {
            intent: Intent::Leave,
            ..plan("leaving by file", grown(), Some(old()), Outcome::Patched, &["rebuilt"])
        },
        Plan {
            intent: Intent::Leave,
            ..plan("leaving, missing there", a().with(0..9, 5), None, Outcome::Created, &["missing"])
        },
    ]
}

impl Plan {
    fn run(&self, caller: &mut Replica, other: &mut Option<Replica>, trouble: Trouble) -> Run {
        exchange(caller, other, self, trouble)
    }

    /// Nothing that was there before is gone, and nobody believes to have what he has not.
    fn check(&self, caller: &Replica, other: &Option<Replica>, when: &str) {
        let name = self.name;
        assert!(caller.holds(&self.caller.content()), "{name}, {when}: the caller lost rows");
        if let Some(before) = &self.other {
            let other = other.as_ref().unwrap_or_else(|| panic!("{name}, {when}: the database is gone"));
            assert!(other.holds(&before.content()), "{name}, {when}: the other lost rows");
        }
        // Where points lied before, they may go on lying until the content is equal.
        if matches!(name, "points that lie" | "restored from a backup") {
            return;
        }
        let Some(other) = other else { return };
        let promised = |of: &Replica, point: Option<&RowId>| {
            let point = point.map_or(-1, |point| point.0);
            let rows = of.rows.range(..=point).map(|(_, (name, time))| (name.clone(), *time));
            rows.collect::<Vec<_>>()
        };
        for (of, by, point) in [
            (caller, other, other.incoming.get(&caller.id)),
            (caller, other, caller.outgoing.get(&other.id)),
            (other, caller, caller.incoming.get(&other.id)),
            (other, caller, other.outgoing.get(&caller.id)),
        ] {
            let rows = promised(of, point);
            let rows = rows.iter().map(|(name, time)| (name.as_str(), *time)).collect();
            assert!(by.holds(&rows), "{name}, {when}: a point of {} promises too much", of.id);
        }
    }

    /// A clean exchange, and one in the other direction, make the two agree.
    fn converge(&self, caller: &mut Replica, other: &mut Option<Replica>, when: &str) {
        let wanted: BTreeMap<String, u64> = {
            let mut wanted = BTreeMap::new();
            for replica in [Some(&*caller), other.as_ref()].into_iter().flatten() {
                for (name, time) in replica.content() {
                    let known = wanted.entry(name.to_owned()).or_insert(time);
                    *known = time.max(*known);
                }
            }
            wanted
        };
        let clean = Plan { max_batches: 100, ..plan_like(self) };
        let towards = Plan { intent: Intent::Agree, ..plan_like(&clean) };
        // Points that lie are found out only when both sides have said all that they promise.
        let rounds = if self.name == "points that lie" { 2 } else { 1 };
        for _ in 0..rounds {
            clean.run(caller, other, Trouble::default());
            let mut back = Some(caller.clone());
            let mut there = other.take().expect("it has one now");
            towards.run(&mut there, &mut back, Trouble::default());
            (*caller, *other) = (back.expect("still there"), Some(there));
        }
        if self.caller.sharding {
            return;
        }
        let other = other.as_ref().expect("put there above");
        for replica in [&*caller, other] {
            let content: BTreeMap<String, u64> =
                replica.content().into_iter().map(|(name, time)| (name.to_owned(), time)).collect();
            assert_eq!(content, wanted, "{}, {when}: {} does not hold the union", self.name, replica.id);
        }
        assert!(caller.info().agrees_with(&other.info()), "{}, {when}: they do not agree", self.name);
    }
}

fn plan_like(plan: &Plan) -> Plan {
    Plan { caller: plan.caller.clone(), other: plan.other.clone(), ends: plan.ends.clone(), ..*plan }
}

#[test]
fn each_scenario_ends_as_it_should_and_converges() {
    for plan in plans() {
        let (mut caller, mut other) = (plan.caller.clone(), plan.other.clone());
        let run = plan.run(&mut caller, &mut other, Trouble::default());
        assert_eq!(run.outcome, Some(plan.ends.clone()), "{}", plan.name);
        for kind in plan.hears {
            assert!(run.heard.contains(kind), "{}: nobody said {kind}: {:?}", plan.name, run.heard);
        }
        plan.check(&caller, &other, "uncut");
        if run.outcome.is_some_and(|outcome| outcome.delivered()) {
            let other = other.as_ref().expect("delivered");
            assert!(other.holds(&plan.caller.content()), "{}: said to be delivered, and is not", plan.name);
        }
        plan.converge(&mut caller, &mut other, "uncut");
    }
}

#[test]
fn once_agreed_two_replicas_have_no_more_to_say_than_hello() {
    for plan in plans().into_iter().filter(|plan| !plan.caller.sharding) {
        let (mut caller, mut other) = (plan.caller.clone(), plan.other.clone());
        plan.converge(&mut caller, &mut other, "first");
        plan.converge(&mut caller, &mut other, "second");
        let run = plan.run(&mut caller, &mut other, Trouble::default());
        assert_eq!(run.outcome, Some(Outcome::Nothing(Agreement::NoChange)), "{}", plan.name);
        assert_eq!(run.heard, ["meet", "equal"], "{}", plan.name);
    }
}

#[test]
fn a_link_cut_after_any_message_loses_nothing_and_the_next_exchange_converges() {
    for plan in plans() {
        for seed in [0, 11, 12, 13] {
            let whole = plan.run(
                &mut plan.caller.clone(),
                &mut plan.other.clone(),
                Trouble { seed, ..Trouble::default() },
            );
            for cut_after in 0..=whole.messages {
                let when = format!("seed {seed}, cut after message {cut_after}");
                let (mut caller, mut other) = (plan.caller.clone(), plan.other.clone());
                let trouble = Trouble { seed, cut_after: Some(cut_after), refuse_after: None };
                let run = plan.run(&mut caller, &mut other, trouble);
                assert_eq!(run.outcome.is_some(), cut_after == whole.messages, "{}, {when}", plan.name);
                plan.check(&caller, &other, &when);
                plan.converge(&mut caller, &mut other, &when);
            }
        }
    }
}

#[test]
fn a_refusal_at_any_step_ends_the_exchange_and_leaves_the_connection_fit_for_the_next() {
    for plan in plans() {
        let whole = plan.run(&mut plan.caller.clone(), &mut plan.other.clone(), Trouble::default());
        for step in 0..whole.works {
            let when = format!("refused at step {step}");
            let (mut caller, mut other) = (plan.caller.clone(), plan.other.clone());
            let trouble = Trouble { refuse_after: Some(step), ..Trouble::default() };
            let run = plan.run(&mut caller, &mut other, trouble);
            assert_eq!(run.outcome, Some(Outcome::Refused(Refusal::Busy)), "{}, {when}", plan.name);
            plan.check(&caller, &other, &when);
            plan.converge(&mut caller, &mut other, &when);
        }
    }
}

#[test]
fn a_receiver_hears_what_fits_and_calls_the_rest_out_of_turn() {
    let meet = || Message::Meet(Box::new(meet_of("a", Intent::Agree)));
    let met = |here| Receiver::start().hear(meet()).expect("fits").0.met(here);
    let after = |receiver: Receiver, said: Message| receiver.hear(said).expect("fits").0;
    let offer = || Message::Offer { shape: shape(), epoch: None };
    let windows = || Message::Windows(vec![[1; 16]]);
    let done = || Message::FileDone { digest: [0; 32], max_row: RowId(1) };
    let asked = || Message::Compare(compare());
    let branches = || [Opened::Branches([ShortDigest([5; 8]); 16])];
    type State<'a> = (&'static str, Box<dyn Fn() -> Receiver + 'a>, &'static [&'static str]);
    let states: [State; 13] = [
        ("nothing said", Box::new(Receiver::start), &["meet"]),
        ("summing up", Box::new(|| after(Receiver::start(), asked())), &[]),
        ("nothing differs", Box::new(|| after(Receiver::start(), asked()).told(&[])), &["meet"]),
        (
            "told of branches",
            Box::new(|| after(Receiver::start(), asked()).told(&branches())),
            &["meet", "open"],
        ),
        (
            "opened",
            Box::new(|| {
                let opened = Message::Open { spans: vec![branch(1)], alike: vec![0] };
                after(after(Receiver::start(), asked()).told(&branches()), opened)
            }),
            &[],
        ),
        ("driver at work", Box::new(|| after(Receiver::start(), meet())), &[]),
        ("a database", Box::new(|| met(true)), &["meet", "shard ranges", "rows", "rows done", "an offer"]),
        ("none", Box::new(|| met(false)), &["meet", "an offer"]),
        (
            "offered",
            Box::new(|| after(met(true), offer())),
            &["meet", "rows", "rows done", "a literal window", "window digests", "file done"],
        ),
        (
            "offered, no basis",
            Box::new(|| after(met(false), offer())),
            &["meet", "a literal window", "a window once more", "file done"],
        ),
        (
            "delta",
            Box::new(|| after(after(met(true), offer()), windows())),
            &["meet", "window digests", "page digests", "a patch", "a window once more", "file done"],
        ),
        (
            "delta done",
            Box::new(|| after(after(after(met(true), offer()), windows()), done())),
            &["meet", "a literal window", "a window once more", "file done"],
        ),
        (
            "offered, a window came",
            Box::new(|| after(after(met(true), offer()), Message::Literal(vec![]))),
            &["meet", "a literal window", "a window once more", "file done"],
        ),
    ];
    for (state, receiver, fitting) in &states {
        for message in samples() {
            let name = message.name();
            // Whoever may meet may as well compare, or ask for the time.
            let like = if ["compare", "a question for the time"].contains(&name) { "meet" } else { name };
            let busy = ["driver at work", "summing up", "opened"].contains(state);
            let fits = fitting.contains(&like) || (name == "working" && !busy);
            match receiver().hear(message) {
                Ok(_) => assert!(fits, "{state}: {name} was taken"),
                Err(Violation::OutOfTurn { heard, .. }) => assert!(!fits && heard == name, "{state}: {name}"),
                Err(other) => panic!("{state}: {name}: {other}"),
            }
        }
    }
    // After a refusal, and after a whole file, all but a meeting, a comparison or a question for the time is passed over.
    let deaf: [fn() -> Receiver; 2] = [
        || Receiver::start().refused(),
        || {
            let said = [
                Message::Offer { shape: shape(), epoch: None },
                Message::FileDone { digest: [0; 32], max_row: RowId(1) },
            ];
            let met =
                Receiver::start().hear(Message::Meet(Box::new(meet_of("a", Intent::Agree)))).expect("fits").0;
            said.into_iter().fold(met.met(false), |receiver, said| receiver.hear(said).expect("fits").0)
        },
    ];
    for receiver in deaf {
        for message in samples() {
            let meets = matches!(message, Message::Meet(_) | Message::Compare(_) | Message::AskTime);
            let (_, action) = receiver().hear(message).expect("passed over");
            assert_eq!(action != receiver::Action::Wait, meets);
        }
    }
}

#[test]
fn a_sender_hears_what_fits_and_calls_the_rest_out_of_turn() {
    let plan = |mine: Replica| {
        let meet = Meet { info: mine.info(), ..meet_of("a", Intent::Agree) };
        Sender::start(meet, Known::default(), Limits { max_batches: 9 }).0
    };
    let small = || plan(Replica::new("a").with(0..3, 5));
    let large = || plan(Replica::new("a").aged(1_000_000).with(0..3, 5));
    let here =
        |replica: Replica| Message::Here { info: Box::new(replica.info()), point: RowId::NONE, agreed: None };
    let after = |sender: Sender, said: Message| sender.hear(said).expect("fits").0;
    let basis = || Message::Accept(Some(Basis { file_bytes: 1, page_bytes: 4096, sample: vec![1] }));
    let ranged = || {
        let mut other = Replica::new("b");
        other.merge_ranges(vec![range("a/shard")]);
        other
    };
    let offering = || after(large(), here(Replica::new("b")));
    let flowing = || after(small(), here(Replica::new("b"))).sent_rows(RowId(3), true).0;
    type State<'a> = (&'static str, Box<dyn Fn() -> Sender + 'a>, &'static [&'static str]);
    let states: [State; 12] = [
        ("met", Box::new(small), &["equal", "here", "missing"]),
        ("ranges told", Box::new(|| after(small(), here(ranged()))), &["shard ranges"]),
        ("rows asked for", Box::new(|| after(small(), here(Replica::new("b")))), &[]),
        ("rows sent", Box::new(flowing), &["took"]),
        (
            "rows done",
            Box::new(|| {
                let sent = flowing().sent_rows(RowId(3), false).0;
                after(sent, Message::Took { through: RowId(3) })
            }),
            &["settled"],
        ),
        ("offered to nobody", Box::new(|| after(small(), Message::Missing)), &["accept none"]),
        ("offered", Box::new(offering), &["accept none", "accept"]),
        ("weighing", Box::new(|| after(offering(), basis())), &[]),
        (
            "delta",
            Box::new(|| after(offering(), basis()).weighed(Some(1.0)).0),
            &["differs", "want", "rebuilt"],
        ),
        (
            "delta done",
            Box::new(|| after(after(offering(), basis()).weighed(Some(1.0)).0, Message::Rebuilt)),
            &["mismatch", "settled"],
        ),
        ("whole file sent", Box::new(|| after(offering(), basis()).weighed(None).0), &["settled"]),
        ("over", Box::new(|| after(small(), Message::Refused(Refusal::Full))), &[]),
    ];
    for (state, sender, fitting) in &states {
        for message in samples() {
            let name = match &message {
                Message::Accept(None) => "accept none",
                other => other.name(),
            };
            let fits = fitting.contains(&name) || ["working", "refused"].contains(&name);
            match sender().hear(message) {
                Ok(_) => assert!(fits, "{state}: {name} was taken"),
                Err(Violation::OutOfTurn { heard, .. }) => {
                    assert!(!fits && name.starts_with(heard), "{state}: {name}");
                }
                Err(other) => panic!("{state}: {name}: {other}"),
            }
        }
    }
}

#[test]
fn a_receiver_cannot_take_more_than_was_sent() {
    let meet = Meet { info: Replica::new("a").with(0..3, 5).info(), ..meet_of("a", Intent::Agree) };
    let flowing = || {
        let (sender, _) = Sender::start(meet.clone(), Known::default(), Limits { max_batches: 9 });
        let here =
            Message::Here { info: Box::new(Replica::new("b").info()), point: RowId::NONE, agreed: None };
        sender.hear(here).expect("fits").0.sent_rows(RowId(2), true).0
    };
    assert!(flowing().hear(Message::Took { through: RowId(3) }).is_err(), "a row that was not sent");
    let answered = flowing().hear(Message::Took { through: RowId(2) }).expect("fits").0;
    assert!(answered.hear(Message::Took { through: RowId(2) }).is_err(), "a batch that was not sent");
}

#[test]
fn shard_ranges_have_limits_in_number_and_size() {
    let met = || {
        let meet = Message::Meet(Box::new(meet_of("a", Intent::Agree)));
        Receiver::start().hear(meet).expect("fits").0.met(true)
    };
    let part = |count: usize, more, text: usize| Message::Ranges {
        ranges: (0..count).map(|_| ShardRange { lower: "x".repeat(text), ..range("a/s") }).collect(),
        more,
    };
    let told = |parts: usize, last: usize, text: usize| {
        let mut receiver = met();
        for _ in 0..parts {
            receiver = receiver.hear(part(RANGES_PER_MESSAGE, true, text))?.0;
        }
        receiver.hear(part(last, false, text)).map(|_| ())
    };
    let too_many = Err(Violation::TooMany("shard ranges"));
    assert_eq!(told(0, 0, 0), Ok(()));
    assert_eq!(told(0, 1, 0), Ok(()));
    assert_eq!(told(RANGES_LIMIT / RANGES_PER_MESSAGE, 0, 0), Ok(()));
    assert_eq!(told(RANGES_LIMIT / RANGES_PER_MESSAGE, 1, 0), too_many);
    assert_eq!(told(4, 0, 8000), Ok(()));
    assert_eq!(told(5, 0, 8000), too_many);
    for few in [0, 1, RANGES_PER_MESSAGE - 1] {
        assert!(matches!(met().hear(part(few, true, 0)), Err(Violation::Lie(_))), "an endless list");
    }
}

#[test]
fn what_both_remember_of_an_agreement_is_as_good_as_a_point() {
    let (mine, theirs) = (Replica::new("a").with(0..9, 5), Replica::new("b").with(0..7, 4));
    let chosen = |agreed: Option<i64>, confirmed: Option<i64>| {
        let agreed = agreed.map(|row| Agreed { state: ShortDigest([1; 8]), row: RowId(row) });
        let meet = Meet { info: mine.info(), agreed, ..meet_of("a", Intent::Agree) };
        let (sender, _) = Sender::start(meet, Known::default(), Limits { max_batches: 9 });
        let (info, agreed) = (Box::new(theirs.info()), confirmed.map(RowId));
        let (sender, _) = sender.hear(Message::Here { info, point: RowId(1), agreed }).expect("fits");
        sender.choice(&theirs.info(), RowId(1)).strategy
    };
    let after = |row, restart| Strategy::Rows { after: RowId(row), restart };
    assert_eq!(chosen(None, None), after(1, false));
    assert_eq!(chosen(Some(5), Some(4)), after(5, false));
    assert_eq!(chosen(Some(0), Some(4)), after(1, false), "a point that knows more");
    assert_eq!(chosen(Some(5), None), after(1, false), "it does not remember");
    assert_eq!(chosen(None, Some(4)), after(1, false), "nobody asked");
    // All of ours was there then, and not all of theirs is here: the difference is the peer's to send.
    assert_eq!(chosen(Some(9), Some(4)), Strategy::Nothing(Agreement::PeerAhead));
    // All of both was, and yet they differ: the memory is wrong, or rows changed beneath it.
    assert_eq!(chosen(Some(9), Some(7)), after(-1, true));
    // We were put back to an older copy.
    assert_eq!(chosen(Some(50), Some(4)), after(-1, true));
}

#[test]
fn a_receiver_lets_open_only_what_it_told_and_each_but_once() {
    let asked = || Receiver::start().hear(Message::Compare(compare())).expect("fits").0;
    let branches = |count: usize| vec![Opened::Branches([ShortDigest([5; 8]); 16]); count];
    let leaves = |count: usize| {
        vec![Opened::Leaves((0..count).map(|nth| (Key(nth as u128), ShortDigest([1; 8]))).collect())]
    };
    let open = |receiver: Receiver, spans: &[Span], alike: &[u16]| {
        receiver.hear(Message::Open { spans: spans.to_vec(), alike: alike.to_vec() })
    };
    let told = || asked().told(&branches(1));
    let fits = |heard: Result<(Receiver, receiver::Action), Violation>| match heard {
        Ok((receiver, receiver::Action::Open { .. })) => receiver,
        other => panic!("{other:?}"),
    };
    let lies = |heard: Result<(Receiver, receiver::Action), Violation>| {
        assert!(matches!(heard, Err(Violation::Lie(_))), "{heard:?}");
    };
    let below = |span: Span, nth: usize| span.branches()[nth];

    let all: Vec<Span> = Span::ALL.branches();
    fits(open(told(), &all, &[0]));
    let done = fits(open(told(), &[], &[0xffff])).told(&[]);
    assert!(matches!(open(done, &[], &[]), Err(Violation::OutOfTurn { .. })), "it is over");
    lies(open(told(), &[Span::ALL], &[0]));
    lies(open(told(), &[below(branch(3), 0)], &[0]));
    lies(open(told(), &[branch(3), branch(3)], &[0]));
    // What is alike need not be looked at.
    lies(open(told(), &[branch(3)], &[1 << 3]));
    for marks in [&[][..], &[0, 0]] {
        lies(open(told(), &[branch(3)], marks));
    }
    // Leaves have marks only as many as they are, and nothing below them.
    for count in [0, 1, LEAVES_LIMIT] {
        let told = || asked().told(&leaves(count));
        let most = (0..count).fold(0, |marks, nth| marks | 1_u16 << nth);
        fits(open(told(), &[], &[most]));
        if count < LEAVES_LIMIT {
            lies(open(told(), &[], &[1 << count]));
        }
        lies(open(told(), &[branch(0)], &[0]));
    }
    // What was told last comes first; what is passed over is given up; nothing comes twice.
    let second = || fits(open(told(), &[branch(2), branch(4)], &[0])).told(&branches(2));
    fits(open(second(), &[below(branch(2), 0), below(branch(4), 15), branch(9)], &[0, 0]));
    lies(open(second(), &[branch(2)], &[0, 0]));
    lies(open(second(), &[below(branch(3), 0)], &[0, 0]));
    lies(open(second(), &[below(branch(4), 1), below(branch(2), 1)], &[0, 0]));
    lies(open(second(), &[branch(9), below(branch(4), 1)], &[0, 0]));
    let third = || fits(open(second(), &[branch(9)], &[0, 0])).told(&branches(1));
    fits(open(third(), &[below(branch(9), 1), branch(10)], &[0]));
    lies(open(third(), &[below(branch(4), 1)], &[0]));
    lies(open(third(), &[branch(9)], &[0]));
    // Another comparison begins from the start.
    let again = third().hear(Message::Compare(compare())).expect("at any time").0.told(&branches(1));
    lies(open(again, &[below(branch(9), 1)], &[0]));

    let wide = || fits(open(told(), &all, &[0])).told(&branches(16));
    let most: Vec<Span> = all.iter().flat_map(|span| span.branches()).collect();
    for count in [0, 1, SPANS_LIMIT] {
        fits(open(wide(), &most[..count], &[0; 16]));
    }
    let many = open(wide(), &most[..SPANS_LIMIT + 1], &[0; 16]);
    assert!(matches!(many, Err(Violation::TooMany("spans"))), "{many:?}");
}

#[test]
fn a_comparison_hears_what_fits_and_calls_the_rest_out_of_turn() {
    let first = || Comparison::start(compare()).0;
    let sums = |count: usize| Message::Sums(vec![Opened::Branches([ShortDigest([5; 8]); 16]); count]);
    let after = |comparison: Comparison, said: Message| comparison.hear(said).expect("fits").0;
    let weighed = |open: u16| after(first(), sums(1)).weighed(&[Weighed { alike: 0, open }]).0;
    type State<'a> = (&'static str, Box<dyn Fn() -> Comparison + 'a>, &'static [&'static str]);
    let states: [State; 5] = [
        ("asked", Box::new(first), &["alike", "sums"]),
        ("weighing", Box::new(|| after(first(), sums(1))), &[]),
        ("opened", Box::new(|| weighed(1)), &["sums"]),
        ("opened no more", Box::new(|| weighed(0)), &["alike"]),
        ("over", Box::new(|| after(first(), Message::Alike)), &[]),
    ];
    for (state, comparison, fitting) in &states {
        for message in samples() {
            let name = message.name();
            // Databases from one end to the other are in no branch.
            let lies = *state == "opened"
                && matches!(&message, Message::Sums(sums) if matches!(sums[0], Opened::Leaves(_)));
            let fits = fitting.contains(&name) || ["working", "refused"].contains(&name);
            match comparison().hear(message) {
                Ok(_) => assert!(fits && !lies, "{state}: {name} was taken"),
                Err(Violation::OutOfTurn { heard, .. }) => assert!(!fits && heard == name, "{state}: {name}"),
                Err(Violation::Lie(_)) => assert!(lies, "{state}: {name}"),
                Err(other) => panic!("{state}: {name}: {other}"),
            }
        }
    }
}

#[test]
fn a_comparison_believes_only_sums_that_can_be() {
    let opened = |open: u16| {
        let everything = Message::Sums(vec![Opened::Branches([ShortDigest([5; 8]); 16])]);
        let (comparison, action) = Comparison::start(compare()).0.hear(everything).expect("fits");
        assert!(matches!(action, comparison::Action::Weigh(told) if told[0].0 == Span::ALL));
        comparison.weighed(&[Weighed { alike: 0, open }])
    };
    let leaves =
        |keys: &[u128]| Opened::Leaves(keys.iter().map(|key| (Key(*key), ShortDigest([1; 8]))).collect());
    let branches = || Opened::Branches([ShortDigest([5; 8]); 16]);
    let hears = |sums: Vec<Opened>| opened(0b1001).0.hear(Message::Sums(sums)).map(|_| ());
    let is_lie = |sums: Vec<Opened>| assert!(matches!(hears(sums), Err(Violation::Lie(_))));
    let second = 3 << 124;
    assert_eq!(opened(0b1001).1, Message::Open { spans: vec![branch(0), branch(3)], alike: vec![0] });
    assert_eq!(hears(vec![branches(), leaves(&[])]), Ok(()));
    assert_eq!(hears(vec![leaves(&[0, 1, (1 << 124) - 1]), leaves(&[second])]), Ok(()));
    is_lie(vec![]);
    is_lie(vec![branches()]);
    is_lie(vec![branches(), branches(), branches()]);
    is_lie(vec![branches(), leaves(&[second - 1])]);
    is_lie(vec![leaves(&[0, 1 << 124]), branches()]);
    is_lie(vec![leaves(&[1, 0]), branches()]);
    is_lie(vec![leaves(&[1, 1]), branches()]);
    let many: Vec<u128> = (0..=LEAVES_LIMIT as u128).collect();
    assert_eq!(hears(vec![leaves(&many[..LEAVES_LIMIT]), branches()]), Ok(()));
    assert_eq!(hears(vec![leaves(&many), branches()]), Err(Violation::TooMany("leaves")));
}

#[test]
fn branches_without_end_end_at_a_single_key() {
    let endless = |count| Message::Sums(vec![Opened::Branches([ShortDigest([5; 8]); 16]); count]);
    let mut receiver = Receiver::start().hear(Message::Compare(compare())).expect("fits").0;
    let mut comparison = Comparison::start(compare()).0;
    let (mut asked, mut rounds) = (1, 0);
    let violation = loop {
        let sums = vec![Opened::Branches([ShortDigest([5; 8]); 16]); asked];
        receiver = receiver.told(&sums);
        comparison = match comparison.hear(endless(asked)) {
            Ok((comparison, _)) => comparison,
            Err(violation) => break violation,
        };
        let (next, said) = comparison.weighed(&vec![Weighed { alike: 0, open: 0xffff }; asked]);
        let Message::Open { spans, .. } = &said else { panic!("it opens") };
        (asked, rounds) = (spans.len(), rounds + 1);
        assert!(asked <= SPANS_LIMIT);
        // A caller keeps the order that a receiver insists on.
        receiver = receiver.hear(said).expect("each was told").0;
        comparison = next;
    };
    assert_eq!(violation, Violation::Lie("branches of a single key"));
    assert_eq!(rounds, usize::from(Span::DIGITS_LIMIT));
}

/// One message of each kind, two of those that may lack something.
pub(super) fn samples() -> Vec<Message> {
    let id = || ReplicaId::new("0f2c7d1e-sdb1").unwrap();
    let item = |key: &str, value: &str| MetadataItem {
        key: key.into(),
        value: value.into(),
        stamp: Stamp::from(Timestamp::new(175_000_000_000_001, 0).unwrap()),
    };
    let metadata = Metadata(vec![item("X-Container-Meta-Color", "bläu"), item("X-Versions", "")]);
    let full = ReplicaInfo {
        metadata,
        db_state: DbState::Collapsed,
        sharding_required: true,
        file_bytes: 1 << 40,
        ..Replica::new("b").with(0..5, 5).info()
    };
    let epoch = Timestamp::new(175_000_000_000_000, 0);
    vec![
        Message::Compare(compare()),
        Message::Open { spans: vec![branch(0), branch(15)], alike: vec![0b110] },
        Message::Alike,
        Message::Sums(vec![Opened::Branches([ShortDigest([5; 8]); 16])]),
        Message::Sums(vec![Opened::Leaves(vec![
            (Key(5), ShortDigest([1; 8])),
            (Key(u128::MAX), ShortDigest([2; 8])),
        ])]),
        Message::Meet(Box::new(Meet {
            place: place(),
            info: full.clone(),
            intent: Intent::Leave,
            role: Role::Handoff,
            asker: Some(DeviceId(300)),
            agreed: Some(Agreed { state: ShortDigest([6; 8]), row: RowId(70) }),
        })),
        Message::Ranges { ranges: vec![range("a/shard"), range("ä")], more: false },
        Message::Rows { rows: vec![row(1, "one", 5), row(7, "seven", 6)] },
        Message::RowsDone {
            through: RowId(7),
            restart: true,
            points: vec![SyncPoint { remote_id: id(), point: RowId(i64::MAX) }],
        },
        Message::Offer { shape: shape(), epoch },
        Message::Literal(vec![0, 1, 2]),
        Message::Again { window: 2, file_bytes: 1 << 40, bytes: vec![0, 1, 2] },
        Message::Windows(vec![[7; 16], [8; 16]]),
        Message::Pages { window: 0, digests: vec![5; 15] },
        Message::Patch { window: u32::MAX, patch: vec![9; 20] },
        Message::FileDone { digest: [3; 32], max_row: RowId(12) },
        Message::Here { info: Box::new(full), point: RowId(4), agreed: Some(RowId(0)) },
        Message::Equal { id: id(), max_row: RowId(5), point: RowId::NONE, agreed: None },
        Message::Missing,
        Message::Refused(Refusal::Failed("out of luck".to_owned())),
        Message::Took { through: RowId(0) },
        Message::Accept(None),
        Message::Accept(Some(Basis { file_bytes: 8192, page_bytes: 4096, sample: vec![1; 10] })),
        Message::Differs { window: 1 },
        Message::Want { window: 3, pages: vec![0xff, 1], blocks: vec![7; 8], signature: vec![6; 20] },
        Message::Rebuilt,
        Message::Mismatch,
        Message::Working,
        Message::Settled(Settled { id: id(), hash: RowHash([9; 16]), max_row: RowId(3) }),
        Message::AskTime,
        Message::Time(u64::MAX),
    ]
}

#[test]
fn there_is_a_sample_of_every_kind() {
    let mut kinds: Vec<&str> = samples().iter().map(Message::name).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 29, "a new message needs a sample here");
}

fn compare() -> Compare {
    Compare {
        device: DeviceName::new("sdb1").unwrap(),
        asker: DeviceId(300),
        part_shift: PartShift::new(18).unwrap(),
        sum: ShortDigest([8; 8]),
    }
}

fn branch(nth: usize) -> Span {
    Span::ALL.branches()[nth]
}

fn shape() -> Shape {
    Shape { file_bytes: 4 << 20, page_bytes: 4096, window_bytes: 1 << 20 }
}

fn place() -> Place {
    Place { device: DeviceName::new("sdb1").unwrap(), partition: Partition(7), hash: Hash([4; 16]) }
}

fn meet_of(id: &str, intent: Intent) -> Meet {
    Meet { place: place(), info: info(id), intent, role: Role::Primary, asker: None, agreed: None }
}

fn row(id: i64, name: &str, time: u64) -> Row {
    Row {
        row_id: Some(RowId(id)),
        name: name.into(),
        created_at: Timestamp::new(time, 0).unwrap().normal(),
        size: 1,
        content_type: "text/plain".into(),
        etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}

fn range(name: &str) -> ShardRange {
    let stamp = || Stamp::from(Timestamp::new(175_000_000_000_001, 0).unwrap());
    ShardRange {
        name: name.into(),
        timestamp: stamp(),
        lower: "a".into(),
        upper: String::new(),
        object_count: 3,
        bytes_used: -3,
        meta_timestamp: stamp(),
        deleted: 0,
        state: 20,
        state_timestamp: stamp(),
        epoch: Some(stamp()),
        reported: 1,
        tombstones: -1,
    }
}

/// What an empty replica says of itself.
fn info(id: &str) -> ReplicaInfo {
    let put = Stamp::from(Timestamp::new(175_000_000_000_000, 0).unwrap());
    ReplicaInfo {
        id: ReplicaId::new(id).unwrap(),
        account: "AUTH_test".into(),
        container: "photos".into(),
        created_at: put.clone(),
        put_timestamp: put.clone(),
        delete_timestamp: Stamp::unset(),
        status_changed_at: put,
        storage_policy_index: PolicyIndex(0),
        count: 0,
        bytes_used: 0,
        hash: RowHash::default(),
        max_row: RowId::NONE,
        shard_max_row: RowId::NONE,
        metadata: Metadata::default(),
        db_state: DbState::Unsharded,
        sharding_initiated: false,
        sharding_required: false,
        ranges_digest: [0; 16],
        file_bytes: 8192,
        page_bytes: 4096,
    }
}
