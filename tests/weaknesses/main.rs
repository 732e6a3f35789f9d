//! Where Swift's replicator is weak, and what we do instead: a test for each weakness that can arise here.
//!
//! | | Swift | shown here or in |
//! |---|---|---|
//! | 1 | rows that are never sent, because a point counts rows of another | [`points_that_promise_too_much_hide_no_rows`], golden `passes::far_behind_then_writes`, `whole_files` |
//! | 2 | acknowledged rows lost at the rename | [`no_row_is_lost_while_a_whole_file_is_merged`] |
//! | 3 | a journal without its database is rolled back into the next one | [`a_stray_journal_does_not_reach_the_file_that_takes_its_place`], `drive::stage` |
//! | 4 | a handoff is removed with rows that are still pending | [`a_handoff_is_not_removed_with_rows_that_came_in_meanwhile`] |
//! | 5 | a database restored from a backup stays as it is for ever | [`a_restored_database_gets_its_rows_back_and_its_new_ones_out`] |
//! | 6 | equal stamps, other rows: nobody notices | [`rows_tied_by_their_stamps_are_told_of`] |
//! | 7 | a merge is given too little time, and goes on after its sender gave up | [`a_peer_that_is_at_work_is_waited_for`] |
//! | 8 | division by zero | golden `decision` |
//! | 9 | half a file stays in `tmp` for a week; a sender restarted collides with itself | [`half_a_file_leaves_nothing_and_stands_in_nobodys_way`] |
//! | 10 | writers are locked out for the whole second copy | [`no_row_is_lost_while_a_whole_file_is_merged`], `drive::snapshot` |
//! | 11 | a peer that hangs is waited for once for every database | [`a_peer_that_hangs_is_waited_for_once`] |
//! | 12 | a directory that vanishes ends the pass; a bad drive fails every device | [`a_bad_drive_fails_itself_alone`], `scan::tests` |
//! | 13 | every database is opened and talked about in every pass | `tests/ledger` |
//! | 14 | a capped transfer counts as a failure | golden `passes::many_rows_capped` |
//! | 15 | all shard ranges, both ways, in every pass | [`equal_shard_ranges_are_not_told`] |
//! | 16 | a peer can name any file | [`hostile_names_reach_no_file`] |
//! | 17 | a database is sent to the device that holds it | golden `contact_order` |
//! | 18 | a signal interrupts anywhere | [`the_wish_to_stop_is_heard_in_the_middle_of_an_exchange`] |
//! | 19 | a database without its info row makes the replicator spin | golden `damaged::databases` (`no-info-row`) |
//! | 20 | an I/O error counts as corruption | `broker::db::tests::a_failing_disk_is_no_damage` |

#[path = "../golden/nodes.rs"]
mod nodes;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use swiftlet::arrival::Arrival;
use swiftlet::broker::{Broker, fresh_id};
use swiftlet::delta::{self, Geometry};
use swiftlet::drive::DeviceName;
use swiftlet::hash_path::{Hash, PartShift, Partition};
use swiftlet::ledger::ShortDigest;
use swiftlet::pass::{self, Observer, Scope};
use swiftlet::peer::Peer;
use swiftlet::protocol::message::{Compare, Intent, Meet, Message, Place, Refusal, Role, Shape};
use swiftlet::protocol::sender::{Action, Known, Limits, Sender};
use swiftlet::protocol::wire;
use swiftlet::replica::{Direction, PolicyIndex, Row, RowHash, RowId};
use swiftlet::ring::{Device, DeviceId, Ring};

use nodes::{Answer, Nodes, Script};

const ACCOUNT: &str = "AUTH_weak";

