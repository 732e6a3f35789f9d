//! A ring as a picture: one SVG file that needs nothing else, no script, no font, no style sheet, and has a background of
//! its own, so that it looks the same wherever it is opened.
//!
//! A small ring is drawn replica by replica. Of a large one there is a bar for each device, parts against what it should
//! hold, under the zones they are in; and two strips, one that shows who has too much, one that shows where in the ring
//! replicas moved. However large the ring, the file stays below [`LIMIT_BYTES`].

use std::fmt::{Display, Write};

use super::columns::wrapped;
use super::palette::{Colour, Rgb};
use super::picture::{DeviceFigures, Picture, TierFigures, fraction, place};
use super::summary::{balance_text, signed};
use crate::report::text::{cut_middle, printable, thousands};
use crate::ring::DeviceId;
use crate::ring::moves::{Change, changes};
use crate::ring::placement::tiers::Tier;

/// Draws it.
pub fn draw(picture: &Picture<'_>) -> String {
    let mut canvas = Canvas::default();
    let width = if picture.is_small() { small(&mut canvas, picture) } else { large(&mut canvas, picture) };
    let height = canvas.bottom + MARGIN;
    debug_assert!(canvas.body.len() < LIMIT_BYTES, "bounds of what is drawn");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"{FONTS}\" xml:space=\"preserve\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{PAPER}\"/>\n{}</svg>\n",
        escaped(&picture.headline()),
        canvas.body
    )
}

/// Every replica, in blocks of partitions; then the devices. Returns the width.
fn small(canvas: &mut Canvas, picture: &Picture<'_>) -> u32 {
    let longest = |rows: &[Vec<DeviceId>]| rows.iter().map(Vec::len).max().unwrap_or(0);
    let before = picture.before.unwrap_or_default();
    let partitions = longest(picture.rows).max(longest(before));
    let replicas = picture.rows.len().max(before.len());
    let across = partitions.clamp(1, ACROSS);
    let width = (2 * MARGIN + LABELS + across as u32 * CELL_WIDTH).max(LEGEND_WIDTH);
    titles(canvas, picture, width);
    for first in (0..partitions).step_by(across) {
        let block = first..(first + across).min(partitions);
        canvas.bottom += 22;
        for (column, partition) in block.clone().enumerate() {
            let x = MARGIN + LABELS + column as u32 * CELL_WIDTH + CELL_WIDTH / 2;
            canvas.text((x, canvas.bottom - 5), Style { size: 10, fill: FAINT, ..MIDDLE }, partition);
        }
        let top = canvas.bottom;
        for replica in 0..replicas {
            let y = top + replica as u32 * CELL_HEIGHT + CELL_HEIGHT - 7;
            canvas.text((MARGIN, y), Style { size: 12, fill: FAINT, ..START }, format!("replica {replica}"));
        }
        for (column, partition) in block.enumerate() {
            let changes = picture.before.map_or_else(Vec::new, |old| changes(old, picture.rows, partition));
            for replica in 0..replicas {
                let x = MARGIN + LABELS + column as u32 * CELL_WIDTH;
                let y = top + replica as u32 * CELL_HEIGHT;
                let change = changes.iter().find(|change| change.replica == replica);
                cell(canvas, picture, (x, y), (replica, partition), change);
            }
        }
        canvas.bottom = top + replicas as u32 * CELL_HEIGHT;
    }
    if picture.before.is_some() {
        canvas.bottom += 22;
        let key = "Framed: elsewhere than before. The corner has the colour of the device it was on, \
                   grey if that is gone.";
        canvas.text((MARGIN, canvas.bottom), Style { size: 12, fill: FAINT, ..START }, key);
    }
    legend(canvas, picture);
    width
}

