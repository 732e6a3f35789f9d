//! A command line of `agent ring` turned into a [`Command`].
//!
//! The grammar is that of `swift-ring-builder` (`swift/cli/ringbuilder.py`): devices are named by strings or by options,
//! never by both. Where Swift passes over words it has no use for, we refuse them, for they were meant to say something;
//! and where it reads a number in Python's manner (`010` in octal, `1_0`, `-1`), we take plain decimal digits only.

use std::fmt;

use super::device_options::{
    DEVICE_FLAGS, YES, change_by_options, decimal, device_by_options, names_devices, search_by_options,
};
use super::usage::{self, Usage};
use super::words::{Flag, Reason, Words};
use crate::ring::builder::{DeviceChange, NewDevice};
use crate::ring::device_string::{AddString, Search, number, parse_change};
use crate::ring::format::{FormatVersion, IdWidth};

/// What is to be done with a builder.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Nothing was said: show the builder and its devices.
    Summary,
    /// Say how a command is used.
    Help(&'static str),
    /// Make a builder.
    Create {
        /// `log2` of the number of partitions.
        part_power: u8,
        /// Replicas of a partition on average.
        replicas: f64,
        /// For how long a partition that was moved stays.
        min_part_hours: u32,
        /// Replace a builder that is there.
        yes: bool,
    },
    /// Add devices.
    Add {
        /// All or none of them.
        devices: Vec<NewDevice>,
        /// The strings that named no region.
        without_region: Vec<String>,
    },
    /// Show devices.
    Search(Search),
    /// Show the partitions of devices.
    ListParts(Vec<Search>),
    /// Change devices.
    Change {
        /// What is to be changed, one after the other.
        changes: Vec<(Search, Change)>,
        /// Do not ask.
        yes: bool,
    },
    /// Mark devices for removal.
    Remove {
        /// Any of these.
        searches: Vec<Search>,
        /// Do not ask.
        yes: bool,
    },
    /// Move partitions.
    Rebalance(RebalanceOptions),
    /// Check the builder.
    Validate,
    /// Report how replicas are spread.
    Dispersion {
        /// Only tiers whose names begin like this: a regular expression.
        filter: Option<String>,
        /// Tier by tier.
        verbose: bool,
        /// Look anew, and keep what is found.
        recalculate: bool,
    },
    /// Say what the ring file is.
    Version,
    /// Change the number of replicas.
    SetReplicas(f64),
    /// Change the overload.
    SetOverload {
        /// 0.1 is a tenth.
        overload: f64,
        /// Whether it was given in percent.
        percent: bool,
    },
    /// Change for how long partitions stay.
    SetMinPartHours(u32),
    /// Let every partition be moved.
    PretendMinPartHoursPassed {
        /// Do not ask.
        yes: bool,
    },
    /// Write the ring file anew.
    WriteRing {
        /// Its format.
        version: FormatVersion,
        /// How wide ids are in it, if not as in the builder.
        id_width: Option<IdWidth>,
    },
    /// Make a builder from a ring.
    WriteBuilder {
        /// For how long partitions shall stay.
        min_part_hours: Option<u32>,
    },
    /// Draw the assignment.
    Show(Vec<String>),
}

/// What becomes of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Another weight.
    Weight(f64),
    /// Another region.
    Region(i64),
    /// Another zone.
    Zone(i64),
    /// Something that has no part in placing replicas.
    Info(DeviceChange),
}

impl Change {
    /// What is changed, in a word.
    pub fn what(&self) -> &'static str {
        match self {
            Change::Weight(_) => "weight",
            Change::Region(_) => "region",
            Change::Zone(_) => "zone",
            Change::Info(_) => "info",
        }
    }
}

/// How to rebalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebalanceOptions {
    /// Any text; chance decides if there is none.
    pub seed: Option<String>,
    /// Save even what changes little.
    pub force: bool,
    /// Say more.
    pub debug: bool,
    /// The format of the ring file.
    pub version: FormatVersion,
}

impl Command {
    /// Reads a command and its arguments.
    ///
    /// # Errors
    /// What this file's head says, and whatever else is no command.
    pub fn parse(words: &[String]) -> Result<Command, GrammarFault> {
        let Some((name, words)) = words.split_first() else { return Ok(Command::Summary) };
        if name.ends_with("increase_partition_power") {
            return Err(GrammarFault::PartitionPower(name.clone()));
        }
        let Some(usage) = Usage::of(name) else {
            return Err(GrammarFault::Unknown { name: name.clone(), nearest: usage::nearest(name) });
        };
        if words.iter().any(|word| word == "-h" || word == "--help") {
            return Ok(Command::Help(usage.name));
        }
        parse(usage.name, words).map_err(|reason| GrammarFault::Usage { usage, reason })
    }

