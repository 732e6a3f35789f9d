//! Stands in for `drive` until it is there.
#![allow(missing_docs)]
use crate::hash_path::Hash;
use nix::fcntl::{Flock, FlockArg};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct HashDir {
    dir: PathBuf,
    hash: Hash,
}
pub struct DirLock(#[allow(dead_code)] Flock<std::fs::File>);
#[derive(Debug)]
pub enum DriveError {
    Busy,
    Io(io::Error),
}
impl HashDir {
    pub fn new(dir: PathBuf, hash: Hash) -> HashDir {
        HashDir { dir, hash }
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn hash(&self) -> Hash {
        self.hash
    }
    pub fn pending_path(&self) -> PathBuf {
        self.dir.join(format!("{}.db.pending", self.hash))
    }
    pub fn db_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            let stem = name.strip_suffix(".db");
            if stem.is_some_and(|s| s.split('_').next() == Some(&self.hash.to_string())) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names.into_iter().map(|n| self.dir.join(n)).collect())
    }
    pub fn lock(&self, timeout: Duration) -> Result<DirLock, DriveError> {
        std::fs::create_dir_all(&self.dir).map_err(DriveError::Io)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join(".lock"))
            .map_err(DriveError::Io)?;
        let start = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(DirLock(lock)),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) if start.elapsed() < timeout => file = back,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(DriveError::Busy),
                Err((_, e)) => return Err(DriveError::Io(e.into())),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
pub mod live {
    pub struct OpenGuard;
    pub fn opening(_: &std::path::Path) -> OpenGuard {
        OpenGuard
    }
}
