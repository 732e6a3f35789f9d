//! The command line turned into values, one subcommand called, the exit code.

fn main() {}
