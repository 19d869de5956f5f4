"""The clock as it is deployed: in a system of one process, where time makes things happen, and as processes on a real Kafka."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.bootstrap import make_clock, make_workers, open_log, prepare
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView
from qmtl.foundation.contracts.diff import DiffState
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.dagmanager.server import NAMES
from qmtl.services.clock.edge import GROUP, keep_time
from tests.contract.driving import until
from tests.interfaces.cli.running import assert_one_screen, call, run, start
from tests.interfaces.cli.test_dagmanager_server import said, server
from tests.replay.logs import MINUTE_MS, START_MS, commit, row, ticks
from tests.services.clock.test_edge import NOW, written
from tests.services.dagmanager.test_diff_stream import wide
from tests.services.dagmanager.test_diffing import request

DAY_MS = 24 * 60 * MINUTE_MS


class OneProcess:
    """A server's processors and its clock on an embedded log, and a wall that is set by hand."""

    def __init__(self, log: EmbeddedLog, directory: Path) -> None:
        self.log, self.wall_ms = log, NOW
        prepare(log)
        self.workers = make_workers(log, TaskSettings(directory / "state"), NAMES)
        self.clock = make_clock(log, wall=lambda: self.wall_ms)

    def rest(self) -> None:
        """Until nobody has had anything to do for some rounds."""
        rounds = 0

        def over() -> bool:
            nonlocal rounds
            rounds += 1
            return rounds > 8

        keep_time(self.clock, self.workers, over, idle_s=0.0)

    def waits(self, ms: int) -> None:
        self.wall_ms += ms
        self.rest()

    def close(self) -> None:
        self.clock.close()
        for worker in self.workers:
            worker.close()


@pytest.fixture
def system(embedded_log: EmbeddedLog, tmp_path: Path) -> Iterator[OneProcess]:
    made = OneProcess(embedded_log, tmp_path)
    yield made
    made.close()


def test_an_answer_that_nobody_takes_is_told_of_and_given_up_by_the_time_of_the_wall(
    system: OneProcess,
) -> None:
    def state() -> DiffState | None:
        found = TableView(system.log, "dag.diff.streams", codec).refresh().get("r1")
        return None if found is None else found.state

    commit(system.log, [row("dag.diff.requests", request(wide(25)))])
    system.rest()
    assert state() is DiffState.OPEN
    system.waits(MINUTE_MS)
    system.waits(MINUTE_MS)
    assert state() is DiffState.TIMEOUT
    system.waits(61 * MINUTE_MS)
    assert state() is None
    system.waits(-DAY_MS)  # the wall is set back
    assert [one.bucket_ms - NOW for one in written(system.log)] == [
        0,
        MINUTE_MS,
        2 * MINUTE_MS,
        63 * MINUTE_MS,
    ]


def test_a_server_ticks_a_log_of_its_own_by_the_time_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "q.yml").write_text("state_dir: state\ntick_s: 1\n", "utf-8")
    address = f"embedded:{tmp_path}/state/log"
    with server(tmp_path, "--config", "q.yml") as process:
        said(process, "the clock ticks every 1 s")
        until(lambda: len(_ticked(address)) >= 2, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    found = _ticked(address)
    assert found == sorted(set(found))


def test_a_server_goes_on_without_ticking_a_log_that_feeds_tick(tmp_path: Path) -> None:
    address = f"embedded:{tmp_path}/state/log"
    log = open_log(address)
    prepare(log)
    commit(log, ticks(1, 3), "feed")
    log.close()
    (tmp_path / "q.yml").write_text("state_dir: state\ntick_s: 1\n", "utf-8")
    with server(tmp_path, "--config", "q.yml") as process:
        line = said(process, "QMTL-410")
        assert "goes on without ticking" in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert _ticked(address) == [START_MS + number * MINUTE_MS for number in (1, 2, 3)]


def test_the_worker_ends_where_feeds_tick_and_says_what_to_do(tmp_path: Path) -> None:
    address = f"embedded:{tmp_path}/log"
    log = open_log(address)
    prepare(log)
    commit(log, ticks(1, 3), "feed")
    log.close()
    ran = run(tmp_path, "worker", "run", "clock", "--log", address, **_path())
    assert ran.code == 1
    assert "[QMTL-410]" in ran.err
    assert "--config-epoch 2" in ran.err
    assert _ticked(address) == [START_MS + number * MINUTE_MS for number in (1, 2, 3)]


def test_only_the_clock_has_a_beat(capsys: pytest.CaptureFixture[str]) -> None:
    ran = call(capsys, "worker", "run", "nodes", "--log", "embedded:x", "--every", "5")
    assert_one_screen(ran, "QMTL-801", 2, says=["--every", "nodes"])


def _ticked(address: str) -> list[int]:
    log = open_log(address, read_only=True)
    try:
        return [one.bucket_ms for one in written(log)]
    finally:
        log.close()


def test_on_kafka_a_clock_stands_by_and_one_that_is_killed_leaves_no_tick_twice(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = f"kafka://{kafka_bootstrap}/clock-{uuid.uuid4().hex[:12]}"
    log = open_log(address)
    prepare(log)
    beside = make_clock(log, 1, "1")
    process = _run(tmp_path, address)

    def ticked(count: int) -> bool:
        beside.serve()
        return len(written(log)) >= count

    try:
        until(lambda: ticked(2), 60)
        until(lambda: ticked(1) and len(log.members(GROUP).members) == 2, 60)
        process.kill()  # whichever of the two ticks
        process.communicate()
        count = len(written(log))
        process = _run(tmp_path, address)
        until(lambda: ticked(count + 2), 60)
    finally:
        process.kill()
        process.communicate()
        beside.close()
        found = [one.bucket_ms for one in written(log)]
        log.close()
    assert found == sorted(set(found))
    assert all(tick % 1000 == 0 for tick in found)


def _run(cwd: Path, address: str) -> subprocess.Popen[str]:
    return start(cwd, "worker", "run", "clock", "--log", address, "--every", "1", **_path())


def _path() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
