//! One open container database: info, sync points, metadata, lock.
