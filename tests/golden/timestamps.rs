//! Vectors of `timestamps`.
