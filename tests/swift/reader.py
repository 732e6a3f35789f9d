"""A client that never stops reading: opens each database anew, checks it whole, and asks Swift's broker for its info.

    reader.py CONTAINER DATABASE...

Until SIGTERM. A database that is missing, damaged or at odds with itself at any moment ends it with a message and exit code 1.
"""

import pathlib
import signal
import sqlite3
import sys

from swift.container.backend import ContainerBroker


def check(path, container):
    """One look, in one read transaction, then one through Swift's broker."""
    conn = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=25, isolation_level=None)
    try:
        conn.execute("BEGIN")
        rows = conn.execute("SELECT count(*) FROM object WHERE deleted = 0").fetchone()[0]
        stat = conn.execute("SELECT sum(object_count) FROM policy_stat").fetchone()[0]
        damage = conn.execute("PRAGMA integrity_check").fetchone()[0]
        conn.execute("ROLLBACK")
    finally:
        conn.close()
    if damage != "ok":
        sys.exit(f"{path}: integrity check: {damage}")
    if rows != stat:
        sys.exit(f"{path}: {rows} rows, but policy_stat says {stat}")
    broker = ContainerBroker(str(path), account="AUTH_judge", container=container)
    try:
        broker.get_info()
    finally:
        if broker.conn:
            broker.conn.close()


if __name__ == "__main__":
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    looks = 0
    while not stopped:
        for database in sys.argv[2:]:
            check(pathlib.Path(database), sys.argv[1])
            looks += 1
    print(looks)
