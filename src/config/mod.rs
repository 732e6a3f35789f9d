//! The conf files, every default filled in.
//!
//! We read the file that Swift's container daemons of this node read, and take each option as they do: same name, same
//! default, same meaning, `[container-replicator]` over `[DEFAULT]`. What is ours alone begins with `agent_`. Beside it
//! stands `swift.conf`, which holds the salt of the cluster's hashes.
//!
//! Everything is parsed once, here, so that a slip of the pen stops the agent before it touches a database, and nothing
//! above meets a text where it wants a number. Swift lets senseless numbers through (`concurrency = 0`,
//! `handoff_delete = -1`); we do not.

mod address;
pub mod ini;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use crate::hash_path::HashSalt;
use ini::{Dialect, Ini, IniError, Options};

pub use address::{RsyncDevice, is_host_name, is_local_device, my_addresses, rsync_module};

/// The conf file that is read if no other is named.
pub const DEFAULT_PATH: &str = "/etc/swift/container-server.conf";
/// The section that is ours, shared with Swift's replicator.
pub const SECTION: &str = "container-replicator";
/// Where an agent keeps its state if no other place is named. It does not make this one: the package does.
pub const STATE_PATH: &str = "/var/lib/swiftlet";
/// Where Swift itself looks for `swift.conf`, wherever its rings are.
pub const SWIFT_CONF: &str = "/etc/swift/swift.conf";

/// What the operator has set, with Swift's defaults for the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where drives are mounted; default `/srv/node`.
    pub devices: PathBuf,
    /// Whether a drive must be a mount point; default true.
    pub mount_check: bool,
    /// The address we listen on and find our devices by; default `0.0.0.0`, which is all of this node's.
    pub bind_ip: String,
    /// The port of this node's container server, by which the ring knows our devices; default 6201.
    pub bind_port: u16,
    /// Where the rings are; default `/etc/swift`.
    pub swift_dir: PathBuf,
    /// The user to become when started as root; default `swift`.
    pub user: String,
    /// Whether to stay and run passes; default true, false means one pass.
    pub daemonize: bool,
    /// From the start of one pass to the start of the next; default 30 s.
    pub interval: Duration,
    /// Databases worked on at once, 1 to 1024; default 8.
    pub concurrency: usize,
    /// Databases looked at in a second, unlimited if 0 or less; default 50.
    pub databases_per_second: f64,
    /// Rows in one message, and the distance in rows above which Swift takes other ways; at least 1, default 1000.
    pub per_diff: usize,
    /// Messages of rows for one database and peer in one pass; at least 1, default 100.
    pub max_diffs: usize,
    /// How long a peer may take for an answer; more than 0, default 10 s.
    pub node_timeout: Duration,
    /// How long a peer may take to accept a connection; more than 0, default 0.5 s.
    pub conn_timeout: Duration,
    /// How old a tombstone must be to be forgotten; default 7 days.
    pub reclaim_age: Duration,
    /// Whether to move handoffs home and do nothing else; default false.
    pub handoffs_only: bool,
    /// After how many successes a handoff may go; `None`, Swift's `auto` and 0, for all. See
    /// [`Config::handoff_delete_within`].
    pub handoff_delete: Option<usize>,
    /// Where `container.recon` is; default `/var/cache/swift`.
    pub recon_cache_path: PathBuf,
    /// What must stay free on a drive; default 1 %.
    pub fallocate_reserve: Reserve,
    /// Whether not to ask for space before writing; default false.
    pub disable_fallocate: bool,
    /// Whether databases ask for space before they grow; default false.
    pub db_preallocation: bool,
    /// Scheduling priority, -20 to 19; default unchanged.
    pub nice_priority: Option<i8>,
    /// Priority on the drives; default unchanged.
    pub ionice: Option<IoNice>,
    /// The template of rsync modules, for Swift's replicator; default `{replication_ip}::container`.
    pub rsync_module: String,
    /// Whether rsync compresses between regions; default false.
    pub rsync_compress: bool,
    /// Where logs go and how much of them.
    pub log: LogOptions,
    /// Where metrics go.
    pub statsd: StatsdOptions,
    /// What is ours alone.
    pub agent: AgentOptions,
    /// The cluster's secret, from `swift.conf`.
    pub salt: HashSalt,
    /// Whether `swift.conf` has more than one `[storage-policy:N]`.
    pub several_policies: bool,
    /// What the operator should mend before it stops working.
    pub warnings: Vec<Warning>,
}

/// What must stay free on a drive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// So many bytes.
    Bytes(u64),
    /// A share of its size, 0 to 100.
    Percent(f64),
}

/// Priority on the drives, as `ioprio_set` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoNice {
    /// Which queue.
    pub class: IoClass,
    /// The place in it, 0 (first) to 7; default 0.
    pub priority: u8,
}

/// The scheduling class of input and output, with the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// Before all others.
    Realtime = 1,
    /// In turn with others.
    BestEffort = 2,
    /// When nobody else wants the drive.
    Idle = 3,
}

/// Options named `log_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Prefix of lines and metrics; default `container-replicator`.
    pub name: String,
    /// The least that is logged; default and for unknown words `Info`.
    pub level: LevelFilter,
    /// The syslog facility's number; default and for unknown words 16, `LOG_LOCAL0`.
    pub facility: u8,
    /// The syslog socket; default `/dev/log`.
    pub address: PathBuf,
    /// The syslog server, instead of the socket; default none.
    pub udp_host: Option<String>,
    /// Its port; default 514.
    pub udp_port: u16,
    /// The longest line in characters, the middle of longer ones is cut; default 0, no limit.
    pub max_line_length: usize,
}

