//! Where something belongs: its hash, its partition, the devices of the ring, the path below each.

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::hash_path::{Hash, Partition, item_directory};
use crate::ring::{Device, Ring, RingError, RingFault};

/// What a ring places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Accounts' databases.
    Account,
    /// Containers' databases.
    Container,
    /// Objects of a storage policy.
    Object(u32),
}

impl Kind {
    /// The usual name of its ring.
    pub fn ring_name(self) -> String {
        match self {
            Kind::Account => "account.ring.gz".to_owned(),
            Kind::Container => "container.ring.gz".to_owned(),
            Kind::Object(0) => "object.ring.gz".to_owned(),
            Kind::Object(policy) => format!("object-{policy}.ring.gz"),
        }
    }

    /// The directory that its things lie in, below a device.
    pub fn directory(self) -> String {
        match self {
            Kind::Account => "accounts".to_owned(),
            Kind::Container => "containers".to_owned(),
            Kind::Object(0) => "objects".to_owned(),
            Kind::Object(policy) => format!("objects-{policy}"),
        }
    }

    /// What a ring file is for, by its name: `account*`, `object*` with `-N` for a policy; all others are for containers.
    pub fn of_ring(path: &Path) -> Kind {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        match stem.strip_prefix("object") {
            Some(rest) => Kind::Object(rest.strip_prefix('-').and_then(|n| n.parse().ok()).unwrap_or(0)),
            None if stem.starts_with("account") => Kind::Account,
            None => Kind::Container,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Account => f.write_str("account"),
            Kind::Container => f.write_str("container"),
            Kind::Object(0) => f.write_str("object"),
            Kind::Object(policy) => write!(f, "object of policy {policy}"),
        }
    }
}

/// The rings of a cluster: all in one directory, but for one that was named.
#[derive(Debug)]
pub struct Rings {
    /// Where they lie.
    pub directory: PathBuf,
    /// The one that was named.
    pub named: Option<PathBuf>,
}

impl Rings {
    /// The file of a kind.
    pub fn path(&self, kind: Kind) -> PathBuf {
        match &self.named {
            Some(named) if Kind::of_ring(named) == kind => named.clone(),
            _ => self.directory.join(kind.ring_name()),
        }
    }
}

/// Who this node is.
#[derive(Debug)]
pub struct Whereabouts {
    /// The conf file, or Swift's defaults.
    pub config: Config,
    /// The addresses that our devices go by; none if no conf file says which they are.
    pub my_addresses: Vec<String>,
}

impl Whereabouts {
    fn is_ours(&self, device: &Device) -> bool {
        let port = Some(self.config.bind_port);
        config::is_local_device(&self.my_addresses, port, &device.replication_ip, device.replication_port)
    }
}

/// Where one thing belongs.
#[derive(Debug)]
pub struct Placement {
    /// What it is.
    pub kind: Kind,
    /// Its hash.
    pub hash: Hash,
    /// The file that the ring was read from.
    pub ring_path: PathBuf,
    /// Where that puts it; `None` if there is no such file.
    pub placed: Option<Placed>,
}

/// What a ring says of a hash.
#[derive(Debug)]
pub struct Placed {
    /// The partition.
    pub partition: Partition,
    /// The ring in a few words.
    pub ring: String,
    /// The devices that should hold it, then those that may for a while.
    pub spots: Vec<Spot>,
    /// How many of the spots are primaries.
    pub primaries: usize,
}

/// One device.
#[derive(Debug, Clone)]
pub struct Spot {
    /// As the ring has it.
    pub device: Device,
    /// A primary or a handoff, counted from 1.
    pub role: Role,
    /// Where its agent listens, if there can be such a port.
    pub agent_port: Option<u16>,
    /// It is on this node.
    pub ours: bool,
    /// The database, or the directory of an object, as the conf file of this node would have it.
    pub path: PathBuf,
}

/// What a device is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It should hold a replica.
    Primary(usize),
    /// It holds one for as long as a primary cannot, or did not yet take it.
    Handoff(usize),
}

