"""`qmtl worker accept`: what keeps a task closed is told, decided, written down, and then the task opens."""

from __future__ import annotations

import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import LogRegressed
from qmtl.foundation.contracts.control import Acceptance
from qmtl.foundation.wire.registry import codec
from qmtl.services.worldservice.processor import WorldService
from tests.contract.driving import until
from tests.interfaces.cli.running import call, start
from tests.interfaces.metrics.scraping import ask
from tests.replay.logs import activate, create, run_worldservice


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A state directory whose log is older than its stores."""
    from qmtl.bootstrap import prepare

    with_log = EmbeddedLog(tmp_path / "log")
    prepare(with_log)
    run_worldservice(with_log, tmp_path, [[create("alpha")]])
    with_log.close()
    shutil.copytree(tmp_path / "log", tmp_path / "older")
    again = EmbeddedLog(tmp_path / "log")
    run_worldservice(again, tmp_path, [[activate("alpha", "s")]])
    again.close()
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "older").rename(tmp_path / "log")
    return tmp_path


def opened(place: Path) -> None:
    log = EmbeddedLog(place / "log")
    try:
        run_worldservice(log, place, [[create("beta")]])
    finally:
        log.close()


def acceptances(place: Path) -> list[Acceptance]:
    log = EmbeddedLog(place / "log")
    try:
        found = read_all(log, all_partitions(log, "ops.acceptances"))
        return [codec.decode(one.value) for one in found if one.value is not None]
    finally:
        log.close()


def command(place: Path, *more: str, task: str = "0") -> tuple[str, ...]:
    dirs = ("--log", f"embedded:{place / 'log'}", "--state-dir", str(place))
    return ("worker", "accept", "worldservice", "--task", task, *dirs, *more)


def test_a_decision_is_written_to_the_log_and_opens_the_task(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LogRegressed):
        opened(place)
    told = call(capsys, *command(place, "--reason", "restored from tape", "--by", "ann"))
    assert told.code == 0, told.err
    assert "accepted: activation[0]: the log is shorter than it was" in told.out
    (one,) = acceptances(place)
    assert (one.processor, one.task, one.by, one.reason) == ("worldservice", 0, "ann", "restored from tape")
    assert all(finding in told.out for finding in one.findings)
    opened(place)
    again = call(capsys, *command(place, "--reason", "again"))
    assert (again.code, "nothing to accept" in again.out) == (0, True)
    assert len(acceptances(place)) == 1


@pytest.mark.parametrize(
    "more, task, says",
    [
        ((), "0", "--reason"),
        (("--reason", "  "), "0", "--reason was empty"),
        (("--reason", "x"), "7", "--task was 7"),
    ],
)
def test_a_decision_without_a_reason_or_a_task_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], task: str, says: str
) -> None:
    told = call(capsys, *command(place, *more, task=task))
    assert told.code == 2
    assert says in told.err
    with pytest.raises(LogRegressed):
        opened(place)


def test_a_worker_that_refuses_shows_it_in_its_state_directory(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("worker", "list", "--log", f"embedded:{place / 'log'}", "--state-dir", str(place))
    log = EmbeddedLog(place / "log")
    with closing(Worker(log, WorldService, codec, TaskSettings(place / "tasks"))) as worker:
        with pytest.raises(LogRegressed):
            worker.step()
        found = {one["processor"]: one for one in call(capsys, *where, "--json").lines()}
        (why,) = found["worldservice"]["refused"].values()
        assert why.startswith("[QMTL-307] worldservice[0]: activation[0]: the log is shorter")
        assert "qmtl worker accept worldservice --task 0" in why
        assert found["trading"]["refused"] == {}
        said = call(capsys, *where).err
        assert "worldservice[0] is kept closed by its worker: [QMTL-307]" in said
    assert "kept closed" not in call(capsys, *where).err
    log.close()


def test_a_worker_with_nothing_but_a_refused_task_stays_says_why_and_drains(place: Path) -> None:
    dirs = ("--log", f"embedded:{place / 'log'}", "--state-dir", str(place))
    with start(place, "worker", "run", "worldservice", *dirs, "--metrics-port", "0") as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[2].removesuffix("/metrics,")
            until(lambda: "QMTL-307" in " ".join(ask(f"{url}/healthz").json()["reasons"]))
            assert ask(f"{url}/healthz").status == 503
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            assert process.wait(120) == 0
        finally:
            process.kill()
    assert "QMTL-307" in said
    assert "drained" in said
