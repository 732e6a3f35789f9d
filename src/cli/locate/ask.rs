//! What is there: our own devices are looked at, agents on other nodes are asked for theirs.
//!
//! All at once, each on a thread of its own, so that a drive that hangs or a node that is gone holds up nothing but its
//! own line. Whoever has not answered when the time is up is left behind with the process.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::places::Spot;
use super::verdict::{Finding, Held, ObjectRow, State};
use crate::broker::{Broker, BrokerError};
use crate::cli::info::{self, InfoError, waiting_rows};
use crate::config::Config;
use crate::drive::{DeviceName, Drive, DriveError};
use crate::hash_path::{Hash, Partition};
use crate::outgoing::{Seen, look, onlooker};
use crate::peer::{Peer, PeerError};
use crate::protocol::message::{Place, Refusal, Role};
use crate::protocol::wire::WireError;
use crate::replica::{DbState, ReplicaInfo, Row};
use crate::stop::Stop;

/// What is asked of every device.
pub struct Question {
    /// How to look, and how long to wait.
    pub config: Config,
    /// The account.
    pub account: String,
    /// Its container.
    pub container: String,
    /// An object whose row is looked for too.
    pub object: Option<String>,
    /// The container's partition.
    pub partition: Partition,
    /// The container's hash.
    pub hash: Hash,
}

/// Asks all of them, and comes back with as many answers, in their order, within [`TIME_LIMIT`].
pub fn ask_all(question: Question, spots: &[Spot]) -> Vec<Finding> {
    let (question, stop) = (Arc::new(question), Stop::default());
    let (tell, told) = mpsc::channel();
    let (order, orders) = crossbeam_channel::bounded(spots.len());
    for (index, spot) in spots.iter().enumerate() {
        order.send((index, spot.clone())).expect("there is room for all");
    }
    drop(order);
    for _ in 0..spots.len().min(AT_ONCE) {
        let (question, stop, orders, tell) = (question.clone(), stop.clone(), orders.clone(), tell.clone());
        let ask = move || {
            while let Ok((index, spot)) = orders.try_recv() {
                // Nobody listens any more once the time is up.
                if tell.send((index, question.ask(&spot, &stop))).is_err() {
                    break;
                }
            }
        };
        // With fewer threads than devices it takes longer; without any, nobody answers.
        let _ = thread::Builder::new().name("ask".into()).spawn(ask);
    }
    drop(tell);
    let deadline = Instant::now() + TIME_LIMIT;
    let mut findings: Vec<Option<Finding>> = spots.iter().map(|_| None).collect();
    let left = || deadline.saturating_duration_since(Instant::now());
    while let Ok((index, finding)) = told.recv_timeout(left()) {
        findings[index] = Some(finding);
    }
    stop.wish();
    let silent = || Finding::without(State::Silent, format!("no answer within {} s", TIME_LIMIT.as_secs()));
    findings.into_iter().map(|finding| finding.unwrap_or_else(silent)).collect()
}

impl Question {
    fn ask(&self, spot: &Spot, stop: &Stop) -> Finding {
        let Some(device) = DeviceName::new(spot.device.name.as_str()) else {
            return Finding::without(State::Failed, "the ring gives the device an impossible name");
        };
        match spot.ours {
            true => self.look_here(&device).unwrap_or_else(unseen),
            false => self.call(spot, device, stop),
        }
    }

    fn call(&self, spot: &Spot, device: DeviceName, stop: &Stop) -> Finding {
        let Some(port) = spot.agent_port else {
            return Finding::without(State::Failed, "its port and agent_port_offset make no port");
        };
        let patience = self.config.node_timeout.min(PATIENCE);
        let place = Place { device, partition: self.partition, hash: self.hash };
        // Whatever its ring makes of it: the question is what is there.
        let (role, onlooker) = (Role::Handoff, onlooker(&self.account, &self.container));
        let seen = Peer::call(&spot.device.replication_ip, port, self.config.conn_timeout, patience, stop)
            .and_then(|mut peer| look(&mut peer, place, &onlooker, role));
        match seen {
            Ok(Seen::Here { info, .. }) => Finding::Held(Box::new(Held {
                info: *info,
                waiting: 0,
                row: self.object.as_ref().map(|_| ObjectRow::Unseen),
            })),
            Ok(Seen::Missing) => Finding::without(State::Missing, ""),
            Ok(Seen::Refused(refusal)) => refused(&refusal),
            Err(error) => unanswered(&error),
        }
    }

