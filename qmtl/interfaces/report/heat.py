"""A heat map of two parameters as SVG text: a cell for each pair of values, its colour one that all people tell apart, its value written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.interfaces.report.svg import WIDTH
from qmtl.interfaces.report.words import shown

MAX_SIDE: Final = 200
"""Values of a parameter that are drawn; of more there is only the table."""

_LEFT: Final = 76
_RIGHT: Final = 14
_TOP: Final = 12
_AXIS: Final = 44
_KEY: Final = 46
_WRITTEN_WIDTH: Final = 44
_WRITTEN_HEIGHT: Final = 16
_LABELS: Final = 20

_ONE_WAY: Final = ("#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838")
"""Cividis: dark blue to yellow, made so that those who are blind to red or green see the same steps. Nuñez, Anderton and Renslow 2018."""

_TWO_WAYS: Final = ("#b35806", "#f1a340", "#fee0b6", "#f7f7f7", "#d8daeb", "#998ec3", "#542788")
"""Orange below 0, violet above, light at 0: PuOr of ColorBrewer, for the same readers. Brewer 2003."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair of values.

    Attributes:
        value: None where it is undefined.
        told: all about it, for a tool tip.
        failed: there is no result.
    """

    value: float | None
    told: str
    failed: bool = False


def heat_map(
    name: str,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]],
    cells: Mapping[tuple[int, int], Cell],
    write: Callable[[float], str],
) -> str:
    """The map.

    Args:
        name: of the figure.
        x, y: the parameter's name and its values as text, in order; y goes upwards.
        cells: by the places of the two values; a pair that was not tried is absent.
        write: a value as people read it.
    """
    columns, rows = len(x[1]), len(y[1])
    inner = WIDTH - _LEFT - _RIGHT
    wide = inner / columns
    high = max(6.0, min(34.0, 620 / rows, wide))
    bottom = _TOP + high * rows
    values = [one.value for one in cells.values() if one.value is not None]
    low, top = (min(values), max(values)) if values else (0.0, 0.0)
    ramp = _Ramp(low, top)
    writes = wide >= _WRITTEN_WIDTH and high >= _WRITTEN_HEIGHT
    label = shown(f"{name} by {x[0]} and {y[0]}")
    out = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + _AXIS + _KEY:.0f}" role="img" aria-label="{label}">',
        f"<title>{label}</title>",
    ]
    for (at_x, at_y), cell in sorted(cells.items()):
        left, over = _LEFT + at_x * wide, bottom - (at_y + 1) * high
        colour, ink = ramp.of(cell.value)
        out.append(
            f'<g><title>{shown(cell.told)}</title><rect x="{left:.1f}" y="{over:.1f}" width="{wide:.1f}" height="{high:.1f}" {colour}/>'
        )
        text = "×" if cell.failed else "–" if cell.value is None else write(cell.value) if writes else ""
        if text:
            out.append(
                f'<text class="cell" x="{left + wide / 2:.1f}" y="{over + high / 2 + 4:.1f}" style="fill:{ink}">{shown(text)}</text>'
            )
        out.append("</g>")
    for at, value in _some(x[1]):
        out.append(
            f'<text class="x" x="{_LEFT + (at + 0.5) * wide:.1f}" y="{bottom + 15:.1f}">{shown(value)}</text>'
        )
    for at, value in _some(y[1]):
        out.append(
            f'<text class="y" x="{_LEFT - 8}" y="{bottom - (at + 0.5) * high + 3.5:.1f}">{shown(value)}</text>'
        )
    out.append(f'<text class="x" x="{_LEFT + inner / 2:.1f}" y="{bottom + 32:.1f}">{shown(x[0])}</text>')
    out.append(f'<text x="4" y="{bottom + 15:.1f}">{shown(y[0])}</text>')
    out += ramp.key(bottom + _AXIS, write) if values else []
    out.append("</svg>")
    return "".join(out)


class _Ramp:
    """Colours of values: of one hue upwards where all have one sign, else two hues that part at 0."""

    def __init__(self, low: float, high: float) -> None:
        self._both = low < 0 < high
        self._stops = _TWO_WAYS if self._both else _ONE_WAY
        far = max(abs(low), abs(high))
        self._low, self._high = (-far, far) if self._both else (low, high)
        self._drawn = (low, high)

    def of(self, value: float | None) -> tuple[str, str]:
        """Attributes of a cell, and the colour of what is written on it."""
        if value is None:
            return 'fill="none" stroke="#888" stroke-dasharray="2 2"', "var(--dim)"
        span = self._high - self._low
        red, green, blue = _mixed(self._stops, (value - self._low) / span if span else 0.5)
        light = 0.2126 * _linear(red) + 0.7152 * _linear(green) + 0.0722 * _linear(blue)
        return f'fill="#{red:02x}{green:02x}{blue:02x}"', "#000" if light > 0.179 else "#fff"

    def key(self, top: float, write: Callable[[float], str]) -> list[str]:
        """The scale: what the colours mean."""
        low, high = self._drawn
        steps, wide = 60, (WIDTH - _LEFT - _RIGHT) / 60
        out = []
        for at in range(steps):
            colour, _ = self.of(low + (high - low) * (at + 0.5) / steps)
            out.append(
                f'<rect x="{_LEFT + at * wide:.1f}" y="{top:.1f}" width="{wide + 0.5:.1f}" height="10" {colour}/>'
            )
        marks = [(low, float(_LEFT), "start"), (high, float(WIDTH - _RIGHT), "end")]
        if self._both:
            marks.append((0.0, _LEFT + (WIDTH - _LEFT - _RIGHT) * -low / (high - low), "middle"))
        for value, left, anchor in marks:
            out.append(
                f'<text x="{left:.1f}" y="{top + 24:.1f}" style="text-anchor:{anchor}">{shown(write(value))}</text>'
            )
        return out


def _mixed(stops: Sequence[str], share: float) -> tuple[int, int, int]:
    """The colour at a share of the way through the stops, in straight lines between two."""
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    first = min(int(at), len(stops) - 2)
    part = at - first
    one, other = (bytes.fromhex(stop[1:]) for stop in stops[first : first + 2])
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _linear(channel: int) -> float:
    """The light of a channel of sRGB; WCAG 2.2, relative luminance."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)


def _some(values: Sequence[str]) -> list[tuple[int, str]]:
    """The values that are written along an axis, evenly."""
    step = -(-len(values) // _LABELS)
    return [(at, value) for at, value in enumerate(values) if at % step == 0]
