//! What the demo shows, as it happens: lines that fit 100 columns, colours only where a terminal wants them.

use std::path::Path;
use std::time::Duration;

use super::cluster::{Cluster, NODES, PART_POWER, REPLICAS};
use super::containers::{Container, Holding};
use super::deed::{Deed, SETTLING};
use super::proof::Proof;
use crate::cli::print;
use crate::report::terminal;
use crate::report::text::{printable, size, thousands};

/// Tells it on standard output.
pub struct Story {
    colour: bool,
}

impl Story {
    /// In colour if standard output is a terminal that understands it and nobody objects.
    pub fn new() -> Story {
        Story { colour: terminal::wants_colour(&std::io::stdout()) }
    }

    /// What is built.
    pub fn opening(&self, cluster: &Cluster) {
        self.heading("A cluster of loopback nodes");
        self.fact("directory", &cluster.root().display().to_string());
        self.fact(
            "ring",
            &format!("{} partitions, {REPLICAS} replicas, {NODES} drives in {NODES} zones", 1 << PART_POWER),
        );
    }

    /// What runs.
    pub fn daemons(&self, cluster: &Cluster) {
        self.heading("Daemons serve them");
        let ports: Vec<String> = cluster.ports().iter().map(u16::to_string).collect();
        self.fact("agents", &format!("{NODES} processes on 127.0.0.1, ports {}", ports.join(", ")));
    }

    /// Begins the table of containers.
    pub fn containers(&self) {
        self.heading("Containers, each out of step in its own way");
        self.columns(&format!(
            "{:<12}{:<36}{:>9}{:>9}{:>9}{:>9}  {:>9}",
            "", "", "first", "second", "third", "handoff", "file"
        ));
    }

    /// One container as it was made.
    pub fn container(&self, container: &Container) {
        let held = |holding: &Holding| {
            let text = match holding {
                Holding::Nothing => "-".to_owned(),
                Holding::Garbage => "garbage".to_owned(),
                Holding::Objects(count) => thousands(count.unsigned_abs()),
            };
            let text = format!("{text:>9}");
            match holding {
                Holding::Nothing => self.dim(&text),
                Holding::Garbage => self.red(&text),
                Holding::Objects(_) => text,
            }
        };
        let holdings: String = container.objects.iter().map(held).collect();
        let file = format!("{:>9}", size(container.file_bytes));
        self.line(&format!(
            "{}{:<36}{holdings}  {}",
            self.name(container),
            container.case.differs,
            self.dim(&file)
        ));
    }

    /// Begins the table of plans.
    pub fn plans(&self) {
        self.heading("What a dry run of every node foretells");
    }

    /// The most that any node means to do for a container.
    pub fn plan(&self, container: &Container, plan: &[String]) {
        let said = plan.iter().max_by_key(|said| weight(said)).map_or("", String::as_str);
        let said = said.split_once(';').map_or(said, |(said, _)| said);
        let (what, why) = said.split_once(" because ").unwrap_or((said, ""));
        // Which of them it is, a sample of both files decides.
        let what = if what.starts_with("block delta") { "block delta, copy or rows" } else { what };
        match why {
            "" => self.line(&format!("{}{}", self.name(container), printable(what))),
            why => self.line(&format!("{}{what:<26}{}", self.name(container), self.dim(&printable(why)))),
        }
    }

    /// Begins the table of what was done.
    pub fn deeds(&self) {
        self.heading("Passes of every node over TCP, one container at a time");
        self.columns(&format!(
            "{:<12}{:<41}{:>9}{:>12}{:>12}{:>8}",
            "", "", "passes", "wire", "file", "share"
        ));
    }

    /// What was done for a container.
    pub fn deed(&self, container: &Container, plan: &[String], deed: &Deed) {
        let numbers = self.numbers(deed, container.file_bytes);
        self.line(&format!("{}{:<41}{numbers}", self.name(container), deed.in_words(plan)));
    }

    /// What was done for all of them.
    pub fn total(&self, containers: &[Container], total: &Deed) {
        let files = containers.iter().map(|container| container.file_bytes).sum();
        let text = format!("at most {} of memory in any pass", size(total.memory_kib * 1024));
        let line = format!("{:<12}{text:<41}{}", "all", self.numbers(total, files));
        self.line(&self.bold(&line));
    }

