//! Vectors of `sync_points`.
