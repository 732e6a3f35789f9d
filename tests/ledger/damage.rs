//! A ledger that is cut, damaged, of another version or not to be had: it costs a look, and never an answer.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::cluster::rows;
use super::{heals, ledger, quiet};

/// All of them at once: they mostly wait for the clock.
pub const ALL: &[(&str, fn())] = &[
    ("whatever_happens_to_it_changes_are_seen", whatever_happens_to_it_changes_are_seen),
    ("a_bit_anywhere_may_flip", a_bit_anywhere_may_flip),
];

/// What may happen to a ledger.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Removed,
    Emptied,
    Cut,
    Scribbled,
    FlippedThroughout,
    AnotherVersion,
    AnotherProgram,
    Directory,
    AnotherDrives,
}

fn whatever_happens_to_it_changes_are_seen() {
    use Harm::*;
    let (cluster, containers) = quiet(6);
    let all = [
        Removed,
        Emptied,
        Cut,
        Scribbled,
        FlippedThroughout,
        AnotherVersion,
        AnotherProgram,
        Directory,
        AnotherDrives,
    ];
    for (round, harm) in all.into_iter().enumerate() {
        let (container, from) = (&containers[round % containers.len()], round as u64 * 2);
        cluster.open(1, container).merge_rows(rows("harm", from..from + 2), None).expect("merged");
        let path = ledger(&cluster, 1);
        match harm {
            Removed => fs::remove_file(&path).expect("removed"),
            Emptied => fs::write(&path, b"").expect("written"),
            Cut => {
                let length = fs::metadata(&path).expect("there").len();
                OpenOptions::new().write(true).open(&path).expect("opened").set_len(length / 2).expect("cut");
            }
            Scribbled => {
                let file = OpenOptions::new().write(true).open(&path).expect("opened");
                file.write_all_at(&[0x5a; 3000], 2000).expect("written");
            }
            FlippedThroughout => {
                let mut bytes = fs::read(&path).expect("read");
                bytes.iter_mut().skip(100).step_by(301).for_each(|byte| *byte ^= 4);
                fs::write(&path, bytes).expect("written");
            }
            AnotherVersion => {
                let db = rusqlite::Connection::open(&path).expect("opened");
                db.pragma_update(None, "user_version", 4711).expect("set");
            }
            AnotherProgram => {
                fs::remove_file(&path).expect("removed");
                let db = rusqlite::Connection::open(&path).expect("opened");
                db.execute_batch("CREATE TABLE entry (key TEXT); INSERT INTO entry VALUES ('x')")
                    .expect("made");
            }
            Directory => {
                fs::remove_file(&path).expect("removed");
                fs::create_dir(&path).expect("made");
            }
            AnotherDrives => drop(fs::copy(ledger(&cluster, 2), &path).expect("copied")),
        }
        for node in 0..3 {
            cluster.once(node, "").ended(0);
        }
        assert_eq!(cluster.disagreement(container), None, "after {harm:?}\n{}", cluster.logs());
        if path.is_dir() {
            fs::remove_dir(&path).expect("removed");
        }
    }
    heals(&cluster, &containers);
}

fn a_bit_anywhere_may_flip() {
    let (cluster, containers) = quiet(4);
    let path = ledger(&cluster, 0);
    let whole = fs::read(&path).expect("read");
    for round in 0..24_usize {
        let mut bytes = whole.clone();
        let at = (round * whole.len() / 24 + 37 * round) % whole.len();
        bytes[at] ^= 1 << (round % 8);
        fs::write(&path, bytes).expect("written");
        let from = 100 + round as u64;
        cluster
            .open(0, &containers[round % 4])
            .merge_rows(rows("bit", from..from + 1), None)
            .expect("merged");
        cluster.once(0, "").ended(0);
        assert_eq!(cluster.disagreement(&containers[round % 4]), None, "byte {at}\n{}", cluster.logs());
    }
}
