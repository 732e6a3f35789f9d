//! New databases: made in `tmp`, synced, and only then given the name under which everybody looks for them.
//!
//! Swift renames an arrived file over the old one and lets chance decide (`swift-facts.md` 13.2, 13.3): rows that are
//! committed in that moment are gone, and a journal left beside the new file is rolled back into it. Here a new file
//! takes an old one's place only in a moment in which nobody else has the old one open, which busy databases have many of:
//! container servers open one for each request. The moment is no longer than two files need to change names. What was
//! written to the old one shortly before is still in it, and is taken in from there before it goes; should we die first,
//! the next pass finds it. Whoever cannot have such a moment merges in place.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};

use super::live::{self, LiveFile};
use super::{DirLock, Drive, DriveError, HashDir, random_name, sys};
use crate::hash_path::Hash;

/// A file in `tmp`, ours alone, mode 0600. Gone when dropped, unless it was installed.
#[derive(Debug)]
pub struct Staged {
    file: File,
    name: TmpName,
}

impl Staged {
    pub(super) fn create(tmp: &Path, name: &str) -> Result<Staged, DriveError> {
        let room =
            (0..=LONGEST_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let path = tmp.join(random_name(&format!("{}.", &name[..room]), 8));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok(Staged { file: file.map_err(|e| DriveError::io(&path, e))?, name: TmpName(path) })
    }

    /// A staged file whose handle was closed already.
    fn again(name: TmpName) -> Result<Staged, DriveError> {
        let file = OpenOptions::new().read(true).write(true).open(&name.0);
        Ok(Staged { file: file.map_err(|e| DriveError::io(&name.0, e))?, name })
    }

    /// The file, open to read and write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is now. SQLite may open it there; its connection must be closed before the file is installed.
    pub fn path(&self) -> &Path {
        &self.name.0
    }

    /// Sees to it that `bytes` from the start can be written. [`DriveError::Full`] if they cannot; nothing is done
    /// where the file system does not know how.
    pub fn preallocate(&self, bytes: u64) -> Result<(), DriveError> {
        let length = i64::try_from(bytes).map_err(|_| DriveError::Full { path: self.path().to_owned() })?;
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(()),
            Err(Errno::EFBIG) => Err(DriveError::Full { path: self.path().to_owned() }),
            Err(errno) => Err(DriveError::io(self.path(), errno.into())),
        }
    }

    /// Makes the content lasting. A file that could not be synced is thrown away: the kernel has forgotten what it
    /// could not write, so another sync would succeed and mean nothing.
    pub fn sync(self) -> Result<Staged, DriveError> {
        match self.file.sync_all() {
            Ok(()) => Ok(self),
            Err(e) => Err(DriveError::io(self.path(), e)),
        }
    }

    /// Puts the file where no database is yet, as `file_name` of a hash directory whose lock is held.
    ///
    /// Synced here, but a large file is better synced before the lock is taken. When this returns, file and directories
    /// are on disk. On [`InstallError::Drive`] the database may be in place all the same, only not certain to last.
    pub fn install_new(self, dir: &HashDir, file_name: &str, lock: &DirLock) -> Result<(), InstallError> {
        check_place(dir, file_name, lock)?;
        let place = dir.dir().join(file_name);
        let failed = |e| InstallError::Drive(DriveError::io(&place, e));
        let Staged { file, mut name } = self.sync()?;
        if dir.in_charge().map_err(failed)?.is_some() {
            return Err(InstallError::Taken { path: place, unused: Staged { file, name } });
        }
        if remove_strays(&place).map_err(failed)? {
            // Else a crash could leave both the new file and the journal that does not belong to it.
            dir.sync().map_err(failed)?;
        }
        // Closed before SQLite can have opened it under its new name.
        drop(file);
        match renameat2(AT_FDCWD, &name.0, AT_FDCWD, &place, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {
                return Err(InstallError::Taken { path: place, unused: Staged::again(name)? });
            }
            outcome => outcome.map_err(|errno| failed(errno.into()))?,
        }
        name.forget();
        dir.sync().map_err(failed)
    }

