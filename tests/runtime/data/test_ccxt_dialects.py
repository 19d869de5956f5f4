"""Exchanges that page in different ways give the same bars: every closed one once, exact, and no hole where nothing was traded."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.foundation.common.errors import HistoryUnavailable
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.backfill import backfill
from qmtl.runtime.data.catalogue import writing
from qmtl.runtime.data.ccxt_history import CcxtProvider
from qmtl.runtime.data.conformance import conform
from tests.runtime.data.dialects import DIALECTS, Dialect, Kraken, Okx, speaking
from tests.runtime.data.exchange import MINUTE_MS, START_MS, Row, rows_of


def at(minute: int) -> int:
    return START_MS + minute * MINUTE_MS


def said(symbol: str, rows: list[Row]) -> list[Bar]:
    return [Bar(symbol, row[0], 60, *(Decimal(text).normalize() for text in row[1:])) for row in rows]


def opened(dialect: Dialect) -> CcxtProvider:
    return CcxtProvider(dialect.exchange, dialect.settings(), retries=0)


@pytest.mark.parametrize("make", DIALECTS)
def test_all_closed_bars_come_once_and_exact_over_pages_without_trades(make: Callable[[], Dialect]) -> None:
    # Longer than two of the exchange's pages is nothing traded, which is longer than one page that is asked for, too.
    rows = rows_of(690, without=range(5, 660))
    with speaking(make()) as dialect:
        dialect.rows, dialect.now_ms = rows, at(688) + 30_000
        chunks = opened(dialect).history(dialect.symbol, 60, at(0), at(700))
        kept, _ = conform(chunks, dialect.symbol, 60)
    assert [bar for chunk in kept for bar in chunk.bars()] == said(
        dialect.symbol, [row for row in rows if row[0] < at(688)]
    )


@pytest.mark.parametrize("make", DIALECTS)
def test_a_backfill_goes_on_where_it_was(tmp_path: Path, make: Callable[[], Dialect]) -> None:
    rows = rows_of(650, without=[0, 17, 18])
    with speaking(make()) as dialect, writing(tmp_path) as writer:
        dialect.rows, dialect.now_ms = rows, at(340) + 1
        first = backfill(writer, opened(dialect), dialect.symbol, 60, at(0), at(650), chunk_bars=200)
        assert (first.bars, first.skipped, first.to_ms) == (337, 0, at(340))
        dialect.now_ms = at(650)
        second = backfill(writer, opened(dialect), dialect.symbol, 60, at(0), at(650), chunk_bars=200)
        assert (second.bars, second.known, second.skipped) == (310, 0, 340)
        found = list(writer.catalogue.columns(dialect.symbol, 60).bars())
    assert found == said(dialect.symbol, rows)


def test_what_an_exchange_no_longer_gives_is_refused_and_not_taken_for_untraded(tmp_path: Path) -> None:
    with speaking(Kraken()) as dialect, writing(tmp_path) as writer:
        dialect.rows, dialect.now_ms = rows_of(1000), at(1000)
        with pytest.raises(HistoryUnavailable, match=str(at(300))):
            backfill(writer, opened(dialect), dialect.symbol, 60, at(0), at(1000))
        assert writer.catalogue.commits() == ()
        done = backfill(writer, opened(dialect), dialect.symbol, 60, at(300), at(1000))
        assert done.bars == 700


def test_a_page_is_no_longer_than_the_exchange_gives_at_once() -> None:
    with speaking(Okx()) as dialect:
        dialect.rows, dialect.now_ms = rows_of(650), at(650)
        list(opened(dialect).history(dialect.symbol, 60, at(0), at(650)))
    pages = [query for path, query in dialect.asked if path.endswith("candles")]
    assert [int(one["limit"][0]) for one in pages] == [300, 300, 50]
