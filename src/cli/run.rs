//! `agent`: one pass, or the daemon.

use std::io::IsTerminal;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, warn};
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::{Exit, RunOptions, Stderr, Verbosity, complain, print};
use crate::broker::Broker;
use crate::config::{Config, IoNice};
use crate::daemon::{self, Signals, unix_now};
use crate::drive::{keep_heap_small, set_io_priority, set_nice};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::pass::{self, Observer, PassLock, PassLockError, Scope};
use crate::report::logger::{self, LogSettings};
use crate::report::memory::AnonPeak;
use crate::report::progress::{Place, Progress};
use crate::report::{self, journal, recon, table};
use crate::status::Keeper;
use crate::stop::{Finishing, Stop};
use crate::tally::Tally;

/// Runs the agent until its pass is over or it is told to stop.
pub fn run(options: RunOptions) -> Exit {
    keep_heap_small();
    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(error) => return complain(error),
    };
    // Before anything is given up: who starts as root may ask for more than its turn.
    let unranked = take_rank(&config);
    if let Err(error) = become_user(&config.user) {
        return complain(error);
    }
    start_log(&config, &options);
    for warning in config.warnings.iter().map(ToString::to_string).chain(unranked) {
        warn!("{warning}");
    }
    let signals = match catch_signals() {
        Ok(signals) => signals,
        Err(error) => return complain(format_args!("cannot catch signals: {error}")),
    };
    let exit = match options.once {
        true => once(config, &options, signals.stop),
        false => stay(config, &options, &signals),
    };
    Finishing::wait(FINISH_LIMIT);
    log::logger().flush();
    exit
}

/// Takes its turn on processors and drives as the conf says (`swift/common/utils: modify_priority`). What cannot be had is
/// returned, to be told: it is no reason not to work.
fn take_rank(config: &Config) -> Vec<String> {
    let mut refused = Vec::new();
    if let Some(nice) = config.nice_priority
        && let Err(error) = set_nice(nice)
    {
        refused.push(format!("nice_priority {nice} cannot be had: {error}"));
    }
    if let Some(IoNice { class, priority }) = config.ionice
        && let Err(error) = set_io_priority(class as u8, priority)
    {
        refused.push(format!("ionice_class {class:?}, ionice_priority {priority} cannot be had: {error}"));
    }
    refused
}

fn once(config: Config, options: &RunOptions, stop: Stop) -> Exit {
    let _lock = match PassLock::take(&config) {
        // A dry run changes nothing, so it disturbs nobody.
        Err(PassLockError::Held(_)) if options.dry_run => None,
        Ok(lock) => Some(lock),
        Err(error @ PassLockError::Held(_)) => {
            complain(error);
            return Exit::Busy;
        }
        Err(error) => return complain(error),
    };
    let node = match Node::new(config, stop) {
        Ok(node) => Arc::new(node),
        Err(error) => return complain(error),
    };
    Broker::bound_caches(node.caches_bytes);
    let scope = Scope { devices: options.devices.clone(), partitions: options.partitions.clone() };
    if let Some(error) = unknown_devices(&node, &scope) {
        return complain(error);
    }
    let memory = AnonPeak::watch();
    let wanted = options.verbosity == Verbosity::Normal && !options.dry_run;
    let show = Show { progress: Progress::new(wanted) };
    let passed = if options.dry_run {
        pass::run(&node, &scope, true, &show)
    } else {
        let keeper = Keeper::new(&node.config);
        let metrics = Metrics::of_pass(&node);
        let observed = metrics.observe(&show);
        let watch = keeper.watch(&node, &scope, true, &observed);
        let passed = pass::run(&node, &scope, false, &watch);
        watch.end(passed.as_ref().map_err(ToString::to_string));
        metrics.end();
        passed
    };
    drop(show);
    let mut tally = match passed {
        Ok(tally) => tally,
        Err(error) => return complain(error),
    };
    tally.peak_anon_kib = memory.kib();
    report::log_pass(&tally);
    if !options.dry_run && !node.stop.wished() {
        recon::record_pass(&node.config.recon_cache_path, &tally, unix_now());
    }
    tell(options, &tally);
    if node.stop.wished() {
        error!("stopped before the pass was over");
        return Exit::Failures;
    }
    if tally.failure > 0 { Exit::Failures } else { Exit::Clean }
}

