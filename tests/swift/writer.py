"""A container server's writes to one replica, in a process of its own.

    writer.py DATABASE CONTAINER NAME LOG PAUSE_SECS BATCH

Puts objects NAME/0, NAME/1, … through Swift's broker until it gets SIGTERM, with random pauses of up to PAUSE_SECS between
them, and adds to LOG a line `name seconds` once the broker has acknowledged it: how long it took is how long it had to wait.
With a BATCH of 0 a row goes into the pending file, and every now and then a read takes that in, as listings do; otherwise rows
are merged into the database directly, BATCH at a time. Ends quietly when the database is gone: a container server answers 404.
"""

import random
import signal
import sys
import time

from swift.common.db import DatabaseConnectionError
from swift.common.utils import Timestamp
from swift.container.backend import ContainerBroker

READ_EVERY = 200


def row(name):
    """An object as merge_items takes it."""
    return dict(
        name=name, created_at=Timestamp.now().internal, size=1, content_type="text/plain", etag="e" * 32,
        deleted=0, storage_policy_index=0, ctype_timestamp=None, meta_timestamp=None,
    )  # fmt: skip

if __name__ == "__main__":
    database, container, name, log, pause_secs, batch = sys.argv[1:7]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    number = 0
    with open(log, "a", buffering=1) as acknowledged:
        while not stopped:
            names = [f"{name}/{number + n}" for n in range(int(batch) or 1)]
            broker = ContainerBroker(database, account="AUTH_judge", container=container)
            began = time.monotonic()
            try:
                if int(batch):
                    broker.merge_items([row(name) for name in names])
                else:
                    broker.put_object(names[0], Timestamp.now().internal, 1, "text/plain", "e" * 32)
                waited = time.monotonic() - began
                acknowledged.write("".join(f"{name} {waited:.4f}\n" for name in names))
                if number % READ_EVERY == READ_EVERY - 1:
                    broker.get_info()
            except (DatabaseConnectionError, FileNotFoundError):
                # Who waited for the directory's lock while it was removed finds no directory: refused, not acknowledged.
                break
            finally:
                if broker.conn:
                    broker.conn.close()
            number += len(names)
            if float(pause_secs):
                time.sleep(random.random() * float(pause_secs))
