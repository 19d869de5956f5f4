"""The fake exchange's own ledger: one line of JSON per decision, on the disk before anybody hears of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qmtl.testing.exchange.values import GivenFill, TakenOrder, fill_json, fill_of, order_json, order_of


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision: an order as it is after it, and the executions that belong to it."""

    order: TakenOrder
    fills: tuple[GivenFill, ...]


class Ledger:
    """A file that is only ever appended to. A line that a kill has cut off is none: nobody was told of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def opened(self) -> list[Entry]:
        """What it holds from before; opens it for more."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        found = self._path.read_bytes()
        whole = found[: found.rfind(b"\n") + 1]
        file = self._path.open("r+b")
        file.truncate(len(whole))
        file.seek(len(whole))
        self._file = file
        return list(entries(self._path))

    def append(self, entry: Entry) -> None:
        assert self._file is not None
        self._file.write(json.dumps(_row(entry)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def entries(path: Path) -> Iterator[Entry]:
    """The decisions in a ledger, in order; also while an exchange writes it, and after it was killed."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        row = json.loads(line)
        yield Entry(order_of(row["order"]), tuple(fill_of(one) for one in row["fills"]))


def orders_and_fills(found: Sequence[Entry]) -> tuple[tuple[TakenOrder, ...], tuple[GivenFill, ...]]:
    """The orders as they are after all of these decisions, by number, and all executions."""
    latest = {one.order.order_id: one.order for one in found}
    return (
        tuple(latest[number] for number in sorted(latest)),
        tuple(fill for one in found for fill in one.fills),
    )


def _row(entry: Entry) -> dict[str, object]:
    return {"order": order_json(entry.order), "fills": [fill_json(one) for one in entry.fills]}
