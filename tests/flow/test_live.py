"""From paper to a venue and back, without a word of it in the strategy: which broker has an order follows from its activation, and the connection with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from qmtl.bootstrap import VENUE_KEY, VENUE_SECRET, open_log
from qmtl.foundation.contracts.broker import SessionState
from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderStatus, Side
from qmtl.foundation.contracts.world import EffectiveMode, PositionSide
from qmtl.testing.exchange import Fault, RunningExchange, running_exchange
from tests.flow.driving import begin, end, on_kafka
from tests.flow.live import CASH, STRATEGY, SYMBOL, Desk, counted, keys_of

PAPER, LIVE = f"strategy:{STRATEGY}", f"live:{STRATEGY}"


@pytest.fixture
def exchange() -> Iterator[RunningExchange]:
    with running_exchange({SYMBOL: Decimal(1000)}) as made, keys_of(made):
        made.commission(Decimal("0.001"), "quote")
        yield made


@pytest.fixture
def desk(tmp_path: Path, exchange: RunningExchange) -> Iterator[Desk]:
    # The minutes are of long ago, and none of them is too old.
    made = Desk(tmp_path, f"{exchange.venue}&max_age_s=0")
    made.feeding(made.begin(), 100)
    yield made
    made.close()


def session_of(desk: Desk) -> SessionState:
    (row,) = desk.rows("ops.sessions")
    found: SessionState = row.state
    return found


def require_same_books(desk: Desk, exchange: RunningExchange) -> None:
    """What the exchange has done is what the live book has, to the last digit, and nothing was sent twice."""
    taken = exchange.orders()
    ids = [one.client_order_id for one in taken]
    assert len(set(ids)) == len(ids)
    assert set(ids) == set(desk.live())
    cash, held = counted(exchange.fills())
    book = desk.book(LIVE)
    assert book[""].cash == cash
    assert book[SYMBOL].quantity == held


def test_orders_follow_the_activation_from_paper_to_the_venue_and_back(
    desk: Desk, exchange: RunningExchange
) -> None:
    desk.gate(EffectiveMode.PAPER)
    desk.trade(10)
    on_paper = desk.book(PAPER)
    assert on_paper[""].fees > 0
    assert desk.live() == {}
    assert exchange.counts().requests == {}  # nobody has asked it for anything
    assert desk.rows("ops.sessions") == []

    desk.gate(EffectiveMode.LIVE)
    desk.trade(20)
    assert session_of(desk) is SessionState.OPEN
    orders = desk.live()
    assert len(orders) >= 9
    assert {one.status for one in orders.values()} == {OrderStatus.FILLED}
    assert {one.session for one in orders.values()} == {2}
    require_same_books(desk, exchange)
    # Nothing is carried over: the first live order is sized by the initial cash, from flat.
    first = min(orders.values(), key=lambda one: one.created_at_ms)
    assert first.side is Side.BUY
    assert first.quantity * first.reference_price <= CASH * Decimal("0.4")
    begun_ms = first.created_at_ms
    assert all(
        one.mode is BrokerMode.LIVE for one in desk.rows("trade.orders") if one.created_at_ms >= begun_ms
    )

    desk.gate(EffectiveMode.COMPUTE_ONLY)
    desk.trade(22)
    assert session_of(desk) is SessionState.CLOSED
    before = exchange.counts().requests
    desk.trade(30)
    assert exchange.counts().requests == before  # the connection is gone, and stays so
    assert len(desk.live()) == len(orders)

    desk.gate(EffectiveMode.PAPER)
    desk.trade(40)
    book = desk.book(PAPER)
    assert book[""].session == 3
    later = [one for one in desk.rows("trade.orders") if one.session == 3]
    assert {one.mode for one in later} == {BrokerMode.PAPER}
    assert len(later) >= 8
    assert desk.events("dead.letters") == []


def test_a_position_at_the_venue_is_taken_back_while_the_strategy_is_on_paper_again(
    desk: Desk, exchange: RunningExchange
) -> None:
    desk.gate(EffectiveMode.LIVE)
    desk.trade(9)  # at an even price: it has just bought
    assert desk.book(LIVE)[SYMBOL].quantity > 0
    desk.gate(EffectiveMode.PAPER)
    desk.trade(14)
    assert desk.book(LIVE)[SYMBOL].quantity == 0
    require_same_books(desk, exchange)
    assert session_of(desk) is SessionState.CLOSED
    orders = sorted(desk.live().values(), key=lambda one: one.created_at_ms)
    assert [one.side for one in orders[:9]] == [Side.BUY, Side.SELL] * 4 + [Side.BUY]
    later = orders[9:]
    assert later
    assert all(one.side is Side.SELL and one.reduce_only for one in later)


@pytest.mark.parametrize("fault", [Fault.TAKEN_CUT, Fault.TAKEN_503, Fault.TAKEN_GARBAGE, Fault.ABSENT])
def test_an_answer_that_is_lost_costs_no_second_order(
    desk: Desk, exchange: RunningExchange, fault: Fault
) -> None:
    desk.gate(EffectiveMode.LIVE)
    desk.trade(4)
    exchange.fault(fault)
    desk.trade(12)
    require_same_books(desk, exchange)
    assert {one.status for one in desk.live().values()} == {OrderStatus.FILLED}


def test_a_process_that_dies_again_and_again_sends_nothing_twice(
    desk: Desk, exchange: RunningExchange
) -> None:
    desk.gate(EffectiveMode.LIVE)
    for until in range(3, 21):
        desk.trade(until)
        desk.restart()
    require_same_books(desk, exchange)
    assert len(desk.live()) >= 15


def has_gone_on(desk: Desk, process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None or not desk.waits()


def test_on_a_real_broker_an_edge_that_is_killed_while_it_sends_leaves_no_order_twice_and_none_unheard_of(
    tmp_path: Path, exchange: RunningExchange, kafka_bootstrap: str
) -> None:
    venue = {
        "QMTL_VENUE": f"{exchange.venue}&max_age_s=0",
        VENUE_KEY: exchange.key,
        VENUE_SECRET: exchange.secret,
    }
    with on_kafka(kafka_bootstrap, tmp_path, {}) as place:
        here = ("dagmanager", "topicadmin", "worldservice", "nodes", "trading", "oms")
        desk = Desk(tmp_path, "", open_log(place.log), names=here)

        def edge(**env: str) -> subprocess.Popen[str]:
            state = str(tmp_path / "egress")
            return begin(
                ["worker", "run", "egress", "--log", place.log, "--state-dir", state], env={**venue, **env}
            )

        running = None
        try:
            desk.feeding(desk.begin(), 400)
            desk.gate(EffectiveMode.LIVE)
            minute = 1
            # The connection is the first thing that is asked for, a claim the second, and the third an order that is sent: the log never hears of it.
            for passage in ("3", "4", "7"):
                running = dying = edge(QMTL_FAILPOINT=f"before_commit:{passage}")
                while dying.poll() is None:
                    minute += 1
                    desk.trade(minute)
                    desk.until(partial(has_gone_on, desk, dying))
                assert dying.returncode == -signal.SIGKILL, end(dying)
            running = edge()
            sent = len(exchange.orders())
            while len(exchange.orders()) < sent + 5:
                minute += 1
                desk.trade(minute)
                desk.until(lambda: not desk.waits())
            desk.until(lambda: {one.client_order_id for one in exchange.orders()} <= set(desk.ended()))
            ids = [one.client_order_id for one in exchange.orders()]
            assert len(set(ids)) == len(ids)
            orders = desk.live()
            assert {orders[one].status for one in ids} == {OrderStatus.FILLED}
            unsure = {one.order.order_id for one in desk.rows("oms.attempts")}
            assert (
                set(orders) - set(ids) <= unsure
            )  # claimed by one that died before it had sent: nobody sends it now
            cash, held = counted(exchange.fills())
            assert desk.book(LIVE)[""].cash == cash
            assert desk.book(LIVE)[SYMBOL].quantity == held
        finally:
            if running is not None and running.poll() is None:
                running.terminate()
                assert end(running).code == 0
            desk.close()


def test_a_strategy_without_a_venue_trades_nothing_and_says_why(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "")
    try:
        desk.feeding(desk.begin(), 10)
        desk.gate(EffectiveMode.LIVE)
        desk.trade(6)
        orders: list[Order] = list(desk.live().values())
        assert orders
        assert {one.status for one in orders} == {OrderStatus.REJECTED}
        (session,) = desk.rows("ops.sessions")
        assert not session.connected
        assert session.code == "QMTL-722"
        assert desk.book(LIVE)[""].cash == CASH
    finally:
        desk.close()


def test_one_side_that_is_live_makes_the_strategy_live(desk: Desk, exchange: RunningExchange) -> None:
    desk.gate(EffectiveMode.PAPER)
    desk.trade(4)
    desk.gate(EffectiveMode.LIVE, [PositionSide.SHORT])
    desk.trade(10)
    assert desk.live() == {}  # it only buys and sells again: the side on which it would open is on paper
    desk.gate(EffectiveMode.LIVE, [PositionSide.LONG])
    desk.trade(14)
    require_same_books(desk, exchange)
    assert desk.live()
