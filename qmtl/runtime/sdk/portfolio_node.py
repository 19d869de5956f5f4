"""The node type `portfolio`: a number of the portfolio, as the bucket before has left it. It is the one way back into a graph, and says how late it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, cast

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.common.identity import builtin_code_hash
from qmtl.foundation.common.names import NAME_RULE, is_name
from qmtl.foundation.contracts import dag
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.contracts.trade import Account, Position
from qmtl.runtime.indicators.builtin import kind, refuse_first, strangers

PORTFOLIO: Final = dag.PORTFOLIO
"""The `node_type` of a node that reads the portfolio."""

LAG: Final = 1
"""The one lag there is: in a bucket a node sees what the bucket before has left."""

STRATEGY: Final = "strategy"
WORLD: Final = "world"
LIVE: Final = "live:"
"""How the scope of a strategy's book at a venue begins."""
LIVE_WORLD: Final = "world live"
"""Of the sums over those books; no scope has a blank."""
SCOPES: Final = (STRATEGY, WORLD)
"""Whose portfolio it is: the strategy's own, or that of all strategies of its world together."""

POSITION_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {name: name for name in ("quantity", "cost", "average_cost", "realised", "unrealised", "fees")}
)
"""Of the position in the node's symbol, by the name of the field; 0 where nothing was ever traded."""

ACCOUNT_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cash": "cash",
        "equity": "equity",
        "exposure": "exposure",
        "account_realised": "realised",
        "account_unrealised": "unrealised",
        "account_fees": "fees",
    }
)
"""Of the account, which all symbols share, with the name that they have there; nothing before there is one."""

FIELDS: Final = (*POSITION_FIELDS, *ACCOUNT_FIELDS)

_OF_ONE: Final = "average_cost"
_REPAIR: Final = "Write the message with qmtl's own SDK."


@dataclass(frozen=True, slots=True)
class PortfolioParams:
    """The parameters of a portfolio node.

    Attributes:
        lag: how many buckets before its own it sees.
        strategy_id: whose portfolio it is; empty of a world's.
    """

    field: str
    scope: str
    lag: int
    strategy_id: str = ""

    @property
    def is_of_account(self) -> bool:
        """Whether it reads the account, and not the position in its symbol."""
        return self.field in ACCOUNT_FIELDS

    @property
    def owner(self) -> str:
        """The scope of its rows on paper, as `Position` names it."""
        return self.scope if self.scope == WORLD else f"strategy:{self.strategy_id}"

    @property
    def live_owner(self) -> str:
        """That of its rows at a venue."""
        return LIVE_WORLD if self.scope == WORLD else f"{LIVE}{self.strategy_id}"

    @property
    def attribute(self) -> str:
        """What the field is called in its row."""
        return ACCOUNT_FIELDS[self.field] if self.is_of_account else POSITION_FIELDS[self.field]

    def of(self, row: Position | Account | None) -> Decimal | None:
        """What a row of the portfolio says.

        Args:
            row: the account, or the position in the symbol, as the field asks for; None where there is none.
        """
        if row is None:
            return None if self.is_of_account else Decimal(0)
        value: Decimal = getattr(row, self.attribute)
        return value


@dataclass(frozen=True, slots=True)
class PortfolioNode:
    """Emits for each symbol of which its input has a number in the bucket. The input says when and of which symbols, and its number counts for
    nothing.

    Parameters: `field`, one of `FIELDS`; `scope`, `strategy` or `world`; `strategy_id` with the scope `strategy`, the message's own; `lag`,
    always said, and 1. Its `period` is 1.
    """

    name: str = PORTFOLIO
    version: str = "1"
    ports: int = 1
    output: type[NodeValue] = NodeValue

    @property
    def code_hash(self) -> str:
        """Its identity, as that of a built-in type: of its name and version."""
        return builtin_code_hash(self.name, self.version)

    def parse(self, params: Mapping[str, object], period: int) -> PortfolioParams:
        """The checked parameters.

        Raises:
            InvalidParameter: the first of `refusals`.
        """
        refuse_first(self.refusals(params, period))
        return PortfolioParams(
            cast(str, params["field"]),
            cast(str, params["scope"]),
            LAG,
            cast(str, params.get("strategy_id", "")),
        )

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        """All that is wrong with parameters."""
        if "lag" not in params:
            yield InvalidParameter(
                f"lag of a {PORTFOLIO} node was missing; what reads the portfolio says how many buckets late.",
                f"Say lag={LAG}.",
            )
        elif type(params["lag"]) is not int or params["lag"] != LAG:
            yield InvalidParameter(
                f"lag of a {PORTFOLIO} node was {kind(params['lag'])}; it is {LAG}: a node sees what the bucket before has left, and no other.",
                f"Say lag={LAG}; older values are what its readers remember with period=.",
            )
        scope, field = params.get("scope"), params.get("field")
        known = ("field", "scope", *(("strategy_id",) if scope == STRATEGY else ()))
        optional = () if scope in SCOPES else ("strategy_id",)  # nobody knows which was meant
        yield from strangers(
            self.name, {name: params[name] for name in params if name != "lag"}, known, optional
        )
        if type(period) is not int or period != 1:
            yield InvalidParameter(
                f"period of a {PORTFOLIO} node was {kind(period)}; it looks back on nothing, so 1 is required.",
                "Leave it out.",
            )
        if "field" in params and field not in FIELDS:
            yield _refused("field", field, f"it is one of {', '.join(FIELDS)}")
        if "scope" in params and scope not in SCOPES:
            yield _refused("scope", scope, f"it is {STRATEGY!r} or {WORLD!r}")
        if scope == WORLD and field == _OF_ONE:
            yield InvalidParameter(
                f"field of a {PORTFOLIO} node was {_OF_ONE!r} of a world; an average is one strategy's.",
                "Read cost and quantity, and divide them.",
            )
        if scope != WORLD and "strategy_id" in params and not is_name(params["strategy_id"]):
            yield _refused("strategy_id", params["strategy_id"], f"a name is required, where {NAME_RULE}")


PORTFOLIO_NODE: Final = PortfolioNode()


def _refused(name: str, value: object, rule: str) -> InvalidParameter:
    return InvalidParameter(f"{name} of a {PORTFOLIO} node was {kind(value)}; {rule}.", _REPAIR)
