//! The conversation between two agents; touches no file, socket or clock.
//!
//! One connection serves many databases, one exchange after the other. It opens with a greeting from each side. Then the
//! sender may ask which databases of a device differ from its own ([`comparison`]): it tells the sum of all (`Compare`),
//! and if the receiver's is another, the two descend to those that differ (`Sums`, `Open`), without a word on those that
//! agree. Both remember what turned out equal.
//!
//! Then, for each database:
//!
//! 1. The sender introduces its replica (`Meet`). The receiver takes over what is newer of its policy, metadata and
//!    timestamps, and introduces its own replica as it was before that (`Here`, or `Equal`, or `Missing`). The sender
//!    takes over what is newer of that. Most exchanges end here.
//! 2. If shard ranges differ, each tells all of its own.
//! 3. The sender chooses ([`crate::strategy`]):
//!    * rows after a point, in batches, a few of them on their way at a time (`Rows`, `Took`), closed by the sync
//!      points that the receiver inherits (`RowsDone`);
//!    * or its file (`Offer`, `Accept`): as a delta against the receiver's own file (`Windows`, then for each window
//!      that differs `Differs`, `Pages`, `Want`, `Patch`; then `Rebuilt`), or in full (`Literal`). What was written to
//!      meanwhile follows (`Again`). A digest of the whole file closes either (`FileDone`); where a delta does not come
//!      out equal (`Mismatch`), the file follows in full.
//! 4. The receiver makes it durable and says what it ended with (`Settled`).
//!
//! Between two of these the sender may ask what time it is (`AskTime`, `Time`): `agent check` tells clocks apart by that.
//!
//! The receiver may refuse at any point; what the sender says before it hears that is passed over. Anything else that
//! comes out of turn, or does not parse, is a [`Violation`] and ends the connection: nothing that was staged is used.

pub mod comparison;
mod fields;
pub mod message;
pub mod receiver;
pub mod rows;
pub mod sender;
mod sums;
#[cfg(test)]
mod tests;
pub mod wire;

use std::fmt;

use crate::replica::ShardRange;
use message::Message;

/// What this end speaks. Raised when a message changes.
pub const VERSION: u16 = 5;
/// The longest frame: a window of the largest size that did not compress, and room for what goes with it.
pub const FRAME_LIMIT: usize = 5 << 20;
/// Batches of rows on their way at once: enough to keep reading, sending and merging at the same time.
pub const BATCHES_IN_FLIGHT: u64 = 4;
/// Windows of a delta worked on at once, for the same reason.
pub const WINDOWS_IN_FLIGHT: usize = 64;
/// What may be wanted of them and have no answer yet, in bytes: little enough for the buffers of any connection, so that
/// a receiver who is still asking and a sender who is still answering never wait for each other.
pub const WANTED_BYTES_IN_FLIGHT: usize = 64 << 10;
/// The most shard ranges of one container that are exchanged.
pub const RANGES_LIMIT: usize = 50_000;
/// What they may take together, as text: some thousand of the longest names, or all of ordinary ones.
pub const RANGES_BYTES_LIMIT: usize = 16 << 20;
/// Shard ranges in one message.
pub const RANGES_PER_MESSAGE: usize = 500;
/// Sync points in one message: far more databases than ever shared a container. What goes beyond is not told; points
/// only save work.
pub const POINTS_LIMIT: usize = 4096;
/// Window digests in one message.
pub const DIGESTS_PER_MESSAGE: usize = 4096;

/// Parts of a span, and the databases that are told of one: as many as a mask has bits.
pub const BRANCHES: usize = 16;
/// Spans opened at once: enough to make little of a link's latency, and few enough for a sum of each to be at hand.
pub const SPANS_LIMIT: usize = 64;

/// What a peer must not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A message that does not fit here.
    OutOfTurn {
        /// What could have come.
        expected: &'static str,
        /// What came.
        heard: &'static str,
    },
    /// More than anybody has.
    TooMany(&'static str),
    /// Something that contradicts what was said before.
    Lie(&'static str),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::OutOfTurn { expected, heard } => {
                write!(f, "broke the protocol: expected {expected}, heard {heard}")
            }
            Violation::TooMany(what) => write!(f, "broke the protocol: too many {what}"),
            Violation::Lie(what) => write!(f, "broke the protocol: {what}"),
        }
    }
}

impl std::error::Error for Violation {}

/// Adds a part of a peer's shard ranges to those that came before it.
fn add_ranges(so_far: &mut Vec<ShardRange>, part: Vec<ShardRange>, more: bool) -> Result<(), Violation> {
    if more && part.len() != RANGES_PER_MESSAGE {
        return Err(Violation::Lie("it announced more shard ranges and had room for them"));
    }
    so_far.extend(part);
    let text = |range: &ShardRange| range.name.len() + range.lower.len() + range.upper.len();
    if so_far.len() > RANGES_LIMIT || so_far.iter().map(text).sum::<usize>() > RANGES_BYTES_LIMIT {
        return Err(Violation::TooMany("shard ranges"));
    }
    Ok(())
}

impl Message {
    /// Its name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Compare(_) => "compare",
            Message::Open { .. } => "open",
            Message::Alike => "alike",
            Message::Sums(_) => "sums",
            Message::Meet(_) => "meet",
            Message::Ranges { .. } => "shard ranges",
            Message::Rows { .. } => "rows",
            Message::RowsDone { .. } => "rows done",
            Message::Offer { .. } => "an offer",
            Message::Literal(_) => "a literal window",
            Message::Again { .. } => "a window once more",
            Message::Windows(_) => "window digests",
            Message::Pages { .. } => "page digests",
            Message::Patch { .. } => "a patch",
            Message::FileDone { .. } => "file done",
            Message::Here { .. } => "here",
            Message::Equal { .. } => "equal",
            Message::Missing => "missing",
            Message::Refused(_) => "refused",
            Message::Took { .. } => "took",
            Message::Accept(_) => "accept",
            Message::Differs { .. } => "differs",
            Message::Want { .. } => "want",
            Message::Rebuilt => "rebuilt",
            Message::Mismatch => "mismatch",
            Message::Working => "working",
            Message::Settled(_) => "settled",
            Message::AskTime => "a question for the time",
            Message::Time(_) => "the time",
        }
    }
}
