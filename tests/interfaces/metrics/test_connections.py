"""Connections to a broker that break are counted where a worker is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.testing.broker import start_broker
from tests.contract.driving import until
from tests.engine.driving import messages
from tests.engine.toys import ECHO, ITEMS, Counter, Feed, Item, make_topics
from tests.interfaces.metrics.scraping import shown

LOST = ("_TRANSPORT", "_ALL_BROKERS_DOWN")
COUNT = "qmtl_log_client_errors_total"


@pytest.mark.broker
def test_a_worker_that_loses_its_broker_shows_it_and_stays(tmp_path: Path) -> None:
    with start_broker() as broker:
        log = KafkaLog(broker.bootstrap)
        make_topics(log)
        Feed(log, ITEMS).put({0: [Item("a", 0, 1)]})
        with shown(log, tmp_path, Counter) as runs:
            until(lambda: not runs.worker.step(0.02) and len(messages(log, ECHO.name)) == 1)
            assert [runs.scrape().get(COUNT, error=error) for error in LOST] == [0, 0]
            broker.kill()
            until(lambda: not runs.worker.step(0.02) and all(lost in log.client_errors() for lost in LOST))
            before = log.client_errors()
            found = runs.scrape()
            after = log.client_errors()
            assert all(before[lost] <= (found.get(COUNT, error=lost) or 0) <= after[lost] for lost in LOST)
        log.close()
