"""Clients of a cluster that never rest: objects put, overwritten and deleted through Swift's own container servers, over HTTP.

Each change goes to one replica only, picked by chance, as when the two others were busy: whatever the others have of it, a
replicator brought them. Every answer of success is an acknowledgement, and from then on what it acknowledged must be found.
"""

import http.client
import random
import threading
import time

from container import ACCOUNT
from stage import Failure
from swift.common.utils import Timestamp

PAUSE_SECS = 0.02
DELETED_OF_TEN, OVERWRITTEN_OF_TEN = 3, 2
METADATA_EVERY = 20


class Clients:
    """A thread that writes to `containers` (others may join them) until it is stopped; `acknowledged` is what it was promised."""

    def __init__(self, containers, acknowledged, seed=1):
        self.containers = list(containers)
        self.acknowledged = dict(acknowledged)
        """By container and name: when it was last written to, whether that was a deletion, and on which node."""
        self.metadata = {}
        """By container: when its metadata item was last set, which is its value too, and on which node."""
        self.deletes = True
        self._spared = None
        self.complaint = None
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put_container(self, container, node):
        """Creates it on one node, and nowhere else."""
        status = request("PUT", container, node, "", Timestamp.now().internal)
        if status != 201:
            raise Failure(f"PUT of {container.name} on {node}: {status}")
        self.containers.append(container)

    def promise(self, acknowledged):
        """What somebody else wrote."""
        with self._lock:
            self.acknowledged |= {what: how for what, how in acknowledged.items() if how[0] > self.acknowledged.get(what, ("",))[0]}

    def promised(self, of=None):
        """What was acknowledged so far, by any node or by these: of objects, and of metadata."""
        with self._lock:
            everything = dict(self.acknowledged), dict(self.metadata)
        return [{what: how for what, how in part.items() if of is None or how[-1] in of} for part in everything]

    def spare(self, container):
        """From now on this one is not written to."""
        with self._lock:
            self._spared = container

    def rest(self):
        """Ends the writing."""
        self._stop.set()
        self._thread.join()

    def stop(self):
        """Ends the writing; what went wrong with it is a failure."""
        self.rest()
        if self.complaint:
            raise Failure(self.complaint)

    def _write(self):
        try:
            while not self._stop.wait(PAUSE_SECS * self._random.random() * 2):
                self._write_one()
        except Exception as error:
            self.complaint = f"a client met with {error!r}"

    def _write_one(self):
        container = self._random.choice(self.containers)
        # A replica that was not brought yet answers 404, to be asked again later.
        node = self._random.choice(container.primaries)
        dice = self._random.randrange(10)
        alive = [name for (of, name), (_, deleted, _) in self.acknowledged.items() if of is container and not deleted]
        if alive and dice < DELETED_OF_TEN and self.deletes:
            method, name = "DELETE", self._random.choice(alive)
        elif alive and dice < DELETED_OF_TEN + OVERWRITTEN_OF_TEN:
            method, name = "PUT", self._random.choice(alive)
        else:
            method, name = "PUT", f"object-{self._number:06d}"
        self._number += 1
        with self._lock:
            if container is self._spared:
                return
            at = Timestamp.now().internal
            if request(method, container, node, name, at) // 100 == 2:
                self.acknowledged[container, name] = (at, method == "DELETE", node)
            if self._number % METADATA_EVERY == 0 and request("POST", container, node, "", at) // 100 == 2:
                self.metadata[container] = (at, node)


def request(method, container, node, name, at):
    """One request as a proxy or an object server sends it; the status of the answer."""
    connection = http.client.HTTPConnection(node.ip, node.port, timeout=20)
    headers = {"X-Timestamp": at}
    if name:
        headers |= {"X-Size": str(len(name)), "X-Content-Type": "text/plain", "X-Etag": "e" * 32}
    elif method == "POST":
        headers |= {"X-Container-Meta-Said": at}
    try:
        path = f"/{node.device}/{container.partition}/{ACCOUNT}/{container.name}"
        connection.request(method, f"{path}/{name}" if name else path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def lacking(clients, promised, reclaim_age):
    """Where what was promised is not so, or a deleted object is there; on each replica that should hold it."""
    objects, metadata = promised
    complaints = []
    for container in clients.containers:
        mine = {name: what for (of, name), what in objects.items() if of is container}
        for node in container.primaries:
            if not container.path(node).exists():
                complaints.append(f"{node} has no {container.name}")
                continue
            with container.broker(node) as broker:
                held = {item["name"]: item for item in broker.get_items_since(-1, 10**9)}
                said = broker.metadata.get("X-Container-Meta-Said", ("", ""))[0]
            if container in metadata and said < metadata[container][0]:
                complaints.append(f"{container.name} on {node}: metadata of {said!r}, acknowledged {metadata[container][0]}")
            wrong = [name for name, (at, deleted, _) in mine.items() if not is_kept(held.get(name), at, deleted, reclaim_age)]
            if wrong:
                complaints.append(
                    f"{container.name} on {node}: {len(wrong)} of {len(mine)} acknowledged objects are not as acknowledged,"
                    f" the first {wrong[0]}: {mine[wrong[0]]}, there {held.get(wrong[0])}"
                )
    return complaints


def is_kept(item, at, deleted, reclaim_age):
    """A row is as acknowledged, or newer; a deletion may have been forgotten once it was old enough."""
    if item is None:
        return deleted and float(at) < time.time() - reclaim_age
    if item["created_at"] > at:
        return True
    return item["created_at"] == at and bool(item["deleted"]) == deleted
