//! What the demo shows, as it happens: lines that fit 100 columns, colours only where a terminal wants them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::{Cluster, FIRST_NODES, NodeIndex, PART_POWER, REPLICAS, Rows, device_name};
use super::containers::{Container, Holding};
use super::deed::{Deed, SETTLING};
use super::follow::{Follow, Journey, Pass, least_moves};
use super::proof::Proof;
use crate::cli::print;
use crate::cli::ring::table::assignment_table;
use crate::report::terminal;
use crate::report::text::{printable, size, thousands};
use crate::ring::moves::Moves;

/// Tells it on standard output.
pub struct Story {
    colour: bool,
    width: usize,
}

impl Story {
    /// In colour if standard output is a terminal that understands it and nobody objects.
    pub fn new() -> Story {
        let stdout = std::io::stdout();
        let width = terminal::width(&stdout).map_or(WIDTH, |width| width.min(WIDTH));
        Story { colour: terminal::wants_colour(&stdout), width }
    }

    /// What is built.
    pub fn opening(&self, cluster: &Cluster) {
        self.heading("A cluster of loopback nodes");
        self.fact("directory", &cluster.root().display().to_string());
        self.fact(
            "ring",
            &format!(
                "{} partitions, {REPLICAS} replicas, {FIRST_NODES} drives in {FIRST_NODES} zones; which drive has what:",
                1 << PART_POWER
            ),
        );
        self.assignment(cluster, None);
    }

