//! The half that calls.
//!
//! It hears: `Equal`, `Here`, `Missing` (the peer's replica) and answers by choosing a strategy; `Ranges`; `Took` while
//! rows flow; `Accept`, `Differs`, `Want`, `Rebuilt`, `Mismatch` while a file does; `Settled` at the end; `Working`
//! at any time; `Refused` at any time, which ends the exchange.
//!
//! Whatever it is asked to do comes back as [`Action`]s, to be done in order. Where the next step depends on what an
//! action found out, the driver says so through one of the methods named for it.

use super::Violation;
use super::message::{Basis, Intent, Meet, Message, Refusal, Settled};
use crate::replica::{ReplicaId, ReplicaInfo, RowId, ShardRange, SyncPoint};
use crate::strategy::{self, Agreement, Choice, Reason, Situation, Strategy, Transfer};

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say this.
    Say(Message),
    /// Take over the peer's timestamps, metadata and policy where they win.
    Adopt(Box<ReplicaInfo>),
    /// Say all our shard ranges, as `Ranges`.
    TellRanges,
    /// Merge these, then call [`Sender::ranges_merged`].
    MergeRanges(Vec<ShardRange>),
    /// Say one batch of rows after this one, then call [`Sender::sent_rows`].
    SendRows {
        /// Where to start.
        after: RowId,
        /// All rows go instead of a file: as many in a batch as fit, rather than `per_diff`.
        in_bulk: bool,
    },
    /// Take a snapshot and say `Offer`.
    Offer,
    /// Compare the sample with the snapshot, then call [`Sender::weighed`] with the share of pages that are equal.
    Weigh(Basis),
    /// Say every window as `Literal`, then `FileDone`.
    SendFile,
    /// Say the digests of all windows.
    SendWindows,
    /// Say the digests of a window's `Pages`.
    TellPages {
        /// Number of the window.
        window: u32,
    },
    /// Say the `Patch`.
    MakePatch {
        /// Number of the window.
        window: u32,
        /// The pages wanted, one bit each.
        pages: Vec<u8>,
        /// Digests of their blocks.
        blocks: Vec<u8>,
        /// Their signature, or nothing.
        signature: Vec<u8>,
    },
    /// Say `FileDone`.
    TellFileDone,
    /// The peer holds our rows up to this one.
    Remember {
        /// The peer's database.
        id: ReplicaId,
        /// Up to here; `None` stands for the last row of the snapshot.
        point: Option<RowId>,
        /// In place of what was known, even if it is lower.
        restart: bool,
    },
    /// The two disagreed though all points said that they agree: what this peer is thought to have sent us, it may not
    /// have. Forget our incoming point for it, so that it sends again.
    Distrust(ReplicaId),
    /// The exchange is over.
    Finish(Outcome),
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to send.
    Nothing(Agreement),
    /// Rows were sent.
    Rows {
        /// More are left for another pass.
        capped: bool,
    },
    /// The whole file went to a peer that had none.
    Created,
    /// The file was merged into the peer's, and travelled as a delta.
    Patched,
    /// The file was merged into the peer's, and travelled in full.
    Merged,
    /// The container is being sharded; its rows stay.
    Deferred,
    /// The peer would not.
    Refused(Refusal),
}

impl Outcome {
    /// The peer now holds, durably, all that we had when the exchange began.
    pub fn delivered(&self) -> bool {
        match self {
            Outcome::Nothing(_) | Outcome::Created | Outcome::Patched | Outcome::Merged => true,
            Outcome::Rows { capped } => !capped,
            Outcome::Deferred | Outcome::Refused(_) => false,
        }
    }
}

/// What bounds one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches of rows in one exchange (`max_diffs`).
    pub max_batches: u64,
}

/// What our database knows of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// What others hold of us.
    pub outgoing: Vec<SyncPoint>,
    /// What we hold of others.
    pub incoming: Vec<SyncPoint>,
}

impl Known {
    fn point(points: &[SyncPoint], id: &ReplicaId) -> RowId {
        points.iter().find(|point| point.remote_id == *id).map_or(RowId::NONE, |point| point.point)
    }
}

/// One exchange, from the caller's side.
#[derive(Debug)]
pub struct Sender {
    mine: ReplicaInfo,
    leaving: bool,
    /// The points about this peer were proven in this very pass.
    proven: bool,
    known: Known,
    /// Our last row when the two agreed, and the peer's, if it remembers too.
    agreed: Option<RowId>,
    confirmed: Option<RowId>,
    limits: Limits,
    /// The points of the two were found to be wrong.
    distrusted: bool,
    expects: Expects,
}

