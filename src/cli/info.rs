//! `agent info`: one database, as an operator asks about it.
//!
//! Names are those of Swift's columns (`swift-container-info` has them too), so that what is seen here can be looked for
//! there. Whatever the database holds is printed with its control characters spelt out.
//!
//! Looking changes nothing: no pending row is taken in, no lock file made, no journal rolled back, and a file system that
//! is mounted read-only serves as well. What keeps us from looking is said in the words of whoever has to mend it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::page::Page;
use super::{Exit, InfoOptions, complain, print};
use crate::broker::{AccountReport, Broker, BrokerError, Patience, pending};
use crate::config::Config;
use crate::drive::live::journal_path;
use crate::drive::{HashDir, LiveFile};
use crate::node::Node;
use crate::replica::{DbState, Direction, PolicyIndex, ReplicaInfo, Row, SyncPoint};
use crate::report::text::{printable, size, thousands, utc};
use crate::ring::Device;
use crate::stop::Stop;
use crate::timestamp::Stamp;

/// Opens the database and prints what it is.
pub fn info(options: InfoOptions) -> Exit {
    match inspect(&options) {
        Ok(text) => {
            print(&text);
            Exit::Clean
        }
        Err(error) => complain(error),
    }
}

/// Why a database cannot be looked at.
#[derive(Debug)]
pub(super) enum InfoError {
    /// The path names nothing.
    Missing(PathBuf),
    /// The path names a directory that is none of a container, or has no database in it.
    NoDatabaseIn(PathBuf),
    /// The system does not let us.
    Unreadable(PathBuf, io::Error),
    /// The file cannot be a database.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A writer is at work on it, or died at it.
    Journal(PathBuf),
    /// All else.
    Broker(BrokerError),
}

impl fmt::Display for InfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InfoError::Missing(path) => write!(f, "{}: there is no such file", path.display()),
            InfoError::NoDatabaseIn(path) => write!(
                f,
                "{}: there is no database in this directory; name a .db file, or the directory of a hash",
                path.display()
            ),
            InfoError::Unreadable(path, error) => {
                write!(f, "{}: {error}", path.display())?;
                match error.kind() {
                    ErrorKind::PermissionDenied => f.write_str("; run this as the user that Swift runs as"),
                    _ => Ok(()),
                }
            }
            InfoError::Damaged { path, cause } => {
                write!(
                    f,
                    "{}: {cause}; a pass would quarantine it and heal it from its peers",
                    path.display()
                )
            }
            InfoError::Journal(path) => write!(
                f,
                "{}: a journal lies beside it, of a writer that is at work or died at it; try again, a pass rolls it back",
                path.display()
            ),
            InfoError::Broker(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InfoError {}

fn inspect(options: &InfoOptions) -> Result<String, InfoError> {
    let target = Target::find(&options.database)?;
    let path = &target.file;
    let failed = |error| explain(path, error);
    let mut broker = open(path, target.home.as_ref())?;
    let info = broker.stored_info().map_err(failed)?;
    let waiting = match &target.home {
        Some(home) => Waiting::read(&home.pending_path()),
        None => Waiting::default(),
    };
    let policies = broker.policy_totals().map_err(failed)?;
    let ranges = broker.shard_ranges().map_err(failed)?.len();
    let reported = broker.reported().map_err(failed)?;
    let facts = Facts { info: &info, waiting, policies: &policies, ranges, reported: &reported };
    let verdict = match known_node(&options.config) {
        Ok(node) => foretell(&node, target.home.as_ref(), &facts),
        Err(reason) => format!("depend on the ring, which is unknown: {reason}"),
    };
    let inspection = Inspection {
        path,
        info: &info,
        incoming: &broker.sync_points(Direction::Incoming).map_err(failed)?,
        outgoing: &broker.sync_points(Direction::Outgoing).map_err(failed)?,
        policies: &policies,
        ranges,
        waiting,
        verdict: &verdict,
    };
    Ok(if options.json { render_json(&inspection) } else { render(&inspection) })
}

/// Opens the database of a directory, or a file that is in charge of none, only to look at it.
pub(super) fn open(path: &Path, home: Option<&HashDir>) -> Result<Broker, InfoError> {
    check_header(path)?;
    let patience = Patience { database: PATIENCE, directory: PATIENCE };
    let opened = match home {
        Some(home) => Broker::look(home, patience),
        None => Broker::look_at_file(path, patience),
    };
    opened.map_err(|error| explain(path, error))
}

/// What was named on the command line.
struct Target {
    /// The database file.
    file: PathBuf,
    /// The directory of its hash, if the file is in charge of one.
    home: Option<HashDir>,
}

impl Target {
    fn find(named: &Path) -> Result<Target, InfoError> {
        let unreadable = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => InfoError::Missing(named.to_owned()),
            _ => InfoError::Unreadable(named.to_owned(), error),
        };
        let path = named.canonicalize().map_err(unreadable)?;
        if fs::metadata(&path).map_err(unreadable)?.is_dir() {
            // Any name would do: only its directory is looked at.
            let home = HashDir::of_database(&path.join("database"));
            let in_charge = home.as_ref().map(HashDir::in_charge).transpose().map_err(unreadable)?;
            let file = in_charge.flatten().ok_or_else(|| InfoError::NoDatabaseIn(named.to_owned()))?;
            return Ok(Target { file, home });
        }
        let home = HashDir::of_database(&path)
            .filter(|home| home.in_charge().is_ok_and(|in_charge| in_charge.as_ref() == Some(&path)));
        Ok(Target { file: path, home })
    }
}

