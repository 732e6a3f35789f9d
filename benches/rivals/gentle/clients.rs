//! Clients of two real container servers: what a proxy and an object server ask of them, at fixed moments.
//!
//! A request is due whether or not the one before it was answered, and its wait counts from then: else a server that stood
//! still would have had few requests, and looked fast.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use swiftlet::timestamp::Timestamp;

use super::backlog::{ACCOUNT, Container};
use crate::stalls::now;
use crate::workshop;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To take an object's row.
    Row,
    /// To make a container.
    Create,
    /// To list objects.
    List,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: Kind,
    /// When it was due, on the machine's monotonic clock, and how long it took from then.
    pub due: Duration,
    pub wait: Duration,
    /// Which busy container it was about, and which object.
    pub container: usize,
    pub object: String,
    /// What else came than success.
    pub refused: Option<String>,
}

/// Clients at work, until told to stop.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Answer>>>,
}

impl Clients {
    /// Starts those of both servers: the nodes' addresses, and the names of their devices.
    pub fn start(servers: [(SocketAddr, &'static str); 2], busy: &[Container]) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (server, device) in servers {
            for (kind, per_second, count) in MIX {
                for nth in 0..count {
                    let (stop, busy) = (stop.clone(), busy.to_vec());
                    let period = Duration::from_secs(u64::from(count)) / per_second;
                    let first = now() + Duration::from_secs(1) / per_second * nth;
                    let client =
                        Client { kind, server, device, busy, name: format!("{device}{nth}"), stream: None };
                    threads.push(thread::spawn(move || client.keep_time(first, period, &stop)));
                }
            }
        }
        Clients { stop, threads }
    }

    /// What became of all requests.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    }
}

struct Client {
    kind: Kind,
    server: SocketAddr,
    device: &'static str,
    busy: Vec<Container>,
    name: String,
    /// Kept open from one request to the next, as a proxy does not, so that nothing but the server is measured.
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    fn keep_time(mut self, first: Duration, period: Duration, stop: &AtomicBool) -> Vec<Answer> {
        let mut answers = Vec::new();
        for number in 0_u32.. {
            let due = first + period * number;
            thread::sleep(due.saturating_sub(now()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let container = number as usize % self.busy.len();
            let object = format!("{:?}/{}/{number:06}", self.kind, self.name);
            let refused = self.ask(container, &object).err();
            if refused.is_some() {
                self.stream = None;
            }
            let kind = self.kind;
            answers.push(Answer { kind, due, wait: now() - due, container, object, refused });
        }
        answers
    }

    fn ask(&mut self, container: usize, object: &str) -> Result<(), String> {
        let busy = &self.busy[container];
        let (device, stamp) = (self.device, Timestamp::at(SystemTime::now()));
        let head = match self.kind {
            Kind::Row => format!(
                "PUT /{device}/{}/{ACCOUNT}/{}/{object} HTTP/1.1\r\nX-Size: 4096\r\nX-Content-Type: image/jpeg\r\n\
                 X-Etag: {}\r\n",
                busy.partition.0,
                busy.name,
                workshop::ETAG
            ),
            Kind::Create => {
                let created = Container::new(object.replace('/', "-"));
                format!(
                    "PUT /{device}/{}/{ACCOUNT}/{} HTTP/1.1\r\nX-Backend-Storage-Policy-Default: 0\r\n",
                    created.partition.0, created.name
                )
            }
            Kind::List => format!(
                "GET /{device}/{}/{ACCOUNT}/{}?format=json&limit=100 HTTP/1.1\r\n",
                busy.partition.0, busy.name
            ),
        };
        let request = format!(
            "{head}Host: {}\r\nX-Timestamp: {stamp}\r\nX-Backend-Storage-Policy-Index: 0\r\nContent-Length: 0\r\n\r\n",
            self.server
        );
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(self.server).map_err(|error| error.to_string())?),
        };
        let status = exchange(stream, &request).map_err(|error| error.to_string())?;
        if (200..300).contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
    }
}

fn connect(server: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Says a request, and reads all of the answer.
fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<u16> {
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut status, mut length) = (0, 0);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some(answer) = text.strip_prefix("HTTP/1.1 ") {
            status = answer.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
        }
        if let Some((_, count)) =
            text.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        {
            length = count.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(status)
}

/// Requests a second to each server, and by how many clients in turn.
const MIX: [(Kind, u32, u32); 3] = [(Kind::Row, 40, 8), (Kind::Create, 1, 2), (Kind::List, 4, 2)];
/// A proxy gives up after ten seconds; here everybody waits to the end.
const PATIENCE: Duration = Duration::from_secs(120);
