pub use swiftlet::broker::stand_in::HashDir;
pub fn at(_device: &std::path::Path, dir: std::path::PathBuf, hash: swiftlet::hash_path::Hash) -> HashDir {
    HashDir::new(dir, hash)
}
