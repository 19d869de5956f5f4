"""What may happen between a client and the cluster: requests whose answer is lost, processes that die or stand still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random


class Request(Enum):
    """The requests of a transactional client whose loss matters."""

    INIT = "InitProducerId"
    PRODUCE = "Produce"
    OFFSETS = "TxnOffsetCommit"
    END = "EndTxn"


class Fate(Enum):
    """What becomes of a request whose answer the client never sees."""

    APPLIED = "applied at once"
    LATE = "applied later, when the client has given up long ago"
    NEVER = "never applied"


@dataclass(frozen=True, slots=True)
class Lose:
    """The answer to the next such request is lost: its outcome is unknown."""

    request: Request
    fate: Fate


@dataclass(frozen=True, slots=True)
class Refuse:
    """The cluster answers the next commit with an abortable error."""


@dataclass(frozen=True, slots=True)
class Dawdle:
    """The markers of the next commit are written some time after its answer."""


Hitch = Lose | Refuse | Dawdle
"""Something that the network or the cluster does to one transaction."""


class Died(BaseException):
    """The process was killed. Not an `Exception`: no handler of the engine may take it for a failure that it can mend."""


class Process:
    """One client process, as the cluster and the network see it.

    Attributes:
        alive: once false, nothing that it does has any effect, and whatever it asks ends it.
        paused: stopped; it sends no heartbeat.
        chance: what is left to chance for it (how polls are split); set before each of its steps.
        hitches: what happens to its next requests.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.chance: Random | None = None
        self.hitches: list[Hitch] = []

    @property
    def runs(self) -> bool:
        return self.alive and not self.paused

    def must_live(self) -> None:
        """
        Raises:
            Died: it was killed.
        """
        if not self.alive:
            raise Died(self.name)

    def lost(self, request: Request) -> Lose | None:
        """Whether the answer to a request is lost, which happens once."""
        for one in self.hitches:
            if isinstance(one, Lose) and one.request is request:
                self.hitches.remove(one)
                return one
        return None

    def meets(self, hitch: Refuse | Dawdle) -> bool:
        """Whether something else happens to a request, which happens once."""
        if hitch not in self.hitches:
            return False
        self.hitches.remove(hitch)
        return True

    def portion(self, records: int) -> int:
        """How many of so many records a poll brings: all, some, one or none."""
        if self.chance is None:
            return records
        return self.chance.choice((records, records, records, self.chance.randint(1, records), 1, 0))


@dataclass(frozen=True, slots=True)
class Held:
    """A request that has left its client and not yet reached the cluster.

    Attributes:
        due_ms: when it arrives at the latest.
    """

    request: Request
    arrive: Callable[[], bool]
    due_ms: int
