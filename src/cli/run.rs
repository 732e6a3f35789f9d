//! `agent`: one pass, or the daemon.

use super::{Exit, RunOptions, complain};

/// Runs the agent until its pass is over or it is told to stop.
pub fn run(_options: RunOptions) -> Exit {
    complain("passes are not built yet")
}
