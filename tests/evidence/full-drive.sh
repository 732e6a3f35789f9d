#!/usr/bin/env bash
# Fills a small file system up while databases are shipped to it.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ $EUID -ne 0 ]] || ! unshare -m mount -t tmpfs -o size=1m tmpfs /mnt 2>/dev/null; then
    echo "needs root and the right to mount a tmpfs"
    exit 77
fi
exec unshare -m cargo test --release --test evidence -- --ignored --nocapture full_drive::
