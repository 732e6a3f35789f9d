use swiftlet::broker::{Broker, fresh_id};
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{HashSalt, PartShift};
use swiftlet::replica::*;
use swiftlet::timestamp::Timestamp;
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines()
        .find_map(|l| l.strip_prefix("RssAnon:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
fn row(n: usize) -> Row {
    Row {
        row_id: Some(RowId(n as i64)),
        name: format!("crowd-{n:06}"),
        created_at: "1750000000.00001".into(),
        size: 5,
        content_type: "text/plain".into(),
        etag: format!("{n:032x}"),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}
fn main() {
    swiftlet::sys::keep_heap_small();
    let dir = tempfile::tempdir().unwrap();
    let salt = HashSalt { prefix: vec![], suffix: b"x".to_vec() };
    let shift = PartShift::new(27).unwrap();
    println!("start {}", rss());
    let mut homes = vec![];
    for n in 0..64 {
        let hash = salt.hash("a", Some(&format!("c{n}")), None);
        let home = HashDir::new(dir.path().into(), shift.partition(&hash), hash);
        let t = Timestamp::from_seconds(1750000000.0).unwrap();
        let mut b =
            Broker::create(&home, "a", &format!("c{n}"), t, PolicyIndex(0), &fresh_id("d"), t).unwrap();
        b.merge_rows((0..800).map(row).collect(), None).unwrap();
        homes.push(home);
    }
    swiftlet::sys::trim_heap();
    println!("made {}", rss());
    let mut bs: Vec<Broker> = homes.iter().map(|h| Broker::open(h).unwrap()).collect();
    println!("64 opened {}", rss());
    for b in &mut bs {
        b.info().unwrap();
    }
    println!("64 info {}", rss());
    for b in &mut bs {
        b.sync_points(Direction::Incoming).unwrap();
        b.sync_points(Direction::Outgoing).unwrap();
        b.max_row().unwrap();
    }
    println!("64 points {}", rss());
    for b in &mut bs {
        b.rows_after(RowId(-1), 400).unwrap();
    }
    println!("64 rows read {}", rss());
    for (i, b) in bs.iter_mut().enumerate() {
        b.merge_rows((i * 1000..i * 1000 + 400).map(row).collect(), None).unwrap();
    }
    println!("64 merged {}", rss());
    drop(bs);
    println!("dropped {}", rss());
    swiftlet::sys::trim_heap();
    println!("trimmed {}", rss());
    let batches: Vec<Vec<Row>> = (0..64).map(|_| (0..400).map(row).collect()).collect();
    println!("64 batches of 400 {}", rss());
    drop(batches);
    Broker::bound_caches(4 << 20);
    swiftlet::sys::trim_heap();
    let mut bs: Vec<Broker> = homes.iter().map(|h| Broker::open(h).unwrap()).collect();
    for b in &mut bs {
        b.info().unwrap();
    }
    println!("bounded: 64 info {}", rss());
    for (i, b) in bs.iter_mut().enumerate() {
        b.merge_rows((i * 1000..i * 1000 + 400).map(row).collect(), None).unwrap();
    }
    println!("bounded: 64 merged {}", rss());
}
