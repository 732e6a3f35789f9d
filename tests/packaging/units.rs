//! The units say why they say what they say, and two of them say the same.

use std::fs;

use crate::packaging;

fn unit(name: &str) -> String {
    fs::read_to_string(packaging().join("units").join(name)).expect("a unit")
}

/// From the user down to the last system call: what a pass may do is the same, whoever starts it.
#[test]
fn a_pass_from_the_timer_lives_as_the_daemon_does() {
    let limits = |name: &str| {
        let unit = unit(name);
        let (_, after) = unit.split_once("word for word.\n").expect("it says from where on");
        after.split("[Install]").next().expect("something").trim().to_owned()
    };
    let daemon = limits("agent.service");
    assert!(daemon.starts_with("# The owner") && daemon.contains("\nUser=swift\n"), "{daemon}");
    assert!(daemon.contains("\nSystemCallFilter=~@privileged\n"), "{daemon}");
    assert_eq!(limits("agent-once.service"), daemon);
}

/// A comment above a directive, or above others of the same paragraph.
#[test]
fn every_directive_has_its_reason_above_it() {
    for name in UNITS {
        let mut reasoned = false;
        let mut directives = 0;
        for (number, line) in unit(name).lines().enumerate() {
            match line.chars().next() {
                Some('#') => reasoned = true,
                None | Some('[') => reasoned = false,
                Some(_) if SELF_EVIDENT.iter().any(|start| line.starts_with(start)) => {}
                Some(_) => {
                    directives += 1;
                    assert!(reasoned, "{name}:{}: {line}: why?", number + 1);
                }
            }
        }
        assert!(directives > 3, "{name}: {directives} directives");
    }
}

/// `agent_memory_budget` and as much again.
#[test]
fn the_memory_limit_has_room_for_the_budget() {
    let config = swiftlet::config::Config::from_text(
        "[container-replicator]\n",
        b"[swift-hash]\nswift_hash_path_suffix = s\n",
    );
    let budget_mib = config.expect("the defaults").agent.memory_budget_bytes >> 20;
    let unit = unit("agent.service");
    let limit_mib = |name: &str| -> u64 {
        let value = unit.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        value.strip_suffix('M').expect("MiB").parse().expect("a number")
    };
    assert!(limit_mib("MemoryHigh=") >= 2 * budget_mib);
    assert!(limit_mib("MemoryMax=") > limit_mib("MemoryHigh="));
}

const UNITS: [&str; 3] = ["agent.service", "agent-once.service", "agent-once.timer"];
/// What every unit of its kind says.
const SELF_EVIDENT: [&str; 3] = ["Description=", "ExecStart=", "WantedBy="];