/// One replica of one partition.
fn cell(
    canvas: &mut Canvas,
    picture: &Picture<'_>,
    (x, y): (u32, u32),
    (replica, partition): (usize, usize),
    change: Option<&Change>,
) {
    let id = picture.rows.get(replica).and_then(|row| row.get(partition)).copied();
    if id.is_none() && change.is_none() {
        return;
    }
    let mut said = format!("partition {partition}, replica {replica}: ");
    said.push_str(&id.map_or("no more".to_owned(), |id| format!("device {id}")));
    if let Some(change) = change {
        said.push_str(&change.from.map_or(", new".to_owned(), |from| format!(", was on {from}")));
    }
    canvas.raw(format_args!("<g><title>{said}</title>"));
    let (width, height) = (CELL_WIDTH - 2, CELL_HEIGHT - 2);
    if let Some(id) = id {
        let colour = picture.palette.colour(id);
        canvas.rect((x + 1, y + 1, width, height), &hex(colour.rgb), "");
        let weight = if change.is_some() { "bold" } else { "normal" };
        let style = Style { size: 12, fill: ink(colour), weight, ..MIDDLE };
        canvas.text((x + CELL_WIDTH / 2, y + CELL_HEIGHT - 7), style, id);
    }
    if let Some(change) = change {
        canvas.rect((x + 2, y + 2, width - 2, height - 2), "none", FRAME);
        if let Some(from) = change.from {
            let fill = hex(picture.palette.colour(from).rgb);
            let (x, y) = (x + 1, y + 1);
            canvas.raw(format_args!(
                "<path d=\"M{x} {y}h{CORNER}l-{CORNER} {CORNER}z\" fill=\"{fill}\" stroke=\"{INK}\"/>"
            ));
        }
    }
    canvas.raw("</g>\n");
}

/// The devices of a small ring, with their colours.
fn legend(canvas: &mut Canvas, picture: &Picture<'_>) {
    let moved = picture.moves.is_some();
    let end = |x| (x, Style { size: 12, anchor: "end", ..START });
    let columns = [450, 520, 590, 660, 750, 810, 870].map(end);
    let shown = if moved { columns.len() } else { columns.len() - 2 };
    canvas.bottom += 36;
    let names = ["weight", "parts", "share", "wanted", "balance", "got", "gave"];
    let faint = |style: Style| Style { fill: FAINT, ..style };
    canvas.text((MARGIN + 40, canvas.bottom), faint(Style { size: 12, ..START }), "device");
    for ((x, style), name) in columns.into_iter().zip(names).take(shown) {
        canvas.text((x, canvas.bottom), faint(style), name);
    }
    for figures in &picture.devices {
        let DeviceFigures { device, parts, wanted, balance, got, gave, .. } = figures;
        canvas.bottom += LINE;
        let y = canvas.bottom;
        let colour = picture.palette.colour(device.id);
        canvas.rect((MARGIN, y - 14, 30, 18), &hex(colour.rgb), "");
        canvas.text((MARGIN + 15, y), Style { size: 12, fill: ink(colour), ..MIDDLE }, device.id);
        let place = place(device);
        canvas.text((MARGIN + 40, y), Style { size: 12, ..START }, cut_middle(&place, LEGEND_CHARS));
        let cells = [
            if figures.is_marked { "removal".to_owned() } else { device.weight.to_string() },
            thousands(*parts),
            format!("{:.2}%", picture.share(*parts)),
            wanted.map_or("-".to_owned(), fraction),
            balance_text(*balance),
            signed('+', *got),
            signed(MINUS, *gave),
        ];
        for ((x, style), text) in columns.into_iter().zip(cells).take(shown) {
            canvas.text((x, y), style, text);
        }
    }
}

