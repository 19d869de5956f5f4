"""A window of floats as a row that is written down, whatever the floats are."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.money import is_value
from qmtl.foundation.contracts.node import NodeWindow

_FLOATS: Final = "floats"


def written(node_id: str, symbol: str, seen: int, values: Sequence[Decimal]) -> NodeWindow:
    """The row of a window whose values are the decimals of floats' shortest texts.

    A record has decimals of a range, with so many places. An average that dies away leaves it: then the floats themselves are kept, by their
    digits to the base 16.
    """
    if all(map(is_value, values)):
        return NodeWindow(node_id, symbol, seen, tuple(values))
    return NodeWindow(
        node_id, symbol, seen, (), {_FLOATS: " ".join([float(value).hex() for value in values])}
    )


def read(window: NodeWindow | None) -> tuple[Decimal, ...]:
    """The values of a row, oldest first; none where there is no row."""
    if window is None:
        return ()
    if window.memory is None or _FLOATS not in window.memory:
        return window.values
    return tuple([Decimal(repr(float.fromhex(text))) for text in window.memory[_FLOATS].split()])
