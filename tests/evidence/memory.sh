#!/usr/bin/env bash
# Moves a database of 1.5 GB in full and as a delta, and shows what memory both sides took. Needs about 7 GB of room.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=${TMPDIR:-/tmp}
free=$(df --output=avail -B1 "$dir" | tail -n 1)
if ((free < 8000000000)); then
    echo "needs 8 GB of room in $dir, which has $free bytes"
    exit 77
fi
cargo test --release --test evidence -- --ignored --nocapture memory::
