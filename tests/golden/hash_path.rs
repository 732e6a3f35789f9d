//! Vectors of `hash_path`.