/// Tells what SQLite would only call no database.
fn check_header(path: &Path) -> Result<(), InfoError> {
    let unreadable = |error| InfoError::Unreadable(path.to_owned(), error);
    let damaged = |cause: String| Err(InfoError::Damaged { path: path.to_owned(), cause });
    let file = LiveFile::open_read(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes == 0 {
        return damaged("it is empty".to_owned());
    }
    let Some(header) = file.header().map_err(unreadable)? else {
        return damaged("it is no SQLite database".to_owned());
    };
    let whole = header.size_pages.saturating_mul(header.page_bytes.into());
    if bytes < whole {
        return damaged(format!("it is cut short, to {bytes} of {whole} bytes"));
    }
    if header.write_ahead_log {
        // Even a reader would make files beside it.
        let cause = "it is in WAL mode, which Swift never uses".to_owned();
        return Err(InfoError::Broker(BrokerError::BadData { path: path.to_owned(), cause }));
    }
    Ok(())
}

/// Tells what a broker only calls a fault of the disk.
pub(super) fn explain(path: &Path, error: BrokerError) -> InfoError {
    match error {
        BrokerError::Damaged { path, cause } => {
            InfoError::Damaged { path, cause: format!("damaged: {cause}") }
        }
        BrokerError::Io { .. } if fs::metadata(journal_path(path)).is_ok_and(|journal| journal.len() > 0) => {
            InfoError::Journal(path.to_owned())
        }
        error => InfoError::Broker(error),
    }
}

/// What waits in the pending file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Bytes of the file.
    pub bytes: u64,
    /// Records that can be read, of the first [`PENDING_READ_BYTES`].
    pub rows: u64,
}

impl Waiting {
    fn read(path: &Path) -> Waiting {
        let (bytes, rows) = waiting_rows(path);
        Waiting { bytes, rows: rows.len() as u64 }
    }
}

/// How long a pending file is, and its rows. One that cannot be read has only a length.
pub(super) fn waiting_rows(path: &Path) -> (u64, Vec<Row>) {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    let mut records = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PENDING_READ_BYTES).read_to_end(&mut records));
    if read.is_err() {
        records.clear();
    }
    (bytes, pending::split(&records).filter_map(|record| pending::decode_entry(record).ok()).collect())
}

/// This node and its ring, or why they are not known.
fn known_node(config: &Path) -> Result<Node, String> {
    let config = Config::load(config).map_err(|error| error.to_string())?;
    Node::new(config, Stop::default()).map_err(|error| error.to_string())
}

/// What the verdict depends on besides the ring.
struct Facts<'a> {
    info: &'a ReplicaInfo,
    waiting: Waiting,
    policies: &'a [(PolicyIndex, i64, i64)],
    ranges: usize,
    reported: &'a AccountReport,
}

impl Facts<'_> {
    /// Deleted for longer than `age`, with nothing in it (as [`Broker::is_reclaimable`], but for shards).
    fn deleted_for(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let deleted = self.info.delete_timestamp.time();
        deleted > self.info.put_timestamp.time()
            && deleted.seconds() < now.saturating_sub(age).as_secs_f64()
            && self.waiting.bytes == 0
            && self.ranges == 0
            && self.policies.iter().all(|(_, objects, _)| *objects <= 0)
    }

    fn account_knows(&self) -> bool {
        let info = self.info;
        *self.reported
            == AccountReport {
                put_timestamp: info.put_timestamp.clone(),
                delete_timestamp: info.delete_timestamp.clone(),
                object_count: info.count,
                bytes_used: info.bytes_used,
            }
    }
}

