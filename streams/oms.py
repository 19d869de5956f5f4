"""Deploys the order management system: `python streams/oms.py --log kafka://HOST:PORT`, the same as `qmtl worker run oms`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "oms", *sys.argv[1:]])
