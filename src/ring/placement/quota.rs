//! The plan in whole numbers: how many replicas, of all partitions together, each device is to hold.
//!
//! Targets are fractions; replicas are not. Each device gets the floor or the ceiling of its target. Which are rounded up is
//! ours to choose, and decides about two things: first come those that hold so many already, for every other choice would
//! move something without need; among equals, the choice that leaves the worst device nearest to its target.
//!
//! Whole numbers also bound every single partition: a tier with `n` replicas of `P` partitions can have each of them
//! `n / P` times, rounded down or up, and a placement that keeps to this everywhere is spread as well as the plan allows.
//! So no choice may take a tier across a whole number of replicas that its target does not cross.

use super::plan::Plan;
use super::tiers::{LEVELS, Node, ROOT, Tree};
use crate::ring::format::DeviceId;

/// Replicas by node.
#[derive(Debug)]
pub struct Quota {
    shares: Vec<u32>,
    /// What a device has without being rounded up; of no meaning for other nodes.
    floors: Vec<u32>,
    /// What a device has when it is rounded up: its floor if its target is whole. 0 for other nodes.
    ceilings: Vec<u32>,
    partitions: u32,
}

impl Quota {
    /// Shares out `replicas` of `partitions`. `held` says how many each device has now, by id.
    pub fn new(plan: &Plan, partitions: u32, replicas: u32, held: &[u32]) -> Quota {
        let devices: Vec<Wish> = (0..plan.tree().ids() as u32)
            .filter_map(|id| Wish::new(plan, DeviceId(id), partitions, held[id as usize]))
            .collect();
        let mut rounding = Rounding::new(plan, partitions, &devices);
        let floors = rounding.shares.clone();
        let mut ceilings = vec![0; floors.len()];
        devices
            .iter()
            .for_each(|wish| ceilings[wish.path[LEVELS - 1]] = wish.floor + u32::from(!wish.is_whole()));
        let ups = replicas.saturating_sub(floors[ROOT]);
        let ranked = ranked(devices, ups as usize);
        rounding.up(&ranked, replicas);
        Quota { shares: rounding.shares, floors, ceilings, partitions }
    }

    /// How many replicas a node is to hold.
    pub fn of(&self, node: Node) -> u32 {
        self.shares[node]
    }

    /// The fewest replicas of any one partition in a node.
    pub fn least(&self, node: Node) -> u32 {
        self.shares[node] / self.partitions
    }

    /// The most replicas of any one partition in a node.
    pub fn most(&self, node: Node) -> u32 {
        self.shares[node].div_ceil(self.partitions)
    }

    /// Whether a device could be rounded up in place of another, with every tier as often in a partition as before.
    pub fn can_lend(&self, lender: &[Node; LEVELS], borrower: &[Node; LEVELS]) -> bool {
        let (from, to) = (lender[LEVELS - 1], borrower[LEVELS - 1]);
        let less = |node: &Node| borrower.contains(node) || self.shares[*node] % self.partitions != 0;
        let more = |node: &Node| lender.contains(node) || self.shares[*node] % self.partitions != 0;
        self.shares[from] > self.floors[from]
            && self.shares[to] < self.ceilings[to]
            && lender[..LEVELS - 1].iter().all(less)
            && borrower[..LEVELS - 1].iter().all(more)
            && self.shares[to] < self.partitions
    }

    /// Rounds the one down and the other up.
    pub fn lend(&mut self, lender: &[Node; LEVELS], borrower: &[Node; LEVELS]) {
        lender.iter().for_each(|&node| self.shares[node] -= 1);
        borrower.iter().for_each(|&node| self.shares[node] += 1);
    }

    /// How many replicas a device is to hold.
    pub fn of_device(&self, tree: &Tree, id: DeviceId) -> u32 {
        tree.path(id).map_or(0, |path| self.shares[path[LEVELS - 1]])
    }
}

/// A device with weight.
struct Wish {
    path: [Node; LEVELS],
    floor: u32,
    /// Whether it holds more than the floor, so that rounding up saves a move.
    keeps: bool,
    /// How far it is from its target, relative to that, if it is rounded down, and up.
    errors: [f64; 2],
}