    /// Whether it may write a file, and must be alone then.
    pub fn writes(&self) -> bool {
        use Command::*;
        match self {
            Summary | Help(_) | Search(_) | ListParts(_) | Validate | Version | Show(_) => false,
            Dispersion { recalculate, .. } => *recalculate,
            Create { .. } | Add { .. } | Change { .. } | Remove { .. } | Rebalance(_) => true,
            SetReplicas(_) | SetOverload { .. } | SetMinPartHours(_) | PretendMinPartHoursPassed { .. } => {
                true
            }
            WriteRing { .. } | WriteBuilder { .. } => true,
        }
    }
}

fn parse(name: &'static str, words: &[String]) -> Result<Command, Reason> {
    let split = |known: &[Flag]| Words::split(words, known);
    match name {
        "create" => {
            let words = split(&[YES])?;
            let [part_power, replicas, min_part_hours] = exactly(&words.arguments)?;
            Ok(Command::Create {
                part_power: number("part power", part_power)?,
                replicas: decimal("number of replicas", replicas)?,
                min_part_hours: number("number of hours", min_part_hours)?,
                yes: words.has("yes"),
            })
        }
        "add" => add(&split(&DEVICE_FLAGS)?),
        "search" if words.is_empty() => Err(Reason::TooFew),
        "search" => {
            let words = split(&DEVICE_FLAGS)?;
            match (&words.arguments[..], names_devices(&words)) {
                ([], _) => Ok(Command::Search(search_by_options(&words)?)),
                ([text], false) => Ok(Command::Search(Search::parse(text)?)),
                (_, false) => Err(Reason::TooMany),
                (_, true) => Err(Reason::BothForms),
            }
        }
        "list_parts" if words.is_empty() => Err(Reason::TooFew),
        "list_parts" => Ok(Command::ListParts(searches(&split(&DEVICE_FLAGS)?)?)),
        "remove" => {
            let words = split(&DEVICE_FLAGS)?;
            // Without this `remove --yes` would mean every device.
            if words.arguments.is_empty() && !names_devices(&words) {
                return Err(Reason::TooFew);
            }
            Ok(Command::Remove { searches: searches(&words)?, yes: words.has("yes") })
        }
        "set_weight" => changes(&split(&DEVICE_FLAGS)?, |text| decimal("weight", text).map(Change::Weight)),
        "set_region" => changes(&split(&DEVICE_FLAGS)?, |text| Ok(Change::Region(number("region", text)?))),
        "set_zone" => changes(&split(&DEVICE_FLAGS)?, |text| Ok(Change::Zone(number("zone", text)?))),
        "set_info" => {
            let words = split(&DEVICE_FLAGS)?;
            if names_devices(&words) && words.arguments.is_empty() {
                let change = (search_by_options(&words)?, Change::Info(change_by_options(&words)?));
                return Ok(Command::Change { changes: vec![change], yes: words.has("yes") });
            }
            if names_devices(&words) || change_by_options(&words)? != DeviceChange::default() {
                return Err(Reason::BothForms);
            }
            changes(&words, |text| Ok(Change::Info(parse_change(text)?)))
        }
        "rebalance" => {
            let words = split(&[FORCE, SEED, DEBUG, FORMAT_VERSION])?;
            let [argument] = at_most(&words.arguments)?;
            let seed = words.value("seed").filter(|seed| !seed.is_empty()).or(argument);
            Ok(Command::Rebalance(RebalanceOptions {
                seed: seed.filter(|seed| !seed.is_empty()).map(str::to_owned),
                force: words.has("force"),
                debug: words.has("debug"),
                version: format_version(&words)?,
            }))
        }
        "dispersion" => {
            let words = split(&[RECALCULATE, VERBOSE])?;
            let [filter] = at_most(&words.arguments)?;
            Ok(Command::Dispersion {
                filter: filter.map(str::to_owned),
                verbose: words.has("verbose"),
                recalculate: words.has("recalculate"),
            })
        }
        "validate" | "version" => {
            let [] = exactly(words)?;
            Ok(if name == "version" { Command::Version } else { Command::Validate })
        }
        "set_replicas" => {
            let [replicas] = exactly(words)?;
            Ok(Command::SetReplicas(decimal("number of replicas", replicas)?))
        }
        "set_overload" => {
            let [text] = exactly(words)?;
            let digits = text.trim_end_matches('%');
            let percent = digits.len() < text.len();
            let overload = decimal("overload", digits)? * if percent { 0.01 } else { 1.0 };
            Ok(Command::SetOverload { overload, percent })
        }
        "set_min_part_hours" => {
            let [hours] = exactly(words)?;
            Ok(Command::SetMinPartHours(number("number of hours", hours)?))
        }
        "pretend_min_part_hours_passed" => {
            let words = split(&[YES])?;
            let [] = exactly(&words.arguments)?;
            Ok(Command::PretendMinPartHoursPassed { yes: words.has("yes") })
        }
        "write_ring" => {
            let words = split(&[FORMAT_VERSION, DEV_ID_BYTES])?;
            let [] = exactly(&words.arguments)?;
            let id_width = match words.value("dev-id-bytes") {
                None => None,
                Some("2") => Some(IdWidth::Two),
                Some("4") => Some(IdWidth::Four),
                Some(other) => return Err(Reason::Choice("--dev-id-bytes", other.to_owned(), "2 or 4")),
            };
            let version = format_version(&words)?;
            if (version, id_width) == (FormatVersion::V1, Some(IdWidth::Four)) {
                return Err(Reason::Choice(
                    "--dev-id-bytes",
                    "4".to_owned(),
                    "2 unless --format-version is 2",
                ));
            }
            Ok(Command::WriteRing { version, id_width })
        }
        "write_builder" => {
            let [hours] = at_most(words)?;
            let min_part_hours = hours.map(|hours| number("number of hours", hours)).transpose()?;
            Ok(Command::WriteBuilder { min_part_hours })
        }
        _ => Ok(Command::Show(words.to_vec())),
    }
}

