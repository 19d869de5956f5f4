"""The incremental form of the book: a fact that follows costs one booking, a late one a fold from the last checkpoint before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qmtl.foundation.common.errors import FactTooLate, QmtlError
from qmtl.runtime.accounting.book import Book, Booking
from qmtl.runtime.accounting.facts import Fact, Place, place_of, require, require_instant, require_same
from qmtl.runtime.accounting.instrument import Terms

CHECKPOINT_EVERY: Final = 512
"""Facts between two checkpoints."""

MAX_CHECKPOINTS: Final = 64
"""Where there are more, every second of the older half is left out: what is older is asked for less often."""

NEVER: Final = -(2**63)
"""Before any instant."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The first record of a partition that is not included."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a journal is. Restored, and given the log from `positions` on, it becomes what the first one becomes.

    Attributes:
        closed: the book of all facts before `closed_ms`, which are not kept.
        facts: every revision of those since, in the order of places and revisions.
        positions: which records are included, by topic and partition.
        book: of them all.
    """

    closed: Book
    closed_ms: int
    facts: tuple[Fact, ...]
    positions: tuple[LogPosition, ...]
    book: Book


class Journal:
    """A book that grows.

    Args:
        terms: the same for all its life; a book on other terms is another journal.
        checkpoint_every: facts between two checkpoints.
    """

    def __init__(self, terms: Terms, checkpoint_every: int = CHECKPOINT_EVERY) -> None:
        self._terms = terms
        self._every = checkpoint_every
        self._versions: dict[tuple[str, int], Fact] = {}
        self._newest: dict[str, Fact] = {}
        self._facts: list[Fact] = []
        self._places: list[Place] = []
        self._closed_ms = NEVER
        self._positions: dict[tuple[str, int], int] = {}
        self._booking = Booking(terms)
        self._checkpoints = [(0, self._booking.copy())]
        self._book: Book | None = None

    @classmethod
    def restored(cls, snapshot: Snapshot, terms: Terms, checkpoint_every: int = CHECKPOINT_EVERY) -> Journal:
        """Args:
        terms: those with which the snapshot was made.
        """
        made = cls(terms, checkpoint_every)
        made._closed_ms = snapshot.closed_ms
        made._booking = Booking.of(snapshot.closed, terms)
        made._checkpoints = [(0, made._booking.copy())]
        made._positions = {(one.topic, one.partition): one.offset for one in snapshot.positions}
        made.add(snapshot.facts)
        return made

    def __len__(self) -> int:
        """How many facts are kept, each once."""
        return len(self._facts)

    @property
    def positions(self) -> tuple[LogPosition, ...]:
        return tuple(LogPosition(*place, self._positions[place]) for place in sorted(self._positions))

    def book(self) -> Book:
        """Of all facts so far."""
        if self._book is None:
            self._book = self._booking.frozen()
        return self._book

    def take(self, topic: str, partition: int, offset: int, facts: Iterable[Fact]) -> bool:
        """The facts of one record of a log. A record that is included already is passed over.

        Returns:
            Whether the record was new.

        Raises:
            As `add`; the record then counts as not taken.
        """
        if offset < self._positions.get((topic, partition), 0):
            return False
        self.add(facts)
        self._positions[topic, partition] = offset + 1
        return True

    def add(self, facts: Iterable[Fact]) -> None:
        """Facts in any order, among them some that are known. All of them are booked, or, where an error is raised, none.

        Raises:
            ConflictingFact: two tellings of one fact that differ.
            FactTooLate: a fact before the instant up to which the journal is closed.
            InvalidValue, InexactMoney, UnknownInstrument: a fact that can't be booked.
        """
        fresh = self._fresh(facts)
        if not fresh:
            return
        newest: dict[str, Fact] = {}
        for fact in fresh.values():
            known = newest.get(fact.fact_id) or self._newest.get(fact.fact_id)
            if known is None or fact.revision > known.revision:
                newest[fact.fact_id] = fact
        changed = sorted(newest.values(), key=place_of)
        if not changed:
            self._versions.update(fresh)
            return
        first = place_of(changed[0])
        if self._places and first <= self._places[-1]:
            self._insert(changed, first)
        else:
            self._append(changed)
        self._versions.update(fresh)
        self._newest.update(newest)
        self._book = None

    def close(self, before_ms: int) -> None:
        """Keeps of the facts before an instant only what they come to. A fact from before it is refused from then on, a known one too:
        who reads a log anew has its positions (`take`), or begins with a new journal.
        """
        if before_ms <= self._closed_ms:
            return
        count = bisect_left(self._places, (before_ms, ""))
        booking = self._rewound(count)
        for fact in self._facts[:count]:
            del self._newest[fact.fact_id]
        self._versions = {key: fact for key, fact in self._versions.items() if fact.at_ms >= before_ms}
        kept = self._facts[count:]
        self._facts, self._places = [], []
        self._closed_ms = before_ms
        self._booking = booking
        self._checkpoints = [(0, booking.copy())]
        self._append(kept)
        self._book = None

    def snapshot(self) -> Snapshot:
        facts = sorted(self._versions.values(), key=lambda fact: (place_of(fact), fact.revision))
        closed = self._checkpoints[0][1].frozen()
        return Snapshot(closed, self._closed_ms, tuple(facts), self.positions, self.book())

    def _fresh(self, facts: Iterable[Fact]) -> dict[tuple[str, int], Fact]:
        """The tellings that are new, in the order in which they came."""
        fresh: dict[tuple[str, int], Fact] = {}
        instants: dict[str, Fact] = {}
        for fact in facts:
            require(fact)
            if fact.at_ms < self._closed_ms:
                raise FactTooLate(
                    f"{fact.fact_id} was at {fact.at_ms}, and the book is closed up to {self._closed_ms}.",
                    "Fold the log anew from its start.",
                )
            key = (fact.fact_id, fact.revision)
            known = self._versions.get(key) or fresh.get(key)
            if known is not None:
                require_same(known, fact)
                continue
            other = self._newest.get(fact.fact_id) or instants.setdefault(fact.fact_id, fact)
            require_instant(other, fact)
            fresh[key] = fact
        return fresh

    def _append(self, facts: list[Fact]) -> None:
        before = len(self._facts)
        try:
            self._book_all(facts)
        except QmtlError:
            del self._facts[before:]
            del self._places[before:]
            self._booking = self._rewound(before)
            raise

    def _book_all(self, facts: list[Fact]) -> None:
        for fact in facts:
            self._booking.book(fact)
            self._facts.append(fact)
            self._places.append(place_of(fact))
            if len(self._facts) % self._every == 0:
                self._checkpoints.append((len(self._facts), self._booking.copy()))
                if len(self._checkpoints) > MAX_CHECKPOINTS:
                    del self._checkpoints[1 : MAX_CHECKPOINTS // 2 : 2]

    def _insert(self, changed: list[Fact], first: Place) -> None:
        """Books all facts from the first of the changed ones on anew."""
        at = bisect_left(self._places, first)
        tail = self._facts[at:]
        replaced = {place_of(fact) for fact in changed}
        merged = sorted([*(fact for fact in tail if place_of(fact) not in replaced), *changed], key=place_of)
        self._cut(at)
        try:
            self._append(merged)
        except QmtlError:
            self._append(tail)
            raise

    def _cut(self, count: int) -> None:
        self._booking = self._rewound(count)
        del self._facts[count:]
        del self._places[count:]

    def _rewound(self, count: int) -> Booking:
        """The booking of the first facts; checkpoints behind them are forgotten."""
        while self._checkpoints[-1][0] > count:
            self._checkpoints.pop()
        since, booking = self._checkpoints[-1]
        booking = booking.copy()
        for fact in self._facts[since:count]:
            booking.book(fact)
        return booking
