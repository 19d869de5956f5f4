"""The two order gates of a strategy as its stages see them: what the world service has said last, and nothing where it has said nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO
from qmtl.foundation.contracts.world import Activation, PositionSide


@dataclass(frozen=True, slots=True)
class ActivationManager:
    """The rows of `activation` of one strategy in one world. It is a value: what changes gives another one.

    Attributes:
        long, short: None of a side that was never spoken of; it is closed.
    """

    long: Activation | None = None
    short: Activation | None = None

    def updated(self, activation: Activation) -> ActivationManager:
        """The gates after a row; one with a lower version than the known row of its side changes nothing.

        Raises:
            InvalidValue: a row of another strategy or world than the known ones.
        """
        for known in (self.long, self.short):
            if known is not None and (known.world_id, known.strategy_id) != (
                activation.world_id,
                activation.strategy_id,
            ):
                raise InvalidValue(
                    f"an activation of {activation.strategy_id!r} in {activation.world_id!r} met the gates of {known.strategy_id!r} in {known.world_id!r}.",
                    "Keep the gates of each strategy apart.",
                )
        known = self.side(activation.side)
        if known is not None and activation.version < known.version:
            return self
        if activation.side is PositionSide.LONG:
            return replace(self, long=activation)
        return replace(self, short=activation)

    def side(self, side: PositionSide) -> Activation | None:
        """The row of a side."""
        return self.long if side is PositionSide.LONG else self.short

    def weight_for_side(self, side: PositionSide | str) -> Decimal:
        """0 to 1: how much of a wanted quantity the gate of a side lets be opened; 0 wherever it lets nothing be.

        Args:
            side: `long` or `short`.

        Raises:
            InvalidValue: another text; an unknown side is never open.
        """
        try:
            wanted = PositionSide(side)
        except ValueError:
            raise InvalidValue(f"side was {side!r}; it is 'long' or 'short'.", "Name one of them.") from None
        row = self.side(wanted)
        stopped = any(one is not None and (one.freeze or one.drain) for one in (self.long, self.short))
        return ZERO if row is None or not row.active or stopped else row.weight
