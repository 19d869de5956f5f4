"""A DAG Manager whose every node has two topics: the present one, and one that it has left and that was not collected yet.

So is a graph whose nodes were computed anew less than a month ago. `python -m bench.dag.twofold LOG STATE` runs it until SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.processor import Arrival, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker, collect_seldom, run
from qmtl.foundation.contracts.dag import QueueRole, ReportTopicCreated
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager.processor import DagManager


class Twofold(DagManager):
    """Notes a topic that was left with each one that is made; all else is the DAG Manager's."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        super().on_record(step, arrival)
        if isinstance(arrival.message, ReportTopicCreated):
            queue = self._catalogue.queue(arrival.message.topic)
            if queue is not None and queue.ready:
                left = replace(queue, topic=f"{queue.topic}_v0", role=QueueRole.FORMER, orphaned_at_ms=1)
                self._catalogue.put_queue(left, 0)


def main(address: str, state: Path) -> None:
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    log = open_log(address)
    try:
        prepare(log)
        worker = Worker(log, Twofold, codec, TaskSettings(state))
        collect_seldom()
        run([worker], lambda: stopping)
        worker.close()
    finally:
        log.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