impl Wish {
    fn new(plan: &Plan, id: DeviceId, partitions: u32, held: u32) -> Option<Wish> {
        let path = *plan.tree().path(id)?;
        let exact = plan.share(id, partitions);
        if exact <= 0.0 {
            return None;
        }
        let floor = (exact + ROUNDING).floor();
        let above = exact - floor;
        // What is whole has nothing to be rounded up, whatever it holds.
        let is_whole = above <= ROUNDING;
        let errors = if is_whole { [0.0, f64::INFINITY] } else { [above / exact, (1.0 - above) / exact] };
        Some(Wish { path, floor: floor as u32, keeps: held > floor as u32 && !is_whole, errors })
    }

    /// Whether rounding it up would be no rounding.
    fn is_whole(&self) -> bool {
        self.errors[1] == f64::INFINITY
    }
}

/// Those to be rounded up first come first, given how many will be.
fn ranked(mut devices: Vec<Wish>, ups: usize) -> Vec<Wish> {
    let keepers = devices.iter().filter(|wish| wish.keeps).count();
    let (among, ups) = if keepers >= ups { (true, ups) } else { (false, ups - keepers) };
    let contested = || devices.iter().filter(|wish| wish.keeps == among);
    let bound = least_worst(contested().map(|wish| wish.errors).collect(), ups);
    let rank = |wish: &Wish| {
        let [down, up] = wish.errors;
        (wish.keeps, down > bound, up <= bound, down - up)
    };
    devices
        .sort_by(|a, b| rank(b).partial_cmp(&rank(a)).expect("errors are numbers").then(a.path.cmp(&b.path)));
    devices
}

/// The least error that the worst device can have if so many are rounded up.
fn least_worst(errors: Vec<[f64; 2]>, ups: usize) -> f64 {
    let mut bounds: Vec<f64> = errors.iter().flatten().copied().collect();
    bounds.sort_by(f64::total_cmp);
    let suffices = |bound: f64| {
        let must = errors.iter().filter(|[down, _]| *down > bound).count();
        let may = errors.iter().filter(|[_, up]| *up <= bound).count();
        let torn = errors.iter().any(|[down, up]| *down > bound && *up > bound);
        must <= ups && ups <= may && !torn
    };
    let place = bounds.partition_point(|&bound| !suffices(bound));
    bounds.get(place).copied().unwrap_or(f64::MAX)
}

/// Devices being rounded up, within the bounds of the tiers they are in.
struct Rounding<'a> {
    tree: &'a Tree,
    /// By node: what its devices have so far.
    shares: Vec<u32>,
    least: Vec<u32>,
    most: Vec<u32>,
}

impl<'a> Rounding<'a> {
    fn new(plan: &'a Plan, partitions: u32, devices: &[Wish]) -> Rounding<'a> {
        let tree = plan.tree();
        let mut shares = vec![0; tree.node_count()];
        for wish in devices {
            [ROOT].iter().chain(&wish.path).for_each(|&node| shares[node] += wish.floor);
        }
        let nodes = 0..tree.node_count();
        Rounding {
            tree,
            shares,
            least: nodes.clone().map(|node| plan.least(node) * partitions).collect(),
            most: nodes.map(|node| plan.most(node).saturating_mul(partitions)).collect(),
        }
    }

    /// Rounds up until all replicas are shared out: first where a tier would have too few, the narrowest first; then
    /// wherever no tier gets too many.
    fn up(&mut self, ranked: &[Wish], replicas: u32) {
        let mut is_up = vec![false; ranked.len()];
        let short: Vec<Node> =
            (1..self.tree.node_count()).rev().filter(|&node| self.shares[node] < self.least[node]).collect();
        for node in short {
            let level = self.tree.tier(node).depth() - 1;
            for (wish, is_up) in ranked.iter().zip(&mut is_up) {
                let below = &wish.path[level + 1..];
                let wanted = wish.path[level] == node && self.shares[node] < self.least[node];
                if wanted && !*is_up && self.have_room(below) {
                    *is_up = true;
                    self.add(wish);
                }
            }
        }
        for (wish, is_up) in ranked.iter().zip(&mut is_up) {
            if !*is_up && self.shares[ROOT] < replicas && self.have_room(&wish.path) {
                *is_up = true;
                self.add(wish);
            }
        }
        // What errors of rounding in the plan itself have left over.
        while self.shares[ROOT] < replicas {
            let device = |wish: &&Wish| self.have_room(&wish.path[LEVELS - 1..]);
            let Some(wish) = ranked.iter().find(device) else { break };
            self.add(wish);
        }
        while self.shares[ROOT] > replicas {
            let device = |wish: &&Wish| self.shares[wish.path[LEVELS - 1]] > 0;
            let Some(wish) = ranked.iter().rfind(device) else { break };
            [ROOT].iter().chain(&wish.path).for_each(|&node| self.shares[node] -= 1);
        }
    }

    fn have_room(&self, nodes: &[Node]) -> bool {
        nodes.iter().all(|&node| self.shares[node] < self.most[node])
    }

    fn add(&mut self, wish: &Wish) {
        [ROOT].iter().chain(&wish.path).for_each(|&node| self.shares[node] += 1);
    }
}

/// Less than this of a replica is an error of the sums before.
const ROUNDING: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::super::tests::device;
    use super::*;

