//! Whether an agent can do its work here, before it is first started and at any time: what is in order, what is not, and
//! how to mend it.
//!
//! One file a subject: [`conf`], [`rings`], [`drives`], [`peers`], [`machine`], [`metrics`]. Each first gathers facts, which takes the
//! system, and then judges them, which takes nothing, so that every judgement has a test.
//!
//! Nothing is changed: what is probed on a drive is a file without a name. And nothing is waited for: peers and drives are
//! asked all at once, each is given up on its own, and a drive that hangs holds up a process that was started for it, not
//! us. Everything is seen with the eyes of the user that the agent runs as.

pub mod conf;
pub mod drives;
pub mod machine;
pub mod metrics;
pub mod peers;
pub mod rings;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::report::text;

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to.
    pub subject: Subject,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is so.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a finding belongs to, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Conf files.
    Conf,
    /// Rings.
    Rings,
    /// Our drives.
    Drives,
    /// Agents on other nodes, and on ours.
    Peers,
    /// Everything else on this node.
    Machine,
}

/// How bad a finding is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The agent works, but not as well as it could, or not for long, or not with everybody.
    Warning,
    /// Something does not work until it is mended.
    Error,
}

impl Subject {
    fn ok(self, what: impl Into<String>) -> Finding {
        Finding { subject: self, verdict: Verdict::Ok, what: what.into(), remedy: None }
    }

    fn warning(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject: self, verdict: Verdict::Warning, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn error(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject: self, verdict: Verdict::Error, what: what.into(), remedy: Some(remedy.into()) }
    }

    /// An error whose text says what to do about it.
    fn plain_error(self, what: impl ToString) -> Finding {
        Finding { subject: self, verdict: Verdict::Error, what: what.to_string(), remedy: None }
    }
}

/// The worst of some findings.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// Checks everything. `become_user` makes us the user that the agent runs as, where we can.
pub fn all(path: &Path, become_user: &dyn Fn(&str) -> Result<(), String>) -> Vec<Finding> {
    let (mut findings, config) = conf::check(path);
    let Some(config) = config.map(Arc::new) else {
        findings.extend(machine::check(None));
        return findings;
    };
    findings.extend(machine::user(&config.user, become_user));
    findings.extend(conf::check_readable(path));
    let look = config.clone();
    let (rings, ours) = within(RINGS_LIMIT, move || rings::check(&look)).unwrap_or_else(|| {
        let what = format!(
            "the ring was not to be had in {} s, or the host names in it have no addresses",
            RINGS_LIMIT.as_secs()
        );
        (vec![Subject::Rings.error(what, "look at the drive of swift_dir, and at the name service")], None)
    });
    findings.extend(rings);
    let (drives, peers) = (config.clone(), config.clone());
    let (ring, on) = (ours.clone(), ours);
    let drives = start(move || drives::check(&drives, ring.as_ref()));
    let peers = start(move || peers::check(&peers, on.as_ref()));
    let machine = machine::check(Some(&config));
    let metrics = metrics::check(&config);
    findings.extend(drives.recv().unwrap_or_default());
    findings.extend(peers.recv().unwrap_or_default());
    findings.extend(machine);
    findings.extend(metrics);
    findings.sort_by_key(|finding| finding.subject);
    findings
}

/// Does something beside us. A panic in it ends the channel.
fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (tell, told) = mpsc::channel();
    // Without a thread nobody tells anything, which the caller hears.
    let _ = thread::Builder::new().name("check".into()).spawn(move || tell.send(work()));
    told
}

/// Does something, unless it takes longer: then it is left behind with the process.
fn within<T: Send + 'static>(time: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    start(work).recv_timeout(time).ok()
}

/// `1 device`, `2 devices`.
fn count(number: usize, word: &str) -> String {
    text::count(number as u64, word)
}

/// The first few of some names.
fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN {
        shown += &format!(" and {} more", names.len() - NAMES_SHOWN);
    }
    shown
}

/// How long rings, and the name service for the host names in them, may take.
const RINGS_LIMIT: Duration = Duration::from_secs(3);
/// More names than this say nothing.
const NAMES_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        let ok = Subject::Conf.ok("a");
        let warning = Subject::Rings.warning("b", "c");
        let error = Subject::Conf.plain_error("d");
        for (findings, expected) in [
            (vec![], Verdict::Ok),
            (vec![ok.clone()], Verdict::Ok),
            (vec![ok.clone(), warning.clone()], Verdict::Warning),
            (vec![error.clone(), warning, ok], Verdict::Error),
            (vec![error], Verdict::Error),
        ] {
            assert_eq!(worst(&findings), expected, "{findings:?}");
        }
    }

    #[test]
    fn what_takes_too_long_is_left_behind() {
        assert_eq!(within(Duration::from_secs(20), || 7), Some(7));
        let begun = std::time::Instant::now();
        let slow = within(Duration::from_millis(20), || thread::sleep(Duration::from_secs(5)));
        assert!(slow.is_none() && begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
        let few = |count: usize| some_of(names[..count].iter().map(String::as_str));
        assert_eq!(few(1), "d0");
        assert!(few(8).ends_with("d7"));
        assert!(few(9).ends_with("d7 and 1 more"));
    }
}
