//! Where log lines go: standard error, the journal, or syslog as Swift's daemons do.
//!
//! Lines are Swift's: `<log_name>: ` before the message, control characters as `#012`, long ones cut in the middle
//! (`swift/common/utils/logs.py: get_swift_logger, SwiftLogFormatter`). Swift has a level between INFO and WARNING for
//! starts and stops; `log` has none, so a record of level info with the target [`NOTICE`] stands for it:
//! `log::info!(target: "notice", "Starting {pid}")`.
//!
//! A complaint that was made a moment ago is not made again but counted ([`super::repeats`]); nothing is held back in a
//! verbose log. What a line is about besides its words (`peer = …; "…"`) is for the [`super::journal`]'s fields.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use super::journal::{Entry, Journal};
use super::repeats::{Line, Repeats};
use super::terminal;
use super::text::{cut_middle, printable, utc};

/// The target that makes an info record Swift's NOTICE.
pub const NOTICE: &str = "notice";

/// The options of the conf file that begin with `log_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `log_name`, the word before each message.
    pub name: String,
    /// `log_level` ([`level`]); less important lines are dropped.
    pub level: LevelFilter,
    /// `log_facility` ([`facility`]).
    pub facility: u8,
    /// `log_address`: the socket of the syslog daemon.
    pub address: PathBuf,
    /// `log_udp_host` and `log_udp_port`: a syslog daemon elsewhere, instead of the socket.
    pub udp: Option<(String, u16)>,
    /// `log_max_line_length`, in characters; 0 leaves it to us.
    pub line_length_max: usize,
    /// Whether complaints that are repeated are told each time.
    pub tells_repeats: bool,
}

