//! A command's words: its options apart from its arguments, wherever they stand.
//!
//! As Python's `optparse` takes them, for Swift's tool does so with most commands: long options may be cut short as long as
//! they stay clear and take their value after `=` or from the next word; short ones may stand together, and take the rest
//! of their word or the next one; a value may begin with a hyphen; of an option given twice the last counts; after `--`
//! all are arguments.

use std::fmt;

use crate::ring::device_string::StringFault;

/// An option that a command knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The one-letter name, if it has one.
    pub short: Option<char>,
    /// The name behind `--`.
    pub long: &'static str,
    /// Whether something must follow it.
    pub takes_value: bool,
}

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// What is no option.
    pub arguments: Vec<String>,
    /// Whether `-h` or `--help` is there.
    pub help: bool,
    /// Long names and values, in the order given.
    options: Vec<(&'static str, String)>,
}

impl Words {
    /// Takes a command line apart.
    ///
    /// # Errors
    /// Options that the command does not know, or that lack a value or have one they do not take.
    pub fn split(words: &[String], known: &[Flag]) -> Result<Words, WordFault> {
        let mut split = Words::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                split.arguments.extend(words.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, given) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let flag = by_long_name(name, known)?;
                let value = match (flag.takes_value, given) {
                    (true, Some(value)) => value,
                    (true, None) => {
                        words.next().ok_or(WordFault::NoValue(format!("--{}", flag.long)))?.clone()
                    }
                    (false, None) => String::new(),
                    (false, Some(_)) => return Err(WordFault::StrayValue(format!("--{}", flag.long))),
                };
                split.take(flag, value);
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                let mut letters = letters.chars();
                while let Some(letter) = letters.next() {
                    let flag = by_letter(letter, known)?;
                    let mut value = String::new();
                    if flag.takes_value {
                        value = std::mem::replace(&mut letters, "".chars()).collect();
                        if value.is_empty() {
                            let missing = || WordFault::NoValue(format!("-{letter}"));
                            value = words.next().ok_or_else(missing)?.clone();
                        }
                    }
                    split.take(flag, value);
                }
            } else {
                split.arguments.push(word.clone());
            }
        }
        Ok(split)
    }

    /// Whether an option is there.
    pub fn has(&self, long: &str) -> bool {
        self.value(long).is_some()
    }

    /// The value of an option.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.options.iter().rfind(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// Whether no option is there.
    pub fn is_plain(&self) -> bool {
        self.options.is_empty()
    }

    fn take(&mut self, flag: Flag, value: String) {
        if flag == HELP {
            self.help = true;
        } else {
            self.options.push((flag.long, value));
        }
    }
}

fn by_long_name(name: &str, known: &[Flag]) -> Result<Flag, WordFault> {
    let all = || known.iter().chain([&HELP]).copied();
    if let Some(flag) = all().find(|flag| flag.long == name) {
        return Ok(flag);
    }
    let begin: Vec<Flag> = all().filter(|flag| !name.is_empty() && flag.long.starts_with(name)).collect();
    match *begin {
        [flag] => Ok(flag),
        [] => Err(WordFault::Unknown(format!("--{name}"))),
        _ => Err(WordFault::Unclear {
            given: format!("--{name}"),
            meant: begin.iter().map(|flag| format!("--{}", flag.long)).collect(),
        }),
    }
}

fn by_letter(letter: char, known: &[Flag]) -> Result<Flag, WordFault> {
    let flag = known.iter().chain([&HELP]).find(|flag| flag.short == Some(letter));
    flag.copied().ok_or(WordFault::Unknown(format!("-{letter}")))
}

/// Why a command line cannot be taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum WordFault {
    /// No option of this command.
    Unknown(String),
    /// The beginning of several.
    Unclear {
        /// What stands there.
        given: String,
        /// What it may mean.
        meant: Vec<String>,
    },
    /// The value is missing.
    NoValue(String),
    /// A value where there is none.
    StrayValue(String),
}

impl fmt::Display for WordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WordFault::Unknown(name) => write!(f, "there is no option {name}"),
            WordFault::Unclear { given, meant } => write!(f, "{given} may mean {}", meant.join(" or ")),
            WordFault::NoValue(name) => write!(f, "{name} needs a value"),
            WordFault::StrayValue(name) => write!(f, "{name} takes no value"),
        }
    }
}

