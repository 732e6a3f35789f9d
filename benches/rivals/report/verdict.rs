//! Ours beside each rival: how many times, and where one of them was ahead.

use super::sides::{is_ours, is_rival};
use super::words::more_is_better;
use crate::figures::Figure;

/// A rival's figure and ours for the same thing.
pub struct Duel<'a> {
    /// Ours.
    pub ours: &'a Figure,
    /// The rival's.
    pub theirs: &'a Figure,
}

impl Duel<'_> {
    /// How many times ours the rival's is.
    pub fn times_ours(&self) -> f64 {
        self.theirs.median() / self.ours.median()
    }

    /// How many times better ours is; less than one if it is worse.
    pub fn advantage(&self) -> f64 {
        if more_is_better(self.ours.unit) { 1.0 / self.times_ours() } else { self.times_ours() }
    }

    /// Whether the spreads touch, so that nobody was ahead that counts.
    pub fn is_close(&self) -> bool {
        let ((low, high), (their_low, their_high)) = (self.ours.spread(), self.theirs.spread());
        low <= their_high && their_low <= high
    }

    /// Whether the rival was ahead.
    pub fn is_lost(&self) -> bool {
        self.advantage() < 1.0 && !self.is_close()
    }
}

/// Ours for the same thing as a figure.
pub fn ours_for<'a>(figure: &Figure, figures: &'a [Figure]) -> Option<&'a Figure> {
    let is_same = |other: &&Figure| {
        (other.section, &other.case, other.measure, other.x)
            == (figure.section, &figure.case, figure.measure, figure.x)
    };
    let mut candidates = figures.iter().filter(is_same).filter(|other| is_ours(&other.side));
    let first = candidates.next()?;
    if first.side == "ours" {
        Some(first)
    } else {
        candidates.find(|other| other.side == "ours").or(Some(first))
    }
}

/// Every rival's figure that has one of ours beside it.
pub fn duels(figures: &[Figure]) -> Vec<Duel<'_>> {
    let rivals = figures.iter().filter(|figure| is_rival(&figure.side));
    rivals
        .filter_map(|theirs| Some(Duel { ours: ours_for(theirs, figures)?, theirs }))
        .filter(|duel| duel.ours.median() > 0.0 && duel.theirs.median() > 0.0)
        .collect()
}
