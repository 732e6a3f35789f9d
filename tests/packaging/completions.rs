//! Completions of bash, zsh and fish.

use std::collections::BTreeMap;

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
        holds(directory, &BTreeMap::from([(name.to_owned(), script)]));
    }
}

/// The definition, and the commands of `agent ring`, of which that knows only that they are words.
fn completable() -> clap::Command {
    let commands = PossibleValuesParser::new(USAGES.map(|usage| usage.name));
    definition().mut_subcommand("ring", |ring| ring.mut_arg("words", |words| words.value_parser(commands)))
}

/// The generator for bash does not tell places from each other: behind `agent ring` stands a file, and then a command.
fn with_builders_first(script: &str) -> String {
    let ring = "        agent__subcmd__ring)\n";
    assert_eq!(script.matches(ring).count(), 1, "the generator names it otherwise now");
    let files = "            if [[ ${COMP_CWORD} -eq 2 && ${cur} != -* ]] ; then\n                return 0\n            fi\n";
    script.replace(ring, &format!("{ring}{files}"))
}

/// The generator for fish passes by what is no option.
fn ring_commands_for_fish() -> String {
    let line = |usage: &Usage| {
        let about = usage.about.split_once(". ").map_or(usage.about, |(first, _)| first);
        let about = about.trim_end_matches('.').replace('\\', r"\\").replace('\'', r"\'");
        format!(
            "complete -c agent -n \"__fish_agent_using_subcommand ring\" -a {} -d '{about}'\n",
            usage.name
        )
    };
    USAGES.iter().map(line).collect()
}
