"""Deploys the edge to the venue of live orders: `python streams/egress.py --log kafka://HOST:PORT`, the same as `qmtl worker run egress`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "egress", *sys.argv[1:]])
