"""Swift's own ring builder at one task of benches/rings, given as JSON on standard input; what it did as JSON on standard output.

The task: `start` (a builder file; absent for a new one), `create` (part power, replicas, hours; for a new one), `steps`,
`seed`, and where to leave the builder as it was before the rebalance (`prepared`), the builder after it (`builder`) and the
ring after it (`ring`). Only the rebalance is timed, as ours is.
"""

import json
import sys
import time

import swift
from swift.common.ring import RingBuilder


def change(builder, step):
    """One change of the operator's; `step` has one key, which says what."""
    (what, given), = step.items()
    if what == "add":
        builder.add_dev(given)
    elif what == "weight":
        builder.set_dev_weight(*given)
    elif what == "remove":
        builder.remove_dev(given)
    elif what == "replicas":
        builder.set_replicas(given)
    else:
        raise ValueError(what)


def main():
    task = json.load(sys.stdin)
    builder = RingBuilder.load(task["start"]) if "start" in task else RingBuilder(*task["create"])
    for step in task["steps"]:
        change(builder, step)
    builder.pretend_min_part_hours_passed()
    builder.save(task["prepared"])
    began = time.perf_counter()
    reassigned, balance, _ = builder.rebalance(seed=task["seed"])
    seconds = time.perf_counter() - began
    builder.validate()
    builder.save(task["builder"])
    builder.get_ring().save(task["ring"])
    json.dump({
        "version": swift.__version__,
        "seconds": seconds,
        "reassigned": reassigned,
        "balance": balance,
        "dispersion": builder.dispersion,
    }, sys.stdout)


if __name__ == "__main__":
    main()