/// What comes next.
#[derive(Debug)]
enum Expects {
    /// `Equal`, `Here` or `Missing`.
    Introduction,
    /// Their `Ranges`, in answer to ours.
    Ranges { theirs: Box<ReplicaInfo>, their_point: RowId, so_far: Vec<ShardRange> },
    /// The driver's word that ranges are merged.
    RangesMerged { theirs: Box<ReplicaInfo>, their_point: RowId },
    /// `Took`, and the driver's word on what it sent.
    Took(Flow),
    /// `Settled`, after rows.
    RowsSettled { through: RowId, restart: bool, capped: bool },
    /// `Accept`; from a peer that has a replica, or from one that has none.
    Accept { theirs: Option<(Box<ReplicaInfo>, RowId)> },
    /// The driver's word on what the basis is worth.
    Weighed { theirs: Box<ReplicaInfo>, instead_of: RowId },
    /// `Differs`, `Want` or `Rebuilt`.
    Differences,
    /// `Settled`, after a file.
    FileSettled { outcome: Outcome },
    /// Nothing: it is over.
    Nothing,
}

/// Rows on their way.
#[derive(Debug)]
struct Flow {
    last: RowId,
    restart: bool,
    batches: u64,
    max_batches: Option<u64>,
    unanswered: u64,
    more: bool,
}

impl Flow {
    fn new(after: RowId, restart: bool, max_batches: Option<u64>) -> Flow {
        Flow { last: after, restart, batches: 0, max_batches, unanswered: 0, more: true }
    }
}

type Step = Result<(Sender, Vec<Action>), Violation>;

impl Sender {
    /// Begins: introduces our replica.
    pub fn start(meet: Meet, known: Known, limits: Limits) -> (Sender, Vec<Action>) {
        let sender = Sender {
            mine: meet.info.clone(),
            leaving: meet.intent == Intent::Leave,
            proven: false,
            known,
            agreed: meet.agreed.map(|agreed| agreed.row),
            confirmed: None,
            limits,
            distrusted: false,
            expects: Expects::Introduction,
        };
        (sender, vec![Action::Say(Message::Meet(Box::new(meet)))])
    }

    /// The peer proved in this very pass that it holds all up to our point for it: even a copy that is to be removed need
    /// not go whole again.
    pub fn proven(self) -> Sender {
        Sender { proven: true, ..self }
    }

    /// Takes what the peer said.
    ///
    /// # Errors
    /// [`Violation`] if it does not fit here. The connection is then of no use any more.
    pub fn hear(mut self, message: Message) -> Step {
        match message {
            Message::Working => return Ok((self, vec![])),
            Message::Refused(refusal) => return Ok(self.finish(Outcome::Refused(refusal), vec![])),
            _ => {}
        }
        match (std::mem::replace(&mut self.expects, Expects::Nothing), message) {
            (Expects::Introduction, Message::Equal { id, max_row, point, agreed }) => {
                self.confirmed = agreed;
                Ok(self.equal(id, max_row, point))
            }
            (Expects::Introduction, Message::Here { info, point, agreed }) => {
                self.confirmed = agreed;
                Ok(self.here(info, point))
            }
            (Expects::Introduction, Message::Missing) => {
                self.expects = Expects::Accept { theirs: None };
                Ok((self, vec![Action::Offer]))
            }
            (Expects::Ranges { theirs, their_point, mut so_far }, Message::Ranges { ranges, more }) => {
                super::add_ranges(&mut so_far, ranges, more)?;
                if more {
                    self.expects = Expects::Ranges { theirs, their_point, so_far };
                    return Ok((self, vec![]));
                }
                self.expects = Expects::RangesMerged { theirs, their_point };
                Ok((self, vec![Action::MergeRanges(so_far)]))
            }
            (Expects::Took(mut flow), Message::Took { through })
                if flow.unanswered > 0 && through <= flow.last =>
            {
                flow.unanswered -= 1;
                Ok(self.flow(flow))
            }
            (Expects::RowsSettled { through, restart, capped }, Message::Settled(settled)) => {
                let remember = Action::Remember { id: settled.id.clone(), point: Some(through), restart };
                Ok(self.settle(Outcome::Rows { capped }, settled, remember))
            }
            (Expects::Accept { theirs: None }, Message::Accept(None)) => {
                self.expects = Expects::FileSettled { outcome: Outcome::Created };
                Ok((self, vec![Action::SendFile]))
            }
            (Expects::Accept { theirs: Some((theirs, instead_of)) }, Message::Accept(basis)) => {
                self.expects = Expects::Weighed { theirs, instead_of };
                match basis {
                    Some(basis) => Ok((self, vec![Action::Weigh(basis)])),
                    None => Ok(self.weighed(None)),
                }
            }
            (Expects::Differences, Message::Differs { window }) => {
                self.expects = Expects::Differences;
                Ok((self, vec![Action::TellPages { window }]))
            }
            (Expects::Differences, Message::Want { window, pages, blocks, signature }) => {
                self.expects = Expects::Differences;
                Ok((self, vec![Action::MakePatch { window, pages, blocks, signature }]))
            }
            (Expects::Differences, Message::Rebuilt) => {
                self.expects = Expects::FileSettled { outcome: Outcome::Patched };
                Ok((self, vec![Action::TellFileDone]))
            }
            (Expects::FileSettled { outcome: Outcome::Patched }, Message::Mismatch) => {
                self.expects = Expects::FileSettled { outcome: Outcome::Merged };
                Ok((self, vec![Action::SendFile]))
            }
            (Expects::FileSettled { outcome }, Message::Settled(settled)) => {
                let remember = Action::Remember { id: settled.id.clone(), point: None, restart: true };
                Ok(self.settle(outcome, settled, remember))
            }
            (expects, message) => {
                Err(Violation::OutOfTurn { expected: expects.name(), heard: message.name() })
            }
        }
    }

