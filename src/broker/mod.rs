//! One open container database: info, sync points, metadata, lock.

pub mod pending;
