//! Memory is short, or a peer pauses: whoever waits holds nothing that others need, and nobody waits for ever.

use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use swiftlet::broker::Broker;
use swiftlet::budget::Budget;
use swiftlet::drive::LONG_REST;
use swiftlet::incoming;
use swiftlet::peer::Peer;
use swiftlet::protocol::message::{Intent, Meet, Message, Role};
use swiftlet::protocol::sender::Outcome;
use swiftlet::protocol::wire;
use swiftlet::replica::{ReplicaId, ReplicaInfo, Row, RowHash, RowId};
use swiftlet::stop::Stop;

use super::{Side, World, call, object};

const NODE_TIMEOUT_SECS: u32 = 3;
/// Longer than an answering agent keeps a database open for nobody.
const PAUSE: Duration = Duration::from_millis(200);
const ROWS_EACH: u32 = 2000;
const LITTLE_BYTES: u64 = 3 << 20;

/// A world whose second node has a few rows, and so many bytes to answer with.
fn world(answering_bytes: u64) -> World {
    let mut world = World::new(NODE_TIMEOUT_SECS, 1000);
    world.b.fill(0..10, 1);
    world.b.node.answering = Budget::new(answering_bytes);
    world
}

/// A conversation with the second node, which must end well.
fn converse<T>(world: &World, script: impl FnOnce(&mut Peer<UnixStream>) -> T) -> T {
    let (near, far) = UnixStream::pair().expect("sockets");
    let timeout = world.b.node.config.node_timeout;
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let mut peer = Peer::greet(far, timeout, &world.b.node.stop)?;
            incoming::serve(&mut peer, &world.b.node)
        });
        let mut peer = Peer::greet(near, timeout, &Stop::default()).expect("a greeting");
        let said = script(&mut peer);
        drop(peer);
        served.join().expect("no panic").expect("a quiet end");
        said
    })
}

/// What is said that is more than a sign of life.
fn answer(peer: &mut Peer<UnixStream>) -> Message {
    loop {
        match peer.hear().expect("an answer") {
            Message::Working => {}
            message => return message,
        }
    }
}

/// The caller of a number has rows that no other has.
fn own_rows(number: u32) -> Vec<Row> {
    let rows = number * ROWS_EACH..(number + 1) * ROWS_EACH;
    let numbered = |(at, row): (usize, u32)| Row { row_id: Some(RowId(at as i64 + 1)), ..object(row, 5) };
    rows.enumerate().map(numbered).collect()
}

fn meet(world: &World, number: u32) -> Message {
    let info = Broker::open(&world.b.dir).and_then(|mut broker| broker.info()).expect("info");
    let info = ReplicaInfo {
        id: ReplicaId::new(format!("caller {number}")).expect("an id"),
        hash: RowHash([number as u8 + 1; 16]),
        max_row: RowId(i64::from(ROWS_EACH)),
        ..info
    };
    let (place, intent, role) = (world.b.place.clone(), Intent::Agree, Role::Primary);
    Message::Meet(Box::new(Meet { place, info, intent, role, asker: None, agreed: None }))
}

fn met(world: &World, peer: &mut Peer<UnixStream>, number: u32) {
    peer.say(&meet(world, number)).expect("said");
    let heard = answer(peer);
    assert!(matches!(heard, Message::Here { .. }), "{heard:?}");
}

/// Sends all own rows, with a pause before each message.
fn send_rows(peer: &mut Peer<UnixStream>, number: u32, pause: Duration) {
    let rows = own_rows(number);
    let (one, other) = rows.split_at(rows.len() / 2);
    for batch in [one, other] {
        thread::sleep(pause);
        let through = batch.last().and_then(|row| row.row_id).expect("rows with numbers");
        peer.say(&Message::Rows { rows: batch.to_vec() }).expect("said");
        assert_eq!(answer(peer), Message::Took { through });
    }
    thread::sleep(pause);
    let through = RowId(i64::from(ROWS_EACH));
    peer.say(&Message::RowsDone { through, restart: false, points: vec![] }).expect("said");
    let heard = answer(peer);
    assert!(matches!(heard, Message::Settled(_)), "{heard:?}");
}

fn all_there(world: &World, callers: u32) {
    let there = world.b.rows().expect("a database");
    for row in (0..callers).flat_map(own_rows) {
        assert!(there.contains_key(&row.name), "{} is missing", row.name);
    }
    let info = Broker::open(&world.b.dir).and_then(|mut broker| broker.info()).expect("info");
    assert_eq!(info.count, there.values().filter(|(_, _, deleted)| *deleted == 0).count() as i64);
}

#[test]
fn a_peer_that_pauses_finds_its_database_again() {
    let world = world(LITTLE_BYTES);
    converse(&world, |peer| {
        met(&world, peer, 1);
        send_rows(peer, 1, PAUSE);
        // And another exchange on the same connection.
        met(&world, peer, 2);
    });
    assert_eq!(world.b.node.answering.left(), LITTLE_BYTES);
}

