"""What every client of the Kafka log is given, and what the errors of its calls mean."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from confluent_kafka import KafkaError, KafkaException

from qmtl.engine.log.kafka_admin import MOVING, unanswered
from qmtl.engine.log.kafka_rights import DENIED, denied
from qmtl.foundation.common.errors import Fenced, OutcomeUnknown, TransactionAborted

if TYPE_CHECKING:
    from qmtl.engine.log.kafka import KafkaLog

_LOGGER: Final = logging.getLogger("qmtl.kafka")
"""What the client itself has to say; without a logger it would write to the terminal, among what people read there."""
_LOGGER.addHandler(logging.NullHandler())
FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
"""A newer writer has the transactional id."""


class Troubles:
    """Counts what clients meet and mend by themselves; what they can't mend comes back from their calls. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def met(self, error: KafkaError) -> None:
        with self._lock:
            self._counts[error.name()] += 1

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


def common(log: KafkaLog) -> dict[str, Any]:
    return {
        **log.security.settings,
        "bootstrap.servers": log.bootstrap,
        "client.id": "qmtl",
        "log_level": 2,
        "logger": _LOGGER,
        "error_cb": log.troubles.met,
        "socket.connection.setup.timeout.ms": 5000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 30000,
    }


def transactional(call: Callable[[float], Any], now: float, wait_s: float, writer: str) -> None:
    """Run one transactional call of a writer; the same call again while the client says that this is safe.

    Args:
        call: is told how many seconds it may take: all of them first, then what is left.
        now: what `time.monotonic` says, so that it is asked but once for a call that succeeds.
    """
    until, left_s = now + wait_s, wait_s
    while True:
        try:
            call(left_s)
            return
        except KafkaException as error:
            if error.args[0].retriable():
                time.sleep(0.01)
                left_s = until - time.monotonic()
                if left_s > 0:  # less than nothing would be for ever
                    continue
            classify(error, writer)


def classify(error: KafkaException, writer: str) -> NoReturn:
    """The one place that says what an error of a transactional call means: of one that is not to be made again.

    Args:
        writer: its transactional id.

    Raises:
        MissingRight: somebody has to grant it.
        Fenced: for good.
        TransactionAborted: the broker has refused the transaction, and the producer can end it.
        OutcomeUnknown: anything else; the producer is of no more use.
    """
    problem = error.args[0]
    if problem.code() in DENIED:
        raise denied("to write transactions", problem) from None
    if problem.code() in FENCED:
        raise Fenced(
            f"transactional id {writer!r} belongs to a newer writer, or the broker ended its transaction for its age:"
            f" {problem.str()}",
            "This one stops.",
        ) from None
    # What only the client says (a time-out, a lost connection) leaves a request on its way: it would reach this producer's next
    # transaction. A new producer's epoch shuts it out. Only the broker's own word, which has a positive code, ends the matter.
    told = problem.code() > 0 and not problem.fatal()
    if told and (problem.txn_requires_abort() or problem.code() == KafkaError.FENCED_INSTANCE_ID):
        raise TransactionAborted(problem.str()) from None
    raise OutcomeUnknown(problem.str()) from None


def asking(call: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except KafkaException as error:
            problem = error.args[0]
            if problem.code() in MOVING and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            if problem.code() in DENIED:
                raise denied("to ask for positions", problem) from None
            raise unanswered(problem) from None
