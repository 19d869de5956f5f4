"""The order gate as a run shows it: both sides as the world service last spoke of them. Orders are let through by trading, not here."""

from __future__ import annotations

from typing import Final

from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide
from qmtl.interfaces.running.events import GateState

ORDER_MODES: Final = frozenset({EffectiveMode.PAPER, EffectiveMode.LIVE})


class OrderGate:
    """The two sides of a strategy; closed until somebody has spoken."""

    def __init__(self) -> None:
        self._rows: dict[PositionSide, Activation] = {}

    def switch(self, row: Activation) -> bool:
        """Take what was said of a side; False for what is no newer than what is known, which changes nothing."""
        known = self._rows.get(row.side)
        if known is not None and row.version <= known.version:
            return False
        self._rows[row.side] = row
        return True

    def state(self, side: PositionSide) -> GateState:
        """What a side lets through."""
        rows = self._rows.values()
        if any(one.freeze for one in rows):
            return GateState.FROZEN
        if any(one.drain for one in rows):
            return GateState.DRAINING
        mine = self._rows.get(side)
        if mine is None or not mine.active or mine.weight <= 0 or mine.effective_mode not in ORDER_MODES:
            return GateState.CLOSED
        return GateState.OPEN
