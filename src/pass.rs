//! Every database on this node once: workers, a rate, a tally.
