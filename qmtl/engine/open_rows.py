"""The rows of a marked table since its last close marker, read back by whoever goes on to write it."""

from __future__ import annotations

from typing import Final

from qmtl.engine.cut import OpenRows
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.foundation.common.errors import RecoveryStalled
from qmtl.foundation.wire.keys import is_marker, is_reserved

SPAN: Final = 1000
"""So many offsets are looked through for the last marker at first, and four times as many each time it isn't there."""
POLL_S: Final = 0.2


def read_open_rows(log: Log, where: TopicPartition, stall_s: float) -> OpenRows:
    """What lies behind the last marker of a table's partition, read back to front in growing steps.

    Only for whoever alone writes there, with nothing in flight.

    Raises:
        RecoveryStalled: the log gives nothing for so long.
    """
    begin, end = log.begin_offsets([where])[where], log.end_offsets([where])[where]
    span = SPAN
    while True:
        start = max(begin, end - span)
        marked, rows = _read(log, where, start, end, stall_s)
        if marked or start == begin:
            return rows
        span *= 4


def _read(log: Log, where: TopicPartition, start: int, end: int, stall_s: float) -> tuple[bool, OpenRows]:
    rows: OpenRows = {}
    marked = False
    reader = log.reader()
    try:
        reader.assign({where: start})
        silent = 0.0
        while reader.positions().get(where, 0) < end:
            before = reader.positions().get(where, 0)
            for record in reader.poll(SPAN, POLL_S):
                if not is_reserved(record.key):
                    rows[record.key] = record.value
                elif is_marker(record.key) and record.value is not None:
                    marked = True
                    rows.clear()
            silent = silent + POLL_S if reader.positions().get(where, 0) == before else 0.0
            if silent >= stall_s:
                held = log.stable_offsets([where])[where] < end
                raise RecoveryStalled(
                    f"{where.topic}[{where.partition}]: nothing was given from offset {before} on, up to {end}.",
                    "Look whether its leader answers, and whether a transaction is open on it.",
                    "open_transaction" if held else "silent_log",
                )
    finally:
        reader.close()
    return marked, rows
