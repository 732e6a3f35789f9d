//! A long link: a relay that hands every byte on a fixed time after it came, in both directions, at whatever rate they come.
//!
//! Opening a connection takes its time too: nothing passes before the handshake would have been through. What the relay
//! cannot show is how the kernel's congestion control takes to a long way, for both ends talk to a relay nearby.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A relay at work, until it is dropped.
pub struct Delay {
    stopped: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    called: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Delay {
    /// Relays whoever calls `called` to `server`, every byte `latency` late.
    pub fn start(called: SocketAddr, server: SocketAddr, latency: Duration) -> io::Result<Delay> {
        let listener = TcpListener::bind(called)?;
        let (stopped, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&stopped), Arc::clone(&carried));
        let listening = thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let count = Arc::clone(&count);
                thread::spawn(move || relay(client, server, latency, &count));
            }
        });
        Ok(Delay { stopped, carried, called, listener: Some(listening) })
    }

    /// Bytes that went through so far, in both directions together.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // A last caller, so that the listener looks up.
        let _ = TcpStream::connect(self.called);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// One connection from its opening to its end.
fn relay(client: TcpStream, server: SocketAddr, latency: Duration, carried: &Arc<AtomicU64>) {
    let opened = Instant::now();
    // The server hears of a connection when the third part of the handshake arrives; the client speaks after the second.
    thread::sleep(latency * 3);
    let Ok(upstream) = TcpStream::connect(server) else { return };
    for stream in [&client, &upstream] {
        let _ = stream.set_nodelay(true);
    }
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), upstream.try_clone()) else { return };
    let count = Arc::clone(carried);
    let back = thread::spawn(move || carry(from_server, client, opened, latency, &count));
    carry(from_client, upstream, opened + latency * 2, latency, carried);
    let _ = back.join();
}

/// Carries one direction to its end. What comes before `opened` counts as if it came then.
fn carry(mut from: TcpStream, mut to: TcpStream, opened: Instant, latency: Duration, carried: &AtomicU64) {
    let pipe = Arc::new(Pipe::default());
    let filling = Arc::clone(&pipe);
    let reader = thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = from.read(&mut piece).unwrap_or(0);
            piece.truncate(read);
            if !filling.push(Instant::now().max(opened) + latency, piece) || read == 0 {
                return;
            }
        }
    });
    loop {
        let (due, piece) = pipe.pop();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    pipe.break_off();
    let _ = reader.join();
}

/// What is on its way in one direction.
#[derive(Default)]
struct Pipe {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    is_broken: bool,
}

impl Pipe {
    /// Takes a piece in, the empty one for the end; `false` if nobody will take it out any more.
    fn push(&self, due: Instant, piece: Vec<u8>) -> bool {
        let mut held = self.held.lock().expect("a pipe");
        while held.bytes > PIPE_BYTES && !held.is_broken {
            held = self.changed.wait(held).expect("a pipe");
        }
        held.bytes += piece.len();
        held.pieces.push_back((due, piece));
        self.changed.notify_all();
        !held.is_broken
    }

    fn pop(&self) -> (Instant, Vec<u8>) {
        let mut held = self.held.lock().expect("a pipe");
        loop {
            if let Some(next) = held.pieces.pop_front() {
                held.bytes -= next.1.len();
                self.changed.notify_all();
                return next;
            }
            held = self.changed.wait(held).expect("a pipe");
        }
    }

    fn break_off(&self) {
        self.held.lock().expect("a pipe").is_broken = true;
        self.changed.notify_all();
    }
}

const PIECE_BYTES: usize = 64 << 10;
/// What may be on its way at once: 10 Gbit/s for 200 ms, so that the relay is never what limits the rate.
const PIPE_BYTES: usize = 256 << 20;
