//! What the facts come to: in sync or not, since when, and what needs a person.
//!
//! The rules are few, and each has its remedy. A backlog that shrinks needs nobody, nor does a failure that the next pass
//! may mend. What lasts for [`LASTS_SECS`] does, and so does whatever comes near `reclaim_age`: past it tombstones are
//! forgotten, and a replica that never heard of them brings deleted rows back.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::gather::{DeviceNow, PeerNow, Report, earliest};
use super::kept::Hindrance;
use crate::obstacle::{Cause, Kind};
use crate::report::text::{thousands, utc};

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

/// Is the node in sync, and since when? `None` if no pass has walked all of every device.
pub fn in_sync(report: &Report) -> (Option<bool>, Option<f64>) {
    let devices = &report.devices;
    if devices.is_empty() {
        return (None, None);
    }
    let troubles = devices.iter().flat_map(|device| {
        let peers = device.peers.iter().map(|peer| peer.hindered.as_ref().map(|hindered| hindered.since));
        peers.chain([device.trouble.as_ref().map(|trouble| trouble.since)])
    });
    let since = earliest(troubles);
    if since.is_some() || devices.iter().any(|device| device.problem.is_some()) {
        return (Some(false), since);
    }
    if devices.iter().any(|device| device.in_sync_since.is_none()) {
        return (None, None);
    }
    (Some(true), devices.iter().filter_map(|device| device.in_sync_since).max_by(f64::total_cmp))
}

/// The answer in a sentence.
pub fn answer(report: &Report) -> String {
    let when = |time: f64| format!("{} UTC ({})", utc(time as u64), ago(report.now, time));
    let waiting = report.databases_behind;
    let out_of_use = report.devices.iter().filter(|device| device.problem.is_some()).count();
    match (report.in_sync, report.since) {
        (Some(true), Some(since)) => {
            let synced = earliest(report.devices.iter().map(|device| device.synced));
            let until = synced.map_or_else(String::new, |time| {
                format!("; all that changed until {} is with its peers", ago(report.now, time))
            });
            let more = match waiting {
                0 => String::new(),
                1 => ", 1 database that changed since waits for a pass".to_owned(),
                more => format!(", {} databases that changed since wait for a pass", thousands(more)),
            };
            format!("in sync since {}{until}{more}", when(since))
        }
        (Some(false), since) => {
            let mut parts = Vec::new();
            if out_of_use > 0 {
                parts.push(format!(
                    "{out_of_use} of {} cannot be used",
                    count(report.devices.len() as u64, "drive")
                ));
            }
            let peers = report.devices.iter().flat_map(|device| &device.peers);
            let peers: BTreeSet<u32> = peers
                .filter(|peer| peer.behind.unwrap_or(0) > 0 || peer.hindered.is_some())
                .map(|peer| peer.id)
                .collect();
            if waiting > 0 || !peers.is_empty() {
                let oldest = report.oldest_change.filter(|_| waiting > 0);
                let oldest = oldest
                    .map_or_else(String::new, |time| format!(", oldest change {}", ago(report.now, time)));
                parts.push(format!(
                    "{} behind on {}{oldest}",
                    count(waiting, "database"),
                    count(peers.len() as u64, "peer")
                ));
            }
            let since = since.map_or_else(String::new, |time| format!(" since {}", when(time)));
            format!(
                "not in sync{since}: {}",
                if parts.is_empty() { "see below".to_owned() } else { parts.join("; ") }
            )
        }
        _ => {
            let missing = report.devices.iter().find(|device| device.in_sync_since.is_none());
            match missing {
                Some(device) => format!("not known yet: no pass has gone round all of {}", device.name),
                None => "not known: by the ring no device is on this node".to_owned(),
            }
        }
    }
}

