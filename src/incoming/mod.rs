//! Accept a peer; drive a [`Receiver`] on a drive of ours. One database at a time is a `visit`; a file that comes with it
//! is `arriving`, in full by `writing` or as a delta by `rebuilding`; a device compared with the peer's is `comparing`; what goes wrong is `trouble`.
//!
//! Each connection is served by a thread of its own; there are at most [`CONNECTIONS_LIMIT`]. What a peer asks for is
//! looked at with distrust: the device must be one that our ring puts on this node, the partition must be the one that
//! follows from the container's name, the hash must be that name's hash.

mod arriving;
mod comparing;
mod rebuilding;
mod trouble;
mod visit;
mod writing;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{debug, warn};
use nix::poll::{PollFd, PollFlags, poll};

use crate::ledger::Ledger;
use crate::node::Node;
use crate::peer::{Peer, PeerError, Stream};
use crate::protocol::message::{Message, Opened, Refusal};
use crate::protocol::receiver::{Action, Receiver};
use crate::stop::Stop;
use trouble::Trouble;
use visit::{Progress, Visit};

pub use comparing::{Comparing, message_of};
pub use trouble::quarantine;
pub use visit::{SAMPLE_PAGES, say_ranges};

/// Connections served at once. Each costs a thread's stack and a few small buffers until it ships a file.
pub const CONNECTIONS_LIMIT: usize = 512;
/// How long a connection may be idle between two databases.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// Accepts peers until told to stop, or not to accept any more. `alive` is called several times a second, as long as that
/// goes on.
///
/// # Errors
/// If the listener itself fails.
pub fn listen(
    listener: &TcpListener,
    node: &Arc<Node>,
    until: &Stop,
    alive: &mut dyn FnMut(),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let serving = Arc::new(AtomicUsize::new(0));
    while !node.stop.wished() && !until.wished() {
        alive();
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Whether it ends for a caller, the time or a signal, the next look tells.
                let _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], ACCEPT_WAIT);
                continue;
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are open will end.
                warn!("cannot accept a connection: {error}");
                node.stop.sleep(Duration::from_secs(1));
                continue;
            }
        };
        let (node, serving) = (node.clone(), serving.clone());
        let over = serving.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_LIMIT;
        let served = serving.clone();
        let spawned = thread::Builder::new().name("answer".into()).stack_size(STACK_BYTES).spawn(move || {
            if let Err(error) = answer(stream, &node, over) {
                match error {
                    PeerError::Gone | PeerError::Stopped => debug!("peer {address} left"),
                    error => warn!("peer {address} {error}"),
                }
            }
            serving.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = spawned {
            served.fetch_sub(1, Ordering::SeqCst);
            warn!("no thread for peer {address}: {error}");
        }
    }
    Ok(())
}

fn answer(stream: TcpStream, node: &Node, over: bool) -> Result<(), PeerError> {
    stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).map_err(PeerError::Broken)?;
    let mut peer = Peer::greet(stream, node.config.node_timeout, &node.stop)?;
    peer.keep_to(&node.bandwidth);
    if over {
        peer.hear()?;
        return peer.say(&Message::Refused(Refusal::TooMany));
    }
    serve(&mut peer, node)
}

/// What a connection is about, between two messages.
enum Work<'a> {
    Visit(Box<Visit<'a>>),
    Comparing(Comparing<Ledger>),
}

impl Work<'_> {
    /// Nothing is under way that a peer could leave unfinished.
    fn is_quiet(&self) -> bool {
        match self {
            Work::Visit(visit) => visit.is_quiet(),
            Work::Comparing(_) => true,
        }
    }
}