/// Options named `log_statsd_`.
#[derive(Debug, Clone, PartialEq)]
pub struct StatsdOptions {
    /// The server; default none, which sends nothing.
    pub host: Option<String>,
    /// Its port; default 8125.
    pub port: u16,
    /// The share of events sent, 0 to 1; default 1.
    pub default_sample_rate: f64,
    /// What every sample rate is multiplied by, at least 0; default 1.
    pub sample_rate_factor: f64,
    /// Put before every metric; default nothing.
    pub metric_prefix: String,
    /// Whether to send at all under the names without labels; default true.
    pub emit_legacy: bool,
}

/// Options named `agent_`, which Swift does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// `agent_port_offset`: how far above a container server's port its agent listens; default 1000.
    pub port_offset: u16,
    /// `agent_passes`: whether a daemon runs passes, or only serves peers; default yes.
    pub passes: bool,
    /// `agent_memory_budget`: what all workers together may allocate, in bytes or with `KiB`, `MiB`, `GiB`; at least
    /// 1 MiB, default 32 MiB.
    pub memory_budget_bytes: u64,
    /// `agent_compress`: whether what is sent of a file is compressed; default `auto`.
    pub compress: Compress,
    /// `agent_bandwidth`: what each peer may be sent a second, in bytes or with `KiB`, `MiB`, `GiB`; at least 16 KiB,
    /// default 0, no limit.
    pub bandwidth_bytes_per_sec: Option<u64>,
    /// `agent_drive_latency_ms`: how long a commit on a drive may take before we go easy on it, in milliseconds; 0 for
    /// never, default 100.
    pub drive_latency: Option<Duration>,
    /// `agent_full_check_interval`: within how many seconds every database is looked into and introduced to its peers at least
    /// once, changed or not; default a day.
    pub full_check_interval: Duration,
    /// `agent_state_path`: where is remembered what `agent status` tells of passes that are over; default
    /// [`STATE_PATH`].
    pub state_path: PathBuf,
    /// `agent_metrics_port`: where on the loopback address a daemon answers Prometheus; default none.
    pub metrics_port: Option<u16>,
    /// `agent_textfile_path`: the file that the same is written to for node_exporter; default none.
    pub textfile_path: Option<PathBuf>,
    /// `agent_swift_conf`: another `swift.conf` than the one in `swift_dir`, or else in `/etc/swift`.
    pub swift_conf: Option<PathBuf>,
}

/// Whether what is sent of a file is compressed. Rows always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// Where the link is slower than the compressor.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// Something in the conf file that works, but not for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// `run_pause` is the old name of `interval`.
    RunPause {
        /// Because `interval` is there too.
        ignored: bool,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::RunPause { ignored: false } => {
                f.write_str("option run_pause is deprecated: call it interval")
            }
            Warning::RunPause { ignored: true } => {
                f.write_str("option run_pause is deprecated, and ignored because interval is set")
            }
        }
    }
}

impl Config {
    /// Reads the conf file, or the `*.conf` of a directory in the order of their names, and then `swift.conf`.
    ///
    /// # Errors
    /// Whatever is missing, unreadable or senseless; nothing of it passes by itself.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let options = load_options(path)?;
        let cluster = Cluster::load(&options)?;
        Config::new(&options, cluster)
    }

    /// The same from texts: of one conf file and of `swift.conf`.
    ///
    /// # Errors
    /// As [`Config::load`], under the names `container-server.conf` and `swift.conf`.
    pub fn from_text(conf: &str, swift_conf: &[u8]) -> Result<Config, ConfigError> {
        let path = Path::new("container-server.conf");
        let mut ini = Ini::new(Dialect::Server);
        ini.read(path, conf)?;
        Config::new(&own_section(path, &ini)?, Cluster::parse(Path::new("swift.conf"), swift_conf)?)
    }

    /// The same from the options of our section.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`], [`ConfigError::UnknownOption`] or [`ConfigError::PortTooHigh`].
    pub fn new(options: &Options, cluster: Cluster) -> Result<Config, ConfigError> {
        let typed = Typed(options);
        let pause = typed.set("interval").map_or("run_pause", |_| "interval");
        let rsync_module = typed.text("rsync_module", "").trim_end_matches('/').to_owned();
        let config = Config {
            devices: typed.path("devices", "/srv/node")?,
            mount_check: typed.truth("mount_check", true),
            bind_ip: typed.set("bind_ip").unwrap_or("0.0.0.0").to_owned(),
            bind_port: typed.whole("bind_port", 1..=u16::MAX, 6201)?,
            swift_dir: swift_dir(options)?,
            user: typed.text("user", "swift"),
            daemonize: typed.truth("daemonize", true),
            interval: typed.set(pause).map_or(Ok(Duration::from_secs(30)), |_| typed.seconds(pause, 30.0))?,
            concurrency: typed.whole("concurrency", 1..=MOST_WORKERS, 8)?,
            databases_per_second: typed.real("databases_per_second", ANY_NUMBER, 50.0)?,
            per_diff: typed.whole("per_diff", 1..=MOST_ROWS, 1000)?,
            max_diffs: match typed.set("max_diffs") {
                Some(_) => typed.whole("max_diffs", 1..=MOST_ROWS, 100)?,
                None => 100,
            },
            node_timeout: typed.timeout("node_timeout", 10.0)?,
            conn_timeout: typed.timeout("conn_timeout", 0.5)?,
            reclaim_age: typed.seconds("reclaim_age", 7.0 * 86400.0)?,
            handoffs_only: typed.truth("handoffs_only", false),
            handoff_delete: typed.handoff_delete()?,
            recon_cache_path: typed.path("recon_cache_path", "/var/cache/swift")?,
            fallocate_reserve: typed.reserve("fallocate_reserve", Reserve::Percent(1.0))?,
            disable_fallocate: typed.truth("disable_fallocate", false),
            db_preallocation: typed.truth("db_preallocation", false),
            nice_priority: match typed.set("nice_priority") {
                Some(_) => Some(typed.whole("nice_priority", -20..=19, 0)?),
                None => None,
            },
            ionice: typed.ionice()?,
            rsync_module: match rsync_module.as_str() {
                "" => "{replication_ip}::container".to_owned(),
                _ => rsync_module,
            },
            rsync_compress: typed.truth("rsync_compress", false),
            log: LogOptions::new(&typed)?,
            statsd: StatsdOptions::new(&typed)?,
            agent: AgentOptions::new(&typed)?,
            salt: cluster.salt,
            several_policies: cluster.several_policies,
            warnings: warnings(options),
        };
        match config.peer_port(config.bind_port) {
            Some(_) => Ok(config),
            None => {
                Err(ConfigError::PortTooHigh { port: config.bind_port, offset: config.agent.port_offset })
            }
        }
    }

    /// The port we listen on: `bind_port` and our offset.
    pub fn listen_port(&self) -> u16 {
        self.peer_port(self.bind_port).expect("checked when the config was made")
    }

    /// The port of the agent beside a container server's replication port; `None` if there is no such port.
    pub fn peer_port(&self, replication_port: u16) -> Option<u16> {
        replication_port.checked_add(self.agent.port_offset)
    }

    /// `handoff_delete` on a ring of so many replicas: at or above them it has no effect, and Swift warns of it
    /// (`swift/common/db_replicator.py: Replicator.__init__`).
    pub fn handoff_delete_within(&self, replica_count: f64) -> Option<usize> {
        self.handoff_delete.filter(|&enough| (enough as f64) < replica_count)
    }
}

