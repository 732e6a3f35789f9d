"""Rings and builders that go to and fro: `agent ring` and swift-ring-builder work on the same files in turn.

Ours makes a builder; Swift's RingBuilder loads, validates and rebalances it further; ours takes it from there. After every
step Swift's own classes read both files, and must find in them what they would find in their own.
"""

from collections import Counter

from scenarios import expect, scenario
from swift.common.ring import Ring, RingBuilder

WIDE_ID = 70_000
"""An id that two bytes cannot hold."""

KEYS = set(RingBuilder(1, 1, 1).to_dict())
DEVICE_KEYS = set("id region zone ip port replication_ip replication_port device weight meta parts parts_wanted".split())

DEVICES = [
    "r1z1-10.0.0.1:6201R10.1.0.1:6301/sda_rack one",
    "r1z1-10.0.0.1:6201/sdb",
    "r1z2-10.0.0.2:6201/sda_\u00fc",
    "r2z1-[fe80::7]:6201R[fe80::8]:6301/sda",
    "r2z1-10.0.0.4:6201/sda",
    "r2z3-10.0.0.5:6201/sda",
]


@scenario(differs=False)
def rings_to_and_fro(play):
    """Three replicas, ring format v1."""
    yield from to_and_fro(play, 3)


@scenario(differs=False)
def rings_of_format_two(play):
    """Three replicas, ring format v2."""
    yield from to_and_fro(play, 3, version=2)


@scenario(differs=False)
def rings_of_a_fraction(play):
    """A replica for every other partition only."""
    yield from to_and_fro(play, 2.5)


@scenario(differs=False)
def rings_of_wide_ids(play):
    """Swift adds a device whose id takes four bytes; only format v2 has rings for those."""
    yield from to_and_fro(play, 3, version=2, wide=True)


def to_and_fro(play, replicas, version=1, wide=False):
    """The story of one ring."""
    play.stage.reset()
    home = play.stage.home / "builders" / f"{replicas}-{version}-{wide}"
    home.mkdir(parents=True)
    path = home / "container.builder"
    yield

    def ours(*arguments):
        play.replicator.ring_builder(path, *arguments)

    def rebalance():
        ours("rebalance", "--seed", "7", "--force", f"--format-version={version}")

    def step(word, marked=()):
        """Swift's eyes on both files, and what they hold."""
        return looked_at(path, word, marked, wide=wide and word != "made")

    ours("create", 7, replicas, 1)
    weights = ["100", "50.5", "100", "70", "0", "100"]
    ours("add", *[word for pair in zip(DEVICES, weights, strict=True) for word in pair])
    rebalance()
    expect(path.exists(), "create, add and rebalance left no builder")
    made = step("made")
    expect([dev["weight"] for dev in made.devs] == [float(weight) for weight in weights], f"weights are {made.devs}")
    expect([dev["meta"] for dev in made.devs] == ["rack one", "", "\u00fc", "", "", ""], f"meta is {made.devs}")
    expect(made.devs[3]["replication_ip"] == "fe80::8" and made.devs[3]["replication_port"] == 6301, f"{made.devs[3]}")
    expect(made.devs[1]["replication_ip"] == "10.0.0.1" and made.devs[1]["replication_port"] == 6201, f"{made.devs[1]}")
    play.stage.ring_builder(path, "validate")
    play.stage.ring_builder(path, "dispersion", "--recalculate")
    play.stage.ring_builder(path)

    # Swift goes on.
    theirs = RingBuilder.load(str(path))
    added = {"region": 2, "zone": 9, "ip": "10.0.0.9", "port": 6201, "device": "sdi", "weight": 120.0, "meta": "theirs"}
    added |= {"replication_ip": "10.0.0.9", "replication_port": 6201}
    added_id = theirs.add_dev(added | ({"id": WIDE_ID} if wide else {}))
    theirs.set_dev_weight(4, 60.0)
    theirs.pretend_min_part_hours_passed()
    moved = theirs.rebalance(seed=11)[0]
    expect(moved > 0, "Swift moved nothing")
    theirs.validate()
    theirs.save(str(path))
    theirs.get_ring().save(str(path.with_suffix(".ring.gz")), format_version=version)
    rows = [list(row) for row in theirs._replica2part2dev]
    just_moved = {part for part, hours in enumerate(theirs._last_part_moves) if hours == 0}
    step("moved by Swift")
    ours("validate")

    # Ours goes on; what Swift has moved within the hour stays where it is.
    ours("add", "r1z2-10.0.0.2:6201/sdnew", "100", "r1z7-10.0.0.77:6201/sdc", "90")
    rebalance()
    grown = step("grown")
    changed = {part for old, new in zip(rows, grown._replica2part2dev, strict=True) for part in range(len(old)) if old[part] != new[part]}
    expect(not changed & just_moved, f"partitions {sorted(changed & just_moved)} were moved twice within the hour")
    expect(bool(changed) or len(just_moved) == grown.parts, "nothing moved to the new devices")
    expect(grown.id == made.id, "the builder has another id")

    # A device marked by ours is removed by Swift, and the other way round.
    ours("remove", "d1", "--yes")
    marked = step("marked", marked={1})
    marked.rebalance(seed=12)
    marked.validate()
    expect(marked.devs[1] is None and not marked._remove_devs, "Swift did not remove what ours had marked")
    marked.remove_dev(0)
    marked.set_overload(0.2)
    marked.save(str(path))
    ours("pretend_min_part_hours_passed")
    rebalance()
    last = step("last")
    expect(last.devs[0] is None and not last._remove_devs, "ours did not remove what Swift had marked")
    expect(last.overload == 0.2 and last.version > grown.version, f"overload {last.overload}, version {last.version}")
    expect(last.devs[added_id]["meta"] == "theirs", f"{last.devs[added_id]}")
    last.pretend_min_part_hours_passed()
    last.rebalance(seed=13)
    last.validate()


