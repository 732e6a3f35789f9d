//! `agent demo`: a cluster of loopback nodes, driven through its whole life.

use super::{DemoOptions, Exit, complain};

/// Builds the cluster and tells what happens in it.
pub fn demo(_options: DemoOptions) -> Exit {
    complain("the demo is not built yet")
}
