"""Deploys the nodes processor: `python streams/nodes.py --log kafka://HOST:PORT`, the same as `qmtl worker run nodes`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "nodes", *sys.argv[1:]])
