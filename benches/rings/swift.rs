//! Swift's builder, by way of a Python program of ours, and its command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use swiftlet::ring::Ring;

use crate::judge::State;
use crate::measure;
use crate::shapes::{Cluster, Step};
use crate::table::{Process, Timed};

/// A virtual environment that Swift is installed in.
pub struct Swift {
    environment: PathBuf,
}

/// What one rebalance of Swift's left behind.
pub struct Left {
    /// The builder after the changes, before the rebalance.
    pub prepared: PathBuf,
    /// The builder after it.
    pub builder: PathBuf,
    /// What the ring says.
    pub state: State,
    /// How long the rebalance took, in seconds.
    pub seconds: f64,
}

impl Swift {
    /// The environment that was named, or the one that the tests made; `None` if there is no Swift in it.
    pub fn find(named: Option<&Path>) -> Option<Swift> {
        let tests_own = concat!(env!("CARGO_MANIFEST_DIR"), "/target/swift-venv");
        let environment = named.map_or_else(|| PathBuf::from(tests_own), Path::to_owned);
        environment.join("bin/swift-ring-builder").exists().then_some(Swift { environment })
    }

    /// Which Swift, on which Python.
    pub fn version(&self) -> String {
        let program =
            "import sys, swift; print('Swift', swift.__version__, 'on Python', sys.version.split()[0])";
        let output = Command::new(self.environment.join("bin/python")).args(["-c", program]).output();
        String::from_utf8_lossy(&output.expect("a Python").stdout).trim().to_owned()
    }

    /// Does the steps to a builder, a new one if there is no start, and rebalances it, all in a directory for this alone.
    pub fn rebalance(
        &self,
        cluster: &Cluster,
        start: Option<&Path>,
        steps: &[Step],
        seed: &str,
        dir: &Path,
    ) -> Left {
        let [prepared, builder, ring] =
            ["prepared.builder", "after.builder", "after.ring.gz"].map(|name| dir.join(name));
        let mut task = json!({
            "create": [cluster.part_power, cluster.replicas, 1],
            "steps": steps.iter().map(Step::to_json).collect::<Vec<_>>(),
            "seed": seed, "prepared": prepared, "builder": builder, "ring": ring,
        });
        if let Some(start) = start {
            task["start"] = json!(start);
        }
        let said = self.ask(&task);
        let number = |key: &str| said[key].as_f64().expect("a number");

        let replicas = steps.iter().rev().find_map(|step| match step {
            Step::Replicas(replicas) => Some(*replicas),
            _ => None,
        });
        let ring = Ring::load(&ring).expect("a ring of Swift's");
        let state = State::of_ring(&ring, replicas.unwrap_or(cluster.replicas));
        let figures = state.figures(None);
        let close = |own: f64, swifts: f64| (own - swifts).abs() <= 1e-9 * swifts.abs().max(1.0);
        assert!(close(figures.balance, number("balance")), "{figures:?}, but Swift says {said}");
        assert!(close(state.swifts_dispersion(), number("dispersion")), "{figures:?}, but Swift says {said}");
        Left { prepared, builder, state, seconds: number("seconds") }
    }

    /// The whole command on a copy of a builder's file.
    pub fn command(&self, builder: &Path, seed: &str, dir: &Path) -> Process {
        run(Command::new(self.environment.join("bin/swift-ring-builder")), builder, seed, dir)
    }

    fn ask(&self, task: &Value) -> Value {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rings/swift_builder.py");
        let mut child = Command::new(self.environment.join("bin/python"))
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a Python to start");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(task.to_string().as_bytes()).expect("a task that is read");
        drop(stdin);
        let output = child.wait_with_output().expect("a Python to wait for");
        assert!(output.status.success(), "{program} ended with {}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// `PROGRAM BUILDER rebalance` on a copy of a builder's file, whose changed place is told.
pub fn run(mut program: Command, builder: &Path, seed: &str, dir: &Path) -> Process {
    let copy = dir.join("command.builder");
    std::fs::copy(builder, &copy).expect("a copy");
    let finished = measure::watch(program.arg(&copy).args(["rebalance", "--force", "--seed", seed]), None);
    // 1 is a warning: that the balance could be better.
    assert!(matches!(finished.status.code(), Some(0 | 1)), "{program:?}: {}", finished.output);
    let timed = Timed { seconds: finished.seconds, resident_kib: finished.memory.resident_kib };
    Process { timed, builder: copy }
}
