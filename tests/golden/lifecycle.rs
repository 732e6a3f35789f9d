//! Vectors of `lifecycle`.
