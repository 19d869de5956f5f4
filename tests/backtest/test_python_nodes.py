"""A function over columns sees and gives what it sees and gives record by record."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.backtest.python_nodes import Stated, columns, until
from qmtl.foundation.common.errors import ComputeFailed
from qmtl.runtime.columns import BarColumns, Column, Scaled
from qmtl.runtime.sdk.python_node import ALL, ANY, TARGET, VALUE, PythonParams, PythonRunning, Target
from qmtl.runtime.sdk.view import CacheView


def whole(view: CacheView) -> float | None:
    """All that can be seen, as one number."""
    total = float(view.bucket_ms % 9973) + len(view.symbol) + float(view.bar.open)
    for label in view.params["labels"]:
        slots = view[label][60]
        rows = list(slots) + list(slots[-2:]) + [slots[at] for at in range(-len(slots), len(slots))]
        total += sum(bucket % 101 + value for bucket, value in rows) + len(slots) + sum(slots.values())
        window = view.window(label, 60, view.params["count"])
        total += window.sum() + sum(window.buckets_ms()) % 997 + len(window)
        if (newest := slots.latest()) is not None:
            total += newest[1] + newest[0] % 7
    return None if int(total) % 5 == 0 else total


def bars(view: CacheView) -> float:
    return sum(float(one.close) * at for at, one in enumerate(view.bars(view.params["count"]))) + float(
        view.bar.volume
    )


def leaning(view: CacheView) -> Target | None:
    value = view["a"][60].latest()
    if value is None or value[1] > 50:
        return None
    return Target(value[1] / 100) if value[1] > 0 else Target(Decimal("0.25"), view.bar.high)


def failing(view: CacheView) -> float:
    found = view["a"][60].latest()
    if found is not None and found[1] > 20:
        raise ValueError(f"{found[1]} is more than 20")
    return 1.0 if found is None or found[1] >= -20 else float("nan")


@st.composite
def market(draw: st.DrawFn, ports: int) -> tuple[BarColumns, list[Column]]:
    minutes = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=30)))
    times = np.array(minutes, dtype=np.int64) * 60_000
    draws = [draw(st.integers(1_000, 9_000)) for _ in minutes]
    price = np.array(draws, dtype=np.int64)
    opens, highs, lows, closes = [Scaled(price + add, 2) for add in (0, 500, -500, 100)]
    made = BarColumns("A-USD", 60, times, opens, highs, lows, closes, Scaled(price % 7, 0))
    values = st.none() | st.floats(-100, 100).map(lambda one: round(one, 3))
    return made, [Column.of([draw(values) for _ in minutes]) for _ in range(ports)]


def record_by_record(
    params: PythonParams, function: Callable[[CacheView], Any], inputs: list[Column], made: BarColumns
) -> tuple[list[Any], str, int]:
    """What a worker gives: it takes a step in each bucket in which an input has a value."""
    running = PythonRunning(params, 60, function, None)
    out: list[Any] = []
    for place, bar in enumerate(made.bars()):
        row = tuple([port.at(place) for port in inputs])
        if all(value is None for value in row):
            out.append(None)
            continue
        try:
            out.append(running.step(row, bar))
        except ComputeFailed as failed:
            return out, failed.what, int(made.bucket_ms[place])
    return out, "", 0


@pytest.mark.parametrize(
    ("function", "gives", "ports"),
    [(whole, VALUE, 1), (whole, VALUE, 3), (bars, VALUE, 2), (leaning, TARGET, 2), (failing, VALUE, 1)],
)
@pytest.mark.parametrize("when", [ALL, ANY])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_columns_give_what_steps_give(
    function: Callable[[CacheView], Any], gives: str, ports: int, when: str, data: st.DataObject
) -> None:
    made, inputs = data.draw(market(ports))
    period = data.draw(st.integers(1, 4))
    kept = data.draw(st.integers(1, 4)) if function is bars else data.draw(st.sampled_from([0, 0, 3]))
    labels = ("a", "b", "c")[:ports]
    count = data.draw(st.integers(1, kept if function is bars else period))
    own = MappingProxyType({"labels": labels, "count": count})
    params = PythonParams(gives, when, labels, kept, own, period)
    meant, what, bucket_ms = record_by_record(params, function, inputs, made)
    found, failed = columns(params, 60, function, inputs, made)
    got: list[Any] = [None] * len(made)
    if isinstance(found, Stated):
        for at, target in zip(found.at.tolist(), found.targets, strict=True):
            got[at] = target
    else:
        assert isinstance(found, Column)
        got = found.items()
    assert got[: len(meant)] == meant
    assert got[len(meant) :] == [None] * (len(made) - len(meant))
    assert ("" if failed is None else failed.error.what, 0 if failed is None else failed.bucket_ms) == (
        what,
        bucket_ms,
    )
    middle = int(made.bucket_ms[len(made) // 2])
    cut = until(found, made, middle)
    assert (cut.at if isinstance(cut, Stated) else np.flatnonzero(cut.there)).tolist() == [
        at for at, value in enumerate(got) if value is not None and made.bucket_ms[at] < middle
    ]
