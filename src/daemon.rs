//! Passes at an interval and the listener beside them, until told to stop.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{error, info, warn};

use crate::broker::Broker;
use crate::config::{Config, ConfigError};
use crate::incoming;
use crate::look::seconds;
use crate::metrics::Metrics;
use crate::node::{Node, NodeError};
use crate::pass::{self, PassLock, PassLockError, Scope};
use crate::report::service::{self, Heartbeat, PassStatus};
use crate::report::{self, logger::NOTICE, recon};
use crate::status::Keeper;
use crate::stop::Stop;
use crate::tally::Tally;

/// Why a daemon cannot run.
#[derive(Debug)]
pub enum DaemonError {
    /// The conf files.
    Config(ConfigError),
    /// The ring or our place in it.
    Node(NodeError),
    /// The port cannot be listened on.
    Listen {
        /// Which.
        address: String,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Config(error) => error.fmt(f),
            DaemonError::Node(error) => error.fmt(f),
            DaemonError::Listen { address, error } => write!(
                f,
                "cannot listen on {address}: {error}; is another agent running, or does bind_port + \
                 agent_port_offset fall on a port in use?"
            ),
        }
    }
}

impl std::error::Error for DaemonError {}

/// What told us to stop or to read the conf files again.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// SIGTERM or SIGINT.
    pub stop: Stop,
    /// SIGHUP.
    pub reload: Arc<AtomicBool>,
}

/// Serves peers and runs passes until told to stop. `told` is called after each pass with what it counted.
///
/// # Errors
/// [`DaemonError`] at the start only; a reload that fails is logged and the old configuration stays.
pub fn run(
    path: &Path,
    config: Config,
    signals: &Signals,
    told: &mut dyn FnMut(&Tally),
) -> Result<(), DaemonError> {
    let mut generation = Generation::start(config, signals)?;
    info!(target: NOTICE, "Starting {}", std::process::id());
    service::ready("serving peers");
    let mut first = true;
    while !signals.stop.wished() {
        generation.serve(signals, &mut first, told);
        if !signals.stop.wished() && signals.reload.swap(false, Ordering::SeqCst) {
            generation = reload(path.to_owned(), generation, signals);
        }
    }
    service::stopping();
    generation.keeper.daemon_ends();
    info!(target: NOTICE, "Exited {}", std::process::id());
    Ok(())
}

/// A configuration in use: the node it makes, and the thread that listens on its port.
struct Generation {
    node: Arc<Node>,
    keeper: Keeper,
    metrics: Metrics,
    over: Stop,
    listener: Option<thread::JoinHandle<()>>,
}

impl Generation {
    fn start(config: Config, signals: &Signals) -> Result<Generation, DaemonError> {
        let node = Arc::new(Node::new(config, signals.stop.clone()).map_err(DaemonError::Node)?);
        Broker::bound_caches(node.caches_bytes);
        let ring = node.ring();
        if let Err(error) = node.our_devices(&ring) {
            // Swift's daemon stays and looks again in every pass: the ring may be on its way.
            error!("{error}");
        }
        let listener = listen(&node.config)?;
        let keeper = Keeper::new(&node.config);
        keeper.daemon_begins(node.config.agent.passes);
        let over = Stop::default();
        let (serving, until) = (node.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut heart = Heartbeat::wanted();
            if let Err(error) = incoming::listen(&listener, &serving, &until, &mut || heart.beat()) {
                error!("the listener failed: {error}");
            }
        });
        let metrics = Metrics::of_daemon(&node);
        Ok(Generation { node, keeper, metrics, over, listener: Some(thread) })
    }

    /// Runs passes until something is signalled.
    fn serve(&self, signals: &Signals, first: &mut bool, told: &mut dyn FnMut(&Tally)) {
        let config = &self.node.config;
        // Nodes that were started together should not all walk their drives at the same time.
        let mut wait =
            if std::mem::take(first) { config.interval.mul_f64(random_part()) } else { Duration::ZERO };
        loop {
            let due = Instant::now() + wait;
            while !config.agent.passes || Instant::now() < due {
                let nap =
                    if config.agent.passes { due.saturating_duration_since(Instant::now()) } else { LONG };
                if signals.stop.sleep(nap.min(NAP)) || signals.reload.load(Ordering::SeqCst) {
                    return;
                }
            }
            let begun = Instant::now();
            match PassLock::take(config) {
                Ok(_lock) => match self.pass() {
                    Ok(tally) if !signals.stop.wished() => {
                        report::log_pass(&tally);
                        recon::record_pass(&config.recon_cache_path, &tally, unix_now());
                        told(&tally);
                        info!("Replication run OVER");
                        service::between_passes(&tally, config.interval.saturating_sub(begun.elapsed()));
                    }
                    Ok(_) => return,
                    Err(error) => error!("{error}"),
                },
                Err(error @ PassLockError::Held(_)) => warn!("{error}"),
                Err(error) => error!("{error}"),
            }
            wait = config.interval.saturating_sub(begun.elapsed());
        }
    }

    /// One pass. It is remembered, however it ends.
    fn pass(&self) -> Result<Tally, NodeError> {
        let (scope, status) = (Scope::default(), PassStatus::begin());
        let observed = self.metrics.observe(&status);
        let watch = self.keeper.watch(&self.node, &scope, false, &observed);
        let passed = pass::run(&self.node, &scope, false, &watch);
        watch.end(passed.as_ref().map_err(ToString::to_string));
        self.metrics.pass_over();
        passed
    }

    /// Closes the ports. Exchanges under way go on to their end.
    fn close(&mut self) {
        self.over.wish();
        self.metrics.close();
        if let Some(thread) = self.listener.take() {
            // It only panics if its own code is wrong, and has said so on standard error then.
            let _ = thread.join();
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads the conf files again. Whatever is wrong with them leaves everything as it was.
fn reload(path: PathBuf, mut old: Generation, signals: &Signals) -> Generation {
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            error!("not reloaded: {error}");
            return old;
        }
    };
    let before = old.node.config.clone();
    old.close();
    match Generation::start(config, signals) {
        Ok(new) => {
            info!("reloaded {}", path.display());
            new
        }
        Err(error) => {
            error!("not reloaded: {error}");
            match Generation::start(before, signals) {
                Ok(same) => same,
                Err(error) => {
                    error!("and the old configuration does not work any more: {error}; stopping");
                    signals.stop.wish();
                    old
                }
            }
        }
    }
}

fn listen(config: &Config) -> Result<TcpListener, DaemonError> {
    let port = config.listen_port();
    let failed = |error| DaemonError::Listen { address: format!("{}:{port}", config.bind_ip), error };
    match config.bind_ip.parse::<IpAddr>() {
        Ok(ip) => TcpListener::bind(SocketAddr::new(ip, port)).map_err(failed),
        Err(_) => TcpListener::bind((config.bind_ip.as_str(), port)).map_err(failed),
    }
}

/// Seconds since 1970.
pub fn unix_now() -> f64 {
    seconds(SystemTime::now())
}

fn random_part() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the first pass comes at once.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// How long the daemon sleeps before it looks for a signal.
const NAP: Duration = Duration::from_millis(200);
/// For ever, as far as a daemon without passes is concerned.
const LONG: Duration = Duration::from_secs(3600);
