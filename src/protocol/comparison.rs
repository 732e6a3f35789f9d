//! Which databases of two devices differ: the calling half of that talk, and what either half keeps in mind of it.
//!
//! The keys of all databases are the leaves of a tree with sixteen branches at every node ([`Span`]). The caller tells the
//! sum of its whole tree. If the receiver's is another, it tells the sums of the branches; the caller opens those that
//! differ and hold something of its own, some at a time, and says which are equal, so that both remember; and so on, down
//! to spans of so few databases that they are told one by one.
//!
//! What was told last is opened first. So of each level of the tree only one batch is ever left over, and what either half
//! has to remember depends on the depth of the tree alone, not on how many databases there are or what a peer makes up
//! ([`Unopened`]). And since no span is opened twice, there is an end.

use super::message::{Compare, Message, Opened, Refusal};
use super::{BRANCHES, SPANS_LIMIT, Violation};
use crate::ledger::{LEAVES_LIMIT, Span};

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say this.
    Say(Message),
    /// Remember that all databases agree; the comparison is over.
    Agree,
    /// Compare these sums with our own, then call [`Comparison::weighed`].
    Weigh(Vec<(Span, Opened)>),
    /// Nothing: listen.
    Wait,
    /// It is over, and all was told.
    Finish,
    /// It is over: the peer would not.
    Refused(Refusal),
}

/// What came of comparing one span, bit by bit: the lowest is its first branch, or its first leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weighed {
    /// These are equal on our side.
    pub alike: u16,
    /// These branches are to be opened.
    pub open: u16,
}

/// One comparison, from the caller's side.
#[derive(Debug)]
pub struct Comparison {
    expects: Expects,
    unopened: Unopened,
}

/// What comes next.
#[derive(Debug)]
enum Expects {
    /// `Alike` or the `Sums` of everything.
    First,
    /// The `Sums` of these.
    Sums(Vec<Span>),
    /// The driver's word on what it was told of these.
    Weighed(Vec<Span>),
    /// `Alike`.
    Last,
    /// Nothing: it is over.
    Nothing,
}

type Step = Result<(Comparison, Action), Violation>;

impl Comparison {
    /// Begins: tells our sum.
    pub fn start(compare: Compare) -> (Comparison, Action) {
        let comparison = Comparison { expects: Expects::First, unopened: Unopened::default() };
        (comparison, Action::Say(Message::Compare(compare)))
    }

    /// Takes what the peer said.
    ///
    /// # Errors
    /// [`Violation`] if it does not fit here. The connection is then of no use any more.
    pub fn hear(self, message: Message) -> Step {
        let unopened = self.unopened;
        let step = |expects, unopened, action| Ok((Comparison { expects, unopened }, action));
        match (self.expects, message) {
            (expects, Message::Working) => step(expects, unopened, Action::Wait),
            (_, Message::Refused(refusal)) => step(Expects::Nothing, unopened, Action::Refused(refusal)),
            (Expects::First, Message::Alike) => step(Expects::Nothing, unopened, Action::Agree),
            (Expects::Last, Message::Alike) => step(Expects::Nothing, unopened, Action::Finish),
            (Expects::First, Message::Sums(sums)) => {
                let asked = vec![Span::ALL];
                let told = told_of(&asked, sums)?;
                step(Expects::Weighed(asked), unopened, Action::Weigh(told))
            }
            (Expects::Sums(asked), Message::Sums(sums)) => {
                let told = told_of(&asked, sums)?;
                step(Expects::Weighed(asked), unopened, Action::Weigh(told))
            }
            (expects, message) => {
                Err(Violation::OutOfTurn { expected: expects.name(), heard: message.name() })
            }
        }
    }

    /// The driver compared what it was given, span by span.
    pub fn weighed(mut self, weighed: &[Weighed]) -> (Comparison, Message) {
        let Expects::Weighed(asked) = self.expects else { unreachable!("only asked for after sums") };
        assert_eq!(asked.len(), weighed.len(), "a word on each span");
        self.unopened.put(asked.into_iter().zip(weighed.iter().map(|weighed| weighed.open)));
        let spans = self.unopened.take(SPANS_LIMIT);
        let expects = if spans.is_empty() { Expects::Last } else { Expects::Sums(spans.clone()) };
        let alike = weighed.iter().map(|weighed| weighed.alike).collect();
        (Comparison { expects, unopened: self.unopened }, Message::Open { spans, alike })
    }
}

impl Expects {
    fn name(&self) -> &'static str {
        match self {
            Expects::First => "alike or sums",
            Expects::Sums(_) => "sums",
            Expects::Last => "alike",
            Expects::Weighed(_) | Expects::Nothing => "nothing",
        }
    }
}

