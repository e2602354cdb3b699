"""python -m tests.cuda [plain address thread coverage] [--full]: the CUDA kernels on the emulator; see checks.py.

Exit status 1 if a build finds anything, or misses a fault that was planted. Without --full, fewer random cases.
"""

import argparse
import sys

from tests.cuda import checks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cuda", description=__doc__)
    parser.add_argument("builds", nargs="*", metavar="build", help=f"{', '.join(checks.BUILDS)} (all of them)")
    parser.add_argument("--full", action="store_true", help="many random cases of each kernel")
    arguments = parser.parse_args()
    unknown = set(arguments.builds) - set(checks.BUILDS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(checks.BUILDS)}")
    return checks.main(arguments.builds, arguments.full)


if __name__ == "__main__":
    sys.exit(main())
