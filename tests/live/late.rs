//! A writer that had a database open before another file took its name.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use crate::cluster::{Cluster, Container, database, is_empty, rows};
use crate::writer::{insert, open};

/// What a swap leaves when its agent dies before it could wait for the last writer: the old file in `tmp`, without a name
/// of its own, and a writer that still has it open.
fn swap_by_hand(cluster: &Cluster, container: &Container) -> (std::path::PathBuf, Connection) {
    let path = database(&cluster.home(0, container));
    let old = open(&path);
    old.execute_batch("PRAGMA journal_mode = MEMORY").expect("set");
    let new = path.with_extension("new");
    fs::copy(&path, &new).expect("copied");
    let tmp = cluster.device(0).join("tmp");
    fs::create_dir_all(&tmp).expect("made");
    let link = tmp.join(format!("{}.7.0123456789abcdef.replaced", container.hash));
    fs::hard_link(&path, &link).expect("linked");
    fs::rename(&new, &path).expect("renamed");
    (link, old)
}

/// A swap of this moment has its file there too, and is left alone.
fn let_it_age(link: &std::path::Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(link).and_then(|file| file.set_modified(hour_ago)).expect("set");
}

#[test]
fn rows_that_came_into_a_replaced_file_are_swept_up() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no")]);
    let container = cluster.container("c");
    cluster.create(0, &container).merge_rows(rows("before", 0..100), None).expect("merged");
    cluster.start(1);
    cluster.once(0, "").ended(0);

    let (link, mut old) = swap_by_hand(&cluster, &container);
    insert(&mut old, "late", 1);
    let lost = |device: usize| {
        let replica = cluster.replica(device, &container).expect("it is there");
        !replica.rows.contains_key(&("late".to_owned(), 0))
    };
    cluster.once(0, "").ended(0);
    assert!(link.exists() && lost(0), "a swap may still be under way");

    let_it_age(&link);
    cluster.once(0, "").ended(0);
    assert!(!lost(0) && !lost(1));
    assert!(link.exists(), "its writer may not be done");

    insert(&mut old, "later still", 2);
    drop(old);
    let_it_age(&link);
    cluster.once(0, "").ended(0);
    assert!(is_empty(&cluster.device(0).join("tmp")));
    for device in 0..2 {
        let replica = cluster.replica(device, &container).expect("it is there");
        assert_eq!(replica.rows.len(), 102, "on {device}");
    }
}
