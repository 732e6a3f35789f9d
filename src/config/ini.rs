//! Conf files in the dialect of Python's `ConfigParser`, which Swift reads them with.
//!
//! One file serves Swift's daemons and ours, so what it says must mean the same to both: which lines continue a value,
//! which repeat is an error, where a `%` counts. Where Python stops, we stop, but with the file and the line. What
//! Python would follow without end (references within references) has a limit here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// The options of a section: names and values, references filled in.
pub type Options = BTreeMap<String, String>;

/// The section whose options all other sections inherit.
const DEFAULTS: &str = "DEFAULT";
/// How deep references may lead to further references (`configparser: MAX_INTERPOLATION_DEPTH`); a cycle ends here.
const REFERENCE_DEPTH: usize = 10;
/// How many bytes and references one value may expand to; ten levels of doubling would fill the memory.
const EXPANSION_LIMIT: usize = 64 * 1024;

/// Which of Swift's two ways to use `ConfigParser`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `container-server.conf`: names keep their case, and `%` is itself unless the value holds a `%(`
    /// (`swift/common/utils/config.py: NicerInterpolation`).
    Server,
    /// `swift.conf`: names in any case, and every `%` is the start of a reference or of `%%`.
    Cluster,
}

/// What some conf files, read one after the other, say together.
#[derive(Debug, Clone)]
pub struct Ini {
    dialect: Dialect,
    defaults: Options,
    sections: BTreeMap<String, Options>,
}

impl Ini {
    /// Nothing read yet.
    pub fn new(dialect: Dialect) -> Ini {
        Ini { dialect, defaults: Options::new(), sections: BTreeMap::new() }
    }

    /// Adds the text of one file; its values win over those read before. `file` is for the error only.
    ///
    /// # Errors
    /// [`IniError::Line`] for the first line that Python's `ConfigParser` refuses.
    pub fn read(&mut self, file: &Path, text: &str) -> Result<(), IniError> {
        let mut reading = Reading::new(self);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for (number, line) in (1..).zip(text.lines()) {
            let fault = |fault| IniError::Line { file: file.to_owned(), line: number, fault };
            reading.line(line).map_err(fault)?;
        }
        reading.close_option();
        Ok(())
    }

    /// The names of all sections but `DEFAULT`.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// The names of the options that a section has besides those of `DEFAULT`.
    pub fn own_names(&self, section: &str) -> impl Iterator<Item = &str> {
        self.sections.get(section).into_iter().flat_map(|own| own.keys().map(String::as_str))
    }

    /// All options of a section, those of `DEFAULT` included; `None` if there is no such section.
    ///
    /// # Errors
    /// [`IniError::Value`] if a reference in *any* of its values cannot be filled in, as in Swift.
    pub fn section(&self, section: &str) -> Result<Option<Options>, IniError> {
        let Some(raw) = self.raw(section) else { return Ok(None) };
        raw.keys()
            .map(|&name| Ok((name.to_owned(), self.filled_in(section, name, &raw)?)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// One option of a section or else of `DEFAULT`; `None` if either is missing.
    ///
    /// # Errors
    /// [`IniError::Value`] if a reference in this value cannot be filled in.
    pub fn option(&self, section: &str, name: &str) -> Result<Option<String>, IniError> {
        match self.raw(section) {
            Some(raw) if raw.contains_key(name) => self.filled_in(section, name, &raw).map(Some),
            _ => Ok(None),
        }
    }

    fn raw(&self, section: &str) -> Option<RawOptions<'_>> {
        let own = self.sections.get(section)?;
        Some(self.defaults.iter().chain(own).map(|(name, value)| (name.as_str(), value.as_str())).collect())
    }

    fn filled_in(&self, section: &str, name: &str, raw: &RawOptions) -> Result<String, IniError> {
        let value = raw[name];
        if self.dialect == Dialect::Server && !value.contains("%(") {
            return Ok(value.to_owned());
        }
        let mut expansion = Expansion { dialect: self.dialect, raw, text: String::new(), references: 0 };
        match expansion.add(value, 1) {
            Ok(()) => Ok(expansion.text),
            Err(fault) => {
                Err(IniError::Value { section: section.to_owned(), option: name.to_owned(), fault })
            }
        }
    }
}

type RawOptions<'a> = BTreeMap<&'a str, &'a str>;

impl Dialect {
    fn option_name(self, name: &str) -> String {
        match self {
            Dialect::Server => name.to_owned(),
            Dialect::Cluster => name.to_lowercase(),
        }
    }
}

/// One file on its way into an [`Ini`] (`configparser: RawConfigParser._read`).
struct Reading<'a> {
    ini: &'a mut Ini,
    section: Option<String>,
    /// The option that a deeper indented line would continue, and its value so far.
    open: Option<(String, String)>,
    /// How far the last line that opened something is indented, in characters.
    indent: usize,
    sections_seen: BTreeSet<String>,
    options_seen: BTreeSet<(String, String)>,
}

impl Reading<'_> {
    fn new(ini: &mut Ini) -> Reading<'_> {
        Reading {
            ini,
            section: None,
            open: None,
            indent: 0,
            sections_seen: BTreeSet::new(),
            options_seen: BTreeSet::new(),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), LineFault> {
        let said = line.trim_matches(is_space);
        if said.starts_with(['#', ';']) {
            return Ok(());
        }
        if said.is_empty() {
            self.continue_option("");
            return Ok(());
        }
        let indent = line.chars().take_while(|&c| is_space(c)).count();
        if self.open.is_some() && indent > self.indent {
            self.continue_option(said);
            return Ok(());
        }
        self.indent = indent;
        match section_name(said) {
            Some(name) => self.open_section(name),
            None => self.open_option(said),
        }
    }

