//! Every metric: its name, what it is, and where it is read. Whoever wants one more adds a row; there is no other way, since
//! the text is made by going through the rows.
//!
//! There are as many lines as devices and peers ask for, and never one for a database. Peers are nodes, by their
//! replication address; more than [`PEERS_LIMIT`] are left out, those first that lack nothing.

use std::collections::BTreeMap;

use super::samples::Samples;
use crate::status::facts::{AlarmKind, DeviceNow, Report, earliest};
use crate::status::kept::PassNote;

/// A row of the table.
#[derive(Debug)]
pub struct Metric {
    /// `swiftlet_` and what it is, with its unit behind.
    pub name: &'static str,
    /// How its numbers come about.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// What its lines are told apart by.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
    /// Where it is read. What is not known has no line.
    pub read: fn(&Report, &mut Samples),
}

/// How numbers come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows; its file of state removed, it begins anew.
    Counter,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        }
    }
}

/// What a metric counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Spans of time, and times since 1970.
    Seconds,
    /// Of memory or on the wire.
    Bytes,
    /// A share, 1 being all.
    Ratio,
    /// Databases.
    Databases,
    /// Things of which the name says what they are.
    Number,
    /// 1 for yes, 0 for no.
    Truth,
}

impl Unit {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
            Unit::Databases => "databases",
            Unit::Number => "number",
            Unit::Truth => "0 or 1",
        }
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    meaning: &'static str,
    read: fn(&Report, &mut Samples),
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, meaning, read }
}

const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    meaning: &'static str,
    read: fn(&Report, &mut Samples),
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, meaning, read }
}

/// Peers that have lines of their own.
pub const PEERS_LIMIT: usize = 256;

const DEVICE: &[&str] = &["device"];
const PEER: &[&str] = &["peer"];

