//! All that is to be seen of a ring, counted once; the table, the summary and the drawing only lay it out.

use std::collections::BTreeMap;

use super::palette::Palette;
use crate::report::text::{printable, thousands};
use crate::ring::builder::Builder;
use crate::ring::device_string::bracketed;
use crate::ring::moves::Moves;
use crate::ring::placement::tiers::{LEVELS, Tier};
use crate::ring::{Device, DeviceId};

/// A ring that was rebalanced, and perhaps what it was before.
pub struct Picture<'a> {
    /// `rows[replica][partition]`.
    pub rows: &'a [Vec<DeviceId>],
    /// The same of an earlier ring of as many partitions.
    pub before: Option<&'a [Vec<DeviceId>]>,
    /// What changed since then.
    pub moves: Option<Moves>,
    /// How many partitions there are.
    pub partitions: usize,
    /// How many replicas there are of all partitions together.
    pub slots: u64,
    /// In order of their ids.
    pub devices: Vec<DeviceFigures<'a>>,
    /// Regions, each before its zones.
    pub tiers: Vec<TierFigures>,
    /// For regions, zones, servers and devices: at `n`, how many partitions have their replicas in `n` of them.
    pub apart: [Vec<u64>; LEVELS],
    /// How far the worst device is from its share, in percent; `None` if no device has weight.
    pub balance: Option<f64>,
    /// As the builder remembers it: in percent, `None` in old builders.
    pub dispersion: Option<f64>,
    /// Whether devices were changed since the rows were made.
    pub is_outdated: bool,
    /// A colour for each device.
    pub palette: Palette,
}

/// What one device holds.
pub struct DeviceFigures<'a> {
    /// The device.
    pub device: &'a Device,
    /// Whether the next rebalance removes it.
    pub is_marked: bool,
    /// Replicas it holds.
    pub parts: u64,
    /// Replicas it should hold; `None` where there are fewer devices than replicas.
    pub wanted: Option<f64>,
    /// Percent above its share by weight, or below.
    pub balance: f64,
    /// Other devices that hold replicas of its partitions.
    pub peers: usize,
    /// Replicas that came since the earlier ring.
    pub got: u64,
    /// Replicas that went.
    pub gave: u64,
}

/// What the devices of a region or a zone hold together.
#[derive(Debug, Clone, PartialEq)]
pub struct TierFigures {
    /// Which.
    pub tier: Tier,
    /// How many devices are in it.
    pub devices: usize,
    /// Their weight.
    pub weight: f64,
    /// Replicas they hold.
    pub parts: u64,
    /// Replicas they should hold.
    pub wanted: Option<f64>,
    /// Replicas that its devices got since the earlier ring, from wherever.
    pub got: u64,
    /// Replicas that its devices gave.
    pub gave: u64,
}

impl<'a> Picture<'a> {
    /// Counts. `None` before the first rebalance.
    pub fn new(builder: &'a Builder, before: Option<&'a [Vec<DeviceId>]>) -> Option<Picture<'a>> {
        let rows = builder.rows()?;
        let moves = before.map(|before| Moves::between(before, rows));
        let parts = builder.parts();
        let peers = peers(rows, parts.len());
        let balances = builder.balances().ok();
        let plan = builder.plan().ok();
        let partitions = builder.partitions();
        let moved = |of: fn(&Moves) -> &BTreeMap<DeviceId, u64>, id| {
            moves.as_ref().and_then(|moves| of(moves).get(&id)).copied().unwrap_or(0)
        };
        let devices: Vec<DeviceFigures> = builder
            .devices()
            .map(|device| {
                let (id, at) = (device.id, device.id.0 as usize);
                DeviceFigures {
                    device,
                    is_marked: builder.is_marked(id),
                    parts: parts[at],
                    wanted: plan.as_ref().map(|plan| plan.share(id, partitions)),
                    balance: balances.as_ref().map_or(0.0, |balances| balances[at]),
                    peers: peers[at],
                    got: moved(|moves| &moves.got, id),
                    gave: moved(|moves| &moves.gave, id),
                }
            })
            .collect();
        Some(Picture {
            rows,
            before,
            moves,
            partitions: partitions as usize,
            slots: rows.iter().map(|row| row.len() as u64).sum(),
            tiers: tiers(&devices),
            apart: apart(builder, rows),
            balance: builder.balance().ok(),
            dispersion: builder.spread().map(|spread| spread.dispersion),
            is_outdated: builder.devices_changed(),
            palette: Palette::new(builder.devices()),
            devices,
        })
    }

    /// Replicas of a partition on average.
    pub fn replicas(&self) -> f64 {
        self.slots as f64 / self.partitions.max(1) as f64
    }

    /// Percent of all replicas.
    pub fn share(&self, parts: u64) -> f64 {
        100.0 * parts as f64 / self.slots.max(1) as f64
    }

    /// Whether every single replica can be shown.
    pub fn is_small(&self) -> bool {
        self.partitions <= SMALL_PARTITIONS
            && self.rows.len().max(self.before.map_or(0, <[_]>::len)) <= SMALL_REPLICAS
            && self.devices.len() <= SMALL_DEVICES
    }

    /// One line on the whole: how many of what, and how well balanced.
    pub fn headline(&self) -> String {
        let count = |depth: usize| self.tiers.iter().filter(|figures| figures.tier.depth() == depth).count();
        let some = |number: usize, name: &str| {
            format!("{} {name}{}", thousands(number as u64), if number == 1 { "" } else { "s" })
        };
        let figure = |name: &str, value: Option<f64>| match value {
            Some(value) => format!("{name} {value:.2}"),
            None => format!("{name} unknown"),
        };
        format!(
            "{}, {} replica{}; {} in {} of {}; {}, {}",
            some(self.partitions, "partition"),
            self.replicas(),
            if self.replicas() == 1.0 { "" } else { "s" },
            some(self.devices.len(), "device"),
            some(count(2), "zone"),
            some(count(1), "region"),
            figure("balance", self.balance),
            figure("dispersion", self.dispersion),
        )
    }
}