    fn open_section(&mut self, name: &str) -> Result<(), LineFault> {
        self.close_option();
        if name != DEFAULTS {
            if !self.sections_seen.insert(name.to_owned()) {
                return Err(LineFault::SectionTwice(name.to_owned()));
            }
            self.ini.sections.entry(name.to_owned()).or_default();
        }
        self.section = Some(name.to_owned());
        Ok(())
    }

    fn open_option(&mut self, said: &str) -> Result<(), LineFault> {
        self.close_option();
        let Some(section) = &self.section else { return Err(LineFault::BeforeAnySection) };
        let (name, value) = said.split_once(['=', ':']).ok_or(LineFault::NotAnOption)?;
        let name = self.ini.dialect.option_name(name.trim_end_matches(is_space));
        if name.is_empty() {
            return Err(LineFault::NotAnOption);
        }
        if !self.options_seen.insert((section.clone(), name.clone())) {
            return Err(LineFault::OptionTwice(name));
        }
        self.open = Some((name, value.trim_start_matches(is_space).to_owned()));
        Ok(())
    }

    fn continue_option(&mut self, said: &str) {
        if let Some((_, value)) = &mut self.open {
            value.push('\n');
            value.push_str(said);
        }
    }

    fn close_option(&mut self) {
        let (Some((name, value)), Some(section)) = (self.open.take(), &self.section) else { return };
        let options = match section.as_str() {
            DEFAULTS => &mut self.ini.defaults,
            section => self.ini.sections.entry(section.to_owned()).or_default(),
        };
        options.insert(name, value.trim_end_matches(is_space).to_owned());
    }
}

/// The name in `[name]`, up to the last bracket; what follows it is ignored.
fn section_name(said: &str) -> Option<&str> {
    let (name, _) = said.strip_prefix('[')?.rsplit_once(']')?;
    (!name.is_empty()).then_some(name)
}

/// What Python's `str.strip` takes off, which is four separators more than Rust's `trim` does.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// A value while its references are filled in (`configparser: BasicInterpolation._interpolate_some`).
struct Expansion<'a> {
    dialect: Dialect,
    raw: &'a RawOptions<'a>,
    text: String,
    references: usize,
}

impl Expansion<'_> {
    fn add(&mut self, value: &str, depth: usize) -> Result<(), ValueFault> {
        if depth > REFERENCE_DEPTH {
            return Err(ValueFault::TooDeep);
        }
        let mut rest = value;
        while let Some((plain, after)) = rest.split_once('%') {
            self.add_plain(plain)?;
            rest = if let Some(after) = after.strip_prefix('%') {
                self.add_plain("%")?;
                after
            } else {
                let (name, after) = reference(after).ok_or(ValueFault::LonePercent)?;
                self.references += 1;
                self.add_named(name, depth)?;
                after
            };
        }
        self.add_plain(rest)
    }

    fn add_named(&mut self, name: &str, depth: usize) -> Result<(), ValueFault> {
        let named = self.raw.get(self.dialect.option_name(name).as_str());
        match *named.ok_or_else(|| ValueFault::UnknownName(name.to_owned()))? {
            value if value.contains('%') => self.add(value, depth + 1),
            value => self.add_plain(value),
        }
    }

    fn add_plain(&mut self, plain: &str) -> Result<(), ValueFault> {
        if self.text.len() + plain.len() + self.references > EXPANSION_LIMIT {
            return Err(ValueFault::TooLong);
        }
        self.text.push_str(plain);
        Ok(())
    }
}

