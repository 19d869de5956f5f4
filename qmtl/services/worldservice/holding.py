"""What is held while something was found that another context had computed: whatever lets a strategy trade more than it may."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from qmtl.foundation.contracts.world import Activation, EffectiveMode, PromotionHold

TOWARDS_LIVE: Final[Mapping[EffectiveMode, int]] = MappingProxyType(
    {
        EffectiveMode.VALIDATE: 0,
        EffectiveMode.COMPUTE_ONLY: 0,
        EffectiveMode.SHADOW: 1,
        EffectiveMode.PAPER: 2,
        EffectiveMode.LIVE: 3,
    }
)
"""How near to an exchange each mode is."""

CLOSED: Final = (0, Decimal(0))


def held_by(row: PromotionHold | None) -> str:
    """Why nothing more is opened now; empty where nothing is held.

    Args:
        row: what the task has heard.
    """
    if row is None or row.uncleared <= 0:
        return ""
    return (
        f"{row.uncleared} times a node met what another context had computed, and nobody has cleared that. Find the cause"
        " (docs/runbooks/cross-context-hit.md), then `qmtl service dagmanager context clear --reason ...`."
    )


def opens(known: Activation | None, fresh: Activation, other: Activation | None) -> bool:
    """Whether a strategy may trade more than it might, on either side: at a greater weight, or nearer to an exchange.

    Args:
        known: the row that is replaced, if there is one.
        other: that of the other side, if there is one. A side that is frozen or drains stops both.
    """
    before, after = _shares(known, other), _shares(fresh, other)
    return any(
        now[0] > was[0] or now[1] > was[1] for was, now in zip(before, after, strict=True) if now != CLOSED
    )


def _shares(*sides: Activation | None) -> list[tuple[int, Decimal]]:
    """Of each side how near to an exchange it trades, and at what weight."""
    stopped = any(one is not None and (one.freeze or one.drain) for one in sides)
    return [
        CLOSED
        if one is None or stopped or not (one.active and one.weight)
        else (TOWARDS_LIVE[one.effective_mode], one.weight)
        for one in sides
    ]
