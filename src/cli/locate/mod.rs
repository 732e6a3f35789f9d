//! `agent locate`: where something belongs, and which of these places have it.
//!
//! What `swift-get-nodes` tells, from the same rings in the same order, and then what its user wants to know next: is the
//! database there, and is it the same everywhere? For an object it is the container that lists it which is looked at.
//! Agents keep containers only, so for an account, or for an object's own file, the places are all there is to tell.

mod ask;
mod json;
mod places;
mod show;
mod verdict;

use std::fmt;
use std::path::{Path, PathBuf};

use self::ask::{Question, ask_all};
use self::places::{Kind, Placed, Placement, Rings, Whereabouts};
use self::show::Show;
use self::verdict::{Finding, Verdict};
use super::{Exit, LocateOptions, complain, print};
use crate::config::ini::Options;
use crate::config::{self, Cluster, Config, ConfigError};
use crate::replica::TEXT_LIMIT;
use crate::ring::RingError;

/// Prints hash, partition, devices and paths, then who has the database and whether all agree.
pub fn locate(options: &LocateOptions) -> Exit {
    match search(options) {
        Ok(exit) => exit,
        Err(error) => complain(error),
    }
}

/// Why nothing can be located.
#[derive(Debug)]
enum LocateError {
    /// A name is empty.
    Empty(&'static str),
    /// A name that can have no slash has one.
    Slash {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name is longer than any.
    TooLong(&'static str),
    /// A policy was named, and no object.
    PolicyOfNothing,
    /// The configuration.
    Config(ConfigError),
    /// A ring is there, or was named, and cannot be read.
    Ring(RingError),
    /// The ring that is needed first is not there.
    NoRing(PathBuf),
    /// The system does not tell its own addresses.
    Addresses(nix::Error),
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocateError::Empty(what) => write!(f, "the name of the {what} is empty"),
            LocateError::Slash { what, name } => write!(f, "{name:?} cannot name {what}: it has a slash"),
            LocateError::TooLong(what) => {
                write!(f, "the name of the {what} is longer than {TEXT_LIMIT} bytes")
            }
            LocateError::PolicyOfNothing => f.write_str("--policy is for objects; name one"),
            LocateError::Config(error) => error.fmt(f),
            LocateError::Ring(error) => error.fmt(f),
            LocateError::NoRing(path) => {
                write!(f, "{}: there is no such ring; name one with --ring", path.display())
            }
            LocateError::Addresses(error) => {
                write!(f, "cannot list this machine's addresses: {error}; set bind_ip in the conf file")
            }
        }
    }
}

impl std::error::Error for LocateError {}

impl From<ConfigError> for LocateError {
    fn from(error: ConfigError) -> LocateError {
        LocateError::Config(error)
    }
}

impl From<RingError> for LocateError {
    fn from(error: RingError) -> LocateError {
        LocateError::Ring(error)
    }
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    account: String,
    container: Option<String>,
    object: Option<String>,
}

impl Item {
    /// One word can be all three, with slashes between, as in `swift-get-nodes`.
    fn of(options: &LocateOptions) -> Result<Item, LocateError> {
        let given = [Some(&options.account), options.container.as_ref(), options.object.as_ref()];
        let mut words: Vec<&str> = given.into_iter().flatten().map(String::as_str).collect();
        if let [all] = words[..] {
            words = all.trim_matches('/').splitn(3, '/').collect();
        }
        for (what, word) in ["account", "container", "object"].into_iter().zip(&words) {
            if word.is_empty() {
                return Err(LocateError::Empty(what));
            }
            if word.contains('/') && what != "object" {
                let name = (*word).to_owned();
                return Err(LocateError::Slash {
                    what: if what == "account" { "an account" } else { "a container" },
                    name,
                });
            }
            if word.len() > TEXT_LIMIT {
                return Err(LocateError::TooLong(what));
            }
        }
        let mut words = words.into_iter().map(str::to_owned);
        let account = words.next().unwrap_or_default();
        Ok(Item { account, container: words.next(), object: words.next() })
    }
}

/// Who we are and which rings to look into.
fn prepare(options: &LocateOptions) -> Result<(Whereabouts, Rings), LocateError> {
    let named = options.ring.clone();
    let (config, knows_itself) = match (&options.config, &named) {
        (None, Some(ring)) => (config_beside(ring)?, false),
        (Some(path), _) => (Config::load(path)?, true),
        (None, None) => (Config::load(Path::new(config::DEFAULT_PATH))?, true),
    };
    let my_addresses = match knows_itself {
        true => config::my_addresses(&config.bind_ip).map_err(LocateError::Addresses)?,
        false => Vec::new(),
    };
    let rings = Rings { directory: config.swift_dir.clone(), named };
    Ok((Whereabouts { config, my_addresses }, rings))
}

/// A configuration for somebody who has a ring and no conf file: `swift.conf` is beside it, all else is as usual.
fn config_beside(ring: &Path) -> Result<Config, ConfigError> {
    let directory = ring.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let options = Options::from([("swift_dir".to_owned(), directory.to_string_lossy().into_owned())]);
    Config::new(&options, Cluster::load(&options)?)
}

fn search(options: &LocateOptions) -> Result<Exit, LocateError> {
    let item = Item::of(options)?;
    if options.policy.is_some() && item.object.is_none() {
        return Err(LocateError::PolicyOfNothing);
    }
    let (here, rings) = prepare(options)?;
    let find = |kind: Kind, container: Option<&str>, object: Option<&str>| {
        let hash = here.config.salt.hash(&item.account, container, object);
        Placement::find(kind, hash, &rings, &here, options.all_handoffs)
    };
    let show = Show::new(options.json);
    show.item(&item);
    let container = item.container.as_deref();
    let first = find(if container.is_some() { Kind::Container } else { Kind::Account }, container, None)?;
    show.placement(&first, &here.config.devices);
    let Some(placed) = &first.placed else { return Err(LocateError::NoRing(first.ring_path)) };
    let Some(container) = container else {
        if options.json {
            print(&json::object(&item, &first, None, None));
        }
        return Ok(Exit::Clean);
    };
    let report = Report::make(&here.config, &item, container, &first, placed);
    show.report(&report, placed);
    let object = match &item.object {
        None => None,
        Some(object) => {
            let policy = options.policy.or(report.policy()).unwrap_or(0);
            Some(find(Kind::Object(policy), Some(container), Some(object))?)
        }
    };
    if let Some(object) = &object {
        show.placement(object, &here.config.devices);
        show.rows(&report, placed);
    }
    show.verdict(&report.verdict);
    if options.json {
        print(&json::object(&item, &first, Some(&report), object.as_ref()));
    }
    Ok(if report.verdict.is_sound { Exit::Clean } else { Exit::Failures })
}

/// What was found of a container, a finding for each place.
struct Report {
    findings: Vec<Finding>,
    verdict: Verdict,
}

impl Report {
    fn make(config: &Config, item: &Item, container: &str, at: &Placement, placed: &Placed) -> Report {
        let question = Question {
            config: config.clone(),
            account: item.account.clone(),
            container: container.to_owned(),
            object: item.object.clone(),
            partition: placed.partition,
            hash: at.hash,
        };
        let findings = ask_all(question, &placed.spots);
        let verdict = Verdict::of(&findings, placed.primaries);
        Report { findings, verdict }
    }

