"""Deploys the trading processor: `python streams/trading.py --log kafka://HOST:PORT`, the same as `qmtl worker run trading`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "trading", *sys.argv[1:]])
