//! `agent ring`: rings made, changed and shown, in the grammar of `swift-ring-builder`.
//!
//! An operator's habits and scripts carry over: the same commands and options, the same exit codes, and on standard output
//! the same lines and tables, wherever they tell a result. What keeps a command from doing its work goes to standard error,
//! in our words.
//!
//! A command line becomes a [`Command`] ([`grammar`], [`device_options`], [`words`], [`usage`]); whoever writes takes the lock and only then
//! reads the builder ([`files`]); the command changes the builder in memory and says what it did ([`devices`],
//! [`rebalance`], [`settings`], [`report`]); then the builder is saved, and what was said is printed ([`talk`]).
//!
//! Other than Swift's tool we ask before `create` replaces a builder, and refuse to write a ring in which nothing is assigned:
//! both end in a ring that no daemon can use.

pub(super) mod columns;
pub mod device_options;
pub mod devices;
pub mod files;
pub mod grammar;
pub mod moves;
mod palette;
mod picture;
pub mod rebalance;
pub mod report;
pub mod settings;
pub mod show;
mod summary;
mod svg;
pub mod table;
pub mod talk;
#[cfg(test)]
mod testing;
pub mod usage;
pub mod words;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use self::files::{Holder, Names};
use self::grammar::Command;
use self::talk::Talk;
use self::usage::Usage;
use super::{Exit, RingOptions, complain};
use crate::drive::DriveError;
use crate::ring::builder::{Builder, BuilderFault};
use crate::ring::builder_file::BuilderFileError;
use crate::ring::{RingError, RingFault};

