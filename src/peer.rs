//! The agent at the other end: a stream, its deadlines, messages in and out.
//!
//! Every step has a deadline. A message must begin within `node_timeout` and, once begun, arrive at no less than
//! [`SLOWEST_BYTES_PER_SEC`], so that a peer that sends a byte now and then cannot hold a worker for ever.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bandwidth::{Bandwidth, Lane, Turn};
use crate::delta::Pace;
use crate::protocol::Violation;
use crate::protocol::message::Message;
use crate::protocol::wire::{self, Greeting, Inbox, WireError};
use crate::stop::{SLICE, Stop};

/// What a message must arrive at, once it has begun. A 100 Mbit/s link shared by a hundred transfers gives more.
const SLOWEST_BYTES_PER_SEC: u64 = 64 << 10;

/// Something that can be read and written within a time.
pub trait Stream: Read + Write + Send {
    /// Bounds the next reads and writes.
    fn set_timeouts(&self, time: Duration) -> io::Result<()>;
    /// Lets reads return at once, or not any more.
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        TcpStream::set_nonblocking(self, on)
    }
}

impl Stream for UnixStream {
    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        UnixStream::set_nonblocking(self, on)
    }
}

/// Why a peer is of no use any more. The caller adds which peer.
#[derive(Debug)]
pub enum PeerError {
    /// There is no such address, or nobody listens there.
    Unreachable(io::Error),
    /// Nothing came, or too little, or it would take nothing, for this long.
    TooSlow(Duration),
    /// It closed the connection.
    Gone,
    /// The connection broke.
    Broken(io::Error),
    /// It said something that is no message.
    Unintelligible(WireError),
    /// It said something that does not fit.
    Violation(Violation),
    /// We were told to stop.
    Stopped,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::Unreachable(error) => write!(f, "cannot be reached: {error}; is its agent running?"),
            PeerError::TooSlow(time) => write!(f, "was silent or stuck for {:.1} s", time.as_secs_f64()),
            PeerError::Gone => f.write_str("closed the connection"),
            PeerError::Broken(error) => write!(f, "connection broke: {error}"),
            PeerError::Unintelligible(error) => error.fmt(f),
            PeerError::Violation(violation) => violation.fmt(f),
            PeerError::Stopped => f.write_str("left because this agent is stopping"),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<Violation> for PeerError {
    fn from(violation: Violation) -> PeerError {
        PeerError::Violation(violation)
    }
}

/// A peer and what it has yet to say.
pub struct Peer<S> {
    stream: S,
    inbox: Inbox,
    node_timeout: Duration,
    stop: Stop,
    last_said: Instant,
    /// Since when it has said nothing but that it is still at work.
    at_work_since: Option<Instant>,
    /// What the link to it takes, as last seen.
    pub pace: Pace,
    /// What the link may be given.
    lane: Option<Lane>,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Peer<TcpStream> {
    /// Calls the agent at an address, which may be a host's name.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`], or whatever goes wrong with the greeting.
    pub fn call(
        host: &str,
        port: u16,
        conn_timeout: Duration,
        node_timeout: Duration,
        stop: &Stop,
    ) -> Result<Peer<TcpStream>, PeerError> {
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => (host, port).to_socket_addrs().map_err(PeerError::Unreachable)?.collect(),
        };
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, conn_timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(PeerError::Broken)?;
                    return Peer::greet(stream, node_timeout, stop);
                }
                Err(error) => failure = error,
            }
        }
        Err(PeerError::Unreachable(failure))
    }

    /// Says no more from now on than a limit allows, over this connection and all others to the same host together.
    pub fn keep_to(&mut self, bandwidth: &Bandwidth) {
        // A peer that came over a socket for both kinds of addresses is the same host as ever; one that is gone needs no limit.
        let address = self.stream.peer_addr().ok().map(|address| address.ip().to_canonical());
        self.lane = address.and_then(|ip| bandwidth.lane(ip));
    }
}

