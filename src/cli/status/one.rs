//! One database on this node: where it lies, what it holds, and how it stands with each peer, by what is known here.

use std::fmt::Write;

use serde::Serialize;

use super::show::moment;
use super::{GREEN, RED, Style, YELLOW};
use crate::cli::info::{InfoError, count, open};
use crate::cli::page::Page;
use crate::cli::ring::columns::wrapped;
use crate::config::Config;
use crate::drive::DeviceName;
use crate::hash_path::{Hash, Partition};
use crate::ledger::{Entry, Key, Ledger};
use crate::node::{Node, NodeError};
use crate::obstacle::Kind;
use crate::report::text::printable;
use crate::ring::{Device, DeviceId, Ring};
use crate::status::gather::{last_change, place};
use crate::status::kept::{Kept, KeptError};
use crate::stop::Stop;

/// What is known here of one container.
#[derive(Debug, Serialize)]
pub struct Found {
    /// When this was asked, in seconds since 1970, as all times here.
    now: f64,
    account: String,
    container: String,
    hash: String,
    partition: u32,
    /// The ring's primaries of it.
    primaries: Vec<String>,
    /// Something here fails, or is not where it can be read; the exit code is 1 then.
    pub needs_person: bool,
    /// What could not be found out, and why.
    notes: Vec<String>,
    /// This node's devices that hold it, or should.
    places: Vec<Here>,
}

/// One device of ours.
#[derive(Debug, Serialize)]
struct Here {
    device: String,
    /// `primary`, or `handoff`: a pass takes it to the primaries and removes it here.
    role: &'static str,
    /// The database's file; `null` if it is not here.
    path: Option<String>,
    /// Why it cannot be looked at.
    problem: Option<String>,
    object_count: Option<i64>,
    bytes_used: Option<i64>,
    max_row: Option<i64>,
    database_id: Option<String>,
    db_state: Option<&'static str>,
    /// When it was last written to.
    changed: Option<f64>,
    /// When the pass began that last walked the device.
    walked: Option<f64>,
    /// It was looked into since it last changed; else what is said of peers may be of the state before.
    looked_into: bool,
    peers: Vec<There>,
}

/// One peer.
#[derive(Debug, Serialize)]
struct There {
    peer: String,
    /// `agrees`; `sent`, if all was taken there and the next pass confirms it; `differs`; `never`, if it was never found
    /// equal; `unknown`.
    state: &'static str,
    /// Our last row when both were last equal.
    agreed_row: Option<i64>,
    /// Since when something is in the way.
    since: Option<f64>,
    /// When it was last tried in vain.
    last: Option<f64>,
    /// Passes in which it failed without a break.
    attempts: Option<u64>,
    kind: Option<Kind>,
    reason: Option<String>,
}

/// Looks for it on every device of this node.
pub fn look(config: Config, account: &str, container: &str) -> Result<Found, NodeError> {
    let node = Node::new(config, Stop::default())?;
    let ring = node.ring();
    let hash = node.config.salt.hash(account, Some(container), None);
    let partition = ring.part_shift().partition(&hash);
    let primaries = ring.primaries(partition);
    let path = Kept::path(&node.config);
    let mut notes = Vec::new();
    let kept = Kept::load(&path).unwrap_or_else(|error| {
        if !matches!(error, KeptError::Missing) {
            notes.push(format!("what passes leave behind is not known: {}: {error}", path.display()));
        }
        Kept::begin(0.0)
    });
    let mut found = Found {
        now: crate::daemon::unix_now(),
        account: account.to_owned(),
        container: container.to_owned(),
        hash: hash.to_string(),
        partition: partition.0,
        primaries: primaries.iter().map(|device| place(&ring, device.id.0)).collect(),
        needs_person: false,
        notes,
        places: Vec::new(),
    };
    for device in node.our_devices(&ring)? {
        let is_primary = primaries.iter().any(|primary| primary.id == device.id);
        let asked = Asked { node: &node, ring: &ring, kept: &kept, device, hash, partition, is_primary };
        found.places.extend(asked.look(&mut found.notes));
    }
    let hindered = |there: &There| there.since.is_some() && !there.kind.is_some_and(Kind::is_excused);
    found.needs_person =
        found.places.iter().any(|here| here.problem.is_some() || here.peers.iter().any(hindered));
    Ok(found)
}

