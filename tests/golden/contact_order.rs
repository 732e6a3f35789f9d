//! Vectors of `contact_order`.
