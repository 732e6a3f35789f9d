//! Vectors of `rings`.
