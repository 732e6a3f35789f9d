//! Three and four agents on loopback, as daemons and from cron: whatever differs, all replicas end equal and in place.

#[path = "../cluster/mod.rs"]
mod cluster;

mod cron;
mod daemons;
mod metrics;
mod service;
mod signals;
mod status;
