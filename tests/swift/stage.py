"""The cluster that a scenario plays on: four nodes on 127.0.0.1 to .4, one drive each, with a ring by Swift's builder.

Every node has one configuration file, as an operator would write it, that serves our agent, Swift's container server and
Swift's replicator alike. The container servers and the rsync daemon run from the first scenario to the last, also while the
agents work, as they would in a cluster; drives, ring and configuration are made anew for each scenario.
"""

import contextlib
import getpass
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from swift.common import utils

BIN = pathlib.Path(sys.executable).parent
SWIFT_AT = pathlib.Path(__file__).with_name("swift_at.py")
AGENT_PORT_OFFSET = 1000
STOP_SECONDS = 5
"""What the agent has to end after SIGTERM."""
START_SECONDS = 20
PASS_SECONDS = 180

SWIFT_CONF = """[swift-hash]
swift_hash_path_prefix = judge
swift_hash_path_suffix = 100%% sure
"""
ONE_POLICY = SWIFT_CONF + "[storage-policy:0]\nname = gold\ndefault = yes\n"
TWO_POLICIES = ONE_POLICY + "[storage-policy:1]\nname = silver\n"

COUNTERS = (
    "attempted success failure ts_repl no_change hashmatch rsync diff remove empty remote_merge diff_capped deferred".split()
)
"""Swift's names for what a pass counts (`swift/common/db_replicator.py: _zero_stats`)."""

OUR_COUNTERS = "failure_nodes opened elapsed bytes_sent bytes_received rows_sent delta full peak_anon_kib".split()


class Failure(Exception):
    """Something did not go as the scenario says it must."""


@dataclass(frozen=True)
class Node:
    """One storage node: an address, a drive, a configuration file."""

    number: int
    port: int
    home: pathlib.Path

    @property
    def ip(self):
        return f"127.0.0.{self.number}"

    @property
    def device(self):
        return f"sdb{self.number}"

    @property
    def drive(self):
        return self.home / "drives" / self.device

    @property
    def recon(self):
        return self.home / "recon"

    def __str__(self):
        return f"node {self.number}"


@dataclass
class Pass:
    """What one pass of one node said of itself."""

    node: Node
    exit_code: int
    report: dict
    log: str

    def __getitem__(self, counter):
        return self.report[counter]


@dataclass
class Ring:
    """How the ring of a scenario is built."""

    replicas: float = 3
    format_version: int = 1
    nodes: tuple = (1, 2, 3, 4)
    part_power: int = 4

    @property
    def name(self):
        return f"{self.replicas}-v{self.format_version}-{''.join(map(str, self.nodes))}-{self.part_power}"


