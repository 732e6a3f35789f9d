//! Whatever an operator does to a ring: its rules hold after every rebalance, and no other assignment would be much better.
//!
//! [`sequences`] plays random commands and holds every rebalance against the rules; [`brute_force`] looks at all assignments
//! that a tiny cluster can have. Random tests print the seed they began with; `SWIFTLET_SEED` begins with that one
//! again, and `SWIFTLET_CASES` asks for another number of cases.

mod brute_force;
mod cluster;
#[path = "../../benches/rings/judge.rs"]
#[allow(dead_code)]
mod judge;
mod rules;
mod sequences;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs of one random test, each from the same seed on if that is given.
fn runner(name: &str, cases: u32) -> TestRunner {
    let seed = match std::env::var("SWIFTLET_SEED") {
        Ok(seed) => seed.parse().expect("SWIFTLET_SEED is a number"),
        Err(_) => getrandom::u64().expect("random bits"),
    };
    println!("{name}: SWIFTLET_SEED={seed}");
    let cases = match std::env::var("SWIFTLET_CASES") {
        Ok(cases) => cases.parse().expect("SWIFTLET_CASES is a number"),
        Err(_) => cases,
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config { cases, failure_persistence: None, ..Config::default() }, rng)
}