impl LogOptions {
    fn new(typed: &Typed) -> Result<LogOptions, ConfigError> {
        Ok(LogOptions {
            name: typed.text("log_name", SECTION),
            level: level(&typed.text("log_level", "INFO")),
            facility: facility(&typed.text("log_facility", "LOG_LOCAL0")),
            address: typed.path("log_address", "/dev/log")?,
            udp_host: typed.set("log_udp_host").map(str::to_owned),
            udp_port: typed.whole("log_udp_port", 1..=u16::MAX, 514)?,
            max_line_length: typed.whole("log_max_line_length", 0..=usize::MAX, 0)?,
        })
    }
}

impl StatsdOptions {
    fn new(typed: &Typed) -> Result<StatsdOptions, ConfigError> {
        Ok(StatsdOptions {
            host: typed.set("log_statsd_host").map(str::to_owned),
            port: typed.whole("log_statsd_port", 1..=u16::MAX, 8125)?,
            default_sample_rate: typed.real("log_statsd_default_sample_rate", 0.0..=1.0, 1.0)?,
            sample_rate_factor: typed.real("log_statsd_sample_rate_factor", 0.0..=f64::MAX, 1.0)?,
            metric_prefix: typed.text("log_statsd_metric_prefix", ""),
            emit_legacy: typed.truth("statsd_emit_legacy", true),
        })
    }
}

impl AgentOptions {
    fn new(typed: &Typed) -> Result<AgentOptions, ConfigError> {
        let misspelt = |name: &&String| name.starts_with("agent_") && !AGENT_OPTIONS.contains(&name.as_str());
        if let Some(option) = typed.0.keys().find(misspelt) {
            return Err(ConfigError::UnknownOption { option: option.clone() });
        }
        Ok(AgentOptions {
            port_offset: typed.whole("agent_port_offset", 0..=u16::MAX, 1000)?,
            passes: typed.yes_or_no("agent_passes", true)?,
            memory_budget_bytes: typed.bytes("agent_memory_budget", 1 << 20..=u64::MAX, 32 << 20)?,
            compress: typed.compress("agent_compress")?,
            bandwidth_bytes_per_sec: match typed.given("agent_bandwidth") {
                None | Some("0") => None,
                Some(_) => Some(typed.bytes("agent_bandwidth", 16 << 10..=u64::MAX, 0)?),
            },
            drive_latency: match typed.whole("agent_drive_latency_ms", 0..=60_000, 100)? {
                0 => None,
                milliseconds => Some(Duration::from_millis(milliseconds)),
            },
            full_check_interval: typed.seconds("agent_full_check_interval", 86400.0)?,
            state_path: typed.path("agent_state_path", STATE_PATH)?,
            metrics_port: match typed.set("agent_metrics_port") {
                Some(_) => Some(typed.whole("agent_metrics_port", 1..=u16::MAX, 0)?),
                None => None,
            },
            textfile_path: typed.file("agent_textfile_path")?,
            swift_conf: typed.set("agent_swift_conf").map(PathBuf::from),
        })
    }
}

fn swift_dir(options: &Options) -> Result<PathBuf, ConfigError> {
    Typed(options).path("swift_dir", "/etc/swift")
}

fn warnings(options: &Options) -> Vec<Warning> {
    let ignored = options.contains_key("interval");
    options.get("run_pause").map(|_| Warning::RunPause { ignored }).into_iter().collect()
}

/// Python's names of levels; syslog has nothing above `Error` that we would log.
fn level(name: &str) -> LevelFilter {
    match name.to_uppercase().as_str() {
        "NOTSET" => LevelFilter::Trace,
        "DEBUG" => LevelFilter::Debug,
        "WARNING" | "WARN" => LevelFilter::Warn,
        "ERROR" | "CRITICAL" | "FATAL" => LevelFilter::Error,
        _ => LevelFilter::Info,
    }
}

/// The names of Python's `SysLogHandler` in the order of their numbers.
fn facility(name: &str) -> u8 {
    const NAMES: [&str; 24] = [
        "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
        "NTP", "SECURITY", "CONSOLE", "SOLCRON", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5",
        "LOCAL6", "LOCAL7",
    ];
    let number = name.strip_prefix("LOG_").and_then(|name| NAMES.iter().position(|&known| known == name));
    number.unwrap_or(16) as u8
}

/// What `swift.conf` says, the same on every node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The prefix and suffix of every hashed path.
    pub salt: HashSalt,
    /// Whether there is more than one storage policy.
    pub several_policies: bool,
}

