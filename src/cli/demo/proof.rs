//! Holds every replica against the note of what was written, and against the other replicas.
//!
//! No sum that a database keeps of itself is believed: rows are read one by one, and their hash is made anew.

use std::collections::BTreeMap;

use super::cluster::{Cluster, REPLICAS};
use super::containers::{Container, End};
use crate::broker::{Broker, BrokerError};
use crate::drive::HashDir;
use crate::replica::{ReplicaInfo, Row, RowHash, RowId};

/// What was found.
#[derive(Debug, Default)]
pub struct Proof {
    /// Replicas that were read.
    pub replicas: usize,
    /// Containers that they are of.
    pub containers: usize,
    /// Rows that were written to any of them, each found in every replica.
    pub rows: usize,
    /// Containers that had to go, and are gone.
    pub gone: usize,
    /// What is not as it must be.
    pub differences: Vec<String>,
}

/// Reads everything, where the ring of this moment wants it.
pub fn prove(cluster: &Cluster, containers: &[Container]) -> Proof {
    let mut proof = Proof::default();
    for container in containers {
        let mut differ = |what: String| proof.differences.push(format!("{}: {what}", container.case.name));
        let nodes = cluster.primaries(container.partition);
        let primaries: Vec<HashDir> = nodes.iter().map(|&node| container.home(cluster, node)).collect();
        for node in cluster.nodes().filter(|node| !nodes.contains(node)) {
            let home = container.home(cluster, node);
            if home.dir().exists() {
                differ(format!("there is still a copy where none should be, {}", home.dir().display()));
            }
        }
        if container.case.end == End::Gone {
            match primaries.iter().find(|home| home.dir().exists()) {
                Some(home) => differ(format!("it is still there: {}", home.dir().display())),
                None => proof.gone += 1,
            }
            continue;
        }
        let mut first: Option<ReplicaInfo> = None;
        for (place, home) in PLACES.iter().zip(&primaries) {
            match Replica::read(home) {
                Err(error) => differ(format!("the {place} replica cannot be read: {error}")),
                Ok(replica) => {
                    proof.replicas += 1;
                    replica
                        .differences(container)
                        .into_iter()
                        .for_each(|what| differ(format!("the {place} replica {what}")));
                    match &first {
                        Some(first) if !replica.info.agrees_with(first) => {
                            differ(format!(
                                "the {place} replica does not say the same of itself as the first"
                            ));
                        }
                        Some(_) => {}
                        None => first = Some(replica.info),
                    }
                }
            }
        }
        proof.containers += 1;
        proof.rows += container.written.len();
    }
    proof
}

/// One replica, read whole.
struct Replica {
    info: ReplicaInfo,
    rows: BTreeMap<String, Row>,
    /// Made from the rows.
    hash: RowHash,
    /// Names that came twice.
    doubled: usize,
}

impl Replica {
    fn read(home: &HashDir) -> Result<Replica, BrokerError> {
        let mut broker = Broker::open(home)?;
        let info = broker.info()?;
        let mut replica = Replica { info, rows: BTreeMap::new(), hash: RowHash::default(), doubled: 0 };
        let mut after = RowId::NONE;
        loop {
            let rows = broker.rows_after(after, ROWS_AT_ONCE)?;
            let Some(last) = rows.last().and_then(|row| row.row_id) else { return Ok(replica) };
            after = last;
            for row in rows {
                replica.hash.mix(&row.name, &row.created_at);
                replica.doubled += usize::from(replica.rows.insert(row.name.clone(), row).is_some());
            }
        }
    }

