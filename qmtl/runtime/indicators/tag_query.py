"""The tag query: one number out of those that nodes with some tags emit, whichever nodes these are at the moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import median
from types import MappingProxyType
from typing import Final, cast

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.common.identity import tag_query_params
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.indicators.builtin import Inputs, bad_period, kind, refuse_first, strangers

MAX_QUERY_TAGS: Final = 20


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


AGGREGATES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = MappingProxyType(
    {
        "mean": _mean,
        "sum": fsum,
        "min": min,
        "max": max,
        "median": lambda values: float(median(values)),
        "count": lambda values: float(len(values)),
    }
)
"""What becomes of at least one value. A sum is that of the exact numbers, rounded once, whatever their order; a mean is rounded once
more."""


@dataclass(frozen=True, slots=True)
class TagQueryParams:
    """A question, and what becomes of the answers.

    Attributes:
        query_tags: sorted, each once.
        match_mode: `any` or `all` of them.
        interval: of those that answer, seconds.
        aggregate: a name out of `AGGREGATES`.
    """

    query_tags: tuple[str, ...]
    match_mode: str
    interval: int
    aggregate: str

    def is_answered_by(self, tags: Collection[str]) -> bool:
        """Whether a node with these tags, at the query's interval, is one of those that are asked for."""
        found = (tag in tags for tag in self.query_tags)
        return any(found) if self.match_mode == "any" else all(found)

    def require_interval(self, interval: int) -> None:
        """Hold the interval of the question to that of its node, which emits once for each of their buckets.

        Raises:
            InvalidParameter: it is another.
        """
        if self.interval != interval:
            raise InvalidParameter(
                f"interval of a tag_query node was the number {self.interval}; its node has one of {interval} s, and both are one.",
                "Send the interval of the node, in seconds.",
            )


class _TagQuery:
    __slots__ = ("_aggregate", "_seen")

    def __init__(self, params: TagQueryParams, window: NodeWindow | None) -> None:
        self._aggregate = AGGREGATES[params.aggregate]
        self._seen = 0 if window is None else window.seen

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        values = [value for value in inputs if value is not None]
        if not values:
            return None
        self._seen += 1
        return self._aggregate(values)

    def basis(self, bar: Bar) -> bytes:
        return b""

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen)


@dataclass(frozen=True, slots=True)
class TagQuery:
    """Emits for each symbol of which a node that is asked for has a value in the bucket; a source's value is the close.

    Parameters: `query_tags`, 1 to 20 tags, whose order and repetition make no difference; `match_mode`, `any` or `all`; `interval`,
    that of the node, in seconds; `aggregate`, one of `AGGREGATES`. Which nodes these are is asked of the graph while the node
    runs, and is no part of what it is.
    """

    name: str = "tag_query"
    version: str = "1"
    ports: int = 0
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> TagQueryParams:
        refuse_first(self.refusals(params, period))
        tags, mode, interval = (params[name] for name in ("query_tags", "match_mode", "interval"))
        asked = tag_query_params(cast(Sequence[str], tags), cast(str, mode), cast(int, interval))
        return TagQueryParams(
            tuple(asked["query_tags"]), asked["match_mode"], asked["interval"], cast(str, params["aggregate"])
        )

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, ("aggregate", "interval", "match_mode", "query_tags"))
        yield from bad_period(self.name, period)
        for name, check in _CHECKS.items():
            try:
                if name in params:
                    check(params[name])
            except InvalidParameter as refused:
                yield refused

    def resume(self, params: TagQueryParams, window: NodeWindow | None) -> _TagQuery:
        return _TagQuery(params, window)


def _refused(name: str, value: object, rule: str) -> InvalidParameter:
    return InvalidParameter(
        f"{name} of a tag_query node was {kind(value)}; {rule}.",
        'Send for example {"query_tags": ["crypto"], "match_mode": "any", "interval": 60, "aggregate": "mean"}.',
    )


def _check_tags(tags: object) -> None:
    if not isinstance(tags, list | tuple):
        raise _refused("query_tags", tags, f"a list of 1 to {MAX_QUERY_TAGS} tags is required")
    asked = tag_query_params(tags, "any", 1)["query_tags"]
    if len(asked) > MAX_QUERY_TAGS:
        raise InvalidParameter(
            f"query_tags of a tag_query node held {len(asked)} tags; at most {MAX_QUERY_TAGS} are allowed.",
            "Ask for less.",
        )


def _check_mode(mode: object) -> None:
    if not isinstance(mode, str):
        raise _refused("match_mode", mode, "'any' or 'all' is required")
    tag_query_params(("any",), mode, 1)


def _check_interval(interval: object) -> None:
    if type(interval) is not int:
        raise _refused("interval", interval, "a whole number of seconds is required")
    tag_query_params(("any",), "any", interval)


def _check_aggregate(aggregate: object) -> None:
    if not isinstance(aggregate, str) or aggregate not in AGGREGATES:
        raise _refused("aggregate", aggregate, f"one of {', '.join(AGGREGATES)} is required")


_CHECKS: Final[Mapping[str, Callable[[object], None]]] = {
    "query_tags": _check_tags,
    "match_mode": _check_mode,
    "interval": _check_interval,
    "aggregate": _check_aggregate,
}
"""What each parameter is held to, alone."""
