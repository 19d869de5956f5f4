"""What a worker has to be allowed on a log, and what a log says that decides such things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Rights:
    """What one worker needs.

    Attributes:
        reads: topics that it reads, its own tables among them.
        writes: topics that it writes.
        group: the group that shares the tasks out, and keeps the positions.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    group: str


@runtime_checkable
class Guarded(Protocol):
    """A log behind a cluster, which has a version and decides who may do what."""

    def require_version(self) -> None:
        """Hold the cluster to the oldest version that is supported.

        Raises:
            BrokerTooOld: it is older; where the cluster does not tell, nothing is raised.
        """

    def require_rights(self, rights: Rights) -> None:
        """Ask for everything before anything is done.

        Raises:
            MissingRight: names every right that is missing, with the resource.
        """
