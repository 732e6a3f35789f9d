//! The text that Prometheus reads, version 0.0.4 of its format: for each metric of the table what it says, what it is, and its
//! lines.

use std::fmt::Write;

use super::samples::Samples;
use super::table::{Metric, TABLE};
use crate::status::Report;

/// What a scraper has to be told of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that there is to tell.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for metric in TABLE {
        let Metric { name, kind, meaning, labels, read, .. } = metric;
        let mut samples = Samples::of(name, labels);
        read(report, &mut samples);
        let lines = samples.into_lines();
        if lines.is_empty() {
            continue;
        }
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {}\n", helpful(meaning), kind.as_str());
        text += &lines;
    }
    text
}

/// What stands behind `# HELP`.
fn helpful(meaning: &str) -> String {
    meaning.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::table::{Kind, PEERS_LIMIT, Unit};
    use super::*;
    use crate::obstacle::{Cause, Kind as Obstacle};
    use crate::pass::Leg;
    use crate::status::facts::{AgentNow, Alarm, AlarmKind, DeviceNow, PeerNow};
    use crate::status::kept::{Doing, Hindrance, PassNote, Totals};
    use crate::status::process::Process;
    use crate::tally::Tally;

    const NOW: f64 = 1_750_000_000.5;

    /// A node of which nothing is known.
    fn bare() -> Report {
        Report {
            now: NOW,
            node: "10.0.0.1:6200".into(),
            answer: String::new(),
            in_sync: None,
            since: None,
            needs_person: false,
            alarms: Vec::new(),
            notes: Vec::new(),
            agent: AgentNow::default(),
            doing: None,
            last_pass: None,
            last_whole_pass: None,
            last_once: None,
            databases_behind: 0,
            oldest_change: None,
            totals: Totals::default(),
            reclaim_age: 1000.0,
            interval: 30.0,
            devices: Vec::new(),
            worst: Vec::new(),
            kept_since: None,
            kept_in: "/x".into(),
        }
    }

    fn peer(address: &str, behind: u64, hindered: bool) -> PeerNow {
        let hindrance = Hindrance { since: 5.0, cause: Cause::new(Obstacle::Unreachable, "gone") };
        PeerNow {
            peer: format!("{address}/sdx"),
            behind: Some(behind),
            oldest_change: Some(NOW - 100.0),
            synced: Some(NOW - 600.0),
            hindered: hindered.then_some(hindrance),
            ..PeerNow::default()
        }
    }

    /// A node of which everything is known, with a name that needs care.
    fn full() -> Report {
        let cause = Cause::new(Obstacle::DriveUnusable, "ill");
        let device = DeviceNow {
            id: 1,
            name: "sd\"a\\\n".into(),
            databases: Some(17),
            strays: Some(2),
            walked: Some(NOW - 20.0),
            synced: Some(NOW - 250.0),
            trouble: Some(Hindrance { since: 1.0, cause }),
            behind: Some(3),
            oldest_change: Some(NOW - 99.0),
            quarantined: 4,
            quarantined_newest: Some(NOW - 50.0),
            peers: vec![peer("10.0.0.2:6200", 3, true), peer("10.0.0.3:6200", 0, false)],
            ..DeviceNow::default()
        };
        let other = DeviceNow {
            name: "sdb".into(),
            problem: Some("not mounted".into()),
            peers: vec![peer("10.0.0.2:6200", 4, false)],
            ..DeviceNow::default()
        };
        let doing = Doing {
            process: Process::this(),
            began: NOW - 3.0,
            once: false,
            whole: true,
            devices: 2,
            devices_done: 1,
            attempted: 5,
            failures: 1,
            legs: BTreeMap::from([("sdb".to_owned(), Leg::Settle)]),
            database: "x".into(),
        };
        let alarm = |kind| Alarm { kind, about: String::new(), text: String::new(), remedy: String::new() };
        let tally =
            Tally { attempted: 7, bytes_sent: u64::from(u32::MAX) + 1, elapsed: 2.25, ..Tally::default() };
        Report {
            in_sync: Some(false),
            since: Some(NOW - 9.0),
            alarms: vec![alarm(AlarmKind::Stuck), alarm(AlarmKind::Stuck), alarm(AlarmKind::Drive)],
            agent: AgentNow {
                running: true,
                since: Some(NOW - 1000.0),
                passes: Some(true),
                anon_kib: Some(10),
                peak_anon_kib: Some(20),
                budget_kib: 32 << 10,
                ..AgentNow::default()
            },
            doing: Some(doing),
            last_whole_pass: Some(PassNote { began: NOW - 60.0, took: 12.5, ..PassNote::default() }),
            databases_behind: 3,
            oldest_change: Some(NOW - 100.0),
            totals: Totals { clean: 2, failed: 1, broken: 0, ..Totals::default() }.with(&tally),
            devices: vec![device, other],
            kept_since: Some(NOW - 5000.0),
            ..bare()
        }
    }

    /// Name and labels of each line, and what it says.
    fn lines(text: &str) -> BTreeMap<&str, &str> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').expect("a value")).collect()
    }

    #[test]
    fn every_row_is_told_and_in_the_format() {
        let text = text(&full());
        let mut told = BTreeSet::new();
        let mut current: Option<&Metric> = None;
        let mut helped = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = Some(rest.split_once(' ').expect("what it says").0);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert_eq!(helped, Some(name));
                let metric = TABLE.iter().find(|metric| metric.name == name).expect("a row");
                assert_eq!(metric.kind.as_str(), kind);
                assert!(told.insert(name), "{name} is told twice");
                current = Some(metric);
            } else {
                let metric = current.expect("what it is comes first");
                let rest =
                    line.strip_prefix(metric.name).unwrap_or_else(|| panic!("{line} below {}", metric.name));
                let (labels, value) = rest.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
                assert_eq!(labels.is_empty(), metric.labels.is_empty(), "{line}");
                for label in metric.labels {
                    assert!(labels.contains(&format!("{label}=\"")), "{line}");
                }
            }
        }
        assert!(text.ends_with('\n'));
        let rows: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(told, rows);
        assert_eq!(
            lines(&text).len(),
            text.lines().filter(|line| !line.starts_with('#')).count(),
            "no line twice"
        );
    }

    #[test]
    fn numbers_are_those_of_the_report() {
        let text = text(&full());
        let lines = lines(&text);
        for (line, value) in [
            ("swiftlet_look_timestamp_seconds", "1750000000.5"),
            ("swiftlet_in_sync", "0"),
            ("swiftlet_memory_anonymous_bytes", "10240"),
            ("swiftlet_memory_budget_bytes", "33554432"),
            ("swiftlet_alarms{kind=\"stuck\"}", "2"),
            ("swiftlet_alarms{kind=\"drive\"}", "1"),
            ("swiftlet_alarms{kind=\"reclaim_age\"}", "0"),
            ("swiftlet_pass_device_leg{device=\"sdb\",leg=\"settle\"}", "1"),
            ("swiftlet_last_pass_end_timestamp_seconds", "1749999953"),
            ("swiftlet_passes_total{outcome=\"clean\"}", "2"),
            ("swiftlet_sent_bytes_total", "4294967296"),
            ("swiftlet_databases_attempted_total", "7"),
            ("swiftlet_pass_seconds_total", "2.25"),
            ("swiftlet_device_usable{device=\"sdb\"}", "0"),
            ("swiftlet_device_databases{device=\"sd\\\"a\\\\\\n\"}", "17"),
            // A peer got everything 600 s ago, and reclaim_age is 1000 s.
            ("swiftlet_device_reclaim_age_used_ratio{device=\"sd\\\"a\\\\\\n\"}", "0.6"),
            // Never walked, as long as anything is kept.
            ("swiftlet_device_reclaim_age_used_ratio{device=\"sdb\"}", "5"),
            ("swiftlet_peer_behind_databases{peer=\"10.0.0.2:6200\"}", "7"),
            ("swiftlet_peer_hindered{peer=\"10.0.0.2:6200\"}", "1"),
            ("swiftlet_peer_hindered{peer=\"10.0.0.3:6200\"}", "0"),
            ("swiftlet_peers", "2"),
            ("swiftlet_peers_left_out", "0"),
        ] {
            assert_eq!(lines.get(line), Some(&value), "{line}");
        }
    }

    #[test]
    fn what_is_not_known_has_no_line() {
        let text = text(&bare());
        let lines = lines(&text);
        assert_eq!(lines.get("swiftlet_state_known"), Some(&"0"));
        assert_eq!(lines.get("swiftlet_pass_running"), Some(&"0"));
        for name in ["swiftlet_in_sync", "swiftlet_last_pass_duration_seconds", "swiftlet_device_usable"] {
            assert!(!text.contains(&format!("{name} ")), "{name}");
        }
    }

    #[test]
    fn more_peers_than_the_limit_are_left_out_the_well_ones_first() {
        let peers = |count: usize| -> Report {
            let address = |number: usize| format!("10.0.{}.{}:6200", number / 250, number % 250);
            let peers = (0..count).map(|number| peer(&address(number), 0, number == count - 1)).collect();
            Report { devices: vec![DeviceNow { name: "d".into(), peers, ..DeviceNow::default() }], ..bare() }
        };
        for (count, told, left_out) in [(PEERS_LIMIT, PEERS_LIMIT, "0"), (PEERS_LIMIT + 1, PEERS_LIMIT, "1")]
        {
            let text = text(&peers(count));
            let lines = lines(&text);
            let shown = lines.iter().filter(|(line, _)| line.starts_with("swiftlet_peer_hindered{"));
            assert_eq!(shown.clone().count(), told);
            assert_eq!(shown.filter(|(_, value)| **value == "1").count(), 1, "the one that is badly off");
            assert_eq!(lines["swiftlet_peers_left_out"], left_out);
        }
    }

    /// <https://prometheus.io/docs/practices/naming/>
    #[test]
    fn names_say_what_they_count_and_in_which_unit() {
        for Metric { name, kind, unit, labels, meaning, .. } in TABLE {
            let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(name.starts_with("swiftlet_") && is_plain(name), "{name}");
            assert!(labels.iter().all(|label| is_plain(label)), "{name}");
            assert!(
                !meaning.is_empty() && !meaning.ends_with('.') && !meaning.contains(['|', '\n']),
                "{name}"
            );
            let stem = name.strip_suffix("_total");
            assert_eq!(stem.is_some(), *kind == Kind::Counter, "{name}");
            let stem = stem.unwrap_or(name);
            let ends = match unit {
                Unit::Seconds => Some("_seconds"),
                Unit::Bytes => Some("_bytes"),
                Unit::Ratio => Some("_ratio"),
                _ => None,
            };
            assert!(ends.is_none_or(|end| stem.ends_with(end)), "{name}");
            let units = ["_seconds", "_bytes", "_ratio"];
            assert!(ends.is_some() || !units.iter().any(|end| stem.ends_with(end)), "{name}");
        }
        let names: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), TABLE.len(), "a name is there twice");
    }

    #[test]
    fn alarms_have_the_words_that_they_have_in_json() {
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }
}
