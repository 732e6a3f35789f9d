//! The failure domains of a cluster as a tree: regions, their zones, servers in these, devices in those.
//!
//! What fails together is below one tier, so replicas of a partition should meet as high up as the cluster allows. A server
//! is known by its ip for clients, as in Swift (`swift/common/ring/utils.py: tiers_for_dev, build_tier_tree`).

use std::collections::BTreeMap;
use std::fmt;

use crate::ring::format::{Device, DeviceId};

/// A failure domain by name: the whole cluster, a region, a zone, a server, or a device. Ordered as Swift orders its
/// tuples, each tier just before what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier {
    /// `None` for the whole cluster.
    pub region: Option<i64>,
    /// `None` for a region and above.
    pub zone: Option<i64>,
    /// `None` for a zone and above.
    pub ip: Option<String>,
    /// `None` for a server and above.
    pub device: Option<DeviceId>,
}

impl Tier {
    /// The four tiers a device is in, the widest first.
    pub fn of(device: &Device) -> [Tier; LEVELS] {
        let region = Tier { region: Some(device.region), ..Tier::default() };
        let zone = Tier { zone: Some(device.zone), ..region.clone() };
        let server = Tier { ip: Some(device.ip.clone()), ..zone.clone() };
        let own = Tier { device: Some(device.id), ..server.clone() };
        [region, zone, server, own]
    }

    /// How far below the cluster: 1 for a region, 4 for a device.
    pub fn depth(&self) -> usize {
        let named = [self.region.is_some(), self.zone.is_some(), self.ip.is_some(), self.device.is_some()];
        named.iter().filter(|named| **named).count()
    }
}

/// As Swift's reports name tiers: `r1`, `r1z2`, `r1z2-10.0.0.1`, and for a device its id behind that
/// (`swift/common/ring/utils.py: get_tier_name`, which knows the device's name).
impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(region) = self.region else { return f.write_str("cluster") };
        write!(f, "r{region}")?;
        if let Some(zone) = self.zone {
            write!(f, "z{zone}")?;
        }
        if let Some(ip) = &self.ip {
            write!(f, "-{ip}")?;
        }
        if let Some(id) = self.device {
            write!(f, "/IDd{id}")?;
        }
        Ok(())
    }
}

/// The place of a tier in a [`Tree`]. The cluster is [`ROOT`].
pub type Node = usize;

/// The tiers of all devices of a builder, those without weight included.
#[derive(Debug, Clone)]
pub struct Tree {
    /// By node; every tier comes before those in it, and neighbours stay in order.
    tiers: Vec<Tier>,
    parents: Vec<Node>,
    children: Vec<Vec<Node>>,
    /// Devices with weight, by node.
    weighty: Vec<usize>,
    /// By device id: its region, zone, server, and itself.
    paths: Vec<Option<[Node; LEVELS]>>,
}

impl Tree {
    /// The tree of some devices.
    pub fn new<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Tree {
        let devices: Vec<&Device> = devices.into_iter().collect();
        let mut nodes: BTreeMap<Tier, Node> = BTreeMap::from([(Tier::default(), ROOT)]);
        nodes.extend(devices.iter().flat_map(|device| Tier::of(device)).map(|tier| (tier, ROOT)));
        nodes.values_mut().enumerate().for_each(|(place, node)| *node = place);

        let mut tree = Tree {
            tiers: nodes.keys().cloned().collect(),
            parents: vec![ROOT; nodes.len()],
            children: vec![Vec::new(); nodes.len()],
            weighty: vec![0; nodes.len()],
            paths: vec![None; devices.iter().map(|device| device.id.0 as usize + 1).max().unwrap_or(0)],
        };
        for device in devices {
            let path = Tier::of(device).map(|tier| nodes[&tier]);
            let mut above = ROOT;
            for node in path {
                tree.parents[node] = above;
                above = node;
            }
            if device.weight > 0.0 {
                [ROOT].iter().chain(&path).for_each(|&node| tree.weighty[node] += 1);
            }
            tree.paths[device.id.0 as usize] = Some(path);
        }
        for node in 1..tree.tiers.len() {
            tree.children[tree.parents[node]].push(node);
        }
        tree
    }

    /// How many nodes there are, the cluster among them: their numbers are below this.
    pub fn node_count(&self) -> usize {
        self.tiers.len()
    }

    /// The node of a name.
    pub fn find(&self, tier: &Tier) -> Option<Node> {
        self.tiers.binary_search(tier).ok()
    }

    /// The name of a node.
    pub fn tier(&self, node: Node) -> &Tier {
        &self.tiers[node]
    }

    /// The tiers in a node that have any device with weight, in order.
    pub fn children(&self, node: Node) -> impl Iterator<Item = Node> + Clone {
        self.children[node].iter().copied().filter(|&child| self.weighty[child] > 0)
    }

    /// How many devices with weight are in a node.
    pub fn weighty(&self, node: Node) -> usize {
        self.weighty[node]
    }

    /// The region, zone, server and own node of a device; `None` for an id without device.
    pub fn path(&self, id: DeviceId) -> Option<&[Node; LEVELS]> {
        self.paths.get(id.0 as usize)?.as_ref()
    }

    /// One past the greatest id.
    pub fn ids(&self) -> usize {
        self.paths.len()
    }

    /// For each node something that is known of its devices, added up.
    pub fn sum<T: Copy + Default + std::ops::AddAssign>(&self, of: impl Fn(DeviceId) -> T) -> Vec<T> {
        let mut sums = vec![T::default(); self.node_count()];
        for (id, path) in self.paths.iter().enumerate() {
            let Some(path) = path else { continue };
            let amount = of(DeviceId(id as u32));
            [ROOT].iter().chain(path).for_each(|&node| sums[node] += amount);
        }
        sums
    }
}

/// The node of the whole cluster.
pub const ROOT: Node = 0;

/// Regions, zones, servers, devices.
pub const LEVELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::tests::device;
    use super::*;

    #[test]
    fn a_tier_comes_before_what_is_in_it_and_knows_its_children() {
        let devices = [device(4, 1, 2, "b", 1.0), device(0, 1, 1, "a", 1.0), device(2, 1, 1, "a", 0.0)];
        let tree = Tree::new(&devices);
        let names: Vec<String> = (0..tree.node_count()).map(|node| tree.tier(node).to_string()).collect();
        let expected = [
            "cluster",
            "r1",
            "r1z1",
            "r1z1-a",
            "r1z1-a/IDd0",
            "r1z1-a/IDd2",
            "r1z2",
            "r1z2-b",
            "r1z2-b/IDd4",
        ];
        assert_eq!(names, expected);
        assert_eq!(tree.children(1).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(tree.children(3).collect::<Vec<_>>(), [4], "what has no weight is to hold nothing");
        assert!((0..tree.node_count()).all(|node| tree.find(tree.tier(node)) == Some(node)));
        assert_eq!(tree.find(&Tier { region: Some(7), ..Tier::default() }), None);
        assert_eq!(tree.path(DeviceId(2)), Some(&[1, 2, 3, 5]));
        assert_eq!((tree.path(DeviceId(1)), tree.path(DeviceId(9))), (None, None));
        assert_eq!((tree.weighty(ROOT), tree.ids()), (2, 5));
        assert_eq!(tree.sum(|id| id.0)[2], 2);
    }
}
