"""What the steps of a node set share: the weight of the gates, and the portfolio of its scope. Found in one place, for every recipe."""

from __future__ import annotations

from dataclasses import dataclass

from qmtl.foundation.contracts.trade import BrokerMode, PortfolioRow
from qmtl.foundation.contracts.world import World
from qmtl.runtime.execution.portfolio import open_account, scope_of_strategy
from qmtl.runtime.sdk.activation_manager import ActivationManager
from qmtl.runtime.sdk.portfolio import STRATEGY, Portfolio, portfolio_key, portfolio_of
from qmtl.runtime.transforms.execution_nodes import WeightFn


@dataclass(frozen=True, slots=True)
class ScopedResources:
    """What injectors hand to steps.

    Attributes:
        weight_fn: `ActivationManager.weight_for_side` of the gates as they are; 0 wherever nothing may be opened.
        portfolio: of the scope, at the bucket before.
    """

    weight_fn: WeightFn
    portfolio: Portfolio


def scoped_resources(
    world: World,
    strategy_id: str,
    portfolio_scope: str = STRATEGY,
    activation: ActivationManager | None = None,
    rows: tuple[PortfolioRow, ...] = (),
    mode: BrokerMode = BrokerMode.PAPER,
) -> ScopedResources:
    """The weight function and the portfolio of a scope.

    Args:
        portfolio_scope: `strategy`: keyed by `(world_id, strategy_id, symbol)`; `world`: by `(world_id, symbol)`, the sum over its strategies.
        activation: the gates; without any nothing may be opened.
        rows: of `trade.portfolio` at the cut that is read; without an account among them it is the one that the world opens.

    Raises:
        InvalidValue: another scope, or no strategy.
    """
    portfolio_key(portfolio_scope, world.world_id, strategy_id, "")
    gates = ActivationManager() if activation is None else activation
    found = portfolio_of(rows, portfolio_scope, world.world_id, strategy_id, mode)
    if found is None:
        account = open_account(world.world_id, scope_of_strategy(strategy_id, mode), world.settings, 0)
        found = portfolio_of((account,), portfolio_scope, world.world_id, strategy_id, mode)
        assert found is not None
    return ScopedResources(gates.weight_for_side, found)
