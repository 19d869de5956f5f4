"""Compute functions that fail while they run, each in a way of its own, with what is told of it; a worker finds them by this module's name."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from qmtl import CacheView, Target

LATE_MS: Final = 240_000
"""So long after the beginning of the minute 2018-04-04 00:00 they begin to fail: their first buckets are sound."""

BEGIN_MS: Final = 1_522_800_000_000


def _is_late(view: CacheView) -> bool:
    return view.bucket_ms > BEGIN_MS + LATE_MS


def raises(view: CacheView) -> float:
    if _is_late(view):
        raise ValueError("too late")
    return 1.0


def divides(view: CacheView) -> float:
    return 1.0 / (0.0 if _is_late(view) else 1.0)


def leaves(view: CacheView) -> float:
    if _is_late(view):
        raise SystemExit(3)
    return 1.0


def deep(view: CacheView) -> float:
    return deeper(1) if _is_late(view) else 1.0


def deeper(level: int) -> float:
    return deeper(level + 1)


def nothing_of(view: CacheView) -> Any:
    found = {"a": 1.0}
    return found["b" if _is_late(view) else "a"]


def not_a_number(view: CacheView) -> float:
    return float("nan") if _is_late(view) else 1.0


def endless(view: CacheView) -> float:
    return float("inf") if _is_late(view) else 1.0


def huge(view: CacheView) -> int:
    return 10**5000 if _is_late(view) else 1


def truth(view: CacheView) -> Any:
    return True if _is_late(view) else 1.0


def text(view: CacheView) -> Any:
    return "1.0" if _is_late(view) else 1.0


def listed(view: CacheView) -> Any:
    return [1.0] if _is_late(view) else 1.0


def exact(view: CacheView) -> Any:
    return Decimal(1) if _is_late(view) else 1.0


def targeting(view: CacheView) -> Any:
    return Target(0.5) if _is_late(view) else 1.0


def writes(view: CacheView) -> float:
    if _is_late(view):
        slots: Any = view[0][60]
        slots[0] = (0, 1.0)
    return 1.0


def lengthens(view: CacheView) -> float:
    if _is_late(view):
        slots: Any = view[0][60]
        slots.append((0, 1.0))
    return 1.0


def rewrites(view: CacheView) -> float:
    if _is_late(view):
        params: Any = view.params
        params["x"] = 1
    return 1.0


def unknown_input(view: CacheView) -> float:
    return view["other"][60][-1][1] if _is_late(view) else 1.0


def other_interval(view: CacheView) -> float:
    return view[0][3600][-1][1] if _is_late(view) else 1.0


def too_far(view: CacheView) -> float:
    return view.window(0, 60, 3).mean() if _is_late(view) else 1.0


def beyond(view: CacheView) -> float:
    return view[0][60][2][1] if _is_late(view) else 1.0


def too_many_bars(view: CacheView) -> float:
    return float(view.bars(2)[0].close) if _is_late(view) else 1.0


def too_much(view: CacheView) -> Target:
    return Target(1.5 if _is_late(view) else 0.1)


def far_too_much(view: CacheView) -> Target:
    return Target(10**5000 if _is_late(view) else 0)


def free_of_charge(view: CacheView) -> Target:
    return Target(0.1, Decimal(0 if _is_late(view) else 1))


def priceless(view: CacheView) -> Target:
    return Target(0.1, Decimal("1e41") if _is_late(view) else None)


def too_fine(view: CacheView) -> Target:
    return Target(Decimal("0." + "1" * 41) if _is_late(view) else 0)


def numbered(view: CacheView) -> Any:
    return 0.5 if _is_late(view) else Target(0.1)


class Failing(NamedTuple):
    """A function, what it gives, and what the cause of its node's state says beside symbol and bucket."""

    function: Callable[[CacheView], Any]
    says: tuple[str, ...]
    gives: str = "value"


FAILING: Final = (
    Failing(raises, ("it raised ValueError (too late)",)),
    Failing(divides, ("it raised ZeroDivisionError",)),
    Failing(leaves, ("it raised SystemExit (3)",)),
    Failing(deep, ("it raised RecursionError",)),
    Failing(nothing_of, ("it raised KeyError ('b')",)),
    Failing(not_a_number, ("the number nan", "a finite one is required")),
    Failing(endless, ("the number inf", "a finite one is required")),
    Failing(huge, ("the number inf", "a finite one is required")),
    Failing(truth, ("the truth value true", "a number or None is required")),
    Failing(text, ("the text '1.0'", "a number or None is required")),
    Failing(listed, ("a list", "a number or None is required")),
    Failing(exact, ("the number 1", "a number or None is required")),
    Failing(targeting, ("a Target", "a number or None is required")),
    Failing(writes, ("it raised TypeError", "item assignment")),
    Failing(lengthens, ("it raised AttributeError", "no attribute 'append'")),
    Failing(rewrites, ("it raised TypeError", "item assignment")),
    Failing(unknown_input, ("QMTL-414", "'other'", "the node reads price")),
    Failing(other_interval, ("3600 s", "an interval of 60 s")),
    Failing(too_far, ("the node's period 2",)),
    Failing(beyond, ("slot 2 of 2",)),
    Failing(too_many_bars, ("2 bars", "the 1 that the node keeps")),
    Failing(too_much, ("a target of the number 1.5", "from -1 to 1"), "target"),
    Failing(far_too_much, ("a target of a int", "from -1 to 1"), "target"),
    Failing(free_of_charge, ("a target at the number 0", "positive"), "target"),
    Failing(priceless, ("a target at the number 1E+41",), "target"),
    Failing(too_fine, ("a target of the number 0.111",), "target"),
    Failing(numbered, ("the number 0.5", "a Target or None is required"), "target"),
)


def sound(view: CacheView) -> float:
    """One that never fails."""
    return view[0][60][-1][1]