impl std::error::Error for WordFault {}

/// What is wrong with a command's words.
#[derive(Debug)]
pub enum Reason {
    /// An option.
    Word(WordFault),
    /// An argument or the value of an option.
    Value(StringFault),
    /// Something is lacking.
    TooFew,
    /// There is more than it has use for.
    TooMany,
    /// What should come in pairs does not.
    Odd,
    /// Devices by strings and by options.
    BothForms,
    /// An option that must be there.
    Missing(&'static str),
    /// An option, its value, and what it should be.
    Choice(&'static str, String, &'static str),
}

impl From<WordFault> for Reason {
    fn from(fault: WordFault) -> Reason {
        Reason::Word(fault)
    }
}

impl From<StringFault> for Reason {
    fn from(fault: StringFault) -> Reason {
        Reason::Value(fault)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Word(fault) => fault.fmt(f),
            Reason::Value(fault) => fault.fmt(f),
            Reason::TooFew => f.write_str("something is missing"),
            Reason::TooMany => f.write_str("there are more words than it takes"),
            Reason::Odd => f.write_str("it takes pairs of words"),
            Reason::BothForms => f.write_str("name devices by strings or by options, not by both"),
            Reason::Missing(long) => write!(f, "--{long} is missing"),
            Reason::Choice(long, given, choices) => write!(f, "{long} {given}: it is {choices}"),
        }
    }
}

/// Every command has it.
const HELP: Flag = Flag { short: Some('h'), long: "help", takes_value: false };

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 4] = [
        Flag { short: Some('r'), long: "region", takes_value: true },
        Flag { short: None, long: "replication-ip", takes_value: true },
        Flag { short: Some('y'), long: "yes", takes_value: false },
        Flag { short: Some('v'), long: "verbose", takes_value: false },
    ];

    fn split(line: &[&str]) -> Result<Words, WordFault> {
        Words::split(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), &KNOWN)
    }

    #[test]
    fn options_may_stand_anywhere_and_in_any_form() {
        let lines: [&[&str]; 6] = [
            &["a", "--region", "7", "-y", "b"],
            &["--region=7", "a", "b", "--yes"],
            &["-y", "-r", "7", "a", "b"],
            &["-yr7", "a", "b"],
            &["--reg", "7", "--y", "--", "a", "b"],
            &["-r", "1", "a", "-y", "b", "-r7"],
        ];
        for line in lines {
            let words = split(line).unwrap_or_else(|fault| panic!("{line:?}: {fault}"));
            assert_eq!(words.arguments, ["a", "b"], "{line:?}");
            assert_eq!((words.value("region"), words.has("yes")), (Some("7"), true), "{line:?}");
            assert!(!words.help && !words.has("verbose") && !words.is_plain());
        }
    }

    #[test]
    fn a_value_may_look_like_an_option_and_a_lone_hyphen_is_none() {
        let words = split(&["-r", "-1", "-", "--replication-ip=--yes", "--", "--yes", "--"]).expect("words");
        assert_eq!(words.arguments, ["-", "--yes", "--"]);
        assert_eq!(words.value("region"), Some("-1"));
        assert_eq!(words.value("replication-ip"), Some("--yes"));
        assert!(!words.has("yes"));
    }

    #[test]
    fn help_is_known_to_all() {
        for line in [&["-h"], &["--help"], &["-yh"], &["--hel"]] {
            assert!(split(line).expect("words").help, "{line:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table: [(&[&str], &str); 8] = [
            (&["--zone", "1"], "there is no option --zone"),
            (&["-z1"], "there is no option -z"),
            (&["-yz"], "there is no option -z"),
            (&["--re", "1"], "--re may mean --region or --replication-ip"),
            (&["--region"], "--region needs a value"),
            (&["a", "-yr"], "-r needs a value"),
            (&["--yes=no"], "--yes takes no value"),
            (&["--=1"], "there is no option --"),
        ];
        for (line, expected) in table {
            assert_eq!(split(line).expect_err("a fault").to_string(), expected, "{line:?}");
        }
    }
}
