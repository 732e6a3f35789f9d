//! What a device's round comes to: the note before it, and what it found, make the note after it.

use std::collections::BTreeMap;

use super::kept::{Bad, BadWith, DeviceNote, Hindrance, PeerNote, WORST};
use crate::obstacle::{Cause, Obstacle};

/// What a whole round of a device found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// When its pass began.
    pub began: f64,
    /// Databases in the ledger.
    pub databases: Option<u64>,
    /// Databases that belong elsewhere.
    pub strays: Option<u64>,
    /// What is wrong with the device itself, or with databases on it.
    pub trouble: Option<Cause>,
    /// What was in the way of each peer.
    pub hindered: BTreeMap<u32, Hindered>,
}

/// What was in the way of a peer in a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Hindered {
    /// What it was last.
    pub cause: Cause,
    /// It was in the way of everything.
    pub cut_off: bool,
    /// Databases that it lacks something of.
    pub databases: u64,
}

/// The note of a device after a round that ended at `now`.
pub fn after(old: Option<&DeviceNote>, found: Found, now: f64) -> DeviceNote {
    let Found { name, began, databases, strays, trouble, hindered } = found;
    let in_sync = trouble.is_none() && hindered.is_empty();
    let note = |(peer, Hindered { cause, cut_off, databases }): (u32, Hindered)| {
        let before = old.and_then(|old| old.peers.get(&peer));
        let (least, least_at, rounds_since) = match before {
            Some(before) if databases >= before.least => {
                (before.least, before.least_at, before.rounds_since.saturating_add(1))
            }
            _ => (databases, now, 0),
        };
        let since = before.map_or(began, |before| before.hindered.since);
        // Until now it was one of those that got everything.
        let synced = before.map_or(old.and_then(|old| old.synced), |before| before.synced);
        let hindered = Hindrance { since, cause };
        (peer, PeerNote { hindered, cut_off, databases, synced, least, least_at, rounds_since })
    };
    DeviceNote {
        name,
        walked: Some(began),
        done: Some(now),
        synced: if trouble.is_none() { Some(began) } else { old.and_then(|old| old.synced) },
        in_sync_since: in_sync.then(|| old.and_then(|old| old.in_sync_since).unwrap_or(now)),
        trouble: troubled(old, trouble, began),
        databases,
        strays,
        peers: hindered.into_iter().map(note).collect(),
    }
}

/// The note of a device that could not be gone round at all.
pub fn unusable(old: Option<&DeviceNote>, name: &str, cause: Cause, began: f64) -> DeviceNote {
    let trouble = troubled(old, Some(cause), began);
    let old = old.cloned().unwrap_or_default();
    DeviceNote { name: name.to_owned(), in_sync_since: None, trouble, ..old }
}

fn troubled(old: Option<&DeviceNote>, cause: Option<Cause>, began: f64) -> Option<Hindrance> {
    let since = old.and_then(|old| old.trouble.as_ref()).map_or(began, |known| known.since);
    cause.map(|cause| Hindrance { since, cause })
}

/// The databases that are worst off, as obstacles are told in a pass that began at `began`; `before` are those of the
/// passes before it.
pub fn note_bad(worst: &mut Vec<Bad>, before: &[Bad], obstacle: &Obstacle, began: f64, now: f64) {
    let Some(database) = &obstacle.database else { return };
    let (device, hash) = (obstacle.device.0, database.hash.to_string());
    let is_it = |bad: &&Bad| bad.device == device && bad.hash == hash;
    let with = BadWith { peer: obstacle.peer.map(|peer| peer.0), cause: obstacle.cause.clone() };
    if let Some(bad) = worst.iter_mut().find(|bad| is_it(&&**bad)) {
        bad.last = now;
        bad.name = bad.name.take().or_else(|| database.name.clone());
        match bad.with.iter().position(|known| known.peer == with.peer) {
            Some(at) => bad.with[at] = with,
            None if bad.with.len() < WITH_LIMIT => bad.with.push(with),
            None => {}
        }
        return;
    }
    let known = before.iter().find(is_it);
    let bad = Bad {
        device,
        hash,
        partition: database.partition.map(|partition| partition.0),
        name: database.name.clone().or_else(|| known.and_then(|known| known.name.clone())),
        since: known.map_or(began, |known| known.since),
        last: now,
        attempts: known.map_or(1, |known| known.attempts.saturating_add(1)),
        with: vec![with],
    };
    let place = worst.partition_point(|other| rank(other) <= rank(&bad));
    worst.insert(place, bad);
    worst.truncate(WORST);
}

/// The worst come first: those that something can be done about, those that have waited longest, then those tried most.
fn rank(bad: &Bad) -> (bool, u64, std::cmp::Reverse<u64>) {
    let excused = bad.with.iter().all(|with| with.cause.kind.is_excused());
    (excused, bad.since.to_bits(), std::cmp::Reverse(bad.attempts))
}

