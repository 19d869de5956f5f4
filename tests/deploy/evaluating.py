"""Says what an expression of our rules is at an instant, of samples that are given.

As Prometheus 3 has it: a range is open at its left end, an instant selector looks back 5 minutes and ends at a stale marker, `rate` and
`increase` take a drop for a reset and extrapolate to the ends of their range, a comparison that is not true leaves its series out.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, TypeAlias, assert_never

from tests.deploy.promql import Aggregate, Binary, Call, Expr, Number, PromqlError, Select

LOOKBACK_S: Final = 300.0
NAME: Final = "__name__"

Labels: TypeAlias = frozenset[tuple[str, str]]
Vector: TypeAlias = dict[Labels, float]
Points: TypeAlias = list[tuple[float, float]]

# ---- what was scraped ----------------------------------------------------------------------------------------------------


class Store:
    """The samples of every series, in the order of time."""

    def __init__(self) -> None:
        self._series: dict[str, dict[Labels, Points]] = {}

    def put(self, name: str, labels: Labels, at_s: float, value: float | None) -> None:
        """Append a sample; None for a stale marker, where the series is not there any more."""
        points = self._series.setdefault(name, {}).setdefault(labels | {(NAME, name)}, [])
        if value is not None:
            points.append((at_s, value))
        elif points and not _is_stale(points[-1][1]):
            points.append((at_s, _STALE))

    def labels(self, name: str) -> set[Labels]:
        """Of every series of a name, without the name."""
        return {_without(labels, NAME) for labels in self._series.get(name, {})}

    def series(self, of: Select) -> Iterator[tuple[Labels, Points]]:
        for labels, points in self._series.get(of.name, {}).items():
            named = dict(labels)
            if all(_matches(named.get(label, ""), op, value) for label, op, value in of.matchers):
                yield labels, points


_STALE: Final = math.inf
"""No metric of ours is infinite."""


def _is_stale(value: float) -> bool:
    return value == _STALE


def _matches(value: str, op: str, wanted: str) -> bool:
    if op == "=~":
        return re.fullmatch(wanted, value) is not None
    return (value == wanted) == (op == "=")


def _until(points: Points, at_s: float) -> int:
    """How many are not later."""
    return bisect_right(points, at_s, key=lambda point: point[0])


def _instant(store: Store, of: Select, now_s: float) -> Vector:
    at_s, out = now_s - of.offset_s, Vector()
    for labels, points in store.series(of):
        count = _until(points, at_s)
        if count and points[count - 1][0] > at_s - LOOKBACK_S and not _is_stale(points[count - 1][1]):
            out[labels] = points[count - 1][1]
    return out


def _ranged(store: Store, of: Select, now_s: float) -> Iterator[tuple[Labels, Points]]:
    at_s = now_s - of.offset_s
    for labels, points in store.series(of):
        inside = points[_until(points, at_s - of.range_s) : _until(points, at_s)]
        if found := [point for point in inside if not _is_stale(point[1])]:
            yield labels, found


# ---- evaluating ----------------------------------------------------------------------------------------------------------

_ARITHMETIC: Final[Mapping[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}
_COMPARING: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def evaluate(expr: Expr, store: Store, now_s: float) -> Vector | float:
    """What it is at an instant.

    Raises:
        PromqlError: it is not known, or Prometheus would refuse it there.
    """
    match expr:
        case Number():
            return expr.value
        case Select():
            if expr.range_s:
                raise PromqlError(f"{expr.name} over a range stands outside of a function")
            return _instant(store, expr, now_s)
        case Call():
            return _call(expr, store, now_s)
        case Aggregate():
            return _aggregate(expr, _vector(expr.arg, store, now_s))
        case Binary():
            return _binary(expr, evaluate(expr.left, store, now_s), evaluate(expr.right, store, now_s))
        case _:
            assert_never(expr)


def _vector(expr: Expr, store: Store, now_s: float) -> Vector:
    found = evaluate(expr, store, now_s)
    if isinstance(found, float):
        raise PromqlError(f"{expr} is a scalar")
    return found


def _call(call: Call, store: Store, now_s: float) -> Vector | float:
    match call.args:
        case ():
            return now_s
        case (Number(quantile), of):
            return _quantiles(quantile, _vector(of, store, now_s))
        case (Select() as of,):
            keeps_name = call.function == "last_over_time"
            values = (
                (labels if keeps_name else _without(labels, NAME), _over(call.function, points, of, now_s))
                for labels, points in _ranged(store, of, now_s)
            )
            return _unique((labels, value) for labels, value in values if value is not None)
        case _:
            raise PromqlError(f"{call} is not known")


def _over(function: str, points: Points, of: Select, now_s: float) -> float | None:
    values = [value for _, value in points]
    match function:
        case "last_over_time":
            return values[-1]
        case "max_over_time":
            return max(values)
        case "changes":
            return float(sum(a != b for a, b in pairwise(values)))
        case "deriv":
            return _slope(points)
        case "increase" | "rate":
            grown = _increase(points, now_s - of.offset_s - of.range_s, now_s - of.offset_s)
            return grown if grown is None or function == "increase" else grown / of.range_s
        case _:
            raise PromqlError(f"{function} is not known")


def _slope(points: Points) -> float | None:
    """By least squares, per second."""
    if len(points) < 2:
        return None
    middle_s = sum(at for at, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at - middle_s) ** 2 for at, _ in points)
    return sum((at - middle_s) * (value - mean) for at, value in points) / spread


def _increase(points: Points, begin_s: float, end_s: float) -> float | None:
    """As Prometheus reckons it: to the ends of the range, where the samples come close to them, and not below zero."""
    if len(points) < 2:
        return None
    (first_s, first), (last_s, last) = points[0], points[-1]
    pairs = pairwise(points)
    grown = last - first + sum(before for (_, before), (_, after) in pairs if after < before)
    sampled_s = last_s - first_s
    mean_s = sampled_s / (len(points) - 1)
    to_begin_s, to_end_s = first_s - begin_s, end_s - last_s
    if to_begin_s >= 1.1 * mean_s:
        to_begin_s = mean_s / 2
    if grown > 0 and first >= 0:
        to_begin_s = min(to_begin_s, sampled_s * first / grown)
    if to_end_s >= 1.1 * mean_s:
        to_end_s = mean_s / 2
    return grown * (sampled_s + to_begin_s + to_end_s) / sampled_s


def _quantiles(quantile: float, found: Vector) -> Vector:
    if not 0 <= quantile <= 1:
        raise PromqlError(f"{quantile} is no quantile")
    histograms: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in found.items():
        bound = float(dict(labels)["le"])
        histograms.setdefault(_without(labels, NAME, "le"), []).append((bound, value))
    return {labels: _quantile(quantile, sorted(buckets)) for labels, buckets in histograms.items()}


def _quantile(quantile: float, buckets: list[tuple[float, float]]) -> float:
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or not buckets[-1][1]:
        return math.nan
    rank = quantile * buckets[-1][1]
    at = next(number for number, (_, count) in enumerate(buckets) if count >= rank)
    if at == len(buckets) - 1:
        return buckets[-2][0]
    low, below = buckets[at - 1] if at else (0.0, 0.0)
    high, count = buckets[at]
    return low + (high - low) * (rank - below) / (count - below)


def _aggregate(how: Aggregate, found: Vector) -> Vector:
    groups: dict[Labels, list[float]] = {}
    for labels, value in found.items():
        groups.setdefault(_only(labels, how.by), []).append(value)
    match how.op:
        case "sum":
            return {labels: sum(values) for labels, values in groups.items()}
        case "max":
            return {labels: max(values) for labels, values in groups.items()}
        case "group":
            return dict.fromkeys(groups, 1.0)
        case _:
            raise PromqlError(f"{how.op} is not known")


def _binary(how: Binary, left: Vector | float, right: Vector | float) -> Vector | float:
    both = isinstance(left, dict) and isinstance(right, dict)
    if (how.op in ("and", "or", "unless") or how.on is not None) and not both:
        raise PromqlError(f"{how.op} takes two vectors here: {how}")
    if isinstance(left, dict) and isinstance(right, dict):
        return _of_sets(how, left, right) if how.op in ("and", "or", "unless") else _matched(how, left, right)
    if how.op in _COMPARING:
        if isinstance(left, dict) and isinstance(right, float):
            compare = _COMPARING[how.op]
            return {labels: value for labels, value in left.items() if compare(value, right)}
        raise PromqlError(f"only a vector is compared with a number: {how}")
    reckon = _ARITHMETIC[how.op]
    if isinstance(left, dict) and isinstance(right, float):
        return _unique((_without(labels, NAME), reckon(value, right)) for labels, value in left.items())
    if isinstance(left, float) and isinstance(right, dict):
        return _unique((_without(labels, NAME), reckon(left, value)) for labels, value in right.items())
    raise PromqlError(f"two numbers are not reckoned with: {how}")


def _of_sets(how: Binary, left: Vector, right: Vector) -> Vector:
    if how.many_right:
        raise PromqlError(f"{how.op} has no group_right")
    on_left = {_signature(labels, how.on) for labels in left}
    on_right = {_signature(labels, how.on) for labels in right}
    if how.op == "or":
        added = {
            labels: value for labels, value in right.items() if _signature(labels, how.on) not in on_left
        }
        return left | added
    wanted = how.op == "and"
    return {
        labels: value for labels, value in left.items() if (_signature(labels, how.on) in on_right) == wanted
    }


def _matched(how: Binary, left: Vector, right: Vector) -> Vector:
    """Two vectors, one for one, or one on the left for many on the right."""
    mine = _by_signature(left, how.on)
    if not how.many_right:
        _by_signature(right, how.on)
    out: list[tuple[Labels, float]] = []
    for labels, value in right.items():
        signature = _signature(labels, how.on)
        if signature not in mine:
            continue
        its_labels, its_value = mine[signature]
        if how.op in _ARITHMETIC:
            kept = _without(labels, NAME) if how.many_right else signature
            out.append((kept, _ARITHMETIC[how.op](its_value, value)))
        elif how.on is not None:
            raise PromqlError(f"vectors are compared on all labels alone: {how}")
        elif _COMPARING[how.op](its_value, value):
            out.append((its_labels, its_value))
    return _unique(out)


def _by_signature(found: Vector, on: frozenset[str] | None) -> dict[Labels, tuple[Labels, float]]:
    out = {_signature(labels, on): (labels, value) for labels, value in found.items()}
    if len(out) < len(found):
        raise PromqlError("several series of one side match one of the other")
    return out


def _signature(labels: Labels, on: frozenset[str] | None) -> Labels:
    return _without(labels, NAME) if on is None else _only(labels, on)


def _only(labels: Labels, names: Iterable[str]) -> Labels:
    wanted = frozenset(names)
    return frozenset(one for one in labels if one[0] in wanted)


def _without(labels: Labels, *names: str) -> Labels:
    return frozenset(one for one in labels if one[0] not in names)


def _unique(found: Iterable[tuple[Labels, float]]) -> Vector:
    out: Vector = {}
    for labels, value in found:
        if labels in out:
            raise PromqlError(f"two series have the labels {sorted(labels)}")
        out[labels] = value
    return out
