//! Peers that hang, lie, or speak something else. Whatever they do, the error names it, nothing on the drives changes,
//! and the next connection is served.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swiftlet::broker::Broker;
use swiftlet::delta::{self, PageDigest};
use swiftlet::hash_path::Partition;
use swiftlet::incoming::{self, SAMPLE_PAGES};
use swiftlet::outgoing::ExchangeError;
use swiftlet::peer::{Peer, PeerError};
use swiftlet::protocol::FRAME_LIMIT;
use swiftlet::protocol::message::{Basis, Intent, Meet, Message, Refusal, Role, Settled, Shape};
use swiftlet::protocol::rows::ROWS_LIMIT;
use swiftlet::protocol::sender::Outcome;
use swiftlet::protocol::wire::{self, Greeting, Inbox};
use swiftlet::replica::{ReplicaId, ReplicaInfo, RowHash, RowId};

use super::{AGED, Side, World, call, object, picture};

/// Long enough for an honest answer on a busy machine, short enough to wait for.
const NODE_TIMEOUT_SECS: u32 = 2;
const WINDOW: u32 = 1 << 18;

/// The far end of a connection, bound by nothing.
struct Liar {
    stream: UnixStream,
    inbox: Inbox,
}

impl Liar {
    fn greeting(stream: UnixStream) -> Liar {
        let mut liar = Liar { stream, inbox: Inbox::default() };
        liar.say_bytes(&Greeting::ours().encode());
        let mut theirs = [0; 8];
        liar.stream.read_exact(&mut theirs).expect("a greeting");
        liar
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        // The other side may have hung up on us, as it should.
        let _ = self.stream.write_all(bytes);
    }

    fn say(&mut self, message: &Message) {
        self.say_bytes(&wire::encode(message));
    }

    /// `None` when the other side has left.
    fn hear(&mut self) -> Option<Message> {
        let mut piece = [0; 4096];
        loop {
            match self.inbox.next_message().expect("the honest side speaks well") {
                Some(Message::Working) => {}
                Some(message) => return Some(message),
                None => match self.stream.read(&mut piece) {
                    Ok(read) if read > 0 => self.inbox.feed(&piece[..read]),
                    _ => return None,
                },
            }
        }
    }

    fn refusal(&mut self) -> String {
        match self.hear() {
            Some(Message::Refused(refusal)) => refusal.to_string(),
            other => panic!("no refusal but {other:?}"),
        }
    }

    /// Waits until the other side has hung up, for the error is in what it returned.
    fn wait_for_the_end(&mut self) {
        while self.hear().is_some() {}
    }
}

/// The answering node, with a database of two windows and a half.
fn answering() -> World {
    let world = World::new(NODE_TIMEOUT_SECS, 1000);
    world.a.fill(0..20, 1);
    world.b.fill(0..9000, 1);
    world.b.age();
    world
}

fn info_of(side: &Side) -> ReplicaInfo {
    Broker::open(&side.dir).and_then(|mut broker| broker.info()).expect("info")
}

/// A meeting that gives the other side nothing to take over.
fn meet(world: &World) -> Meet {
    let info = ReplicaInfo {
        id: ReplicaId::new("liar").expect("an id"),
        hash: RowHash([7; 16]),
        max_row: RowId(AGED * 2),
        ..info_of(&world.b)
    };
    Meet {
        place: world.b.place.clone(),
        info,
        intent: Intent::Agree,
        role: Role::Primary,
        asker: None,
        agreed: None,
    }
}

fn shape(file_bytes: u64) -> Shape {
    Shape { file_bytes, page_bytes: 4096, window_bytes: WINDOW }
}

fn offer(file_bytes: u64) -> Message {
    Message::Offer { shape: shape(file_bytes), epoch: None }
}

fn met(liar: &mut Liar, world: &World) {
    liar.say(&Message::Meet(Box::new(meet(world))));
    assert!(matches!(liar.hear(), Some(Message::Here { .. })));
}

fn offered(liar: &mut Liar, world: &World, file_bytes: u64) {
    met(liar, world);
    liar.say(&offer(file_bytes));
    assert!(matches!(liar.hear(), Some(Message::Accept(Some(_)))));
}

