"""Deadlines: a provider that is silent is given up in time, one that answers is not, and what it says is what it said."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qmtl.foundation.common.errors import DataLate, HistoryUnavailable, InvalidValue
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.backfill import backfill
from qmtl.runtime.data.catalogue import writing
from qmtl.runtime.data.deadlines import Deadlines, Timely
from tests.runtime.data.walk import START_MS, SYMBOL, walk

MINUTE_MS = 60_000
LONG_S = 60.0


@dataclass
class Silent:
    """Gives chunks of ten minutes, and from one on nothing, until it is released."""

    chunks: int
    closed: bool = True
    released: threading.Event = field(default_factory=threading.Event)

    def source(self) -> Mapping[str, str]:
        return {"kind": "silent"}

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        if not self.closed:
            self.released.wait(LONG_S)
        return None

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        begin, end = ((one - START_MS) // MINUTE_MS for one in (start_ms, end_ms))
        for at in range(begin, end, 10):
            if not self.chunks:
                self.released.wait(LONG_S)
            self.chunks -= 1
            yield walk(at, min(at + 10, end))


def bounds(end: int) -> tuple[int, int]:
    return START_MS, START_MS + end * MINUTE_MS


def test_what_comes_in_time_is_what_the_provider_says() -> None:
    for deadlines in (Deadlines(), Deadlines(LONG_S, LONG_S, LONG_S)):
        timely = Timely(Silent(9), deadlines)
        assert timely.closed_ms(SYMBOL, 60) is None
        found = [bar for chunk in timely.history(SYMBOL, 60, *bounds(35)) for bar in chunk.bars()]
        assert found == list(walk(0, 35).bars())


def test_a_chunk_that_does_not_come_ends_the_backfill_and_the_next_one_goes_on(tmp_path: Path) -> None:
    silent = Silent(2)
    with writing(tmp_path) as writer:
        with pytest.raises(DataLate, match="next bars") as caught:
            backfill(writer, Timely(silent, Deadlines(chunk_s=0.05)), SYMBOL, 60, *bounds(40), chunk_bars=10)
        assert "0.05 s for this answer" in str(caught.value)
        assert "the source of data (kind silent) did not give" in str(caught.value)
        assert len(writer.catalogue.commits()) == 2
        silent.released.set()
        done = backfill(writer, Silent(9), SYMBOL, 60, *bounds(40), chunk_bars=10)
        assert (done.skipped, done.bars) == (20, 18)


def test_the_end_of_what_is_closed_has_a_deadline_of_its_own() -> None:
    silent = Silent(9, closed=False)
    with pytest.raises(DataLate, match="end of what is closed"):
        Timely(silent, Deadlines(closed_s=0.05)).closed_ms(SYMBOL, 60)
    silent.released.set()


def test_all_answers_together_have_a_deadline() -> None:
    now = [0.0]
    timely = Timely(Silent(9), Deadlines(chunk_s=LONG_S, total_s=10), clock=lambda: now[0])
    chunks = timely.history(SYMBOL, 60, *bounds(40))
    assert len(next(chunks)) == 9
    now[0] = 9.0
    assert len(next(chunks)) == 9
    now[0] = 10.0
    with pytest.raises(DataLate, match="10 s for all"):
        next(chunks)


def test_what_the_provider_raises_is_raised() -> None:
    class Refusing(Silent):
        def closed_ms(self, symbol: str, interval: int) -> int | None:
            raise HistoryUnavailable("no.", "never")

    with pytest.raises(HistoryUnavailable):
        Timely(Refusing(1), Deadlines(closed_s=LONG_S)).closed_ms(SYMBOL, 60)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_deadline_is_positive(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="chunk_s"):
        Deadlines(chunk_s=seconds)
