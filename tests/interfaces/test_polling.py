"""The live poller: each closed bar once, none that is open, each bucket closed once, whatever stops it between two turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Log, partitions_of
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import ClockTaken, HistoryUnavailable, InvalidValue
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, node_topic
from qmtl.interfaces.feeding import Source
from qmtl.interfaces.polling import Poller
from qmtl.replay.feed import CLOCK
from qmtl.runtime.data.ccxt_history import CcxtProvider
from tests.runtime.data.exchange import MINUTE_MS, START_MS, Exchange, Row, rows_of, serving

TOPIC = "btc_price_12345678_v1"
SOURCE = Source(TOPIC, 3, 60, ("BTC-USDT",))
NAMES = {"BTC-USDT": "BTC/USDT"}
WITHOUT = (4, 5, 11)


def at(minute: int) -> int:
    return START_MS + minute * MINUTE_MS


@contextmanager
def a_log(place: Path) -> Iterator[Log]:
    log = open_log(f"embedded:{place}")
    try:
        log.ensure_topics([*CATALOGUE, node_topic(TOPIC, TopicClass.RAW, SOURCE.partitions)])
        yield log
    finally:
        log.close()


def poller(log: Log, exchange: Exchange, start_ms: int | None = None, settle_s: int = 0) -> Poller:
    provider = CcxtProvider("binance", exchange.settings(), retries=0, backoff_s=0.0, settle_s=settle_s)
    return Poller(log, provider, [SOURCE], names=NAMES, start_ms=start_ms)


def written(log: Log) -> tuple[list[Bar], list[list[int]]]:
    """The bars in the order of their times, and the closed buckets of each partition in the order of the log."""
    bars: list[Bar] = []
    closed: list[list[int]] = []
    for where in partitions_of(TOPIC, SOURCE.partitions):
        closed.append([])
        for record in read_all(log, [where]):
            if is_marker(record.key):
                closed[-1].append(decode_marker_bucket(record.key))
            elif record.value is not None:
                bars.append(codec.decode(record.value))
    return sorted(bars, key=lambda bar: bar.open_time_ms), closed


def said(rows: list[Row]) -> list[Bar]:
    return [Bar("BTC-USDT", row[0], 60, *(Decimal(text).normalize() for text in row[1:])) for row in rows]


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200_000), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 90),
)
def test_every_closed_bar_comes_once_at_its_close_and_no_open_one(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, bool, bool]], settle_s: int
) -> None:
    rows = rows_of(40, WITHOUT)
    place = tmp_path_factory.mktemp("poll") / "log"
    with serving(Exchange(rows, at(2))) as exchange, a_log(place) as log:
        one = poller(log, exchange, at(0), settle_s)
        for passed_ms, dies, fails in turns:
            exchange.now_ms += passed_ms
            settled = (exchange.now_ms - settle_s * 1000) // MINUTE_MS * MINUTE_MS
            exchange.faults = [503] if fails else []
            if dies:
                one = poller(log, exchange, at(0), settle_s)
            try:
                done = one.poll()
            except HistoryUnavailable:
                exchange.faults = []
                done = one.poll()
            assert done.closed_ms == settled
            bars, closed = written(log)
            assert bars == said([row for row in rows if row[0] + MINUTE_MS <= settled])
            assert closed == [list(range(at(1), settled + 1, MINUTE_MS))] * SOURCE.partitions


def test_without_a_start_it_begins_with_what_opens_now(tmp_path: Path) -> None:
    rows = rows_of(20, WITHOUT)
    with serving(Exchange(rows, at(6) + 1)) as exchange, a_log(tmp_path / "log") as log:
        one = poller(log, exchange)
        assert one.poll().buckets == 0
        exchange.now_ms = at(13)
        assert (one.poll().bars, written(log)[0]) == (
            6,
            said([row for row in rows if at(6) <= row[0] < at(13)]),
        )
        # Another one goes on where this one has closed, however much has passed.
        exchange.now_ms = at(19)
        assert poller(log, exchange).poll().bars == 6
        assert list(read_all(log, [CLOCK])) == []


def test_recorded_time_and_live_bars_do_not_share_a_log(tmp_path: Path) -> None:
    with serving(Exchange(rows_of(5), at(4))) as exchange, a_log(tmp_path / "log") as log:
        writer = log.writer("test")
        writer.begin()
        marker = codec.encode(CloseMarker("feed", 0, 1, at(1), 0, "", 1))
        writer.append("clock", 0, marker_key("feed", 0, at(1)), marker)
        writer.commit({}, "test", None)
        writer.close()
        with pytest.raises(ClockTaken, match="live bars"):
            poller(log, exchange, at(0)).poll()
        assert written(log)[0] == []


def test_sources_have_bars_of_one_length(tmp_path: Path) -> None:
    with serving(Exchange([], at(1))) as exchange, a_log(tmp_path / "log") as log:
        provider = CcxtProvider("binance", exchange.settings())
        for sources, start_ms in (([], None), ([SOURCE, Source("x", 1, 300, ("X",))], None), ([SOURCE], 1)):
            with pytest.raises(InvalidValue, match="one length"):
                Poller(log, provider, sources, start_ms=start_ms)