#[test]
fn peers_that_say_nothing_hold_no_memory() {
    const PEERS: u32 = 8;
    let world = world(LITTLE_BYTES);
    let silent = Barrier::new(PEERS as usize + 1);
    thread::scope(|scope| {
        for number in 0..PEERS {
            let (world, silent) = (&world, &silent);
            scope.spawn(move || {
                converse(world, |peer| {
                    met(world, peer, number);
                    silent.wait();
                    silent.wait();
                });
            });
        }
        silent.wait();
        thread::sleep(PAUSE);
        let left = world.b.node.answering.left();
        silent.wait();
        assert_eq!(left, LITTLE_BYTES);
    });
}

/// More rows at once than there is memory for by far: all are taken, one after the other where need be.
#[test]
fn a_crowd_shares_little_memory_and_nobody_is_refused() {
    const CALLERS: u32 = 12;
    let world = world(LITTLE_BYTES);
    let together = Barrier::new(CALLERS as usize);
    thread::scope(|scope| {
        for number in 0..CALLERS {
            let (world, together) = (&world, &together);
            scope.spawn(move || {
                converse(world, |peer| {
                    met(world, peer, number);
                    together.wait();
                    send_rows(peer, number, Duration::ZERO);
                });
            });
        }
    });
    all_there(&world, CALLERS);
    assert_eq!(world.b.node.answering.left(), LITTLE_BYTES);
}

/// No commit takes as little as a drive is asked for here, so that it always counts as pressed.
fn press(side: &mut Side) {
    side.node.config.agent.drive_latency = Some(Duration::from_nanos(1));
    std::fs::create_dir_all(side.drive.tmp()).expect("a place for commits that are timed");
}

#[test]
fn a_crowd_at_a_pressed_drive_takes_turns_and_nobody_is_forgotten() {
    const CALLERS: u32 = 3;
    const TIMES: u32 = 4;
    let mut world = world(LITTLE_BYTES);
    press(&mut world.b);
    within(WATCHDOG, &world, || {
        thread::scope(|scope| {
            for number in 0..CALLERS {
                let world = &world;
                scope.spawn(move || {
                    converse(world, |peer| {
                        // Until there has been work enough for commits to be timed.
                        for time in 0..TIMES {
                            met(world, peer, CALLERS * time + number);
                            send_rows(peer, CALLERS * time + number, Duration::ZERO);
                        }
                    });
                });
            }
        });
    });
    all_there(&world, CALLERS * TIMES);
    assert_eq!(world.b.node.answering.left(), LITTLE_BYTES);
    // What they found out about the drive is there for the next.
    let drive = world.b.node.drive(&world.b.place.device).expect("a drive");
    let work = Duration::from_millis(100);
    assert!(drive.rest_after(work, LONG_REST) >= work, "nobody found it pressed");
}

#[test]
fn pressed_nodes_that_call_each_other_all_get_through() {
    let mut world = world(LITTLE_BYTES);
    world.a.fill(1000..9000, 1);
    world.b.fill(14000..22000, 1);
    [&mut world.a, &mut world.b].into_iter().for_each(press);
    within(WATCHDOG, &world, || {
        thread::scope(|scope| {
            let both = [(&world.a, &world.b), (&world.b, &world.a)];
            let calls = (0..3).flat_map(|_| both);
            let calls: Vec<_> = calls.map(|(from, to)| scope.spawn(|| exchange(from, to))).collect();
            calls.into_iter().for_each(|call| {
                let outcome = call.join().expect("no panic");
                assert!(outcome.delivered(), "{outcome:?}");
            });
        });
    });
    assert_eq!(world.a.rows(), world.b.rows());
}

#[test]
fn who_waits_for_memory_is_told_so_for_as_long_as_it_takes() {
    let world = world(LITTLE_BYTES);
    let stop = Stop::default();
    let all = world.b.node.answering.take(LITTLE_BYTES, PAUSE, &stop).expect("all is free");
    converse(&world, |peer| {
        let begun = Instant::now();
        peer.say(&meet(&world, 1)).expect("said");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_secs(NODE_TIMEOUT_SECS.into()) * 2);
                drop(all);
            });
            let heard = answer(peer);
            assert!(matches!(heard, Message::Here { .. }), "{heard:?}");
        });
        assert!(begun.elapsed() > Duration::from_secs(NODE_TIMEOUT_SECS.into()), "nobody had to wait");
    });
}

