//! Vectors of `policy_index`.