    /// Makes the content lasting and gives the file the name that the one it is to replace will have, so that
    /// [`Staged::replace`] has nothing left to do that takes time. If this process ends before the two change names, its rows
    /// are swept into the old one, which is as good.
    ///
    /// What is written to it afterwards is not lasting.
    pub fn stand_by(self, dir: &HashDir) -> Result<Staged, DriveError> {
        let tmp = dir.device().join("tmp");
        let failed = |e| DriveError::io(&tmp, e);
        let Staged { file, mut name } = self.sync()?;
        // Else a sweep that comes by might take it for one that was left.
        file.set_modified(SystemTime::now()).map_err(failed)?;
        let path = tmp.join(random_name(&format!("{}.", dir.hash()), 16) + REPLACED);
        fs::rename(&name.0, &path).map_err(failed)?;
        name.forget();
        let staged = Staged { file, name: TmpName(path) };
        File::open(&tmp).and_then(|tmp| tmp.sync_all()).map_err(failed)?;
        Ok(staged)
    }

    /// Puts the file in the place of a live database in a moment in which nobody else has that open:
    ///
    /// * its path still names it, and no other database lies beside it;
    /// * no journal lies beside it;
    /// * nobody else has it open, nor comes for it while it is renamed.
    ///
    /// Else [`InstallError::Busy`]: try another moment, or merge in place. Nobody waits for anything in this but those who
    /// come in that very moment, and they for two renames. [`Staged::stand_by`] comes first.
    ///
    /// The old file gets a name in `tmp`. What came into it since its rows were merged into this one is only there: see
    /// [`Replaced::settle`].
    pub fn replace(self, mut old: LiveFile, dir: &HashDir, lock: &DirLock) -> Result<Replaced, InstallError> {
        let file_name = old.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_place(dir, file_name, lock)?;
        let Staged { file, mut name } = self;
        assert!(name.0.to_string_lossy().ends_with(REPLACED), "stand_by comes first");
        // From here on whoever comes for either file waits inside `open`.
        let outcome = match sys::take_lease(old.file()).and_then(|()| sys::take_lease(&file)) {
            Ok(()) => swap(&mut old, dir, &name.0, &file),
            Err(_) => Ok(Some(Why::OpenElsewhere)),
        };
        let undisturbed = sys::lease_is_whole(old.file());
        // These fail only if the lease is gone, and then nobody waits for it.
        let give_up = |file: &File| _ = sys::give_up_lease(file);
        match outcome {
            Ok(None) => {
                // Gives up its lease as well, and not before: closed later, it would take the locks of whoever came in then.
                drop(file);
                give_up(old.file());
                // As before: now it is this one that a sweep must leave alone. If it does not, no harm is done.
                let _ = old.file().set_modified(SystemTime::now());
                Ok(Replaced { link: name.forget(), old, undisturbed })
            }
            Ok(Some(why)) => {
                old.unlock();
                give_up(old.file());
                give_up(&file);
                Err(InstallError::Busy { why, unused: Staged { file, name } })
            }
            Err(error) => {
                // Which of them has which name is not known: both stay.
                name.forget();
                drop(file);
                give_up(old.file());
                Err(error.into())
            }
        }
    }
}

/// Lets the new file, at `link`, and the old one change names, unless something stands in the way. The old one is locked
/// then.
fn swap(old: &mut LiveFile, dir: &HashDir, link: &Path, new: &File) -> Result<Option<Why>, DriveError> {
    let failed = |e| DriveError::io(dir.dir(), e);
    if !old.is_current() || dir.db_files().map_err(failed)? != [old.path()] {
        return Ok(Some(Why::Moved));
    }
    if leftovers(old.path()).iter().any(|path| fs::symlink_metadata(path).is_ok()) {
        return Ok(Some(Why::Journal));
    }
    match old.lock_exclusive(Duration::ZERO) {
        Err(DriveError::Busy { .. }) => return Ok(Some(Why::Locked)),
        locked => locked?,
    }
    let done = exchange(old.path(), old.file(), link, new).map_err(failed)?;
    Ok(if done { None } else { Some(Why::OpenElsewhere) })
}

/// Lets two files change names while we have a lease on each, so that whoever comes for either of them in this moment
/// waits inside `open`. If somebody has come for the old one, which would then be without a name, they change back: false.
///
/// Should others have come for both at once, those who came for the old one find it locked until they give up.
fn exchange(place: &Path, old: &File, link: &Path, new: &File) -> io::Result<bool> {
    let swap =
        || Ok::<_, io::Error>(renameat2(AT_FDCWD, link, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE)?);
    match swap() {
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => return Ok(false),
        outcome => outcome?,
    }
    if sys::lease_is_whole(old) || !sys::lease_is_whole(new) {
        return Ok(true);
    }
    swap()?;
    if sys::lease_is_whole(new) {
        return Ok(false);
    }
    swap()?;
    Ok(true)
}

