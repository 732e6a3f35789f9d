"""The verdict: what Swift's broker, its tools, its recon code and a pass of its own replicator say of the outcome.

Each function returns complaints, so that one run tells all that is wrong. None of them trusts a figure that it can
recompute: hashes, counts and bytes are worked out anew from the rows.
"""

import hashlib
import re
import subprocess
import time

from container import opened, snapshot
from stage import COUNTERS
from swift.common.middleware.recon import ReconMiddleware

AGREED = (
    "rows hash put_timestamp delete_timestamp created_at deleted policy metadata shard_ranges object_count bytes_used policies"
).split()
"""What the replicas of a container must have in common."""

IDLE = ("diff", "rsync", "remote_merge", "diff_capped", "failure", "remove")
"""What Swift's replicator must not have had to do."""


def outcome(container):
    """Where the replicas are, whether each is whole and right in itself, and whether they agree with each other and the union."""
    complaints = []
    found = container.replicas()
    for node in container.stage.nodes:
        paths = found.get(node, [])
        if node in container.holders and len(paths) != 1:
            complaints.append(f"{node} should hold one database, and holds {len(paths)}")
        elif node in container.holders and paths[0].parent != container.directory(node):
            complaints.append(f"{node} holds it at {paths[0].parent.relative_to(node.drive)}, outside its partition")
        elif node not in container.holders and paths:
            complaints.append(f"{node} should hold no database, and still has {paths[0].relative_to(node.drive)}")
    taken = {}
    for node in container.holders:
        for path in found.get(node, [])[:1]:
            try:
                taken[node] = snapshot(path, container.name)
            except Exception as error:  # whatever Swift's broker throws at a database it cannot read
                complaints.append(f"Swift's broker cannot read the replica of {node}: {error!r}")
    for node, replica in taken.items():
        complaints += [f"{node}: {complaint}" for complaint in sound(replica)]
    complaints += agreement(container, taken)
    complaints += points(taken)
    return [f"{container.name}: {complaint}" for complaint in complaints]


def sound(replica):
    """One replica in itself."""
    complaints = []
    if replica["integrity"] != "ok":
        complaints.append(f"integrity check: {replica['integrity'][:200]}")
    if replica["hash"] != chexor(replica["rows"]):
        complaints.append(f"stored hash {replica['hash']} is not that of its rows, {chexor(replica['rows'])}")
    if len({(row[0], row[1]) for row in replica["rows"]}) != len(replica["rows"]):
        complaints.append("two rows have one name in one policy")
    counts = {}
    for policy, _name, _created, size, _etag, _type, _bytes, deleted in replica["rows"]:
        objects, used = counts.get(policy, (0, 0))
        counts[policy] = (objects + 1 - deleted, used + size)
    counts = {policy: count for policy, count in counts.items() if any(count)}
    if counts != replica["policies"]:
        complaints.append(f"policy_stat says {replica['policies']}, the rows say {counts}")
    for leftover in replica["path"].parent.iterdir():
        if leftover.name.endswith(("-journal", ".tmp")):
            complaints.append(f"left behind: {leftover.name}")
    return complaints


def agreement(container, taken):
    """All replicas with the union of what there was, or each with its own."""
    complaints = []
    own = container.content == "own"
    for node, replica in taken.items():
        for key in AGREED:
            if own and key in ("rows", "hash", "object_count", "bytes_used", "policies"):
                expected = container.before[node] if node in container.before else container.union
            else:
                expected = container.union
            if expected is None:
                return ["there was nothing readable to begin with"]
            wanted = container.overrides.get(key, expected[key])
            if replica[key] != wanted:
                complaints.append(f"{node}: {key} {difference(replica[key], wanted)}")
    ids = [replica["id"] for replica in taken.values()]
    if len(set(ids)) != len(ids):
        complaints.append(f"two replicas have one id: {ids}")
    return complaints


def points(taken):
    """A sync point above its owner's last row says of rows not yet written that they have arrived."""
    complaints = []
    last = {replica["id"]: replica["max_row"] for replica in taken.values()}
    for node, replica in taken.items():
        for remote, point in replica["incoming"].items():
            if point > last.get(remote, point):
                complaints.append(f"{node} claims rows up to {point} of a peer whose last row is {last[remote]}")
        for point in replica["outgoing"].values():
            if point > replica["max_row"]:
                complaints.append(f"{node} claims to have sent {point} rows, and has {replica['max_row']}")
    return complaints


