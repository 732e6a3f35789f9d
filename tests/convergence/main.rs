//! Two replicas on two drives, a conversation between them that is cut or lied in, and what is on the drives then.
//!
//! Everything is real but the network: nodes with a conf and a ring, drives in a temporary directory, SQLite. The two
//! ends talk over pairs of Unix sockets.

mod cuts;
mod hostile;
mod waiting;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use swiftlet::broker::{Broker, fresh_id};
use swiftlet::config::Config;
use swiftlet::drive::{DeviceName, Drive, HashDir};
use swiftlet::hash_path::PartShift;
use swiftlet::incoming;
use swiftlet::node::Node;
use swiftlet::outgoing::{ExchangeError, Exchanged, Subject};
use swiftlet::peer::{Peer, PeerError};
use swiftlet::protocol::message::{Intent, Place, Role};
use swiftlet::replica::{Direction, PolicyIndex, Row, RowId};
use swiftlet::ring::format::FormatVersion;
use swiftlet::ring::{Device, DeviceId, Ring};
use swiftlet::stop::Stop;
use swiftlet::timestamp::Timestamp;

const ACCOUNT: &str = "AUTH_test";
const CONTAINER: &str = "photos";
/// Numbers of rows that came and went, so that the file is cheaper to send than the rows.
const AGED: i64 = 1_000_000;

/// A node with one device, and the container's place on it.
struct Side {
    node: Node,
    drive: Drive,
    dir: HashDir,
    device: DeviceId,
    place: Place,
}

/// Two nodes.
struct World {
    root: tempfile::TempDir,
    a: Side,
    b: Side,
}

impl World {
    fn new(node_timeout_secs: u32, per_diff: u32) -> World {
        let root = tempfile::tempdir().expect("a directory");
        let devices = (0..2).map(|id| Some(device(id))).collect();
        let rows = vec![vec![DeviceId(0); 4], vec![DeviceId(1); 4]];
        let ring = Ring::from_rows(PartShift::new(30).expect("a shift"), devices, rows).expect("a ring");
        ring.save(&root.path().join("container.ring.gz"), FormatVersion::V1).expect("a ring file");
        let side = |id| Side::new(root.path(), id, node_timeout_secs, per_diff);
        let (a, b) = (side(0), side(1));
        World { root, a, b }
    }

    /// Keeps both drives as they are now, to come back to.
    fn save(&self) {
        for id in 0..2 {
            let saved = self.root.path().join(format!("saved{id}"));
            copy_tree(&self.root.path().join(format!("n{id}")), &saved);
        }
    }

    /// Both drives as they were saved.
    fn restore(&self) {
        for id in 0..2 {
            let now = self.root.path().join(format!("n{id}"));
            fs::remove_dir_all(&now).expect("removed");
            copy_tree(&self.root.path().join(format!("saved{id}")), &now);
        }
    }
}

impl Side {
    fn new(root: &Path, id: u32, node_timeout_secs: u32, per_diff: u32) -> Side {
        let devices = root.join(format!("n{id}"));
        let name = DeviceName::new(format!("d{id}")).expect("a name");
        fs::create_dir_all(devices.join(name.as_str())).expect("a device");
        let conf = format!(
            "[DEFAULT]\ndevices = {}\nmount_check = false\nbind_ip = 127.0.0.1\nbind_port = {}\nswift_dir = {}\n\
             fallocate_reserve = 0\n[container-replicator]\nnode_timeout = {node_timeout_secs}\nper_diff = {per_diff}\n",
            devices.display(),
            port(id),
            root.display(),
        );
        let config =
            Config::from_text(&conf, b"[swift-hash]\nswift_hash_path_suffix = salt\n").expect("a conf");
        let hash = config.salt.hash(ACCOUNT, Some(CONTAINER), None);
        let partition = PartShift::new(30).expect("a shift").partition(&hash);
        let drive = Drive::open(&devices, &name, false).expect("a drive");
        let dir = drive.hash_dir(partition, hash);
        let node = Node::new(config, Stop::default()).expect("a node");
        Side { node, drive, dir, device: DeviceId(id), place: Place { device: name, partition, hash } }
    }

    fn create(&self) -> Broker {
        let id = fresh_id(self.place.device.as_str());
        let (put, policy) = (time(1), PolicyIndex(0));
        Broker::create(&self.dir, ACCOUNT, CONTAINER, put, policy, &id, put).expect("created")
    }

    /// Makes the database, with these rows.
    fn fill(&self, rows: std::ops::Range<u32>, put_at: u64) {
        let mut broker = match Broker::open(&self.dir) {
            Ok(broker) => broker,
            Err(_) => self.create(),
        };
        broker.merge_rows(rows.map(|row| object(row, put_at)).collect(), None).expect("merged");
    }

    /// The same rows as another replica, in the same pages, as a copy with an id of its own.
    fn copy_of(&self, other: &Side) {
        self.dir.create().expect("a directory");
        let path = self.dir.dir().join(format!("{}.db", self.dir.hash()));
        fs::copy(other.path(), &path).expect("copied");
        let sql = format!("UPDATE container_info SET id = '{}'", fresh_id("copy"));
        sqlite(&path).execute_batch(&sql).expect("a new id");
    }

    /// As if a million rows had come and gone.
    fn age(&self) {
        let sql = format!("UPDATE sqlite_sequence SET seq = seq + {AGED} WHERE name = 'object'");
        sqlite(&self.path()).execute_batch(&sql).expect("aged");
    }

    /// As if nobody had written to it for long.
    fn rest(&self) {
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(self.path()).and_then(|file| file.set_modified(long_ago)).expect("set");
    }

    fn path(&self) -> PathBuf {
        self.dir.in_charge().expect("readable").expect("a database")
    }