impl<S: Stream> Peer<S> {
    /// Exchanges greetings over a connection that stands; both sides do the same.
    ///
    /// # Errors
    /// A peer that speaks something else, another version, or not in time.
    pub fn greet(stream: S, node_timeout: Duration, stop: &Stop) -> Result<Peer<S>, PeerError> {
        let mut peer = Peer {
            stream,
            inbox: Inbox::default(),
            node_timeout,
            stop: stop.clone(),
            last_said: Instant::now(),
            at_work_since: None,
            pace: Pace::default(),
            lane: None,
            bytes_sent: 0,
            bytes_received: 0,
        };
        peer.write(&Greeting::ours().encode())?;
        let mut greeting = [0; Greeting::BYTES];
        let mut filled = 0;
        let begun = Instant::now();
        while filled < greeting.len() {
            filled += peer.read_some(&mut greeting[filled..], begun, peer.node_timeout)?;
            // Whoever speaks another protocol may have less to say than a greeting has bytes.
            if filled >= 4 && greeting[..4] != Greeting::ours().encode()[..4] {
                break;
            }
        }
        Greeting::decode(greeting).map_err(PeerError::Unintelligible)?;
        Ok(peer)
    }

    /// Says one message.
    ///
    /// # Errors
    /// If it cannot be handed to the kernel in time.
    pub fn say(&mut self, message: &Message) -> Result<(), PeerError> {
        self.say_frame(&wire::encode(message))
    }

    /// Says one message that is a frame already.
    ///
    /// # Errors
    /// As [`Peer::say`].
    pub fn say_frame(&mut self, frame: &[u8]) -> Result<(), PeerError> {
        match self.lane.as_ref().map(|lane| lane.book(frame.len(), Instant::now())) {
            None => self.say_at_once(frame),
            Some(turn) => self.say_in_turn(frame, turn),
        }
    }

    fn say_at_once(&mut self, frame: &[u8]) -> Result<(), PeerError> {
        self.last_said = Instant::now();
        self.write(frame)
    }

    /// Says a frame a little at a time. Before it is begun the peer is told that we are still here; once it is, it takes no
    /// longer than the peer has patience, whatever the limit.
    fn say_in_turn(&mut self, frame: &[u8], turn: Turn) -> Result<(), PeerError> {
        self.sleep_until(turn.begins)?;
        let lasts = turn.lasts.min(self.node_timeout / 4);
        for (slice, nth) in frame.chunks(SLICE_BYTES).zip(0_u32..) {
            let said_before = (nth as usize * SLICE_BYTES) as f64 / frame.len() as f64;
            let due = turn.begins + lasts.mul_f64(said_before);
            if nth > 0 {
                self.pause(due.saturating_duration_since(Instant::now()))?;
            }
            self.say_at_once(slice)?;
        }
        Ok(())
    }

    /// Waits for our turn.
    fn sleep_until(&mut self, turn: Instant) -> Result<(), PeerError> {
        loop {
            let left = turn.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.pause(left.min(self.node_timeout / 5).min(SLICE))?;
            self.still_here()?;
        }
    }

    fn pause(&self, time: Duration) -> Result<(), PeerError> {
        if self.stop.sleep(time) { Err(PeerError::Stopped) } else { Ok(()) }
    }

    /// Says `Working` if nothing was said for a while, so that a peer that waits for an answer keeps waiting.
    ///
    /// # Errors
    /// As [`Peer::say`].
    pub fn still_here(&mut self) -> Result<(), PeerError> {
        if self.last_said.elapsed() < self.node_timeout / 5 {
            return Ok(());
        }
        // Out of turn: it has hardly any bytes, and waits for nobody.
        self.say_at_once(&wire::encode(&Message::Working))
    }

