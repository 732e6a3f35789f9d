//! Vectors of `db_files`.
