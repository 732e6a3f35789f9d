//! Commands about devices: add, search, list_parts, set_weight, set_region, set_zone, set_info, remove.
//!
//! As with Swift a command that means more than one device asks, and the builder is written only once all went well. Unlike
//! Swift `set_region` and `set_zone` with several pairs change for each pair just what it names (Swift gives those of the
//! first pairs the last value too), and a device that is named twice counts once.

use super::grammar::Change;
use super::report;
use super::talk::Talk;
use super::{Next, Refusal};
use crate::cli::Exit;
use crate::ring::builder::{Builder, BuilderFault, NewDevice};
use crate::ring::device_string::{Search, format_device};
use crate::ring::format::{Device, DeviceId};

/// Adds devices: all, or none if one of them is there already.
///
/// # Errors
/// A weight that is none; partitions are about to be split.
pub fn add(
    builder: &mut Builder,
    devices: Vec<NewDevice>,
    without_region: &[String],
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    refuse_while_splitting(builder)?;
    for text in without_region {
        talk.warn(format!("WARNING: No region specified for {text}. Defaulting to region 1."));
    }
    for device in devices {
        match builder.add(device) {
            Ok(id) => {
                let device = builder.device(id).expect("it was just added");
                let weight = report::python_float(device.weight);
                talk.say(format!("Device {} with {weight} weight got id {id}", format_device(device)));
            }
            Err(fault @ BuilderFault::Taken(_)) => {
                talk.say(fault.to_string());
                talk.say("The on-disk ring builder is unchanged.\n");
                return Ok(Next::Leave(Exit::Usage));
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(Next::Save(Exit::Clean))
}

/// Shows the devices that match.
pub fn search(builder: &Builder, search: &Search, talk: &mut Talk) -> Next {
    let found: Vec<&Device> = builder.devices().filter(|device| search.matches(device)).collect();
    if found.is_empty() {
        talk.say("No matching devices found");
        return Next::Leave(Exit::Usage);
    }
    talk.say(report::search_table(builder, &found));
    Next::Leave(Exit::Clean)
}

/// Lists the partitions on the devices that match, those with most of their replicas there first.
pub fn list_parts(builder: &Builder, searches: &[Search], talk: &mut Talk) -> Next {
    let mut is_meant = vec![false; builder.devices().last().map_or(0, |device| device.id.0 as usize + 1)];
    meant(builder, searches).into_iter().for_each(|id| is_meant[id.0 as usize] = true);

    let mut counts = vec![0u32; builder.partitions() as usize];
    // In the order of discovery, replica by replica, as Swift breaks ties.
    let mut partitions = Vec::new();
    for row in builder.rows().unwrap_or_default() {
        for (partition, id) in row.iter().enumerate() {
            if is_meant.get(id.0 as usize) == Some(&true) {
                if counts[partition] == 0 {
                    partitions.push(partition);
                }
                counts[partition] += 1;
            }
        }
    }
    if partitions.is_empty() {
        talk.say("No matching devices found");
        return Next::Leave(Exit::Usage);
    }
    partitions.sort_by_key(|&partition| std::cmp::Reverse(counts[partition]));
    talk.say("Partition   Matches");
    for partition in partitions {
        talk.say(format!("{partition:9}   {:7}", counts[partition]));
    }
    Next::Leave(Exit::Clean)
}

/// Changes devices, one pair of search and change after the other.
///
/// # Errors
/// A device that is marked for removal, or a weight that is none.
pub fn change(
    builder: &mut Builder,
    changes: &[(Search, Change)],
    yes: bool,
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    for (search, change) in changes {
        let ids = meant(builder, std::slice::from_ref(search));
        let question = format!("Are you sure you want to update the {} for these", change.what());
        if !is_sure(builder, &ids, &question, "Aborting device modifications", yes, talk) {
            return Ok(Next::Leave(Exit::Usage));
        }
        for id in ids {
            let before = format_device(builder.device(id).expect("a device that was found"));
            match change {
                Change::Weight(weight) => builder.set_weight(id, *weight)?,
                Change::Region(region) => builder.set_region(id, *region)?,
                Change::Zone(zone) => builder.set_zone(id, *zone)?,
                Change::Info(change) => match builder.set_info(id, change) {
                    Err(fault @ BuilderFault::Taken(_)) => {
                        talk.say(fault.to_string());
                        return Ok(Next::Leave(Exit::Usage));
                    }
                    changed => changed?,
                },
            }
            let now = format_device(builder.device(id).expect("a device that was found"));
            talk.say(match change {
                Change::Weight(weight) => format!("{now} weight set to {}", report::python_float(*weight)),
                Change::Region(region) => format!("{now} region set to {region}"),
                Change::Zone(zone) => format!("{now} zone set to {zone}"),
                Change::Info(_) => format!("Device {before} is now {now}"),
            });
        }
    }
    Ok(Next::Save(Exit::Clean))
}

/// Marks devices for removal.
///
/// # Errors
/// Partitions are about to be split.
pub fn remove(
    builder: &mut Builder,
    searches: &[Search],
    yes: bool,
    talk: &mut Talk,
) -> Result<Next, Refusal> {
    refuse_while_splitting(builder)?;
    let ids = meant(builder, searches);
    if !is_sure(builder, &ids, "Are you sure you want to remove these", "Aborting device removals", yes, talk)
    {
        return Ok(Next::Leave(Exit::Usage));
    }
    for id in ids {
        builder.remove(id)?;
        let device = format_device(builder.device(id).expect("a device that was found"));
        talk.say(format!("{device} marked for removal and will be removed next rebalance."));
    }
    Ok(Next::Save(Exit::Clean))
}

/// Devices may not come or go while partitions are being split: Swift's relinker counts on it.
///
/// # Errors
/// [`Refusal::Splitting`].
pub fn refuse_while_splitting(builder: &Builder) -> Result<(), Refusal> {
    match builder.next_part_power() {
        Some(_) => Err(Refusal::Splitting),
        None => Ok(()),
    }
}

/// The devices that match any of the searches, once each: those of the first search first.
fn meant(builder: &Builder, searches: &[Search]) -> Vec<DeviceId> {
    let mut ids: Vec<DeviceId> = Vec::new();
    for search in searches {
        for device in builder.devices().filter(|device| search.matches(device)) {
            if !ids.contains(&device.id) {
                ids.push(device.id);
            }
        }
    }
    ids
}

/// Whether just one device is meant, or the operator stands by it.
fn is_sure(
    builder: &Builder,
    ids: &[DeviceId],
    question: &str,
    if_not: &str,
    yes: bool,
    talk: &mut Talk,
) -> bool {
    if ids.is_empty() {
        talk.say("Search value matched 0 devices.\nThe on-disk ring builder is unchanged.");
        return false;
    }
    if ids.len() == 1 {
        return true;
    }
    talk.say("Matched more than one device:");
    for id in ids {
        talk.say(format!("    {}", format_device(builder.device(*id).expect("a device that was found"))));
    }
    if yes || talk.agrees(&format!("{question} {} devices?", ids.len())) {
        return true;
    }
    talk.say(if_not);
    false
}
