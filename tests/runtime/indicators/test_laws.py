"""What is true of each built-in node whatever it is fed, restated with exact arithmetic and the standard library."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.common.identity import builtin_code_hash
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.indicators.builtin import Inputs, PositionTargetValue
from qmtl.runtime.indicators.registry import BUILTINS, code_hash
from qmtl.runtime.indicators.returns import log, logs
from tests.runtime.indicators.cases import (
    CASES,
    LEVELS,
    SYMBOL,
    TARGETS,
    Case,
    bars,
    few,
    prices,
    stepped,
    tame,
)

ONE = Decimal(1)
BAR = Bar(SYMBOL, 0, 60, ONE, ONE, ONE, ONE, ONE)

series = st.lists(few, max_size=30) | st.lists(prices, max_size=30) | st.lists(tame, max_size=30)
sizes = st.integers(2, 8)


def numbers(case: Case, period: int, rows: Sequence[Inputs]) -> list[float | None]:
    out, _ = stepped(case, period, rows, [BAR] * len(rows))
    assert not any(isinstance(value, PositionTargetValue) for value in out)
    return [value if isinstance(value, float) else None for value in out]


def one(node_type: str, period: int, values: Sequence[float], **params: object) -> list[float | None]:
    """Of a node with one input."""
    return numbers(Case(node_type, params), period, [(value,) for value in values])


def exact(value: float) -> Fraction:
    return Fraction(repr(value))


def windows(values: Sequence[float], size: int) -> list[list[Fraction] | None]:
    """The exact numbers of each full window."""
    return [
        [exact(value) for value in values[at + 1 - size : at + 1]] if at + 1 >= size else None
        for at in range(len(values))
    ]


# ---- windows ----------------------------------------------------------------------------------------------------


@given(series, sizes, st.integers(0, 1))
def test_std_is_the_root_of_the_exact_variance(values: list[float], size: int, ddof: int) -> None:
    variance = statistics.variance if ddof else statistics.pvariance
    assert one("std", size, values, ddof=ddof) == [
        None if window is None else math.sqrt(float(variance(window))) for window in windows(values, size)
    ]


@given(series, sizes, st.integers(0, 1))
def test_a_zscore_is_the_distance_from_the_mean_in_deviations(
    values: list[float], size: int, ddof: int
) -> None:
    deviation = statistics.stdev if ddof else statistics.pstdev
    for window, found in zip(windows(values, size), one("zscore", size, values, ddof=ddof), strict=True):
        if window is None or len(set(window)) == 1:
            assert found is None
        else:
            apart = float(window[-1] - statistics.mean(window))
            assert found == pytest.approx(apart / float(deviation(window)), rel=1e-14)


@given(
    st.lists(st.integers(-1000, 1000), max_size=30), sizes, st.integers(-(10**6), 10**6), st.integers(0, 6)
)
def test_a_zscore_stays_the_same_when_all_is_shifted_or_measured_in_another_unit(
    values: list[int], size: int, shift: int, places: int
) -> None:
    plain = one("zscore", size, [float(value) for value in values], ddof=1)
    other = [float(Decimal(value + shift).scaleb(-places)) for value in values]
    assert one("zscore", size, other, ddof=1) == plain


@given(series, sizes)
def test_a_wma_weighs_the_newest_most(values: list[float], size: int) -> None:
    expected = [
        None
        if window is None
        else float(
            sum((at * value for at, value in enumerate(window, 1)), Fraction()) / (size * (size + 1) // 2)
        )
        for window in windows(values, size)
    ]
    assert one("wma", size, values) == expected


@given(series, sizes)
def test_means_and_quantiles_lie_between_least_and_greatest(values: list[float], size: int) -> None:
    least, greatest = one("min", size, values), one("max", size, values)
    assert least == [None if window is None else float(min(window)) for window in windows(values, size)]
    assert greatest == [None if window is None else float(max(window)) for window in windows(values, size)]
    assert one("quantile", size, values, q=0) == least
    assert one("quantile", size, values, q=1) == greatest
    between = (
        one("sma", size, values),
        one("wma", size, values),
        one("quantile", size, values, q=0.3),
        one("quantile", size, values, q=0.5),
    )
    for low, high, *found in zip(least, greatest, *between, strict=True):
        if low is not None and high is not None:
            assert all(value is not None and low <= value <= high for value in found)


@given(series, sizes, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))
def test_a_quantile_is_that_of_numpy(values: list[float], size: int, q: float) -> None:
    for window, found in zip(windows(values, size), one("quantile", size, values, q=q), strict=True):
        if window is None:
            assert found is None
        else:
            near = float(np.quantile([float(value) for value in window], q))
            assert found == pytest.approx(near, rel=1e-12, abs=1e-9)


@given(st.lists(st.tuples(tame | few, few), max_size=30), sizes)
def test_a_correlation_is_within_one_and_symmetric_and_one_with_itself(
    pairs: list[tuple[float, float]], size: int
) -> None:
    case = Case("correlation")
    found = numbers(case, size, pairs)
    assert found == numbers(case, size, [(y, x) for x, y in pairs])
    columns = [windows([pair[port] for pair in pairs], size) for port in (0, 1)]
    for value, xs, ys in zip(found, *columns, strict=True):
        if xs is None or ys is None or len(set(xs)) == 1 or len(set(ys)) == 1:
            assert value is None
        else:
            assert value is not None
            assert -1.0 <= value <= 1.0
            assert value == pytest.approx(
                statistics.correlation([float(x) for x in xs], [float(y) for y in ys]), abs=1e-9
            )
    assert set(numbers(case, size, [(x, x) for x, _ in pairs])) <= {None, 1.0}
    assert set(numbers(case, size, [(x, -x) for x, _ in pairs])) <= {None, -1.0}


@given(series, sizes, st.floats(0.1, 5))
def test_the_bands_lie_around_the_mean(values: list[float], size: int, k: float) -> None:
    bands = {
        band: one("bollinger", size, values, band=band, k=k)
        for band in ("upper", "middle", "lower", "percent_b", "bandwidth")
    }
    assert bands["middle"] == one("sma", size, values)
    deviation = one("std", size, values, ddof=0)
    for at, middle in enumerate(bands["middle"]):
        spread = deviation[at]
        if middle is None or spread is None:
            assert all(found[at] is None for found in bands.values())
            continue
        upper, lower = middle + k * spread, middle - k * spread
        assert (bands["lower"][at], bands["upper"][at]) == (lower, upper)
        assert lower <= middle <= upper
        assert bands["bandwidth"][at] == ((upper - lower) / middle if middle else None)
        assert bands["percent_b"][at] == ((values[at] - lower) / (upper - lower) if upper > lower else None)


# ---- resample ---------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 60)), st.integers(1, 12), st.data())
def test_a_longer_interval_is_told_once_at_its_end_or_late_and_never_early(
    present: set[int], minutes: int, data: st.DataObject
) -> None:
    """Against a list of all buckets: whoever waits for each interval's end, and tells late what could not be told then."""
    buckets = sorted(present)
    values = [float(data.draw(st.integers(-9, 9))) for _ in buckets]
    take = data.draw(st.sampled_from(["first", "last", "min", "max", "sum", "mean"]))
    market = [Bar(SYMBOL, (one - 1) * 60_000, 60, ONE, ONE, ONE, ONE, ONE) for one in buckets]
    found, _ = stepped(
        Case("resample", {"every": 60 * minutes, "take": take}), 1, [(one,) for one in values], market
    )
    how: dict[str, Callable[[list[float]], float]] = {
        "first": lambda one: one[0],
        "last": lambda one: one[-1],
        "min": min,
        "max": max,
        "sum": math.fsum,
        "mean": statistics.fmean,
    }
    told = how[take]
    meant: list[float | None] = [None] * len(buckets)
    for end in range(minutes, 61 + minutes, minutes):
        inside = [at for at, one in enumerate(buckets) if end - minutes < one <= end]
        if not inside:
            continue
        value = float(told([values[at] for at in inside]))
        if buckets[inside[-1]] == end:
            meant[inside[-1]] = value  # and what was late is left out
        elif inside[-1] + 1 < len(buckets):
            meant[inside[-1] + 1] = value
    assert found == [None if one is None else pytest.approx(one) for one in meant]