/// Answers a peer until it leaves.
///
/// # Errors
/// [`PeerError`] when the connection ends otherwise than between two exchanges.
pub fn serve<S: Stream>(peer: &mut Peer<S>, node: &Node) -> Result<(), PeerError> {
    let mut receiver = Receiver::start();
    let mut work: Option<Work> = None;
    loop {
        let message = hear(peer, node, work.as_mut());
        let message = match message {
            Err(PeerError::Gone) if work.as_ref().is_none_or(Work::is_quiet) => return Ok(()),
            // Nothing was asked for a long time. Whoever wants more calls again.
            Err(PeerError::TooSlow(_)) if work.is_none() && !peer.is_mid_message() => return Ok(()),
            // An open exchange in which nothing is under way may as well be a pause between databases.
            Err(PeerError::TooSlow(_))
                if !peer.is_mid_message() && work.as_ref().is_some_and(Work::is_quiet) =>
            {
                work = None;
                continue;
            }
            other => other?,
        };
        let (next, action) = receiver.hear(message)?;
        receiver = next;
        let step = match (work.as_mut(), action) {
            (_, Action::Meet(meet)) => {
                work = None;
                // Who waits for a lock on the database keeps the peer waiting, and must say so.
                match peer.while_working(|| Visit::begin(node, *meet))? {
                    Ok((begun, said)) => {
                        receiver = receiver.met(begun.is_here());
                        let over = matches!(said, Message::Equal { .. });
                        work = Some(Work::Visit(Box::new(begun)));
                        peer.say(&said)?;
                        Ok(if over { Progress::Over } else { Progress::Under })
                    }
                    Err(refusal) => Err(refusal.into()),
                }
            }
            (_, Action::Compare(compare)) => {
                work = None;
                match peer.while_working(|| Comparing::begin(node, &compare))? {
                    Ok((begun, sums)) => {
                        work = Some(Work::Comparing(begun));
                        receiver = receiver.told(&sums);
                        tell(peer, sums)
                    }
                    Err(refusal) => Err(refusal.into()),
                }
            }
            (Some(Work::Comparing(comparing)), Action::Open { spans, alike }) => {
                match peer.while_working(|| comparing.open(&spans, &alike))? {
                    Ok(sums) => {
                        receiver = receiver.told(&sums);
                        tell(peer, sums)
                    }
                    Err(refusal) => Err(refusal.into()),
                }
            }
            (_, Action::TellTime) => {
                work = None;
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                peer.say(&Message::Time(since.as_micros().try_into().unwrap_or(u64::MAX)))?;
                Ok(Progress::Over)
            }
            (Some(Work::Visit(visit)), Action::Wait) if receiver.is_collecting() => {
                visit.provide_for_ranges(peer)?;
                Ok(Progress::Under)
            }
            (_, Action::Wait) => Ok(Progress::Under),
            (Some(Work::Visit(visit)), action) => visit.act(peer, action),
            // Left over from before a refusal, or too late: we had taken the silence for the end.
            _ => Err(Refusal::Busy.into()),
        };
        match step {
            Ok(Progress::Under) => {}
            // Nothing can follow but another database or device: let go of this one.
            Ok(Progress::Over) => (work, receiver) = (None, Receiver::start()),
            Err(Trouble::Peer(error)) => return Err(error),
            Err(Trouble::Refuse(refusal)) => {
                work = None;
                receiver = receiver.refused();
                peer.say(&Message::Refused(refusal))?;
            }
        }
    }
}

/// Says what came of a comparison so far.
fn tell<S: Stream>(peer: &mut Peer<S>, sums: Vec<Opened>) -> Result<Progress, Trouble> {
    let message = message_of(sums);
    peer.say(&message)?;
    Ok(if message == Message::Alike { Progress::Over } else { Progress::Under })
}

/// Waits for the next message, and for the memory that it takes, before it is read. Whoever waits for either holds none.
fn hear<S: Stream>(peer: &mut Peer<S>, node: &Node, work: Option<&mut Work>) -> Result<Message, PeerError> {
    let Some(Work::Visit(visit)) = work else {
        let bytes =
            peer.announced_within(if work.is_some() { node.config.node_timeout } else { IDLE_LIMIT })?;
        let _share = match bytes {
            0..=SMALL_MESSAGE_BYTES => None,
            bytes => {
                let take = || node.answering.take(bytes as u64 * 2, MEMORY_PATIENCE, &node.stop);
                Some(peer.while_working(take)?.ok_or(PeerError::Stopped)?)
            }
        };
        return peer.hear();
    };
    let bytes = match peer.announced_within(REST_AFTER) {
        Err(PeerError::TooSlow(_)) if !peer.is_mid_message() => {
            visit.rest();
            peer.rest();
            peer.announced_within(node.config.node_timeout)?
        }
        announced => announced?,
    };
    if bytes > SMALL_MESSAGE_BYTES {
        visit.provide_for(peer, bytes)?;
    }
    peer.hear()
}

/// How long a database stays open for a peer that says nothing.
const REST_AFTER: Duration = Duration::from_millis(50);
/// How long a peer is kept waiting for memory. Others may be bringing large files.
const MEMORY_PATIENCE: Duration = Duration::from_secs(3600);
/// What is taken in without a share of the memory: no more than is read of a connection anyway.
const SMALL_MESSAGE_BYTES: usize = 4 << 10;
/// How long, in milliseconds, an accept loop waits for a caller before it looks whether it should end.
const ACCEPT_WAIT: u8 = 200;
/// A thread that answers keeps its buffers on the heap.
const STACK_BYTES: usize = 512 << 10;