/// All metrics, in the order in which they are told.
pub static TABLE: &[Metric] = &[
    // The agent.
    gauge("swiftlet_build_info", Unit::Truth, &["version"], "always 1; the version of the agent", |_, to| {
        to.say_of(&[env!("CARGO_PKG_VERSION")], 1.0);
    }),
    gauge(
        "swiftlet_look_timestamp_seconds",
        Unit::Seconds,
        &[],
        "when these figures were found out; between scrapes that follow closely they stay as they are",
        |report, to| to.say(report.now),
    ),
    gauge(
        "swiftlet_state_known",
        Unit::Truth,
        &[],
        "whether what passes leave behind could be read; without it much of this is missing",
        |report, to| to.say_truth(report.kept_since.is_some()),
    ),
    gauge("swiftlet_agent_running", Unit::Truth, &[], "whether a daemon serves peers here", |report, to| {
        to.say_truth(report.agent.running);
    }),
    gauge(
        "swiftlet_agent_makes_passes",
        Unit::Truth,
        &[],
        "whether the daemon makes passes, or only serves",
        |report, to| {
            to.say_truth_if_known(report.agent.passes);
        },
    ),
    gauge(
        "swiftlet_agent_start_timestamp_seconds",
        Unit::Seconds,
        &[],
        "since when the daemon serves",
        |report, to| {
            to.say_if_known(report.agent.since);
        },
    ),
    gauge(
        "swiftlet_memory_anonymous_bytes",
        Unit::Bytes,
        &[],
        "anonymous memory of the daemon now",
        |report, to| {
            to.say_if_known(report.agent.anon_kib.map(bytes));
        },
    ),
    gauge("swiftlet_memory_anonymous_peak_bytes", Unit::Bytes, &[], "the most that it had", |report, to| {
        to.say_if_known(report.agent.peak_anon_kib.map(bytes));
    }),
    gauge(
        "swiftlet_memory_budget_bytes",
        Unit::Bytes,
        &[],
        "the option `agent_memory_budget`",
        |report, to| {
            to.say(bytes(report.agent.budget_kib));
        },
    ),
    gauge("swiftlet_interval_seconds", Unit::Seconds, &[], "the option `interval`", |report, to| {
        to.say(report.interval)
    }),
    gauge("swiftlet_reclaim_age_seconds", Unit::Seconds, &[], "the option `reclaim_age`", |report, to| {
        to.say(report.reclaim_age)
    }),
    // The answer.
    gauge(
        "swiftlet_alarms",
        Unit::Number,
        &["kind"],
        "what needs a person, as `agent status` tells it, by kind; 0 where there is nothing",
        |report, to| {
            for kind in AlarmKind::ALL {
                let count = report.alarms.iter().filter(|alarm| alarm.kind == kind).count();
                to.say_of(&[kind.as_str()], count as f64);
            }
        },
    ),
    gauge(
        "swiftlet_in_sync",
        Unit::Truth,
        &[],
        "whether all that changed before the last round of each device is with all its peers",
        |report, to| to.say_truth_if_known(report.in_sync),
    ),
    gauge(
        "swiftlet_in_sync_change_timestamp_seconds",
        Unit::Seconds,
        &[],
        "since when that is so, or not so",
        |report, to| {
            to.say_if_known(report.since);
        },
    ),
    gauge(
        "swiftlet_behind_databases",
        Unit::Databases,
        &[],
        "of which some peer lacks something, as far as known",
        |report, to| {
            to.say(report.databases_behind as f64);
        },
    ),
    gauge(
        "swiftlet_oldest_change_timestamp_seconds",
        Unit::Seconds,
        &[],
        "when the database that has not changed for longest, of those behind, did",
        |report, to| to.say_if_known(report.oldest_change),
    ),
    // The pass under way.
    gauge("swiftlet_pass_running", Unit::Truth, &[], "whether a pass is under way", |report, to| {
        to.say_truth(report.doing.is_some());
    }),
    gauge(
        "swiftlet_pass_start_timestamp_seconds",
        Unit::Seconds,
        &[],
        "when the pass under way began",
        |report, to| {
            to.say_if_known(report.doing.as_ref().map(|doing| doing.began));
        },
    ),
    gauge(
        "swiftlet_pass_devices",
        Unit::Number,
        &[],
        "devices that the pass under way walks",
        |report, to| {
            to.say_if_known(report.doing.as_ref().map(|doing| doing.devices as f64));
        },
    ),
    gauge(
        "swiftlet_pass_devices_done",
        Unit::Number,
        &[],
        "of these, those that it is done with",
        |report, to| {
            to.say_if_known(report.doing.as_ref().map(|doing| doing.devices_done as f64));
        },
    ),
    gauge(
        "swiftlet_pass_databases",
        Unit::Databases,
        &[],
        "that the pass under way has looked at",
        |report, to| {
            to.say_if_known(report.doing.as_ref().map(|doing| doing.attempted as f64));
        },
    ),
    gauge(
        "swiftlet_pass_failures",
        Unit::Number,
        &[],
        "failures of the pass under way so far",
        |report, to| {
            to.say_if_known(report.doing.as_ref().map(|doing| doing.failures as f64));
        },
    ),
    gauge(
        "swiftlet_pass_device_leg",
        Unit::Truth,
        &["device", "leg"],
        "always 1; what the pass under way does on a device: `walk`, `compare`, `settle`, `move`, `singly` or `over`",
        |report, to| {
            for (device, leg) in report.doing.iter().flat_map(|doing| &doing.legs) {
                to.say_of(&[device, leg.as_str()], 1.0);
            }
        },
    ),
    // The last pass over the whole node.
    gauge(
        "swiftlet_last_pass_start_timestamp_seconds",
        Unit::Seconds,
        &[],
        "when the last pass over the whole node began",
        |report, to| {
            to.say_if_known(whole(report).map(|pass| pass.began));
        },
    ),
    gauge("swiftlet_last_pass_end_timestamp_seconds", Unit::Seconds, &[], "when it ended", |report, to| {
        to.say_if_known(whole(report).map(|pass| pass.began + pass.took));
    }),
    gauge("swiftlet_last_pass_duration_seconds", Unit::Seconds, &[], "how long it took", |report, to| {
        to.say_if_known(whole(report).map(|pass| pass.took));
    }),
    gauge("swiftlet_last_pass_databases", Unit::Databases, &[], "that it looked at", |report, to| {
        to.say_if_known(whole(report).map(|pass| pass.attempted as f64));
    }),
    gauge("swiftlet_last_pass_failures", Unit::Number, &[], "failures that it had", |report, to| {
        to.say_if_known(whole(report).map(|pass| pass.failure as f64));
    }),
    // All passes.
    counter(
        "swiftlet_passes_total",
        Unit::Number,
        &["outcome"],
        "passes: `clean` ones, ones that `failed` with something, and ones `broken` off or never begun",
        |report, to| {
            let totals = &report.totals;
            for (outcome, count) in
                [("clean", totals.clean), ("failed", totals.failed), ("broken", totals.broken)]
            {
                to.say_of(&[outcome], count as f64);
            }
        },
    ),
    counter(
        "swiftlet_pass_seconds_total",
        Unit::Seconds,
        &[],
        "time spent in passes that are over",
        |report, to| {
            to.say(report.totals.counted.elapsed);
        },
    ),
    counter("swiftlet_databases_attempted_total", Unit::Databases, &[], "looked at", |report, to| {
        to.say(report.totals.counted.attempted as f64);
    }),
    counter(
        "swiftlet_databases_opened_total",
        Unit::Databases,
        &[],
        "looked into, as they may have changed",
        |report, to| {
            to.say(report.totals.counted.opened as f64);
        },
    ),
    counter(
        "swiftlet_databases_removed_total",
        Unit::Databases,
        &[],
        "removed: handed over, or reclaimed",
        |report, to| {
            to.say(report.totals.counted.remove as f64);
        },
    ),
    counter(
        "swiftlet_successes_total",
        Unit::Number,
        &[],
        "databases times peers that ended well",
        |report, to| {
            to.say(report.totals.counted.success as f64);
        },
    ),
    counter(
        "swiftlet_failures_total",
        Unit::Number,
        &[],
        "those that did not, and drives that could not be walked",
        |report, to| {
            to.say(report.totals.counted.failure as f64);
        },
    ),
    counter(
        "swiftlet_exchanges_total",
        Unit::Number,
        &["outcome"],
        "how databases and peers came to agree, under Swift's names: `no_change`, `hashmatch`, `diff`, `rsync` (a whole file \
         to a peer that had none), `remote_merge`, `deferred`",
        |report, to| {
            let counted = &report.totals.counted;
            for (outcome, count) in [
                ("no_change", counted.no_change),
                ("hashmatch", counted.hashmatch),
                ("diff", counted.diff),
                ("rsync", counted.rsync),
                ("remote_merge", counted.remote_merge),
                ("deferred", counted.deferred),
            ] {
                to.say_of(&[outcome], count as f64);
            }
        },
    ),
    counter(
        "swiftlet_diffs_capped_total",
        Unit::Number,
        &[],
        "of `diff`, those with more rows than one pass may send",
        |report, to| {
            to.say(report.totals.counted.diff_capped as f64);
        },
    ),
    counter(
        "swiftlet_files_sent_total",
        Unit::Number,
        &["how"],
        "files that travelled: as a `delta` to the peer's own, or in `full`",
        |report, to| {
            to.say_of(&["delta"], report.totals.counted.delta as f64);
            to.say_of(&["full"], report.totals.counted.full as f64);
        },
    ),
    counter("swiftlet_rows_sent_total", Unit::Number, &[], "rows sent one by one", |report, to| {
        to.say(report.totals.counted.rows_sent as f64);
    }),
    counter(
        "swiftlet_sent_bytes_total",
        Unit::Bytes,
        &[],
        "sent to peers in passes of this node",
        |report, to| {
            to.say(report.totals.counted.bytes_sent as f64);
        },
    ),
    counter("swiftlet_received_bytes_total", Unit::Bytes, &[], "that they answered", |report, to| {
        to.say(report.totals.counted.bytes_received as f64);
    }),
    // Devices of this node.
    gauge(
        "swiftlet_device_usable",
        Unit::Truth,
        DEVICE,
        "whether it is mounted and can be read",
        |report, to| {
            each(report, to, |device| Some(f64::from(u8::from(device.problem.is_none()))));
        },
    ),
    gauge(
        "swiftlet_device_troubled",
        Unit::Truth,
        DEVICE,
        "whether something was wrong with it, or with databases on it, in its last round",
        |report, to| {
            each(report, to, |device| Some(f64::from(u8::from(device.trouble.is_some()))));
        },
    ),
    gauge("swiftlet_device_databases", Unit::Databases, DEVICE, "that belong there", |report, to| {
        each(report, to, |device| device.databases.map(|count| count as f64));
    }),
    gauge(
        "swiftlet_device_stray_databases",
        Unit::Databases,
        DEVICE,
        "that belong elsewhere, when it was last walked",
        |report, to| {
            each(report, to, |device| device.strays.map(|count| count as f64));
        },
    ),
    gauge(
        "swiftlet_device_behind_databases",
        Unit::Databases,
        DEVICE,
        "of which some peer lacks something",
        |report, to| {
            each(report, to, |device| device.behind.map(|count| count as f64));
        },
    ),
    gauge(
        "swiftlet_device_oldest_change_timestamp_seconds",
        Unit::Seconds,
        DEVICE,
        "when the one that has not changed for longest, of those behind, did",
        |report, to| each(report, to, |device| device.oldest_change),
    ),
    gauge(
        "swiftlet_device_walked_timestamp_seconds",
        Unit::Seconds,
        DEVICE,
        "when the pass began that last walked all of it",
        |report, to| {
            each(report, to, |device| device.walked);
        },
    ),
    gauge(
        "swiftlet_device_synced_timestamp_seconds",
        Unit::Seconds,
        DEVICE,
        "all that changed before is with every peer, but for those that something was in the way of",
        |report, to| each(report, to, |device| device.synced),
    ),
    gauge(
        "swiftlet_device_reclaim_age_used_ratio",
        Unit::Ratio,
        DEVICE,
        "for how long something on it has not been with some peer, as a share of `reclaim_age`; above 1 deleted rows may come \
         back, and there is an alarm above 0.5",
        |report, to| each(report, to, |device| reclaim_age_used(report, device)),
    ),
    gauge("swiftlet_device_quarantined_databases", Unit::Databases, DEVICE, "in quarantine", |report, to| {
        each(report, to, |device| Some(device.quarantined as f64));
    }),
    gauge(
        "swiftlet_device_quarantined_timestamp_seconds",
        Unit::Seconds,
        DEVICE,
        "when the last of them was put there",
        |report, to| {
            each(report, to, |device| device.quarantined_newest);
        },
    ),
    // Nodes that they share partitions with.
    gauge(
        "swiftlet_peer_behind_databases",
        Unit::Databases,
        PEER,
        "of which it lacks something, for each device that does",
        |report, to| {
            each_peer(report, to, |peer| peer.behind.map(|count| count as f64));
        },
    ),
    gauge(
        "swiftlet_peer_oldest_change_timestamp_seconds",
        Unit::Seconds,
        PEER,
        "when the one that has not changed for longest, of those, did",
        |report, to| each_peer(report, to, |peer| peer.oldest_change),
    ),
    gauge(
        "swiftlet_peer_synced_timestamp_seconds",
        Unit::Seconds,
        PEER,
        "all that changed before is with it",
        |report, to| {
            each_peer(report, to, |peer| peer.synced);
        },
    ),
    gauge(
        "swiftlet_peer_hindered",
        Unit::Number,
        PEER,
        "pairs of devices, one here and one there, that something was in the way of in the last round",
        |report, to| each_peer(report, to, |peer| Some(peer.hindered as f64)),
    ),
    gauge("swiftlet_peers", Unit::Number, &[], "nodes that share partitions with this one", |report, to| {
        to.say(peers(report).len() as f64);
    }),
    gauge(
        "swiftlet_peers_left_out",
        Unit::Number,
        &[],
        "of these, those that have no lines of their own, as there are too many",
        |report, to| {
            to.say(peers(report).len().saturating_sub(PEERS_LIMIT) as f64);
        },
    ),
];