/// A ring of so many devices, each on a node of its own, that puts every partition on the first `replicas` of them.
fn ring(devices: u32, replicas: u32) -> Ring {
    let device = |id: u32| {
        serde_json::from_value::<Device>(serde_json::json!({
            "id": id, "region": 1, "zone": id, "ip": format!("10.0.0.{}", id + 1), "port": 6201,
            "replication_ip": "", "replication_port": 0, "device": format!("d{id}"), "weight": 100.0, "meta": "",
        }))
    };
    let all = (0..devices).map(|id| Some(device(id).expect("a device"))).collect();
    let mut rows: Vec<Vec<DeviceId>> = (0..replicas).map(|id| vec![DeviceId(id); 4]).collect();
    // A device without any partition would be no handoff: the last one has a replica of partition 3.
    rows[0][3] = DeviceId(devices - 1);
    Ring::from_rows(PartShift::new(30).expect("a shift"), all, rows).expect("a ring")
}

/// A container's name in partition 0, 1 or 2.
fn name(nodes: &Nodes, number: u32) -> String {
    let usual = |name: &String| nodes.ring.part_shift().partition(&nodes.hash(ACCOUNT, name)) != Partition(3);
    (0..).map(|salt| format!("c{number}-{salt}")).find(usual).expect("a name")
}

fn create(nodes: &Nodes, device: u32, container: &str) -> Broker {
    let home = nodes.home_of(device, ACCOUNT, container);
    let time = "1750000000.00000".parse().expect("a time");
    let id = fresh_id(&format!("d{device}"));
    Broker::create(&home, ACCOUNT, container, time, PolicyIndex(0), &id, time).expect("a database")
}

fn row(name: &str) -> Row {
    Row {
        row_id: None,
        name: name.to_owned(),
        created_at: "1750000001.00000".to_owned(),
        size: 1,
        content_type: "t/t".to_owned(),
        etag: "e".to_owned(),
        deleted: 0,
        storage_policy_index: PolicyIndex(0),
        ctype_timestamp: None,
        meta_timestamp: None,
    }
}

fn put(broker: &mut Broker, prefix: &str, count: u32) {
    let rows = (0..count).map(|number| row(&format!("{prefix}{number:05}"))).collect();
    broker.merge_rows(rows, None).expect("a merge");
}

fn names(broker: &mut Broker) -> BTreeSet<String> {
    broker.rows_after(RowId::NONE, 100_000).expect("rows").into_iter().map(|row| row.name).collect()
}

fn everybody(nodes: &mut Nodes, answer: Answer) -> Arc<Script> {
    let script = Arc::new(Script::default());
    for device in nodes.ring.devices().map(|device| device.id.0).collect::<Vec<_>>() {
        script.answers.lock().unwrap().insert(device, answer.clone());
        nodes.act(device, &script);
    }
    script
}

/// Weakness 1: Points say that all was sent both ways; the rows say otherwise. Swift believes the points.
#[test]
fn points_that_promise_too_much_hide_no_rows() {
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    for (device, prefix) in [(0, "a"), (1, "b")] {
        put(&mut create(&nodes, device, &container), prefix, 30);
    }
    let mut brokers = [0, 1].map(|device| nodes.broker(device, ACCOUNT, &container));
    let ids = brokers.each_mut().map(|broker| broker.info().unwrap().id);
    for (broker, other) in brokers.iter_mut().zip(ids.iter().rev()) {
        for direction in [Direction::Incoming, Direction::Outgoing] {
            broker.set_sync_point(other, RowId(30), direction).unwrap();
        }
    }
    drop(brokers);
    nodes.serve_all();
    for device in [0, 1] {
        assert_eq!(nodes.pass(device).failure, 0);
    }
    let [one, other] = [0, 1].map(|device| names(&mut nodes.broker(device, ACCOUNT, &container)));
    assert_eq!((one.len(), one == other), (60, true));
}

/// How a writer behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Writer {
    /// It opens the database for each row, as container servers do.
    ComesAndGoes,
    /// It keeps it open, so the file is merged in place.
    Stays,
}