/// A path in `tmp` that is unlinked when dropped, with what SQLite may have left beside it.
#[derive(Debug)]
struct TmpName(PathBuf);

impl TmpName {
    /// The path is no longer ours to unlink.
    fn forget(&mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for TmpName {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            let _ = fs::remove_file(&self.0);
            let _ = remove_strays(&self.0);
        }
    }
}

fn check_place(dir: &HashDir, file_name: &str, lock: &DirLock) -> Result<(), InstallError> {
    assert_eq!(lock.dir(), dir.dir(), "the lock of another directory");
    if file_name.contains('/') || !dir.owns(file_name) {
        return Err(InstallError::BadName { name: file_name.to_owned() });
    }
    Ok(())
}

/// What SQLite may keep beside a database, and would take for part of any file of that name.
fn leftovers(database: &Path) -> [PathBuf; 3] {
    ["-journal", "-wal", "-shm"].map(|end| live::beside(database, end))
}

/// Unlinks what a database that is gone has left; true if there was anything.
fn remove_strays(database: &Path) -> io::Result<bool> {
    let mut any = false;
    for stray in leftovers(database) {
        match fs::remove_file(stray) {
            Ok(()) => any = true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => (),
            Err(e) => return Err(e),
        }
    }
    Ok(any)
}

/// A database whose name another file has now. Still locked, so that whoever opened it in the very moment of the swap
/// can neither read nor write it, and is told "busy" instead: he would take the new file's journal for one of this.
#[derive(Debug)]
pub struct Replaced {
    link: PathBuf,
    undisturbed: bool,
    old: LiveFile,
}

impl Replaced {
    /// Where the old file is now: in `tmp`.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Did nobody come for the old file while it was renamed?
    pub fn undisturbed(&self) -> bool {
        self.undisturbed
    }

    /// Waits until nobody else has the old file open, which in practice is at once: nobody can write to it any more then.
    /// Whoever slipped in gives up after SQLite's busy timeout, 25 s in Swift; if he is still there after `timeout`, he is
    /// left there. In either case the old file is unlocked, and can be read.
    pub fn settle(self, timeout: Duration) -> Settled {
        let give_up = Instant::now() + timeout;
        while self.old.open_elsewhere() {
            if Instant::now() >= give_up {
                return Settled::StillOpen { link: self.link };
            }
            std::thread::sleep(SETTLE_POLL);
        }
        Settled::Quiet { link: self.link }
    }
}

/// What became of a replaced database. Take in what is in it before anything else.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nobody has it, and it can go once its late rows are taken in.
    Quiet {
        /// Where it lies.
        link: PathBuf,
    },
    /// Somebody may yet write to it: look again later.
    StillOpen {
        /// Where it lies.
        link: PathBuf,
    },
}

/// A replaced database that nobody settled, say because the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it lies.
    pub path: PathBuf,
    /// The container it is of.
    pub hash: Hash,
}

/// The replaced databases in a drive's `tmp`, whose rows must be merged into the container before they are unlinked.
/// Those of swaps that run at this moment are among them: skip what is younger than a swap may take.
pub fn replaced_files(drive: &Drive) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(drive.tmp()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(REPLACED) else { continue };
        if let Some(Ok(hash)) = name.split('.').next().map(str::parse) {
            found.push(Leftover { path, hash });
        }
    }
    Ok(found)
}

/// Why a live database could not be replaced just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody holds a lock on it all the same.
    Locked,
    /// Its path names another file by now, or another database lies beside it.
    Moved,
    /// A journal lies beside it.
    Journal,
    /// Somebody has it open, or the file system cannot tell.
    OpenElsewhere,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Locked => "somebody holds a lock on it",
            Why::Moved => "another file has taken its place",
            Why::Journal => "a journal lies beside it",
            Why::OpenElsewhere => "somebody else has it open",
        })
    }
}

/// Why a staged file did not become the database.
#[derive(Debug)]
pub enum InstallError {
    /// Not the name of a database file of that hash.
    BadName {
        /// The name.
        name: String,
    },
    /// There is a database already.
    Taken {
        /// Where the new one was to be.
        path: PathBuf,
        /// The new one.
        unused: Staged,
    },
    /// The old one cannot be replaced without losing something: merge in place.
    Busy {
        /// What stands in the way.
        why: Why,
        /// The new one.
        unused: Staged,
    },
    /// The drive.
    Drive(DriveError),
}