    /// All that SQLite says about the file, and its rows by name; `None` if there is no database.
    fn rows(&self) -> Option<BTreeMap<String, (String, i64, i64)>> {
        let path = self.dir.in_charge().expect("readable")?;
        let conn = sqlite(&path);
        let verdict: String =
            conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
        assert_eq!(verdict, "ok", "{}", path.display());
        let mut statement =
            conn.prepare("SELECT name, created_at, size, deleted FROM object").expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))));
        Some(rows.expect("rows").map(|row| row.expect("a row")).collect())
    }

    /// Files that nobody should have left: anything in `tmp`, and anything but databases, locks and pending files beside
    /// the database.
    fn leftovers(&self) -> Vec<String> {
        let known = [".db", ".lock", ".pending"];
        picture(self.drive.root())
            .into_keys()
            .filter(|path| path.starts_with("tmp/") || !known.iter().any(|end| path.ends_with(end)))
            .collect()
    }
}

/// One exchange, in which `carry` stands between the two.
fn exchange_through(
    from: &Side,
    to: &Side,
    intent: Intent,
    carry: impl FnOnce(UnixStream, UnixStream) + Send,
) -> (Result<Exchanged, ExchangeError>, Result<(), PeerError>) {
    let (calling, near) = UnixStream::pair().expect("sockets");
    let (far, answering) = UnixStream::pair().expect("sockets");
    std::thread::scope(|scope| {
        scope.spawn(move || carry(near, far));
        let answer = scope.spawn(|| {
            let timeout = to.node.config.node_timeout;
            Peer::greet(answering, timeout, &to.node.stop)
                .and_then(|mut peer| incoming::serve(&mut peer, &to.node))
        });
        let exchanged = call(from, calling, to.place.clone(), intent);
        (exchanged, answer.join().expect("the answering side panicked"))
    })
}

/// The calling side of an exchange.
fn call(from: &Side, stream: UnixStream, place: Place, intent: Intent) -> Result<Exchanged, ExchangeError> {
    let mut peer = Peer::greet(stream, from.node.config.node_timeout, &from.node.stop)?;
    let mut broker = Broker::open(&from.dir)?;
    let info = broker.info()?;
    let (node, drive, dir) = (&from.node, &from.drive, &from.dir);
    let (ours, agreed) = (from.device, None);
    let mut subject =
        Subject { node, drive, dir, broker: &mut broker, info: &info, proven: false, ours, agreed };
    subject.exchange(&mut peer, place, intent, Role::Primary)
}

/// No point of either side promises a row that is not there.
fn check_points(a: &Side, b: &Side) {
    let mut sides = Vec::new();
    for side in [a, b] {
        let Ok(mut broker) = Broker::open(&side.dir) else { continue };
        let rows = broker.rows_after(RowId::NONE, usize::MAX).expect("rows");
        let incoming = broker.sync_points(Direction::Incoming).expect("points");
        let outgoing = broker.sync_points(Direction::Outgoing).expect("points");
        sides.push((broker.info().expect("info").id, rows, incoming, outgoing));
    }
    let [one, other] = sides.as_slice() else { return };
    for (of, by) in [(one, other), (other, one)] {
        let held: BTreeMap<&str, &str> =
            by.1.iter().map(|row| (row.name.as_str(), row.created_at.as_str())).collect();
        let points = by.2.iter().filter(|point| point.remote_id == of.0);
        let points = points.chain(of.3.iter().filter(|point| point.remote_id == by.0));
        for point in points {
            for row in of.1.iter().filter(|row| row.row_id <= Some(point.point)) {
                let there = held.get(row.name.as_str());
                assert!(
                    there.is_some_and(|there| *there >= row.created_at.as_str()),
                    "{point:?} promises {row:?}"
                );
            }
        }
    }
}

/// Every file below a directory, and what is in it.
fn picture(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                left.push(entry);
            } else {
                let name = entry.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
                // The ledger, which may be kept or not.
                if name.starts_with("agent/") || name.contains("/agent/") {
                    continue;
                }
                files.insert(name, fs::read(&entry).expect("readable"));
            }
        }
    }
    files
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for (name, bytes) in picture(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().expect("below it")).expect("a directory");
        fs::write(path, bytes).expect("written");
    }
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        fs::create_dir_all(to.join(entry.file_name())).expect("a device");
    }
}

/// SQLite with what Swift's triggers call.
fn sqlite(path: &Path) -> rusqlite::Connection {
    use rusqlite::functions::FunctionFlags;
    let conn = rusqlite::Connection::open(path).expect("a database");
    let unused =
        |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<String> { panic!("no row is changed") };
    conn.create_scalar_function("chexor", 3, FunctionFlags::SQLITE_UTF8, unused).expect("a function");
    conn
}

fn port(id: u32) -> u16 {
    6201 + id as u16 * 10
}

fn device(id: u32) -> Device {
    Device {
        id: DeviceId(id),
        region: 1,
        zone: i64::from(id) + 1,
        ip: "127.0.0.1".into(),
        port: port(id),
        replication_ip: "127.0.0.1".into(),
        replication_port: port(id),
        name: format!("d{id}"),
        weight: 100.0,
        meta: String::new(),
        extra: Default::default(),
    }
}

fn time(at: u64) -> Timestamp {
    Timestamp::new(175_000_000_000_000 + at, 0).expect("a time")
}

fn object(number: u32, put_at: u64) -> Row {
    let etag = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Row {
        row_id: None,
        name: format!("2024/album {}/photo {number:06}.jpg", number % 7),
        created_at: time(put_at + u64::from(number)).normal(),
        size: i64::from(number),
        content_type: "image/jpeg".into(),
        etag: format!("{etag:032x}"),
        deleted: i64::from(number % 11 == 0),
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}