struct Asked<'a> {
    node: &'a Node,
    ring: &'a Ring,
    kept: &'a Kept,
    device: &'a Device,
    hash: Hash,
    partition: Partition,
    is_primary: bool,
}

impl Asked<'_> {
    /// `None` for a device that should not have it and has not.
    fn look(&self, notes: &mut Vec<String>) -> Option<Here> {
        let note = self.kept.devices.get(&self.device.id.0);
        let mut here = Here {
            device: self.device.name.clone(),
            role: if self.is_primary { "primary" } else { "handoff" },
            path: None,
            problem: None,
            object_count: None,
            bytes_used: None,
            max_row: None,
            database_id: None,
            db_state: None,
            changed: None,
            walked: note.and_then(|note| note.walked),
            looked_into: false,
            peers: Vec::new(),
        };
        let drive = DeviceName::new(self.device.name.as_str())
            .ok_or_else(|| format!("{:?} is no name of a device", self.device.name))
            .and_then(|name| self.node.drive(&name).map_err(|error| error.to_string()));
        let drive = match drive {
            Ok(drive) => drive,
            Err(error) => {
                here.problem = Some(error);
                return self.is_primary.then_some(here);
            }
        };
        let home = drive.hash_dir(self.partition, self.hash);
        let path = match home.in_charge() {
            Ok(path) => path,
            Err(error) => {
                here.problem = Some(format!("{}: {error}", home.dir().display()));
                return Some(here);
            }
        };
        let Some(path) = path else { return self.is_primary.then_some(here) };
        here.path = Some(path.display().to_string());
        here.changed = last_change(&home);
        let info =
            open(&path, Some(&home)).and_then(|mut broker| broker.stored_info().map_err(InfoError::Broker));
        match info {
            Ok(info) => {
                here.object_count = Some(info.count);
                here.bytes_used = Some(info.bytes_used);
                here.max_row = Some(info.max_row.0);
                here.database_id = Some(info.id.as_str().to_owned());
                here.db_state = Some(info.db_state.as_str());
            }
            Err(error) => here.problem = Some(error.to_string()),
        }
        let entry = match Ledger::open_to_look(&drive, self.node.terms(self.ring))
            .and_then(|ledger| ledger.entry(Key::new(self.hash, self.ring.part_shift())))
        {
            Ok(entry) => entry,
            Err(error) => {
                if self.is_primary {
                    notes.push(format!("{}: its ledger cannot be read: {}", self.device.name, error.cause));
                }
                None
            }
        };
        let sight = home.sight().ok().flatten().map(|sight| sight.fingerprint);
        here.looked_into = entry.as_ref().is_some_and(|entry| entry.seen.is_some() && entry.seen == sight);
        let primaries = self.ring.primaries(self.partition);
        let others = primaries.iter().filter(|primary| primary.id != self.device.id);
        here.peers = others.map(|primary| self.peer(primary.id, entry.as_ref(), here.changed)).collect();
        Some(here)
    }

    fn peer(&self, peer: DeviceId, entry: Option<&Entry>, changed: Option<f64>) -> There {
        let agreement = entry.and_then(|entry| entry.agreement(peer));
        let state = match (entry, agreement) {
            (None, _) => "unknown",
            (Some(entry), _) if entry.agrees_with(peer) => "agrees",
            (Some(_), Some(_)) => "differs",
            (Some(_), None) => "never",
        };
        let hash = self.hash.to_string();
        let bad = self.kept.worst.iter().find(|bad| bad.device == self.device.id.0 && bad.hash == hash);
        let with = bad.and_then(|bad| {
            bad.with
                .iter()
                .find(|with| with.peer.is_none_or(|known| known == peer.0))
                .map(|with| (bad, &with.cause))
        });
        let note = self.kept.devices.get(&self.device.id.0);
        let pair = note.and_then(|note| note.peers.get(&peer.0));
        // Where all else got through, what is said of the pair is said of other databases.
        let pair = pair.filter(|pair| pair.cut_off && state != "agrees").map(|pair| &pair.hindered);
        let is_free = pair.is_none() && with.is_none_or(|(_, cause)| cause.kind.is_excused());
        let done = note.and_then(|note| note.done).filter(|_| is_free);
        let state = match state {
            "differs" | "never" if done.zip(changed).is_some_and(|(done, changed)| changed <= done) => "sent",
            state => state,
        };
        There {
            peer: place(self.ring, peer.0),
            state,
            agreed_row: agreement.map(|agreement| agreement.row.0),
            since: with.map(|(bad, _)| bad.since).or(pair.map(|pair| pair.since)),
            last: with.map(|(bad, _)| bad.last),
            attempts: with.map(|(bad, _)| bad.attempts),
            kind: with.map(|(_, cause)| cause.kind).or(pair.map(|pair| pair.cause.kind)),
            reason: with.map(|(_, cause)| cause.text.clone()).or(pair.map(|pair| pair.cause.text.clone())),
        }
    }
}

