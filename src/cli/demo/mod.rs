//! `agent demo`: a cluster of loopback nodes, driven through its whole life.
//!
//! First its containers are brought to agree, whatever way they differ in; then a drive is added to the ring and another one
//! drained and taken away, and the data follows.
//!
//! Nothing in it is staged: the databases are made with the broker that every pass uses, the ring with the builder, the
//! daemons are this very program started anew, and passes are run as an operator runs them, over TCP. After each step every
//! replica is read again and held against a note of every row that was ever written. Only that makes the exit code 0.

mod cluster;
mod containers;
mod deed;
mod follow;
mod proof;
mod story;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
use std::{fs, io};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::{DemoOptions, Exit, complain};
use crate::report::terminal;
use crate::report::text::printable;
use crate::ring::moves::Moves;
use crate::stop::Stop;
use crate::timestamp::Timestamp;
use cluster::Cluster;
use containers::{ACCOUNT, CASES, Container, salt_that_spreads};
use deed::Deed;
use follow::Follow;
use story::Story;

/// Why the demo ended early. Whatever it had started is gone by then.
#[derive(Debug)]
enum Trouble {
    /// Somebody wanted it to.
    Stopped,
    /// A step did not work.
    Failed {
        /// What was being done: "while ...".
        step: String,
        /// Why it did not work.
        cause: String,
    },
}

impl Trouble {
    fn failed(step: impl Into<String>, cause: impl fmt::Display) -> Trouble {
        Trouble::Failed { step: step.into(), cause: cause.to_string() }
    }

    /// For `map_err`: what was being done when an error came.
    fn at<E: fmt::Display>(step: impl Into<String>) -> impl FnOnce(E) -> Trouble {
        move |error| Trouble::failed(step, error)
    }
}

/// Builds the cluster and tells what happens in it.
pub fn demo(options: DemoOptions) -> Exit {
    let stop = Stop::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = flag::register(signal, stop.flag()) {
            return complain(format_args!("cannot catch signals: {error}"));
        }
    }
    let ground = match Ground::prepare(options.keep.as_deref()) {
        Ok(ground) => ground,
        Err(reason) => return complain(reason),
    };
    let played = play(&ground, &stop);
    let trouble = match played {
        Ok(true) => return Exit::Clean,
        Ok(false) => return Exit::Failures,
        Err(_) if stop.wished() => Trouble::Stopped,
        Err(trouble) => trouble,
    };
    terminal::say(&match trouble {
        Trouble::Stopped => "agent: the demo was stopped; nothing of it is left running".to_owned(),
        Trouble::Failed { step, cause } => {
            let lines: Vec<_> = format!("agent: the demo failed while {step}: {cause}")
                .lines()
                .map(|line| printable(line).into_owned())
                .collect();
            lines.join("\n")
        }
    });
    Exit::Failures
}

/// Plays all of it; whether everything was proven.
fn play(ground: &Ground, stop: &Stop) -> Result<bool, Trouble> {
    let begun = Instant::now();
    let story = Story::new();
    let now = Timestamp::at(SystemTime::now());
    let (prefix, suffix) = salt_that_spreads();
    let mut cluster = Cluster::build(ground.path(), &prefix, &suffix, stop)?;
    story.opening(&cluster);

    story.containers();
    let mut containers = Vec::new();
    for case in &CASES {
        if stop.wished() {
            return Err(Trouble::Stopped);
        }
        let container =
            Container::make(case, &cluster, now).map_err(Trouble::at(format!("making {}", case.name)))?;
        story.container(&container);
        containers.push(container);
    }

    let all = Vec::from_iter(cluster.nodes());
    cluster.start_daemons(&all)?;
    story.daemons(&cluster);

    story.plans();
    let plans = foretold(&cluster)?;
    for container in &containers {
        story.plan(container, plans.get(container.case.name).map(Vec::as_slice).unwrap_or_default());
    }

    story.deeds();
    let mut total = Deed::default();
    for container in &containers {
        let deed = agree(&cluster, container)?;
        let plan = plans.get(container.case.name).map(Vec::as_slice).unwrap_or_default();
        story.deed(container, plan, &deed);
        total.add(&deed);
    }
    story.total(&containers, &total);

    let last = round(&cluster)?;
    let mut proven = story.proof(&proof::prove(&cluster, &containers), &last);
    proven &= grow(&mut cluster, &containers, &story)?;
    proven &= shrink(&mut cluster, &containers, &story)?;
    story.verdict(proven, begun.elapsed());
    let all = Vec::from_iter(cluster.nodes());
    cluster.stop_daemons(&all);
    if let Ground::Kept(path) = ground {
        story.kept(path);
    }
    Ok(proven)
}

