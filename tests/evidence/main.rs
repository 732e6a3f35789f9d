//! Evidence that takes long or needs more than a user's rights. Each test is ignored by `cargo test` and run by the script
//! of its name beside this file, which `.ci/run` calls.

#[path = "../cluster/mod.rs"]
mod cluster;

mod cage;
mod crowd;
mod full_drive;
mod idle;
mod memory;
mod mount;
mod sparse;
mod watch;
