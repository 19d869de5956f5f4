"""What the nodes of a program gave in one run, in a form in which two runs are held against each other bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from qmtl.foundation.common.money import text
from qmtl.runtime.columns import Column, Integers
from qmtl.runtime.indicators.builtin import Output, PositionTargetValue
from qmtl.runtime.indicators.columnar import Targets

NOTHING: Final = "nothing"

Values: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first bucket in which two runs differ.

    Attributes:
        was, became: what the one and the other gave there, in words.
    """

    symbol: str
    bucket_ms: int
    was: str
    became: str


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What a node gave for one symbol.

    Attributes:
        bucket_ms: int64, ascending; the buckets in which it gave anything.
        values: of these, float64 numbers, or texts of targets.
    """

    bucket_ms: Integers
    values: Values

    @classmethod
    def of(cls, bucket_ms: Integers, given: Column | Targets) -> Told:
        """Args: bucket_ms, of all buckets of the column."""
        at = np.flatnonzero(given.there)
        if isinstance(given, Column):
            return cls(bucket_ms[at], given.values[at])
        texts = [target_text(value) for value in map(given.at, at.tolist()) if value is not None]
        return cls(bucket_ms[at], np.array(texts, dtype=np.str_))

    @classmethod
    def of_outputs(cls, given: Sequence[tuple[int, Output]]) -> Told:
        """Of single outputs, each with its bucket."""
        buckets = np.array([bucket_ms for bucket_ms, _ in given], dtype=np.int64)
        values = [target_text(one) if isinstance(one, PositionTargetValue) else one for _, one in given]
        return cls(buckets, np.array(values, dtype=np.float64 if _are_numbers(values) else np.str_))

    def __len__(self) -> int:
        return len(self.bucket_ms)

    def upto(self, bucket_ms: int) -> Told:
        """What was given in the buckets until one, that one included."""
        end = int(np.searchsorted(self.bucket_ms, bucket_ms, side="right"))
        return Told(self.bucket_ms[:end], self.values[:end])

    def since(self, bucket_ms: int) -> Told:
        """What was given in the buckets from one on, that one included."""
        begin = int(np.searchsorted(self.bucket_ms, bucket_ms))
        return Told(self.bucket_ms[begin:], self.values[begin:])

    def moved(self, by_ms: int) -> Told:
        return Told(self.bucket_ms + by_ms, self.values)

    def text(self, place: int) -> str:
        value = self.values[place]
        return str(value) if isinstance(value, str) else repr(float(value))

    def bits(self) -> Values:
        """The values, equal exactly where they are the same to the last bit."""
        return self.values.view(np.int64) if self.values.dtype == np.float64 else self.values


EMPTY: Final = Told(np.zeros(0, dtype=np.int64), np.zeros(0))


def difference(symbol: str, was: Told, became: Told, tolerance: float = 0.0) -> Difference | None:
    """The first bucket in which two differ; None where they are the same.

    Args:
        tolerance: by which numbers may differ, as a share of the larger or, below 1, as it is; 0 compares bits.
    """
    count = min(len(was), len(became))
    apart = was.bucket_ms[:count] != became.bucket_ms[:count]
    if count and was.values.dtype.kind != became.values.dtype.kind:
        apart = np.ones(count, dtype=np.bool_)
    elif tolerance and was.values.dtype == np.float64:
        one, other = was.values[:count], became.values[:count]
        allowed = tolerance * np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
        apart = apart | (np.abs(one - other) > allowed)
    else:
        apart = apart | (was.bits()[:count] != became.bits()[:count])
    places = np.flatnonzero(apart)
    if len(places):
        place = int(places[0])
    elif len(was) != len(became):
        place = count
    else:
        return None
    bucket_ms = min(int(one.bucket_ms[place]) for one in (was, became) if place < len(one))
    return Difference(symbol, bucket_ms, _at(was, place, bucket_ms), _at(became, place, bucket_ms))


def changed(was: Told, became: Told) -> Integers:
    """All buckets in which two differ, ascending."""
    both, one, other = np.intersect1d(
        was.bucket_ms, became.bucket_ms, assume_unique=True, return_indices=True
    )
    alone = np.setxor1d(was.bucket_ms, became.bucket_ms, assume_unique=True)
    if len(both) and was.values.dtype.kind != became.values.dtype.kind:
        return np.union1d(alone, both).astype(np.int64)
    return np.union1d(alone, both[was.bits()[one] != became.bits()[other]]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a function failed: from that bucket on its node gives nothing, for any symbol."""

    bucket_ms: int
    symbol: str
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What one run gave.

    Attributes:
        told: by node id and symbol.
        failures: by node id.
        remembers: ids of the nodes that remember more than their last inputs, so that a difference fades instead of leaving a window.
        unequal: by node id, where a function that was called a second time with the same view gave something else.
        trades: a digest of orders, fills, rejections and books; empty where none were made.
    """

    told: Mapping[str, Mapping[str, Told]]
    failures: Mapping[str, Failure] = field(default_factory=dict)
    remembers: frozenset[str] = frozenset()
    unequal: Mapping[str, Difference] = field(default_factory=dict)
    trades: str = ""

    def of(self, node_id: str, symbol: str) -> Told:
        return self.told.get(node_id, {}).get(symbol, EMPTY)

    def upto(self, bucket_ms: int) -> Trace:
        """The part of it until a bucket, that one included."""
        told = {
            node_id: {symbol: one.upto(bucket_ms) for symbol, one in by_symbol.items()}
            for node_id, by_symbol in self.told.items()
        }
        failures = {node_id: one for node_id, one in self.failures.items() if one.bucket_ms <= bucket_ms}
        return Trace(told, failures, self.remembers)

    def since(self, bucket_ms: int) -> Trace:
        """The part of it from a bucket on, that one included."""
        told = {
            node_id: {symbol: one.since(bucket_ms) for symbol, one in by_symbol.items()}
            for node_id, by_symbol in self.told.items()
        }
        return Trace(told, self.failures, self.remembers)

    def digest(self, node_id: str) -> str:
        """BLAKE3 of all that a node gave."""
        hashed = blake3()
        for symbol in sorted(self.told.get(node_id, {})):
            one = self.of(node_id, symbol)
            values = one.bits().tolist()
            hashed.update(repr((symbol, one.bucket_ms.tolist(), values)).encode())
        return hashed.hexdigest()


def differences(was: Trace, became: Trace, tolerance: float = 0.0) -> Mapping[str, Difference]:
    """Of each node that differs, the first bucket in which it does."""
    found: dict[str, Difference] = {}
    for node_id in was.told.keys() | became.told.keys():
        symbols = sorted(was.told.get(node_id, {}).keys() | became.told.get(node_id, {}).keys())
        each = [
            difference(symbol, was.of(node_id, symbol), became.of(node_id, symbol), tolerance)
            for symbol in symbols
        ]
        first = min((one for one in each if one is not None), key=_place, default=None)
        if first is not None:
            failed = (_failed(was, node_id, first), _failed(became, node_id, first))
            found[node_id] = Difference(
                first.symbol, first.bucket_ms, failed[0] or first.was, failed[1] or first.became
            )
    return {node_id: found[node_id] for node_id in sorted(found)}


def _place(one: Difference) -> tuple[int, str]:
    return one.bucket_ms, one.symbol


def _failed(trace: Trace, node_id: str, first: Difference) -> str:
    failure = trace.failures.get(node_id)
    return "" if failure is None or failure.bucket_ms > first.bucket_ms else failure.what


def _at(told: Told, place: int, bucket_ms: int) -> str:
    if place < len(told) and int(told.bucket_ms[place]) == bucket_ms:
        return told.text(place)
    return NOTHING


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(one, float) for one in values)


def target_text(value: PositionTargetValue) -> str:
    return f"{text(value.target_percent)} at {text(value.reference_price)}"
