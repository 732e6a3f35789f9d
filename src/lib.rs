//! swiftlet keeps the replicas of Swift's container databases in agreement.
//!
//! One pass, from top to bottom: the configuration says which rings and drives are ours ([`config`], [`ring`],
//! [`drive`]); [`pass`] has each drive walked ([`scan`]) beside its [`ledger`], and a [`survey`] of the two tells what
//! changed; a worker has a [`look`] into that; then peers are asked for what they have, in sums, and [`replicator`] takes
//! each database that differs to them, through [`outgoing`] here and [`incoming`] there, which let the two halves of the conversation
//! ([`protocol`]) talk over a [`peer`]. What they say of their databases comes from the [`broker`]; what is cheapest
//! to ship is chosen by [`strategy`]; blocks of a file travel as a [`delta`]. Each adds to a [`tally`], and [`report`] tells what came of it.
//!
//! An operator's commands are in [`cli`]; whether all of this can work on a node is for [`check`] to find out; what graphs and alarms are made of is told by [`metrics`]; those that make and change rings work on a [`ring::builder`].
//!
//! A file uses only files below it in this list, so any of them can be read knowing only what follows it.

pub mod cli;
pub mod check;
pub mod daemon;
pub mod metrics;
pub mod status;
pub mod report;
pub mod pass;
pub mod replicator;
pub mod outgoing;
pub mod incoming;
pub mod peer;
pub mod protocol;
pub mod strategy;
pub mod delta;
pub mod survey;
pub mod look;
pub mod scan;
pub mod arrival;
pub mod broker;
pub mod merge;
pub mod node;
pub mod obstacle;
pub mod ledger;
pub mod drive;
pub mod ring;
pub mod config;
pub mod tally;
pub mod bandwidth;
pub mod budget;
pub mod stop;
pub mod pickle;
pub mod replica;
pub mod hash_path;
pub mod timestamp;
