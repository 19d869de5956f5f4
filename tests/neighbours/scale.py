"""How often the tests repeat what was reported: a few times with every change, the full counts in a campaign.

`QMTL_NEIGHBOURS=full` asks for the full counts (`make campaign-neighbours`).
"""

from __future__ import annotations

import os
from typing import Final

FULL: Final = os.environ.get("QMTL_NEIGHBOURS") == "full"
LONG_S: Final = 1800 if FULL else 900
"""The time limit of a test that repeats, in seconds."""


def times(full: int, short: int) -> int:
    """How many repetitions this run makes."""
    return full if FULL else short