/// What a pass of this node would do with a database, a line for each step.
fn foretell(node: &Node, home: Option<&HashDir>, facts: &Facts) -> String {
    let info = facts.info;
    let Some(home) = home else {
        return "not find it: it is not in charge of a directory <device>/containers/<partition>/<suffix>/<hash>".to_owned();
    };
    let ring = node.ring();
    let devices = match node.our_devices(&ring) {
        Ok(devices) => devices,
        Err(error) => return format!("do nothing: {error}"),
    };
    let name = home.device().file_name().unwrap_or_default().to_string_lossy();
    let below = home.device().parent() == node.config.devices.canonicalize().ok().as_deref();
    let Some(device) = devices.iter().find(|device| below && device.name == name) else {
        let place = home.device().display();
        return format!("not look at it: by ring and conf file {place} is no drive of this node");
    };
    let hash = node.config.salt.hash(&info.account, Some(&info.container), None);
    if hash != home.hash() {
        return format!(
            "leave it alone: with the hash prefix and suffix of swift.conf the hash of {}/{} is {hash}",
            info.account, info.container
        );
    }
    let mut steps = Vec::new();
    if facts.waiting.bytes > 0 {
        steps.push(format!("take in {} pending rows", thousands(facts.waiting.rows)));
    }
    if facts.deleted_for(node.config.reclaim_age) {
        steps.push(match facts.account_knows() {
            true => "remove it: it was deleted long ago, and its account knows".to_owned(),
            false => "leave it alone: it was deleted long ago, but its account was not told yet".to_owned(),
        });
        return steps.join("\n");
    }
    let partition = ring.part_shift().partition(&hash);
    let primaries = ring.primaries(partition);
    let own = primaries.iter().position(|primary| primary.id == device.id);
    let misplaced = home.partition_name() != partition.to_string();
    let list = |devices: &[&Device]| {
        let named = devices.iter().map(|d| format!("{}:{}/{}", d.replication_ip, d.replication_port, d.name));
        named.collect::<Vec<_>>().join(", ")
    };
    let others: Vec<&Device> = primaries.iter().copied().filter(|primary| primary.id != device.id).collect();
    let leaving = match (own, misplaced) {
        (Some(replica), false) => {
            steps.push(match others.is_empty() {
                true => "compare it with nobody: the ring has one replica, and this is its place".to_owned(),
                false => format!(
                    "compare it with {}: this is the place of replica {} of {}",
                    list(&others),
                    replica + 1,
                    primaries.len()
                ),
            });
            false
        }
        (_, true) => {
            let lies = printable(home.partition_name()).into_owned();
            steps.push(format!(
                "take it to {}: it lies in partition {lies} and belongs in {partition}",
                list(&others)
            ));
            true
        }
        (None, false) => {
            steps.push(format!("take it to {}: this is a handoff of partition {partition}", list(&others)));
            true
        }
    };
    if info.sharding_initiated {
        steps.push("send shard ranges, but no rows: it is being sharded".to_owned());
    }
    match (leaving, info.sharding_required) {
        (true, true) => steps.push("keep this copy, because it is being sharded".to_owned()),
        (true, false) => steps.push("remove this copy when they have all of it".to_owned()),
        (false, _) => {}
    }
    if info.db_state == DbState::Unsharded && info.is_deleted() {
        let age = thousands(node.config.reclaim_age.as_secs() / 3600);
        steps.push(format!("keep it for {age} hours after its deletion, for all replicas to hear of it"));
    }
    steps.join("\n")
}

/// Everything there is to say of one database.
#[derive(Debug, Clone, Copy)]
pub struct Inspection<'a> {
    /// The file.
    pub path: &'a Path,
    /// What it says of itself.
    pub info: &'a ReplicaInfo,
    /// What it holds of others' rows.
    pub incoming: &'a [SyncPoint],
    /// What others hold of its rows.
    pub outgoing: &'a [SyncPoint],
    /// Each policy's objects and bytes.
    pub policies: &'a [(PolicyIndex, i64, i64)],
    /// Shard ranges, deleted ones included.
    pub ranges: usize,
    /// What waits in the `.pending` file beside it.
    pub waiting: Waiting,
    /// What a pass would do with it, in a sentence.
    pub verdict: &'a str,
}