    fn numbers(&self, deed: &Deed, file_bytes: u64) -> String {
        let share = 100.0 * deed.wire_bytes as f64 / file_bytes.max(1) as f64;
        let share = if share < 99.95 { format!("{share:.1} %") } else { format!("{share:.0} %") };
        format!("{:>9}{:>12}{:>12}{share:>8}", deed.passes, size(deed.wire_bytes), size(file_bytes))
    }

    /// What was proven; whether that is everything. `last` is one more pass of every node.
    pub fn proof(&self, proof: &Proof, last: &Deed, took: Duration) -> bool {
        self.heading("Proof");
        let agreed = proof.differences.is_empty();
        if agreed {
            self.good(&format!(
                "{} replicas of {} containers agree in rows, hash, metadata and timestamps",
                proof.replicas, proof.containers
            ));
            self.good(&format!(
                "no row was lost: the newest of each of {} names is in all its replicas",
                thousands(proof.rows as u64)
            ));
            self.good(&format!(
                "no copy is left on a handoff, and {} of a container deleted long ago",
                if proof.gone > 0 { "none" } else { "nothing" }
            ));
        }
        for difference in proof.differences.iter().take(DIFFERENCES_SHOWN) {
            self.bad(difference);
        }
        if let more @ 1.. = proof.differences.len().saturating_sub(DIFFERENCES_SHOWN) {
            self.bad(&format!("and {more} more"));
        }
        let quiet = last.is_quiet();
        match quiet {
            true => self.good(&format!(
                "one more pass of every node finds nothing to do, and takes {} to know it",
                size(last.wire_bytes)
            )),
            false => self.bad(&format!(
                "one more pass of every node still did something: {}, {} failures",
                last.in_words(&[]),
                last.failures
            )),
        }
        self.line("");
        let proven = agreed && quiet;
        let verdict =
            if proven { self.green("All replicas agree.") } else { self.red("Replicas do not agree.") };
        self.line(&format!("{}  {}", self.bold(&verdict), self.dim(&format!("{:.1} s", took.as_secs_f64()))));
        proven
    }

    /// Where it all stays.
    pub fn kept(&self, root: &Path) {
        self.heading("It stays");
        let root = root.display();
        self.line(&format!("agent --config {root}/node1/agent.conf           serves node 1 again"));
        self.line(&format!("agent --config {root}/node2/agent.conf --once    a pass of node 2"));
        self.line(&format!("agent info --config {root}/node1/agent.conf DB   any .db of node 1"));
    }

    fn heading(&self, text: &str) {
        print(&format!("\n{}\n", self.bold(text)));
    }

    fn columns(&self, text: &str) {
        self.line(&self.dim(text));
    }

    fn fact(&self, name: &str, value: &str) {
        self.line(&format!("{}{}", self.cyan(&format!("{name:<12}")), printable(value)));
    }

    fn line(&self, text: &str) {
        print(&format!("{}\n", format!("  {text}").trim_end()));
    }

    fn good(&self, text: &str) {
        self.line(&format!("{}  {text}", self.green("ok")));
    }

    fn bad(&self, text: &str) {
        self.line(&format!("{}  {}", self.red("no"), printable(text)));
    }

    fn name(&self, container: &Container) -> String {
        self.cyan(&format!("{:<12}", container.case.name))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn cyan(&self, text: &str) -> String {
        self.paint("36", text)
    }
}

/// How much a line of a dry run means to do.
fn weight(said: &str) -> u8 {
    match said {
        said if said.starts_with("deleted") => 6,
        said if said.starts_with("block delta") => 5,
        said if said.starts_with("full copy") => 4,
        said if said.starts_with("rows") || said.starts_with("all rows") => 3,
        said if said.starts_with(SETTLING) => 2,
        said if said.contains("more to send") => 0,
        _ => 1,
    }
}

/// Enough to see what kind of thing went wrong.
const DIFFERENCES_SHOWN: usize = 12;
