//! The node on one screen: the answer first, then what needs a person, then the tables.

use std::fmt::Write;

use super::{GREEN, RED, Style, YELLOW};
use crate::cli::ring::columns::{Cell, columns, wrapped};
use crate::obstacle::Kind;
use crate::pass::Leg;
use crate::report::text::{count, cut_middle, printable, size, span, thousands, utc};
use crate::status::alarm::ago;
use crate::status::facts::{BadNow, DeviceNow, PeerNow, Report};
use crate::status::kept::{Doing, PassNote};

/// The whole page.
pub fn page(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let colour = match report.in_sync {
        Some(true) => GREEN,
        Some(false) => RED,
        None => YELLOW,
    };
    for line in wrapped(&printable(&report.answer), style.width) {
        writeln!(text, "{}", style.paint(colour, &line)).expect(INFALLIBLE);
    }
    alarms(&mut text, report, style);
    text += &style.heading("passes");
    facts(&mut text, &passes(report), style);
    devices(&mut text, report, style);
    peers(&mut text, report, style);
    worst(&mut text, report, style);
    if !report.notes.is_empty() {
        text += &style.heading("not known");
        report.notes.iter().for_each(|note| paragraph(&mut text, "  ", "  ", note, style));
    }
    text
}

fn alarms(text: &mut String, report: &Report, style: Style) {
    if report.alarms.is_empty() {
        return;
    }
    *text += &style.heading("needs a person");
    for alarm in &report.alarms {
        let about = if alarm.about.is_empty() { String::new() } else { format!("{}: ", alarm.about) };
        let mut lines = String::new();
        paragraph(&mut lines, "! ", "  ", &format!("{about}{}", alarm.text), style);
        for line in lines.lines() {
            writeln!(text, "{}", style.paint(RED, line)).expect(INFALLIBLE);
        }
        paragraph(text, "  -> ", "     ", &alarm.remedy, style);
    }
}

/// Text in lines that fit, the first with one beginning and all others with another.
fn paragraph(text: &mut String, first: &str, rest: &str, words: &str, style: Style) {
    let width = style.width.saturating_sub(first.len());
    for (nth, line) in wrapped(&printable(words), width).iter().enumerate() {
        writeln!(text, "{}{line}", if nth == 0 { first } else { rest }).expect(INFALLIBLE);
    }
}

/// Names and what they stand for.
fn facts(text: &mut String, facts: &[(&str, String)], style: Style) {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, fact) in facts {
        let first = format!("  {name:<width$}  ");
        paragraph(text, &first, &" ".repeat(first.len()), fact, style);
    }
}

fn passes(report: &Report) -> Vec<(&'static str, String)> {
    let now = report.now;
    let mut facts = vec![("now", doing(report))];
    let last = report.last_pass.as_ref();
    facts.push(("last", last.map_or("none is known".to_owned(), |pass| of_pass(pass, now))));
    let whole = report.last_whole_pass.as_ref().filter(|whole| Some(*whole) != last);
    facts.extend(whole.map(|pass| ("last whole", of_pass(pass, now))));
    let once = report.last_once.as_ref().filter(|once| Some(*once) != last && Some(*once) != whole);
    facts.extend(once.map(|pass| ("last --once", of_pass(pass, now))));
    facts.push(("memory", memory(report)));
    facts
}

fn doing(report: &Report) -> String {
    let agent = &report.agent;
    let mut parts = Vec::new();
    parts.push(match (agent.running, agent.pid, agent.since) {
        (true, Some(pid), Some(since)) => {
            format!("the agent serves peers (process {pid}, since {})", moment(report.now, since))
        }
        (true, ..) => format!("somebody serves port {}, but does not write here", agent.port),
        (false, ..) => "no agent is running".to_owned(),
    });
    match &report.doing {
        Some(doing) => parts.push(under_way(doing, report.now)),
        None if agent.passes == Some(false) => {
            parts.push("it makes no passes; they come from --once".to_owned())
        }
        None if agent.running => parts.push("between passes".to_owned()),
        None => {}
    }
    parts.join("; ")
}

fn under_way(doing: &Doing, now: f64) -> String {
    let mut text = format!(
        "in a pass for {}{}: {} of {}, {}, {}",
        span(now - doing.began),
        if doing.once { " (--once)" } else { "" },
        doing.devices_done,
        count(doing.devices, "device"),
        count(doing.attempted, "database"),
        count(doing.failures, "failure"),
    );
    for (device, leg) in doing.legs.iter().filter(|(_, leg)| **leg != Leg::Over) {
        write!(text, "; {device} {}", of_leg(*leg)).expect(INFALLIBLE);
    }
    text
}

