//! The half that answers.
//!
//! It hears: `Compare`, at any time, and answers with its own sums if they differ, then `Open`s; `Meet`, at any time, and
//! answers with its own replica; `Ranges`, and answers with its own; `Rows` and `RowsDone`; `Offer`, then `Literal`s or
//! `Windows`, `Pages` and `Patch`es, then `Again`s and `FileDone`; `Working`, at any time; `AskTime`, at any time. It
//! never speaks unasked, but for `Working` while it is busy with what it was last asked.
//!
//! A refusal leaves it deaf until the next `Meet` or `Compare`: what the sender said before it heard the refusal is on its way.

use super::Violation;
use super::comparison::{Asked, Told};
use super::message::{Compare, Meet, Message, Opened, Shape};
use crate::ledger::Span;
use crate::replica::{Row, RowId, ShardRange, SyncPoint};
use crate::timestamp::Timestamp;

/// What the driver has to do next. After each it says whatever came of it; if that is `Refused`, it calls
/// [`Receiver::refused`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Sum up what our device shares with the asker's. If the sums are equal, remember it and say `Alike`, else say the
    /// `Sums` of everything; then call [`Receiver::told`].
    Compare(Compare),
    /// Remember what is alike of what was told last, and say the `Sums` of these spans, or `Alike` if there are none; then
    /// call [`Receiver::told`].
    Open {
        /// What the sender wants to see.
        spans: Vec<Span>,
        /// For each span told last, which of its branches or leaves are equal on the sender's side.
        alike: Vec<u16>,
    },
    /// Look up the database, settle policy, metadata and timestamps, and say `Here`, `Equal` or `Missing`; then call
    /// [`Receiver::met`].
    Meet(Box<Meet>),
    /// Merge these ranges, then say our own.
    ExchangeRanges(Vec<ShardRange>),
    /// Merge these rows and say `Took`.
    MergeRows(Vec<Row>),
    /// Merge the points, make all of it durable, say `Settled`.
    FinishRows {
        /// The last row sent.
        through: RowId,
        /// Replace the point.
        restart: bool,
        /// The sender's incoming points.
        points: Vec<SyncPoint>,
    },
    /// Make room for a file of this shape and say `Accept`.
    Prepare {
        /// Its shape.
        shape: Shape,
        /// The sharding epoch in its name.
        epoch: Option<Timestamp>,
    },
    /// The next window of the file.
    Append(Vec<u8>),
    /// A window that comes once more, of a file that has so many bytes now.
    Amend {
        /// Number of the window.
        window: u32,
        /// Bytes of the file now.
        file_bytes: u64,
        /// The window, packed.
        bytes: Vec<u8>,
    },
    /// Digests of the sender's next windows: say `Differs` of those that do, a few at a time, and `Rebuilt` when none is
    /// left.
    CompareWindows(Vec<[u8; 16]>),
    /// Look for these pages and say which you `Want`.
    FindPages {
        /// Number of the window.
        window: u32,
        /// Five bytes a page.
        digests: Vec<u8>,
    },
    /// Rebuild the window.
    Apply {
        /// Number of the window.
        window: u32,
        /// What the sender's delta made.
        patch: Vec<u8>,
    },
    /// Check the file, put it to use, say `Settled` (or `Mismatch` after a delta).
    Install {
        /// BLAKE3 of the whole file.
        digest: [u8; 32],
        /// The greatest row number ever given in it.
        max_row: RowId,
    },
    /// Say what time it is.
    TellTime,
    /// Nothing: wait for more.
    Wait,
}

/// One connection, from the answering side.
#[derive(Debug)]
pub struct Receiver {
    expects: Expects,
}

/// What comes next.
#[derive(Debug)]
enum Expects {
    /// `Meet` or `Compare`.
    Meet,
    /// The driver's word on what it told of what was asked.
    Telling(Asked),
    /// `Open`.
    Open(Told),
    /// The driver's word on what it met.
    Met,
    /// `Ranges`, `Rows`, `RowsDone` or `Offer`; there is a database here.
    Work { ranges: Vec<ShardRange> },
    /// `Offer`; there is none.
    Offer,
    /// `Literal`, `Again`, `Windows` or `FileDone`.
    File { can_delta: bool },
    /// `Pages`, `Patch`, `Windows`, `Again` or `FileDone`.
    Delta,
    /// `Meet` or `Compare`; all else is left over from before a refusal.
    Anything,
}

type Step = Result<(Receiver, Action), Violation>;

impl Receiver {
    /// A connection on which nothing was said yet.
    pub fn start() -> Receiver {
        Receiver { expects: Expects::Meet }
    }

