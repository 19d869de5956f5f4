"""How much memory a window takes while its node runs."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Final

from qmtl.foundation.contracts.node import NodeWindow

_POINTER: Final = 8
_VALUE: Final = sys.getsizeof(Decimal(0)) + _POINTER + 8
"""A decimal, where it is, and its double."""

_ENTRY: Final = 150
"""A text under a name."""

_SLOT: Final = 2 * 2 * (_POINTER + 32)
"""A bucket and a double of a Python node's port; its lists are up to twice as long as what is in them."""

_BAR: Final = 2 * 900
"""A bar with five decimals, as many over."""

_WINDOW: Final = 1500
"""What holds them: the running node, its queue of values, and the keys under which the worker finds it."""


def window_bytes(window: NodeWindow) -> int:
    """Bytes, reckoned from how many numbers the window has; numbers with more than 19 digits take more."""
    slots = sum(len(port.values) for port in window.ports)
    plain = _WINDOW + _VALUE * len(window.values) + _ENTRY * len(window.memory or ())
    return plain + _SLOT * slots + _BAR * len(window.bars)
