//! Completions of bash, zsh and fish.

use std::collections::BTreeMap;

use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::{Shell, generate};
use swiftlet::cli::definition;
use swiftlet::cli::ring::usage::{USAGES, Usage};

use crate::holds;

#[test]
fn shells_complete_what_the_command_line_takes() {
    for (shell, directory, name) in [
        (Shell::Bash, "completions/bash", "agent"),
        (Shell::Zsh, "completions/zsh", "_agent"),
        (Shell::Fish, "completions/fish", "agent.fish"),
    ] {
        let mut script = Vec::new();
        generate(shell, &mut completable(), "agent", &mut script);
        let mut script = String::from_utf8(script).expect("text");
        match shell {
            Shell::Bash => script = with_builders_first(&script),
            Shell::Fish => script.push_str(&ring_commands_for_fish()),
            _ => {}
        }
        for word in ["locate", "dry-run", "set_min_part_hours"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        for option in hidden() {
            assert!(!script.contains(&option), "{shell}: --{option} is for ourselves");
        }
        holds(directory, &BTreeMap::from([(name.to_owned(), script)]));
    }
}

/// The definition without what is for ourselves, and with the commands of `agent ring`, of which it knows only that they are
/// words.
fn completable() -> Command {
    let commands = PossibleValuesParser::new(USAGES.map(|usage| usage.name));
    let mut definition = definition();
    let names: Vec<String> =
        definition.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        definition = definition.mut_subcommand(&name, shown);
    }
    definition.mut_subcommand("ring", |ring| ring.mut_arg("words", |words| words.value_parser(commands)))
}

/// Generators offer hidden options too.
fn shown(command: Command) -> Command {
    let options: Vec<_> = command.get_arguments().filter(|option| !option.is_hide_set()).cloned().collect();
    let about = command.get_about().cloned().unwrap_or_default();
    // Names of commands live as long as the program; this one has few.
    let name: &'static str = command.get_name().to_owned().leak();
    Command::new(name).about(about).args(options)
}

/// Long options that no help shows.
fn hidden() -> Vec<String> {
    let definition = definition();
    let options =
        definition.get_subcommands().flat_map(Command::get_arguments).filter(|option| option.is_hide_set());
    let names: Vec<String> = options.filter_map(|option| option.get_long().map(str::to_owned)).collect();
    assert!(!names.is_empty(), "nothing is hidden: then nothing has to be left out");
    names
}

/// The generator for bash does not tell places from each other: behind `agent ring` stands a file, and then a command.
fn with_builders_first(script: &str) -> String {
    let ring = "        agent__subcmd__ring)\n";
    assert_eq!(script.matches(ring).count(), 1, "the generator names it otherwise now");
    let files = "            if [[ ${COMP_CWORD} -eq 2 && ${cur} != -* ]] ; then\n                return 0\n            fi\n";
    script.replace(ring, &format!("{ring}{files}"))
}

/// The generator for fish passes by what is no option. Commands stand behind the builder, before which there are files.
fn ring_commands_for_fish() -> String {
    let line = |usage: &Usage| {
        let about = usage.about.split_once(". ").map_or(usage.about, |(first, _)| first);
        let about = about.trim_end_matches('.').replace('\\', r"\\").replace('\'', r"\'");
        format!(
            "complete -c agent -n \"__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3\" -f -a {} -d '{about}'\n",
            usage.name
        )
    };
    USAGES.iter().map(line).collect()
}
