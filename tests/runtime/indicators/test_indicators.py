"""Built-in nodes against a brute-force restatement, and across restarts at any place."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue, UnknownNodeType
from qmtl.foundation.common.identity import builtin_code_hash
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow, PositionTarget
from qmtl.runtime.data.bars import default_sources, read_bars
from qmtl.runtime.indicators.builtin import MAX_PERIOD, Inputs, Output, PositionTargetValue
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY, builtin, code_hash
from qmtl.runtime.indicators.remembered import read
from qmtl.runtime.indicators.tag_query import AGGREGATES
from tests.runtime.indicators.cases import CASES, Case, stepped

ONE = Decimal(1)
BAR = Bar("X", 0, 60, ONE, ONE, ONE, ONE, ONE)
TARGETS = {"long_percent": "0.5", "short_percent": -0.25}
QUERY = {"query_tags": ["b", "a"], "match_mode": "any", "interval": 60, "aggregate": "mean"}
PARAMS: dict[str, dict[str, object]] = {
    **{case.node_type: case.params for case in reversed(CASES)},
    "price": {"symbols": ["X"]},
    "sma": {},
    "cross": {},
    "position_target": dict(TARGETS),
    "tag_query": dict(QUERY),
}
LEAST = {case.node_type: case.least for case in reversed(CASES)} | {"tag_query": 0}

floats = st.floats(allow_nan=False, allow_infinity=False, width=64)
tame = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))


def run(
    node_type: str, inputs: Sequence[Inputs], period: int = 0, restarts: frozenset[int] = frozenset()
) -> tuple[list[Output | None], NodeWindow]:
    """All outputs; before the steps named in `restarts` the node is frozen into its window and made anew."""
    kind = builtin(node_type)
    params = kind.parse(PARAMS[node_type], period)
    running = kind.resume(params, None)
    out = []
    for at, one in enumerate(inputs):
        if at in restarts:
            running = kind.resume(params, running.to_window("n", "X"))
        out.append(running.step(one, BAR))
    return out, running.to_window("n", "X")


# ---- every node ---------------------------------------------------------------------------------------------


def rests(
    node_type: str, steps: Sequence[tuple[Inputs, Bar]], period: int, restarts: frozenset[int] = frozenset()
) -> list[tuple[int, Inputs, bytes, Output]]:
    """Each output with the number of its step, the inputs of the step, and what it rests on beside them."""
    kind = builtin(node_type)
    params = kind.parse(PARAMS[node_type], period)
    running = kind.resume(params, None)
    out = []
    for at, (inputs, bar) in enumerate(steps):
        if at in restarts:
            running = kind.resume(params, running.to_window("n", "X"))
        value = running.step(inputs, bar)
        if value is not None:
            out.append((at, inputs, running.basis(bar), value))
    return out


@st.composite
def few_steps(draw: st.DrawFn) -> tuple[str, int, list[tuple[Inputs, Bar]]]:
    """Of a few numbers, so that windows come again."""
    node_type = draw(st.sampled_from(sorted(BUILTINS)))
    ports = st.tuples(*[st.sampled_from([None, -1.0, -0.0, 0.0, 2.0])] * builtin(node_type).ports)
    bars = st.sampled_from([BAR, replace(BAR, close=Decimal("2.50"), high=Decimal(3))])
    least = LEAST[node_type]
    period = draw(st.integers(least, least + 2)) if least else 0
    return node_type, period, draw(st.lists(st.tuples(ports, bars), max_size=40))


@given(few_steps(), st.frozensets(st.integers(0, 40), max_size=4))
def test_an_output_is_a_function_of_its_inputs_and_of_what_it_rests_on(
    drawn: tuple[str, int, list[tuple[Inputs, Bar]]], restarts: frozenset[int]
) -> None:
    """So two values under one key are equal. A restart changes nothing of it."""
    node_type, period, steps = drawn
    found = rests(node_type, steps, period)
    assert found == rests(node_type, steps, period, restarts)
    known: dict[tuple[Inputs, bytes], Output] = {}
    for _, inputs, basis, value in found:
        assert known.setdefault((inputs, basis), value) == value


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=4, max_size=20), st.integers(1, 3), st.data())
def test_an_average_rests_on_its_window_however_long_it_has_run(
    values: list[float], period: int, data: st.DataObject
) -> None:
    later = data.draw(st.integers(0, len(values) - period))
    steps: list[tuple[Inputs, Bar]] = [((value,), BAR) for value in values]
    whole = rests("sma", steps, period)
    assert [basis for *_, basis, _ in rests("sma", steps[later:], period)] == [
        basis for at, _, basis, _ in whole if at >= later + period - 1
    ]
    windows = {tuple(values[at - period + 1 : at + 1]) for at, *_ in whole}
    assert len({basis for *_, basis, _ in whole}) == len(windows)


def test_a_cross_rests_on_the_side_that_it_comes_from_and_a_target_on_the_close() -> None:
    turns: list[tuple[Inputs, Bar]] = [((2.0, 1.0), BAR), ((0.0, 1.0), BAR), ((2.0, 1.0), BAR)]
    assert [basis for *_, basis, _ in rests("cross", turns, 0)] == [b"0", b"1", b"-1"]
    shorter = replace(BAR, close=Decimal("2.50"))
    assert [basis for *_, basis, _ in rests("position_target", [((1.0,), BAR), ((1.0,), shorter)], 0)] == [
        b"1",
        b"2.5",
    ]


@given(st.data())
def test_a_restart_anywhere_changes_no_bit(data: st.DataObject) -> None:
    node_type = data.draw(st.sampled_from(sorted(BUILTINS)))
    values = floats if node_type != "cross" else tame | st.sampled_from([0.0, 1.0])
    port = st.none() | values
    ports = BUILTINS[node_type].ports
    inputs = data.draw(st.lists(st.tuples(*[port] * ports), max_size=30))
    restarts = data.draw(st.frozensets(st.integers(0, 30)))
    period = data.draw(st.integers(max(1, LEAST[node_type]), 7))
    assert run(node_type, inputs, period, restarts) == run(node_type, inputs, period)


@pytest.mark.parametrize("node_type", sorted(BUILTINS))
def test_a_node_is_known_by_name_and_version(node_type: str) -> None:
    found = builtin(node_type)
    assert found.name == node_type
    assert code_hash(node_type) == builtin_code_hash(found.name, found.version)
    assert found.output is (PositionTarget if node_type == "position_target" else NodeValue)
    assert (found.ports == 0) == (node_type in (SOURCE, TAG_QUERY))


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNodeType, match=r"price, sma, cross, position_target, .*, tag_query"):
        builtin("hull")


@pytest.mark.parametrize("node_type", sorted(BUILTINS))
def test_an_unknown_parameter_is_refused_by_name(node_type: str) -> None:
    with pytest.raises(InvalidParameter, match=r"'window' of a .* is unknown"):
        BUILTINS[node_type].parse({**PARAMS[node_type], "window": 3}, 5)


@pytest.mark.parametrize("node_type", sorted(BUILTINS))
@pytest.mark.parametrize("period", [-1, MAX_PERIOD + 1, 2.5, "5", None, True])
def test_a_period_that_is_no_count_is_refused(node_type: str, period: Any) -> None:
    with pytest.raises(InvalidParameter, match="period of a"):
        BUILTINS[node_type].parse(PARAMS[node_type], period)


@pytest.mark.parametrize(
    "node_type, params, says",
    [
        ("price", {}, "'symbols' of a price node was missing"),
        ("price", {"symbols": []}, "symbols of a price node was a list"),
        ("price", {"symbols": "BTC-USD"}, "was the text 'BTC-USD'"),
        ("price", {"symbols": ["A", ""]}, "held the text ''"),
        ("price", {"symbols": ["A", 1]}, "held the number 1"),
        ("price", {"symbols": ["A", "A"]}, "twice"),
        ("position_target", {"long_percent": 1}, "'short_percent' of a position_target node was missing"),
        (
            "position_target",
            TARGETS | {"long_percent": -0.1},
            "long_percent .* was the number -0.1; a number from 0 to 1",
        ),
        ("position_target", TARGETS | {"long_percent": "1.0001"}, "was the text '1.0001'"),
        (
            "position_target",
            TARGETS | {"short_percent": 0.5},
            "short_percent .* was the number 0.5; a number from -1 to 0",
        ),
        ("position_target", TARGETS | {"long_percent": float("nan")}, "was the number nan"),
        ("position_target", TARGETS | {"long_percent": "NaN"}, "was the text 'NaN'"),
        ("position_target", TARGETS | {"long_percent": "half"}, "was the text 'half'"),
        ("position_target", TARGETS | {"long_percent": True}, "was the truth value true"),
        ("position_target", TARGETS | {"long_percent": None}, "was nothing"),
        ("position_target", TARGETS | {"long_percent": [1]}, "was a list"),
        ("tag_query", QUERY | {"query_tags": []}, "query_tags was empty"),
        ("tag_query", QUERY | {"query_tags": "a"}, "query_tags of a tag_query node was the text 'a'"),
        ("tag_query", QUERY | {"query_tags": [" a"]}, "held ' a'"),
        ("tag_query", QUERY | {"query_tags": [{}]}, "held {}"),
        ("tag_query", QUERY | {"query_tags": [f"t{at}" for at in range(21)]}, "held 21 tags; at most 20"),
        ("tag_query", QUERY | {"match_mode": "none"}, "match_mode was 'none'"),
        ("tag_query", QUERY | {"match_mode": ["any"]}, "match_mode .* was a list"),
        ("tag_query", QUERY | {"interval": 0}, "interval was 0"),
        ("tag_query", QUERY | {"interval": "60"}, "interval .* was the text '60'"),
        ("tag_query", QUERY | {"interval": True}, "interval .* was the truth value true"),
        ("tag_query", QUERY | {"aggregate": "last"}, "aggregate .* was the text 'last'; one of mean, sum"),
    ],
)
def test_a_parameter_is_refused_with_its_name_kind_and_rule(
    node_type: str, params: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidParameter, match=says) as refused:
        BUILTINS[node_type].parse(params, 1)
    assert refused.value.remedy


@pytest.mark.parametrize(
    "node_type, params, says",
    [
        ("sma", {"b": 1, "a": 1}, ["'a'", "'b'", "period of"]),
        ("price", {"symbols": ["A", "A", ""], "a": 1}, ["period of", "'a'", "held the text ''", "twice"]),
        ("price", {}, ["period of", "'symbols' of a price node was missing"]),
        ("position_target", {"long_percent": 2, "short_percent": 2}, ["period of", "long_", "short_"]),
        (
            "tag_query",
            {"query_tags": [], "match_mode": "x", "interval": 0, "aggregate": "x"},
            ["period of", "query_tags", "match_mode", "interval", "aggregate"],
        ),
    ],
)
def test_all_that_is_wrong_is_told_and_the_first_of_it_raised(
    node_type: str, params: dict[str, object], says: list[str]
) -> None:
    found = [refused.what for refused in BUILTINS[node_type].refusals(params, -1)]
    assert len(found) == len(says)
    assert all(word in what for word, what in zip(says, found, strict=True))
    with pytest.raises(InvalidParameter) as first:
        BUILTINS[node_type].parse(params, -1)
    assert first.value.what == found[0]


@pytest.mark.parametrize("node_type", sorted(BUILTINS))
def test_of_what_is_sound_nothing_is_refused(node_type: str) -> None:
    assert not [*BUILTINS[node_type].refusals(PARAMS[node_type], 5)]


def test_sma_needs_a_window() -> None:
    with pytest.raises(
        InvalidParameter, match="period of a sma node was the number 0; a whole number from 1"
    ):
        BUILTINS["sma"].parse({}, 0)


# ---- price --------------------------------------------------------------------------------------------------


def test_price_gives_the_close_and_its_symbols_in_any_order_are_the_same_params() -> None:
    price = builtin("price")
    assert price.parse({"symbols": ["B", "A"]}, 0) == price.parse({"symbols": ("A", "B")}, 0)
    out, window = run("price", [(), ()])
    assert (out, window.seen) == ([1.0, 1.0], 2)


# ---- sma ----------------------------------------------------------------------------------------------------


@given(st.lists(floats, max_size=40), st.integers(1, 12))
def test_sma_is_the_mean_of_the_last_inputs_and_silent_before(values: list[float], period: int) -> None:
    out, window = run("sma", [(value,) for value in values], period)
    for at, value in enumerate(out):
        if at + 1 < period:
            assert value is None
        else:
            exact = sum((Decimal(repr(one)) for one in values[at + 1 - period : at + 1]), Decimal(0))
            if abs(exact) < Decimal("1e300"):
                mean = statistics.fmean(values[at + 1 - period : at + 1])
                spread = max(abs(one) for one in values[at + 1 - period : at + 1])
                # The smallest number there is has no half: the mean of the numbers as they are written may be one more of it.
                assert value == pytest.approx(mean, rel=1e-12, abs=spread * 1e-15 + math.ulp(0.0))
    assert window.seen == len(values)
    assert read(window) == tuple(Decimal(repr(value)) for value in values[-period:])


@pytest.mark.parametrize("period", [1, 5, 20, 500])
def test_sma_of_real_prices_is_that_of_numpy(period: int) -> None:
    source = default_sources()[0]
    closes = [float(bar.close) for bar in read_bars(source.path, source.symbol, 60)]
    out, _ = run("sma", [(close,) for close in closes], period)
    expected = numpy.convolve(closes, numpy.ones(period) / period, mode="valid")
    assert out[: period - 1] == [None] * (period - 1)
    numpy.testing.assert_allclose(numpy.array(out[period - 1 :], dtype=float), expected, rtol=1e-12)


def test_sma_never_drifts_from_what_it_was_fed() -> None:
    # A running float sum keeps 1e16 + 1 - 1e16 = 0 for ever; the exact one forgets what has left.
    out, _ = run("sma", [(1e16,), (1.0,), (1.0,), (1.0,)], 2)
    assert out == [None, 5e15 + 0.5, 1.0, 1.0]
    assert run("sma", [(0.1,), (0.2,), (0.3,)], 3)[0] == [None, None, 0.2]


def test_sma_passes_over_a_silent_input_without_counting_it() -> None:
    assert run("sma", [(1.0,), (None,), (3.0,)], 2)[0] == [None, None, 2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sma_refuses_what_has_no_mean(value: float) -> None:
    with pytest.raises(InvalidValue, match="only finite numbers"):
        run("sma", [(value,)], 1)


def test_a_step_of_sma_costs_the_same_whatever_the_window() -> None:
    def seconds(period: int) -> float:
        running = builtin("sma").resume(builtin("sma").parse({}, period), None)
        inputs = [(100.0 + at % 7,) for at in range(period + 3_000)]
        for one in inputs[:period]:
            running.step(one, BAR)
        begin = time.process_time()
        for one in inputs[period:]:
            running.step(one, BAR)
        return time.process_time() - begin

    # A step that walked the window would take a thousand times as long.
    assert min(seconds(10_000) for _ in range(3)) < 20 * min(seconds(10) for _ in range(3))


# ---- cross --------------------------------------------------------------------------------------------------

pairs = st.lists(st.tuples(st.none() | st.integers(-2, 2), st.none() | st.integers(-2, 2)), max_size=40)


@given(pairs)
@settings(max_examples=200)
def test_cross_speaks_exactly_when_the_sign_is_not_the_last_one(
    steps: list[tuple[int | None, int | None]],
) -> None:
    inputs = [tuple(None if one is None else float(one) for one in pair) for pair in steps]
    out, _ = run("cross", inputs)
    for at, spoken in enumerate(out):
        signs = [
            0 if fast is None or slow is None else (fast > slow) - (fast < slow)
            for fast, slow in steps[: at + 1]
        ]
        earlier = [sign for sign in signs[:-1] if sign]
        turned = signs[-1] != 0 and (not earlier or earlier[-1] != signs[-1])
        assert spoken == (float(signs[-1]) if turned else None)


@given(pairs)
def test_cross_alternates(steps: list[tuple[int | None, int | None]]) -> None:
    inputs = [tuple(None if one is None else float(one) for one in pair) for pair in steps]
    spoken = [value for value in run("cross", inputs)[0] if value is not None]
    assert all({one, other} == {1.0, -1.0} for one, other in itertools.pairwise(spoken))


def test_the_first_sign_is_a_signal_and_touching_is_none() -> None:
    out, window = run("cross", [(1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)])
    assert out == [None, 1.0, None, None, -1.0, None]
    assert (window.seen, window.values, window.memory) == (6, (), {"sign": "-1"})


@given(pairs)
def test_of_turns_only_all_but_the_first_sign_is_a_signal(steps: list[tuple[int | None, int | None]]) -> None:
    rows: list[Inputs] = [tuple(None if one is None else float(one) for one in pair) for pair in steps]
    every, window = stepped(Case("cross"), 0, rows, [BAR] * len(rows))
    turns, after = stepped(Case("cross", {"turns_only": True}), 0, rows, [BAR] * len(rows))
    spoken = [at for at, value in enumerate(every) if value is not None]
    assert turns == [None if at in spoken[:1] else value for at, value in enumerate(every)]
    assert after == window


def test_cross_refuses_what_has_no_sign() -> None:
    with pytest.raises(InvalidValue, match="NaN has no sign"):
        run("cross", [(math.nan, 1.0)])


# ---- position_target ------------------------------------------------------------------------------------------


@given(st.lists(st.none() | floats, max_size=20))
def test_a_target_answers_every_signal_with_its_side(signals: list[float | None]) -> None:
    out, window = run("position_target", [(signal,) for signal in signals])
    for signal, value in zip(signals, out, strict=True):
        if signal is None:
            assert value is None
        else:
            share = Decimal("0.5") if signal > 0 else Decimal("-0.25") if signal < 0 else Decimal(0)
            assert value == PositionTargetValue(share, BAR.close)
    assert window.seen == sum(signal is not None for signal in signals)


@pytest.mark.parametrize("value", [0.5, "0.5", Decimal("0.50"), "5e-1"])
def test_a_share_may_be_any_way_to_write_the_number(value: object) -> None:
    target = builtin("position_target")
    assert target.parse({"long_percent": value, "short_percent": 0}, 0) == target.parse(
        {"long_percent": "0.5", "short_percent": "-0"}, 0
    )


def test_a_signal_without_a_sign_is_refused() -> None:
    with pytest.raises(InvalidValue, match="NaN"):
        run("position_target", [(math.nan,)])


# ---- tag_query ------------------------------------------------------------------------------------------------

ORACLES: dict[str, Any] = {
    "mean": lambda exact: sum(exact, Fraction()) / len(exact),
    "sum": lambda exact: sum(exact, Fraction()),
    "min": min,
    "max": max,
    "median": lambda exact: (sorted(exact)[(len(exact) - 1) // 2] + sorted(exact)[len(exact) // 2]) / 2,
    "count": len,
}


@pytest.mark.parametrize("aggregate", sorted(AGGREGATES))
@given(st.data())
@settings(max_examples=40)
def test_a_tag_query_gives_the_number_of_exact_arithmetic_in_whatever_order(
    aggregate: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(tame | st.sampled_from([1e15, -1e15, 0.1]), min_size=1, max_size=8))
    other = data.draw(st.permutations(values))
    query = builtin("tag_query")
    running = query.resume(query.parse(QUERY | {"aggregate": aggregate}, 1), None)
    found = running.step(tuple(values), BAR)
    exact = float(ORACLES[aggregate]([Fraction(value) for value in values]))
    assert found == (exact if aggregate != "mean" else pytest.approx(exact, rel=3e-16, abs=0))
    assert running.step(tuple(other), BAR) == found
    assert running.step((), BAR) is None
    assert running.to_window("n", "X") == NodeWindow("n", "X", 2)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abcd")))
def test_a_query_is_answered_by_any_or_by_all_of_its_tags(asked: list[str], tags: list[str]) -> None:
    query = builtin("tag_query")
    any_, all_ = (
        query.parse(QUERY | {"query_tags": asked, "match_mode": mode}, 1) for mode in ("any", "all")
    )
    assert any_.is_answered_by(tags) == bool(set(asked) & set(tags))
    assert all_.is_answered_by(tags) == (set(asked) <= set(tags))
    assert any_.query_tags == tuple(sorted(set(asked)))
