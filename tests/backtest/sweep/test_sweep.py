"""A sweep is as many backtests: each combination has what it would have alone, whoever ran it, and nodes are computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.backtest.signals import BySymbol
from qmtl.backtest.simulation import simulate
from qmtl.backtest.sweep.bar_files import map_bars, write_bars
from qmtl.backtest.sweep.job import Done, Setting
from qmtl.backtest.sweep.node_cache import KeptNodes
from qmtl.backtest.sweep.plan import Plan, job_size
from qmtl.backtest.sweep.processes import Processes
from qmtl.backtest.sweep.running import JobRunner
from qmtl.backtest.sweep.sweep import Swept, figures_of, require_figure, swept
from qmtl.foundation.common.errors import InvalidStrategy, InvalidSweep, NothingSwept, WorkerLost
from qmtl.foundation.contracts.trade import Fill, Order
from qmtl.interfaces.report.from_backtest import result_of
from qmtl.runtime.performance.kpi import performance_of
from qmtl.services.dagmanager.graph import GraphNode
from tests.backtest.sweep.authored import (
    Cross,
    Deadly,
    Foreign,
    Nameless,
    Open,
    Positional,
    Reverting,
    Wordless,
)
from tests.backtest.sweep.sweeps import SETTING, bars, csv_of, plan, run

GRID = ("fast=3,5,8", "slow=13,20", "both=false,true")


@pytest.fixture(scope="module")
def found() -> Swept:
    return run(plan(*GRID))


def test_each_combination_has_the_figures_of_a_backtest_of_it_alone(found: Swept) -> None:
    for row, made in zip(found.rows, found.plan.made, strict=True):
        assert made.message is not None
        symbols = ("BTC-USD", "ETH-USD") if dict(row.combination.values)["both"] else ("BTC-USD",)
        alone = simulate([made.message], {symbol: bars()[symbol] for symbol in symbols})
        wanted = performance_of(result_of(alone), SETTING.convention)
        assert row.done.figures == tuple((one.name, one.value) for one in wanted.figures)
        assert (row.done.orders, row.done.fills) == (len(alone.orders), len(alone.fills))
        assert row.done.rejections == len(alone.rejections)
        assert row.strategy_id == alone.graphs[0].strategy_id
    assert sum(one.done.fills for one in found.rows) > 100
    assert len({one.done.figures for one in found.rows}) == len(found.rows)


def test_fifty_strategies_of_one_world_have_what_each_has_alone() -> None:
    made = plan("fast=2:11:1", "slow=12:16:1")
    runner = JobRunner(SETTING, bars())
    messages = [one.message for one in made.made if one.message is not None]
    assert len(messages) == 50
    together = simulate(messages, {"BTC-USD": bars()["BTC-USD"]})
    fills: dict[str, list[Fill]] = {}
    orders: dict[str, list[Order]] = {}
    for fill in together.fills:
        fills.setdefault(fill.strategy_id, []).append(fill)
    for order in together.orders.values():
        orders.setdefault(order.strategy_id, []).append(order)
    rows = sorted(map(repr, together.rows()))
    own = []
    for one in made.made:
        assert one.graph is not None
        part, wants = runner.signalled(one.graph)
        alone = runner.traded(one.graph, part, wants)
        assert list(alone.fills) == fills[one.strategy_id]
        assert list(alone.orders.values()) == orders[one.strategy_id]
        own += list(map(repr, alone.rows()))
    assert sorted(own) == rows
    assert len(rows) == 2 * 50
    assert runner.nodes.computed == together.computed == 1 + 15 + 2 * 50


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 13), st.sampled_from([0, 9_000, 1 << 30]), st.booleans(), st.permutations(GRID))
def test_jobs_memory_and_the_order_of_parameters_change_nothing(
    found: Swept,
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    kept: int,
    backwards: bool,
    said: list[str],
) -> None:
    directory = tmp_path_factory.getbasetemp()
    turned = [
        f"{name}={','.join(reversed(values.split(',')))}" for name, values in (one.split("=") for one in said)
    ]
    again = run(plan(*turned), size, kept, backwards=backwards)
    assert csv_of(again, directory) == csv_of(found, directory)
    assert [one.message for one in again.plan.made] == [one.message for one in found.plan.made]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_a_node_that_many_have_is_computed_once(size: int) -> None:
    made = plan("fast=3,5,8", "slow=13,20,30,40", "share=0.2,0.4", where=["fast<slow"])
    averages, crossings, targets = 3 + 4, 3 * 4, 3 * 4 * 2
    assert made.nodes_unique == 1 + averages + crossings + targets
    assert made.nodes_asked == 5 * targets
    found = run(made, size)
    assert found.computed == made.nodes_unique
    assert sum(len(job.asked) for job in made.jobs(size)) == targets


def test_what_is_kept_stays_within_its_room() -> None:
    made = plan("fast=3,5,8", "slow=13,20,30,40")
    column = 9 * len(bars()["BTC-USD"])
    nodes = KeptNodes(bars(), 3 * column)
    for job in made.jobs():
        for one in job.asked:
            nodes.of(one.graph)
            nodes.let_go(one.graph, job.shared)
            assert len(nodes.kept) <= 3
            assert set(nodes.kept) <= {node_id for node_id, count in made.readers.items() if count > 1}
    assert nodes.computed > made.nodes_unique


def test_neighbours_in_a_job_share_most() -> None:
    jobs = plan("fast=1:4:1", "share=0.1:0.4:0.1", "slow=20:23:1").jobs(4)
    assert len(jobs) == 16
    for job in jobs:
        crossings = {
            node.node.node_id
            for one in job.asked
            for node in one.graph.nodes
            if node.node.node_type == "cross"
        }
        assert len(crossings) == 1, "the four shares of one crossing are not beside each other"


@given(st.integers(1, 10_000), st.integers(1, 256))
def test_there_are_jobs_enough_for_all_processes(strategies: int, processes: int) -> None:
    size = job_size(strategies, processes)
    assert 1 <= size <= 16
    assert -(-strategies // size) >= min(strategies, processes)


def test_mapped_bars_are_the_bars(tmp_path: Path) -> None:
    mapped = map_bars(write_bars(tmp_path, bars()))
    assert list(mapped) == list(bars())
    for symbol, one in mapped.items():
        assert list(one.bars()) == list(bars()[symbol].bars())
        assert one.interval == bars()[symbol].interval
        with pytest.raises(ValueError, match="read-only"):
            one.close.units[0] = 1


# ---- what fails -----------------------------------------------------------------------------------------------------


def test_a_combination_that_its_class_refuses_is_a_row_and_the_others_go_on(found: Swept) -> None:
    mixed = run(plan("fast=5,13,20000", "slow=13,20", "both=false"))
    by_fast: dict[object, list[Done]] = {}
    for one in mixed.rows:
        by_fast.setdefault(dict(one.combination.values)["fast"], []).append(one.done)
    assert {one.code for one in by_fast[13]} == {"QMTL-851"}
    assert {one.fault for one in by_fast[13]} == {"ValueError: thirteen is unlucky by law"}
    assert {one.code for one in by_fast[20000]} == {"QMTL-512"}
    wanted = [
        one.done.figures
        for one in found.rows
        if one.combination.values[0] == ("both", False) and one.combination.values[1] == ("fast", 5)
    ]
    assert [one.figures for one in by_fast[5]] == wanted
    assert mixed.failed == 4
    assert [one.done.code for one in mixed.ranked("sharpe")] == [
        "",
        "",
        "QMTL-851",
        "QMTL-851",
        "QMTL-512",
        "QMTL-512",
    ]


def test_a_node_that_raises_fails_its_combination_alone(
    monkeypatch: pytest.MonkeyPatch, found: Swept
) -> None:
    made = plan(*GRID)
    broken = made.made[3].graph
    assert broken is not None
    compute = KeptNodes._compute

    def raising(self: KeptNodes, strategy_id: str, one: GraphNode) -> BySymbol:
        if one is broken.nodes[-1]:
            raise ZeroDivisionError("division by zero")
        return compute(self, strategy_id, one)

    monkeypatch.setattr(KeptNodes, "_compute", raising)
    again = run(made)
    assert (again.rows[3].done.code, again.rows[3].done.fault) == (
        "QMTL-851",
        "ZeroDivisionError: division by zero",
    )
    for place, (one, other) in enumerate(zip(again.rows, found.rows, strict=True)):
        assert place == 3 or one.done.figures == other.done.figures


def test_a_sweep_of_which_all_fails_says_why() -> None:
    with pytest.raises(
        NothingSwept,
        match=r"all 2 combinations failed; the first, fast 13, slow 20: \[QMTL-851\] ValueError: thirteen",
    ):
        run(plan("fast=13", "slow=20,30"))
    with pytest.raises(NothingSwept, match="'XRP-USD'"):
        run(plan("fast=5", strategy=Foreign))


PYTHON = ("length=5,8,13", "least=0.00001,0.00002")


def test_functions_of_an_author_are_run_and_one_that_fails_fails_its_own_combinations() -> None:
    made = plan(*PYTHON, strategy=Reverting)
    found = run(made)
    assert found.computed == made.nodes_unique == 1 + 3 + 6
    for row, one in zip(found.rows, made.made, strict=True):
        assert one.message is not None
        alone = simulate([one.message], bars())
        if dict(row.combination.values)["length"] == 13:
            assert row.done.code == "QMTL-413"
            assert row.done.fault.startswith("the function of 'spread' failed: it raised ZeroDivisionError")
            assert len(alone.faults) == 1
            continue
        wanted = performance_of(result_of(alone), SETTING.convention)
        assert row.done.figures == tuple((it.name, it.value) for it in wanted.figures)
        assert row.done.fills == len(alone.fills) > 5


REFUSED = {
    "unknown": (Cross, "length=5", "does not take 'length'; it takes both, fast, share, slow"),
    "by place alone": (Positional, "fast=5", "does not take 'fast'; it takes no parameters by name"),
    "without keywords": (Wordless, "fast=5", "does not take 'fast'; it takes no parameters by name"),
}


@pytest.mark.parametrize("strategy, said, told", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_constructor_does_not_take_is_refused_at_once(
    strategy: type[Cross], said: str, told: str
) -> None:
    with pytest.raises(InvalidSweep) as refused:
        plan(said, strategy=strategy)
    assert told in str(refused.value)


def test_what_a_constructor_needs_has_to_be_said() -> None:
    class Needy(Cross):
        def __init__(self, fast: int, slow: int) -> None:
            super().__init__(fast, slow)

    with pytest.raises(InvalidSweep, match="needs 'slow', which was not said"):
        plan("fast=5", strategy=Needy)
    assert plan("fast=5", "slow=20", strategy=Needy).made[0].graph is not None
    assert plan("fast=5", "slow=20", strategy=Open).made[0].graph is not None


def test_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidStrategy, match="strategy_id of Nameless"):
        plan("fast=5", strategy=Nameless)


def test_an_unknown_figure_is_refused_with_those_that_there_are(found: Swept) -> None:
    figures = figures_of(SETTING, 60)
    assert [one.name for one in figures] == [name for name, _ in found.rows[0].done.figures]
    assert require_figure("max_drawdown", figures).title == "Max drawdown"
    for name in ("shape", "drawdown_from", ""):
        with pytest.raises(InvalidSweep, match=f"no figure '{name}'") as refused:
            require_figure(name, figures)
        assert "sharpe, sortino" in refused.value.remedy


def test_rows_are_ranked_undefined_ones_behind_and_failed_ones_last(found: Swept) -> None:
    mixed = run(plan("fast=5,13,399", "slow=8,20"))
    for ascending in (False, True):
        ranked = mixed.ranked("hit_rate", ascending=ascending)
        values = [one.amount("hit_rate") for one in ranked]
        told = [float(one) for one in values if one is not None]
        assert told == sorted(told, reverse=not ascending)
        assert values[len(told) :] == [None] * (len(values) - len(told))
        assert [bool(one.done.code) for one in ranked] == [False, False, False, False, True, True]


# ---- processes ------------------------------------------------------------------------------------------------------


def spread(made: Plan, source: str) -> Swept:
    setting = Setting(SETTING.terms, SETTING.convention, f"tests.backtest.sweep.authored:{source}")
    engine = Processes(setting, bars(), 2)
    try:
        return swept(made, engine, 2)
    finally:
        engine.close()


def test_processes_and_what_dies_in_them_change_no_other_result(tmp_path: Path) -> None:
    made = plan("fast=3:8:1", "slow=13,20", strategy=Deadly)
    alone, found = run(made), spread(made, "Deadly")
    dead = [one for one in found.rows if one.done.code]
    assert [(one.combination.told(), one.done.code, one.done.fault) for one in dead] == [
        ("fast 4, slow 20", WorkerLost.code, "its process was lost 2 times: exit code 9"),
    ]
    places = {one.done.place for one in dead}
    mended = replace(
        found,
        rows=tuple(
            one if at in places else other
            for at, (one, other) in enumerate(zip(alone.rows, found.rows, strict=True))
        ),
    )
    assert csv_of(mended, tmp_path) == csv_of(alone, tmp_path)


def test_processes_find_the_functions_of_an_author(tmp_path: Path) -> None:
    made = plan(*PYTHON, strategy=Reverting)
    assert csv_of(spread(made, "Reverting"), tmp_path) == csv_of(run(made), tmp_path)