/// Sends a whole file with its true digest.
fn ship(liar: &mut Liar, world: &World, file: &[u8]) {
    offered(liar, world, file.len() as u64);
    for window in file.chunks(WINDOW as usize) {
        liar.say(&Message::Literal(delta::compress_literals(window)));
    }
    liar.say(&Message::FileDone { digest: *blake3::hash(file).as_bytes(), max_row: RowId(7) });
}

/// What the answering side makes of a caller: how its serving ended, with nothing changed on its drive.
fn serve(world: &World, script: impl FnOnce(&mut Liar)) -> String {
    let before = picture(world.b.drive.root());
    let (near, far) = UnixStream::pair().expect("sockets");
    let ended = thread::scope(|scope| {
        let served = scope.spawn(|| serve_stream(world, far));
        let mut liar = Liar::greeting(near);
        script(&mut liar);
        drop(liar);
        served.join().expect("the answering side panicked")
    });
    assert!(picture(world.b.drive.root()) == before, "something changed on the drive");
    // And the next one is served.
    let (near, far) = UnixStream::pair().expect("sockets");
    thread::scope(|scope| {
        let served = scope.spawn(|| serve_stream(world, far));
        met(&mut Liar::greeting(near), world);
        served.join().expect("no panic").expect("a quiet end");
    });
    ended.err().map_or_else(|| "content".to_owned(), |error| error.to_string())
}

fn serve_stream(world: &World, stream: UnixStream) -> Result<(), PeerError> {
    let node = &world.b.node;
    let mut peer = Peer::greet(stream, node.config.node_timeout, &node.stop)?;
    incoming::serve(&mut peer, node)
}

/// A frame around a body.
fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

#[test]
fn callers_that_speak_nonsense_are_named() {
    let world = answering();
    let says = |bytes: Vec<u8>| {
        serve(&world, |liar| {
            liar.say_bytes(&bytes);
            liar.wait_for_the_end();
        })
    };
    assert!(says(0u32.to_be_bytes().to_vec()).contains("a frame of 0 bytes"));
    let over = FRAME_LIMIT as u32 + 1;
    assert!(says(over.to_be_bytes().to_vec()).contains(&format!("a frame of {over} bytes")));
    assert!(
        says(b"GET / HTTP/1.1\r\nHost: storage1\r\n\r\n".to_vec()).contains("a frame of 1195725856 bytes")
    );
    assert!(says(framed(&[200])).contains("unknown kind 200"));
    assert!(says(framed(&[1])).contains("bad device name") || says(framed(&[1])).contains("bad device"));
    let honest = wire::encode(&Message::Meet(Box::new(meet(&world))));
    assert_eq!(&honest[5..8], b"\x02d1");
    for name in ["..", "a/", "d ", "\0\0"] {
        let mut lie = honest.clone();
        lie[6..8].copy_from_slice(name.as_bytes());
        assert!(says(lie).contains("bad device name"), "{name:?}");
    }
    let mut rows: Vec<_> = (0..5).map(|number| object(number, 1)).collect();
    rows.iter_mut().zip([5, 4, 3, 2, 1]).for_each(|(row, id)| row.row_id = Some(RowId(id)));
    assert!(says(wire::encode(&Message::Rows { rows })).contains("bad batch of rows"));
}

#[test]
fn callers_that_ask_for_what_is_not_ours_are_refused() {
    let world = answering();
    let refused = |change: &dyn Fn(&mut Meet)| {
        let mut meet = meet(&world);
        change(&mut meet);
        let mut text = String::new();
        let ended = serve(&world, |liar| {
            liar.say(&Message::Meet(Box::new(meet)));
            text = liar.refusal();
            // What was said before the refusal was heard is passed over.
            liar.say(&offer(4096));
            liar.say(&Message::Literal(vec![1, 2, 3]));
        });
        assert_eq!(ended, "content");
        text
    };
    let device = |name: &str| swiftlet::drive::DeviceName::new(name).expect("a name");
    assert!(refused(&|meet| meet.place.device = device("sdz9")).contains("the device is not on that node"));
    assert!(refused(&|meet| meet.place.device = device("d0")).contains("the device is not on that node"));
    let other = |meet: &mut Meet| meet.place.partition = Partition(meet.place.partition.0 ^ 1);
    assert!(refused(&other).contains("in another partition"));
    assert!(refused(&|meet| meet.place.partition = Partition(u32::MAX)).contains("in another partition"));
    assert!(
        refused(&|meet| meet.place.hash.0[0] ^= 1).contains("the hash is not that of the container's name")
    );
    assert!(refused(&|meet| meet.info.container = "other".into()).contains("the hash is not that"));
    assert!(refused(&|meet| meet.info.account = "../..".into()).contains("the hash is not that"));
}

