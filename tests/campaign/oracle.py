"""What must come out of the campaign's pipeline, in plain Python, from what was put in; it knows nothing of QMTL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Put(NamedTuple):
    """One item that was put in."""

    name: str
    seq: int
    amount: int


Rows = dict[str, tuple[int, int]]
"""Amount and number of the last item, by name."""


@dataclass(slots=True)
class Sums:
    """The answers per name in order, and the two tables."""

    answers: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    totals: Rows = field(default_factory=dict)
    open: Rows = field(default_factory=dict)

    def take(self, item: Put) -> None:
        total = self.totals.get(item.name, (0, 0))[0] + item.amount
        self.totals[item.name] = (total, item.seq)
        if item.amount:
            self.open[item.name] = (self.open.get(item.name, (0, 0))[0] + item.amount, item.seq)
        else:
            self.open.pop(item.name, None)
        still = self.open.get(item.name, (0, 0))[0]
        self.answers.setdefault(item.name, []).append((item.seq, total, still))


@dataclass(slots=True)
class Loop:
    """The answers per name in order, and the tables after each bucket; a table begins empty, at bucket 0.

    Attributes:
        answers: bucket, number, state, state one bucket ago, sum of the next stage one bucket ago.
    """

    answers: dict[str, list[tuple[int, int, int, int, int]]] = field(default_factory=dict)
    state: dict[int, Rows] = field(default_factory=lambda: {0: {}})
    after: dict[int, Rows] = field(default_factory=lambda: {0: {}})
    mirror: dict[int, Rows] = field(default_factory=lambda: {0: {}})
    last: int = 0

    def take(self, bucket_ms: int, items: Sequence[Put]) -> None:
        before, seen = self.state[self.last], self.after[self.last]
        now, touched = dict(before), set()
        for item in items:
            touched.add(item.name)
            if item.amount:
                now[item.name] = (now.get(item.name, (0, 0))[0] + item.amount, item.seq)
            else:
                now.pop(item.name, None)
            amounts = (rows.get(item.name, (0, 0))[0] for rows in (now, before, seen))
            self.answers.setdefault(item.name, []).append((bucket_ms, item.seq, *amounts))  # type: ignore[arg-type] # three of them
        after = dict(seen)
        for name in touched & now.keys():
            amount, seq = now[name]
            after[name] = (after.get(name, (0, 0))[0] + amount, seq)
        self.state[bucket_ms], self.after[bucket_ms], self.mirror[bucket_ms] = now, after, dict(seen)
        self.last = bucket_ms
