//! How well a ring is balanced, and how far apart its replicas are.
//!
//! *Balance* is how far the worst device is from its share by weight, in percent; *dispersion* is the percentage of replicas
//! that share a failure domain with more of their partition than they would have to. Both are Swift's figures
//! (`swift/common/ring/builder.py: _build_balance_per_dev, _build_dispersion_graph`): they decide what an operator does next,
//! and are kept in the builder's file.

use std::collections::BTreeMap;

use super::format::{Device, DeviceId};
use super::placement::plan::Plan;
use super::placement::tiers::{LEVELS, ROOT, Tier};

/// Where the replicas of a ring are, tier by tier.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    /// Percentage of replicas above the most their worst tier should hold.
    pub dispersion: f64,
    /// For each tier that holds any: how many partitions have 0, 1, 2, … replicas in it.
    pub graph: BTreeMap<Tier, Vec<u64>>,
}

impl Spread {
    /// Counts them. Ids that name no device of the plan are passed over.
    pub fn measure(plan: &Plan, rows: &[Vec<DeviceId>]) -> Spread {
        let tree = plan.tree();
        let most = plan.most_when_spread();
        let partitions = rows.first().map_or(0, Vec::len);
        let counts = plan.replicas().ceil() as usize + 1;
        let mut graph = vec![vec![0u64; counts.max(rows.len() + 1)]; tree.node_count()];
        let mut at_risk = 0u64;
        let mut held: Vec<(usize, u32, usize)> = Vec::new();
        for partition in 0..partitions {
            held.clear();
            for path in rows.iter().filter_map(|row| tree.path(*row.get(partition)?)) {
                for (level, &node) in path.iter().enumerate() {
                    match held.iter_mut().find(|(known, ..)| *known == node) {
                        Some((_, count, _)) => *count += 1,
                        None => held.push((node, 1, level)),
                    }
                }
            }
            let mut risks = [0u64; LEVELS];
            for &(node, count, level) in &held {
                graph[node][count as usize] += 1;
                risks[level] += u64::from(count.saturating_sub(most[node]));
            }
            at_risk += risks.into_iter().max().unwrap_or(0);
        }
        let graph = (ROOT + 1..tree.node_count()).filter_map(|node| {
            let mut counts = std::mem::take(&mut graph[node]);
            let some: u64 = counts.iter().sum();
            counts[0] = partitions as u64 - some;
            (some > 0).then(|| (tree.tier(node).clone(), counts))
        });
        Spread {
            graph: graph.collect(),
            dispersion: 100.0 * at_risk as f64 / (partitions.max(1) as f64 * plan.replicas()),
        }
    }
}

/// How far a device is from its share by weight, in percent: 0 is just that, -100 holds nothing, [`WORST_BALANCE`] holds
/// something and should not.
pub fn balance(device: &Device, parts: u64, parts_per_weight: f64) -> f64 {
    match (device.weight > 0.0, parts) {
        (true, parts) => 100.0 * parts as f64 / (device.weight * parts_per_weight) - 100.0,
        (false, 0) => 0.0,
        (false, _) => WORST_BALANCE,
    }
}

/// Stands for infinitely bad.
pub const WORST_BALANCE: f64 = 999.99;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::placement::tests::device;

    #[test]
    fn balance_is_percent_of_the_share() {
        for (weight, parts, expected) in
            [(2.0, 8, 0.0), (2.0, 10, 25.0), (2.0, 0, -100.0), (0.0, 0, 0.0), (0.0, 1, WORST_BALANCE)]
        {
            assert_eq!(balance(&device(0, 1, 1, "a", weight), parts, 4.0), expected, "{weight} {parts}");
        }
    }

    #[test]
    fn each_replica_above_the_most_of_its_worst_tier_counts_once() {
        // Two zones of two devices on one server each, for two replicas: one of them in each zone.
        let devices = [(0, 1), (1, 1), (2, 2), (3, 2)]
            .map(|(id, zone)| device(id, 1, zone, &format!("10.0.0.{zone}"), 1.0));
        let plan = Plan::new(&devices, 2.0, 0.0);
        let row = |ids: [u32; 4]| ids.map(DeviceId).to_vec();
        let spread = Spread::measure(&plan, &[row([0, 0, 2, 3]), row([2, 1, 3, 1])]);
        // Two of four partitions are within one zone, and so on one server: that is one replica too many each.
        assert_eq!(spread.dispersion, 25.0);
        let zone = Tier { region: Some(1), zone: Some(1), ..Tier::default() };
        assert_eq!(spread.graph[&zone], [1, 2, 1]);
        let first = Tier { ip: Some("10.0.0.1".into()), device: Some(DeviceId(0)), ..zone };
        assert_eq!(spread.graph[&first], [2, 2, 0]);
    }
}
