//! Vectors of `damaged`.
