//! Vectors of `chexor`.
