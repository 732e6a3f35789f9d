//! A walk over a drive beside its ledger: which databases look as they did, which have to be looked into.
//!
//! Both come in the same order, so that the two are read side by side, like a merge, in memory that does not grow with
//! either. A database that looks as its entry says, and is not due, is done with. One that the walk does not meet where its
//! entry says it was, is gone. And where a partition looks as it did when it was last listed, the ledger also says what the
//! walk would find there ([`remembered`]).

mod remembered;

use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use log::{debug, warn};

use crate::broker::BrokerError;
use crate::config::Config;
use crate::drive::Drive;
use crate::hash_path::{PartShift, Partition};
use crate::ledger::{Entry, Key, Ledger, LedgerError, PartitionSet, Recorder, Surveyed};
use crate::look::{Looked, glance, look};
use crate::scan::{Found, Problem, Walk};
use crate::stop::Stop;
use remembered::Remembered;

/// What the walk came by.
#[derive(Debug)]
pub enum Sighting {
    /// It looks as the ledger says.
    AsBefore(Found),
    /// It is new, or looks otherwise, or its time has come.
    Changed {
        /// Where it is.
        found: Found,
        /// What the ledger has of it.
        known: Option<Entry>,
        /// It looks as before: only time asks for the look.
        due: bool,
    },
    /// It is a stray ([`is_stray`]), of which the ledger has nothing.
    Stray,
}

/// Does it not lie where the ring would have it on this device: is it a handoff, or misplaced?
pub fn is_stray(found: &Found, shift: PartShift, mine: &PartitionSet) -> bool {
    let partition = shift.partition(&found.hash_dir.hash());
    !found.in_order || found.partition != Some(partition) || !mine.contains(partition)
}

/// A walk in progress.
pub struct Survey<'a> {
    walk: Walk,
    ledger: &'a Ledger,
    shift: PartShift,
    /// Partitions that the ring puts on this device.
    mine: &'a PartitionSet,
    remembered: Remembered<'a>,
    recorder: &'a Recorder<'a>,
    began: SystemTime,
}

impl<'a> Survey<'a> {
    /// Begins. What is gone is noted with the recorder on the way.
    pub fn new(
        walk: Walk,
        ledger: &'a Ledger,
        mine: &'a PartitionSet,
        recorder: &'a Recorder<'a>,
    ) -> Survey<'a> {
        let shift = ledger.terms().part_shift;
        let remembered = Remembered::new(ledger, walk.from());
        Survey { walk, ledger, shift, mine, remembered, recorder, began: SystemTime::now() }
    }

    /// After the last: forgets what lay behind it and is gone, and notes that all of the drive was walked. Not for a walk
    /// that was broken off.
    ///
    /// # Errors
    /// [`LedgerError`]: something that this walk found is not in the ledger.
    pub fn finish(mut self) -> Result<(), LedgerError> {
        while let Some((key, _)) = self.remembered.pop()? {
            self.forget(key);
        }
        self.recorder.flush()?;
        self.remembered.flush()?;
        let took = self.began.elapsed().unwrap_or_default();
        self.ledger.note_survey(Surveyed { began: self.began, took })
    }

    fn judge(&mut self, found: Found) -> Result<Sighting, LedgerError> {
        if is_stray(&found, self.shift, self.mine) {
            return Ok(Sighting::Stray);
        }
        let key = Key::new(found.hash_dir.hash(), self.shift);
        while self.remembered.is_before(key)? {
            if let Some((gone, _)) = self.remembered.pop()? {
                self.forget(gone);
            }
        }
        let known = self.remembered.take(key)?;
        let same = known.as_ref().is_some_and(|entry| entry.seen == Some(found.sight.fingerprint));
        let due = known.as_ref().is_some_and(|entry| entry.due_secs <= now_secs());
        Ok(match same && !due {
            true => Sighting::AsBefore(found),
            false => Sighting::Changed { found, known, due: same },
        })
    }

    /// The walk went past an entry's place without meeting its database. It may also have been unable to read a directory.
    fn forget(&self, key: Key) {
        let drive = self.walk.drive();
        let dir = drive.hash_dir(key.partition(self.shift), key.hash(self.shift));
        if matches!(dir.sight(), Ok(None)) && drive.still_mounted().is_ok() {
            self.recorder.note(key, None);
        }
    }
}

