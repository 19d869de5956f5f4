"""A node set: an opaque whole behind a signal. What it says of itself is all that a strategy may know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from qmtl.foundation.common.errors import InvalidNodeSet
from qmtl.foundation.common.names import MAX_NAME, NAME_RULE, is_name
from qmtl.foundation.contracts.trade import PortfolioRow
from qmtl.foundation.contracts.world import World
from qmtl.runtime.nodesets.reliability import RELIABILITY, Reliability
from qmtl.runtime.nodesets.resources import scoped_resources
from qmtl.runtime.nodesets.steps import (
    DEFAULT_STEPS,
    KINDS,
    Step,
    StepContext,
    StepFactory,
    StepSpec,
    chain_of,
    require_kind,
)
from qmtl.runtime.sdk.attachment import Attachment
from qmtl.runtime.sdk.nodes import Node
from qmtl.runtime.sdk.portfolio import STRATEGY, WORLD, Portfolio, portfolio_of
from qmtl.runtime.transforms.chain import ChainBucket, ChainState, ChainStep
from qmtl.runtime.transforms.publisher import MODES, PublishHook


class Port(TypedDict):
    """Where something goes in or comes out, and what it is."""

    name: str
    kind: str


class Ports(TypedDict):
    inputs: list[Port]
    outputs: list[Port]


class Description(TypedDict):
    """`describe()`: the recipe's name, the first and last step, all of them in order, and the ports."""

    name: str
    entry: str
    exit: str
    nodes: list[str]
    ports: Ports


class Capabilities(TypedDict):
    """`capabilities()`: in which modes the set can be, and whose portfolio it keeps."""

    modes: list[str]
    portfolio_scope: str


INPUTS: Final = (
    ("signal", "PositionTarget"),
    ("market", "Bar"),
    ("activation", "Activation"),
    ("reports", "OrderReport"),
)
OUTPUTS: Final = (
    ("orders", "Order"),
    ("fills", "Fill"),
    ("rejections", "OrderRejection"),
    ("portfolio", "Snapshot"),
)


def ports() -> Ports:
    """Of every node set."""
    return {
        "inputs": [{"name": name, "kind": kind} for name, kind in INPUTS],
        "outputs": [{"name": name, "kind": kind} for name, kind in OUTPUTS],
    }


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node set is told when it is attached.

    Attributes:
        name: of its recipe.
        modes: those of its recipe; `mode` is one of them.
        portfolio_scope: `strategy` or `world`.
        hook: takes orders over; `simulate` never calls it, `live` needs one.
        venue: which exchange; empty where there is none.

    Raises:
        InvalidNodeSet: names the field, the value and the rule.
    """

    name: str
    world_id: str
    modes: tuple[str, ...] = MODES
    mode: str = "simulate"
    portfolio_scope: str = STRATEGY
    reliability: Reliability = RELIABILITY
    hook: PublishHook | None = None
    venue: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.world_id):
            raise InvalidNodeSet(
                f"world_id of the node set {self.name} was {self.world_id!r}; {NAME_RULE}, {MAX_NAME} at most.",
                "Name the world.",
            )
        if self.mode not in self.modes:
            raise InvalidNodeSet(
                f"mode of the node set {self.name} was {self.mode!r}; it is one of {', '.join(self.modes)}.",
                "Choose one of them.",
            )
        if self.portfolio_scope not in (STRATEGY, WORLD):
            raise InvalidNodeSet(
                f"portfolio_scope of the node set {self.name} was {self.portfolio_scope!r}; it is {STRATEGY!r} or {WORLD!r}.",
                "Choose one of them.",
            )
        if not isinstance(self.reliability, Reliability):
            raise InvalidNodeSet(
                f"reliability of the node set {self.name} was a {type(self.reliability).__name__}; a Reliability is required.",
                "Leave it out for the defaults.",
            )
        if self.hook is not None and not callable(self.hook):
            raise InvalidNodeSet(
                f"hook of the node set {self.name} was a {type(self.hook).__name__}; what takes an order is required.",
                "Give it a function.",
            )
        if self.mode == "live" and self.hook is None:
            raise InvalidNodeSet(
                f"hook of the node set {self.name} was missing in live; its orders would go nowhere.",
                "Give it one.",
            )


class NodeSet(Attachment):
    """What `NodeSetBuilder.attach` makes. Add it to a strategy with `add_nodes`; its steps are nobody else's."""

    __slots__ = ("__settings", "__signal", "__steps")

    def __init__(self, signal: Node, settings: Settings, steps: tuple[StepSpec, ...]) -> None:
        self.__signal, self.__settings, self.__steps = signal, settings, steps

    def __repr__(self) -> str:
        return f"NodeSet({self.__settings.name!r}, {self.__settings.world_id!r})"

    def attached_to(self) -> Node:
        return self.__signal

    def describe(self) -> Description:
        """Name, first and last step, all of them in their order, and the ports. It is a copy."""
        names = [one.name for one in self.__steps]
        return {
            "name": self.__settings.name,
            "entry": names[0],
            "exit": names[-1],
            "nodes": names,
            "ports": ports(),
        }

    def capabilities(self) -> Capabilities:
        """Modes and the scope of the portfolio. It is a copy."""
        return {
            "modes": list(self.__settings.modes),
            "portfolio_scope": self.__settings.portfolio_scope,
        }

    def settings(self) -> Settings:
        """As what it was attached."""
        return self.__settings

    def in_world(self, world: World, strategy_id: str, interval: int) -> NodeSetRun:
        """The set as it runs: for a strategy of its world, bucket by bucket.

        Args:
            interval: of the buckets, seconds.

        Raises:
            InvalidNodeSet: another world, or a step that does not fit.
        """
        told = self.__settings
        if world.world_id != told.world_id:
            raise InvalidNodeSet(
                f"the node set {told.name} is attached in the world {told.world_id!r} and was run in {world.world_id!r}.",
                "Attach one in that world.",
            )
        context = StepContext(world, strategy_id, interval, told.mode, told.hook)
        return NodeSetRun(told, context, self.__steps)


