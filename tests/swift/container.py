"""One container: where its replicas belong, and what Swift's own broker puts into them and reads out of them."""

import hashlib
import json
import pathlib
import shutil
import sqlite3
import tempfile
import time
from contextlib import contextmanager

from swift.common.ring import Ring
from swift.common.utils import Timestamp, extract_swift_bytes, hash_path, storage_directory
from swift.container.backend import ContainerBroker

ACCOUNT = "AUTH_judge"
NOW = int(time.time())
BASE = NOW - 86400
"""When containers and rows are born unless a scenario says otherwise: within reclaim_age."""
RECLAIM_AGE = 7 * 86400


def stamp(seconds):
    """The internal form of a time `seconds` after BASE."""
    return Timestamp(BASE + seconds).internal


def rows(count, first=0, prefix="photos", at=0, policy=0, deleted=0, **more):
    """`count` objects numbered from `first`, made one a second from `at`."""
    return [
        dict(
            name=f"{prefix}/{number:06d}.jpg",
            created_at=stamp(at + number),
            size=0 if deleted else 1000 + number,
            content_type="application/deleted" if deleted else "image/jpeg",
            etag="noetag" if deleted else hashlib.md5(f"{prefix}{number}{at}".encode()).hexdigest(),
            deleted=deleted,
            storage_policy_index=policy,
            **more,
        )
        for number in range(first, first + count)
    ]


class Container:
    """A container of the stage's ring, its replicas, and what they must have become in the end.

    `holders` and `content` are the expectation: which nodes hold it, and whether their rows are the `union` of what all
    replicas held before the agents ran (by Swift's own merge) or each replica's `own` (sharding defers rows). `overrides` are
    values of the snapshot for which neither is a model.
    """

    def __init__(self, stage, name, policy=0):
        self.stage, self.name, self.policy = stage, name, policy
        self.ring = Ring(str(stage.etc), ring_name="container")
        self.partition, devices = self.ring.get_nodes(ACCOUNT, name)
        self.primaries = [self._node(device) for device in devices]
        self.handoffs = [self._node(device) for device in self.ring.get_more_nodes(self.partition)]
        self.hash = hash_path(ACCOUNT, name)
        self.holders = list(self.primaries)
        self.content = "union"
        self.overrides = {}
        self.unreadable = set()
        self.before = {}
        self.union = None

    def _node(self, device):
        return next(node for node in self.stage.nodes if node.device == device["device"])

    # --- what a container server would do ---

    def directory(self, node, partition=None):
        """The hash directory on that node's drive."""
        partition = self.partition if partition is None else partition
        return node.drive / storage_directory("containers", partition, self.hash)

    def path(self, node, partition=None):
        """The database, as long as it never sharded."""
        return self.directory(node, partition) / f"{self.hash}.db"

    @contextmanager
    def broker(self, node, partition=None):
        """Swift's broker on this replica; it must exist."""
        with opened(self.path(node, partition), self.name) as broker:
            yield broker

    def create(self, *nodes, at=0, policy=None, partition=None):
        """An empty replica on each of these nodes."""
        for node in nodes or self.primaries:
            self.directory(node, partition).mkdir(parents=True)
            with self.broker(node, partition) as broker:
                broker.initialize(stamp(at), self.policy if policy is None else policy)
                born(broker, stamp(at))

    def merge(self, node, items, partition=None):
        """Rows straight into the database, the replica being made if need be."""
        if not self.path(node, partition).exists():
            self.create(node, partition=partition)
        with self.broker(node, partition) as broker:
            merge_all(broker, items)

    def pend(self, node, items):
        """Rows as a container server acknowledges them: into the pending file, the database to follow later."""
        with self.broker(node) as broker:
            for item in items:
                broker.put_record({**dict.fromkeys(("ctype_timestamp", "meta_timestamp")), **item})

    def copy(self, source, *targets, fresh=True):
        """The same file elsewhere, as a whole-file transfer leaves it: with an id of its own and the source's sync point."""
        for target in targets:
            self.directory(target).mkdir(parents=True, exist_ok=True)
            shutil.copy(self.path(source), self.path(target))
            if fresh:
                with self.broker(source) as broker:
                    source_id = broker.get_info()["id"]
                with self.broker(target) as broker:
                    broker.newid(source_id)

    def replicas(self):
        """Every database of this container there is on any drive, at whatever partition, by node."""
        found = {}
        for node in self.stage.nodes:
            for path in sorted(node.drive.glob(f"containers/*/{self.hash[-3:]}/{self.hash}/{self.hash}*.db")):
                found.setdefault(node, []).append(path)
        return found

    def file(self, node):
        """The database on that node: where it lies, or where it should."""
        return self.replicas().get(node, [self.path(node)])[0]

    # --- what must come of it ---

    def remember(self):
        """Notes, from copies, what each replica holds before the agents run, and merges it all with Swift's broker."""
        with tempfile.TemporaryDirectory(dir=self.stage.home) as scratch:
            scratch = pathlib.Path(scratch)
            union_path = scratch / "union" / f"{self.hash}.db"
            union_path.parent.mkdir()
            parts, self.before = [], {}
            for node, paths in self.replicas().items():
                if node in self.unreadable:
                    continue
                for number, path in enumerate(paths):
                    copy = scratch / f"{node.number}-{number}"
                    shutil.copytree(path.parent, copy)
                    parts.append((node, copy / path.name))
            if not parts:
                return
            with opened(union_path, self.name) as union:
                union.initialize(stamp(0), self.policy)
                for node, path in parts:
                    with opened(path, self.name) as broker:
                        info = broker.get_replication_info()
                        items = broker.get_items_since(-1, 10**9)
                        union.merge_shard_ranges(broker.get_all_shard_range_data())
                        union.update_metadata(broker.metadata)
                    taken = snapshot(path, self.name)
                    if all(taken["rows"] != other["rows"] for other in self.before.values()):
                        merge_all(union, items)
                    self._take_timestamps(union, info)
                    self.before[node] = taken
                union.reclaim(NOW - RECLAIM_AGE, NOW - 2 * RECLAIM_AGE)
            self.union = snapshot(union_path, self.name)

    def _take_timestamps(self, union, info):
        if not self.before:
            born(union, info["created_at"], info["put_timestamp"], info["delete_timestamp"])
        union.merge_timestamps(info["created_at"], info["put_timestamp"], info["delete_timestamp"])


