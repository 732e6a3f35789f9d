//! Is a process that wrote something down still there, and does anybody listen on a port? Asked of the kernel, in passing:
//! no lock is taken and nobody is called, so that asking disturbs no one.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A process, told from every other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did.
    started: u64,
    /// Which start of the machine that was.
    boot: String,
}

impl Process {
    /// This one.
    pub fn this() -> Process {
        let pid = std::process::id();
        Process { pid, started: started(pid).unwrap_or(0), boot: boot() }
    }

    /// Does it still run? Not if the kernel hides it from us.
    pub fn is_alive(&self) -> bool {
        self.boot == boot() && started(self.pid) == Some(self.started)
    }
}

/// Does anybody on this machine listen on a TCP port?
pub fn listens(port: u16) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().any(|table| fs::read_to_string(table).is_ok_and(|text| is_listened_on(&text, port)))
}

/// The table of TCP sockets: a number, our address, theirs, the state.
fn is_listened_on(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next().and_then(|address| address.rsplit(':').next());
        let state = fields.nth(1);
        ours.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port) && state == Some(LISTEN)
    })
}

fn started(pid: u32) -> Option<u64> {
    start_field(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// Field 22 of `/proc/<pid>/stat`. The second is the program's name in brackets, which may hold brackets and blanks.
fn start_field(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    // A process that is dead and not yet waited for does nothing any more.
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if ["Z", "X", "x"].contains(&state) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The kernel's `TCP_LISTEN`.
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let this = Process::this();
        assert!(this.is_alive());
        assert!(!Process { started: this.started + 1, ..this.clone() }.is_alive());
        assert!(!Process { boot: "another".into(), ..this.clone() }.is_alive());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("there is sleep");
        let other = Process { pid: child.id(), started: started(child.id()).expect("it runs"), ..this };
        assert!(other.is_alive());
        child.kill().expect("ours");
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!other.is_alive(), "dead, though nobody waited for it");
        child.wait().expect("ours");
        assert!(!other.is_alive());
    }

    #[test]
    fn a_name_may_hold_brackets() {
        let fields: Vec<String> = (4..30).map(|field| field.to_string()).collect();
        let line = |name: &str, state: &str| format!("17 ({name}) {state} {}", fields.join(" "));
        assert_eq!(start_field(&line("agent", "S")), Some(22));
        assert_eq!(start_field(&line("a) R 1 (b", "S")), Some(22));
        assert_eq!(start_field(&line("agent", "Z")), None);
        assert_eq!(start_field("17 (agent"), None);
    }

    #[test]
    fn a_port_is_listened_on_or_only_used() {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = socket.local_addr().expect("an address").port();
        assert!(listens(port));
        let call = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        drop(socket);
        assert!(!listens(port));
        drop(call);
    }
}