/// As in the first column of a table: `2`, `h1`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Primary(number) => write!(f, "{number}"),
            Role::Handoff(number) => write!(f, "h{number}"),
        }
    }
}

impl Placement {
    /// Looks a hash up. As many handoffs as there are primaries, as `swift-get-nodes` has it, or all.
    ///
    /// # Errors
    /// A ring that is there and cannot be read.
    pub fn find(
        kind: Kind,
        hash: Hash,
        rings: &Rings,
        here: &Whereabouts,
        all_handoffs: bool,
    ) -> Result<Placement, RingError> {
        let ring_path = rings.path(kind);
        let ring = match Ring::load(&ring_path) {
            Ok(ring) => ring,
            Err(RingError { fault: RingFault::Unreadable(error), .. })
                if error.kind() == ErrorKind::NotFound && rings.named.as_ref() != Some(&ring_path) =>
            {
                return Ok(Placement { kind, hash, ring_path, placed: None });
            }
            Err(error) => return Err(error),
        };
        let partition = ring.part_shift().partition(&hash);
        let primaries = ring.primaries(partition);
        let handoffs = ring.handoffs(partition).take(if all_handoffs { usize::MAX } else { primaries.len() });
        let roles = (1..).map(Role::Primary).zip(primaries.iter().copied());
        let spots = roles.chain((1..).map(Role::Handoff).zip(handoffs)).map(|(role, device)| Spot {
            device: device.clone(),
            role,
            agent_port: here.config.peer_port(device.replication_port),
            ours: here.is_ours(device),
            path: path_on(&device.name, &here.config.devices, kind, partition, &hash),
        });
        let placed =
            Placed { partition, ring: in_words(&ring), spots: spots.collect(), primaries: primaries.len() };
        Ok(Placement { kind, hash, ring_path, placed: Some(placed) })
    }

    /// The path on whatever device it is, for a shell.
    pub fn path_anywhere(&self, partition: Partition, devices: &Path) -> PathBuf {
        path_on("*", devices, self.kind, partition, &self.hash)
    }
}

fn path_on(device: &str, devices: &Path, kind: Kind, partition: Partition, hash: &Hash) -> PathBuf {
    let directory = devices.join(device).join(item_directory(&kind.directory(), partition, hash));
    match kind {
        Kind::Object(_) => directory,
        Kind::Account | Kind::Container => directory.join(format!("{hash}.db")),
    }
}

fn in_words(ring: &Ring) -> String {
    let version = ring.version().map(|version| format!(", version {version}")).unwrap_or_default();
    let next = ring.next_part_power();
    let next = next.map(|power| format!(", about to go to 2^{power}")).unwrap_or_default();
    format!(
        "{} replicas of {} partitions on {} devices{version}{next}",
        ring.replica_count(),
        ring.partition_count(),
        ring.assigned_device_count()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_ring_says_what_it_is_for() {
        let table = [
            ("/etc/swift/container.ring.gz", Kind::Container),
            ("account.ring.gz", Kind::Account),
            ("accounts-new.ring.gz", Kind::Account),
            ("object.ring.gz", Kind::Object(0)),
            ("object-2.ring.gz", Kind::Object(2)),
            ("object-gold.ring.gz", Kind::Object(0)),
            ("new.gz", Kind::Container),
        ];
        for (path, kind) in table {
            assert_eq!(Kind::of_ring(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_named_ring_takes_the_place_of_its_kind_only() {
        let named = Some(PathBuf::from("/tmp/object-1.new.gz"));
        let rings = Rings { directory: PathBuf::from("/etc/swift"), named };
        let table = [
            (Kind::Object(1), "/tmp/object-1.new.gz"),
            (Kind::Object(0), "/etc/swift/object.ring.gz"),
            (Kind::Object(2), "/etc/swift/object-2.ring.gz"),
            (Kind::Container, "/etc/swift/container.ring.gz"),
            (Kind::Account, "/etc/swift/account.ring.gz"),
        ];
        for (kind, path) in table {
            assert_eq!(rings.path(kind), Path::new(path), "{kind:?}");
        }
    }
}
