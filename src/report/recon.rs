//! The recon file: the state of the last pass, where `swift-recon container -r` and its dashboards look for it.
//!
//! The file is one line of JSON that several daemons of the node share, Swift's auditor, updater and sharder among them.
//! Each takes the lock, reads the line, merges its own keys in and renames a new file into place, so we do exactly as
//! Swift does, and write exactly the text that Swift's Python would: a reader that knew the old daemon's file knows ours
//! (`swift/common/utils: dump_recon_cache, put_recon_cache_entry`).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::swift_counters;
use crate::tally::Tally;

/// Why the recon file was left as it was.
#[derive(Debug)]
pub enum ReconError {
    /// Another process held the lock all the time.
    Busy {
        /// The recon file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// It could not be opened, read or replaced.
    Io {
        /// The recon file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ReconError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReconError::Busy { path, waited } => {
                write!(f, "{}: still locked by another process after {waited:?}", path.display())
            }
            ReconError::Io { path, source } => {
                write!(
                    f,
                    "{}: {source}; does recon_cache_path exist, and may we write there?",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for ReconError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReconError::Busy { .. } => None,
            ReconError::Io { source, .. } => Some(source),
        }
    }
}

/// Writes what a pass did to `container.recon` in `cache_dir` (the option `recon_cache_path`). `finished_at` is in
/// seconds since 1970. A failure is logged and nothing else: no pass is worse for it.
pub fn record_pass(cache_dir: &Path, tally: &Tally, finished_at: f64) {
    if let Err(error) = update(&cache_dir.join(FILE_NAME), &pass_entries(tally, finished_at)) {
        log::error!("Exception dumping recon cache: {error}");
    }
}

/// What [`record_pass`] merges in: Swift's keys and no others.
pub fn pass_entries(tally: &Tally, finished_at: f64) -> Map<String, Value> {
    let mut stats: Map<String, Value> =
        swift_counters(tally).into_iter().map(|(name, number)| (name.to_owned(), number.into())).collect();
    stats.insert("failure_nodes".to_owned(), json!(tally.failure_nodes));
    stats.insert("start".to_owned(), json!(tally.start));
    Map::from_iter([
        ("replication_stats".to_owned(), Value::Object(stats)),
        ("replication_time".to_owned(), json!(tally.elapsed)),
        ("replication_last".to_owned(), json!(finished_at)),
    ])
}

/// Merges `entries` into the file under its lock; makes it if it is missing.
///
/// # Errors
/// [`ReconError::Busy`] if the lock was not to be had within two seconds, [`ReconError::Io`] for all else. The file is
/// then as it was.
pub fn update(path: &Path, entries: &Map<String, Value>) -> Result<(), ReconError> {
    update_within(path, entries, LOCK_TIMEOUT)
}

fn update_within(path: &Path, entries: &Map<String, Value>, timeout: Duration) -> Result<(), ReconError> {
    let failed = |source| ReconError::Io { path: path.to_owned(), source };
    let locked = lock(path, timeout)?;
    let mut cache = parse(&first_line(&locked).map_err(failed)?);
    merge(&mut cache, entries);
    replace(path, &text(&cache)).map_err(failed)
}

/// Merges one update into what the file holds: a dict goes into the old dict key by key, an empty dict takes its key
/// away, everything else replaces. It goes two levels deep and no further.
pub fn merge(cache: &mut Map<String, Value>, entries: &Map<String, Value>) {
    for (key, entry) in entries {
        match entry {
            Value::Object(fields) if fields.is_empty() => {
                cache.remove(key);
            }
            Value::Object(fields) => merge_fields(cache, key, fields),
            plain => {
                cache.insert(key.clone(), plain.clone());
            }
        }
    }
}

fn merge_fields(cache: &mut Map<String, Value>, key: &str, fields: &Map<String, Value>) {
    let mut old = match cache.remove(key) {
        Some(Value::Object(old)) => old,
        _ => Map::new(),
    };
    for (name, field) in fields {
        if field.as_object().is_some_and(Map::is_empty) {
            old.remove(name);
        } else {
            old.insert(name.clone(), field.clone());
        }
    }
    cache.insert(key.to_owned(), Value::Object(old));
}

/// Reads the file's line. Whatever is no JSON object counts as nothing: the file starts over.
pub fn parse(line: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(line).unwrap_or_default()
}

/// The line as Python's `json.dumps(…, ensure_ascii=True, sort_keys=True)` writes it, and the newline after it.
pub fn text(cache: &Map<String, Value>) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter);
    cache.serialize(&mut serializer).expect("a map of values always serializes into memory");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("the formatter writes ASCII")
}