/// More peers than a partition has.
const WITH_LIMIT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_path::Hash;
    use crate::obstacle::{Kind, Whose};
    use crate::ring::DeviceId;

    fn cause() -> Cause {
        Cause::new(Kind::Unreachable, "it cannot be reached")
    }

    fn clean(began: f64) -> Found {
        Found { name: "sda".into(), began, ..Found::default() }
    }

    fn hindered(began: f64, databases: u64) -> Found {
        let hindered = Hindered { cause: cause(), cut_off: true, databases };
        Found { hindered: BTreeMap::from([(7, hindered)]), ..clean(began) }
    }

    #[test]
    fn a_device_is_in_sync_since_the_first_clean_round_in_a_row() {
        let first = after(None, clean(100.0), 110.0);
        assert_eq!(
            (first.walked, first.synced, first.in_sync_since),
            (Some(100.0), Some(100.0), Some(110.0))
        );
        assert!(first.peers.is_empty());
        let second = after(Some(&first), clean(200.0), 210.0);
        assert_eq!(
            (second.synced, second.done, second.in_sync_since),
            (Some(200.0), Some(210.0), Some(110.0))
        );
        let third = after(Some(&second), hindered(300.0, 1), 310.0);
        assert_eq!((third.synced, third.in_sync_since), (Some(300.0), None));
        assert_eq!(after(Some(&third), clean(400.0), 410.0).in_sync_since, Some(410.0));
    }

    #[test]
    fn a_peer_that_is_hindered_keeps_the_time_up_to_which_it_has_everything() {
        let first = after(None, clean(100.0), 110.0);
        let lost = after(Some(&first), hindered(200.0, 2), 210.0);
        let peer = &lost.peers[&7];
        assert_eq!((peer.synced, peer.databases, peer.hindered.since), (Some(100.0), 2, 200.0));
        assert_eq!(lost.synced, Some(200.0), "the others have everything");
        let longer = after(Some(&lost), hindered(300.0, 5), 310.0);
        let peer = &longer.peers[&7];
        assert_eq!((peer.synced, peer.databases, peer.hindered.since), (Some(100.0), 5, 200.0));
        assert_eq!((peer.least, peer.least_at, peer.rounds_since), (2, 210.0, 1));
        let same = after(Some(&longer), hindered(350.0, 2), 360.0);
        assert_eq!(
            (same.peers[&7].least_at, same.peers[&7].rounds_since),
            (210.0, 2),
            "no fewer than before"
        );
        let fewer = after(Some(&same), hindered(400.0, 1), 410.0);
        let peer = &fewer.peers[&7];
        assert_eq!((peer.least, peer.least_at, peer.rounds_since), (1, 410.0, 0));
        let back = after(Some(&fewer), clean(500.0), 510.0);
        assert!(back.peers.is_empty());
        let never = after(None, hindered(100.0, 0), 110.0);
        assert_eq!((never.peers[&7].synced, never.peers[&7].databases), (None, 0), "it never had everything");
    }

    #[test]
    fn trouble_of_the_device_is_everybodys() {
        let first = after(None, clean(100.0), 110.0);
        let ill = after(Some(&first), Found { trouble: Some(cause()), ..clean(200.0) }, 210.0);
        assert_eq!((ill.walked, ill.synced, ill.in_sync_since), (Some(200.0), Some(100.0), None));
        let gone = unusable(Some(&ill), "sda", cause(), 300.0);
        assert_eq!((gone.walked, gone.synced), (Some(200.0), Some(100.0)));
        assert_eq!(gone.trouble.as_ref().map(|trouble| trouble.since), Some(200.0));
        assert_eq!(after(Some(&gone), clean(400.0), 410.0).trouble, None);
    }

    fn obstacle(number: u8, peer: u32, kind: Kind) -> Obstacle {
        let whose = Whose { partition: None, hash: Hash([number; 16]), name: None };
        Obstacle {
            device: DeviceId(1),
            peer: Some(DeviceId(peer)),
            database: Some(whose),
            cause: Cause::new(kind, "why"),
        }
    }

    #[test]
    fn the_worst_are_those_that_waited_longest() {
        let numbers = |worst: &[Bad]| worst.iter().map(|bad| bad.hash[..2].to_owned()).collect::<Vec<_>>();
        let mut first = Vec::new();
        for number in 0..20 {
            note_bad(&mut first, &[], &obstacle(number, 5, Kind::Failed), 100.0, 101.0);
        }
        assert_eq!(numbers(&first), ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09"]);
        // Next time the newcomers are told of first, and some of the old ones are well again.
        let mut second = Vec::new();
        for number in (5..20).rev() {
            note_bad(&mut second, &first, &obstacle(number, 5, Kind::Failed), 200.0, 201.0);
        }
        assert_eq!(numbers(&second)[..5], ["09", "08", "07", "06", "05"]);
        assert_eq!((second[0].since, second[0].attempts, second[0].last), (100.0, 2, 201.0));
        assert_eq!((second[5].since, second[5].attempts), (200.0, 1));
        assert_eq!(second.len(), WORST);
        // Several peers make one line; one that a pass cannot help comes last.
        let mut third = Vec::new();
        note_bad(&mut third, &[], &obstacle(1, 5, Kind::Deferred), 50.0, 51.0);
        note_bad(&mut third, &[], &obstacle(2, 5, Kind::PeerFull), 300.0, 301.0);
        note_bad(&mut third, &[], &obstacle(2, 6, Kind::Failed), 300.0, 302.0);
        note_bad(&mut third, &[], &obstacle(2, 6, Kind::PeerBusy), 300.0, 303.0);
        assert_eq!(numbers(&third), ["02", "01"]);
        assert_eq!((third[0].attempts, third[0].with.len(), third[0].last), (1, 2, 303.0));
        assert_eq!(third[0].with[1].cause.kind, Kind::PeerBusy);
    }
}
