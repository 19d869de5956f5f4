"""A backtest of strategies that read their own portfolio: bucket by bucket, and refused by name where nothing is traded between two buckets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl import (
    CacheView,
    PortfolioInput,
    ProcessingNode,
    Strategy,
    StreamInput,
    TagQueryNode,
    dag_message,
    register,
)
from qmtl.backtest.honesty.check import check
from qmtl.backtest.recording import Recorder
from qmtl.backtest.signals import Nodes
from qmtl.backtest.simulation import Simulated, simulate
from qmtl.backtest.sweep.asking import Maker
from qmtl.backtest.sweep.space import Combination, Space
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.sdk.builtins import cross, position_target, sma
from qmtl.services.dagmanager.admission import admit
from tests.flow.feedback import (
    SYMBOLS,
    TERMS,
    Patient,
    Rule,
    Scaling,
    bars_of,
    counted,
    patient,
    scaled,
    scaling,
    signed,
    waiting_for_gain,
)

register(scaled)
register(patient)


def columns_of(count: int, seed: int) -> dict[str, BarColumns]:
    every = bars_of(count, seed)
    return {one: BarColumns.of(one, 60, [bar for bar in every if bar.symbol == one]) for one in SYMBOLS}


class Plain(Strategy):
    """One that reads nothing back."""

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60)
        fast, slow = sma(price, 2), sma(price, 4)
        side = cross(fast, slow)
        self.add_nodes(
            [price, fast, slow, side, position_target(side, long_percent="0.3", short_percent="-0.3")]
        )


def fails_once_it_holds(view: CacheView) -> float:
    held = view["held"][60].values()[-1]
    return 1.0 / (1.0 if held == 0 else 0.0)


class Failing(Strategy):
    """Its function fails in the first bucket in which it sees a position; what signals is another node."""

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60)
        held = PortfolioInput(price, lag=1, name="held")
        broken = ProcessingNode({"held": held}, fails_once_it_holds, name="broken")
        self.add_nodes([price, held, broken, position_target(price, long_percent="0.3", short_percent="0")])


class OfWorld(Strategy):
    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60)
        held = PortfolioInput(price, "cash", lag=1, scope="world", name="held")
        self.add_nodes([price, held, position_target(held, long_percent="0.3", short_percent="0")])


def what(done: Simulated, strategy_id: str) -> list[OrderIntent | Order | Fill | OrderRejection]:
    rows: tuple[OrderIntent | Order | Fill | OrderRejection, ...] = (
        *done.intents,
        *done.orders.values(),
        *done.fills,
        *done.rejections,
    )
    return [row for row in rows if row.strategy_id == strategy_id]


@pytest.mark.parametrize(("strategy", "rule"), [(Scaling, scaling), (Patient, waiting_for_gain)])
@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 80), seed=st.integers(0, 10_000))
def test_it_comes_to_what_is_counted_by_hand(
    strategy: type[Strategy], rule: Rule, count: int, seed: int
) -> None:
    done = simulate([dag_message(strategy())], columns_of(count, seed), TERMS)
    wanted = counted(bars_of(count, seed), rule)
    assert [one[1:] for one in signed(done.fills)] == wanted.filled
    (equity,) = (row.equity for row in done.rows() if isinstance(row, Account))
    assert equity == wanted.equity


def test_a_strategy_beside_it_is_left_as_it_is_alone() -> None:
    bars = columns_of(60, 3)
    both = simulate([dag_message(Plain()), dag_message(Scaling())], bars, TERMS)
    for one, name in ((Plain(), "plain"), (Scaling(), "scaling")):
        alone = simulate([dag_message(one)], bars, TERMS)
        assert what(both, name) == what(alone, name)
        assert what(alone, name)
    graph = admit(dag_message(Plain()), 0)
    assert both.computed == len({node.node.node_id for node in graph.nodes}) + 3


def test_a_function_that_fails_stops_its_node_and_nothing_else() -> None:
    register(fails_once_it_holds)
    bars = columns_of(30, 3)
    done = simulate([dag_message(Failing())], bars, TERMS)
    (fault,) = done.faults
    opened = min(one.fill_time_ms for one in done.fills) + 60_000
    assert (fault.strategy_id, fault.name) == ("failing", "broken")
    assert fault.bucket_ms > opened  # the bucket that fills it does not see it yet
    assert max(one.bucket_ms for one in done.intents) > fault.bucket_ms


def test_what_is_recorded_is_what_it_has_come_to(tmp_path: Path) -> None:
    bars, log = columns_of(40, 3), EmbeddedLog(tmp_path)
    recorder = Recorder(log)
    done = simulate([dag_message(Scaling())], bars, TERMS, recorder=recorder)
    assert list(recorder.read("trade.intents")) == list(done.intents)
    assert {one.order_id: one for one in recorder.read("trade.orders")} == done.orders
    assert list(recorder.read("trade.fills")) == list(done.fills)
    rows = {(one.scope, one.symbol): one for one in recorder.read("trade.portfolio")}
    assert sorted(rows.values(), key=repr) == sorted(done.rows(), key=repr)
    recorder.close()
    log.close()


def test_a_worlds_portfolio_is_one_strategys_where_it_is_alone_and_refused_beside_others() -> None:
    bars = columns_of(40, 3)
    assert simulate([dag_message(OfWorld())], bars, TERMS).fills
    with pytest.raises(InvalidDag, match=r"'held' reads what all strategies .* by itself"):
        simulate([dag_message(OfWorld()), dag_message(Plain())], bars, TERMS)


class Asking(Strategy):
    """Asks for tags, and reads what it holds."""

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60, tags=["here"])
        asked = TagQueryNode(["here"], name="asked", interval=60)
        held = PortfolioInput(price, field="quantity", lag=1, scope="strategy", name="held")
        side = cross(asked, held)
        self.add_nodes(
            [price, asked, held, side, position_target(side, long_percent="0.3", short_percent="0")]
        )


def test_a_tag_query_of_a_strategy_that_reads_back_is_refused_by_name() -> None:
    with pytest.raises(
        InvalidDag, match=r"'asked' is a tag query of a strategy that reads the portfolio"
    ) as refused:
        simulate([dag_message(Asking())], columns_of(10, 3), TERMS)
    assert refused.value.code == "QMTL-500"


def test_where_nodes_are_computed_before_anything_is_traded_it_is_refused_by_name() -> None:
    """As in a sweep, whose combinations share the values of their nodes."""
    bars, message = columns_of(10, 3), dag_message(Scaling())
    with pytest.raises(InvalidDag, match=r"'held' reads the portfolio.*qmtl backtest") as refused:
        Nodes(bars).of(admit(message, 0))
    assert refused.value.code == "QMTL-500"
    made = Maker(Scaling, Space(())).make(Combination(()))
    assert (made.graph, made.code) == (None, "QMTL-500")
    assert made.fault.startswith("node 'held' reads the portfolio")
    with pytest.raises(InvalidDag, match=r"'held' reads the portfolio; a check"):
        check([message], bars, TERMS)