/// Strips over the whole ring, and a bar for each device. Returns the width.
fn large(canvas: &mut Canvas, picture: &Picture<'_>) -> u32 {
    let bars = bars(picture);
    let columns = match bars.len() {
        ..=48 => 1,
        49..=120 => 2,
        121..=360 => 3,
        _ => 4,
    };
    let width = (2 * MARGIN + columns * COLUMN_WIDTH - COLUMN_GAP).max(LEGEND_WIDTH);
    titles(canvas, picture, width);
    for (name, counts) in ["regions", "zones", "servers", "devices"].into_iter().zip(&picture.apart) {
        canvas.bottom += 18;
        let some = counts.iter().enumerate().filter(|(_, count)| **count > 0).take(6);
        let said: Vec<String> =
            some.map(|(tiers, count)| format!("{} in {tiers}", thousands(*count))).collect();
        let line = format!("partitions, by {name} of their replicas: {}", said.join(", "));
        canvas.text((MARGIN, canvas.bottom), Style { size: 12, fill: FAINT, ..START }, line);
    }
    balance_strip(canvas, &bars, width - 2 * MARGIN);
    moved_strip(canvas, picture, width - 2 * MARGIN);

    canvas.bottom += 34;
    let mut key = "Bars: replicas held; the tick is what it should hold".to_owned();
    if picture.moves.is_some() {
        key.push_str("; framed: came since the earlier ring; hollow: went");
    }
    canvas.text((MARGIN, canvas.bottom), Style { size: 12, fill: FAINT, ..START }, key);
    let top = canvas.bottom + 8;
    let most = bars.iter().filter(|bar| !bar.is_heading).map(Bar::extent).fold(1.0, f64::max);
    let per_column = bars.len().div_ceil(columns as usize).max(1);
    for (number, bar) in bars.iter().enumerate() {
        let x = MARGIN + (number / per_column) as u32 * COLUMN_WIDTH;
        bar.draw(canvas, (x, top + (number % per_column) as u32 * LINE), most);
    }
    canvas.bottom = top + per_column as u32 * LINE;
    width
}

/// A device, or the zone that heads its devices; in the largest rings a zone for itself.
struct Bar {
    name: String,
    is_heading: bool,
    parts: u64,
    wanted: Option<f64>,
    /// Percent above its share, or below.
    balance: f64,
    got: u64,
    gave: u64,
    colour: Rgb,
}

/// Devices under their zones; zones only, where there are too many devices; and no more than can be drawn.
fn bars(picture: &Picture<'_>) -> Vec<Bar> {
    let by_device = picture.devices.len() <= DRAWN;
    let zones = picture.tiers.iter().filter(|figures| figures.tier.depth() == 2);
    let mut bars = Vec::new();
    for zone in zones.take(DRAWN) {
        let members = || {
            let within = |figures: &&DeviceFigures<'_>| Tier::of(figures.device)[1] == zone.tier;
            picture.devices.iter().filter(within)
        };
        let first = members().next().map_or(DeviceId(u32::MAX), |figures| figures.device.id);
        bars.push(Bar::of_zone(zone, picture.palette.colour(first).rgb, by_device));
        if by_device {
            bars.extend(members().map(|figures| Bar::of_device(figures, picture)));
        }
    }
    bars
}

impl Bar {
    fn of_zone(figures: &TierFigures, colour: Rgb, is_heading: bool) -> Bar {
        let TierFigures { tier, devices, parts, wanted, got, gave, .. } = figures;
        let balance = wanted.filter(|wanted| *wanted > 0.0).map(|wanted| *parts as f64 / wanted - 1.0);
        Bar {
            name: format!("{tier}, {devices} device{}", if *devices == 1 { "" } else { "s" }),
            is_heading,
            parts: *parts,
            wanted: *wanted,
            balance: 100.0 * balance.unwrap_or(0.0),
            got: *got,
            gave: *gave,
            colour,
        }
    }

    fn of_device(figures: &DeviceFigures<'_>, picture: &Picture<'_>) -> Bar {
        let DeviceFigures { device, parts, wanted, balance, got, gave, .. } = figures;
        Bar {
            name: format!("{} {}", device.id, place(device)),
            is_heading: false,
            parts: *parts,
            wanted: *wanted,
            balance: *balance,
            got: *got,
            gave: *gave,
            colour: picture.palette.colour(device.id).rgb,
        }
    }

    /// How far it reaches, what went included.
    fn extent(&self) -> f64 {
        self.wanted.unwrap_or(0.0).max((self.parts + self.gave) as f64)
    }

