"""The recipes of QMTL: which steps, modes and parameters each kind of exchange has, said once, and the functions that attach them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from qmtl.foundation.common.errors import InvalidNodeSet
from qmtl.foundation.common.names import MAX_NAME, NAME_RULE, is_name
from qmtl.runtime.brokerage.ccxt_profile import CcxtBrokerage, make_ccxt_brokerage
from qmtl.runtime.nodesets.node_set import NodeSet, NodeSetBuilder, Ports, ports
from qmtl.runtime.nodesets.registry import nodeset_recipe
from qmtl.runtime.nodesets.reliability import RELIABILITY, Reliability
from qmtl.runtime.nodesets.steps import DEFAULT_STEPS, StepSpec, require_step
from qmtl.runtime.sdk.nodes import Node
from qmtl.runtime.sdk.portfolio import STRATEGY
from qmtl.runtime.transforms.publisher import MODES, PublishHook

BrokerageFactory: TypeAlias = Callable[..., CcxtBrokerage]
"""Makes the profile of a market of the recipe's kind."""


@dataclass(frozen=True, slots=True)
class RecipeParam:
    """A parameter of a recipe beside those that all have: a text.

    Attributes:
        default: None where it has to be said.
        example: a value with which the recipe can be tried.
    """

    name: str
    about: str
    example: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class NodeSetRecipe:
    """All that is to be said of a recipe, in one place.

    Attributes:
        venue_param: which parameter names the exchange; empty where `venue` does.
        brokerage: makes the profile of one of its markets; None where nothing of QMTL makes one.
    """

    name: str
    about: str
    venue: str = ""
    venue_param: str = ""
    modes: tuple[str, ...] = MODES
    params: tuple[RecipeParam, ...] = ()
    steps: tuple[StepSpec, ...] = DEFAULT_STEPS
    brokerage: BrokerageFactory | None = None

    def values(self, given: Mapping[str, object]) -> dict[str, str]:
        """The parameters with their defaults.

        Raises:
            InvalidNodeSet: one that is missing, unknown or no name.
        """
        known = {one.name: one for one in self.params}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise InvalidNodeSet(
                f"the node set {self.name} was given {unknown[0]!r}; its parameters are {', '.join(known) or 'none'}.",
                "Leave it out.",
            )
        found: dict[str, str] = {}
        for name, one in known.items():
            value = given.get(name, one.default)
            if value is None:
                raise InvalidNodeSet(
                    f"{name} of the node set {self.name} was missing; {one.about}.", f"Such as {one.example}."
                )
            if not isinstance(value, str) or not is_name(value):
                raise InvalidNodeSet(
                    f"{name} of the node set {self.name} was {value!r}; {NAME_RULE}, {MAX_NAME} at most.",
                    f"Such as {one.example}.",
                )
            found[name] = value
        return found

    def builder(
        self,
        params: Mapping[str, object] | None = None,
        *,
        portfolio_scope: str = STRATEGY,
        mode: str = "simulate",
        reliability: Reliability | None = None,
        hook: PublishHook | None = None,
    ) -> NodeSetBuilder:
        """What attaches this recipe.

        Raises:
            InvalidNodeSet: as `values`.
        """
        values = self.values(params or {})
        return NodeSetBuilder(
            self.name,
            self.modes,
            values.get(self.venue_param, self.venue),
            self.steps,
            portfolio_scope,
            mode,
            RELIABILITY if reliability is None else reliability,
            hook,
        )


@dataclass(frozen=True, slots=True)
class NodeSetAdapter:
    """A recipe as a function, with all that it says of itself. It is made of the recipe, so the two can't differ."""

    recipe: NodeSetRecipe

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def modes(self) -> tuple[str, ...]:
        return self.recipe.modes

    @property
    def params(self) -> tuple[RecipeParam, ...]:
        return self.recipe.params

    @property
    def ports(self) -> Ports:
        return ports()

    def attach(self, signal: Node, world_id: str, **kwargs: object) -> NodeSet:
        """The node set behind a signal.

        Args:
            kwargs: parameters of the recipe, settings (`mode`, `portfolio_scope`, `reliability`, `hook`) and steps, each by its name.

        Raises:
            InvalidNodeSet: names what does not fit.
        """
        names = {one.name for one in self.recipe.params}
        params = {name: value for name, value in kwargs.items() if name in names}
        rest = {name: value for name, value in kwargs.items() if name not in names}
        for name in rest:
            if name not in _SETTINGS:
                self._require_step(name)
        # What is no text, flag or function is refused by the settings themselves, with the rule.
        return self.recipe.builder(params).attach(signal, world_id, **rest)  # type: ignore[arg-type]

    def _require_step(self, name: str) -> None:
        try:
            require_step(name)
        except InvalidNodeSet:
            takes = [*(one.name for one in self.recipe.params), *_SETTINGS]
            raise InvalidNodeSet(
                f"the node set {self.name} was given {name!r}; it takes {', '.join(takes)}, and steps by name.",
                "Leave it out.",
            ) from None


