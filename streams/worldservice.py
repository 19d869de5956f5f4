"""Deploys the worldservice processor: `python streams/worldservice.py --log kafka://HOST:PORT`, the same as `qmtl worker run worldservice`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "worldservice", *sys.argv[1:]])
