"""Live files: passes run while writers in other processes insert as fast as they can, on every replica, and readers look on.

Each container starts with a replica so far behind that bringing it up means a whole file or most of one, installed over a
database that is being written to at that moment: where Swift itself loses rows (`swift-facts.md`, 13.2 and 13.3).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from scenarios import Writer, acknowledged, expect, rows, scenario

CONTAINERS = 2
SECONDS = float(os.environ.get("SWIFTLET_LIVE_SECONDS", 20))
"""How long writers write, over all containers."""
ALONE_SECONDS = 1
"""How long they write before the first pass: what they wait for each other is no fault of ours."""
LONGEST_WAIT_SECS = 5
"""No writer may wait for the length of a transfer, however crowded the machine."""


@scenario(swift_may_fail=True)
def live_writers(play):
    """No acknowledged row is lost, no reader meets a damaged file, no writer an error, whatever is installed meanwhile."""
    play.stage.reset()
    everyone = [play.container(f"live-{number}") for number in range(CONTAINERS)]
    for number, c in enumerate(everyone):
        behind = c.primaries[number % 3]
        ahead = [node for node in c.primaries if node != behind]
        c.merge(ahead[0], rows(5000))
        c.copy(ahead[0], behind)
        c.merge(ahead[0], rows(15000, first=5000))
        c.merge(behind, rows(300, prefix="only-here"))
        c.copy(ahead[0], ahead[1])
    yield
    alone, waits, looks, passes = [0], [], 0, 0
    for c in everyone:
        log = {node: node.home / f"acknowledged-{c.name}" for node in c.primaries}
        writers = [Writer(c, node, f"put-{node.number}", log[node]) for node in c.primaries]
        writers.append(Writer(c, c.primaries[0], "merged", log[c.primaries[0]], batch=8))
        writers.append(Writer(c, c.primaries[2], "merged-too", log[c.primaries[2]], pause_secs=0.02, batch=5))
        reader = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("reader.py"), c.name, *(c.path(node) for node in c.primaries)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            time.sleep(ALONE_SECONDS)
            alone += [waited for path in log.values() for _name, waited in acknowledged(path)]
            until = time.monotonic() + SECONDS / CONTAINERS
            while time.monotonic() < until:
                for node in c.primaries:
                    play.one_pass(node, may_fail=True)
                    passes += 1
        finally:
            for writer in writers:
                writer.process.terminate()
            reader.terminate()
            said, complaint = reader.communicate()
        for writer in writers:
            writer.stop()
        expect(reader.returncode == 0, f"a reader failed: {complaint[-1500:]}")
        looks += int(said)
        play.round()
        play.round()
        noted = [line for path in log.values() for line in acknowledged(path)]
        for node in c.primaries:
            with c.broker(node) as broker:
                held = {item["name"] for item in broker.get_items_since(-1, 10**9)}
            lost = [name for name, _waited in noted if name not in held]
            expect(not lost, f"{c.name}: {len(lost)} of {len(noted)} acknowledged rows are not on {node}, the first {lost[:1]}")
        waits += [waited for _name, waited in noted]
        c.remember()
    print(
        f"     live: {len(waits)} rows acknowledged and kept over {passes} passes, {looks} looks of readers,"
        f" longest wait of a writer {max(waits):.3f} s (before the first pass {max(alone):.3f} s)",
        flush=True,
    )
    expect(max(waits) < LONGEST_WAIT_SECS, f"a writer waited {max(waits):.2f} s")