# ---- returns ----------------------------------------------------------------------------------------------------


@given(series, st.integers(1, 4))
def test_a_return_is_the_exact_change_rounded_once(values: list[float], lag: int) -> None:
    simple, logs_ = (one("returns", lag, values, kind=kind) for kind in ("simple", "log"))
    for at, (change, log_) in enumerate(zip(simple, logs_, strict=True)):
        if at < lag or not values[at - lag]:
            assert change is log_ is None
            continue
        x, y = exact(values[at]), exact(values[at - lag])
        assert change == float((x - y) / y)
        if x / y <= 0:
            assert log_ is None
        else:
            assert log_ == pytest.approx(math.log(x / y), rel=1e-9, abs=1e-15)


@given(st.integers(1, 10**15), st.integers(1, 10**15))
@example(10**15 - 1, 10**15)
@example(3, 4)
@example(7, 5)
@settings(max_examples=200)
def test_a_logarithm_is_off_by_less_than_one_in_the_last_place(x: int, y: int) -> None:
    assume(x != y)
    found = log((x - y) / y, x / y)
    assert logs(np.array([(x - y) / y]), np.array([x / y])).tolist() == [found]
    with localcontext() as context:
        context.prec = 60
        near = _NEAR_ONE[0] < (x - y) / y < _NEAR_ONE[1]
        told = 1 + Decimal((x - y) / y) if near else Decimal(x / y)
        assert abs(Decimal(found) - told.ln()) < Decimal(math.ulp(found))


