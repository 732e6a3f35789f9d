//! `GET /metrics` on the loopback address: as much of HTTP/1.1 as Prometheus and `curl` speak.
//!
//! One request a connection, which is closed after it. Whoever is slow, or sends too much, is cut off after [`Limits`], and
//! while so many are being answered others are told to come again; so nobody can hang it or make it grow. Nothing that is
//! asked has any effect.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::poll::{PollFd, PollFlags, poll};

use super::STACK_BYTES;
use super::exposition::CONTENT_TYPE;
use crate::stop::Stop;

/// Where it listens: whoever wants it from elsewhere puts a proxy before it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What a caller may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Answered at once.
    pub connections: usize,
    /// Bytes of a request, all its headers included.
    pub request_bytes: usize,
    /// Time to send it.
    pub request: Duration,
    /// Time to take the answer.
    pub answer: Duration,
}

impl Limits {
    /// Enough for two scrapers and a person.
    pub const USUAL: Limits = Limits {
        connections: 4,
        request_bytes: 8 << 10,
        request: Duration::from_secs(5),
        answer: Duration::from_secs(10),
    };
}

/// Opens the port.
///
/// # Errors
/// As the system says.
pub fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((ADDRESS, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until told not to. `page` is the text; it may take some seconds, and there may be none.
pub fn serve(
    listener: &TcpListener,
    until: &Stop,
    limits: Limits,
    page: &(impl Fn() -> Option<Arc<str>> + Clone + Send + 'static),
) {
    let answering = Arc::new(AtomicUsize::new(0));
    while !until.wished() {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Whether it ends for a caller, the time or a signal, the next look tells.
                let _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], ACCEPT_WAIT_MILLIS);
                continue;
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are open will end.
                debug!("cannot accept a scraper: {error}");
                until.sleep(Duration::from_secs(1));
                continue;
            }
        };
        if answering.fetch_add(1, Ordering::SeqCst) >= limits.connections {
            answering.fetch_sub(1, Ordering::SeqCst);
            turn_away(stream);
            continue;
        }
        let (page, left) = (page.clone(), Left(answering.clone()));
        let answer = move || {
            let _left = left;
            if let Err(error) = answer(stream, limits, &page) {
                debug!("a scraper left: {error}");
            }
        };
        if let Err(error) = thread::Builder::new().name("scrape".into()).stack_size(STACK_BYTES).spawn(answer)
        {
            warn!("no thread for a scraper: {error}");
        }
    }
}

/// One fewer is being answered.
struct Left(Arc<AtomicUsize>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says that there are too many, without waiting for anything.
fn turn_away(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(&Answer::plain("503 Service Unavailable", "busy, come again").bytes(true));
    // What was asked is taken from the system's hands: else it takes back what we said.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 1024]);
}

fn answer(mut stream: TcpStream, limits: Limits, page: &impl Fn() -> Option<Arc<str>>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let asked = hear(&mut stream, limits)?;
    let (answer, with_body) = match asked {
        Asked::Page { with_body } => (metrics(page()), with_body),
        Asked::Other(answer) => (answer, true),
    };
    say(&mut stream, &answer.bytes(with_body), limits)?;
    linger(&mut stream)
}

fn metrics(page: Option<Arc<str>>) -> Answer {
    match page {
        Some(text) => Answer { status: "200 OK", content_type: CONTENT_TYPE, body: text, more: "" },
        None => Answer::plain("503 Service Unavailable", "nothing is known yet, come again"),
    }
}

/// What somebody wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The metrics; else only how it would be answered.
    Page { with_body: bool },
    /// What we do not have, or do not understand.
    Other(Answer),
}

/// Reads a request to the end of its headers.
fn hear(stream: &mut TcpStream, limits: Limits) -> io::Result<Asked> {
    let deadline = Instant::now() + limits.request;
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Asked::Other(Answer::plain("408 Request Timeout", "too slow")));
        }
        stream.set_read_timeout(Some(left))?;
        let room = (limits.request_bytes + 1 - heard.len()).min(buffer.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => heard.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(head) = head(&heard).filter(|head| head.len() <= limits.request_bytes) {
            return Ok(asked(head));
        }
        if heard.len() > limits.request_bytes {
            return Ok(Asked::Other(Answer::plain("431 Request Header Fields Too Large", "too long")));
        }
    }
}

/// A request up to and with the empty line that ends its headers.
fn head(heard: &[u8]) -> Option<&[u8]> {
    let end = |mark: &[u8]| heard.windows(mark.len()).position(|part| part == mark).map(|at| at + mark.len());
    let ends = [end(b"\r\n\r\n"), end(b"\n\n")];
    ends.into_iter().flatten().min().map(|end| &heard[..end])
}

fn asked(head: &[u8]) -> Asked {
    let bad = || Asked::Other(Answer::plain("400 Bad Request", "that is no request of HTTP/1"));
    let Some(line) = head.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok())
    else {
        return bad();
    };
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else { return bad() };
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Asked::Page { with_body: true },
        ("HEAD", "/metrics") => Asked::Page { with_body: false },
        (_, "/metrics") => {
            let plain = Answer::plain("405 Method Not Allowed", "GET it");
            Asked::Other(Answer { more: "Allow: GET, HEAD\r\n", ..plain })
        }
        _ => Asked::Other(Answer::plain("404 Not Found", ONLY)),
    }
}

/// What is said.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// Further headers, each with its end.
    more: &'static str,
    body: Arc<str>,
}

