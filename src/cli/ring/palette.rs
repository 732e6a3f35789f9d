//! A colour for each device, such that it says something: devices of one zone are of one hue, darker and lighter.
//!
//! A device keeps its colour when others with higher ids come, so that pictures of a ring before and after a change can be
//! held side by side. Colours are chosen in OKLCH, where equal steps look equal, and rounded to the 256 that terminals have.
//! No two devices of a small ring share one. What is written on a colour is black or white, whichever is read better.

use std::collections::{BTreeMap, BTreeSet};

use crate::ring::{Device, DeviceId};

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// The colour of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// For pictures.
    pub rgb: Rgb,
    /// For terminals: a number from their palette of 256.
    pub ansi: u8,
}

impl Colour {
    /// Whether black is to be written on it in a picture, not white.
    pub fn takes_black(self) -> bool {
        luminance(self.rgb) > MIDDLE_LUMINANCE
    }

    /// The escape codes of a cell in a terminal: its background, and black or white on it.
    pub fn escape(self) -> String {
        let ink = if luminance(ansi_rgb(self.ansi)) > MIDDLE_LUMINANCE { BLACK } else { WHITE };
        format!("48;5;{};38;5;{ink}", self.ansi)
    }
}

/// The colours of a ring's devices.
#[derive(Debug, Clone, Default)]
pub struct Palette {
    colours: BTreeMap<DeviceId, Colour>,
}

impl Palette {
    /// Colours for some devices, in any order.
    pub fn new<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Palette {
        let devices: BTreeMap<DeviceId, &Device> =
            devices.into_iter().map(|device| (device.id, device)).collect();
        let zone = |device: &Device| (device.region, device.zone);
        let zones: BTreeSet<_> = devices.values().map(|device| zone(device)).collect();
        // Where all are in one zone, hues have nothing to say about zones.
        let family = |device: &Device| match zones.len() {
            1 => (device.id.0.into(), 0),
            _ => zone(device),
        };
        let mut families: Vec<(i64, i64)> = Vec::new();
        let mut members: Vec<u32> = Vec::new();
        let mut taken = BTreeSet::new();
        let mut colours = BTreeMap::new();
        for device in devices.values() {
            let known = families.iter().position(|known| *known == family(device));
            let place = known.unwrap_or_else(|| {
                families.push(family(device));
                members.push(0);
                families.len() - 1
            });
            let rgb = shade(place as u32, members[place]);
            members[place] += 1;
            let ansi = nearest(rgb, &taken);
            taken.insert(ansi);
            colours.insert(device.id, Colour { rgb, ansi });
        }
        Palette { colours }
    }

    /// The colour of a device; grey for one that is not there.
    pub fn colour(&self, id: DeviceId) -> Colour {
        self.colours.get(&id).copied().unwrap_or(UNKNOWN)
    }
}

/// The colour of the `member`th device of the `family`th zone.
fn shade(family: u32, member: u32) -> Rgb {
    // A family's hue is as far from those before it as can be, and no later family changes it.
    let hue = FIRST_HUE + GOLDEN_ANGLE * f64::from(family) + HUE_SPAN * radical_inverse(member, 3);
    let darker = 0.12 * f64::from(family / HUES % 3);
    let lightness = 0.80 - darker - LIGHTNESS_SPAN * radical_inverse(member, 2);
    oklch(lightness, 0.125, hue)
}

/// The digits of a number mirrored at the point: 0, 1/2, 1/4, 3/4, 1/8 … in base 2. Each new one is far from those before.
fn radical_inverse(mut number: u32, base: u32) -> f64 {
    let (mut inverse, mut digit) = (0.0, 1.0 / f64::from(base));
    while number > 0 {
        inverse += f64::from(number % base) * digit;
        number /= base;
        digit /= f64::from(base);
    }
    inverse
}

/// Björn Ottosson's OKLCH to sRGB. What no screen can show is clipped.
fn oklch(lightness: f64, chroma: f64, hue_degrees: f64) -> Rgb {
    let (sine, cosine) = hue_degrees.to_radians().sin_cos();
    let (a, b) = (chroma * cosine, chroma * sine);
    let long = (lightness + 0.3963377774 * a + 0.2158037573 * b).powi(3);
    let medium = (lightness - 0.1055613458 * a - 0.0638541728 * b).powi(3);
    let short = (lightness - 0.0894841775 * a - 1.2914855480 * b).powi(3);
    let linear = [
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    ];
    linear.map(|light: f64| {
        let light = light.clamp(0.0, 1.0);
        let level = if light <= 0.0031308 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
        (level * 255.0).round() as u8
    })
}

