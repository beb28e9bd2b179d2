#!/usr/bin/env python3
"""Sets Argus up where nothing but Python is installed, and runs it or its tests: ``python3 run.py --help``."""

# This file is read by whatever Python there is: no syntax here that an old one does not know.
import sys

OLDEST, NEWEST = (3, 11), (3, 13)


def wrong_python(version, executable):
    """The line for a Python that Argus does not run on; empty for one that it does."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return ""
    other = "py -3.13" if sys.platform == "win32" else "python3.13"
    found = "{}.{} ({})".format(version[0], version[1], executable)
    return "argus: Python 3.11, 3.12 or 3.13 is needed, this is {}; install one and run: {} run.py up".format(found, other)


if __name__ == "__main__":
    line = wrong_python(sys.version_info, sys.executable)
    if line:
        sys.exit(line)

    from argus import launch

    try:
        sys.exit(launch.main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
