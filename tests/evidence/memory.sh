#!/usr/bin/env bash
# Moves a database of 10 GB in full and as a delta between daemons in cgroups of 64 MiB, while 128 connections are open
# to either. Most of it is holes, so some 3 GB of room are enough.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ $EUID -ne 0 ]]; then
    echo "needs root, to make cgroups"
    exit 77
fi
root=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ {print $2; exit}' /proc/mounts)
if [[ -z $root ]]; then
    root=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
    if [[ -z $root ]] || ! grep -qw memory "$root/cgroup.controllers"; then
        echo "needs a memory controller of cgroups, version 1 or 2"
        exit 77
    fi
fi
if ! cage=$(mktemp -d "$root/swiftlet-XXXXXX" 2>&1); then
    echo "needs the right to make a cgroup in $root: $cage"
    exit 77
fi
rmdir "$cage"
dir=${TMPDIR:-/tmp}
free=$(df --output=avail -B1 "$dir" | tail -n 1)
if ((free < 3000000000)); then
    echo "needs 3 GB of room in $dir, which has $free bytes"
    exit 77
fi
if ! command -v mkfs.ext4 >/dev/null || ! losetup -f >/dev/null || ! unshare -m true; then
    echo "needs mkfs.ext4, loop devices, and the right to mount one"
    exit 77
fi
exec unshare -m cargo test --release --test evidence -- --ignored --nocapture --test-threads=1 memory:: idle::
