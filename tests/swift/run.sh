#!/usr/bin/env bash
# Lets the real OpenStack Swift judge what our agents leave behind.
#
#   tests/swift/run.sh [AGENT_BINARY] [options of run.py]
#
# AGENT_BINARY defaults to target/release/agent. Swift comes from where venv.sh says, which also says what happens without it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

agent=$top/target/release/agent
if [[ $# -gt 0 && $1 != -* ]]; then
    agent=$1
    shift
fi

# What stands for `--` is only a name.
exec "$here/venv.sh" bash -c 'exec "$SWIFTLET_SWIFT_VENV/bin/python" "$@"' -- "$here/run.py" --agent "$agent" "$@"