impl Default for LogSettings {
    /// Swift's defaults.
    fn default() -> LogSettings {
        LogSettings {
            name: "container-replicator".to_owned(),
            level: LevelFilter::Info,
            facility: facility("LOG_LOCAL0"),
            address: PathBuf::from("/dev/log"),
            udp: None,
            line_length_max: 0,
            tells_repeats: false,
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// To standard error, with the time and the level.
    Stderr,
    /// To the syslog daemon, which knows the time.
    Syslog,
    /// To the journal, which knows the time as well.
    Journal,
}

/// Makes this the logger of the process.
///
/// # Errors
/// If there is one already; that one stays.
pub fn install(settings: LogSettings, sink: Sink) -> Result<(), SetLoggerError> {
    let level = settings.level;
    log::set_logger(Box::leak(Box::new(Logger::new(settings, sink))))?;
    log::set_max_level(level);
    Ok(())
}

/// Reads `log_level`; what Python's `logging` does not know means INFO, as in Swift.
pub fn level(name: &str) -> LevelFilter {
    match name.to_ascii_uppercase().as_str() {
        "DEBUG" => LevelFilter::Debug,
        "WARNING" | "WARN" => LevelFilter::Warn,
        "ERROR" | "CRITICAL" | "FATAL" => LevelFilter::Error,
        _ => LevelFilter::Info,
    }
}

/// Reads `log_facility`; an unknown name means `LOG_LOCAL0`, as in Swift.
pub fn facility(name: &str) -> u8 {
    let number = FACILITIES.iter().position(|known| name.strip_prefix("LOG_") == Some(known));
    number.map_or(LOCAL0, |number| number as u8)
}

struct Logger {
    settings: LogSettings,
    output: Output,
    /// Complaints of late; `None` if all are told.
    repeats: Option<Mutex<Repeats<Severity>>>,
}

enum Output {
    Stderr { colour: bool },
    Syslog(Syslog),
    Journal(Journal),
}

impl Logger {
    fn new(settings: LogSettings, sink: Sink) -> Logger {
        let output = match sink {
            Sink::Stderr => Output::Stderr { colour: terminal::wants_colour(&std::io::stderr()) },
            Sink::Syslog => Output::Syslog(Syslog::new(&settings)),
            Sink::Journal => Output::Journal(Journal::usual()),
        };
        let repeats = (!settings.tells_repeats).then(|| Mutex::new(Repeats::default()));
        Logger { settings, output, repeats }
    }

    fn repeats(&self) -> Option<MutexGuard<'_, Repeats<Severity>>> {
        self.repeats.as_ref().map(|repeats| repeats.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells a line; `record` is what says it, if it is not told for its count only.
    fn tell(&self, told: &Line<Severity>, record: Option<&Record<'_>>) {
        let severity = told.kind;
        let message = match (told.more, told.is_past) {
            (0, _) => told.text.clone(),
            (more, true) => format!("{} (said {})", told.text, times_more(more)),
            (more, false) => format!("{} (said {} before)", told.text, times_more(more)),
        };
        match &self.output {
            Output::Stderr { colour } => {
                let line = line(&self.settings, &message);
                terminal::say(&stamped(SystemTime::now(), severity, *colour, &line));
            }
            Output::Syslog(syslog) => {
                syslog.send(&self.settings.address, severity, &line(&self.settings, &message));
            }
            Output::Journal(journal) => {
                let entry = entry(&self.settings, severity, &message, told.more, record);
                if !journal.send(&entry) {
                    terminal::say(&format!("<{}>{}", severity as u8, line(&self.settings, &message)));
                }
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.settings.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = Severity::of(record);
        let text = record.args().to_string();
        let lines = match self.repeats() {
            Some(mut repeats) if severity.is_complaint() => repeats.say(severity, &text, Instant::now()),
            past => {
                let mut lines = past.map_or_else(Vec::new, |mut repeats| repeats.past(Instant::now()));
                lines.push(Line { kind: severity, text, more: 0, is_past: false });
                lines
            }
        };
        for line in &lines {
            self.tell(line, (!line.is_past).then_some(record));
        }
    }

    /// Tells how often what was held back was said: nothing comes any more.
    fn flush(&self) {
        let lines = self.repeats().map_or_else(Vec::new, |mut repeats| repeats.end());
        lines.iter().for_each(|line| self.tell(line, None));
    }
}

fn times_more(more: u64) -> String {
    if more == 1 { "once more".to_owned() } else { format!("{more} times more") }
}

/// The line as it goes into the journal, which shows the name and the time itself.
fn entry(
    settings: &LogSettings,
    severity: Severity,
    message: &str,
    more: u64,
    record: Option<&Record<'_>>,
) -> Entry {
    let mut entry = Entry::default();
    entry.put("PRIORITY", &(severity as u8).to_string());
    entry.put("SYSLOG_FACILITY", &settings.facility.to_string());
    entry.put("SYSLOG_IDENTIFIER", &settings.name);
    entry.put("SYSLOG_PID", &std::process::id().to_string());
    entry.put("MESSAGE", &cut(settings, message));
    if let Some(record) = record {
        entry.put("CODE_FILE", record.file().unwrap_or_default());
        entry.put("CODE_LINE", &record.line().unwrap_or_default().to_string());
        entry.put_pairs(record.key_values());
    }
    if more > 0 {
        entry.put_pairs(&("repeated", more));
    }
    entry
}

/// The message as it goes into a log, without time and level.
fn line(settings: &LogSettings, message: &str) -> String {
    cut(settings, &format!("{}: {message}", settings.name))
}

/// One line of text, no longer than it may be.
fn cut(settings: &LogSettings, text: &str) -> String {
    let limit = match settings.line_length_max {
        0 => LINE_LIMIT,
        chosen => chosen.min(LINE_LIMIT),
    };
    cut_middle(&printable(text), limit).into_owned()
}

/// The line as it goes to standard error.
fn stamped(now: SystemTime, severity: Severity, colour: bool, line: &str) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (paint, plain) = if colour { (severity.paint(), "\x1b[0m") } else { ("", "") };
    let (time, millis, word) = (utc(since.as_secs()), since.subsec_millis(), severity.word());
    format!("{time}.{millis:03} {paint}{word:<7}{plain} {line}")
}

/// Levels with Swift's NOTICE among them; the numbers are those of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

impl Severity {
    fn of(record: &Record<'_>) -> Severity {
        match record.level() {
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warning,
            Level::Info if record.target() == NOTICE => Severity::Notice,
            Level::Info => Severity::Info,
            Level::Debug | Level::Trace => Severity::Debug,
        }
    }

    /// Worth telling once, and not over and over.
    fn is_complaint(self) -> bool {
        matches!(self, Severity::Error | Severity::Warning)
    }

    fn word(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Info => "INFO",
            Severity::Debug => "DEBUG",
        }
    }

    fn paint(self) -> &'static str {
        match self {
            Severity::Error => "\x1b[31m",
            Severity::Warning => "\x1b[33m",
            Severity::Notice => "\x1b[36m",
            Severity::Info => "",
            Severity::Debug => "\x1b[2m",
        }
    }
}

/// The ways to a syslog daemon. A line that none of them takes is lost, and nobody is kept waiting for it.
struct Syslog {
    facility: u8,
    /// Not connected, so that a daemon that was restarted is found again; absent if lines go to another host.
    local: Option<UnixDatagram>,
    /// To the other host, or to this one's port 514 for when the socket is missing.
    remote: Option<UdpSocket>,
}

impl Syslog {
    fn new(settings: &LogSettings) -> Syslog {
        let local = if settings.udp.is_some() { None } else { UnixDatagram::unbound().ok() };
        if let Some(socket) = &local {
            let _ = socket.set_write_timeout(Some(SEND_TIMEOUT));
        }
        let (host, port) = settings.udp.clone().unwrap_or_else(|| ("localhost".to_owned(), SYSLOG_PORT));
        Syslog { facility: settings.facility, local, remote: connect(&host, port) }
    }

    fn send(&self, address: &Path, severity: Severity, line: &str) {
        let packet = format!("<{}>{line}\0", u16::from(self.facility) * 8 + severity as u16);
        let sent = self.local.as_ref().is_some_and(|local| local.send_to(packet.as_bytes(), address).is_ok());
        if let (false, Some(remote)) = (sent, &self.remote) {
            let _ = remote.send(packet.as_bytes());
        }
    }
}

fn connect(host: &str, port: u16) -> Option<UdpSocket> {
    (host, port).to_socket_addrs().ok()?.find_map(|address| {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(address).ok()?;
        Some(socket)
    })
}

/// In the order of their numbers, from 0.
const FACILITIES: [&str; 24] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
    "NTP", "SECURITY", "CONSOLE", "SOLCRON", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5",
    "LOCAL6", "LOCAL7",
];

/// The number of `LOG_LOCAL0`.
const LOCAL0: u8 = 16;

/// Where syslog daemons listen.
const SYSLOG_PORT: u16 = 514;

/// The longest line whatever the conf file says, in characters: at four bytes each, it still fits a UDP packet.
const LINE_LIMIT: usize = 8 * 1024;

/// A syslog daemon that hangs may delay a line by this much.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(logger: &Logger, level: Level, target: &str, message: &str) {
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
    }

    fn hear(socket: &UnixDatagram) -> String {
        let mut packet = [0; 64 * 1024];
        let length = socket.recv(&mut packet).expect("a packet");
        String::from_utf8(packet[..length].to_vec()).expect("text")
    }

    #[test]
    fn levels_and_facilities_are_read_as_swift_reads_them() {
        use LevelFilter::{Debug, Error, Info, Warn};
        let table = [
            ("debug", Debug),
            ("INFO", Info),
            ("WARN", Warn),
            ("Warning", Warn),
            ("CRITICAL", Error),
            ("loud", Info),
        ];
        for (name, expected) in table {
            assert_eq!(level(name), expected, "{name}");
        }
        let table =
            [("LOG_KERN", 0), ("LOG_DAEMON", 3), ("LOG_LOCAL0", 16), ("LOG_LOCAL7", 23), ("LOCAL7", 16)];
        for (name, expected) in table {
            assert_eq!(facility(name), expected, "{name}");
        }
    }

    #[test]
    fn a_line_is_one_line_with_its_name_before_it() {
        let settings = LogSettings::default();
        assert_eq!(line(&settings, "one\ntwo"), "container-replicator: one#012two");
        assert_eq!(line(&settings, &"x".repeat(100_000)).len(), LINE_LIMIT - 1);
        let short = LogSettings { line_length_max: 25, ..settings };
        assert_eq!(line(&short, "a message that is too long"), "container- ... s too long");
    }

    #[test]
    fn standard_error_gets_time_and_level() {
        let time = UNIX_EPOCH + Duration::from_millis(1_750_000_000_042);
        assert_eq!(
            stamped(time, Severity::Info, false, "agent: x"),
            "2025-06-15 15:06:40.042 INFO    agent: x"
        );
        assert!(stamped(time, Severity::Error, true, "agent: x").contains("\x1b[31mERROR  \x1b[0m agent: x"));
    }

    #[test]
    fn syslog_hears_the_priority_even_after_it_was_restarted() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = directory.path().join("log");
        let daemon = UnixDatagram::bind(&address).expect("a socket");
        let settings = LogSettings { address: address.clone(), ..LogSettings::default() };
        let logger = Logger::new(settings, Sink::Syslog);
        record(&logger, Level::Info, "swiftlet::pass", "one");
        assert_eq!(hear(&daemon), "<134>container-replicator: one\0");
        record(&logger, Level::Info, NOTICE, "Starting 7");
        assert_eq!(hear(&daemon), "<133>container-replicator: Starting 7\0");

        drop(daemon);
        std::fs::remove_file(&address).expect("removed");
        record(&logger, Level::Error, "swiftlet", "lost");
        let daemon = UnixDatagram::bind(&address).expect("a socket");
        record(&logger, Level::Error, "swiftlet", "two");
        assert_eq!(hear(&daemon), "<131>container-replicator: two\0");
    }

    #[test]
    fn another_host_hears_instead_of_the_socket() {
        let host = UdpSocket::bind("127.0.0.1:0").expect("a port");
        host.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let port = host.local_addr().expect("an address").port();
        let udp = Some(("127.0.0.1".to_owned(), port));
        let logger = Logger::new(LogSettings { udp, facility: 3, ..LogSettings::default() }, Sink::Syslog);
        record(&logger, Level::Warn, "swiftlet", "full");
        let mut packet = [0; 100];
        let length = host.recv(&mut packet).expect("a packet");
        assert_eq!(&packet[..length], b"<28>container-replicator: full\0");
    }

    #[test]
    fn a_complaint_is_told_once_and_counted_and_news_are_told_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = directory.path().join("log");
        let daemon = UnixDatagram::bind(&address).expect("a socket");
        daemon.set_nonblocking(true).expect("set");
        let heard = || {
            let mut packet = [0; 1024];
            daemon
                .recv(&mut packet)
                .ok()
                .map(|length| String::from_utf8_lossy(&packet[..length]).into_owned())
        };
        let settings = LogSettings { address, name: "agent".to_owned(), ..LogSettings::default() };
        let logger = Logger::new(settings.clone(), Sink::Syslog);
        for _ in 0..3 {
            record(&logger, Level::Warn, "swiftlet", "down");
            record(&logger, Level::Info, "swiftlet", "a pass");
        }
        assert_eq!(heard().as_deref(), Some("<132>agent: down\0"));
        for _ in 0..3 {
            assert_eq!(heard().as_deref(), Some("<134>agent: a pass\0"));
        }
        assert_eq!(heard(), None);
        logger.flush();
        assert_eq!(heard().as_deref(), Some("<132>agent: down (said 2 times more)\0"));
        assert_eq!(heard(), None);
        let logger = Logger::new(LogSettings { tells_repeats: true, ..settings }, Sink::Syslog);
        for _ in 0..3 {
            record(&logger, Level::Warn, "swiftlet", "down");
            assert_eq!(heard().as_deref(), Some("<132>agent: down\0"));
        }
    }

    #[test]
    fn the_journal_is_told_what_a_line_is_about() {
        let pairs = [("peer", "10.0.0.2:6201/sdb1")];
        let args = format_args!("ERROR syncing");
        let record = Record::builder()
            .level(Level::Error)
            .file(Some("a.rs"))
            .line(Some(7))
            .args(args)
            .key_values(&pairs)
            .build();
        let made = entry(&LogSettings::default(), Severity::of(&record), "ERROR syncing", 3, Some(&record));
        let expected = format!(
            "PRIORITY=3\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=container-replicator\nSYSLOG_PID={}\n\
             MESSAGE=ERROR syncing\nCODE_FILE=a.rs\nCODE_LINE=7\nSWIFTLET_PEER=10.0.0.2:6201/sdb1\n\
             SWIFTLET_REPEATED=3\n",
            std::process::id()
        );
        assert_eq!(made.text(), expected);
    }

    #[test]
    fn what_is_below_the_level_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = directory.path().join("log");
        let daemon = UnixDatagram::bind(&address).expect("a socket");
        let settings = LogSettings { address, level: LevelFilter::Warn, ..LogSettings::default() };
        let logger = Logger::new(settings, Sink::Syslog);
        record(&logger, Level::Info, NOTICE, "dropped");
        record(&logger, Level::Warn, "swiftlet", "kept");
        assert_eq!(hear(&daemon), "<132>container-replicator: kept\0");
    }
}