_NEAR_ONE = (-0.25, 0.4)


def test_a_thousandth_is_a_thousandth() -> None:
    assert one("returns", 1, [100.0, 100.1], kind="simple") == [None, 0.001]
    # The difference of the floats themselves would say so:
    assert (100.1 - 100.0) / 100.0 != 0.001


# ---- recursions -------------------------------------------------------------------------------------------------


@given(series, st.integers(1, 8))
def test_an_ema_begins_with_a_mean_and_stays_among_its_inputs(values: list[float], size: int) -> None:
    found = one("ema", size, values)
    assert found[: size - 1] == [None] * min(size - 1, len(values))
    for at, value in enumerate(found):
        if value is not None:
            least, greatest = min(values[: at + 1]), max(values[: at + 1])
            room = 1e-12 * max(abs(least), abs(greatest))
            assert least - room <= value <= greatest + room
    if len(values) >= size:
        assert found[size - 1] == pytest.approx(math.fsum(values[:size]) / size, rel=1e-12, abs=1e-9)


@given(series)
def test_macd_is_made_of_three_emas(values: list[float]) -> None:
    value, signal, histogram = (
        one("macd", 5, values, fast=2, signal=3, output=output) for output in ("value", "signal", "histogram")
    )
    fast, slow = one("ema", 2, values), one("ema", 5, values)
    assert value == [None if s is None or f is None else f - s for f, s in zip(fast, slow, strict=True)]
    assert [one for one in signal if one is not None] == [
        average
        for average in one("ema", 3, [known for known in value if known is not None])
        if average is not None
    ]
    assert histogram == [
        None if v is None or s is None else v - s for v, s in zip(value, signal, strict=True)
    ]


@given(series, st.integers(1, 8))
def test_an_rsi_is_a_share_of_hundred(values: list[float], size: int) -> None:
    found = one("rsi", size, values)
    assert found[:size] == [None] * min(size, len(values))
    assert all(value is None or 0.0 <= value <= 100.0 for value in found)
    mirrored = one("rsi", size, [-value for value in values])
    for value, other in zip(found, mirrored, strict=True):
        assert (value is None) == (other is None)
        if value is not None and other is not None:
            assert value + other == pytest.approx(100.0)


def test_an_rsi_of_one_way_is_at_its_end_and_of_no_way_nothing() -> None:
    assert one("rsi", 3, [1.0, 2.0, 3.0, 4.0, 6.0]) == [None, None, None, 100.0, 100.0]
    assert one("rsi", 3, [4.0, 3.0, 2.0, 1.0]) == [None, None, None, 0.0]
    assert one("rsi", 2, [1.0, 1.0, 1.0, 2.0]) == [None, None, None, 100.0]


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 20))
def test_an_atr_lies_between_the_least_and_the_greatest_true_range(seed: int, size: int, count: int) -> None:
    market = bars(seed, count)
    found, _ = stepped(Case("atr"), size, [(0.0,)] * count, market)
    ranges = [
        float(max(now.high, before.close) - min(now.low, before.close))
        for before, now in itertools.pairwise(market)
    ]
    for at, value in enumerate(found):
        if at < size:
            assert value is None
        else:
            assert isinstance(value, float)
            assert min(ranges[:at]) * (1 - 1e-12) <= value <= max(ranges[:at]) * (1 + 1e-12)