    /// Changes nothing, and takes in no rows.
    fn look_here(&self, device: &DeviceName) -> Result<Finding, InfoError> {
        let drive = match Drive::open(&self.config.devices, device, self.config.mount_check) {
            Ok(drive) => drive,
            Err(error @ (DriveError::NotMounted { .. } | DriveError::NotADirectory { .. })) => {
                return Ok(Finding::without(State::Unmounted, error.to_string()));
            }
            Err(error) => return Ok(Finding::without(State::Unreadable, error.to_string())),
        };
        let home = drive.hash_dir(self.partition, self.hash);
        let in_charge =
            home.in_charge().map_err(|error| InfoError::Unreadable(home.dir().to_owned(), error))?;
        let Some(path) = in_charge else { return Ok(Finding::without(State::Missing, "")) };
        let failed = |error| info::explain(&path, error);
        let mut broker = info::open(&path, Some(&home))?;
        let info = broker.stored_info().map_err(failed)?;
        if (info.account.as_str(), info.container.as_str()) != (&self.account, &self.container) {
            let other = format!("the database there is of {}/{}", info.account, info.container);
            return Ok(Finding::without(State::Failed, other));
        }
        let (_, waiting) = waiting_rows(&home.pending_path());
        let row = self.object.as_ref().map(|name| object_row(&mut broker, &info, name, &waiting));
        let row = row.transpose().map_err(failed)?;
        Ok(Finding::Held(Box::new(Held { info, waiting: waiting.len() as u64, row })))
    }
}

/// The object's row as the next reader will find it: one that waits is newer than one that is stored, or as new.
fn object_row(
    broker: &mut Broker,
    info: &ReplicaInfo,
    name: &str,
    waiting: &[Row],
) -> Result<ObjectRow, BrokerError> {
    let is_listed = |row: &&Row| row.storage_policy_index == info.storage_policy_index;
    let stored = broker.rows_named(name)?;
    let stored = stored.iter().find(is_listed).or(stored.last());
    let newest = waiting.iter().filter(|row| row.name == name).max_by(|a, b| a.created_at.cmp(&b.created_at));
    Ok(match (stored, newest) {
        (stored, Some(row)) if stored.is_none_or(|stored| stored.created_at < row.created_at) => {
            ObjectRow::Waiting(Box::new(row.clone()))
        }
        (Some(row), _) => ObjectRow::Stored(Box::new(row.clone())),
        (None, _) if matches!(info.db_state, DbState::Sharding | DbState::Sharded) => ObjectRow::InShards,
        (None, _) => ObjectRow::Missing,
    })
}

/// Why one of our own databases could not be looked at.
fn unseen(error: InfoError) -> Finding {
    let state = match &error {
        InfoError::Missing(_) | InfoError::NoDatabaseIn(_) | InfoError::Broker(BrokerError::Missing) => {
            return Finding::without(State::Missing, "");
        }
        InfoError::Damaged { .. } => State::Damaged,
        InfoError::Journal(_) | InfoError::Broker(BrokerError::Busy { .. }) => State::Busy,
        InfoError::Unreadable(..) | InfoError::Broker(BrokerError::Io { .. }) => State::Unreadable,
        InfoError::Broker(_) => State::Failed,
    };
    Finding::without(state, error.to_string())
}

fn refused(refusal: &Refusal) -> Finding {
    let state = match refusal {
        Refusal::NotMounted => State::Unmounted,
        Refusal::UnknownDevice | Refusal::WrongPartition | Refusal::NotPrimary => State::Unknown,
        Refusal::Busy | Refusal::TooMany => State::Busy,
        Refusal::Damaged => State::Damaged,
        Refusal::Full | Refusal::Sharding | Refusal::NoLedger | Refusal::Failed(_) => State::Failed,
    };
    Finding::without(state, refusal.to_string())
}

fn unanswered(error: &PeerError) -> Finding {
    let state = match error {
        PeerError::Unreachable(error) if error.kind() == io::ErrorKind::ConnectionRefused => State::NoAgent,
        PeerError::Unintelligible(WireError::OtherProtocol(_)) => State::NoAgent,
        PeerError::Unreachable(_) => State::Unreachable,
        PeerError::TooSlow(_) | PeerError::Stopped => State::Silent,
        PeerError::Gone | PeerError::Broken(_) | PeerError::Unintelligible(_) | PeerError::Violation(_) => {
            State::Failed
        }
    };
    Finding::without(state, format!("its agent {error}"))
}

/// When we stop waiting for whoever has not answered.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How long one agent may be silent; `node_timeout` if that is less.
const PATIENCE: Duration = Duration::from_secs(5);
/// Devices asked at once: all handoffs of a large ring can be thousands.
const AT_ONCE: usize = 64;
