"""What every recipe of a node set is held to, in every mode: for the contract test of a new one."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderIntent
from qmtl.foundation.contracts.world import (
    Activation,
    EffectiveMode,
    Instrument,
    PositionSide,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.runtime.nodesets.node_set import INPUTS, OUTPUTS, NodeSet
from qmtl.runtime.nodesets.recipes import NodeSetRecipe, build_adapter
from qmtl.runtime.nodesets.resources import scoped_resources
from qmtl.runtime.nodesets.steps import KINDS, Step, StepContext
from qmtl.runtime.sdk.activation_manager import ActivationManager
from qmtl.runtime.sdk.builtins import builtin
from qmtl.runtime.sdk.nodes import Node, StreamInput
from qmtl.runtime.transforms.chain import ChainBucket
from qmtl.runtime.transforms.execution_nodes import PortfolioNode, SizingNode

WORLD_ID: Final = "contract"
STRATEGY_ID: Final = "s"
SYMBOL: Final = "BTC-USD"
FIRST_MS: Final = 1_522_800_060_000
STEP_MS: Final = 60_000
PUBLIC: Final = {"attached_to", "capabilities", "describe", "in_world", "settings"}
"""All that a node set has for others: none of it is a step."""


def a_world() -> World:
    """A world with 100,000 USD for each strategy, where 1 BTC-USD is worth what its bars say."""
    settings = WorldSettings(
        "USD",
        Decimal(100_000),
        Decimal("0.001"),
        Decimal(0),
        (Instrument(SYMBOL, Decimal("0.01"), Decimal("0.0001"), Decimal("0.0001")),),
    )
    return World(WORLD_ID, WorldStatus.ACTIVE, settings, FIRST_MS - STEP_MS)


def a_gate(side: PositionSide, weight: str = "1", *, live: bool = False) -> Activation:
    """An open gate."""
    mode = EffectiveMode.LIVE if live else EffectiveMode.PAPER
    etag = f"act:{WORLD_ID}:{STRATEGY_ID}:{side.value}:1"
    return Activation(
        WORLD_ID, STRATEGY_ID, side, True, Decimal(weight), False, False, mode, 1, etag, FIRST_MS
    )


def a_signal() -> Node:
    """A signal that gives position targets."""
    price = StreamInput(symbols=[SYMBOL], interval=60, name="price")
    fast, slow = (builtin("sma", price, period, name=f"sma_{period}") for period in (2, 4))
    cross = builtin("cross", [fast, slow], name="cross")
    return builtin("position_target", cross, name="target", long_percent=0.5, short_percent=-0.5)


def attached(recipe: NodeSetRecipe, mode: str, sent: list[Order], **kwargs: object) -> NodeSet:
    """The recipe behind a signal, with the examples of its parameters."""
    params = {one.name: one.example for one in recipe.params}
    return build_adapter(recipe).attach(
        a_signal(), WORLD_ID, mode=mode, hook=sent.append, **{**params, **kwargs}
    )


def require_recipe_contract(recipe: NodeSetRecipe, mode: str) -> None:
    """Chain, description, injection and what is published, of a recipe in one of its modes.

    Raises:
        AssertionError: it keeps something of it not.
    """
    sent: list[Order] = []
    nodeset = attached(recipe, mode, sent)
    _require_description(recipe, nodeset)
    _require_injection(recipe, mode)
    _require_execution(recipe, mode)


def _require_description(recipe: NodeSetRecipe, nodeset: NodeSet) -> None:
    told, adapter = nodeset.describe(), build_adapter(recipe)
    assert set(told) == {"name", "entry", "exit", "nodes", "ports"}
    assert (told["name"], told["nodes"]) == (recipe.name, list(KINDS))
    assert (told["entry"], told["exit"]) == (told["nodes"][0], told["nodes"][-1])
    assert [(one["name"], one["kind"]) for one in told["ports"]["inputs"]] == list(INPUTS)
    assert [(one["name"], one["kind"]) for one in told["ports"]["outputs"]] == list(OUTPUTS)
    assert (adapter.name, adapter.modes, adapter.ports) == (recipe.name, recipe.modes, told["ports"])
    assert nodeset.capabilities() == {"modes": list(recipe.modes), "portfolio_scope": "strategy"}
    assert {one for one in dir(nodeset) if not one.startswith("_")} == PUBLIC
    told["nodes"].clear()
    assert nodeset.describe()["nodes"] == list(KINDS)


def _require_injection(recipe: NodeSetRecipe, mode: str) -> None:
    context = StepContext(a_world(), STRATEGY_ID, 60, mode, lambda order: None)
    gates = ActivationManager(long=a_gate(PositionSide.LONG, "0.5"))
    for scope, owner in (("strategy", STRATEGY_ID), ("world", "")):
        resources = scoped_resources(context.world, STRATEGY_ID, scope, gates, mode=context.broker_mode)
        assert resources.portfolio.key(SYMBOL) == tuple(one for one in (WORLD_ID, owner, SYMBOL) if one)
        assert resources.portfolio.cash == context.world.settings.initial_cash
        steps: dict[str, Step] = {}
        for spec in recipe.steps:
            step = spec.made(context)
            for inject in spec.inject:
                step = inject(step, resources)
            steps[spec.name] = step
        sizing, portfolio = steps["sizing"], steps["portfolio"]
        assert isinstance(sizing, SizingNode)
        assert sizing.weight_fn is not None
        assert sizing.weight_fn(PositionSide.LONG) <= Decimal("0.5")
        assert sizing.weight_fn(PositionSide.SHORT) == 0
        assert isinstance(portfolio, PortfolioNode)
        assert (portfolio.world.world_id, portfolio.strategy_id) == (WORLD_ID, STRATEGY_ID)
        assert portfolio.mode is context.broker_mode


def _require_execution(recipe: NodeSetRecipe, mode: str) -> None:
    sent: list[Order] = []
    live = mode == "live"
    run = attached(recipe, mode, sent).in_world(a_world(), STRATEGY_ID, 60)
    gates = tuple(a_gate(side, "0.5", live=live) for side in PositionSide)
    price = Decimal(100)
    bar = Bar(SYMBOL, FIRST_MS - STEP_MS, 60, price, price, price, price, Decimal(1))
    intent = OrderIntent(WORLD_ID, STRATEGY_ID, SYMBOL, FIRST_MS, Decimal("0.5"), price, "blake3:x")
    first = run.step(run.begin(FIRST_MS), ChainBucket(FIRST_MS, gates, (bar,), (intent,)))
    assert not first.rejections, first.rejections
    assert [one.quantity for one in first.orders] == [Decimal(250)]
    assert first.orders[0].mode is (BrokerMode.LIVE if live else BrokerMode.PAPER)
    assert sent == ([] if mode == "simulate" else list(first.orders))
    later = ChainBucket(FIRST_MS + STEP_MS, bars=(replace(bar, open_time_ms=FIRST_MS),))
    second = run.step(first.state, later)
    assert [one.quantity for one in second.fills] == ([] if live else [Decimal(250)])
    assert second.state.before.as_of_ms == FIRST_MS + STEP_MS
