//! One pass of a node at a time.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use crate::config::Config;

/// Held by a node's pass, so that two of them never overlap.
#[derive(Debug)]
pub struct PassLock {
    _lock: Flock<File>,
}

/// Why a pass cannot begin.
#[derive(Debug)]
pub enum PassLockError {
    /// Another pass of this node is running.
    Held(PathBuf),
    /// The lock file cannot be made.
    Io(PathBuf, io::Error),
}

impl fmt::Display for PassLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassLockError::Held(path) => {
                write!(f, "another pass of this node is running (it holds {})", path.display())
            }
            PassLockError::Io(path, error) => write!(
                f,
                "cannot make the lock file {}: {error}; set recon_cache_path to a directory that we may write",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PassLockError {}

impl PassLock {
    /// Takes the lock of this node, which is known by its address and port, or says who has it.
    ///
    /// # Errors
    /// [`PassLockError`]; it does not wait.
    pub fn take(config: &Config) -> Result<PassLock, PassLockError> {
        let name = format!("agent-{}-{}.lock", config.bind_ip.replace(['/', ':'], "_"), config.bind_port);
        let path = config.recon_cache_path.join(name);
        let failed = |error| PassLockError::Io(path.clone(), error);
        fs::create_dir_all(&config.recon_cache_path).map_err(failed)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(PassLock { _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(PassLockError::Held(path)),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}