/// Does what the command line says.
pub fn ring(options: &RingOptions) -> Exit {
    let command = match Command::parse(&options.words) {
        Ok(command) => command,
        Err(fault) => return complain(fault),
    };
    let names = Names::of(&options.builder);
    let mut talk = Talk::default();
    let of_the_ring = matches!(command, Command::WriteBuilder { .. } | Command::Version | Command::Help(_));
    if names.builder != options.builder && !of_the_ring {
        let (builder, given) = (names.builder.display(), options.builder.display());
        talk.say(format!("Note: using {builder} instead of {given} as builder file"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match run(command, &names, now, &mut talk) {
        Ok(exit) => {
            talk.flush();
            exit
        }
        Err(refusal) => complain(refusal),
    }
}

fn run(command: Command, names: &Names, now_secs: u64, talk: &mut Talk) -> Result<Exit, Refusal> {
    let _alone = if command.writes() { names.lock()? } else { Vec::new() };
    match command {
        Command::Help(name) => {
            let usage = Usage::of(name).expect("the grammar took it from there");
            talk.say(usage.help().trim_end());
            return Ok(Exit::Clean);
        }
        Command::Version => return settings::version(names, talk),
        Command::WriteBuilder { min_part_hours } => {
            return settings::write_builder(names, min_part_hours, talk);
        }
        Command::Create { part_power, replicas, min_part_hours, yes } => {
            let builder = Builder::new(part_power, replicas, min_part_hours)?;
            return settings::create(names, builder, yes, now_secs, talk);
        }
        _ => {}
    }
    let mut builder = Builder::load(&names.builder)?;
    let next = carry_out(command, &mut builder, names, now_secs, talk)?;
    if let Next::Save(_) = next {
        builder.save(&names.builder)?;
    }
    let (Next::Save(exit) | Next::Leave(exit)) = next;
    Ok(exit)
}

/// A command on a builder that there is.
fn carry_out(
    command: Command,
    builder: &mut Builder,
    names: &Names,
    now_secs: u64,
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    match command {
        Command::Summary => {
            talk.say(report::summary(builder, names, now_secs));
            Ok(Next::Leave(Exit::Clean))
        }
        Command::Add { devices, without_region } => devices::add(builder, devices, &without_region, talk),
        Command::Search(search) => Ok(devices::search(builder, &search, talk)),
        Command::ListParts(searches) => match builder.rows() {
            Some(_) => Ok(devices::list_parts(builder, &searches, talk)),
            None => Ok(not_rebalanced(names, talk)),
        },
        Command::Change { changes, yes } => devices::change(builder, &changes, yes, talk),
        Command::Remove { searches, yes } => devices::remove(builder, &searches, yes, talk),
        Command::Rebalance(options) => {
            rebalance::rebalance(names, builder, &options, now_secs, talk).map(Next::Leave)
        }
        Command::Validate => {
            builder.validate()?;
            Ok(Next::Leave(Exit::Clean))
        }
        Command::Dispersion { filter, verbose, recalculate } => match builder.rows() {
            Some(_) => settings::dispersion(builder, filter.as_deref(), verbose, recalculate, talk),
            None => Ok(not_rebalanced(names, talk)),
        },
        Command::SetReplicas(replicas) => settings::set_replicas(builder, replicas, talk),
        Command::SetOverload { overload, percent } => {
            settings::set_overload(builder, overload, percent, talk)
        }
        Command::SetMinPartHours(hours) => Ok(settings::set_min_part_hours(builder, hours, talk)),
        Command::PretendMinPartHoursPassed { yes } => Ok(settings::pretend(builder, yes, now_secs, talk)),
        Command::WriteRing { version, id_width } => {
            settings::write_ring(names, builder, version, id_width, now_secs, talk).map(Next::Leave)
        }
        Command::Show(words) => {
            talk.flush();
            Ok(Next::Leave(show::show(builder, &words)))
        }
        Command::Help(_) | Command::Version | Command::Create { .. } | Command::WriteBuilder { .. } => {
            unreachable!("these need no builder")
        }
    }
}

fn not_rebalanced(names: &Names, talk: &mut Talk) -> Next {
    let builder = names.builder.display();
    talk.say(format!("Specified builder file \"{builder}\" is not rebalanced yet. Please rebalance first."));
    Next::Leave(Exit::Usage)
}

/// What becomes of the builder after a command, and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It was changed.
    Save(Exit),
    /// It was not, or is to stay as it was on disk.
    Leave(Exit),
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Refusal {
    /// The builder's file.
    File(BuilderFileError),
    /// What the builder says to it.
    Builder(BuilderFault),
    /// The ring's file.
    Ring(RingError),
    /// The ring's file, after the builder that it should follow was saved.
    RingBehind(RingError),
    /// Somebody else is writing.
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who that is, as far as can be seen.
        holder: Option<Holder>,
    },
    /// The lock cannot be taken for another reason.
    Lock(DriveError),
    /// A directory that cannot be used.
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Partitions are about to be split.
    Splitting,
    /// No such regular expression.
    Filter(regex_lite::Error),
    /// There is no randomness to be had.
    NoChance(String),
}

impl From<BuilderFileError> for Refusal {
    fn from(error: BuilderFileError) -> Refusal {
        Refusal::File(error)
    }
}

impl From<BuilderFault> for Refusal {
    fn from(fault: BuilderFault) -> Refusal {
        Refusal::Builder(fault)
    }
}

impl From<RingError> for Refusal {
    fn from(error: RingError) -> Refusal {
        Refusal::Ring(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::File(error) => error.fmt(f),
            Refusal::Builder(BuilderFault::Ring(RingFault::WideIds)) => {
                f.write_str("ids are too wide for this format; --format-version 2 has room for them")
            }
            Refusal::Builder(fault) => fault.fmt(f),
            Refusal::Ring(error) => error.fmt(f),
            Refusal::RingBehind(error) => {
                write!(f, "{error}; the builder is rebalanced and saved, `write_ring` writes the ring again")
            }
            Refusal::Locked { path, holder: Some(holder) } => {
                write!(f, "{} is locked by {holder}; try again when it is done", path.display())
            }
            Refusal::Locked { path, holder: None } => {
                write!(f, "{} is locked by another ring builder; try again when it is done", path.display())
            }
            Refusal::Lock(error) => error.fmt(f),
            Refusal::Unusable { path, error } => write!(f, "{}: {error}", path.display()),
            Refusal::Splitting => f.write_str(
                "partitions are being split; swift-ring-builder finishes that, before devices may come, go or be moved to",
            ),
            Refusal::Filter(error) => write!(f, "dispersion: {error}"),
            Refusal::NoChance(error) => write!(f, "no random seed: {error}; give one with --seed"),
        }
    }
}

impl std::error::Error for Refusal {}
