//! `agent ring B show`: which device holds which replica of which partition, and what changed since an earlier ring.
//!
//! A small ring is shown whole, as a table; of a large one there are figures. With `--svg` the same becomes a picture.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use super::columns::{BOLD, paint, wrapped};
use super::picture::{Picture, place};
use super::summary::summary;
use super::svg;
use super::table::assignment_table;
use crate::cli::{Exit, complain, print, refuse};
use crate::hash_path::Partition;
use crate::report::terminal;
use crate::report::text::{size, thousands};
use crate::ring::builder::{Builder, BuilderFault};
use crate::ring::builder_file::BuilderFileError;
use crate::ring::{self, Device, DeviceId, Ring, RingError};

/// Shows what the words behind `show` ask for.
pub fn show(builder: &Builder, words: &[String]) -> Exit {
    let options = match Words::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => return refuse(&error),
    };
    match shown(builder, &options) {
        Ok(text) => {
            print(&text);
            Exit::Clean
        }
        Err(error) => complain(error),
    }
}

/// The command line behind the builder.
#[derive(Debug, Parser)]
#[command(name = "show", bin_name = "agent ring BUILDER show", no_binary_name = true, about = ABOUT)]
struct Words {
    /// Draw it into this file instead
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Mark what moved since then: an older ring, a builder, or a backup of one
    #[arg(long, value_name = "OLD")]
    before: Option<PathBuf>,
    /// Whether to colour the text
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    color: When,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Even into a file.
    Always,
    /// Not even on a terminal.
    Never,
}

/// An earlier ring.
struct Earlier {
    rows: Vec<Vec<DeviceId>>,
    devices: Vec<Device>,
}

fn shown(builder: &Builder, options: &Words) -> Result<String, ShowError> {
    let earlier = options.before.as_deref().map(|path| read(path, builder)).transpose()?;
    let rows = earlier.as_ref().map(|earlier| earlier.rows.as_slice());
    let picture = Picture::new(builder, rows).ok_or(ShowError::NotRebalanced)?;
    if let Some(path) = &options.svg {
        let picture = svg::draw(&picture);
        ring::replace(path, picture.as_bytes(), None)
            .map_err(|error| ShowError::Unwritable(path.clone(), error))?;
        return Ok(format!("{}: {}\n", path.display(), size(picture.len() as u64)));
    }
    let stdout = io::stdout();
    let colour = match options.color {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal::wants_colour(&stdout),
    };
    let width = terminal::width(&stdout).unwrap_or(DEFAULT_WIDTH);
    Ok(text(&picture, earlier.as_ref(), colour, width))
}

fn text(picture: &Picture<'_>, earlier: Option<&Earlier>, colour: bool, width: usize) -> String {
    let headline = wrapped(&picture.headline(), width);
    let mut lines: Vec<String> = headline.iter().map(|line| paint(BOLD, line, colour)).collect();
    if picture.is_outdated {
        lines.push("Devices were changed since; the next rebalance will move replicas.".to_owned());
    }
    if let Some(moves) = &picture.moves {
        lines.push(format!(
            "{} of {} replicas are elsewhere than before ({:.2}%), in {} of {} partitions.",
            thousands(moves.moved),
            thousands(moves.replicas),
            picture.share(moves.moved),
            thousands(moves.partitions),
            thousands(picture.partitions as u64)
        ));
        lines.extend(earlier.into_iter().flat_map(|earlier| others(picture, earlier)));
    }
    lines.push(String::new());
    if picture.is_small() {
        let devices = picture.devices.iter().map(|figures| figures.device);
        lines.extend(assignment_table(devices, picture.rows, picture.before, colour, width));
        lines.push(String::new());
    }
    lines.extend(summary(picture, colour, width));
    lines.join("\n") + "\n"
}