    fn draw(&self, canvas: &mut Canvas, (x, y): (u32, u32), most: f64) {
        let base = y + LINE - 6;
        let weight = if self.is_heading { "bold" } else { "normal" };
        let style = Style { size: 11, weight, ..START };
        canvas.text((x, base), style, cut_middle(&self.name, BAR_NAME_CHARS));
        let figures = [
            (50, thousands(self.parts)),
            (120, balance_text(self.balance)),
            (190, if self.got > 0 { signed('+', self.got) } else { String::new() }),
            (260, if self.gave > 0 { signed(MINUS, self.gave) } else { String::new() }),
        ];
        for (end, text) in figures.into_iter().filter(|(_, text)| !text.is_empty()) {
            canvas.text((x + BAR_START + BAR_WIDTH + end, base), Style { anchor: "end", ..style }, text);
        }
        if self.is_heading {
            return;
        }
        let length = |parts: f64| (parts / most * f64::from(BAR_WIDTH)).round() as u32;
        let start = x + BAR_START;
        let kept = length(self.parts.saturating_sub(self.got) as f64);
        let held = length(self.parts as f64);
        let once = length((self.parts + self.gave) as f64);
        canvas.rect((start, y + 3, kept, LINE - 7), &hex(self.colour), "");
        if held > kept {
            canvas.rect((start + kept, y + 3, held - kept, LINE - 7), &hex(self.colour), FRAME);
        }
        if once > held {
            canvas.rect((start + held, y + 3, once - held, LINE - 7), "none", HOLLOW);
        }
        if let Some(wanted) = self.wanted {
            canvas.rect((start + length(wanted), y + 1, 2, LINE - 3), TICK, "");
        }
    }
}

/// How far each is from its share: blue below, red above.
fn balance_strip(canvas: &mut Canvas, bars: &[Bar], width: u32) {
    let shown: Vec<&Bar> = bars.iter().filter(|bar| !bar.is_heading).collect();
    let worst = shown.iter().map(|bar| bar.balance.abs()).fold(0.0, f64::max).clamp(1.0, 100.0);
    let caption =
        format!("balance, device by device as below: blue {worst:.0}% too few, red {worst:.0}% too many");
    strip(canvas, width, &caption, shown.len(), |at| {
        let amount = shown[at].balance / worst;
        blend(if amount < 0.0 { [33, 102, 172] } else { [178, 24, 43] }, amount.abs())
    });
}

/// Where in the ring replicas moved.
fn moved_strip(canvas: &mut Canvas, picture: &Picture<'_>, width: u32) {
    let Some(before) = picture.before else { return };
    let buckets = picture.partitions.min(STRIP_CELLS);
    let mut moved = vec![0u64; buckets];
    for partition in 0..picture.partitions {
        let changes = changes(before, picture.rows, partition).len();
        moved[partition * buckets / picture.partitions] += changes as u64;
    }
    let most = moved.iter().copied().max().unwrap_or(0).max(1);
    let share = 100.0 * (most * buckets as u64) as f64 / picture.slots.max(1) as f64;
    let caption = format!("replicas that moved, from the first partition to the last: darkest {share:.1}%");
    strip(canvas, width, &caption, buckets, |at| blend([179, 88, 6], moved[at] as f64 / most as f64));
}

fn strip(canvas: &mut Canvas, width: u32, caption: &str, cells: usize, colour: impl Fn(usize) -> Rgb) {
    canvas.bottom += 30;
    canvas.text((MARGIN, canvas.bottom), Style { size: 12, fill: FAINT, ..START }, caption);
    canvas.bottom += 6;
    let edge = |at: usize| MARGIN + (width as usize * at / cells.max(1)) as u32;
    for at in 0..cells {
        let (left, right) = (edge(at), edge(at + 1));
        canvas.rect((left, canvas.bottom, right - left, 18), &hex(colour(at)), "");
    }
    canvas.rect((MARGIN, canvas.bottom, width, 18), "none", HOLLOW);
    canvas.bottom += 18;
}

