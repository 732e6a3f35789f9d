"""Where things belong: `agent locate` and `swift-get-nodes` must name the same hash, partition, devices and paths, in the same order."""

import json
import random
import re
import subprocess
import sys
from dataclasses import dataclass

from scenarios import expect, scenario
from stage import BIN, SWIFT_AT, SWIFT_CONF, Failure

ITEMS = [
    ("AUTH_test",),
    ("ä ö",),
    ("AUTH_test", "photos"),
    ("AUTH_test", "名前 100%"),
    (".shards_AUTH_test", "photos-0123456789abcdef-1700000000.00000-4"),
    ("AUTH_test", "photos", "cat.jpg"),
    ("AUTH_test", "photos", "a/b//c/"),
    ("AUTH_test", "zwölf", "Käse & \N{CHEESE WEDGE}?.txt"),
]
RINGS = [
    # Format, partition power, replicas, devices.
    (1, 6, 3, 9),
    (1, 4, 2.5, 5),
    (2, 8, 3, 12),
    (2, 5, 1, 2),
]
SALTS = [
    SWIFT_CONF,
    "[swift-hash]\nswift_hash_path_suffix = nur \N{LATIN SMALL LETTER SHARP S}\n",
    "[swift-hash]\nswift_hash_path_prefix = only\n",
]


@dataclass
class Where:
    """What either of them says of one item."""

    hash: str
    partition: int
    primaries: list
    handoffs: list
    paths: list


def by_agent(agent, ring, item, all_handoffs):
    """From its JSON. No agent runs at these addresses: of a container it has to say that none can be asked."""
    command = [agent, "locate", "--ring", ring, "--json", *(["-a"] if all_handoffs else [])]
    if len(item) == 3:
        command += ["--policy", "1"]
    done = subprocess.run([*command, "--", *item], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if done.returncode != min(1, len(item) - 1):
        raise Failure(f"agent locate {item} ended with {done.returncode}: {done.stderr}")
    said = json.loads(done.stdout)
    place = said["object_location" if len(item) == 3 else "location"]
    spots = place["primaries"] + place["handoffs"]
    return Where(
        place["hash"], place["partition"],
        [f"{spot['ip']}:{spot['port']} {spot['device']}" for spot in place["primaries"]],
        [f"{spot['ip']}:{spot['port']} {spot['device']}" for spot in place["handoffs"]],
        [re.sub(r"/[0-9a-f]{32}\.db$", "", spot["path"].removeprefix("/srv/node/")) for spot in spots],
    )  # fmt: skip


def by_swift(stage, ring, item, all_handoffs):
    """From its lines."""
    options = ["-d", ring.parent, *(["-a"] if all_handoffs else [])]
    command = [sys.executable, SWIFT_AT, ring.parent, BIN / "swift-get-nodes", *options, ring, *item]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failure(f"swift-get-nodes {item} ended with {done.returncode}: {done.stderr}{done.stdout}")

    def each(pattern):
        return re.findall(pattern, done.stdout, re.MULTILINE)

    return Where(
        each(r"^Hash +\t(\S+)$")[0], int(each(r"^Partition\t(\d+)$")[0]),
        each(r"^Server:Port Device\t(\S+ \S+)$"), each(r"^Server:Port Device\t(\S+ \S+)\t \[Handoff\]$"),
        each(r"^ssh \S+ \"ls -lah \$\{DEVICE:-/srv/node\*\}/(.*)\"(?: # \[Handoff\])?$"),
    )  # fmt: skip


@scenario(differs=False)
def locate_as_swift_get_nodes(play):
    """Accounts, containers and objects of a policy, in rings of either format and any salt, are where swift-get-nodes has them."""
    stage = play.stage
    stage.reset()
    yield
    looked = 0
    for number, (version, part_power, replicas, devices) in enumerate(RINGS):
        etc = stage.home / f"locate-{number}"
        etc.mkdir()
        (etc / "swift.conf").write_text(
            SALTS[number % len(SALTS)] + "[storage-policy:0]\nname = gold\ndefault = yes\n[storage-policy:1]\nname = silver\n"
        )
        for name in ("account", "container", "object-1"):
            make_ring(stage, etc / f"{name}.builder", version, part_power, replicas, devices)
        # A second for each question to Swift: every other one, so that each ring has all kinds.
        for item in ITEMS[number % 2 :: 2]:
            ring = etc / f"{('account', 'container', 'object-1')[len(item) - 1]}.ring.gz"
            looked += 1
            ours, theirs = play.replicator.locate(stage, ring, item, all_handoffs=looked % 2 == 0)
            expect(theirs.primaries and len(theirs.paths) > len(theirs.primaries), f"swift-get-nodes is not understood: {theirs}")
            expect(ours == theirs, f"{item} in a v{version} ring: ours {ours}, swift-get-nodes {theirs}")
    expect(looked == len(RINGS) * len(ITEMS) // 2, f"only {looked} were looked at")


def make_ring(stage, builder, version, part_power, replicas, devices):
    """A few devices on a few servers in zones and regions, replication apart from clients; another seed for each name."""
    dice = random.Random(f"{builder.name}{version}{part_power}")
    stage.ring_builder(builder, "create", part_power, replicas, 1)
    added = []
    for device in range(devices):
        region, zone, port = 1 + device % 2, 1 + device % 3, 6200 + dice.randrange(3)
        ip = f"127.8.{zone}.{1 + device % 4}"
        added += [f"r{region}z{zone}-{ip}:{port}R127.9.{zone}.{1 + device % 4}:{port + 100}/sd{device}", str(dice.choice([50, 100, 300]))]
    stage.ring_builder(builder, "add", *added)
    stage.ring_builder(builder, "rebalance", "--seed", dice.randrange(1000), f"--format-version={version}")