fn add(words: &Words) -> Result<Command, Reason> {
    if words.arguments.is_empty() {
        let devices = vec![device_by_options(words)?];
        return Ok(Command::Add { devices, without_region: Vec::new() });
    }
    if names_devices(words) {
        return Err(Reason::BothForms);
    }
    let (mut devices, mut without_region) = (Vec::new(), Vec::new());
    for (text, weight) in pairs(&words.arguments)? {
        let device = AddString::parse(text)?;
        if device.region.is_none() {
            without_region.push(text.clone());
        }
        devices.push(device.weighing(decimal("weight", weight)?));
    }
    Ok(Command::Add { devices, without_region })
}

/// Searches and what becomes of what they find: in pairs, or by options and one value.
fn changes(words: &Words, change: impl Fn(&str) -> Result<Change, Reason>) -> Result<Command, Reason> {
    let changes = if names_devices(words) {
        let [value] = exactly(&words.arguments)?;
        vec![(search_by_options(words)?, change(value)?)]
    } else {
        let one = |(text, value): (&String, &String)| Ok((Search::parse(text)?, change(value)?));
        pairs(&words.arguments)?.map(one).collect::<Result<_, Reason>>()?
    };
    Ok(Command::Change { changes, yes: words.has("yes") })
}

fn searches(words: &Words) -> Result<Vec<Search>, Reason> {
    match (&words.arguments[..], names_devices(words)) {
        ([], _) => Ok(vec![search_by_options(words)?]),
        (texts, false) => texts.iter().map(|text| Ok(Search::parse(text)?)).collect(),
        (_, true) => Err(Reason::BothForms),
    }
}

fn format_version(words: &Words) -> Result<FormatVersion, Reason> {
    match words.value("format-version") {
        None | Some("1") => Ok(FormatVersion::V1),
        Some("2") => Ok(FormatVersion::V2),
        Some(other) => Err(Reason::Choice("--format-version", other.to_owned(), "1 or 2")),
    }
}

fn pairs(words: &[String]) -> Result<impl Iterator<Item = (&String, &String)>, Reason> {
    if words.is_empty() || words.len() % 2 != 0 {
        return Err(Reason::Odd);
    }
    Ok(words.chunks_exact(2).map(|pair| (&pair[0], &pair[1])))
}

fn exactly<const N: usize>(words: &[String]) -> Result<[&str; N], Reason> {
    let all = words.len();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.try_into().map_err(|_| if all < N { Reason::TooFew } else { Reason::TooMany })
}

fn at_most<const N: usize>(words: &[String]) -> Result<[Option<&str>; N], Reason> {
    if words.len() > N {
        return Err(Reason::TooMany);
    }
    Ok(std::array::from_fn(|place| words.get(place).map(String::as_str)))
}

