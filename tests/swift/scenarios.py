"""The scenarios. Each builds replicas with Swift's broker, yields, lets agents work, and leaves the verdict to the judge.

A scenario is a generator. Up to its first `yield` it lays out the cluster; what every replica holds is noted there. After it
come the passes, and whatever the scenario itself has to say beyond what judge.py checks of every outcome.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from container import ACCOUNT, BASE, NOW, RECLAIM_AGE, Container, opened, rows, stamp
from stage import TWO_POLICIES, Failure, Ring
from swift.common.utils import ShardRange, Timestamp

SCENARIOS = {}


def scenario(differs=True, swift_fails=None, swift_may_fail=False):
    """Registers a scenario.

    `differs`: the judge must object before any agent ran; if not, the scenario's own points must catch an idle agent.
    `swift_fails`: the weakness for which Swift's replicator does not pass; `swift_may_fail`: it depends on the moment.
    """

    def register(function):
        function.differs, function.swift_fails, function.swift_may_fail = differs, swift_fails, swift_may_fail
        SCENARIOS[function.__name__] = function
        return function

    return register


@dataclass
class Play:
    """What a scenario has to hand: the stage, the agents (or Swift in their place), and the containers to be judged."""

    stage: object
    replicator: object
    containers: list = field(default_factory=list)
    passes: list = field(default_factory=list)
    reconciles: bool = False

    def container(self, name="c", **more):
        """A container that will be judged at the end."""
        made = Container(self.stage, name, **more)
        self.containers.append(made)
        return made

    def one_pass(self, node, may_fail=False):
        """A pass of one node; a failure it counts is a failure of the scenario unless expected."""
        done = self.replicator.one_pass(node)
        self.passes.append(done)
        if done["failure"] and not may_fail:
            raise Failure(f"pass of {node} counted {done['failure']} failures: {done['failure_nodes']} {done.log[-1500:]}")
        return done

    def round(self, may_fail=False):
        """One pass of every node of the ring, one after the other."""
        return [self.one_pass(self.stage.nodes[number - 1], may_fail) for number in self.stage.ring.nodes]


def expect(condition, what):
    """A point of the scenario's own."""
    if not condition:
        raise Failure(what)


