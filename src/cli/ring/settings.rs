//! Commands about the builder as a whole and its files: create, set_*, dispersion, version, write_ring, write_builder.

use regex_lite::Regex;

use super::files::Names;
use super::report::{self, TierLine};
use super::talk::Talk;
use super::{Next, Refusal};
use crate::cli::Exit;
use crate::ring::Ring;
use crate::ring::builder::Builder;
use crate::ring::format::{FormatVersion, IdWidth};
use crate::ring::placement::tiers::Tier;

/// Writes a new builder and its backup. Where Swift's tool silently replaces a builder that is there, we ask; a script that
/// means it says `--yes`.
///
/// # Errors
/// Files that cannot be written.
pub fn create(
    names: &Names,
    mut builder: Builder,
    yes: bool,
    now_secs: u64,
    talk: &mut Talk,
) -> Result<Exit, Refusal> {
    if names.builder.exists() && !yes {
        let question =
            format!("{} is there already. Replace it by an empty builder?", names.builder.display());
        if !talk.agrees(&question) {
            talk.say("The on-disk ring builder is unchanged.");
            return Ok(Exit::Usage);
        }
    }
    let backup = names.back_up(Some(&mut builder), None, now_secs)?;
    builder.save(&names.builder)?;
    backup.keep();
    Ok(Exit::Clean)
}

/// Changes the number of replicas.
///
/// # Errors
/// A number that there cannot be.
pub fn set_replicas(builder: &mut Builder, replicas: f64, talk: &mut Talk) -> Result<Next, Refusal> {
    if replicas < 1.0 {
        talk.say("Replica count must be at least 1.");
        return Ok(Next::Leave(Exit::Usage));
    }
    builder.set_replicas(replicas)?;
    talk.say(format!("The replica count is now {replicas:.6}."));
    talk.say(NEXT_REBALANCE);
    Ok(Next::Save(Exit::Clean))
}

/// Changes the overload. Who writes 10 most often means percent.
///
/// # Errors
/// No number.
pub fn set_overload(
    builder: &mut Builder,
    overload: f64,
    percent: bool,
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    if overload < 0.0 {
        talk.say("Overload must be non-negative.");
        return Ok(Next::Leave(Exit::Usage));
    }
    builder.set_overload(overload)?;
    let is_doubtful = overload > 1.0 && !percent;
    if is_doubtful {
        talk.say("!?! Warning overload is greater than 100% !?!");
    }
    talk.say(format!("The overload factor is now {:.2}% ({overload:.6})", overload * 100.0));
    talk.say(NEXT_REBALANCE);
    Ok(Next::Save(if is_doubtful { Exit::Failures } else { Exit::Clean }))
}

/// Changes for how long a partition that was moved stays.
pub fn set_min_part_hours(builder: &mut Builder, hours: u32, talk: &mut Talk) -> Next {
    builder.set_min_part_hours(hours);
    talk.say(format!(
        "The minimum number of hours before a partition can be reassigned is now set to {hours}"
    ));
    Next::Save(Exit::Clean)
}

/// Lets every partition be moved again. While the last moves are young this is dangerous, so we ask; but only a terminal,
/// for scripts that were written for Swift's tool, which never asks, give no answer. Those are warned.
pub fn pretend(builder: &mut Builder, yes: bool, now_secs: u64, talk: &mut Talk) -> Next {
    let seconds_left = builder.seconds_left(now_secs);
    if seconds_left > 0 && !yes {
        let left = report::duration(seconds_left);
        let danger = format!(
            "min_part_hours are not over for another {left}: what the last rebalance moved may not have arrived yet."
        );
        if !talk.has_operator() {
            talk.warn(format!("WARNING: {danger}"));
        } else if !talk.agrees(&format!("{danger} Go on?")) {
            talk.say("The on-disk ring builder is unchanged.");
            return Next::Leave(Exit::Usage);
        }
    }
    builder.pretend_min_part_hours_passed();
    Next::Save(Exit::Clean)
}

