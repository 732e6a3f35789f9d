//! The proof that two replicas ended equal, without which no figure counts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use md5::{Digest, Md5};
use rusqlite::{Connection, OpenFlags};
use swiftlet::replica::RowHash;

/// All that two replicas must agree on, in a form that the order of rows does not change.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    rows: u64,
    digest: u128,
    row_hash: String,
    metadata: String,
    whole: String,
}

impl Contents {
    /// Reads every row of a database, and panics if the hash that it stores is not the hash of those rows.
    pub fn of(path: &Path) -> Contents {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
        let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).expect(sql);
        let (mut rows, mut digest, mut hash) = (0, 0_u128, RowHash([0; 16]));
        let mut statement = db
            .prepare(
                "SELECT name, created_at, size || '/' || content_type || '/' || etag || '/' || deleted || '/' || \
                 storage_policy_index FROM object",
            )
            .expect("a container's database");
        let mut found = statement.query([]).expect("rows");
        while let Some(row) = found.next().expect("a row") {
            let [name, created_at, rest] =
                [0, 1, 2].map(|column| row.get::<_, String>(column).expect("text"));
            hash.mix(&name, &created_at);
            let one = Md5::digest(format!("{name}\0{created_at}\0{rest}"));
            digest = digest.wrapping_add(u128::from_be_bytes(one.into()));
            rows += 1;
        }
        let row_hash = text("SELECT hash FROM container_info");
        assert_eq!(row_hash, hash.to_string(), "{}: the stored hash is not that of its rows", path.display());
        Contents {
            rows,
            digest,
            row_hash,
            metadata: text("SELECT metadata FROM container_info"),
            whole: text("PRAGMA quick_check"),
        }
    }
}

/// Panics unless two files are equal to the byte.
pub fn assert_same_bytes(one: &Path, other: &Path) {
    let [mut one_file, mut other_file] = [one, other].map(|path| File::open(path).expect("a file"));
    let (mut mine, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one_file.read(&mut mine).expect("bytes");
        other_file.read_exact(&mut theirs[..read]).expect("as many bytes");
        assert!(mine[..read] == theirs[..read], "{} and {} differ", one.display(), other.display());
        if read == 0 {
            assert_eq!(other_file.read(&mut theirs).expect("bytes"), 0, "{} is longer", other.display());
            return;
        }
    }
}
