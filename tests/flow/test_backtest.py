"""A backtest over columns leaves what the processors leave that read the same bars record by record."""

from __future__ import annotations

from typing import Any

import pytest

from qmtl.backtest.run import backtest
from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.demo.run import WORLD, load, strategy_message
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import BarSource, read_bars
from qmtl.services.dagmanager.admission import admit
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
        (world,) = (one for one in rows(log, "world.state") if one.world_id == WORLD)
        run = backtest(
            [admit(strategy_message(data), 0)],
            bars,
            world,
            rows(log, "activation"),
            data.start_ms,
            data.interval * 1000,
        )
        book = run
        assert len(book.fills) > 5
        assert sorted(run.intents, key=repr) == sorted(events(log, "trade.intents"), key=repr)
        assert sorted(book.orders.values(), key=repr) == sorted(rows(log, "trade.orders"), key=repr)
        assert sorted(book.fills, key=repr) == sorted(rows(log, "trade.fills"), key=repr)
        assert sorted(book.rejections, key=repr) == sorted(events(log, "trade.rejections"), key=repr)
        assert sorted(book.rows(), key=repr) == sorted(rows(log, "trade.portfolio"), key=repr)
    finally:
        log.close()
