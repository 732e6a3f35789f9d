//! Every kind of damage to a database, at either end of an exchange.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use swiftlet::broker::BrokerError;
use swiftlet::incoming::quarantine;

use crate::cluster::{Cluster, Container, database, is_empty, rows};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Empty,
    CutToHalfAPage,
    CutToPages,
    GarbageHeader,
    GarbageInside,
    /// Only where rows are; no index and no sum of them shows it.
    GarbageAmongRows,
    NoObjectTable,
    NoInfoRow,
    NoSqlite,
    /// Stands for a file that cannot be read at all, which root always can.
    ADirectory,
}

const DAMAGES: [Damage; 10] = [
    Damage::Empty,
    Damage::CutToHalfAPage,
    Damage::CutToPages,
    Damage::GarbageHeader,
    Damage::GarbageInside,
    Damage::GarbageAmongRows,
    Damage::NoObjectTable,
    Damage::NoInfoRow,
    Damage::NoSqlite,
    Damage::ADirectory,
];

/// Whose replica it is: of the node that makes the pass, or of the one that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Sender,
    Receiver,
}

impl Place {
    fn device(self) -> usize {
        match self {
            Place::Sender => 0,
            Place::Receiver => 1,
        }
    }
}

impl Damage {
    fn inflict(self, path: &Path) {
        let file = || OpenOptions::new().write(true).open(path).expect("it is there");
        let sql = |sql: &str| {
            rusqlite::Connection::open(path).expect("it opens").execute_batch(sql).expect("it works");
        };
        let garbage: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        match self {
            Damage::Empty => file().set_len(0).expect("cut"),
            Damage::CutToHalfAPage => file().set_len(2048).expect("cut"),
            Damage::CutToPages => file().set_len(3 * 4096).expect("cut"),
            Damage::GarbageHeader => file().write_all_at(&garbage[..100], 0).expect("written"),
            Damage::GarbageInside | Damage::GarbageAmongRows => {
                let file = OpenOptions::new().read(true).write(true).open(path).expect("it is there");
                let pages = fs::metadata(path).expect("it is there").len() / 4096;
                for page in OBJECT_PAGES..pages {
                    let mut kind = [0];
                    file.read_exact_at(&mut kind, page * 4096).expect("read");
                    if self == Damage::GarbageInside || kind == [TABLE_LEAF] {
                        file.write_all_at(&garbage, page * 4096).expect("written");
                    }
                }
            }
            Damage::NoObjectTable => sql("DROP TABLE object"),
            Damage::NoInfoRow => sql("DELETE FROM container_info"),
            Damage::NoSqlite => fs::write(path, "no database at all\n".repeat(400)).expect("written"),
            Damage::ADirectory => {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            }
        }
    }

    /// It is the database that is at fault, so that it goes into quarantine and another copy takes its place.
    fn is_of_the_database(self) -> bool {
        self != Damage::ADirectory
    }
}

/// Is the container's directory in the quarantine of a device?
fn quarantined(cluster: &Cluster, device: usize, container: &Container) -> bool {
    cluster.device(device).join("quarantined/containers").join(container.hash.to_string()).is_dir()
}

/// Two nodes; node 1 serves. A container for each damage, and two that are sound; both replicas of each have rows of
/// their own, so that there is something to exchange.
fn cluster(names: impl Iterator<Item = String>) -> (Cluster, Vec<Container>) {
    let cluster = Cluster::new(2);
    cluster.configure_all(&[("agent_passes", "no"), ("node_timeout", "3")]);
    let containers: Vec<Container> = names.map(|name| cluster.container(&name)).collect();
    for container in &containers {
        for device in [0, 1] {
            let mut broker = cluster.create(device, container);
            broker.merge_rows(rows("both", 0..300), None).expect("merged");
            broker.merge_rows(rows(&format!("on{device}"), 0..300), None).expect("merged");
        }
    }
    (cluster, containers)
}

