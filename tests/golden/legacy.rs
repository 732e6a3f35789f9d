//! Vectors of `legacy`.