@pytest.mark.parametrize("node_type, period", [("ema", 1), ("ema", 3), ("rsi", 1), ("rsi", 2)])
def test_an_input_by_which_a_recursion_would_overflow_is_passed_over(node_type: str, period: int) -> None:
    huge = 1.7e308
    values = [1.0, 2.0, 1.0, 3.0]
    beyond = [huge, -huge, huge, -huge]
    case = Case(node_type)
    kind = BUILTINS[node_type]
    running = kind.resume(kind.parse({}, period), None)
    plain = [running.step((value,), BAR) for value in values]
    before = running.to_window("n", SYMBOL).memory
    told = [running.step((value,), BAR) for value in beyond]
    assert all(
        value is None or math.isfinite(value) for value in told if not isinstance(value, PositionTargetValue)
    )
    assert None in told
    memory = running.to_window("n", SYMBOL).memory or {}
    assert all(math.isfinite(float.fromhex(text)) for text in memory.values())
    assert before is not None
    assert plain == numbers(case, period, [(value,) for value in values])


# ---- bars -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 20))
def test_a_vwap_is_the_exact_average_and_lies_within_the_bars(seed: int, size: int, count: int) -> None:
    market = bars(seed, count)
    found, _ = stepped(Case("vwap"), size, [(0.0,)] * count, market)
    for at, value in enumerate(found):
        window = market[max(0, at + 1 - size) : at + 1]
        volume = sum(Fraction(bar.volume) for bar in window)
        if len(window) < size or not volume:
            assert value is None
            continue
        amount = sum(Fraction(bar.high + bar.low + bar.close) * Fraction(bar.volume) for bar in window)
        assert value == float(amount / (3 * volume))
        assert float(min(bar.low for bar in window)) <= float(value) <= float(max(bar.high for bar in window))


# ---- signals ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([-3.0, -2.0, -1.5, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), max_size=30))
def test_a_threshold_holds_a_side_from_its_entry_to_its_exit(values: list[float]) -> None:
    found = numbers(Case("threshold", LEVELS), 0, [(value,) for value in values])
    for at, side in enumerate(found):
        upper = [place for place in range(at + 1) if values[place] >= 2.0]
        lower = [place for place in range(at + 1) if values[place] <= -2.0]
        is_upper = bool(upper) and all(value > 0.5 for value in values[upper[-1] : at + 1])
        is_lower = bool(lower) and all(value < -1.0 for value in values[lower[-1] : at + 1])
        assert side == is_upper - is_lower


@given(few, few)
def test_a_combination_is_a_function_of_its_bucket(a: float, b: float) -> None:
    expected = {
        "min": min(a, b),
        "max": max(a, b),
        "and": 1.0 if min(a, b) > 0 else -1.0 if max(a, b) < 0 else 0.0,
        "or": float((max(a, b) > 0) - (min(a, b) < 0)),
    }
    for rule, value in expected.items():
        assert numbers(Case("combine", {"rule": rule}), 0, [(a, b)]) == [value]
    line = Case("linear", {"weights": [2, -0.5], "constant": 1})
    assert numbers(line, 0, [(a, b)]) == [2.0 * a + -0.5 * b + 1.0]


def test_a_line_beyond_a_float_is_nothing() -> None:
    line = Case("linear", {"weights": [2, 2], "constant": 0})
    assert numbers(line, 0, [(1e308, 1e308), (1e308, None), (1.0, 1.0)]) == [None, None, 4.0]


@given(st.lists(st.none() | few, max_size=30))
def test_a_target_on_change_gives_the_first_of_each_run(signals: list[float | None]) -> None:
    rows = [(signal,) for signal in signals]
    every, _ = stepped(Case("position_target", TARGETS), 0, rows, [BAR] * len(rows))
    found, _ = stepped(Case("position_target", {**TARGETS, "on_change": True}), 0, rows, [BAR] * len(rows))
    last = None
    for value, told in zip(every, found, strict=True):
        assert told == (None if value == last else value)
        last = last if value is None else value