def swift_finds_nothing_to_do(stage, containers, reconciles=False):
    """A pass of Swift's replicator over every node, between real container servers."""
    complaints = []
    before = _agreed(containers)
    for node in [stage.nodes[number - 1] for number in stage.ring.nodes]:
        done = stage.swift_pass(node)
        busy = {counter: done[counter] for counter in IDLE if done[counter]}
        if reconciles:  # the queue of the reconciler, which Swift's hook makes and ships while it is at it
            busy.pop("rsync", None), busy.pop("remove", None), busy.pop("diff", None)
        if busy:
            complaints.append(f"Swift's replicator on {node} still found work: {busy}")
        held = sum(node in container.holders for container in containers)
        if done["attempted"] < held:
            complaints.append(f"Swift's replicator on {node} saw {done['attempted']} databases of {held}")
    after = _agreed(containers)
    complaints += [f"Swift's pass changed {where}" for where in before if before[where] != after.get(where)]
    return complaints


def _agreed(containers):
    taken = {}
    for container in containers:
        for node in container.holders:
            try:
                replica = snapshot(container.file(node), container.name)
                taken[f"{container.name} on {node}"] = [replica[key] for key in AGREED]
            except Exception as error:
                taken[f"{container.name} on {node}"] = repr(error)
    return taken


def container_info(container):
    """`swift-container-info` reads every replica and prints its true counts."""
    complaints = []
    for node in container.holders:
        path = container.file(node)
        done = subprocess.run(
            container.stage.swift("swift-container-info", path, "--swift-dir", container.stage.etc),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode or not path.exists():
            complaints.append(f"swift-container-info fails on {node}: {done.stdout[-300:]}{done.stderr[-500:]}")
            continue
        said = dict(re.findall(r"^ +([A-Z][A-Za-z ]+): (.*)$", done.stdout, re.MULTILINE))
        with opened(path, container.name) as broker:
            rows = broker.get_items_since(-1, 10**9)
            policy = broker.get_info()["storage_policy_index"]
        live = [row for row in rows if not row["deleted"] and row.get("storage_policy_index", 0) == policy]
        expected = {
            "Object Count": str(container.overrides.get("object_count", len(live))),
            "Bytes Used": str(container.overrides.get("bytes_used", sum(row["size"] for row in live))),
        }
        wrong = {key: said.get(key) for key, value in expected.items() if said.get(key) != value}
        if wrong:
            complaints.append(f"swift-container-info on {node} says {wrong}, should say {expected}")
    return [f"{container.name}: {complaint}" for complaint in complaints]


def recon(done, since):
    """The recon file of a pass, through the code behind `GET /recon/replication/container`."""
    middleware = ReconMiddleware(None, {"recon_cache_path": str(done.node.recon)})
    said = middleware.get_replication_info("container")
    stats = said.get("replication_stats")
    if not isinstance(stats, dict):
        return [f"recon of {done.node} has no replication_stats: {said}"]
    complaints = []
    # Swift's merge of recon files drops a key whose new value is an empty dictionary.
    stats = {"failure_nodes": {}, **stats}
    wrong = {key: stats.get(key) for key in (*COUNTERS, "failure_nodes") if stats.get(key) != done.report.get(key)}
    if wrong:
        complaints.append(f"differs from the pass's own report: {wrong}")
    if not isinstance(said.get("replication_time"), (int, float)) or not 0 <= said["replication_time"] < 3600:
        complaints.append(f"replication_time is {said.get('replication_time')!r}")
    if not isinstance(said.get("replication_last"), float) or not since - 1 <= said["replication_last"] <= time.time() + 1:
        complaints.append(f"replication_last is {said.get('replication_last')!r}")
    if not isinstance(stats.get("start"), (int, float)) or not since - 1 <= stats["start"] <= time.time() + 1:
        complaints.append(f"start is {stats.get('start')!r}")
    return [f"recon of {done.node}: {complaint}" for complaint in complaints]


def chexor(rows):
    """The container hash from nothing (`swift/common/db.py: chexor`)."""
    total = 0
    for row in rows:
        total ^= int(hashlib.md5(f"{row[1]}-{row[2]}".encode()).hexdigest(), 16)
    return f"{total:032x}"


def difference(have, want):
    """Two values of a snapshot, told apart in a line."""
    if isinstance(have, list):
        lacking, extra = sorted(set(want) - set(have)), sorted(set(have) - set(want))
        return f"{len(lacking)} lacking (first {lacking[:1]}), {len(extra)} too many (first {extra[:1]})"
    return f"is {have!r}, should be {want!r}"