/// Relative luminance as WCAG defines it, 0 to 1.
fn luminance(rgb: Rgb) -> f64 {
    let [red, green, blue] = rgb.map(|level| {
        let level = f64::from(level) / 255.0;
        if level <= 0.04045 { level / 12.92 } else { ((level + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// The colour of the terminal's cube that is nearest, and not taken unless all are.
fn nearest(rgb: Rgb, taken: &BTreeSet<u8>) -> u8 {
    let distance = |ansi: &u8| -> i64 {
        let differences = ansi_rgb(*ansi).into_iter().zip(rgb).map(|(a, b)| i64::from(a) - i64::from(b));
        // The eye sees differences of green best, of blue least.
        differences.zip([3, 6, 1]).map(|(difference, weight)| weight * difference * difference).sum()
    };
    let free = (CUBE_START..=CUBE_END).filter(|ansi| !taken.contains(ansi)).min_by_key(distance);
    free.unwrap_or_else(|| (CUBE_START..=CUBE_END).min_by_key(distance).unwrap_or(CUBE_START))
}

/// The cube of 6 by 6 by 6 colours in the palette of terminals.
fn ansi_rgb(ansi: u8) -> Rgb {
    let place = ansi.saturating_sub(CUBE_START);
    [place / 36, place / 6 % 6, place % 6].map(|level| CUBE_LEVELS[usize::from(level)])
}

/// Black and white contrast equally with this: both 4.6 to 1.
const MIDDLE_LUMINANCE: f64 = 0.179;

const FIRST_HUE: f64 = 250.0;
/// Multiples of it are spread over the circle as evenly as any number of them can be.
const GOLDEN_ANGLE: f64 = 137.507_764;
/// After so many families hues come too near to those before, so that lightness has to tell them apart.
const HUES: u32 = 8;
/// How far devices of one zone differ.
const HUE_SPAN: f64 = 30.0;
const LIGHTNESS_SPAN: f64 = 0.36;

const CUBE_START: u8 = 16;
const CUBE_END: u8 = 231;
const CUBE_LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
const BLACK: u8 = 16;
const WHITE: u8 = 231;

/// A device that was, or that nobody knows.
const UNKNOWN: Colour = Colour { rgb: [148, 148, 148], ansi: 145 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ring::testing::devices;

    #[test]
    fn no_two_devices_of_a_small_ring_share_a_colour() {
        for (zones, each) in [(1, 1), (1, 70), (4, 1), (5, 14), (70, 1), (9, 20)] {
            let devices = devices(zones, each);
            let palette = Palette::new(&devices);
            let colours: BTreeSet<u8> = devices.iter().map(|device| palette.colour(device.id).ansi).collect();
            assert_eq!(colours.len(), devices.len(), "{zones} zones of {each}");
        }
        let many = Palette::new(&devices(100, 10));
        assert_eq!(many.colours.len(), 1000, "there are not as many colours, but each has one");
    }

    #[test]
    fn what_is_written_on_a_colour_can_be_read() {
        let contrast = |rgb: Rgb, black: bool| {
            let light = luminance(rgb);
            if black { (light + 0.05) / 0.05 } else { 1.05 / (light + 0.05) }
        };
        for ansi in CUBE_START..=CUBE_END {
            let rgb = ansi_rgb(ansi);
            let colour = Colour { rgb, ansi };
            let black = colour.escape().ends_with(";16");
            assert_eq!(black, colour.takes_black());
            assert!(contrast(rgb, black) >= 4.5, "{ansi}: {}", contrast(rgb, black));
        }
    }

    #[test]
    fn a_device_that_comes_changes_no_colour() {
        let mut devices = devices(4, 1);
        let before = Palette::new(&devices);
        let mut fifth = devices[0].clone();
        fifth.id = DeviceId(4);
        devices.push(fifth);
        let after = Palette::new(&devices);
        (0..4).map(DeviceId).for_each(|id| assert_eq!(before.colour(id), after.colour(id)));
        assert_ne!(after.colour(DeviceId(4)), after.colour(DeviceId(0)), "of one zone, yet another colour");
        // Which of red, green and blue is strongest, and which comes next, is a matter of hue.
        let hue = |id| {
            let mut channels = [0, 1, 2];
            channels.sort_by_key(|&channel: &usize| after.colour(DeviceId(id)).rgb[channel]);
            channels
        };
        assert_eq!(hue(4), hue(0), "of one zone, and of one hue");
        assert!((1..4).all(|other| hue(other) != hue(0)));
        assert_eq!(after.colour(DeviceId(9)), UNKNOWN);
    }

    #[test]
    fn known_colours_come_out_right() {
        assert_eq!(oklch(1.0, 0.0, 0.0), [255, 255, 255]);
        assert_eq!(oklch(0.0, 0.0, 0.0), [0, 0, 0]);
        assert_eq!(oklch(0.6279554, 0.2576833, 29.2338812), [255, 0, 0]);
        assert_eq!((ansi_rgb(16), ansi_rgb(231), ansi_rgb(208)), ([0, 0, 0], [255; 3], [255, 135, 0]));
        assert!((luminance([255; 3]) - 1.0).abs() < 1e-9);
    }
}
