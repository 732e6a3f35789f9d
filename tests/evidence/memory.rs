//! A database of 1.5 GB moves, in full and as a delta, and neither side ever has more than 48 MiB of anonymous memory.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use swiftlet::replica::{Direction, Row, RowId};

use crate::cluster::{Cluster, Container, Passed, database, row};

const FILE_BYTES: u64 = 1_500_000_000;
const LIMIT_KIB: u64 = 48 << 10;

#[test]
#[ignore = "writes several gigabytes: tests/evidence/memory.sh"]
fn a_database_of_1500_megabytes_moves_within_48_mebibytes() {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("node_timeout", "60"), ("agent_passes", "no")]);
    let container = cluster.container("large");
    let last = fill(&cluster, &container);
    cluster.start(1);

    let full = moved(&cluster, "in full");
    assert_eq!((full.count("full"), full.count("rsync")), (1, 1), "{}", full.stdout);

    // The sync points are forgotten, so that only the files can tell what is missing.
    let (mut ours, mut theirs) = (cluster.open(0, &container), cluster.open(1, &container));
    let ids = [ours.info().unwrap().id, theirs.info().unwrap().id];
    ours.set_sync_point(&ids[1], RowId::NONE, Direction::Outgoing).unwrap();
    theirs.set_sync_point(&ids[0], RowId::NONE, Direction::Incoming).unwrap();
    let changed = (0..last).step_by(last / 3000).map(|number| large_row(number, 2)).collect();
    ours.merge_rows(changed, None).unwrap();
    theirs.merge_rows(vec![row("only here", 1)], None).unwrap();
    drop((ours, theirs));

    let delta = moved(&cluster, "as a delta");
    assert_eq!((delta.count("delta"), delta.count("remote_merge")), (1, 1), "{}", delta.stdout);
    assert!(delta.count("bytes_sent") < FILE_BYTES / 20, "{}", delta.stdout);
    let mut replica = cluster.open(1, &container);
    let mut wanted = cluster.open(0, &container).info().unwrap();
    wanted.hash.mix("only here", &row("only here", 1).created_at);
    assert_eq!(replica.info().unwrap().hash, wanted.hash, "rows are missing");
}

/// One pass of node 0, with both sides' memory watched.
fn moved(cluster: &Cluster, how: &str) -> Passed {
    let watch = Watch::start(daemon(cluster));
    let passed = cluster.once(0, "").ended(0);
    let (client, server) = (passed.count("peak_anon_kib"), watch.peak_kib());
    println!(
        "{how}: {} bytes sent, {} received; at most {client} KiB anonymous on the calling side, {server} KiB on the \
         answering side",
        passed.count("bytes_sent"),
        passed.count("bytes_received"),
    );
    assert!(client > 0 && server > 0, "nothing was measured");
    assert!(client <= LIMIT_KIB && server <= LIMIT_KIB, "{how}: {client} and {server} KiB of memory");
    passed
}

/// Puts rows in until the file is large enough; returns how many.
fn fill(cluster: &Cluster, container: &Container) -> usize {
    let mut broker = cluster.create(0, container);
    let path = database(&cluster.home(0, container));
    let mut count = 0;
    while fs::metadata(&path).unwrap().len() < FILE_BYTES {
        broker
            .merge_rows((count..count + ROWS_AT_ONCE).map(|number| large_row(number, 1)).collect(), None)
            .unwrap();
        count += ROWS_AT_ONCE;
    }
    count
}

/// A row of some 4 KB that does not compress to nothing.
fn large_row(number: usize, at: u64) -> Row {
    let mut state = number as u64 + 1;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    });
    Row { content_type: noise.take(250).collect(), ..row(&format!("object-{number:09}"), at) }
}

/// The process id of node 1's daemon, known by its conf file.
fn daemon(cluster: &Cluster) -> u32 {
    let conf = cluster.conf(1).to_string_lossy().into_owned();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains(&conf) && !line.contains("--once"))
    };
    pids.into_iter().find(is_it).expect("the daemon runs")
}

/// Looks at a process's anonymous memory a hundred times a second.
struct Watch {
    peak_kib: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(pid: u32) -> Watch {
        let watch = Watch { peak_kib: Arc::default(), over: Arc::default() };
        let (peak_kib, over) = (watch.peak_kib.clone(), watch.over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
                let kib = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
                peak_kib.fetch_max(kib, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        watch
    }

    fn peak_kib(&self) -> u64 {
        self.peak_kib.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

const ROWS_AT_ONCE: usize = 2000;
