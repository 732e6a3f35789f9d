//! What a rebalance says at its end: what moved, from where to where, how much data that means, and what comes next.

use std::collections::BTreeMap;

use super::columns::{Cell, columns};
use super::picture::place;
use crate::report::text::{cut_middle, thousands};
use crate::ring::DeviceId;
use crate::ring::builder::Builder;
use crate::ring::moves::Moves;
use crate::ring::placement::tiers::Tier;

/// The report on a builder that was just rebalanced, at most [`LINES`] lines, each with a newline; `before` are its rows as
/// they were. It is for people, and goes below the line that scripts read.
///
/// The builder knows partitions, not bytes: amounts of data are percentages of all that is stored, each partition taken for
/// as large as any other.
pub fn report(before: Option<&[Vec<DeviceId>]>, builder: &Builder, now_secs: u64) -> String {
    let rows = builder.rows().unwrap_or_default();
    let moves = Moves::between(before.unwrap_or_default(), rows);
    let mut lines = Vec::new();
    if moves.placed > 0 {
        lines.push(placed(&moves));
    }
    if moves.dropped > 0 {
        lines.push(format!("{} given up: there are fewer replicas now.", replicas(moves.dropped)));
    }
    match moves.moved {
        0 if !lines.is_empty() => {}
        0 => lines.push("No data moves.".to_owned()),
        _ => {
            lines.push(moved(&moves, builder));
            lines.extend(routes(&moves, builder));
        }
    }
    let waiting = waiting(builder);
    if !moves.is_empty() || waiting.is_some() {
        lines.extend(waiting);
        lines.push(next(builder, now_secs));
    }
    lines.join("\n") + "\n"
}

fn placed(moves: &Moves) -> String {
    match moves.placed == moves.replicas {
        true => format!("{} assigned for the first time; no data moves.", replicas(moves.placed)),
        false => format!(
            "{}, to be copied from the others of their partitions: at most {} of all data.",
            match moves.placed {
                1 => "1 new replica".to_owned(),
                placed => format!("{} new replicas", thousands(placed)),
            },
            percent(moves.placed, moves.replicas)
        ),
    }
}

fn moved(moves: &Moves, builder: &Builder) -> String {
    format!(
        "{} of {} moved, of {} of {} partitions: at most {} of all data.",
        thousands(moves.moved),
        replicas(moves.replicas),
        thousands(moves.partitions),
        thousands(builder.partitions().into()),
        percent(moves.moved, moves.replicas)
    )
}

/// Who got from whom. Lines by device on the side that has few of them; with many on both, zones and the extremes.
fn routes(moves: &Moves, builder: &Builder) -> Vec<String> {
    let mut to: BTreeMap<DeviceId, BTreeMap<DeviceId, u64>> = BTreeMap::new();
    let mut from: BTreeMap<DeviceId, BTreeMap<DeviceId, u64>> = BTreeMap::new();
    for (&(source, target), &count) in &moves.routes {
        to.entry(target).or_default().insert(source, count);
        from.entry(source).or_default().insert(target, count);
    }
    let parts = builder.parts();
    let holds = |id: DeviceId| parts.get(id.0 as usize).copied().unwrap_or(0);
    let had = |id: DeviceId| {
        let got = moves.got.get(&id).copied().unwrap_or(0);
        holds(id) + moves.gave.get(&id).copied().unwrap_or(0) - got.min(holds(id))
    };
    let many = to.len() > FEW && from.len() > FEW;
    let mut lines = Vec::new();
    if to.len() <= from.len() || many {
        let shown = if many { EXTREMES } else { FEW };
        lines.extend(sides(builder, ["to", "from"], &to, shown, holds, "of what it holds"));
    }
    if from.len() < to.len() || many {
        let shown = if many { EXTREMES } else { FEW };
        lines.extend(sides(builder, ["from", "to"], &from, shown, had, "of what it held"));
    }
    if many {
        lines.extend(zones(moves, builder));
    }
    lines
}

/// A line for each device on one side with those on the other, the largest first.
fn sides(
    builder: &Builder,
    [own, others]: [&str; 2],
    routes: &BTreeMap<DeviceId, BTreeMap<DeviceId, u64>>,
    limit: usize,
    all: impl Fn(DeviceId) -> u64,
    of_all: &str,
) -> Vec<String> {
    let mut devices: Vec<(u64, DeviceId)> =
        routes.iter().map(|(&id, others)| (others.values().sum(), id)).collect();
    devices.sort_by_key(|&(count, id)| (std::cmp::Reverse(count), id));
    let mut rows = vec![vec![
        Cell::left(format!("  {own}")),
        Cell::right("replicas"),
        Cell::right(of_all),
        Cell::left(others),
    ]];
    for &(count, id) in devices.iter().take(shown(devices.len(), limit)) {
        rows.push(vec![
            Cell::left(format!("  {}", name(builder, id))),
            Cell::right(thousands(count)),
            Cell::right(percent(count, all(id))),
            Cell::left(list(&routes[&id])),
        ]);
    }
    let rest = &devices[shown(devices.len(), limit)..];
    if !rest.is_empty() {
        let count = rest.iter().map(|(count, _)| count).sum();
        rows.push(vec![Cell::left(format!("  {} others", rest.len())), Cell::right(thousands(count))]);
    }
    columns(&rows, false)
}

