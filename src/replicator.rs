//! One database to each of its peers, then its aftermath.
