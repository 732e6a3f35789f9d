//! Broken databases, broken input, broken peers: what is broken is named, counted and put aside, and all else goes on.

#[path = "../cluster/mod.rs"]
mod cluster;

mod databases;
mod input;
