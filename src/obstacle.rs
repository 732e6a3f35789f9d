//! What keeps a database from being with its peers: told where it is known, for whoever wants to remember it.
//!
//! A pass counts failures and logs their causes. An operator who asks much later wants to know of *this* database or *this*
//! peer: since when, and why. So each failure is also handed over as a value. Nothing is made for what succeeds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash_path::{Hash, Partition};
use crate::ring::DeviceId;

/// One thing that went wrong in a pass, or could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The device of ours.
    pub device: DeviceId,
    /// The device of a peer that did not get it; `None` if no peer has to do with it.
    pub peer: Option<DeviceId>,
    /// What did not get there; `None` for all that differs.
    pub database: Option<Whose>,
    /// Why.
    pub cause: Cause,
}

/// A database of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The partition it lies in, if that is a number.
    pub partition: Option<Partition>,
    /// Its hash.
    pub hash: Hash,
    /// Account and container, if it could be opened.
    pub name: Option<(String, String)>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What a machine may go by.
    pub kind: Kind,
    /// What it is to people, at most [`TEXT_CHARS`] characters.
    pub text: String,
}

impl Cause {
    /// A cause, its text cut if it is long: some of it comes from peers.
    pub fn new(kind: Kind, text: impl fmt::Display) -> Cause {
        let text = text.to_string();
        Cause {
            kind,
            text: text.char_indices().nth(TEXT_CHARS).map_or(text.clone(), |(end, _)| text[..end].into()),
        }
    }
}

/// Causes, split by what an operator does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A drive of ours is not mounted, or cannot be read.
    DriveUnusable,
    /// Our database was damaged; it is in quarantine.
    Damaged,
    /// Our database cannot be opened.
    Unreadable,
    /// Our database does not belong into its directory: another cluster's hash prefix and suffix.
    WrongHash,
    /// The peer does not answer.
    Unreachable,
    /// The peer's drive is not mounted.
    PeerNotMounted,
    /// The peer's drive is full.
    PeerFull,
    /// The peer goes by another ring.
    OtherRing,
    /// The peer's database, or the peer, was busy.
    PeerBusy,
    /// The peer's database was damaged; it is in quarantine there.
    PeerDamaged,
    /// More rows differ than one pass sends.
    Capped,
    /// The peer has all of ours, and rows that it has yet to bring.
    PeerAhead,
    /// The container is being sharded: its rows are left to the sharder.
    Deferred,
    /// Rows of the same names and times differ; nothing says which are right.
    Tied,
    /// Nothing is in the way: the next pass takes it there, or the peer's next pass brings it.
    Waiting,
    /// Anything else, on either side.
    Failed,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// All that we have is with the peer, or is not for a pass to bring there; yet the two differ.
    pub fn is_excused(self) -> bool {
        matches!(self, Kind::Deferred | Kind::Tied | Kind::PeerAhead)
    }

    /// What it is to people, in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::DriveUnusable => "drive cannot be used",
            Kind::Damaged => "damaged, in quarantine",
            Kind::Unreadable => "cannot be opened",
            Kind::WrongHash => "not of this cluster's hash",
            Kind::Unreachable => "peer does not answer",
            Kind::PeerNotMounted => "peer's drive not mounted",
            Kind::PeerFull => "peer's drive full",
            Kind::OtherRing => "peer has another ring",
            Kind::PeerBusy => "peer busy",
            Kind::PeerDamaged => "peer's copy damaged",
            Kind::Capped => "more rows to come",
            Kind::PeerAhead => "peer has rows to bring",
            Kind::Deferred => "being sharded",
            Kind::Tied => "rows tied",
            Kind::Waiting => "waits for the next pass",
            Kind::Failed => "failed",
            Kind::Unknown => "unknown",
        }
    }
}

/// Enough for a path and a sentence.
pub const TEXT_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let cause = |text: &str| Cause::new(Kind::Failed, text).text;
        assert_eq!(cause("short"), "short");
        assert_eq!(cause(&"ä".repeat(TEXT_CHARS)), "ä".repeat(TEXT_CHARS));
        assert_eq!(cause(&"ä".repeat(TEXT_CHARS + 1)), "ä".repeat(TEXT_CHARS));
    }

    #[test]
    fn kinds_are_words_and_a_strange_word_is_no_error() {
        let cause = Cause::new(Kind::PeerNotMounted, "x");
        let text = serde_json::to_string(&cause).expect("plain values");
        assert_eq!(text, r#"{"kind":"peer_not_mounted","text":"x"}"#);
        assert_eq!(serde_json::from_str::<Cause>(&text).expect("as written"), cause);
        let strange = r#"{"kind":"of_tomorrow","text":"x"}"#;
        assert_eq!(serde_json::from_str::<Cause>(strange).expect("understood").kind, Kind::Unknown);
    }
}
