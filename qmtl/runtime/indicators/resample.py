"""From the interval of a graph to a longer one: one value for all buckets of a quarter of an hour, an hour, a day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

import numpy as np

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Floats, Integers
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import choice, whole
from qmtl.runtime.indicators.recursive import Recursive, State

DAY_S: Final = 86_400
_TIME: Final = Struct(">q").pack
_NONE: Final = 0.0
"""The end of no interval: nothing is gathered."""


def _first(kept: float, value: float) -> float:
    return kept


def _last(kept: float, value: float) -> float:
    return value


def _sum(kept: float, value: float) -> float:
    return kept + value


_HOW: Final[dict[str, Callable[[float, float], float]]] = {
    "first": _first, "last": _last, "min": min, "max": max, "sum": _sum, "mean": _sum,
    "open": _first, "high": max, "low": min, "close": _last, "volume": _sum,
}  # fmt: skip
OF_BARS: Final = ("open", "high", "low", "close", "volume")
"""What is taken of the bars instead of the input."""
TAKES: Final = tuple(_HOW)


class _Resample:
    """What was gathered of the longer interval that ends at `end`."""

    names = ("end", "kept", "count")
    begin: State = (_NONE, 0.0, 0.0)

    def __init__(self, every: int, take: str) -> None:
        self._every_ms = every * 1000
        self._how, self._is_mean = _HOW[take], take == "mean"
        self._field = take if take in OF_BARS else ""

    def _next(self, state: State, bucket_ms: int, value: float) -> tuple[State, float | None]:
        end, kept, count = state
        ends = -(-bucket_ms // self._every_ms) * self._every_ms
        given = None
        if end == ends:
            kept, count = self._how(kept, value), count + 1.0
        else:
            if end != _NONE:  # the last bar of that interval is absent
                given = self._told(kept, count)
            kept, count = value, 1.0
        if bucket_ms == ends:
            return self.begin, self._told(kept, count)
        return (float(ends), kept, count), given

    def _told(self, kept: float, count: float) -> float:
        return kept / count if self._is_mean else kept

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        value = float(getattr(bar, self._field)) if self._field else values[0]
        return self._next(state, bar.open_time_ms + bar.interval * 1000, value)

    def reads(self, bar: Bar) -> bytes:
        own = str(getattr(bar, self._field).normalize()).encode() if self._field else b""
        return _TIME(bar.open_time_ms + bar.interval * 1000) + own

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        values = getattr(bars, self._field).floats()[at] if self._field else ports[0]
        out = np.full(len(at), np.nan)
        for place, (bucket_ms, value) in enumerate(
            zip(bars.bucket_ms[at].tolist(), values.tolist(), strict=True)
        ):
            state, given = self._next(state, bucket_ms, value)
            if given is not None:
                out[place] = given
        return state, out


def _resample(params: Parsed, window: NodeWindow | None) -> Recursive:
    return Recursive("resample", _Resample(params.values["every"], params.values["take"]), window)


RESAMPLE: Final = Indicator(
    "resample", 1, _resample, rules={"every": whole(1, DAY_S), "take": choice(*TAKES)}
)
"""One value of the buckets that end in the `every` seconds up to a multiple of these since the epoch (UTC): of the input `first`, `last`, `min`,
`max`, `sum` or `mean`, or of the bars `open`, `high`, `low`, `close` or `volume`. It is given in the bucket that ends that interval; where the bar of
that bucket is absent, in the next one, unless that ends an interval of its own, which then is the one that is given. Nothing else
is late, nothing is filled in, and an interval without a bucket gives nothing."""
