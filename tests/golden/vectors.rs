//! Where the vectors are, and how they are read.
#![allow(dead_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The directory of the vectors: `SWIFTLET_GOLDEN`, or the copy in `tests/data`.
pub fn root() -> PathBuf {
    match std::env::var_os("SWIFTLET_GOLDEN") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden"),
    }
}

/// A JSON file of the vectors.
pub fn json(name: &str) -> Value {
    let path = root().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The items of a list in a vector.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

/// A text in a vector.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// The bytes of a file of the vectors, inflated if its name ends in `.gz`.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = root().join(name);
    let raw = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !name.ends_with(".gz") {
        return raw;
    }
    let mut inflated = Vec::new();
    flate2::read::MultiGzDecoder::new(&raw[..])
        .read_to_end(&mut inflated)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    inflated
}

/// Fails if an object has a field that the test does not know.
pub fn knows(value: &Value, fields: &[&str]) {
    for key in value.as_object().expect("an object").keys() {
        assert!(fields.contains(&key.as_str()), "a vector has a field this test does not know: {key}");
    }
}
