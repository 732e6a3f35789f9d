//! The conf files: which are read, and whether they say what their writer meant.
//!
//! Swift passes over an option that it does not know, and so does the agent, since one file serves both. So a slip of the
//! pen in a name leaves a default in force without a word. Here each name in our section is held against all that Swift's
//! replicator and the agent know.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use super::{Finding, Subject, count};
use crate::config::ini::Options;
use crate::config::{self, AGENT_OPTIONS, Cluster, Config, ConfigError};

const CONF: Subject = Subject::Conf;

/// What the conf files say, and the configuration if it can be used.
pub fn check(path: &Path) -> (Vec<Finding>, Option<Config>) {
    let mut findings = Vec::new();
    let files = match config::conf_files(path) {
        Ok(files) => files,
        Err(error) => return (vec![CONF.plain_error(error)], None),
    };
    let options = match config::load_options(path) {
        Ok(options) => options,
        Err(error) => return (vec![CONF.plain_error(error)], None),
    };
    let read: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    findings.push(CONF.ok(match read.as_slice() {
        [only] => format!("{only} is read"),
        several => format!("{} are read in this order: {}", count(several.len(), "file"), several.join(", ")),
    }));
    let own = config::own_names(path).unwrap_or_default();
    findings.extend(judge_options(&own, &options));
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            findings.push(refused(error));
            return (findings, None);
        }
    };
    let places = Cluster::places(&options).unwrap_or_default();
    let file = places.iter().find(|place| place.exists()).map(|place| place.display().to_string());
    findings.push(judge_salt(
        &file.unwrap_or_else(|| "swift.conf".to_owned()),
        &config.salt.prefix,
        &config.salt.suffix,
    ));
    findings.extend(
        config.warnings.iter().map(|warning| {
            CONF.warning(warning.to_string(), "rename it, while both daemons know both names")
        }),
    );
    findings.extend(judge(&config));
    (findings, Some(config))
}

/// Whether the user that we are by now may read the files: a daemon that is told to reload reads them as that user.
pub fn check_readable(path: &Path) -> Vec<Finding> {
    let files = config::conf_files(path).unwrap_or_else(|_| vec![path.to_owned()]);
    files
        .iter()
        .filter_map(|file| File::open(file).err().map(|error| (file, error)))
        .map(|(file, error)| {
            let what = format!("{}: the agent's user cannot read it: {error}", file.display());
            CONF.error(what, "give it to a group of that user, and chmod g+r; directories above it need g+x")
        })
        .collect()
}

/// Why the configuration cannot be used, with the name that was meant if it is a name that is wrong.
fn refused(error: ConfigError) -> Finding {
    match &error {
        ConfigError::UnknownOption { option } => match nearest(option, AGENT_OPTIONS) {
            Some(meant) => CONF.error(format!("there is no option {option}"), format!("write {meant}")),
            None => CONF.plain_error(error),
        },
        _ => CONF.plain_error(error),
    }
}

/// The names and values in force; `own` are those of our section, which are meant for a replicator.
fn judge_options(own: &BTreeSet<String>, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, value) in options {
        if name.starts_with("agent_") {
            // One that is not known is refused as a whole.
            continue;
        }
        if let Some(meaning) =
            NOT_HONOURED.iter().find(|(known, _)| known == name).map(|(_, meaning)| meaning)
        {
            findings.push(CONF.warning(format!("{name} = {value} is not honoured"), *meaning));
        } else if TRUTHS.contains(&name.as_str()) && !is_a_word_of_truth(value) {
            let what = format!("{name} = {value} counts as false, as in Swift");
            findings.push(CONF.warning(what, "write true or false"));
        } else if !HONOURED.contains(&name.as_str()) {
            findings.extend(judge_unknown(name, own.contains(name)));
        } else if name.starts_with("log_statsd_")
            && options.get("log_statsd_host").is_none_or(String::is_empty)
        {
            let what = format!("{name} has no effect, as log_statsd_host names no server");
            findings.push(CONF.warning(what, "name one, or remove it"));
        }
    }
    findings
}

/// A name that no replicator knows. In `[DEFAULT]` it may be another daemon's, unless it looks like one of ours.
fn judge_unknown(name: &str, is_own: bool) -> Option<Finding> {
    if let Some(set) = name.strip_prefix("set ") {
        let what = format!("{name:?} sets nothing: `set` is for sections of Paste");
        return Some(CONF.warning(what, format!("write {}", set.trim())));
    }
    let known = HONOURED.iter().chain(&AGENT_OPTIONS).copied().chain(NOT_HONOURED.map(|(name, _)| name));
    match (nearest(name, known), is_own) {
        (_, false) if OF_OTHERS.contains(&name) => None,
        (Some(meant), _) => {
            Some(CONF.warning(format!("{name} is no option of a replicator"), format!("write {meant}")))
        }
        (None, true) => Some(CONF.warning(
            format!("{name} is no option of a replicator"),
            "remove it, or move it to the section of the daemon that knows it",
        )),
        (None, false) => None,
    }
}