impl Cluster {
    /// Reads the text of a `swift.conf`, each byte a character, so that a salt may hold any
    /// (`swift/common/utils: validate_hash_conf`). `file` is for the error only.
    ///
    /// # Errors
    /// [`ConfigError::NoSalt`] if neither prefix nor suffix is set, [`ConfigError::Ini`] if it cannot be understood.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Cluster, ConfigError> {
        let mut ini = Ini::new(Dialect::Cluster);
        ini.read(file, &bytes.iter().map(|&byte| char::from(byte)).collect::<String>())?;
        let half = |name: &str| -> Result<Vec<u8>, ConfigError> {
            let text = ini.option("swift-hash", name)?.unwrap_or_default();
            Ok(text.chars().map(|c| u8::try_from(c).expect("made from a byte")).collect())
        };
        let salt =
            HashSalt { prefix: half("swift_hash_path_prefix")?, suffix: half("swift_hash_path_suffix")? };
        if salt.prefix.is_empty() && salt.suffix.is_empty() {
            return Err(ConfigError::NoSalt { path: file.to_owned() });
        }
        let policies = ini.sections().filter(|name| name.starts_with("storage-policy:")).count();
        Ok(Cluster { salt, several_policies: policies > 1 })
    }

    /// Where `swift.conf` is looked for, in this order.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] if `swift_dir` is empty.
    pub fn places(options: &Options) -> Result<Vec<PathBuf>, ConfigError> {
        Ok(match Typed(options).set("agent_swift_conf") {
            Some(path) => vec![PathBuf::from(path)],
            None => vec![swift_dir(options)?.join("swift.conf"), PathBuf::from(SWIFT_CONF)],
        })
    }

    /// Swift reads `/etc/swift/swift.conf` and no other. We look beside the rings first (`swift_dir`), where a cluster of
    /// loopback nodes has its own.
    ///
    /// # Errors
    /// [`ConfigError::NoSwiftConf`] if there is none, [`ConfigError::Unreadable`], or as [`Cluster::parse`].
    pub fn load(options: &Options) -> Result<Cluster, ConfigError> {
        let places = Cluster::places(options)?;
        for place in &places {
            match read_file(place) {
                Ok(bytes) => return Cluster::parse(place, &bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(ConfigError::Unreadable { path: place.clone(), error: error.to_string() });
                }
            }
        }
        Err(ConfigError::NoSwiftConf { places })
    }
}

/// The options of our section as texts, from a conf file or the `*.conf` of a directory
/// (`swift/common/utils/config.py: readconf`).
///
/// # Errors
/// When a file cannot be read or understood, or none has our section.
pub fn load_options(path: &Path) -> Result<Options, ConfigError> {
    own_section(path, &read_files(&conf_files(path)?)?)
}

/// The names of the options that stand in our own section, not in `[DEFAULT]`.
///
/// # Errors
/// As [`load_options`].
pub fn own_names(path: &Path) -> Result<BTreeSet<String>, ConfigError> {
    let ini = read_files(&conf_files(path)?)?;
    Ok(ini.own_names(SECTION).map(str::to_owned).collect())
}

/// The files that a path stands for, in the order in which they are read: itself, or the `*.conf` of a directory.
///
/// # Errors
/// [`ConfigError::NoFragments`], or a directory that cannot be read.
pub fn conf_files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let files = if path.is_dir() {
        fragments(path).map_err(|error| unreadable(path, &error))?
    } else {
        vec![path.to_owned()]
    };
    if files.is_empty() {
        return Err(ConfigError::NoFragments { path: path.to_owned() });
    }
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Unreadable { path: path.to_owned(), error: error.to_string() },
    }
}

fn read_files(files: &[PathBuf]) -> Result<Ini, ConfigError> {
    let mut ini = Ini::new(Dialect::Server);
    for file in files {
        let bytes = read_file(file).map_err(|error| unreadable(file, &error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            ConfigError::NotUtf8 { path: file.clone(), line }
        })?;
        ini.read(file, text)?;
    }
    Ok(ini)
}

fn own_section(path: &Path, ini: &Ini) -> Result<Options, ConfigError> {
    let mut options = ini.section(SECTION)?.ok_or(ConfigError::NoSection { path: path.to_owned() })?;
    options.entry("log_name".to_owned()).or_insert_with(|| SECTION.to_owned());
    Ok(options)
}

/// The conf files of a directory in the order of their names (`swift/common/utils/config.py: read_conf_dir`).
fn fragments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in directory.read_dir()? {
        let name = entry?.file_name();
        if name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {FILE_LIMIT} bytes")));
    }
    Ok(bytes)
}

/// Options, read as what they should be.
struct Typed<'a>(&'a Options);