def looked_at(path, word, marked, wide):
    """What Swift's classes say of a builder and its ring; the builder."""
    builder = RingBuilder.load(str(path))
    contents = builder.to_dict()
    expect(set(contents) == KEYS, f"{word}: keys {set(contents) ^ KEYS}")
    expect(isinstance(builder.replicas, float) and isinstance(builder.overload, float), f"{word}: {contents['replicas']!r}")
    expect(isinstance(builder.version, int) and len(builder.id) == 32, f"{word}: version {builder.version!r}, id {builder.id!r}")
    held = Counter(dev for row in builder._replica2part2dev for dev in row)
    for place, dev in enumerate(builder.devs):
        if dev is None:
            continue
        lacking = DEVICE_KEYS - {"parts_wanted"} - set(dev)
        expect(not lacking and not set(dev) - DEVICE_KEYS, f"{word}: keys of {dev}")
        expect(dev["id"] == place and dev["parts"] == held[place], f"{word}: {dev}, which holds {held[place]}")
        whole = [dev[key] for key in ("id", "region", "zone", "port", "replication_port", "parts")]
        expect(all(type(number) is int for number in whole), f"{word}: {dev}")
    for dev in builder._remove_devs:
        expect(dev is builder.devs[dev["id"]], f"{word}: the device marked for removal is not the one in the list: {dev}")
        expect(dev["weight"] == 0, f"{word}: {dev}")
    expect({dev["id"] for dev in builder._remove_devs} == set(marked), f"{word}: marked are {builder._remove_devs}")
    code, width = ("I", 4) if wide else ("H", 2)
    expect({row.typecode for row in builder._replica2part2dev} == {code}, f"{word}: rows of {builder._replica2part2dev[0].typecode}")
    expect(builder.dev_id_bytes == width, f"{word}: ids of {builder.dev_id_bytes} bytes")
    expect(builder._last_part_moves.typecode == "B" and len(builder._last_part_moves) == builder.parts, f"{word}: last moves")
    graph, dispersion = builder._dispersion_graph, builder.dispersion
    if not marked:
        builder.validate()
        expect(graph, f"{word}: no dispersion")
        if builder.replicas == int(builder.replicas):  # Swift counts only the partitions that the short row has
            builder._build_dispersion_graph()
            expect(graph == builder._dispersion_graph, f"{word}: dispersion graph {graph} is, for Swift, {builder._dispersion_graph}")
            expect(abs(dispersion - builder.dispersion) < 1e-9, f"{word}: dispersion {dispersion}, for Swift {builder.dispersion}")
            builder = RingBuilder.load(str(path))

    ring = Ring(str(path.parent), ring_name="container")
    expect(ring.partition_count == builder.parts, f"{word}: a ring of {ring.partition_count} partitions")
    rows = builder._replica2part2dev
    for part in range(builder.parts):
        want = [row[part] for row in rows if part < len(row)]
        have = [node["id"] for node in ring.get_part_nodes(part)]
        expect(have == list(dict.fromkeys(want)), f"{word}: partition {part} is on {have}, for the builder on {want}")
    for name in range(50):
        part, nodes = ring.get_nodes("AUTH_judge", f"container-{name}")
        holders = {dev for row in rows for dev in row}
        ids = {node["id"] for node in nodes} | {node["id"] for node in ring.get_more_nodes(part)}
        expect(ids == holders, f"{word}: nodes and handoffs are {ids}, holders {holders}")
        expect(all(node["weight"] == builder.devs[node["id"]]["weight"] or marked for node in nodes), f"{word}: {nodes}")
        expect(not {"parts", "parts_wanted"} & {key for node in nodes for key in node}, f"{word}: {nodes}")
    return builder
