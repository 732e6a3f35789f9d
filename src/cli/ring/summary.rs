//! A ring in figures: a line for each device, for each region and zone, and how far apart replicas are. The legend of the
//! table of a small ring, and all there is to be shown of a large one.

use super::columns::{BOLD, Cell, columns, paint};
use super::picture::{DeviceFigures, Picture, TierFigures, fraction, place};
use crate::report::text::{cut_middle, thousands};
use crate::ring::placement::tiers::LEVELS;
use crate::ring::spread::WORST_BALANCE;

/// The lines of the devices, the tiers and the distances, each part under a heading.
pub fn summary(picture: &Picture<'_>, colour: bool, width: usize) -> Vec<String> {
    let mut lines = devices(picture, colour, width);
    let mut part = |heading: &str, table: Vec<String>| {
        lines.push(String::new());
        lines.push(paint(BOLD, heading, colour));
        lines.extend(table);
    };
    part("Regions and zones", tiers(picture, colour));
    part("Partitions, by how many of these their replicas are in", apart(picture, colour));
    lines
}

fn devices(picture: &Picture<'_>, colour: bool, width: usize) -> Vec<String> {
    // Only so wide that a line fits: first by cutting places, in the middle, for both ends tell devices apart; where little
    // would be left of them, the bars go instead.
    let length =
        |figures: &DeviceFigures<'_>| cut_middle(&place(figures.device), PLACE_LIMIT).chars().count();
    let longest = picture.devices.iter().map(length).max().unwrap_or(0);
    let fitting = |bars| {
        let whole = devices_within(picture, colour, PLACE_LIMIT, bars);
        let widest = whole.iter().map(|line| visible(line)).max().unwrap_or(0);
        (longest.saturating_sub(widest.saturating_sub(width)), whole)
    };
    let (room, whole) = fitting(true);
    if room == longest {
        return whole;
    }
    if room >= PLACE_ENOUGH {
        return devices_within(picture, colour, room, true);
    }
    let (room, whole) = fitting(false);
    if room == longest { whole } else { devices_within(picture, colour, room.max(PLACE_LEAST), false) }
}

fn devices_within(picture: &Picture<'_>, colour: bool, place_width: usize, bars: bool) -> Vec<String> {
    let balances = picture.devices.iter().map(|figures| figures.balance.abs());
    let worst = balances.filter(|balance| *balance < WORST_BALANCE).fold(1.0, f64::max).min(100.0).ceil();
    let heading = {
        let mut names =
            vec![Cell::right("id"), Cell::left("device"), Cell::right("weight"), Cell::right("parts")];
        names.extend(["share", "wanted", "balance"].map(Cell::right));
        names.extend(bars.then(|| {
            Cell::left(format!("{:<BAR_SIDE$}|{:>BAR_SIDE$}", format!("-{worst}%"), format!("{worst}%")))
        }));
        names.extend((!picture.is_small()).then(|| Cell::right("peers")));
        names.extend(picture.moves.iter().flat_map(|_| ["got", "gave"].map(Cell::right)));
        names
    };
    let line = |figures: &DeviceFigures<'_>| {
        let DeviceFigures { device, parts, wanted, balance, .. } = figures;
        // The next rebalance removes it; until then it has no weight.
        let weight = if figures.is_marked { "removal".to_owned() } else { device.weight.to_string() };
        let swatch = picture.palette.colour(device.id).escape();
        let mut cells = vec![
            Cell::right(format!(" {} ", device.id)).code(swatch),
            Cell::left(cut_middle(&place(device), place_width)),
            Cell::right(weight),
            Cell::right(thousands(*parts)),
            Cell::right(format!("{:.2}%", picture.share(*parts))),
            Cell::right(wanted.map_or("-".to_owned(), fraction)),
            Cell::right(balance_text(*balance)),
        ];
        let code = if *balance > 0.0 { OVER } else { UNDER };
        cells.extend(bars.then(|| Cell::left(bar(*balance, worst)).code(code)));
        cells.extend((!picture.is_small()).then(|| Cell::right(figures.peers.to_string())));
        cells.extend(came_and_went(picture, figures.got, figures.gave));
        cells
    };
    let rows: Vec<_> = std::iter::once(heading).chain(picture.devices.iter().map(line)).collect();
    columns(&rows, colour)
}

fn tiers(picture: &Picture<'_>, colour: bool) -> Vec<String> {
    let heading = {
        let mut names = vec![Cell::left("tier")];
        names.extend(["devices", "weight", "parts", "share", "wanted"].map(Cell::right));
        names.extend(picture.moves.iter().flat_map(|_| ["got", "gave"].map(Cell::right)));
        names
    };
    let line = |figures: &TierFigures| {
        let indent = "  ".repeat(figures.tier.depth() - 1);
        let mut cells = vec![
            Cell::left(format!("{indent}{}", figures.tier)),
            Cell::right(thousands(figures.devices as u64)),
            Cell::right(fraction(figures.weight)),
            Cell::right(thousands(figures.parts)),
            Cell::right(format!("{:.2}%", picture.share(figures.parts))),
            Cell::right(figures.wanted.map_or("-".to_owned(), fraction)),
        ];
        cells.extend(came_and_went(picture, figures.got, figures.gave));
        cells
    };
    let rows: Vec<_> = std::iter::once(heading).chain(picture.tiers.iter().map(line)).collect();
    columns(&rows, colour)
}