class NodeSetRun:
    """A node set at work. It remembers nothing: what a bucket has left is handed in again by whoever drives it."""

    __slots__ = ("__context", "__injected", "__settings", "__steps")

    def __init__(self, settings: Settings, context: StepContext, specs: Sequence[StepSpec]) -> None:
        self.__settings, self.__context = settings, context
        self.__injected = {one.name: one.inject for one in specs}
        self.__steps: dict[str, Step] = {one.name: one.made(context) for one in specs}

    def begin(self, first_bucket_ms: int) -> ChainState:
        """What there is before the first bucket."""
        return chain_of(self.__steps).begin(first_bucket_ms)

    def step(self, state: ChainState, bucket: ChainBucket) -> ChainStep:
        """One bucket: as `qmtl.runtime.transforms.chain.Chain.step`, with the weight of the gates and the portfolio of the scope injected.

        Raises:
            InvalidNodeSet: an intent of another world or strategy.
            InvariantBroken, InexactMoney: as there.
        """
        context = self.__context
        for intent in bucket.intents:
            if (intent.world_id, intent.strategy_id) != (context.world.world_id, context.strategy_id):
                raise InvalidNodeSet(
                    f"an intent of {intent.strategy_id!r} in {intent.world_id!r} came to the node set of {context.strategy_id!r} in {context.world.world_id!r}.",
                    "Give each strategy its own.",
                )
        gates = state.activation
        for one in bucket.activations:
            gates = gates.updated(one)
        before = state.before
        resources = scoped_resources(
            context.world,
            context.strategy_id,
            self.__settings.portfolio_scope,
            gates,
            (before.account, *before.positions.values()),
            context.broker_mode,
        )
        steps = dict(self.__steps)
        for name, injectors in self.__injected.items():
            for inject in injectors:
                steps[name] = require_kind(name, inject(steps[name], resources))
        return chain_of(steps).step(state, bucket)

    def portfolio(self, rows: Sequence[PortfolioRow]) -> Portfolio | None:
        """The portfolio of the set's scope out of rows of `trade.portfolio`: in `world` the sum over the strategies whose rows they are."""
        at = self.__context
        return portfolio_of(
            rows, self.__settings.portfolio_scope, at.world.world_id, at.strategy_id, at.broker_mode
        )


@dataclass(frozen=True, slots=True)
class NodeSetBuilder:
    """Hangs a node set behind a signal.

    Attributes:
        name, modes, venue, steps: of the recipe; `NodeSetBuilder()` alone is the plain chain.
        portfolio_scope, mode, reliability, hook: where `attach` is not told otherwise.
    """

    name: str = "plain"
    modes: tuple[str, ...] = MODES
    venue: str = ""
    steps: tuple[StepSpec, ...] = DEFAULT_STEPS
    portfolio_scope: str = STRATEGY
    mode: str = "simulate"
    reliability: Reliability = RELIABILITY
    hook: PublishHook | None = None

    def attach(
        self,
        signal: Node,
        world_id: str,
        *,
        mode: str | None = None,
        portfolio_scope: str | None = None,
        reliability: Reliability | None = None,
        hook: PublishHook | None = None,
        **overrides: object,
    ) -> NodeSet:
        """A node set behind `signal`.

        Args:
            overrides: steps by name (`execution=…`), each of the kind that its place takes. It takes part as it is; what is shared is injected into it
                where it does not have it.

        Raises:
            InvalidNodeSet: no signal, a setting that breaks its rule, or an override that has no place or does not fit it.
        """
        given: object = signal
        if not isinstance(given, Node) or not given.gives_targets:
            what = f"the node {given.called!r}" if isinstance(given, Node) else f"a {type(given).__name__}"
            raise InvalidNodeSet(
                f"signal of the node set {self.name} was {what}; a node that gives position targets is required.",
                "Attach it to position_target(…), or to a ProcessingNode with gives='target'.",
            )
        steps = _require_steps(self.name, self.steps)
        told = Settings(
            self.name,
            world_id,
            self.modes,
            self.mode if mode is None else mode,
            self.portfolio_scope if portfolio_scope is None else portfolio_scope,
            self.reliability if reliability is None else reliability,
            self.hook if hook is None else hook,
            self.venue,
        )
        return NodeSet(signal, told, _overridden(steps, overrides))


def _require_steps(name: str, steps: Sequence[StepSpec]) -> tuple[StepSpec, ...]:
    found = [one.name for one in steps]
    if found != list(KINDS):
        raise InvalidNodeSet(
            f"the steps of the recipe {name} were {', '.join(found) or 'none'}; they are {', '.join(KINDS)}, in this order.",
            "Replace a step of DEFAULT_STEPS, and leave none out.",
        )
    return tuple(steps)


def _overridden(steps: tuple[StepSpec, ...], overrides: Mapping[str, object]) -> tuple[StepSpec, ...]:
    given = {name: require_kind(name, step) for name, step in overrides.items()}
    return tuple(
        replace(one, factory=_always(given[one.name])) if one.name in given else one for one in steps
    )


def _always(step: Step) -> StepFactory:
    def factory(context: StepContext) -> Step:
        return step

    return factory