_SETTINGS: Final = ("mode", "portfolio_scope", "reliability", "hook")


@dataclass(frozen=True, slots=True)
class RecipeAdapterSpec:
    """Which recipe an adapter is made of."""

    recipe: NodeSetRecipe


def build_adapter(spec: RecipeAdapterSpec | NodeSetRecipe) -> NodeSetAdapter:
    """The adapter of a recipe."""
    return NodeSetAdapter(spec.recipe if isinstance(spec, RecipeAdapterSpec) else spec)


_EXCHANGE: Final = RecipeParam("exchange_id", "the exchange as ccxt calls it", "binance")

CCXT_SPOT: Final = NodeSetRecipe(
    "ccxt_spot",
    "Spot markets of an exchange that ccxt knows.",
    venue_param="exchange_id",
    params=(_EXCHANGE,),
    brokerage=make_ccxt_brokerage,
)
CCXT_FUTURES: Final = NodeSetRecipe(
    "ccxt_futures",
    "Contracts of an exchange that ccxt knows.",
    venue_param="exchange_id",
    params=(_EXCHANGE,),
    brokerage=make_ccxt_brokerage,
)
BINANCE_FUTURES: Final = NodeSetRecipe(
    "binance_futures", "Binance's contracts in USDT (USDT-M).", "binanceusdm", brokerage=make_ccxt_brokerage
)
IBKR_LIKE: Final = NodeSetRecipe(
    "ibkr_like", "A broker of shares and futures like Interactive Brokers.", "ibkr"
)
INTENT_FIRST: Final = NodeSetRecipe(
    "intent_first", "Intents into orders and a portfolio, with no exchange.", modes=("simulate", "paper")
)

RECIPES: Final[Mapping[str, NodeSetRecipe]] = {
    one.name: one for one in (BINANCE_FUTURES, CCXT_FUTURES, CCXT_SPOT, IBKR_LIKE, INTENT_FIRST)
}


@nodeset_recipe("ccxt_spot")
def make_ccxt_spot_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """Spot markets of a ccxt exchange; `exchange_id` has to be said. As `NodeSetAdapter.attach`."""
    return build_adapter(CCXT_SPOT).attach(signal, world_id, **kwargs)


@nodeset_recipe("ccxt_futures")
def make_ccxt_futures_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """Contracts of a ccxt exchange; `exchange_id` has to be said. As `NodeSetAdapter.attach`."""
    return build_adapter(CCXT_FUTURES).attach(signal, world_id, **kwargs)


@nodeset_recipe("binance_futures")
def make_binance_futures_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """Binance's contracts in USDT. As `NodeSetAdapter.attach`."""
    return build_adapter(BINANCE_FUTURES).attach(signal, world_id, **kwargs)


@nodeset_recipe("ibkr_like")
def make_ibkr_like_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """A broker of shares and futures. As `NodeSetAdapter.attach`."""
    return build_adapter(IBKR_LIKE).attach(signal, world_id, **kwargs)


@nodeset_recipe("intent_first")
def make_intent_first_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """No exchange: simulated or on paper. As `NodeSetAdapter.attach`."""
    return build_adapter(INTENT_FIRST).attach(signal, world_id, **kwargs)


def make_ccxt_node_set(
    *,
    portfolio_scope: str = STRATEGY,
    exchange_id: str = "binance",
    mode: str = "simulate",
    reliability: Reliability | None = None,
    hook: PublishHook | None = None,
) -> NodeSetBuilder:
    """A builder of `ccxt_spot`, for who attaches several with the same settings.

    Raises:
        InvalidNodeSet: an exchange that is no name.
    """
    return CCXT_SPOT.builder(
        {"exchange_id": exchange_id},
        portfolio_scope=portfolio_scope,
        mode=mode,
        reliability=reliability,
        hook=hook,
    )
