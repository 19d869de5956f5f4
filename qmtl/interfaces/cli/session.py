"""A client on a log for one command: with its own workers on the embedded log, with everybody's on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qmtl.interfaces.client import Client

WAIT_S = 30.0

ASKED: Final = ("dagmanager",)
"""Who answers a question."""


@contextmanager
def client(
    address: str, wait_s: float = WAIT_S, *, begins: bool = False, code: Sequence[str] = ()
) -> Iterator[Client]:
    """Open the log and give a client.

    On the embedded log nobody else can run the processors, so this process does, with the stores beside the log; and who says something
    there begins it. On Kafka the first word may have gone to another address than was meant, so only one that begins a log makes its topics.

    Args:
        begins: the command is the first thing that is said on a log: before it, there is nothing that another one could mean.
        code: on the embedded log, packages whose functions Python nodes may run, beside those that the environment names.

    Raises:
        NoCatalogue: on Kafka, where the command does not begin a log and nobody has.
    """
    from qmtl.bootstrap import ALL_TOPICS, SOME_TOPICS
    from qmtl.topology import NAMES

    may_make = ALL_TOPICS if begins or _directory(address) is not None else SOME_TOPICS
    with _client(address, wait_s, may_make, NAMES, code) as made:
        yield made


@contextmanager
def asking(address: str, wait_s: float = WAIT_S) -> Iterator[Client]:
    """As `client`, for a question: no topic is made on any log, and on the embedded one only the DAG Manager runs, whose answer it is.

    Raises:
        NoCatalogue: the topics of the catalogue are not there.
        LogUnreachable: there is no such log.
    """
    from qmtl.bootstrap import open_log, require_topics

    if _directory(address) is not None:  # to open an embedded log for writing makes it
        there = open_log(address, read_only=True)
        try:
            require_topics(there, 0)
        finally:
            there.close()
    with _client(address, wait_s, 0, ASKED) as made:
        yield made


@contextmanager
def _client(
    address: str, wait_s: float, may_make: int, names: Sequence[str], code: Sequence[str] = ()
) -> Iterator[Client]:
    from qmtl.bootstrap import make_workers, open_log, outside_of, prepare
    from qmtl.engine.task import TaskSettings
    from qmtl.interfaces.client import Client

    log = open_log(address)
    workers = []
    try:
        prepare(log, may_make)
        place = _directory(address)
        if place is not None:
            outside = outside_of(log, code=code, names=names)
            workers = make_workers(log, TaskSettings(place.parent / "tasks"), names, outside=outside)
        made = Client(log, workers, wait_s)
        try:
            yield made
        finally:
            made.close()
    finally:
        for worker in workers:
            worker.close()
        log.close()


def _directory(address: str) -> Path | None:
    """That of an embedded log."""
    scheme, _, rest = address.partition(":")
    return Path(rest) if scheme == "embedded" else None


def now_ms() -> int:
    """The wall clock, which only people's commands carry."""
    return int(time.time() * 1000)
