#!/usr/bin/env bash
# Installs the package on two nodes, each a Debian 12 with a systemd of its own and with no network but a loopback that they share;
# has one bring its databases to the other; kills it, upgrades it while it runs, removes and purges it; and proves that the
# purge leaves nothing.
#
# Of the network it needs a Debian mirror, the one that apt knows. What it starts ends with it, what it makes is removed.
set -euo pipefail
cd "$(dirname "$0")/../.."

cannot() {
    echo "cannot be proved here: $*"
    exit 77
}

say() { printf '%s\n' "- $*"; }

fail() {
    for node in 1 2; do
        [[ -n ${leader[$node]:-} ]] || continue
        echo "---- journal of node $node" >&2
        on $node journalctl --no-pager -n 40 -u agent -u agent-once -u agent-once.timer >&2 || true
    done
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# on NODE COMMAND...: as root of that node.
on() {
    local node=$1
    shift
    nsenter --target "${leader[$node]}" --mount --uts --ipc --pid --root --wd -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

property() { on "$1" systemctl show --value --property "$3" "$2"; }

# within SECONDS WHAT COMMAND...
within() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < until)) || fail "$what: not in time"
        sleep 0.2
    done
}

is() { [[ $(property "$1" "$2" "$3") == "$4" ]]; }
expect() { is "$@" || fail "node $1, $2: $3 is $(property "$1" "$2" "$3"), not $4"; }
no_unit_failed() {
    local failed
    failed=$(on "$1" systemctl --failed --plain --no-legend)
    [[ $failed == "${failed_before[$1]}" ]] || fail "node $1 has failed units: $failed"
}

# The files of a node, and who is a user of it. Less what is no file (proc, dev, ...), and what dpkg, systemd and others keep of
# any package or for themselves: logs, lists of what is installed, caches, random seeds, when a timer last ran, former lists of users.
tree() {
    local words=() path
    for path in proc sys dev run tmp var/log var/lib/dpkg var/lib/apt var/cache/apt var/cache/debconf var/cache/ldconfig \
        var/backups var/lib/systemd/random-seed 'var/lib/systemd/timers/stamp-[!a]*' 'var/lib/systemd/timers/stamp-apt*' \
        etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/.pwd.lock etc/.updated var/.updated; do
        words+=(-path "./$path" -o)
    done
    (cd "$work/node$1" && find . \( "${words[@]}" -false \) -prune -o -printf '%p %y %m %U:%G %l\n' | sort)
    (cd "$work/node$1" && sort etc/passwd etc/group etc/shadow etc/gshadow)
}

boot() {
    local node=$1 own=
    # Where no systemd runs there is nobody who would make a control group for it.
    if [[ ! -d /run/systemd/system ]]; then
        for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
            [[ -e $root/cgroup.procs ]] && mkdir "$root/swiftlet-$$-$node" && own+=" $root/swiftlet-$$-$node"
        done
        groups+=" $own"
    fi
    (
        for group in $own; do echo $BASHPID >"$group/cgroup.procs"; done
        exec systemd-nspawn --quiet --boot --directory="$work/node$node" --machine="swiftlet-$$-$node" --register=no \
            ${own:+--keep-unit} --console=read-only </dev/null >"$work/console$node" 2>&1
    ) &
    nspawn[node]=$!
    local until=$((SECONDS + 60))
    until leader[node]=$(pgrep -P "${nspawn[node]}") && has_booted "$node"; do
        ((SECONDS < until)) && kill -0 "${nspawn[node]}" 2>/dev/null || {
            cat "$work/console$node"
            leader[node]=
            cannot "systemd does not boot in a container"
        }
        sleep 0.2
    done
}

# The container has no time server and no network: "degraded" by such units is as good as "running".
has_booted() {
    local state
    state=$(on "$1" systemctl is-system-running 2>/dev/null) || true
    [[ $state == running || $state == degraded ]]
}

