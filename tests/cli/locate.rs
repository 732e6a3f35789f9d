//! `agent locate` on a small cluster: everything in order, and each thing that can be out of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use swiftlet::replica::PolicyIndex;
use swiftlet::ring::{DeviceId, FormatVersion, Ring};

use super::cluster::{
    ACCOUNT, Cluster, Container, copy_database, database, is_empty, metadata, row, rows, tombstone,
};
use super::{Said, agent_given};

/// Four nodes; a container with a hundred rows on its three primaries, daemons on all nodes.
struct Scene {
    cluster: Cluster,
    container: Container,
    /// The primaries in order, then the one handoff. Each device is a node of its own.
    order: Vec<usize>,
}

impl Scene {
    fn new() -> Scene {
        Scene::named("photos")
    }

    fn named(name: &str) -> Scene {
        let cluster = Cluster::new(4);
        cluster.configure_all(&[("agent_passes", "no"), ("node_timeout", "1")]);
        let container = cluster.container(name);
        let mut order = cluster.primaries(&container);
        order.extend((0..4).find(|device| !order.contains(device)));
        let mut first = cluster.create(order[0], &container);
        first.merge_rows(rows("cat", 0..100), None).expect("merged");
        drop(first);
        for &device in &order[1..3] {
            copy_database(&cluster.home(order[0], &container), &cluster.home(device, &container));
        }
        Scene { cluster, container, order }
    }

    fn serving(self) -> Scene {
        self.cluster.start_all();
        self
    }

    /// As the first primary's node sees it.
    fn locate(&self, arguments: &[&str]) -> Said {
        self.locate_from(0, arguments)
    }

    fn locate_from(&self, place: usize, arguments: &[&str]) -> Said {
        let conf = self.cluster.conf(self.order[place]).display().to_string();
        agent_given(&[&["locate", "--config", &conf, ACCOUNT, &self.container.name], arguments].concat())
    }

    fn file(&self, place: usize) -> std::path::PathBuf {
        database(&self.cluster.home(self.order[place], &self.container))
    }

    /// The line of what is there for a primary, from 1, or `h1`; its words.
    fn line(&self, said: &Said, role: &str) -> Vec<String> {
        let there = said.stdout.split("what is there").nth(1).expect("it says what is there");
        let line = there.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = line.filter(|words| words.first() == Some(&role)).find(|words| words[1].starts_with('d'));
        found.unwrap_or_else(|| panic!("no {role} in\n{there}")).into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn replicas_that_agree_are_seen_to_agree() {
    let scene = Scene::new().serving();
    let said = scene.locate(&[]).exits(0);
    let (hash, partition) = (scene.container.hash, scene.container.partition);
    let said = said
        .prints(&format!("account     {ACCOUNT}\ncontainer   photos\n"))
        .prints(&format!("  hash      {hash}\n  partition {partition}\n"))
        .prints("container.ring.gz\n            3 replicas of 32 partitions on 4 devices\n")
        .prints(&format!("/devices/*/containers/{partition}/{}/{hash}/{hash}.db\n", hash.suffix()))
        .prints(&format!("{0}  this node\n", scene.cluster.port(scene.order[0])))
        .prints("none of the handoffs has a copy\n");
    assert!(said.stdout.ends_with("\nall 3 primaries agree\n"), "{}", said.stdout);
    for (place, role) in ["1", "2", "3"].into_iter().enumerate() {
        let line = scene.line(&said, role);
        let device = format!("d{}", scene.order[place]);
        assert_eq!(line[1..4], [device.as_str(), "have", "100"], "{}", said.stdout);
        assert_eq!(line.last().map(String::as_str), Some("agree"));
    }
    assert!(!said.stdout.contains('\x1b'), "no colours where no terminal is");
    // The handoff's node has nothing of its own to look at and sees the same.
    assert!(scene.locate_from(3, &[]).exits(0).stdout.ends_with("\nall 3 primaries agree\n"));
}

#[test]
fn it_can_all_be_had_as_json() {
    let scene = Scene::new().serving();
    fs::remove_file(scene.file(2)).expect("it was there");
    let said = scene.locate(&["cat-000007", "--json"]).exits(1);
    assert_eq!(said.stdout.lines().count(), 1);
    let all: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&all["account"], &all["object"]), (&ACCOUNT.into(), &"cat-000007".into()));
    assert_eq!(
        (&all["agree"], &all["verdict"]),
        (&false.into(), &"2 of 3 primaries agree; primary 3: missing".into())
    );
    let location = &all["location"];
    assert_eq!(location["hash"], scene.container.hash.to_string());
    assert_eq!(location["partition"], scene.container.partition.0);
    let primaries = location["primaries"].as_array().expect("a list");
    assert_eq!(primaries.len(), 3);
    assert_eq!(primaries[0]["path"], scene.file(0).display().to_string());
    assert_eq!((&primaries[0]["is_local"], &primaries[1]["is_local"]), (&true.into(), &false.into()));
    assert_eq!(primaries[1]["agent_port"], scene.cluster.port(scene.order[1]));
    assert_eq!((&primaries[1]["object_count"], &primaries[1]["agrees"]), (&100.into(), &true.into()));
    assert_eq!((&primaries[2]["state"], &primaries[2]["object_count"]), (&"missing".into(), &Value::Null));
    assert_eq!(primaries[0]["row"]["etag"], row("", 107).etag);
    assert_eq!(location["handoffs"][0]["state"], "missing");
    assert_eq!(all["object_location"]["partition"], Value::Null, "there is no object ring");
}

