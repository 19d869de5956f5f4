"""Real processes are started, heard, restarted and ended as the policy says, and none outlives its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qmtl.interfaces.execution.events import (
    ManagerEvent,
    Reloaded,
    RunExited,
    RunKilled,
    RunNotStarted,
    RunRests,
    RunStarted,
    as_json,
    told,
)
from qmtl.interfaces.execution.output import OutputFiles
from qmtl.interfaces.execution.plan import Changes
from qmtl.interfaces.execution.policy import Phase, Restart, RestartAsked, StartAsked, StopAsked, Terms
from qmtl.interfaces.execution.process import MAX_LINE
from tests.interfaces.execution.scripts import ENDS_WHEN_ASKED, IGNORES, QUICK, is_there, spec, supervised


def test_what_a_run_says_comes_line_by_line_and_whole() -> None:
    program = (
        "import sys; sys.stdout.write('one\\n\\ntwo'); sys.stdout.flush(); sys.stderr.write(' and three\\n');"
        f"sys.stderr.flush(); sys.stdout.write('x' * {2 * MAX_LINE + 5} + '\\nlast')"
    )
    with supervised(spec("a", program)) as driven:
        driven.until(lambda: driven.supervisor.is_over)
        said = driven.said("a")
    assert said[:3] == [b"one", b"", b"two and three"]
    assert b"".join(said[3:]) == b"x" * (2 * MAX_LINE + 5) + b"last"
    assert said[-1] == b"last"
    assert max(map(len, said)) == MAX_LINE


def test_a_run_that_is_killed_is_started_again_and_one_that_fails_too_often_is_given_up_while_others_go_on() -> (
    None
):
    with supervised(spec("dies", "raise SystemExit(3)"), spec("lives", ENDS_WHEN_ASKED)) as driven:
        driven.ready("lives")
        before = driven.pid("lives")
        os.kill(before, signal.SIGKILL)
        driven.ready("lives", 2)
        after = driven.pid("lives")
        driven.until(lambda: driven.phase("dies") is Phase.GIVEN_UP)
        assert driven.starts("dies") == 1 + QUICK.max_restarts
        assert driven.phase("lives") is Phase.RUNNING
        driven.supervisor.stop()
        driven.until(lambda: driven.supervisor.is_over)
        assert driven.phase("lives") is Phase.STOPPED
        assert driven.supervisor.ends_badly
        assert not any(is_there(one) for one in (before, after))
        codes = [one.code for one in driven.events if isinstance(one, RunExited) and one.run == "lives"]
        assert codes == [-signal.SIGKILL, 0]


def test_one_that_does_not_end_when_asked_is_killed_after_its_grace_with_what_it_started() -> None:
    program = f"import os\nif os.fork() == 0: os.write(1, b'child %d\\n' % os.getpid())\n{IGNORES}"
    with supervised(spec("a", program, Terms(grace_ms=50))) as driven:
        driven.until(lambda: any(one.startswith(b"child") for one in driven.said("a")))
        driven.ready("a", 2)
        (child,) = (int(one.split()[1]) for one in driven.said("a") if one.startswith(b"child"))
        pid = driven.pid("a")
        driven.supervisor.stop()
        driven.until(lambda: driven.supervisor.is_over)
        assert RunKilled("a", pid) in driven.events
        assert driven.events[-1] == RunRests("a", Phase.FAILED, -signal.SIGKILL)
        driven.until(lambda: not is_there(child))
        assert not is_there(pid)


def test_no_ctrl_c_of_the_terminal_reaches_a_run() -> None:
    with supervised(spec("a", "import os; print(os.getsid(0) == os.getpid() != os.getppid())")) as driven:
        driven.until(lambda: driven.supervisor.is_over)
        assert driven.said("a") == [b"True"]


def test_a_process_that_has_the_output_of_a_run_does_not_keep_its_end_from_being_seen(tmp_path: Path) -> None:
    """One that writes on and on, too."""
    place = tmp_path / "pid"
    program = (
        f"import os\nif os.fork() == 0:\n  open({str(place)!r}, 'w').write(str(os.getpid()))\n"
        "  while True: os.write(1, b'on and on\\n' * 1000)"
    )
    with supervised(spec("a", program)) as driven:
        try:
            driven.until(lambda: driven.supervisor.is_over)
            assert driven.phase("a") is Phase.ENDED
        finally:
            driven.until(lambda: place.exists() and place.read_text() != "")
            os.kill(int(place.read_text()), signal.SIGKILL)


def test_a_run_that_says_much_does_not_hide_that_another_one_died() -> None:
    flood = "import os\nwhile True: os.write(1, b'on and on\\n' * 1000)"
    with supervised(spec("floods", flood), spec("dies", "raise SystemExit(1)")) as driven:
        driven.until(lambda: driven.phase("dies") is Phase.GIVEN_UP)
        assert driven.phase("floods") is Phase.RUNNING


def test_a_process_that_can_not_be_made_counts_as_one_that_failed(tmp_path: Path) -> None:
    with supervised(spec("a", "pass", directory=tmp_path / "nowhere")) as driven:
        driven.until(lambda: driven.supervisor.is_over)
        assert driven.phase("a") is Phase.GIVEN_UP
        assert sum(isinstance(one, RunNotStarted) for one in driven.events) == 1 + QUICK.max_restarts


def test_a_new_file_starts_what_is_new_stops_what_is_gone_restarts_what_changed_and_leaves_the_rest() -> None:
    same, changed = spec("same", ENDS_WHEN_ASKED), spec("changed", ENDS_WHEN_ASKED)
    gone, failed = spec("gone", ENDS_WHEN_ASKED), spec("failed", "raise SystemExit(2)")
    with supervised(same, changed, gone, failed) as driven:
        for name in ("same", "changed", "gone"):
            driven.ready(name)
        driven.until(lambda: driven.phase("failed") is Phase.GIVEN_UP)
        before = {name: driven.pid(name) for name in ("same", "changed", "gone")}
        patient = Terms(Restart.ALWAYS, grace_ms=20_000)
        others = [
            spec("new", ENDS_WHEN_ASKED),
            spec("changed", f"pass; {ENDS_WHEN_ASKED}"),
            spec("same", ENDS_WHEN_ASKED, patient),
            failed,
        ]
        driven.supervisor.reload(others)
        assert Reloaded(Changes(("new",), ("changed",), ("gone",), ("same", "failed"))) in driven.events
        driven.ready("new")
        driven.ready("changed", 2)
        driven.until(lambda: len(driven.supervisor.standings()) == 4)
        driven.until(lambda: driven.starts("failed") == 2 and driven.phase("failed") is Phase.GIVEN_UP)
        standings = driven.supervisor.standings()
        assert [one.spec for one in standings] == others
        assert driven.pid("same") == before["same"]
        assert not any(is_there(before[name]) for name in ("changed", "gone"))
        driven.supervisor.stop()
        driven.supervisor.reload([same])  # too late
        driven.until(lambda: driven.supervisor.is_over)
        assert [one.state.phase for one in driven.supervisor.standings()] == [Phase.STOPPED] * 3 + [
            Phase.GIVEN_UP
        ]


def test_an_embedded_log_goes_from_one_run_to_the_next_only_when_the_first_is_gone() -> None:
    """By the order in which they ended and started; two that swap their logs wait for each other's end and not for ever."""
    with supervised(spec("a", ENDS_WHEN_ASKED, log="/one"), spec("b", ENDS_WHEN_ASKED, log="/two")) as driven:
        driven.ready("a")
        driven.ready("b")
        changed = f"pass; {ENDS_WHEN_ASKED}"
        driven.supervisor.reload([spec("a", changed, log="/two"), spec("b", changed, log="/one")])
        driven.ready("a", 2)
        driven.ready("b", 2)
        driven.supervisor.reload([spec("c", changed, log="/one"), spec("a", changed, log="/two")])
        driven.ready("c")

        def places(kind: type[ManagerEvent], run: str) -> list[int]:
            return [
                at
                for at, one in enumerate(driven.events)
                if isinstance(one, kind) and isinstance(one, RunStarted | RunExited) and one.run == run
            ]

        swapped = max(places(RunExited, "a")[0], places(RunExited, "b")[0])
        assert min(places(RunStarted, "a")[1], places(RunStarted, "b")[1]) > swapped
        assert places(RunStarted, "c")[0] > places(RunExited, "b")[1]