    /// The driver sent the rows up to `last` (unchanged if there were none), and knows whether there are more.
    pub fn sent_rows(mut self, last: RowId, more: bool) -> (Sender, Vec<Action>) {
        let Expects::Took(mut flow) = std::mem::replace(&mut self.expects, Expects::Nothing) else {
            unreachable!("only asked for while rows flow")
        };
        if last > flow.last {
            flow.last = last;
            flow.unanswered += 1;
            flow.batches += 1;
        }
        flow.more = more;
        self.flow(flow)
    }

    /// The driver merged the peer's ranges; our container is now being sharded, or is not.
    pub fn ranges_merged(mut self, sharding_initiated: bool) -> (Sender, Vec<Action>) {
        let Expects::RangesMerged { theirs, their_point } =
            std::mem::replace(&mut self.expects, Expects::Nothing)
        else {
            unreachable!("only asked for after ranges")
        };
        self.mine.sharding_initiated = sharding_initiated;
        self.choose(theirs, their_point, vec![])
    }

    /// The driver knows how much of the sampled pages is equal, 0 to 1; `None` if there was nothing to compare.
    pub fn weighed(mut self, share_equal: Option<f64>) -> (Sender, Vec<Action>) {
        let Expects::Weighed { theirs, instead_of } = std::mem::replace(&mut self.expects, Expects::Nothing)
        else {
            unreachable!("only asked for after an offer was accepted")
        };
        let action = match strategy::transfer(&self.mine, &theirs, instead_of, share_equal) {
            // All of them: the file would have been all of it, too.
            Transfer::Rows => {
                let restart = self.distrusted;
                return self.flow(Flow::new(instead_of, restart, None));
            }
            Transfer::Delta => {
                self.expects = Expects::Differences;
                Action::SendWindows
            }
            Transfer::Full => {
                self.expects = Expects::FileSettled { outcome: Outcome::Merged };
                Action::SendFile
            }
        };
        (self, vec![action])
    }

    /// The choice that was or would be made with a peer's replica; what `--dry-run` shows.
    pub fn choice(&self, theirs: &ReplicaInfo, their_point: RowId) -> Choice {
        // What both were once found to hold in full is as good as a point, if both say so.
        let (my_row, their_row) = self.agreed.zip(self.confirmed).unwrap_or((RowId::NONE, RowId::NONE));
        let situation = Situation {
            mine: &self.mine,
            theirs,
            their_point,
            my_point: Known::point(&self.known.outgoing, &theirs.id).max(my_row),
            my_incoming: Known::point(&self.known.incoming, &theirs.id).max(their_row),
            leaving: self.leaving && !self.proven,
        };
        strategy::choose(&situation)
    }

    fn equal(self, id: ReplicaId, max_row: RowId, point: RowId) -> (Sender, Vec<Action>) {
        let theirs = ReplicaInfo { id, max_row, ..self.mine.clone() };
        self.choose(Box::new(theirs), point, vec![])
    }

