"""How a clock that stands is seen: every worker that reads it tells of its newest tick, and of a log that has none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.contract.driving import until
from tests.interfaces.cli.deployed import settle
from tests.interfaces.metrics.scraping import Scrape
from tests.interfaces.metrics.whole import running, served
from tests.replay.logs import MINUTE_MS, START_MS, commit, ticks


def test_the_newest_tick_is_told_and_0_where_nobody_has_ever_ticked(tmp_path: Path) -> None:
    with running(tmp_path) as (client, metrics), served(client, metrics, tmp_path) as url:

        def tells(seconds: float) -> bool:
            return Scrape(url).get("qmtl_clock_newest_timestamp_seconds") == seconds

        until(partial(tells, 0))
        for minute in (3, 7):
            commit(client.log, ticks(minute, minute), "clock")
            settle(client)
            until(partial(tells, (START_MS + minute * MINUTE_MS) / 1000))