/// The inspection as text, for somebody at a terminal.
pub fn render(inspection: &Inspection<'_>) -> String {
    let Inspection { path, info, incoming, outgoing, policies, ranges, waiting, verdict } = *inspection;
    let mut page = Page::new(NAME_WIDTH);

    page.fact("database", &path.display().to_string());
    page.fact("container", &format!("{}/{}", info.account, info.container));
    page.fact("id", info.id.as_str());
    page.fact("file", &format!("{} in pages of {} B", size(info.file_bytes), info.page_bytes));
    page.fact("db_state", info.db_state.as_str());
    page.fact("deleted", if info.is_deleted() { "yes" } else { "no" });

    page.heading("rows");
    page.fact("object_count", &count(info.count));
    page.fact("bytes_used", &count(info.bytes_used));
    page.fact("hash", &info.hash.to_string());
    page.fact("max_row", &info.max_row.to_string());
    page.fact(
        "pending",
        &match waiting.bytes {
            0 => "none".to_owned(),
            bytes => format!("{} rows in {}, not in any number here", thousands(waiting.rows), size(bytes)),
        },
    );
    page.fact("shard ranges", &count(ranges as i64));

    page.heading("times");
    page.fact("created_at", &moment(&info.created_at));
    page.fact("put_timestamp", &moment(&info.put_timestamp));
    page.fact("delete_timestamp", &moment(&info.delete_timestamp));
    page.fact("status_changed_at", &moment(&info.status_changed_at));

    page.heading("policies");
    for (policy, objects, bytes) in policies {
        let current = if *policy == info.storage_policy_index { ", the container's" } else { "" };
        page.fact(
            &policy.to_string(),
            &format!("{} objects, {} bytes{current}", count(*objects), count(*bytes)),
        );
    }

    tell_points(&mut page, "incoming sync points", "rows of", incoming);
    tell_points(&mut page, "outgoing sync points", "rows for", outgoing);

    if !info.metadata.0.is_empty() {
        page.heading("metadata");
        for item in &info.metadata.0 {
            let value = if item.value.is_empty() { "(deleted)" } else { &item.value };
            page.lines(&printable(&format!("{}: {value}  ({})", item.key, item.stamp)));
        }
    }

    page.heading("a pass would");
    page.lines(verdict);
    page.text
}

/// The inspection as one JSON object on one line.
pub fn render_json(inspection: &Inspection<'_>) -> String {
    let Inspection { path, info, incoming, outgoing, policies, ranges, waiting, verdict } = *inspection;
    let points = |points: &[SyncPoint]| -> Vec<Value> {
        points.iter().map(|p| json!({"remote_id": p.remote_id.as_str(), "sync_point": p.point.0})).collect()
    };
    let policies: Vec<Value> = policies
        .iter()
        .map(|(policy, objects, bytes)| {
            json!({"storage_policy_index": policy.0, "object_count": objects, "bytes_used": bytes})
        })
        .collect();
    let metadata: serde_json::Map<String, Value> = info
        .metadata
        .0
        .iter()
        .map(|item| (item.key.clone(), json!([item.value, item.stamp.as_str()])))
        .collect();
    let object = json!({
        "path": path.display().to_string(),
        "id": info.id.as_str(),
        "account": info.account,
        "container": info.container,
        "created_at": info.created_at.as_str(),
        "put_timestamp": info.put_timestamp.as_str(),
        "delete_timestamp": info.delete_timestamp.as_str(),
        "status_changed_at": info.status_changed_at.as_str(),
        "storage_policy_index": info.storage_policy_index.0,
        "object_count": info.count,
        "bytes_used": info.bytes_used,
        "hash": info.hash.to_string(),
        "max_row": info.max_row.0,
        "shard_max_row": info.shard_max_row.0,
        "metadata": metadata,
        "db_state": info.db_state.as_str(),
        "sharding_initiated": info.sharding_initiated,
        "sharding_required": info.sharding_required,
        "is_deleted": info.is_deleted(),
        "file_bytes": info.file_bytes,
        "page_bytes": info.page_bytes,
        "incoming_sync": points(incoming),
        "outgoing_sync": points(outgoing),
        "policies": policies,
        "shard_ranges": ranges,
        "pending_bytes": waiting.bytes,
        "pending_rows": waiting.rows,
        "verdict": verdict,
    });
    format!("{object}\n")
}

fn tell_points(page: &mut Page, title: &str, relation: &str, points: &[SyncPoint]) {
    page.heading(title);
    if points.is_empty() {
        page.lines("none");
    }
    for point in points {
        page.lines(&format!("{:>12}  {relation} {}", point.point, point.remote_id));
    }
}