#[test]
fn callers_out_of_turn_are_cut_off() {
    let world = answering();
    let settled = || {
        let id = ReplicaId::new("liar").expect("an id");
        Message::Settled(Settled { id, hash: RowHash([0; 16]), max_row: RowId(1) })
    };
    let rows = || Message::RowsDone { through: RowId(1), restart: false, points: vec![] };
    let done = || Message::FileDone { digest: [0; 32], max_row: RowId(1) };
    for (said, heard) in
        [(settled(), "settled"), (rows(), "rows done"), (done(), "file done"), (offer(0), "an offer")]
    {
        let ended = serve(&world, |liar| {
            liar.say(&said);
            liar.wait_for_the_end();
        });
        assert_eq!(ended, format!("broke the protocol: expected meet, heard {heard}"));
    }
    for (said, heard) in [(settled(), "settled"), (done(), "file done"), (Message::Missing, "missing")] {
        let ended = serve(&world, |liar| {
            met(liar, &world);
            liar.say(&said);
            liar.wait_for_the_end();
        });
        assert!(ended.ends_with(&format!("heard {heard}")), "{ended}");
    }
    let ended = serve(&world, |liar| {
        met(liar, &world);
        liar.say(&Message::Rows { rows: vec![] });
        liar.wait_for_the_end();
    });
    assert!(ended.contains("a batch without rows"), "{ended}");
    const { assert!(ROWS_LIMIT < FRAME_LIMIT) };
}

#[test]
fn the_time_is_told_whatever_is_under_way_and_puts_an_end_to_it() {
    let world = answering();
    let told = |liar: &mut Liar| {
        let since = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
        let before = since();
        liar.say(&Message::AskTime);
        match liar.hear() {
            Some(Message::Time(time)) => assert!((before..=since()).contains(&time), "{time}"),
            other => panic!("no time but {other:?}"),
        }
    };
    let ended = serve(&world, |liar| {
        told(liar);
        told(liar);
        offered(liar, &world, 4096);
        told(liar);
        liar.say(&Message::Literal(vec![1, 2, 3]));
        liar.wait_for_the_end();
    });
    assert_eq!(ended, "broke the protocol: expected meet, heard a literal window");
}

