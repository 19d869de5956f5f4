"""A node that reads the portfolio back gives what was closed with the bucket before, whenever it was deployed and however often its task was begun anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.processor import Arrival, Bucket
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.common.canonical import canonical_json
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.context import ALL_WORLDS, THE_CONTEXT, LogContext, SaidContext
from qmtl.foundation.contracts.dag import PlannedNode, StrategyStatus, StrategyVersion
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeState, NodeStatus, NodeValue
from qmtl.foundation.contracts.trade import Account, Position
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import DESK, shards_of
from qmtl.foundation.wire.topics import SHARDS, topic
from qmtl.services.nodes.portfolio import PORTFOLIO_EDGE
from qmtl.services.nodes.processor import Nodes

STEP_MS = 60_000
SYMBOLS = ("A", "B")
OWN = SaidContext("w", ExecutionDomain.DRYRUN, "x", "", "", False)
SHARED = replace(OWN, world_id=ALL_WORLDS, shared_worlds=True)


def id_of(name: str) -> str:
    return f"blake3:{0:08x}{name.encode().hex():0>56}"


def node(name: str, kind: str, reads: tuple[str, ...] = (), **params: Any) -> PlannedNode:
    said = canonical_json(params)
    return PlannedNode(name, id_of(name), kind, 60, 1, said, tuple(map(id_of, reads)), f"t_{name}", 1, False)


PRICE = node("price", "price", symbols=list(SYMBOLS))
READERS = {
    "quantity": node(
        "quantity", "portfolio", ("price",), field="quantity", scope="strategy", strategy_id="s", lag=1
    ),
    "equity": node(
        "equity", "portfolio", ("price",), field="equity", scope="strategy", strategy_id="s", lag=1
    ),
    "all": node("all", "portfolio", ("price",), field="cost", scope="world", lag=1),
    "cash": node("cash", "portfolio", ("price",), field="cash", scope="world", lag=1),
}


def position(world: str, strategy: str, symbol: str, number: int, book: str = "strategy") -> Position:
    quantity, cost = Decimal(number), Decimal(number).scaleb(-2) * 7
    rest = (Decimal(0), Decimal(1), Decimal(2), Decimal(3), Decimal(4))
    return Position(world, f"{book}:{strategy}", symbol, quantity, cost, *rest, 1, 0)


def account(world: str, strategy: str, number: int, book: str = "strategy", session: int = 1) -> Account:
    cash, equity = Decimal(number).scaleb(-3), Decimal(number) * 3
    rest = (Decimal(0), Decimal(0), Decimal(0), Decimal(0))
    return Account(world, f"{book}:{strategy}", "USD", Decimal(1), cash, equity, *rest, 0, session)


class Desk:
    """The highest task of the node workers on real tables. Records of `trade.portfolio` wait for it as long as it does not read them."""

    closed_ms = 0

    def __init__(self, store: Store) -> None:
        self._tables = {name: Table(topic(name), DESK, store, codec) for name in Nodes.tables}
        self.emitted = list[Any]()
        self.waiting = list[Position | Account]()
        self.buckets = 0
        self.restart()

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append(codec.decode(codec.encode(message)))

    def encode(self, message: Any) -> bytes:
        return codec.encode(message)

    def restart(self) -> None:
        self._nodes = Nodes()
        self._nodes.restore(self._tables)

    def undo(self, before: Desk) -> None:
        """Go back to the rows of another one."""
        self._tables = before._tables
        self._nodes.restore(self._tables)

    def hear(self, name: str, message: Any) -> None:
        self._nodes.on_record(self, Arrival(name, 0, 0, message))
        self._nodes.flush(self)

    def enter(self, said: SaidContext) -> None:
        self.hear("dag.context", LogContext(THE_CONTEXT, said, 0))

    def deploy(self, names: tuple[str, ...]) -> None:
        nodes = (PRICE, *(READERS[name] for name in names))
        row = StrategyVersion("w", "s", "v1", "v", "x", StrategyStatus.READY, nodes, (), desk=DESK)
        self.hear("dag.strategies", row)

    @property
    def reads(self) -> bool:
        return PORTFOLIO_EDGE in self._nodes.inputs()

    def take(self, symbols: tuple[str, ...]) -> dict[tuple[str, str], float]:
        """Close a bucket; what came of the portfolio comes with it, if it is read."""
        self.buckets += 1
        self.emitted.clear()
        one = Decimal(1)
        bars = [Bar(symbol, (self.buckets - 1) * STEP_MS, 60, *[one] * 5) for symbol in symbols]
        arrivals = {PRICE.topic: [Arrival(PRICE.topic, 0, 0, bar) for bar in bars]}
        if self.reads:
            arrivals["trade.portfolio"] = [Arrival("trade.portfolio", 0, 0, row) for row in self.waiting]
            self.waiting = []
        self._nodes.on_bucket(self, Bucket(self.buckets * STEP_MS, arrivals))
        self._nodes.flush(self)
        return {(row.node_id, row.symbol): row.value for row in self.emitted if isinstance(row, NodeValue)}

    def state(self, name: str) -> NodeState:
        found: NodeState = self.table("node.state").get(id_of(name))
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("feedback"), "desk")
    yield made
    made.close()


WORLDS, STRATEGIES, BOOKS = (
    st.sampled_from("wv"),
    st.sampled_from("sr"),
    st.sampled_from(("strategy", "live")),
)
NUMBERS = st.integers(-9, 9)
ROWS = st.builds(position, WORLDS, STRATEGIES, st.sampled_from(SYMBOLS), NUMBERS, BOOKS) | st.builds(
    account, WORLDS, STRATEGIES, NUMBERS, BOOKS, st.integers(1, 4)
)
ACTS = st.one_of(
    ROWS,
    st.just("restart"),
    st.sets(st.sampled_from(sorted(READERS))).map(lambda names: ("deploy", *sorted(names))),
    st.sets(st.sampled_from(SYMBOLS)).map(lambda symbols: ("take", *sorted(symbols))),
)


@settings(max_examples=150, deadline=None)
@given(acts=st.lists(ACTS, max_size=25))
def test_a_node_gives_what_was_closed_before_whenever_it_came(store: Store, acts: list[Any]) -> None:
    desk, rows, deployed = Desk(store), dict[tuple[str, str, str], Position | Account](), tuple[str, ...]()
    desk.enter(OWN)
    for act in [("deploy",), *acts, ("take", *SYMBOLS)]:
        match act:
            case Position() | Account():
                desk.waiting.append(act)
                rows[act.world_id, act.scope, act.symbol] = act
            case "restart":
                desk.restart()
            case ("deploy", *names):
                deployed = tuple(names)
                desk.deploy(deployed)
                assert desk.reads == bool(deployed)
            case ("take", *symbols):
                own = [row for (world, _, _), row in rows.items() if world == "w"]
                accounts = [row for row in own if isinstance(row, Account)]
                book = "live" if any(row.scope.startswith("live:") for row in accounts) else "strategy"
                own = [row for row in own if row.scope.startswith(f"{book}:")]
                accounts = [row for row in own if isinstance(row, Account)]
                both: list[Any] = [rows.get(("w", f"{name}:s", "")) for name in ("strategy", "live")]
                paper, live = both
                mine = live if live and (not paper or live.session > paper.session) else paper
                scope = "live:s" if mine is live and live else "strategy:s"
                wanted: dict[tuple[str, str], float | None] = {}
                for symbol in symbols:
                    held: Any = rows.get(("w", scope, symbol))
                    costs = [row.cost for row in own if isinstance(row, Position) and row.symbol == symbol]
                    wanted["quantity", symbol] = 0.0 if held is None else float(held.quantity)
                    wanted["equity", symbol] = None if mine is None else float(mine.equity)
                    wanted["all", symbol] = float(sum(costs, Decimal(0)))
                    cash = sum((row.cash for row in accounts), Decimal(0))
                    wanted["cash", symbol] = float(cash) if accounts else None
                assert desk.take(tuple(symbols)) == {
                    (id_of(name), symbol): value
                    for (name, symbol), value in wanted.items()
                    if name in deployed and value is not None
                }
            case _:
                raise AssertionError(act)


def test_it_lives_on_the_desk_whatever_its_input_is() -> None:
    homes = shards_of((PRICE, READERS["quantity"]), SHARDS)
    assert homes == {PRICE.node_id: 0, READERS["quantity"].node_id: DESK}


@pytest.mark.parametrize("said", [None, SHARED], ids=["nobody has said one", "all share"])
def test_without_one_world_it_stands_with_its_cause_and_goes_on_once_there_is_one(
    store: Store, said: SaidContext | None
) -> None:
    desk = Desk(store)
    if said is not None:
        desk.enter(said)
    desk.deploy(("quantity",))
    desk.waiting.append(position("w", "s", "A", 5))
    assert desk.take(("A",)) == {}
    state = desk.state("quantity")
    assert (state.status, state.cause_code, state.since_bucket_ms) == (NodeStatus.ERROR, "QMTL-515", STEP_MS)
    assert "namespace of its own" in state.cause
    assert desk.take(("A",)) == {}
    assert desk.state("quantity") == state
    desk.enter(OWN)
    assert desk.take(("A",)) == {(id_of("quantity"), "A"): 5.0}
    assert (desk.state("quantity").status, desk.state("quantity").cause) == (NodeStatus.ACTIVE, "")


def test_equal_values_have_equal_windows_and_others_another(store: Store) -> None:
    desk = Desk(store)
    desk.enter(OWN)
    desk.deploy(("quantity",))
    windows = []
    for number in (5, 5, 6):
        desk.waiting.append(position("w", "s", "A", number))
        desk.take(("A",))
        windows += [one.input_window_hash for one in desk.emitted if isinstance(one, NodeValue)]
    assert windows[0] == windows[1] != windows[2]


def test_what_it_keeps_counts_as_memory_and_is_a_row_of_no_node(store: Store) -> None:
    desk = Desk(store)
    desk.enter(OWN)
    desk.deploy(("quantity",))
    before = desk._nodes.resident_bytes
    desk.waiting.append(position("w", "s", "A", 5))
    desk.take(("A",))
    assert desk._nodes.resident_bytes > before
    names = {one.node_id for one in desk.table("node.windows").items()}
    assert names == {"portfolio w strategy:s", "portfolio w world"}


def test_what_it_has_in_memory_is_made_again_from_the_rows_of_the_task(store: Store) -> None:
    """As after an abort, which leaves the tables as they were and the processor where it was."""
    desk, before = Desk(store), Desk(store)
    for one in (desk, before):
        one.enter(OWN)
        one.deploy(("quantity",))
    desk.waiting.append(position("w", "s", "A", 5))
    assert desk.take(("A",)) == {(id_of("quantity"), "A"): 5.0}
    desk.undo(before)
    assert desk.take(("A",)) == {(id_of("quantity"), "A"): 0.0}
