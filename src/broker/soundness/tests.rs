//! What SQLite says is the measure: nothing that it calls damaged may be called sound.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// What the databases of these tests have in them.
#[derive(Debug, Clone, Copy)]
struct Shape {
    page_bytes: u32,
    rows: u32,
    name_bytes: usize,
    /// Every so many rows one is deleted again.
    deleted: u32,
    vacuumed: bool,
}

fn make(path: &Path, shape: Shape) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size = {}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
             content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0);
         CREATE INDEX ix_object_deleted_name ON object (deleted, name);
         CREATE TABLE container_info (account TEXT, metadata TEXT DEFAULT '');
         CREATE TABLE incoming_sync (remote_id TEXT UNIQUE, sync_point INTEGER);
         INSERT INTO container_info VALUES ('a', hex(zeroblob(5000)));
         INSERT INTO incoming_sync VALUES ('x', 1), ('y', 2);
         BEGIN;",
        shape.page_bytes
    ))
    .unwrap();
    let sql = "INSERT INTO object (name, created_at, size, content_type, etag, deleted) VALUES (?, ?, ?, 't', ?, ?)";
    let mut insert = conn.prepare(sql).unwrap();
    for row in 0..shape.rows {
        let random = u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let long = if row % 50 == 7 { shape.name_bytes * 10 } else { shape.name_bytes };
        let name = format!("{random:016x}{}", "x".repeat(long));
        insert.execute((name, "1700000000.00000", row, format!("{random:032x}"), row % 2)).unwrap();
    }
    drop(insert);
    conn.execute_batch(&format!("DELETE FROM object WHERE ROWID % {} = 0; COMMIT;", shape.deleted)).unwrap();
    if shape.vacuumed {
        conn.execute_batch("VACUUM").unwrap();
    }
}

fn ours(path: &Path) -> bool {
    let Ok(conn) = Connection::open(path) else { return false };
    let file = LiveFile::open_read(path).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    is_certain(&conn, &file).unwrap_or(false)
}

fn sqlites(path: &Path) -> bool {
    let conn = Connection::open(path).unwrap();
    let verdict = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    verdict.is_ok_and(|verdict| verdict == "ok")
}

const SHAPES: [Shape; 6] = [
    Shape { page_bytes: 4096, rows: 20_000, name_bytes: 20, deleted: 1000, vacuumed: false },
    Shape { page_bytes: 4096, rows: 3000, name_bytes: 20, deleted: 3, vacuumed: false },
    Shape { page_bytes: 4096, rows: 3000, name_bytes: 200, deleted: 3, vacuumed: true },
    Shape { page_bytes: 512, rows: 2000, name_bytes: 60, deleted: 7, vacuumed: false },
    Shape { page_bytes: 65536, rows: 5000, name_bytes: 100, deleted: 2, vacuumed: false },
    Shape { page_bytes: 1024, rows: 0, name_bytes: 0, deleted: 7, vacuumed: false },
];

#[test]
fn sound_databases_of_every_shape_are_recognised() {
    let room = tempfile::tempdir().unwrap();
    for (nth, shape) in SHAPES.into_iter().enumerate() {
        let path = room.path().join(format!("{nth}.db"));
        make(&path, shape);
        assert!(sqlites(&path), "{shape:?}");
        assert!(ours(&path), "{shape:?}");
    }
}

#[test]
fn what_container_databases_do_not_have_is_left_to_sqlite() {
    let room = tempfile::tempdir().unwrap();
    for (nth, sql) in [
        "CREATE TABLE other (n INTEGER PRIMARY KEY, m) WITHOUT ROWID",
        "CREATE TABLE other (n INTEGER CHECK (n > 0))",
        "CREATE TABLE other (n INTEGER) STRICT",
        "CREATE INDEX partial ON object (name) WHERE deleted = 1",
        "ALTER TABLE object ADD COLUMN more REAL",
        "ALTER TABLE object ADD COLUMN more TEXT NOT NULL DEFAULT ''",
        // Rows that were there before lack the column.
        "ALTER TABLE object ADD COLUMN more TEXT DEFAULT ''",
        "PRAGMA auto_vacuum = FULL; VACUUM",
        "DROP TABLE object",
        // Kept by SQLite as they are.
        "UPDATE object SET size = 'large' WHERE ROWID = 1",
    ]
    .into_iter()
    .enumerate()
    {
        let path = room.path().join(format!("{nth}.db"));
        make(&path, SHAPES[3]);
        assert!(ours(&path));
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        assert!(sqlites(&path) && !ours(&path), "{sql}");
    }
}

/// What a failing disk or a bad copy does to a file.
#[derive(Debug, Clone)]
enum Damage {
    Byte {
        at: prop::sample::Index,
        to: u8,
    },
    Bit {
        at: prop::sample::Index,
        bit: u8,
    },
    Zeroed {
        page: prop::sample::Index,
    },
    Elsewhere {
        from: prop::sample::Index,
        to: prop::sample::Index,
    },
    Sector {
        from: prop::sample::Index,
        to: prop::sample::Index,
    },
    Cut {
        pages: prop::sample::Index,
    },
    Longer,
    /// Within the first bytes of a page, where most of what matters stands.
    Header {
        page: prop::sample::Index,
        at: usize,
        to: u8,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, to)| Damage::Byte { at, to }),
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Bit { at, bit }),
        2 => place().prop_map(|page| Damage::Zeroed { page }),
        2 => (place(), place()).prop_map(|(from, to)| Damage::Elsewhere { from, to }),
        2 => (place(), place()).prop_map(|(from, to)| Damage::Sector { from, to }),
        1 => place().prop_map(|pages| Damage::Cut { pages }),
        1 => Just(Damage::Longer),
        6 => (place(), 0..120_usize, any::<u8>()).prop_map(|(page, at, to)| Damage::Header { page, at, to }),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>, page_bytes: usize) {
        let pages = file.len() / page_bytes;
        let whole = |index: &prop::sample::Index| {
            let start = index.index(pages) * page_bytes;
            start..start + page_bytes
        };
        match self {
            Damage::Byte { at, to } => {
                let at = at.index(file.len());
                file[at] = *to;
            }
            Damage::Bit { at, bit } => {
                let at = at.index(file.len());
                file[at] ^= 1 << bit;
            }
            Damage::Zeroed { page } => file[whole(page)].fill(0),
            Damage::Elsewhere { from, to } => file.copy_within(whole(from), whole(to).start),
            Damage::Sector { from, to } => {
                let from = from.index(file.len() / 512) * 512;
                let to = to.index(file.len() / 512) * 512;
                file.copy_within(from..from + 512, to);
            }
            Damage::Cut { pages: left } => file.truncate(left.index(pages) * page_bytes),
            Damage::Longer => file.resize(file.len() + page_bytes, 0),
            Damage::Header { page, at, to } => file[whole(page).start + at] = *to,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_that_sqlite_calls_damaged_is_called_sound(
        shape in 0..SHAPES.len(),
        damages in proptest::collection::vec(damage(), 1..3),
    ) {
        use std::sync::OnceLock;
        static MADE: [OnceLock<Vec<u8>>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("c.db");
        let mut file = MADE[shape]
            .get_or_init(|| {
                make(&path, SHAPES[shape]);
                std::fs::read(&path).unwrap()
            })
            .clone();
        for damage in &damages {
            if file.len() >= 512 {
                damage.apply(&mut file, SHAPES[shape].page_bytes as usize);
            }
        }
        std::fs::write(&path, &file).unwrap();
        prop_assert!(!ours(&path) || sqlites(&path), "{:?} {damages:?}", SHAPES[shape]);
    }
}
