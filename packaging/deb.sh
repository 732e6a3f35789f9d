#!/usr/bin/env bash
# Makes the Debian package, target/debian/swiftlet_*.deb, and looks it over: what dpkg says of it, and what lintian does.
#
#   packaging/deb.sh [--quiet]     --quiet only makes it
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deb --version >/dev/null 2>&1 || cargo install cargo-deb --locked
rm -f target/debian/*.deb target/debian/*.ddeb
cargo deb --quiet
[[ ${1:-} == --quiet ]] && exit

deb=(target/debian/swiftlet_*.deb)
dpkg --info "${deb[0]}"
dpkg --contents "${deb[0]}"
for script in packaging/debian/{postinst,prerm,postrm}; do dash -n "$script"; done
if ! command -v lintian >/dev/null; then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "lintian is missing, and not to be installed without root and apt-get"
        exit 77
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends lintian
fi
lintian --allow-root --fail-on error,warning "${deb[0]}"
echo "lintian has nothing to say"