#[test]
fn one_that_is_behind_is_found_out() {
    let scene = Scene::new().serving();
    for place in [0, 2] {
        let mut broker = scene.cluster.open(scene.order[place], &scene.container);
        broker.merge_rows(rows("dog", 200..1404), None).expect("merged");
    }
    scene
        .cluster
        .open(scene.order[2], &scene.container)
        .merge_metadata(&metadata("X-Dog", "y", 1))
        .expect("set");
    let said = scene.locate(&[]).exits(1);
    // No two are the same; the last has as many rows as the first and comes after it.
    let said = said.prints("no two of 3 primaries agree; primary 2: behind, primary 3: differs\n");
    assert_eq!(scene.line(&said, "2").last().map(String::as_str), Some("behind"));
    said.prints("\n   2  about 1,204 rows behind, 1,204 objects fewer\n")
        .prints("\n   3  other metadata: X-Dog\n");
}

#[test]
fn whoever_cannot_be_asked_has_a_word_for_it() {
    let scene = Scene::new().serving();
    let [_, second, third, handoff] = scene.order[..] else { panic!("four of them") };
    // Missing beside its directory; then no drive; then no agent; then one that does not answer.
    fs::remove_file(scene.file(1)).expect("it was there");
    let said = scene.locate(&[]).exits(1).prints("2 of 3 primaries agree; primary 2: missing\n");
    assert_eq!(scene.line(&said, "2")[2..], ["missing"]);

    fs::rename(scene.cluster.device(second), scene.cluster.device(second).with_extension("off"))
        .expect("away");
    scene
        .locate(&[])
        .exits(1)
        .prints("; primary 2: unmounted\n")
        .prints("\n   2  its drive is not mounted\n");

    scene.cluster.end(third, Signal::SIGTERM);
    scene
        .locate(&[])
        .exits(1)
        .prints("1 of 3 primaries has it; primary 2: unmounted, primary 3: no agent\n")
        .prints("\n   3  its agent cannot be reached: Connection refused");

    scene.cluster.signal(second, Signal::SIGSTOP);
    scene.cluster.signal(handoff, Signal::SIGSTOP);
    let begun = Instant::now();
    let said = scene.locate(&[]);
    let took = begun.elapsed();
    scene.cluster.signal(second, Signal::SIGCONT);
    scene.cluster.signal(handoff, Signal::SIGCONT);
    let said = said
        .exits(1)
        .prints("; primary 2: silent, primary 3: no agent\n")
        .prints("was silent or stuck for 1.0 s\n");
    assert_eq!(scene.line(&said, "h1")[2..], ["silent"]);
    assert!(took < Duration::from_secs(8), "all are asked at once: {took:?}");
}

#[test]
fn our_own_drive_needs_no_agent() {
    let scene = Scene::new();
    scene.locate(&[]).exits(1).prints("1 of 3 primaries has it; primary 2: no agent, primary 3: no agent\n");
    let own = scene.cluster.device(scene.order[0]);
    fs::rename(&own, own.with_extension("off")).expect("away");
    scene
        .locate(&[])
        .exits(1)
        .prints("; primary 1: unmounted, primary 2: no agent, primary 3: no agent\n")
        .prints("is not a directory\n");
}

#[test]
fn damage_is_seen_and_nothing_moved_away() {
    let scene = Scene::new().serving();
    for place in [0, 1] {
        fs::write(scene.file(place), "no database ".repeat(1000)).expect("written");
    }
    let said = scene
        .locate(&[])
        .exits(1)
        .prints("1 of 3 primaries has it; primary 1: damaged, primary 2: damaged\n");
    said.prints("it is no SQLite database; a pass would quarantine it")
        .prints("\n   2  its database is damaged; the next pass heals it\n");
    for place in [0, 1] {
        assert!(scene.file(place).exists(), "a look moves nothing");
    }
}

