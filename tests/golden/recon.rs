//! Vectors of `recon`.
