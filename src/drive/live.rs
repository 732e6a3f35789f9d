//! Raw handles on databases that SQLite uses at the same time, in this process and in others.
//!
//! POSIX gives a process's locks on a file away as soon as the process closes *any* descriptor of that file. SQLite's
//! locks are such locks, so reading a live database beside rusqlite and closing it again would silently unlock it under
//! a transaction. Hence the registry: whoever lets SQLite open a database holds an [`OpenGuard`] for as long, and a
//! [`LiveFile`] that is done while a guard for its file is alive is not closed but parked, until the last guard goes.
//!
//! Our own locks on a live database are locks of an open file description, on the very bytes that SQLite locks. They
//! hold off SQLite everywhere, in this process too, and closing another descriptor does not drop them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::{DriveError, holes, sys};

/// Announces that SQLite is about to open a database: take it before the connection is opened, keep it until after the
/// connection is closed.
pub fn opening(path: &Path) -> OpenGuard {
    // Asked before the registry is locked: a drive that hangs must not hold up the others.
    let inode = fs::metadata(path).ok().map(|metadata| inode(&metadata));
    let mut registry = registry();
    let number = registry.next;
    registry.next += 1;
    registry.open.push(Open { number, path: path.to_owned(), inode });
    OpenGuard { number }
}

/// SQLite has a database open in this process, or is about to.
#[derive(Debug)]
pub struct OpenGuard {
    number: u64,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut registry = registry();
        registry.open.retain(|open| open.number != self.number);
        let Registry { open, parked, .. } = &mut *registry;
        parked.retain(|file| open.iter().any(|open| open.may_be(&file.path, file.inode)));
    }
}

struct Registry {
    next: u64,
    open: Vec<Open>,
    parked: Vec<Parked>,
}

/// A database that SQLite may hold locks on.
struct Open {
    number: u64,
    path: PathBuf,
    /// What the path named when the guard was taken; it may name another file by now.
    inode: Option<Inode>,
}

impl Open {
    fn may_be(&self, path: &Path, inode: Inode) -> bool {
        self.path == path || self.inode == Some(inode)
    }
}

/// A descriptor that waits for the last guard of its file.
struct Parked {
    path: PathBuf,
    inode: Inode,
    _file: File,
}

/// Device and inode.
type Inode = (u64, u64);

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// Descriptors are closed with the registry locked, so that none is while SQLite opens the same file.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, open: Vec::new(), parked: Vec::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a database file looked like at one moment. Two that are equal mean that nothing was committed in between,
/// unless both lie within the grain of the file system's clock and nobody looked at the change counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// The inode's number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When its inode changed, in nanoseconds since 1970.
    pub changed_ns: i128,
    /// SQLite's own count of transactions; 0 if the file has no header.
    pub change_counter: u32,
}

impl FileStamp {
    fn new(metadata: &Metadata, change_counter: u32) -> FileStamp {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        FileStamp {
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            change_counter,
        }
    }
}

/// The part of a database's first page that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a page: a power of two, 512 to 65536.
    pub page_bytes: u32,
    /// SQLite's count of transactions.
    pub change_counter: u32,
    /// Pages of the database.
    pub size_pages: u64,
    /// Commits go to a `-wal` file. Swift never sets this, and nothing here reads such a file.
    pub write_ahead_log: bool,
}

impl Header {
    /// Reads the first [`Header::BYTES`] of a file of `file_bytes`; `None` if it is no database.
    pub fn parse(bytes: &[u8; Header::BYTES], file_bytes: u64) -> Option<Header> {
        let big_endian =
            |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let page_bytes = match u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65536,
            bytes => bytes,
        };
        let sound =
            bytes.starts_with(b"SQLite format 3\0") && page_bytes.is_power_of_two() && page_bytes >= 512;
        // The count of pages is good only if it was written together with the change counter.
        let size_pages = match (big_endian(28), big_endian(24) == big_endian(92)) {
            (pages @ 1.., true) => u64::from(pages),
            _ => file_bytes / u64::from(page_bytes.max(1)),
        };
        let write_ahead_log = bytes[18] == 2 || bytes[19] == 2;
        sound.then_some(Header { page_bytes, change_counter: big_endian(24), size_pages, write_ahead_log })
    }

    /// How much of the file it takes.
    pub const BYTES: usize = 100;
}