/// Why there is nothing to be done.
#[derive(Debug)]
pub enum GrammarFault {
    /// No such command.
    Unknown {
        /// What stands there.
        name: String,
        /// What may be meant.
        nearest: Option<&'static str>,
    },
    /// One of the commands that split partitions, which only object rings know.
    PartitionPower(String),
    /// The command is there, but not so.
    Usage {
        /// How it is used.
        usage: &'static Usage,
        /// What is wrong.
        reason: Reason,
    },
}

impl fmt::Display for GrammarFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrammarFault::Unknown { name, nearest } => {
                write!(f, "there is no command {name}")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {nearest}?"),
                    None => f.write_str("; `agent ring --help` lists them"),
                }
            }
            GrammarFault::PartitionPower(name) => write!(
                f,
                "{name} is for object rings, whose files it takes swift-object-relinker to move; use swift-ring-builder for it"
            ),
            GrammarFault::Usage { usage, reason } => write!(f, "{}: {reason}\n{}", usage.name, usage.forms()),
        }
    }
}

impl std::error::Error for GrammarFault {}

const FORCE: Flag = Flag { short: Some('f'), long: "force", takes_value: false };
const SEED: Flag = Flag { short: Some('s'), long: "seed", takes_value: true };
const DEBUG: Flag = Flag { short: Some('d'), long: "debug", takes_value: false };
const VERBOSE: Flag = Flag { short: Some('v'), long: "verbose", takes_value: false };
const RECALCULATE: Flag = Flag { short: None, long: "recalculate", takes_value: false };
const FORMAT_VERSION: Flag = Flag { short: None, long: "format-version", takes_value: true };
const DEV_ID_BYTES: Flag = Flag { short: None, long: "dev-id-bytes", takes_value: true };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::format::DeviceId;

    fn parsed(line: &str) -> Result<Command, String> {
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace('~', "")).collect();
        Command::parse(&words).map_err(|fault| fault.to_string())
    }

    #[test]
    fn both_forms_of_a_command_mean_the_same() {
        let table = [
            (
                "add r1z2-10.0.0.1:6201/sdb_x 100",
                "add -r 1 -z2 --ip 10.0.0.1 --port=6201 -d sdb -w 1e2 --meta x",
            ),
            (
                "add r1z2-[::1]:6201R[::2]:7/sdb 0",
                "add -r1 -z2 -i [::1] -p6201 -j ::2 -q 7 --dev sdb --weight 0",
            ),
            (
                "search d3r1z2-10.0.0.1:6201R10.0.0.2:7/sdb_x",
                "search -u3 -r1 -z2 -i10.0.0.1 -p6201 -j10.0.0.2 -q7 -dsdb -mx",
            ),
            ("set_weight d1 3.5", "set_weight --id 1 3.5"),
            ("set_region d0 2 --yes", "set_region -y -u 0 2"),
            ("set_zone --yes z1 2", "set_zone 2 -y --zone 1"),
            ("set_info d1 1.2.3.4:5R1.2.3.5:6/sdc_m", "set_info -u1 -I1.2.3.4 -P5 -J1.2.3.5 -Q6 -Dsdc -Mm"),
            ("remove d1 -y", "remove --id=1 --yes"),
            ("list_parts z1", "list_parts --zone 1"),
            ("rebalance 7", "rebalance --seed 7"),
            ("set_overload 0.1", "set_overload .1"),
        ];
        for (one, other) in table {
            let command = parsed(one);
            assert!(command.is_ok(), "{one}: {command:?}");
            assert_eq!(command, parsed(other), "{one} / {other}");
        }
    }

    #[test]
    fn pairs_are_changed_one_after_the_other() {
        let Ok(Command::Change { changes, yes: false }) = parsed("set_weight d1 1 d2 2") else { panic!() };
        let ids: Vec<_> = changes.iter().map(|(search, change)| (search.id, change.clone())).collect();
        assert_eq!(ids, [(Some(DeviceId(1)), Change::Weight(1.0)), (Some(DeviceId(2)), Change::Weight(2.0))]);
    }

    #[test]
    fn a_missing_region_is_the_first_and_remarked() {
        let Ok(Command::Add { devices, without_region }) =
            parsed("add z1-10.0.0.1:1/a 1 r2z1-10.0.0.1:1/b 1")
        else {
            panic!()
        };
        assert_eq!(devices.iter().map(|device| device.region).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(without_region, ["z1-10.0.0.1:1/a"]);
    }

    #[test]
    fn overload_may_be_given_in_percent() {
        assert_eq!(
            parsed("set_overload 10%"),
            Ok(Command::SetOverload { overload: 10.0 * 0.01, percent: true })
        );
        assert_eq!(parsed("set_overload 10"), Ok(Command::SetOverload { overload: 10.0, percent: false }));
    }

    #[test]
    fn an_empty_seed_is_none() {
        for line in ["rebalance", "rebalance --seed=", "rebalance ~"] {
            let Ok(Command::Rebalance(options)) = parsed(line) else { panic!("{line}") };
            assert_eq!(options.seed, None, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        let table = [
            ("rebalanse", "there is no command rebalanse; did you mean rebalance?"),
            ("set-weight d0 1", "did you mean set_weight?"),
            ("frobnicate", "`agent ring --help` lists them"),
            ("prepare_increase_partition_power", "swift-ring-builder"),
            ("increase_partition_power", "swift-ring-builder"),
            ("create 5 3", "something is missing"),
            ("create 5 3 1 1", "more words than it takes"),
            ("create 5 x 1", "\"x\" is no number of replicas"),
            ("create 256 3 1", "\"256\" is no part power"),
            ("create 5 3 -1", "there is no option -1"),
            ("create 5 3 1 --force", "there is no option --force"),
            ("add", "--region is missing"),
            ("add r1z1-10.0.0.1:6201/sdb", "pairs"),
            ("add r1z1-10.0.0.1:6201/sdb 100 -r 1", "not by both"),
            ("add -r 1 -z 1 -i 1.2.3.4 -p 70000 -d a -w 1", "\"70000\" is no port"),
            ("add -r 1 -z 1 -i 1.2.3.4 -p 1 -d a", "--weight is missing"),
            ("add -r 010 -z 1 -i 1.2.3 -p 1 -d a -w 1", "\"1.2.3\" is no address"),
            ("search", "something is missing"),
            ("search d0 d1", "more words than it takes"),
            ("search d0 -r 1", "not by both"),
            ("search x", "no search value"),
            ("list_parts", "something is missing"),
            ("remove", "something is missing"),
            ("remove --yes", "something is missing"),
            ("remove d0 -u 1", "not by both"),
            ("set_weight d0", "pairs"),
            ("set_weight", "pairs"),
            ("set_weight d0 x", "\"x\" is no weight"),
            ("set_weight -u 0 1 2", "more words than it takes"),
            ("set_region d0 1.5", "\"1.5\" is no region"),
            ("set_info d0 -I 1.2.3.4", "not by both"),
            ("set_info -I 1.2.3.4", "not by both"),
            ("set_info d0 x", "no change"),
            ("rebalance 1 2", "more words than it takes"),
            ("rebalance --format-version 3", "it is 1 or 2"),
            ("write_ring --dev-id-bytes 3", "it is 2 or 4"),
            ("write_ring --dev-id-bytes 4", "2 unless --format-version is 2"),
            ("write_ring x", "more words than it takes"),
            ("write_builder x", "\"x\" is no number of hours"),
            ("set_replicas", "something is missing"),
            ("set_replicas many", "is no number of replicas"),
            ("set_overload %", "the overload has no number"),
            ("set_min_part_hours -1", "\"-1\" is no number of hours"),
            ("validate now", "more words than it takes"),
            ("dispersion a b", "more words than it takes"),
        ];
        for (line, reason) in table {
            match parsed(line) {
                Err(text) => assert!(text.contains(reason), "{line}: {reason:?} is missing: {text}"),
                Ok(command) => panic!("{line}: {command:?}"),
            }
        }
    }

    #[test]
    fn every_command_can_explain_itself() {
        for name in
            ["create", "add", "show", "write_builder", "set_overload", "pretend_min_part_hours_passed"]
        {
            assert_eq!(parsed(&format!("{name} --help")), Ok(Command::Help(name)));
            assert_eq!(parsed(&format!("{name} x -h")), Ok(Command::Help(name)));
        }
    }

    proptest::proptest! {
        /// Whatever is typed is a command or is refused; and what is no option is looked at as a device, by each of its
        /// readers.
        #[test]
        fn no_words_are_too_strange(
            name in "(add|search|set_(info|weight|zone)|remove|create|dispersion|rebalance|write_ring|list_parts)",
            words in proptest::collection::vec("[drz-]{0,2}[0-9]{0,3}[-.:R/_\\[\\]a-f%=é\u{0}]{0,9}[0-9]{0,20}|--?[a-z-]{0,9}=?", 0..5),
        ) {
            let words: Vec<String> = std::iter::once(name).chain(words).collect();
            if let Err(fault) = Command::parse(&words) {
                proptest::prop_assert!(!fault.to_string().is_empty());
            }
            for word in &words {
                let _ = (Search::parse(word), AddString::parse(word), parse_change(word));
            }
        }
    }
}
