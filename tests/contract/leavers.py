"""A program that joins a group again and again and leaves it at once, a little later each time, and says how often.

A member that never comes back from leaving can't be stopped from within, so this is a process of its own. Run as
`python -m tests.contract.leavers BOOTSTRAP NAMESPACE`.
"""

from __future__ import annotations

import select
import sys
from typing import Final

from qmtl.engine.log.kafka import KafkaLog

LEAVERS: Final = 60


def main() -> None:
    log = KafkaLog(sys.argv[1], sys.argv[2])
    for number in range(LEAVERS):
        member = log.membership("leavers", "leaver", "a")
        select.select([], [], [], number * 0.005)
        member.close()
    log.close()
    print(LEAVERS)


if __name__ == "__main__":
    main()
