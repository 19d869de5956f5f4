"""A backtest over columns leaves what the processors leave that read the same bars record by record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qmtl.backtest.recording import Recorder
from qmtl.backtest.simulation import Terms, simulate
from qmtl.bootstrap import open_log
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.demo.run import WORLD, load, strategy_message
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import BarSource, read_bars
from tests.flow.driving import Place


def events(log: Log, topic: str) -> list[Any]:
    records = read_all(log, all_partitions(log, topic))
    return [codec.decode(one.value) for one in records if one.value is not None and not is_reserved(one.key)]


def written(log: Log, topic: str) -> Counter[tuple[bytes, bytes | None]]:
    """Keys and values of a topic, byte for byte."""
    records = read_all(log, all_partitions(log, topic))
    return Counter((one.key, one.value) for one in records if not is_reserved(one.key))


def rows(log: Log, topic: str) -> list[Any]:
    return list(TableView(log, topic, codec).refresh().rows())


@pytest.mark.usefixtures("undisturbed")
def test_a_backtest_leaves_the_orders_fills_and_books_of_the_processors(
    undisturbed_place: Place, tmp_path: Path
) -> None:
    data = load([BarSource(symbol, path) for symbol, path in undisturbed_place.bars.items()])
    bars = {
        one.symbol: BarColumns.of(one.symbol, data.interval, read_bars(one.path, one.symbol, data.interval))
        for one in data.sources
    }
    log = open_log(undisturbed_place.log, read_only=True)
    own = EmbeddedLog(tmp_path)
    try:
        (world,) = (one for one in rows(log, "world.state") if one.world_id == WORLD)
        recorder = Recorder(own)
        for writer in (None, recorder):
            done = simulate([strategy_message(data)], bars, Terms(world_id=WORLD), recorder=writer)
            assert (done.world, done.fingerprint, done.end_ms) == (world, data.fingerprint, data.end_ms)
            assert sorted(done.gates, key=repr) == sorted(rows(log, "activation"), key=repr)
            assert len(done.fills) > 5
            assert sorted(done.intents, key=repr) == sorted(events(log, "trade.intents"), key=repr)
            assert sorted(done.orders.values(), key=repr) == sorted(rows(log, "trade.orders"), key=repr)
            assert sorted(done.fills, key=repr) == sorted(rows(log, "trade.fills"), key=repr)
            assert sorted(done.rejections, key=repr) == sorted(events(log, "trade.rejections"), key=repr)
            assert sorted(done.rows(), key=repr) == sorted(rows(log, "trade.portfolio"), key=repr)
        recorder.close()
        for topic in (
            "world.state",
            "activation",
            "trade.intents",
            "trade.orders",
            "trade.fills",
            "trade.rejections",
        ):
            assert written(own, topic) == written(log, topic)
        # The processors also write what changes in nothing but its mark.
        assert written(own, "trade.portfolio").items() <= written(log, "trade.portfolio").items()
        assert len(written(own, "trade.portfolio")) > len(written(own, "trade.fills"))
    finally:
        own.close()
        log.close()
