//! `agent info`: one database, as an operator asks about it.
//!
//! Names are those of Swift's columns (`swift-container-info` has them too), so that what is seen here can be looked for
//! there. Whatever the database holds is printed with its control characters spelt out.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::{Exit, InfoOptions, complain};
use crate::replica::{PolicyIndex, ReplicaInfo, SyncPoint};
use crate::report::text::{printable, size, thousands, utc};
use crate::timestamp::Stamp;

/// Opens the database and prints what it is.
pub fn info(_options: InfoOptions) -> Exit {
    complain("info is not built yet")
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
    /// Bytes of the `.pending` file beside it.
    pub pending_bytes: u64,
    /// What a pass would do with it, in a sentence.
    pub verdict: &'a str,
}

/// The inspection as text, for somebody at a terminal.
pub fn render(inspection: &Inspection<'_>) -> String {
    let Inspection { path, info, incoming, outgoing, policies, ranges, pending_bytes, verdict } = *inspection;
    let mut page = Page::default();

    page.line("database", &path.display().to_string());
    page.line("container", &format!("{}/{}", info.account, info.container));
    page.line("id", info.id.as_str());
    page.line("file", &format!("{} in pages of {} B", size(info.file_bytes), info.page_bytes));
    page.line("db_state", info.db_state.as_str());
    page.line("deleted", if info.is_deleted() { "yes" } else { "no" });

    page.heading("rows");
    page.line("object_count", &count(info.count));
    page.line("bytes_used", &count(info.bytes_used));
    page.line("hash", &info.hash.to_string());
    page.line("max_row", &info.max_row.to_string());
    page.line("pending", &size(pending_bytes));
    page.line("shard ranges", &count(ranges as i64));

    page.heading("times");
    page.line("created_at", &moment(&info.created_at));
    page.line("put_timestamp", &moment(&info.put_timestamp));
    page.line("delete_timestamp", &moment(&info.delete_timestamp));
    page.line("status_changed_at", &moment(&info.status_changed_at));

    page.heading("policies");
    for (policy, objects, bytes) in policies {
        let current = if *policy == info.storage_policy_index { ", the container's" } else { "" };
        page.line(
            &policy.to_string(),
            &format!("{} objects, {} bytes{current}", count(*objects), count(*bytes)),
        );
    }

    page.points("incoming sync points", "rows of", incoming);
    page.points("outgoing sync points", "rows for", outgoing);

    if !info.metadata.0.is_empty() {
        page.heading("metadata");
        for item in &info.metadata.0 {
            let value = if item.value.is_empty() { "(deleted)" } else { &item.value };
            page.text(&printable(&format!("{}: {value}  ({})", item.key, item.stamp)));
        }
    }

    page.heading("a pass would");
    page.text(verdict);
    page.text
}

/// The inspection as one JSON object on one line.
pub fn render_json(inspection: &Inspection<'_>) -> String {
    let Inspection { path, info, incoming, outgoing, policies, ranges, pending_bytes, verdict } = *inspection;
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
        "pending_bytes": pending_bytes,
        "verdict": verdict,
    });
    format!("{object}\n")
}

/// Lines of a name and what it stands for, under headings.
#[derive(Default)]
struct Page {
    text: String,
    /// Two spaces from the first heading on.
    indent: &'static str,
}

impl Page {
    fn heading(&mut self, title: &str) {
        self.indent = "  ";
        writeln!(self.text, "\n{title}").expect(INFALLIBLE);
    }

    fn line(&mut self, name: &str, value: &str) {
        let (indent, width) = (self.indent, NAME_WIDTH - self.indent.len());
        writeln!(self.text, "{indent}{name:<width$} {}", printable(value)).expect(INFALLIBLE);
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            writeln!(self.text, "  {}", printable(line)).expect(INFALLIBLE);
        }
    }

    fn points(&mut self, title: &str, relation: &str, points: &[SyncPoint]) {
        self.heading(title);
        if points.is_empty() {
            self.text("none");
        }
        for point in points {
            self.text(&format!("{:>12}  {relation} {}", point.point, point.remote_id));
        }
    }
}

/// A count with its thousands; counts of a broken database may be negative.
fn count(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", thousands(number.unsigned_abs()))
}

/// A stamp, and when that was.
fn moment(stamp: &Stamp) -> String {
    match stamp.time().raw() {
        0 => stamp.to_string(),
        _ => format!("{stamp}  {} UTC", utc(stamp.time().seconds() as u64)),
    }
}

/// As wide as the longest name, indented.
const NAME_WIDTH: usize = 22;

const INFALLIBLE: &str = "a string takes whatever is written to it";

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
            pending_bytes: 0,
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
