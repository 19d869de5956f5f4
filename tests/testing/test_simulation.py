"""What authors test with: a bug of theirs is found and told with its seed, and a sound processor passes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from qmtl.engine.processor import Arrival, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvalidValue, SimulationFailed
from qmtl.foundation.contracts.trade import Position, Side
from qmtl.testing import Close, Moment, Outcome, crash, simulate, simulate_strategy
from qmtl.testing.simulation import Given
from tests.engine.models import counted, loop_model, minute, totals
from tests.engine.toys import A_OUT, COUNTS, ECHO, ITEMS, SPECS, A, B, Counter, Item, Seen, X
from tests.simulate.system import bars, message, settings

RECORDS = [(ITEMS.name, Item(f"n{number % 2}", number, number % 3)) for number in range(12)]


def test_a_sound_processor_gives_the_same_under_every_seed() -> None:
    asked: list[int | None] = []

    def everything_is_echoed(run: Outcome) -> bool:
        asked.append(run.seed)
        return len(run.messages(ECHO.name)) == len(RECORDS)

    marked: list[Given] = [*RECORDS[:6], crash("inside_commit"), *RECORDS[6:], crash()]
    found = simulate(Counter, marked, topics=SPECS, seeds=6, laws=[everything_is_echoed], workers=2)
    assert asked == [None, *range(6)]
    assert found.seeds == 6
    assert sorted(found.outcome.messages(ECHO.name), key=lambda one: one.seq) == counted(
        [item for _, item in RECORDS]
    )
    assert found.outcome.rows(COUNTS.name) == totals([item for _, item in RECORDS])
    assert found.coverage.counts["died inside_commit"]


def test_a_loop_over_a_delayed_edge_is_fed_by_buckets() -> None:
    buckets = [[("a", 1)], [], [("b", 2), ("a", 3)]]
    records: list[Given] = []
    for number, bucket in enumerate(buckets):
        records += [
            (X.name, Item(name, number * 100 + index, amount)) for index, (name, amount) in enumerate(bucket)
        ]
        records.append(Close(X.name, minute(number)))
    found = simulate([A, B], records, topics=SPECS, seeds=4, ordered=[A_OUT.name])
    assert found.outcome.messages(A_OUT.name) == loop_model(buckets, 1)


class Remembering(Counter):
    """Keeps in memory what a table should keep, so it forgets with its process."""

    def __init__(self) -> None:
        self._amounts: dict[str, int] = {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._amounts = {}

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        self._amounts[item.name] = self._amounts.get(item.name, 0) + item.amount
        step.emit(ECHO.name, Seen(0, item.name, item.seq, self._amounts[item.name]))


def test_a_processor_that_keeps_state_outside_its_tables_is_found_with_seed_and_schedule() -> None:
    with pytest.raises(SimulationFailed) as told:
        simulate(Remembering, RECORDS, topics=SPECS)
    assert "QMTL-808" in str(told.value)
    assert "exactly once" in told.value.what
    assert "seed" in told.value.what
    assert told.value.what.count("\n") <= 20  # the schedule was cut down


def test_one_mark_in_the_input_is_enough_to_find_it() -> None:
    with pytest.raises(SimulationFailed, match="exactly once"):
        simulate(Remembering, [*RECORDS[:5], crash(), *RECORDS[5:]], topics=SPECS, seeds=range(1))


def test_a_law_that_does_not_hold_is_told() -> None:
    def nothing_is_echoed(run: Outcome) -> bool:
        return not run.messages(ECHO.name)

    with pytest.raises(SimulationFailed, match="nothing_is_echoed does not hold"):
        simulate(Counter, RECORDS, topics=SPECS, seeds=1, laws=[nothing_is_echoed])


def test_an_invariant_that_breaks_on_the_way_and_holds_at_the_end_is_told_with_its_seed() -> None:
    def both_names_come_along(run: Outcome | Moment) -> bool:
        names = [one.name for one in run.messages(ECHO.name)]
        return abs(names.count("n0") - names.count("n1")) <= 2

    simulate(Counter, RECORDS, topics=SPECS, seeds=12, laws=[both_names_come_along])
    with pytest.raises(SimulationFailed, match="both_names_come_along: does not hold") as told:
        simulate(Counter, RECORDS, topics=SPECS, seeds=12, invariants=[both_names_come_along])
    assert "seed" in told.value.what  # in the run without faults it holds


def test_an_invariant_is_asked_on_the_way_of_all_that_could_be_read_by_then() -> None:
    seen: list[int] = []

    def nothing_is_echoed_twice(now: Moment) -> None:
        echoed = now.messages(ECHO.name)
        seen.append(len(echoed))
        assert len({one.seq for one in echoed}) == len(echoed)
        assert len(now.rows(COUNTS.name)) <= 2

    simulate(Counter, RECORDS, topics=SPECS, seeds=2, invariants=[nothing_is_echoed_twice])
    # In the run without faults: one record after the other, but that both tasks take their first one in the same round.
    assert {0, *range(2, len(RECORDS) + 1)} <= {*seen}


def test_an_invariant_that_raises_is_told_with_what_it_raised() -> None:
    def is_early(now: Moment) -> None:
        assert len(now.messages(ECHO.name)) < 5, "five are too many"

    with pytest.raises(SimulationFailed, match="is_early: AssertionError: five are too many"):
        simulate(Counter, RECORDS, topics=SPECS, seeds=1, invariants=[is_early])


def test_a_crash_at_no_failpoint_is_refused() -> None:
    with pytest.raises(InvalidValue, match="no failpoint"):
        crash("somewhere")


def test_a_strategy_trades_the_same_under_faults() -> None:
    def positions_are_the_sum_of_fills(run: Outcome) -> bool:
        bought: dict[str, Decimal] = {}
        for one in run.rows("trade.fills"):
            signed = one.quantity if one.side is Side.BUY else -one.quantity
            bought[one.symbol] = bought.get(one.symbol, Decimal(0)) + signed
        rows = [one for one in run.rows("trade.portfolio") if isinstance(one, Position)]
        held = {one.symbol: one.quantity for one in rows if one.scope == "strategy:sma-cross"}
        return held == bought

    found = simulate_strategy(
        message(), bars(20), settings=settings(), seeds=3, laws=[positions_are_the_sum_of_fills]
    )
    assert found.outcome.rows("trade.fills")


def test_a_strategy_that_is_refused_is_said_to_be() -> None:
    with pytest.raises(SimulationFailed, match="refused"):
        simulate_strategy({"nodes": []}, bars(5), settings=settings(), seeds=1)