fn bytes(kib: u64) -> f64 {
    kib as f64 * 1024.0
}

fn whole(report: &Report) -> Option<&PassNote> {
    report.last_whole_pass.as_ref()
}

/// A line for each device, where there is something to say.
fn each(report: &Report, to: &mut Samples, read: impl Fn(&DeviceNow) -> Option<f64>) {
    for device in &report.devices {
        if let Some(value) = read(device) {
            to.say_of(&[&device.name], value);
        }
    }
}

/// The time since which something on a device may not be with some peer, as the alarms have it.
fn reclaim_age_used(report: &Report, device: &DeviceNow) -> Option<f64> {
    let begun = report.kept_since?;
    let hindered = device.peers.iter().filter(|peer| peer.hindered.is_some());
    let peers = hindered.map(|peer| peer.synced.unwrap_or(begun));
    let own = [device.walked.unwrap_or(begun), device.synced.unwrap_or(begun)];
    let since = earliest(own.into_iter().chain(peers).map(Some))?;
    (report.reclaim_age > 0.0).then(|| (report.now - since).max(0.0) / report.reclaim_age)
}

/// All that is known of another node.
#[derive(Debug, Default)]
struct PeerNode {
    behind: Option<u64>,
    oldest_change: Option<f64>,
    synced: Option<f64>,
    hindered: u64,
}