/// What was told of which span, if it can be true.
fn told_of(asked: &[Span], sums: Vec<Opened>) -> Result<Vec<(Span, Opened)>, Violation> {
    if sums.len() != asked.len() {
        return Err(Violation::Lie("sums of more or fewer spans than were opened"));
    }
    for (span, opened) in asked.iter().zip(&sums) {
        match opened {
            Opened::Branches(_) if span.digits() == Span::DIGITS_LIMIT => {
                return Err(Violation::Lie("branches of a single key"));
            }
            Opened::Branches(_) => {}
            Opened::Leaves(leaves) => {
                if leaves.len() > LEAVES_LIMIT {
                    return Err(Violation::TooMany("leaves"));
                }
                if !leaves.iter().all(|(key, _)| (span.first()..=span.last()).contains(key)) {
                    return Err(Violation::Lie("a database outside of the span that was opened"));
                }
                if !leaves.is_sorted_by(|(one, _), (next, _)| one < next) {
                    return Err(Violation::Lie("databases out of order"));
                }
            }
        }
    }
    Ok(asked.iter().copied().zip(sums).collect())
}

/// What a receiver was asked, before it told. Its own half keeps it ([`super::receiver`]).
#[derive(Debug)]
pub(super) struct Asked {
    spans: Vec<Span>,
    unopened: Unopened,
}

/// What a receiver has told.
#[derive(Debug)]
pub(super) struct Told {
    /// The spans told last, and which bits stand for something in each: branches, or leaves.
    last: Vec<(Span, Meaning)>,
    unopened: Unopened,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    Branches,
    Leaves(usize),
}

impl Asked {
    /// The span with which every comparison begins.
    pub(super) fn everything() -> Asked {
        Asked { spans: vec![Span::ALL], unopened: Unopened::default() }
    }

    /// The driver told this.
    pub(super) fn told(self, sums: &[Opened]) -> Told {
        assert_eq!(self.spans.len(), sums.len(), "sums of each span");
        let meanings = sums.iter().map(|opened| match opened {
            Opened::Branches(_) => Meaning::Branches,
            Opened::Leaves(leaves) => Meaning::Leaves(leaves.len()),
        });
        Told { last: self.spans.into_iter().zip(meanings).collect(), unopened: self.unopened }
    }
}

impl Told {
    /// What the sender wants to see next, if it may.
    pub(super) fn open(mut self, spans: &[Span], alike: &[u16]) -> Result<Asked, Violation> {
        if spans.len() > SPANS_LIMIT {
            return Err(Violation::TooMany("spans"));
        }
        if alike.len() != self.last.len() {
            return Err(Violation::Lie("marks for more or fewer spans than were told"));
        }
        let mut left = Vec::with_capacity(self.last.len());
        for ((span, meaning), alike) in self.last.into_iter().zip(alike) {
            match meaning {
                Meaning::Branches => left.push((span, !alike)),
                Meaning::Leaves(count) if u32::from(*alike) >> count != 0 => {
                    return Err(Violation::Lie("marks for more databases than were told"));
                }
                Meaning::Leaves(_) => {}
            }
        }
        self.unopened.put(left);
        if !spans.iter().all(|span| self.unopened.strike(*span)) {
            return Err(Violation::Lie("a span that was not told, or passed over"));
        }
        Ok(Asked { spans: spans.to_vec(), unopened: self.unopened })
    }
}

/// Branches that were told and may yet be opened: the spans they are of, and a bit for each. The last is the next.
///
/// Spans deeper in the tree lie above the others. To open a branch of one, all above it are done with or given up; so of
/// each depth there is only what was told at once, [`SPANS_LIMIT`] at most.
#[derive(Debug, Default)]
struct Unopened(Vec<(Span, u16)>);

impl Unopened {
    /// Adds what was told at once; the first is to be opened first.
    fn put(&mut self, told: impl IntoIterator<Item = (Span, u16), IntoIter: DoubleEndedIterator>) {
        self.0.extend(told.into_iter().rev().filter(|(_, left)| *left != 0));
        debug_assert!(self.0.len() <= SPANS_LIMIT * usize::from(Span::DIGITS_LIMIT));
        debug_assert!(self.0.is_sorted_by_key(|(span, _)| span.digits()));
    }

    /// Takes the next ones.
    fn take(&mut self, limit: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < limit {
            let Some((of, left)) = self.0.last_mut() else { break };
            spans.push(of.branches()[left.trailing_zeros() as usize]);
            *left &= *left - 1;
            if *left == 0 {
                self.0.pop();
            }
        }
        spans
    }

    /// Takes this one, and gives up those that come before it. `false` if it is not there.
    fn strike(&mut self, span: Span) -> bool {
        while let Some((of, left)) = self.0.last_mut() {
            if span.digits() == of.digits() + 1 && (of.first()..=of.last()).contains(&span.first()) {
                let bit = 1 << of.branch_of(span.first());
                let is_there = *left & bit != 0;
                *left &= !bit;
                return is_there;
            }
            self.0.pop();
        }
        false
    }
}

const _: () =
    assert!(BRANCHES == u16::BITS as usize && LEAVES_LIMIT <= BRANCHES, "a mask has a bit for each");
