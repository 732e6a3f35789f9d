//! `agent ring BUILDER show`: to come.

use crate::cli::{Exit, complain};
use crate::ring::builder::Builder;

/// Nothing yet.
pub fn show(_builder: &Builder, _words: &[String]) -> Exit {
    complain("show is not there yet")
}
