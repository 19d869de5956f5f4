"""A manager as people run it: real runs, real signals, its state directory, its metrics."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import qmtl.examples
from qmtl.foundation.common.errors import RunsHeld, UsageError
from qmtl.interfaces.cli.main import main
from qmtl.interfaces.execution import state_dir as place
from qmtl.interfaces.execution.events import ManagerEvent, ReloadRefused, RunStarted, StatusLost
from qmtl.interfaces.execution.manager import Manager
from qmtl.interfaces.execution.plan import read_runs
from qmtl.interfaces.execution.policy import Phase
from qmtl.interfaces.execution.state_dir import Asked, RunStatus, Status
from tests.contract.driving import until
from tests.interfaces.cli.running import assert_one_screen, call, environment, run, start
from tests.interfaces.execution.scripts import ENDS_WHEN_ASKED, as_python, is_there, spec
from tests.interfaces.metrics.scraping import Scrape, ask

ROOT = Path(__file__).parents[3]
EXAMPLE = Path(str(qmtl.examples.__file__)).parent / "sma_cross.json"
RUNS = """
[defaults]
world = "w1"
domain = "live"
backoff_s = 0.1

[runs.one]
strategy = "sma_cross.json"
log = "embedded:one/log"
"""
STATE = Path(".qmtl/execution")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a strategy, a file of runs and an embedded log on which there is the world."""
    directory = tmp_path_factory.mktemp("runs")
    shutil.copy(EXAMPLE, directory / "sma_cross.json")
    (directory / "runs.toml").write_text(RUNS)
    assert main(["world", "create", "w1", "--log", f"embedded:{directory}/one/log"]) == 0
    return directory


