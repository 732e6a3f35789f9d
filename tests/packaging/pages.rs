//! Manual pages: `agent(1)` and one for each subcommand.

use std::collections::BTreeMap;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use swiftlet::cli::definition;
use swiftlet::cli::ring::usage::{USAGES, WORDS};
use swiftlet::config::DEFAULT_PATH;

use crate::{holds, sample};

#[test]
fn pages_say_what_the_command_line_says() {
    let mut agent = definition();
    agent.build();
    let commands: Vec<&Command> = std::iter::once(&agent).chain(agent.get_subcommands()).collect();
    let names: Vec<String> = commands.iter().map(|command| title(command)).collect();
    let page = |command: &&Command| (format!("{}.1", title(command)), page(command, &names));
    holds("man", &commands.iter().map(page).collect::<BTreeMap<_, _>>());
}

/// The whole page of a command. `names` are those of all pages.
fn page(command: &Command, names: &[String]) -> String {
    let is_agent = command.get_name() == "agent";
    let man = Man::new(command.clone())
        .title(title(command))
        .source(concat!("swiftlet ", env!("CARGO_PKG_VERSION")))
        .manual("OpenStack Swift");
    let mut page = Page(Vec::new());
    man.render_title(&mut page.0).expect("written");
    // Ragged and without hyphens: options can be copied as they stand.
    page.control("ad", &["l"]);
    page.control("nh", &[]);

    let about = command.get_about().expect("every command says what it does").to_string();
    let brief = if is_agent { env!("CARGO_PKG_DESCRIPTION") } else { &about };
    page.section("name");
    page.text(vec![roman(format!("{} - {brief}", title(command)))]);
    man.render_synopsis_section(&mut page.0).expect("written");

    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (told, sections) = sections(&help);
    page.section("description");
    page.prose(&format!("{}.\n\n{told}", about.trim_end_matches('.')));
    man.render_options_section(&mut page.0).expect("written");
    if is_agent {
        page.section("commands");
        for command in command.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            page.entry(&format!("{}(1)", title(command)), &about);
        }
        page.section("configuration");
        page.prose(&format!(
            "The agent reads {DEFAULT_PATH}, where the options of Swift's replicator keep their names, defaults and meaning. \
             In its section [container-replicator] these may stand beside them, here with their defaults."
        ));
        for option in sample::entries(&sample::text()) {
            page.entry(&format!("{} = {}", option.name, option.default), &option.meaning);
        }
    }
    if command.get_name() == "ring" {
        page.ring_commands();
    }
    for (heading, lines) in sections {
        // The page has them with all they take.
        if heading != "Commands" {
            page.section(&heading);
            page.prose(&lines.join("\n"));
        }
    }
    page.section("see also");
    let others: Vec<String> =
        names.iter().filter(|name| **name != title(command)).map(|name| format!("{name}(1)")).collect();
    page.text(vec![roman(others.join(", "))]);
    page.finish()
}

fn title(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// What follows the options in a help text: what is told at large, and its sections by their headings.
fn sections(help: &str) -> (String, Vec<(String, Vec<&str>)>) {
    let mut told = Vec::new();
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in help.lines() {
        match line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            Some(heading) => sections.push((heading.to_owned(), Vec::new())),
            None => sections.last_mut().map_or(&mut told, |(_, lines)| lines).push(line),
        }
    }
    (told.join("\n"), sections)
}

struct Page(Vec<u8>);

impl Page {
    fn control(&mut self, name: &str, arguments: &[&str]) {
        let mut roff = Roff::new();
        roff.control(name, arguments.iter().copied());
        roff.to_writer(&mut self.0).expect("written");
    }

    fn text(&mut self, line: Vec<Inline>) {
        let mut roff = Roff::new();
        roff.text(line);
        roff.to_writer(&mut self.0).expect("written");
    }

    fn section(&mut self, heading: &str) {
        self.control("SH", &[&heading.to_uppercase()]);
    }

    fn entry(&mut self, term: &str, meaning: &str) {
        self.control("TP", &[]);
        self.text(vec![bold(term)]);
        self.text(vec![roman(meaning)]);
    }

    /// Lines as a terminal is shown them. Those at the margin flow; of indented ones, a term and its meaning are a list, others
    /// stay as they are.
    fn prose(&mut self, lines: &str) {
        for line in lines.trim_end().lines() {
            let (indented, line) = (line.starts_with(' '), line.trim());
            match line.split_once("  ") {
                _ if line.is_empty() => self.control("PP", &[]),
                Some((term, meaning)) if indented && !line.starts_with('-') => {
                    self.entry(term, meaning.trim());
                }
                _ if indented => self.example(line),
                _ => self.text(vec![roman(line)]),
            }
        }
    }

    fn example(&mut self, line: &str) {
        self.control("RS", &["4"]);
        self.control("nf", &[]);
        self.text(vec![roman(line)]);
        self.control("fi", &[]);
        self.control("RE", &[]);
    }

    /// The commands of `agent ring`, whose grammar is its own.
    fn ring_commands(&mut self) {
        self.section("commands");
        for usage in &USAGES {
            self.control("SS", &[usage.name]);
            for form in usage.forms {
                self.control("HP", &["4"]);
                self.text(vec![
                    bold(format!("agent ring {BUILDER} {}", usage.name)),
                    roman(" "),
                    italic(*form),
                ]);
            }
            self.control("PP", &[]);
            self.text(vec![roman(usage.about)]);
        }
        self.section("words of commands");
        for (word, meaning) in WORDS {
            self.control("SS", &[word]);
            self.prose(meaning);
        }
    }

    /// The page. Each part of it came with the same preamble, of which one is enough.
    fn finish(self) -> String {
        let text = String::from_utf8(self.0).expect("text");
        let lines = text.split(".TH").next().expect("what stands before the title").to_owned();
        format!("{lines}{}", text.replace(&lines, ""))
    }
}

const BUILDER: &str = "BUILDER";
