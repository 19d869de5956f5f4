"""From combinations of parameters to graphs: each is one strategy, made by its class and published as any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.backtest.sweep.running import told
from qmtl.backtest.sweep.space import Combination, Parameter, Space
from qmtl.foundation.common.canonical import canonical_json, parse_canonical_json
from qmtl.foundation.common.errors import (
    CombinationFailed,
    InvalidDag,
    InvalidStrategy,
    InvalidSweep,
    QmtlError,
)
from qmtl.runtime.sdk.loading import lacks_interval, message_of
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.runtime.sdk.strategy import Strategy
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph

_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Made:
    """What a combination has become.

    Attributes:
        strategy_id: also of one that could not be made.
        message: its DAG message; None where it could not be made.
        code, fault: why.
    """

    strategy_id: str
    message: bytes | None
    graph: Graph | None
    code: str = ""
    fault: str = ""


class Maker:
    """Makes the strategies of a sweep.

    Args:
        strategy: the class; its constructor takes the parameters by name.
        interval: seconds, of a strategy which has none.

    Raises:
        InvalidSweep: a parameter that the constructor does not take, or one that it needs and that was not said.
    """

    def __init__(self, strategy: type[Strategy], space: Space, interval: int | None = None) -> None:
        self._construct: Callable[..., Strategy] = strategy
        self._interval = interval
        self._stem = stem_of(strategy)
        _require_taken(strategy, space.parameters)

    def lacks_interval(self, combinations: Iterable[Combination]) -> bool:
        """Whether the first strategy that can be made has a source without an interval."""
        for one in combinations:
            try:
                return lacks_interval(self._construct(**dict(one.values)))
            except (Exception, SystemExit):  # what is wrong with it is told when it is made
                continue
        return False

    def make(self, combination: Combination) -> Made:
        """One combination's strategy; one that its class refuses, or that is no strategy, says why."""
        strategy_id = combination.strategy_id(self._stem)
        try:
            strategy = self._construct(**dict(combination.values))
            message = message_of(strategy, self._interval)
            _require_none_back(strategy)
            message = renamed(message, strategy_id)
            return Made(strategy_id, message, admit(message, 0))
        except QmtlError as refused:
            return Made(strategy_id, None, None, refused.code, refused.what[:_SHOWN])
        except (Exception, SystemExit) as error:  # of an author's: a fault of this combination alone
            return Made(strategy_id, None, None, CombinationFailed.code, told(error))


def stem_of(strategy: type[Strategy]) -> str:
    """What the strategies of a class are called before their digests.

    Raises:
        InvalidStrategy: it is no name.
    """
    return strategy.__new__(
        strategy
    ).name  # of one that was never constructed, which has its class's name all the same


def renamed(message: bytes, strategy_id: str) -> bytes:
    """A message of `message_of` under another id."""
    said = parse_canonical_json(message.decode())
    return canonical_json({**said, "strategy_id": strategy_id}).encode()


def _require_none_back(strategy: Strategy) -> None:
    for one in strategy.nodes:
        if one.node_type == PORTFOLIO:
            raise InvalidDag(
                f"node {one.called!r} reads the portfolio; combinations share what their nodes give, which is computed before anything is traded.",
                "Run it with `qmtl backtest`.",
            )


def _require_taken(strategy: type[Strategy], said: Sequence[Parameter]) -> None:
    """Hold the parameters to those that the constructor takes by name, and needs."""
    name = strategy.__name__
    constructor: Callable[..., object] = strategy
    try:
        found = inspect.signature(constructor).parameters
    except (TypeError, ValueError):
        raise InvalidStrategy(f"the constructor of {name} has no signature.", "Write it with def.") from None
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in found.values()):
        return
    names = {one.name for one in found.values() if one.kind in _BY_NAME}
    for one in said:
        if one.name not in names:
            takes = f"takes {', '.join(sorted(names))}" if names else "takes no parameters by name"
            raise InvalidSweep(
                f"the constructor of {name} does not take {one.name!r}; it {takes}.",
                "Name one of its parameters, or give it one: `def __init__(self, *, fast: int, slow: int)`.",
            )
    given = {one.name for one in said}
    for needed in found.values():
        is_named = needed.kind in _BY_NAME and needed.name in given
        is_optional = (
            needed.kind is inspect.Parameter.VAR_POSITIONAL or needed.default is not inspect.Parameter.empty
        )
        if not is_named and not is_optional:
            raise InvalidSweep(
                f"the constructor of {name} needs {needed.name!r}, which was not said.",
                f"Say --param {needed.name}=VALUE, or give it a default.",
            )
