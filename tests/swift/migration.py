"""From Swift's replicator to ours and back, on a cluster whose clients go on writing all the time.

Both replicators run as daemons with passes of their own, as units would start them. After each step of an operator, whatever
was acknowledged until then has to be on all replicas while the writing goes on: it is not enough that it is so in the end.
README.md, "Migrating from swift-container-replicator, and back", is what these scenarios do.
"""

import json
import shutil
import subprocess
import time

from clients import Clients, lacking
from container import NOW, Container, rows
from scenarios import expect, scenario
from stage import replicator_of
from swift.common.utils import Timestamp

RECLAIM_AGE = 30
"""Seconds, so that deletions of the way there are forgotten on the way back."""
STEP_SECONDS = 25
"""Within which what was acknowledged is everywhere: sooner than deletions are forgotten, or they could not be kept."""
BETWEEN_SECONDS = 1
"""How long clients write between two steps."""
RECLAIM_AGE_OF_SWIFT = 7 * 86400
LONG_AGO = Timestamp(NOW - 30 * 86400).internal


@scenario(swift_may_fail=True)
def migrate_and_back(play):
    """Agents beside Swift's replicators, Swift's replicators stopped, rsync stopped, and all the way back, under writers."""
    walk = Walk(play, reclaim_age=RECLAIM_AGE)
    walk.furnish()
    yield
    if not play.replicator.is_agent:
        # Without agents there is no way to go.
        play.round()
        play.round()
        return
    walk.begin()
    try:
        walk.all_is_kept("Swift's replicators everywhere")
        for node in play.stage.nodes:
            walk.start_agent(node)
            walk.newcomer(node)
            walk.all_is_kept(f"an agent beside Swift's replicator on {node}")
        walk.nobody_complains()
        for node in play.stage.nodes:
            walk.stop_swift(node)
            walk.newcomer(node)
            walk.all_is_kept(f"no Swift's replicator on {node} any more")
        play.stage.stop_swift("rsync")
        walk.lose(play.containers[0])
        walk.all_is_kept("no rsync, and a replica lost")
        walk.nobody_complains()
        walk.swift_minds_nothing()
        walk.clients.deletes = False
        play.stage.start_rsync()
        for node in play.stage.nodes:
            walk.start_swift(node)
            walk.newcomer(node)
        walk.all_is_kept("Swift's replicators beside agents again")
        for node in play.stage.nodes:
            walk.stop_agent(node)
            walk.newcomer(node)
            walk.all_is_kept(f"no agent on {node} any more")
        walk.deletions_are_forgotten()
        walk.clear_away()
        walk.all_is_kept("only Swift's replicators")
        walk.nothing_of_ours_is_left()
        walk.end()
    finally:
        walk.stop()


@scenario(swift_may_fail=True)
def one_in_place_of_the_other(play):
    """Each node runs either the one or the other, never both: what waits for whom, and that nothing is lost or left waiting."""
    walk = Walk(play)
    walk.furnish()
    yield
    if not play.replicator.is_agent:
        # Without agents there is no way to go.
        play.round()
        play.round()
        return
    walk.begin()
    try:
        walk.all_is_kept("Swift's replicators everywhere")
        first, *others = play.stage.nodes
        walk.stop_swift(first)
        walk.start_agent(first)
        astray = next(c for c in play.containers if first not in c.primaries)
        walk.fill(astray, first, rows(20, prefix="astray"))
        walk.clients.promise(walk.furnished)
        walk.newcomer(others[0], also=first)
        walk.all_is_kept("one agent among Swift's replicators", of=others)
        peers = {f"{node.ip}:{node.port}/{node.device}" for node in others}
        walk.wait_until(lambda: set(walk.hindered(first)) == peers, "agent status names the peers without agents")
        expect(len(walk.complaints_of_peers(first)) == len(others), "agent check does not name the peers without agents")
        expect(walk.lacking_elsewhere(first), "rows that only the first node had came to peers without agents")
        expect(astray.path(first).exists(), "a handoff was given up though nobody there could take it")
        for node in others:
            walk.stop_swift(node)
            walk.start_agent(node)
        walk.all_is_kept("agents everywhere")
        walk.wait_until(lambda: not astray.directory(first).exists(), "the handoff is handed over")
        walk.nobody_complains()
        for node in play.stage.nodes:
            walk.stop_agent(node)
            walk.start_swift(node)
        walk.all_is_kept("Swift's replicators everywhere again")
        walk.end()
    finally:
        walk.stop()