impl From<DriveError> for InstallError {
    fn from(error: DriveError) -> InstallError {
        InstallError::Drive(error)
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::BadName { name } => write!(f, "not the name of a database of this hash: {name:?}"),
            InstallError::Taken { path, .. } => write!(f, "there is a database already: {}", path.display()),
            InstallError::Busy { why, .. } => write!(f, "the database cannot be replaced now: {why}"),
            InstallError::Drive(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InstallError::Drive(error) => error.source(),
            _ => None,
        }
    }
}

/// Ends the name of a replaced database in `tmp`: `<hash>.<random>.replaced`.
pub(super) const REPLACED: &str = ".replaced";
/// The longest part of a staged file's name that the caller chooses: 255 bytes less what we and SQLite append.
const LONGEST_NAME: usize = 200;
/// How often a replaced database is looked at again while somebody has it open.
const SETTLE_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use rusqlite::Connection;

    use super::super::live::journal_path;
    use super::super::testing::{Bench, Holder, INSERT, SELECT, alone, bench, elsewhere, fill, rows, sqlite};
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    /// A staged database of one row.
    fn staged(bench: &Bench) -> Staged {
        let staged = bench.drive.stage("an-id").unwrap();
        fill(staged.path());
        staged
    }

    fn in_tmp(bench: &Bench) -> Vec<PathBuf> {
        fs::read_dir(bench.drive.tmp()).unwrap().flatten().map(|entry| entry.path()).collect()
    }

    #[test]
    fn a_staged_file_is_ours_alone_and_gone_when_dropped() {
        let bench = bench();
        let (first, second) = (bench.drive.stage("an-id").unwrap(), bench.drive.stage("an-id").unwrap());
        assert_ne!(first.path(), second.path());
        assert!(first.path().file_name().unwrap().to_str().unwrap().starts_with("an-id."));
        assert_eq!(first.file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(journal_path(first.path()), "left by SQLite").unwrap();
        drop((first.sync().unwrap(), second));
        assert_eq!(in_tmp(&bench), Vec::<PathBuf>::new());
        assert!(bench.drive.stage(&"é".repeat(1000)).is_ok());
    }

    #[test]
    fn what_cannot_fit_is_refused_early() {
        let bench = bench();
        let staged = bench.drive.stage("an-id").unwrap();
        staged.preallocate(1 << 20).unwrap();
        assert_eq!(staged.file().metadata().unwrap().len(), 0);
        for bytes in [u64::MAX, 1 << 62] {
            assert!(matches!(staged.preallocate(bytes), Err(DriveError::Full { .. })), "{bytes}");
        }
    }

    #[test]
    fn a_new_database_takes_its_place_once() {
        let bench = bench();
        let dir = bench.hash_dir();
        let name = format!("{}.db", dir.hash());
        let lock = dir.lock(LONG).unwrap();
        staged(&bench).install_new(&dir, &name, &lock).unwrap();
        assert_eq!(rows(&sqlite(&dir.dir().join(&name))), 1);
        for name in [&name, &format!("{}_1750039210.82784.db", dir.hash())] {
            assert!(matches!(staged(&bench).install_new(&dir, name, &lock), Err(InstallError::Taken { .. })));
        }
        assert_eq!(in_tmp(&bench), Vec::<PathBuf>::new());
    }

    #[test]
    fn names_that_are_not_of_this_hash_are_refused() {
        let bench = bench();
        let dir = bench.hash_dir();
        let lock = dir.lock(LONG).unwrap();
        let hash = dir.hash();
        for name in
            ["", "x.db", &format!("{hash}"), &format!("{hash}.db.pending"), &format!("{hash}_/../../x.db")]
        {
            let outcome = staged(&bench).install_new(&dir, name, &lock);
            assert!(matches!(outcome, Err(InstallError::BadName { .. })), "{name}");
        }
    }

    /// `swift-facts.md` 13.3: SQLite would roll it back into the new file.
    #[test]
    fn a_journal_without_its_database_does_not_reach_the_new_one() {
        let bench = bench();
        let dir = bench.hash_dir();
        let path = bench.database();
        drop(Holder::start(&path, super::super::testing::SPILL));
        fs::remove_file(&path).unwrap();
        assert!(journal_path(&path).exists());
        let lock = dir.lock(LONG).unwrap();
        let staged = staged(&bench);
        sqlite(staged.path()).execute_batch(INSERT).unwrap();
        staged.install_new(&dir, &format!("{}.db", dir.hash()), &lock).unwrap();
        assert_eq!(rows(&sqlite(&path)), 2);
    }

    /// What `replace` answers for the database of `bench` after `meddle` had its way with it.
    fn replace(bench: &Bench, meddle: impl FnOnce(&Path)) -> Result<Replaced, InstallError> {
        let dir = bench.hash_dir();
        let path = bench.database_path();
        let lock = dir.lock(LONG).unwrap();
        let old = LiveFile::open_read_write(&path).unwrap();
        assert!(alone(&old));
        let staged = staged(bench);
        sqlite(staged.path()).execute_batch("DELETE FROM object").unwrap();
        let staged = staged.stand_by(&dir).unwrap();
        meddle(&path);
        staged.replace(old, &dir, &lock)
    }

    #[test]
    fn a_quiet_database_is_replaced() {
        let bench = bench();
        let path = bench.database();
        let replaced = replace(&bench, |_| ()).unwrap();
        assert!(replaced.undisturbed());
        assert_eq!(rows(&sqlite(&path)), 0);
        assert!(elsewhere(&path, INSERT));
        assert_eq!(rows(&sqlite(&path)), 1);
        let link = replaced.link().to_owned();
        assert_eq!(replaced.settle(LONG), Settled::Quiet { link: link.clone() });
        assert_eq!(in_tmp(&bench), [link]);
    }

    /// Its last rows, say.
    #[test]
    fn what_was_written_just_before_is_still_in_the_replaced_file() {
        let bench = bench();
        let path = bench.database();
        let replaced = replace(&bench, |path| assert!(elsewhere(path, INSERT))).unwrap();
        assert_eq!(rows(&sqlite(&path)), 0);
        let Settled::Quiet { link } = replaced.settle(LONG) else { panic!("nobody has it open") };
        assert_eq!(rows(&sqlite(&link)), 2);
        assert!(elsewhere(&link, SELECT));
    }

    #[test]
    fn a_database_in_use_is_not_replaced() {
        let ways = ["locked", "renamed", "another beside it", "journal", "open elsewhere"];
        for way in ways {
            let bench = bench();
            let path = bench.database();
            let epoch =
                bench.hash_dir().dir().join(format!("{}_1750039210.82784.db", bench.hash_dir().hash()));
            let mut others = None;
            let outcome = replace(&bench, |path| match way {
                "locked" => {
                    // Only by another of our own handles, whose lease is in the way before the lock is.
                    let mut live = LiveFile::open_read(path).unwrap();
                    live.lock_shared(LONG).unwrap();
                    others = Some((Some(live), None));
                }
                "renamed" => {
                    fs::rename(path, path.with_extension("old")).unwrap();
                    fs::write(path, "").unwrap();
                }
                "another beside it" => fs::write(&epoch, "").unwrap(),
                "journal" => fs::write(journal_path(path), "").unwrap(),
                _ => others = Some((None, Some(Holder::start(path, "")))),
            });
            let expected = match way {
                "renamed" | "another beside it" => Why::Moved,
                "journal" => Why::Journal,
                _ => Why::OpenElsewhere,
            };
            match outcome {
                Err(InstallError::Busy { why, unused }) => {
                    assert_eq!(why, expected, "{way}");
                    // Handed back whole, for the caller to use otherwise or to let go; nothing but it is left.
                    assert_eq!(rows(&sqlite(unused.path())), 0, "{way}");
                    assert_eq!(in_tmp(&bench), [unused.path()], "{way}");
                }
                outcome => panic!("{way}: {outcome:?}"),
            }
            drop(others);
            assert_eq!(in_tmp(&bench), Vec::<PathBuf>::new(), "{way}");
            let _ = (fs::remove_file(journal_path(&path)), fs::remove_file(&epoch));
            let old = if way == "renamed" { path.with_extension("old") } else { path };
            assert_eq!(rows(&sqlite(&old)), 1, "{way}");
            assert!(elsewhere(&old, INSERT), "{way}: the lease or a lock is still there");
        }
    }

    /// Writers come and go, and the file takes its place in one of the moments in which none is there.
    #[test]
    fn a_busy_database_is_replaced_between_two_writers() {
        let bench = bench();
        let path = bench.database();
        let dir = bench.hash_dir();
        let mut staged = staged(&bench).stand_by(&dir).unwrap();
        let before = staged.file().metadata().unwrap().ino();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (replaced, written) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || written < 20 {
                    let connection = Connection::open(&path).unwrap();
                    connection.busy_timeout(LONG).unwrap();
                    connection.execute_batch(INSERT).unwrap();
                    drop(connection);
                    written += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                written
            });
            let replaced = loop {
                let lock = dir.lock(LONG).unwrap();
                match staged.replace(LiveFile::open_read_write(&path).unwrap(), &dir, &lock) {
                    Ok(replaced) => break replaced,
                    Err(InstallError::Busy { unused, .. }) => staged = unused,
                    Err(error) => panic!("{error}"),
                }
            };
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            (replaced, writer.join().unwrap())
        });
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
        let Settled::Quiet { link } = replaced.settle(LONG) else { panic!("all writers have gone") };
        // One row was in each of the two files to begin with.
        assert_eq!(rows(&sqlite(&path)) + rows(&sqlite(&link)), 2 + written);
    }

    #[test]
    fn whoever_has_the_replaced_file_cannot_use_it_until_it_is_given_up() {
        let bench = bench();
        bench.database();
        let replaced = replace(&bench, |_| ()).unwrap();
        let link = replaced.link().to_owned();
        let hash = bench.hash_dir().hash();
        assert_eq!(replaced_files(&bench.drive).unwrap(), [Leftover { path: link.clone(), hash }]);
        let late = Holder::start(&link, "");
        assert!(!elsewhere(&link, SELECT));
        assert_eq!(replaced.settle(SOON), Settled::StillOpen { link: link.clone() });
        assert!(elsewhere(&link, INSERT));
        drop(late);
    }

    #[test]
    fn the_late_comer_who_leaves_in_time_leaves_nothing_behind() {
        let bench = bench();
        bench.database();
        let replaced = replace(&bench, |_| ()).unwrap();
        let link = replaced.link().to_owned();
        let late = Holder::start(&link, "");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(SOON);
                drop(late);
            });
            assert_eq!(replaced.settle(LONG), Settled::Quiet { link });
        });
    }

    #[test]
    fn reclaiming_spares_replaced_files() {
        let bench = bench();
        let tmp = bench.drive.tmp();
        fs::create_dir(&tmp).unwrap();
        let replaced = tmp.join("y.1.2.replaced");
        fs::write(&replaced, "").unwrap();
        fs::create_dir_all(tmp.join("half.removed/x")).unwrap();
        bench.drive.reclaim_tmp(SystemTime::now() + LONG).unwrap();
        assert_eq!(in_tmp(&bench), [replaced]);
    }

    /// Lets somebody come for each of the `wanted` in the moment of the exchange: whether it took place, and whether he
    /// who came for the old file has one with a name.
    fn exchanged(wanted: &[&str]) -> (bool, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let [old, new] = ["old", "new"].map(|name| {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path(name)).unwrap();
            // Another test that starts a process at this moment has everything open too, for this moment.
            while sys::take_lease(&file).is_err() {
                std::thread::sleep(SETTLE_POLL);
            }
            file
        });
        std::thread::scope(|scope| {
            let comers: Vec<_> =
                wanted.iter().map(|name| scope.spawn(|| File::open(path(name)).unwrap())).collect();
            for (name, file) in [("old", &old), ("new", &new)] {
                while wanted.contains(&name) && sys::lease_is_whole(file) {
                    std::thread::sleep(SETTLE_POLL);
                }
            }
            let done = exchange(&path("old"), &old, &path("new"), &new).unwrap();
            drop((old, new));
            let inode = |file: &File| file.metadata().unwrap().ino();
            let mut came = comers.into_iter().map(|comer| comer.join().unwrap());
            let in_place = inode(&File::open(path("old")).unwrap());
            (done, came.next().is_none_or(|file| inode(&file) == in_place))
        })
    }

    #[test]
    fn whoever_comes_for_a_database_in_the_moment_of_its_replacement_keeps_it_in_its_place() {
        assert_eq!(exchanged(&[]), (true, true));
        assert_eq!(exchanged(&["old"]), (false, true));
        assert_eq!(exchanged(&["new"]), (true, true));
        assert_eq!(exchanged(&["old", "new"]), (true, false));
    }
}
