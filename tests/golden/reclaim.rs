//! Vectors of `reclaim`.