fn apart(picture: &Picture<'_>, colour: bool) -> Vec<String> {
    // Columns that are empty in every line say nothing.
    let counts = |at: &usize| picture.apart.iter().any(|counts| counts[*at] > 0);
    let shown: Vec<usize> = (0..picture.apart[0].len()).filter(counts).take(APART_SHOWN).collect();
    let mut heading = vec![Cell::left("")];
    heading.extend(shown.iter().map(|at| Cell::right(at.to_string())));
    let line = |(name, counts): (&str, &Vec<u64>)| {
        let mut cells = vec![Cell::left(name)];
        cells.extend(shown.iter().map(|&at| match counts[at] {
            0 => Cell::right("-"),
            count => Cell::right(thousands(count)),
        }));
        cells
    };
    let lines = LEVEL_NAMES.into_iter().zip(&picture.apart).map(line);
    columns(&std::iter::once(heading).chain(lines).collect::<Vec<_>>(), colour)
}

/// How many columns of a terminal a line takes.
fn visible(line: &str) -> usize {
    let mut parts = line.split('\x1b');
    let plain = parts.next().map_or(0, |text| text.chars().count());
    plain + parts.map(|text| text.split_once('m').map_or(0, |(_, text)| text.chars().count())).sum::<usize>()
}

/// Percent with a sign, as in `+4.17%`.
pub fn balance_text(balance: f64) -> String {
    let text = format!("{balance:+.2}%");
    if text == "-0.00%" { "+0.00%".to_owned() } else { text }
}

/// Below its share to the left, above to the right; `worst` fills a side.
fn bar(balance: f64, worst: f64) -> String {
    let length = (balance.abs() / worst * BAR_SIDE as f64).round().min(BAR_SIDE as f64) as usize;
    let (below, above) = if balance < 0.0 { (length, 0) } else { (0, length) };
    format!("{:>BAR_SIDE$}|{}", "=".repeat(below), "=".repeat(above))
}

/// Where an earlier assignment is known, how many replicas came and how many went.
fn came_and_went(picture: &Picture<'_>, got: u64, gave: u64) -> impl Iterator<Item = Cell> {
    picture.moves.iter().flat_map(move |_| [Cell::right(signed('+', got)), Cell::right(signed('-', gave))])
}

/// How many replicas came or went; nothing for none.
pub fn signed(sign: char, count: u64) -> String {
    if count == 0 { "-".to_owned() } else { format!("{sign}{}", thousands(count)) }
}

const LEVEL_NAMES: [&str; LEVELS] = ["regions", "zones", "servers", "devices"];

const BAR_SIDE: usize = 5;
const OVER: &str = "31";
const UNDER: &str = "34";
/// More of a place is hardly ever seen.
const PLACE_LIMIT: usize = 48;
/// So much shows an address, and the device on it.
const PLACE_ENOUGH: usize = 28;
/// Less of it says nothing.
const PLACE_LEAST: usize = 16;
/// Partitions with more replicas than this are not what this is for.
const APART_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::{devices, rebalanced, swapped};

    #[test]
    fn a_small_ring_has_its_figures() {
        let mut builder = rebalanced(5, 3.0, &devices(4, 1));
        builder.remove(crate::ring::DeviceId(3)).expect("it is there");
        let picture = Picture::new(&builder, None).expect("it is rebalanced");
        let lines = summary(&picture, false, 100);
        println!("{}", lines.join("\n"));
        assert_eq!(
            lines[0],
            " id  device                    weight  parts   share  wanted   balance  -25% |  25%"
        );
        assert_eq!(
            lines[1],
            " 0   r1z1-10.0.1.1:6201/sdb1      100     24  25.00%      32   -25.00%  =====|"
        );
        assert!(
            lines[4].contains("  removal  ") && lines[4].ends_with("  +999.99%       |====="),
            "{}",
            lines[4]
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 100));
        assert!(
            lines.contains(&"regions  32   -".to_owned()) && lines.contains(&"zones     -  32".to_owned())
        );
    }

    #[test]
    fn a_large_ring_says_who_got_and_gave_and_fits_the_width() {
        let mut devices = devices(5, 14);
        devices[7].name = "n".repeat(300);
        devices[8].ip = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".to_owned();
        let builder = rebalanced(12, 3.0, &devices);
        let before = swapped(&builder, 1000);
        let picture = Picture::new(&builder, Some(&before)).expect("it is rebalanced");
        let lines = summary(&picture, false, 120);
        println!("{}", lines.join("\n"));
        assert!(lines[0].ends_with("  peers  got  gave"), "{}", lines[0]);
        assert!(lines.iter().all(|line| line.chars().count() <= 120));
        assert!(lines[8].contains(" ... nnn"), "{}", lines[8]);
        assert!(lines[1].contains("  -9"), "{}", lines[1]);
        let coloured = summary(&picture, true, 120);
        assert!(coloured.iter().all(|line| visible(line) <= 120) && coloured[8].contains("\x1b[48;5;"));
    }

    #[test]
    fn where_there_is_little_room_bars_go_before_places() {
        let mut devices = devices(4, 1);
        devices[1].ip = "127.100.100.100".to_owned();
        let builder = rebalanced(5, 3.0, &devices);
        let picture = Picture::new(&builder, builder.rows()).expect("it is rebalanced");
        for (width, bars, cut) in [(100, true, false), (86, false, false), (74, false, true)] {
            let lines = super::devices(&picture, false, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{}", lines.join("\n"));
            assert_eq!(
                (lines[2].contains('|'), lines[2].contains(" ... ")),
                (bars, cut),
                "{}",
                lines.join("\n")
            );
        }
    }

    #[test]
    fn bars_grow_to_their_side_and_no_further() {
        assert_eq!(bar(0.0, 5.0), "     |");
        assert_eq!(bar(-5.0, 5.0), "=====|");
        assert_eq!(bar(3.0, 5.0), "     |===");
        assert_eq!(bar(WORST_BALANCE, 5.0), "     |=====");
        assert_eq!((balance_text(-0.001), balance_text(4.169)), ("+0.00%".to_owned(), "+4.17%".to_owned()));
    }
}