/// What needs a person.
pub fn alarms(report: &Report) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut say = |kind, about: &str, text: String, remedy: &str| {
        alarms.push(Alarm { kind, about: about.to_owned(), text, remedy: remedy.to_owned() });
    };
    if report.devices.is_empty() {
        let text = format!("by the ring no device is at {}", report.node);
        say(
            AlarmKind::NotInRing,
            "",
            text,
            "check bind_ip and bind_port, and that the ring is this cluster's",
        );
    }
    if !report.agent.running {
        let text = format!("no agent is running: nobody listens on port {}", report.agent.port);
        say(AlarmKind::NoAgent, "", text, "start it: systemctl start agent; its log says why it ended");
    }
    let half = report.reclaim_age / 2.0;
    let makes_passes = report.agent.running && report.agent.passes != Some(false);
    let never = report.last_whole_pass.is_none() && report.doing.is_none();
    // One that was begun just now, or cannot be kept, says nothing.
    let begun = report.kept_since.filter(|begun| report.now - begun >= LASTS_SECS);
    if let Some(begun) = begun.filter(|_| never && !makes_passes && !report.devices.is_empty()) {
        let text = format!("no pass over the whole node was made, {}", for_how_long(report.now, begun));
        say(AlarmKind::NoPass, "", text, "start the agent, or run agent --once");
    }
    for device in &report.devices {
        if let Some(problem) = &device.problem {
            say(AlarmKind::Drive, &device.name, problem.clone(), "mount it, or take it out of the ring");
        }
        if let Some(text) = reclaim_age_of_device(report, device, half) {
            say(AlarmKind::ReclaimAge, &device.name, text, BEFORE_RECLAIM);
        }
        let trouble = device.trouble.as_ref().filter(|_| device.problem.is_none());
        if let Some(trouble) = trouble.filter(|trouble| report.now - trouble.since >= LASTS_SECS) {
            let text = format!("{}, {}", trouble.cause.text, for_how_long(report.now, trouble.since));
            say(AlarmKind::Stuck, &device.name, text, remedy(trouble.cause.kind));
        }
        if let Some(newest) =
            device.quarantined_newest.filter(|newest| report.now - newest <= report.reclaim_age)
        {
            let text = format!(
                "{} in quarantine, the last one put there {}",
                count(device.quarantined, "database"),
                ago(report.now, newest)
            );
            say(AlarmKind::Quarantined, &device.name, text, LOOK_AT_QUARANTINE);
        }
    }
    for (address, group) in by_address(report) {
        peers_of(report, &address, &group, half, &mut say);
    }
    for bad in &report.worst {
        if bad.with.iter().any(|with| with.kind == Kind::Tied) {
            let name = bad.container.clone().unwrap_or_else(|| bad.hash.clone());
            let text = format!("{name}: rows of the same names and times differ between replicas");
            say(
                AlarmKind::Tied,
                &bad.device,
                text,
                "write the objects anew; agent locate shows the replicas",
            );
        }
    }
    alarms.sort_by_key(|alarm| alarm.kind);
    alarms
}

/// A device that was not walked, or whose databases did not get out, for too long.
fn reclaim_age_of_device(report: &Report, device: &DeviceNow, half: f64) -> Option<String> {
    let begun = report.kept_since?;
    let (what, since) = match (device.walked, device.synced) {
        (None, _) => ("no pass has walked all of it", begun),
        (Some(walked), _) if report.now - walked > half => ("it was not walked as a whole", walked),
        (_, None) => ("not everything on it reached its peers", begun),
        (_, Some(synced)) => ("not everything on it reached its peers", synced),
    };
    (report.now - since > half).then(|| of_reclaim_age(report, what, since))
}

fn of_reclaim_age(report: &Report, what: &str, since: f64) -> String {
    format!("{what} {}; reclaim_age is {}", for_how_long(report.now, since), span(report.reclaim_age))
}

/// Peers that are hindered, by the address of their node.
fn by_address(report: &Report) -> BTreeMap<String, Vec<&PeerNow>> {
    let mut groups: BTreeMap<String, Vec<&PeerNow>> = BTreeMap::new();
    let peers = report.devices.iter().flat_map(|device| &device.peers);
    for peer in peers.filter(|peer| peer.hindered.is_some()) {
        let address = peer.peer.split('/').next().unwrap_or_default().to_owned();
        groups.entry(address).or_default().push(peer);
    }
    groups
}