/// The name in `(name)s`, which follows a `%`, and what comes after it.
fn reference(after_percent: &str) -> Option<(&str, &str)> {
    let (name, after) = after_percent.strip_prefix('(')?.split_once(')')?;
    Some((name, after.strip_prefix('s')?)).filter(|_| !name.is_empty())
}

/// Why a conf file cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IniError {
    /// A line of a file.
    Line {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A value whose references cannot be filled in.
    Value {
        /// The section that was asked for; the option may come from `DEFAULT`.
        section: String,
        /// Whose value.
        option: String,
        /// What is wrong with it.
        fault: ValueFault,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFault {
    /// It stands before the first `[section]`.
    BeforeAnySection,
    /// It is no `name = value`.
    NotAnOption,
    /// The section had this option already.
    OptionTwice(String),
    /// The file had this section already.
    SectionTwice(String),
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueFault {
    /// A reference to an option that is not there.
    UnknownName(String),
    /// A `%` that is neither `%%` nor the start of a `%(name)s`.
    LonePercent,
    /// References within references, [`REFERENCE_DEPTH`] deep, or in a circle.
    TooDeep,
    /// It expands beyond [`EXPANSION_LIMIT`].
    TooLong,
}

impl fmt::Display for IniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IniError::Line { file, line, fault } => write!(f, "{}:{line}: {fault}", file.display()),
            IniError::Value { section, option, fault } => write!(f, "[{section}] {option}: {fault}"),
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineFault::BeforeAnySection => f.write_str("a line before the first [section]"),
            LineFault::NotAnOption => f.write_str("expected `name = value`"),
            LineFault::OptionTwice(name) => write!(f, "option {name:?} is here twice in one section"),
            LineFault::SectionTwice(name) => write!(f, "section [{name}] is here twice in one file"),
        }
    }
}

impl fmt::Display for ValueFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueFault::UnknownName(name) => write!(f, "refers to an option {name:?} that is not set"),
            ValueFault::LonePercent => f.write_str("a single `%` that starts no `%(name)s`, write `%%`"),
            ValueFault::TooDeep => {
                write!(f, "refers to itself, or through more than {REFERENCE_DEPTH} options")
            }
            ValueFault::TooLong => write!(f, "grows beyond {EXPANSION_LIMIT} bytes when filled in"),
        }
    }
}

