//! What a container's directory looks like from outside: enough to know that nothing in it changed.
//!
//! Whoever changes a container changes one of three inodes: the directory, when a file comes, goes or is renamed in it
//! (a new database, a journal, the first pending row); the database file, when SQLite commits or rolls back; the pending
//! file, when a container server appends to it. Times of change (`ctime`) cannot be set back, so a file that is restored
//! with its old times shows as well. What cannot be told apart is two changes within one tick of the clock: hence
//! [`Sight::is_settled`].

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::HashDir;

/// Three inodes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Stands for all that `stat` says of them that matters: equal ones looked equal.
    pub fingerprint: [u8; 16],
    /// The latest of their times, in nanoseconds since 1970.
    newest_ns: i128,
    /// The file in charge is the only one, and goes by the usual name: what most containers are.
    usual: bool,
}

impl Sight {
    /// Nothing changed so recently before `now` that another change could have left the same times; and no second file
    /// is there whose changes would not show. What was read between two equal sights is then what is there for as long
    /// as the sight stays the same.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        self.usual && is_settled(self.newest_ns, now)
    }
}

impl HashDir {
    /// What it looks like now; `None` if there is no database in it.
    ///
    /// # Errors
    /// As `stat`.
    pub fn sight(&self) -> io::Result<Option<Sight>> {
        let Some(dir) = stat(self.dir())?.filter(Metadata::is_dir) else { return Ok(None) };
        let usual = self.usual_path();
        let (file, usual, name) = match stat(&usual)? {
            Some(file) => (file, true, usual),
            None => match self.in_charge()? {
                None => return Ok(None),
                Some(path) => match stat(&path)? {
                    Some(file) => (file, false, path),
                    None => return Ok(None),
                },
            },
        };
        let pending = stat(&self.pending_path())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.file_name().unwrap_or_default().as_bytes());
        let mut newest_ns = i128::MIN;
        // A database's own directory has no other size or times than what comes and goes in it gives it.
        for inode in [Some(&dir), Some(&file), pending.as_ref()] {
            let Some(inode) = inode else {
                hasher.update(b"-");
                continue;
            };
            for number in [inode.dev(), inode.ino(), inode.size()] {
                hasher.update(&number.to_le_bytes());
            }
            for time in times(inode) {
                newest_ns = newest_ns.max(time);
                hasher.update(&time.to_le_bytes());
            }
        }
        let hash = hasher.finalize();
        let fingerprint = std::array::from_fn(|at| hash.as_bytes()[at]);
        Ok(Some(Sight { fingerprint, newest_ns, usual }))
    }
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// When an inode was modified and when it was changed, in nanoseconds since 1970.
pub(super) fn times(inode: &Metadata) -> [i128; 2] {
    [(inode.mtime(), inode.mtime_nsec()), (inode.ctime(), inode.ctime_nsec())]
        .map(|(seconds, rest)| i128::from(seconds) * 1_000_000_000 + i128::from(rest))
}

/// Is a time, in nanoseconds since 1970, so long before `now` that another change could not have left the same?
pub(super) fn is_settled(newest_ns: i128, now: SystemTime) -> bool {
    let now_ns = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
    newest_ns + (GRAIN.as_nanos() as i128) < now_ns
}