/// Reports how replicas are spread. Swift saves what it had to look for; for us looking does not write unless
/// `--recalculate` says so.
///
/// # Errors
/// Not enough devices, a filter that is no regular expression.
pub fn dispersion(
    builder: &mut Builder,
    filter: Option<&str>,
    verbose: bool,
    recalculate: bool,
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    // As `re.match` does it: the beginning must match.
    let filter = filter.filter(|filter| !filter.is_empty());
    let filter = filter.map(|filter| Regex::new(&format!("^(?:{filter})"))).transpose();
    let filter = filter.map_err(Refusal::Filter)?;
    if recalculate || builder.spread().is_none_or(|spread| spread.graph.is_empty()) {
        builder.measure_spread()?;
    }
    let plan = builder.plan()?;
    let spread = builder.spread().expect("it was measured if it was not known");
    let (tree, most) = (plan.tree(), plan.most_when_spread());
    let most = |tier: &Tier| tree.find(tier).map_or(0, |node| most[node]);
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let lines = TierLine::all(builder, spread, most, wanted);

    talk.say(format!(
        "Dispersion is {:.6}, Balance is {:.6}, Overload is {:.2}%",
        spread.dispersion,
        builder.balance()?,
        builder.overload() * 100.0
    ));
    talk.say(format!("Required overload is {:.6}%", plan.required_overload() * 100.0));
    let worst = TierLine::worst(&lines);
    if let Some(worst) = &worst {
        talk.say(worst);
    }
    if verbose && !lines.is_empty() {
        talk.say(TierLine::table(builder, &lines));
    }
    let exit = if worst.is_some() { Exit::Failures } else { Exit::Clean };
    Ok(if recalculate { Next::Save(exit) } else { Next::Leave(exit) })
}

/// Says what the ring file is.
///
/// # Errors
/// It cannot be read.
pub fn version(names: &Names, talk: &mut Talk) -> Result<Exit, Refusal> {
    let ring = Ring::load(&names.ring)?;
    let version = Ring::version_of(&names.ring)?;
    talk.say(report::version_line(&names.ring, version, &ring));
    Ok(Exit::Clean)
}

/// Writes the ring and its backup. A ring without assignments, which Swift writes with a warning, is of use to nobody: every
/// daemon that reads it fails.
///
/// # Errors
/// Not rebalanced yet, ids too wide for the format, files that cannot be written.
pub fn write_ring(
    names: &Names,
    builder: &mut Builder,
    version: FormatVersion,
    id_width: Option<IdWidth>,
    now_secs: u64,
    talk: &mut Talk,
) -> Result<Exit, Refusal> {
    if builder.devices().next().is_none() {
        talk.say("Unable to write empty ring.");
        return Ok(Exit::Usage);
    }
    if let Some(width) = id_width {
        builder.set_id_width(width)?;
    }
    let ring = Ring::from(builder.ring()?);
    let backup = names.back_up(None, Some((&ring, version)), now_secs)?;
    names.save_ring(&ring, version)?;
    backup.keep();
    Ok(Exit::Clean)
}

/// Makes a builder from a ring: all but when partitions were moved, the overload, and who was marked for removal.
///
/// # Errors
/// A ring that cannot be read, a builder that cannot be written.
pub fn write_builder(names: &Names, min_part_hours: Option<u32>, talk: &mut Talk) -> Result<Exit, Refusal> {
    if names.builder.exists() {
        let builder = names.builder.display();
        talk.say(format!("Cowardly refusing to overwrite existing Ring Builder file: {builder}"));
        return Ok(Exit::Usage);
    }
    if min_part_hours.is_none() {
        talk.warn("WARNING: default min_part_hours may not match the value in the lost builder.");
    }
    let ring = Ring::load(&names.ring)?;
    let mut builder = Builder::from_ring(ring.data(), min_part_hours.unwrap_or(DEFAULT_MIN_PART_HOURS))?;
    builder.save(&names.builder)?;
    Ok(Exit::Clean)
}

const NEXT_REBALANCE: &str = "The change will take effect after the next rebalance.";

/// What Swift takes where nobody knows.
const DEFAULT_MIN_PART_HOURS: u32 = 24;
