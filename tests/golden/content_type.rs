//! Vectors of `content_type`.
