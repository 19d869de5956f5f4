"""Deploys the dagmanager processor: `python streams/dagmanager.py --log kafka://HOST:PORT`, the same as `qmtl worker run dagmanager`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "dagmanager", *sys.argv[1:]])
