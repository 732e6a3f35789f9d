//! Vectors of `rpc`.
