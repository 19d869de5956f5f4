"""Deploys the clock: `python streams/clock.py --log kafka://HOST:PORT`, the same as `qmtl worker run clock`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "clock", *sys.argv[1:]])
