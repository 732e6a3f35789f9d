//! The plan in whole numbers: how many replicas, of all partitions together, each node is to hold.
//!
//! Targets are fractions; replicas are not. Each node gets the floor or the ceiling of its target, such that the children of
//! a node together have just what the node has. Which are rounded up is ours to choose, and decides about two things: first
//! those that hold so many already, for every other choice would move something without need; then those whose balance
//! gains most by it.
//!
//! Whole numbers also bound every single partition: a node with `n` replicas of `P` partitions can have each of them
//! `n / P` times, rounded down or up, and a placement that keeps to this everywhere is spread as well as the plan allows.

use super::plan::Plan;
use super::tiers::{LEVELS, Node, ROOT};
use crate::ring::format::DeviceId;

/// Replicas by node.
#[derive(Debug)]
pub struct Quota {
    shares: Vec<u32>,
    partitions: u32,
}

impl Quota {
    /// Shares out `replicas` of `partitions`. `held` says how many each device has now, by id.
    pub fn new(plan: &Plan, partitions: u32, replicas: u32, held: &[u32]) -> Quota {
        let tree = plan.tree();
        let exact = |node: Node| plan.target(node) * f64::from(partitions);
        let kept = tree.sum(|id| {
            let own = tree.path(id).map_or(ROOT, |path| path[LEVELS - 1]);
            held[id.0 as usize].min(exact(own).ceil() as u32)
        });
        let mut shares = vec![0; tree.len()];
        shares[ROOT] = replicas;
        for node in 0..tree.len() {
            let mut children: Vec<Node> = tree.children(node).collect();
            if children.is_empty() {
                continue;
            }
            for &child in &children {
                shares[child] = (exact(child) + ROUNDING).floor() as u32;
            }
            let given: u32 = children.iter().map(|&child| shares[child]).sum();
            let gain = |child: Node| (exact(child) - f64::from(shares[child])) / exact(child).max(1.0);
            let keeps = |child: Node| kept[child] > shares[child];
            // What is rounded up soonest comes first, and is rounded down last.
            let rank = |child: Node| (keeps(child), gain(child) - 0.5 / exact(child).max(1.0));
            children.sort_by(|&a, &b| {
                let ((keeps_a, gain_a), (keeps_b, gain_b)) = (rank(a), rank(b));
                keeps_b.cmp(&keeps_a).then(gain_b.total_cmp(&gain_a)).then(a.cmp(&b))
            });
            let room = |child: Node| (tree.weighty(child) as u64 * u64::from(partitions)) as u32;
            let mut left = shares[node].saturating_sub(given);
            while left > 0 {
                let before = left;
                for &child in &children {
                    if left > 0 && shares[child] < room(child) {
                        shares[child] += 1;
                        left -= 1;
                    }
                }
                if left == before {
                    break;
                }
            }
            let mut over = given.saturating_sub(shares[node]);
            for &child in children.iter().rev().cycle().take(children.len() * 2) {
                if over > 0 && shares[child] > 0 {
                    shares[child] -= 1;
                    over -= 1;
                }
            }
        }
        Quota { shares, partitions }
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

    /// How many replicas a device is to hold.
    pub fn of_device(&self, plan: &Plan, id: DeviceId) -> u32 {
        plan.tree().path(id).map_or(0, |path| self.shares[path[LEVELS - 1]])
    }
}

/// Less than this of a replica is an error of the sums before.
const ROUNDING: f64 = 1e-6;