fn of_leg(leg: Leg) -> &'static str {
    match leg {
        Leg::Walk => "is walked",
        Leg::Compare => "is compared with its peers",
        Leg::Settle => "takes what differs to its peers",
        Leg::Move => "takes what belongs elsewhere there",
        Leg::Singly => "takes every database to its peers",
        Leg::Over => "is done",
    }
}

fn of_pass(pass: &PassNote, now: f64) -> String {
    let kind = if pass.once { " (--once)" } else { "" };
    let began = moment(now, pass.began);
    if let Some(error) = &pass.error {
        return format!("{began}{kind}: not made: {error}");
    }
    let part = match (pass.stopped, pass.whole) {
        (true, _) => ", stopped before its end",
        (false, true) => "",
        (false, false) => ", over a part of the node",
    };
    format!(
        "{began}{kind}, took {}: {}, {}{part}",
        took(pass.took),
        count(pass.attempted, "database"),
        if pass.failure == 0 { "no failure".to_owned() } else { count(pass.failure, "failure") },
    )
}

fn took(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { span(seconds) }
}

fn memory(report: &Report) -> String {
    let agent = &report.agent;
    let kib = |kib: u64| size(kib << 10);
    let last = report.last_pass.as_ref().map(|pass| pass.peak_anon_kib).filter(|kib| *kib > 0);
    let now = match (agent.anon_kib, agent.peak_anon_kib.max(last)) {
        (Some(now), peak) => format!("{} now, {} at most", kib(now), kib(peak.unwrap_or(now).max(now))),
        (None, Some(peak)) => format!("{} at most in the last pass", kib(peak)),
        (None, None) => "not known".to_owned(),
    };
    format!("{now}; agent_memory_budget is {}", kib(agent.budget_kib))
}

fn devices(text: &mut String, report: &Report, style: Style) {
    if report.devices.is_empty() {
        return;
    }
    *text += &style.heading("devices");
    let heads = ["device", "databases", "behind", "oldest change", "walked", "elsewhere", "quarantined"];
    let mut rows = vec![heading(&heads, &[1, 2, 5, 6])];
    for device in &report.devices {
        rows.push(device_row(device, report));
    }
    table(text, &rows, style);
    for device in report.devices.iter().filter_map(|device| device.problem.as_ref().map(|why| (device, why)))
    {
        paragraph(text, "  ", "    ", &format!("{}: {}", device.0.name, device.1), style);
    }
    for (device, trouble) in report
        .devices
        .iter()
        .filter_map(|device| Some((device, device.trouble.as_ref()?)))
        .filter(|(device, _)| device.problem.is_none())
    {
        let since = moment(report.now, trouble.since);
        paragraph(
            text,
            "  ",
            "    ",
            &format!("{}: since {since}: {}", device.name, trouble.cause.text),
            style,
        );
    }
}

fn device_row(device: &DeviceNow, report: &Report) -> Vec<Cell> {
    let half = report.reclaim_age / 2.0;
    let number = |number: Option<u64>| number.map_or("?".to_owned(), thousands);
    let behind = Cell::right(number(device.behind));
    let walked = Cell::left(device.walked.map_or("never".to_owned(), |time| ago(report.now, time)));
    let late = device.walked.is_none_or(|time| report.now - time > half);
    vec![
        Cell::left(printable(&device.name)).code(if device.problem.is_some() { RED } else { "" }),
        Cell::right(number(device.databases)),
        if device.behind.unwrap_or(0) > 0 { behind.code(YELLOW) } else { behind },
        Cell::left(device.oldest_change.map_or("-".to_owned(), |time| ago(report.now, time))),
        if late { walked.code(RED) } else { walked },
        Cell::right(number(device.strays)),
        Cell::right(thousands(device.quarantined)).code(if device.quarantined > 0 { YELLOW } else { "" }),
    ]
}

