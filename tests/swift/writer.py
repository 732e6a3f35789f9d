"""A container server's writes to one replica, in a process of its own.

    writer.py DATABASE CONTAINER NAME LOG PAUSE_SECS

Puts objects NAME/0, NAME/1, … through Swift's broker until it gets SIGTERM, with random pauses of up to PAUSE_SECS between
them, and adds to LOG a line `name seconds` once the broker has acknowledged it. Every now and then it reads, which takes the
pending file in, as listings do. Ends quietly when the database is gone: a container server answers 404 for that.
"""

import random
import signal
import sys
import time

from swift.common.db import DatabaseConnectionError
from swift.common.utils import Timestamp
from swift.container.backend import ContainerBroker

READ_EVERY = 200

if __name__ == "__main__":
    database, container, name, log, pause_secs = sys.argv[1:6]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    number = 0
    with open(log, "a", buffering=1) as acknowledged:
        while not stopped:
            broker = ContainerBroker(database, account="AUTH_judge", container=container)
            began = time.monotonic()
            try:
                broker.put_object(f"{name}/{number}", Timestamp.now().internal, 1, "text/plain", "e" * 32)
                waited = time.monotonic() - began
                acknowledged.write(f"{name}/{number} {waited:.4f}\n")
                if number % READ_EVERY == READ_EVERY - 1:
                    broker.get_info()
            except DatabaseConnectionError:
                break
            finally:
                if broker.conn:
                    broker.conn.close()
            number += 1
            if float(pause_secs):
                time.sleep(random.random() * float(pause_secs))