/// What it is, and how good.
fn titles(canvas: &mut Canvas, picture: &Picture<'_>, width: u32) {
    let title = match picture.is_small() {
        true => "Which device holds which replica of which partition",
        false => "What each device holds of the ring",
    };
    canvas.text((MARGIN, 38), Style { size: 18, weight: "bold", ..START }, title);
    canvas.bottom = 60;
    let small = Style { size: 12, ..START };
    for line in wrapped(&picture.headline(), ((width - 2 * MARGIN) / 8) as usize) {
        canvas.text((MARGIN, canvas.bottom), small, line);
        canvas.bottom += 18;
    }
    if let Some(moves) = &picture.moves {
        let line = format!(
            "{} of {} replicas are elsewhere than before ({:.2}%), in {} of {} partitions",
            thousands(moves.moved),
            thousands(moves.replicas),
            picture.share(moves.moved),
            thousands(moves.partitions),
            thousands(picture.partitions as u64),
        );
        canvas.text((MARGIN, canvas.bottom), small, line);
        canvas.bottom += 18;
    }
    if picture.is_outdated {
        let line = "Devices were changed since; the next rebalance will move replicas.";
        canvas.text((MARGIN, canvas.bottom), small, line);
        canvas.bottom += 18;
    }
    canvas.bottom -= 10;
}

/// What was drawn so far, and how far down it reaches.
#[derive(Default)]
struct Canvas {
    body: String,
    bottom: u32,
}

/// How text is set.
#[derive(Clone, Copy)]
struct Style {
    size: u32,
    fill: &'static str,
    weight: &'static str,
    anchor: &'static str,
}

const START: Style = Style { size: 12, fill: INK, weight: "normal", anchor: "start" };
const MIDDLE: Style = Style { anchor: "middle", ..START };

impl Canvas {
    fn raw(&mut self, text: impl Display) {
        write!(self.body, "{text}").expect(INFALLIBLE);
    }

    fn rect(&mut self, (x, y, width, height): (u32, u32, u32, u32), fill: &str, more: &str) {
        self.raw(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"{more}/>\n"
        ));
    }

    fn text(&mut self, (x, y): (u32, u32), style: Style, text: impl Display) {
        let Style { size, fill, weight, anchor } = style;
        let mut more = String::new();
        if weight != "normal" {
            write!(more, " font-weight=\"{weight}\"").expect(INFALLIBLE);
        }
        if anchor != "start" {
            write!(more, " text-anchor=\"{anchor}\"").expect(INFALLIBLE);
        }
        let text = escaped(&text.to_string());
        self.raw(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{fill}\"{more}>{text}</text>\n"
        ));
    }
}

/// Text as XML may hold it: nothing that means something there, and none of the few characters it must not have.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            character => escaped.push(character),
        }
    }
    escaped
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A colour on paper, from nothing of it to all.
fn blend(colour: Rgb, amount: f64) -> Rgb {
    let amount = amount.clamp(0.0, 1.0);
    colour.map(|level| (255.0 + (f64::from(level) - 255.0) * amount).round() as u8)
}

fn ink(colour: Colour) -> &'static str {
    if colour.takes_black() { "#000" } else { "#fff" }
}

/// No picture is larger, whatever the ring.
pub const LIMIT_BYTES: usize = 2 << 20;

const MINUS: char = '\u{2212}';
const INFALLIBLE: &str = "a string takes whatever is written to it";
const FONTS: &str = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace";
const PAPER: &str = "#fcfcfa";
const INK: &str = "#1c1c1c";
const FAINT: &str = "#5c5c5c";
const TICK: &str = "#d01030";
const FRAME: &str = " stroke=\"#1c1c1c\" stroke-width=\"2\"";
const HOLLOW: &str = " stroke=\"#5c5c5c\"";

const MARGIN: u32 = 24;
const LINE: u32 = 20;
/// Room for the names of the replicas.
const LABELS: u32 = 84;
/// Partitions side by side.
const ACROSS: usize = 32;
const CELL_WIDTH: u32 = 28;
const CELL_HEIGHT: u32 = 24;
const CORNER: u32 = 11;
const LEGEND_WIDTH: u32 = 920;
const LEGEND_CHARS: usize = 42;

