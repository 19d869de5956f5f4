"""A program that writes transactions into an embedded log until it is killed, and says each number after its commit.

Transaction n writes n % 5 + 1 records into `many`, one into `one`, and the position n. Run as
`python -m tests.contract.endless_writer DIRECTORY`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from tests.contract.driving import events

ONE = TopicPartition("one", 0)
TOPICS = (events("one"), events("many", 3))


def records_of(number: int) -> int:
    return number % 5 + 1


def main() -> None:
    log = EmbeddedLog(Path(sys.argv[1]))
    log.ensure_topics(TOPICS)
    writer = log.writer("writer")
    number = log.committed("group", [ONE]).get(ONE, 0)
    while True:
        number += 1
        writer.begin()
        writer.append("one", 0, b"k", b"%d" % number)
        for step in range(records_of(number)):
            writer.append("many", step % 3, b"%d" % step, b"%d" % number)
        writer.commit({ONE: number}, "group", None)
        print(number, flush=True)


if __name__ == "__main__":
    main()