/// The known name that was meant, if one is near enough.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    let (nearest, slips) =
        known.into_iter().map(|known| (known, distance(known))).min_by_key(|(_, slips)| *slips)?;
    // A third of the letters may be wrong, and no more than three.
    (slips <= SLIPS_LIMIT.min(nearest.len() / 3)).then_some(nearest)
}

fn is_a_word_of_truth(value: &str) -> bool {
    let words = ["true", "1", "yes", "on", "t", "y", "false", "0", "no", "off", "f", "n"];
    words.contains(&value.to_lowercase().as_str())
}

/// What of the secret is set. It is not shown.
fn judge_salt(file: &str, prefix: &[u8], suffix: &[u8]) -> Finding {
    if [prefix, suffix].contains(&b"changeme".as_slice()) {
        let what = format!("{file}: the hash prefix or suffix is still Swift's example, \"changeme\"");
        let remedy = "in a new cluster, choose a secret of your own; in one with data it must stay as it is";
        return CONF.warning(what, remedy);
    }
    let of = |what: &str, bytes: &[u8]| match bytes.len() {
        0 => format!("no {what}"),
        length => format!("a {what} of {}", count(length, "byte")),
    };
    CONF.ok(format!("{file}: {} and {}", of("hash prefix", prefix), of("hash suffix", suffix)))
}

/// Values that work, but hardly as meant.
fn judge(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !config.mount_check {
        let what = "mount_check = false: while a drive is not mounted, its databases go to the disk below it";
        findings.push(
            CONF.warning(what, "set mount_check = true, or mark what is no mount point by a file .ismount"),
        );
    }
    if config.handoffs_only {
        let what =
            "handoffs_only = true: passes move handoffs home and leave replicas that differ as they are";
        findings.push(CONF.warning(what, "set it to false as soon as the drives have room again"));
    }
    if !config.agent.passes {
        findings.push(
            CONF.ok(
                "agent_passes = no: the daemon only serves peers; passes are to come from cron or a timer",
            ),
        );
    }
    findings
}

/// Swift's options that the agent goes by.
const HONOURED: [&str; 35] = [
    "bind_ip",
    "bind_port",
    "concurrency",
    "conn_timeout",
    "databases_per_second",
    "devices",
    "fallocate_reserve",
    "handoff_delete",
    "handoffs_only",
    "interval",
    "ionice_class",
    "ionice_priority",
    "log_address",
    "log_facility",
    "log_level",
    "log_max_line_length",
    "log_name",
    "log_statsd_default_sample_rate",
    "log_statsd_host",
    "log_statsd_metric_prefix",
    "log_statsd_port",
    "log_statsd_sample_rate_factor",
    "log_udp_host",
    "log_udp_port",
    "max_diffs",
    "mount_check",
    "nice_priority",
    "node_timeout",
    "per_diff",
    "reclaim_age",
    "recon_cache_path",
    "run_pause",
    "statsd_emit_legacy",
    "swift_dir",
    "user",
];

/// Swift's options that it does not go by, and what that means.
const NOT_HONOURED: [(&str, &str); 10] = [
    ("daemonize", "the agent is a daemon unless it is started with --once"),
    ("db_preallocation", "databases grow as SQLite has them grow; remove it if no other daemon wants it"),
    ("db_query_logging", "nothing is logged of single statements; remove it if no other daemon wants it"),
    ("disable_fallocate", "the agent never asks for space beforehand; fallocate_reserve holds in any case"),
    ("eventlet_debug", "the agent has no eventlet; remove it if no other daemon wants it"),
    ("log_custom_handlers", "they are Python; logs go to syslog, the journal or standard error"),
    ("rsync_compress", "there is no rsync; agent_compress says whether files are compressed on the way"),
    ("rsync_module", "there is no rsync; files travel on the agents' own connections"),
    ("sync_method", "there is one method; remove it"),
    ("replicator_sync_method", "there is one method; remove it"),
];

/// Options that are false for any word that is not one of Swift's for true.
const TRUTHS: [&str; 3] = ["handoffs_only", "mount_check", "statsd_emit_legacy"];

/// What other daemons look for in `[DEFAULT]`, lest it be taken for a slip of the pen.
const OF_OTHERS: [&str; 15] = [
    "allowed_sync_hosts",
    "auto_create_account_prefix",
    "backlog",
    "bind_timeout",
    "cert_file",
    "container_sync_keys",
    "disk_chunk_size",
    "keep_idle",
    "key_file",
    "log_headers",
    "max_clients",
    "network_chunk_size",
    "servers_per_port",
    "statsd_label_mode",
    "workers",
];