impl<'a> Typed<'a> {
    fn given(&self, option: &str) -> Option<&'a str> {
        self.0.get(option).map(String::as_str)
    }

    /// A value that is there and not empty.
    fn set(&self, option: &str) -> Option<&'a str> {
        self.given(option).filter(|value| !value.is_empty())
    }

    fn text(&self, option: &str, default: &str) -> String {
        self.given(option).unwrap_or(default).to_owned()
    }

    fn path(&self, option: &'static str, default: &str) -> Result<PathBuf, ConfigError> {
        match self.given(option) {
            Some("") => Err(bad(option, "", "a path")),
            value => Ok(PathBuf::from(value.unwrap_or(default))),
        }
    }

    /// A file that is written beside others, so that its directory has to be known.
    fn file(&self, option: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(value) = self.set(option) else { return Ok(None) };
        let path = PathBuf::from(value);
        match path.is_absolute() && path.file_name().is_some() && !value.ends_with('/') {
            true => Ok(Some(path)),
            false => Err(bad(option, value, "the path of a file, from / on")),
        }
    }

    /// Anything but Swift's words for true is false (`swift/common/utils/config.py: config_true_value`).
    fn truth(&self, option: &str, default: bool) -> bool {
        self.given(option).map_or(default, is_true)
    }

    /// For options of our own, where a word we do not know is a mistake.
    fn yes_or_no(&self, option: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.given(option) {
            None => Ok(default),
            Some(word) if is_true(word) => Ok(true),
            Some(word) if ["no", "false", "off", "0"].contains(&word.to_lowercase().as_str()) => Ok(false),
            Some(word) => Err(bad(option, word, "yes or no")),
        }
    }

    fn compress(&self, option: &'static str) -> Result<Compress, ConfigError> {
        match self.given(option) {
            None => Ok(Compress::Auto),
            Some(word) if word.eq_ignore_ascii_case("auto") => Ok(Compress::Auto),
            Some(word) => match self.yes_or_no(option, true) {
                Ok(true) => Ok(Compress::Yes),
                Ok(false) => Ok(Compress::No),
                Err(_) => Err(bad(option, word, "auto, yes or no")),
            },
        }
    }

    fn whole<T>(&self, option: &'static str, range: RangeInclusive<T>, default: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(value) = self.given(option) else { return Ok(default) };
        let number = number(value).filter(|number| range.contains(number));
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number.ok_or_else(|| bad(option, value, expected()))
    }

    fn real(
        &self,
        option: &'static str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Result<f64, ConfigError> {
        let Some(value) = self.given(option) else { return Ok(default) };
        let number = number(value).filter(|number| range.contains(number));
        let expected = match (*range.start(), *range.end()) {
            (f64::MIN, _) => "a number".to_owned(),
            (start, f64::MAX) => format!("a number not below {start}"),
            (start, end) => format!("a number from {start} to {end}"),
        };
        number.ok_or_else(|| bad(option, value, expected))
    }

    /// A time span; longer than [`LONGEST_SECS`] is as good as for ever.
    fn seconds(&self, option: &'static str, default: f64) -> Result<Duration, ConfigError> {
        let seconds = self.real(option, 0.0..=f64::MAX, default)?;
        Ok(Duration::from_secs_f64(seconds.min(LONGEST_SECS)))
    }

    /// A time span that something must end in, so not none at all.
    fn timeout(&self, option: &'static str, default: f64) -> Result<Duration, ConfigError> {
        match self.seconds(option, default)? {
            Duration::ZERO => Err(bad(option, self.given(option).unwrap_or_default(), "seconds above 0")),
            timeout => Ok(timeout),
        }
    }

    /// `auto`, or a number of replicas.
    fn handoff_delete(&self) -> Result<Option<usize>, ConfigError> {
        match self.given("handoff_delete") {
            Some(word) if word.eq_ignore_ascii_case("auto") => Ok(None),
            Some(value) => match number(value) {
                Some(enough) => Ok(Some(enough).filter(|&enough| enough > 0)),
                None => Err(bad("handoff_delete", value, "auto, or a whole number not below 0")),
            },
            None => Ok(None),
        }
    }

    /// Bytes, or a share in percent; a doubled `%`, as Paste's conf files need it, counts as one.
    fn reserve(&self, option: &'static str, default: Reserve) -> Result<Reserve, ConfigError> {
        let Some(value) = self.given(option) else { return Ok(default) };
        let share = value.strip_suffix('%').map(|share| share.strip_suffix('%').unwrap_or(share));
        let reserve = match share {
            Some(share) => number(share).filter(|share| (0.0..=100.0).contains(share)).map(Reserve::Percent),
            None => number(value).map(Reserve::Bytes),
        };
        reserve.ok_or_else(|| bad(option, value, "a number of bytes, or 0% to 100%"))
    }

    fn bytes(
        &self,
        option: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let Some(value) = self.given(option) else { return Ok(default) };
        let (count, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
        let unit = match unit.trim().to_lowercase().as_str() {
            "" => Some(1),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            _ => None,
        };
        let bytes =
            count.parse().ok().zip(unit).and_then(|(count, unit): (u64, u64)| count.checked_mul(unit));
        let expected =
            || format!("bytes, or a number of KiB, MiB or GiB, and at least {} bytes", range.start());
        bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| bad(option, value, expected()))
    }

    /// The class and the priority in it, which means nothing alone.
    fn ionice(&self) -> Result<Option<IoNice>, ConfigError> {
        let option = "ionice_class";
        let class = match self.set(option) {
            None => return Ok(None),
            Some("IOPRIO_CLASS_RT") => IoClass::Realtime,
            Some("IOPRIO_CLASS_BE") => IoClass::BestEffort,
            Some("IOPRIO_CLASS_IDLE") => IoClass::Idle,
            Some(value) => {
                return Err(bad(option, value, "IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"));
            }
        };
        Ok(Some(IoNice { class, priority: self.whole("ionice_priority", 0..=7, 0)? }))
    }
}

/// Swift's words for true (`swift/common/utils/config.py: TRUE_VALUES`).
fn is_true(word: &str) -> bool {
    ["true", "1", "yes", "on", "t", "y"].contains(&word.to_lowercase().as_str())
}

/// A number as Python spells it: with white space around it, or single underscores between digits.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let text = text.trim();
    let between_digits = |at: usize| {
        let digit =
            |at: Option<usize>| at.and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
        digit(at.checked_sub(1)) && digit(Some(at + 1))
    };
    if !text.match_indices('_').all(|(at, _)| between_digits(at)) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn bad(option: &'static str, value: &str, expected: impl Into<String>) -> ConfigError {
    ConfigError::BadValue { option, value: value.to_owned(), expected: expected.into() }
}

