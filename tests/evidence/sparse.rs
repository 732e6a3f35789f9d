//! A large database that takes little room: most of its pages are free, and a free page that no list leads through holds
//! nothing, so that it can be a hole of the file. SQLite finds it sound, and reads no more of it than the lists.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Lengthens a database, which nobody has open, by free pages until it has so many bytes. The rows that come next are
/// put on the new pages.
pub fn lengthen(database: &Path, to_bytes: u64) {
    let file = OpenOptions::new().read(true).write(true).open(database).expect("a database");
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).expect("a header");
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let page_bytes = u64::from(u16::from_be_bytes([header[16], header[17]]));
    assert!(page_bytes >= 512, "pages of 65536 bytes are written as 1, and Swift has none");
    let (pages, total) = (u64::from(word(SIZE_PAGES)), to_bytes / page_bytes);
    assert_eq!(pages * page_bytes, file.metadata().expect("a length").len(), "the header knows its file");

    let locked = LOCK_BYTES_AT / page_bytes + 1;
    let mut free = (pages + 1..=total).filter(|page| *page != locked).map(|page| page as u32).peekable();
    let (mut next_trunk, mut added) = (word(FIRST_TRUNK), 0);
    let leaves_at_most = page_bytes as usize / 4 - 8;
    while let Some(trunk) = free.next() {
        let leaves: Vec<u32> = free.by_ref().take(leaves_at_most).collect();
        let words = [next_trunk, leaves.len() as u32].into_iter().chain(leaves.iter().copied());
        let bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        file.write_all_at(&bytes, u64::from(trunk - 1) * page_bytes).expect("written");
        added += 1 + leaves.len() as u32;
        next_trunk = trunk;
    }
    file.set_len(total * page_bytes).expect("longer");
    let counter = word(CHANGE_COUNTER) + 1;
    for (at, value) in [
        (CHANGE_COUNTER, counter),
        (SIZE_PAGES, total as u32),
        (FIRST_TRUNK, next_trunk),
        (FREE_PAGES, word(FREE_PAGES) + added),
        (VALID_FOR, counter),
    ] {
        file.write_all_at(&value.to_be_bytes(), at as u64).expect("written");
    }
    file.sync_all().expect("on disk");
}

/// The header's fields, as SQLite's file format numbers their bytes.
const CHANGE_COUNTER: usize = 24;
const SIZE_PAGES: usize = 28;
const FIRST_TRUNK: usize = 32;
const FREE_PAGES: usize = 36;
const VALID_FOR: usize = 92;
const HEADER_BYTES: usize = 100;
/// The page around this offset belongs to SQLite's locks.
const LOCK_BYTES_AT: u64 = 0x4000_0000;
