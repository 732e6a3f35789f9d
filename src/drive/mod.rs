//! One mounted drive: find, stage, install, quarantine, remove, map a file.