/// Why there is no configuration; the agent ends with exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no conf file.
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The directory holds no conf file.
    NoFragments {
        /// The directory.
        path: PathBuf,
    },
    /// A file is there, but cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A conf file is not text.
    NotUtf8 {
        /// Which file.
        path: PathBuf,
        /// The line, from 1, with the first byte that is not UTF-8.
        line: usize,
    },
    /// A file cannot be understood.
    Ini(IniError),
    /// No conf file has our section.
    NoSection {
        /// The file or directory.
        path: PathBuf,
    },
    /// A value is not what the option wants.
    BadValue {
        /// Whose value.
        option: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// An option with our prefix that we do not know.
    UnknownOption {
        /// Its name.
        option: String,
    },
    /// The port to listen on would be above the last one.
    PortTooHigh {
        /// `bind_port`.
        port: u16,
        /// `agent_port_offset`.
        offset: u16,
    },
    /// There is no `swift.conf`.
    NoSwiftConf {
        /// Where we looked.
        places: Vec<PathBuf>,
    },
    /// `swift.conf` has neither prefix nor suffix.
    NoSalt {
        /// Which file.
        path: PathBuf,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Missing { path } => {
                write!(f, "{}: no conf file here, name another with --config PATH", path.display())
            }
            ConfigError::NoFragments { path } => {
                write!(f, "{}: no *.conf in this directory, name another with --config PATH", path.display())
            }
            ConfigError::Unreadable { path, error } => write!(f, "{}: {error}", path.display()),
            ConfigError::NotUtf8 { path, line } => write!(f, "{}:{line}: not UTF-8", path.display()),
            ConfigError::Ini(error) => error.fmt(f),
            ConfigError::NoSection { path } => {
                write!(f, "{}: no section [{SECTION}], add it, be it empty", path.display())
            }
            ConfigError::BadValue { option, value, expected } => {
                write!(f, "{option} = {value:?}: expected {expected}")
            }
            ConfigError::UnknownOption { option } => {
                write!(f, "{option}: no such option, known are {}", AGENT_OPTIONS.join(", "))
            }
            ConfigError::PortTooHigh { port, offset } => {
                write!(f, "bind_port {port} + agent_port_offset {offset}: above the last port, {}", u16::MAX)
            }
            ConfigError::NoSwiftConf { places } => {
                let places = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>();
                let places = places.join(" or ");
                write!(f, "{places}: no such file, copy it from another node of the cluster, ")?;
                f.write_str("or name it with agent_swift_conf")
            }
            ConfigError::NoSalt { path } => {
                write!(f, "{}: neither swift_hash_path_prefix nor swift_hash_path_suffix ", path.display())?;
                f.write_str("in [swift-hash], set them as on every other node of the cluster")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<IniError> for ConfigError {
    fn from(error: IniError) -> ConfigError {
        ConfigError::Ini(error)
    }
}

/// The options of our own, by name.
pub const AGENT_OPTIONS: [&str; 11] = [
    "agent_bandwidth",
    "agent_compress",
    "agent_drive_latency_ms",
    "agent_full_check_interval",
    "agent_memory_budget",
    "agent_metrics_port",
    "agent_passes",
    "agent_port_offset",
    "agent_state_path",
    "agent_swift_conf",
    "agent_textfile_path",
];
/// The longest conf file we read, in bytes; a real one has a few thousand.
const FILE_LIMIT: u64 = 1 << 20;
/// Every worker is a thread; more of them than this would only wait on each other.
const MOST_WORKERS: usize = 1024;
/// The most rows in a message, and messages for a database: little enough to be multiplied.
const MOST_ROWS: usize = u32::MAX as usize;
/// About 317 years: all that Swift's timestamps span, and little enough to be added to any clock.
const LONGEST_SECS: f64 = 1e10;
/// All but infinity and NaN.
const ANY_NUMBER: RangeInclusive<f64> = f64::MIN..=f64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SWIFT: &[u8] = b"[swift-hash]\nswift_hash_path_suffix = s\n";

    fn config(options: &str) -> Result<Config, ConfigError> {
        Config::from_text(&format!("[container-replicator]\n{options}\n"), SWIFT)
    }

    fn refusal(options: &str) -> String {
        config(options).expect_err(options).to_string()
    }

    fn cluster(text: &[u8]) -> Result<Cluster, ConfigError> {
        Cluster::parse(Path::new("swift.conf"), text)
    }

    #[test]
    fn an_empty_section_means_every_default() {
        let config = config("").expect("the defaults");
        assert_eq!(config.listen_port(), 7201);
        assert_eq!(config.user, "swift");
        assert_eq!(config.swift_dir, Path::new("/etc/swift"));
        assert!(config.daemonize && !config.disable_fallocate && !config.db_preallocation);
        assert_eq!(config.fallocate_reserve, Reserve::Percent(1.0));
        assert_eq!((config.nice_priority, config.ionice), (None, None));
        assert_eq!(
            config.log,
            LogOptions {
                name: "container-replicator".into(),
                level: LevelFilter::Info,
                facility: 16,
                address: "/dev/log".into(),
                udp_host: None,
                udp_port: 514,
                max_line_length: 0,
            }
        );
        assert_eq!(
            config.statsd,
            StatsdOptions {
                host: None,
                port: 8125,
                default_sample_rate: 1.0,
                sample_rate_factor: 1.0,
                metric_prefix: String::new(),
                emit_legacy: true,
            }
        );
        assert_eq!(
            config.agent,
            AgentOptions {
                port_offset: 1000,
                passes: true,
                memory_budget_bytes: 32 << 20,
                compress: Compress::Auto,
                bandwidth_bytes_per_sec: None,
                drive_latency: Some(Duration::from_millis(100)),
                full_check_interval: Duration::from_secs(86400),
                state_path: PathBuf::from("/var/lib/swiftlet"),
                metrics_port: None,
                textfile_path: None,
                swift_conf: None,
            }
        );
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn every_option_reaches_its_field() {
        let config = config(
            "swift_dir = /r\nuser = me\ndaemonize = no\nfallocate_reserve = 100\ndisable_fallocate = yes\n\
             db_preallocation = yes\nnice_priority = -20\nionice_class = IOPRIO_CLASS_IDLE\nionice_priority = 7\n\
             log_name = n\nlog_level = warn\nlog_facility = LOG_LOCAL7\nlog_address = /l\nlog_udp_host = h\n\
             log_udp_port = 5\nlog_max_line_length = 6\nlog_statsd_host = s\nlog_statsd_port = 7\n\
             log_statsd_default_sample_rate = 0.5\nlog_statsd_sample_rate_factor = 2\nlog_statsd_metric_prefix = p\n\
             statsd_emit_legacy = no\nagent_port_offset = 0\nagent_passes = no\nagent_memory_budget = 2 GiB\n\
             agent_compress = no\nagent_bandwidth = 3 MiB\nagent_drive_latency_ms = 7\nagent_swift_conf = /c\n\
             agent_metrics_port = 9199\nagent_textfile_path = /t/a.prom\nrun_pause = 4\n",
        )
        .expect("all good");
        assert_eq!(config.swift_dir, Path::new("/r"));
        assert_eq!(config.user, "me");
        assert!(!config.daemonize && config.disable_fallocate && config.db_preallocation);
        assert_eq!(config.fallocate_reserve, Reserve::Bytes(100));
        assert_eq!(config.nice_priority, Some(-20));
        assert_eq!(config.ionice, Some(IoNice { class: IoClass::Idle, priority: 7 }));
        let log = config.log;
        assert_eq!((log.name.as_str(), log.level, log.facility), ("n", LevelFilter::Warn, 23));
        assert_eq!((log.address.as_path(), log.udp_host.as_deref()), (Path::new("/l"), Some("h")));
        assert_eq!((log.udp_port, log.max_line_length), (5, 6));
        let statsd = config.statsd;
        assert_eq!((statsd.host.as_deref(), statsd.port), (Some("s"), 7));
        assert_eq!((statsd.default_sample_rate, statsd.sample_rate_factor), (0.5, 2.0));
        assert_eq!((statsd.metric_prefix.as_str(), statsd.emit_legacy), ("p", false));
        assert_eq!((config.agent.port_offset, config.agent.passes), (0, false));
        assert_eq!(config.agent.memory_budget_bytes, 2 << 30);
        assert_eq!(config.agent.compress, Compress::No);
        assert_eq!(config.agent.bandwidth_bytes_per_sec, Some(3 << 20));
        assert_eq!(config.agent.drive_latency, Some(Duration::from_millis(7)));
        assert_eq!(config.agent.swift_conf.as_deref(), Some(Path::new("/c")));
        assert_eq!(config.interval, Duration::from_secs(4));
        assert_eq!(config.warnings, [Warning::RunPause { ignored: false }]);
    }

    #[test]
    fn senseless_values_are_refused_up_to_the_boundary_and_not_beyond() {
        for (option, good, refused) in [
            (
                "bind_port",
                &["1", "64535", " 6201 ", "+1", "6_201"][..],
                &["0", "64536", "65536", "-1", "x", "", "6__2"][..],
            ),
            ("interval", &["0", "", "1e3", "1e300", "1_0.5"], &["-1", "nan", "inf", "soon"]),
            ("concurrency", &["1", "1024"], &["0", "1025", "-1", "1.5", ""]),
            ("databases_per_second", &["0", "-1", "0.1"], &["nan", "inf", ""]),
            ("per_diff", &["1", "4294967295"], &["0", "4294967296", ""]),
            ("max_diffs", &["1", ""], &["0", "-1"]),
            ("node_timeout", &["0.1", "1e300"], &["0", "-1", "1e-10", ""]),
            ("conn_timeout", &["0.1"], &["0"]),
            ("reclaim_age", &["0", "1e300"], &["-1", "week"]),
            ("handoff_delete", &["auto", "Auto", "0", "2"], &["-1", "some", ""]),
            (
                "fallocate_reserve",
                &["0", "1%", "1%%", "0.5%", "100%"],
                &["-1", "101%", "1%%%", "1.5", "%", ""],
            ),
            ("nice_priority", &["", "-20", "19"], &["-21", "20", "low"]),
            ("ionice_class", &["", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE"], &["idle"]),
            ("ionice_class = IOPRIO_CLASS_RT\nionice_priority", &["0", "7"], &["-1", "8", ""]),
            ("log_udp_port", &["65535"], &["0", "65536"]),
            ("log_statsd_default_sample_rate", &["0", "1"], &["-0.1", "1.1"]),
            ("devices", &["/"], &[""]),
            ("agent_port_offset", &["0", "59334"], &["59335", "65536", "-1"]),
            ("agent_passes", &["yes", "No", "off"], &["enabled", ""]),
            ("agent_compress", &["auto", "Auto", "yes", "No", "off"], &["fast", "", "zstd"]),
            ("agent_bandwidth", &["0", "16384", "16 KiB", "1gib"], &["16383", "1", "-1", "1 MB/s", ""]),
            ("agent_drive_latency_ms", &["0", "1", "60000"], &["60001", "-1", "0.5", ""]),
            (
                "agent_memory_budget",
                &["1048576", "1024KiB", "1 mib", "17179869183GiB"],
                &["1048575", "0", "-1", "MiB", "1MB", "17179869184GiB", "99999999999999999999", "é"],
            ),
        ] {
            for value in good {
                assert!(config(&format!("{option} = {value}")).is_ok(), "{option} = {value}");
            }
            for value in refused {
                assert!(config(&format!("{option} = {value}")).is_err(), "{option} = {value}");
            }
        }
    }

    #[test]
    fn a_refusal_says_which_option_and_what_it_wants() {
        for (options, message) in [
            ("per_diff = many", "per_diff = \"many\": expected a whole number from 1 to 4294967295"),
            ("interval = -1", "interval = \"-1\": expected a number not below 0"),
            ("databases_per_second = x", "databases_per_second = \"x\": expected a number"),
            ("node_timeout = 0", "node_timeout = \"0\": expected seconds above 0"),
            ("bind_port = 65000", "bind_port 65000 + agent_port_offset 1000: above the last port, 65535"),
            (
                "agent_pases = no",
                "agent_pases: no such option, known are agent_bandwidth, agent_compress, agent_drive_latency_ms, \
                 agent_full_check_interval, agent_memory_budget, agent_metrics_port, agent_passes, agent_port_offset, \
                 agent_state_path, agent_swift_conf, agent_textfile_path",
            ),
            ("lonely", "container-server.conf:2: expected `name = value`"),
            ("a = %(b)s", "[container-replicator] a: refers to an option \"b\" that is not set"),
        ] {
            assert_eq!(refusal(options), message);
        }
        assert_eq!(
            Config::from_text("[DEFAULT]\n", SWIFT).expect_err("no section").to_string(),
            "container-server.conf: no section [container-replicator], add it, be it empty"
        );
    }

    #[test]
    fn handoff_delete_counts_only_below_the_replicas() {
        for (option, replicas, within) in [
            ("2", 3.0, Some(2)),
            ("3", 3.0, None),
            ("3", 3.5, Some(3)),
            ("0", 3.0, None),
            ("auto", 3.0, None),
        ] {
            let config = config(&format!("handoff_delete = {option}")).expect("a conf");
            assert_eq!(config.handoff_delete_within(replicas), within, "{option} of {replicas}");
        }
    }

    #[test]
    fn the_longest_spans_can_be_added_to_a_clock() {
        let forever = config("interval = 1e300").expect("a conf").interval;
        assert!(std::time::Instant::now().checked_add(forever).is_some());
        assert!(std::time::SystemTime::now().checked_add(forever).is_some());
    }

    #[test]
    fn a_salt_may_hold_any_bytes() {
        let conf = b"[swift-hash]\nSwift_Hash_Path_Prefix =  \xe9\xff%% \n[storage-policy:0]\n";
        let cluster = cluster(conf).expect("a salt");
        assert_eq!(cluster.salt, HashSalt { prefix: b"\xe9\xff%".to_vec(), suffix: Vec::new() });
        assert!(!cluster.several_policies);
    }

    #[test]
    fn several_policies_are_several_sections() {
        let text = [SWIFT, b"[storage-policy:0]\n[storage-policy:1]\n"].concat();
        assert!(cluster(&text).expect("a salt").several_policies);
        assert!(!cluster(SWIFT).expect("a salt").several_policies);
    }

    #[test]
    fn no_salt_is_an_error_that_says_what_to_put_where() {
        for text in [&b""[..], b"[swift-hash]\n", b"[swift-hash]\nswift_hash_path_prefix =\n"] {
            assert_eq!(
                cluster(text).expect_err("no salt").to_string(),
                "swift.conf: neither swift_hash_path_prefix nor swift_hash_path_suffix in [swift-hash], set them as \
                 on every other node of the cluster"
            );
        }
    }

    /// A directory with a conf file that has its rings there too.
    fn node(conf: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let rings = directory.path().display();
        let conf = format!("[DEFAULT]\nswift_dir = {rings}\n[container-replicator]\n{conf}\n");
        std::fs::write(directory.path().join("a.conf"), conf).expect("a file");
        directory
    }

    #[test]
    fn swift_conf_is_the_named_one_or_the_one_beside_the_rings() {
        let node = node("agent_swift_conf = %(swift_dir)s/other");
        let path = node.path().join("a.conf");
        std::fs::write(node.path().join("swift.conf"), SWIFT).expect("a file");
        let missing = node.path().join("other");
        assert_eq!(Config::load(&path), Err(ConfigError::NoSwiftConf { places: vec![missing.clone()] }));
        std::fs::write(&missing, b"[swift-hash]\nswift_hash_path_prefix = p\n").expect("a file");
        assert_eq!(Config::load(&path).expect("a conf").salt.prefix, b"p");
        assert_eq!(Config::load(&path).expect("a conf").salt.suffix, b"");

        let node = self::node("");
        std::fs::write(node.path().join("swift.conf"), SWIFT).expect("a file");
        assert_eq!(Config::load(&node.path().join("a.conf")).expect("a conf").salt.suffix, b"s");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let node = node("");
        let path = |name: &str| node.path().join(name);
        assert_eq!(Config::load(&path("nope")), Err(ConfigError::Missing { path: path("nope") }));
        let message = ConfigError::Missing { path: "/x".into() }.to_string();
        assert_eq!(message, "/x: no conf file here, name another with --config PATH");

        std::fs::write(path("latin1"), b"[container-replicator]\nuser = \xe9\n").expect("a file");
        assert_eq!(
            Config::load(&path("latin1")),
            Err(ConfigError::NotUtf8 { path: path("latin1"), line: 2 })
        );

        std::fs::create_dir(path("empty.d")).expect("a directory");
        assert_eq!(Config::load(&path("empty.d")), Err(ConfigError::NoFragments { path: path("empty.d") }));

        for (length, ok) in [(FILE_LIMIT, true), (FILE_LIMIT + 1, false)] {
            std::fs::write(path("long"), vec![b'\n'; length as usize]).expect("a file");
            assert_eq!(read_file(&path("long")).is_ok(), ok);
        }
        let unreadable = Config::load(&path("long")).expect_err("too long").to_string();
        assert!(unreadable.ends_with("long: longer than 1048576 bytes"), "{unreadable}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            values in prop::collection::vec(("[a-z_]{1,12}|per_diff|interval|reclaim_age", "\\PC{0,12}|[0-9e.%+-]{0,9}"), 0..8),
            text in any::<String>(),
            swift in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let lines = values.iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>();
            let _ = config(&lines);
            let _ = Config::from_text(&text, SWIFT);
            let _ = cluster(&swift);
            let _ = cluster(&[SWIFT, &swift[..]].concat());
        }

        #[test]
        fn no_value_of_a_known_option_makes_it_panic(
            option in prop::sample::select(&["bind_port", "interval", "per_diff", "reclaim_age", "node_timeout", "handoff_delete",
                "fallocate_reserve", "agent_memory_budget", "agent_port_offset", "databases_per_second"][..]),
            value in "\\PC{0,12}|[0-9e.%_+ KMGib-]{0,24}",
        ) {
            let _ = config(&format!("{option} = {value}"));
        }
    }
}
