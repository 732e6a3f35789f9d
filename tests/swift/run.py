"""Runs the scenarios and prints, at the end, the line `N passed, N failed`.

    run.py [--agent BINARY] [-k WORD] [--keep DIR]     the agents at work, judged by Swift
    run.py --prove                                     no agents: the judge must object wherever the start differs
    run.py --swift                                     Swift's own replicator in the agents' place

`--prove` shows that the judge can fail, `--swift` that it can pass, and that what we call Swift's weaknesses are.
"""

import argparse
import inspect
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

import judge
import live  # noqa: F401 (registers its scenarios)
import locate
import migration  # noqa: F401 (likewise)
import ringbuilder  # noqa: F401 (likewise)
import rings  # noqa: F401 (likewise)
from scenarios import SCENARIOS, Play
from stage import COUNTERS, Failure, Pass, Stage


class Agents:
    """Our daemons on every node, and passes by `agent --once`."""

    is_agent = True

    def __init__(self, stage):
        self.stage = stage
        self.ring_command = [stage.agent, "ring"]

    def ready(self):
        self.stage.start_agents([self.stage.nodes[number - 1] for number in self.stage.ring.nodes])

    def one_pass(self, node):
        return self.stage.agent_pass(node)

    def ring_builder(self, builder, *arguments):
        self.stage.agent_ring(builder, *arguments)

    def stop(self, node):
        self.stage.stop_agents([node])

    def start(self, node):
        self.stage.start_agents([node])

    def locate(self, stage, ring, item, all_handoffs):
        return locate.by_agent(stage.agent, ring, item, all_handoffs), locate.by_swift(stage, ring, item, all_handoffs)

    def done(self):
        self.stage.stop_agents()


class SwiftItself:
    """Swift's replicator in their place, to try the scenarios and the judge."""

    is_agent = False

    def __init__(self, stage):
        self.stage = stage
        self.ring_command = stage.swift("swift-ring-builder")

    def ready(self):
        self.stage.start_swift()

    def one_pass(self, node):
        return self.stage.swift_pass(node)

    def ring_builder(self, builder, *arguments):
        self.stage.ring_builder(builder, *arguments)

    def stop(self, node):
        self.stage.stop_swift(node)

    def start(self, node):
        self.stage.start_swift()

    def locate(self, stage, ring, item, all_handoffs):
        return locate.by_swift(stage, ring, item, all_handoffs), locate.by_swift(stage, ring, item, all_handoffs)

    def done(self):
        pass


class Idle:
    """Agents that do nothing and say that all went well."""

    is_agent = True
    ring_command = ["true"]

    def one_pass(self, node):
        return Pass(node, 0, {**dict.fromkeys(COUNTERS, 0), "rows_sent": 0, "failure_nodes": {}}, "")

    def locate(self, stage, ring, item, all_handoffs):
        return None, locate.by_swift(stage, ring, item, all_handoffs)

    def ring_builder(self, builder, *arguments):
        pass

    def stop(self, node):
        pass

    start = stop


def play(scenario, stage, replicator):
    """One scenario from its first word to the verdict; raises Failure with every complaint."""
    began = time.time()
    act = Play(stage, replicator)
    steps = scenario(act)
    next(steps)
    for container in act.containers:
        container.remember()
    stage.start_swift()
    replicator.ready()
    try:
        for _ in steps:
            pass
    finally:
        replicator.done()
    complaints = [complaint for container in act.containers for complaint in judge.outcome(container)]
    if replicator.is_agent:
        last = {done.node: done for done in act.passes if "elapsed" in done.report}
        complaints += [complaint for done in last.values() for complaint in judge.recon(done, began)]
    for container in act.containers[:2]:
        complaints += judge.container_info(container)
    if not complaints:
        complaints = judge.swift_finds_nothing_to_do(stage, act.containers, act.reconciles)
    if complaints:
        raise Failure("\n    ".join(complaints[:12]))


def prove(scenario, stage):
    """With idle agents the judge must object to every start that differs, and the scenario's own points to every other."""
    act = Play(stage, Idle())
    steps = scenario(act)
    next(steps)
    for container in act.containers:
        container.remember()
    complaints = [complaint for container in act.containers for complaint in judge.outcome(container)]
    if scenario.differs and not complaints:
        raise Failure("the judge finds nothing wrong with a start that differs")
    if not scenario.differs:
        if complaints:
            raise Failure("the judge objects to an equal start: " + "; ".join(complaints[:5]))
        try:
            for _ in steps:
                pass
        except Failure as caught:
            return str(caught)
        raise Failure("the scenario is content with agents that do nothing")
    return complaints[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", type=pathlib.Path, help="the binary under test")
    parser.add_argument("--prove", action="store_true", help="show that the judge can fail")
    parser.add_argument("--swift", action="store_true", help="Swift's replicator in the agents' place")
    parser.add_argument("-k", default="", help="only scenarios whose name contains this")
    parser.add_argument("--keep", type=pathlib.Path, help="leave the cluster of the last scenario in this directory")
    arguments = parser.parse_args()
    agents_needed = not (arguments.prove or arguments.swift)
    if agents_needed and not (arguments.agent and arguments.agent.exists()):
        parser.error(f"there is no agent at {arguments.agent}: cargo build --release first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="swiftlet-judge-"))
    home.mkdir(parents=True, exist_ok=True)
    stage = Stage(home.resolve(), arguments.agent and arguments.agent.resolve())
    replicator = SwiftItself(stage) if arguments.swift else Agents(stage)
    passed, failed = 0, 0
    try:
        for name, scenario in SCENARIOS.items():
            if arguments.k not in name:
                continue
            began = time.monotonic()
            try:
                said = prove(scenario, stage) if arguments.prove else play(scenario, stage, replicator)
                complaint = None
            except Failure as failure:
                complaint = str(failure)
            except Exception:
                complaint = traceback.format_exc()
            if arguments.swift and scenario.swift_fails:
                wanted = scenario.swift_fails
                complaint = None if complaint else f"Swift passed what is held to be its weakness, {wanted}"
            if arguments.swift and scenario.swift_may_fail and complaint:
                print(f"     {name}: as Swift may: {complaint[:300]}")
                complaint = None
            passed, failed = passed + (complaint is None), failed + (complaint is not None)
            print(f"{'ok  ' if complaint is None else 'FAIL'} {name} ({time.monotonic() - began:.1f} s)", flush=True)
            if arguments.prove and not complaint:
                print(f"     caught: {said[:200]}", flush=True)
            if complaint:
                print(f"    {inspect.getdoc(scenario)}\n    {complaint}", flush=True)
    finally:
        stage.close()
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