    /// Takes what the sender said.
    ///
    /// # Errors
    /// [`Violation`] if it does not fit here. The connection is then of no use any more.
    pub fn hear(self, message: Message) -> Step {
        let step = |expects, action| Ok((Receiver { expects }, action));
        match (self.expects, message) {
            (Expects::Met | Expects::Telling(_), message) => {
                Err(Violation::OutOfTurn { expected: "nothing", heard: message.name() })
            }
            (expects, Message::Working) => step(expects, Action::Wait),
            (_, Message::Meet(meet)) => step(Expects::Met, Action::Meet(meet)),
            (_, Message::Compare(compare)) => {
                step(Expects::Telling(Asked::everything()), Action::Compare(compare))
            }
            (_, Message::AskTime) => step(Expects::Meet, Action::TellTime),
            (Expects::Open(told), Message::Open { spans, alike }) => {
                step(Expects::Telling(told.open(&spans, &alike)?), Action::Open { spans, alike })
            }
            (Expects::Anything, _) => step(Expects::Anything, Action::Wait),
            (Expects::Work { ranges: mut so_far }, Message::Ranges { ranges, more }) => {
                super::add_ranges(&mut so_far, ranges, more)?;
                if more {
                    return step(Expects::Work { ranges: so_far }, Action::Wait);
                }
                step(Expects::Work { ranges: vec![] }, Action::ExchangeRanges(so_far))
            }
            // After a look at the basis the rows turned out to be cheaper.
            (Expects::File { can_delta: true }, Message::Rows { rows }) => {
                step(Expects::Work { ranges: vec![] }, Action::MergeRows(rows))
            }
            (expects @ Expects::Work { .. }, Message::Rows { rows }) => {
                step(expects, Action::MergeRows(rows))
            }
            (
                Expects::Work { .. } | Expects::File { can_delta: true },
                Message::RowsDone { through, restart, points },
            ) => step(Expects::Meet, Action::FinishRows { through, restart, points }),
            (Expects::Work { .. }, Message::Offer { shape, epoch }) => {
                step(Expects::File { can_delta: true }, Action::Prepare { shape, epoch })
            }
            (Expects::Offer, Message::Offer { shape, epoch }) => {
                step(Expects::File { can_delta: false }, Action::Prepare { shape, epoch })
            }
            (Expects::File { .. }, Message::Literal(window)) => {
                step(Expects::File { can_delta: false }, Action::Append(window))
            }
            (Expects::File { can_delta: false }, Message::Again { window, file_bytes, bytes }) => {
                step(Expects::File { can_delta: false }, Action::Amend { window, file_bytes, bytes })
            }
            (Expects::Delta, Message::Again { window, file_bytes, bytes }) => {
                step(Expects::Delta, Action::Amend { window, file_bytes, bytes })
            }
            (Expects::File { can_delta: true } | Expects::Delta, Message::Windows(digests)) => {
                step(Expects::Delta, Action::CompareWindows(digests))
            }
            (Expects::Delta, Message::Pages { window, digests }) => {
                step(Expects::Delta, Action::FindPages { window, digests })
            }
            (Expects::Delta, Message::Patch { window, patch }) => {
                step(Expects::Delta, Action::Apply { window, patch })
            }
            (Expects::Delta, Message::FileDone { digest, max_row }) => {
                // A mismatch is followed by the whole file.
                step(Expects::File { can_delta: false }, Action::Install { digest, max_row })
            }
            (Expects::File { .. }, Message::FileDone { digest, max_row }) => {
                step(Expects::Anything, Action::Install { digest, max_row })
            }
            (expects, message) => {
                Err(Violation::OutOfTurn { expected: expects.name(), heard: message.name() })
            }
        }
    }

    /// The driver introduced its replica: there is one, or there is none.
    pub fn met(self, here: bool) -> Receiver {
        let expects = if here { Expects::Work { ranges: vec![] } } else { Expects::Offer };
        Receiver { expects }
    }

    /// The driver said these `Sums`; or, if they are none, that all is `Alike`.
    pub fn told(self, sums: &[Opened]) -> Receiver {
        let Expects::Telling(asked) = self.expects else { unreachable!("only told when asked") };
        let expects = match sums {
            [] => Expects::Meet,
            sums => Expects::Open(asked.told(sums)),
        };
        Receiver { expects }
    }

    /// Is something being collected that comes in several messages, and takes more memory with each?
    pub fn is_collecting(&self) -> bool {
        matches!(&self.expects, Expects::Work { ranges } if !ranges.is_empty())
    }

    /// The driver said `Refused`.
    pub fn refused(self) -> Receiver {
        Receiver { expects: Expects::Anything }
    }
}

impl Expects {
    fn name(&self) -> &'static str {
        match self {
            Expects::Meet | Expects::Anything => "meet",
            Expects::Met | Expects::Telling(_) => "nothing",
            Expects::Open(_) => "spans to open",
            Expects::Work { .. } => "shard ranges, rows or an offer",
            Expects::Offer => "an offer",
            Expects::File { .. } => "the file",
            Expects::Delta => "pages and patches",
        }
    }
}
