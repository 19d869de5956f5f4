"""Charts as SVG text: a line or an area over time, with axes that people can read. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from qmtl.interfaces.report.thin import thinned
from qmtl.interfaces.report.words import shown
from qmtl.runtime.columns import Floats, Integers

WIDTH: Final = 880
LEFT: Final = 76
RIGHT: Final = 14
TOP: Final = 12
BOTTOM: Final = 26
MAX_MARKS: Final = 600
"""Marks of one kind in a chart; of those that would lie on each other one is drawn."""

_CELL: Final = 5
_STEPS_MS: Final = tuple(
    step * 1000
    for step in (
        *(1, 2, 5, 10, 15, 30),
        *(60, 120, 300, 600, 900, 1800),
        *(3600, 7200, 10_800, 21_600, 43_200),
        *(86_400, 172_800, 604_800),
    )
)
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One series; `style` is its class: its colour, and whether it is filled down to 0."""

    times: Integers
    values: Floats
    style: str
    filled: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Single points: triangles that point up or down."""

    times: Sequence[int]
    values: Sequence[float]
    style: str
    up: bool


def chart(
    name: str,
    about: str,
    lines: Sequence[Line],
    marks: Sequence[Marks] = (),
    *,
    span: tuple[int, int],
    height: int,
    label: Callable[[float], str],
    with_zero: bool = False,
) -> str:
    """One chart.

    Args:
        name: its title, for those who hear it.
        about: what it shows, for those who hear it.
        span: from and to, epoch ms; charts of the same span lie under each other exactly.
        label: the text of a value on the axis.
        with_zero: the axis reaches 0.
    """
    drawn = [Line(*thinned(one.times, one.values), one.style, one.filled) for one in lines]
    spread = [float(edge(one.values)) for one in drawn if len(one.values) for edge in (np.min, np.max)]
    spread += [value for one in marks for value in one.values]
    low, high = _bounds(spread, with_zero=with_zero)
    ticks = value_ticks(low, high, max(2, height // 45))
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    begin, end = span if span[1] > span[0] else (span[0] - 1, span[0] + 1)
    inner, bottom = WIDTH - LEFT - RIGHT, height - BOTTOM

    def x(at: float) -> float:
        return LEFT + (at - begin) / (end - begin) * inner

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - TOP)

    out = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{shown(f"{name}: {about}")}">',
        f"<title>{shown(name)}</title>",
    ]
    for tick in ticks:
        at = y(tick)
        kind = "axis" if tick == 0 else "grid"
        out.append(f'<path class="{kind}" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="y" x="{LEFT - 8}" y="{at + 3.5:.1f}">{shown(label(tick))}</text>')
    for moment, text in time_ticks(begin, end):
        at = x(moment)
        out.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        kind = "x last" if at > WIDTH - RIGHT - 30 else "x"
        out.append(f'<text class="{kind}" x="{at:.1f}" y="{height - 8}">{shown(text)}</text>')
    for one in drawn:
        if not len(one.times):
            continue
        points = [
            f"{x(at):.1f} {y(value):.1f}"
            for at, value in zip(one.times.tolist(), one.values.tolist(), strict=True)
        ]
        path = "L".join(points)
        if len(points) == 1:
            px, py = points[0].split()
            out.append(f'<circle class="{one.style} dot" cx="{px}" cy="{py}" r="3"/>')
            continue
        if one.filled:
            first, last = points[0].split()[0], points[-1].split()[0]
            out.append(f'<path class="{one.style} area" d="M{first} {y(0):.1f}L{path}L{last} {y(0):.1f}Z"/>')
        out.append(f'<path class="{one.style} line" d="M{path}"/>')
    for mark in marks:
        size = 4.5 if mark.up else -4.5
        cells = _cells([(x(at), y(value)) for at, value in zip(mark.times, mark.values, strict=True)])
        shapes = (f"M{px:.1f} {py + size / 3:.1f}l-4 {size * 1.6:.1f}h8z" for px, py in cells)
        if cells:
            out.append(f'<path class="{mark.style} mark" d="{"".join(shapes)}"/>')
    out.append("</svg>")
    return "".join(out)


def _cells(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """One of the points that fall on the same few pixels, and no more than a picture bears."""
    seen = {(round(px / _CELL), round(py / _CELL)): (px, py) for px, py in reversed(points)}
    found = sorted(seen.values())
    step = math.ceil(len(found) / MAX_MARKS)
    return found[:: max(step, 1)]


def _bounds(values: Sequence[float], *, with_zero: bool) -> tuple[float, float]:
    kept = [*values, 0.0] if with_zero or not values else list(values)
    low, high = min(kept), max(kept)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.01 or 1.0
        return (low, high + room) if with_zero and low >= 0 else (low - room, high + room)
    return low, high


def value_ticks(low: float, high: float, count: int) -> list[float]:
    """About so many round values, of which the first and the last enclose both ends.

    Args:
        high: above `low`.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) + 0.0 for at in range(first, last + 1)]


def time_ticks(begin: int, end: int, count: int = 7) -> list[tuple[int, str]]:
    """About so many round instants of UTC within, with what is written at each: a date where a day begins, else the time of day."""
    rough = (end - begin) / count
    step = next((one for one in _STEPS_MS if one >= rough), None)
    if step is not None:
        found = range(-(-begin // step) * step, end + 1, step)
        return [(at, _moment(at, step)) for at in found]
    months = max(1, math.ceil(rough / (30 * _DAY_MS)))
    months = next((one for one in (1, 2, 3, 6) if one >= months), -(-months // 12) * 12)
    first = datetime.fromtimestamp(begin / 1000, UTC)
    at = -(-(first.year * 12 + first.month - 1) // months) * months
    out: list[tuple[int, str]] = []
    while True:
        moment = datetime(at // 12, at % 12 + 1, 1, tzinfo=UTC)
        at_ms = int(moment.timestamp()) * 1000
        if at_ms > end:
            return out
        if at_ms >= begin:
            out.append((at_ms, f"{moment:%Y}" if months >= 12 else f"{moment:%b %Y}"))
        at += months


def _moment(at_ms: int, step_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    if at_ms % _DAY_MS == 0:
        return f"{moment.day} {moment:%b}" + (f" {moment:%Y}" if step_ms >= _DAY_MS else "")
    return f"{moment:%H:%M:%S}" if step_ms < 60_000 else f"{moment:%H:%M}"