#[test]
fn files_that_are_not_what_was_offered_are_not_taken() {
    let world = answering();
    let after_offer = |bytes: u64, said: &[Message]| {
        serve(&world, |liar| {
            offered(liar, &world, bytes);
            said.iter().for_each(|message| liar.say(message));
            liar.wait_for_the_end();
        })
    };
    let window = |bytes: usize| Message::Literal(delta::compress_literals(&vec![9; bytes]));
    let done = Message::FileDone { digest: [0; 32], max_row: RowId(1) };
    let two = u64::from(WINDOW) + 4096;
    assert!(after_offer(two, &[window(10)]).contains("a window of another size"));
    assert!(after_offer(two, &[window(WINDOW as usize + 1)]).contains("a window of another size"));
    assert!(after_offer(two, &[Message::Literal(vec![])]).contains("a window of another size"));
    assert!(after_offer(two, &[Message::Literal(vec![1; 99])]).contains("a window of another size"));
    assert!(after_offer(4096, &[window(4096), window(4096)]).contains("too many windows"));
    assert!(after_offer(two, std::slice::from_ref(&done)).contains("the end of an unfinished file"));
    assert!(
        after_offer(two, &[window(WINDOW as usize), done.clone()]).contains("the end of an unfinished file")
    );
    let again = |window, file_bytes, bytes: usize| Message::Again {
        window,
        file_bytes,
        bytes: delta::compress_literals(&vec![9; bytes]),
    };
    assert!(after_offer(two, &[again(0, two, WINDOW as usize)]).contains("heard a window once more"));
    let whole = [window(WINDOW as usize), window(4096)];
    let after_all = |said: Message| after_offer(two, &[&whole[..], &[said]].concat());
    assert!(after_offer(two, &[window(WINDOW as usize), again(0, two, 1)]).contains("an unfinished file"));
    assert!(after_all(again(0, two, 4096)).contains("a window of another size"));
    assert!(after_all(again(2, two, 4096)).contains("cannot come once more"));
    assert!(after_all(again(3, two + 3 * u64::from(WINDOW), 4096)).contains("a window of another size"));
    assert!(after_all(again(4, two + 3 * u64::from(WINDOW), 4096)).contains("cannot come once more"));
    assert!(after_all(again(1, 1, 1)).contains("a file of impossible shape"));
    assert!(after_all(again(0, !4095, WINDOW as usize)).contains("a file of impossible shape"));
    let twice = [&whole[..], &[again(1, two, 4096), again(1, two, 4096)]].concat();
    assert!(after_offer(two, &twice).contains("cannot come once more"));
    let missing =
        [&whole[..], &[again(1, two + 4096, 8192), again(2, two + u64::from(WINDOW) * 9, 1)]].concat();
    assert!(after_offer(two, &missing).contains("a window of another size"));
    let gap = two + u64::from(WINDOW);
    let unfinished = [&whole[..], &[again(1, gap, WINDOW as usize), done.clone()]].concat();
    assert!(after_offer(two, &unfinished).contains("the end of an unfinished file"));
    for (file_bytes, page_bytes, window_bytes) in [
        (4096, 0, WINDOW),
        (4096, 4096, 0),
        (4096, 4096, u32::MAX),
        (4097, 4096, WINDOW),
        (u64::MAX, 4096, WINDOW),
        (4096, 3, WINDOW),
    ] {
        let ended = serve(&world, |liar| {
            met(liar, &world);
            let shape = Shape { file_bytes, page_bytes, window_bytes };
            liar.say(&Message::Offer { shape, epoch: None });
            liar.wait_for_the_end();
        });
        assert!(
            ended.contains("a file of impossible shape"),
            "{file_bytes} {page_bytes} {window_bytes}: {ended}"
        );
    }
}

#[test]
fn files_that_are_no_sound_database_of_the_container_are_refused() {
    let world = answering();
    let refused = |file: &[u8]| {
        let mut text = String::new();
        let ended = serve(&world, |liar| {
            ship(liar, &world, file);
            text = liar.refusal();
        });
        assert_eq!(ended, "content");
        text
    };
    assert!(refused(&[]).contains("no sound database"));
    assert!(refused(&[0; 8192]).contains("no sound database"));
    assert!(refused(&vec![b'x'; WINDOW as usize * 2 + 4096]).contains("no sound database"));
    let sqlite = |sql: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        super::sqlite(file.path()).execute_batch(sql).expect("a database");
        std::fs::read(file.path()).expect("readable")
    };
    assert!(refused(&sqlite("CREATE TABLE other (n)")).contains("no sound database"));
    assert!(refused(&sqlite("CREATE TABLE container_stat (n)")).contains("no sound database"));
    // The database of another container.
    let other = World::new(NODE_TIMEOUT_SECS, 1000);
    other.a.fill(0..20, 1);
    let path = other.a.path();
    super::sqlite(&path).execute_batch("UPDATE container_info SET container = 'other'").expect("changed");
    assert!(
        refused(&std::fs::read(&path).expect("readable"))
            .contains("the database of AUTH_test/other, not of AUTH_test/photos")
    );
    // A wrong digest.
    let file = std::fs::read(world.b.path()).expect("readable");
    let ended = serve(&world, |liar| {
        offered(liar, &world, file.len() as u64);
        for window in file.chunks(WINDOW as usize) {
            liar.say(&Message::Literal(delta::compress_literals(window)));
        }
        liar.say(&Message::FileDone { digest: [1; 32], max_row: RowId(7) });
        assert!(liar.refusal().contains("arrived damaged"));
    });
    assert_eq!(ended, "content");
}

#[test]
fn a_sound_header_does_not_pass_for_a_sound_file() {
    let world = answering();
    let mut file = std::fs::read(world.b.path()).expect("readable");
    let length = file.len();
    file[length / 2..length / 2 + 300_000].fill(0x5a);
    let ended = serve(&world, |liar| {
        ship(liar, &world, &file);
        assert!(liar.refusal().contains("no sound database"));
    });
    assert_eq!(ended, "content");
}

