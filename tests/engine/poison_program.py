"""A program that runs a processor that dies at some records until so many letters are there.

Run as `python -m tests.engine.poison_program LOG STATE LETTERS TOY`, where LOG is as `tests.engine.program` has it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from tests.contract.driving import until
from tests.engine.driving import messages
from tests.engine.poison_toys import DEADLY_CODEC, POISONED
from tests.engine.program import open_log
from tests.engine.toys import DEAD, make_topics


def main(address: str, state: str, goal: str, toy: str) -> None:
    log = open_log(address)
    make_topics(log)
    worker = Worker(log, POISONED[toy], DEADLY_CODEC, TaskSettings(Path(state)))
    until(lambda: not worker.step() and len(messages(log, DEAD.name)) >= int(goal), 60.0)
    worker.close()
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
