//! How many replicas of a partition each tier should hold.
//!
//! Two wishes pull at every device: its weight, and that replicas be spread over as many tiers as there are. The plan holds
//! both in *replicas of a partition*, fractions allowed: *weighted* is what weight alone says, *wanted* what spreading would
//! have, and the *target* lies between them, as far towards wanted as the overload lets any device go beyond its weight.
//! The rules are Swift's to the last fraction (`swift/common/ring/builder.py: _build_weighted_replicas_by_tier,
//! _build_wanted_replicas_by_tier, _build_target_replicas_by_tier, _build_max_replicas_by_tier`): an operator's rings must
//! not change their nature with the program that balances them.

use super::tiers::{LEVELS, Node, ROOT, Tree};
use crate::ring::format::{Device, DeviceId};

/// The tree of a cluster with what each of its nodes should hold.
#[derive(Debug, Clone)]
pub struct Plan {
    tree: Tree,
    replicas: f64,
    weighted: Vec<f64>,
    wanted: Vec<f64>,
    required_overload: f64,
    target: Vec<f64>,
}

impl Plan {
    /// The plan for some devices, of which at least as many as `replicas` have weight.
    pub fn new<'a>(devices: impl IntoIterator<Item = &'a Device>, replicas: f64, overload: f64) -> Plan {
        let devices: Vec<&Device> = devices.into_iter().collect();
        let tree = Tree::new(devices.iter().copied());
        let weighted = weighted(&tree, &devices, replicas);
        let wanted = wanted(&tree, &weighted, replicas);
        let required_overload = required_overload(&tree, &weighted, &wanted);
        let target = if required_overload > 0.0 {
            let share = overload.min(required_overload) / required_overload;
            weighted
                .iter()
                .zip(&wanted)
                .map(|(weighted, wanted)| weighted + (wanted - weighted) * share)
                .collect()
        } else {
            wanted.clone()
        };
        Plan { tree, replicas, weighted, wanted, required_overload, target }
    }

    /// The cluster.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Replicas of a partition on average.
    pub fn replicas(&self) -> f64 {
        self.replicas
    }

    /// What weight alone gives a node. A device has at most 1; what it cannot take is shared among the others.
    pub fn weighted(&self, node: Node) -> f64 {
        self.weighted[node]
    }

    /// What spreading as far as possible gives a node.
    pub fn wanted(&self, node: Node) -> f64 {
        self.wanted[node]
    }

    /// What a node should hold.
    pub fn target(&self, node: Node) -> f64 {
        self.target[node]
    }

    /// What a device should hold of so many partitions together: not whole, and 0 for one that is not in the plan.
    pub fn share(&self, id: DeviceId, partitions: u32) -> f64 {
        self.tree.path(id).map_or(0.0, |path| self.target[path[LEVELS - 1]] * f64::from(partitions))
    }

    /// The fewest replicas of any partition in a node.
    pub fn least(&self, node: Node) -> u32 {
        (self.target[node] + GRAIN).floor() as u32
    }

    /// The most replicas of any partition in a node: 0 where nothing has weight.
    pub fn most(&self, node: Node) -> u32 {
        (self.target[node] - GRAIN).ceil().max(0.0) as u32
    }

    /// By how much the device most burdened by spreading would have to exceed its weight: 0.1 is a tenth. With an overload
    /// of this or more the replicas are spread as far as the cluster allows.
    pub fn required_overload(&self) -> f64 {
        self.required_overload
    }

    /// The most replicas of a partition that each node would hold if weight did not count: more are a risk that better
    /// spreading could avoid. By node; 0 where nothing has weight.
    pub fn most_when_spread(&self) -> Vec<u32> {
        let spread = spread(&self.tree, self.replicas, f64::ceil);
        spread.into_iter().map(|most| most.ceil() as u32).collect()
    }
}

