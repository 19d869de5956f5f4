"""The checks over built-in nodes, run in this process: all that there are pass them, and planted ones that cheat in columns don't."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, builtin, dag_message
from qmtl.backtest.honesty.ahead import cuts, look_ahead, other_calendar
from qmtl.backtest.honesty.change import (
    CALENDAR_MS,
    Future,
    LaterStart,
    OtherCalendar,
    OtherFuture,
    all_buckets,
)
from qmtl.backtest.honesty.check import program_of
from qmtl.backtest.honesty.drive import Way, drive
from qmtl.backtest.honesty.findings import Cause
from qmtl.backtest.honesty.program import Program
from qmtl.backtest.honesty.steady import ELSEWHERE, steadiness
from qmtl.backtest.honesty.told import Told, Trace, changed, difference
from qmtl.backtest.honesty.trial import PLAIN, Run, Trial
from qmtl.backtest.honesty.warm_up import starts, warm_up
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.columnar import Columnar
from qmtl.runtime.indicators.registry import COLUMNAR
from tests.backtest.honesty.markets import SYMBOLS, bars_of, market
from tests.runtime.indicators.cases import CASES
from tests.runtime.sdk.authored import fails_above

Bars = Mapping[str, BarColumns]


def here(program: Program, bars: Bars, builtins: Mapping[str, Columnar] = COLUMNAR) -> Run:
    """Runs in this process, as built-in nodes have nothing that they could leave behind."""

    def run(trial: Trial) -> Sequence[Trace]:
        traces = [drive(program, trial.change.of(bars), {}, trial.way, builtins) for _ in range(trial.runs)]
        return traces if trial.until_ms is None else [one.upto(trial.until_ms) for one in traces]

    return run


class AllTypes(Strategy):
    """A node of each case, of prices and of their exponential average."""

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        smooth = builtin("ema", price, 3, name="smooth")
        rest = [
            builtin(case.node_type, [price, smooth][: case.ports], max(case.least, 1) + 2, **case.params)  # type: ignore[arg-type]
            for case in CASES
            if case.node_type != "price"
        ]
        self.add_nodes([price, smooth, rest])


ALL_TYPES = program_of([dag_message(AllTypes())])


@given(
    count=st.integers(1, 40),
    gaps=st.lists(st.integers(0, 39), max_size=20),
    cut_count=st.integers(1, 3),
    start_count=st.integers(1, 2),
)
@settings(max_examples=5, deadline=None)
def test_no_built_in_node_gives_a_finding(
    count: int, gaps: list[int], cut_count: int, start_count: int
) -> None:
    bars = {
        symbol: BarColumns.of(symbol, 60, bars_of(symbol, count, absent))
        for symbol, absent in zip(SYMBOLS, (gaps, gaps[::2]), strict=True)
    }
    run = here(ALL_TYPES, bars)
    (plain,) = run(PLAIN)
    steady = steadiness(ALL_TYPES, run, plain, [plain] * len(ELSEWHERE), len(bars))
    ahead = look_ahead(ALL_TYPES, run, bars, plain, cuts(bars, ALL_TYPES, plain, cut_count))
    warmed = warm_up(ALL_TYPES, run, bars, plain, starts(bars, start_count))
    assert (steady.findings, ahead.findings, warmed.findings) == ((), (), ())
    assert other_calendar(ALL_TYPES, run, plain) == ()
    assert ahead.runs == 4 * ahead.cuts


# ---- planted ones -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cheating:
    """A built-in node whose steps are honest and whose columns are not."""

    name: str
    version: str = "1"
    ports: int = 1
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> int:
        return period

    def refusals(self, params: Mapping[str, object], period: int) -> Any:
        return iter(())

    def resume(self, params: int, window: NodeWindow | None) -> Any:
        return COLUMNAR["sma"].resume(COLUMNAR["sma"].parse({}, params), window)

    def columns(
        self, params: int, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        (port,) = inputs
        values = port.values
        if self.name == "centred":
            kernel = np.ones(params) / params
            given = Column.full(np.convolve(values, kernel, mode="same") if len(values) >= params else values)
        elif self.name == "of_the_whole":
            given = Column.full(values / (values.max() if len(values) else 1.0))
        elif self.name == "one_late":
            given = Column.full(np.concatenate((values[1:], values[-1:])))
        else:
            given = Column.full(np.cumsum(values))
        return given, NodeWindow("", bars.symbol, len(values))


class Smoothed(Strategy):
    """A node that will cheat, between a source and what trades on it."""

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        odd = builtin("sma", price, 5, name="odd")
        turn = builtin("cross", [price, odd], name="turn")
        self.add_nodes(
            [
                price,
                odd,
                turn,
                builtin("position_target", turn, long_percent=1, short_percent=0, name="target"),
            ]
        )


def cheating(name: str) -> tuple[Program, Mapping[str, Columnar]]:
    program = program_of([dag_message(Smoothed())])
    nodes = tuple(
        replace(one, node=replace(one.node, node_type=name)) if one.name == "odd" else one
        for one in program.nodes
    )
    cheat: Any = Cheating(name)
    return replace(program, nodes=nodes), {**COLUMNAR, name: cheat}


@pytest.mark.parametrize("name", ["centred", "of_the_whole", "one_late"])
def test_a_node_that_sees_the_future_is_named_and_what_reads_it_is_not(name: str) -> None:
    program, builtins = cheating(name)
    bars = market(120)
    run = here(program, bars, builtins)
    (plain,) = run(PLAIN)
    at_ms = cuts(bars, program, plain, 8)
    (found,) = look_ahead(program, run, bars, plain, at_ms).findings
    assert (found.node, found.cause) == ("odd", Cause.LOOK_AHEAD)
    assert found.symbol in SYMBOLS
    cut_ms = next(one for one in at_ms if str(one) in found.changing)
    assert found.bucket_ms <= cut_ms
    market_of = bars[found.symbol]
    place = int(np.searchsorted(market_of.bucket_ms, found.bucket_ms))
    assert found.was == plain.of(found.node_id, found.symbol).text(place)
    assert found.was != found.became
    reach = {"centred": 2, "one_late": 1, "of_the_whole": 0}[name]
    if reach:
        assert place == int(np.searchsorted(market_of.bucket_ms, cut_ms)) + 1 - reach, (
            "the first that reaches over the cut"
        )


@pytest.mark.parametrize("name", ["centred", "of_the_whole", "one_late", "sum_of_a_chunk"])
def test_a_node_whose_columns_are_not_its_steps_is_named(name: str) -> None:
    program, builtins = cheating(name)
    bars = market(120)
    run = here(program, bars, builtins)
    (plain,) = run(PLAIN)
    found = steadiness(program, run, plain, [plain] * len(ELSEWHERE), len(bars)).findings
    assert {(one.node, one.cause) for one in found} == {("odd", Cause.CHUNKS)}


def test_a_sum_since_the_beginning_is_no_window() -> None:
    program, builtins = cheating("sum_of_a_chunk")
    bars = market(120)
    run = here(program, bars, builtins)
    (plain,) = run(PLAIN)
    (found,) = warm_up(program, run, bars, plain, starts(bars, 2)).findings
    assert (found.node, found.cause, found.symbol) == ("odd", Cause.START_OF_DATA, "BTC-USD")


# ---- how long it takes ------------------------------------------------------------------------------------------------


class Averages(Strategy):
    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        fast, slow = builtin("ema", price, 4, name="fast"), builtin("ema", price, 9, name="slow")
        mean = builtin("sma", fast, 3, name="mean")
        turn = builtin("cross", [fast, slow], name="turn")
        self.add_nodes([price, fast, slow, mean, turn])
        self.add_nodes(builtin("position_target", turn, long_percent=1, short_percent=0, name="target"))


@given(count=st.integers(20, 240), start_count=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_an_average_settles_as_its_formula_says(count: int, start_count: int) -> None:
    """A difference shrinks by 1 - alpha with each bar, and is at most the range of the prices when the warm-up ends. Source: the formula of
    `ema` in docs/indicators.md."""
    program = program_of([dag_message(Averages())])
    bars = market(count)
    run = here(program, bars)
    (plain,) = run(PLAIN)
    warmed = warm_up(program, run, bars, plain, starts(bars, start_count))
    assert warmed.findings == ()
    spread = max(float(one.close.floats().max() - one.close.floats().min()) for one in bars.values()) + 0.01
    for one in warmed.settlings:
        if one.node not in ("fast", "slow", "mean"):
            continue
        period = {"fast": 4, "slow": 9, "mean": 4}[one.node]
        window = 3 if one.node == "mean" else 1
        needed = period + math.ceil(math.log(0.01 / spread) / math.log(1 - 2 / (period + 1))) + window
        assert one.warm_up == period + window - 1
        assert 0 <= one.largest <= spread
        assert one.settled is None or one.settled <= max(needed, one.warm_up) + 1
        if count // 2 > needed + 4:
            assert one.settled is not None


@given(count=st.integers(20, 120), place=st.integers(1, 100))
@settings(max_examples=20, deadline=None)
def test_a_node_is_the_same_from_the_bar_on_behind_the_last_that_differs(count: int, place: int) -> None:
    """By a walk over both runs, bar by bar; a tick of 0.01 or more is a difference."""
    program = program_of([dag_message(Averages())])
    bars = market(count)
    start_ms = int(all_buckets(bars)[min(place, count - 2)]) - 60_000
    run = here(program, bars)
    ((plain,), (late,)) = (run(PLAIN), run(Trial(change=LaterStart(start_ms))))
    for one in warm_up(program, run, bars, plain, [start_ms]).settlings:
        found: list[int | None] = []
        largest = 0.0
        for symbol, market_of in bars.items():
            was, became = (
                dict(zip(*_listed(trace.of(one.node_id, symbol)), strict=True)) for trace in (plain, late)
            )
            after = [bucket_ms for bucket_ms in market_of.bucket_ms.tolist() if bucket_ms > start_ms]
            last = 0
            for number, bucket_ms in enumerate(after, 1):
                if (bucket_ms in was) is not (bucket_ms in became):
                    last = number
                elif bucket_ms in was and was[bucket_ms] != became[bucket_ms]:
                    apart = 1.0 if one.node == "target" else abs(was[bucket_ms] - became[bucket_ms])
                    last = number if apart >= 0.01 else last
                    largest = max(largest, apart if number > one.warm_up else 0.0)
            if after:
                found.append(None if last == len(after) and last > one.warm_up else last + 1)
        assert one.settled == (
            None if None in found else max(number for number in found if number is not None)
        )
        if one.node != "target":
            assert one.largest == largest


def _listed(told: Told) -> tuple[list[Any], list[Any]]:
    return told.bucket_ms.tolist(), told.values.tolist()


def test_a_window_has_settled_when_its_warm_up_ends() -> None:
    program = program_of([dag_message(Smoothed())])
    bars = market(120)
    run = here(program, bars)
    (plain,) = run(PLAIN)
    warmed = warm_up(program, run, bars, plain, starts(bars, 3))
    (odd,) = (one for one in warmed.settlings if one.node == "odd")
    assert (odd.warm_up, odd.settled, odd.largest, odd.missing) == (5, 5, 0.0, 0)


# ---- other bars -------------------------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 40),
    gaps=st.lists(st.integers(0, 39), max_size=10),
    place=st.integers(0, 39),
    future=st.sampled_from(Future),
)
@settings(max_examples=60, deadline=None)
def test_another_future_is_one_of_sound_bars_and_the_same_past(
    count: int, gaps: list[int], place: int, future: Future
) -> None:
    bars = {"BTC-USD": BarColumns.of("BTC-USD", 60, bars_of("BTC-USD", count, gaps))}
    buckets = all_buckets(bars)
    cut_ms = int(buckets[min(place, len(buckets) - 1)]) if len(buckets) else 0
    was, became = (list(one["BTC-USD"].bars()) for one in (bars, OtherFuture(cut_ms, future).of(bars)))
    OtherFuture(cut_ms, future).of(bars)["BTC-USD"].require_sound()
    past = [one for one in was if one.open_time_ms + 60_000 <= cut_ms]
    assert became[: len(past)] == past
    after, others = was[len(past) :], became[len(past) :]
    assert len(others) == (0 if future is Future.DROPPED else len(after))
    if future in (Future.DOUBLED, Future.HALVED):
        assert all(one.close != other.close for one, other in zip(after, others, strict=True))
    if future is Future.REVERSED:
        assert [one.close for one in others] == [one.close for one in after][::-1]


@given(st.datetimes(datetime(1970, 1, 1), datetime(2400, 1, 1)))  # noqa: DTZ001 - hypothesis takes naive bounds
def test_another_calendar_has_the_same_dates_weekdays_and_hours(moment: datetime) -> None:
    """400 years are a whole number of weeks, and what was shifted is a whole number of them and of 2 to 10 days."""
    days = CALENDAR_MS // 86_400_000
    assert days * 86_400_000 == CALENDAR_MS
    assert all(days % count == 0 for count in range(1, 11))
    later = moment.replace(tzinfo=UTC) + timedelta(days=days // 40)
    assert (later.month, later.day, later.hour, later.weekday()) == (
        moment.month,
        moment.day,
        moment.hour,
        moment.weekday(),
    )
    assert later.year == moment.year + 400


class Resampled(Strategy):
    """An interval of which no whole number fits into the years by which bars are moved, and what reads it."""

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        odd = builtin("resample", price, every=11 * 60, take="last", name="odd")
        mean = builtin("sma", odd, 2)
        self.add_nodes([price, odd, mean, builtin("position_target", mean, long_percent=1, short_percent=0)])


def test_an_interval_that_does_not_fit_the_other_calendar_is_no_finding() -> None:
    program = program_of([dag_message(Resampled())])
    bars = market(60)
    run = here(program, bars)
    (plain,) = run(PLAIN)
    assert 0 < sum(len(one) for one in plain.told[program.signals[0]].values()) < 20
    assert other_calendar(program, run, plain) == ()


def test_bars_that_begin_later_or_elsewhere_are_the_same_bars() -> None:
    bars = market(30)
    later = LaterStart(int(bars["BTC-USD"].open_time_ms[12])).of(bars)
    assert list(later["BTC-USD"].bars()) == list(bars["BTC-USD"].bars())[12:]
    moved = OtherCalendar(86_400_000).of(bars)["ETH-USD"]
    assert [replace(one, open_time_ms=one.open_time_ms - 86_400_000) for one in moved.bars()] == list(
        bars["ETH-USD"].bars()
    )


@given(st.integers(0, 50), st.integers(1, 30))
def test_cuts_and_beginnings_lie_within_the_data(count: int, wanted: int) -> None:
    bars = {"BTC-USD": BarColumns.of("BTC-USD", 60, bars_of("BTC-USD", count))}
    program = program_of([dag_message(Smoothed())])
    buckets = all_buckets(bars).tolist()
    at_ms = cuts(bars, program, Trace({}), wanted)
    assert set(at_ms) <= set(buckets[:-1])
    assert list(at_ms) == sorted(set(at_ms))
    assert bool(at_ms) is (count > 1)
    begin = starts(bars, wanted)
    assert set(begin) <= {bucket_ms - 60_000 for bucket_ms in buckets[1:]}
    assert all(one < buckets[-1] for one in begin)


# ---- two runs beside each other ---------------------------------------------------------------------------------------

VALUES = st.dictionaries(
    st.integers(0, 12), st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, -3.5]), max_size=8
)


@given(VALUES, VALUES)
def test_two_runs_differ_first_where_two_tables_of_them_do(
    one: dict[int, float], other: dict[int, float]
) -> None:
    def told(values: dict[int, float]) -> Told:
        return Told.of_outputs([(at, values[at]) for at in sorted(values)])

    def said(values: dict[int, float], at: int) -> str:
        return repr(values[at]) if at in values else "nothing"

    apart = [at for at in sorted({*one, *other}) if said(one, at) != said(other, at)]
    assert changed(told(one), told(other)).tolist() == apart
    found = difference("X", told(one), told(other))
    if not apart:
        assert found is None
    else:
        assert found is not None
        assert (found.bucket_ms, found.was, found.became) == (
            apart[0],
            said(one, apart[0]),
            said(other, apart[0]),
        )


def test_record_by_record_and_in_columns_are_the_same_of_two_symbols_with_gaps() -> None:
    bars = market(80)
    for way in (Way(by_bucket=True), Way(chunk=9), Way(backwards=True)):
        was, became = (drive(ALL_TYPES, bars, {}, one) for one in (Way(), way))
        for node_id, by_symbol in was.told.items():
            for symbol, one in by_symbol.items():
                assert difference(symbol, one, became.of(node_id, symbol)) is None


class Failing(Strategy):
    """A function that fails above a price of one of the symbols, and what reads it."""

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        limit = ProcessingNode(price, fails_above, name="limit", params={"limit": 101})
        mean = builtin("sma", limit, 2)
        self.add_nodes(
            [price, limit, mean, builtin("position_target", mean, long_percent=1, short_percent=0)]
        )


def test_a_function_that_fails_is_silent_from_there_on_for_all_symbols_however_it_is_run() -> None:
    """As on a log: in the bucket in which it fails nothing is there for any symbol."""
    program = program_of([dag_message(Failing())])
    bars = market()
    limit = next(one for one in program.nodes if one.name == "limit")
    over = {
        symbol: one.bucket_ms[np.flatnonzero(one.close.floats() > 101)[:1]].tolist()
        for symbol, one in bars.items()
    }
    first_ms = min(found[0] for found in over.values() if found)
    for way in (
        Way(),
        Way(by_bucket=True),
        Way(chunk=5),
        Way(backwards=True),
        Way(by_bucket=True, backwards=True),
    ):
        trace = drive(program, bars, {limit.node_id: fails_above}, way)
        failed = trace.failures[limit.node_id]
        assert (failed.bucket_ms, over[failed.symbol]) == (first_ms, [first_ms])
        for symbol, one in bars.items():
            before = one.bucket_ms[one.bucket_ms < first_ms].tolist()
            assert trace.of(limit.node_id, symbol).bucket_ms.tolist() == before


@pytest.mark.parametrize(
    ("second", "became"),
    [(lambda first: first + 1.0, "103.0"), (lambda first: 1 / 0, "it raised ZeroDivisionError")],
)
def test_what_a_function_gives_the_second_time_it_is_called_with_a_view_is_held_against_the_first(
    second: Callable[[float], float], became: str
) -> None:
    program = program_of([dag_message(Failing())])
    limit = next(one for one in program.nodes if one.name == "limit")
    seen: set[tuple[str, int]] = set()

    def otherwise(view: CacheView) -> float:
        here = (view.symbol, view.bucket_ms)
        if here in seen:
            return second(102.0)
        seen.add(here)
        return 102.0

    bars = market(10)
    assert drive(program, bars, {limit.node_id: otherwise}).unequal == {}
    seen.clear()
    (found,) = drive(program, bars, {limit.node_id: otherwise}, Way(twice=True)).unequal.values()
    assert (found.symbol, found.bucket_ms) == ("BTC-USD", int(bars["BTC-USD"].bucket_ms[0]))
    assert (found.was, found.became) == ("102.0", became)