fn stay(config: Config, options: &RunOptions, signals: &Signals) -> Exit {
    let memory = AnonPeak::watch();
    let mut told = |tally: &Tally| {
        if options.json {
            let tally = Tally { peak_anon_kib: memory.kib(), ..tally.clone() };
            print(&format!("{}\n", report::json(&tally)));
        }
    };
    match daemon::run(&options.config, config, signals, &mut told) {
        Ok(()) => Exit::Clean,
        Err(error) => complain(error),
    }
}

/// Devices that were asked for by name and are none of this node's.
fn unknown_devices(node: &Node, scope: &Scope) -> Option<String> {
    let ring = node.ring();
    let ours: Vec<&str> = node.our_devices(&ring).ok()?.iter().map(|device| device.name.as_str()).collect();
    let unknown: Vec<&str> =
        scope.devices.iter().flatten().map(String::as_str).filter(|name| !ours.contains(name)).collect();
    match unknown.is_empty() {
        true => None,
        false => {
            Some(format!("--devices: {} not on this node, which has {}", unknown.join(", "), ours.join(", ")))
        }
    }
}

fn tell(options: &RunOptions, tally: &Tally) {
    if options.json {
        print(&format!("{}\n", report::json(tally)));
    } else if !options.dry_run && options.verbosity != Verbosity::Quiet && std::io::stdout().is_terminal() {
        print(&table::table(tally));
    }
}

/// What a terminal is shown while a pass runs.
struct Show {
    progress: Progress,
}

impl Observer for Show {
    fn progress(&self, tally: &Tally, devices_done: usize, devices: usize, database: &str) {
        self.progress.tick(tally, Place { devices_done, devices, database });
    }

    fn foretell(&self, line: String) {
        print(&format!("{line}\n"));
    }
}

fn start_log(config: &Config, options: &RunOptions) {
    let log = &config.log;
    let settings = LogSettings {
        name: log.name.clone(),
        level: options.verbosity.level(log.level),
        facility: log.facility,
        address: log.address.clone(),
        udp: log.udp_host.clone().map(|host| (host, log.udp_port)),
        line_length_max: log.max_line_length,
        tells_repeats: options.verbosity == Verbosity::Verbose,
    };
    // It only fails if there is one already.
    let stderr = match (journal::has_stderr(), std::io::stderr().is_terminal()) {
        (true, _) => Stderr::Journal,
        (_, true) => Stderr::Terminal,
        (false, false) => Stderr::Other,
    };
    let elsewhere = log.udp_host.is_some() || log.address != LogSettings::default().address;
    let _ = logger::install(settings, options.sink(stderr, elsewhere));
}

/// Becomes the configured user when started as root, as Swift's daemons do (`swift/common/utils: drop_privileges`).
pub(super) fn become_user(name: &str) -> Result<(), String> {
    if !Uid::effective().is_root() || name == "root" {
        return Ok(());
    }
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => {
            return Err(format!("there is no user {name:?}: create it, or set `user` in the conf file"));
        }
        Err(error) => return Err(format!("cannot look up user {name:?}: {error}")),
    };
    let named = std::ffi::CString::new(name).map_err(|_| format!("{name:?} is no name of a user"))?;
    initgroups(&named, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|error| format!("cannot become user {name:?}: {error}"))
}

/// SIGTERM and SIGINT wish to stop; who wishes it twice gets it at once. SIGHUP reloads.
fn catch_signals() -> std::io::Result<Signals> {
    let signals = Signals::default();
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, i32::from(Exit::Failures as u8), signals.stop.flag())?;
        flag::register(signal, signals.stop.flag())?;
    }
    flag::register(SIGHUP, signals.reload.clone())?;
    let stop = signals.stop.clone();
    thread::Builder::new().name("stopper".into()).stack_size(64 << 10).spawn(move || {
        while !stop.wished() {
            thread::sleep(Duration::from_millis(100));
        }
        // Nothing that is staged is in use yet, and SQLite undoes what it has not committed: an end at any moment
        // loses nothing. It is only nicer to finish.
        thread::sleep(GRACE);
        Finishing::wait(FINISH_LIMIT);
        log::logger().flush();
        std::process::exit(Exit::Failures as i32);
    })?;
    Ok(signals)
}

/// How long work under way may go on after the wish to stop.
const GRACE: Duration = Duration::from_millis(4000);
/// How long a database that is just taking its place may take for it; less than the units' `TimeoutStopSec`.
const FINISH_LIMIT: Duration = Duration::from_secs(80);