/// Each device by its weight, then summed up the tree.
fn weighted(tree: &Tree, devices: &[&Device], replicas: f64) -> Vec<f64> {
    let total: f64 = devices.iter().map(|device| device.weight).sum();
    let mut shares = vec![0.0; tree.ids()];
    for device in devices.iter().filter(|device| device.weight > 0.0) {
        shares[device.id.0 as usize] = (device.weight * replicas / total).min(1.0);
    }
    // Each round fills at least one device, or leaves nothing over.
    for _ in 0..=devices.len() {
        let over = replicas - shares.iter().sum::<f64>();
        let room: f64 = shares.iter().filter(|share| **share < 1.0).sum();
        if over < GRAIN || room <= 0.0 {
            break;
        }
        for share in shares.iter_mut().filter(|share| **share < 1.0) {
            *share = (*share * (1.0 + over / room)).min(1.0);
        }
    }
    tree.sum(|id| shares[id.0 as usize])
}

/// What nodes would hold by their place in the tree alone: each child an equal part of what its parent has, bent by
/// `bound`; a device never more than 1 (`_build_max_replicas_by_tier`).
fn spread(tree: &Tree, replicas: f64, bound: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut spread = vec![0.0; tree.node_count()];
    spread[ROOT] = replicas;
    for node in 0..tree.node_count() {
        let children = tree.children(node).count() as f64;
        let each = bound(spread[node] / children);
        for child in tree.children(node) {
            let is_device = tree.tier(child).depth() == LEVELS;
            spread[child] = if is_device { each.min(1.0) } else { each };
        }
    }
    spread
}

/// Top down: what a node has is split over its children by weight, each held between floor and ceiling of an equal split,
/// and never above the number of its devices.
fn wanted(tree: &Tree, weighted: &[f64], replicas: f64) -> Vec<f64> {
    let even = spread(tree, replicas, std::convert::identity);
    let mut wanted = vec![0.0; tree.node_count()];
    wanted[ROOT] = replicas;
    // Parents come before their children.
    for node in 0..tree.node_count() {
        let children: Vec<Node> = tree.children(node).collect();
        if !children.is_empty() {
            let split = split(tree, weighted, &even, &children, wanted[node]);
            children.iter().zip(split).for_each(|(&child, share)| wanted[child] = share);
        }
    }
    wanted
}

/// Splits what a node has over its children. What the bounds of one leave over, or ask for, goes on to those with room.
fn split(tree: &Tree, weighted: &[f64], even: &[f64], children: &[Node], replicas: f64) -> Vec<f64> {
    let devices = |at: usize| tree.weighty(children[at]) as f64;
    let least = |at: usize| even[children[at]].floor();
    let most = |at: usize| even[children[at]].ceil();
    let mut shares = vec![0.0; children.len()];
    let mut sharing: Vec<usize> = (0..children.len()).collect();
    let mut remaining = replicas;
    let mut beyond_most = false;
    // Each round settles at least one child, in one of two directions; the limit only guards against rounding.
    for _ in 0..4 * children.len() + 4 {
        let weight: f64 = sharing.iter().map(|&at| weighted[children[at]]).sum();
        if sharing.is_empty() || weight <= 0.0 {
            break;
        }
        for &at in &sharing {
            let mut share: f64 = shares[at] + weighted[children[at]] * remaining / weight;
            if share < least(at) {
                share = least(at);
            } else if share > most(at) && !beyond_most {
                share = most(at);
            }
            shares[at] = share.min(devices(at));
        }
        remaining = replicas - shares.iter().sum::<f64>();
        let all = 0..children.len();
        if remaining < -GRAIN {
            sharing = all.filter(|&at| shares[at] > least(at)).collect();
        } else if remaining > GRAIN {
            sharing = all.clone().filter(|&at| shares[at] < devices(at).min(most(at))).collect();
            if sharing.is_empty() {
                beyond_most = true;
                sharing = all.filter(|&at| shares[at] < devices(at)).collect();
            }
        } else {
            break;
        }
    }
    shares
}

/// The greatest relative excess of wanted over weighted of any device (`get_required_overload`).
fn required_overload(tree: &Tree, weighted: &[f64], wanted: &[f64]) -> f64 {
    let own = (0..tree.ids()).filter_map(|id| tree.path(DeviceId(id as u32))).map(|path| path[LEVELS - 1]);
    own.filter(|&node| weighted[node] > 0.0)
        .map(|node| (wanted[node] - weighted[node]) / weighted[node])
        .fold(0.0, f64::max)
}

/// Less than this of a replica is rounding.
pub(super) const GRAIN: f64 = 1e-10;