class Writer:
    """A process that writes to one replica as a container server does, until stopped."""

    def __init__(self, container, node, name, log, pause_secs=0, batch=0):
        command = [sys.executable, Path(__file__).with_name("writer.py"), container.path(node), container.name]
        command += [name, log, str(pause_secs), str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while self.process.poll() is None and not (log.exists() and f"{name}/" in log.read_text()):
            time.sleep(0.02)

    def stop(self):
        """Ends it; an error it met with is a failure of the scenario."""
        self.process.terminate()
        complaint = self.process.communicate()[1]
        # A SIGTERM that meets a writer at its own end kills it; all that it acknowledged is in its log by then.
        expect(self.process.returncode in (0, -signal.SIGTERM), f"a writer ended with {self.process.returncode}: {complaint[-1500:]}")


def acknowledged(log):
    """What a writer was told is safe: (name, seconds it waited) for each row."""
    return [(name, float(waited)) for name, waited in (line.split() for line in log.read_text().splitlines())]


def total(passes, counter):
    """A counter over several passes."""
    return sum(done.report.get(counter, 0) for done in passes)


# --- what differs ---


@scenario(differs=False)
def equal(play):
    """Nothing differs: nothing is sent, and once the sync points say so, nothing is written."""
    play.stage.reset()
    c = play.container()
    for node in c.primaries:
        c.merge(node, rows(200))
    yield
    passes = play.round()
    files = {node: c.path(node).read_bytes() for node in c.primaries}
    passes += play.round()
    expect(total(passes, "rows_sent") == 0, "rows were sent")
    expect(total(passes, "no_change") + total(passes, "hashmatch") > 0, "no comparison was counted")
    if play.replicator.is_agent:
        expect(files == {node: c.path(node).read_bytes() for node in c.primaries}, "an unchanged database was written to")


@scenario()
def missing(play):
    """One primary has no copy: it gets the whole file, with an id of its own on its own device."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(300))
    c.copy(c.primaries[0], c.primaries[1])
    yield
    passes = play.round()
    expect(total(passes, "rsync") >= 1, "no full copy was counted")
    with c.broker(c.primaries[2]) as broker:
        name = broker.get_info()["id"]
        expect(broker.get_sync(_id(c, c.primaries[0])) > 0, "the copy does not know how far it got of its sender's rows")
    if play.replicator.is_agent:
        expect(name.endswith("-" + c.primaries[2].device), f"the id {name} does not end in its own device's name")


@scenario()
def behind(play):
    """One primary lacks the last rows, and knows up to where it has the others'."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(1500))
    c.copy(c.primaries[0], *c.primaries[1:])
    for node in c.primaries[:2]:
        c.merge(node, rows(400, first=1500))
    yield
    play.round()


@scenario()
def ahead_on_both_sides(play):
    """Each replica has rows, overwrites and deletions that the others have not."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(800))
    c.copy(c.primaries[0], *c.primaries[1:])
    c.merge(c.primaries[0], rows(50, first=100, at=5000) + rows(30, prefix="left"))
    c.merge(c.primaries[1], rows(50, first=120, at=6000) + rows(40, first=300, at=7000, deleted=1))
    c.merge(c.primaries[2], rows(60, first=320, at=8000) + rows(20, prefix="never", deleted=1) + rows(30, prefix="right"))
    yield
    play.round()


@scenario()
def metadata_only(play):
    """The same rows, metadata set on one side, changed on another, deleted on the third."""
    play.stage.reset()
    c = play.container()
    for node in c.primaries:
        c.merge(node, rows(100))
        _metadata(c, node, {"X-Container-Meta-Old": ("value", stamp(10)), "X-Container-Meta-Gone": ("here", stamp(10))})
    _metadata(c, c.primaries[0], {"X-Container-Meta-Color": ("gr\u00fcn \U0001f7e2", stamp(50)), "X-Container-Read": (".r:*", stamp(51))})
    _metadata(c, c.primaries[1], {"X-Container-Meta-Color": ("blue", stamp(49)), "X-Container-Meta-Old": ("new", stamp(60))})
    _metadata(c, c.primaries[2], {"X-Container-Meta-Gone": ("", stamp(70))})
    yield
    passes = play.round()
    expect(total(passes, "rows_sent") == 0, "rows were sent")


@scenario()
def timestamps_only(play):
    """The same rows; put, deleted and put again at other times, born at other times."""
    play.stage.reset()
    c = play.container()
    for at, node in enumerate(c.primaries):
        c.create(node, at=at)
        c.merge(node, rows(50))
    with c.broker(c.primaries[0]) as broker:
        broker.merge_timestamps(stamp(-500), stamp(900), "0")
    with c.broker(c.primaries[1]) as broker:
        broker.merge_timestamps(stamp(-900), stamp(3), stamp(800))
    yield
    play.round()


@scenario()
def far_behind(play):
    """A peer has less than half of the rows and more than per_diff fewer, and a few that nobody else has."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(900))
    c.copy(c.primaries[0], *c.primaries[1:])
    for node in c.primaries[:2]:
        c.merge(node, rows(3000, first=900))
    c.merge(c.primaries[2], rows(25, prefix="only-here") + rows(30, first=10, at=9000))
    _metadata(c, c.primaries[2], {"X-Container-Meta-Here": ("yes", stamp(5))})
    yield
    # Swift's rsync_then_merge leaves points a few rows too high (13.1); ours must not.
    play.round()


@scenario()
def other_order(play):
    """The same rows in another order, no common sync points, and some rows more on one side."""
    play.stage.reset()
    c = play.container()
    items = rows(2500)
    c.merge(c.primaries[0], items + rows(100, prefix="more"))
    c.merge(c.primaries[1], items[::-1])
    c.merge(c.primaries[2], items[1000:] + items[:1000])
    yield
    play.round()


@scenario(differs=False)
def other_order_same_rows(play):
    """The same rows in another order and nothing more: their hashes are equal, and that settles it."""
    play.stage.reset()
    c = play.container()
    items = rows(500)
    c.merge(c.primaries[0], items)
    c.merge(c.primaries[1], items[::-1])
    c.merge(c.primaries[2], items[200:] + items[:200])
    yield
    passes = play.round()
    expect(total(passes, "rows_sent") == 0, "rows were sent")
    expect(total(passes, "no_change") + total(passes, "hashmatch") > 0, "no comparison was counted")


@scenario()
def pending_files(play):
    """Rows acknowledged into pending files on every replica, none of them in a database yet."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(100))
    c.copy(c.primaries[0], *c.primaries[1:])
    for number, node in enumerate(c.primaries):
        c.pend(node, rows(20, prefix=f"pending-{number}") + rows(5, first=10 * number, at=3000, deleted=1))
        expect(Path(f"{c.path(node)}.pending").stat().st_size > 0, "nothing is pending")
    yield
    play.round()


@scenario()
def posted(play):
    """POSTs: rows whose content type and metadata are younger than their data, differently on each replica."""
    play.stage.reset()
    c = play.container()
    plain = rows(60)
    c.merge(c.primaries[0], plain)
    c.copy(c.primaries[0], *c.primaries[1:])
    posted = [dict(item, content_type="text/plain;charset=utf-8", ctype_timestamp=stamp(2000), meta_timestamp=stamp(2100)) for item in plain[:30]]
    touched = [dict(item, meta_timestamp=stamp(2500)) for item in plain[15:45]]
    overwritten = [
        dict(item, created_at=stamp(2300 + number), size=7, etag="e" * 32, content_type="image/png;swift_bytes=77")
        for number, item in enumerate(plain[20:60])
    ]
    c.merge(c.primaries[0], posted)
    c.merge(c.primaries[1], touched)
    c.merge(c.primaries[2], overwritten)
    c.pend(c.primaries[1], [dict(plain[50], ctype_timestamp=stamp(2600), meta_timestamp=stamp(2600), content_type="a/b")])
    yield
    # A merge makes rows anew under rowids of its own, so that the last of three may need a second round, in Swift as in ours.
    play.round()
    play.round()


@scenario()
def strange_names(play):
    """Names with NUL, quotes, newlines and characters beyond the basic plane, very long ones, and stamps with offsets."""
    play.stage.reset()
    c = play.container()
    names = ["\x00reserved\x00name", "a'b\"c\\d", "line\nbreak\r\t", "\u00e4\u4e2d\U0001f600", " ", "%00", "x" * 1024, "e\u0301", "\u00e9"]
    items = [dict(row, name=name) for row, name in zip(rows(len(names)), names)]
    for number, item in enumerate(items):
        item["created_at"] = Timestamp(BASE + number, offset=number * 17).internal
    c.merge(c.primaries[0], items[:5])
    c.merge(c.primaries[1], items[3:])
    c.merge(c.primaries[2], [dict(items[0], deleted=1, size=0, created_at=stamp(99))])
    yield
    play.round()


@scenario()
def big_figures(play):
    """Sizes beyond 32 bits, and more rows pending than a pending file holds."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], [dict(item, size=5 << 40) for item in rows(20)])
    c.create(*c.primaries[1:])
    c.pend(c.primaries[1], rows(1500, prefix="flood"))
    c.pend(c.primaries[2], [dict(item, size=(1 << 61) + 1) for item in rows(2, prefix="huge")])
    yield
    play.round()


# --- birth, death and places ---


@scenario()
def tombstones_reclaimed(play):
    """Tombstones older than reclaim_age go; younger ones stay, and stay deleted."""
    play.stage.reset()
    c = play.container()
    old = [dict(item, created_at=Timestamp(NOW - RECLAIM_AGE - 1000 - n).internal) for n, item in enumerate(rows(40, prefix="old", deleted=1))]
    for node in c.primaries:
        c.merge(node, rows(50) + old + rows(10, prefix="young", deleted=1))
    yield
    play.round()


@scenario()
def deleted_container_reclaimed(play):
    """A container deleted long ago and reported to its account is removed everywhere; one not yet reported stays."""
    play.stage.reset()
    reported, silent, recent = (play.container(name) for name in ("reported", "silent", "recent"))
    for c, deleted_at in ((reported, NOW - RECLAIM_AGE - 5000), (silent, NOW - RECLAIM_AGE - 5000), (recent, NOW - 5000)):
        for node in c.primaries:
            c.create(node, at=-2 * RECLAIM_AGE)
            with c.broker(node) as broker:
                broker.delete_db(Timestamp(deleted_at).internal)
                if c is not silent:
                    info = broker.get_info()
                    broker.reported(info["put_timestamp"], info["delete_timestamp"], 0, 0)
    reported.holders = []
    yield
    passes = play.round()
    expect(total(passes, "remove") == 3, f"{total(passes, 'remove')} removals counted instead of 3")
    for node in reported.primaries:
        expect(not reported.directory(node).parent.exists(), f"the suffix directory stayed on {node}")


@scenario()
def handoff_hands_over(play):
    """A handoff's rows go to the primaries, one of which has no copy, and its own copy goes."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(100))
    c.copy(c.primaries[0], c.primaries[1], c.handoffs[0])
    c.merge(c.handoffs[0], rows(30, prefix="while-away"))
    c.pend(c.handoffs[0], rows(5, prefix="last-moment"))
    yield
    done = play.one_pass(c.handoffs[0])
    expect(done["remove"] == 1, f"the handoff counted {done['remove']} removals")
    expect(not c.directory(c.handoffs[0]).parent.exists(), "the handoff's suffix directory stayed")
    play.round()


@scenario()
def handoff_kept_while_a_primary_is_down(play):
    """A handoff keeps its copy until every primary has it."""
    play.stage.reset()
    c = play.container()
    c.merge(c.handoffs[0], rows(100))
    yield
    play.replicator.stop(c.primaries[1])
    done = play.one_pass(c.handoffs[0], may_fail=True)
    expect(done["failure"] >= 1 and done["remove"] == 0, f"with a primary down: {done['failure']} failures, {done['remove']} removals")
    expect(c.path(c.handoffs[0]).exists(), "the handoff gave up its copy while a primary was down")
    expect(done["failure_nodes"] == {c.primaries[1].ip: {c.primaries[1].device: 1}}, f"failure_nodes: {done['failure_nodes']}")
    play.replicator.start(c.primaries[1])
    play.round()


@scenario()
def wrong_partition(play):
    """A database in a directory of a partition that is not its own is replicated from there, then removed."""
    play.stage.reset()
    c = play.container()
    elsewhere = (c.partition + 5) % 16
    c.merge(c.primaries[0], rows(40))
    c.merge(c.handoffs[0], rows(60), partition=elsewhere)
    c.merge(c.primaries[1], rows(30, prefix="astray"), partition=elsewhere)
    yield
    play.round()
    play.round()
    for node in play.stage.nodes:
        expect(not c.directory(node, elsewhere).exists(), f"the misplaced copy stayed on {node}")


@scenario()
def unmounted_device(play):
    """A primary's drive is not mounted: nothing is written below its mount point, the handoff stands in until it is back."""
    play.stage.reset(mount_check="true")
    for node in play.stage.nodes:
        (node.drive / ".ismount").touch()
    c = play.container()
    c.merge(c.primaries[0], rows(80))
    c.merge(c.primaries[1], rows(60))
    away = c.primaries[2]
    (away.drive / ".ismount").unlink()
    yield
    if play.replicator.is_agent:
        report = play.stage.agent_pass(away)
        expect(report["failure"] == 1, f"an unmounted drive counted {report['failure']} failures")
    play.one_pass(c.primaries[0], may_fail=True)
    expect(list(away.drive.iterdir()) == [], "something was written below an empty mount point")
    expect(c.path(c.handoffs[0]).exists(), "no handoff stood in for the unmounted drive")
    (away.drive / ".ismount").touch()
    play.round(may_fail=True)
    play.round()


@scenario()
def damaged_is_quarantined_and_healed(play):
    """A damaged replica is moved to quarantine and its place filled again from its peers."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(2000))
    c.copy(c.primaries[0], *c.primaries[1:])
    hurt = c.primaries[1]
    data = bytearray(c.path(hurt).read_bytes())
    data[: 3 * 4096] = os.urandom(3 * 4096)
    c.path(hurt).write_bytes(data)
    c.unreadable = {hurt}
    yield
    # Its own pass finds it; the next pass of the others fills the gap.
    done = play.one_pass(hurt, may_fail=True)
    expect(done["failure"] > 0, "a damaged database counted no failure")
    moved = list((hurt.drive / "quarantined" / "containers").glob(f"{c.hash}*"))
    expect(len(moved) == 1, f"in quarantine: {moved}")
    expect((moved[0] / f"{c.hash}.db").read_bytes() == bytes(data), "the quarantined file is not the damaged one as it was")
    play.round()


@scenario()
def tidied(play):
    """Old files in tmp/ and empty directories go, young and foreign ones stay."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(10))
    c.copy(c.primaries[0], *c.primaries[1:])
    node = c.primaries[0]
    (node.drive / "tmp").mkdir(exist_ok=True)
    old, young = node.drive / "tmp" / "old-arrival", node.drive / "tmp" / "young-arrival"
    stray, empty = c.directory(node) / "tmpabcdefgh.tmp", node.drive / "containers" / "15" / "abc"
    note = node.drive / "containers" / "readme.txt"
    for path in (old, young, stray, note):
        path.write_text("x")
    empty.mkdir(parents=True, exist_ok=True)
    for path in (old, stray):
        os.utime(path, (NOW - RECLAIM_AGE - 100,) * 2)
    yield
    play.round()
    expect(not old.exists() and not stray.exists(), "an old temporary file stayed")
    expect(young.exists() and note.exists(), "a young or foreign file went")
    expect(not empty.exists(), "an empty suffix directory stayed")


# --- rings, policies, configuration ---


@scenario()
def ring_v2(play):
    """A ring in format 2."""
    play.stage.reset(Ring(format_version=2))
    for number in range(4):
        c = play.container(f"c{number}")
        c.merge(c.primaries[0], rows(40))
        c.merge(c.primaries[1], rows(20, prefix="second"))
    yield
    play.round()


@scenario()
def two_and_a_half_replicas(play):
    """Some partitions have three primaries, some two."""
    play.stage.reset(Ring(replicas=2.5))
    found = {}
    for number in range(40):
        c = Container(play.stage, f"c{number}")
        if len(c.primaries) not in found:
            found[len(c.primaries)] = play.container(c.name)
    expect(sorted(found) == [2, 3], f"the ring has partitions with {sorted(found)} primaries")
    for c in found.values():
        c.merge(c.primaries[0], rows(40))
        c.merge(c.handoffs[0], rows(10, prefix="handoff"))
    yield
    play.round()


@scenario()
def single_replica(play):
    """One replica only: it stays where it is, a stray copy comes home."""
    play.stage.reset(Ring(replicas=1))
    home, stray = play.container("home"), play.container("stray")
    home.merge(home.primaries[0], rows(40))
    stray.merge(stray.handoffs[0], rows(40))
    yield
    play.round()


@scenario()
def two_policies(play):
    """The replicas were created with different policies: the earlier one wins everywhere."""
    play.stage.reset(swift_conf=TWO_POLICIES)
    c = play.container(policy=1)
    c.create(c.primaries[0], at=10, policy=0)
    c.create(c.primaries[1], at=5, policy=1)
    c.create(c.primaries[2], at=20, policy=0)
    c.merge(c.primaries[1], rows(30, policy=1))
    yield
    play.round()
    play.round()


@scenario()
def rows_of_two_policies(play):
    """Rows were written under both policies, the same names among them: each is a row of its own, all of them everywhere."""
    play.stage.reset(swift_conf=TWO_POLICIES)
    play.reconciles = True
    c = play.container(policy=0)
    c.create(c.primaries[0], at=5, policy=0)
    c.create(c.primaries[1], at=10, policy=1)
    c.create(c.primaries[2], at=5, policy=0)
    c.merge(c.primaries[0], rows(30))
    c.merge(c.primaries[1], rows(40, first=20, policy=1, at=100))
    yield
    play.round()
    play.round()


@scenario()
def conf_fragments_and_port_offset(play):
    """The configuration is a directory of fragments, and agents listen elsewhere than at the default."""
    play.stage.reset(fragments=True, agent_port_offset="1007")
    c = play.container()
    c.merge(c.primaries[0], rows(40))
    c.merge(c.primaries[1], rows(50))
    yield
    play.round()


# --- older and sharded databases ---


@scenario()
def older_schema(play):
    """One replica's database was born before storage policies, one before metadata and container sync; two are of today."""
    play.stage.reset()
    for name, with_metadata in (("before-policies", True), ("before-metadata", False)):
        c = play.container(name)
        c.merge(c.primaries[0], rows(50, first=20))
        c.merge(c.primaries[1], rows(10, prefix="today"))
        _pre_policy_database(c, c.primaries[2], rows(40) + rows(5, first=30, at=700, deleted=1), with_metadata)
        _metadata(c, c.primaries[0], {"X-Container-Meta-Color": ("blue", stamp(5))})
    yield
    play.round()


@scenario()
def sharding_defers_rows(play):
    """A container that has begun to shard: ranges are merged everywhere, rows stay where they are."""
    play.stage.reset()
    c = play.container()
    c.content = "own"
    c.merge(c.primaries[0], rows(100))
    c.copy(c.primaries[0], *c.primaries[1:])
    c.merge(c.primaries[1], rows(20, prefix="second"))
    _start_sharding(c, c.primaries[0], ("photos/000050.jpg", ""), state=ShardRange.CREATED)
    _start_sharding(c, c.primaries[1], ("photos/000050.jpg", ""), state=ShardRange.CLEAVED, at=400)
    yield
    passes = play.round()
    expect(total(passes, "deferred") > 0, "nothing was deferred")
    expect(total(passes, "rows_sent") == 0, "rows were sent")


@scenario()
def sharding_still_fills_a_gap(play):
    """A container that has begun to shard: a primary without any copy still gets the whole file."""
    play.stage.reset()
    c = play.container()
    c.content = "own"
    c.merge(c.primaries[0], rows(100))
    c.copy(c.primaries[0], c.primaries[1])
    for node in c.primaries[:2]:
        _start_sharding(c, node, ("photos/000050.jpg", ""), state=ShardRange.CREATED)
    yield
    play.round()


@scenario()
def sharded_root(play):
    """A root that has sharded: its file carries an epoch, and its replicas learn each other's newest ranges."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(60))
    _start_sharding(c, c.primaries[0], ("photos/000030.jpg", ""), state=ShardRange.ACTIVE)
    with c.broker(c.primaries[0]) as broker:
        broker.set_sharding_state() and broker.set_sharded_state()
        broker.update_metadata({"X-Container-Sysmeta-Shard-Root": (f"{ACCOUNT}/{c.name}", stamp(1))})
    fresh = c.file(c.primaries[0])
    expect("_" in fresh.name, f"the fresh file is {fresh.name}")
    with opened(fresh, c.name) as broker:
        own = broker.get_own_shard_range()
        own.update_state(ShardRange.SHARDED, state_timestamp=Timestamp(BASE + 500))
        broker.merge_shard_ranges([own])
        source = broker.get_info()["id"]
    for node in c.primaries[1:]:
        c.directory(node).mkdir(parents=True)
        (c.directory(node) / fresh.name).write_bytes(fresh.read_bytes())
        with opened(c.file(node), c.name) as broker:
            broker.newid(source)
    with opened(c.file(c.primaries[2]), c.name) as broker:
        ranges = [found for found in broker.get_shard_ranges() if found.lower_str == ""]
        ranges[0].update_meta(77, 7700, meta_timestamp=Timestamp(BASE + 900))
        broker.merge_shard_ranges(ranges)
    # A sharded root counts what its ranges say, for which the union, an unsharded file, is no model.
    c.overrides = {"object_count": 77 + 50, "bytes_used": 7700 + 5100}
    yield
    play.round()


# --- what Swift itself gets wrong (swift-facts.md, section 13) ---


@scenario(swift_fails="13.1: rows that are never sent")
def far_behind_then_writes(play):
    """After a far-behind peer with rows of its own was brought up, the sender's next rows must reach it."""
    play.stage.reset(Ring(replicas=2))
    c = play.container()
    c.merge(c.primaries[0], rows(3000))
    c.merge(c.primaries[1], rows(25, prefix="only-here"))
    yield
    play.one_pass(c.primaries[0])
    c.merge(c.primaries[0], rows(10, prefix="afterwards"))
    c.remember()
    play.one_pass(c.primaries[0])
    with c.broker(c.primaries[1]) as broker:
        expect(broker.get_info()["object_count"] == 3035, "rows written after the merge were not sent")
    play.round()


@scenario(swift_fails="13.1: points say equal, hashes differ")
def points_say_equal(play):
    """Sync points too high on both sides, as Swift leaves them: the hashes differ, and that counts."""
    play.stage.reset(Ring(replicas=2))
    c = play.container()
    c.merge(c.primaries[0], rows(500))
    c.merge(c.primaries[1], rows(480) + rows(20, prefix="other"))
    for one, other in (c.primaries, c.primaries[::-1]):
        with c.broker(one) as broker:
            broker.merge_syncs([{"remote_id": _id(c, other), "sync_point": 500}])
    yield
    # The first round sends what the points allow, and finds that the hashes still differ; the second knows not to trust them.
    play.round()
    play.round()


@scenario(swift_fails="13.5: a restored copy")
def restored_from_backup(play):
    """A replica restored from an older copy of itself keeps its id, falls back in rowids, and takes new rows."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(100))
    backup = c.path(c.primaries[0]).read_bytes()
    c.merge(c.primaries[0], rows(50, first=100))
    c.copy(c.primaries[0], *c.primaries[1:])
    c.path(c.primaries[0]).write_bytes(backup)
    c.merge(c.primaries[0], rows(30, prefix="after-restore"))
    yield
    play.round()


@scenario(swift_may_fail=True)
def handoff_written_to_while_handing_over(play):
    """A writer keeps adding to a handoff while it is handed over (13.4): what was acknowledged survives, wherever it now is."""
    play.stage.reset()
    c = play.container()
    c.merge(c.handoffs[0], rows(1000))
    log = c.handoffs[0].home / "acknowledged"
    yield
    for attempt in range(5):
        writer = Writer(c, c.handoffs[0], f"writer-{attempt}", log, pause_secs=0.15)
        try:
            for _ in range(6):
                if play.one_pass(c.handoffs[0], may_fail=True)["remove"]:
                    break
        finally:
            writer.stop()
        # Swift looks for the database before it waits for the directory's lock, and makes the directory anew for that: a row
        # that came in this moment lies beside no database. The agent says so, and what to do, which is done here.
        orphan = c.path(c.handoffs[0]).with_suffix(".db.pending")
        if orphan.exists() and not c.path(c.handoffs[0]).exists():
            told = play.one_pass(c.handoffs[0], may_fail=True)
            expect(str(orphan) in told.log and "append this file" in told.log, f"nothing was said of {orphan}: {told.log}")
            with c.path(c.primaries[0]).with_suffix(".db.pending").open("ab") as pending:
                pending.write(orphan.read_bytes())
            orphan.unlink()
        play.round(may_fail=True)
        for node in c.primaries:
            with c.broker(node) as broker:
                held = {item["name"] for item in broker.get_items_since(-1, 10**9)}
            lost = [name for name, _waited in acknowledged(log) if name not in held]
            expect(not lost, f"{len(lost)} acknowledged rows are not on {node}, the first {lost[:1]}")
        if attempt < 4:
            c.copy(c.primaries[0], c.handoffs[0])
    c.remember()
    play.round()


# --- many at once, and side by side with Swift ---


@scenario()
def many_with_daemons(play):
    """Sixty containers in all sorts of states, and nothing but daemons that pass every second."""
    play.stage.reset(agent_passes="yes", interval="1")
    for number in range(60):
        c = play.container(f"many-{number}")
        nodes = c.primaries[: 1 + number % 3]
        for node in nodes:
            c.merge(node, rows(10 + number))
        if number % 2:
            c.merge(nodes[-1], rows(number, prefix="more"))
        if number % 5 == 0:
            c.merge(c.handoffs[0], rows(4, prefix="handoff"))
        if number % 7 == 0:
            c.pend(nodes[0], rows(3, prefix="pending"))
    yield
    if not play.replicator.is_agent:
        play.round()
        play.round()
        return
    until = time.monotonic() + 60
    while not all(set(c.replicas()) == set(c.primaries) for c in play.containers):
        expect(time.monotonic() < until, "databases are not in their places after 60 s of daemons")
        time.sleep(0.5)
    # Everything is in its place; two more passes of each daemon let the last rows find their way.
    time.sleep(4)


@scenario()
def taking_turns_with_swift(play):
    """Some nodes still run Swift's replicator, some ours, and rows keep coming between the passes."""
    play.stage.reset()
    c = play.container()
    c.merge(c.primaries[0], rows(200))
    c.merge(c.handoffs[0], rows(20, prefix="handoff"))
    yield
    for turn in range(3):
        for number, node in enumerate(play.stage.nodes):
            c.merge(c.primaries[number % 3], rows(15, prefix=f"turn-{turn}-{number}"))
            if (turn + number) % 2:
                play.one_pass(node)
            else:
                expect(play.stage.swift_pass(node)["failure"] == 0, f"Swift's pass on {node} failed in turn {turn}")
    c.remember()
    play.round()


# --- helpers ---


def _id(container, node):
    with container.broker(node) as broker:
        return broker.get_info()["id"]


def _metadata(container, node, items):
    with container.broker(node) as broker:
        broker.update_metadata(items)


def _start_sharding(container, node, uppers, state, at=100):
    """Shard ranges with these upper bounds, and an own range that says sharding is under way."""
    with container.broker(node) as broker:
        broker.enable_sharding(Timestamp(BASE + 50))
        own = broker.get_own_shard_range()
        own.update_state(ShardRange.SHARDING, state_timestamp=Timestamp(BASE + 60))
        own.epoch = Timestamp(BASE + 50)
        lower, ranges = "", [own]
        for number, upper in enumerate(uppers):
            ranges.append(
                ShardRange(
                    f".shards_{ACCOUNT}/{container.name}-{number}", Timestamp(BASE + 70), lower, upper,
                    object_count=50, bytes_used=5000 + at, meta_timestamp=Timestamp(BASE + at),
                    state=state, state_timestamp=Timestamp(BASE + at),
                )
            )  # fmt: skip
            lower = upper
        broker.merge_shard_ranges(ranges)


def _pre_policy_database(container, node, items, with_metadata):
    """A database as Swift made it before storage policies: container_stat a table, no policy column, one set of triggers."""
    from swift.common.db import chexor

    container.directory(node).mkdir(parents=True)
    conn = sqlite3.connect(container.path(node))
    conn.create_function("chexor", 3, chexor)
    late = "metadata TEXT DEFAULT '', x_container_sync_point1 INTEGER DEFAULT -1, x_container_sync_point2 INTEGER DEFAULT -1"
    conn.executescript(
        f"""
        CREATE TABLE object (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created_at TEXT, size INTEGER,
            content_type TEXT, etag TEXT, deleted INTEGER DEFAULT 0);
        CREATE INDEX ix_object_deleted_name ON object (deleted, name);
        CREATE TABLE container_stat (account TEXT, container TEXT, created_at TEXT, put_timestamp TEXT DEFAULT '0',
            delete_timestamp TEXT DEFAULT '0', object_count INTEGER, bytes_used INTEGER,
            reported_put_timestamp TEXT DEFAULT '0', reported_delete_timestamp TEXT DEFAULT '0',
            reported_object_count INTEGER DEFAULT 0, reported_bytes_used INTEGER DEFAULT 0,
            hash TEXT DEFAULT '{"0" * 32}', id TEXT, status TEXT DEFAULT '', status_changed_at TEXT DEFAULT '0'
            {", " + late if with_metadata else ""});
        CREATE TABLE incoming_sync (remote_id TEXT UNIQUE, sync_point INTEGER, updated_at TEXT DEFAULT 0);
        CREATE TABLE outgoing_sync (remote_id TEXT UNIQUE, sync_point INTEGER, updated_at TEXT DEFAULT 0);
        CREATE TRIGGER object_insert AFTER INSERT ON object BEGIN
            UPDATE container_stat SET object_count = object_count + (1 - new.deleted), bytes_used = bytes_used + new.size,
                hash = chexor(hash, new.name, new.created_at); END;
        CREATE TRIGGER object_update BEFORE UPDATE ON object BEGIN
            SELECT RAISE(FAIL, 'UPDATE not allowed; DELETE and INSERT'); END;
        CREATE TRIGGER object_delete AFTER DELETE ON object BEGIN
            UPDATE container_stat SET object_count = object_count - (1 - old.deleted), bytes_used = bytes_used - old.size,
                hash = chexor(hash, old.name, old.created_at); END;
        """
    )
    conn.execute(
        "INSERT INTO container_stat (account, container, created_at, id, put_timestamp, object_count, bytes_used)"
        " VALUES (?, ?, ?, ?, ?, 0, 0)",
        (ACCOUNT, container.name, stamp(0), "0a0b0c0d-1111-2222-3333-444455556666", stamp(0)),
    )
    seen = {item["name"]: item for item in items}
    conn.executemany(
        "INSERT INTO object (name, created_at, size, content_type, etag, deleted)"
        " VALUES (:name, :created_at, :size, :content_type, :etag, :deleted)",
        list(seen.values()),
    )
    conn.commit()
    conn.close()