/// What we hold of SQLite's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Shared,
    Exclusive,
}

/// A raw handle on a database that others use. Safe to drop at any time; see the head of this file.
#[derive(Debug)]
pub struct LiveFile {
    path: PathBuf,
    inode: Inode,
    /// Taken out only when dropped.
    file: Option<File>,
    held: Held,
}

impl LiveFile {
    /// Opens a database to read it, and perhaps to lock others' writes out.
    pub fn open_read(path: &Path) -> io::Result<LiveFile> {
        LiveFile::open(path, OpenOptions::new().read(true))
    }

    /// Opens a database so that readers can be locked out too. It is never written through this handle.
    pub fn open_read_write(path: &Path) -> io::Result<LiveFile> {
        LiveFile::open(path, OpenOptions::new().read(true).write(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> io::Result<LiveFile> {
        let file = options.open(path)?;
        // Built at once: from here on the descriptor may only be closed by the rules.
        let mut live =
            LiveFile { path: path.to_owned(), inode: (0, 0), file: Some(file), held: Held::Nothing };
        live.inode = inode(&live.metadata()?);
        Ok(live)
    }

    /// The path it was opened by; it may name another file by now ([`LiveFile::is_current`]).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does its path still name this file?
    pub fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| inode(&metadata) == self.inode)
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_ref().expect("open until dropped")
    }

    /// Reads at `offset`; fewer bytes than asked for, or none, at the end of the file.
    pub fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file().read_at(buffer, offset)
    }