#[test]
fn deltas_that_do_not_fit_are_cut_off() {
    let world = answering();
    let file_bytes = info_of(&world.b).file_bytes;
    assert!(file_bytes > u64::from(WINDOW), "one window is no test");
    let windows = file_bytes.div_ceil(u64::from(WINDOW)) as usize;
    let after_windows = |said: &[Message]| {
        serve(&world, |liar| {
            offered(liar, &world, file_bytes);
            liar.say(&Message::Windows(vec![[3; 16]; windows]));
            assert!(matches!(liar.hear(), Some(Message::Differs { window: 0 })));
            said.iter().for_each(|message| liar.say(message));
            liar.wait_for_the_end();
        })
    };
    let page_count = WINDOW as usize / 4096;
    let pages = |window, bytes| Message::Pages { window, digests: vec![1; bytes] };
    let patch = |window, patch: Vec<u8>| Message::Patch { window, patch };
    assert!(after_windows(&[Message::Windows(vec![[3; 16]])]).contains("too many windows"));
    for window in [windows as u32, 1 << 22, u32::MAX] {
        assert!(after_windows(&[pages(window, 5)]).contains("a window that is not being worked on"));
        assert!(after_windows(&[patch(window, vec![])]).contains("not being worked on"));
    }
    let all = page_count * delta::PageDigest::BYTES;
    for bytes in [0, 1, all - 5, all - 1, all + 1, all + 5, 100_000] {
        assert!(after_windows(&[pages(0, bytes)]).contains("page digests of another size"), "{bytes}");
    }
    assert!(after_windows(&[patch(0, vec![])]).contains("not being worked on"), "nothing was wanted");
    assert!(after_windows(&[pages(0, all), pages(0, all)]).contains("not being worked on"), "said twice");
    for garbage in [vec![], vec![0], vec![9; 5], vec![0, 0, 1, 2], vec![1, 0, 0x36, 0xff, 0xff]] {
        assert!(after_windows(&[pages(0, all), patch(0, garbage)]).contains("a patch that does not fit"));
    }
    // Pages of the window, but never those that were announced: each is asked for twice, and then the whole file.
    let ended = serve(&world, |liar| {
        offered(liar, &world, file_bytes);
        liar.say(&Message::Windows(vec![[3; 16]; windows]));
        let geometry = delta::Geometry::new(file_bytes, 4096, WINDOW).expect("sound");
        let pages_in = |window| geometry.window(window).expect("a window of the file").page_count();
        let mut wanted = 0;
        loop {
            match liar.hear().expect("it goes on") {
                Message::Differs { window } => {
                    liar.say(&pages(window, pages_in(window) * delta::PageDigest::BYTES));
                }
                Message::Want { window, pages, blocks, .. } => {
                    wanted += 1;
                    let count: u32 = pages.iter().map(|byte| byte.count_ones()).sum();
                    assert_eq!(count as usize, pages_in(window));
                    // No script; all blocks changed.
                    let bitmaps = vec![0xff; blocks.len() / 64 * 4];
                    let body = [&[0; 4], bitmaps.as_slice(), &vec![4; count as usize * 4096]].concat();
                    liar.say(&patch(window, delta::compress_literals(&body)));
                }
                Message::Working => {}
                message => break assert_eq!(message, Message::Rebuilt),
            }
        }
        assert_eq!(wanted, 2 * windows);
        liar.say(&Message::FileDone { digest: [0; 32], max_row: RowId(1) });
        assert_eq!(liar.hear(), Some(Message::Mismatch));
    });
    assert_eq!(ended, "closed the connection");
    let done = Message::FileDone { digest: [0; 32], max_row: RowId(1) };
    let unfinished = after_windows(&[done]);
    assert!(unfinished != "content", "the file was not rebuilt: {unfinished}");
    // Said to be all the same, and then not so: the whole file is asked for.
    let mut digests = Vec::new();
    let file = std::fs::read(world.b.path()).expect("readable");
    let geometry = delta::Geometry::new(file_bytes, 4096, WINDOW).expect("sound");
    for window in geometry.windows() {
        let bytes = &file[window.offset() as usize..][..window.bytes()];
        digests.push(delta::WindowDigest::of(window, bytes).0);
    }
    let ended = serve(&world, |liar| {
        offered(liar, &world, file_bytes);
        liar.say(&Message::Windows(digests));
        assert_eq!(liar.hear(), Some(Message::Rebuilt));
        liar.say(&Message::FileDone { digest: [0; 32], max_row: RowId(1) });
        assert_eq!(liar.hear(), Some(Message::Mismatch));
        liar.say(&Message::FileDone { digest: [0; 32], max_row: RowId(1) });
        liar.wait_for_the_end();
    });
    assert!(ended.contains("the end of an unfinished file"), "{ended}");
}

