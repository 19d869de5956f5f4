"""By what the rows of the graph are found without looking at all of them; whoever keeps such a lookup keeps it by these definitions."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from heapq import nsmallest
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

R = TypeVar("R")

_NONE: Final[Mapping[str, None]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Index:
    """One way to find rows of a table.

    Attributes:
        on: fields of the row. It is found by the value of each of them, of one with several values by each of these; by none that is
            None.
        unique: no two rows have the same value: it is the row's key.
    """

    name: str
    table: str
    on: tuple[str, ...]
    unique: bool = False

    def values(self, row: Any) -> tuple[Any, ...]:
        """By what a row is found, in the order of the fields, each once."""
        out: dict[Any, None] = {}
        for field in self.on:
            value = getattr(row, field)
            for one in value if isinstance(value, tuple) else () if value is None else (value,):
                out[one.value if isinstance(one, Enum) else one] = None
        return tuple(out)


COMPUTE_PK: Final = Index("compute_pk", "dag.nodes", ("node_id",), unique=True)
COMPUTE_TAGS: Final = Index("compute_tags", "dag.nodes", ("tags",))
COMPUTE_BUFFERING_SINCE: Final = Index("compute_buffering_since", "dag.nodes", ("buffering_since_ms",))
KAFKA_TOPIC: Final = Index("kafka_topic", "dag.queues", ("topic",), unique=True)
QUEUE_TAGS: Final = Index("queue_tags", "dag.queues", ("tags", "topic_class"))
QUEUE_INTERVAL: Final = Index("queue_interval", "dag.queues", ("interval",))

INDEXES: Final = (
    COMPUTE_PK,
    COMPUTE_TAGS,
    COMPUTE_BUFFERING_SINCE,
    KAFKA_TOPIC,
    QUEUE_TAGS,
    QUEUE_INTERVAL,
)


class Lookup(Generic[R]):
    """Rows of one table by what they are found by. Not thread-safe.

    Args:
        key: the one by which rows are told apart.
        others: the further ones.
    """

    def __init__(self, key: Index, *others: Index) -> None:
        self._key = key
        self._rows: dict[str, R] = {}
        self._found: dict[Index, dict[Hashable, dict[str, None]]] = {one: {} for one in others}
        self._order: list[str] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> R | None:
        return self._rows.get(key)

    def put(self, row: R) -> R | None:
        """Keep a row; returns the one that had its key before."""
        (value,) = self._key.values(row)
        key = str(value)
        before = self._rows.get(key)
        self._rows[key] = row
        if before is None:
            self._order.append(key)
            self._is_sorted = False
        for index, found in self._found.items():
            old, new = () if before is None else index.values(before), index.values(row)
            if old != new:
                _take_out(found, old, key)
                for one in new:
                    found.setdefault(one, {})[key] = None
        return before

    def drop(self, key: str) -> R | None:
        """Forget a row; returns it, or None where there is none."""
        before = self._rows.pop(key, None)
        if before is not None:
            self._order = []
            self._is_sorted = False
            for index, found in self._found.items():
                _take_out(found, index.values(before), key)
        return before

    def matching(self, wanted: Iterable[tuple[Index, Hashable]]) -> Collection[str]:
        """The keys of the rows that are found by each of these values, in no order; of all rows where nothing is wanted."""
        sets = sorted((self._found[index].get(value, _NONE) for index, value in wanted), key=len)
        if not sets:
            return self._rows.keys()
        few, *more = sets
        return [key for key in few if all(key in one for one in more)] if more else few.keys()

    def first(self, keys: Collection[str], limit: int | None) -> list[R]:
        """The first rows of these, in the order of their keys.

        Args:
            keys: as `matching` gave them.
            limit: at most so many; None for all.
        """
        if len(keys) == len(self._rows):
            chosen = self._ordered()[:limit]
        else:
            chosen = sorted(keys) if limit is None else nsmallest(limit, keys)
        return [self._rows[key] for key in chosen]

    def _ordered(self) -> list[str]:
        """All keys; sorted anew only where some have come or gone since."""
        if not self._is_sorted:
            if len(self._order) != len(self._rows):
                self._order = list(self._rows)
            self._order.sort()
            self._is_sorted = True
        return self._order


def _take_out(found: dict[Hashable, dict[str, None]], values: Iterable[Hashable], key: str) -> None:
    for one in values:
        keys = found[one]
        del keys[key]
        if not keys:
            del found[one]
