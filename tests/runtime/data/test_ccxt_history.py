"""History of an exchange by ccxt: every closed bar once, exact, whatever goes wrong on the way, and no other."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.foundation.common.errors import ConflictingBars, HistoryUnavailable, InvalidValue
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.backfill import backfill
from qmtl.runtime.data.catalogue import Catalogue, writing
from qmtl.runtime.data.ccxt_history import CcxtProvider, timeframe
from qmtl.runtime.data.conformance import conform
from tests.runtime.data.exchange import MINUTE_MS, START_MS, Exchange, Row, rows_of, serving

SYMBOL = "BTC/USDT"


def opened(exchange: Exchange, retries: int = 2, page_bars: int = 10) -> CcxtProvider:
    return CcxtProvider("binance", exchange.settings(), page_bars=page_bars, retries=retries, backoff_s=0.0)


def at(minute: int) -> int:
    return START_MS + minute * MINUTE_MS


def said(rows: list[Row]) -> list[Bar]:
    return [Bar(SYMBOL, row[0], 60, *(Decimal(text).normalize() for text in row[1:])) for row in rows]


def fetched(provider: CcxtProvider, begin: int, end: int) -> list[Bar]:
    kept, _ = conform(provider.history(SYMBOL, 60, at(begin), at(end)), SYMBOL, 60)
    return [bar for chunk in kept for bar in chunk.bars()]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [429, 500],
        ["half", "half", 503, "half"],
        ["twice", "half", "twice"],
        ["cut", 418],
    ],
    ids=str,
)
def test_all_closed_bars_come_once_and_exact(faults: list[int | str]) -> None:
    rows = rows_of(35, without=[0, 7, 8, *range(12, 27)])
    with serving(Exchange(rows, at(33) + 30_000, list(faults))) as exchange:
        found = fetched(opened(exchange), 0, 40)
    assert found == said([row for row in rows if row[0] < at(33)])


def test_what_was_not_asked_for_does_not_come() -> None:
    with serving(Exchange(rows_of(35), at(1000))) as exchange:
        assert fetched(opened(exchange), 3, 14) == said(rows_of(35)[3:14])
        assert exchange.asked == [at(3), at(13)]


def test_nothing_traded_for_longer_than_a_page_is_no_end() -> None:
    rows = rows_of(60, without=range(3, 48))
    with serving(Exchange(rows, at(1000), page_only=True)) as exchange:
        assert fetched(opened(exchange), 0, 60) == said(rows)


def test_the_exchange_is_given_up_after_its_retries_and_what_was_fetched_stays(tmp_path: Path) -> None:
    rows = rows_of(40, without=[5])
    with serving(Exchange(rows, at(1000))) as exchange, writing(tmp_path) as writer:
        provider = opened(exchange, retries=1)
        exchange.faults = [500, "half", "fine", 429, "fine", "cut", 500]
        with pytest.raises(HistoryUnavailable, match="2 times"):
            backfill(writer, provider, SYMBOL, 60, at(0), at(40), chunk_bars=10)
        before = len(exchange.asked)
        kept = writer.catalogue.find(SYMBOL, 60)
        assert kept.bars == 19
        # Another provider of the same exchange goes on behind the last commit: nothing is asked for twice.
        done = backfill(writer, opened(exchange), SYMBOL, 60, at(0), at(40), chunk_bars=10)
        assert min(exchange.asked[before:]) > kept.to_ms
        assert (done.bars + kept.bars, done.known) == (39, 0)
        asked = len(exchange.asked)
        again = backfill(writer, opened(exchange), SYMBOL, 60, at(0), at(40), chunk_bars=10)
        assert (again.bars, again.skipped, len(exchange.asked)) == (0, 40, asked)
        found = list(Catalogue(tmp_path).columns(SYMBOL, 60).bars())
    assert found == said(rows)


def test_a_backfill_takes_up_what_has_closed_meanwhile(tmp_path: Path) -> None:
    rows = rows_of(30)
    with serving(Exchange(rows[:21], at(20) + 59_999)) as exchange, writing(tmp_path) as writer:
        first = backfill(writer, opened(exchange), SYMBOL, 60, at(0), at(30))
        assert (first.bars, first.to_ms) == (20, at(20))
        exchange.rows, exchange.now_ms = rows, at(30)
        second = backfill(writer, opened(exchange), SYMBOL, 60, at(0), at(30))
        assert (second.bars, second.skipped, second.to_ms) == (10, 20, at(30))
        assert list(writer.catalogue.columns(SYMBOL, 60).bars()) == said(rows)


def test_an_exchange_that_says_two_things_of_one_minute_is_refused_whole(tmp_path: Path) -> None:
    with serving(Exchange(rows_of(5), at(1000), ["liar"])) as exchange, writing(tmp_path) as writer:
        with pytest.raises(ConflictingBars, match=str(at(0))):
            backfill(writer, opened(exchange), SYMBOL, 60, at(0), at(5))
        assert writer.catalogue.commits() == ()


def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    with serving(Exchange(rows_of(5), at(1000), ["refuses"])) as exchange:
        with pytest.raises(HistoryUnavailable, match="refused"):
            fetched(opened(exchange), 0, 5)
        assert len(exchange.asked) == 1
        with pytest.raises(HistoryUnavailable, match="NO/SUCH"):
            list(opened(exchange).history("NO/SUCH", 60, at(0), at(5)))
        with pytest.raises(HistoryUnavailable, match="7m"):
            list(opened(exchange).history(SYMBOL, 420, 0, 420_000))
        with pytest.raises(InvalidValue, match="range"), writing(tmp_path) as writer:
            backfill(writer, opened(exchange), SYMBOL, 60, at(5), at(5))


def test_an_exchange_that_nobody_knows() -> None:
    with pytest.raises(HistoryUnavailable, match="nonesuch"):
        CcxtProvider("nonesuch")


@pytest.mark.parametrize(
    "seconds, frame", [(1, "1s"), (60, "1m"), (900, "15m"), (3600, "1h"), (86_400, "1d"), (604_800, "1w")]
)
def test_an_interval_is_written_as_ccxt_does(seconds: int, frame: str) -> None:
    import ccxt

    assert timeframe(seconds) == frame
    assert ccxt.Exchange.parse_timeframe(frame) == seconds