/// Peers that do not have everything, the worst first.
fn peers(text: &mut String, report: &Report, style: Style) {
    let mut apart: Vec<(&DeviceNow, &PeerNow)> = Vec::new();
    for device in &report.devices {
        let is_apart = |peer: &&PeerNow| peer.hindered.is_some() || peer.behind.unwrap_or(0) > 0;
        apart.extend(device.peers.iter().filter(is_apart).map(|peer| (device, peer)));
    }
    if apart.is_empty() {
        return;
    }
    let rank = |peer: &PeerNow| {
        let hindered = peer.hindered.as_ref().map_or(f64::INFINITY, |hindered| hindered.since);
        (hindered, std::cmp::Reverse(peer.behind))
    };
    apart.sort_by(|(_, one), (_, other)| {
        let (one, other) = (rank(one), rank(other));
        one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))
    });
    *text += &style.heading("peers that do not have everything");
    let mut rows = vec![heading(&["from", "peer", "behind", "has all until", "why"], &[2])];
    for (device, peer) in apart.iter().take(PEERS_SHOWN) {
        let why = peer.hindered.as_ref().map_or(Kind::Waiting, |hindered| hindered.cause.kind);
        rows.push(vec![
            Cell::left(printable(&device.name)),
            Cell::left(printable(&peer.peer)),
            Cell::right(peer.behind.map_or("?".to_owned(), thousands)),
            Cell::left(peer.synced.map_or("never".to_owned(), |time| ago(report.now, time))),
            Cell::left(why.as_str()).code(if peer.hindered.is_some() { RED } else { "" }),
        ]);
    }
    table(text, &rows, style);
    if apart.len() > PEERS_SHOWN {
        writeln!(text, "  and {} more; --json has all", thousands((apart.len() - PEERS_SHOWN) as u64))
            .expect(INFALLIBLE);
    }
    let mut told: Vec<&str> = Vec::new();
    for (_, peer) in apart {
        let Some(hindered) = &peer.hindered else { continue };
        if !told.contains(&hindered.cause.text.as_str()) && told.len() < CAUSES_SHOWN {
            told.push(&hindered.cause.text);
            let since = moment(report.now, hindered.since);
            paragraph(
                text,
                "  ",
                "    ",
                &format!("{}: since {since}: {}", peer.peer, hindered.cause.text),
                style,
            );
        }
    }
}

fn worst(text: &mut String, report: &Report, style: Style) {
    if report.worst.is_empty() {
        return;
    }
    *text += &style.heading("databases that are worst off");
    for bad in &report.worst {
        bad_database(text, bad, report.now, style);
    }
}

fn bad_database(text: &mut String, bad: &BadNow, now: f64, style: Style) {
    let name = bad.container.clone().unwrap_or_else(|| {
        format!("partition {}, {}", bad.partition.map_or("?".into(), |number| number.to_string()), bad.hash)
    });
    let since = match bad.attempts {
        0 => format!("changed {}", ago(now, bad.since)),
        1 => format!("failed {}", ago(now, bad.last.unwrap_or(bad.since))),
        attempts => format!("failed in {} passes, since {}", thousands(attempts), moment(now, bad.since)),
    };
    let room = style.width.saturating_sub(6 + bad.device.len() + since.chars().count()).max(20);
    let name = printable(&name).into_owned();
    writeln!(text, "  {} {}  {since}", printable(&bad.device), cut_middle(&name, room)).expect(INFALLIBLE);
    for with in &bad.with {
        let peer = with.peer.as_ref().map_or_else(String::new, |peer| format!("{peer}: "));
        let why = if with.reason == with.kind.as_str() {
            with.reason.clone()
        } else {
            format!("{}: {}", with.kind.as_str(), with.reason)
        };
        paragraph(text, "    ", "      ", &format!("{peer}{why}"), style);
    }
}

fn heading(names: &[&str], numbers: &[usize]) -> Vec<Cell> {
    let cell = |(at, name): (usize, &&str)| {
        if numbers.contains(&at) { Cell::right(*name) } else { Cell::left(*name) }
    };
    names.iter().enumerate().map(cell).collect()
}

fn table(text: &mut String, rows: &[Vec<Cell>], style: Style) {
    for line in columns(rows, style.colour) {
        writeln!(text, "  {line}").expect(INFALLIBLE);
    }
}

/// A time, and how long ago that was.
pub fn moment(now: f64, time: f64) -> String {
    format!("{} UTC ({})", utc(time as u64), ago(now, time))
}

const INFALLIBLE: &str = "a string takes whatever is written to it";
/// With these the page still fits a terminal or two.
const PEERS_SHOWN: usize = 12;
const CAUSES_SHOWN: usize = 6;
