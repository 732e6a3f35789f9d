//! The file for node_exporter's textfile collector: the text that Prometheus would be answered with, for nodes whose passes
//! come from cron or where no further port is wanted.
//!
//! It is replaced as a whole, so that it is never read half written; the collector passes by whatever does not end in
//! `.prom`, as the file that is being written does not.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use log::warn;

use super::STACK_BYTES;
use super::pages::Pages;
use crate::status::kept::sweep_of;

/// A file that is kept up to date for as long as this lives.
#[derive(Debug)]
pub struct Textfile {
    file: Arc<File>,
    /// What the thread waits on.
    wake: SyncSender<()>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    pages: Arc<Pages>,
    /// Held by who writes.
    writing: Mutex<()>,
    /// That it cannot be written was told.
    told: AtomicBool,
}

impl Textfile {
    /// Writes it now and then, and whenever it is asked for.
    pub fn keep(path: PathBuf, pages: Pages) -> Textfile {
        sweep_of(path.parent().unwrap_or(Path::new("/")), UNFINISHED);
        let (wake, woken) = sync_channel(1);
        let file = Arc::new(File {
            path,
            pages: Arc::new(pages),
            writing: Mutex::default(),
            told: AtomicBool::new(false),
        });
        let keeping = file.clone();
        let keep = move || {
            while let Ok(()) | Err(RecvTimeoutError::Timeout) = woken.recv_timeout(INTERVAL) {
                keeping.write();
            }
        };
        if let Err(error) = thread::Builder::new().name("textfile".into()).stack_size(STACK_BYTES).spawn(keep)
        {
            warn!("no thread to write {} with: {error}", file.path.display());
        }
        Textfile { file, wake }
    }

    /// Has it written by the thread.
    pub fn write_soon(&self) {
        // If it is about to be written already, so much the better.
        let _ = self.wake.try_send(());
    }

    /// Writes it.
    pub fn write(&self) {
        self.file.write();
    }
}

impl File {
    fn write(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Without figures it stays as old as it is, which shows.
        let Some(text) = self.pages.of_now() else { return };
        let Err(error) = replace(&self.path, &text) else { return self.told.store(false, Ordering::Relaxed) };
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(
                "{}: {error}; does agent_textfile_path name a place where we may write?",
                self.path.display()
            );
        }
    }
}

/// Puts a text in place of a file, whole or not at all. All may read it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(".part")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    // Whatever umask is in force.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// What the name of a file begins with that is being written.
const UNFINISHED: &str = ".swiftlet-";
/// How old it gets while nothing happens, or a pass goes on.
const INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_all_may_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("swiftlet.prom");
        replace(&path, "a 1\n").expect("written");
        let open = fs::File::open(&path).expect("there");
        replace(&path, "a 2\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "a 2\n");
        assert_eq!(io::read_to_string(open).expect("text"), "a 1\n", "who reads it reads one of them");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left over");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("swiftlet.prom");
        fs::create_dir(&path).expect("something in the way");
        assert!(replace(&path, "a 1\n").is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left over");
        assert!(replace(Path::new("/nowhere/at/all.prom"), "a 1\n").is_err());
    }
}
