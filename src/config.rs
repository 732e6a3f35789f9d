//! The conf files, every default filled in.