/// Weaknesses 2 and 10: A writer commits a row in every pause of a merge, and will not wait for a lock. Swift renames
/// the file that it has written to, and holds a lock for as long as a copy takes.
#[test]
fn no_row_is_lost_while_a_whole_file_is_merged() {
    for writer in [Writer::ComesAndGoes, Writer::Stays] {
        let nodes = Nodes::of(&ring(2, 2), "");
        let container = name(&nodes, 0);
        put(&mut create(&nodes, 0, &container), "theirs", 3000);
        let theirs = nodes.broker(0, ACCOUNT, &container).info().unwrap();
        put(&mut create(&nodes, 1, &container), "ours", 5000);
        let home = nodes.home_of(1, ACCOUNT, &container);
        let path = home.in_charge().unwrap().unwrap();
        let staged = nodes.drive(1).stage("arriving").unwrap();
        let sent = nodes.home_of(0, ACCOUNT, &container).in_charge().unwrap().unwrap();
        fs::copy(sent, staged.path()).unwrap();

        let connect = || {
            let connection = Connection::open(&path).unwrap();
            connection.busy_timeout(Duration::ZERO).unwrap();
            prepare(&connection);
            connection
        };
        let staying = (writer == Writer::Stays).then(connect);
        let mut written = BTreeSet::new();
        let mut write = || {
            let name = format!("written{}", written.len());
            let insert = |connection: &Connection| {
                let sql = "INSERT INTO object (name, created_at, size, content_type, etag, deleted)
                    VALUES (?, '1750000002.00000', 1, 't/t', 'e', 0)";
                connection.execute(sql, [&name]).unwrap_or_else(|error| panic!("{writer:?}: {error}"));
            };
            match &staying {
                Some(connection) => insert(connection),
                None => insert(&connect()),
            }
            written.insert(name);
            true
        };
        let arrival = Arrival { dir: &home, device: "d1", sender: &theirs, max_row: theirs.max_row };
        arrival.merge(staged, &mut write).unwrap_or_else(|error| panic!("{writer:?}: {error}"));
        write();

        let mut broker = nodes.broker(1, ACCOUNT, &container);
        let found = names(&mut broker);
        assert!(written.is_subset(&found), "{writer:?}: lost {:?}", written.difference(&found));
        assert_eq!(found.len(), 8000 + written.len(), "{writer:?}");
        assert_eq!(broker.info().unwrap().count, found.len() as i64, "{writer:?}");
        assert!(written.len() > 3, "{writer:?}: the merge was over before anybody wrote");
        assert_eq!(broker.sync_point(&theirs.id, Direction::Incoming).unwrap(), theirs.max_row);
    }
}

/// Gives a connection the function that the triggers of container databases call.
fn prepare(connection: &Connection) {
    use rusqlite::functions::FunctionFlags;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let mix = |context: &rusqlite::functions::Context| {
        let [old, name, created_at]: [String; 3] = [context.get(0)?, context.get(1)?, context.get(2)?];
        let mut hash = RowHash::parse(&old).expect("a hash");
        hash.mix(&name, &created_at);
        Ok(hash.to_string())
    };
    connection.create_scalar_function("chexor", 3, flags, mix).expect("a function");
}

