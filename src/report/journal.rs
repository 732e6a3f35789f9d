//! The journal: lines with a priority, and with fields to look for.
//!
//! Where the service manager connected our standard error to its journal, lines go to its own socket, in its own form
//! (`systemd.io`, "Native Journal Protocol"): `journalctl -u agent -p warning SWIFTLET_PEER=10.0.0.2:6201/sdb1` then finds
//! what it should. The identifier and the facility go with them, so that what the journal hands on to a syslog daemon looks
//! as Swift's own lines do. If the socket cannot be reached, lines go to standard error, each behind its priority.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::kv::{Key, Source, VisitSource};

use super::text::printable;

/// Whether standard error goes to the journal (`systemd.exec(5)`, `$JOURNAL_STREAM`).
pub fn has_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    stderr.and_then(|stderr| stderr.metadata()).is_ok_and(|file| is_named(&stream, file.dev(), file.ino()))
}

/// Is it this file that `$JOURNAL_STREAM` names? It outlives redirections.
fn is_named(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Fields that a line may have in the journal besides those that every line has there: what the code calls it, its name in
/// the journal, and what it holds. The README has the same, and so has `docs/metrics.md`.
pub const FIELDS: [(&str, &str, &str); 4] = [
    ("device", "SWIFTLET_DEVICE", "a device of this node, by its name in the ring"),
    ("peer", "SWIFTLET_PEER", "a device of another node: address, port and name, as in the ring"),
    ("database", "SWIFTLET_DATABASE", "the directory of a database on this node"),
    ("repeated", "SWIFTLET_REPEATED", "how often the line was said again since it was told last"),
];

/// The way to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: Option<UnixDatagram>,
    address: PathBuf,
}

impl Journal {
    /// At the usual place.
    pub fn usual() -> Journal {
        Journal::at(Path::new(SOCKET))
    }

    fn at(address: &Path) -> Journal {
        let socket = UnixDatagram::unbound().ok();
        if let Some(socket) = &socket {
            let _ = socket.set_write_timeout(Some(SEND_TIMEOUT));
        }
        Journal { socket, address: address.to_owned() }
    }

    /// Sends an entry; `false` if nobody took it. A journal that was restarted is found again.
    pub fn send(&self, entry: &Entry) -> bool {
        let socket = self.socket.as_ref();
        socket.is_some_and(|socket| socket.send_to(&entry.0, &self.address).is_ok())
    }
}

/// One line, with all that goes with it.
#[derive(Debug, Default)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// Adds a field. Its name is ours; its value has its control characters spelt out, so it is one line.
    pub fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        self.0.extend_from_slice(printable(value).as_bytes());
        self.0.push(b'\n');
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Adds what a line says of itself, as far as there is a field for it.
    pub fn put_pairs(&mut self, pairs: &dyn Source) {
        // It only fails if we do.
        let _ = pairs.visit(self);
    }
}

impl<'kvs> VisitSource<'kvs> for Entry {
    fn visit_pair(&mut self, key: Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        if let Some((_, name, _)) = FIELDS.iter().find(|(known, ..)| *known == key.as_str()) {
            self.put(name, &value.to_string());
        }
        Ok(())
    }
}

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that hangs may delay a line by this much.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_named_by_device_and_inode() {
        for (stream, is) in [
            ("8:77", true),
            ("8:78", false),
            ("9:77", false),
            ("", false),
            ("8", false),
            ("8:77:1", false),
            (":", false),
        ] {
            assert_eq!(is_named(stream, 8, 77), is, "{stream:?}");
        }
    }

    #[test]
    fn an_entry_has_a_line_for_each_field_whatever_it_holds() {
        let mut entry = Entry::default();
        entry.put("MESSAGE", "one\ntwo");
        entry.put_pairs(&[("peer", "10.0.0.2:6201/sdb1\nPRIORITY=0"), ("colour", "red")]);
        assert_eq!(entry.text(), "MESSAGE=one#012two\nSWIFTLET_PEER=10.0.0.2:6201/sdb1#012PRIORITY=0\n");
    }

    #[test]
    fn the_journal_takes_an_entry_or_it_is_said_that_it_did_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = directory.path().join("socket");
        let journal = Journal::at(&address);
        let mut entry = Entry::default();
        entry.put("MESSAGE", "x");
        assert!(!journal.send(&entry));
        let daemon = UnixDatagram::bind(&address).expect("a socket");
        assert!(journal.send(&entry));
        let mut packet = [0; 100];
        let length = daemon.recv(&mut packet).expect("a packet");
        assert_eq!(&packet[..length], b"MESSAGE=x\n");
    }

    #[test]
    fn the_readme_has_every_field() {
        let readme = include_str!("../../README.md");
        for (_, name, meaning) in FIELDS {
            let row = format!("| `{name}` | {meaning} |");
            assert!(readme.contains(&row), "README.md lacks the row {row}");
        }
        let rows = readme.lines().filter(|line| line.starts_with("| `SWIFTLET_")).count();
        assert_eq!(rows, FIELDS.len(), "README.md has fields that there are not");
    }
}
