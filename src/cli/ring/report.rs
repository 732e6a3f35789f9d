//! The tables and figures of `agent ring`, to the letter those of `swift-ring-builder`, for scripts read them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv6Addr;
use std::path::Path;

use super::files::Names;
use crate::ring::builder::Builder;
use crate::ring::device_string::bracketed;
use crate::ring::format::Device;
use crate::ring::placement::tiers::{LEVELS, Tier};
use crate::ring::spread::{Spread, balance};
use crate::ring::{FormatVersion, Ring, RingError};

/// The builder in a few lines, how its ring file stands to it, and its devices (`Commands.default`).
pub fn summary(builder: &Builder, names: &Names, now_secs: u64) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    let regions: BTreeSet<_> = builder.devices().map(|device| device.region).collect();
    let zones: BTreeSet<_> = builder.devices().map(|device| (device.region, device.zone)).collect();
    let no_weight = builder.balance().err();
    let dispersion = match builder.spread() {
        Some(spread) => format!(", {:.2} dispersion", spread.dispersion),
        None => String::new(),
    };
    line(format!(
        "{}, build version {}, id {}",
        names.builder.display(),
        builder.version(),
        builder.id().unwrap_or("(not assigned)")
    ));
    line(format!(
        "{} partitions, {:.6} replicas, {} regions, {} zones, {} devices, {}-byte IDs, {:.2} balance{dispersion}",
        builder.partitions(),
        builder.replicas(),
        regions.len(),
        zones.len(),
        builder.devices().count(),
        builder.id_width().bytes(),
        builder.balance().unwrap_or(0.0),
    ));
    line(format!(
        "The minimum number of hours before a partition can be reassigned is {} ({} remaining)",
        builder.min_part_hours(),
        duration(builder.seconds_left(now_secs))
    ));
    line(format!("The overload factor is {:.2}% ({:.6})", builder.overload() * 100.0, builder.overload()));
    line(ring_line(builder, &names.ring));
    line(device_table(builder));
    if let Some(next) = builder.next_part_power() {
        let power = builder.part_power();
        let stage = if next == power { "Increased" } else { "Preparing increase of" };
        line(format!("\n{stage} partition power ({power} -> {next})"));
        line("swift-ring-builder and swift-object-relinker bring it to its end.".to_owned());
    }
    if let Some(fault) = no_weight {
        line(fault.to_string());
    }
    text.pop();
    text
}

/// How the ring file stands to the builder. How wide ids are written says nothing about the ring.
fn ring_line(builder: &Builder, path: &Path) -> String {
    let shown = path.display();
    if !path.exists() {
        return format!("Ring file {shown} not found, probably it hasn't been written yet");
    }
    let mut written = match Ring::load(path) {
        Ok(ring) => ring.data().clone(),
        Err(RingError { fault, .. }) => return format!("Ring file {shown} is invalid: {fault}"),
    };
    let is_current = builder.ring().is_ok_and(|ring| {
        written.id_width = ring.id_width;
        written == ring
    });
    format!("Ring file {shown} is {}", if is_current { "up-to-date" } else { "obsolete" })
}

/// Every device, neighbours together (`_make_display_device_table`).
fn device_table(builder: &Builder) -> String {
    let mut devices: Vec<&Device> = builder.devices().collect();
    devices.sort_by_key(|device| (device.region, device.zone, &device.ip, &device.name));
    let widest = |least: usize, width: &dyn Fn(&Device) -> usize| {
        devices.iter().map(|device| width(device)).max().unwrap_or(0).max(least)
    };
    let brackets = |ip: &dyn Fn(&Device) -> &str| {
        if devices.iter().any(|device| ip(device).parse::<Ipv6Addr>().is_ok()) { 2 } else { 0 }
    };
    let ip = widest(10, &|device| device.ip.chars().count()) + brackets(&|device| &device.ip);
    let port = widest(4, &|device| device.port.to_string().len());
    let replication_ip = widest(14, &|device| device.replication_ip.chars().count())
        + brackets(&|device| &device.replication_ip);
    let replication_port = widest(4, &|device| device.replication_port.to_string().len());
    let weight = widest(6, &|device| format!("{:.2}", device.weight).len());

    let mut table = format!(
        "Devices:{:>5} {:>6} {:>4} {:>ip$}:{:<port$} {:>replication_ip$}:{:<replication_port$} {:>5} {:>weight$} {:>10} {:>7} {:>5} {}",
        "id",
        "region",
        "zone",
        "ip address",
        "port",
        "replication ip",
        "port",
        "name",
        "weight",
        "partitions",
        "balance",
        "flags",
        "meta"
    );
    let (parts, balances) = (builder.parts(), builder.balances().unwrap_or_default());
    for device in devices {
        let id = device.id.0 as usize;
        let _ = write!(
            table,
            "\n{:13} {:6} {:4} {:>ip$}:{:<port$} {:>replication_ip$}:{:<replication_port$} {:>5} {:weight$.2} {:>10} {:7.2} {:>5} {}",
            id,
            device.region,
            device.zone,
            bracketed(&device.ip),
            device.port,
            bracketed(&device.replication_ip),
            device.replication_port,
            device.name,
            device.weight,
            parts[id],
            balances.get(id).copied().unwrap_or(0.0),
            if builder.is_marked(device.id) { "DEL" } else { "" },
            device.meta
        );
    }
    table
}