/// Weakness 3: The journal of a database that is gone, of a transaction that spilled: whoever opens a database of its
/// name rolls it back into that.
#[test]
fn a_stray_journal_does_not_reach_the_file_that_takes_its_place() {
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    put(&mut create(&nodes, 0, &container), "o", 500);
    drop(create(&nodes, 1, &container));
    let home = nodes.home_of(1, ACCOUNT, &container);
    let path = home.in_charge().unwrap().unwrap();
    let journal = path.with_extension("db-journal");
    let stray = {
        let connection = Connection::open(&path).unwrap();
        prepare(&connection);
        connection.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN").unwrap();
        for number in 0..2000 {
            let sql = "INSERT INTO object (name, created_at, size, content_type, etag, deleted)
                VALUES (?, '1750000002.00000', 1, 't/t', 'e', 0)";
            connection.execute(sql, [format!("lost{number}")]).unwrap();
        }
        fs::read(&journal).expect("a journal of a transaction under way")
    };
    fs::remove_file(&path).unwrap();
    fs::write(&journal, &stray).unwrap();
    // Its header is whole: it is one that SQLite would roll back.
    assert_eq!(stray[..8], [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    nodes.serve_all();
    assert_eq!(nodes.pass(0).rsync, 1);
    let mut arrived = nodes.broker(1, ACCOUNT, &container);
    assert_eq!(names(&mut arrived), names(&mut nodes.broker(0, ACCOUNT, &container)));
    let check: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

/// Weakness 4: Rows arrive in the pending file of a handoff while its peers are asked whether they hold everything.
/// Swift looks at the highest row, which they have not changed yet, and removes them with the directory.
#[test]
fn a_handoff_is_not_removed_with_rows_that_came_in_meanwhile() {
    /// When a row comes in: while the first peer is asked for the first time, or every time.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Rows {
        Once,
        Always,
    }
    for rows in [Rows::Once, Rows::Always] {
        let mut nodes = Nodes::of(&ring(3, 2), "");
        let container = name(&nodes, 0);
        put(&mut create(&nodes, 2, &container), "o", 10);
        let home = nodes.home_of(2, ACCOUNT, &container);
        let script = everybody(&mut nodes, Answer::Holds);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (seen, at) = (shown.clone(), home.clone());
        *script.meanwhile.lock().unwrap() = Some(Box::new(move |meet: &Meet| {
            let mut seen = seen.lock().unwrap();
            if rows == Rows::Always || seen.is_empty() {
                let mut broker = Broker::open(&at).expect("a handoff that is still there");
                broker.put_record(row(&format!("late{}", seen.len()))).expect("a record");
            }
            seen.push(meet.info.max_row);
        }));
        let tally = nodes.pass(2);
        let shown = shown.lock().unwrap().clone();
        match rows {
            // The peers were asked again, and shown the row, before it went.
            Rows::Once => {
                assert_eq!((tally.remove, shown), (1, [10, 10, 11, 11].map(RowId).to_vec()));
                assert!(!home.dir().exists());
            }
            // It never came to rest, so it is still there, with every row.
            Rows::Always => {
                assert_eq!(tally.remove, 0);
                let mut broker = nodes.broker(2, ACCOUNT, &container);
                broker.flush_pending().unwrap();
                assert_eq!(names(&mut broker).len(), 10 + shown.len());
            }
        }
    }
}

/// Weakness 5: An older copy of one replica comes back from a backup, with its id and lower row numbers. Swift's points
/// are too high for it: nothing comes back, and what is new does not go out.
#[test]
fn a_restored_database_gets_its_rows_back_and_its_new_ones_out() {
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    put(&mut create(&nodes, 0, &container), "old", 10);
    let path = nodes.home_of(0, ACCOUNT, &container).in_charge().unwrap().unwrap();
    let backup = fs::read(&path).unwrap();
    put(&mut nodes.broker(0, ACCOUNT, &container), "lost", 20);
    nodes.serve_all();
    for device in [0, 1, 0, 1] {
        nodes.pass(device);
    }
    for new in [1, 19, 20, 21] {
        fs::write(&path, &backup).unwrap();
        put(&mut nodes.broker(0, ACCOUNT, &container), &format!("new{new}-"), new);
        // The first pass of each finds the points out, the second brings what was held back.
        for device in [0, 1, 0, 1] {
            assert_eq!(nodes.pass(device).failure, 0);
        }
        let [one, other] = [0, 1].map(|device| names(&mut nodes.broker(device, ACCOUNT, &container)));
        assert_eq!(one, other, "{new} new rows");
        for prefix in ["old", "lost", &format!("new{new}-")] {
            assert!(one.iter().any(|name| name.starts_with(prefix)), "{new} new rows: no {prefix}");
        }
    }
    let rows = names(&mut nodes.broker(1, ACCOUNT, &container)).len();
    assert_eq!(rows, 10 + 20 + 1 + 19 + 20 + 21);
}

/// Weakness 6: Two replicas have a row of one name and one stamp, with different sizes. Nothing says who is right: each
/// keeps its own, as in Swift, where nobody ever learns of it. Here a dry run says so, and a pass logs it.
#[test]
fn rows_tied_by_their_stamps_are_told_of() {
    struct Lines(Mutex<Vec<String>>);
    impl Observer for Lines {
        fn foretell(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }
    }
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    for device in [0, 1] {
        let tied = Row { size: 100 + i64::from(device), ..row("tied") };
        create(&nodes, device, &container).merge_rows(vec![tied], None).unwrap();
    }
    nodes.serve_all();
    let tally = nodes.pass(0);
    assert_eq!((tally.no_change, tally.rows_sent, tally.failure), (1, 0, 0));
    let lines = Lines(Mutex::default());
    pass::run(nodes.node(0), &Scope::default(), true, &lines).unwrap();
    let lines = lines.0.into_inner().unwrap();
    assert!(lines.len() == 1 && lines[0].contains("nothing says who is right"), "{lines:?}");
    for device in [0, 1] {
        let bytes = nodes.broker(device, ACCOUNT, &container).info().unwrap().bytes_used;
        assert_eq!(bytes, 100 + i64::from(device));
    }
}

/// Weakness 7: A peer needs longer than `node_timeout`, and says that it is at it. Swift allows what it thinks a merge
/// takes, then gives up on a peer that goes on.
#[test]
fn a_peer_that_is_at_work_is_waited_for() {
    let mut nodes = Nodes::of(&ring(2, 2), "node_timeout = 0.5");
    drop(create(&nodes, 0, &name(&nodes, 0)));
    everybody(&mut nodes, Answer::Works(Duration::from_secs(2)));
    let tally = nodes.pass(0);
    assert_eq!((tally.success, tally.failure), (1, 0));
}

/// Weakness 9: A sender dies in the middle of a file, and starts over. Nothing of the first attempt is left, nor in the
/// way.
#[test]
fn half_a_file_leaves_nothing_and_stands_in_nobodys_way() {
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    put(&mut create(&nodes, 0, &container), "o", 20_000);
    nodes.serve_all();
    let path = nodes.home_of(0, ACCOUNT, &container).in_charge().unwrap().unwrap();
    let (bytes, info) = (fs::read(&path).unwrap(), nodes.broker(0, ACCOUNT, &container).info().unwrap());
    let geometry = Geometry::new(bytes.len() as u64, info.page_bytes, delta::USUAL_WINDOW_BYTES).unwrap();
    assert!(geometry.window_count() > 1);
    let mut peer = nodes.call(1);
    let place = place(&nodes, 1, &container);
    peer.say(&Message::Meet(Box::new(Meet {
        place,
        info,
        intent: Intent::Agree,
        role: Role::Primary,
        asker: None,
        agreed: None,
    })))
    .unwrap();
    assert_eq!(peer.hear().unwrap(), Message::Missing);
    let (file_bytes, page_bytes) = (geometry.file_bytes(), geometry.page_bytes());
    let shape = Shape { file_bytes, page_bytes, window_bytes: delta::USUAL_WINDOW_BYTES };
    peer.say(&Message::Offer { shape, epoch: None }).unwrap();
    assert_eq!(peer.hear().unwrap(), Message::Accept(None));
    let first = geometry.window(0).unwrap();
    peer.say(&Message::Literal(delta::compress_literals(&bytes[..first.bytes()]))).unwrap();
    let tmp = nodes.drive(1).tmp();
    let staged = || fs::read_dir(&tmp).map_or(0, Iterator::count);
    assert_eq!(staged(), 1);
    // The second attempt does not even wait for the end of the first.
    assert_eq!(nodes.pass(0).rsync, 1);
    drop(peer);
    let patience = Instant::now() + Duration::from_secs(10);
    while staged() > 0 && Instant::now() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(staged(), 0);
    assert_eq!(names(&mut nodes.broker(1, ACCOUNT, &container)).len(), 20_000);
}

/// Weakness 11: A peer takes connections and says nothing. Swift waits for it as often as there are databases.
#[test]
fn a_peer_that_hangs_is_waited_for_once() {
    let mut nodes = Nodes::of(&ring(2, 2), "node_timeout = 1\nconcurrency = 1");
    for number in 0..8 {
        drop(create(&nodes, 0, &name(&nodes, number)));
    }
    let script = everybody(&mut nodes, Answer::Hangs);
    let begun = Instant::now();
    let tally = nodes.pass(0);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!((tally.attempted, tally.failure), (8, 8));
    assert_eq!(script.asked.lock().unwrap().len(), 1);
}

/// Weakness 12: The drive of a node is gone. That is one failure, of that device, and the other's work goes on.
#[test]
fn a_bad_drive_fails_itself_alone() {
    let mut nodes = Nodes::of(&ring(3, 2), "");
    drop(create(&nodes, 0, &name(&nodes, 0)));
    everybody(&mut nodes, Answer::Holds);
    fs::remove_dir(nodes.root(1)).unwrap();
    let tally = nodes.pass(1);
    assert_eq!((tally.attempted, tally.failure), (0, 1));
    let failed: Vec<_> = tally.failure_nodes.values().flat_map(|devices| devices.keys()).collect();
    assert_eq!(failed, ["d1"]);
    assert_eq!(nodes.pass(0).success, 1);
}

/// Weakness 15: Ranges that both have are not told: their digest goes with the introduction.
#[test]
fn equal_shard_ranges_are_not_told() {
    let nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    let info = create(&nodes, 0, &container).info().unwrap();
    let mine = swiftlet::replica::ReplicaInfo { shard_max_row: RowId(5), ranges_digest: [7; 16], ..info };
    let tells = |digest: [u8; 16]| {
        let place = place(&nodes, 1, &container);
        let meet = Meet {
            place,
            info: mine.clone(),
            intent: Intent::Agree,
            role: Role::Primary,
            asker: None,
            agreed: None,
        };
        let (sender, _) = Sender::start(meet, Known::default(), Limits { max_batches: 1 });
        let theirs = swiftlet::replica::ReplicaInfo { ranges_digest: digest, ..mine.clone() };
        let heard = sender.hear(Message::Here { info: Box::new(theirs), point: RowId::NONE, agreed: None });
        heard.unwrap().1.contains(&Action::TellRanges)
    };
    assert!(!tells([7; 16]));
    assert!(tells([8; 16]));
}

fn place(nodes: &Nodes, device: u32, container: &str) -> Place {
    let hash = nodes.hash(ACCOUNT, container);
    let partition = nodes.ring.part_shift().partition(&hash);
    Place { device: DeviceName::new(format!("d{device}")).unwrap(), partition, hash }
}

/// Weakness 16: Whatever a peer names is checked against our ring and the container's own name; a name that could leave
/// its directory is not even parsed. Swift joins what it hears to a path.
#[test]
fn hostile_names_reach_no_file() {
    let mut nodes = Nodes::of(&ring(2, 2), "");
    let container = name(&nodes, 0);
    let info = create(&nodes, 0, &container).info().unwrap();
    nodes.serve_all();
    let right = place(&nodes, 1, &container);
    let before = files(&nodes);
    let other = |hash: Hash| {
        let mut hash = hash;
        hash.0[15] ^= 1;
        hash
    };
    let lies = [
        Place { device: DeviceName::new("d9").unwrap(), ..right.clone() },
        // A device of the ring, but of another node.
        Place { device: DeviceName::new("d0").unwrap(), ..right.clone() },
        Place { partition: Partition(right.partition.0 ^ 1), ..right.clone() },
        Place { hash: other(right.hash), ..right.clone() },
    ];
    let mut peer = nodes.call(1);
    for place in lies {
        let meet = Meet {
            place: place.clone(),
            info: info.clone(),
            intent: Intent::Agree,
            role: Role::Primary,
            asker: None,
            agreed: None,
        };
        peer.say(&Message::Meet(Box::new(meet))).unwrap();
        let answer = peer.hear().unwrap();
        assert!(matches!(answer, Message::Refused(_)), "{place:?}: {answer:?}");
        let unknown = place.device.as_str() != "d1";
        assert_eq!(answer == Message::Refused(Refusal::UnknownDevice), unknown, "{place:?}");
    }
    // Whoever compares whole devices is judged likewise, and learns no more than sums.
    let (asker, part_shift, sum) = (DeviceId(0), nodes.ring.part_shift(), ShortDigest::EMPTY);
    let other_shift = PartShift::new(part_shift.bits() - 1).unwrap();
    for (device, part_shift, refusal) in [
        ("d9", part_shift, Refusal::UnknownDevice),
        ("d0", part_shift, Refusal::UnknownDevice),
        ("d1", other_shift, Refusal::WrongPartition),
    ] {
        let device = DeviceName::new(device).unwrap();
        peer.say(&Message::Compare(Compare { device, asker, part_shift, sum })).unwrap();
        assert_eq!(peer.hear().unwrap(), Message::Refused(refusal));
    }
    // What our own types cannot hold, in the bytes of a message that is otherwise right.
    let meet = Meet {
        place: right,
        info: info.clone(),
        intent: Intent::Agree,
        role: Role::Primary,
        asker: None,
        agreed: None,
    };
    let frame = wire::encode(&Message::Meet(Box::new(meet)));
    let id = info.id.as_str();
    let hostile = [("d1", "..".to_owned()), ("d1", "/x".to_owned()), ("d1", "d\0".to_owned())];
    let ids = ["/", "\0"].map(|bad| (id, format!("{bad}{}", &id[1..])));
    for (name, hostile) in hostile.into_iter().chain(ids) {
        let mut peer = nodes.call(1);
        send(&mut peer, &replaced(&frame, name, &hostile));
        assert!(peer.hear().is_err(), "{hostile:?} was answered");
    }
    assert_eq!(files(&nodes), before);
}

fn replaced(frame: &[u8], name: &str, hostile: &str) -> Vec<u8> {
    assert_eq!(name.len(), hostile.len());
    let at = frame.windows(name.len()).position(|bytes| bytes == name.as_bytes()).expect("the name");
    let mut frame = frame.to_vec();
    frame[at..at + name.len()].copy_from_slice(hostile.as_bytes());
    frame
}

fn send(peer: &mut Peer<TcpStream>, bytes: &[u8]) {
    use std::io::Write;
    peer.stream().try_clone().unwrap().write_all(bytes).unwrap();
}

/// Everything below the nodes' directories.
fn files(nodes: &Nodes) -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            }
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    let mut found = BTreeSet::new();
    walk(nodes.root(0).parent().unwrap().parent().unwrap(), &mut found);
    found
}

/// Weakness 18: A signal is a wish: a pass that waits for a peer ends within moments, whatever `node_timeout` says, and
/// what was under way is not half done.
#[test]
fn the_wish_to_stop_is_heard_in_the_middle_of_an_exchange() {
    let mut nodes = Nodes::of(&ring(2, 2), "node_timeout = 60");
    let container = name(&nodes, 0);
    put(&mut create(&nodes, 0, &container), "o", 10);
    everybody(&mut nodes, Answer::Hangs);
    let (stop, begun) = (nodes.stop(), Instant::now());
    let signal = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        stop.wish();
    });
    let tally = nodes.pass(0);
    signal.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((tally.success, tally.remove), (0, 0));
    assert_eq!(names(&mut nodes.broker(0, ACCOUNT, &container)).len(), 10);
}