@contextmanager
def opened(path, name):
    """Swift's broker on any file, closed at the end."""
    broker = ContainerBroker(str(path), account=ACCOUNT, container=name, stale_reads_ok=False)
    try:
        yield broker
    finally:
        if broker.conn:
            broker.conn.close()
            broker.conn = None


def born(broker, created_at, put_timestamp=None, delete_timestamp="0"):
    """Sets what initialize() takes from the clock, so that replicas differ in nothing but what the scenario says."""
    with broker.get() as conn:
        conn.execute(
            "UPDATE container_stat SET created_at = ?, put_timestamp = ?, delete_timestamp = ?",
            (created_at, put_timestamp or created_at, delete_timestamp),
        )
        conn.commit()


def merge_all(broker, items):
    """merge_items in the batches that Swift uses; it changes the dictionaries it is given."""
    for start in range(0, len(items), 10000):
        batch = [dict({"storage_policy_index": 0}, **item) for item in items[start : start + 10000]]
        for item in batch:
            item.pop("ROWID", None)
        broker.merge_items(batch)


def snapshot(path, name=None):
    """Everything of a replica that its peers must agree on, and what the judge looks at besides, through Swift's broker."""
    with opened(path, name) as broker:
        info = broker.get_replication_info()
        items = broker.get_items_since(-1, 10**9)
        taken = {
            "path": pathlib.Path(path),
            "rows": sorted(row(item) for item in items),
            "hash": info["hash"],
            "put_timestamp": info["put_timestamp"],
            "delete_timestamp": info["delete_timestamp"],
            "created_at": info["created_at"],
            "deleted": broker.is_deleted(),
            "policy": info.get("storage_policy_index", 0),
            "metadata": {key: tuple(value) for key, value in json.loads(info["metadata"] or "{}").items()},
            "shard_ranges": [tuple(sorted(found.items())) for found in broker.get_all_shard_range_data()],
            "object_count": info["count"],
            "bytes_used": info["bytes_used"],
            "policies": {
                index: (stats["object_count"], stats["bytes_used"])
                for index, stats in broker.get_policy_stats().items()
                if stats["object_count"] or stats["bytes_used"]
            },
            "id": info["id"],
            "max_row": info["max_row"],
            "incoming": {point["remote_id"]: point["sync_point"] for point in broker.get_syncs()},
            "outgoing": {point["remote_id"]: point["sync_point"] for point in broker.get_syncs(incoming=False)},
            "file": pathlib.Path(broker.db_file),
        }
    with sqlite3.connect(f"file:{taken['file']}?mode=ro", uri=True) as conn:
        taken["integrity"] = conn.execute("PRAGMA integrity_check").fetchone()[0]
    conn.close()
    return taken


def row(item):
    """An object row without its ROWID; content types with their spelling levelled, as Swift's merges do in passing."""
    content_type = extract_swift_bytes(item["content_type"])
    return (
        item.get("storage_policy_index", 0), item["name"], item["created_at"], item["size"], item["etag"],
        content_type[0], content_type[1] or "", item["deleted"],
    )  # fmt: skip