#[test]
fn callers_that_fall_silent_are_given_up_and_what_they_left_is_gone() {
    let world = answering();
    let begun = Instant::now();
    let ended = serve(&world, |liar| {
        offered(liar, &world, u64::from(WINDOW) * 2);
        liar.say(&Message::Literal(delta::compress_literals(&vec![9; WINDOW as usize])));
        liar.wait_for_the_end();
    });
    assert!(ended.contains("silent"), "{ended}");
    let ended = serve(&world, |liar| {
        offered(liar, &world, u64::from(WINDOW) * 2);
        liar.say_bytes(&(FRAME_LIMIT as u32).to_be_bytes());
        liar.wait_for_the_end();
    });
    assert!(ended.contains("silent"), "{ended}");
    assert!(begun.elapsed() < Duration::from_secs(u64::from(NODE_TIMEOUT_SECS) * 10));
    // Cut in the middle of a message.
    for cut in [1, 4, 5, 60] {
        let message = wire::encode(&Message::Meet(Box::new(meet(&world))));
        let ended = serve(&world, |liar| liar.say_bytes(&message[..cut]));
        assert_eq!(ended, "content", "nothing was under way");
        let ended = serve(&world, |liar| {
            offered(liar, &world, u64::from(WINDOW) * 2);
            liar.say_bytes(&message[..cut]);
        });
        assert_eq!(ended, "closed the connection");
    }
}

#[test]
fn a_caller_that_pauses_between_two_messages_is_told_that_it_came_too_late() {
    let world = answering();
    let ended = serve(&world, |liar| {
        met(liar, &world);
        thread::sleep(Duration::from_secs(u64::from(NODE_TIMEOUT_SECS) + 1));
        liar.say(&offer(4096));
        assert_eq!(liar.hear(), Some(Message::Refused(Refusal::Busy)));
        met(liar, &world);
    });
    assert_eq!(ended, "content");
}

#[test]
fn a_damaged_file_takes_no_empty_place_either() {
    let world = answering();
    let mut file = std::fs::read(world.b.path()).expect("readable");
    let length = file.len();
    file[length / 2..length / 2 + 300_000].fill(0x5a);
    std::fs::remove_dir_all(world.b.dir.dir()).expect("removed");
    let (near, far) = UnixStream::pair().expect("sockets");
    thread::scope(|scope| {
        let served = scope.spawn(|| serve_stream(&world, far));
        let mut liar = Liar::greeting(near);
        let info = info_of(&world.a);
        liar.say(&Message::Meet(Box::new(Meet {
            place: world.b.place.clone(),
            info,
            intent: Intent::Agree,
            role: Role::Primary,
            asker: None,
            agreed: None,
        })));
        assert_eq!(liar.hear(), Some(Message::Missing));
        liar.say(&offer(file.len() as u64));
        assert_eq!(liar.hear(), Some(Message::Accept(None)));
        for window in file.chunks(WINDOW as usize) {
            liar.say(&Message::Literal(delta::compress_literals(window)));
        }
        liar.say(&Message::FileDone { digest: *blake3::hash(&file).as_bytes(), max_row: RowId(7) });
        assert!(liar.refusal().contains("no sound database"));
        drop(liar);
        served.join().expect("no panic").expect("a quiet end");
    });
    assert_eq!(world.b.rows(), None);
    assert_eq!(world.b.leftovers(), Vec::<String>::new());
}

#[test]
fn a_locked_database_keeps_its_peer_waiting_and_no_longer() {
    let world = answering();
    let lock = super::sqlite(&world.b.path());
    lock.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let (near, far) = UnixStream::pair().expect("sockets");
    thread::scope(|scope| {
        scope.spawn(|| serve_stream(&world, far));
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(u64::from(NODE_TIMEOUT_SECS) * 1500));
            drop(lock);
        });
        let called = call(&world.a, near, world.b.place.clone(), Intent::Agree);
        assert_eq!(called.expect("an answer").outcome, Outcome::Rows { capped: false });
    });
}

