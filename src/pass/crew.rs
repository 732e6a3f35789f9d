//! The threads of a pass: one a drive that walks it, and the workers, who open databases and talk to peers.
//!
//! A drive's thread puts jobs into a short queue and waits at the end of each leg of its round until its own are done, so
//! that a slow drive or peer is waited for by its own drive only.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Sender, bounded};
use log::error;

use super::Pass;
use super::round::{Round, Task};
use crate::drive::Drive;
use crate::replicator::{Absent, Replicator};
use crate::ring::Device;

/// Something to do on a drive.
pub(super) struct Job<'a> {
    round: &'a Round<'a>,
    task: Task,
    /// Tells the round that it is done, however it ends.
    _under_way: Mark<'a>,
}

/// Walks all drives at the same time, and returns when all that came of it is done.
pub(super) fn walk_all(pass: &Pass, drives: &[(&Device, Arc<Drive>)]) {
    let node = pass.node;
    let ledgers: Vec<_> = drives.iter().map(|(device, drive)| Round::ledger(pass, device, drive)).collect();
    let rounds: Vec<Round> = drives
        .iter()
        .zip(&ledgers)
        .map(|((device, drive), ledger)| Round::new(pass, device, drive, ledger.as_deref()))
        .collect();
    let (queue, jobs) = bounded::<Job>(node.config.concurrency);
    let absent = Absent::default();
    let hindered = |obstacle| pass.observer.hindered(obstacle);
    let say = |line| pass.observer.foretell(line);
    let dry_run: Option<&(dyn Fn(String) + Sync)> = if pass.dry_run { Some(&say) } else { None };
    thread::scope(|scope| {
        for number in 0..node.config.concurrency {
            let (jobs, absent, hindered) = (jobs.clone(), &absent, &hindered);
            let work = move || {
                let mut replicator = Replicator::new(node, pass.ring, absent, hindered, dry_run);
                for Job { round, task, _under_way } in jobs {
                    if node.stop.wished() {
                        continue;
                    }
                    if let Some(database) = round.perform(&mut replicator, task) {
                        pass.tell(&pass.tally(), &database.to_string_lossy());
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("worker {number}")).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn_scoped(scope, work) {
                error!("cannot start worker {number}: {error}");
            }
        }
        drop(jobs);
        for round in &rounds {
            let queue = Dispatch { queue: queue.clone(), pass };
            let name = format!("walk {}", round.device().name);
            let go = move || {
                round.go(&queue);
                pass.walked.fetch_add(1, Ordering::Relaxed);
            };
            let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn_scoped(scope, go) {
                error!(device = round.device().name.as_str(); "cannot walk {}: {error}", round.device().name);
                let device = round.device();
                pass.tally().fail_node(&device.replication_ip, &device.name, 1);
            }
        }
        drop(queue);
    });
}

/// Where a drive's thread hands in what it found.
pub(super) struct Dispatch<'a> {
    queue: Sender<Job<'a>>,
    pass: &'a Pass<'a>,
}

impl<'a> Dispatch<'a> {
    /// Hands in a job, at the pass's pace if it opens a database. False if there is no point in going on.
    pub(super) fn send(&self, round: &'a Round<'a>, under_way: &'a UnderWay, task: Task) -> bool {
        if task.opens_a_database() && self.pass.node.stop.sleep(self.pass.pace.wait()) {
            return false;
        }
        let _under_way = under_way.mark();
        !self.pass.node.stop.wished() && self.queue.send(Job { round, task, _under_way }).is_ok()
    }
}

/// How many jobs of a round are not done yet.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    jobs: Mutex<usize>,
    fewer: Condvar,
}

impl UnderWay {
    fn mark(&self) -> Mark<'_> {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Mark(self)
    }

    /// Waits until all are done.
    pub(super) fn wait(&self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        while *jobs > 0 {
            jobs = self.fewer.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Mark<'a>(&'a UnderWay);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        *self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.fewer.notify_all();
    }
}

/// Workers and walkers keep their buffers on the heap.
const STACK_BYTES: usize = 512 << 10;
