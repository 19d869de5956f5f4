"""Whether somebody does the DAG Manager's work: a ping that the log answers, as it knows who takes part in its group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qmtl.engine.log.port import GroupState, Log, TopicPartition
from qmtl.foundation.common.errors import NoAnswer
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.standing import slots, standings
from qmtl.topology import PROTOTYPES

EVERY_S: Final = 30
"""Seconds between two pings."""

_DAGMANAGER: Final = [one for one in PROTOTYPES if one.name == "dagmanager"]
_START: Final = "Start it with `qmtl worker run dagmanager`; what was asked of it meanwhile waits on the log."


@dataclass(frozen=True, slots=True)
class Pong:
    """Somebody has the task.

    Attributes:
        waiting: records of its inputs that it has not taken; of an input with more than 1,000 offsets of them, so many offsets.
        bucket_ms: the newest bucket that it has closed; None where it has none.
        positions: what it has committed.
    """

    slot: str
    host: str
    waiting: int
    bucket_ms: int | None
    positions: Mapping[TopicPartition, int]


def ping(log: Log) -> Pong:
    """Who has the task of the DAG Manager.

    Raises:
        NoAnswer: nobody, or the log can't know.
        LogError: the log did not answer.
    """
    found = slots(log, _DAGMANAGER, codec)
    for one in found:
        if one.slot is not None and one.tasks:
            (task,) = standings(log, _DAGMANAGER, codec)
            waiting = sum(read.lag_stable if read.records is None else read.records for read in task.inputs)
            positions = {read.where: read.position for read in task.inputs if read.position is not None}
            return Pong(one.slot, one.host, waiting, task.bucket_ms, positions)
    match found[0].state if found else GroupState.EMPTY:
        case GroupState.UNKNOWN:
            raise NoAnswer(
                "an embedded log does not know who runs its processors.",
                "Ask the process itself: `/healthz` on its metrics port.",
            )
        case GroupState.EMPTY:
            raise NoAnswer("nobody runs the DAG Manager.", _START)
        case GroupState.REBALANCING | GroupState.RUNNING:
            raise NoAnswer(
                "nobody has the task of the DAG Manager: its group is giving it out.",
                "Ask again in some seconds; `qmtl worker list` shows who takes part.",
            )


def stands_still(before: Pong | None, now: Pong) -> bool:
    """Whether something waits and nothing was taken since the ping before: it is there, and hangs."""
    return before is not None and now.waiting > 0 and before.waiting > 0 and now.positions == before.positions
