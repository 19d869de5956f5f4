"""How long what nobody needs stays in the tables of the graph, and what stays for good of what has gone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetRetention:
    """Keep what nobody needs any more, and the outcomes of submissions and commands, for so many days of the clock from now on."""

    command_id: str
    keep_days: int
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class GcPace:
    """How busy the brokers were when a topic was removed last: the row of `dag.pace`.

    Attributes:
        at_ms: when that was, by the clock's ticks.
    """

    what: str
    broker_load_percent: int
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows stay that nobody needs, and outcomes: a row of `dag.pace`. There is none until something of it was said or done.

    Attributes:
        keep_ms: by the clock's ticks.
        forgotten_until_ms: no outcome that is gone was of a message that said a later time; 0 where none is gone. What is not known and
            says this time or an earlier one may have been decided before, and is refused.
    """

    what: str
    keep_ms: int
    forgotten_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class TopicLife:
    """From which generation on new nodes name their topics: a row of `dag.lives`, all that is left of nodes whose rows went.

    Attributes:
        prefix: the first hex digits of the ids of these nodes: so there are no more rows than prefixes, and nodes whose topics might
            have the same name have the same one.
        generation: the latest that any of them had.
    """

    prefix: str
    generation: int