/// A fifth drive comes, in the zone of the first, and what is due there goes there; whether all is well.
fn grow(cluster: &mut Cluster, containers: &[Container], story: &Story) -> Result<bool, Trouble> {
    let node = cluster.add_node(1)?;
    let before = cluster.rebalance()?;
    story.grown(cluster, node, &before);
    let mut follow = Follow::start(cluster, containers, &before);
    let deed = follow.round(cluster)?;
    let mut well = story.waited(cluster, node, &follow, &deed);
    cluster.start_daemons(&[node])?;
    story.started(cluster, node);
    let last = follow.until_quiet(cluster)?;
    well &= story.followed(&follow);
    well &= story.in_place(&proof::prove(cluster, containers), &last);
    Ok(well)
}

/// A drive is drained, and taken away once it is empty; whether all is well.
fn shrink(cluster: &mut Cluster, containers: &[Container], story: &Story) -> Result<bool, Trouble> {
    cluster.drain(DRAINED)?;
    let before = cluster.rebalance()?;
    story.drained(cluster, DRAINED, &before);
    let mut follow = Follow::start(cluster, containers, &before);
    let last = follow.until_quiet(cluster)?;
    let mut well = story.followed(&follow);
    well &= story.in_place(&proof::prove(cluster, containers), &last);
    well &= story.emptied(DRAINED, &left_on(&cluster.drive(DRAINED)));

    cluster.remove(DRAINED)?;
    let before = cluster.rebalance()?;
    cluster.stop_daemons(&[DRAINED]);
    let moves = Moves::between(&before, cluster.rows());
    let last = round(cluster)?;
    well &= story.removed(cluster, DRAINED, &moves, &last);
    well &= story.in_place(&proof::prove(cluster, containers), &last);
    Ok(well)
}

/// A pass of every node in the ring.
fn round(cluster: &Cluster) -> Result<Deed, Trouble> {
    let mut deed = Deed::default();
    for node in cluster.members() {
        deed.add(&cluster.pass(node, None)?);
    }
    Ok(deed)
}

/// What there is in a drive's directories of containers and of files on their way.
fn left_on(drive: &Path) -> Vec<PathBuf> {
    let entries = ["containers", "tmp"].into_iter().filter_map(|name| fs::read_dir(drive.join(name)).ok());
    entries.flatten().flatten().map(|entry| entry.path()).collect()
}

/// What a dry run of every node says of each container: the text behind `account/container`, less where it would go.
fn foretold(cluster: &Cluster) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    let mut plans: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in cluster.nodes() {
        for line in cluster.dry_run(node)?.lines() {
            let Some(rest) = line.strip_prefix(ACCOUNT).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let end = rest.find([' ', ':']).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let said = rest.split_once(": ").map_or(rest, |(_, said)| said);
            plans.entry(name.to_owned()).or_default().push(said.to_owned());
        }
    }
    Ok(plans)
}

/// Passes of every node over one container, until one round of them has nothing left to do.
fn agree(cluster: &Cluster, container: &Container) -> Result<Deed, Trouble> {
    let mut sum = Deed::default();
    for _ in 0..ROUNDS {
        let mut round = Deed::default();
        for node in cluster.nodes() {
            // A pass of a node that has nothing of it would find nothing.
            if container.lies_on(cluster, node) {
                round.add(&cluster.pass(node, Some(container.partition))?);
            }
        }
        let quiet = round.is_quiet();
        sum.add(&round);
        if quiet {
            break;
        }
    }
    sum.quarantined = container.quarantined();
    Ok(sum)
}

/// Where the cluster stands.
enum Ground {
    /// Gone when this is.
    Temporary(tempfile::TempDir),
    /// The operator's, and left as it is.
    Kept(PathBuf),
}

impl Ground {
    fn prepare(keep: Option<&Path>) -> Result<Ground, String> {
        let Some(path) = keep else {
            let made = tempfile::Builder::new().prefix("swiftlet-demo-").tempdir();
            return made.map(Ground::Temporary).map_err(|error| {
                format!("cannot make a temporary directory: {error}; set TMPDIR, or use --keep DIR")
            });
        };
        let failed = |error: io::Error| format!("--keep: {}: {error}", path.display());
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        match fs::read_dir(&path).map_err(failed)?.next() {
            None => Ok(Ground::Kept(path)),
            Some(_) => Err(format!("--keep: {} is not empty; name a new directory", path.display())),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Ground::Temporary(dir) => dir.path(),
            Ground::Kept(path) => path,
        }
    }
}

/// The node whose drive is drained.
const DRAINED: cluster::NodeIndex = 0;
/// Two do it; a third is for what a damaged replica held up.
const ROUNDS: usize = 4;
