"""How large the local stores are, counted in a view of each so that the worker is neither asked nor held up."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmtl.engine.observer import TaskId
from qmtl.engine.store_view import StoreView
from qmtl.foundation.common.errors import InvariantBroken

_SLICE: Final = 2000
_PAUSE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class StoreSize:
    """One task's store.

    Attributes:
        rows: per table the keys that have a value.
        size: bytes of its files.
    """

    rows: Mapping[str, int]
    size: int


def store_sizes(
    state_dir: Path, tasks: Collection[TaskId], stopping: threading.Event
) -> dict[TaskId, StoreSize]:
    """The stores of these tasks; one that is being made, or made anew, is left out.

    Rows are counted a slice at a time, with pauses in which the worker goes on.
    """
    out = {}
    for task in sorted(tasks):
        directory = state_dir / f"{task.processor}-{task.number}"
        if not StoreView.exists(directory) or stopping.is_set():
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="qmtl-sizes-") as scratch:
                out[task] = StoreSize(_rows(directory, Path(scratch), stopping), _bytes(directory))
        except (InvariantBroken, OSError):
            continue
    return out


def _rows(directory: Path, scratch: Path, stopping: threading.Event) -> dict[str, int]:
    view = StoreView(directory, scratch)
    try:
        out = {}
        for table in view.tables():
            out[table] = 0
            for _ in view.newest(table):
                out[table] += 1
                if out[table] % _SLICE == 0 and stopping.wait(_PAUSE_S):
                    return {}
        return out
    finally:
        view.close()


def _bytes(directory: Path) -> int:
    total = 0
    for file in directory.iterdir():
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # compacted away meanwhile
            continue
    return total
