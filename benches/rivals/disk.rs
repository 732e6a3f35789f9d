//! The file systems that waits are measured on: that of the directory given, and others in a file mounted as a disk, which
//! may be as slow as one that turns.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::machine;

/// A file system to measure on.
pub struct Disk {
    /// As it stands in the tables.
    pub name: String,
    /// Where to work.
    pub dir: PathBuf,
    _slow: Option<Slow>,
    _mounted: Option<Mounted>,
}

impl Disk {
    /// The file system that `root` lies on.
    pub fn given(root: &Path) -> Disk {
        Disk { name: machine::file_system(root), dir: root.join("given"), _slow: None, _mounted: None }.made()
    }

    /// A new file system of this kind in a file below `root`.
    ///
    /// # Errors
    /// Why that cannot be had here.
    pub fn mounted(kind: &str, root: &Path, bytes: u64) -> Result<Disk, String> {
        if !nix::unistd::getuid().is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        let (image, at) = (root.join(format!("{kind}.image")), root.join(kind));
        fs::create_dir_all(&at).expect("a directory");
        // From here on whatever happens is undone.
        let mounted = Mounted { image: image.clone(), at: at.clone() };
        mounted.even_if_interrupted();
        fill(&image, bytes).map_err(|error| format!("no file of {} MB to mount: {error}", bytes >> 20))?;
        let quiet = if kind == "xfs" { ["-q", "-f"] } else { ["-q", "-F"] };
        run(Command::new(format!("mkfs.{kind}")).args(quiet).arg(&image))?;
        // Past the cache of the file below, or every block would be cached, and written back, twice.
        let device = run(Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&image))?;
        let outcome = run(Command::new("mount").args(["-t", kind, device.trim()]).arg(&at));
        // It goes when it is no longer mounted.
        run(Command::new("losetup").args(["--detach", device.trim()]))?;
        outcome?;
        let name = format!("{kind} in a file");
        Ok(Disk { name, dir: at.join("work"), _slow: None, _mounted: Some(mounted) }.made())
    }

    /// The same, as slow as a disk that turns: so many bytes, and so many reads and writes, a second.
    ///
    /// # Errors
    /// Why that cannot be had here.
    pub fn slow(kind: &str, root: &Path, bytes: u64) -> Result<Disk, String> {
        let mut disk = Disk::mounted(kind, root, bytes)?;
        let device = fs::metadata(&disk.dir).map_err(|error| error.to_string())?.dev();
        disk._slow = Some(Slow::make(device)?);
        disk.name = format!("a slow disk ({} MB/s, {SLOW_OPERATIONS} operations/s)", SLOW_BYTES >> 20);
        Ok(disk)
    }

    fn made(self) -> Disk {
        fs::create_dir_all(&self.dir).expect("a directory");
        self
    }
}

/// A file of so many bytes that are all written: in one with holes, each `fsync` of the file system in it would have to wait
/// until the one below has found room.
fn fill(image: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = File::create(image)?;
    nix::fcntl::posix_fallocate(&file, 0, bytes as i64)?;
    let piece = vec![0; 4 << 20];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        file.write_all(&piece[..now as usize])?;
        left -= now;
    }
    file.sync_all()
}

/// A device that everybody's reads and writes are held back on, until dropped: the kernel's block throttle (cgroup v1), set
/// for the root of all groups, holds back also what the kernel itself writes out for others.
struct Slow {
    device: String,
}

impl Slow {
    fn of(device: u64) -> Slow {
        Slow { device: format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device)) }
    }

    fn make(device: u64) -> Result<Slow, String> {
        // From here on whatever was set is undone.
        let slow = Slow::of(device);
        for (what, limit) in
            THROTTLES.into_iter().zip([SLOW_BYTES, SLOW_BYTES, SLOW_OPERATIONS, SLOW_OPERATIONS])
        {
            slow.limit(what, limit).map_err(|error| format!("no disk can be slowed down: {error}"))?;
        }
        Ok(slow)
    }

    fn limit(&self, what: &str, limit: u64) -> std::io::Result<()> {
        fs::write(format!("{THROTTLE}.{what}_device"), format!("{} {limit}", self.device))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        for what in THROTTLES {
            // Also what could not be set; a limit of nothing is none.
            let _ = self.limit(what, 0);
        }
    }
}

/// Unmounted and removed when dropped.
struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    /// Sees to it that it goes also when we are told to end.
    fn even_if_interrupted(&self) {
        let (image, at) = (self.image.clone(), self.at.clone());
        let mut signals = Signals::new([SIGINT, SIGTERM]).expect("signals");
        thread::spawn(move || {
            let signal = signals.forever().next();
            // A number that another device may have next.
            if let Ok(mounted) = fs::metadata(&at) {
                drop(Slow::of(mounted.dev()));
            }
            // At once by name; what is in it when the last process that has it open has ended.
            let _ = run(Command::new("umount").arg("--lazy").arg(&at));
            let _ = fs::remove_file(&image);
            std::process::exit(128 + signal.unwrap_or_default());
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let is_mounted = || {
            fs::read_to_string("/proc/mounts")
                .is_ok_and(|all| all.contains(&format!(" {} ", self.at.display())))
        };
        for _ in 0..UNMOUNTS {
            if !is_mounted() {
                break;
            }
            let _ = run(Command::new("umount").arg(&self.at));
            thread::sleep(UNMOUNT_PAUSE);
        }
        if is_mounted() {
            eprintln!(
                "######## {} is still mounted: unmount it and remove {} ########",
                self.at.display(),
                self.image.display()
            );
        } else {
            let _ = fs::remove_file(&self.image);
        }
    }
}

/// What a command prints.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Where the throttle of the root of all groups is.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle";
const THROTTLES: [&str; 4] = ["read_bps", "write_bps", "read_iops", "write_iops"];
/// About what a disk that turns does of reads and writes near each other.
const SLOW_BYTES: u64 = 60 << 20;
const SLOW_OPERATIONS: u64 = 300;
/// A process that was just killed may keep it busy for a moment.
const UNMOUNTS: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);
