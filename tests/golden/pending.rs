//! Vectors of `pending`.
