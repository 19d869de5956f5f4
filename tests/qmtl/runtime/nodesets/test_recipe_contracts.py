"""Every recipe that is registered keeps the contract, in each of its modes; and what does not fit is refused, with a code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl import Strategy, StreamInput, dag_message
from qmtl.backtest.simulation import Simulated, Terms, simulate
from qmtl.backtest.through import through
from qmtl.foundation.common.errors import (
    InvalidNodeSet,
    InvalidStrategy,
    InvalidValue,
    RecipeTaken,
    UnknownRecipe,
)
from qmtl.foundation.contracts.trade import Account, Order, Position
from qmtl.foundation.contracts.world import PositionSide
from qmtl.runtime.brokerage.ccxt_profile import CcxtBrokerage
from qmtl.runtime.nodesets.node_set import NodeSet, NodeSetBuilder
from qmtl.runtime.nodesets.recipes import (
    CCXT_SPOT,
    RECIPES,
    RecipeAdapterSpec,
    build_adapter,
    make_binance_futures_nodeset,
    make_ccxt_futures_nodeset,
    make_ccxt_node_set,
    make_ccxt_spot_nodeset,
    make_ibkr_like_nodeset,
    make_intent_first_nodeset,
)
from qmtl.runtime.nodesets.registry import make, nodeset_recipe, recipe, recipe_names
from qmtl.runtime.nodesets.reliability import Breaker, Reliability
from qmtl.runtime.nodesets.resources import scoped_resources
from qmtl.runtime.nodesets.steps import (
    DEFAULT_STEPS,
    StepSpec,
    inject_portfolio,
    inject_weight_fn,
)
from qmtl.runtime.risk.limits import OrderRateLimit
from qmtl.runtime.sdk.builtins import builtin
from qmtl.runtime.sdk.nodes import Node
from qmtl.runtime.sdk.timing_controls import Hours, TimingPolicy
from qmtl.runtime.transforms.chain import ChainBucket
from qmtl.runtime.transforms.execution_nodes import (
    ExecutionNode,
    PortfolioNode,
    RiskControlNode,
    SizingNode,
    TimingGateNode,
)
from qmtl.testing.recipe_contract import (
    STRATEGY_ID,
    SYMBOL,
    WORLD_ID,
    a_signal,
    a_world,
    attached,
    require_recipe_contract,
)
from tests.runtime.data.walk import walk

CONTRACTS = [(name, mode) for name in recipe_names() for mode in RECIPES[name].modes]
MAKERS: dict[str, Callable[..., NodeSet]] = {
    "ccxt_spot": make_ccxt_spot_nodeset,
    "ccxt_futures": make_ccxt_futures_nodeset,
    "binance_futures": make_binance_futures_nodeset,
    "ibkr_like": make_ibkr_like_nodeset,
    "intent_first": make_intent_first_nodeset,
}


@pytest.mark.parametrize(("name", "mode"), CONTRACTS)
def test_a_recipe_keeps_the_contract(name: str, mode: str) -> None:
    require_recipe_contract(RECIPES[name], mode)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_reached_by_its_name_and_by_its_function(name: str) -> None:
    signal, params = a_signal(), {one.name: one.example for one in RECIPES[name].params}
    by_name, direct = make(name, signal, WORLD_ID, **params), MAKERS[name](signal, WORLD_ID, **params)
    assert recipe(name) is MAKERS[name]
    assert by_name.describe() == direct.describe()
    assert by_name.settings() == direct.settings()
    assert by_name.attached_to() is signal


def test_the_venue_is_the_one_that_was_named() -> None:
    signal = a_signal()
    assert make("ccxt_spot", signal, WORLD_ID, exchange_id="kraken").settings().venue == "kraken"
    assert make_binance_futures_nodeset(signal, WORLD_ID).settings().venue == "binanceusdm"


def test_a_recipe_names_who_makes_the_profile_of_a_market() -> None:
    assert CCXT_SPOT.brokerage is not None
    found = CCXT_SPOT.brokerage({"symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "maker": 0.001})
    assert isinstance(found, CcxtBrokerage)


# ---- a node set does what a backtest does ---------------------------------------------------------------------------


class Crossing(Strategy):
    def __init__(self, nodeset: Callable[[Node], object] | None = None) -> None:
        super().__init__()
        self.nodeset = nodeset

    def setup(self) -> None:
        price = StreamInput(symbols=["A", "B"], interval=60, name="price")
        fast, slow = (builtin("sma", price, period, name=f"sma_{period}") for period in (3, 9))
        cross = builtin("cross", [fast, slow], name="cross")
        target = builtin("position_target", cross, name="target", long_percent=0.4, short_percent=-0.4)
        self.add_nodes([price, fast, slow, cross, target])
        if self.nodeset is not None:
            self.add_nodes([price, self.nodeset(target)])  # type: ignore[list-item]  # one test gives what is none


def ran(terms: Terms, buckets: int = 120) -> Simulated:
    bars = {symbol: replace(walk(begin, buckets), symbol=symbol) for symbol, begin in (("A", 0), ("B", 7))}
    return simulate([dag_message(Crossing())], bars, terms)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(RECIPES)),
    st.sampled_from(["simulate", "paper"]),
    st.sampled_from(["strategy", "world"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["1", "0.5", "0.3", "0"]),
    st.sampled_from(["0", "0.001"]),
)
def test_the_same_signals_give_the_orders_fills_and_books_of_a_backtest(
    name: str, mode: str, scope: str, long: bool, short: bool, weight: str, slippage: str
) -> None:
    terms = Terms(
        world_id=WORLD_ID, long=long, short=short, weight=Decimal(weight), slippage_rate=Decimal(slippage)
    )
    done, sent = ran(terms), list[Order]()
    found = through(attached(RECIPES[name], mode, sent, portfolio_scope=scope), done)
    assert found.orders == dict(done.orders)
    assert sorted(found.fills, key=repr) == sorted(done.fills, key=repr)
    assert sorted(found.rejections, key=repr) == sorted(done.rejections, key=repr)
    rows = list(done.rows())
    assert [row for row in rows if isinstance(row, Account)] == [found.account]
    assert {row.symbol: row for row in rows if isinstance(row, Position)} == found.positions
    assert len(sent) == found.published == (0 if mode == "simulate" else len(found.orders))


def test_a_backtest_that_trades_is_compared() -> None:
    done = ran(Terms(world_id=WORLD_ID))
    assert len(done.fills) > 5
    assert len(through(make("intent_first", a_signal(), WORLD_ID), done).fills) == len(done.fills)


class Held(Strategy):
    def setup(self) -> None:
        price = StreamInput(symbols=["A"], interval=60, name="price")
        self.add_nodes([price, builtin("position_target", price, long_percent=0.4, short_percent=0)])


def test_what_is_wanted_in_the_first_bucket_is_ordered_there() -> None:
    done = simulate([dag_message(Held())], {"A": replace(walk(0, 20), symbol="A")}, Terms(world_id=WORLD_ID))
    assert done.intents[0].bucket_ms == done.start_ms + 60_000
    assert through(make("intent_first", a_signal(), WORLD_ID), done).orders == dict(done.orders)


def test_what_can_not_be_led_through_a_node_set_is_refused() -> None:
    done = ran(Terms(world_id=WORLD_ID))
    with pytest.raises(InvalidNodeSet, match="'live'"):
        through(attached(CCXT_SPOT, "live", []), done)
    with pytest.raises(InvalidNodeSet, match="attached in the world 'another'"):
        through(make("intent_first", a_signal(), "another"), done)
    with pytest.raises(InvalidNodeSet, match="strategy_id was 'nobody'"):
        through(make("intent_first", a_signal(), WORLD_ID), done, "nobody")


# ---- in a strategy --------------------------------------------------------------------------------------------------


def test_a_strategy_takes_a_node_set_and_its_message_stays_that_of_its_nodes() -> None:
    strategy = Crossing(lambda signal: make("ccxt_spot", signal, "demo-world", exchange_id="binance"))
    assert dag_message(strategy) == dag_message(Crossing())
    (found,) = strategy.attachments
    assert isinstance(found, NodeSet)
    assert found.attached_to() in strategy.nodes
    assert Crossing().attachments == ()


def test_a_node_set_brings_its_signal_and_counts_once() -> None:
    strategy, nodeset = Crossing(), make("intent_first", a_signal(), "w")
    strategy.add_nodes([nodeset, [nodeset]])
    assert nodeset.attached_to() in strategy.nodes
    assert strategy.attachments == (nodeset,)


def test_a_signal_is_executed_once() -> None:
    def two(signal: Node) -> list[NodeSet]:
        return [make("intent_first", signal, "w"), make("intent_first", signal, "w")]

    with pytest.raises(InvalidStrategy, match="two node sets on the signal 'target'"):
        dag_message(Crossing(two))


# ---- the registry ---------------------------------------------------------------------------------------------------


def test_a_name_stays_whose_it_is() -> None:
    @nodeset_recipe("test_mine")
    def mine(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
        return make_intent_first_nodeset(signal, world_id, **kwargs)

    assert make("test_mine", a_signal(), "w").describe()["name"] == "intent_first"
    assert "test_mine" in recipe_names()
    assert nodeset_recipe("test_mine")(mine) is mine

    def other(signal: Node, world_id: str) -> NodeSet:
        raise AssertionError

    for name in ("test_mine", "ccxt_spot"):
        with pytest.raises(ValueError, match="Choose another name") as caught:
            nodeset_recipe(name)(other)
        assert isinstance(caught.value, RecipeTaken)
    assert recipe("test_mine") is mine
    assert recipe("ccxt_spot") is make_ccxt_spot_nodeset


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownRecipe) as caught:
        make("ccxt_spto", a_signal(), "w")
    for name in RECIPES:
        assert name in str(caught.value)
    with pytest.raises(InvalidNodeSet):
        nodeset_recipe("no name")


def test_a_recipe_that_gives_no_node_set_is_refused() -> None:
    @nodeset_recipe("test_nothing")
    def nothing(signal: Node, world_id: str) -> NodeSet:
        return None  # type: ignore[return-value]  # what an untyped recipe may do

    with pytest.raises(InvalidNodeSet, match="gave a NoneType"):
        make("test_nothing", a_signal(), "w")


def test_recipes_of_installed_packages_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "anexchange-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: anexchange\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[qmtl.nodesets]\ntest_installed = anexchange:make_it\ntest_broken = anexchange:absent\n"
    )
    (tmp_path / "anexchange.py").write_text(
        "from qmtl.runtime.nodesets.recipes import make_intent_first_nodeset\n"
        "def make_it(signal, world_id, **kwargs):\n    return make_intent_first_nodeset(signal, world_id, **kwargs)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"test_installed", "test_broken"} < set(recipe_names())
    assert isinstance(make("test_installed", a_signal(), "w"), NodeSet)
    with pytest.raises(InvalidNodeSet, match="'test_broken' of anexchange:absent can't be loaded"):
        make("test_broken", a_signal(), "w")


# ---- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "exchange_id of the node set ccxt_spot was missing"),
        ({"exchange_id": "bin ance"}, "exchange_id of the node set ccxt_spot was 'bin ance'"),
        ({"exchange_id": 3}, "was 3"),
        ({"exchange_id": "x", "apikey": "y"}, "was given 'apikey'; it takes exchange_id, mode"),
        ({"exchange_id": "x", "mode": "backtest"}, "mode of the node set ccxt_spot was 'backtest'"),
        ({"exchange_id": "x", "mode": "live"}, "hook of the node set ccxt_spot was missing in live"),
        ({"exchange_id": "x", "hook": 1}, "hook of the node set ccxt_spot was a int"),
        ({"exchange_id": "x", "portfolio_scope": "all"}, "portfolio_scope of the node set"),
        ({"exchange_id": "x", "reliability": 3}, "reliability of the node set ccxt_spot was a int"),
        ({"exchange_id": "x", "execution": SizingNode(a_world())}, "step execution was given a SizingNode"),
        ({"exchange_id": "x", "sizing": None}, "step sizing was given a NoneType"),
        (
            {"exchange_id": "x", "risk": RiskControlNode(a_world(), (OrderRateLimit(1, 60),))},
            "they would be passed over",
        ),
        (
            {"exchange_id": "x", "timing": TimingGateNode(TimingPolicy("UTC", (Hours(0, 0, 1),)))},
            "they would be passed over",
        ),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(kwargs: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidNodeSet, match=says) as caught:
        make("ccxt_spot", a_signal(), "w", **kwargs)
    assert caught.value.code.startswith("QMTL-")


def test_a_signal_and_a_world_are_required() -> None:
    price = StreamInput(symbols=[SYMBOL], interval=60, name="price")
    for signal in (price, None, "target"):
        with pytest.raises(InvalidNodeSet, match="a node that gives position targets is required"):
            NodeSetBuilder().attach(signal, world_id="w")  # type: ignore[arg-type]  # what an untyped caller would do
    with pytest.raises(InvalidNodeSet, match="world_id"):
        NodeSetBuilder().attach(a_signal(), world_id="")
    with pytest.raises(InvalidNodeSet, match="a step was named 'exec'"):
        NodeSetBuilder().attach(a_signal(), world_id="w", exec=ExecutionNode(a_world()))


def test_a_recipe_has_every_step_in_its_order() -> None:
    for steps in (DEFAULT_STEPS[1:], DEFAULT_STEPS[::-1], ()):
        with pytest.raises(InvalidNodeSet, match="in this order"):
            NodeSetBuilder(steps=steps).attach(a_signal(), world_id="w")
    with pytest.raises(InvalidNodeSet, match="a step was named 'hope'"):
        StepSpec.from_factory("hope", lambda at: SizingNode(at.world))
    wrong = StepSpec.from_factory("sizing", lambda at: ExecutionNode(at.world))
    built = NodeSetBuilder(steps=(DEFAULT_STEPS[0], wrong, *DEFAULT_STEPS[2:])).attach(a_signal(), WORLD_ID)
    with pytest.raises(InvalidNodeSet, match="step sizing was given a ExecutionNode"):
        built.in_world(a_world(), STRATEGY_ID, 60)


# ---- overrides, injection, scope ------------------------------------------------------------------------------------


def test_an_override_takes_part_as_it_is() -> None:
    done = ran(Terms(world_id=WORLD_ID))
    half = SizingNode(done.world, lambda side: Decimal("0.5"))
    plain = through(NodeSetBuilder().attach(a_signal(), WORLD_ID), done)
    less = through(NodeSetBuilder().attach(a_signal(), WORLD_ID, sizing=half), done)
    first, lessened = (next(iter(one.fills)) for one in (plain, less))
    assert 0 < lessened.quantity < first.quantity


def test_injectors_refuse_what_they_are_not_for() -> None:
    home = a_world()
    shared = scoped_resources(home, STRATEGY_ID)
    with pytest.raises(InvalidNodeSet, match="a SizingNode takes a weight"):
        inject_weight_fn(ExecutionNode(home), shared)
    with pytest.raises(InvalidNodeSet, match="a PortfolioNode keeps one"):
        inject_portfolio(ExecutionNode(home), shared)
    for stranger in (
        PortfolioNode(home, "another", 60),
        PortfolioNode(replace(home, world_id="x"), STRATEGY_ID, 60),
    ):
        with pytest.raises(InvalidNodeSet, match="they are one"):
            inject_portfolio(stranger, shared)
    shared = scoped_resources(home, STRATEGY_ID, "world")
    ours = PortfolioNode(home, "another", 60)
    assert inject_portfolio(ours, shared) is ours


def test_without_a_gate_nothing_may_be_opened() -> None:
    shared = scoped_resources(a_world(), STRATEGY_ID)
    assert [shared.weight_fn(side) for side in PositionSide] == [0, 0]
    with pytest.raises(InvalidValue, match="portfolio_scope"):
        scoped_resources(a_world(), STRATEGY_ID, "everybody")


def test_a_world_scope_sums_the_strategies_and_a_strategy_scope_does_not() -> None:
    builder = make_ccxt_node_set(portfolio_scope="world")
    nodeset = builder.attach(a_signal(), WORLD_ID)
    assert nodeset.capabilities()["portfolio_scope"] == "world"
    done = ran(Terms(world_id=WORLD_ID))
    (account,) = (row for row in done.rows() if isinstance(row, Account))
    rows = (account, replace(account, scope="strategy:other", cash=Decimal(1)))
    strategy_id = done.graphs[0].strategy_id
    shared = nodeset.in_world(done.world, strategy_id, 60).portfolio(rows)
    own = builder.attach(a_signal(), WORLD_ID, portfolio_scope="strategy")
    alone = own.in_world(done.world, strategy_id, 60).portfolio(rows)
    assert shared is not None
    assert alone is not None
    assert shared.cash == account.cash + 1
    assert alone.cash == account.cash
    assert shared.key("A") == (WORLD_ID, "A")
    for scope, found in (("world", shared), ("strategy", alone)):
        assert scoped_resources(done.world, strategy_id, scope, rows=rows).portfolio == found
    assert alone.key("A") == (WORLD_ID, strategy_id, "A")


def test_a_strategy_is_not_led_through_the_set_of_another() -> None:
    done = ran(Terms(world_id=WORLD_ID))
    run = make("intent_first", a_signal(), WORLD_ID).in_world(done.world, "another", 60)
    intent = done.intents[0]
    with pytest.raises(InvalidNodeSet, match="Give each strategy its own"):
        run.step(run.begin(intent.bucket_ms), ChainBucket(intent.bucket_ms, intents=(intent,)))


def test_an_adapter_says_what_its_recipe_says() -> None:
    changed = replace(CCXT_SPOT, name="mine", modes=("paper",), params=())
    adapter = build_adapter(RecipeAdapterSpec(changed))
    assert (adapter.name, adapter.modes, adapter.params) == ("mine", ("paper",), ())
    assert adapter.attach(a_signal(), "w", mode="paper").capabilities()["modes"] == ["paper"]
    with pytest.raises(InvalidNodeSet, match="mode of the node set mine was 'simulate'"):
        adapter.attach(a_signal(), "w")


# ---- breaker --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=20))
def test_a_breaker_opens_at_failures_in_a_row_and_stays_open(limit: int, taken: list[bool]) -> None:
    options, breaker, row, opened = Reliability(break_after=limit), Breaker(), 0, False
    for one in taken:
        breaker = breaker.succeeded() if one else breaker.failed(options)
        row = 0 if one else row + 1
        opened = opened or row >= limit
        assert breaker.is_open is opened
    assert breaker.closed() == Breaker()


def test_an_open_breaker_stops_live_or_degrades_it_to_paper_and_nothing_else() -> None:
    stop, degrade = Reliability(break_after=1), Reliability(break_after=1, degrade_to_paper=True)
    tripped = Breaker().failed(stop)
    assert Breaker().mode("live", stop) == "live"
    assert tripped.mode("live", stop) is None
    assert tripped.mode("live", degrade) == "paper"
    assert tripped.mode("simulate", degrade) == "simulate"
    for wrong in (0, -1, True, "3"):
        with pytest.raises(InvalidNodeSet):
            Reliability(attempts=wrong)  # type: ignore[arg-type]  # what an untyped caller would do