#[test]
fn a_copy_on_a_handoff_is_still_to_be_moved() {
    let scene = Scene::new().serving();
    let [first, .., handoff] = scene.order[..] else { panic!("four of them") };
    let home = scene.cluster.home(handoff, &scene.container);
    copy_database(&scene.cluster.home(first, &scene.container), &home);
    let said = scene.locate(&[]).exits(0);
    let said = said.prints("\nall 3 primaries agree; the copy on handoff h1 is still to be moved\n");
    let line = scene.line(&said, "h1");
    assert_eq!(line[line.len() - 2..], ["to", "move"]);
    scene.cluster.open(handoff, &scene.container).merge_rows(rows("only-here", 0..3), None).expect("merged");
    scene.locate(&[]).exits(0).prints("\n  h1  about 3 rows ahead, 3 objects more\n");
}

#[test]
fn a_deleted_container_says_so() {
    let scene = Scene::named("gone").serving();
    for place in 0..3 {
        let mut broker = scene.cluster.open(scene.order[place], &scene.container);
        let stones = (0..100).map(|number| tombstone(&format!("cat-{number:06}"), 1000)).collect();
        broker.merge_rows(stones, None).expect("merged");
        broker.delete_db(super::cluster::time(2000)).expect("deleted");
    }
    let said = scene.locate(&[]).exits(0).prints("\nall 3 primaries agree: it is deleted\n");
    let said = said.prints("\n  deleted   ");
    assert_eq!(scene.line(&said, "3")[2..4], ["deleted", "0"]);
}

#[test]
fn an_objects_row_is_looked_for_where_it_is_listed() {
    let scene = Scene::new().serving();
    let mut own = scene.cluster.open(scene.order[0], &scene.container);
    let pending = scene.file(0).with_extension("db.pending");
    let said = scene.locate(&["cat-000003"]).exits(0);
    let etag = row("", 103).etag;
    let said = said.prints("object      cat-000003\n").prints("where the object belongs\n");
    let said = said.prints("object.ring.gz: there is none\n");
    said.prints(&format!("  103 B  {etag}  text/plain\n")).prints("as on 1: it has the same rows\n");
    scene.locate(&["no-such"]).exits(0).prints("  not there\n");

    own.put_record(tombstone("cat-000003", 5000)).expect("appended");
    let before = fs::read(&pending).expect("it waits");
    let said = scene.locate(&["cat-000003"]).exits(0).prints("  deleted  waits in the pending file\n");
    said.prints("\n   1  1 row waits in its pending file, not in any number here\n")
        .prints("only seen on its own node\n");
    assert!(fs::read(&pending).expect("it still waits") == before, "looking takes nothing in");
}

#[test]
fn an_object_is_placed_by_the_policy_of_its_container() {
    let scene = Scene::new().serving();
    let etc = scene.cluster.swift_dir();
    for name in ["object.ring.gz", "object-1.ring.gz", "object-2.ring.gz"] {
        fs::copy(etc.join("container.ring.gz"), etc.join(name)).expect("copied");
    }
    let said = scene.locate(&["o"]).exits(0).prints("object.ring.gz\n");
    assert!(said.stdout.contains("/devices/*/objects/"), "{}", said.stdout);
    for &device in &scene.order[..3] {
        let mut broker = scene.cluster.open(device, &scene.container);
        broker.set_policy(PolicyIndex(1), super::cluster::time(9)).expect("set");
    }
    scene.locate(&["o"]).prints("where the object of policy 1 belongs\n").prints("/devices/*/objects-1/");
    scene.locate(&["o", "--policy", "2"]).prints("object-2.ring.gz\n").prints("/devices/*/objects-2/");
    scene.locate(&["--policy", "2"]).exits(2).complains("--policy is for objects");
}

#[test]
fn a_ring_alone_is_enough_to_know_the_places() {
    let scene = Scene::new().serving();
    let ring = scene.cluster.swift_dir().join("container.ring.gz").display().to_string();
    let all = format!("{ACCOUNT}/photos/o");
    let said = agent_given(&["locate", "--ring", &ring, &all]);
    // Here agents listen at no offset, which only the conf file knows.
    let said = said.exits(1).prints("object      o\n").prints("  /srv/node/*/containers/").prints("no agent");
    assert!(!said.stdout.contains("this node"), "{}", said.stdout);
    assert!(said.stdout.contains(&scene.container.hash.to_string()), "the salt is that beside the ring");
}