/// The same as text.
pub fn page(found: &Found, style: Style) -> String {
    let mut page = Page::new(NAME_WIDTH);
    page.fact("container", &format!("{}/{}", found.account, found.container));
    page.fact("hash", &found.hash);
    page.fact("partition", &found.partition.to_string());
    page.fact("belongs on", &found.primaries.join(", "));
    if found.places.is_empty() {
        page.heading("not on this node");
        page.lines("none of its devices holds it, or should");
    }
    for here in &found.places {
        page.heading(&format!("{} ({})", here.device, role(here)));
        about(&mut page, here, found.now);
        for there in &here.peers {
            let (code, words) = stand(there, found.now);
            let mut lines = wrapped(&printable(&words), style.width.saturating_sub(4)).into_iter();
            let first = lines.next().unwrap_or_default();
            let peer = printable(&there.peer);
            writeln!(page.text, "  {peer}").expect(INFALLIBLE);
            writeln!(page.text, "    {}", style.paint(code, &first)).expect(INFALLIBLE);
            lines.for_each(|line| writeln!(page.text, "    {line}").expect(INFALLIBLE));
        }
    }
    for note in &found.notes {
        page.heading("not known");
        page.lines(note);
    }
    page.text += "\nThis is what is known here; nobody was asked. agent locate asks the peers.\n";
    page.text
}

fn role(here: &Here) -> &'static str {
    match (here.role, &here.path, &here.problem) {
        ("primary", None, None) => "primary, and not here yet",
        ("primary", ..) => "primary",
        _ => "handoff: a pass takes it to the primaries and removes it here",
    }
}

fn about(page: &mut Page, here: &Here, now: f64) {
    if let Some(path) = &here.path {
        page.fact("file", path);
    }
    if let Some(problem) = &here.problem {
        page.fact("problem", problem);
    }
    if let (Some(objects), Some(bytes), Some(row)) = (here.object_count, here.bytes_used, here.max_row) {
        let state = here.db_state.unwrap_or_default();
        page.fact(
            "holds",
            &format!("{} objects, {} bytes, max_row {}, {state}", count(objects), count(bytes), count(row)),
        );
    }
    if let Some(changed) = here.changed {
        let since = if here.looked_into { "" } else { ", and not looked into since" };
        page.fact("changed", &format!("{}{since}", moment(now, changed)));
    }
    if let Some(walked) = here.walked {
        page.fact("walked", &moment(now, walked));
    }
}

/// How it stands with a peer, in words and a colour.
fn stand(there: &There, now: f64) -> (&'static str, String) {
    let (code, mut words) = match there.state {
        "agrees" => (GREEN, "agrees".to_owned()),
        "sent" => (GREEN, "was brought everything; the next pass confirms it".to_owned()),
        "differs" => {
            let row =
                there.agreed_row.map_or_else(String::new, |row| format!("; equal up to row {}", count(row)));
            (if there.since.is_some() { RED } else { YELLOW }, format!("differs, or changed since{row}"))
        }
        "never" => (YELLOW, "was never found equal".to_owned()),
        _ => (YELLOW, "not known".to_owned()),
    };
    if let (Some(kind), Some(reason)) = (there.kind, &there.reason) {
        let since = there.since.map_or_else(String::new, |since| format!(" since {}", moment(now, since)));
        let attempts = match there.attempts {
            Some(attempts) if attempts > 1 => format!(", in {attempts} passes"),
            _ => String::new(),
        };
        write!(words, "; {}{since}{attempts}: {reason}", kind.as_str()).expect(INFALLIBLE);
    } else if !["agrees", "sent"].contains(&there.state) {
        words += "; nothing is in the way, the next pass takes it there";
    }
    (code, words)
}

/// As wide as the longest name.
const NAME_WIDTH: usize = 12;
const INFALLIBLE: &str = "a string takes whatever is written to it";