    /// Fills the buffer from `offset`, without reading what is a hole; with fewer bytes, or none, at the end of the file.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        holes::read(self.file(), offset, buffer)
    }

    /// What `fstat` says of it.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file().metadata()
    }

    /// Does all of it take room on the drive?
    pub(super) fn has_no_holes(&self) -> io::Result<bool> {
        let metadata = self.metadata()?;
        Ok(metadata.blocks() * 512 >= metadata.len())
    }

    /// Its header; `None` if it is no database.
    pub fn header(&self) -> io::Result<Option<Header>> {
        let mut bytes = [0; Header::BYTES];
        match self.file().read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Header::parse(&bytes, self.metadata()?.len())),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What it looks like now. Torn if somebody is writing; take it under a lock where that matters.
    pub fn stamp(&self) -> io::Result<FileStamp> {
        let change_counter = self.header()?.map_or(0, |header| header.change_counter);
        Ok(FileStamp::new(&self.metadata()?, change_counter))
    }

    /// Keeps writers from committing, as a reader of SQLite's does: through the pending byte, so that a writer who waits
    /// for readers to leave is let go first. Readers are not disturbed. Does nothing if a lock is held already.
    pub fn lock_shared(&mut self, timeout: Duration) -> Result<(), DriveError> {
        if self.held != Held::Nothing {
            return Ok(());
        }
        self.poll(timeout, |live| {
            if !live.try_lock(libc::F_RDLCK, PENDING_BYTE)? {
                return Ok(false);
            }
            let locked = live.try_lock(libc::F_RDLCK, SHARED_BYTES);
            live.try_lock(libc::F_UNLCK, PENDING_BYTE)?;
            locked
        })?;
        self.held = Held::Shared;
        Ok(())
    }

    /// Keeps readers and writers out, in SQLite's order: shared, reserved, pending, then the shared bytes for writing.
    /// On failure nothing is held. Needs [`LiveFile::open_read_write`].
    ///
    /// [`DriveError::HotJournal`] if a writer died and left the database to be rolled back: SQLite tells that by nobody
    /// holding the reserved byte, so with our lock on it a reader would take half a transaction for the truth.
    pub fn lock_exclusive(&mut self, timeout: Duration) -> Result<(), DriveError> {
        if self.held == Held::Exclusive {
            return Ok(());
        }
        let give_up = Instant::now() + timeout;
        let left = || give_up.saturating_duration_since(Instant::now());
        self.lock_shared(timeout)?;
        let outcome = self
            .refuse_hot_journal()
            .and_then(|()| self.poll(left(), |live| live.try_lock(libc::F_WRLCK, RESERVED_BYTE)))
            .and_then(|()| self.poll(left(), |live| live.try_lock(libc::F_WRLCK, PENDING_BYTE)))
            .and_then(|()| self.poll(left(), |live| live.try_lock(libc::F_WRLCK, SHARED_BYTES)));
        match outcome {
            Ok(()) => self.held = Held::Exclusive,
            Err(_) => self.unlock(),
        }
        outcome
    }

    /// Lets everybody in again.
    pub fn unlock(&mut self) {
        // Nothing to be done if it fails; closing the descriptor unlocks too.
        let _ = self.try_lock(libc::F_UNLCK, ALL_BYTES);
        self.held = Held::Nothing;
    }

    /// Is the exclusive lock held?
    pub fn is_exclusive(&self) -> bool {
        self.held == Held::Exclusive
    }

    /// Is somebody else preparing to write?
    pub fn reserved_by_other(&self) -> io::Result<bool> {
        let mut lock = flock(libc::F_WRLCK, RESERVED_BYTE);
        fcntl(self.file(), FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// Fails if a journal lies beside the database whose writer is gone. Only meaningful while a lock is held.
    pub fn refuse_hot_journal(&self) -> Result<(), DriveError> {
        let hot = self.is_hot().map_err(|e| DriveError::io(&journal_path(&self.path), e))?;
        if hot { Err(DriveError::HotJournal { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Does a journal lie beside the database whose writer is gone? Only meaningful while a lock is held.
    pub fn is_hot(&self) -> io::Result<bool> {
        // Asked again at the end: a living writer may have finished in between.
        Ok(self.has_journal()? && !self.reserved_by_other()? && self.has_journal()?)
    }

    /// Does a journal with something in it lie beside the database, whoever's it is?
    pub fn has_journal(&self) -> io::Result<bool> {
        journal_has_content(&journal_path(&self.path))
    }

    /// Has anybody else this file open, in this process or another? True as well if the file system cannot tell.
    pub fn open_elsewhere(&self) -> bool {
        match sys::take_lease(self.file()) {
            Ok(()) => sys::give_up_lease(self.file()).is_err(),
            Err(_) => true,
        }
    }

    fn poll(
        &self,
        timeout: Duration,
        attempt: impl Fn(&LiveFile) -> io::Result<bool>,
    ) -> Result<(), DriveError> {
        let give_up = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        while !attempt(self).map_err(|e| DriveError::io(&self.path, e))? {
            if Instant::now() >= give_up {
                return Err(DriveError::Busy { path: self.path.clone() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// False if another holds a lock in the way.
    fn try_lock(&self, kind: libc::c_int, bytes: Bytes) -> io::Result<bool> {
        match fcntl(self.file(), FcntlArg::F_OFD_SETLK(&flock(kind, bytes))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for LiveFile {
    fn drop(&mut self) {
        self.unlock();
        let Some(file) = self.file.take() else { return };
        let mut registry = registry();
        if registry.open.iter().any(|open| open.may_be(&self.path, self.inode)) {
            registry.parked.push(Parked { path: self.path.clone(), inode: self.inode, _file: file });
        } else {
            drop(file);
        }
    }
}

/// Where SQLite keeps the old pages of a transaction.
pub fn journal_path(database: &Path) -> PathBuf {
    beside(database, "-journal")
}

/// A database's path with something appended to its name.
pub(super) fn beside(database: &Path, end: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// A journal whose first byte is zero, or that has none, is no longer one (`PRAGMA journal_mode = PERSIST`, `TRUNCATE`).
fn journal_has_content(journal: &Path) -> io::Result<bool> {
    let mut first = [0];
    match File::open(journal).and_then(|file| file.read_at(&mut first, 0)) {
        Ok(_) => Ok(first != [0]),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn flock(kind: libc::c_int, (start, length): Bytes) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Start and length of a range that is locked.
type Bytes = (libc::off_t, libc::off_t);

/// The bytes that SQLite locks (`os.h: PENDING_BYTE` and those after it). The page around them carries no data.
const PENDING_BYTE: Bytes = (0x4000_0000, 1);
const RESERVED_BYTE: Bytes = (0x4000_0001, 1);
const SHARED_BYTES: Bytes = (0x4000_0002, 510);
const ALL_BYTES: Bytes = (0x4000_0000, 512);

/// A lock is asked for again after this, then after twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::super::testing::{Holder, INSERT, SELECT, SPILL, alone, bench, elsewhere, rows, sqlite};
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_shared_lock_holds_off_commits_but_no_readers() {
        let bench = bench();
        let path = bench.database();
        let mut live = LiveFile::open_read(&path).unwrap();
        live.lock_shared(LONG).unwrap();
        assert!(!elsewhere(&path, INSERT));
        assert!(elsewhere(&path, SELECT));
        live.unlock();
        assert!(elsewhere(&path, INSERT));
    }

    #[test]
    fn a_shared_lock_holds_off_commits_of_this_process_too() {
        let bench = bench();
        let path = bench.database();
        let connection = sqlite(&path);
        let mut live = LiveFile::open_read(&path).unwrap();
        live.lock_shared(LONG).unwrap();
        assert!(connection.execute_batch(INSERT).is_err());
        drop(live);
        connection.execute_batch(INSERT).unwrap();
    }

    #[test]
    fn an_exclusive_lock_holds_off_readers() {
        let bench = bench();
        let path = bench.database();
        let mut live = LiveFile::open_read_write(&path).unwrap();
        live.lock_exclusive(LONG).unwrap();
        assert!(live.is_exclusive());
        assert!(!elsewhere(&path, SELECT));
        assert!(!elsewhere(&path, INSERT));
        live.unlock();
        assert!(elsewhere(&path, INSERT));
    }

    #[test]
    fn an_exclusive_lock_that_fails_holds_nothing() {
        let bench = bench();
        let path = bench.database();
        let mut live = LiveFile::open_read_write(&path).unwrap();
        for held in ["BEGIN; SELECT count(*) FROM object", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
            let holder = Holder::start(&path, held);
            assert!(matches!(live.lock_exclusive(SOON), Err(DriveError::Busy { .. })), "{held}");
            drop(holder);
            assert!(!live.is_exclusive());
            assert!(elsewhere(&path, INSERT), "{held}");
        }
        live.lock_exclusive(LONG).unwrap();
    }

    #[test]
    fn the_shared_lock_waits_for_a_commit() {
        let bench = bench();
        let path = bench.database();
        let mut live = LiveFile::open_read(&path).unwrap();
        let holder = Holder::start(&path, "BEGIN EXCLUSIVE");
        assert!(matches!(live.lock_shared(SOON), Err(DriveError::Busy { .. })));
        drop(holder);
        live.lock_shared(LONG).unwrap();
    }

    #[test]
    fn a_writer_that_prepares_is_seen() {
        let bench = bench();
        let path = bench.database();
        let live = LiveFile::open_read(&path).unwrap();
        assert!(!live.reserved_by_other().unwrap());
        let holder = Holder::start(&path, "BEGIN IMMEDIATE");
        assert!(live.reserved_by_other().unwrap());
        drop(holder);
        assert!(!live.reserved_by_other().unwrap());
    }

    /// First that the trap exists, then that we do not step into it.
    #[test]
    fn closing_a_plain_file_drops_sqlites_locks_and_closing_a_live_one_does_not() {
        let bench = bench();
        let path = bench.database();
        let guard = opening(&path);
        let connection = sqlite(&path);

        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        drop(LiveFile::open_read(&path).unwrap());
        drop(LiveFile::open_read_write(&path).unwrap());
        assert!(!elsewhere(&path, INSERT), "the lock is still there");
        drop(File::open(&path).unwrap());
        assert!(elsewhere(&path, INSERT), "the trap is gone, and with it the need for this file");
        connection.execute_batch("ROLLBACK").unwrap();
        drop(connection);
        drop(guard);
    }

    #[test]
    fn a_live_file_by_another_name_is_parked_too() {
        let bench = bench();
        let path = bench.database();
        let other_name = bench.drive.root().join("link");
        fs::hard_link(&path, &other_name).unwrap();
        let guard = opening(&path);
        let connection = sqlite(&path);
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        drop(LiveFile::open_read(&other_name).unwrap());
        assert!(!elsewhere(&path, INSERT));
        drop(connection);
        drop(guard);
    }

    #[test]
    fn parked_files_are_closed_by_the_last_guard() {
        let bench = bench();
        let path = bench.database();
        let is_ours = |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|target| target == path);
        let open = || fs::read_dir("/proc/self/fd").unwrap().flatten().filter(is_ours).count();
        let (first, second) = (opening(&path), opening(&path));
        drop(LiveFile::open_read(&path).unwrap());
        drop(LiveFile::open_read(&path).unwrap());
        assert_eq!(open(), 2);
        drop(first);
        assert_eq!(open(), 2);
        drop(second);
        assert_eq!(open(), 0);
        drop(LiveFile::open_read(&path).unwrap());
        assert_eq!(open(), 0);
    }

    #[test]
    fn whoever_else_has_it_open_is_seen() {
        let bench = bench();
        let path = bench.database();
        let live = LiveFile::open_read_write(&path).unwrap();
        assert!(alone(&live));
        let holder = Holder::start(&path, SELECT);
        assert!(live.open_elsewhere());
        drop(holder);
        assert!(alone(&live));
        let connection = sqlite(&path);
        assert_eq!(rows(&connection), 1);
        assert!(live.open_elsewhere());
        drop(connection);
        assert!(alone(&live));
    }

    #[test]
    fn whoever_comes_during_a_lease_waits_and_breaks_it_and_we_live() {
        let bench = bench();
        let path = bench.database();
        let live = LiveFile::open_read_write(&path).unwrap();
        assert!(alone(&live));
        sys::take_lease(live.file()).unwrap();
        assert!(sys::lease_is_whole(live.file()));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| File::open(&path).unwrap());
            while sys::lease_is_whole(live.file()) {
                std::thread::yield_now();
            }
            assert!(!other.is_finished());
            sys::give_up_lease(live.file()).unwrap();
            other.join().unwrap();
        });
    }

    #[test]
    fn a_database_that_waits_to_be_rolled_back_is_not_locked_exclusively() {
        let bench = bench();
        let path = bench.database();
        let mut live = LiveFile::open_read_write(&path).unwrap();
        drop(Holder::start(&path, SPILL));
        assert!(journal_path(&path).exists());
        assert!(matches!(live.lock_exclusive(LONG), Err(DriveError::HotJournal { .. })));
        assert!(elsewhere(&path, SELECT));
        assert!(!journal_path(&path).exists());
        live.lock_exclusive(LONG).unwrap();
    }

    #[test]
    fn the_stamp_tells_of_every_commit() {
        let bench = bench();
        let path = bench.database();
        let live = LiveFile::open_read(&path).unwrap();
        let before = live.stamp().unwrap();
        assert_eq!(live.stamp().unwrap(), before);
        assert!(elsewhere(&path, INSERT));
        let after = live.stamp().unwrap();
        assert_eq!(after.change_counter, before.change_counter + 1);
        assert_eq!(after.inode, before.inode);
    }

    #[test]
    fn headers() {
        let bench = bench();
        let path = bench.database();
        let live = LiveFile::open_read(&path).unwrap();
        let header = live.header().unwrap().unwrap();
        assert_eq!((header.page_bytes, header.size_pages, header.write_ahead_log), (4096, 2, false));

        let mut bytes = [0; Header::BYTES];
        live.pread(0, &mut bytes).unwrap();
        let with = |at: usize, new: &[u8]| {
            let mut bytes = bytes;
            bytes[at..at + new.len()].copy_from_slice(new);
            Header::parse(&bytes, 70000)
        };
        assert_eq!(with(16, &[0, 1]).unwrap().page_bytes, 65536);
        assert_eq!(with(16, &[2, 0]).unwrap().page_bytes, 512);
        assert_eq!(with(28, &[0; 4]).unwrap().size_pages, 17);
        assert_eq!(with(92, &[9; 4]).unwrap().size_pages, 17);
        assert!(with(19, &[2]).unwrap().write_ahead_log);
        for bad in [with(16, &[0, 0]), with(16, &[1, 0]), with(16, &[3, 0]), with(0, b"s")] {
            assert_eq!(bad, None);
        }
    }
}
