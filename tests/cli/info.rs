//! `agent info` on databases in every place and state, and on what is no database.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use nix::unistd::Uid;
use swiftlet::broker::{AccountReport, Broker, fresh_id};
use swiftlet::drive::HashDir;
use swiftlet::hash_path::{Hash, HashSalt, PartShift, Partition};
use swiftlet::replica::{PolicyIndex, Row};
use swiftlet::ring::{Device, DeviceId, FormatVersion, Ring};
use swiftlet::timestamp::Timestamp;

use super::{Said, agent_given};

/// A node of four, and its drive `d1`: the first primary of partitions that 4 divides, a handoff of those after.
struct Node {
    root: tempfile::TempDir,
    salt: HashSalt,
}

const POWER: u8 = 5;

impl Node {
    fn new() -> Node {
        let root = tempfile::tempdir().expect("a directory");
        let salt = HashSalt { prefix: b"pre".to_vec(), suffix: b"post".to_vec() };
        let node = Node { root, salt };
        fs::create_dir_all(node.drive()).expect("a drive");
        let device = |number: u32| Device {
            id: DeviceId(number),
            region: 1,
            zone: 1,
            ip: format!("127.0.0.{}", number + 1),
            port: 6201,
            replication_ip: format!("127.0.0.{}", number + 1),
            replication_port: 6201,
            name: format!("d{}", number + 1),
            weight: 1.0,
            meta: String::new(),
            extra: serde_json::Map::new(),
        };
        let row = |replica: u32| (0..1 << POWER).map(|part| DeviceId((part + replica) % 4)).collect();
        Ring::from_rows(shift(), (0..4).map(|n| Some(device(n))).collect(), (0..3).map(row).collect())
            .and_then(|ring| ring.save(&node.path("container.ring.gz"), FormatVersion::V1))
            .expect("a ring");
        let swift = "[swift-hash]\nswift_hash_path_prefix = pre\nswift_hash_path_suffix = post\n";
        fs::write(node.path("swift.conf"), swift).expect("swift.conf");
        let conf = format!(
            "[DEFAULT]\nbind_ip = 127.0.0.1\nswift_dir = {0}\ndevices = {0}/srv\nmount_check = no\n[container-replicator]\n",
            node.root.path().display()
        );
        fs::write(node.path("agent.conf"), conf).expect("a conf file");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn drive(&self) -> PathBuf {
        self.path("srv/d1")
    }

    /// A container whose partition leaves `rest` when divided by 4, in the directory of partition + `off`.
    fn container(&self, rest: u32, off: u32) -> (HashDir, Broker) {
        let hash = |number: u32| self.salt.hash("AUTH_a", Some(&format!("c{number}")), None);
        let partition = |hash: &Hash| shift().partition(hash);
        let number = (0..).find(|&number| partition(&hash(number)).0 % 4 == rest).expect("one of four");
        let hash = hash(number);
        let lies = Partition((partition(&hash).0 + off) % (1 << POWER));
        let home = HashDir::new(Arc::from(self.drive()), lies, hash);
        let put = ago(90);
        let name = format!("c{number}");
        let broker = Broker::create(&home, "AUTH_a", &name, put, PolicyIndex(0), &fresh_id("d1"), put);
        (home, broker.expect("a database"))
    }

    fn info(&self, path: &Path, options: &[&str]) -> Said {
        let conf = self.path("agent.conf").display().to_string();
        let path = path.display().to_string();
        agent_given(&[&["info", &path, "--config", &conf], options].concat())
    }
}

fn shift() -> PartShift {
    PartShift::new(32 - POWER).expect("a power")
}

fn ago(days: u64) -> Timestamp {
    Timestamp::at(SystemTime::now() - Duration::from_secs(days * 86_400))
}

fn row(name: &str) -> Row {
    Row {
        row_id: None,
        name: name.to_owned(),
        created_at: ago(1).to_string(),
        size: 10,
        content_type: "text/plain".to_owned(),
        etag: "e".to_owned(),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}

/// Everything below a directory: bytes and times.
fn everything(root: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let bytes = if meta.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()));
        }
        found.insert(path, (meta.modified().expect("a time"), bytes));
    }
    found
}

