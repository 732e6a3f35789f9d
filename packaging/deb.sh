#!/usr/bin/env bash
# Makes the Debian package, target/debian/swiftlet_*.deb, and looks it over: what is in it, what lintian says of it, and
# whether systemd understands its units and finds them as well shut in as they should be.
#
#   packaging/deb.sh [--quiet]     --quiet only makes it
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deb --version >/dev/null 2>&1 || cargo install cargo-deb --locked --version '^3.8'
cargo deb --quiet >/dev/null
[[ ${1:-} == --quiet ]] && exit

missing=()
command -v lintian >/dev/null || missing+=(lintian)
command -v systemd-analyze >/dev/null || missing+=(systemd)
if ((${#missing[@]})); then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "missing, and not to be installed without root and apt-get: ${missing[*]}"
        exit 77
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

debs=(target/debian/swiftlet_*.deb)
deb=${debs[0]}
dpkg --info "$deb"
dpkg --contents "$deb"
for script in packaging/debian/{postinst,prerm,postrm}; do sh -n "$script"; done
lintian --allow-root --fail-on error,warning "$deb"
echo "lintian has nothing to say"

# The binary is not at its place here.
units=$(mktemp -d)
trap 'rm -r "$units"' EXIT
for unit in packaging/units/*; do
    sed "s,=/usr/bin/agent,=$PWD/target/release/agent," "$unit" >"$units/${unit##*/}"
done
said=$(systemd-analyze verify "$units"/* 2>&1)
if [[ -n $said ]]; then
    echo "systemd-analyze verify: $said"
    exit 1
fi
for service in "$units"/*.service; do
    systemd-analyze security --no-pager --offline=true --threshold=15 "$service" | tail -n 1
done
echo "systemd has nothing to say"