@contextmanager
def managed(directory: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A manager in a process group of its own, as a terminal gives one; what is left of it is killed."""
    process = start(directory, "execution", "run", "runs.toml", "--output-dir", "out", *args)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def of(directory: Path, name: str) -> RunStatus:
    """How a run stands, once its manager has said it."""
    found: list[RunStatus] = []

    def there() -> bool:
        with suppress(UsageError):
            found[:] = [one for one in place.read(directory / STATE).runs if one.run == name]
        return bool(found)

    until(there)
    return found[0]


def pid_of(directory: Path, name: str, ready: Callable[[RunStatus], bool]) -> int:
    until(lambda: ready(of(directory, name)))
    pid = of(directory, name).pid
    assert pid is not None
    return pid


def said(directory: Path, name: str, what: str) -> int:
    """How often a run has said it."""
    try:
        return (directory / "out" / f"{name}.log").read_text().count(what)
    except OSError:
        return 0


def test_a_run_that_is_killed_comes_back_and_sigterm_of_the_manager_ends_all(begun: Path) -> None:
    with managed(begun, "--metrics-port", "0") as manager:
        first = pid_of(begun, "one", lambda one: one.pid is not None)
        until(lambda: said(begun, "one", "target is initialized") == 1)
        assert manager.stderr is not None
        url = manager.stderr.readline().split()[2].removesuffix("/metrics,")
        os.kill(first, signal.SIGKILL)
        second = pid_of(begun, "one", lambda one: one.restarts == 1 and one.phase is Phase.RUNNING)
        assert first != second
        assert not is_there(first)
        until(lambda: said(begun, "one", "target is initialized") == 2)
        assert said(begun, "one", "published before") == 1  # a restart asks for nothing new
        shown = Scrape(url)
        assert shown.get("qmtl_run_up", run="one") == 1
        assert shown.get("qmtl_run_restarts_total", run="one") == 1
        assert shown.get("qmtl_run_last_exit_code", run="one") == -9
        assert shown.get("qmtl_run_phase", run="one", phase="running") == 1
        assert shown.get("qmtl_run_phase", run="one", phase="given_up") == 0
        started = shown.get("qmtl_run_start_timestamp_seconds", run="one")
        assert started is not None
        assert abs(started - (of(begun, "one").started_ms or 0) / 1000) < 0.01
        assert (ask(f"{url}/healthz").status, ask(f"{url}/healthz").json()["runs"]) == (
            200,
            {"one": "running"},
        )
        (begun / "runs.toml").write_text("nonsense")
        manager.send_signal(signal.SIGHUP)
        while "all goes on as before: [QMTL-870]" not in (line := manager.stderr.readline()):
            assert line, "the manager has ended"
        (begun / "runs.toml").write_text(RUNS)
        assert of(begun, "one").pid == second
        manager.send_signal(signal.SIGTERM)
        assert manager.wait(60) == 0
        assert not is_there(second)
    assert said(begun, "one", "stopped    stopped") == 1
    assert of(begun, "one").phase is Phase.STOPPED


MANAGER = """
from tests.interfaces.execution.scripts import spec, supervised
deaf = "import signal\\nfor one in (1, 2, 15): signal.signal(one, signal.SIG_IGN)\\nprint('ready', flush=True)\\nwhile True: signal.pause()"
with supervised(spec("a", deaf)) as driven:
    driven.ready("a")
    print(driven.pid("a"), flush=True)
    driven.until(lambda: False)
"""


def test_who_kills_the_manager_kills_its_runs_even_one_that_stands_still() -> None:
    """Linux ties a process to its parent; elsewhere the run goes on. The run hears no signal that can be passed over."""
    if sys.platform != "linux":
        pytest.skip("only on Linux")
    manager = subprocess.Popen(
        [sys.executable, "-c", MANAGER], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert manager.stdout is not None
    pid = int(manager.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    manager.kill()
    manager.communicate()
    try:
        until(lambda: not is_there(pid), 20)
    finally:
        if is_there(pid):
            os.kill(pid, signal.SIGKILL)


# ---- the manager in this process, with programs for runs --------------------------------------------------------------

FILE = """
[defaults]
world = "w1"
log = "kafka://h:1"
backoff_s = 0.1
[runs.a]
strategy = "A"
"""
PROGRAM = {"A": ENDS_WHEN_ASKED, "BAD": "raise SystemExit(2)"}


class Here:
    """A manager of this process that is driven by what is asked of it in each of its rounds."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "runs.toml"
        self.file.write_text(FILE)
        self.state = directory / "state"
        self.events: list[ManagerEvent] = []
        self.lines: list[bytes] = []
        self.manager = Manager(
            self.file,
            read_runs(self.file),
            lambda one: as_python(spec(one.name, PROGRAM[one.strategy])),
            self.state,
            self.events.append,
            lambda run, line: self.lines.append(line),
        )
        self.rereads = 0

    def keep(self, *steps: tuple[Callable[[], bool], Callable[[], object]]) -> None:
        """Does each step when its condition is true, in order, then stops."""
        left = list(steps)

        def stopped() -> bool:
            if left and left[0][0]():
                left.pop(0)[1]()
            return not left

        def reread() -> bool:
            if self.rereads:
                self.rereads -= 1
                return True
            return False

        try:
            self.manager.keep(stopped, reread)
        finally:
            self.manager.close()

    def reread(self) -> None:
        self.rereads += 1


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with place.held(tmp_path / "state"):
        yield Here(tmp_path)


def test_what_is_asked_in_the_state_directory_is_done_and_told_there(here: Here) -> None:
    def asked(what: Asked) -> Callable[[], None]:
        return lambda: place.ask(here.state, "a", what)

    def now() -> RunStatus:
        (found,) = place.read(here.state).runs
        return found

    here.keep(
        (lambda: here.lines == [b"ready"], asked(Asked.RESTART)),
        (lambda: here.lines == [b"ready"] * 2, asked(Asked.STOP)),
        (lambda: now().phase is Phase.STOPPED, asked(Asked.START)),
        (lambda: here.lines == [b"ready"] * 3, lambda: None),
    )
    assert (now().phase, now().asked, now().restarts, now().last_exit, now().pid) == (
        Phase.STOPPED,
        3,
        0,
        0,
        None,
    )
    assert place.read(here.state).manager == os.getpid()


def test_a_verb_returns_when_what_it_asked_for_has_come_about(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int, Phase]] = []

    def verb(name: str) -> Callable[[], None]:
        def say() -> None:
            code = main(["execution", name, "a", "--state-dir", str(here.state)])
            seen.append((name, code, place.read(here.state).runs[0].phase))

        return Thread(target=say).start

    here.keep(
        (lambda: here.lines == [b"ready"], verb("stop")),
        (lambda: len(seen) == 1, verb("start")),
        (lambda: len(seen) == 2, verb("restart")),
        (lambda: len(seen) == 3, lambda: None),
    )
    assert seen == [("stop", 0, Phase.STOPPED), ("start", 0, Phase.RUNNING), ("restart", 0, Phase.RUNNING)]
    assert sum(isinstance(one, RunStarted) for one in here.events) == 3
    assert "stopped" in capsys.readouterr().out


def test_a_file_that_is_read_again_holds_unless_it_is_faulty(here: Here) -> None:
    def becomes(text: str) -> Callable[[], None]:
        def write() -> None:
            here.file.write_text(text)
            here.reread()

        return write

    bad = f'{FILE}[runs.b]\nstrategy = "BAD"\n'
    here.keep(
        (lambda: here.lines == [b"ready"], becomes("nonsense")),
        (lambda: any(isinstance(one, ReloadRefused) for one in here.events), becomes(bad)),
        (lambda: [one.phase for one in here.manager.look()][1:] == [Phase.GIVEN_UP], lambda: None),
    )
    (refused,) = (one for one in here.events if isinstance(one, ReloadRefused))
    assert refused.code == "QMTL-870"
    assert here.lines == [b"ready"]
    assert [(one.run, one.phase) for one in here.manager.look()] == [
        ("a", Phase.STOPPED),
        ("b", Phase.GIVEN_UP),
    ]


