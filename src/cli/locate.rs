//! `agent locate`: where something belongs, and which of these places have it.

use super::{Exit, LocateOptions, complain};

/// Prints hash, partition, devices and paths.
pub fn locate(options: &LocateOptions) -> Exit {
    complain(format_args!("{}: cannot be located yet", options.account))
}