    fn here(mut self, theirs: Box<ReplicaInfo>, their_point: RowId) -> (Sender, Vec<Action>) {
        let mut actions = vec![Action::Adopt(theirs.clone())];
        let ranges_differ = self.mine.ranges_digest != theirs.ranges_digest;
        if ranges_differ && (self.mine.shard_max_row > RowId::NONE || theirs.shard_max_row > RowId::NONE) {
            self.expects = Expects::Ranges { theirs, their_point, so_far: vec![] };
            actions.push(Action::TellRanges);
            return (self, actions);
        }
        self.choose(theirs, their_point, actions)
    }

    fn choose(
        mut self,
        theirs: Box<ReplicaInfo>,
        their_point: RowId,
        mut actions: Vec<Action>,
    ) -> (Sender, Vec<Action>) {
        let choice = self.choice(&theirs, their_point);
        self.distrusted = matches!(choice.reason, Reason::PointsDisagree | Reason::Restored);
        match choice.strategy {
            Strategy::Nothing(Agreement::HashMatch) => {
                // Whoever answers raises its own point when it sees equal rows; ours for it follows here.
                let remember = Action::Remember {
                    id: theirs.id.clone(),
                    point: Some(self.mine.max_row),
                    restart: false,
                };
                actions.push(remember);
                self.finish(Outcome::Nothing(Agreement::HashMatch), actions)
            }
            Strategy::Nothing(agreement) => self.finish(Outcome::Nothing(agreement), actions),
            Strategy::Deferred => self.finish(Outcome::Deferred, actions),
            Strategy::Rows { after, restart } => {
                let max_batches = Some(self.limits.max_batches);
                let (sender, more) = self.flow(Flow::new(after, restart, max_batches));
                actions.extend(more);
                (sender, actions)
            }
            Strategy::File { instead_of } => {
                self.expects = Expects::Accept { theirs: Some((theirs, instead_of)) };
                actions.push(Action::Offer);
                (self, actions)
            }
        }
    }

    /// Keeps a few batches on their way, then closes when all are answered.
    fn flow(mut self, flow: Flow) -> (Sender, Vec<Action>) {
        // A copy that is to be removed goes whole, or it would start over in every pass.
        let enough = !self.leaving && flow.max_batches.is_some_and(|most| flow.batches >= most);
        let open = flow.more && !enough;
        // What came in since we introduced ourselves is another pass's.
        let capped = flow.more && enough && flow.last < self.mine.max_row;
        let action = if open && flow.unanswered < super::BATCHES_IN_FLIGHT {
            Some(Action::SendRows { after: flow.last, in_bulk: flow.max_batches.is_none() })
        } else if !open && flow.unanswered == 0 {
            // Numbers above the last row present belong to rows that are gone: none of them is owed.
            let through = if capped { flow.last } else { flow.last.max(self.mine.max_row) };
            let restart = flow.restart;
            self.expects = Expects::RowsSettled { through, restart, capped };
            // As they were before the first row was read: what has come in since was not necessarily sent.
            let mut points = if capped { vec![] } else { std::mem::take(&mut self.known.incoming) };
            points.truncate(super::POINTS_LIMIT);
            return (self, vec![Action::Say(Message::RowsDone { through, restart, points })]);
        } else {
            None
        };
        self.expects = Expects::Took(flow);
        (self, action.into_iter().collect())
    }

    /// The peer has all of ours; whether we have all of its is the question left.
    fn settle(self, outcome: Outcome, settled: Settled, remember: Action) -> (Sender, Vec<Action>) {
        let mut actions = vec![remember];
        if self.distrusted && settled.hash != self.mine.hash {
            actions.push(Action::Distrust(settled.id));
        }
        self.finish(outcome, actions)
    }

    fn finish(mut self, outcome: Outcome, mut actions: Vec<Action>) -> (Sender, Vec<Action>) {
        self.expects = Expects::Nothing;
        actions.push(Action::Finish(outcome));
        (self, actions)
    }
}

impl Expects {
    fn name(&self) -> &'static str {
        match self {
            Expects::Introduction => "its replica",
            Expects::Ranges { .. } => "its shard ranges",
            Expects::RangesMerged { .. } | Expects::Weighed { .. } | Expects::Nothing => "nothing",
            Expects::Took(_) => "took",
            Expects::RowsSettled { .. } | Expects::FileSettled { .. } => "settled",
            Expects::Accept { .. } => "accept",
            Expects::Differences => "differs, want or rebuilt",
        }
    }
}
