//! Vectors of `merge_items`.