    /// What runs.
    pub fn daemons(&self, cluster: &Cluster) {
        self.heading("Daemons serve them");
        let ports: Vec<String> = cluster.nodes().map(|node| cluster.port(node).to_string()).collect();
        self.fact("agents", &format!("{FIRST_NODES} processes on 127.0.0.1, ports {}", ports.join(", ")));
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
    pub fn proof(&self, proof: &Proof, last: &Deed) -> bool {
        self.heading("Proof");
        let agreed = self.no_differences(proof);
        if agreed {
            self.good(&format!(
                "{} replicas of {} containers agree in rows, hash, metadata and timestamps",
                proof.replicas, proof.containers
            ));
            self.no_row_lost(proof);
            self.good(&format!(
                "no copy is left on a handoff, and {} of a container deleted long ago",
                if proof.gone > 0 { "none" } else { "nothing" }
            ));
        }
        self.quiet(last) & agreed
    }

    /// What was proven after the ring was changed; whether that is everything.
    pub fn in_place(&self, proof: &Proof, last: &Deed) -> bool {
        let agreed = self.no_differences(proof);
        if agreed {
            self.no_row_lost(proof);
            self.good(&format!(
                "all {} replicas are where the ring wants them, and no other copy is left",
                proof.replicas
            ));
        }
        self.quiet(last) & agreed
    }

    fn no_row_lost(&self, proof: &Proof) {
        self.good(&format!(
            "no row was lost: the newest of each of {} names is in all its replicas",
            thousands(proof.rows as u64)
        ));
    }

    fn no_differences(&self, proof: &Proof) -> bool {
        self.all_bad(&proof.differences);
        proof.differences.is_empty()
    }

    fn quiet(&self, last: &Deed) -> bool {
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
        quiet
    }

    /// Whether all of it was proven.
    pub fn verdict(&self, proven: bool, took: Duration) {
        self.line("");
        let verdict = match proven {
            true => self.green("All replicas agree."),
            false => self.red("Not all is as it should be."),
        };
        self.line(&format!("{}  {}", self.bold(&verdict), self.dim(&format!("{:.1} s", took.as_secs_f64()))));
    }

    /// A drive was added and the ring rebalanced.
    pub fn grown(&self, cluster: &Cluster, node: NodeIndex, before: &Rows) {
        self.heading(&format!("Drive {} is added in zone 1, and the ring rebalanced", device_name(node)));
        self.changed(cluster, before);
    }

    /// A drive was given no weight and the ring rebalanced.
    pub fn drained(&self, cluster: &Cluster, node: NodeIndex, before: &Rows) {
        self.heading(&format!("Drive {} is drained: weight 0, and the ring rebalanced", device_name(node)));
        self.changed(cluster, before);
    }

    /// Where everything is now, and how much of it was elsewhere.
    fn changed(&self, cluster: &Cluster, before: &Rows) {
        self.assignment(cluster, Some(before));
        let moves = Moves::between(before, cluster.rows());
        let least = least_moves(cluster.builder(), before);
        let had_to = match least {
            least if least == moves.moved => "no fewer could give every drive its share".to_owned(),
            least => format!("at least {least} had to, to give every drive its share"),
        };
        self.fact("moved", &format!("{} of {} replicas; {had_to}", moves.moved, moves.replicas));
        let parts = cluster.builder().parts();
        let held: Vec<String> = cluster
            .members()
            .map(|node| format!("{} {}", device_name(node), parts.get(node).copied().unwrap_or(0)))
            .collect();
        self.fact("hold now", &held.join(", "));
    }

    /// A round of passes while the new node did not answer; whether nobody removed anything.
    pub fn waited(&self, cluster: &Cluster, node: NodeIndex, follow: &Follow, deed: &Deed) -> bool {
        let (name, due, port) = (device_name(node), follow.journeys.len(), cluster.port(node));
        self.fact(
            "round 1",
            &format!("passes, while nobody answers for {name} yet (port {port}): {} failures", deed.failures),
        );
        let kept = deed.removed == 0 && follow.waiting() == due && follow.wrong.is_empty();
        match kept {
            true => self.good(&format!(
                "nothing was removed: {due} copies wait where they are until {name} has them"
            )),
            false => {
                self.bad(&format!("only {} of {due} copies are still where they were", follow.waiting()))
            }
        }
        kept
    }

    /// The new node's daemon runs.
    pub fn started(&self, cluster: &Cluster, node: NodeIndex) {
        self.fact("agents", &format!("node {} serves now, on port {}", node, cluster.port(node)));
    }

    /// Who brought what where, who removed what then; whether all of it was as it should be.
    pub fn followed(&self, follow: &Follow) -> bool {
        if !follow.journeys.is_empty() {
            self.columns(&format!(
                "{:<14}{:<11}{:<11}{:<20}{}",
                "", "partition", "from, to", "brought by", "then removed by"
            ));
        }
        for journey in &follow.journeys {
            self.journey(journey);
        }
        let mut sum = Deed::default();
        follow.rounds.iter().for_each(|round| sum.add(round));
        let text = format!("{} passes of all nodes, {} on the wire", sum.passes, size(sum.wire_bytes));
        self.line(&self.bold(&format!("{:<14}{text}", "all")));
        self.all_bad(&follow.wrong);
        let done = follow.is_done();
        match done {
            true => self.good("each copy moved once, and went only when all that should hold it did"),
            false => self.bad(&format!("{} copies are still where they were", follow.waiting())),
        }
        done
    }

    fn journey(&self, journey: &Journey) {
        let by = |pass: Option<Pass>| match pass {
            Some(Pass { node, round }) => format!("node {} in round {round}", node),
            None => "nobody".to_owned(),
        };
        let way = format!("{} -> {}", device_name(journey.from), device_name(journey.to));
        self.line(&format!(
            "{}{:<11}{way:<11}{:<20}{}",
            self.cyan(&format!("{:<14}", journey.container)),
            journey.partition.to_string(),
            by(journey.brought),
            by(journey.removed),
        ));
    }

    /// What is left on a drive that was drained; whether that is nothing.
    pub fn emptied(&self, node: NodeIndex, left: &[PathBuf]) -> bool {
        let name = device_name(node);
        match left.first() {
            None => self.good(&format!("{name} is empty: no database, no directory, nothing in tmp")),
            Some(path) => self.bad(&format!("{name} still has {}", path.display())),
        }
        left.is_empty()
    }

    /// A drive that was empty is out of the ring; whether nothing moved for it.
    pub fn removed(&self, cluster: &Cluster, node: NodeIndex, moves: &Moves, last: &Deed) -> bool {
        self.heading(&format!("Drive {} is removed, and the ring rebalanced", device_name(node)));
        let still = moves.is_empty() && last.removed + last.full + last.delta + last.rows == 0;
        let rest: Vec<String> = cluster.members().map(device_name).collect();
        self.fact("ring", &format!("{} drives: {}", rest.len(), rest.join(", ")));
        match still {
            true => self.good("no replica changed its place, and no pass moved anything"),
            false => self.bad(&format!("{} replicas moved; passes did: {}", moves.moved, last.in_words(&[]))),
        }
        still
    }

    /// Which drive has which replica of which partition; with what was there before where that is another.
    fn assignment(&self, cluster: &Cluster, before: Option<&Rows>) {
        let devices = cluster.builder().devices();
        let before = before.map(Vec::as_slice);
        for line in assignment_table(devices, cluster.rows(), before, self.colour, self.width - INDENT) {
            self.line(&line);
        }
    }

    /// Where it all stays.
    pub fn kept(&self, root: &Path) {
        self.heading("It stays");
        let root = root.display();
        self.line(&format!("agent --config {root}/node1/agent.conf           serves node 1 again"));
        self.line(&format!("agent --config {root}/node2/agent.conf --once    a pass of node 2"));
        self.line(&format!("agent info --config {root}/node1/agent.conf DB   any .db of node 1"));
        self.line(&format!("agent ring {root}/etc/container.builder          the ring's builder"));
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

    fn all_bad(&self, texts: &[String]) {
        texts.iter().take(DIFFERENCES_SHOWN).for_each(|text| self.bad(text));
        if let more @ 1.. = texts.len().saturating_sub(DIFFERENCES_SHOWN) {
            self.bad(&format!("and {more} more"));
        }
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

/// The widest line, in columns.
const WIDTH: usize = 100;
/// What each line but a heading begins with, in blanks.
const INDENT: usize = 2;
/// Enough to see what kind of thing went wrong.
const DIFFERENCES_SHOWN: usize = 12;
