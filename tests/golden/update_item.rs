//! Vectors of `update_item`.