def test_what_was_built_in_before_is_what_it_was() -> None:
    """Another hash, or another canonical form of the parameters, would make another node of each that runs."""
    for name in ("price", "sma", "cross", "position_target", "tag_query"):
        assert code_hash(name) == builtin_code_hash(name, "1")
    target = BUILTINS["position_target"]
    assert target.resume(target.parse(TARGETS, 0), None).to_window("n", SYMBOL).memory is None


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node_type, params, period, says",
    [
        (
            "position_target",
            {**TARGETS, "on_change": False},
            0,
            "on_change of a position_target node was the truth value false",
        ),
        ("position_target", {**TARGETS, "on_change": 1}, 0, "was the number 1; true is what it may be"),
        ("cross", {"turns_only": False}, 0, "turns_only of a cross node was the truth value false"),
        ("cross", {"turns": True}, 0, "'turns' of a cross node is unknown; it takes turns_only"),
        ("ema", {}, 0, "period of a ema node was the number 0; a whole number from 1"),
        ("ema", {"alpha": 0.5}, 3, "'alpha' of a ema node is unknown; it takes none"),
        ("macd", {"fast": 12, "signal": 9}, 26, "'output' of a macd node was missing"),
        (
            "macd",
            {"fast": 26, "signal": 9, "output": "value"},
            26,
            "fast of a macd node was the number 26; it is less than the period",
        ),
        (
            "macd",
            {"fast": 0, "signal": 9, "output": "value"},
            26,
            "fast of a macd node was the number 0; a whole number from 1",
        ),
        ("macd", {"fast": 2.0, "signal": 9, "output": "value"}, 26, "fast of a macd node was the number 2.0"),
        (
            "macd",
            {"fast": 2, "signal": 9, "output": "line"},
            26,
            "one of value, signal, histogram is required",
        ),
        (
            "bollinger",
            {"band": "upper", "k": 0},
            20,
            "k of a bollinger node was the number 0; a finite number above 0",
        ),
        ("bollinger", {"band": "upper", "k": "2"}, 20, "k of a bollinger node was the text '2'"),
        ("bollinger", {"band": "upper", "k": True}, 20, "was the truth value true"),
        ("bollinger", {"band": "upper", "k": math.nan}, 20, "was the number nan"),
        (
            "bollinger",
            {"band": "top", "k": 2},
            20,
            "band of a bollinger node was the text 'top'; one of upper",
        ),
        ("std", {"ddof": 2}, 5, "ddof of a std node was the number 2; a whole number from 0 to 1"),
        ("std", {"ddof": 1}, 1, "ddof was the number 1; it is less than the period"),
        ("zscore", {"ddof": 0}, 1, "period of a zscore node was the number 1; a whole number from 2"),
        ("quantile", {"q": 1.01}, 5, "q of a quantile node was the number 1.01; a number from 0 to 1"),
        (
            "returns",
            {"kind": "percent"},
            1,
            "kind of a returns node was the text 'percent'; one of simple, log",
        ),
        ("combine", {"rule": ["min"]}, 0, "rule of a combine node was a list; one of min, max, and, or"),
        (
            "linear",
            {"weights": [1], "constant": 0},
            0,
            "weights of a linear node was a list; a list of 2 finite numbers",
        ),
        ("linear", {"weights": [1, "2"], "constant": 0}, 0, "weights of a linear node was a list"),
        (
            "linear",
            {"weights": [1, 2], "constant": 10**400},
            0,
            "constant of a linear node was the number 1000",
        ),
        ("threshold", {**LEVELS, "upper_exit": 2}, 0, "were -2, -1, 2, 2; lower_enter < lower_exit"),
        ("threshold", {**LEVELS, "lower_exit": 1}, 0, "were -2, 1, 0.5, 2; lower_enter < lower_exit"),
    ],
)
def test_what_a_node_can_not_be_is_refused_in_words(
    node_type: str, params: dict[str, object], period: int, says: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        BUILTINS[node_type].parse(params, period)
    assert says in refused.value.what
    assert refused.value.remedy


@pytest.mark.parametrize(
    "node_type", sorted(set(BUILTINS) - {"price", "cross", "position_target", "tag_query"})
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_changes_nothing(node_type: str, value: float) -> None:
    kind = BUILTINS[node_type]
    case = next(case for case in CASES if case.node_type == node_type)
    running = kind.resume(kind.parse(case.params, max(5, case.least)), None)
    before = running.to_window("n", SYMBOL)
    with pytest.raises(InvalidValue, match="only finite numbers"):
        running.step((1.0,) * (kind.ports - 1) + (value,), BAR)
    assert running.to_window("n", SYMBOL) == before