impl Iterator for Survey<'_> {
    type Item = Result<Sighting, SurveyError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.walk.next_with(&mut self.remembered)? {
            Ok(found) => self.judge(found).map_err(SurveyError::Ledger),
            Err(problem) => Err(SurveyError::Problem(problem)),
        })
    }
}

/// What came between.
#[derive(Debug)]
pub enum SurveyError {
    /// A directory cannot be read. The walk goes on.
    Problem(Problem),
    /// The ledger is of no use any more.
    Ledger(LedgerError),
}

/// Walks a drive on behalf of a peer that asks what is on it, if that was not done lately, and looks into what changed. Who
/// comes while somebody else walks waits for him, but not for long: a pass may open many databases at a slow pace. Then the
/// ledger is good as it is, for it follows that walk.
///
/// # Errors
/// [`LedgerError`]; `Ok(false)` if there is nothing to go by yet, or it was told to stop.
pub fn refresh(
    config: &Config,
    drive: &Arc<Drive>,
    ledger: &Ledger,
    mine: &PartitionSet,
    stop: &Stop,
) -> Result<bool, LedgerError> {
    let patience = Instant::now() + config.node_timeout / 2;
    let _walking = loop {
        match ledger.walking().try_lock() {
            Ok(walking) => break walking,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if Instant::now() >= patience => {
                return Ok(ledger.surveyed()?.is_some());
            }
            Err(TryLockError::WouldBlock) if stop.sleep(WAIT) => return Ok(false),
            Err(TryLockError::WouldBlock) => {}
        }
    };
    if is_fresh(config, ledger)? {
        return Ok(true);
    }
    let recorder = Recorder::new(ledger);
    let walk = Walk::new(drive.clone(), Default::default(), Partition(0));
    let mut survey = Survey::new(walk, ledger, mine, &recorder);
    let shift = ledger.terms().part_shift;
    for sighting in survey.by_ref() {
        if stop.wished() {
            return Ok(false);
        }
        let (found, known) = match sighting {
            Ok(Sighting::Changed { found, known, .. }) => (found, known),
            Ok(Sighting::AsBefore(_) | Sighting::Stray) => continue,
            Err(SurveyError::Problem(problem)) => {
                warn!("{problem}");
                continue;
            }
            Err(SurveyError::Ledger(error)) => return Err(error),
        };
        let key = Key::new(found.hash_dir.hash(), shift);
        if let Some((_, entry)) = glance(config, &found.hash_dir, known.clone()) {
            recorder.note(key, Some(entry));
            continue;
        }
        match look(config, &found.hash_dir, known) {
            Ok(Looked { entry, .. }) => recorder.note(key, Some(entry)),
            Err(BrokerError::Missing) => recorder.note(key, None),
            Err(error) => {
                // What cannot be read is not vouched for. The peer then asks for it singly, and hears why.
                debug!("{}: {error}", found.hash_dir.dir().display());
                recorder.note(key, None);
            }
        }
    }
    survey.finish().map(|()| true)
}

/// Was the whole drive walked so lately that it need not be walked for a peer? Peers ask as often as they like, so no more
/// than a tenth of the time goes into walks for them; a drive that is walked in no time is walked anew for each. And what
/// the passes of this node saw is good enough until the next is due.
fn is_fresh(config: &Config, ledger: &Ledger) -> Result<bool, LedgerError> {
    let Some(survey) = ledger.surveyed()? else { return Ok(false) };
    let good_for = (survey.took * WALKING_SHARE).min(survey.took + config.interval);
    let now = SystemTime::now();
    Ok(survey.began <= now && now < survey.began + good_for)
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How often to ask whether somebody else's walk is over.
const WAIT: Duration = Duration::from_millis(20);
/// One part in so many of the time is spent walking a drive for peers.
const WALKING_SHARE: u32 = 10;
