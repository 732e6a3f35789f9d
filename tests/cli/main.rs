//! What somebody sees who types `agent …`: the exit code, standard output, standard error.

#[path = "../cluster/mod.rs"]
mod cluster;
mod check;
mod demo;
mod info;
mod locate;
mod ring;
mod show;
mod status;

use std::process::{Command, Stdio};

/// What one command line led to.
struct Said {
    line: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn agent(line: &str) -> Said {
    agent_given(&line.split_whitespace().collect::<Vec<_>>())
}

fn agent_given(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    Said {
        line: arguments.join(" "),
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Said {
    fn exits(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "agent {}\n{}", self.line, self.stderr);
        self
    }

    fn complains(self, part: &str) -> Said {
        assert!(self.stderr.starts_with("agent: "), "agent {}\n{}", self.line, self.stderr);
        assert!(self.stderr.contains(part), "agent {}: no {part:?} in\n{}", self.line, self.stderr);
        assert_eq!(self.stdout, "", "agent {}: complaints are no result", self.line);
        self
    }

    fn prints(self, part: &str) -> Said {
        assert!(self.stdout.contains(part), "agent {}: no {part:?} in\n{}", self.line, self.stdout);
        assert_eq!(self.stderr, "", "agent {}", self.line);
        self
    }
}

#[test]
fn help_says_what_it_is_and_how_it_exits() {
    let help = agent("--help").exits(0).prints("Keeps the replicas").prints("--partitions <LIST>");
    for code in ["   0  ", "   1  ", "   2  ", "  75  "] {
        assert!(help.stdout.contains(code), "{}", help.stdout);
    }
    for subcommand in ["  check  ", "  demo  ", "  info  ", "  ring  ", "  locate  "] {
        assert!(help.stdout.contains(subcommand), "{}", help.stdout);
    }
    for line in help.stdout.lines() {
        assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
    }
    let short = agent("-h").exits(0);
    assert_eq!(short.stdout, help.stdout);
    agent("info --help").exits(0).prints("<DB>");
    let check = agent("check --help").exits(0).prints("Exit status");
    assert!(check.stdout.lines().all(|line| line.chars().count() <= 80), "{}", check.stdout);
    assert!(!check.stdout.contains("--probe"), "that is for itself");
    agent("demo --help").exits(0).prints("--keep <DIR>");
    let locate = agent("locate --help").exits(0).prints("--all-handoffs").prints("Exit status");
    assert!(locate.stdout.lines().all(|line| line.chars().count() <= 80), "{}", locate.stdout);
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = format!("agent {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(agent("--version").exits(0).stdout, version);
}

#[test]
fn an_unknown_option_is_named() {
    agent("--onec").exits(2).complains("'--onec'").complains("Usage: agent");
    agent("info x.db --jsonn").exits(2).complains("'--jsonn'");
    agent("replicate").exits(2).complains("'replicate'");
}

#[test]
fn partitions_are_numbers() {
    agent("--once --partitions x").exits(2).complains("\"x\" is not a partition's number");
    agent("--partitions x").exits(2).complains("\"x\" is not a partition's number");
    agent("--once --partitions 1,2,-3").exits(2).complains("\"-3\" is not a partition's number");
}

#[test]
fn devices_are_names() {
    agent("--once --devices /dev/sdb").exits(2).complains("\"/dev/sdb\" is a path");
    agent("--once --devices ,").exits(2).complains("the list is empty");
}

#[test]
fn a_daemon_takes_no_filters() {
    agent("--devices sdb1").exits(2).complains("--devices can be used only with --once");
    agent("-p 17").exits(2).complains("--partitions can be used only with --once");
}

#[test]
fn loud_and_quiet_exclude_each_other() {
    agent("--once -v -q").exits(2).complains("'--verbose' cannot be used with '--quiet'");
}

#[test]
fn a_complaint_cannot_drive_the_terminal() {
    for line in ["--x\u{1b}[2J", "--x\u{7}", "--x\u{9b}2J", "--once -p \u{1b}c"] {
        let said = agent(line).exits(2);
        assert!(!said.stderr.contains(|c: char| c.is_control() && c != '\n'), "{:?}", said.stderr);
    }
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_agent"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
