//! Vectors of `sharded`.