/// More bars than this would not be looked at one by one.
const DRAWN: usize = 1024;
const STRIP_CELLS: usize = 256;
const COLUMN_WIDTH: u32 = 740;
const COLUMN_GAP: u32 = 30;
const BAR_NAME_CHARS: usize = 36;
const BAR_START: u32 = 250;
const BAR_WIDTH: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::{devices, rebalanced, swapped};
    use roxmltree::Document;

    /// The picture of a ring, checked to be one document of shapes and text only.
    fn drawn(picture: &Picture<'_>) -> String {
        let svg = draw(picture);
        let document = Document::parse(&svg).expect("well-formed");
        for node in document.descendants().filter(|node| node.is_element()) {
            let name = node.tag_name().name();
            assert!(["svg", "title", "rect", "text", "g", "path"].contains(&name), "{name}");
            assert!(node.attributes().all(|attribute| !attribute.name().starts_with("on")));
        }
        assert!(!svg.contains("href") && svg.len() < LIMIT_BYTES, "{}", svg.len());
        svg
    }

    fn count(svg: &str, name: &str) -> usize {
        let document = Document::parse(svg).expect("well-formed");
        document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).count()
    }

    #[test]
    fn a_small_ring_has_a_cell_for_each_replica() {
        let builder = rebalanced(5, 2.5, &devices(4, 2));
        let picture = Picture::new(&builder, None).expect("it is rebalanced");
        let svg = drawn(&picture);
        assert_eq!(count(&svg, "g"), 80);
        assert_eq!(count(&svg, "path"), 0);
        assert!(svg.contains("partition 31, replica 1: device "), "{svg}");
        assert!(!svg.contains("partition 16, replica 2"), "the last row is short");
    }

    #[test]
    fn what_moved_is_framed_and_has_a_corner() {
        let builder = rebalanced(5, 3.0, &devices(5, 1));
        let before = swapped(&builder, 7);
        let svg = drawn(&Picture::new(&builder, Some(&before)).expect("it is rebalanced"));
        assert_eq!((count(&svg, "path"), svg.matches(FRAME).count()), (7, 7));
        assert_eq!(svg.matches(", was on ").count(), 7);
        assert!(svg.contains("7 of 96 replicas are elsewhere than before (7.29%), in 7 of 32 partitions"));
    }

    #[test]
    fn no_name_of_a_device_leaves_its_text() {
        let mut devices = devices(4, 1);
        devices[0].name = "</text><b>&".to_owned();
        devices[1].name = "\u{1b}]0;x\u{7}\u{0}\u{ffff}\u{fffe}".to_owned();
        devices[2].ip = "]]><!--".to_owned();
        for part_power in [5, 9] {
            let builder = rebalanced(part_power, 3.0, &devices);
            let svg = drawn(&Picture::new(&builder, None).expect("it is rebalanced"));
            assert!(svg.contains("&lt;/text&gt;&lt;b&gt;&amp;") && svg.contains("]]&gt;"), "{part_power}");
        }
    }

    #[test]
    fn however_large_the_ring_the_picture_is_bounded() {
        for (part_power, replicas, zones, each) in [
            (0, 1.0, 1, 1),
            (8, 16.0, 16, 8),
            (9, 3.0, 4, 1),
            (10, 3.0, 5, 14),
            (9, 3.0, 4, 128),
            (9, 3.0, 16, 64),
            (9, 3.0, 5, 205),
            (10, 3.0, 1000, 1),
            (10, 3.0, 1025, 1),
        ] {
            let builder = rebalanced(part_power, replicas, &devices(zones, each));
            let svg = drawn(&Picture::new(&builder, None).expect("it is rebalanced"));
            println!("2^{part_power} x {replicas}, {zones} x {each}: {} bytes", svg.len());
            if zones * each > replicas as u32 {
                let before = swapped(&builder, builder.partitions() as usize);
                drawn(&Picture::new(&builder, Some(&before)).expect("it is rebalanced"));
            }
        }
    }

    #[test]
    fn every_device_of_a_large_ring_has_its_bar() {
        let builder = rebalanced(10, 3.0, &devices(5, 14));
        let before = swapped(&builder, 100);
        let svg = drawn(&Picture::new(&builder, Some(&before)).expect("it is rebalanced"));
        assert_eq!(svg.matches(TICK).count(), 70);
        assert_eq!(svg.matches(" devices</text>").count(), 5, "a heading for each zone");
        assert!(svg.contains("replicas that moved"));
    }
}
