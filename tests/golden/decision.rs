//! Vectors of `decision`.
