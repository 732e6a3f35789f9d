//! Vectors of `passes`.