def test_a_run_is_stopped_started_and_restarted_by_word_and_the_manager_goes_on() -> None:
    with supervised(spec("a", ENDS_WHEN_ASKED)) as driven:
        driven.ready("a")
        first = driven.pid("a")
        driven.supervisor.ask("nobody", StopAsked())
        driven.supervisor.ask("a", StartAsked())
        driven.supervisor.ask("a", RestartAsked())
        driven.ready("a", 2)
        assert driven.pid("a") != first
        driven.supervisor.ask("a", StopAsked())
        driven.until(lambda: driven.phase("a") is Phase.STOPPED)
        assert not driven.supervisor.is_over
        driven.supervisor.ask("a", StartAsked())
        driven.ready("a", 3)
        assert driven.supervisor.standings()[0].asked == 4
        assert driven.supervisor.standings()[0].state.restarted == 0
        driven.supervisor.stop()
        driven.supervisor.ask("a", StartAsked())  # too late
        driven.until(lambda: driven.supervisor.is_over)
        assert not driven.supervisor.ends_badly


def test_files_of_output_turn_and_what_can_not_be_written_is_told_once(tmp_path: Path) -> None:
    lost: list[object] = []
    files = OutputFiles(tmp_path / "out", lost.append, file_bytes=10, older=2)
    for number in range(8):
        files.write("a", b"line%d" % number)
    files.write("b", b"a line that is longer than a file")
    files.write("b", b"x")
    assert {one.name: one.read_bytes() for one in sorted((tmp_path / "out").iterdir())} == {
        "a.log": b"line7\n",
        "a.log.1": b"line6\n",
        "a.log.2": b"line5\n",
        "b.log": b"x\n",
        "b.log.1": b"a line that is longer than a file\n",
    }
    files.close()
    again = OutputFiles(tmp_path / "out", lost.append, file_bytes=12, older=0)
    again.write("a", b"line8")
    assert (tmp_path / "out/a.log").read_bytes() == b"line7\nline8\n"
    again.write("a", b"line9")
    assert (tmp_path / "out/a.log").read_bytes() == b"line9\n"
    again.close()
    assert not lost
    (tmp_path / "out/c.log").mkdir()
    again.write("c", b"no")
    again.write("c", b"no")
    assert len(lost) == 1
    (tmp_path / "out/c.log").rmdir()
    again.write("c", b"yes")
    assert (tmp_path / "out/c.log").read_bytes() == b"yes\n"
    again.close()


EVENTS = [
    (RunStarted("a", 7, 0), "a runs as process 7"),
    (RunStarted("a", 7, 2), "a runs as process 7, restart 2"),
    (RunExited("a", 7, -9, 1_250), "a was ended by signal 9 after 1.2 s"),
    (RunExited("a", 7, 3, 0), "a ended with exit code 3 after 0.0 s"),
    (
        RunRests("a", Phase.GIVEN_UP, 5),
        "a is GIVEN UP, as it ended with exit code 5; `qmtl execution restart a` tries again",
    ),
    (Reloaded(Changes(("b",), (), ("c",), ())), "the file was read again: starts b, stops c"),
    (Reloaded(Changes((), (), (), ("c",))), "the file was read again: no process changes"),
]


@pytest.mark.parametrize("event, line", EVENTS)
def test_an_event_as_a_line(event: ManagerEvent, line: str) -> None:
    assert told(event) == line


def test_an_event_as_an_object() -> None:
    assert as_json(RunRests("a", Phase.GIVEN_UP, None)) == {
        "event": "run_rests",
        "run": "a",
        "phase": "given_up",
        "last_exit": None,
    }
    assert as_json(Reloaded(Changes(("a",), (), (), ())))["started"] == ["a"]
