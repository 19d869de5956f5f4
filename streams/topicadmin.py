"""Deploys the topicadmin processor: `python streams/topicadmin.py --log kafka://HOST:PORT`, the same as `qmtl worker run topicadmin`."""

import sys

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    main(["worker", "run", "topicadmin", *sys.argv[1:]])
