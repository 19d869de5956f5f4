"""The laws of what a compute function sees: the last values as a plain list has them, nothing newer than its bucket, and nothing to write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from statistics import fmean
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import ComputeFailed, ViewMisused
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.indicators.builtin import Output
from qmtl.runtime.sdk.python_node import ComputeFn, PythonNode, PythonParams, PythonRunning, Target
from qmtl.runtime.sdk.slots import Ring, Slots
from qmtl.runtime.sdk.view import CacheView
from tests.runtime.sdk import authored

MINUTE = 60_000

VALUES = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_nan=False), st.just(-0.0))
EVENTS = st.lists(st.tuples(VALUES, VALUES).filter(lambda pair: pair != (None, None)), max_size=60)


def bar(at: int, close: Decimal = Decimal(100)) -> Bar:
    return Bar("BTC-USD", at * MINUTE, 60, close, close, close, close, Decimal(at))


def params(
    ports: Sequence[str] = ("a", "b"), period: int = 3, when: str = "all", bars: int = 0, **more: Any
) -> PythonParams:
    said = {"gives": "value", "when": when, "ports": list(ports), "bars": bars, "params": {}, **more}
    return PythonNode(NodeValue).parse(said, period)


def seen_by(view: CacheView) -> tuple[object, ...]:
    """All that a function can see."""
    return (
        view.symbol,
        view.bucket_ms,
        view.bar,
        tuple(view["a"][60]),
        tuple(view[1][60]),
        view["a"][60].latest(),
        view[0][60][-1],
        view.window("b", 60, 2).rows(),
        view.window("b", 60, 2).values(),
        view.bars(2),
    )


def run(
    events: Sequence[tuple[float | None, ...]],
    function: ComputeFn,
    made: PythonParams,
    *,
    cut: int | None = None,
) -> tuple[list[Output | None], list[bytes], NodeWindow]:
    """The outputs, the basis of each, and the window; with what is kept written down and read again before the event `cut`."""
    running = PythonRunning(made, 60, function, None)
    outputs: list[Output | None] = []
    bases: list[bytes] = []
    for at, inputs in enumerate(events):
        if at == cut:
            running = PythonRunning(made, 60, function, running.to_window("n", "BTC-USD"))
        outputs.append(running.step(inputs, bar(at)))
        bases.append(running.basis(bar(at)))
    return outputs, bases, running.to_window("n", "BTC-USD")


@given(EVENTS, st.integers(1, 9), st.integers(2, 5), st.sampled_from(["all", "any"]))
def test_a_view_shows_what_a_plain_list_of_all_that_came_shows(
    events: list[tuple[float | None, float | None]], period: int, bars: int, when: str
) -> None:
    shown: list[tuple[object, ...]] = []

    def look(view: CacheView) -> float:
        shown.append((view.bucket_ms, tuple(view["a"][60]), tuple(view["b"][60]), view.bars(bars), view.bar))
        assert len(view["a"][60]) == len(view["a"][60][:])
        assert view.window(0, 60, period).rows() == view["a"][60][:] == tuple(view[0][60])
        assert view["a"][60].values() == tuple(value for _, value in view["a"][60])
        return 0.0

    outputs, _, _ = run(events, look, params(period=period, when=when, bars=bars))
    expected = []
    came: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    for at, inputs in enumerate(events):
        for port, value in enumerate(inputs):
            if value is not None:
                came[port].append(((at + 1) * MINUTE, value))
        is_warm = min(map(len, came)) >= period and at + 1 >= bars
        if is_warm and (when == "any" or None not in inputs):
            passed = tuple(bar(one) for one in range(at + 1 - bars, at + 1))
            a, b = (tuple(one[-period:]) for one in came)
            expected.append(((at + 1) * MINUTE, a, b, passed, bar(at)))
    assert shown == expected
    assert [one is not None for one in outputs].count(True) == len(expected)


@given(EVENTS, st.integers(1, 5), st.integers(0, 60), st.integers(0, 4))
def test_a_window_that_was_written_down_goes_on_as_if_it_had_not_been(
    events: list[tuple[float | None, float | None]], period: int, cut: int, bars: int
) -> None:
    def both(view: CacheView) -> float:
        return view[0][60].newest(period).mean() - 2 * view[1][60].newest(period).sum()

    made = params(period=period, bars=bars)
    assert run(events, both, made, cut=cut) == run(events, both, made)


@given(EVENTS, EVENTS, st.integers(0, 60))
def test_another_future_changes_nothing_of_the_past(
    events: list[tuple[float | None, float | None]],
    other: list[tuple[float | None, float | None]],
    until: int,
) -> None:
    """What a function saw at each bucket, and so whatever it can compute, follows from what came until then."""
    past = events[:until]

    def all_seen(future: list[tuple[float | None, float | None]]) -> list[tuple[object, ...]]:
        shown: list[tuple[object, ...]] = []
        run([*past, *future], lambda view: shown.append(seen_by(view)), params(bars=2, when="any"))
        return [one for one in shown if isinstance(one[1], int) and one[1] <= len(past) * MINUTE]

    assert all_seen(events[until:]) == all_seen(other)


@given(st.lists(EVENTS, min_size=2, max_size=2), st.integers(1, 4), st.integers(0, 2))
def test_two_windows_have_one_basis_exactly_if_a_function_sees_the_same(
    both: list[list[tuple[float | None, float | None]]], period: int, bars: int
) -> None:
    """Among all buckets of two runs, whatever came before their windows."""
    told: list[tuple[str, bytes]] = []
    for events in both:
        made = params(period=period, bars=bars, when="any")
        running = PythonRunning(made, 60, lambda view: None, None)
        for at, inputs in enumerate(events):
            running.step(inputs, bar(at))
            seen = running.to_window("n", "s")
            ports = [(one.buckets_ms, [value.hex() for value in one.values]) for one in seen.ports]
            told.append((repr((ports, seen.bars or bar(at))), running.basis(bar(at))))
    for seen_one, basis in told:
        for seen_other, other in told:
            assert (basis == other) is (seen_one == seen_other)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=300), st.integers(1, 20))
def test_the_digest_of_a_ring_is_that_of_its_slots_whenever_it_was_asked_for(
    pushed: list[tuple[float, bool]], period: int
) -> None:
    ring = Ring(period)
    for at, (value, asks) in enumerate(pushed):
        ring.push(at, value)
        if asks:
            ring.digest()
    assert ring.digest() == Ring(period, ring.to_window()).digest()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 200))
def test_a_window_that_was_taken_stays_as_it_was(period: int, count: int, later: int) -> None:
    ring = Ring(period)
    for at in range(period):
        ring.push(at, float(at))
    window = Slots(ring).newest(min(count, period))
    before = (window.rows(), window.values(), window.mean(), window.latest(), len(window))
    for at in range(later):
        ring.push(period + at, -1.0)
    assert (window.rows(), window.values(), window.mean(), window.latest(), len(window)) == before


def test_equal_numbers_of_other_buckets_or_ports_have_another_basis() -> None:
    made = params(period=2)
    runs: list[list[tuple[float | None, float | None]]] = [
        [(1.0, 2.0), (3.0, 4.0)],
        [(1.0, 2.0), (5.0, 2.0), (3.0, 4.0)],
        [(2.0, 1.0), (4.0, 3.0)],
        [(3.0, 2.0), (1.0, 4.0)],
        [(1.0, None), (3.0, 2.0), (None, 4.0)],
        [(1.0, 2.0), (3.0, -4.0)],
    ]
    bases = [run(events, lambda view: 0.0, made)[1][-1] for events in runs]
    assert len(set(bases)) == len(runs)


@pytest.mark.parametrize("bars", [0, 2])
@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
def test_another_bar_has_another_basis_as_far_as_it_is_seen(bars: int, field: str) -> None:
    """The bar of the bucket always, an earlier one where the node keeps it."""

    def basis(*seen: Bar) -> bytes:
        running = PythonRunning(params(("a",), 1, bars=bars), 60, lambda view: 0.0, None)
        for one in seen:
            running.step((1.0,), one)
        return running.basis(seen[-1])

    def other(one: Bar) -> Bar:
        numbers = {field: getattr(one, field) + 1}
        return replace(one, **numbers)

    plain = basis(bar(0), bar(1), bar(2))
    assert basis(bar(0), bar(1), other(bar(2))) != plain
    assert (basis(bar(0), other(bar(1)), bar(2)) != plain) is (bars > 1)
    assert basis(other(bar(0)), bar(1), bar(2)) == plain


# ---- what may not be ---------------------------------------------------------------------------------------------------


def view_of(function: ComputeFn, made: PythonParams | None = None) -> Output | None:
    return run([(1.0, 2.0), (3.0, 4.0)], function, made or params(period=2, bars=2))[0][-1]


WRITES: list[Any] = [
    lambda view: setattr(view, "symbol", "X"),
    lambda view: setattr(view, "other", 1),
    lambda view: setattr(view["a"], "x", 1),
    lambda view: setattr(view["a"][60], "x", 1),
    lambda view: setattr(view.window("a", 60, 1), "x", 1),
    lambda view: delattr(view, "params"),
    lambda view: view["a"][60].__setitem__(0, (0, 1.0)),
    lambda view: view["a"][60].append((0, 1.0)),
    lambda view: view.window("a", 60, 2).values().__setitem__(0, 1.0),
    lambda view: view.window("a", 60, 2).rows()[0].__setitem__(0, 1.0),
    lambda view: view["a"][60][-1].__setitem__(1, 1.0),
    lambda view: view.bars(2).__setitem__(0, None),
    lambda view: setattr(view.bar, "close", Decimal(1)),
    lambda view: view.params.__setitem__("x", 1),
    lambda view: view.params["deep"].__setitem__("x", 1),
    lambda view: view.params["many"].append(1),
]


@pytest.mark.parametrize("write", WRITES)
def test_nothing_of_a_view_can_be_written(write: ComputeFn) -> None:
    made = params(period=2, bars=2, params={"deep": {"x": 0}, "many": [1]})
    with pytest.raises(ComputeFailed) as caught:
        view_of(write, made)
    assert "BTC-USD" in caught.value.what
    assert str(2 * MINUTE) in caught.value.what


READS: list[tuple[Any, str]] = [
    (lambda view: view["c"], "the node reads a, b"),
    (lambda view: view[2], "the node reads a, b"),
    (lambda view: view[-1], "the node reads a, b"),
    (lambda view: view[True], "the node reads a, b"),
    (lambda view: view["a"][3600], "it has an interval of 60 s"),
    (lambda view: view.window("a", 60, 3), "the node's period 2"),
    (lambda view: view.window("a", 60, 0), "the node's period 2"),
    (lambda view: view.window("a", 60, 1.0), "the node's period 2"),
    (lambda view: view.bars(3), "the 2 that the node keeps"),
    (lambda view: view["a"][60][2], "slot 2 of 2"),
    (lambda view: view["a"][60][-3], "slot -3 of 2"),
]


@pytest.mark.parametrize(("read", "says"), READS)
def test_what_a_view_has_not_is_told(read: ComputeFn, says: str) -> None:
    with pytest.raises(ComputeFailed) as caught:
        view_of(read)
    assert says in caught.value.what


def test_an_input_is_found_by_name_port_and_node() -> None:
    class Named:
        name = "b"

    assert view_of(lambda view: view["b"][60].newest(1).mean()) == 4.0
    assert view_of(lambda view: view[1][60].newest(1).mean()) == 4.0
    assert view_of(lambda view: view[Named()][60].newest(1).mean()) == 4.0


WRONG: list[tuple[Any, str]] = [
    (float("nan"), "the number nan"),
    (float("inf"), "the number inf"),
    (10**400, "the number inf"),
    (True, "the truth value true"),
    ("1.0", "the text '1.0'"),
    ([1.0], "a list"),
    (Target(0.5), "a Target"),
    (Decimal(1), "the number 1"),
]


@pytest.mark.parametrize(("given_", "says"), WRONG)
def test_what_is_no_number_fails_with_its_symbol_and_bucket(given_: Any, says: str) -> None:
    with pytest.raises(ComputeFailed) as caught:
        view_of(lambda view: given_)
    assert says in caught.value.what
    assert "BTC-USD" in caught.value.what
    assert str(2 * MINUTE) in caught.value.what
    assert caught.value.remedy


WRONG_TARGETS: list[tuple[Any, str]] = [
    (0.5, "the number 0.5"),
    (Target(1.01), "a target of the number 1.01"),
    (Target(float("nan")), "a target of the number nan"),
    (Target(True), "a target of the truth value true"),
    (Target("much"), "a target of the text 'much'"),
    (Target(10**5000), "a target of a int"),
    (Target(0.5, Decimal("1e41")), "a target at the number 1E+41"),
    (Target(0.5, Decimal(0)), "a target at the number 0"),
    (Target(0.5, Decimal("NaN")), "a target at the number NaN"),
    (Target(0.5, cast(Decimal, 3.0)), "a target at the number 3.0"),
]


@pytest.mark.parametrize(("given_", "says"), WRONG_TARGETS)
def test_what_is_no_target_fails(given_: Any, says: str) -> None:
    with pytest.raises(ComputeFailed) as caught:
        view_of(lambda view: given_, params(period=2, gives="target"))
    assert says in caught.value.what


@pytest.mark.parametrize("share", [0.1, "0.1", Decimal("0.1")])
def test_a_target_is_exact_and_at_the_close_unless_it_says_otherwise(share: Any) -> None:
    made = params(period=2, gives="target")
    found: Any = view_of(lambda view: Target(share), made)
    assert (found.target_percent, found.reference_price) == (Decimal("0.1"), Decimal(100))
    found = view_of(lambda view: Target(share, Decimal(99)), made)
    assert found.reference_price == Decimal(99)


def test_a_cause_is_the_same_in_every_process() -> None:
    def fails(view: CacheView) -> float:
        raise ValueError(f"{object()!r} is odd")

    said = []
    for _ in range(2):
        with pytest.raises(ComputeFailed) as caught:
            view_of(fails)
        said.append(caught.value.what)
    assert said[0] == said[1]
    assert "0x..." in said[0]


class Mute(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "says"), [(Mute(), "Mute (which can't be told)"), (SystemExit(3), "SystemExit (3)")]
)
def test_what_a_function_raises_is_its_nodes_failure_whatever_it_is(error: BaseException, says: str) -> None:
    def fails(view: CacheView) -> float:
        raise error

    with pytest.raises(ComputeFailed) as caught:
        view_of(fails)
    assert says in caught.value.what


# ---- cost --------------------------------------------------------------------------------------------------------------


def seconds_of(period: int, events: int, function: ComputeFn) -> float:
    made = params(("a",), period)
    running = PythonRunning(made, 60, function, None)
    for at in range(period):
        running.step((float(at),), bar(at))
    bars = [bar(period + at) for at in range(events)]
    begun = time.process_time()
    for at, one in enumerate(bars):
        running.step((float(at),), one)
        running.basis(one)
    return time.process_time() - begun


def test_a_step_costs_the_same_whatever_the_period() -> None:
    """With a wide margin for a machine that is busy: a copy of the window would take a hundred times as long."""

    def newest(view: CacheView) -> float:
        return view[0][60][-1][1]

    short, long = (min(seconds_of(period, 2000, newest) for _ in range(3)) for period in (10, 10_000))
    assert long < 6 * short


def test_the_window_of_a_slot_is_its_mean() -> None:
    ring = Ring(4)
    for at in range(9):
        ring.push(at, float(at * at))
    assert Slots(ring).newest(3).mean() == fmean([36, 49, 64])
    assert tuple(Slots(ring)) == ((5, 25.0), (6, 36.0), (7, 49.0), (8, 64.0))
    with pytest.raises(ViewMisused):
        Slots(Ring(2)).newest(1).mean()


def test_a_crossing_in_one_function_turns_where_the_averages_do() -> None:
    closes = [100.0 + (at * 37 % 23) for at in range(60)]
    made = params(("price",), 9, params={"fast": 3, "slow": 8})
    found, _, _ = run([(close,) for close in closes], authored.crossing, made)
    sides = [
        None if at < 7 else fmean(closes[at - 2 : at + 1]) > fmean(closes[at - 7 : at + 1])
        for at in range(60)
    ]
    turns = [at for at in range(8, 60) if sides[at] is not sides[at - 1]]
    assert [at for at, one in enumerate(found) if one is not None] == turns
