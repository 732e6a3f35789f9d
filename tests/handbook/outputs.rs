//! Outputs that are shown are those of the binary, on a cluster that is in the state they tell of.
//!
//! Both are levelled first: figures, times, names of devices and addresses are whatever they are, and one and many are the same.
//! What remains, every word in its order, has to be what the binary prints now.

use std::process::{Command, Stdio};
use std::time::Duration;

use regex_lite::Regex;
use serde_json::Value;

use crate::cluster::{Cluster, Passed, rows, wait};
use crate::pages::{Block, Kind, blocks};

/// Builds a cluster, and runs a block's command on it.
type Make = fn(&Block) -> (Cluster, String);

/// Each output of the documents, by the heading above it, and the cluster on which its command is run.
const SHOWN: [(&str, &str, Make); 4] = [
    ("Check", "agent check", with_a_drive_and_an_agent_missing),
    ("Check", "agent locate AUTH_test photos", in_sync),
    ("Migrating from swift-container-replicator, and back", "agent status", in_sync),
    ("A node at a time, one in place of the other", "agent status", alone),
];

#[test]
fn every_output_is_what_the_binary_prints() {
    let shown: Vec<Block> = blocks().into_iter().filter(|block| block.kind == Kind::Output).collect();
    let known: Vec<(String, String)> =
        SHOWN.iter().map(|(heading, line, _)| (heading.to_string(), line.to_string())).collect();
    let there: Vec<(String, String)> = shown
        .iter()
        .map(|block| (block.heading.clone(), block.lines[0].trim_start_matches("$ ").to_owned()))
        .collect();
    assert_eq!(there, known, "outputs of the documents, and those that are looked at here");
    for (block, (_, _, make)) in shown.iter().zip(SHOWN) {
        let (_cluster, printed) = make(block);
        let told = block.lines[1..].join("\n");
        assert!(is_shown_by(&told, &printed), "{}: shown\n{}\n\nprinted\n{printed}", block.at, told);
        // The same with a word changed is found out.
        let word = told
            .split_whitespace()
            .find(|word| word.len() > 6 && word.chars().all(char::is_alphabetic))
            .expect("a word");
        assert!(
            !is_shown_by(&told.replace(word, "otherwise"), &printed),
            "{}: {word} makes no difference",
            block.at
        );
    }
}

/// Three nodes; the first has a drive that is not mounted, the last no agent.
fn with_a_drive_and_an_agent_missing(block: &Block) -> (Cluster, String) {
    let cluster = Cluster::placed(&[(0, 1), (0, 1), (1, 1), (2, 1)]);
    cluster.configure_all(&[("agent_passes", "no"), ("conn_timeout", "1")]);
    cluster.set_apart();
    cluster.mount(1, false);
    cluster.start(0);
    cluster.start(1);
    let printed = run(&cluster, block);
    (cluster, printed)
}

/// Four nodes that are in sync by their own word.
fn in_sync(block: &Block) -> (Cluster, String) {
    let cluster = Cluster::new(4);
    let photos = cluster.container("photos");
    cluster
        .create(cluster.primaries(&photos)[0], &photos)
        .merge_rows(rows("a", 0..20), None)
        .expect("merged");
    cluster.start_all();
    cluster.wait_for_agreement(&[photos], Duration::from_secs(30));
    let is_in_sync = || {
        let status = Passed::of(command(&cluster, "agent status --json"));
        serde_json::from_str::<Value>(&status.stdout)
            .is_ok_and(|said| said["in_sync"] == true && said["databases_behind"] == 0)
    };
    assert!(wait(Duration::from_secs(30), is_in_sync), "{}", cluster.logs());
    let printed = run(&cluster, block);
    (cluster, printed)
}

/// A node with an agent, and three without.
fn alone(block: &Block) -> (Cluster, String) {
    let cluster = Cluster::new(4);
    for container in
        cluster.containers("c", 8).iter().filter(|container| cluster.primaries(container).contains(&0))
    {
        cluster.create(0, container).merge_rows(rows("a", 0..5), None).expect("merged");
    }
    cluster.start(0);
    let tells_of_peers = || {
        let status = Passed::of(command(&cluster, "agent status --json"));
        serde_json::from_str::<Value>(&status.stdout)
            .is_ok_and(|said| said["in_sync"] == false && said["databases_behind"].as_u64() > Some(1))
    };
    assert!(wait(Duration::from_secs(30), tells_of_peers), "{}", cluster.logs());
    let printed = run(&cluster, block);
    (cluster, printed)
}

/// What the block's command prints on the first node.
fn run(cluster: &Cluster, block: &Block) -> String {
    let printed = Passed::of(command(cluster, block.lines[0].trim_start_matches("$ "))).stdout;
    printed.replace(&cluster.device(0).parent().expect("a directory").display().to_string(), "/srv/node")
}

fn command(cluster: &Cluster, line: &str) -> Command {
    let mut words = line.split_whitespace().skip(1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command.arg(words.next().expect("a subcommand")).arg("--config").arg(cluster.conf(0)).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The words shown stand in what was printed, in their order; where `...` stands alone on a line there may be more.
fn is_shown_by(told: &str, printed: &str) -> bool {
    let printed = levelled(printed);
    let mut from = 0;
    let pieces: Vec<Vec<String>> =
        told.split("...\n").map(|piece| levelled(piece.trim_end_matches("..."))).collect();
    for (number, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        let place = printed[from..].windows(piece.len()).position(|words| words == piece.as_slice());
        match place {
            Some(place) if number > 0 || place == 0 => from += place + piece.len(),
            _ => return false,
        }
    }
    told.trim_end().ends_with("...") || from == printed.len()
}

/// The words of a text, without what may be otherwise.
fn levelled(text: &str) -> Vec<String> {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (pattern, word) in [
        (r"\d+-\d\d-\d\d", "DATE"),
        (r"\d\d:\d\d:\d\d", "TIME"),
        (r"\b\d+\.\d+\.\d+\.\d+:\d+\b", "ADDRESS"),
        (r"\b(sd[a-z]\d|d\d)\b", "DEVICE"),
        (r"\b[0-9a-f]{8}\b", "HASH"),
        (r"\bjust now\b|\b[\d.]+ (s|minutes?|hours?) ago\b", "AGO"),
        (r"\b[\d.,]+ (B|KiB|MiB|GiB)(\W|$)", "SIZE$2"),
        (r"\b\d[\d.,]*", "0"),
        (r"\b(device|database|peer|primarie|handoff)s\b", "$1"),
    ] {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, word).into_owned();
    }
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn words_are_told_apart_and_figures_are_not() {
    assert!(is_shown_by("in sync since 2026-01-01, 3 devices", "in sync since 2027-11-02, 1 device"));
    assert!(!is_shown_by("in sync since 2026-01-01", "out of sync since 2026-01-01"));
    assert!(is_shown_by("a\n...\nd\n...", "a b c d e") && !is_shown_by("a\n...\nd", "a b c d e"));
    assert!(!is_shown_by("b\n...", "a b c") && !is_shown_by("a\n...\ne\n...\nb\n...", "a b e"));
    assert_eq!(
        levelled("10.0.0.2:7201 (12 devices), 1.9 GiB, 4 s ago"),
        ["ADDRESS", "(0", "device),", "SIZE,", "AGO"]
    );
}
