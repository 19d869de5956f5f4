"""The steps of a node set: which there are, in which order, how each is made, and what is injected into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from qmtl.foundation.common.errors import InvalidNodeSet
from qmtl.foundation.contracts.trade import BrokerMode
from qmtl.foundation.contracts.world import World
from qmtl.runtime.nodesets.resources import ScopedResources
from qmtl.runtime.sdk.timing_controls import AROUND_THE_CLOCK
from qmtl.runtime.sdk.watermark import WatermarkGate
from qmtl.runtime.transforms.chain import Chain
from qmtl.runtime.transforms.execution_nodes import (
    ExecutionNode,
    FillIngestNode,
    PortfolioNode,
    PreTradeGateNode,
    RiskControlNode,
    SizingNode,
    TimingGateNode,
)
from qmtl.runtime.transforms.publisher import OrderPublishNode, PublishHook

Step: TypeAlias = (
    PreTradeGateNode
    | SizingNode
    | ExecutionNode
    | OrderPublishNode
    | FillIngestNode
    | PortfolioNode
    | RiskControlNode
    | TimingGateNode
)

KINDS: Final[Mapping[str, type[Step]]] = {
    "pretrade": PreTradeGateNode,
    "sizing": SizingNode,
    "execution": ExecutionNode,
    "publish": OrderPublishNode,
    "fills": FillIngestNode,
    "portfolio": PortfolioNode,
    "risk": RiskControlNode,
    "timing": TimingGateNode,
}
"""The steps by name, in the order of the chain; the last leads back to the first, one bucket late."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where a step is made.

    Attributes:
        interval: of the buckets, seconds.
        mode: `simulate`, `paper` or `live`.
        hook: takes orders over; None where nobody does.
    """

    world: World
    strategy_id: str
    interval: int
    mode: str
    hook: PublishHook | None = None

    @property
    def broker_mode(self) -> BrokerMode:
        return BrokerMode.LIVE if self.mode == "live" else BrokerMode.PAPER


StepFactory: TypeAlias = Callable[[StepContext], Step]
Injector: TypeAlias = Callable[[Step, ScopedResources], Step]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of a recipe.

    Raises:
        InvalidNodeSet: no step has this name.
    """

    name: str
    factory: StepFactory
    inject: tuple[Injector, ...] = ()

    def __post_init__(self) -> None:
        require_step(self.name)

    @classmethod
    def from_factory(cls, name: str, factory: StepFactory, *, inject: Sequence[Injector] = ()) -> StepSpec:
        """A step that `factory` makes of its context, and that `inject` then gives what all steps share."""
        return cls(name, factory, tuple(inject))

    def made(self, context: StepContext) -> Step:
        """The step, before anything is injected.

        Raises:
            InvalidNodeSet: the factory gave a step of another kind.
        """
        return require_kind(self.name, self.factory(context))


def inject_weight_fn(step: Step, resources: ScopedResources) -> Step:
    """The weight of the gates, into what sizes.

    Raises:
        InvalidNodeSet: a step that takes no weight.
    """
    if not isinstance(step, SizingNode):
        raise InvalidNodeSet(
            f"inject_weight_fn met a {type(step).__name__}; a SizingNode takes a weight.",
            "Inject it into sizing.",
        )
    return step if step.weight_fn is not None else replace(step, weight_fn=resources.weight_fn)


def inject_portfolio(step: Step, resources: ScopedResources) -> Step:
    """Hold the step that books to the portfolio of the scope: it books for that portfolio's world, and in the scope `strategy` for its strategy.

    Raises:
        InvalidNodeSet: a step that keeps no portfolio, or that of another owner.
    """
    if not isinstance(step, PortfolioNode):
        raise InvalidNodeSet(
            f"inject_portfolio met a {type(step).__name__}; a PortfolioNode keeps one.",
            "Inject it into portfolio.",
        )
    owner = resources.portfolio
    if step.world.world_id != owner.world_id or owner.strategy_id not in ("", step.strategy_id):
        raise InvalidNodeSet(
            f"the portfolio step books for {step.strategy_id!r} in {step.world.world_id!r} and the portfolio is that of"
            f" {owner.strategy_id!r} in {owner.world_id!r}; they are one.",
            "Make the step of its context.",
        )
    return step


def require_step(name: str) -> type[Step]:
    """The kind of a step.

    Raises:
        InvalidNodeSet: no step has this name.
    """
    found = KINDS.get(name)
    if found is None:
        raise InvalidNodeSet(
            f"a step was named {name!r}; the steps are {', '.join(KINDS)}.", "Name one of them."
        )
    return found


def require_kind(name: str, step: object) -> Step:
    """The step, once it is one of the kind that its place takes, and says nothing that would not be done.

    Raises:
        InvalidNodeSet: it is not.
    """
    wanted = require_step(name)
    if not isinstance(step, wanted):
        raise InvalidNodeSet(
            f"the step {name} was given a {type(step).__name__}; a {wanted.__name__} fits this port.",
            "Give one, or a subclass of it.",
        )
    if isinstance(step, RiskControlNode) and step.limits:
        raise InvalidNodeSet(
            f"the step risk was given {len(step.limits)} limits; a node set holds no orders against limits of its own, so they would be passed over.",
            "Ask RiskControlNode beside the node set.",
        )
    if isinstance(step, TimingGateNode) and step.policy != AROUND_THE_CLOCK:
        raise InvalidNodeSet(
            "the step timing was given hours; a node set knows no hours of its own, so they would be passed over.",
            "Ask TimingGateNode beside the node set.",
        )
    return step


_S = TypeVar("_S", bound=Step)


def chain_of(steps: Mapping[str, Step]) -> Chain:
    """The chain that drives these steps; risk and hours, which let everything pass here, stand beside it."""

    def step(name: str, kind: type[_S]) -> _S:
        found = steps[name]
        assert isinstance(found, kind)
        return found

    return Chain(
        step("pretrade", PreTradeGateNode),
        step("sizing", SizingNode),
        step("execution", ExecutionNode),
        step("publish", OrderPublishNode),
        step("fills", FillIngestNode),
        step("portfolio", PortfolioNode),
    )


DEFAULT_STEPS: Final = (
    StepSpec.from_factory(
        "pretrade",
        lambda at: PreTradeGateNode(at.interval, WatermarkGate.for_mode(at.mode), at.broker_mode),
    ),
    StepSpec.from_factory("sizing", lambda at: SizingNode(at.world), inject=[inject_weight_fn]),
    StepSpec.from_factory("execution", lambda at: ExecutionNode(at.world, at.broker_mode)),
    StepSpec.from_factory("publish", lambda at: OrderPublishNode(at.mode, at.hook)),
    StepSpec.from_factory("fills", lambda at: FillIngestNode()),
    StepSpec.from_factory(
        "portfolio",
        lambda at: PortfolioNode(at.world, at.strategy_id, at.interval, at.broker_mode),
        inject=[inject_portfolio],
    ),
    StepSpec.from_factory("risk", lambda at: RiskControlNode(at.world)),
    StepSpec.from_factory("timing", lambda at: TimingGateNode()),
)