/// How many replicas went from zone to zone.
fn zones(moves: &Moves, builder: &Builder) -> Vec<String> {
    let zone = |id| match builder.device(id) {
        Some(device) => Tier::of(device)[1].to_string(),
        None => "removed".to_owned(),
    };
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (&(from, to), &count) in &moves.routes {
        *counts.entry((zone(from), zone(to))).or_default() += count;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let mut rows = vec![vec![Cell::left("  zone"), Cell::left("to zone"), Cell::right("replicas")]];
    let shown = shown(counts.len(), EXTREMES);
    for ((from, to), count) in &counts[..shown] {
        rows.push(vec![
            Cell::left(format!("  {from}")),
            Cell::left(to.clone()),
            Cell::right(thousands(*count)),
        ]);
    }
    if let rest @ [_, ..] = &counts[shown..] {
        let count = rest.iter().map(|(_, count)| count).sum();
        rows.push(vec![
            Cell::left("  others"),
            Cell::left(format!("{} pairs", rest.len())),
            Cell::right(thousands(count)),
        ]);
    }
    columns(&rows, false)
}

/// How much is still to move, if anything is: replicas that some devices hold above what they should, or lack.
fn waiting(builder: &Builder) -> Option<String> {
    let plan = builder.plan().ok()?;
    let parts = builder.parts();
    let (mut above, mut below) = (Side::default(), Side::default());
    for device in builder.devices() {
        let parts = parts[device.id.0 as usize];
        let wanted = plan.share(device.id, builder.partitions());
        // Between the whole numbers around what it wants, a device has what it wants.
        above.add(parts.saturating_sub((wanted - GRAIN).ceil().max(0.0) as u64));
        below.add(((wanted + GRAIN).floor() as u64).saturating_sub(parts));
    }
    let most = above.replicas.max(below.replicas);
    (most > 0).then(|| {
        format!(
            "At least {} wait: {} too many, {} too few.",
            replicas(most),
            above.said("holds", "hold"),
            below.said("has", "have")
        )
    })
}

/// Devices that have too much, or too little.
#[derive(Default)]
struct Side {
    devices: u64,
    replicas: u64,
}

impl Side {
    fn add(&mut self, replicas: u64) {
        self.devices += u64::from(replicas > 0);
        self.replicas += replicas;
    }

    fn said(&self, one: &str, more: &str) -> String {
        match self.devices {
            1 => format!("1 device {one} {}", thousands(self.replicas)),
            devices => format!("{} devices {more} {}", thousands(devices), thousands(self.replicas)),
        }
    }
}

/// What the next rebalance may move, and when.
fn next(builder: &Builder, now_secs: u64) -> String {
    let seconds = builder.seconds_left(now_secs);
    let held = builder.held_partitions(now_secs);
    let all = u64::from(builder.partitions());
    let left = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match held {
        0 => "The next rebalance may move any partition.".to_owned(),
        _ if held == all => format!("No partition may move again for another {left}."),
        _ => format!(
            "The next rebalance may move {} partitions at once; {} moved lately and stay for {left}.",
            thousands(all - held),
            thousands(held)
        ),
    }
}

/// How many of `limit` lines to fill: the last is for the others, unless there is but one.
fn shown(all: usize, limit: usize) -> usize {
    if all <= limit { all } else { limit - 1 }
}

/// The largest counts, each with its device.
fn list(counts: &BTreeMap<DeviceId, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().map(|(&id, &count)| (count, id)).collect();
    counts.sort_by_key(|&(count, id)| (std::cmp::Reverse(count), id));
    let shown = shown(counts.len(), LISTED);
    let mut said: Vec<String> =
        counts[..shown].iter().map(|(count, id)| format!("d{id}: {}", thousands(*count))).collect();
    if let rest @ [_, ..] = &counts[shown..] {
        let count = rest.iter().map(|(count, _)| count).sum();
        said.push(format!("{} others: {}", rest.len(), thousands(count)));
    }
    said.join(", ")
}

fn name(builder: &Builder, id: DeviceId) -> String {
    match builder.device(id) {
        Some(device) => cut_middle(&format!("d{id} {}", place(device)), NAME_CHARS).into_owned(),
        None => format!("d{id} (removed)"),
    }
}

fn replicas(count: u64) -> String {
    format!("{} replica{}", thousands(count), if count == 1 { "" } else { "s" })
}

fn percent(part: u64, all: u64) -> String {
    let percent = 100.0 * part as f64 / all.max(1) as f64;
    if percent < 1.0 { format!("{percent:.2}%") } else { format!("{percent:.1}%") }
}

/// The most lines of a report.
pub const LINES: usize = 22;

/// So many devices on one side of all moves have a line each.
const FEW: usize = 10;
/// Of more on both sides, so many lines are for those that got most, gave most, and for pairs of zones.
const EXTREMES: usize = 4;
/// Devices named behind a line.
const LISTED: usize = 4;
/// The line stays within 100 columns.
const NAME_CHARS: usize = 36;
/// Less than this of a replica is rounding.
const GRAIN: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::{NOW_SECS, devices, rebalanced, swapped};

    fn said(before: Option<&[Vec<DeviceId>]>, builder: &Builder, now_secs: u64) -> String {
        let text = report(before, builder, now_secs);
        println!("{text}");
        assert!(text.lines().count() <= LINES && text.ends_with('\n'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100 && !line.is_empty()), "{text}");
        text
    }

    #[test]
    fn a_first_rebalance_moves_no_data() {
        let builder = rebalanced(5, 3.0, &devices(4, 1));
        assert_eq!(
            said(None, &builder, NOW_SECS + 61),
            "96 replicas assigned for the first time; no data moves.\n\
             No partition may move again for another 0:58:59.\n"
        );
    }

    #[test]
    fn a_few_moves_are_told_device_by_device() {
        let builder = rebalanced(5, 3.0, &devices(4, 1));
        let mut before = builder.rows().expect("rebalanced").to_vec();
        // A device that is gone had the first replica of eight partitions, and device 1 was no holder of one.
        before[0][..8].fill(DeviceId(9));
        let text = said(Some(&before), &builder, NOW_SECS + 3600);
        assert!(
            text.starts_with("8 of 96 replicas moved, of 8 of 32 partitions: at most 8.3% of all data.\n")
        );
        assert!(
            text.contains("\n  from ") && text.contains("\n  d9 (removed)         8           100.0%  d"),
            "{text}"
        );
        assert!(text.ends_with("The next rebalance may move any partition.\n"));
    }

    #[test]
    fn many_moves_are_summed_up() {
        let builder = rebalanced(10, 3.0, &devices(5, 14));
        let before = swapped(&builder, 1000);
        // All lost to a few devices: lines for those.
        let text = said(Some(&before), &builder, NOW_SECS);
        assert!(text.contains("\n  from ") && !text.contains("\n  zone "), "{text}");
        let mut shuffled = builder.rows().expect("rebalanced").to_vec();
        for (partition, id) in shuffled[1].iter_mut().enumerate() {
            *id = DeviceId((id.0 + 1 + partition as u32 % 60) % 70);
        }
        let text = said(Some(&shuffled), &builder, NOW_SECS);
        for part in ["\n  to ", "\n  from ", "\n  zone ", " others"] {
            assert!(text.contains(part), "{part:?} is missing");
        }
    }

    #[test]
    fn nothing_is_said_to_move_where_nothing_did() {
        let builder = rebalanced(5, 3.0, &devices(4, 1));
        assert_eq!(said(builder.rows(), &builder, NOW_SECS), "No data moves.\n");
    }

    #[test]
    fn replicas_that_come_and_go_are_told() {
        let more = rebalanced(5, 3.0, &devices(4, 1));
        let rows = more.rows().expect("rebalanced");
        let text = said(Some(&rows[..2]), &more, NOW_SECS);
        assert!(text.starts_with("32 new replicas, to be copied from the others"), "{text}");
        assert!(text.contains("at most 33.3% of all data.\n"), "{text}");
        let fewer = rebalanced(5, 2.0, &devices(4, 1));
        let mut before = fewer.rows().expect("rebalanced").to_vec();
        before.push(vec![DeviceId(3); 32]);
        assert!(said(Some(&before), &fewer, NOW_SECS).contains("given up: there are fewer replicas now."));
    }

    #[test]
    fn what_waits_is_told() {
        let mut builder = rebalanced(5, 3.0, &devices(5, 1));
        builder.set_weight(DeviceId(4), 0.0).expect("it is there");
        let held = builder.parts()[4];
        let text = said(builder.rows(), &builder, NOW_SECS);
        assert!(text.contains(&format!("wait: 1 device holds {held} too many, 4 devices have ")), "{text}");
    }
}
