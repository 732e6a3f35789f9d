//! `agent ring`: rings made, changed and shown, in the grammar of `swift-ring-builder`.

mod columns;
pub mod moves;
mod palette;
mod picture;
pub mod show;
mod summary;
mod svg;
pub mod table;
#[cfg(test)]
mod testing;

use super::{Exit, RingOptions, complain};

/// Does what the command line says.
pub fn ring(options: &RingOptions) -> Exit {
    complain(format_args!("{}: no command of `agent ring` is there yet", options.builder.display()))
}
