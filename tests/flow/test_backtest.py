"""A backtest over columns leaves what the processors leave that read the same bars record by record."""

from __future__ import annotations

from typing import Any

import pytest

from qmtl.backtest.simulation import Terms, simulate
from qmtl.bootstrap import open_log
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


def rows(log: Log, topic: str) -> list[Any]:
    return list(TableView(log, topic, codec).refresh().rows())


@pytest.mark.usefixtures("undisturbed")
def test_a_backtest_leaves_the_orders_fills_and_books_of_the_processors(undisturbed_place: Place) -> None:
    data = load([BarSource(symbol, path) for symbol, path in undisturbed_place.bars.items()])
    bars = {
        one.symbol: BarColumns.of(one.symbol, data.interval, read_bars(one.path, one.symbol, data.interval))
        for one in data.sources
    }
    log = open_log(undisturbed_place.log, read_only=True)
    try:
        done = simulate([strategy_message(data)], bars, Terms(world_id=WORLD))
        (world,) = (one for one in rows(log, "world.state") if one.world_id == WORLD)
        assert (done.world, done.fingerprint, done.end_ms) == (world, data.fingerprint, data.end_ms)
        assert sorted(done.gates, key=repr) == sorted(rows(log, "activation"), key=repr)
        assert len(done.fills) > 5
        assert sorted(done.intents, key=repr) == sorted(events(log, "trade.intents"), key=repr)
        assert sorted(done.orders.values(), key=repr) == sorted(rows(log, "trade.orders"), key=repr)
        assert sorted(done.fills, key=repr) == sorted(rows(log, "trade.fills"), key=repr)
        assert sorted(done.rejections, key=repr) == sorted(events(log, "trade.rejections"), key=repr)
        assert sorted(done.rows(), key=repr) == sorted(rows(log, "trade.portfolio"), key=repr)
    finally:
        log.close()