#[test]
fn a_primary_compares_with_the_other_primaries() {
    let node = Node::new();
    let (home, mut broker) = node.container(0, 0);
    broker.merge_rows(vec![row("a"), row("b")], None).expect("merged");
    let said = node.info(broker.path(), &[]).exits(0);
    let said = said
        .prints("object_count         2\n")
        .prints("a pass would\n  compare it with 127.0.0.2:6201/d2, 127.0.0.3:6201/d3");
    assert_eq!(
        node.info(home.dir(), &[]).exits(0).stdout,
        said.stdout,
        "the directory stands for its database"
    );
}

#[test]
fn a_handoff_leaves_when_the_primaries_have_it() {
    let node = Node::new();
    let (_, broker) = node.container(1, 0);
    node.info(broker.path(), &[])
        .exits(0)
        .prints("  take it to 127.0.0.2:6201/d2, 127.0.0.3:6201/d3, 127.0.0.4:6201/d4: this is a handoff of partition ")
        .prints("  remove this copy when they have all of it\n");
}

#[test]
fn a_database_in_another_partition_is_told_apart() {
    let node = Node::new();
    let (home, broker) = node.container(0, 1);
    let right = shift().partition(&home.hash());
    node.info(broker.path(), &[])
        .exits(0)
        .prints(&format!("it lies in partition {} and belongs in {right}\n", (right.0 + 1) % 32))
        .prints("  remove this copy");
}

#[test]
fn what_was_deleted_goes_when_it_is_old_and_its_account_knows() {
    let node = Node::new();
    let (_, mut broker) = node.container(0, 0);
    broker.delete_db(ago(30)).expect("deleted");
    node.info(broker.path(), &[]).exits(0).prints("its account was not told yet\n");
    let info = broker.stored_info().expect("info");
    let told = AccountReport {
        put_timestamp: info.put_timestamp,
        delete_timestamp: info.delete_timestamp,
        object_count: 0,
        bytes_used: 0,
    };
    broker.set_reported(&told).expect("set");
    let said = node.info(broker.path(), &[]).exits(0).prints("deleted                yes\n");
    said.prints("  remove it: it was deleted long ago, and its account knows\n");
    broker.delete_db(ago(1)).expect("deleted");
    let said = node.info(broker.path(), &[]).exits(0).prints("deleted                yes\n");
    said.prints("  compare it with").prints("  keep it for 168 hours after its deletion");
    broker.put_record(row("late")).expect("appended");
    node.info(broker.path(), &[]).exits(0).prints("  take in 1 pending rows\n");
}