impl std::error::Error for IniError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ini(dialect: Dialect, text: &str) -> Result<Ini, IniError> {
        let mut ini = Ini::new(dialect);
        ini.read(Path::new("a.conf"), text)?;
        Ok(ini)
    }

    /// The value of `x` in section `s`.
    fn x(dialect: Dialect, text: &str) -> Result<Option<String>, IniError> {
        ini(dialect, text)?.option("s", "x")
    }

    #[test]
    fn values_are_what_python_makes_of_them() {
        for (text, value) in [
            ("[s]\nx = 1", "1"),
            ("[s]\r\nx = 1\r\n", "1"),
            ("[s]\rx = 1\r", "1"),
            ("[s] # why\nx: 1", "1"),
            ("[s]\n  x = 1\n  y = 2\n", "1"),
            ("[s]\nx = a\n b\n", "a\nb"),
            ("[s]\nx = a\n\n\n b\n\n\n", "a\n\n\nb"),
            ("[s]\nx = a\n# no\n b\n", "a\nb"),
            ("[s]\nx =\n b\n", "\nb"),
            ("[s]\nx = a = b : c\n", "a = b : c"),
            ("[s]\nx == b\n", "= b"),
            ("[s]\nx = [t]\n", "[t]"),
            ("[s]\nx = a\n [t]\n", "a\n[t]"),
            ("[s]\nx = \x1ca\x1f\n", "a"),
            ("[DEFAULT]\nx = 1\n[s]\nx = 2\n", "2"),
            ("[s]\n[DEFAULT]\nx = 1\n", "1"),
            ("[s]\nx = 50%\n", "50%"),
            ("[s]\nx = %%\n", "%%"),
            ("[s]\ny = 2\nx = %(y)s%%\n", "2%"),
            ("[DEFAULT]\ny = 1\nx = %(y)s\n[s]\ny = 2\n", "2"),
        ] {
            assert_eq!(x(Dialect::Server, text), Ok(Some(value.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn swift_conf_takes_names_in_any_case_and_every_percent_sign_as_special() {
        for (text, value) in [("[s]\nX = 1", "1"), ("[s]\nx = a%%b", "a%b"), ("[s]\nY = 2\nx = %(Y)s", "2")] {
            assert_eq!(x(Dialect::Cluster, text), Ok(Some(value.to_owned())), "{text:?}");
        }
        let lone = x(Dialect::Cluster, "[s]\nx = 50%\n").expect_err("a lone percent sign");
        assert_eq!(lone.to_string(), "[s] x: a single `%` that starts no `%(name)s`, write `%%`");
        assert_eq!(
            x(Dialect::Cluster, "[s]\nx = 1\nX = 2\n").expect_err("twice").to_string(),
            "a.conf:3: option \"x\" is here twice in one section"
        );
    }

    #[test]
    fn a_bad_line_is_named_with_its_file_and_number() {
        for (text, line, fault) in [
            ("x = 1", 1, LineFault::BeforeAnySection),
            ("\n# c\n  x\n[s]\n", 3, LineFault::BeforeAnySection),
            ("\u{feff}[s]\n", 1, LineFault::BeforeAnySection),
            ("[s]\nlonely\n", 2, LineFault::NotAnOption),
            ("[s]\n= 1\n", 2, LineFault::NotAnOption),
            ("[s]\n[]\n", 2, LineFault::NotAnOption),
            ("[s]\nx = 1\n\nx = 2\n", 4, LineFault::OptionTwice("x".into())),
            ("[DEFAULT]\nx = 1\n[DEFAULT]\nx = 2\n", 4, LineFault::OptionTwice("x".into())),
            ("[s]\n[t]\n[s]\n", 3, LineFault::SectionTwice("s".into())),
        ] {
            let expected = IniError::Line { file: "a.conf".into(), line, fault };
            assert_eq!(ini(Dialect::Server, text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_later_file_may_repeat_what_an_earlier_one_said() {
        let mut both = ini(Dialect::Server, "[s]\nx = 1\ny = 1\n").expect("a conf");
        both.read(Path::new("b.conf"), "[s]\nx = 2\n").expect("a second conf");
        let options = both.section("s").expect("no references").expect("the section");
        assert_eq!(
            options.into_iter().collect::<Vec<_>>(),
            [("x".into(), "2".into()), ("y".into(), "1".into())]
        );
    }

    #[test]
    fn references_stop_at_the_unknown_the_deep_and_the_huge() {
        let chain = |length: usize| {
            let links = (1..length).map(|n| format!("x{n} = %(x{})s\n", n + 1)).collect::<String>();
            format!("[s]\nx = %(x1)s\n{links}x{length} = %%\n")
        };
        let doubling = format!("[s]\nx = {0}\ny = {1}\nz = %%\n", "%(y)s".repeat(1000), "%(z)s".repeat(1000));
        let empty = format!("[s]\nx = {0}\ny = {1}\nz =\n", "%(y)s".repeat(1000), "%(z)s".repeat(1000));
        for (text, fault) in [
            ("[s]\nx = %(nope)s\n", ValueFault::UnknownName("nope".into())),
            ("[s]\nx = %(x)s\n", ValueFault::TooDeep),
            ("[s]\nx = %(y)s\ny = a%(x)s\n", ValueFault::TooDeep),
            ("[s]\nx = %(y)s\ny = 50%\n", ValueFault::LonePercent),
            ("[s]\nx = %(y\n", ValueFault::LonePercent),
            ("[s]\nx = %()s\n", ValueFault::LonePercent),
            ("[s]\nx = %(x)d\n", ValueFault::LonePercent),
            (&chain(10), ValueFault::TooDeep),
            (&doubling, ValueFault::TooLong),
            (&empty, ValueFault::TooLong),
        ] {
            let expected = IniError::Value { section: "s".into(), option: "x".into(), fault };
            assert_eq!(x(Dialect::Server, text), Err(expected));
        }
        assert_eq!(x(Dialect::Server, &chain(9)), Ok(Some("%".into())));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), dense in "[\\[\\]a%()s=: \t\r\n#;é]{0,200}") {
            for text in [text, dense] {
                for dialect in [Dialect::Server, Dialect::Cluster] {
                    if let Ok(ini) = ini(dialect, &text) {
                        for section in ini.sections() {
                            let _ = ini.section(section);
                        }
                    }
                }
            }
        }
    }
}
