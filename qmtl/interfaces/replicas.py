"""Which topics have fewer replicas than they are to have.

A topic that is made while brokers are away gets as many replicas as there are brokers, and keeps that number when they are back. So it is
not remembered how many there were when it was made: the cluster's metadata are asked how many it has, until somebody has given it more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from qmtl.engine.log.port import Connected, Log
from qmtl.foundation.contracts.dag import Queue
from qmtl.foundation.wire.topics import CATALOGUE, get_config

PART: Final = 1_000
"""Topics that are looked at in one question to the log."""

OF_CATALOGUE: Final[Mapping[str, int]] = {spec.name: spec.replication for spec in CATALOGUE}
"""How many replicas each topic of the catalogue is to have."""


def wanted_by(queue: Queue) -> int:
    """How many replicas the topic of a node is to have."""
    return get_config(queue.topic_class).replication


def has_replicas(log: Log) -> bool:
    """Whether topics of a log have replicas: an embedded one is the only copy of itself."""
    return isinstance(log, Connected)


class ReplicaCheck:
    """Counts on one log, again and again, a part of the topics at each look. Not thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lacking: set[str] = set()
        self._last = ""

    def look(self, wanted: Mapping[str, int]) -> int:
        """How many topics have too few replicas, as of the last look at each; 0 on a log without replicas.

        Args:
            wanted: how many each is to have; one that is not there lacks none.

        Raises:
            LogError: the log did not answer.
        """
        if not has_replicas(self._log):
            return 0
        names = sorted(wanted)
        start = bisect_right(names, self._last)
        part = names[start : start + PART]
        found = self._log.look_up(part)
        self._last = part[-1] if start + PART < len(names) else ""
        self._lacking.difference_update(part)
        for name in part:
            there = found[name].found
            if there is not None and there.replication < wanted[name]:
                self._lacking.add(name)
        self._lacking.intersection_update(wanted)
        return len(self._lacking)
