//! The link is cut after each message in turn; one clean exchange afterwards still converges, and no row is lost.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use swiftlet::broker::Broker;
use swiftlet::protocol::message::Intent;
use swiftlet::protocol::sender::Outcome;

use super::{Side, World, check_points, exchange_through};

/// Carries whole frames between two sockets, and cuts both when so many have passed. `watch` is told before each how
/// many there were.
fn carry(near: UnixStream, far: UnixStream, cut_after: Option<usize>, watch: &(dyn Fn(usize) + Sync)) {
    let passed = Mutex::new(0);
    let one_way = |mut from: &UnixStream, mut to: &UnixStream| {
        let mut move_on = || -> std::io::Result<()> {
            let mut greeting = [0; 8];
            from.read_exact(&mut greeting)?;
            to.write_all(&greeting)?;
            loop {
                let mut head = [0; 4];
                from.read_exact(&mut head)?;
                let mut frame = head.to_vec();
                frame.resize(4 + u32::from_be_bytes(head) as usize, 0);
                from.read_exact(&mut frame[4..])?;
                let mut passed = passed.lock().expect("nobody panics with it");
                if cut_after == Some(*passed) {
                    return Err(std::io::ErrorKind::ConnectionAborted.into());
                }
                watch(*passed);
                *passed += 1;
                to.write_all(&frame)?;
            }
        };
        // One side left, or the cut came: both go down.
        let _ = move_on();
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(&near, &far));
        one_way(&far, &near);
    });
}

type Rows = BTreeMap<String, (String, i64, i64)>;

/// Of two versions of a row the later one.
fn union(one: Rows, other: Rows) -> Rows {
    let mut union = one;
    for (name, row) in other {
        match union.get_mut(&name) {
            Some(known) if *known >= row => {}
            Some(known) => *known = row,
            None => drop(union.insert(name, row)),
        }
    }
    union
}

fn holds(rows: &Rows, before: &Rows) -> bool {
    before.iter().all(|(name, row)| rows.get(name).is_some_and(|now| now >= row))
}

fn clean(from: &Side, to: &Side, intent: Intent) -> Outcome {
    let (exchanged, answered) =
        exchange_through(from, to, intent, |near, far| carry(near, far, None, &|_| {}));
    answered.expect("the answering side is content");
    exchanged.expect("an exchange").outcome
}

/// Cuts the exchange from A to B after each of its messages.
fn cut_everywhere(per_diff: u32, prepare: impl FnOnce(&World), intent: Intent, ends: Outcome) {
    cut_while(0, per_diff, prepare, intent, ends, &|_, _| {});
}

/// The same, while something happens to the two before a message passes, and first after so many messages: after
/// [`NEVER`] it is not cut at all.
fn cut_while(
    first_cut: usize,
    per_diff: u32,
    prepare: impl FnOnce(&World),
    intent: Intent,
    ends: Outcome,
    happens: &(dyn Fn(&World, usize) + Sync),
) {
    let world = World::new(10, per_diff);
    prepare(&world);
    world.save();
    let (a, b) = (&world.a, &world.b);
    let before_a = a.rows().expect("A has a database");
    let before_b = b.rows();
    for cut_after in first_cut.. {
        assert!(cut_after <= NEVER, "no end");
        world.restore();
        // As a database that nobody wrote to of late: the copy that was restored is as young as can be.
        a.rest();
        let watch = |passed| happens(&world, passed);
        let (exchanged, _) =
            exchange_through(a, b, intent, |near, far| carry(near, far, Some(cut_after), &watch));
        let wanted = union(a.rows().expect("A keeps its database"), before_b.clone().unwrap_or_default());
        let when = format!("cut after {cut_after}");
        assert!(holds(&a.rows().expect("A keeps its database"), &before_a), "{when}: A lost rows");
        if let Some(before) = &before_b {
            assert!(holds(&b.rows().expect("B keeps its database"), before), "{when}: B lost rows");
        }
        assert_eq!(a.leftovers(), Vec::<String>::new(), "{when}");
        assert_eq!(b.leftovers(), Vec::<String>::new(), "{when}");
        check_points(a, b);
        let delivered = exchanged.as_ref().is_ok_and(|exchanged| exchanged.outcome.delivered());
        if delivered {
            assert!(holds(&b.rows().expect("B has it"), &before_a), "{when}: not delivered after all");
        }
        clean(a, b, intent);
        clean(b, a, Intent::Agree);
        for side in [a, b] {
            let rows = side.rows().expect("a database");
            assert!(
                rows == wanted,
                "{when}: {} has {} rows of {}",
                side.place.device,
                rows.len(),
                wanted.len()
            );
            assert_eq!(side.leftovers(), Vec::<String>::new(), "{when}");
        }
        let info = |side: &Side| Broker::open(&side.dir).and_then(|mut broker| broker.info()).expect("info");
        assert!(info(a).agrees_with(&info(b)), "{when}: {:?} {:?}", info(a), info(b));
        check_points(a, b);
        if let Ok(exchanged) = exchanged {
            assert_eq!(exchanged.outcome, ends, "uncut");
            break;
        }
    }
}