/// Takes the lock on the file that the path names *now*: whoever held it before us has renamed a new file into place.
fn lock(path: &Path, timeout: Duration) -> Result<Flock<File>, ReconError> {
    let failed = |source| ReconError::Io { path: path.to_owned(), source };
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let deadline = Instant::now() + timeout;
    let mut file = open().map_err(failed)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) if is_still_at(&locked, path).map_err(failed)? => return Ok(locked),
            Ok(_replaced) => open().map_err(failed)?,
            Err((held, Errno::EWOULDBLOCK | Errno::EINTR)) => held,
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        if Instant::now() >= deadline {
            return Err(ReconError::Busy { path: path.to_owned(), waited: timeout });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(named) => Ok(named.ino() == file.metadata()?.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn first_line(file: &File) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(file).take(LINE_LIMIT).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Puts a new file in place, readable by its owner only as Python's temporary files are. Not synced: a lost recon file
/// costs one interval of statistics.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix("tmp").rand_bytes(8).tempfile_in(beside)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Writes JSON with Python's separators, its ASCII escapes and its floats. Keys come sorted out of the map itself.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for character in fragment.chars() {
            match character {
                ' '..='~' => writer.write_all(&[character as u8])?,
                _ => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Python's `repr` of a finite float: the shortest digits that read back as the same number, with an exponent below
/// 1e-4 and from 1e16 up.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a small whole exponent");
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// The file of the container services, in `recon_cache_path`.
const FILE_NAME: &str = "container.recon";

/// How long we wait for the lock, as long as Swift does.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often we try for it, as often as Swift does.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The longest line that is read, in bytes. Real ones have a few kilobytes; what is longer is cut, hence no JSON, and
/// starts over.
const LINE_LIMIT: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn floats_are_spelt_as_python_spells_them() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (2.5, "2.5"),
            (3.0, "3.0"),
            (1750000000.2446897, "1750000000.2446897"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000012345, "1.2345e-05"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (-1.5e300, "-1.5e+300"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ];
        for (value, python) in table {
            assert_eq!(python_float(value), python);
        }
    }

    #[test]
    fn numbers_of_other_daemons_survive_to_the_last_digit() {
        let line = "{\"a\": 1750000000.2446897, \"b\": 0.30000000000000004, \"c\": 5e-324, \"d\": 18446744073709551615}\n";
        assert_eq!(text(&parse(line.as_bytes())), line);
    }

    #[test]
    fn strings_are_escaped_to_ascii() {
        let cache = map(json!({"a\u{7f}\n\"\\/": ["é", "😀", "\u{1}"]}));
        assert_eq!(
            text(&cache),
            r#"{"a\u007f\n\"\\/": ["\u00e9", "\ud83d\ude00", "\u0001"]}"#.to_owned() + "\n"
        );
    }

    #[test]
    fn an_empty_dict_removes_its_key_at_both_levels_but_leaves_an_emptied_one() {
        let mut cache = map(json!({"gone": 1, "kept": {"gone": 1}}));
        merge(&mut cache, &map(json!({"gone": {}, "kept": {"gone": {}}, "never": {}})));
        assert_eq!(Value::Object(cache), json!({"kept": {}}));
    }

    #[test]
    fn what_is_no_object_starts_over() {
        for line in ["", "\n", "5", "[1]", "null", "{", "{}{}", "\u{0}"] {
            assert_eq!(parse(line.as_bytes()), Map::new(), "{line:?}");
        }
        assert_eq!(parse(b"{\"\xff\": 1}"), Map::new());
    }

    #[test]
    fn a_pass_records_swifts_names_only() {
        let mut tally = Tally { attempted: 3, elapsed: 2.5, start: 10.0, bytes_sent: 99, ..Tally::default() };
        tally.fail_node("10.0.0.1", "sdb", 2);
        assert_eq!(
            Value::Object(pass_entries(&tally, 12.5)),
            json!({
                "replication_last": 12.5,
                "replication_time": 2.5,
                "replication_stats": {
                    "attempted": 3, "success": 0, "failure": 2, "no_change": 0, "hashmatch": 0, "diff": 0,
                    "diff_capped": 0, "rsync": 0, "remote_merge": 0, "remove": 0, "empty": 0, "ts_repl": 0,
                    "deferred": 0, "failure_nodes": {"10.0.0.1": {"sdb": 2}}, "start": 10.0,
                },
            })
        );
    }

    #[test]
    fn the_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        record_pass(directory.path(), &Tally::default(), 5.0);
        record_pass(directory.path(), &Tally { attempted: 7, ..Tally::default() }, 6.0);
        let names: Vec<_> = directory
            .path()
            .read_dir()
            .expect("readable")
            .map(|e| e.expect("an entry").file_name())
            .collect();
        assert_eq!(names, [FILE_NAME]);
        let path = directory.path().join(FILE_NAME);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o600);
        let cache = parse(&std::fs::read(&path).expect("readable"));
        assert_eq!(
            (&cache["replication_last"], &cache["replication_stats"]["attempted"]),
            (&json!(6.0), &json!(7))
        );
    }

    #[test]
    fn a_lock_that_is_never_free_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        std::fs::write(&path, "{\"old\": 1}\n").expect("writable");
        let _held = lock(&path, Duration::ZERO).expect("it is free");
        let result = update_within(&path, &map(json!({"new": 2})), Duration::from_millis(30));
        assert!(matches!(result, Err(ReconError::Busy { .. })), "{result:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "{\"old\": 1}\n");
    }

    #[test]
    fn what_the_holder_of_the_lock_renamed_into_place_is_not_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        let held = lock(&path, Duration::ZERO).expect("it is free");
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || update(&path, &map(json!({"ours": 2})))
        });
        std::thread::sleep(Duration::from_millis(50));
        replace(&path, "{\"theirs\": 1}\n").expect("writable");
        drop(held);
        waiting.join().expect("no panic").expect("the lock came free");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "{\"ours\": 2, \"theirs\": 1}\n");
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_the_file() {
        let error =
            update(Path::new("/nowhere/at/all/container.recon"), &Map::new()).expect_err("no directory");
        assert!(error.to_string().contains("/nowhere/at/all/container.recon"), "{error}");
    }
}
