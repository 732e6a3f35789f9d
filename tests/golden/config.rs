//! Vectors of `config`.
