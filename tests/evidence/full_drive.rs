//! A drive that fills up while a database is staged on it: the sender is told, nothing of it stays, what was there is
//! untouched, and once there is room again the next pass succeeds.

use std::fs;

use crate::cluster::{Cluster, row, rows};
use crate::mount::Mount;

#[test]
#[ignore = "mounts a file system, so it needs root: tests/evidence/full-drive.sh"]
fn a_drive_that_fills_up_keeps_what_it_has_and_takes_the_rest_later() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no")]);
    let mount = Mount::tmpfs(&cluster.device(1), "6m");
    let (small, large) = (cluster.container("small"), cluster.container("large"));
    cluster.create(0, &small).merge_rows(rows("both", 0..50), None).unwrap();
    cluster.create(1, &small).merge_rows(rows("both", 0..40), None).unwrap();
    let mut broker = cluster.create(0, &large);
    for batch in 0..6 {
        broker
            .merge_rows(
                rows("object-of-some-length-to-fill-the-drive", batch * 5000..(batch + 1) * 5000),
                None,
            )
            .unwrap();
    }
    drop(broker);
    cluster.start(1);

    // The reserve is 0, so only the write itself can find that the room is gone; a filler sees to it that it is.
    let free = mount.free_bytes();
    let filler = cluster.device(1).join("filler");
    fs::write(&filler, vec![0; (free - (512 << 10)) as usize]).unwrap();
    let passed = cluster.once(0, "").ended(1);
    assert!(passed.stderr.contains("its drive is full"), "{}", passed.stderr);
    assert_eq!(passed.count("failure"), 1, "{}", passed.stdout);
    assert!(cluster.replica(1, &large).is_none(), "half a database was put in place");
    assert_eq!(cluster.disagreement(&small), None, "the other database was not served");
    let left = fs::read_dir(cluster.device(1).join("tmp")).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(left, 0, "something staged was left behind");

    // Full to the last byte, in the middle of a merge: rows that do not fit are refused, those there stay.
    let rest = mount.free_bytes();
    fs::write(cluster.device(1).join("rest"), vec![0; rest as usize]).unwrap();
    let before = cluster.replica(1, &small).unwrap().rows;
    cluster.open(0, &small).merge_rows(rows("many-more", 0..3000), None).unwrap();
    cluster.once(0, "").ended(1);
    let after = cluster.replica(1, &small).unwrap().rows;
    assert!(before.iter().all(|(name, row)| after.get(name) == Some(row)), "rows went away");

    fs::remove_file(cluster.device(1).join("rest")).unwrap();
    fs::remove_file(&filler).unwrap();
    mount.grow("64m");
    cluster.open(0, &large).merge_rows(vec![row("one more", 7)], None).unwrap();
    cluster.once(0, "").ended(0);
    for container in [&small, &large] {
        assert_eq!(cluster.disagreement(container), None);
    }
    println!("a drive of 6 MiB filled up twice; nothing was lost, and all agree once there is room");
}