#[test]
fn nobody_has_it() {
    cut_everywhere(1000, |world| world.a.fill(0..9000, 1), Intent::Agree, Outcome::Created);
}

#[test]
fn rows_are_missing() {
    let prepare = |world: &World| {
        world.a.fill(0..140, 1);
        world.b.fill(0..20, 1);
    };
    cut_everywhere(25, prepare, Intent::Agree, Outcome::Rows { capped: false });
}

#[test]
fn both_have_rows_that_the_other_lacks() {
    let prepare = |world: &World| {
        world.a.fill(0..120, 1);
        world.b.fill(60..180, 500);
    };
    cut_everywhere(25, prepare, Intent::Agree, Outcome::Rows { capped: false });
}

#[test]
fn a_handoff_leaves() {
    let prepare = |world: &World| {
        world.a.fill(50..150, 1);
        world.b.fill(0..100, 1);
    };
    cut_everywhere(25, prepare, Intent::Leave, Outcome::Rows { capped: false });
}

#[test]
fn a_file_that_is_much_the_same() {
    let prepare = |world: &World| {
        world.a.fill(0..9000, 1);
        world.b.copy_of(&world.a);
        world.a.age();
        world.a.fill(9000..9400, 1);
        world.b.fill(9300..9600, 77);
    };
    cut_everywhere(1000, prepare, Intent::Agree, Outcome::Patched);
}

#[test]
fn a_file_that_is_quite_another() {
    let prepare = |world: &World| {
        world.a.fill(0..9000, 1);
        world.a.age();
        world.b.fill(8500..8600, 1);
        world.b.fill(8600..14_000, 99);
    };
    cut_everywhere(1000, prepare, Intent::Agree, Outcome::Merged);
}

/// Rows, or all pages, change in a database that rested when it was offered, while its windows are on their way.
#[test]
fn a_database_that_is_written_to_while_it_is_sent() {
    for change in CHANGES {
        let prepare = |world: &World| {
            world.a.fill(0..10_000, 1);
            spare_pages(&world.a);
            world.a.fill(10_000..20_000, 1);
        };
        let happens = |world: &World, passed: usize| {
            if passed == AFTER_TWO_WINDOWS {
                change(world);
            }
        };
        cut_while(0, 1000, prepare, Intent::Agree, Outcome::Created, &happens);
    }
}

/// The same while only what the peer lacks is on its way, at whatever moment.
#[test]
fn a_database_that_is_written_to_while_a_delta_of_it_is_sent() {
    for change in CHANGES {
        for moment in 4..20 {
            let prepare = |world: &World| {
                world.a.fill(0..9000, 1);
                spare_pages(&world.a);
                world.b.copy_of(&world.a);
                world.a.age();
                world.a.fill(9000..9400, 1);
                world.b.fill(9300..9600, 77);
            };
            let happens = |world: &World, passed: usize| {
                if passed == moment {
                    change(world);
                }
            };
            cut_while(NEVER, 1000, prepare, Intent::Agree, Outcome::Patched, &happens);
        }
    }
}

const CHANGES: [fn(&World); 3] = [
    |world| world.a.fill(20_000..20_001, 5),
    |world| world.a.fill(20_000..26_000, 5),
    // All pages, in another place, and fewer of them.
    |world| super::sqlite(&world.a.path()).execute_batch("VACUUM").expect("shorter"),
];

fn spare_pages(side: &Side) {
    let sql = "CREATE TABLE junk (b); INSERT INTO junk VALUES (zeroblob(900000)); DROP TABLE junk";
    super::sqlite(&side.path()).execute_batch(sql).expect("longer");
}

/// More messages than any exchange here has.
const NEVER: usize = 500;
/// An introduction, an offer and their answers, and two windows.
const AFTER_TWO_WINDOWS: usize = 6;