def test_a_state_directory_that_can_not_be_written_is_told_once_and_all_goes_on(here: Here) -> None:
    (here.state / place.STATUS).unlink()
    (here.state / place.STATUS).mkdir()
    here.keep((lambda: here.lines == [b"ready"], lambda: None))
    assert sum(isinstance(one, StatusLost) for one in here.events) == 1
    assert here.manager.look()[0].phase is Phase.STOPPED


def test_a_state_directory_has_one_manager(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_PATIENCE_S", 0.05)
    assert place.is_held(here.state)
    with (
        pytest.raises(RunsHeld, match="which another execution manager has") as refused,
        place.held(here.state),
    ):
        pass
    assert refused.value.code == "QMTL-872"
    assert not place.is_held(tmp_path / "another")
    here.manager.close()


def test_what_was_asked_of_an_earlier_manager_is_forgotten_and_what_nobody_asks_is_passed_over(
    tmp_path: Path,
) -> None:
    with place.held(tmp_path):
        pass
    place.ask(tmp_path, "a", Asked.STOP)
    with place.held(tmp_path):
        assert list(place.taken(tmp_path)) == []
        for name, data in (("b", b"stop"), ("c", b"nonsense"), (".d", b"stop"), ("e", b"\xff" * 99)):
            (tmp_path / place.ASKED / name).write_bytes(data)
        assert list(place.taken(tmp_path)) == [("b", Asked.STOP)]
        assert list(place.taken(tmp_path)) == []


STANDS = RunStatus("a", "s.py", "w1", "kafka://h:1", Phase.RUNNING, 7, 1_000, None, 2, -9, 3)


def test_how_runs_stand_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = Status(5, "runs.toml", 2_000, (STANDS,))
    place.write(tmp_path, status)
    assert place.read(tmp_path) == status
    assert [one.name for one in tmp_path.iterdir()] == [place.STATUS]


@pytest.mark.parametrize(
    "data", ["", "[", "{}", '{"format": 2}', '{"format": 1, "runs": [{}]}', "[" * 100_000]
)
def test_a_status_of_another_hand_is_refused(tmp_path: Path, data: str) -> None:
    (tmp_path / place.STATUS).write_text(data)
    with pytest.raises(UsageError, match="is no status that this version writes"):
        place.read(tmp_path)


# ---- the command line -----------------------------------------------------------------------------------------------------


def test_a_manager_of_which_a_run_was_given_up_says_so_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.toml").write_text(f"{FILE.replace('kafka://h:1', 'embedded:a/log')}")
    ended = run(tmp_path, "execution", "run", "runs.toml", "--json")
    assert ended.code == 11, ended
    assert "[QMTL-873] 1 of 1 runs did not end as they should have: a (given_up)." in ended.err
    events: list[dict[str, Any]] = ended.lines()
    assert [one["event"] for one in events if one["event"] != "said"] == [
        "run_started",
        "run_exited",
        "run_rests",
    ]
    assert any("QMTL-514" in one["line"] for one in events if one["event"] == "said")
    shown = call(capsys, "execution", "status", "--state-dir", str(tmp_path / STATE), "--json")
    assert shown.code == 0
    (one,) = shown.lines()
    assert (one["phase"], one["last_exit"], one["managed"]) == ("given_up", 5, False)


def test_the_verbs_refuse_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_screen(
        call(capsys, "execution", "status"), "QMTL-801", 2, says=["no execution manager has said"]
    )
    assert_one_screen(call(capsys, "execution", "run", "runs.toml"), "QMTL-870", 2, says=["No such file"])
    STATE.mkdir(parents=True)
    (STATE / place.ASKED).mkdir()
    place.write(STATE, Status(5, "runs.toml", 2_000, (STANDS,)))
    assert_one_screen(call(capsys, "execution", "stop", "b"), "QMTL-809", 6, says=["'b'", "There are a."])
    assert_one_screen(call(capsys, "execution", "stop", "a"), "QMTL-603", 6, says=["no manager runs"])
    shown = call(capsys, "execution", "status")
    assert shown.code == 0
    assert "1970-01-01T00:00:01" in shown.out
    assert "No manager runs" in shown.err


def test_check_shows_what_would_be_run(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "execution", "check", str(begun / "runs.toml"))
    assert (shown.code, "embedded:one/log" in shown.out) == (0, True)
    (one,) = call(capsys, "execution", "check", str(begun / "runs.toml"), "--json").lines()
    assert one["command"][:3] == ["qmtl", "strategy", "run"]
    assert json.dumps(one["directory"]) == json.dumps(str(begun.resolve()))
