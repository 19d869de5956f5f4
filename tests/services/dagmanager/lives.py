"""How many lives of the DAG Manager are tried, and how long they are: a slice in the suite, many more in `make campaign-graph`.

QMTL_LIVES says how many times as many, QMTL_LIFE_STEPS how many times as long.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

TIMES: Final = int(os.environ.get("QMTL_LIVES", "1"))
LONGER: Final = int(os.environ.get("QMTL_LIFE_STEPS", "1"))


def tried(lives: int, steps: int) -> settings:
    """Of a machine of which the suite tries so many lives of so many steps."""
    return settings(max_examples=TIMES * lives, stateful_step_count=LONGER * steps, deadline=None)
