//! Block delta between two versions of one container database: bytes on the wire, and how fast each step goes.
//!
//! `cargo bench --bench delta -- [ROWS]` (default 100,000 rows). Every scenario first proves that both sides end equal.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use swiftlet::delta::{
    BlockDigests, Geometry, Hope, Packer, Packing, PageDigest, PageDigests, PageIndex, PageSet, Signature,
    USUAL_WINDOW_BYTES, WindowNode, WindowTree, apply_patch, compress_literals, make_patch,
};

fn main() {
    let rows = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let room = tempfile::tempdir().expect("a temporary directory");
    let base = room.path().join("base.db");
    let mut random = Random(7);
    create(&base, rows, &mut random);

    println!("{rows} rows, {} bytes a window", USUAL_WINDOW_BYTES);
    let old = std::fs::read(&base).expect("a database");
    measure("same", &old, &old);
    for (name, change) in [
        ("append1k", &append as &dyn Fn(&Connection, i64, &mut Random)),
        ("churn1%", &|db, rows, random| churn(db, rows, rows / 100, random)),
        ("churn10k", &|db, rows, random| churn(db, rows, 10_000, random)),
        ("vacuum", &|db, _, _| db.execute_batch("VACUUM").expect("vacuumed")),
    ] {
        let path = room.path().join(name);
        std::fs::copy(&base, &path).expect("a copy");
        change(&Connection::open(&path).expect("a database"), rows, &mut random);
        measure(name, &old, &std::fs::read(&path).expect("a database"));
    }
}

/// Bytes that each kind of message took, and the time that each kind of work did.
fn measure(name: &str, old: &[u8], new: &[u8]) {
    let page_bytes = match u16::from_be_bytes([new[16], new[17]]) {
        1 => 65536,
        bytes => u32::from(bytes),
    };
    let geometry = Geometry::new(new.len() as u64, page_bytes, USUAL_WINDOW_BYTES).expect("a database");
    let (mut digest_bytes, mut page_digest_bytes, mut set_bytes) = (0, 0, 0);
    let (mut block_bytes, mut signature_bytes, mut patch_bytes, mut full_bytes) = (0, 0, 0, 0);
    let (mut changed_bytes, mut lacking_pages, mut moved_pages) = (0, 0, 0);
    let (mut digest_time, mut page_time, mut find_time, mut sign_time, mut diff_time, mut apply_time) =
        Default::default();
    let mut full_time = Duration::ZERO;
    let (mut theirs, mut ours) = (WindowTree::default(), WindowTree::default());
    let (mut packer, mut hope, mut index) =
        (Packer::new(), Hope::default(), PageIndex::within(PageIndex::BYTES));
    let page = page_bytes as usize;
    timed(&mut find_time, || {
        for (bytes, number) in old.chunks_exact(page).zip(0..) {
            if new.get(number as usize * page..).and_then(|rest| rest.get(..page)) != Some(bytes) {
                index.add(PageDigest::of(bytes), number);
            }
        }
        index.sort();
    });
    for (number, window) in (0..).zip(geometry.windows()) {
        let slice = |file: &[u8], range: std::ops::Range<u64>| {
            file[range.start as usize..range.end as usize].to_vec()
        };
        let new = slice(new, window.basis_range(new.len() as u64));
        let basis = slice(old, window.basis_range(old.len() as u64));
        full_bytes += timed(&mut full_time, || compress_literals(&new)).len();
        let node = timed(&mut digest_time, || WindowNode::of(window, &new));
        let announced = node.digest();
        theirs.set(number, node);
        digest_bytes += announced.0.len();
        if basis == new {
            ours.set(number, node);
            continue;
        }
        changed_bytes += new.len();
        let digests = timed(&mut page_time, || PageDigests::of(window, &new));
        let (mut so_far, mut lacking, mut with_basis) = (basis.clone(), PageSet::of(window, |_| false), 0);
        so_far.resize(window.bytes(), 0);
        timed(&mut find_time, || {
            for (nth, digest) in digests.iter().enumerate() {
                let here = basis.get(nth * page..).and_then(|rest| rest.get(..page));
                if here.is_some_and(|here| PageDigest::of(here) == digest) {
                    continue;
                }
                match index.find(digest).next() {
                    Some(found) => {
                        let found = &old[found as usize * page..][..page];
                        so_far[nth * page..][..page].copy_from_slice(found);
                        moved_pages += 1;
                    }
                    None => {
                        lacking.insert(nth);
                        with_basis += usize::from(here.is_some());
                    }
                }
            }
        });
        let blocks = timed(&mut sign_time, || BlockDigests::of(window, &basis, &lacking));
        let hoped = with_basis > 0 && hope.wants();
        let signature = timed(&mut sign_time, || hoped.then(|| Signature::of(window, &basis, &lacking)));
        let patch = timed(&mut diff_time, || {
            let packing = Packing::Packed;
            make_patch(window, &new, &lacking, &blocks, signature.as_ref(), &mut packer, packing)
        });
        let made =
            timed(&mut apply_time, || apply_patch(window, so_far, &lacking, with_basis, &patch, announced));
        let made = made.expect("the window announced");
        if hoped {
            hope.learned(made.signature_paid);
        }
        ours.set(number, made.node);
        lacking_pages += lacking.len();
        page_digest_bytes += digests.to_bytes().len();
        set_bytes += lacking.to_bytes().len();
        block_bytes += blocks.to_bytes().len();
        signature_bytes += signature.map_or(0, |signature| signature.to_bytes().len());
        patch_bytes += patch.len();
    }
    assert_eq!(ours.finish(), theirs.finish(), "both ends hold the same file");

    let wire_bytes =
        digest_bytes + page_digest_bytes + set_bytes + block_bytes + signature_bytes + patch_bytes;
    println!(
        "{name}: {} bytes, {} windows; of {} pages {moved_pages} moved, {lacking_pages} lack\n  wire {wire_bytes} = digests \
         {digest_bytes} + page digests {page_digest_bytes} + page sets {set_bytes} + blocks {block_bytes} + signatures \
         {signature_bytes} + patches {patch_bytes}; full {full_bytes} ({:.0} %)",
        new.len(),
        geometry.window_count(),
        new.len() / page,
        100.0 * wire_bytes as f64 / full_bytes as f64,
    );
    let rate = |bytes: usize, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    let inside = lacking_pages * page;
    println!(
        "  MB/s: window digest {:.0}, full copy {:.0}; of changed windows: page digests {:.0}, look up {:.0}, patch {:.0}, \
         apply {:.0}; of pages that lack: sign {:.0}, patch {:.0}",
        rate(new.len(), digest_time),
        rate(new.len(), full_time),
        rate(changed_bytes, page_time),
        rate(changed_bytes, find_time),
        rate(changed_bytes, diff_time),
        rate(changed_bytes, apply_time),
        rate(inside, sign_time),
        rate(inside, diff_time),
    );
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = work();
    *total += start.elapsed();
    made
}

