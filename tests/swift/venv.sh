#!/usr/bin/env bash
# Runs a command that needs the real OpenStack Swift, with SWIFTLET_SWIFT_VENV naming a virtual environment that has it.
#
#   tests/swift/venv.sh COMMAND [ARGS]
#
# Swift comes from PyPI into a virtual environment of its own, target/swift-venv (or where SWIFTLET_SWIFT_VENV says), made once.
# Where that is impossible it fails; with SWIFTLET_ALLOW_SKIP=1 it says SKIPPED and ends with SWIFTLET_SKIP_CODE, or 0.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
venv=${SWIFTLET_SWIFT_VENV:-$top/target/swift-venv}

skip() {
    echo "SKIPPED: tests/swift: $1" >&2
    [[ ${SWIFTLET_ALLOW_SKIP:-} == 1 ]] && exit "${SWIFTLET_SKIP_CODE:-0}"
    exit 1
}

# Swift calls rsync when it ships whole files, and its installation builds on liberasurecode.
missing=()
command -v rsync >/dev/null || missing+=(rsync)
if [[ ! -x $venv/bin/swift-container-replicator ]]; then
    [[ -e /usr/include/liberasurecode/erasurecode.h ]] || missing+=(liberasurecode-dev)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    compgen -G '/usr/include/python3*/Python.h' >/dev/null || missing+=(python3-dev)
    command -v cc >/dev/null || missing+=(gcc)
fi
if ((${#missing[@]})); then
    [[ $EUID -eq 0 ]] || skip "needs ${missing[*]}, which only root can install"
    command -v apt-get >/dev/null || skip "needs ${missing[*]}, and there is no apt-get"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } >&2 ||
        skip "could not install ${missing[*]}"
fi

if ! "$venv/bin/python" -c 'import importlib.metadata as m; assert m.version("swift").startswith("2.38.")' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv" || skip "python3 cannot make a virtual environment"
    # Swift imports pkg_resources, which setuptools 81 no longer has.
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'swift==2.38.*' 'setuptools<81' >&2 ||
        skip "pip could not install swift 2.38"
fi

export SWIFTLET_SWIFT_VENV=$venv
exec "$@"