/// One alarm for all the devices of a node that have the same thing in the way.
fn peers_of(
    report: &Report,
    address: &str,
    group: &[&PeerNow],
    half: f64,
    say: &mut impl FnMut(AlarmKind, &str, String, &str),
) {
    let mut told: BTreeMap<(AlarmKind, &'static str), Group> = BTreeMap::new();
    for peer in group {
        let Some(hindered) = &peer.hindered else { continue };
        let Some((kind, since)) = alarm_of_peer(report, peer, hindered, half) else { continue };
        let new = || Group { names: BTreeSet::new(), databases: 0, since, cause: &hindered.cause };
        let group = told.entry((kind, hindered.cause.kind.as_str())).or_insert_with(new);
        group.names.insert(peer.peer.split('/').nth(1).unwrap_or_default());
        group.databases += peer.behind.unwrap_or(0);
        group.since = group.since.min(since);
    }
    for ((kind, _), Group { names, databases, since, cause }) in told {
        let mut shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        if names.len() > NAMES_SHOWN {
            shown += &format!(" and {} more", names.len() - NAMES_SHOWN);
        }
        let behind = format!("{} behind on {shown}", count(databases, "database"));
        let text = match kind {
            AlarmKind::ReclaimAge => {
                format!("{}; {}", cause.text, of_reclaim_age(report, &format!("{behind},"), since))
            }
            _ => format!("{}, {}; {behind}", cause.text, for_how_long(report.now, since)),
        };
        say(kind, address, text, remedy(cause.kind));
    }
}

/// Devices of a node for which the same is to be said.
struct Group<'a> {
    names: BTreeSet<&'a str>,
    databases: u64,
    since: f64,
    cause: &'a Cause,
}

/// Whether a peer needs somebody to look, and since when it has been so.
fn alarm_of_peer(
    report: &Report,
    peer: &PeerNow,
    hindered: &Hindrance,
    half: f64,
) -> Option<(AlarmKind, f64)> {
    let synced = peer.synced.or(report.kept_since)?;
    if report.now - synced > half {
        return Some((AlarmKind::ReclaimAge, synced));
    }
    let shrinks = report.now - peer.least_at? < LASTS_SECS
        || peer.rounds_since? < LASTS_ROUNDS
        // As much goes there as may in one pass.
        || hindered.cause.kind == Kind::Capped;
    (report.now - hindered.since >= LASTS_SECS && !shrinks).then_some((AlarmKind::Stuck, hindered.since))
}

/// What to do about a cause.
fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Unreachable => "see that its node is up, its agent runs, and nothing between blocks the port",
        Kind::PeerNotMounted => "mount that drive, or take it out of the ring",
        Kind::PeerFull => "make room on that drive, or give it less weight",
        Kind::OtherRing => "send the newest ring to all nodes",
        Kind::PeerBusy => "see what keeps its databases locked, or its agent at its limit of connections",
        Kind::PeerDamaged | Kind::Damaged => {
            "look at that drive: databases on it are damaged again and again"
        }
        Kind::DriveUnusable => "look at the drive; the kernel's log says more",
        Kind::Unreadable => "look at its owner and permissions, and at the drive",
        Kind::WrongHash => "compare the hash prefix and suffix in swift.conf with those of other nodes",
        Kind::PeerAhead => "see that the peer's agent makes passes",
        Kind::Capped | Kind::Deferred | Kind::Tied | Kind::Waiting | Kind::Failed | Kind::Unknown => {
            "the log of this agent, and of that one, say more"
        }
    }
}

/// A number of things.
pub fn count(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// How long ago a time was, in the unit that says enough.
pub fn ago(now: f64, time: f64) -> String {
    match now - time {
        past if past < -1.0 => format!("in {}", span(-past)),
        past if past < 1.0 => "just now".to_owned(),
        past => format!("{} ago", span(past)),
    }
}

fn for_how_long(now: f64, since: f64) -> String {
    format!("for {}", span((now - since).max(0.0)))
}

/// A span of time: one unit, two where one says little.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let two = |large: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{large} {unit}"),
        small if large < 3 => format!("{large} {unit} {small} {below}"),
        _ => format!("{large} {unit}"),
    };
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// What is in the way for so long does not go away by itself.
pub const LASTS_SECS: f64 = 3600.0;
/// Rounds in which a backlog has to shrink, if there are so many in that time.
pub const LASTS_ROUNDS: u32 = 3;
/// Devices of a node that are named.
const NAMES_SHOWN: usize = 4;
const BEFORE_RECLAIM: &str = "let a whole pass end before that: later, deleted rows come back";
const LOOK_AT_QUARANTINE: &str = "look at the drive; agent locate shows whether peers healed it; then remove it from quarantined/containers";
