//! What the facts come to: in sync or not, since when, and what needs a person.
//!
//! The rules are few, and each has its remedy. A backlog that shrinks needs nobody, nor does a failure that the next pass
//! may mend. What lasts for [`LASTS_SECS`] does, and so does whatever comes near `reclaim_age`: past it tombstones are
//! forgotten, and a replica that never heard of them brings deleted rows back.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Alarm, AlarmKind, DeviceNow, PeerNow, Report, earliest};
use super::kept::Hindrance;
use crate::obstacle::{Cause, Kind};
use crate::report::text::{count, span, thousands, utc};

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
            let on = count(peers.len() as u64, "peer");
            if waiting > 0 {
                let oldest = report
                    .oldest_change
                    .map_or_else(String::new, |time| format!(", oldest change {}", ago(report.now, time)));
                parts.push(format!("{} behind on {on}{oldest}", count(waiting, "database")));
            } else if !peers.is_empty() {
                parts.push(format!("something is in the way of {on}, nothing known to be behind"));
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

/// What is in the way for so long does not go away by itself.
pub const LASTS_SECS: f64 = 3600.0;
/// Rounds in which a backlog has to shrink, if there are so many in that time.
pub const LASTS_ROUNDS: u32 = 3;
/// Devices of a node that are named.
const NAMES_SHOWN: usize = 4;
const BEFORE_RECLAIM: &str = "let a whole pass end before that: later, deleted rows come back";
const LOOK_AT_QUARANTINE: &str = "look at the drive; agent locate shows whether peers healed it; then remove it from quarantined/containers";

#[cfg(test)]
mod tests {
    use super::super::facts::{AgentNow, BadNow, BadWithNow};
    use super::super::kept::PassNote;
    use super::*;

    const NOW: f64 = 1_750_000_000.0;
    const RECLAIM_AGE: f64 = 7.0 * 86_400.0;
    const HALF: f64 = RECLAIM_AGE / 2.0;

    /// A node of one device and one peer, and all is well.
    fn well() -> Report {
        let peer = PeerNow {
            id: 7,
            peer: "10.0.0.2:6200/sdb".into(),
            behind: Some(0),
            synced: Some(NOW - 30.0),
            ..PeerNow::default()
        };
        let device = DeviceNow {
            id: 1,
            name: "sda".into(),
            databases: Some(5),
            walked: Some(NOW - 30.0),
            synced: Some(NOW - 30.0),
            in_sync_since: Some(NOW - 86_400.0),
            behind: Some(0),
            peers: vec![peer],
            ..DeviceNow::default()
        };
        Report {
            now: NOW,
            node: "10.0.0.1:6201".into(),
            answer: String::new(),
            in_sync: None,
            since: None,
            needs_person: false,
            alarms: vec![],
            notes: vec![],
            agent: AgentNow { running: true, passes: Some(true), port: 7201, ..AgentNow::default() },
            doing: None,
            last_pass: Some(PassNote::default()),
            last_whole_pass: Some(PassNote::default()),
            last_once: None,
            databases_behind: 0,
            oldest_change: None,
            totals: Default::default(),
            reclaim_age: RECLAIM_AGE,
            interval: 30.0,
            devices: vec![device],
            worst: vec![],
            kept_since: Some(NOW - 100.0 * 86_400.0),
            kept_in: "/x".into(),
        }
    }

    fn hindrance(since: f64, kind: Kind) -> Hindrance {
        Hindrance { since, cause: Cause::new(kind, "it cannot be reached") }
    }

    /// A peer that is hindered for so long, has had everything so long ago, and has not got fewer for so long.
    fn apart(for_secs: f64, synced_secs: f64, least_secs: f64, rounds: u32, kind: Kind) -> Report {
        let mut report = well();
        let peer = &mut report.devices[0].peers[0];
        peer.hindered = Some(hindrance(NOW - for_secs, kind));
        peer.synced = Some(NOW - synced_secs);
        (peer.behind, peer.least) = (Some(3), Some(3));
        (peer.least_at, peer.rounds_since) = (Some(NOW - least_secs), Some(rounds));
        report.devices[0].in_sync_since = None;
        (report.databases_behind, report.oldest_change) = (3, Some(NOW - 240.0));
        report
    }

    fn with(change: impl FnOnce(&mut Report)) -> Report {
        let mut report = well();
        change(&mut report);
        report
    }

    #[test]
    fn alarms_come_when_they_should_and_not_before() {
        use AlarmKind::{Drive, NoAgent, NoPass, NotInRing, Quarantined, ReclaimAge, Stuck, Tied};
        let hour = LASTS_SECS;
        let device = |change: fn(&mut DeviceNow)| with(|report| change(&mut report.devices[0]));
        let begun = |secs: f64, passes: bool| {
            with(|report| {
                (report.last_whole_pass, report.kept_since) = (None, Some(NOW - secs));
                report.agent.passes = Some(passes);
                report.devices[0].walked = None;
                report.devices[0].synced = None;
            })
        };
        let tied = |kind| {
            let with = BadWithNow { peer: None, kind, reason: "x".into() };
            let bad = BadNow {
                device: "sda".into(),
                container: None,
                hash: "ab".into(),
                partition: None,
                since: NOW,
                last: None,
                attempts: 1,
                with: vec![with],
            };
            self::with(|report| report.worst.push(bad))
        };
        let table: Vec<(&str, Report, &[AlarmKind])> = vec![
            ("all is well", well(), &[]),
            ("no device", with(|report| report.devices.clear()), &[NotInRing]),
            ("no agent", with(|report| report.agent.running = false), &[NoAgent]),
            ("not mounted", device(|device| device.problem = Some("it is not mounted".into())), &[Drive]),
            ("changed since", device(|device| device.behind = Some(9)), &[]),
            ("fails for an hour but a second", apart(hour - 1.0, hour, hour, 3, Kind::Unreachable), &[]),
            ("fails for an hour", apart(hour, hour, hour, 3, Kind::Unreachable), &[Stuck]),
            ("but shrinks", apart(hour, hour, hour - 1.0, 3, Kind::Unreachable), &[]),
            ("but there were few rounds", apart(hour, hour, hour, 2, Kind::Unreachable), &[]),
            ("but as much goes as may", apart(hour, hour, hour, 3, Kind::Capped), &[]),
            ("lacks half of reclaim_age", apart(10.0, HALF, 10.0, 0, Kind::PeerFull), &[]),
            ("and a second", apart(10.0, HALF + 1.0, 10.0, 0, Kind::PeerFull), &[ReclaimAge]),
            ("and shrinks", apart(hour, HALF + 1.0, 1.0, 0, Kind::Capped), &[ReclaimAge]),
            ("walked at half", device(|device| device.walked = Some(NOW - HALF)), &[]),
            ("walked before", device(|device| device.walked = Some(NOW - HALF - 1.0)), &[ReclaimAge]),
            ("nothing got out", device(|device| device.synced = Some(NOW - HALF - 1.0)), &[ReclaimAge]),
            ("never walked, first pass", begun(HALF, true), &[]),
            ("never walked for too long", begun(HALF + 1.0, true), &[ReclaimAge]),
            ("nobody makes passes yet", begun(hour - 1.0, false), &[]),
            ("nobody makes passes", begun(hour, false), &[NoPass]),
            (
                "trouble for less than an hour",
                device(|device| device.trouble = Some(hindrance(NOW - LASTS_SECS + 1.0, Kind::Unreadable))),
                &[],
            ),
            (
                "trouble for an hour",
                device(|device| device.trouble = Some(hindrance(NOW - LASTS_SECS, Kind::Unreadable))),
                &[Stuck],
            ),
            (
                "old quarantine",
                device(|device| device.quarantined_newest = Some(NOW - RECLAIM_AGE - 1.0)),
                &[],
            ),
            (
                "quarantine",
                device(|device| device.quarantined_newest = Some(NOW - RECLAIM_AGE)),
                &[Quarantined],
            ),
            ("being sharded", tied(Kind::Deferred), &[]),
            ("tied", tied(Kind::Tied), &[Tied]),
        ];
        for (name, report, expected) in table {
            let alarms = alarms(&report);
            assert_eq!(
                alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(),
                expected,
                "{name}: {alarms:?}"
            );
            assert!(alarms.iter().all(|alarm| !alarm.text.is_empty() && !alarm.remedy.is_empty()), "{name}");
        }
    }

    #[test]
    fn a_node_that_is_down_is_one_alarm() {
        let mut report = apart(7200.0, 7200.0, 7200.0, 9, Kind::Unreachable);
        let peer = report.devices[0].peers[0].clone();
        for number in 0..6 {
            let peer = format!("10.0.0.2:6200/d{number}");
            let one = PeerNow { peer, ..report.devices[0].peers[0].clone() };
            report.devices[0].peers.push(one);
        }
        report.devices[0].peers.push(PeerNow { peer: "10.0.0.3:6200/sdb".into(), ..peer });
        let alarms = alarms(&report);
        let about: Vec<&str> = alarms.iter().map(|alarm| alarm.about.as_str()).collect();
        assert_eq!(about, ["10.0.0.2:6200", "10.0.0.3:6200"]);
        assert_eq!(
            alarms[0].text,
            "it cannot be reached, for 2 h; 21 databases behind on d0, d1, d2, d3 and 3 more"
        );
    }

    #[test]
    fn the_answer_is_a_sentence() {
        let said = |mut report: Report| {
            (report.in_sync, report.since) = in_sync(&report);
            (report.in_sync, answer(&report))
        };
        let (yes, text) = said(well());
        assert_eq!(yes, Some(true));
        assert_eq!(
            text,
            "in sync since 2025-06-14 15:06:40 UTC (24 h ago); all that changed until 30 s ago is with its peers"
        );
        let (yes, text) = said(with(|report| report.databases_behind = 2));
        assert_eq!(yes, Some(true));
        assert!(text.ends_with(", 2 databases that changed since wait for a pass"), "{text}");
        let (yes, text) = said(apart(600.0, 600.0, 600.0, 9, Kind::Unreachable));
        assert_eq!(yes, Some(false));
        assert_eq!(
            text,
            "not in sync since 2025-06-15 14:56:40 UTC (10 min ago): 3 databases behind on 1 peer, oldest change 4 min ago"
        );
        let (_, text) =
            said(Report { databases_behind: 0, ..apart(600.0, 600.0, 600.0, 9, Kind::Unreachable) });
        assert!(text.ends_with(": something is in the way of 1 peer, nothing known to be behind"), "{text}");
        let (yes, text) = said(with(|report| report.devices[0].problem = Some("gone".into())));
        assert_eq!((yes, text.as_str()), (Some(false), "not in sync: 1 of 1 drive cannot be used"));
        let (yes, text) = said(with(|report| report.devices[0].in_sync_since = None));
        assert_eq!((yes, text.as_str()), (None, "not known yet: no pass has gone round all of sda"));
        let (yes, text) = said(with(|report| report.devices.clear()));
        assert_eq!((yes, text.as_str()), (None, "not known: by the ring no device is on this node"));
    }

    #[test]
    fn how_long_ago_a_time_was_is_said() {
        assert_eq!(
            (ago(10.0, 9.5), ago(10.0, 5.0), ago(10.0, 70.0)),
            ("just now".into(), "5 s ago".into(), "in 60 s".into())
        );
    }
}