/// A count with its thousands; counts of a broken database may be negative.
pub(super) fn count(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", thousands(number.unsigned_abs()))
}

/// A stamp, and when that was.
pub(super) fn moment(stamp: &Stamp) -> String {
    match stamp.time().raw() {
        0 => stamp.to_string(),
        _ => format!("{stamp}  {} UTC", utc(stamp.time().seconds() as u64)),
    }
}

/// How long to wait for a writer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer pending file is no container server's: they empty it at 128 KiB.
const PENDING_READ_BYTES: u64 = 16 << 20;
/// As wide as the longest name, indented.
const NAME_WIDTH: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{DbState, Metadata, MetadataItem, ReplicaId, RowHash, RowId};

    fn replica() -> ReplicaInfo {
        ReplicaInfo {
            id: ReplicaId::new("0b6c9f1e-sdb1").expect("an id"),
            account: "AUTH_test".to_owned(),
            container: "holiday\nphotos".to_owned(),
            created_at: Stamp::stored("1750000000.00000"),
            put_timestamp: Stamp::stored("1750000001.00000"),
            delete_timestamp: Stamp::unset(),
            status_changed_at: Stamp::stored("not a time"),
            storage_policy_index: PolicyIndex(1),
            count: 12_345,
            bytes_used: -7,
            hash: RowHash::default(),
            max_row: RowId(13_000),
            shard_max_row: RowId::NONE,
            metadata: Metadata(vec![
                MetadataItem {
                    key: "X-Container-Meta-Color".to_owned(),
                    value: "blue".to_owned(),
                    stamp: Stamp::stored("1750000002.00000"),
                },
                MetadataItem {
                    key: "X-Container-Read".to_owned(),
                    value: String::new(),
                    stamp: Stamp::stored("1750000003.00000"),
                },
            ]),
            db_state: DbState::Unsharded,
            sharding_initiated: false,
            sharding_required: false,
            ranges_digest: [0; 16],
            file_bytes: 1_258_291,
            page_bytes: 4096,
        }
    }

    fn with_inspection<T>(check: impl FnOnce(Inspection<'_>) -> T) -> T {
        let incoming =
            [SyncPoint { remote_id: ReplicaId::new("peer-a").expect("an id"), point: RowId(12_999) }];
        check(Inspection {
            path: Path::new("/srv/node/sdb1/x.db"),
            info: &replica(),
            incoming: &incoming,
            outgoing: &[],
            policies: &[(PolicyIndex(0), 3, 300), (PolicyIndex(1), 12_345, -7)],
            ranges: 0,
            waiting: Waiting { bytes: 1_300, rows: 7 },
            verdict: "send the rows after 12999 to 10.0.0.2/sdb",
        })
    }

    #[test]
    fn the_page_holds_every_fact() {
        let page = with_inspection(|inspection| render(&inspection));
        println!("{page}");
        for line in [
            "database               /srv/node/sdb1/x.db\n",
            "container              AUTH_test/holiday#012photos\n",
            "file                   1.2 MiB in pages of 4096 B\n",
            "\nrows\n  object_count         12,345\n  bytes_used           -7\n",
            "  pending              7 rows in 1.3 KiB, not in any number here\n",
            "  created_at           1750000000.00000  2025-06-15 15:06:40 UTC\n",
            "  delete_timestamp     0\n",
            "  status_changed_at    not a time\n",
            "  1                    12,345 objects, -7 bytes, the container's\n",
            "\nincoming sync points\n         12999  rows of peer-a\n",
            "\noutgoing sync points\n  none\n",
            "  X-Container-Meta-Color: blue  (1750000002.00000)\n",
            "  X-Container-Read: (deleted)  (1750000003.00000)\n",
            "\na pass would\n  send the rows after 12999 to 10.0.0.2/sdb\n",
        ] {
            assert!(page.contains(line), "{line:?} is missing:\n{page}");
        }
    }

    #[test]
    fn the_json_has_swifts_names() {
        let text = with_inspection(|inspection| render_json(&inspection));
        let object: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(object["container"], "holiday\nphotos");
        assert_eq!(object["put_timestamp"], "1750000001.00000");
        assert_eq!(object["object_count"], 12_345);
        assert_eq!(object["incoming_sync"], json!([{"remote_id": "peer-a", "sync_point": 12_999}]));
        assert_eq!(object["metadata"]["X-Container-Meta-Color"], json!(["blue", "1750000002.00000"]));
        assert_eq!(object["policies"][1]["bytes_used"], -7);
    }
}