/// Far above the tick of any file system's clock: ext4 and XFS stamp with a tick of some milliseconds, older ones with a
/// second or two.
const GRAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes, OpenOptions};
    use std::io::Write;

    use super::super::testing::{Bench, INSERT, bench, elsewhere, fill, sqlite};
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn sight(bench: &Bench) -> Sight {
        bench.hash_dir().sight().unwrap().expect("a database")
    }

    /// Does a change show, one that comes long enough after the look?
    fn shows(bench: &Bench, change: impl FnOnce()) -> bool {
        let before = sight(bench);
        std::thread::sleep(TICK);
        change();
        bench.hash_dir().sight().unwrap().map(|sight| sight.fingerprint) != Some(before.fingerprint)
    }

    /// Puts the times of a file back to what they were.
    fn restored(path: &Path, change: impl FnOnce()) {
        let was = fs::metadata(path).unwrap();
        change();
        let times =
            FileTimes::new().set_accessed(was.accessed().unwrap()).set_modified(was.modified().unwrap());
        File::open(path).unwrap().set_times(times).unwrap();
        assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), was.modified().unwrap());
    }

    fn pending(bench: &Bench) -> File {
        OpenOptions::new().append(true).create(true).open(bench.hash_dir().pending_path()).unwrap()
    }

    fn journal(bench: &Bench) -> std::path::PathBuf {
        bench.database_path().with_extension("db-journal")
    }

    #[test]
    fn who_only_looks_leaves_no_trace() {
        let bench = bench();
        let database = bench.database();
        assert!(!shows(&bench, || ()));
        assert!(!shows(&bench, || _ = fs::read(&database).unwrap()));
        assert!(!shows(&bench, || assert_eq!(super::super::testing::rows(&sqlite(&database)), 1)));
        assert!(!shows(&bench, || _ = bench.hash_dir().has_pending()));
        assert!(!shows(&bench, || _ = fs::read_dir(bench.hash_dir().dir()).unwrap().count()));
    }

    #[test]
    fn every_change_shows() {
        type Change = (&'static str, fn(&Bench));
        let changes: [Change; 16] = [
            ("a commit", |bench| sqlite(&bench.database_path()).execute_batch(INSERT).unwrap()),
            ("another process' commit", |bench| assert!(elsewhere(&bench.database_path(), INSERT))),
            ("a commit that keeps its journal", |bench| {
                let kept = format!("PRAGMA journal_mode = PERSIST; {INSERT}");
                sqlite(&bench.database_path()).execute_batch(&kept).unwrap();
            }),
            ("the same bytes written again", |bench| {
                let bytes = fs::read(bench.database_path()).unwrap();
                fs::write(bench.database_path(), bytes).unwrap();
            }),
            ("another file renamed over it", |bench| {
                let other = bench.database_path().with_extension("other");
                fs::copy(bench.database_path(), &other).unwrap();
                fs::rename(other, bench.database_path()).unwrap();
            }),
            ("other bytes with the old times", |bench| {
                let path = bench.database_path();
                restored(&path, || {
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[100] ^= 1;
                    fs::write(&path, bytes).unwrap();
                });
            }),
            ("an older copy with its times, renamed over it", |bench| {
                let (path, other) = (bench.database_path(), bench.database_path().with_extension("other"));
                let was = fs::metadata(&path).unwrap().modified().unwrap();
                fs::copy(&path, &other).unwrap();
                File::open(&other).unwrap().set_times(FileTimes::new().set_modified(was)).unwrap();
                let dir = bench.hash_dir().dir().to_owned();
                restored(&dir, || fs::rename(&other, &path).unwrap());
            }),
            ("a first pending row", |bench| pending(bench).write_all(b"row").unwrap()),
            ("an empty pending file", |bench| _ = pending(bench)),
            ("a journal", |bench| fs::write(journal(bench), "").unwrap()),
            ("another file beside it", |bench| {
                fs::write(bench.hash_dir().dir().join("0_1.db"), "").unwrap();
            }),
            ("the directory's lock file", |bench| _ = bench.hash_dir().lock(TICK).unwrap()),
            ("other permissions", |bench| {
                let mut permissions = fs::metadata(bench.database_path()).unwrap().permissions();
                permissions.set_readonly(true);
                fs::set_permissions(bench.database_path(), permissions).unwrap();
            }),
            ("the file gone", |bench| fs::remove_file(bench.database_path()).unwrap()),
            ("the directory gone", |bench| fs::remove_dir_all(bench.hash_dir().dir()).unwrap()),
            ("a copy of the directory in its place", |bench| {
                let (dir, aside) = (bench.hash_dir().dir().to_owned(), bench.drive.root().join("aside"));
                fs::rename(&dir, &aside).unwrap();
                fs::create_dir(&dir).unwrap();
                for entry in fs::read_dir(&aside).unwrap().flatten() {
                    fs::rename(entry.path(), dir.join(entry.file_name())).unwrap();
                }
            }),
        ];
        for (what, change) in changes {
            let bench = bench();
            bench.database();
            assert!(shows(&bench, || change(&bench)), "{what}");
        }
    }

    #[test]
    fn what_comes_after_the_first_pending_row_shows_as_well() {
        let bench = bench();
        bench.database();
        pending(&bench).write_all(b"row").unwrap();
        assert!(shows(&bench, || pending(&bench).write_all(b"row").unwrap()));
        assert!(shows(&bench, || pending(&bench).set_len(0).unwrap()));
        let path = bench.hash_dir().pending_path();
        assert!(shows(&bench, || restored(&path, || pending(&bench).write_all(b"row").unwrap())));
        assert!(shows(&bench, || fs::remove_file(&path).unwrap()));
    }

    #[test]
    fn a_journal_that_goes_shows() {
        let bench = bench();
        bench.database();
        fs::write(journal(&bench), "").unwrap();
        assert!(shows(&bench, || fs::remove_file(journal(&bench)).unwrap()));
    }

    /// Two looks see two databases, though they were made alike: another hash, another drive.
    #[test]
    fn another_database_looks_different() {
        let (one, other) = (bench(), bench());
        one.database();
        other.database();
        assert_ne!(sight(&one).fingerprint, sight(&other).fingerprint);
    }

    #[test]
    fn there_is_nothing_to_see_without_a_database() {
        let bench = bench();
        let nothing = || assert_eq!(bench.hash_dir().sight().unwrap(), None);
        nothing();
        bench.hash_dir().create().unwrap();
        nothing();
        pending(&bench).write_all(b"row").unwrap();
        nothing();
        fs::remove_dir_all(bench.hash_dir().dir()).unwrap();
        fs::write(bench.hash_dir().dir(), "").unwrap();
        nothing();
        fs::remove_dir_all(bench.drive.containers()).unwrap();
        fs::write(bench.drive.containers(), "").unwrap();
        nothing();
    }

    #[test]
    fn it_settles_when_the_newest_of_its_times_is_past_the_grain() {
        let bench = bench();
        let database = bench.database();
        let newest = |bench: &Bench| {
            SystemTime::UNIX_EPOCH + Duration::from_nanos(sight(bench).newest_ns.try_into().unwrap())
        };
        let paths = [bench.hash_dir().pending_path(), database.clone(), bench.hash_dir().dir().to_owned()];
        drop(pending(&bench));
        let mut before = newest(&bench);
        for path in &paths {
            std::thread::sleep(TICK);
            // Only its time of change moves.
            restored(path, || fs::set_permissions(path, fs::metadata(path).unwrap().permissions()).unwrap());
            assert!(newest(&bench) > before, "{}", path.display());
            before = newest(&bench);
        }
        let sight = sight(&bench);
        assert!(!sight.is_settled(SystemTime::now()));
        assert!(!sight.is_settled(before));
        assert!(!sight.is_settled(before + GRAIN));
        assert!(sight.is_settled(before + GRAIN + Duration::from_nanos(1)));
        assert!(!sight.is_settled(SystemTime::UNIX_EPOCH));
        // A clock that was ahead once.
        let ahead = SystemTime::now() + Duration::from_secs(1000);
        File::open(&database).unwrap().set_modified(ahead).unwrap();
        assert!(!super::tests::sight(&bench).is_settled(ahead));
        assert!(super::tests::sight(&bench).is_settled(ahead + GRAIN + TICK));
    }

    #[test]
    fn a_file_by_another_name_never_settles() {
        let bench = bench();
        bench.hash_dir().create().unwrap();
        let path = bench.hash_dir().dir().join(format!("{}_0000000001.00000.db", bench.hash_dir().hash()));
        fill(&path);
        let later = SystemTime::now() + Duration::from_secs(1000);
        assert!(!sight(&bench).is_settled(later));
        assert!(shows(&bench, || sqlite(&path).execute_batch(INSERT).unwrap()));
    }

    /// Of two files the one by the usual name is looked at, the other is in charge. What is committed to it shows,
    /// because a journal comes and goes beside it.
    #[test]
    fn a_commit_to_a_second_file_shows_in_the_directory() {
        let bench = bench();
        bench.database();
        let path = bench.hash_dir().dir().join(format!("{}_0000000001.00000.db", bench.hash_dir().hash()));
        assert!(shows(&bench, || fill(&path)));
        assert!(shows(&bench, || sqlite(&path).execute_batch(INSERT).unwrap()));
    }
}
