//! The data follows the ring: passes of every node until each container is where it should be now.
//!
//! What happened is read off the drives after each pass; no agent's word is taken for it. So is what must never happen: a
//! copy that goes before all who should hold it do, one that comes where it should not be, one that comes twice.

use std::collections::BTreeSet;

use super::Trouble;
use super::cluster::{Cluster, NodeIndex, Rows, device_name};
use super::containers::{Container, End};
use super::deed::Deed;
use crate::hash_path::Partition;
use crate::ring::builder::Builder;

/// A copy that has to be elsewhere.
pub struct Journey {
    /// Its container's name.
    pub container: &'static str,
    /// The partition.
    pub partition: Partition,
    /// The node that has to give it.
    pub from: NodeIndex,
    /// The node that has to have it.
    pub to: NodeIndex,
    /// Whose pass brought it.
    pub brought: Option<Pass>,
    /// Whose pass removed the old one.
    pub removed: Option<Pass>,
}

/// A pass of a node.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// The node.
    pub node: NodeIndex,
    /// In which round of passes.
    pub round: usize,
}

/// How the data followed one change of the ring.
pub struct Follow<'a> {
    containers: &'a [Container],
    /// By container: which nodes have it.
    lying: Vec<BTreeSet<NodeIndex>>,
    /// What has to move.
    pub journeys: Vec<Journey>,
    /// What each round of passes did.
    pub rounds: Vec<Deed>,
    /// What must not have happened.
    pub wrong: Vec<String>,
}

impl<'a> Follow<'a> {
    /// Looks where everything is, and where it was before the ring was changed.
    pub fn start(cluster: &Cluster, containers: &'a [Container], before: &Rows) -> Follow<'a> {
        let mut journeys = Vec::new();
        for container in containers.iter().filter(|container| container.case.end == End::Agreed) {
            let held = |row: &Vec<_>| row.get(container.partition.0 as usize).copied();
            let old: Vec<NodeIndex> = before.iter().filter_map(held).map(|id| id.0 as usize).collect();
            let new = cluster.primaries(container.partition);
            let leaving = old.iter().filter(|node| !new.contains(node));
            let coming = new.iter().filter(|node| !old.contains(node));
            journeys.extend(leaving.zip(coming).map(|(&from, &to)| Journey {
                container: container.case.name,
                partition: container.partition,
                from,
                to,
                brought: None,
                removed: None,
            }));
        }
        let lying = lying(cluster, containers);
        Follow { containers, lying, journeys, rounds: Vec::new(), wrong: Vec::new() }
    }

    /// One pass of every node that is up and in the ring, and a look at the drives after each.
    pub fn round(&mut self, cluster: &Cluster) -> Result<Deed, Trouble> {
        let mut deed = Deed::default();
        let round = self.rounds.len() + 1;
        for node in cluster.members().filter(|&node| cluster.is_up(node)) {
            deed.add(&cluster.pass(node, None)?);
            self.look(cluster, Pass { node, round });
        }
        self.rounds.push(deed);
        Ok(deed)
    }

    /// Rounds until one has nothing left to do. What that one did.
    pub fn until_quiet(&mut self, cluster: &Cluster) -> Result<Deed, Trouble> {
        loop {
            let deed = self.round(cluster)?;
            if deed.is_quiet() || self.rounds.len() >= ROUNDS {
                return Ok(deed);
            }
        }
    }

    fn look(&mut self, cluster: &Cluster, pass: Pass) {
        let now = lying(cluster, self.containers);
        for ((container, had), has) in self.containers.iter().zip(&self.lying).zip(&now) {
            let name = container.case.name;
            let mut own = self.journeys.iter_mut().filter(|journey| journey.container == name);
            for &node in has.difference(had) {
                match own.find(|journey| journey.to == node && journey.brought.is_none()) {
                    Some(journey) => journey.brought = Some(pass),
                    None => self.wrong.push(format!("{name} came to {} unasked", device_name(node))),
                }
            }
            let mut own = self.journeys.iter_mut().filter(|journey| journey.container == name);
            for &node in had.difference(has) {
                match own.find(|journey| journey.from == node && journey.removed.is_none()) {
                    Some(journey) => journey.removed = Some(pass),
                    None => self.wrong.push(format!("{name} went from {} unasked", device_name(node))),
                }
                let lacking =
                    cluster.primaries(container.partition).into_iter().find(|node| !has.contains(node));
                if let Some(lacking) = lacking {
                    let (node, lacking) = (device_name(node), device_name(lacking));
                    self.wrong.push(format!("{name} went from {node} before {lacking} had it"));
                }
            }
        }
        self.lying = now;
    }

    /// How many copies still lie where they were.
    pub fn waiting(&self) -> usize {
        self.journeys.iter().filter(|journey| journey.removed.is_none()).count()
    }

    /// Whether all came and went as they should.
    pub fn is_done(&self) -> bool {
        let done = |journey: &Journey| journey.brought.is_some() && journey.removed.is_some();
        self.wrong.is_empty() && self.journeys.iter().all(done)
    }
}

fn lying(cluster: &Cluster, containers: &[Container]) -> Vec<BTreeSet<NodeIndex>> {
    let on =
        |container: &Container| cluster.nodes().filter(|&node| container.lies_on(cluster, node)).collect();
    containers.iter().map(on).collect()
}

/// The fewest replicas that have to move for every drive to hold its share: what some have above theirs, or others lack.
pub fn least_moves(builder: &Builder, before: &Rows) -> u64 {
    let Ok(plan) = builder.plan() else { return 0 };
    let (mut above, mut below) = (0.0, 0.0);
    for device in builder.devices() {
        let held = before.iter().flatten().filter(|id| **id == device.id).count() as f64;
        let share = plan.share(device.id, builder.partitions());
        above += (held - (share - GRAIN).ceil()).max(0.0);
        below += ((share + GRAIN).floor() - held).max(0.0);
    }
    above.max(below) as u64
}

/// Two do it; others are for what comes in between.
const ROUNDS: usize = 6;
/// Less than this of a replica is rounding.
const GRAIN: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::super::containers::CASES;
    use super::*;
    use crate::stop::Stop;
    use crate::timestamp::Timestamp;