    #[test]
    fn the_worst_is_as_near_as_it_can_be() {
        // Rounding the second up would leave the first at 0.3, rounding the first up would put it at 0.7.
        assert_eq!(least_worst(vec![[0.3, 0.7], [0.2, 0.05]], 1), 0.3);
        assert_eq!(least_worst(vec![[0.5, 0.4], [0.3, 0.1]], 1), 0.4);
        assert_eq!(least_worst(vec![[0.5, 0.4], [0.3, 0.1]], 0), 0.5);
        assert_eq!(least_worst(vec![[0.5, 0.4], [0.3, 0.1]], 2), 0.4);
    }

    #[test]
    fn whoever_has_so_many_keeps_them() {
        // Eight partitions, one replica, three equal devices: two have three, one has two.
        let devices: Vec<_> = (0..3).map(|id| device(id, 1, i64::from(id), "a", 1.0)).collect();
        let plan = Plan::new(&devices, 1.0, 0.0);
        for held in [[3, 3, 2], [3, 2, 3], [2, 3, 3], [8, 0, 3]] {
            let quota = Quota::new(&plan, 8, 8, &held);
            let shares: Vec<u32> = (0..3).map(|id| quota.of_device(plan.tree(), DeviceId(id))).collect();
            assert_eq!(shares.iter().sum::<u32>(), 8);
            let moves: u32 = held.iter().zip(&shares).map(|(held, share)| held.saturating_sub(*share)).sum();
            assert_eq!(moves, if held == [8, 0, 3] { 5 } else { 0 }, "{held:?} {shares:?}");
        }
    }

    #[test]
    fn a_tier_that_is_to_have_each_partition_once_gets_no_more_and_no_fewer() {
        // Three zones for three replicas, of 3, 2 and 2 equal devices: 7 partitions fit no device evenly.
        let zones = [1, 1, 1, 2, 2, 3, 3];
        let devices: Vec<_> = (0..).zip(zones).map(|(id, zone)| device(id, 1, zone, "a", 1.0)).collect();
        let plan = Plan::new(&devices, 3.0, 10.0);
        let quota = Quota::new(&plan, 7, 21, &[0; 7]);
        for zone in plan.tree().children(1) {
            assert_eq!((quota.of(zone), quota.least(zone), quota.most(zone)), (7, 1, 1));
        }
    }

    #[test]
    fn what_has_no_weight_gets_nothing() {
        let devices = [device(0, 1, 1, "a", 1.0), device(1, 1, 1, "b", 0.0), device(2, 1, 1, "c", 3.0)];
        let plan = Plan::new(&devices, 1.0, 0.0);
        let quota = Quota::new(&plan, 16, 16, &[0, 16, 0]);
        let share = |id| quota.of_device(plan.tree(), DeviceId(id));
        assert_eq!([share(0), share(1), share(2)], [4, 0, 12]);
    }
}