@dataclass
class Stage:
    """Four nodes, the programs that run on them, and the directory that holds it all."""

    home: pathlib.Path
    agent: pathlib.Path
    options: dict = field(default_factory=dict)
    daemons: dict = field(default_factory=dict)
    servers: dict = field(default_factory=dict)
    offset: int = AGENT_PORT_OFFSET

    def __post_init__(self):
        port = free_port([f"127.0.0.{n}" for n in range(1, 5)], [0, AGENT_PORT_OFFSET, AGENT_PORT_OFFSET + 7])
        self.rsync_port = free_port(["127.0.0.1"], [0])
        self.nodes = [Node(n, port, self.home / f"node{n}") for n in range(1, 5)]
        self.etc = self.home / "etc"
        self.served = None

    # --- before the scenario ---

    def reset(self, ring=None, swift_conf=ONE_POLICY, fragments=False, **options):
        """Empty drives, and the ring and configuration that the scenario asks for."""
        self.stop_agents()
        self.ring = ring or Ring()
        self.options = options
        self.fragments = fragments
        self.offset = int(options.get("agent_port_offset", AGENT_PORT_OFFSET))
        shutil.rmtree(self.etc, ignore_errors=True)
        self.etc.mkdir(parents=True)
        (self.etc / "swift.conf").write_text(swift_conf)
        shutil.copy(self._ring_file(), self.etc / "container.ring.gz")
        for node in self.nodes:
            shutil.rmtree(node.home, ignore_errors=True)
            node.drive.mkdir(parents=True)
            node.recon.mkdir(parents=True)
            self.write_conf(node)
        # Container servers read both when they start.
        served = (swift_conf, options.get("mount_check"))
        if served != self.served:
            self.stop_swift()
            self.served = served
            utils.set_swift_dir(str(self.etc))

    def write_conf(self, node, **more):
        """The node's container-server.conf; `more` are options of its [container-replicator]."""
        options = {**self.options, **more}
        mount_check = options.pop("mount_check", "false")
        replicator = {"databases_per_second": "0", "interval": "30", "agent_passes": "no", **options}
        default = f"""[DEFAULT]
bind_ip = {node.ip}
bind_port = {node.port}
user = {getpass.getuser()}
swift_dir = {self.etc}
devices = {node.home}/drives
mount_check = {mount_check}
recon_cache_path = {node.recon}
log_level = INFO
workers = 0
disable_fallocate = true
"""
        server = f"""[pipeline:main]
pipeline = recon container-server

[app:container-server]
use = egg:swift#container

[filter:recon]
use = egg:swift#recon
recon_cache_path = {node.recon}
"""
        replication = (
            "[container-auditor]\n\n[container-replicator]\n"
            f"rsync_module = rsync://{{replication_ip}}:{self.rsync_port}/container_{{device}}\n"
            + "".join(f"{key} = {value}\n" for key, value in replicator.items())
        )
        conf = self.conf(node)
        if self.fragments:
            conf.mkdir(exist_ok=True)
            for name, text in (("00-default", default), ("10-server", server), ("20-replicator", replication)):
                (conf / f"{name}.conf").write_text(text)
            (conf / "99-notes.txt").write_text("not a fragment\n")
        else:
            conf.write_text("\n".join((default, server, replication)))

    def conf(self, node):
        """The path an operator would give with --config."""
        return self.etc / (f"node{node.number}.conf" + (".d" if self.fragments else ""))

    def _ring_file(self):
        """Made once for each recipe by swift-ring-builder."""
        made = self.home / "rings" / self.ring.name / "container.ring.gz"
        if not made.exists():
            made.parent.mkdir(parents=True)
            builder = made.parent / "container.builder"
            devices = []
            for number in self.ring.nodes:
                node = self.nodes[number - 1]
                devices += [f"r1z{number}-{node.ip}:{node.port}/{node.device}", "100"]
            self.ring_builder(builder, "create", self.ring.part_power, self.ring.replicas, 1)
            self.ring_builder(builder, "add", *devices)
            self.ring_builder(builder, "rebalance", "--seed", "1", f"--format-version={self.ring.format_version}")
        return made

    def ring_builder(self, builder, *arguments):
        """Swift's own builder; its exit code 1 is a warning."""
        done = subprocess.run(
            [BIN / "swift-ring-builder", builder, *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        if done.returncode > 1:
            raise Failure(f"swift-ring-builder {arguments}: {done.stdout}{done.stderr}")

    # --- our agents ---

    def start_agents(self, nodes=None):
        """A daemon on each node; which of them run passes is a matter of their configuration."""
        for node in nodes or self.nodes:
            log = open(node.home / "agent.log", "ab")
            self.daemons[node] = subprocess.Popen(
                [self.agent, "--config", self.conf(node)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            log.close()
        for node in nodes or self.nodes:
            self._wait_for(self.daemons[node], node.ip, node.port + self.offset, node.home / "agent.log")

    def stop_agents(self, nodes=None):
        """SIGTERM; whoever needs more than five seconds, or says anything but success, has failed."""
        stopping = [node for node in (nodes or self.nodes) if node in self.daemons]
        asked = time.monotonic()
        complaints = []
        for node in stopping:
            if self.daemons[node].poll() is None:
                self.daemons[node].send_signal(signal.SIGTERM)
            else:
                complaints.append(f"agent of {node} had ended by itself: {self.daemons[node].returncode}")
        for node in stopping:
            daemon = self.daemons.pop(node)
            try:
                code = daemon.wait(max(0.1, asked + STOP_SECONDS - time.monotonic()))
                if code != 0:
                    complaints.append(f"agent of {node} ended with {code} on SIGTERM")
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
                complaints.append(f"agent of {node} still ran {STOP_SECONDS} s after SIGTERM")
            if b"panicked" in (node.home / "agent.log").read_bytes():
                complaints.append(f"agent of {node} panicked: {tail(node.home / 'agent.log')}")
        if complaints:
            raise Failure("; ".join(complaints))

    def agent_pass(self, node, *arguments):
        """`agent --once --json`, as cron would run it."""
        command = [self.agent, "--config", self.conf(node), "--once", "--json", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PASS_SECONDS)
        with open(node.home / "pass.log", "a") as log:
            log.write(f"--- {' '.join(map(str, command))} -> {done.returncode}\n{done.stderr}{done.stdout}")
        if "panicked" in done.stderr or done.returncode not in (0, 1):
            raise Failure(f"pass of {node} ended with {done.returncode}: {done.stderr[-2000:]}")
        try:
            report = json.loads(done.stdout)
        except ValueError as error:
            raise Failure(f"pass of {node} printed no JSON object ({error}): {done.stdout[-500:]!r} {done.stderr[-1500:]}")
        lacking = {*COUNTERS, *OUR_COUNTERS} - set(report)
        if lacking:
            raise Failure(f"the JSON of {node}'s pass lacks {sorted(lacking)}")
        if (done.returncode == 0) != (report["failure"] == 0):
            raise Failure(f"pass of {node} ended with {done.returncode} but counted {report['failure']} failures")
        return Pass(node, done.returncode, report, done.stderr)

    def agent_ring(self, builder, *arguments):
        """`agent ring`, in swift-ring-builder's place; here too 1 is a warning."""
        command = [self.agent, "ring", builder, *map(str, arguments)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode > 1 or "panicked" in done.stderr:
            raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout}{done.stderr}")

    # --- the real Swift ---

    def start_swift(self):
        """Container servers and the rsync daemon they expect, unless they already run."""
        if not self.servers:
            self.start_rsync()
        starting = [node for node in self.nodes if node not in self.servers]
        for node in starting:
            conf = self.conf(node)
            self._spawn(node, self.swift("swift-container-server", conf))
        for node in starting:
            self._wait_for(self.servers[node], node.ip, node.port, self.home / f"{node}.log")

    def start_rsync(self):
        """The daemon that Swift's replicator ships whole files to, with a module for each drive."""
        conf = self.home / "rsyncd.conf"
        modules = "".join(
            f"[container_{node.device}]\npath = {node.home}/drives\nread only = false\nlock file = {self.home}/rsync{node.number}.lock\n"
            for node in self.nodes
        )
        owner = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
        conf.write_text(f"{owner}use chroot = false\nport = {self.rsync_port}\nlog file = {self.home}/rsyncd.log\n{modules}")
        rsync = ["rsync", "--daemon", "--no-detach", f"--config={conf}", "--address=0.0.0.0"]
        self._serve("rsync", rsync, "127.0.0.1", self.rsync_port)

    def start_replicator(self, node):
        """Swift's replicator as a daemon, passes every `interval`."""
        self._spawn(replicator_of(node), self.swift("swift-container-replicator", self.conf(node), "--verbose"))

    def stop_replicator(self, node):
        """It ends at once, in the middle of whatever it does; to find it ended by itself is a failure."""
        code = self.servers[replicator_of(node)].poll()
        self.stop_swift(replicator_of(node))
        if code is not None:
            raise Failure(f"the {replicator_of(node)} had ended by itself: {code}: {tail(self.home / f'{replicator_of(node)}.log')}")

    def stop_swift(self, *names):
        """All of it, or the container servers of some nodes."""
        stopping = names or list(self.servers)
        for name in stopping:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.servers[name].pid, signal.SIGTERM)
        for name in stopping:
            self.servers.pop(name).wait()

    def swift_pass(self, node):
        """A pass of Swift's own replicator; its counters come from the recon file that it leaves."""
        recon = node.recon / "container.recon"
        recon.unlink(missing_ok=True)
        done = subprocess.run(
            self.swift("swift-container-replicator", self.conf(node), "--once", "--verbose"),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PASS_SECONDS,
        )  # fmt: skip
        with open(node.home / "swift.log", "a") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode or not recon.exists():
            raise Failure(f"swift-container-replicator of {node} ended with {done.returncode}: {done.stderr[-2000:]}")
        stats = json.loads(recon.read_text())["replication_stats"]
        return Pass(node, int(stats["failure"] > 0), stats, done.stderr)

    def swift(self, program, *arguments):
        """The command line of one of Swift's programs, with our swift.conf."""
        return [sys.executable, SWIFT_AT, self.etc, BIN / program, *map(str, arguments)]

    def _serve(self, name, command, ip, port):
        self._spawn(name, command)
        self._wait_for(self.servers[name], ip, port, self.home / f"{name}.log")

    def _spawn(self, name, command):
        with open(self.home / f"{name}.log", "ab") as log:
            self.servers[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_for(self, process, ip, port, log):
        """Until something listens there."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise Failure(f"{process.args[:4]} ended with {process.returncode} at start: {tail(log)}")
            with contextlib.suppress(OSError), socket.create_connection((ip, port), 0.5):
                return
            time.sleep(0.02)
        raise Failure(f"nothing listens on {ip}:{port} after {START_SECONDS} s: {tail(log)}")

    def close(self):
        """Ends every process of ours."""
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()
        self.daemons.clear()
        self.stop_swift()


def replicator_of(node):
    """The name of its daemon."""
    return f"replicator of {node}"


def tail(path, length=2000):
    """The end of a log file."""
    return path.read_text(errors="replace")[-length:] if path.exists() else "(no log)"


def free_port(ips, offsets):
    """A port that is free, with each offset added, on all these addresses; below the kernel's ephemeral ports."""
    for _ in range(1000):
        port = random.randrange(10000, 30000)
        with contextlib.ExitStack() as held:
            try:
                for ip in ips:
                    for offset in offsets:
                        listener = held.enter_context(socket.socket())
                        listener.bind((ip, port + offset))
                return port
            except OSError:
                continue
    raise Failure("no free port")