    /// A cluster that has grown by a drive, to which the one container has to send a copy.
    fn grown() -> (tempfile::TempDir, Cluster, Vec<Container>, Rows) {
        for salt in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let mut cluster = Cluster::build(dir.path(), "", &salt.to_string(), &Stop::default()).unwrap();
            let container = Container::make(&CASES[0], &cluster, Timestamp::at(SystemTime::now())).unwrap();
            cluster.add_node(1).unwrap();
            let before = cluster.rebalance().unwrap();
            if cluster.primaries(container.partition).contains(&4) {
                return (dir, cluster, vec![container], before);
            }
        }
        unreachable!("some salt puts it there")
    }

    /// Makes a copy by hand, or takes it away.
    fn put(cluster: &Cluster, container: &Container, node: NodeIndex) {
        fs::create_dir_all(container.home(cluster, node).dir()).unwrap();
    }

    fn take(cluster: &Cluster, container: &Container, node: NodeIndex) {
        fs::remove_dir_all(container.home(cluster, node).dir()).unwrap();
    }

    #[test]
    fn a_copy_may_come_and_then_the_other_go() {
        let (_dir, cluster, containers, before) = grown();
        let mut follow = Follow::start(&cluster, &containers, &before);
        let from = follow.journeys[0].from;
        assert_eq!((follow.journeys.len(), follow.journeys[0].to, follow.waiting()), (1, 4, 1));
        put(&cluster, &containers[0], 4);
        follow.look(&cluster, Pass { node: 1, round: 1 });
        assert!(!follow.is_done());
        take(&cluster, &containers[0], from);
        follow.look(&cluster, Pass { node: from, round: 1 });
        assert_eq!((follow.is_done(), follow.waiting()), (true, 0));
        // But not again.
        put(&cluster, &containers[0], from);
        follow.look(&cluster, Pass { node: 4, round: 2 });
        assert!(follow.wrong[0].contains("unasked"), "{:?}", follow.wrong);
        assert!(!follow.is_done());
    }

    #[test]
    fn a_copy_that_goes_before_the_other_has_come_is_told() {
        let (_dir, cluster, containers, before) = grown();
        let mut follow = Follow::start(&cluster, &containers, &before);
        let from = follow.journeys[0].from;
        take(&cluster, &containers[0], from);
        follow.look(&cluster, Pass { node: from, round: 1 });
        assert_eq!(follow.wrong, [format!("equal went from d{from} before d4 had it")]);
    }

    #[test]
    fn what_has_to_move_is_what_some_lack_or_others_have_above_their_share() {
        let (_dir, cluster, _, before) = grown();
        // Of 96 replicas each of five is to have 19.2.
        assert_eq!(least_moves(cluster.builder(), &before), 19);
        assert_eq!(least_moves(cluster.builder(), &cluster.rows().to_vec()), 0);
    }
}