    /// The policy that the container's objects are placed by.
    fn policy(&self) -> Option<u32> {
        let held = self.findings[self.verdict.reference?].held()?;
        held.info.storage_policy_index.0.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(words: &[&str]) -> Result<[Option<String>; 3], String> {
        let word = |index: usize| words.get(index).map(|word| (*word).to_owned());
        let options = LocateOptions {
            config: None,
            ring: None,
            account: word(0).expect("an account"),
            container: word(1),
            object: word(2),
            policy: None,
            all_handoffs: false,
            json: false,
        };
        let item = Item::of(&options).map_err(|error| error.to_string())?;
        Ok([Some(item.account), item.container, item.object])
    }

    #[test]
    fn one_word_can_be_all_three() {
        let table: [(&[&str], [Option<&str>; 3]); 8] = [
            (&["a"], [Some("a"), None, None]),
            (&["/a/"], [Some("a"), None, None]),
            (&["a/c"], [Some("a"), Some("c"), None]),
            (&["/a/c/o/p"], [Some("a"), Some("c"), Some("o/p")]),
            (&["a", "c"], [Some("a"), Some("c"), None]),
            (&["a", "c", "o/p/"], [Some("a"), Some("c"), Some("o/p/")]),
            (&["a", "c", "/"], [Some("a"), Some("c"), Some("/")]),
            (&["ä ö", "ü\n"], [Some("ä ö"), Some("ü\n"), None]),
        ];
        for (words, parts) in table {
            assert_eq!(item(words), Ok(parts.map(|part| part.map(str::to_owned))), "{words:?}");
        }
    }

    #[test]
    fn what_can_be_no_name_is_refused() {
        let long = "x".repeat(TEXT_LIMIT + 1);
        let table: [(&[&str], &str); 7] = [
            (&[""], "the name of the account is empty"),
            (&["/"], "the name of the account is empty"),
            (&["a//o"], "the name of the container is empty"),
            (&["a", "c", ""], "the name of the object is empty"),
            (&["a/b", "c"], "\"a/b\" cannot name an account: it has a slash"),
            (&["a", "c/d"], "\"c/d\" cannot name a container: it has a slash"),
            (&["a", "c", &long], "the name of the object is longer than 8192 bytes"),
        ];
        for (words, reason) in table {
            assert_eq!(item(words), Err(reason.to_owned()));
        }
        assert!(item(&["a", "c", &long[1..]]).is_ok());
    }
}
