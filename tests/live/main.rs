//! Writers in other processes, hardly pausing, on replicas that are being made to agree: what they were told is
//! theirs to keep, and they wait for nobody for long.

#[path = "../cluster/mod.rs"]
mod cluster;

mod crowd;
mod killed;
mod late;
mod writer;