    /// Does something long, saying `Working` now and then so that a peer that waits for the result keeps waiting.
    ///
    /// # Errors
    /// As [`Peer::say`]; the work is done to its end all the same.
    pub fn while_working<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T, PeerError> {
        let (waiter, done) = (thread::current(), AtomicBool::new(false));
        let done = &done;
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let result = work();
                done.store(true, Ordering::Release);
                waiter.unpark();
                result
            });
            let mut alive = Ok(());
            // Finished without being done is a panic, which is passed on.
            while !done.load(Ordering::Acquire) && !worker.is_finished() {
                thread::park_timeout(WORK_PAUSE);
                if alive.is_ok() {
                    alive = self.still_here();
                }
            }
            let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            alive.map(|()| result)
        })
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// If none comes in time, or what comes is none.
    pub fn hear(&mut self) -> Result<Message, PeerError> {
        self.hear_within(self.node_timeout)
    }

    /// Waits for one message that may be longer in coming: the next request on an idle connection.
    ///
    /// # Errors
    /// As [`Peer::hear`].
    pub fn hear_within(&mut self, patience: Duration) -> Result<Message, PeerError> {
        let begun = Instant::now();
        let mut arrived = 0u64;
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
            let time = patience + Duration::from_millis(arrived * 1000 / SLOWEST_BYTES_PER_SEC);
            arrived += self.read_more(begun, time)? as u64;
        }
    }

    /// Waits until a message begins and tells how many bytes it has, so that memory for it can be found before it is
    /// heard. No more than a first small piece of it is read until then.
    ///
    /// # Errors
    /// As [`Peer::hear`].
    pub fn announced_within(&mut self, patience: Duration) -> Result<usize, PeerError> {
        let begun = Instant::now();
        loop {
            if let Some(bytes) = self.inbox.announced().map_err(PeerError::Unintelligible)? {
                return Ok(bytes);
            }
            self.read_more(begun, patience)?;
        }
    }

    /// Takes back the buffer of a window that was heard, for one that is to come.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        self.inbox.reuse(buffer);
    }

    /// Gives back the room of messages that have been heard, as long as no other comes.
    pub fn rest(&mut self) {
        self.inbox.give_back();
    }

    /// A message if one has already come, without waiting.
    ///
    /// # Errors
    /// As [`Peer::hear`].
    pub fn heard_already(&mut self) -> Result<Option<Message>, PeerError> {
        if let Some(message) = self.next_message()? {
            return Ok(Some(message));
        }
        self.take_in()?;
        self.next_message()
    }

    /// Reads what has come already, without waiting.
    fn take_in(&mut self) -> Result<(), PeerError> {
        self.stream.set_nonblocking(true).map_err(PeerError::Broken)?;
        let read = self.stream.read(self.inbox.room());
        self.stream.set_nonblocking(false).map_err(PeerError::Broken)?;
        match read {
            Ok(0) => Err(PeerError::Gone),
            Ok(read) => {
                self.bytes_received += read as u64;
                self.inbox.fed(read);
                Ok(())
            }
            Err(error) if is_timeout(&error) => Ok(()),
            Err(error) => Err(PeerError::Broken(error)),
        }
    }

    /// Has it said that it is at work since anybody last listened? Whatever else it said is left for who listens next.
    fn is_at_work(&mut self) -> Result<bool, PeerError> {
        if self.inbox.is_short() {
            self.take_in()?;
        }
        let mut at_work = false;
        while self.inbox.take_working() {
            at_work = true;
            self.check_work()?;
        }
        Ok(at_work)
    }

    /// The next message of those that have come. `Working` buys a peer time, but not for ever.
    fn next_message(&mut self) -> Result<Option<Message>, PeerError> {
        let message = self.inbox.next_message().map_err(PeerError::Unintelligible)?;
        match &message {
            Some(Message::Working) => self.check_work()?,
            Some(_) => self.at_work_since = None,
            None => {}
        }
        Ok(message)
    }

    fn check_work(&mut self) -> Result<(), PeerError> {
        let since = *self.at_work_since.get_or_insert_with(Instant::now);
        if since.elapsed() > WORK_LIMIT {
            return Err(PeerError::TooSlow(WORK_LIMIT));
        }
        Ok(())
    }

    /// Part of a message has come, and the rest has not.
    pub fn is_mid_message(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Payload bytes sent and received so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_sent, self.bytes_received)
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn read_some(&mut self, buffer: &mut [u8], begun: Instant, time: Duration) -> Result<usize, PeerError> {
        loop {
            self.slice(begun, time)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(PeerError::Gone),
                Ok(read) => {
                    self.bytes_received += read as u64;
                    return Ok(read);
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Reads what there is of a message, or of several, into the inbox.
    fn read_more(&mut self, begun: Instant, time: Duration) -> Result<usize, PeerError> {
        loop {
            self.slice(begun, time)?;
            match self.stream.read(self.inbox.room()) {
                Ok(0) => return Err(PeerError::Gone),
                Ok(read) => {
                    self.bytes_received += read as u64;
                    self.inbox.fed(read);
                    return Ok(read);
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// Hands bytes to the kernel. A peer that takes none but says that it is at work, on a disk that is behind, is waited
    /// for as if it were listened to.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), PeerError> {
        let mut begun = Instant::now();
        let time =
            self.node_timeout + Duration::from_millis(bytes.len() as u64 * 1000 / SLOWEST_BYTES_PER_SEC);
        while !bytes.is_empty() {
            self.slice(begun, time)?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(PeerError::Gone),
                Ok(written) => {
                    self.bytes_sent += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if is_timeout(&error) => {
                    if self.is_at_work()? {
                        begun = Instant::now();
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }

    /// Bounds the next read or write to what is left, in slices short enough to notice the wish to stop.
    fn slice(&self, begun: Instant, time: Duration) -> Result<(), PeerError> {
        if self.stop.wished() {
            return Err(PeerError::Stopped);
        }
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(PeerError::TooSlow(time));
        }
        self.stream.set_timeouts(left.min(SLICE)).map_err(PeerError::Broken)
    }
}

/// What is said at once of a message that has to keep to a lane.
const SLICE_BYTES: usize = 64 << 10;
/// How long a peer may be at work on one thing. Merging half a billion rows takes less.
const WORK_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long to look away from long work, which calls us when it is done.
const WORK_PAUSE: Duration = Duration::from_millis(20);

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn broken(error: io::Error) -> PeerError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => PeerError::Gone,
        _ => PeerError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(400);

    /// Two ends that have greeted each other.
    fn pair(node_timeout: Duration, stop: &Stop) -> (Peer<UnixStream>, Peer<UnixStream>) {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        let stop_too = stop.clone();
        let theirs = thread::spawn(move || Peer::greet(other, node_timeout, &stop_too).expect("a greeting"));
        let ours = Peer::greet(one, node_timeout, stop).expect("a greeting");
        (ours, theirs.join().expect("no panic"))
    }

    /// One end, and at the other somebody who may say anything.
    fn with_stranger(node_timeout: Duration) -> (Peer<UnixStream>, UnixStream) {
        let (one, mut stranger) = UnixStream::pair().expect("a pair of sockets");
        stranger.write_all(&Greeting::ours().encode()).expect("room for a greeting");
        let peer = Peer::greet(one, node_timeout, &Stop::default()).expect("a greeting");
        (peer, stranger)
    }

    fn greeted(said: &[u8], then_leave: bool) -> Result<(), PeerError> {
        let (one, mut other) = UnixStream::pair().expect("a pair of sockets");
        other.write_all(said).expect("room");
        let kept = (!then_leave).then_some(other);
        let greeted = Peer::greet(one, SHORT, &Stop::default()).map(|_| ());
        drop(kept);
        greeted
    }

    #[test]
    fn what_one_says_the_other_hears() {
        let (mut one, mut other) = pair(Duration::from_secs(5), &Stop::default());
        one.say(&Message::Missing).unwrap();
        one.say(&Message::Literal(vec![7; 100_000])).unwrap();
        assert_eq!(other.hear().unwrap(), Message::Missing);
        assert_eq!(other.hear().unwrap(), Message::Literal(vec![7; 100_000]));
        assert_eq!(other.heard_already().unwrap(), None);
        one.say(&Message::Rebuilt).unwrap();
        assert_eq!(other.heard_already().unwrap(), Some(Message::Rebuilt));
        assert_eq!(one.bytes().0, other.bytes().1);
        drop(one);
        assert!(matches!(other.heard_already(), Err(PeerError::Gone)));
        assert!(matches!(other.hear(), Err(PeerError::Gone)));
    }

    #[test]
    fn strangers_are_told_apart_by_their_greeting() {
        let said = |bytes: &[u8], leave| greeted(bytes, leave).expect_err("no agent").to_string();
        assert!(
            said(b"HTTP/1.1 400 Bad Request\r\n", false).contains("another protocol (began with \"HTTP\")")
        );
        assert!(said(b"SWLT\0\x63\0\0", false).contains("version 99"));
        assert!(said(b"SWLT\0\x05\x07\0", false).contains("security 7"));
        assert!(said(b"SWL", false).contains("silent"));
        assert!(said(b"", false).contains("silent"));
        assert!(said(b"SWL", true).contains("closed"));
        assert!(said(b"hi\r\n", false).contains("another protocol"));
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        let (mut peer, _stranger) = with_stranger(SHORT);
        let begun = Instant::now();
        assert!(matches!(peer.hear(), Err(PeerError::TooSlow(_))));
        assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT * 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_peer_that_trickles_is_given_up() {
        let (mut peer, mut stranger) = with_stranger(SHORT);
        let trickle = thread::spawn(move || {
            let frame = wire::encode(&Message::Literal(vec![7; 100_000]));
            // Well above a byte each time anybody looks, well below the rate; ends when nobody listens.
            frame
                .chunks(100)
                .take_while(|piece| {
                    thread::sleep(Duration::from_millis(20));
                    stranger.write_all(piece).is_ok()
                })
                .count()
        });
        let begun = Instant::now();
        assert!(matches!(peer.hear(), Err(PeerError::TooSlow(_))));
        assert!(begun.elapsed() < SHORT * 10, "{:?}", begun.elapsed());
        drop(peer);
        assert!(trickle.join().expect("no panic") < 1000);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        let (mut peer, _stranger) = with_stranger(SHORT);
        let window = Message::Literal(vec![7; 30_000]);
        let begun = Instant::now();
        let stuck = (0..1000).find_map(|_| peer.say(&window).err());
        assert!(matches!(stuck, Some(PeerError::TooSlow(_))), "{stuck:?}");
        assert!(begun.elapsed() < SHORT * 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_peer_that_takes_nothing_but_says_it_is_at_work_is_waited_for() {
        let (mut one, mut other) = pair(SHORT, &Stop::default());
        // So small that its length buys no time worth speaking of, and enough of them to fill what the kernel holds.
        let window = Message::Literal(vec![7; 20_000]);
        let busy = thread::spawn(move || {
            // As one whose disk is behind: it hears nothing, and says so.
            other.while_working(|| thread::sleep(SHORT * 5)).expect("the peer is there");
            other.say(&Message::Rebuilt).expect("the peer is there");
            let heard = (0..50).map(|_| other.hear().expect("all of it"));
            heard
                .filter(|message| matches!(message, Message::Literal(window) if window.len() == 20_000))
                .count()
        });
        let begun = Instant::now();
        for _ in 0..50 {
            one.say(&window).expect("waited for");
        }
        assert!(begun.elapsed() > SHORT * 4, "{:?}", begun.elapsed());
        // What it said besides is not lost.
        let said = std::iter::repeat_with(|| one.hear().expect("a message"));
        assert_eq!(said.take(30).find(|message| *message != Message::Working), Some(Message::Rebuilt));
        assert_eq!(busy.join().expect("no panic"), 50);
    }

    #[test]
    fn lengths_out_of_bounds_end_the_connection_at_once() {
        for length in [0, crate::protocol::FRAME_LIMIT as u32 + 1, u32::MAX] {
            let (mut peer, mut stranger) = with_stranger(Duration::from_secs(5));
            stranger.write_all(&length.to_be_bytes()).unwrap();
            let error = peer.hear().expect_err("no frame has this length");
            assert!(error.to_string().contains(&length.to_string()), "{error}");
        }
    }

    #[test]
    fn a_link_cut_within_a_message_is_gone() {
        let frame = wire::encode(&Message::Literal(vec![7; 1000]));
        for cut in [1, 3, 4, 5, 500, frame.len() - 1] {
            let (mut peer, mut stranger) = with_stranger(Duration::from_secs(5));
            stranger.write_all(&frame[..cut]).unwrap();
            drop(stranger);
            assert!(matches!(peer.hear(), Err(PeerError::Gone)), "cut at {cut}");
        }
    }

    #[test]
    fn work_that_takes_long_is_waited_for() {
        let (mut one, mut other) = pair(SHORT, &Stop::default());
        let worker = thread::spawn(move || {
            one.while_working(|| thread::sleep(SHORT * 3)).expect("the peer listens");
            one.say(&Message::Rebuilt).expect("the peer listens");
        });
        let mut alive = 0;
        loop {
            match other.hear().expect("still there") {
                Message::Working => alive += 1,
                message => break assert_eq!(message, Message::Rebuilt),
            }
        }
        assert!(alive >= 3, "{alive}");
        worker.join().expect("no panic");
    }

    #[test]
    fn work_on_one_thing_has_an_end() {
        let (mut peer, mut stranger) = with_stranger(SHORT);
        let working = wire::encode(&Message::Working);
        stranger.write_all(&working).unwrap();
        assert_eq!(peer.hear().unwrap(), Message::Working);
        let Some(long_ago) = Instant::now().checked_sub(WORK_LIMIT + SHORT) else { return };
        peer.at_work_since = Some(long_ago);
        stranger.write_all(&wire::encode(&Message::Missing)).unwrap();
        assert_eq!(peer.hear().unwrap(), Message::Missing);
        stranger.write_all(&working).unwrap();
        assert_eq!(peer.hear().unwrap(), Message::Working);
        peer.at_work_since = Some(long_ago);
        stranger.write_all(&working).unwrap();
        assert!(matches!(peer.hear(), Err(PeerError::TooSlow(_))));
    }

    #[test]
    fn the_wish_to_stop_is_seen_while_waiting() {
        let stop = Stop::default();
        let (mut one, mut other) = pair(Duration::from_secs(60), &stop);
        let wish = thread::spawn(move || {
            thread::sleep(SHORT / 2);
            stop.wish();
        });
        let begun = Instant::now();
        let full = thread::spawn(move || {
            let window = Message::Literal(vec![7; 1 << 20]);
            (0..100).find_map(|_| other.say(&window).err())
        });
        let mut heard = 0;
        let stopped = loop {
            match one.hear() {
                // Takes little, so that the other end has to wait as well.
                Ok(_) if heard < 1 => heard += 1,
                Ok(_) => thread::sleep(SHORT),
                Err(error) => break error,
            }
        };
        assert!(matches!(stopped, PeerError::Stopped), "{stopped:?}");
        assert!(matches!(full.join().expect("no panic"), Some(PeerError::Stopped)));
        assert!(begun.elapsed() < Duration::from_secs(5));
        wish.join().expect("no panic");
    }

    /// A lane of so many bytes a second.
    fn lane(bytes_per_sec: u64) -> Option<Lane> {
        Bandwidth::new(Some(bytes_per_sec)).lane(IpAddr::from([10, 0, 0, 1]))
    }

    #[test]
    fn what_is_said_keeps_to_its_lane_and_comes_evenly() {
        let (mut one, mut other) = pair(Duration::from_secs(60), &Stop::default());
        one.lane = lane(4 << 20);
        let window = wire::encode(&Message::Literal(vec![7; 512 << 10]));
        let begun = Instant::now();
        let sender = thread::spawn(move || (0..4).for_each(|_| one.say_frame(&window).expect("taken")));
        let whole = (0..4).map(|_| other.hear().map(|_| begun.elapsed()).expect("heard")).collect::<Vec<_>>();
        sender.join().expect("no panic");
        for (nth, elapsed) in whole.iter().enumerate() {
            // All of it takes half a second, less the last slice of each.
            let due = Duration::from_millis(125 * (nth as u64 + 1)) - Duration::from_millis(17);
            assert!(*elapsed >= due, "{whole:?}");
        }
    }

    #[test]
    fn who_waits_for_a_turn_is_not_taken_for_dead_and_loses_nothing() {
        let (mut one, mut other) = pair(SHORT, &Stop::default());
        one.lane = lane(64 << 10);
        let sender = thread::spawn(move || {
            for byte in 0..3 {
                one.say(&Message::Literal(vec![byte; 128 << 10])).expect("taken");
            }
            one
        });
        let (mut alive, mut heard) = (0, Vec::new());
        while heard.len() < 3 {
            match other.hear().expect("it is there") {
                Message::Working => alive += 1,
                message => heard.push(message),
            }
        }
        assert_eq!(heard, [0, 1, 2].map(|byte| Message::Literal(vec![byte; 128 << 10])));
        // Two waits of two seconds; a fifth of the patience is 80 ms.
        assert!(alive >= 10, "{alive}");
        drop(sender.join().expect("no panic"));
    }

    #[test]
    fn who_waits_for_a_turn_stops_when_told() {
        let stop = Stop::default();
        let (mut one, _other) = pair(Duration::from_secs(60), &stop);
        one.lane = lane(1 << 10);
        one.say(&Message::Missing).expect("its turn is now");
        let wish = thread::spawn(move || {
            thread::sleep(SHORT / 4);
            stop.wish();
        });
        let begun = Instant::now();
        let said = (0..).find_map(|_| one.say(&Message::Literal(vec![7; 10_000])).err());
        assert!(matches!(said, Some(PeerError::Stopped)), "{said:?}");
        assert!(begun.elapsed() < SHORT * 5);
        wish.join().expect("no panic");
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let called = Peer::call("127.0.0.1", port, SHORT, SHORT, &Stop::default()).map(|_| ());
        assert!(called.expect_err("nobody listens").to_string().starts_with("cannot be reached"));
    }
}