/// What is announced and does not come takes memory for no longer than a peer may stay silent.
#[test]
fn a_message_is_only_read_when_there_is_memory_for_it() {
    let world = world(LITTLE_BYTES);
    let frame = wire::encode(&Message::Rows { rows: own_rows(1) });
    assert!(frame.len() > 16 << 10, "{} bytes are no large message", frame.len());
    converse(&world, |peer| {
        met(&world, peer, 1);
        let stop = Stop::default();
        // As soon as the database rests all can be had.
        let all = world.b.node.answering.take(LITTLE_BYTES, Duration::from_secs(2), &stop).expect("in time");
        peer.say(&Message::Rows { rows: own_rows(1) }).expect("said");
        thread::sleep(PAUSE);
        assert_eq!(world.b.rows().expect("a database").len(), 10, "it was merged without memory");
        drop(all);
        let through = RowId(i64::from(ROWS_EACH));
        assert_eq!(answer(peer), Message::Took { through });
        peer.say(&Message::RowsDone { through, restart: false, points: vec![] }).expect("said");
        assert!(matches!(answer(peer), Message::Settled(_)));
    });
    assert_eq!(world.b.node.answering.left(), LITTLE_BYTES);
}

/// One caller has met its peer and waits for memory of its own node; another has that, and waits for memory of the peer.
#[test]
fn two_callers_that_each_want_what_the_other_may_hold_both_get_through() {
    // An open database takes 256 KiB: there is room for three, or for one and a batch of rows.
    const ANSWERING_BYTES: u64 = 768 << 10;
    let mut world = world(ANSWERING_BYTES);
    world.a.fill(100..200, 1);
    world.a.node.calling = Budget::new(LITTLE_BYTES);
    let (calling, answering) = (&world.a.node.calling, &world.b.node.answering);
    let stop = Stop::default();
    let all = calling.take(LITTLE_BYTES, PAUSE, &stop).expect("all is free");
    within(WATCHDOG, &world, || {
        thread::scope(|scope| {
            let waits_at_home = scope.spawn(|| exchange(&world.a, &world.b));
            while answering.left() == ANSWERING_BYTES {
                thread::sleep(Duration::from_millis(1));
            }
            // It has been met, and holds what it takes to have a database open there.
            converse(&world, |peer| {
                met(&world, peer, 1);
                let batch = Message::Rows { rows: own_rows(1)[ROWS_EACH as usize / 2..].to_vec() };
                let needed = (256 << 10) + wire::encode(&batch).len() as u64 * 20;
                assert!(needed > ANSWERING_BYTES - (256 << 10), "{needed} bytes stand in nobody's way");
                send_rows(peer, 1, Duration::ZERO);
            });
            drop(all);
            let outcome = waits_at_home.join().expect("no panic");
            assert!(outcome.delivered(), "{outcome:?}");
        });
    });
    assert_eq!((calling.left(), answering.left()), (LITTLE_BYTES, ANSWERING_BYTES));
}

/// Both nodes call each other several times at once, with memory for hardly more than one transfer each way.
#[test]
fn nodes_that_call_each_other_with_little_memory_all_get_through() {
    const CALLS: usize = 4;
    for in_files in [false, true] {
        let mut world = world(LITTLE_BYTES);
        world.a.fill(1000..3000, 1);
        world.b.fill(4000..6000, 1);
        if in_files {
            [&world.a, &world.b].into_iter().for_each(Side::age);
        }
        for side in [&mut world.a, &mut world.b] {
            (side.node.calling, side.node.answering) = (Budget::new(LITTLE_BYTES), Budget::new(LITTLE_BYTES));
        }
        within(WATCHDOG, &world, || {
            thread::scope(|scope| {
                let both = [(&world.a, &world.b), (&world.b, &world.a)];
                let calls = (0..CALLS).flat_map(|_| both);
                let calls: Vec<_> = calls.map(|(from, to)| scope.spawn(|| exchange(from, to))).collect();
                for call in calls {
                    let outcome = call.join().expect("no panic");
                    let shipped = matches!(outcome, Outcome::Patched | Outcome::Merged);
                    assert!(outcome.delivered(), "{outcome:?}, as files: {shipped}");
                }
            });
        });
        assert_eq!(world.a.rows(), world.b.rows());
        for side in [&world.a, &world.b] {
            assert_eq!((side.node.calling.left(), side.node.answering.left()), (LITTLE_BYTES, LITTLE_BYTES));
        }
    }
}

fn exchange(from: &Side, to: &Side) -> Outcome {
    let (near, far) = UnixStream::pair().expect("sockets");
    let timeout = to.node.config.node_timeout;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = Peer::greet(far, timeout, &to.node.stop)?;
            incoming::serve(&mut peer, &to.node)
        });
        call(from, near, to.place.clone(), Intent::Agree).expect("it ends well").outcome
    })
}

/// Fails, and ends all that hangs, if something takes too long.
fn within<T>(limit: Duration, world: &World, work: impl FnOnce() -> T) -> T {
    let (over, done) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let in_time = done.recv_timeout(limit) != Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if !in_time {
                world.a.node.stop.wish();
                world.b.node.stop.wish();
            }
            in_time
        });
        let worked = work();
        drop(over);
        assert!(watchdog.join().expect("no panic"), "they wait for each other");
        worked
    })
}

/// What is over in a second or two.
const WATCHDOG: Duration = Duration::from_secs(60);
