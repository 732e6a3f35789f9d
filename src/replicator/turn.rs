//! Whose turn it is to be looked at in full, and of whom the ledger knows that all peers have the same: mostly they do.
//! So they are asked first, which takes no SQLite on our side and no write on theirs. That costs a few kilobytes of memory
//! instead of a few hundred, and there are always some whose turn it is where there are many databases.

use log::debug;

use super::{Found, Replicator};
use crate::hash_path::Partition;
use crate::ledger::Entry;
use crate::look::{glance, wants_introduction};
use crate::outgoing::{self, Seen};
use crate::protocol::message::{Place, Role};
use crate::ring::Device;
use crate::tally::Tally;

impl<'a> Replicator<'a> {
    /// Asks peers of a database whose turn it is, and counts them; what the ledger is to remember if all have the same as
    /// we. `None` if anything else is the matter with it or with them: then it is to be taken to them, and nothing is
    /// counted yet but bytes.
    pub(super) fn all_have_the_same(
        &mut self,
        found: &Found,
        partition: Partition,
        peers: &[&Device],
        known: &Entry,
        tally: &mut Tally,
    ) -> Option<Entry> {
        let config = &self.node.config;
        let only_its_turn = known.introduce && !wants_introduction(config, known.met_row, known.max_row);
        if !only_its_turn || self.dry_run.is_some() || !peers.iter().all(|peer| known.stands_with(peer.id)) {
            return None;
        }
        let (info, entry) = glance(config, found.dir, Some(known.clone()))?;
        for peer in peers {
            let (whom, device, address) = self.way_to(peer)?;
            let place = Place { device, partition, hash: found.dir.hash() };
            let ask = |peer: &mut _| Ok(outgoing::look(peer, place.clone(), &info, Role::Primary)?);
            match self.talk(&address, tally, ask)? {
                Ok(Seen::Here { info: theirs, .. }) if theirs.agrees_with(&info) => {
                    debug!("in sync with {whom}, nothing to do");
                }
                _ => return None,
            }
        }
        tally.success += peers.len() as u64;
        tally.no_change += peers.len() as u64;
        Some(Entry { introduce: false, ..entry })
    }
}