class Walk:
    """A cluster on its way, and what is held to be true at each step."""

    def __init__(self, play, **options):
        self.play, self.stage = play, play.stage
        self.reclaim_age = options.get("reclaim_age", RECLAIM_AGE_OF_SWIFT)
        self.clients = None
        self.furnished = {}
        self.stage.reset(interval="1", **options)

    # --- what an operator does ---

    def start_agent(self, node):
        """`systemctl enable --now agent`."""
        self.stage.start_agents([node])

    def stop_agent(self, node):
        """`systemctl disable --now agent`."""
        self.stage.stop_agents([node])

    def start_swift(self, node):
        """`systemctl enable --now swift-container-replicator`."""
        self.stage.start_replicator(node)

    def stop_swift(self, node):
        """`systemctl disable --now swift-container-replicator`."""
        self.stage.stop_replicator(node)

    def clear_away(self):
        """`rm -r /srv/node/*/agent`, and what a purge of the package removes: state, and locks in the recon cache."""
        for node in self.stage.nodes:
            shutil.rmtree(node.drive / "agent")
            shutil.rmtree(node.home / "state")
            for lock in node.recon.glob("agent-*.lock"):
                lock.unlink()

    # --- the cluster ---

    def furnish(self):
        """Containers whose replicas differ, with deletions old and young, and a handoff with rows of its own."""
        for number, node in enumerate(self.stage.nodes):
            c = self.some_container(f"no-{node.number}", lambda c: node not in c.primaries)
            self.fill(c, c.primaries[0], rows(100))
            c.copy(c.primaries[0], *c.primaries[1:])
            self.fill(c, c.primaries[number % 3], rows(40, prefix="only-here"))
            self.fill(c, c.primaries[1], rows(30, deleted=1), later=1)
        self.fill(c, c.handoffs[0], rows(20, prefix="handoff"))
        c.merge(c.primaries[2], [dict(item, created_at=LONG_AGO) for item in rows(10, prefix="old", deleted=1)])

    def fill(self, container, node, items, later=0):
        """Rows on one replica, written a moment ago: no deletion among them may be forgotten yet."""
        for number, item in enumerate(items):
            item["created_at"] = Timestamp(time.time() - 2 + later + number / 1000).internal
            self.furnished[container, item["name"]] = (item["created_at"], bool(item["deleted"]), node)
        container.merge(node, items)

    def begin(self):
        """Swift's replicators everywhere, and clients."""
        self.stage.stop_agents()
        for node in self.stage.nodes:
            self.stage.write_conf(node, agent_passes="yes", agent_state_path=node.home / "state")
            self.start_swift(node)
        self.clients = Clients(self.play.containers, self.furnished)

    def newcomer(self, node, also=None):
        """A container that is created on this node only, while all else goes on; `also` is another that should hold it."""
        c = self.some_container(f"new-{len(self.play.containers)}", lambda c: {node, also or node} <= set(c.primaries))
        self.clients.put_container(c, node)

    def some_container(self, name, fits):
        """A container that will be judged at the end, with places that fit."""
        c = next(c for c in (Container(self.stage, f"{name}-{number}") for number in range(1000)) if fits(c))
        self.play.containers.append(c)
        return c

    def lose(self, container):
        """A replica goes, of which the others have everything."""
        self.clients.spare(container)
        self.all_is_kept("before a replica is lost")
        # In one moment, as nobody is to find half of it.
        container.directory(container.primaries[0]).rename(self.stage.home / "lost")
        shutil.rmtree(self.stage.home / "lost")
        self.clients.spare(None)

    def lacking_elsewhere(self, node):
        """What other nodes have not of all that this one was promised to keep."""
        promised = self.clients.promised([node])
        return [said for said in lacking(self.clients, promised, self.reclaim_age) if f"on {node}:" not in said]

    def end(self):
        """Writing ends, all is everywhere, and nobody runs any more; the judge has the last word."""
        self.clients.stop()
        self.all_is_kept("the end")
        deletions = [float(at) for at, deleted, _ in self.clients.acknowledged.values() if deleted]
        if self.reclaim_age < RECLAIM_AGE_OF_SWIFT:
            # Replicas that forget the last deletions each in its own time would differ until they all have.
            time.sleep(max(0, max(deletions) + self.reclaim_age + 1 - time.time()))
        self.stop()
        for _ in range(2):
            for node in self.stage.nodes:
                self.stage.swift_pass(node)
        for container in self.play.containers:
            container.remember()
        complaints = lacking(self.clients, self.clients.promised(), self.reclaim_age)
        expect(not complaints, "; ".join(complaints[:5]))
        print(f"     {len(self.clients.acknowledged)} objects acknowledged and kept, {len(deletions)} of them deleted", flush=True)

    def stop(self):
        """Nobody runs any more, whatever happened."""
        if self.clients:
            self.clients.rest()
        for node in self.stage.nodes:
            if replicator_of(node) in self.stage.servers:
                self.stop_swift(node)
        self.stage.stop_agents()

    # --- what must be so ---

    def all_is_kept(self, when, of=None):
        """What was acknowledged until now, by any node or by `of`, comes to all replicas while clients write on."""
        time.sleep(BETWEEN_SECONDS)
        promised = self.clients.promised(of)
        began = time.monotonic()
        while complaints := lacking(self.clients, promised, self.reclaim_age):
            waited = time.monotonic() - began
            expect(waited < STEP_SECONDS, f"{when}: after {waited:.0f} s {'; '.join(complaints[:4])}")
            time.sleep(0.3)

    def wait_until(self, holds, what):
        """Some things need a pass or two."""
        began = time.monotonic()
        while not holds():
            expect(time.monotonic() - began < STEP_SECONDS, f"not so after {STEP_SECONDS} s: {what}")
            time.sleep(0.3)

    def is_in_sync(self, node):
        """`agent status` there has nothing to complain of."""
        code, said = self.agent("status", node)
        return code == 0 and said["in_sync"] is True and not said["alarms"]

    def nobody_complains(self):
        """Every node is in sync by its own word, and reaches the agents of all others."""
        for node in self.stage.nodes:
            self.wait_until(lambda: self.is_in_sync(node), f"agent status of {node}: {self.agent('status', node)[1]['answer']}")
            complaints = self.complaints_of_peers(node)
            expect(not complaints, f"agent check on {node}: {complaints}")

    def complaints_of_peers(self, node):
        """What `agent check` there has against agents."""
        findings = self.agent("check", node)[1]["findings"]
        return [found for found in findings if found["subject"] == "peers" and found["verdict"] != "ok"]

    def hindered(self, node):
        """Peers that by `agent status` did not get everything, with what is in the way."""
        devices = self.agent("status", node)[1]["devices"]
        return {peer["peer"]: peer["hindered"]["cause"] for device in devices for peer in device["peers"] if peer["hindered"]}

    def agent(self, command, node):
        """What a command of ours says of a node, with its exit code."""
        line = [self.stage.agent, command, "--config", self.stage.conf(node), "--json"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        expect(done.stdout, f"agent {command} on {node} ended with {done.returncode}: {done.stderr[-1000:]}")
        return done.returncode, json.loads(done.stdout)

    def swift_minds_nothing(self):
        """Swift's auditor walks drives with our ledgers on them, and finds nothing to quarantine or to complain of."""
        for node in self.stage.nodes:
            expect((node.drive / "agent" / "ledger.db").exists(), f"{node} has no ledger, so that this proves nothing")
            auditor = self.stage.swift("swift-container-auditor", self.stage.conf(node), "--once", "--verbose")
            done = subprocess.run(auditor, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            complains = [word for word in ("ERROR", "Failed", "Traceback", "Quarantin") if word in done.stderr]
            expect("completed" in done.stderr and not complains, f"the auditor of {node} is not content: {done.stderr[-1500:]}")
            expect(not (node.drive / "quarantined").exists(), f"something was quarantined on {node}")

    def deletions_are_forgotten(self):
        """Some of those of the way there, everywhere: else it would prove little that none came undone."""
        def held():
            return {
                (c, item["name"]) for c in self.play.containers for node in c.primaries for item in rows_of(c, node)
            }  # fmt: skip
        self.wait_until(lambda: {what for what, how in self.furnished.items() if how[1]} - held(), "deletions are forgotten")

    def nothing_of_ours_is_left(self):
        """After what an operator removed, only what Swift knows is there."""
        for node in self.stage.nodes:
            left = {path.name for path in node.drive.iterdir()} - {"containers", "tmp"}
            expect(not left, f"left on the drive of {node}: {left}")
            left = {path.name for path in node.recon.iterdir()} - {"container.recon"}
            expect(not left, f"left in the recon cache of {node}: {left}")


def rows_of(container, node):
    """Every row of a replica, as Swift's broker has them."""
    with container.broker(node) as broker:
        return broker.get_items_since(-1, 10**9)
