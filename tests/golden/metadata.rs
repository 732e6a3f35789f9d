//! Vectors of `metadata`.