#[test]
fn damage_is_put_aside_and_healed_and_nothing_else_suffers() {
    for place in [Place::Sender, Place::Receiver] {
        let names = DAMAGES.iter().map(|damage| format!("{damage:?}"));
        let (cluster, containers) = cluster(names.chain(["sound".into(), "sound too".into()]));
        let (damaged, sound) = containers.split_at(DAMAGES.len());
        for (damage, container) in DAMAGES.iter().zip(damaged) {
            damage.inflict(&database(&cluster.home(place.device(), container)));
        }
        cluster.start_all();
        let first = cluster.once(0, "").ended(1);
        assert_eq!(first.count("attempted"), containers.len() as u64);
        assert!(first.count("failure") > 0);
        for container in sound {
            let there = cluster.replica(1, container).expect("it is there");
            assert_eq!(there.rows.len(), 900, "{container:?}");
        }
        for (damage, container) in DAMAGES.iter().zip(damaged) {
            let aside = quarantined(&cluster, place.device(), container);
            assert_eq!(
                aside,
                damage.is_of_the_database(),
                "{damage:?} {place:?}\n{}\n{}",
                first.stderr,
                cluster.log(1)
            );
            let other = 1 - place.device();
            let sound = cluster.replica(other, container).expect("the sound one is left alone");
            assert_eq!(sound.rows.len(), 600, "{damage:?} {place:?}");
        }
        // What cannot be read goes on being counted; all else is well again.
        cluster.once(0, "");
        cluster.once(1, "");
        let last = cluster.once(0, "").ended(1);
        last.said(&containers[DAMAGES.len() - 1].hash.to_string());
        for (damage, container) in DAMAGES.iter().zip(&containers) {
            if damage.is_of_the_database() {
                assert_eq!(cluster.disagreement(container), None, "{damage:?} {place:?}");
                let healed = cluster.replica(place.device(), container).expect("it is there");
                assert_eq!(healed.rows.len(), 600, "{damage:?} {place:?}");
            }
        }
        for container in sound {
            assert_eq!(cluster.disagreement(container), None);
        }
        for device in [0, 1] {
            let tmp = cluster.device(device).join("tmp");
            assert!(!tmp.exists() || is_empty(&tmp), "{place:?}: something is left in {}", tmp.display());
        }
    }
}

/// A sender that has not read its own damage yet must not hand it on.
#[test]
fn a_damaged_file_never_takes_a_place() {
    let (cluster, containers) = cluster(["c".to_owned()].into_iter());
    let (here, there) = (cluster.home(0, &containers[0]), cluster.home(1, &containers[0]));
    fs::remove_dir_all(there.dir()).expect("removed");
    Damage::GarbageAmongRows.inflict(&database(&here));
    cluster.start(1);
    cluster.once(0, "").ended(1);
    assert!(cluster.replica(1, &containers[0]).is_none(), "garbage has arrived");
}

#[test]
fn damage_to_another_file_is_no_reason_for_quarantine() {
    let (cluster, containers) = cluster(["c".to_owned()].into_iter());
    let home = cluster.home(0, &containers[0]);
    let damaged = |path: PathBuf| BrokerError::Damaged { path, cause: "a test".to_owned() };
    quarantine(&home, &damaged(cluster.device(0).join("tmp/arriving.1")));
    assert!(home.dir().exists());
    quarantine(&home, &damaged(database(&home)));
    assert!(!home.dir().exists() && quarantined(&cluster, 0, &containers[0]));
}

/// A journal of a writer that died is not damage: SQLite rolls it back.
#[test]
fn a_writer_that_died_has_damaged_nothing() {
    let (cluster, containers) = cluster(["c".to_owned()].into_iter());
    let path = database(&cluster.home(0, &containers[0]));
    let copy = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    {
        // Both files as they are in the middle of a commit.
        let connection = rusqlite::Connection::open(&path).expect("it opens");
        let sql = "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; DELETE FROM policy_stat;
            UPDATE container_info SET metadata = zeroblob(300000);";
        connection.execute_batch(sql).expect("it works");
        fs::copy(&path, copy(".torn")).expect("copied");
        fs::copy(copy("-journal"), copy(".torn-journal")).expect("copied");
        connection.execute_batch("ROLLBACK").expect("it works");
    }
    fs::rename(copy(".torn"), &path).expect("renamed");
    fs::rename(copy(".torn-journal"), copy("-journal")).expect("renamed");
    File::open(&path).and_then(|file| file.sync_all()).expect("synced");
    cluster.start_all();
    cluster.once(0, "").ended(0);
    cluster.once(1, "").ended(0);
    assert_eq!(cluster.disagreement(&containers[0]), None);
    assert_eq!(cluster.replica(0, &containers[0]).expect("it is there").rows.len(), 900);
}

/// The pages before belong to the schema, the info and the sync tables.
const OBJECT_PAGES: u64 = 16;
/// The first byte of a page that holds rows.
const TABLE_LEAF: u8 = 0x0d;
