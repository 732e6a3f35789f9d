//! How a node is doing, in values: what is looked at, what follows from it, and what `agent status --json` prints.

use std::path::PathBuf;

use serde::Serialize;

use super::kept::{Doing, Hindrance, PassNote, Totals};
use crate::obstacle::Kind;

/// How a node is doing. As JSON it is what `agent status --json` prints; times are seconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When this was asked.
    pub now: f64,
    /// The address and port of the node's container server, by which the ring knows it.
    pub node: String,
    /// The answer in a sentence.
    pub answer: String,
    /// Whether all that changed before the last round of each device is with all its peers; `null` if that is not known.
    pub in_sync: Option<bool>,
    /// Since when that is so.
    pub since: Option<f64>,
    /// Whether `alarms` holds anything; the exit code is 1 then.
    pub needs_person: bool,
    /// What needs a person.
    pub alarms: Vec<Alarm>,
    /// What could not be found out, and why.
    pub notes: Vec<String>,
    /// The agent that serves peers here.
    pub agent: AgentNow,
    /// The pass under way; `null` if none is.
    pub doing: Option<Doing>,
    /// The last pass that ended, of any kind.
    pub last_pass: Option<PassNote>,
    /// The last over the whole node.
    pub last_whole_pass: Option<PassNote>,
    /// The last that `--once` made.
    pub last_once: Option<PassNote>,
    /// Databases of which some peer lacks something, as far as known.
    pub databases_behind: u64,
    /// When the database that has not changed for longest, of those behind, did.
    pub oldest_change: Option<f64>,
    /// What all passes since `kept_since` came to.
    pub totals: Totals,
    /// The option.
    pub reclaim_age: f64,
    /// The option.
    pub interval: f64,
    /// This node's devices, in the ring's order.
    pub devices: Vec<DeviceNow>,
    /// The databases that are worst off, the worst first; at most ten.
    pub worst: Vec<BadNow>,
    /// Since when what past passes left is kept; `null` if nothing is.
    pub kept_since: Option<f64>,
    /// Where.
    pub kept_in: PathBuf,
}

/// The agent that serves peers on this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AgentNow {
    /// A daemon runs, or at least somebody listens on its port.
    pub running: bool,
    /// Its process, where that is known.
    pub pid: Option<u32>,
    /// Since when it serves.
    pub since: Option<f64>,
    /// It makes passes; else it only serves.
    pub passes: Option<bool>,
    /// The port that it listens on.
    pub port: u16,
    /// Anonymous memory now, in KiB.
    pub anon_kib: Option<u64>,
    /// The most it had.
    pub peak_anon_kib: Option<u64>,
    /// `agent_memory_budget`, in KiB.
    pub budget_kib: u64,
}

/// One device of this node.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DeviceNow {
    /// Its number in the ring.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Why it cannot be used now; `null` if it can.
    pub problem: Option<String>,
    /// Databases that belong here.
    pub databases: Option<u64>,
    /// Databases here that belong elsewhere, when it was last walked.
    pub strays: Option<u64>,
    /// When the pass began that last walked all of it.
    pub walked: Option<f64>,
    /// All that changed before this is with every peer that was not hindered.
    pub synced: Option<f64>,
    /// Since when every round brought everything to every peer; `null` if the last did not.
    pub in_sync_since: Option<f64>,
    /// What was wrong with it, or with databases on it, in the last round.
    pub trouble: Option<Hindrance>,
    /// Databases of which some peer lacks something; `null` if the ledger cannot be read.
    pub behind: Option<u64>,
    /// When the database that has not changed for longest, of those behind, did.
    pub oldest_change: Option<f64>,
    /// Databases in quarantine.
    pub quarantined: u64,
    /// When the last of them was put there.
    pub quarantined_newest: Option<f64>,
    /// The devices that it shares partitions with.
    pub peers: Vec<PeerNow>,
}

/// A peer of a device.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PeerNow {
    /// Its number in the ring.
    pub id: u32,
    /// Replication address and port, and its name.
    pub peer: String,
    /// Databases of which it lacks something, as far as known; `null` if the ledger cannot be read.
    pub behind: Option<u64>,
    /// When the database that has not changed for longest, of those behind, did.
    pub oldest_change: Option<f64>,
    /// All that changed before this is with it.
    pub synced: Option<f64>,
    /// What was in the way in the last round, and since when.
    pub hindered: Option<Hindrance>,
    /// While it is hindered: the fewest databases that were behind.
    pub least: Option<u64>,
    /// When that was.
    pub least_at: Option<f64>,
    /// Rounds since.
    pub rounds_since: Option<u32>,
}

/// A database that is badly off.
#[derive(Debug, Clone, Serialize)]
pub struct BadNow {
    /// The device of ours that it is on.
    pub device: String,
    /// Account and container; `null` if it was never opened.
    pub container: Option<String>,
    /// Its hash.
    pub hash: String,
    /// Its partition.
    pub partition: Option<u32>,
    /// Since when it fails, or when it changed if it only waits.
    pub since: f64,
    /// When it was last tried.
    pub last: Option<f64>,
    /// Passes in which it failed without a break.
    pub attempts: u64,
    /// With whom, and why.
    pub with: Vec<BadWithNow>,
}

/// What is between a database and a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BadWithNow {
    /// The peer; `null` if none has to do with it.
    pub peer: Option<String>,
    /// The kind of cause, as a word.
    pub kind: Kind,
    /// The cause.
    pub reason: String,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What a machine may go by.
    pub kind: AlarmKind,
    /// What it is about: a device of ours, or a peer's address; empty for the node.
    pub about: String,
    /// What is the matter, in a sentence.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// Kinds of alarms, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// No device of the ring is on this node.
    NotInRing,
    /// A drive cannot be used.
    Drive,
    /// Nobody serves peers here.
    NoAgent,
    /// A peer or a device comes near `reclaim_age`.
    ReclaimAge,
    /// No pass has ever been made.
    NoPass,
    /// Something is in the way, and does not go away by itself.
    Stuck,
    /// A damaged database was put in quarantine not long ago.
    Quarantined,
    /// Rows differ and nothing says which are right.
    Tied,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [AlarmKind; 8] = [
        AlarmKind::NotInRing,
        AlarmKind::Drive,
        AlarmKind::NoAgent,
        AlarmKind::ReclaimAge,
        AlarmKind::NoPass,
        AlarmKind::Stuck,
        AlarmKind::Quarantined,
        AlarmKind::Tied,
    ];

    /// The word for it, the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmKind::NotInRing => "not_in_ring",
            AlarmKind::Drive => "drive",
            AlarmKind::NoAgent => "no_agent",
            AlarmKind::ReclaimAge => "reclaim_age",
            AlarmKind::NoPass => "no_pass",
            AlarmKind::Stuck => "stuck",
            AlarmKind::Quarantined => "quarantined",
            AlarmKind::Tied => "tied",
        }
    }
}

/// The earliest of some times.
pub fn earliest(times: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    times.into_iter().flatten().min_by(f64::total_cmp)
}
