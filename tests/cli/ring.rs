//! `agent ring`: transcripts, exit codes, questions, locks and backups. `tests/swift` holds the same commands against
//! Swift's own tool.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use swiftlet::ring::builder::Builder;
use swiftlet::ring::{FormatVersion, Ring};

use super::{Said, agent};

/// A directory with a builder in it, or soon.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Desk {
        Desk(tempfile::tempdir().expect("a directory"))
    }

    /// Three devices in as many zones, so that each holds every partition of three replicas.
    fn built() -> Desk {
        let desk = Desk::new();
        desk.ring("create 3 3 1").exits(0);
        desk.ring("add r1z1-10.0.0.1:6201/sdb1 100 r1z2-10.0.0.2:6201/sdb1 100").exits(0);
        desk.ring("add -r 1 -z 3 -i 10.0.0.3 -p 6201 -d sdb1 -w 100").exits(0);
        desk
    }

    fn balanced() -> Desk {
        let desk = Desk::built();
        desk.ring("rebalance").exits(0);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn builder(&self) -> Builder {
        Builder::load(&self.path("c.builder")).expect("a builder")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path("c.builder")).expect("a builder")
    }

    fn backups(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.path("backups")) else { return BTreeSet::new() };
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
        command.arg("ring").args(line.split_whitespace()).current_dir(self.0.path());
        command
    }

    /// A command on `c.builder`; whoever asks gets no answer.
    fn ring(&self, line: &str) -> Said {
        self.answered(line, "")
    }

    /// A command that reads something from its standard input.
    fn answered(&self, line: &str, answer: &str) -> Said {
        self.given(&format!("c.builder {line}"), answer)
    }

    fn given(&self, line: &str, answer: &str) -> Said {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // One that does not ask may be gone by now.
        let _ = child.stdin.take().expect("a pipe").write_all(answer.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        Said {
            line: format!("ring {line}"),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Said {
    /// All that it prints, and nothing else.
    fn says(self, text: &str) -> Said {
        assert_eq!(self.stdout, text, "agent {}", self.line);
        assert_eq!(self.stderr, "", "agent {}", self.line);
        self
    }

    fn warns(self, part: &str) -> Said {
        assert!(self.stderr.contains(part), "agent {}: no {part:?} in\n{}", self.line, self.stderr);
        self
    }
}

#[test]
fn a_ring_is_made_grown_and_shrunk() {
    let desk = Desk::new();
    desk.ring("create 3 3 1").exits(0).says("");
    let id = desk.builder().id().expect("an id").to_owned();
    desk.ring("").exits(0).says(&format!(
        "c.builder, build version 0, id {id}\n\
         8 partitions, 3.000000 replicas, 0 regions, 0 zones, 0 devices, 2-byte IDs, 0.00 balance, 0.00 dispersion\n\
         The minimum number of hours before a partition can be reassigned is 1 (0:00:00 remaining)\n\
         The overload factor is 0.00% (0.000000)\n\
         Ring file c.ring.gz not found, probably it hasn't been written yet\n\
         Devices:   id region zone ip address:port replication ip:port  name weight partitions balance flags meta\n\
         There are no devices in this ring, or all devices have been deleted\n"
    ));
    desk.ring("add r1z1-10.0.0.1:6201/sdb1_shelf 100 r1z2-[FD00::0:2]:6201R10.1.0.2:6301/sdb1 100")
        .exits(0)
        .says(
            "Device d0r1z1-10.0.0.1:6201R10.0.0.1:6201/sdb1_\"shelf\" with 100.0 weight got id 0\n\
         Device d1r1z2-[fd00::2]:6201R10.1.0.2:6301/sdb1_\"\" with 100.0 weight got id 1\n",
        );
    desk.ring("add z3-10.0.0.3:6201/sdb1 100").exits(0).warns("WARNING: No region specified for z3-10.0.0.3");
    let said = desk.ring("rebalance --seed 1").exits(0);
    let first = "Reassigned 24 (300.00%) partitions. Balance is now 0.00.  Dispersion is now 0.00\n";
    assert!(said.stdout.starts_with(first), "{}", said.stdout);
    let said = desk.ring("").exits(0);
    let shown = said.stdout.split_once("The overload factor is 0.00% (0.000000)\n").expect("that line").1;
    assert_eq!(
        shown,
        "Ring file c.ring.gz is up-to-date\n\
         Devices:   id region zone   ip address:port replication ip:port  name weight partitions balance flags meta\n\
         \u{20}           0      1    1     10.0.0.1:6201       10.0.0.1:6201  sdb1 100.00          8    0.00       shelf\n\
         \u{20}           1      1    2    [fd00::2]:6201       10.1.0.2:6301  sdb1 100.00          8    0.00       \n\
         \u{20}           2      1    3     10.0.0.3:6201       10.0.0.3:6201  sdb1 100.00          8    0.00       \n"
    );
    desk.ring("validate").exits(0).says("");
    desk.ring("version")
        .exits(0)
        .says("c.ring.gz: Serialization version: 1 (2-byte IDs), build version: 4\n");
    desk.ring("remove d1").exits(0).says(
        "d1r1z2-[fd00::2]:6201R10.1.0.2:6301/sdb1_\"\" marked for removal and will be removed next rebalance.\n",
    );
    desk.ring("set_weight d1 5").exits(2).complains("marked for removal");
    desk.ring("").exits(0).prints(" DEL ").prints("Ring file c.ring.gz is obsolete\n");
    desk.ring("rebalance").exits(2).complains("Replica count of 3 requires more than 2 devices");
    desk.ring("set_replicas 2")
        .exits(0)
        .says("The replica count is now 2.000000.\nThe change will take effect after the next rebalance.\n");
    desk.ring("rebalance").exits(0);
    assert_eq!(desk.builder().devices().map(|device| device.id.0).collect::<Vec<_>>(), [0, 2]);
    let ring = Ring::load(&desk.path("c.ring.gz")).expect("a ring");
    assert_eq!((ring.replica_count(), ring.devices().count()), (2.0, 2));
}

#[test]
fn a_device_table_is_drawn_to_the_letter() {
    let desk = Desk::new();
    desk.ring("create 3 3 24").exits(0);
    desk.ring("add r1z1-10.0.0.1:6201/sdb1_shelf 100 r1z2-[FD00::0:2]:6201R10.1.0.2:16301/sdb1 1500.5")
        .exits(0);
    let said = desk.ring("").exits(0);
    let table = said.stdout.split_once("written yet\n").expect("a table").1;
    assert_eq!(
        table,
        "Devices:   id region zone   ip address:port replication ip:port   name  weight partitions balance flags meta\n\
        \u{20}           0      1    1     10.0.0.1:6201       10.0.0.1:6201   sdb1  100.00          0 -100.00       shelf\n\
        \u{20}           1      1    2    [fd00::2]:6201       10.1.0.2:16301  sdb1 1500.50          0 -100.00       \n"
    );
    desk.ring("search d1").exits(0).says(
        "Devices:    id  region  zone      ip address  port  replication ip  replication port      name weight partitions balance meta\n\
        \u{20}            1       1     2         fd00::2  6201        10.1.0.2             16301      sdb1 1500.50          0 -100.00 \n",
    );
}

#[test]
fn devices_are_changed() {
    let desk = Desk::balanced();
    let before = desk.builder().version();
    desk.ring("set_weight d0 50 z2 25.5").exits(0).says(
        "d0r1z1-10.0.0.1:6201R10.0.0.1:6201/sdb1_\"\" weight set to 50.0\n\
               d1r1z2-10.0.0.2:6201R10.0.0.2:6201/sdb1_\"\" weight set to 25.5\n",
    );
    desk.ring("set_region --ip 10.0.0.3 2")
        .exits(0)
        .says("d2r2z3-10.0.0.3:6201R10.0.0.3:6201/sdb1_\"\" region set to 2\n");
    desk.ring("set_zone d2 1").exits(0).says("d2r2z1-10.0.0.3:6201R10.0.0.3:6201/sdb1_\"\" zone set to 1\n");
    assert_eq!(desk.builder().version(), before + 4);
    desk.ring("set_info d2 10.0.0.4:6202R10.1.0.4/sdc_new")
        .exits(0)
        .says("Device d2r2z1-10.0.0.3:6201R10.0.0.3:6201/sdb1_\"\" is now d2r2z1-10.0.0.4:6202R10.1.0.4:6201/sdc_\"new\"\n");
    desk.ring("set_info -u 2 -I storage-4.example.com -M x")
        .exits(0)
        .prints("d2r2z1-storage-4.example.com:6202");
    desk.ring("set_info d1 10.0.0.1").exits(2).says("Device 0 already uses 10.0.0.1:6201/sdb1.\n");
    assert_eq!(desk.builder().version(), before + 4, "info is no change of devices");
    desk.ring("write_ring").exits(0).says("");
    let ring = Ring::load(&desk.path("c.ring.gz")).expect("a ring");
    assert!(ring.devices().any(|device| device.ip == "storage-4.example.com" && device.meta == "x"));
    desk.ring("list_parts d0").exits(0).prints("Partition   Matches\n").prints("\n        0         1\n");
    desk.ring("list_parts d0 d1").exits(0).prints("Partition   Matches\n").prints("\n        0         2\n");
}

#[test]
fn the_builder_is_changed() {
    let desk = Desk::built();
    desk.ring("set_overload 10%").exits(0).says(
        "The overload factor is now 10.00% (0.100000)\nThe change will take effect after the next rebalance.\n",
    );
    desk.ring("set_overload 10").exits(1).prints("!?! Warning overload is greater than 100% !?!\n");
    desk.ring("set_overload -1").exits(2).says("Overload must be non-negative.\n");
    desk.ring("set_replicas 0.5").exits(2).says("Replica count must be at least 1.\n");
    desk.ring("set_min_part_hours 36")
        .exits(0)
        .says("The minimum number of hours before a partition can be reassigned is now set to 36\n");
    let builder = desk.builder();
    assert_eq!((builder.overload(), builder.replicas(), builder.min_part_hours()), (10.0, 3.0, 36));
    desk.ring("rebalance").exits(0);
    desk.ring("").prints("is 36 (1 day, ");
    desk.ring("pretend_min_part_hours_passed").exits(0).warns("WARNING: min_part_hours are not over");
    desk.ring("").prints("is 36 (0:00:00 remaining)");
    desk.ring("pretend_min_part_hours_passed").exits(0).says("");
}

#[test]
fn a_rebalance_says_when_there_is_nothing_to_do() {
    let desk = Desk::balanced();
    let saved = desk.bytes();
    desk.ring("rebalance").exits(1).prints("No partitions could be reassigned.\nThe time between rebalances must be at least min_part_hours: 1 hours (");
    desk.ring("pretend_min_part_hours_passed").exits(0);
    desk.ring("rebalance")
        .exits(1)
        .says("No partitions could be reassigned.\nThere is no need to do so at this time\n");
    assert_ne!(saved, desk.bytes());
    let saved = desk.bytes();
    let backups = desk.backups().len();
    desk.ring("rebalance -f").exits(0).prints("Reassigned 0 (0.00%) partitions.");
    assert_ne!(saved, desk.bytes());
    assert_eq!(desk.backups().len(), backups + 2);
}

#[test]
fn replicas_that_are_too_close_are_worth_a_note() {
    let desk = Desk::new();
    desk.ring("create 3 2 1").exits(0);
    desk.ring("add r1z1-10.0.0.1:6201/a 100 r1z1-10.0.0.1:6201/b 100 r1z2-10.0.0.2:6201/a 10").exits(0);
    let said = desk.ring("rebalance").exits(1);
    assert!(said.stdout.contains("NOTE: Dispersion of "), "{}", said.stdout);
    let said = desk.ring("dispersion -v").exits(1);
    for part in ["Dispersion is ", "Required overload is ", "Worst tier is ", "r1z1-10.0.0.1/b"] {
        assert!(said.stdout.contains(part), "{}", said.stdout);
    }
    let tiers = |line: &str| {
        let said = desk.ring(line);
        said.stdout
            .lines()
            .filter_map(|line| line.strip_prefix("r1"))
            .map(|line| line[..3].trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(tiers("dispersion -v r\\d+z\\d+$"), ["z1", "z2"]);
    assert_eq!(tiers("dispersion -v z1"), Vec::<String>::new(), "from the beginning of the name");
    desk.ring("dispersion ( -v").exits(2).complains("dispersion: ");
    let version = desk.builder().version();
    desk.ring("dispersion").exits(1);
    assert_eq!(desk.builder().version(), version, "looking does not write");
    desk.ring("dispersion --recalculate").exits(1);
    assert_eq!(desk.builder().version(), version + 1);
}

#[test]
fn equal_seeds_give_equal_rings() {
    let ring = |seed: &str| {
        let desk = Desk::built();
        desk.ring("set_replicas 1.5").exits(0);
        desk.ring(&format!("rebalance {seed}")).exits(0);
        fs::read(desk.path("c.ring.gz")).expect("a ring")
    };
    assert_eq!(ring("7"), ring("--seed=7"));
    assert_eq!(ring("seven"), ring("seven"));
    let by_chance: BTreeSet<Vec<u8>> = (0..4).map(|_| ring("")).collect();
    assert!(by_chance.len() > 1, "four seeds by chance gave one ring");
}

#[test]
fn what_is_not_found_or_not_ready_has_the_code_2() {
    let desk = Desk::built();
    desk.ring("search z9").exits(2).says("No matching devices found\n");
    desk.ring("remove z9").exits(2).says(UNCHANGED);
    desk.ring("set_weight z9 1").exits(2).says(UNCHANGED);
    desk.ring("set_info z9 _x").exits(2).says(UNCHANGED);
    let not_yet = "Specified builder file \"c.builder\" is not rebalanced yet. Please rebalance first.\n";
    desk.ring("list_parts d0").exits(2).says(not_yet);
    desk.ring("dispersion").exits(2).says(not_yet);
    desk.ring("validate").exits(2).complains("rebalance first");
    desk.ring("write_ring").exits(2).complains("rebalance first");
    desk.ring("version").exits(2).complains("c.ring.gz");
    desk.ring("add r1z1-10.0.0.9:6201/sdb1 1 r1z2-10.0.0.1:6201/sdb1 1").exits(2).says(
        "Device d3r1z1-10.0.0.9:6201R10.0.0.9:6201/sdb1_\"\" with 1.0 weight got id 3\n\
         Device 0 already uses 10.0.0.1:6201/sdb1.\nThe on-disk ring builder is unchanged.\n\n",
    );
    desk.ring("add r1z1-10.0.0.9:6201/sdb1 -- -1").exits(2).complains("weight -1 is not a number from 0");
    desk.ring("add r1z1-10.0.0.9:6201/sdb1 nan").exits(2).complains("weight NaN");
    assert_eq!(desk.builder().devices().count(), 3);
    let empty = Desk::new();
    empty.ring("create 3 3 1").exits(0);
    empty.ring("write_ring").exits(2).says("Unable to write empty ring.\n");
    empty.ring("rebalance").exits(2).complains("There are no devices in this ring");
}

const UNCHANGED: &str = "Search value matched 0 devices.\nThe on-disk ring builder is unchanged.\n";

#[test]
fn what_makes_no_sense_is_explained() {
    let desk = Desk::built();
    let saved = desk.bytes();
    for command in [
        "create",
        "create 33 3 1",
        "create 4 0.5 1",
        "create 4 many 1",
        "add",
        "add x 1",
        "search",
        "list_parts",
        "set_weight d0",
        "set_region d0 x",
        "set_zone",
        "set_info d0",
        "remove",
        "remove --yes",
        "rebalance --format-version 3",
        "validate it",
        "set_replicas",
        "set_replicas x",
        "set_overload x",
        "set_min_part_hours x",
        "write_ring --dev-id-bytes 3",
        "write_builder x y",
    ] {
        let said = desk.ring(command).exits(2).complains("");
        let asked = command.starts_with("create 33") || command.starts_with("create 4 0.5");
        let usage = format!("Usage: agent ring <builder> {}", command.split(' ').next().expect("a word"));
        assert!(asked || said.stderr.contains(&usage), "{command}: {}", said.stderr);
    }
    desk.ring("rebalence").exits(2).complains("did you mean rebalance?");
    desk.ring("increase_partition_power").exits(2).complains("use swift-ring-builder");
    assert_eq!(saved, desk.bytes());
    desk.ring("--help").exits(0).prints("pretend_min_part_hours_passed");
    desk.ring("add --help")
        .exits(0)
        .prints("Usage: agent ring <builder> add <device> <weight>")
        .prints("--replication-ip");
    agent("ring").exits(2).complains("<BUILDER>");
}

#[test]
fn several_devices_are_changed_only_by_who_is_sure() {
    let question = "Matched more than one device:\n    d0r1z1-10.0.0.1:6201R10.0.0.1:6201/sdb1_\"\"\n    \
                    d1r1z2-10.0.0.2:6201R10.0.0.2:6201/sdb1_\"\"\n    d2r1z3-10.0.0.3:6201R10.0.0.3:6201/sdb1_\"\"\n";
    let desk = Desk::built();
    let saved = desk.bytes();
    for answer in ["", "n\n", "\n", "yes\n", "Y\n"] {
        desk.answered("set_weight r1 1", answer).exits(2).says(&format!(
            "{question}Are you sure you want to update the weight for these 3 devices? (y/N) Aborting device modifications\n"
        ));
        desk.answered("remove r1", answer).exits(2).says(&format!(
            "{question}Are you sure you want to remove these 3 devices? (y/N) Aborting device removals\n"
        ));
        assert_eq!(saved, desk.bytes(), "{answer:?}");
    }
    desk.answered("set_weight r1 1", "y\n")
        .exits(0)
        .prints("d2r1z3-10.0.0.3:6201R10.0.0.3:6201/sdb1_\"\" weight set to 1.0\n");
    desk.ring("set_zone /sdb1 7 --yes").exits(0).prints(question);
    assert!(desk.builder().devices().all(|device| (device.weight, device.zone) == (1.0, 7)));
    desk.ring("remove d0 d0 d0").exits(0);
    assert_eq!(desk.builder().devices().filter(|device| desk.builder().is_marked(device.id)).count(), 1);
}

#[test]
fn a_builder_is_replaced_only_by_who_is_sure() {
    let desk = Desk::built();
    let saved = desk.bytes();
    for answer in ["", "n\n"] {
        desk.answered("create 4 2 1", answer).exits(2).prints("c.builder is there already.");
        assert_eq!(saved, desk.bytes());
    }
    desk.answered("create 4 2 1", "y\n").exits(0);
    assert_eq!(desk.builder().part_power(), 4);
    desk.ring("create 5 2 1 --yes").exits(0).says("");
    assert_eq!((desk.builder().part_power(), desk.builder().devices().count()), (5, 0));
}

#[test]
fn commands_at_once_lose_nothing() {
    let desk = Desk::new();
    desk.ring("create 4 3 1").exits(0);
    let children: Vec<_> = (0..24)
        .map(|number| {
            let line = format!("c.builder add r1z{}-10.0.0.{number}:6201/sdb1 100", number % 5);
            desk.command(&line).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary runs")
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().expect("it ends").status.success());
    }
    let builder = desk.builder();
    assert_eq!(builder.version(), 24);
    assert_eq!(builder.devices().map(|device| device.ip.clone()).collect::<BTreeSet<_>>().len(), 24);
    let rebalances: Vec<_> = (0..4)
        .map(|_| {
            desk.command("c.builder rebalance")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the binary runs")
        })
        .collect();
    let codes: Vec<_> = rebalances
        .into_iter()
        .map(|child| child.wait_with_output().expect("it ends").status.code())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Some(1)).count(),
        3,
        "only the first moves anything: {codes:?}"
    );
    desk.ring("validate").exits(0);
    desk.ring("").prints("Ring file c.ring.gz is up-to-date");
}

#[test]
fn who_holds_the_lock_is_waited_for_and_named() {
    let desk = Desk::built();
    let lock = File::open(desk.path(".lock")).expect("the lock of swift-ring-builder-safe");
    let held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("the lock");
    desk.ring("search d0").exits(0);
    let began = Instant::now();
    let said = desk.ring("set_weight d0 1").exits(2).complains(".lock is locked by");
    assert!((Duration::from_secs(14)..Duration::from_secs(30)).contains(&began.elapsed()));
    assert!(
        said.stderr.contains(&format!("process {}", std::process::id()))
            || said.stderr.contains("another ring builder")
    );
    let waiting =
        desk.command("c.builder set_weight d0 1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    std::thread::sleep(Duration::from_millis(200));
    drop(held);
    assert!(waiting.expect("the binary runs").wait_with_output().expect("it ends").status.success());
}

#[test]
fn backups_are_kept_and_never_written_over() {
    let desk = Desk::built();
    assert_eq!(desk.backups().len(), 1, "of the new builder");
    desk.ring("rebalance").exits(0);
    desk.ring("write_ring").exits(0);
    desk.ring("write_ring --format-version 2").exits(0);
    desk.ring("create 3 3 1 --yes").exits(0);
    let backups = desk.backups();
    let ends = |end: &str| backups.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((ends(".c.builder"), ends(".c.ring.gz"), backups.len()), (3, 3, 6), "{backups:?}");
    for name in &backups {
        let (date, _) = name.split_once('.').expect("a date");
        assert!(date.parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000), "{name}");
        let path = desk.path("backups").join(name);
        if name.ends_with(".builder") {
            Builder::load(&path).expect("a builder");
        } else {
            let pair = backups.contains(&format!("{date}.c.builder"));
            let ring = Ring::load(&path).expect("a ring");
            assert!(pair || ring.version().is_some());
        }
    }
    let last = backups.iter().rfind(|name| name.ends_with(".ring.gz")).expect("a ring");
    assert_eq!(Ring::version_of(&desk.path("backups").join(last)).expect("a ring"), FormatVersion::V2);
}

#[test]
fn what_cannot_be_saved_leaves_all_as_it_was() {
    let desk = Desk::built();
    fs::remove_dir_all(desk.path("backups")).expect("to remove");
    fs::write(desk.path("backups"), "no directory").expect("to write");
    let saved = desk.bytes();
    desk.ring("rebalance").exits(2).complains("backups");
    assert_eq!(saved, desk.bytes());
    assert!(!desk.path("c.ring.gz").exists());
    desk.given("nowhere/c.builder create 3 3 1", "").exits(2).complains("nowhere");
}

#[test]
fn a_builder_that_is_none_is_named() {
    let desk = Desk::new();
    desk.ring("").exits(2).complains("c.builder");
    desk.ring("add r1z1-10.0.0.1:6201/a 1").exits(2).complains("c.builder");
    for text in ["", "nonsense", "\u{1}\u{2}"] {
        fs::write(desk.path("c.builder"), text).expect("to write");
        desk.ring("").exits(2).complains("c.builder");
        desk.ring("rebalance").exits(2).complains("c.builder");
        assert_eq!(fs::read_to_string(desk.path("c.builder")).expect("text"), text);
    }
    fs::remove_file(desk.path("c.builder")).expect("to remove");
    fs::create_dir(desk.path("c.builder")).expect("a directory");
    desk.ring("validate").exits(2).complains("c.builder");
}

#[test]
fn the_rings_name_stands_for_the_builders() {
    let desk = Desk::balanced();
    let note = "Note: using c.builder instead of c.ring.gz as builder file\n";
    let said = desk.given("c.ring.gz search d0", "").exits(0);
    assert!(said.stdout.starts_with(note), "{}", said.stdout);
    desk.given("c.ring.gz version", "").exits(0).prints("c.ring.gz: Serialization version: 1");
    desk.ring("write_ring --format-version=2 --dev-id-bytes=4").exits(0);
    desk.ring("version").says("c.ring.gz: Serialization version: 2 (4-byte IDs), build version: 4\n");
    desk.ring("").prints("Ring file c.ring.gz is up-to-date\n").prints(", 2-byte IDs,");

    desk.ring("write_builder")
        .exits(2)
        .says("Cowardly refusing to overwrite existing Ring Builder file: c.builder\n");
    let before = desk.builder();
    fs::remove_file(desk.path("c.builder")).expect("to remove");
    desk.given("c.ring.gz write_builder", "").exits(0).warns("WARNING: default min_part_hours");
    assert_eq!(desk.builder().min_part_hours(), 24);
    fs::remove_file(desk.path("c.builder")).expect("to remove");
    desk.given("c.ring.gz write_builder 7", "").exits(0).says("");
    let after = desk.builder();
    assert_eq!((after.rows(), after.version(), after.min_part_hours()), (before.rows(), before.version(), 7));
    desk.ring("").prints("Ring file c.ring.gz is up-to-date\n");
    desk.ring("validate").exits(0);
}

#[test]
fn a_link_stays_a_link() {
    let (desk, far) = (Desk::built(), Desk::new());
    fs::rename(desk.path("c.builder"), far.path("real.builder")).expect("to move");
    symlink(far.path("real.builder"), desk.path("c.builder")).expect("a link");
    desk.ring("set_weight d0 7").exits(0);
    desk.ring("rebalance").exits(1).prints("NOTE: Balance of ");
    assert!(fs::symlink_metadata(desk.path("c.builder")).expect("the link").is_symlink());
    assert_eq!(far.given("real.builder search d0", "").exits(0).stdout.matches(" 7.00 ").count(), 1);
    assert!(far.path(".lock").exists(), "whoever comes by the other name is kept out too");
}

#[test]
fn what_a_device_is_called_cannot_drive_the_terminal() {
    let desk = Desk::new();
    desk.ring("create 3 1 1").exits(0);
    desk.ring("add r1z1-10.0.0.1:6201/sdb_\u{1b}[2J\u{7} 1").exits(0).prints("sdb_\"#033[2J#007\"");
    desk.ring("").exits(0).prints("#033[2J#007");
}