shut_down() {
    for node in 1 2; do
        [[ -n ${nspawn[node]:-} ]] || continue
        kill -TERM "${nspawn[node]}" 2>/dev/null || true
        for _ in {1..100}; do kill -0 "${nspawn[node]}" 2>/dev/null && sleep 0.1 || break; done
        kill -KILL "${nspawn[node]}" 2>/dev/null || true
        wait "${nspawn[node]}" 2>/dev/null || true
        nspawn[node]=
    done
    for group in $groups; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

# ---------------------------------------------------------------- what has to be there

if [[ ${1:-} != --in-a-network-of-its-own ]]; then
    [[ $EUID -eq 0 ]] || cannot "needs root"
    command -v apt-get >/dev/null || cannot "needs apt-get"
    missing=()
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v pgrep >/dev/null || missing+=(procps)
    if ((${#missing[@]})); then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
            cannot "cannot install ${missing[*]}"
    fi
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' 'Origin: Debian' | head -n 1)
    [[ -n $mirror ]] || cannot "apt knows no mirror of Debian 12"
    unshare --net --mount true || cannot "needs the right to make name spaces"

    work=$(mktemp -d "${TMPDIR:-/tmp}/swiftlet-package-XXXXXX")
    trap 'rm -rf --one-file-system "$work"' EXIT
    packaging/deb.sh --quiet
    cp target/debian/swiftlet_*.deb "$work/first.deb"
    cargo deb --quiet --no-build --no-dbgsym --fast --deb-version 9999.0-1 --output "$work/second.deb" >/dev/null
    cp "$work/first.deb" "target/debian/$(dpkg-deb --showformat '${Package}_${Version}_${Architecture}' --show "$work/first.deb").deb"
    cp target/release/agent "$work/agent"
    say "debootstrap of a minimal Debian 12"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,adduser bookworm "$work/node1" "$mirror" >"$work/debootstrap" ||
        { tail -n 5 "$work/debootstrap"; cannot "debootstrap failed"; }
    # From here on there is nothing to fetch from.
    rm -f "$work/node1/etc/apt/sources.list"
    cp -a --reflink=auto "$work/node1" "$work/node2"
    code=0
    unshare --net bash "$0" --in-a-network-of-its-own "$work" || code=$?
    exit $code
fi

work=$2
declare -a leader=() nspawn=() failed_before=()
groups=
trap shut_down EXIT
ip link set lo up

# ---------------------------------------------------------------- two nodes, not configured

for node in 1 2; do
    boot $node
    failed_before[$node]=$(on $node systemctl --failed --plain --no-legend)
    cp "$work"/{first,second}.deb "$work/node$node/root/"
    tree $node >"$work/before$node"
done
say "two nodes run systemd $(on 1 systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')"

for node in 1 2; do
    on $node dpkg -i /root/first.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "node $node: installing"; }
    expect $node agent.service LoadState loaded
    expect $node agent.service UnitFileState disabled
    expect $node agent-once.timer UnitFileState disabled
    expect $node agent.service ActiveState inactive
    on $node getent passwd swift >/dev/null || fail "node $node: no user swift"
    no_unit_failed $node
done
units=(/usr/lib/systemd/system/agent{.service,-once.service,-once.timer})
said=$(on 1 systemd-analyze verify "${units[@]}" 2>&1) && [[ -z $said ]] ||
    fail "systemd-analyze verify: $said"
for unit in "${units[@]:0:2}"; do
    on 1 systemd-analyze security --offline=true --threshold=15 "$unit" >"$work/security" || { cat "$work/security"; fail "$unit"; }
done
say "installed without network: nothing is enabled or started, the user swift is there, units verify in silence"

on 1 systemctl start agent agent-once || fail "a start where Swift is not configured is a failure"
expect 1 agent.service ActiveState inactive
expect 1 agent.service ConditionResult no
no_unit_failed 1
say "started where Swift is not configured: quiet, and no failure"

# ---------------------------------------------------------------- configured, enabled, at work

# Databases that differ in size and age, and their hash prefix.
"$work/agent" demo --keep "$work/demo" >"$work/demo.log" 2>&1 || { tail "$work/demo.log"; fail "agent demo"; }
(
    cd "$work"
    ./agent ring container.builder create 5 2 1
    ./agent ring container.builder add r1z1-127.0.0.11:6201/d1 100 r1z2-127.0.0.12:6201/d1 100
    ./agent ring container.builder rebalance
) >"$work/ring.log" || { cat "$work/ring.log"; fail "agent ring"; }
for node in 1 2; do
    root=$work/node$node
    mkdir -p "$root/etc/swift" "$root/srv/node/d1/containers"
    cp "$work/demo/etc/swift.conf" "$work/container.ring.gz" "$root/etc/swift/"
    cat >"$root/etc/swift/container-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1$node
bind_port = 6201
mount_check = false
[container-replicator]
interval = 1
CONF
done
cp -a "$work/demo/node2/drives/d2/containers/." "$work/node1/srv/node/d1/containers/"
databases() { (cd "$work/node$1/srv/node/d1/containers" && find . -name '*.db' | sort); }
databases 1 >"$work/databases"
many=$(wc -l <"$work/databases")
((many > 5)) || fail "the demo left $many databases"
for node in 1 2; do on $node chown -R swift:swift /srv/node; done

serves() { (exec 3<>"/dev/tcp/127.0.0.1$1/7201") 2>/dev/null; }
tells_of_a_pass() {
    told=$(property "$1" agent.service StatusText)
    [[ $told == "last pass: "* ]]
}
for node in 2 1; do
    on $node systemctl enable --now --quiet agent || fail "node $node: enable --now"
    # Type=notify: `start` came back, so it serves.
    serves $node || fail "node $node: ready, and does not serve"
    expect $node agent.service ActiveState active
    expect $node agent.service User swift
    within 30 "node $node: a status of a pass" tells_of_a_pass $node
done
say "enabled and started, both serve; Status: $told"

brought() { [[ $(databases 2) == "$(cat "$work/databases")" ]]; }
within 60 "databases on the other node" brought
agree() {
    local database names
    while read -r database; do
        names=$(on 1 runuser -u swift -- agent info --json "/srv/node/d1/containers/$database" |
            sed -n 's/.*"account":"\([^"]*\)".*"container":"\([^"]*\)".*/\1 \2/p')
        [[ -n $names ]] || fail "agent info says nothing of $database"
        # Two words: an account and a container.
        # shellcheck disable=SC2086
        on 2 runuser -u swift -- agent locate $names >"$work/locate" 2>&1 || return 1
    done <"$work/databases"
}
within 30 "replicas that agree" agree
say "$many databases came to the other node, and agree there"

# ---------------------------------------------------------------- killed

killed=$(property 1 agent.service MainPID)
on 1 sh -c "kill -KILL $killed"
restarted() { is 1 agent.service ActiveState active && is 1 agent.service NRestarts 1; }
within 40 "it comes back after kill -9" restarted
[[ $(property 1 agent.service MainPID) != "$killed" ]] && serves 1 || fail "it came back as $killed"
say "killed, and back by itself"

# ---------------------------------------------------------------- passes from a timer

on 1 systemctl enable --now --quiet agent-once.timer
expect 1 agent-once.timer ActiveState active
on 1 systemctl start agent-once || fail "a pass beside the daemon"
expect 1 agent-once.service Result success
on 1 flock /var/cache/swift/agent-127.0.0.11-6201.lock systemctl start agent-once || fail "a pass beside another pass is no failure"
expect 1 agent-once.service Result success
expect 1 agent-once.service ExecMainStatus 75
say "passes from the timer: beside the daemon, and beside another pass"

# ---------------------------------------------------------------- upgraded

before=$(property 1 agent.service MainPID)
cursor=$(on 1 journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
on 1 dpkg --unpack /root/second.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "unpacking"; }
[[ $(property 1 agent.service MainPID) == "$before" ]] || fail "it did not run on while files were replaced"
on 1 dpkg --configure swiftlet >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "configuring"; }
after=$(property 1 agent.service MainPID)
[[ $after != "$before" ]] || fail "the old daemon runs on"
sleep 3
[[ $(property 1 agent.service MainPID) == "$after" ]] || fail "it was restarted more than once"
[[ $(on 1 readlink "/proc/$after/exe") == /usr/bin/agent ]] || fail "it runs what is no longer there"
expect 1 agent.service ActiveState active
expect 1 agent.service UnitFileState enabled
expect 1 agent-once.timer ActiveState active
on 1 journalctl --after-cursor="$cursor" -o cat -u agent | grep -E '^(Stopping|Stopped|Started|.*: (Deactivated|Failed|Main process exited))' |
    sed 's/ - .*//' >"$work/events"
diff - "$work/events" <<'EVENTS' || fail "that is no orderly restart"
Stopping agent.service
agent.service: Deactivated successfully.
Stopped agent.service
Started agent.service
EVENTS
no_unit_failed 1
agree || fail "$(cat "$work/locate")"
say "upgraded while it ran: restarted once, in order, and only when the new files were there"

# ---------------------------------------------------------------- removed

for node in 1 2; do
    on $node dpkg -r swiftlet >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "removing"; }
    expect $node agent.service ActiveState inactive
    expect $node agent-once.timer ActiveState inactive
    serves $node && fail "node $node: removed, and serves"
    no_unit_failed $node
done
[[ $(databases 1) == "$(cat "$work/databases")" ]] || fail "removing it removed databases"
on 1 dpkg -i /root/first.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "installing again"; }
expect 1 agent.service UnitFileState enabled
on 1 dpkg -r swiftlet >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "removing again"; }
say "removed: stopped, databases untouched; installed again it is enabled as it was"

# ---------------------------------------------------------------- purged

# A node with drives keeps the owner of what is on them.
on 1 dpkg -P swiftlet >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "purging"; }
grep -q '^swiftlet: the user swift stays' "$work/dpkg" || fail "it does not say that the user stays"
on 1 getent passwd swift >/dev/null || fail "the owner of databases is gone"
say "purged from a node with databases: $(sed -n 's/^swiftlet: //p' "$work/dpkg")"

rm -r "$work"/node2/{etc/swift,srv/node}
on 2 dpkg -P swiftlet >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "purging"; }
tree 2 >"$work/after2"
diff "$work/before2" "$work/after2" || fail "the purge left this (>), or took that (<)"
no_unit_failed 2
on 2 systemctl list-unit-files --no-legend 'agent*' | grep . && fail "systemd still knows units"
say "purged from a node without: nothing is left of it"