fn create(path: &Path, rows: i64, random: &mut Random) {
    let db = Connection::open(path).expect("a database");
    db.execute_batch(
        "CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
             content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0, storage_policy_index INTEGER DEFAULT 0);
         CREATE INDEX ix_object_deleted_name ON object (deleted, name);",
    )
    .expect("tables");
    insert(&db, 0..rows, random);
}

fn append(db: &Connection, rows: i64, random: &mut Random) {
    insert(db, rows..rows + 1000, random);
}

fn insert(db: &Connection, numbers: std::ops::Range<i64>, random: &mut Random) {
    let batch = db.unchecked_transaction().expect("a transaction");
    for number in numbers {
        let name = format!("photos/{:08x}/{number:06}.jpg", random.below(1 << 32));
        put(&batch, &name, 1_700_000_000 + number, random);
    }
    batch.commit().expect("rows");
}

/// Overwrites rows as Swift does: each goes, and comes back at the end with a number of its own.
fn churn(db: &Connection, rows: i64, count: i64, random: &mut Random) {
    let batch = db.unchecked_transaction().expect("a transaction");
    for nth in 0..count {
        let number = random.below(rows as u64) as i64 + 1;
        let name = batch.query_row("DELETE FROM object WHERE ROWID = ? RETURNING name", [number], |row| {
            row.get::<_, String>(0)
        });
        if let Ok(name) = name {
            put(&batch, &name, 1_710_000_000 + nth, random);
        }
    }
    batch.commit().expect("rows");
}

fn put(db: &Connection, name: &str, second: i64, random: &mut Random) {
    let created_at = format!("{second:010}.{:05}", second % 100_000);
    let etag = format!("{:016x}{:016x}", random.next(), random.next());
    db.prepare(
        "INSERT INTO object (name, created_at, size, content_type, etag) VALUES (?, ?, ?, 'image/jpeg', ?)",
    )
    .and_then(|mut row| row.execute(params![name, created_at, random.below(1 << 24) as i64, etag]))
    .expect("a row");
}

/// Marsaglia's xorshift: the same rows in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