    /// Where it is not what was written to the container.
    fn differences(&self, container: &Container) -> Vec<String> {
        let mut differences = Vec::new();
        let lacking: Vec<&str> = container
            .written
            .keys()
            .filter(|name| !self.rows.contains_key(*name))
            .map(String::as_str)
            .collect();
        if let Some(name) = lacking.first() {
            differences.push(format!("lacks {} rows, among them {name}", lacking.len()));
        }
        let surplus = self.rows.keys().filter(|name| !container.written.contains_key(*name)).count();
        let other = |(name, row): &(&String, &Row)| {
            container.written.get(*name).is_some_and(|written| !same(written, row))
        };
        let changed: Vec<_> = self.rows.iter().filter(other).collect();
        if let Some((name, _)) = changed.first() {
            differences
                .push(format!("has {} rows other than the newest written, among them {name}", changed.len()));
        }
        let alive = container.written.values().filter(|row| row.deleted == 0);
        let (count, bytes) = alive.fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.size));
        let metadata: BTreeMap<&str, &str> =
            self.info.metadata.0.iter().map(|item| (item.key.as_str(), item.value.as_str())).collect();
        let expected = container.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let facts = [
            (surplus > 0, "has rows that nobody wrote"),
            (self.doubled > 0, "has names that come twice"),
            (self.hash != self.info.hash, "keeps a hash that is not that of its rows"),
            (
                (self.info.count, self.info.bytes_used) != (count, bytes),
                "counts other objects than it should hold",
            ),
            (metadata != expected, "has other metadata than was set last"),
            (self.info.put_timestamp != container.put_timestamp, "has another put_timestamp than the newest"),
            (
                self.info.delete_timestamp != container.delete_timestamp,
                "has another delete_timestamp than the newest",
            ),
        ];
        differences.extend(facts.into_iter().filter(|(wrong, _)| *wrong).map(|(_, what)| what.to_owned()));
        differences
    }
}

/// Equal but for their numbers, which each replica gives out itself.
fn same(written: &Row, row: &Row) -> bool {
    *written == Row { row_id: None, ..row.clone() }
}

const PLACES: [&str; REPLICAS] = ["first", "second", "third"];
const ROWS_AT_ONCE: usize = 5_000;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::cluster::Cluster;
    use super::super::containers::{CASES, salt_that_spreads};
    use super::*;
    use crate::stop::Stop;
    use crate::timestamp::Timestamp;

    #[test]
    fn nothing_is_proven_before_a_pass_but_where_nothing_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (prefix, suffix) = salt_that_spreads();
        let cluster = Cluster::build(dir.path(), &prefix, &suffix, &Stop::default()).unwrap();
        let now = Timestamp::at(SystemTime::now());
        for case in CASES.iter().filter(|case| !["far-behind", "forgotten"].contains(&case.name)) {
            let container = Container::make(case, &cluster, now).unwrap();
            let proof = prove(&cluster, &[container]);
            // A look takes in what is pending, so there the others lack it.
            let equal = ["equal", "reordered"].contains(&case.name);
            assert_eq!(proof.differences.is_empty(), equal, "{}: {:?}", case.name, proof.differences);
        }
    }

    #[test]
    fn a_lost_row_an_old_row_and_a_foreign_row_are_each_told() {
        let dir = tempfile::tempdir().unwrap();
        let (prefix, suffix) = salt_that_spreads();
        let cluster = Cluster::build(dir.path(), &prefix, &suffix, &Stop::default()).unwrap();
        let now = Timestamp::at(SystemTime::now());
        let mut container = Container::make(&CASES[0], &cluster, now).unwrap();
        let (name, row) = container.written.pop_first().unwrap();
        let told =
            |container: &Container| prove(&cluster, std::slice::from_ref(container)).differences.join("\n");
        assert!(told(&container).contains("has rows that nobody wrote"));
        container.written.insert(name.clone(), Row { etag: "another".to_owned(), ..row.clone() });
        assert!(told(&container).contains("has 1 rows other than the newest written"));
        container.written.insert(name, row.clone());
        assert_eq!(told(&container), "");
        container.written.insert("lost".to_owned(), Row { name: "lost".to_owned(), ..row });
        assert!(told(&container).contains("lacks 1 rows, among them lost"));
    }
}
