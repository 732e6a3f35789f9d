//! The agent at the other end: a stream, its deadlines, messages in and out.
//!
//! Every step has a deadline. A message must begin within `node_timeout` and, once begun, arrive at no less than
//! [`SLOWEST_BYTES_PER_SEC`], so that a peer that sends a byte now and then cannot hold a worker for ever.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

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
        let frame = wire::encode(message);
        self.last_said = Instant::now();
        self.write(&frame)
    }

    /// Says `Working` if nothing was said for a while, so that a peer that waits for an answer keeps waiting.
    ///
    /// # Errors
    /// As [`Peer::say`].
    pub fn still_here(&mut self) -> Result<(), PeerError> {
        if self.last_said.elapsed() < self.node_timeout / 5 {
            return Ok(());
        }
        self.say(&Message::Working)
    }

    /// Does something long, saying `Working` now and then so that a peer that waits for the result keeps waiting.
    ///
    /// # Errors
    /// As [`Peer::say`]; the work is done to its end all the same.
    pub fn while_working<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T, PeerError> {
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            let mut alive = Ok(());
            while !worker.is_finished() {
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
        // A connection that waits for its next message should cost little.
        let mut piece = vec![0; WAITING_PIECE_BYTES];
        loop {
            if let Some(message) = self.inbox.next_message().map_err(PeerError::Unintelligible)? {
                return Ok(message);
            }
            let time = patience + Duration::from_millis(arrived * 1000 / SLOWEST_BYTES_PER_SEC);
            let read = self.read_some(&mut piece, begun, time)?;
            self.inbox.feed(&piece[..read]);
            arrived += read as u64;
            piece.resize(PIECE_BYTES, 0);
        }
    }

    /// A message if one has already come, without waiting.
    ///
    /// # Errors
    /// As [`Peer::hear`].
    pub fn heard_already(&mut self) -> Result<Option<Message>, PeerError> {
        let parse = |inbox: &mut Inbox| inbox.next_message().map_err(PeerError::Unintelligible);
        if let Some(message) = parse(&mut self.inbox)? {
            return Ok(Some(message));
        }
        self.stream.set_nonblocking(true).map_err(PeerError::Broken)?;
        let mut piece = [0; 4096];
        let read = self.stream.read(&mut piece);
        self.stream.set_nonblocking(false).map_err(PeerError::Broken)?;
        match read {
            Ok(0) => Err(PeerError::Gone),
            Ok(read) => {
                self.bytes_received += read as u64;
                self.inbox.feed(&piece[..read]);
                parse(&mut self.inbox)
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(PeerError::Broken(error)),
        }
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

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), PeerError> {
        let begun = Instant::now();
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
                Err(error) if is_timeout(&error) => {}
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

/// How often the end of long work is looked for.
const WORK_PAUSE: Duration = Duration::from_millis(1);
/// What is read of a message that may be a short one.
const WAITING_PIECE_BYTES: usize = 4 << 10;
/// What is read from a stream at once.
const PIECE_BYTES: usize = 64 << 10;

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn broken(error: io::Error) -> PeerError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => PeerError::Gone,
        _ => PeerError::Broken(error),
    }
}
