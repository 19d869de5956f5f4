"""One small log for looking at: a table, a stream in three partitions, markers, stamps, tombstones, and bytes that don't decode."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmtl.engine.log.port import Record, TopicPartition, partitions_of
from qmtl.foundation.wire.keys import encode_key
from tests.interfaces.cli.deployed import Deployed, deploy
from tests.interfaces.cli.seen import Seen
from tests.replay.logs import (
    MINUTE_MS,
    RAW,
    RAW_SPEC,
    START_MS,
    Clock,
    bar,
    commit,
    log_in,
    marker,
    raw_task,
    row,
    stamp,
    tombstone,
    world,
)

MINUTES = 12


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A log that nobody writes any more, with all its records read beforehand."""
    directory = tmp_path_factory.mktemp("seen") / "log"
    clock = Clock()
    with log_in(directory, clock) as log:
        commit(log, [row("dag.tasks", raw_task())])
        for minute in range(MINUTES):
            clock.now_ms += MINUTE_MS
            bars = [
                row(RAW, bar(symbol, minute, f"{minute + 1}.50")) for symbol in ("BTC", "ETH", "LTC", "XRP")
            ]
            closed = START_MS + (minute + 1) * MINUTE_MS
            commit(log, [*bars, *(marker(RAW, closed, at) for at in range(RAW_SPEC.partitions))])
            commit(
                log, [row("world.state", world(f"w{minute % 3}", str(minute))), marker("world.state", closed)]
            )
            commit(log, [stamp("world.state", minute)])
        clock.now_ms += MINUTE_MS
        commit(
            log, [tombstone("world.state", "w2"), ("world.state", 0, encode_key(("torn",)), b"\x00rubbish")]
        )
        commit(log, [("world.state", 0, b"\xffkey", row("world.state", world("w9"))[3])])
        commit(log, [row("world.state", world("\x1b[31mred\x07\n"))])
        records: dict[str, list[Record]] = {
            name: [one for where in partitions_of(name, count) for one in log.read(where, 0)]
            for name, count in (("world.state", 1), (RAW, RAW_SPEC.partitions))
        }
        ends = dict(log.stable_offsets([TopicPartition("world.state", 0), *partitions_of(RAW, 3)]))
    return Seen(Path(directory), records, ends)


@pytest.fixture(scope="session")
def seen_deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A log with deployed strategies, to look at alone."""
    directory = tmp_path_factory.mktemp("deployed")
    deploy(directory)
    return Deployed(directory)


@pytest.fixture
def mine(seen_deployed: Deployed, tmp_path: Path) -> Deployed:
    """The same, to change."""
    return seen_deployed.copy(tmp_path / "mine")
