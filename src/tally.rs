//! What a pass counted: Swift's counters under Swift's names, and ours beside them.
//!
//! Work returns what it did and is added up here; nothing else counts, so a number in a log line, in the recon file, in
//! the table and in the JSON is one number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The sums of one pass. Field names are Swift's where Swift has the counter
/// (`swift/common/db_replicator.py: _zero_stats`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Databases looked at.
    pub attempted: u64,
    /// Targets that ended well.
    pub success: u64,
    /// Targets that did not, and drives that could not be walked.
    pub failure: u64,
    /// Nothing to do by content and sync points.
    pub no_change: u64,
    /// Equal rows, found by their hash where sync points did not say so.
    pub hashmatch: u64,
    /// Rows were sent after a sync point.
    pub diff: u64,
    /// Rows were sent, but more than `max_diffs` messages' worth; the rest goes in the next pass.
    pub diff_capped: u64,
    /// Whole files sent to peers that had none.
    pub rsync: u64,
    /// Whole files, or deltas, merged into a replica that exists.
    pub remote_merge: u64,
    /// Databases removed: reclaimed, or handed over.
    pub remove: u64,
    /// Failures as Swift tells statsd of them: one for a database that cannot be read, one for each target that did not end
    /// well, none for what is wrong with a drive.
    #[serde(skip)]
    pub failures_told: u64,
    /// Never counted by Swift either; kept because readers expect it.
    pub empty: u64,
    /// Never counted by Swift either; kept because readers expect it.
    pub ts_repl: u64,
    /// Rows left alone because the container is being sharded.
    pub deferred: u64,
    /// Failures by peer address, then by device.
    pub failure_nodes: BTreeMap<String, BTreeMap<String, u64>>,
    /// Databases looked into: all but those that the ledger knew.
    pub opened: u64,
    /// Transfers that reused blocks of the peer's file.
    pub delta: u64,
    /// Whole files sent as they are, to a missing or an existing replica.
    pub full: u64,
    /// Rows sent.
    pub rows_sent: u64,
    /// Payload bytes our sockets sent.
    pub bytes_sent: u64,
    /// Payload bytes our sockets received.
    pub bytes_received: u64,
    /// When the pass began, seconds since 1970.
    pub start: f64,
    /// How long it took, in seconds.
    pub elapsed: f64,
    /// The most anonymous memory this process had, in KiB; 0 where the kernel does not tell.
    pub peak_anon_kib: u64,
}

impl Tally {
    /// Counts `times` failures of one device of one peer.
    pub fn fail_node(&mut self, ip: &str, device: &str, times: u64) {
        *self.failure_nodes.entry(ip.to_owned()).or_default().entry(device.to_owned()).or_default() += times;
        self.failure += times;
    }

    /// Counts `times` targets on one device of one peer that did not end well.
    pub fn fail_target(&mut self, ip: &str, device: &str, times: u64) {
        self.failures_told += times;
        self.fail_node(ip, device, times);
    }

    /// Adds what another worker counted. Times and memory are the pass's own and stay.
    pub fn add(&mut self, other: &Tally) {
        let pairs = [
            (&mut self.attempted, other.attempted),
            (&mut self.success, other.success),
            (&mut self.failure, other.failure),
            (&mut self.no_change, other.no_change),
            (&mut self.hashmatch, other.hashmatch),
            (&mut self.diff, other.diff),
            (&mut self.diff_capped, other.diff_capped),
            (&mut self.rsync, other.rsync),
            (&mut self.remote_merge, other.remote_merge),
            (&mut self.remove, other.remove),
            (&mut self.failures_told, other.failures_told),
            (&mut self.empty, other.empty),
            (&mut self.ts_repl, other.ts_repl),
            (&mut self.deferred, other.deferred),
            (&mut self.opened, other.opened),
            (&mut self.delta, other.delta),
            (&mut self.full, other.full),
            (&mut self.rows_sent, other.rows_sent),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.bytes_received, other.bytes_received),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
        for (ip, devices) in &other.failure_nodes {
            let sums = self.failure_nodes.entry(ip.clone()).or_default();
            for (device, times) in devices {
                *sums.entry(device.clone()).or_default() += times;
            }
        }
    }
}
