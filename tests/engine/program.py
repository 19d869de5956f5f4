"""A program that runs toys on a log until each of some topics carries so many messages; tests kill it.

Run as `python -m tests.engine.program LOG STATE POLL GOAL TOY…`, where LOG is `embedded:DIRECTORY` or `kafka:HOST:PORT,NAMESPACE`
and GOAL is a JSON object of topics and counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import DEFAULTS, KafkaSettings
from qmtl.engine.log.port import Log
from tests.engine.driving import bench, messages
from tests.engine.toys import MAKERS, make_topics


def address_of(log: Log) -> str:
    """How the program is told of a log."""
    if isinstance(log, EmbeddedLog):
        return f"embedded:{log.directory}"
    assert isinstance(log, KafkaLog)
    return f"kafka:{log.bootstrap},{log.namespace}"


def open_log(address: str, settings: KafkaSettings = DEFAULTS) -> Log:
    kind, _, rest = address.partition(":")
    if kind == "embedded":
        return EmbeddedLog(Path(rest))
    bootstrap, _, namespace = rest.partition(",")
    return KafkaLog(bootstrap, namespace, settings)


def main(address: str, state: str, poll: str, goal: str, *toys: str) -> None:
    log = open_log(address)
    make_topics(log)
    wanted: dict[str, int] = json.loads(goal)
    with bench(log, Path(state), *(MAKERS[name] for name in toys), poll=int(poll)) as runs:
        runs.until(lambda: all(len(messages(log, name)) >= count for name, count in wanted.items()))
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
