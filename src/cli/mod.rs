//! The command line turned into values; one file a subcommand says what it does and prints.
//!
//! Nothing past this file sees an argument as text, and nothing but the subcommands prints results. Results go to
//! standard output, everything else to standard error.

pub mod check;
pub mod demo;
pub mod info;
pub mod locate;
mod page;
pub mod ring;
pub mod run;
pub mod status;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use log::LevelFilter;

use crate::report::logger::Sink;
use crate::report::terminal;
use crate::report::text::printable;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The pass had no failure, or there was none to make.
    Clean = 0,
    /// The pass had failures, or the check warnings.
    Failures = 1,
    /// The command line or the configuration cannot be used, or the check found errors.
    Usage = 2,
    /// Another pass of this node is running.
    Busy = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What to do, with everything needed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Be the agent: one pass, or a daemon.
    Run(RunOptions),
    /// Show a cluster's whole life on this machine.
    Demo(DemoOptions),
    /// See whether all is as the agent needs it.
    Check(CheckOptions),
    /// Describe one database.
    Info(InfoOptions),
    /// Make and change a ring.
    Ring(RingOptions),
    /// Find where an account, a container or an object belongs.
    Locate(LocateOptions),
    /// Say how this node is doing.
    Status(StatusOptions),
}

/// What `agent` was asked for when it was given no subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The conf file, or a directory of fragments.
    pub config: PathBuf,
    /// One pass as a client, then exit. Always true if `dry_run` is.
    pub once: bool,
    /// The only devices to walk; all if `None`. Never empty.
    pub devices: Option<BTreeSet<String>>,
    /// The only partitions to walk; all if `None`. Never empty.
    pub partitions: Option<BTreeSet<u32>>,
    /// Say what a pass would do, and do none of it.
    pub dry_run: bool,
    /// Print what a pass counted as one JSON object.
    pub json: bool,
    /// How much to log.
    pub verbosity: Verbosity,
}

/// What `agent demo` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// Build the cluster here and leave it; in a temporary directory if `None`.
    pub keep: Option<PathBuf>,
}

/// What `agent check` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOptions {
    /// The conf file, or a directory of fragments.
    pub config: PathBuf,
    /// One JSON object instead of text.
    pub json: bool,
    /// Only look at one drive, and tell it to the check that started us.
    pub probe: Option<String>,
}

/// What `agent info` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoOptions {
    /// The database.
    pub database: PathBuf,
    /// The conf file, for the rings and the thresholds.
    pub config: PathBuf,
    /// One JSON object instead of text.
    pub json: bool,
}

/// What `agent ring` was asked for: `swift-ring-builder`'s command line, which [`ring`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingOptions {
    /// The builder's file, or the ring's.
    pub builder: PathBuf,
    /// The command and its arguments; none shows the builder.
    pub words: Vec<String>,
}

/// What `agent locate` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateOptions {
    /// The conf file; `None` for the usual one, or for none if a ring is named.
    pub config: Option<PathBuf>,
    /// A ring file to use in place of the one of its kind that the conf file leads to.
    pub ring: Option<PathBuf>,
    /// The account, or all three in one: `account/container/object`.
    pub account: String,
    /// A container of it.
    pub container: Option<String>,
    /// An object in that.
    pub object: Option<String>,
    /// The policy whose ring places the object; that of the container if `None`.
    pub policy: Option<u32>,
    /// Every handoff, not only as many as there are primaries.
    pub all_handoffs: bool,
    /// One JSON object instead of text.
    pub json: bool,
}

/// What `agent status` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusOptions {
    /// The conf file.
    pub config: PathBuf,
    /// One account and container; the whole node if `None`.
    pub container: Option<(String, String)>,
    /// One JSON object instead of text.
    pub json: bool,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// `-q`: warnings and errors; no progress, no table.
    Quiet,
    /// What `log_level` says.
    Normal,
    /// `-v`: everything, and to standard error even as a daemon.
    Verbose,
}