#[test]
fn looking_changes_nothing_and_takes_in_nothing() {
    let node = Node::new();
    let (_, mut broker) = node.container(0, 0);
    broker.merge_rows(vec![row("a")], None).expect("merged");
    broker.put_record(row("b")).expect("appended");
    broker.put_record(row("c")).expect("appended");
    let lock = broker.path().with_file_name(".lock");
    let _ = fs::remove_file(&lock);
    let path = broker.path().to_owned();
    drop(broker);
    let before = everything(node.root.path());
    let said = node.info(&path, &[]).exits(0);
    said.prints("object_count         1\n")
        .prints("pending              2 rows in ")
        .prints("  take in 2 pending rows\n");
    let json = node.info(&path, &["--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&json["object_count"], &json["pending_rows"]), (&1.into(), &2.into()));
    assert!(everything(node.root.path()) == before, "something was changed");
}

#[test]
fn a_directory_that_may_not_be_written_is_enough() {
    if Uid::effective().is_root() {
        return; // Root may write everywhere; that nothing is written, the test above sees.
    }
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new();
    let (home, broker) = node.container(0, 0);
    let path = broker.path().to_owned();
    drop(broker);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    mode(&path, 0o444);
    mode(home.dir(), 0o555);
    let said = node.info(&path, &[]);
    mode(home.dir(), 0o755);
    said.exits(0).prints("compare it with");
    mode(&path, 0o000);
    node.info(&path, &[]).exits(2).complains("Permission denied").complains("run this as the user");
}

#[test]
fn without_a_ring_there_is_still_a_database() {
    let node = Node::new();
    let (_, broker) = node.container(0, 0);
    let nowhere = node.path("nowhere.conf").display().to_string();
    let path = broker.path().display().to_string();
    let said = agent_given(&["info", &path, "--config", &nowhere]).exits(0);
    said.prints("AUTH_a/c").prints("  depend on the ring, which is unknown: ").prints("nowhere.conf");
}

#[test]
fn a_copy_elsewhere_is_described_too() {
    let node = Node::new();
    let (_, broker) = node.container(0, 0);
    let copy = node.path("copy.db");
    fs::copy(broker.path(), &copy).expect("copied");
    node.info(&copy, &[]).exits(0).prints("AUTH_a/c").prints("  not find it: ");
}

#[test]
fn a_foreign_salt_is_noticed() {
    let node = Node::new();
    let (_, broker) = node.container(0, 0);
    let swift = "[swift-hash]\nswift_hash_path_prefix = other\n";
    fs::write(node.path("swift.conf"), swift).expect("swift.conf");
    node.info(broker.path(), &[])
        .exits(0)
        .prints("  leave it alone: with the hash prefix and suffix of swift.conf");
}

#[test]
fn what_is_no_database_is_named_with_the_reason() {
    let node = Node::new();
    let (home, broker) = node.container(0, 0);
    let sound = fs::read(broker.path()).expect("readable");
    let file = |name: &str, bytes: &[u8]| {
        let path = node.path(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let mut wal = sound.clone();
    wal[18..20].fill(2);
    let table = [
        (node.path("missing.db"), "missing.db: there is no such file"),
        (file("empty.db", b""), "empty.db: it is empty; a pass would quarantine it"),
        (file("short.db", &sound[..50]), "short.db: it is no SQLite database"),
        (file("text.db", &b"no database ".repeat(100)), "text.db: it is no SQLite database"),
        (file("cut.db", &sound[..sound.len() / 2]), "cut.db: it is cut short, to "),
        (file("wal.db", &wal), "WAL mode"),
        (node.path("empty.db/x.db"), "Not a directory"),
        (node.drive(), "there is no database in this directory"),
        (home.dir().parent().expect("a suffix").to_owned(), "there is no database in this directory"),
    ];
    for (path, reason) in table {
        node.info(&path, &[]).exits(2).complains(reason);
    }
    assert!(!node.path("wal.db-shm").exists() && !node.path("wal.db-wal").exists());
}

#[test]
fn databases_that_swift_calls_damaged_are_refused() {
    let node = Node::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/damaged");
    for entry in fs::read_dir(dir).expect("vectors") {
        let packed = entry.expect("an entry").path();
        let name = packed.file_stem().expect("a name").to_string_lossy().into_owned();
        if packed.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        let mut bytes = Vec::new();
        GzDecoder::new(fs::File::open(&packed).expect("a file")).read_to_end(&mut bytes).expect("gzip");
        let path = node.path(&name);
        fs::write(&path, bytes).expect("written");
        let said = node.info(&path, &[]);
        match name.as_str() {
            "sound.db" => drop(said.exits(0).prints("object_count")),
            _ => drop(said.exits(2).complains(&name).complains("a pass would quarantine it")),
        }
    }
}

#[test]
fn a_writer_who_died_is_no_damage() {
    let node = Node::new();
    let (_, broker) = node.container(0, 0);
    let path = broker.path().to_owned();
    drop(broker);
    // The header of a journal that holds no page: enough for SQLite to want to roll it back.
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    journal.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0x10, 0]);
    journal.resize(8192, 0);
    let beside = PathBuf::from(format!("{}-journal", path.display()));
    fs::write(&beside, &journal).expect("written");
    node.info(&path, &[]).exits(2).complains("a journal lies beside it");
    assert!(fs::read(&beside).expect("still there") == journal);
    let half = OpenOptions::new().write(true).open(&beside).expect("it is there");
    half.set_len(0).expect("cut");
    node.info(&path, &[]).exits(0).prints("compare it with");
}