/// The calling node, with a database whose file is cheaper to send than its rows, or is not.
fn calling(aged: bool) -> World {
    let world = World::new(NODE_TIMEOUT_SECS, 1000);
    world.a.fill(0..9000, 1);
    if aged {
        world.a.age();
    }
    world
}

/// What the calling side makes of whoever answers, with nothing left on its drive.
fn call_liar(world: &World, script: impl FnOnce(&mut Liar) + Send) -> Result<Outcome, String> {
    let before = world.a.rows();
    let (near, far) = UnixStream::pair().expect("sockets");
    let called = thread::scope(|scope| {
        scope.spawn(move || {
            let mut liar = Liar::greeting(far);
            script(&mut liar);
            liar.wait_for_the_end();
        });
        call(&world.a, near, world.b.place.clone(), Intent::Agree)
    });
    assert!(world.a.rows() == before, "rows changed");
    assert_eq!(world.a.leftovers(), Vec::<String>::new());
    match called {
        Ok(exchanged) => Ok(exchanged.outcome),
        Err(error @ ExchangeError::Peer(_)) => Err(error.to_string()),
        Err(other) => panic!("not the peer's fault: {other}"),
    }
}

fn here(world: &World) -> Message {
    let id = ReplicaId::new("liar").expect("an id");
    let info = ReplicaInfo { id, hash: RowHash([7; 16]), max_row: RowId(9000), ..info_of(&world.a) };
    Message::Here { info: Box::new(info), point: RowId::NONE, agreed: None }
}

fn settled() -> Message {
    let id = ReplicaId::new("liar").expect("an id");
    Message::Settled(Settled { id, hash: RowHash([0; 16]), max_row: RowId(1) })
}

/// As if we had the very file that is offered.
fn accept(world: &World) -> Message {
    let file = std::fs::read(world.a.path()).expect("readable");
    let pages = file.len() as u64 / 4096;
    let sample = delta::sample(pages, SAMPLE_PAGES)
        .flat_map(|page| PageDigest::of(&file[page as usize * 4096..][..4096]).0)
        .collect();
    Message::Accept(Some(Basis { file_bytes: file.len() as u64, page_bytes: 4096, sample }))
}

#[test]
fn answers_out_of_turn_end_the_call() {
    let world = calling(false);
    for (said, heard) in [
        (settled(), "settled"),
        (Message::Took { through: RowId(1) }, "took"),
        (Message::Accept(None), "accept"),
        (Message::Rebuilt, "rebuilt"),
        (Message::Mismatch, "mismatch"),
        (offer(4096), "an offer"),
        (Message::Literal(vec![1]), "a literal window"),
    ] {
        let ended = call_liar(&world, |liar| liar.say(&said));
        assert_eq!(ended, Err(format!("broke the protocol: expected its replica, heard {heard}")));
    }
    let ended = call_liar(&world, |liar| {
        liar.say(&here(&world));
        liar.say(&Message::Took { through: RowId(i64::MAX) });
    });
    assert_eq!(ended, Err("broke the protocol: expected took, heard took".to_owned()));
    let ended = call_liar(&world, |liar| {
        liar.say(&here(&world));
        liar.say(&settled());
    });
    assert_eq!(ended, Err("broke the protocol: expected took, heard settled".to_owned()));
    let ended = call_liar(&world, |liar| liar.say(&Message::Refused(Refusal::Full)));
    assert_eq!(ended, Ok(Outcome::Refused(Refusal::Full)));
}

#[test]
fn nobody_settles_a_file_before_it_has_it() {
    let world = calling(false);
    for missing in [true, false] {
        let world = if missing { &world } else { &calling(true) };
        let ended = call_liar(world, |liar| {
            let met = if missing { Message::Missing } else { here(world) };
            // In one piece, so that all of it is there when the first window is sent.
            let said = [met, Message::Accept(None), settled()];
            liar.say_bytes(&said.iter().flat_map(wire::encode).collect::<Vec<_>>());
        });
        assert_eq!(ended, Err("broke the protocol: expected nothing, heard settled".to_owned()));
    }
    let ended = call_liar(&world, |liar| {
        let said = [Message::Missing, Message::Accept(None), Message::Refused(Refusal::Full)];
        liar.say_bytes(&said.iter().flat_map(wire::encode).collect::<Vec<_>>());
    });
    assert_eq!(ended, Ok(Outcome::Refused(Refusal::Full)));
}

