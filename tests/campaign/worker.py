"""One worker process of a campaign: stages of the pipeline on Kafka in one slot, until SIGTERM or until an error ends it.

Run as `python -m tests.campaign.worker --bootstrap HOST:PORT --namespace NAME --state DIR --slot N`. The last
line on standard error is the error that ended it, as JSON with its code. SIGUSR1 makes it say there where it stands.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.processor import Processor, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import IDLE_S, Worker
from qmtl.foundation.common.errors import QmtlError
from tests.campaign.pipeline import CODEC, STAGES
from tests.campaign.sabotage import commit_sabotage

ENDED: Final = 20
"""The exit code of a worker that an error with a code has ended."""


def slowed(make: Callable[[], Processor], most_ms: int) -> Callable[[], Processor]:
    """The stage, taking up to so many milliseconds before the end of each transaction."""

    def made() -> Processor:
        stage: Any = make()
        flush = stage.flush

        def slow(step: Step) -> None:
            time.sleep(random.uniform(0.0, most_ms / 1000))
            flush(step)

        stage.flush = slow
        return stage  # type: ignore[no-any-return] # a processor as it was

    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.worker", description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--slot", required=True)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--poll-records", type=int, default=40)
    parser.add_argument("--call-s", type=float, default=10.0)
    parser.add_argument("--transaction-ms", type=int, default=20_000)
    parser.add_argument("--session-ms", type=int, default=2000)
    parser.add_argument("--slow-ms", type=int, default=0)
    parser.add_argument("--protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument("--sabotage", default="")
    chosen = parser.parse_args()
    over = False

    def stop(number: int, frame: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    faulthandler.register(signal.SIGUSR1)
    try:
        if chosen.sabotage:
            commit_sabotage(chosen.sabotage)
        settings = KafkaSettings(chosen.call_s, chosen.transaction_ms, chosen.session_ms, chosen.protocol)
        log = KafkaLog(chosen.bootstrap, chosen.namespace, settings)
        runs = TaskSettings(chosen.state, chosen.poll_records)
        makes = [STAGES[name] for name in chosen.stages.split(",")]
        if chosen.slow_ms:
            makes = [slowed(make, chosen.slow_ms) for make in makes]
        workers = [Worker(log, make, CODEC, runs, chosen.slot) for make in makes]
        print("ready", flush=True)
        busy = True
        while not over:  # unlike `run`, it ends with a refusal: the campaign counts how its processes end
            wait_s = 0.0 if busy else IDLE_S / len(workers)
            busy = False
            for worker in workers:
                busy |= worker.step(wait_s)
        for worker in workers:
            worker.close()
        log.close()
    except QmtlError as error:
        told = {"code": error.code, "kind": type(error).__name__, "what": error.what}
        print(json.dumps(told), file=sys.stderr, flush=True)
        os._exit(ENDED)  # as a process that nobody lets clean up
    return 0


if __name__ == "__main__":
    sys.exit(main())