impl Answer {
    fn plain(status: &'static str, body: &str) -> Answer {
        let content_type = "text/plain; charset=utf-8";
        Answer { status, content_type, more: "", body: format!("{body}\n").into() }
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let Answer { status, content_type, more, body } = self;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        if with_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

fn say(stream: &mut TcpStream, mut bytes: &[u8], limits: Limits) -> io::Result<()> {
    let deadline = Instant::now() + limits.answer;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a caller who sent more than was read the time to take the answer, before the system tells it that nobody reads.
fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER;
    let (mut buffer, mut left_over) = ([0; 1024], LINGER_BYTES);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || left_over == 0 {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => left_over = left_over.saturating_sub(length),
        }
    }
}

/// What is answered to whoever asks for something else.
pub const ONLY: &str = "an agent of swiftlet has only /metrics";
/// How long it may take until the wish to end is seen.
const ACCEPT_WAIT_MILLIS: u16 = 100;
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Limits = Limits {
        connections: 2,
        request_bytes: 300,
        request: Duration::from_millis(400),
        answer: Duration::from_millis(400),
    };

    /// Something that answers with a text, until it goes.
    struct Served {
        port: u16,
        over: Stop,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Served {
        fn with(text: Option<&str>) -> Served {
            let listener = bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let over = Stop::default();
            let (until, text) = (over.clone(), text.map(Arc::<str>::from));
            let serving = move || serve(&listener, &until, SHORT, &move || text.clone());
            Served { port, over, thread: Some(thread::spawn(serving)) }
        }

        fn call(&self) -> TcpStream {
            TcpStream::connect((ADDRESS, self.port)).expect("it listens")
        }

        fn ask(&self, request: &[u8]) -> String {
            let mut stream = self.call();
            stream.write_all(request).expect("sent");
            heard(&mut stream)
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.over.wish();
            self.thread.take().expect("it runs").join().expect("it ends");
        }
    }

    fn heard(stream: &mut TcpStream) -> String {
        let mut answer = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.read_to_string(&mut answer).expect("an answer, or an end");
        answer
    }

    const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn what_is_asked_for_is_answered_and_all_else_is_refused() {
        let served = Served::with(Some("a 1\n"));
        for get in [GET, b"GET /metrics HTTP/1.0\n\n", b"GET /metrics?a=b HTTP/1.1\r\n\r\nand more"] {
            let answer = served.ask(get);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(
                answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
                "{answer}"
            );
            assert!(answer.contains("\r\nContent-Length: 4\r\n"), "{answer}");
            assert!(answer.ends_with("\r\nConnection: close\r\n\r\na 1\n"), "{answer}");
        }
        let head = served.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
            (b"GET /metrics/../x HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
            (b"GET /metrics\r\n\r\n", "400 Bad Request"),
            (b"GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request"),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            (b"\r\n\r\n", "400 Bad Request"),
            (b"\xff\xfe\x00\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = served.ask(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {answer}");
        }
        assert!(Served::with(None).ask(GET).starts_with("HTTP/1.1 503 "), "nothing to tell yet");
    }

    #[test]
    fn a_request_may_be_as_long_as_the_limit_and_no_longer() {
        let served = Served::with(Some("a 1\n"));
        let of = |length: usize| {
            let mut request = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
            request.resize(length - 4, b'x');
            request.extend_from_slice(b"\r\n\r\n");
            served.ask(&request)
        };
        assert!(of(SHORT.request_bytes).starts_with("HTTP/1.1 200 "));
        assert!(of(SHORT.request_bytes + 1).starts_with("HTTP/1.1 431 "));
        assert!(of(SHORT.request_bytes * 50).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn who_is_slow_is_cut_off_and_does_not_keep_others_waiting() {
        let served = Served::with(Some("a 1\n"));
        let begun = Instant::now();
        let mut silent = served.call();
        let mut slow = served.call();
        slow.write_all(b"GET /me").expect("sent");
        thread::sleep(Duration::from_millis(100));
        assert!(served.ask(GET).starts_with("HTTP/1.1 503 "), "two are being answered");
        // Letter by letter it does not get more time.
        let drip = slow.try_clone().expect("another");
        let dripping = thread::spawn(move || {
            let mut drip = drip;
            while drip.write_all(b"x").is_ok() && begun.elapsed() < Duration::from_secs(10) {
                thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(heard(&mut silent).starts_with("HTTP/1.1 408 "));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        dripping.join().expect("it was cut off");
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        thread::sleep(LINGER);
        assert!(served.ask(GET).starts_with("HTTP/1.1 200 "), "there is room again");
    }

    #[test]
    fn who_does_not_take_the_answer_is_cut_off() {
        let large = "x".repeat(32 << 20);
        let served = Served::with(Some(&large));
        let begun = Instant::now();
        let mut deaf: Vec<TcpStream> = (0..2).map(|_| served.call()).collect();
        deaf.iter_mut().for_each(|stream| stream.write_all(GET).expect("sent"));
        let mut answer = String::new();
        while !answer.starts_with("HTTP/1.1 404 ") {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody is cut off");
            thread::sleep(Duration::from_millis(50));
            answer = served.ask(b"GET / HTTP/1.1\r\n\r\n");
        }
        assert!(begun.elapsed() >= SHORT.answer);
    }

    #[test]
    fn a_port_can_be_had_again_at_once() {
        let served = Served::with(Some("a 1\n"));
        let port = served.port;
        assert!(served.ask(GET).starts_with("HTTP/1.1 200 "));
        assert!(bind(port).is_err(), "it is taken");
        drop(served);
        bind(port).expect("nobody has it");
    }
}