#[test]
fn answers_that_lie_about_a_delta_end_the_call() {
    let world = calling(true);
    let windows = info_of(&world.a).file_bytes.div_ceil(u64::from(WINDOW)) as u32;
    assert!(windows > 1);
    let after_windows = |said: Vec<Message>| {
        call_liar(&world, |liar| {
            liar.say(&here(&world));
            liar.say(&accept(&world));
            said.iter().for_each(|message| liar.say(message));
        })
        .expect_err("a lie")
    };
    let page_count = WINDOW as usize / 4096;
    let differs = |window| Message::Differs { window };
    let want = |window, pages: Vec<u8>, blocks: usize, signature: Vec<u8>| Message::Want {
        window,
        pages,
        blocks: vec![0; blocks],
        signature,
    };
    let all = vec![0xff; page_count / 8];
    for window in [windows, 1 << 22, u32::MAX] {
        assert!(after_windows(vec![differs(window)]).contains("a window that the file does not have"));
        let wanted = want(window, all.clone(), 0, vec![]);
        assert!(after_windows(vec![wanted]).contains("a window that the file does not have"));
    }
    for bytes in [0, page_count / 8 - 1, page_count / 8 + 1, 100_000] {
        let wanted = want(0, vec![0; bytes], 0, vec![]);
        assert!(after_windows(vec![wanted]).contains("a page set of another size"), "{bytes}");
    }
    for bytes in [1, 63, 64 * page_count + 64, 100_000] {
        let wanted = want(0, all.clone(), bytes, vec![]);
        assert!(after_windows(vec![wanted]).contains("digests of blocks that do not fit"), "{bytes}");
    }
    for (block_bytes, hash_bytes) in [(0, 4), (1, 4), (u32::MAX, 4), (256, 0), (256, 17), (256, 5)] {
        let head = [0x7273_0136, block_bytes, hash_bytes].map(u32::to_be_bytes).concat();
        let signature = [head.as_slice(), &[0; 8 * 20]].concat();
        let ended = after_windows(vec![want(0, all.clone(), 0, signature)]);
        assert!(ended.contains("a signature that does not fit"), "{block_bytes} {hash_bytes}: {ended}");
    }
    let again = std::iter::repeat_n(differs(0), windows as usize + 1).collect();
    assert!(after_windows(again).contains("too many windows that differ"));
    let again = std::iter::repeat_n(want(0, all, 0, vec![]), windows as usize * 2 + 1).collect();
    assert!(after_windows(again).contains("too many patches wanted"));
    assert!(after_windows(vec![Message::Rebuilt, Message::Rebuilt]).contains("heard rebuilt"));
    let twice = after_windows(vec![Message::Rebuilt, Message::Mismatch, Message::Mismatch]);
    assert!(twice.contains("heard mismatch"), "{twice}");
    let ended = call_liar(&world, |liar| {
        liar.say(&here(&world));
        liar.say(&Message::Accept(Some(Basis {
            file_bytes: u64::MAX,
            page_bytes: 4096,
            sample: vec![1; 50],
        })));
    });
    assert_eq!(ended, Err("broke the protocol: a sample of another size".to_owned()));
}

#[test]
fn whoever_does_not_answer_is_given_up() {
    let world = calling(true);
    let silent = |said: &[Message]| {
        call_liar(&world, |liar| said.iter().for_each(|message| liar.say(message))).expect_err("silence")
    };
    assert!(silent(&[]).contains("silent"));
    assert!(silent(&[here(&world), accept(&world)]).contains("silent"));
    // Leaves in mid-message.
    let ended = call_liar(&world, |liar| {
        let said = wire::encode(&here(&world));
        liar.say_bytes(&said[..said.len() / 2]);
        let _ = liar.stream.shutdown(std::net::Shutdown::Both);
    });
    assert_eq!(ended, Err("closed the connection".to_owned()));
    let (near, far) = UnixStream::pair().expect("sockets");
    (&far).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("room");
    let called = call(&world.a, near, world.b.place.clone(), Intent::Agree);
    assert!(called.expect_err("no agent").to_string().contains("another protocol (began with \"HTTP\")"));
}