/// Ids that stood for another device before: what is said to have stayed on them moved, or the device got another name.
fn others(picture: &Picture<'_>, earlier: &Earlier) -> Vec<String> {
    let now = |id| picture.devices.iter().map(|figures| figures.device).find(|device| device.id == id);
    let gone_or_other = |old: &&Device| match now(old.id) {
        Some(new) => (&new.ip, new.port, &new.name) != (&old.ip, old.port, &old.name),
        None => earlier.rows.iter().any(|row| row.contains(&old.id)),
    };
    let strangers: Vec<&Device> = earlier.devices.iter().filter(gone_or_other).collect();
    let shown = strangers.iter().take(STRANGERS_SHOWN).map(|old| {
        let today = if now(old.id).is_some() { "" } else { ", and is gone" };
        format!("Device {} was {}{today}.", old.id, place(old))
    });
    let mut lines: Vec<String> = shown.collect();
    if let more @ 1.. = strangers.len().saturating_sub(STRANGERS_SHOWN) {
        lines.push(format!("And {more} more devices were others."));
    }
    lines
}

/// Reads an earlier ring of the same partitions.
fn read(path: &Path, builder: &Builder) -> Result<Earlier, ShowError> {
    let unreadable = |error| ShowError::Unreadable(path.to_owned(), error);
    let mut mark = Vec::new();
    File::open(path).and_then(|file| file.take(2).read_to_end(&mut mark)).map_err(unreadable)?;
    let earlier = match mark == GZIP_MARK {
        true => of_ring(&Ring::load(path).map_err(ShowError::Ring)?),
        false => of_builder(Builder::load(path).map_err(ShowError::Builder)?)
            .ok_or_else(|| ShowError::Empty(path.to_owned()))?,
    };
    let partitions = earlier.rows.first().map_or(0, Vec::len);
    match partitions == builder.partitions() as usize {
        true => Ok(earlier),
        false => Err(ShowError::OtherPartitions { path: path.to_owned(), partitions }),
    }
}

fn of_ring(ring: &Ring) -> Earlier {
    let assignments = &ring.data().assignments;
    let row = |row| {
        let partitions = (0..ring.partition_count()).map(Partition);
        partitions.map_while(|partition| assignments.device(row, partition)).collect()
    };
    Earlier { rows: (0..assignments.rows()).map(row).collect(), devices: ring.devices().cloned().collect() }
}

/// `None` for one that was never rebalanced.
fn of_builder(builder: Builder) -> Option<Earlier> {
    Some(Earlier { rows: builder.rows()?.to_vec(), devices: builder.devices().cloned().collect() })
}

/// Why there is nothing to be seen.
#[derive(Debug)]
enum ShowError {
    /// No replica has a device yet.
    NotRebalanced,
    /// The earlier ring cannot be opened.
    Unreadable(PathBuf, io::Error),
    /// It is no sound ring file.
    Ring(RingError),
    /// It is neither a ring file nor a sound builder's.
    Builder(BuilderFileError),
    /// It is a builder that was never rebalanced.
    Empty(PathBuf),
    /// It has more or fewer partitions.
    OtherPartitions {
        /// The earlier ring.
        path: PathBuf,
        /// How many it has.
        partitions: usize,
    },
    /// The picture cannot be written.
    Unwritable(PathBuf, io::Error),
}

impl fmt::Display for ShowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShowError::NotRebalanced => BuilderFault::NotRebalanced.fmt(f),
            ShowError::Unreadable(path, error) | ShowError::Unwritable(path, error) => {
                write!(f, "{}: {error}", path.display())
            }
            ShowError::Builder(error) => error.fmt(f),
            ShowError::Empty(path) => write!(f, "{}: nothing was assigned there yet", path.display()),
            ShowError::Ring(error) => error.fmt(f),
            ShowError::OtherPartitions { path, partitions } => write!(
                f,
                "{}: it has {partitions} partitions, so nothing there can be compared with this ring",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ShowError {}

/// Where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 100;
const STRANGERS_SHOWN: usize = 5;
const GZIP_MARK: [u8; 2] = [0x1f, 0x8b];

const ABOUT: &str = "\
Show which device holds which replica of which partition: as a table where there
are at most 256 partitions and 128 devices, else as figures. With --svg as a
picture.";