/// Where a device is, as Swift's tools write it: `r1z2-10.0.0.1:6201/sdb1`.
pub fn place(device: &Device) -> String {
    let Device { region, zone, ip, port, name, .. } = device;
    printable(&format!("r{region}z{zone}-{}:{port}/{name}", bracketed(ip))).into_owned()
}

/// A count that may be a fraction, as `12` or `12.5`.
pub fn fraction(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// For each device how many others hold replicas of its partitions. Takes time in proportion to the replicas times the
/// rows, and room for each replica once.
fn peers(rows: &[Vec<DeviceId>], devices: usize) -> Vec<usize> {
    let mut partitions_of = vec![Vec::new(); devices];
    for row in rows {
        for (partition, id) in row.iter().enumerate() {
            if let Some(partitions) = partitions_of.get_mut(id.0 as usize) {
                partitions.push(partition as u32);
            }
        }
    }
    let mut seen_by = vec![usize::MAX; devices];
    let mut count = |(own, partitions): (usize, &Vec<u32>)| {
        let mut peers = 0;
        for &partition in partitions {
            for id in rows.iter().filter_map(|row| row.get(partition as usize)) {
                let other = id.0 as usize;
                if other != own && seen_by.get(other).is_some_and(|&seen| seen != own) {
                    seen_by[other] = own;
                    peers += 1;
                }
            }
        }
        peers
    };
    partitions_of.iter().enumerate().map(&mut count).collect()
}

/// Adds devices up by region and by zone.
fn tiers(devices: &[DeviceFigures<'_>]) -> Vec<TierFigures> {
    let mut tiers: BTreeMap<Tier, TierFigures> = BTreeMap::new();
    for figures in devices {
        let [region, zone, ..] = Tier::of(figures.device);
        for tier in [region, zone] {
            let sum = tiers.entry(tier.clone()).or_insert(TierFigures {
                tier,
                devices: 0,
                weight: 0.0,
                parts: 0,
                wanted: Some(0.0),
                got: 0,
                gave: 0,
            });
            sum.devices += 1;
            sum.weight += figures.device.weight;
            sum.parts += figures.parts;
            sum.wanted = sum.wanted.zip(figures.wanted).map(|(sum, wanted)| sum + wanted);
            sum.got += figures.got;
            sum.gave += figures.gave;
        }
    }
    tiers.into_values().collect()
}

/// Counts partitions by the number of tiers that their replicas are in.
fn apart(builder: &Builder, rows: &[Vec<DeviceId>]) -> [Vec<u64>; LEVELS] {
    let mut numbers: [BTreeMap<Tier, usize>; LEVELS] = Default::default();
    let mut tiers_of: BTreeMap<DeviceId, [usize; LEVELS]> = BTreeMap::new();
    for device in builder.devices() {
        let mut level = 0;
        let own = Tier::of(device).map(|tier| {
            let next = numbers[level].len();
            level += 1;
            *numbers[level - 1].entry(tier).or_insert(next)
        });
        tiers_of.insert(device.id, own);
    }
    let mut apart = [(); LEVELS].map(|()| vec![0; rows.len() + 1]);
    let mut seen: Vec<usize> = Vec::with_capacity(rows.len());
    for partition in 0..rows.first().map_or(0, Vec::len) {
        let holders = || rows.iter().filter_map(|row| tiers_of.get(row.get(partition)?));
        for (level, counts) in apart.iter_mut().enumerate() {
            seen.clear();
            holders().for_each(|tiers| {
                if !seen.contains(&tiers[level]) {
                    seen.push(tiers[level]);
                }
            });
            counts[seen.len()] += 1;
        }
    }
    apart
}

/// A table of more partitions is no longer taken in at a glance.
pub const SMALL_PARTITIONS: usize = 256;
/// Nor is one of more replicas.
pub const SMALL_REPLICAS: usize = 16;
/// Nor can more colours be told apart.
pub const SMALL_DEVICES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::{devices, rebalanced, swapped};

    #[test]
    fn figures_add_up() {
        let builder = rebalanced(5, 2.5, &devices(4, 2));
        let before = swapped(&builder, 3);
        let picture = Picture::new(&builder, Some(&before)).expect("it is rebalanced");
        assert_eq!((picture.partitions, picture.slots, picture.replicas()), (32, 80, 2.5));
        assert_eq!(picture.devices.iter().map(|device| device.parts).sum::<u64>(), 80);
        let wanted: f64 = picture.devices.iter().filter_map(|device| device.wanted).sum();
        assert!((wanted - 80.0).abs() < 1e-6, "{wanted}");
        assert_eq!(picture.tiers.len(), 5);
        assert_eq!((picture.tiers[0].devices, picture.tiers[0].parts), (8, 80));
        assert_eq!(picture.tiers[1..].iter().map(|zone| zone.parts).sum::<u64>(), 80);
        let moves = picture.moves.as_ref().expect("there was an earlier one");
        assert_eq!(picture.devices.iter().map(|device| device.got).sum::<u64>(), moves.moved);
        assert_eq!(picture.tiers[0].gave, moves.moved);
        assert!(picture.apart.iter().all(|counts| counts.iter().sum::<u64>() == 32));
        assert_eq!(picture.apart[0], [0, 32, 0, 0], "one region");
        assert_eq!(picture.apart[3], [0, 0, 16, 16], "every other partition has a third replica");
    }

    #[test]
    fn peers_are_counted_once_and_never_oneself() {
        let row = |ids: &[u32]| ids.iter().copied().map(DeviceId).collect::<Vec<_>>();
        assert_eq!(peers(&[row(&[0, 1, 0]), row(&[1, 2, 1]), row(&[3])], 5), [2, 3, 1, 2, 0]);
        assert_eq!(peers(&[row(&[0]), row(&[0])], 1), [0]);
    }

    #[test]
    fn small_ends_at_its_bounds() {
        let small = |part_power, devices: &[Device]| {
            Picture::new(&rebalanced(part_power, 3.0, devices), None).is_some_and(|it| it.is_small())
        };
        assert!(small(8, &devices(4, 1)) && !small(9, &devices(4, 1)));
        assert!(small(2, &devices(4, 32)) && !small(2, &devices(3, 43)));
        let builder = rebalanced(2, 3.0, &devices(4, 1));
        for (replicas, is_small) in [(SMALL_REPLICAS, true), (SMALL_REPLICAS + 1, false)] {
            let before = vec![vec![DeviceId(0); 4]; replicas];
            let picture = Picture::new(&builder, Some(&before)).expect("it is rebalanced");
            assert_eq!(picture.is_small(), is_small, "there were {replicas} replicas");
        }
    }

    #[test]
    fn the_headline_counts_and_says_how_good_it_is() {
        let builder = rebalanced(5, 3.0, &devices(4, 1));
        let headline = Picture::new(&builder, None).expect("it is rebalanced").headline();
        assert!(
            headline.starts_with("32 partitions, 3 replicas; 4 devices in 4 zones of 1 region; balance 0.00"),
            "{headline}"
        );
    }

    #[test]
    fn addresses_with_colons_are_bracketed_and_names_cannot_drive_a_terminal() {
        let mut device = devices(1, 1).remove(0);
        assert_eq!(place(&device), "r1z1-10.0.1.1:6201/sdb1");
        device.ip = "fe80::1".to_owned();
        device.name = "\u{1b}[2J".to_owned();
        assert_eq!(place(&device), "r1z1-[fe80::1]:6201/#033[2J");
    }
}