#[test]
fn a_new_ring_shows_who_would_have_to_take_it() {
    let scene = Scene::new().serving();
    let old = Ring::load(&scene.cluster.swift_dir().join("container.ring.gz")).expect("a ring");
    let mut devices: Vec<_> = old.devices().cloned().map(Some).collect();
    // The handoff takes the place of the first, and the second is one that its node does not know.
    let [first, second, third, handoff] = scene.order[..] else { panic!("four of them") };
    devices[second].as_mut().expect("there").name = "d9".to_owned();
    let row = |device: usize| vec![DeviceId(device as u32); 32];
    let ring =
        Ring::from_rows(old.part_shift(), devices, vec![row(handoff), row(second), row(third), row(first)]);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("new.ring.gz");
    ring.expect("a ring").save(&path, FormatVersion::V2).expect("saved");
    let said = scene.locate(&["--ring", &path.display().to_string()]).exits(1);
    let said = said
        .prints("2 of 4 primaries agree; primary 1: missing, primary 2: unknown\n")
        .prints("new.ring.gz\n");
    said.prints("\n   2  by its ring the device is not on that node\n");
}

#[test]
fn an_account_has_a_place_where_there_is_a_ring_for_it() {
    let scene = Scene::new();
    let conf = scene.cluster.conf(0).display().to_string();
    let locate =
        |arguments: &[&str]| agent_given(&[&["locate", "--config", &conf, ACCOUNT], arguments].concat());
    let said = locate(&[]).exits(2);
    assert!(said.stderr.contains("account.ring.gz: there is no such ring"), "{}", said.stderr);
    assert!(said.stdout.contains("  hash      "), "{}", said.stdout);
    let etc = scene.cluster.swift_dir();
    fs::copy(etc.join("container.ring.gz"), etc.join("account.ring.gz")).expect("copied");
    let said = locate(&["-a"]).exits(0).prints("where the account belongs\n").prints("/devices/*/accounts/");
    assert_eq!(said.stdout.matches(":").count(), 8, "two addresses of each device:\n{}", said.stdout);
    let json: Value = serde_json::from_str(&locate(&["--json"]).exits(0).stdout).expect("JSON");
    assert_eq!((&json["location"]["kind"], &json["container"]), (&"accounts".into(), &Value::Null));
    assert_eq!(json["location"]["handoffs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn names_cannot_drive_the_terminal() {
    let scene = Scene::named("two\nlines\u{1b}[2J").serving();
    let said = scene.locate(&["o\u{7}"]).exits(0).prints("container   two#012lines#033[2J\n");
    let said = said.prints("object      o#007\n");
    assert!(!said.stdout.contains(|c: char| c.is_control() && c != '\n'), "{:?}", said.stdout);
}

#[test]
fn what_cannot_be_used_is_named() {
    let scene = Scene::new();
    let conf = scene.cluster.conf(0).display().to_string();
    let etc = scene.cluster.swift_dir();
    let table: [(&[&str], &str); 7] = [
        (&["--config", "/no/such.conf", "a", "c"], "/no/such.conf"),
        (&["--config", &conf, "a", "c/d"], "\"c/d\" cannot name a container"),
        (&["--config", &conf, "a", ""], "the name of the container is empty"),
        (&["--config", &conf, "--ring", "/no/such.ring.gz", "a", "c"], "ring /no/such.ring.gz: "),
        (&["--config", &conf, "--ring", &conf, "a", "c"], "ring "),
        (&["--config", &conf, "a", "c", "o", "--policy", "x"], "'x'"),
        (&[], "<ACCOUNT>"),
    ];
    for (arguments, reason) in table {
        let said = agent_given(&[&["locate"], arguments].concat()).exits(2);
        assert!(said.stderr.contains(reason), "{arguments:?}: no {reason:?} in\n{}", said.stderr);
    }
    fs::remove_file(etc.join("container.ring.gz")).expect("it was there");
    let said = agent_given(&["locate", "--config", &conf, "a", "c"]).exits(2);
    assert!(said.stderr.contains("container.ring.gz: there is no such ring"), "{}", said.stderr);
    if Path::new("/etc/swift/swift.conf").exists() {
        return;
    }
    let alone = tempfile::tempdir().expect("a directory");
    let ring = alone.path().join("container.ring.gz").display().to_string();
    let said = agent_given(&["locate", "--ring", &ring, "a", "c"]).exits(2);
    said.complains(&format!("{}", alone.path().join("swift.conf").display()));
    assert!(is_empty(alone.path()));
}