fn peers(report: &Report) -> BTreeMap<&str, PeerNode> {
    let mut nodes: BTreeMap<&str, PeerNode> = BTreeMap::new();
    for peer in report.devices.iter().flat_map(|device| &device.peers) {
        let address = peer.peer.split('/').next().unwrap_or_default();
        let node = nodes.entry(address).or_default();
        if let Some(behind) = peer.behind {
            node.behind = Some(node.behind.unwrap_or(0).saturating_add(behind));
        }
        node.oldest_change = earliest([node.oldest_change, peer.oldest_change]);
        node.synced = earliest([node.synced, peer.synced]);
        node.hindered += u64::from(peer.hindered.is_some());
    }
    nodes
}

/// A line for each peer, where there is something to say.
fn each_peer(report: &Report, to: &mut Samples, read: impl Fn(&PeerNode) -> Option<f64>) {
    let mut nodes: Vec<(&str, PeerNode)> = peers(report).into_iter().collect();
    if nodes.len() > PEERS_LIMIT {
        // By address among those that are equally badly off, lest lines come and go.
        nodes.sort_by_key(|(_, node)| std::cmp::Reverse((node.hindered, node.behind)));
        nodes.truncate(PEERS_LIMIT);
        nodes.sort_by_key(|(address, _)| *address);
    }
    for (address, node) in nodes {
        if let Some(value) = read(&node) {
            to.say_of(&[address], value);
        }
    }
}
