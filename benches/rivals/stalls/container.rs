//! The large container: made fast, and judged afterwards.

use std::fs;
use std::path::Path;
use std::thread;

use rusqlite::{Connection, OpenFlags, params};
use swiftlet::broker::{Broker, fresh_id};
use swiftlet::replica::{Direction, ReplicaId, RowHash, RowId};

use crate::workshop;

/// Bytes of the file that a row comes to, with its place in the index.
pub const ROW_BYTES: u64 = 145;

/// Makes the database with the first so many rows, as if all had come in one by one: without triggers, with the index
/// made at the end, and the sums set once.
pub fn make(path: &Path, rows: u64, id: &ReplicaId) {
    workshop::create(path.parent().expect("a directory"), path, id);
    let db = Connection::open(path).expect("a database");
    db.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; PRAGMA locking_mode = EXCLUSIVE",
    )
    .expect("set");
    let on_object = "FROM sqlite_schema WHERE tbl_name = 'object' AND type IN ('index', 'trigger')";
    let schema: Vec<[String; 3]> = db
        .prepare(&format!("SELECT type, name, sql {on_object}"))
        .and_then(|mut found| {
            found.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?.collect()
        })
        .expect("the schema");
    for [kind, name, _] in &schema {
        db.execute_batch(&format!("DROP {kind} {name}")).expect("dropped");
    }
    let (mut hash, mut bytes) = (RowHash::default(), 0);
    db.execute_batch("BEGIN").expect("a transaction");
    let mut insert = db
        .prepare(
            "INSERT INTO object (name, created_at, size, content_type, etag, deleted, storage_policy_index)
                VALUES (?, ?, ?, ?, ?, 0, 0)",
        )
        .expect("a statement");
    for number in 0..rows {
        let row = workshop::row(number);
        hash.mix(&row.name, &row.created_at);
        bytes += row.size;
        insert
            .execute(params![row.name, row.created_at, row.size, row.content_type, row.etag])
            .expect("a row");
    }
    drop(insert);
    db.execute("UPDATE policy_stat SET object_count = ?, bytes_used = ?", params![rows as i64, bytes])
        .expect("set");
    db.execute("UPDATE container_info SET hash = ?", [hash.to_string()]).expect("set");
    for [_, _, sql] in &schema {
        db.execute_batch(sql).expect("made again");
    }
    db.execute_batch("COMMIT").expect("committed");
}

/// Gives a receiver's copy an id of its own and, if it is to know the sender's rows so far, the sync point that says so.
pub fn receive(path: &Path, sender: &ReplicaId, rows: u64, acquainted: bool) {
    let mut broker = Broker::open_file(path).expect("a database");
    broker.new_id(sender, fresh_id("b")).expect("a new id");
    let point = if acquainted { RowId(rows as i64) } else { RowId::NONE };
    broker.set_sync_point(sender, point, Direction::Incoming).expect("a sync point");
}

/// What two replicas that agree have in common, whatever the order of their rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    rows: u64,
    digest: u64,
    stored_hash: String,
}

/// Reads both databases to the end, and checks of each that it holds together and that its stored hash is that of its rows.
///
/// # Errors
/// What is wrong with one of them.
pub fn both(paths: [&Path; 2]) -> Result<[Content; 2], String> {
    let [one, other] = thread::scope(|scope| {
        paths.map(|path| scope.spawn(move || content(path))).map(|reader| reader.join().expect("no panic"))
    });
    Ok([one?, other?])
}

fn content(path: &Path) -> Result<Content, String> {
    let at = |error: rusqlite::Error| format!("{}: {error}", path.display());
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(at)?;
    let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).map_err(at);
    let (mut rows, mut digest, mut hash) = (0, 0_u64, RowHash::default());
    let mut statement =
        db.prepare("SELECT name, created_at, content_type, etag, size, deleted FROM object").map_err(at)?;
    let mut found = statement.query([]).map_err(at)?;
    let mut all = String::new();
    while let Some(row) = found.next().map_err(at)? {
        let column = |index| row.get_ref(index).map_err(at)?.as_str().map_err(|error| error.to_string());
        let (name, created_at) = (column(0)?, column(1)?);
        hash.mix(name, created_at);
        let [size, deleted] = [4, 5].map(|index| row.get::<_, i64>(index));
        all.clear();
        for part in [name, created_at, column(2)?, column(3)?] {
            all += part;
            all.push('\0');
        }
        all += &format!("{} {}", size.map_err(at)?, deleted.map_err(at)?);
        let start = blake3::hash(all.as_bytes()).as_bytes()[..8].try_into().expect("eight of 32 bytes");
        digest = digest.wrapping_add(u64::from_le_bytes(start));
        rows += 1;
    }
    let (stored_hash, whole) = (text("SELECT hash FROM container_info")?, text("PRAGMA quick_check(1)")?);
    if whole != "ok" || stored_hash != hash.to_string() {
        return Err(format!(
            "{}: {whole}; its stored hash is {stored_hash}, that of its rows {hash}",
            path.display()
        ));
    }
    Ok(Content { rows, digest, stored_hash })
}

/// How many of these rows a database lacks.
pub fn lacking(path: &Path, names: impl Iterator<Item = String>) -> u64 {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
    let mut wanted =
        db.prepare("SELECT 1 FROM object WHERE deleted IN (0, 1) AND name = ?").expect("a statement");
    names.filter(|name| !wanted.exists([name]).expect("an answer")).count() as u64
}

/// Copies a database to where a run wants it, down to the disk, and drops an older one there.
pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    workshop::copy(from, to);
}
