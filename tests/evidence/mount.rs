//! File systems for tests, in the mount namespace that their script has made.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system, unmounted when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs of a size.
    pub fn tmpfs(at: &Path, size: &str) -> Mount {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at));
        Mount(at.to_owned())
    }

    /// An ext4 in a new file, of which it takes no more than is written to it.
    pub fn ext4(at: &Path, image: &Path, size_bytes: u64) -> Mount {
        File::create_new(image).and_then(|file| file.set_len(size_bytes)).expect("a new file");
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-J", "size=32", "-E", "nodiscard"]).arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        Mount(at.to_owned())
    }

    /// Gives a tmpfs another size.
    pub fn grow(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }

    /// The room on it that is left.
    pub fn free_bytes(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).expect("it is mounted");
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the daemon may still have a database open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program is there");
    assert!(status.success(), "{command:?}: {status}");
}
