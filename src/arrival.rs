//! A whole file that arrived: take a missing database's place, or merge into the one that is there.
