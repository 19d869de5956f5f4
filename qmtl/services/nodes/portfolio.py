"""The portfolio on the shard that reads it back: what trading had closed with the bucket before, and nothing newer.

A task reads a topic once. So all of the portfolio is kept here, whoever reads it now: a node that comes later finds what was read before it, and where no
node reads it for a while, the next one goes on from there. It is kept as rows of `node.windows`, under names that no node has.

Of a world as a whole trading keeps no rows, so the sums of its strategies are kept beside theirs, each moved by what a row has moved: one of the books on paper, and
one of those at a venue. A strategy is read in the book in which it trades now; a world on paper until one of its strategies has gone live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final

from qmtl.engine.processor import Arrival, Input, Step
from qmtl.foundation.common.money import MAX_DIGITS, text
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.foundation.contracts.trade import Account, PortfolioRow
from qmtl.runtime.sdk.portfolio_node import (
    ACCOUNT_FIELDS,
    LAG,
    LIVE,
    LIVE_WORLD,
    POSITION_FIELDS,
    WORLD,
    PortfolioParams,
)
from qmtl.services.nodes.resident import window_bytes

PORTFOLIO_EDGE: Final = Input("trade.portfolio", bucketed=True, lag=LAG, broadcast=True)

_ACCOUNT: Final = ""
"""The place of the symbol in the key of an account."""

_WIDE: Final = Context(prec=8 * MAX_DIGITS, traps=[Inexact, InvalidOperation])
"""A sum of any number of amounts is exact in it: each has few digits, and none is far from the point."""

_ZERO: Final = Decimal(0)

_SESSION: Final = "session"
"""Of an account, where it is not the first."""


class PortfolioCopy:
    """What a shard has read of `trade.portfolio`.

    Attributes:
        resident_bytes: of the rows that are in memory, reckoned.
    """

    def __init__(self) -> None:
        self.resident_bytes = 0
        self._rows: dict[tuple[str, str], NodeWindow | None] = {}
        self._touched: dict[tuple[str, str], None] = {}

    def restore(self) -> None:
        """Keep nothing in memory that is not in the table."""
        self._rows.clear()
        self._touched.clear()
        self.resident_bytes = 0

    def take(self, step: Step, arrivals: Sequence[Arrival]) -> None:
        """Take the rows that were closed since the bucket before, in their order."""
        for arrival in arrivals:
            row: PortfolioRow = arrival.message
            if row.scope == WORLD:
                continue  # the name of the sums, which are made here
            names = ACCOUNT_FIELDS if isinstance(row, Account) else POSITION_FIELDS
            said = {name: text(getattr(row, name)) for name in names.values()}
            if isinstance(row, Account) and row.session > 1:
                said[_SESSION] = str(row.session)
            known = self._row(step, row.world_id, row.scope, row.symbol)
            before = None if known is None else known.memory
            if before == said:
                continue
            self._put(row.world_id, row.scope, row.symbol, said)
            sums = LIVE_WORLD if row.scope.startswith(LIVE) else WORLD
            self._move(step, (row.world_id, sums, row.symbol), before or {}, said)

    def _move(
        self, step: Step, key: tuple[str, str, str], before: dict[str, str], said: dict[str, str]
    ) -> None:
        known = self._row(step, *key)
        sums = {} if known is None or known.memory is None else known.memory
        moved = {}
        for name, value in said.items():
            if name == _SESSION:
                continue
            change = _WIDE.subtract(Decimal(value), Decimal(before.get(name, "0")))
            total = _WIDE.add(Decimal(sums.get(name, "0")), change)
            moved[name] = str(_WIDE.normalize(total) if total else _ZERO)
        self._put(*key, moved)

    def value(self, step: Step, params: PortfolioParams, world_id: str, symbol: str) -> Decimal | None:
        """What a field says; None of an account that is not there yet, and 0 of a position."""
        owner = self._owner(step, params, world_id)
        row = self._row(step, world_id, owner, _ACCOUNT if params.is_of_account else symbol)
        if row is None or row.memory is None:
            return params.of(None)
        return Decimal(row.memory[params.attribute])

    def _owner(self, step: Step, params: PortfolioParams, world_id: str) -> str:
        live = self._row(step, world_id, params.live_owner, _ACCOUNT)
        if live is None or live.memory is None:
            return params.owner
        paper = self._row(step, world_id, params.owner, _ACCOUNT)
        if params.owner == WORLD or paper is None or paper.memory is None:
            return params.live_owner
        return params.live_owner if _session(live.memory) > _session(paper.memory) else params.owner

    def flush(self, step: Step) -> None:
        """Write what has changed."""
        windows = step.table("node.windows")
        for key in self._touched:
            windows.put(self._rows[key])
        self._touched.clear()

    def _row(self, step: Step, world_id: str, scope: str, symbol: str) -> NodeWindow | None:
        key = (_name(world_id, scope), symbol)
        if key not in self._rows:
            found: NodeWindow | None = step.table("node.windows").get(*key)
            self._rows[key] = found
            self.resident_bytes += 0 if found is None else window_bytes(found)
        return self._rows[key]

    def _put(self, world_id: str, scope: str, symbol: str, said: dict[str, str]) -> None:
        key = (_name(world_id, scope), symbol)
        row = NodeWindow(*key, 0, memory=said)
        if self._rows.get(key) is None:
            self.resident_bytes += window_bytes(row)
        self._rows[key] = row
        self._touched[key] = None


def _session(memory: Mapping[str, str]) -> int:
    return int(memory.get(_SESSION, "1"))


def _name(world_id: str, scope: str) -> str:
    """No id of a node, as those begin with what they are hashed with."""
    return f"portfolio {world_id} {scope}"
