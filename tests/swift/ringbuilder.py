"""`agent ring` held against `swift-ring-builder`: the same commands in two directories, then the same words, codes and builders.

Which device a rebalance gives a partition is a matter of each program's own. Everything else must be alike: what is printed,
line by line, how a command ends, and what is in the builder afterwards, as Swift's own code reads it. What may differ stands in
`MAY_DIFFER` and at the commands in question, nowhere else.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback

from scenarios import expect, scenario
from stage import Failure
from swift.cli import ringbuilder
from swift.common.exceptions import LockTimeout
from swift.common.ring import RingBuilder
from swift.common.utils import lock_parent_directory

MAY_DIFFER = (
    # An id is made at random, and time passes between one program and the other.
    (r"\bid [0-9a-f]{32}$", "id ID"),
    (r"\((\d+ days?, )?\d+:\d\d:\d\d remaining\)", "(TIME remaining)"),
    # Advice to Swift's operators about a later version of Swift.
    (r"(?s)\ADefaulting to --format-version=1\..*?--format-version=2\n\n", ""),
)
"""Patterns, and what both sides are read as there."""

TIMES = ("_last_part_moves_epoch", "id")
"""What two builders of one history need not have in common."""


NAMES = ("swift", "ours")


def swifts(words, directory, answer):
    """What `swift-ring-builder` does with these words, in a fork of this process: to start Python anew takes longer than all else."""
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as complaint:
        asked.write(answer)
        asked.seek(0)
        child = os.fork()
        if child == 0:
            code = 2
            try:
                os.chdir(directory)
                sys.stdin, sys.stdout, sys.stderr = asked, printed, complaint
                ringbuilder.main(["swift-ring-builder", *words])
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (printed, complaint):
                    stream.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        complaint.seek(0)
        return code, printed.read(), complaint.read()


class Pair:
    """Two directories with a builder each: Swift's and ours."""

    def __init__(self, play):
        self.ours = play.replicator.ring_command
        self.home = play.stage.home / "pair"
        subprocess.run(["rm", "-rf", self.home], check=True)
        for name in NAMES:
            (self.home / name).mkdir(parents=True)
        self.complaints = []

    def run(self, line, answer="", file="c.builder"):
        """One command by each: (code, what was printed)."""
        process = subprocess.Popen(
            [*self.ours, file, *shlex.split(line)], cwd=self.home / "ours", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs = swifts([file, *shlex.split(line)], self.home / "swift", answer)
        printed, complaint = process.communicate(answer, timeout=120)
        ended = {"swift": theirs, "ours": (process.returncode, printed, complaint)}
        for name, (code, printed, complaint) in ended.items():
            for pattern, reading in MAY_DIFFER:
                printed = re.sub(pattern, reading, printed, flags=re.MULTILINE)
            ended[name] = (code, printed, complaint)
        return ended

    def alike(self, line, code=0, answer="", file="c.builder"):
        """Both end with this code and have printed the same."""
        ended = self.run(line, answer, file)
        self._compare(line, ended, code)
        if ended["swift"][1] != ended["ours"][1]:
            self._complain(line, f"printed\n{ended['ours'][1]}    where Swift prints\n{ended['swift'][1]}")

    def refused(self, line, answer="", file="c.builder"):
        """Both say that something is wrong, each in its own words."""
        ended = self.run(line, answer, file)
        self._compare(line, ended, 2)
        said = ended["ours"][1] + ended["ours"][2]
        if not said.strip() or "panicked" in said:
            self._complain(line, f"no explanation: {said}")

    def begins(self, line, pattern, code=0):
        """Both end with this code, and the first line printed looks like this."""
        ended = self.run(line)
        self._compare(line, ended, code)
        for name, (_code, printed, _complaint) in ended.items():
            if not re.fullmatch(pattern, printed.split("\n", 1)[0]):
                self._complain(line, f"{name} begins with {printed[:200]!r}")

    def _compare(self, line, ended, code):
        if (ended["swift"][0], ended["ours"][0]) != (code, code):
            self._complain(line, f"ended with {ended['ours'][0]}, Swift with {ended['swift'][0]}, expected {code}: {ended['ours'][2][-500:]}")

    def same_builders(self):
        """What Swift reads from both files is the same but for the times."""
        found = {}
        for name in NAMES:
            try:
                builder = RingBuilder.load(str(self.home / name / "c.builder")).to_dict()
                found[name] = {key: value for key, value in builder.items() if key not in TIMES}
            except Exception as error:
                self._complain("(builder)", f"Swift cannot read the builder of {name}: {error!r}")
        if len(found) == 2:
            for key in found["swift"].keys() | found["ours"].keys():
                theirs, ours = found["swift"].get(key), found["ours"].get(key)
                if theirs != ours:
                    self._complain("(builder)", f"{key} is {ours!r}, and with Swift {theirs!r}")

    def hand_over(self, names=("c.builder", "c.ring.gz")):
        """Swift's builder and ring become ours too: from here on assignments are alike."""
        for name in names:
            (self.home / "ours" / name).write_bytes((self.home / "swift" / name).read_bytes())

    def backups(self):
        """What is kept, without the dates. Swift writes over what it kept in the same second; we do not, so ours may be more."""
        kept = {}
        for name in NAMES:
            directory = self.home / name / "backups"
            kept[name] = sorted(path.name.split(".", 1)[1] for path in directory.iterdir()) if directory.exists() else []
        expect(set(kept["swift"]) == set(kept["ours"]) and len(kept["swift"]) <= len(kept["ours"]), f"backups are {kept['ours']}, and with Swift {kept['swift']}")

    def verdict(self):
        """Fails with every complaint at once."""
        expect(not self.complaints, "\n    ".join(self.complaints[:8]))

    def _complain(self, line, complaint):
        self.complaints.append(f"{line or '(no command)'}: {complaint}")


DEVICES = (
    'add r1z1-10.0.0.1:6201/sdb1 100 r1z2-10.0.0.2:6201R10.1.0.2:6301/sdb1_"row 3, shelf 7" 50.5',
    "add --region 1 --zone 3 --ip 10.0.0.3 --port 6201 --device sdb1 --weight 100",
    "add -r 2 -z 1 -i Storage-4.Example.com -p 16201 -j fd00:0:0::4 -q 16301 -d nvme0n1 -w 1500 -m 'bay 1'",
    "add r2z1-[FD00::0005]:6201R[fd00:0:0:0::5]:6301/sdb_under_score 1e3",
    "add z9-10.0.0.9:6201/sdb1 0",
)


@scenario(differs=False)
def ring_commands(play):
    """From an empty builder up to its first rebalance every command prints what Swift's does, and leaves the same builder."""
    play.stage.reset()
    yield
    pair = Pair(play)
    pair.alike("create 6 3 1")
    pair.alike("")
    pair.same_builders()
    for line in DEVICES:
        pair.alike(line)
    pair.same_builders()
    pair.alike("")
    pair.alike("search d0", file="c.ring.gz")
    for search in ("d3", "r1", "r1z2", "z1-10.0.0.1", "10.0.0.2", ":6201", "R10.1.0.2", "R:6301", "/sdb1", "_shelf", "[fd00::5]",
                   "d1r1z2-10.0.0.2:6201R10.1.0.2:6301/sdb1_row", "''", "R[fd00::4]", "/sdb_under"):  # fmt: skip
        pair.alike(f"search {search}")
    for options in ("-u 0", "--region=2", "-z1", "-i 10.0.0.1", "--ip STORAGE-4.example.com", "-p 6201", "-j 10.1.0.2", "-q6301",
                    "--device sdb1", "-w 100", "--weight 0", "-m shelf", "--reg 1 -z 3", "--ip [fd00::5]", "-yr2"):  # fmt: skip
        pair.alike(f"search {options}")
    pair.alike("set_weight d0 75 d1 25.25")
    pair.alike("set_weight --ip 10.0.0.3 --device sdb1 1e2")
    pair.alike("set_weight r1 10", answer="y\n")
    pair.alike("set_weight r1 20", code=2, answer="n\n")
    pair.alike("set_weight r1 20", code=2)
    pair.alike("set_weight r1 20 --yes")
    pair.alike("set_region d2 7")
    pair.alike("set_region -u 2 3")
    pair.alike("set_zone d2 4")
    pair.alike("set_zone --region 3 5 --yes")
    pair.same_builders()
    pair.alike("set_info d2 10.0.0.33:6203R10.1.0.33:6303/sdc_moved d0 _'two words'")
    pair.alike("set_info d2 R[FD00::33]")
    pair.alike("set_info d2 /sdd")
    pair.alike("set_info -u 2 -I 10.0.0.34 -P 6204 -J 10.1.0.34 -Q 6304 -D sde -M again")
    pair.alike("set_info --ip 10.0.0.1 --change-ip storage-1")
    pair.alike("set_info /sdb1 _all", answer="y\n")
    pair.same_builders()
    pair.alike("set_overload 10%")
    pair.alike("set_overload 0.25")
    pair.alike("set_overload 3", code=1)
    pair.alike("set_overload 0")
    pair.alike("set_replicas 2.5")
    pair.alike("set_replicas 3")
    pair.alike("set_min_part_hours 12")
    pair.alike("pretend_min_part_hours_passed")
    pair.alike("remove d4")
    pair.alike("remove -u 5")
    pair.alike("remove r1", code=2, answer="n\n")
    pair.alike("")
    pair.same_builders()
    pair.backups()
    pair.verdict()


@scenario(differs=False)
def ring_commands_after_a_rebalance(play):
    """On one balanced builder every command reports what Swift's does; a rebalance of each begins with the same figures."""
    play.stage.reset()
    yield
    pair = Pair(play)
    pair.run("create 6 3 1")
    devices = " ".join(f"r1z{1 + n % 2}-10.0.0.{1 + n // 2}:6201/sdb{n} {100 + 10 * n}" for n in range(6))
    pair.run(f"add {devices} r2z1-[fd00::7]:6201/sdb7 20")
    reassigned = r"Reassigned 192 \(300\.00%\) partitions\. Balance is now \d+\.\d\d\.  Dispersion is now \d+\.\d\d"
    pair.begins("rebalance --seed 7", reassigned, code=1)
    pair.backups()
    pair.hand_over()
    for line, code in (
        ("", 0), ("validate", 0), ("version", 0), ("list_parts d0", 0), ("list_parts d6 r1z1", 0), ("list_parts -z 2", 0),
        ("search r1z1", 0), ("dispersion", 1), ("dispersion -v", 1), (r"dispersion 'r\d+z\d+$' -v", 1), ("dispersion r2 -v", 0),
        (r"dispersion -v '.*\-[^/]*$'", 0), ("dispersion nowhere", 0), ("dispersion --recalculate", 1),
    ):  # fmt: skip
        pair.alike(line, code)
    pair.alike("version", file="c.ring.gz")
    pair.same_builders()
    pair.alike("write_ring --format-version 2")
    pair.alike("version")
    pair.alike("")
    pair.alike("write_ring --format-version=2 --dev-id-bytes=4")
    pair.alike("version")
    pair.alike("")
    pair.refused("write_ring --dev-id-bytes=4")
    pair.alike("write_ring")
    pair.alike("version")
    pair.alike("set_weight d0 0")
    pair.alike("set_info d1 _new")
    pair.alike("remove d2")
    pair.alike("")
    pair.alike("search ''")
    pair.alike("list_parts d2")
    pair.alike("dispersion -v", 1)
    pair.same_builders()
    pair.alike("add r1z1-10.0.0.99:6201/sdb1 5")
    pair.same_builders()
    # What was moved just now stays, but devices that are gone are left at once.
    pair.begins("rebalance", r"Reassigned \d+ \(\d+\.\d\d%\) partitions\. Balance is now 999\.99\.  Dispersion .*", code=1)
    pair.hand_over()
    pair.alike("rebalance", 1)
    pair.alike("")
    pair.alike("add r1z1-10.0.0.98:6201/sdb1 5")
    pair.alike("remove d1")
    pair.begins("rebalance 3", r"Reassigned .*", code=1)
    for name in NAMES:
        (pair.home / name / "c.builder").unlink()
    pair.hand_over(["c.ring.gz"])
    pair.alike("write_builder 5")
    pair.alike("")
    pair.same_builders()
    pair.alike("write_builder 5", 2)
    pair.verdict()


@scenario(differs=False)
def ring_commands_refused(play):
    """What Swift's tool refuses is refused, with the same code; what it answers with a line on standard output is answered alike."""
    play.stage.reset()
    yield
    pair = Pair(play)
    for line in ("", "add r1z1-10.0.0.1:6201/a 1", "version", "rebalance", "write_builder", "create", "create x 3 1", "create 5 0.5 1",
                 "create 33 3 1", "create -1 3 1", "create 5 3"):  # fmt: skip
        pair.refused(line)
    pair.alike("create 5 3 1")
    pair.alike("write_ring", 2)
    pair.refused("rebalance")
    pair.refused("validate")
    pair.alike("add r1z1-10.0.0.1:6201/a 1 r1z2-10.0.0.2:6201/a 1")
    pair.refused("rebalance")
    pair.alike("list_parts d0", 2)
    pair.alike("dispersion", 2)
    for line in ("search z9", "remove z9", "set_weight z9 1", "set_region z9 1", "set_zone z9 1", "set_info z9 _x",
                 "add r1z3-10.0.0.3:6201/a 1 r9z9-10.0.0.1:6201/a 1", "set_info d0 10.0.0.2", "set_overload -5", "set_replicas 0",
                 "remove r1", "set_zone r1 4", "search -u 7"):  # fmt: skip
        pair.alike(line, 2)
    for line in (
        "frobnicate", "add", "add r1z1-10.0.0.9:6201/a", "add r1z1-10.0.0.9/a 1", "add r1z1-host:6201/a 1", "add z1:6201/a 1",
        "add r1z1-10.0.0.9:6201/a -5", "add r1z1-10.0.0.9:6201/a x", "add -r 1 -z 1 -i 10.0.0.9 -p 6201 -d a",
        "add -r 1 -z 1 -i 'no host' -p 6201 -d a -w 1", "add -r x -z 1 -i 10.0.0.9 -p 6201 -d a -w 1", "add r1z1-10.0.0.9:6201/a 1 -r 1",
        "search", "search x", "search d", "search 300.1.1.1", "search d0 d1", "search d0 -r 1", "search --frob 1", "list_parts",
        "set_weight", "set_weight d0", "set_weight d0 x", "set_weight -u 0", "set_weight -u 0 1 2", "set_region d0 x", "set_region d0",
        "set_zone d0 1.5", "set_info", "set_info d0", "set_info d0 x", "set_info d0 300.1.1.1", "remove", "remove x", "remove d0 -u 1",
        "rebalance --format-version 3", "rebalance --frob", "write_ring --dev-id-bytes 3", "write_ring --format-version=x",
        "set_replicas", "set_replicas x", "set_overload", "set_overload x", "set_min_part_hours",
        "set_min_part_hours x", "prepare_increase_partition_power", "increase_partition_power",
    ):  # fmt: skip
        pair.refused(line)
    pair.same_builders()
    pair.alike("remove d0")
    for line in ("set_weight d0 1", "set_region d0 1", "set_zone d0 1"):
        pair.refused(line)
    pair.same_builders()
    for name in NAMES:
        (pair.home / name / "c.builder").write_bytes(b"no pickle")
    for line in ("", "add r1z1-10.0.0.9:6201/a 1", "rebalance", "validate"):
        pair.refused(line)
    pair.verdict()


@scenario(differs=False, swift_fails="only swift-ring-builder-safe locks, and that after it has read the builder")
def ring_commands_locked(play):
    """Who writes takes the lock of `swift-ring-builder-safe`: it waits for whoever has it, and keeps it to the end."""
    play.stage.reset()
    yield
    pair = Pair(play)
    pair.alike("create 5 3 1")
    builder = str(pair.home / "ours" / "c.builder")

    def start(*words):
        return subprocess.Popen(
            [*pair.ours, "c.builder", *words], cwd=pair.home / "ours",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    with lock_parent_directory(builder, 1):
        waiting = start("add", "r1z1-10.0.0.1:6201/sdb1", "100")
        looking = start("search", "d0")
        looking.communicate(timeout=20)
        time.sleep(0.5)
        expect(waiting.poll() is None, "it did not wait for the lock")
        expect(not RingBuilder.load(builder).devs, "it wrote while another had the lock")
    said = waiting.communicate(timeout=20)[0]
    expect(waiting.returncode == 0, f"with the lock free it ended with {waiting.returncode}: {said}")
    expect(len(RingBuilder.load(builder).devs) == 1, "what was added under the lock is not there")

    asking = start("create", "6", "3", "1")
    asking.stdout.read(1)
    try:
        with lock_parent_directory(builder, 0.5):
            raise Failure("another could take the lock while it waited for an answer")
    except LockTimeout:
        pass
    asking.communicate(b"y\n", timeout=20)
    expect(asking.returncode == 0, f"it ended with {asking.returncode}")
    expect(RingBuilder.load(builder).part_power == 6, "the answer had no effect")
    pair.verdict()
