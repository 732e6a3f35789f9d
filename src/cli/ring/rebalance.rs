//! `rebalance`: partitions moved to where they should be, and what came of it.
//!
//! Whether the outcome is worth saving, and with which code the command ends, is decided as Swift decides it
//! (`swift/cli/ringbuilder.py: Commands.rebalance`), for operators run it in loops until it says that there is nothing left
//! to do. The builder is written before the ring: should we be stopped between the two, `write_ring` makes the ring that
//! the builder remembers, while a ring whose builder forgot it could not be found again.

use super::devices::refuse_while_splitting;
use super::files::Names;
use super::grammar::RebalanceOptions;
use super::talk::Talk;
use super::{Refusal, moves, report};
use crate::cli::Exit;
use crate::ring::Ring;
use crate::ring::builder::Builder;
use crate::ring::spread::WORST_BALANCE;

/// Rebalances, and writes builder, ring and backups if something came of it.
///
/// # Errors
/// Too few devices, files that cannot be written.
pub fn rebalance(
    names: &Names,
    builder: &mut Builder,
    options: &RebalanceOptions,
    now_secs: u64,
    talk: &mut Talk,
) -> Result<Exit, Refusal> {
    refuse_while_splitting(builder)?;
    let seed = match &options.seed {
        Some(seed) => seed.clone(),
        None => chance()?,
    };
    let rows = builder.rows().map(<[_]>::to_vec);
    let devices_changed = builder.devices_changed();
    let seconds_left = builder.seconds_left(now_secs);
    let before = Figures::of(builder)?;
    let done = builder.rebalance(seed.as_bytes(), now_secs)?;
    let after = Figures::of(builder)?;
    if options.debug {
        talk.warn(debug(&seed, builder, &before, &after));
    }

    if done.reassigned == 0 && done.removed == 0 && !options.force {
        talk.say("No partitions could be reassigned.");
        talk.say(match seconds_left {
            0 => "There is no need to do so at this time".to_owned(),
            _ => format!(
                "The time between rebalances must be at least min_part_hours: {} hours ({} remaining)",
                builder.min_part_hours(),
                report::duration(builder.seconds_left(now_secs))
            ),
        });
        return Ok(Exit::Failures);
    }
    if !(options.force || devices_changed || after.is_progress_from(&before)) {
        talk.say("Cowardly refusing to save rebalance as it did not change at least 1%.");
        return Ok(Exit::Failures);
    }
    builder.validate()?;
    let ring = Ring::from(builder.ring()?);
    let backup = names.back_up(Some(builder), Some((&ring, options.version)), now_secs)?;
    builder.save(&names.builder)?;
    backup.keep();
    names.save_ring(&ring, options.version).map_err(Refusal::RingBehind)?;

    let dispersion = after.dispersion.unwrap_or_default();
    talk.say(format!(
        "Reassigned {} ({:.2}%) partitions. Balance is now {:.2}.  Dispersion is now {dispersion:.2}",
        done.reassigned,
        100.0 * done.reassigned as f64 / f64::from(builder.partitions()),
        after.balance,
    ));
    let note = note(builder, after.balance, dispersion);
    if let Some(note) = &note {
        talk.say(format!("{RULE}\n{note}\n{RULE}"));
    }
    let moved = moves::report(rows.as_deref(), builder, now_secs);
    if !moved.is_empty() {
        talk.say(moved.trim_end_matches('\n'));
    }
    Ok(if note.is_some() { Exit::Failures } else { Exit::Clean })
}

/// What should be looked at, and is reason for exit code 1.
fn note(builder: &Builder, balance: f64, dispersion: f64) -> Option<String> {
    if dispersion > 0.0 {
        return Some(format!(
            "NOTE: Dispersion of {dispersion:.6} indicates some parts are not\n      \
             as far apart as the devices would allow. `dispersion -v` shows where;\n      \
             other weights or a higher overload let replicas spread further."
        ));
    }
    (balance > 5.0 && balance / 100.0 > builder.overload()).then(|| {
        format!(
            "NOTE: Balance of {balance:.2} indicates you should push this \n      \
             ring out, let replication catch up for {} hours or more, and rebalance\n      \
             again.",
            builder.min_part_hours()
        )
    })
}

/// What tells whether a rebalance changed anything worth the trouble.
struct Figures {
    balance: f64,
    dispersion: Option<f64>,
}

impl Figures {
    fn of(builder: &Builder) -> Result<Figures, Refusal> {
        let dispersion = builder.spread().map(|spread| spread.dispersion);
        Ok(Figures { balance: builder.balance()?, dispersion })
    }

    /// By a whole percent, or as long as devices are being drained, which makes every balance the worst.
    fn is_progress_from(&self, before: &Figures) -> bool {
        let balance = (before.balance - self.balance).abs() >= 1.0
            || (before.balance == WORST_BALANCE && self.balance == WORST_BALANCE);
        let dispersion = match (before.dispersion, self.dispersion) {
            (Some(before), Some(now)) => (before - now).abs() >= 1.0,
            _ => true,
        };
        balance || dispersion
    }
}

/// A seed for who gave none: text, so that it can be given again.
fn chance() -> Result<String, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::NoChance(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn debug(seed: &str, builder: &Builder, before: &Figures, after: &Figures) -> String {
    let required = builder.plan().map_or(0.0, |plan| plan.required_overload());
    format!(
        "DEBUG: seed {seed}; balance {:.2} -> {:.2}; dispersion {:.2} -> {:.2}; required overload {:.6}",
        before.balance,
        after.balance,
        before.dispersion.unwrap_or_default(),
        after.dispersion.unwrap_or_default(),
        required
    )
}

/// Above and below a note.
const RULE: &str = "-------------------------------------------------------------------------------";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_whole_percent_or_draining() {
        let figures = |balance, dispersion| Figures { balance, dispersion };
        let table = [
            ((5.0, Some(0.0)), (5.0, Some(0.0)), false),
            ((5.0, Some(0.0)), (4.01, Some(0.99)), false),
            ((5.0, Some(0.0)), (4.0, Some(0.0)), true),
            ((4.0, Some(0.0)), (5.0, Some(0.0)), true),
            ((5.0, Some(1.0)), (5.0, Some(0.0)), true),
            ((5.0, None), (5.0, Some(0.0)), true),
            ((WORST_BALANCE, Some(0.0)), (WORST_BALANCE, Some(0.0)), true),
        ];
        for (before, after, expected) in table {
            let (was, is) = (figures(before.0, before.1), figures(after.0, after.1));
            assert_eq!(is.is_progress_from(&was), expected, "{before:?} -> {after:?}");
        }
    }
}
