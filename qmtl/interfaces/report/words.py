"""Numbers and times as a report shows them, and whatever else it shows made harmless."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from typing import Final

from qmtl.foundation.common.money import text
from qmtl.runtime.performance.kpi import Figure, Unit

NONE: Final = "–"
_MINUS: Final = "\u2212"
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def shown(value: object) -> str:
    """Any text as HTML, without what would end a tag, an attribute or a line; control characters become a replacement sign."""
    clean = "".join(one if one.isprintable() or one == "\u00a0" else "\ufffd" for one in str(value))
    return escape(clean, quote=True)


def money(value: Decimal | float) -> str:
    """Two digits after the point; small amounts with as many as they need."""
    size = abs(float(value))
    places = 2 if size >= 1 or not size else min(8, 2 - math.floor(math.log10(size)))
    return f"{value:,.{places}f}".replace("-", _MINUS)


def price(value: Decimal | float) -> str:
    """Six significant digits at least, and none after a point that say nothing."""
    size = abs(float(value))
    places = 2 if size >= 1000 or not size else min(12, max(2, 5 - math.floor(math.log10(size))))
    return f"{value:,.{places}f}".replace("-", _MINUS)


def share(value: float) -> str:
    """As percent; with more digits where two would say nothing."""
    hundred = 100 * value
    if abs(hundred) >= 1e6:
        return f"{hundred:.2e} %".replace("-", _MINUS)
    places = 2 if abs(hundred) >= 0.1 or not hundred else 4
    return f"{hundred:,.{places}f} %".replace("-", _MINUS)


def number(value: float) -> str:
    return (f"{value:.3g}" if abs(value) >= 1e6 else f"{value:,.2f}").replace("-", _MINUS)


def quantity(value: Decimal) -> str:
    return text(value).replace("-", _MINUS)


def quantity_of(value: float) -> str:
    """A round value of an axis."""
    written = f"{value:,.10f}".rstrip("0").rstrip(".")
    return written.replace("-", _MINUS)


def duration(span_ms: int) -> str:
    """The two largest units that it has."""
    seconds, parts = span_ms // 1000, []
    for size, unit in _UNITS:
        whole, seconds = divmod(seconds, size)
        if whole:
            parts.append(f"{whole} {unit}")
    return " ".join(parts[:2]) or f"{span_ms} ms"


def moment(at_ms: int) -> str:
    """A time of UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def short_moment(at_ms: int) -> str:
    """The same without seconds where it has none."""
    return moment(at_ms).removesuffix(":00") if at_ms % 60_000 == 0 else moment(at_ms)


def figure(one: Figure) -> str:
    """Its value, or a dash where it is undefined."""
    value = one.value
    if value is None:
        return NONE
    match one.unit:
        case Unit.MONEY:
            return money(value)
        case Unit.SHARE:
            return share(float(value))
        case Unit.NUMBER:
            return number(float(value))
        case Unit.COUNT:
            return f"{value:,}"
        case Unit.DURATION:
            return duration(int(value))
        case Unit.INSTANT:
            return moment(int(value))