/// More wrong letters make another word.
const SLIPS_LIMIT: usize = 3;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn judged(own: &[(&str, &str)], default: &[(&str, &str)]) -> Vec<(Verdict, String, String)> {
        let text = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let names = own.iter().map(|(name, _)| name.to_string()).collect();
        let options = default.iter().chain(own).map(text).collect();
        let findings = judge_options(&names, &options);
        findings.into_iter().map(|f| (f.verdict, f.what, f.remedy.unwrap_or_default())).collect()
    }

    #[test]
    fn slips_of_the_pen_are_found_and_the_rest_is_left_alone() {
        for (name, meant) in [
            ("concurency", Some("concurrency")),
            ("per_dif", Some("per_diff")),
            ("handoff_only", Some("handoffs_only")),
            ("Interval", Some("interval")),
            ("set interval", Some("interval")),
            ("rsync_modul", Some("rsync_module")),
            ("x", None),
            ("uzer", Some("user")),
            ("uzzr", None),
            ("xoncxrrencx", Some("concurrency")),
            ("xoncxrrexcx", None),
            ("users", Some("user")),
            ("something_else", None),
        ] {
            let own = judged(&[(name, "1")], &[]);
            let [(Verdict::Warning, what, remedy)] = own.as_slice() else { panic!("{name}: {own:?}") };
            assert!(what.contains(name), "{what}");
            match meant {
                Some(meant) => assert_eq!(remedy, &format!("write {meant}")),
                None => assert!(remedy.starts_with("remove it"), "{remedy}"),
            }
            // In [DEFAULT] it may be somebody else's.
            assert_eq!(judged(&[], &[(name, "1")]).len(), usize::from(meant.is_some()), "{name}");
        }
        assert_eq!(judged(&[], &[("workers", "2"), ("backlog", "4096"), ("max_clients", "9")]), []);
        assert_eq!(judged(&[("workers", "2")], &[]).len(), 1, "a replicator has none");
    }

    #[test]
    fn names_that_are_known_are_of_one_kind_only() {
        for name in HONOURED {
            let server = ("log_statsd_host", "127.0.0.1");
            assert_eq!(judged(&[(name, "true"), server], &[]), [], "{name}");
            assert!(!OF_OTHERS.contains(&name), "{name}");
        }
        for (name, meaning) in NOT_HONOURED {
            let said = judged(&[(name, "v")], &[]);
            assert_eq!(said, [(Verdict::Warning, format!("{name} = v is not honoured"), meaning.to_owned())]);
            assert!(!HONOURED.contains(&name) && !OF_OTHERS.contains(&name), "{name}");
        }
    }

    #[test]
    fn options_of_statsd_have_an_effect_if_there_is_a_server() {
        let (port, host) = (("log_statsd_port", "8125"), ("log_statsd_host", "metrics.example"));
        assert_eq!(judged(&[port, host], &[]), []);
        assert_eq!(judged(&[("statsd_emit_legacy", "true")], &[]), []);
        for options in [&[port][..], &[port, ("log_statsd_host", "")]] {
            let said = judged(options, &[]);
            let [(Verdict::Warning, what, remedy), ..] = said.as_slice() else { panic!("{said:?}") };
            assert!(what.contains("has no effect") && remedy.starts_with("name one"), "{what}: {remedy}");
        }
    }

    #[test]
    fn a_word_that_is_neither_true_nor_false_is_told() {
        for (value, warnings) in
            [("true", 0), ("No", 0), ("0", 0), ("F", 0), ("enabled", 1), ("", 1), (" true", 1)]
        {
            assert_eq!(judged(&[("mount_check", value)], &[]).len(), warnings, "{value:?}");
        }
    }

    #[test]
    fn the_salt_is_told_of_but_not_shown() {
        let said = judge_salt("swift.conf", b"", b"pepper");
        assert_eq!(said.what, "swift.conf: no hash prefix and a hash suffix of 6 bytes");
        assert_eq!(said.verdict, Verdict::Ok);
        assert_eq!(judge_salt("f", b"changeme", b"x").verdict, Verdict::Warning);
        assert_eq!(judge_salt("f", b"changemeplease", b"x").verdict, Verdict::Ok);
    }

    #[test]
    fn an_unknown_option_of_ours_is_an_error_with_the_one_that_was_meant() {
        for (option, remedy) in [("agent_pases", Some("write agent_passes")), ("agent_wings", None)] {
            let said = refused(ConfigError::UnknownOption { option: option.to_owned() });
            assert_eq!((said.verdict, said.remedy.as_deref()), (Verdict::Error, remedy));
            assert!(said.what.contains(option), "{}", said.what);
        }
    }

    #[test]
    fn values_that_work_but_hardly_as_meant_are_warned_of() {
        let swift = b"[swift-hash]\nswift_hash_path_suffix = s\n";
        for (options, verdicts) in [
            ("", &[][..]),
            ("mount_check = false", &[Verdict::Warning]),
            ("handoffs_only = true", &[Verdict::Warning]),
            ("agent_passes = no", &[Verdict::Ok]),
        ] {
            let config =
                Config::from_text(&format!("[container-replicator]\n{options}\n"), swift).expect(options);
            let said: Vec<Verdict> = judge(&config).iter().map(|finding| finding.verdict).collect();
            assert_eq!(said, verdicts, "{options}");
        }
    }
}
