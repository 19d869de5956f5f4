"""The door: every end is an exit code and at most one screen, and a verb loads only what it needs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from qmtl.foundation.common.errors import OtherRun
from qmtl.interfaces.cli import main as door
from qmtl.interfaces.cli.main import VERBS, LazyGroup, main
from tests.interfaces.cli.running import assert_one_screen, call, environment, run
from tests.interfaces.cli.seen import Seen

HEAVY = (
    "confluent_kafka",
    "rocksdict",
    "matplotlib",
    "rich",
    "fastavro",
    "prometheus_client",
    "qmtl.topology",
)


def loaded_by(*args: str) -> set[str]:
    """The modules that a command line loads, of those that cost something."""
    code = (
        "import sys, json\n"
        "from qmtl.interfaces.cli.main import main\n"
        f"main({list(args)!r})\n"
        f"print(json.dumps([one for one in {HEAVY!r} if one in sys.modules]), file=sys.stderr)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return set(json.loads(found.stderr.splitlines()[-1]))


# ---- what there is ------------------------------------------------------------------------------------------------

ONE_LINE = {"service dagmanager export-schema", "world create", "world activation set", "worker accept"}
"""What only says that it was done."""
ENDLESS = {"service dagmanager server", "worker run"}
DRAWN = {"topology"}


def verbs(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from verbs(found, *path, name)


def test_whatever_shows_something_shows_it_to_programs_too() -> None:
    plain = {
        name
        for name, verb in verbs(door.cli)
        if not any(isinstance(one, click.Option) and "--json" in one.opts for one in verb.params)
    }
    assert plain == ONE_LINE | ENDLESS | DRAWN


def test_help_names_every_family_of_verbs_and_loads_none(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert all(f"\n  {name} " in shown.out for name in VERBS)
    assert run(tmp_path, "-h") == shown
    assert run(tmp_path) == shown
    assert loaded_by("--help") == set()


def test_help_of_a_verb_loads_neither_kafka_nor_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["topic"], ["topic", "read"], ["state"], ["replay"]):
        assert loaded_by(*verb, "--help").isdisjoint({"confluent_kafka", "matplotlib", "qmtl.topology"}), verb
        assert call(capsys, *verb, "-h") == call(capsys, *verb, "--help")


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_of_the_table_is_a_command_with_help(name: str) -> None:
    context = click.Context(door.cli, info_name="qmtl")
    found = door.cli.get_command(context, name)
    assert found is not None
    assert found.name == name
    assert found.help


def test_the_version_is_one_line(tmp_path: Path) -> None:
    shown = run(tmp_path, "--version")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("qmtl ")
    assert shown.out.count("\n") == 1


# ---- how it ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--no-such"], "--no-such"),
        (["no-such"], "no-such"),
        (["topic", "no-such"], "qmtl topic --help"),
        (["topic", "read"], "NAME"),
        (["topic", "read", "clock", "--from-offset", "many"], "many"),
        (["topic", "read", "clock", "--from-time", "yesterday"], "ISO 8601"),
        (["topic", "read", "clock", "--limit", "0"], "0"),
        (["state", "clock", "--format", "xml"], "xml"),
        (["topic", "list", "--log", "redis://x"], "embedded:DIR"),
        (["topic", "list", "--log", "kafka://nohost"], "kafka://HOST:PORT"),
    ],
)
def test_a_command_line_that_does_not_parse_is_a_coded_error(
    capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    ran = call(capsys, *args)
    assert_one_screen(ran, "QMTL-801", 2, says=[says])
    assert ran.out == ""


def test_an_unknown_option_of_a_process_is_a_coded_error(tmp_path: Path) -> None:
    assert_one_screen(run(tmp_path, "topic", "list", "--no-such"), "QMTL-801", 2, says=["--no-such"])


def test_a_group_without_a_verb_shows_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    ran = call(capsys, "topic")
    assert ran.code == 2
    assert all(name in ran.out for name in ("list", "describe", "read"))


def test_a_log_that_is_not_there_is_named_with_a_remedy(tmp_path: Path) -> None:
    assert_one_screen(run(tmp_path, "topic", "list"), "QMTL-301", 3, says=[".qmtl/demo/log", "qmtl demo"])
    other = run(tmp_path, "topic", "list", QMTL_LOG="embedded:elsewhere")
    assert_one_screen(other, "QMTL-301", 3, says=["elsewhere"])
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_does_not_answer_is_named_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    ran = run(tmp_path, "topic", "list", "--log", f"kafka://127.0.0.1:{port}")
    assert_one_screen(ran, "QMTL-301", 3, says=[f"127.0.0.1:{port}", "make broker"])


@pytest.mark.parametrize("verb", [["topic", "describe"], ["topic", "read"], ["state"], ["replay", "digest"]])
def test_a_topic_that_is_not_there_is_named_with_a_remedy(
    capsys: pytest.CaptureFixture[str], seen: Seen, verb: list[str]
) -> None:
    ran = call(capsys, *verb, "no.such.topic", "--log", seen.address)
    assert_one_screen(ran, "QMTL-304", 3, says=["no.such.topic", "qmtl topic list"])


def fails_with(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    """Let `qmtl state` raise."""

    def state() -> None:
        raise problem

    monkeypatch.setattr(LazyGroup, "get_command", lambda self, context, name: click.command("state")(state))


def test_an_error_of_ours_ends_with_the_exit_code_of_its_class(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_with(monkeypatch, OtherRun("the state has other data.", "Use another directory."))
    ran = call(capsys, "state")
    assert_one_screen(ran, "QMTL-802", 8)
    assert ran.err == "[QMTL-802] the state has other data.\nUse another directory.\n"


@pytest.mark.parametrize(
    "bug",
    [ValueError("spilled\n\x1b[2Jmilk"), RecursionError(), AssertionError(), MemoryError("x" * 100_000)],
)
def test_a_bug_is_one_screen_that_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bug: BaseException
) -> None:
    fails_with(monkeypatch, bug)
    ran = call(capsys, "state")
    assert_one_screen(ran, "QMTL-000", 70, says=[type(bug).__name__, "QMTL_TRACEBACK=1"])
    assert "\x1b" not in ran.err
    monkeypatch.setenv("QMTL_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in call(capsys, "state").err


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, KeyboardInterrupt())
    assert call(capsys, "state") == (128 + signal.SIGINT, "", "")


def test_an_exit_that_a_command_asked_for_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_with(monkeypatch, click.exceptions.Exit(5))
    assert call(capsys, "state") == (5, "", "")
    fails_with(monkeypatch, SystemExit(6))
    with pytest.raises(SystemExit) as ended:
        main(["state"])
    assert ended.value.code == 6


def test_a_reader_that_goes_away_is_no_error(seen: Seen) -> None:
    command = f"{sys.executable} -m qmtl topic read world.state --markers --log {seen.address}; echo $? >&2"
    ran = subprocess.run(
        ["bash", "-c", f"({command}) | head -n 1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.stdout.startswith("PART")
    noise, code = ran.stderr.splitlines()[:-1], ran.stderr.splitlines()[-1]
    assert (code in ("0", "141"), [line for line in noise if "records; next is" not in line]) == (True, [])
