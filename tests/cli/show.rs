//! What `agent ring B show` prints and draws, and what a rebalance says that it moved.

use std::fs;
use std::path::PathBuf;

use super::{Said, agent_given};

/// A directory with a builder of 32 partitions, three replicas and four devices in four zones, rebalanced.
struct Rings {
    directory: tempfile::TempDir,
}

impl Rings {
    fn new() -> Rings {
        let rings = Rings { directory: tempfile::tempdir().expect("a directory") };
        rings.say("create 5 3 0").exits(0);
        for zone in 1..=4 {
            rings.say(&format!("add z{zone}-127.0.0.{zone}:6010/sdb1 100")).exits(0);
        }
        rings.say("rebalance --seed 7");
        rings
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `agent ring` with these words; `@` stands for the directory.
    fn say(&self, line: &str) -> Said {
        let builder = self.path("container.builder");
        let directory = self.directory.path().to_str().expect("a name in UTF-8");
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace('@', directory)).collect();
        let mut arguments = vec!["ring", builder.to_str().expect("a name in UTF-8")];
        arguments.extend(words.iter().map(String::as_str));
        agent_given(&arguments)
    }

    /// Adds a fifth device and rebalances; the builder as it was stays as `old.builder`, its ring as `old.ring.gz`.
    fn grow(&self) -> Said {
        fs::copy(self.path("container.builder"), self.path("old.builder")).expect("to copy");
        fs::copy(self.path("container.ring.gz"), self.path("old.ring.gz")).expect("to copy");
        self.say("add r1z1-127.0.0.5:6010/sdb1 100").exits(0);
        self.say("rebalance --seed 7")
    }
}

#[test]
fn a_small_ring_is_a_table_that_needs_no_colours() {
    let rings = Rings::new();
    let said =
        rings.say("show").exits(0).prints("32 partitions, 3 replicas; 4 devices in 4 zones of 1 region");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[2].starts_with("part 0  1  2 ") && lines[2].ends_with(" 30 31"), "{}", said.stdout);
    for (replica, line) in lines[3..6].iter().enumerate() {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells[0], cells.len()), (format!("rep{replica}").as_str(), 33), "{line}");
        assert!(cells[1..].iter().all(|cell| ["0", "1", "2", "3"].contains(cell)), "{line}");
    }
    assert!(said.stdout.contains("\n 0   r1z1-127.0.0.1:6010/sdb1     100     24  25.00%      24   +0.00%"));
    assert!(lines.iter().all(|line| line.len() <= 100) && !said.stdout.contains('\x1b'), "{}", said.stdout);
}

#[test]
fn colours_come_when_they_are_asked_for() {
    let rings = Rings::new();
    let plain = rings.say("show --color never").exits(0).stdout;
    assert_eq!(rings.say("show --color auto").stdout, plain, "a pipe is no terminal");
    let coloured = rings.say("show --color always").exits(0).stdout;
    assert!(coloured.matches("\x1b[48;5;").count() > 96, "{coloured}");
    let mut left = String::new();
    for (number, part) in coloured.split("\x1b[").enumerate() {
        left.push_str(if number == 0 { part } else { part.split_once('m').expect("the end of an escape").1 });
    }
    // Plain lines end with their text, coloured ones with their last cell.
    let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&left), trimmed(&plain));
}

#[test]
fn what_changed_is_marked_whatever_the_old_ring_is_kept_in() {
    let rings = Rings::new();
    let grown = rings.grow();
    let reassigned = grown.stdout.find("Reassigned ").expect("the line that scripts read");
    let moved = grown.stdout.find(" of 96 replicas moved, of ").expect("what moved");
    assert!(
        reassigned < moved && grown.stdout.contains("\n  d4 r1z1-127.0.0.5:6010/sdb1 "),
        "{}",
        grown.stdout
    );
    let of_builder = rings.say("show --before @/old.builder").exits(0).stdout;
    assert_eq!(rings.say("show --before @/old.ring.gz").exits(0).stdout, of_builder);
    let marks = of_builder.split_whitespace().filter(|word| word.starts_with("4<")).count() as u64;
    let count: u64 =
        grown.stdout[..moved].rsplit('\n').next().and_then(|text| text.parse().ok()).expect("a number");
    assert!(marks >= 18 && marks == count, "{marks} of {count}\n{of_builder}");
    let same = rings.say("show --before @/container.builder").exits(0).stdout;
    assert!(same.contains("\n0 of 96 replicas are elsewhere than before") && !same.contains('<'), "{same}");
}

#[test]
fn a_large_ring_is_told_in_figures() {
    let rings = Rings::new();
    rings.say("create 9 2.5 1 --yes").exits(0);
    for number in 0..70 {
        let (region, zone) = (1 + number / 40, number % 5);
        rings.say(&format!("add r{region}z{zone}-127.0.1.{number}:6010/sdb1 100")).exits(0);
    }
    rings.say("rebalance --seed 7");
    let said = rings
        .say("show")
        .exits(0)
        .prints("512 partitions, 2.5 replicas; 70 devices in 10 zones of 2 regions");
    assert!(!said.stdout.contains("rep0") && said.stdout.contains("  peers\n"), "{}", said.stdout);
    assert!(said.stdout.contains("\nr2 ") && said.stdout.contains("\n  r2z4 "), "{}", said.stdout);
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 100), "{}", said.stdout);
}

#[test]
fn a_picture_is_one_file_written_whole() {
    let rings = Rings::new();
    rings.grow();
    let said = rings.say("show --svg @/ring.svg --before @/old.ring.gz").exits(0).prints("/ring.svg: ");
    assert_eq!(said.stdout.lines().count(), 1);
    let svg = fs::read_to_string(rings.path("ring.svg")).expect("the picture");
    let document = roxmltree::Document::parse(&svg).expect("well-formed");
    let cells = document.descendants().filter(|node| node.tag_name().name() == "g").count();
    assert_eq!(cells, 96);
    assert!(document.descendants().any(|node| node.tag_name().name() == "path"), "something moved");
    rings.say("show --svg @/none/ring.svg").exits(2).complains("/none/ring.svg: No such file");
    let beside = fs::read_dir(rings.directory.path()).expect("a directory");
    assert!(beside.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("ring.svg.")));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let rings = Rings::new();
    rings.say("show --colour always").exits(2).complains("'--colour'");
    rings.say("show --color blue").exits(2).complains("[possible values: auto, always, never]");
    rings.say("show --before @/none").exits(2).complains("/none: No such file");
    fs::write(rings.path("junk"), "junk").expect("to write");
    rings.say("show --before @/junk").exits(2).complains("/junk");
    fs::write(rings.path("cut.ring.gz"), [0x1f, 0x8b]).expect("to write");
    rings.say("show --before @/cut.ring.gz").exits(2).complains("cut short");
    fs::rename(rings.path("container.builder"), rings.path("five.builder")).expect("to rename");
    rings.say("create 6 3 1").exits(0);
    rings.say("show").exits(2).complains("rebalance first");
    for zone in 1..=3 {
        rings.say(&format!("add z{zone}-127.0.0.{zone}:6010/sdb1 100")).exits(0);
    }
    rings.say("rebalance");
    rings.say("show --before @/five.builder").exits(2).complains("it has 32 partitions");
}