impl Verbosity {
    /// What to log if the conf file asks for `configured`.
    pub fn level(self, configured: LevelFilter) -> LevelFilter {
        match self {
            Verbosity::Quiet => configured.min(LevelFilter::Warn),
            Verbosity::Normal => configured,
            Verbosity::Verbose => LevelFilter::Debug,
        }
    }
}

/// Where standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Somebody watches.
    Terminal,
    /// The service manager's journal.
    Journal,
    /// A file, a pipe, nowhere.
    Other,
}

impl RunOptions {
    /// Where to log. The journal is told in its own form; a daemon that nobody watches logs to syslog, as Swift's do, and
    /// also under a service manager if the conf file names a syslog daemon that is `elsewhere` than usual; all else is for
    /// who started it.
    pub fn sink(&self, stderr: Stderr, elsewhere: bool) -> Sink {
        let watched = self.once || self.verbosity == Verbosity::Verbose;
        match stderr {
            Stderr::Journal if watched || !elsewhere => Sink::Journal,
            Stderr::Terminal => Sink::Stderr,
            _ if watched => Sink::Stderr,
            _ => Sink::Syslog,
        }
    }
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What [`refuse`] prints: a usage error, or the text of `--help` or `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let Arguments { subcommand, run } = Arguments::try_parse_from(arguments)?;
    match subcommand {
        None => run.checked().map(Command::Run),
        Some(Subcommands::Demo { keep }) => Ok(Command::Demo(DemoOptions { keep })),
        Some(Subcommands::Check { config, json, probe }) => {
            Ok(Command::Check(CheckOptions { config, json, probe }))
        }
        Some(Subcommands::Info { database, json, config }) => {
            Ok(Command::Info(InfoOptions { database, config, json }))
        }
        Some(Subcommands::Ring { builder, words }) => Ok(Command::Ring(RingOptions { builder, words })),
        Some(Subcommands::Locate(locate)) => Ok(Command::Locate(locate.into())),
        Some(Subcommands::Status(status)) => status.checked().map(Command::Status),
    }
}

/// What [`parse`] takes, as it is defined: manual pages and completions of shells are made from it, and from nothing else.
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Prints what came in the way of [`parse`]: help to standard output, complaints to standard error.
pub fn refuse(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Clean;
    }
    let text = error.render().to_string();
    complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end())
}

/// Says on standard error why the command line or the configuration cannot be used.
pub fn complain(reason: impl fmt::Display) -> Exit {
    let text = format!("agent: {reason}");
    let lines: Vec<_> = text.lines().map(printable).collect();
    terminal::say(&lines.join("\n"));
    Exit::Usage
}

/// Writes a result to standard output. A reader that went away wants no more of it, so that is no error.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[derive(Parser)]
#[command(
    name = "agent",
    version,
    about = ABOUT,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Option<Subcommands>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Args)]
struct RunArguments {
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, hide_default_value = true, help = CONFIG_HELP)]
    config: PathBuf,
    /// Make one pass as a client, then exit
    #[arg(short, long)]
    once: bool,
    /// With --once: only these devices, as in sdb1,sdb2
    #[arg(short, long, value_name = "LIST", value_parser = devices)]
    devices: Option<BTreeSet<String>>,
    /// With --once: only these partitions, as in 17,1029
    #[arg(short, long, value_name = "LIST", value_parser = partitions)]
    partitions: Option<BTreeSet<u32>>,
    /// Make one pass that only says what it would do
    #[arg(long)]
    dry_run: bool,
    /// Print what the pass counted as one JSON object
    #[arg(long)]
    json: bool,
    /// Log everything, to standard error
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Log warnings and errors only; no progress, no table
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Drive a cluster of loopback nodes through its whole life
    Demo {
        /// Build it here and leave it, not in a temporary directory
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// See whether conf, rings, drives, peers and machine are in order
    #[command(after_help = CHECK_HELP)]
    Check {
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, hide_default_value = true, help = CONFIG_HELP)]
        config: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Look at one drive, for the check that started this
        #[arg(long, value_name = "JSON", hide = true)]
        probe: Option<String>,
    },
    /// Describe one database, and what a pass would do with it
    Info {
        /// The database: a .db file, or the directory of a hash
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, hide_default_value = true, help = CONFIG_HELP)]
        config: PathBuf,
    },
    /// Make, change and show a ring, with swift-ring-builder's commands
    #[command(after_help = ring::usage::COMMANDS_HELP)]
    Ring {
        /// The builder's file, as in container.builder
        #[arg(value_name = "BUILDER")]
        builder: PathBuf,
        /// A command and its arguments; none shows the builder
        #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Find where an account, container or object belongs, and who has it
    #[command(after_help = LOCATE_HELP)]
    Locate(LocateArguments),
    /// Say how this node is doing: in sync, since when, and if not, why
    #[command(after_help = STATUS_HELP)]
    Status(StatusArguments),
}

#[derive(Args)]
struct StatusArguments {
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, hide_default_value = true, help = CONFIG_HELP)]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// With a container: only this database; or ACCOUNT/CONTAINER
    #[arg(value_name = "ACCOUNT")]
    account: Option<String>,
    /// A container of it
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

impl StatusArguments {
    fn checked(self) -> Result<StatusOptions, clap::Error> {
        let StatusArguments { config, json, account, container } = self;
        let refuse = |reason: &str| Arguments::command().error(ErrorKind::ValueValidation, reason);
        let words = account.map(|account| match &container {
            Some(container) => (account.clone(), container.clone()),
            None => {
                let (account, container) =
                    account.trim_matches('/').split_once('/').unwrap_or((&account, ""));
                (account.to_owned(), container.to_owned())
            }
        });
        match &words {
            Some((_, container)) if container.is_empty() => {
                return Err(refuse(
                    "name a container too: accounts' databases are none of an agent's business",
                ));
            }
            Some((account, container))
                if account.is_empty() || account.contains('/') || container.contains('/') =>
            {
                return Err(refuse(
                    "no account is without a name, and neither it nor a container has a slash in it",
                ));
            }
            _ => {}
        }
        Ok(StatusOptions { config, container: words, json })
    }
}

#[derive(Args)]
struct LocateArguments {
    #[arg(long, value_name = "PATH", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    /// Use this ring file; others are looked for beside it
    #[arg(long, value_name = "FILE")]
    ring: Option<PathBuf>,
    /// Storage policy of the object [default: the container's]
    #[arg(long, value_name = "N")]
    policy: Option<u32>,
    /// All handoffs, not only as many as there are primaries
    #[arg(short, long)]
    all_handoffs: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The account, as in AUTH_test; or ACCOUNT/CONTAINER/OBJECT
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// A container of it
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
    /// An object in that
    #[arg(value_name = "OBJECT")]
    object: Option<String>,
}

impl From<LocateArguments> for LocateOptions {
    fn from(arguments: LocateArguments) -> LocateOptions {
        let LocateArguments { config, ring, policy, all_handoffs, json, account, container, object } =
            arguments;
        LocateOptions { config, ring, account, container, object, policy, all_handoffs, json }
    }
}

impl RunArguments {
    fn checked(self) -> Result<RunOptions, clap::Error> {
        let once = self.once || self.dry_run;
        let filter = match (&self.devices, &self.partitions) {
            (Some(_), _) => Some("--devices"),
            (None, Some(_)) => Some("--partitions"),
            (None, None) => None,
        };
        if let (false, Some(filter)) = (once, filter) {
            let reason = format!("{filter} can be used only with --once");
            return Err(Arguments::command().error(ErrorKind::MissingRequiredArgument, reason));
        }
        let verbosity = match (self.verbose, self.quiet) {
            (true, _) => Verbosity::Verbose,
            (false, true) => Verbosity::Quiet,
            (false, false) => Verbosity::Normal,
        };
        Ok(RunOptions {
            config: self.config,
            once,
            devices: self.devices,
            partitions: self.partitions,
            dry_run: self.dry_run,
            json: self.json,
            verbosity,
        })
    }
}

/// A list as Swift reads it (`swift/common/utils: list_from_csv`): commas between, blanks around and empty items do not
/// count. But an empty list is refused: a script whose variable was unset must not walk everything.
fn list(text: &str) -> Result<Vec<&str>, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.is_empty() { Err("the list is empty".to_owned()) } else { Ok(items) }
}

fn devices(text: &str) -> Result<BTreeSet<String>, String> {
    let device = |name: &str| match name {
        "." | ".." => Err(format!("{name:?} is not a device's name")),
        _ if name.contains('/') => {
            Err(format!("{name:?} is a path; name the device as the ring does, as in sdb1"))
        }
        _ => Ok(name.to_owned()),
    };
    list(text)?.into_iter().map(device).collect()
}

fn partitions(text: &str) -> Result<BTreeSet<u32>, String> {
    let partition =
        |number: &str| number.parse().map_err(|_| format!("{number:?} is not a partition's number"));
    list(text)?.into_iter().map(partition).collect()
}

/// Where Swift's own daemon is configured.
const DEFAULT_CONFIG: &str = "/etc/swift/container-server.conf";

const ABOUT: &str = "\
Keeps the replicas of this node's Swift container databases in agreement with
those on other nodes, and moves databases to where the ring wants them. Without
--once it is a daemon: it serves its peers and makes a pass every `interval`.";

const CONFIG_HELP: &str = "\
Conf file, or a directory of fragments
[default: /etc/swift/container-server.conf]";

const AFTER_HELP: &str = "\
Exit status:
   0  the pass had no failure
   1  it had some; the log and the table say with whom
   2  the command line or the configuration cannot be used
  75  another pass of this node is running; try again later

Examples:
  agent                             be the daemon
  agent --once --json               one pass, from cron; its counters as JSON
  agent --once --devices sdb1,sdb2  one pass over two devices
  agent --dry-run --partitions 17   what a pass would do in partition 17
  agent check                       is all in order here?
  agent info path/to/database.db    describe one database
  agent status                      is this node in sync, and if not, why not
  agent locate AUTH_test photos     where a container is, and whether all agree
  agent ring container.builder      a ring's devices, and their balance
  agent demo                        watch a small cluster at work";

const CHECK_HELP: &str = "\
Nothing is changed: what is written to the drives has no name and goes at once.
Run it as root, or as the user that the agent runs as, before the first start
and whenever something seems wrong; the agent may be running meanwhile.

Exit status:
  0  all is in order
  1  there are warnings
  2  there are errors";

const LOCATE_HELP: &str = "\
Databases on this node are looked at, agents on others are asked for theirs.
Nothing is changed, but that an agent takes in waiting rows before it answers.

--ring alone needs no conf file: the hash prefix and suffix come from swift.conf
beside the ring, or else /etc/swift, and every device is asked through its agent
at the usual port. A ring named account*, or object*, stands for one of that
kind, any other for the container ring. With --config as well, only that ring is
another: see where a new ring would have a container, and who has it now.

Exit status:
  0  every primary has it, and they agree; or there was nothing to ask
  1  they disagree, or some primary lacks it or cannot be asked
  2  the command line or the configuration cannot be used";

const STATUS_HELP: &str = "\
Works with an agent running or not, changes nothing, and asks nobody over the
network: for that there is agent locate. The README says what each alarm means.

Exit status:
  0  nothing needs a person; there may be a backlog that shrinks
  1  something does; it is told first, with what to do
  2  the command line, the configuration or the ring cannot be used

Examples:
  agent status                   this node
  agent status AUTH_test photos  one database on it
  agent status --json            one object, for monitoring";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let words = std::iter::once("agent").chain(line.split_whitespace());
        parse(words.map(OsString::from)).map_err(|error| error.to_string())
    }

    fn run(line: &str) -> RunOptions {
        match parsed(line) {
            Ok(Command::Run(options)) => options,
            other => panic!("agent {line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_is_a_daemon() {
        assert_eq!(
            run(""),
            RunOptions {
                config: PathBuf::from("/etc/swift/container-server.conf"),
                once: false,
                devices: None,
                partitions: None,
                dry_run: false,
                json: false,
                verbosity: Verbosity::Normal,
            }
        );
    }

    #[test]
    fn swifts_short_options_mean_the_long_ones() {
        let long = run("--once --devices sdb1,sdb2 --partitions 3,17 --verbose --config x");
        assert_eq!(run("-o -d sdb1,sdb2 -p 17,3,3 -v --config x"), long);
        assert_eq!(long.devices, Some(BTreeSet::from(["sdb1".to_owned(), "sdb2".to_owned()])));
        assert_eq!(long.partitions, Some(BTreeSet::from([3, 17])));
    }

    #[test]
    fn a_dry_run_is_a_single_one() {
        assert!(run("--dry-run --partitions 1").once);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        let table = [
            ("--onec", "--onec"),
            ("--devices sdb", "--devices can be used only with --once"),
            ("--partitions 1", "--partitions can be used only with --once"),
            ("--once --partitions x", "\"x\" is not a partition's number"),
            ("--once --partitions -1", "-1"),
            ("--once --partitions 4294967296", "\"4294967296\" is not"),
            ("--once --partitions ,", "the list is empty"),
            ("--once --devices=", "the list is empty"),
            ("--once --devices=,,", "the list is empty"),
            ("--once --devices /srv/node/sdb", "is a path"),
            ("--once --devices ..", "is not a device's name"),
            ("-v -q", "cannot be used with"),
            ("--once demo", "demo"),
            ("once", "once"),
            ("info", "<DB>"),
            ("info a b", "'b'"),
        ];
        for (line, reason) in table {
            match parsed(line) {
                Err(text) => assert!(text.contains(reason), "agent {line}: {reason:?} is missing: {text}"),
                Ok(command) => panic!("agent {line}: {command:?}"),
            }
        }
    }

    #[test]
    fn subcommands_take_their_own_options() {
        let demo = Command::Demo(DemoOptions { keep: Some(PathBuf::from("here")) });
        assert_eq!(parsed("demo --keep here"), Ok(demo));
        let info = InfoOptions { database: PathBuf::from("x.db"), config: PathBuf::from("c"), json: true };
        assert_eq!(parsed("info x.db --json --config c"), Ok(Command::Info(info)));
        let locate = LocateOptions {
            config: None,
            ring: Some(PathBuf::from("r")),
            account: "a".to_owned(),
            container: Some("c".to_owned()),
            object: Some("-o".to_owned()),
            policy: Some(1),
            all_handoffs: true,
            json: true,
        };
        let line = "locate --ring r -a --policy 1 --json -- a c -o";
        assert_eq!(parsed(line), Ok(Command::Locate(locate)));
    }

    #[test]
    fn the_log_goes_where_it_is_looked_for() {
        use Stderr::{Journal, Other, Terminal};
        let table = [
            ("", Other, false, Sink::Syslog),
            ("", Other, true, Sink::Syslog),
            ("-q", Other, false, Sink::Syslog),
            ("", Terminal, false, Sink::Stderr),
            ("", Terminal, true, Sink::Stderr),
            ("-v", Other, false, Sink::Stderr),
            ("--once", Other, false, Sink::Stderr),
            ("", Journal, false, Sink::Journal),
            ("", Journal, true, Sink::Syslog),
            ("-v", Journal, true, Sink::Journal),
            ("--once", Journal, true, Sink::Journal),
        ];
        for (line, stderr, elsewhere, sink) in table {
            assert_eq!(run(line).sink(stderr, elsewhere), sink, "agent {line} {stderr:?} {elsewhere}");
        }
    }

    #[test]
    fn verbosity_bends_the_configured_level() {
        use LevelFilter::{Debug, Error, Info, Warn};
        assert_eq!(Verbosity::Quiet.level(Info), Warn);
        assert_eq!(Verbosity::Quiet.level(Error), Error);
        assert_eq!(Verbosity::Normal.level(Error), Error);
        assert_eq!(Verbosity::Verbose.level(Error), Debug);
    }
}
