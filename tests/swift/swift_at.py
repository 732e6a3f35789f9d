"""Runs one of Swift's own programs with `swift.conf` taken from another directory than /etc/swift.

    swift_at.py SWIFT_DIR PROGRAM [ARGUMENTS]

Swift's daemons read the hash prefix, suffix and policies from the one path /etc/swift/swift.conf. Its library can move
that path (`swift/common/utils: set_swift_dir`, which `swift-recon --swiftdir` uses); done before the program starts, the
program runs unchanged, and the machine's /etc stays as it was.
"""

import runpy
import sys

from swift.common import utils

if __name__ == "__main__":
    utils.set_swift_dir(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