/// Some devices, in a table of other widths (`Commands.search`).
pub fn search_table(builder: &Builder, devices: &[&Device]) -> String {
    let mut table = SEARCH_HEADER.to_owned();
    let (parts, balances) = (builder.parts(), builder.balances().unwrap_or_default());
    for device in devices {
        let id = device.id.0 as usize;
        let _ = write!(
            table,
            "\n         {:5} {:7} {:5} {:>15} {:5} {:>15} {:17} {:>9} {:6.2} {:>10} {:7.2} {}",
            id,
            device.region,
            device.zone,
            device.ip,
            device.port,
            device.replication_ip,
            device.replication_port,
            device.name,
            device.weight,
            parts[id],
            // Without any weight there are no shares, but what is held is still too much.
            balances.get(id).copied().unwrap_or_else(|| balance(device, parts[id], 1.0)),
            device.meta
        );
    }
    table
}

/// The line of `version`.
pub fn version_line(path: &Path, version: FormatVersion, ring: &Ring) -> String {
    let number = match version {
        FormatVersion::V1 => 1,
        FormatVersion::V2 => 2,
    };
    let built = ring.version().map_or("unknown".to_owned(), |version| version.to_string());
    format!(
        "{}: Serialization version: {number} ({}-byte IDs), build version: {built}",
        path.display(),
        ring.data().id_width.bytes()
    )
}

/// What one tier adds to a dispersion report.
pub struct TierLine {
    name: String,
    placed: u64,
    /// Percentage of the tier's replicas above the most it should hold of their partitions.
    dispersion: f64,
    most: u32,
    counts: Vec<u64>,
}

impl TierLine {
    /// The lines of all tiers whose names are `wanted`, in order (`swift/common/ring/utils.py: dispersion_report`).
    pub fn all(
        builder: &Builder,
        spread: &Spread,
        most: impl Fn(&Tier) -> u32,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<TierLine> {
        let columns = columns(builder);
        let line = |(tier, counts): (&Tier, &Vec<u64>)| {
            let held =
                || counts.iter().enumerate().map(|(replicas, &partitions)| (replicas as u64, partitions));
            let most = most(tier);
            let placed: u64 = held().map(|(replicas, partitions)| replicas * partitions).sum();
            let at_risk: u64 =
                held().map(|(replicas, partitions)| replicas.saturating_sub(most.into()) * partitions).sum();
            TierLine {
                name: tier_name(builder, tier),
                placed,
                dispersion: 100.0 * at_risk as f64 / placed.max(1) as f64,
                most,
                counts: (0..columns).map(|replicas| counts.get(replicas).copied().unwrap_or(0)).collect(),
            }
        };
        spread.graph.iter().map(line).filter(|line| wanted(&line.name)).collect()
    }

    /// The worst of some lines, if any is bad: the first of those.
    pub fn worst(lines: &[TierLine]) -> Option<String> {
        let worst = lines.iter().rev().max_by(|one, other| one.dispersion.total_cmp(&other.dispersion))?;
        let TierLine { name, dispersion, .. } = worst;
        (*dispersion > 0.0).then(|| format!("Worst tier is {dispersion:.6} ({name})"))
    }

    /// All lines as a table.
    pub fn table(builder: &Builder, lines: &[TierLine]) -> String {
        let parts = builder.partitions().to_string().len().max(5);
        let name = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(30);
        let counts = |counts: &mut dyn Iterator<Item = u64>| {
            counts.map(|count| format!(" {count:>parts$}")).collect::<String>()
        };
        let header = format!(
            "{:<name$} {:>parts$} {:>6} {:>6}{}",
            "Tier",
            "Parts",
            "%",
            "Max",
            counts(&mut (0..columns(builder) as u64))
        );
        let rule = "-".repeat(header.len());
        let mut table = format!("{rule}\n{header}\n{rule}");
        for line in lines {
            let _ = write!(
                table,
                "\n{:<name$} {:>parts$} {:6.2} {:6}{}",
                line.name,
                line.placed,
                line.dispersion,
                line.most,
                counts(&mut line.counts.iter().copied())
            );
        }
        table
    }
}

/// For 0, 1, 2, … replicas of a partition in a tier.
fn columns(builder: &Builder) -> usize {
    builder.replicas().ceil() as usize + 1
}

/// A tier by its names; a device that is no more by its id (`swift/common/ring/utils.py: get_tier_name`).
fn tier_name(builder: &Builder, tier: &Tier) -> String {
    let device = tier.device.and_then(|id| builder.device(id));
    match device.filter(|_| tier.depth() == LEVELS) {
        Some(device) => format!("{}/{}", Tier { device: None, ..tier.clone() }, device.name),
        None => tier.to_string(),
    }
}

/// A number of seconds as Python prints a `timedelta`: `2 days, 3:04:05`.
pub fn duration(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

/// A number as Python prints it: `100.0`, `1e+16`, `1e-05`.
pub fn python_float(number: f64) -> String {
    let exponential = format!("{number:e}");
    let Some((digits, exponent)) = exponential.split_once('e') else { return exponential };
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..16) => {
            let plain = format!("{number}");
            if exponent >= 0 && !plain.contains('.') { plain + ".0" } else { plain }
        }
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        Err(_) => exponential,
    }
}

const SEARCH_HEADER: &str = "Devices:    id  region  zone      ip address  port  replication ip  \
    replication port      name weight partitions balance meta";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_python_prints_them() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (3.5, "3.5"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-300, "1.5e-300"),
            (123456.789, "123456.789"),
        ];
        for (number, expected) in table {
            assert_eq!(python_float(number), expected);
        }
    }

    #[test]
    fn durations_are_printed_as_python_prints_them() {
        let table = [
            (0, "0:00:00"),
            (59, "0:00:59"),
            (3600, "1:00:00"),
            (86_399, "23:59:59"),
            (86_400, "1 day, 0:00:00"),
            (183_845, "2 days, 3:04:05"),
        ];
        for (seconds, expected) in table {
            assert_eq!(duration(seconds), expected);
        }
    }
}
