//! Options: each that is named there is, has the default that is told, and takes the values that are shown.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use swiftlet::config::{AGENT_OPTIONS, Config, ConfigError, SECTION};

use crate::cluster::{Cluster, Passed};
use crate::pages::{Kind, blocks, pages, top};

fn config(lines: &str) -> Result<Config, ConfigError> {
    Config::from_text(&format!("[{SECTION}]\n{lines}\n"), b"[swift-hash]\nswift_hash_path_suffix = s\n")
}

/// The README's table of our options: name and default.
fn table() -> BTreeMap<String, String> {
    let readme = pages().remove(0).text;
    let rows = readme
        .split("\n## Options\n")
        .nth(1)
        .and_then(|after| after.split("\n## ").next())
        .expect("a section");
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| `agent_"));
    let cells = rows.map(|row| row.splitn(3, " | ").map(str::to_owned).collect::<Vec<_>>());
    let named = cells.filter(|cells| cells.len() == 3 && cells[0].ends_with('`'));
    named.map(|cells| (format!("agent_{}", cells[0].trim_end_matches('`')), cells[1].clone())).collect()
}

#[test]
fn the_table_has_every_option_of_ours_with_its_default() {
    let table = table();
    let mut known = AGENT_OPTIONS.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(table.keys().cloned().collect::<Vec<_>>(), known);
    let default = config("").expect("the defaults");
    for (name, told) in &table {
        // `0, no limit`: what it means follows the value. Two have no value that is the default everywhere.
        let value = told.split(',').next().expect("a value").trim_matches('`');
        if value.contains(' ') && !value.ends_with("iB") || value == "none" || value.contains("swift.conf") {
            continue;
        }
        assert_eq!(config(&format!("{name} = {value}")).as_ref(), Ok(&default), "{name} = {value}");
        let samples = fs::read_to_string(top().join("packaging/agent-options.conf.sample")).expect("text");
        assert!(
            samples.contains(&format!("# {name} = {value}\n")),
            "the sample says otherwise of {name}: {told}"
        );
    }
}

/// `(50 unless set`, behind an option.
#[test]
fn defaults_of_swifts_options_are_as_told() {
    let default = config("").expect("the defaults");
    let mut seen = 0;
    for page in pages() {
        for line in page.text.lines().filter(|line| line.contains(" unless set")) {
            let name =
                line.split('`').nth(1).and_then(|code| code.split_once(" = ")).expect("`name = value`").0;
            let before =
                line.split(" unless set").next().and_then(|text| text.rsplit_once('(')).expect("a bracket");
            let value = before.1.trim_end_matches(" s");
            assert_eq!(
                config(&format!("{name} = {value}")).as_ref(),
                Ok(&default),
                "{}: {line}",
                page.path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 1);
}

/// Every `name = value` in running text, and every piece of a conf file, is one that `agent check` has nothing against.
#[test]
fn every_piece_of_a_conf_file_is_understood() {
    let mut pieces: Vec<(String, String)> = Vec::new();
    for page in pages() {
        for (number, line) in page.text.lines().enumerate() {
            let codes = line.split('`').skip(1).step_by(2).filter(|code| code.contains(" = "));
            pieces.extend(
                codes.map(|code| (format!("{}:{}", page.path.display(), number + 1), code.to_owned())),
            );
        }
    }
    for block in blocks().into_iter().filter(|block| block.kind == Kind::Conf) {
        match block.lines[0].as_str() {
            "[container-replicator]" => {
                pieces.extend(block.lines[1..].iter().map(|line| (block.at.clone(), line.clone())));
            }
            "[Service]" => block.lines[1..].iter().for_each(|line| directive_fits(&block.at, line)),
            other => panic!("{}: {other}", block.at),
        }
    }
    assert!(pieces.len() > 6, "{pieces:?}");
    let cluster = Cluster::new(1);
    for (at, piece) in pieces {
        assert_eq!(complaints(&cluster, &piece), Vec::<String>::new(), "{at}: {piece}");
    }
    for wrong in ["agent_pases = no", "agent_memory_budget = lots", "databases_per_secnd = 3"] {
        assert!(!complaints(&cluster, wrong).is_empty(), "{wrong} is let through");
    }
}

/// What `agent check` has against a line of our section.
fn complaints(cluster: &Cluster, line: &str) -> Vec<String> {
    let conf = cluster.swift_dir().join("piece.conf");
    let name = line.split('=').next().expect("a name").trim();
    let kept = fs::read_to_string(cluster.conf(0)).expect("text");
    let kept: String = kept
        .lines()
        .filter(|kept| !kept.starts_with(&format!("{name} =")))
        .map(|kept| format!("{kept}\n"))
        .collect();
    fs::write(&conf, format!("{kept}{line}\n")).expect("written");
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_agent"));
    check.args(["check", "--json", "--config"]).arg(&conf).stdout(std::process::Stdio::piped());
    check.stderr(std::process::Stdio::piped());
    let said: Value = serde_json::from_str(&Passed::of(check).stdout).expect("JSON");
    let findings = said["findings"].as_array().expect("a list").iter();
    let of_conf = findings.filter(|found| found["subject"] == "conf" && found["verdict"] != "ok");
    let texts = of_conf.filter_map(|found| found["what"].as_str().map(str::to_owned));
    // The cluster's own, whatever line is added.
    texts.filter(|text| !text.contains("mount_check")).collect()
}

/// A directive is one of our unit's; a limit of memory leaves room for the budget that the pages show, and as much again.
fn directive_fits(at: &str, line: &str) {
    let (name, value) = line.split_once('=').expect("name=value");
    let unit = fs::read_to_string(top().join("packaging/units/agent.service")).expect("text");
    assert!(unit.contains(&format!("\n{name}=")), "{at}: {name} is not in our unit");
    if !name.starts_with("Memory") {
        return;
    }
    let mib: u64 = value.strip_suffix('M').and_then(|value| value.parse().ok()).expect("MiB");
    let budgets = blocks().into_iter().filter(|block| block.kind == Kind::Conf).flat_map(|block| block.lines);
    let budget = budgets.filter_map(|line| {
        line.strip_prefix("agent_memory_budget = ")?.strip_suffix(" MiB")?.parse::<u64>().ok()
    });
    assert!(mib >= 2 * budget.max().expect("a budget is shown"), "{at}: {line}");
}
